/* autodiff.c: reverse-mode differentiation from graph to graph. Each op's gradient rule (core/ops/) emits nodes;
 * contributions to one value are summed in the order in which they arise, which is fixed by the graph. */
#include "core/ops.h"

#include <string.h>

typedef struct backward {
    fv_graph *g;
    int32_t n;      /* values before differentiation */
    bool *depends;  /* value depends on something in wrt */
    fv_value *grad; /* by value id: gradient so far */
} backward;

/* Values that depend on wrt: forward sweep. Only those receive gradients. */
static void mark_dependants(backward *b, int n_wrt, const fv_value *wrt) {
    const fv_graph *g = b->g;
    for (int i = 0; i < n_wrt; i++)
        if (wrt[i].id > 0 && wrt[i].id < b->n) b->depends[wrt[i].id] = true;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *node = &g->nodes[k];
        bool any = false;
        for (int j = 0; j < node->operands; j++) any |= b->depends[g->operands[node->first_operand + j].id];
        if (any)
            for (int r = 0; r < node->results; r++) b->depends[node->first_result + r] = true;
    }
}

static void add_contribution(backward *b, fv_scope s, fv_value to, fv_value more) {
    fv_value *grad = &b->grad[to.id];
    *grad = fv_is_none(*grad) ? more : fv_add(s, *grad, more);
}

#define FEW 16

/* Emit the backward nodes of one node. Arrays have room for its operands. */
static void differentiate(backward *b, int32_t index, fv_value *in, fv_value *din, bool *want) {
    fv_graph *g = b->g;
    fv_node node = g->nodes[index]; /* copies: emitting nodes may move the arrays */
    const fv_op_info *info = fv_op_get(node.op);
    fv_scope s = {g, node.scope};
    fv_value out[4], dout[4];
    bool flows = false, wanted = false;
    for (int r = 0; r < node.results; r++) {
        out[r] = (fv_value){node.first_result + r};
        dout[r] = b->grad[out[r].id];
        flows |= !fv_is_none(dout[r]);
    }
    if (!flows) return;
    for (int j = 0; j < node.operands; j++) {
        in[j] = g->operands[node.first_operand + j];
        din[j] = FV_NONE;
        want[j] = in[j].id && b->depends[in[j].id];
        wanted |= want[j];
    }
    if (!wanted) return;
    if (!info->grad) {
        fv_graph_fail(s, FV_E_MODEL, "%s has no gradient", info->name);
        return;
    }
    info->grad(s, &(fv_grad_args){.node = node,
                                  .n_in = node.operands,
                                  .n_out = node.results,
                                  .in = in,
                                  .out = out,
                                  .dout = dout,
                                  .want = want,
                                  .din = din});
    for (int j = 0; j < node.operands; j++)
        if (want[j] && !fv_is_none(din[j])) add_contribution(b, s, in[j], din[j]);
}

static fv_status run_backward(backward *b, fv_value y, fv_value dy, int n_wrt, const fv_value *wrt, fv_value *grads) {
    fv_graph *g = b->g;
    mark_dependants(b, n_wrt, wrt);
    b->grad[y.id] = dy;
    int32_t last = g->values[y.id].kind == FV_VAL_RESULT ? g->values[y.id].node : -1, widest = FEW;
    for (int32_t k = 0; k <= last; k++)
        if (g->nodes[k].operands > widest) widest = g->nodes[k].operands;
    fv_value *in = fv_arena_alloc(&g->arena, (size_t)widest * 2, sizeof *in);
    bool *want = fv_arena_alloc(&g->arena, (size_t)widest, sizeof *want);
    if (!in || !want) return g->ctx->error.code;
    for (int32_t k = last; k >= 0 && g->error == FV_OK; k--) differentiate(b, k, in, in + widest, want);
    for (int i = 0; i < n_wrt; i++) grads[i] = wrt[i].id > 0 && wrt[i].id < b->n ? b->grad[wrt[i].id] : FV_NONE;
    return fv_graph_finish(g);
}

fv_status fv_gradients_from(fv_graph *g, fv_value y, fv_value dy, int n, const fv_value *wrt, fv_value *grads) {
    FV_TRY(fv_graph_finish(g));
    if (!fv_same_type(fv_typeof(g, y), fv_typeof(g, dy)))
        return fv_fail(g->ctx, FV_E_INTERNAL, "the cotangent's type is not that of the value to differentiate");
    backward b = {.g = g, .n = g->n_values};
    b.depends = fv_arena_alloc(&g->arena, (size_t)b.n, sizeof *b.depends);
    b.grad = fv_arena_alloc(&g->arena, (size_t)b.n, sizeof *b.grad);
    if (!b.depends || !b.grad) return g->ctx->error.code;
    bool before = g->in_backward;
    g->in_backward = true;
    fv_status status = run_backward(&b, y, dy, n, wrt, grads);
    g->in_backward = before;
    return status;
}

fv_status fv_gradients(fv_graph *g, fv_value loss, int n, const fv_value *wrt, fv_value *grads) {
    FV_TRY(fv_graph_finish(g));
    fv_type type = fv_typeof(g, loss);
    if (fv_is_none(loss) || fv_count(type) != 1)
        return fv_fail(g->ctx, FV_E_MODEL, "only a scalar can be differentiated without a cotangent");
    return fv_gradients_from(g, loss, fv_const_fill(fv_root(g), type, 1.0), n, wrt, grads);
}
