/* libraries.h: cuDNN for convolutions, cuBLASLt for matrices. Both are opened at run time; where one is absent, or has
 * no plan for a node that keeps what the device promises (the same bits in every run, float32 that is float32), our own
 * kernel runs on the same GPU, and a line of the log says so.
 *
 *   node ──► problem: what it computes, sizes, types ──► plan, made once per problem and device ──► run */
#ifndef FV_CUDA_LIBRARIES_H
#define FV_CUDA_LIBRARIES_H

#include "cuda/cuda.h"

typedef struct fv_cuda_library_plan fv_cuda_library_plan;

/* A plan that needs more workspace is left out: a sixteenth of the GPU's memory, at least 256 MB. */
static inline size_t fv_cuda_workspace_limit(size_t memory_bytes) {
    const size_t least = (size_t)256 << 20;
    return memory_bytes / 16 > least ? memory_bytes / 16 : least;
}

/* Never fails for want of a library, nor where $FOVEA_CUDA_LIBRARIES is "none" (find.h); only for want of memory.
 * `autotune`: the file of what was measured (tune.h); NULL: nothing is measured. */
fv_status fv_cuda_libraries_open(fv_cuda_device *dev, const char *autotune, fv_cuda_libraries **out);
void fv_cuda_libraries_close(fv_cuda_libraries *libraries); /* NULL is fine */
/* "cuDNN 9.19.0, cuBLASLt 13.1.0"; "" if there is none. */
void fv_cuda_libraries_text(const fv_cuda_libraries *libraries, char *buf, size_t size);

/* The library's plan for a node, made when it is first asked for; NULL if there is none. */
const fv_cuda_library_plan *fv_cuda_library_find(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node);
size_t fv_cuda_library_workspace(const fv_cuda_library_plan *plan);
cudaError_t fv_cuda_library_run(const fv_cuda_library_plan *plan, const fv_cuda_call *c);

#endif
