#!/usr/bin/env bash
# Speed and memory of Fovea beside PyTorch on this machine: ours and theirs in alternation, medians, and their ratio.
# Prints a table and writes it into docs/benchmarks.md between its markers; the text around them stays.
#
# usage: tests/peers/bench.sh PROGRAM
#
# Environment:
#   FOVEA_PEER_PYTHON    python with torch and timm (default: python3); without them only ours is measured
#   FOVEA_BENCH_CASES    "MODEL:MODE ..." (default: resnet20, resnet18_cifar and vit_tiny_patch4_32, train and infer)
#   FOVEA_BENCH_BATCH    pictures per step (default 128)
#   FOVEA_BENCH_THREADS  threads of either side (default 2)
#   FOVEA_BENCH_SECONDS  of each measurement (default 6)
#   FOVEA_BENCH_RUNS     measurements of each side (default 5)
#   FOVEA_BENCH_OUT      file to write (default docs/benchmarks.md)
set -euo pipefail
program=$(realpath "${1:?usage: tests/peers/bench.sh PROGRAM}")
cd "$(dirname "$0")/../.."
python=${FOVEA_PEER_PYTHON:-python3}
threads=${FOVEA_BENCH_THREADS:-2} seconds=${FOVEA_BENCH_SECONDS:-6} runs=${FOVEA_BENCH_RUNS:-5} batch=${FOVEA_BENCH_BATCH:-128}
out=${FOVEA_BENCH_OUT:-docs/benchmarks.md}
all="resnet20:train resnet20:infer resnet18_cifar:train resnet18_cifar:infer vit_tiny_patch4_32:train vit_tiny_patch4_32:infer"
read -ra cases <<<"${FOVEA_BENCH_CASES:-$all}"
unset OPENBLAS_CORETYPE OPENBLAS_NUM_THREADS OPENBLAS_L2_SIZE # either side chooses for itself
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

field() { # field NAME: that member, a number or a text, of each line of JSON on standard input
    sed -nE "s/.*\"$1\": ?(\"([^\"]*)\"|([^,}]*)).*/\2\3/p"
}
median() { # of the numbers on standard input, one per line
    sort -g | awk '{ v[NR] = $1 } END { if (NR) print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}
ratio() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.2f", a / b }'; }
number() { awk -v x="$1" -v f="$2" 'BEGIN { printf f, x }'; }

ours() { # ours MODEL MODE: one line of JSON
    "$program" bench --model "$1" --img-size 32 -b "$batch" --mode "$2" --precision float32 --threads "$threads" --seconds "$seconds" --json -q
}
# PyTorch gives memory back to the system after each tensor unless malloc is told not to: it is faster so.
theirs() { # theirs MODEL MODE LAYOUT SECONDS
    env MALLOC_MMAP_THRESHOLD_=8589934592 MALLOC_TRIM_THRESHOLD_=17179869184 MALLOC_TOP_PAD_=268435456 \
        "$python" tests/peers/bench_torch.py --model "$1" --mode "$2" --batch "$batch" --layout "$3" --seconds "$4" --threads "$threads"
}

peer=$("$python" -c 'import timm, torch; print("PyTorch", torch.__version__)' 2>/dev/null) || peer=
if [ -z "$peer" ]; then
    echo "bench: $python has no torch and timm (tests/peers/requirements.txt; FOVEA_PEER_PYTHON names another): only ours is measured" >&2
fi
if [[ $peer == *+cu* ]]; then
    echo "bench: this PyTorch is a CUDA build, which loads large libraries that it does not use here: compare memory with a CPU build" >&2
fi
awk '$1 > 0.5 { print "bench: the load is " $1 ": other programs are running, and the figures will show it" }' /proc/loadavg >&2

measure() { # measure MODEL MODE: a row of the table
    local model=$1 mode=$2 layout=nhwc nchw nhwc our_speed our_memory their_speed their_memory
    : >"$temp/ours"
    : >"$temp/theirs"
    if [ -n "$peer" ]; then # one run each to see which memory layout suits PyTorch better
        nchw=$(theirs "$model" "$mode" nchw "$seconds" | field img_s)
        nhwc=$(theirs "$model" "$mode" nhwc "$seconds" | field img_s)
        awk -v a="$nchw" -v b="$nhwc" 'BEGIN { exit !(a > b) }' && layout=nchw
    fi
    for ((i = 0; i < runs; i++)); do
        ours "$model" "$mode" >>"$temp/ours"
        [ -z "$peer" ] || theirs "$model" "$mode" "$layout" "$seconds" >>"$temp/theirs"
    done
    our_speed=$(field images_per_s <"$temp/ours" | median)
    our_memory=$(field peak_rss_mb <"$temp/ours" | median)
    printf '| %s | %s | %s | %s |' "$model" "$mode" "$(number "$our_speed" %.0f)" "$(number "$our_memory" %.0f)"
    if [ -z "$peer" ]; then
        echo ' – | – | – | – | – |'
        return
    fi
    their_speed=$(field img_s <"$temp/theirs" | median)
    their_memory=$(field rss_mb <"$temp/theirs" | median)
    printf ' %s | %s | %s | **%s** | **%s** |\n' "$(number "$their_speed" %.0f)" "$(number "$their_memory" %.0f)" "$layout" \
        "$(ratio "$our_speed" "$their_speed")" "$(ratio "$our_memory" "$their_memory")"
}

write_table() {
    cat <<EOF
Measured on $(date -u +%F) with \`make bench\` ($("$program" version)): batch $batch, float32, $threads threads, $runs runs of $seconds s each in alternation, medians.

- processor: $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)
- ours: $(ours resnet20 infer | field device)
- peer: ${peer:-not measured}${peer:+, of whose memory $(theirs resnet20 infer nhwc 0 | field import_mb | xargs printf %.0f) MB are there after importing it}

| model | mode | Fovea images/s | Fovea MB | PyTorch images/s | PyTorch MB | its layout | speed ÷ PyTorch's | memory ÷ PyTorch's |
|---|---|---|---|---|---|---|---|---|
EOF
    for c in "${cases[@]}"; do
        echo "bench: ${c/:/, }" >&2
        measure "${c%%:*}" "${c##*:}"
    done
}

write_table >"$temp/table"
cat "$temp/table"

if [ ! -f "$out" ]; then
    cat >"$out" <<'EOF'
# Benchmarks

How to read them: only ratios taken in one alternating run on a quiet machine mean much. Images per second are of the median step; MB is
the peak resident memory of the whole process. Training is forward, backward and a step of SGD with momentum, inference the forward pass
alone. PyTorch runs eagerly in the better of its two memory layouts, on one batch that is already float; Fovea starts every step from
uint8 pixels and normalises them in the step. [tests/peers/bench.sh](../tests/peers/bench.sh) makes the table between the markers.

<!-- bench:begin -->
<!-- bench:end -->
EOF
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
