/* vit.c: vision transformers (Dosovitskiy et al. 2020) as timm builds them, with timm's parameter names.
 *
 *   x [n,h,w,c] ─ patch_embed ─► [n,t,d] ─ (cls_token) + pos_embed ─ blocks ─ norm ─ class token ─ head
 *                                            (..._avg: no class token; mean over tokens ─ fc_norm ─ head)
 *   block:  x + drop_path(ls1 * attention(norm1(x))),  then  x + drop_path(ls2 * mlp(norm2(x)))
 *
 * Variants: _avg average pooling, _sincos fixed 2-D sine-cosine positions, _ls layer scale (Touvron et al. 2021). */
#include <math.h>

#include "core/ops.h"
#include "layers/zoo.h"

typedef struct vit_arch {
    int patch;
    int64_t dim;
    int depth, heads;
    bool avg, sincos, layer_scale;
} vit_arch;

static const double norm_eps = 1e-6, layer_scale_init = 1e-5;

/* timm draws with trunc_normal_(std=.02), which cuts at -2 and 2, a hundred deviations out: in effect a normal. */
static fv_init weight_init(void) {
    return fv_init_normal(0.02);
}

static fv_value linear(fv_scope s, fv_value x, int64_t out) {
    return fv_linear_layer(s, x, out, true, weight_init());
}

/* Fixed positions of Vaswani et al. 2017 in two dimensions, as in MoCo v3 and MAE: sin and cos of the column, then of
 * the row, a quarter of the channels each, wavelengths 2 pi to 20000 pi. A class token has zeros.
 * -> [prefix + rows * columns, dim] */
static const double *sincos_positions(fv_graph *g, int64_t rows, int64_t columns, int64_t prefix, int64_t dim) {
    size_t tokens = (size_t)(prefix + rows * columns);
    double *table = fv_arena_alloc(&g->arena, tokens, (size_t)dim * sizeof(double));
    if (!table) return NULL;
    int64_t quarter = dim / 4;
    for (int64_t t = 0; t < rows * columns; t++) {
        double *out = table + (prefix + t) * dim;
        int64_t at_row = t / columns, at_column = t % columns;
        for (int64_t i = 0; i < quarter; i++) {
            double frequency = pow(10000, -(double)i / (double)quarter);
            double column = (double)at_column * frequency, row = (double)at_row * frequency;
            out[i] = sin(column);
            out[quarter + i] = cos(column);
            out[2 * quarter + i] = sin(row);
            out[3 * quarter + i] = cos(row);
        }
    }
    return table;
}

static fv_value positions(fv_scope s, const vit_arch *arch, int64_t rows, int64_t columns, int64_t prefix) {
    fv_type type = fv_shape(FV_F32, 1, prefix + rows * columns, arch->dim);
    if (!arch->sincos) return fv_param(s, "pos_embed", type, FV_PLAIN, weight_init(), true);
    const double *table = sincos_positions(s.g, rows, columns, prefix, arch->dim);
    if (!table) return fv_graph_fail(s, FV_E_MEMORY, "no memory for the table of positions");
    return fv_buffer(s, "pos_embed", type, (fv_init){FV_INIT_DATA, 0, 0, table});
}

/* x [n,h,w,c] -> tokens [n,t,dim] with positions. Parameters in timm's order: cls_token, pos_embed, patch_embed. */
static fv_value embed(fv_scope s, fv_value x, const vit_arch *arch) {
    fv_type type = fv_typeof(s.g, x);
    int64_t n = type.dim[0], rows = type.dim[1] / arch->patch, columns = type.dim[2] / arch->patch, dim = arch->dim;
    fv_value token = FV_NONE;
    if (!arch->avg) token = fv_param(s, "cls_token", fv_shape(FV_F32, 1, 1, dim), FV_PLAIN, fv_init_normal(1e-6), true);
    fv_value position = positions(s, arch, rows, columns, arch->avg ? 0 : 1);

    int64_t fan_in = type.dim[3] * arch->patch * arch->patch;
    fv_scope patches = fv_in(s, "patch_embed");
    fv_conv_cfg proj = {
        .out = dim, .kernel = arch->patch, .stride = arch->patch, .bias = true, .init = fv_init_default(fan_in)};
    x = fv_reshape_to(patches, fv_conv_layer(fv_in(patches, "proj"), x, proj), n, rows * columns, dim);
    if (!arch->avg) {
        const int64_t shape[3] = {n, 1, dim};
        const fv_value parts[2] = {fv_broadcast(s, token, 3, shape), x};
        x = fv_concat(s, parts, 2, 1);
    }
    return fv_add(s, x, position);
}

static fv_value layer_scale(fv_scope s, fv_value x, const vit_arch *arch) {
    if (!arch->layer_scale) return x;
    fv_value gamma =
        fv_param(s, "gamma", fv_shape(FV_F32, arch->dim), FV_PLAIN, fv_init_constant(layer_scale_init), true);
    return fv_mul(s, x, gamma);
}

/* x: [n,t,dim] */
static fv_value encoder_block(fv_scope s, fv_value x, const vit_arch *arch, double drop_path) {
    fv_scope attn = fv_in(s, "attn"), mlp = fv_in(s, "mlp");
    fv_value y = fv_layer_norm_layer(fv_in(s, "norm1"), x, norm_eps);
    y = linear(fv_in(attn, "qkv"), y, 3 * arch->dim);
    y = fv_attention(attn, y, FV_NONE, FV_NONE, arch->heads, 0);
    y = linear(fv_in(attn, "proj"), y, arch->dim);
    y = layer_scale(fv_in(s, "ls1"), y, arch);
    x = fv_add(s, x, fv_drop_path(fv_in(s, "drop_path1"), y, drop_path));

    y = fv_layer_norm_layer(fv_in(s, "norm2"), x, norm_eps);
    y = fv_gelu(mlp, linear(fv_in(mlp, "fc1"), y, 4 * arch->dim));
    y = linear(fv_in(mlp, "fc2"), y, arch->dim);
    y = layer_scale(fv_in(s, "ls2"), y, arch);
    return fv_add(s, x, fv_drop_path(fv_in(s, "drop_path2"), y, drop_path));
}

/* x [n,t,dim] -> [n,dim], normalised. Layer norm works on each token alone, so only the class token needs it. */
static fv_value pool(fv_scope s, fv_value x, const vit_arch *arch) {
    if (arch->avg) return fv_layer_norm_layer(fv_in(s, "fc_norm"), fv_mean(s, x, 1u << 1, false), norm_eps);
    const int64_t n = fv_dim(s.g, x, 0), start[3] = {0}, size[3] = {n, 1, arch->dim};
    x = fv_reshape_to(s, fv_slice(s, x, start, size, NULL), n, arch->dim);
    return fv_layer_norm_layer(fv_in(s, "norm"), x, norm_eps);
}

static fv_value build_vit(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    const vit_arch *arch = arg;
    int64_t h = fv_dim(s.g, x, 1), w = fv_dim(s.g, x, 2);
    if (h < arch->patch || w < arch->patch || h % arch->patch != 0 || w % arch->patch != 0)
        return fv_graph_fail(s, FV_E_USAGE, "the image size must be a multiple of the patch size %d, it is %lldx%lld",
                             arch->patch, (long long)h, (long long)w);
    x = embed(s, x, arch);
    for (int i = 0; i < arch->depth; i++)
        x = encoder_block(fv_in(s, "blocks.%d", i), x, arch, cfg->drop_path * i / (arch->depth - 1));
    x = fv_dropout(fv_in(s, "head_drop"), pool(s, x, arch), cfg->drop_rate);
    return linear(fv_in(s, "head"), x, cfg->num_classes);
}

/* X(name, text, img_size, patch, dim, depth, heads) */
#define VIT_TABLE(X) \
    X(vit_tiny_patch16_224, "ViT-Tiny/16", 224, 16, 192, 12, 3) \
    X(vit_small_patch16_224, "ViT-Small/16", 224, 16, 384, 12, 6) \
    X(vit_base_patch16_224, "ViT-Base/16", 224, 16, 768, 12, 12) \
    X(vit_tiny_patch4_32_d6, "ViT-Tiny/4, 6 blocks", 32, 4, 192, 6, 3) \
    X(vit_tiny_patch4_32, "ViT-Tiny/4", 32, 4, 192, 12, 3) \
    X(vit_small_patch4_32, "ViT-Small/4", 32, 4, 384, 12, 6) \
    X(vit_tiny_patch8_64, "ViT-Tiny/8", 64, 8, 192, 12, 3) \
    X(vit_small_patch8_64, "ViT-Small/8", 64, 8, 384, 12, 6)

#define ARCHS(name, text, img_size, patch, dim, depth, heads) \
    static const vit_arch name = {patch, dim, depth, heads, false, false, false}; \
    static const vit_arch name##_avg = {patch, dim, depth, heads, true, false, false}; \
    static const vit_arch name##_sincos = {patch, dim, depth, heads, false, true, false}; \
    static const vit_arch name##_avg_sincos = {patch, dim, depth, heads, true, true, false}; \
    static const vit_arch name##_ls = {patch, dim, depth, heads, false, false, true};
VIT_TABLE(ARCHS)
#undef ARCHS

/* The first 1 + depth of them. The last norm goes with the head. */
static const char *const stages[] = {"patch_embed,cls_token,pos_embed",
                                     "blocks.0",
                                     "blocks.1",
                                     "blocks.2",
                                     "blocks.3",
                                     "blocks.4",
                                     "blocks.5",
                                     "blocks.6",
                                     "blocks.7",
                                     "blocks.8",
                                     "blocks.9",
                                     "blocks.10",
                                     "blocks.11"};

#define ENTRY(name, text, img_size, depth) \
    {#name, "vit", text " for " #img_size " pixels", img_size, 3, "head", build_vit, &name, stages, 1 + depth},
#define ENTRIES(name, text, img_size, patch, dim, depth, heads) \
    ENTRY(name, text, img_size, depth) \
    ENTRY(name##_avg, text ", average pooling", img_size, depth) \
    ENTRY(name##_sincos, text ", sine-cosine positions", img_size, depth) \
    ENTRY(name##_avg_sincos, text ", average pooling, sine-cosine positions", img_size, depth) \
    ENTRY(name##_ls, text ", layer scale", img_size, depth)
static const fv_model_entry entries[] = {VIT_TABLE(ENTRIES)};
#undef ENTRIES
#undef ENTRY

const fv_family fv_family_vit = FV_FAMILY(entries);
