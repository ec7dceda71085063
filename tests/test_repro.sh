#!/usr/bin/env bash
# R22 of docs/reliability.md: the same sources give the same bytes, whatever folder they are built in.
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
if ! make -s -j2 -C "$tree" NO_DEPS=1 BUILD=out COMMIT="$commit" COMMIT_DATE="$date" "${files[@]/#/out/}" >"$temp/log" 2>&1; then
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
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
