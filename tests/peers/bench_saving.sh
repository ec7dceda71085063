#!/usr/bin/env bash
# R23 of docs/reliability.md: what saving costs, as a share of training time. Runs with and without saving take turns; medians are compared.
# Wants a quiet machine: the two kinds of run differ by less than what another process takes away.
# usage: bench_saving.sh [FOVEA] [ROUNDS] [TRAIN-OPTION...]    (default: build/fovea 5; resnet20, 4 epochs of 28 steps of 128)
set -euo pipefail
cd "$(dirname "$0")/../.."
fovea=$(realpath "${1:-build/fovea}") rounds=${2:-5}
shift $(($# < 2 ? $# : 2))
options=(--data synthetic --model resnet20 -b 128 --epochs 4 --model-ema)
[ $# -gt 0 ] && options=("$@")
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp"

# Seconds of training: pictures / (pictures per second), summed over the epochs; evaluation is left out, waiting for saves within
# an epoch is in it. The wall clock of the whole run is the second figure: it has the last save in it, too.
one() { # one FILE OPTIONS...
    local started ended
    started=$(date +%s%N)
    "$fovea" train "${options[@]}" --val-split 0 -q --name t "${@:2}" >/dev/null
    ended=$(date +%s%N)
    awk -F, -v wall=$((ended - started)) 'NR > 1 { s += 1 / $10 } END { printf "%.6f %.4f\n", s, wall / 1e9 }' runs/t/results.csv >>"$1"
    rm -rf runs
}
median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

one warm-up --save-epochs 0 --save-minutes 0
for ((i = 0; i < rounds; i++)); do
    one none --save-epochs 0 --save-minutes 0
    one epochs
    one steps --save-steps 10
done
for kind in epochs steps; do
    case $kind in epochs) text="a save per epoch (the default)" ;; steps) text="and one every 10 steps" ;; esac
    for column in 1 2; do
        case $column in 1) what="training time" ;; 2) what="wall clock" ;; esac
        paste -d' ' <(cut -d' ' -f$column none | median) <(cut -d' ' -f$column $kind | median) |
            awk -v text="$text" -v what="$what" '{ printf "%-32s %-14s %+.2f %%\n", text, what, 100 * ($2 / $1 - 1) }'
    done
done
