/* activation.cu: y = act(x), dx = dy * act'(saved). */
#include "cuda/kernels/activation.cuh"

template <typename E, int KIND> __global__ void activation_kernel(const E *x, E *y, int64_t count, float alpha) {
    constexpr int V = FV_WIDE<E>;
    for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)) {
        fv_some<V> v = fv_load_of<V>(x, i, count);
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = fv_act<KIND>(v.v[j], alpha);
        fv_save_of<V>(y, i, count, v);
    }
}

template <typename E, int KIND>
__global__ void activation_bwd_kernel(const E *dy, const E *saved, E *dx, int64_t count, float alpha) {
    constexpr int V = FV_WIDE<E>;
    for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)) {
        fv_some<V> g = fv_load_of<V>(dy, i, count);
        const fv_some<V> s = fv_load_of<V>(saved, i, count);
#pragma unroll
        for (int j = 0; j < V; j++) g.v[j] *= fv_act_slope<KIND>(s.v[j], alpha);
        fv_save_of<V>(dx, i, count, g);
    }
}

/* DO(kind) for the kind that the attribute names. */
#define BY_KIND(kind, DO) \
    switch (kind) { \
    case FV_ACT_RELU: DO(FV_ACT_RELU); break; \
    case FV_ACT_RELU6: DO(FV_ACT_RELU6); break; \
    case FV_ACT_LEAKY_RELU: DO(FV_ACT_LEAKY_RELU); break; \
    case FV_ACT_GELU: DO(FV_ACT_GELU); break; \
    case FV_ACT_GELU_TANH: DO(FV_ACT_GELU_TANH); break; \
    case FV_ACT_SILU: DO(FV_ACT_SILU); break; \
    case FV_ACT_HARDSWISH: DO(FV_ACT_HARDSWISH); break; \
    case FV_ACT_HARDSIGMOID: DO(FV_ACT_HARDSIGMOID); break; \
    case FV_ACT_SIGMOID: DO(FV_ACT_SIGMOID); break; \
    case FV_ACT_TANH: DO(FV_ACT_TANH); break; \
    case FV_ACT_NONE: \
    case FV_ACT_COUNT: return cudaErrorInvalidValue; \
    }

template <typename E> static cudaError_t forward(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    const unsigned blocks = fv_blocks(count, FV_WIDE<E> * FV_THREADS);
    const E *x = fv_operand<E>(c, 0);
    E *y = fv_result_of<E>(c, 0);
    const float alpha = (float)c->attr->activation.alpha;
#define FORWARD(kind) FV_LAUNCH((activation_kernel<E, kind>), blocks, FV_THREADS, 0, c->stream, x, y, count, alpha)
    BY_KIND(c->attr->activation.kind, FORWARD)
    return cudaGetLastError();
}

template <typename E> static cudaError_t backward(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    const unsigned blocks = fv_blocks(count, FV_WIDE<E> * FV_THREADS);
    const E *dy = fv_operand<E>(c, 0), *saved = fv_operand<E>(c, 1);
    E *dx = fv_result_of<E>(c, 0);
    const float alpha = (float)c->attr->activation.alpha;
#define BACKWARD(kind) \
    FV_LAUNCH((activation_bwd_kernel<E, kind>), blocks, FV_THREADS, 0, c->stream, dy, saved, dx, count, alpha)
    BY_KIND(c->attr->activation.kind, BACKWARD)
    return cudaGetLastError();
}

cudaError_t fv_cuda_activation(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], forward, c);
}
cudaError_t fv_cuda_activation_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], backward, c);
}
