/* speedrun.c: the small CIFAR-10 networks that reach 94% and 96% fastest (Jordan 2024, "94% on CIFAR-10 in 3.29
 * Seconds", arXiv:2404.00498, after Page 2018). For pictures of 32 pixels and three channels:
 *
 *   x ─ whiten 2x2, 24 filters, frozen ─ gelu ─ group1 (15x15) ─ group2 (7x7) ─ group3 (3x3) ─ max ─ linear ─ / 9
 *   group: conv 3x3 ─ max pool 2 ─ norm ─ gelu ─ (conv 3x3 ─ norm ─ gelu) once or twice; twice with a shortcut around
 *
 * The filters of the first layer come from the training pictures (whiten.c) and are not trained; its bias is. Other
 * convolutions start by handing their channels through. Norms have no scale. */
#include "core/ops.h"
#include "layers/zoo.h"

enum { GROUPS = 3, SMALLEST_SIDE = 9, LARGEST_SIDE = 128, WHITEN_PICTURES = 5000 };

/* What may be left out. */
#define WHITENING "whitening"
#define DIRAC "dirac"
#define UNIT_SCALE "unit-scale"
#define SMALL_LOGITS "small-logits"
#define TRIMMING "trimming"
static const char *const ideas[] = {WHITENING, DIRAC, UNIT_SCALE, SMALL_LOGITS, TRIMMING};

typedef struct speedrun_arch {
    int64_t width[GROUPS];
    int convs; /* per group: 2, or 3 with a shortcut around the last two */
    double momentum;
} speedrun_arch;

/* The whitening filters and their negatives, of 2x2 pixels: 8 for each channel. */
static fv_value whiten(fv_scope s, fv_value x, const fv_model_cfg *cfg) {
    int64_t c = fv_dim(s.g, x, 3);
    fv_scope weight = fv_in(s, "weight");
    if (!s.g->error && fv_model_has(cfg, WHITENING)) fv_graph_freeze(s.g, &weight.prefix, 1);
    fv_value w = fv_param(s, "weight", fv_shape(FV_F32, 8 * c, 2, 2, c), FV_OIHW, fv_init_default(4 * c), false);
    fv_value bias = fv_param(s, "bias", fv_shape(FV_F32, 8 * c), FV_PLAIN, FV_ZEROS, true);
    return fv_gelu(s, fv_conv2d(s, x, w, bias, (fv_conv2d_attr){0}));
}

/* `pool`: it is pooled by 2. */
static fv_value conv(fv_scope s, fv_value x, int64_t out, bool pool, const fv_model_cfg *cfg) {
    int64_t fan_in = fv_dim(s.g, x, 3) * 3 * 3;
    fv_init init = fv_model_has(cfg, DIRAC) ? fv_init_dirac(fan_in) : fv_init_default(fan_in);
    int trim = pool && fv_model_has(cfg, TRIMMING) ? 2 : 0;
    return fv_conv_layer(s, x, (fv_conv_cfg){.out = out, .kernel = 3, .pad = 1, .pool = trim, .init = init});
}

static fv_value norm(fv_scope s, fv_value x, const speedrun_arch *arch, const fv_model_cfg *cfg) {
    bool no_scale = fv_model_has(cfg, UNIT_SCALE);
    return fv_batch_norm_layer(s, x, (fv_bn_cfg){.eps = 1e-12, .momentum = arch->momentum, .no_scale = no_scale});
}

static fv_value group(fv_scope s, fv_value x, int64_t out, const speedrun_arch *arch, double drop_path,
                      const fv_model_cfg *cfg) {
    x = conv(fv_in(s, "conv1"), x, out, true, cfg);
    x = fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}});
    x = fv_gelu(s, norm(fv_in(s, "norm1"), x, arch, cfg));
    fv_value y = norm(fv_in(s, "norm2"), conv(fv_in(s, "conv2"), x, out, false, cfg), arch, cfg);
    if (arch->convs == 2) return fv_gelu(s, y);
    y = norm(fv_in(s, "norm3"), conv(fv_in(s, "conv3"), fv_gelu(s, y), out, false, cfg), arch, cfg);
    return fv_gelu(s, fv_add(s, fv_drop_path(fv_in(s, "drop_path"), y, drop_path), x));
}

/* Over the whole picture: [n,h,w,c] -> [n,c]. */
static fv_value global_max_pool(fv_scope s, fv_value x) {
    int32_t h = (int32_t)fv_dim(s.g, x, 1), w = (int32_t)fv_dim(s.g, x, 2);
    return fv_flatten(s, fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {h, w}}));
}

static fv_value build_speedrun(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    const speedrun_arch *arch = arg;
    int64_t h = fv_dim(s.g, x, 1), w = fv_dim(s.g, x, 2);
    int64_t smaller = h < w ? h : w, larger = h < w ? w : h;
    if (smaller < SMALLEST_SIDE || larger > LARGEST_SIDE)
        return fv_graph_fail(s, FV_E_USAGE, "speedrun: pictures must have %dx%d to %dx%d pixels, they have %lldx%lld",
                             SMALLEST_SIDE, SMALLEST_SIDE, LARGEST_SIDE, LARGEST_SIDE, (long long)h, (long long)w);
    x = whiten(fv_in(s, "whiten"), x, cfg);
    for (int i = 0; i < GROUPS; i++)
        x = group(fv_in(s, "group%d", i + 1), x, arch->width[i], arch, cfg->drop_path * i / (GROUPS - 1), cfg);
    x = fv_dropout(fv_in(s, "drop"), global_max_pool(s, x), cfg->drop_rate);
    x = fv_linear_layer(fv_in(s, "head"), x, cfg->num_classes, false, fv_init_default(fv_dim(s.g, x, 1)));
    return fv_model_has(cfg, SMALL_LOGITS) ? fv_scale(s, x, 1.0 / 9, 0) : x;
}

static fv_status init_from_pictures(fv_ctx *ctx, fv_store *store, const fv_pictures *pictures) {
    return fv_whiten_init(ctx, store, "whiten.weight", pictures, 5e-4);
}

static const speedrun_arch arch94 = {{64, 256, 256}, 2, 0.4}, arch96 = {{128, 384, 512}, 3, 0.1};

static const char *const stages[] = {"whiten", "group1", "group2", "group3"};

#define ENTRY(name, text, arch) \
    {name, \
     "speedrun", \
     text, \
     32, \
     3, \
     "head", \
     build_speedrun, \
     &arch, \
     FV_STAGES(stages), \
     init_from_pictures, \
     WHITEN_PICTURES, \
     FV_STAGES(ideas)},
static const fv_model_entry entries[] = {
    ENTRY("speedrun94", "CIFAR-10 in seconds: whitened, 64/256/256 channels, two convolutions per group", arch94)
        ENTRY("speedrun96", "the same with 128/384/512 channels, three convolutions per group and shortcuts", arch96)};
#undef ENTRY

const fv_family fv_family_speedrun = FV_FAMILY(entries);
