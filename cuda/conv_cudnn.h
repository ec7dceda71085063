/* conv_cudnn.h: convolutions by cuDNN's backend (graph) interface. */
#ifndef FV_CUDA_CONV_CUDNN_H
#define FV_CUDA_CONV_CUDNN_H

#include "cuda/problem.h"

/* Older versions than 9.15.1 are known to access memory out of bounds in CUDA graphs (attention). */
#define FV_CUDNN_FILE "libcudnn.so.9"
#define FV_CUDNN_OLDEST 91501

#ifdef FV_WITHOUT_CUDNN /* built without cudnn.h: conv_none.c has no plan for anything */
typedef void *cudnnHandle_t;
typedef void *cudnnBackendDescriptor_t;
#define FV_CUDNN_FUNCTIONS(X)
#else
#include <cudnn.h>

#define FV_CUDNN_FUNCTIONS(X) \
    X(cudnnGetVersion) \
    X(cudnnCreate) \
    X(cudnnDestroy) \
    X(cudnnSetStream) \
    X(cudnnGetErrorString) \
    X(cudnnBackendCreateDescriptor) \
    X(cudnnBackendDestroyDescriptor) \
    X(cudnnBackendFinalize) \
    X(cudnnBackendSetAttribute) \
    X(cudnnBackendGetAttribute) \
    X(cudnnBackendExecute)
#endif

typedef struct fv_cudnn {
    void *library;
#define FV_CUDNN_MEMBER(name) __typeof__(&name) name;
    FV_CUDNN_FUNCTIONS(FV_CUDNN_MEMBER)
#undef FV_CUDNN_MEMBER
    cudnnHandle_t handle;                /* NULL: plans are made for the device that `properties` describe */
    cudnnBackendDescriptor_t properties; /* NULL with a handle */
} fv_cudnn;

/* The functions out of an open library; false if one is missing. */
bool fv_cudnn_functions(fv_cudnn *cudnn, void *library);
/* 91501: 9.15.1. */
size_t fv_cudnn_version(const fv_cudnn *cudnn);
/* A handle for what runs on a stream; false and why if the GPU cannot be used. Close with fv_cudnn_close. */
bool fv_cudnn_open(fv_cudnn *cudnn, cudaStream_t stream, char *why, size_t size);
void fv_cudnn_close(fv_cudnn *cudnn);
/* Instead of a handle: a device described in cuDNN's own JSON, to plan for it where there is none. */
bool fv_cudnn_describe_device(fv_cudnn *cudnn, const char *json, char *why, size_t size);

#define FV_CUDNN_MOST 8 /* candidates */
#define FV_CUDNN_KEPT 8

typedef struct fv_cudnn_plan {
    cudnnBackendDescriptor_t plan, config;
    int64_t workspace;
    int64_t engine;
    uint64_t name; /* among the candidates of the problem, with this version of the library on this kind of GPU */
    bool runtime_compiled, tensor_cores, any_order; /* any_order: not the same bits in every run */
} fv_cudnn_plan;

/* A problem as cuDNN's graph, and plans for it. */
typedef struct fv_cudnn_plans {
    cudnnBackendDescriptor_t kept[FV_CUDNN_KEPT]; /* the graph, and what it refers to */
    int n_kept;
    bool rounded; /* the gradient of weights is wanted as float32 and comes as the data's type: it must be widened */
    fv_cudnn_plan plan[FV_CUDNN_MOST];
    int n;
    int64_t lacking; /* where there is no plan: the least workspace that one would have needed; 0: it was not that */
} fv_cudnn_plans;

typedef struct fv_cudnn_limits {
    int64_t workspace; /* bytes */
    bool fast;         /* TF32 in float32, large Winograd tiles and sums in any order are allowed */
    int most;          /* plans, at most FV_CUDNN_MOST */
    uint64_t only;     /* the one of this name; 0: any */
} fv_cudnn_limits;

/* Plans within the limits, in the order of cuDNN's heuristics; false and why if there is none. A gradient of weights in
 * float32 out of other data is asked for first, then one that is rounded to that type: cuDNN 9.19 has only those. */
bool fv_cudnn_plans_make(const fv_cudnn *cudnn, const fv_cuda_problem *p, const fv_cudnn_limits *limits,
                         fv_cudnn_plans *out, char *why, size_t size);
/* Free all but plan i, which becomes the only one. */
void fv_cudnn_plans_keep(const fv_cudnn *cudnn, fv_cudnn_plans *plans, int i);
void fv_cudnn_plans_free(const fv_cudnn *cudnn, fv_cudnn_plans *plans);
/* Operands in the order x, w, y of the convolution, whichever of them is the result. NULL, or what went wrong. */
const char *fv_cudnn_run(const fv_cudnn *cudnn, const fv_cudnn_plan *plan, void *const xwy[3], void *workspace);

#endif
