/* norm.c: batch, layer and group normalisation. x is [n,...,c]; gamma and beta are [c] or absent. */
#include "core/ops/ops_internal.h"

#include <math.h>

#include "core/ops.h"

static int64_t channels(fv_type x) {
    return x.dim[x.rank - 1];
}

static bool eps_is_sound(fv_infer *i, double eps) {
    return (isfinite(eps) && eps >= 0) || fv_infer_fail(i, "eps is %g, it must be finite and not negative", eps);
}

static bool affine_fits(fv_infer *i, int gamma, int64_t c) {
    return fv_expect_vector(i, gamma, "gamma", c) && fv_expect_vector(i, gamma + 1, "beta", c);
}

/* ---------------------------------------------------------------- batch norm */

static bool batch_norm_attr_is_sound(fv_infer *i, const fv_batch_norm_attr *a) {
    if (a->act != FV_ACT_NONE && !fv_act_can_end_norm(a->act))
        return fv_infer_fail(i, "activation '%s' cannot be fused", fv_act_name(a->act));
    return eps_is_sound(i, a->eps);
}

static bool residual_fits(fv_infer *i, int k) {
    return !fv_has(i, k) || fv_expect_like(i, k, "residual", i->in[0], "x");
}

bool fv_infer_batch_norm(fv_infer *i) {
    if (!fv_expect_float(i, 0, "x", 2, FV_MAX_RANK) || !batch_norm_attr_is_sound(i, &i->attr->batch_norm)) return false;
    fv_type x = i->in[0];
    int64_t c = channels(x);
    if (fv_count(x) == c) return fv_infer_fail(i, "needs more than one value per channel, x is %s", FV_TEXT(x));
    return affine_fits(i, 1, c) && residual_fits(i, 3) && fv_set_result_type(i, 0, x) &&
           fv_set_wide_result(i, 1, 1, &c) && fv_set_wide_result(i, 2, 1, &c);
}

bool fv_infer_batch_norm_infer(fv_infer *i) {
    if (!fv_expect_float(i, 0, "x", 2, FV_MAX_RANK) || !batch_norm_attr_is_sound(i, &i->attr->batch_norm)) return false;
    int64_t c = channels(i->in[0]);
    return fv_expect_given_vector(i, 1, "mean", c) && fv_expect_given_vector(i, 2, "var", c) && affine_fits(i, 3, c) &&
           residual_fits(i, 5) && fv_set_result_type(i, 0, i->in[0]);
}

/* dy, x, y or none, mean, var, gamma, beta, residual or none -> dx, dgamma, dbeta, dresidual */
bool fv_infer_batch_norm_bwd(fv_infer *i) {
    if (!fv_expect_float(i, 1, "x", 2, FV_MAX_RANK) || !batch_norm_attr_is_sound(i, &i->attr->batch_norm)) return false;
    fv_type x = i->in[1];
    int64_t c = channels(x);
    bool needs_y = i->attr->batch_norm.act == FV_ACT_RELU;
    return fv_expect_like(i, 0, "dy", x, "x") && ((!needs_y && !fv_has(i, 2)) || fv_expect_like(i, 2, "y", x, "x")) &&
           fv_expect_given_vector(i, 3, "mean", c) && fv_expect_given_vector(i, 4, "var", c) && affine_fits(i, 5, c) &&
           (!fv_has(i, 7) || fv_expect_like(i, 7, "residual", x, "x")) && fv_set_result_type(i, 0, x) &&
           fv_set_wide_result(i, 1, 1, &c) && fv_set_wide_result(i, 2, 1, &c) && fv_set_result_type(i, 3, x);
}

bool fv_infer_batch_norm_infer_bwd(fv_infer *i) {
    return fv_infer_batch_norm_bwd(i);
}

bool fv_infer_normed_conv2d(fv_infer *i) {
    if (!fv_infer_conv2d(i) || !batch_norm_attr_is_sound(i, &i->attr->normed_conv2d.norm)) return false;
    const int64_t c = channels(i->out[0]);
    return fv_expect_given_vector(i, 3, "mean", c) && fv_expect_given_vector(i, 4, "var", c) && affine_fits(i, 5, c) &&
           (!fv_has(i, 7) || fv_expect_like(i, 7, "residual", i->out[0], "the convolution's result"));
}
double fv_flops_normed_conv2d(const fv_infer *i) {
    return fv_flops_conv2d(i) + 4 * fv_elements(i->out[0]);
}

/* `first` is the operand gamma; beta and residual follow it. */
static void batch_norm_backward(fv_scope s, const fv_grad_args *a, fv_op op, fv_value mean, fv_value var, int first) {
    fv_act_kind act = a->node.attr.batch_norm.act;
    bool from_output = fv_act_saves_output(act);      /* else from what it was applied to, computed again */
    fv_value affine[3] = {FV_NONE, FV_NONE, FV_NONE}; /* gamma, beta, residual */
    for (int k = 0; k < 3 && first + k < a->n_in; k++)
        if (k == 0 || !from_output) affine[k] = a->in[first + k];
    fv_value y = act == FV_ACT_RELU ? a->out[0] : FV_NONE;
    const fv_value operands[] = {a->dout[0], a->in[0], y, mean, var, affine[0], affine[1], affine[2]};
    fv_value dx = fv_op_node(s, op, operands, from_output ? 6 : 8, &a->node.attr);
    if (a->want[0]) a->din[0] = dx;
    for (int k = 0; k < 3; k++) /* gamma, beta, residual */
        if (first + k < a->n_in && a->want[first + k]) a->din[first + k] = fv_result(dx, 1 + k);
}

void fv_grad_batch_norm(fv_scope s, const fv_grad_args *a) {
    if (fv_only_first_result(s, a, "the batch statistics"))
        batch_norm_backward(s, a, FV_OP_BATCH_NORM_BWD, a->out[1], a->out[2], 1);
}

/* The given statistics are constants: no gradient goes to them. */
void fv_grad_batch_norm_infer(fv_scope s, const fv_grad_args *a) {
    batch_norm_backward(s, a, FV_OP_BATCH_NORM_INFER_BWD, a->in[1], a->in[2], 3);
}

fv_value fv_batch_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, double eps) {
    return fv_op_node(s, FV_OP_BATCH_NORM, (fv_value[]){x, gamma, beta}, 3, &(fv_attr){.batch_norm = {.eps = eps}});
}

fv_value fv_batch_norm_infer(fv_scope s, fv_value x, fv_value mean, fv_value var, fv_value gamma, fv_value beta,
                             double eps) {
    return fv_op_node(s, FV_OP_BATCH_NORM_INFER, (fv_value[]){x, mean, var, gamma, beta}, 5,
                      &(fv_attr){.batch_norm = {.eps = eps}});
}

/* ---------------------------------------------------------------- layer norm: statistics per row, [...] */

static fv_type row_statistics(const fv_infer *i, fv_type x) {
    x.rank--;
    x.dtype = fv_wide_of(i);
    return x;
}

bool fv_infer_layer_norm(fv_infer *i) {
    if (!fv_expect_float(i, 0, "x", 2, FV_MAX_RANK) || !eps_is_sound(i, i->attr->norm.eps)) return false;
    fv_type x = i->in[0];
    return affine_fits(i, 1, channels(x)) && fv_set_result_type(i, 0, x) &&
           fv_set_result_type(i, 1, row_statistics(i, x)) && fv_set_result_type(i, 2, row_statistics(i, x));
}

/* dy, x, mean, rstd, gamma, residual -> dx, dgamma, dbeta, with x checked and `statistics` the type of mean and rstd.
 */
static bool infer_norm_bwd(fv_infer *i, fv_type statistics, const char *of) {
    fv_type x = i->in[1];
    int64_t c = channels(x);
    return fv_expect_like(i, 0, "dy", x, "x") && fv_expect_like(i, 2, "mean", statistics, of) &&
           fv_expect_like(i, 3, "rstd", statistics, of) && fv_expect_vector(i, 4, "gamma", c) &&
           (!fv_has(i, 5) || fv_expect_like(i, 5, "residual", x, "x")) && eps_is_sound(i, i->attr->norm.eps) &&
           fv_set_result_type(i, 0, x) && fv_set_wide_result(i, 1, 1, &c) && fv_set_wide_result(i, 2, 1, &c);
}

bool fv_infer_layer_norm_bwd(fv_infer *i) {
    return fv_expect_float(i, 1, "x", 2, FV_MAX_RANK) &&
           infer_norm_bwd(i, row_statistics(i, i->in[1]), "the rows of x");
}

static void norm_backward(fv_scope s, const fv_grad_args *a, fv_op op) {
    if (!fv_only_first_result(s, a, "the statistics")) return;
    fv_value gamma = a->n_in > 1 ? a->in[1] : FV_NONE;
    fv_value dx = fv_op_node(s, op, (fv_value[]){a->dout[0], a->in[0], a->out[1], a->out[2], gamma}, 5, &a->node.attr);
    for (int k = 0; k < a->n_in; k++)
        if (a->want[k]) a->din[k] = fv_result(dx, k);
}

void fv_grad_layer_norm(fv_scope s, const fv_grad_args *a) {
    norm_backward(s, a, FV_OP_LAYER_NORM_BWD);
}

fv_value fv_layer_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, double eps) {
    return fv_op_node(s, FV_OP_LAYER_NORM, (fv_value[]){x, gamma, beta}, 3, &(fv_attr){.norm = {.eps = eps}});
}

/* ---------------------------------------------------------------- group norm: statistics [n,groups] */

static bool groups_fit(fv_infer *i, fv_type x) {
    int32_t groups = i->attr->norm.groups;
    if (groups < 1) return fv_infer_fail(i, "%d groups: the number must be positive", groups);
    if (channels(x) % groups)
        return fv_infer_fail(i, "x has %lld channels, not divisible by %d groups", (long long)channels(x), groups);
    return true;
}

static fv_type group_statistics(const fv_infer *i, fv_type x) {
    return fv_shape(fv_wide_of(i), x.dim[0], i->attr->norm.groups);
}

bool fv_infer_group_norm(fv_infer *i) {
    if (!fv_expect_float(i, 0, "x", 2, FV_MAX_RANK) || !eps_is_sound(i, i->attr->norm.eps) || !groups_fit(i, i->in[0]))
        return false;
    fv_type x = i->in[0];
    return affine_fits(i, 1, channels(x)) && fv_set_result_type(i, 0, x) &&
           fv_set_result_type(i, 1, group_statistics(i, x)) && fv_set_result_type(i, 2, group_statistics(i, x));
}

bool fv_infer_group_norm_bwd(fv_infer *i) {
    return fv_expect_float(i, 1, "x", 2, FV_MAX_RANK) && groups_fit(i, i->in[1]) &&
           infer_norm_bwd(i, group_statistics(i, i->in[1]), "the groups of x");
}

void fv_grad_group_norm(fv_scope s, const fv_grad_args *a) {
    norm_backward(s, a, FV_OP_GROUP_NORM_BWD);
}

fv_value fv_group_norm(fv_scope s, fv_value x, fv_value gamma, fv_value beta, int groups, double eps) {
    return fv_op_node(s, FV_OP_GROUP_NORM, (fv_value[]){x, gamma, beta}, 3,
                      &(fv_attr){.norm = {.eps = eps, .groups = groups}});
}

/* ---------------------------------------------------------------- cost, per element: mean 1, variance 3, normalise 2,
 * affine 2; backward: two sums 4, dx 8. Also used for the softmax family, which comes to about as much. */

double fv_flops_norm(const fv_infer *i) {
    return 8 * fv_elements(i->in[0]);
}
double fv_flops_norm_bwd(const fv_infer *i) {
    return 12 * fv_elements(i->out[0]);
}
