/* linear.c: linear layers, which are 1x1 convolutions over pictures of one pixel: x [rows,in], w [out,in], bias [out].
 */
#include "core/cpu/kernels/conv.h"

static bool is_empty(const fv_call *c) {
    return c->out[0].data == NULL || fv_count(c->out[0].type) == 0;
}

void CPU(linear)(const fv_call *c) {
    const fv_conv_shape s = CPU(linear_shape)(c->in[0].type, c->in[1].type);
    if (is_empty(c)) return;
    CPU(conv_gemm)(c, &s, FV_CONV_FORWARD, c->in[0].data, c->in[1].data, fv_operand(c, 2), c->out[0].data);
}

void CPU(linear_act)(const fv_call *c) {
    fv_conv_shape s = CPU(linear_shape)(c->in[0].type, c->in[1].type);
    if (is_empty(c)) return;
    s.act = c->attr->activation.kind == FV_ACT_NONE ? NULL : &c->attr->activation;
    s.residual = fv_operand(c, 3);
    CPU(conv_gemm)(c, &s, FV_CONV_FORWARD, c->in[0].data, c->in[1].data, fv_operand(c, 2), c->out[0].data);
}

/* dy [rows,out], w -> dx [rows,in] */
void CPU(linear_bwd_data)(const fv_call *c) {
    const fv_conv_shape s = CPU(linear_shape)(c->in[0].type, c->in[1].type);
    if (is_empty(c)) return;
    CPU(conv_gemm)(c, &s, FV_CONV_DATA, c->in[0].data, c->in[1].data, NULL, c->out[0].data);
}

/* dy [rows,out], x [rows,in] -> dw [out,in] */
void CPU(linear_bwd_weight)(const fv_call *c) {
    const fv_conv_shape s = CPU(linear_shape)(c->in[1].type, c->out[0].type);
    if (is_empty(c)) return;
    CPU(conv_weight)(c, &s, c->in[0].data, c->in[1].data, c->out[0].data);
}

/* ---------------------------------------------------------------- of act(x) */

void CPU(activated_linear)(const fv_call *c) {
    fv_conv_shape s = CPU(linear_shape)(c->in[0].type, c->in[1].type);
    if (is_empty(c)) return;
    s.residual = fv_operand(c, 3);
    CPU(activated_gemm)(c, &s, FV_CONV_FORWARD, c->in[0].data, c->in[1].data, fv_operand(c, 2), NULL, c->out[0].data);
}

/* dy [rows,out], w, x [rows,in] -> dx [rows,in], which may lie over x */
void CPU(activated_linear_bwd_data)(const fv_call *c) {
    const fv_conv_shape s = CPU(linear_shape)(c->out[0].type, c->in[1].type);
    if (is_empty(c)) return;
    CPU(activated_gemm)(c, &s, FV_CONV_DATA, c->in[0].data, c->in[1].data, NULL, c->in[2].data, c->out[0].data);
}

/* dy [rows,out], x [rows,in] -> dw [out,in], dbias [out] */
void CPU(linear_bwd_params)(const fv_call *c) {
    const fv_conv_shape s = CPU(linear_shape)(c->in[1].type, c->out[0].type);
    const fv_point_weight g = {.act = c->attr->activation.kind == FV_ACT_NONE ? NULL : &c->attr->activation,
                               .dy = c->in[0].data,
                               .x = c->in[1].data,
                               .dw = c->out[0].data,
                               .dbias = fv_result_of(c, 1)};
    CPU(conv_point_weight)(c, &s, &g);
}
