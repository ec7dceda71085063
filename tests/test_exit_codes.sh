#!/usr/bin/env bash
# One bad file of each format that Fovea reads: the right exit code, a message that names the file and the place in it, the same in
# JSON, nothing that a terminal would obey, and at once. The cases of one format are in the unit tests; these are the program's.
# FOVEA: the program (default build/fovea). Needs no data: files are made here, from tests/vectors and from the fuzz corpus.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
corpus=$tests/fuzz/corpus vectors=$tests/vectors
most_seconds=1 TIMEFORMAT='%U %S'

# refused CODE FRAGMENT FILE ARGS...: the code, a message that holds the fragment and names the file.
refused() {
    local code=$1 fragment=$2 file=$3 got
    shift 3
    { time timeout 20 "$fovea" "$@" --json >out 2>err </dev/null; } 2>cpu
    got=$?
    if [ "$got" -ne "$code" ]; then fail "fovea $*: exit code $got, not $code"
    elif ! grep -qE '^fovea( [a-z]+)?: error: ' err; then fail "fovea $*: no error message"
    elif ! grep -qF -- "$fragment" err; then fail "fovea $*: no '$fragment' in the message"
    elif ! grep -qF -- "$file" err; then fail "fovea $*: the message does not name $file"
    elif LC_ALL=C grep -q $'[\x01-\x08\x0b-\x1f\x7f]' err; then fail "fovea $*: control characters in the message"
    elif ! grep -E '"event": *"error"' out | grep -qE "\"code\": *${code}[,}]"; then fail "fovea $*: --json tells of no error of code $code"
    elif ! awk -v most="$most_seconds" '{ exit !($1 + $2 <= most) }' cpu; then fail "fovea $*: $(cat cpu) seconds of user and system time"
    else ok; fi
}
train() { printf '%s\n' train --model lenet5 -b 2 --epochs 1 --val-split 0 --name run --quiet "$@"; }
# data CODE FRAGMENT FILE SET [ARGS...]: training on this set is refused.
data() {
    local code=$1 fragment=$2 file=$3 set=$4
    shift 4
    mapfile -t words < <(train --data "$set" --data-dir . "$@")
    refused "$code" "$fragment" "$file" "${words[@]}"
}
number() { printf "\\x$(printf %02x $(($1 >> 24 & 255)))\\x$(printf %02x $(($1 >> 16 & 255)))\\x$(printf %02x $(($1 >> 8 & 255)))\\x$(printf %02x $(($1 & 255)))"; }

# ---------------------------------------------------------------- CIFAR, binary: 3
record() { printf "\\x$(printf %02x "$1")"; head -c 3072 /dev/zero; } # record LABEL
mkdir cifar10
for f in data_batch_{1..5} test_batch; do (record 1; record 2; record 3) >cifar10/$f.bin; done
head -c 9000 cifar10/test_batch.bin >cifar10/data_batch_2.bin
data 3 "no multiple of a record" data_batch_2.bin cifar10
(record 1; record 200) >cifar10/data_batch_2.bin
data 3 "record 1 has label 200" data_batch_2.bin cifar10
data 3 "(at byte 3073)" data_batch_2.bin cifar10
: >cifar10/data_batch_2.bin
data 3 "is empty" data_batch_2.bin cifar10
cp cifar10/test_batch.bin cifar10/data_batch_2.bin
printf 'a\nb\n' >cifar10/batches.meta.txt
data 3 "2 class names; 10 were expected" batches.meta.txt cifar10
printf 'a\033[2Jb\n' >cifar10/batches.meta.txt
data 3 "a control character" batches.meta.txt cifar10
rm -r cifar10

# ---------------------------------------------------------------- CIFAR, python: 3, with the offset
mkdir cifar-10-batches-py
for f in data_batch_{1..5} test_batch; do cp "$vectors/pickles/python2.pkl" cifar-10-batches-py/$f; done
head -c 3000 "$vectors/pickles/python2.pkl" >cifar-10-batches-py/data_batch_4
data 3 "pickle: truncated (at byte " data_batch_4 cifar10
cp "$vectors/pickles/hostile.pkl" cifar-10-batches-py/data_batch_4
data 3 "nothing in a pickle is ever executed" data_batch_4 cifar10
printf 'N.' >cifar-10-batches-py/data_batch_4
data 3 "'data' and 'labels'" data_batch_4 cifar10
rm -r cifar-10-batches-py

# ---------------------------------------------------------------- IDX, plain and packed: 3
mkdir mnist
labels() { printf '\0\0\x08\x01'; number "$1"; head -c "$1" /dev/zero; }
images() { printf '\0\0\x08\x03'; number "$1"; number 28; number 28; head -c $((784 * $1)) /dev/zero; }
for s in train t10k; do labels 4 >mnist/$s-labels-idx1-ubyte; images 4 >mnist/$s-images-idx3-ubyte; done
file=mnist/train-images-idx3-ubyte
images 4 | head -c 3000 >$file
data 3 "more than the file can hold" train-images mnist
(images 4; printf x) >$file
data 3 "more bytes follow" train-images mnist
images 3 >$file
data 3 "3 images, but" train-images mnist
(printf '\0\0\x0d\x03'; images 4 | tail -c +5) >$file
data 3 "magic number 0x00000d03" train-images mnist
images 4 | gzip -n | head -c 40 >$file
data 3 "truncated gzip" train-images mnist
(printf '\0\0\x08\x01'; number 4; printf '\x01\x02\x0b\x03') >mnist/train-labels-idx1-ubyte
images 4 >$file
data 3 "record 2 has label 11" train-labels mnist
rm -r mnist

# ---------------------------------------------------------------- lists and splits: 3, with the line
tail -c +2 "$corpus/image/seed-jpeg_colour" >good.jpg
list() { printf "$1" >list.csv; data 3 "$2" list.csv list.csv --img-size 16; } # list CONTENTS FRAGMENT
list 'good.jpg,cat\nother.jpg,dog\n' "line 2 'other.jpg'"
list 'good.jpg,cat\ngood.jpg,dog\n' "line 2: 'good.jpg' stands in line 1 already"
list 'path,label\ngood.jpg,"cat\n' "line 2: a quote is opened and never closed"
list 'good.jpg;cat\n' "1 columns"
list 'good.jpg,cat\nb.jpg,dog,train\n' "line 2: 3 columns, where the first line has 2"
list 'good.jpg,cat,training\n' "line 1: the split is 'training'"
list 'good.jpg,c\033[31mat\n' "line 1: the label"
list '' "lists no pictures"
printf 'good.jpg,\0cat\n' >list.csv
data 3 "holds a byte 0" list.csv list.csv --img-size 16
for i in 1 2 3 4; do mkdir -p photos/a photos/b; cp good.jpg photos/a/$i.jpg; cp good.jpg photos/b/$i.jpg; done
printf 'a/1.jpg,train\na/2.jpg,nowhere\n' >split.csv
data 3 "line 2: the part is 'nowhere'" split.csv photos --img-size 16 --split-file split.csv
printf 'a/1.jpg,train\n' >split.csv
data 3 "7 pictures" split.csv photos --img-size 16 --split-file split.csv

# ---------------------------------------------------------------- pictures: 3, naming the file
picture() { # picture FRAGMENT: photos/a/3.jpg comes from standard input
    cat >photos/a/3.jpg
    data 3 "$1" a/3.jpg photos --img-size 16 --val-split 0 --test-split 0 --cache ram
}
picture "JPEG" < <(head -c 720 good.jpg)
picture "JPEG" < <(head -c 100 good.jpg)
picture "PNG" < <(tail -c +2 "$corpus/image/seed-png_grey" | head -c 60)
picture "30000 x 30000" < <(tail -c +2 "$corpus/image/seed-png_huge")
picture "WebP" < <(tail -c +2 "$corpus/image/seed-webp_lossy" | head -c 100)
picture "is a GIF" < <(tail -c +2 "$corpus/image/seed-gif")
picture "0 bytes" </dev/null
rm photos/a/3.jpg

# ---------------------------------------------------------------- models: 4
"$fovea" train --data synthetic --model lenet5 --epochs 1 --fraction 0.05 --name good --quiet >out 2>err || fail "a model to be damaged"
weights=runs/good/weights/last/model.safetensors size=$(stat -c %s runs/good/weights/last/model.safetensors)
model() { refused 4 "$1" "$2" eval "$3" --data synthetic --model lenet5; } # model FRAGMENT FILE ARGUMENT
head -c $((size - 1)) $weights >cut.safetensors
model "do not lie in the data section" cut.safetensors cut.safetensors
head -c 5 $weights >cut.safetensors
model "shorter than 8 bytes" cut.safetensors cut.safetensors
cp $weights flip.safetensors
printf '\xff' | dd of=flip.safetensors bs=1 seek=$((size - 3)) conv=notrunc 2>/dev/null
model "damaged" flip.safetensors flip.safetensors
printf '\xff\xff\xff\xff\xff\xff\xff\x7f{}' >long.safetensors
model "the header does not fit" long.safetensors long.safetensors
model "tensor" seed-types "$corpus/safetensors/seed-types"
cp -r runs/good/weights/last broken
head -c 100 runs/good/weights/last/config.json >broken/config.json
model "not valid JSON: line " broken/config.json broken
head -c 20000 /dev/zero | tr '\0' '[' >broken/config.json
model "depth" broken/config.json broken
head -c 3000000 /dev/zero | tr '\0' ' ' >broken/config.json
model "more than expected" broken/config.json broken
printf '{"architecture": "lenet5", "input_size": [3, -1, 32]}' >broken/config.json
model "input_size" broken/config.json broken

# ---------------------------------------------------------------- options from a file: 2, with the line
options() { printf "$1" >options.yaml; refused 2 "$2" options.yaml train -c options.yaml; } # options CONTENTS FRAGMENT
options 'data: synthetic\nepochs: [1\n' "line "
options 'data: synthetic\nepoch: 1\n' "line 2: unknown key 'epoch'"
options 'data: synthetic\nlr: fast\n' "line 2: lr must be a number"
options 'data: synthetic\nmean: &a [0.5]\nstd: *a\n' "line 3: aliases"
options 'data: "a\\0b"\n' "line 1: there is a zero byte"
options 'data: \xff\xfe\n' "line 1"
options "name: '\\\\033[2J'\nsched: \"\\\\e[2J\"\n" "line 2"
(printf 'mean: ['; yes 1, | head -n 200000; printf '1]\n') >options.yaml
refused 2 "takes at most" options.yaml train -c options.yaml
head -c 2000000 /dev/zero | tr '\0' '#' >options.yaml
refused 2 "more than expected" options.yaml train -c options.yaml
refused 2 "unknown option '--?[2J'" "" train $'--\e[2J'

# ---------------------------------------------------------------- what is no file at all: 5, without waiting
mkfifo pipe
mkdir folder
refused 5 "not a regular file" pipe train -c pipe
refused 5 "not a regular file" folder train -c folder
refused 5 "No such file" none.yaml train -c none.yaml

totals
