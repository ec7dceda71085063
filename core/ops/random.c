/* random.c: dropout (per element) and drop path (per row). The draws are a function of seed, step, the row's key and
 * the scope's name, so that the backward pass repeats them instead of storing a mask. */
#include "core/ops/ops_internal.h"

static bool infer_dropout(fv_infer *i) {
    double p = i->attr->dropout.p;
    if (!(p >= 0 && p < 1)) return fv_infer_fail(i, "probability %g is not in [0, 1)", p);
    if (!fv_expect_float(i, 0, "x", 1, FV_MAX_RANK) || !fv_expect_dtype(i, 1, "row_key", FV_I64, 1)) return false;
    if (i->in[1].dim[0] != i->in[0].dim[0])
        return fv_infer_fail(i, "row_key has %lld elements, x %lld rows", (long long)i->in[1].dim[0],
                             (long long)i->in[0].dim[0]);
    return fv_set_result_type(i, 0, i->in[0]);
}

bool fv_infer_dropout(fv_infer *i) {
    return infer_dropout(i);
}
bool fv_infer_drop_path(fv_infer *i) {
    return infer_dropout(i);
}

/* The same op on dy, with the same keys and in the same scope, hence with the same draws. */
static void repeat(fv_scope s, const fv_grad_args *a) {
    fv_scope own = {s.g, a->node.scope};
    if (a->want[0]) a->din[0] = fv_op_node(own, a->node.op, (fv_value[]){a->dout[0], a->in[1]}, 2, &a->node.attr);
}

void fv_grad_dropout(fv_scope s, const fv_grad_args *a) {
    repeat(s, a);
}
void fv_grad_drop_path(fv_scope s, const fv_grad_args *a) {
    repeat(s, a);
}

static fv_value build(fv_scope s, fv_op op, fv_value x, double p) {
    if (!(p >= 0 && p < 1))
        return fv_graph_fail(s, FV_E_MODEL, "%s: probability %g is not in [0, 1)", fv_op_get(op)->name, p);
    if (!s.g->training || p == 0) return x;
    fv_value row_key = fv_typeof(s.g, x).rank > 0 ? fv_row_key(s, fv_dim(s.g, x, 0)) : FV_NONE;
    return fv_op_node(s, op, (fv_value[]){x, row_key}, 2, &(fv_attr){.dropout = {.p = p}});
}

fv_value fv_dropout(fv_scope s, fv_value x, double p) {
    return build(s, FV_OP_DROPOUT, x, p);
}
fv_value fv_drop_path(fv_scope s, fv_value x, double p) {
    return build(s, FV_OP_DROP_PATH, x, p);
}
