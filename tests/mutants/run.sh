#!/usr/bin/env bash
# Does each test notice when the promise it stands for is broken? Every patch of this folder breaks one, in a copy of the tree; the
# test that it names must fail then, and must pass without it. Header lines of a patch:
#
#   Promise: R5                      see docs/reliability.md
#   Breaks: what the patch does
#   Test: unit-tests state           a command, run in the copy; unit-tests is in its PATH; FOVEA, SHIM and BUILD_DIR are set
#
# usage: run.sh [NAME...]      only patches whose names begin so, as R5 or R8-ema (default: all)
# MUTANTS_DIR: where to put the copy (default: a temporary folder, removed at the end); a second run there builds less.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
jobs=${MUTANTS_JOBS:-2} most=600 # seconds for one test
if [ -n "${MUTANTS_DIR:-}" ]; then mkdir -p "$MUTANTS_DIR" && tree=$(realpath "$MUTANTS_DIR")/tree; else
    temp=$(mktemp -d)
    trap 'rm -rf "$temp"' EXIT
    tree=$temp/tree
fi
unset MAKEFLAGS MFLAGS MAKELEVEL
caught=0 bad=0
declare -A passes # test command -> whether it passes on the tree as it is

say() { printf '%s\n' "$*"; }
header() { sed -nE "s/^$2: +//p" "$1" | head -n 1; }
chosen() { # chosen FILE ARGS...: whether one of the arguments begins its name, up to a dash or the end
    local name=$1 wish
    shift
    [ $# -eq 0 ] && return 0
    for wish in "$@"; do [[ $name == "$wish" || $name == "$wish"-* ]] && return 0; done
    return 1
}
# The emulated GPU takes a minute to compile: only for those who break what it tests.
build() {
    local device=()
    [ "${names[*]/R21/}" = "${names[*]}" ] || device=(b/emulated/libfovea-cuda.so)
    make -s -j"$jobs" -C "$tree" NO_DEPS=1 BUILD=b COMMIT=mutants b/fovea b/fault.so b/unit-tests "${device[@]}" >"$tree.log" 2>&1
}
run_test() { # run_test COMMAND
    (cd "$tree" && PATH=$tree/b:$PATH FOVEA=b/fovea SHIM=b/fault.so BUILD_DIR=b EMULATED=b/emulated CK_VERBOSITY=minimal timeout -k 5 $most bash -c "$1") >"$tree.log" 2>&1
}
apply() { patch -p1 -s -f -N --no-backup-if-mismatch -d "$tree" "$@" >"$tree.log" 2>&1; }

# In a copy that is already there only files that differ are replaced, and they count as new: make goes by their times.
refresh() {
    local file
    rm -rf "$tree.new"
    mkdir -p "$tree" "$tree.new"
    tar -C "$root" --exclude=./build --exclude=./b --exclude=./.git --exclude=./runs --exclude=./datasets -cf - . | tar -xmf - -C "$tree.new"
    (cd "$tree" && find . -path ./b -prune -o -type f -print) | while IFS= read -r file; do
        [ -e "$tree.new/$file" ] || rm -f "$tree/$file"
    done
    (cd "$tree.new" && find . -type f) | while IFS= read -r file; do
        cmp -s "$tree.new/$file" "$tree/$file" && continue
        mkdir -p "$tree/${file%/*}"
        cp -p "$tree.new/$file" "$tree/$file"
    done
    rm -rf "$tree.new"
}

names=()
for file in "$here"/*.patch; do
    name=$(basename "$file" .patch)
    chosen "$name" "$@" && names+=("$name")
done
[ ${#names[@]} -eq 0 ] && { say "mutants: no patch has such a name"; exit 2; }
refresh
say "mutants: building the tree as it is"
build || { tail -n 5 "$tree.log"; say "mutants: the tree does not build"; exit 1; }

for name in "${names[@]}"; do
    test=$(header "$here/$name.patch" Test)
    [ -n "${passes[$test]:-}" ] && continue
    started=$SECONDS
    if [ -n "$test" ] && run_test "$test"; then passes[$test]=yes; else
        passes[$test]=no
        tail -n 5 "$tree.log" | sed 's/^/    /'
    fi
    say "as it is: $test: $([ "${passes[$test]}" = yes ] && echo passes || echo FAILS) ($((SECONDS - started)) s)"
done

for name in "${names[@]}"; do
    file=$here/$name.patch test=$(header "$here/$name.patch" Test) verdict=
    started=$SECONDS
    if [ "${passes[$test]}" != yes ]; then verdict="NOT TRIED: its test fails without it"
    elif ! apply --dry-run <"$file"; then verdict="DOES NOT APPLY"
    else
        apply <"$file"
        if ! build; then verdict="DOES NOT BUILD"
        elif run_test "$test"; then verdict="SURVIVED $test"
        else
            say "mutant $name: caught by $test ($((SECONDS - started)) s)"
            caught=$((caught + 1))
        fi
        patch -p1 -s -f -R --no-backup-if-mismatch -d "$tree" <"$file" >/dev/null 2>&1 || { say "mutants: $name cannot be taken back"; exit 1; }
    fi
    if [ -n "$verdict" ]; then
        say "mutant $name: $verdict"
        sed 's/^/    /' "$tree.log" | tail -n 5
        bad=$((bad + 1))
    fi
done
say "mutants: $caught caught, $bad not"
[ "$bad" -eq 0 ]
