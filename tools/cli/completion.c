/* completion.c: scripts that complete commands, options and values, from the command and option tables.
 *
 *   option or argument ─► wants: words, models, data sets, commands, recipes, folders, files ─► bash | zsh | fish
 */
#include "tools/cli/recipes.h"

#include <ctype.h>
#include <string.h>

/* What can stand in a place. */
typedef struct wants {
    char words[160]; /* with a space behind each */
    bool models, data_sets, commands, recipes, folders, files;
} wants;

/* ---------------------------------------------------------------- from the tables */

static void want_word(wants *w, const char *word, size_t length) {
    size_t used = strlen(w->words);
    snprintf(w->words + used, sizeof w->words - used, "%.*s ", (int)length, word);
}

/* One alternative of a metavar: "FILE", "DIR", or a word to be typed as it is, up to the first letter that is not:
 * "skip:" of "skip:K". */
static void want_token(wants *w, const char *token, size_t length) {
    static const struct {
        const char *name;
        size_t offset;
    } kinds[] = {{"FILE", offsetof(wants, files)},           {"PATH", offsetof(wants, files)},
                 {"WEIGHTS", offsetof(wants, files)},        {"PICTURE", offsetof(wants, files)},
                 {"DIR", offsetof(wants, folders)},          {"RUN", offsetof(wants, folders)},
                 {"MODEL-FOLDER", offsetof(wants, folders)}, {"FOLDER", offsetof(wants, folders)},
                 {"MODEL", offsetof(wants, models)},         {"COMMAND", offsetof(wants, commands)},
                 {"RECIPE", offsetof(wants, recipes)}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strlen(kinds[i].name) == length && !strncmp(kinds[i].name, token, length))
            *(bool *)((char *)w + kinds[i].offset) = true;
    size_t plain = 0;
    while (plain < length && (islower((unsigned char)token[plain]) || strchr("0123456789-:", token[plain]))) plain++;
    if (plain > 0 && islower((unsigned char)token[0])) want_word(w, token, plain);
}

static void want_tokens(wants *w, const char *text, size_t length) {
    for (size_t at = 0; at < length;) {
        size_t n = strcspn(text + at, "|");
        if (at + n > length) n = length - at;
        want_token(w, text + at, n);
        at += n + 1;
    }
}

static wants wants_of_option(fv_cli_id id) {
    const fv_cli_option *o = &fv_cli_options[id];
    wants w = {.words = ""};
    if (o->type == FV_CLI_CHOICE) want_tokens(&w, o->choices, strlen(o->choices));
    else if (o->type != FV_CLI_BOOL) want_tokens(&w, o->meta, strlen(o->meta));
    if (id == OPT_MODEL) w.models = true;
    if (id == OPT_DATA) w.data_sets = true;
    return w;
}

#define FV_PLACES 3
/* What each argument of a command can be; returns how many. `*repeats`: the last may come again and again. */
static int wants_of_arguments(fv_cli_command command, wants place[FV_PLACES], bool *repeats) {
    const char *p = fv_cli_commands[command].arguments;
    int n = 0;
    *repeats = false;
    while (*p && n < FV_PLACES) {
        p += strspn(p, " [");
        size_t length = strcspn(p, " ].");
        if (length == 0) break;
        place[n] = (wants){.words = ""};
        want_tokens(&place[n], p, length);
        place[n].data_sets = !strncmp(p, "NAME", 4);
        place[n].files |= place[n].data_sets;
        n++;
        p += length;
        *repeats |= *p == '.';
        p += strcspn(p, " ");
    }
    return n;
}

static bool takes_value(const fv_cli_option *o) {
    return o->type != FV_CLI_BOOL;
}

/* Switches that are on unless they are turned off. */
static bool can_be_negated(const fv_cli_option *o) {
    return o->type == FV_CLI_BOOL && o->def && !strcmp(o->def, "true");
}

static bool of_command(int id, int command) {
    return (fv_cli_options[id].commands >> command) & 1;
}

static void print_models(FILE *to) {
    for (int i = 0; i < fv_model_count(); i++) fprintf(to, "%s%s", i ? " " : "", fv_model_at(i)->name);
}
static void print_data_sets(FILE *to) {
    for (int i = 0; i < fv_cli_data_set_count; i++) fprintf(to, "%s%s", i ? " " : "", fv_cli_data_sets[i]);
}
static void print_commands(FILE *to) {
    for (int c = 0; c < FV_CMD_COUNT; c++) fprintf(to, "%s%s", c ? " " : "", fv_cli_commands[c].name);
}
static void print_recipes(FILE *to) {
    for (int i = 0; i < fv_recipe_count; i++) fprintf(to, "%s%s", i ? " " : "", fv_recipes[i].name);
}

/* ---------------------------------------------------------------- bash */

static void bash_wants(FILE *to, const wants *w) {
    if (w->words[0]) fprintf(to, " _fovea_words \"%.*s\";", (int)strlen(w->words) - 1, w->words);
    if (w->models) fputs(" _fovea_words \"$models\";", to);
    if (w->data_sets) fputs(" _fovea_words \"$data_sets\";", to);
    if (w->commands) fputs(" _fovea_words \"$commands\";", to);
    if (w->recipes) fputs(" _fovea_words \"$recipes\";", to);
    if (w->files) fputs(" _fovea_paths -f;", to);
    else if (w->folders) fputs(" _fovea_paths -d;", to);
}

static void bash_values(FILE *to) {
    fputs("    case $prev in\n", to);
    for (int id = 0; id < OPT_COUNT; id++) {
        const fv_cli_option *o = &fv_cli_options[id];
        wants w = wants_of_option((fv_cli_id)id);
        if (!takes_value(o)) continue;
        fputs("    ", to);
        if (o->short_name) fprintf(to, "-%c | ", o->short_name);
        fprintf(to, "--%s)", o->name);
        bash_wants(to, &w);
        fputs(" _fovea_done; return ;;\n", to);
    }
    fputs("    esac\n", to);
}

static void bash_options(FILE *to) {
    fputs("    case $command in\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        const char *space = "";
        fprintf(to, "    %s) options='", fv_cli_commands[c].name);
        for (int id = 0; id < OPT_COUNT; id++) {
            const fv_cli_option *o = &fv_cli_options[id];
            if (!of_command(id, c)) continue;
            fprintf(to, "%s--%s", space, o->name);
            space = " ";
            if (can_be_negated(o)) fprintf(to, " --no-%s", o->name);
        }
        fputs("' ;;\n", to);
    }
    fputs("    esac\n", to);
}

static void bash_arguments(FILE *to) {
    fputs("    case $command:$place in\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        wants place[FV_PLACES];
        bool repeats;
        int n = wants_of_arguments((fv_cli_command)c, place, &repeats);
        for (int i = 0; i < n; i++) {
            if (repeats && i == n - 1) fprintf(to, "    %s:*)", fv_cli_commands[c].name);
            else fprintf(to, "    %s:%d)", fv_cli_commands[c].name, i);
            bash_wants(to, &place[i]);
            fputs(" ;;\n", to);
        }
    }
    fputs("    *) _fovea_words \"$options\" ;;\n    esac\n", to);
}

static void print_bash(FILE *to) {
    fputs("# Completion of fovea for bash; made by 'fovea completion bash'.\n"
          "# shellcheck shell=bash disable=SC2207\n"
          "_fovea_words() { # those of the words in $1 that begin as what was typed\n"
          "    local IFS=$' \\n'\n"
          "    COMPREPLY+=($(compgen -W \"$1\" -- \"$cur\"))\n"
          "}\n"
          "_fovea_paths() { # -f: files and folders, -d: folders\n"
          "    local path\n"
          "    compopt -o filenames 2>/dev/null\n"
          "    while IFS= read -r path; do COMPREPLY+=(\"$path\"); done < <(compgen \"$1\" -- \"$cur\")\n"
          "}\n"
          "_fovea_done() { # --option=value as one word\n"
          "    [[ -n $before && ${#COMPREPLY[@]} -gt 0 ]] && COMPREPLY=(\"${COMPREPLY[@]/#/$before}\")\n"
          "    return 0\n"
          "}\n"
          "_fovea() {\n"
          "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]}\n"
          "    local before='' options='' place=0 i\n"
          "    local models='",
          to);
    print_models(to);
    fputs("'\n    local data_sets='", to);
    print_data_sets(to);
    fputs("'\n    local commands='", to);
    print_commands(to);
    fputs("'\n    local recipes='", to);
    print_recipes(to);
    fputs("'\n    local valued=' ", to);
    for (int id = 0; id < OPT_COUNT; id++) {
        const fv_cli_option *o = &fv_cli_options[id];
        if (takes_value(o)) fprintf(to, "--%s ", o->name);
        if (takes_value(o) && o->short_name) fprintf(to, "-%c ", o->short_name);
    }
    fputs("'\n    COMPREPLY=()\n"
          "    if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
          "        _fovea_words \"$commands --help --version\"\n"
          "        return\n"
          "    fi\n"
          "    # Most often '=' is a word of its own: --option = value.\n"
          "    if [[ $cur == = ]]; then cur=\n"
          "    elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}\n"
          "    elif [[ $cur == --*=* ]]; then before=${cur%%=*}= prev=${cur%%=*} cur=${cur#*=}; fi\n",
          to);
    bash_values(to);
    bash_options(to);
    fputs("    if [[ $cur == -* ]]; then\n"
          "        _fovea_words \"$options\"\n"
          "        return\n"
          "    fi\n"
          "    for ((i = 2; i < COMP_CWORD; i++)); do # arguments so far\n"
          "        [[ ${COMP_WORDS[i]} == -?* || ${COMP_WORDS[i]} == = || ${COMP_WORDS[i - 1]} == = ||\n"
          "            $valued == *\" ${COMP_WORDS[i - 1]} \"* ]] || place=$((place + 1))\n"
          "    done\n",
          to);
    bash_arguments(to);
    fputs("}\ncomplete -F _fovea fovea\n", to);
}

/* ---------------------------------------------------------------- zsh */

/* Text inside '...[...]' of an _arguments specification. */
static void zsh_text(FILE *to, const char *s) {
    for (; *s; s++) {
        if (*s == '\'') fputs("'\\''", to);
        else if (strchr("[]:\\", *s)) fprintf(to, "\\%c", *s);
        else fputc(*s, to);
    }
}

static void zsh_wants(FILE *to, const wants *w) {
    bool lists = w->words[0] || w->models || w->data_sets || w->commands || w->recipes;
    if (!lists && !w->files && !w->folders) {
        fputc(' ', to);
        return;
    }
    fputc('{', to);
    if (w->words[0]) {
        fputs("compadd -- ", to);
        zsh_text(to, w->words);
        fputs("; ", to);
    }
    if (w->models) fputs("compadd -- $models; ", to);
    if (w->data_sets) fputs("compadd -- $data_sets; ", to);
    if (w->commands) fputs("_describe command commands; ", to);
    if (w->recipes) fputs("compadd -- $recipes; ", to);
    if (w->files) fputs("_files; ", to);
    else if (w->folders) fputs("_files -/; ", to);
    fputc('}', to);
}

static void zsh_option(FILE *to, int id) {
    const fv_cli_option *o = &fv_cli_options[id];
    const char *value = takes_value(o) ? "=" : "";
    char help[80];
    fv_cli_short_help((fv_cli_id)id, help, sizeof help);
    fputs("            ", to);
    if (o->short_name)
        fprintf(to, "'(-%c --%s)'{-%c%s,--%s%s}'[", o->short_name, o->name, o->short_name, takes_value(o) ? "+" : "",
                o->name, value);
    else fprintf(to, "'--%s%s[", o->name, value);
    zsh_text(to, help);
    fputc(']', to);
    if (takes_value(o)) {
        wants w = wants_of_option((fv_cli_id)id);
        fputc(':', to);
        zsh_text(to, o->meta);
        fputc(':', to);
        zsh_wants(to, &w);
    }
    fputs("' \\\n", to);
    if (can_be_negated(o)) fprintf(to, "            '--no-%s[the opposite of --%s]' \\\n", o->name, o->name);
}

static void zsh_command(FILE *to, int command) {
    wants place[FV_PLACES];
    bool repeats;
    int n = wants_of_arguments((fv_cli_command)command, place, &repeats);
    fprintf(to, "        %s)\n            _arguments -s -S \\\n", fv_cli_commands[command].name);
    for (int id = 0; id < OPT_COUNT; id++)
        if (of_command(id, command)) zsh_option(to, id);
    for (int i = 0; i < n; i++) {
        if (repeats && i == n - 1) fputs("            '*", to);
        else fprintf(to, "            '%d", i + 1);
        fputs(":argument:", to);
        zsh_wants(to, &place[i]);
        fputs("' \\\n", to);
    }
    fputs("            && return 0 ;;\n", to);
}

static void print_zsh(FILE *to) {
    fputs("#compdef fovea\n# Completion of fovea for zsh; made by 'fovea completion zsh'.\n"
          "_fovea() {\n"
          "    local curcontext=\"$curcontext\" state line\n"
          "    typeset -A opt_args\n"
          "    local -a commands models data_sets recipes\n"
          "    models=(",
          to);
    print_models(to);
    fputs(")\n    data_sets=(", to);
    print_data_sets(to);
    fputs(")\n    recipes=(", to);
    print_recipes(to);
    fputs(")\n    commands=(\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        fprintf(to, "        '%s:", fv_cli_commands[c].name);
        zsh_text(to, fv_cli_commands[c].summary);
        fputs("'\n", to);
    }
    fputs("    )\n"
          "    _arguments -C '1:command:->command' '*::argument:->argument' && return 0\n"
          "    case $state in\n"
          "    command) _describe command commands ;;\n"
          "    argument)\n"
          "        case $words[1] in\n",
          to);
    for (int c = 0; c < FV_CMD_COUNT; c++) zsh_command(to, c);
    fputs("        esac ;;\n    esac\n    return 1\n}\n"
          "if [ \"$funcstack[1]\" = _fovea ]; then _fovea \"$@\"; else compdef _fovea fovea; fi\n",
          to);
}

/* ---------------------------------------------------------------- fish */

static void fish_text(FILE *to, const char *s) {
    fputc('\'', to);
    for (; *s; s++) {
        if (*s == '\'' || *s == '\\') fputc('\\', to);
        fputc(*s, to);
    }
    fputc('\'', to);
}

/* `value`: of an option, so that files must be asked for or ruled out. */
static void fish_wants(FILE *to, const wants *w, bool value) {
    bool lists = w->words[0] || w->models || w->data_sets || w->commands || w->recipes || (w->folders && !w->files);
    if (value) fputs(w->files ? " -r -F" : " -x", to);
    else if (w->files) fputs(" -F", to);
    if (!lists) return;
    fprintf(to, " -a '%s", w->words);
    if (w->models) fputs("$__fovea_models ", to);
    if (w->data_sets) fputs("$__fovea_data_sets ", to);
    if (w->commands) print_commands(to);
    if (w->recipes) fputs(" $__fovea_recipes", to);
    if (w->folders && !w->files) fputs("(__fish_complete_directories)", to);
    fputc('\'', to);
}

static void fish_option(FILE *to, int id) {
    const fv_cli_option *o = &fv_cli_options[id];
    char help[80];
    fputs("complete -c fovea -n '__fovea_is", to);
    for (int c = 0; c < FV_CMD_COUNT; c++)
        if (of_command(id, c)) fprintf(to, " %s", fv_cli_commands[c].name);
    fprintf(to, "' -l %s", o->name);
    if (o->short_name) fprintf(to, " -s %c", o->short_name);
    if (takes_value(o)) {
        wants w = wants_of_option((fv_cli_id)id);
        fish_wants(to, &w, true);
    }
    fputs(" -d ", to);
    fish_text(to, fv_cli_short_help((fv_cli_id)id, help, sizeof help));
    fputc('\n', to);
    if (can_be_negated(o)) {
        fputs("complete -c fovea -n '__fovea_is", to);
        for (int c = 0; c < FV_CMD_COUNT; c++)
            if (of_command(id, c)) fprintf(to, " %s", fv_cli_commands[c].name);
        fprintf(to, "' -l no-%s -d 'the opposite of --%s'\n", o->name, o->name);
    }
}

static void fish_arguments(FILE *to, int command) {
    wants place[FV_PLACES];
    bool repeats;
    int n = wants_of_arguments((fv_cli_command)command, place, &repeats);
    for (int i = 0; i < n; i++) {
        fprintf(to, "complete -c fovea -n '__fovea_at %s %d%s'", fv_cli_commands[command].name, i,
                repeats && i == n - 1 ? " more" : "");
        fish_wants(to, &place[i], false);
        fputc('\n', to);
    }
}

static void print_fish(FILE *to) {
    fputs("# Completion of fovea for fish; made by 'fovea completion fish'.\n"
          "set -g __fovea_models ",
          to);
    print_models(to);
    fputs("\nset -g __fovea_data_sets ", to);
    print_data_sets(to);
    fputs("\nset -g __fovea_recipes ", to);
    print_recipes(to);
    fputs("\nset -g __fovea_valued", to);
    for (int id = 0; id < OPT_COUNT; id++) {
        const fv_cli_option *o = &fv_cli_options[id];
        if (takes_value(o)) fprintf(to, " --%s", o->name);
        if (takes_value(o) && o->short_name) fprintf(to, " -%c", o->short_name);
    }
    fputs("\nfunction __fovea_is # the command is one of these\n"
          "    set -l words (commandline -opc)\n"
          "    test (count $words) -ge 2; and contains -- $words[2] $argv\n"
          "end\n"
          "function __fovea_at -a command place more # so many arguments stand before this one, or more\n"
          "    __fovea_is $command; or return 1\n"
          "    set -l words (commandline -opc)\n"
          "    set -l before $words[2]\n"
          "    set -l n 0\n"
          "    set -e words[1..2]\n"
          "    for word in $words\n"
          "        if not string match -q -- '-?*' $word; and not contains -- $before $__fovea_valued\n"
          "            set n (math $n + 1)\n"
          "        end\n"
          "        set before $word\n"
          "    end\n"
          "    test $n -eq $place; or test -n \"$more\" -a $n -gt $place\n"
          "end\n"
          "complete -c fovea -f\n",
          to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        fprintf(to, "complete -c fovea -n 'test (count (commandline -opc)) -eq 1' -a %s -d ", fv_cli_commands[c].name);
        fish_text(to, fv_cli_commands[c].summary);
        fputc('\n', to);
    }
    for (int c = 0; c < FV_CMD_COUNT; c++) fish_arguments(to, c);
    for (int id = 0; id < OPT_COUNT; id++) fish_option(to, id);
}

bool fv_cli_print_completion(FILE *to, const char *shell) {
    if (!strcmp(shell, "bash")) return print_bash(to), true;
    if (!strcmp(shell, "zsh")) return print_zsh(to), true;
    if (!strcmp(shell, "fish")) return print_fish(to), true;
    return false;
}
