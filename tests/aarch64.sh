#!/usr/bin/env bash
# Build for aarch64 and run the unit tests of kernels and files under qemu, on a machine of another kind (make test-aarch64).
# usage: tests/aarch64.sh [SUITE...]   default: those below
# The libraries of that kind come as Debian's packages into a folder of their own, $BUILD/root: the system is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."
build=${BUILD:-build}/aarch64
root=$(realpath -m "$build")/root apt=$(realpath -m "$build")/apt
libraries=(libc6-dev libjansson-dev libyaml-dev libxxhash-dev zlib1g-dev libpng-dev libjpeg-dev libcurl4-openssl-dev check)
suites=("$@")
# not: parity_models, cuda, and others that take long under qemu and run the same lines
[ $# -gt 0 ] || suites=(core graph ops fuse parts winograd prepared precision recompute speedrun optim state io data_loader image)

if [ ! -e "$root/complete" ]; then
    rm -rf "$root" "$apt"
    mkdir -p "$root" "$apt/lists/partial" "$apt/archives/partial"
    touch "$apt/status" # of a system on which nothing is installed
    options=(-qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State="$apt" -o Dir::State::status="$apt/status"
             -o Dir::Cache="$apt" -o APT::Sandbox::User=root)
    echo "aarch64: fetching libraries into $build/root"
    apt-get "${options[@]}" update
    apt-get "${options[@]}" install --download-only -y --no-install-recommends "${libraries[@]}" >/dev/null
    for package in "$apt"/archives/*.deb; do dpkg-deb -x "$package" "$root"; done
    rm -rf "$apt"
    touch "$root/complete"
fi
make -s -j"${JOBS:-$(nproc)}" NO_DEPS=1 NVCC= CC="aarch64-linux-gnu-gcc --sysroot=$root" BUILD="$build" "$build/unit-tests" "$build/fovea"
emulated() { qemu-aarch64 -L "$root" "$@"; }
export CK_FORK=no FOVEA_TESTS_SHORT=1
emulated "$build/unit-tests" "${suites[@]}"
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
train=(train --data synthetic --fraction 0.01 --model resnet20 --img-size 16 -b 16 --epochs 2 --val-split 0.5 --threads 2 -q --output "$temp")
emulated "$build/fovea" "${train[@]}" --name run
emulated "$build/fovea" eval "$temp/run" --split test
echo "aarch64: unit tests, training and evaluation passed under qemu"
