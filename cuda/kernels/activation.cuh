/* activation.cuh: activations and their slopes in float32; the kind is known when a kernel is compiled. */
#ifndef FV_CUDA_KERNELS_ACTIVATION_CUH
#define FV_CUDA_KERNELS_ACTIVATION_CUH

#include "cuda/kernels/common.cuh"

#define FV_SQRT1_2 0.70710678f   /* 1 / sqrt 2 */
#define FV_SQRT1_2PI 0.39894228f /* 1 / sqrt(2 pi) */
#define FV_SQRT2_PI 0.79788456f  /* sqrt(2 / pi) */
#define FV_GELU_CUBIC 0.044715f  /* Hendrycks & Gimpel 2016 */

FV_HD float fv_sigmoid_of(float x) {
    const float e = expf(-fabsf(x));
    return (x >= 0 ? 1.0f : e) / (1.0f + e);
}

template <int KIND> FV_HD float fv_act(float x, float alpha) {
    switch (KIND) {
    case FV_ACT_RELU: return x < 0 ? 0.0f : x; /* NaN stays NaN */
    case FV_ACT_RELU6: return x < 0 ? 0.0f : x > 6 ? 6.0f : x;
    case FV_ACT_LEAKY_RELU: return x < 0 ? alpha * x : x;
    case FV_ACT_GELU: return 0.5f * x * (1.0f + erff(x * FV_SQRT1_2));
    case FV_ACT_GELU_TANH: return x * fv_sigmoid_of(2 * FV_SQRT2_PI * (x + FV_GELU_CUBIC * x * x * x));
    case FV_ACT_SILU: return x * fv_sigmoid_of(x);
    case FV_ACT_HARDSWISH: return x <= -3 ? 0.0f : x >= 3 ? x : x * (x + 3) / 6;
    case FV_ACT_HARDSIGMOID: return x <= -3 ? 0.0f : x >= 3 ? 1.0f : (x + 3) / 6;
    case FV_ACT_SIGMOID: return fv_sigmoid_of(x);
    case FV_ACT_TANH: return tanhf(x);
    default: return x;
    }
}

/* d act / dx, from the output where fv_act_saves_output says so, else from the input. */
template <int KIND> FV_HD float fv_act_slope(float saved, float alpha) {
    switch (KIND) {
    case FV_ACT_RELU: return saved > 0 ? 1.0f : 0.0f;
    case FV_ACT_RELU6: return saved > 0 && saved < 6 ? 1.0f : 0.0f;
    case FV_ACT_LEAKY_RELU: return saved > 0 ? 1.0f : alpha;
    case FV_ACT_GELU:
        return 0.5f * (1.0f + erff(saved * FV_SQRT1_2)) + saved * FV_SQRT1_2PI * expf(-0.5f * saved * saved);
    case FV_ACT_GELU_TANH: { /* (1 + tanh u) / 2 = sigmoid(2 u), whose slope by u is 2 e / (1 + e)^2 */
        const float u = FV_SQRT2_PI * (saved + FV_GELU_CUBIC * saved * saved * saved), e = expf(-2 * fabsf(u));
        const float by_u = 2 * e / ((1.0f + e) * (1.0f + e));
        return fv_sigmoid_of(2 * u) + saved * by_u * FV_SQRT2_PI * (1.0f + 3 * FV_GELU_CUBIC * saved * saved);
    }
    case FV_ACT_SILU: {
        const float s = fv_sigmoid_of(saved);
        return s * (1.0f + saved * (1.0f - s));
    }
    case FV_ACT_HARDSWISH: return saved <= -3 ? 0.0f : saved >= 3 ? 1.0f : (2 * saved + 3) / 6;
    case FV_ACT_HARDSIGMOID: return saved > 0 && saved < 1 ? 1.0f / 6 : 0.0f;
    case FV_ACT_SIGMOID: return saved * (1.0f - saved);
    case FV_ACT_TANH: return 1.0f - saved * saved;
    default: return 1.0f;
    }
}

/* The kind known only at launch: those that may end a batch norm. */
FV_HD float fv_act_of(int kind, float x) {
    switch (kind) {
    case FV_ACT_RELU: return fv_act<FV_ACT_RELU>(x, 0);
    case FV_ACT_GELU: return fv_act<FV_ACT_GELU>(x, 0);
    case FV_ACT_GELU_TANH: return fv_act<FV_ACT_GELU_TANH>(x, 0);
    case FV_ACT_SILU: return fv_act<FV_ACT_SILU>(x, 0);
    case FV_ACT_HARDSWISH: return fv_act<FV_ACT_HARDSWISH>(x, 0);
    default: return x;
    }
}
FV_HD float fv_act_slope_of(int kind, float saved) {
    switch (kind) {
    case FV_ACT_RELU: return fv_act_slope<FV_ACT_RELU>(saved, 0);
    case FV_ACT_GELU: return fv_act_slope<FV_ACT_GELU>(saved, 0);
    case FV_ACT_GELU_TANH: return fv_act_slope<FV_ACT_GELU_TANH>(saved, 0);
    case FV_ACT_SILU: return fv_act_slope<FV_ACT_SILU>(saved, 0);
    case FV_ACT_HARDSWISH: return fv_act_slope<FV_ACT_HARDSWISH>(saved, 0);
    default: return 1.0f;
    }
}

#endif
