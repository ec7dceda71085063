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

#define FV_LT_MOST 8 /* candidates */

typedef struct fv_lt_algorithm {
    cublasLtMatmulAlgo_t algorithm;
    size_t workspace;
    uint64_t name; /* a hash of it: the same for this version of the library */
} fv_lt_algorithm;

/* The algorithm is chosen once: every run takes the same. */
typedef struct fv_lt_plan {
    cublasLtMatmulDesc_t product;
    cublasLtMatrixLayout_t a, b, c;
    fv_lt_algorithm algorithm[FV_LT_MOST]; /* as heuristics have it, best first */
    int n;
    bool rounded; /* the bias is float32 and must be rounded to the type of c: nothing else can be added to it */
} fv_lt_plan;

/* With up to `most` algorithms, at most FV_LT_MOST. False and why if there is none. */
bool fv_lt_plan_make(const fv_lt *lt, const fv_cuda_problem *p, size_t workspace, bool fast, int most, fv_lt_plan *out,
                     char *why, size_t size);
/* Algorithm i becomes the only one. */
void fv_lt_plan_keep(fv_lt_plan *plan, int i);
/* All but the algorithm, for which a GPU must be asked. */
bool fv_lt_describe(const fv_lt *lt, const fv_cuda_problem *p, bool fast, fv_lt_plan *out);
void fv_lt_plan_free(const fv_lt *lt, fv_lt_plan *plan);
/* By algorithm i. */
cublasStatus_t fv_lt_run(const fv_lt *lt, const fv_lt_plan *plan, int i, const void *a, const void *b, void *c,
                         const void *bias, void *workspace, cudaStream_t stream);

#endif
