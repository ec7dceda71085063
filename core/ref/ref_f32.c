/* ref_f32.c: the reference kernels for float. */
#include "core/ref/ref.h"

#define real float
#define REF(name) ref_f32_##name
#include "core/ref/kernels.inc"

const fv_kernel fv_ref_f32_kernels[FV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) [FV_OP_##ENUM] = REF(name),
#include "core/ops.def"
};
