/* conv_depthwise.cu: convolutions whose groups have one input channel (and kg output channels). A thread has V channels
 * of a pixel, as many as 16 bytes hold where kg is 1 and the channels are a multiple of that, else one; neighbours have
 * neighbouring channels.
 *
 *   weight   a block: 32 output channels x 8 rows of threads, one tap of the window, one slice of the outputs;
 *            slices are added in order.   workspace [slices] [k] [r s] floats */
#include "cuda/kernels/conv.cuh"

#define MOST_SLICES 64

/* Vector i of [n,h,w,c], V channels each, in four indices; c: its first channel. */
struct indices4 {
    int64_t pixel; /* n * h * w */
    int n, i, j, c;
};
template <int V> FV_HD indices4 indices_at(int64_t flat, int h, int w, int c) {
    indices4 v;
    v.pixel = flat / (c / V);
    v.c = (int)(flat - v.pixel * (c / V)) * V;
    const int64_t row = v.pixel / w;
    v.j = (int)(v.pixel - row * w);
    v.n = (int)(row / h);
    v.i = (int)(row - (int64_t)v.n * h);
    return v;
}

template <typename E, int V>
__global__ void depthwise_forward_kernel(const E *x, const E *w, const float *bias, E *y, fv_conv d) {
    const int64_t count = (int64_t)d.n * d.oh * d.ow * d.k / V;
    for (int64_t o = FV_FIRST; o < count; o += FV_STRIDE) {
        const indices4 at = indices_at<V>(o, d.oh, d.ow, d.k);
        const E *own = x + (int64_t)at.n * d.h * d.w * d.c + at.c / d.kg, *taps = w + (int64_t)at.c * d.r * d.s;
        const int top = at.i * d.stride_h - d.top, left = at.j * d.stride_w - d.left;
        fv_some<V> sum;
#pragma unroll
        for (int k = 0; k < V; k++) sum.v[k] = bias ? bias[at.c + k] : 0.0f;
        for (int r = 0; r < d.r; r++)
            for (int s = 0; s < d.s; s++) {
                const int i = top + r * d.dilation_h, j = left + s * d.dilation_w;
                if (i < 0 || i >= d.h || j < 0 || j >= d.w) continue;
                const fv_some<V> v = fv_load<V>(own, ((int64_t)i * d.w + j) * d.c);
#pragma unroll
                for (int k = 0; k < V; k++) sum.v[k] = fmaf(v.v[k], fv_get(taps + (k * d.r + r) * d.s + s), sum.v[k]);
            }
        fv_save<V>(y, V * o, sum);
    }
}

/* V > 1: kg is 1. */
template <typename E, int V> __global__ void depthwise_data_kernel(const E *dy, const E *w, E *dx, fv_conv d) {
    const int64_t count = (int64_t)d.n * d.h * d.w * d.c / V;
    for (int64_t e = FV_FIRST; e < count; e += FV_STRIDE) {
        const indices4 at = indices_at<V>(e, d.h, d.w, d.c);
        const E *own = dy + (int64_t)at.n * d.oh * d.ow * d.k;
        fv_some<V> sum = {};
        for (int r = 0; r < d.r; r++)
            for (int s = 0; s < d.s; s++) {
                const int up = at.i + d.top - r * d.dilation_h, across = at.j + d.left - s * d.dilation_w;
                if (up < 0 || up % d.stride_h || across < 0 || across % d.stride_w) continue;
                const int p = up / d.stride_h, q = across / d.stride_w;
                if (p >= d.oh || q >= d.ow) continue;
                for (int k = at.c * d.kg; k < (at.c + 1) * d.kg; k++) {
                    const fv_some<V> g = fv_load<V>(own, ((int64_t)p * d.ow + q) * d.k + k);
#pragma unroll
                    for (int j = 0; j < V; j++)
                        sum.v[j] = fmaf(g.v[j], fv_get(w + ((int64_t)(k + j) * d.r + r) * d.s + s), sum.v[j]);
                }
            }
        fv_save<V>(dx, V * e, sum);
    }
}

struct weight_cut {
    int64_t outputs, slice;
    int slices;
};
static weight_cut weight_cut_of(const fv_conv &d) {
    weight_cut v;
    v.outputs = (int64_t)d.n * d.oh * d.ow;
    v.slice = fv_most(256, fv_up(v.outputs, MOST_SLICES));
    v.slices = (int)fv_most(1, fv_up(v.outputs, v.slice));
    return v;
}

template <typename E>
__global__ void depthwise_weight_kernel(const E *dy, const E *x, float *partial, fv_conv d, weight_cut v) {
    __shared__ float part[8][32];
    const int k = (int)blockIdx.x * 32 + (int)threadIdx.x, tap = (int)blockIdx.z, r = tap / d.s, s = tap % d.s;
    const int64_t begin = blockIdx.y * v.slice, end = fv_least(begin + v.slice, v.outputs);
    float sum = 0;
    for (int64_t o = begin + threadIdx.y; k < d.k && o < end; o += 8) {
        const int64_t row = o / d.ow, n = row / d.oh;
        const int i = (int)(row - n * d.oh) * d.stride_h - d.top + r * d.dilation_h;
        const int j = (int)(o - row * d.ow) * d.stride_w - d.left + s * d.dilation_w;
        if (i < 0 || i >= d.h || j < 0 || j >= d.w) continue;
        sum = fmaf(fv_get(dy + o * d.k + k), fv_get(x + ((n * d.h + i) * d.w + j) * d.c + k / d.kg), sum);
    }
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y != 0 || k >= d.k) return;
    for (int t = 1; t < 8; t++) sum += part[t][threadIdx.x];
    partial[((int64_t)blockIdx.y * d.k + k) * d.r * d.s + tap] = sum;
}

__global__ void depthwise_add_slices_kernel(const float *partial, float *dw, int64_t count, int slices) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) {
        float sum = 0;
#pragma unroll 8
        for (int s = 0; s < slices; s++) sum += partial[s * count + i];
        dw[i] = sum;
    }
}

template <typename E> static bool is_wide(const fv_conv &d) {
    return d.kg == 1 && d.c % FV_WIDE<E> == 0;
}

template <typename E, int V> static cudaError_t forward_by(const fv_cuda_call *c, const fv_conv &d) {
    FV_LAUNCH((depthwise_forward_kernel<E, V>), fv_blocks(fv_count(c->out[0].type), V * FV_THREADS), FV_THREADS, 0,
              c->stream, fv_operand<E>(c, 0), fv_operand<E>(c, 1), fv_operand(c, 2), fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
template <typename E> static cudaError_t forward(const fv_cuda_call *c, const fv_conv &d) {
    return is_wide<E>(d) ? forward_by<E, FV_WIDE<E>>(c, d) : forward_by<E, 1>(c, d);
}

template <typename E, int V> static cudaError_t data_by(const fv_cuda_call *c, const fv_conv &d) {
    FV_LAUNCH((depthwise_data_kernel<E, V>), fv_blocks(fv_count(c->out[0].type), V * FV_THREADS), FV_THREADS, 0,
              c->stream, fv_operand<E>(c, 0), fv_operand<E>(c, 1), fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}
template <typename E> static cudaError_t data(const fv_cuda_call *c, const fv_conv &d) {
    return is_wide<E>(d) ? data_by<E, FV_WIDE<E>>(c, d) : data_by<E, 1>(c, d);
}

/* The gradient of weights is float32, whatever it is made of. */
template <typename E> static cudaError_t weight(const fv_cuda_call *c, const fv_conv &d) {
    const weight_cut v = weight_cut_of(d);
    const int64_t count = (int64_t)d.k * d.r * d.s;
    float *partial = static_cast<float *>(c->workspace);
    if (d.r * d.s > 65535) return cudaErrorInvalidValue;
    FV_LAUNCH(depthwise_weight_kernel<E>, dim3((unsigned)fv_up(d.k, 32), (unsigned)v.slices, (unsigned)(d.r * d.s)),
              dim3(32, 8), 0, c->stream, fv_operand<E>(c, 0), fv_operand<E>(c, 1), partial, d, v);
    FV_LAUNCH(depthwise_add_slices_kernel, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, partial,
              fv_result_of(c, 0), count, v.slices);
    return cudaGetLastError();
}

cudaError_t fv_depthwise_forward(const fv_cuda_call *c, const fv_conv &d) {
    return FV_BY_TYPE(c->in[0], forward, c, d);
}
cudaError_t fv_depthwise_data(const fv_cuda_call *c, const fv_conv &d) {
    return FV_BY_TYPE(c->in[0], data, c, d);
}
cudaError_t fv_depthwise_weight(const fv_cuda_call *c, const fv_conv &d) {
    return FV_BY_TYPE(c->in[0], weight, c, d);
}

size_t fv_depthwise_workspace(const fv_conv &d) {
    return (size_t)weight_cut_of(d).slices * (size_t)d.k * (size_t)(d.r * d.s) * sizeof(float);
}
