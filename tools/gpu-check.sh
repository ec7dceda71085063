#!/usr/bin/env bash
# One unattended run on a machine with an NVIDIA GPU: what cannot be tested without one (docs/gpu.md). Every item has a time limit of
# its own; results are appended as JSON lines as they come, so that a run that is cut short leaves what it has, and what items print
# is kept beside them; the table comes last.
#   tools/gpu-check.sh [--compile] [RESULTS]        default: gpu-check.jsonl
# --compile: only speeds, beside PyTorch's compiled modes, which take minutes to compile: a second call.
# BUILD_DIR: the build (default build); what `make gpu-bundle` has left in gpu/ below it is taken, else it is built. NVCC, CUDA_ARCHS: as
# for make. BUDGET: seconds in all (default 570). ITEMS: only items whose name this extended regular expression matches. MODELS: lines
# "model peer's-name batch optimizer" instead of those below. SEEDS: speed runs, at most (default 50), and as many of the original
# recipe in PyTorch; they come last, ours take half of the time that is left (all of it without the others), the original the rest.
# PEER: path of a script that measures PyTorch (default: the bundle's), called with --models NAME --batch N --modes LIST --prec bf16
# --budget S --out FILE and more; a JSON line of it has mode, train_img_s and peak_alloc_MiB. PEER_PYTHON: what runs it and the
# original recipe (default: /opt/torch/.venv's python3 if there is one, else the first on the path). FOVEA_DATA: data sets; PACK: as
# of tools/prepare-data.sh (default: the bundle's), unpacked where FOVEA_DATA has no CIFAR-10. Without that there is no speed run.
# Exit code: 0 all passed, 1 something failed, 6 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
compile=
[ "${1:-}" = --compile ] && { compile=1; shift; }
results=$(realpath -m "${1:-gpu-check.jsonl}")
logs=${results%.jsonl}-logs
build=${BUILD_DIR:-build}
budget=${BUDGET:-570}
started=$SECONDS
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
table=() failed=0

if ! gpu=$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$gpu" ]; then
    echo "gpu-check: there is no GPU: nvidia-smi shows none" >&2
    exit 6
fi
capability=$(cut -d, -f3 <<<"$gpu" | tr -d ' .')
[ "$capability" = 90 ] && capability=90a
mkdir -p "$logs" && : >"$results" || exit 5
: >"$temp/tables"

# ---------------------------------------------------------------- items: one after the other, or several at once

# JSON string of the text on standard input, cut to a sensible length.
quoted() { tr -c '[:print:]\n' '?' | tail -c 1500 | sed 's/\\/\\\\/g; s/"/\\"/g' | awk 'BEGIN { printf "\"" } { printf "%s%s", (NR > 1 ? "\\n" : ""), $0 } END { printf "\"" }'; }

names=() begun=() jobs=()
# begin NAME SECONDS COMMAND...: in the background, within the time that is left.
begin() {
    local name=$1 limit=$2 left=$((budget - (SECONDS - started)))
    shift 2
    [[ $name =~ ${ITEMS:-.} ]] || return 0
    [ "$limit" -gt "$left" ] && limit=$left
    (
        rc=78
        [ "$limit" -gt 0 ] && { timeout -k 5 "$limit" "$@" >"$logs/$name.txt" 2>&1 </dev/null; rc=$?; }
        echo "$rc $SECONDS" >"$temp/$name.rc"
    ) &
    jobs+=($!) names+=("$name") begun+=($SECONDS)
}
# Wait for what has begun; passed by exit code. One that is out of time keeps what it has printed.
collect() {
    local i name rc end verdict seconds
    for i in "${!names[@]}"; do
        name=${names[i]}
        wait "${jobs[i]}"
        read -r rc end <"$temp/$name.rc"
        seconds=$((end - begun[i]))
        case $rc in
        0) verdict=passed ;;
        77) verdict=skipped ;;
        78) verdict="not reached" failed=$((failed + 1)) ;;
        124 | 137) verdict="out of time" failed=$((failed + 1)) ;;
        *) verdict="failed ($rc)" failed=$((failed + 1)) ;;
        esac
        [ -e "$logs/$name.txt" ] || : >"$logs/$name.txt"
        table+=("$(printf '%-34s %-12s %4d s  %s' "$name" "$verdict" "$seconds" "$(tail -n 1 "$logs/$name.txt" | cut -c 1-110)")")
        printf '{"item": "%s", "verdict": "%s", "seconds": %d, "output": %s}\n' "$name" "$verdict" "$seconds" \
            "$(quoted <"$logs/$name.txt")" >>"$results"
        printf '%s\n' "${table[-1]}" >&2
    done
    names=() begun=() jobs=()
}
item() { begin "$@" && collect; }

# field KEY: its value in the JSON object on the last line of standard input that has it; nothing if none has.
field() { sed -nE 's/.*"'"$1"'": *("([^"]*)"|([^],}]*)).*/\2\3/p' | tail -n 1; }

# ---------------------------------------------------------------- what is run

build_all() {
    local rc=0 nvcc
    nvcc=${NVCC:-$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc)}
    if [ -n "$nvcc" ]; then
        make_it() { make -k -s -j"$(nproc)" NO_DEPS=1 CUDA_ARCHS="${CUDA_ARCHS:-$capability}" "$@" 2>&1 | tail -n 8; return "${PIPESTATUS[0]}"; }
        make_it "$build/fovea" cuda || rc=1
        make_it "$build/unit-tests" || rc=1
        make_it "$build/gpu-ceilings" || echo "without $build/gpu-ceilings"
        [ $rc -ne 0 ] && echo "THE BUILD FAILED: what was built before is checked, if anything was"
    else
        echo "neither a bundle (make gpu-bundle) nor nvcc: what is built already is checked"
    fi
    for file in fovea libfovea-cuda.so unit-tests; do
        [ -e "$build/$file" ] || { echo "$build/$file is not there"; rc=1; }
    done
    return $rc
}

about() {
    cat "$build/about.txt"
    "$build/fovea" version
}

# Both libraries must be there, and be used.
versions() {
    local rc=0
    echo "$gpu"
    nvidia-smi --query-gpu=clocks.max.sm,clocks.max.mem,pci.bus_id,ecc.mode.current --format=csv,noheader
    "$build/fovea" bench --model resnet20 -b 4 --img-size 8 --device cuda --precision bf16 --seconds 0.1 -v 2>&1 || return 1
    "$build/fovea" train --data synthetic --model mlp_500 --fraction 0.01 -b 16 --epochs 1 --device cuda --output "$temp" --name versions --quiet || return 1
    grep -q 'cuDNN engine' "$logs/device and versions.txt" || { echo "NO CONVOLUTION RUNS WITH cuDNN"; rc=1; }
    grep -q ': cuBLASLt' "$logs/device and versions.txt" || { echo "NO PRODUCT RUNS WITH cuBLASLt"; rc=1; }
    for library in cuDNN cuBLASLt; do
        grep -qE "\"libraries\".*$library" "$temp/versions/env.json" || { echo "$library IS NOT IN USE"; rc=1; }
    done
    grep -E '"device"' "$temp/versions/env.json"
    grep -E '"libraries"' "$temp/versions/env.json"
    return $rc
}

ceilings() {
    [ -x "$build/gpu-ceilings" ] || { echo "$build/gpu-ceilings is not there"; return 77; }
    "$build/gpu-ceilings" | tee >(grep '^{' >>"$results")
    return "${PIPESTATUS[0]}"
}

unit_tests() { # unit_tests CASE SUITE: those that open the device, on the real one; other devices have been tested elsewhere
    local said rc
    said=$(mktemp "$temp/unit.XXXXXX")
    FOVEA_BACKENDS=$(realpath "$build") FOVEA_TEST_BACKEND=cuda CK_FORK=no CK_RUN_CASE=$1 "$build/unit-tests" "$2" 2>&1 | tee "$said"
    rc=${PIPESTATUS[0]}
    if grep -q 'SKIPPED: device cuda' "$said"; then echo "the tests did not find the device"; return 1; fi
    grep -E '^[0-9]+%: Checks' "$said" || { echo "the tests did not come to their end"; return 1; }
    return "$rc"
}

# In bf16, where kernels have most to go wrong: sanitizer TOOL MODEL SIZE
sanitizer() {
    local tool options=()
    tool=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer) || { echo "no compute-sanitizer"; return 77; }
    [ "$1" = memcheck ] && options=(--report-api-errors no) # libraries ask for what is not there, and do without
    "$tool" --tool "$1" "${options[@]}" --error-exitcode 9 "$build/fovea" bench --model "$2" --device cuda --precision bf16 --mode train -b 4 --img-size "$3" \
        --seconds 0.1 --no-cuda-graphs
}

# Three runs of each precision, then the losses of the first beside those of the processor: rounding differs, the course does not.
same_bits() {
    local run=(train --data synthetic --model resnet20 --fraction 0.1 -b 32 --epochs 2 --seed 7 --output "$temp" --quiet) name precision
    for precision in float32 bf16 float16; do
        "$build/fovea" "${run[@]}" --device cuda --precision $precision --name first-$precision &&
            "$build/fovea" "${run[@]}" --device cuda --precision $precision --name second-$precision &&
            "$build/fovea" "${run[@]}" --device cuda --precision $precision --no-cuda-graphs --name plain-$precision || return 1
        for name in second plain; do
            cmp "$temp/first-$precision/weights/last/model.safetensors" "$temp/$name-$precision/weights/last/model.safetensors" || return 1
        done
        echo "$precision: three runs, one without CUDA graphs: the same weights"
    done
    "$build/fovea" "${run[@]}" --device cpu --name cpu || return 1
    for precision in float32 bf16 float16; do
        paste -d, <(cut -d, -f3 "$temp/first-$precision/results.csv") <(cut -d, -f3 "$temp/cpu/results.csv") | awk -F, -v what=$precision '
            NR > 1 { d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d; rows++ }
            END { printf "%s: training loss %.2e off the processor'"'"'s, at most, over %d epochs\n", what, worst, rows; exit !(rows > 0 && worst < (what == "float32" ? 1e-2 : 5e-2)) }' ||
            return 1
    done
}

# ---------------------------------------------------------------- speeds

# Ours, PyTorch's name, batch and optimizer of both: PyTorch's batches, but for the speed run's own.
models=${MODELS:-"resnet18_cifar resnet18 512 sgd
speedrun94 airbench94 1024 sgd
vit_tiny_patch4_32 vit_tiny 1024 adamw
resnet20 resnet20 1024 sgd
resnet50 resnet50 256 sgd"}

# speed NAME MODEL PEERS_NAME BATCH OPTIMIZER OPTION...: a JSON line to the results and to $temp/MODEL.ours, a row to the output.
speed() {
    local name=$1 model=$2 line rc
    line=$(timeout --foreground -k 2 "$tries" "$build/fovea" bench --model "$model" -b "$4" --opt "$5" --device cuda --mode train --seconds 1 "${@:6}" --json 2>"$temp/$model.err" | tail -n 1)
    rc=${PIPESTATUS[0]}
    if [ "$(field images_per_s <<<"$line")" = "" ]; then
        printf '%-18s %s\n' "$name" "no figure ($([ "$rc" -eq 124 ] && echo "out of time" || tail -n 1 "$temp/$model.err"))"
        return 1
    fi
    echo "{\"options\": \"$name\", ${line#\{}" | tee -a "$temp/$model.ours" >>"$results"
    printf '%-18s %12s images/s %9s MB, first step after %s s\n' "$name" "$(field images_per_s <<<"$line")" "$(field device_peak_mb <<<"$line")" \
        "$(field first_step_s <<<"$line")"
}

# peer MODEL NAME BATCH MODES SECONDS: JSON lines to the results and to $temp/MODEL.peer, rows to the output.
peer() {
    [ -n "$peer" ] || { echo "PyTorch            is left out: PEER is not set"; return; }
    "$python" "$peer" --modes "$4" --models "$2" --batch "$3" --prec bf16 --no-infer --no-ceilings --budget "$5" --item-limit $(($5 / 2)) \
        --out "$temp/$1.peer" >"$logs/$1, PyTorch.txt" 2>&1 || { echo "PyTorch            $(tail -n 1 "$logs/$1, PyTorch.txt")"; return 1; }
    cat "$temp/$1.peer" >>"$results"
    while read -r line; do
        [ -n "$(field train_img_s <<<"$line")" ] || { printf '%-18s no figure: %s\n' "PyTorch" "$line"; continue; }
        printf '%-18s %12s images/s %9s MB\n' "PyTorch $(field mode <<<"$line")" "$(field train_img_s <<<"$line")" "$(field peak_alloc_MiB <<<"$line")"
    done <"$temp/$1.peer"
}

# The best of a file: value of KEY, memory, name.
best() { # best FILE KEY MEMORY NAME
    local line
    while read -r line; do
        [ -n "$(field "$2" <<<"$line")" ] && echo "$(field "$2" <<<"$line") $(field "$3" <<<"$line") $(field "$4" <<<"$line")"
    done <"$1" | sort -rn | head -n 1
}

# throughput MODEL NAME BATCH OPTIMIZER. What takes longest, and may take too long, comes last.
throughput() {
    local rc=0 tries=25 ours="bf16, autotuned"
    speed "bf16" "$@" --precision bf16 || rc=1
    if [ -z "$compile" ]; then
        speed "bf16, no graphs" "$@" --precision bf16 --no-cuda-graphs || rc=1
        peer "$1" "$2" "$3" graph,eager 50 || rc=1
        speed "float32" "$@" || rc=1
    else peer "$1" "$2" "$3" compile,compilegraph 150 || rc=1
    fi
    # What has been measured of shapes is kept: where the time was too short for all, the next run goes on.
    tries=40
    XDG_CACHE_HOME=$cache speed "$ours" "$@" --precision bf16 --autotune || rc=1
    return $rc
}
figure() { # figure MODEL NAME BATCH OPTIMIZER: the best of ours beside the best of theirs, of what there is
    local ours theirs
    [ -e "$temp/$1.ours" ] || return 0
    [ -e "$temp/$1.peer" ] || : >"$temp/$1.peer"
    grep -v '"precision": "float32"' "$temp/$1.ours" >"$temp/$1.bf16"
    ours=$(best "$temp/$1.bf16" images_per_s device_peak_mb options)
    theirs=$(best "$temp/$1.peer" train_img_s peak_alloc_MiB mode)
    awk -v model="$1" -v batch="$3" -v opt="$4" -v ours="$ours" -v theirs="$theirs" 'BEGIN {
        n = split(ours, o, " "); m = split(theirs, t, " ")
        if (n == 0) { print model ": no figure"; exit }
        name = o[3]; for (i = 4; i <= n; i++) name = name " " o[i]
        printf "%s, batch %s, %s: %.0f images/s (%s)", model, batch, opt, o[1], name
        if (m) printf ", PyTorch %.0f (%s): speed %.2f, memory %.2f of it", t[1], t[3], o[1] / t[1], o[2] / t[2]
        print "" }' | tee -a "$temp/tables" >&2
}

# Shares of a step's time by events between launches: it is not recorded into a CUDA graph then. profile MODEL NAME BATCH
profile() {
    "$build/fovea" bench --model "$1" -b "$3" --device cuda --precision bf16 --mode train --seconds 1 --profile --json >"$temp/profile" || return 1
    head -n 30 "$temp/profile"
    grep '"event": "roof"' "$temp/profile" | tee -a "$results"
    ms() { grep "\"part\": \"$1\"" "$temp/profile" | field ms; }
    awk -v model="$1" -v other="$(ms other)" -v update="$(ms update)" -v step="$(ms step)" 'BEGIN {
        if (!(step > 0)) exit 1
        printf "%s: %.1f %% of %.3f ms outside convolutions and products, timed launch by launch (which adds to short kernels)\n",
            model, 100 * (other + update) / step, step }' | tee -a "$temp/tables"
    return "${PIPESTATUS[0]}"
}

# ---------------------------------------------------------------- the speed run

has_cifar10() { [ -e "$1/cifar10/test_batch.bin" ] || [ -e "$1/cifar-10-batches-bin/test_batch.bin" ] || [ -e "$1/cifar-10-batches-py" ]; }

# By the bundle's own program, for python3 may have no Pillow.
unpack() {
    has_cifar10 "${FOVEA_DATA:-datasets}" && { echo "${FOVEA_DATA:-datasets} has CIFAR-10"; return; }
    [ -e "$pack/cifar10/cifar10_q75.jpk" ] || { echo "no CIFAR-10 in ${FOVEA_DATA:-datasets}, and no pack"; return 77; }
    mkdir -p "$temp/data/cifar10"
    if [ -x "$build/unpack-cifar10" ]; then "$build/unpack-cifar10" "$pack/cifar10/cifar10_q75.jpk" "$temp/data/cifar10" || return 1
    else PATH="$(dirname "$python"):$PATH" tools/prepare-data.sh "$pack" "$temp/data" || return 1
    fi
    (cd "$temp/data/cifar10" && sha256sum -c --quiet "$sums") && echo "unpacked"
}

# average NAME FILE: a line about runs of which FILE has a row each: accuracy in %, seconds in all, and those of epochs alone, if known.
average() {
    awk -v name="$1" 'function spread(sum, squares) { v = NR > 1 ? (squares - sum * sum / NR) / (NR - 1) : 0; return v > 0 ? sqrt(v) : 0 }
        { a += $1; aa += $1 * $1; t += $2; tt += $2 * $2; e += $3; if (NR == 1 || $2 < least) least = $2 }
        END { printf "%s, %d seeds: accuracy %.2f %% +- %.2f; training and test %.3f s +- %.3f, %.3f at best",
                  name, NR, a / NR, spread(a, aa), t / NR, spread(t, tt), least
              if (e > 0) printf ", epochs alone %.3f", e / NR
              print "" }' "$2"
}

# The recipe in bf16 with one seed after the other, as long as there is time for one more; how they are on average is kept after each,
# so that it is there when the time is up. Seconds: from the first step to the end of the final test. speed_run SECONDS
speed_run() {
    local end=$((SECONDS + $1)) seed longest=0 began top1 data=${FOVEA_DATA:-datasets}
    has_cifar10 "$data" || data=$temp/data
    has_cifar10 "$data" || { echo "no CIFAR-10"; return 77; }
    for ((seed = 0; seed < ${SEEDS:-50} && SECONDS + longest < end; seed++)); do
        began=$SECONDS
        "$build/fovea" train --recipe cifar10-94 --data-dir "$data" --device cuda --precision bf16 --seed $seed --output "$temp" --name run$seed --quiet || return 1
        [ $((SECONDS - began + 1)) -gt $longest ] && longest=$((SECONDS - began + 1))
        tr -d '\n' <"$temp/run$seed/metrics.json" >"$temp/metrics"
        { cat "$temp/metrics"; echo; } >>"$results"
        # The accuracy of several views, else of one; all seconds, those of epochs.
        top1=$(tr -d ' ' <"$temp/metrics" | grep -oE '"test(_tta)?":\{"top1":[0-9.e-]+' | tail -n 1 | sed 's/.*://')
        echo "$(awk -v top1="$top1" 'BEGIN { print 100 * top1 }') $(field seconds <"$temp/metrics") $(tail -n 1 "$temp/run$seed/results.csv" | cut -d, -f2)" >>"$temp/runs"
        rm -rf "$temp/run$seed"
        average "speed run" "$temp/runs" | tee "$temp/average"
        mv "$temp/average" "$temp/speedrun"
    done
    [ -e "$temp/speedrun" ] || { echo "no time for one"; return 78; }
}

# The same recipe as it was published, in PyTorch (tests/peers/train_torch_speedrun.py), likewise. original_recipe SECONDS
original_recipe() {
    local data=${FOVEA_DATA:-datasets} folder found='' line
    [ -n "$torch" ] || { echo "$python has no PyTorch that sees a GPU"; return 77; }
    for folder in "$data/cifar10" "$data/cifar-10-batches-bin" "$temp/data/cifar10"; do
        [ -e "$folder/test_batch.bin" ] && { found=$folder; break; }
    done
    [ -n "$found" ] || { echo "no CIFAR-10 in binary files"; return 77; }
    "$python" "$original" --data "$found" --device cuda --runs "${SEEDS:-50}" --budget "$1" 2>&1 | while read -r line; do
        echo "$line"
        [ "${line:0:1}" = "{" ] && echo "{\"original_recipe\": \"PyTorch\", ${line#\{}" >>"$results"
        [ -n "$(field accuracy <<<"$line")" ] || continue
        echo "$(field accuracy <<<"$line") $(field seconds <<<"$line")" >>"$temp/originals"
        average "original recipe, PyTorch" "$temp/originals" >"$temp/average"
        mv "$temp/average" "$temp/original"
    done
    case ${PIPESTATUS[0]} in
    0) ;;
    78) return 78 ;;
    *) return 1 ;;
    esac
    cat "$temp/original"
}

# ---------------------------------------------------------------- all of it

bundle=$build/gpu
pack=${PACK:-$bundle/pack}
sums=$(realpath -m "$pack/cifar10/SHA256SUMS.bins")
peer=${PEER:-}
[ -z "$peer" ] && [ -e "$bundle/peer.py" ] && peer=$bundle/peer.py
original=$bundle/peers/train_torch_speedrun.py
[ -e "$original" ] || original=tests/peers/train_torch_speedrun.py
python=${PEER_PYTHON:-}
[ -z "$python" ] && [ -x /opt/torch/.venv/bin/python3 ] && python=/opt/torch/.venv/bin/python3
python=${python:-python3}
cache=${XDG_CACHE_HOME:-$logs/cache}
mkdir -p "$cache"
export -f build_all about versions ceilings unit_tests sanitizer same_bits speed peer field throughput profile has_cifar10 unpack average speed_run original_recipe
export build temp results logs cache gpu capability compile pack sums peer original python
if "$bundle/fovea" version >"$temp/version" 2>&1; then
    build=$bundle
    item "bundle" 10 bash -c about
else
    [ -e "$bundle/fovea" ] && { echo "gpu-check: the bundle does not run here, so it is built:"; tail -n 2 "$temp/version"; } >&2
    item "build" 200 bash -c build_all
fi
item "device and versions" 60 bash -c versions

if [ -z "$compile" ]; then
    item "ceilings" 20 bash -c ceilings
    # Whether results are right, all at once: there are processors enough, and the GPU has idle moments.
    begin "data" 60 bash -c unpack
    begin "operations" 120 bash -c 'unit_tests agreement ops'
    begin "operations, own kernels" 120 env FOVEA_CUDA_LIBRARIES=none bash -c 'unit_tests agreement ops'
    begin "device" 60 bash -c 'unit_tests cuda cuda'
    begin "kernels and gradients" 120 bash -c 'unit_tests kernels cuda_kernels'
    begin "kernels and gradients, own kernels" 120 env FOVEA_CUDA_LIBRARIES=none bash -c 'unit_tests kernels cuda_kernels'
    begin "joined launches" 60 bash -c 'unit_tests kernels cuda_launches'
    begin "same bits and losses" 120 bash -c same_bits
    begin "memcheck" 120 bash -c 'sanitizer memcheck resnet20 16'
    begin "memcheck, own kernels" 120 env FOVEA_CUDA_LIBRARIES=none bash -c 'sanitizer memcheck resnet20 16'
    begin "racecheck" 120 bash -c 'sanitizer racecheck vit_tiny_patch4_32_d6 32'
    begin "racecheck, own kernels" 120 env FOVEA_CUDA_LIBRARIES=none bash -c 'sanitizer racecheck vit_tiny_patch4_32_d6 32'
    collect
fi
# How fast: alone on the GPU.
while read -r model name batch opt; do
    item "$model" "$([ -z "$compile" ] && echo 100 || echo 200)" bash -c "throughput $model $name $batch $opt"
    figure "$model" "$name" "$batch" "$opt"
done <<<"$models"
if [ -z "$compile" ]; then
    item "time by operation" 15 bash -c "profile $(head -n 1 <<<"$models")"
    # Our recipe and its original share what is left, if PyTorch sees the GPU.
    left=$((budget - (SECONDS - started)))
    ours=$left
    export torch=
    if [[ "original recipe" =~ ${ITEMS:-.} ]] && [ $left -gt 0 ] &&
        timeout $((left < 60 ? left : 60)) "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' >"$logs/torch.txt" 2>&1; then
        torch=yes ours=$((left / 2))
    fi
    item "speed run" $ours bash -c "speed_run $((ours - 3))"
    left=$((budget - (SECONDS - started)))
    item "original recipe" $left bash -c "original_recipe $((left - 3))"
    for file in speedrun original; do
        [ -e "$temp/$file" ] && cat "$temp/$file" >>"$temp/tables"
    done
    [ -e "$temp/runs" ] && [ -e "$temp/originals" ] &&
        awk 'FNR == 1 { which++ }
            { accuracy[which] += $1; seconds[which] += $2; n[which]++ }
            END { printf "speed run: %.2f of the original'"'"'s time, accuracy %+.2f\n", seconds[1] / n[1] / (seconds[2] / n[2]), accuracy[1] / n[1] - accuracy[2] / n[2] }' \
            "$temp/runs" "$temp/originals" >>"$temp/tables"
fi

echo
echo "$gpu"
printf '%s\n' "${table[@]}"
cat "$temp/tables"
echo "results: $results, what was printed: $logs"
[ "$failed" -eq 0 ]
