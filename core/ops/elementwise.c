/* elementwise.c: add, sub, mul with numpy's broadcasting, and scale. */
#include "core/ops/ops_internal.h"

#include <math.h>

static bool infer_binary(fv_infer *i) {
    if (!fv_expect_float(i, 0, "a", 0, FV_MAX_RANK) || !fv_expect_float(i, 1, "b", 0, FV_MAX_RANK)) return false;
    fv_type a = i->in[0], b = i->in[1], y = a.rank >= b.rank ? a : b;
    for (int d = 1; d <= a.rank && d <= b.rank; d++) { /* from the last dimension */
        int64_t na = a.dim[a.rank - d], nb = b.dim[b.rank - d];
        if (na != nb && na != 1 && nb != 1)
            return fv_infer_fail(i, "a %s and b %s do not broadcast", FV_TEXT(a), FV_TEXT(b));
        y.dim[y.rank - d] = na > nb ? na : nb;
    }
    return fv_set_result_type(i, 0, y);
}

bool fv_infer_add(fv_infer *i) {
    return infer_binary(i);
}
bool fv_infer_sub(fv_infer *i) {
    return infer_binary(i);
}
bool fv_infer_mul(fv_infer *i) {
    return infer_binary(i);
}

bool fv_infer_scale(fv_infer *i) {
    const fv_scale_attr *a = &i->attr->scale;
    if (!isfinite(a->mul) || !isfinite(a->add))
        return fv_infer_fail(i, "factor %g and term %g must be finite", a->mul, a->add);
    return fv_expect_float(i, 0, "x", 0, FV_MAX_RANK) && fv_set_result_type(i, 0, i->in[0]);
}

/* One per element of the larger of operand 0 and result 0. */
double fv_flops_elementwise(const fv_infer *i) {
    double in = fv_elements(i->in[0]), out = fv_op_get(i->op)->results ? fv_elements(i->out[0]) : 0;
    return in > out ? in : out;
}

void fv_grad_add(fv_scope s, const fv_grad_args *a) {
    for (int k = 0; k < 2; k++)
        if (a->want[k]) a->din[k] = fv_sum_to(s, a->dout[0], fv_typeof(s.g, a->in[k]));
}

void fv_grad_sub(fv_scope s, const fv_grad_args *a) {
    fv_grad_add(s, a);
    if (a->want[1]) a->din[1] = fv_scale(s, a->din[1], -1, 0);
}

void fv_grad_mul(fv_scope s, const fv_grad_args *a) {
    for (int k = 0; k < 2; k++)
        if (a->want[k]) a->din[k] = fv_sum_to(s, fv_mul(s, a->dout[0], a->in[1 - k]), fv_typeof(s.g, a->in[k]));
}

void fv_grad_scale(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = fv_scale(s, a->dout[0], a->node.attr.scale.mul, 0);
}

fv_value fv_add(fv_scope s, fv_value a, fv_value b) {
    return fv_op_node(s, FV_OP_ADD, (fv_value[]){a, b}, 2, NULL);
}
fv_value fv_sub(fv_scope s, fv_value a, fv_value b) {
    return fv_op_node(s, FV_OP_SUB, (fv_value[]){a, b}, 2, NULL);
}
fv_value fv_mul(fv_scope s, fv_value a, fv_value b) {
    return fv_op_node(s, FV_OP_MUL, (fv_value[]){a, b}, 2, NULL);
}
fv_value fv_scale(fv_scope s, fv_value x, double mul, double add) {
    return fv_op_node(s, FV_OP_SCALE, &x, 1, &(fv_attr){.scale = {.mul = mul, .add = add}});
}
