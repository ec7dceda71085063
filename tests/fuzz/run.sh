#!/usr/bin/env bash
# Fuzz one target for a while. New inputs that reach new code go to BUILD/corpus/TARGET, what fails to BUILD/found/.
# usage: tests/fuzz/run.sh BUILD TARGET [SECONDS]
set -eu
cd "$(dirname "$0")/../.."
build=$1 target=${2:-} seconds=${3:-60}
if [ ! -x "$build/fuzz-$target" ] || [ -z "$target" ]; then
    echo "usage: make fuzz-run TARGET=NAME SECONDS=60; NAME is one of: $(sed -nE 's/^TARGET\((.*)\)$/\1/p' tests/fuzz/targets.def | xargs)" >&2
    exit 2
fi
mkdir -p "$build/corpus/$target" "$build/found"
options=(-max_total_time="${seconds:-60}" -timeout=5 -rss_limit_mb=2048 -malloc_limit_mb=512 -print_final_stats=1 -use_value_profile=1
         -artifact_prefix="$build/found/$target-")
[ -f "tests/fuzz/$target.dict" ] && options+=(-dict="tests/fuzz/$target.dict")
case $target in # the largest input: what a file of this kind needs to be of interest
cifar | cifar_python | archive) options+=(-max_len=12288) ;;
image) options+=(-max_len=16384) ;;
*) options+=(-max_len=4096) ;;
esac
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1
exec nice -n 15 "$build/fuzz-$target" "${options[@]}" "$build/corpus/$target" "tests/fuzz/corpus/$target"
