/* act.h: activations of vectors and their gradients, for the kernels of activations and for those that apply one at the
 * end of their own work. */
#ifndef FV_CORE_CPU_KERNELS_ACT_H
#define FV_CORE_CPU_KERNELS_ACT_H

#include "core/cpu/kernels/vec.h"

/* ---------------------------------------------------------------- y = act(x) */

/* min(max(x + 3, 0), 6) / 6, NaN stays */
FV_INLINE vf act_hard_gate(vf x) {
    vf t = vf_max(vf_zero(), x + vf_set1(3.0f));
    return vf_min(vf_set1(6.0f), t) * vf_set1(1.0f / 6.0f);
}
/* 2 sqrt(2 / pi) (x + 0.044715 x^3): GELU's tanh form is x * act_sigmoid of it (Hendrycks & Gimpel 2016) */
FV_INLINE vf act_gelu_argument(vf x) {
    return x * vf_fma(x * x, vf_set1(0.0713548163f), vf_set1(1.59576912f));
}

FV_INLINE vf act_relu(vf x, vf alpha) {
    (void)alpha;
    return vf_max(vf_zero(), x);
}
FV_INLINE vf act_relu6(vf x, vf alpha) {
    return vf_min(vf_set1(6.0f), act_relu(x, alpha));
}
FV_INLINE vf act_leaky_relu(vf x, vf alpha) {
    return vf_select(vm_lt(x, vf_zero()), x * alpha, x);
}
FV_INLINE vf act_gelu(vf x, vf alpha) {
    (void)alpha;
    vf density;
    return x * vf_normal_cdf(x, &density);
}
FV_INLINE vf act_gelu_tanh(vf x, vf alpha) {
    (void)alpha;
    return x * vf_sigmoid(act_gelu_argument(x));
}
FV_INLINE vf act_silu(vf x, vf alpha) {
    (void)alpha;
    return x * vf_sigmoid(x);
}
FV_INLINE vf act_hardswish(vf x, vf alpha) {
    (void)alpha;
    return x * act_hard_gate(x);
}
FV_INLINE vf act_hardsigmoid(vf x, vf alpha) {
    (void)alpha;
    return act_hard_gate(x);
}
FV_INLINE vf act_sigmoid(vf x, vf alpha) {
    (void)alpha;
    return vf_sigmoid(x);
}
FV_INLINE vf act_tanh(vf x, vf alpha) {
    (void)alpha;
    return vf_tanh(x);
}
FV_INLINE vf act_identity(vf x, vf alpha) {
    (void)alpha;
    return x;
}

/* ---------------------------------------------------------------- dx = dy * act'(saved): of x, or of y where that
 * tells it (fv_act_saves_output) */

FV_INLINE vf act_relu_bwd(vf dy, vf s, vf alpha) {
    (void)alpha;
    return vf_keep(vm_gt(s, vf_zero()), dy);
}
FV_INLINE vf act_relu6_bwd(vf dy, vf s, vf alpha) {
    return vf_keep(vm_lt(s, vf_set1(6.0f)), act_relu_bwd(dy, s, alpha));
}
FV_INLINE vf act_leaky_relu_bwd(vf dy, vf s, vf alpha) {
    return vf_select(vm_gt(s, vf_zero()), dy, dy * alpha);
}
FV_INLINE vf act_gelu_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf density, cdf = vf_normal_cdf(x, &density);
    return dy * vf_fma(x * vf_set1(0.398942280f), density, cdf); /* 1 / sqrt(2 pi) */
}
FV_INLINE vf act_gelu_tanh_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    x = vf_max(vf_set1(-30.0f), vf_min(vf_set1(30.0f), x)); /* beyond, the slope is 0 or 1, and x^3 must not overflow */
    vf t, s = vf_sigmoid_pair(act_gelu_argument(x), &t);
    vf slope = vf_fma(x * x, vf_set1(3.0f * 0.0713548163f), vf_set1(1.59576912f)); /* of the argument */
    return dy * vf_fma(x * slope, s * t, s);
}
FV_INLINE vf act_silu_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf t, s = vf_sigmoid_pair(x, &t);
    return dy * vf_fma(x, s * t, s);
}
FV_INLINE vf act_hardswish_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf inside = dy * vf_fma(x, vf_set1(1.0f / 3.0f), vf_set1(0.5f));
    vf upper = vf_select(vm_ge(x, vf_set1(3.0f)), dy, inside);
    return vf_keep(vm_gt(x, vf_set1(-3.0f)), upper);
}
FV_INLINE vf act_hardsigmoid_bwd_output(vf dy, vf y, vf alpha) {
    (void)alpha;
    vf inside = vf_keep(vm_gt(y, vf_zero()), dy * vf_set1(1.0f / 6.0f));
    return vf_keep(vm_lt(y, vf_set1(1.0f)), inside);
}
FV_INLINE vf act_hardsigmoid_bwd_input(vf dy, vf x, vf alpha) {
    (void)alpha;
    return vf_keep(vm_lt(vf_abs(x), vf_set1(3.0f)), dy * vf_set1(1.0f / 6.0f));
}
FV_INLINE vf act_sigmoid_bwd(vf dy, vf y, vf alpha) {
    (void)alpha;
    return dy * y * (vf_set1(1.0f) - y);
}
FV_INLINE vf act_tanh_bwd(vf dy, vf y, vf alpha) {
    (void)alpha;
    return dy * (vf_set1(1.0f) - y) * (vf_set1(1.0f) + y);
}
FV_INLINE vf act_identity_bwd(vf dy, vf s, vf alpha) {
    (void)s;
    (void)alpha;
    return dy;
}

#endif
