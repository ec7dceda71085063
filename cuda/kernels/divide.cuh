/* divide.cuh: division of numbers below 2^31 by one that is known at launch, by a multiplication (Granlund & Montgomery
 * 1994). */
#ifndef FV_CUDA_KERNELS_DIVIDE_CUH
#define FV_CUDA_KERNELS_DIVIDE_CUH

#include "cuda/kernels/common.cuh"

struct fv_divisor {
    uint32_t d, factor, shift;
};

static inline fv_divisor fv_divisor_of(int64_t d) {
    fv_divisor v = {(uint32_t)d, 0, 0};
    uint32_t log2 = 0;
    while (((uint64_t)1 << log2) < (uint64_t)d) log2++;
    if (d > 1) {
        v.factor = (uint32_t)((((uint64_t)1 << (31 + log2)) + (uint64_t)d - 1) / (uint64_t)d);
        v.shift = log2 - 1;
    }
    return v;
}

FV_HD int fv_over(int n, const fv_divisor &v) {
    if (v.d == 1) return n;
#ifdef __CUDA_ARCH__
    return (int)(__umulhi((uint32_t)n, v.factor) >> v.shift);
#else
    return (int)(((uint64_t)(uint32_t)n * v.factor) >> 32 >> v.shift);
#endif
}

/* n / d; *rest = n % d. */
FV_HD int fv_split(int n, const fv_divisor &v, int *rest) {
    const int q = fv_over(n, v);
    *rest = n - q * (int)v.d;
    return q;
}

#endif
