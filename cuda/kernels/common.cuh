/* common.cuh: what the kernels share: index arithmetic, sums over a block, Philox; elements.cuh: loads and stores.
 *
 * Kernels are templates over E, the type of the elements in memory, float, bf16 or f16; parameters and statistics are
 * float. Arithmetic is float32, sums that are long or whose terms differ much are kept in double. Index arithmetic is
 * __host__
 * __device__: launchers and kernels cut work alike. Sums are cut in tiles that depend on the shape only, and tiles are
 * added in their order. */
#ifndef FV_CUDA_KERNELS_COMMON_CUH
#define FV_CUDA_KERNELS_COMMON_CUH

#include "cuda/kernels/elements.cuh"

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

/* Operands and results by number, with elements of type E; NULL when absent. */
template <typename E = float> static inline const E *fv_operand(const fv_cuda_call *c, int k) {
    return k < c->n_in ? static_cast<const E *>(c->in[k].data) : NULL;
}
template <typename E = float> static inline E *fv_result_of(const fv_cuda_call *c, int k) {
    return k < c->n_out ? static_cast<E *>(c->out[k].data) : NULL;
}
/* Of a node at compile, when there are no addresses yet; NULL when absent. */
static inline const fv_type *fv_operand_type(const fv_graph *g, const fv_node *node, int k) {
    const fv_value v = k < node->operands ? g->operands[node->first_operand + k] : FV_NONE;
    return v.id ? &g->values[v.id].type : NULL;
}

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

/* ---------------------------------------------------------------- the block that ends last
 * Blocks leave partial sums in the workspace, and the last of them adds these up, by place and not by time, so that the
 * bits are the same in every run. It is the pattern of the CUDA C++ Programming Guide (memory fence functions): each
 * thread fences behind what it wrote, then one counts the block, so that who sees the count sees the sums. They are
 * read with fv_partial, past the L1 cache, which does not hear of what other multiprocessors write. */

/* In the last of `blocks` blocks that call it with this counter, true for all threads; all must call it, once. The
 * counter, which belongs to the call (fv_cuda_kernel_table) and is 0 at first, goes back to 0 with the last block: so
 * the next launch, a replay of a CUDA graph too, finds it. */
__device__ __forceinline__ bool fv_is_last_block(unsigned *counter, unsigned blocks) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0 && threadIdx.y == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
    __syncthreads();
    __threadfence();
    return last;
}
template <typename T> __device__ __forceinline__ T fv_partial(const T *p) {
    return __ldcg(p);
}
/* V of them; i is a multiple of V. */
template <int V> __device__ __forceinline__ fv_some<V> fv_partials(const float *p, int64_t i) {
    fv_some<V> r;
    if constexpr (V == 1) {
        r.v[0] = __ldcg(p + i);
    } else {
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            const float4 q = __ldcg(reinterpret_cast<const float4 *>(p + i + j));
            r.v[j] = q.x, r.v[j + 1] = q.y, r.v[j + 2] = q.z, r.v[j + 3] = q.w;
        }
    }
    return r;
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

/* ---------------------------------------------------------------- gradients */

/* fv_step_unscale(), for a step in device memory. */
__device__ __forceinline__ double fv_unscale(const fv_step *step) {
    return step->loss_scale > 0 ? 1 / step->loss_scale : 1;
}
/* What updates multiply gradients by: it takes the loss scale out of them and clips them. stats may be null. */
__device__ __forceinline__ float fv_clip_factor(const fv_step *step, const float *stats, float clip) {
    const float unscale = (float)fv_unscale(step);
    return stats && clip > 0 ? unscale * fminf(1.0f, clip / (stats[0] + 1e-6f)) : unscale;
}

/* ---------------------------------------------------------------- faults */

/* Set once; who is first writes the rest. */
__device__ __forceinline__ void fv_fault(fv_cuda_fault *fault, fv_cuda_fault_kind kind, int node, int64_t value,
                                         int64_t row) {
    if (atomicCAS(&fault->kind, (int32_t)FV_CUDA_NO_FAULT, (int32_t)kind) != FV_CUDA_NO_FAULT) return;
    fault->node = node;
    fault->datum[0] = value;
    fault->datum[1] = row;
}
__device__ __forceinline__ void fv_fault_label(fv_cuda_fault *fault, int node, int64_t label, int64_t row) {
    fv_fault(fault, FV_CUDA_FAULT_LABEL, node, label, row);
}

#endif
