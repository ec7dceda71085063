/* device.c: the reference backend: a device without threads whose kernels are those of ref_f32.c and ref_f64.c. */
#include "core/ref/ref.h"

#include <stdio.h>

static fv_status ref_open(fv_ctx *ctx, const fv_device_opts *opts, fv_device **out) {
    (void)opts; /* one thread, one kind of kernel: nothing to choose */
    fv_device *dev = fv_calloc(ctx, 1, sizeof *dev);
    if (!dev) return ctx->error.code;
    dev->backend = &fv_backend_ref;
    dev->ctx = ctx;
    dev->host_memory = true;
    snprintf(dev->text, sizeof dev->text, "ref (plain loops, one thread)");
    snprintf(dev->kernels, sizeof dev->kernels, "ref");
    *out = dev;
    return FV_OK;
}

static void ref_close(fv_device *dev) {
    if (dev) fv_free(dev->ctx, dev, 1, sizeof *dev);
}

/* All floats of a node are float64, or none is. */
static bool ref_supports(const fv_device *dev, const fv_graph *g, const fv_node *node, char *why, size_t size) {
    (void)dev;
    bool seen[FV_DTYPE_COUNT] = {false};
    for (int j = 0; j < node->operands; j++) {
        const fv_value v = g->operands[node->first_operand + j];
        if (v.id) seen[g->values[v.id].type.dtype] = true;
    }
    for (int r = 0; r < node->results; r++) seen[g->values[node->first_result + r].type.dtype] = true;
    if (seen[FV_F64] && (seen[FV_F32] || seen[FV_BF16] || seen[FV_F16])) {
        snprintf(why, size, "f64 and %s are mixed", seen[FV_F32] ? "f32" : seen[FV_BF16] ? "bf16" : "f16");
        return false;
    }
    return true;
}

static const fv_type *type_of_operand(const fv_graph *g, const fv_node *node, int k) {
    return &g->values[g->operands[node->first_operand + k].id].type;
}

/* Doubles for one picture [h,w,c] of x [n,h,w,c]. */
static size_t picture_doubles(const fv_type *x) {
    return (size_t)(x->dim[1] * x->dim[2] * x->dim[3]);
}

/* SIZE_MAX, which no allocator grants, on overflow. */
static size_t product(size_t a, size_t b) {
    size_t out = SIZE_MAX;
    (void)fv_size_mul(a, b, &out);
    return out;
}

/* Twice the largest matrix and two squares of its smaller side. */
static size_t muon_doubles(const fv_graph *g, const fv_node *node) {
    size_t most = 0;
    for (int t = 1; t <= node->attr.update.count; t++) {
        const fv_type *type = type_of_operand(g, node, t);
        const size_t count = (size_t)fv_count(*type), rows = (size_t)type->dim[0], columns = rows ? count / rows : 0;
        const size_t m = rows < columns ? rows : columns, need = 2 * count + 2 * m * m;
        if (need > most) most = need;
    }
    return most;
}

static size_t workspace_doubles(const fv_graph *g, const fv_node *node) {
    const fv_type *result = &g->values[node->first_result].type;
    switch (node->op) {
    case FV_OP_NORMED_CONV2D: return 2 * (size_t)result->dim[3];
    case FV_OP_CONV2D_BWD_DATA: return (size_t)result->dim[3];
    case FV_OP_CONV2D_BWD_WEIGHT: return (size_t)result->dim[3];
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_ACTIVATED_LINEAR_BWD_DATA: return (size_t)result->dim[result->rank - 1];
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_LINEAR_BWD_PARAMS: return (size_t)result->dim[1];
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_INFER: {
        const fv_type *x = type_of_operand(g, node, 0);
        return 2 * (size_t)x->dim[x->rank - 1];
    }
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD:
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM_BWD: {
        const fv_type *x = type_of_operand(g, node, 1);
        return 2 * (size_t)x->dim[x->rank - 1];
    }
    case FV_OP_AVG_POOL2D_BWD:
    case FV_OP_RESIZE_BWD: return picture_doubles(result);
    case FV_OP_SUM:
    case FV_OP_MEAN: return (size_t)fv_count(*result);
    case FV_OP_ATTENTION: {
        const bool packed = node->operands < 2 || !g->operands[node->first_operand + 1].id;
        return (size_t)type_of_operand(g, node, packed ? 0 : 1)->dim[1];
    }
    case FV_OP_ATTENTION_BWD: {
        const bool packed = node->operands < 5 || !g->operands[node->first_operand + 4].id;
        const int64_t sq = type_of_operand(g, node, 3)->dim[1], sk = type_of_operand(g, node, packed ? 3 : 4)->dim[1];
        return product((size_t)sq, 2 * (size_t)sk);
    }
    case FV_OP_MUON_UPDATE: return muon_doubles(g, node);
    default: return 0;
    }
}

static size_t ref_workspace(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    (void)dev;
    size_t doubles = workspace_doubles(g, node);
    if (fv_host_kernel_type(g, node) == FV_KERNEL_MIXED &&
        !fv_size_add(doubles, fv_ref_mixed_doubles(g, node), &doubles))
        doubles = SIZE_MAX;
    return product(doubles, sizeof(double));
}

static fv_status ref_compile(fv_device *dev, const fv_plan *plan, fv_exec **out) {
    fv_kernel kernels[FV_OP_COUNT][FV_KERNEL_TYPES];
    for (int op = 0; op < FV_OP_COUNT; op++) {
        kernels[op][FV_KERNEL_F32] = fv_ref_f32_kernels[op];
        kernels[op][FV_KERNEL_F64] = fv_ref_f64_kernels[op];
        kernels[op][FV_KERNEL_MIXED] = fv_ref_mixed_kernels[op];
    }
    return fv_host_compile(dev, NULL, plan, (const fv_kernel(*)[FV_KERNEL_TYPES])kernels, out);
}

const fv_backend fv_backend_ref = {
    .name = "ref",
    .open = ref_open,
    .close = ref_close,
    .alloc = fv_host_alloc,
    .free = fv_host_free,
    .pin = fv_host_alloc,
    .unpin = fv_host_free,
    .copy = fv_host_copy,
    .supports = ref_supports,
    .rewrite = NULL,
    .workspace = ref_workspace,
    .compile = ref_compile,
    .enqueue = fv_host_enqueue,
    .set_step = fv_host_set_step,
    .fetch = fv_host_fetch,
    .fetched = fv_host_fetched,
    .destroy = fv_host_destroy,
    .profile = fv_host_profile,
    .node_seconds = fv_host_node_seconds,
};
