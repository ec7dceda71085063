/* activation.c: y = act(x) and its gradient. Element-wise, so a result may lie where an operand lies. */
#include "core/cpu/kernels/act.h"
#include "core/cpu/kernels/tile.h"
#include "core/ops.h"

typedef struct act_args {
    const fv_elem *a, *b; /* forward: x. Backward: dy and what was saved */
    fv_elem *y;
    int64_t count;
    float alpha;
    fv_act_kind kind;
} act_args;

/* ---------------------------------------------------------------- forward */

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
    case FV_ACT_RELU: map(a, r, act_relu); break;
    case FV_ACT_RELU6: map(a, r, act_relu6); break;
    case FV_ACT_LEAKY_RELU: map(a, r, act_leaky_relu); break;
    case FV_ACT_GELU: map(a, r, act_gelu); break;
    case FV_ACT_GELU_TANH: map(a, r, act_gelu_tanh); break;
    case FV_ACT_SILU: map(a, r, act_silu); break;
    case FV_ACT_HARDSWISH: map(a, r, act_hardswish); break;
    case FV_ACT_HARDSIGMOID: map(a, r, act_hardsigmoid); break;
    case FV_ACT_SIGMOID: map(a, r, act_sigmoid); break;
    case FV_ACT_TANH: map(a, r, act_tanh); break;
    case FV_ACT_NONE:
    case FV_ACT_COUNT: map(a, r, act_identity); break;
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
    case FV_ACT_RELU: map2(a, r, act_relu_bwd); break;
    case FV_ACT_RELU6: map2(a, r, act_relu6_bwd); break;
    case FV_ACT_LEAKY_RELU: map2(a, r, act_leaky_relu_bwd); break;
    case FV_ACT_GELU: map2(a, r, act_gelu_bwd); break;
    case FV_ACT_GELU_TANH: map2(a, r, act_gelu_tanh_bwd); break;
    case FV_ACT_SILU: map2(a, r, act_silu_bwd); break;
    case FV_ACT_HARDSWISH: map2(a, r, act_hardswish_bwd); break;
    case FV_ACT_HARDSIGMOID:
        if (fv_act_saves_output(a->kind)) map2(a, r, act_hardsigmoid_bwd_output);
        else map2(a, r, act_hardsigmoid_bwd_input);
        break;
    case FV_ACT_SIGMOID: map2(a, r, act_sigmoid_bwd); break;
    case FV_ACT_TANH: map2(a, r, act_tanh_bwd); break;
    case FV_ACT_NONE:
    case FV_ACT_COUNT: map2(a, r, act_identity_bwd); break;
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
