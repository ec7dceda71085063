/* test_winograd.c: 3x3 convolutions by Winograd's filtering against float64 sums: at most 3e-5 of the largest result
 * away for every shape, the same bits for any number of threads, and not taken where the device asks for direct sums.
 */
#include "tests/harness.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define BOUND 3e-5

static const char *const isas[] = {"generic", "avx2", "avx512", "wide"};

static const struct shape {
    int64_t n, h, w, c, k;
    int pad[4]; /* top, left, bottom, right */
    bool bias;
} shapes[] = {
    {2, 8, 8, 32, 32, {1, 1, 1, 1}, true},
    {1, 7, 10, 33, 47, {1, 1, 1, 1}, true},
    {3, 9, 6, 64, 40, {0, 0, 0, 0}, false},
    {6, 4, 4, 70, 32, {1, 1, 1, 1}, true},
    {1, 14, 13, 32, 65, {2, 0, 1, 2}, false},
    {20, 12, 12, 48, 64, {1, 1, 1, 1}, false},
    {1, 6, 17, 129, 36, {1, 2, 0, 1}, true},
    /* Tiles of 3 results alone: 3, 3 + 3 and 5 of 6; of 4 and 3, from one picture to the next in a unit. */
    {9, 3, 3, 32, 40, {1, 1, 1, 1}, true},
    {5, 6, 5, 40, 33, {1, 1, 1, 1}, false},
    {40, 15, 15, 64, 48, {1, 1, 0, 0}, true},
    {300, 7, 3, 32, 32, {1, 1, 1, 1}, false},
    {3, 11, 14, 24, 64, {1, 1, 0, 0}, true},
    /* So many tiles that the weights' gradient is summed in parts, of several groups each; of two sizes of tiles. */
    {60, 20, 19, 40, 60, {1, 1, 1, 1}, true},
};

/* Operands of shape q: x, w, bias, dy. */
typedef struct data {
    double *x, *w, *bias, *dy;
    fv_type tx, tw, ty;
} data;

static double *draw(fv_type type, uint32_t stream) {
    double *v = fvt_doubles(fv_count(type));
    for (int64_t i = 0; i < fv_count(type); i++) v[i] = (double)(float)fvt_normal(5, (uint64_t)i, stream);
    return v;
}

static data make(const struct shape *s) {
    data d = {.tx = fv_shape(FV_F32, s->n, s->h, s->w, s->c), .tw = fv_shape(FV_F32, s->k, 3, 3, s->c)};
    d.ty = fv_shape(FV_F32, s->n, s->h + s->pad[0] + s->pad[2] - 2, s->w + s->pad[1] + s->pad[3] - 2, s->k);
    d.x = draw(d.tx, 1);
    d.w = draw(d.tw, 2);
    d.bias = draw(fv_shape(FV_F32, s->k), 3);
    d.dy = draw(d.ty, 4);
    return d;
}

static void unmake(data *d) {
    fvt_free(d->x);
    fvt_free(d->w);
    fvt_free(d->bias);
    fvt_free(d->dy);
}

/* y, dx and dw of one shape, one behind the other. */
typedef struct results {
    double *value[3];
    int64_t count[3];
} results;

static void run(fvt_device *dev, const struct shape *s, const data *d, bool f64, results *out) {
    static const char *const names[] = {"y", "dx", "dw"};
    fvt_program p;
    fv_graph *g = fv_graph_new(&dev->ctx, true);
    fv_scope root = fv_root(g);
    fv_conv2d_attr attr = {.stride = {1, 1}, .dilation = {1, 1}, .groups = 1};
    for (int i = 0; i < 4; i++) attr.pad[i] = s->pad[i];
    fv_value x = fv_input(root, "x", d->tx), w = fv_input(root, "w", d->tw), dy = fv_input(root, "dy", d->ty);
    fv_value bias = fv_input(root, "bias", fv_shape(FV_F32, s->k)), grad[2];
    fv_value y = fv_conv2d(root, x, w, s->bias ? bias : FV_NONE, attr);
    fv_value loss = fv_sum(root, fv_mul(root, y, dy), 15, false);
    fv_set_output(g, "y", y);
    ck_assert_int_eq(fv_gradients(g, loss, 2, (fv_value[]){x, w}, grad), FV_OK);
    fv_set_output(g, "dx", grad[0]);
    fv_set_output(g, "dw", grad[1]);
    fvt_compile(dev, g, f64, &p);
    fvt_set(&p, "x", d->x);
    fvt_set(&p, "w", d->w);
    fvt_set(&p, "dy", d->dy);
    if (s->bias) fvt_set(&p, "bias", d->bias);
    ck_assert_int_eq(fvt_run(&p), FV_OK);
    for (int i = 0; i < 3; i++) {
        out->count[i] = fv_count(fvt_type(&p, names[i]));
        out->value[i] = fvt_doubles(out->count[i]);
        fvt_get(&p, names[i], out->value[i]);
    }
    fvt_destroy(&p);
}

static void release(results *r) {
    for (int i = 0; i < 3; i++) fvt_free(r->value[i]);
}

static void reference(const struct shape *s, const data *d, results *out) {
    fvt_device ref;
    fvt_open(&ref, "ref", 1, NULL);
    run(&ref, s, d, true, out);
    fvt_close(&ref);
}

START_TEST(test_near_the_exact_result) {
    const struct shape *s = &shapes[_i];
    data d = make(s);
    results exact, got;
    reference(s, &d, &exact);
    for (size_t k = 0; k < sizeof isas / sizeof *isas; k++) {
        fvt_device dev;
        if (!fvt_open_with(&dev, "cpu", &(fv_device_opts){.threads = 2, .isa = isas[k]})) continue;
        run(&dev, s, &d, false, &got);
        fvt_close(&dev);
        for (int r = 0; r < 3; r++) {
            double largest = 0, worst = 0;
            ck_assert_int_eq(got.count[r], exact.count[r]);
            for (int64_t i = 0; i < exact.count[r]; i++) {
                double away = fabs(got.value[r][i] - exact.value[r][i]);
                if (!(away <= worst)) worst = away; /* NaN too */
                if (fabs(exact.value[r][i]) > largest) largest = fabs(exact.value[r][i]);
            }
            ck_assert_msg(worst <= BOUND * largest, "%s, shape %d, result %d: %g of the largest", isas[k], _i, r,
                          worst / largest);
        }
        release(&got);
    }
    release(&exact);
    unmake(&d);
}
END_TEST

/* Bits do not depend on threads; and they differ from those of direct sums, or Winograd was not what ran. */
START_TEST(test_same_bits_for_any_threads) {
    const struct shape *s = &shapes[_i];
    data d = make(s);
    results first, again, direct;
    fvt_device dev;
    for (int threads = 1; threads <= 4; threads++) {
        fvt_open_with(&dev, "cpu", &(fv_device_opts){.threads = threads});
        run(&dev, s, &d, false, threads == 1 ? &first : &again);
        fvt_close(&dev);
        for (int r = 0; r < 3 && threads > 1; r++)
            ck_assert_mem_eq(first.value[r], again.value[r], (size_t)first.count[r] * sizeof(double));
        if (threads > 1) release(&again);
    }
    fvt_open_with(&dev, "cpu", &(fv_device_opts){.threads = 2, .direct = true});
    run(&dev, s, &d, false, &direct);
    fvt_close(&dev);
    for (int r = 0; r < 3; r++)
        ck_assert_msg(memcmp(first.value[r], direct.value[r], (size_t)first.count[r] * sizeof(double)) != 0,
                      "shape %d, result %d: the bits of direct sums", _i, r);
    release(&first);
    release(&direct);
    unmake(&d);
}
END_TEST

Suite *winograd_suite(void);
Suite *winograd_suite(void) {
    Suite *s = suite_create("winograd");
    TCase *t = tcase_create("winograd");
    const int n = (int)(sizeof shapes / sizeof *shapes);
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, test_near_the_exact_result, 0, n);
    tcase_add_loop_test(t, test_same_bits_for_any_threads, 0, n);
    suite_add_tcase(s, t);
    return s;
}
