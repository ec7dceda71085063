#!/usr/bin/env bash
# Run every test of one build, several suites at once, and end with the totals.
# BUILD_DIR: where the build lies (default build). JOBS: suites at once (default: processors).
# Data: $FOVEA_DATA if set; tests that need what is not there say SKIPPED.
set -u
cd "$(dirname "$0")/.." || exit 1
build=${BUILD_DIR:-build}
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
export FOVEA=$build/fovea EMULATED=$build/emulated SHIM=$build/fault.so BUILD_DIR=$build logs

plans_of_cudnn() {
    if [ -x "$BUILD_DIR/cudnn-plans" ]; then "$BUILD_DIR/cudnn-plans" tests/cuda/h200.json
    else echo "SKIPPED: there is no nvcc, or there are no headers of cuDNN"; echo "0 passed, 0 failed"; fi
}
export -f plans_of_cudnn

# Title and command, those that take longest first.
suites=(
    "unit tests|$build/unit-tests"
    "faults|tests/test_faults.sh"
    "resume|tests/test_resume.sh"
    "device cuda|tests/test_cuda.sh"
    "two builds|tests/test_repro.sh $build"
    "plans of cuDNN|plans_of_cudnn"
    "registers of kernels|tests/cuda/spills.sh $build"
    "docs|tests/test_docs.sh"
    "command line|tests/test_cli.sh"
    "data command|tests/test_data_files.sh"
    "exit codes|tests/test_exit_codes.sh"
    "completion|tests/test_completion.sh"
    "recipes|tests/test_recipes.sh"
    "several labels, freezing|tests/test_multilabel.sh"
    "test-time augmentation|tests/test_tta.sh"
    "examples|tests/test_examples.sh"
    "benchmark scripts|tests/test_bench.sh"
)

# Add a runner's totals to the file of sums: Check's "97%: Checks: 30, Failures: 1, Errors: 0" or "30 passed, 1 failed".
count() { # count LOG STATUS
    local line status=$2 good=0 bad=0
    if line=$(grep -E '^[0-9]+%: Checks: ' "$1" | tail -n 1) && [ -n "$line" ]; then
        local n f e
        read -r n f e < <(sed -E 's/.*Checks: ([0-9]+), Failures: ([0-9]+), Errors: ([0-9]+).*/\1 \2 \3/' <<<"$line")
        bad=$((f + e)) good=$((n - f - e))
    elif line=$(grep -E '^([a-z]+: )?[0-9]+ passed, [0-9]+ failed' "$1" | tail -n 1) && [ -n "$line" ]; then
        read -r good bad < <(sed -E 's/^([a-z]+: )?([0-9]+) passed, ([0-9]+) failed.*/\2 \3/' <<<"$line")
    else
        bad=1
    fi
    [ "$status" -ne 0 ] && [ "$bad" -eq 0 ] && bad=1
    echo "$good $bad" >>"$logs/sums"
}
suite() { # suite "TITLE|COMMAND": what it prints comes whole, when it has ended
    local title=${1%%|*} start=$SECONDS log status
    log=$(mktemp "$logs/suite.XXXXXX")
    ${1#*|} >"$log" 2>&1
    status=$?
    {
        flock 9
        echo "== $title ($((SECONDS - start)) s)"
        cat "$log"
        count "$log" $status
    } 9>"$logs/lock"
}
export -f suite count

case ${build##*/} in
asan | tsan | debug | cov) mapfile -t suites < <(printf '%s\n' "${suites[@]}" | grep -v '^two builds') ;; # only what people get is compared
esac
printf '%s\0' "${suites[@]}" | xargs -0 -P "${JOBS:-$(nproc)}" -I{} bash -c 'suite "$1"' suite {}
read -r ran passed failed < <(awk '{ good += $1; bad += $2 } END { print NR + 0, good + 0, bad + 0 }' "$logs/sums")
failed=$((failed + ${#suites[@]} - ran))
echo
echo "tests: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
