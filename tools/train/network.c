#include "tools/train/network.h"

#include <string.h>

fv_status fv_network_find(fv_ctx *ctx, const char *name, const fv_model_entry **out) {
    *out = fv_model_find(name);
    if (*out) return FV_OK;
    const char *near = fv_model_nearest(name);
    fv_fail(ctx, FV_E_USAGE, "unknown model '%s'%s%s%s", name, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    return fv_hint(ctx, "'fovea models' lists the models");
}

/* ---------------------------------------------------------------- graphs */

typedef struct head {
    fv_value logits, labels, row_weight;
} head;

/* From pictures to logits; an empty head and an error in the graph if something does not fit. */
static head build_forward(fv_graph *g, const fv_network *net) {
    fv_scope root = fv_root(g);
    int64_t b = net->batch, size = net->img_size;
    fv_value images = fv_input(root, "images", fv_shape(FV_U8, b, net->h, net->w, net->c));
    fv_value record = fv_input(root, "record", fv_shape(FV_F32, b, FV_AUG_FIELDS));
    fv_value mean = fv_const(root, fv_shape(FV_F32, net->c), net->mean);
    fv_value std = fv_const(root, fv_shape(FV_F32, net->c), net->std);
    fv_augment_attr augment = {.out_h = net->h, .out_w = net->w, .pad_mode = net->pad_mode};
    fv_value x = fv_augment(fv_in(root, "augment"), images, record, mean, std, augment);
    if (net->h != size || net->w != size)
        x = fv_resize(fv_in(root, "resize"), x,
                      (fv_resize_attr){.mode = FV_RESIZE_BILINEAR, .out_h = size, .out_w = size});
    head out;
    out.logits = fv_model_build(g, net->model->name, x, &net->cfg);
    out.labels = fv_input(root, "labels", fv_shape(FV_I32, b));
    out.row_weight = fv_input(root, "row_weight", fv_shape(FV_F32, b));
    return out;
}

fv_network_size fv_network_measure(const fv_graph *g, int64_t batch) {
    fv_network_size size = {0, 0};
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
    return *out ? FV_OK : ctx->error.code;
}

static fv_status finish_train(fv_graph *g, const fv_network *net, fv_network_size *size) {
    head h = build_forward(g, net);
    int64_t classes = fv_dim(g, h.logits, -1);
    fv_scope s = fv_in(fv_root(g), "loss");
    fv_loss_attr attr = {.label_smoothing = net->smoothing, .reduction = FV_REDUCE_MEAN};
    fv_set_output(g, "loss", fv_softmax_cross_entropy(s, h.logits, h.labels, h.row_weight, FV_NONE, attr));
    fv_set_output(g, "top1", fv_topk_correct(s, h.logits, h.labels, h.row_weight, 1));
    fv_set_output(g, "top5", fv_topk_correct(s, h.logits, h.labels, h.row_weight, classes < 5 ? (int)classes : 5));
    fv_graph_fuse(g);
    FV_TRY(fv_graph_finish(g));
    *size = fv_network_measure(g, net->batch);
    FV_TRY(fv_optim_build(g, fv_find_output(g, "loss"), &net->optim));
    if (net->float64) fv_graph_cast_floats(g, FV_F64);
    return fv_graph_finish(g);
}

static fv_status finish_eval(fv_graph *g, const fv_network *net, fv_network_size *size) {
    head h = build_forward(g, net);
    fv_loss_attr attr = {.label_smoothing = 0, .reduction = FV_REDUCE_MEAN};
    fv_value loss =
        fv_softmax_cross_entropy(fv_in(fv_root(g), "loss"), h.logits, h.labels, h.row_weight, FV_NONE, attr);
    fv_set_output(g, "logits", h.logits);
    fv_set_output(g, "row_loss", fv_result(loss, 1));
    fv_graph_fuse(g);
    FV_TRY(fv_graph_finish(g));
    *size = fv_network_measure(g, net->batch);
    if (net->float64) fv_graph_cast_floats(g, FV_F64);
    return fv_graph_finish(g);
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

/* ---------------------------------------------------------------- in and out */

fv_status fv_network_output(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count) {
    fv_type type = fv_program_output_type(p, name);
    if (fv_count(type) != count || (type.dtype != FV_F32 && type.dtype != FV_F64))
        return fv_fail(ctx, FV_E_INTERNAL, "output '%s' is not %lld floats", name, (long long)count);
    FV_TRY(fv_program_output(p, name, out, fv_bytes(type)));
    if (type.dtype == FV_F32) {
        const unsigned char *narrow = (const unsigned char *)out; /* widened in place, from the end */
        for (int64_t i = count; i-- > 0;) {
            float f;
            memcpy(&f, narrow + (size_t)i * sizeof f, sizeof f);
            out[i] = (double)f;
        }
    }
    return FV_OK;
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

fv_status fv_network_feed(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch) {
    size_t b = (size_t)batch->size, pixels = (size_t)net->h * (size_t)net->w * (size_t)net->c;
    FV_TRY(fv_program_input(p, "images", batch->images, b * pixels));
    FV_TRY(feed_floats(ctx, p, net->float64, "record", batch->record, b * FV_AUG_FIELDS));
    FV_TRY(fv_program_input(p, "labels", batch->labels, b * sizeof *batch->labels));
    FV_TRY(feed_floats(ctx, p, net->float64, "row_weight", batch->row_weight, b));
    return fv_program_input(p, "row_key", batch->row_key, b * sizeof *batch->row_key);
}
