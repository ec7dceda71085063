/* elements.cuh: the types of elements in memory, float, bf16 and f16, and how they are read and written: one, or as
 * many as 16 bytes hold. In registers everything is float; the low types are rounded once, when they are written. */
#ifndef FV_CUDA_KERNELS_ELEMENTS_CUH
#define FV_CUDA_KERNELS_ELEMENTS_CUH

#include "cuda/cuda.h"

/* The upper half of a float, and IEEE half (core/tensor.h). */
struct fv_bf16 {
    uint16_t bits;
};
struct fv_f16 {
    uint16_t bits;
};

/* A launcher for elements of the tensor's type: FUNCTION<E>(arguments...). */
#define FV_BY_TYPE(tensor, FUNCTION, ...) \
    ((tensor).type.dtype == FV_BF16  ? FUNCTION<fv_bf16>(__VA_ARGS__) \
     : (tensor).type.dtype == FV_F16 ? FUNCTION<fv_f16>(__VA_ARGS__) \
                                     : FUNCTION<float>(__VA_ARGS__))

/* ---------------------------------------------------------------- bf16 and f16: to nearest, ties to even; NaN stays
 * NaN */

__device__ __forceinline__ float fv_widened(fv_bf16 x) {
    return __uint_as_float((uint32_t)x.bits << 16);
}
__device__ __forceinline__ void fv_narrow_to(fv_bf16 *p, float x) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(p->bits) : "f"(x));
#else
    const uint32_t bits = __float_as_uint(x);
    p->bits =
        (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
#endif
}
/* Two in a word, the first in its lower half. */
__device__ __forceinline__ uint32_t fv_narrowed_pair(fv_bf16, float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    fv_bf16 low, high;
    fv_narrow_to(&low, first);
    fv_narrow_to(&high, second);
    return low.bits | (uint32_t)high.bits << 16;
#endif
}

__device__ __forceinline__ float fv_widened(fv_f16 x) {
#if defined(__CUDA_ARCH__)
    float v;
    asm("cvt.f32.f16 %0, %1;" : "=f"(v) : "h"(x.bits));
    return v;
#else
    return fv_f16_value(x.bits);
#endif
}
__device__ __forceinline__ void fv_narrow_to(fv_f16 *p, float x) {
#if defined(__CUDA_ARCH__)
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(p->bits) : "f"(x));
#else
    p->bits = fv_f16_round(x);
#endif
}
__device__ __forceinline__ uint32_t fv_narrowed_pair(fv_f16, float first, float second) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
#else
    fv_f16 low, high;
    fv_narrow_to(&low, first);
    fv_narrow_to(&high, second);
    return low.bits | (uint32_t)high.bits << 16;
#endif
}

/* ---------------------------------------------------------------- one element. L: a low type */

__device__ __forceinline__ float fv_get(const float *p) {
    return *p;
}
template <typename L> __device__ __forceinline__ float fv_get(const L *p) {
    return fv_widened(*p);
}
__device__ __forceinline__ void fv_put(float *p, float v) {
    *p = v;
}
template <typename L> __device__ __forceinline__ void fv_put(L *p, float v) {
    fv_narrow_to(p, v);
}

/* ---------------------------------------------------------------- several side by side */

/* Elements in 16 bytes, the most that a thread reads at once: 4 floats, 8 of a low type. */
template <typename E> constexpr int FV_WIDE = 16 / (int)sizeof(E);

template <int V> struct fv_some { float v[V]; };

/* V elements from i on, all of which exist; i is a multiple of V, and tensors are aligned. */
template <int V> __device__ __forceinline__ fv_some<V> fv_load(const float *p, int64_t i) {
    fv_some<V> r;
    if constexpr (V == 1) {
        r.v[0] = p[i];
    } else {
#pragma unroll
        for (int j = 0; j < V; j += 4) {
            const float4 q = *reinterpret_cast<const float4 *>(p + i + j);
            r.v[j] = q.x, r.v[j + 1] = q.y, r.v[j + 2] = q.z, r.v[j + 3] = q.w;
        }
    }
    return r;
}
template <int V, typename L> __device__ __forceinline__ fv_some<V> fv_load(const L *p, int64_t i) {
    fv_some<V> r;
    if constexpr (V == 1) {
        r.v[0] = fv_get(p + i);
    } else {
        uint32_t pairs[V / 2];
        if constexpr (V == 4) {
            const uint2 q = *reinterpret_cast<const uint2 *>(p + i);
            pairs[0] = q.x, pairs[1] = q.y;
        } else {
            const uint4 q = *reinterpret_cast<const uint4 *>(p + i);
            pairs[0] = q.x, pairs[1] = q.y, pairs[2] = q.z, pairs[3] = q.w;
        }
#pragma unroll
        for (int j = 0; j < V / 2; j++) {
            r.v[2 * j] = fv_widened(L{(uint16_t)pairs[j]});
            r.v[2 * j + 1] = fv_widened(L{(uint16_t)(pairs[j] >> 16)});
        }
    }
    return r;
}

template <int V> __device__ __forceinline__ void fv_save(float *p, int64_t i, const fv_some<V> &r) {
    if constexpr (V == 1) {
        p[i] = r.v[0];
    } else {
#pragma unroll
        for (int j = 0; j < V; j += 4)
            *reinterpret_cast<float4 *>(p + i + j) = make_float4(r.v[j], r.v[j + 1], r.v[j + 2], r.v[j + 3]);
    }
}
template <int V, typename L> __device__ __forceinline__ void fv_save(L *p, int64_t i, const fv_some<V> &r) {
    if constexpr (V == 1) {
        fv_put(p + i, r.v[0]);
    } else {
        uint32_t pairs[V / 2];
#pragma unroll
        for (int j = 0; j < V / 2; j++) pairs[j] = fv_narrowed_pair(L{}, r.v[2 * j], r.v[2 * j + 1]);
        if constexpr (V == 4) *reinterpret_cast<uint2 *>(p + i) = make_uint2(pairs[0], pairs[1]);
        else *reinterpret_cast<uint4 *>(p + i) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* The same at the end of a tensor: those that exist of V, the others are 0. */
template <int V, typename E> __device__ __forceinline__ fv_some<V> fv_load_of(const E *p, int64_t i, int64_t count) {
    if (i + V <= count) return fv_load<V>(p, i);
    fv_some<V> r;
#pragma unroll
    for (int j = 0; j < V; j++) r.v[j] = i + j < count ? fv_get(p + i + j) : 0.0f;
    return r;
}
template <int V, typename E>
__device__ __forceinline__ void fv_save_of(E *p, int64_t i, int64_t count, const fv_some<V> &r) {
    if (i + V <= count) return fv_save<V>(p, i, r);
#pragma unroll
    for (int j = 0; j < V; j++)
        if (i + j < count) fv_put(p + i + j, r.v[j]);
}

/* for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)): V elements per thread. */
#define FV_FIRST_OF(V) ((V) * ((int64_t)blockIdx.x * blockDim.x + threadIdx.x))
#define FV_STRIDE_OF(V) ((V) * (int64_t)gridDim.x * blockDim.x)
#define FV_FIRST FV_FIRST_OF(1)
#define FV_STRIDE FV_STRIDE_OF(1)

#endif
