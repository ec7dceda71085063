/* options.c: from argv, environment and defaults to the values of one invocation. */
#include "tools/cli/recipes.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

const fv_cli_command_info fv_cli_commands[FV_CMD_COUNT] = {
#define FV_CLI_COMMAND(letter, name, args, min, max, summary) {#name, args, summary, min, max},
    FV_COMMAND_TABLE(FV_CLI_COMMAND)
#undef FV_CLI_COMMAND
};

/* Letters of the `commands` column. */
enum {
#define FV_CLI_COMMAND(letter, name, args, min, max, summary) letter = 1 << FV_CMD_##name,
    FV_COMMAND_TABLE(FV_CLI_COMMAND)
#undef FV_CLI_COMMAND
};

const fv_cli_option fv_cli_options[OPT_COUNT] = {
#define GROUP(title)
#define OPT(id, name, short_name, type, def, env, min, max, choices, commands, meta, help) \
    [OPT_##id] = {name, short_name, FV_CLI_##type, def, env, min, max, choices, commands, meta, help},
#include "tools/cli/options.def"
};

/* ---------------------------------------------------------------- finding */

bool fv_cli_applies(const fv_cli *cli, fv_cli_id id) {
    return (fv_cli_options[id].commands >> cli->command) & 1;
}

static bool same_name(const char *option, const char *name, size_t length) {
    for (size_t i = 0; i < length; i++) {
        char c = (char)(name[i] == '_' ? '-' : name[i]);
        if (option[i] == '\0' || option[i] != c) return false;
    }
    return option[length] == '\0';
}

int fv_cli_find(const char *name, size_t length) {
    for (int i = 0; i < OPT_COUNT; i++)
        if (same_name(fv_cli_options[i].name, name, length)) return i;
    return -1;
}

const char *fv_cli_env_name(fv_cli_id id, char *buf, size_t size) {
    const fv_cli_option *o = &fv_cli_options[id];
    if (o->env && !o->env[0]) return NULL;
    snprintf(buf, size, o->env ? "%s" : "FOVEA_%s", o->env ? o->env : o->name);
    if (!o->env)
        for (char *p = buf; *p; p++) *p = (char)(*p == '-' ? '_' : *p >= 'a' && *p <= 'z' ? *p - 'a' + 'A' : *p);
    return buf;
}

/* The commands that take an option: "'train' and 'bench'". */
static void command_list(fv_cli_id id, char *buf, size_t size) {
    size_t used = 0;
    int left = __builtin_popcount(fv_cli_options[id].commands);
    buf[0] = '\0';
    for (int c = 0; c < FV_CMD_COUNT && used < size; c++) {
        if (!((fv_cli_options[id].commands >> c) & 1)) continue;
        left--;
        int n = snprintf(buf + used, size - used, "'%s'%s", fv_cli_commands[c].name,
                         left > 1 ? ", "
                         : left   ? " and "
                                  : "");
        used += n > 0 ? (size_t)n : 0;
    }
}

/* ---------------------------------------------------------------- values */

static fv_status parse_bool(fv_cli *cli, const char *text, const char *where, double *out) {
    static const char *const yes[] = {"true", "yes", "on", "1"}, *const no[] = {"false", "no", "off", "0"};
    for (int i = 0; i < 4; i++) {
        if (!strcasecmp(text, yes[i])) return *out = 1, FV_OK;
        if (!strcasecmp(text, no[i])) return *out = 0, FV_OK;
    }
    return fv_fail(cli->ctx, FV_E_USAGE, "%s must be true or false, not '%s'", where, text);
}

static fv_status bad_number(fv_cli *cli, const fv_cli_option *o, const char *text, const char *where) {
    bool whole = o->type == FV_CLI_INT;
    const char *kind = o->type == FV_CLI_FLOATS ? "hold numbers" : whole ? "be a whole number" : "be a number";
    char min[32], max[32];
    snprintf(min, sizeof min, whole ? "%.0f" : "%.9g", o->min);
    snprintf(max, sizeof max, whole ? "%.0f" : "%.9g", o->max);
    fv_fail(cli->ctx, FV_E_USAGE, "%s must %s from %s to %s, not '%.60s'", where, kind, min, max, text);
    if (o->type != FV_CLI_FLOATS && strchr(text, ',')) fv_hint(cli->ctx, "one number, with a decimal point: 0.1");
    return FV_E_USAGE;
}

static fv_status parse_number(fv_cli *cli, const fv_cli_option *o, const char *text, const char *where, double *out) {
    char *end = NULL;
    if (text[strspn(text, "+-.0123456789eE")]) return bad_number(cli, o, text, where); /* 0x10, nan, spaces */
    double v = strtod(text, &end);
    bool good = end != text && *end == '\0' && isfinite(v) && v >= o->min && v <= o->max;
    if (!good || (o->type == FV_CLI_INT && v != floor(v))) return bad_number(cli, o, text, where);
    return *out = v, FV_OK;
}

/* ":" and up to four digits. */
static bool is_number_behind_colon(const char *s) {
    const size_t digits = s[0] == ':' ? strspn(s + 1, "0123456789") : 0;
    return digits >= 1 && digits <= 4 && s[1 + digits] == '\0';
}

/* One of the choices, in either case; *text becomes the choice as the table has it. Where the table says so, a number
 * may follow: "cuda:1". */
static fv_status parse_choice(fv_cli *cli, const fv_cli_option *o, const char **text, const char *where, double *out) {
    if (o == &fv_cli_options[OPT_PRECISION] && !strcasecmp(*text, "bfloat16")) *text = "bf16"; /* PyTorch's name */
    char *copy = fv_arena_strdup(&cli->arena, o->choices);
    if (!copy) return cli->ctx->error.code;
    const char *names[16];
    int n = 0;
    const size_t length = strcspn(*text, ":");
    const bool numbered = o->meta && strstr(o->meta, "[:N]") && is_number_behind_colon(*text + length);
    char list[256] = "", *save = NULL;
    for (char *p = strtok_r(copy, "|", &save); p && n < 16; p = strtok_r(NULL, "|", &save)) {
        names[n] = p;
        if (!strcasecmp(p, *text)) return *text = p, *out = n, FV_OK;
        if (numbered && strlen(p) == length && !strncasecmp(p, *text, length)) return *out = n, FV_OK;
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", n ? ", " : "", p);
        n++;
    }
    const char *near = fv_text_nearest(*text, names, n);
    fv_fail(cli->ctx, FV_E_USAGE, "%s must be one of %s; not '%.60s'%s%s%s", where, list, *text,
            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
    return FV_E_USAGE;
}

static fv_status parse_list(fv_cli *cli, const fv_cli_option *o, const char *text, const char *where, fv_cli_value *v) {
    char *copy = fv_arena_strdup(&cli->arena, text), *save = NULL;
    if (!copy) return cli->ctx->error.code;
    for (char *p = strtok_r(copy, ", ", &save); p; p = strtok_r(NULL, ", ", &save)) {
        if (v->count == FV_CLI_LIST)
            return fv_fail(cli->ctx, FV_E_USAGE, "%s takes at most %d values", where, FV_CLI_LIST);
        if (o->type == FV_CLI_STRINGS) v->string[v->count] = p;
        else FV_TRY(parse_number(cli, o, p, where, &v->number[v->count]));
        v->count++;
    }
    if (!v->count) return fv_fail(cli->ctx, FV_E_USAGE, "%s needs at least one value", where);
    return FV_OK;
}

/* args.yaml and JSON could not hold anything else. */
static fv_status check_text(fv_cli *cli, const char *text, const char *where) {
    for (int n = 0; *text; text += n) {
        n = fv_text_utf8(text);
        if (n == 0) return fv_fail(cli->ctx, FV_E_USAGE, "%s is not valid UTF-8 text", where);
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return fv_fail(cli->ctx, FV_E_USAGE, "%s holds a control character (byte 0x%02x)", where, *text);
    }
    return FV_OK;
}

fv_status fv_cli_set(fv_cli *cli, fv_cli_id id, const char *text, fv_cli_source source, const char *where) {
    const fv_cli_option *o = &fv_cli_options[id];
    if (source < cli->value[id].source) return FV_OK;
    if (!text[0]) return fv_fail(cli->ctx, FV_E_USAGE, "%s must not be empty", where);
    FV_TRY(check_text(cli, text, where));
    fv_cli_value v = {.source = source, .text = fv_arena_strdup(&cli->arena, text)};
    if (!v.text) return cli->ctx->error.code;
    switch (o->type) {
    case FV_CLI_BOOL:
        FV_TRY(parse_bool(cli, text, where, &v.number[0]));
        v.text = v.number[0] != 0 ? "true" : "false";
        break;
    case FV_CLI_INT:
    case FV_CLI_FLOAT: FV_TRY(parse_number(cli, o, text, where, &v.number[0])); break;
    case FV_CLI_CHOICE: FV_TRY(parse_choice(cli, o, &v.text, where, &v.number[0])); break;
    case FV_CLI_FLOATS:
    case FV_CLI_STRINGS: FV_TRY(parse_list(cli, o, text, where, &v)); break;
    case FV_CLI_STRING: break;
    }
    cli->value[id] = v;
    return FV_OK;
}

fv_status fv_cli_resolve(fv_cli *cli, fv_cli_id id, const char *fmt, ...) {
    if (cli->value[id].text) return FV_OK;
    char text[512], where[64];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    snprintf(where, sizeof where, "--%s", fv_cli_options[id].name);
    return fv_cli_set(cli, id, text, FV_FROM_RESOLVED, where);
}

bool fv_cli_given(const fv_cli *cli, fv_cli_id id) {
    return cli->value[id].source >= FV_FROM_ENV;
}
bool fv_cli_has(const fv_cli *cli, fv_cli_id id) {
    return cli->value[id].text != NULL;
}
bool fv_cli_bool(const fv_cli *cli, fv_cli_id id) {
    assert(fv_cli_options[id].type == FV_CLI_BOOL);
    return cli->value[id].number[0] != 0;
}
int64_t fv_cli_int(const fv_cli *cli, fv_cli_id id) {
    assert(fv_cli_options[id].type == FV_CLI_INT || fv_cli_options[id].type == FV_CLI_CHOICE);
    return (int64_t)cli->value[id].number[0];
}
double fv_cli_float(const fv_cli *cli, fv_cli_id id) {
    return cli->value[id].number[0];
}
const char *fv_cli_text(const fv_cli *cli, fv_cli_id id) {
    return cli->value[id].text;
}

/* ---------------------------------------------------------------- argv */

/* "--name --epochs 3": what follows is an option, not a value. Numbers may begin with a minus. */
static bool looks_like_option(const char *word) {
    return word[0] == '-' && (word[1] == '-' || (word[1] >= 'a' && word[1] <= 'z'));
}

/* The value of an option: what stands behind its `=`, else the next word. */
static fv_status take_value(fv_cli *cli, const fv_cli_option *o, const char *attached, int argc, char **argv, int *i,
                            const char **out) {
    const char *written = argv[*i];
    if (attached) *out = attached;
    else if (*i + 1 < argc && !looks_like_option(argv[*i + 1])) *out = argv[++*i];
    else *out = "";
    if (**out) return FV_OK;
    fv_fail(cli->ctx, FV_E_USAGE, "--%s needs a value: --%s %s", o->name, o->name, o->meta);
    if (!attached && *i + 1 < argc && written[1] == '-')
        fv_hint(cli->ctx, "'%.100s' comes next, and that is an option; if it is the value, write '--%s=%.100s'",
                argv[*i + 1], o->name, argv[*i + 1]);
    return FV_E_USAGE;
}

static fv_status wrong_command(fv_cli *cli, fv_cli_id id) {
    char takers[256];
    command_list(id, takers, sizeof takers);
    return fv_fail(cli->ctx, FV_E_USAGE, "option '--%s' is not one of 'fovea %s'; it belongs to %s",
                   fv_cli_options[id].name, fv_cli_commands[cli->command].name, takers);
}

/* --name, --name=value, --name value, --no-name. *i is the place in argv. */
static fv_status parse_long(fv_cli *cli, int argc, char **argv, int *i) {
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    int id = fv_cli_find(name, length);
    bool negated = false;
    if (id < 0 && length > 3 && !strncmp(name, "no-", 3)) {
        id = fv_cli_find(name + 3, length - 3);
        if (id >= 0 && fv_cli_options[id].type != FV_CLI_BOOL) id = -1;
        negated = id >= 0;
    }
    if (id < 0) return fv_cli_unknown_option(cli, "--", name, length);
    if (!fv_cli_applies(cli, (fv_cli_id)id)) return wrong_command(cli, (fv_cli_id)id);
    const fv_cli_option *o = &fv_cli_options[id];
    char where[64];
    snprintf(where, sizeof where, "--%s%s", negated ? "no-" : "", o->name);
    if (negated && equals) return fv_fail(cli->ctx, FV_E_USAGE, "%s takes no value", where);
    if (o->type == FV_CLI_BOOL)
        return fv_cli_set(cli, (fv_cli_id)id, equals ? equals + 1 : negated ? "false" : "true", FV_FROM_FLAG, where);
    const char *text = NULL;
    FV_TRY(take_value(cli, o, equals ? equals + 1 : NULL, argc, argv, i, &text));
    return fv_cli_set(cli, (fv_cli_id)id, text, FV_FROM_FLAG, where);
}

/* -q, -qv, -b 128, -b128, -b=128 */
static fv_status parse_short(fv_cli *cli, int argc, char **argv, int *i) {
    const char *word = argv[*i] + 1;
    for (const char *p = word; *p; p++) {
        int id = 0;
        while (id < OPT_COUNT && fv_cli_options[id].short_name != *p) id++;
        size_t length = strcspn(word, "=");
        bool is_long = length > 2 && fv_cli_find(word, length) >= 0; /* "-epochs" */
        if (id == OPT_COUNT || is_long)
            return fv_cli_unknown_option(cli, "-", is_long ? word : p, is_long ? length : 1);
        if (!fv_cli_applies(cli, (fv_cli_id)id)) return wrong_command(cli, (fv_cli_id)id);
        const fv_cli_option *o = &fv_cli_options[id];
        char where[64];
        snprintf(where, sizeof where, "-%c (--%s)", *p, o->name);
        if (o->type == FV_CLI_BOOL) {
            FV_TRY(fv_cli_set(cli, (fv_cli_id)id, "true", FV_FROM_FLAG, where));
            continue;
        }
        const char *attached = p[1] == '=' ? p + 2 : p[1] ? p + 1 : NULL, *text = NULL;
        FV_TRY(take_value(cli, o, attached, argc, argv, i, &text));
        return fv_cli_set(cli, (fv_cli_id)id, text, FV_FROM_FLAG, where);
    }
    return FV_OK;
}

/* The option that a word stands for, for messages about the word behind it; -1: none. */
static int option_of(const char *word) {
    if (word[0] != '-') return -1;
    if (word[1] == '-') return fv_cli_find(word + 2, strcspn(word + 2, "="));
    for (int id = 0; id < OPT_COUNT; id++)
        if (word[1] && fv_cli_options[id].short_name == word[1]) return id;
    return -1;
}

static fv_status parse_arguments(fv_cli *cli, int argc, char **argv) {
    const fv_cli_command_info *info = &fv_cli_commands[cli->command];
    bool options = true;
    int before = -1;
    cli->positional = fv_arena_alloc(&cli->arena, (size_t)argc, sizeof *cli->positional);
    if (!cli->positional) return cli->ctx->error.code;
    for (int i = 2; i < argc; i++) {
        const char *a = argv[i];
        if (options && a[0] == '-' && a[1]) {
            before = option_of(a);
            if (!strcmp(a, "--")) options = false;
            else FV_TRY(a[1] == '-' ? parse_long(cli, argc, argv, &i) : parse_short(cli, argc, argv, &i));
        } else if (cli->positionals < info->max_positional) {
            cli->positional[cli->positionals++] = a;
        } else {
            return fv_cli_unexpected(cli, a, before);
        }
        if (cli->value[OPT_HELP].source == FV_FROM_FLAG) return FV_OK;
    }
    if (cli->positionals < info->min_positional) {
        fv_fail(cli->ctx, FV_E_USAGE, "an argument is missing");
        return fv_hint(cli->ctx, "usage: fovea %s [options] %s", info->name, info->arguments);
    }
    return FV_OK;
}

static fv_status read_environment(fv_cli *cli) {
    for (int i = 0; i < OPT_COUNT; i++) {
        char name[64];
        if (!fv_cli_applies(cli, (fv_cli_id)i) || !fv_cli_env_name((fv_cli_id)i, name, sizeof name)) continue;
        const char *text = getenv(name);
        if (text && text[0]) FV_TRY(fv_cli_set(cli, (fv_cli_id)i, text, FV_FROM_ENV, name));
    }
    return FV_OK;
}

static fv_status find_command(fv_cli *cli, const char *word) {
    if (!strcmp(word, "--help") || !strcmp(word, "-h")) word = "help";
    if (!strcmp(word, "--version") || !strcmp(word, "-V")) word = "version";
    for (int c = 0; c < FV_CMD_COUNT; c++)
        if (!strcmp(word, fv_cli_commands[c].name)) return cli->command = (fv_cli_command)c, FV_OK;
    return fv_cli_unknown_command(cli->ctx, word);
}

fv_status fv_cli_parse(fv_cli *cli, fv_ctx *ctx, int argc, char **argv) {
    memset(cli, 0, sizeof *cli);
    cli->ctx = ctx;
    cli->command = FV_CMD_COUNT;
    fv_arena_init(&cli->arena, ctx);
    FV_TRY(find_command(cli, argv[1]));
    FV_TRY(parse_arguments(cli, argc, argv));
    if (fv_cli_bool(cli, OPT_HELP)) return FV_OK;
    FV_TRY(read_environment(cli));
    if (cli->value[OPT_CONFIG].text) FV_TRY(fv_cli_read_yaml(cli, cli->value[OPT_CONFIG].text, FV_FROM_FILE, NULL, 0));
    FV_TRY(fv_recipe_take(cli));
    for (int i = 0; i < OPT_COUNT; i++) {
        const fv_cli_option *o = &fv_cli_options[i];
        if (fv_cli_applies(cli, (fv_cli_id)i) && o->def)
            FV_TRY(fv_cli_set(cli, (fv_cli_id)i, o->def, FV_FROM_DEFAULT, o->name));
    }
    return FV_OK;
}

void fv_cli_free(fv_cli *cli) {
    fv_arena_free(&cli->arena);
}
