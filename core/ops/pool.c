/* pool.c: max and average pooling, resizing. x [n,h,w,c]. */
#include "core/ops/ops_internal.h"

#include <string.h>

/* ---------------------------------------------------------------- pooling */

static bool complete(fv_infer *i, fv_pool_attr *a) {
    for (int d = 0; d < 2; d++) {
        if (a->kernel[d] < 1) return fv_infer_fail(i, "kernel %dx%d must be positive", a->kernel[0], a->kernel[1]);
        if (a->stride[d] == 0) a->stride[d] = a->kernel[d];
        if (a->stride[d] < 0) return fv_infer_fail(i, "stride %d,%d is negative", a->stride[0], a->stride[1]);
    }
    for (int d = 0; d < 4; d++) /* else a window could lie in the padding alone */
        if (a->pad[d] < 0 || a->pad[d] >= a->kernel[d % 2])
            return fv_infer_fail(i, "padding %d,%d,%d,%d must not be negative and be smaller than the kernel, %dx%d",
                                 a->pad[0], a->pad[1], a->pad[2], a->pad[3], a->kernel[0], a->kernel[1]);
    return true;
}

/* Dimensions of y for x of rank 4 with positive dimensions. Completes the attribute. */
static bool output_of(fv_infer *i, fv_pool_attr *a, const int64_t *x, int64_t *y) {
    if (!complete(i, a)) return false;
    y[0] = x[0];
    y[3] = x[3];
    for (int d = 0; d < 2; d++) {
        int64_t room = x[1 + d] + a->pad[d] + a->pad[d + 2] - a->kernel[d];
        if (room < 0)
            return fv_infer_fail(i, "kernel %dx%d is larger than the padded input: %lldx%lld with padding %d,%d,%d,%d",
                                 a->kernel[0], a->kernel[1], (long long)x[1], (long long)x[2], a->pad[0], a->pad[1],
                                 a->pad[2], a->pad[3]);
        int64_t steps = room / a->stride[d];
        /* The last, partial window counts if it begins inside the picture or the padding before it. */
        if (a->ceil_mode && room % a->stride[d] && (steps + 1) * a->stride[d] < x[1 + d] + a->pad[d]) steps++;
        y[1 + d] = steps + 1;
    }
    return true;
}

static bool window_fits_a_byte(fv_infer *i, const fv_pool_attr *a) {
    if ((int64_t)a->kernel[0] * a->kernel[1] <= 255) return true;
    return fv_infer_fail(i, "kernel %dx%d has more than 255 places", a->kernel[0], a->kernel[1]);
}

bool fv_infer_max_pool2d(fv_infer *i) {
    int64_t y[4];
    return fv_expect_float(i, 0, "x", 4, 4) && output_of(i, &i->attr->pool, i->in[0].dim, y) &&
           window_fits_a_byte(i, &i->attr->pool) && fv_set_result(i, 0, 4, y) &&
           fv_set_result_type(i, 1, fv_type_make(FV_U8, 4, y));
}

bool fv_infer_avg_pool2d(fv_infer *i) {
    int64_t y[4];
    return fv_expect_float(i, 0, "x", 4, 4) && output_of(i, &i->attr->pool, i->in[0].dim, y) &&
           fv_set_result(i, 0, 4, y);
}

/* dy has the shape that pooling gives for attr.dim, which becomes that of dx. */
static bool infer_pool_bwd(fv_infer *i) {
    fv_pool_bwd_attr *a = &i->attr->pool_bwd;
    int64_t y[4];
    return fv_expect_float(i, 0, "dy", 4, 4) && fv_expect_dims(i, "dx", 4, a->dim) &&
           output_of(i, &a->pool, a->dim, y) &&
           fv_expect_like(i, 0, "dy", fv_type_make(i->in[0].dtype, 4, y), "the pooling's result") &&
           fv_set_result(i, 0, 4, a->dim);
}

bool fv_infer_max_pool2d_bwd(fv_infer *i) {
    return infer_pool_bwd(i) && window_fits_a_byte(i, &i->attr->pool_bwd.pool) &&
           fv_expect_like(i, 1, "place", fv_type_make(FV_U8, 4, i->in[0].dim), "dy (u8)");
}

bool fv_infer_avg_pool2d_bwd(fv_infer *i) {
    return infer_pool_bwd(i);
}

/* One per place of each window; max_pool2d_bwd touches one place of each. */
double fv_flops_pool(const fv_infer *i) {
    if (i->op == FV_OP_MAX_POOL2D_BWD) return fv_elements(i->in[0]);
    bool backward = i->op == FV_OP_AVG_POOL2D_BWD;
    const fv_pool_attr *a = backward ? &i->attr->pool_bwd.pool : &i->attr->pool;
    return fv_elements(backward ? i->in[0] : i->out[0]) * a->kernel[0] * a->kernel[1];
}

static fv_value pool_backward(fv_scope s, const fv_grad_args *a, fv_op op, int n) {
    fv_attr attr = {.pool_bwd = {.pool = a->node.attr.pool}};
    memcpy(attr.pool_bwd.dim, fv_typeof(s.g, a->in[0]).dim, sizeof attr.pool_bwd.dim);
    return fv_op_node(s, op, (fv_value[]){a->dout[0], fv_result(a->out[0], 1)}, n, &attr);
}

void fv_grad_max_pool2d(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = pool_backward(s, a, FV_OP_MAX_POOL2D_BWD, 2);
}

void fv_grad_avg_pool2d(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = pool_backward(s, a, FV_OP_AVG_POOL2D_BWD, 1);
}

fv_value fv_max_pool2d(fv_scope s, fv_value x, fv_pool_attr attr) {
    return fv_op_node(s, FV_OP_MAX_POOL2D, &x, 1, &(fv_attr){.pool = attr});
}

fv_value fv_avg_pool2d(fv_scope s, fv_value x, fv_pool_attr attr) {
    return fv_op_node(s, FV_OP_AVG_POOL2D, &x, 1, &(fv_attr){.pool = attr});
}

fv_value fv_global_avg_pool(fv_scope s, fv_value x) {
    fv_type t = fv_typeof(s.g, x);
    if (!fv_is_none(x) && t.rank != 4)
        return fv_graph_fail(s, FV_E_MODEL, "global_avg_pool: x must have rank 4, it is %s", FV_TEXT(t));
    return fv_mean(s, x, 1u << 1 | 1u << 2, false);
}

/* ---------------------------------------------------------------- resizing */

static bool infer_resize(fv_infer *i, const char *what) {
    const fv_resize_attr *a = &i->attr->resize;
    if (!fv_expect_float(i, 0, what, 4, 4)) return false;
    if (a->mode != FV_RESIZE_NEAREST && a->mode != FV_RESIZE_BILINEAR)
        return fv_infer_fail(i, "%d is no resize mode", (int)a->mode);
    if (a->align_corners && a->mode == FV_RESIZE_NEAREST)
        return fv_infer_fail(i, "align_corners applies to bilinear resizing only");
    if (a->out_h < 1 || a->out_w < 1)
        return fv_infer_fail(i, "size %lldx%lld must be positive", (long long)a->out_h, (long long)a->out_w);
    const int64_t *in = i->in[0].dim;
    return fv_set_result(i, 0, 4, (int64_t[]){in[0], a->out_h, a->out_w, in[3]});
}

bool fv_infer_resize(fv_infer *i) {
    return infer_resize(i, "x");
}
bool fv_infer_resize_bwd(fv_infer *i) {
    return infer_resize(i, "dy");
}

void fv_grad_resize(fv_scope s, const fv_grad_args *a) {
    fv_attr attr = a->node.attr;
    attr.resize.out_h = fv_dim(s.g, a->in[0], 1);
    attr.resize.out_w = fv_dim(s.g, a->in[0], 2);
    if (a->want[0]) a->din[0] = fv_op_node(s, FV_OP_RESIZE_BWD, &a->dout[0], 1, &attr);
}

fv_value fv_resize(fv_scope s, fv_value x, fv_resize_attr attr) {
    return fv_op_node(s, FV_OP_RESIZE, &x, 1, &(fv_attr){.resize = attr});
}
