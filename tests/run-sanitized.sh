#!/usr/bin/env bash
# Run the unit tests, and a short training, of a build with sanitizers. usage: BUILD_DIR=... tests/run-sanitized.sh asan|tsan|debug
set -eu
cd "$(dirname "$0")/.."
kind=$1
export ASAN_OPTIONS=detect_leaks=1:abort_on_error=1:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1
export FOVEA_TESTS_SHORT=1
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
# Under ThreadSanitizer only what has threads: the pool, kernels on it, the loader.
suites=()
[ "$kind" = tsan ] && suites=(core graph data_loader)
# One process for all tests under AddressSanitizer: looking for leaks at the end of each of thousands took longer than the tests.
[ "$kind" = asan ] && export CK_FORK=no
"$BUILD_DIR/unit-tests" "${suites[@]}"
# The fuzz corpus, each small file also cut and flipped everywhere.
[ "$kind" = asan ] && env -u FOVEA_TESTS_SHORT "$BUILD_DIR/fuzz-replay"
[ "$kind" = cov ] && "$BUILD_DIR/fuzz-replay"
"$BUILD_DIR/fovea" train --data synthetic --fraction 0.05 --model resnet20 --epochs 1 -b 32 --threads 2 -j 2 --output "$temp/runs" --name t
"$BUILD_DIR/fovea" eval "$temp/runs/t" --split test
# The thread that saves, beside the one that trains; then a run that goes on.
"$BUILD_DIR/fovea" train --data synthetic --fraction 0.05 --model resnet20 --epochs 2 -b 32 --threads 2 -j 2 --model-ema --save-steps 1 \
    --max-steps 7 --output "$temp/runs" --name r
"$BUILD_DIR/fovea" train --resume "$temp/runs/r" --save-steps 1
echo "$kind: train, eval and resume ran clean"
