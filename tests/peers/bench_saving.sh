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

# Three figures of a run: seconds of training by results.csv, without evaluation and without the wait for the last save; wall clock; and
# processor time, which depends least on what else the machine does: with all processors busy, what saving takes training lacks.
one() { # one FILE OPTIONS...
    local TIMEFORMAT='%R %U %S' times
    times=$({ time "$fovea" train "${options[@]}" --val-split 0 -q --name t "${@:2}" >/dev/null 2>err; } 2>&1)
    awk -F, -v times="$times" 'NR > 1 { s += 1 / $10 }
        END { split(times, t, " "); printf "%.8f %.3f %.3f\n", s, t[1], t[2] + t[3] }' runs/t/results.csv >>"$1"
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
    for column in 1 2 3; do
        case $column in 1) what="training" ;; 2) what="wall clock" ;; 3) what="processor time" ;; esac
        paste -d' ' <(cut -d' ' -f$column none | median) <(cut -d' ' -f$column $kind | median) |
            awk -v text="$text" -v what="$what" '{ printf "%-32s %-15s %+.2f %%\n", text, what, 100 * ($2 / $1 - 1) }'
    done
done
