#!/usr/bin/env bash
# Test-time augmentation (--tta) from outside: what it averages is computed once more from the views as pictures of their own, each evaluated
# plainly. FOVEA: the program (default build/fovea). Needs python3.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
needs_python "test-time augmentation"

# script NAME ARGS...: the Python program on standard input succeeds.
cat >views.py <<'PYTHON'
import csv, json
from math import exp, log
WEIGHTS = {"none": [1], "flip": [0.5, 0.5], "translate": [0.25, 0.25, 0.125, 0.125, 0.125, 0.125]}
def rows(path):
    with open(path, encoding="utf-8", newline="") as f:
        return list(csv.DictReader(f))
def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]
def close(a, b, tolerance=1e-4):
    assert abs(a - b) <= tolerance * (1 + abs(b)), (a, b)
PYTHON
script() {
    local name=$1
    shift
    (echo "from views import *"; cat) >script.py
    check "$name" env PYTHONPATH=. python3 script.py "$@"
}

python3 "$tests/make_pictures.py" one 200 one && python3 "$tests/make_pictures.py" several 120 several || exit 1
python3 "$tests/make_views.py" files one/list.csv one-views && python3 "$tests/make_views.py" files several/list.csv several-views || exit 1
python3 "$tests/make_views.py" idx idx || exit 1
files="--model lenet5 --img-size 16 -b 20 --epochs 2 -q"
# shellcheck disable=SC2086
{
    "$fovea" train --data one/list.csv $files --val-split 0 --name one >out 2>err || fail "train on files"
    "$fovea" train --data several/list.csv $files --val-split 0 --name several >out 2>err || fail "train on several labels"
    "$fovea" train --data idx/0 --model mlp -b 20 --epochs 6 --lr 0.003 -q --tta translate --val-split 0.2 --name idx >out 2>err || fail "train on arrays"
}

# ---------------------------------------------------------------- pictures in files: eval and predict
for kind in one several; do
    "$fovea" predict runs/$kind $kind-views -q --json --topk 3 >views.json 2>err || fail "predict the views, $kind"
    sed -n '/,test$/s/,.*//p' $kind/list.csv | sed "s|^|$kind/|" >list.txt
    for tta in none flip translate; do
        "$fovea" eval runs/$kind --split test --tta $tta --save-to $kind-$tta --json -q -b 7 >eval.json 2>err || fail "eval --tta $tta, $kind"
        "$fovea" predict runs/$kind - --tta $tta -q --json --topk 3 <list.txt >predict.json 2>err || fail "predict --tta $tta, $kind"
        script "$tta on $kind: predict and eval give what the views give" $kind $tta <<'PYTHON'
import os, sys
kind, tta = sys.argv[1:]
several = kind == "several"
view = {}  # name: per view, a number per class that differs from the logit by a constant of the view
for line in lines("views.json"):
    if line["event"] == "prediction":
        p = [c["probability"] for c in sorted(line["classes"], key=lambda c: c["index"])]
        view[os.path.basename(line["path"])[:-4]] = [log(x / (1 - x)) if several else log(x) for x in p]
def expected(name):
    logits = [sum(w * view[f"{name}-{v}"][k] for v, w in enumerate(WEIGHTS[tta])) for k in range(len(view[name + "-0"]))]
    e = [exp(x) for x in logits]
    return [x / (1 + x) for x in e] if several else [x / sum(e) for x in e]
given = {os.path.basename(l["path"])[:-4]: l for l in lines("predict.json") if l["event"] == "prediction"}
table = rows(f"{kind}-{tta}/predictions.csv")
assert len(table) == len(given) >= 30
right = total = 0
names = [c[2:] for c in table[0] if c.startswith("p/")]
for row in table:
    name = os.path.basename(row["file"])[:-4]
    p = expected(name)
    for c in given[name]["classes"]:
        close(c["probability"], p[c["index"]])
    if several:
        there = row["labels"].split("|")
        for k, n in enumerate(names):
            close(float(row["p/" + n]), p[k])
        loss = -sum(log(p[k] if n in there else 1 - p[k]) for k, n in enumerate(names)) / len(names)
        right += all((p[k] >= 0.5) == (n in there) for k, n in enumerate(names))
    else:
        loss = -log(p[int(row["label"])])
        close(float(row["label_probability"]), p[int(row["label"])])
        close(float(row["probability"]), max(p))
        right += p[int(row["label"])] == max(p)
    close(float(row["loss"]), loss)
    total += loss
done, = lines("eval.json")
close(done["loss"], total / len(table))
assert done["correct"] == right and done["tta"] == tta and done["count"] == len(table), done
assert json.load(open(f"{kind}-{tta}/metrics.json"))["tta"] == tta
PYTHON
    done
    check "$kind: the views change something" bash -c '! cmp -s $1-none/predictions.csv $1-flip/predictions.csv && ! cmp -s $1-flip/predictions.csv $1-translate/predictions.csv' _ $kind
done

# ---------------------------------------------------------------- pictures in arrays; two classes: one probability says all
for v in 0 1 2 3 4 5; do
    "$fovea" eval runs/idx --data idx/$v --save-to idx-view$v -q >out 2>err || fail "eval view $v"
done
for tta in flip translate; do
    "$fovea" eval runs/idx --tta $tta --save-to idx-$tta -q --json >idx-$tta.json 2>err || fail "eval --tta $tta of arrays"
    script "$tta of arrays gives what the views give" $tta <<'PYTHON'
import sys
tta = sys.argv[1]
view = [[float(r["label_probability"]) for r in rows(f"idx-view{v}/predictions.csv")] for v in range(6)]
table = rows(f"idx-{tta}/predictions.csv")
assert len(table) == 120
for i, row in enumerate(table):
    odds = sum(w * log(view[v][i] / (1 - view[v][i])) for v, w in enumerate(WEIGHTS[tta]))
    close(float(row["label_probability"]), 1 / (1 + exp(-odds)))
    close(float(row["loss"]), log(1 + exp(-odds)))
PYTHON
done
for option in none flip; do
    "$fovea" eval runs/idx --data idx/symmetric --tta $option --save-to symmetric-$option -q >out 2>err || fail "eval of symmetric pictures"
done
without_loss() { sed 's/,[^,]*$//' "$1"; } # which the program computes in float32 from one view
check "a picture that is its own mirror image: flip is none, bit for bit" cmp <(without_loss symmetric-none/predictions.csv) <(without_loss symmetric-flip/predictions.csv)

# ---------------------------------------------------------------- what it says and what it gates
script "train tests with and without" <<'PYTHON'
m = json.load(open("runs/idx/metrics.json"))
plain, averaged = m["test"], m["test_tta"]
done, = lines("idx-translate.json")
assert plain["tta"] == "none" and averaged["tta"] == done["tta"] == "translate", (plain, averaged)
for key in "top1", "loss", "count", "ece":
    close(averaged[key], done[key], 1e-6) # another batch size
assert plain["loss"] != averaged["loss"] and averaged["per_class"]
assert "test_tta" not in json.load(open("runs/one/metrics.json"))
PYTHON
read -r plain averaged low high < <(PYTHONPATH=. python3 -c '
from views import *
m = json.load(open("runs/idx/metrics.json"))
a, b = m["test"]["top1"], m["test_tta"]["top1"]
print("none" if a > b else "translate", "translate" if a > b else "none", min(a, b), (a + b) / 2)')
check "the two accuracies differ, or the gate would not be tested" awk -v a="$low" -v b="$high" 'BEGIN { exit !(b > a) }'
expect 0 "top1" eval runs/idx --tta "$plain" --min-top1 "$high"
expect 10 "is below --min-top1" eval runs/idx --tta "$averaged" --min-top1 "$high"
expect 0 "tta flip)" eval runs/idx --tta flip
expect 0 "6 views of each" train --data idx/0 --model lenet5 -b 20 --epochs 1 --tta translate --val-split 0 --name told
expect 0 "next   fovea eval runs/told-2 --split test --tta flip" train --data idx/0 --model lenet5 -b 20 --epochs 1 --tta flip --val-split 0 --name told
expect 2 "did you mean 'flip'" eval runs/idx --tta filp
"$fovea" train --data idx/0 --model lenet5 -b 20 --epochs 2 --val-split 0 --max-steps 4 --name later -q >out 2>err
expect 0 "6 views of each" train --resume runs/later --tta translate
check "--tta is no part of training: the weights are those without it" bash -c '
    "$1" train --data idx/0 --model lenet5 -b 20 --epochs 2 --val-split 0 --name without -q >out 2>err &&
    cmp runs/later/weights/last/model.safetensors runs/without/weights/last/model.safetensors' _ "$fovea"

totals
