#!/usr/bin/env bash
# The program from outside: help, options, bad input and its exit codes, a run from training to evaluation, JSON, pipes, signals.
# FOVEA: the program (default build/fovea). Needs no data and no network: everything runs on the synthetic set or on files made here.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# between VALUE LOW HIGH
between() { awk -v v="$1" -v a="$2" -v b="$3" 'BEGIN { exit !(v != "" && v >= a && v <= b) }'; }
column() { awk -F, -v name="$2" -v row="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } NR == row + 1 { print $c }' "$1"; }

# ---------------------------------------------------------------- help and version
commands="train eval predict info models bench data help completion version"
expect 0 "usage: fovea COMMAND" help
expect 0 "usage: fovea COMMAND" --help
expect 0 "fovea 0." version
expect 0 "fovea 0." --version
for command in $commands; do
    expect 0 "usage: fovea $command" "$command" --help
    expect 0 "Examples" help "$command"
    [ -z "$(awk 'length($0) > 80' out)" ] && ok || fail "a line of 'help $command' has more than 80 columns"
    check "'fovea help' lists $command" bash -c '"$1" help | grep -q "^  $2 "' _ "$fovea" "$command"
done
"$fovea" help >out
[ -z "$(awk 'length($0) > 80' out)" ] && ok || fail "a line of 'fovea help' has more than 80 columns"
expect 0 "--weight-decay" train -h
expect 0 ".TH FOVEA 1" help --man
"$fovea" >out 2>err
[ $? -eq 2 ] && ok || fail "no command: exit code 2"
"$fovea" help --man >fovea.1
check "every option of --help is in the manual" bash -c '
    for c in train eval predict info models bench data; do "$1" "$c" --help; done | grep -oE "^ +(-., )?--[a-z0-9-]+" | grep -oE "\-\-[a-z0-9-]+" | sort -u |
    while read -r o; do grep -qF -- "$(sed "s/-/\\\\-/g" <<<"$o")" fovea.1 || exit 1; done' _ "$fovea"
for section in "EXIT STATUS" ENVIRONMENT FILES EXAMPLES; do check "section $section of the manual" grep -qx ".SH $section" fovea.1; done
if command -v mandoc >/dev/null; then check "mandoc has no warning" bash -c '[ -z "$(mandoc -Tlint -W warning fovea.1 | grep -v "missing date")" ]'
elif man --version >/dev/null 2>&1; then check "man has no warning" bash -c '[ -z "$(man --warnings -l fovea.1 2>&1 >/dev/null)" ]'
else echo "SKIPPED: warnings of the manual page (neither mandoc nor man)"; fi

# ---------------------------------------------------------------- wrong use: 2, with the nearest right word
expect 2 "did you mean 'train'?" trian
expect 2 "did you mean 'eval'?" validate runs/train
expect 2 "a command comes before the option" --epochs 3
expect 2 "did you mean '--epochs'?" train --epoch 3
expect 2 "did you mean '--batch-size'?" train --batchsize 3
expect 2 "did you mean '--lr'?" train --learning-rate 3
expect 2 "'fovea train' has '--epochs'" eval --epoch 3
expect 2 "did you mean '--epochs'?" train -epochs 3
expect 2 "unknown option '-x'" train -x
expect 2 "it belongs to 'eval'" train --min-top1 0.5
expect 2 "no data set given" train
expect 2 "--data needs a value" train --data
expect 2 "unexpected argument 'extra'" train extra --data synthetic
expect 2 "given as '--data cifar10'" train cifar10
expect 2 "given as '--model resnet20'" train resnet20
expect 2 "two dashes: '--data=cifar10'" train data=cifar10
expect 2 "'fovea help train' shows" train help
expect 2 "with commas" train --data synthetic --mean 0.4 0.5 0.6
expect 2 "'--no-nesterov'" train --data synthetic --nesterov false
expect 2 "'--epochs' comes next" train --name --epochs 3
expect 2 "--lr needs a value" train --lr=
expect 2 "--name needs a value" train --name ''
expect 2 "not valid UTF-8" train --data synthetic --name $'\xff'
expect 2 "control character" train --data synthetic --name $'a\nb'
expect 2 "from 1 to" train --data synthetic -b 0
expect 2 "from 1 to" train --data synthetic -b=0
expect 2 "from 1 to" train --data synthetic --batch-size=0
expect 2 "is more than the 3686 training samples" train --data synthetic -b 4000
expect 2 "must be a number" train --data synthetic --lr -1
expect 2 "must be a number" train --data synthetic --lr nan
expect 2 "must be a number" train --data synthetic --lr 0.1x
expect 2 "must be a number" train --data synthetic --lr 0x1
expect 2 "with a decimal point" train --data synthetic --lr 0,1
expect 2 "must be a whole number" train --data synthetic --max-steps 1.5
expect 2 "from 0.001 to 1000000, not '1e99'" train --data synthetic --epochs 1e99
expect 2 "from 0 to 9007199254740992, not" train --data synthetic --seed 99999999999999999999
expect 2 "did you mean 'sgd'?" train --data synthetic --opt sdg
expect 2 "did you mean 'resnet20'?" train --data synthetic --model resnet2O
expect 2 "did you mean 'resnet20'?" train --data synthetic --model resnet-20
expect 2 "did you mean 'resnet20'?" info resnet2O
expect 3 "did you mean 'cifar10'?" train --data cifar-10
expect 3 "did you mean 'cifar100'?" eval --data cifr100
expect 2 "add '--device ref'" train --data synthetic --precision float64
expect 2 "--loss-scale is for --precision float16, not for bf16" train --data synthetic --precision bf16 --loss-scale 1024
expect 2 "--loss-scale must be auto or a number" train --data synthetic --precision float16 --loss-scale 0
expect 2 "predict computes in float32, bf16 or float16" predict runs/none x.png --device ref --precision float64
expect 2 "needs --milestones" train --data synthetic --sched multistep
expect 2 "must rise" train --data synthetic --sched multistep --milestones 5,3
expect 2 "--betas needs two" train --data synthetic --betas 0.9
expect 2 "--scale needs two numbers" train --data synthetic --scale 0.5
expect 2 "--scale: the first number is above" train --data synthetic --scale 1,0.5
expect 2 "--ratio: the first number is above" train --data synthetic --ratio 2,1
expect 2 "--color-jitter needs 1, 3 or 4" train --data synthetic --color-jitter 0.1,0.2
expect 2 "hue" train --data synthetic --color-jitter 0.4,0.4,0.4,0.6
for bad in skip skip:0 skip:1000001 skip:x nothing 'stop '; do expect 2 "--on-nan must be stop, skip:K or rollback" train --data synthetic --on-nan "$bad"; done
expect 2 "did you mean 'rollback'?" train --data synthetic --on-nan rolback
for bad in 'conv1,' ',conv1' 'a b' 12345; do expect 2 "--freeze must be" train --data synthetic --freeze "$bad"; done
for bad in 1,-1 1,,2 0,0 1,x balance; do expect 2 "--class-weights must be" train --data synthetic --class-weights "$bad"; done
for bad in ':lr=2' ',norm:lr=2' 'a b:lr=2'; do expect 2 "says nothing of which parameters" train --data synthetic --param-groups "$bad"; done
expect 2 "has no key; for example 'norm:lr=2'" train --data synthetic --param-groups norm
expect 2 "is no KEY=VALUE" train --data synthetic --param-groups norm:2
expect 2 "did you mean 'until'?" train --data synthetic --param-groups norm:untill=2
for bad in lr=-1 lr= lr=x wd=nan momentum=1 until=0 within=1e9; do expect 2 "must be a number from" train --data synthetic --param-groups "norm:$bad"; done
expect 2 "more than 7 groups" train --data synthetic --param-groups a:lr=1,b:lr=1,c:lr=1,d:lr=1,e:lr=1,f:lr=1,g:lr=1,h:lr=1
expect 2 "--param-groups: nothing in 'lenet5' is called 'conv9'" train --data synthetic --model lenet5 --param-groups conv1:lr=2,conv9:lr=2 --dry-run
expect 2 "earlier groups have all" train --data synthetic --model lenet5 --param-groups bias:lr=2,conv1.bias:wd=0 --dry-run
expect 2 "adam has no momentum" train --data synthetic --model lenet5 --opt adam --param-groups bias:momentum=0.5 --dry-run
expect 2 "--warmup-lr 0.2 is above --lr 0.1" train --data synthetic --warmup-lr 0.2 --lr 0.1
expect 2 "leave nothing to train on" train --data synthetic --val-split 0.5 --test-split 0.5
expect 2 "--force goes with --resume" train --data synthetic --force
expect 2 "3 channels" train --data synthetic --mean 0.5,0.5
expect 2 "name of a folder" train --data synthetic --name ../x
expect 2 "no model given" eval
expect 2 "an argument is missing" data get
expect 2 "unknown action" data fetch cifar10
expect 2 "did you mean 'bash'?" completion bahs
expect 2 "an argument is missing" predict
expect 2 "no pictures given" predict runs/none
"$fovea" train --epoch 3 --json >out 2>err
[ "$(wc -l <err)" -eq 1 ] && grep -q '^{"event": "error", "code": 2' out && ok || fail "an error is one line, and in JSON, too"
expect 0 "dry run" train --data synthetic --model mlp --opt ADAM --dry-run --fraction 0.1 -b=32 -q # choices in either case
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
printf 'data: synthetic\nlr: 0.1\nepochs: 2\nlr: 0.2\n' >twice.yaml
expect 2 "twice.yaml: line 4: 'lr' stands in line 2, too" train -c twice.yaml
printf 'learning-rate: 1\n' >other-name.yaml
expect 2 "line 1: unknown key 'learning-rate'; did you mean 'lr'?" train -c other-name.yaml
printf 'data: synthetic\nlr: &a 0.1\nmin-lr: *a\n' >alias.yaml
expect 2 "alias.yaml: line 2: anchors" train -c alias.yaml
printf 'data: synthetic\nmin-lr: *a\n' >alias2.yaml
expect 2 "alias2.yaml: line 2: aliases" train -c alias2.yaml
printf 'data: !!python/object:os.system x\n' >tag.yaml
expect 2 "tag.yaml: line 1: tags" train -c tag.yaml
printf 'lr: 0.1\n---\nlr: 0.2\n' >two.yaml
expect 2 "two.yaml: line 2: a second document" train -c two.yaml
printf 'data: synthetic\n\tlr: 1\n' >tab.yaml
expect 2 "tab.yaml: line 2: not valid YAML" train -c tab.yaml
printf 'data: synthetic\nname: "a\\0b"\n' >zero.yaml
expect 2 "zero.yaml: line 2" train -c zero.yaml
printf '\n\n\001\002\003' >binary.yaml
expect 2 "binary.yaml: line 3: not valid YAML" train -c binary.yaml
head -c 4096 "$fovea" >program.yaml
expect 2 "program.yaml: line 1: not valid YAML" train -c program.yaml
{ printf 'name: '; head -c 1000000 /dev/zero | tr '\0' a; } >long.yaml
expect 2 "no data set given" train -c long.yaml
{ printf 'mean: ['; head -c 1000000 /dev/zero | sed 's/\x0/1,/g' | head -c 1000000; echo '1]'; } >list.yaml
expect 2 "takes at most 16 values" train -c list.yaml
{ printf 'mean: '; head -c 1000000 /dev/zero | tr '\0' '['; } >deep.yaml
expect 2 "deep.yaml: line 1: a list of plain values" train -c deep.yaml
{ echo 'a: &a [x,x,x,x,x,x,x,x]'; for i in b c d e f g h i; do echo "$i: &$i [*a,*a,*a,*a,*a,*a,*a,*a]"; done; } >bomb.yaml
expect 2 "bomb.yaml: line 1" train -c bomb.yaml
head -c 1100000 /dev/zero | tr '\0' '#' >large.yaml
"$fovea" train -c large.yaml >out 2>err
[ $? -ne 0 ] && grep -q "large.yaml" err && ok || fail "a YAML file of more than 1 MiB"
printf 'data: synthetic\nmodel: lenet5\nepochs: 1\nbatch_size: 64\nmean: [0.5, 0.5, 0.5]\nstd: 0.25\nlr: 0.03\nfraction: 0.1\n' >good.yaml
FOVEA_LR=0.02 FOVEA_MOMENTUM=0.8 "$fovea" train -c good.yaml --fraction 0.2 -q --name order >out 2>err
check "precedence: flag > file > environment > default" \
    grep -qzP 'fraction: 0\.2\n(.*\n)*batch-size: 64\nlr: 0\.03\n(.*\n)*momentum: 0\.8\n(.*\n)*smoothing: 0\n' runs/order/args.yaml
if command -v python3 >/dev/null; then
    # of a switch, a whole number, a number, a choice, a text and a list: what a dry run says it took
    cat >all.yaml <<'END'
data: synthetic
model: lenet5
fraction: 0.05
nesterov: false
decay-epochs: 7
momentum: 0.7
sched: step
on-nan: skip:7
betas: [0.7, 0.77]
END
    taken() { # taken EXPECTED ARGS...: with the environment of the caller
        local want=$1
        shift
        "$fovea" train --data synthetic --model lenet5 --fraction 0.05 -b 16 --dry-run --json "$@" 2>err | python3 -c '
import json, sys
a = json.loads(sys.stdin.readline())["args"]
print(*(a[k] for k in ("nesterov", "decay-epochs", "momentum", "sched", "on-nan", "betas")))' >out 2>>err
        if [ "$(cat out)" = "$want" ]; then ok; else fail "precedence: $*: not $want"; fi
    }
    taken "true 30 0.9 cosine stop 0.9,0.999"
    export FOVEA_NESTEROV=no FOVEA_DECAY_EPOCHS=6 FOVEA_MOMENTUM=0.6 FOVEA_SCHED=poly FOVEA_ON_NAN=skip:6 FOVEA_BETAS=0.6,0.66
    taken "false 6 0.6 poly skip:6 0.6,0.66"
    FOVEA_NESTEROV=yes taken "false 7 0.7 step skip:7 0.7,0.77" -c all.yaml
    taken "true 8 0.8 linear rollback 0.8,0.88" -c all.yaml --nesterov --decay-epochs 8 --momentum=0.8 --sched linear --on-nan rollback --betas 0.8,0.88
    unset FOVEA_NESTEROV FOVEA_DECAY_EPOCHS FOVEA_MOMENTUM FOVEA_SCHED FOVEA_ON_NAN FOVEA_BETAS
else
    echo "SKIPPED: precedence by type (no python3)"
fi
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
expect 2 "flips alternate only where" train --data synthetic --model lenet5 --sampler balanced --flip-mode alternate --dry-run
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

# ---------------------------------------------------------------- initial values from the training pictures
filters() { # filters RUN: the first layer's weight as hexadecimal digits
    python3 - "runs/$1/weights/last/model.safetensors" <<'END'
import json, struct, sys
data = open(sys.argv[1], "rb").read()
start = 8 + struct.unpack("<Q", data[:8])[0]
begin, end = json.loads(data[8:start])["whiten.weight"]["data_offsets"]
print(data[start + begin:start + end].hex())
END
}
whitened=(train --data synthetic --model speedrun94 --img-size 9 --fraction 0.05 -b 64 --epochs 1 -q)
"$fovea" "${whitened[@]}" --threads 1 -j 0 --name white >out 2>err
"$fovea" "${whitened[@]}" --threads 3 -j 2 --lr 0.3 --name white-too >out 2>err
"$fovea" "${whitened[@]}" --mean 0.2 --std 0.7 --name white-other >out 2>err
"$fovea" "${whitened[@]}" --mean 0.2 --std 0.7 --pretrained runs/white --name white-tuned >out 2>err
white=$(filters white)
check "filters have 24 x 12 values" test ${#white} -eq 2304
check "the same pictures give the same filters, which training leaves alone" test "$white" = "$(filters white-too)"
check "other pictures give other filters" test "$white" != "$(filters white-other)"
check "pretrained filters stay as they are" test "$white" = "$(filters white-tuned)"
expect 0 "dry run: everything fits" "${whitened[@]}" --dry-run

# ---------------------------------------------------------------- learning by heart, chance, averages, bad numbers
expect 0 "overfit: passed" train --data synthetic --model lenet5 --overfit-batches 1 -b 64
expect 10 "overfit: failed" train --data synthetic --model lenet5 --overfit-batches 1 -b 64 --lr 1e-7
"$fovea" train --data synthetic --model lenet5 --opt adam --epochs 4 --shuffle-labels -q --name shuffled >out 2>err
check "shuffled labels stay at chance" between "$(column runs/shuffled/results.csv metrics/accuracy_top1 4)" 0.04 0.17
"$fovea" train --data synthetic --model lenet5 --epochs 2 --model-ema --grad-accum-steps 2 -b 64 -q --name ema >out 2>err
check "averaged weights are saved" test -s runs/ema/weights/ema/model.safetensors
check "and have learned: chance is 0.1" between "$(column runs/ema/results.csv ema/accuracy_top1 2)" 0.16 0.28
# ---------------------------------------------------------------- recipes: groups, sums, parts of epochs
plain=(--data synthetic --model mlp --img-size 8 --fraction 0.1 -b 32 --momentum 0 --lr 0.05) # 11 steps in an epoch
hash_after() { "$fovea" train "${plain[@]}" "$@" -q --json >out 2>err && sed -nE '/"event": "done"/s/.*"hash": "([0-9a-f]{16})".*/\1/p' out; }
same_hash() { [ -n "$2" ] && [ "$2" = "$3" ] && ok || fail "$1: hashes '$2' and '$3'"; }
other_hash() { [ -n "$2" ] && [ -n "$3" ] && [ "$2" != "$3" ] && ok || fail "$1: hashes '$2' and '$3'"; }
none=$(hash_after --epochs 2)
same_hash "groups that change nothing" "$none" "$(hash_after --epochs 2.0 --param-groups bias:lr=1,matrix:wd=0.0005)"
other_hash "a group's learning rate" "$none" "$(hash_after --epochs 2 --param-groups bias:lr=1.5)"
other_hash "a group's weight decay" "$none" "$(hash_after --epochs 2 --param-groups bias:wd=0.1)"
other_hash "a group's own course" "$none" "$(hash_after --epochs 2 --param-groups bias:within=1)"
first=$(hash_after --epochs 2 --max-steps 11)
same_hash "what stands still from the second epoch" "$first" "$(hash_after --epochs 2 --param-groups matrix:until=1,bias:until=1)"
same_hash "the summed loss at a 32nd of the learning rate" "$none" "$(hash_after --epochs 2 --loss-reduction sum --lr 0.0015625 --weight-decay 0.016)"
grep -q '"val_loss": [0-2]\.' out && ok || fail "the loss that is shown stays the mean"
expect 0 "" train --data synthetic --model lenet5 --epochs 2 --opt muon --lr 0.1 --momentum 0.6 --param-groups bias:lr=0.2:momentum=0.85,head:lr=0.5:momentum=0.85 -q --name muon
check "muon learns: chance is 0.1" between "$(column runs/muon/results.csv metrics/accuracy_top1 2)" 0.35 0.8
other_hash "lookahead" "$none" "$(hash_after --epochs 2 --lookahead 5)"
"$fovea" train "${plain[@]}" --epochs 1.5 --log-every 1 --name half >out 2>err
[ "$(grep '^  step ' err | tail -n 1 | awk '{ print $2 }')" = 17 ] && ok || fail "1.5 epochs of 11 steps have 17"
[ "$(wc -l <runs/half/results.csv)" = 3 ] && grep -q "^    2/2" err && ok || fail "the half epoch ends as a whole one does"
grep -qx "epochs: 1.5" runs/half/args.yaml && ok || fail "args.yaml has the half epoch"
expect 2 "--epochs is 1.5 in the run and cannot become 3" train --resume runs/half --epochs 3
expect 0 "test " train "${plain[@]}" --epochs 0.3 -q --name third

expect 7 "is not finite" train --data synthetic --model lenet5 --lr 1000 --warmup-epochs 0 --epochs 2
expect 7 "diverged" train --data synthetic --model lenet5 --lr 20 --opt adam --warmup-epochs 0 --epochs 2 --fraction 0.3
expect 0 "test " train --data synthetic --model mlp --device ref --precision float64 --fraction 0.02 -b 16 --epochs 1 --val-split 0.01 --img-size 8
# bf16: weights in files are float32, and each precision reads those of the other
expect 0 "test " train --data synthetic --model lenet5 --precision bfloat16 --epochs 2 -b 64 --name bf16
check "what was trained in bf16 has learned: chance is 0.1" between "$(column runs/bf16/results.csv metrics/accuracy_top1 2)" 0.16 0.6
check "the record says bf16" grep -q '"precision": "bf16"' runs/bf16/env.json
check "bf16 weights are float32" grep -aq '"dtype":"F32"' runs/bf16/weights/best/model.safetensors
check "and nothing in the state is bf16" test "$(grep -ac '"dtype":"BF16"' runs/bf16/state/last.safetensors)" = 0
expect 0 "test" eval runs/bf16
expect 0 "test" eval runs/bf16 --precision bf16
expect 0 "test" eval runs/ema --precision bf16
expect 0 "bf16" bench --model lenet5 --precision bf16 -b 16 --seconds 0.05
expect 0 "bf16 [" info lenet5 --precision bf16
check "info finds the same parameters per layer" cmp <("$fovea" info lenet5 | awk '/conv2d|linear/ {print $1, $4, $5}') <("$fovea" info lenet5 --precision bf16 | sed 's/bf16 \[/[/' | awk '/conv2d|linear/ {print $1, $4, $5}')
# float16
expect 0 "test " train --data synthetic --model lenet5 --precision float16 --epochs 2 -b 64 --name float16
check "what was trained in float16 has learned" between "$(column runs/float16/results.csv metrics/accuracy_top1 2)" 0.16 0.6
check "the loss scale is part of the state" grep -aqF '"loss_scale":"0x1p+16"' runs/float16/state/last.safetensors
check "float16 weights are float32" test "$(grep -ac '"dtype":"F16"' runs/float16/weights/best/model.safetensors runs/float16/state/last.safetensors | cut -d: -f2 | sort -u)" = 0
expect 0 "test" eval runs/float16 --precision float16
expect 0 "float16" bench --model lenet5 --precision float16 -b 16 --seconds 0.05
expect 0 "f16 [" info lenet5 --precision float16
# The first gradients of this one are too large for the scale that runs begin with.
large=(train --data synthetic --model resnet20 --img-size 4 --fraction 0.05 -b 8 --epochs 1 --loss-reduction sum --lr 0.001 --precision float16)
expect 0 "step 1: gradients past float16's range; the step is left out, the loss scale is 32768 now" "${large[@]}" --name large
check "what that lowered is part of the state" grep -aqE '"loss_scale":"0x1p\+([0-9]|1[0-4])"' runs/large/state/last.safetensors
expect 7 "a lower --loss-scale" "${large[@]}" --loss-scale 65536 --name too_large
expect 0 "dry run" train --data synthetic --img-size 16 --model vit_tiny_patch4_32_d6 --fraction 0.05 -b 8 --dry-run

# ---------------------------------------------------------------- pictures of one's own: predict
if command -v python3 >/dev/null; then
    python3 - <<'END'
import os, random, struct, zlib
random.seed(0)
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
def png(path, colour):
    w, h = random.randint(24, 40), random.randint(24, 40)
    rows = b"".join(b"\0" + bytes(random.randint(150, 255) if k == colour else random.randint(0, 90) for _ in range(w) for k in range(3)) for _ in range(h))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
for part, n in (("train", 24), ("val", 4), ("test", 6)):
    for colour, name in enumerate(("red", "green", "blue")):
        for i in range(n): png(f"photos/{part}/{name}/{i}.png", colour)
png("photos/test/.hidden.png", 0)
png("new\nline.png", 2)
END
    "$fovea" train --data photos --model lenet5 --img-size 28 -b 8 --epochs 3 --opt adam --name folder >out 2>err
    [ $? -eq 0 ] && ok || fail "train on a folder of pictures"
    "$fovea" predict runs/folder photos/test >out 2>err
    [ $? -eq 0 ] && [ "$(wc -l <out)" -eq 18 ] && ok || fail "predict: a line per picture"
    check "predict: the classes are right" awk '{ split($1, p, "/"); if (p[3] != $2 || $3 < 0.34 || $3 > 1) exit 1 }' out
    check "predict finds what training reported" bash -c '
        paste -d, <(awk "{ print \$3 }" out) <(awk -F, "NR == 1 { while (\$++c != \"probability\") {} } NR > 1 { print \$c }" runs/folder/predictions.csv) |
        awk -F, "\$1 - \$2 > 0.00011 || \$2 - \$1 > 0.00011 { exit 1 } END { exit NR != 18 }"'
    cp out all.out
    "$fovea" predict runs/folder photos/test -q -b 5 -j 3 >out 2>err
    check "predict: the same in other batches, with threads" bash -c 'cmp out all.out && [ ! -s err ]'
    find photos/test -name '[0-9]*.png' | "$fovea" predict runs/folder - -q >out 2>err
    check "predict: paths from standard input" bash -c 'cmp <(sort out) <(sort all.out)'
    "$fovea" predict runs/folder/weights/last photos/test/red/0.png --topk 5 >out 2>err
    check "predict --topk: all three classes of three" bash -c '[ "$(wc -l <out)" -eq 4 ] && awk "NR > 1 { s += \$2 } END { exit !(s > 0.9998 && s < 1.0002) }" out'
    expect 0 "blue" predict runs/folder $'new\nline.png' -q
    check "predict: one line for a path of two" test "$(wc -l <out)" -eq 1
    "$fovea" predict runs/folder photos/test --topk 2 --save-to classes.csv -q >out 2>err
    check "predict --save-to" bash -c '[ "$(head -n 1 classes.csv)" = path,rank,index,class,probability ] && [ "$(wc -l <classes.csv)" -eq 37 ]'
    head -c 200 photos/test/red/0.png >cut.png
    echo nothing >junk.jpg
    expect 3 "cut.png: " predict runs/folder cut.png photos/test/red/0.png junk.jpg none.png
    check "predict goes on after a picture that cannot be read" grep -q "^photos/test/red/0.png  red" out
    check "predict: the errors" bash -c '[ "$(grep -c "^fovea predict: error: " err)" -eq 4 ] && grep -q "3 of 4 could not be read" err'
    mkdir -p empty
    expect 3 "no pictures to classify" predict runs/folder empty
    for cache in none ram disk; do
        "$fovea" bench --mode load --data photos --img-size 28 -b 8 -j 2 --seconds 0.1 --cache $cache --cache-dir caches --json >bench.json 2>err
        check "bench --mode load --cache $cache" python3 -c '
import json, sys
r = json.loads(open("bench.json").read())
assert r["mode"] == "load" and r["cache"] == sys.argv[1] and r["batch"] == 8 and r["img_size"] == 28 and r["workers"] == 2
assert r["images"] >= 8 and r["seconds"] >= 0.1 and abs(r["images_per_s"] / (r["images"] / r["seconds"]) - 1) < 1e-4
assert 0 <= r["wait_share"] <= 1 and (r["read_mb_per_s"] > 0) == (sys.argv[1] == "none")' $cache
    done
    expect 2 "the first argument must be a model" predict photos/test/red/0.png
    expect 2 "wants a CSV file" predict runs/folder photos --save-to empty
    expect 5 "none/x.csv" predict runs/folder photos --save-to none/x.csv
    expect 4 "runs/none" predict runs/none photos
    cp runs/folder/weights/last/model.safetensors bare.safetensors
    expect 2 "names the model" predict bare.safetensors photos/test/red
    expect 0 "class 2" predict bare.safetensors photos/test/red --model lenet5 --img-size 28 --num-classes 3 -q
    mkdir several && cp runs/folder/weights/best/model.safetensors several
    sed 's/"architecture"/"problem_type": "multi_label_classification", "architecture"/' runs/folder/weights/best/config.json >several/config.json
    "$fovea" predict several photos/test/red/0.png --json -q >out 2>err
    check "predict: several labels, each from a half up" python3 -c '
import json
p = [c["probability"] for c in json.loads(open("out").readline())["classes"]]
assert p and all(0.5 <= x <= 1 for x in p) and p == sorted(p, reverse=True)'
    "$fovea" predict several photos/test/red/0.png --json -q --topk 3 >out 2>err
    check "predict: several labels have probabilities of their own" python3 -c '
import json
p = [c["probability"] for c in json.loads(open("out").readline())["classes"]]
assert len(p) == 3 and abs(sum(p) - 1) > 0.01'
    "$fovea" predict runs/folder photos -q 2>err | head -n 1 >out
    check "predict: a reader that leaves" bash -c '[ -s out ] && [ ! -s err ]'
    "$fovea" predict runs/folder photos -q >/dev/full 2>err
    [ $? -eq 5 ] && grep -q "No space left" err && ok || fail "predict: full standard output"
else
    echo "SKIPPED: predict (no python3 to make pictures)"
fi

# ---------------------------------------------------------------- the examples of the help pages
rm -rf runs/train
if [ -d runs/folder ]; then cp -r runs/folder runs/train; else cp -r runs/smoke runs/train; fi
[ -d photos ] && cp photos/test/red/0.png photo.jpg
for command in $commands; do
    while read -r line; do
        case $line in
        *cifar10* | *"source <"* | *"man -l"* | *'\') continue ;; # needs a download, a shell, a pager, another file
        *photo*) [ -d photos ] || continue ;;
        esac
        case $line in
        *"fovea train"*--resume*) line="$line --help" ;;
        *"fovea train"*) line="$line --dry-run -b 8 --model lenet5 --img-size 28" ;;
        *"fovea bench"*) line="$line --seconds 0.05 --model lenet5 --img-size 28" ;;
        *--min-top1*) line=${line/0.85/0.05} ;;
        esac
        PATH=$(dirname "$fovea"):$PATH bash -c "$line" >out 2>err </dev/null && ok || fail "example: $line"
    done < <("$fovea" help "$command" | sed -n '/^Examples/,$p' | sed -n 's/^  *\([a-z].*\)/\1/p')
done

# ---------------------------------------------------------------- a terminal
if command -v python3 >/dev/null; then
    terminal() { CHECK=1 python3 "$tests/terminal.py" "$@" >out 2>err; } # the last line of out: widest N overwritten M
    widest() { tail -n 1 out | cut -d' ' -f2; }
    overwritten() { tail -n 1 out | cut -d' ' -f4; }
    TERM=xterm terminal 80 "$fovea" train --data synthetic --model resnet20 --epochs 1 --fraction 0.12 -b 16 --name terminal
    [ "$(widest)" -le 80 ] && [ "$(overwritten)" -gt 3 ] && ok || fail "a bar of at most 80 columns on a terminal: $(tail -n 1 out)"
    check "no escape codes in the log" bash -c '! grep -q $'"'[\\r\\x1b]'"' runs/terminal/log.txt'
    TERM=xterm terminal 80:40 "$fovea" train --data synthetic --model resnet20 --epochs 1 --fraction 0.25 -b 16 --name narrow
    [ "$(widest)" -le 50 ] && [ "$(overwritten)" -gt 3 ] && ok || fail "the bar follows the window: $(tail -n 1 out)"
    for how in TERM=dumb NO_COLOR=1; do
        env TERM=xterm $how python3 "$tests/terminal.py" 80 "$fovea" trian >out 2>err
        check "$how: no colours" bash -c '! grep -q $'"'\\x1b'"' out'
    done
    TERM=xterm terminal 80 "$fovea" trian
    check "colours on a terminal" grep -q $'\x1b\\[31merror' out
    for how in "TERM=dumb" "TERM=xterm FOVEA_QUIET=1"; do
        # shellcheck disable=SC2086
        env $how CHECK=1 python3 "$tests/terminal.py" 80 "$fovea" train --data synthetic --model lenet5 --epochs 1 --fraction 0.3 --name plain >out 2>err
        [ "$(overwritten)" -eq 0 ] && ok || fail "$how: no bar"
    done
    for words in "models" "info resnet50" "info vit_base_patch16_224 -b 128" "help train" "help"; do
        # shellcheck disable=SC2086
        TERM=xterm terminal 80 "$fovea" $words
        [ "$(widest)" -le 80 ] && ok || fail "'fovea $words' on a terminal of 80 columns: $(tail -n 1 out)"
    done
    TERM=xterm terminal 150 "$fovea" help train
    check "help on a wide terminal has up to 100 columns" between "$(widest)" 81 100
else
    echo "SKIPPED: terminal checks (no python3)"
fi
"$fovea" train --data synthetic --model lenet5 --epochs 1 --fraction 0.3 --name pipe 2>&1 | cat >out
check "no carriage return and no escape code in a pipe" bash -c '! grep -q $'"'[\\r\\x1b]'"' out'

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
    "$fovea" bench --model lenet5 -b 64 --seconds 0.2 --profile --threads 1 --json >profile.json 2>err
    check "bench --profile --json" python3 -c '
import json
lines = [json.loads(line) for line in open("profile.json")]
nodes = [r for r in lines if r.get("event") == "node"]
roof = {r["part"]: r for r in lines if r.get("event") == "roof"}
assert set(roof) == {"products", "other", "update", "step"} and len(nodes) + 5 == len(lines)
assert abs(sum(n["ms"] for n in nodes) - roof["step"]["ms"]) < 0.01 * roof["step"]["ms"]
assert abs(sum(roof[p]["ms"] for p in ("products", "other", "update")) - roof["step"]["ms"]) < 0.01 * roof["step"]["ms"]
assert all(roof["step"][k] > 0 for k in ("roof_ms", "peak_gflops", "copy_gbytes_per_s"))
for n in nodes:
    by_rate = max(n["gflops"] / roof["step"]["peak_gflops"], n["gbytes_per_s"] / roof["step"]["copy_gbytes_per_s"])
    assert abs(by_rate - n["roof_share"]) < 0.01 * by_rate + 1e-3, n'
    for words in "models" "info lenet5" "info lenet5 --dump" "info lenet5 --memory" "data info synthetic" "version" "eval runs/smoke" "predict runs/folder photos"; do
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
expect 0 "recomputed: " info resnet20 -b 64
expect 0 "fullest at" info resnet20 -b 64 --memory --recompute none
expect 0 "GFLOP/s" bench --model lenet5 -b 8 --seconds 0.1 --profile --mode infer --threads 1
expect 0 "of roof" bench --model lenet5 -b 8 --seconds 0.05 --profile --device ref
expect 0 "whole step" bench --model lenet5 -b 8 --seconds 0.05 --profile
expect 0 '"opt": "sgd"' bench --model vit_tiny_patch4_32_d6 -b 2 --seconds 0.01 --json
for opt in adamw muon; do
    expect 0 "${opt/%w/}_update" bench --model lenet5 -b 8 --seconds 0.01 --opt $opt --profile --json
    check "bench --opt $opt says so" grep -q "\"opt\": \"$opt\"" out
done
expect 0 "GFLOP/s" bench --mode yardstick --seconds 0.05
expect 2 "needs --data" bench --mode load
expect 0 "images/s" bench --mode load --data synthetic --seconds 0.05

# ---------------------------------------------------------------- full disks, closed pipes, signals
"$fovea" models >/dev/full 2>err
[ $? -eq 5 ] && grep -q "No space left" err && ok || fail "full standard output"
"$fovea" version >&- 2>err
[ $? -eq 5 ] && ok || fail "closed standard output"
"$fovea" train --data synthetic --model lenet5 --name closed >&- 2>err
[ $? -eq 5 ] && [ ! -e runs/closed ] && ok || fail "closed standard output is noticed before training"
"$fovea" train --data synthetic --model lenet5 --epochs 1 --json --name full >/dev/full 2>err
[ $? -eq 5 ] && ok || fail "full standard output while training"
"$fovea" train --data synthetic --model lenet5 --epochs 1 --output /dev/null/x >out 2>err
[ $? -eq 5 ] && ok || fail "an output folder that cannot be made"
(
    trap '' XFSZ # a file that may not grow stands for a full disk
    ulimit -f 64
    exec "$fovea" train --data synthetic --model lenet5 --epochs 1 --name disk
) >out 2>err
[ $? -eq 5 ] && grep -q "safetensors: " err && ok || fail "full disk"
check "nothing half written" bash -c '! find runs/disk -name "*.tmp*" | grep -q .'
"$fovea" models 2>/dev/null | head -n 1 >out
check "a reader that leaves" grep -q params out
"$fovea" train --data synthetic --model lenet5 --epochs 2 --json --name left 2>err | head -n 1 >out
[ "${PIPESTATUS[0]}" -eq 5 ] && grep -q "standard output: Broken pipe" err && ok || fail "a reader that leaves while training"
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

totals
