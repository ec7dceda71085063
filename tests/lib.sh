# lib.sh: what the tests of the program from outside share; sourced, not run. It stops the test if there is no program.
#
# Afterwards: $fovea the program (FOVEA, default build/fovea), $root and $tests folders of the sources, and the test runs in an
# empty folder, $temp, that is removed at the end. Files of the last call: out and err of the program, check.out and check.err.
# A test ends with `totals`.
# shellcheck shell=bash
set -u
root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")
# shellcheck disable=SC2034 # for those who source this
tests=$root/tests
cd "$root" || exit 1
fovea=$(realpath "${FOVEA:-build/fovea}")
[ -x "$fovea" ] || { echo "${0##*/}: no program at $fovea"; echo "0 passed, 1 failed"; exit 1; }
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp" || exit 1
unset FOVEA_DATA
export TERM=dumb PYTHONDONTWRITEBYTECODE=1
passed=0 failed=0

needs_python() { # needs_python WHAT: all of the test is skipped without python3
    command -v python3 >/dev/null || { echo "SKIPPED: $1 (no python3)"; echo "0 passed, 0 failed"; exit 0; }
}
ok() { passed=$((passed + 1)); }
fail() { # fail MESSAGE
    local file
    failed=$((failed + 1))
    echo "FAILED: $1"
    for file in out err check.out check.err; do
        [ -s $file ] && tail -n 5 $file | cut -c 1-300 | sed "s/^/    $file: /"
    done
    return 0
}
# expect CODE FRAGMENT ARGS...: the program's exit code, and a text that standard output or error holds; an error has a message.
expect() {
    local code=$1 fragment=$2 got
    shift 2
    rm -f check.out check.err
    "$fovea" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then fail "fovea $*: exit code $got, not $code"
    elif [ -n "$fragment" ] && ! cat out err | grep -qF -- "$fragment"; then fail "fovea $*: no '$fragment' in what it says"
    elif [ "$code" -ne 0 ] && ! grep -q '^fovea' err; then fail "fovea $*: no error message"
    else ok; fi
}
check() { # check NAME COMMAND...: the command succeeds
    local name=$1
    shift
    if "$@" >check.out 2>check.err; then ok; else fail "$name"; fi
}
promise() { [[ ${wanted:-} == *" $1 "* ]] && echo "-- $1"; } # promise NAME: whether it is among those in $wanted
hash_of() { sed -nE '/"event": "done"/s/.*"hash": "([0-9a-f]{16})".*/\1/p' "$1"; } # hash_of FILE: of the run that printed it
add_totals() { # add_totals FILE: what another test printed, which ends with "N passed, M failed"
    local n m
    grep -vE '^[0-9]+ passed' "$1"
    read -r n m < <(sed -nE 's/^([0-9]+) passed, ([0-9]+) failed$/\1 \2/p' "$1" | tail -n 1)
    passed=$((passed + ${n:-0})) failed=$((failed + ${m:-1}))
}
totals() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
}
