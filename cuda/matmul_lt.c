/* matmul_lt.c: see matmul_lt.h. */
#include "cuda/matmul_lt.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

bool fv_lt_functions(fv_lt *lt, void *library) {
    void *symbol;
    lt->library = library;
#define FIND(name) \
    if (!(symbol = dlsym(library, #name))) return false; \
    memcpy(&lt->name, &symbol, sizeof symbol);
    FV_LT_FUNCTIONS(FIND)
#undef FIND
    return true;
}

static cudaDataType_t type_of(int64_t dtype) {
    return dtype == FV_BF16 ? CUDA_R_16BF : dtype == FV_F16 ? CUDA_R_16F : CUDA_R_32F;
}

static bool describe_product(const fv_lt *lt, const fv_cuda_problem *p, bool fast, fv_lt_plan *out) {
    const fv_cuda_gemm *g = &p->of.gemm;
    const bool f32 = p->dtype[0] == FV_F32;
    const cublasComputeType_t compute = f32 && fast ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F;
    const cublasOperation_t a = g->transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N,
                            b = g->transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasLtEpilogue_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const int32_t bias_type = type_of(p->dtype[2]);
    bool good = lt->cublasLtMatmulDescCreate(&out->product, compute, CUDA_R_32F) == CUBLAS_STATUS_SUCCESS;
    struct {
        cublasLtMatmulDescAttributes_t name;
        const void *value;
        size_t bytes;
        bool wanted;
    } set[] = {{CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a, true},
               {CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b, true},
               {CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue, g->bias != 0},
               {CUBLASLT_MATMUL_DESC_BIAS_DATA_TYPE, &bias_type, sizeof bias_type, g->bias != 0}};
    for (size_t i = 0; i < sizeof set / sizeof *set && good; i++)
        if (set[i].wanted)
            good = lt->cublasLtMatmulDescSetAttribute(out->product, set[i].name, set[i].value, set[i].bytes) ==
                   CUBLAS_STATUS_SUCCESS;
    return good;
}

/* [rows, columns], column by column, `batch` of them. */
static bool describe_matrix(const fv_lt *lt, int64_t dtype, int64_t rows, int64_t columns, int64_t batch,
                            cublasLtMatrixLayout_t *out) {
    const int32_t count = (int32_t)batch;
    const int64_t stride = rows * columns;
    if (batch > INT32_MAX) return false;
    return lt->cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)rows, (uint64_t)columns, rows) ==
               CUBLAS_STATUS_SUCCESS &&
           lt->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count) ==
               CUBLAS_STATUS_SUCCESS &&
           lt->cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &stride,
                                                sizeof stride) == CUBLAS_STATUS_SUCCESS;
}

bool fv_lt_describe(const fv_lt *lt, const fv_cuda_problem *p, bool fast, fv_lt_plan *out) {
    const fv_cuda_gemm *g = &p->of.gemm;
    *out = (fv_lt_plan){.rounded = g->bias && p->bias_dtype - 1 != p->dtype[2]};
    return describe_product(lt, p, fast, out) &&
           describe_matrix(lt, p->dtype[0], g->transpose_a ? g->k : g->m, g->transpose_a ? g->m : g->k, g->batch,
                           &out->a) &&
           describe_matrix(lt, p->dtype[1], g->transpose_b ? g->n : g->k, g->transpose_b ? g->k : g->n, g->batch,
                           &out->b) &&
           describe_matrix(lt, p->dtype[2], g->m, g->n, g->batch, &out->c);
}

/* Sums of parts in an order of their own (atomics) would not give the same bits in every run: without `fast` only those
 * are allowed that add the parts in order, in float32. Tensors are aligned to 64 bytes (core/plan.c), not to 256, the
 * default. */
static bool find_algorithms(const fv_lt *lt, size_t workspace, bool fast, int most, fv_lt_plan *out) {
    const uint32_t in_order = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE,
                   schemes = fast ? CUBLASLT_REDUCTION_SCHEME_MASK : in_order, alignment = 64;
    const struct {
        cublasLtMatmulPreferenceAttributes_t name;
        const void *value;
        size_t bytes;
    } set[] = {{CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace, sizeof workspace},
               {CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, &alignment, sizeof alignment},
               {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, &alignment, sizeof alignment}};
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found[FV_LT_MOST];
    int n = 0;
    bool good = lt->cublasLtMatmulPreferenceCreate(&wish) == CUBLAS_STATUS_SUCCESS;
    for (size_t i = 0; i < sizeof set / sizeof *set && good; i++)
        good = lt->cublasLtMatmulPreferenceSetAttribute(wish, set[i].name, set[i].value, set[i].bytes) ==
               CUBLAS_STATUS_SUCCESS;
    good = good && lt->cublasLtMatmulAlgoGetHeuristic(lt->handle, out->product, out->a, out->b, out->c, out->c, wish,
                                                      most, found, &n) == CUBLAS_STATUS_SUCCESS;
    if (wish) lt->cublasLtMatmulPreferenceDestroy(wish);
    for (int i = 0; good && i < n; i++)
        if (found[i].state == CUBLAS_STATUS_SUCCESS)
            out->algorithm[out->n++] = (fv_lt_algorithm){found[i].algo, found[i].workspaceSize,
                                                         XXH3_64bits(&found[i].algo, sizeof found[i].algo)};
    return out->n > 0;
}

bool fv_lt_plan_make(const fv_lt *lt, const fv_cuda_problem *p, size_t workspace, bool fast, int most, fv_lt_plan *out,
                     char *why, size_t size) {
    bool described = fv_lt_describe(lt, p, fast, out);
    if (described && find_algorithms(lt, workspace, fast, most, out)) return true;
    snprintf(why, size, "%s", described ? "no algorithm" : "it cannot be described");
    fv_lt_plan_free(lt, out);
    return false;
}

void fv_lt_plan_keep(fv_lt_plan *plan, int i) {
    plan->algorithm[0] = plan->algorithm[i];
    plan->n = 1;
}

void fv_lt_plan_free(const fv_lt *lt, fv_lt_plan *plan) {
    if (plan->a) lt->cublasLtMatrixLayoutDestroy(plan->a);
    if (plan->b) lt->cublasLtMatrixLayoutDestroy(plan->b);
    if (plan->c) lt->cublasLtMatrixLayoutDestroy(plan->c);
    if (plan->product) lt->cublasLtMatmulDescDestroy(plan->product);
    *plan = (fv_lt_plan){0};
}

cublasStatus_t fv_lt_run(const fv_lt *lt, const fv_lt_plan *plan, int i, const void *a, const void *b, void *c,
                         const void *bias, void *workspace, cudaStream_t stream) {
    const float one = 1, zero = 0;
    if (bias) {
        cublasStatus_t status =
            lt->cublasLtMatmulDescSetAttribute(plan->product, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
        if (status != CUBLAS_STATUS_SUCCESS) return status;
    }
    return lt->cublasLtMatmul(lt->handle, plan->product, &one, a, plan->a, b, plan->b, &zero, c, plan->c, c, plan->c,
                              &plan->algorithm[i].algorithm, workspace, plan->algorithm[i].workspace, stream);
}
