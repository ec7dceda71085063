#!/usr/bin/env bash
# Completion as people have it: the scripts are loaded into bash, zsh and fish, and asked.
# FOVEA: the program (default build/fovea). A shell that is not installed is SKIPPED.
# shellcheck source=tests/lib.sh
. "$(dirname "$0")/lib.sh"
mkdir -p photos/red runs/first
touch photos/red/1.jpg options.yaml model.safetensors

for shell in bash zsh fish; do "$fovea" completion $shell >complete.$shell || { echo "0 passed, 1 failed"; exit 1; }; done

# expect SHELL LINE WORDS: completing LINE gives all of WORDS, and none of those behind "not".
expect() {
    local shell=$1 line=$2 word missing='' sense=1
    shift 2
    "ask_$shell" "$line" >answers 2>errors
    for word in "$@"; do
        if [ "$word" = not ]; then sense=0; continue; fi
        if [ $sense -eq 1 ] && ! grep -qxF -e "$word" answers; then missing+=" $word"; fi
        if [ $sense -eq 0 ] && grep -qxF -e "$word" answers; then missing+=" not:$word"; fi
    done
    if [ -z "$missing" ] && [ ! -s errors ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: $shell: '$line' lacks$missing; it gave: $(head -n 20 answers | tr '\n' ' ') $(head -n 3 errors)"
    fi
}

# What all shells must complete.
expect_all() {
    local shell=$1
    expect "$shell" "fovea " train eval predict info models bench data help completion version
    expect "$shell" "fovea tr" train not eval
    expect "$shell" "fovea train --mo" --model --momentum --model-ema not --mode
    expect "$shell" "fovea bench --mo" --model --mode not --model-ema
    expect "$shell" "fovea train --no-" --no-nesterov
    expect "$shell" "fovea train --model resnet5" resnet50 resnet56 not resnet20
    expect "$shell" "fovea train --opt " sgd adam adamw
    expect "$shell" "fovea train --on-nan " stop skip: rollback
    expect "$shell" "fovea train --class-weights " balanced
    expect "$shell" "fovea train --data cifar" cifar10 cifar100 not mnist
    expect "$shell" "fovea data " get check info
    expect "$shell" "fovea data get mn" mnist not get
    expect "$shell" "fovea data -q get fashion" fashion-mnist
    expect "$shell" "fovea info resnet20" resnet20 resnet20_b
    expect "$shell" "fovea eval --weights " best last ema
    expect "$shell" "fovea train --recipe cifar10-" cifar10-resnet20 cifar10-vit not mnist cifar10
    expect "$shell" "fovea help tr" train
    expect "$shell" "fovea help " train recipes mnist
    expect "$shell" "fovea completion " bash zsh fish
    expect "$shell" "fovea train --lr " not sgd options.yaml cifar10
}

# ---------------------------------------------------------------- bash
ask_bash() {
    # shellcheck disable=SC2016
    bash --norc -c '
        source ./complete.bash
        complete -p fovea | grep -q _fovea || exit 1
        read -ra COMP_WORDS <<<"${1//=/ = }"
        [[ $1 == *" " || $1 == *= ]] && [[ $1 != *= ]] && COMP_WORDS+=("")
        COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _fovea
        printf "%s\n" "${COMPREPLY[@]}"' _ "$1"
}
expect_all bash
expect bash "fovea train --model=resnet5" resnet50 resnet56 not resnet20
expect bash "fovea train --model=" resnet50 vit_tiny_patch4_32
expect bash "fovea train --data ph" photos
expect bash "fovea train --resume r" runs
expect bash "fovea train --resume " runs photos not options.yaml
expect bash "fovea train -c o" options.yaml
expect bash "fovea predict m" model.safetensors
expect bash "fovea predict runs/first photos/red/1.jpg ph" photos
if command -v shellcheck >/dev/null; then
    if shellcheck complete.bash; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
fi

# ---------------------------------------------------------------- fish
if command -v fish >/dev/null; then
    ask_fish() { HOME=$temp fish --no-config -c "source complete.fish; complete -C '$1'" | cut -f1; }
    fish -n complete.fish && passed=$((passed + 1)) || failed=$((failed + 1))
    expect_all fish
    expect fish "fovea train --resume " runs/ photos/ not options.yaml
    expect fish "fovea train -c o" options.yaml
    expect fish "fovea predict m" model.safetensors
    expect fish "fovea predict runs/first photos/red/1.jpg ph" photos/
    HOME=$temp fish --no-config -c "source complete.fish; complete -C 'fovea train --ep'" >answers
    if grep -q "passes over the training samples" answers; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: fish: --epochs has no help: $(cat answers)"
    fi
else
    echo "SKIPPED: completion of fish (it is not installed)"
fi

# ---------------------------------------------------------------- zsh: on a terminal of its own, found through fpath as an installed one
if command -v zsh >/dev/null; then
    zsh -n complete.zsh && passed=$((passed + 1)) || failed=$((failed + 1))
    mkdir functions && cp complete.zsh functions/_fovea
    cat >ask.zsh <<'END'
zmodload zsh/zpty
zpty session zsh -f -i
ask() { # write a line and read up to the mark
    local out
    zpty -w session "$1"
    zpty -r -m session out "*$2*" && print -r -- "$out"
}
ask "PROMPT= PS2=; stty columns 200 rows 50; fpath=($PWD/functions \$fpath); autoload -Uz compinit; compinit -u -D; echo rea''dy" ready >/dev/null
# Instead of showing the matches, write them down.
ask 'show() { local -a kept; compadd -A kept -O kept "$@" 2>/dev/null; }; echo rea'"''"'dy' ready >/dev/null
zpty -w session 'zstyle ":completion:*" list-colors ""; LISTMAX=0; unsetopt auto_menu; setopt list_rows_first no_beep'
zpty -w session "compadd() { local -a matches; builtin compadd -O matches \"\$@\"; print -rl -- \$matches >>$PWD/matches; builtin compadd \"\$@\"; }"
zpty -w session "echo rea''dy"
zpty -r -m session out "*ready*"
while IFS= read -r line; do
    : >matches
    zpty -n -w session "$line"$'\t\t'
    sleep 0.35
    zpty -n -w session $'\x15'
    zpty -w session "echo do''ne"
    zpty -r -m session out "*done*"
    print -r -- "== $line"
    cat matches
done
END
    ask_zsh() { awk -v want="== $1" '/^== / { on = $0 == want; next } on' zsh.answers | sort -u; }
else
    echo "SKIPPED: completion of zsh (it is not installed)"
fi
if command -v zsh >/dev/null; then
    lines=$(declare -f expect_all | sed -nE 's/.*"\$shell" "(fovea [^"]*)".*/\1/p')
    printf '%s\n' "$lines" "fovea train --resume " "fovea train -c o" "fovea predict m" | ZDOTDIR=$temp HOME=$temp TERM=xterm zsh -f ask.zsh >zsh.answers 2>zsh.errors
    expect_all zsh
    expect zsh "fovea train -c o" options.yaml
    expect zsh "fovea predict m" model.safetensors
fi

totals
