/* test_prepared.c: what nodes keep from run to run (packed and transformed weights, a norm's coefficients): the results
 * of operations that keep it, and that whatever changes parameters makes it be prepared anew: after each public way to
 * do so a program gives what a fresh one gives, bit for bit. */
#include "fovea.h"
#include "tests/faults.h"
#include "tests/op_case.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

Suite *prepared_suite(void);

static const char *const isas[] = {"generic", "avx2", "avx512", "wide"};
enum { ISAS = sizeof isas / sizeof *isas };

/* ---------------------------------------------------------------- single operations */

/* The row with all operands but the first as buffers, which a program may prepare. */
static op_row constant_row(const op_row *row) {
    op_row kept = *row;
    for (int k = 1; k < op_row_operands(row); k++) kept.in[k].state = row->in[k].fill != FILL_ABSENT;
    return kept;
}

static bool keeps_something(const fvt_program *p) {
    return fv_program_plan(p->program)->prepared_bytes > 0;
}

/* The result and nothing of the operands. */
static double *run_case(fvt_program *p, const op_case *c) {
    op_results r;
    op_case_run_on(p, c, &r);
    double *y = r.data[0];
    r.data[0] = NULL;
    op_results_free(&r);
    return y;
}

static double *run_fresh(fvt_device *d, const op_case *c, int64_t *count) {
    fvt_program p;
    op_case_compile(d, c, false, &p);
    double *y = run_case(&p, c);
    *count = fv_count(fvt_type(&p, "out0"));
    fvt_destroy(&p);
    return y;
}

static void negate(const op_case *c, int k) {
    for (int64_t i = 0; i < fv_count(c->row->in[k].type); i++) c->in[k][i] = -c->in[k][i];
}

/* With operands that are kept: near what it is without; for any number of threads and when run again the same bits; and
 * after each operand changed what a fresh program gives. Returns whether there was something to keep. */
static bool check_case(const char *isa, const op_row *row, fv_dtype dtype) {
    op_case plain, c;
    op_row low;
    double *first = NULL, *want = NULL;
    int64_t count = 0;
    bool keeps = false;
    op_case_make(row, &plain);
    if (dtype != FV_F32) plain = op_case_lower(&plain, dtype, &low);
    op_row kept = constant_row(plain.row);
    const double near = dtype == FV_F32 ? 3e-5 : dtype == FV_F16 ? 0x1p-10 : 0x1p-7;
    c = plain;
    c.row = &kept;
    for (int threads = 1; threads <= 3; threads += 2) {
        fvt_device d;
        fvt_program p;
        if (!fvt_open(&d, "cpu", threads, isa)) break;
        op_case_compile(&d, &c, false, &p);
        keeps = keeps_something(&p);
        if (threads == 1) want = run_fresh(&d, &plain, &count);
        for (int again = 0; again < 2 && keeps; again++) {
            double *y = run_case(&p, &c), largest = 0;
            for (int64_t i = 0; i < count; i++) largest = fmax(largest, fabs(want[i]));
            for (int64_t i = 0; i < count; i++)
                ck_assert_msg(fabs(y[i] - want[i]) <= near * largest, "%s '%s' on %s: %g is not near %g",
                              fv_op_get(row->op)->name, row->note, isa, y[i], want[i]);
            if (!first) first = y;
            else ck_assert_mem_eq(first, y, (size_t)count * sizeof *y);
            if (first != y) fvt_free(y);
        }
        for (int k = 1; k < c.n && keeps; k++) {
            if (!c.in[k] || (row->in[k].fill == FILL_POSITIVE && row->in[k].constant)) continue; /* a variance */
            negate(&c, k);
            double *changed = run_case(&p, &c), *fresh = run_fresh(&d, &c, &count);
            ck_assert_mem_eq(changed, fresh, (size_t)count * sizeof *fresh);
            fvt_free(changed);
            fvt_free(fresh);
            negate(&c, k);
        }
        fvt_destroy(&p);
        fvt_close(&d);
    }
    fvt_free(first);
    fvt_free(want);
    op_case_free(&plain);
    return keeps;
}

static const fv_op keepers[] = {FV_OP_CONV2D, FV_OP_LINEAR, FV_OP_BATCH_NORM_INFER, FV_OP_NORMED_CONV2D,
                                FV_OP_LINEAR_ACT};
enum { KEEPERS = sizeof keepers / sizeof *keepers };

START_TEST(operations_keep_and_renew) {
    const fv_op op = keepers[_i % KEEPERS];
    const char *isa = isas[_i / KEEPERS % ISAS];
    const fv_dtype dtype = (fv_dtype[]){FV_F32, FV_BF16, FV_F16}[_i / KEEPERS / ISAS];
    if (dtype != FV_F32 && op != FV_OP_CONV2D && op != FV_OP_LINEAR) return; /* norms have kernels of their own */
    fvt_device d;
    int keep = 0;
    if (!fvt_open(&d, "cpu", 1, isa)) return;
    fvt_close(&d);
    for (int i = 0; i < op_row_count; i++)
        if (op_rows[i].op == op) keep += check_case(isa, &op_rows[i], dtype);
    ck_assert_msg(keep > 3, "%s: only %d rows of %s keep something", isa, keep, fv_op_get(op)->name);
}
END_TEST

#define NORMAL(...) \
    { .fill = FILL_NORMAL, .type = fv_shape(FV_F32, __VA_ARGS__) }

/* Shapes of inference: few positions, many weights; Winograd's filtering and direct sums, full and odd panels. */
START_TEST(few_positions_keep) {
    static const struct {
        int64_t n, size, c, k, window;
    } shapes[] = {
        {1, 8, 64, 64, 3},  {1, 7, 33, 50, 3},  {1, 4, 160, 200, 3}, {1, 8, 160, 200, 3}, {2, 3, 120, 17, 3},
        {1, 7, 96, 250, 1}, {3, 1, 300, 10, 1}, {1, 14, 70, 64, 1},  {1, 20, 24, 200, 3},
    };
    fvt_device d;
    if (!fvt_open(&d, "cpu", 1, isas[_i])) return;
    fvt_close(&d);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const int32_t pad = (int32_t)(shapes[i].window / 2);
        const op_row row = {.op = FV_OP_CONV2D,
                            .note = "few positions",
                            .attr = {.conv2d = {.pad = {pad, pad, pad, pad}}},
                            .in = {NORMAL(shapes[i].n, shapes[i].size, shapes[i].size, shapes[i].c),
                                   NORMAL(shapes[i].k, shapes[i].window, shapes[i].window, shapes[i].c),
                                   NORMAL(shapes[i].k)}};
        ck_assert_msg(check_case(isas[_i], &row, FV_F32), "%s: shape %zu keeps nothing", isas[_i], i);
    }
}
END_TEST

/* ---------------------------------------------------------------- a model */

enum { BATCH = 2, SIZE = 8, CLASSES = 5, LOGITS = BATCH * CLASSES };

typedef struct model {
    fv_ctx ctx;
    fv_device *dev;
    fv_store *store;
    fv_program *train, *eval, *ema;
    char folder[128], path[2][160];
    fv_dtype dtype; /* of evaluation */
} model;

static fv_graph *net(fv_ctx *ctx, bool training, fv_dtype dtype) {
    fv_graph *g = fv_graph_new(ctx, training);
    ck_assert_ptr_nonnull(g);
    fv_scope s = fv_root(g);
    fv_conv_cfg conv = {.out = 32, .kernel = 3, .pad = 1}, point = {.out = 40, .kernel = 1};
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, BATCH, SIZE, SIZE, 3)),
             labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    x = fv_conv_bn_act(s, "conv1", "bn1", x, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
    x = fv_conv_bn_act(s, "conv2", "bn2", x, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
    x = fv_conv_bn_act(s, "conv3", "bn3", x, point, (fv_bn_cfg){0}, FV_ACT_RELU);
    fv_value logits =
        fv_linear_layer(fv_in(s, "fc"), fv_global_avg_pool(s, x), CLASSES, true, fv_init_xavier_uniform(40, CLASSES));
    fv_value loss = fv_softmax_cross_entropy(fv_in(s, "loss"), logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "logits", logits);
    fv_graph_fuse(g);
    fv_optim_cfg optim = {.kind = FV_OPT_SGD, .momentum = 0.9, .ema = true, .lookahead = true};
    if (training) ck_assert_int_eq(fv_optim_build(g, loss, &optim), FV_OK);
    else if (dtype != FV_F32) fv_graph_mix_precision(g, dtype);
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx->error.message);
    return g;
}

static void feed(fv_program *p) {
    float x[BATCH * SIZE * SIZE * 3];
    for (size_t i = 0; i < sizeof x / sizeof *x; i++) x[i] = (float)fvt_normal(1, i, 2);
    ck_assert_int_eq(fv_program_input(p, "x", x, sizeof x), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "labels", (int32_t[BATCH]){1, 3}, BATCH * sizeof(int32_t)), FV_OK);
}

static void run(fv_program *p, float logits[LOGITS]) {
    feed(p);
    ck_assert_int_eq(fv_program_run(p, NULL, FV_ALL_SEGMENTS), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "logits", logits, LOGITS * sizeof *logits), FV_OK);
}

static fv_program *compile(model *m, fv_store *store, bool training, bool ema) {
    fv_program *p;
    fv_compile_opts opts = {.use_ema = ema, .share = training ? NULL : m->train};
    ck_assert_msg(fv_compile(&m->ctx, net(&m->ctx, training, m->dtype), store, m->dev, &opts, &p) == FV_OK, "%s",
                  m->ctx.error.message);
    return p;
}

static void train(model *m, bool lookahead) {
    fv_step step = {.lr = {0.1, 0.1}, .ema_decay = 0.5, .lookahead_decay = 0.5, .lookahead = lookahead};
    feed(m->train);
    ck_assert_int_eq(fv_program_run(m->train, &step, FV_ALL_SEGMENTS), FV_OK);
}

static void open_model(model *m, fv_dtype dtype) {
    *m = (model){.dtype = dtype};
    fv_ctx_init(&m->ctx);
    fvt_make_folder(m->folder);
    for (int i = 0; i < 2; i++) snprintf(m->path[i], sizeof m->path[i], "%s/%d.safetensors", m->folder, i);
    ck_assert_int_eq(fv_backend_cpu.open(&m->ctx, &(fv_device_opts){.threads = 2}, &m->dev), FV_OK);
    ck_assert_int_eq(fv_store_create(&m->ctx, m->dev, &m->store), FV_OK);
    fv_graph *g = net(&m->ctx, true, FV_F32);
    ck_assert_int_eq(fv_store_bind(m->store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(m->store, 3), FV_OK);
    fv_graph_free(g);
    ck_assert_int_eq(fv_store_reset_ema(m->store), FV_OK);
    m->train = compile(m, m->store, true, false);
    m->eval = compile(m, m->store, false, false);
    m->ema = compile(m, m->store, false, true);
}

static void close_model(model *m) {
    fv_program_destroy(m->ema);
    fv_program_destroy(m->eval);
    fv_program_destroy(m->train);
    fv_store_destroy(m->store);
    m->dev->backend->close(m->dev);
    fvt_remove_folder(m->folder);
}

/* p, which has run before and gave `logits` then, gives other ones now: those of a fresh program. */
static void ck_renewed(model *m, fv_program *p, fv_store *store, float logits[LOGITS], const char *after) {
    float now[LOGITS], fresh[LOGITS];
    fv_program *again = compile(m, store, false, p == m->ema);
    run(p, now);
    run(again, fresh);
    ck_assert_msg(memcmp(now, fresh, sizeof now) == 0, "after %s a program gives %g, a fresh one %g", after,
                  (double)now[0], (double)fresh[0]);
    ck_assert_msg(memcmp(now, logits, sizeof now) != 0, "after %s nothing has changed", after);
    memcpy(logits, now, sizeof now);
    fv_program_destroy(again);
}

static void write_slot(fv_store *store, const char *name, float value) {
    const int32_t slot = fv_store_find(store, name);
    const size_t bytes = fv_bytes(fv_store_slot(store, slot)->type);
    float *data = fvt_alloc((int64_t)bytes, 1);
    for (size_t i = 0; i < bytes / sizeof *data; i++) data[i] = value + 0.01f * (float)(i % 7);
    ck_assert_int_eq(fv_store_write(store, slot, data, bytes), FV_OK);
    fvt_free(data);
}

/* Casts of parameters, which a program of a lower precision makes once. */
static int count_prepared_casts(const fv_program *p) {
    const fv_plan *plan = fv_program_plan(p);
    int n = 0;
    for (int32_t k = 0; k < plan->graph->n_nodes; k++) n += plan->graph->nodes[k].op == FV_OP_CAST && plan->prepares[k];
    return n;
}

START_TEST(weights_are_cast_once) {
    model m;
    open_model(&m, FV_BF16);
    ck_assert_int_eq(count_prepared_casts(m.eval), 3); /* of convolutions; the last layer and norms stay float32 */
    ck_assert_int_eq(count_prepared_casts(m.train), 0);
    close_model(&m);
    open_model(&m, FV_F32);
    ck_assert_int_eq(count_prepared_casts(m.eval), 0);
    close_model(&m);
}
END_TEST

START_TEST(only_what_does_not_change_is_kept) {
    model m;
    open_model(&m, FV_F32);
    ck_assert_uint_eq(fv_program_plan(m.train)->prepared_bytes, 0);
    ck_assert_uint_gt(fv_program_plan(m.eval)->prepared_bytes, 0);
    ck_assert_uint_gt(fv_program_plan(m.ema)->prepared_bytes, 0);
    close_model(&m);
}
END_TEST

START_TEST(every_change_is_seen) {
    static const char *const written[] = {"conv1.weight", "conv2.weight", "conv3.weight",     "fc.weight",
                                          "bn2.weight",   "bn2.bias",     "bn2.running_mean", "bn2.running_var"};
    model m;
    float logits[LOGITS], averages[LOGITS];
    open_model(&m, _i ? FV_BF16 : FV_F32);
    run(m.eval, logits);
    run(m.ema, averages);
    ck_assert_mem_eq(logits, averages, sizeof logits);
    for (size_t i = 0; i < sizeof written / sizeof *written; i++) {
        write_slot(m.store, written[i], 0.3f);
        ck_renewed(&m, m.eval, m.store, logits, written[i]);
    }
    ck_assert_int_eq(fv_store_reset_ema(m.store), FV_OK);
    ck_renewed(&m, m.ema, m.store, averages, "fv_store_reset_ema");
    ck_assert_mem_eq(logits, averages, sizeof logits);
    ck_assert_int_eq(fv_model_save(&m.ctx, m.store, m.path[0], false, NULL, 0), FV_OK);
    ck_assert_int_eq(fv_state_save(&m.ctx, m.store, m.path[1], NULL, NULL, 0), FV_OK);
    for (int i = 0; i < 2; i++) {
        train(&m, i == 1);
        ck_renewed(&m, m.eval, m.store, logits, i ? "a step with lookahead" : "a step");
        ck_renewed(&m, m.ema, m.store, averages, "a step (averages)");
    }
    ck_assert_int_eq(fv_model_load(&m.ctx, m.store, m.path[0], &(fv_load_opts){0}), FV_OK);
    ck_renewed(&m, m.eval, m.store, logits, "fv_model_load");
    fv_st_file file;
    ck_assert_int_eq(fv_st_open(&file, &m.ctx, m.path[1]), FV_OK);
    train(&m, false);
    run(m.eval, logits);
    ck_assert_int_eq(fv_state_restore(&m.ctx, m.store, &file), FV_OK);
    ck_renewed(&m, m.eval, m.store, logits, "fv_state_restore");
    ck_renewed(&m, m.ema, m.store, averages, "fv_state_restore (averages)");
    fv_st_close(&file);
    close_model(&m);
}
END_TEST

START_TEST(a_clone_sees_what_is_copied) {
    model m;
    float logits[LOGITS], before[LOGITS];
    fv_store *clone;
    open_model(&m, FV_F32);
    ck_assert_int_eq(fv_store_clone(&m.ctx, m.store, m.dev, &clone), FV_OK);
    ck_assert_int_eq(fv_store_copy(clone, m.store), FV_OK);
    fv_program *p = compile(&m, clone, false, false);
    run(p, logits);
    run(m.eval, before);
    ck_assert_mem_eq(logits, before, sizeof logits);
    train(&m, false);
    run(p, before);
    ck_assert_mem_eq(logits, before, sizeof logits);
    ck_assert_int_eq(fv_store_copy(clone, m.store), FV_OK);
    ck_renewed(&m, p, clone, logits, "fv_store_copy");
    fv_program_destroy(p);
    fv_store_destroy(clone);
    close_model(&m);
}
END_TEST

/* Whoever writes to a slot's memory himself says so. */
START_TEST(a_touch_is_enough) {
    model m;
    float logits[LOGITS];
    open_model(&m, FV_F32);
    run(m.eval, logits);
    const fv_slot *slot = fv_store_slot(m.store, fv_store_find(m.store, "conv2.weight"));
    const float one = 1;
    ck_assert_int_eq(m.dev->backend->copy(m.dev, slot->data, &one, sizeof one, FV_COPY_TO_DEVICE), FV_OK);
    fv_store_touch(m.store);
    ck_renewed(&m, m.eval, m.store, logits, "fv_store_touch");
    close_model(&m);
}
END_TEST

Suite *prepared_suite(void) {
    Suite *s = suite_create("prepared");
    TCase *operations = tcase_create("operations"), *models = tcase_create("models");
    tcase_set_timeout(operations, 120);
    tcase_add_loop_test(operations, operations_keep_and_renew, 0, 3 * ISAS * KEEPERS);
    tcase_add_loop_test(operations, few_positions_keep, 0, ISAS);
    tcase_add_test(models, weights_are_cast_once);
    tcase_add_test(models, only_what_does_not_change_is_kept);
    tcase_add_loop_test(models, every_change_is_seen, 0, 2);
    tcase_add_test(models, a_clone_sees_what_is_copied);
    tcase_add_test(models, a_touch_is_enough);
    suite_add_tcase(s, operations);
    suite_add_tcase(s, models);
    return s;
}
