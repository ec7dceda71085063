#include "tools/cli/recipes.h"

#include <stdlib.h>
#include <string.h>

#define FV_MOST_RECIPES 100

fv_status fv_recipe_find(fv_ctx *ctx, const char *text, const fv_recipe **out) {
    const char *names[FV_MOST_RECIPES], *version = strchr(text, '@');
    char name[64];
    int n = 0;
    snprintf(name, sizeof name, "%.*s", (int)strcspn(text, "@"), text);
    for (*out = NULL; n < fv_recipe_count && n < FV_MOST_RECIPES; n++) {
        names[n] = fv_recipes[n].name;
        if (!strcmp(name, names[n])) *out = &fv_recipes[n];
    }
    if (!*out) {
        const char *near = fv_text_nearest(name, names, n);
        fv_fail(ctx, FV_E_USAGE, "unknown recipe '%.60s'%s%s%s", text, near ? "; did you mean '" : "", near ? near : "",
                near ? "'?" : "");
        fv_hint(ctx, "'fovea help recipes' lists the recipes");
        return FV_E_USAGE;
    }
    char known[16];
    snprintf(known, sizeof known, "%d", (*out)->version);
    if (!version || !strcmp(version + 1, known)) return FV_OK;
    fv_fail(ctx, FV_E_USAGE, "recipe '%s' is at version %s in this program, not at '%.20s'", name, known, version + 1);
    return fv_hint(ctx,
                   "'--recipe %s' takes this one; an args.yaml holds all options, and can do without its line "
                   "'recipe:'",
                   name);
}

fv_status fv_recipe_take(fv_cli *cli) {
    fv_cli_value *given = &cli->value[OPT_RECIPE];
    const fv_recipe *recipe = NULL;
    char where[96];
    if (!fv_cli_applies(cli, OPT_RECIPE) || !given->text) return FV_OK;
    FV_TRY(fv_recipe_find(cli->ctx, given->text, &recipe));
    given->text = fv_arena_printf(&cli->arena, "%s@%d", recipe->name, recipe->version);
    if (!given->text) return cli->ctx->error.code;
    snprintf(where, sizeof where, "recipe %s", recipe->name);
    return fv_cli_read_yaml_text(cli, recipe->text, strlen(recipe->text), where, FV_FROM_RECIPE, NULL, 0);
}
