/* norm_apply.h: y = act((x - mean) * scale + shift + residual), with which batch norm ends: for kernels that apply it
 * to all of x (batch_norm.c), and to a convolution's results (finish.h). The same bits in both. */
#ifndef FV_CORE_CPU_KERNELS_NORM_APPLY_H
#define FV_CORE_CPU_KERNELS_NORM_APPLY_H

#include "core/cpu/kernels/act.h"
#include "core/cpu/kernels/finish.h"

typedef vf (*fv_act_fn)(vf x, vf alpha);

/* ReLU with alpha 0, nothing with alpha -inf. */
FV_INLINE vf fv_act_floor(vf x, vf alpha) {
    return vf_max(alpha, x);
}
FV_INLINE vf fv_act_floor_of(fv_act_kind act) {
    return vf_set1(act == FV_ACT_RELU ? 0.0f : -INFINITY);
}

FV_INLINE vf fv_norm_apply(vf x, vf mean, vf scale, vf shift) {
    return vf_fma(x - mean, scale, shift);
}

/* Of channel k. The mean is float; what that leaves off goes into the shift. */
typedef struct fv_norm_channel {
    float mean, scale, shift;
} fv_norm_channel;
FV_INLINE fv_norm_channel fv_norm_channel_of(int64_t k, double mean, double var, double eps, const float *gamma,
                                             const float *beta) {
    const double scale = (gamma ? gamma[k] : 1.0) / sqrt(var + eps);
    const double shift = (beta ? beta[k] : 0.0) - (mean - (double)(float)mean) * scale;
    return (fv_norm_channel){(float)mean, (float)scale, (float)shift};
}

#endif
