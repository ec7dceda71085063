/* conv.c: 2-D convolution and its two gradients. x [n,h,w,c], w [k,r,s,c/groups], y [n,oh,ow,k]. */
#include "core/ops/ops_internal.h"

#include <string.h>

/* ---------------------------------------------------------------- shape rules */

static bool complete(fv_infer *i, fv_conv2d_attr *a) {
    static const char *const axis[2] = {"height", "width"};
    for (int d = 0; d < 2; d++) {
        if (a->stride[d] == 0) a->stride[d] = 1;
        if (a->dilation[d] == 0) a->dilation[d] = 1;
        if (a->stride[d] < 0) return fv_infer_fail(i, "stride %d along the %s is negative", a->stride[d], axis[d]);
        if (a->dilation[d] < 0)
            return fv_infer_fail(i, "dilation %d along the %s is negative", a->dilation[d], axis[d]);
    }
    for (int d = 0; d < 4; d++)
        if (a->pad[d] < 0) return fv_infer_fail(i, "padding %d is negative", a->pad[d]);
    if (a->groups == 0) a->groups = 1;
    if (a->groups < 0) return fv_infer_fail(i, "%d groups: the number must be positive", a->groups);
    return true;
}

static bool channels_fit(fv_infer *i, int32_t groups, const fv_type *x, const fv_type *w) {
    long long c = x->dim[3], k = w->dim[0], per_group = w->dim[3];
    if (c % groups) return fv_infer_fail(i, "x has %lld channels, not divisible by %d groups", c, groups);
    if (k % groups) return fv_infer_fail(i, "w has %lld output channels, not divisible by %d groups", k, groups);
    if (c / groups == per_group) return true;
    if (groups == 1) return fv_infer_fail(i, "x has %lld channels, w expects %lld", c, per_group);
    return fv_infer_fail(i, "x has %lld channels in %d groups, w expects %lld per group", c, groups, per_group);
}

/* The type of y for x and w, both of rank 4 with positive dimensions. Completes the attribute. */
static bool output_of(fv_infer *i, fv_conv2d_attr *a, const fv_type *x, const fv_type *w, fv_type *y) {
    if (!complete(i, a) || !channels_fit(i, a->groups, x, w)) return false;
    int64_t dim[4] = {x->dim[0], 0, 0, w->dim[0]};
    for (int d = 0; d < 2; d++) {
        int64_t padded = x->dim[1 + d] + a->pad[d] + a->pad[d + 2], reach = w->dim[1 + d] - 1;
        if (reach > (padded - 1) / a->dilation[d])
            return fv_infer_fail(i,
                                 "kernel %lldx%lld with dilation %d,%d is larger than the padded input: %lldx%lld with "
                                 "padding %d,%d,%d,%d",
                                 (long long)w->dim[1], (long long)w->dim[2], a->dilation[0], a->dilation[1],
                                 (long long)x->dim[1], (long long)x->dim[2], a->pad[0], a->pad[1], a->pad[2],
                                 a->pad[3]);
        dim[1 + d] = (padded - 1 - reach * a->dilation[d]) / a->stride[d] + 1;
    }
    *y = fv_type_make(x->dtype, 4, dim);
    return true;
}

bool fv_infer_conv2d(fv_infer *i) {
    fv_type y = {0};
    return fv_expect_float(i, 0, "x", 4, 4) && fv_expect_float(i, 1, "w", 4, 4) &&
           fv_expect_vector(i, 2, "bias", i->in[1].dim[0]) &&
           output_of(i, &i->attr->conv2d, &i->in[0], &i->in[1], &y) && fv_set_result_type(i, 0, y);
}

bool fv_infer_conv2d_bwd_data(fv_infer *i) {
    fv_conv2d_bwd_attr *a = &i->attr->conv2d_bwd;
    if (!fv_expect_float(i, 0, "dy", 4, 4) || !fv_expect_float(i, 1, "w", 4, 4) || !fv_expect_dims(i, "dx", 4, a->dim))
        return false;
    fv_type x = fv_type_make(i->in[0].dtype, 4, a->dim), y = {0};
    return output_of(i, &a->conv, &x, &i->in[1], &y) && fv_expect_like(i, 0, "dy", y, "the convolution's result") &&
           fv_set_result_type(i, 0, x);
}

bool fv_infer_conv2d_bwd_weight(fv_infer *i) {
    fv_conv2d_bwd_attr *a = &i->attr->conv2d_bwd;
    if (!fv_expect_float(i, 0, "dy", 4, 4) || !fv_expect_float(i, 1, "x", 4, 4) || !fv_expect_dims(i, "dw", 4, a->dim))
        return false;
    fv_type w = fv_type_make(i->in[0].dtype, 4, a->dim), y = {0};
    return output_of(i, &a->conv, &i->in[1], &w, &y) && fv_expect_like(i, 0, "dy", y, "the convolution's result") &&
           fv_set_wide_result(i, 0, 4, a->dim);
}

/* ---------------------------------------------------------------- cost: y's elements have r * s * c/groups products */

static double products(fv_type y, fv_type w) {
    return 2 * fv_elements(y) * (fv_elements(w) / (double)w.dim[0]);
}
double fv_flops_conv2d(const fv_infer *i) {
    return products(i->out[0], i->in[1]);
}
double fv_flops_conv2d_bwd_data(const fv_infer *i) {
    return products(i->in[0], i->in[1]);
}
double fv_flops_conv2d_bwd_weight(const fv_infer *i) {
    return products(i->in[0], i->out[0]);
}

/* ---------------------------------------------------------------- gradient and builder */

static fv_value backward_node(fv_scope s, fv_op op, const fv_grad_args *a, fv_value other, fv_type result) {
    fv_attr attr = {.conv2d_bwd = {.conv = a->node.attr.conv2d}};
    memcpy(attr.conv2d_bwd.dim, result.dim, sizeof attr.conv2d_bwd.dim);
    return fv_op_node(s, op, (fv_value[]){a->dout[0], other}, 2, &attr);
}

void fv_grad_conv2d(fv_scope s, const fv_grad_args *a) {
    fv_value x = a->in[0], w = a->in[1];
    /* dw first: x often dies with it, before dx needs memory. */
    if (a->want[1]) a->din[1] = backward_node(s, FV_OP_CONV2D_BWD_WEIGHT, a, x, fv_typeof(s.g, w));
    if (a->n_in > 2 && a->want[2]) a->din[2] = fv_sum_leading(s, a->dout[0]);
    if (a->want[0]) a->din[0] = backward_node(s, FV_OP_CONV2D_BWD_DATA, a, w, fv_typeof(s.g, x));
}

fv_value fv_conv2d(fv_scope s, fv_value x, fv_value w, fv_value bias, fv_conv2d_attr attr) {
    return fv_op_node(s, FV_OP_CONV2D, (fv_value[]){x, w, bias}, fv_is_none(bias) ? 2 : 3, &(fv_attr){.conv2d = attr});
}
