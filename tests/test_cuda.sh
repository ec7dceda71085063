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
