/* table.c: the kernels of one build (FV_ISA), generated from ops.def. */
#include "core/cpu/cpu.h"
#include "core/ops.h"

#define FV_STRING_(x) #x
#define FV_STRING(x) FV_STRING_(x)

/* Ops whose file has builds for bf16 and f16 data (BF16_SRC and F16_SRC in the Makefile); for the others mixed.c
 * converts. MOVES: elements of 16 bits go from one place to another. */
typedef struct native_kernels {
    fv_kernel bf16, f16;
} native_kernels;
#ifdef FV_F16_BUILD
#define NATIVE(op, name) [FV_OP_##op] = {CPU_BF16(name), CPU_F16(name)}
#else
#define NATIVE(op, name) [FV_OP_##op] = {CPU_BF16(name), NULL}
#endif
#define MOVES(op, name) [FV_OP_##op] = {CPU_BF16(name), CPU_BF16(name)}
static const native_kernels native[FV_OP_COUNT] = {
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
    MOVES(RESHAPE, reshape),
    MOVES(TRANSPOSE, transpose),
    MOVES(CONCAT, concat),
    MOVES(SLICE, slice),
    MOVES(SLICE_BWD, slice_bwd),
    MOVES(PAD, pad),
    MOVES(CAST, cast),
    NATIVE(DROPOUT, dropout),
    NATIVE(DROP_PATH, drop_path),
};

/* Where a kernel adds to its result, or keeps there what it reads again, that is done in float: overlapping windows,
 * and a norm's gradient through an activation whose slope its result does not tell. */
static bool adds_in_float(fv_op op, const fv_attr *attr) {
    const fv_pool_attr *a = &attr->pool_bwd.pool;
    switch (op) {
    case FV_OP_MAX_POOL2D_BWD:
    case FV_OP_AVG_POOL2D_BWD: return a->stride[0] < a->kernel[0] || a->stride[1] < a->kernel[1];
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD: return !fv_act_saves_output(attr->batch_norm.act);
    default: return false;
    }
}

/* NULL: by way of float. */
static fv_kernel native_kernel(fv_op op, const fv_attr *attr, bool f16) {
    if (adds_in_float(op, attr)) return NULL;
    return f16 ? native[op].f16 : native[op].bf16;
}

static void run_mixed(const fv_call *c, fv_op op, fv_kernel plain) {
    bool f16 = false;
    for (int i = 0; i < c->n_in; i++) f16 |= c->in[i].type.dtype == FV_F16;
    for (int r = 0; r < c->n_out; r++) f16 |= c->out[r].type.dtype == FV_F16;
    const fv_kernel kernel = native_kernel(op, c->attr, f16);
    if (kernel) kernel(c);
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

/* Whether mixed.c runs the node. */
static bool is_converted(const fv_graph *g, const fv_node *node) {
    bool f16 = false;
    if (fv_host_kernel_type(g, node) != FV_KERNEL_MIXED) return false;
    for (int i = 0; i < node->operands; i++) f16 |= fv_typeof(g, g->operands[node->first_operand + i]).dtype == FV_F16;
    for (int r = 0; r < node->results; r++) f16 |= fv_typeof(g, (fv_value){node->first_result + r}).dtype == FV_F16;
    return !native_kernel(node->op, &node->attr, f16);
}

static size_t workspace(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    return is_converted(g, node) ? CPU(mixed_workspace)(dev, g, node, plain_workspace) : plain_workspace(dev, g, node);
}

static size_t prepared(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                       size_t *workspace) {
    if (is_converted(g, node)) return CPU(mixed_prepared)(dev, g, node, constant, workspace, CPU(matrix_prepared));
    return CPU(matrix_prepared)(dev, g, node, constant, workspace) + CPU(batch_norm_prepared)(g, node, constant);
}

#define BUILD(called, in_pairs) \
    { \
        .name = called, .kernels = kernels, .workspace = workspace, .prepared = prepared, .peak_tile = CPU(peak_tile), \
        .peak_flops = CPU(peak_flops), .pairs = in_pairs \
    }
#ifdef FV_ISA_wide
const fv_cpu_isa fv_cpu_isa_wide = BUILD("wide", true);
#else
const fv_cpu_isa FV_CAT3(fv_cpu_, isa, FV_ISA) = BUILD(FV_STRING(FV_ISA), false);
#endif
#ifdef FV_ISA_avx512
const fv_cpu_isa fv_cpu_isa_avx512_bf16 = BUILD("avx512_bf16", true);
#endif
