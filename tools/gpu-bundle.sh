#!/usr/bin/env bash
# The last part of `make gpu-bundle`: put libraries that are not linked in beside the programs, copy data and the peers, and check
# that the folder can be carried: nothing is needed from outside it but the C library, and it is not too large.
#   tools/gpu-bundle.sh FOLDER COMMIT ARCHS      PACK, PEER: see cuda/bundle.mk.  LIMIT: MiB, compressed (default 64)
set -euo pipefail
folder=$1 commit=$2 archs=$3
programs=(fovea unit-tests libfovea-cuda.so gpu-ceilings unpack-cifar10)
from_c='^(linux-vdso|ld-linux[^/]*|libc|libm|libdl|libpthread|librt)\.so'
needed() { ldd "$folder/$1" | awk '$2 == "=>" { print $1, $3 "" $4 }' | grep -vE "$from_c" || true; }

for program in "${programs[@]}"; do
    while read -r name path; do
        [ -e "$folder/$name" ] && continue
        [ -e "$path" ] || { echo "gpu-bundle: $program needs $name, which is not here" >&2; exit 1; }
        cp -L "$path" "$folder/$name"
    done < <(needed "$program")
done
for program in "${programs[@]}"; do
    if needed "$program" | grep -vF "$(realpath "$folder")/"; then
        echo "gpu-bundle: that is needed by $program from outside $folder" >&2
        exit 1
    fi
done

rm -rf "$folder/pack" "$folder/peer.py" "$folder/peers"
mkdir "$folder/peers"
cp "$(dirname "$0")"/../tests/peers/{train_torch_speedrun,models}.py "$folder/peers/" # the original recipe of the speed run
if [ -n "${PACK:-}" ]; then
    mkdir -p "$folder/pack/cifar10"
    cp "$PACK"/cifar10/cifar10_q75.jpk "$PACK"/cifar10/unpack_cifar10.py "$PACK"/cifar10/SHA256SUMS.bins "$folder/pack/cifar10/"
    chmod -R u+w "$folder/pack"
fi
if [ -n "${PEER:-}" ]; then cp "$PEER" "$folder/peer.py"; fi
printf 'commit %s\nkernels for %s\n' "$commit" "$archs" >"$folder/about.txt"

bytes=$(tar -C "$folder" -cf - . | gzip -1 | wc -c)
echo "$folder: $((bytes >> 20)) MiB, compressed: $(cd "$folder" && echo *)"
[ $((bytes >> 20)) -lt "${LIMIT:-64}" ] || { echo "gpu-bundle: that is more than ${LIMIT:-64} MiB" >&2; exit 1; }
