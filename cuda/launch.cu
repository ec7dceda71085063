/* launch.cu: small kernels beside those of operations: a probe, and what the libraries lack. */
#include "cuda/kernels/common.cuh"

__global__ static void probe_kernel(int nothing) {
    (void)nothing;
}

cudaError_t fv_cuda_probe(void) {
    FV_LAUNCH(probe_kernel, 1, 1, 0, (cudaStream_t)0, 0);
    const cudaError_t error = cudaGetLastError();
    return error == cudaSuccess ? cudaDeviceSynchronize() : error;
}

/* y [rows, columns], V elements to a thread. */
template <typename E, int V> __global__ void add_bias_kernel(E *y, const float *bias, int64_t count, int columns) {
    for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)) {
        const fv_some<V> b = fv_load<V>(bias, i % columns);
        fv_some<V> v = fv_load<V>(y, i);
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] += b.v[j];
        fv_save<V>(y, i, v);
    }
}

template <typename E, int V>
static cudaError_t add_bias_by(void *y, const float *bias, int64_t count, int64_t columns, cudaStream_t stream) {
    FV_LAUNCH((add_bias_kernel<E, V>), fv_blocks(count, V * FV_THREADS), FV_THREADS, 0, stream, static_cast<E *>(y),
              bias, count, (int)columns);
    return cudaGetLastError();
}
template <typename E>
static cudaError_t add_bias(void *y, const float *bias, int64_t count, int64_t columns, cudaStream_t stream) {
    return columns % FV_WIDE<E> == 0 ? add_bias_by<E, FV_WIDE<E>>(y, bias, count, columns, stream)
                                     : add_bias_by<E, 1>(y, bias, count, columns, stream);
}

cudaError_t fv_cuda_add_bias(const fv_tensor *y, const float *bias, cudaStream_t stream) {
    const int64_t count = fv_count(y->type), columns = y->type.dim[y->type.rank - 1];
    return count == 0 ? cudaSuccess : FV_BY_TYPE(*y, add_bias, y->data, bias, count, columns, stream);
}

template <typename From, typename To> __global__ void convert_kernel(const From *x, To *y, int64_t count) {
    for (int64_t i = FV_FIRST_OF(8); i < count; i += FV_STRIDE_OF(8))
        fv_save_of<8>(y, i, count, fv_load_of<8>(x, i, count));
}

template <typename From, typename To> static cudaError_t convert(const fv_tensor *x, void *y, cudaStream_t stream) {
    const int64_t count = fv_count(x->type);
    FV_LAUNCH((convert_kernel<From, To>), fv_blocks(count, 8 * FV_THREADS), FV_THREADS, 0, stream,
              static_cast<const From *>(x->data), static_cast<To *>(y), count);
    return cudaGetLastError();
}
template <typename From> static cudaError_t convert_from(const fv_tensor *x, const fv_tensor *y, cudaStream_t stream) {
    return y->type.dtype == FV_BF16  ? convert<From, fv_bf16>(x, y->data, stream)
           : y->type.dtype == FV_F16 ? convert<From, fv_f16>(x, y->data, stream)
                                     : convert<From, float>(x, y->data, stream);
}

cudaError_t fv_cuda_convert(const fv_tensor *x, const fv_tensor *y, cudaStream_t stream) {
    return FV_BY_TYPE(*x, convert_from, x, y, stream);
}
