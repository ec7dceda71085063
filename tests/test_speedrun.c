/* test_speedrun.c: what the speed-run networks rest on: convolutions without what a pooling drops, filters that start
 * by handing channels through, whitening filters from pictures, and a layer that is saved but not trained. */
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/ops.h"
#include "layers/layers.h"
#include "optim/optim.h"
#include "tests/harness.h"

Suite *speedrun_suite(void);

/* ---------------------------------------------------------------- trimmed convolutions */

static const struct {
    int64_t h, w;
    int kernel, stride, pad, dilation, pool;
    int64_t out_h, out_w; /* of the trimmed convolution */
} trims[] = {
    {31, 31, 3, 1, 1, 1, 2, 30, 30}, {15, 7, 3, 1, 1, 1, 2, 14, 6},
    {8, 9, 3, 1, 1, 1, 2, 8, 8},     {11, 10, 3, 1, 1, 1, 3, 10, 9},
    {13, 13, 5, 1, 2, 1, 4, 12, 12}, {14, 11, 5, 1, 2, 1, 4, 12, 9}, /* clamped at 0 */
    {13, 13, 3, 2, 1, 1, 2, 6, 6},   {9, 9, 3, 1, 2, 2, 2, 8, 8},
    {7, 7, 3, 1, 0, 1, 2, 5, 5}, /* no padding: none */
    {3, 3, 3, 1, 1, 1, 4, 3, 3}, /* too small to pool */
};
enum { TRIMS = sizeof(trims) / sizeof(trims[0]), ROWS = 2, IN = 3, OUT = 4 };

typedef struct pooled {
    fvt_program p;
    int64_t conv_h, conv_w, n_y;
} pooled;

/* Pooled convolution and all its gradients, in float64. */
static void compile_pooled(fvt_device *d, int i, int pool, pooled *out) {
    fv_graph *g = fv_graph_new(&d->ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, ROWS, trims[i].h, trims[i].w, IN));
    fv_conv_cfg cfg = {.out = OUT,
                       .kernel = trims[i].kernel,
                       .stride = trims[i].stride,
                       .pad = trims[i].pad,
                       .dilation = trims[i].dilation,
                       .bias = true,
                       .pool = pool};
    fv_value conv = fv_conv_layer(fv_in(s, "conv"), x, cfg);
    out->conv_h = fv_dim(g, conv, 1), out->conv_w = fv_dim(g, conv, 2);
    int32_t window = trims[i].h < trims[i].pool ? 1 : trims[i].pool;
    fv_value y = fv_max_pool2d(s, conv, (fv_pool_attr){.kernel = {window, window}});
    out->n_y = fv_count(fv_typeof(g, y));
    fv_value weight = fv_input(s, "weight", fv_typeof(g, y)), grads[3];
    fv_value loss = fv_sum(s, fv_mul(s, y, weight), 15, false);
    const fv_value wrt[3] = {x, fv_find_value(g, "conv.weight"), fv_find_value(g, "conv.bias")};
    ck_assert_msg(fv_gradients(g, loss, 3, wrt, grads) == FV_OK, "%s", d->ctx.error.message);
    fv_set_output(g, "y", y);
    fv_set_output(g, "dx", grads[0]);
    fv_set_output(g, "dw", grads[1]);
    fv_set_output(g, "db", grads[2]);
    fvt_compile(d, g, true, &out->p);
}

static void fill(fvt_program *p, const char *name, uint32_t stream) {
    int64_t n = fv_count(fvt_type(p, name));
    double *values = fvt_doubles(n);
    for (int64_t i = 0; i < n; i++) values[i] = fvt_normal(5, (uint64_t)i, stream);
    fvt_set(p, name, values);
    fvt_free(values);
}

static void run_pooled(pooled *q) {
    fill(&q->p, "x", 1);
    fill(&q->p, "conv.weight", 2);
    fill(&q->p, "conv.bias", 3);
    fill(&q->p, "weight", 4);
    ck_assert_int_eq(fvt_run(&q->p), FV_OK);
}

/* The pooled result and every gradient are those of the whole convolution. */
START_TEST(trimmed_is_untrimmed) {
    static const char *const outputs[] = {"y", "dx", "dw", "db"};
    fvt_device d;
    pooled whole, trimmed;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    compile_pooled(&d, _i, 0, &whole);
    compile_pooled(&d, _i, trims[_i].pool, &trimmed);
    ck_assert_int_eq(trimmed.conv_h, trims[_i].out_h);
    ck_assert_int_eq(trimmed.conv_w, trims[_i].out_w);
    ck_assert_int_eq(whole.n_y, trimmed.n_y);
    run_pooled(&whole);
    run_pooled(&trimmed);
    for (int k = 0; k < 4; k++) {
        int64_t n = fv_count(fvt_type(&whole.p, outputs[k]));
        double *a = fvt_doubles(n), *b = fvt_doubles(n);
        fvt_get(&whole.p, outputs[k], a);
        fvt_get(&trimmed.p, outputs[k], b);
        for (int64_t i = 0; i < n; i++)
            ck_assert_msg(fabs(a[i] - b[i]) <= 1e-12, "%s[%lld]: %.17g and %.17g", outputs[k], (long long)i, a[i],
                          b[i]);
        fvt_free(a);
        fvt_free(b);
    }
    fvt_destroy(&whole.p);
    fvt_destroy(&trimmed.p);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- filters that hand channels through */

/* A convolution's initial weight in file order, [out,in,3,3]; free with fvt_free. */
static float *drawn(fvt_device *d, int64_t in, int64_t out, fv_init init) {
    fv_store *store;
    fv_graph *g = fv_graph_new(&d->ctx, false);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 1, 4, 4, in));
    fv_conv_layer(fv_in(s, "conv"), x, (fv_conv_cfg){.out = out, .kernel = 3, .pad = 1, .init = init});
    ck_assert_int_eq(fv_graph_finish(g), FV_OK);
    ck_assert_int_eq(fv_store_create(&d->ctx, d->dev, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(store, 11), FV_OK);
    float *w = fvt_alloc(out * in * 9, sizeof *w);
    ck_assert_int_eq(fv_store_read(store, 0, w, (size_t)(out * in * 9) * sizeof *w), FV_OK);
    fv_store_destroy(store);
    fv_graph_free(g);
    return w;
}

START_TEST(dirac_filters) {
    static const int64_t sizes[][2] = {{4, 9}, {9, 4}, {5, 5}};
    fvt_device d;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    for (int i = 0; i < 3; i++) {
        int64_t in = sizes[i][0], out = sizes[i][1], first = in < out ? in : out;
        float *w = drawn(&d, in, out, fv_init_dirac(in * 9)), *plain = drawn(&d, in, out, fv_init_default(in * 9));
        for (int64_t e = 0; e < out * in * 9; e++) {
            int64_t filter = e / 9 / in, channel = e / 9 % in;
            float expected = filter >= first ? plain[e] : filter == channel && e % 9 == 4 ? 1 : 0;
            ck_assert_msg(w[e] == expected, "%lld -> %lld: element %lld is %g", (long long)in, (long long)out,
                          (long long)e, (double)w[e]);
        }
        fvt_free(w);
        fvt_free(plain);
    }
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- eigenvalues */

enum { MOST = 16 };

/* Values in order, A v = l v, orthonormal rows, signs as promised. `size`: of the largest value. */
static void check_eigen(int n, const double *a, const double *values, const double *v, double size) {
    for (int i = 0; i < n; i++) {
        double largest = 0;
        if (i) ck_assert_double_le(values[i], values[i - 1]);
        for (int k = 0; k < n; k++) {
            double product = 0, dot = 0;
            for (int j = 0; j < n; j++) product += a[k * n + j] * v[i * n + j], dot += v[i * n + j] * v[k * n + j];
            ck_assert_double_eq_tol(product, values[i] * v[i * n + k], 1e-13 * size);
            ck_assert_double_eq_tol(dot, i == k, 1e-13);
            if (fabs(v[i * n + k]) > fabs(largest)) largest = v[i * n + k];
        }
        ck_assert_double_gt(largest, 0);
    }
}

START_TEST(eigenvalues_of_known_matrices) {
    double a[MOST * MOST], copy[MOST * MOST], values[MOST], v[MOST * MOST];
    for (int n = 1; n <= MOST; n++) { /* second differences: 2 - 2 cos(k pi / (n + 1)) */
        for (int i = 0; i < n * n; i++) copy[i] = a[i] = i / n == i % n ? 2 : abs(i / n - i % n) == 1 ? -1 : 0;
        fv_symmetric_eigen(n, a, values, v);
        for (int k = 0; k < n; k++)
            ck_assert_double_eq_tol(values[k], 2 - 2 * cos((n - k) * 3.14159265358979323846 / (n + 1)), 1e-13);
        check_eigen(n, copy, values, v, 4);
    }
    for (int i = 0; i < MOST; i++) /* random, of widely differing size */
        for (int k = 0; k <= i; k++)
            copy[i * MOST + k] = copy[k * MOST + i] = a[i * MOST + k] = a[k * MOST + i] =
                fvt_normal(3, (uint64_t)(i * MOST + k), 1) * pow(10, -(i + k) / 4.0);
    fv_symmetric_eigen(MOST, a, values, v);
    check_eigen(MOST, copy, values, v, fabs(values[0]) + fabs(values[MOST - 1]));
    for (int i = 0; i < 9; i++) copy[i] = a[i] = i % 4 ? 0 : -7; /* one value three times */
    fv_symmetric_eigen(3, a, values, v);
    check_eigen(3, copy, values, v, 7);
    memset(a, 0, sizeof a);
    memset(copy, 0, sizeof copy);
    fv_symmetric_eigen(4, a, values, v);
    check_eigen(4, copy, values, v, 1);
}
END_TEST

/* ---------------------------------------------------------------- whitening */

enum { PICTURES = 40, SIDE = 12, COLOURS = 3, PATCH = 4 * COLOURS, FILTERS = 2 * PATCH };
static const double whiten_eps = 5e-4;

/* Smooth pictures: neighbours and colours go together, as in photos. [PICTURES,SIDE,SIDE,COLOURS] */
static void draw_pictures(float *x) {
    for (int n = 0; n < PICTURES; n++)
        for (int y = 0; y < SIDE; y++)
            for (int z = 0; z < SIDE; z++)
                for (int k = 0; k < COLOURS; k++) {
                    uint64_t at = (uint64_t)(((n * SIDE + y) * SIDE + z) * COLOURS + k);
                    double wave =
                        sin(0.5 * y * fvt_uniform(1, (uint64_t)n, 1) + 0.7 * z * fvt_uniform(1, (uint64_t)n, 2));
                    *x++ = (float)(0.3 + 1.5 * wave + 0.3 * fvt_normal(1, at, 3) + 0.1 * k);
                }
}

/* A store with the slots of speedrun94, in float32 or float64. */
static fv_store *fresh_store(fvt_device *d, bool f64, int64_t side) {
    fv_store *store;
    fv_graph *g = fv_graph_new(&d->ctx, false);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 1, side, side, COLOURS));
    fv_model_build(g, "speedrun94", x, &(fv_model_cfg){.num_classes = 10});
    if (f64) fv_graph_cast_floats(g, FV_F64);
    ck_assert_int_eq(fv_graph_finish(g), FV_OK);
    ck_assert_int_eq(fv_store_create(&d->ctx, d->dev, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(store, 0), FV_OK);
    fv_graph_free(g);
    return store;
}

/* whiten.weight in file order, after the model's own hook. */
static void whiten(fvt_device *d, bool f64, const float *x, double *filters) {
    const fv_model_entry *entry = fv_model_find("speedrun94");
    fv_pictures pictures = {x, PICTURES, SIDE, SIDE, COLOURS};
    fv_store *store = fresh_store(d, f64, SIDE);
    uint64_t before, after;
    ck_assert_int_eq(fv_store_hash(store, &before), FV_OK);
    ck_assert_int_eq(entry->data_init(&d->ctx, store, &pictures), FV_OK);
    ck_assert_int_eq(fv_store_hash(store, &after), FV_OK);
    ck_assert_uint_ne(before, after);
    float narrow[FILTERS * PATCH];
    int32_t slot = fv_store_find(store, "whiten.weight");
    void *to = f64 ? (void *)filters : (void *)narrow;
    ck_assert_int_eq(fv_store_read(store, slot, to, fv_bytes(fv_store_slot(store, slot)->type)), FV_OK);
    for (int i = 0; !f64 && i < FILTERS * PATCH; i++) filters[i] = (double)narrow[i];
    fv_store_destroy(store);
}

/* sum over patches of a patch's answers to filter a and filter b, over the number of patches. */
static double answer_covariance(const float *x, const double *a, const double *b) {
    double sum = 0;
    for (int n = 0; n < PICTURES; n++)
        for (int y = 0; y + 1 < SIDE; y++)
            for (int z = 0; z + 1 < SIDE; z++) {
                double to_a = 0, to_b = 0;
                for (int e = 0; e < PATCH; e++) { /* [c][2][2] */
                    double pixel = (double)x[((n * SIDE + y + e % 4 / 2) * SIDE + z + e % 2) * COLOURS + e / 4];
                    to_a += pixel * a[e];
                    to_b += pixel * b[e];
                }
                sum += to_a * to_b;
            }
    return sum / (PICTURES * (SIDE - 1) * (SIDE - 1));
}

START_TEST(whitened_patches_are_white) {
    float *x = fvt_alloc(PICTURES * SIDE * SIDE * COLOURS, sizeof *x);
    double filters[FILTERS * PATCH], wide[FILTERS * PATCH];
    fvt_device d;
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    draw_pictures(x);
    whiten(&d, false, x, filters);
    for (int i = 0; i < PATCH; i++) {
        double norm = 0;
        for (int e = 0; e < PATCH; e++) norm += filters[i * PATCH + e] * filters[i * PATCH + e];
        for (int k = 0; k < PATCH; k++) {
            /* a filter's squared length is 1 / (l + eps), so its answers' mean square l / (l + eps) is 1 - eps * that
             */
            double expected = i == k ? 1 - whiten_eps * norm : 0;
            ck_assert_double_eq_tol(answer_covariance(x, filters + i * PATCH, filters + k * PATCH), expected, 1e-5);
        }
        ck_assert_double_ge(norm * whiten_eps, 0);
        ck_assert_double_lt(norm * whiten_eps, 0.02); /* noise of 0.3: near the identity */
        for (int e = 0; e < PATCH; e++) ck_assert_double_eq(filters[(PATCH + i) * PATCH + e], -filters[i * PATCH + e]);
    }
    whiten(&d, false, x, wide);
    ck_assert_mem_eq(filters, wide, sizeof filters); /* the same again, */
    whiten(&d, true, x, wide);
    ck_assert_mem_eq(filters, wide, sizeof filters); /* and in double precision */
    fvt_free(x);
    fvt_close(&d);
}
END_TEST

START_TEST(whitening_refuses) {
    fvt_device d;
    float x[2 * 2 * 4] = {0};
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    fv_store *store = fresh_store(&d, false, SIDE);
    fv_pictures other = {x, 1, 2, 2, 4}, none = {x, 0, 2, 2, 3}, small = {x, 1, 1, 2, 3}, black = {x, 1, 2, 2, 3};
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "whiten.weight", &other, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "whiten.weight", &none, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "whiten.weight", &small, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "whiten", &black, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "head.weight", &black, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_whiten_init(&d.ctx, store, "whiten.weight", &black, 1), FV_OK); /* nothing to tell apart */
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- frozen, yet initialised and saved */

static fv_graph *training_graph(fv_ctx *ctx, const char *model) {
    fv_graph *g = fv_graph_new(ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 4, SIDE, SIDE, COLOURS));
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, 4));
    fv_value logits = fv_model_build(g, model, x, &(fv_model_cfg){.num_classes = 5});
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    fv_optim_cfg cfg = {.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true};
    ck_assert_msg(fv_optim_build(g, loss, &cfg) == FV_OK, "%s", ctx->error.message);
    return g;
}

START_TEST(whitening_is_not_trained) {
    fvt_device d;
    fvt_program p;
    ck_assert(fvt_open(&d, "cpu", 2, NULL));
    fvt_compile(&d, training_graph(&d.ctx, _i ? "speedrun96" : "speedrun94"), false, &p);
    double before[FILTERS * PATCH], after[FILTERS * PATCH], bias[FILTERS];
    fvt_get(&p, "whiten.weight", before);
    fill(&p, "x", 1);
    fvt_set(&p, "labels", (double[]){0, 1, 2, 3});
    for (int step = 0; step < 2; step++) {
        fv_step data = {.lr = {0.1, 0.1}, .step = step, .loss_scale = 1};
        ck_assert_int_eq(fv_program_run(p.program, &data, FV_ALL_SEGMENTS), FV_OK);
    }
    fvt_get(&p, "whiten.weight", after);
    fvt_get(&p, "whiten.bias", bias);
    ck_assert_mem_eq(before, after, sizeof before);
    for (int i = 0; i < FILTERS; i++) ck_assert_double_ne(bias[i], 0);
    int32_t slot = fv_store_find(p.store, "whiten.weight");
    ck_assert_int_eq(fv_store_slot(p.store, slot)->role, FV_ROLE_WEIGHT);
    for (int32_t i = 0; i < fv_store_count(p.store); i++)
        ck_assert_msg(fv_store_slot(p.store, i)->of != slot, "%s", fv_store_slot(p.store, i)->name);
    fvt_destroy(&p);
    fvt_close(&d);
}
END_TEST

Suite *speedrun_suite(void) {
    Suite *suite = suite_create("speedrun");
    TCase *parts = tcase_create("parts"), *whitening = tcase_create("whitening");
    tcase_add_loop_test(parts, trimmed_is_untrimmed, 0, TRIMS);
    tcase_add_test(parts, dirac_filters);
    suite_add_tcase(suite, parts);
    tcase_set_timeout(whitening, 60);
    tcase_add_test(whitening, eigenvalues_of_known_matrices);
    tcase_add_test(whitening, whitened_patches_are_white);
    tcase_add_test(whitening, whitening_refuses);
    tcase_add_loop_test(whitening, whitening_is_not_trained, 0, 2);
    suite_add_tcase(suite, whitening);
    return suite;
}
