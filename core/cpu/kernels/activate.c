/* activate.c: activations applied by kernels of other operations (activate.h). */
#include "core/cpu/kernels/activate.h"

#include "core/cpu/kernels/act.h"
#include "core/cpu/kernels/tile.h"

FV_INLINE void map(const float *x, float *y, int64_t count, float slope, vf (*f)(vf x, vf alpha)) {
    const vf alpha = vf_set1(slope);
    int64_t i = 0;
    for (; i + FV_VL <= count; i += FV_VL) vf_store(y + i, f(vf_load(x + i), alpha));
    const int n = (int)(count - i);
    if (n) vf_store_n(y + i, f(vf_load_n(x + i, n), alpha), n);
}

void CPU(activate)(const fv_activation_attr *a, const float *x, float *y, int64_t count) {
    const float alpha = (float)a->alpha;
    switch (a->kind) {
    case FV_ACT_RELU: map(x, y, count, alpha, act_relu); break;
    case FV_ACT_GELU: map(x, y, count, alpha, act_gelu); break;
    case FV_ACT_GELU_TANH: map(x, y, count, alpha, act_gelu_tanh); break;
    case FV_ACT_SILU: map(x, y, count, alpha, act_silu); break;
    default: map(x, y, count, alpha, act_hardswish); break;
    }
}

FV_INLINE void map_slopes(const fv_slope_tile *t, float slope, vf (*f)(vf dy, vf x, vf alpha)) {
    const vf alpha = vf_set1(slope);
    for (int64_t r = 0; r < t->rows; r++) {
        const float *dy = t->dy + r * t->dy_pitch, *x = t->x + r * t->pitch;
        float *dx = t->dx + r * t->pitch;
        int64_t i = 0;
        for (; i + FV_VL <= t->columns; i += FV_VL) vf_store(dx + i, f(vf_load(dy + i), vf_load(x + i), alpha));
        const int n = (int)(t->columns - i);
        if (n) vf_store_n(dx + i, f(vf_load_n(dy + i, n), vf_load_n(x + i, n), alpha), n);
    }
}

void CPU(activate_slopes)(const fv_activation_attr *a, const fv_slope_tile *t) {
    const float alpha = (float)a->alpha;
    switch (a->kind) {
    case FV_ACT_GELU: map_slopes(t, alpha, act_gelu_bwd); break;
    case FV_ACT_GELU_TANH: map_slopes(t, alpha, act_gelu_tanh_bwd); break;
    case FV_ACT_SILU: map_slopes(t, alpha, act_silu_bwd); break;
    default: map_slopes(t, alpha, act_hardswish_bwd); break;
    }
}
