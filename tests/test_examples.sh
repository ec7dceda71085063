#!/usr/bin/env bash
# The example programs run, learn, and agree with the program; the library exports fv_* only; install works.
set -u
cd "$(dirname "$0")/.." || exit 1
build=$(cd "${BUILD_DIR:-build}" && pwd)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
passed=0 failed=0
check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@"; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: $name"
    fi
}

loss_falls() { # the training loop's last loss is below its first
    (cd "$temp" && "$build/example-train" synthetic 2) >"$temp/train.txt" || return 1
    awk '/^epoch/ { if (!n++) first = $4; last = $4 } END { exit !(n == 2 && last < first) }' "$temp/train.txt"
}
classifies() { # a saved model names a class for a picture
    (cd "$temp" && "$build/fovea" train --data synthetic --fraction 0.05 --model mlp --epochs 1 -b 32 -q --name tiny) >/dev/null 2>&1 &&
        head -c 3072 /dev/zero | "$build/example-classify" "$temp/runs/tiny/weights/best" | grep -q .
}
only_fv_symbols() { ! nm -D --defined-only "$build/libfovea.so" | awk '{print $3}' | grep -vE '^fv_' | grep -q .; }
installs() {
    make --no-print-directory NO_DEPS=1 install DESTDIR="$temp/root" PREFIX=/usr >/dev/null &&
        "$temp/root/usr/bin/fovea" version >/dev/null &&
        cc -std=c11 -Wall -Werror -I"$temp/root/usr/include/fovea" -x c - -o "$temp/user" -L"$temp/root/usr/lib" -lfovea <<<'
#include <fovea.h>
int main(void) { return fv_model_find("resnet20") ? 0 : 1; }' &&
        LD_LIBRARY_PATH="$temp/root/usr/lib" "$temp/user" &&
        make --no-print-directory NO_DEPS=1 uninstall DESTDIR="$temp/root" PREFIX=/usr >/dev/null &&
        [ -z "$(find "$temp/root" -type f)" ]
}
names_its_commit() { # version says which commit it was built from (where there is a git to ask)
    local commit
    commit=$(git rev-parse --short HEAD 2>/dev/null) || return 0
    "$build/fovea" version | grep -q "$commit"
}
is_small() { # the stripped program is at most 3 MB
    strip -o "$temp/stripped" "$build/fovea" && [ "$(stat -c %s "$temp/stripped")" -le 3000000 ]
}

check "training loop" loss_falls
check "version names the commit" names_its_commit
check "image to label" classifies
check "libfovea.so exports only fv_*" only_fv_symbols
if [ "$build" = "$(pwd)/build" ]; then
    check "install, use, uninstall" installs
    check "stripped program at most 3 MB" is_small
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
