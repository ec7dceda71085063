#!/usr/bin/env bash
# An interrupted run goes on to the same bits. docs/reliability.md has the promises (R1, R8, R9, R16) that the headings name.
# usage: test_resume.sh [PROMISE...]   (default: all)
# FOVEA: the program (default build/fovea). FOVEA_KILLS: how often the kill loop kills (default 200).
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
wanted=" ${*:-R1 R8 R9 R16} "

# Everything that has state takes part: dropout, averages, accumulation, augmentation, momentum or moments, warm-up, batch norm.
lenet=(--model lenet5 --img-size 16 --fraction 0.1 -b 16 --grad-accum-steps 2 --model-ema --drop 0.2 --lr 0.02 --hflip 0.5 --crop-pad 2)
mlp=(--model mlp --img-size 8 --fraction 0.1 -b 24 --opt adamw --lr 0.002 --drop 0.4 --model-ema --cutout 3 --cutout-mode inside --flip-mode alternate --clip-grad 1 --sched onecycle)
# 27 steps, the last five of them in an epoch that ends early
recipe=(--model lenet5 --img-size 16 --fraction 0.1 -b 32 --epochs 2.4 --sched linear --warmup-lr 0.0002 --lr 0.002 --min-lr 0.0001 --loss-reduction sum
    --model-ema --lookahead 4 --lookahead-power 1 --param-groups "conv1:until=1.5:wd=0.01,bias:lr=2:momentum=0.5,head:within=2")
resnet=(--model resnet20 --img-size 8 --fraction 0.07 -b 32 --clip-grad 1 --model-ema --drop 0.1 --smoothing 0.1 --reprob 0.3 --color-jitter 0.2)
large=(--model resnet20 --img-size 4 --fraction 0.05 -b 8 --loss-reduction sum --lr 0.001 --model-ema --precision float16)
speedrun=(--model speedrun94 --img-size 12 --fraction 0.07 -b 48 --lr 0.02 --drop 0.1 --model-ema) # filters from the pictures

# ---------------------------------------------------------------- R8: the same bits as the run that was never interrupted
undisturbed() { # undisturbed NAME OPTIONS...: runs/NAME and its $hash
    "$fovea" train --data synthetic --epochs 3 "${@:2}" --threads 1 -j 1 -q --json --name "$1" >out 2>err || fail "R8: $1"
    hash=$(hash_of out)
    check "R8: $1 has a hash" test -n "$hash"
}
# Columns that measure time and memory differ between any two runs.
figures() { awk -F, -v OFS=, '{ $2 = $10 = $11 = ""; print }' "$1"; }
same_run() { # same_run A B: all that two runs leave behind, but for what says when and where
    local file
    cmp <(figures "$1/results.csv") <(figures "$2/results.csv") || return 1
    for file in predictions.csv confusion.csv weights/{best,last,ema}/{model.safetensors,config.json}; do
        cmp "$1/$file" "$2/$file" || return 1
    done
}
number=0 workers=(0 1 4) threads=(1 2)
start_parts() { # start_parts NAME OPTIONS...: a run that resume_at takes further
    part=$1 options=("${@:2}")
    begun=
}
to_step() { # to_step STEP|end: one part of the run, each with other numbers of workers and threads
    local end=()
    [ "$1" != end ] && end=(--max-steps "$1")
    local place=(-j "${workers[number % 3]}" --threads "${threads[number % 2]}")
    number=$((number + 1))
    if [ -z "$begun" ]; then
        "$fovea" train --data synthetic --epochs 3 "${options[@]}" "${place[@]}" "${end[@]}" -q --json --name "$part" >out 2>err
    else "$fovea" train --resume "runs/$part" "${place[@]}" "${end[@]}" -q --json >out 2>err; fi
    local code=$?
    begun=1
    [ $code -eq 0 ] || fail "R8: $part to step $1: exit code $code"
}
ends_as() { # ends_as NAME DESCRIPTION
    local got
    got=$(hash_of out)
    if [ "$got" = "$hash" ]; then ok; else fail "R8: $2: hash $got, not $hash"; fi
    check "R8: $2: the same files" same_run "runs/$1" "runs/$part"
}
interrupted_at() { # interrupted_at NAME STEPS OPTIONS...: at each of the steps
    local name=$1 step
    for step in $2; do
        start_parts "$name-$step" "${@:3}"
        to_step "$step"
        to_step end
        ends_as "$name" "$name interrupted at step $step"
        rm -rf "runs/$part"
    done
}
if promise R8; then
    undisturbed lenet "${lenet[@]}"
    lenet_hash=$hash
    # 11 steps of two batches in an epoch, one batch is left over
    interrupted_at lenet "1 2 4 7 10 11 12 17 21 22 23 32" "${lenet[@]}"
    start_parts lenet-chain "${lenet[@]}"
    for step in 3 5 6 11 12 22 23 31 end; do to_step $step; done
    ends_as lenet "lenet interrupted eight times"
    undisturbed bf16 "${lenet[@]}" --precision bf16
    check "R8: bf16 is not float32" test "$hash" != "$lenet_hash"
    interrupted_at bf16 "7" "${lenet[@]}" --precision bf16
    undisturbed float16 "${large[@]}" # the first steps are left out, and the loss scale falls
    interrupted_at float16 "3 9" "${large[@]}"
    undisturbed mlp "${mlp[@]}" # 15 steps in an epoch
    interrupted_at mlp "1 14 15 29" "${mlp[@]}"
    start_parts mlp-chain "${mlp[@]}"
    for step in 2 15 16 44 end; do to_step $step; done
    ends_as mlp "mlp interrupted four times"
    undisturbed recipe "${recipe[@]}" # 11 steps in an epoch
    interrupted_at recipe "3 11 17 22 24 26" "${recipe[@]}"
    undisturbed resnet "${resnet[@]}" # 8 steps in an epoch
    interrupted_at resnet "1 3 8 13 17 23" "${resnet[@]}"
    undisturbed speedrun "${speedrun[@]}" # 5 steps in an epoch
    interrupted_at speedrun "1 6 14" "${speedrun[@]}"

    # State: the newest valid one, never afresh in silence.
    hash=$lenet_hash
    "$fovea" train --data synthetic --epochs 3 "${lenet[@]}" --save-steps 4 --max-steps 14 -q --name damaged >out 2>err
    cp -r runs/damaged runs/behind
    cp -r runs/damaged/state runs/behind/old
    "$fovea" train --resume runs/behind -q >out 2>err
    rm -r runs/behind/state
    mv runs/behind/old runs/behind/state
    expect 0 "$hash" train --resume runs/behind -q --json
    check "R8: results.csv is cut back to an older state" cmp <(figures runs/lenet/results.csv) <(figures runs/behind/results.csv)
    printf 'x' | dd of=runs/damaged/state/last.safetensors bs=1 seek=20000 conv=notrunc status=none
    cp -r runs/damaged runs/both
    expect 0 "warning" train --resume runs/damaged -q --json
    check "R8: a damaged state is passed over" test "$(hash_of out)" = "$hash"
    check "R8: and named" grep -q "state/last.safetensors" err
    printf 'x' | dd of=runs/both/state/prev.safetensors bs=1 seek=20000 conv=notrunc status=none
    expect 4 "damaged" train --resume runs/both
    rm -r runs/both/state
    expect 4 "runs/both" train --resume runs/both
    check "R8: no state is made where there is none" test ! -e runs/both/state
    expect 4 "no run folder" train --resume runs/none
    expect 2 "--batch-size" train --resume runs/damaged -b 8
    expect 2 "--force" train --resume runs/damaged --lr 0.5
    expect 2 "--epochs" train --resume runs/damaged --epochs 2
    expect 0 "" train --resume runs/damaged --epochs 4 -q
    check "R8: more epochs" test "$(wc -l <runs/damaged/results.csv)" -eq 5

    # Other data under the same name are refused.
    record() { printf "\\x$(printf %02x "$1")"; head -c 3072 /dev/zero; }
    mkdir -p cifar10 && for i in 0 1 2 3 4 5 6 7 8 9; do record $i; done >cifar10/test_batch.bin
    for b in 1 2 3 4 5; do cp cifar10/test_batch.bin cifar10/data_batch_$b.bin; done
    expect 0 "" train --data cifar10 --data-dir . --model lenet5 -b 5 --epochs 2 --val-split 0 --max-steps 4 --name files -q
    for i in 0 1 2 3 4 5 6 7 9 8; do record $i; done >cifar10/data_batch_2.bin
    expect 3 "differs" train --resume runs/files
    expect 0 "warning" train --resume runs/files --force -q
    check "R8: env.json records it" grep -q '"forced": true' runs/files/env.json
fi

# ---------------------------------------------------------------- R9: the same bits in ten runs and with 1, 2, 4 threads
if promise R9; then
    ten_runs() { # ten_runs NAME OPTIONS...
        for run in 1 2 3 4 5 6 7 8 9 10; do
            "$fovea" train --data synthetic --epochs 1 "${@:2}" --threads $((1 << run % 3)) -j $((run % 4)) -q --json --name "ten-$1" >out 2>err
            hash_of out
            rm -rf "runs/ten-$1"
        done >hashes
        check "R9: $1: one hash from ten runs" test "$(wc -l <hashes) $(sort -u hashes | wc -l)" = "10 1"
    }
    ten_runs lenet "${lenet[@]}"
    ten_runs resnet "${resnet[@]}"
fi

# ---------------------------------------------------------------- R16: memory and descriptors over 10,000 steps
if promise R16; then
    python3 "$tests/memory_growth.py" "$fovea" >growth.out 2>&1
    add_totals growth.out
fi

# ---------------------------------------------------------------- R1: killed at any moment
if promise R1; then
    python3 "$tests/kill_loop.py" "$fovea" --kills "${FOVEA_KILLS:-200}" >kills.out 2>&1
    add_totals kills.out
fi

totals
