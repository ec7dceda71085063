#!/usr/bin/env bash
# Put what fuzzing has found into the corpus: the smallest set of inputs below 2 kB that reaches every branch that any input reached.
# usage: tests/fuzz/merge.sh BUILD [TARGET...]      after tests/fuzz/run.sh with the same BUILD, such as build/fuzz
set -eu
cd "$(dirname "$0")/../.."
build=$1
shift
[ $# -gt 0 ] || mapfile -t all < <(sed -nE 's/^TARGET\((.*)\)$/\1/p' tests/fuzz/targets.def)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
for target in "${@:-${all[@]}}"; do
    corpus=tests/fuzz/corpus/$target
    mkdir -p "$temp/$target" "$build/corpus/$target"
    "$build/fuzz-$target" -set_cover_merge=1 -use_counters=0 -max_len=2000 "$temp/$target" "$corpus" "$build/corpus/$target" >"$temp/log" 2>&1 ||
        { tail -n 20 "$temp/log"; exit 1; }
    for file in "$corpus"/seed-*; do rm -f "$temp/$target/$(sha1sum <"$file" | cut -d ' ' -f 1)"; done
    rm -f "$corpus"/found-*
    for file in "$temp/$target"/*; do
        [ -f "$file" ] && cp "$file" "$corpus/found-$(basename "$file" | cut -c 1-12)"
    done
    echo "$target: $(find "$corpus" -type f | wc -l) files, $(cat "$corpus"/* | wc -c) bytes"
done
