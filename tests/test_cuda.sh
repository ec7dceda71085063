#!/usr/bin/env bash
# --device cuda from outside: what the program says where something is missing, and a run on the emulated device (tests/cuda/emulate)
# beside one on the cpu. FOVEA: the program; EMULATED: the folder of the emulated backend (default build/emulated).
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
unset FOVEA_BACKENDS
tools=$root/tools
emulated=$(cd "$root" && realpath -m "${EMULATED:-build/emulated}")

bench=(bench --model mlp -b 2 --img-size 8 --seconds 0.05)

# ---------------------------------------------------------------- names
expect 2 "did you mean 'cuda'?" "${bench[@]}" --device cudda
expect 2 "only cuda takes a number" "${bench[@]}" --device cpu:1
expect 2 "must be one of ref, cpu, cuda, auto" "${bench[@]}" --device cuda:x
expect 2 "must be one of ref, cpu, cuda, auto" "${bench[@]}" --device cuda:
expect 2 "--isa is for the cpu device, not for cuda" "${bench[@]}" --device cuda --isa generic

# ---------------------------------------------------------------- what is missing
mkdir nothing
export FOVEA_BACKENDS=$temp/nothing
expect 6 "this build has no device 'cuda': there is no libfovea-cuda.so" "${bench[@]}" --device cuda
expect 6 "'make cuda' builds it" "${bench[@]}" --device cuda
expect 0 " · cpu " "${bench[@]}" --device auto
expect 0 "--device auto takes cpu: this build has no device 'cuda'" "${bench[@]}" -v
echo beads >nothing/libfovea-cuda.so
expect 6 "the device 'cuda' cannot be opened: " "${bench[@]}" --device cuda
export FOVEA_BACKENDS=
built=$(dirname "$fovea")/libfovea-cuda.so
if [ -e "$built" ] && ! ldconfig -p | grep -q 'libcuda\.so\.1 '; then
    expect 6 "no NVIDIA driver: libcuda.so.1 cannot be opened" "${bench[@]}" --device cuda
    expect 6 "install the driver (this build needs CUDA " "${bench[@]}" --device cuda
    expect 0 "--device auto takes cpu: no NVIDIA driver" "${bench[@]}" -v
    check "the CUDA backend shows one symbol" [ "$(nm -D --defined-only "$built" | awk '{ print $3 }')" = fv_backend_entry ]
else
    echo "SKIPPED: the messages without a driver ($built is not there, or a driver is)"
fi

if nvidia-smi >/dev/null 2>&1; then echo "SKIPPED: gpu-check without a GPU: there is one"
else
    "$tools/gpu-check.sh" "$temp/gpu.jsonl" >out 2>err
    [ $? -eq 6 ] && grep -q 'there is no GPU' err && [ ! -e gpu.jsonl ] && ok || fail "gpu-check without a GPU"
fi

# ---------------------------------------------------------------- what is carried to a machine with a GPU
bundle=$(dirname "$fovea")/gpu
if [ -x "$bundle/unpack-cifar10" ]; then
    mkdir carried
    cp "$bundle"/{fovea,unit-tests,libfovea-cuda.so,gpu-ceilings,unpack-cifar10} carried/
    check "the bundle needs nothing from outside it" env PACK= PEER= LIMIT=1000 "$tools/gpu-bundle.sh" carried abc 90a
    check "... says what it is" grep -q 'commit abc' carried/about.txt
    # What the original recipe imports: the standard library, numpy, PyTorch, and what lies beside it.
    lacking() {
        sed -nE 's/^(import|from) ([a-z_]+).*/\2/p' carried/peers/*.py | grep -vxE 'argparse|json|math|os|re|statistics|sys|time|numpy|torch' | sort -u |
            while read -r name; do [ -e "carried/peers/$name.py" ] || echo "$name"; done
    }
    check "... has the original recipe" [ -s carried/peers/train_torch_speedrun.py ]
    check "... and what it imports" [ -z "$(lacking)" ]
    LIMIT=1 "$tools/gpu-bundle.sh" carried abc 90a >out 2>&1
    check "a bundle that is too large is refused" grep -q 'more than 1 MiB' out
    check "the program runs from there" carried/fovea version
    printf 'CIFJPG1\nbeads and more beads' >beads
    check "a damaged pack is refused" [ "$(carried/unpack-cifar10 beads . 2>&1 | grep -c 'beads cannot be unpacked')" -eq 1 ]
else echo "SKIPPED: the bundle for gpu-check is not there (nvcc, and headers of cuDNN and cuBLASLt)"
fi

# ---------------------------------------------------------------- gpu-check, where nvidia-smi is a lie and the GPU emulated
if [ -e "$emulated/libfovea-cuda.so" ] && [ -x "$(dirname "$fovea")/unit-tests" ]; then
    mkdir -p bin folder/gpu
    cp "$fovea" "$(dirname "$fovea")/unit-tests" "$emulated/libfovea-cuda.so" folder/gpu/
    echo "commit of a test" >folder/gpu/about.txt
    printf '#!/bin/sh\necho "Emulated GPU, 1.0, 9.0, 65536 MiB"\n' >bin/nvidia-smi
    cat >bin/python3 <<'PEER'
#!/bin/sh
echo "asked: $*"
[ "$1" = -c ] && exit "${NO_TORCH:-0}"
case $1 in */train_torch_speedrun.py)
    [ "${NO_RUN:-}" ] && { echo "no time for a run" >&2; exit 78; }
    for run in 0 1; do printf '{"run": %d, "accuracy": 9%d.5, "seconds": 2.%d, "loss": 1.0, "first_loss": 2.3}\n' $run $run $run; done
    sleep "${SLOW:-0}"
    printf '{"runs": 2, "accuracy_mean": 91.0, "torch": "beads"}\n'
    exit "${RC:-0}" ;;
esac
sleep "${SLOW:-0}"
for out; do :; done # the last argument
printf '{"model": "lenet", "mode": "graph", "batch": 4, "train_img_s": 10.0, "peak_alloc_MiB": 100.0}\n{"model": "lenet", "mode": "eager", "batch": 4, "train_img_s": 5.0, "peak_alloc_MiB": 50.0}\n{"model": "lenet", "mode": "odd", "error": "no such luck"}\n' >>"$out"
PEER
    chmod +x bin/*
    gpu_check() { # gpu_check ITEMS SECONDS [--compile]
        PATH=$temp/bin:$PATH PEER=$temp/peer.py PEER_PYTHON=$temp/bin/python3 MODELS="lenet5 lenet 4 adamw" BUILD_DIR=$temp/folder ITEMS=$1 BUDGET=$2 \
            FOVEA_BACKENDS='' "$tools/gpu-check.sh" "${@:3}" "$temp/check.jsonl" >out 2>err
    }
    gpu_check '^(bundle|device and versions|lenet5|time by operation)$' 400
    check "gpu-check fails where the libraries are not used" [ $? -eq 1 ]
    check "gpu-check takes the bundle" grep -qE '^bundle +passed .*fovea' out
    check "gpu-check names what is not used" grep -qE '^device and versions +failed \(1\)' out
    check "... each of them" [ "$(grep -cE 'IS NOT IN USE|RUNS WITH' "check-logs/device and versions.txt")" -eq 4 ]
    check "a row of speeds passes" grep -qE '^lenet5 +passed' out
    check "speeds are beside the peer's best, at one batch and with one optimizer" \
        grep -qE '^lenet5, batch 4, adamw: [0-9]+ images/s \(bf16.*\), PyTorch 10 \(graph\): speed [0-9.]+, memory [0-9.]+ of it$' out
    check "what the peer could not do is said" grep -q 'PyTorch .*no such luck' check-logs/lenet5.txt
    check "all speeds are kept" [ "$(grep -cE '"options": "bf16|"options": "float32|train_img_s' check.jsonl)" -eq 6 ]
    check "the share outside products is kept" grep -q '"event": "roof", "part": "other"' check.jsonl
    check "... and said" grep -qE 'lenet5: [0-9.]+ % of [0-9.]+ ms outside' out
    SLOW=60 gpu_check '^(lenet5|speed run)$' 20
    check "what runs out of time is said" grep -qE '^lenet5 +out of time' out
    check "what it has measured by then is kept" grep -qE '^lenet5, batch 4, adamw: [0-9]+ images/s \(bf16' out
    check "what there was no time for is said" grep -qE '^speed run +not reached' out
    gpu_check '^lenet5$' 100 --compile
    check "--compile asks for compiled modes" grep -q -- '--modes compile,compilegraph' 'check-logs/lenet5, PyTorch.txt'

    # The speed run by a program that only writes what a run leaves; the run with the seed STUCK does not end.
    mv folder/gpu/fovea folder/gpu/real
    cat >folder/gpu/fovea <<'RUN'
#!/bin/sh
[ "$1" = train ] || exec "$(dirname "$0")/real" "$@"
while [ $# -gt 0 ]; do
    case $1 in --seed) seed=$2 ;; --output) output=$2 ;; --name) name=$2 ;; esac
    shift
done
sleep "${RUN_SECONDS:-0}"
[ "${STUCK:-}" = "$seed" ] && sleep 60
mkdir -p "$output/$name"
printf '{"seconds": 1.%s,\n "test": {"top1": 0.5},\n "test_tta": {"top1": 0.9%s}}\n' "$seed" "$seed" >"$output/$name/metrics.json"
printf 'epoch,time\n1,0.5\n2,0.75\n' >"$output/$name/results.csv"
RUN
    chmod +x folder/gpu/fovea
    mkdir -p data/cifar10 && : >data/cifar10/test_batch.bin
    speed_runs() { FOVEA_DATA=$temp/data gpu_check '^speed run$' "$1"; } # speed_runs SECONDS
    SEEDS=3 speed_runs 100
    check "the speed run's mean and spread are said" \
        grep -qx 'speed run, 3 seeds: accuracy 91.00 % +- 1.00; training and test 1.100 s +- 0.100, 1.000 at best, epochs alone 0.750' out
    check "... and every run is kept" [ "$(grep -c '"test_tta"' check.jsonl)" -eq 3 ]
    RUN_SECONDS=1 speed_runs 8
    check "as many runs as there is time for" grep -qE '^speed run +passed' out
    check "... are averaged" grep -qE '^speed run, [2-7] seeds: accuracy' out
    STUCK=2 speed_runs 8
    check "a speed run that is cut short is out of time" grep -qE '^speed run +out of time' out
    check "... and what it has is averaged" grep -qE '^speed run, 2 seeds: accuracy 90.50 % \+- 0.71;' out
    # The original recipe beside it, by the peer's python.
    both_runs() { FOVEA_DATA=$temp/data gpu_check '^(speed run|original recipe)$' "$1"; } # both_runs SECONDS
    SEEDS=3 both_runs 100
    check "both recipes pass" [ "$(grep -cE '^(speed run|original recipe) +passed' out)" -eq 2 ]
    check "the original recipe's mean and spread are said" \
        grep -qx 'original recipe, PyTorch, 2 seeds: accuracy 91.00 % +- 0.71; training and test 2.050 s +- 0.071, 2.000 at best' out
    check "... right below ours" grep -q '^original recipe, PyTorch' <(grep -A 1 '^speed run, 3 seeds' out)
    check "... and compared" grep -qx "speed run: 0.54 of the original's time, accuracy +0.00" out
    check "... and every run is kept, with the versions" [ "$(grep -cE '"original_recipe": "PyTorch", "(run|runs)":' check.jsonl)" -eq 3 ]
    check "it is asked for as many seeds, on the GPU, with the data" \
        grep -qE "asked: .*tests/peers/train_torch_speedrun.py --data $temp/data/cifar10 --device cuda --runs 3 --budget 9[0-9]$" "check-logs/original recipe.txt"
    RUN_SECONDS=1 both_runs 14
    check "our runs take half of the time" grep -qE '^speed run, [1-4] seeds' out
    check "... the original recipe the rest" grep -qE -- '--budget ([4-9]|10)$' "check-logs/original recipe.txt"
    NO_TORCH=1 RUN_SECONDS=1 both_runs 14
    check "without PyTorch on a GPU there is no original recipe" grep -qE '^original recipe +skipped .*no PyTorch that sees a GPU' out
    check "... and our runs take all of the time" grep -qE '^speed run, ([5-9]|1[0-3]) seeds' out
    SEEDS=1 SLOW=60 both_runs 8
    check "an original recipe that is cut short is out of time" grep -qE '^original recipe +out of time' out
    check "... and what it has is averaged" grep -qE '^original recipe, PyTorch, 2 seeds: accuracy 91.00 %' out
    SEEDS=1 RC=1 both_runs 100
    check "an original recipe that fails has failed" grep -qE '^original recipe +failed \(1\)' out
    SEEDS=1 NO_RUN=1 both_runs 100
    check "one for which there was no time was not reached" grep -qE '^original recipe +not reached .*no time for a run' out
    mkdir folder/gpu/peers && : >folder/gpu/peers/train_torch_speedrun.py
    SEEDS=1 both_runs 100
    check "the bundle's original recipe is taken" grep -q "asked: .*/gpu/peers/train_torch_speedrun.py " "check-logs/original recipe.txt"
    speed_runs 0
    check "no time for a speed run is said" grep -qE '^speed run +not reached' out
else echo "SKIPPED: gpu-check on the emulated GPU: $emulated/libfovea-cuda.so or unit-tests is not there"
fi

# ---------------------------------------------------------------- libraries that open and compute nothing (tests/cuda/fakes.c)
fakes=$emulated/fakes
if [ -e "$fakes/libfovea-cuda.so" ] && [ -e "$fakes/libcudnn.so.9" ]; then
    export FOVEA_BACKENDS=$fakes FOVEA_CUDA_LIBRARIES=$fakes
    library=(bench --model lenet5 -b 2 --seconds 0.01 --device cuda -v)
    # What heuristics count beyond those that were asked for is not read: the fake ends the process otherwise.
    expect 6 "cuDNN engine 7, 0.0 MB of workspace" "${library[@]}"
    expect 6 "cuDNN: the fake runs nothing in 'conv1'" "${library[@]}"
    expect 6 "fake cuBLASLt: sums of schemes 2" "${library[@]}"
    expect 6 "fake cuBLASLt: sums of schemes 7" "${library[@]}" --fast
    export FAKE_NOTE=7 # CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6
    expect 0 "64 for rounding, 0 for order, 0 for workspace" "${library[@]}"
    expect 6 "cuDNN engine 7" "${library[@]}" --fast
    unset FAKE_NOTE
    FAKE_WORKSPACE=4000 expect 6 "cuDNN engine 7, 4000.0 MB of workspace" "${library[@]}"
    # A warning, without -v, too: the emulated GPU has 64 GiB, of which 1/16 may be workspace.
    FAKE_WORKSPACE=5000 expect 0 "warning: its gradient by w f32 x [2,14,14,6] w [16,5,5] stride 1 pad 0,0 groups 1: a kernel of our own" "${library[@]::9}"
    FAKE_WORKSPACE=5000 expect 0 "cuDNN would need 5000.0 MB of workspace, and 4295.0 are allowed" "${library[@]::9}"
    FAKE_VERSION=91500 expect 0 "warning: $fakes/libcudnn.so.9 is cuDNN 9.15.0, which is too old: it must be 9.15.1 or newer" "${library[@]::9}"
    FAKE_VERSION=91501 expect 6 "cuDNN engine 7" "${library[@]}"
    libraries() { # libraries VERSION...: what env.json of a run says with FOVEA_CUDA_LIBRARIES as it is
        rm -rf named
        "$fovea" train --data synthetic --model mlp_500 --fraction 0.004 -b 16 --val-split 0.002 --img-size 8 --epochs 1 --device cuda \
            --output . --name named --quiet 2>err && grep -o '"libraries": *"[^"]*"' named/env.json
    }
    check "env.json names the libraries that are used" grep -q 'runtime [0-9.]*, cuDNN 9\.19\.0, cuBLASLt 1[0-9]' <(libraries)
    export FOVEA_CUDA_LIBRARIES=none
    check "env.json names none with FOVEA_CUDA_LIBRARIES=none" grep -qE 'runtime [0-9.]*"$' <(libraries)
    expect 0 "FOVEA_CUDA_LIBRARIES is 'none'" "${library[@]}"
    export FOVEA_BACKENDS=$fakes/without FOVEA_CUDA_LIBRARIES=$fakes
    expect 0 "this build is without cuDNN" "${library[@]}"
    expect 0 "fake cuBLASLt: sums of schemes 2" "${library[@]}"
    check "cuBLASLt is used without cuDNN" grep -q 'runtime [0-9.]*, cuBLASLt 1[0-9]' <(libraries)
    unset FOVEA_CUDA_LIBRARIES
else echo "SKIPPED: what is made of libraries: $fakes is not there (nvcc, and headers of cuDNN and cuBLASLt)"
fi

# ---------------------------------------------------------------- a run on the emulated device
if [ ! -e "$emulated/libfovea-cuda.so" ]; then
    echo "SKIPPED: runs on the emulated device: $emulated/libfovea-cuda.so is not there (make emulated)"
    totals
    exit
fi
export FOVEA_BACKENDS=$emulated
run=(train --data synthetic --model mlp_500 --fraction 0.004 -b 16 --val-split 0.002 --img-size 8 --seed 3 --output . --quiet)
loss() { awk -F, 'NR == 3 { print $3 }' "$1/results.csv"; }
expect 0 "Emulated GPU" "${bench[@]}" --device auto --mode train
expect 0 "linear_bwd_weight" "${bench[@]}" --device cuda:0 --mode train --profile
expect 6 "there is no GPU 7: this machine has 1" "${bench[@]}" --device cuda:7
expect 0 "" "${run[@]}" --epochs 2 --device cpu --name cpu
expect 0 "" "${run[@]}" --epochs 2 --device cuda --name cuda
check "losses on cuda ($(loss cuda)) and cpu ($(loss cpu)) agree" \
    awk -v a="$(loss cuda)" -v b="$(loss cpu)" 'BEGIN { d = a - b; exit !(a > 0 && d * d < 1e-9) }'
check "env.json names the GPU" grep -q '"device": *"cuda:0 Emulated GPU"' cuda/env.json
check "env.json names driver and libraries" grep -q '"libraries": *"driver 13.0' cuda/env.json
expect 0 "" "${run[@]}" --epochs 2 --device cuda --name plain --no-cuda-graphs
check "the same weights without CUDA graphs" cmp cuda/weights/last/model.safetensors plain/weights/last/model.safetensors
expect 0 "" "${run[@]}" --epochs 2 --device cuda --precision bf16 --name low
expect 0 "" "${run[@]}" --epochs 2 --device cpu --precision bf16 --name low_cpu
check "in bf16, losses on cuda ($(loss low)) and cpu ($(loss low_cpu)) agree, and are not those of float32" \
    awk -v a="$(loss low)" -v b="$(loss low_cpu)" -v c="$(loss cuda)" 'BEGIN { d = a - b; exit !(a > 0 && d * d < 1e-6 && a != c) }'
expect 0 "" "${run[@]}" --epochs 2 --device cuda --precision float16 --name half
expect 0 "" "${run[@]}" --epochs 2 --device cpu --precision float16 --name half_cpu
check "in float16, losses on cuda ($(loss half)) and cpu ($(loss half_cpu)) agree, and are not those of bf16" \
    awk -v a="$(loss half)" -v b="$(loss half_cpu)" -v c="$(loss low)" 'BEGIN { d = a - b; exit !(a > 0 && d * d < 1e-6 && a != c) }'
expect 0 "" "${run[@]}" --epochs 1 --device cuda --name resumed
expect 0 "" train --resume resumed --epochs 2 --quiet
check "the same weights after a resume" cmp cuda/weights/last/model.safetensors resumed/weights/last/model.safetensors

# ---------------------------------------------------------------- the host is a step ahead
# A save makes the host wait for each step: then no step begins while another runs.
ten=(train --data synthetic --model mlp_500 --fraction 0.045 -b 16 --val-split 0.02 --img-size 8 --seed 3 --output . --quiet --drop 0.2 --model-ema)
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name ahead
same() { cmp "$1/weights/last/model.safetensors" "$2/weights/last/model.safetensors"; } # same A B
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name lockstep --save-steps 1
check "the same weights when each step is waited for" same ahead lockstep
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name micro --grad-accum-steps 3
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name micro-lockstep --grad-accum-steps 3 --save-steps 1
check "and with micro-steps" same micro micro-lockstep
check "which are others" bash -c "! cmp -s micro/weights/last/model.safetensors ahead/weights/last/model.safetensors"
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name halves --max-steps 5
expect 0 "" train --resume halves --quiet
check "the same weights after a stop within an epoch" same ahead halves
# Gradients overflow float16 at first, and each time the next step has another scale, until they fit.
overflow=(train --data synthetic --model mlp_500 --fraction 0.045 -b 16 --val-split 0 --img-size 8 --drop 0.98 --loss-reduction sum --lr 0.0001
    --precision float16 --seed 3 --output . --max-steps 10 -v)
scales() { sed -nE 's/.*(step [0-9]+: .*the loss scale is [0-9]+) now.*/\1/p' err; }
expect 0 "the step is left out, the loss scale is" "${overflow[@]}" --device cuda --name scaled
scales >cuda.scales
expect 0 "" "${overflow[@]}" --device cuda --name scaled-lockstep --save-steps 1
check "the same weights where the loss scale changes" same scaled scaled-lockstep
expect 0 "" "${overflow[@]}" --device cpu --name scaled-cpu
scales >cpu.scales
check "the loss scale falls as on the cpu" cmp cuda.scales cpu.scales
check "but not in every step" test "$(wc -l <cuda.scales)" -lt 9

steps() { sed -nE 's/^ *step ([0-9]+) .*lr (.*)/\1 \2/p' err; } # numbers and learning rates of the steps that were logged
loud=("${ten[@]}" --epochs 2 --log-every 1 --no-quiet)
expect 0 "device computed for" "${loud[@]}" --device cuda --name log
steps >cuda.steps
expect 0 "" "${loud[@]}" --device cpu --name log_cpu
steps >cpu.steps
check "on the cpu nothing is said of a device" bash -c "! grep -qE 'device (computed|holds)' err"
check "the log has all steps" cmp cuda.steps cpu.steps
check "and there are some" test "$(wc -l <cuda.steps)" -gt 10
check "metrics.json has the share of waiting" grep -qE '"device_wait_share": 0\.[0-9]+' log/metrics.json

# Killed and resumed, or asked to end, at any moment.
for signal in KILL TERM; do
    rm -rf killed
    "$fovea" "${ten[@]}" --fraction 0.36 --epochs 1 --device cuda --name killed --save-steps 3 --save-epochs 0 >out 2>err &
    pid=$!
    for _ in $(seq 300); do
        [ -e killed/state/prev.safetensors ] && break
        sleep 0.02
    done
    kill -$signal $pid
    wait $pid 2>/dev/null
    check "there was something to kill" test ! -e killed/metrics.json
    step=$(grep -aoE '"step":"[0-9]+"' killed/state/last.safetensors | tr -dc 0-9)
    check "states of steps had been saved within the epoch, the last at step $step" test "$step" -gt 1 -a "$step" -lt 80
    "$fovea" train --resume killed --quiet >out 2>err || fail "resume after SIG$signal"
    [ -e whole ] || "$fovea" "${ten[@]}" --fraction 0.36 --epochs 1 --device cuda --name whole >out 2>err
    check "the same weights after SIG$signal" same whole killed
done

# A step that is not finite ends the run where it would have ended it on the cpu, and nothing bad is saved.
bad=("${ten[@]}" --fraction 0.2 --epochs 1 --lr 1000 --warmup-epochs 0)
message() { sed -n 's/^fovea[^:]*: *//p' err | head -n 1 | sed 's/, of epoch.*//'; }
for device in cuda cpu; do
    "$fovea" "${bad[@]}" --device $device --name bad-$device --save-steps 1 >out 2>err
    code=$?
    check "$device: code 7 after a step that is not finite, not $code" test $code -eq 7
    message >$device.message
    "$fovea" "${bad[@]}" --device $device --name ahead-$device >out 2>err
    message >$device.ahead
    check "$device: the same message without a save at each step" cmp <(sed 's/;.*weights/; weights/' $device.message) <(sed 's/;.*weights/; weights/' $device.ahead)
    expect 7 "is left out (2 in a row)" "${bad[@]}" --device $device --name skip-$device --on-nan skip:2
    grep -o 'step [0-9]* (epoch [0-9]*): the [a-z]* is not finite; the step is left out' err >$device.skipped
    "$fovea" "${bad[@]}" --device $device --name back-$device --on-nan rollback >out 2>err
    grep -o 'step [0-9]*: not finite or diverged; back to step [0-9]*.*' err >$device.back
done
check "cuda and cpu name the same step" cmp cuda.message cpu.message
check "and leave the same ones out" cmp cuda.skipped cpu.skipped
check "and go back from the same ones" cmp cuda.back cpu.back

# What a step of the program asks of the GPU: the difference between two runs of which one has ten steps more.
long=(train --data synthetic --model mlp_500 --fraction 0.2 -b 16 --val-split 0 --img-size 8 --seed 3 --output . --quiet --epochs 1 --device cuda --save-minutes 0)
counted() { # counted NAME STEPS OPTIONS...: counts of a run in NAME.counts
    FOVEA_EMULATED_COUNTS=$temp/$1.counts expect 0 "" "${long[@]}" --max-steps "$2" --name "counted-$1" "${@:3}"
}
more() { echo $(($(sed -n "s/^$1 //p" "$3.counts") - $(sed -n "s/^$1 //p" "$2.counts"))); } # more WHAT FEW MANY: of it
counted few 20
counted many 30
check "ten steps more: no more than ten waits ($(more waits few many))" test "$(more waits few many)" -le 10
check "ten steps more: no allocation ($(more allocations few many))" test "$(more allocations few many)" -eq 0
check "ten steps more: nothing is freed" test "$(more frees few many)" -eq 0
check "ten steps more: each begins while another runs ($(more overlaps few many))" test "$(more overlaps few many)" -ge 9
check "at the end all memory is free" grep -qx 'live 0' many.counts
check "at the end all pinned memory is free" grep -qx 'host_live 0' many.counts
check "at the end no stream, event or graph is left" grep -qx 'objects 0' many.counts

# ---------------------------------------------------------------- a training set that lives on the GPU
expect 0 "device holds the 4096 pictures of the training set: 0.8 MB" "${ten[@]}" --epochs 1 --device cuda --name says --no-quiet
both() { # both NAME OPTIONS...: the same run with the set on the GPU and with batches sent there
    expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name "held-$1" "${@:2}"
    expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name "sent-$1" --no-resident-data "${@:2}"
    check "$1: the same weights" same "held-$1" "sent-$1"
    check "$1: the same averages" cmp "held-$1/weights/ema/model.safetensors" "sent-$1/weights/ema/model.safetensors"
    check "$1: the same figures" cmp <(cut -d, -f 1,3-9 "held-$1/results.csv") <(cut -d, -f 1,3-9 "sent-$1/results.csv")
}
both augmented --cutout 3 --color-jitter 0.3 --reprob 0.3 --hflip 0.5
both accumulated --grad-accum-steps 2
both balanced --sampler balanced --class-weights balanced
both noisy --shuffle-labels --precision bf16
both convolution --model lenet5 --img-size 12 --fraction 0.02
check "labels at random are others" bash -c "! cmp -s held-noisy/weights/last/model.safetensors held-augmented/weights/last/model.safetensors"
expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name mixed --max-steps 5
FOVEA_RESIDENT_DATA=false expect 0 "" train --resume mixed --quiet --max-steps 14
expect 0 "" train --resume mixed --quiet --resident-data
check "the same weights when it changes on the way" same ahead mixed

# Too large for a quarter of what is free; small enough, but the program then has no room beside it.
counted sent-large 5 --no-resident-data --batch-size 512
peak=$(sed -n 's/^peak_bytes //p' sent-large.counts)
check "the set would be taken there" test $((peak + 400000)) -gt $((4 * 4096 * (8 * 8 * 3 + 4)))
FV_EMULATED_MB=3.2 expect 0 "" "${ten[@]}" --epochs 2 --device cuda --name quarter --no-quiet
check "more than a quarter is not taken" bash -c "! grep -q 'device holds' err"
check "a set that is too large: the same weights" same ahead quarter
FV_EMULATED_MB=$(((peak + 400000) / 1000000)).$(printf %06d $(((peak + 400000) % 1000000))) counted no-room 5 --batch-size 512 --no-quiet -v
check "no room beside the set: it is given up" grep -q 'no memory for the training set on the device: .*out of memory' err
check "no room beside the set: the same weights" same counted-sent-large counted-no-room
check "no room beside the set: all memory is free at the end" grep -qx 'live 0' no-room.counts

# Ten steps send rows in the place of pictures, labels and weights; nothing else of a picture but its augmentation.
counted sent-few 20 --no-resident-data
counted sent-many 30 --no-resident-data
check "ten steps send $(more bytes_up few many) bytes, of $(more bytes_up sent-few sent-many) with pictures" \
    test "$(more bytes_up few many)" -eq $(($(more bytes_up sent-few sent-many) - 10 * 16 * (8 * 8 * 3 + 4 + 4 - 4)))
check "and no more than rows, records and the step's numbers" test "$(more bytes_up few many)" -le $((10 * (16 * (4 + 16 * 4) + 512)))
check "ten steps that send pictures: no more than ten waits" test "$(more waits sent-few sent-many)" -le 10

# ---------------------------------------------------------------- evaluation
expect 0 "test " eval cuda --device cuda
cp out cuda.txt
expect 0 "test " eval cuda --device cpu
cp out cpu.txt
check "eval says the same on cuda and cpu" cmp <(sed 's/(.*//' cuda.txt) <(sed 's/(.*//' cpu.txt)

# ---------------------------------------------------------------- R21: out of memory
# At batch 32 the run needs 1.4 MB, at batch 1000 it needs 6; there are 3.
short=(train --data synthetic --model mlp_500 --fraction 0.25 -b 32 --val-split 0.002 --img-size 8 --seed 3 --output . --quiet)
figures='out of memory: [0-9.]+ MB needed, [0-9.]+ of 3\.0 MB free'
contents() { (cd "$1" && find . -type f ! -name lock -exec sha256sum {} + | sort -k 2); }
expect 0 "" "${short[@]}" --epochs 1 --device cuda --name part
cp -r part calm
expect 0 "" train --resume calm --epochs 2 --quiet
export FV_EMULATED_MB=3
contents part >before
expect 6 "a smaller batch needs less: --batch-size" train --resume part --epochs 2 -b 1000 --force --quiet
check "needed and free bytes are told" grep -qE "$figures" err
contents part >after
check "the run that memory ran out in has its state" grep -q state/last.safetensors after
check "and no file of it has changed" cmp before after
expect 6 "a smaller batch needs less: --batch-size" "${short[@]}" --epochs 1 -b 1000 --device cuda --name large
check "needed and free bytes are told of a new run" grep -qE "$figures" err
check "which leaves no folder" [ ! -e large ]
expect 0 "" train --resume part --epochs 2 --quiet
check "the run goes on with its own batch" grep -q '^batch-size: 32$' part/args.yaml
check "and ends with the weights of one that memory sufficed for" cmp calm/weights/last/model.safetensors part/weights/last/model.safetensors
unset FV_EMULATED_MB

totals
