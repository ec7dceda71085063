/* csv_set.c: a CSV file `path,label[,split]` as a list of pictures. Paths begin at the folder of the file. */
#include "data/listing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_LABELS 4096 /* of one picture */

typedef struct csv_set {
    fv_listing *list;
    fv_csv csv;
    fv_csv_columns columns;
    fv_index paths, names;      /* names: of classes, in order of arrival */
    int32_t label[MOST_LABELS]; /* of the row in hand */
    int64_t several_line;       /* the first line with more or less than one label; 0: none */
} csv_set;

/* ---------------------------------------------------------------- rows */

static fv_status take_path(csv_set *s, fv_listed *item) {
    item->path = fv_csv_path(s->csv.cell[s->columns.path]);
    size_t root = item->path[0] == '/' ? 0 : strlen(s->list->root) + 1;
    if (!item->path[0]) return fv_csv_fail(&s->csv, "the path is empty");
    if (root + strlen(item->path) >= FV_DATA_PATH)
        return fv_csv_fail(&s->csv, "a path of %zu bytes; at most %d can be used", root + strlen(item->path),
                           FV_DATA_PATH - 1);
    int32_t number;
    bool fresh;
    FV_TRY(fv_index_add(&s->paths, item->path, &number, &fresh));
    if (fresh) return FV_OK;
    fv_csv_fail(&s->csv, "'%s' stands in line %lld already", item->path, (long long)s->list->item[number].line);
    return fv_hint(s->csv.ctx, "one line per picture; several labels are divided by |");
}

/* Cut blanks off both ends. */
static char *trim(char *text) {
    size_t n = strlen(text);
    while (n > 0 && (text[n - 1] == ' ' || text[n - 1] == '\t')) text[--n] = 0;
    return text + strspn(text, " \t");
}

static fv_status take_label(csv_set *s, fv_listed *item, char *name) {
    name = trim(name);
    if (!*name) return fv_csv_fail(&s->csv, "an empty label beside a |");
    const char *problem = fv_class_name_problem(name);
    if (problem) return fv_csv_fail(&s->csv, "the label '%s' %s", name, problem);
    if (item->labels == MOST_LABELS) return fv_csv_fail(&s->csv, "more than %d labels", MOST_LABELS);
    int32_t number;
    bool fresh;
    FV_TRY(fv_index_add(&s->names, name, &number, &fresh));
    if (s->names.count > FV_FILES_MOST_CLASSES)
        return fv_csv_fail(&s->csv, "more than %d different labels", FV_FILES_MOST_CLASSES);
    for (int32_t i = 0; i < item->labels; i++)
        if (s->label[i] == number) return fv_csv_fail(&s->csv, "the label '%s' stands there twice", name);
    s->label[item->labels++] = number;
    return FV_OK;
}

static fv_status take_labels(csv_set *s, fv_listed *item) {
    char *text = trim(s->csv.cell[s->columns.label]);
    while (*text || item->labels) {
        char *bar = strchr(text, '|');
        if (bar) *bar = 0;
        FV_TRY(take_label(s, item, text));
        if (!bar) break;
        text = bar + 1;
    }
    if (item->labels != 1 && !s->several_line) s->several_line = item->line;
    return FV_OK;
}

static fv_status take_part(csv_set *s, fv_listed *item) {
    item->part = FV_PART_TRAIN;
    if (s->columns.part < 0) return FV_OK;
    const char *word = trim(s->csv.cell[s->columns.part]);
    item->part = (uint8_t)fv_part_of(word);
    if (item->part == FV_PART_COUNT) {
        fv_csv_fail(&s->csv, "the split is '%s'", word);
        return fv_hint(s->csv.ctx, "train, val (valid, validation) or test; without this column Fovea divides the set");
    }
    s->list->has_part[item->part] = true;
    return FV_OK;
}

static fv_status take_row(csv_set *s) {
    fv_listed item = {.line = s->csv.line};
    FV_TRY(fv_csv_check_cells(&s->csv, &s->columns));
    FV_TRY(take_path(s, &item));
    FV_TRY(take_labels(s, &item));
    FV_TRY(take_part(s, &item));
    return fv_listing_add(s->list, &item, s->label);
}

static fv_status read_rows(csv_set *s) {
    bool more;
    FV_TRY(fv_csv_next(&s->csv, &more));
    if (more) {
        FV_TRY(fv_csv_find_columns(&s->csv, true, &s->columns));
        if (s->columns.header) FV_TRY(fv_csv_next(&s->csv, &more));
    }
    while (more) {
        FV_TRY(take_row(s));
        FV_TRY(fv_csv_next(&s->csv, &more));
    }
    if (s->list->count) return FV_OK;
    fv_fail_at(s->csv.ctx, FV_E_DATA, s->csv.path, -1, "lists no pictures");
    return fv_hint(s->csv.ctx, "a line for each: 'path,label' or 'path,label,split'");
}

/* ---------------------------------------------------------------- classes */

typedef struct class_place {
    const char *name;
    int32_t number; /* in order of arrival */
} class_place;

static int by_name(const void *a, const void *b) {
    return strcmp(((const class_place *)a)->name, ((const class_place *)b)->name);
}

/* Whole numbers without zeros in front. */
static int by_value(const void *a, const void *b) {
    const char *x = ((const class_place *)a)->name, *y = ((const class_place *)b)->name;
    size_t m = strlen(x), n = strlen(y);
    return m != n ? (m > n) - (m < n) : strcmp(x, y);
}

static bool is_number(const char *name) {
    return strspn(name, "0123456789") == strlen(name) && (name[0] != '0' || !name[1]);
}

/* Classes in the order of their names, or of their values if all are numbers; the labels of all pictures follow. */
static fv_status sort_classes(csv_set *s) {
    fv_listing *list = s->list;
    fv_ctx *ctx = list->ctx;
    size_t n = (size_t)s->names.count;
    list->several = s->several_line > 0;
    list->classes = s->names.count;
    list->class_names = fv_arena_alloc(list->arena, n, sizeof *list->class_names);
    class_place *place = fv_alloc(ctx, n, sizeof *place);
    int32_t *becomes = fv_alloc(ctx, n, sizeof *becomes);
    fv_status status = list->class_names && place && becomes ? FV_OK : FV_E_MEMORY;
    if (status == FV_OK) {
        bool numbers = true;
        for (size_t i = 0; i < n; i++) {
            place[i] = (class_place){s->names.text[i], (int32_t)i};
            numbers = numbers && is_number(place[i].name);
        }
        qsort(place, n, sizeof *place, numbers ? by_value : by_name);
        for (size_t i = 0; i < n; i++) {
            list->class_names[i] = place[i].name;
            becomes[place[i].number] = (int32_t)i;
        }
        for (int64_t i = 0; i < list->labels; i++) list->label[i] = becomes[list->label[i]];
    }
    fv_free(ctx, place, n, sizeof *place);
    fv_free(ctx, becomes, n, sizeof *becomes);
    return status;
}

/* ---------------------------------------------------------------- files */

/* Sizes; all files must be there. */
static fv_status look_at_files(csv_set *s, int root, const fv_dataset_opts *opts) {
    fv_listing *list = s->list;
    fv_few missing = {0};
    for (int64_t i = 0; i < list->count; i++) {
        fv_listed *item = &list->item[i];
        struct stat st;
        bool there = fstatat(root, item->path, &st, 0) == 0;
        if (!there && errno != ENOENT && errno != ENOTDIR && errno != ELOOP && errno != ENAMETOOLONG)
            return fv_fail_at(list->ctx, FV_E_IO, list->source, -1, "line %lld: '%s' cannot be reached: %s",
                              (long long)item->line, item->path, strerror(errno));
        if (there && !S_ISREG(st.st_mode))
            return fv_fail_at(list->ctx, FV_E_DATA, list->source, -1, "line %lld: '%s' is %s, not a file",
                              (long long)item->line, item->path, S_ISDIR(st.st_mode) ? "a folder" : "a special file");
        if (!there) fv_few_add(&missing, "line %lld '%s'", (long long)item->line, item->path);
        else item->bytes = st.st_size;
        if (opts->progress && i % 4096 == 0) opts->progress(opts->progress_user, "looking for files", i, list->count);
    }
    if (!missing.count) return FV_OK;
    fv_fail_at(list->ctx, FV_E_DATA, list->source, -1, "%lld of %lld files are not there: %s", (long long)missing.count,
               (long long)list->count, fv_few_text(&missing));
    return fv_hint(list->ctx, "paths begin at the folder of the CSV file, '%s', unless they begin with /", list->root);
}

fv_status fv_csv_list(fv_listing *list, const char *path, const fv_dataset_opts *opts) {
    fv_ctx *ctx = list->ctx;
    FV_TRY(fv_data_path(ctx, list->source, "%s", path));
    FV_TRY(fv_data_parent(ctx, path, list->root));
    csv_set *s = fv_calloc(ctx, 1, sizeof *s);
    if (!s) return FV_E_MEMORY;
    s->list = list;
    fv_index_init(&s->paths, ctx);
    fv_index_init(&s->names, ctx);
    fv_status status = fv_csv_open(&s->csv, ctx, list->arena, path);
    if (status == FV_OK) status = read_rows(s);
    fv_index_free(&s->paths);
    if (status == FV_OK) status = sort_classes(s);
    fv_index_free(&s->names);
    if (status == FV_OK && list->several)
        fv_log(ctx, FV_LOG_INFO, "%s: several labels per picture, since line %lld has not just one", path,
               (long long)s->several_line);
    if (status == FV_OK) {
        int root = open(list->root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (root < 0) status = fv_fail_at(ctx, FV_E_IO, list->root, -1, "cannot open the folder: %s", strerror(errno));
        else status = look_at_files(s, root, opts);
        if (root >= 0) close(root);
    }
    fv_free(ctx, s, 1, sizeof *s);
    return status;
}
