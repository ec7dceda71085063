/* table.cu: the kernels by operation, and what they need. */
#include "cuda/kernels/kernels.h"

#include <stdio.h>

extern "C" const fv_cuda_kernel fv_cuda_kernels[FV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) fv_cuda_##name,
#include "core/ops.def"
};

/* ---------------------------------------------------------------- which nodes */

/* The first float of the node that its kernel does not take; FV_DTYPE_COUNT if it takes all. */
static fv_dtype other_float(const fv_graph *g, const fv_node *node) {
    const bool low = fv_op_precision(node->op) != FV_PRECISION_FULL;
    for (int i = 0; i < node->operands + node->results; i++) {
        const int32_t id =
            i < node->operands ? g->operands[node->first_operand + i].id : node->first_result + i - node->operands;
        const fv_dtype d = id ? g->values[id].type.dtype : FV_F32;
        if (d == FV_F64 || (fv_is_low(d) && !low)) return d;
    }
    return FV_DTYPE_COUNT;
}

static bool sizes_fit(const fv_graph *g, const fv_node *node) {
    switch (node->op) {
    case FV_OP_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_CONV2D_BWD_WEIGHT: return fv_cuda_conv_fits(g, node);
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_MATMUL: return fv_cuda_linear_fits(g, node);
    case FV_OP_ATTENTION:
    case FV_OP_ATTENTION_BWD: return node->attr.attention.heads <= 65535;
    case FV_OP_MUON_UPDATE: return fv_cuda_muon_fits(g, node);
    default: return true;
    }
}

bool fv_cuda_kernel_supports(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node, char *why,
                             size_t size) {
    (void)dev;
    const fv_dtype other = other_float(g, node);
    if (other != FV_DTYPE_COUNT) {
        snprintf(why, size, "its CUDA kernel does not take %s", fv_dtype_name(other));
        return false;
    }
    if (!sizes_fit(g, node)) {
        snprintf(why, size, "its sizes are larger than its CUDA kernel can count");
        return false;
    }
    return true;
}

/* ---------------------------------------------------------------- what they need */

size_t fv_cuda_kernel_workspace(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node) {
    (void)dev;
    switch (node->op) {
    case FV_OP_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_CONV2D_BWD_WEIGHT: return fv_cuda_conv_workspace(g, node);
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_MATMUL: return fv_cuda_linear_workspace(g, node);
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER:
    case FV_OP_BATCH_NORM_INFER_BWD: return fv_cuda_batch_norm_workspace(g, node);
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM_BWD: return fv_cuda_norm_workspace(g, node);
    case FV_OP_SUM:
    case FV_OP_MEAN: return fv_cuda_reduce_workspace(g, node);
    case FV_OP_ATTENTION:
    case FV_OP_ATTENTION_BWD: return fv_cuda_attention_workspace(g, node);
    case FV_OP_SOFTMAX_CROSS_ENTROPY:
    case FV_OP_SOFTMAX_CROSS_ENTROPY_BWD:
    case FV_OP_BCE_WITH_LOGITS:
    case FV_OP_BCE_WITH_LOGITS_BWD:
    case FV_OP_TOPK_CORRECT: return fv_cuda_loss_workspace(g, node);
    case FV_OP_AUGMENT: return fv_cuda_augment_workspace(g, node);
    case FV_OP_GRAD_STATS: return fv_cuda_stats_workspace(g, node);
    case FV_OP_MUON_UPDATE: return fv_cuda_muon_workspace(g, node);
    default: return 0;
    }
}

size_t fv_cuda_kernel_table(const fv_cuda_call *c, void *host) {
    switch (c->node->op) {
    case FV_OP_GRAD_STATS:
    case FV_OP_SGD_UPDATE:
    case FV_OP_ADAM_UPDATE:
    case FV_OP_EMA_UPDATE:
    case FV_OP_LOOKAHEAD_UPDATE:
    case FV_OP_LERP_ASSIGN:
    case FV_OP_INCREMENT: return fv_cuda_update_table(c, host);
    case FV_OP_CAST: return fv_cuda_cast_table(c, host);
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD: return fv_cuda_batch_norm_table(c);
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM_BWD: return fv_cuda_norm_table(c);
    case FV_OP_SUM:
    case FV_OP_MEAN: return fv_cuda_reduce_table(c);
    case FV_OP_SOFTMAX_CROSS_ENTROPY:
    case FV_OP_BCE_WITH_LOGITS: return sizeof(unsigned);
    default: return 0;
    }
}

bool fv_cuda_overlap(const fv_tensor *a, const fv_tensor *b) {
    const char *p = static_cast<const char *>(a->data), *q = static_cast<const char *>(b->data);
    return p && q && p < q + fv_bytes(b->type) && q < p + fv_bytes(a->type);
}

bool fv_cuda_kernel_joins(const fv_cuda_call *const *calls, int n, const fv_cuda_call *next) {
    for (int i = 0; i < n; i++)
        if (!fv_cuda_update_joins(calls[i], next) && !fv_cuda_cast_joins(calls[i], next)) return false;
    return true;
}
