#!/usr/bin/env bash
# Run nvcc and keep what ptxas -v says of each kernel's registers and memory (tests/cuda/spills.sh reads it); the rest of what
# it prints goes where it always went.
#   tests/cuda/keep_usage.sh FILE NVCC...
set -u
file=$1
shift
"$@" 2>"$file.new"
status=$?
grep -vE "^ptxas info +:|^    Function properties|^ *[0-9]+ bytes stack frame" "$file.new" >&2
[ $status -eq 0 ] && mv "$file.new" "$file"
exit $status
