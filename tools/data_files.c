#include "tools/data_files.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define MOST_WARNED 20 /* copies that are named; --json names all */

typedef struct files_view {
    fv_tool *tool;
    fv_console *con;
    fv_ctx *ctx;
    fv_arena arena;
    fv_dataset *d;
    fv_file_report *report;          /* [d->count] */
    int64_t (*count)[FV_PART_COUNT]; /* [d->classes]: pictures that have the class */
    int64_t in_part[FV_PART_COUNT];  /* pictures */
    int64_t none;                    /* pictures without a label */
} files_view;

static const char *const part_names[] = {"train", "val", "test"};

/* A name out of a file system, fit for a terminal and for JSON. */
static const char *printable(const char *name, char buf[520]) {
    size_t n = 0;
    for (const unsigned char *s = (const unsigned char *)name; *s && n < 512;) {
        size_t length = fv_utf8_length(s);
        bool shown = length > 0 && *s >= 0x20 && *s != 0x7f && !(*s == 0xC2 && s[1] < 0xA0);
        if (!length) length = 1;
        if (shown) memcpy(buf + n, s, length);
        else buf[n] = '?';
        n += shown ? length : 1;
        s += length;
    }
    buf[n] = 0;
    return buf;
}

/* ---------------------------------------------------------------- opening */

static void on_progress(void *user, const char *what, int64_t done, int64_t total) {
    fv_console_bar(user, fv_tool_now(), "%s  %" PRId64 " of %" PRId64, what, done, total);
}

static fv_status count_classes(files_view *v) {
    const fv_dataset *d = v->d;
    v->count = fv_arena_alloc(&v->arena, (size_t)d->classes, sizeof *v->count);
    if (!v->count) return FV_E_MEMORY;
    for (int64_t i = 0; i < d->count; i++) {
        v->in_part[d->part[i]]++;
        v->none += d->labels[i] < 0;
        for (int32_t k = 0; d->targets && k < d->classes; k++)
            v->count[k][d->part[i]] += d->targets[i * d->classes + k];
        if (!d->targets) v->count[d->labels[i]][d->part[i]]++;
    }
    return FV_OK;
}

static fv_status open_files(files_view *v, fv_tool *tool, const char *name, bool decode) {
    const fv_cli *cli = &tool->cli;
    const fv_dataset_opts opts = {
        .root = fv_cli_text(cli, OPT_DATA_DIR),
        .img_size = 1, /* no picture is asked for */
        .split_file = fv_cli_text(cli, OPT_SPLIT_FILE),
        .val_split = fv_cli_float(cli, OPT_VAL_SPLIT),
        .test_split = fv_cli_float(cli, OPT_TEST_SPLIT),
        .workers = (int)fv_cli_int(cli, OPT_WORKERS),
        .progress = on_progress,
        .progress_user = &tool->console,
    };
    *v = (files_view){.tool = tool, .con = &tool->console, .ctx = &tool->ctx};
    fv_arena_init(&v->arena, v->ctx);
    FV_TRY(fv_dataset_open(v->ctx, name, FV_SPLIT_TRAIN, &opts, &v->d));
    FV_TRY(count_classes(v));
    return fv_dataset_inspect(v->d, decode, &opts, &v->arena, &v->report);
}

static void close_files(files_view *v) {
    fv_dataset_free(v->d);
    fv_arena_free(&v->arena);
}

/* ---------------------------------------------------------------- counts */

static void show_row(files_view *v, int width, const char *name, const int64_t count[FV_PART_COUNT]) {
    fv_console_result(v->con, "  %-*s %8" PRId64 " %8" PRId64 " %8" PRId64, width, name, count[FV_PART_TRAIN],
                      count[FV_PART_VAL], count[FV_PART_TEST]);
}

static void show_counts(files_view *v) {
    const fv_dataset *d = v->d;
    int width = 8;
    for (int32_t k = 0; k < d->classes; k++) {
        int n = (int)strlen(d->class_names[k]);
        if (n > width) width = n < 40 ? n : 40;
    }
    fv_console_result(v->con, "  %-*s %8s %8s %8s", width, "class", "train", "val", "test");
    for (int32_t k = 0; k < d->classes; k++) show_row(v, width, d->class_names[k], v->count[k]);
    show_row(v, width, "pictures", v->in_part);
}

static json_t *counts_json(const char *name, const int64_t count[FV_PART_COUNT]) {
    return json_pack("{s:s, s:I, s:I, s:I}", "class", name, "train", (json_int_t)count[FV_PART_TRAIN], "val",
                     (json_int_t)count[FV_PART_VAL], "test", (json_int_t)count[FV_PART_TEST]);
}

/* "train, val as the files say; test by path" */
static void show_origin(files_view *v) {
    char said[64] = "", chosen[64] = "";
    for (int part = 0; part < FV_PART_COUNT; part++) {
        char *to = v->d->has_part[part] ? said : chosen;
        size_t used = strlen(to);
        if (v->in_part[part]) snprintf(to + used, sizeof said - used, "%s%s", used ? ", " : "", part_names[part]);
    }
    fv_console_result(v->con, "parts    %s%s%s%s%s", said, said[0] ? " as the files say" : "",
                      said[0] && chosen[0] ? "; " : "", chosen, chosen[0] ? " chosen by path" : "");
}

static fv_status counts_event(files_view *v) {
    json_t *list = json_array();
    for (int32_t k = 0; list && k < v->d->classes; k++)
        fv_json_add(&list, counts_json(v->d->class_names[k], v->count[k]));
    char fingerprint[24], path[520];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, v->d->fingerprint);
    const int64_t *n = v->in_part;
    return fv_console_json(v->con, v->ctx,
                           json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:i, s:b, s:I, s:o, s:s}", "event", "set",
                                     "data", v->d->name, "path", printable(v->d->path, path), "count",
                                     (json_int_t)v->d->count, "train", (json_int_t)n[FV_PART_TRAIN], "val",
                                     (json_int_t)n[FV_PART_VAL], "test", (json_int_t)n[FV_PART_TEST], "classes",
                                     (int)v->d->classes, "multi_label", v->d->targets != NULL, "without_label",
                                     (json_int_t)v->none, "per_class", list, "fingerprint", fingerprint));
}

/* ---------------------------------------------------------------- check */

typedef struct findings {
    int64_t bad, copies, leaks;
} findings;

static fv_status tell_bad(files_view *v, int64_t i, findings *found) {
    char name[520];
    printable(fv_dataset_file(v->d, i), name);
    found->bad++;
    fv_console_result(v->con, "bad  %s: %s", name, v->report[i].problem);
    return fv_console_json(v->con, v->ctx,
                           json_pack("{s:s, s:s, s:s}", "event", "bad", "file", name, "problem", v->report[i].problem));
}

static bool same_classes(const fv_dataset *d, int64_t i, int64_t j) {
    if (!d->targets) return d->labels[i] == d->labels[j];
    return memcmp(d->targets + i * d->classes, d->targets + j * d->classes, (size_t)d->classes) == 0;
}

/* Two files with the same bytes. In different parts, one is looked up instead of recognised. */
static fv_status tell_copy(files_view *v, int64_t i, findings *found) {
    const fv_dataset *d = v->d;
    int64_t j = v->report[i].copy_of;
    bool leak = d->part[i] != d->part[j], same = same_classes(d, i, j);
    const char *part = part_names[d->part[i]], *other = part_names[d->part[j]];
    int64_t number = leak ? ++found->leaks : ++found->copies;
    char name[520], first[520];
    printable(fv_dataset_file(d, i), name);
    printable(fv_dataset_file(d, j), first);
    if (number <= MOST_WARNED)
        fv_console_warn(v->con, "%s (%s) has the same bytes as %s (%s)%s%s", name, part, first, other,
                        same ? "" : ", but another class", leak ? ": what is tested is known from training" : "");
    return fv_console_json(v->con, v->ctx,
                           json_pack("{s:s, s:s, s:s, s:s, s:s, s:b}", "event", "copy", "file", name, "part", part,
                                     "copy_of", first, "copy_of_part", other, "same_class", same));
}

static fv_status tell_findings(files_view *v, const char *name, findings *found) {
    for (int64_t i = 0; i < v->d->count; i++) {
        if (v->report[i].problem) FV_TRY(tell_bad(v, i, found));
        else if (v->report[i].copy_of >= 0) FV_TRY(tell_copy(v, i, found));
    }
    if (found->leaks > MOST_WARNED)
        fv_console_warn(v->con, "%" PRId64 " pictures in all are in two parts; --json lists them", found->leaks);
    if (found->copies > MOST_WARNED)
        fv_console_warn(v->con, "%" PRId64 " pictures in all are there twice; --json lists them", found->copies);
    fv_console_result(v->con, "%s in %s", v->d->name, v->d->path);
    show_counts(v);
    show_origin(v);
    FV_TRY(counts_event(v));
    FV_TRY(fv_console_json(v->con, v->ctx,
                           json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "event", "done", "data", v->d->name, "ok",
                                     found->bad == 0, "files", (json_int_t)v->d->count, "bad", (json_int_t)found->bad,
                                     "copies", (json_int_t)found->copies, "leaks", (json_int_t)found->leaks)));
    if (found->bad) {
        fv_fail_at(v->ctx, FV_E_DATA, v->d->path, -1, "%" PRId64 " of %" PRId64 " files cannot be decoded", found->bad,
                   v->d->count);
        return fv_hint(v->ctx, "take them out of the set, or train with --skip-bad");
    }
    fv_console_result(
        v->con, "%s: all %" PRId64 " files can be decoded; %" PRId64 " copies within a part, %" PRId64 " across parts",
        name, v->d->count, found->copies, found->leaks);
    return FV_OK;
}

fv_status fv_data_files_check(fv_tool *tool, const char *name) {
    files_view v;
    findings found = {0};
    fv_status status = open_files(&v, tool, name, true);
    if (status == FV_OK) status = tell_findings(&v, name, &found);
    close_files(&v);
    return status;
}

/* ---------------------------------------------------------------- info */

typedef struct range {
    int64_t min, median, max;
} range;

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static range range_of(int64_t *values, int64_t n) {
    if (n == 0) return (range){0, 0, 0};
    qsort(values, (size_t)n, sizeof *values, by_value);
    return (range){values[0], values[n / 2], values[n - 1]};
}

static json_t *range_json(range r) {
    return json_pack("[III]", (json_int_t)r.min, (json_int_t)r.median, (json_int_t)r.max);
}

static fv_status show_headers(files_view *v) {
    const int64_t n = v->d->count;
    int64_t *width = fv_arena_alloc(&v->arena, (size_t)n, sizeof *width), known = 0, turned = 0;
    int64_t *height = fv_arena_alloc(&v->arena, (size_t)n, sizeof *height);
    int64_t format[4] = {0}, channels[5] = {0};
    if (!width || !height) return FV_E_MEMORY;
    for (int64_t i = 0; i < n; i++) {
        const fv_image_info *info = &v->report[i].info;
        format[v->report[i].problem ? FV_IMAGE_UNKNOWN : info->format]++;
        if (v->report[i].problem) continue;
        width[known] = info->w;
        height[known++] = info->h;
        channels[info->c >= 1 && info->c <= 4 ? info->c : 0]++;
        turned += info->orientation > 1;
    }
    range w = range_of(width, known), h = range_of(height, known);
    fv_console_result(v->con,
                      "sizes    width %" PRId64 " to %" PRId64 ", median %" PRId64 "; height %" PRId64 " to %" PRId64
                      ", median %" PRId64,
                      w.min, w.max, w.median, h.min, h.max, h.median);
    fv_console_result(v->con,
                      "formats  %" PRId64 " JPEG, %" PRId64 " PNG, %" PRId64 " WebP; %" PRId64 " grey, %" PRId64
                      " colour, %" PRId64 " with alpha or CMYK; %" PRId64 " turned by EXIF",
                      format[FV_IMAGE_JPEG], format[FV_IMAGE_PNG], format[FV_IMAGE_WEBP], channels[1], channels[3],
                      channels[2] + channels[4], turned);
    if (format[FV_IMAGE_UNKNOWN])
        fv_console_warn(v->con, "%" PRId64 " files have no header that can be read; 'fovea data check' lists them",
                        format[FV_IMAGE_UNKNOWN]);
    return fv_console_json(v->con, v->ctx,
                           json_pack("{s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "event", "files",
                                     "data", v->d->name, "width", range_json(w), "height", range_json(h), "jpeg",
                                     (json_int_t)format[FV_IMAGE_JPEG], "png", (json_int_t)format[FV_IMAGE_PNG], "webp",
                                     (json_int_t)format[FV_IMAGE_WEBP], "unknown", (json_int_t)format[FV_IMAGE_UNKNOWN],
                                     "grey", (json_int_t)channels[1], "colour", (json_int_t)channels[3],
                                     "alpha_or_cmyk", (json_int_t)(channels[2] + channels[4]), "turned",
                                     (json_int_t)turned));
}

/* How unequal the classes are in training. */
static void show_balance(files_view *v) {
    int32_t least = 0, most = 0;
    for (int32_t k = 1; k < v->d->classes; k++) {
        if (v->count[k][FV_PART_TRAIN] < v->count[least][FV_PART_TRAIN]) least = k;
        if (v->count[k][FV_PART_TRAIN] > v->count[most][FV_PART_TRAIN]) most = k;
    }
    int64_t few = v->count[least][FV_PART_TRAIN], many = v->count[most][FV_PART_TRAIN];
    double ratio = few ? (double)many / (double)few : 0;
    fv_console_result(v->con, "balance  train has %" PRId64 " of '%s' and %" PRId64 " of '%s': %.3g to 1%s", many,
                      v->d->class_names[most], few, v->d->class_names[least], ratio,
                      ratio >= 3 && !v->d->targets ? "; --sampler balanced or --class-weights balanced may help" : "");
    if (v->d->targets)
        fv_console_result(v->con, "labels   several per picture; %" PRId64 " pictures have none", v->none);
}

static fv_status show_info(files_view *v) {
    fv_console_result(v->con, "%s in %s: %" PRId64 " pictures, %d classes, fingerprint %016" PRIx64, v->d->name,
                      v->d->path, v->d->count, v->d->classes, v->d->fingerprint);
    show_counts(v);
    show_origin(v);
    show_balance(v);
    FV_TRY(counts_event(v));
    return show_headers(v);
}

fv_status fv_data_files_info(fv_tool *tool, const char *name) {
    files_view v;
    fv_status status = open_files(&v, tool, name, false);
    if (status == FV_OK) status = show_info(&v);
    close_files(&v);
    return status;
}
