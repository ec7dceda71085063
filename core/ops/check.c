/* check.c: what shape, cost and gradient rules have in common. */
#include "core/ops/ops_internal.h"

/* ---------------------------------------------------------------- shape rules */

static bool is_float(fv_dtype dtype) {
    return dtype == FV_F32 || dtype == FV_F64 || fv_is_low(dtype);
}

/* Losses, updates and the like take no bf16 or f16. */
static bool op_takes(fv_op op, fv_dtype dtype) {
    return is_float(dtype) && (!fv_is_low(dtype) || fv_op_precision(op) != FV_PRECISION_FULL);
}

fv_dtype fv_float_of(const fv_infer *i) {
    for (int k = 0; k < i->n_in; k++)
        if (fv_has(i, k) && is_float(i->in[k].dtype)) return i->in[k].dtype;
    return FV_F32;
}

fv_dtype fv_wide_of(const fv_infer *i) {
    fv_dtype dtype = fv_float_of(i);
    return fv_is_low(dtype) ? FV_F32 : dtype;
}

static bool expect_filled(fv_infer *i, int k, const char *what) {
    if (!fv_has(i, k)) return fv_infer_fail(i, "%s is missing", what);
    for (int d = 0; d < i->in[k].rank; d++)
        if (i->in[k].dim[d] < 1) return fv_infer_fail(i, "%s is empty: %s", what, FV_TEXT(i->in[k]));
    return true;
}

/* Operand k is there and holds floats of this type, which is that of the node's data or parameters. */
static bool expect_floats(fv_infer *i, int k, const char *what, fv_dtype dtype, int min_rank, int max_rank) {
    if (!expect_filled(i, k, what)) return false;
    fv_type t = i->in[k];
    if (!op_takes(i->op, t.dtype))
        return fv_infer_fail(i, "%s must hold floats (f32%s or f64), it is %s", what,
                             op_takes(i->op, FV_BF16) ? ", bf16, f16" : "", FV_TEXT(t));
    if (t.dtype != dtype && dtype != fv_float_of(i))
        return fv_infer_fail(i, "%s is %s, beside %s it must be %s", what, FV_TEXT(t), fv_dtype_name(fv_float_of(i)),
                             fv_dtype_name(dtype));
    if (t.dtype != dtype)
        return fv_infer_fail(i, "%s is %s, but other operands are %s", what, FV_TEXT(t), fv_dtype_name(dtype));
    if (t.rank >= min_rank && t.rank <= max_rank) return true;
    if (min_rank == max_rank) return fv_infer_fail(i, "%s must have rank %d, it is %s", what, min_rank, FV_TEXT(t));
    return fv_infer_fail(i, "%s must have rank %d to %d, it is %s", what, min_rank, max_rank, FV_TEXT(t));
}

bool fv_expect_float(fv_infer *i, int k, const char *what, int min_rank, int max_rank) {
    return expect_floats(i, k, what, fv_float_of(i), min_rank, max_rank);
}

bool fv_expect_any(fv_infer *i, int k, const char *what) {
    return expect_filled(i, k, what);
}

bool fv_expect_dtype(fv_infer *i, int k, const char *what, fv_dtype dtype, int rank) {
    if (!expect_filled(i, k, what)) return false;
    fv_type t = i->in[k];
    if (t.dtype != dtype) return fv_infer_fail(i, "%s must be %s, it is %s", what, fv_dtype_name(dtype), FV_TEXT(t));
    if (t.rank != rank) return fv_infer_fail(i, "%s must have rank %d, it is %s", what, rank, FV_TEXT(t));
    return true;
}

bool fv_expect_like(fv_infer *i, int k, const char *what, fv_type type, const char *like) {
    if (!expect_filled(i, k, what)) return false;
    if (fv_same_type(i->in[k], type)) return true;
    return fv_infer_fail(i, "%s is %s, expected %s as %s", what, FV_TEXT(i->in[k]), FV_TEXT(type), like);
}

bool fv_expect_given_vector(fv_infer *i, int k, const char *what, int64_t n) {
    if (!expect_floats(i, k, what, fv_wide_of(i), 1, 1)) return false;
    if (i->in[k].dim[0] == n) return true;
    return fv_infer_fail(i, "%s has %lld elements, expected %lld", what, (long long)i->in[k].dim[0], (long long)n);
}

bool fv_expect_vector(fv_infer *i, int k, const char *what, int64_t n) {
    return !fv_has(i, k) || fv_expect_given_vector(i, k, what, n);
}

bool fv_expect_dims(fv_infer *i, const char *what, int rank, const int64_t *dim) {
    if (rank < 0 || rank > FV_MAX_RANK)
        return fv_infer_fail(i, "%s has rank %d, the limit is %d", what, rank, FV_MAX_RANK);
    fv_type t = fv_type_make(fv_float_of(i), rank, dim);
    for (int d = 0; d < rank; d++)
        if (dim[d] < 1)
            return fv_infer_fail(i, "dimension %d of %s is %lld, it must be positive", d, what, (long long)dim[d]);
    if (!fv_type_check(t, NULL)) return fv_infer_fail(i, "%s is too large: %s", what, FV_TEXT(t));
    return true;
}

bool fv_set_result_type(fv_infer *i, int r, fv_type type) {
    if (!fv_type_check(type, NULL)) return fv_infer_fail(i, "the result is too large: %s", FV_TEXT(type));
    i->out[r] = type;
    return true;
}

bool fv_set_result(fv_infer *i, int r, int rank, const int64_t *dim) {
    return fv_set_result_type(i, r, fv_type_make(fv_float_of(i), rank, dim));
}

bool fv_set_wide_result(fv_infer *i, int r, int rank, const int64_t *dim) {
    return fv_set_result_type(i, r, fv_type_make(fv_wide_of(i), rank, dim));
}

bool fv_set_empty(fv_infer *i, int r) {
    return fv_set_result(i, r, 1, (int64_t[]){0});
}

/* ---------------------------------------------------------------- cost rules */

double fv_elements(fv_type type) {
    return type.rank < 0 ? 0 : (double)fv_count(type);
}

/* ---------------------------------------------------------------- gradient rules */

bool fv_only_first_result(fv_scope s, const fv_grad_args *a, const char *what) {
    for (int r = 1; r < a->n_out; r++) {
        if (fv_is_none(a->dout[r])) continue;
        fv_graph_fail(s, FV_E_MODEL, "%s: %s cannot be differentiated", fv_op_get(a->node.op)->name, what);
        return false;
    }
    return !fv_is_none(a->dout[0]);
}

fv_value fv_sum_to(fv_scope s, fv_value dy, fv_type type) {
    fv_type from = fv_typeof(s.g, dy);
    uint32_t axes = 0;
    for (int d = 0; d < from.rank; d++) {
        int own = d - (from.rank - type.rank); /* numpy: shapes are aligned at the last dimension */
        if (own < 0 || (type.dim[own] == 1 && from.dim[d] != 1)) axes |= 1u << d;
    }
    if (axes) dy = fv_sum(s, dy, axes, true);
    if (from.rank != type.rank) dy = fv_reshape(s, dy, type.rank, type.dim);
    return fv_cast(s, dy, type.dtype);
}

fv_value fv_sum_leading(fv_scope s, fv_value dy) {
    int rank = fv_typeof(s.g, dy).rank;
    return rank > 1 ? fv_sum(s, dy, (1u << (rank - 1)) - 1, false) : dy;
}
