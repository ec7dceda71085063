/* resize.c: nearest and bilinear resizing of x [n,h,w,c] to [n,oh,ow,c], and the transposed reading. */
#include "core/cpu/kernels/tile.h"

/* Where place i of the output looks along an axis: between lo and hi, `high` of the way to hi. */
typedef struct tap {
    int64_t lo, hi;
    float high;
} tap;

/* in, out: sizes of the axis. Half-pixel centres: source = (i + 1/2) * in / out - 1/2. */
static tap tap_at(const fv_resize_attr *a, int64_t i, int64_t in, int64_t out) {
    if (a->mode == FV_RESIZE_NEAREST) return (tap){i * in / out, i * in / out, 0};
    double at = ((double)i + 0.5) * (double)in / (double)out - 0.5;
    if (a->align_corners) at = out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
    if (at < 0) at = 0;
    const int64_t lo = fv_min64((int64_t)at, in - 1);
    return (tap){lo, fv_min64(lo + 1, in - 1), (float)(at - (double)lo)};
}

typedef struct resize_args {
    const fv_resize_attr *attr;
    const float *x;             /* backward: dy */
    float *y;                   /* backward: dx */
    int64_t n, h, w, c, oh, ow; /* h, w: of x and dx */
} resize_args;

FV_INLINE vf mix(vf a, vf b, float high) {
    return vf_fma(b, vf_set1(high), a * vf_set1(1.0f - high));
}

/* A tile is one row of the output. */
static void resize_tile(void *arg, int64_t row, int thread) {
    const resize_args *a = arg;
    const tap v = tap_at(a->attr, row % a->oh, a->h, a->oh);
    const float *image = a->x + row / a->oh * a->h * a->w * a->c;
    const float *upper = image + v.lo * a->w * a->c, *lower = image + v.hi * a->w * a->c;
    (void)thread;
    for (int64_t q = 0; q < a->ow; q++) {
        const tap u = tap_at(a->attr, q, a->w, a->ow);
        float *y = a->y + (row * a->ow + q) * a->c;
        if (a->attr->mode == FV_RESIZE_NEAREST) {
            memcpy(y, upper + u.lo * a->c, (size_t)a->c * sizeof *y);
            continue;
        }
        for (int64_t k = 0; k < a->c; k += FV_VL) {
            const int n = (int)fv_min64(a->c - k, FV_VL);
            const int64_t lo = u.lo * a->c + k, hi = u.hi * a->c + k;
            vf above = mix(vf_load_n(upper + lo, n), vf_load_n(upper + hi, n), u.high);
            vf below = mix(vf_load_n(lower + lo, n), vf_load_n(lower + hi, n), u.high);
            vf_store_n(y + k, mix(above, below, v.high), n);
        }
    }
}

void CPU(resize)(const fv_call *c) {
    const int64_t *x = c->in[0].type.dim, *y = c->out[0].type.dim;
    resize_args a = {&c->attr->resize, c->in[0].data, c->out[0].data, x[0], x[1], x[2], x[3], y[1], y[2]};
    fv_pool_run(c->pool, a.n * a.oh, resize_tile, &a);
}

FV_INLINE void add_scaled(float *to, const float *g, int64_t c, float weight) {
    const vf scale = vf_set1(weight);
    for (int64_t k = 0; k < c; k += FV_VL) {
        const int n = (int)fv_min64(c - k, FV_VL);
        vf_store_n(to + k, vf_fma(vf_load_n(g + k, n), scale, vf_load_n(to + k, n)), n);
    }
}

/* A tile is one sample: output places add to the pixels that they read. */
static void resize_bwd_tile(void *arg, int64_t sample, int thread) {
    const resize_args *a = arg;
    float *dx = a->y + sample * a->h * a->w * a->c;
    (void)thread;
    memset(dx, 0, (size_t)(a->h * a->w * a->c) * sizeof *dx);
    for (int64_t p = 0; p < a->oh; p++) {
        const tap v = tap_at(a->attr, p, a->h, a->oh);
        for (int64_t q = 0; q < a->ow; q++) {
            const tap u = tap_at(a->attr, q, a->w, a->ow);
            const float *g = a->x + ((sample * a->oh + p) * a->ow + q) * a->c;
            add_scaled(dx + (v.lo * a->w + u.lo) * a->c, g, a->c, (1 - v.high) * (1 - u.high));
            if (u.high > 0) add_scaled(dx + (v.lo * a->w + u.hi) * a->c, g, a->c, (1 - v.high) * u.high);
            if (v.high > 0) add_scaled(dx + (v.hi * a->w + u.lo) * a->c, g, a->c, v.high * (1 - u.high));
            if (u.high > 0 && v.high > 0) add_scaled(dx + (v.hi * a->w + u.hi) * a->c, g, a->c, v.high * u.high);
        }
    }
}

void CPU(resize_bwd)(const fv_call *c) {
    const int64_t *x = c->out[0].type.dim, *y = c->in[0].type.dim;
    resize_args a = {&c->attr->resize, c->in[0].data, c->out[0].data, x[0], x[1], x[2], x[3], y[1], y[2]};
    fv_pool_run(c->pool, a.n, resize_bwd_tile, &a);
}
