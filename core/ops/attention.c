/* attention.c: softmax over the last dimension, and scaled dot-product attention.
 * q [n,sq,h*d], k, v [n,sk,h*d] -> y [n,sq,h*d], lse [n,h,sq] (log of the sum of exponentials, kept for the backward
 * pass); packed: one operand qkv [n,s,3*h*d]. */
#include "core/ops/ops_internal.h"

#include <math.h>

/* ---------------------------------------------------------------- softmax */

bool fv_infer_softmax(fv_infer *i) {
    return fv_expect_float(i, 0, "x", 1, FV_MAX_RANK) && fv_set_result_type(i, 0, i->in[0]);
}

bool fv_infer_softmax_bwd(fv_infer *i) {
    return fv_expect_float(i, 0, "dy", 1, FV_MAX_RANK) && fv_expect_like(i, 1, "y", i->in[0], "dy") &&
           fv_set_result_type(i, 0, i->in[0]);
}

void fv_grad_softmax(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = fv_op_node(s, FV_OP_SOFTMAX_BWD, (fv_value[]){a->dout[0], a->out[0]}, 2, NULL);
}

fv_value fv_softmax(fv_scope s, fv_value x) {
    return fv_op_node(s, FV_OP_SOFTMAX, &x, 1, NULL);
}

/* ---------------------------------------------------------------- attention */

/* q, k, v (or qkv alone) from operand `first` on: sets the types of y and lse, completes the scale. */
static bool check_operands(fv_infer *i, int first, fv_type *y, fv_type *lse) {
    fv_attention_attr *a = &i->attr->attention;
    bool packed = !fv_has(i, first + 1) && !fv_has(i, first + 2);
    if (!fv_expect_float(i, first, packed ? "qkv" : "q", 3, 3)) return false;
    fv_type q = i->in[first];
    long long n = q.dim[0], width = q.dim[2];
    if (packed && width % 3) return fv_infer_fail(i, "qkv has %lld features, not divisible by 3", width);
    if (packed) width /= 3;
    if (!packed) {
        if (!fv_expect_float(i, first + 1, "k", 3, 3) || !fv_expect_like(i, first + 2, "v", i->in[first + 1], "k"))
            return false;
        fv_type k = i->in[first + 1];
        if (k.dim[0] != n || k.dim[2] != width)
            return fv_infer_fail(i, "q %s and k %s differ in batch size or width", FV_TEXT(q), FV_TEXT(k));
    }
    if (a->heads < 1) return fv_infer_fail(i, "%d heads: the number must be positive", a->heads);
    if (width % a->heads) return fv_infer_fail(i, "width %lld is not divisible by %d heads", width, a->heads);
    if (a->scale == 0) a->scale = 1 / sqrt((double)width / a->heads);
    if (!isfinite(a->scale)) return fv_infer_fail(i, "scale %g is not finite", a->scale);
    *y = fv_shape(q.dtype, n, q.dim[1], width);
    *lse = fv_shape(fv_wide_of(i), n, a->heads, q.dim[1]);
    return true;
}

bool fv_infer_attention(fv_infer *i) {
    fv_type y = {0}, lse = {0};
    return check_operands(i, 0, &y, &lse) && fv_set_result_type(i, 0, y) && fv_set_result_type(i, 1, lse);
}

/* dy, y, lse, q, k, v -> dq, dk, dv; packed: dy, y, lse, qkv -> dqkv */
bool fv_infer_attention_bwd(fv_infer *i) {
    fv_type y = {0}, lse = {0};
    bool sound = check_operands(i, 3, &y, &lse) && fv_expect_like(i, 0, "dy", y, "attention's result") &&
                 fv_expect_like(i, 1, "y", y, "attention's result") &&
                 fv_expect_like(i, 2, "lse", lse, "attention's second result") && fv_set_result_type(i, 0, i->in[3]);
    for (int k = 1; sound && k < 3; k++)
        sound = fv_has(i, 3 + k) ? fv_set_result_type(i, k, i->in[3 + k]) : fv_set_empty(i, k);
    return sound;
}

/* Products of matrices [sq,d] and [d,sk], or of the same cost, over all heads: two forward; five backward, one of which
 * computes the weights anew. */
static double products(const fv_infer *i, int k, fv_type y) {
    bool packed = !fv_has(i, k);
    return 2 * fv_elements(y) * (double)(packed ? y.dim[1] : i->in[k].dim[1]);
}
double fv_flops_attention(const fv_infer *i) {
    return 2 * products(i, 1, i->out[0]);
}
double fv_flops_attention_bwd(const fv_infer *i) {
    return 5 * products(i, 4, i->in[0]);
}

void fv_grad_attention(fv_scope s, const fv_grad_args *a) {
    if (!fv_only_first_result(s, a, "the second result")) return;
    bool packed = a->n_in < 3 || fv_is_none(a->in[1]);
    fv_value operands[6] = {a->dout[0], a->out[0], a->out[1], a->in[0]};
    if (!packed) {
        operands[4] = a->in[1];
        operands[5] = a->in[2];
    }
    fv_value dx = fv_op_node(s, FV_OP_ATTENTION_BWD, operands, packed ? 4 : 6, &a->node.attr);
    for (int k = 0; k < (packed ? 1 : 3); k++)
        if (a->want[k]) a->din[k] = fv_result(dx, k);
}

fv_value fv_attention(fv_scope s, fv_value q, fv_value k, fv_value v, int heads, double scale) {
    bool packed = fv_is_none(k) && fv_is_none(v);
    return fv_op_node(s, FV_OP_ATTENTION, (fv_value[]){q, k, v}, packed ? 1 : 3,
                      &(fv_attr){.attention = {.heads = heads, .scale = scale}});
}
