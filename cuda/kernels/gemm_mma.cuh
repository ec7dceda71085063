/* gemm_mma.cuh: the product of gemm.cuh by tensor cores, where an operand is bf16: warps multiply 16 x 16 x 16, sums
 * are float32. A float32 operand beside one of bf16 is taken as two bf16 numbers, x = high + low, which hold 16 bits of
 * its 24: the low part takes one more pass.
 *
 *   block: a tile of T x T results, 8 warps, 4 down and 2 across, each M x N fragments
 *   a step of k in shared memory: [parts][16][T] of each operand
 *
 * Without such tensor cores (compute capability 7.5) the kernel is that of float32. */
#ifndef FV_CUDA_KERNELS_GEMM_MMA_CUH
#define FV_CUDA_KERNELS_GEMM_MMA_CUH

#include <cuda_bf16.h>
#include <mma.h>

template <class A> constexpr bool FV_IS_BF16 = sizeof(typename A::Element) == sizeof(fv_bf16);

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <int PARTS, int T, class Loader>
__device__ __forceinline__ void fv_mma_store(const Loader &from, fv_bf16 (*to)[GEMM_STEP][T + 8]) {
#pragma unroll
    for (int j = 0; j < Loader::COUNT; j++) {
        const uint32_t high = fv_narrowed(from.v[j]);
        to[0][from.k(j)][from.line(j)].bits = (uint16_t)high;
        if (PARTS == 2) fv_put(&to[PARTS - 1][from.k(j)][from.line(j)], from.v[j] - fv_widened(high));
    }
}

/* Rows (or columns) from `at` on of a step, as wmma has it. */
template <int T>
__device__ __forceinline__ const __nv_bfloat16 *fv_mma_part(const fv_bf16 (&step)[GEMM_STEP][T + 8], int at) {
    return reinterpret_cast<const __nv_bfloat16 *>(&step[0][at]);
}

template <int T, class A, class B, class C>
__global__ void __launch_bounds__(256, T == 64 ? 2 : 1) gemm_mma_kernel(A a, B b, C c, fv_gemm_size s, float *partial) {
    namespace wmma = nvcuda::wmma;
    constexpr int M = T / 64, N = T / 32, A_PARTS = FV_IS_BF16<A> ? 1 : 2, B_PARTS = FV_IS_BF16<B> ? 1 : 2;
    __shared__ __align__(32) fv_bf16 as[A_PARTS][GEMM_STEP][T + 8];
    __shared__ __align__(32) fv_bf16 bs[B_PARTS][GEMM_STEP][T + 8];
    __shared__ __align__(32) float patch[8][16 * 16]; /* of a warp: a fragment on its way out */
    const int across = (s.n + T - 1) / T, batch = (int)blockIdx.z;
    const int m0 = (int)blockIdx.x / across * T, n0 = (int)blockIdx.x % across * T;
    const int k_begin = (int)blockIdx.y * s.slice, k_end = min(s.k, k_begin + s.slice);
    const int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const int down = warp / 2 * 16 * M, right = warp % 2 * 16 * N; /* the warp's place in the tile */
    fv_loader<T, A> from_a;
    fv_loader<T, B> from_b;
    wmma::fragment<wmma::accumulator, 16, 16, 16, float> sum[M][N];
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++) wmma::fill_fragment(sum[i][j], 0.0f);
    from_a.begin(a, batch, m0, s.m);
    from_b.begin(b, batch, n0, s.n);
    from_a.load(a, batch, k_begin, k_end);
    from_b.load(b, batch, k_begin, k_end);
    for (int k0 = k_begin; k0 < k_end; k0 += GEMM_STEP) {
        fv_mma_store<A_PARTS, T>(from_a, as);
        fv_mma_store<B_PARTS, T>(from_b, bs);
        __syncthreads();
        if (k0 + GEMM_STEP < k_end) {
            from_a.load(a, batch, k0 + GEMM_STEP, k_end);
            from_b.load(b, batch, k0 + GEMM_STEP, k_end);
        }
#pragma unroll
        for (int pass = A_PARTS + B_PARTS - 2; pass >= 0; pass--) { /* a low part first: it is the smaller */
            const int a_part = pass && A_PARTS == 2 ? 1 : 0, b_part = pass && A_PARTS == 1 ? 1 : 0;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, __nv_bfloat16, wmma::row_major> r[N];
#pragma unroll
            for (int j = 0; j < N; j++) wmma::load_matrix_sync(r[j], fv_mma_part<T>(bs[b_part], right + 16 * j), T + 8);
#pragma unroll
            for (int i = 0; i < M; i++) {
                wmma::fragment<wmma::matrix_a, 16, 16, 16, __nv_bfloat16, wmma::col_major> l;
                wmma::load_matrix_sync(l, fv_mma_part<T>(as[a_part], down + 16 * i), T + 8);
#pragma unroll
                for (int j = 0; j < N; j++) wmma::mma_sync(sum[i][j], l, r[j], sum[i][j]);
            }
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < M; i++)
#pragma unroll
        for (int j = 0; j < N; j++) {
            wmma::store_matrix_sync(patch[warp], sum[i][j], 16, wmma::mem_row_major);
            __syncwarp();
#pragma unroll 1
            for (int e = lane; e < 16 * 16; e += 32)
                fv_gemm_leave(c, s, partial, batch, m0 + down + 16 * i + e / 16, n0 + right + 16 * j + e % 16,
                              patch[warp][e]);
            __syncwarp();
        }
}

#else

template <int T, class A, class B, class C>
__global__ void __launch_bounds__(256, T == 64 ? 2 : 1) gemm_mma_kernel(A a, B b, C c, fv_gemm_size s, float *partial) {
    fv_gemm_tile<T>(a, b, c, s, partial);
}

#endif
#endif
