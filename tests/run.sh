#!/usr/bin/env bash
# Run every test of one build and end with the totals. BUILD_DIR: where the build lies (default build).
# Data: $FOVEA_DATA if set; tests that need what is not there say SKIPPED.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD_DIR:-build}
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Add a runner's totals: Check's "97%: Checks: 30, Failures: 1, Errors: 0" or a plain "30 passed, 1 failed".
count() {
    local line status=$1 good=0 bad=0
    if line=$(grep -E '^[0-9]+%: Checks: ' "$log" | tail -n 1) && [ -n "$line" ]; then
        local n f e
        read -r n f e < <(sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/' <<<"$line")
        bad=$((f + e)) good=$((n - f - e))
    elif line=$(grep -E '^([a-z]+: )?[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1) && [ -n "$line" ]; then
        read -r good bad < <(sed -E 's/^([a-z]+: )?([0-9]+) passed, ([0-9]+) failed.*/\2 \3/' <<<"$line")
    else
        bad=1
    fi
    [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    passed=$((passed + good)) failed=$((failed + bad))
}

run() { # run TITLE COMMAND...
    echo "== $1"
    shift
    "$@" 2>&1 | tee "$log"
    count "${PIPESTATUS[0]}"
}

run "unit tests" "$build/unit-tests"
run "command line" env FOVEA="$build/fovea" tests/test_cli.sh
run "data command" env FOVEA="$build/fovea" tests/test_data_files.sh
run "exit codes" env FOVEA="$build/fovea" tests/test_exit_codes.sh
run "completion" env FOVEA="$build/fovea" tests/test_completion.sh
run "recipes" env FOVEA="$build/fovea" tests/test_recipes.sh
run "several labels, freezing" env FOVEA="$build/fovea" tests/test_multilabel.sh
run "test-time augmentation" env FOVEA="$build/fovea" tests/test_tta.sh
run "device cuda" env FOVEA="$build/fovea" EMULATED="$build/emulated" tests/test_cuda.sh
if [ -x "$build/cudnn-plans" ]; then
    run "plans of cuDNN" "$build/cudnn-plans" tests/cuda/h200.json
else
    echo "== plans of cuDNN"
    echo "SKIPPED: there is no nvcc, or there are no headers of cuDNN"
fi
run "examples" env BUILD_DIR="$build" tests/test_examples.sh
run "resume" env FOVEA="$build/fovea" tests/test_resume.sh
run "faults" env FOVEA="$build/fovea" SHIM="$build/fault.so" tests/test_faults.sh
run "benchmark scripts" env FOVEA="$build/fovea" tests/test_bench.sh
run "docs" env FOVEA="$build/fovea" tests/test_docs.sh
case ${build##*/} in
asan | tsan | debug | cov) ;; # only what is given to people is compared
*) run "two builds" tests/test_repro.sh "$build" ;;
esac
echo
echo "tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
