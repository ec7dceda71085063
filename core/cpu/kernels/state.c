/* state.c: operations that change operand 0, a parameter or state tensor, in place. */
#include "core/cpu/kernels/tile.h"

typedef struct state_args {
    float *state;
    const float *value;
    int64_t count;
    float weight, scale;
} state_args;

static state_args state_of(const fv_call *c) {
    return (state_args){.state = c->in[0].data, .value = fv_operand(c, 1), .count = fv_count(c->in[0].type)};
}
static void run(const fv_call *c, fv_tile_fn fn, state_args *a) {
    fv_pool_run(c->pool, fv_ceil_div(a->count, FV_TILE), fn, a);
}

/* Elements of any type. */
void CPU(assign)(const fv_call *c) {
    memmove(c->in[0].data, c->in[1].data, fv_bytes(c->in[0].type));
}

static void accumulate_tile(void *arg, int64_t tile, int thread) {
    const state_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) a->state[i] += a->value[i];
}
void CPU(accumulate)(const fv_call *c) {
    state_args a = state_of(c);
    run(c, accumulate_tile, &a);
}

/* Operand k, if given, is grad_stats' result and says that this step's gradients are not all finite. */
static bool not_finite(const fv_call *c, int k) {
    const float *stats = c->n_in > k ? c->in[k].data : NULL;
    return stats && stats[1] == 0.0f;
}

/* state += weight * (scale * value - state) */
static void lerp_tile(void *arg, int64_t tile, int thread) {
    const state_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    const float weight = a->weight, scale = a->scale;
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) a->state[i] += weight * (scale * a->value[i] - a->state[i]);
}
void CPU(lerp_assign)(const fv_call *c) {
    if (not_finite(c, 2)) return;
    state_args a = state_of(c);
    a.weight = (float)c->attr->lerp.weight;
    a.scale = (float)c->attr->lerp.scale;
    run(c, lerp_tile, &a);
}

static void fill_tile(void *arg, int64_t tile, int thread) {
    const state_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) a->state[i] = a->scale;
}
void CPU(fill)(const fv_call *c) {
    state_args a = state_of(c);
    a.scale = (float)c->attr->scale.add;
    run(c, fill_tile, &a);
}

void CPU(increment)(const fv_call *c) {
    if (not_finite(c, 1)) return;
    int64_t *state = c->in[0].data;
    const int64_t count = fv_count(c->in[0].type);
    for (int64_t i = 0; i < count; i++) state[i] += 1;
}
