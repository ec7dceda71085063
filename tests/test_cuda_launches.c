/* test_cuda_launches.c: what the CUDA backend joins to fewer launches: how many there are, which the emulation counts,
 * and that results are those of one call after the other. The emulation runs blocks in any order. */
#include "fovea.h"
#include "tests/cuda/emulate/cuda_runtime.h"
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

Suite *cuda_launches_suite(void);

static fv_emulated_counts (*count)(void);
static void (*reset)(void);

static bool open_cuda(fvt_device *d) {
    if (!fvt_open(d, "cuda", 0, NULL)) return false;
    if (!fvt_emulated("fv_emulated_count", &count) || !fvt_emulated("fv_emulated_reset", &reset)) count = NULL;
    return true;
}

static void start_counting(void) {
    if (count) reset();
}
/* Kernels since then, between the two; on a GPU nobody counts. */
static void check_launches(int64_t least, int64_t most) {
    if (!count) return;
    const int64_t launches = count().launches;
    ck_assert_msg(launches >= least && launches <= most, "%lld kernels, not %lld to %lld", (long long)launches,
                  (long long)least, (long long)most);
}

/* ---------------------------------------------------------------- updates */

enum { BATCH = 6, WIDTH = 70, HIDDEN = 100, CLASSES = 5, STEPS = 4 };
static const uint32_t update = 1u << FV_SEG_UPDATE;

/* Two layers with norms, several tensors larger than what a block has, three groups with momenta of their own. */
static void open_net(fvt_device *d, fv_opt_kind kind, fvt_program *p) {
    static const fv_param_group groups[] = {{"head", 0, false}, {"norm", 0.5, false}}, rates[] = {{"head", -1, false}};
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    const bool sgd = kind == FV_OPT_SGD;
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, BATCH, WIDTH));
    for (int i = 0; i < 2; i++) {
        const fv_scope layer = fv_in(s, "layer%d", i);
        x = fv_linear_layer(fv_in(layer, "fc"), x, HIDDEN, false, fv_init_normal(0.2));
        x = fv_relu(s, fv_batch_norm_layer(fv_in(layer, "bn"), x, (fv_bn_cfg){0}));
    }
    x = fv_linear_layer(fv_in(s, "head"), x, CLASSES, true, fv_init_normal(0.2));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    fv_value loss = fv_softmax_cross_entropy(s, x, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    const fv_optim_cfg cfg = {.kind = kind,
                              .momentum = sgd ? 0.9 : 0,
                              .clip_grad = 1,
                              .eps = 1e-2,
                              .lookahead = true,
                              .ema = true,
                              .head = "head",
                              .groups = sgd ? groups : rates,
                              .n_groups = sgd ? 2 : 1};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", d->ctx.error.message);
    fvt_compile(d, g, false, p);
    ck_assert_int_eq(fv_store_reset_ema(p->store), FV_OK);
}

/* Lookahead at every second step. `scale` of the input: infinite ones end in a step that must change nothing. */
static void net_step(fvt_program *p, int step, double scale, uint32_t segments) {
    double x[BATCH * WIDTH], labels[BATCH];
    for (int i = 0; i < BATCH * WIDTH; i++) x[i] = scale * fvt_normal(3, (uint64_t)i, (uint32_t)step);
    for (int i = 0; i < BATCH; i++) labels[i] = (i + step) % CLASSES;
    fvt_set(p, "x", x);
    fvt_set(p, "labels", labels);
    fv_step numbers = {.step = step, .ema_decay = 0.8, .lookahead = step % 2, .lookahead_decay = 0.6, .loss_scale = 1};
    for (int i = 0; i < FV_MAX_GROUPS; i++) {
        numbers.lr[i] = 0.01 * (i + 1);
        numbers.weight_decay[i] = 0.02 * i;
    }
    ck_assert_msg(fv_program_run(p->program, &numbers, segments) == FV_OK, "%s", p->device->ctx.error.message);
}

/* Every slot of both stores: of `got` no more than a few roundings from `want`; how many. */
static int compare_stores(fvt_program *got, fvt_program *want) {
    const int n = fv_store_count(want->store);
    ck_assert_int_eq(fv_store_count(got->store), n);
    for (int i = 0; i < n; i++) {
        const fv_slot *slot = fv_store_slot(want->store, i);
        const int64_t size = fv_count(slot->type);
        double *a = fvt_doubles(size), *b = fvt_doubles(size);
        fvt_get(got, slot->name, a);
        fvt_get(want, slot->name, b);
        for (int64_t k = 0; k < size; k++)
            ck_assert_msg(fabs(a[k] - b[k]) <= 1e-4 * (fabs(b[k]) + 0.1), "%s[%lld] is %g, not %g", slot->name,
                          (long long)k, a[k], b[k]);
        fvt_free(a);
        fvt_free(b);
    }
    return n;
}

/* Running statistics, optimizers of three groups, lookahead and averages, which each read what the one before wrote. */
START_TEST(test_an_update_is_one_launch) {
    const fv_opt_kind kind = _i ? FV_OPT_ADAMW : FV_OPT_SGD;
    fvt_device cuda, ref;
    fvt_program got, want;
    uint64_t before, after;
    if (!open_cuda(&cuda)) return;
    ck_assert(fvt_open(&ref, "ref", 0, NULL));
    open_net(&cuda, kind, &got);
    open_net(&ref, kind, &want);
    for (int step = 0; step < STEPS; step++) {
        net_step(&got, step, 1, FV_ALL_SEGMENTS & ~update);
        start_counting();
        net_step(&got, step, 1, update);
        check_launches(1, 1);
        net_step(&want, step, 1, FV_ALL_SEGMENTS);
        ck_assert_int_ge(compare_stores(&got, &want), 40);
    }
    ck_assert_int_eq(fv_store_hash(got.store, &before), FV_OK);
    net_step(&got, 1, INFINITY, FV_ALL_SEGMENTS);
    ck_assert_int_eq(fv_store_hash(got.store, &after), FV_OK);
    ck_assert_msg(before == after, "a step that is not finite changes something");
    fvt_destroy(&got);
    fvt_destroy(&want);
    fvt_close(&cuda);
    fvt_close(&ref);
}
END_TEST

/* b follows a, and a follows x: elements of b are not read and written where those of a are. c has nothing to do with
 * either and could run with both. */
START_TEST(test_what_depends_runs_apart) {
    enum { N = 9000, TIMES = 6 };
    static double x[N], a[N], b[N], c[N];
    fvt_device d;
    fvt_program p;
    double at_a = 0, at_b = 0, at_c = 0;
    if (!open_cuda(&d)) return;
    fv_graph *g = fv_graph_new(&d.ctx, true);
    const fv_scope s = fv_root(g);
    const fv_type type = fv_shape(FV_F32, N);
    fv_value in = fv_input(s, "x", type), state_a = fv_buffer(s, "a", type, FV_ZEROS),
             state_b = fv_buffer(s, "b", type, FV_ZEROS), state_c = fv_buffer(s, "c", type, FV_ZEROS);
    g->segment = FV_SEG_UPDATE;
    fv_lerp_assign(s, state_a, in, 0.5, 1);
    fv_lerp_assign(s, state_b, state_a, 0.5, 1);
    fv_lerp_assign(s, state_c, in, 0.25, 2);
    fvt_compile(&d, g, false, &p);
    for (int i = 0; i < N; i++) x[i] = 1;
    for (int i = 0; i < TIMES; i++) {
        fvt_set(&p, "x", x);
        start_counting();
        ck_assert_int_eq(fvt_run(&p), FV_OK);
        check_launches(2, 2);
        at_a += 0.5 * (1 - at_a);
        at_b += 0.5 * (at_a - at_b);
        at_c += 0.25 * (2 - at_c);
        fvt_get(&p, "a", a);
        fvt_get(&p, "b", b);
        fvt_get(&p, "c", c);
        for (int k = 0; k < N; k++) {
            ck_assert_double_eq_tol(a[k], at_a, 1e-6);
            ck_assert_double_eq_tol(b[k], at_b, 1e-6);
            ck_assert_double_eq_tol(c[k], at_c, 1e-6);
        }
    }
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- casts */

enum { WEIGHTS = 5, REUSED = 2, MOST = 10007 };
static const int64_t weight_size[WEIGHTS] = {1, 4096, MOST, 37, 8200};

static void check_rounded(fvt_program *p, const char *name, const double *from, int64_t n) {
    static double got[MOST];
    ck_assert_int_eq(fvt_type(p, name).dtype, FV_BF16);
    fvt_get(p, name, got);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(got[i] == (double)fv_low_value(FV_BF16, fv_low_round_double(FV_BF16, from[i])),
                      "%s[%lld] is %g of %g", name, (long long)i, got[i], from[i]);
}

/* Weights whose casts lie apart in the graph, one of which is changed before its cast; and two casts of which the
 * second may be placed where the operand of the first was. */
START_TEST(test_casts_of_weights_are_one_launch) {
    static double values[WEIGHTS + REUSED][MOST];
    fvt_device d;
    fvt_program p;
    fvt_name name;
    fv_value rectified[REUSED];
    if (!open_cuda(&d)) return;
    fv_graph *g = fv_graph_new(&d.ctx, true);
    const fv_scope s = fv_root(g);
    for (int i = 0; i < REUSED; i++)
        rectified[i] = fv_relu(s, fv_input(s, fvt_numbered(&name, "x", i), fv_shape(FV_F32, MOST)));
    fv_value other = fv_input(s, "other", fv_shape(FV_F32, MOST));
    for (int i = 0; i < WEIGHTS; i++) {
        fv_value w =
            fv_param(s, fvt_numbered(&name, "w", i), fv_shape(FV_F32, weight_size[i]), FV_PLAIN, FV_ZEROS, false);
        if (i == 2) fv_assign(s, w, other);
        fv_set_output(g, fvt_numbered(&name, "low", i), fv_cast(s, w, FV_BF16));
        if (i == 3) fv_set_output(g, "between", fv_relu(s, other));
    }
    for (int i = 0; i < REUSED; i++) rectified[i] = fv_cast(s, rectified[i], FV_BF16);
    for (int i = 0; i < REUSED; i++)
        fv_set_output(g, fvt_numbered(&name, "low", WEIGHTS + i), fv_scale(s, rectified[i], 1, 0));
    fvt_compile(&d, g, false, &p);
    for (int i = 0; i < WEIGHTS + REUSED; i++)
        for (int k = 0; k < MOST; k++) values[i][k] = fabs(fvt_normal(11, (uint64_t)k, (uint32_t)i));
    for (int i = 0; i < WEIGHTS; i++) fvt_set(&p, fvt_numbered(&name, "w", i), values[i]);
    for (int step = 0; step < 4; step++) {
        for (int i = 0; i < REUSED; i++) fvt_set(&p, fvt_numbered(&name, "x", i), values[WEIGHTS + i]);
        fvt_set(&p, "other", values[2]);
        if (step == 0) fvt_set(&p, "w2", values[0]); /* what it has before */
        start_counting();
        ck_assert_int_eq(fvt_run(&p), FV_OK);
        /* One for four weights, one for that which changes, one or two for the others; five between them. */
        check_launches(1, 4 + 5);
        for (int i = 0; i < WEIGHTS + REUSED; i++)
            check_rounded(&p, fvt_numbered(&name, "low", i), values[i], i < WEIGHTS ? weight_size[i] : MOST);
    }
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- sums of tiles, added by the block that ends last */

enum { ROWS = 3000, SUMS = 4 };
static const int64_t sum_width[SUMS] = {100, 7, 64, 1}; /* several strips of channels, the last cut short; odd; even */

/* Norms, their gradients, losses and sums over many blocks, along rows and down columns. The norms' squares are what is
 * looked at, so that gradients depend on the data. */
static void open_sums(fvt_device *d, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    const fv_scope s = fv_root(g);
    fv_value wrt[4 * SUMS], gradient[4 * SUMS], loss = FV_NONE;
    fvt_name name;
    int n = 0;
    for (int i = 0; i < SUMS; i++) {
        const fv_type channels = fv_shape(FV_F32, sum_width[i]);
        fv_value x = fv_input(s, fvt_numbered(&name, "x", i), fv_shape(FV_F32, ROWS, sum_width[i]));
        fv_value gamma = fv_param(s, fvt_numbered(&name, "gamma", i), channels, FV_PLAIN, FV_ONES, false);
        fv_value beta = fv_param(s, fvt_numbered(&name, "beta", i), channels, FV_PLAIN, FV_ZEROS, false);
        fv_value y = fv_batch_norm(s, x, gamma, beta, 1e-5), z = fv_layer_norm(s, x, gamma, beta, 1e-3);
        fv_set_output(g, fvt_numbered(&name, "mean", i), fv_result(y, 1));
        fv_set_output(g, fvt_numbered(&name, "var", i), fv_result(y, 2));
        fv_set_output(g, fvt_numbered(&name, "down", i), fv_sum(s, x, 1 << 0, false));
        fv_set_output(g, fvt_numbered(&name, "all", i), fv_mean(s, fv_mul(s, x, x), 3, false));
        fv_value part = fv_sum(s, fv_mul(s, fv_mul(s, y, y), fv_add(s, z, x)), 3, false);
        loss = i == 0 ? part : fv_add(s, loss, part);
        wrt[n++] = gamma;
        wrt[n++] = beta;
        wrt[n++] = x;
    }
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, ROWS)), logits = fv_find_value(g, "x1"),
             target = fv_const_fill(s, fv_typeof(g, logits), 0.3);
    fv_set_output(g, "entropy", fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0}));
    fv_set_output(g, "binary", fv_bce_with_logits(s, logits, target, FV_NONE, FV_NONE, (fv_loss_attr){0}));
    fv_set_output(g, "loss", loss);
    ck_assert_int_eq(fv_gradients(g, loss, n, wrt, gradient), FV_OK);
    for (int i = 0; i < n; i++) fv_set_output(g, fvt_numbered(&name, "d", i), gradient[i]);
    fvt_compile(d, g, false, p);
}

static void compare_outputs(fvt_program *got, fvt_program *want, int step) {
    static double a[ROWS * 100], b[ROWS * 100];
    const fv_graph *g = fv_program_plan(want->program)->graph;
    for (int i = 0; i < g->n_outputs; i++) {
        const char *name = g->outputs[i].name;
        const int64_t n = fv_count(fvt_type(want, name));
        double most = 0;
        fvt_get(got, name, a);
        fvt_get(want, name, b);
        for (int64_t k = 0; k < n; k++) most = fmax(most, fabs(b[k]));
        for (int64_t k = 0; k < n; k++)
            ck_assert_msg(fabs(a[k] - b[k]) <= 2e-4 * most, "step %d: %s[%lld] is %g, not %g", step, name, (long long)k,
                          a[k], b[k]);
    }
}

/* The same program several times, the first two launched and the others replayed, with other data each time: counters
 * are where a launch needs them, whatever was before. */
START_TEST(test_last_blocks_find_all_sums) {
    static double x[ROWS * 100], labels[ROWS];
    fvt_device cuda, ref;
    fvt_program got, want;
    fvt_name name;
    if (!open_cuda(&cuda)) return;
    ck_assert(fvt_open(&ref, "ref", 0, NULL));
    open_sums(&cuda, &got);
    open_sums(&ref, &want);
    for (int step = 0; step < STEPS; step++) {
        for (int i = 0; i < SUMS; i++) {
            for (int k = 0; k < ROWS * sum_width[i]; k++)
                x[k] = 0.5 + fvt_normal(5, (uint64_t)k, (uint32_t)(SUMS * step + i));
            fvt_set(&got, fvt_numbered(&name, "x", i), x);
            fvt_set(&want, fvt_numbered(&name, "x", i), x);
        }
        for (int i = 0; i < ROWS; i++) labels[i] = (i + step) % 7;
        fvt_set(&got, "labels", labels);
        fvt_set(&want, "labels", labels);
        ck_assert_int_eq(fvt_run(&got), FV_OK);
        ck_assert_int_eq(fvt_run(&want), FV_OK);
        compare_outputs(&got, &want, step);
    }
    fvt_destroy(&got);
    fvt_destroy(&want);
    fvt_close(&cuda);
    fvt_close(&ref);
}
END_TEST

Suite *cuda_launches_suite(void) {
    Suite *suite = suite_create("cuda_launches");
    TCase *kernels = tcase_create("kernels");
    tcase_add_loop_test(kernels, test_an_update_is_one_launch, 0, 2);
    tcase_add_test(kernels, test_what_depends_runs_apart);
    tcase_add_test(kernels, test_casts_of_weights_are_one_launch);
    tcase_add_test(kernels, test_last_blocks_find_all_sums);
    tcase_set_timeout(kernels, 120);
    suite_add_tcase(suite, kernels);
    return suite;
}
