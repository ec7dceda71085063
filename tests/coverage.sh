#!/usr/bin/env bash
# Branch coverage: everything that is quick enough runs in a build that counts (KIND=cov), then gcovr adds up.
# usage: BUILD_DIR=build/cov tests/coverage.sh; what counts and what does not: docs/reliability.md, "Branch coverage".
# BUILD_DIR/coverage.json holds the counts afterwards; "tests/coverage.py FILE.json data/idx.c" lists what no test reached.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$(realpath "$BUILD_DIR")
logs=$build/coverage
failed=0
rm -rf "$logs" && mkdir -p "$logs"
find "$build/obj" -name '*.gcda' -delete
unset FOVEA_DATA # the same figures with and without the published sets
export FOVEA=$build/fovea SHIM=$build/fault.so FOVEA_TESTS_SHORT=1

run() { # run NAME COMMAND...
    local name=$1 start=$SECONDS
    shift
    if "$@" >"$logs/$name.log" 2>&1; then echo "coverage: $name: $((SECONDS - start)) s"
    else
        echo "coverage: $name FAILED:"
        grep -E 'FAILED|:[FE]:|passed,|Checks:|rror' "$logs/$name.log" | tail -n 20
        return 1
    fi
}
# The counters are written when a process ends, some 200 files of them: so not a process for each unit test.
in_process() {
    local suites bad=0
    # whole models against PyTorch: a minute for nothing that the other suites do not reach
    mapfile -t suites < <(sed -nE 's/^SUITE\((.*)\)$/\1/p' tests/suites.def | grep -vx parity_models)
    run unit-tests env CK_FORK=no "$build/unit-tests" "${suites[@]}" || bad=1
    run fuzz-replay "$build/fuzz-replay" || bad=1
    return $bad
}
in_shell() {
    local bad=0 test
    for test in cli exit_codes completion data_files multilabel docs faults; do run "test_$test.sh" "tests/test_$test.sh" || bad=1; done
    run test_resume.sh tests/test_resume.sh R8 || bad=1 # who is killed counts nothing
    return $bad
}
in_process & unit=$!
in_shell || failed=1
wait $unit || failed=1

gcovr --root . --object-directory "$build/obj" --exclude tests/ --exclude examples/ --json "$build/coverage.json" "$build/obj" 2>"$logs/gcovr.log" ||
    { cat "$logs/gcovr.log"; exit 1; }
tests/coverage.py "$build/coverage.json" --least core/io=90 --least data=90 --least all=80 || failed=1
exit $failed
