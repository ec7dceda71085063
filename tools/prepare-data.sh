#!/usr/bin/env bash
# Prepare a folder for $FOVEA_DATA out of the project's shared data pack (CIFAR-10 as JPEG pack, MNIST, PngSuite, published
# weights).
# usage: tools/prepare-data.sh PACK_FOLDER DEST
# What is there already stays. Needs python3 with Pillow for the CIFAR-10 pack.
set -euo pipefail
pack=${1:?usage: tools/prepare-data.sh PACK_FOLDER DEST}
dest=${2:?usage: tools/prepare-data.sh PACK_FOLDER DEST}
mkdir -p "$dest"
if [ ! -f "$dest/mnist/train-images-idx3-ubyte.gz" ] && [ -f "$pack/mnist.tar" ]; then
    tar -xf "$pack/mnist.tar" -C "$dest"
fi
if [ ! -f "$dest/cifar10/lossless_test_0000-0999.png" ] && [ -f "$pack/cifar10/cifar10_lossless5k.tar" ]; then
    tar -xf "$pack/cifar10/cifar10_lossless5k.tar" -C "$dest"
fi
if [ ! -d "$dest/pngsuite" ] && [ -f "$pack/pngsuite.tar.xz" ]; then
    rm -rf "$dest/pngsuite.part"
    mkdir "$dest/pngsuite.part"
    tar -xJf "$pack/pngsuite.tar.xz" -C "$dest/pngsuite.part"
    mv "$dest/pngsuite.part/pngsuite" "$dest/pngsuite"
    rmdir "$dest/pngsuite.part"
fi
if [ ! -d "$dest/pretrained" ] && [ -d "$pack/pretrained" ]; then
    cp -r "$pack/pretrained" "$dest/pretrained.part"
    chmod -R u+w "$dest/pretrained.part"
    mv "$dest/pretrained.part" "$dest/pretrained"
fi
if [ ! -f "$dest/cifar10/test_batch.bin" ] && [ -f "$pack/cifar10/cifar10_q75.jpk" ]; then
    python=
    for p in python3 /usr/bin/python3; do # the first in the path need not be the one that Debian's package serves
        if "$p" -c 'import PIL' 2>/dev/null; then python=$p && break; fi
    done
    if [ -n "$python" ]; then
        rm -rf "$dest/cifar10.part"
        mkdir -p "$dest/cifar10.part" "$dest/cifar10"
        "$python" "$pack/cifar10/unpack_cifar10.py" "$pack/cifar10/cifar10_q75.jpk" "$dest/cifar10.part"
        mv "$dest/cifar10.part"/* "$dest/cifar10/"
        rmdir "$dest/cifar10.part"
    else
        echo "prepare-data: python3 has no Pillow (apt-get install python3-pil): CIFAR-10 is left out" >&2
    fi
fi
printf 'prepare-data: %s holds:' "$dest"
printf ' %s' "$dest"/*
echo
