/* matmul_lt.h: products of matrices by cuBLASLt. */
#ifndef FV_CUDA_MATMUL_LT_H
#define FV_CUDA_MATMUL_LT_H

#include "cuda/problem.h"

#include <cublasLt.h>

#define FV_LT_FUNCTIONS(X) \
    X(cublasLtGetVersion) \
    X(cublasLtCreate) \
    X(cublasLtDestroy) \
    X(cublasLtMatmul) \
    X(cublasLtMatmulDescCreate) \
    X(cublasLtMatmulDescDestroy) \
    X(cublasLtMatmulDescSetAttribute) \
    X(cublasLtMatrixLayoutCreate) \
    X(cublasLtMatrixLayoutDestroy) \
    X(cublasLtMatrixLayoutSetAttribute) \
    X(cublasLtMatmulPreferenceCreate) \
    X(cublasLtMatmulPreferenceDestroy) \
    X(cublasLtMatmulPreferenceSetAttribute) \
    X(cublasLtMatmulAlgoGetHeuristic)

typedef struct fv_lt {
    void *library;
#define FV_LT_MEMBER(name) __typeof__(&name) name;
    FV_LT_FUNCTIONS(FV_LT_MEMBER)
#undef FV_LT_MEMBER
    cublasLtHandle_t handle;
} fv_lt;

bool fv_lt_functions(fv_lt *lt, void *library); /* false if one is missing */

/* The algorithm is chosen once: every run takes the same. */
typedef struct fv_lt_plan {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    bool rounded; /* the bias is float32 and must be rounded to the type of c: nothing else can be added to it */
} fv_lt_plan;

/* False and why if there is none. */
bool fv_lt_plan_make(const fv_lt *lt, const fv_cuda_problem *p, size_t workspace, bool fast, fv_lt_plan *out, char *why,
                     size_t size);
/* All but the algorithm, for which a GPU must be asked. */
bool fv_lt_describe(const fv_lt *lt, const fv_cuda_problem *p, bool fast, fv_lt_plan *out);
void fv_lt_plan_free(const fv_lt *lt, fv_lt_plan *plan);
cublasStatus_t fv_lt_run(const fv_lt *lt, const fv_lt_plan *plan, const void *a, const void *b, void *c,
                         const void *bias, void *workspace, size_t workspace_bytes, cudaStream_t stream);

#endif
