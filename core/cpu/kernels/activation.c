/* activation.c: y = act(x) and its gradient. Element-wise, so a result may lie where an operand lies. */
#include "core/cpu/kernels/tile.h"
#include "core/ops.h"

typedef struct act_args {
    const float *a, *b; /* forward: x. Backward: dy and what was saved */
    float *y;
    int64_t count;
    float alpha;
    fv_act_kind kind;
} act_args;

/* ---------------------------------------------------------------- forward */

/* min(max(x + 3, 0), 6) / 6, NaN stays */
FV_INLINE vf hard_gate(vf x) {
    vf t = vf_max(vf_zero(), x + vf_set1(3.0f));
    return vf_min(vf_set1(6.0f), t) * vf_set1(1.0f / 6.0f);
}
/* 2 sqrt(2 / pi) (x + 0.044715 x^3): GELU's tanh form is x * sigmoid of it (Hendrycks & Gimpel 2016) */
FV_INLINE vf gelu_argument(vf x) {
    return x * vf_fma(x * x, vf_set1(0.0713548163f), vf_set1(1.59576912f));
}

FV_INLINE vf relu(vf x, vf alpha) {
    (void)alpha;
    return vf_max(vf_zero(), x);
}
FV_INLINE vf relu6(vf x, vf alpha) {
    return vf_min(vf_set1(6.0f), relu(x, alpha));
}
FV_INLINE vf leaky_relu(vf x, vf alpha) {
    return vf_select(vm_lt(x, vf_zero()), x * alpha, x);
}
FV_INLINE vf gelu(vf x, vf alpha) {
    (void)alpha;
    vf density;
    return x * vf_normal_cdf(x, &density);
}
FV_INLINE vf gelu_tanh(vf x, vf alpha) {
    (void)alpha;
    return x * vf_sigmoid(gelu_argument(x));
}
FV_INLINE vf silu(vf x, vf alpha) {
    (void)alpha;
    return x * vf_sigmoid(x);
}
FV_INLINE vf hardswish(vf x, vf alpha) {
    (void)alpha;
    return x * hard_gate(x);
}
FV_INLINE vf hardsigmoid(vf x, vf alpha) {
    (void)alpha;
    return hard_gate(x);
}
FV_INLINE vf sigmoid(vf x, vf alpha) {
    (void)alpha;
    return vf_sigmoid(x);
}
FV_INLINE vf tanh_(vf x, vf alpha) {
    (void)alpha;
    return vf_tanh(x);
}
FV_INLINE vf identity(vf x, vf alpha) {
    (void)alpha;
    return x;
}

FV_INLINE void map(const act_args *a, fv_range r, vf (*f)(vf x, vf alpha)) {
    const vf alpha = vf_set1(a->alpha);
    int64_t i = r.begin;
    for (; i + FV_VL <= r.end; i += FV_VL) vf_store(a->y + i, f(vf_load(a->a + i), alpha));
    int n = (int)(r.end - i);
    if (n) vf_store_n(a->y + i, f(vf_load_n(a->a + i, n), alpha), n);
}

static void forward_tile(void *arg, int64_t tile, int thread) {
    const act_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    switch (a->kind) {
    case FV_ACT_RELU: map(a, r, relu); break;
    case FV_ACT_RELU6: map(a, r, relu6); break;
    case FV_ACT_LEAKY_RELU: map(a, r, leaky_relu); break;
    case FV_ACT_GELU: map(a, r, gelu); break;
    case FV_ACT_GELU_TANH: map(a, r, gelu_tanh); break;
    case FV_ACT_SILU: map(a, r, silu); break;
    case FV_ACT_HARDSWISH: map(a, r, hardswish); break;
    case FV_ACT_HARDSIGMOID: map(a, r, hardsigmoid); break;
    case FV_ACT_SIGMOID: map(a, r, sigmoid); break;
    case FV_ACT_TANH: map(a, r, tanh_); break;
    case FV_ACT_NONE:
    case FV_ACT_COUNT: map(a, r, identity); break;
    }
}

void CPU(activation)(const fv_call *c) {
    act_args a = {.a = c->in[0].data,
                  .y = c->out[0].data,
                  .count = fv_count(c->out[0].type),
                  .alpha = (float)c->attr->activation.alpha,
                  .kind = c->attr->activation.kind};
    fv_pool_run(c->pool, fv_ceil_div(a.count, FV_TILE), forward_tile, &a);
}

/* ---------------------------------------------------------------- backward: dx = dy * act'(saved) */

FV_INLINE vf relu_bwd(vf dy, vf s, vf alpha) {
    (void)alpha;
    return vf_keep(vm_gt(s, vf_zero()), dy);
}
FV_INLINE vf relu6_bwd(vf dy, vf s, vf alpha) {
    return vf_keep(vm_lt(s, vf_set1(6.0f)), relu_bwd(dy, s, alpha));
}
FV_INLINE vf leaky_relu_bwd(vf dy, vf s, vf alpha) {
    return vf_select(vm_gt(s, vf_zero()), dy, dy * alpha);
}
FV_INLINE vf gelu_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf density, cdf = vf_normal_cdf(x, &density);
    return dy * vf_fma(x * vf_set1(0.398942280f), density, cdf); /* 1 / sqrt(2 pi) */
}
FV_INLINE vf gelu_tanh_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    x = vf_max(vf_set1(-30.0f), vf_min(vf_set1(30.0f), x)); /* beyond, the slope is 0 or 1, and x^3 must not overflow */
    vf t, s = vf_sigmoid_pair(gelu_argument(x), &t);
    vf slope = vf_fma(x * x, vf_set1(3.0f * 0.0713548163f), vf_set1(1.59576912f)); /* of the argument */
    return dy * vf_fma(x * slope, s * t, s);
}
FV_INLINE vf silu_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf t, s = vf_sigmoid_pair(x, &t);
    return dy * vf_fma(x, s * t, s);
}
FV_INLINE vf hardswish_bwd(vf dy, vf x, vf alpha) {
    (void)alpha;
    vf inside = dy * vf_fma(x, vf_set1(1.0f / 3.0f), vf_set1(0.5f));
    vf upper = vf_select(vm_ge(x, vf_set1(3.0f)), dy, inside);
    return vf_keep(vm_gt(x, vf_set1(-3.0f)), upper);
}
FV_INLINE vf hardsigmoid_bwd_output(vf dy, vf y, vf alpha) {
    (void)alpha;
    vf inside = vf_keep(vm_gt(y, vf_zero()), dy * vf_set1(1.0f / 6.0f));
    return vf_keep(vm_lt(y, vf_set1(1.0f)), inside);
}
FV_INLINE vf hardsigmoid_bwd_input(vf dy, vf x, vf alpha) {
    (void)alpha;
    return vf_keep(vm_lt(vf_abs(x), vf_set1(3.0f)), dy * vf_set1(1.0f / 6.0f));
}
FV_INLINE vf sigmoid_bwd(vf dy, vf y, vf alpha) {
    (void)alpha;
    return dy * y * (vf_set1(1.0f) - y);
}
FV_INLINE vf tanh_bwd(vf dy, vf y, vf alpha) {
    (void)alpha;
    return dy * (vf_set1(1.0f) - y) * (vf_set1(1.0f) + y);
}
FV_INLINE vf identity_bwd(vf dy, vf s, vf alpha) {
    (void)s;
    (void)alpha;
    return dy;
}

FV_INLINE void map2(const act_args *a, fv_range r, vf (*f)(vf dy, vf saved, vf alpha)) {
    const vf alpha = vf_set1(a->alpha);
    int64_t i = r.begin;
    for (; i + FV_VL <= r.end; i += FV_VL) {
        fv_prefetch(a->a + i);
        fv_prefetch(a->b + i);
        vf_store(a->y + i, f(vf_load(a->a + i), vf_load(a->b + i), alpha));
    }
    int n = (int)(r.end - i);
    if (n) vf_store_n(a->y + i, f(vf_load_n(a->a + i, n), vf_load_n(a->b + i, n), alpha), n);
}

static void backward_tile(void *arg, int64_t tile, int thread) {
    const act_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    switch (a->kind) {
    case FV_ACT_RELU: map2(a, r, relu_bwd); break;
    case FV_ACT_RELU6: map2(a, r, relu6_bwd); break;
    case FV_ACT_LEAKY_RELU: map2(a, r, leaky_relu_bwd); break;
    case FV_ACT_GELU: map2(a, r, gelu_bwd); break;
    case FV_ACT_GELU_TANH: map2(a, r, gelu_tanh_bwd); break;
    case FV_ACT_SILU: map2(a, r, silu_bwd); break;
    case FV_ACT_HARDSWISH: map2(a, r, hardswish_bwd); break;
    case FV_ACT_HARDSIGMOID:
        if (fv_act_saves_output(a->kind)) map2(a, r, hardsigmoid_bwd_output);
        else map2(a, r, hardsigmoid_bwd_input);
        break;
    case FV_ACT_SIGMOID: map2(a, r, sigmoid_bwd); break;
    case FV_ACT_TANH: map2(a, r, tanh_bwd); break;
    case FV_ACT_NONE:
    case FV_ACT_COUNT: map2(a, r, identity_bwd); break;
    }
}

void CPU(activation_bwd)(const fv_call *c) {
    act_args a = {.a = c->in[0].data,
                  .b = c->in[1].data,
                  .y = c->out[0].data,
                  .count = fv_count(c->out[0].type),
                  .alpha = (float)c->attr->activation.alpha,
                  .kind = c->attr->activation.kind};
    fv_pool_run(c->pool, fv_ceil_div(a.count, FV_TILE), backward_tile, &a);
}
