/* pool.cu: pooling and resizing of x [n,h,w,c]. A thread has V channels of a pixel, as many as 16 bytes hold, or one
 * where c is no multiple of that; channels lie side by side, so that the threads of a warp read lines. Gradients
 * gather: each element of dx sums over what it had a part in. */
#include "cuda/kernels/common.cuh"

/* x [n,h,w,c], y [n,oh,ow,c]. */
struct pooling {
    int64_t n, c;
    int h, w, oh, ow, kh, kw, stride_h, stride_w, top, left, bottom, right;
    bool count_padding;
};

static pooling pooling_of(const int64_t *x, const int64_t *y, const fv_pool_attr *a) {
    pooling d;
    d.n = x[0];
    d.c = x[3];
    d.h = (int)x[1];
    d.w = (int)x[2];
    d.oh = (int)y[1];
    d.ow = (int)y[2];
    d.kh = a->kernel[0];
    d.kw = a->kernel[1];
    d.stride_h = a->stride[0] > 0 ? a->stride[0] : a->kernel[0];
    d.stride_w = a->stride[1] > 0 ? a->stride[1] : a->kernel[1];
    d.top = a->pad[0];
    d.left = a->pad[1];
    d.bottom = a->pad[2];
    d.right = a->pad[3];
    d.count_padding = a->count_include_pad;
    return d;
}

/* Vector i of [n,h,w,c] by its four indices, of 64 bits only where they can be; c: its first channel. */
struct place4 {
    int64_t n;
    int i, j;
    int64_t c;
};
template <int V> FV_HD place4 place_of(int64_t flat, int h, int w, int64_t c) {
    place4 p;
    int64_t rest = flat / (c / V);
    p.c = (flat - rest * (c / V)) * V;
    if (rest <= INT32_MAX) {
        const uint32_t at = (uint32_t)rest, row = at / (uint32_t)w;
        p.j = (int)(at - row * (uint32_t)w);
        p.n = row / (uint32_t)h;
        p.i = (int)(row - (uint32_t)p.n * (uint32_t)h);
        return p;
    }
    p.j = (int)(rest % w);
    rest /= w;
    p.i = (int)(rest % h);
    p.n = rest / h;
    return p;
}

/* ---------------------------------------------------------------- max */

/* V places of a window, a byte each. */
template <int V> __device__ __forceinline__ void put_places(uint8_t *to, const int (&won)[V]) {
    uint32_t words[(V + 3) / 4] = {};
#pragma unroll
    for (int j = 0; j < V; j++) words[j / 4] |= (uint32_t)(won[j] > 0 ? won[j] : 0) << 8 * (j % 4);
    if constexpr (V == 8) *reinterpret_cast<uint2 *>(to) = make_uint2(words[0], words[V > 4]);
    else if constexpr (V == 4) *reinterpret_cast<uint32_t *>(to) = words[0];
    else *to = (uint8_t)words[0];
}

/* First maximum of the window in the order (r, s); padding never wins, NaN does. */
template <typename E, int V> __global__ void max_pool_kernel(const E *x, E *y, uint8_t *place, pooling d) {
    const int64_t count = d.n * d.oh * d.ow * d.c / V;
    for (int64_t o = FV_FIRST; o < count; o += FV_STRIDE) {
        const place4 at = place_of<V>(o, d.oh, d.ow, d.c);
        const int top = at.i * d.stride_h - d.top, left = at.j * d.stride_w - d.left;
        fv_some<V> best;
        int won[V];
#pragma unroll
        for (int k = 0; k < V; k++) best.v[k] = -INFINITY, won[k] = -1;
        for (int r = 0; r < d.kh; r++)
            for (int s = 0; s < d.kw; s++) {
                const int i = top + r, j = left + s;
                if (i < 0 || i >= d.h || j < 0 || j >= d.w) continue;
                const fv_some<V> v = fv_load<V>(x, ((at.n * d.h + i) * d.w + j) * d.c + at.c);
#pragma unroll
                for (int k = 0; k < V; k++) {
                    if (won[k] >= 0 && !(v.v[k] > best.v[k]) && !(isnan(v.v[k]) && !isnan(best.v[k]))) continue;
                    best.v[k] = v.v[k];
                    won[k] = r * d.kw + s;
                }
            }
        if (y) fv_save<V>(y, V * o, best);
        if (place) put_places<V>(place + V * o, won);
    }
}

/* The first and the last output row (or column) whose window covers source row i: p * stride - before <= i. */
FV_HD int first_window(int i, int before, int kernel, int stride) {
    const int reach = i + before - kernel + 1;
    return reach > 0 ? (reach + stride - 1) / stride : 0;
}
FV_HD int last_window(int i, int before, int stride, int outputs) {
    const int p = (i + before) / stride;
    return p < outputs - 1 ? p : outputs - 1;
}

/* V places of windows from element i on. */
template <int V> __device__ __forceinline__ void get_places(const uint8_t *from, int64_t i, int (&place)[V]) {
    uint32_t words[(V + 3) / 4];
    if constexpr (V == 8) {
        const uint2 q = *reinterpret_cast<const uint2 *>(from + i);
        words[0] = q.x, words[V > 4] = q.y;
    } else if constexpr (V == 4) {
        words[0] = *reinterpret_cast<const uint32_t *>(from + i);
    } else {
        words[0] = from[i];
    }
#pragma unroll
    for (int j = 0; j < V; j++) place[j] = (int)(words[j / 4] >> 8 * (j % 4) & 255);
}

template <typename E, int V> __global__ void max_pool_bwd_kernel(const E *dy, const uint8_t *places, E *dx, pooling d) {
    const int64_t count = d.n * d.h * d.w * d.c / V;
    for (int64_t e = FV_FIRST; e < count; e += FV_STRIDE) {
        const place4 at = place_of<V>(e, d.h, d.w, d.c);
        fv_some<V> sum = {};
        for (int p = first_window(at.i, d.top, d.kh, d.stride_h); p <= last_window(at.i, d.top, d.stride_h, d.oh); p++)
            for (int q = first_window(at.j, d.left, d.kw, d.stride_w); q <= last_window(at.j, d.left, d.stride_w, d.ow);
                 q++) {
                const int64_t o = ((at.n * d.oh + p) * d.ow + q) * d.c + at.c;
                const int own = (at.i + d.top - p * d.stride_h) * d.kw + at.j + d.left - q * d.stride_w;
                const fv_some<V> g = fv_load<V>(dy, o);
                int place[V];
                get_places<V>(places, o, place);
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] += place[k] == own ? g.v[k] : 0.0f;
            }
        fv_save<V>(dx, V * e, sum);
    }
}

/* fv_cuda_<name> out of name<E, V>, by the type and the channels of the call's tensors. */
#define LAUNCHER(name) \
    template <typename E> static cudaError_t name##_of(const fv_cuda_call *c) { \
        return c->in[0].type.dim[3] % FV_WIDE<E> == 0 ? name<E, FV_WIDE<E>>(c) : name<E, 1>(c); \
    } \
    cudaError_t fv_cuda_##name(const fv_cuda_call *c) { \
        return FV_BY_TYPE(c->in[0], name##_of, c); \
    }
static unsigned blocks_of(const fv_cuda_call *c, int vector) {
    return fv_blocks(fv_count(c->out[0].type), vector * FV_THREADS);
}

template <typename E, int V> static cudaError_t max_pool2d(const fv_cuda_call *c) {
    const pooling d = pooling_of(c->in[0].type.dim, c->out[0].type.dim, &c->attr->pool);
    FV_LAUNCH((max_pool_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), fv_result_of<uint8_t>(c, 1), d);
    return cudaGetLastError();
}
LAUNCHER(max_pool2d)

template <typename E, int V> static cudaError_t max_pool2d_bwd(const fv_cuda_call *c) {
    const pooling d = pooling_of(c->out[0].type.dim, c->in[0].type.dim, &c->attr->pool_bwd.pool);
    FV_LAUNCH((max_pool_bwd_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_operand<uint8_t>(c, 1), fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
LAUNCHER(max_pool2d_bwd)

/* ---------------------------------------------------------------- average */

/* The part of window (p, q) that lies in the picture, and the number its sum is divided by. With count_padding the
 * divisor counts padding too, but not what ceil_mode lets hang over the padding. */
struct window {
    int top, left, bottom, right;
    float divisor;
};
FV_HD window window_at(const pooling &d, int p, int q) {
    window v;
    v.top = p * d.stride_h - d.top;
    v.left = q * d.stride_w - d.left;
    v.bottom = (int)fv_least(v.top + d.kh, d.h + d.bottom);
    v.right = (int)fv_least(v.left + d.kw, d.w + d.right);
    const int padded = (v.bottom - v.top) * (v.right - v.left);
    v.top = (int)fv_most(v.top, 0);
    v.left = (int)fv_most(v.left, 0);
    v.bottom = (int)fv_least(v.bottom, d.h);
    v.right = (int)fv_least(v.right, d.w);
    const int inside = (int)(fv_most(v.bottom - v.top, 0) * fv_most(v.right - v.left, 0));
    v.divisor = (float)fv_most(d.count_padding ? padded : inside, 1);
    return v;
}

template <typename E, int V> __global__ void avg_pool_kernel(const E *x, E *y, pooling d) {
    const int64_t count = d.n * d.oh * d.ow * d.c / V;
    for (int64_t o = FV_FIRST; o < count; o += FV_STRIDE) {
        const place4 at = place_of<V>(o, d.oh, d.ow, d.c);
        const window w = window_at(d, at.i, at.j);
        fv_some<V> sum = {};
        for (int i = w.top; i < w.bottom; i++) {
            fv_some<V> row = {};
            for (int j = w.left; j < w.right; j++) {
                const fv_some<V> v = fv_load<V>(x, ((at.n * d.h + i) * d.w + j) * d.c + at.c);
#pragma unroll
                for (int k = 0; k < V; k++) row.v[k] += v.v[k];
            }
#pragma unroll
            for (int k = 0; k < V; k++) sum.v[k] += row.v[k];
        }
#pragma unroll
        for (int k = 0; k < V; k++) sum.v[k] /= w.divisor;
        fv_save<V>(y, V * o, sum);
    }
}

template <typename E, int V> __global__ void avg_pool_bwd_kernel(const E *dy, E *dx, pooling d) {
    const int64_t count = d.n * d.h * d.w * d.c / V;
    for (int64_t e = FV_FIRST; e < count; e += FV_STRIDE) {
        const place4 at = place_of<V>(e, d.h, d.w, d.c);
        fv_some<V> sum = {};
        for (int p = first_window(at.i, d.top, d.kh, d.stride_h); p <= last_window(at.i, d.top, d.stride_h, d.oh); p++)
            for (int q = first_window(at.j, d.left, d.kw, d.stride_w); q <= last_window(at.j, d.left, d.stride_w, d.ow);
                 q++) {
                const fv_some<V> g = fv_load<V>(dy, ((at.n * d.oh + p) * d.ow + q) * d.c + at.c);
                const float divisor = window_at(d, p, q).divisor;
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] += g.v[k] / divisor;
            }
        fv_save<V>(dx, V * e, sum);
    }
}

template <typename E, int V> static cudaError_t avg_pool2d(const fv_cuda_call *c) {
    const pooling d = pooling_of(c->in[0].type.dim, c->out[0].type.dim, &c->attr->pool);
    FV_LAUNCH((avg_pool_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
LAUNCHER(avg_pool2d)

template <typename E, int V> static cudaError_t avg_pool2d_bwd(const fv_cuda_call *c) {
    const pooling d = pooling_of(c->out[0].type.dim, c->in[0].type.dim, &c->attr->pool_bwd.pool);
    FV_LAUNCH((avg_pool_bwd_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
LAUNCHER(avg_pool2d_bwd)

/* ---------------------------------------------------------------- resize */

/* Where output place i looks: between lo and hi, `high` of the way to hi. `scale` is source places per output place. */
struct resizing {
    int64_t n, c;
    int h, w, oh, ow; /* of the small side, of the large side: x and y in the forward direction */
    bool nearest, align_corners;
};
struct tap {
    int lo, hi;
    float high;
};

FV_HD tap tap_at(const resizing &d, int i, int in, int out) {
    tap t;
    if (d.nearest) {
        t.lo = t.hi = (int)((int64_t)i * in / out);
        t.high = 0;
        return t;
    }
    double at = d.align_corners ? (out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0)
                                : ((double)i + 0.5) * (double)in / (double)out - 0.5;
    if (at < 0) at = 0;
    t.lo = (int)fv_least((int64_t)at, in - 1);
    t.hi = (int)fv_least(t.lo + 1, in - 1);
    t.high = (float)(at - (double)t.lo);
    return t;
}
/* Weight of source place i in a tap. */
FV_HD float weight_in(const tap &t, int i) {
    return (t.lo == i ? 1 - t.high : 0.0f) + (t.hi == i ? t.high : 0.0f);
}

/* Output places [first, last] outside of which no tap can touch source place i: one more on either side than needed. */
FV_HD int first_tap(int i, int in, int out) {
    const int64_t p = (int64_t)(i - 2) * out / in - 1;
    return (int)fv_most(p, 0);
}
FV_HD int last_tap(int i, int in, int out) {
    const int64_t p = (int64_t)(i + 2) * out / in + 2;
    return (int)fv_least(p, out - 1);
}

template <typename E, int V> __global__ void resize_kernel(const E *x, E *y, resizing d) {
    const int64_t count = d.n * d.oh * d.ow * d.c / V;
    for (int64_t o = FV_FIRST; o < count; o += FV_STRIDE) {
        const place4 at = place_of<V>(o, d.oh, d.ow, d.c);
        const tap v = tap_at(d, at.i, d.h, d.oh), u = tap_at(d, at.j, d.w, d.ow);
        const int64_t upper = (at.n * d.h + v.lo) * d.w * d.c + at.c, lower = (at.n * d.h + v.hi) * d.w * d.c + at.c;
        const fv_some<V> a = fv_load<V>(x, upper + u.lo * d.c), b = fv_load<V>(x, upper + u.hi * d.c);
        const fv_some<V> e = fv_load<V>(x, lower + u.lo * d.c), f = fv_load<V>(x, lower + u.hi * d.c);
        fv_some<V> r;
#pragma unroll
        for (int k = 0; k < V; k++)
            r.v[k] = (a.v[k] * (1 - u.high) + b.v[k] * u.high) * (1 - v.high) +
                     (e.v[k] * (1 - u.high) + f.v[k] * u.high) * v.high;
        fv_save<V>(y, V * o, r);
    }
}

template <typename E, int V> __global__ void resize_bwd_kernel(const E *dy, E *dx, resizing d) {
    const int64_t count = d.n * d.h * d.w * d.c / V;
    for (int64_t e = FV_FIRST; e < count; e += FV_STRIDE) {
        const place4 at = place_of<V>(e, d.h, d.w, d.c);
        const bool corners = d.align_corners; /* taps then lie elsewhere: look at all of them */
        const int p0 = corners ? 0 : first_tap(at.i, d.h, d.oh), p1 = corners ? d.oh - 1 : last_tap(at.i, d.h, d.oh);
        const int q0 = corners ? 0 : first_tap(at.j, d.w, d.ow), q1 = corners ? d.ow - 1 : last_tap(at.j, d.w, d.ow);
        fv_some<V> sum = {};
        for (int p = p0; p <= p1; p++) {
            const float down = weight_in(tap_at(d, p, d.h, d.oh), at.i);
            if (down == 0) continue;
            for (int q = q0; q <= q1; q++) {
                const float across = weight_in(tap_at(d, q, d.w, d.ow), at.j);
                if (across == 0) continue;
                const fv_some<V> g = fv_load<V>(dy, ((at.n * d.oh + p) * d.ow + q) * d.c + at.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] += g.v[k] * (down * across);
            }
        }
        fv_save<V>(dx, V * e, sum);
    }
}

static resizing resizing_of(const int64_t *x, const int64_t *y, const fv_resize_attr *a) {
    resizing d;
    d.n = x[0];
    d.c = x[3];
    d.h = (int)x[1];
    d.w = (int)x[2];
    d.oh = (int)y[1];
    d.ow = (int)y[2];
    d.nearest = a->mode == FV_RESIZE_NEAREST;
    d.align_corners = a->align_corners;
    return d;
}

template <typename E, int V> static cudaError_t resize(const fv_cuda_call *c) {
    const resizing d = resizing_of(c->in[0].type.dim, c->out[0].type.dim, &c->attr->resize);
    FV_LAUNCH((resize_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
LAUNCHER(resize)

template <typename E, int V> static cudaError_t resize_bwd(const fv_cuda_call *c) {
    const resizing d = resizing_of(c->out[0].type.dim, c->in[0].type.dim, &c->attr->resize);
    FV_LAUNCH((resize_bwd_kernel<E, V>), blocks_of(c, V), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
LAUNCHER(resize_bwd)
