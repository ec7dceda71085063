#!/usr/bin/env bash
# `fovea data check` and `fovea data info` on pictures in files: what they find, what they say, exit codes, JSON.
# FOVEA: the program (default build/fovea). Needs no data: the pictures are made here.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"

# run CODE ARGS...: the exit code.
run() {
    local code=$1 got
    shift
    timeout 60 "$fovea" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -eq "$code" ]; then ok; else fail "fovea $*: exit code $got, not $code"; fi
}
says() { if grep -qF -- "$2" "$1"; then ok; else fail "no '$2' in $1"; fi; }          # says out|err TEXT
silent() { if grep -qF -- "$2" "$1"; then fail "'$2' in $1"; else ok; fi; }
json() { if python3 -c "import json; L = [json.loads(l) for l in open('out')]; assert $1, L" 2>py; then ok; else fail "JSON: not $1"; fi; }

# pictures FILE:RED:WIDTH:HEIGHT...: PNG files of one colour.
pictures() {
    python3 - "$@" <<'PY'
import os, struct, sys, zlib
def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
for spec in sys.argv[1:]:
    name, colour, width, height = spec.rsplit(":", 3)
    os.makedirs(os.path.dirname(name), exist_ok=True)
    rows = (b"\0" + bytes([int(colour), 0, 255]) * int(width)) * int(height)
    with open(name, "wb") as f:
        f.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", int(width), int(height), 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
PY
}

# ---------------------------------------------------------------- a folder that is divided
specs=()
for i in $(seq 1 30); do specs+=("set/train/rose/$i.png:$i:$((3 + i)):7" "set/train/tulip/$i.png:$((100 + i)):9:5"); done
for i in 1 2 3; do specs+=("set/test/rose/$i.png:$((40 + i)):8:8" "set/test/tulip/$i.png:$((50 + i)):8:8"); done
pictures "${specs[@]}"
run 0 data info set
says out "66 pictures, 2 classes"
says out "parts    train, test as the files say; val chosen by path"
says out "width 4 to 33, median 9; height 5 to 8, median 7"
says out "0 JPEG, 66 PNG, 0 WebP; 0 grey, 66 colour"
[ "$(grep -cE '^  rose +27 +3 +3$' out)" -eq 1 ] && ok || fail "counts of rose"
run 0 data info set --val-split 0
says out "parts    train, test as the files say"
silent out "by path"
run 0 data info set --json
json "L[0]['event'] == 'set' and (L[0]['train'], L[0]['val'], L[0]['test']) == (54, 6, 6) and L[0]['per_class'][1]['class'] == 'tulip'"
json "L[1]['width'] == [4, 9, 33] and L[1]['png'] == 66 and len(L) == 2"
run 0 data check set -j 2
says out "all 66 files can be decoded; 0 copies within a part, 0 across parts"

# ---------------------------------------------------------------- copies and bad files
cp set/train/rose/1.png set/test/rose/leak.png
cp set/train/rose/2.png set/train/tulip/copy.png
run 0 data check set
says err "train/rose/1.png (train) has the same bytes as test/rose/leak.png (test): what is tested is known from training"
says err "train/tulip/copy.png (train) has the same bytes as train/rose/2.png (train), but another class"
says out "1 copies within a part, 1 across parts"
head -c 60 set/train/rose/3.png >set/train/rose/cut.png
printf 'text' >"$(printf 'set/train/rose/odd\033name.png')"
run 3 data check set -j 3
says out "bad  train/rose/cut.png: "
says out "bad  train/rose/odd?name.png: "
says err "2 of 70 files cannot be decoded"
silent out "$(printf '\033')"
run 3 data check set --json
json "sorted(e['file'] for e in L if e['event'] == 'bad') == ['train/rose/cut.png', 'train/rose/odd?name.png']"
json "[e['copy_of_part'] for e in L if e['event'] == 'copy'] == ['test', 'train']"
json "[(e['ok'], e['files'], e['bad'], e['copies'], e['leaks']) for e in L if e['event'] == 'done'] == [(False, 70, 2, 1, 1)]"
json "L[-1]['event'] == 'error' and L[-1]['code'] == 3"
run 0 data info set
says err "1 files have no header that can be read"

# ---------------------------------------------------------------- lists, split files, and what is no set
(cd set && find train -name '?.png' | sort | sed -E 's#^(train/([a-z]+)/.*)$#\1,\2#') >set/list.csv
run 0 data info set/list.csv
says out "list in set/list.csv: 18 pictures, 2 classes"
says out "parts    train, val, test chosen by path"
sed 's/,tulip/,tulip|flower/' set/list.csv >set/several.csv
run 0 data info set/several.csv
says out "several per picture; 0 pictures have none"
(cd set && find train -name '?.png' | sed 's/$/,train/') >split.csv
run 0 data check set/list.csv --split-file split.csv
says out "parts    train as the files say"
sed -i 1d split.csv
run 3 data check set/list.csv --split-file split.csv
says err "split.csv: 1 pictures of set/list.csv are not in this file"
echo "none.png,rose" >>set/list.csv
run 3 data info set/list.csv
says err "1 of 19 files are not there: line 19 'none.png'"
mkdir -p nothing/a
run 3 data info nothing
says err "ROOT/train/CLASS/x.jpg"
run 3 data info nowhere
says err "no dataset is called 'nowhere'"

totals
