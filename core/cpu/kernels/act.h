/* act.h: activations of vectors and their gradients, for the kernels of activations and for those that apply one at the
 * end of their own work. */
#ifndef FV_CORE_CPU_KERNELS_ACT_H
#define FV_CORE_CPU_KERNELS_ACT_H

#include "core/cpu/cpu.h"
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

#if FV_AVX512
enum { GELU_CDF, GELU_SLOPE }; /* of fv_gelu_pieces */
/* f(a), a >= 0, by the polynomial of the piece that a lies in: two registers hold a coefficient of all 32, an
 * instruction picks a lane's. NaN stays; nothing of meaning from 5.9 on, where f is 0. */
FV_INLINE vf act_gelu_piece(vf a, const int which) {
    const vf magic = vf_set1(12582912.0f); /* as in vf_exp */
    const float(*c)[32] = fv_gelu_pieces[which];
    const vf t = vf_fma(a, vf_set1(1.0f / 0.1875f), magic), r = vf_fma(t - magic, vf_set1(-0.1875f), a);
    vf p = vf_of_32(c[4], (vi)t);
    for (int k = 3; k >= 0; k--) p = vf_fma(p, r, vf_of_32(c[k], (vi)t));
    return p;
}
#endif
/* GELU'(x) */
FV_INLINE vf act_gelu_slope(vf x) {
#if FV_AVX512
    const vf a = vf_abs(x), p = vf_select(vm_ge(a, vf_set1(5.9f)), vf_zero(), act_gelu_piece(a, GELU_SLOPE));
    return vf_select(vm_gt(x, vf_zero()), vf_set1(1.0f) - p, p);
#else
    vf density, cdf = vf_normal_cdf(x, &density);
    return vf_fma(x * vf_set1(0.398942280f), density, cdf); /* 1 / sqrt(2 pi) */
#endif
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
#if FV_AVX512
    /* max(x, 0) - |x| P(N(0,1) <= -|x|) */
    const vf a = vf_abs(x), line = vf_max(vf_zero(), x);
    return vf_fnma_where(vm_lt(a, vf_set1(5.9f)), a, act_gelu_piece(a, GELU_CDF), line);
#else
    vf density;
    return x * vf_normal_cdf(x, &density);
#endif
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
    return dy * act_gelu_slope(x);
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
