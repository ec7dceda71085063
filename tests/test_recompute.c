/* test_recompute.c: values made anew for the backward pass: the same bits, less memory, nothing that changes state. */
#include "fovea.h"

#include <check.h>
#include <math.h>
#include <string.h>

enum { BATCH = 8, SIDE = 16, CHANNELS = 16, TOKENS = 64, WIDTH = 64, CLASSES = 5, STEPS = 3, BLOCKS = 3 };

/* conv-bn-relu with residuals, then transformer-like blocks with layer norm, GELU and dropout. x: [n,16,16,3] */
static fv_value net(fv_graph *g, fv_value x) {
    fv_scope s = fv_root(g);
    fv_conv_cfg conv = {.out = CHANNELS, .kernel = 3, .pad = 1};
    x = fv_conv_bn_act(s, "conv0", "bn0", x, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
    for (int i = 0; i < BLOCKS; i++) {
        fv_scope b = fv_in(s, "block%d", i);
        fv_value y = fv_conv_bn_act(b, "conv1", "bn1", x, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
        y = fv_conv_bn_act(b, "conv2", "bn2", y, conv, (fv_bn_cfg){0}, FV_ACT_NONE);
        x = fv_relu(b, fv_add(b, y, x));
    }
    x = fv_reshape_to(s, x, BATCH, TOKENS, WIDTH);
    for (int i = 0; i < BLOCKS; i++) {
        fv_scope b = fv_in(s, "mlp%d", i);
        fv_value y = fv_layer_norm_layer(fv_in(b, "norm"), x, 1e-6);
        y = fv_gelu(b, fv_linear_layer(fv_in(b, "fc1"), y, 2 * WIDTH, true, fv_init_normal(0.1)));
        y = fv_dropout(fv_in(b, "drop"), y, 0.1);
        x = fv_add(b, x, fv_linear_layer(fv_in(b, "fc2"), y, WIDTH, true, fv_init_normal(0.1)));
    }
    return fv_linear_layer(fv_in(s, "head"), fv_mean(s, x, 1u << 1, false), CLASSES, true, fv_init_normal(0.1));
}

static fv_graph *build(fv_ctx *ctx, double budget, fv_recompute_report *report) {
    fv_graph *g = fv_graph_new(ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, BATCH, SIDE, SIDE, 3)),
             y = fv_input(fv_root(g), "labels", fv_shape(FV_I32, BATCH));
    fv_value loss = fv_softmax_cross_entropy(fv_root(g), net(g, x), y, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    const fv_optim_cfg sgd = {.kind = FV_OPT_SGD, .momentum = 0.9};
    ck_assert_msg(fv_optim_build(g, loss, &sgd) == FV_OK, "%s", ctx->error.message);
    ck_assert_msg(fv_graph_recompute(g, budget, report) == FV_OK, "%s", ctx->error.message);
    ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s", ctx->error.message);
    return g;
}

typedef struct outcome {
    uint64_t hash; /* of weights, moments and running statistics after some steps */
    float loss;
    size_t arena;
    fv_recompute_report report;
} outcome;

static void run(fv_program *p, outcome *out) {
    static float x[BATCH * SIDE * SIDE * 3];
    int32_t labels[BATCH];
    int64_t keys[BATCH];
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < BATCH * SIDE * SIDE * 3; i++)
            x[i] = (float)(2 * fv_uniform_f64(fv_random(1, (uint64_t)i, 0, (uint64_t)step, 7).v[0]) - 1);
        for (int i = 0; i < BATCH; i++) labels[i] = (i + step) % CLASSES, keys[i] = step * BATCH + i;
        ck_assert_int_eq(fv_program_input(p, "x", x, sizeof x), FV_OK);
        ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
        ck_assert_int_eq(fv_program_input(p, "row_key", keys, sizeof keys), FV_OK);
        const fv_step data = {.seed = 5, .step = step, .lr = {0.05, 0.05}, .weight_decay = {1e-3, 0}};
        ck_assert_int_eq(fv_program_run(p, &data, FV_ALL_SEGMENTS), FV_OK);
    }
    ck_assert_int_eq(fv_program_output(p, "loss", &out->loss, sizeof out->loss), FV_OK);
}

static outcome train(const fv_backend *backend, const char *isa, double budget) {
    fv_ctx ctx;
    fv_device *dev;
    fv_store *store;
    fv_program *p;
    outcome out = {0};
    fv_ctx_init(&ctx);
    if (backend->open(&ctx, &(fv_device_opts){.threads = 2, .isa = isa}, &dev) != FV_OK) return out;
    fv_graph *g = build(&ctx, budget, &out.report);
    ck_assert_msg(fv_program_create(&ctx, g, dev, 3, NULL, &store, &p) == FV_OK, "%s", ctx.error.message);
    out.arena = fv_program_plan(p)->arena_bytes;
    run(p, &out);
    ck_assert_int_eq(fv_store_hash(store, &out.hash), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
    dev->backend->close(dev);
    return out;
}

static void check_same(const outcome *kept, const outcome *again, const char *where) {
    ck_assert_msg(kept->hash == again->hash, "%s: other bits", where);
    ck_assert_msg(kept->loss == again->loss, "%s: loss %.9g and %.9g", where, (double)kept->loss, (double)again->loss);
    ck_assert_msg(again->arena < kept->arena * 4 / 5, "%s: an arena of %zu bytes, %zu without", where, again->arena,
                  kept->arena);
}

START_TEST(same_bits_in_less_memory) {
    static const char *const isas[] = {"generic", "avx2", "avx512"};
    outcome kept = train(&fv_backend_ref, NULL, 0), again = train(&fv_backend_ref, NULL, INFINITY);
    ck_assert_int_eq(kept.report.nodes, 0);
    check_same(&kept, &again, "ref");
    for (int i = 0; i < 3; i++) {
        kept = train(&fv_backend_cpu, isas[i], 0);
        if (kept.arena == 0) continue; /* this processor has not got it */
        again = train(&fv_backend_cpu, isas[i], INFINITY);
        check_same(&kept, &again, isas[i]);
    }
}
END_TEST

/* With more to spend it takes less. */
START_TEST(more_budget_less_memory) {
    const outcome kept = train(&fv_backend_cpu, NULL, 0), some = train(&fv_backend_cpu, NULL, 0.05),
                  all = train(&fv_backend_cpu, NULL, INFINITY);
    ck_assert_msg(kept.hash == some.hash, "other bits");
    ck_assert_uint_lt(some.arena, kept.arena);
    check_same(&kept, &all, "cpu, all");
    ck_assert_int_gt(all.report.nodes, some.report.nodes);
    ck_assert(all.report.cost > some.report.cost);
    ck_assert_uint_lt(all.arena, some.arena);
}
END_TEST

/* Norms, activations, sums and products run again; nothing that changes state, and no gradient. */
START_TEST(only_pure_nodes_run_again) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_recompute_report report;
    fv_graph *before = build(&ctx, 0, NULL), *after = build(&ctx, INFINITY, &report);
    int more[FV_OP_COUNT] = {0}, all = 0;
    for (int32_t k = 0; k < after->n_nodes; k++) more[after->nodes[k].op]++;
    for (int32_t k = 0; k < before->n_nodes; k++) more[before->nodes[k].op]--;
    for (int op = 0; op < FV_OP_COUNT; op++) {
        bool pure = op == FV_OP_BATCH_NORM_INFER || op == FV_OP_LAYER_NORM || op == FV_OP_ACTIVATION ||
                    op == FV_OP_DROPOUT || op == FV_OP_ADD || op == FV_OP_CONV2D || op == FV_OP_LINEAR ||
                    op == FV_OP_ATTENTION;
        ck_assert_msg(more[op] == 0 || (more[op] > 0 && pure), "%d more of %s", more[op], fv_op_get((fv_op)op)->name);
        all += more[op];
    }
    ck_assert_int_eq(all, report.nodes);
    ck_assert_int_gt(more[FV_OP_BATCH_NORM_INFER], BLOCKS - 1);
    ck_assert_int_gt(more[FV_OP_LAYER_NORM], 0);
    ck_assert_int_gt(more[FV_OP_CONV2D], 0);
    fv_graph_free(before);
    fv_graph_free(after);
}
END_TEST

/* In a ViT the sum of a residual block is cheap to make anew, but not what it is made of. Judged by its own cost it
 * would use the budget up for a third of what activations, norms and products of many columns free. Of these only the
 * ones that free enough are taken. */
START_TEST(what_has_to_come_along_counts) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 16, 32, 32, 3)), y = fv_input(s, "labels", fv_shape(FV_I32, 16));
    fv_value logits =
        fv_model_build(g, "vit_tiny_patch4_32", x, &(fv_model_cfg){.num_classes = 10, .img_size = 32, .in_chans = 3});
    fv_value loss = fv_softmax_cross_entropy(s, logits, y, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_recompute_report report;
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD, .momentum = 0.9}), FV_OK);
    ck_assert_int_eq(fv_graph_recompute(g, 0.04, &report), FV_OK);
    ck_assert_msg((double)report.bytes_after < 0.68 * (double)report.bytes_before, "%zu bytes of %zu",
                  report.bytes_after, report.bytes_before);
    ck_assert_msg(report.cost < 0.02, "%.3f of a step", report.cost); /* the next 1% would free 4%, in products */
    fv_graph_free(g);
}
END_TEST

START_TEST(the_budget_is_kept) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_recompute_report all, some, none;
    fv_graph_free(build(&ctx, INFINITY, &all));
    fv_graph_free(build(&ctx, all.cost / 2, &some));
    fv_graph_free(build(&ctx, 0, &none));
    ck_assert_int_eq(none.nodes, 0);
    ck_assert_uint_eq(none.bytes_after, none.bytes_before);
    ck_assert(some.cost > 0 && some.cost <= all.cost / 2);
    ck_assert(some.nodes > 0 && some.nodes < all.nodes);
    ck_assert_uint_lt(all.bytes_after, some.bytes_after);
    ck_assert_uint_lt(some.bytes_after, some.bytes_before);
}
END_TEST

Suite *recompute_suite(void);
Suite *recompute_suite(void) {
    Suite *s = suite_create("recompute");
    TCase *tc = tcase_create("recompute");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, same_bits_in_less_memory);
    tcase_add_test(tc, more_budget_less_memory);
    tcase_add_test(tc, only_pure_nodes_run_again);
    tcase_add_test(tc, what_has_to_come_along_counts);
    tcase_add_test(tc, the_budget_is_kept);
    suite_add_tcase(s, tc);
    return s;
}
