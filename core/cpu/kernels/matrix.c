/* matrix.c: workspace of convolution, linear, matmul and attention nodes, the weights that they keep, and what they
 * take as pairs of bf16. */
#include "core/cpu/kernels/conv.h"

static fv_type operand(const fv_graph *g, const fv_node *node, int i) {
    return fv_typeof(g, g->operands[node->first_operand + i]);
}
static fv_type result(const fv_graph *g, const fv_node *node, int i) {
    return fv_typeof(g, (fv_value){node->first_result + i});
}
static bool given(const fv_graph *g, const fv_node *node, int i) {
    return i < node->operands && !fv_is_none(g->operands[node->first_operand + i]);
}

static size_t conv_workspace(const fv_device *dev, const fv_conv_shape *s, fv_op op, int threads) {
    const fv_conv_kind kind = op == FV_OP_CONV2D ? FV_CONV_FORWARD : FV_CONV_DATA;
    if (fv_conv_is_depthwise(s)) return CPU(depthwise_workspace)(s, op, threads);
    if (CPU(winograd_fits)(s, dev, false))
        return op == FV_OP_CONV2D_BWD_WEIGHT ? CPU(winograd_weight_workspace)(s, threads)
                                             : CPU(winograd_workspace)(s, kind, threads);
    if (op == FV_OP_CONV2D_BWD_WEIGHT) return CPU(conv_weight_workspace)(s, threads);
    return CPU(conv_gemm_workspace)(s, kind, threads);
}

size_t CPU(matrix_workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    const int threads = fv_pool_threads(((const fv_cpu_device *)dev)->pool);
    const fv_attr *attr = &node->attr;
    fv_conv_shape s;
    switch (node->op) {
    case FV_OP_CONV2D:
        s = CPU(conv_shape)(operand(g, node, 0), operand(g, node, 1), result(g, node, 0), &attr->conv2d);
        return conv_workspace(dev, &s, node->op, threads);
    case FV_OP_NORMED_CONV2D:
        s = CPU(conv_shape)(operand(g, node, 0), operand(g, node, 1), result(g, node, 0), &attr->normed_conv2d.conv);
        return fv_lines(conv_workspace(dev, &s, FV_OP_CONV2D, threads)) + fv_finish_bytes(s.k);
    case FV_OP_CONV2D_BWD_DATA:
        s = CPU(conv_shape)(result(g, node, 0), operand(g, node, 1), operand(g, node, 0), &attr->conv2d_bwd.conv);
        return conv_workspace(dev, &s, node->op, threads);
    case FV_OP_CONV2D_BWD_WEIGHT:
        s = CPU(conv_shape)(operand(g, node, 1), result(g, node, 0), operand(g, node, 0), &attr->conv2d_bwd.conv);
        return conv_workspace(dev, &s, node->op, threads);
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_ACT:
        s = CPU(linear_shape)(operand(g, node, 0), operand(g, node, 1));
        return CPU(conv_gemm_workspace)(&s, FV_CONV_FORWARD, threads);
    case FV_OP_LINEAR_BWD_DATA:
        s = CPU(linear_shape)(result(g, node, 0), operand(g, node, 1));
        return CPU(conv_gemm_workspace)(&s, FV_CONV_DATA, threads);
    case FV_OP_LINEAR_BWD_WEIGHT:
        s = CPU(linear_shape)(operand(g, node, 1), result(g, node, 0));
        return CPU(conv_weight_workspace)(&s, threads);
    case FV_OP_ACTIVATED_LINEAR:
        s = CPU(linear_shape)(operand(g, node, 0), operand(g, node, 1));
        return CPU(activated_gemm_workspace)(&s, FV_CONV_FORWARD, threads);
    case FV_OP_ACTIVATED_LINEAR_BWD_DATA:
        s = CPU(linear_shape)(result(g, node, 0), operand(g, node, 1));
        return CPU(activated_gemm_workspace)(&s, FV_CONV_DATA, threads);
    case FV_OP_LINEAR_BWD_PARAMS:
        s = CPU(linear_shape)(operand(g, node, 1), result(g, node, 0));
        return CPU(conv_point_weight_workspace)(&s, threads, attr->activation.kind != FV_ACT_NONE, true);
    case FV_OP_MATMUL: return CPU(matmul_workspace)(operand(g, node, 0), result(g, node, 0), &attr->matmul, threads);
    case FV_OP_ATTENTION:
        return CPU(attention_workspace)(operand(g, node, 0),
                                        given(g, node, 1) ? operand(g, node, 1) : operand(g, node, 0),
                                        !given(g, node, 1), &attr->attention, false, threads);
    case FV_OP_ATTENTION_BWD:
        return CPU(attention_workspace)(operand(g, node, 3),
                                        given(g, node, 4) ? operand(g, node, 4) : operand(g, node, 3),
                                        !given(g, node, 4), &attr->attention, true, threads);
    default: return 0;
    }
}

/* What is summed over must be even, or it is rows, of which a last one gets zeros for company. Winograd's filtering
 * multiplies floats, and is as fast; so are kernels for few positions, which memory bounds. */
uint32_t CPU(matrix_pairs)(const fv_device *dev, fv_op op, const fv_attr *attr, const fv_type *type, int n_in) {
    if (!((const fv_cpu_device *)dev)->isa->pairs) return 0;
    if (n_in < 2 || type[0].dtype != FV_BF16 || type[1].dtype != FV_BF16) return 0;
    const fv_type x = type[0], w = type[1], y = type[n_in];
    fv_conv_shape s;
    int64_t depth;
    switch (op) {
    case FV_OP_CONV2D: s = CPU(conv_shape)(x, w, y, &attr->conv2d), depth = s.c; break;
    case FV_OP_CONV2D_BWD_DATA: s = CPU(conv_shape)(y, w, x, &attr->conv2d_bwd.conv), depth = s.k; break;
    case FV_OP_CONV2D_BWD_WEIGHT: s = CPU(conv_shape)(w, y, x, &attr->conv2d_bwd.conv), depth = 2; break;
    case FV_OP_LINEAR: s = CPU(linear_shape)(x, w), depth = s.c; break;
    case FV_OP_LINEAR_BWD_DATA: s = CPU(linear_shape)(y, w), depth = s.k; break;
    case FV_OP_LINEAR_BWD_WEIGHT: s = CPU(linear_shape)(w, y), depth = 2; break;
    default: return 0;
    }
    const bool weight = op == FV_OP_CONV2D_BWD_WEIGHT || op == FV_OP_LINEAR_BWD_WEIGHT;
    const bool forward = op == FV_OP_CONV2D || op == FV_OP_LINEAR;
    s.pairs = false; /* what the kernels of floats would do */
    if (CPU(winograd_fits)(&s, dev, false)) return 0;
    if (weight) return CPU(conv_point_weight_fits)(&s) ? 3 : 0;
    if (fv_conv_is_depthwise(&s) || depth / s.groups % 2 != 0 || (forward && CPU(conv_few_fits)(&s))) return 0;
    s.pairs = true;
    const bool rounds = y.dtype == FV_BF16 && CPU(conv_gemm_rounds)(&s, forward ? FV_CONV_FORWARD : FV_CONV_DATA);
    return rounds ? 3 | 1u << n_in : 3;
}

static size_t conv_prepared(const fv_device *dev, const fv_conv_shape *s, int threads, size_t *workspace) {
    if (fv_conv_is_depthwise(s)) return 0;
    return CPU(winograd_fits)(s, dev, true) ? CPU(winograd_prepared)(s, threads, workspace)
                                            : CPU(conv_gemm_prepared)(s, threads, workspace);
}

size_t CPU(matrix_prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                            size_t *workspace) {
    const int threads = fv_pool_threads(((const fv_cpu_device *)dev)->pool);
    fv_conv_shape s;
    size_t kept;
    if (!(constant & 2)) return 0; /* operand 1: the weights */
    switch (node->op) {
    case FV_OP_CONV2D:
        s = CPU(conv_shape)(operand(g, node, 0), operand(g, node, 1), result(g, node, 0), &node->attr.conv2d);
        return conv_prepared(dev, &s, threads, workspace);
    case FV_OP_NORMED_CONV2D:
        s = CPU(conv_shape)(operand(g, node, 0), operand(g, node, 1), result(g, node, 0),
                            &node->attr.normed_conv2d.conv);
        for (int i = 3; i < 7; i++)
            if (given(g, node, i) && !(constant >> i & 1)) return 0;
        kept = conv_prepared(dev, &s, threads, workspace);
        return kept ? fv_finish_bytes(s.k) + kept : 0;
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_ACT:
        s = CPU(linear_shape)(operand(g, node, 0), operand(g, node, 1));
        return CPU(conv_gemm_prepared)(&s, threads, workspace);
    default: return 0;
    }
}
