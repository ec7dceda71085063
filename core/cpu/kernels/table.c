/* table.c: the kernels of one build (FV_ISA), generated from ops.def. */
#include "core/cpu/cpu.h"
#include "core/ops.h"

#define FV_STRING_(x) #x
#define FV_STRING(x) FV_STRING_(x)

/* Ops whose file has a second build for bf16 data (BF16_SRC in the Makefile); for the others mixed.c converts. */
#define NATIVE(op, name) [FV_OP_##op] = CPU_BF16(name)
static const fv_kernel native[FV_OP_COUNT] = {
    NATIVE(BATCH_NORM, batch_norm),
    NATIVE(BATCH_NORM_BWD, batch_norm_bwd),
    NATIVE(BATCH_NORM_INFER, batch_norm_infer),
    NATIVE(BATCH_NORM_INFER_BWD, batch_norm_infer_bwd),
    NATIVE(LAYER_NORM, layer_norm),
    NATIVE(LAYER_NORM_BWD, layer_norm_bwd),
    NATIVE(GROUP_NORM, group_norm),
    NATIVE(GROUP_NORM_BWD, group_norm_bwd),
    NATIVE(ACTIVATION, activation),
    NATIVE(ACTIVATION_BWD, activation_bwd),
    NATIVE(ADD, add),
    NATIVE(SUB, sub),
    NATIVE(MUL, mul),
    NATIVE(SCALE, scale),
    NATIVE(MAX_POOL2D, max_pool2d),
    NATIVE(MAX_POOL2D_BWD, max_pool2d_bwd),
    NATIVE(AVG_POOL2D, avg_pool2d),
    NATIVE(AVG_POOL2D_BWD, avg_pool2d_bwd),
    NATIVE(SUM, sum),
    NATIVE(MEAN, mean),
    NATIVE(BROADCAST, broadcast),
    NATIVE(RESHAPE, reshape),
    NATIVE(TRANSPOSE, transpose),
    NATIVE(CONCAT, concat),
    NATIVE(SLICE, slice),
    NATIVE(SLICE_BWD, slice_bwd),
    NATIVE(PAD, pad),
    NATIVE(CAST, cast),
    NATIVE(DROPOUT, dropout),
    NATIVE(DROP_PATH, drop_path),
};

/* Where a kernel adds to its result, or keeps there what it reads again, that is done in float: overlapping windows,
 * and a norm's gradient through an activation whose slope its result does not tell. */
static bool is_native(fv_op op, const fv_attr *attr) {
    const fv_pool_attr *a = &attr->pool_bwd.pool;
    switch (op) {
    case FV_OP_MAX_POOL2D_BWD:
    case FV_OP_AVG_POOL2D_BWD: return a->stride[0] >= a->kernel[0] && a->stride[1] >= a->kernel[1];
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD: return fv_act_saves_output(attr->batch_norm.act);
    default: return native[op] != NULL;
    }
}

static void run_mixed(const fv_call *c, fv_op op, fv_kernel plain) {
    if (is_native(op, c->attr)) native[op](c);
    else CPU(mixed)(c, op, plain);
}
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    static void mixed_##name(const fv_call *c) { \
        run_mixed(c, FV_OP_##ENUM, CPU(name)); \
    }
#include "core/ops.def"

static const fv_kernel kernels[FV_OP_COUNT][FV_KERNEL_TYPES] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    [FV_OP_##ENUM] = {[FV_KERNEL_F32] = CPU(name), [FV_KERNEL_MIXED] = mixed_##name},
#include "core/ops.def"
};

/* A node belongs to one family; the others ask for nothing. */
static size_t plain_workspace(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    return CPU(matrix_workspace)(dev, g, node) + CPU(batch_norm_workspace)(g, node) + CPU(norm_workspace)(g, node) +
           CPU(reduce_workspace)(g, node) + CPU(loss_workspace)(g, node) + CPU(augment_workspace)(g, node) +
           CPU(update_workspace)(g, node) + CPU(muon_workspace)(g, node);
}

static size_t workspace(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    const bool mixed = fv_host_kernel_type(g, node) == FV_KERNEL_MIXED && !is_native(node->op, &node->attr);
    return mixed ? CPU(mixed_workspace)(dev, g, node, plain_workspace) : plain_workspace(dev, g, node);
}

static size_t prepared(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                       size_t *workspace) {
    if (fv_host_kernel_type(g, node) == FV_KERNEL_MIXED && !is_native(node->op, &node->attr)) return 0;
    return CPU(matrix_prepared)(dev, g, node, constant, workspace) + CPU(batch_norm_prepared)(g, node, constant);
}

const fv_cpu_isa FV_CAT3(fv_cpu_, isa, FV_ISA) = {FV_STRING(FV_ISA), kernels,        workspace,
                                                  prepared,          CPU(peak_tile), CPU(peak_flops)};
