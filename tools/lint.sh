#!/usr/bin/env bash
# Everything `make lint` checks. Ends with 0 findings or says which.
set -u
cd "$(dirname "$0")/.." || exit 1
findings=0
say() { # say TITLE TEXT: TEXT is what was found, empty if nothing
    [ -z "$2" ] && return
    findings=$((findings + $(printf '%s\n' "$2" | wc -l)))
    printf '== %s\n%s\n' "$1" "$2"
}
sources=$(git ls-files '*.c' '*.h')
includes() { # includes WHERE PATTERN: offending #include lines below WHERE
    git grep -nE "#include \"($2)" -- "$1" ':!tests' || true
}

say "formatting (clang-format)" "$(for f in $sources; do clang-format --dry-run -Werror "$f" >/dev/null 2>&1 || echo "$f"; done)"
say "core/ includes what stands above it" "$(includes core 'layers/|optim/|data/|tools/|cuda/|fovea\.h')"
say "layers/, optim/, data/ include more than core/" "$(includes layers 'optim/|data/|tools/|cuda/|fovea\.h'; includes optim 'layers/|data/|tools/|cuda/|fovea\.h'; includes data 'layers/|optim/|tools/|cuda/|fovea\.h')"
say "tools/ reaches into the library" "$(includes tools 'core/|layers/|optim/|data/|cuda/')"
# tests/cuda/: programs that ask CUDA's libraries what the backend asks them, and the emulation, whose headers are ours.
say "CUDA outside cuda/" "$(git grep -nE '#include [<"](cuda_|cuda\.h|cudnn|cublas|nccl|nvrtc|nvml)|#if.*(__CUDA|HAVE_CUDA)' -- '*.c' '*.h' '*.inc' '*.cpp' ':!cuda/' ':!tests/cuda/' || true)"
say "the library exits, aborts or prints" "$(git grep -nE '(^|[^a-z_])(exit|abort|printf|fprintf|puts|perror) *\(' -- 'core/*.c' 'core/*.inc' 'layers/*.c' 'optim/*.c' 'data/*.c' || true)"
say "setenv in the library" "$(git grep -nE '\b(setenv|putenv|unsetenv)\b *\(' -- core layers optim data || true)"
say "unfinished work" "$(git grep -nE '\b(TODO|FIXME|XXX)\b' -- '*.c' '*.h' '*.inc' Makefile '*.sh' ':!tools/lint.sh' || true)"
say "very long files (over 700 lines)" "$(for f in $sources; do n=$(wc -l <"$f"); [ "$n" -gt 700 ] && echo "$f: $n"; done)"
say "shellcheck" "$(git ls-files '*.sh' .ci/run | xargs shellcheck -x -S warning -f gcc 2>&1)"
# gcc sees some only when it optimises; clang needs no more than to read. LINT_COMPILERS: which (default both)
for cc in ${LINT_COMPILERS:-gcc clang}; do
    [ "$cc" = clang ] && command="clang -fsyntax-only" || command=$cc
    log=$(make -s -k -j"${JOBS:-$(nproc)}" NO_DEPS=1 CC="$command" WERROR=1 KIND=release BUILD="build/lint-$cc" objects 2>&1 >/dev/null)
    say "warnings of $cc" "$(grep -E 'warning:|error:' <<<"$log")"
done
mapfile -t checked < <(git ls-files 'core/*.c' 'layers/*.c' 'optim/*.c' 'data/*.c' 'tools/*.c')
# Not asked for: casts of raw workspace to float (all of it is 64-byte aligned scratch), an index that is compared after use in a sum,
# and constructs that this parser cannot read (vector extensions). In the kernels it takes what vf_load and vf_store of vec.h do for
# uninitialised, for it does not follow _Generic; the compilers' analyzers (make analyze) do.
quiet=(--suppress=missingInclude --suppress=invalidPointerCast --suppress=arrayIndexThenCheck --suppress=internalAstError)
for id in uninitvar legacyUninitvar nullPointerArithmetic; do quiet+=("--suppress=$id:core/cpu/kernels/*"); done
say "cppcheck" "$(cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr "${quiet[@]}" -I. -DFV_ISA=generic -D__x86_64__ \
    --template='{file}:{line}: {id}: {message}' "${checked[@]}" 2>&1)"
echo "lint: $findings findings"
[ "$findings" -eq 0 ]
