/* test_ops.c: what every operation promises, from the rows of op_table.c:
 *
 *   gradient    analytic = central differences, in float64 on ref: max-norm relative error <= 1e-7
 *   agreement   each backend in float32 = ref in float64 on the same numbers, within a bound that fits the operation
 *   same bits   for 1, 2 and 4 threads, and when run again */
#include "tests/harness.h"
#include "tests/op_table.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define EPS 1e-5
#define GRADIENT_LIMIT 1e-7
#define MAX_TENSORS 16
#define SEED 20240229

typedef struct name {
    char text[16];
} name;
static const char *numbered(name *n, const char *stem, int i) {
    snprintf(n->text, sizeof n->text, "%s%d", stem, i);
    return n->text;
}

/* ---------------------------------------------------------------- a row with numbers */

typedef struct op_case {
    const op_row *row;
    fv_attr attr;
    int n;
    double *in[OP_ROW_OPERANDS];
} op_case;

/* Results of the operation, then the state that it changed. */
typedef struct op_results {
    int n;
    fv_type type[MAX_TENSORS];
    double *data[MAX_TENSORS];
} op_results;

static void free_results(op_results *r) {
    for (int i = 0; i < r->n; i++) fvt_free(r->data[i]);
    r->n = 0;
}

static fv_value add_operand(fv_scope s, const op_operand *o, int k) {
    name n;
    if (o->fill == FILL_ABSENT) return FV_NONE;
    if (o->state) return fv_buffer(s, numbered(&n, "in", k), o->type, FV_ZEROS);
    return fv_input(s, numbered(&n, "in", k), o->type);
}

/* The graph of one node: operands "in<k>", results "out<r>". Returns the first result. */
static fv_value build_case(fv_graph *g, const op_case *c, fv_value *operands) {
    const fv_scope s = fv_root(g);
    name n;
    for (int k = 0; k < c->n; k++) operands[k] = add_operand(s, &c->row->in[k], k);
    const fv_value y = fv_op_node(fv_in(s, "case"), c->row->op, operands, c->n, &c->attr);
    for (int r = 0; r < fv_op_get(c->row->op)->results; r++)
        if (fv_count(fv_typeof(g, fv_result(y, r))) > 0) fv_set_output(g, numbered(&n, "out", r), fv_result(y, r));
    return y;
}

static void set_operands(fvt_program *p, const op_case *c) {
    name n;
    for (int k = 0; k < c->n; k++)
        if (c->in[k]) fvt_set(p, numbered(&n, "in", k), c->in[k]);
}

static void get_tensor(fvt_program *p, const char *what, op_results *r) {
    r->type[r->n] = fvt_type(p, what);
    r->data[r->n] = fvt_doubles(fv_count(r->type[r->n]));
    fvt_get(p, what, r->data[r->n++]);
}

static void run_again(fvt_program *p, const op_case *c, op_results *r) {
    name n;
    r->n = 0;
    set_operands(p, c);
    ck_assert_msg(fvt_run(p) == FV_OK, "%s", p->device->ctx.error.message);
    for (int k = 0; k < 4; k++)
        if (fv_find_output(fv_program_plan(p->program)->graph, numbered(&n, "out", k)).id) get_tensor(p, n.text, r);
    for (int k = 0; k < c->n; k++)
        if (c->row->in[k].state) get_tensor(p, numbered(&n, "in", k), r);
}

static void compile_case(fvt_device *d, const op_case *c, bool f64, fvt_program *p) {
    fv_value operands[OP_ROW_OPERANDS];
    fv_graph *g = fv_graph_new(&d->ctx, true);
    ck_assert_ptr_nonnull(g);
    build_case(g, c, operands);
    fvt_compile(d, g, f64, p);
}

static void run_case(fvt_device *d, const op_case *c, bool f64, op_results *r) {
    fvt_program p;
    compile_case(d, c, f64, &p);
    run_again(&p, c, r);
    fvt_destroy(&p);
}

static void run_reference(const op_case *c, op_results *r) {
    fvt_device ref;
    fvt_open(&ref, "ref", 1, NULL);
    run_case(&ref, c, true, r);
    fvt_close(&ref);
}

/* y and lse of attention_bwd from attention itself, rounded as a float32 run would hand them on. */
static void fill_attended(op_case *c) {
    op_row forward = {.op = FV_OP_ATTENTION, .note = c->row->note, .attr = c->row->attr};
    op_case a = {.row = &forward, .attr = c->row->attr, .n = c->n - 3};
    op_results r;
    for (int k = 0; k < a.n; k++) {
        forward.in[k] = c->row->in[3 + k];
        a.in[k] = c->in[3 + k];
    }
    run_reference(&a, &r);
    for (int t = 0; t < 2; t++)
        for (int64_t i = 0; i < fv_count(r.type[t]); i++) c->in[1 + t][i] = (float)r.data[t][i];
    free_results(&r);
}

/* Batch norm with relu: move pre-activations away from 0 by the residual. False when there are some and no residual. */
static bool keep_from_relu(op_case *c) {
    const int residual = c->row->op == FV_OP_BATCH_NORM ? 3 : c->row->op == FV_OP_BATCH_NORM_INFER ? 5 : -1;
    if (residual < 0 || c->attr.batch_norm.act == FV_ACT_NONE) return true;
    op_case linear = *c;
    op_results r;
    bool fine = true;
    linear.attr.batch_norm.act = FV_ACT_NONE;
    run_reference(&linear, &r);
    for (int64_t i = 0; i < fv_count(r.type[0]); i++) {
        if (fabs(r.data[0][i]) >= 0.02) continue;
        if (residual < c->n) c->in[residual][i] = (float)(c->in[residual][i] + (r.data[0][i] < 0 ? -0.04 : 0.04));
        else fine = false;
    }
    free_results(&r);
    return fine;
}

static void make_case(const op_row *row, op_case *c) {
    *c = (op_case){.row = row, .attr = row->attr, .n = op_row_operands(row)};
    for (int k = 0; k < c->n; k++)
        if (row->in[k].fill != FILL_ABSENT) c->in[k] = fvt_doubles(fv_count(row->in[k].type));
    for (uint64_t seed = SEED;; seed++) {
        for (int k = 0; k < c->n; k++)
            if (c->in[k]) op_row_fill(row, k, seed, c->in[k]);
        if (row->op == FV_OP_ATTENTION_BWD) fill_attended(c);
        if (keep_from_relu(c)) return;
    }
}

static void free_case(op_case *c) {
    for (int k = 0; k < c->n; k++) fvt_free(c->in[k]);
}

/* ---------------------------------------------------------------- gradients */

#define MAX_WRT 24

/* A graph with inputs to differentiate by: their names, and everything needed to feed it. */
typedef struct gradient_check {
    const char *what;
    fvt_program *p; /* inputs as named; "dy"; outputs "y" and "d0", "d1", ... */
    int n;
    name wrt[MAX_WRT];
    int64_t count[MAX_WRT];
    double *at[MAX_WRT];   /* where */
    double *grad[MAX_WRT]; /* analytic, of the latest run */
    int64_t outputs;
    double *dy, *plus, *minus;
} gradient_check;

/* Append the backward pass for y, from a cotangent that is an input. */
static void add_gradients(fv_graph *g, fv_value y, const fv_value *wrt, int n) {
    fv_value grads[MAX_WRT];
    name label;
    const fv_value dy = fv_input(fv_root(g), "dy", fv_typeof(g, y));
    ck_assert_msg(fv_gradients_from(g, y, dy, n, wrt, grads) == FV_OK, "%s", g->ctx->error.message);
    for (int k = 0; k < n; k++) {
        ck_assert_msg(grads[k].id, "no gradient for operand %d", k);
        fv_set_output(g, numbered(&label, "d", k), grads[k]);
    }
}

static void run_backward(gradient_check *c) {
    name label;
    fvt_set(c->p, "dy", c->dy);
    ck_assert_msg(fvt_run(c->p) == FV_OK, "%s", c->p->device->ctx.error.message);
    for (int k = 0; k < c->n; k++) fvt_get(c->p, numbered(&label, "d", k), c->grad[k]);
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
        ck_assert_msg(worst <= GRADIENT_LIMIT, "%s: gradient of %s is off by %.3g (cotangent %lld)", c->what,
                      c->wrt[k].text, worst, (long long)u);
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
            step[i] = fvt_normal(SEED + 1, (uint64_t)i, direction);
            analytic += c->grad[k][i] * step[i];
            squares += c->grad[k][i] * c->grad[k][i];
        }
        run_both_sides(c, k, step);
        for (int64_t o = 0; o < c->outputs; o++) numeric += c->dy[o] * (c->plus[o] - c->minus[o]) / (2 * EPS);
        const double error = fabs(numeric - analytic) / fmax(sqrt(squares), 1e-3);
        ck_assert_msg(error <= GRADIENT_LIMIT, "%s: gradient of %s is off by %.3g (direction %u)", c->what,
                      c->wrt[k].text, error, direction);
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
    for (int64_t o = 0; o < c->outputs; o++) c->dy[o] = fvt_normal(SEED + 2, (uint64_t)o, 0);
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
    make_case(row, &c);
    fvt_device ref;
    fvt_open(&ref, "ref", 1, NULL);
    fv_graph *g = fv_graph_new(&ref.ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_value operands[OP_ROW_OPERANDS], wrt[MAX_WRT];
    char what[128];
    fvt_program p;
    gradient_check check = {.what = what, .p = &p};
    snprintf(what, sizeof what, "%s '%s'", fv_op_get(row->op)->name, row->note);
    const fv_value y = build_case(g, &c, operands);
    ck_assert_msg(y.id, "%s: %s", what, g->error_text);
    fv_set_output(g, "y", y);
    for (int k = 0; k < c.n; k++) {
        if (!c.in[k] || row->in[k].constant || row->in[k].type.dtype != FV_F32) continue;
        check.at[check.n] = c.in[k];
        numbered(&check.wrt[check.n], "in", k);
        wrt[check.n++] = operands[k];
    }
    add_gradients(g, y, wrt, check.n);
    fvt_compile(&ref, g, true, &p);
    set_operands(&p, &c);
    check_gradients(&check);
    fvt_destroy(&p);
    fvt_close(&ref);
    free_case(&c);
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
    name label;
    bool near = false;
    ck_assert_int_eq(fvt_run(p), FV_OK);
    for (int k = 0; k < 2; k++) {
        if (!fv_find_output(fv_program_plan(p->program)->graph, numbered(&label, "pre", k)).id) continue;
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
    uint64_t seed = SEED;
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

static bound bound_of(fv_op op) {
    switch (op) {
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
    case FV_OP_MAX_POOL2D_BWD:
    case FV_OP_RESIZE:
    case FV_OP_RESIZE_BWD: return (bound){BOUND_SUM, 8};
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
    case FV_OP_TOPK_CORRECT:
    case FV_OP_ASSIGN:
    case FV_OP_FILL:
    case FV_OP_INCREMENT: return (bound){BOUND_EXACT, 0};
    case FV_OP_SUB:
    case FV_OP_SCALE:
    case FV_OP_LERP_ASSIGN:
    case FV_OP_EMA_UPDATE: return (bound){BOUND_SCALED, 4};
    case FV_OP_ATTENTION:
    case FV_OP_ATTENTION_BWD: return (bound){BOUND_SCALED, 64};
    case FV_OP_ACTIVATION:
    case FV_OP_ACTIVATION_BWD:
    case FV_OP_AUGMENT:
    case FV_OP_GRAD_STATS:
    case FV_OP_SGD_UPDATE:
    case FV_OP_ADAM_UPDATE: return (bound){BOUND_SCALED, 8};
    default: return (bound){BOUND_SCALED, 32}; /* norms, softmax, losses */
    }
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
    run_reference(&absolute, r);
    free_case(&absolute);
}

/* How far tensor t is off, in units of what is allowed (1: at the limit). NaN and infinities must match. */
static double excess(bound b, const op_results *got, const op_results *want, const op_results *magnitude, int t) {
    const int64_t count = fv_count(want->type[t]);
    double mean = 0, worst = 0;
    for (int64_t i = 0; i < count; i++) mean += fabs(want->data[t][i]) / (double)count;
    for (int64_t i = 0; i < count; i++) {
        const double g = got->data[t][i], w = want->data[t][i];
        if (b.kind == BOUND_EXACT || !isfinite(w) || got->type[t].dtype != FV_F32) {
            const double rounded = got->type[t].dtype == FV_F32 ? (float)w : w;
            if (!(g == rounded || (isnan(g) && isnan(rounded)))) return INFINITY;
            continue;
        }
        const double scale = b.kind == BOUND_SUM ? magnitude->data[t][i] : fabs(w) + mean;
        const double error = fabs(g - w), allowed = b.tolerance * FVT_U * scale + 1e-37;
        worst = error / allowed <= worst ? worst : error / allowed;
    }
    return worst;
}

static void compare(const op_case *c, const op_results *got, const op_results *want, const op_results *magnitude,
                    const char *where) {
    ck_assert_int_eq(got->n, want->n);
    for (int t = 0; t < want->n; t++) {
        const double off = excess(bound_of(c->row->op), got, want, magnitude, t);
        ck_assert_msg(off <= 1, "%s '%s' on %s: result %d is off by %.3g times the bound", fv_op_get(c->row->op)->name,
                      c->row->note, where, t, off);
    }
}

typedef struct variant {
    const char *name, *backend, *isa, *blas;
} variant;
static const variant variants[] = {
    {"ref in float32", "ref", NULL, NULL}, {"cpu generic", "cpu", "generic", ""}, {"cpu avx2", "cpu", "avx2", ""},
    {"cpu avx512", "cpu", "avx512", ""},   {"cpu with BLAS", "cpu", NULL, NULL},
};
#define N_VARIANTS (sizeof variants / sizeof *variants)

static bool open_variant(fvt_device *d, const variant *v, int threads) {
    return fvt_open_with(d, v->backend, &(fv_device_opts){.threads = threads, .isa = v->isa, .blas = v->blas});
}

START_TEST(test_agreement) {
    op_case c;
    op_results want, magnitude, got;
    make_case(&op_rows[_i], &c);
    run_reference(&c, &want);
    run_magnitudes(&c, &magnitude);
    for (size_t v = 0; v < N_VARIANTS; v++) {
        fvt_device d;
        if (!open_variant(&d, &variants[v], 2)) continue;
        run_case(&d, &c, false, &got);
        compare(&c, &got, &want, &magnitude, variants[v].name);
        free_results(&got);
        fvt_close(&d);
    }
    free_results(&want);
    free_results(&magnitude);
    free_case(&c);
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

START_TEST(test_same_bits) {
    op_case c;
    op_results first, other;
    make_case(&op_rows[_i], &c);
    for (size_t v = 0; v < N_VARIANTS; v++)
        for (int threads = 1; threads <= 4; threads *= 2) {
            fvt_device d;
            fvt_program p;
            if (!open_variant(&d, &variants[v], threads)) continue;
            compile_case(&d, &c, false, &p);
            run_again(&p, &c, threads == 1 ? &first : &other);
            if (threads > 1) {
                compare_bits(&c, &first, &other, variants[v].name, "with more threads");
                free_results(&other);
            }
            run_again(&p, &c, &other);
            compare_bits(&c, &first, &other, variants[v].name, "in the second run");
            free_results(&other);
            if (threads == 4) free_results(&first);
            fvt_destroy(&p);
            fvt_close(&d);
        }
    free_case(&c);
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
    make_case(&row, &c);
    ck_assert(fvt_open(&d, _i ? "cpu" : "ref", 2, NULL));
    for (int64_t i = 0; i < ROWS * WIDTH; i++) c.in[0][i] = 1;
    run_case(&d, &c, false, &forward);
    for (int r = 0; r < ROWS / 2; r++) {
        const double swap = c.in[1][r];
        c.in[1][r] = c.in[1][ROWS - 1 - r];
        c.in[1][ROWS - 1 - r] = swap;
    }
    run_case(&d, &c, false, &reversed);
    double kept = 0;
    for (int r = 0; r < ROWS; r++)
        for (int e = 0; e < WIDTH; e++) {
            kept += forward.data[0][r * WIDTH + e] != 0;
            ck_assert(forward.data[0][r * WIDTH + e] == reversed.data[0][(ROWS - 1 - r) * WIDTH + e]);
        }
    const double n = ROWS * WIDTH, deviation = sqrt(n * 0.25 * 0.75);
    ck_assert_msg(fabs(kept - 0.75 * n) <= 4 * deviation, "%g of %g elements kept", kept, n);
    free_results(&forward);
    free_results(&reversed);
    free_case(&c);
    fvt_close(&d);
}
END_TEST

static void add_tests_of_rows(Suite *suite) {
    TCase *gradients = tcase_create("gradients"), *agreement = tcase_create("agreement"), *bits = tcase_create("bits");
    tcase_add_loop_test(gradients, test_gradient, 0, op_row_count);
    tcase_add_test(gradients, test_residual_block);
    tcase_add_test(gradients, test_residual_block_fused);
    tcase_add_test(gradients, test_encoder_block);
    tcase_add_loop_test(agreement, test_agreement, 0, op_row_count);
    tcase_add_loop_test(bits, test_same_bits, 0, op_row_count);
    TCase *const cases[] = {gradients, agreement, bits};
    for (int i = 0; i < 3; i++) {
        tcase_set_timeout(cases[i], 120);
        suite_add_tcase(suite, cases[i]);
    }
}

Suite *ops_suite(void);

Suite *ops_suite(void) {
    Suite *suite = suite_create("ops");
    TCase *promises = tcase_create("promises");
    tcase_add_test(promises, test_every_op_has_a_row);
    tcase_add_loop_test(promises, test_label_out_of_range, 0, 3);
    tcase_add_loop_test(promises, test_row_of_no_weight, 0, 3);
    tcase_add_loop_test(promises, test_no_weight_at_all, 0, 3);
    tcase_add_loop_test(promises, test_dropout_draws, 0, 2);
    suite_add_tcase(suite, promises);
    add_tests_of_rows(suite);
    return suite;
}
