/* conv.cu: convolution and its gradients as implicit GEMM (the path that needs no library): any stride, dilation,
 * padding and groups. A batch of products is the groups.
 *
 *              m            n            k                a                 b
 *   forward    n, oh, ow    kg           r, s, cg         pixels of x       w
 *   data       n, h, w      cg           r, s, kg         outputs in dy     w
 *   weight     kg           r, s, cg     n, oh, ow        dy                pixels of x */
#include "cuda/kernels/conv.cuh"
#include "cuda/kernels/kernels.h"

/* Divisors of the indices above. */
struct conv_indices {
    fv_divisor width, height; /* of the pixels that m or k runs over */
    fv_divisor inner, s;      /* channels per group and columns of the window */
};

/* Where pixels of x lie for an output, before the window moves. */
struct pixel {
    int64_t base; /* of the picture, at the group's first channel */
    int i, j;
};
struct tap_of_window {
    int i, j, c; /* rows and columns from the window's origin, channel of the group */
};

FV_HD tap_of_window window_tap(const fv_conv &d, const conv_indices &x, int k) {
    tap_of_window t;
    int s;
    const int rest = fv_split(k, x.inner, &t.c), r = fv_split(rest, x.s, &s);
    t.i = r * d.dilation_h;
    t.j = s * d.dilation_w;
    return t;
}
FV_HD pixel output_pixel(const fv_conv &d, const conv_indices &x, int batch, int at) {
    int p, q;
    const int row = fv_split(at, x.width, &q), n = fv_split(row, x.height, &p);
    pixel v;
    v.base = (int64_t)n * d.h * d.w * d.c + batch * d.cg;
    v.i = p * d.stride_h - d.top;
    v.j = q * d.stride_w - d.left;
    return v;
}
template <typename E>
__device__ __forceinline__ float pixel_at(const E *x, const fv_conv &d, const pixel &v, const tap_of_window &t) {
    const int i = v.i + t.i, j = v.j + t.j;
    if ((unsigned)i >= (unsigned)d.h || (unsigned)j >= (unsigned)d.w) return 0;
    return fv_get(x + v.base + ((int64_t)i * d.w + j) * d.c + t.c);
}

/* Forward's a: line = an output, step = a tap of the window. */
template <typename E> struct pixels_by_output {
    static constexpr bool K_FAST = true;
    typedef E Element;
    typedef pixel Line;
    typedef tap_of_window Step;
    const E *x;
    fv_conv d;
    conv_indices index;
    __device__ __forceinline__ Line line(int batch, int m) const { return output_pixel(d, index, batch, m); }
    __device__ __forceinline__ Step step(int, int k) const { return window_tap(d, index, k); }
    __device__ __forceinline__ float at(const Line &l, const Step &s) const { return pixel_at(x, d, l, s); }
};

/* Weight's b: line = a tap of the window, step = an output. */
template <typename E> struct pixels_by_tap {
    static constexpr bool K_FAST = false;
    typedef E Element;
    typedef tap_of_window Line;
    typedef pixel Step;
    const E *x;
    fv_conv d;
    conv_indices index;
    __device__ __forceinline__ Line line(int, int n) const { return window_tap(d, index, n); }
    __device__ __forceinline__ Step step(int batch, int k) const { return output_pixel(d, index, batch, k); }
    __device__ __forceinline__ float at(const Line &l, const Step &s) const { return pixel_at(x, d, s, l); }
};

/* Data's a: line = a pixel of x, step = a tap of the window and an output channel. */
template <typename E> struct outputs_by_pixel {
    static constexpr bool K_FAST = true;
    typedef E Element;
    typedef pixel Line;
    typedef tap_of_window Step;
    const E *dy;
    fv_conv d;
    conv_indices index; /* of the pixels of x; inner = kg */
    fv_divisor stride_h, stride_w;
    __device__ __forceinline__ Line line(int batch, int m) const {
        int i, j;
        const int row = fv_split(m, index.width, &j), n = fv_split(row, index.height, &i);
        Line l;
        l.base = (int64_t)n * d.oh * d.ow * d.k + batch * d.kg;
        l.i = i + d.top;
        l.j = j + d.left;
        return l;
    }
    __device__ __forceinline__ Step step(int, int k) const { return window_tap(d, index, k); }
    __device__ __forceinline__ float at(const Line &l, const Step &s) const {
        const int up = l.i - s.i, across = l.j - s.j;
        int off_h, off_w;
        if (up < 0 || across < 0) return 0;
        const int p = fv_split(up, stride_h, &off_h), q = fv_split(across, stride_w, &off_w);
        if (off_h || off_w || p >= d.oh || q >= d.ow) return 0;
        return fv_get(dy + l.base + ((int64_t)p * d.ow + q) * d.k + s.c);
    }
};

/* Data's b: w seen from k = (r, s, output channel): line = an input channel. */
template <typename E> struct weights_by_tap {
    static constexpr bool K_FAST = false;
    typedef E Element;
    typedef int Line;
    typedef int64_t Step;
    const E *w;
    fv_conv d;
    fv_divisor kg;
    __device__ __forceinline__ Line line(int, int n) const { return n; }
    __device__ __forceinline__ Step step(int batch, int k) const {
        int channel;
        const int tap = fv_split(k, kg, &channel);
        return ((int64_t)(batch * d.kg + channel) * d.r * d.s + tap) * d.cg;
    }
    __device__ __forceinline__ float at(Line l, Step s) const { return fv_get(w + s + l); }
};

static conv_indices indices_of(int height, int width, int inner, int s) {
    return {fv_divisor_of(width), fv_divisor_of(height), fv_divisor_of(inner), fv_divisor_of(s)};
}
static fv_conv conv_of_call(const fv_cuda_call *c) {
    return fv_conv_of_types(c->node->op, c->attr, &c->in[0].type, &c->in[1].type, &c->out[0].type);
}

template <typename E> static cudaError_t forward(const fv_cuda_call *c) {
    const fv_conv d = conv_of_call(c);
    if (fv_is_depthwise(d)) return fv_depthwise_forward(c, d);
    const int64_t window = (int64_t)d.r * d.s * d.cg;
    const pixels_by_output<E> x = {fv_operand<E>(c, 0), d, indices_of(d.oh, d.ow, d.cg, d.s)};
    const fv_matrix<E, true> w = {fv_operand<E>(c, 1), window, 1, {d.groups, 0, d.kg * window}};
    const fv_matrix_out<E> y = {fv_result_of<E>(c, 0), fv_operand(c, 2), d.k, d.kg, 1.0f, {d.groups, 0, d.kg}};
    return fv_gemm(c->stream, x, w, y, (int64_t)d.n * d.oh * d.ow, d.kg, window, d.groups, c->workspace);
}

template <typename E> static cudaError_t data(const fv_cuda_call *c) {
    const fv_conv d = conv_of_call(c);
    if (fv_is_depthwise(d)) return fv_depthwise_data(c, d);
    const outputs_by_pixel<E> dy = {fv_operand<E>(c, 0), d, indices_of(d.h, d.w, d.kg, d.s), fv_divisor_of(d.stride_h),
                                    fv_divisor_of(d.stride_w)};
    const weights_by_tap<E> w = {fv_operand<E>(c, 1), d, fv_divisor_of(d.kg)};
    const fv_matrix_out<E> dx = {fv_result_of<E>(c, 0), NULL, d.c, 0, 1.0f, {d.groups, 0, d.cg}};
    return fv_gemm(c->stream, dy, w, dx, (int64_t)d.n * d.h * d.w, d.cg, (int64_t)d.r * d.s * d.kg, d.groups,
                   c->workspace);
}

/* The gradient of weights is float32, whatever it is made of. */
template <typename E> static cudaError_t weight(const fv_cuda_call *c) {
    const fv_conv d = conv_of_call(c);
    if (fv_is_depthwise(d)) return fv_depthwise_weight(c, d);
    const int64_t window = (int64_t)d.r * d.s * d.cg;
    const fv_matrix<E, false> dy = {fv_operand<E>(c, 0), 1, d.k, {d.groups, 0, d.kg}};
    const pixels_by_tap<E> x = {fv_operand<E>(c, 1), d, indices_of(d.oh, d.ow, d.cg, d.s)};
    const fv_matrix_out<float> dw = {fv_result_of(c, 0), NULL, window, 0, 1.0f, {d.groups, 0, d.kg * window}};
    return fv_gemm(c->stream, dy, x, dw, d.kg, window, (int64_t)d.n * d.oh * d.ow, d.groups, c->workspace);
}

cudaError_t fv_cuda_conv2d(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], forward, c);
}
cudaError_t fv_cuda_conv2d_bwd_data(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], data, c);
}
cudaError_t fv_cuda_conv2d_bwd_weight(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], weight, c);
}

/* ---------------------------------------------------------------- what a node needs */

static fv_conv node_conv(const fv_graph *g, const fv_node *node) {
    return fv_conv_of_types(node->op, &node->attr, fv_operand_type(g, node, 0), fv_operand_type(g, node, 1),
                            &g->values[node->first_result].type);
}

/* m, n, k of the node's product. */
static void conv_product(const fv_conv &d, fv_op op, int64_t *m, int64_t *n, int64_t *k) {
    const int64_t window = (int64_t)d.r * d.s * d.cg, outputs = (int64_t)d.n * d.oh * d.ow;
    switch (op) {
    case FV_OP_CONV2D_BWD_DATA: *m = (int64_t)d.n * d.h * d.w, *n = d.cg, *k = (int64_t)d.r * d.s * d.kg; return;
    case FV_OP_CONV2D_BWD_WEIGHT: *m = d.kg, *n = window, *k = outputs; return;
    default: *m = outputs, *n = d.kg, *k = window;
    }
}

size_t fv_cuda_conv_workspace(const fv_graph *g, const fv_node *node) {
    const fv_conv d = node_conv(g, node);
    int64_t m, n, k;
    if (fv_is_depthwise(d)) return node->op == FV_OP_CONV2D_BWD_WEIGHT ? fv_depthwise_workspace(d) : 0;
    conv_product(d, node->op, &m, &n, &k);
    return fv_gemm_workspace(m, n, k, d.groups);
}

bool fv_cuda_conv_fits(const fv_graph *g, const fv_node *node) {
    const fv_conv d = node_conv(g, node);
    fv_gemm_size s;
    int64_t m, n, k;
    conv_product(d, node->op, &m, &n, &k);
    return fv_is_depthwise(d) || fv_gemm_cut(m, n, k, d.groups, true, &s);
}
