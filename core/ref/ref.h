/* ref.h: the reference backend: plain loops that say what each operation computes. It is the specification, the oracle
 * of the tests, and the place to read first. One source serves two element types:
 *
 *   ref_f32.c  real = float  ─┐                        ┌─ fv_ref_f32_kernels
 *   ref_f64.c  real = double ─┴─► kernels.inc ► *.inc ─┴─ fv_ref_f64_kernels
 *
 * With bf16 or f16 among its operands or results an operation is what float64 gives for the same numbers, rounded once
 * (ref_mixed.c).
 *
 * The tables come from ops.def: a kernel that is missing does not compile. Conventions: every float operand and result
 * of a node is `real`; sums are kept in double; tensors are dense and row-major; an optional operand that was not
 * given, and a result that nobody reads, is NULL. Element-wise kernels read element i before they write element i, so a
 * result may share memory with an operand. */
#ifndef FV_CORE_REF_H
#define FV_CORE_REF_H

#include "core/kernel.h"
#include "core/ops.h"
#include <float.h>
#include <math.h>
#include <string.h>

extern const fv_kernel fv_ref_f32_kernels[FV_OP_COUNT];
extern const fv_kernel fv_ref_f64_kernels[FV_OP_COUNT];
extern const fv_kernel fv_ref_mixed_kernels[FV_OP_COUNT];
/* Doubles that a mixed node's operands and results take in front of the kernel's own workspace. */
size_t fv_ref_mixed_doubles(const fv_graph *g, const fv_node *node);

static inline int64_t ref_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}
static inline int64_t ref_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
/* Attributes write 1 as 0. */
static inline int64_t ref_or1(int64_t v) {
    return v > 0 ? v : 1;
}

/* Sizes of a convolution, whichever of x [n,h,w,c], w [k,r,s,cg], y [n,oh,ow,k] are at hand. */
typedef struct ref_conv {
    int64_t n, h, w, c, k, r, s, oh, ow;
    int64_t cg, kg; /* input and output channels per group */
    int64_t stride_h, stride_w, dilation_h, dilation_w, top, left;
} ref_conv;

static inline ref_conv ref_conv_sizes(const int64_t *x, const int64_t *w, const int64_t *y, const fv_conv2d_attr *a) {
    return (ref_conv){
        .n = x[0],
        .h = x[1],
        .w = x[2],
        .c = x[3],
        .k = w[0],
        .r = w[1],
        .s = w[2],
        .oh = y[1],
        .ow = y[2],
        .cg = w[3],
        .kg = w[0] / ref_or1(a->groups),
        .stride_h = ref_or1(a->stride[0]),
        .stride_w = ref_or1(a->stride[1]),
        .dilation_h = ref_or1(a->dilation[0]),
        .dilation_w = ref_or1(a->dilation[1]),
        .top = a->pad[0],
        .left = a->pad[1],
    };
}

/* Sizes of a pooling of x [n,h,w,c] to y [n,oh,ow,c]. */
typedef struct ref_pool {
    int64_t n, h, w, c, oh, ow, kh, kw, stride_h, stride_w, top, left, bottom, right;
} ref_pool;

static inline ref_pool ref_pool_sizes(const int64_t *x, const int64_t *y, const fv_pool_attr *a) {
    return (ref_pool){
        .n = x[0],
        .h = x[1],
        .w = x[2],
        .c = x[3],
        .oh = y[1],
        .ow = y[2],
        .kh = a->kernel[0],
        .kw = a->kernel[1],
        .stride_h = a->stride[0] > 0 ? a->stride[0] : a->kernel[0],
        .stride_w = a->stride[1] > 0 ? a->stride[1] : a->kernel[1],
        .top = a->pad[0],
        .left = a->pad[1],
        .bottom = a->pad[2],
        .right = a->pad[3],
    };
}

/* Operands and results by number; NULL when absent. */
static inline const void *ref_operand(const fv_call *c, int k) {
    return k < c->n_in ? c->in[k].data : NULL;
}
static inline void *ref_result(const fv_call *c, int k) {
    return k < c->n_out ? c->out[k].data : NULL;
}

/* Product of the dimensions from `first` up to, not including, `last`. */
static inline int64_t ref_extent(const fv_type *t, int first, int last) {
    int64_t n = 1;
    for (int i = first; i < last; i++) n *= t->dim[i];
    return n;
}

/* Split a flat index of a tensor into one index per dimension, and back. */
static inline void ref_unravel(int64_t flat, const fv_type *t, int64_t *index) {
    for (int i = t->rank - 1; i >= 0; i--) {
        index[i] = flat % t->dim[i];
        flat /= t->dim[i];
    }
}
static inline int64_t ref_ravel(const int64_t *index, const fv_type *t) {
    int64_t flat = 0;
    for (int i = 0; i < t->rank; i++) flat = flat * t->dim[i] + index[i];
    return flat;
}

#endif
