/* bench.c: the command `bench`: speed and memory of a model on synthetic pictures; --mode load is in bench_load.c,
 * --mode yardstick in bench_yardstick.c, --profile in bench_profile.c. A
 * step is what training does: inputs copied in, forward, backward, update, loss read; for inference: inputs copied in,
 * forward, logits read. On a GPU the next one is begun before this one is waited for, as in training. */
#include "tools/device.h"
#include "tools/bench.h"
#include "tools/train/network.h"

#include <stdlib.h>
#include <string.h>

#define FV_BENCH_WARMUP 3
#define FV_BENCH_MOST 200000     /* steps */
#define FV_BENCH_LOSS_SCALE 1024 /* float16: fixed, low enough for every model's random pictures */

typedef struct bench {
    fv_tool *tool;
    fv_ctx *ctx;
    fv_cli *cli;
    fv_network net;
    fv_network_size size;
    bool training;
    fv_device *device;
    fv_store *store;
    fv_program *program;
    void *data; /* one batch of everything */
    size_t data_bytes;
    fv_batch batch;
    double *logits;
    size_t n_logits;
    double *ms; /* of each step */
    int64_t steps;
    double first_step_s, peak_mb;
} bench;

static fv_status configure(bench *b) {
    fv_cli *cli = b->cli;
    fv_network *net = &b->net;
    b->training = fv_cli_int(cli, OPT_MODE) == 0;
    FV_TRY(fv_network_find(b->ctx, fv_cli_text(cli, OPT_MODEL), &net->model));
    FV_TRY(fv_cli_resolve(cli, OPT_IMG_SIZE, "%lld", (long long)net->model->img_size));
    net->img_size = fv_cli_int(cli, OPT_IMG_SIZE);
    FV_TRY(fv_cli_resolve(cli, OPT_NUM_CLASSES, "%d", net->img_size <= 64 ? 10 : 1000));
    FV_TRY(fv_cli_resolve(cli, OPT_OPTIMIZER, "sgd"));
    FV_TRY(fv_cli_resolve(cli, OPT_THREADS, "%d", fv_cpu_count()));
    net->h = net->w = (int32_t)net->img_size;
    net->c = (int32_t)net->model->in_chans;
    net->batch = fv_cli_int(cli, OPT_BATCH_SIZE);
    net->precision = fv_network_precision(fv_cli_text(cli, OPT_PRECISION));
    net->recompute = fv_network_recompute(fv_cli_text(cli, OPT_RECOMPUTE));
    net->cfg = (fv_model_cfg){.num_classes = fv_cli_int(cli, OPT_NUM_CLASSES),
                              .img_size = net->img_size,
                              .in_chans = net->c,
                              .without = fv_cli_text(cli, OPT_WITHOUT)};
    for (int i = 0; i < FV_CONFIG_CHANNELS; i++) net->mean[i] = 0.5, net->std[i] = 0.25;
    net->optim = (fv_optim_cfg){.kind = (fv_opt_kind)fv_opt_from_name(fv_cli_text(cli, OPT_OPTIMIZER)),
                                .momentum = fv_cli_float(cli, OPT_MOMENTUM),
                                .weight_decay = 5e-4};
    net->optim.nesterov = fv_cli_bool(cli, OPT_NESTEROV) && net->optim.momentum > 0;
    return FV_OK;
}

static fv_status build(bench *b) {
    FV_TRY(fv_tool_open_device(b->ctx, b->cli, &b->device));
    fv_graph *g = NULL;
    fv_compile_opts opts = {0};
    FV_TRY(b->training ? fv_network_train_graph(b->ctx, &b->net, &g, &b->size)
                       : fv_network_parts_graph(b->ctx, &b->net, b->device, &g, &b->size, &opts.parts));
    fv_status status = fv_store_create(b->ctx, b->device, &b->store);
    if (status == FV_OK) status = fv_store_bind(b->store, g);
    if (status == FV_OK) status = fv_store_commit(b->store, (uint64_t)fv_cli_int(b->cli, OPT_SEED));
    if (status != FV_OK) {
        fv_graph_free(g);
        return status;
    }
    FV_TRY(fv_compile(b->ctx, g, b->store, b->device, &opts, &b->program));
    return fv_program_watch(b->program, b->training ? (const char *[]){"loss"} : (const char *[]){"logits"}, 1);
}

/* Random pictures and labels. */
static fv_status make_batch(bench *b) {
    size_t n = (size_t)b->net.batch, pixels = (size_t)b->net.h * (size_t)b->net.w * (size_t)b->net.c, images, rest;
    size_t row = FV_AUG_FIELDS * sizeof(float) + sizeof(int32_t) + sizeof(float) + 2 * sizeof(int64_t);
    if (!fv_size_mul(n, pixels, &images) || !fv_size_mul(n, row, &rest) || !fv_size_add(images, rest, &b->data_bytes))
        return fv_fail_memory(b->ctx, SIZE_MAX, "a batch");
    char *p = b->data = fv_calloc(b->ctx, b->data_bytes, 1);
    b->n_logits = n * (size_t)b->net.cfg.num_classes;
    b->logits = fv_alloc(b->ctx, b->n_logits, sizeof *b->logits);
    b->ms = fv_alloc(b->ctx, FV_BENCH_MOST, sizeof *b->ms);
    if (!p || !b->logits || !b->ms) return b->ctx->error.code;
    int64_t *key = (int64_t *)(void *)p, *index = key + n;
    float *record = (float *)(void *)(index + n), *weight = record + n * FV_AUG_FIELDS;
    int32_t *label = (int32_t *)(void *)(weight + n);
    uint8_t *image = (uint8_t *)(label + n);
    uint64_t seed = (uint64_t)fv_cli_int(b->cli, OPT_SEED);
    for (size_t i = 0; i < images; i += 16) {
        fv_philox words = fv_random(seed, i, 0, 0, fv_hash_name("bench"));
        memcpy(image + i, words.v, images - i < 16 ? images - i : 16);
    }
    for (size_t i = 0; i < n; i++) {
        fv_philox words = fv_random(seed, i, 1, 0, fv_hash_name("bench"));
        label[i] = (int32_t)fv_uniform_below(&words, (uint64_t)b->net.cfg.num_classes);
        weight[i] = 1;
        key[i] = index[i] = (int64_t)i;
    }
    b->batch = (fv_batch){.size = b->net.batch,
                          .valid = b->net.batch,
                          .images = image,
                          .record = record,
                          .labels = label,
                          .row_weight = weight,
                          .row_key = key,
                          .index = index};
    return FV_OK;
}

static fv_status begin_step(bench *b, int64_t step) {
    fv_step data = {.seed = (uint64_t)fv_cli_int(b->cli, OPT_SEED),
                    .step = step,
                    .loss_scale = b->net.precision == FV_F16 ? FV_BENCH_LOSS_SCALE : 1,
                    .lr = {1e-3, 1e-3},
                    .weight_decay = {5e-4, 0}};
    FV_TRY(fv_network_feed(b->ctx, b->program, &b->net, &b->batch));
    return fv_program_begin(b->program, &data, FV_ALL_SEGMENTS);
}

static fv_status end_step(bench *b) {
    double loss;
    FV_TRY(fv_program_end(b->program));
    return b->training ? fv_network_seen(b->ctx, b->program, "loss", &loss, 1)
                       : fv_network_seen(b->ctx, b->program, "logits", b->logits, (int64_t)b->n_logits);
}

static fv_status one_step(bench *b, int64_t step) {
    FV_TRY(begin_step(b, step));
    return end_step(b);
}

static int by_value(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static fv_status measure(bench *b) {
    FV_TRY(one_step(b, 0));
    b->first_step_s = fv_tool_now() - b->tool->launched;
    for (int64_t i = 1; i < FV_BENCH_WARMUP; i++) FV_TRY(one_step(b, i));
    if (fv_cli_bool(b->cli, OPT_PROFILE)) FV_TRY(b->device->backend->profile(fv_program_exec(b->program), true));
    const bool ahead = !b->device->host_memory;
    double start = fv_tool_now(), seconds = fv_cli_float(b->cli, OPT_SECONDS), now = start;
    if (ahead) FV_TRY(begin_step(b, FV_BENCH_WARMUP));
    do {
        double before = now;
        FV_TRY(begin_step(b, FV_BENCH_WARMUP + b->steps + ahead));
        FV_TRY(end_step(b));
        now = fv_tool_now();
        b->ms[b->steps++] = 1e3 * (now - before);
    } while (now - start < seconds && b->steps < FV_BENCH_MOST);
    if (ahead) FV_TRY(end_step(b));
    qsort(b->ms, (size_t)b->steps, sizeof *b->ms, by_value);
    return FV_OK;
}

/* ---------------------------------------------------------------- what comes out */

static fv_status show(bench *b) {
    double median = b->ms[b->steps / 2], rate = 1e3 * (double)b->net.batch / median;
    double p10 = b->ms[b->steps / 10], p90 = b->ms[b->steps * 9 / 10];
    double gflops = 2e-9 * b->size.macs * rate * (b->training ? 3 : 1); /* backward is twice the forward */
    const char *mode = fv_cli_text(b->cli, OPT_MODE);
    double device_mb = (double)b->device->peak_bytes / 1048576; /* 0: the device's memory is the process's */
    fv_console_result(&b->tool->console,
                      "%s %s, batch %lld, %lldx%lld, %s: %.1f images/s, %.2f ms per step (p10 %.2f, p90 %.2f, %lld "
                      "steps), %.0f GFLOP/s, peak "
                      "memory %.0f MB · %s",
                      b->net.model->name, mode, (long long)b->net.batch, (long long)b->net.img_size,
                      (long long)b->net.img_size, fv_cli_text(b->cli, OPT_PRECISION), rate, median, p10, p90,
                      (long long)b->steps, gflops, device_mb > 0 ? device_mb : b->peak_mb, b->device->text);
    return fv_console_json(
        &b->tool->console, b->ctx,
        json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:I, s:o, s:o, s:I, s:o, s:o, s:s, s:s, s:I, s:o, s:s}",
                  "model", b->net.model->name, "mode", mode, "batch", (json_int_t)b->net.batch, "img_size",
                  (json_int_t)b->net.img_size, "images_per_s", fv_json_number(rate, 6), "ms_per_step",
                  fv_json_number(median, 6), "ms_p10", fv_json_number(p10, 6), "ms_p90", fv_json_number(p90, 6),
                  "steps", (json_int_t)b->steps, "peak_rss_mb", fv_json_number(b->peak_mb, 6), "device_peak_mb",
                  fv_json_number(device_mb, 6), "params", (json_int_t)b->size.params, "macs",
                  fv_json_number(b->size.macs, 15), "gflops", fv_json_number(gflops, 5), "device", b->device->text,
                  "precision", fv_cli_text(b->cli, OPT_PRECISION), "threads",
                  (json_int_t)fv_cli_int(b->cli, OPT_THREADS), "first_step_s", fv_json_number(b->first_step_s, 4),
                  "opt", b->training ? fv_cli_text(b->cli, OPT_OPTIMIZER) : ""));
}

static fv_status run(bench *b) {
    FV_TRY(configure(b));
    FV_TRY(build(b));
    FV_TRY(make_batch(b));
    FV_TRY(measure(b));
    b->peak_mb = fv_tool_peak_mb(); /* before the roofline is measured, which takes memory */
    if (fv_cli_bool(b->cli, OPT_PROFILE)) FV_TRY(fv_bench_profile(b->tool, b->device, b->program, b->steps));
    return show(b);
}

fv_status fv_cmd_bench(fv_tool *tool) {
    if (!strcmp(fv_cli_text(&tool->cli, OPT_MODE), "load")) return fv_bench_load(tool);
    if (!strcmp(fv_cli_text(&tool->cli, OPT_MODE), "yardstick")) return fv_bench_yardstick(tool);
    bench b = {.tool = tool, .ctx = &tool->ctx, .cli = &tool->cli};
    fv_status status = run(&b);
    fv_program_destroy(b.program);
    fv_store_destroy(b.store);
    if (b.device) b.device->backend->close(b.device);
    fv_free(b.ctx, b.data, b.data_bytes, 1);
    fv_free(b.ctx, b.logits, b.n_logits, sizeof *b.logits);
    fv_free(b.ctx, b.ms, FV_BENCH_MOST, sizeof *b.ms);
    return status;
}
