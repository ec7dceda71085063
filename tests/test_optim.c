/* test_optim.c: schedules against PyTorch's, and whole training steps on the reference backend against the same
 * arithmetic done by hand. */
#include <check.h>
#include <math.h>
#include <string.h>

#include "core/ops.h"
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

Suite *optim_suite(void);

/* ---------------------------------------------------------------- schedules */

static void check_schedule(const fv_sched_cfg *cfg, const double *expected, int n) {
    for (int i = 0; i < n; i++)
        ck_assert_msg(fabs(fv_sched_lr(cfg, i) - expected[i]) <= 1e-14, "%s, step %d: %.17g, not %.17g",
                      fv_sched_name(cfg->kind), i, fv_sched_lr(cfg, i), expected[i]);
}
#define CHECK_SCHEDULE(cfg, expected) \
    check_schedule(&(cfg), (expected), (int)(sizeof(expected) / sizeof((expected)[0])))

/* The numbers of the next five tests are those of torch.optim.lr_scheduler (PyTorch 2). */

START_TEST(one_cycle) { /* OneCycleLR(max_lr=0.2, total_steps=20) */
    const double expected[20] = {0.008000000000000007,
                                 0.026334368540005065,
                                 0.07433436854000505,
                                 0.13366563145999494,
                                 0.18166563145999495,
                                 0.2,
                                 0.19749280124701749,
                                 0.19009692640269477,
                                 0.17818323551421,
                                 0.1623491307899526,
                                 0.14338860035826018,
                                 0.12225240438725786,
                                 0.1000004,
                                 0.07774839561274215,
                                 0.056612199641739844,
                                 0.0376516692100474,
                                 0.021817564485790007,
                                 0.009903873597305258,
                                 0.002507998752982511,
                                 8e-07};
    const fv_sched_cfg cfg = {.kind = FV_SCHED_ONECYCLE, .lr = 0.2, .steps = 20};
    CHECK_SCHEDULE(cfg, expected);
    ck_assert_double_eq(fv_sched_lr(&cfg, 1000), fv_sched_lr(&cfg, 19));
}
END_TEST

START_TEST(
    one_cycle_options) { /* total_steps=7, pct_start=0.4, div_factor=10, final_div_factor=100: a peak between steps */
    const double expected[7] = {0.04999999999999999,
                                0.31407083997505925,
                                0.49721049884972585,
                                0.4059665780142187,
                                0.23158615912679054,
                                0.06717029501050087,
                                0.0005};
    const fv_sched_cfg cfg = {
        .kind = FV_SCHED_ONECYCLE, .lr = 0.5, .steps = 7, .pct_start = 0.4, .div_factor = 10, .final_div = 100};
    CHECK_SCHEDULE(cfg, expected);
    for (int64_t steps = 1; steps < 6; steps++) /* too short for two phases: still finite */
        for (int64_t step = 0; step < steps; step++) {
            const fv_sched_cfg brief = {.kind = FV_SCHED_ONECYCLE, .lr = 0.5, .steps = steps};
            ck_assert(fv_sched_lr(&brief, step) > 0 && fv_sched_lr(&brief, step) <= 0.5);
        }
}
END_TEST

START_TEST(cosine) { /* CosineAnnealingLR(T_max=10, eta_min=0.01) */
    const double expected[11] = {
        0.2,   0.1953503690480396,  0.18185661446562001, 0.16083959896778496,  0.13435661446562,
        0.105, 0.07564338553437999, 0.04916040103221506, 0.028143385534380005, 0.014649630951960414,
        0.01};
    const fv_sched_cfg cfg = {.kind = FV_SCHED_COSINE, .lr = 0.2, .min_lr = 0.01, .steps = 10};
    CHECK_SCHEDULE(cfg, expected);
    ck_assert_double_eq(fv_sched_lr(&cfg, 11), 0.01);
}
END_TEST

START_TEST(steps_and_milestones) { /* StepLR(3, 0.5), MultiStepLR([2, 5]) */
    const double step[10] = {0.2, 0.2, 0.2, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025};
    const double multi[8] = {0.2, 0.2, 0.02, 0.02, 0.02, 0.002, 0.002, 0.002};
    const fv_sched_cfg a = {.kind = FV_SCHED_STEP, .lr = 0.2, .decay_steps = 3, .decay_rate = 0.5, .steps = 10};
    const fv_sched_cfg b = {.kind = FV_SCHED_MULTISTEP, .lr = 0.2, .milestones = {2, 5}, .n_milestones = 2, .steps = 8};
    CHECK_SCHEDULE(a, step);
    CHECK_SCHEDULE(b, multi);
}
END_TEST

START_TEST(polynomial_linear_constant) { /* PolynomialLR(8, power=2) */
    const double poly[10] = {0.2, 0.153125, 0.1125, 0.078125, 0.05, 0.028125, 0.0125, 0.003125, 0, 0};
    const double linear[5] = {0.2, 0.16, 0.12, 0.08, 0.04};
    const fv_sched_cfg a = {.kind = FV_SCHED_POLY, .lr = 0.2, .power = 2, .steps = 8};
    const fv_sched_cfg b = {.kind = FV_SCHED_LINEAR, .lr = 0.2, .min_lr = 0.04, .steps = 4};
    const fv_sched_cfg c = {.kind = FV_SCHED_CONSTANT, .lr = 0.2, .steps = 4};
    CHECK_SCHEDULE(a, poly);
    CHECK_SCHEDULE(b, linear);
    ck_assert_double_eq(fv_sched_lr(&c, 0), 0.2);
    ck_assert_double_eq(fv_sched_lr(&c, 99), 0.2);
}
END_TEST

START_TEST(warm_up) {
    /* lr * (step + 1) / warmup, then half a cosine over the remaining 8 steps. */
    const double expected[6] = {0.05, 0.1, 0.15, 0.2, 0.2, 0.1 * (1 + cos(3.14159265358979323846 / 8))};
    fv_sched_cfg cfg = {.kind = FV_SCHED_COSINE, .lr = 0.2, .steps = 12, .warmup_steps = 4};
    CHECK_SCHEDULE(cfg, expected);
    ck_assert_double_eq_tol(fv_sched_lr(&cfg, 8), 0.1, 1e-15);
    ck_assert_double_eq(fv_sched_lr(&cfg, 12), 0);
    cfg.warmup_lr = 0.08;
    ck_assert_double_eq(fv_sched_lr(&cfg, 0), 0.08);
    ck_assert_double_eq_tol(fv_sched_lr(&cfg, 1), 0.08 + 0.12 / 4, 1e-15);
    cfg.warmup_lr = 0;
    cfg.warmup_steps = 50; /* all warm-up */
    ck_assert_double_eq_tol(fv_sched_lr(&cfg, 49), 0.2, 1e-15);
    ck_assert_double_eq(fv_sched_lr(&cfg, 50), 0);
}
END_TEST

START_TEST(names_round_trip) {
    for (int k = 0; k <= FV_SCHED_LINEAR; k++) ck_assert_int_eq(fv_sched_from_name(fv_sched_name((fv_sched_kind)k)), k);
    for (int k = 0; k <= FV_OPT_MUON; k++) ck_assert_int_eq(fv_opt_from_name(fv_opt_name((fv_opt_kind)k)), k);
    ck_assert_int_eq(fv_sched_from_name("cosinus"), -1);
    ck_assert_int_eq(fv_opt_from_name("SGD"), -1);
    ck_assert_str_eq(fv_opt_name((fv_opt_kind)99), "?");
}
END_TEST

START_TEST(ema_decay) {
    ck_assert_double_eq(fv_ema_decay(0.999, false, 0), 0.999);
    ck_assert_double_eq(fv_ema_decay(0.999, true, 0), 0.1);
    ck_assert_double_eq(fv_ema_decay(0.999, true, 80), 0.9);
    ck_assert_double_eq(fv_ema_decay(0.999, true, 1000000), 0.999);
}
END_TEST

/* ---------------------------------------------------------------- training steps, by hand
 *
 * Two parameters: w (has weight decay) and b (has none), loss = sum(w * w * a / 2) + sum(c * b), so that dw = a * w and
 * db = c. */

enum { N = 3 };
static const double slope[N] = {1.5, -0.5, 2}, pull[N] = {0.3, -0.2, 0.1}, start[N] = {1, -2, 0.5};

typedef struct toy {
    fvt_device device;
    fvt_program program;
} toy;

static fv_graph *toy_graph(fv_ctx *ctx, fv_value *loss) {
    fv_graph *g = fv_graph_new(ctx, true);
    fv_scope s = fv_root(g);
    fv_type type = fv_shape(FV_F32, N);
    fv_init init = {FV_INIT_DATA, 0, 0, start};
    fv_value w = fv_param(s, "w", type, FV_PLAIN, init, false), b = fv_param(s, "b", type, FV_PLAIN, init, true);
    fv_param(s, "unused", type, FV_PLAIN, FV_ONES, false);
    fv_value squares = fv_scale(s, fv_mul(s, fv_mul(s, w, w), fv_const(s, type, slope)), 0.5, 0);
    *loss = fv_add(s, fv_sum(s, squares, 1, false), fv_sum(s, fv_mul(s, b, fv_input(s, "c", type)), 1, false));
    return g;
}

static void toy_open(toy *t, const fv_optim_cfg *cfg) {
    ck_assert(fvt_open(&t->device, "ref", 1, NULL));
    fv_value loss;
    fv_graph *g = toy_graph(&t->device.ctx, &loss);
    ck_assert_msg(fv_optim_build(g, loss, cfg) == FV_OK, "%s", t->device.ctx.error.message);
    ck_assert(fv_is_none(fv_find_value(g, "opt.momentum.unused")));
    fvt_compile(&t->device, g, true, &t->program);
    fvt_set(&t->program, "c", pull);
}

static void toy_close(toy *t) {
    fvt_destroy(&t->program);
    fvt_close(&t->device);
}

static const fv_step base = {.lr = {0.1, 0.05}, .weight_decay = {0.01, 0}, .ema_decay = 0.8, .loss_scale = 1};

static void toy_run(toy *t, int64_t step, uint32_t segments) {
    fv_step s = base;
    s.step = step;
    ck_assert_int_eq(fv_program_run(t->program.program, &s, segments), FV_OK);
}

static void check_values(toy *t, const char *name, const double *expected) {
    double values[N];
    fvt_get(&t->program, name, values);
    for (int i = 0; i < N; i++)
        ck_assert_msg(fabs(values[i] - expected[i]) <= 1e-14, "%s[%d]: %.17g, not %.17g", name, i, values[i],
                      expected[i]);
}

/* PyTorch's SGD: b = m b + g, then g + m b (Nesterov) or b. */
static void sgd_by_hand(double *p, double *m, double g, double lr, double decay, double momentum, bool nesterov) {
    g += decay * *p;
    *m = momentum * *m + g;
    *p -= lr * (nesterov ? g + momentum * *m : *m);
}

START_TEST(sgd) {
    bool nesterov = _i & 1, decay_all = _i & 2;
    double momentum = _i & 4 ? 0 : 0.9;
    if (momentum == 0) nesterov = false;
    toy t;
    toy_open(&t,
             &(fv_optim_cfg){
                 .kind = FV_OPT_SGD, .momentum = momentum, .nesterov = nesterov, .decay_all = decay_all, .ema = true});
    double w[N], b[N], ema[N], mw[N] = {0}, mb[N] = {0};
    memcpy(w, start, sizeof w);
    memcpy(b, start, sizeof b);
    memcpy(ema, start, sizeof ema);
    for (int step = 0; step < 5; step++) {
        toy_run(&t, step, FV_ALL_SEGMENTS);
        double squares = 0, stats[2];
        for (int i = 0; i < N; i++) {
            squares += slope[i] * w[i] * slope[i] * w[i] + pull[i] * pull[i];
            sgd_by_hand(&w[i], &mw[i], slope[i] * w[i], base.lr[0], 0.01, momentum, nesterov);
            sgd_by_hand(&b[i], &mb[i], pull[i], base.lr[!decay_all], decay_all ? 0.01 : 0, momentum, nesterov);
            ema[i] += (1 - base.ema_decay) * (w[i] - ema[i]);
        }
        fvt_get(&t.program, "grad_stats", stats);
        ck_assert_double_eq_tol(stats[0], sqrt(squares), 1e-14); /* of the gradients alone */
        ck_assert_double_eq(stats[1], 1);
        check_values(&t, "w", w);
        check_values(&t, "b", b);
        check_values(&t, "ema.w", ema);
        check_values(&t, "unused", (double[]){1, 1, 1});
    }
    toy_close(&t);
}
END_TEST

START_TEST(adam) {
    bool decoupled = _i;
    toy t;
    toy_open(&t, &(fv_optim_cfg){.kind = decoupled ? FV_OPT_ADAMW : FV_OPT_ADAM, .beta2 = 0.99});
    double w[N], m[N] = {0}, v[N] = {0};
    memcpy(w, start, sizeof w);
    for (int step = 0; step < 5; step++) {
        toy_run(&t, step, FV_ALL_SEGMENTS);
        for (int i = 0; i < N; i++) {
            double g = slope[i] * w[i] + (decoupled ? 0 : 0.01 * w[i]);
            if (decoupled) w[i] -= base.lr[0] * 0.01 * w[i];
            m[i] = 0.9 * m[i] + 0.1 * g;
            v[i] = 0.99 * v[i] + 0.01 * g * g;
            double m_hat = m[i] / (1 - pow(0.9, step + 1)), v_hat = v[i] / (1 - pow(0.99, step + 1));
            w[i] -= base.lr[0] * m_hat / (sqrt(v_hat) + 1e-8);
        }
        check_values(&t, "w", w);
        check_values(&t, "opt.exp_avg.w", m);
        check_values(&t, "opt.exp_avg_sq.w", v);
    }
    toy_close(&t);
}
END_TEST

START_TEST(clipping) {
    const double clip = 0.5;
    toy t;
    toy_open(&t, &(fv_optim_cfg){.kind = FV_OPT_SGD, .clip_grad = clip});
    toy_run(&t, 0, FV_ALL_SEGMENTS);
    double squares = 0, w[N];
    for (int i = 0; i < N; i++) squares += pow(slope[i] * start[i], 2) + pow(pull[i], 2);
    double scale = clip / (sqrt(squares) + 1e-6);
    ck_assert(scale < 1);
    for (int i = 0; i < N; i++) w[i] = start[i] - base.lr[0] * (scale * slope[i] * start[i] + 0.01 * start[i]);
    check_values(&t, "w", w);
    toy_close(&t);
}
END_TEST

/* A gradient or only the loss that is not finite: nothing changes. */
START_TEST(non_finite) {
    toy t;
    toy_open(&t, &(fv_optim_cfg){.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true});
    const double bad[2][N] = {{1, NAN, 0}, {1e308, -1e308, 1e308}}; /* the second: loss = inf, gradients finite */
    double huge[N] = {1.7, -1.7, 1.7};
    if (_i == 1) fvt_set(&t.program, "b", huge);
    fvt_set(&t.program, "c", bad[_i]);
    toy_run(&t, 0, FV_ALL_SEGMENTS);
    double stats[2];
    fvt_get(&t.program, "grad_stats", stats);
    ck_assert_double_eq(stats[1], 0);
    check_values(&t, "w", start);
    check_values(&t, "ema.w", start);
    check_values(&t, "opt.momentum.w", (double[N]){0});
    toy_close(&t);
}
END_TEST

START_TEST(frozen) {
    fvt_device d;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    fv_value loss;
    fv_graph *g = toy_graph(&d.ctx, &loss);
    g->decls[0].frozen = true; /* w */
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_ADAM}), FV_OK);
    ck_assert(fv_is_none(fv_find_value(g, "opt.exp_avg.w")));
    ck_assert(!fv_is_none(fv_find_value(g, "opt.exp_avg.b")));
    toy t = {.device = d};
    fvt_compile(&t.device, g, true, &t.program);
    fvt_set(&t.program, "c", pull);
    toy_run(&t, 0, FV_ALL_SEGMENTS);
    check_values(&t, "w", start);
    toy_close(&t);
}
END_TEST

START_TEST(refused_settings) {
    static const struct {
        fv_optim_cfg cfg;
        const char *says;
    } bad[] = {
        {{.kind = FV_OPT_SGD, .momentum = 1}, "momentum must"},
        {{.kind = FV_OPT_SGD, .momentum = NAN}, "momentum must"},
        {{.kind = FV_OPT_SGD, .nesterov = true}, "Nesterov"},
        {{.kind = FV_OPT_ADAM, .beta1 = 1.5}, "beta1"},
        {{.kind = FV_OPT_ADAM, .eps = -1}, "eps"},
        {{.kind = FV_OPT_ADAM, .clip_grad = -1}, "clip"},
        {{.kind = FV_OPT_ADAM, .accumulate = -1}, "accumulated"},
        {{.kind = FV_OPT_MUON, .nesterov = true}, "Nesterov"},
        {{.kind = FV_OPT_MUON, .ns_steps = 101}, "Newton-Schulz"},
        {{.kind = (fv_opt_kind)7}, "unknown optimizer"},
    };
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_value loss;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fv_graph *g = toy_graph(&ctx, &loss);
        ck_assert_int_eq(fv_optim_build(g, loss, &bad[i].cfg), FV_E_USAGE);
        ck_assert_msg(strstr(ctx.error.message, bad[i].says) != NULL, "%s", ctx.error.message);
        fv_graph_free(g);
    }
    fv_graph *g = toy_graph(&ctx, &loss);
    for (int i = 0; i < g->n_decls; i++) g->decls[i].frozen = true;
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_ADAM}), FV_E_USAGE);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "nothing to train: every parameter is frozen"));
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- accumulated gradients = large batch */

enum { BATCH = 6, PIXELS = 28 * 28 };

/* LeNet-5 in training on `rows` pictures, in float64. */
static void lenet_open(fvt_device *d, int rows, int accumulate, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "image", fv_shape(FV_F32, rows, 28, 28, 1)),
             label = fv_input(s, "label", fv_shape(FV_I32, rows));
    fv_value logits = fv_model_build(g, "lenet5", x, &(fv_model_cfg){.num_classes = 10});
    fv_value loss = fv_softmax_cross_entropy(s, logits, label, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_optim_cfg cfg = {.kind = FV_OPT_SGD, .momentum = 0.9, .accumulate = accumulate, .ema = true};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", d->ctx.error.message);
    fvt_compile(d, g, true, p);
}

static void lenet_feed(fvt_program *p, uint64_t seed, int first, int rows) {
    double image[BATCH * PIXELS], label[BATCH];
    for (int i = 0; i < rows * PIXELS; i++) image[i] = fvt_normal(seed, (uint64_t)(first * PIXELS + i), 1);
    for (int i = 0; i < rows; i++) label[i] = (first + i) % 10;
    fvt_set(p, "image", image);
    fvt_set(p, "label", label);
}

START_TEST(accumulation_is_a_large_batch) {
    enum { MICRO = 3, ROWS = BATCH / MICRO };
    fvt_device d;
    fvt_program large, small;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    lenet_open(&d, BATCH, 0, &large);
    lenet_open(&d, ROWS, MICRO, &small);
    for (int step = 0; step < 2; step++) { /* the second step finds the GRAD slots cleared */
        fv_step s = base;
        s.step = step;
        lenet_feed(&large, (uint64_t)step, 0, BATCH);
        ck_assert_int_eq(fv_program_run(large.program, &s, FV_ALL_SEGMENTS), FV_OK);
        for (int k = 0; k < MICRO; k++) {
            lenet_feed(&small, (uint64_t)step, k * ROWS, ROWS);
            ck_assert_int_eq(fv_program_run(small.program, &s, 1u << FV_SEG_FORWARD_BACKWARD), FV_OK);
        }
        ck_assert_int_eq(fv_program_run(small.program, &s, FV_ALL_SEGMENTS & ~(1u << FV_SEG_FORWARD_BACKWARD)), FV_OK);

        const fv_store *store = large.store;
        double norm[2], other[2];
        fvt_get(&large, "grad_stats", norm);
        fvt_get(&small, "grad_stats", other);
        ck_assert_double_eq_tol(norm[0], other[0], 1e-12);
        for (int i = 0; i < fv_store_count(store); i++) {
            const fv_slot *slot = fv_store_slot(store, i);
            int64_t count = fv_count(slot->type);
            double *a = fvt_doubles(count), *b = fvt_doubles(count);
            fvt_get(&large, slot->name, a);
            fvt_get(&small, slot->name, b);
            for (int64_t k = 0; k < count; k++)
                ck_assert_msg(fabs(a[k] - b[k]) <= 1e-13, "%s[%lld]: %.17g and %.17g", slot->name, (long long)k, a[k],
                              b[k]);
            fvt_free(a);
            fvt_free(b);
        }
    }
    fvt_destroy(&large);
    fvt_destroy(&small);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- running statistics and micro-steps */

/* A batch norm over x [8,2] and a sum, `micro` micro-steps per update. */
static void norm_open(fvt_device *d, int micro, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value y = fv_batch_norm_layer(fv_in(s, "bn"), fv_input(s, "x", fv_shape(FV_F32, 8, 2)), (fv_bn_cfg){0});
    fv_value loss = fv_sum(s, fv_mul(s, y, y), 3, false);
    fv_optim_cfg cfg = {.kind = FV_OPT_SGD, .accumulate = micro};
    *p = (fvt_program){.device = d};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", d->ctx.error.message);
    ck_assert_int_eq(fv_store_create(&d->ctx, d->dev, &p->store), FV_OK);
    ck_assert_int_eq(fv_store_bind(p->store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(p->store, 1), FV_OK);
    fv_compile_opts opts = {.accumulate = true};
    ck_assert_msg(fv_compile(&d->ctx, g, p->store, d->dev, &opts, &p->program) == FV_OK, "%s", d->ctx.error.message);
}

/* Forward and backward of pictures `seed`; with `bad`, one of the numbers is that. */
static void norm_micro_step(fvt_program *p, uint64_t seed, double bad) {
    double x[16];
    for (int i = 0; i < 16; i++) x[i] = fvt_normal(seed, (uint64_t)i, 0);
    if (bad != 0) x[5] = bad;
    fvt_set(p, "x", x);
    ck_assert_int_eq(fv_program_run(p->program, &base, 1u << FV_SEG_FORWARD_BACKWARD), FV_OK);
}

/* A micro-step whose loss is not finite leaves the running statistics as they are; the others count. */
START_TEST(statistics_of_a_bad_micro_step) {
    static const char *const state[] = {"bn.running_mean", "bn.running_var"};
    const double bad[] = {NAN, INFINITY};
    fvt_device d;
    fvt_program with, without;
    ck_assert(fvt_open(&d, _i & 1 ? "cpu" : "ref", 1, NULL));
    norm_open(&d, 3, &with);
    norm_open(&d, 3, &without);
    norm_micro_step(&with, 1, 0);
    norm_micro_step(&with, 2, bad[_i / 2]);
    norm_micro_step(&with, 3, 0);
    norm_micro_step(&without, 1, 0);
    norm_micro_step(&without, 3, 0);
    double seen, a[2], b[2];
    fvt_get(&with, "bn.num_batches_tracked", &seen);
    ck_assert_double_eq(seen, 2);
    for (int k = 0; k < 2; k++) {
        fvt_get(&with, state[k], a);
        fvt_get(&without, state[k], b);
        for (int i = 0; i < 2; i++) {
            ck_assert_msg(a[i] == b[i], "%s[%d]: %g, not %g", state[k], i, a[i], b[i]);
            ck_assert_double_ne(a[i], k); /* 0 and 1 at the start */
        }
    }
    fvt_destroy(&with);
    fvt_destroy(&without);
    fvt_close(&d);
}
END_TEST

/* Without micro-steps the guard is known only after the forward pass: the statistics stay in the update segment, even
 * in a program compiled for micro-steps. */
START_TEST(guarded_statistics_stay_in_the_update) {
    fvt_device d;
    fvt_program p;
    ck_assert(fvt_open(&d, "cpu", 1, NULL));
    norm_open(&d, 0, &p);
    norm_micro_step(&p, 1, 0);
    double seen;
    fvt_get(&p, "bn.num_batches_tracked", &seen);
    ck_assert_double_eq(seen, 0);
    ck_assert_int_eq(fv_program_run(p.program, &base, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(&p, "bn.num_batches_tracked", &seen);
    ck_assert_double_eq(seen, 1);
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- memory runs out */

typedef struct failing_heap {
    fv_allocator real;
    int left; /* allocations until one fails */
    int64_t held;
} failing_heap;

static void *heap_alloc(void *user, size_t bytes, size_t align) {
    failing_heap *heap = user;
    if (heap->left-- <= 0) return NULL;
    heap->held += (int64_t)bytes;
    return heap->real.alloc(heap->real.user, bytes, align);
}

static void heap_free(void *user, void *ptr, size_t bytes) {
    failing_heap *heap = user;
    if (ptr) heap->held -= (int64_t)bytes;
    heap->real.free(heap->real.user, ptr, bytes);
}

/* Model, loss and optimizer with the n-th allocation failing. */
static fv_status build_with(failing_heap *heap, const char *model) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    heap->real = ctx.alloc;
    ctx.alloc = (fv_allocator){heap_alloc, heap_free, heap};
    fv_graph *g = fv_graph_new(&ctx, true);
    if (!g) return ctx.error.code;
    fv_graph_freeze(g, (const char *const[]){"layer1", "blocks.0"}, 2);
    fv_value x = fv_input(fv_root(g), "image", fv_shape(FV_F32, 2, 32, 32, 3));
    fv_value label = fv_input(fv_root(g), "label", fv_shape(FV_I32, 2));
    fv_value logits = fv_model_build(g, model, x, &(fv_model_cfg){.num_classes = 10, .drop_path = 0.1});
    fv_value loss = fv_softmax_cross_entropy(fv_root(g), logits, label, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_status status = fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_ADAMW, .ema = true, .accumulate = 2});
    if (status != FV_OK) ck_assert_int_eq(ctx.error.code, status);
    fv_graph_free(g);
    return status;
}

/* What adding data parallelism relies on (docs/gpu.md): gradients that micro-steps add to are slots like any other, one
 * for each parameter that is trained; the slots of a role lie in one range without holes; and the segment between
 * backward pass and check is there, empty, for an exchange of that range. */
START_TEST(gradients_lie_in_one_range) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    ck_assert(fvt_open(&d, "cpu", 1, NULL));
    fv_graph *g = fv_graph_new(&d.ctx, true);
    const fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 32, 32, 3));
    fv_value logits = fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = 10});
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, 2));
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    const fv_optim_cfg cfg = {.kind = FV_OPT_SGD, .momentum = 0.9, .accumulate = 2};
    ck_assert_int_eq(fv_optim_build(g, loss, &cfg), FV_OK);
    ck_assert_msg(fv_program_create(&d.ctx, g, d.dev, 11, NULL, &store, &p) == FV_OK, "%s", d.ctx.error.message);
    static const fv_role roles[] = {FV_ROLE_WEIGHT, FV_ROLE_GRAD};
    int count[2] = {0, 0};
    for (int r = 0; r < 2; r++) {
        const char *begin = NULL, *end = NULL, *decayed_end = NULL, *others = NULL;
        size_t bytes = 0;
        for (int32_t i = 0; i < fv_store_count(store); i++) {
            const fv_slot *slot = fv_store_slot(store, i);
            if (slot->role != roles[r]) continue;
            const char *at = slot->data;
            const size_t padded = (fv_bytes(slot->type) + 63) & ~(size_t)63;
            count[r]++;
            bytes += padded;
            if (!begin || at < begin) begin = at;
            if (!end || at + padded > end) end = at + padded;
            if (slot->no_decay && (!others || at < others)) others = at;
            if (!slot->no_decay && (!decayed_end || at + padded > decayed_end)) decayed_end = at + padded;
            if (slot->role == FV_ROLE_GRAD) {
                const fv_slot *of = fv_store_slot(store, slot->of);
                ck_assert(of->role == FV_ROLE_WEIGHT && fv_same_type(of->type, slot->type));
            }
        }
        ck_assert_uint_eq((size_t)(end - begin), bytes); /* they cannot overlap, so there is no hole */
        ck_assert_uint_eq(bytes, fv_store_role_bytes(store, roles[r]));
        ck_assert_ptr_nonnull(others);
        ck_assert(decayed_end <= others);
    }
    ck_assert_int_eq(count[0], count[1]);
    const fv_plan *plan = fv_program_plan(p);
    const int32_t reduce = plan->segment_first[FV_SEG_REDUCE];
    ck_assert_int_gt(reduce, plan->segment_first[FV_SEG_FORWARD_BACKWARD]);
    ck_assert_int_eq(plan->segment_first[FV_SEG_CHECK], reduce);
    ck_assert_int_gt(plan->segment_first[FV_SEG_UPDATE], reduce);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

START_TEST(every_allocation_may_fail) {
    static const char *const models[] = {"resnet20", "vit_tiny_patch4_32_d6_sincos"};
    int n = 0;
    for (fv_status status = FV_E_MEMORY; status != FV_OK; n++) {
        failing_heap heap = {.left = n};
        status = build_with(&heap, models[_i]);
        ck_assert_msg(status == FV_OK || status == FV_E_MEMORY, "allocation %d: %s", n, fv_status_text(status));
        ck_assert_int_eq(heap.held, 0);
    }
    ck_assert_int_gt(n, 10);
}
END_TEST

Suite *optim_suite(void) {
    Suite *suite = suite_create("optim");
    TCase *schedules = tcase_create("schedules"), *steps = tcase_create("steps");
    tcase_add_test(schedules, one_cycle);
    tcase_add_test(schedules, one_cycle_options);
    tcase_add_test(schedules, cosine);
    tcase_add_test(schedules, steps_and_milestones);
    tcase_add_test(schedules, polynomial_linear_constant);
    tcase_add_test(schedules, warm_up);
    tcase_add_test(schedules, names_round_trip);
    tcase_add_test(schedules, ema_decay);
    suite_add_tcase(suite, schedules);
    tcase_set_timeout(steps, 120);
    tcase_add_loop_test(steps, sgd, 0, 8);
    tcase_add_loop_test(steps, adam, 0, 2);
    tcase_add_test(steps, clipping);
    tcase_add_loop_test(steps, non_finite, 0, 2);
    tcase_add_test(steps, frozen);
    tcase_add_test(steps, refused_settings);
    tcase_add_test(steps, accumulation_is_a_large_batch);
    tcase_add_loop_test(steps, statistics_of_a_bad_micro_step, 0, 4);
    tcase_add_test(steps, guarded_statistics_stay_in_the_update);
    tcase_add_test(steps, gradients_lie_in_one_range);
    tcase_add_loop_test(steps, every_allocation_may_fail, 0, 2);
    suite_add_tcase(suite, steps);
    return suite;
}
