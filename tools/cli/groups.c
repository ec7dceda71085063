/* groups.c: the option --param-groups.
 *
 *   norm:lr=64:wd=0.02,head:lr=2     groups between commas; which parameters, then keys with values, between colons */
#include "tools/cli/options.h"

#include <stdlib.h>
#include <string.h>

typedef struct group_key {
    const char *name;
    double min, max;
} group_key;
enum { KEY_LR, KEY_WD, KEY_MOMENTUM, KEY_UNTIL, KEY_WITHIN, KEYS };
static const group_key keys[KEYS] = {[KEY_LR] = {"lr", 0, 1e6},
                                     [KEY_WD] = {"wd", 0, 1000},
                                     [KEY_MOMENTUM] = {"momentum", 0, 0.9999},
                                     [KEY_UNTIL] = {"until", 0.001, 1e6},
                                     [KEY_WITHIN] = {"within", 0.001, 1e6}};

static int find_key(const char *name) {
    for (int i = 0; i < KEYS; i++)
        if (!strcmp(keys[i].name, name)) return i;
    return -1;
}

static fv_status bad_key(fv_ctx *ctx, const char *pattern, const char *name) {
    static const char *const names[KEYS] = {"lr", "wd", "momentum", "until", "within"};
    const char *near = fv_text_nearest(name, names, KEYS);
    fv_fail(ctx, FV_E_USAGE,
            "--param-groups: '%.60s' has the key '%.60s'; there are lr, wd, momentum, until and within", pattern, name);
    return near ? fv_hint(ctx, "did you mean '%s'?", near) : FV_E_USAGE;
}

/* "lr=64" */
static fv_status read_key(fv_ctx *ctx, char *text, const char *pattern, double values[KEYS]) {
    char *value = strchr(text, '='), *end = NULL;
    if (!value)
        return fv_fail(ctx, FV_E_USAGE, "--param-groups: '%.60s' of '%.60s' is no KEY=VALUE such as lr=2", text,
                       pattern);
    *value++ = '\0';
    int key = find_key(text);
    if (key < 0) return bad_key(ctx, pattern, text);
    bool number = *value && value[strspn(value, "+-.0123456789eE")] == '\0';
    double v = number ? strtod(value, &end) : 0;
    if (!number || *end || !(v >= keys[key].min && v <= keys[key].max))
        return fv_fail(ctx, FV_E_USAGE, "--param-groups: %s of '%.60s' must be a number from %g to %g, not '%.60s'",
                       text, pattern, keys[key].min, keys[key].max, value);
    values[key] = v;
    return FV_OK;
}

/* "norm:lr=64:wd=0.02" */
static fv_status read_group(fv_ctx *ctx, char *text, fv_cli_group *out) {
    double values[KEYS] = {[KEY_LR] = 1, [KEY_WD] = -1, [KEY_MOMENTUM] = -1};
    char *pattern = strsep(&text, ":"), *key;
    if (!pattern[0] ||
        strspn(pattern, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.") != strlen(pattern))
        return fv_fail(ctx, FV_E_USAGE,
                       "--param-groups: '%.60s' says nothing of which parameters: norm, bias, head, matrix or a name",
                       pattern);
    if (!text)
        return fv_fail(ctx, FV_E_USAGE, "--param-groups: '%.60s' has no key; for example '%.60s:lr=2'", pattern,
                       pattern);
    while ((key = strsep(&text, ":"))) FV_TRY(read_key(ctx, key, pattern, values));
    *out = (fv_cli_group){.pattern = pattern,
                          .lr = values[KEY_LR],
                          .weight_decay = values[KEY_WD],
                          .momentum = values[KEY_MOMENTUM],
                          .until = values[KEY_UNTIL],
                          .within = values[KEY_WITHIN]};
    return FV_OK;
}

fv_status fv_cli_read_groups(fv_ctx *ctx, fv_arena *arena, const char *text, fv_cli_group *out, int *n) {
    char *rest = fv_arena_strdup(arena, text), *group;
    *n = 0;
    if (!rest) return ctx->error.code;
    while ((group = strsep(&rest, ","))) {
        if (*n == FV_MAX_PARAM_GROUPS)
            return fv_fail(ctx, FV_E_USAGE, "--param-groups: more than %d groups", FV_MAX_PARAM_GROUPS);
        FV_TRY(read_group(ctx, group, &out[(*n)++]));
    }
    return FV_OK;
}
