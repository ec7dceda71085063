/* softmax.c: softmax over the last dimension and its gradient. */
#include "core/cpu/kernels/tile.h"

typedef struct softmax_args {
    const float *x, *dy, *y;
    float *out;
    int64_t rows, c, tile;
} softmax_args;

static float row_max(const float *x, int64_t c) {
    vf top = vf_set1(-INFINITY);
    int64_t j = 0;
    for (; j + FV_VL <= c; j += FV_VL) top = vf_max(vf_load(x + j), top);
    float best = vf_max_lane(top);
    for (; j < c; j++) best = x[j] > best ? x[j] : best;
    return best;
}

static void softmax_tile(void *arg, int64_t tile, int thread) {
    const softmax_args *a = arg;
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const float *x = a->x + i * a->c;
        float *y = a->out + i * a->c;
        const vf top = vf_set1(row_max(x, a->c));
        vf sum = vf_zero();
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int n = (int)fv_min64(a->c - j, FV_VL);
            vf e = vf_first(vf_exp(vf_load_n(x + j, n) - top), n);
            sum += e;
            vf_store_n(y + j, e, n);
        }
        const vf inverse = vf_set1(1.0f / vf_sum(sum));
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int n = (int)fv_min64(a->c - j, FV_VL);
            vf_store_n(y + j, vf_load_n(y + j, n) * inverse, n);
        }
    }
}

void CPU(softmax)(const fv_call *c) {
    const fv_type *t = &c->in[0].type;
    softmax_args a = {.x = c->in[0].data,
                      .out = c->out[0].data,
                      .rows = fv_rows(t),
                      .c = fv_last(t),
                      .tile = fv_tile_rows(fv_last(t))};
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile), softmax_tile, &a);
}

/* dx = y (dy - sum of dy y) */
static void softmax_bwd_tile(void *arg, int64_t tile, int thread) {
    const softmax_args *a = arg;
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const float *dy = a->dy + i * a->c, *y = a->y + i * a->c;
        vf sum = vf_zero();
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int n = (int)fv_min64(a->c - j, FV_VL);
            sum = vf_fma(vf_load_n(dy + j, n), vf_load_n(y + j, n), sum);
        }
        const vf dot = vf_set1(vf_sum(sum));
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int n = (int)fv_min64(a->c - j, FV_VL);
            vf_store_n(a->out + i * a->c + j, vf_load_n(y + j, n) * (vf_load_n(dy + j, n) - dot), n);
        }
    }
}

void CPU(softmax_bwd)(const fv_call *c) {
    const fv_type *t = &c->in[1].type;
    softmax_args a = {.dy = c->in[0].data,
                      .y = c->in[1].data,
                      .out = c->out[0].data,
                      .rows = fv_rows(t),
                      .c = fv_last(t),
                      .tile = fv_tile_rows(fv_last(t))};
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile), softmax_bwd_tile, &a);
}
