/* test_graph.c: the passes of the core: builder errors, differentiation, fusion, planning, programs, determinism. */
#include "fovea.h"

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---------------------------------------------------------------- a counting allocator */

typedef struct counter {
    fv_allocator inner;
    long calls, live, fail_at; /* fail_at: the call that returns NULL; -1: none */
} counter;

static void *counted_alloc(void *user, size_t bytes, size_t align) {
    counter *c = user;
    if (c->calls++ == c->fail_at) return NULL;
    void *p = c->inner.alloc(c->inner.user, bytes, align);
    if (p) c->live++;
    return p;
}

static void counted_free(void *user, void *ptr, size_t bytes) {
    counter *c = user;
    if (ptr) c->live--;
    c->inner.free(c->inner.user, ptr, bytes);
}

static void count_allocations(fv_ctx *ctx, counter *c) {
    *c = (counter){.inner = ctx->alloc, .fail_at = -1};
    ctx->alloc = (fv_allocator){counted_alloc, counted_free, c};
}

/* ---------------------------------------------------------------- a small training program */

typedef struct trainer {
    fv_ctx ctx;
    fv_device *dev;
    fv_store *store;
    fv_program *train, *eval;
} trainer;

enum { BATCH = 8, SIZE = 8, CLASSES = 5 };

/* conv-bn-relu, residual block with a projected shortcut, dropout, pool, linear: every kind of alias and fusion. */
static fv_value tiny_net(fv_graph *g, fv_value x) {
    fv_scope s = fv_root(g);
    fv_conv_cfg conv = {.out = 16, .kernel = 3, .pad = 1}, down = {.out = 16, .kernel = 1};
    fv_value a = fv_conv_bn_act(s, "conv1", "bn1", x, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
    fv_value b = fv_conv_bn_act(s, "conv2", "bn2", a, conv, (fv_bn_cfg){0}, FV_ACT_RELU);
    fv_value c = fv_conv_bn_act(s, "conv3", "bn3", b, conv, (fv_bn_cfg){0}, FV_ACT_NONE);
    fv_value shortcut = fv_conv_bn_act(s, "down", "downbn", a, down, (fv_bn_cfg){0}, FV_ACT_NONE);
    fv_value sum = fv_relu(s, fv_add(s, c, shortcut));
    fv_value d = fv_dropout(fv_in(s, "drop"), sum, 0.1);
    return fv_linear_layer(fv_in(s, "fc"), fv_global_avg_pool(s, d), CLASSES, true,
                           fv_init_xavier_uniform(16, CLASSES));
}

static fv_graph *tiny_graph(fv_ctx *ctx, bool training, bool fuse, const fv_optim_cfg *optim) {
    fv_graph *g = fv_graph_new(ctx, training);
    if (!g) return NULL;
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, BATCH, SIZE, SIZE, 3)),
             y = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    fv_value logits = tiny_net(g, x);
    fv_value loss = fv_softmax_cross_entropy(fv_in(s, "loss"), logits, y, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "logits", logits);
    fv_set_output(g, "loss", loss);
    if (fuse) fv_graph_fuse(g);
    if (training && g->error == FV_OK && fv_optim_build(g, loss, optim) != FV_OK) {
        fv_graph_free(g);
        return NULL;
    }
    return g;
}

static const fv_optim_cfg sgd = {.kind = FV_OPT_SGD, .momentum = 0.9, .nesterov = true, .clip_grad = 5, .ema = true};

static fv_status open_trainer(trainer *t, const fv_backend *backend, const fv_device_opts *opts, bool fuse) {
    fv_ctx *ctx = &t->ctx;
    FV_TRY(backend->open(ctx, opts, &t->dev));
    fv_graph *g = tiny_graph(ctx, true, fuse, &sgd);
    if (!g) return ctx->error.code;
    fv_graph *e = tiny_graph(ctx, false, fuse, NULL);
    fv_status status = e ? fv_store_create(ctx, t->dev, &t->store) : ctx->error.code;
    if (status == FV_OK) status = fv_graph_finish(g);
    if (status == FV_OK) status = fv_store_bind(t->store, g);
    if (status == FV_OK) status = fv_store_commit(t->store, 3);
    if (status != FV_OK) {
        fv_graph_free(g);
        fv_graph_free(e);
        return status;
    }
    status = fv_compile(ctx, g, t->store, t->dev, NULL, &t->train);
    if (status != FV_OK) {
        fv_graph_free(e);
        return status;
    }
    return fv_compile(ctx, e, t->store, t->dev, &(fv_compile_opts){.share = t->train}, &t->eval);
}

static void close_trainer(trainer *t) {
    fv_program_destroy(t->eval);
    fv_program_destroy(t->train);
    fv_store_destroy(t->store);
    if (t->dev) t->dev->backend->close(t->dev);
}

static void feed(fv_program *p, int step) {
    static float x[BATCH * SIZE * SIZE * 3];
    int32_t labels[BATCH];
    int64_t keys[BATCH];
    for (int i = 0; i < BATCH * SIZE * SIZE * 3; i++)
        x[i] = (float)(2 * fv_uniform_f64(fv_random(1, (uint64_t)i, 0, (uint64_t)step, 7).v[0]) - 1);
    for (int i = 0; i < BATCH; i++) labels[i] = (i + step) % CLASSES, keys[i] = step * BATCH + i;
    ck_assert_int_eq(fv_program_input(p, "x", x, sizeof x), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "row_key", keys, sizeof keys), FV_OK);
}

static float run_steps(trainer *t, int first, int n) {
    float loss = 0;
    for (int i = first; i < first + n; i++) {
        feed(t->train, i);
        fv_step step = {.seed = 5, .step = i, .lr = {0.05, 0.05}, .weight_decay = {1e-3, 0}, .ema_decay = 0.9};
        ck_assert_msg(fv_program_run(t->train, &step, FV_ALL_SEGMENTS) == FV_OK, "%s", t->ctx.error.message);
        ck_assert_int_eq(fv_program_output(t->train, "loss", &loss, sizeof loss), FV_OK);
    }
    return loss;
}

static uint64_t hash_after(const fv_backend *backend, fv_device_opts opts, bool fuse, int steps, float *loss) {
    trainer t = {0};
    fv_ctx_init(&t.ctx);
    ck_assert_msg(open_trainer(&t, backend, &opts, fuse) == FV_OK, "%s", t.ctx.error.message);
    *loss = run_steps(&t, 0, steps);
    uint64_t hash;
    ck_assert_int_eq(fv_store_hash(t.store, &hash), FV_OK);
    close_trainer(&t);
    return hash;
}

/* ---------------------------------------------------------------- builder */

START_TEST(first_error_sticks) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_in(fv_root(g), "layer1");
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 2, 4, 4, 3));
    fv_value w = fv_param(s, "weight", fv_shape(FV_F32, 8, 3, 3, 5), FV_OIHW, FV_ZEROS, false);
    fv_value y = fv_conv2d(s, x, w, FV_NONE, (fv_conv2d_attr){0});
    ck_assert(fv_is_none(y));
    ck_assert(fv_is_none(fv_relu(s, y))); /* goes on without a crash */
    ck_assert(fv_is_none(fv_linear(s, y, w, FV_NONE)));
    ck_assert_int_eq(fv_graph_finish(g), FV_E_MODEL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "layer1"));
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "conv2d"));
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "[2,4,4,3]"));
    fv_graph_free(g);
}
END_TEST

START_TEST(names_are_unique) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_param(s, "weight", fv_shape(FV_F32, 3), FV_PLAIN, FV_ZEROS, true);
    fv_param(s, "weight", fv_shape(FV_F32, 3), FV_PLAIN, FV_ZEROS, true);
    ck_assert_int_eq(fv_graph_finish(g), FV_E_INTERNAL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "twice"));
    fv_graph_free(g);
}
END_TEST

START_TEST(only_scalars_are_differentiated_without_cotangent) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, 3)), dx;
    ck_assert_int_eq(fv_gradients(g, fv_relu(fv_root(g), x), 1, &x, &dx), FV_E_MODEL);
    fv_graph_free(g);
}
END_TEST

START_TEST(dump_names_what_there_is) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = tiny_graph(&ctx, true, true, &sgd);
    ck_assert_ptr_nonnull(g);
    const char *text = fv_graph_dump(g);
    ck_assert_ptr_nonnull(text);
    static const char *const expected[] = {
        "conv2d(",        "batch_norm(", "act relu",    "sgd_update(", "input x f32 [8,8,8,3]", "weight conv1.weight",
        "segment update", "output loss", "moment opt.", "dropout("};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        ck_assert_msg(strstr(text, expected[i]) != NULL, "no '%s' in:\n%s", expected[i], text);
    fv_graph_free(g);
}
END_TEST

/* ---------------------------------------------------------------- fusion, plan */

START_TEST(fusion_finds_the_patterns) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = tiny_graph(&ctx, true, true, &sgd);
    int fused = 0, with_residual = 0, add_or_relu = 0;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        if (n->op == FV_OP_BATCH_NORM && n->attr.batch_norm.act == FV_ACT_RELU)
            fused++, with_residual += n->operands == 4;
        if (!n->backward && (n->op == FV_OP_ACTIVATION || n->op == FV_OP_ADD)) add_or_relu++;
    }
    ck_assert_int_eq(fused, 3);
    ck_assert_int_eq(with_residual, 1);
    ck_assert_int_eq(add_or_relu, 0);
    ck_assert_msg(fv_graph_verify(g) == FV_OK, "%s", ctx.error.message);
    fv_graph_free(g);
}
END_TEST

START_TEST(fused_is_unfused) {
    float fused, plain;
    hash_after(&fv_backend_ref, (fv_device_opts){0}, true, 5, &fused);
    hash_after(&fv_backend_ref, (fv_device_opts){0}, false, 5, &plain);
    ck_assert_msg(fabsf(fused - plain) <= 1e-6f * fabsf(plain), "loss %.9g fused, %.9g unfused", (double)fused,
                  (double)plain);
}
END_TEST

typedef struct stay { /* of a value or a workspace in the arena */
    size_t bytes, offset;
    int32_t def, last;
} stay;

static int list_stays(const fv_plan *p, stay *out) {
    const fv_graph *g = p->graph;
    int n = 0;
    for (int32_t i = 1; i < g->n_values; i++) {
        const fv_place *a = &p->place[i];
        if (a->where == FV_AT_ARENA && !a->alias)
            out[n++] = (stay){fv_bytes(g->values[i].type), a->offset, a->def, a->last};
    }
    for (int32_t at = 0; at < p->segment_first[FV_SEG_COUNT]; at++) {
        const fv_workspace *w = &p->workspace[p->order[at]];
        if (w->bytes) out[n++] = (stay){w->bytes, w->offset, at, at};
    }
    return n;
}

/* The most that is alive at one position. */
static size_t fullest(const fv_plan *p, const stay *list, int n) {
    size_t most = 0;
    for (int32_t at = 0; at < p->segment_first[FV_SEG_COUNT]; at++) {
        size_t bytes = 0;
        for (int i = 0; i < n; i++) bytes += list[i].def <= at && at <= list[i].last ? list[i].bytes : 0;
        if (bytes > most) most = bytes;
    }
    return most;
}

/* No two values or workspaces that live at the same time share memory, unless one is the other's alias; and little is
 * left empty. */
START_TEST(plan_keeps_living_values_apart) {
    trainer t = {0};
    fv_ctx_init(&t.ctx);
    ck_assert_int_eq(open_trainer(&t, &fv_backend_cpu, &(fv_device_opts){.threads = 2}, true), FV_OK);
    const fv_plan *p = fv_program_plan(t.train);
    stay *list = calloc((size_t)(p->graph->n_values + p->graph->n_nodes), sizeof *list);
    ck_assert_ptr_nonnull(list);
    const int n = list_stays(p, list);
    int pairs = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < i; j++) {
            const stay *a = &list[i], *b = &list[j];
            if (a->def > b->last || b->def > a->last) continue;
            ck_assert_msg(a->offset + a->bytes <= b->offset || b->offset + b->bytes <= a->offset,
                          "%zu bytes at %zu and %zu at %zu overlap", a->bytes, a->offset, b->bytes, b->offset);
            pairs++;
        }
    ck_assert_int_gt(pairs, 100);
    ck_assert_uint_gt(p->workspace_bytes, 0);
    ck_assert_uint_lt(p->arena_bytes, p->naive_bytes * 7 / 10); /* reuse is worth it */
    ck_assert_uint_le(p->arena_bytes, fullest(p, list, n) * 105 / 100);
    free(list);
    close_trainer(&t);
}
END_TEST

/* Blocks of many sizes and lives, as a model has them: what no value fills stays small. Placed by size alone they would
 * leave more. */
START_TEST(plan_leaves_few_gaps) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_device *dev;
    fv_store *store;
    fv_plan plan;
    ck_assert_int_eq(fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = 2, .isa = "generic"}, &dev), FV_OK);
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, 16, 224, 224, 3)), y = fv_input(s, "labels", fv_shape(FV_I32, 16));
    fv_value logits =
        fv_model_build(g, "resnet50", x, &(fv_model_cfg){.num_classes = 1000, .img_size = 224, .in_chans = 3});
    fv_value loss = fv_softmax_cross_entropy(fv_in(s, "loss"), logits, y, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    ck_assert_int_eq(fv_optim_build(g, loss, &sgd), FV_OK);
    ck_assert_int_eq(fv_graph_recompute(g, 0.02, NULL), FV_OK);
    ck_assert_int_eq(fv_store_create(&ctx, dev, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_plan_make(g, store, dev, NULL, &plan), FV_OK);
    stay *list = calloc((size_t)(g->n_values + g->n_nodes), sizeof *list);
    ck_assert_ptr_nonnull(list);
    const size_t least = fullest(&plan, list, list_stays(&plan, list));
    ck_assert_msg(plan.arena_bytes <= least * 101 / 100, "arena of %zu bytes, %zu alive", plan.arena_bytes, least);
    free(list);
    fv_store_destroy(store);
    fv_graph_free(g);
    dev->backend->close(dev);
}
END_TEST

/* ---------------------------------------------------------------- programs */

START_TEST(nothing_is_allocated_after_compile) {
    const fv_backend *backends[] = {&fv_backend_ref, &fv_backend_cpu};
    for (int i = 0; i < 2; i++) {
        trainer t = {0};
        counter c;
        fv_ctx_init(&t.ctx);
        count_allocations(&t.ctx, &c);
        ck_assert_int_eq(open_trainer(&t, backends[i], &(fv_device_opts){.threads = 2}, true), FV_OK);
        long before = c.calls;
        run_steps(&t, 0, 3);
        ck_assert_int_eq(c.calls, before);
        close_trainer(&t);
        ck_assert_int_eq(c.live, 0);
    }
}
END_TEST

START_TEST(every_failed_allocation_is_survived) {
    long n = 0;
    for (bool done = false; !done; n++) {
        trainer t = {0};
        counter c;
        fv_ctx_init(&t.ctx);
        count_allocations(&t.ctx, &c);
        c.fail_at = n;
        fv_status status = open_trainer(&t, &fv_backend_cpu, &(fv_device_opts){.threads = 2}, true);
        done = status == FV_OK && c.calls <= n;
        if (status != FV_OK)
            ck_assert_msg(status == FV_E_MEMORY, "allocation %ld: status %d: %s", n, status, t.ctx.error.message);
        close_trainer(&t);
        ck_assert_msg(c.live == 0, "allocation %ld: %ld blocks leak", n, c.live);
    }
    ck_assert_int_gt(n, 20);
}
END_TEST

START_TEST(same_bits_for_any_threads_and_run) {
    static const char *const isas[] = {"generic", "avx2", "avx512", "wide"};
    for (int k = 0; k < 4; k++) {
        fv_ctx ctx;
        fv_ctx_init(&ctx);
        fv_device *dev;
        if (fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = 1, .isa = isas[k]}, &dev) != FV_OK) continue;
        fv_backend_cpu.close(dev);
        float loss, again;
        uint64_t first = hash_after(&fv_backend_cpu, (fv_device_opts){.threads = 1, .isa = isas[k]}, true, 4, &loss);
        for (int run = 0; run < 10; run++) {
            static const int threads[] = {1, 2, 4, 3, 2, 8, 4, 2, 1, 2};
            uint64_t hash =
                hash_after(&fv_backend_cpu, (fv_device_opts){.threads = threads[run], .isa = isas[k]}, true, 4, &again);
            ck_assert_msg(hash == first, "%s: run %d with %d threads has other bits", isas[k], run, threads[run]);
        }
    }
}
END_TEST

START_TEST(cpu_follows_ref) {
    float ref, cpu;
    hash_after(&fv_backend_ref, (fv_device_opts){0}, true, 5, &ref);
    hash_after(&fv_backend_cpu, (fv_device_opts){0}, true, 5, &cpu);
    ck_assert_msg(fabsf(ref - cpu) <= 1e-4f * fabsf(ref), "loss %.9g on ref, %.9g on cpu", (double)ref, (double)cpu);
}
END_TEST

START_TEST(evaluation_shares_memory_and_harms_nothing) {
    trainer t = {0};
    fv_ctx_init(&t.ctx);
    ck_assert_int_eq(open_trainer(&t, &fv_backend_cpu, &(fv_device_opts){0}, true), FV_OK);
    ck_assert_ptr_eq(fv_program_plan(t.eval)->arena, fv_program_plan(t.train)->arena);
    run_steps(&t, 0, 2);
    feed(t.eval, 0);
    ck_assert_int_eq(fv_program_run(t.eval, NULL, FV_ALL_SEGMENTS), FV_OK);
    float with = run_steps(&t, 2, 2), without;
    hash_after(&fv_backend_cpu, (fv_device_opts){0}, true, 4, &without);
    ck_assert(with == without);
    close_trainer(&t);
}
END_TEST

/* A step whose gradients are not finite changes nothing: weights, moments, averages, running statistics. */
START_TEST(non_finite_step_changes_nothing) {
    const fv_backend *backends[] = {&fv_backend_ref, &fv_backend_cpu};
    for (int i = 0; i < 2; i++) {
        trainer t = {0};
        fv_ctx_init(&t.ctx);
        ck_assert_int_eq(open_trainer(&t, backends[i], &(fv_device_opts){0}, true), FV_OK);
        run_steps(&t, 0, 1);
        uint64_t before, after;
        ck_assert_int_eq(fv_store_hash(t.store, &before), FV_OK);
        static float x[BATCH * SIZE * SIZE * 3];
        x[17] = NAN;
        feed(t.train, 1);
        ck_assert_int_eq(fv_program_input(t.train, "x", x, sizeof x), FV_OK);
        fv_step step = {.seed = 5, .step = 1, .lr = {0.05, 0.05}, .ema_decay = 0.9};
        ck_assert_int_eq(fv_program_run(t.train, &step, FV_ALL_SEGMENTS), FV_OK);
        float stats[2];
        ck_assert_int_eq(fv_program_output(t.train, "grad_stats", stats, sizeof stats), FV_OK);
        ck_assert(stats[1] == 0.0f);
        ck_assert_int_eq(fv_store_hash(t.store, &after), FV_OK);
        ck_assert_uint_eq(before, after);
        close_trainer(&t);
    }
}
END_TEST

START_TEST(a_label_out_of_range_is_reported) {
    const fv_backend *backends[] = {&fv_backend_ref, &fv_backend_cpu};
    for (int i = 0; i < 2; i++) {
        trainer t = {0};
        fv_ctx_init(&t.ctx);
        ck_assert_int_eq(open_trainer(&t, backends[i], &(fv_device_opts){0}, true), FV_OK);
        feed(t.train, 0);
        int32_t labels[BATCH] = {0, 1, CLASSES, 0};
        ck_assert_int_eq(fv_program_input(t.train, "labels", labels, sizeof labels), FV_OK);
        ck_assert_int_eq(fv_program_run(t.train, &(fv_step){0}, 1u << FV_SEG_FORWARD_BACKWARD), FV_E_DATA);
        ck_assert_ptr_nonnull(strstr(t.ctx.error.message, "5"));
        close_trainer(&t);
    }
}
END_TEST

Suite *graph_suite(void);
Suite *graph_suite(void) {
    Suite *s = suite_create("graph");
    TCase *tc = tcase_create("passes");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, first_error_sticks);
    tcase_add_test(tc, names_are_unique);
    tcase_add_test(tc, only_scalars_are_differentiated_without_cotangent);
    tcase_add_test(tc, dump_names_what_there_is);
    tcase_add_test(tc, fusion_finds_the_patterns);
    tcase_add_test(tc, fused_is_unfused);
    tcase_add_test(tc, plan_keeps_living_values_apart);
    tcase_add_test(tc, plan_leaves_few_gaps);
    tcase_add_test(tc, nothing_is_allocated_after_compile);
    tcase_add_test(tc, every_failed_allocation_is_survived);
    tcase_add_test(tc, same_bits_for_any_threads_and_run);
    tcase_add_test(tc, cpu_follows_ref);
    tcase_add_test(tc, evaluation_shares_memory_and_harms_nothing);
    tcase_add_test(tc, non_finite_step_changes_nothing);
    tcase_add_test(tc, a_label_out_of_range_is_reported);
    suite_add_tcase(s, tc);
    return s;
}
