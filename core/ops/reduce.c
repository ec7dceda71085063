/* reduce.c: sum and mean over a set of dimensions, and broadcast, which is their transpose. */
#include "core/ops/ops_internal.h"

#include <string.h>

static bool infer_reduce(fv_infer *i) {
    const fv_reduce_attr *a = &i->attr->reduce;
    if (!fv_expect_float(i, 0, "x", 1, FV_MAX_RANK)) return false;
    fv_type x = i->in[0], y = {.dtype = fv_wide_of(i)};
    if (a->axes == 0) return fv_infer_fail(i, "no dimension to reduce");
    if (a->axes >> x.rank)
        return fv_infer_fail(i, "axes 0x%x go beyond the rank of x, %s", (unsigned)a->axes, FV_TEXT(x));
    for (int d = 0; d < x.rank; d++) {
        bool reduced = a->axes >> d & 1;
        if (!reduced) y.dim[y.rank++] = x.dim[d];
        else if (a->keepdim) y.dim[y.rank++] = 1;
    }
    return fv_set_result_type(i, 0, y);
}

bool fv_infer_sum(fv_infer *i) {
    return infer_reduce(i);
}
bool fv_infer_mean(fv_infer *i) {
    return infer_reduce(i);
}

bool fv_infer_broadcast(fv_infer *i) {
    const fv_shape_attr *a = &i->attr->shape;
    if (!fv_expect_float(i, 0, "x", 0, FV_MAX_RANK) || !fv_expect_dims(i, "the target shape", a->rank, a->dim))
        return false;
    fv_type x = i->in[0], y = fv_type_make(x.dtype, a->rank, a->dim);
    bool fits = x.rank <= y.rank;
    for (int d = 1; fits && d <= x.rank; d++) fits = x.dim[x.rank - d] == 1 || x.dim[x.rank - d] == y.dim[y.rank - d];
    if (!fits) return fv_infer_fail(i, "x %s does not broadcast to %s", FV_TEXT(x), FV_TEXT(y));
    return fv_set_result_type(i, 0, y);
}

/* One per element read; also of grad_stats, whose operands are a list (a square and a sum: 2). */
double fv_flops_reduce(const fv_infer *i) {
    double elements = 0;
    for (int k = 0; k < i->n_in; k++) elements += fv_elements(i->in[k]);
    return i->op == FV_OP_GRAD_STATS ? 2 * elements : elements;
}

/* dy repeated along the dimensions that were reduced. */
static fv_value spread(fv_scope s, const fv_grad_args *a, fv_value dy) {
    fv_type x = fv_typeof(s.g, a->in[0]), kept = x;
    for (int d = 0; d < x.rank; d++)
        if (a->node.attr.reduce.axes >> d & 1) kept.dim[d] = 1;
    if (!a->node.attr.reduce.keepdim) dy = fv_reshape(s, dy, kept.rank, kept.dim);
    dy = fv_cast(s, dy, x.dtype);
    return fv_same_shape(kept, x) ? dy : fv_broadcast(s, dy, x.rank, x.dim);
}

void fv_grad_sum(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = spread(s, a, a->dout[0]);
}

void fv_grad_mean(fv_scope s, const fv_grad_args *a) {
    if (!a->want[0]) return;
    double n = (double)fv_count(fv_typeof(s.g, a->in[0])) / (double)fv_count(fv_typeof(s.g, a->out[0]));
    a->din[0] = spread(s, a, fv_scale(s, a->dout[0], 1 / n, 0));
}

void fv_grad_broadcast(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = fv_sum_to(s, a->dout[0], fv_typeof(s.g, a->in[0]));
}

fv_value fv_sum(fv_scope s, fv_value x, uint32_t axes, bool keepdim) {
    return fv_op_node(s, FV_OP_SUM, &x, 1, &(fv_attr){.reduce = {.axes = axes, .keepdim = keepdim}});
}

fv_value fv_mean(fv_scope s, fv_value x, uint32_t axes, bool keepdim) {
    return fv_op_node(s, FV_OP_MEAN, &x, 1, &(fv_attr){.reduce = {.axes = axes, .keepdim = keepdim}});
}

fv_value fv_broadcast(fv_scope s, fv_value x, int rank, const int64_t *dim) {
    fv_attr attr = {.shape = {.rank = rank}};
    if (rank > 0 && rank <= FV_MAX_RANK) memcpy(attr.shape.dim, dim, (size_t)rank * sizeof *dim);
    return fv_op_node(s, FV_OP_BROADCAST, &x, 1, &attr); /* the rule checks the rank */
}
