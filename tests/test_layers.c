/* test_layers.c: layers and the model zoo: names, shapes, order, sizes, messages, and what a layer computes. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ops.h"
#include "layers/layers.h"
#include "tests/harness.h"

Suite *layers_suite(void);

/* ---------------------------------------------------------------- helpers */

typedef struct built {
    fv_ctx ctx;
    fv_graph *g;
    fv_value logits;
} built;

/* A model's graph for a batch of n pictures of the entry's own size (or img_size). */
static void build(built *b, const char *name, bool training, int64_t n, fv_model_cfg cfg) {
    const fv_model_entry *entry = fv_model_find(name);
    fv_ctx_init(&b->ctx);
    b->g = fv_graph_new(&b->ctx, training);
    ck_assert_ptr_nonnull(b->g);
    int64_t size = cfg.img_size ? cfg.img_size : entry ? entry->img_size : 32;
    int64_t channels = cfg.in_chans ? cfg.in_chans : entry ? entry->in_chans : 3;
    fv_value x = fv_input(fv_root(b->g), "image", fv_shape(FV_F32, n, size, size, channels));
    b->logits = fv_model_build(b->g, name, x, &cfg);
}

static void build_ok(built *b, const char *name, bool training, int64_t n, int64_t classes) {
    build(b, name, training, n, (fv_model_cfg){.num_classes = classes});
    ck_assert_msg(fv_graph_finish(b->g) == FV_OK, "%s: %s", name, b->ctx.error.message);
}

static int64_t count_params(const fv_graph *g) {
    int64_t count = 0;
    for (int i = 0; i < g->n_decls; i++)
        if (g->decls[i].role == FV_ROLE_WEIGHT) count += fv_count(g->decls[i].type);
    return count;
}

/* Multiply-adds of convolutions and linear layers. */
static double count_macs(const fv_graph *g) {
    double flops = 0;
    for (int i = 0; i < g->n_nodes; i++) {
        const fv_node *node = &g->nodes[i];
        if (node->op == FV_OP_CONV2D || node->op == FV_OP_LINEAR) flops += fv_node_flops(g, node);
    }
    return flops / 2;
}

static int count_ops(const fv_graph *g, fv_op op) {
    int count = 0;
    for (int i = 0; i < g->n_nodes; i++) count += g->nodes[i].op == op;
    return count;
}

/* ---------------------------------------------------------------- initialisers */

START_TEST(initialisers) {
    fv_init init = fv_init_he_normal(50, sqrt(2));
    ck_assert_int_eq(init.kind, FV_INIT_NORMAL);
    ck_assert_double_eq_tol(init.b, 0.2, 1e-15);
    init = fv_init_he_uniform(6, sqrt(2));
    ck_assert_double_eq_tol(init.a, -1, 1e-15);
    ck_assert_double_eq_tol(init.b, 1, 1e-15);
    ck_assert_double_eq_tol(fv_init_xavier_uniform(4, 2).b, 1, 1e-15);
    ck_assert_double_eq_tol(fv_init_xavier_normal(4, 4).b, 0.5, 1e-15);
    ck_assert_double_eq_tol(fv_init_default(16).b, 0.25, 1e-15);
    ck_assert_int_eq(fv_init_trunc_normal(0.02).kind, FV_INIT_TRUNC_NORMAL);
    ck_assert_double_eq(fv_init_constant(3).a, 3);
    ck_assert(isfinite(fv_init_he_normal(0, 1).b)); /* empty tensors are refused elsewhere */
}
END_TEST

/* ---------------------------------------------------------------- every model */

static const struct {
    const char *name;
    int64_t params;
    double macs; /* convolutions and linear layers */
} sizes[] = {
    /* Counted with PyTorch (torchvision, timm); 1000 classes at 224 pixels, else 10. Positions of _sincos are no
       parameters. */
    {"mlp", 535818, 535040},
    {"mlp_500", 397510, 397000},
    {"lenet5", 61706, 416520},
    {"resnet20", 269722, 40551040},
    {"resnet20_b", 272474, 40813184},
    {"resnet32", 464154, 68862592},
    {"resnet32_b", 466906, 69124736},
    {"resnet44", 658586, 97174144},
    {"resnet44_b", 661338, 97436288},
    {"resnet56", 853018, 125485696},
    {"resnet56_b", 855770, 125747840},
    {"resnet110", 1727962, 252887680},
    {"resnet110_b", 1730714, 253149824},
    {"resnet18", 11689512, 1814073344},
    {"resnet34", 21797672, 3663761408},
    {"resnet50", 25557032, 4089184256},
    {"resnet101", 44549160, 7801405440},
    {"resnet152", 60192808, 11513626624},
    {"resnet18_cifar", 11173962, 555422720},
    {"resnet34_cifar", 21282122, 1159402496},
    {"resnet50_cifar", 23520842, 1297829888},
    {"speedrun94", 1971640, 105360160}, /* without what the poolings drop; with it 118147360 */
    {"speedrun96", 9915704, 414448928}, /* 451967264 */
    {"vit_tiny_patch16_224", 5717416, 1074851328},
    {"vit_tiny_patch16_224_avg", 5717032, 1069542912},
    {"vit_tiny_patch16_224_ls", 5722024, 1074851328},
    {"vit_small_patch16_224", 22050664, 4241218560},
    {"vit_small_patch16_224_avg", 22049896, 4219984896},
    {"vit_small_patch16_224_ls", 22059880, 4241218560},
    {"vit_base_patch16_224", 86567656, 16848500736},
    {"vit_base_patch16_224_avg", 86566120, 16763566080},
    {"vit_base_patch16_224_ls", 86586088, 16848500736},
    {"vit_tiny_patch4_32_d6", 2693578, 173115264},
    {"vit_tiny_patch4_32_d6_avg", 2693194, 170461056},
    {"vit_tiny_patch4_32_d6_sincos", 2693578 - 65 * 192, 173115264},
    {"vit_tiny_patch4_32_d6_avg_sincos", 2693194 - 64 * 192, 170461056},
    {"vit_tiny_patch4_32_d6_ls", 2695882, 173115264},
    {"vit_tiny_patch4_32", 5362762, 345638784},
    {"vit_tiny_patch4_32_avg", 5362378, 340330368},
    {"vit_tiny_patch4_32_ls", 5367370, 345638784},
    {"vit_small_patch4_32", 21342346, 1381371648},
    {"vit_small_patch4_32_avg", 21341578, 1360137984},
    {"vit_small_patch4_32_ls", 21351562, 1381371648},
    {"vit_tiny_patch8_64", 5390410, 347408256},
    {"vit_tiny_patch8_64_avg", 5390026, 342099840},
    {"vit_tiny_patch8_64_ls", 5395018, 347408256},
    {"vit_small_patch8_64", 21397642, 1384910592},
    {"vit_small_patch8_64_avg", 21396874, 1363676928},
    {"vit_small_patch8_64_ls", 21406858, 1384910592},
};
enum { SIZES = sizeof(sizes) / sizeof(sizes[0]) };

START_TEST(model_sizes) {
    built b;
    int64_t classes = strstr(sizes[_i].name, "_224") ? 1000 : 10;
    const fv_model_entry *entry = fv_model_find(sizes[_i].name);
    ck_assert_msg(entry != NULL, "%s", sizes[_i].name);
    if (entry->img_size == 224) classes = 1000;
    build_ok(&b, sizes[_i].name, false, 1, classes);
    ck_assert_msg(count_params(b.g) == sizes[_i].params, "%s: %lld parameters, not %lld", entry->name,
                  (long long)count_params(b.g), (long long)sizes[_i].params);
    ck_assert_msg(count_macs(b.g) == sizes[_i].macs, "%s: %.0f MACs, not %.0f", entry->name, count_macs(b.g),
                  sizes[_i].macs);
    fv_graph_free(b.g);
}
END_TEST

/* Every model of the registry: training and evaluation graphs are sound, differ only in what they should, and have a
 * head. */
START_TEST(every_model_builds) {
    const fv_model_entry *entry = fv_model_at(_i);
    built train, eval;
    build_ok(&train, entry->name, true, 2, 7);
    build_ok(&eval, entry->name, false, 2, 7);
    ck_assert_int_eq(fv_dim(train.g, train.logits, 0), 2);
    ck_assert_int_eq(fv_dim(train.g, train.logits, 1), 7);
    ck_assert_int_eq(fv_typeof(eval.g, eval.logits).rank, 2);
    ck_assert_int_eq(fv_graph_verify(train.g), FV_OK);
    ck_assert_int_eq(fv_graph_verify(eval.g), FV_OK);
    ck_assert_int_eq(train.g->n_decls, eval.g->n_decls);
    for (int i = 0; i < train.g->n_decls; i++) {
        const fv_decl *a = &train.g->decls[i], *c = &eval.g->decls[i];
        ck_assert_str_eq(a->name, c->name);
        ck_assert(fv_same_type(a->type, c->type));
        bool spared = a->type.rank <= 1 || strcmp(a->name, "cls_token") == 0 || strcmp(a->name, "pos_embed") == 0;
        ck_assert_msg(a->no_decay == spared, "%s: weight decay of %s", entry->name, a->name);
    }
    char head[64];
    snprintf(head, sizeof head, "%s.weight", entry->head);
    fv_value w = fv_find_value(train.g, head);
    ck_assert_msg(!fv_is_none(w), "%s: no %s", entry->name, head);
    ck_assert_int_eq(fv_dim(train.g, w, 0), 7);
    ck_assert_int_eq(count_ops(train.g, FV_OP_BATCH_NORM), count_ops(eval.g, FV_OP_BATCH_NORM_INFER));
    ck_assert_int_eq(count_ops(train.g, FV_OP_LERP_ASSIGN), 2 * count_ops(train.g, FV_OP_BATCH_NORM));
    ck_assert_int_eq(count_ops(eval.g, FV_OP_LERP_ASSIGN), 0);
    for (int i = 0; i < train.g->n_nodes; i++)
        if (train.g->nodes[i].op == FV_OP_LERP_ASSIGN || train.g->nodes[i].op == FV_OP_INCREMENT)
            ck_assert_int_eq(train.g->nodes[i].segment, FV_SEG_UPDATE);
        else ck_assert_int_eq(train.g->nodes[i].segment, FV_SEG_FORWARD_BACKWARD);
    fv_graph_free(train.g);
    fv_graph_free(eval.g);
}
END_TEST

/* ---------------------------------------------------------------- names, shapes and order of others' files */

/* tests/keys/: state_dict() of timm 1.0, of akamaster/pytorch_resnet_cifar10 and of tests/peers/models.py, one
 * "name<TAB>dtype<TAB>[shape]" a line. torchvision's resnet18 and resnet50 have the same lines as timm's. */
static const struct {
    const char *model, *file;
    int64_t classes;
} key_files[] = {
    {"resnet18", "timm_resnet18", 1000},
    {"resnet50", "timm_resnet50", 1000},
    {"vit_tiny_patch16_224", "timm_vit_tiny_patch16_224", 1000},
    {"vit_tiny_patch4_32_d6_avg", "timm_vit_tiny_patch4_32_d6_avg", 10},
    {"vit_tiny_patch4_32_d6_avg_sincos", "timm_vit_tiny_patch4_32_d6_avg", 10},
    {"vit_tiny_patch4_32_d6_ls", "timm_vit_tiny_patch4_32_d6_ls", 10},
    {"resnet20", "akamaster_resnet20", 10},
    {"resnet20_b", "akamaster_resnet20_b", 10},
    {"speedrun94", "peers_speedrun94", 10},
    {"speedrun96", "peers_speedrun96", 10},
};
enum { KEY_FILES = sizeof(key_files) / sizeof(key_files[0]) };

/* "name<TAB>float32<TAB>[16, 3, 3, 3]" as the file of a declaration has it. */
static void key_line(const fv_decl *decl, char *line, size_t size) {
    fv_type type = fv_slot_file_type(&(fv_slot){.type = decl->type, .layout = decl->layout});
    const char *dtype = type.dtype == FV_F32 ? "float32" : type.dtype == FV_I64 ? "int64" : "?";
    size_t used = (size_t)snprintf(line, size, "%s\t%s\t[", decl->name, dtype);
    for (int i = 0; i < type.rank; i++)
        used += (size_t)snprintf(line + used, size - used, "%s%lld", i ? ", " : "", (long long)type.dim[i]);
    snprintf(line + used, size - used, "]\n");
}

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

START_TEST(names_shapes_and_order) {
    built b;
    build_ok(&b, key_files[_i].model, true, 2, key_files[_i].classes);
    char path[128], expected[256], line[256];
    snprintf(path, sizeof path, "tests/keys/%s.txt", key_files[_i].file);
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "cannot open %s (tests run in the root of the tree)", path);
    bool counters = true; /* the pretrained ResNet-20 is from before num_batches_tracked */
    if (strcmp(key_files[_i].file, "akamaster_resnet20") == 0) counters = false;
    for (int i = 0; i < b.g->n_decls; i++) {
        if (!counters && ends_with(b.g->decls[i].name, ".num_batches_tracked")) continue;
        ck_assert_msg(fgets(expected, sizeof expected, f) != NULL, "%s has no line for %s", path, b.g->decls[i].name);
        key_line(&b.g->decls[i], line, sizeof line);
        ck_assert_str_eq(line, expected);
    }
    ck_assert_ptr_null(fgets(expected, sizeof expected, f));
    fclose(f);
    fv_graph_free(b.g);
}
END_TEST

START_TEST(lenet_file_order) {
    built b;
    build_ok(&b, "lenet5", false, 1, 10);
    const fv_decl *fc1 = fv_decl_of(b.g, fv_find_value(b.g, "fc1.weight"));
    ck_assert_int_eq(fc1->layout.kind, FV_LAYOUT_LINEAR_CHW);
    ck_assert_int_eq(fc1->layout.c, 16);
    ck_assert_int_eq(fc1->layout.h, 5);
    ck_assert_int_eq(fc1->layout.w, 5);
    ck_assert_int_eq(fv_decl_of(b.g, fv_find_value(b.g, "fc2.weight"))->layout.kind, FV_LAYOUT_PLAIN);
    fv_graph_free(b.g);

    build(&b, "lenet5", false, 1,
          (fv_model_cfg){.num_classes = 10, .img_size = 32, .in_chans = 3}); /* no padding at 32 */
    ck_assert_int_eq(fv_graph_finish(b.g), FV_OK);
    ck_assert_int_eq(fv_dim(b.g, fv_find_value(b.g, "fc1.weight"), 1), 400);
    fv_graph_free(b.g);
}
END_TEST

/* ---------------------------------------------------------------- options */

static double drop_rate_of(const fv_graph *g, const char *scope) {
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == FV_OP_DROP_PATH && strcmp(g->nodes[i].scope, scope) == 0)
            return g->nodes[i].attr.dropout.p;
    return -1;
}

START_TEST(drop_path_grows_linearly) {
    built b;
    build(&b, "vit_tiny_patch4_32_d6", true, 2, (fv_model_cfg){.num_classes = 10, .drop_path = 0.5, .drop_rate = 0.1});
    ck_assert_int_eq(fv_graph_finish(b.g), FV_OK);
    ck_assert_int_eq(count_ops(b.g, FV_OP_DROP_PATH), 10); /* block 0 drops nothing */
    ck_assert_int_eq(count_ops(b.g, FV_OP_DROPOUT), 1);
    ck_assert_double_eq_tol(drop_rate_of(b.g, "blocks.1.drop_path1"), 0.1, 1e-12);
    ck_assert_double_eq_tol(drop_rate_of(b.g, "blocks.5.drop_path2"), 0.5, 1e-12);
    fv_graph_free(b.g);

    build(&b, "resnet20", true, 2, (fv_model_cfg){.num_classes = 10, .drop_path = 0.4});
    ck_assert_int_eq(fv_graph_finish(b.g), FV_OK);
    ck_assert_int_eq(count_ops(b.g, FV_OP_DROP_PATH), 8);
    ck_assert_double_eq_tol(drop_rate_of(b.g, "layer2.1.drop_path"), 0.2, 1e-12);
    fv_graph_free(b.g);
}
END_TEST

START_TEST(zero_gamma_of_last_norms) {
    built b;
    build(&b, "resnet50_cifar", true, 2, (fv_model_cfg){.num_classes = 10, .zero_gamma = true});
    ck_assert_int_eq(fv_graph_finish(b.g), FV_OK);
    int zero = 0;
    for (int i = 0; i < b.g->n_decls; i++) {
        const fv_decl *d = &b.g->decls[i];
        bool last = ends_with(d->name, ".bn3.weight");
        if (ends_with(d->name, "bn1.weight") || ends_with(d->name, ".bn2.weight") || last) {
            ck_assert_int_eq(d->init.kind, FV_INIT_CONSTANT);
            ck_assert_double_eq(d->init.a, last ? 0 : 1);
            zero += last;
        }
    }
    ck_assert_int_eq(zero, 16);
    fv_graph_free(b.g);
}
END_TEST

START_TEST(sincos_positions) {
    built b;
    build_ok(&b, "vit_tiny_patch4_32_d6_sincos", false, 1, 10);
    const fv_decl *pos = fv_decl_of(b.g, fv_find_value(b.g, "pos_embed"));
    ck_assert_int_eq(pos->role, FV_ROLE_BUFFER);
    ck_assert_int_eq(pos->init.kind, FV_INIT_DATA);
    const double *table = pos->init.data;
    for (int i = 0; i < 192; i++) ck_assert_double_eq(table[i], 0); /* the class token's row */
    const double *row = table + (1 + 3 * 8 + 5) * 192;              /* row 3, column 5 of the 8x8 patches */
    ck_assert_double_eq_tol(row[0], sin(5), 1e-15);
    ck_assert_double_eq_tol(row[48], cos(5), 1e-15);
    ck_assert_double_eq_tol(row[96], sin(3), 1e-15);
    ck_assert_double_eq_tol(row[144], cos(3), 1e-15);
    ck_assert_double_eq_tol(row[24], sin(5 / 100.0), 1e-15); /* 10000^(24/48) = 100 */
    fv_graph_free(b.g);
}
END_TEST

/* ---------------------------------------------------------------- the registry and its messages */

START_TEST(names_are_unique) {
    for (int i = 0; i < fv_model_count(); i++) {
        const fv_model_entry *entry = fv_model_at(i);
        ck_assert_ptr_eq(fv_model_find(entry->name), entry);
        ck_assert_str_eq(fv_model_nearest(entry->name), entry->name);
        ck_assert(entry->description[0] && entry->family[0]);
    }
    ck_assert_ptr_null(fv_model_at(-1));
    ck_assert_ptr_null(fv_model_at(fv_model_count()));
    ck_assert_ptr_null(fv_model_find("resnet"));
}
END_TEST

START_TEST(nearest_name) {
    ck_assert_str_eq(fv_model_nearest("resnet-20"), "resnet20");
    ck_assert_str_eq(fv_model_nearest("ResNet18"), "resnet18");
    ck_assert_str_eq(fv_model_nearest("lenet"), "lenet5");
    ck_assert_str_eq(fv_model_nearest("vit_tiny"), "vit_tiny_patch16_224");
    ck_assert_str_eq(fv_model_nearest("vit_tiny_patch4_32_d9"), "vit_tiny_patch4_32_d6");
    ck_assert_ptr_null(fv_model_nearest("a_wholly_different_thing"));
    ck_assert_ptr_null(fv_model_nearest(""));
    char endless[1000];
    memset(endless, 'r', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    ck_assert_ptr_null(fv_model_nearest(endless));
}
END_TEST

static const struct {
    const char *model;
    fv_model_cfg cfg;
    const char *says;
} refusals[] = {
    {"resnet21", {.num_classes = 10}, "did you mean 'resnet20'"},
    {"alexander", {.num_classes = 10}, "unknown model 'alexander'"},
    {"vit_tiny_patch4_32", {.num_classes = 10, .img_size = 30}, "multiple of the patch size 4, it is 30x30"},
    {"vit_tiny_patch16_224", {.num_classes = 10, .img_size = 8}, "multiple of the patch size 16"},
    {"lenet5", {.num_classes = 10, .img_size = 8}, "too small"},
    {"speedrun94", {.num_classes = 10, .img_size = 8}, "must have 9x9 to 128x128 pixels, they have 8x8"},
    {"speedrun96", {.num_classes = 10, .img_size = 129}, "they have 129x129"},
    {"resnet20", {.num_classes = 0}, "classes"},
    {"resnet20", {.num_classes = -3}, "classes"},
    {"resnet20", {.num_classes = 10, .drop_path = 1}, "drop path 1"},
    {"resnet20", {.num_classes = 10, .drop_rate = -0.5}, "dropout -0.5"},
    {"vit_tiny_patch4_32", {.num_classes = 10, .drop_rate = NAN}, "dropout"},
};
enum { REFUSALS = sizeof(refusals) / sizeof(refusals[0]) };

START_TEST(refuses) {
    built b;
    build(&b, refusals[_i].model, true, 2, refusals[_i].cfg);
    ck_assert(fv_is_none(b.logits));
    ck_assert_int_eq(fv_graph_finish(b.g), FV_E_USAGE);
    ck_assert_msg(strstr(b.ctx.error.message, refusals[_i].says) != NULL, "%s", b.ctx.error.message);
    fv_graph_free(b.g);
}
END_TEST

START_TEST(refuses_other_input) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    const fv_model_cfg cfg = {.num_classes = 10, .img_size = 64, .in_chans = 1};
    for (int i = 0; i < 3; i++) {
        fv_graph *g = fv_graph_new(&ctx, false);
        fv_type type = i == 0   ? fv_shape(FV_F32, 2, 32, 32, 1)
                       : i == 1 ? fv_shape(FV_F32, 2, 64, 64, 3)
                                : fv_shape(FV_F32, 2, 64);
        fv_model_build(g, "resnet20", fv_input(fv_root(g), "image", type), &cfg);
        ck_assert_int_eq(fv_graph_finish(g), FV_E_USAGE);
        fv_graph_free(g);
    }
    /* A batch that leaves one value per channel has no variance. */
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 1, 1, 1, 4));
    fv_batch_norm_layer(fv_in(fv_root(g), "bn"), x, (fv_bn_cfg){0});
    ck_assert_int_eq(fv_graph_finish(g), FV_E_USAGE);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "more than one value per channel"));
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- what batch norm does to its statistics */

START_TEST(running_statistics) {
    /* Two channels, three rows: (1, 10), (2, 20), (6, 60): means 3 and 30, unbiased variances 7 and 700. */
    const double rows[6] = {1, 10, 2, 20, 6, 60};
    fvt_device d;
    fv_store *store;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    ck_assert_int_eq(fv_store_create(&d.ctx, d.dev, &store), FV_OK);
    for (int training = 1; training >= 0; training--) {
        fv_graph *g = fv_graph_new(&d.ctx, training);
        fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 3, 1, 1, 2));
        fv_set_output(g, "y", fv_batch_norm_layer(fv_in(fv_root(g), "bn"), x, (fv_bn_cfg){0}));
        fv_graph_cast_floats(g, FV_F64);
        ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
        ck_assert_int_eq(fv_store_commit(store, 0), FV_OK);
        fvt_program p = {.device = &d, .store = store};
        ck_assert_msg(fv_compile(&d.ctx, g, store, d.dev, NULL, &p.program) == FV_OK, "%s", d.ctx.error.message);
        double y[6], mean[2], var[2], seen;
        fvt_set(&p, "x", rows);
        ck_assert_int_eq(fvt_run(&p), FV_OK);
        fvt_get(&p, "y", y);
        fvt_get(&p, "bn.running_mean", mean);
        fvt_get(&p, "bn.running_var", var);
        fvt_get(&p, "bn.num_batches_tracked", &seen);
        ck_assert_double_eq_tol(mean[0], 0.3, 1e-12);
        ck_assert_double_eq_tol(mean[1], 3, 1e-12);
        ck_assert_double_eq_tol(var[0], 0.9 + 0.7, 1e-12);
        ck_assert_double_eq_tol(var[1], 0.9 + 70, 1e-12);
        ck_assert_double_eq(seen, 1);
        double expected = training ? (1 - 3) / sqrt(14.0 / 3 + 1e-5) : (1 - 0.3) / sqrt(1.6 + 1e-5);
        ck_assert_double_eq_tol(y[0], expected, 1e-12);
        fv_program_destroy(p.program);
    }
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

Suite *layers_suite(void) {
    Suite *suite = suite_create("layers");
    TCase *zoo = tcase_create("zoo"), *layers = tcase_create("layers");
    tcase_set_timeout(zoo, 60);
    tcase_add_loop_test(zoo, model_sizes, 0, SIZES);
    tcase_add_loop_test(zoo, every_model_builds, 0, fv_model_count());
    tcase_add_loop_test(zoo, names_shapes_and_order, 0, KEY_FILES);
    tcase_add_test(zoo, lenet_file_order);
    tcase_add_test(zoo, drop_path_grows_linearly);
    tcase_add_test(zoo, zero_gamma_of_last_norms);
    tcase_add_test(zoo, sincos_positions);
    tcase_add_test(zoo, names_are_unique);
    tcase_add_test(zoo, nearest_name);
    tcase_add_loop_test(zoo, refuses, 0, REFUSALS);
    tcase_add_test(zoo, refuses_other_input);
    suite_add_tcase(suite, zoo);
    tcase_add_test(layers, initialisers);
    tcase_add_test(layers, running_statistics);
    suite_add_tcase(suite, layers);
    return suite;
}
