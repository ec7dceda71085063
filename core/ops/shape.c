/* shape.c: operations that move elements and compute nothing: reshape, transpose, concat, slice, pad. */
#include "core/ops/ops_internal.h"

#include <stdio.h>
#include <string.h>

#define ALL_DIMS (FV_MAX_RANK * sizeof(int64_t))

double fv_flops_zero(const fv_infer *i) {
    (void)i;
    return 0;
}

/* ---------------------------------------------------------------- reshape */

/* Replace the one -1 of the shape by what x leaves for it. */
static bool resolve(fv_infer *i, fv_shape_attr *a, fv_type x) {
    if (a->rank < 0 || a->rank > FV_MAX_RANK)
        return fv_infer_fail(i, "the target shape has rank %d, the limit is %d", a->rank, FV_MAX_RANK);
    int open = -1;
    int64_t rest = fv_count(x);
    for (int d = 0; d < a->rank; d++) {
        if (a->dim[d] == -1 && open >= 0) return fv_infer_fail(i, "the target shape has more than one -1");
        if (a->dim[d] == -1) open = d;
        else if (a->dim[d] < 1)
            return fv_infer_fail(i, "dimension %d of the target shape is %lld", d, (long long)a->dim[d]);
    }
    for (int d = 0; d < a->rank; d++) {
        if (d == open) continue;
        if (rest % a->dim[d]) rest = 0; /* and stays 0 */
        rest /= a->dim[d];
    }
    if (rest < 1 || (open < 0 && rest != 1))
        return fv_infer_fail(i, "x %s cannot take the shape %s", FV_TEXT(x),
                             FV_TEXT(fv_type_make(x.dtype, a->rank, a->dim)));
    if (open >= 0) a->dim[open] = rest;
    return true;
}

bool fv_infer_reshape(fv_infer *i) {
    fv_shape_attr *a = &i->attr->shape;
    return fv_expect_float(i, 0, "x", 0, FV_MAX_RANK) && resolve(i, a, i->in[0]) &&
           fv_set_result(i, 0, a->rank, a->dim);
}

void fv_grad_reshape(fv_scope s, const fv_grad_args *a) {
    fv_type x = fv_typeof(s.g, a->in[0]);
    if (a->want[0]) a->din[0] = fv_reshape(s, a->dout[0], x.rank, x.dim);
}

fv_value fv_reshape(fv_scope s, fv_value x, int rank, const int64_t *dim) {
    fv_attr attr = {.shape = {.rank = rank}};
    if (rank > 0 && rank <= FV_MAX_RANK) memcpy(attr.shape.dim, dim, (size_t)rank * sizeof *dim);
    return fv_op_node(s, FV_OP_RESHAPE, &x, 1, &attr); /* the rule checks the rank */
}

fv_value fv_flatten(fv_scope s, fv_value x) {
    int64_t dim[2] = {fv_dim(s.g, x, 0), -1};
    return fv_reshape(s, x, 2, dim);
}

/* ---------------------------------------------------------------- transpose */

bool fv_infer_transpose(fv_infer *i) {
    const int32_t *perm = i->attr->transpose.perm;
    if (!fv_expect_float(i, 0, "x", 1, FV_MAX_RANK)) return false;
    fv_type x = i->in[0], y = x;
    unsigned seen = 0;
    for (int d = 0; d < x.rank; d++) {
        if (perm[d] < 0 || perm[d] >= x.rank || (seen >> perm[d] & 1))
            return fv_infer_fail(i, "dimension %d of the permutation is %d: not a permutation of 0 to %d", d, perm[d],
                                 x.rank - 1);
        seen |= 1u << perm[d];
        y.dim[d] = x.dim[perm[d]];
    }
    return fv_set_result_type(i, 0, y);
}

void fv_grad_transpose(fv_scope s, const fv_grad_args *a) {
    int32_t inverse[FV_MAX_RANK] = {0};
    int rank = fv_typeof(s.g, a->in[0]).rank;
    for (int d = 0; d < rank; d++) inverse[a->node.attr.transpose.perm[d]] = d;
    if (a->want[0]) a->din[0] = fv_transpose(s, a->dout[0], inverse);
}

fv_value fv_transpose(fv_scope s, fv_value x, const int32_t *perm) {
    fv_attr attr = {.transpose = {{0}}};
    memcpy(attr.transpose.perm, perm, (size_t)fv_typeof(s.g, x).rank * sizeof *perm);
    return fv_op_node(s, FV_OP_TRANSPOSE, &x, 1, &attr);
}

/* ---------------------------------------------------------------- concat */

bool fv_infer_concat(fv_infer *i) {
    int32_t *axis = &i->attr->concat.axis;
    if (!fv_expect_float(i, 0, "operand 0", 1, FV_MAX_RANK)) return false;
    fv_type first = i->in[0], y = first;
    if (*axis < -first.rank || *axis >= first.rank)
        return fv_infer_fail(i, "axis %d is out of range for %s", *axis, FV_TEXT(first));
    if (*axis < 0) *axis += first.rank; /* counted from the end */
    for (int k = 1; k < i->n_in; k++) {
        char what[32] = "";
        snprintf(what, sizeof what, "operand %d", k);
        if (!fv_expect_float(i, k, what, first.rank, first.rank)) return false;
        fv_type other = i->in[k];
        other.dim[*axis] = first.dim[*axis];
        if (!fv_same_shape(first, other))
            return fv_infer_fail(i, "operand %d %s does not match %s outside axis %d", k, FV_TEXT(i->in[k]),
                                 FV_TEXT(first), *axis);
        if (y.dim[*axis] > INT64_MAX - i->in[k].dim[*axis]) return fv_infer_fail(i, "the result is too large");
        y.dim[*axis] += i->in[k].dim[*axis];
    }
    return fv_set_result_type(i, 0, y);
}

void fv_grad_concat(fv_scope s, const fv_grad_args *a) {
    int axis = a->node.attr.concat.axis;
    int64_t start[FV_MAX_RANK] = {0};
    for (int k = 0; k < a->n_in; k++) {
        fv_type x = fv_typeof(s.g, a->in[k]);
        if (a->want[k]) a->din[k] = fv_slice(s, a->dout[0], start, x.dim, NULL);
        start[axis] += x.dim[axis];
    }
}

fv_value fv_concat(fv_scope s, const fv_value *x, int n, int axis) {
    return fv_op_node(s, FV_OP_CONCAT, x, n, &(fv_attr){.concat = {.axis = axis}});
}

/* ---------------------------------------------------------------- slice */

/* start + step * (0 .. size - 1) lies within `full`, for each dimension. Completes step. */
static bool slice_fits(fv_infer *i, fv_slice_attr *a, int rank, const int64_t *full) {
    for (int d = 0; d < rank; d++) {
        if (a->step[d] == 0) a->step[d] = 1;
        if (a->step[d] < 0)
            return fv_infer_fail(i, "step %lld along dimension %d is negative", (long long)a->step[d], d);
        bool fits = a->start[d] >= 0 && a->start[d] < full[d] && a->size[d] >= 1 &&
                    a->size[d] - 1 <= (full[d] - 1 - a->start[d]) / a->step[d];
        if (!fits)
            return fv_infer_fail(
                i, "%lld elements from %lld with step %lld do not lie within dimension %d of size %lld",
                (long long)a->size[d], (long long)a->start[d], (long long)a->step[d], d, (long long)full[d]);
    }
    return true;
}

bool fv_infer_slice(fv_infer *i) {
    fv_slice_attr *a = &i->attr->slice;
    return fv_expect_float(i, 0, "x", 1, FV_MAX_RANK) && slice_fits(i, a, i->in[0].rank, i->in[0].dim) &&
           fv_set_result(i, 0, i->in[0].rank, a->size);
}

bool fv_infer_slice_bwd(fv_infer *i) {
    fv_slice_attr *a = &i->attr->slice;
    if (!fv_expect_float(i, 0, "dy", 1, FV_MAX_RANK)) return false;
    int rank = i->in[0].rank;
    return fv_expect_dims(i, "dx", rank, a->full) && slice_fits(i, a, rank, a->full) &&
           fv_expect_like(i, 0, "dy", fv_type_make(i->in[0].dtype, rank, a->size), "the slice") &&
           fv_set_result(i, 0, rank, a->full);
}

void fv_grad_slice(fv_scope s, const fv_grad_args *a) {
    fv_attr attr = a->node.attr;
    memcpy(attr.slice.full, fv_typeof(s.g, a->in[0]).dim, ALL_DIMS);
    if (a->want[0]) a->din[0] = fv_op_node(s, FV_OP_SLICE_BWD, &a->dout[0], 1, &attr);
}

fv_value fv_slice(fv_scope s, fv_value x, const int64_t *start, const int64_t *size, const int64_t *step) {
    fv_attr attr = {.slice = {.start = {0}}};
    for (int d = 0; d < fv_typeof(s.g, x).rank; d++) {
        attr.slice.start[d] = start[d];
        attr.slice.size[d] = size[d];
        attr.slice.step[d] = step ? step[d] : 1;
    }
    return fv_op_node(s, FV_OP_SLICE, &x, 1, &attr);
}

/* ---------------------------------------------------------------- pad */

bool fv_infer_pad(fv_infer *i) {
    const fv_pad_attr *a = &i->attr->pad_nd;
    if (!fv_expect_float(i, 0, "x", 1, FV_MAX_RANK)) return false;
    fv_type y = i->in[0];
    for (int d = 0; d < y.rank && d < FV_MAX_RANK; d++) {
        if (a->before[d] < 0 || a->after[d] < 0)
            return fv_infer_fail(i, "padding %lld, %lld of dimension %d is negative", (long long)a->before[d],
                                 (long long)a->after[d], d);
        if (a->before[d] > INT64_MAX - y.dim[d] || a->after[d] > INT64_MAX - y.dim[d] - a->before[d])
            return fv_infer_fail(i, "padding of dimension %d is too large", d);
        y.dim[d] += a->before[d] + a->after[d];
    }
    return fv_set_result_type(i, 0, y);
}

void fv_grad_pad(fv_scope s, const fv_grad_args *a) {
    fv_type x = fv_typeof(s.g, a->in[0]);
    if (a->want[0]) a->din[0] = fv_slice(s, a->dout[0], a->node.attr.pad_nd.before, x.dim, NULL);
}

fv_value fv_pad(fv_scope s, fv_value x, const int64_t *before, const int64_t *after, double value) {
    fv_attr attr = {.pad_nd = {.value = value}};
    size_t bytes = (size_t)fv_typeof(s.g, x).rank * sizeof *before;
    memcpy(attr.pad_nd.before, before, bytes);
    memcpy(attr.pad_nd.after, after, bytes);
    return fv_op_node(s, FV_OP_PAD, &x, 1, &attr);
}
