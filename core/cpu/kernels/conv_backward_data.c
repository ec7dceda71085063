/* conv_backward_data.c: conv2d_bwd_data: dy [n,oh,ow,k], w [k,r,s,c/groups] -> dx [n,h,w,c]. */
#include "core/cpu/kernels/conv.h"

void CPU(conv2d_bwd_data)(const fv_call *c) {
    const fv_conv_shape s = CPU(conv_shape)(c->out[0].type, c->in[1].type, c->in[0].type, &c->attr->conv2d_bwd.conv);
    const float *dy = c->in[0].data, *w = c->in[1].data;
    if (c->out[0].data == NULL || fv_count(c->out[0].type) == 0) return;
    if (fv_conv_is_depthwise(&s)) CPU(depthwise)(c, &s, FV_CONV_DATA, dy, w, NULL, c->out[0].data);
    else if (CPU(winograd_fits)(&s, c->device, false)) CPU(winograd)(c, &s, FV_CONV_DATA, dy, w, NULL, c->out[0].data);
    else CPU(conv_gemm)(c, &s, FV_CONV_DATA, dy, w, NULL, c->out[0].data);
}
