/* tensor.h: element types, shapes, and a view of memory as a tensor. Tensors are dense and row-major; the last
 * dimension is contiguous. Activations are [n,h,w,c], convolution weights [k,r,s,c]. */
#ifndef FV_CORE_TENSOR_H
#define FV_CORE_TENSOR_H

#include "core/status.h"

#include <string.h>

#define FV_MAX_RANK 6

/* X(name, text, bytes, safetensors name) */
#define FV_DTYPE_TABLE(X) \
    X(FV_F32, "f32", 4, "F32") \
    X(FV_F64, "f64", 8, "F64") \
    X(FV_BF16, "bf16", 2, "BF16") \
    X(FV_F16, "f16", 2, "F16") \
    X(FV_I64, "i64", 8, "I64") \
    X(FV_I32, "i32", 4, "I32") \
    X(FV_U8, "u8", 1, "U8")

typedef enum fv_dtype {
#define FV_DTYPE_ENUM(name, text, bytes, st) name,
    FV_DTYPE_TABLE(FV_DTYPE_ENUM)
#undef FV_DTYPE_ENUM
        FV_DTYPE_COUNT
} fv_dtype;

/* "f32"; bytes of one element. */
const char *fv_dtype_name(fv_dtype dtype);
size_t fv_dtype_size(fv_dtype dtype);

typedef struct fv_type {
    fv_dtype dtype;
    int32_t rank; /* 0: a scalar, one element */
    int64_t dim[FV_MAX_RANK];
} fv_type;

/* fv_shape(FV_F32, n, h, w, c) */
#define fv_shape(dtype, ...) \
    fv_type_make((dtype), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
fv_type fv_type_make(fv_dtype dtype, int rank, const int64_t *dim);
fv_type fv_scalar(fv_dtype dtype);

int64_t fv_count(fv_type type);                      /* number of elements; the type must have passed fv_type_check */
size_t fv_bytes(fv_type type);                       /* fv_count * element size */
bool fv_type_check(fv_type type, size_t *out_bytes); /* dims >= 0, rank in range, bytes fit in int64: else false */
bool fv_same_shape(fv_type a, fv_type b);            /* dims only */
bool fv_same_type(fv_type a, fv_type b);             /* dims and dtype */
/* "f32 [128,32,32,16]" into buf; returns buf. */
const char *fv_type_text(fv_type type, char *buf, size_t size);

/* bf16 is the upper half of a float32: 8 bits of exponent, 7 of mantissa. Rounds to nearest, ties to even; NaN stays
 * NaN, and denormals are kept. */
static inline uint16_t fv_bf16_round(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)(bits >> 16 | 0x40); /* quiet */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
static inline float fv_bf16_value(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* f16 is IEEE half: 5 bits of exponent, 10 of mantissa. The largest is 65504, the smallest 2^-24; rounds as bf16 does,
 * from 65520 on to infinity. */
static inline uint16_t fv_f16_round(float x) {
    const uint32_t half = 0x3f000000; /* 0.5, of which 2^-24 is the last bit */
    uint32_t bits, sum;
    float f;
    memcpy(&bits, &x, sizeof bits);
    const uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    bits &= 0x7fffffff;
    if (bits > 0x7f800000) return (uint16_t)(sign | 0x7e00 | (bits >> 13 & 0x1ff)); /* quiet */
    if (bits >= 0x47800000) return (uint16_t)(sign | 0x7c00);                       /* 65536 */
    if (bits >= 0x38800000)                                                         /* 2^-14: a normal half */
        return (uint16_t)(sign | (bits - (112u << 23) + 0xfff + (bits >> 13 & 1)) >> 13);
    memcpy(&f, &bits, sizeof f);
    f += 0.5f;
    memcpy(&sum, &f, sizeof sum);
    return (uint16_t)(sign | (sum - half));
}
static inline float fv_f16_value(uint16_t half) {
    uint32_t bits = (uint32_t)(half & 0x7fff) << 13, sign = (uint32_t)(half & 0x8000) << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    x *= 0x1p112f; /* moves the exponent, of denormals too */
    memcpy(&bits, &x, sizeof bits);
    bits |= sign | ((half & 0x7c00) == 0x7c00 ? 0x7f800000u : 0); /* infinity or NaN */
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* The types of 16 bits that graphs compute with, beside float32 (core/precision.c). Rounding a double rounds it once.
 */
static inline bool fv_is_low(fv_dtype dtype) {
    return dtype == FV_BF16 || dtype == FV_F16;
}
static inline float fv_low_value(fv_dtype low, uint16_t bits) {
    return low == FV_F16 ? fv_f16_value(bits) : fv_bf16_value(bits);
}
uint16_t fv_low_round_double(fv_dtype low, double x);

typedef struct fv_tensor {
    void *data; /* NULL: an optional operand that was not given */
    fv_type type;
} fv_tensor;

#endif
