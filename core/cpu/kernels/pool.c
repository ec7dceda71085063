/* pool.c: max and average pooling of x [n,h,w,c]. Vectors run along c. */
#include "core/cpu/kernels/tile.h"

typedef struct pool {
    int64_t n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, top, left, bottom, right;
    bool count_include_pad;
    const fv_elem *x; /* backward: dy */
    const uint8_t *place;
    fv_elem *y; /* backward: dx */
    uint8_t *out_place;
} pool;

static pool pool_of(const int64_t *x, const int64_t *y, const fv_pool_attr *a) {
    return (pool){.n = x[0],
                  .h = x[1],
                  .w = x[2],
                  .c = x[3],
                  .oh = y[1],
                  .ow = y[2],
                  .kh = a->kernel[0],
                  .kw = a->kernel[1],
                  .stride_h = a->stride[0] > 0 ? a->stride[0] : a->kernel[0],
                  .stride_w = a->stride[1] > 0 ? a->stride[1] : a->kernel[1],
                  .top = a->pad[0],
                  .left = a->pad[1],
                  .bottom = a->pad[2],
                  .right = a->pad[3],
                  .count_include_pad = a->count_include_pad};
}

/* The window of an output place: its first row and column in x, the part [r0, r1) x [s0, s1) of it that lies in x, and
 * the divisor of the average. With count_include_pad that counts padding too, but not what ceil_mode lets hang over it.
 */
typedef struct window {
    int64_t i, j, r0, r1, s0, s1, divisor;
} window;

static window window_at(const pool *d, int64_t p, int64_t q) {
    window v = {.i = p * d->stride_h - d->top, .j = q * d->stride_w - d->left};
    v.r0 = fv_max64(0, -v.i);
    v.s0 = fv_max64(0, -v.j);
    v.r1 = fv_max64(v.r0, fv_min64(d->kh, d->h - v.i));
    v.s1 = fv_max64(v.s0, fv_min64(d->kw, d->w - v.j));
    const int64_t padded = fv_min64(d->kh, d->h + d->bottom - v.i) * fv_min64(d->kw, d->w + d->right - v.j);
    v.divisor = fv_max64(d->count_include_pad ? padded : (v.r1 - v.r0) * (v.s1 - v.s0), 1);
    return v;
}

/* Every pixel of x lies in exactly one window, and no window hangs over. */
static bool partitions(const pool *d) {
    return d->kh == d->stride_h && d->kw == d->stride_w && !d->top && !d->left && d->oh * d->kh == d->h &&
           d->ow * d->kw == d->w;
}

typedef void (*window_fn)(const pool *d, const window *v, int64_t image, int64_t out, bool once);

/* All windows of row `row` of the n * oh rows of the output. image, out: where the sample and the place start. */
FV_INLINE void windows_of_row(const pool *d, int64_t row, bool once, window_fn f) {
    for (int64_t q = 0; q < d->ow; q++) {
        const window v = window_at(d, row % d->oh, q);
        f(d, &v, row / d->oh * d->h * d->w * d->c, (row * d->ow + q) * d->c, once);
    }
}
/* Where place (r, s) of a window starts in x. */
FV_INLINE int64_t place_at(const pool *d, const window *v, int64_t image, int64_t r, int64_t s) {
    return image + ((v->i + r) * d->w + v->j + s) * d->c;
}

/* ---------------------------------------------------------------- max */

/* The first of the largest wins; NaN wins over numbers. */
FV_INLINE void max_window(const pool *d, const window *v, int64_t image, int64_t out, bool once) {
    const fv_elem *corner = d->x + place_at(d, v, image, v->r0, v->s0);
    const int64_t line = d->w * d->c, across = v->s1 - v->s0, down = across > 0 ? v->r1 - v->r0 : 0;
    const int32_t first = down > 0 ? (int32_t)(v->r0 * d->kw + v->s0) : 0;
    (void)once;
    for (int64_t k = 0; k < d->c; k += FV_VL) {
        const int n = (int)fv_min64(d->c - k, FV_VL);
        const fv_elem *row = corner + k;
        vf best = down > 0 ? vf_load_n(row, n) : vf_set1(-INFINITY);
        vi at = (vi){0} + first, line_at = at;
        for (int64_t r = 0; r < down; r++, row += line, line_at += (int32_t)d->kw) {
            const fv_elem *pixel = row;
            vi here = line_at;
            for (int64_t s = 0; s < across; s++, pixel += d->c, here += 1) {
                vf x = vf_load_n(pixel, n);
                fv_prefetch(pixel);
                vm stays = vm_or(vm_ge(best, x), vm_nan(best));
                best = vf_select(stays, best, x);
                at = (vi)vf_select(stays, (vf)at, (vf)here);
            }
        }
        if (d->y) vf_store_n(d->y + out + k, best, n);
        if (d->out_place) vi_store_bytes(d->out_place + out + k, at, n);
    }
}
static void max_tile(void *arg, int64_t row, int thread) {
    (void)thread;
    windows_of_row(arg, row, false, max_window);
}

void CPU(max_pool2d)(const fv_call *c) {
    pool d = pool_of(c->in[0].type.dim, c->out[0].type.dim, &c->attr->pool);
    d.x = c->in[0].data;
    d.y = c->out[0].data;
    d.out_place = (uint8_t *)fv_result_of(c, 1);
    fv_pool_run(c->pool, d.n * d.oh, max_tile, &d);
}

/* ---------------------------------------------------------------- average */

FV_INLINE void avg_window(const pool *d, const window *v, int64_t image, int64_t out, bool once) {
    const vf part = vf_set1(1.0f / (float)v->divisor);
    (void)once;
    for (int64_t k = 0; k < d->c; k += FV_VL) {
        const int n = (int)fv_min64(d->c - k, FV_VL);
        vf sum = vf_zero();
        for (int64_t r = v->r0; r < v->r1; r++)
            for (int64_t s = v->s0; s < v->s1; s++) sum += vf_load_n(d->x + place_at(d, v, image, r, s) + k, n);
        vf_store_n(d->y + out + k, sum * part, n);
    }
}
static void avg_tile(void *arg, int64_t row, int thread) {
    (void)thread;
    windows_of_row(arg, row, false, avg_window);
}

void CPU(avg_pool2d)(const fv_call *c) {
    pool d = pool_of(c->in[0].type.dim, c->out[0].type.dim, &c->attr->pool);
    d.x = c->in[0].data;
    d.y = c->out[0].data;
    fv_pool_run(c->pool, d.n * d.oh, avg_tile, &d);
}

/* ---------------------------------------------------------------- backward: x is dy, y is dx
 * A window adds its gradient to the pixels it covers; `once`: it is the only one, and writes them. */

FV_INLINE void add_or_write(fv_elem *to, vf g, int n, bool once) {
    vf_store_n(to, once ? g : vf_load_n(to, n) + g, n);
}

FV_INLINE void max_bwd_window(const pool *d, const window *v, int64_t image, int64_t out, bool once) {
    for (int64_t k = 0; k < d->c; k += FV_VL) {
        const int n = (int)fv_min64(d->c - k, FV_VL);
        const vf g = vf_load_n(d->x + out + k, n);
        const vi place = vi_load_bytes(d->place + out + k, n);
        for (int64_t r = v->r0; r < v->r1; r++)
            for (int64_t s = v->s0; s < v->s1; s++) {
                vm won = vm_equal(place, (vi){0} + (int32_t)(r * d->kw + s));
                add_or_write(d->y + place_at(d, v, image, r, s) + k, vf_keep(won, g), n, once);
            }
    }
}
FV_INLINE void avg_bwd_window(const pool *d, const window *v, int64_t image, int64_t out, bool once) {
    const vf part = vf_set1(1.0f / (float)v->divisor);
    for (int64_t k = 0; k < d->c; k += FV_VL) {
        const int n = (int)fv_min64(d->c - k, FV_VL);
        const vf g = vf_load_n(d->x + out + k, n) * part;
        for (int64_t r = v->r0; r < v->r1; r++)
            for (int64_t s = v->s0; s < v->s1; s++) add_or_write(d->y + place_at(d, v, image, r, s) + k, g, n, once);
    }
}

/* Tiles: rows of dy where windows do not overlap, else samples. */
FV_INLINE void backward_tile(const pool *d, int64_t tile, window_fn f) {
    if (partitions(d)) {
        windows_of_row(d, tile, true, f);
        return;
    }
    const int64_t image = d->h * d->w * d->c;
    memset(d->y + tile * image, 0, (size_t)image * sizeof *d->y);
    for (int64_t p = 0; p < d->oh; p++) windows_of_row(d, tile * d->oh + p, false, f);
}
static void max_bwd_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    backward_tile(arg, tile, max_bwd_window);
}
static void avg_bwd_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    backward_tile(arg, tile, avg_bwd_window);
}

static void backward(const fv_call *c, fv_tile_fn fn) {
    pool d = pool_of(c->out[0].type.dim, c->in[0].type.dim, &c->attr->pool_bwd.pool);
    d.x = c->in[0].data;
    d.place = (const uint8_t *)fv_operand(c, 1);
    d.y = c->out[0].data;
    fv_pool_run(c->pool, partitions(&d) ? d.n * d.oh : d.n, fn, &d);
}
void CPU(max_pool2d_bwd)(const fv_call *c) {
    backward(c, max_bwd_tile);
}
void CPU(avg_pool2d_bwd)(const fv_call *c) {
    backward(c, avg_bwd_tile);
}
