/* test_cuda_kernels.c: our own CUDA kernels where rows of op_table.c do not reach: sizes that fill large tiles, work in
 * several pieces, index arithmetic; training against the cpu backend; and that the emulation, in which they run here,
 * notices mistakes. (Every row of op_table.c runs on the emulation, too: test_ops.c.) */
#include "fovea.h"
#include "tests/cuda/emulate/cuda_runtime.h"
#include "tests/op_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

Suite *cuda_kernels_suite(void);

/* ---------------------------------------------------------------- the emulation */

/* How a process ends that does the wrong thing: its signal, or what was noticed. */
static int end_of(int (*do_wrong)(int), int which) {
    int status;
    fflush(NULL);
    const pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        if (which == 2 || which == 10) fclose(stderr); /* its message */
        _exit(do_wrong(which) != 0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? -WTERMSIG(status) : WEXITSTATUS(status);
}

START_TEST(test_the_emulation_notices_mistakes) {
    const int expected[] = {0, 1, -SIGABRT, -SIGSEGV, -SIGSEGV, 1, 1, 1, 1, 1, -SIGABRT};
    int (*do_wrong)(int);
    if (!fvt_emulated("fv_emulated_do_wrong", &do_wrong)) return;
    for (int i = 0; i < (int)(sizeof expected / sizeof *expected); i++)
        ck_assert_msg(end_of(do_wrong, i) == expected[i], "mistake %d was not noticed", i);
}
END_TEST

START_TEST(test_quotients) {
    int64_t (*wrong)(void);
    if (!fvt_emulated("fv_emulated_wrong_quotient", &wrong)) return;
    const int64_t found = wrong();
    ck_assert_msg(found < 0, "%lld / %lld is wrong", (long long)(found & 0xffffffff), (long long)(found >> 32));
}
END_TEST

START_TEST(test_sums_of_nothing) {
    int (*wrong)(void);
    if (fvt_emulated("fv_emulated_wrong_sums_of_nothing", &wrong)) ck_assert_int_eq(wrong(), 0);
}
END_TEST

START_TEST(test_indices) {
    const char *(*wrong)(void);
    if (!fvt_emulated("fv_emulated_wrong_index", &wrong)) return;
    const char *found = wrong();
    ck_assert_msg(!found, "%s", found);
}
END_TEST

/* ---------------------------------------------------------------- sizes */

static const op_row large_rows[] = {
    {FV_OP_CONV2D,
     "tiles of 128",
     {.conv2d = {.pad = {0, 0, 0, 0}}},
     {OP_NORMAL(2, 97, 96, 5), OP_NORMAL(130, 1, 1, 5)}},
    {FV_OP_CONV2D_BWD_DATA,
     "tiles of 128",
     {.conv2d_bwd = {{.stride = {2, 2}}, {2, 97, 97, 130}}},
     {OP_NORMAL(2, 49, 49, 3), OP_NORMAL(3, 1, 1, 130)}},
    {FV_OP_CONV2D_BWD_WEIGHT,
     "slices",
     {.conv2d_bwd = {{.pad = {1, 1, 1, 1}}, {5, 3, 3, 4}}},
     {OP_NORMAL(3, 65, 66, 5), OP_NORMAL(3, 65, 66, 4)}},
    {FV_OP_LINEAR_BWD_WEIGHT, "tiles of 128", {0}, {OP_NORMAL(3, 2100), OP_NORMAL(3, 2050)}},
    {FV_OP_MATMUL, "tiles of 128", {.matmul = {true, false}}, {OP_NORMAL(67, 3, 129), OP_NORMAL(67, 3, 129)}},
    {FV_OP_ATTENTION, "some pictures at a time", {.attention = {1500, 1}}, {OP_NORMAL(3, 1, 4500)}},
    {FV_OP_BATCH_NORM, "many tiles", {.batch_norm = {1e-5, FV_ACT_NONE}}, {OP_NORMAL(9000, 8)}},
    {FV_OP_LAYER_NORM_BWD,
     "large groups",
     {.norm = {1e-5, 0}},
     {OP_NORMAL(40, 2500), OP_NORMAL(40, 2500), OP_NORMAL(40), {.fill = FILL_POSITIVE, .type = {FV_F32, 1, {40}}}}},
    {FV_OP_SUM, "slices of rows", {.reduce = {3, false}}, {OP_NORMAL(300, 250)}},
    {FV_OP_SUM, "slices of columns", {.reduce = {1, false}}, {OP_NORMAL(20000, 3)}},
    {FV_OP_AUGMENT,
     "more than a block has",
     {.augment = {70, 67, FV_PAD_REFLECT}},
     {{.fill = FILL_BYTE, .limit = 256, .constant = true, .type = {FV_U8, 4, {3, 69, 70, 3}}},
      {.fill = FILL_RECORD, .limit = 4, .constant = true, .type = {FV_F32, 2, {3, FV_AUG_FIELDS}}},
      OP_NORMAL(3),
      {.fill = FILL_POSITIVE, .type = {FV_F32, 1, {3}}}}},
    {FV_OP_SOFTMAX_CROSS_ENTROPY_BWD,
     "rows for many blocks",
     {.loss = {0.1, FV_REDUCE_MEAN}},
     {{.fill = FILL_NORMAL, .type = {FV_F32, 0, {0}}},
      OP_NORMAL(6000, 3),
      {.fill = FILL_LABEL, .limit = 3, .constant = true, .type = {FV_I32, 1, {6000}}}}},
};

static const fv_dtype precisions[] = {FV_F32, FV_BF16, FV_F16};
enum { PRECISIONS = sizeof precisions / sizeof *precisions };

/* Those that are emulated for ten seconds each; in f16 their kernels are bf16's but for the type, and conv2d runs
 * those. */
static bool takes_long(fv_op op) {
    return op == FV_OP_LINEAR_BWD_WEIGHT || op == FV_OP_MATMUL || op == FV_OP_ATTENTION;
}

/* Against ref in float64, within 64 roundings of the values and their mean: sums here have up to 75000 terms. In bf16
 * and f16 results are rounded once more. */
START_TEST(test_large_sizes) {
    op_case c, run;
    op_row row;
    op_results want, got;
    fvt_device d;
    const fv_dtype precision = precisions[_i % PRECISIONS];
    if (precision != FV_F32 && fv_op_precision(large_rows[_i / PRECISIONS].op) == FV_PRECISION_FULL) return;
    if (precision == FV_F16 && takes_long(large_rows[_i / PRECISIONS].op)) return;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    op_case_make(&large_rows[_i / PRECISIONS], &c);
    run = precision == FV_F32 ? c : op_case_lower(&c, precision, &row);
    op_case_reference(&c, &want);
    op_case_run(&d, &run, false, &got);
    op_results_check(&run, &got, &want, op_uses_libraries(&d), fv_dtype_name(precision));
    op_results_free(&want);
    op_results_free(&got);
    op_case_free(&c);
    fvt_close(&d);
}
END_TEST

/* What cuDNN and cuBLASLt round once more is allowed where they run, and only then (it is what a GPU is judged by). */
START_TEST(test_what_libraries_round_is_allowed) {
    op_case c, low;
    op_row row, wide = {FV_OP_CONV2D_BWD_WEIGHT,
                        "allowance",
                        {.conv2d_bwd = {{.pad = {1, 1, 1, 1}}, {5, 3, 3, 4}}},
                        {OP_NORMAL(1, 4, 4, 5), OP_NORMAL(1, 4, 4, 4)}};
    op_results want, got;
    op_case_make(&wide, &c);
    low = op_case_lower(&c, FV_BF16, &row);
    op_case_reference(&c, &want);
    op_case_reference(&c, &got);
    got.type[0].dtype = FV_BF16;
    for (int64_t i = 0; i < fv_count(want.type[0]); i++) {
        ck_assert_double_eq(op_rounded_besides(&low, &want, 0, i), ldexp(fabs(want.data[0][i]), -8));
        ck_assert_double_eq(op_rounded_besides(&c, &want, 0, i), 0); /* float32 */
        got.data[0][i] *= 1 + 0x1.fp-8;
    }
    op_results_check(&low, &got, &want, true, "rounded twice");
    row.op = FV_OP_CONV2D_BWD_DATA;
    ck_assert_double_eq(op_rounded_besides(&low, &want, 0, 0), 0);
    op_results_free(&want);
    op_results_free(&got);
    op_case_free(&c);
}
END_TEST

/* ---------------------------------------------------------------- training */

enum { BATCH = 4, SIDE = 8, CLASSES = 3, TINY_STEPS = 50, RESNET_STEPS = 4 };

/* Layer norm, attention, gelu, dropout and Adam; or convolutions, a norm of groups and SGD. */
static fv_value tiny_logits(fv_scope s, fv_value x, bool attention) {
    if (attention) {
        x = fv_conv_layer(fv_in(s, "patch"), x, (fv_conv_cfg){.out = 12, .kernel = 2, .stride = 2});
        x = fv_reshape_to(s, x, BATCH, SIDE * SIDE / 4, 12);
        x = fv_layer_norm(s, x, FV_NONE, FV_NONE, 1e-5);
        x = fv_attention(s, fv_linear_layer(fv_in(s, "qkv"), x, 36, true, fv_init_normal(0.2)), FV_NONE, FV_NONE, 3, 0);
        x = fv_dropout(fv_in(s, "drop"), fv_gelu(s, x), 0.2);
        x = fv_mean(s, x, 1 << 1, false);
    } else {
        x = fv_conv_bn_act(s, "conv1", "bn1", x, (fv_conv_cfg){.out = 8, .kernel = 3, .pad = 1}, (fv_bn_cfg){0},
                           FV_ACT_RELU);
        x = fv_conv_bn_act(s, "conv2", "bn2", x, (fv_conv_cfg){.out = 8, .kernel = 3, .pad = 1, .groups = 8},
                           (fv_bn_cfg){0}, FV_ACT_RELU);
        x = fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}});
        x = fv_global_avg_pool(s, fv_silu(s, fv_group_norm(s, x, FV_NONE, FV_NONE, 2, 1e-5)));
    }
    return fv_linear_layer(fv_in(s, "head"), x, CLASSES, true, fv_init_normal(0.3));
}

static void open_training(fvt_device *d, const char *model, fv_dtype precision, fv_store **store, fv_program **p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    const bool attention = !strcmp(model, "attention"), tiny = attention || !strcmp(model, "convolution");
    const double mean[3] = {0.4, 0.5, 0.6}, std[3] = {0.2, 0.25, 0.3};
    fv_value x = fv_picture_input(s, BATCH, SIDE, SIDE, 3, mean, std, FV_PAD_REFLECT);
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    fv_value logits =
        tiny ? tiny_logits(s, x, attention) : fv_model_build(g, model, x, &(fv_model_cfg){.num_classes = CLASSES});
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    const fv_optim_cfg optim = {.kind = attention ? FV_OPT_ADAMW : FV_OPT_SGD,
                                .momentum = 0.9,
                                .beta1 = 0.9,
                                .beta2 = 0.99,
                                .eps = 1e-8,
                                .clip_grad = 1,
                                .ema = true};
    ck_assert_int_eq(fv_optim_build(g, loss, &optim), FV_OK);
    if (fv_is_low(precision)) fv_graph_mix_precision(g, precision);
    ck_assert_msg(fv_program_create(&d->ctx, g, d->dev, 11, NULL, store, p) == FV_OK, "%s", d->ctx.error.message);
}

/* Run the segments with the batch of a step; the loss. */
static double run_step(fvt_device *d, fv_program *p, int64_t step, double lr, uint32_t segments) {
    static uint8_t images[BATCH * SIDE * SIDE * 3];
    float record[BATCH][FV_AUG_FIELDS] = {0};
    int32_t labels[BATCH];
    int64_t keys[BATCH];
    for (int i = 0; i < BATCH; i++) {
        labels[i] = (int32_t)((i + step) % CLASSES);
        keys[i] = BATCH * step + i;
        record[i][FV_AUG_FLIP] = (float)(i % 2);
    }
    const int each = SIDE * SIDE * 3; /* a class has its own brightness, so that there is something to learn */
    for (int i = 0; i < BATCH * each; i++)
        images[i] = (uint8_t)(60 * labels[i / each] + (int)(100 * fvt_uniform(3, (uint64_t)(i + step * 1000), 1)));
    const fv_step numbers = {.seed = 5, .step = step, .lr = {lr, lr}, .ema_decay = 0.9, .loss_scale = 1};
    ck_assert_int_eq(fv_program_input(p, "images", images, sizeof images), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "record", record, sizeof record), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "row_key", keys, sizeof keys), FV_OK);
    ck_assert_msg(fv_program_run(p, &numbers, segments) == FV_OK, "%s", d->ctx.error.message);
    return fv_program_scalar(p, "loss");
}

static double train_step(fvt_device *d, fv_program *p, int64_t step, double lr) {
    return run_step(d, p, step, lr, FV_ALL_SEGMENTS);
}

/* The losses, and the hash of all that is kept. */
static uint64_t train(const char *backend, const char *model, fv_dtype precision, double *losses) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    uint64_t hash;
    ck_assert(fvt_open(&d, backend, 2, NULL));
    open_training(&d, model, precision, &store, &p);
    for (int i = 0; i < TINY_STEPS; i++) losses[i] = train_step(&d, p, i, !strcmp(model, "attention") ? 0.003 : 0.05);
    ck_assert_int_eq(fv_store_hash(store, &hash), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
    return hash;
}

static bool have_cuda(void) {
    fvt_device d;
    if (!fvt_open(&d, "cuda", 0, NULL)) return false;
    fvt_close(&d);
    return true;
}

/* In bf16 a sum in another order may round to a neighbour, 2^16 times as far as in float32; in f16 2^13 times. */
START_TEST(test_training_follows_the_cpu) {
    const char *model = _i % 2 ? "attention" : "convolution";
    const fv_dtype precision = precisions[_i / 2];
    const double near = precision == FV_F32 ? 1e-3 : 5e-3;
    double want[TINY_STEPS], got[TINY_STEPS], again[TINY_STEPS], worst = 0;
    if (!have_cuda()) return;
    train("cpu", model, precision, want);
    const uint64_t first = train("cuda", model, precision, got);
    const uint64_t second = train("cuda", model, precision, again);
    ck_assert_msg(first == second && !memcmp(got, again, sizeof got), "%s: a second run gives other bits", model);
    for (int i = 0; i < TINY_STEPS; i++) worst = fmax(worst, fabs(got[i] - want[i]) / want[0]);
    printf("%s %s: %.2g of the first loss apart\n", model, fv_dtype_name(precision), worst);
    ck_assert_msg(worst <= near, "%s: losses are %g of the first apart", model, worst);
    ck_assert_double_lt(got[TINY_STEPS - 1], 0.8 * got[0]); /* it learns */
}
END_TEST

/* ---------------------------------------------------------------- finite differences
 * On tiny nets without kinks, in float32, on the device alone: nothing else says what the gradient is. */

enum { SMOOTH_NETS = 5, MOST_SLOTS = 32, MOST_WEIGHTS = 8192 };

static fv_value smooth_logits(fv_scope s, fv_value x, int net) {
    const fv_conv_cfg three = {.out = 8, .kernel = 3, .pad = 1},
                      strided = {.out = 8, .kernel = 3, .stride = 2, .pad = 1};
    const fv_conv_cfg each = {.out = 8, .kernel = 3, .pad = 1, .groups = 8};
    fv_value y;
    switch (net) {
    case 0: /* linear layers */
        x = fv_reshape_to(s, x, BATCH, SIDE * SIDE * 3);
        x = fv_gelu(s, fv_linear_layer(fv_in(s, "fc"), x, 16, true, fv_init_normal(0.1)));
        break;
    case 1: /* batch norm */
        x = fv_silu(s, fv_conv_bn_act(s, "conv", "bn", x, three, (fv_bn_cfg){0}, FV_ACT_NONE));
        x = fv_global_avg_pool(s, fv_avg_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}, .stride = {2, 2}}));
        break;
    case 2: /* depthwise, group norm */
        x = fv_gelu_tanh(s, fv_conv_layer(fv_in(s, "conv"), x, three));
        x = fv_group_norm(s, fv_conv_layer(fv_in(s, "each"), x, each), FV_NONE, FV_NONE, 2, 1e-5);
        x = fv_global_avg_pool(s, fv_silu(s, x));
        break;
    case 3: /* a residual connection, layer norm */
        x = y = fv_silu(s, fv_conv_layer(fv_in(s, "down"), x, strided));
        y = fv_layer_norm(s, fv_conv_layer(fv_in(s, "conv"), y, three), FV_NONE, FV_NONE, 1e-5);
        x = fv_global_avg_pool(s, fv_add(s, x, fv_gelu(s, y)));
        break;
    default: return tiny_logits(s, x, true); /* attention, dropout */
    }
    return fv_linear_layer(fv_in(s, "head"), x, CLASSES, true, fv_init_normal(0.3));
}

static void open_smooth(fvt_device *d, int net, fv_store **store, fv_program **p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    const double mean[3] = {0.4, 0.5, 0.6}, std[3] = {0.2, 0.25, 0.3};
    fv_value x = fv_picture_input(s, BATCH, SIDE, SIDE, 3, mean, std, FV_PAD_REFLECT);
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    fv_value loss = fv_softmax_cross_entropy(s, smooth_logits(s, x, net), labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD}), FV_OK);
    ck_assert_msg(fv_program_create(&d->ctx, g, d->dev, 11, NULL, store, p) == FV_OK, "%s", d->ctx.error.message);
}

typedef struct weights {
    int n;
    int32_t slot[MOST_SLOTS];
    int64_t first[MOST_SLOTS + 1];
    float at[MOST_WEIGHTS], gradient[MOST_WEIGHTS];
} weights;

static void find_weights(fv_store *store, weights *w) {
    *w = (weights){0};
    for (int32_t i = 0; i < fv_store_count(store); i++) {
        const fv_slot *slot = fv_store_slot(store, i);
        if (slot->role != FV_ROLE_WEIGHT) continue;
        ck_assert_int_lt(w->n, MOST_SLOTS);
        w->slot[w->n++] = i;
        w->first[w->n] = w->first[w->n - 1] + fv_count(slot->type);
        ck_assert_int_le(w->first[w->n], MOST_WEIGHTS);
    }
}

static void read_weights(fv_store *store, const weights *w, float *to) {
    for (int i = 0; i < w->n; i++)
        ck_assert_int_eq(
            fv_store_read(store, w->slot[i], to + w->first[i], (size_t)(w->first[i + 1] - w->first[i]) * sizeof *to),
            FV_OK);
}

/* The loss with weight i moved by `by` along its gradient, which has the given norm. */
static double moved_loss(fvt_device *d, fv_program *p, fv_store *store, const weights *w, int i, double norm,
                         double by) {
    static float moved[MOST_WEIGHTS];
    const int64_t n = w->first[i + 1] - w->first[i];
    for (int64_t k = 0; k < n; k++)
        moved[k] = w->at[w->first[i] + k] + (float)(by / norm * (double)w->gradient[w->first[i] + k]);
    ck_assert_int_eq(fv_store_write(store, w->slot[i], moved, (size_t)n * sizeof *moved), FV_OK);
    return run_step(d, p, 0, 0, 1u << FV_SEG_FORWARD_BACKWARD);
}

/* The slope there, by central differences at two distances (Richardson): the third derivative cancels. Weight i is put
 * back. */
static double slope_along(fvt_device *d, fv_program *p, fv_store *store, const weights *w, int i, double norm) {
    const double far = 0.02, near = far / 2;
    const double wide = moved_loss(d, p, store, w, i, norm, far) - moved_loss(d, p, store, w, i, norm, -far);
    const double narrow = moved_loss(d, p, store, w, i, norm, near) - moved_loss(d, p, store, w, i, norm, -near);
    (void)moved_loss(d, p, store, w, i, norm, 0);
    return (4 * narrow / (2 * near) - wide / (2 * far)) / 3;
}

static double norm_of(const float *v, int64_t n) {
    double squares = 0;
    for (int64_t i = 0; i < n; i++) squares += (double)v[i] * (double)v[i];
    return sqrt(squares);
}

/* The gradient is what a step of SGD with a learning rate of 1 takes away. Along it the slope of the loss is its norm:
 * within 1e-3, weight by weight. */
START_TEST(test_finite_differences) {
    static weights w;
    static float after[MOST_WEIGHTS];
    fvt_device d;
    fv_store *store;
    fv_program *p;
    double worst = 0;
    if (!fvt_open(&d, "cuda", 2, NULL)) return;
    open_smooth(&d, _i, &store, &p);
    find_weights(store, &w);
    read_weights(store, &w, w.at);
    train_step(&d, p, 0, 1);
    read_weights(store, &w, after);
    for (int64_t k = 0; k < w.first[w.n]; k++) w.gradient[k] = w.at[k] - after[k];
    const double all = norm_of(w.gradient, w.first[w.n]);
    for (int i = 0; i < w.n; i++)
        ck_assert_int_eq(
            fv_store_write(store, w.slot[i], w.at + w.first[i], (size_t)(w.first[i + 1] - w.first[i]) * sizeof *w.at),
            FV_OK);
    for (int i = 0; i < w.n; i++) {
        const double norm = norm_of(w.gradient + w.first[i], w.first[i + 1] - w.first[i]);
        if (norm < 1e-6) continue; /* what a norm takes away again: a bias before it */
        worst = fmax(worst, fabs(slope_along(&d, p, store, &w, i, norm) - norm) / all);
    }
    printf("net %d: slopes are %.2g of the gradient's norm off, at most\n", _i, worst);
    ck_assert_double_gt(all, 0.01);
    ck_assert_msg(worst < 1e-3, "net %d: a slope is %g of the gradient's norm off", _i, worst);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* ResNet-20 as it is trained: kernels per step, and no memory asked for once it runs. */
START_TEST(test_launches_of_a_residual_net) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    fv_emulated_counts (*count)(void);
    void (*reset)(void);
    if (!have_cuda() || !fvt_emulated("fv_emulated_count", &count) || !fvt_emulated("fv_emulated_reset", &reset))
        return;
    ck_assert(fvt_open(&d, "cuda", 0, NULL));
    open_training(&d, "resnet20", precisions[_i], &store, &p);
    for (int i = 0; i < RESNET_STEPS; i++) {
        if (i == 2) reset();
        ck_assert(isfinite(train_step(&d, p, i, 0.01)));
    }
    const fv_emulated_counts counts = count();
    const int64_t per_step = counts.launches / (RESNET_STEPS - 2);
    printf("resnet20 in %s: %lld kernels per step\n", fv_dtype_name(precisions[_i]), (long long)per_step);
    ck_assert_int_eq(counts.allocations, 0);
    ck_assert_int_eq(counts.enqueued, 0);
    ck_assert_int_eq(counts.graphs, RESNET_STEPS - 2);
    /* 21 convolutions and products, two kernels each way for 19 norms, two for products that are cut in slices. */
    ck_assert_int_le(per_step, 180);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- kernels per step of the nets that are measured */

enum { COUNTED_BATCH = 64, COUNTED_STEPS = 4, COUNTED_SIDE = 32 };

typedef struct counted_net {
    const char *model;
    bool speed_run; /* trained as the recipe cifar10-94 has it */
    int most;       /* kernels per step: as many as there are */
} counted_net;

/* 60 are wanted for the speed run; docs/benchmarks.md says what the others do. */
static const counted_net counted_nets[] = {
    {"speedrun94", true, 74}, {"resnet18_cifar", false, 184}, {"vit_tiny_patch4_32", false, 523}};
enum { COUNTED_NETS = sizeof counted_nets / sizeof *counted_nets };

static void open_counted(fvt_device *d, const counted_net *n, fv_store **store, fv_program **p) {
    static const fv_param_group groups[] = {{"whiten.bias", -1, false}, {"bias", -1, false}};
    const double mean[3] = {0.4, 0.5, 0.6}, std[3] = {0.2, 0.25, 0.3};
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    fv_value x = fv_picture_input(s, COUNTED_BATCH, COUNTED_SIDE, COUNTED_SIDE, 3, mean, std, FV_PAD_REFLECT);
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, COUNTED_BATCH));
    fv_value logits = fv_model_build(g, n->model, x, &(fv_model_cfg){.num_classes = 10});
    const fv_loss_attr loss_attr = {.label_smoothing = 0.2, .reduction = n->speed_run ? FV_REDUCE_SUM : FV_REDUCE_MEAN};
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, loss_attr);
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    const bool vit = !strcmp(n->model, "vit_tiny_patch4_32");
    const fv_optim_cfg speed_run = {
        .kind = FV_OPT_SGD, .momentum = 0.85, .nesterov = true, .lookahead = true, .groups = groups, .n_groups = 2};
    const fv_optim_cfg plain = {.kind = vit ? FV_OPT_ADAMW : FV_OPT_SGD, .momentum = 0.9, .nesterov = true};
    ck_assert_int_eq(fv_optim_build(g, loss, n->speed_run ? &speed_run : &plain), FV_OK);
    fv_graph_mix_precision(g, FV_BF16);
    ck_assert_msg(fv_program_create(&d->ctx, g, d->dev, 11, NULL, store, p) == FV_OK, "%s", d->ctx.error.message);
}

/* Of a text of lines "12 name", the sum of those whose name holds `part`. */
static int64_t count_of(const char *kernels, const char *part) {
    int64_t sum = 0;
    for (const char *line = kernels; *line; line = strchr(line, '\n') + 1) {
        const char *found = strstr(line, part);
        if (found && found < strchr(line, '\n')) sum += atoll(line);
    }
    return sum;
}

/* In bf16, as they are trained: kernels that are only counted need not be small. Products are our own here: on a GPU
 * the libraries compute them. */
START_TEST(test_kernels_per_step) {
    const counted_net *n = &counted_nets[_i];
    fvt_device d;
    fv_store *store;
    fv_program *p;
    fv_emulated_counts (*count)(void);
    void (*reset)(void), (*only_count)(bool);
    const char *(*names)(void);
    if (!have_cuda() || !fvt_emulated("fv_emulated_count", &count) || !fvt_emulated("fv_emulated_reset", &reset) ||
        !fvt_emulated("fv_emulated_only_count", &only_count) || !fvt_emulated("fv_emulated_kernels", &names))
        return;
    ck_assert(fvt_open(&d, "cuda", 0, NULL));
    open_counted(&d, n, &store, &p);
    const fv_step numbers = {.seed = 5, .lr = {0.1, 0.1}, .loss_scale = 1};
    only_count(true);
    for (int i = 0; i < COUNTED_STEPS; i++) {
        if (i == 2) reset();
        ck_assert_msg(fv_program_run(p, &numbers, FV_ALL_SEGMENTS) == FV_OK, "%s", d.ctx.error.message);
    }
    const fv_emulated_counts counts = count();
    const int64_t per_step = counts.launches / (COUNTED_STEPS - 2);
    const int64_t of_library = count_of(names(), "gemm") / (COUNTED_STEPS - 2);
    only_count(false);
    printf("%s: %lld kernels per step, %lld of them for products and convolutions\n", n->model, (long long)per_step,
           (long long)of_library);
    if (n->speed_run) printf("in %d steps:\n%s", COUNTED_STEPS - 2, names());
    ck_assert_int_eq(counts.allocations, 0);
    ck_assert_int_eq(counts.enqueued, 0);
    ck_assert_int_eq(counts.graphs, COUNTED_STEPS - 2);
    ck_assert_int_le(per_step, n->most);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- Muon */

enum { MATRICES = 36 };

/* 34 matrices of one size and two of another between them; a step of -1 adds what the iterations make of c. */
static void muon_step(fvt_device *d, double (*w)[15], int64_t *launches) {
    fv_emulated_counts (*count)(void);
    void (*reset)(void);
    fvt_program p;
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    const bool counted = fvt_emulated("fv_emulated_count", &count) && fvt_emulated("fv_emulated_reset", &reset);
    fv_value loss = FV_NONE;
    double c[15];
    char name[16];
    for (int i = 0; i < MATRICES; i++) {
        const bool tall = i == 3 || i == 20;
        snprintf(name, sizeof name, "w%d", i);
        fv_value weight = fv_param(s, name, fv_shape(FV_F32, tall ? 5 : 3, tall ? 3 : 5), FV_PLAIN, FV_ZEROS, false);
        snprintf(name, sizeof name, "c%d", i);
        fv_value part = fv_sum(s, fv_mul(s, weight, fv_input(s, name, fv_typeof(g, weight))), 3, false);
        loss = i == 0 ? part : fv_add(s, loss, part);
    }
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_MUON, .ns_steps = 3}), FV_OK);
    fvt_compile(d, g, false, &p);
    for (int i = 0; i < MATRICES; i++) {
        for (int k = 0; k < 15; k++) c[k] = fvt_normal(5, (uint64_t)i, (uint64_t)k);
        snprintf(name, sizeof name, "c%d", i);
        fvt_set(&p, name, c);
    }
    const fv_step step = {.lr = {-1}, .loss_scale = 1};
    const uint32_t update = 1u << FV_SEG_UPDATE;
    ck_assert_int_eq(fv_program_run(p.program, &step, FV_ALL_SEGMENTS & ~update), FV_OK);
    if (counted) reset();
    ck_assert_int_eq(fv_program_run(p.program, &step, update), FV_OK);
    *launches = counted ? count().launches : 0;
    for (int i = 0; i < MATRICES; i++) {
        snprintf(name, sizeof name, "w%d", i);
        fvt_get(&p, name, w[i]);
    }
    fvt_destroy(&p);
}

/* Three batches: 32 matrices, the two that are left, the two of the other size. */
START_TEST(test_muon_takes_equal_matrices_at_once) {
    double want[MATRICES][15], got[MATRICES][15];
    int64_t launches, none;
    fvt_device cpu, cuda;
    if (!fvt_open(&cuda, "cuda", 0, NULL)) return;
    ck_assert(fvt_open(&cpu, "cpu", 1, NULL));
    muon_step(&cpu, want, &none);
    muon_step(&cuda, got, &launches);
    for (int i = 0; i < MATRICES; i++)
        for (int k = 0; k < 15; k++) ck_assert_double_eq_tol(got[i][k], want[i][k], 1e-5);
    printf("Muon: %lld kernels for %d matrices\n", (long long)launches, MATRICES);
    ck_assert_int_le(launches, 3 * (4 + 3 * 3));
    fvt_close(&cpu);
    fvt_close(&cuda);
}
END_TEST

Suite *cuda_kernels_suite(void) {
    Suite *suite = suite_create("cuda_kernels");
    TCase *emulation = tcase_create("emulation"), *kernels = tcase_create("kernels"),
          *counting = tcase_create("counting");
    tcase_add_test(emulation, test_the_emulation_notices_mistakes);
    tcase_add_test(emulation, test_quotients);
    tcase_add_test(emulation, test_sums_of_nothing);
    tcase_add_test(emulation, test_indices);
    tcase_add_loop_test(kernels, test_large_sizes, 0, PRECISIONS * sizeof large_rows / sizeof *large_rows);
    tcase_add_test(kernels, test_what_libraries_round_is_allowed);
    tcase_add_loop_test(kernels, test_training_follows_the_cpu, 0, 2 * PRECISIONS);
    tcase_add_loop_test(kernels, test_finite_differences, 0, SMOOTH_NETS);
    tcase_add_test(kernels, test_muon_takes_equal_matrices_at_once);
    tcase_add_loop_test(kernels, test_launches_of_a_residual_net, 0, PRECISIONS);
    tcase_add_loop_test(counting, test_kernels_per_step, 0, COUNTED_NETS);
    tcase_set_timeout(counting, 240);
    suite_add_tcase(suite, counting);
    tcase_set_timeout(emulation, 240);
    tcase_set_timeout(kernels, 240);
    suite_add_tcase(suite, emulation);
    suite_add_tcase(suite, kernels);
    return suite;
}
