#!/usr/bin/env bash
# The documentation says what is so: every `fovea` command in it parses, every option it names exists, links lead somewhere, code that
# it quotes is the code in the tree, no figure is left open, and every public function is documented.
# FOVEA: the program (default build/fovea).
# shellcheck disable=SC2016 # back quotes are Markdown's here
set -u
cd "$(dirname "$0")/.." || exit 1
fovea=${FOVEA:-build/fovea}
pages=(README.md docs/*.md tests/peers/README.md)
passed=0 failed=0

result() { # result MESSAGE: empty if it is as it should be
    if [ -z "$1" ]; then passed=$((passed + 1)); else
        failed=$((failed + 1))
        echo "FAILED: $1"
    fi
}

# ---------------------------------------------------------------- commands

# Lines of ```sh blocks, continued ones joined, and commands in `code` within text.
commands_of() {
    awk '/^ *```sh$/ { inside = 1; next } /^ *```/ { inside = 0 } inside { sub(/^ +/, ""); printf "%s", /\\$/ ? substr($0, 1, length - 1) : $0 "\n" }' "$1"
    sed '/^ *```/,/^ *```/d' "$1" | grep -oE '`fovea [a-z][^`]*`' | tr -d '`'
}

# --help behind a command line: the program reads all that comes before, then shows help instead of working.
check_commands() {
    local page=$1 line error
    local -a words
    while read -r line; do
        line=${line%%#*}
        line=${line%% | *}
        line=${line#\$ }
        [[ $line =~ ^([A-Z_]+=[^ ]*\ +)*fovea\ +(.*)$ ]] || continue
        read -ra words <<<"${BASH_REMATCH[2]}"
        error=$("$fovea" "${words[@]}" --help 2>&1 >/dev/null) || error=${error:-exit code $?}
        result "${error:+$page: '$line': $error}"
    done < <(commands_of "$page")
}

# `--option` in text: some command has it.
check_options() {
    local page=$1 option known
    known=$("$fovea" help --man | sed 's/\\-/-/g' | grep -oE -- '--[a-z][a-z0-9-]*' | sort -u)
    while read -r option; do
        if grep -qxe "$option" <<<"$known" || grep -qxe "--${option#--no-}" <<<"$known"; then result ""; else
            result "$page names the option $option, which the program does not have"
        fi
    done < <(sed '/^ *```/,/^ *```/d' "$page" | grep -oE '`--[a-z][a-z0-9-]*' | tr -d '`' | sort -u)
}

# ---------------------------------------------------------------- links

# What GitHub makes of a heading.
anchors_of() {
    sed '/^ *```/,/^ *```/d' "$1" | sed -nE 's/^#+ +//p' | tr '[:upper:]' '[:lower:]' | sed -E 's/[^a-z0-9 _-]//g; s/ /-/g'
}

check_links() {
    local page=$1 link path anchor
    while read -r link; do
        case $link in http://* | https://*) continue ;; esac
        path=${link%%#*} anchor=
        [[ $link == *'#'* ]] && anchor=${link#*#}
        path=${path:+$(dirname "$page")/$path}
        path=${path:-$page}
        if [ ! -e "$path" ]; then result "$page links to $link, which is not there"
        elif [ -n "$anchor" ] && ! anchors_of "$path" | grep -qx -- "$anchor"; then result "$page links to $link, but there is no such heading"
        else result ""; fi
    done < <(sed '/^ *```/,/^ *```/d' "$page" | grep -oE '\]\([^) ]+\)' | sed -E 's/^\]\(|\)$//g')
}

# ---------------------------------------------------------------- quoted code

one_space() { tr -s '[:space:]' ' ' | sed 's/^ //; s/ $//'; }

# A block behind <!-- from FILE --> is in that file, but for white space.
check_quotes() {
    local page=$1 file=
    local quote='' line inside=0 whole
    while IFS= read -r line; do
        if [[ $line =~ ^'<!-- from '(.*)' -->'$ ]]; then file=${BASH_REMATCH[1]}
        elif [[ -n $file && $inside -eq 0 && $line == '```'* ]]; then inside=1 quote=
        elif [[ $inside -eq 1 && $line == '```' ]]; then
            inside=0 quote=$(one_space <<<"$quote") whole=
            [ -f "$file" ] && whole=$(one_space <"$file")
            if [[ -n $quote && $whole == *"$quote"* ]]; then result ""; else result "$page quotes $file, which does not say: ${quote:0:80}..."; fi
            file=
        elif [ $inside -eq 1 ]; then quote+=$line$'\n'; fi
    done <"$page"
}

# ---------------------------------------------------------------- headers

# A function's comment stands before it, behind it, or before the group of lines that it is in.
undocumented() {
    awk '
        FNR == 1 { documented = 0; comment = 0 }
        comment { documented = 1; if (/\*\//) comment = 0; next }
        /^ *\/\*/ { documented = 1; if (!/\*\//) comment = 1; next }
        /^ *$/ { documented = 0; next }
        /\/\*/ { documented = 1 }
        /^[a-z][a-z0-9_ ]*[ *]fv_[a-z0-9_]+\(/ && !/^typedef/ && !/^static/ {
            line = FNR; match($0, /fv_[a-z0-9_]+\(/); name = substr($0, RSTART, RLENGTH - 1); found = $0
            while (found !~ /;/ && (getline more) > 0) { found = found more; if (more ~ /\/\*/) documented = 1 }
            if (!documented) print FILENAME ":" line ": " name
        }' "$@"
}

check_headers() {
    local header missing
    for header in core/*.h core/io/io.h layers/layers.h optim/optim.h data/data.h; do
        missing=$(undocumented "$header" | tr '\n' ' ')
        result "${missing:+without a comment: $missing}"
    done
}

# ----------------------------------------------------------------

[ -x "$fovea" ] || { echo "FAILED: there is no program $fovea"; echo "0 passed, 1 failed"; exit 1; }
for page in "${pages[@]}"; do
    check_commands "$page"
    check_options "$page"
    check_links "$page"
    check_quotes "$page"
    result "$(grep -n '@FIGURE@' "$page" | sed -n "1s|.*|$page: a figure is still to be filled in (@FIGURE@)|p")"
done
check_headers
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
