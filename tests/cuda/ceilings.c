/* ceilings.c: what a GPU can do at most, to judge speeds by: copies, large products of cuBLASLt as the backend asks for
 * them, and what a launch costs alone and in a CUDA graph.
 *
 *   ceilings        a JSON line per figure; exit code 0, 1 if something fails or a product is wrong, 77 without a GPU
 */
#include "cuda/find.h"
#include "cuda/matmul_lt.h"

#include <stdio.h>
#include <string.h>

enum { SIDE = 8192, COPY_MB = 1024, LAUNCHES = 2000, NODES = 200, TIMES = 10 };

typedef struct meter {
    cudaStream_t stream;
    cudaEvent_t start, end;
    cudaError_t error; /* the first */
} meter;

static void check(meter *m, cudaError_t error) {
    if (m->error == cudaSuccess) m->error = error;
}

static void begin(meter *m) {
    check(m, cudaEventRecord(m->start, m->stream));
}
/* Seconds since begin. */
static double seconds(meter *m) {
    float ms = 0;
    check(m, cudaEventRecord(m->end, m->stream));
    check(m, cudaEventSynchronize(m->end));
    check(m, cudaEventElapsedTime(&ms, m->start, m->end));
    return 1e-3 * (double)ms;
}

static void copies(meter *m, char *memory) {
    const size_t bytes = (size_t)COPY_MB << 20;
    for (int i = 0; i <= TIMES; i++) {
        if (i == 1) begin(m); /* the first one warms up */
        check(m, cudaMemcpyAsync(memory, memory + bytes, bytes, cudaMemcpyDeviceToDevice, m->stream));
    }
    printf("{\"ceiling\": \"copy, read and written\", \"GB/s\": %.0f}\n", 2e-9 * TIMES * (double)bytes / seconds(m));
}

/* A launch of next to nothing, one by one and as nodes of a graph. */
static void launches(meter *m, char *memory) {
    cudaGraph_t graph = NULL;
    cudaGraphExec_t exec = NULL;
    const fv_tensor from = {memory, fv_shape(FV_BF16, 8)}, to = {memory + 256, fv_shape(FV_F32, 8)};
    check(m, fv_cuda_convert(&from, &to, m->stream));
    begin(m);
    for (int i = 0; i < LAUNCHES; i++) check(m, fv_cuda_convert(&from, &to, m->stream));
    const double alone = seconds(m) / LAUNCHES;
    check(m, cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < NODES; i++) check(m, fv_cuda_convert(&from, &to, m->stream));
    check(m, cudaStreamEndCapture(m->stream, &graph));
    check(m, cudaGraphInstantiate(&exec, graph, 0));
    if (m->error == cudaSuccess) check(m, cudaGraphLaunch(exec, m->stream));
    begin(m);
    for (int i = 0; i < TIMES && m->error == cudaSuccess; i++) check(m, cudaGraphLaunch(exec, m->stream));
    const double recorded = seconds(m) / (TIMES * NODES);
    printf("{\"ceiling\": \"launch\", \"us\": %.2f}\n{\"ceiling\": \"launch in a graph\", \"us\": %.2f}\n", 1e6 * alone,
           1e6 * recorded);
    if (exec) cudaGraphExecDestroy(exec);
    if (graph) cudaGraphDestroy(graph);
}

/* All bytes of a and b are 0x3f: each element is 0.747 (bf16 and float32 nearly alike), each result SIDE times its
 * square. */
static bool product(meter *m, fv_lt *lt, fv_dtype type, bool fast, char *memory, const char *name) {
    fv_cuda_problem p = {.task = FV_CUDA_GEMM, .dtype = {type, type, type}};
    fv_lt_plan plan;
    char why[256], *a = memory, *b = a + (size_t)4 * SIDE * SIDE, *c = b + (size_t)4 * SIDE * SIDE,
                   *workspace = c + (size_t)4 * SIDE * SIDE;
    uint32_t bits = 0;
    float got;
    p.of.gemm = (fv_cuda_gemm){.m = SIDE, .n = SIDE, .k = SIDE, .batch = 1, .a_is = 1, .transpose_a = 1};
    if (!fv_lt_plan_make(lt, &p, (size_t)32 << 20, fast, 1, &plan, why, sizeof why))
        return printf("{\"ceiling\": \"%s\", \"missing\": \"%s\"}\n", name, why), false;
    check(m, cudaMemsetAsync(a, 0x3f, (size_t)8 * SIDE * SIDE, m->stream));
    for (int i = 0; i <= TIMES; i++) {
        if (i == 1) begin(m);
        if (fv_lt_run(lt, &plan, 0, a, b, c, NULL, workspace, m->stream) != CUBLAS_STATUS_SUCCESS)
            check(m, cudaErrorUnknown);
    }
    const double t = seconds(m) / TIMES, flops = 2.0 * SIDE * SIDE * SIDE;
    check(m, cudaMemcpy((char *)&bits + (type == FV_BF16 ? 2 : 0), c, type == FV_BF16 ? 2 : 4, cudaMemcpyDeviceToHost));
    memcpy(&got, &bits, sizeof got);
    const double element = (double)fv_bf16_value(0x3f3f), off = (double)got / (SIDE * element * element) - 1;
    printf("{\"ceiling\": \"%s\", \"TFLOP/s\": %.1f, \"off\": %.1e}\n", name, 1e-12 * flops / t, off);
    fv_lt_plan_free(lt, &plan);
    return m->error == cudaSuccess && off > -0.01 && off < 0.01;
}

static bool products(meter *m, char *memory) {
    fv_lt lt = {0};
    char file[64];
    snprintf(file, sizeof file, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    void *library = fv_cuda_find_library(file, NULL, NULL);
    if (!library || !fv_lt_functions(&lt, library) || lt.cublasLtCreate(&lt.handle) != CUBLAS_STATUS_SUCCESS)
        return printf("{\"ceiling\": \"products\", \"missing\": \"%s\"}\n", file), false;
    bool good = product(m, &lt, FV_BF16, false, memory, "product of 8192, bf16");
    good = product(m, &lt, FV_F32, false, memory, "product of 8192, float32") && good;
    good = product(m, &lt, FV_F32, true, memory, "product of 8192, TF32") && good;
    lt.cublasLtDestroy(lt.handle);
    return good;
}

int main(void) {
    meter m = {0};
    void *memory = NULL;
    int count = 0;
    if (cudaGetDeviceCount(&count) != cudaSuccess || count == 0) return puts("SKIPPED: there is no GPU"), 77;
    const size_t bytes = (size_t)12 * SIDE * SIDE + ((size_t)COPY_MB << 21);
    check(&m, cudaMalloc(&memory, bytes));
    check(&m, cudaStreamCreateWithFlags(&m.stream, cudaStreamNonBlocking));
    check(&m, cudaEventCreateWithFlags(&m.start, cudaEventDefault));
    check(&m, cudaEventCreateWithFlags(&m.end, cudaEventDefault));
    bool good = m.error == cudaSuccess;
    if (good) {
        check(&m, cudaMemsetAsync(memory, 0, bytes, m.stream));
        copies(&m, memory);
        launches(&m, memory);
        good = products(&m, memory);
    }
    if (m.error != cudaSuccess) printf("FAILED: %s\n", cudaGetErrorString(m.error));
    return good && m.error == cudaSuccess ? 0 : 1;
}
