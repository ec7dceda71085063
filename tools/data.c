/* data.c: the command `data`: get, check, info. */
#include "tools/data_files.h"
#include "tools/tool.h"

#include <inttypes.h>
#include <string.h>

/* ---------------------------------------------------------------- get */

typedef struct progress {
    fv_console *con;
    char file[128];
    double started;
} progress;

static void on_progress(void *user, const char *file, const char *url, int64_t done, int64_t total) {
    progress *p = user;
    double now = fv_tool_now();
    if (strcmp(p->file, file) != 0) {
        snprintf(p->file, sizeof p->file, "%s", file);
        p->started = now;
        fv_console_say(p->con, "fetching %s from %s", file, url);
    }
    double seconds = now - p->started, rate = seconds > 0.2 ? (double)done / seconds : 0;
    char have[24], of[24] = "?", eta[24] = "";
    if (total > 0) fv_text_bytes((double)total, of, sizeof of);
    if (total > 0 && rate > 0) fv_text_duration((double)(total - done) / rate, eta, sizeof eta);
    fv_console_bar(p->con, now, "%s  %s of %s  %.0f kB/s  %s", file, fv_text_bytes((double)done, have, sizeof have), of,
                   rate / 1e3, eta);
}

static fv_status get(fv_tool *tool, const char *name) {
    const fv_cli *cli = &tool->cli;
    progress p = {.con = &tool->console};
    fv_get_opts opts = {.root = fv_cli_text(cli, OPT_DATA_DIR), .progress = on_progress, .user = &p};
    if (fv_cli_has(cli, OPT_MIRROR)) opts.mirrors = cli->value[OPT_MIRROR].string;
    FV_TRY(fv_data_get(&tool->ctx, name, &opts));
    fv_console_result(&tool->console, "%s is ready; train on it with 'fovea train --data %s'", name, name);
    return fv_console_json(&tool->console, &tool->ctx, json_pack("{s:s, s:s}", "event", "done", "data", name));
}

/* ---------------------------------------------------------------- check, info */

static bool is_files(fv_tool *tool, const char *name) {
    return fv_dataset_is_files(&tool->ctx, name, fv_cli_text(&tool->cli, OPT_DATA_DIR));
}

static fv_status check(fv_tool *tool, const char *name) {
    if (is_files(tool, name)) return fv_data_files_check(tool, name);
    FV_TRY(fv_data_check(&tool->ctx, name, fv_cli_text(&tool->cli, OPT_DATA_DIR)));
    fv_console_result(&tool->console, "%s: all files are there and in order", name);
    return fv_console_json(&tool->console, &tool->ctx,
                           json_pack("{s:s, s:s, s:b}", "event", "done", "data", name, "ok", 1));
}

static void count_classes(const fv_dataset *d, int64_t *min, int64_t *max, int64_t *count) {
    memset(count, 0, (size_t)d->classes * sizeof *count);
    for (int64_t i = 0; i < d->count; i++) count[d->labels[i]]++;
    *min = *max = count[0];
    for (int32_t k = 1; k < d->classes; k++) {
        if (count[k] < *min) *min = count[k];
        if (count[k] > *max) *max = count[k];
    }
}

static json_t *channels_json(const double *values, int32_t n) {
    json_t *list = json_array();
    for (int32_t i = 0; list && i < n; i++) fv_json_add(&list, fv_json_number(values[i], 6));
    return list;
}

static fv_status describe(fv_tool *tool, const fv_dataset *d, const char *split) {
    fv_console *con = &tool->console;
    fv_ctx *ctx = &tool->ctx;
    int64_t *count = fv_alloc(ctx, (size_t)d->classes, sizeof *count), least, most;
    double *stats = fv_alloc(ctx, (size_t)d->c, 2 * sizeof *stats);
    fv_status status = count && stats ? FV_OK : FV_E_MEMORY;
    if (status == FV_OK) {
        char line[512] = "";
        count_classes(d, &least, &most, count);
        fv_dataset_stats(d, NULL, d->count, stats, stats + d->c);
        for (int i = 0; i < 2; i++) {
            size_t used = strlen(line);
            snprintf(line + used, sizeof line - used, "%s", i ? "  std " : "mean ");
            for (int32_t k = 0; k < d->c && k < 16; k++) {
                used = strlen(line);
                snprintf(line + used, sizeof line - used, "%s%.4f", k ? "," : "", stats[i * d->c + k]);
            }
        }
        fv_console_result(con,
                          "%-5s %" PRId64 " pictures %dx%dx%d, %d classes of %" PRId64 " to %" PRId64
                          ", %s, fingerprint %016" PRIx64,
                          split, d->count, d->h, d->w, d->c, d->classes, least, most, line, d->fingerprint);
        char fingerprint[24];
        snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, d->fingerprint);
        status = fv_console_json(con, ctx,
                                 json_pack("{s:s, s:s, s:s, s:I, s:[iii], s:i, s:I, s:I, s:o, s:o, s:s, s:s}", "event",
                                           "split", "data", d->name, "split", split, "count", (json_int_t)d->count,
                                           "picture", (int)d->h, (int)d->w, (int)d->c, "classes", (int)d->classes,
                                           "smallest_class", (json_int_t)least, "largest_class", (json_int_t)most,
                                           "mean", channels_json(stats, d->c), "std", channels_json(stats + d->c, d->c),
                                           "fingerprint", fingerprint, "path", d->path));
    }
    fv_free(ctx, count, (size_t)d->classes, sizeof *count);
    fv_free(ctx, stats, (size_t)d->c, 2 * sizeof *stats);
    return status;
}

static void show_classes(fv_tool *tool, const fv_dataset *d) {
    fv_console_result(&tool->console, "%s in %s", d->name, d->path[0] ? d->path : "memory");
    char line[400] = "";
    for (int32_t k = 0; d->class_names && k < d->classes; k++) {
        size_t used = strlen(line);
        if (used + strlen(d->class_names[k]) + 8 > sizeof line) {
            snprintf(line + used, sizeof line - used, ", ...");
            break;
        }
        snprintf(line + used, sizeof line - used, "%s%s", k ? ", " : "", d->class_names[k]);
    }
    if (line[0]) fv_console_result(&tool->console, "classes %s", line);
}

static fv_status info(fv_tool *tool, const char *name) {
    static const char *const names[] = {"train", "test"};
    if (is_files(tool, name)) return fv_data_files_info(tool, name);
    fv_dataset_opts opts = {.root = fv_cli_text(&tool->cli, OPT_DATA_DIR)};
    for (int i = 0; i < 2; i++) {
        fv_dataset *d = NULL;
        FV_TRY(fv_dataset_open(&tool->ctx, name, i ? FV_SPLIT_TEST : FV_SPLIT_TRAIN, &opts, &d));
        if (i == 0) show_classes(tool, d);
        fv_status status = describe(tool, d, names[i]);
        fv_dataset_free(d);
        FV_TRY(status);
    }
    return FV_OK;
}

fv_status fv_cmd_data(fv_tool *tool) {
    static const char *const words[] = {"get", "check", "info"};
    const char *word = tool->cli.positional[0], *name = tool->cli.positional[1];
    if (!strcmp(word, "get")) return get(tool, name);
    if (!strcmp(word, "check")) return check(tool, name);
    if (!strcmp(word, "info")) return info(tool, name);
    const char *near = fv_text_nearest(word, words, 3);
    fv_fail(&tool->ctx, FV_E_USAGE, "unknown action '%s'%s%s%s", word, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    return fv_hint(&tool->ctx, "usage: fovea data get|check|info NAME|PATH");
}
