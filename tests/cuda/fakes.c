/* fakes.c: a cuDNN and a cuBLASLt that open without a GPU and compute nothing, so that what libraries.c makes of them
 * can be seen: which it takes, and what it says. With -DFAKE_CUDNN libcudnn.so.9, else libcublasLt.so.N.
 *
 *   FAKE_VERSION     what cuDNN says it is (default 91900)
 *   FAKE_WORKSPACE   MB of workspace that its one engine, number 7, needs (default 0)
 *   FAKE_NOTE        its numerical note, as a number of cudnnBackendNumericalNote_t (default: none)
 *
 * Heuristics count more configurations than they were asked for, as cuDNN may. A descriptor that it has not made ends
 * the process. */
#include <stdio.h>
#include <stdlib.h>

#ifdef FAKE_CUDNN
#include <cudnn.h>

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

enum { PROPOSED = 100, MAGIC = 0x5ca1ab1e };

typedef struct fake {
    int magic;
} fake;

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? strtol(text, NULL, 10) : otherwise;
}

static void must_be_ours(cudnnBackendDescriptor_t d) {
    if (d && ((fake *)d)->magic == MAGIC) return;
    fprintf(stderr, "fake cuDNN: this is no descriptor\n");
    abort();
}

size_t cudnnGetVersion(void) {
    return (size_t)number("FAKE_VERSION", 91900);
}
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
    *handle = calloc(1, 1);
    return *handle ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_ALLOC_FAILED;
}
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
    free(handle);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
    (void)handle, (void)stream;
    return CUDNN_STATUS_SUCCESS;
}
const char *cudnnGetErrorString(cudnnStatus_t status) {
    return status == CUDNN_STATUS_EXECUTION_FAILED ? "the fake runs nothing" : "an error of the fake";
}

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out) {
    fake *d = malloc(sizeof *d);
    (void)type;
    *out = d;
    if (!d) return CUDNN_STATUS_ALLOC_FAILED;
    d->magic = MAGIC;
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
    must_be_ours(d);
    ((fake *)d)->magic = 0;
    free(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d) {
    must_be_ours(d);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t count, const void *values) {
    (void)name;
    must_be_ours(d);
    for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < count; i++)
        must_be_ours(((void *const *)values)[i]);
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name,
                                       cudnnBackendAttributeType_t type, int64_t asked, int64_t *count, void *values) {
    (void)type, (void)asked;
    must_be_ours(d);
    *count = 1;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) *count = PROPOSED;
    if (name == CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE) *count = 0;
    if (name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) *(int64_t *)values = 7;
    if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE)
        *(int64_t *)values = (int64_t)1000000 * number("FAKE_WORKSPACE", 0);
    if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
        const long note = number("FAKE_NOTE", -1);
        *count = note >= 0;
        if (note >= 0) *(cudnnBackendNumericalNote_t *)values = (cudnnBackendNumericalNote_t)note;
    }
    return CUDNN_STATUS_SUCCESS;
}
cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t pack) {
    (void)handle;
    must_be_ours(plan);
    must_be_ours(pack);
    return CUDNN_STATUS_EXECUTION_FAILED;
}

#else
#include <cublasLt.h>

size_t cublasLtGetVersion(void) {
    return CUBLAS_VERSION;
}

/* The preferences say which sums are allowed; no algorithm is found for any. */
static uint32_t schemes;

#define WORKS(name, ...) \
    cublasStatus_t name(__VA_ARGS__) { \
        return CUBLAS_STATUS_SUCCESS; \
    }
#pragma GCC diagnostic ignored "-Wunused-parameter"
WORKS(cublasLtCreate, cublasLtHandle_t *handle)
WORKS(cublasLtDestroy, cublasLtHandle_t handle)
WORKS(cublasLtMatmulDescCreate, cublasLtMatmulDesc_t *d, cublasComputeType_t compute, cudaDataType_t scale)
WORKS(cublasLtMatmulDescDestroy, cublasLtMatmulDesc_t d)
WORKS(cublasLtMatmulDescSetAttribute, cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t name, const void *value,
      size_t bytes)
WORKS(cublasLtMatrixLayoutCreate, cublasLtMatrixLayout_t *l, cudaDataType type, uint64_t rows, uint64_t columns,
      int64_t ld)
WORKS(cublasLtMatrixLayoutDestroy, cublasLtMatrixLayout_t l)
WORKS(cublasLtMatrixLayoutSetAttribute, cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t name,
      const void *value, size_t bytes)
WORKS(cublasLtMatmulPreferenceCreate, cublasLtMatmulPreference_t *p)
WORKS(cublasLtMatmulPreferenceDestroy, cublasLtMatmulPreference_t p)

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t p,
                                                    cublasLtMatmulPreferenceAttributes_t name, const void *value,
                                                    size_t bytes) {
    if (name == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK) schemes = *(const uint32_t *)value;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t p, int most,
                                              cublasLtMatmulHeuristicResult_t results[], int *found) {
    fprintf(stderr, "fake cuBLASLt: sums of schemes %u\n", schemes);
    *found = 0;
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmul(cublasLtHandle_t handle, cublasLtMatmulDesc_t d, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t a_layout, const void *b, cublasLtMatrixLayout_t b_layout,
                              const void *beta, const void *c, cublasLtMatrixLayout_t c_layout, void *out,
                              cublasLtMatrixLayout_t out_layout, const cublasLtMatmulAlgo_t *algorithm, void *workspace,
                              size_t bytes, cudaStream_t stream) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
}
#endif
