/* cuda.h: the CUDA backend from inside. It is built as its own shared object, libfovea-cuda.so, which the library opens
 * at run time (fv_backend_load); nothing outside cuda/ knows of CUDA.
 *
 *   device.c     open, memory, copies              exec.c  a plan as an array of calls, step data, CUDA graphs, faults
 *   staging.c    the way of batches to the GPU         rewrite.c  the order of nodes
 *   libraries.c  cuDNN and cuBLASLt, as far as they are there: conv_cudnn.c, matmul_lt.c; launch.cu what they lack
 *   kernels/     our own kernels: one per operation (*.cu), and table.cu
 *
 * tests/cuda/emulate/ is a CUDA runtime on the host: the same sources, compiled by g++, run there thread by thread.
 * That is how they are tested on a machine without a GPU.
 *
 * How a kernel is called. Per operation of ops.def there is a launcher
 *
 *   cudaError_t fv_cuda_<op>(const fv_cuda_call *c);
 *
 * It enqueues on c->stream and returns cudaGetLastError() (or what went wrong). It reads no device memory, allocates
 * nothing, waits for nothing, and depends on nothing that changes from step to step: its launches are recorded once
 * into a CUDA graph and replayed. What changes lies in device memory (c->step). Kernels are launched with FV_LAUNCH,
 * never with <<<>>>, so that the emulation can run them.
 *
 * In place, absent operands and unread results: as in core/kernel.h. Results are the same bits in every run: fixed
 * tiles, no atomics on floats. */
#ifndef FV_CUDA_CUDA_H
#define FV_CUDA_CUDA_H

#include <cuda_runtime.h>

#ifdef __cplusplus
extern "C" {
#endif
#include "core/ops.h"
#include "core/program.h"

/* ---------------------------------------------------------------- the device */

typedef struct fv_cuda_libraries fv_cuda_libraries; /* cuDNN and cuBLASLt, as far as they were found */
typedef struct fv_cuda_staging fv_cuda_staging;     /* memory through which copies go to the device (staging.c) */

typedef struct fv_cuda_device {
    fv_device base;
    int index;           /* which GPU */
    int major, minor;    /* compute capability */
    int multiprocessors; /* 132 on an H200 */
    size_t shared_bytes; /* shared memory a block may opt in to */
    size_t l2_bytes;
    size_t memory_bytes;
    bool graphs;         /* record what is enqueued into CUDA graphs */
    bool fast;           /* TF32 in float32, and sums that run in any order, are allowed */
    cudaStream_t stream; /* all work runs on it */
    cudaStream_t copies; /* but large copies from the host, which run beside it (staging.c) */
    size_t bytes;        /* memory that is held */
    fv_cuda_libraries *libraries;
    fv_cuda_staging *staging;
} fv_cuda_device;

/* ---------------------------------------------------------------- faults: errors that a kernel finds in the data */

typedef enum fv_cuda_fault_kind {
    FV_CUDA_NO_FAULT,
    FV_CUDA_FAULT_LABEL, /* datum: the label, its row. "label 12 of row 3 is outside [0, 10)" */
    FV_CUDA_FAULT_INDEX, /* of gather, likewise. "index 12 of row 3 is outside [0, 10)" */
} fv_cuda_fault_kind;

/* Device memory; the first fault of an exec stays until the host has read it. A kernel sets kind by atomicCAS from
 * FV_CUDA_NO_FAULT, and who wins writes the rest. */
typedef struct fv_cuda_fault {
    int32_t kind;
    int32_t node;     /* fv_cuda_call.node_index */
    int64_t datum[2]; /* by kind */
} fv_cuda_fault;

/* ---------------------------------------------------------------- one call */

typedef struct fv_cuda_call {
    const fv_attr *attr; /* host memory; hand parts of it to kernels by value */
    const fv_graph *graph;
    const fv_node *node;
    int32_t node_index;
    const char *scope;
    uint32_t stream_key; /* random stream (node->stream) */
    int n_in, n_out;
    const fv_tensor *in, *out;               /* host memory; .data are device pointers, NULL when absent or unread */
    const fv_tensor *device_in, *device_out; /* the same arrays in device memory, for lists of any length */
    const fv_step *step;                     /* DEVICE memory */
    /* Itself and calls behind it that run in its launch, in order; 0: it runs in that of one before it, or by a
     * library. Host memory. */
    const struct fv_cuda_call *const *joined;
    int n_joined;
    void *table; /* DEVICE memory that fv_cuda_kernel_table filled; NULL: it has none */
    size_t table_bytes;
    void *workspace; /* device memory, 256-byte aligned, contents undefined, shared with other nodes */
    size_t workspace_bytes;
    fv_cuda_fault *fault; /* DEVICE memory */
    int32_t *halted;      /* DEVICE memory: a step that was not finite had fv_step.halts; set by grad_stats */
    cudaStream_t stream;
    fv_cuda_device *device;
} fv_cuda_call;

typedef cudaError_t (*fv_cuda_kernel)(const fv_cuda_call *c);

/* FV_OK, or FV_E_MEMORY with what failed, CUDA's name for it and its text. */
fv_status fv_cuda_check(fv_device *dev, cudaError_t error, const char *what);

/* ---------------------------------------------------------------- staging.c */

fv_status fv_cuda_staging_create(fv_cuda_device *dev);
/* Room for two batches of inputs of so many bytes, so that one can be filled while the other is on its way. Where there
 * is no memory for it, copies wait more often. */
void fv_cuda_staging_fit(fv_cuda_device *dev, size_t batch_bytes);
/* Copy to the device, in order with dev->stream. The host may change `from` on return. */
cudaError_t fv_cuda_stage(fv_cuda_device *dev, void *to, const void *from, size_t bytes);
void fv_cuda_staging_destroy(fv_cuda_device *dev);

/* ---------------------------------------------------------------- rewrite.c */

fv_status fv_cuda_rewrite(fv_device *dev, fv_graph *g);

/* ---------------------------------------------------------------- exec.c */

fv_status fv_cuda_compile(fv_device *dev, const fv_plan *plan, fv_exec **out);
fv_status fv_cuda_enqueue(fv_exec *exec, uint32_t segments);
fv_status fv_cuda_set_step(fv_exec *exec, const fv_step *step);
fv_status fv_cuda_fetch(fv_exec *exec, const fv_fetch *list, int n);
fv_status fv_cuda_fetched(fv_exec *exec);
void fv_cuda_destroy(fv_exec *exec);
fv_status fv_cuda_profile(fv_exec *exec, bool on);
const double *fv_cuda_node_seconds(fv_exec *exec);

/* ---------------------------------------------------------------- launch.cu */

/* Whether this build has kernels for the GPU in use. */
cudaError_t fv_cuda_probe(void);
/* y [...,c] += bias [c]; y float32, bf16 or f16. */
cudaError_t fv_cuda_add_bias(const fv_tensor *y, const float *bias, cudaStream_t stream);
/* y = x as another of float32, bf16 and f16, rounded to nearest. */
cudaError_t fv_cuda_convert(const fv_tensor *x, const fv_tensor *y, cudaStream_t stream);

/* ---------------------------------------------------------------- what kernels/ provides */

/* Weak, so that an operation whose kernel is still to be written is NULL in the table, and not a link error. */
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    cudaError_t fv_cuda_##name(const fv_cuda_call *c) __attribute__((weak));
#include "core/ops.def"

extern const fv_cuda_kernel fv_cuda_kernels[FV_OP_COUNT]; /* kernels/table.cu */

/* Whether our own kernel takes the node with its element types and shapes; if not, why. */
bool fv_cuda_kernel_supports(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node, char *why, size_t size);
/* Bytes of workspace that it needs. */
size_t fv_cuda_kernel_workspace(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node);
/* Whether `next`, which comes right behind calls that are one launch, can become part of it, with the same results. */
bool fv_cuda_kernel_joins(const fv_cuda_call *const *calls, int n, const fv_cuda_call *next);
/* A table that it wants in device memory (which block works on which tensor of an update, say, or counters): returns
 * its bytes, 0 for none; with `host` given, which is zeros, fills it. Called at compile, when all of the call but
 * `table` is known. Nobody else writes to it: it is the same at every launch but for what the kernel leaves there. */
size_t fv_cuda_kernel_table(const fv_cuda_call *c, void *host);

#ifdef __cplusplus
}
#endif

/* ---------------------------------------------------------------- launching */

/* FV_LAUNCH(kernel, grid, block, shared_bytes, stream, arguments...). The emulation has its own (its cuda_runtime.h).
 */
#if defined(__CUDACC__) && !defined(FV_LAUNCH)
#define FV_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    kernel<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#endif

#endif
