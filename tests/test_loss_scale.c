/* test_loss_scale.c: the loss scale of f16: what it changes, what it does not, and that small gradients need it. */
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

Suite *loss_scale_suite(void);

enum { BATCH = 8, SIDE = 8, CLASSES = 3 };

/* A convolution, a batch norm and a linear layer; `share`: of its loss that is differentiated. */
typedef struct plan {
    fv_optim_cfg optim;
    fv_dtype precision;
    double share;
} plan;

typedef struct net {
    fvt_device d;
    fvt_program p;
    int64_t steps;
} net;

static bool open_net(net *n, const char *backend, const plan *how) {
    *n = (net){0};
    if (!fvt_open(&n->d, backend, 2, NULL)) return false;
    fv_graph *g = fv_graph_new(&n->d.ctx, true);
    const fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, BATCH, SIDE, SIDE, 3));
    x = fv_conv_bn_act(s, "conv", "bn", x, (fv_conv_cfg){.out = 8, .kernel = 3, .pad = 1}, (fv_bn_cfg){0}, FV_ACT_RELU);
    x = fv_conv_bn_act(s, "conv2", "bn2", x, (fv_conv_cfg){.out = 8, .kernel = 3}, (fv_bn_cfg){0}, FV_ACT_RELU);
    const fv_value logits =
        fv_linear_layer(fv_in(s, "head"), fv_global_avg_pool(s, x), CLASSES, true, fv_init_normal(0.3));
    const fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    const fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    ck_assert_msg(fv_optim_build(g, fv_scale(s, loss, how->share, 0), &how->optim) == FV_OK, "%s",
                  n->d.ctx.error.message);
    if (fv_is_low(how->precision)) fv_graph_mix_precision(g, how->precision);
    fvt_compile(&n->d, g, false, &n->p);
    double *images = fvt_doubles(BATCH * SIDE * SIDE * 3), classes[BATCH];
    for (int i = 0; i < BATCH * SIDE * SIDE * 3; i++) images[i] = fvt_normal(5, (uint64_t)i, 1);
    for (int i = 0; i < BATCH; i++) classes[i] = i % CLASSES;
    fvt_set(&n->p, "x", images);
    fvt_set(&n->p, "labels", classes);
    fvt_free(images);
    return true;
}

static void close_net(net *n) {
    fvt_destroy(&n->p);
    fvt_close(&n->d);
}

/* One step; its loss. */
static double run_step(net *n, double scale) {
    const fv_step step = {.step = n->steps++, .lr = {0.1, 0.1}, .ema_decay = 0.9, .loss_scale = scale};
    ck_assert_msg(fv_program_run(n->p.program, &step, FV_ALL_SEGMENTS) == FV_OK, "%s", n->d.ctx.error.message);
    return fv_program_scalar(n->p.program, "loss");
}

static bool is_finite(net *n, double *norm) {
    double stats[2];
    fvt_get(&n->p, "grad_stats", stats);
    if (norm) *norm = stats[0];
    return stats[1] != 0;
}

/* Of weights, running statistics, moments and averages. */
static uint64_t hash_of(net *n) {
    uint64_t hash = 0;
    ck_assert_int_eq(fv_store_hash(n->p.store, &hash), FV_OK);
    return hash;
}

static const char *const backends[] = {"ref", "cpu", "cuda"};
enum { BACKENDS = sizeof backends / sizeof *backends };

/* ---------------------------------------------------------------- the rule */

START_TEST(halves_and_doubles) {
    fv_loss_scaling s = {FV_LOSS_SCALE, 0};
    ck_assert(fv_loss_scaling_next(&s, false, 3) && s.scale == 32768);
    for (int i = 0; i < 2; i++) ck_assert(fv_loss_scaling_next(&s, true, 3) && s.scale == 32768);
    ck_assert(fv_loss_scaling_next(&s, true, 3) && s.scale == 65536); /* after three good steps */
    for (int i = 0; i < 2; i++) ck_assert(fv_loss_scaling_next(&s, true, 3));
    ck_assert(fv_loss_scaling_next(&s, false, 3) && s.scale == 32768); /* one that is not begins the count again */
    for (int i = 0; i < 2; i++) ck_assert(fv_loss_scaling_next(&s, true, 3) && s.scale == 32768);
    for (int i = 0; i < 16; i++) ck_assert(fv_loss_scaling_next(&s, false, 3));
    ck_assert(s.scale == 0.5 && !fv_loss_scaling_next(&s, false, 3) && s.scale == 0.5);
    s = (fv_loss_scaling){1, 0};
    for (int i = 0; i < FV_LOSS_SCALE_STEPS - 1; i++) ck_assert(fv_loss_scaling_next(&s, true, FV_LOSS_SCALE_STEPS));
    ck_assert(s.scale == 1 && fv_loss_scaling_next(&s, true, FV_LOSS_SCALE_STEPS) && s.scale == 2);
}
END_TEST

/* ---------------------------------------------------------------- in float32 */

/* A scale that is a power of two changes no bit where nothing over- or underflows: not of weights, moments and
 * averages, not of the gradients' norm; nor does it change the loss. */
START_TEST(leaves_float32_alone) {
    static const fv_optim_cfg optims[] = {
        {.kind = FV_OPT_SGD, .momentum = 0.9, .clip_grad = 0.1, .ema = true},
        {.kind = FV_OPT_SGD, .momentum = 0.9, .accumulate = 2},
        {.kind = FV_OPT_ADAMW, .clip_grad = 0.1},
        {.kind = FV_OPT_MUON, .momentum = 0.9, .clip_grad = 0.1, .nesterov = true},
    };
    const plan plain = {optims[_i / BACKENDS], FV_F32, 1};
    plan scaled = plain;
    net a, b;
    scaled.optim.loss_scaling = true;
    if (!open_net(&a, backends[_i % BACKENDS], &plain)) return;
    ck_assert(open_net(&b, backends[_i % BACKENDS], &scaled));
    for (int i = 0; i < 3; i++) {
        double want, got;
        ck_assert(run_step(&a, 1) == run_step(&b, i == 2 ? 1 : 1024));
        ck_assert(is_finite(&a, &want) && is_finite(&b, &got));
        ck_assert_msg(got == want, "norm %.9g, not %.9g", got, want);
    }
    ck_assert_uint_eq(hash_of(&a), hash_of(&b));
    close_net(&a);
    close_net(&b);
}
END_TEST

/* 0 is 1: who knows nothing of the scale leaves it out. */
START_TEST(zero_is_one) {
    const plan plain = {{.kind = FV_OPT_SGD}, FV_F32, 1};
    net a, b;
    ck_assert(open_net(&a, "cpu", &plain) && open_net(&b, "cpu", &plain));
    ck_assert(run_step(&a, 0) == run_step(&b, 1));
    ck_assert_uint_eq(hash_of(&a), hash_of(&b));
    close_net(&a);
    close_net(&b);
}
END_TEST

/* ---------------------------------------------------------------- in f16 */

/* Too large a scale overflows: nothing changes, running statistics included, until it is small enough; then it learns,
 * and after some good steps the scale is doubled. */
START_TEST(overflow_leaves_the_step_out) {
    const plan how = {{.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true, .loss_scaling = true}, FV_F16, 1};
    fv_loss_scaling s = {0x1p30, 0};
    net n;
    if (!open_net(&n, backends[_i], &how)) return;
    const uint64_t untouched = hash_of(&n);
    const double first = run_step(&n, s.scale);
    int left_out = 0;
    for (; !is_finite(&n, NULL); left_out++) {
        const double before = s.scale;
        ck_assert_uint_eq(hash_of(&n), untouched);
        ck_assert(fv_loss_scaling_next(&s, false, 4) && s.scale == before / 2);
        ck_assert(run_step(&n, s.scale) == first); /* of the same weights */
    }
    ck_assert_msg(left_out > 3 && left_out < 30, "%d steps were left out", left_out);
    ck_assert_uint_ne(hash_of(&n), untouched);
    const double scale = s.scale;
    double last = first;
    for (int i = 0; i < 4; i++) {
        ck_assert(fv_loss_scaling_next(&s, true, 4));
        last = run_step(&n, scale);
    }
    ck_assert(s.scale == 2 * scale);
    ck_assert_msg(last < 0.97 * first, "loss %g became %g", first, last);
    close_net(&n);
}
END_TEST

/* Gradients of 2^-24 of a loss are below what f16 holds; with a scale they are as exact as those of the whole loss. */
START_TEST(small_gradients_survive) {
    const plan how = {{.kind = FV_OPT_SGD, .loss_scaling = true}, FV_F16, 0x1p-24}, whole = {how.optim, FV_F16, 1};
    net n;
    double norm, kept, want;
    if (!open_net(&n, backends[_i], &how)) return;
    run_step(&n, 1);
    ck_assert(is_finite(&n, &norm));
    close_net(&n);
    ck_assert(open_net(&n, backends[_i], &how));
    run_step(&n, 0x1p32);
    ck_assert(is_finite(&n, &kept));
    close_net(&n);
    ck_assert(open_net(&n, backends[_i], &whole));
    run_step(&n, 0x1p8);
    ck_assert(is_finite(&n, &want));
    close_net(&n);
    ck_assert_msg(kept == want * 0x1p-24, "%g, not %g", kept, want * 0x1p-24);
    ck_assert_msg(fabs(norm - kept) > 0.01 * kept, "without a scale %g is as near to %g", norm, kept);
}
END_TEST

Suite *loss_scale_suite(void) {
    Suite *suite = suite_create("loss_scale");
    TCase *t = tcase_create("loss_scale");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, halves_and_doubles);
    tcase_add_loop_test(t, leaves_float32_alone, 0, 4 * BACKENDS);
    tcase_add_test(t, zero_is_one);
    tcase_add_loop_test(t, overflow_leaves_the_step_out, 0, BACKENDS);
    tcase_add_loop_test(t, small_gradients_survive, 0, BACKENDS);
    suite_add_tcase(suite, t);
    return suite;
}
