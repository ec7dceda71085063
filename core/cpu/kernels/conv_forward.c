/* conv_forward.c: conv2d: x [n,h,w,c], w [k,r,s,c/groups], bias [k] -> y [n,oh,ow,k]. normed_conv2d: and batch norm. */
#include "core/cpu/kernels/conv.h"
#include "core/cpu/kernels/norm_apply.h"

static bool is_empty(const fv_call *c) {
    return c->out[0].data == NULL || fv_count(c->out[0].type) == 0;
}

static void forward(const fv_call *c, const fv_conv_shape *s) {
    const float *x = c->in[0].data, *w = c->in[1].data, *bias = fv_operand(c, 2);
    float *y = c->out[0].data;
    if (fv_conv_is_depthwise(s)) CPU(depthwise)(c, s, FV_CONV_FORWARD, x, w, bias, y);
    else if (CPU(winograd_fits)(s, c->device, c->prepared != NULL)) CPU(winograd)(c, s, FV_CONV_FORWARD, x, w, bias, y);
    else CPU(conv_gemm)(c, s, FV_CONV_FORWARD, x, w, bias, y);
}

void CPU(conv2d)(const fv_call *c) {
    const fv_conv_shape s = CPU(conv_shape)(c->in[0].type, c->in[1].type, c->out[0].type, &c->attr->conv2d);
    if (!is_empty(c)) forward(c, &s);
}

static void set_coefficients(const fv_call *c, int64_t k, float *coefficients) {
    const float *mean = c->in[3].data, *var = c->in[4].data, *gamma = fv_operand(c, 5), *beta = fv_operand(c, 6);
    for (int64_t i = 0; i < k; i++) {
        const fv_norm_channel n = fv_norm_channel_of(i, mean[i], var[i], c->attr->normed_conv2d.norm.eps, gamma, beta);
        coefficients[i] = n.mean;
        coefficients[k + i] = n.scale;
        coefficients[2 * k + i] = n.shift;
    }
}

/* x, w, bias, mean, var, gamma, beta, residual. The coefficients lie before what the convolution keeps, or at the end
 * of the workspace. */
void CPU(normed_conv2d)(const fv_call *c) {
    const fv_normed_conv2d_attr *attr = &c->attr->normed_conv2d;
    fv_conv_shape s = CPU(conv_shape)(c->in[0].type, c->in[1].type, c->out[0].type, &attr->conv);
    if (is_empty(c)) return;
    const size_t bytes = fv_finish_bytes(s.k);
    fv_call conv = *c;
    float *coefficients = c->prepared;
    if (c->prepared) conv.prepared = (char *)c->prepared + bytes;
    else coefficients = (float *)(void *)((char *)c->workspace + c->workspace_bytes - bytes);
    if (c->preparing || !c->prepared) set_coefficients(c, s.k, coefficients);
    const fv_finish finish = {.mean = coefficients,
                              .scale = coefficients + s.k,
                              .shift = coefficients + 2 * s.k,
                              .residual = fv_operand(c, 7),
                              .y = c->out[0].data,
                              .k = s.k,
                              .act = attr->norm.act};
    s.finish = &finish;
    forward(&conv, &s);
}
