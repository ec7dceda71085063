/* predict.h: the pictures that `predict` is given. */
#ifndef FV_TOOLS_PREDICT_H
#define FV_TOOLS_PREDICT_H

#include "tools/cli/console.h"

typedef struct fv_path_list {
    const char **path;
    int64_t count, room;
    int64_t failed; /* arguments and folders that could not be read; they have been reported */
} fv_path_list;

/* paths.c. Files as they are given; folders with all picture files below them, by name, hidden ones left out; "-": a
 * path per line of standard input. Texts lie in the arena. */
fv_status fv_paths_collect(fv_console *con, fv_ctx *ctx, fv_arena *arena, const char *const *arguments, int n,
                           fv_path_list *out);
void fv_paths_free(fv_ctx *ctx, fv_path_list *list);

#endif
