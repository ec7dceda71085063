/* problem.h: what a node asks of a library, in the library's terms: sizes and types, no names and no addresses. Equal
 * problems share a plan. Unused fields and padding are zero, so that problems compare as bytes. */
#ifndef FV_CUDA_PROBLEM_H
#define FV_CUDA_PROBLEM_H

#include "cuda/cuda.h"

typedef enum fv_cuda_task { FV_CUDA_CONV, FV_CUDA_CONV_DATA, FV_CUDA_CONV_WEIGHT, FV_CUDA_GEMM } fv_cuda_task;

/* x [n,h,w,c], w [k,r,s,c/groups], y [n,oh,ow,k] */
typedef struct fv_cuda_conv {
    int64_t n, h, w, c, k, r, s, oh, ow;
    int64_t stride[2], before[2], after[2], dilation[2]; /* h, w */
    int64_t groups;
} fv_cuda_conv;

/* c[m,n] = a b (+ bias[m]), column by column as BLAS has it: a [m,k] or its transpose, b [k,n] or its transpose;
 * `batch` of them, one behind the other. Which operand of the node is a, which is b. */
typedef struct fv_cuda_gemm {
    int64_t m, n, k, batch;
    int64_t a_is, b_is;
    int64_t transpose_a, transpose_b;
    int64_t bias;
} fv_cuda_gemm;

typedef struct fv_cuda_problem {
    int64_t task;     /* fv_cuda_task */
    int64_t dtype[3]; /* convolution: x, w, y; else a, b, c */
    int64_t bias_dtype;
    union {
        fv_cuda_conv conv;
        fv_cuda_gemm gemm;
    } of;
} fv_cuda_problem;

/* False for a node that no library is asked about: other operations, depthwise convolutions (our own kernels are
 * better: docs/decisions.md), empty tensors. */
bool fv_cuda_problem_of(const fv_graph *g, const fv_node *node, fv_cuda_problem *out);
/* "conv2d f32 x [..] w [..]" for the log. */
const char *fv_cuda_problem_text(const fv_cuda_problem *p, char *buf, size_t size);

#endif
