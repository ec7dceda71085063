/* resnet.c: ResNets of He et al. 2015, section 4.1, with the parameter names of torchvision and timm. Bottlenecks carry
 * the stride on the 3x3 convolution ("v1.5").
 *
 *   x ─ conv1 7x7/2 ─ bn1 ─ relu ─ max pool 3x3/2 ─ layer1 ... layer4 ─ global average ─ fc
 *       (..._cifar: conv1 3x3/1, no pooling)
 */
#include "core/ops.h"
#include "layers/zoo.h"

typedef struct resnet_arch {
    int blocks[4]; /* per stage */
    bool bottleneck;
    bool small_stem; /* for pictures of 32 pixels */
} resnet_arch;

typedef struct block_cfg {
    int64_t width; /* channels of the 3x3 convolutions */
    int stride;
    double drop_path;
    bool zero_gamma;
} block_cfg;

static const fv_bn_cfg plain_bn = {0};

/* conv<i> and bn<i> of a block. */
static fv_value conv_bn(fv_scope s, int i, fv_value x, int64_t out, int kernel, int stride, fv_bn_cfg bn,
                        fv_act_kind act) {
    const char *const conv[] = {"conv1", "conv2", "conv3"}, *const norm[] = {"bn1", "bn2", "bn3"};
    fv_conv_cfg cfg = {.out = out, .kernel = kernel, .stride = stride, .pad = kernel / 2};
    return fv_conv_bn_act(s, conv[i - 1], norm[i - 1], x, cfg, bn, act);
}

static fv_value residual(fv_scope s, fv_value x, fv_value branch, int stride, double drop_path) {
    int64_t out = fv_dim(s.g, branch, 3);
    if (stride != 1 || fv_dim(s.g, x, 3) != out)
        x = fv_conv_bn_act(fv_in(s, "downsample"), "0", "1", x,
                           (fv_conv_cfg){.out = out, .kernel = 1, .stride = stride}, plain_bn, FV_ACT_NONE);
    branch = fv_drop_path(fv_in(s, "drop_path"), branch, drop_path);
    return fv_relu(s, fv_add(s, branch, x));
}

static fv_value basic_block(fv_scope s, fv_value x, block_cfg cfg) {
    fv_value y = conv_bn(s, 1, x, cfg.width, 3, cfg.stride, plain_bn, FV_ACT_RELU);
    y = conv_bn(s, 2, y, cfg.width, 3, 1, (fv_bn_cfg){.zero_gamma = cfg.zero_gamma}, FV_ACT_NONE);
    return residual(s, x, y, cfg.stride, cfg.drop_path);
}

static fv_value bottleneck_block(fv_scope s, fv_value x, block_cfg cfg) {
    fv_value y = conv_bn(s, 1, x, cfg.width, 1, 1, plain_bn, FV_ACT_RELU);
    y = conv_bn(s, 2, y, cfg.width, 3, cfg.stride, plain_bn, FV_ACT_RELU);
    y = conv_bn(s, 3, y, 4 * cfg.width, 1, 1, (fv_bn_cfg){.zero_gamma = cfg.zero_gamma}, FV_ACT_NONE);
    return residual(s, x, y, cfg.stride, cfg.drop_path);
}

static fv_value stem(fv_scope s, fv_value x, bool small) {
    x = conv_bn(s, 1, x, 64, small ? 3 : 7, small ? 1 : 2, plain_bn, FV_ACT_RELU);
    if (small) return x;
    return fv_max_pool2d(fv_in(s, "maxpool"), x,
                         (fv_pool_attr){.kernel = {3, 3}, .stride = {2, 2}, .pad = {1, 1, 1, 1}});
}

static fv_value build_resnet(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    const resnet_arch *arch = arg;
    x = stem(s, x, arch->small_stem);
    int total = arch->blocks[0] + arch->blocks[1] + arch->blocks[2] + arch->blocks[3], built = 0;
    for (int stage = 0; stage < 4; stage++)
        for (int i = 0; i < arch->blocks[stage]; i++, built++) {
            fv_scope block = fv_in(s, "layer%d.%d", stage + 1, i);
            block_cfg b = {.width = (int64_t)64 << stage,
                           .stride = stage > 0 && i == 0 ? 2 : 1,
                           .drop_path = cfg->drop_path * built / (total - 1),
                           .zero_gamma = cfg->zero_gamma};
            x = arch->bottleneck ? bottleneck_block(block, x, b) : basic_block(block, x, b);
        }
    x = fv_global_avg_pool(s, x);
    x = fv_dropout(fv_in(s, "drop"), x, cfg->drop_rate);
    return fv_dense_layer(fv_in(s, "fc"), x, cfg->num_classes);
}

static const resnet_arch resnet18 = {{2, 2, 2, 2}, false, false};
static const resnet_arch resnet34 = {{3, 4, 6, 3}, false, false};
static const resnet_arch resnet50 = {{3, 4, 6, 3}, true, false};
static const resnet_arch resnet101 = {{3, 4, 23, 3}, true, false};
static const resnet_arch resnet152 = {{3, 8, 36, 3}, true, false};
static const resnet_arch resnet18_cifar = {{2, 2, 2, 2}, false, true};
static const resnet_arch resnet34_cifar = {{3, 4, 6, 3}, false, true};
static const resnet_arch resnet50_cifar = {{3, 4, 6, 3}, true, true};

static const char *const stages[] = {"conv1,bn1", "layer1", "layer2", "layer3", "layer4"};

#define ENTRY(name, description, img_size) \
    { #name, "resnet", description, img_size, 3, "fc", build_resnet, &name, FV_STAGES(stages) }
static const fv_model_entry entries[] = {
    ENTRY(resnet18, "ResNet-18 (He et al. 2015)", 224),
    ENTRY(resnet34, "ResNet-34 (He et al. 2015)", 224),
    ENTRY(resnet50, "ResNet-50 v1.5, bottleneck blocks", 224),
    ENTRY(resnet101, "ResNet-101 v1.5, bottleneck blocks", 224),
    ENTRY(resnet152, "ResNet-152 v1.5, bottleneck blocks", 224),
    ENTRY(resnet18_cifar, "ResNet-18 with the stem for 32-pixel pictures", 32),
    ENTRY(resnet34_cifar, "ResNet-34 with the stem for 32-pixel pictures", 32),
    ENTRY(resnet50_cifar, "ResNet-50 with the stem for 32-pixel pictures", 32),
};
#undef ENTRY

const fv_family fv_family_resnet = FV_FAMILY(entries);
