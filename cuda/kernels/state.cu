/* state.cu: reshape, cast, and operations that change state in place (update.cu has those of the update). */
#include "cuda/kernels/common.cuh"

cudaError_t fv_cuda_reshape(const fv_cuda_call *c) {
    if (c->in[0].data == c->out[0].data) return cudaSuccess;
    return cudaMemcpyAsync(c->out[0].data, c->in[0].data, fv_bytes(c->out[0].type), cudaMemcpyDeviceToDevice,
                           c->stream);
}

cudaError_t fv_cuda_cast(const fv_cuda_call *c) {
    if (c->in[0].type.dtype == c->out[0].type.dtype) return fv_cuda_reshape(c);
    return fv_cuda_convert(&c->in[0], &c->out[0], c->stream);
}

cudaError_t fv_cuda_assign(const fv_cuda_call *c) {
    if (c->in[0].data == c->in[1].data) return cudaSuccess;
    return cudaMemcpyAsync(c->in[0].data, c->in[1].data, fv_bytes(c->in[0].type), cudaMemcpyDeviceToDevice, c->stream);
}

__global__ void accumulate_kernel(float *state, const float *value, int64_t count) {
    for (int64_t i = FV_FIRST_OF(4); i < count; i += FV_STRIDE_OF(4)) {
        fv_some<4> s = fv_load_of<4>(state, i, count);
        const fv_some<4> v = fv_load_of<4>(value, i, count);
        for (int j = 0; j < 4; j++) s.v[j] += v.v[j];
        fv_save_of<4>(state, i, count, s);
    }
}

__global__ void fill_kernel(float *state, int64_t count, float value) {
    const fv_some<4> v = {{value, value, value, value}};
    for (int64_t i = FV_FIRST_OF(4); i < count; i += FV_STRIDE_OF(4)) fv_save_of<4>(state, i, count, v);
}

cudaError_t fv_cuda_accumulate(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(accumulate_kernel, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), static_cast<const float *>(c->in[1].data), count);
    return cudaGetLastError();
}

cudaError_t fv_cuda_fill(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(fill_kernel, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), count, (float)c->attr->scale.add);
    return cudaGetLastError();
}
