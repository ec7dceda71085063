#!/usr/bin/env bash
# One unattended run on a machine with an NVIDIA GPU: what cannot be tested without one (docs/gpu.md). Every item has a time limit of
# its own; results are appended as JSON lines as they come, so that a run that is cut short leaves what it has; the table comes last.
#   tools/gpu-check.sh [RESULTS]        default: gpu-check.jsonl
# BUILD_DIR: the build (default build). NVCC, CUDA_ARCHS: as for make. PEER: path of a script that measures PyTorch (called with
# --modes graph,eager --models NAMES --budget 95 --out FILE and more), left out if not set; a JSON line of it has model, mode and
# train_img_s. FOVEA_DATA: data sets; without CIFAR-10 there is no speed run. SEEDS: runs of it, at most (default 10). BUDGET: seconds in
# all (default 600, which the limits of the items add up to).
# Exit code: 0 all passed, 1 something failed, 6 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
results=$(realpath -m "${1:-gpu-check.jsonl}")
build=${BUILD_DIR:-build}
budget=${BUDGET:-600}
started=$SECONDS
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
: >"$temp/tables"
table=() failed=0

if ! gpu=$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$gpu" ]; then
    echo "gpu-check: there is no GPU: nvidia-smi shows none" >&2
    exit 6
fi
capability=$(cut -d, -f3 <<<"$gpu" | tr -d ' .')
[ "$capability" = 90 ] && capability=90a
: >"$results" || exit 5

# JSON string of the text on standard input, cut to a sensible length.
quoted() { tr -c '[:print:]\n' '?' | tail -c 1500 | sed 's/\\/\\\\/g; s/"/\\"/g' | awk 'BEGIN { printf "\"" } { printf "%s%s", (NR > 1 ? "\\n" : ""), $0 } END { printf "\"" }'; }

# item NAME SECONDS COMMAND...: its output ends up in the results; passed by exit code, within the time that is left.
item() {
    local name=$1 limit=$2 left=$((budget - (SECONDS - started))) began=$SECONDS rc verdict
    shift 2
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -le 0 ]; then rc=78; : >"$temp/out"
    else
        timeout -k 5 "$limit" "$@" >"$temp/out" 2>&1 </dev/null
        rc=$?
    fi
    case $rc in
    0) verdict=passed ;;
    77) verdict=skipped ;;
    78) verdict="not reached" failed=$((failed + 1)) ;;
    124 | 137) verdict="out of time" failed=$((failed + 1)) ;;
    *) verdict="failed ($rc)" failed=$((failed + 1)) ;;
    esac
    table+=("$(printf '%-28s %-12s %4d s  %s' "$name" "$verdict" $((SECONDS - began)) "$(tail -n 1 "$temp/out" | cut -c 1-110)")")
    printf '{"item": "%s", "verdict": "%s", "seconds": %d, "output": %s}\n' "$name" "$verdict" $((SECONDS - began)) \
        "$(quoted <"$temp/out")" >>"$results"
    printf '%s\n' "${table[-1]}" >&2
    return 0
}

# ---------------------------------------------------------------- the items

build_all() {
    if command -v "${NVCC:-nvcc}" >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
        make -s -j"$(nproc)" NO_DEPS=1 CUDA_ARCHS="${CUDA_ARCHS:-$capability}" cuda "$build/fovea" "$build/unit-tests" "$build/gpu-ceilings" 2>&1 |
            tail -n 5
        return "${PIPESTATUS[0]}"
    fi
    echo "no nvcc: what is built already is checked"
    [ -x "$build/fovea" ] && [ -e "$build/libfovea-cuda.so" ] && [ -x "$build/unit-tests" ]
}

versions() {
    echo "$gpu"
    nvidia-smi --query-gpu=clocks.max.sm,clocks.max.mem,pci.bus_id,ecc.mode.current --format=csv,noheader
    "$build/fovea" train --data synthetic --model mlp_500 --fraction 0.01 -b 16 --epochs 1 --device cuda --output "$temp" --name versions --quiet &&
        grep -E '"(device|libraries)"' "$temp/versions/env.json"
}

ceilings() {
    [ -x "$build/gpu-ceilings" ] || { echo "$build/gpu-ceilings is not there"; return 77; }
    "$build/gpu-ceilings" | tee >(grep '^{' >>"$results")
    return "${PIPESTATUS[0]}"
}

unit_tests() { # unit_tests CASE SUITE...: those that open the device, on the real one
    local known
    FOVEA_BACKENDS=$build CK_FORK=no CK_RUN_CASE=$1 "$build/unit-tests" "${@:2}" 2>&1 | tee "$temp/unit" | tail -n 12
    known=${PIPESTATUS[0]}
    if grep -q 'SKIPPED: device cuda' "$temp/unit"; then echo "the tests did not find the device"; return 1; fi
    return "$known"
}

# In bf16, where kernels have most to go wrong: sanitizer TOOL MODEL SIZE
sanitizer() {
    local tool
    tool=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer) || { echo "no compute-sanitizer"; return 77; }
    "$tool" --tool "$1" --error-exitcode 9 "$build/fovea" bench --model "$2" --device cuda --precision bf16 --mode train -b 4 --img-size "$3" \
        --seconds 0.1 --no-cuda-graphs 2>&1 | tail -n 5
    return "${PIPESTATUS[0]}"
}

same_bits() {
    local run=(train --data synthetic --model resnet20 --fraction 0.1 -b 32 --epochs 2 --seed 7 --output "$temp" --quiet --device cuda) name precision
    for precision in float32 bf16 float16; do
        "$build/fovea" "${run[@]}" --precision $precision --name first-$precision &&
            "$build/fovea" "${run[@]}" --precision $precision --name second-$precision &&
            "$build/fovea" "${run[@]}" --precision $precision --no-cuda-graphs --name plain-$precision || return 1
        for name in second plain; do
            cmp "$temp/first-$precision/weights/last/model.safetensors" "$temp/$name-$precision/weights/last/model.safetensors" || return 1
        done
    done
    echo "float32, bf16 and float16: three runs each, one without CUDA graphs: the same weights"
}

# The losses of the first epochs on the GPU and on the processor: rounding differs, the course does not.
loss_curve() {
    local run=(train --data synthetic --model resnet20 --fraction 0.1 -b 32 --epochs 2 --seed 7 --output "$temp" --quiet) precision
    "$build/fovea" "${run[@]}" --device cpu --name cpu || return 1
    for precision in float32 bf16 float16; do
        [ -s "$temp/first-$precision/results.csv" ] ||
            "$build/fovea" "${run[@]}" --device cuda --precision $precision --name first-$precision || return 1
        paste -d, <(cut -d, -f3 "$temp/first-$precision/results.csv") <(cut -d, -f3 "$temp/cpu/results.csv") | awk -F, -v what=$precision '
            NR > 1 { d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d; rows++ }
            END { printf "%s: training loss %.2e off, at most, over %d epochs\n", what, worst, rows; exit !(rows > 0 && worst < (what == "float32" ? 1e-2 : 5e-2)) }' ||
            return 1
    done
}

# Ours, PyTorch's name, batch.
models="resnet18_cifar resnet18 512
speedrun94 airbench94 1024
vit_tiny_patch4_32_d6 vit_tiny 512
resnet20 resnet20 512
resnet50 resnet50 64"

# speed MODEL BATCH OPTION...: a JSON line to the results, pictures per second to the output.
speed() {
    local line
    line=$(timeout 30 "$build/fovea" bench --model "$1" -b "$2" --device cuda --mode train --seconds 1.5 "${@:3}" --json 2>/dev/null) || { echo -; return 1; }
    echo "{\"options\": \"${*:3}\", ${line#\{}" >>"$results"
    line=${line##*\"images_per_s\": }
    echo "${line%%,*}"
}

throughput() {
    local name peer batch rc=0 bf16 tuned plain float32
    : >"$temp/speeds"
    printf '%-24s %6s %12s %12s %12s %12s\n' "images/s" batch bf16 autotuned "no graphs" float32
    while read -r name peer batch; do
        bf16=$(speed "$name" "$batch" --precision bf16) || rc=1
        tuned=$(XDG_CACHE_HOME=$temp speed "$name" "$batch" --precision bf16 --autotune) || rc=1
        plain=$(speed "$name" "$batch" --precision bf16 --no-cuda-graphs) || rc=1
        float32=$(speed "$name" "$batch") || rc=1
        echo "$name $peer $bf16" >>"$temp/speeds"
        printf '%-24s %6s %12s %12s %12s %12s\n' "$name" "$batch" "$bf16" "$tuned" "$plain" "$float32"
    done <<<"$models"
    return $rc
}

# The recipe in bf16 with one seed after the other, as long as there is time for one more.
speed_run() {
    local end=$((SECONDS + $1)) seed longest=0 began
    [ -e "${FOVEA_DATA:-datasets}/cifar10" ] || [ -e "${FOVEA_DATA:-datasets}/cifar-10-batches-bin" ] || { echo "no CIFAR-10 in ${FOVEA_DATA:-datasets}"; return 77; }
    for ((seed = 0; seed < ${SEEDS:-10} && SECONDS + longest < end; seed++)); do
        began=$SECONDS
        "$build/fovea" train --recipe cifar10-94 --device cuda --precision bf16 --seed $seed --output "$temp" --name run$seed --quiet || return 1
        [ $((SECONDS - began + 1)) -gt $longest ] && longest=$((SECONDS - began + 1))
        tr -d '\n' <"$temp/run$seed/metrics.json" >>"$results"
        echo >>"$results"
    done
    python3 - "$temp" $seed <<'CODE'
import csv, json, statistics, sys
tops, times = [], []
for seed in range(int(sys.argv[2])):
    folder = "%s/run%d/" % (sys.argv[1], seed)
    metrics = json.load(open(folder + "metrics.json"))
    tops.append(100 * (metrics.get("test_tta") or metrics["test"])["top1"])
    times.append(max(float(row["time"]) for row in csv.DictReader(open(folder + "results.csv"))))
spread = statistics.stdev(tops) if len(tops) > 1 else 0
print("%d runs: accuracy %.2f %% +- %.2f, %.2f s of epochs" % (len(tops), statistics.mean(tops), spread, statistics.median(times)))
CODE
}

profile() { "$build/fovea" bench --model resnet18_cifar -b 512 --device cuda --precision bf16 --mode train --seconds 1 --profile 2>&1 | head -n 30; }

# PyTorch's best mode, in bf16, beside ours.
peer() {
    [ -n "${PEER:-}" ] || { echo "PEER is not set"; return 77; }
    python3 "$PEER" --modes graph,eager --models "$(awk '{ printf "%s%s", (NR > 1 ? "," : ""), $2 }' <<<"$models")" --prec bf16 --no-infer --no-ceilings \
        --budget 95 --out "$temp/peer.jsonl" >/dev/null
    local rc=$?
    cat "$temp/peer.jsonl" >>"$results"
    python3 - "$temp" <<'CODE'
import json, sys
best = {}
for line in open(sys.argv[1] + "/peer.jsonl"):
    r = json.loads(line)
    if "train_img_s" in r: best[r["model"]] = max(best.get(r["model"], (0, "")), (r["train_img_s"], r["mode"]))
for line in open(sys.argv[1] + "/speeds"):
    ours, name, speed = line.split()
    if name in best and speed != "-":
        print("%-24s %9.0f images/s, PyTorch %9.0f (%s): %.2f" % (ours, float(speed), *best[name], float(speed) / best[name][0]))
CODE
    return $rc
}

shown() { # shown FUNCTION: what it says comes below the table, too
    "$1" | tee -a "$temp/tables"
    return "${PIPESTATUS[0]}"
}

export -f shown build_all versions ceilings unit_tests sanitizer same_bits loss_curve speed throughput speed_run profile peer
export build temp results gpu capability models
item "build" 115 bash -c build_all
item "device and versions" 15 bash -c versions
item "ceilings" 15 bash -c ceilings
item "operations" 80 bash -c 'unit_tests agreement ops'
item "device" 15 bash -c 'unit_tests cuda cuda'
item "throughput" 95 bash -c 'shown throughput'
item "time by operation" 10 bash -c profile
item "speed run" 45 bash -c 'speed_run 40'
item "PyTorch" 100 bash -c 'shown peer'
item "the same bits" 40 bash -c same_bits
item "losses beside the processor" 30 bash -c loss_curve
item "memcheck" 20 bash -c 'sanitizer memcheck resnet20 16'
item "racecheck" 20 bash -c 'sanitizer racecheck vit_tiny_patch4_32_d6 32'

echo
echo "$gpu"
printf '%s\n' "${table[@]}"
cat "$temp/tables"
echo "results: $results"
[ "$failed" -eq 0 ]
