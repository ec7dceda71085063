/* lenet.c: LeNet-5 (LeCun et al. 1998) as it is taught now: relu and max pooling, a plain linear head. */
#include "core/ops.h"
#include "layers/zoo.h"

enum { SMALLEST_PICTURE = 12 }; /* leaves one pixel before fc1 */

static fv_value conv_relu_pool(fv_scope s, fv_value x, int64_t out, int pad) {
    fv_conv_cfg conv = {
        .out = out, .kernel = 5, .pad = pad, .bias = true, .init = fv_init_default(fv_dim(s.g, x, 3) * 5 * 5)};
    x = fv_relu(s, fv_conv_layer(s, x, conv));
    return fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}, .stride = {2, 2}});
}

static fv_value build_lenet(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    (void)arg;
    int64_t h = fv_dim(s.g, x, 1), w = fv_dim(s.g, x, 2), side = h < w ? h : w;
    if (side < SMALLEST_PICTURE)
        return fv_graph_fail(s, FV_E_USAGE,
                             "lenet5: pictures of %lldx%lld pixels are too small, it needs at least %dx%d",
                             (long long)h, (long long)w, SMALLEST_PICTURE, SMALLEST_PICTURE);
    /* The paper's 28x28 digits lie in 32x32 pictures; smaller pictures get that border here. */
    x = conv_relu_pool(fv_in(s, "conv1"), x, 6, side < 32 ? 2 : 0);
    x = conv_relu_pool(fv_in(s, "conv2"), x, 16, 0);
    x = fv_relu(fv_in(s, "fc1"), fv_dense_layer(fv_in(s, "fc1"), x, 120));
    x = fv_relu(fv_in(s, "fc2"), fv_dense_layer(fv_in(s, "fc2"), x, 84));
    x = fv_dropout(fv_in(s, "drop"), x, cfg->drop_rate);
    return fv_dense_layer(fv_in(s, "fc3"), x, cfg->num_classes);
}

static const char *const stages[] = {"conv1", "conv2", "fc1", "fc2"};

static const fv_model_entry entries[] = {
    {"lenet5", "lenet", "LeNet-5 with relu and max pooling (LeCun et al. 1998)", 28, 1, "fc3", build_lenet, NULL,
     FV_STAGES(stages)},
};

const fv_family fv_family_lenet = FV_FAMILY(entries);
