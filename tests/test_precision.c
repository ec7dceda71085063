/* test_precision.c: bf16 and f16: their rounding, the pass that makes a graph compute with them, and that models learn
 * so. */
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *precision_suite(void);

/* ---------------------------------------------------------------- rounding */

static float float_of(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* What the bits of a half mean, by their definition; NaN and infinities as such. */
static double meaning(fv_dtype low, uint32_t half) {
    const int bits = low == FV_F16 ? 10 : 7, bias = low == FV_F16 ? 15 : 127; /* of the fraction; of the exponent */
    const int exponent = (int)(half & 0x7fff) >> bits, fraction = (int)half & ((1 << bits) - 1);
    double x;
    if (exponent == 2 * bias + 1) x = fraction ? (double)NAN : (double)INFINITY;
    else if (exponent == 0) x = ldexp(fraction, 1 - bias - bits);
    else x = ldexp(fraction + (1 << bits), exponent - bias - bits);
    return half & 0x8000 ? -x : x;
}
/* The middle between a half that is finite and the next one away from zero. */
static double middle_of(fv_dtype low, uint32_t half) {
    const double x = meaning(low, half), next = meaning(low, half + 1), last = meaning(low, half - 1);
    return isinf(next) ? x + (x - last) / 2 : (x + next) / 2;
}

static const fv_dtype lows[] = {FV_BF16, FV_F16};
enum { LOWS = sizeof lows / sizeof *lows };

static uint16_t round_float(fv_dtype low, float x) {
    return low == FV_F16 ? fv_f16_round(x) : fv_bf16_round(x);
}

/* All 65536 halves, and what lies below, at and above the middle between each and the next. */
START_TEST(rounding) {
    const fv_dtype low = lows[_i];
    for (uint32_t half = 0; half < 65536; half++) {
        const double x = meaning(low, half), value = (double)fv_low_value(low, (uint16_t)half);
        if (isnan(x)) {
            ck_assert(isnan(value) && isnan(fv_low_value(low, round_float(low, (float)value))));
            ck_assert(isnan(fv_low_value(low, fv_low_round_double(low, value))));
            continue;
        }
        ck_assert_msg(value == x && !signbit(value) == !signbit(x), "%s %x: %g, not %g", fv_dtype_name(low), half,
                      value, x);
        ck_assert_uint_eq(round_float(low, (float)x), half);
        ck_assert_uint_eq(fv_low_round_double(low, x), half);
        if (isinf(x)) continue;
        const uint32_t even = half & 1 ? half + 1 : half;
        const double middle = middle_of(low, half), away = copysign(INFINITY, middle);
        ck_assert_uint_eq(round_float(low, (float)middle), even); /* it is a float */
        ck_assert_uint_eq(round_float(low, nextafterf((float)middle, 0)), half);
        ck_assert_uint_eq(round_float(low, nextafterf((float)middle, (float)away)), half + 1);
        ck_assert_uint_eq(fv_low_round_double(low, middle), even);
        ck_assert_uint_eq(fv_low_round_double(low, nextafter(middle, 0)), half); /* nearer than a float can be */
        ck_assert_uint_eq(fv_low_round_double(low, nextafter(middle, away)), half + 1);
    }
    for (uint32_t nan = 0x7f800001; nan < 0x7fffffff; nan += 0x1fff) /* must not become infinity */
        ck_assert(isnan(fv_low_value(low, round_float(low, float_of(nan)))));
    ck_assert(isinf(fv_low_value(low, fv_low_round_double(low, 1e300))));
    ck_assert_uint_eq(fv_low_round_double(low, -1e-300), 0x8000);
}
END_TEST

/* Numbers whose rounding to a type is easily wrong: at, below and above the middle between each half and the next. */
static int hard_numbers(fv_dtype low, double *x) {
    int n = 0;
    for (uint32_t half = 0; half < 65536; half++) {
        x[n++] = meaning(low, half);
        if (!isfinite(x[n - 1])) continue;
        const float middle = (float)middle_of(low, half);
        x[n++] = (double)middle;
        x[n++] = (double)nextafterf(middle, 0);
        x[n++] = (double)nextafterf(middle, copysignf(INFINITY, middle));
    }
    return n;
}

/* Kernels round and widen as the scalar functions do: through a cast there and back. */
START_TEST(rounding_of_devices) {
    static const struct {
        const char *backend, *isa;
    } devices[] = {{"ref", NULL},   {"cpu", "generic"}, {"cpu", "avx2"},
                   {"cpu", "wide"}, {"cpu", "avx512"},  {"cuda", NULL}};
    const fv_dtype low = lows[_i];
    double *x = fvt_doubles(4 * 65536), *y = fvt_doubles(4 * 65536);
    const int n = hard_numbers(low, x);
    for (size_t k = 0; k < sizeof devices / sizeof *devices; k++) {
        fvt_device d;
        fvt_program p;
        if (!fvt_open(&d, devices[k].backend, 2, devices[k].isa)) continue;
        fv_graph *g = fv_graph_new(&d.ctx, false);
        const fv_scope s = fv_root(g);
        const fv_value in = fv_input(s, "x", fv_shape(FV_F32, n));
        fv_set_output(g, "y", fv_cast(s, fv_cast(s, in, low), FV_F32));
        fvt_compile(&d, g, false, &p);
        fvt_set(&p, "x", x);
        ck_assert_int_eq(fvt_run(&p), FV_OK);
        fvt_get(&p, "y", y);
        for (int i = 0; i < n; i++) {
            const double want = (double)fv_low_value(low, round_float(low, (float)x[i]));
            ck_assert_msg((y[i] == want && !signbit(y[i]) == !signbit(want)) || (isnan(y[i]) && isnan(want)),
                          "%s: %g became %g, not %g", d.dev->text, x[i], y[i], want);
        }
        fvt_destroy(&p);
        fvt_close(&d);
    }
    fvt_free(x);
    fvt_free(y);
}
END_TEST

/* ---------------------------------------------------------------- the pass */

/* A model with its loss; training: with backward pass and update. */
static fv_graph *build(fv_ctx *ctx, const char *name, bool training, int64_t batch, int64_t size) {
    const fv_model_entry *entry = fv_model_find(name);
    fv_graph *g = fv_graph_new(ctx, training);
    const fv_scope s = fv_root(g);
    const int64_t side = size ? size : entry->img_size, classes = 10;
    const fv_value x = fv_input(s, "image", fv_shape(FV_F32, batch, side, side, entry->in_chans));
    const fv_value logits = fv_model_build(g, name, x, &(fv_model_cfg){.num_classes = classes, .drop_path = 0.1});
    const fv_value loss =
        fv_softmax_cross_entropy(fv_in(s, "loss"), logits, fv_input(s, "labels", fv_shape(FV_I32, batch)), FV_NONE,
                                 FV_NONE, (fv_loss_attr){.label_smoothing = 0.1});
    fv_set_output(g, "loss", loss);
    fv_set_output(g, "logits", logits);
    fv_graph_fuse(g);
    const fv_optim_cfg optim = {.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true, .loss_scaling = true};
    if (training) ck_assert_msg(fv_optim_build(g, loss, &optim) == FV_OK, "%s: %s", name, ctx->error.message);
    return g;
}

static fv_dtype type_of(const fv_graph *g, fv_value v) {
    return fv_typeof(g, v).dtype;
}

/* What holds for every node of a mixed graph. */
static void check_node(const fv_graph *g, fv_dtype low, const char *model, const fv_node *n, int *casts_of) {
    const fv_value *in = g->operands + n->first_operand, out = {n->first_result};
    const char *op = fv_op_get(n->op)->name;
    if (n->op == FV_OP_CAST) {
        const fv_val *x = &g->values[in[0].id];
        const bool chain = x->kind == FV_VAL_RESULT && g->nodes[x->node].op == FV_OP_CAST;
        ck_assert_msg(!chain, "%s: a cast of a cast", model);
        ck_assert_msg(++casts_of[in[0].id] == 1, "%s: value %d is cast twice", model, in[0].id);
        ck_assert(type_of(g, in[0]) != type_of(g, out));
    }
    for (int j = 0; j < n->operands; j++)
        if (fv_op_mutates_operand(n, j)) ck_assert_int_ne(type_of(g, in[j]), low);
    switch (n->op) {
    case FV_OP_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_ATTENTION:
        ck_assert_msg(type_of(g, in[0]) == low && type_of(g, out) == low, "%s: %s in %s", model, op, n->scope);
        break;
    case FV_OP_CONV2D_BWD_WEIGHT:
    case FV_OP_LINEAR_BWD_WEIGHT: ck_assert_int_eq(type_of(g, out), FV_F32); break;
    case FV_OP_BATCH_NORM:
    case FV_OP_LAYER_NORM:
        if (fv_typeof(g, in[0]).rank == 2) break; /* of means, which are float32 */
        ck_assert_msg(type_of(g, in[0]) == low && type_of(g, out) == low, "%s: %s in %s", model, op, n->scope);
        ck_assert(type_of(g, in[1]) == FV_F32 && type_of(g, fv_result(out, 1)) == FV_F32);
        break;
    case FV_OP_SOFTMAX_CROSS_ENTROPY: /* the logits come from a float32 product, not from a cast */
        ck_assert_int_eq(type_of(g, in[0]), FV_F32);
        ck_assert_msg(g->nodes[g->values[in[0].id].node].op != FV_OP_CAST, "%s: logits are rounded", model);
        break;
    default: break;
    }
}

START_TEST(pass_over_models) {
    const char *model = fv_model_at(_i)->name;
    const fv_dtype low = lows[_i % LOWS];
    for (int training = 0; training < 2; training++) {
        fv_ctx ctx;
        fv_ctx_init(&ctx);
        fv_graph *g = build(&ctx, model, training, 4096, 0);
        const int32_t nodes = g->n_nodes;
        double before = 0, after = 0;
        for (int32_t k = 0; k < g->n_nodes; k++) before += fv_node_bytes(g, &g->nodes[k]);
        fv_graph_mix_precision(g, low);
        ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s: %s", model, ctx.error.message);
        int *casts_of = fvt_alloc(g->n_values, sizeof *casts_of), lowered = 0;
        for (int32_t k = 0; k < g->n_nodes; k++) {
            const fv_node *n = &g->nodes[k];
            check_node(g, low, model, n, casts_of);
            after += fv_node_bytes(g, n);
            lowered += n->op != FV_OP_CAST && n->results && type_of(g, (fv_value){n->first_result}) == low;
        }
        ck_assert_msg(lowered > nodes / 8, "%s: %d nodes of %d are lowered", model, lowered, nodes);
        const bool fewer = after < 0.8 * before || !strncmp(model, "mlp", 3); /* which reads little but pictures */
        ck_assert_msg(fewer, "%s: %g bytes became %g", model, before, after);
        for (int32_t i = 0; i < g->n_decls; i++) ck_assert_int_ne(g->decls[i].type.dtype, low);
        for (int32_t i = 0; i < g->n_outputs; i++) ck_assert_int_eq(type_of(g, g->outputs[i].value), FV_F32);
        fvt_free(casts_of);
        fv_graph_free(g);
    }
}
END_TEST

/* ---------------------------------------------------------------- models learn */

enum { BATCH = 16, SIDE = 16 };

static void feed(fvt_program *p) {
    double *x = fvt_doubles(BATCH * SIDE * SIDE * 3), labels[BATCH], keys[BATCH];
    for (int i = 0; i < BATCH * SIDE * SIDE * 3; i++) x[i] = fvt_normal(3, (uint64_t)i, 1);
    for (int i = 0; i < BATCH; i++) labels[i] = i % 10, keys[i] = i;
    fvt_set(p, "image", x);
    fvt_set(p, "labels", labels);
    if (fv_find_value(fv_program_plan(p->program)->graph, "row_key").id) fvt_set(p, "row_key", keys);
    fvt_free(x);
}

typedef struct trained {
    double first, last; /* losses */
    int64_t n;          /* weights together */
    double *moved;      /* by the first step */
    size_t values;      /* bytes of all values */
} trained;

static void get_weights(fvt_program *p, double *to) {
    for (int32_t i = 0; i < fv_store_count(p->store); i++) {
        const fv_slot *slot = fv_store_slot(p->store, i);
        if (slot->role != FV_ROLE_WEIGHT) continue;
        fvt_get(p, slot->name, to);
        to += fv_count(slot->type);
    }
}

/* Of all values that have memory of their own. */
static size_t bytes_of_values(const fv_plan *plan) {
    size_t bytes = 0;
    for (int32_t i = 1; i < plan->graph->n_values; i++)
        if (plan->place[i].where == FV_AT_ARENA && !plan->place[i].alias)
            bytes += fv_bytes(plan->graph->values[i].type);
    return bytes;
}

static trained train(const char *model, const char *backend, fv_dtype precision, int steps) {
    fvt_device d;
    fvt_program p;
    trained t = {0};
    fvt_open(&d, backend, 2, NULL);
    fv_graph *g = build(&d.ctx, model, true, BATCH, SIDE);
    if (fv_is_low(precision)) fv_graph_mix_precision(g, precision);
    fvt_compile(&d, g, false, &p);
    t.values = bytes_of_values(fv_program_plan(p.program));
    for (int32_t i = 0; i < fv_store_count(p.store); i++)
        if (fv_store_slot(p.store, i)->role == FV_ROLE_WEIGHT) t.n += fv_count(fv_store_slot(p.store, i)->type);
    double *before = fvt_doubles(t.n);
    t.moved = fvt_doubles(t.n);
    feed(&p);
    get_weights(&p, before);
    for (int i = 0; i < steps; i++) {
        const double scale = precision == FV_F16 ? 256 : 1;
        const fv_step step = {.seed = 1, .step = i, .lr = {0.05, 0.05}, .ema_decay = 0.9, .loss_scale = scale};
        ck_assert_msg(fv_program_run(p.program, &step, FV_ALL_SEGMENTS) == FV_OK, "%s", d.ctx.error.message);
        t.last = fv_program_scalar(p.program, "loss");
        if (i == 0) t.first = t.last;
        if (i == 0) get_weights(&p, t.moved);
    }
    for (int64_t i = 0; i < t.n; i++) t.moved[i] -= before[i];
    fvt_free(before);
    fvt_destroy(&p);
    fvt_close(&d);
    return t;
}

static double cosine(const trained *a, const trained *b) {
    double ab = 0, aa = 0, bb = 0;
    for (int64_t i = 0; i < a->n; i++) {
        ab += a->moved[i] * b->moved[i];
        aa += a->moved[i] * a->moved[i];
        bb += b->moved[i] * b->moved[i];
    }
    return ab / sqrt(aa * bb);
}

static const char *const learners[] = {"resnet20", "vit_tiny_patch4_32_d6", "lenet5"};

/* The first step goes where that of float32 goes, and a batch is learned by heart as well. */
START_TEST(models_learn) {
    const char *model = learners[_i / LOWS];
    enum { STEPS = 25 };
    if (getenv("FOVEA_TESTS_SHORT") && strcmp(model, "lenet5") != 0) { /* ten minutes in a build with sanitizers */
        fprintf(stderr, "SKIPPED: %s learns in %s (FOVEA_TESTS_SHORT is set)\n", model, fv_dtype_name(lows[_i % LOWS]));
        return;
    }
    trained wide = train(model, "cpu", FV_F32, STEPS), low = train(model, "cpu", lows[_i % LOWS], STEPS);
    const double along = cosine(&wide, &low);
    ck_assert_msg(fabs(low.first - wide.first) <= 0.01 * wide.first, "%s: loss %g, in float32 %g", model, low.first,
                  wide.first);
    ck_assert_msg(along >= 0.97 && along < 1, "%s: cosine of the first steps is %.6f", model, along);
    ck_assert_msg(low.last <= 0.5 * (low.first + wide.last), "%s: loss %g to %g, in float32 to %g", model, low.first,
                  low.last, wide.last);
    ck_assert_msg(low.values < wide.values * 0.8, "%s: %zu bytes, in float32 %zu", model, low.values, wide.values);
    fvt_free(wide.moved);
    fvt_free(low.moved);
}
END_TEST

/* A device's first step in bf16 or f16 is ref's, within what the order of sums changes in roundings to that. */
START_TEST(devices_agree) {
    const char *backend = _i / LOWS ? "cuda" : "cpu";
    const fv_dtype low = lows[_i % LOWS];
    fvt_device d;
    if (!fvt_open(&d, backend, 2, NULL)) return;
    fvt_close(&d);
    trained ref = train("lenet5", "ref", low, 1), other = train("lenet5", backend, low, 1);
    ck_assert_double_le(fabs(ref.first - other.first), 1e-3 * ref.first);
    ck_assert_msg(cosine(&ref, &other) >= 0.9999, "%s: cosine %.7f", backend, cosine(&ref, &other));
    fvt_free(ref.moved);
    fvt_free(other.moved);
}
END_TEST

Suite *precision_suite(void) {
    Suite *suite = suite_create("precision");
    TCase *t = tcase_create("precision");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, rounding, 0, LOWS);
    tcase_add_loop_test(t, rounding_of_devices, 0, LOWS);
    tcase_add_loop_test(t, pass_over_models, 0, fv_model_count());
    tcase_add_loop_test(t, models_learn, 0, LOWS * (int)(sizeof learners / sizeof *learners));
    tcase_add_loop_test(t, devices_agree, 0, 2 * LOWS);
    suite_add_tcase(suite, t);
    return suite;
}
