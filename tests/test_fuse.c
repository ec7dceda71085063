/* test_fuse.c: batch norm with a residual and an activation as one node computes what the plain nodes compute, whatever
 * is asked of it; and linear layers that apply an activation. */
#include <check.h>
#include <math.h>
#include <stdio.h>

#include "core/ops.h"
#include "tests/harness.h"

Suite *fuse_suite(void);

enum { KINDS = 5, WANTED = 16, X = 1, GAMMA = 2, BETA = 4, RESIDUAL = 8 };
static const fv_act_kind kinds[KINDS] = {FV_ACT_RELU, FV_ACT_GELU, FV_ACT_GELU_TANH, FV_ACT_SILU, FV_ACT_HARDSWISH};
static const char *const names[4] = {"x", "gamma", "beta", "residual"};
static const fv_type types[4] = {
    {FV_F32, 3, {7, 5, 6}}, {FV_F32, 1, {6}}, {FV_F32, 1, {6}}, {FV_F32, 3, {7, 5, 6}}}; /* 35 rows of 6: with a tail */

/* act(batch_norm(x) + residual), its loss, and the gradients in `wanted`. has: which of the last three operands exist.
 */
static int build(fvt_device *d, fv_act_kind kind, bool given, int has, int wanted, bool fuse, bool f64,
                 fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value in[4] = {{0}}, wrt[4], grads[4];
    int n = 0;
    for (int k = 0; k < 4; k++)
        if (has >> k & 1) in[k] = fv_input(s, names[k], types[k]);
    fv_value mean = fv_input(s, "mean", types[1]), var = fv_input(s, "var", types[1]);
    fv_value y = given ? fv_batch_norm_infer(s, in[0], mean, var, in[1], in[2], 1e-5)
                       : fv_batch_norm(s, in[0], in[1], in[2], 1e-5);
    if (!fv_is_none(in[3])) y = fv_add(s, in[3], y);
    y = fv_activation(s, y, kind, 0);
    fv_set_output(g, "y", fv_scale(s, y, 1, 0));
    fv_value loss = fv_sum(s, fv_mul(s, y, fv_input(s, "weight", types[0])), 7, false);
    int gone = fuse ? fv_graph_fuse(g) : 0;
    if (fuse) { /* values keep their meaning, their numbers may not */
        for (int k = 0; k < 4; k++) in[k] = fv_find_value(g, names[k]);
        ck_assert_int_eq(gone, has & RESIDUAL ? 2 : 1);
    }
    for (int k = 0; k < 4; k++)
        if (wanted >> k & 1) wrt[n++] = in[k];
    ck_assert_msg(fv_gradients(g, loss, n, wrt, grads) == FV_OK, "%s", d->ctx.error.message);
    fvt_name name;
    for (int k = 0; k < n; k++) fv_set_output(g, fvt_numbered(&name, "grad", k), grads[k]);
    fvt_compile(d, g, f64, p);
    return n;
}

static void fill(fvt_program *p, int has) {
    double values[7 * 5 * 6];
    static const char *const all[] = {"x", "gamma", "beta", "residual", "mean", "var", "weight"};
    for (int k = 0; k < 7; k++) {
        if (k < 4 && !(has >> k & 1)) continue;
        if (!fv_find_value(fv_program_plan(p->program)->graph, all[k]).id) continue;
        int64_t n = fv_count(fvt_type(p, all[k]));
        for (int64_t i = 0; i < n; i++)
            values[i] =
                k == 5 ? 0.5 + fvt_uniform(4, (uint64_t)i, (uint32_t)k) : 1.5 * fvt_normal(4, (uint64_t)i, (uint32_t)k);
        fvt_set(p, all[k], values);
    }
    ck_assert_int_eq(fvt_run(p), FV_OK);
}

static void expect_same(fvt_program *a, fvt_program *b, const char *name, double bound) {
    double x[7 * 5 * 6], y[7 * 5 * 6];
    fvt_get(a, name, x);
    fvt_get(b, name, y);
    for (int64_t i = 0; i < fv_count(fvt_type(a, name)); i++)
        ck_assert_msg(fabs(x[i] - y[i]) <= bound, "%s[%lld]: %.17g plain, %.17g fused", name, (long long)i, x[i], y[i]);
}

static void compare(const char *backend, bool f64, fv_act_kind kind, bool given, int has, int wanted, double bound) {
    fvt_device d;
    fvt_program plain, fused;
    fvt_name name;
    ck_assert(fvt_open(&d, backend, 2, NULL));
    int n = build(&d, kind, given, has, wanted, false, f64, &plain);
    build(&d, kind, given, has, wanted, true, f64, &fused);
    fill(&plain, has);
    fill(&fused, has);
    expect_same(&plain, &fused, "y", bound);
    for (int k = 0; k < n; k++) expect_same(&plain, &fused, fvt_numbered(&name, "grad", k), 8 * bound);
    fvt_destroy(&plain);
    fvt_destroy(&fused);
    fvt_close(&d);
}

/* Every choice of gradients, with batch statistics and with given ones. */
START_TEST(fused_activation_is_plain) {
    for (int given = 0; given < 2; given++)
        for (int wanted = 1; wanted < WANTED; wanted++) {
            compare("ref", true, kinds[_i], given, X | GAMMA | BETA | RESIDUAL, wanted, 1e-13);
            compare("cpu", false, kinds[_i], given, X | GAMMA | BETA | RESIDUAL, wanted, 1e-5);
        }
}
END_TEST

/* Absent scale, shift and residual. */
START_TEST(fused_activation_without) {
    for (int has = 1; has < WANTED; has += 2)
        for (int given = 0; given < 2; given++) {
            compare("ref", true, kinds[_i], given, has, has, 1e-13);
            compare("cpu", false, kinds[_i], given, has, has, 1e-5);
        }
}
END_TEST

/* Others stay nodes of their own: their backward pass reads their output. */
START_TEST(other_activations_stay) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    for (int kind = FV_ACT_NONE + 1; kind < FV_ACT_COUNT; kind++) {
        fv_graph *g = fv_graph_new(&ctx, true);
        fv_scope s = fv_root(g);
        fv_value y = fv_batch_norm(s, fv_input(s, "x", types[0]), FV_NONE, FV_NONE, 1e-5);
        fv_set_output(g, "y", fv_activation(s, y, (fv_act_kind)kind, 0.1));
        ck_assert_int_eq(fv_graph_fuse(g), fv_act_can_end_norm((fv_act_kind)kind));
        ck_assert_int_eq(fv_graph_finish(g), FV_OK);
        fv_graph_free(g);
    }
}
END_TEST

static const char *const isas[] = {"generic", "avx2", "avx512", "wide"};

/* ---------------------------------------------------------------- an activation between two linear layers */

enum { ROWS = 1100, IN = 24, HIDDEN = 40, OUT = 12, RESULTS = 6 };
static const char *const results[RESULTS] = {"y", "grad0", "grad1", "grad2", "grad3", "grad4"};

/* Run with the first `count` inputs of a linear layer or two set. */
static void run_filled(fvt_program *p, int count) {
    static const char *const inputs[] = {"x", "w1", "b1", "w2", "b2", "weight"};
    for (int k = 0; k < count; k++) {
        const int64_t n = fv_count(fvt_type(p, inputs[k]));
        double *values = fvt_doubles(n);
        for (int64_t i = 0; i < n; i++) values[i] = fvt_normal(5, (uint64_t)i, (uint32_t)k);
        fvt_set(p, inputs[k], values);
        fvt_free(values);
    }
    ck_assert_int_eq(fvt_run(p), FV_OK);
}

/* y = w2 act(w1 x + b1) + b2 and gradients of x, w1, b1, w2, b2. apart: the activation's result is asked for, and its
 * gradient, so that nothing can be joined. */
static void build_mlp(fvt_device *d, fv_act_kind kind, int64_t rows, bool apart, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, rows / 2, IN)),
             w1 = fv_input(s, "w1", fv_shape(FV_F32, HIDDEN, IN)), b1 = fv_input(s, "b1", fv_shape(FV_F32, HIDDEN)),
             w2 = fv_input(s, "w2", fv_shape(FV_F32, OUT, HIDDEN)), b2 = fv_input(s, "b2", fv_shape(FV_F32, OUT));
    fv_value hidden = fv_linear(s, x, w1, b1), act = fv_activation(s, hidden, kind, 0), y = fv_linear(s, act, w2, b2);
    fv_value loss = fv_sum(s, fv_mul(s, y, fv_input(s, "weight", fv_typeof(g, y))), 7, false);
    const fv_value wrt[] = {x, w1, b1, w2, b2, act};
    fv_value grads[6];
    fvt_name name;
    ck_assert_msg(fv_gradients(g, loss, 6, wrt, grads) == FV_OK, "%s", d->ctx.error.message);
    fv_set_output(g, "y", y);
    for (int k = 0; k < (apart ? 6 : 5); k++) fv_set_output(g, fvt_numbered(&name, "grad", k), grads[k]);
    if (apart) fv_set_output(g, "act", act), fv_set_output(g, "hidden", hidden);
    fvt_compile(d, g, false, p);
    run_filled(p, 6);
}

/* Nodes of a kind that run. */
static int count_nodes(const fvt_program *p, fv_op op) {
    const fv_plan *plan = fv_program_plan(p->program);
    int n = 0;
    for (int32_t i = 0; i < plan->segment_first[FV_SEG_COUNT]; i++) n += plan->graph->nodes[plan->order[i]].op == op;
    return n;
}

static void expect_same_bits(fvt_program *a, fvt_program *b, const char *name, const char *isa) {
    const int64_t n = fv_count(fvt_type(a, name));
    double *x = fvt_doubles(n), *y = fvt_doubles(n);
    fvt_get(a, name, x);
    fvt_get(b, name, y);
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(x[i] == y[i], "%s: %s[%lld]: %.9g apart, %.9g joined", isa, name, (long long)i, x[i], y[i]);
    fvt_free(x);
    fvt_free(y);
}

START_TEST(activated_linear_is_plain) {
    for (int k = 0; k < 4; k++) {
        fvt_device d;
        fvt_program apart, joined;
        if (!fvt_open(&d, "cpu", 2, isas[k])) continue;
        build_mlp(&d, kinds[_i], ROWS, true, &apart);
        build_mlp(&d, kinds[_i], ROWS, false, &joined);
        const bool joins = kinds[_i] != FV_ACT_RELU; /* whose slope its result tells */
        ck_assert_int_eq(count_nodes(&apart, FV_OP_ACTIVATION), 1);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATION), 0);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_ACT), !joins);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATION_BWD), !joins);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATED_LINEAR), joins);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATED_LINEAR_BWD_DATA), joins);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_BWD_PARAMS), 2);
        ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_BWD_WEIGHT), 0);
        for (int r = 0; r < RESULTS; r++) expect_same_bits(&apart, &joined, results[r], isas[k]);
        if (joins)
            ck_assert_uint_lt(fv_program_plan(joined.program)->arena_bytes,
                              fv_program_plan(apart.program)->arena_bytes - ROWS * HIDDEN * sizeof(float));
        fvt_destroy(&apart);
        fvt_destroy(&joined);
        fvt_close(&d);
    }
}
END_TEST

/* y = act(w x + b), without gradients. apart: the linear layer's result is asked for, so that nothing can be joined. */
static void build_linear_act(fvt_device *d, fv_act_kind kind, int64_t rows, bool apart, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, false);
    fv_scope s = fv_root(g);
    const fv_value linear =
        fv_linear(s, fv_input(s, "x", fv_shape(FV_F32, rows, IN)), fv_input(s, "w1", fv_shape(FV_F32, HIDDEN, IN)),
                  fv_input(s, "b1", fv_shape(FV_F32, HIDDEN)));
    fv_set_output(g, "y", fv_activation(s, linear, kind, 0));
    if (apart) fv_set_output(g, "linear", linear);
    fvt_compile(d, g, false, p);
    run_filled(p, 3);
}

START_TEST(linear_act_is_plain) {
    for (int k = 0; k < 4; k++)
        for (int64_t rows = 3; rows <= ROWS; rows += ROWS - 3) {
            fvt_device d;
            fvt_program apart, joined;
            if (!fvt_open(&d, "cpu", 2, isas[k])) continue;
            build_linear_act(&d, kinds[_i], rows, true, &apart);
            build_linear_act(&d, kinds[_i], rows, false, &joined);
            ck_assert_int_eq(count_nodes(&apart, FV_OP_ACTIVATION), 1);
            ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATION), 0);
            ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_ACT), 1);
            expect_same_bits(&apart, &joined, "y", isas[k]);
            fvt_destroy(&apart);
            fvt_destroy(&joined);
            fvt_close(&d);
        }
}
END_TEST

/* x <- x + w x + b three times, whose residual is its operand as well; y = residual + w x + b, which lies over it.
 * apart: the products are asked for. */
static void build_residuals(fvt_device *d, bool apart, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, false);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, ROWS, IN)), w = fv_input(s, "w1", fv_shape(FV_F32, IN, IN)),
             b = fv_input(s, "b1", fv_shape(FV_F32, IN)), small = fv_scale(s, w, 0.2, 0);
    for (int k = 0; k < 6; k++) {
        const fv_value half = fv_scale(s, x, 0.5, 0), y = fv_linear(s, k < 3 ? x : half, small, b);
        fvt_name name;
        if (apart) fv_set_output(g, fvt_numbered(&name, "linear", k), y);
        x = k % 2 ? fv_add(s, x, y) : fv_add(s, y, x);
        if (k % 3 == 1) x = fv_reshape_to(s, fv_reshape_to(s, x, ROWS * IN), ROWS, IN);
    }
    fv_set_output(g, "y", x);
    fvt_compile(d, g, false, p);
    run_filled(p, 3);
}

START_TEST(residuals_are_sums) {
    fvt_device d;
    fvt_program apart, joined;
    if (!fvt_open(&d, "cpu", 2, isas[_i])) return;
    build_residuals(&d, true, &apart);
    build_residuals(&d, false, &joined);
    ck_assert_int_eq(count_nodes(&apart, FV_OP_ADD), 6);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_ADD), 0);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_ACT), 6);
    double *want = fvt_doubles(ROWS * IN), *got = fvt_doubles(ROWS * IN), most = 0;
    fvt_get(&apart, "y", want);
    fvt_get(&joined, "y", got);
    for (int i = 0; i < ROWS * IN; i++) most = fmax(most, fabs(want[i]));
    for (int i = 0; i < ROWS * IN; i++)
        ck_assert_msg(fabs(got[i] - want[i]) <= 64 * FVT_U * most, "%s: y[%d]: %.9g, not %.9g", isas[_i], i, got[i],
                      want[i]);
    fvt_free(want);
    fvt_free(got);
    fvt_destroy(&apart);
    fvt_destroy(&joined);
    fvt_close(&d);
}
END_TEST

/* Two blocks x <- x + w2 gelu(w1 norm(x) + b1) + b2 of the same weights, and gradients of x and all of these. */
enum { BLOCK_WRT = 7 };
static void build_blocks(fvt_device *d, fvt_program *p) {
    static const char *const wrt[BLOCK_WRT] = {"x", "w1", "b1", "w2", "b2", "gamma", "beta"};
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    const fv_type vector = fv_shape(FV_F32, IN);
    const fv_type shapes[BLOCK_WRT] = {fv_shape(FV_F32, 2, ROWS / 2, IN),
                                       fv_shape(FV_F32, HIDDEN, IN),
                                       fv_shape(FV_F32, HIDDEN),
                                       fv_shape(FV_F32, IN, HIDDEN),
                                       vector,
                                       vector,
                                       vector};
    fv_value in[BLOCK_WRT], grads[BLOCK_WRT];
    for (int k = 0; k < BLOCK_WRT; k++) in[k] = fv_input(s, wrt[k], shapes[k]);
    fv_value y = in[0];
    for (int block = 0; block < 2; block++) {
        const fv_value norm = fv_layer_norm(s, y, in[5], in[6], 1e-6), hidden = fv_linear(s, norm, in[1], in[2]);
        y = fv_add(s, y, fv_linear(s, fv_activation(s, hidden, FV_ACT_GELU, 0), in[3], in[4]));
    }
    const fv_value loss = fv_sum(s, fv_mul(s, y, fv_input(s, "weight", shapes[0])), 7, false);
    ck_assert_msg(fv_gradients(g, loss, BLOCK_WRT, in, grads) == FV_OK, "%s", d->ctx.error.message);
    fv_set_output(g, "y", y);
    for (int k = 0; k < BLOCK_WRT; k++) {
        fvt_name name;
        fv_set_output(g, fvt_numbered(&name, "grad", k), grads[k]);
    }
    fvt_compile(d, g, false, p);
    for (int k = 0; k <= BLOCK_WRT; k++) {
        const char *name = k < BLOCK_WRT ? wrt[k] : "weight";
        const int64_t n = fv_count(fvt_type(p, name));
        double *values = fvt_doubles(n);
        for (int64_t i = 0; i < n; i++) values[i] = 0.3 * fvt_normal(5, (uint64_t)i, (uint32_t)k);
        fvt_set(p, name, values);
        fvt_free(values);
    }
    ck_assert_int_eq(fvt_run(p), FV_OK);
}

static void expect_close(fvt_program *a, fvt_program *b, const char *name, double share) {
    const int64_t n = fv_count(fvt_type(a, name));
    double *want = fvt_doubles(n), *got = fvt_doubles(n), most = 0;
    fvt_get(a, name, want);
    fvt_get(b, name, got);
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(want[i]));
    for (int64_t i = 0; i < n; i++)
        ck_assert_msg(fabs(got[i] - want[i]) <= share * most, "%s[%lld]: %.9g, not %.9g", name, (long long)i, got[i],
                      want[i]);
    fvt_free(want);
    fvt_free(got);
}

/* What the rewrite makes of a whole block, gradients of shared weights included, is what the plain graph gives. */
START_TEST(blocks_are_plain) {
    fvt_device d, ref;
    fvt_program joined, plain;
    fvt_name name;
    if (!fvt_open(&d, "cpu", 2, isas[_i])) return;
    ck_assert(fvt_open(&ref, "ref", 1, NULL));
    build_blocks(&d, &joined);
    build_blocks(&ref, &plain);
    ck_assert_int_eq(count_nodes(&plain, FV_OP_ADD), 2 + 1 + 1 + 6); /* residuals, their gradients, shared weights */
    ck_assert_int_eq(count_nodes(&joined, FV_OP_ADD), 6);
    ck_assert_int_eq(count_nodes(&plain, FV_OP_SUM), 4);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_SUM), 0);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_LINEAR_BWD_PARAMS), 4);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_ACTIVATED_LINEAR), 2);
    expect_close(&plain, &joined, "y", 1e-6);
    for (int k = 0; k < BLOCK_WRT; k++) expect_close(&plain, &joined, fvt_numbered(&name, "grad", k), 1e-5);
    fvt_destroy(&joined);
    fvt_destroy(&plain);
    fvt_close(&d);
    fvt_close(&ref);
}
END_TEST

/* Only a bias's gradient is wanted: that of the weights is nobody's, and takes nothing over. */
START_TEST(a_bias_alone) {
    for (int k = 0; k < 4; k++) {
        fvt_device d;
        fvt_program p;
        double bias[OUT], sum[OUT] = {0};
        if (!fvt_open(&d, "cpu", 2, isas[k])) continue;
        fv_graph *g = fv_graph_new(&d.ctx, true);
        fv_scope s = fv_root(g);
        const fv_value w = fv_input(s, "w1", fv_shape(FV_F32, OUT, IN)), b = fv_input(s, "b1", fv_shape(FV_F32, OUT));
        const fv_value y = fv_linear(s, fv_input(s, "x", fv_shape(FV_F32, ROWS, IN)), w, b);
        const fv_value weight = fv_input(s, "weight", fv_typeof(g, y));
        fv_value grads[2];
        ck_assert_int_eq(fv_gradients(g, fv_sum(s, fv_mul(s, y, weight), 3, false), 2, (fv_value[]){w, b}, grads),
                         FV_OK);
        fv_set_output(g, "bias", grads[1]);
        fvt_compile(&d, g, false, &p);
        double *values = fvt_doubles(ROWS * OUT);
        for (int i = 0; i < ROWS * OUT; i++) sum[i % OUT] += values[i] = i % 7 - 3;
        fvt_set(&p, "weight", values);
        ck_assert_int_eq(fvt_run(&p), FV_OK);
        ck_assert_int_eq(count_nodes(&p, FV_OP_LINEAR_BWD_PARAMS), 0);
        fvt_get(&p, "bias", bias);
        for (int i = 0; i < OUT; i++) ck_assert_double_eq(bias[i], sum[i]);
        fvt_free(values);
        fvt_destroy(&p);
        fvt_close(&d);
    }
}
END_TEST

/* In the caches there is nothing to win. */
START_TEST(few_rows_stay_apart) {
    fvt_device d;
    fvt_program p;
    ck_assert(fvt_open(&d, "cpu", 1, NULL));
    build_mlp(&d, FV_ACT_GELU, 64, false, &p);
    ck_assert_int_eq(count_nodes(&p, FV_OP_ACTIVATION), 1);
    ck_assert_int_eq(count_nodes(&p, FV_OP_ACTIVATION_BWD), 1);
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- batch norm behind a convolution */

/* y = act(norm(conv(x)) + residual) by the kernel that `row` calls for; apart: the convolution's result is asked for.
 */
typedef struct conv_row {
    int64_t x[4], w[4];
    fv_conv2d_attr attr;
} conv_row;
static const conv_row conv_rows[] = {
    {{2, 24, 24, 8}, {70, 1, 1, 8}, {.groups = 1}},                          /* in place, units, chunks */
    {{2, 40, 40, 3}, {5, 3, 3, 3}, {.stride = {2, 2}, .pad = {1, 1, 1, 1}}}, /* bands */
    {{1, 40, 40, 3}, {5, 3, 3, 3}, {.pad = {1, 1, 1, 1}}},                   /* strips */
    {{2, 10, 10, 1300}, {20, 1, 1, 1300}, {.groups = 1}},                    /* blocks of the depth */
    {{1, 4, 4, 64}, {10, 3, 3, 64}, {.groups = 1}},                          /* few positions */
    {{3, 13, 11, 32}, {36, 3, 3, 32}, {.pad = {1, 1, 1, 1}}},                /* Winograd */
    {{2, 9, 9, 6}, {6, 3, 3, 1}, {.pad = {1, 1, 1, 1}, .groups = 6}},        /* depthwise */
    {{2, 12, 12, 6}, {34, 3, 3, 3}, {.pad = {1, 1, 1, 1}, .groups = 2}},     /* groups */
};
enum { CONV_ROWS = sizeof conv_rows / sizeof *conv_rows };

/* How a norm ends: in registers, in registers with a residual, in the cache. */
static const struct {
    fv_act_kind act;
    bool residual;
} endings[] = {{FV_ACT_NONE, false}, {FV_ACT_RELU, true}, {FV_ACT_SILU, true}};
enum { ENDINGS = sizeof endings / sizeof *endings };

static void build_conv(fvt_device *d, const conv_row *row, int ending, bool apart, fvt_program *p) {
    fv_graph *g = fv_graph_new(&d->ctx, false);
    fv_scope s = fv_root(g);
    const int64_t k = row->w[0];
    const fv_value x = fv_input(s, "x", fv_type_make(FV_F32, 4, row->x)),
                   w = fv_input(s, "w", fv_type_make(FV_F32, 4, row->w)), conv = fv_conv2d(s, x, w, FV_NONE, row->attr);
    fv_value norm[4];
    static const char *const inputs[] = {"mean", "var", "gamma", "beta", "x", "w", "residual"};
    for (int i = 0; i < 4; i++) norm[i] = fv_input(s, inputs[i], fv_shape(FV_F32, k));
    const fv_act_kind act = endings[ending].act;
    const bool residual = endings[ending].residual;
    fv_value y = fv_batch_norm_infer(s, conv, norm[0], norm[1], norm[2], norm[3], 1e-5);
    if (residual) y = fv_add(s, y, fv_input(s, "residual", fv_typeof(g, conv)));
    if (act != FV_ACT_NONE) y = fv_activation(s, y, act, 0);
    fv_set_output(g, "y", y);
    if (apart) fv_set_output(g, "conv", conv);
    ck_assert_int_eq(fv_graph_fuse(g), residual + (act != FV_ACT_NONE));
    fvt_compile(d, g, false, p);
    for (int i = 0; i < 6 + residual; i++) {
        const int64_t n = fv_count(fvt_type(p, inputs[i]));
        double *values = fvt_doubles(n);
        for (int64_t j = 0; j < n; j++) values[j] = i == 1 ? 0.5 : fvt_normal(5, (uint64_t)j, (uint32_t)i);
        fvt_set(p, inputs[i], values);
        fvt_free(values);
    }
    ck_assert_int_eq(fvt_run(p), FV_OK);
}

/* isa: NULL is the default. Returns whether it can be had. */
static bool check_normed(const conv_row *row, int ending, const char *isa) {
    fvt_device d;
    fvt_program apart, joined;
    if (!fvt_open(&d, "cpu", 2, isa)) return false;
    build_conv(&d, row, ending, true, &apart);
    build_conv(&d, row, ending, false, &joined);
    ck_assert_int_eq(count_nodes(&apart, FV_OP_CONV2D), 1);
    ck_assert_int_eq(count_nodes(&apart, FV_OP_BATCH_NORM_INFER), 1);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_CONV2D), 0);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_BATCH_NORM_INFER), 0);
    ck_assert_int_eq(count_nodes(&joined, FV_OP_NORMED_CONV2D), 1);
    expect_same_bits(&apart, &joined, "y", isa ? isa : "the default");
    fvt_destroy(&apart);
    fvt_destroy(&joined);
    fvt_close(&d);
    return true;
}

START_TEST(normed_convolution_is_plain) {
    for (int k = 0; k < 4; k++)
        for (int ending = 0; ending < ENDINGS; ending++)
            if (!check_normed(&conv_rows[_i], ending, isas[k])) break;
}
END_TEST

/* 25 MB of results are written past the caches. */
START_TEST(large_normed_convolution_is_plain) {
    const conv_row row = {{1, 181, 181, 3}, {192, 1, 1, 3}, {.groups = 1}};
    ck_assert(check_normed(&row, 1, NULL));
}
END_TEST

Suite *fuse_suite(void) {
    Suite *suite = suite_create("fuse");
    TCase *tc = tcase_create("activations");
    tcase_set_timeout(tc, 60);
    tcase_add_loop_test(tc, fused_activation_is_plain, 0, KINDS);
    tcase_add_loop_test(tc, fused_activation_without, 0, KINDS);
    tcase_add_test(tc, other_activations_stay);
    tcase_add_loop_test(tc, activated_linear_is_plain, 0, KINDS);
    tcase_add_loop_test(tc, linear_act_is_plain, 0, KINDS);
    tcase_add_loop_test(tc, residuals_are_sums, 0, 4);
    tcase_add_loop_test(tc, blocks_are_plain, 0, 4);
    tcase_add_test(tc, a_bias_alone);
    tcase_add_test(tc, few_rows_stay_apart);
    tcase_add_loop_test(tc, normed_convolution_is_plain, 0, CONV_ROWS);
    tcase_add_test(tc, large_normed_convolution_is_plain);
    suite_add_tcase(suite, tc);
    return suite;
}
