/* test_optim_recipe.c: parameter groups, lookahead and the summed loss: by hand, and as whole recipes against PyTorch
 * in float64 (tests/vectors/optim.safetensors, made by tests/peers/make_optim_vectors.py). */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "core/io/io.h"
#include "core/ops.h"
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

Suite *optim_recipe_suite(void);

/* ---------------------------------------------------------------- schedules */

/* np.interp(step, [0, int(0.23 * T), T], [0.2, 1, 0.07]) */
START_TEST(triangle) {
    static const int64_t totals[] = {12, 476, 1000};
    int64_t total = totals[_i], peak = (int64_t)(0.23 * (double)total);
    const fv_sched_cfg cfg = {.kind = FV_SCHED_LINEAR,
                              .lr = 3,
                              .warmup_lr = 0.2 * 3,
                              .min_lr = 0.07 * 3,
                              .steps = total,
                              .warmup_steps = peak};
    for (int64_t step = 0; step <= total; step++) {
        double up = (double)step / (double)peak, down = (double)(step - peak) / (double)(total - peak);
        double want = step < peak ? 0.2 + 0.8 * up : 1 - 0.93 * down;
        ck_assert_double_eq_tol(fv_sched_lr(&cfg, step), 3 * want, 1e-14);
    }
    ck_assert_double_eq(fv_sched_lr(&cfg, 0), 0.2 * 3);
    ck_assert_double_eq(fv_sched_lr(&cfg, peak), 3);
}
END_TEST

START_TEST(schedule_within) {
    const fv_sched_cfg whole = {.kind = FV_SCHED_LINEAR, .lr = 1, .steps = 200, .warmup_steps = 40};
    fv_sched_cfg part = fv_sched_within(&whole, 50);
    ck_assert_int_eq(part.steps, 50);
    ck_assert_int_eq(part.warmup_steps, 10);
    for (int64_t step = 10; step <= 50; step++)
        ck_assert_double_eq_tol(fv_sched_lr(&part, step), fv_sched_lr(&whole, 4 * step), 1e-15);
    const fv_sched_cfg stairs = {
        .kind = FV_SCHED_MULTISTEP, .steps = 90, .decay_steps = 1, .milestones = {30, 60}, .n_milestones = 2};
    part = fv_sched_within(&stairs, 9);
    ck_assert_int_eq(part.milestones[0], 3);
    ck_assert_int_eq(part.milestones[1], 6);
    ck_assert_int_eq(part.decay_steps, 1); /* never none */
}
END_TEST

START_TEST(lookahead_meetings) {
    const fv_lookahead_cfg cfg = {.every = 5, .steps = 12, .decay = 0.8, .power = 3};
    double decay = -1;
    for (int64_t step = 0; step < 12; step++) {
        bool meets = fv_lookahead_at(&cfg, step, &decay);
        ck_assert_int_eq(meets, step == 4 || step == 9 || step == 11);
        if (step == 4) ck_assert_double_eq_tol(decay, 0.8 * pow(5.0 / 12, 3), 1e-15);
        if (step == 9) ck_assert_double_eq_tol(decay, 0.8 * pow(10.0 / 12, 3), 1e-15);
        if (step == 11) ck_assert_double_eq(decay, 1);
    }
    const fv_lookahead_cfg even = {.every = 5, .steps = 10, .decay = 0.5};
    ck_assert(fv_lookahead_at(&even, 9, &decay));
    ck_assert_double_eq(decay, 0.5); /* a meeting like any other, after which there is nothing left to do */
    const fv_lookahead_cfg never = {.every = 0, .steps = 10};
    ck_assert(!fv_lookahead_at(&never, 9, &decay));
}
END_TEST

/* ---------------------------------------------------------------- a small network */

enum { STEPS = 12, BATCHES = 3, BATCH = 6, CLASSES = 5, PIXELS = 4 * 4 * 3 };
static const char *const names[] = {"stem.weight",       "stem.bias",        "norm.weight", "norm.bias",
                                    "norm.running_mean", "norm.running_var", "body.weight", "head.weight"};
enum { NAMES = sizeof names / sizeof names[0] };

/* Outputs loss (mean) and loss_sum. */
static fv_graph *small_graph(fv_ctx *ctx, int64_t batch) {
    fv_graph *g = fv_graph_new(ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "images", fv_shape(FV_F32, batch, 4, 4, 3));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, batch));
    x = fv_conv_layer(fv_in(s, "stem"), x, (fv_conv_cfg){.out = 4, .kernel = 3, .pad = 1, .bias = true});
    x = fv_gelu(s, fv_batch_norm_layer(fv_in(s, "norm"), x, (fv_bn_cfg){0}));
    x = fv_gelu(s, fv_conv_layer(fv_in(s, "body"), x, (fv_conv_cfg){.out = 6, .kernel = 3, .pad = 1}));
    x = fv_linear_layer(fv_in(s, "head"), fv_global_avg_pool(s, x), CLASSES, false, fv_init_default(6));
    fv_loss_attr attr = {.label_smoothing = 0.2};
    fv_set_output(g, "loss", fv_softmax_cross_entropy(s, x, labels, FV_NONE, FV_NONE, attr));
    attr.reduction = FV_REDUCE_SUM;
    fv_set_output(g, "loss_sum", fv_softmax_cross_entropy(s, x, labels, FV_NONE, FV_NONE, attr));
    fv_graph_fuse(g);
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx->error.message);
    return g;
}

typedef struct vectors {
    fv_ctx ctx;
    fv_st_file file;
} vectors;

static void vectors_open(vectors *v) {
    fv_ctx_init(&v->ctx);
    ck_assert_msg(fv_st_open(&v->file, &v->ctx, "tests/vectors/optim.safetensors") == FV_OK, "%s",
                  v->ctx.error.message);
}

static const void *vector(const vectors *v, const char *of, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "%s.%s", of, what);
    const fv_st_entry *e = fv_st_find(&v->file, name);
    ck_assert_msg(e != NULL, "no vector '%s'", name);
    return v->file.data + e->offset;
}

static void feed(fvt_program *p, const vectors *v, int batch, int first, int rows) {
    const double *images = vector(v, "batches", "images");
    const int64_t *labels = vector(v, "batches", "labels");
    double label[BATCH];
    for (int i = 0; i < rows; i++) label[i] = (double)labels[batch * BATCH + first + i];
    fvt_set(p, "images", images + (batch * BATCH + first) * PIXELS);
    fvt_set(p, "labels", label);
}

static void check_state(fvt_program *p, const vectors *v, const char *recipe) {
    for (int i = 0; i < NAMES; i++) {
        const double *want = vector(v, recipe, names[i]);
        int64_t count = fv_count(fvt_type(p, names[i]));
        double *have = fvt_doubles(count);
        fvt_get(p, names[i], have);
        for (int64_t k = 0; k < count; k++)
            ck_assert_msg(fabs(have[k] - want[k]) <= 1e-10 * (1 + fabs(want[k])), "%s: %s[%lld] is %.17g, not %.17g",
                          recipe, names[i], (long long)k, have[k], want[k]);
        fvt_free(have);
    }
}

static void begin(fvt_program *p, fvt_device *d, const vectors *v, const fv_optim_cfg *cfg) {
    fv_graph *g = small_graph(&d->ctx, BATCH);
    ck_assert_msg(fv_optim_build(g, fv_find_output(g, "loss_sum"), cfg) == FV_OK, "%s", d->ctx.error.message);
    fvt_compile(d, g, true, p);
    for (int i = 0; i < NAMES; i++) fvt_set(p, names[i], vector(v, "start", names[i]));
    ck_assert_int_eq(fv_store_reset_ema(p->store), FV_OK);
}

static void run_step(fvt_program *p, const vectors *v, const char *recipe, const fv_step *step) {
    double loss;
    feed(p, v, (int)step->step % BATCHES, 0, BATCH);
    ck_assert_int_eq(fv_program_run(p->program, step, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(p, "loss", &loss);
    ck_assert_double_eq_tol(loss, ((const double *)vector(v, recipe, "loss"))[step->step], 1e-11);
}

/* The update group of a parameter: that of the node that changes it. */
static int group_in(const fv_graph *g, const char *name) {
    fv_value param = fv_find_value(g, name);
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 1; g->nodes[k].op == FV_OP_SGD_UPDATE && j <= g->nodes[k].attr.update.count; j++)
            if (g->operands[g->nodes[k].first_operand + j].id == param.id) return g->nodes[k].attr.update.group;
    ck_abort_msg("%s is not updated", name);
}

START_TEST(sgd_as_pytorch_has_it) {
    const double lr = 0.02, wd = 0.01;
    static const fv_param_group groups[] = {{"norm", -1}, {"stem.bias", -1}};
    const fv_optim_cfg cfg = {.momentum = 0.85, .nesterov = true, .lookahead = true, .groups = groups, .n_groups = 2};
    const fv_sched_cfg sched = {.kind = FV_SCHED_LINEAR,
                                .lr = lr,
                                .warmup_lr = 0.2 * lr,
                                .min_lr = 0.07 * lr,
                                .steps = STEPS,
                                .warmup_steps = 2};
    const fv_lookahead_cfg lookahead = {.every = 5, .steps = STEPS, .decay = pow(0.95, 5), .power = 3};
    vectors v;
    fvt_device d;
    fvt_program p;
    vectors_open(&v);
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    begin(&p, &d, &v, &cfg);
    for (int64_t k = 0; k < STEPS; k++) {
        double now = fv_sched_lr(&sched, k), stem = k < 7 ? now : 0;
        fv_step step = {.step = k,
                        .lr = {now, now, 8 * now, 8 * now, stem, stem},
                        .weight_decay = {wd, 0, wd / 8, wd / 8, wd, wd},
                        .loss_scale = 1};
        step.lookahead = fv_lookahead_at(&lookahead, k, &step.lookahead_decay);
        run_step(&p, &v, "sgd", &step);
    }
    check_state(&p, &v, "sgd");
    fvt_destroy(&p);
    fvt_close(&d);
    fv_st_close(&v.file);
}
END_TEST

START_TEST(muon_as_pytorch_has_it) {
    static const fv_param_group groups[] = {{"bias", 0.85}, {"norm", 0.85}, {"head", 0.85}};
    const double wd = 0.01, bias = 0.053 / 0.24, head = 0.067 / 0.24;
    const fv_optim_cfg cfg = {.kind = FV_OPT_MUON,
                              .momentum = 0.6,
                              .nesterov = true,
                              .renormalise = true,
                              .groups = groups,
                              .n_groups = 3,
                              .head = "head"};
    const fv_sched_cfg sched = {.kind = FV_SCHED_LINEAR, .lr = 0.24, .steps = STEPS};
    vectors v;
    fvt_device d;
    fvt_program p;
    vectors_open(&v);
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    begin(&p, &d, &v, &cfg);
    for (int64_t k = 0; k < STEPS; k++) {
        double now = fv_sched_lr(&sched, k), b = bias * now, h = head * now;
        fv_step step = {.step = k, .lr = {now, now, b, b, b, b, h, h}, .loss_scale = 1};
        for (int i = 2; i < 6; i++) step.weight_decay[i] = wd / 0.053;
        for (int i = 6; i < 8; i++) step.weight_decay[i] = wd / 0.067;
        run_step(&p, &v, "muon", &step);
    }
    check_state(&p, &v, "muon");
    fvt_destroy(&p);
    fvt_close(&d);
    fv_st_close(&v.file);
}
END_TEST

/* Singular values of a random matrix, all below 1 after it is divided by its norm, are brought near to 1: the smallest
 * and largest Rayleigh quotients of x x^T over many vectors lie between. A step of -1 from zero weights shows x. */
START_TEST(muon_makes_orthogonal) {
    static const struct {
        const char *backend;
        int64_t rows, columns;
    } cases[] = {{"ref", 6, 27}, {"ref", 27, 6}, {"cpu", 24, 216}, {"cpu", 70, 18}};
    const int64_t rows = cases[_i].rows, columns = cases[_i].columns, count = rows * columns;
    const int64_t m = rows < columns ? rows : columns;
    fvt_device d;
    fvt_program p;
    ck_assert(fvt_open(&d, cases[_i].backend, 2, NULL));
    fv_graph *g = fv_graph_new(&d.ctx, true);
    fv_value w = fv_param(fv_root(g), "w", fv_shape(FV_F32, rows, columns), FV_PLAIN, FV_ZEROS, false);
    fv_value loss = fv_sum(fv_root(g), fv_mul(fv_root(g), w, fv_input(fv_root(g), "c", fv_typeof(g, w))), 3, false);
    ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_MUON, .ns_steps = 8}), FV_OK);
    fvt_compile(&d, g, false, &p);
    double *c = fvt_doubles(count), *x = fvt_doubles(count), *gram = fvt_doubles(m * m);
    for (int64_t i = 0; i < count; i++) c[i] = fvt_normal(5, (uint64_t)i, 0);
    fvt_set(&p, "c", c);
    const fv_step step = {.lr = {-1}, .loss_scale = 1};
    ck_assert_int_eq(fv_program_run(p.program, &step, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(&p, "w", x);
    for (int64_t i = 0; i < m; i++)
        for (int64_t j = 0; j < m; j++)
            for (int64_t k = 0; k < count / m; k++)
                gram[i * m + j] +=
                    rows <= columns ? x[i * columns + k] * x[j * columns + k] : x[k * columns + i] * x[k * columns + j];
    for (uint64_t trial = 0; trial < 500; trial++) { /* |x^T v|^2 / |v|^2 */
        double v[70], top = 0, bottom = 0;
        for (int64_t i = 0; i < m; i++) v[i] = fvt_normal(9, trial * 100 + (uint64_t)i, 1), bottom += v[i] * v[i];
        for (int64_t i = 0; i < m; i++)
            for (int64_t j = 0; j < m; j++) top += v[i] * gram[i * m + j] * v[j];
        ck_assert_msg(top / bottom > 0.36 && top / bottom < 1.69, "%g", top / bottom);
    }
    for (int64_t i = 0; i < m; i++) /* of a matrix and its singular values: none leaves [0.6, 1.3] */
        ck_assert_msg(gram[i * m + i] > 0.36 && gram[i * m + i] < 1.69, "%g", gram[i * m + i]);
    fvt_free(c);
    fvt_free(x);
    fvt_free(gram);
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

/* Which parameters are Muon's: weights of convolutions and linear layers, not the classifier's. */
START_TEST(what_muon_takes) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = small_graph(&ctx, BATCH);
    const fv_optim_cfg cfg = {.kind = FV_OPT_MUON,
                              .momentum = 0.6,
                              .head = "head",
                              .groups = (const fv_param_group[]){{"stem", -1}},
                              .n_groups = 1};
    ck_assert_int_eq(fv_optim_build(g, fv_find_output(g, "loss"), &cfg), FV_OK);
    int taken = 0;
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 1; g->nodes[k].op == FV_OP_MUON_UPDATE && j <= g->nodes[k].attr.update.count; j++) {
            const char *name = fv_decl_of(g, g->operands[g->nodes[k].first_operand + j])->name;
            ck_assert_msg(!strcmp(name, "stem.weight") || !strcmp(name, "body.weight"), "%s", name);
            taken++;
        }
    ck_assert_int_eq(taken, 2);
    ck_assert_int_eq(group_in(g, "stem.bias"), 3); /* of the same group, by sgd */
    ck_assert_int_eq(group_in(g, "head.weight"), 0);
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- groups */

START_TEST(first_group_counts) {
    static const fv_param_group lists[][4] = {{{"stem.bias", 0.5}, {"norm", -1}, {"head", 0}, {"matrix", -1}},
                                              {{"norm", -1}, {"head", -1}, {"matrix", -1}},
                                              {{"bias", -1}, {"norm", -1}},
                                              {{"stem", -1}}};
    static const struct {
        int n;
        int group[6]; /* of stem.weight, stem.bias, norm.weight, norm.bias, body.weight, head.weight */
    } cases[] = {{4, {8, 3, 5, 5, 8, 6}}, {3, {6, 1, 3, 3, 6, 4}}, {2, {0, 3, 5, 3, 0, 0}}, {1, {2, 3, 1, 1, 0, 0}}};
    static const char *const params[] = {"stem.weight", "stem.bias",   "norm.weight",
                                         "norm.bias",   "body.weight", "head.weight"};
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        fv_graph *g = small_graph(&ctx, BATCH);
        fv_optim_cfg cfg = {
            .momentum = 0.9, .nesterov = true, .head = "head", .groups = lists[c], .n_groups = cases[c].n};
        ck_assert_msg(fv_optim_build(g, fv_find_output(g, "loss"), &cfg) == FV_OK, "%s", ctx.error.message);
        for (int i = 0; i < 6; i++)
            ck_assert_msg(group_in(g, params[i]) == cases[c].group[i], "case %zu: %s is in group %d", c, params[i],
                          group_in(g, params[i]));
        if (c == 0) { /* momentum of its own, or none */
            ck_assert(!fv_is_none(fv_find_value(g, "opt.momentum.stem.bias")));
            ck_assert(fv_is_none(fv_find_value(g, "opt.momentum.head.weight")));
        }
        fv_graph_free(g);
    }
}
END_TEST

START_TEST(refused_groups) {
    static const fv_param_group nothing[] = {{"layer1", -1}}, no_head[] = {{"head", -1}},
                                twice[] = {{"bias", -1}, {"stem.bias", -1}}, unnamed[] = {{"", -1}},
                                slow[] = {{"norm", 0.5}}, fast[] = {{"norm", 1}},
                                many[FV_MAX_PARAM_GROUPS + 1] = {{"norm", -1}};
    static const struct {
        fv_optim_cfg cfg;
        const char *says;
    } bad[] = {
        {{.groups = nothing, .n_groups = 1}, "'layer1': the model has no such parameter"},
        {{.groups = no_head, .n_groups = 1}, "'head': the model has no such parameter"},
        {{.groups = twice, .n_groups = 2}, "'stem.bias': earlier groups have all"},
        {{.groups = unnamed, .n_groups = 1}, "group 1 does not say"},
        {{.groups = fast, .n_groups = 1}, "'norm': momentum must be below 1"},
        {{.groups = twice, .n_groups = -1}, "at most 7"},
        {{.groups = many, .n_groups = FV_MAX_PARAM_GROUPS + 1}, "8 parameter groups: there may be at most 7"},
        {{.kind = FV_OPT_ADAM, .groups = slow, .n_groups = 1}, "adam has no momentum"},
    };
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        fv_graph *g = small_graph(&ctx, BATCH);
        ck_assert_int_eq(fv_optim_build(g, fv_find_output(g, "loss"), &bad[i].cfg), FV_E_USAGE);
        ck_assert_msg(strstr(ctx.error.message, bad[i].says) != NULL, "%s", ctx.error.message);
        fv_graph_free(g);
    }
    const char *const frozen[] = {"stem"}; /* a group of parameters that are all frozen is none of these */
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_graph_freeze(g, frozen, 1);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 2, 3));
    x = fv_linear_layer(fv_in(fv_root(g), "stem"), x, 3, true, fv_init_default(3));
    x = fv_linear_layer(fv_in(fv_root(g), "body"), x, 3, true, fv_init_default(3));
    const fv_optim_cfg cfg = {.groups = (const fv_param_group[]){{"stem", -1}}, .n_groups = 1};
    ck_assert_int_eq(fv_optim_build(g, fv_sum(fv_root(g), x, 3, false), &cfg), FV_OK);
    fv_graph_free(g);
}
END_TEST

static int nodes_of(const fv_graph *g, fv_op op) {
    int n = 0;
    for (int32_t k = 0; k < g->n_nodes; k++) n += g->nodes[k].op == op;
    return n;
}

/* A group at rest ends where a learning rate of 0 leaves it, averages and slow copies too; its moments stay. */
START_TEST(rest_is_a_rate_of_nothing) {
    const fv_optim_cfg cfg = {.momentum = 0.9, .nesterov = true, .lookahead = true, .ema = true, .head = "head"};
    const fv_param_group still = {.pattern = "stem", .momentum = -1}, rests = {"stem", -1, true};
    vectors v;
    fvt_device d;
    fvt_program p[2];
    vectors_open(&v);
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    for (int rest = 0; rest < 2; rest++) {
        fv_optim_cfg own = cfg;
        own.groups = rest ? &rests : &still, own.n_groups = 1;
        begin(&p[rest], &d, &v, &own);
        fvt_set(&p[rest], "ema.stem.weight", vector(&v, "sgd", "stem.weight")); /* an average with some way to go */
        for (int step = 0; step < 4; step++) {
            fv_step s = {.lr = {0.1, 0.1}, .loss_scale = 1, .ema_decay = 0.5, .lookahead = step == 2, .step = step};
            s.lookahead_decay = 0.25;
            feed(&p[rest], &v, step % BATCHES, 0, BATCH);
            ck_assert_int_eq(fv_program_run(p[rest].program, &s, FV_ALL_SEGMENTS), FV_OK);
        }
    }
    int compared = 0;
    for (int i = 0; i < fv_store_count(p[1].store); i++, compared++) {
        const char *name = fv_store_slot(p[1].store, i)->name;
        int64_t count = fv_count(fvt_type(&p[1], name));
        double *a = fvt_doubles(count), *b = fvt_doubles(count);
        fvt_get(&p[0], name, a);
        fvt_get(&p[1], name, b);
        for (int64_t k = 0; k < count; k++) ck_assert_msg(a[k] == b[k], "%s[%lld]", name, (long long)k);
        fvt_free(a);
        fvt_free(b);
    }
    ck_assert_int_ge(fv_store_find(p[1].store, "slow.stem.weight"), 0);
    ck_assert_int_ge(fv_store_find(p[1].store, "ema.stem.bias"), 0);
    ck_assert_int_lt(fv_store_find(p[1].store, "opt.momentum.stem.bias"), 0); /* nobody asks for it */
    ck_assert_int_eq(compared + 2, fv_store_count(p[0].store));               /* but for the two moments of the stem */
    for (int rest = 0; rest < 2; rest++) fvt_destroy(&p[rest]);
    fvt_close(&d);
    fv_st_close(&v.file);
}
END_TEST

/* The gradient is not made at all; where everything would rest, nothing does. */
START_TEST(rest_costs_nothing) {
    static const fv_param_group groups[2][2] = {{{"stem", -1, true}, {"norm", -1, true}},
                                                {{"bias", -1, true}, {"matrix", -1, true}}};
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    for (int all = 0; all < 2; all++) {
        fv_graph *g = small_graph(&ctx, BATCH);
        fv_param_group own[3] = {groups[all][0], groups[all][1], {"norm", -1, true}};
        const fv_optim_cfg cfg = {.momentum = 0.9, .groups = own, .n_groups = 2 + all};
        ck_assert_msg(fv_optim_build(g, fv_find_output(g, "loss"), &cfg) == FV_OK, "%s", ctx.error.message);
        ck_assert_int_eq(nodes_of(g, FV_OP_CONV2D_BWD_WEIGHT),
                         all ? 2 : 1); /* of the stem and the body, or of the body alone */
        ck_assert_int_eq(nodes_of(g, FV_OP_BATCH_NORM_BWD), all);
        fv_graph_free(g);
    }
}
END_TEST

/* ---------------------------------------------------------------- lookahead */

/* Copies follow running statistics, too, not counters; they are in the state; nothing moves where a step is not finite.
 */
START_TEST(slow_copies) {
    vectors v;
    fvt_device d;
    fvt_program p;
    vectors_open(&v);
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    begin(&p, &d, &v, &(fv_optim_cfg){.lookahead = true});
    ck_assert_int_ge(fv_store_find(p.store, "slow.norm.running_var"), 0);
    ck_assert_int_ge(fv_store_find(p.store, "slow.head.weight"), 0);
    ck_assert_int_lt(fv_store_find(p.store, "slow.norm.num_batches_tracked"), 0);
    double before[4], fast[4], slow[4], other[4];
    fvt_get(&p, "slow.norm.running_var", before);
    for (int i = 0; i < 4; i++) ck_assert_double_eq(before[i], 1);
    fv_step step = {.lr = {0.1, 0.1}, .loss_scale = 1};
    feed(&p, &v, 0, 0, BATCH);
    ck_assert_int_eq(fv_program_run(p.program, &step, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(&p, "norm.running_var", fast);
    fvt_get(&p, "slow.norm.running_var", slow);
    ck_assert_double_ne(fast[0], 1);
    ck_assert_double_eq(slow[0], 1); /* no meeting */
    double x[BATCH * PIXELS] = {NAN};
    step = (fv_step){.loss_scale = 1, .lookahead = true, .lookahead_decay = 0.25};
    fvt_set(&p, "images", x);
    ck_assert_int_eq(fv_program_run(p.program, &step, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(&p, "slow.norm.running_var", slow);
    ck_assert_double_eq(slow[0], 1); /* not finite */
    feed(&p, &v, 0, 0, BATCH);
    ck_assert_int_eq(fv_program_run(p.program, &step, FV_ALL_SEGMENTS), FV_OK);
    fvt_get(&p, "norm.running_var", fast);
    fvt_get(&p, "slow.norm.running_var", other);
    for (int i = 0; i < 4; i++) {
        ck_assert_double_ne(other[i], slow[i]);
        ck_assert_double_eq(other[i], fast[i]); /* they have met */
    }
    fvt_destroy(&p);
    fvt_close(&d);
    fv_st_close(&v.file);
}
END_TEST

/* ---------------------------------------------------------------- the summed loss */

/* Micro-steps of a sum are added: two halves of a batch make the update of the whole. (Without batch norm.) */
static void sum_open(fvt_device *d, int rows, int micro, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "images", fv_shape(FV_F32, rows, 4, 4, 3));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, rows));
    x = fv_dense_layer(fv_in(s, "head"), x, CLASSES);
    fv_value loss =
        fv_softmax_cross_entropy(s, x, labels, FV_NONE, FV_NONE, (fv_loss_attr){.reduction = FV_REDUCE_SUM});
    const fv_optim_cfg cfg = {.momentum = 0.9, .accumulate = micro, .sum_micro_steps = true};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", d->ctx.error.message);
    fvt_compile(d, g, true, p);
}

START_TEST(micro_steps_of_a_sum) {
    const fv_step step = {.lr = {0.01, 0.01}, .loss_scale = 1};
    vectors v;
    fvt_device d;
    fvt_program whole, halves;
    vectors_open(&v);
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    sum_open(&d, BATCH, 1, &whole);
    sum_open(&d, BATCH / 2, 2, &halves);
    feed(&whole, &v, 0, 0, BATCH);
    ck_assert_int_eq(fv_program_run(whole.program, &step, FV_ALL_SEGMENTS), FV_OK);
    feed(&halves, &v, 0, 0, BATCH / 2);
    ck_assert_int_eq(fv_program_run(halves.program, &step, 1u << FV_SEG_FORWARD_BACKWARD), FV_OK);
    feed(&halves, &v, 0, BATCH / 2, BATCH / 2);
    ck_assert_int_eq(fv_program_run(halves.program, &step, FV_ALL_SEGMENTS), FV_OK);
    double a[CLASSES * PIXELS], b[CLASSES * PIXELS], stats[2], other[2];
    fvt_get(&whole, "head.weight", a);
    fvt_get(&halves, "head.weight", b);
    fvt_get(&whole, "grad_stats", stats);
    fvt_get(&halves, "grad_stats", other);
    ck_assert_double_eq_tol(stats[0], other[0], 1e-12);
    for (int i = 0; i < CLASSES * PIXELS; i++) ck_assert_double_eq_tol(a[i], b[i], 1e-14);
    fvt_destroy(&whole);
    fvt_destroy(&halves);
    fvt_close(&d);
    fv_st_close(&v.file);
}
END_TEST

Suite *optim_recipe_suite(void) {
    Suite *suite = suite_create("optim_recipe");
    TCase *courses = tcase_create("courses"), *steps = tcase_create("steps");
    tcase_add_loop_test(courses, triangle, 0, 3);
    tcase_add_test(courses, schedule_within);
    tcase_add_test(courses, lookahead_meetings);
    suite_add_tcase(suite, courses);
    tcase_add_test(steps, sgd_as_pytorch_has_it);
    tcase_add_test(steps, muon_as_pytorch_has_it);
    tcase_add_loop_test(steps, muon_makes_orthogonal, 0, 4);
    tcase_add_test(steps, what_muon_takes);
    tcase_add_test(steps, first_group_counts);
    tcase_add_test(steps, refused_groups);
    tcase_add_test(steps, rest_is_a_rate_of_nothing);
    tcase_add_test(steps, rest_costs_nothing);
    tcase_add_test(steps, slow_copies);
    tcase_add_test(steps, micro_steps_of_a_sum);
    suite_add_tcase(suite, steps);
    return suite;
}
