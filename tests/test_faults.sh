#!/usr/bin/env bash
# What a run survives: failing disks, full disks, bad numbers, signals, a second process in its folder. docs/reliability.md has
# the promises (R2, R3, R11 to R14, R19, R23) that the headings name. usage: test_faults.sh [PROMISE...]   (default: all)
# FOVEA: the program (default build/fovea). SHIM: tests/faults/preload.c as a shared object (default: beside the program).
# FOVEA_FAULTS=all: every error at every call, which takes some minutes.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
wanted=" ${*:-R2 R3 R11 R12 R13 R14 R19 R23} "
shim=$(cd "$root" && realpath "${SHIM:-$(dirname "$fovea")/fault.so}")
[ -f "$shim" ] || { echo "test_faults.sh: no $shim"; echo "0 passed, 1 failed"; exit 1; }
mounted=()
clean_up() {
    local m
    for m in "${mounted[@]}"; do umount "$m" 2>/dev/null; done
    rm -rf "$temp"
}
trap clean_up EXIT
chmod 755 "$temp"
# As SMALL of run_files.py: everything that has state takes part, and a run takes a fraction of a second.
small=(--data synthetic --model lenet5 --img-size 16 --fraction 0.1 -b 16 --grad-accum-steps 2 --model-ema --drop 0.2 --lr 0.02
       --hflip 0.5 --crop-pad 2 --threads 1 -j 0)
slow=(--data synthetic --model resnet20 --img-size 16 --threads 1 -b 512 --epochs 1000 --log-every 1) # a step takes a tenth of a second

ends() { # ends CODE FRAGMENT NAME: the program ran with `status=$?` after it, and says this in out or err
    if [ "$status" -ne "$1" ]; then fail "$3: exit code $status, not $1"
    elif [ -n "$2" ] && ! cat out err | grep -qF -- "$2"; then fail "$3: no '$2' in what it says"
    else ok; fi
}
wait_for() { # wait_for SECONDS COMMAND...: until it succeeds
    local i
    for ((i = 0; i < 50 * $1; i++)); do "${@:2}" && return 0; sleep 0.02; done
    return 1
}
now_ms() { date +%s%3N; }
reference() { # the undisturbed run of `small` with these options; its hash is in $hash
    "$fovea" train "${small[@]}" "$@" -q --json --name reference >out 2>err || fail "the undisturbed run"
    hash=$(hash_of out)
    [ -n "$hash" ] || fail "no hash in the done event"
    rm -rf runs/reference*
}
resumes_to_hash() { # resumes_to_hash RUN NAME: it goes on to the end, with the hash of the undisturbed run
    "$fovea" train --resume "$1" -q --json >out 2>err
    status=$?
    if [ $status -eq 0 ] && [ "$(hash_of out)" = "$hash" ]; then ok; else fail "$2: resume ends with code $status, hash $(hash_of out), not $hash"; fi
}
finite() { # finite FOLDER: no model or state file below it holds a value that is not finite
    python3 - "$tests" "$1" <<'END'
import sys
sys.path.insert(0, sys.argv[1])
import run_files
files = run_files.safetensors_below(sys.argv[2])
bad = [(path, run_files.non_finite(path)) for path in files]
sys.exit(0 if files and not any(names for _, names in bad) else f"{bad}")
END
}
mount_small() { # mount_small FOLDER OPTIONS: a file system of its own, where that is permitted
    mkdir -p "$1" && mount -t tmpfs -o "$2" tmpfs "$1" 2>/dev/null && mounted+=("$temp/$1")
}

# ---------------------------------------------------------------- R2: the order that makes a save durable
if promise R2; then
    files=args.yaml,env.json,results.csv,state/last.safetensors,state/prev.safetensors
    files+=,weights/best/model.safetensors,weights/best/config.json,weights/last/model.safetensors,weights/last/config.json
    FV_TRACE=trace LD_PRELOAD=$shim "$fovea" train "${small[@]}" --epochs 2 --save-steps 3 --name order -q >out 2>err
    status=$?
    ends 0 "" "R2: a run under the shim"
    check "R2: write, sync, close, rename, sync of the folder" python3 "$tests/trace_order.py" trace runs/order --wanted "$files"
    tail -n 1 check.out
    "$fovea" train "${small[@]}" --epochs 2 --save-steps 3 --max-steps 7 --name order2 -q >out 2>err
    rm -f trace
    FV_TRACE=trace LD_PRELOAD=$shim "$fovea" train --resume runs/order2 -q >out 2>err
    status=$?
    ends 0 "" "R2: a resumed run under the shim"
    # weights/best: only if an epoch of this part was the best
    files=env.json,results.csv,state/last.safetensors,state/prev.safetensors,weights/last/model.safetensors,weights/last/config.json
    check "R2: the same when it goes on" python3 "$tests/trace_order.py" trace runs/order2 --wanted "$files" --earlier
    for signal in TERM USR1; do
        rm -f trace
        FV_TRACE=trace LD_PRELOAD=$shim "$fovea" train "${small[@]}" --epochs 400 --name "order$signal" -q >out 2>err &
        pid=$!
        wait_for 20 test -s "runs/order$signal/state/prev.safetensors"
        kill -s $signal $pid
        [ $signal = USR1 ] && sleep 0.2 && kill -s TERM $pid
        wait $pid
        check "R2: the same after SIG$signal" python3 "$tests/trace_order.py" trace "runs/order$signal" --wanted "$files"
    done
fi

# ---------------------------------------------------------------- R3: every call fails once, and for ever
if promise R3; then
    python3 "$tests/fault_sweep.py" "$fovea" "$shim" ${FOVEA_FAULTS:+--$FOVEA_FAULTS} >sweep.out 2>&1
    add_totals sweep.out
    reference --epochs 3
    if mount_small full size=4m; then
        "$fovea" train "${small[@]}" --epochs 3 --max-steps 8 --output full --name t -q >out 2>err
        status=$?
        ends 0 "" "R3: a run on a small file system"
        head -c 8m /dev/zero >full/filler 2>/dev/null
        "$fovea" train --resume full/t -q --save-steps 1 >out 2>err
        status=$?
        ends 5 "No space left on device" "R3: resume on a full file system"
        check "R3: the message names a file" grep -qE 'error: full/t/[^ ]+: ' err
        check "R3: nothing half written" bash -c '! find full/t -name "*.tmp*" | grep -q .'
        "$fovea" train "${small[@]}" --output full --name second -q >out 2>err
        status=$?
        ends 5 "No space left on device" "R3: a fresh run on a full file system"
        rm -rf full/filler full/second
        resumes_to_hash full/t "R3: with room again"
        umount full
    else
        echo "SKIPPED: R3 and R19 on a full file system (mounting is not permitted here)"
    fi
fi

# ---------------------------------------------------------------- R11: a value that is not finite
# The shim makes the logarithm in the loss of one row not-a-number: 32 rows per step, so row 200 is of step 7.
if promise R11; then
    reference --epochs 3
    nan() { # nan FAULT NAME OPTIONS...
        FV_FAULT=$1 LD_PRELOAD=$shim "$fovea" train "${small[@]}" --epochs 3 --save-steps 2 --name "$2" -q --json "${@:3}" >out 2>err
        status=$?
    }
    nan log:NAN:200:once stop
    ends 7 "step 7 (epoch 1)" "R11: --on-nan stop"
    check "R11: nothing of it is saved" finite runs/stop
    resumes_to_hash runs/stop "R11: --on-nan stop"
    nan log:NAN:200:once skip --on-nan skip:2
    ends 0 '"event": "done"' "R11: --on-nan skip:2, once"
    check "R11: says so" grep -qi "step 7" err
    check "R11: nothing of it is saved" finite runs/skip
    check "R11: a step that was left out leaves a trace in the weights" test "$(hash_of out)" != "$hash"
    nan log:NAN:200:ever skips --on-nan skip:2
    ends 7 "step 9" "R11: --on-nan skip:2, for ever"
    check "R11: nothing of it is saved" finite runs/skips
    nan log:NAN:200:once back --on-nan rollback
    ends 0 '"event": "done"' "R11: --on-nan rollback, once"
    check "R11: goes back to the last saved state" grep -qE "step 7.* back to step [1-6]," err
    check "R11: nothing of it is saved" finite runs/back
    nan log:NAN:200:ever backs --on-nan rollback
    ends 7 "step 7" "R11: --on-nan rollback, for ever"
    check "R11: nothing of it is saved" finite runs/backs
    resumes_to_hash_of_rollback() { "$fovea" train --resume runs/backs -q --json >out 2>err; }
    check "R11: and it can be resumed" resumes_to_hash_of_rollback
    # Not only the loss: a learning rate at which the weights themselves overflow.
    "$fovea" train "${small[@]}" --epochs 3 --lr 1000 --warmup-epochs 0 --save-steps 1 --name over -q >out 2>err
    status=$?
    ends 7 "step " "R11: an absurd learning rate"
    check "R11: names what it came out of" grep -qE "not finite.*came out of '" err
    check "R11: nothing of it is saved" finite runs/over
fi

# ---------------------------------------------------------------- R12: divergence; the best weights stay
if promise R12; then
    "$fovea" train "${small[@]}" --epochs 4 --max-steps 12 --name diverged -q >out 2>err # an epoch has 11 steps
    cp runs/diverged/weights/best/model.safetensors best
    "$fovea" train --resume runs/diverged --lr 1000 -q >out 2>err # the largest that --lr takes
    status=$?
    ends 2 "--force" "R12: another learning rate is refused"
    "$fovea" train --resume runs/diverged --lr 1000 --force -q >out 2>err
    status=$?
    ends 7 "step " "R12: an absurd learning rate"
    check "R12: layer and step are named, or the loss" grep -qE "step [0-9]+ .*came out of '|diverged" err
    check "R12: the best weights are as they were" cmp best runs/diverged/weights/best/model.safetensors
    check "R12: and load" "$fovea" eval runs/diverged --weights best -q
    check "R12: no file holds a value that is not finite" finite runs/diverged
    "$fovea" train --data synthetic --model lenet5 --opt adam --lr 20 --warmup-epochs 0 --epochs 4 --fraction 0.3 --name huge -q >out 2>err
    status=$?
    ends 7 "diverged" "R12: a loss far above that of guessing"
    check "R12: env.json records --force" grep -q '"forced": true' runs/diverged/env.json
fi

# ---------------------------------------------------------------- R13: signals
if promise R13; then
    last_step() { sed -nE 's/^ *step ([0-9]+) .*/\1/p' "$1" | tail -n 1; }
    begin() { # begin NAME OPTIONS...: a slow run in the background; waits for its first steps
        rm -f out err
        env --default-signal=INT,TERM "$fovea" train "${slow[@]}" "${@:2}" --name "$1" --json >out 2>err &
        pid=$!
        wait_for 60 grep -sqE '^ *step 2 ' err || fail "R13: $1 does not begin"
    }
    for signal in INT TERM; do
        code=$((128 + $(kill -l $signal)))
        begin "sig$signal"
        kill -s $signal $pid
        before=$(last_step err)
        wait $pid
        status=$?
        ends $code '"event": "done"' "R13: SIG$signal"
        after=$(sed -nE '/"event": "done"/s/.*"steps": ([0-9]+).*/\1/p' out)
        check "R13: SIG$signal within a step ($before, $after)" test "$((after - before))" -le 1
        check "R13: SIG$signal saved step $after" grep -qaF "\"step\":\"$after\"" "runs/sig$signal/state/last.safetensors"

        # On a disk as slow as this an orderly end takes seconds.
        FV_DELAY=300 LD_PRELOAD=$shim begin "twice$signal" --save-epochs 0
        wait_for 20 test -s "runs/twice$signal/state/last.safetensors" # the state after the first step
        kill -s $signal $pid
        sleep 0.25
        begun=$(now_ms)
        kill -s $signal $pid
        wait $pid
        status=$?
        took=$(($(now_ms) - begun))
        ends $code "" "R13: SIG$signal twice"
        check "R13: the second SIG$signal at once ($took ms)" test $took -lt 500
        check "R13: SIG$signal twice leaves a state to go on from" "$fovea" train --resume "runs/twice$signal" --max-steps 1

        # As from timeout(1), which signals the process and then its group.
        begin "both$signal"
        kill -s $signal $pid
        sleep 0.02
        kill -s $signal $pid
        wait $pid
        status=$?
        ends $code '"event": "done"' "R13: SIG$signal twice within 20 ms is one"
    done
    reference --epochs 80
    for signal in INT TERM USR1; do
        env --default-signal=INT,TERM "$fovea" train "${small[@]}" --epochs 80 --save-epochs 0 --name "some$signal" -q --json >out 2>err &
        pid=$!
        wait_for 20 test -s "runs/some$signal/state/last.safetensors" # the state after the first step
        sleep 0.1
        first=$(stat -c %i "runs/some$signal/state/last.safetensors")
        kill -s $signal $pid
        if [ $signal = USR1 ]; then
            # shellcheck disable=SC2016 # $1, $2: the inner shell's
            check "R13: SIGUSR1 saves" wait_for 10 bash -c '[ "$(stat -c %i "$1/last.safetensors" 2>/dev/null)" != "$2" ]' _ "runs/some$signal/state" "$first"
            wait $pid
            status=$?
            ends 0 "$hash" "R13: SIGUSR1 and the run goes on to the same end"
        else
            wait $pid
            status=$?
            ends $((128 + $(kill -l $signal))) '"event": "done"' "R13: SIG$signal"
            resumes_to_hash "runs/some$signal" "R13: SIG$signal"
        fi
    done
fi

# ---------------------------------------------------------------- R14: one process per run folder
if promise R14; then
    "$fovea" train "${slow[@]}" --save-steps 1 --name one >slow.out 2>slow.err &
    pid=$!
    wait_for 60 test -s runs/one/state/last.safetensors || fail "R14: the first run does not begin"
    begun=$(now_ms)
    timeout 10 "$fovea" train --resume runs/one >out 2>err
    status=$?
    took=$(($(now_ms) - begun))
    ends 8 "runs/one" "R14: a second process"
    check "R14: leaves within a second ($took ms)" test $took -lt 1000
    check "R14: the first goes on" kill -s 0 $pid
    kill -s KILL $pid
    wait $pid 2>/dev/null
    "$fovea" train --resume runs/one --max-steps 1 >out 2>err # a killed process holds no lock
    status=$?
    check "R14: after a kill the folder is free" test $status -ne 8
fi

# ---------------------------------------------------------------- R19: places that cannot be written to
if promise R19; then
    begins() { ! grep -qE 'init +loss|epoch' err; } # nothing was trained
    mkdir readonly && chmod 555 readonly
    as_nobody=()
    if [ "$(id -u)" -eq 0 ]; then # nothing is read-only for root
        if command -v setpriv >/dev/null; then
            as_nobody=(setpriv --reuid=65534 --regid=65534 --clear-groups --)
            cp "$fovea" ./fovea-copy
        fi
    fi
    if [ "$(id -u)" -ne 0 ] || [ ${#as_nobody[@]} -gt 0 ]; then
        program=$fovea
        [ -x fovea-copy ] && program=./fovea-copy
        (cd "$temp" && exec "${as_nobody[@]}" "$program" train "${small[@]}" --output readonly) >out 2>err
        status=$?
        ends 5 "readonly" "R19: a read-only output folder"
        check "R19: is noticed before training" begins
        check "R19: and says why" grep -q "Permission denied" err
    else
        echo "SKIPPED: R19 with a read-only folder (this is root, and there is no setpriv)"
    fi
    "$fovea" train "${small[@]}" --output /dev/null/x >out 2>err
    status=$?
    ends 5 "/dev/null" "R19: an output folder that cannot be made"
    check "R19: is noticed before training" begins
    if mount_small little size=256k; then # room for the first files, not for all
        "$fovea" train "${small[@]}" --epochs 3 --output little --name t -q >out 2>err
        status=$?
        ends 5 "No space left on device" "R19: a file system that fills up"
        umount little
    fi
    "$fovea" train "${small[@]}" --epochs 2 --max-steps 3 --name fulllog -q >out 2>err
    ln -sf /dev/full runs/fulllog/log.txt
    "$fovea" train --resume runs/fulllog -q >out 2>err
    status=$?
    ends 5 "log.txt: " "R19: a full disk under the log"
    check "R19: and says why" grep -q "No space left on device" err
    reference --epochs 2
    "$fovea" train "${small[@]}" --epochs 2 --json --name devfull >/dev/full 2>err
    status=$?
    ends 5 "No space left on device" "R19: standard output is full"
    resumes_to_hash_or_new() { # nothing, or a state that can be resumed
        [ -s "runs/$1/state/last.safetensors" ] || return 0
        "$fovea" train --resume "runs/$1" -q --json >out 2>err && [ "$(hash_of out)" = "$hash" ]
    }
    check "R19: and nothing is lost" resumes_to_hash_or_new devfull
    "$fovea" train "${small[@]}" --epochs 200 --json --name pipe 2>err | head -n 3 >out
    status=${PIPESTATUS[0]}
    ends 5 "Broken pipe" "R19: the reader of standard output leaves"
    "$fovea" train --resume runs/pipe -q --max-steps 1000000 >out 2>err &
    pid=$!
    sleep 0.3
    kill -s TERM $pid
    wait $pid
    status=$?
    ends 143 "" "R19: and the run can be resumed"
    "$fovea" train "${small[@]}" --epochs 2 --json --name errors 2>/dev/full >out
    status=$?
    ends 0 "$hash" "R19: standard error is full: the results come all the same"
fi

# ---------------------------------------------------------------- R23: training does not wait for the disk
# Every sync takes 50 ms: 230 steps that waited for their saves would take 23 seconds. tests/peers/bench_saving.sh has the figures.
if promise R23; then
    begun=$(now_ms)
    FV_DELAY=50 LD_PRELOAD=$shim "$fovea" train "${small[@]}" --fraction 1 --grad-accum-steps 1 --epochs 1 --save-steps 1 --name slowdisk -q >out 2>err
    status=$?
    took=$(($(now_ms) - begun))
    ends 0 "" "R23: a run on a slow disk"
    check "R23: training goes on while state is saved ($took ms)" test $took -lt 8000
fi

totals
