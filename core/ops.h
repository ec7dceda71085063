/* ops.h: the typed builders, one per operation that a model writes. Each appends a node and returns its first result;
 * shapes are checked when the node is built and the first error sticks to the graph (graph.h). See ops.def for operands
 * and results, core/ops/ for shape and gradient rules, core/ref/ for what each computes. */
#ifndef FV_CORE_OPS_H
#define FV_CORE_OPS_H

#include "core/graph.h"

/* x [n,h,w,c], w [k,r,s,c/groups], bias [k] or FV_NONE -> [n,oh,ow,k]. */
fv_value fv_conv2d(fv_scope s, fv_value x, fv_value w, fv_value bias, fv_conv2d_attr attr);
/* x [...,in], w [out,in], bias [out] or FV_NONE -> [...,out]. */
fv_value fv_linear(fv_scope s, fv_value x, fv_value w, fv_value bias);
/* a [...,m,k], b [...,k,n] (or transposed) -> [...,m,n]; leading dimensions equal. */
fv_value fv_matmul(fv_scope s, fv_value a, fv_value b, fv_matmul_attr attr);

/* Batch norm with the batch's own statistics. Results: y, mean [c], biased variance [c] (fv_result(y, 1), (y, 2)). */
fv_value fv_batch_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, double eps);
/* With given statistics (evaluation, frozen batch norm). */
fv_value fv_batch_norm_infer(fv_scope s, fv_value x, fv_value mean, fv_value var, fv_value gamma, fv_value beta,
                             double eps);
/* Over the last dimension; gamma, beta [c] or FV_NONE. */
fv_value fv_layer_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, double eps);
fv_value fv_group_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, int groups, double eps);

fv_value fv_activation(fv_scope s, fv_value x, fv_act_kind kind, double alpha); /* NONE returns x */
fv_value fv_relu(fv_scope s, fv_value x);
fv_value fv_relu6(fv_scope s, fv_value x);
fv_value fv_leaky_relu(fv_scope s, fv_value x, double slope);
fv_value fv_gelu(fv_scope s, fv_value x);
fv_value fv_gelu_tanh(fv_scope s, fv_value x);
fv_value fv_silu(fv_scope s, fv_value x);
fv_value fv_hardswish(fv_scope s, fv_value x);
fv_value fv_hardsigmoid(fv_scope s, fv_value x);
fv_value fv_sigmoid(fv_scope s, fv_value x);
fv_value fv_tanh(fv_scope s, fv_value x);
/* Name of an activation ("relu"), and whether its backward needs the output (true) or the input (false). */
const char *fv_act_name(fv_act_kind kind);
bool fv_act_saves_output(fv_act_kind kind);
bool fv_act_needs_input(fv_act_kind kind); /* known, and the output does not tell */
/* Whether batch norm can take it over as its last part: relu, whose slope the output tells, and those whose backward
 * needs the input, which is computed again from what batch norm keeps anyway. */
bool fv_act_can_end_norm(fv_act_kind kind);

fv_value fv_add(fv_scope s, fv_value a, fv_value b); /* these three broadcast */
fv_value fv_sub(fv_scope s, fv_value a, fv_value b);
fv_value fv_mul(fv_scope s, fv_value a, fv_value b);
fv_value fv_scale(fv_scope s, fv_value x, double mul, double add); /* mul * x + add */

fv_value fv_max_pool2d(fv_scope s, fv_value x,
                       fv_pool_attr attr); /* windows of at most 255 places; padding never wins */
fv_value fv_avg_pool2d(fv_scope s, fv_value x, fv_pool_attr attr);
fv_value fv_global_avg_pool(fv_scope s, fv_value x); /* [n,h,w,c] -> [n,c] */
fv_value fv_resize(fv_scope s, fv_value x, fv_resize_attr attr);

/* Over the dimensions whose bits are set in axes. */
fv_value fv_sum(fv_scope s, fv_value x, uint32_t axes, bool keepdim);
fv_value fv_mean(fv_scope s, fv_value x, uint32_t axes, bool keepdim);
/* Repeat along dimensions of size 1, as numpy does, to this shape. */
fv_value fv_broadcast(fv_scope s, fv_value x, int rank, const int64_t *dim);
/* The same elements in another shape; one dimension may be -1. fv_reshape_to(s, x, 2, -1) */
fv_value fv_reshape(fv_scope s, fv_value x, int rank, const int64_t *dim);
#define fv_reshape_to(s, x, ...) \
    fv_reshape((s), (x), (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})
fv_value fv_flatten(fv_scope s, fv_value x); /* [n,...] -> [n, rest] */
fv_value fv_transpose(fv_scope s, fv_value x, const int32_t *perm);
fv_value fv_concat(fv_scope s, const fv_value *x, int n, int axis);
/* start, size, step per dimension; step NULL means 1. */
fv_value fv_slice(fv_scope s, fv_value x, const int64_t *start, const int64_t *size, const int64_t *step);
fv_value fv_pad(fv_scope s, fv_value x, const int64_t *before, const int64_t *after, double value);

/* As another float type (f32, bf16, f16); x itself if it has that type. */
fv_value fv_cast(fv_scope s, fv_value x, fv_dtype to);

/* Over the last dimension. */
fv_value fv_softmax(fv_scope s, fv_value x);
/* Scaled dot-product attention; k and v FV_NONE: x is qkv [n,s,3*heads*d]. scale 0 means 1/sqrt(d). */
fv_value fv_attention(fv_scope s, fv_value q, fv_value k, fv_value v, int heads, double scale);

/* In a graph that is not training, or with p = 0, these return x. The stream comes from the scope's name: give each its
 * own. */
fv_value fv_dropout(fv_scope s, fv_value x, double p);
fv_value fv_drop_path(fv_scope s, fv_value x, double p);

/* -> loss []; row_loss [n] is fv_result(loss, 1). */
fv_value fv_softmax_cross_entropy(fv_scope s, fv_value logits, fv_value target, fv_value row_weight,
                                  fv_value class_weight, fv_loss_attr attr);
fv_value fv_bce_with_logits(fv_scope s, fv_value logits, fv_value target, fv_value row_weight, fv_value pos_weight,
                            fv_loss_attr attr);
fv_value fv_topk_correct(fv_scope s, fv_value logits, fv_value labels, fv_value row_weight, int k);

/* (images / 255 - mean) / std after crop, flips and colour by the record (FV_AUG_*); then the cut becomes 0 or noise.
 * Colour: brightness x * (1 + b), contrast (x - m) * (1 + c) + m with the picture's mean grey m, saturation
 * g + (x - g) * (1 + s) with the pixel's grey g, each clamped to [0,1], then hue. Grey is luma (ITU-R 601) of three
 * colours, else the mean of the channels; saturation and hue are for three colours. The last channel of 2 or 4 is alpha
 * and keeps its value. */
fv_value fv_augment(fv_scope s, fv_value images, fv_value record, fv_value mean, fv_value std, fv_augment_attr attr);
/* Rows of table [rows,...] (u8, i32, f32 or f64) by index i32 [n] -> [n,...]. */
fv_value fv_gather(fv_scope s, fv_value table, fv_value index);

/* Changes of state (a parameter or buffer): = value, += value, += weight * (scale * value - state), = constant, += 1
 * (int64). */
void fv_assign(fv_scope s, fv_value state, fv_value value);
void fv_accumulate(fv_scope s, fv_value state, fv_value value);
void fv_lerp_assign(fv_scope s, fv_value state, fv_value value, double weight, double scale);
void fv_fill(fv_scope s, fv_value state, double value);
/* x * fv_step.loss_scale: the cotangent to differentiate a loss with, so that its gradients stay within f16's range. */
fv_value fv_loss_scale(fv_scope s, fv_value x);
void fv_increment(fv_scope s, fv_value state);

#endif
