/* rewrite.c: what the CPU joins in a graph that has its backward pass, last of all passes.
 *
 * A batch norm with given statistics that is all that reads a convolution is applied to its results in registers, or
 * while they are in a cache (kernels/finish.h):
 *
 *   conv2d(x, w, bias) ─ batch_norm_infer(., mean, ...)    becomes  normed_conv2d(x, w, bias, mean, ...)
 *
 * So is an activation that is all that reads a linear layer, and a residual sum is what its sums begin with:
 *
 *   linear(x, w, bias) ─ act                               becomes  linear_act(x, w, bias)
 *   linear(x, w, bias) ─ add(., residual)                  becomes  linear_act(x, w, bias, residual), without act
 *
 * Where the backward pass reads that layer's result, too, the activation is applied where the next layer reads its
 * operand, and its slope where that one's gradient is written, so that neither act(x) nor its gradient is ever in
 * memory:
 *
 *   x ─ act ─ linear(., w)                 becomes  activated_linear(x, w)
 *   x ─ act ─ linear_bwd_weight(dy, .)     becomes  activated_linear_bwd_weight(dy, x)
 *   linear_bwd_data(dy, w) ─ act'(., x)    becomes  activated_linear_bwd_data(dy, w, x)
 *
 * in float32, with the same bits but for the residual, which is added first. */
#include "core/cpu/rewrite.h"

#include "core/ops.h"

#define LEAST_ROWS 1024 /* with fewer all lies in the caches, and inference keeps packed weights */

typedef struct rewriter {
    fv_graph *g;
    int32_t *readers; /* by value; outputs count as many */
    int32_t *linears; /* by value: readers that can take an activation over */
} rewriter;

static fv_value operand(const fv_graph *g, const fv_node *n, int k) {
    return g->operands[n->first_operand + k];
}

static bool has_rows(const fv_graph *g, fv_value x) {
    const fv_type t = fv_typeof(g, x);
    return t.dtype == FV_F32 && t.rank > 1 && t.dim[t.rank - 1] > 0 && fv_count(t) / t.dim[t.rank - 1] >= LEAST_ROWS;
}

/* Place of the operand that may be an activation's result; -1: there is none. */
static int activated_operand(const fv_node *n) {
    return n->op == FV_OP_LINEAR ? 0 : n->op == FV_OP_LINEAR_BWD_WEIGHT ? 1 : -1;
}

static fv_status count_readers(rewriter *r) {
    fv_graph *g = r->g;
    r->readers = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *r->readers);
    r->linears = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *r->linears);
    if (!r->readers || !r->linears) return g->ctx->error.code;
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 0; j < g->nodes[k].operands; j++) {
            const int32_t v = operand(g, &g->nodes[k], j).id;
            r->readers[v]++;
            r->linears[v] += j == activated_operand(&g->nodes[k]);
        }
    for (int32_t i = 0; i < g->n_outputs; i++) r->readers[g->outputs[i].value.id] += 2;
    return FV_OK;
}

/* The activation that gives a value, if all who read it are linear layers; else NULL. */
static const fv_node *activation_of(const rewriter *r, fv_value v) {
    const fv_graph *g = r->g;
    if (g->values[v.id].kind != FV_VAL_RESULT || r->readers[v.id] != r->linears[v.id]) return NULL;
    const fv_node *n = &g->nodes[g->values[v.id].node];
    return n->op == FV_OP_ACTIVATION && fv_act_needs_input(n->attr.activation.kind) && has_rows(g, v) ? n : NULL;
}

static void take_activation(rewriter *r, fv_node *n) {
    fv_graph *g = r->g;
    const int j = activated_operand(n);
    const fv_node *act = j < 0 ? NULL : activation_of(r, operand(g, n, j));
    if (!act) return;
    n->op = n->op == FV_OP_LINEAR ? FV_OP_ACTIVATED_LINEAR : FV_OP_ACTIVATED_LINEAR_BWD_WEIGHT;
    n->attr.activation = act->attr.activation;
    g->operands[n->first_operand + j] = operand(g, act, 0);
}

static bool take_slope(rewriter *r, fv_node *n) {
    fv_graph *g = r->g;
    if (n->op != FV_OP_ACTIVATION_BWD || !fv_act_needs_input(n->attr.activation.kind)) return true;
    const fv_value dy = operand(g, n, 0), x = operand(g, n, 1);
    if (g->values[dy.id].kind != FV_VAL_RESULT || r->readers[dy.id] != 1 || !has_rows(g, x)) return true;
    const fv_node *data = &g->nodes[g->values[dy.id].node];
    if (data->op != FV_OP_LINEAR_BWD_DATA || fv_typeof(g, dy).dtype != FV_F32) return true;
    const int32_t k = (int32_t)(n - g->nodes);
    n->op = FV_OP_ACTIVATED_LINEAR_BWD_DATA;
    return fv_node_set_operand(g, k, 2, x) && fv_node_set_operand(g, k, 1, operand(g, data, 1)) &&
           fv_node_set_operand(g, k, 0, operand(g, data, 0));
}

/* The linear layer that gives a value, if n is all that reads it; else NULL. */
static const fv_node *linear_of(const rewriter *r, fv_value y) {
    const fv_graph *g = r->g;
    if (g->values[y.id].kind != FV_VAL_RESULT || r->readers[y.id] != 1 || fv_typeof(g, y).dtype != FV_F32) return NULL;
    const fv_node *linear = &g->nodes[g->values[y.id].node];
    const bool fits = linear->op == FV_OP_LINEAR && fv_typeof(g, operand(g, linear, 0)).dtype == FV_F32;
    return fits ? linear : NULL;
}

/* Let n, which reads the layer's result, be linear_act of its operands. */
static bool become_linear(rewriter *r, fv_node *n, const fv_node *linear, fv_value residual) {
    fv_graph *g = r->g;
    const int32_t k = (int32_t)(n - g->nodes);
    n->op = FV_OP_LINEAR_ACT;
    if (!fv_is_none(residual) && !fv_node_set_operand(g, k, 3, residual)) return false;
    for (int j = 2; j >= 0; j--)
        if (!fv_node_set_operand(g, k, j, j < linear->operands ? operand(g, linear, j) : FV_NONE)) return false;
    return true;
}

/* What is all that reads a linear layer: an activation, or a residual sum. */
static bool take_linear(rewriter *r, fv_node *n) {
    fv_graph *g = r->g;
    if (n->op == FV_OP_ACTIVATION && fv_act_can_end_norm(n->attr.activation.kind)) {
        const fv_node *linear = linear_of(r, operand(g, n, 0));
        return !linear || become_linear(r, n, linear, FV_NONE);
    }
    for (int j = 0; n->op == FV_OP_ADD && j < 2; j++) {
        const fv_value y = operand(g, n, j), residual = operand(g, n, 1 - j);
        const fv_node *linear = linear_of(r, y);
        if (!linear || y.id == residual.id || !fv_same_type(fv_typeof(g, y), fv_typeof(g, residual))) continue;
        n->attr.activation = (fv_activation_attr){FV_ACT_NONE, 0};
        return become_linear(r, n, linear, residual);
    }
    return true;
}

static bool take_norm(rewriter *r, fv_node *n) {
    fv_graph *g = r->g;
    if (n->op != FV_OP_BATCH_NORM_INFER) return true;
    const fv_value y = operand(g, n, 0);
    if (g->values[y.id].kind != FV_VAL_RESULT || r->readers[y.id] != 1 || fv_typeof(g, y).dtype != FV_F32) return true;
    const fv_node *conv = &g->nodes[g->values[y.id].node];
    if (conv->op != FV_OP_CONV2D) return true;
    const int32_t k = (int32_t)(n - g->nodes);
    n->op = FV_OP_NORMED_CONV2D;
    n->attr.normed_conv2d = (fv_normed_conv2d_attr){conv->attr.conv2d, n->attr.batch_norm};
    for (int j = n->operands - 1; j > 0; j--) /* mean and all behind it */
        if (!fv_node_set_operand(g, k, j + 2, operand(g, n, j))) return false;
    for (int j = 0; j < 3; j++)
        if (!fv_node_set_operand(g, k, j, j < conv->operands ? operand(g, conv, j) : FV_NONE)) return false;
    return true;
}

/* Nodes whose results nobody reads any more are left out by the plan. */
fv_status fv_cpu_rewrite(fv_device *dev, fv_graph *g) {
    rewriter r = {.g = g};
    (void)dev;
    FV_TRY(count_readers(&r));
    for (int32_t k = 0; k < g->n_nodes; k++) {
        take_activation(&r, &g->nodes[k]);
        if (!take_linear(&r, &g->nodes[k]) || !take_slope(&r, &g->nodes[k]) || !take_norm(&r, &g->nodes[k]))
            return g->ctx->error.code;
    }
    return FV_OK;
}
