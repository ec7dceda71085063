/* parts.c: which pictures train, which validate and which test: by a CSV file, or by the hash of their paths. */
#include "data/listing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

/* ---------------------------------------------------------------- by a file */

typedef struct part_file {
    fv_listing *list;
    fv_csv csv;
    fv_csv_columns columns;
    fv_arena arena;
    fv_index paths;
    int64_t *line; /* [list->count] where a picture stands in the file */
    fv_few unknown;
} part_file;

static fv_status take_part(part_file *f) {
    FV_TRY(fv_csv_check_cells(&f->csv, &f->columns));
    const char *path = fv_csv_path(f->csv.cell[f->columns.path]), *word = f->csv.cell[f->columns.part];
    fv_part part = fv_part_of(word);
    if (part == FV_PART_COUNT)
        return fv_csv_fail(&f->csv, "the part is '%s', not train, val (valid, validation) or test", word);
    int32_t i = fv_index_find(&f->paths, path);
    if (i < 0) {
        fv_few_add(&f->unknown, "%s", path);
        return FV_OK;
    }
    if (f->line[i]) return fv_csv_fail(&f->csv, "'%s' stands in line %lld already", path, (long long)f->line[i]);
    f->line[i] = f->csv.line;
    f->list->item[i].part = (uint8_t)part;
    f->list->has_part[part] = true;
    return FV_OK;
}

static fv_status index_paths(part_file *f) {
    for (int64_t i = 0; i < f->list->count; i++) {
        int32_t number;
        bool fresh;
        FV_TRY(fv_index_add(&f->paths, f->list->item[i].path, &number, &fresh));
        f->list->item[i].part = FV_PART_COUNT;
    }
    return FV_OK;
}

static fv_status read_parts(part_file *f) {
    bool more;
    FV_TRY(index_paths(f));
    FV_TRY(fv_csv_next(&f->csv, &more));
    if (!more) return fv_fail_at(f->list->ctx, FV_E_DATA, f->csv.path, -1, "is empty");
    FV_TRY(fv_csv_find_columns(&f->csv, false, &f->columns));
    if (f->columns.header) FV_TRY(fv_csv_next(&f->csv, &more));
    while (more) {
        FV_TRY(take_part(f));
        FV_TRY(fv_csv_next(&f->csv, &more));
    }
    if (!f->unknown.count) return FV_OK;
    fv_fail_at(f->list->ctx, FV_E_DATA, f->csv.path, -1, "%lld of its paths are not in %s: %s",
               (long long)f->unknown.count, f->list->source, fv_few_text(&f->unknown));
    return fv_hint(f->list->ctx, "its paths begin at %s, as in %s", f->list->root, f->list->item[0].path);
}

fv_status fv_parts_from_file(fv_listing *list, const char *path) {
    fv_ctx *ctx = list->ctx;
    part_file *f = fv_calloc(ctx, 1, sizeof *f);
    if (!f) return FV_E_MEMORY;
    f->list = list;
    fv_arena_init(&f->arena, ctx);
    fv_index_init(&f->paths, ctx);
    memset(list->has_part, 0, sizeof list->has_part);
    f->line = fv_arena_alloc(&f->arena, (size_t)list->count, sizeof *f->line);
    fv_status status = f->line ? fv_csv_open(&f->csv, ctx, &f->arena, path) : FV_E_MEMORY;
    if (status == FV_OK) status = read_parts(f);
    fv_index_free(&f->paths);
    fv_arena_free(&f->arena);
    fv_free(ctx, f, 1, sizeof *f);
    return status;
}

fv_status fv_parts_check(const fv_listing *list, const char *path) {
    fv_few missing = {0};
    for (int64_t i = 0; i < list->count; i++)
        if (list->item[i].part == FV_PART_COUNT) fv_few_add(&missing, "%s", list->item[i].path);
    if (!missing.count) return FV_OK;
    fv_fail_at(list->ctx, FV_E_DATA, path, -1, "%lld pictures of %s are not in this file: %s", (long long)missing.count,
               list->source, fv_few_text(&missing));
    return fv_hint(list->ctx, "add a line 'path,part' for each, or take the pictures out of the set");
}

/* ---------------------------------------------------------------- by hash */

typedef struct candidate {
    uint64_t hash; /* of the path below the root: it stays when the folder moves */
    int64_t item;
    int32_t label;
} candidate;

static int by_label_and_hash(const void *a, const void *b) {
    const candidate *x = a, *y = b;
    if (x->label != y->label) return (x->label > y->label) - (x->label < y->label);
    if (x->hash != y->hash) return (x->hash > y->hash) - (x->hash < y->hash);
    return (x->item > y->item) - (x->item < y->item);
}

/* Divide the n candidates of one class, sorted by hash. */
static void divide(fv_listing *list, const candidate *c, int64_t n, double val, double test) {
    int64_t n_test = (int64_t)floor(test * (double)n + 0.5), n_val = (int64_t)floor(val * (double)n + 0.5);
    if (n_test > n - 1) n_test = n - 1;
    if (n_val > n - 1 - n_test) n_val = n - 1 - n_test;
    for (int64_t i = 0; i < n_test + n_val; i++) list->item[c[i].item].part = i < n_test ? FV_PART_TEST : FV_PART_VAL;
}

/* Pictures of several labels are divided by their first; a class that this leaves without a picture in train gets the
 * one with the largest hash back. best: [classes] candidates. */
static void keep_every_class(fv_listing *list, const candidate *c, int64_t n, const candidate **best) {
    static const candidate in_train;
    for (int64_t i = 0; i < list->count; i++) {
        const fv_listed *item = &list->item[i];
        for (int32_t k = 0; k < item->labels && item->part == FV_PART_TRAIN; k++)
            best[list->label[item->first + k]] = &in_train;
    }
    for (int64_t i = 0; i < n; i++) {
        const fv_listed *item = &list->item[c[i].item];
        for (int32_t k = 0; k < item->labels; k++) {
            const candidate **b = &best[list->label[item->first + k]];
            if (*b != &in_train && (!*b || c[i].hash > (*b)->hash)) *b = &c[i];
        }
    }
    for (int32_t k = 0; k < list->classes; k++)
        if (best[k] && best[k] != &in_train) list->item[best[k]->item].part = FV_PART_TRAIN;
}

static void warn_of_nothing(const fv_listing *list, const bool wanted[FV_PART_COUNT]) {
    int64_t n[FV_PART_COUNT + 1] = {0};
    for (int64_t i = 0; i < list->count; i++) n[list->item[i].part]++;
    for (fv_part part = FV_PART_VAL; part < FV_PART_COUNT; part++)
        if (wanted[part] && !n[part])
            fv_log(list->ctx, FV_LOG_WARN,
                   "%s: the classes are so small that none of their pictures fell to %s; a larger share would help",
                   list->source, fv_part_name(part));
}

fv_status fv_parts_by_hash(fv_listing *list, double val, double test) {
    const bool *has = list->has_part;
    if (has[FV_PART_TRAIN] || has[FV_PART_TEST]) test = 0; /* what is for testing has been said */
    if (has[FV_PART_VAL]) val = 0;
    if (!(val > 0) && !(test > 0)) return FV_OK;
    fv_ctx *ctx = list->ctx;
    candidate *c = fv_alloc(ctx, (size_t)list->count, sizeof *c);
    const candidate **best = fv_calloc(ctx, (size_t)list->classes, sizeof *best);
    fv_status status = c && best ? FV_OK : FV_E_MEMORY;
    if (status == FV_OK) {
        int64_t n = 0;
        for (int64_t i = 0; i < list->count; i++) {
            const fv_listed *item = &list->item[i];
            if (item->part == FV_PART_TRAIN)
                c[n++] = (candidate){XXH3_64bits(item->path, strlen(item->path)), i, fv_listing_label(list, item)};
        }
        qsort(c, (size_t)n, sizeof *c, by_label_and_hash);
        for (int64_t from = 0, to; from < n; from = to) {
            for (to = from; to < n && c[to].label == c[from].label;) to++;
            divide(list, c + from, to - from, val, test);
        }
        if (list->several) keep_every_class(list, c, n, best);
        warn_of_nothing(list, (const bool[FV_PART_COUNT]){false, val > 0, test > 0});
    }
    fv_free(ctx, c, (size_t)list->count, sizeof *c);
    fv_free(ctx, best, (size_t)list->classes, sizeof *best);
    return status;
}

/* ---------------------------------------------------------------- saving */

/* A cell as text, NUL-terminated; returns its bytes. to: room for 2 strlen(cell) + 3. */
static size_t put_cell(char *to, const char *cell) {
    size_t n = strlen(cell);
    bool quotes = strpbrk(cell, ",\"\r\n") || strchr(" \t", cell[0]) || strchr(" \t", cell[n - 1]);
    if (!quotes) {
        memcpy(to, cell, n + 1);
        return n;
    }
    char *p = to;
    *p++ = '"';
    for (; *cell; cell++) {
        if (*cell == '"') *p++ = '"';
        *p++ = *cell;
    }
    *p++ = '"';
    *p = 0;
    return (size_t)(p - to);
}

fv_status fv_dataset_save_split(const fv_dataset *d, const char *path) {
    if (!d->part || !d->files)
        return fv_fail(d->ctx, FV_E_USAGE, "only sets of picture files have a split that can be saved");
    size_t room = 16, used;
    for (int64_t i = 0; i < d->count; i++) room += 2 * strlen(d->files->path[i]) + 16;
    char *text = fv_alloc(d->ctx, room, 1);
    if (!text) return FV_E_MEMORY;
    used = (size_t)snprintf(text, room, "path,part\n");
    for (int64_t i = 0; i < d->count; i++) {
        used += put_cell(text + used, d->files->path[i]);
        used += (size_t)snprintf(text + used, room - used, ",%s\n", fv_part_name((fv_part)d->part[i]));
    }
    fv_status status = fv_write_file(d->ctx, path, text, used);
    fv_free(d->ctx, text, room, 1);
    return status;
}
