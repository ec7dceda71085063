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
 *   layer_norm_bwd(dy, x, ...).dx ─ add(., residual)       becomes  layer_norm_bwd(dy, x, ..., residual)
 *
 * Where the backward pass reads that layer's result, too, the activation is applied where the next layer reads its
 * operand, and its slope where that one's gradient is written, so that neither act(x) nor its gradient is ever in
 * memory:
 *
 *   x ─ act ─ linear(., w)                 becomes  activated_linear(x, w)
 *   x ─ act ─ linear_bwd_weight(dy, .)     becomes  linear_bwd_params(dy, x)
 *   linear_bwd_data(dy, w) ─ act'(., x)    becomes  activated_linear_bwd_data(dy, w, x)
 *
 * A bias's gradient comes with that of the weights, which reads dy anyway:
 *
 *   linear_bwd_weight(dy, x), sum(dy)      becomes  linear_bwd_params(dy, x)
 *
 * Products in float32, with the same bits but for the residual, which is added first, and the sums of dy, whose rows
 * are taken in other groups. */
#include "core/cpu/rewrite.h"

#include "core/ops.h"

#define LEAST_ROWS 1024 /* with fewer all lies in the caches, and inference keeps packed weights */

typedef struct rewriter {
    fv_graph *g;
    int32_t *readers; /* by value; outputs count as many */
    int32_t *linears; /* by value: readers that can take an activation over */
    int32_t *sum;     /* by value: 1 + the node that sums its rows; 0: none */
} rewriter;

static fv_value operand(const fv_graph *g, const fv_node *n, int k) {
    return g->operands[n->first_operand + k];
}

/* Whether the node sums the rows of a matrix of floats. */
static bool sums_rows(const fv_graph *g, const fv_node *n) {
    if (n->op != FV_OP_SUM) return false;
    const fv_type x = fv_typeof(g, operand(g, n, 0));
    return x.dtype == FV_F32 && x.rank > 1 && n->attr.reduce.axes == (1u << (x.rank - 1)) - 1;
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
    const size_t values = (size_t)g->n_values + 2 * (size_t)g->n_nodes + 1; /* with those of nodes made anew */
    r->readers = fv_arena_alloc(&g->arena, values, sizeof *r->readers);
    r->linears = fv_arena_alloc(&g->arena, values, sizeof *r->linears);
    r->sum = fv_arena_alloc(&g->arena, values, sizeof *r->sum);
    if (!r->readers || !r->linears || !r->sum) return g->ctx->error.code;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        if (sums_rows(g, &g->nodes[k])) r->sum[operand(g, &g->nodes[k], 0).id] = k + 1;
        for (int j = 0; j < g->nodes[k].operands; j++) {
            const int32_t v = operand(g, &g->nodes[k], j).id;
            r->readers[v]++;
            r->linears[v] += j == activated_operand(&g->nodes[k]);
        }
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
    const fv_node *act = n->op == FV_OP_LINEAR ? activation_of(r, operand(g, n, 0)) : NULL;
    if (!act) return;
    n->op = FV_OP_ACTIVATED_LINEAR;
    n->attr.activation = act->attr.activation;
    g->operands[n->first_operand] = operand(g, act, 0);
}

/* Let a value be another one, with its readers. */
static void replace(rewriter *r, fv_value from, fv_value to) {
    fv_graph_replace(r->g, from, to);
    r->readers[to.id] = r->readers[from.id];
    r->linears[to.id] = r->linears[from.id];
    if (r->sum[from.id]) r->sum[to.id] = r->sum[from.id];
    r->readers[from.id] = r->linears[from.id] = 0;
}

/* The gradient of a linear layer's weights takes over the activation whose result it reads, and the sum of dy. It has
 * a result more then, so that it is a new node in the place of the old one. */
static bool take_params(rewriter *r, int32_t k) {
    fv_graph *g = r->g;
    const fv_node old = g->nodes[k];
    if (old.op != FV_OP_LINEAR_BWD_WEIGHT || r->readers[old.first_result] == 0) return true;
    const fv_value dy = operand(g, &old, 0), x = operand(g, &old, 1);
    const fv_node *act = activation_of(r, x);
    const int32_t sum = has_rows(g, dy) && has_rows(g, x) ? r->sum[dy.id] - 1 : -1;
    const bool takes_sum = sum > k && g->nodes[sum].segment == old.segment; /* whose readers come later, too */
    if (!act && !takes_sum) return true;
    const fv_attr attr = {.activation = act ? act->attr.activation : (fv_activation_attr){FV_ACT_NONE, 0}};
    const fv_value dw = fv_op_node((fv_scope){g, old.scope}, FV_OP_LINEAR_BWD_PARAMS,
                                   (fv_value[]){dy, act ? operand(g, act, 0) : x}, 2, &attr);
    if (fv_is_none(dw)) return false;
    fv_node *n = &g->nodes[k];
    *n = g->nodes[--g->n_nodes];
    n->segment = old.segment;
    n->backward = old.backward;
    n->stream = old.stream;
    g->values[dw.id].node = g->values[dw.id + 1].node = k;
    replace(r, (fv_value){old.first_result}, dw);
    if (takes_sum) replace(r, (fv_value){g->nodes[sum].first_result}, fv_result(dw, 1));
    return true;
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

/* The node whose first result a value is, if it is an `op` and one other node is all that reads it; else NULL. */
static const fv_node *only_for(const rewriter *r, fv_value y, fv_op op) {
    const fv_graph *g = r->g;
    if (g->values[y.id].kind != FV_VAL_RESULT || r->readers[y.id] != 1) return NULL;
    const fv_node *n = &g->nodes[g->values[y.id].node];
    return n->op == op && n->first_result == y.id ? n : NULL;
}
static const fv_node *linear_of(const rewriter *r, fv_value y, fv_op op) {
    const fv_graph *g = r->g;
    const fv_node *linear = only_for(r, y, op);
    const bool fits = linear && fv_typeof(g, y).dtype == FV_F32 && fv_typeof(g, operand(g, linear, 0)).dtype == FV_F32;
    return fits ? linear : NULL;
}

/* Let n, which reads the layer's result, be linear_act of its operands, or activated_linear with a residual. */
static bool become_linear(rewriter *r, fv_node *n, const fv_node *linear, fv_value residual) {
    fv_graph *g = r->g;
    const int32_t k = (int32_t)(n - g->nodes);
    n->op = linear->op == FV_OP_LINEAR ? FV_OP_LINEAR_ACT : linear->op;
    if (!fv_is_none(residual) && !fv_node_set_operand(g, k, 3, residual)) return false;
    for (int j = 2; j >= 0; j--)
        if (!fv_node_set_operand(g, k, j, j < linear->operands ? operand(g, linear, j) : FV_NONE)) return false;
    return true;
}

/* What is all that reads a linear layer: an activation, or a residual sum. */
static bool take_linear(rewriter *r, fv_node *n) {
    fv_graph *g = r->g;
    if (n->op == FV_OP_ACTIVATION && fv_act_can_end_norm(n->attr.activation.kind)) {
        const fv_node *linear = linear_of(r, operand(g, n, 0), FV_OP_LINEAR);
        return !linear || become_linear(r, n, linear, FV_NONE);
    }
    for (int j = 0; n->op == FV_OP_ADD && j < 2; j++) {
        const fv_value y = operand(g, n, j), residual = operand(g, n, 1 - j);
        const fv_node *linear = linear_of(r, y, FV_OP_LINEAR), *activated = linear_of(r, y, FV_OP_ACTIVATED_LINEAR);
        if (!linear && !activated) continue;
        if (y.id == residual.id || !fv_same_type(fv_typeof(g, y), fv_typeof(g, residual))) continue;
        n->attr.activation = activated ? activated->attr.activation : (fv_activation_attr){FV_ACT_NONE, 0};
        return become_linear(r, n, activated ? activated : linear, residual);
    }
    return true;
}

/* Whether a value is there when node k runs. */
static bool is_there(const fv_graph *g, fv_value v, int32_t k) {
    const fv_val *val = &g->values[v.id];
    return val->kind != FV_VAL_RESULT || val->node < k || g->nodes[val->node].segment < g->nodes[k].segment;
}

/* A layer norm's gradient takes over the sum that alone reads it, if the other term is there by then. */
static bool take_sum(rewriter *r, const fv_node *n) {
    fv_graph *g = r->g;
    for (int j = 0; n->op == FV_OP_ADD && j < 2; j++) {
        const fv_value dx = operand(g, n, j), residual = operand(g, n, 1 - j);
        const fv_node *norm = only_for(r, dx, FV_OP_LAYER_NORM_BWD);
        if (!norm || norm->operands > 5 || !fv_same_type(fv_typeof(g, dx), fv_typeof(g, residual))) continue;
        const int32_t k = (int32_t)(norm - g->nodes);
        if (norm->segment != n->segment || !is_there(g, residual, k)) continue;
        if (!fv_node_set_operand(g, k, 5, residual)) return false;
        replace(r, (fv_value){n->first_result}, dx);
        return true;
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
        if (!take_params(&r, k)) return g->ctx->error.code;
        fv_node *n = &g->nodes[k];
        take_activation(&r, n);
        if (!take_linear(&r, n) || !take_sum(&r, n) || !take_slope(&r, n) || !take_norm(&r, n))
            return g->ctx->error.code;
    }
    return FV_OK;
}
