/* test_ops.c: what every operation promises on every backend, from the rows of op_table.c:
 *
 *   agreement   in float32 = ref in float64 on the same numbers, within a bound that fits the operation
 *   same bits   with 1, 2 and 4 threads, and when run again
 *
 * (gradients: test_gradients.c), and single promises of the losses and of dropout. */
#include "tests/op_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- agreement with the reference */

typedef enum bound_kind {
    BOUND_EXACT,  /* the float nearest to the reference */
    BOUND_SUM,    /* |error| <= tolerance * u * what ref gives for absolute values: for sums of products */
    BOUND_SCALED, /* |error| <= tolerance * u * (|reference| + mean of |reference| over the tensor) */
} bound_kind;
typedef struct bound {
    bound_kind kind;
    double tolerance;
} bound;

static bound bound_of(fv_op op, int result) {
    switch (op) {
    case FV_OP_BATCH_NORM:
    case FV_OP_LAYER_NORM:
    case FV_OP_GROUP_NORM: /* result 1 is a mean: near 0, of numbers that are not */
        return result == 1 ? (bound){BOUND_SUM, 8} : (bound){BOUND_SCALED, 16};
    case FV_OP_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_CONV2D_BWD_WEIGHT:
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_MATMUL:
    case FV_OP_SUM:
    case FV_OP_MEAN:
    case FV_OP_AVG_POOL2D:
    case FV_OP_AVG_POOL2D_BWD:
    case FV_OP_MAX_POOL2D_BWD: return (bound){BOUND_SUM, 8};
    case FV_OP_RESIZE: /* places are rounded, too: 8.4 u on generic, which has no FMA */
    case FV_OP_RESIZE_BWD:
    case FV_OP_LINEAR_ACT:
    case FV_OP_ACTIVATED_LINEAR: /* 8 u of the activation, 8 of the sum */
    case FV_OP_ACTIVATED_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_PARAMS: return (bound){BOUND_SUM, 16};
    case FV_OP_DROPOUT:
    case FV_OP_DROP_PATH:
    case FV_OP_ADD:
    case FV_OP_MUL:
    case FV_OP_ACCUMULATE: return (bound){BOUND_SUM, 2};
    case FV_OP_MAX_POOL2D:
    case FV_OP_BROADCAST:
    case FV_OP_RESHAPE:
    case FV_OP_TRANSPOSE:
    case FV_OP_CONCAT:
    case FV_OP_SLICE:
    case FV_OP_SLICE_BWD:
    case FV_OP_PAD:
    case FV_OP_CAST:
    case FV_OP_TOPK_CORRECT:
    case FV_OP_GATHER:
    case FV_OP_ASSIGN:
    case FV_OP_FILL:
    case FV_OP_INCREMENT: return (bound){BOUND_EXACT, 0};
    case FV_OP_SUB:
    case FV_OP_SCALE:
    case FV_OP_LERP_ASSIGN:
    case FV_OP_EMA_UPDATE: return (bound){BOUND_SCALED, 4};
    case FV_OP_NORMED_CONV2D: return (bound){BOUND_SCALED, 320}; /* Winograd's: 239 u on generic */
    case FV_OP_ATTENTION: return (bound){BOUND_SCALED, 64};
    case FV_OP_ATTENTION_BWD: return (bound){BOUND_SCALED, 128};
    case FV_OP_ACTIVATION:
    case FV_OP_AUGMENT:
    case FV_OP_GRAD_STATS:
    case FV_OP_LOOKAHEAD_UPDATE: /* 4.3 u on generic, which has no FMA */
    case FV_OP_SGD_UPDATE:
    case FV_OP_ADAM_UPDATE: return (bound){BOUND_SCALED, 8};
    default: return (bound){BOUND_SCALED, 16}; /* gradients of norms, softmax, losses, slopes of activations */
    }
}

/* The same for a backend; dtype: of the data. */
static bound bound_on(const char *backend, fv_dtype dtype, fv_op op, int result) {
    bound b = bound_of(op, result);
    if (strcmp(backend, "cuda") != 0) return b;
    if (op == FV_OP_BATCH_NORM_BWD) b.tolerance = 20; /* three sums cancel: 19 u */
    if (dtype != FV_F32 && (op == FV_OP_ATTENTION || op == FV_OP_ATTENTION_BWD))
        b.tolerance *= dtype == FV_BF16 ? 2 : 6.5; /* it takes scores with 16 bits: 97 u; in f16 384 u */
    return b;
}

/* Results on absolute values: the size of the terms that a sum is made of. */
static void run_magnitudes(const op_case *c, op_results *r) {
    op_case absolute = *c;
    for (int k = 0; k < c->n; k++) {
        if (!c->in[k]) continue;
        const int64_t count = fv_count(c->row->in[k].type);
        absolute.in[k] = fvt_doubles(count);
        for (int64_t i = 0; i < count; i++) absolute.in[k][i] = fabs(c->in[k][i]);
    }
    op_case_reference(&absolute, r);
    op_case_free(&absolute);
}

static double rounded_to(fv_dtype dtype, double w) {
    return fv_is_low(dtype)  ? (double)fv_low_value(dtype, fv_low_round_double(dtype, w))
           : dtype == FV_F32 ? (float)w
                             : w;
}

/* How far tensor t is off, in units of what is allowed (1: at the limit). NaN and infinities must match. With
 * `libraries` the case ran in bf16 or f16 on a device that has them. */
static double excess(bound b, const op_results *got, const op_results *want, const op_results *magnitude, int t,
                     const op_case *libraries) {
    const int64_t count = fv_count(want->type[t]);
    double mean = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) mean += fabs(want->data[t][i]) / (double)count;
    for (int64_t i = 0; i < count; i++) {
        const double g = got->data[t][i], w = want->data[t][i];
        const fv_dtype dtype = got->type[t].dtype;
        if (b.kind == BOUND_EXACT || !isfinite(w) || (!fv_is_low(dtype) && dtype != FV_F32)) {
            const double rounded = rounded_to(dtype, w);
            if (!(g == rounded || (isnan(g) && isnan(rounded)))) return INFINITY;
            continue;
        }
        const double scale = b.kind == BOUND_SUM ? magnitude->data[t][i] : fabs(w) + mean;
        const double once = op_one_rounding(dtype, w) + (libraries ? op_rounded_besides(libraries, want, t, i) : 0);
        const double error = fabs(g - w), allowed = b.tolerance * FVT_U * scale + once + 1e-37;
        worst = error / allowed <= worst ? worst : error / allowed;
    }
    return worst;
}

static void compare(const op_case *c, const op_results *got, const op_results *want, const op_results *magnitude,
                    const char *where) {
    ck_assert_int_eq(got->n, want->n);
    for (int t = 0; t < want->n; t++) {
        const double off = excess(bound_on(where, FV_F32, c->row->op, t), got, want, magnitude, t, NULL);
        ck_assert_msg(off <= 1, "%s '%s' on %s: result %d is off by %.3g times the bound", fv_op_get(c->row->op)->name,
                      c->row->note, where, t, off);
    }
}

typedef struct variant {
    const char *name, *backend, *isa;
} variant;
static const variant variants[] = {
    {"ref in float32", "ref", NULL}, {"cpu generic", "cpu", "generic"}, {"cpu avx2", "cpu", "avx2"},
    {"cpu avx512", "cpu", "avx512"}, {"cpu wide", "cpu", "wide"},       {"cpu avx512_bf16", "cpu", "avx512_bf16"},
    {"cuda", "cuda", NULL},
};
#define N_VARIANTS (sizeof variants / sizeof *variants)

/* Not for an operation that the CPU's rewrite makes for itself, on another device. FOVEA_TEST_BACKEND: only that one.
 */
static bool open_variant(fvt_device *d, const variant *v, fv_op op, int threads) {
    const bool own = op == FV_OP_ACTIVATED_LINEAR || op == FV_OP_ACTIVATED_LINEAR_BWD_DATA ||
                     op == FV_OP_LINEAR_BWD_PARAMS || op == FV_OP_NORMED_CONV2D || op == FV_OP_LINEAR_ACT;
    const char *only = getenv("FOVEA_TEST_BACKEND");
    if (own && strcmp(v->backend, "cuda") == 0) return false;
    if (only && strcmp(v->backend, only) != 0) return false;
    return fvt_open_with(d, v->backend, &(fv_device_opts){.threads = threads, .isa = v->isa});
}

START_TEST(test_agreement) {
    op_case c;
    op_results want, magnitude, got;
    op_case_make(&op_rows[_i], &c);
    op_case_reference(&c, &want);
    run_magnitudes(&c, &magnitude);
    for (size_t v = 0; v < N_VARIANTS; v++) {
        fvt_device d;
        if (!open_variant(&d, &variants[v], c.row->op, 2)) continue;
        op_case_run(&d, &c, false, &got);
        compare(&c, &got, &want, &magnitude, variants[v].name);
        op_results_free(&got);
        fvt_close(&d);
    }
    op_results_free(&want);
    op_results_free(&magnitude);
    op_case_free(&c);
}
END_TEST

/* ---------------------------------------------------------------- bf16 and f16
 * The same rows on numbers rounded to such a type, data as that and parameters as float32: what is computed is as exact
 * as in float32, and rounded once. On ref: the number nearest to what float64 gives. */

static const fv_dtype lows[] = {FV_BF16, FV_F16};
enum { LOWS = sizeof lows / sizeof *lows };

START_TEST(test_agreement_low) {
    const fv_dtype dtype = lows[_i % LOWS];
    const op_row *wide = &op_rows[_i / LOWS];
    op_case c, low;
    op_row row;
    op_results want, magnitude, got;
    if (fv_op_precision(wide->op) == FV_PRECISION_FULL) return;
    op_case_make(wide, &c);
    low = op_case_lower(&c, dtype, &row);
    op_case_reference(&c, &want);
    run_magnitudes(&c, &magnitude);
    for (size_t v = 0; v < N_VARIANTS; v++) {
        fvt_device d;
        if (!open_variant(&d, &variants[v], c.row->op, 2)) continue;
        op_case_run(&d, &low, false, &got);
        const bool libraries = op_uses_libraries(&d);
        for (int t = 0; v == 0 && t < want.n; t++) /* ref */
            for (int64_t i = 0; i < fv_count(want.type[t]); i++) {
                const double w = want.data[t][i], nearest = rounded_to(got.type[t].dtype, w);
                ck_assert_msg(got.data[t][i] == nearest, "%s '%s' on ref: %g is not %g rounded",
                              fv_op_get(row.op)->name, row.note, got.data[t][i], w);
            }
        for (int t = 0; t < want.n; t++) {
            const bound b = bound_on(variants[v].backend, dtype, row.op, t);
            const double off = excess(b, &got, &want, &magnitude, t, libraries ? &low : NULL);
            ck_assert_msg(off <= 1, "%s '%s' in %s on %s: result %d is off by %.3g times the bound",
                          fv_op_get(row.op)->name, row.note, fv_dtype_name(dtype), variants[v].name, t, off);
        }
        op_results_free(&got);
        fvt_close(&d);
    }
    op_results_free(&want);
    op_results_free(&magnitude);
    op_case_free(&c);
}
END_TEST

/* ---------------------------------------------------------------- same bits */

static void compare_bits(const op_case *c, const op_results *a, const op_results *b, const char *where,
                         const char *when) {
    ck_assert_int_eq(a->n, b->n);
    for (int t = 0; t < a->n; t++)
        ck_assert_msg(!memcmp(a->data[t], b->data[t], (size_t)fv_count(a->type[t]) * sizeof(double)),
                      "%s '%s' on %s: result %d has other bits %s", fv_op_get(c->row->op)->name, c->row->note, where, t,
                      when);
}

/* dtype: of the data. */
static void check_same_bits(int index, fv_dtype dtype) {
    op_case c;
    op_row row;
    op_results first, other;
    op_case_make(&op_rows[index], &c);
    if (dtype != FV_F32) c = op_case_lower(&c, dtype, &row);
    for (size_t v = 0; v < N_VARIANTS; v++)
        for (int threads = 1; threads <= 4; threads *= 2) {
            fvt_device d;
            fvt_program p;
            if (!open_variant(&d, &variants[v], c.row->op, threads)) continue;
            op_case_compile(&d, &c, false, &p);
            op_case_run_on(&p, &c, threads == 1 ? &first : &other);
            if (threads > 1) {
                compare_bits(&c, &first, &other, variants[v].name, "with more threads");
                op_results_free(&other);
            }
            op_case_run_on(&p, &c, &other);
            compare_bits(&c, &first, &other, variants[v].name, "in the second run");
            op_results_free(&other);
            if (threads == 4) op_results_free(&first);
            fvt_destroy(&p);
            fvt_close(&d);
        }
    op_case_free(&c);
}

START_TEST(test_same_bits) {
    check_same_bits(_i, FV_F32);
}
END_TEST

START_TEST(test_same_bits_low) {
    if (fv_op_precision(op_rows[_i / LOWS].op) != FV_PRECISION_FULL) check_same_bits(_i / LOWS, lows[_i % LOWS]);
}
END_TEST

/* ---------------------------------------------------------------- single promises */

START_TEST(test_every_op_has_a_row) {
    bool seen[FV_OP_COUNT] = {false};
    for (int i = 0; i < op_row_count; i++) seen[op_rows[i].op] = true;
    for (int op = 0; op < FV_OP_COUNT; op++)
        ck_assert_msg(seen[op], "tests/op_table.c has no row for %s", fv_op_get((fv_op)op)->name);
}
END_TEST

/* logits [3,4], labels, row weights -> loss, d loss / d logits, on one backend. */
typedef struct loss_run {
    fv_status status;
    double loss, grad[12];
    char message[768];
} loss_run;

static loss_run run_loss(const char *backend, bool f64, const double *logits, const double *labels,
                         const double *weights) {
    fvt_device d;
    fvt_program p;
    loss_run r = {0};
    fv_value grad;
    fvt_open(&d, backend, 2, NULL);
    fv_graph *g = fv_graph_new(&d.ctx, true);
    ck_assert_ptr_nonnull(g);
    const fv_scope s = fv_in(fv_root(g), "head");
    const fv_value x = fv_input(s, "logits", fv_shape(FV_F32, 3, 4)), y = fv_input(s, "labels", fv_shape(FV_I32, 3));
    const fv_value loss = fv_softmax_cross_entropy(s, x, y, fv_input(s, "weights", fv_shape(FV_F32, 3)), FV_NONE,
                                                   (fv_loss_attr){.label_smoothing = 0.1});
    fv_set_output(g, "loss", loss);
    ck_assert_int_eq(fv_gradients(g, loss, 1, &x, &grad), FV_OK);
    fv_set_output(g, "grad", grad);
    fvt_compile(&d, g, f64, &p);
    fvt_set(&p, "logits", logits);
    fvt_set(&p, "labels", labels);
    fvt_set(&p, "weights", weights);
    r.status = fvt_run(&p);
    snprintf(r.message, sizeof r.message, "%s", d.ctx.error.message);
    fvt_get(&p, "loss", &r.loss);
    fvt_get(&p, "grad", r.grad);
    fvt_destroy(&p);
    fvt_close(&d);
    return r;
}

static const struct {
    const char *name;
    bool f64;
} loss_backends[] = {{"ref", false}, {"ref", true}, {"cpu", false}};
static const double logits[12] = {0.5, -1, 2, 0.25, 1, 1, -3, 0, 4, 0, 0.5, -2};

START_TEST(test_label_out_of_range) {
    for (int bad = 0; bad < 2; bad++) {
        const loss_run r = run_loss(loss_backends[_i].name, loss_backends[_i].f64, logits,
                                    bad ? (double[]){1, 3, 4} : (double[]){1, 3, -7}, (double[]){1, 1, 1});
        ck_assert_int_eq(r.status, FV_E_DATA);
        ck_assert_msg(strstr(r.message, "row 2") && strstr(r.message, bad ? "label 4" : "label -7"), "%s", r.message);
    }
}
END_TEST

/* A padded row may hold anything. */
START_TEST(test_row_of_no_weight) {
    double dirty[12];
    memcpy(dirty, logits, sizeof dirty);
    for (int i = 8; i < 12; i++) dirty[i] = i % 2 ? NAN : INFINITY;
    const loss_run clean =
        run_loss(loss_backends[_i].name, loss_backends[_i].f64, logits, (double[]){1, 3, 0}, (double[]){1, 1, 0});
    const loss_run padded =
        run_loss(loss_backends[_i].name, loss_backends[_i].f64, dirty, (double[]){1, 3, 99}, (double[]){1, 1, 0});
    ck_assert_int_eq(padded.status, FV_OK);
    ck_assert(isfinite(clean.loss) && clean.loss > 0);
    ck_assert(padded.loss == clean.loss);
    for (int i = 0; i < 12; i++) ck_assert(padded.grad[i] == clean.grad[i]);
    for (int i = 8; i < 12; i++) ck_assert(padded.grad[i] == 0);
}
END_TEST

START_TEST(test_no_weight_at_all) {
    const loss_run r =
        run_loss(loss_backends[_i].name, loss_backends[_i].f64, logits, (double[]){1, 3, 99}, (double[]){0, 0, 0});
    ck_assert_int_eq(r.status, FV_OK);
    ck_assert(r.loss == 0);
    for (int i = 0; i < 12; i++) ck_assert(r.grad[i] == 0);
}
END_TEST

/* Draws belong to the row's key: rows in another order keep their own masks; and p of the elements are dropped. */
START_TEST(test_dropout_draws) {
    enum { ROWS = 64, WIDTH = 255 };
    op_row row = {.op = FV_OP_DROPOUT, .note = "draws", .attr = {.dropout = {0.25}}};
    row.in[0] = (op_operand){.fill = FILL_NORMAL, .type = fv_shape(FV_F32, ROWS, WIDTH)};
    row.in[1] = (op_operand){.fill = FILL_KEY, .type = fv_shape(FV_I64, ROWS)};
    op_case c;
    op_results forward, reversed;
    fvt_device d;
    op_case_make(&row, &c);
    ck_assert(fvt_open(&d, _i ? "cpu" : "ref", 2, NULL));
    for (int64_t i = 0; i < ROWS * WIDTH; i++) c.in[0][i] = 1;
    op_case_run(&d, &c, false, &forward);
    for (int r = 0; r < ROWS / 2; r++) {
        const double swap = c.in[1][r];
        c.in[1][r] = c.in[1][ROWS - 1 - r];
        c.in[1][ROWS - 1 - r] = swap;
    }
    op_case_run(&d, &c, false, &reversed);
    double kept = 0;
    for (int r = 0; r < ROWS; r++)
        for (int e = 0; e < WIDTH; e++) {
            kept += forward.data[0][r * WIDTH + e] != 0;
            ck_assert(forward.data[0][r * WIDTH + e] == reversed.data[0][(ROWS - 1 - r) * WIDTH + e]);
        }
    const double n = ROWS * WIDTH, deviation = sqrt(n * 0.25 * 0.75);
    ck_assert_msg(fabs(kept - 0.75 * n) <= 4 * deviation, "%g of %g elements kept", kept, n);
    op_results_free(&forward);
    op_results_free(&reversed);
    op_case_free(&c);
    fvt_close(&d);
}
END_TEST

/* Roundings that GELU(x) may be off by, of its own size: it keeps some accuracy far below 0, where 1 + erf would have
 * lost all. The pieces of AVX-512 (core/cpu/kernels/act.h) have less there, and end in 0. */
static double gelu_bound(const variant *v, double x) {
    return v->isa && strncmp(v->isa, "avx512", 6) == 0 && x <= -3 ? 600 : 8;
}
static bool gelu_ends(const variant *v, double x) {
    return v->isa && strncmp(v->isa, "avx512", 6) == 0 && x <= (double)-5.9f;
}

/* And it is x or 0 far away. */
START_TEST(test_gelu_tails) {
    enum { COUNT = 4097 };
    op_row row = {.op = FV_OP_ACTIVATION, .note = "tails", .attr = {.activation = {FV_ACT_GELU, 0}}};
    row.in[0] = (op_operand){.fill = FILL_NORMAL, .type = fv_shape(FV_F32, COUNT)};
    op_case c;
    op_case_make(&row, &c);
    for (int i = 0; i < COUNT; i++) c.in[0][i] = (float)((i - COUNT / 2) * (12.5 / (COUNT / 2)));
    c.in[0][0] = -1e30;
    c.in[0][1] = 1e30;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        fvt_device d;
        op_results got;
        if (strcmp(variants[v].backend, "cpu") != 0 || !open_variant(&d, &variants[v], c.row->op, 2)) continue;
        op_case_run(&d, &c, false, &got);
        ck_assert(got.data[0][0] == 0 && got.data[0][1] == (float)1e30);
        for (int i = 2; i < COUNT; i++) {
            const double x = c.in[0][i], want = gelu_ends(&variants[v], x) ? 0 : 0.5 * x * erfc(-x / sqrt(2)),
                         off = fabs(got.data[0][i] - want);
            ck_assert_msg(off <= gelu_bound(&variants[v], x) * ldexp(1, -24) * fabs(want),
                          "gelu(%g) on %s is off by %g u", x, variants[v].name,
                          ldexp(off / fabs(want + (want == 0)), 24));
        }
        op_results_free(&got);
        fvt_close(&d);
    }
    op_case_free(&c);
}
END_TEST

/* Its slope, piece by piece; far away 0 or 1. */
START_TEST(test_gelu_slopes) {
    enum { COUNT = 20001 };
    op_row row = {.op = FV_OP_ACTIVATION_BWD, .note = "slopes", .attr = {.activation = {FV_ACT_GELU, 0}}};
    for (int k = 0; k < 2; k++) row.in[k] = (op_operand){.fill = FILL_NORMAL, .type = fv_shape(FV_F32, COUNT)};
    op_case c;
    op_case_make(&row, &c);
    for (int i = 0; i < COUNT; i++) c.in[0][i] = 1, c.in[1][i] = (float)((i - COUNT / 2) * (7.0 / (COUNT / 2)));
    c.in[1][0] = -1e30;
    c.in[1][1] = 1e30;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        fvt_device d;
        op_results got;
        if (strcmp(variants[v].backend, "cpu") != 0 || !open_variant(&d, &variants[v], c.row->op, 2)) continue;
        op_case_run(&d, &c, false, &got);
        for (int i = 0; i < COUNT; i++) {
            const double x = c.in[1][i], density = exp(-x * x / 2) / sqrt(2 * acos(-1.0)),
                         want = 0.5 * erfc(-x / sqrt(2)) + x * density, off = fabs(got.data[0][i] - want);
            ck_assert_msg(off <= ldexp(4, -24), "gelu'(%g) on %s is off by %g u", x, variants[v].name, ldexp(off, 24));
        }
        op_results_free(&got);
        fvt_close(&d);
    }
    op_case_free(&c);
}
END_TEST

Suite *ops_suite(void);

Suite *ops_suite(void) {
    Suite *suite = suite_create("ops");
    TCase *promises = tcase_create("promises"), *agreement = tcase_create("agreement"), *bits = tcase_create("bits");
    tcase_add_test(promises, test_every_op_has_a_row);
    tcase_add_loop_test(promises, test_label_out_of_range, 0, 3);
    tcase_add_loop_test(promises, test_row_of_no_weight, 0, 3);
    tcase_add_loop_test(promises, test_no_weight_at_all, 0, 3);
    tcase_add_loop_test(promises, test_dropout_draws, 0, 2);
    tcase_add_test(promises, test_gelu_tails);
    tcase_add_test(promises, test_gelu_slopes);
    tcase_add_loop_test(agreement, test_agreement, 0, op_row_count);
    tcase_add_loop_test(agreement, test_agreement_low, 0, op_row_count * LOWS);
    tcase_add_loop_test(bits, test_same_bits, 0, op_row_count);
    tcase_add_loop_test(bits, test_same_bits_low, 0, op_row_count * LOWS);
    tcase_set_timeout(agreement, 120);
    tcase_set_timeout(bits, 120);
    suite_add_tcase(suite, promises);
    suite_add_tcase(suite, agreement);
    suite_add_tcase(suite, bits);
    return suite;
}
