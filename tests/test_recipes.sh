#!/usr/bin/env bash
# Recipes from outside: what is in the files is what the program takes, whatever else is given goes before it or behind it, and a run says
# which it was. FOVEA: the program (default build/fovea). Needs python3.
set -u
cd "$(dirname "$0")/.." || exit 1
fovea=$(realpath "${FOVEA:-build/fovea}")
recipes=$(realpath tools/recipes)
[ -x "$fovea" ] || { echo "test_recipes.sh: no program at $fovea"; echo "0 passed, 1 failed"; exit 1; }
command -v python3 >/dev/null || { echo "SKIPPED: recipes (no python3)"; echo "0 passed, 0 failed"; exit 0; }
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT
cd "$temp" || exit 1
unset FOVEA_DATA
export TERM=dumb
passed=0 failed=0

fail() {
    failed=$((failed + 1))
    echo "FAILED: $1"
    for file in out err check.out check.err; do
        [ -s $file ] && tail -n 5 $file | cut -c 1-300 | sed "s/^/    $file: /"
    done
    return 0
}
ok() { passed=$((passed + 1)); }
expect() { # expect CODE FRAGMENT ARGS...
    local code=$1 fragment=$2 got
    shift 2
    "$fovea" "$@" >out 2>err </dev/null
    got=$?
    if [ "$got" -ne "$code" ]; then fail "fovea $*: exit code $got, not $code"
    elif ! cat out err | grep -qF -- "$fragment"; then fail "fovea $*: no '$fragment' in what it says"
    else ok; fi
}
check() { # check NAME COMMAND...
    local name=$1
    shift
    if "$@" >check.out 2>check.err; then ok; else fail "$name"; fi
}
# small NAME: options that make a run of any recipe short, without its data
small="--data synthetic --fraction 0.02 -b 16 --threads 1 -q"

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

# ---------------------------------------------------------------- what the build refuses
printf '# x: a recipe\n# accuracy: none\n# source: here\nmodel: mlp\n' >x.yaml
check "a recipe without version is no recipe" bash -c '! awk -f "$1/embed.awk" x.yaml 2>said && grep -q "x.yaml: title, version" said' _ "$recipes"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
