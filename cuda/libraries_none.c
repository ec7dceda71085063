/* libraries_none.c: instead of libraries.c where the headers of cuBLASLt are not there, and in the emulation:
 * everything runs with kernels of our own. */
#include "cuda/libraries.h"

fv_status fv_cuda_libraries_open(fv_cuda_device *dev, const char *autotune, fv_cuda_libraries **out) {
    (void)autotune;
    *out = NULL;
    fv_log(dev->base.ctx, FV_LOG_DEBUG,
           "built without cuDNN and cuBLASLt: convolutions and products run with kernels of our own");
    return FV_OK;
}

void fv_cuda_libraries_close(fv_cuda_libraries *libraries) {
    (void)libraries;
}

void fv_cuda_libraries_text(const fv_cuda_libraries *libraries, char *buf, size_t size) {
    (void)libraries;
    if (size) buf[0] = '\0';
}

const fv_cuda_library_plan *fv_cuda_library_find(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node) {
    (void)dev, (void)g, (void)node;
    return NULL;
}

size_t fv_cuda_library_workspace(const fv_cuda_library_plan *plan) {
    (void)plan;
    return 0;
}

cudaError_t fv_cuda_library_run(const fv_cuda_library_plan *plan, const fv_cuda_call *c) {
    (void)plan, (void)c;
    return cudaErrorNotSupported;
}
