/* bench_load.c: `bench --mode load`: how fast the loader alone gives batches of training pictures, read, decoded,
 * cropped at random and resized, with nobody to use them. */
#include "tools/bench.h"

#include <stdatomic.h>
#include <string.h>

typedef struct load {
    fv_tool *tool;
    fv_ctx *ctx;
    const fv_cli *cli;
    fv_dataset *data;
    int64_t *index; /* [n] the training part; NULL: all */
    int64_t n, batch;
    fv_loader *loader;
    int64_t pictures, bytes;
    double seconds, waited;
} load;

/* Bytes that the library reads, in all threads. */
static atomic_llong bytes_read;
static int64_t (*plain_read)(void *user, int fd, void *buf, size_t bytes);

static int64_t counting_read(void *user, int fd, void *buf, size_t bytes) {
    int64_t n = plain_read(user, fd, buf, bytes);
    if (n > 0) atomic_fetch_add_explicit(&bytes_read, n, memory_order_relaxed);
    return n;
}

static void on_progress(void *user, const char *what, int64_t done, int64_t total) {
    fv_console_bar(user, fv_tool_now(), "%s  %lld of %lld", what, (long long)done, (long long)total);
}

static fv_status open_data(load *l) {
    const fv_cli *cli = l->cli;
    if (!fv_cli_has(cli, OPT_DATA)) {
        fv_fail(l->ctx, FV_E_USAGE, "--mode load needs --data: a folder of pictures or a CSV file");
        return fv_hint(l->ctx, "for example 'fovea bench --mode load --data photos --img-size 224 -j 2'");
    }
    fv_dataset_opts opts = {.img_size = (int32_t)fv_cli_int(cli, OPT_IMG_SIZE),
                            .in_chans = fv_cli_has(cli, OPT_IN_CHANS) ? (int32_t)fv_cli_int(cli, OPT_IN_CHANS) : 0,
                            .crop_pct = fv_cli_float(cli, OPT_CROP_PCT),
                            .filter = strcmp(fv_cli_text(cli, OPT_INTERPOLATION), "bicubic") == 0 ? FV_FILTER_BICUBIC
                                                                                                  : FV_FILTER_BILINEAR,
                            .skip_bad = fv_cli_bool(cli, OPT_SKIP_BAD),
                            .cache = (fv_cache)fv_cli_int(cli, OPT_CACHE),
                            .cache_dir = fv_cli_text(cli, OPT_CACHE_DIR),
                            .workers = (int)fv_cli_int(cli, OPT_WORKERS),
                            .progress = on_progress,
                            .progress_user = &l->tool->console};
    const char *name = fv_cli_text(cli, OPT_DATA);
    FV_TRY(fv_dataset_open(l->ctx, name, FV_SPLIT_TRAIN, &opts, &l->data));
    l->n = l->data->count;
    if (!l->data->part) return FV_OK;
    l->index = fv_alloc(l->ctx, (size_t)l->n, sizeof *l->index);
    if (!l->index) return l->ctx->error.code;
    l->n = 0;
    for (int64_t i = 0; i < l->data->count; i++)
        if (l->data->part[i] == FV_PART_TRAIN) l->index[l->n++] = i;
    return FV_OK;
}

static fv_status measure(load *l) {
    bool files = fv_dataset_file(l->data, 0) != NULL;
    const fv_augment_cfg augment = {.flip = 0.5, .scale = {0.08, files ? 1.0 : 0.0}, .ratio = {3.0 / 4.0, 4.0 / 3.0}};
    l->batch = fv_cli_int(l->cli, OPT_BATCH_SIZE) < l->n ? fv_cli_int(l->cli, OPT_BATCH_SIZE) : l->n;
    const fv_loader_cfg cfg = {.batch = l->batch,
                               .train = true,
                               .augment = &augment,
                               .seed = (uint64_t)fv_cli_int(l->cli, OPT_SEED),
                               .workers = (int)fv_cli_int(l->cli, OPT_WORKERS)};
    FV_TRY(fv_loader_create(l->ctx, l->data, l->index, l->n, &cfg, &l->loader));
    double limit = fv_cli_float(l->cli, OPT_SECONDS), start = fv_tool_now();
    int64_t before = atomic_load(&bytes_read);
    for (int64_t epoch = 0; l->seconds < limit; epoch++) {
        FV_TRY(fv_loader_start(l->loader, epoch, 0));
        for (fv_batch batch = {.size = 1}; batch.size > 0 && l->seconds < limit;) {
            FV_TRY(fv_loader_next(l->loader, &batch));
            l->pictures += batch.valid;
            l->seconds = fv_tool_now() - start;
        }
    }
    l->bytes = atomic_load(&bytes_read) - before;
    l->waited = fv_loader_wait_seconds(l->loader);
    return FV_OK;
}

static fv_status show(load *l) {
    int64_t workers = fv_cli_int(l->cli, OPT_WORKERS), threads = workers ? workers : 1;
    double rate = (double)l->pictures / l->seconds, megabytes = 1e-6 * (double)l->bytes / l->seconds;
    const char *cache = fv_cli_text(l->cli, OPT_CACHE);
    fv_console_result(
        &l->tool->console,
        "load %s, %dx%dx%d, batch %lld, %lld workers, cache %s: %.1f images/s, %.1f per thread, %.1f MB/s "
        "read, %.0f%% of the time waiting, peak memory %.0f MB",
        l->data->name, l->data->w, l->data->h, l->data->c, (long long)l->batch, (long long)workers, cache, rate,
        rate / (double)threads, megabytes, 100 * l->waited / l->seconds, fv_tool_peak_mb());
    return fv_console_json(
        &l->tool->console, l->ctx,
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:I, s:o, s:o}", "mode", "load", "data",
                  l->data->name, "img_size", (json_int_t)l->data->w, "batch", (json_int_t)l->batch, "workers",
                  (json_int_t)workers, "cache", cache, "images_per_s", fv_json_number(rate, 6),
                  "images_per_s_per_thread", fv_json_number(rate / (double)threads, 6), "read_mb_per_s",
                  fv_json_number(megabytes, 6), "wait_share", fv_json_number(l->waited / l->seconds, 4), "images",
                  (json_int_t)l->pictures, "seconds", fv_json_number(l->seconds, 6), "peak_rss_mb",
                  fv_json_number(fv_tool_peak_mb(), 6)));
}

static fv_status run(load *l) {
    FV_TRY(open_data(l));
    FV_TRY(measure(l));
    return show(l);
}

fv_status fv_bench_load(fv_tool *tool) {
    fv_cli *cli = &tool->cli;
    load l = {.tool = tool, .ctx = &tool->ctx, .cli = cli};
    FV_TRY(fv_cli_resolve(cli, OPT_IMG_SIZE, "224"));
    FV_TRY(fv_cli_resolve(cli, OPT_CROP_PCT, "%s", fv_cli_int(cli, OPT_IMG_SIZE) > 64 ? "0.875" : "1"));
    FV_TRY(fv_cli_resolve(cli, OPT_INTERPOLATION, "bilinear"));
    plain_read = tool->ctx.io.read;
    tool->ctx.io.read = counting_read;
    fv_status status = run(&l);
    fv_loader_destroy(l.loader);
    if (l.index) fv_free(l.ctx, l.index, (size_t)l.data->count, sizeof *l.index);
    fv_dataset_free(l.data);
    tool->ctx.io.read = plain_read;
    return status;
}
