#!/usr/bin/env bash
# Train something real in under five minutes: CIFAR-10 if it is there, else a download, else the synthetic set.
# usage: tools/demo.sh PROGRAM
set -u
fovea=$1
root=${FOVEA_DATA:-datasets}
if "$fovea" data check cifar10 >/dev/null 2>&1; then
    echo "demo: CIFAR-10 from $root"
    data=cifar10 epochs=4
elif timeout 240 "$fovea" data get cifar10; then
    echo "demo: CIFAR-10, downloaded to $root"
    data=cifar10 epochs=4
else
    echo "demo: CIFAR-10 is neither in $root nor to be had from the network now; training on the built-in synthetic set"
    data=synthetic epochs=15
fi
"$fovea" train --data $data --model resnet20 --epochs $epochs -b 128 --lr 0.2 --warmup-epochs 1 --seed 0 --name demo
