#!/usr/bin/env bash
# One unattended run on a machine with an NVIDIA GPU: what cannot be tested without one (docs/gpu.md). Every item has a time limit of
# its own; results are appended as JSON lines as they come, so that a run that is cut short leaves what it has; the table comes last.
#   tools/gpu-check.sh [RESULTS]        default: gpu-check.jsonl
# BUILD_DIR: the build (default build). NVCC, CUDA_ARCHS: as for make. PEER: path of a script that measures PyTorch (called with
# --modes eager,graph --budget 150 --out FILE), left out if not set. FOVEA_DATA: data sets. BUDGET: seconds in all (default 600).
# Exit code: 0 all passed, 1 something failed, 6 there is no GPU.
set -u
cd "$(dirname "$0")/.." || exit 1
results=$(realpath -m "${1:-gpu-check.jsonl}")
build=${BUILD_DIR:-build}
budget=${BUDGET:-600}
started=$SECONDS
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
table=() failed=0

if ! gpu=$(nvidia-smi --query-gpu=name,driver_version,compute_cap,memory.total --format=csv,noheader 2>/dev/null | head -n 1) || [ -z "$gpu" ]; then
    echo "gpu-check: there is no GPU: nvidia-smi shows none" >&2
    exit 6
fi
capability=$(cut -d, -f3 <<<"$gpu" | tr -d ' .')
[ "$capability" = 90 ] && capability=90a
: >"$results" || exit 5

# JSON string of the text on standard input, cut to a sensible length.
quoted() { tr -c '[:print:]\n' '?' | tail -c 1500 | sed 's/\\/\\\\/g; s/"/\\"/g' | awk 'BEGIN { printf "\"" } { printf "%s%s", (NR > 1 ? "\\n" : ""), $0 } END { printf "\"" }'; }

# item NAME SECONDS COMMAND...: its output ends up in the results; passed by exit code, within the time that is left.
item() {
    local name=$1 limit=$2 left=$((budget - (SECONDS - started))) began=$SECONDS rc verdict
    shift 2
    [ "$limit" -gt "$left" ] && limit=$left
    if [ "$limit" -le 0 ]; then rc=78; : >"$temp/out"
    else
        timeout -k 5 "$limit" "$@" >"$temp/out" 2>&1 </dev/null
        rc=$?
    fi
    case $rc in
    0) verdict=passed ;;
    77) verdict=skipped ;;
    78) verdict="not reached" failed=$((failed + 1)) ;;
    124 | 137) verdict="out of time" failed=$((failed + 1)) ;;
    *) verdict="failed ($rc)" failed=$((failed + 1)) ;;
    esac
    table+=("$(printf '%-28s %-12s %4d s  %s' "$name" "$verdict" $((SECONDS - began)) "$(tail -n 1 "$temp/out" | cut -c 1-110)")")
    printf '{"item": "%s", "verdict": "%s", "seconds": %d, "output": %s}\n' "$name" "$verdict" $((SECONDS - began)) \
        "$(quoted <"$temp/out")" >>"$results"
    printf '%s\n' "${table[-1]}" >&2
    return 0
}

# ---------------------------------------------------------------- the items

build_all() {
    if command -v "${NVCC:-nvcc}" >/dev/null || [ -x /usr/local/cuda/bin/nvcc ]; then
        make -s -j"$(nproc)" NO_DEPS=1 CUDA_ARCHS="${CUDA_ARCHS:-$capability}" cuda "$build/fovea" "$build/unit-tests" 2>&1 | tail -n 5
        return "${PIPESTATUS[0]}"
    fi
    echo "no nvcc: what is built already is checked"
    [ -x "$build/fovea" ] && [ -e "$build/libfovea-cuda.so" ] && [ -x "$build/unit-tests" ]
}

versions() {
    echo "$gpu"
    nvidia-smi --query-gpu=clocks.max.sm,clocks.max.mem,pci.bus_id,ecc.mode.current --format=csv,noheader
    "$build/fovea" train --data synthetic --model mlp_500 --fraction 0.01 -b 16 --epochs 1 --device cuda --output "$temp" --name versions --quiet &&
        grep -E '"(device|libraries)"' "$temp/versions/env.json"
}

unit_tests() { # unit_tests SUITE...: those that open the device, on the real one
    local known
    FOVEA_BACKENDS=$build CK_FORK=no "$build/unit-tests" "$@" 2>&1 | tee "$temp/unit" | tail -n 12
    known=${PIPESTATUS[0]}
    if grep -q 'SKIPPED: device cuda' "$temp/unit"; then echo "the tests did not find the device"; return 1; fi
    return "$known"
}

sanitizer() { # sanitizer TOOL
    local tool
    tool=$(command -v compute-sanitizer || command -v /usr/local/cuda/bin/compute-sanitizer) || { echo "no compute-sanitizer"; return 77; }
    "$tool" --tool "$1" --error-exitcode 9 "$build/fovea" bench --model resnet20 --device cuda --mode train -b 4 --img-size 16 --seconds 0.1 \
        --no-cuda-graphs 2>&1 | tail -n 5
    return "${PIPESTATUS[0]}"
}

same_bits() {
    local run=(train --data synthetic --model resnet20 --fraction 0.1 -b 32 --epochs 2 --seed 7 --output "$temp" --quiet) name
    "$build/fovea" "${run[@]}" --device cuda --name first && "$build/fovea" "${run[@]}" --device cuda --name second &&
        "$build/fovea" "${run[@]}" --device cuda --no-cuda-graphs --name plain || return 1
    for name in second plain; do
        cmp "$temp/first/weights/last/model.safetensors" "$temp/$name/weights/last/model.safetensors" || return 1
    done
    echo "three runs, one without CUDA graphs: the same weights"
}

# The losses of the first epochs on the GPU and on the processor: rounding differs, the course does not.
loss_curve() {
    local run=(train --data synthetic --model resnet20 --fraction 0.1 -b 32 --epochs 2 --seed 7 --output "$temp" --quiet)
    [ -s "$temp/first/results.csv" ] || "$build/fovea" "${run[@]}" --device cuda --name first || return 1
    "$build/fovea" "${run[@]}" --device cpu --name cpu || return 1
    paste -d, <(cut -d, -f3 "$temp/first/results.csv") <(cut -d, -f3 "$temp/cpu/results.csv") | awk -F, '
        NR > 1 { d = ($1 - $2) / $2; if (d < 0) d = -d; if (d > worst) worst = d; rows++ }
        END { printf "worst relative difference of the training loss: %.2e over %d epochs\n", worst, rows; exit !(rows > 0 && worst < 1e-2) }'
}

throughput() {
    local model batch graphs
    while read -r model batch; do
        for graphs in --cuda-graphs --no-cuda-graphs; do
            timeout 60 "$build/fovea" bench --model "$model" -b "$batch" --device cuda --mode train --seconds 2 "$graphs" --json 2>/dev/null |
                sed "s/^{/{\"graphs\": \"$graphs\", /" | tee -a "$results" | cut -c 1-300 || return 1
        done
    done <<'LIST'
resnet18_cifar 512
resnet20 512
vit_tiny_patch4_32_d6 512
resnet50 64
LIST
}

profile() { "$build/fovea" bench --model resnet18_cifar -b 512 --device cuda --mode train --seconds 2 --profile 2>&1 | head -n 30; }

peer() {
    [ -n "${PEER:-}" ] || { echo "PEER is not set"; return 77; }
    python3 "$PEER" --modes eager,graph --budget 150 --out "$temp/peer.jsonl"
    local rc=$?
    cat "$temp/peer.jsonl" >>"$results"
    return $rc
}

export -f build_all versions unit_tests sanitizer same_bits loss_curve throughput profile peer
export build temp results gpu capability
item "build" 240 bash -c build_all
item "device and versions" 40 bash -c versions
item "operations, device" 90 bash -c 'unit_tests ops cuda'
item "memcheck" 60 bash -c 'sanitizer memcheck'
item "racecheck" 60 bash -c 'sanitizer racecheck'
item "the same bits" 60 bash -c same_bits
item "losses beside the processor" 60 bash -c loss_curve
item "throughput" 90 bash -c throughput
item "time by operation" 20 bash -c profile
item "PyTorch" 170 bash -c peer

echo
echo "$gpu"
printf '%s\n' "${table[@]}"
echo "results: $results"
[ "$failed" -eq 0 ]
