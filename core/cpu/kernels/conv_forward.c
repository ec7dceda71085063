/* conv_forward.c: conv2d: x [n,h,w,c], w [k,r,s,c/groups], bias [k] -> y [n,oh,ow,k]. */
#include "core/cpu/kernels/conv.h"

void CPU(conv2d)(const fv_call *c) {
    const fv_conv_shape s = CPU(conv_shape)(c->in[0].type, c->in[1].type, c->out[0].type, &c->attr->conv2d);
    const float *x = c->in[0].data, *w = c->in[1].data, *bias = fv_operand(c, 2);
    if (c->out[0].data == NULL || fv_count(c->out[0].type) == 0) return;
    if (fv_conv_is_depthwise(&s)) CPU(depthwise)(c, &s, FV_CONV_FORWARD, x, w, bias, c->out[0].data);
    else if (CPU(winograd_fits)(&s, c->device, c->prepared != NULL))
        CPU(winograd)(c, &s, FV_CONV_FORWARD, x, w, bias, c->out[0].data);
    else CPU(conv_gemm)(c, &s, FV_CONV_FORWARD, x, w, bias, c->out[0].data);
}
