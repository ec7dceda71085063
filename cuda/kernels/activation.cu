/* activation.cu: y = act(x), dx = dy * act'(saved). */
#include "cuda/kernels/activation.cuh"

template <typename E, int KIND> __global__ void activation_kernel(const E *x, E *y, int64_t count, float alpha) {
    for (int64_t i = FV_FIRST4; i < count; i += FV_STRIDE4) {
        fv_four v = fv_get4(x, i, count);
        for (int j = 0; j < 4; j++) v.v[j] = fv_act<KIND>(v.v[j], alpha);
        fv_put4(y, i, count, v);
    }
}

template <typename E, int KIND>
__global__ void activation_bwd_kernel(const E *dy, const E *saved, E *dx, int64_t count, float alpha) {
    for (int64_t i = FV_FIRST4; i < count; i += FV_STRIDE4) {
        fv_four g = fv_get4(dy, i, count);
        const fv_four s = fv_get4(saved, i, count);
        for (int j = 0; j < 4; j++) g.v[j] *= fv_act_slope<KIND>(s.v[j], alpha);
        fv_put4(dx, i, count, g);
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

cudaError_t fv_cuda_activation(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    const float *x = static_cast<const float *>(c->in[0].data), alpha = (float)c->attr->activation.alpha;
    float *y = static_cast<float *>(c->out[0].data);
#define FORWARD(kind) \
    FV_LAUNCH((activation_kernel<float, kind>), fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream, x, y, \
              count, alpha)
    BY_KIND(c->attr->activation.kind, FORWARD)
    return cudaGetLastError();
}

cudaError_t fv_cuda_activation_bwd(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    const float *dy = static_cast<const float *>(c->in[0].data), *saved = static_cast<const float *>(c->in[1].data);
    const float alpha = (float)c->attr->activation.alpha;
    float *dx = static_cast<float *>(c->out[0].data);
#define BACKWARD(kind) \
    FV_LAUNCH((activation_bwd_kernel<float, kind>), fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream, dy, \
              saved, dx, count, alpha)
    BY_KIND(c->attr->activation.kind, BACKWARD)
    return cudaGetLastError();
}
