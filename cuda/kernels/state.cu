/* state.cu: reshape, cast, and operations that change state in place. */
#include "cuda/kernels/common.cuh"

cudaError_t fv_cuda_reshape(const fv_cuda_call *c) {
    if (c->in[0].data == c->out[0].data) return cudaSuccess;
    return cudaMemcpyAsync(c->out[0].data, c->in[0].data, fv_bytes(c->out[0].type), cudaMemcpyDeviceToDevice,
                           c->stream);
}

/* Floats to floats: fv_cuda_kernel_supports lets nothing else pass. */
cudaError_t fv_cuda_cast(const fv_cuda_call *c) {
    return fv_cuda_reshape(c);
}

cudaError_t fv_cuda_assign(const fv_cuda_call *c) {
    if (c->in[0].data == c->in[1].data) return cudaSuccess;
    return cudaMemcpyAsync(c->in[0].data, c->in[1].data, fv_bytes(c->in[0].type), cudaMemcpyDeviceToDevice, c->stream);
}

template <typename E> __global__ void accumulate_kernel(E *state, const E *value, int64_t count) {
    for (int64_t i = FV_FIRST4; i < count; i += FV_STRIDE4) {
        fv_four s = fv_get4(state, i, count);
        const fv_four v = fv_get4(value, i, count);
        for (int j = 0; j < 4; j++) s.v[j] += v.v[j];
        fv_put4(state, i, count, s);
    }
}

/* stats [norm, finite] may be null. */
template <typename E>
__global__ void lerp_assign_kernel(E *state, const E *value, const float *stats, int64_t count, float weight,
                                   float scale) {
    if (stats && stats[1] == 0) return;
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) {
        const float s = fv_get(state + i);
        fv_put(state + i, fmaf(weight, fmaf(scale, fv_get(value + i), -s), s));
    }
}

template <typename E> __global__ void fill_kernel(E *state, int64_t count, float value) {
    const fv_four v = {{value, value, value, value}};
    for (int64_t i = FV_FIRST4; i < count; i += FV_STRIDE4) fv_put4(state, i, count, v);
}

__global__ void increment_kernel(int64_t *state, const float *stats, int64_t count) {
    if (stats && stats[1] == 0) return;
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) state[i] += 1;
}

cudaError_t fv_cuda_accumulate(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(accumulate_kernel<float>, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), static_cast<const float *>(c->in[1].data), count);
    return cudaGetLastError();
}

cudaError_t fv_cuda_lerp_assign(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(lerp_assign_kernel<float>, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), static_cast<const float *>(c->in[1].data),
              static_cast<const float *>(fv_operand(c, 2)), count, (float)c->attr->lerp.weight,
              (float)c->attr->lerp.scale);
    return cudaGetLastError();
}

cudaError_t fv_cuda_fill(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(fill_kernel<float>, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), count, (float)c->attr->scale.add);
    return cudaGetLastError();
}

cudaError_t fv_cuda_increment(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(increment_kernel, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<int64_t *>(c->in[0].data), static_cast<const float *>(fv_operand(c, 1)), count);
    return cudaGetLastError();
}
