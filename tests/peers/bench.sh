#!/usr/bin/env bash
# Speed and memory of Fovea beside PyTorch, ONNX Runtime and OpenVINO on this machine: measurements in alternation, medians, and
# their ratios. Prints the tables and writes them into docs/benchmarks.md between its markers; the text around them stays.
#
# usage: tests/peers/bench.sh PROGRAM
#
# A peer lives in one process per row, which loads its libraries once and then measures on demand: A B A B ... costs only the
# measurements. Which mode suits a peer best is found first, in a process of its own, so that its memory is not counted.
#
# Environment:
#   FOVEA_PEER_PYTHON    python with the peers (default: python3); what it lacks is left out, and said
#   FOVEA_BENCH_CASES    "MODEL:MODE:BATCH:SIZE:PRECISION ..." (default: all rows); MODE train or infer, PRECISION float32 or bf16
#   FOVEA_BENCH_BF16     1, 0: with or without the rows in bf16 (default: if the processor has instructions for it)
#   FOVEA_BENCH_COMPILE  which modes try torch.compile, too: none, infer (default), all
#   FOVEA_BENCH_THREADS  threads of each side (default 2)
#   FOVEA_BENCH_SECONDS  of each measurement (default 1.5)
#   FOVEA_BENCH_RUNS     measurements of each side (default 5)
#   FOVEA_BENCH_MINUTES  no row is begun after so many (default 35)
#   FOVEA_BENCH_OUT      file to write (default docs/benchmarks.md)
set -euo pipefail
program=$(realpath "${1:?usage: tests/peers/bench.sh PROGRAM}")
cd "$(dirname "$0")/../.."
python=${FOVEA_PEER_PYTHON:-python3}
threads=${FOVEA_BENCH_THREADS:-2} seconds=${FOVEA_BENCH_SECONDS:-1.5} runs=${FOVEA_BENCH_RUNS:-5}
compile=${FOVEA_BENCH_COMPILE:-infer} minutes=${FOVEA_BENCH_MINUTES:-35} out=${FOVEA_BENCH_OUT:-docs/benchmarks.md}
bf16=${FOVEA_BENCH_BF16:-$(grep -qE 'avx512_bf16|amx_bf16' /proc/cpuinfo && echo 1 || echo 0)}
unset OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS OPENBLAS_L2_SIZE # every side chooses for itself
export PYTHONWARNINGS=ignore TORCHINDUCTOR_CACHE_DIR=${TORCHINDUCTOR_CACHE_DIR:-/tmp/fovea-inductor-$UID}
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

default_cases() {
    local precision net
    for precision in float32 bf16; do
        [ $precision = bf16 ] && [ "$bf16" != 1 ] && continue
        for net in resnet18_cifar:train:128:32 speedrun94:train:1024:32 resnet20:train:128:32 vit_tiny_patch4_32:train:128:32 \
            resnet50:train:16:224; do echo "$net:$precision"; done
        for net in resnet18_cifar:32 speedrun94:32 resnet20:32 vit_tiny_patch4_32:32 resnet50:224; do
            echo "${net%%:*}:infer:64:${net##*:}:$precision"
            echo "${net%%:*}:infer:1:${net##*:}:$precision"
        done
    done
}
if [ -n "${FOVEA_BENCH_CASES:-}" ]; then read -ra cases <<<"$FOVEA_BENCH_CASES"; else mapfile -t cases < <(default_cases); fi

# ---------------------------------------------------------------- numbers
field() { # field NAME: that member, a number or a text, of each line of JSON on standard input
    sed -nE "s/.*\"$1\": ?(\"([^\"]*)\"|([^,}]*)).*/\2\3/p"
}
median() { # of the numbers on standard input, one per line
    sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
ratio() { # ratio A B: "1.53" in bold; a dash when one is missing
    awk -v a="$1" -v b="$2" 'BEGIN { if (a > 0 && b > 0) printf "**%.2f**", a / b; else printf "–" }'
}
# times FILE BATCH NAME: median of the medians, and of the percentiles, of a file of JSON lines: milliseconds for one picture,
# else images per second, as "1577 (1520–1604)"
times() {
    [ -s "$1" ] || { printf '–'; return; }
    awk -v n="$2" -v ms="$(field "$3" <"$1" | median)" -v low="$(field ms_p10 <"$1" | median)" -v high="$(field ms_p90 <"$1" | median)" '
        function show(x) { return sprintf(x < 10 ? "%.2f" : x < 100 ? "%.1f" : "%.0f", x) }
        BEGIN {
            if (n == 1) printf "%s (%s–%s)", show(ms), show(low), show(high)
            else printf "%s (%s–%s)", show(1e3 * n / ms), show(1e3 * n / high), show(1e3 * n / low)
        }'
}
speed() { field "$2" <"$1" 2>/dev/null | median | awk '$1 > 0 { print 1 / $1 }'; } # speed FILE NAME-OF-MS
memory() { field "$2" <"$1" 2>/dev/null | median | awk '{ printf "%.0f", $1 }'; }

# ---------------------------------------------------------------- the sides
ours() { # ours MODEL MODE BATCH SIZE PRECISION: one line of JSON
    timeout 120 "$program" bench --model "$1" --mode "$2" -b "$3" --img-size "$4" --precision "$5" --threads "$threads" \
        --seconds "$seconds" --json -q
}
# PyTorch gives memory back to the system after each tensor unless malloc is told not to: it is faster so.
torch() { # torch LIMIT MODEL MODE BATCH SIZE PRECISION OPTION...
    exec timeout "$1" env MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 \
        "$python" tests/peers/bench_torch.py --model "$2" --mode "$3" --batch "$4" --img-size "$5" --precision "$6" \
        --threads "$threads" "${@:7}"
}
onnx() { # onnx LIMIT BATCH SIZE PRECISION OPTION...
    exec timeout "$1" "$python" tests/peers/bench_onnx.py --batch "$2" --img-size "$3" --precision "$4" --threads "$threads" "${@:5}"
}
fastest() { # of the lines of JSON in a file: the member NAME of the line with most images per second
    awk -v name="$2" '{ match($0, /"img_s": [0-9.]+/); v = substr($0, RSTART + 9, RLENGTH - 9) + 0
        if (v > best) { best = v; match($0, "\"" name "\": \"[^\"]*\""); at = length(name) + 6; how = substr($0, RSTART + at - 1, RLENGTH - at) } } END { print how }' "$1"
}
has() { "$python" -c "import $1" 2>/dev/null; }

has_torch=0 has_onnx=0
has torch && has timm && has_torch=1
[ $has_torch = 1 ] && has onnx && { has onnxruntime || has openvino; } && has_onnx=1
missing=()
[ $has_torch = 1 ] || missing+=("PyTorch")
[ $has_onnx = 1 ] || missing+=("ONNX Runtime and OpenVINO")
[ "$bf16" = 1 ] || missing+=("bf16, for which this processor has no instructions (FOVEA_BENCH_BF16=1)")
if [ ${#missing[@]} -gt 0 ]; then
    printf 'bench: left out: %s\n' "${missing[@]}" >&2
    echo "bench: peers are optional: tests/peers/requirements.txt, and FOVEA_PEER_PYTHON names the python that has them" >&2
fi
load=$(cut -d' ' -f1 /proc/loadavg)
[ "$(awk -v l="$load" 'BEGIN { print (l > 0.5) }')" = 0 ] || echo "bench: the load is $load: other programs are running, and the figures will show it" >&2

# ---------------------------------------------------------------- one row
open_torch() { # the best mode into $how, and a server as file descriptors TORCH[0], TORCH[1]; how= when it fails
    local extra=()
    how=
    [ "$compile" = all ] || [ "$compile" = "$2" ] && extra=(--compile)
    (torch 75 "$@" --probe --seconds 0.7 --warmup 2 "${extra[@]}") >"$temp/probe" 2>"$temp/torch.err" </dev/null || true
    how=$(fastest "$temp/probe" how)
    [ -n "$how" ] || return 0
    coproc TORCH { torch 600 "$@" --how "$how" --serve --seconds "$seconds" 2>>"$temp/torch.err"; }
    local word=
    read -r -t 120 word <&"${TORCH[0]}" && [ "$word" = ready ] || how=
}
open_onnx() { # likewise: the better engine into $engine
    engine=
    [ "$2" = infer ] && [ $has_onnx = 1 ] || return 0
    ("$python" tests/peers/bench_onnx.py --export "$temp/model.onnx" --model "$1" --batch "$3" --img-size "$4") >/dev/null 2>"$temp/onnx.err" || return 0
    (onnx 75 "$3" "$4" "$5" --probe --onnx "$temp/model.onnx" --seconds 0.7) >"$temp/probe" 2>>"$temp/onnx.err" </dev/null || true
    engine=$(fastest "$temp/probe" engine)
    [ -n "$engine" ] || return 0
    coproc ONNX { onnx 600 "$3" "$4" "$5" --serve --onnx "$temp/model.onnx" --engine "$engine" --seconds "$seconds" 2>>"$temp/onnx.err"; }
    local word=
    read -r -t 120 word <&"${ONNX[0]}" && [ "$word" = ready ] || engine=
}
ask() { # ask IN OUT FILE: one measurement of a server, appended to the file
    local line=
    echo >&"$2" && read -r -t 120 line <&"$1" && echo "$line" >>"$3"
}
measure() { # measure MODEL MODE BATCH SIZE PRECISION: a row into the table of its kind
    local how='' engine='' i kind=infer to their_memory import row
    rm -f "$temp"/ours "$temp"/torch "$temp"/onnx "$temp"/*.err
    [ "$2" = train ] && kind=train
    [ "$3" = 1 ] && kind=latency
    to=$temp/$kind
    if ! ours "$@" 2>"$temp/ours.err" >"$temp/ours"; then
        echo "bench: left out: $1 $2 in $5: $(head -n 1 "$temp/ours.err" | cut -c1-120)" >&2
        left+=("$1 $2 in $5 (not in this version)")
        return 0
    fi
    : >"$temp/ours" # that one was the warm-up
    [ $has_torch = 0 ] || open_torch "$@" 2>>"$temp/torch.err"
    open_onnx "$@" 2>>"$temp/onnx.err"
    for ((i = 0; i < runs; i++)); do
        sleep 0.2 # threads of a peer may still spin
        ours "$@" >>"$temp/ours"
        [ -z "$how" ] || ask "${TORCH[0]}" "${TORCH[1]}" "$temp/torch" || how=
        [ -z "$engine" ] || ask "${ONNX[0]}" "${ONNX[1]}" "$temp/onnx" || engine=
    done
    close_peers
    touch "$temp/torch" "$temp/onnx"
    [ $has_torch = 1 ] && [ -z "$how" ] && how="failed: $(grep -v '^ *$' "$temp/torch.err" 2>/dev/null | tail -n 1 | tr '|' '/' | cut -c1-60)"
    [ "$kind" != train ] && [ $has_onnx = 1 ] && [ -z "$engine" ] && engine="failed: $(tail -n 1 "$temp/onnx.err" 2>/dev/null | tr '|' '/' | cut -c1-60)"
    their_memory=$(memory "$temp/torch" rss_mb) import=$(memory "$temp/torch" import_mb)
    [ -z "$import" ] || imported=$import
    row="| $1 | $3 | $5 | $(times "$temp/ours" "$3" ms_per_step) | $(times "$temp/torch" "$3" ms_step) | ${how:-–}"
    [ "$kind" = train ] || row+=" | $(times "$temp/onnx" "$3" ms_step) | ${engine:-–}"
    row+=" | $(ratio "$(speed "$temp/ours" ms_per_step)" "$(speed "$temp/torch" ms_step)")"
    [ "$kind" = train ] || row+=" | $(ratio "$(speed "$temp/ours" ms_per_step)" "$(speed "$temp/onnx" ms_step)")"
    row+=" | $(memory "$temp/ours" peak_rss_mb) | ${their_memory:-–} | $(ratio "$(memory "$temp/ours" peak_rss_mb)" "${their_memory:-0}")"
    [ "$kind" != train ] || row+=" | $(ratio "$(memory "$temp/ours" peak_rss_mb)" "$((${their_memory:-0} - ${import:-0}))")"
    echo "$row |" | tee -a "$to" >&2
    [ -s "$temp/onnx" ] && field how <"$temp/onnx" >>"$temp/engines"
    device=$(field device <"$temp/ours" | tail -n 1)
}
close_peers() { # end of input ends a server
    local pid=${TORCH_PID:-}
    if [ -n "$pid" ]; then eval "exec ${TORCH[1]}>&-" && { wait "$pid" 2>/dev/null || true; }; fi
    pid=${ONNX_PID:-}
    if [ -n "$pid" ]; then eval "exec ${ONNX[1]}>&-" && { wait "$pid" 2>/dev/null || true; }; fi
}

# ---------------------------------------------------------------- the tables
table() { # table KIND TITLE HEAD
    [ -s "$temp/$1" ] || return 0
    printf '\n**%s**\n\n%s\n%s\n' "$2" "$3" "$(sed 's/[^|]/-/g; s/-\+/---/g' <<<"$3")"
    cat "$temp/$1"
}
write_tables() {
    local peers=()
    [ $has_torch = 0 ] || peers+=("$("$python" -c 'import torch; print("PyTorch", torch.__version__)')${imported:+, of whose memory $imported MB are there after importing it}")
    [ ! -s "$temp/engines" ] || peers+=("$(sort -u "$temp/engines" | paste -sd, | sed 's/,/, /g')")
    echo "Measured on $(date -u +%F) with \`make bench\` ($("$program" version | head -n 1)): $threads threads, $runs runs of $seconds s each in alternation, medians (10th to 90th percentile of the steps)."
    echo
    echo "- processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1), load $load when it began"
    echo "- ours: $device"
    printf -- '- peers: %s\n' "$( ((${#peers[@]})) && printf '%s; ' "${peers[@]}" | sed 's/; $//' || echo 'not measured')"
    [ $((${#missing[@]} + ${#left[@]})) -eq 0 ] || { printf -- '- left out:' && printf ' %s;' "${missing[@]}" "${left[@]}" | sed 's/;$//' && echo; }
    table train "Training, images per second" \
        "| model | batch | type | Fovea | PyTorch | its mode | speed ÷ PyTorch's | Fovea MB | PyTorch MB | memory ÷ PyTorch's | ÷ without its import |"
    local head="| ONNX peer | which | speed ÷ PyTorch's | speed ÷ ONNX peer's | Fovea MB | PyTorch MB | memory ÷ PyTorch's |"
    table infer "Inference, images per second" "| model | batch | type | Fovea | PyTorch | its mode $head"
    table latency "Inference of one picture, milliseconds" "| model | batch | type | Fovea | PyTorch | its mode $head"
}

device='' imported='' left=()
start=$SECONDS
for c in "${cases[@]}"; do
    IFS=: read -ra row <<<"$c"
    if ((SECONDS - start > 60 * minutes)); then
        left+=("${row[0]} ${row[1]} at batch ${row[2]} in ${row[4]} (time)")
        continue
    fi
    echo "bench: ${row[*]}" >&2
    measure "${row[@]}"
done
write_tables >"$temp/table"
cat "$temp/table"

if [ ! -f "$out" ]; then
    printf '# Benchmarks\n\n<!-- bench:begin -->\n<!-- bench:end -->\n' >"$out"
fi
if ! grep -q '<!-- bench:begin -->' "$out" || ! grep -q '<!-- bench:end -->' "$out"; then
    echo "bench: $out has no markers <!-- bench:begin --> and <!-- bench:end -->: the table was not written" >&2
    exit 1
fi
awk -v table="$temp/table" '
    /<!-- bench:end -->/ { inside = 0 }
    !inside { print }
    /<!-- bench:begin -->/ { inside = 1; while ((getline line < table) > 0) print line }' "$out" >"$temp/page"
cat "$temp/page" >"$out"
echo "bench: written to $out" >&2
