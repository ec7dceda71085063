#!/usr/bin/env bash
# Every kernel of the CUDA backend keeps its values in registers, for every GPU that the build is for: no spills, and no stack
# frame, which a spill or an array with a variable index would need. What ptxas said when the objects were made
# (keep_usage.sh) is read; nothing is compiled.
#   tests/cuda/spills.sh [BUILD_DIR]      default: build
set -u
cd "$(dirname "$0")/../.." || exit 1
build=${1:-build}
if [ ! -e "$build/libfovea-cuda.so" ]; then
    echo "SKIPPED: registers of kernels: $build/libfovea-cuda.so is not there (make cuda; nvcc)"
    echo "0 passed, 0 failed"
    exit 0
fi
passed=0 failed=0

# A line per function that needs memory, then "kernels N". "Compiling entry function 'NAME' for 'sm_90a'" begins a kernel; for it, and
# for what it calls, "Function properties for NAME" and "8 bytes stack frame, 8 bytes spill stores, 8 bytes spill loads" follow.
needs_memory() { # needs_memory FILE
    awk '
        function unknown() { if (waiting) print kernel ": ptxas does not say what it needs" }
        /Compiling entry function/ { unknown(); split($0, part, "\047"); kernel = part[2] " (" part[4] ")"; n++; waiting = 1 }
        /Function properties for/ { name = $NF }
        /bytes stack frame/ {
            waiting = 0
            if (/^ *0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads$/) next
            print kernel (index(kernel, name " ") == 1 ? "" : ", in " name) ":" $0
        }
        END { unknown(); print "kernels " n + 0 }' "$1"
}
look_at() { # look_at FILE: counts its kernels
    local said n
    said=$(needs_memory "$1")
    n=${said##*kernels }
    said=$(grep -v '^kernels ' <<<"$said")
    if [ -n "$said" ]; then
        echo "FAILED: $1: kernels that keep values in memory:"
        c++filt <<<"$said" | sed 's/^/    /'
        failed=$((failed + 1))
    else
        passed=$((passed + n))
    fi
}

for file in cuda/*.cu cuda/kernels/*.cu; do
    usage=$build/obj/$file.usage
    if [ ! -s "$usage" ]; then echo "FAILED: $usage is not there"; failed=$((failed + 1))
    else look_at "$usage"; fi
done
[ "$passed" -gt 0 ] || { echo "FAILED: no kernel at all"; failed=$((failed + 1)); }
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
