/* recipes.h: named sets of options that are known to work: tools/recipes/NAME.yaml, built into the program.
 *
 *   tools/recipes/cifar10-94.yaml ─► embed.awk ─► fv_recipes[] ─► --recipe cifar10-94 ─► options, weaker than -c and
 * flags
 */
#ifndef FV_TOOLS_CLI_RECIPES_H
#define FV_TOOLS_CLI_RECIPES_H

#include "tools/cli/options.h"

typedef struct fv_recipe {
    const char *name, *title;
    const char *accuracy, *source; /* a line each, for people */
    const char *model;
    int version;      /* another one: other results */
    const char *text; /* the file */
} fv_recipe;
/* By name. */
extern const fv_recipe fv_recipes[];
extern const int fv_recipe_count;

/* "NAME" or "NAME@VERSION". FV_E_USAGE, with the nearest name, if the program does not have it. */
fv_status fv_recipe_find(fv_ctx *ctx, const char *text, const fv_recipe **out);
/* Set the options of --recipe, if it was given; its value becomes NAME@VERSION. */
fv_status fv_recipe_take(fv_cli *cli);
/* help.c: all of them, to read. */
void fv_recipe_list(FILE *to);

#endif
