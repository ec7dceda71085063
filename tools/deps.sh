#!/usr/bin/env bash
# Install what is missing to build (and, with --test, to test; with --lint, to check; with --aarch64,
# to test for that processor) Fovea on Debian or Ubuntu.
# Elsewhere it only says what is missing. Does nothing, and needs neither root nor network, when all is there.
set -euo pipefail
packages=(gcc make pkg-config libc6-dev libjansson-dev libyaml-dev libxxhash-dev zlib1g-dev libpng-dev libjpeg-dev
          libcurl4-openssl-dev libcurl4)
for arg in "$@"; do
    case $arg in
    --test) packages+=(check g++ clang python3 python3-pil strace mandoc zsh fish libwebp7 patch) ;;
    --lint) packages+=(clang clang-format clang-tidy cppcheck shellcheck gcovr doxygen man-db)
        # the sanitizers of clang; in older Ubuntus they come with clang
        if grep -qx 'ID=debian' /etc/os-release || apt-cache show libclang-rt-dev; then packages+=(libclang-rt-dev); fi >/dev/null 2>&1 ;;
    --aarch64) packages+=(gcc-aarch64-linux-gnu qemu-user) ;;
    *) echo "usage: tools/deps.sh [--test] [--lint] [--aarch64]" >&2; exit 2 ;;
    esac
done
if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "deps: this is not Debian or Ubuntu. Install what these packages hold, by your system's names, then build with" >&2
    echo "deps: 'make NO_DEPS=1 all': ${packages[*]}" >&2
    exit 1
fi
missing=()
for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} -eq 0 ] && exit 0
sudo=
if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null 2>&1; then
        echo "deps: missing: ${missing[*]}; become root and run: apt-get install ${missing[*]}" >&2
        exit 1
    fi
    sudo=sudo
fi
echo "deps: installing ${missing[*]}"
$sudo env DEBIAN_FRONTEND=noninteractive apt-get update -qq
$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
