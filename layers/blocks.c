/* blocks.c: layers with parameters. Parameters are declared in PyTorch's order, with PyTorch's names. */
#include "layers/layers.h"

#include <math.h>

#include "core/ops.h"

static bool is_unset(fv_init init) {
    return init.kind == FV_INIT_CONSTANT && init.a == 0 && init.b == 0 && !init.data;
}

/* Padding after `size` pixels for a result of as many steps as pooling by `pool` uses, none of them new: at most `pad`,
 * at least 0. */
static int padding_after(int64_t size, const fv_conv_cfg *cfg, int stride, int dilation) {
    int64_t reach = (int64_t)dilation * (cfg->kernel - 1) + 1, room = size + 2 * (int64_t)cfg->pad - reach;
    if (cfg->pool < 2 || room < 0) return cfg->pad;
    int64_t steps = room / stride + 1, used = steps - steps % cfg->pool;
    int64_t after = (used - 1) * stride + reach - size - cfg->pad;
    if (used == 0 || after > cfg->pad) return cfg->pad;
    return after > 0 ? (int)after : 0;
}

fv_value fv_conv_layer(fv_scope s, fv_value x, fv_conv_cfg cfg) {
    /* x: [n,h,w,c] */
    int groups = cfg.groups ? cfg.groups : 1, stride = cfg.stride ? cfg.stride : 1;
    int dilation = cfg.dilation ? cfg.dilation : 1;
    int64_t c = fv_dim(s.g, x, 3);
    if (cfg.out < 1 || cfg.kernel < 1 || groups < 1 || c % groups != 0 || cfg.out % groups != 0)
        return fv_graph_fail(s, FV_E_MODEL,
                             "conv layer: %lld channels in and %lld out do not divide into %d groups (kernel %d)",
                             (long long)c, (long long)cfg.out, groups, cfg.kernel);
    int64_t window = (int64_t)cfg.kernel * cfg.kernel, fan_in = c / groups * window;
    fv_init init = is_unset(cfg.init) ? fv_init_he_normal(cfg.out * window, sqrt(2)) : cfg.init;
    fv_value w =
        fv_param(s, "weight", fv_shape(FV_F32, cfg.out, cfg.kernel, cfg.kernel, c / groups), FV_OIHW, init, false);
    fv_value bias = FV_NONE;
    if (cfg.bias) bias = fv_param(s, "bias", fv_shape(FV_F32, cfg.out), FV_PLAIN, fv_init_default(fan_in), true);
    int bottom = padding_after(fv_dim(s.g, x, 1), &cfg, stride, dilation);
    int right = padding_after(fv_dim(s.g, x, 2), &cfg, stride, dilation);
    return fv_conv2d(s, x, w, bias,
                     (fv_conv2d_attr){.stride = {stride, stride},
                                      .pad = {cfg.pad, cfg.pad, bottom, right},
                                      .dilation = {dilation, dilation},
                                      .groups = groups});
}

fv_value fv_linear_layer(fv_scope s, fv_value x, int64_t out, bool bias, fv_init weight) {
    /* x: [...,in] */
    fv_value w = fv_param(s, "weight", fv_shape(FV_F32, out, fv_dim(s.g, x, -1)), FV_PLAIN, weight, false);
    fv_value b = bias ? fv_param(s, "bias", fv_shape(FV_F32, out), FV_PLAIN, FV_ZEROS, true) : FV_NONE;
    return fv_linear(s, x, w, b);
}

fv_value fv_dense_layer(fv_scope s, fv_value x, int64_t out) {
    /* x: [n,in] or [n,h,w,c] */
    fv_layout layout = FV_PLAIN;
    fv_type type = fv_typeof(s.g, x);
    if (type.rank == 4)
        layout = (fv_layout){FV_LAYOUT_LINEAR_CHW, (int32_t)type.dim[3], (int32_t)type.dim[1], (int32_t)type.dim[2]};
    if (type.rank != 2) x = fv_flatten(s, x);
    int64_t in = fv_dim(s.g, x, 1);
    fv_value w = fv_param(s, "weight", fv_shape(FV_F32, out, in), layout, fv_init_default(in), false);
    fv_value b = fv_param(s, "bias", fv_shape(FV_F32, out), FV_PLAIN, fv_init_default(in), true);
    return fv_linear(s, x, w, b);
}

/* running += momentum * (statistic - running), with PyTorch's unbiased variance, in the update segment: gradient
 * accumulation moves it to every micro-step (fv_compile_opts.accumulate). */
static void update_running(fv_scope s, fv_value y, double momentum, int64_t rows, fv_value mean, fv_value var,
                           fv_value seen) {
    fv_segment segment = s.g->segment;
    s.g->segment = FV_SEG_UPDATE;
    fv_lerp_assign(s, mean, fv_result(y, 1), momentum, 1);
    fv_lerp_assign(s, var, fv_result(y, 2), momentum, (double)rows / (double)(rows - 1));
    fv_increment(s, seen);
    s.g->segment = segment;
}

fv_value fv_batch_norm_layer(fv_scope s, fv_value x, fv_bn_cfg cfg) {
    /* x: [...,c] */
    double eps = cfg.eps > 0 ? cfg.eps : 1e-5, momentum = cfg.momentum > 0 ? cfg.momentum : 0.1;
    int64_t c = fv_dim(s.g, x, -1);
    fv_type type = fv_shape(FV_F32, c);
    fv_value gamma = FV_NONE;
    if (!cfg.no_scale) gamma = fv_param(s, "weight", type, FV_PLAIN, cfg.zero_gamma ? FV_ZEROS : FV_ONES, true);
    fv_value beta = fv_param(s, "bias", type, FV_PLAIN, FV_ZEROS, true);
    fv_value mean = fv_buffer(s, "running_mean", type, FV_ZEROS);
    fv_value var = fv_buffer(s, "running_var", type, FV_ONES);
    fv_value seen = fv_buffer(s, "num_batches_tracked", fv_scalar(FV_I64), FV_ZEROS);
    if (s.g->error) return FV_NONE;
    bool frozen = fv_decl_of(s.g, beta)->frozen && (cfg.no_scale || fv_decl_of(s.g, gamma)->frozen);
    if (!s.g->training || frozen) return fv_batch_norm_infer(s, x, mean, var, gamma, beta, eps);

    int64_t rows = c > 0 ? fv_count(fv_typeof(s.g, x)) / c : 0;
    if (rows < 2)
        return fv_graph_fail(
            s, FV_E_USAGE,
            "batch norm in training needs more than one value per channel, but batch and picture leave "
            "%lld: use a larger batch or larger pictures",
            (long long)rows);
    fv_value y = fv_batch_norm(s, x, gamma, beta, eps);
    update_running(s, y, momentum, rows, mean, var, seen);
    return y;
}

fv_value fv_layer_norm_layer(fv_scope s, fv_value x, double eps) {
    /* x: [...,c] */
    fv_type type = fv_shape(FV_F32, fv_dim(s.g, x, -1));
    fv_value gamma = fv_param(s, "weight", type, FV_PLAIN, FV_ONES, true);
    fv_value beta = fv_param(s, "bias", type, FV_PLAIN, FV_ZEROS, true);
    return fv_layer_norm(s, x, gamma, beta, eps);
}

fv_value fv_conv_bn_act(fv_scope s, const char *conv, const char *bn, fv_value x, fv_conv_cfg cfg, fv_bn_cfg bn_cfg,
                        fv_act_kind act) {
    x = fv_conv_layer(fv_in(s, "%s", conv), x, cfg);
    x = fv_batch_norm_layer(fv_in(s, "%s", bn), x, bn_cfg);
    return fv_activation(s, x, act, 0);
}
