#!/usr/bin/env bash
# The scripts around `fovea bench`, without their timing: how bench_quick.sh judges, and what tests/peers/bench.sh writes.
# FOVEA: the program (default build/fovea).
# shellcheck disable=SC2015,SC2016
set -u
cd "$(dirname "$0")/.." || exit 1
fovea=$(realpath "${FOVEA:-build/fovea}")
[ -x "$fovea" ] || { echo "test_bench.sh: no program at $fovea"; echo "0 passed, 1 failed"; exit 1; }
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
passed=0 failed=0
ok() { passed=$((passed + 1)); }
fail() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    head -n 8 "$temp/out" | sed 's/^/    /'
}
# expect CODE FRAGMENT NAME COMMAND...
expect() {
    local code=$1 fragment=$2 name=$3 got
    shift 3
    "$@" >"$temp/out" 2>&1 </dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then fail "$name: exit code $got, not $code"
    elif ! grep -qF -- "$fragment" "$temp/out"; then fail "$name: no '$fragment'"
    else ok; fi
}

# ---------------------------------------------------------------- bench-quick: the comparison
export FOVEA_QUICK_BASELINE=$temp/baseline.txt FOVEA_QUICK_MEASURED=$temp/measured FOVEA_QUICK_MACHINE="cpu avx2 x2, Some CPU"
quick() { tests/bench_quick.sh "$fovea"; }
measured() { printf '%s\n' "$@" >"$temp/measured"; }
measured "resnet20:128 10" "vit:32 2"
expect 0 "nothing is recorded" "no baseline yet" quick
RECORD=1 expect 0 "recorded for 'cpu avx2 x2, Some CPU'" "record" quick
expect 0 "+0.0%" "the same again" quick
measured "resnet20:128 8.6" "vit:32 2.5"
expect 0 "-14.0%" "14 % slower passes" quick
measured "resnet20:128 8.4" "vit:32 2.5"
expect 10 "SLOWER" "16 % slower fails" quick
grep -q "make bench-quick RECORD=1" "$temp/out" && ok || fail "it says how to record anew"
grep -q "vit:32.*SLOWER" "$temp/out" && fail "only what is slower is called so" || ok
FOVEA_QUICK_MACHINE="cpu avx512 x2, Some CPU" RECORD=1 expect 0 "recorded" "record another machine" quick
expect 10 "SLOWER" "each machine has its own ratios" quick
FOVEA_QUICK_MACHINE="cpu avx512 x2, Some CPU" expect 0 "+0.0%" "the other machine compares with its own" quick
RECORD=1 expect 0 "recorded" "record anew" quick
expect 0 "+0.0%" "what is recorded anew counts" quick
[ "$(wc -l <"$temp/baseline.txt")" -eq 4 ] && ok || fail "a ratio per machine and case: $(cat "$temp/baseline.txt")"
measured
: >"$temp/measured"
expect 1 "nothing was measured" "nothing measured" quick
unset FOVEA_QUICK_MEASURED FOVEA_QUICK_MACHINE
export FOVEA_QUICK_SECONDS=0.05 FOVEA_QUICK_ROUNDS=1 FOVEA_QUICK_CASES="lenet5:8 nosuch:8"
RECORD=1 expect 0 "no model nosuch in this version" "measure and record" quick
grep -qP "^cpu .*\tlenet5:8\t[0-9.]+\t" "$temp/baseline.txt" && ok || fail "the ratio is recorded: $(cat "$temp/baseline.txt")"

# ---------------------------------------------------------------- bench.sh: without peers, and with one that fails
export FOVEA_BENCH_OUT=$temp/page.md FOVEA_BENCH_SECONDS=0.02 FOVEA_BENCH_RUNS=2 FOVEA_BENCH_BF16=0
export FOVEA_BENCH_CASES="lenet5:train:8:28:float32 lenet5:infer:1:28:float32 nosuch:infer:8:28:float32"
printf 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n' >"$temp/page.md"
FOVEA_PEER_PYTHON=false expect 0 "left out: PyTorch" "without peers" tests/peers/bench.sh "$fovea"
grep -q "requirements.txt" "$temp/out" && ok || fail "it says how to get them"
[ "$(sed -n '1p;$p' "$temp/page.md" | paste -sd' ')" = "before after" ] && ok || fail "the text around the markers stays"
grep -q "^old" "$temp/page.md" && fail "the old table goes" || ok
[ "$(grep -cE '^\| lenet5 \| (8|1) \| float32 \| [0-9.]+ \([0-9.]+–[0-9.]+\) \| – ' "$temp/page.md")" -eq 2 ] && ok || fail "a row per case: $(cat "$temp/page.md")"
grep -q "left out:.*nosuch infer" "$temp/page.md" && ok || fail "the page says what was left out"
printf '#!/bin/sh\n[ "$1" != -c ] || exit 0\necho "no such luck" >&2\nexit 1\n' >"$temp/python"
chmod +x "$temp/python"
FOVEA_PEER_PYTHON=$temp/python expect 0 "failed: no such luck" "a peer that fails is reported" tests/peers/bench.sh "$fovea"
grep -q "^| lenet5 | 8 .*failed: no such luck" "$temp/page.md" && ok || fail "in its row"
printf 'no markers\n' >"$temp/page.md"
FOVEA_PEER_PYTHON=false expect 1 "has no markers" "a page without markers" tests/peers/bench.sh "$fovea"
[ "$(cat "$temp/page.md")" = "no markers" ] && ok || fail "it stays as it was"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
