/* predict.c: the command `predict`: pictures in files to classes.
 *
 *   paths (files, folders, stdin) ─► per batch: decode and resize on --workers threads ─► model ─► probabilities
 *     ─► a line per picture (text or JSON), rows of the CSV file */
#include "tools/device.h"
#include "tools/predict.h"
#include "tools/tool.h"
#include "tools/train/session.h"
#include "tools/train/source.h"
#include "tools/train/tta.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FV_PREDICT_BATCH 32 /* unless --batch-size says otherwise */
#define FV_MULTI_LABEL 0.5  /* classes with this probability are shown */

typedef struct predict {
    fv_tool *tool;
    fv_ctx *ctx; /* the tool's; so are the next two */
    fv_cli *cli;
    fv_console *con;
    fv_arena arena;
    fv_path_list paths;
    /* the model */
    fv_model_source source;
    const fv_model_entry *model;
    fv_model_cfg cfg;
    double mean[FV_CONFIG_CHANNELS], std[FV_CONFIG_CHANNELS];
    bool multi_label;
    fv_device *device;
    fv_store *store;
    fv_program *program;
    /* one batch */
    int64_t batch, first;  /* rows; the picture of the first one */
    uint8_t *images;       /* [batch,size,size,channels] */
    float *record;         /* [batch,FV_AUG_FIELDS] */
    double *view, *logits; /* [batch,num_classes]: of one view; averaged */
    float *probability;    /* [batch,num_classes] */
    fv_error *error;       /* [batch], code FV_OK: none */
    /* threads that read */
    int readers;
    fv_pool *pool;
    fv_ctx *reader_ctx;
    fv_decoder **decoder;
    /* results */
    int64_t topk, failed;
    int path_columns, class_columns;
    FILE *csv; /* NULL: none wanted */
    char *csv_text;
    size_t csv_bytes;
} predict;

/* ---------------------------------------------------------------- the model */

/* One value serves all channels. */
static fv_status take_channels(predict *p, fv_cli_id id, double *out) {
    const fv_cli_value *v = &p->cli->value[id];
    if (!v->count) return FV_OK;
    if (v->count != 1 && v->count != p->cfg.in_chans)
        return fv_fail(p->ctx, FV_E_USAGE, "--%s has %d values; the model takes %lld channels", fv_cli_options[id].name,
                       v->count, (long long)p->cfg.in_chans);
    for (int64_t i = 0; i < p->cfg.in_chans; i++) out[i] = v->number[v->count == 1 ? 0 : i];
    return FV_OK;
}

/* A model, then pictures. */
static fv_status check_arguments(const predict *p) {
    const char *path = p->cli->positional[0];
    struct stat st;
    if (fv_image_name(path) && stat(path, &st) == 0 && !S_ISDIR(st.st_mode)) {
        fv_fail(p->ctx, FV_E_USAGE, "the first argument must be a model, and '%s' is a picture", path);
        return fv_hint(p->ctx, "for example 'fovea predict runs/train %s'", path);
    }
    if (p->cli->positionals > 1) return FV_OK;
    fv_fail(p->ctx, FV_E_USAGE, "no pictures given");
    return fv_hint(p->ctx, "fovea predict %s PICTURE|FOLDER...; '-' reads paths from standard input", path);
}

static fv_status find_model(predict *p) {
    fv_cli *cli = p->cli;
    const char *path = cli->positional[0];
    FV_TRY(fv_model_source_find(p->ctx, &p->arena, path, fv_cli_text(cli, OPT_WEIGHTS), &p->source));
    FV_TRY(fv_model_source_apply(&p->source, cli, true));
    if (!p->source.has_config && cli->value[OPT_MODEL].source <= FV_FROM_DEFAULT) {
        fv_fail_at(p->ctx, FV_E_USAGE, p->source.weights, -1, "there is no config.json beside it that names the model");
        return fv_hint(p->ctx, "give --model NAME; 'fovea models' lists the names");
    }
    return fv_network_find(p->ctx, fv_cli_text(cli, OPT_MODEL), &p->model);
}

static fv_status configure(predict *p) {
    fv_cli *cli = p->cli;
    if (fv_network_precision(fv_cli_text(cli, OPT_PRECISION)) == FV_F64)
        return fv_fail(p->ctx, FV_E_USAGE, "predict computes in float32, bf16 or float16, not in float64");
    FV_TRY(find_model(p));
    FV_TRY(fv_defaults_resolve_files(cli, p->model));
    FV_TRY(fv_cli_resolve(cli, OPT_NUM_CLASSES, "%d", fv_cli_int(cli, OPT_IMG_SIZE) <= 64 ? 10 : 1000));
    p->cfg = (fv_model_cfg){.num_classes = fv_cli_int(cli, OPT_NUM_CLASSES),
                            .img_size = fv_cli_int(cli, OPT_IMG_SIZE),
                            .in_chans = fv_cli_int(cli, OPT_IN_CHANS),
                            .without = fv_cli_text(cli, OPT_WITHOUT)};
    if (p->cfg.in_chans > 4) {
        fv_fail(p->ctx, FV_E_USAGE, "the model takes %lld channels; a picture file has at most 4",
                (long long)p->cfg.in_chans);
        return FV_E_USAGE;
    }
    fv_defaults_normalisation((int32_t)p->cfg.in_chans, p->mean, p->std);
    FV_TRY(take_channels(p, OPT_MEAN, p->mean));
    FV_TRY(take_channels(p, OPT_STD, p->std));
    p->multi_label = p->source.has_config && p->source.config.multi_label;
    p->topk = fv_cli_int(cli, OPT_TOPK) < p->cfg.num_classes ? fv_cli_int(cli, OPT_TOPK) : p->cfg.num_classes;
    return FV_OK;
}

static fv_graph *build_graph(const predict *p, int64_t batch) {
    fv_graph *g = fv_graph_new(p->ctx, false);
    if (!g) return NULL;
    fv_scope root = fv_root(g);
    fv_value x = fv_picture_input(root, batch, p->cfg.img_size, p->cfg.img_size, p->cfg.in_chans, p->mean, p->std,
                                  FV_PAD_REFLECT);
    fv_set_output(g, "logits", fv_model_build(g, p->model->name, x, &p->cfg));
    fv_graph_fuse(g);
    fv_dtype precision = fv_network_precision(fv_cli_text(p->cli, OPT_PRECISION));
    if (fv_is_low(precision)) fv_graph_mix_precision(g, precision);
    return g;
}

static fv_status compile(predict *p) {
    fv_compile_opts opts = {.parts = 1};
    fv_graph *g = build_graph(p, p->batch);
    if (g && p->device->alone) opts.parts = fv_graph_parts(g, p->batch);
    if (opts.parts > 1) {
        fv_graph_free(g);
        g = build_graph(p, p->batch / opts.parts);
    }
    if (!g) return p->ctx->error.code;
    return fv_program_create(p->ctx, g, p->device, 0, &opts, &p->store, &p->program);
}

static fv_status open_model(predict *p) {
    FV_TRY(fv_tool_open_device(p->ctx, p->cli, &p->device));
    FV_TRY(compile(p));
    fv_status status = fv_model_load(p->ctx, p->store, p->source.weights, NULL);
    if (status == FV_E_MODEL && !p->ctx->error.hint[0])
        fv_hint(p->ctx, "the model is %s with %lld classes; --model and --num-classes name another", p->model->name,
                (long long)p->cfg.num_classes);
    return status;
}

/* ---------------------------------------------------------------- reading */

static size_t picture_bytes(const predict *p) {
    return (size_t)(p->cfg.img_size * p->cfg.img_size * p->cfg.in_chans);
}

static fv_status open_readers(predict *p) {
    int64_t wanted = fv_cli_int(p->cli, OPT_WORKERS);
    p->readers = (int)(wanted < 1 ? 1 : wanted > p->batch ? p->batch : wanted);
    p->reader_ctx = fv_calloc(p->ctx, (size_t)p->readers, sizeof *p->reader_ctx);
    p->decoder = fv_calloc(p->ctx, (size_t)p->readers, sizeof *p->decoder);
    if (!p->reader_ctx || !p->decoder) return p->ctx->error.code;
    for (int i = 0; i < p->readers; i++) {
        p->reader_ctx[i] = *p->ctx;
        p->reader_ctx[i].log = NULL; /* the console is not for several threads */
        fv_status status = fv_decoder_create(&p->reader_ctx[i], &p->decoder[i]);
        if (status != FV_OK) return p->ctx->error = p->reader_ctx[i].error, status;
    }
    return p->readers > 1 ? fv_pool_create(p->ctx, p->readers, &p->pool) : FV_OK;
}

/* Row `tile` of the batch; what cannot be read is left black and has an error. */
static void read_row(void *arg, int64_t tile, int thread) {
    predict *p = arg;
    const char *path = p->paths.path[p->first + tile];
    uint8_t *out = p->images + (size_t)tile * picture_bytes(p);
    fv_filter filter = fv_cli_int(p->cli, OPT_INTERPOLATION) == 1 ? FV_FILTER_BICUBIC : FV_FILTER_BILINEAR;
    p->error[tile].code = FV_OK;
    fv_status status = fv_picture_prepare(p->decoder[thread], path, (int32_t)p->cfg.img_size, (int32_t)p->cfg.in_chans,
                                          fv_cli_float(p->cli, OPT_CROP_PCT), filter, out);
    if (status == FV_OK) return;
    memset(out, 0, picture_bytes(p));
    p->error[tile] = p->reader_ctx[thread].error;
}

static fv_status take_buffers(predict *p) {
    size_t n = (size_t)p->batch, bytes = 0;
    if (!fv_size_mul(n, picture_bytes(p), &bytes)) return fv_fail_memory(p->ctx, SIZE_MAX, "a batch of pictures");
    p->images = fv_arena_alloc(&p->arena, bytes, 1);
    p->record = fv_arena_alloc(&p->arena, n * FV_AUG_FIELDS, sizeof *p->record);
    p->view = fv_arena_alloc(&p->arena, n, (size_t)p->cfg.num_classes * sizeof *p->view);
    p->logits = fv_arena_alloc(&p->arena, n, (size_t)p->cfg.num_classes * sizeof *p->logits);
    p->probability = fv_arena_alloc(&p->arena, n, (size_t)p->cfg.num_classes * sizeof *p->probability);
    p->error = fv_arena_alloc(&p->arena, n, sizeof *p->error);
    bool all = p->images && p->record && p->view && p->logits && p->probability && p->error;
    return all ? FV_OK : p->ctx->error.code;
}

/* ---------------------------------------------------------------- results */

/* Name of a class; "class 12" into buf where the model has no names. */
static const char *class_name(const predict *p, int64_t k, char *buf, size_t size) {
    const fv_model_config *c = &p->source.config;
    if (p->source.has_config && k < c->n_labels) return c->label_names[k];
    snprintf(buf, size, "class %lld", (long long)k);
    return buf;
}

/* The best class that comes after `last` (-1: the very best): falling probability, equal ones by number. */
static int64_t next_best(const predict *p, const float *row, int64_t last) {
    int64_t best = -1;
    for (int64_t k = 0; k < p->cfg.num_classes; k++) {
        bool later = last < 0;
        if (last >= 0) later = row[k] < row[last] || (k > last && row[k] == row[last]);
        if (later && (best < 0 || row[k] > row[best])) best = k;
    }
    return best;
}

/* How many classes of a picture are shown: --topk, or what a model of several labels holds to be there. */
static int64_t shown_classes(const predict *p, const float *row) {
    int64_t n = 0;
    if (!p->multi_label || fv_cli_given(p->cli, OPT_TOPK)) return p->topk;
    for (int64_t k = 0; k < p->cfg.num_classes; k++) n += row[k] >= (float)FV_MULTI_LABEL;
    return n;
}

static json_t *class_json(const predict *p, const float *row, int64_t k) {
    char buf[32];
    return json_pack("{s:o, s:I, s:o}", "class", fv_json_text(class_name(p, k, buf, sizeof buf)), "index",
                     (json_int_t)k, "probability", fv_json_number((double)row[k], 6));
}

static fv_status show_json(predict *p, const char *path, const float *row, int64_t n) {
    json_t *list = json_array();
    for (int64_t i = 0, k = -1; list && i < n; i++) {
        k = next_best(p, row, k);
        fv_json_add(&list, class_json(p, row, k));
    }
    json_t *line = json_pack("{s:s, s:o, s:o}", "event", "prediction", "path", fv_json_text(path), "classes", list);
    return fv_console_json(p->con, p->ctx, line);
}

static void show_text(predict *p, const char *path, const float *row, int64_t n) {
    char name[512], plain[512], buf[32];
    fv_text_line(path, name, sizeof name);
    int gap = p->path_columns - fv_text_columns(name);
    bool one_line = p->topk == 1 && !p->multi_label;
    if (!one_line) fv_console_result(p->con, "%s%s", name, n ? "" : ": none of the classes");
    for (int64_t i = 0, k = -1; i < n; i++) {
        k = next_best(p, row, k);
        fv_text_line(class_name(p, k, buf, sizeof buf), plain, sizeof plain);
        int pad = p->class_columns - fv_text_columns(plain);
        if (one_line)
            fv_console_result(p->con, "%s%*s  %s%*s  %.4f", name, gap > 0 ? gap : 0, "", plain, pad > 0 ? pad : 0, "",
                              (double)row[k]);
        else fv_console_result(p->con, "  %s%*s  %.4f", plain, pad > 0 ? pad : 0, "", (double)row[k]);
    }
}

static void add_csv(predict *p, const char *path, const float *row, int64_t n) {
    char buf[32];
    for (int64_t i = 0, k = -1; p->csv && i < n; i++) {
        k = next_best(p, row, k);
        fv_text_csv(p->csv, path);
        fprintf(p->csv, ",%lld,%lld,", (long long)i + 1, (long long)k);
        fv_text_csv(p->csv, class_name(p, k, buf, sizeof buf));
        fprintf(p->csv, ",%.6g\n", (double)row[k]);
    }
}

static fv_status show_row(predict *p, int64_t r) {
    const char *path = p->paths.path[p->first + r];
    const float *row = p->probability + r * p->cfg.num_classes;
    if (p->error[r].code != FV_OK) {
        if (p->error[r].code == FV_E_MEMORY) return p->ctx->error = p->error[r], FV_E_MEMORY;
        if (p->failed++) p->error[r].hint[0] = '\0'; /* once is enough */
        fv_console_error(p->con, &p->error[r]);
        return FV_OK;
    }
    for (int64_t k = 0; k < p->cfg.num_classes; k++)
        if (!isfinite(row[k])) return fv_fail_at(p->ctx, FV_E_NUMERIC, path, -1, "the model's output is not finite");
    int64_t n = shown_classes(p, row);
    add_csv(p, path, row, n);
    if (p->con->json) return show_json(p, path, row, n);
    show_text(p, path, row, n);
    return FV_OK;
}

/* Columns of the text: as wide as the widest, within reason. */
static void measure_columns(predict *p) {
    char line[512], buf[32];
    for (int64_t i = 0; i < p->paths.count; i++) {
        int n = fv_text_columns(fv_text_line(p->paths.path[i], line, sizeof line));
        if (n <= 50 && n > p->path_columns) p->path_columns = n;
    }
    for (int64_t k = 0; k < p->cfg.num_classes && k < 10000; k++) {
        int n = fv_text_columns(fv_text_line(class_name(p, k, buf, sizeof buf), line, sizeof line));
        if (n <= 24 && n > p->class_columns) p->class_columns = n;
    }
}

/* ---------------------------------------------------------------- all of it */

/* A row of logits to probabilities: softmax, or with several labels of each class by itself. */
static void to_probability(const predict *p, const double *logits, float *out) {
    double most = -INFINITY, sum = 0;
    int64_t n = p->cfg.num_classes;
    for (int64_t k = 0; k < n; k++) most = logits[k] > most || isnan(logits[k]) ? logits[k] : most;
    for (int64_t k = 0; k < n; k++) sum += exp(logits[k] - most);
    for (int64_t k = 0; k < n; k++)
        out[k] = (float)(p->multi_label ? 1 / (1 + exp(-logits[k])) : exp(logits[k] - most) / sum);
}

/* The batch in each view of --tta, into p->probability. */
static fv_status run_views(predict *p) {
    const fv_tta *tta = fv_tta_of(p->cli);
    size_t rows = (size_t)p->batch;
    int64_t n = p->batch * p->cfg.num_classes;
    for (int v = 0; v < tta->views; v++) {
        fv_tta_record(&tta->view[v], p->batch, p->record);
        FV_TRY(fv_program_input(p->program, "images", p->images, rows * picture_bytes(p)));
        FV_TRY(fv_program_input(p->program, "record", p->record, rows * FV_AUG_FIELDS * sizeof *p->record));
        FV_TRY(fv_program_run(p->program, NULL, FV_ALL_SEGMENTS));
        FV_TRY(fv_network_output(p->ctx, p->program, "logits", p->view, n));
        fv_tta_add(tta, v, p->view, n, p->logits);
    }
    for (int64_t r = 0; r < p->batch; r++)
        to_probability(p, p->logits + r * p->cfg.num_classes, p->probability + r * p->cfg.num_classes);
    return FV_OK;
}

static fv_status run_batch(predict *p, int64_t rows) {
    size_t n = (size_t)p->batch;
    memset(p->images + (size_t)rows * picture_bytes(p), 0, (n - (size_t)rows) * picture_bytes(p));
    fv_pool_run(p->pool, rows, read_row, p);
    FV_TRY(run_views(p));
    for (int64_t r = 0; r < rows; r++) FV_TRY(show_row(p, r));
    return FV_OK;
}

static fv_status run_batches(predict *p) {
    for (p->first = 0; p->first < p->paths.count; p->first += p->batch) {
        int64_t left = p->paths.count - p->first;
        FV_TRY(run_batch(p, left < p->batch ? left : p->batch));
        if (p->con->output_errno)
            return fv_fail(p->ctx, FV_E_IO, "standard output: %s", strerror(p->con->output_errno));
        fv_console_bar(p->con, fv_tool_now(), "classifying  %lld/%lld", (long long)p->first, (long long)p->paths.count);
    }
    return FV_OK;
}

static fv_status open_csv(predict *p) {
    const char *path = fv_cli_text(p->cli, OPT_SAVE_TO);
    struct stat st;
    if (!path) return FV_OK;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        fv_fail_at(p->ctx, FV_E_USAGE, path, -1, "is a folder; --save-to of predict wants a CSV file");
        return fv_hint(p->ctx, "for example '--save-to %s/classes.csv'", path);
    }
    char folder[512];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash && slash > path ? (int)(slash - path) : 1, slash ? path : ".");
    if (access(folder, W_OK) != 0) /* better known before the work than after */
        return fv_fail_at(p->ctx, FV_E_IO, path, -1, "cannot be written: %s", strerror(errno));
    p->csv = open_memstream(&p->csv_text, &p->csv_bytes);
    if (!p->csv) return fv_fail_memory(p->ctx, 4096, "the CSV file");
    fputs("path,rank,index,class,probability\n", p->csv);
    return FV_OK;
}

static fv_status save_csv(predict *p) {
    if (!p->csv) return FV_OK;
    if (fflush(p->csv) != 0 || ferror(p->csv)) return fv_fail_memory(p->ctx, p->csv_bytes, "the CSV file");
    const char *path = fv_cli_text(p->cli, OPT_SAVE_TO);
    FV_TRY(fv_write_file(p->ctx, path, p->csv_text, p->csv_bytes));
    fv_console_say(p->con, "saved  %s", path);
    return FV_OK;
}

/* Batches of equal size, so that the last one is not mostly empty. */
static int64_t choose_batch(const predict *p) {
    int64_t most = fv_cli_given(p->cli, OPT_BATCH_SIZE) ? fv_cli_int(p->cli, OPT_BATCH_SIZE) : FV_PREDICT_BATCH;
    int64_t batches = (p->paths.count + most - 1) / most;
    return (p->paths.count + batches - 1) / batches;
}

static fv_status summarise(predict *p, double seconds) {
    int64_t good = p->paths.count - (p->failed - p->paths.failed);
    fv_console_say(p->con, "%lld picture%s, %.0f img/s", (long long)good, good == 1 ? "" : "s",
                   seconds > 0 ? (double)good / seconds : 0);
    FV_TRY(fv_console_json(p->con, p->ctx,
                           json_pack("{s:s, s:I, s:I, s:o}", "event", "done", "pictures", (json_int_t)good, "failed",
                                     (json_int_t)p->failed, "images_per_s",
                                     fv_json_number(seconds > 0 ? (double)good / seconds : 0, 5))));
    if (!p->failed) return FV_OK;
    return fv_fail(p->ctx, FV_E_DATA, "%lld of %lld could not be read", (long long)p->failed,
                   (long long)(good + p->failed));
}

static fv_status run(predict *p) {
    char params[24];
    FV_TRY(check_arguments(p));
    FV_TRY(configure(p));
    FV_TRY(fv_paths_collect(p->con, p->ctx, &p->arena, p->cli->positional + 1, p->cli->positionals - 1, &p->paths));
    p->failed = p->paths.failed;
    if (!p->paths.count) return fv_fail(p->ctx, FV_E_DATA, "there are no pictures to classify");
    FV_TRY(open_csv(p));
    p->batch = choose_batch(p);
    FV_TRY(take_buffers(p));
    FV_TRY(open_readers(p));
    FV_TRY(open_model(p));
    measure_columns(p);
    const fv_plan *plan = fv_program_plan(p->program);
    fv_console_say(p->con, "fovea %s · %s · %s params · %s · %s", FV_VERSION, p->model->name,
                   fv_text_si((double)fv_network_measure(plan->graph, p->batch).params, params, sizeof params),
                   p->device->text, p->source.weights);
    fv_console_detail(p->con, "input  %lldx%lldx%lld, crop %s, %s, batches of %lld", (long long)p->cfg.img_size,
                      (long long)p->cfg.img_size, (long long)p->cfg.in_chans, fv_cli_text(p->cli, OPT_CROP_PCT),
                      fv_cli_text(p->cli, OPT_INTERPOLATION), (long long)p->batch);
    double start = fv_tool_now();
    FV_TRY(run_batches(p));
    double seconds = fv_tool_now() - start;
    FV_TRY(save_csv(p));
    return summarise(p, seconds);
}

fv_status fv_cmd_predict(fv_tool *tool) {
    predict p = {.tool = tool, .ctx = &tool->ctx, .cli = &tool->cli, .con = &tool->console};
    fv_arena_init(&p.arena, p.ctx);
    fv_status status = run(&p);
    for (int i = 0; p.decoder && i < p.readers; i++) fv_decoder_destroy(p.decoder[i]);
    fv_pool_destroy(p.pool);
    if (p.decoder) fv_free(p.ctx, p.decoder, (size_t)p.readers, sizeof *p.decoder);
    if (p.reader_ctx) fv_free(p.ctx, p.reader_ctx, (size_t)p.readers, sizeof *p.reader_ctx);
    fv_program_destroy(p.program);
    fv_store_destroy(p.store);
    if (p.device) p.device->backend->close(p.device);
    if (p.csv) fclose(p.csv);
    free(p.csv_text);
    fv_paths_free(p.ctx, &p.paths);
    fv_arena_free(&p.arena);
    return status;
}
