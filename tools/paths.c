/* paths.c: from arguments to the paths of pictures. */
#include "tools/predict.h"

#include <errno.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct collector {
    fv_console *con;
    fv_ctx *ctx;
    fv_arena *arena;
    fv_path_list *list;
} collector;

static fv_status add(collector *c, const char *path) {
    fv_path_list *l = c->list;
    if (l->count == l->room) {
        int64_t room = l->room ? 2 * l->room : 64;
        const char **wider = fv_alloc(c->ctx, (size_t)room, sizeof *wider);
        if (!wider) return c->ctx->error.code;
        if (l->count) memcpy(wider, l->path, (size_t)l->count * sizeof *wider);
        fv_free(c->ctx, l->path, (size_t)l->room, sizeof *l->path);
        l->path = wider;
        l->room = room;
    }
    const char *copy = fv_arena_strdup(c->arena, path);
    if (!copy) return c->ctx->error.code;
    l->path[l->count++] = copy;
    return FV_OK;
}

/* Report what cannot be read, and go on. */
static void skip(collector *c, const char *path, const char *why) {
    fv_fail_at(c->ctx, FV_E_DATA, path, -1, "%s", why);
    fv_console_error(c->con, &c->ctx->error);
    c->list->failed++;
}

static int by_name(const FTSENT **a, const FTSENT **b) {
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static fv_status add_entry(collector *c, FTS *walk, FTSENT *e) {
    if (e->fts_level > 0 && e->fts_name[0] == '.') {
        if (e->fts_info == FTS_D) fts_set(walk, e, FTS_SKIP);
        return FV_OK;
    }
    switch (e->fts_info) {
    case FTS_F: return fv_image_name(e->fts_path) ? add(c, e->fts_path) : FV_OK;
    case FTS_DNR:
    case FTS_ERR:
    case FTS_NS: skip(c, e->fts_path, strerror(e->fts_errno)); return FV_OK;
    default: return FV_OK; /* folders; a link to a folder above (FTS_DC); broken links (FTS_SLNONE) */
    }
}

static fv_status add_folder(collector *c, const char *folder) {
    char *copy = fv_arena_strdup(c->arena, folder), *roots[2] = {copy, NULL};
    if (!copy) return c->ctx->error.code;
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--) copy[n - 1] = '\0';
    int64_t before = c->list->count, failed = c->list->failed;
    FTS *walk = fts_open(roots, FTS_LOGICAL | FTS_NOCHDIR, by_name);
    if (!walk && errno == ENOMEM) return fv_fail_memory(c->ctx, 4096, "the list of a folder");
    if (!walk) return skip(c, folder, strerror(errno)), FV_OK;
    fv_status status = FV_OK;
    FTSENT *e;
    while (status == FV_OK && (errno = 0, e = fts_read(walk)) != NULL) status = add_entry(c, walk, e);
    if (status == FV_OK && errno == ENOMEM) status = fv_fail_memory(c->ctx, 4096, "the list of a folder");
    else if (status == FV_OK && errno) skip(c, folder, strerror(errno));
    fts_close(walk);
    if (status == FV_OK && c->list->count == before && c->list->failed == failed)
        skip(c, folder, "no .jpg, .jpeg, .png or .webp file in this folder");
    return status;
}

static fv_status add_argument(collector *c, const char *path) {
    struct stat st;
    if (stat(path, &st) != 0) return skip(c, path, strerror(errno)), FV_OK;
    return S_ISDIR(st.st_mode) ? add_folder(c, path) : add(c, path);
}

static fv_status add_lines(collector *c) {
    char *line = NULL;
    size_t room = 0;
    ssize_t n;
    fv_status status = FV_OK;
    while (status == FV_OK && (n = getline(&line, &room, stdin)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = '\0';
        if (n > 0) status = add_argument(c, line);
    }
    free(line);
    if (status == FV_OK && ferror(stdin)) return fv_fail(c->ctx, FV_E_IO, "standard input: %s", strerror(errno));
    return status;
}

fv_status fv_paths_collect(fv_console *con, fv_ctx *ctx, fv_arena *arena, const char *const *arguments, int n,
                           fv_path_list *out) {
    collector c = {.con = con, .ctx = ctx, .arena = arena, .list = out};
    *out = (fv_path_list){0};
    for (int i = 0; i < n; i++) FV_TRY(strcmp(arguments[i], "-") ? add_argument(&c, arguments[i]) : add_lines(&c));
    return FV_OK;
}

void fv_paths_free(fv_ctx *ctx, fv_path_list *list) {
    if (list->path) fv_free(ctx, list->path, (size_t)list->room, sizeof *list->path);
}
