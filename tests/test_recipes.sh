#!/usr/bin/env bash
# Recipes from outside: what is in the files is what the program takes, whatever else is given goes before it or behind it, and a run says
# which it was. FOVEA: the program (default build/fovea). Needs python3.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
recipes=$root/tools/recipes
needs_python "recipes"

# small NAME: options that make a run of any recipe short, without its data
small="--data synthetic --fraction 0.02 -b 16 --threads 1 -q"

# ---------------------------------------------------------------- beside other options
expect 2 "the recipe warms up for 2.277 epochs; a shorter run needs its own --warmup-epochs" train --recipe cifar10-94 --epochs 2
expect 2 "--warmup-epochs 3 is more than --epochs 2" train --recipe cifar10-94 --epochs 2 --warmup-epochs 3
check "no hint at the recipe when the warm-up is not its own" bash -c '! grep -q recipe err'

# ---------------------------------------------------------------- each recipe
"$fovea" help recipes >list 2>err || fail "help recipes"
check "help recipes fits 80 columns" test -z "$(awk 'length($0) > 80' list)"
"$fovea" models --json >models.json 2>err || fail "models --json"
"$fovea" models >models.txt 2>err || fail "models"
for file in "$recipes"/*.yaml; do
    name=$(basename "$file" .yaml)
    check "$name is in the list" grep -qE "^  $name \(version [0-9]+, model [a-z0-9_]+\)$" list
    check "'help $name' shows the file" bash -c '"$1" help "$2" | cmp - "$3"' _ "$fovea" "$name" "$file"
    # shellcheck disable=SC2086
    "$fovea" train --recipe "$name" $small --dry-run --json >run.json 2>err || fail "$name: a dry run"
    check "$name: every option of the file is taken, and models know it" python3 - "$name" "$file" <<'PYTHON'
import json, re, sys
name, path = sys.argv[1:]
args = json.loads(open("run.json").readline())["args"]
n = 0
given = {"data", "batch-size", "fraction", "threads", "quiet"} # by the test
for line in open(path, encoding="utf-8"):
    line = re.sub(r"\s+#.*", "", line.rstrip())
    if not line or line.startswith("#"):
        continue
    key, value = line.split(": ", 1)
    value = value.strip('[]"').replace(" ", "")
    n += 1
    assert key in args, key
    assert key in given or args[key].replace(" ", "") == value, (key, value, args[key])
version = re.search(r"^# version: (\d+)$", open(path, encoding="utf-8").read(), re.M).group(1)
assert args["recipe"] == f"{name}@{version}", args["recipe"]
assert n >= 12
models = [json.loads(line) for line in open("models.json")]
assert [m["model"] for m in models if name in m["recipes"]] == [args["model"]]
assert all(m["params"] > 0 and m["macs"] > 0 and m["img_size"] > 0 for m in models)
assert any(line.split()[:1] == [args["model"]] and re.search(rf"\(recipe .*\b{name}\b", line) for line in open("models.txt"))
PYTHON
done

# ---------------------------------------------------------------- names and versions
expect 2 "did you mean 'cifar10-resnet20'?" train --recipe cifar10-resnet02
expect 2 "did you mean 'cifar10-resnet20'?" help cifar10-resnet02
expect 2 "'fovea help recipes' lists the recipes" train --recipe zzzzzz
expect 2 "is at version 1 in this program, not at '7'" train --recipe mnist@7
expect 2 "a recipe is given as '--recipe cifar10-vit'" train cifar10-vit
expect 2 "is not one of 'fovea eval'" eval --recipe mnist
expect 2 "did you mean 'models'" recipes
expect 0 ".SH RECIPES" help --man
expect 3 "fovea data get mnist" train --recipe mnist --data-dir "$temp"

# ---------------------------------------------------------------- flag > file > recipe > environment > default
taken() { # taken EXPECTED ARGS...
    local want=$1
    shift
    # shellcheck disable=SC2086
    "$fovea" train $small --dry-run --json "$@" 2>err | python3 -c '
import json, sys
a = json.loads(sys.stdin.readline())["args"]
print(*(a[k] for k in ("epochs", "lr", "hflip", "momentum", "drop")))' >out 2>>err
    if [ "$(cat out)" = "$want" ]; then ok; else fail "precedence: $*: not $want"; fi
}
printf 'hflip: 0.25\nlr: 0.03\n' >some.yaml
printf 'recipe: mnist\nlr: 0.03\n' >naming.yaml
export FOVEA_EPOCHS=3 FOVEA_LR=0.02 FOVEA_MOMENTUM=0.8 FOVEA_DROP=0.125
taken "10 0.05 0 0.9 0.125" --recipe mnist
taken "10 0.03 0.25 0.9 0.125" --recipe mnist@1 -c some.yaml
taken "10 0.04 0.25 0.9 0.125" --recipe mnist -c some.yaml --lr 0.04
taken "10 0.03 0 0.9 0.125" -c naming.yaml
FOVEA_RECIPE=mnist taken "10 0.05 0 0.9 0.125"
taken "20 0.2 0.5 0.9 0.125" -c naming.yaml --recipe cifar10-resnet20 --lr 0.2
unset FOVEA_EPOCHS FOVEA_LR FOVEA_MOMENTUM FOVEA_DROP

# ---------------------------------------------------------------- a run says which it was, and goes on as it began
run="--data synthetic --img-size 16 --fraction 0.05 -b 32 --epochs 2 -q"
# shellcheck disable=SC2086
{
    "$fovea" train --recipe mnist $run --name whole >out 2>err || fail "a run of a recipe"
    check "args.yaml names recipe and version" grep -qx "recipe: mnist@1" runs/whole/args.yaml
    check "the console does" grep -q "^recipe mnist@1 · sgd, lr 0.05 cosine" runs/whole/log.txt
    expect 0 "" train -c runs/whole/args.yaml --name again -q
    check "args.yaml alone gives the same run" cmp runs/whole/weights/last/model.safetensors runs/again/weights/last/model.safetensors
    "$fovea" train --recipe mnist $run --name parts --max-steps 3 >out 2>err || fail "a part of a run"
    cp -r runs/parts runs/named
    expect 0 "" train --resume runs/parts -q
    expect 0 "" train --resume runs/named --recipe mnist -q
    check "resumed, the same bits" cmp runs/whole/weights/last/model.safetensors runs/parts/weights/last/model.safetensors
    check "resumed by its recipe, the same bits" cmp runs/whole/weights/last/model.safetensors runs/named/weights/last/model.safetensors
    expect 2 "--recipe is mnist@1 in the run and cannot become cifar10-vit@1" train --resume runs/parts --recipe cifar10-vit
}

# ---------------------------------------------------------------- --without: each idea of the speed run can be left out, and then it is
cat >weights.py <<'PYTHON'
import json, struct, sys
def weights(run, name):
    """A float32 tensor of a run's last weights, flat, and its shape."""
    with open(f"runs/{run}/weights/last/model.safetensors", "rb") as f:
        header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        start, end = header[name]["data_offsets"]
        f.seek(start, 1)
        return struct.unpack(f"<{(end - start) // 4}f", f.read(end - start)), header[name]["shape"]
PYTHON
# A CIFAR-10 of 100 and 20 pictures of noise.
python3 - <<'PYTHON'
import os, random
random.seed(5)
os.makedirs("cifar10")
for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
    with open(f"cifar10/{name}.bin", "wb") as f:
        for i in range(20):
            f.write(bytes([i % 10]) + random.randbytes(3072))
PYTHON
tiny="--recipe cifar10-94 --data-dir . -b 20 --epochs 0.4 --warmup-epochs 0 --lookahead 0 --tta none -q"
# Weights stand still at a learning rate of 0, so that the initial ones are saved.
still="$tiny --lr 0 --warmup-lr 0 --min-lr 0"
size() { "$fovea" info speedrun94 --json "$@" 2>err | sed -nE 's/.*"params": ([0-9]+), "macs": ([0-9.e+]+).*"train_arena.*/\1 \2/p'; }
read -r params macs < <(size)
# shellcheck disable=SC2086
{
    "$fovea" train $still --name with >out 2>err || fail "a run with everything"
    "$fovea" train $still --name without --without whitening,dirac,small-logits >out 2>err || fail "a run without"
    check "whitening, dirac" python3 - <<'PYTHON'
from weights import weights
def centre(run, i, k): # of filter i for channel k
    w, (out, c, h, r) = weights(run, "group1.conv2.weight")
    return [round(x, 6) for x in w[(i * c + k) * 9:(i * c + k) * 9 + 9]]
dirac = [0, 0, 0, 0, 1, 0, 0, 0, 0]
assert centre("with", 3, 3) == dirac and centre("with", 3, 4) == [0] * 9
assert centre("without", 3, 3) != dirac and centre("without", 3, 4) != [0] * 9
pairs = {run: weights(run, "whiten.weight")[0] for run in ("with", "without")} # filters, then their negatives
opposite = {run: all(a == -b for a, b in zip(w[:144], w[144:])) for run, w in pairs.items()}
assert opposite == {"with": True, "without": False}, opposite
PYTHON
    "$fovea" eval runs/without/weights/last --data cifar10 --data-dir . --json -q >own.json 2>err || fail "eval of a weights folder"
    "$fovea" eval runs/without --data-dir . --without whitening,dirac --json -q >other.json 2>err || fail "eval --without"
    check "small-logits: config.json says so, and evaluation heeds it" python3 - <<'PYTHON'
import json
assert json.load(open("runs/without/weights/last/config.json"))["without"] == "whitening,dirac,small-logits"
assert "without" not in json.load(open("runs/with/weights/last/config.json"))
loss = json.load(open("runs/without/metrics.json"))["test"]["loss"]
own, other = (json.load(open(f))["loss"] for f in ("own.json", "other.json"))
assert abs(own - loss) < 1e-7 and abs(other - loss) > 5e-7, (loss, own, other)
PYTHON
    "$fovea" train $tiny --name plain >out 2>err || fail "training"
    "$fovea" train $tiny --name trained --without whitening >out 2>err || fail "training"
    "$fovea" train $tiny --name untrimmed --without trimming >out 2>err || fail "training"
    check "whitening is not trained, what takes its place is; trimming changes no result" python3 - <<'PYTHON'
from weights import weights
assert weights("with", "whiten.weight") == weights("plain", "whiten.weight")
assert weights("without", "whiten.weight") != weights("trained", "whiten.weight")
a, b, start = (weights(run, "group3.conv1.weight")[0] for run in ("plain", "untrimmed", "with"))
moved = max(abs(x - y) for x, y in zip(a, start))
assert max(abs(x - y) for x, y in zip(a, b)) < 0.01 * moved, moved
PYTHON
}
check "unit-scale: without, each norm has as many more parameters as channels" test "$(size --without unit-scale | cut -d ' ' -f 1)" -eq $((params + 2 * 64 + 4 * 256))
check "trimming: without, more work" awk -v a="$macs" -v b="$(size --without trimming | cut -d ' ' -f 2)" 'BEGIN { exit !(b > 1.1 * a && b < 1.13 * a) }'
expect 0 "--without leaves out any of whitening,dirac,unit-scale,small-logits,trimming" info speedrun96
expect 2 "there is no 'dirca' to leave out; there is whitening, dirac, unit-scale, small-logits, trimming" info speedrun94 --without whitening,dirca
expect 2 "there is no 'dirac' to leave out; there is nothing" info resnet20 --without dirac

# ---------------------------------------------------------------- the ablation table
check "tools/ablate.sh runs rows of docs/speedrun.md" bash -c '
    "$2/../ablate.sh" "$1" --epochs 0.4 --rows "everything|flips" -- --data-dir . -b 20 >table &&
    [ "$(grep -c "^| .* | .fovea train --recipe cifar10-94.* | [0-9.]* | [0-9.]* |$" table)" -eq 3 ]' _ "$fovea" "$recipes"

# ---------------------------------------------------------------- what the build refuses
printf '# x: a recipe\n# accuracy: none\n# source: here\nmodel: mlp\n' >x.yaml
check "a recipe without version is no recipe" bash -c '! awk -f "$1/embed.awk" x.yaml 2>said && grep -q "x.yaml: title, version" said' _ "$recipes"

totals
