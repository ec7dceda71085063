#!/usr/bin/env bash
# Static analysis: gcc -fanalyzer and clang-tidy (.clang-tidy) over all sources of library and program. Ends with the number of
# findings; it must be 0. usage: tools/analyze.sh [FILE...]   JOBS: how many at once (default: processors)
set -u
cd "$(dirname "$0")/.." || exit 1
jobs=${JOBS:-$(nproc)}
flags=(-std=c11 -D_GNU_SOURCE -I. -fno-math-errno)
if [ $# -gt 0 ]; then sources=("$@"); else
    mapfile -t sources < <(git ls-files -co --exclude-standard 'core/*.c' 'layers/*.c' 'optim/*.c' 'data/*.c' 'tools/*.c')
fi
for tool in gcc clang-tidy; do
    command -v $tool >/dev/null || { echo "analyze: no $tool here (tools/deps.sh --lint)"; exit 1; }
done
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# What gcc -fanalyzer is not asked, and where.
not_asked() { # not_asked FILE
    case $1 in
    # In numeric kernels it follows paths that the checks before a program runs have closed (core/verify.c): an operand that is
    # absent, a rank of 0, a shape without elements. And it takes the length of a vector for its bits.
    core/ref/* | core/cpu/kernels/*)
        echo -Wno-analyzer-null-dereference -Wno-analyzer-null-argument -Wno-analyzer-use-of-uninitialized-value \
            -Wno-analyzer-shift-count-overflow ;;
    # libjpeg's error_exit is a pointer to a function that does not return.
    data/jpeg_memory.c) echo -Wno-analyzer-null-dereference ;;
    esac
}
defines() { # kernels are compiled per instruction set; one is enough here. FV_ANALYZE: core/status.h
    case $1 in
    core/cpu/kernels/*) echo -DFV_ANALYZE -DFV_ISA=generic -DFV_ISA_generic=1 -ffp-contract=off ;;
    core/status.c) ;;
    *) echo -DFV_ANALYZE ;;
    esac
}
with_gcc() {
    # shellcheck disable=SC2046 # words on purpose
    gcc "${flags[@]}" $(defines "$1") -O1 -fanalyzer $(not_asked "$1") -c "$1" -o /dev/null 2>&1 | grep -E 'warning:|error:'
}
with_clang() {
    # Its analyzer goes through the unrolled loops of kernels one by one: 26 s of 27 for batch_norm.c. gcc's reads them, too.
    local checks=()
    [[ $1 == core/cpu/kernels/* ]] && checks=(--checks='-clang-analyzer-*')
    # shellcheck disable=SC2046
    clang-tidy --quiet "${checks[@]}" "$1" -- "${flags[@]}" $(defines "$1") 2>/dev/null | grep -E '^/.*(warning|error):' | sed "s|^$PWD/||"
}
one() { # in its own process: one TOOL FILE
    "$1" "$2"
    return 0
}
export -f not_asked defines with_gcc with_clang one
export flags_text="${flags[*]}"

start=$SECONDS
for tool in with_gcc with_clang; do
    printf '%s\n' "${sources[@]}" |
        xargs -P "$jobs" -I{} bash -c 'read -ra flags <<<"$flags_text"; one "$0" "$1"' "$tool" {} >>"$log"
    echo "analyze: ${tool#with_} has seen ${#sources[@]} files after $((SECONDS - start)) s"
done
# A finding in a header is reported with each file that includes it.
sort -u "$log" | sed 's|^\./||' | sort -u
findings=$(sed 's|^\./||' "$log" | sort -u | grep -c .)
echo "analyze: $findings findings"
[ "$findings" -eq 0 ]
