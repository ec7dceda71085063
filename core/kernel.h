/* kernel.h: how a host kernel (ref, cpu) is called. One function per operation and backend:
 *
 *   static void cpu_linear(const fv_call *c) { const float *x = c->in[0].data; ... c->out[0].data ... }
 *
 * In place: for activation, activation_bwd, add, sub, mul, scale, dropout, drop_path, batch_norm_infer,
 * batch_norm_bwd, layer_norm_bwd, activated_linear_bwd_data and linear_act the planner may let result 0 share the
 * memory of an operand of the same shape (batch_norm_*: operand 0; layer_norm_bwd, linear_act: the residual). Read an
 * element before you write it, and promise no `restrict` between them.
 *
 * Shapes were checked when the graph was built; kernels validate nothing but data (labels), through fv_kernel_fault. */
#ifndef FV_CORE_KERNEL_H
#define FV_CORE_KERNEL_H

#include "core/backend.h"

typedef struct fv_fault { /* first fault of an exec; written under a lock */
    volatile int set;
    fv_status code;
    char text[256];
} fv_fault;

typedef struct fv_call {
    const fv_attr *attr;
    const char *scope;
    uint32_t stream;
    int n_in, n_out;
    const fv_tensor *in;  /* absent operands have data NULL. State ops write through in[...].data */
    const fv_tensor *out; /* results nobody reads may have data NULL: do not compute them */
    const fv_step *step;
    void *workspace; /* 64-byte aligned, `workspace_bytes` as the backend asked for; contents undefined */
    size_t workspace_bytes;
    void *prepared; /* 64-byte aligned: what the node keeps of operands that do not change; NULL: nothing */
    bool preparing; /* fill `prepared` from these operands and do no more; else it is filled */
    fv_pool *pool;  /* ref: NULL */
    fv_device *device;
    fv_fault *fault;
} fv_call;

typedef void (*fv_kernel)(const fv_call *c);

/* Record a fault (the first wins; thread-safe). The program reports it after the step. */
void fv_kernel_fault(const fv_call *c, fv_status code, const char *fmt, ...) FV_PRINTF(3, 4);

/* What a node's floats are, and so which kernel it takes. MIXED: some are bf16 or f16, the others float32. */
typedef enum fv_kernel_type { FV_KERNEL_F32, FV_KERNEL_F64, FV_KERNEL_MIXED, FV_KERNEL_TYPES } fv_kernel_type;
fv_kernel_type fv_host_kernel_type(const fv_graph *g, const fv_node *node);

/* Shared by ref and cpu: compile a plan to an array of calls. kernels[op][type]; NULL: not supported. */
fv_status fv_host_compile(fv_device *dev, fv_pool *pool, const fv_plan *plan,
                          const fv_kernel (*kernels)[FV_KERNEL_TYPES], fv_exec **out);
fv_status fv_host_enqueue(fv_exec *exec, uint32_t segments);
fv_status fv_host_set_step(fv_exec *exec, const fv_step *step);
fv_status fv_host_fetch(fv_exec *exec, const fv_fetch *list, int n);
fv_status fv_host_fetched(fv_exec *exec);
void fv_host_destroy(fv_exec *exec);
fv_status fv_host_prepare(fv_exec *exec);
fv_status fv_host_alloc(fv_device *dev, size_t bytes, void **out); /* zeroed; huge pages when large */
void fv_host_free(fv_device *dev, void *ptr, size_t bytes);
fv_status fv_host_copy(fv_device *dev, void *dst, const void *src, size_t bytes, fv_copy_kind kind);

/* Seconds per node (backend.h). */
fv_status fv_host_profile(fv_exec *exec, bool on);
const double *fv_host_node_seconds(fv_exec *exec);

/* What the machine can do at most with all threads of a cpu device, measured in about 0.3 s: floating-point operations
 * per second with its vectors, in registers; bytes read and written per second, memory to memory. Zeros for another
 * kind of device. */
typedef struct fv_ceilings {
    double flops, bytes;
} fv_ceilings;
fv_status fv_cpu_ceilings(fv_device *dev, fv_ceilings *out);

#endif
