/* linear.c: linear layers and batched matrix products. */
#include "core/ops/ops_internal.h"

/* ---------------------------------------------------------------- linear: x [...,in], w [out,in] -> y [...,out] */

static int64_t last(const fv_infer *i, int k) {
    return i->in[k].dim[i->in[k].rank - 1];
}

/* t with another last dimension. */
static fv_type with_last(fv_type t, int64_t n) {
    t.dim[t.rank - 1] = n;
    return t;
}

bool fv_infer_linear(fv_infer *i) {
    if (!fv_expect_float(i, 0, "x", 2, FV_MAX_RANK) || !fv_expect_float(i, 1, "w", 2, 2)) return false;
    int64_t out = i->in[1].dim[0], in = i->in[1].dim[1];
    if (last(i, 0) != in)
        return fv_infer_fail(i, "x has %lld features, w expects %lld", (long long)last(i, 0), (long long)in);
    return fv_expect_vector(i, 2, "bias", out) && fv_set_result_type(i, 0, with_last(i->in[0], out));
}

bool fv_infer_linear_bwd_data(fv_infer *i) {
    if (!fv_expect_float(i, 0, "dy", 2, FV_MAX_RANK) || !fv_expect_float(i, 1, "w", 2, 2)) return false;
    int64_t out = i->in[1].dim[0], in = i->in[1].dim[1];
    if (last(i, 0) != out)
        return fv_infer_fail(i, "dy has %lld features, w gives %lld", (long long)last(i, 0), (long long)out);
    return fv_set_result_type(i, 0, with_last(i->in[0], in));
}

bool fv_infer_linear_bwd_weight(fv_infer *i) {
    if (!fv_expect_float(i, 0, "dy", 2, FV_MAX_RANK) || !fv_expect_float(i, 1, "x", 2, FV_MAX_RANK)) return false;
    if (!fv_same_shape(with_last(i->in[0], 1), with_last(i->in[1], 1)))
        return fv_infer_fail(i, "dy %s and x %s differ in their leading dimensions", FV_TEXT(i->in[0]),
                             FV_TEXT(i->in[1]));
    return fv_set_wide_result(i, 0, 2, (int64_t[]){last(i, 0), last(i, 1)});
}

/* Both forward and for dx each row of operand 0 meets all of w. */
double fv_flops_linear(const fv_infer *i) {
    return 2 * fv_elements(i->in[0]) / (double)last(i, 0) * fv_elements(i->in[1]);
}
double fv_flops_linear_bwd_weight(const fv_infer *i) {
    return 2 * fv_elements(i->in[0]) * (double)last(i, 1);
}

void fv_grad_linear(fv_scope s, const fv_grad_args *a) {
    fv_value dy = a->dout[0], x = a->in[0], w = a->in[1];
    /* dw first: x often dies with it, before dx needs memory. */
    if (a->want[1]) a->din[1] = fv_op_node(s, FV_OP_LINEAR_BWD_WEIGHT, (fv_value[]){dy, x}, 2, NULL);
    if (a->n_in > 2 && a->want[2]) a->din[2] = fv_sum_leading(s, dy);
    if (a->want[0]) a->din[0] = fv_op_node(s, FV_OP_LINEAR_BWD_DATA, (fv_value[]){dy, w}, 2, NULL);
}

fv_value fv_linear(fv_scope s, fv_value x, fv_value w, fv_value bias) {
    return fv_op_node(s, FV_OP_LINEAR, (fv_value[]){x, w, bias}, fv_is_none(bias) ? 2 : 3, NULL);
}

/* ---------------------------------------------------------------- linear layers of act(x), and act of a linear layer
 */

static bool is_told_by_input(fv_infer *i) {
    const fv_act_kind kind = i->attr->activation.kind;
    return fv_act_needs_input(kind) || fv_infer_fail(i, "%s is no activation whose slope x tells", fv_act_name(kind));
}

bool fv_infer_activated_linear(fv_infer *i) {
    return is_told_by_input(i) && fv_infer_linear(i) &&
           (!fv_has(i, 3) || fv_expect_like(i, 3, "residual", i->out[0], "y"));
}

bool fv_infer_activated_linear_bwd_data(fv_infer *i) {
    return is_told_by_input(i) && fv_infer_linear_bwd_data(i) && fv_expect_like(i, 2, "x", i->out[0], "dx");
}

bool fv_infer_linear_bwd_params(fv_infer *i) {
    if (i->attr->activation.kind != FV_ACT_NONE && !is_told_by_input(i)) return false;
    if (!fv_infer_linear_bwd_weight(i)) return false;
    const int64_t out = last(i, 0);
    return fv_set_wide_result(i, 1, 1, &out);
}

bool fv_infer_linear_act(fv_infer *i) {
    const fv_act_kind kind = i->attr->activation.kind;
    if (kind != FV_ACT_NONE && !fv_act_can_end_norm(kind))
        return fv_infer_fail(i, "%s cannot end a linear layer", fv_act_name(kind));
    return fv_infer_linear(i) && (!fv_has(i, 3) || fv_expect_like(i, 3, "residual", i->out[0], "y"));
}
double fv_flops_linear_act(const fv_infer *i) {
    const int passes = (i->attr->activation.kind != FV_ACT_NONE) + fv_has(i, 3);
    return fv_flops_linear(i) + passes * fv_elements(i->out[0]);
}

double fv_flops_activated_linear(const fv_infer *i) {
    const bool forward = i->op == FV_OP_ACTIVATED_LINEAR;
    const double residual = forward && fv_has(i, 3) ? fv_elements(i->out[0]) : 0;
    return fv_flops_linear(i) + fv_elements(forward ? i->in[0] : i->out[0]) + residual;
}
double fv_flops_linear_bwd_params(const fv_infer *i) {
    const bool acts = i->attr->activation.kind != FV_ACT_NONE;
    return fv_flops_linear_bwd_weight(i) + fv_elements(i->in[0]) + (acts ? fv_elements(i->in[1]) : 0);
}

/* ---------------------------------------------------------------- matmul: a [...,m,k] (or [...,k,m]), b [...,k,n] */

bool fv_infer_matmul(fv_infer *i) {
    if (!fv_expect_float(i, 0, "a", 2, FV_MAX_RANK) || !fv_expect_float(i, 1, "b", 2, FV_MAX_RANK)) return false;
    fv_type a = i->in[0], b = i->in[1];
    bool ta = i->attr->matmul.transpose_a, tb = i->attr->matmul.transpose_b;
    bool leading = a.rank == b.rank;
    for (int d = 0; leading && d < a.rank - 2; d++) leading = a.dim[d] == b.dim[d];
    if (!leading) return fv_infer_fail(i, "a %s and b %s differ in their leading dimensions", FV_TEXT(a), FV_TEXT(b));
    int row = a.rank - 2, col = a.rank - 1;
    int64_t m = a.dim[ta ? col : row], ka = a.dim[ta ? row : col], kb = b.dim[tb ? col : row],
            n = b.dim[tb ? row : col];
    if (ka != kb)
        return fv_infer_fail(i, "a %s%s has %lld columns, b %s%s has %lld rows", FV_TEXT(a), ta ? " transposed" : "",
                             (long long)ka, FV_TEXT(b), tb ? " transposed" : "", (long long)kb);
    fv_type y = a;
    y.dim[row] = m;
    y.dim[col] = n;
    return fv_set_result_type(i, 0, y);
}

double fv_flops_matmul(const fv_infer *i) {
    const fv_type *a = &i->in[0];
    return 2 * fv_elements(i->out[0]) * (double)a->dim[a->rank - (i->attr->matmul.transpose_a ? 2 : 1)];
}

/* With A = a or its transpose: dA = dy B^T, dB = A^T dy; both sides of these are transposed where a or b is. */
void fv_grad_matmul(fv_scope s, const fv_grad_args *g) {
    fv_value dy = g->dout[0], a = g->in[0], b = g->in[1];
    bool ta = g->node.attr.matmul.transpose_a, tb = g->node.attr.matmul.transpose_b;
    if (g->want[0]) {
        if (ta) g->din[0] = fv_matmul(s, b, dy, (fv_matmul_attr){tb, true});
        else g->din[0] = fv_matmul(s, dy, b, (fv_matmul_attr){false, !tb});
    }
    if (g->want[1]) {
        if (tb) g->din[1] = fv_matmul(s, dy, a, (fv_matmul_attr){true, ta});
        else g->din[1] = fv_matmul(s, a, dy, (fv_matmul_attr){!ta, false});
    }
}

fv_value fv_matmul(fv_scope s, fv_value a, fv_value b, fv_matmul_attr attr) {
    return fv_op_node(s, FV_OP_MATMUL, (fv_value[]){a, b}, 2, &(fv_attr){.matmul = attr});
}
