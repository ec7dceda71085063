/* gemm_mma.cuh: the product of gemm.cuh by tensor cores, where an operand is bf16 or f16: warps multiply 16 x 16 x 16,
 * sums are float32. A float32 operand beside one of bf16 is taken as two bf16 numbers, x = high + low, which hold 16
 * bits of its 24: the low part takes one more pass. Beside one of f16, whose range is too small for what float32 may
 * hold, both are: f16's 11 bits fit.
 *
 *   block: a tile of T x T results, 8 warps, 4 down and 2 across, each M x N fragments
 *   a step of k in shared memory: [parts][16][T] of each operand
 *
 * Without such tensor cores (compute capability 7.5) the kernel is that of float32. */
#ifndef FV_CUDA_KERNELS_GEMM_MMA_CUH
#define FV_CUDA_KERNELS_GEMM_MMA_CUH

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <mma.h>
#include <type_traits>

template <class A> constexpr bool FV_IS_LOW = sizeof(typename A::Element) == sizeof(fv_bf16);
template <class A> constexpr bool FV_IS_F16 = std::is_same<typename A::Element, fv_f16>::value;

/* How operand X is taken beside Y: the type that is multiplied, and how many numbers of it make one of X. */
template <class X, class Y> struct fv_mma {
    static constexpr bool halves = FV_IS_F16<X> && FV_IS_F16<Y>;
    typedef typename std::conditional<halves, fv_f16, fv_bf16>::type Part;
    typedef typename std::conditional<halves, __half, __nv_bfloat16>::type Fragment;
    static constexpr int PARTS = halves || std::is_same<typename X::Element, fv_bf16>::value ? 1 : 2;
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

template <int PARTS, int T, class Loader, class Part>
__device__ __forceinline__ void fv_mma_store(const Loader &from, Part (*to)[GEMM_STEP][T + 8]) {
#pragma unroll
    for (int j = 0; j < Loader::COUNT; j++) {
        Part high;
        fv_narrow_to(&high, from.v[j]);
        to[0][from.k(j)][from.line(j)] = high;
        if (PARTS == 2) fv_put(&to[PARTS - 1][from.k(j)][from.line(j)], from.v[j] - fv_widened(high));
    }
}

/* Rows (or columns) from `at` on of a step, as wmma has it. */
template <class Fragment, int T, class Part>
__device__ __forceinline__ const Fragment *fv_mma_part(const Part (&step)[GEMM_STEP][T + 8], int at) {
    return reinterpret_cast<const Fragment *>(&step[0][at]);
}

template <int T, class A, class B, class C>
__global__ void __launch_bounds__(256, T == 64 ? 2 : 1) gemm_mma_kernel(A a, B b, C c, fv_gemm_size s, float *partial) {
    namespace wmma = nvcuda::wmma;
    typedef typename fv_mma<A, B>::Part Part;
    typedef typename fv_mma<A, B>::Fragment Fragment;
    constexpr int M = T / 64, N = T / 32, A_PARTS = fv_mma<A, B>::PARTS, B_PARTS = fv_mma<B, A>::PARTS;
    __shared__ __align__(32) Part as[A_PARTS][GEMM_STEP][T + 8];
    __shared__ __align__(32) Part bs[B_PARTS][GEMM_STEP][T + 8];
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
        for (int pass = A_PARTS + B_PARTS - 2; pass >= 0; pass--) { /* low parts first: they are the smaller */
            const int a_part = A_PARTS == 2 && pass == B_PARTS ? 1 : 0, b_part = pass && !a_part ? 1 : 0;
            wmma::fragment<wmma::matrix_b, 16, 16, 16, Fragment, wmma::row_major> r[N];
#pragma unroll
            for (int j = 0; j < N; j++)
                wmma::load_matrix_sync(r[j], fv_mma_part<Fragment, T>(bs[b_part], right + 16 * j), T + 8);
#pragma unroll
            for (int i = 0; i < M; i++) {
                wmma::fragment<wmma::matrix_a, 16, 16, 16, Fragment, wmma::col_major> l;
                wmma::load_matrix_sync(l, fv_mma_part<Fragment, T>(as[a_part], down + 16 * i), T + 8);
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
