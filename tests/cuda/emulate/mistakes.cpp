/* mistakes.cpp: kernels and host code with one mistake each, to test that the emulation finds it
 * (tests/test_cuda_kernels.c); and a check of index arithmetic that needs the headers of the kernels. */
#include "cuda/kernels/gemm.cuh"

#include <mma.h>

extern "C" int64_t fv_emulated_wrong_quotient(void);
extern "C" int fv_emulated_wrong_sums_of_nothing(void);
extern "C" int fv_emulated_do_wrong(int which);

/* Half of the block does not come to the barrier. */
__global__ void half_a_barrier_kernel(float *y) {
    if (threadIdx.x < 32) __syncthreads();
    y[threadIdx.x] = 1;
}

/* A line is read before the others have written it: right only if threads happen to run in one order. */
__global__ void no_barrier_kernel(float *y) {
    __shared__ float line[64];
    line[threadIdx.x] = (float)threadIdx.x;
    y[threadIdx.x] = line[63 - threadIdx.x];
}

__global__ void past_the_end_kernel(float *y, int64_t far) {
    y[far] = 1;
}

/* Fragments lie where 32 bytes begin. */
__global__ void between_fragments_kernel(float *y) {
    nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, float> sum;
    nvcuda::wmma::fill_fragment(sum, 1.0f);
    nvcuda::wmma::store_matrix_sync(y + 4, sum, 16, nvcuda::wmma::mem_row_major);
}

__global__ void fine_kernel(float *y) {
    __shared__ float line[64];
    line[threadIdx.x] = (float)threadIdx.x;
    __syncthreads();
    y[threadIdx.x] = line[63 - threadIdx.x];
}

/* How often 64 results of a kernel that turns a line round are not those it should give. */
static int turned_wrong(void (*kernel)(float *), float *memory) {
    int wrong = 0;
    for (int launch = 0; launch < 4; launch++) {
        float line[64];
        FV_LAUNCH(kernel, 1, 64, 0, 0, memory);
        cudaMemcpy(line, memory, sizeof line, cudaMemcpyDeviceToHost);
        for (int i = 0; i < 64; i++) wrong += line[i] != (float)(63 - i);
    }
    return wrong;
}

/* 0: nothing is wrong; returns how much was noticed, if the process lives. */
int fv_emulated_do_wrong(int which) {
    void *memory;
    float host[64];
    if (cudaMalloc(&memory, 4096) != cudaSuccess) return -1;
    float *y = static_cast<float *>(memory);
    int noticed = 0;
    switch (which) {
    case 0: noticed = turned_wrong(fine_kernel, y); break;
    case 1: noticed = turned_wrong(no_barrier_kernel, y); break;
    case 2: /* ends the process */
        FV_LAUNCH(half_a_barrier_kernel, 1, 64, 0, 0, y);
        cudaDeviceSynchronize();
        break;
    case 3: y[0] = 1; break; /* the host writes to device memory */
    case 4:                  /* a page past the end */
        FV_LAUNCH(past_the_end_kernel, 1, 1, 0, 0, y, (int64_t)1024);
        cudaDeviceSynchronize();
        break;
    case 5:
        FV_LAUNCH(fine_kernel, 0, 64, 0, 0, y);
        noticed = cudaGetLastError() != cudaSuccess;
        break;
    case 6:
        FV_LAUNCH(fine_kernel, 1, 1056, 0, 0, y);
        noticed = cudaGetLastError() != cudaSuccess;
        break;
    case 7: noticed = cudaMemcpy(y + 1000, host, sizeof host, cudaMemcpyHostToDevice) != cudaSuccess; break;
    case 8: noticed = cudaMemcpy(host, y, sizeof host, cudaMemcpyHostToDevice) != cudaSuccess; break;
    case 9: { /* results are not there before somebody waits */
        void *pinned;
        cudaHostAlloc(&pinned, sizeof host, 0);
        memset(pinned, 0, sizeof host);
        FV_LAUNCH(fine_kernel, 1, 64, 0, 0, y);
        cudaMemcpyAsync(pinned, y, sizeof host, cudaMemcpyDeviceToHost, 0);
        noticed = static_cast<float *>(pinned)[0] == 0;
        cudaFreeHost(pinned);
        break;
    }
    case 10: /* ends the process */
        FV_LAUNCH(between_fragments_kernel, 1, 32, 0, 0, y);
        cudaDeviceSynchronize();
        break;
    default: noticed = -1;
    }
    cudaFree(memory);
    return noticed;
}

/* The first (d << 32 | n) whose quotient is wrong; -1: none. */
int64_t fv_emulated_wrong_quotient(void) {
    for (int64_t i = 0; i < 4000; i++) {
        const int64_t d = i < 3000 ? i + 1 : INT32_MAX - (i - 3000) * 12345;
        const fv_divisor by = fv_divisor_of(d);
        for (int64_t j = 0; j < 600; j++) {
            const int64_t near = (INT32_MAX / d - (j < 300 ? j : 0)) * d + j % 3 - 1; /* about multiples of d */
            const int64_t n = j < 300 ? near : j < 400 ? j - 300 : (int64_t)(j * 2654435761u % INT32_MAX);
            if (n < 0 || n > INT32_MAX) continue;
            int rest;
            if (fv_split((int)n, by, &rest) != n / d || rest != n % d) return d << 32 | n;
        }
    }
    return -1;
}

/* A product [5,0] [0,7], which no operation has today, is zeros: how many are something else, -1 if it does not run. */
int fv_emulated_wrong_sums_of_nothing(void) {
    enum { M = 5, N = 7 };
    float *y, host[M * N];
    int wrong = 0;
    if (cudaMalloc((void **)&y, sizeof host) != cudaSuccess) return -1;
    const fv_matrix<float, true> none = {y, 1, 1, FV_ONE_MATRIX};
    const fv_matrix_out<float> out = {y, NULL, N, 0, 1, FV_ONE_MATRIX};
    cudaMemset(y, 0xff, sizeof host);
    cudaError_t error = fv_gemm_workspace(M, N, 0, 1) ? cudaErrorInvalidValue : fv_gemm(0, none, none, out, M, N, 0, 1, y);
    if (error == cudaSuccess) error = cudaMemcpy(host, y, sizeof host, cudaMemcpyDeviceToHost);
    for (int i = 0; i < M * N; i++) wrong += !(host[i] == 0);
    cudaFree(y);
    return error == cudaSuccess ? wrong : -1;
}
