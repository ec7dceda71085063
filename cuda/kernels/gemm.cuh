/* gemm.cuh: out(m, n) = sum over k of a(m, k) * b(k, n), one product per batch. Operands are any function of their
 * indices, so that convolutions (implicit GEMM), linear layers and attention share one kernel.
 *
 *   block: a tile of T x T results, 16 x 16 threads, each T/16 x T/16 results
 *   k in steps of 16:  registers ─► shared memory [16][T] of each operand ─► registers; the next step is loaded while
 *   this one is multiplied
 *   few results and a long k: k is cut in slices; each leaves its sums in the workspace, added in order afterwards
 *   workspace   [slices] [batch] [m] [n] floats
 *
 * Where an operand is bf16, tensor cores multiply (gemm_mma.cuh), on GPUs that have those for bf16.
 *
 * An operand A is a struct of
 *   Element                   float, fv_bf16 or fv_f16: what at() gives holds no more than that
 *   K_FAST                    neighbours along k are neighbours in memory (else those along m or n are)
 *   Line line(batch, i)       what is known from the row m or the column n; only called for i in range
 *   Step step(batch, k)       what is known from k; only called for k in range
 *   float at(line, step)
 * and an output of put(batch, m, n, value). */
#ifndef FV_CUDA_KERNELS_GEMM_CUH
#define FV_CUDA_KERNELS_GEMM_CUH

#include "cuda/kernels/divide.cuh"

#define GEMM_STEP 16
#define GEMM_BLOCKS 264 /* as many blocks are wanted: two for each multiprocessor of a large GPU */
#define GEMM_MOST_SLICES 64

struct fv_gemm_size {
    int m, n, k, batch;
    int tile, slice, slices; /* slice: steps of k each takes */
};

/* False when a size does not fit the kernel. `sliced`: k may be cut. */
static inline bool fv_gemm_cut(int64_t m, int64_t n, int64_t k, int64_t batch, bool sliced, fv_gemm_size *s) {
    const int64_t most = (int64_t)1 << 30;
    if (m > most || n > most || k > most || batch > 65535) return false;
    const int64_t large = fv_up(m, 128) * fv_up(n, 128) * batch;
    s->m = (int)m;
    s->n = (int)n;
    s->k = (int)k;
    s->batch = (int)batch;
    s->tile = large >= GEMM_BLOCKS ? 128 : 64;
    const int64_t tiles = fv_up(m, s->tile) * fv_up(n, s->tile) * batch;
    const int64_t wanted = fv_most(1, fv_least(GEMM_MOST_SLICES, GEMM_BLOCKS / fv_most(tiles, 1)));
    const int64_t slices = sliced ? fv_most(1, fv_least(wanted, k / 256)) : 1;
    s->slice = (int)(fv_most(1, fv_up(fv_up(k, slices), GEMM_STEP)) * GEMM_STEP); /* k = 0: sums of nothing */
    s->slices = (int)fv_most(1, fv_up(k, s->slice));
    return tiles <= INT32_MAX;
}

static inline size_t fv_gemm_workspace(int64_t m, int64_t n, int64_t k, int64_t batch) {
    fv_gemm_size s;
    if (!fv_gemm_cut(m, n, k, batch, true, &s) || s.slices == 1) return 0;
    return (size_t)s.slices * (size_t)s.batch * (size_t)s.m * (size_t)s.n * sizeof(float);
}

/* ---------------------------------------------------------------- operands and outputs */

/* Which matrix of a batch: b = outer * inner + the inner one. */
struct fv_batching {
    int inner;
    int64_t outer_stride, inner_stride; /* elements */
};
FV_HD int64_t fv_batch_offset(const fv_batching &b, int batch) {
    return (int64_t)(batch / b.inner) * b.outer_stride + (int64_t)(batch % b.inner) * b.inner_stride;
}

/* A matrix in memory: element (i, k) at i * line_stride + k * step_stride; one of the strides is 1. */
template <typename E, bool FAST> struct fv_matrix {
    static constexpr bool K_FAST = FAST;
    typedef E Element;
    typedef int64_t Line;
    typedef int64_t Step;
    const E *data;
    int64_t line_stride, step_stride;
    fv_batching batching;
    __device__ __forceinline__ Line line(int batch, int i) const {
        return fv_batch_offset(batching, batch) + i * line_stride;
    }
    __device__ __forceinline__ Step step(int, int k) const { return k * step_stride; }
    __device__ __forceinline__ float at(Line l, Step s) const { return fv_get(data + l + s); }
};

/* y(m, n) = by * value + bias[n] */
template <typename E> struct fv_matrix_out {
    E *y;
    const float *bias; /* may be null */
    int64_t row;       /* elements from one m to the next */
    int bias_inner;    /* per inner batch */
    float by;
    fv_batching batching;
    __device__ __forceinline__ void put(int batch, int m, int n, float v) const {
        v *= by;
        if (bias) v += bias[(batch % batching.inner) * bias_inner + n];
        fv_put(y + fv_batch_offset(batching, batch) + m * row + n, v);
    }
};

/* ---------------------------------------------------------------- the kernel */

/* What a thread loads of an operand in a step: COUNT elements. K_FAST: of one k, lines 16 apart; else of one line, ks
 * 256 / T apart. */
template <int T, class A, bool FAST = A::K_FAST> struct fv_loader;

template <int T, class A> struct fv_loader<T, A, true> {
    enum { COUNT = T / 16 };
    typename A::Line lines[COUNT];
    unsigned inside; /* bit j: line j exists */
    float v[COUNT];

    __device__ __forceinline__ void begin(const A &a, int batch, int first, int count) {
        inside = 0;
        for (int j = 0; j < COUNT; j++) {
            const int i = first + (int)threadIdx.x / 16 + 16 * j;
            lines[j] = i < count ? a.line(batch, i) : typename A::Line();
            inside |= (unsigned)(i < count) << j;
        }
    }
    __device__ __forceinline__ void load(const A &a, int batch, int k0, int k_end) {
        const int k = k0 + (int)threadIdx.x % 16;
        for (int j = 0; j < COUNT; j++) v[j] = 0;
        if (k >= k_end) return;
        const typename A::Step s = a.step(batch, k);
        for (int j = 0; j < COUNT; j++)
            if (inside >> j & 1) v[j] = a.at(lines[j], s);
    }
    /* Place of v[j] in the step. */
    __device__ __forceinline__ int k(int) const { return (int)threadIdx.x % 16; }
    __device__ __forceinline__ int line(int j) const { return (int)threadIdx.x / 16 + 16 * j; }
};

template <int T, class A> struct fv_loader<T, A, false> {
    enum { COUNT = T / 16, APART = 256 / T };
    typename A::Line own;
    bool inside;
    float v[COUNT];

    __device__ __forceinline__ void begin(const A &a, int batch, int first, int count) {
        const int i = first + (int)threadIdx.x % T;
        inside = i < count;
        own = inside ? a.line(batch, i) : typename A::Line();
    }
    __device__ __forceinline__ void load(const A &a, int batch, int k0, int k_end) {
        for (int j = 0; j < COUNT; j++) {
            const int k = k0 + (int)threadIdx.x / T + APART * j;
            v[j] = inside && k < k_end ? a.at(own, a.step(batch, k)) : 0.0f;
        }
    }
    __device__ __forceinline__ int k(int j) const { return (int)threadIdx.x / T + APART * j; }
    __device__ __forceinline__ int line(int) const { return (int)threadIdx.x % T; }
};

template <int T, class Loader> __device__ __forceinline__ void fv_gemm_store(const Loader &from, float (*to)[T + 4]) {
#pragma unroll
    for (int j = 0; j < Loader::COUNT; j++) to[from.k(j)][from.line(j)] = from.v[j];
}

/* A thread's results lie in groups of four, 64 apart. */
template <int T> __device__ __forceinline__ int fv_gemm_place(int thread, int r) {
    return 4 * thread + r % 4 + 64 * (r / 4);
}

template <int T>
__device__ __forceinline__ void fv_gemm_multiply(const float (*a)[T + 4], const float (*b)[T + 4],
                                                 float (&sum)[T / 16][T / 16]) {
    const int down = (int)threadIdx.x / 16, across = (int)threadIdx.x % 16;
#pragma unroll
    for (int k = 0; k < GEMM_STEP; k++) {
        float l[T / 16], r[T / 16];
#pragma unroll
        for (int g = 0; g < T / 64; g++) {
            *reinterpret_cast<float4 *>(l + 4 * g) = *reinterpret_cast<const float4 *>(&a[k][4 * down + 64 * g]);
            *reinterpret_cast<float4 *>(r + 4 * g) = *reinterpret_cast<const float4 *>(&b[k][4 * across + 64 * g]);
        }
#pragma unroll
        for (int i = 0; i < T / 16; i++)
#pragma unroll
            for (int j = 0; j < T / 16; j++) sum[i][j] = fmaf(l[i], r[j], sum[i][j]);
    }
}

/* One result to its place, or to the sums of its slice. */
template <class C>
__device__ __forceinline__ void fv_gemm_leave(const C &c, const fv_gemm_size &s, float *partial, int batch, int m,
                                              int n, float v) {
    if (m >= s.m || n >= s.n) return;
    if (s.slices == 1) c.put(batch, m, n, v);
    else partial[(((int64_t)blockIdx.y * s.batch + batch) * s.m + m) * s.n + n] = v;
}

template <int T, class A, class B, class C>
__device__ __forceinline__ void fv_gemm_tile(const A &a, const B &b, const C &c, const fv_gemm_size &s,
                                             float *partial) {
    __shared__ __align__(16) float as[GEMM_STEP][T + 4];
    __shared__ __align__(16) float bs[GEMM_STEP][T + 4];
    const int across = (s.n + T - 1) / T, batch = (int)blockIdx.z;
    const int m0 = (int)blockIdx.x / across * T, n0 = (int)blockIdx.x % across * T;
    const int k_begin = (int)blockIdx.y * s.slice, k_end = min(s.k, k_begin + s.slice);
    fv_loader<T, A> from_a;
    fv_loader<T, B> from_b;
    float sum[T / 16][T / 16];
#pragma unroll
    for (int i = 0; i < T / 16; i++)
#pragma unroll
        for (int j = 0; j < T / 16; j++) sum[i][j] = 0;
    from_a.begin(a, batch, m0, s.m);
    from_b.begin(b, batch, n0, s.n);
    from_a.load(a, batch, k_begin, k_end);
    from_b.load(b, batch, k_begin, k_end);
    for (int k0 = k_begin; k0 < k_end; k0 += GEMM_STEP) {
        fv_gemm_store<T>(from_a, as);
        fv_gemm_store<T>(from_b, bs);
        __syncthreads();
        if (k0 + GEMM_STEP < k_end) {
            from_a.load(a, batch, k0 + GEMM_STEP, k_end);
            from_b.load(b, batch, k0 + GEMM_STEP, k_end);
        }
        fv_gemm_multiply<T>(as, bs, sum);
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < T / 16; i++)
#pragma unroll
        for (int j = 0; j < T / 16; j++)
            fv_gemm_leave(c, s, partial, batch, m0 + fv_gemm_place<T>((int)threadIdx.x / 16, i),
                          n0 + fv_gemm_place<T>((int)threadIdx.x % 16, j), sum[i][j]);
}

template <int T, class A, class B, class C>
__global__ void __launch_bounds__(256) gemm_kernel(A a, B b, C c, fv_gemm_size s, float *partial) {
    fv_gemm_tile<T>(a, b, c, s, partial);
}

template <class C> __global__ void gemm_add_slices_kernel(C c, fv_gemm_size s, const float *partial) {
    const int64_t matrix = (int64_t)s.m * s.n, all = matrix * s.batch;
    for (int64_t i = FV_FIRST; i < all; i += FV_STRIDE) {
        float sum = 0;
#pragma unroll 8
        for (int slice = 0; slice < s.slices; slice++) sum += partial[slice * all + i];
        const int batch = (int)(i / matrix);
        const int64_t at = i - batch * matrix;
        c.put(batch, (int)(at / s.n), (int)(at % s.n), sum);
    }
}

#include "cuda/kernels/gemm_mma.cuh"

/* Without a workspace k is not cut. */
template <class A, class B, class C>
static cudaError_t fv_gemm(cudaStream_t stream, const A &a, const B &b, const C &c, int64_t m, int64_t n, int64_t k,
                           int64_t batch, void *workspace) {
    fv_gemm_size s;
    float *partial = static_cast<float *>(workspace);
    if (m == 0 || n == 0 || batch == 0) return cudaSuccess;
    if (!fv_gemm_cut(m, n, k, batch, workspace != NULL, &s)) return cudaErrorInvalidValue;
    const dim3 grid((unsigned)(fv_up(m, s.tile) * fv_up(n, s.tile)), (unsigned)s.slices, (unsigned)batch);
    if constexpr (FV_IS_LOW<A> || FV_IS_LOW<B>) {
        if (s.tile == 128) FV_LAUNCH((gemm_mma_kernel<128, A, B, C>), grid, 256, 0, stream, a, b, c, s, partial);
        else FV_LAUNCH((gemm_mma_kernel<64, A, B, C>), grid, 256, 0, stream, a, b, c, s, partial);
    } else {
        if (s.tile == 128) FV_LAUNCH((gemm_kernel<128, A, B, C>), grid, 256, 0, stream, a, b, c, s, partial);
        else FV_LAUNCH((gemm_kernel<64, A, B, C>), grid, 256, 0, stream, a, b, c, s, partial);
    }
    if (s.slices > 1)
        FV_LAUNCH((gemm_add_slices_kernel<C>), fv_blocks(m * n * batch, FV_THREADS), FV_THREADS, 0, stream, c, s,
                  partial);
    return cudaGetLastError();
}

/* Matrices that need no batching. */
#define FV_ONE_MATRIX (fv_batching{1, 0, 0})

#endif
