/* test_gradients.c: analytic gradients = central differences, in float64 on ref, for every differentiable row of
 * op_table.c and for whole blocks. The limit is 1e-7 in the maximum norm, relative. */
#include "tests/op_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EPS 1e-5
#define LIMIT 1e-7
#define MAX_WRT 24

/* A graph with inputs to differentiate by: their names, and everything needed to feed it. */
typedef struct gradient_check {
    const char *what;
    fvt_program *p; /* inputs as named; "dy"; outputs "y" and "d0", "d1", ... */
    int n;
    fvt_name wrt[MAX_WRT];
    int64_t count[MAX_WRT];
    double *at[MAX_WRT];   /* where */
    double *grad[MAX_WRT]; /* analytic, of the latest run */
    int64_t outputs;
    double *dy, *plus, *minus;
} gradient_check;

/* Append the backward pass for y, from a cotangent that is an input. */
static void add_gradients(fv_graph *g, fv_value y, const fv_value *wrt, int n) {
    fv_value grads[MAX_WRT];
    fvt_name label;
    const fv_value dy = fv_input(fv_root(g), "dy", fv_typeof(g, y));
    ck_assert_msg(fv_gradients_from(g, y, dy, n, wrt, grads) == FV_OK, "%s", g->ctx->error.message);
    for (int k = 0; k < n; k++) {
        ck_assert_msg(grads[k].id, "no gradient for operand %d", k);
        fv_set_output(g, fvt_numbered(&label, "d", k), grads[k]);
    }
}

static void run_backward(gradient_check *c) {
    fvt_name label;
    fvt_set(c->p, "dy", c->dy);
    ck_assert_msg(fvt_run(c->p) == FV_OK, "%s", c->p->device->ctx.error.message);
    for (int k = 0; k < c->n; k++) fvt_get(c->p, fvt_numbered(&label, "d", k), c->grad[k]);
}

/* plus, minus = y at operand k moved by +-EPS * step. */
static void run_both_sides(gradient_check *c, int k, const double *step) {
    double *moved = fvt_doubles(c->count[k]);
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < c->count[k]; i++) moved[i] = c->at[k][i] + (side ? -EPS : EPS) * step[i];
        fvt_set(c->p, c->wrt[k].text, moved);
        ck_assert_int_eq(fvt_run(c->p), FV_OK);
        fvt_get(c->p, "y", side ? c->minus : c->plus);
    }
    fvt_set(c->p, c->wrt[k].text, c->at[k]);
    fvt_free(moved);
}

static double largest(const double *v, int64_t n) {
    double top = 0;
    for (int64_t i = 0; i < n; i++) top = fmax(top, fabs(v[i]));
    return top;
}

/* One operand by its numeric Jacobian [count][outputs]: a random cotangent, and for small ones every unit cotangent. */
static void check_operand_fully(gradient_check *c, int k) {
    const int64_t count = c->count[k], outputs = c->outputs;
    double *jacobian = fvt_doubles(count * outputs), *step = fvt_doubles(count), *dy = fvt_doubles(outputs);
    for (int64_t i = 0; i < count; i++) {
        step[i] = 1;
        run_both_sides(c, k, step);
        step[i] = 0;
        for (int64_t o = 0; o < outputs; o++) jacobian[i * outputs + o] = (c->plus[o] - c->minus[o]) / (2 * EPS);
    }
    memcpy(dy, c->dy, (size_t)outputs * sizeof *dy);
    const double jacobian_scale = fmax(largest(jacobian, count * outputs), 1e-3);
    const int64_t units = outputs <= 64 && count <= 256 ? outputs : 0;
    for (int64_t u = -1; u < units; u++) { /* -1: the random cotangent */
        for (int64_t o = 0; u >= 0 && o < outputs; o++) c->dy[o] = o == u;
        run_backward(c);
        double worst = 0, scale = u >= 0 ? jacobian_scale : fmax(largest(c->grad[k], count), 1e-3);
        for (int64_t i = 0; i < count; i++) {
            double numeric = 0;
            for (int64_t o = 0; o < outputs; o++) numeric += c->dy[o] * jacobian[i * outputs + o];
            const double error = fabs(numeric - c->grad[k][i]) / scale;
            worst = error <= worst ? worst : error; /* NaN stays */
        }
        ck_assert_msg(worst <= LIMIT, "%s: gradient of %s is off by %.3g (cotangent %lld)", c->what, c->wrt[k].text,
                      worst, (long long)u);
    }
    memcpy(c->dy, dy, (size_t)outputs * sizeof *dy);
    fvt_free(jacobian);
    fvt_free(step);
    fvt_free(dy);
}

/* A large operand: four random directions; the error is relative to the gradient's norm, the deviation of its product
 * with a random direction. */
static void check_operand_by_direction(gradient_check *c, int k) {
    const int64_t count = c->count[k];
    double *step = fvt_doubles(count);
    run_backward(c);
    for (uint32_t direction = 0; direction < 4; direction++) {
        double analytic = 0, numeric = 0, squares = 0;
        for (int64_t i = 0; i < count; i++) {
            step[i] = fvt_normal(OP_SEED + 1, (uint64_t)i, direction);
            analytic += c->grad[k][i] * step[i];
            squares += c->grad[k][i] * c->grad[k][i];
        }
        run_both_sides(c, k, step);
        for (int64_t o = 0; o < c->outputs; o++) numeric += c->dy[o] * (c->plus[o] - c->minus[o]) / (2 * EPS);
        const double error = fabs(numeric - analytic) / fmax(sqrt(squares), 1e-3);
        ck_assert_msg(error <= LIMIT, "%s: gradient of %s is off by %.3g (direction %u)", c->what, c->wrt[k].text,
                      error, direction);
    }
    fvt_free(step);
}

/* The program is compiled and all its inputs but "dy" are set. */
static void check_gradients(gradient_check *c) {
    int64_t total = 0;
    c->outputs = fv_count(fvt_type(c->p, "y"));
    c->dy = fvt_doubles(c->outputs);
    c->plus = fvt_doubles(c->outputs);
    c->minus = fvt_doubles(c->outputs);
    for (int64_t o = 0; o < c->outputs; o++) c->dy[o] = fvt_normal(OP_SEED + 2, (uint64_t)o, 0);
    for (int k = 0; k < c->n; k++) {
        c->count[k] = fv_count(fvt_type(c->p, c->wrt[k].text));
        c->grad[k] = fvt_doubles(c->count[k]);
        total += c->count[k];
    }
    fvt_set(c->p, "dy", c->dy);
    for (int k = 0; k < c->n; k++) {
        if (total <= 700) check_operand_fully(c, k);
        else check_operand_by_direction(c, k);
    }
    for (int k = 0; k < c->n; k++) fvt_free(c->grad[k]);
    fvt_free(c->dy);
    fvt_free(c->plus);
    fvt_free(c->minus);
}

START_TEST(test_gradient) {
    const op_row *row = &op_rows[_i];
    if (!fv_op_get(row->op)->grad) return;
    op_case c;
    op_case_make(row, &c);
    fvt_device ref;
    fvt_open(&ref, "ref", 1, NULL);
    fv_graph *g = fv_graph_new(&ref.ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_value operands[OP_ROW_OPERANDS], wrt[MAX_WRT];
    char what[128];
    fvt_program p;
    gradient_check check = {.what = what, .p = &p};
    snprintf(what, sizeof what, "%s '%s'", fv_op_get(row->op)->name, row->note);
    const fv_value y = op_case_build(g, &c, operands);
    ck_assert_msg(y.id, "%s: %s", what, g->error_text);
    fv_set_output(g, "y", y);
    for (int k = 0; k < c.n; k++) {
        if (!c.in[k] || row->in[k].constant || row->in[k].type.dtype != FV_F32) continue;
        check.at[check.n] = c.in[k];
        fvt_numbered(&check.wrt[check.n], "in", k);
        wrt[check.n++] = operands[k];
    }
    add_gradients(g, y, wrt, check.n);
    fvt_compile(&ref, g, true, &p);
    op_case_set(&p, &c);
    check_gradients(&check);
    fvt_destroy(&p);
    fvt_close(&ref);
    op_case_free(&c);
}
END_TEST

/* ---------------------------------------------------------------- gradients of blocks */

/* A block is written over inputs: the first is x, the others are parameters. */
typedef struct block {
    const char *what;
    int n;
    struct {
        const char *name;
        fv_type type;
        bool positive;
    } in[16];
    fv_value (*build)(fv_scope s, const fv_value *in, bool probe);
} block;

#define VECTOR(n) \
    { \
        FV_F32, 1, { \
            n \
        } \
    }
#define TENSOR4(a, b, c, d) \
    { \
        FV_F32, 4, { \
            a, b, c, d \
        } \
    }
#define MATRIX(a, b) \
    { \
        FV_F32, 2, { \
            a, b \
        } \
    }

/* conv - bn - relu - conv - bn - add - relu (He et al. 2016, figure 2). With `probe`, outputs "pre*" are what the relus
 * see (and keep the nodes from being fused). */
static fv_value build_residual(fv_scope s, const fv_value *in, bool probe) {
    const fv_conv2d_attr attr = {.pad = {1, 1, 1, 1}};
    fv_value y = fv_batch_norm(fv_in(s, "bn1"), fv_conv2d(s, in[0], in[1], FV_NONE, attr), in[2], in[3], 1e-5);
    if (probe) fv_set_output(s.g, "pre0", y);
    y = fv_batch_norm(fv_in(s, "bn2"), fv_conv2d(s, fv_relu(s, y), in[4], FV_NONE, attr), in[5], in[6], 1e-5);
    y = fv_add(s, y, in[0]);
    if (probe) fv_set_output(s.g, "pre1", y);
    return fv_relu(s, y);
}

/* The encoder block of ViT (Dosovitskiy et al. 2021): layer norm first; width 6, 2 heads, hidden 8. */
static fv_value build_encoder(fv_scope s, const fv_value *in, bool probe) {
    (void)probe; /* nothing here has a kink */
    fv_value y = fv_layer_norm(s, in[0], in[1], in[2], 1e-6);
    y = fv_attention(s, fv_linear(s, y, in[3], in[4]), FV_NONE, FV_NONE, 2, 0);
    const fv_value x = fv_add(s, in[0], fv_linear(s, y, in[5], in[6]));
    y = fv_layer_norm(s, x, in[7], in[8], 1e-6);
    y = fv_gelu(s, fv_linear(s, y, in[9], in[10]));
    return fv_add(s, x, fv_linear(s, y, in[11], in[12]));
}

static const block residual_block = {"residual block",
                                     7,
                                     {{"x", TENSOR4(2, 3, 3, 2), false},
                                      {"w1", TENSOR4(2, 3, 3, 2), false},
                                      {"gamma1", VECTOR(2), true},
                                      {"beta1", VECTOR(2), false},
                                      {"w2", TENSOR4(2, 3, 3, 2), false},
                                      {"gamma2", VECTOR(2), true},
                                      {"beta2", VECTOR(2), false}},
                                     build_residual};
static const block encoder_block = {"encoder block",
                                    13,
                                    {{"x", {FV_F32, 3, {2, 3, 6}}, false},
                                     {"gamma1", VECTOR(6), true},
                                     {"beta1", VECTOR(6), false},
                                     {"qkv", MATRIX(18, 6), false},
                                     {"qkv.b", VECTOR(18), false},
                                     {"proj", MATRIX(6, 6), false},
                                     {"proj.b", VECTOR(6), false},
                                     {"gamma2", VECTOR(6), true},
                                     {"beta2", VECTOR(6), false},
                                     {"fc1", MATRIX(8, 6), false},
                                     {"fc1.b", VECTOR(8), false},
                                     {"fc2", MATRIX(6, 8), false},
                                     {"fc2.b", VECTOR(6), false}},
                                    build_encoder};

static void draw_block(const block *b, uint64_t seed, double **values) {
    for (int k = 0; k < b->n; k++)
        for (int64_t i = 0; i < fv_count(b->in[k].type); i++) {
            const uint32_t stream = (uint32_t)k;
            values[k][i] = b->in[k].positive ? 0.5 + fvt_uniform(seed, (uint64_t)i, stream)
                                             : fvt_normal(seed, (uint64_t)i, stream);
        }
}

/* Does anything that a relu sees lie within 0.01 of 0? */
static bool near_a_kink(fvt_program *p) {
    fvt_name label;
    bool near = false;
    ck_assert_int_eq(fvt_run(p), FV_OK);
    for (int k = 0; k < 2; k++) {
        if (!fv_find_output(fv_program_plan(p->program)->graph, fvt_numbered(&label, "pre", k)).id) continue;
        const int64_t count = fv_count(fvt_type(p, label.text));
        double *v = fvt_doubles(count);
        fvt_get(p, label.text, v);
        for (int64_t i = 0; i < count; i++) near = near || fabs(v[i]) < 0.01;
        fvt_free(v);
    }
    return near;
}

static void set_block(fvt_program *p, const block *b, double **values) {
    for (int k = 0; k < b->n; k++) fvt_set(p, b->in[k].name, values[k]);
}

/* Draw until nothing is near a kink. */
static void draw_smooth_block(fvt_device *d, const block *b, double **values) {
    fv_value in[MAX_WRT];
    fvt_program p;
    fv_graph *g = fv_graph_new(&d->ctx, true);
    ck_assert_ptr_nonnull(g);
    for (int k = 0; k < b->n; k++) in[k] = fv_input(fv_root(g), b->in[k].name, b->in[k].type);
    fv_set_output(g, "y", b->build(fv_in(fv_root(g), "block"), in, true));
    fvt_compile(d, g, true, &p);
    uint64_t seed = OP_SEED;
    do {
        draw_block(b, seed++, values);
        set_block(&p, b, values);
    } while (near_a_kink(&p));
    fvt_destroy(&p);
}

/* Gradients of a block, as built or after fusion. */
static void check_block(const block *b, bool fuse) {
    fvt_device ref;
    fvt_program p;
    fv_value wrt[MAX_WRT];
    gradient_check check = {.what = b->what, .p = &p, .n = b->n};
    fvt_open(&ref, "ref", 1, NULL);
    for (int k = 0; k < b->n; k++) {
        check.at[k] = fvt_doubles(fv_count(b->in[k].type));
        snprintf(check.wrt[k].text, sizeof check.wrt[k].text, "%s", b->in[k].name);
    }
    draw_smooth_block(&ref, b, check.at);
    fv_graph *g = fv_graph_new(&ref.ctx, true);
    ck_assert_ptr_nonnull(g);
    for (int k = 0; k < b->n; k++) wrt[k] = fv_input(fv_root(g), b->in[k].name, b->in[k].type);
    fv_set_output(g, "y", b->build(fv_in(fv_root(g), "block"), wrt, false));
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s: %s", b->what, ref.ctx.error.message);
    if (fuse) ck_assert_int_gt(fv_graph_fuse(g), 0);
    for (int k = 0; k < b->n; k++) wrt[k] = fv_find_value(g, b->in[k].name);
    add_gradients(g, fv_find_output(g, "y"), wrt, b->n);
    fvt_compile(&ref, g, true, &p);
    set_block(&p, b, check.at);
    check_gradients(&check);
    fvt_destroy(&p);
    fvt_close(&ref);
    for (int k = 0; k < b->n; k++) fvt_free(check.at[k]);
}

START_TEST(test_residual_block) {
    check_block(&residual_block, false);
}
END_TEST
START_TEST(test_residual_block_fused) {
    check_block(&residual_block, true);
}
END_TEST
START_TEST(test_encoder_block) {
    check_block(&encoder_block, false);
}
END_TEST

Suite *gradients_suite(void);

Suite *gradients_suite(void) {
    Suite *suite = suite_create("gradients");
    TCase *rows = tcase_create("operations"), *blocks = tcase_create("blocks");
    tcase_add_loop_test(rows, test_gradient, 0, op_row_count);
    tcase_add_test(blocks, test_residual_block);
    tcase_add_test(blocks, test_residual_block_fused);
    tcase_add_test(blocks, test_encoder_block);
    tcase_set_timeout(rows, 120);
    tcase_set_timeout(blocks, 120);
    suite_add_tcase(suite, rows);
    suite_add_tcase(suite, blocks);
    return suite;
}
