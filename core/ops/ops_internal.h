/* ops_internal.h: what the files of core/ops/ share. Per operation of ops.def there is a shape rule fv_infer_<name>, if
 * it is differentiable a gradient rule fv_grad_<name>, and a cost rule fv_flops_<cost>; table.c collects them.
 *
 * A shape rule validates operands and attributes, completes the attributes, and sets the types of the results. A
 * gradient rule builds the nodes that give d loss / d operand for the operands in a->want. */
#ifndef FV_CORE_OPS_INTERNAL_H
#define FV_CORE_OPS_INTERNAL_H

#include "core/ops.h"

#define FV_DECLARE_GRAD_YES(name) void fv_grad_##name(fv_scope s, const fv_grad_args *a);
#define FV_DECLARE_GRAD_NO(name)
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    bool fv_infer_##name(fv_infer *i); \
    double fv_flops_##cost(const fv_infer *i); \
    FV_DECLARE_GRAD_##diff(name)
#include "core/ops.def"
#undef FV_DECLARE_GRAD_YES
#undef FV_DECLARE_GRAD_NO

/* ---- for shape rules. Those that return bool fail with a message that names `what` */

/* A type as text, alive until the end of the enclosing block. */
#define FV_TEXT(type) fv_type_text((type), (char[96]){0}, 96)

/* The float type of the node: that of its first float operand. All its data has this type. */
fv_dtype fv_float_of(const fv_infer *i);
/* The type of its parameters, statistics and gradients of weights: the same, but f32 beside bf16 and f16. */
fv_dtype fv_wide_of(const fv_infer *i);
/* Operand k is there, holds floats of the node's type, is not empty, and min_rank <= rank <= max_rank. */
bool fv_expect_float(fv_infer *i, int k, const char *what, int min_rank, int max_rank);
/* Operand k is there and not empty. */
bool fv_expect_any(fv_infer *i, int k, const char *what);
/* The same, and it has this element type and rank. */
bool fv_expect_dtype(fv_infer *i, int k, const char *what, fv_dtype dtype, int rank);
/* Operand k is there and has exactly this type, which is that of `like`. */
bool fv_expect_like(fv_infer *i, int k, const char *what, fv_type type, const char *like);
/* Operand k is absent, or holds n floats of the wide type: [n]. */
bool fv_expect_vector(fv_infer *i, int k, const char *what, int64_t n);
/* The same, and it must be there. */
bool fv_expect_given_vector(fv_infer *i, int k, const char *what, int64_t n);
/* A shape given as an attribute: positive dimensions whose product fits. */
bool fv_expect_dims(fv_infer *i, const char *what, int rank, const int64_t *dim);
/* Set the type of result r: of the node's float type / of its wide type / any type. Fails when it does not fit in
 * memory's address range.
 */
bool fv_set_result(fv_infer *i, int r, int rank, const int64_t *dim);
bool fv_set_wide_result(fv_infer *i, int r, int rank, const int64_t *dim);
bool fv_set_result_type(fv_infer *i, int r, fv_type type);
/* Result r stays empty. */
bool fv_set_empty(fv_infer *i, int r);

/* ---- for cost rules */

double fv_elements(fv_type type); /* 0 for an absent operand */

/* ---- for gradient rules */

/* Fail when a gradient flows to a result other than the first: `what` says which results those are. */
bool fv_only_first_result(fv_scope s, const fv_grad_args *a, const char *what);
/* The gradient of a broadcast: sum dy over the dimensions along which `type` was repeated, and give it that shape. */
fv_value fv_sum_to(fv_scope s, fv_value dy, fv_type type);
/* Sum over all but the last dimension: the gradient of a bias. */
fv_value fv_sum_leading(fv_scope s, fv_value dy);

#endif
