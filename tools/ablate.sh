#!/usr/bin/env bash
# Run the commands of the ablation table in docs/speedrun.md, shortened, and print the table with figures.
# usage: tools/ablate.sh FOVEA [--epochs N] [--seed N] [--rows REGEX] [-- OPTION...]
#   --rows: only rows whose first column matches; what stands behind -- is added to every command
# Runs lie in $FOVEA_ABLATE_RUNS (default: a folder that is removed at the end); data in $FOVEA_DATA or ./datasets.
set -u
fovea=$(realpath "${1:?usage: tools/ablate.sh FOVEA [--epochs N] [--seed N] [--rows REGEX] [-- OPTION...]}")
shift
epochs=2.5 seed=0 rows=.
while [ $# -gt 0 ]; do
    case $1 in
    --epochs) epochs=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    --rows) rows=$2; shift 2 ;;
    --) shift; break ;;
    *) echo "ablate.sh: unknown option $1" >&2; exit 2 ;;
    esac
done
page=$(dirname "$0")/../docs/speedrun.md
runs=${FOVEA_ABLATE_RUNS:-}
if [ -z "$runs" ]; then
    runs=$(mktemp -d)
    trap 'rm -rf "$runs"' EXIT
fi
# What the recipe counts in epochs keeps its share of the run: 23 % of it to warm up, 3 of 9.9 epochs for the first bias.
warmup=$(awk -v e="$epochs" 'BEGIN { printf "%.4g", 0.23 * e }')
until=$(awk -v e="$epochs" 'BEGIN { printf "%.4g", 3 / 9.9 * e }')
groups=$(sed -nE 's/^param-groups: "(.*)"$/\1/p' "$(dirname "$0")/recipes/cifar10-94.yaml")

figure() { # figure FILE KEY: the accuracy in percent of one of the evaluations of metrics.json
    python3 -c '
import json, sys
e = json.load(open(sys.argv[1])).get(sys.argv[2])
print("%.2f" % (100 * e["top1"]) if e else "-")' "$1" "$2"
}

status=0
echo "| without | command | top-1 | top-1, six views |"
echo "|---|---|---|---|"
while IFS='|' read -r _ what command _; do
    [[ $what =~ $rows ]] || continue
    command=${command#*\`} command=${command%\`*}
    read -ra words <<<"$command"
    short=(--epochs "$epochs" --seed "$seed")
    [[ $command == *--warmup-epochs* || $command == *-muon* ]] || short+=(--warmup-epochs "$warmup")
    [[ $command == *--param-groups* || $command == *-muon* ]] || short+=(--param-groups "$groups")
    short=("${short[@]/until=3/until=$until}") words=("${words[@]/until=3/until=$until}")
    name=$(tr -cs '[:alnum:]' - <<<"$what")
    if "$fovea" "${words[@]:1}" "${short[@]}" "$@" --output "$runs" --name "row$name" -q >"$runs/out" 2>"$runs/err"; then
        metrics=$(ls -td "$runs/row$name"*/ | head -n 1)metrics.json
        echo "|$what| \`$command\` | $(figure "$metrics" test) | $(figure "$metrics" test_tta) |"
    else
        echo "|$what| \`$command\` | failed | failed |"
        sed 's/^/    /' "$runs/err" >&2
        status=1
    fi
done < <(sed -n '/^<!-- ablation:begin/,/^<!-- ablation:end/p' "$page" | grep '^| .*`fovea train')
exit $status
