/* augment.cu: images u8 [n,h,w,c] and a record per image -> [n,out_h,out_w,c], as core/ref/augment.inc has it. A thread
 * has a pixel. Colour is computed in double, as there; contrast needs the picture's mean grey first. Small pictures
 * have a block each, which finds it by itself. workspace [n] doubles: mean grey of the pictures that are coloured, if
 * they are large */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define SMALL_PICTURE 4096 /* pixels */

struct pictures {
    const uint8_t *images;
    const float *record, *mean, *std;
    int64_t n;
    int h, w, c, oh, ow;
    int colours; /* channels without the alpha channel of 2 or 4 */
    bool reflect;
};

/* Reflect without repeating the edge: for n = 4, ... 2 1 | 0 1 2 3 | 2 1 0 1 ... */
FV_HD int64_t reflected(int64_t i, int64_t n) {
    if (n == 1) return 0;
    const int64_t period = 2 * (n - 1);
    i = (i % period + period) % period;
    return i < n ? i : period - i;
}

/* The source of output pixel (p, q); NULL outside the picture, which is 0. */
__device__ __forceinline__ const uint8_t *source(const pictures &a, int64_t n, const float *record, int p, int q) {
    int64_t i = (int64_t)record[FV_AUG_TOP] + (record[FV_AUG_VFLIP] != 0 ? a.oh - 1 - p : p);
    int64_t j = (int64_t)record[FV_AUG_LEFT] + (record[FV_AUG_FLIP] != 0 ? a.ow - 1 - q : q);
    if (a.reflect) {
        i = reflected(i, a.h);
        j = reflected(j, a.w);
    }
    return i >= 0 && i < a.h && j >= 0 && j < a.w ? a.images + ((n * a.h + i) * a.w + j) * a.c : NULL;
}

__device__ __forceinline__ bool is_coloured(const float *record) {
    return record[FV_AUG_BRIGHTNESS] != 0 || record[FV_AUG_CONTRAST] != 0 || record[FV_AUG_SATURATION] != 0 ||
           record[FV_AUG_HUE] != 0;
}
__device__ __forceinline__ double clamped(double x) {
    return fmin(1.0, fmax(0.0, x));
}
__device__ __forceinline__ double brightened(const float *record, double x) {
    return clamped(x * (1.0 + record[FV_AUG_BRIGHTNESS]));
}

/* ---------------------------------------------------------------- mean grey: a block per picture */

/* Of picture n; all threads of the block must call it. */
__device__ __forceinline__ double mean_grey(const pictures &a, int64_t n, const float *record) {
    double sum = 0;
    for (int at = threadIdx.x; at < a.oh * a.ow; at += blockDim.x) {
        const uint8_t *raw = source(a, n, record, at / a.ow, at % a.ow);
        for (int k = 0; raw && k < a.colours; k++) {
            const double weight = a.colours != 3 ? 1 / (double)a.colours : k == 0 ? 0.299 : k == 1 ? 0.587 : 0.114;
            sum += brightened(record, raw[k] / 255.0) * weight;
        }
    }
    return fv_block_sum(sum) / (double)(a.oh * a.ow);
}

__global__ void mean_grey_kernel(pictures a, double *grey) {
    const int64_t n = blockIdx.x;
    const float *record = a.record + n * FV_AUG_FIELDS;
    if (!is_coloured(record)) return;
    const double mean = mean_grey(a, n, record);
    if (threadIdx.x == 0) grey[n] = mean;
}

/* ---------------------------------------------------------------- colour */

/* To hue, saturation and value, the hue on by some turns, and back (Smith 1978). */
__device__ void turned_hue(double &r, double &g, double &b, double turns) {
    const double most = fmax(r, fmax(g, b)), least = fmin(r, fmin(g, b)), range = most - least;
    if (range == 0 || turns == 0) return; /* grey has no hue */
    double h = most == r ? (g - b) / range : most == g ? 2 + (b - r) / range : 4 + (r - g) / range; /* in sixths */
    h = h / 6 + turns;
    h = 6 * (h - floor(h));
    const double s = range / most, f = h - floor(h);
    const double low = most * (1 - s), falling = most * (1 - s * f), rising = most * (1 - s * (1 - f));
    switch ((int)floor(h) % 6) {
    case 0: r = most, g = rising, b = low; break;
    case 1: r = falling, g = most, b = low; break;
    case 2: r = low, g = most, b = rising; break;
    case 3: r = low, g = falling, b = most; break;
    case 4: r = rising, g = low, b = most; break;
    default: r = most, g = low, b = falling;
    }
}

__device__ __forceinline__ double contrasted(const float *record, double grey, double x) {
    return clamped((brightened(record, x) - grey) * (1.0 + record[FV_AUG_CONTRAST]) + grey);
}

__device__ void coloured(const float *record, double grey, double &r, double &g, double &b) {
    const double saturation = 1.0 + record[FV_AUG_SATURATION];
    r = contrasted(record, grey, r);
    g = contrasted(record, grey, g);
    b = contrasted(record, grey, b);
    const double own = 0.299 * r + 0.587 * g + 0.114 * b;
    r = clamped(own + (r - own) * saturation);
    g = clamped(own + (g - own) * saturation);
    b = clamped(own + (b - own) * saturation);
    turned_hue(r, g, b, record[FV_AUG_HUE]);
}

/* ---------------------------------------------------------------- all of it */

__device__ __forceinline__ bool is_cut(const float *record, int p, int q) {
    const int64_t top = (int64_t)record[FV_AUG_CUT_TOP], left = (int64_t)record[FV_AUG_CUT_LEFT];
    return p >= top && p < top + (int64_t)record[FV_AUG_CUT_H] && q >= left && q < left + (int64_t)record[FV_AUG_CUT_W];
}

/* What element e of the picture becomes inside the cut: 0, or noise that depends on the key and on e alone. */
__device__ float cut_value(const float *record, int64_t e) {
    if (record[FV_AUG_CUT_NOISE] == 0) return 0;
    const fv_philox words = fv_draw((uint64_t)record[FV_AUG_CUT_NOISE], (uint64_t)e, 0, 0, 0);
    const double u = ((double)words.v[0] + 0.5) * (1.0 / 4294967296.0);
    const double v = ((double)words.v[1] + 0.5) * (1.0 / 4294967296.0);
    return (float)(sqrt(-2.0 * log(u)) * cospi(2 * v)); /* fv_normal() */
}

/* The colours of a coloured pixel. */
template <typename E>
__device__ void put_coloured(const pictures &a, const float *record, double grey, const uint8_t *raw, E *y) {
    if (a.colours == 3) {
        double r = raw ? raw[0] / 255.0 : 0, g = raw ? raw[1] / 255.0 : 0, b = raw ? raw[2] / 255.0 : 0;
        coloured(record, grey, r, g, b);
        fv_put(y, (float)((r - a.mean[0]) / a.std[0]));
        fv_put(y + 1, (float)((g - a.mean[1]) / a.std[1]));
        fv_put(y + 2, (float)((b - a.mean[2]) / a.std[2]));
        return;
    }
    for (int k = 0; k < a.colours; k++)
        fv_put(y + k, (float)((contrasted(record, grey, raw ? raw[k] / 255.0 : 0) - a.mean[k]) / a.std[k]));
}

/* Pixel `at` of picture n. */
template <typename E>
__device__ __forceinline__ void put_pixel(const pictures &a, int64_t n, int at, const float *record, double grey,
                                          E *y) {
    const int p = at / a.ow, q = at - p * a.ow;
    E *own = y + (n * a.oh * a.ow + at) * a.c;
    if (is_cut(record, p, q)) {
        for (int k = 0; k < a.c; k++) fv_put(own + k, cut_value(record, (int64_t)at * a.c + k));
        return;
    }
    const uint8_t *raw = source(a, n, record, p, q);
    int k = 0;
    if (is_coloured(record)) {
        put_coloured(a, record, grey, raw, own);
        k = a.colours;
    }
    for (; k < a.c; k++) fv_put(own + k, ((raw ? raw[k] / 255.0f : 0.0f) - a.mean[k]) / a.std[k]);
}

template <typename E> __global__ void augment_kernel(pictures a, const double *grey, E *y) {
    const int64_t pixels = (int64_t)a.oh * a.ow;
    for (int64_t i = FV_FIRST; i < a.n * pixels; i += FV_STRIDE) {
        const int64_t n = i / pixels;
        const float *record = a.record + n * FV_AUG_FIELDS;
        put_pixel(a, n, (int)(i - n * pixels), record, is_coloured(record) ? grey[n] : 0, y);
    }
}
/* A block per picture. */
template <typename E> __global__ void augment_small_kernel(pictures a, E *y) {
    const int64_t n = blockIdx.x;
    const float *record = a.record + n * FV_AUG_FIELDS;
    const double grey = is_coloured(record) ? mean_grey(a, n, record) : 0;
    for (int at = threadIdx.x; at < a.oh * a.ow; at += blockDim.x) put_pixel(a, n, at, record, grey, y);
}

size_t fv_cuda_augment_workspace(const fv_graph *g, const fv_node *node) {
    return (size_t)fv_operand_type(g, node, 0)->dim[0] * sizeof(double);
}

cudaError_t fv_cuda_augment(const fv_cuda_call *c) {
    const int64_t *in = c->in[0].type.dim, *out = c->out[0].type.dim;
    pictures a;
    a.images = static_cast<const uint8_t *>(c->in[0].data);
    a.record = static_cast<const float *>(c->in[1].data);
    a.mean = static_cast<const float *>(c->in[2].data);
    a.std = static_cast<const float *>(c->in[3].data);
    a.n = in[0];
    a.h = (int)in[1];
    a.w = (int)in[2];
    a.c = (int)in[3];
    a.oh = (int)out[1];
    a.ow = (int)out[2];
    a.colours = a.c == 2 || a.c == 4 ? a.c - 1 : a.c;
    a.reflect = c->attr->augment.pad_mode == FV_PAD_REFLECT;
    double *grey = static_cast<double *>(c->workspace);
    if (a.n > 0 && (int64_t)a.oh * a.ow <= SMALL_PICTURE) {
        FV_LAUNCH(augment_small_kernel<float>, (unsigned)a.n, FV_THREADS, 0, c->stream, a, fv_result_of(c, 0));
        return cudaGetLastError();
    }
    FV_LAUNCH(mean_grey_kernel, (unsigned)fv_most(a.n, 1), FV_THREADS, 0, c->stream, a, grey);
    FV_LAUNCH(augment_kernel<float>, fv_blocks(a.n * a.oh * a.ow, FV_THREADS), FV_THREADS, 0, c->stream, a, grey,
              static_cast<float *>(c->out[0].data));
    return cudaGetLastError();
}

/* ---------------------------------------------------------------- gather: rows of `units` elements of any type */

template <typename E>
__global__ void gather_rows_kernel(const E *table, const int32_t *index, E *y, int64_t n, int64_t rows, int64_t units,
                                   fv_cuda_fault *fault, int node) {
    for (int64_t i = FV_FIRST; i < n * units; i += FV_STRIDE) {
        const int64_t row = i / units, at = i - row * units, from = index[row];
        const bool there = from >= 0 && from < rows;
        if (!there && at == 0) fv_fault(fault, FV_CUDA_FAULT_INDEX, node, from, row);
        y[i] = there ? table[from * units + at] : E{};
    }
}

template <typename E> static cudaError_t gather_rows(const fv_cuda_call *c, int64_t bytes) {
    const int64_t n = c->in[1].type.dim[0], units = bytes / (int64_t)sizeof(E);
    FV_LAUNCH(gather_rows_kernel<E>, fv_blocks(n * units, FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<const E *>(c->in[0].data), static_cast<const int32_t *>(c->in[1].data),
              static_cast<E *>(c->out[0].data), n, c->in[0].type.dim[0], units, c->fault, c->node_index);
    return cudaGetLastError();
}

/* In pieces as wide as rows allow. */
cudaError_t fv_cuda_gather(const fv_cuda_call *c) {
    const int64_t bytes = (int64_t)fv_bytes(c->in[0].type) / c->in[0].type.dim[0];
    return bytes % 16 == 0  ? gather_rows<uint4>(c, bytes)
           : bytes % 4 == 0 ? gather_rows<uint32_t>(c, bytes)
                            : gather_rows<uint8_t>(c, bytes);
}
