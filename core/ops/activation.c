/* activation.c: element-wise nonlinearities. */
#include "core/ops/ops_internal.h"

#include <math.h>

static const struct {
    const char *name;
    bool saves_output; /* the derivative can be told from y, so that x need not be kept */
} kinds[FV_ACT_COUNT] = {
    [FV_ACT_NONE] = {"none", true},
    [FV_ACT_RELU] = {"relu", true},
    [FV_ACT_RELU6] = {"relu6", true},
    [FV_ACT_LEAKY_RELU] = {"leaky_relu", true},
    [FV_ACT_GELU] = {"gelu", false},
    [FV_ACT_GELU_TANH] = {"gelu_tanh", false},
    [FV_ACT_SILU] = {"silu", false},
    [FV_ACT_HARDSWISH] = {"hardswish", false},
    [FV_ACT_HARDSIGMOID] = {"hardsigmoid", true},
    [FV_ACT_SIGMOID] = {"sigmoid", true},
    [FV_ACT_TANH] = {"tanh", true},
};

static bool known(fv_act_kind kind) {
    return (unsigned)kind < FV_ACT_COUNT;
}
const char *fv_act_name(fv_act_kind kind) {
    return known(kind) ? kinds[kind].name : "unknown";
}
bool fv_act_saves_output(fv_act_kind kind) {
    return known(kind) && kinds[kind].saves_output;
}
bool fv_act_needs_input(fv_act_kind kind) {
    return known(kind) && !kinds[kind].saves_output;
}
bool fv_act_can_end_norm(fv_act_kind kind) {
    return kind == FV_ACT_RELU || fv_act_needs_input(kind);
}

static bool attr_is_sound(fv_infer *i) {
    const fv_activation_attr *a = &i->attr->activation;
    if (!known(a->kind) || a->kind == FV_ACT_NONE) return fv_infer_fail(i, "%d is no kind of activation", (int)a->kind);
    /* With a negative slope the sign of y would not tell that of x. */
    if (a->kind == FV_ACT_LEAKY_RELU && !(isfinite(a->alpha) && a->alpha >= 0))
        return fv_infer_fail(i, "leaky_relu: slope %g must be finite and not negative", a->alpha);
    return true;
}

bool fv_infer_activation(fv_infer *i) {
    return fv_expect_float(i, 0, "x", 0, FV_MAX_RANK) && attr_is_sound(i) && fv_set_result_type(i, 0, i->in[0]);
}

bool fv_infer_activation_bwd(fv_infer *i) {
    return fv_expect_float(i, 0, "dy", 0, FV_MAX_RANK) && fv_expect_like(i, 1, "the saved tensor", i->in[0], "dy") &&
           attr_is_sound(i) && fv_set_result_type(i, 0, i->in[0]);
}

void fv_grad_activation(fv_scope s, const fv_grad_args *a) {
    fv_value saved = fv_act_saves_output(a->node.attr.activation.kind) ? a->out[0] : a->in[0];
    if (a->want[0]) a->din[0] = fv_op_node(s, FV_OP_ACTIVATION_BWD, (fv_value[]){a->dout[0], saved}, 2, &a->node.attr);
}

fv_value fv_activation(fv_scope s, fv_value x, fv_act_kind kind, double alpha) {
    if (kind == FV_ACT_NONE) return x;
    return fv_op_node(s, FV_OP_ACTIVATION, &x, 1, &(fv_attr){.activation = {.kind = kind, .alpha = alpha}});
}

fv_value fv_relu(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_RELU, 0);
}
fv_value fv_relu6(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_RELU6, 0);
}
fv_value fv_leaky_relu(fv_scope s, fv_value x, double slope) {
    return fv_activation(s, x, FV_ACT_LEAKY_RELU, slope);
}
fv_value fv_gelu(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_GELU, 0);
}
fv_value fv_gelu_tanh(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_GELU_TANH, 0);
}
fv_value fv_silu(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_SILU, 0);
}
fv_value fv_hardswish(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_HARDSWISH, 0);
}
fv_value fv_hardsigmoid(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_HARDSIGMOID, 0);
}
fv_value fv_sigmoid(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_SIGMOID, 0);
}
fv_value fv_tanh(fv_scope s, fv_value x) {
    return fv_activation(s, x, FV_ACT_TANH, 0);
}
