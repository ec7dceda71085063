/* finish.h: the batch norm behind a convolution, applied to its results in registers or, with activations that need
 * many, where they were just written and still lie in a cache: a pass over memory less. */
#ifndef FV_CORE_CPU_KERNELS_FINISH_H
#define FV_CORE_CPU_KERNELS_FINISH_H

#include "core/cpu/kernels/tile.h"

typedef struct fv_finish {
    const float *mean, *scale, *shift; /* [k] */
    const float *residual;             /* like y; or NULL */
    float *y;                          /* [pixels][k]: the convolution's whole result */
    int64_t k;
    fv_act_kind act;
} fv_finish;

/* In registers: nothing or ReLU. */
FV_INLINE bool fv_finish_is_short(const fv_finish *f) {
    return f && (f->act == FV_ACT_NONE || f->act == FV_ACT_RELU);
}
/* Of the three rows of coefficients, whole cache lines. */
FV_INLINE size_t fv_finish_bytes(int64_t k) {
    return fv_lines((size_t)k * 3 * sizeof(float));
}
/* Channels [first, first + channels) of `pixels` pixels from `pixel` on, in place. f NULL: nothing. */
void CPU(finish)(const fv_finish *f, int64_t pixel, int64_t pixels, int64_t first, int64_t channels);

#endif
