/* tensor.c: element types and shapes. */
#include "core/tensor.h"

#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

const char *fv_dtype_name(fv_dtype dtype) {
    switch (dtype) {
#define FV_DTYPE_NAME(name, text, bytes, st) \
    case name: return text;
        FV_DTYPE_TABLE(FV_DTYPE_NAME)
#undef FV_DTYPE_NAME
    case FV_DTYPE_COUNT: break;
    }
    return "unknown";
}

size_t fv_dtype_size(fv_dtype dtype) {
    switch (dtype) {
#define FV_DTYPE_SIZE(name, text, bytes, st) \
    case name: return bytes;
        FV_DTYPE_TABLE(FV_DTYPE_SIZE)
#undef FV_DTYPE_SIZE
    case FV_DTYPE_COUNT: break;
    }
    return 0;
}

/* By way of the float on the side of zero, its last bit set if x is not that float: so it is never taken for a tie. */
uint16_t fv_low_round_double(fv_dtype low, double x) {
    float near = (float)x;
    uint32_t bits;
    memcpy(&bits, &near, sizeof bits);
    if (fabs((double)near) > fabs(x)) bits--;
    if ((double)near != x) bits |= 1;
    memcpy(&near, &bits, sizeof near);
    return low == FV_F16 ? fv_f16_round(near) : fv_bf16_round(near);
}

fv_type fv_type_make(fv_dtype dtype, int rank, const int64_t *dim) {
    assert(rank >= 0 && rank <= FV_MAX_RANK);
    fv_type type = {.dtype = dtype, .rank = rank};
    for (int i = 0; i < rank; i++) type.dim[i] = dim[i];
    return type;
}

fv_type fv_scalar(fv_dtype dtype) {
    return (fv_type){.dtype = dtype};
}

int64_t fv_count(fv_type type) {
    int64_t count = 1;
    for (int i = 0; i < type.rank; i++) count *= type.dim[i];
    return count;
}

size_t fv_bytes(fv_type type) {
    return (size_t)fv_count(type) * fv_dtype_size(type.dtype);
}

/* Dimensions of 0 are left out of the product, so that [2^40,2^40,0] is refused as any product past int64 is. */
bool fv_type_check(fv_type type, size_t *out_bytes) {
    if ((unsigned)type.dtype >= FV_DTYPE_COUNT || type.rank < 0 || type.rank > FV_MAX_RANK) return false;
    size_t bytes = fv_dtype_size(type.dtype);
    bool empty = false;
    for (int i = 0; i < type.rank; i++) {
        if (type.dim[i] < 0) return false;
        if (type.dim[i] == 0) empty = true;
        else if (!fv_size_mul(bytes, (size_t)type.dim[i], &bytes) || bytes > INT64_MAX) return false;
    }
    if (out_bytes) *out_bytes = empty ? 0 : bytes;
    return true;
}

bool fv_same_shape(fv_type a, fv_type b) {
    if (a.rank != b.rank) return false;
    for (int i = 0; i < a.rank; i++)
        if (a.dim[i] != b.dim[i]) return false;
    return true;
}

bool fv_same_type(fv_type a, fv_type b) {
    return a.dtype == b.dtype && fv_same_shape(a, b);
}

const char *fv_type_text(fv_type type, char *buf, size_t size) {
    if (!size) return buf;
    size_t used = 0;
    int n = snprintf(buf, size, "%s [", fv_dtype_name(type.dtype));
    for (int i = 0; i <= type.rank && i <= FV_MAX_RANK && n >= 0; i++) {
        used += (size_t)n;
        if (used >= size) return buf;
        if (i == type.rank) n = snprintf(buf + used, size - used, "]");
        else n = snprintf(buf + used, size - used, "%s%" PRId64, i ? "," : "", type.dim[i]);
    }
    return buf;
}
