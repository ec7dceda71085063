#include "tools/train/network.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

fv_status fv_network_find(fv_ctx *ctx, const char *name, const fv_model_entry **out) {
    *out = fv_model_find(name);
    if (*out) return FV_OK;
    const char *near = fv_model_nearest(name);
    fv_fail(ctx, FV_E_USAGE, "unknown model '%s'%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    return fv_hint(ctx, "'fovea models' lists the models");
}

double fv_network_recompute(const char *word) {
    if (!word || !strcmp(word, "none")) return 0; /* NULL: a command that does not train */
    return !strcmp(word, "cheap") ? 0.04 : INFINITY;
}

/* ---------------------------------------------------------------- freezing */

/* Names, or stages, divided by commas, added to the list; room for `most`. */
static fv_status add_prefixes(fv_ctx *ctx, fv_arena *arena, const char *text, const char **list, int most, int *n) {
    while (*n < most) {
        size_t length = strcspn(text, ",");
        if (!(list[*n] = fv_arena_printf(arena, "%.*s", (int)length, text))) return ctx->error.code;
        ++*n;
        if (text[length] == '\0') return FV_OK;
        text += length + 1;
    }
    return fv_fail(ctx, FV_E_USAGE, "--freeze: more than %d names", most);
}

fv_status fv_network_freeze(fv_ctx *ctx, fv_arena *arena, const char *text, fv_network *net) {
    enum { MOST = 1000 };
    const char *const *stages, **list = fv_arena_alloc(arena, MOST, sizeof *list);
    int there_are = fv_model_stages(net->model, &stages), n = 0;
    net->freeze = list;
    net->n_freeze = 0;
    net->freeze_named = text[strspn(text, "0123456789")] != '\0';
    if (!list) return ctx->error.code;
    long wanted = net->freeze_named ? 0 : strtol(text, NULL, 10);
    if (wanted > there_are) {
        fv_fail(ctx, FV_E_USAGE, "--freeze %s: '%s' has %d stages before its classifier", text, net->model->name,
                there_are);
        return fv_hint(ctx, "'fovea info %s' numbers them", net->model->name);
    }
    if (net->freeze_named) FV_TRY(add_prefixes(ctx, arena, text, list, MOST, &n));
    for (long i = 0; i < wanted; i++) FV_TRY(add_prefixes(ctx, arena, stages[i], list, MOST, &n));
    net->n_freeze = n;
    return FV_OK;
}

/* A name that the user gave, and that nothing has, is a mistake. */
static fv_status check_name(const fv_graph *g, const fv_network *net, const char *option, const char *name) {
    for (int32_t k = 0; k < g->n_decls; k++)
        if (fv_name_below(g->decls[k].name, name)) return FV_OK;
    fv_fail(g->ctx, FV_E_USAGE, "--%s: nothing in '%s' is called '%s'", option, net->model->name, name);
    return fv_hint(g->ctx, "'fovea info %s' lists its layers and stages", net->model->name);
}

static fv_status check_names(const fv_graph *g, const fv_network *net) {
    for (int i = 0; i < net->n_freeze && net->freeze_named; i++) FV_TRY(check_name(g, net, "freeze", net->freeze[i]));
    for (int i = 0; i < net->optim.n_groups; i++)
        if (!fv_param_group_is_class(net->optim.groups[i].pattern))
            FV_TRY(check_name(g, net, "param-groups", net->optim.groups[i].pattern));
    return FV_OK;
}

/* ---------------------------------------------------------------- graphs */

typedef struct head {
    fv_value logits, labels, row_weight; /* labels: or targets [batch,classes] */
} head;

/* What a batch consists of: images, labels or targets, weights of its rows. */
typedef struct batch_values {
    fv_value images, answers, row_weight;
} batch_values;

static batch_values build_batch(fv_graph *g, const fv_network *net) {
    fv_scope root = fv_root(g);
    int64_t b = net->batch, classes = net->cfg.num_classes;
    return (batch_values){.images = fv_input(root, "images", fv_shape(FV_U8, b, net->h, net->w, net->c)),
                          .answers = net->multi_label ? fv_input(root, "targets", fv_shape(FV_F32, b, classes))
                                                      : fv_input(root, "labels", fv_shape(FV_I32, b)),
                          .row_weight = fv_input(root, "row_weight", fv_shape(FV_F32, b))};
}

/* A batch of training has no padding: all weights are 1. */
static batch_values build_resident_batch(fv_graph *g, const fv_network *net) {
    fv_scope root = fv_root(g), s = fv_in(root, "batch");
    int64_t n = net->resident;
    fv_value rows = fv_input(root, "rows", fv_shape(FV_I32, net->batch));
    fv_value pictures = fv_input(root, "pictures", fv_shape(FV_U8, n, net->h, net->w, net->c));
    fv_value answers = fv_input(root, "answers", fv_shape(FV_I32, n));
    return (batch_values){.images = fv_gather(s, pictures, rows),
                          .answers = fv_gather(s, answers, rows),
                          .row_weight = fv_const_fill(s, fv_shape(FV_F32, net->batch), 1)};
}

/* Pictures as the model sees them. */
static fv_value build_input(fv_graph *g, const fv_network *net, fv_value images, fv_pad_mode pad_mode) {
    fv_scope root = fv_root(g);
    int64_t b = net->batch, size = net->img_size;
    fv_value record = fv_input(root, "record", fv_shape(FV_F32, b, FV_AUG_FIELDS));
    fv_value mean = fv_const(root, fv_shape(FV_F32, net->c), net->mean);
    fv_value std = fv_const(root, fv_shape(FV_F32, net->c), net->std);
    fv_augment_attr augment = {.out_h = net->h, .out_w = net->w, .pad_mode = pad_mode};
    fv_value x = fv_augment(fv_in(root, "augment"), images, record, mean, std, augment);
    if (net->h != size || net->w != size)
        x = fv_resize(fv_in(root, "resize"), x,
                      (fv_resize_attr){.mode = FV_RESIZE_BILINEAR, .out_h = size, .out_w = size});
    return x;
}

/* From pictures to logits; an empty head and an error in the graph if something does not fit. */
static head build_forward(fv_graph *g, const fv_network *net, batch_values batch, fv_pad_mode pad_mode) {
    fv_value x = build_input(g, net, batch.images, pad_mode);
    return (head){.logits = fv_model_build(g, net->model->name, x, &net->cfg),
                  .labels = batch.answers,
                  .row_weight = batch.row_weight};
}

fv_network_size fv_network_measure(const fv_graph *g, int64_t batch) {
    fv_network_size size = {0};
    for (int32_t i = 0; i < g->n_decls; i++)
        if (g->decls[i].role == FV_ROLE_WEIGHT) size.params += fv_count(g->decls[i].type);
    for (int32_t i = 0; i < g->n_nodes; i++) {
        fv_op op = g->nodes[i].op;
        if (op == FV_OP_CONV2D || op == FV_OP_LINEAR || op == FV_OP_MATMUL || op == FV_OP_ATTENTION)
            size.macs += fv_node_flops(g, &g->nodes[i]) / 2 / (double)batch;
    }
    return size;
}

static fv_status new_graph(fv_ctx *ctx, bool training, fv_graph **out) {
    *out = fv_graph_new(ctx, training);
    return *out ? FV_OK : FV_E_MEMORY;
}

/* Result 0: mean or sum over the batch; result 1: per row. */
static fv_value build_loss(fv_graph *g, const fv_network *net, head h, fv_loss_attr attr, const double *class_weight) {
    fv_scope s = fv_in(fv_root(g), "loss");
    fv_value weight = class_weight ? fv_const(s, fv_shape(FV_F32, net->cfg.num_classes), class_weight) : FV_NONE;
    return net->multi_label ? fv_bce_with_logits(s, h.logits, h.labels, h.row_weight, weight, attr)
                            : fv_softmax_cross_entropy(s, h.logits, h.labels, h.row_weight, weight, attr);
}

static void count_correct(fv_graph *g, const fv_network *net, head h) {
    fv_scope s = fv_in(fv_root(g), "loss");
    int64_t classes = fv_dim(g, h.logits, -1);
    if (net->multi_label) {
        fv_set_output(g, "logits", h.logits);
        return;
    }
    fv_set_output(g, "top1", fv_topk_correct(s, h.logits, h.labels, h.row_weight, 1));
    fv_set_output(g, "top5", fv_topk_correct(s, h.logits, h.labels, h.row_weight, classes < 5 ? (int)classes : 5));
}

/* The last pass over a graph. */
static fv_status set_precision(fv_graph *g, const fv_network *net) {
    if (net->precision == FV_F64) fv_graph_cast_floats(g, FV_F64);
    if (fv_is_low(net->precision)) fv_graph_mix_precision(g, net->precision);
    return fv_graph_finish(g);
}

static fv_status finish_train(fv_graph *g, const fv_network *net, fv_network_size *size) {
    fv_graph_freeze(g, net->freeze, net->n_freeze);
    batch_values batch = net->resident ? build_resident_batch(g, net) : build_batch(g, net);
    head h = build_forward(g, net, batch, net->pad_mode);
    fv_loss_attr attr = {.label_smoothing = net->smoothing, .reduction = FV_REDUCE_MEAN};
    fv_set_output(g, "loss", build_loss(g, net, h, attr, net->class_weight));
    attr.reduction = FV_REDUCE_SUM;
    if (net->sum_loss) fv_set_output(g, "loss_sum", build_loss(g, net, h, attr, net->class_weight));
    count_correct(g, net, h);
    fv_graph_fuse(g);
    FV_TRY(fv_graph_finish(g));
    FV_TRY(check_names(g, net));
    *size = fv_network_measure(g, net->batch);
    fv_optim_cfg optim = net->optim;
    optim.loss_scaling = net->precision == FV_F16;
    FV_TRY(fv_optim_build(g, fv_find_output(g, net->sum_loss ? "loss_sum" : "loss"), &optim));
    FV_TRY(set_precision(g, net));
    FV_TRY(fv_graph_recompute(g, net->recompute, &size->recompute));
    return fv_graph_finish(g);
}

static fv_status finish_eval(fv_graph *g, const fv_network *net, fv_network_size *size) {
    head h = build_forward(g, net, build_batch(g, net), FV_PAD_REFLECT); /* for shifted views (tta.h) */
    fv_set_output(g, "logits", h.logits);
    fv_set_output(g, "row_loss", fv_result(build_loss(g, net, h, (fv_loss_attr){0}, NULL), 1));
    fv_graph_fuse(g);
    FV_TRY(fv_graph_finish(g));
    *size = fv_network_measure(g, net->batch);
    return set_precision(g, net);
}

fv_status fv_network_input_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out) {
    FV_TRY(new_graph(ctx, false, out));
    fv_value images = fv_input(fv_root(*out), "images", fv_shape(FV_U8, net->batch, net->h, net->w, net->c));
    fv_set_output(*out, "pictures", build_input(*out, net, images, net->pad_mode));
    if (net->precision == FV_F64) fv_graph_cast_floats(*out, FV_F64);
    fv_status status = fv_graph_finish(*out);
    if (status != FV_OK) {
        fv_graph_free(*out);
        *out = NULL;
    }
    return status;
}

static fv_status build(fv_ctx *ctx, const fv_network *net, bool training, fv_graph **out, fv_network_size *size) {
    fv_network_size unwanted;
    FV_TRY(new_graph(ctx, training, out));
    fv_status status =
        training ? finish_train(*out, net, size ? size : &unwanted) : finish_eval(*out, net, size ? size : &unwanted);
    if (status != FV_OK) {
        fv_graph_free(*out);
        *out = NULL;
    }
    return status;
}

fv_status fv_network_train_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size) {
    return build(ctx, net, true, out, size);
}

fv_status fv_network_eval_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size) {
    return build(ctx, net, false, out, size);
}

fv_status fv_network_parts_graph(fv_ctx *ctx, const fv_network *net, const fv_device *dev, fv_graph **out,
                                 fv_network_size *size, int64_t *parts) {
    FV_TRY(fv_network_eval_graph(ctx, net, out, size));
    *parts = dev->alone ? fv_graph_parts(*out, net->batch) : 1;
    if (*parts == 1) return FV_OK;
    fv_graph_free(*out);
    *out = NULL;
    fv_network part = *net;
    part.batch /= *parts;
    return fv_network_eval_graph(ctx, &part, out, NULL);
}

/* ---------------------------------------------------------------- in and out */

/* Numbers of an output, in `out` as they are, to doubles: in place, from the end. */
static void widen(fv_type type, double *out) {
    const unsigned char *narrow = (const unsigned char *)out;
    for (int64_t i = type.dtype == FV_F32 ? fv_count(type) : 0; i-- > 0;) {
        float f;
        memcpy(&f, narrow + (size_t)i * sizeof f, sizeof f);
        out[i] = (double)f;
    }
}

static fv_status check_output(fv_ctx *ctx, fv_program *p, const char *name, int64_t count, fv_type *type) {
    *type = fv_program_output_type(p, name);
    if (fv_count(*type) == count && (type->dtype == FV_F32 || type->dtype == FV_F64)) return FV_OK;
    return fv_fail(ctx, FV_E_INTERNAL, "output '%s' is not %lld floats", name, (long long)count);
}

fv_status fv_network_output(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count) {
    fv_type type;
    FV_TRY(check_output(ctx, p, name, count, &type));
    FV_TRY(fv_program_output(p, name, out, fv_bytes(type)));
    widen(type, out);
    return FV_OK;
}

fv_status fv_network_watch(fv_program *p, const fv_network *net) {
    const char *const names[] = {"loss", "grad_stats", net->multi_label ? "logits" : "top1"};
    return fv_program_watch(p, names, 3);
}

fv_status fv_network_seen(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count) {
    fv_type type;
    FV_TRY(check_output(ctx, p, name, count, &type));
    const void *seen = fv_program_seen(p, name);
    if (!seen) return fv_fail(ctx, FV_E_INTERNAL, "output '%s' was not watched", name);
    memcpy(out, seen, fv_bytes(type));
    widen(type, out);
    return FV_OK;
}

/* Rows of the batch whose logits have the sign that each target asks for. */
static int64_t count_exact(const double *logits, const fv_batch *batch, int64_t classes) {
    int64_t exact = 0;
    for (int64_t r = 0; r < batch->valid; r++) {
        bool right = true;
        for (int64_t k = 0; k < classes && right; k++)
            right = (logits[r * classes + k] >= 0) == (batch->targets[r * classes + k] > 0.5f);
        exact += right;
    }
    return exact;
}

fv_status fv_network_correct(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch, double *out) {
    if (!net->multi_label) return fv_network_seen(ctx, p, "top1", out, 1);
    size_t count = (size_t)(batch->size * net->cfg.num_classes);
    double *logits = fv_alloc(ctx, count, sizeof *logits);
    if (!logits) return ctx->error.code;
    fv_status status = fv_network_seen(ctx, p, "logits", logits, (int64_t)count);
    if (status == FV_OK) *out = (double)count_exact(logits, batch, net->cfg.num_classes);
    fv_free(ctx, logits, count, sizeof *logits);
    return status;
}

static fv_status feed_floats(fv_ctx *ctx, fv_program *p, bool float64, const char *name, const float *data,
                             size_t count) {
    if (!float64) return fv_program_input(p, name, data, count * sizeof *data);
    double *wide = fv_alloc(ctx, count, sizeof *wide);
    if (!wide) return ctx->error.code;
    for (size_t i = 0; i < count; i++) wide[i] = (double)data[i];
    fv_status status = fv_program_input(p, name, wide, count * sizeof *wide);
    fv_free(ctx, wide, count, sizeof *wide);
    return status;
}

fv_dtype fv_network_precision(const char *text) {
    static const struct {
        const char *text;
        fv_dtype dtype;
    } words[] = {{"float64", FV_F64}, {"bf16", FV_BF16}, {"float16", FV_F16}};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text, words[i].text)) return words[i].dtype;
    return FV_F32;
}

/* Indices into the set are rows of the tables. */
static fv_status feed_rows(fv_ctx *ctx, fv_program *p, const fv_batch *batch) {
    const size_t n = (size_t)batch->size;
    int32_t *rows = fv_alloc(ctx, n, sizeof *rows);
    if (!rows) return ctx->error.code;
    for (size_t i = 0; i < n; i++) rows[i] = (int32_t)batch->index[i];
    fv_status status = fv_program_input(p, "rows", rows, n * sizeof *rows);
    fv_free(ctx, rows, n, sizeof *rows);
    return status;
}

fv_status fv_network_feed(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch) {
    size_t b = (size_t)batch->size, pixels = (size_t)net->h * (size_t)net->w * (size_t)net->c;
    if (!batch->images) FV_TRY(feed_rows(ctx, p, batch));
    FV_TRY(fv_program_input(p, "images", batch->images, b * pixels));
    FV_TRY(feed_floats(ctx, p, net->precision == FV_F64, "record", batch->record, b * FV_AUG_FIELDS));
    if (net->multi_label)
        FV_TRY(
            feed_floats(ctx, p, net->precision == FV_F64, "targets", batch->targets, b * (size_t)net->cfg.num_classes));
    else FV_TRY(fv_program_input(p, "labels", batch->labels, b * sizeof *batch->labels));
    FV_TRY(feed_floats(ctx, p, net->precision == FV_F64, "row_weight", batch->row_weight, b));
    return fv_program_input(p, "row_key", batch->row_key, b * sizeof *batch->row_key);
}
