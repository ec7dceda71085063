#!/usr/bin/env bash
# A guard against slower code: training speed as images per GFLOP of a fixed matrix product that is measured in between
# (`fovea bench --mode yardstick`), beside what was recorded last on this kind of processor. Exit code 10: a ratio is more
# than 15 % lower. It takes about 40 s and wants a machine that does little else; it is no part of the tests.
#
# usage: tests/bench_quick.sh PROGRAM
#
# Environment:
#   RECORD=1                record the ratios instead of judging them
#   FOVEA_QUICK_BASELINE    file of recorded ratios (default tests/bench-baseline.txt)
#   FOVEA_QUICK_CASES       "MODEL:BATCH ..." (default: resnet20:128 resnet18_cifar:32 vit_tiny_patch4_32:32 speedrun94:64)
#   FOVEA_QUICK_THREADS     default 2
#   FOVEA_QUICK_SECONDS     of each measurement (default 1.5)
#   FOVEA_QUICK_ROUNDS      measurements of each case (default 3); the median counts
#   FOVEA_QUICK_MEASURED    judge the lines "MODEL:BATCH RATIO" of this file instead of measuring (for tests)
#   FOVEA_QUICK_MACHINE     the key that ratios are recorded under (default: kernels, threads, processor)
set -euo pipefail
program=$(realpath "${1:?usage: tests/bench_quick.sh PROGRAM}")
cd "$(dirname "$0")/.."
baseline=${FOVEA_QUICK_BASELINE:-tests/bench-baseline.txt}
threads=${FOVEA_QUICK_THREADS:-2} seconds=${FOVEA_QUICK_SECONDS:-1.5} rounds=${FOVEA_QUICK_ROUNDS:-3}
read -ra cases <<<"${FOVEA_QUICK_CASES:-resnet20:128 resnet18_cifar:32 vit_tiny_patch4_32:32 speedrun94:64}"
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

field() { sed -nE "s/.*\"$1\": ?(\"([^\"]*)\"|([^,}]*)).*/\2\3/p"; }
median() { sort -g | awk '{ v[NR] = $1 } END { if (NR) print v[int((NR + 1) / 2)] }'; }
yardstick() { "$program" bench --mode yardstick --threads "$threads" --seconds 0.3 --json -q | field gflops; }
train() { # train MODEL:BATCH: one line of JSON; nothing for a model that this version lacks
    "$program" bench --mode train --model "${1%%:*}" -b "${1##*:}" --threads "$threads" --seconds "$seconds" --json -q 2>/dev/null || true
}

if [ -n "${FOVEA_QUICK_MEASURED:-}" ]; then
    cp "$FOVEA_QUICK_MEASURED" "$temp/measured"
else
    device=
    for ((i = 0; i < rounds; i++)); do
        for c in "${cases[@]}"; do
            before=$(yardstick)
            line=$(train "$c")
            after=$(yardstick)
            speed=$(field images_per_s <<<"$line")
            [ -n "$speed" ] || continue
            device=$(field device <<<"$line")
            awk -v r="$speed" -v a="$before" -v b="$after" 'BEGIN { print 2 * r / (a + b) }' >>"$temp/$c"
        done
    done
    for c in "${cases[@]}"; do
        [ -s "$temp/$c" ] && echo "$c $(median <"$temp/$c")" || echo "bench-quick: no model ${c%%:*} in this version: left out" >&2
    done >"$temp/measured"
    FOVEA_QUICK_MACHINE=${FOVEA_QUICK_MACHINE:-$device, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)}
fi
machine=${FOVEA_QUICK_MACHINE:?}
[ -s "$temp/measured" ] || { echo "bench-quick: nothing was measured" >&2; exit 1; }

if [ -n "${RECORD:-}" ]; then
    touch "$baseline"
    awk -F'\t' -v machine="$machine" '$1 != machine' "$baseline" >"$temp/kept" # other machines stay as they are
    while read -r c ratio; do printf '%s\t%s\t%s\t%s\n' "$machine" "$c" "$ratio" "$(date -u +%F)"; done <"$temp/measured" >>"$temp/kept"
    cat "$temp/kept" >"$baseline"
    echo "bench-quick: recorded for '$machine' in $baseline"
    exit 0
fi

# measured: "CASE RATIO"; baseline: machine TAB case TAB ratio TAB date
awk -F'\t' -v machine="$machine" -v baseline="$baseline" '
    BEGIN {
        while ((getline line < baseline) > 0) {
            split(line, part, "\t")
            if (part[1] == machine) { was[part[2]] = part[3]; when[part[2]] = part[4] }
        }
        printf "%-28s %10s %10s %8s\n", "images per GFLOP", "now", "recorded", "change"
    }
    {
        split($0, now, " ")
        if (!(now[1] in was)) { printf "%-28s %10.4f %10s\n", now[1], now[2], "-"; missing++; next }
        change = 100 * (now[2] / was[now[1]] - 1)
        slow = change < -15
        printf "%-28s %10.4f %10.4f %+7.1f%%  of %s%s\n", now[1], now[2], was[now[1]], change, when[now[1]], slow ? "  SLOWER" : ""
        slower += slow
    }
    END {
        if (missing) print "bench-quick: nothing is recorded for some on \"" machine "\": make bench-quick RECORD=1 records what is measured"
        if (slower) print "bench-quick: more than 15 % slower than recorded. Once more on a quiet machine? If it is meant: make bench-quick RECORD=1"
        exit slower ? 10 : 0
    }' "$temp/measured"
