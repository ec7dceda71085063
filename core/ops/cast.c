/* cast.c: the same numbers as another float type: f32 to bf16 or f16, rounded to nearest even, and back. */
#include "core/ops/ops_internal.h"

/* float64 is a type of whole graphs, for the reference backend: nothing is cast to it or from it. */
bool fv_infer_cast(fv_infer *i) {
    fv_dtype to = i->attr->cast.to;
    if (!fv_expect_float(i, 0, "x", 0, FV_MAX_RANK)) return false;
    fv_type y = i->in[0];
    if (to != FV_F32 && !fv_is_low(to) && to != y.dtype)
        return fv_infer_fail(i, "a cast gives f32, bf16 or f16, not %s", fv_dtype_name(to));
    if (y.dtype == FV_F64 && to != FV_F64) return fv_infer_fail(i, "f64 is not cast");
    y.dtype = to;
    return fv_set_result_type(i, 0, y);
}

void fv_grad_cast(fv_scope s, const fv_grad_args *a) {
    if (a->want[0]) a->din[0] = fv_cast(s, a->dout[0], fv_typeof(s.g, a->in[0]).dtype);
}

fv_value fv_cast(fv_scope s, fv_value x, fv_dtype to) {
    if (fv_typeof(s.g, x).dtype == to) return x;
    return fv_op_node(s, FV_OP_CAST, &x, 1, &(fv_attr){.cast = {.to = to}});
}
