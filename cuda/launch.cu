/* launch.cu: small kernels beside those of operations: a probe, and what the libraries lack. */
#include "cuda/cuda.h"

#define THREADS 256

__global__ static void probe_kernel(int nothing) {
    (void)nothing;
}

cudaError_t fv_cuda_probe(void) {
    FV_LAUNCH(probe_kernel, 1, 1, 0, (cudaStream_t)0, 0);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? cudaDeviceSynchronize() : error;
}

__global__ static void add_bias_kernel(float *y, const float *bias, int64_t count, int columns) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += (int64_t)gridDim.x * blockDim.x)
        y[i] += bias[i % columns];
}

cudaError_t fv_cuda_add_bias(float *y, const float *bias, int64_t rows, int64_t columns, cudaStream_t stream) {
    const int64_t count = rows * columns, blocks = (count + THREADS - 1) / THREADS;
    if (count == 0) return cudaSuccess;
    FV_LAUNCH(add_bias_kernel, (unsigned)(blocks < 65536 ? blocks : 65536), THREADS, 0, stream, y, bias, count,
              (int)columns);
    return cudaGetLastError();
}
