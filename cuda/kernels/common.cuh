/* common.cuh: what the kernels share: index arithmetic, loads and stores of four elements, sums over a block, Philox.
 *
 * Kernels are templates over E, the type of the elements in memory; arithmetic is float32, sums that are long or whose
 * terms differ much are kept in double. Index arithmetic is __host__ __device__: launchers and kernels cut work alike.
 * Sums are cut in tiles that depend on the shape only, and tiles are added in their order. */
#ifndef FV_CUDA_KERNELS_COMMON_CUH
#define FV_CUDA_KERNELS_COMMON_CUH

#include "cuda/cuda.h"

#define FV_HD __host__ __device__ __forceinline__
#define FV_THREADS 256
#define FV_FULL 0xffffffffu /* all lanes of a warp */
#define FV_MOST_BLOCKS ((int64_t)1 << 20)

/* ---------------------------------------------------------------- sizes */

FV_HD int64_t fv_up(int64_t a, int64_t b) { /* a / b, rounded up */
    return (a + b - 1) / b;
}
FV_HD int64_t fv_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
FV_HD int64_t fv_most(int64_t a, int64_t b) {
    return a > b ? a : b;
}
/* Attributes write 1 as 0. */
FV_HD int fv_or1(int v) {
    return v > 0 ? v : 1;
}

/* Blocks for a loop over `items` in strides of the grid, each block taking `each` at a time; at least 1. */
static inline unsigned fv_blocks(int64_t items, int64_t each) {
    return (unsigned)fv_most(1, fv_least(fv_up(items, each), FV_MOST_BLOCKS));
}

/* Product of the dimensions from `first` up to, not including, `last`. */
static inline int64_t fv_extent(const fv_type *t, int first, int last) {
    int64_t n = 1;
    for (int i = first; i < last; i++) n *= t->dim[i];
    return n;
}

/* Operands and results by number; NULL when absent. */
static inline const void *fv_operand(const fv_cuda_call *c, int k) {
    return k < c->n_in ? c->in[k].data : NULL;
}
static inline void *fv_result_of(const fv_cuda_call *c, int k) {
    return k < c->n_out ? c->out[k].data : NULL;
}
/* Of a node at compile, when there are no addresses yet; NULL when absent. */
static inline const fv_type *fv_operand_type(const fv_graph *g, const fv_node *node, int k) {
    const fv_value v = k < node->operands ? g->operands[node->first_operand + k] : FV_NONE;
    return v.id ? &g->values[v.id].type : NULL;
}

/* ---------------------------------------------------------------- elements */

FV_HD float fv_get(const float *p) {
    return *p;
}
FV_HD void fv_put(float *p, float v) {
    *p = v;
}

struct fv_four {
    float v[4];
};
/* Elements i .. i + 3, as many as there are. i is a multiple of 4, and tensors are aligned. */
__device__ __forceinline__ fv_four fv_get4(const float *p, int64_t i, int64_t count) {
    fv_four r = {{0, 0, 0, 0}};
    if (i + 4 <= count) {
        const float4 q = *reinterpret_cast<const float4 *>(p + i);
        r.v[0] = q.x, r.v[1] = q.y, r.v[2] = q.z, r.v[3] = q.w;
    } else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + j < count) r.v[j] = p[i + j];
    }
    return r;
}
__device__ __forceinline__ void fv_put4(float *p, int64_t i, int64_t count, const fv_four &r) {
    if (i + 4 <= count) *reinterpret_cast<float4 *>(p + i) = make_float4(r.v[0], r.v[1], r.v[2], r.v[3]);
    else {
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (i + j < count) p[i + j] = r.v[j];
    }
}

/* V elements from i on, all of which exist; i is a multiple of V. */
template <int V> struct fv_some { float v[V]; };
template <int V> __device__ __forceinline__ fv_some<V> fv_load(const float *p, int64_t i) {
    fv_some<V> r;
    if (V == 4) {
        const float4 q = *reinterpret_cast<const float4 *>(p + i);
        r.v[0] = q.x, r.v[V > 1] = q.y, r.v[V > 2 ? 2 : 0] = q.z, r.v[V > 3 ? 3 : 0] = q.w;
    } else {
        r.v[0] = p[i];
    }
    return r;
}
template <int V> __device__ __forceinline__ void fv_save(float *p, int64_t i, const fv_some<V> &r) {
    if (V == 4)
        *reinterpret_cast<float4 *>(p + i) = make_float4(r.v[0], r.v[V > 1], r.v[V > 2 ? 2 : 0], r.v[V > 3 ? 3 : 0]);
    else p[i] = r.v[0];
}

/* for (int64_t i = FV_FIRST4; i < count; i += FV_STRIDE4): four elements per thread. */
#define FV_FIRST4 (4 * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x))
#define FV_STRIDE4 (4 * (int64_t)gridDim.x * blockDim.x)
#define FV_FIRST ((int64_t)blockIdx.x * blockDim.x + threadIdx.x)
#define FV_STRIDE ((int64_t)gridDim.x * blockDim.x)

/* ---------------------------------------------------------------- sums and maxima over a warp or a block */

template <typename T> __device__ __forceinline__ T fv_warp_sum(T v) {
    for (int by = 16; by > 0; by /= 2) v += __shfl_xor_sync(FV_FULL, v, by);
    return v;
}
__device__ __forceinline__ float fv_warp_max(float v) {
    for (int by = 16; by > 0; by /= 2) v = fmaxf(v, __shfl_xor_sync(FV_FULL, v, by));
    return v;
}

/* Threads of the block along x; every thread gets the result. All threads must call it. */
template <typename T> __device__ __forceinline__ T fv_block_sum(T v) {
    __shared__ T part[32];
    v = fv_warp_sum(v);
    __syncthreads(); /* part may still be read by an earlier call */
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    T sum = part[0];
    for (unsigned w = 1; w < blockDim.x / 32; w++) sum += part[w];
    return sum;
}
__device__ __forceinline__ float fv_block_max(float v) {
    __shared__ float part[32];
    v = fv_warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    float top = part[0];
    for (unsigned w = 1; w < blockDim.x / 32; w++) top = fmaxf(top, part[w]);
    return top;
}

/* A block of 32 columns x FV_DOWN threads: the sum of v over threadIdx.y, for all of them. All threads must call it. */
#define FV_DOWN 16
__device__ __forceinline__ double fv_sum_down(double v) {
    __shared__ double part[FV_DOWN][32];
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = v;
    __syncthreads();
    double sum = 0;
#pragma unroll
    for (int k = 0; k < FV_DOWN; k++) sum += part[k][threadIdx.x];
    return sum;
}

/* ---------------------------------------------------------------- randomness: the words of core/rng.h */

FV_HD uint32_t fv_fold_word(uint64_t x) {
    return (uint32_t)x ^ (uint32_t)(x >> 32) * 0x9E3779B9u;
}

/* Philox4x32-10 (Salmon et al. 2011), as fv_random(). */
FV_HD fv_philox fv_draw(uint64_t seed, uint64_t element, uint64_t row, uint64_t step, uint32_t stream) {
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    uint32_t c0 = fv_fold_word(element), c1 = fv_fold_word(row), c2 = fv_fold_word(step), c3 = stream;
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    return fv_philox{{c0, c1, c2, c3}};
}

/* A word to [0,1), 24 bits: fv_uniform_f32(). */
FV_HD float fv_uniform(uint32_t word) {
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}

/* ---------------------------------------------------------------- faults */

/* Set once; who is first writes the rest. */
__device__ __forceinline__ void fv_fault_label(fv_cuda_fault *fault, int node, int64_t label, int64_t row) {
    if (atomicCAS(&fault->kind, (int32_t)FV_CUDA_NO_FAULT, (int32_t)FV_CUDA_FAULT_LABEL) != FV_CUDA_NO_FAULT) return;
    fault->node = node;
    fault->datum[0] = label;
    fault->datum[1] = row;
}

#endif
