/* softmax.cu: softmax over the last dimension and its gradient. A warp has a row. */
#include "cuda/kernels/common.cuh"

#define ROWS_PER_BLOCK (FV_THREADS / 32)

template <typename E> __global__ void softmax_kernel(const E *x, E *y, int64_t rows, int64_t k) {
    const int64_t row = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= rows) return; /* the whole warp */
    x += row * k;
    y += row * k;
    float top = -INFINITY, sum = 0;
    for (int64_t i = lane; i < k; i += 32) top = fmaxf(top, fv_get(x + i));
    top = fv_warp_max(top);
    for (int64_t i = lane; i < k; i += 32) sum += expf(fv_get(x + i) - top);
    sum = fv_warp_sum(sum);
    for (int64_t i = lane; i < k; i += 32) fv_put(y + i, expf(fv_get(x + i) - top) / sum);
}

/* dx = y * (dy - sum of dy * y) */
template <typename E> __global__ void softmax_bwd_kernel(const E *dy, const E *y, E *dx, int64_t rows, int64_t k) {
    const int64_t row = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (row >= rows) return;
    float dot = 0;
    for (int64_t i = lane; i < k; i += 32) dot += fv_get(dy + row * k + i) * fv_get(y + row * k + i);
    dot = fv_warp_sum(dot);
    for (int64_t i = lane; i < k; i += 32)
        fv_put(dx + row * k + i, fv_get(y + row * k + i) * (fv_get(dy + row * k + i) - dot));
}

cudaError_t fv_cuda_softmax(const fv_cuda_call *c) {
    const fv_type *t = &c->in[0].type;
    const int64_t rows = fv_extent(t, 0, t->rank - 1), blocks = fv_most(1, fv_up(rows, ROWS_PER_BLOCK));
    if (blocks > INT32_MAX) return cudaErrorInvalidValue;
    FV_LAUNCH(softmax_kernel<float>, (unsigned)blocks, FV_THREADS, 0, c->stream,
              static_cast<const float *>(c->in[0].data), static_cast<float *>(c->out[0].data), rows,
              t->dim[t->rank - 1]);
    return cudaGetLastError();
}

cudaError_t fv_cuda_softmax_bwd(const fv_cuda_call *c) {
    const fv_type *t = &c->in[0].type;
    const int64_t rows = fv_extent(t, 0, t->rank - 1), blocks = fv_most(1, fv_up(rows, ROWS_PER_BLOCK));
    if (blocks > INT32_MAX) return cudaErrorInvalidValue;
    FV_LAUNCH(softmax_bwd_kernel<float>, (unsigned)blocks, FV_THREADS, 0, c->stream,
              static_cast<const float *>(c->in[0].data), static_cast<const float *>(c->in[1].data),
              static_cast<float *>(c->out[0].data), rows, t->dim[t->rank - 1]);
    return cudaGetLastError();
}
