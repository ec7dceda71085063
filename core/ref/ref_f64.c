/* ref_f64.c: the reference kernels for double. */
#include "core/ref/ref.h"

#define real double
#define REF(name) ref_f64_##name
#include "core/ref/kernels.inc"

const fv_kernel fv_ref_f64_kernels[FV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) [FV_OP_##ENUM] = REF(name),
#include "core/ops.def"
};
