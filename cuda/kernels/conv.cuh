/* conv.cuh: sizes of a convolution of x [n,h,w,c] with w [k,r,s,c/groups] to y [n,oh,ow,k]. */
#ifndef FV_CUDA_KERNELS_CONV_CUH
#define FV_CUDA_KERNELS_CONV_CUH

#include "cuda/kernels/gemm.cuh"

struct fv_conv {
    int n, h, w, c, k, r, s, oh, ow, groups;
    int cg, kg; /* input and output channels per group */
    int stride_h, stride_w, dilation_h, dilation_w, top, left;
};

static inline fv_conv fv_conv_of(const int64_t *x, const int64_t *w, const int64_t *y, const fv_conv2d_attr *a) {
    fv_conv d;
    d.n = (int)x[0], d.h = (int)x[1], d.w = (int)x[2], d.c = (int)x[3];
    d.k = (int)w[0], d.r = (int)w[1], d.s = (int)w[2], d.cg = (int)w[3];
    d.oh = (int)y[1], d.ow = (int)y[2];
    d.groups = fv_or1(a->groups);
    d.kg = d.k / d.groups;
    d.stride_h = fv_or1(a->stride[0]), d.stride_w = fv_or1(a->stride[1]);
    d.dilation_h = fv_or1(a->dilation[0]), d.dilation_w = fv_or1(a->dilation[1]);
    d.top = a->pad[0], d.left = a->pad[1];
    return d;
}
/* From the call of a convolution or one of its gradients. */
static inline fv_conv fv_conv_of_types(fv_op op, const fv_attr *attr, const fv_type *first, const fv_type *second,
                                       const fv_type *result) {
    switch (op) {
    case FV_OP_CONV2D_BWD_DATA: return fv_conv_of(result->dim, second->dim, first->dim, &attr->conv2d_bwd.conv);
    case FV_OP_CONV2D_BWD_WEIGHT: return fv_conv_of(second->dim, result->dim, first->dim, &attr->conv2d_bwd.conv);
    default: return fv_conv_of(first->dim, second->dim, result->dim, &attr->conv2d);
    }
}

static inline bool fv_is_depthwise(const fv_conv &d) {
    return d.groups > 1 && d.cg == 1;
}

/* conv_depthwise.cu: one input channel per group. */
cudaError_t fv_depthwise_forward(const fv_cuda_call *c, const fv_conv &d);
cudaError_t fv_depthwise_data(const fv_cuda_call *c, const fv_conv &d);
cudaError_t fv_depthwise_weight(const fv_cuda_call *c, const fv_conv &d);
size_t fv_depthwise_workspace(const fv_conv &d);

#endif
