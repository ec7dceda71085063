#!/usr/bin/env bash
# The program from outside: help, options, bad input and its exit codes, a run from training to evaluation, JSON, pipes, signals.
# FOVEA: the program (default build/fovea). Needs no data and no network: everything runs on the synthetic set or on files made here.
set -u
cd "$(dirname "$0")/.." || exit 1
fovea=$(realpath "${FOVEA:-build/fovea}")
[ -x "$fovea" ] || { echo "test_cli.sh: no program at $fovea"; echo "0 passed, 1 failed"; exit 1; }
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp" || exit 1
unset FOVEA_DATA
export TERM=dumb
passed=0 failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    for file in out err check.out check.err; do
        [ -s $file ] && head -n 5 $file | sed "s/^/    $file: /"
    done
    return 0
}
ok() { passed=$((passed + 1)); }

# expect CODE FRAGMENT ARGS...: the exit code, and a text that standard output or error must hold.
expect() {
    local code=$1 fragment=$2 got
    shift 2
    "$fovea" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then fail "fovea $*: exit code $got, not $code"
    elif ! cat out err | grep -qF -- "$fragment"; then fail "fovea $*: no '$fragment' in what it says"
    elif [ "$code" -ne 0 ] && ! grep -q '^fovea' err; then fail "fovea $*: no error message"
    else ok; fi
}
# check NAME COMMAND...: the command succeeds.
check() {
    local name=$1
    shift
    if "$@" >check.out 2>check.err; then ok; else fail "$name"; fi
}
# between VALUE LOW HIGH
between() { awk -v v="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(v != "" && v >= a && v <= b) }'; }
column() { awk -F, -v name="$2" -v row="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } NR == row + 1 { print $c }' "$1"; }

# ---------------------------------------------------------------- help and version
expect 0 "usage: fovea COMMAND" help
expect 0 "usage: fovea COMMAND" --help
expect 0 "fovea 0." version
expect 0 "fovea 0." --version
for command in train eval info models bench data help version; do
    expect 0 "usage: fovea $command" "$command" --help
    expect 0 "usage: fovea $command" help "$command"
done
expect 0 "--weight-decay" train -h
expect 0 ".TH FOVEA 1" help --man
"$fovea" >out 2>err
[ $? -eq 2 ] && ok || fail "no command: exit code 2"
check "every option of --help is in the manual" bash -c '
    "$1" help --man >man
    for c in train eval info models bench data; do "$1" "$c" --help; done | grep -oE "^ +(-., )?--[a-z0-9-]+" | grep -oE "\-\-[a-z0-9-]+" | sort -u |
    while read -r o; do grep -qF -- "$(sed "s/-/\\\\-/g" <<<"$o")" man || exit 1; done' _ "$fovea"

# ---------------------------------------------------------------- wrong use: 2, with the nearest right word
expect 2 "did you mean 'train'?" trian
expect 2 "did you mean '--epochs'?" train --epoch 3
expect 2 "unknown option '-x'" train -x
expect 2 "it belongs to 'eval'" train --min-top1 0.5
expect 2 "no data set given" train
expect 2 "--data needs a value" train --data
expect 2 "unexpected argument 'extra'" train extra --data synthetic
expect 2 "from 1 to" train --data synthetic -b 0
expect 2 "from 1 to" train --data synthetic --batch-size=0
expect 2 "is more than the 3686 training samples" train --data synthetic -b 4000
expect 2 "must be a number" train --data synthetic --lr -1
expect 2 "must be a number" train --data synthetic --lr nan
expect 2 "must be a number" train --data synthetic --lr 0.1x
expect 2 "must be a whole number" train --data synthetic --epochs 1.5
expect 2 "did you mean 'sgd'?" train --data synthetic --opt sdg
expect 2 "did you mean 'resnet20'?" train --data synthetic --model resnet2O
expect 2 "did you mean 'resnet20'?" info resnet2O
expect 2 "add '--device ref'" train --data synthetic --precision float64
expect 2 "needs --milestones" train --data synthetic --sched multistep
expect 2 "must rise" train --data synthetic --sched multistep --milestones 5,3
expect 2 "--betas needs two" train --data synthetic --betas 0.9
expect 2 "3 channels" train --data synthetic --mean 0.5,0.5
expect 2 "name of a folder" train --data synthetic --name ../x
expect 2 "no model given" eval
expect 2 "an argument is missing" data get
expect 2 "unknown action" data fetch cifar10
expect 4 "No such file" eval runs/none
expect 4 "No such file" train --data synthetic --pretrained none.safetensors
expect 5 "none.yaml" train -c none.yaml

# ---------------------------------------------------------------- YAML and the environment
printf 'data: synthetic\nepochs: 1\nmodel: lenet5\nlearning-rate: 3\n' >bad-key.yaml
expect 2 "line 4: unknown key 'learning-rate'" train -c bad-key.yaml
printf 'data: synthetic\nepoch: 1\n' >near-key.yaml
expect 2 "did you mean 'epochs'?" train -c near-key.yaml
printf 'data: synthetic\nlr: fast\n' >bad-value.yaml
expect 2 "line 2: lr must be a number" train -c bad-value.yaml
printf 'data: {a: b}\n' >nested.yaml
expect 2 "line 1" train -c nested.yaml
printf 'data: [synthetic\n' >broken.yaml
expect 2 "not valid YAML" train -c broken.yaml
printf -- '- data\n' >list.yaml
expect 2 "expected 'option: value'" train -c list.yaml
printf 'data: synthetic\nmodel: lenet5\nepochs: 1\nbatch_size: 64\nmean: [0.5, 0.5, 0.5]\nstd: 0.25\nlr: 0.03\nfraction: 0.1\n' >good.yaml
FOVEA_LR=0.02 FOVEA_MOMENTUM=0.8 "$fovea" train -c good.yaml --fraction 0.2 -q --name order >out 2>err
check "precedence: flag > file > environment > default" \
    grep -qzP 'fraction: 0\.2\n(.*\n)*batch-size: 64\nlr: 0\.03\n(.*\n)*momentum: 0\.8\n(.*\n)*smoothing: 0\n' runs/order/args.yaml
FOVEA_LR=x "$fovea" train --data synthetic >out 2>err
[ $? -eq 2 ] && grep -q "FOVEA_LR must be a number" err && ok || fail "a bad value in the environment names the variable"

# ---------------------------------------------------------------- bad data: 3
record() { printf "\\x$(printf %02x "$1")"; head -c 3072 /dev/zero; } # record LABEL
mkdir -p cifar10 && for i in 0 1 2 3 4 5 6 7 8 9; do record $i; done >cifar10/test_batch.bin
for b in 1 2 3 4 5; do cp cifar10/test_batch.bin cifar10/data_batch_$b.bin; done
printf '%s\n' a b c d e f g h i j >cifar10/batches.meta.txt
expect 0 "dry run: everything fits" train --data cifar10 --data-dir . -b 4 --model lenet5 --val-split 0 --dry-run
expect 2 "is more than the 50 training samples" train --data cifar10 --data-dir . -b 64 --model lenet5 --val-split 0
mv cifar10/data_batch_3.bin x.bin
expect 3 "data_batch_3.bin" train --data cifar10 --data-dir . -b 4
head -c 3000 x.bin >cifar10/data_batch_3.bin
expect 3 "data_batch_3.bin" train --data cifar10 --data-dir . -b 4
(record 1; record 77) >cifar10/data_batch_3.bin
expect 3 "77" train --data cifar10 --data-dir . -b 4
expect 3 "data_batch_3.bin" data check cifar10 --data-dir .
mv x.bin cifar10/data_batch_3.bin
mv cifar10/test_batch.bin x.bin
expect 3 "test_batch.bin" train --data cifar10 --data-dir . -b 4 --val-split 0 --model lenet5
expect 3 "no dataset is called 'nosuch'" train --data nosuch
expect 3 "fovea data get mnist" train --data mnist --data-dir "$temp"

# ---------------------------------------------------------------- train, save, evaluate; the loss is known
"$fovea" train --data synthetic --model lenet5 --opt adam --epochs 4 --seed 0 --name smoke >out 2>err
[ $? -eq 0 ] && ok || fail "train"
for file in args.yaml env.json results.csv log.txt metrics.json predictions.csv confusion.csv worst.html \
    weights/best/model.safetensors weights/best/config.json weights/last/model.safetensors weights/last/config.json; do
    check "runs/smoke/$file" test -s "runs/smoke/$file"
done
head -n 1 runs/smoke/results.csv >out
check "columns of results.csv" grep -qxF "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0,train/accuracy_top1,ema/accuracy_top1,images_per_s,mem_gb" out
loss=$(column runs/smoke/results.csv val/loss 4)
check "loss of the smoke run: $loss" between "$loss" 1.8974 1.8994
check "predictions.csv has a row per picture" test "$(wc -l <runs/smoke/predictions.csv)" -eq 1025
check "worst.html has 50 pictures" test "$(grep -c 'data:image/png;base64' runs/smoke/worst.html)" -eq 50
check "worst.html needs no other file" bash -c '! grep -qE "(src|href)=\"?(http|/|\.)" runs/smoke/worst.html'
check "no live line in a log" bash -c '! grep -q $'"'\\r'"' err runs/smoke/log.txt'
trained=$(sed -nE 's/.*"top1": ([0-9.]+).*/\1/p' runs/smoke/metrics.json | head -n 1)
"$fovea" eval runs/smoke --json -q >out 2>err
evaluated=$(sed -nE 's/.*"top1": ([0-9.]+).*/\1/p' out)
check "eval finds the accuracy that train reported ($trained, $evaluated)" test "$trained" = "$evaluated"
expect 0 "top1" eval runs/smoke/weights/best --data synthetic
expect 0 "top1" eval --model lenet5 --pretrained runs/smoke/weights/last/model.safetensors --data synthetic --split val
expect 2 "no data set given" eval runs/smoke/weights/best
expect 10 "is below --min-top1" eval runs/smoke --min-top1 1
expect 0 "top1" eval runs/smoke --min-top1 0.15 --save-to report
check "eval --save-to" test -s report/worst.html
expect 4 "of another shape" eval runs/smoke/weights/best/model.safetensors --model resnet20 --num-classes 10 --data synthetic
expect 4 "model.safetensors" eval report --data synthetic
head -c 1000 runs/smoke/weights/best/model.safetensors >cut.safetensors
expect 4 "cut.safetensors" eval cut.safetensors --model lenet5 --data synthetic
expect 0 "lenet5: 62006 parameters" info runs/smoke
expect 0 "output logits" info lenet5 --dump
expect 0 "resnet50" models

# The same seed gives the same bits: from args.yaml, with other threads and workers.
"$fovea" train -c runs/smoke/args.yaml --name again --threads 3 -j 0 -q >out 2>err
check "same bits again" cmp runs/smoke/weights/last/model.safetensors runs/again/weights/last/model.safetensors
"$fovea" train -c runs/smoke/args.yaml --name other --seed 1 --epochs 1 -q >out 2>err
check "another seed gives others" bash -c '! cmp -s runs/again/weights/last/model.safetensors runs/other/weights/last/model.safetensors'
"$fovea" train -c runs/smoke/args.yaml --epochs 1 -q >out 2>err
check "a run folder is never written over" test -d runs/smoke-2

# ---------------------------------------------------------------- learning by heart, chance, averages, bad numbers
expect 0 "overfit: passed" train --data synthetic --model lenet5 --overfit-batches 1 -b 64
expect 10 "overfit: failed" train --data synthetic --model lenet5 --overfit-batches 1 -b 64 --lr 1e-7
"$fovea" train --data synthetic --model lenet5 --opt adam --epochs 4 --shuffle-labels -q --name shuffled >out 2>err
check "shuffled labels stay at chance" between "$(column runs/shuffled/results.csv metrics/accuracy_top1 4)" 0.04 0.17
"$fovea" train --data synthetic --model lenet5 --epochs 2 --model-ema --grad-accum-steps 2 -b 64 -q --name ema >out 2>err
check "averaged weights are saved" test -s runs/ema/weights/ema/model.safetensors
check "and have learned: chance is 0.1" between "$(column runs/ema/results.csv ema/accuracy_top1 2)" 0.16 0.28
expect 7 "is not finite" train --data synthetic --model lenet5 --lr 1000 --warmup-epochs 0 --epochs 2
expect 7 "diverged" train --data synthetic --model lenet5 --lr 20 --opt adam --warmup-epochs 0 --epochs 2 --fraction 0.3
expect 0 "test " train --data synthetic --model mlp --device ref --precision float64 --fraction 0.02 -b 16 --epochs 1 --val-split 0.01 --img-size 8
expect 0 "dry run" train --data synthetic --img-size 16 --model vit_tiny_patch4_32_d6 --fraction 0.05 -b 8 --dry-run

# ---------------------------------------------------------------- JSON
if command -v python3 >/dev/null; then
    events() { python3 -c '
import json, sys
print(" ".join(json.loads(line)["event"] for line in sys.stdin))'; }
    "$fovea" train --data synthetic --model lenet5 --epochs 2 --json --name json 2>err | events >out
    check "train --json" grep -qx "run epoch epoch done" out
    "$fovea" train --data nosuch --json 2>err | events >out
    check "error --json" grep -qx "error" out
    "$fovea" bench --model lenet5 -b 8 --seconds 0.2 --json >bench.json 2>err
    check "bench --json" python3 -c '
import json
lines = open("bench.json").read().splitlines()
r = json.loads(lines[0])
assert len(lines) == 1 and r["params"] == 61706 and r["images_per_s"] > 0 and r["ms_per_step"] > 0
assert {"model", "mode", "batch", "images_per_s", "ms_per_step", "peak_rss_mb", "params", "macs"} <= set(r)'
    for words in "models" "info lenet5" "data info synthetic" "version"; do
        # shellcheck disable=SC2086
        "$fovea" $words --json >words.json 2>err
        check "$words --json" python3 -c '[__import__("json").loads(line) for line in open("words.json")] or 1 / 0'
    done
    check "JSON files of a run" python3 -c '
import json
for name in ("env", "metrics", "weights/best/config"): json.load(open(f"runs/smoke/{name}.json"))'
else
    echo "SKIPPED: JSON checks (no python3)"
fi
expect 0 "GFLOP/s" bench --model lenet5 -b 8 --seconds 0.1 --profile --mode infer --threads 1

# ---------------------------------------------------------------- full disks, closed pipes, signals
"$fovea" models >/dev/full 2>err
[ $? -eq 5 ] && grep -q "No space left" err && ok || fail "full standard output"
"$fovea" version >&- 2>err
[ $? -eq 5 ] && ok || fail "closed standard output"
"$fovea" train --data synthetic --model lenet5 --epochs 1 --json --name full >/dev/full 2>err
[ $? -eq 5 ] && ok || fail "full standard output while training"
"$fovea" train --data synthetic --model lenet5 --epochs 1 --output /dev/null/x >out 2>err
[ $? -eq 5 ] && ok || fail "an output folder that cannot be made"
(
    trap '' XFSZ # a file that may not grow stands for a full disk
    ulimit -f 64
    exec "$fovea" train --data synthetic --model lenet5 --epochs 1 --name disk
) >out 2>err
[ $? -eq 5 ] && grep -q "model.safetensors: " err && ok || fail "full disk"
check "nothing half written" bash -c '! find runs/disk -name "*.tmp*" | grep -q .'
"$fovea" models 2>/dev/null | head -n 1 >out
check "a reader that leaves" grep -q params out
for signal in INT TERM; do
    code=$((128 + $(kill -l $signal)))
    # A shell's background jobs ignore SIGINT: set the default again.
    env --default-signal=INT "$fovea" train --data synthetic --model resnet20 --epochs 500 --name "sig$signal" >out 2>err &
    pid=$!
    for _ in $(seq 300); do
        [ -s "runs/sig$signal/results.csv" ] && break
        sleep 0.1
    done
    rm -f "runs/sig$signal/weights/last/model.safetensors"
    kill -s USR1 $pid
    for _ in $(seq 100); do
        [ -s "runs/sig$signal/weights/last/model.safetensors" ] && break
        sleep 0.1
    done
    check "SIGUSR1 saves and training goes on" kill -s 0 $pid
    check "SIGUSR1 saves" test -s "runs/sig$signal/weights/last/model.safetensors"
    kill -s $signal $pid
    wait $pid
    got=$?
    if [ $got -eq $code ] && [ -s "runs/sig$signal/weights/last/model.safetensors" ]; then ok; else fail "SIG$signal: exit code $got, not $code, or nothing saved"; fi
done

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
