#!/usr/bin/env bash
# Several labels per picture, class weights, and fine-tuning with most of a model frozen, from outside. Figures in the files of a run are
# checked against the same figures computed from predictions.csv by definition. FOVEA: the program (default build/fovea). Needs python3.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
make_pictures=$tests/make_pictures.py
needs_python "several labels, class weights and freezing"

# script NAME ARGS...: the Python program on standard input succeeds.
script() {
    local name=$1
    shift
    check "$name" python3 - "$@"
}
train() { "$fovea" train -q --output runs "$@" >out 2>err </dev/null; }

python3 "$make_pictures" several 400 several || exit 1
python3 "$make_pictures" one 200 one || exit 1
several="--data several/list.csv --model lenet5 --img-size 16 -b 20"
one="--data one/list.csv --model lenet5 --img-size 16 -b 20 --val-split 0"

# ---------------------------------------------------------------- several labels per picture
# shellcheck disable=SC2086
train $several --epochs 3 --name several
check "train on several labels" test -s runs/several/worst.html
check "columns of results.csv" grep -qx "epoch,time,train/loss,metrics/mAP,metrics/f1,val/loss,.*" runs/several/results.csv
script "the figures of a run are those of its predictions" runs/several <<'PYTHON'
import csv, json, math, sys

folder = sys.argv[1]
rows = list(csv.DictReader(open(f"{folder}/predictions.csv", newline="")))
metrics = json.load(open(f"{folder}/metrics.json"))["test"]
counts = {r["class"]: r for r in csv.DictReader(open(f"{folder}/confusion.csv", newline=""))}
thresholds = {r["class"]: r for r in csv.DictReader(open(f"{folder}/thresholds.csv", newline=""))}
classes = [name[2:] for name in rows[0] if name.startswith("p/")]
near = lambda a, b: abs(float(a) - b) <= 2e-6
split = lambda text: set(text.split("|")) - {""}
listed = {r["path"]: split(r["label"]) for r in csv.DictReader(open("several/list.csv", newline="")) if r["split"] == "test"}
assert classes == ["blue, deep", "green", "red"] and len(rows) == 100 == metrics["count"]

precisions, f1s, total, exact = [], [], [0, 0, 0], 0
for r in rows:
    assert split(r["labels"]) == listed.pop(r["file"]), r
    assert split(r["predicted"]) == {k for k in classes if float(r["p/" + k]) >= 0.5}, r
    assert int(r["correct"]) == (split(r["labels"]) == split(r["predicted"])), r
    loss = sum(-math.log(float(r["p/" + k]) if k in split(r["labels"]) else 1 - float(r["p/" + k])) for k in classes) / 3
    assert abs(loss - float(r["loss"])) < 1e-3 * (1 + loss), (loss, r)
    exact += int(r["correct"])
assert not listed
for k in classes:
    score = [(float(r["p/" + k]), k in split(r["labels"])) for r in rows]
    def at(t):
        tp = sum(y for p, y in score if p >= t)
        fp = sum(not y for p, y in score if p >= t)
        return tp, fp, sum(y for _, y in score) - tp
    def f1(t):
        tp, fp, fn = at(t)
        return 2 * tp / (2 * tp + fp + fn)
    tp, fp, fn = at(0.5)
    c, t = counts[k], thresholds[k]
    assert (int(c["tp"]), int(c["fp"]), int(c["fn"]), int(c["tn"])) == (tp, fp, fn, 100 - tp - fp - fn), c
    assert int(c["count"]) == int(t["count"]) == tp + fn and near(c["f1"], f1(0.5))
    ap, recall = 0, 0  # the area under precision over recall, in steps, at each score from the highest down
    for p in sorted({p for p, _ in score}, reverse=True):
        a, b, missed = at(p)
        ap, recall = ap + (a / (a + missed) - recall) * a / (a + b), a / (a + missed)
    assert near(t["average_precision"], ap), (t, ap)
    best = max(f1(p) for p, _ in score)
    assert near(t["f1"], best) and near(f1(float(t["threshold"])), best), t
    a, b, missed = at(float(t["threshold"]))
    assert near(t["precision"], a / (a + b)) and near(t["recall"], a / (a + missed)), t
    precisions.append(ap)
    f1s.append(f1(0.5))
    total = [x + y for x, y in zip(total, (tp, fp, fn))]
assert near(metrics["mAP"], sum(precisions) / 3) and near(metrics["macro_f1"], sum(f1s) / 3)
assert near(metrics["micro_f1"], 2 * total[0] / (2 * total[0] + total[1] + total[2]))
assert near(metrics["exact_match"], exact / 100)
assert metrics["mAP"] > 0.6, "nothing was learnt"
assert [c["class"] for c in metrics["per_class"]] == classes
PYTHON
script "best_epoch is that of the highest mAP" runs/several <<'PYTHON'
import csv, json, sys
rows = list(csv.DictReader(open(sys.argv[1] + "/results.csv", newline="")))
best = max(range(len(rows)), key=lambda i: float(rows[i]["metrics/mAP"]))
metrics = json.load(open(sys.argv[1] + "/metrics.json"))
assert metrics["best_epoch"] == best + 1 and abs(metrics["best_val_mAP"] - float(rows[best]["metrics/mAP"])) < 1e-6
assert 0 < float(rows[-1]["train/accuracy_top1"]) <= 1
PYTHON
check "worst.html names missed labels" grep -q "<dt>missed</dt>" runs/several/worst.html
check "worst.html has the pictures" grep -q "data:image/png;base64,iVBOR" runs/several/worst.html
expect 0 "exact" eval runs/several --save-to again
check "eval gives the same predictions" cmp runs/several/predictions.csv again/predictions.csv
check "eval gives the same thresholds" cmp runs/several/thresholds.csv again/thresholds.csv
expect 2 "one label per picture" eval runs/several --min-top1 0.5
# shellcheck disable=SC2086
expect 2 "the numbers must be the same" train $several --num-classes 7 --dry-run
# shellcheck disable=SC2086
"$fovea" train $several --epochs 2 --model-ema --json --name streamed >events 2>err
script "events of several labels" events <<'PYTHON'
import json, sys
events = [json.loads(line) for line in open(sys.argv[1])]
assert [e["event"] for e in events] == ["run", "epoch", "epoch", "done"], events
assert all({"mAP", "f1", "ema_mAP"} <= set(e) for e in events[1:3]) and "micro_f1" in events[3]["test"]
assert abs(events[0]["first_loss"] - 0.693) < 0.15
PYTHON
# shellcheck disable=SC2086
expect 0 "overfit: passed" train $several --overfit-batches 1 --data several/list.csv
# shellcheck disable=SC2086
expect 0 "nothing was written" train $several --dry-run --device ref --precision float64 --smoothing 0.1 --grad-accum-steps 2

# ---------------------------------------------------------------- class weights
# first_loss FILE ARGS...: the loss of the first step
first_loss() {
    local file=$1
    shift
    "$fovea" train "$@" --epochs 1 --dry-run --json 2>err | python3 -c 'import json, sys; print(json.loads(sys.stdin.readline())["first_loss"])' >"$file"
}
# shellcheck disable=SC2086
{
    first_loss plain $one
    first_loss ones $one --class-weights 1,1
    first_loss balanced $one --class-weights balanced
    first_loss listed $one --class-weights 0.2,1.8
    first_loss light $one --class-weights 0,1
    first_loss several_plain $several --val-split 0
    first_loss several_ones $several --val-split 0 --class-weights 1,1,1
    first_loss several_balanced $several --val-split 0 --class-weights balanced
    first_loss several_listed $several --val-split 0 --class-weights "$(python3 - <<'PYTHON'
import csv
rows = [set(r["label"].split("|")) for r in csv.DictReader(open("several/list.csv", newline="")) if r["split"] == "train"]
count = {k: sum(k in r for r in rows) for k in ("blue, deep", "green", "red")}
print(",".join(repr((len(rows) - c) / c) for c in count.values()))
PYTHON
)"
}
script "weights of 1 change nothing, balanced ones are what they should be" <<'PYTHON'
loss = {name: float(open(name).read()) for name in ("plain", "ones", "balanced", "listed", "light", "several_plain", "several_ones", "several_balanced", "several_listed")}
assert abs(loss["plain"] - loss["ones"]) < 1e-6 and abs(loss["balanced"] - loss["listed"]) < 1e-6, loss
assert abs(loss["plain"] - loss["balanced"]) > 1e-4 and abs(loss["plain"] - loss["light"]) > 1e-4, loss
assert abs(loss["several_plain"] - loss["several_ones"]) < 1e-6 and abs(loss["several_balanced"] - loss["several_listed"]) < 1e-6, loss
assert loss["several_balanced"] > 1.2 * loss["several_plain"], loss
PYTHON
# shellcheck disable=SC2086
{
    expect 2 "--class-weights has 3 numbers, the model has 2 classes" train $one --class-weights 1,2,3 --dry-run
    expect 0 "1 class has no training pictures ('class 2')" train $one --num-classes 3 --class-weights balanced --dry-run
}
# shellcheck disable=SC2086
train $one --epochs 1 --name one
check "file column of predictions.csv" grep -qx "index,file,label,label_name,.*" runs/one/predictions.csv
check "file of a picture in predictions.csv" grep -q "^150,pictures/0150.png,1,light," runs/one/predictions.csv
check "file of a picture in worst.html" grep -q "<dt>file</dt><dd>pictures/" runs/one/worst.html

# ---------------------------------------------------------------- most of a model frozen
train --data synthetic --model resnet20 --epochs 2 --name base
train --data synthetic --model resnet20 --fraction 0.5 --epochs 3 -b 64 --name tuned --num-classes 4 --pretrained runs/base --freeze 3 --lr 0.05 \
    --model-ema --model-ema-decay 0.9
script "the frozen stages are those of the first run, bit for bit; the others moved" <<'PYTHON'
import json, struct

def tensors(path):
    data = open(path, "rb").read()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + n])
    header.pop("__metadata__")
    return {k: data[8 + n + v["data_offsets"][0]:8 + n + v["data_offsets"][1]] for k, v in header.items()}

base = tensors("runs/base/weights/best/model.safetensors")
for which in ("last", "ema"):
    tuned = tensors(f"runs/tuned/weights/{which}/model.safetensors")
    assert set(base) == set(tuned)
    for name in base:
        frozen = name.split(".")[0] in ("conv1", "bn1", "layer1", "layer2")
        assert (base[name] == tuned[name]) == frozen, (which, name)
PYTHON
check "it learns with most of it frozen" python3 -c 'import json; assert json.load(open("runs/tuned/metrics.json"))["test"]["top1"] > 0.5'
expect 0 "top1" eval runs/tuned
expect 0 "layer2" info resnet20
expect 2 "'resnet20' has 4 stages" train --data synthetic --model resnet20 --freeze 5 --dry-run
expect 2 "nothing in 'resnet20' is called 'layer9'" train --data synthetic --model resnet20 --freeze layer1,layer9 --dry-run
expect 2 "every parameter is frozen" train --data synthetic --model lenet5 --freeze conv1,conv2,fc1,fc2,fc3 --dry-run
expect 0 "nothing was written" train --data synthetic --model lenet5 --freeze 4 --dry-run
expect 0 "nothing was written" train --data synthetic --model lenet5 --freeze 0 --dry-run
expect 0 "nothing was written" train --data synthetic --model vit_tiny_patch4_32_d6_avg --fraction 0.05 -b 4 --freeze 3 --dry-run
"$fovea" info vit_tiny_patch4_32_d6 --json >stages 2>err
script "info numbers the stages" <<'PYTHON'
import json
stages = [e for e in map(json.loads, open("stages")) if e["event"] == "stage"]
assert [s["number"] for s in stages] == list(range(1, 8)) and stages[1]["names"] == "blocks.0" and all(s["params"] > 0 for s in stages)
PYTHON

totals
