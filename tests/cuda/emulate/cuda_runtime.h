/* cuda_runtime.h: a CUDA runtime on the host, for tests: the sources of cuda/, compiled by g++ with this folder first
 * in the include path, run here. It is stricter than a GPU where that finds mistakes:
 *
 *   device memory   a region of its own that no one may touch but kernels and copies: host code that does gets SIGSEGV.
 *                   New memory is filled with 0xff. A page that is never accessible lies between two allocations
 *   streams         work is queued and runs when somebody waits for it, stream by stream: results read too early, or on
 *                   another stream without an event, are the old ones
 *   blocks          run in an order that differs from launch to launch, on several threads
 *   threads         of a block are fibers; those of every other launch run from the last to the first, so that a
 *                   missing __syncthreads shows. A barrier that not all threads reach ends the process with a message
 *   limits          of grids, blocks, shared memory and parameters are those of a GPU
 *   memory          runs out after FV_EMULATED_MB megabytes, if that is set in the environment
 *   counters        fv_emulated_count(): launches, copies, allocations, waits, recordings. At the end of the process
 *                   some go to the file $FOVEA_EMULATED_COUNTS, a line each
 *
 * Only what cuda/ uses is here. */
#ifndef FV_TESTS_CUDA_RUNTIME_H
#define FV_TESTS_CUDA_RUNTIME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FV_CUDA_EMULATED 1
#define CUDART_VERSION 13000
#define CUDART_CB

#ifdef __cplusplus
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <math.h>
#include <tuple>
extern "C" {
#endif

typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInsufficientDriver = 35,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorUnknown = 999
} cudaError_t;

const char *cudaGetErrorString(cudaError_t error);
const char *cudaGetErrorName(cudaError_t error);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);

/* ---------------------------------------------------------------- the device: there is one */

typedef struct cudaUUID_st {
    char bytes[16];
} cudaUUID_t;
typedef struct cudaDeviceProp {
    char name[256];
    cudaUUID_t uuid;
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor;
    int major, minor, multiProcessorCount, warpSize, maxThreadsPerBlock, l2CacheSize, regsPerBlock;
    int pciBusID, pciDeviceID, pciDomainID;
} cudaDeviceProp;
enum cudaDeviceAttr {
    cudaDevAttrMaxSharedMemoryPerBlock = 8,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrL2CacheSize = 38,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97
};

cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaGetDeviceCount(int *count);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device);
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device);
cudaError_t cudaDeviceSynchronize(void);

/* ---------------------------------------------------------------- memory */

enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
#define cudaHostAllocDefault 0
#define cudaHostAllocPortable 1
#define cudaHostAllocMapped 2
#define cudaHostAllocWriteCombined 4

typedef struct CUstream_st *cudaStream_t;
typedef struct CUevent_st *cudaEvent_t;
typedef struct CUgraph_st *cudaGraph_t;
typedef struct CUgraphExec_st *cudaGraphExec_t;
typedef struct CUgraphNode_st *cudaGraphNode_t;

#ifdef __cplusplus
#define FV_DEFAULT(value) = value
#else
#define FV_DEFAULT(value)
#endif

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes);
cudaError_t cudaMalloc(void **ptr, size_t bytes);
cudaError_t cudaFree(void *ptr);
cudaError_t cudaMallocHost(void **ptr, size_t bytes);
cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *ptr);
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream FV_DEFAULT(0));
cudaError_t cudaMemset(void *ptr, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream FV_DEFAULT(0));

/* ---------------------------------------------------------------- streams, events, graphs */

#define cudaStreamDefault 0
#define cudaStreamNonBlocking 1
#define cudaEventDefault 0
#define cudaEventBlockingSync 1
#define cudaEventDisableTiming 2

enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
};
typedef void (*cudaHostFn_t)(void *user);

cudaError_t cudaStreamCreate(cudaStream_t *stream);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority);
cudaError_t cudaStreamDestroy(cudaStream_t stream);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaStreamQuery(cudaStream_t stream);
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags FV_DEFAULT(0));
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph);
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status);
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user);

cudaError_t cudaEventCreate(cudaEvent_t *event);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags);
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream FV_DEFAULT(0));
cudaError_t cudaEventSynchronize(cudaEvent_t event);
cudaError_t cudaEventQuery(cudaEvent_t event);
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end);
cudaError_t cudaEventDestroy(cudaEvent_t event);

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags FV_DEFAULT(0));
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count);
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream);
cudaError_t cudaGraphDestroy(cudaGraph_t graph);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec);

/* ---------------------------------------------------------------- what the tests ask */

typedef struct fv_emulated_counts {
    int64_t launches;     /* kernels that ran, those of graphs included */
    int64_t enqueued;     /* kernels that were launched one by one, outside a recording */
    int64_t graphs;       /* cudaGraphLaunch */
    int64_t recordings;   /* cudaStreamEndCapture */
    int64_t copies, sets; /* cudaMemcpy*, cudaMemset* that ran */
    int64_t bytes_up;     /* that copies brought from the host */
    int64_t peak_bytes;   /* most of live_bytes, of all the process */
    int64_t overlaps;     /* cudaGraphLaunch while an earlier one has not run */
    int64_t waits;        /* calls that wait: *Synchronize unless the event is over, cudaMemcpy, cudaFree */
    int64_t allocations, frees, live, live_bytes; /* of device memory */
    int64_t host_live;                            /* of pinned memory */
    int64_t objects;                              /* streams, events, graphs alive */
} fv_emulated_counts;

fv_emulated_counts fv_emulated_count(void);
void fv_emulated_reset(void); /* those counters that do not say what is alive */
/* Bytes of device memory there are from now on; 0: as at the start, 64 GB or what FV_EMULATED_MB says. */
void fv_emulated_limit(size_t bytes);
/* From now on kernels are counted where they would run, and do not: for nets that would take minutes. */
void fv_emulated_only_count(bool on);
/* Names of the kernels that ran since the reset, one a line, each once with how often. */
const char *fv_emulated_kernels(void);

#ifdef __cplusplus
}

#include "emulate.h"
#endif
#endif
