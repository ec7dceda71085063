/* resnet_cifar.c: the CIFAR ResNets of He et al. 2015, section 4.2: three stages of n basic blocks (depth 6n + 2) with
 * 16, 32 and 64 channels. Parameter names are those of akamaster/pytorch_resnet_cifar10.
 *
 *   x ─ conv1 3x3 ─ bn1 ─ relu ─ layer1 ─ layer2 (half size) ─ layer3 (half size) ─ global average ─ linear
 *
 * Shortcuts where the shape changes: option A takes every second pixel and fills the new channels with zeros; option B
 * is a 1x1 convolution with batch norm. */
#include <stddef.h>

#include "core/ops.h"
#include "layers/zoo.h"

typedef struct resnet_cifar_arch {
    int blocks;      /* per stage */
    bool projection; /* option B */
} resnet_cifar_arch;

/* Option A. x: [n,h,w,c] -> [n,ceil(h/2),ceil(w/2),out], x in the middle channels as the pretrained models have it. */
static fv_value padded_shortcut(fv_scope s, fv_value x, int64_t out) {
    fv_type type = fv_typeof(s.g, x);
    int64_t c = type.dim[3], before = out / 4;
    const int64_t start[4] = {0}, step[4] = {1, 2, 2, 1};
    const int64_t size[4] = {type.dim[0], (type.dim[1] + 1) / 2, (type.dim[2] + 1) / 2, c};
    const int64_t pad_before[4] = {0, 0, 0, before}, pad_after[4] = {0, 0, 0, out - c - before};
    return fv_pad(s, fv_slice(s, x, start, size, step), pad_before, pad_after, 0);
}

static fv_value basic_block(fv_scope s, fv_value x, int64_t out, int stride, double drop_path, bool projection,
                            bool zero_gamma) {
    bool same_shape = stride == 1 && fv_dim(s.g, x, 3) == out;
    fv_value y =
        fv_conv_bn_act(s, "conv1", "bn1", x, (fv_conv_cfg){.out = out, .kernel = 3, .stride = stride, .pad = 1},
                       (fv_bn_cfg){0}, FV_ACT_RELU);
    y = fv_conv_bn_act(s, "conv2", "bn2", y, (fv_conv_cfg){.out = out, .kernel = 3, .pad = 1},
                       (fv_bn_cfg){.zero_gamma = zero_gamma}, FV_ACT_NONE);
    y = fv_drop_path(fv_in(s, "drop_path"), y, drop_path);
    if (!same_shape && projection)
        x = fv_conv_bn_act(fv_in(s, "shortcut"), "0", "1", x, (fv_conv_cfg){.out = out, .kernel = 1, .stride = stride},
                           (fv_bn_cfg){0}, FV_ACT_NONE);
    else if (!same_shape) x = padded_shortcut(fv_in(s, "shortcut"), x, out);
    return fv_relu(s, fv_add(s, y, x));
}

static fv_value build_resnet_cifar(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    const resnet_cifar_arch *arch = arg;
    x = fv_conv_bn_act(s, "conv1", "bn1", x, (fv_conv_cfg){.out = 16, .kernel = 3, .pad = 1}, (fv_bn_cfg){0},
                       FV_ACT_RELU);
    int total = 3 * arch->blocks;
    for (int i = 0; i < total; i++) {
        int stage = i / arch->blocks, block = i % arch->blocks;
        x = basic_block(fv_in(s, "layer%d.%d", stage + 1, block), x, (int64_t)16 << stage,
                        stage > 0 && block == 0 ? 2 : 1, cfg->drop_path * i / (total - 1), arch->projection,
                        cfg->zero_gamma);
    }
    x = fv_global_avg_pool(s, x);
    x = fv_dropout(fv_in(s, "drop"), x, cfg->drop_rate);
    return fv_dense_layer(fv_in(s, "linear"), x, cfg->num_classes);
}

#define ARCH(depth) \
    static const resnet_cifar_arch option_a_##depth = {((depth)-2) / 6, false}; \
    static const resnet_cifar_arch option_b_##depth = {((depth)-2) / 6, true};
ARCH(20)
ARCH(32)
ARCH(44)
ARCH(56)
ARCH(110)
#undef ARCH

static const char *const stages[] = {"conv1,bn1", "layer1", "layer2", "layer3"};

#define ENTRY(name, text, arch) \
    {name, "resnet_cifar", text, 32, 3, "linear", build_resnet_cifar, &arch, FV_STAGES(stages)},
#define ENTRIES(depth) \
    ENTRY("resnet" #depth, "CIFAR ResNet-" #depth ", option A: shortcuts padded with zeros", option_a_##depth) \
    ENTRY("resnet" #depth "_b", "CIFAR ResNet-" #depth ", option B: projection shortcuts", option_b_##depth)
static const fv_model_entry entries[] = {ENTRIES(20) ENTRIES(32) ENTRIES(44) ENTRIES(56) ENTRIES(110)};
#undef ENTRIES
#undef ENTRY

const fv_family fv_family_resnet_cifar = FV_FAMILY(entries);
