/* vec.h: vectors of FV_VL floats for the instruction set that a kernel file is compiled for.
 *
 *   vf a, b;  a + b, a * b, -a ...        operators of the compilers' vector extension
 *   vf_load(p), vf_store(p, v)            unaligned; p: floats, or bf16 or f16, which are widened and rounded
 *   vf_load_n(p, n), vf_store_n(p, v, n)  the first n lanes; the others are 0, or are not written
 *   vf_fma(a, b, c)                       a * b + c, fused where the instruction set has it
 *   vf_select(m, a, b)                    m ? a : b, with a mask such as vm m = vm_gt(a, b)
 *   vf_exp, vf_sigmoid, vf_tanh, vf_log1p, vf_log, vf_normal_cdf
 *
 * A tail goes through the same arithmetic as a full vector (vf_load_n), so a value never depends on where it lies. */
#ifndef FV_CORE_CPU_KERNELS_VEC_H
#define FV_CORE_CPU_KERNELS_VEC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* `wide`, in tests only: the geometry of AVX-512 by the code for any width, which runs where AVX2 is. */
#if defined(FV_ISA_avx512)
#define FV_VL 16
#define FV_AVX512 1
#elif defined(FV_ISA_avx2)
#define FV_VL 8
#define FV_AVX2 1
#elif defined(FV_ISA_wide)
#define FV_VL 16
#else
#define FV_VL 4
#endif
#if FV_VL > 4
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

#define FV_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(FV_VL * 4)));
typedef int32_t vi __attribute__((vector_size(FV_VL * 4)));
typedef uint32_t vu __attribute__((vector_size(FV_VL * 4)));
typedef float vf_unaligned __attribute__((vector_size(FV_VL * 4), aligned(4), may_alias));
#if FV_AVX512
typedef __mmask16 vm; /* one bit per lane */
#else
typedef vi vm; /* all bits of a lane set, or none */
#endif

/* ---------------------------------------------------------------- memory */

FV_INLINE vf vf_set1(float x) {
#if FV_AVX512
    return (vf)_mm512_set1_ps(x);
#elif FV_AVX2
    return (vf)_mm256_set1_ps(x);
#else
    return x - (vf){0};
#endif
}
FV_INLINE vf vf_zero(void) {
    return vf_set1(0.0f);
}
FV_INLINE vu vu_set1(uint32_t x) {
    return (vu){0} + x;
}
FV_INLINE vf vf_load_f32(const float *p) {
    return (vf) * (const vf_unaligned *)p;
}
FV_INLINE void vf_store_f32(float *p, vf v) {
    *(vf_unaligned *)p = (vf_unaligned)v;
}

#if FV_AVX2
/* n lanes set, 0 <= n <= 8 */
FV_INLINE __m256i vf_tail_mask(int n) {
    static const int32_t bits[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i *)(bits + 8 - n));
}
#endif

/* The first n lanes (0 <= n <= FV_VL); the others are 0. Reads nothing past p + n. */
FV_INLINE vf vf_load_n_f32(const float *p, int n) {
    if (n == FV_VL) return vf_load_f32(p);
#if FV_AVX512
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#elif FV_AVX2
    return (vf)_mm256_maskload_ps(p, vf_tail_mask(n));
#else
    vf v = {0};
    for (int i = 0; i < n; i++) v[i] = p[i];
    return v;
#endif
}
/* Writes the first n lanes and nothing else. */
FV_INLINE void vf_store_n_f32(float *p, vf v, int n) {
    if (n == FV_VL) {
        vf_store_f32(p, v);
        return;
    }
#if FV_AVX512
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#elif FV_AVX2
    _mm256_maskstore_ps(p, vf_tail_mask(n), (__m256)v);
#else
    for (int i = 0; i < n; i++) p[i] = v[i];
#endif
}
typedef uint8_t vb __attribute__((vector_size(FV_VL)));
/* Bytes to 32-bit lanes, and back (the low byte); n lanes. */
FV_INLINE vi vi_load_bytes(const uint8_t *p, int n) {
    vb b = {0};
    if (n == FV_VL) memcpy(&b, p, sizeof b);
    else memcpy(&b, p, (size_t)n);
    return __builtin_convertvector(b, vi);
}
FV_INLINE void vi_store_bytes(uint8_t *p, vi v, int n) {
    vb b = __builtin_convertvector(v, vb);
    if (n == FV_VL) memcpy(p, &b, sizeof b);
    else memcpy(p, &b, (size_t)n);
}
/* The first n lanes of v, the rest 0. */
FV_INLINE vf vf_first(vf v, int n) {
#if FV_AVX512
    return (vf)_mm512_maskz_mov_ps((__mmask16)((1u << n) - 1), (__m512)v);
#elif FV_AVX2
    return (vf)_mm256_and_ps((__m256)v, _mm256_castsi256_ps(vf_tail_mask(n)));
#else
    for (int i = n; i < FV_VL; i++) v[i] = 0.0f;
    return v;
#endif
}
/* Store past the caches; p aligned to the vector. vf_stream_end() before other threads may read. */
FV_INLINE void vf_stream_f32(float *p, vf v) {
#if FV_AVX512
    _mm512_stream_ps(p, (__m512)v);
#elif FV_AVX2
    _mm256_stream_ps(p, (__m256)v);
#elif FV_VL == 4 && defined(__SSE2__)
    _mm_stream_ps(p, (__m128)v);
#else
    vf_store_f32(p, v);
#endif
}
FV_INLINE void vf_stream_end(void) {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

/* ---------------------------------------------------------------- bf16 and f16 in memory */

typedef struct fv_bf16 { /* structs, so that nobody computes with their bits */
    uint16_t bits;
} fv_bf16;
typedef struct fv_f16 {
    uint16_t bits;
} fv_f16;
typedef uint16_t vu16 __attribute__((vector_size(FV_VL * 2)));

FV_INLINE vf vf_of_bf16(vu16 h) {
    return (vf)(__builtin_convertvector(h, vu) << 16);
}
/* Rounding, of both types: to nearest even; NaN stays, denormals are kept (VCVTNEPS2BF16 would drop them). */
FV_INLINE vu16 vf_to_bf16(vf v) {
    const vu bits = (vu)v, rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
    const vu nan = (vu)((bits & 0x7fffffff) > 0x7f800000);
    return __builtin_convertvector((rounded & ~nan) | (quiet & nan), vu16);
}
/* The last two as fv_f16_value() and fv_f16_round() (core/tensor.h). */
FV_INLINE vf vf_of_f16(vu16 h) {
#if FV_AVX512
    return (vf)_mm512_cvtph_ps((__m256i)h);
#elif FV_AVX2
    return (vf)_mm256_cvtph_ps((__m128i)h);
#else
    const vu bits = __builtin_convertvector(h, vu), odd = (vu)((bits & 0x7c00) == 0x7c00); /* infinity or NaN */
    const vf x = (vf)((bits & 0x7fff) << 13) * 0x1p112f;
    return (vf)((vu)x | (bits & 0x8000) << 16 | (odd & 0x7f800000));
#endif
}
FV_INLINE vu16 vf_to_f16(vf v) {
#if FV_AVX512
    return (vu16)_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT);
#elif FV_AVX2
    return (vu16)_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT);
#else
    const vu sign = (vu)v >> 16 & 0x8000, bits = (vu)v & 0x7fffffff;
    const vu nan = (vu)(bits > 0x7f800000), large = (vu)(bits >= 0x47800000), small = (vu)(bits < 0x38800000);
    const vu normal = (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13;
    const vu denormal = (vu)((vf)(bits & small) + 0.5f) - 0x3f000000;
    const vu finite = (small & denormal) | (~small & normal), odd = 0x7c00 | (nan & (0x200 | (bits >> 13 & 0x1ff)));
    return __builtin_convertvector(sign | (large & odd) | (~large & finite), vu16);
#endif
}

FV_INLINE vu16 vu16_load_n(const void *p, int n) {
    vu16 h = {0};
    if (n == FV_VL) memcpy(&h, p, sizeof h);
    else memcpy(&h, p, (size_t)n * sizeof(uint16_t));
    return h;
}
FV_INLINE void vu16_store_n(void *p, vu16 h, int n) {
    if (n == FV_VL) memcpy(p, &h, sizeof h);
    else memcpy(p, &h, (size_t)n * sizeof(uint16_t));
}
FV_INLINE void vu16_stream(void *p, vu16 h) {
#if FV_AVX512
    _mm256_stream_si256((__m256i *)p, (__m256i)h);
#elif FV_AVX2
    _mm_stream_si128((__m128i *)p, (__m128i)h);
#else
    memcpy(p, &h, sizeof h);
#endif
}
#define FV_LOW_MEMORY(low) \
    FV_INLINE vf vf_load_n_##low(const fv_##low *p, int n) { \
        return vf_of_##low(vu16_load_n(p, n)); \
    } \
    FV_INLINE vf vf_load_##low(const fv_##low *p) { \
        return vf_load_n_##low(p, FV_VL); \
    } \
    FV_INLINE void vf_store_n_##low(fv_##low *p, vf v, int n) { \
        vu16_store_n(p, vf_to_##low(v), n); \
    } \
    FV_INLINE void vf_store_##low(fv_##low *p, vf v) { \
        vf_store_n_##low(p, v, FV_VL); \
    } \
    FV_INLINE void vf_stream_##low(fv_##low *p, vf v) { \
        vu16_stream(p, vf_to_##low(v)); \
    }
FV_LOW_MEMORY(bf16)
FV_LOW_MEMORY(f16)

/* Floats, bf16 or f16, by the pointer. */
#define FV_BY_TYPE(name, p) \
    _Generic((p), fv_bf16 * \
             : name##_bf16, const fv_bf16 * \
             : name##_bf16, fv_f16 * \
             : name##_f16, const fv_f16 * \
             : name##_f16, default \
             : name##_f32)
#define vf_load(p) FV_BY_TYPE(vf_load, p)(p)
#define vf_load_n(p, n) FV_BY_TYPE(vf_load_n, p)(p, n)
#define vf_store(p, v) FV_BY_TYPE(vf_store, p)(p, v)
#define vf_store_n(p, v, n) FV_BY_TYPE(vf_store_n, p)(p, v, n)
#define vf_stream(p, v) FV_BY_TYPE(vf_stream, p)(p, v)

/* ---------------------------------------------------------------- arithmetic */

FV_INLINE vf vf_fma(vf a, vf b, vf c) {
#if FV_AVX512
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif FV_AVX2
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}
#ifdef FV_PAIRS
/* Of pairs of bf16 in the place of floats: c plus the products of both. Denormals count as 0 with AVX-512. */
FV_INLINE vf vf_fma_pairs(vf a, vf b, vf c) {
#if FV_AVX512
    return (vf)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
    const vf odd = vf_fma((vf)((vu)a & 0xffff0000), (vf)((vu)b & 0xffff0000), c);
    return vf_fma((vf)((vu)a << 16), (vf)((vu)b << 16), odd);
#endif
}
#endif
FV_INLINE vm vm_gt(vf a, vf b) {
#if FV_AVX512
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GT_OQ);
#else
    return (vm)(a > b);
#endif
}
FV_INLINE vm vm_ge(vf a, vf b) {
#if FV_AVX512
    return _mm512_cmp_ps_mask((__m512)a, (__m512)b, _CMP_GE_OQ);
#else
    return (vm)(a >= b);
#endif
}
FV_INLINE vm vm_lt(vf a, vf b) {
    return vm_gt(b, a);
}
FV_INLINE vm vm_nan(vf a) {
#if FV_AVX512
    return _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q);
#else
    return (vm)(a != a);
#endif
}
FV_INLINE vm vm_or(vm a, vm b) {
    return (vm)(a | b);
}
FV_INLINE vm vm_equal(vi a, vi b) {
#if FV_AVX512
    return _mm512_cmpeq_epi32_mask((__m512i)a, (__m512i)b);
#else
    return (vm)(a == b);
#endif
}
#if FV_AVX512
/* Lane by lane the float that the low five bits of `at` say. */
FV_INLINE vf vf_of_32(const float table[32], vi at) {
    return (vf)_mm512_permutex2var_ps((__m512)vf_load_f32(table), (__m512i)at, (__m512)vf_load_f32(table + 16));
}
/* m ? c - a b : c, lane by lane */
FV_INLINE vf vf_fnma_where(vm m, vf a, vf b, vf c) {
    return (vf)_mm512_mask3_fnmadd_ps((__m512)a, (__m512)b, (__m512)c, m);
}
#endif
#if FV_AVX512
/* Four floats each at p, p + step, p + 2 step and p + 3 step. */
FV_INLINE vf vf_load_fours(const float *p, ptrdiff_t step) {
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(p));
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + step), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps(p + 2 * step), 2);
    return (vf)_mm512_insertf32x4(v, _mm_loadu_ps(p + 3 * step), 3);
}
#endif
/* m ? a : b, lane by lane */
FV_INLINE vf vf_select(vm m, vf a, vf b) {
#if FV_AVX512
    return (vf)_mm512_mask_blend_ps(m, (__m512)b, (__m512)a);
#elif FV_AVX2
    return (vf)_mm256_blendv_ps((__m256)b, (__m256)a, (__m256)m);
#else
    return (vf)(((vi)a & m) | ((vi)b & ~m));
#endif
}
/* m ? a : 0 */
FV_INLINE vf vf_keep(vm m, vf a) {
#if FV_AVX512
    return (vf)_mm512_maskz_mov_ps(m, (__m512)a);
#else
    return (vf)((vi)a & m);
#endif
}
/* The larger; b where either is NaN. So vf_max(zero, x) is a ReLU that lets NaN through. */
FV_INLINE vf vf_max(vf a, vf b) {
#if FV_AVX512
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif FV_AVX2
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vf_select(vm_gt(a, b), a, b);
#endif
}
/* The smaller; b where either is NaN. */
FV_INLINE vf vf_min(vf a, vf b) {
#if FV_AVX512
    return (vf)_mm512_min_ps((__m512)a, (__m512)b);
#elif FV_AVX2
    return (vf)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return vf_select(vm_lt(a, b), a, b);
#endif
}
FV_INLINE vf vf_abs(vf a) {
    return (vf)((vu)a & vu_set1(0x7fffffffu));
}
/* |a| with the sign of b; a >= 0 */
FV_INLINE vf vf_copysign(vf a, vf b) {
    return (vf)((vu)a | ((vu)b & vu_set1(0x80000000u)));
}
FV_INLINE vf vf_sqrt(vf a) {
#if FV_AVX512
    return (vf)_mm512_sqrt_ps((__m512)a);
#elif FV_AVX2
    return (vf)_mm256_sqrt_ps((__m256)a);
#else
    for (int i = 0; i < FV_VL; i++) a[i] = sqrtf(a[i]);
    return a;
#endif
}
#if FV_AVX512 || FV_AVX2 || (FV_VL == 4 && defined(__SSE2__))
/* Fold the upper half of the lanes onto the lower one until four are left: lane i with lane i + half. */
#if FV_AVX512
#define FV_FOLD(v, op) \
    op(op(_mm256_castps256_ps128(_mm512_castps512_ps256(v)), _mm256_castps256_ps128(_mm512_extractf32x8_ps(v, 1))), \
       op(_mm256_extractf128_ps(_mm512_castps512_ps256(v), 1), \
          _mm256_extractf128_ps(_mm512_extractf32x8_ps(v, 1), 1)))
#elif FV_AVX2
#define FV_FOLD(v, op) op(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1))
#else
#define FV_FOLD(v, op) (v)
#endif
/* Sum of the lanes as a balanced tree. */
FV_INLINE float vf_sum(vf a) {
    __m128 v = FV_FOLD(a, _mm_add_ps);
    v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_add_ss(v, _mm_shuffle_ps(v, v, 1)));
}
/* The largest lane; a NaN may or may not win. */
FV_INLINE float vf_max_lane(vf a) {
    __m128 v = FV_FOLD(a, _mm_max_ps);
    v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    return _mm_cvtss_f32(_mm_max_ss(v, _mm_shuffle_ps(v, v, 1)));
}
#undef FV_FOLD
#else
FV_INLINE float vf_sum(vf a) {
    for (int half = FV_VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) a[i] += a[i + half];
    return a[0];
}
FV_INLINE float vf_max_lane(vf a) {
    for (int half = FV_VL / 2; half; half /= 2)
        for (int i = 0; i < half; i++) a[i] = a[i] > a[i + half] ? a[i] : a[i + half];
    return a[0];
}
#endif

/* Of each four lanes of a and b these four: 0 to 3 of a, FV_VL to FV_VL + 3 of b. */
#if FV_VL == 16
#define VF_FOURS(a, b, i, j, k, l) \
    __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4, i + 8, j + 8, k + 8, l + 8, i + 12, j + 12, \
                            k + 12, l + 12)
#elif FV_VL == 8
#define VF_FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l, i + 4, j + 4, k + 4, l + 4)
#else
#define VF_FOURS(a, b, i, j, k, l) __builtin_shufflevector(a, b, i, j, k, l)
#endif
/* In each four lanes: lane k of columns[c] is lane c of rows[k]. */
FV_INLINE void vf_turn_fours(const vf rows[4], vf columns[4]) {
    const vf a = VF_FOURS(rows[0], rows[1], 0, FV_VL, 1, FV_VL + 1),
             b = VF_FOURS(rows[0], rows[1], 2, FV_VL + 2, 3, FV_VL + 3),
             c = VF_FOURS(rows[2], rows[3], 0, FV_VL, 1, FV_VL + 1),
             d = VF_FOURS(rows[2], rows[3], 2, FV_VL + 2, 3, FV_VL + 3);
    columns[0] = VF_FOURS(a, c, 0, 1, FV_VL, FV_VL + 1);
    columns[1] = VF_FOURS(a, c, 2, 3, FV_VL + 2, FV_VL + 3);
    columns[2] = VF_FOURS(b, d, 0, 1, FV_VL, FV_VL + 1);
    columns[3] = VF_FOURS(b, d, 2, 3, FV_VL + 2, FV_VL + 3);
}
/* The sums of the lanes of four vectors, and the largest: less work than one by one, and in another order. */
typedef float v4 __attribute__((vector_size(16), may_alias));
FV_INLINE v4 vf_sum_of_four(const vf a[4]) {
    vf c[4];
    vf_turn_fours(a, c);
    const vf sum = (c[0] + c[1]) + (c[2] + c[3]);
    const v4 *part = (const v4 *)&sum;
    v4 all = part[0];
    for (int i = 1; i < FV_VL / 4; i++) all += part[i];
    return all;
}
FV_INLINE v4 vf_max_of_four(const vf a[4]) {
    vf c[4];
    vf_turn_fours(a, c);
    const vf most = vf_max(vf_max(c[0], c[1]), vf_max(c[2], c[3]));
    const v4 *part = (const v4 *)&most;
    v4 all = part[0];
    for (int i = 1; i < FV_VL / 4; i++) {
        typedef int32_t v4i __attribute__((vector_size(16)));
        const v4i larger = all > part[i];
        all = (v4)((larger & (v4i)all) | (~larger & (v4i)part[i]));
    }
    return all;
}

/* ---------------------------------------------------------------- functions. Polynomials are minimax fits of our own.
 */

/* e^r for |r| <= ln 2 / 2, what is left of an exponent when whole powers of two are taken out. */
FV_INLINE vf vf_exp_remainder(vf r) {
    vf p = vf_set1(1.381431823e-03f);
    p = vf_fma(p, r, vf_set1(8.368851617e-03f));
    p = vf_fma(p, r, vf_set1(4.166840017e-02f));
    p = vf_fma(p, r, vf_set1(1.666651964e-01f));
    p = vf_fma(p, r, vf_set1(4.999999404e-01f));
    return vf_fma(p, r * r, r) + vf_set1(1.0f);
}

/* e^x within 1 ulp; 0 below -104, inf above 88.73, NaN stays. */
FV_INLINE vf vf_exp(vf x) {
    const vf magic = vf_set1(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    x = vf_max(vf_set1(-104.0f), vf_min(vf_set1(89.0f), x));
    vf t = vf_fma(x, vf_set1(1.44269504f), magic);
    vf n = t - magic;
    vf r =
        vf_fma(n, vf_set1(-0.693145751953125f), x); /* ln 2 in two parts; the first has 15 bits, so n * it is exact */
    r = vf_fma(n, vf_set1(-1.428606820e-06f), r);
    vf p = vf_exp_remainder(r);
#if FV_AVX512
    return (vf)_mm512_scalef_ps((__m512)p, (__m512)n);
#else
    /* 2^n as the product of two halves, so that neither leaves the normal range; n = -150..128 */
    vi k = (vi)((vu)t - vu_set1(0x4b400000u)), a = k >> 1;
    return p * (vf)((vu)(a + 127) << 23) * (vf)((vu)(k - a + 127) << 23);
#endif
}

/* 1 / (1 + e^-x), relative error within 3 ulp. */
FV_INLINE vf vf_sigmoid(vf x) {
    return vf_set1(1.0f) / (vf_set1(1.0f) + vf_exp(-x));
}
/* The same, and sigmoid(-x) = 1 - sigmoid(x) without cancellation. */
FV_INLINE vf vf_sigmoid_pair(vf x, vf *other) {
    vf e = vf_exp(-vf_abs(x)), large = vf_set1(1.0f) / (vf_set1(1.0f) + e), small = e * large;
    vm positive = vm_gt(x, vf_zero());
    *other = vf_select(positive, small, large);
    return vf_select(positive, large, small);
}

/* log(1 + u) for 0 <= u <= 1, within 2 ulp: 2 atanh(s), s = u / (2 + u) <= 1/3. */
FV_INLINE vf vf_log1p(vf u) {
    vf s = u / (vf_set1(2.0f) + u), z = s * s;
    vf p = vf_set1(1.214516610e-01f);
    p = vf_fma(p, z, vf_set1(1.071526781e-01f));
    p = vf_fma(p, z, vf_set1(1.430830806e-01f));
    p = vf_fma(p, z, vf_set1(1.999944448e-01f));
    p = vf_fma(p, z, vf_set1(3.333333731e-01f));
    return vf_set1(2.0f) * vf_fma(s * z, p, s);
}

/* log x within 2 ulp of the larger of it and 1; 1 <= x, finite; NaN stays. */
FV_INLINE vf vf_log(vf x) {
    const vf mantissa = (vf)(((vu)x & 0x007fffffu) | 0x3f800000u);
    const vf exponent = __builtin_convertvector((vi)((vu)x >> 23) - 127, vf);
    const vf log = vf_fma(exponent, vf_set1(0.693147181f), vf_log1p(mantissa - vf_set1(1.0f)));
    return vf_select(vm_nan(x), x, log);
}

/* Odd polynomial below 0.625, 1 - 2 / (e^2|x| + 1) above: within 2 ulp. */
FV_INLINE vf vf_tanh(vf x) {
    vf a = vf_abs(x), z = x * x;
    vf p = vf_set1(-5.704978481e-03f);
    p = vf_fma(p, z, vf_set1(2.063907869e-02f));
    p = vf_fma(p, z, vf_set1(-5.373971164e-02f));
    p = vf_fma(p, z, vf_set1(1.333144158e-01f));
    p = vf_fma(p, z, vf_set1(-3.333328068e-01f));
    vf small = vf_fma(p * z, x, x);
    vf large = vf_set1(1.0f) - vf_set1(2.0f) / (vf_exp(a + a) + vf_set1(1.0f));
    return vf_select(vm_lt(a, vf_set1(0.625f)), small, vf_copysign(large, x));
}

/* a * a - h, the rounding error of h = a * a. Without FMA by halves of 12 bits (Dekker 1971). */
FV_INLINE vf vf_square_error(vf a, vf h) {
#if FV_AVX512 || FV_AVX2
    return vf_fma(a, a, -h);
#else
    vf high = (vf)((vu)a & vu_set1(0xfffff000u)), low = a - high;
    return ((high * high - h) + (high + high) * low) + low * low;
#endif
}

/* P(N(0,1) <= x), within 3 u absolutely and 8 ulp below 0, and *density = e^(-x^2/2); both are 0 or 1 from 13 on. With
 * a = |x|: cdf(-a) = e^(-a^2/2) t Q(t), t = 1 / (1 + 0.35 a), and cdf(a) = 1 - cdf(-a). The exponential is that of
 * vf_exp, with the rounding error of a^2 in its remainder, and needs no care for large or denormal results. */
FV_INLINE vf vf_normal_cdf(vf x, vf *density) {
    const vf magic = vf_set1(12582912.0f), minus_half = vf_set1(-0.5f);
    vf a = vf_abs(x), h = a * a, low = vf_square_error(a, h);
    vf t = vf_set1(1.0f) / vf_fma(vf_set1(0.35f), a, vf_set1(1.0f));
    vf power = vf_fma(h, vf_set1(-0.721347520f), magic), n = power - magic;
    vf r = vf_fma(n, vf_set1(-0.693145751953125f), minus_half * h);
    r = vf_fma(n, vf_set1(-1.428606820e-06f), r);
    r = vf_fma(minus_half, low, r);
    vf p = vf_exp_remainder(r);
    vf e = vf_keep(vm_lt(a, vf_set1(13.0f)), (vf)((vu)p + ((vu)power << 23)));
    vf q = vf_set1(-2.914607384e-02f);
    q = vf_fma(q, t, vf_set1(1.439723908e-01f));
    q = vf_fma(q, t, vf_set1(-2.557156726e-01f));
    q = vf_fma(q, t, vf_set1(1.591757621e-01f));
    q = vf_fma(q, t, vf_set1(-2.311092318e-02f));
    q = vf_fma(q, t, vf_set1(1.055084576e-01f));
    q = vf_fma(q, t, vf_set1(1.198327548e-01f));
    q = vf_fma(q, t, vf_set1(1.398618850e-01f));
    q = vf_fma(q, t, vf_set1(1.396214034e-01f));
    vf tail = e * t * q;
    *density = e;
    return vf_select(vm_gt(x, vf_zero()), vf_set1(1.0f) - tail, tail);
}

#endif
