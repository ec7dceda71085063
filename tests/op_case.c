/* op_case.c: see op_case.h. */
#include "tests/op_case.h"

#include <math.h>
#include <string.h>

void op_results_free(op_results *r) {
    for (int i = 0; i < r->n; i++) fvt_free(r->data[i]);
    r->n = 0;
}

static double mean_size(const double *x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += fabs(x[i]) / (double)n;
    return sum;
}

double op_one_rounding(fv_dtype dtype, double w) {
    return dtype == FV_BF16 ? ldexp(fabs(w), -8) : dtype == FV_F16 ? fmax(ldexp(fabs(w), -11), 0x1p-25) : 0;
}

bool op_uses_libraries(const fvt_device *d) {
    return strstr(d->dev->libraries, "cuDNN") || strstr(d->dev->libraries, "cuBLASLt");
}

double op_rounded_besides(const op_case *c, const op_results *want, int t, int64_t i) {
    const double w = fabs(want->data[t][i]);
    const fv_dtype dtype = c->row->in[0].type.dtype;
    const double bias = c->n > 2 && c->in[2] ? fabs(c->in[2][i % fv_count(c->row->in[2].type)]) : 0;
    switch (c->row->op) {
    case FV_OP_CONV2D_BWD_WEIGHT: return op_one_rounding(dtype, w);
    case FV_OP_LINEAR: return bias > 0 ? op_one_rounding(dtype, bias) : 0;
    case FV_OP_CONV2D: return bias > 0 ? op_one_rounding(dtype, w + bias) : 0;
    default: return 0;
    }
}

void op_results_check(const op_case *c, const op_results *got, const op_results *want, bool libraries,
                      const char *where) {
    ck_assert_int_eq(got->n, want->n);
    for (int t = 0; t < want->n; t++) {
        const int64_t n = fv_count(want->type[t]);
        const fv_dtype dtype = got->type[t].dtype;
        const double mean = mean_size(want->data[t], n);
        for (int64_t i = 0; i < n; i++) {
            const double g = got->data[t][i], w = want->data[t][i];
            const double once = op_one_rounding(dtype, w) + (libraries ? op_rounded_besides(c, want, t, i) : 0);
            ck_assert_msg(fabs(g - w) <= 64 * FVT_U * (fabs(w) + mean) + once,
                          "%s '%s' (%s): element %lld of result %d is %g, not %g", fv_op_get(c->row->op)->name,
                          c->row->note, where, (long long)i, t, g, w);
        }
    }
}

static fv_value add_operand(fv_scope s, const op_operand *o, int k) {
    fvt_name n;
    if (o->fill == FILL_ABSENT) return FV_NONE;
    if (o->state) return fv_buffer(s, fvt_numbered(&n, "in", k), o->type, FV_ZEROS);
    return fv_input(s, fvt_numbered(&n, "in", k), o->type);
}

/* The graph of one node: operands "in<k>", results "out<r>". Returns the first result. */
fv_value op_case_build(fv_graph *g, const op_case *c, fv_value *operands) {
    const fv_scope s = fv_root(g);
    fvt_name n;
    for (int k = 0; k < c->n; k++) operands[k] = add_operand(s, &c->row->in[k], k);
    const fv_value y = fv_op_node(fv_in(s, "case"), c->row->op, operands, c->n, &c->attr);
    for (int r = 0; r < fv_op_get(c->row->op)->results; r++)
        if (fv_count(fv_typeof(g, fv_result(y, r))) > 0) fv_set_output(g, fvt_numbered(&n, "out", r), fv_result(y, r));
    return y;
}

void op_case_set(fvt_program *p, const op_case *c) {
    fvt_name n;
    for (int k = 0; k < c->n; k++)
        if (c->in[k]) fvt_set(p, fvt_numbered(&n, "in", k), c->in[k]);
}

static void get_tensor(fvt_program *p, const char *what, op_results *r) {
    r->type[r->n] = fvt_type(p, what);
    r->data[r->n] = fvt_doubles(fv_count(r->type[r->n]));
    fvt_get(p, what, r->data[r->n++]);
}

void op_case_run_on(fvt_program *p, const op_case *c, op_results *r) {
    fvt_name n;
    r->n = 0;
    op_case_set(p, c);
    ck_assert_msg(fvt_run(p) == FV_OK, "%s", p->device->ctx.error.message);
    for (int k = 0; k < 4; k++)
        if (fv_find_output(fv_program_plan(p->program)->graph, fvt_numbered(&n, "out", k)).id) get_tensor(p, n.text, r);
    for (int k = 0; k < c->n; k++)
        if (c->row->in[k].state) get_tensor(p, fvt_numbered(&n, "in", k), r);
}

void op_case_compile(fvt_device *d, const op_case *c, bool f64, fvt_program *p) {
    fv_value operands[OP_ROW_OPERANDS];
    fv_graph *g = fv_graph_new(&d->ctx, true);
    ck_assert_ptr_nonnull(g);
    op_case_build(g, c, operands);
    fvt_compile(d, g, f64, p);
}

void op_case_run(fvt_device *d, const op_case *c, bool f64, op_results *r) {
    fvt_program p;
    op_case_compile(d, c, f64, &p);
    op_case_run_on(&p, c, r);
    fvt_destroy(&p);
}

void op_case_reference(const op_case *c, op_results *r) {
    fvt_device ref;
    fvt_open(&ref, "ref", 1, NULL);
    op_case_run(&ref, c, true, r);
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
    op_case_reference(&a, &r);
    for (int t = 0; t < 2; t++)
        for (int64_t i = 0; i < fv_count(r.type[t]); i++) c->in[1 + t][i] = (float)r.data[t][i];
    op_results_free(&r);
}

/* Batch norm with relu: move pre-activations away from 0 by the residual. False when there are some and no residual. */
static bool keep_from_relu(op_case *c) {
    const int residual = c->row->op == FV_OP_BATCH_NORM ? 3 : c->row->op == FV_OP_BATCH_NORM_INFER ? 5 : -1;
    if (residual < 0 || c->attr.batch_norm.act == FV_ACT_NONE) return true;
    op_case linear = *c;
    op_results r;
    bool fine = true;
    linear.attr.batch_norm.act = FV_ACT_NONE;
    op_case_reference(&linear, &r);
    for (int64_t i = 0; i < fv_count(r.type[0]); i++) {
        if (fabs(r.data[0][i]) >= 0.02) continue;
        if (residual < c->n) c->in[residual][i] = (float)(c->in[residual][i] + (r.data[0][i] < 0 ? -0.04 : 0.04));
        else fine = false;
    }
    op_results_free(&r);
    return fine;
}

void op_case_make(const op_row *row, op_case *c) {
    *c = (op_case){.row = row, .attr = row->attr, .n = op_row_operands(row)};
    for (int k = 0; k < c->n; k++)
        if (row->in[k].fill != FILL_ABSENT) c->in[k] = fvt_doubles(fv_count(row->in[k].type));
    for (uint64_t seed = OP_SEED;; seed++) {
        for (int k = 0; k < c->n; k++)
            if (c->in[k]) op_row_fill(row, k, seed, c->in[k]);
        if (row->op == FV_OP_ATTENTION_BWD) fill_attended(c);
        if (keep_from_relu(c)) return;
    }
}

void op_case_free(op_case *c) {
    for (int k = 0; k < c->n; k++) fvt_free(c->in[k]);
}

/* ---------------------------------------------------------------- bf16 and f16 */

/* Operand k is float32 beside low data. */
static bool is_parameter(fv_op op, int k) {
    switch (op) {
    case FV_OP_CONV2D:
    case FV_OP_LINEAR:
    case FV_OP_ATTENTION_BWD: return k == 2;
    case FV_OP_BATCH_NORM:
    case FV_OP_LAYER_NORM:
    case FV_OP_GROUP_NORM: return k == 1 || k == 2;
    case FV_OP_BATCH_NORM_INFER: return k >= 1 && k <= 4;
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD: return k >= 3 && k <= 6;
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM_BWD: return k >= 2 && k < 5;
    default: return false;
    }
}

op_case op_case_lower(op_case *c, fv_dtype dtype, op_row *low) {
    *low = *c->row;
    for (int k = 0; k < c->n; k++) {
        if (!c->in[k] || low->in[k].type.dtype != FV_F32 || is_parameter(low->op, k)) continue;
        low->in[k].type.dtype = dtype;
        for (int64_t i = 0; i < fv_count(low->in[k].type); i++)
            c->in[k][i] = (double)fv_low_value(dtype, fv_low_round_double(dtype, c->in[k][i]));
    }
    op_case lowered = *c;
    lowered.row = low;
    if (low->op == FV_OP_CAST) lowered.attr.cast.to = FV_F32;
    return lowered;
}
