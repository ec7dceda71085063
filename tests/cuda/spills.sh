#!/usr/bin/env bash
# Compile the CUDA kernels and fail if one of them keeps registers in memory: ptxas -v says so. Needs nvcc, and minutes.
#   tests/cuda/spills.sh [ARCH...]      default: 75 90a.   FILES: only these sources
set -u
cd "$(dirname "$0")/../.." || exit 1
nvcc=${NVCC:-$(command -v nvcc || command -v /usr/local/cuda/bin/nvcc)}
[ -n "$nvcc" ] || { echo "SKIPPED: there is no nvcc"; exit 0; }
[ $# -gt 0 ] || set -- 75 90a
passed=0 failed=0
for file in ${FILES:-cuda/*.cu cuda/kernels/*.cu}; do
    for arch in "$@"; do
        if ! log=$("$nvcc" -std=c++17 -O3 -I. -arch="sm_$arch" -cubin -Xptxas -v "$file" -o /dev/null 2>&1); then
            echo "FAILED: $file for $arch does not compile"; failed=$((failed + 1)); continue
        fi
        # "Compiling entry function 'NAME' for 'sm_90a'", then "8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads"
        spilled=$(awk '/Compiling entry function/ { name = $0; sub(/.*function ./, "", name); sub(/. for .*/, "", name) }
            /bytes spill stores/ && !/ 0 bytes spill stores/ { print name ": " $0 }' <<<"$log")
        kernels=$(grep -c 'Compiling entry function' <<<"$log")
        if [ -n "$spilled" ]; then echo "FAILED: $file for $arch:"; c++filt <<<"$spilled"; failed=$((failed + 1))
        else passed=$((passed + kernels)); fi
    done
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
