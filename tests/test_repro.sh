#!/usr/bin/env bash
# R22 of docs/reliability.md: the same sources give the same bytes, whatever folder they are built in. The second build is one
# without nvcc, of all that can do without: it says what is missing.
# usage: test_repro.sh [BUILD_DIR]   compares with what lies there, which must be up to date
# FOVEA_REPRO: which files to compare (default: fovea and libfovea.so)
set -u
cd "$(dirname "$0")/.." || exit 1
build=$(realpath "${1:-${BUILD_DIR:-build}}")
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
passed=0 failed=0
read -ra files <<<"${FOVEA_REPRO:-fovea libfovea.so}"

# A longer path than this one, and another depth.
tree=$temp/another/place/with-a-rather-long-name-to-show-in-debugging-information
mkdir -p "$tree"
tar --exclude=./build --exclude=./b --exclude=./.git --exclude=./runs --exclude=./datasets -cf - . | tar -xf - -C "$tree"
commit=$(cat "$build/obj/commit" 2>/dev/null || echo unknown) # the copy has no history to ask
date=$(git log -1 --format=%cs 2>/dev/null)
again=(make -s -j2 -C "$tree" NO_DEPS=1 NVCC= BUILD=out COMMIT="$commit" COMMIT_DATE="$date")
if ! "${again[@]}" "${files[@]/#/out/}" >"$temp/log" 2>&1; then
    tail -n 5 "$temp/log"
    echo "FAILED: R22: the copy cannot be built"
    echo "0 passed, 1 failed"
    exit 1
fi
for file in "${files[@]}"; do
    if cmp "$build/$file" "$tree/out/$file"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: R22: two builds of $file differ"
    fi
done

without_nvcc() { # without_nvcc NAME COMMAND...: it succeeds
    if "${@:2}" >"$temp/log" 2>&1; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: without nvcc: $1"
        tail -n 5 "$temp/log"
    fi
}
says() { # says CODE TEXT COMMAND...
    local status=0
    "${@:3}" >"$temp/said" 2>&1 || status=$?
    cat "$temp/said"
    [ "$status" -eq "$1" ] && grep -qF -- "$2" "$temp/said"
}
if [ -z "${FOVEA_REPRO:-}" ]; then
    without_nvcc "make all" "${again[@]}" all
    without_nvcc "nothing of CUDA is built" [ ! -e "$tree/out/libfovea-cuda.so" ]
    without_nvcc "make test-programs leaves out what needs it" says 0 unit-tests "${again[@]}" -n test-programs
    without_nvcc "and asks for no nvcc" bash -c "! grep -qiE 'nvcc |cudnn-plans|gpu-ceilings' '$temp/said'"
    without_nvcc "make cuda says what is missing" says 2 "make cuda: there is no nvcc; install the CUDA toolkit or give NVCC=" "${again[@]}" cuda
    unset FOVEA_BACKENDS
    without_nvcc "so does --device cuda" says 6 "this build has no device 'cuda': there is no libfovea-cuda.so" \
        "$tree/out/fovea" bench --model mlp -b 2 --img-size 8 --seconds 0.05 --device cuda
    without_nvcc "--device auto takes the processor" says 0 " · cpu " "$tree/out/fovea" bench --model mlp -b 2 --img-size 8 --seconds 0.05
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
