/* test_cuda.c: backends out of shared objects, and what the CUDA backend promises as a device: the same training as the
 * reference, the same bits with and without recorded steps, no allocation after the second step, nothing left behind.
 * Without a GPU its sources run on the host (tests/cuda/emulate), which also counts what they ask of the GPU. */
#include "fovea.h"
#include "tests/cuda/emulate/cuda_runtime.h"
#include "tests/harness.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BATCH = 6, SIZE = 8, CLASSES = 5, STEPS = 4 };

/* ---------------------------------------------------------------- loading */

static void expect(fv_ctx *ctx, const char *name, const char *folder, const char *message) {
    const fv_backend *backend;
    ck_assert_int_eq(fv_backend_load(ctx, name, folder, &backend), FV_E_MEMORY);
    ck_assert_msg(strstr(ctx->error.message, message) != NULL, "'%s', not '%s'", ctx->error.message, message);
}

START_TEST(test_backends_that_do_not_load) {
    fv_ctx ctx;
    const fv_backend *backend;
    char folder[] = "/tmp/fovea-backend-XXXXXX", path[64];
    fv_ctx_init(&ctx);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    ck_assert_int_eq(fv_backend_load(&ctx, "ref", folder, &backend), FV_OK);
    ck_assert_ptr_eq(backend, &fv_backend_ref);
    expect(&ctx, "abacus", folder, "there is no libfovea-abacus.so");
    expect(&ctx, "abacus", NULL, "there is no libfovea-abacus.so");
    ck_assert_ptr_nonnull(strstr(ctx.error.hint, "make abacus"));
    snprintf(path, sizeof path, "%s/libfovea-abacus.so", folder);
    FILE *f = fopen(path, "w");
    ck_assert_ptr_nonnull(f);
    fputs("beads", f);
    ck_assert_int_eq(fclose(f), 0);
    expect(&ctx, "abacus", folder, "the device 'abacus' cannot be opened: ");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(symlink("/lib/x86_64-linux-gnu/libm.so.6", path), 0);
    if (access(path, F_OK) == 0) expect(&ctx, "abacus", folder, "is of another build");
    ck_assert_int_eq(unlink(path), 0);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

/* What the library of the backend exports, when it is the emulation. */
static void *symbol(const char *name) {
    char path[4200];
    snprintf(path, sizeof path, "%s/libfovea-cuda.so", fvt_backends());
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return library ? dlsym(library, name) : NULL;
}

START_TEST(test_other_builds_are_refused) {
    fvt_device d;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    fvt_close(&d);
    fv_backend_entry_fn entry;
    void *p = symbol("fv_backend_entry");
    ck_assert_ptr_nonnull(p);
    memcpy(&entry, &p, sizeof entry);
    ck_assert_ptr_nonnull(entry(fv_backend_abi()));
    ck_assert_ptr_null(entry(fv_backend_abi() + 1));
}
END_TEST

/* ---------------------------------------------------------------- a small net in training */

static fv_graph *net(fv_ctx *ctx) {
    fv_graph *g = fv_graph_new(ctx, true);
    const fv_scope s = fv_root(g);
    const double mean[3] = {0.4, 0.5, 0.6}, std[3] = {0.2, 0.25, 0.3};
    fv_value x = fv_picture_input(s, BATCH, SIZE, SIZE, 3, mean, std, FV_PAD_REFLECT);
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    x = fv_conv_bn_act(s, "conv", "bn", x, (fv_conv_cfg){.out = 8, .kernel = 3, .pad = 1}, (fv_bn_cfg){0}, FV_ACT_RELU);
    x = fv_max_pool2d(s, x, (fv_pool_attr){.kernel = {2, 2}});
    x = fv_dropout(fv_in(s, "drop"), x, 0.1);
    x = fv_global_avg_pool(s, x);
    fv_value logits = fv_linear_layer(fv_in(s, "head"), x, CLASSES, true, fv_init_normal(0.1));
    fv_value loss =
        fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){.label_smoothing = 0.1});
    fv_set_output(g, "loss", loss);
    fv_set_output(g, "logits", logits);
    fv_graph_fuse(g);
    const fv_optim_cfg optim = {.kind = FV_OPT_SGD, .momentum = 0.9, .nesterov = true, .clip_grad = 1, .ema = true};
    ck_assert_int_eq(fv_optim_build(g, loss, &optim), FV_OK);
    return g;
}

static void feed(fv_program *p, int64_t step, int32_t first_label) {
    static uint8_t images[BATCH * SIZE * SIZE * 3];
    float record[BATCH][FV_AUG_FIELDS] = {0};
    int32_t labels[BATCH];
    int64_t keys[BATCH];
    for (size_t i = 0; i < sizeof images; i++)
        images[i] = (uint8_t)(256 * fvt_uniform(3, i + (uint64_t)step * sizeof images, 1));
    for (int i = 0; i < BATCH; i++) {
        labels[i] = (int32_t)((i + step) % CLASSES);
        keys[i] = 100 * step + i;
        record[i][FV_AUG_FLIP] = (float)(i % 2);
        record[i][FV_AUG_TOP] = -1;
    }
    if (first_label) labels[0] = first_label;
    ck_assert_int_eq(fv_program_input(p, "images", images, sizeof images), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "record", record, sizeof record), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "labels", labels, sizeof labels), FV_OK);
    ck_assert_int_eq(fv_program_input(p, "row_key", keys, sizeof keys), FV_OK);
}

static fv_step numbers_of(int64_t i) {
    return (fv_step){
        .seed = 5, .step = i, .lr = {0.1, 0.1}, .weight_decay = {1e-3, 0}, .ema_decay = 0.9, .loss_scale = 1};
}

static fv_status step(fv_program *p, int64_t i, int32_t first_label) {
    const fv_step numbers = numbers_of(i);
    feed(p, i, first_label);
    return fv_program_run(p, &numbers, FV_ALL_SEGMENTS);
}

static fv_status begin(fv_program *p, int64_t i, int32_t first_label) {
    const fv_step numbers = numbers_of(i);
    feed(p, i, first_label);
    return fv_program_begin(p, &numbers, FV_ALL_SEGMENTS);
}

typedef struct trained {
    double loss[STEPS];
    uint64_t hash;
    float logits[BATCH * CLASSES];
} trained;

static void open_net(fvt_device *d, fv_store **store, fv_program **p) {
    fv_graph *g = net(&d->ctx);
    ck_assert_msg(fv_program_create(&d->ctx, g, d->dev, 11, NULL, store, p) == FV_OK, "%s", d->ctx.error.message);
}

static void train(fvt_device *d, trained *out) {
    fv_store *store;
    fv_program *p;
    open_net(d, &store, &p);
    for (int i = 0; i < STEPS; i++) {
        ck_assert_msg(step(p, i, 0) == FV_OK, "%s", d->ctx.error.message);
        out->loss[i] = fv_program_scalar(p, "loss");
    }
    ck_assert_int_eq(fv_program_output(p, "logits", out->logits, sizeof out->logits), FV_OK);
    ck_assert_int_eq(fv_store_hash(store, &out->hash), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
}

START_TEST(test_training_is_that_of_the_reference) {
    fvt_device d;
    trained want, got, again, plain;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    ck_assert(!d.dev->host_memory);
    train(&d, &got);
    train(&d, &again);
    fvt_close(&d);
    ck_assert(fvt_open_with(&d, "cuda", &(fv_device_opts){.no_graphs = true}));
    train(&d, &plain);
    fvt_close(&d);
    ck_assert(fvt_open(&d, "ref", 0, NULL));
    train(&d, &want);
    fvt_close(&d);
    ck_assert_msg(!memcmp(&got, &again, sizeof got), "a second run gives other bits");
    ck_assert_msg(!memcmp(&got, &plain, sizeof got), "without a CUDA graph there are other bits");
    for (int i = 0; i < STEPS; i++) ck_assert_double_eq_tol(got.loss[i], want.loss[i], 2e-6);
    for (int i = 0; i < BATCH * CLASSES; i++) ck_assert_float_eq_tol(got.logits[i], want.logits[i], 1e-5f);
    ck_assert_double_gt(fabs(got.loss[0] - got.loss[STEPS - 1]), 1e-4); /* it learns */
}
END_TEST

/* ---------------------------------------------------------------- what is asked of the GPU */

typedef struct emulation {
    fv_emulated_counts (*count)(void);
    void (*reset)(void);
} emulation;

static bool find_emulation(emulation *e) {
    void *count = symbol("fv_emulated_count"), *reset = symbol("fv_emulated_reset");
    memcpy(&e->count, &count, sizeof count);
    memcpy(&e->reset, &reset, sizeof reset);
    if (!count) printf("SKIPPED: counts of launches and allocations: this is no emulation\n");
    return count && reset;
}

START_TEST(test_steps_allocate_nothing_and_are_one_launch) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    emulation e;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    if (!find_emulation(&e)) return fvt_close(&d);
    open_net(&d, &store, &p);
    const fv_plan *plan = fv_program_plan(p);
    for (int i = 0; i < 2; i++) ck_assert_int_eq(step(p, i, 0), FV_OK);
    const fv_emulated_counts before = e.count();
    e.reset();
    for (int i = 2; i < 5; i++) ck_assert_int_eq(step(p, i, 0), FV_OK);
    const fv_emulated_counts after = e.count();
    const int64_t nodes = plan->segment_first[FV_SEG_COUNT];
    ck_assert_int_eq(after.allocations, 0);
    ck_assert_int_eq(after.frees, 0);
    ck_assert_int_eq(after.live, before.live);
    ck_assert_int_eq(after.host_live, before.host_live);
    ck_assert_int_eq(after.objects, before.objects);
    ck_assert_int_eq(after.recordings, 0);
    ck_assert_int_eq(after.enqueued, 0);
    ck_assert_int_eq(after.graphs, 3);
    ck_assert_int_eq(after.copies, 3 * (4 + 1 + 1)); /* four inputs, the step's numbers, the fault word */
    ck_assert_int_eq(after.waits, 3);
    /* Batch norm, loss and gradient norm reduce in more than one kernel; nothing else needs more than one or two. */
    ck_assert_int_le(after.launches, 3 * 2 * nodes);
    ck_assert_int_ge(after.launches, 3 * nodes / 2);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* The same training, but that a step is begun before the one before it is looked at. */
static void train_ahead(fvt_device *d, emulation *e, trained *out) {
    fv_store *store;
    fv_program *p;
    float loss;
    open_net(d, &store, &p);
    ck_assert_int_eq(fv_program_watch(p, (const char *[]){"loss", "logits"}, 2), FV_OK);
    for (int i = 0; i <= STEPS; i++) {
        const fv_emulated_counts before = e->count();
        if (i < STEPS) ck_assert_int_eq(begin(p, i, 0), FV_OK);
        /* Nobody has waited: not for the step before, whose kernels have not run yet, nor for memory. */
        if (i > 0) ck_assert_int_eq(e->count().waits, before.waits);
        if (i > 0) ck_assert_int_eq(e->count().launches, before.launches);
        if (i == 0) continue;
        ck_assert_int_eq(fv_program_running(p), i < STEPS ? 2 : 1);
        ck_assert_int_eq(fv_program_end(p), FV_OK);
        ck_assert_int_eq(e->count().waits, before.waits + 1);
        ck_assert_int_eq(fv_program_running(p), i < STEPS);
        memcpy(&loss, fv_program_seen(p, "loss"), sizeof loss);
        out->loss[i - 1] = (double)loss;
        memcpy(out->logits, fv_program_seen(p, "logits"), sizeof out->logits);
    }
    ck_assert_ptr_null(fv_program_seen(p, "grad_stats"));
    ck_assert_int_eq(fv_program_end(p), FV_E_INTERNAL);
    ck_assert_int_eq(fv_store_hash(store, &out->hash), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
}

START_TEST(test_a_step_begins_while_one_runs) {
    fvt_device d;
    emulation e;
    trained want, got;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    if (!find_emulation(&e)) return fvt_close(&d);
    ck_assert_double_eq(d.dev->busy_seconds, 0);
    train(&d, &want);
    const double busy = d.dev->busy_seconds;
    ck_assert_double_gt(busy, 0);
    train_ahead(&d, &e, &got);
    ck_assert_double_gt(d.dev->busy_seconds, busy);
    ck_assert_msg(!memcmp(&want, &got, sizeof want), "one step ahead there are other bits");
    fvt_close(&d);
}
END_TEST

/* On the host runs are over when they have begun; what is seen is theirs. */
START_TEST(test_runs_on_the_host) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    float loss[3], last;
    ck_assert(fvt_open(&d, "cpu", 1, NULL));
    open_net(&d, &store, &p);
    ck_assert_ptr_null(fv_program_seen(p, "loss"));
    ck_assert_int_eq(fv_program_watch(p, (const char *[]){"nothing"}, 1), FV_E_INTERNAL);
    ck_assert_int_eq(fv_program_watch(p, (const char *[]){"loss"}, 1), FV_OK);
    ck_assert_int_eq(fv_program_watch(p, (const char *[]){"loss"}, 1), FV_E_INTERNAL);
    for (int i = 0; i < 2; i++) ck_assert_int_eq(begin(p, i, 0), FV_OK);
    ck_assert_int_eq(begin(p, 2, 0), FV_E_INTERNAL);
    ck_assert_int_eq(step(p, 2, 0), FV_E_INTERNAL);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(fv_program_end(p), FV_OK);
        memcpy(&loss[i], fv_program_seen(p, "loss"), sizeof loss[i]);
    }
    last = (float)fv_program_scalar(p, "loss");
    ck_assert(loss[1] == last && loss[0] != last);
    ck_assert_double_eq(d.dev->busy_seconds, 0);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* Pictures large enough to take the way beside the stream (cuda/staging.c), often enough that the ring comes round. */
START_TEST(test_batches_stream_while_steps_run) {
    enum { N = 12, SIDE = 128, PIXELS = N * SIDE * SIDE * 3, RUNS = 60 };
    fvt_device d;
    emulation e;
    fv_store *store;
    fv_program *p;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    if (!find_emulation(&e)) return fvt_close(&d);
    fv_graph *g = fv_graph_new(&d.ctx, false);
    const double mean[3] = {0}, std[3] = {1, 1, 1};
    fv_value x = fv_picture_input(fv_root(g), N, SIDE, SIDE, 3, mean, std, FV_PAD_ZERO);
    fv_set_output(g, "y", fv_global_avg_pool(fv_root(g), x));
    ck_assert_int_eq(fv_program_create(&d.ctx, g, d.dev, 1, NULL, &store, &p), FV_OK);
    ck_assert_int_eq(fv_program_watch(p, (const char *[]){"y"}, 1), FV_OK);
    uint8_t *images = malloc(PIXELS);
    float record[N][FV_AUG_FIELDS] = {0}, y[N * 3];
    for (int i = 0; i <= RUNS; i++) {
        const int64_t waits = e.count().waits;
        memset(images, i, PIXELS);
        ck_assert_int_eq(fv_program_input(p, "images", images, PIXELS), FV_OK);
        ck_assert_int_eq(fv_program_input(p, "record", record, sizeof record), FV_OK);
        memset(images, 255, PIXELS); /* the caller's again */
        ck_assert_int_eq(fv_program_begin(p, NULL, FV_ALL_SEGMENTS), FV_OK);
        ck_assert_msg(e.count().waits == waits, "batch %d waits", i);
        if (i == 0) continue;
        ck_assert_int_eq(fv_program_end(p), FV_OK);
        memcpy(y, fv_program_seen(p, "y"), sizeof y);
        for (int k = 0; k < N * 3; k++) ck_assert_float_eq_tol(y[k], (float)(i - 1) / 255, 1e-6f);
    }
    ck_assert_int_eq(fv_program_end(p), FV_OK);
    free(images);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* A table in memory of the caller's: two programs over the same arena take rows of it, and it stays as it was. */
static void gather_rows(fvt_device *d) {
    enum { ROWS = 7, WIDTH = 5 };
    const fv_backend *b = d->dev->backend;
    fv_store *store, *other;
    fv_program *p[2];
    float table[ROWS * WIDTH], y[2 * WIDTH];
    void *memory;
    for (int i = 0; i < ROWS * WIDTH; i++) table[i] = (float)i;
    ck_assert_int_eq(b->alloc(d->dev, sizeof table, &memory), FV_OK);
    ck_assert_int_eq(b->copy(d->dev, memory, table, sizeof table, FV_COPY_TO_DEVICE), FV_OK);
    const fv_bound_input bound[] = {{"nothing", memory, 1}, {"table", memory, sizeof table}};
    for (int k = 0; k < 2; k++) {
        fv_graph *g = fv_graph_new(&d->ctx, false);
        fv_value rows = fv_input(fv_root(g), "rows", fv_shape(FV_I32, 2));
        fv_value x =
            fv_gather(fv_in(fv_root(g), "batch"), fv_input(fv_root(g), "table", fv_shape(FV_F32, ROWS, WIDTH)), rows);
        fv_set_output(g, "y", fv_scale(fv_root(g), x, 2, 1));
        const fv_compile_opts opts = {.bound = bound, .n_bound = 2, .share = k ? p[0] : NULL};
        ck_assert_int_eq(fv_program_create(&d->ctx, g, d->dev, 1, &opts, k ? &other : &store, &p[k]), FV_OK);
        ck_assert_uint_lt(fv_program_plan(p[k])->arena_bytes, 2048); /* the table is not in it */
    }
    for (int32_t i = 0; i < 6; i++) {
        const int32_t rows[2] = {i, (i + 3) % ROWS};
        fv_program *q = p[i % 2];
        ck_assert_int_eq(fv_program_input(q, "rows", rows, sizeof rows), FV_OK);
        ck_assert_int_eq(fv_program_run(q, NULL, FV_ALL_SEGMENTS), FV_OK);
        ck_assert_int_eq(fv_program_output(q, "y", y, sizeof y), FV_OK);
        for (int r = 0; r < 2; r++)
            for (int w = 0; w < WIDTH; w++)
                ck_assert_float_eq(y[r * WIDTH + w], (float)(2 * (rows[r] * WIDTH + w) + 1));
    }
    for (int32_t bad = -1; bad <= ROWS; bad += ROWS + 1) {
        char want[64];
        const int32_t rows[2] = {0, bad};
        snprintf(want, sizeof want, "batch: index %d of row 1 is outside [0, 7)", bad);
        ck_assert_int_eq(fv_program_input(p[0], "rows", rows, sizeof rows), FV_OK);
        ck_assert_int_eq(fv_program_run(p[0], NULL, FV_ALL_SEGMENTS), FV_E_DATA);
        ck_assert_msg(!strcmp(d->ctx.error.message, want), "'%s', not '%s'", d->ctx.error.message, want);
    }
    ck_assert_int_eq(fv_program_input(p[0], "table", table, sizeof table), FV_E_INTERNAL);
    fv_program_destroy(p[1]);
    fv_program_destroy(p[0]);
    fv_store_destroy(other);
    fv_store_destroy(store);
    b->free(d->dev, memory, sizeof table);
}

START_TEST(test_a_table_of_the_callers) {
    static const char *const devices[] = {"ref", "cpu", "cuda"};
    for (int i = 0; i < 3; i++) {
        fvt_device d;
        if (!fvt_open(&d, devices[i], 2, NULL)) return;
        gather_rows(&d);
        fv_store *store;
        fv_program *p;
        fv_graph *g = fv_graph_new(&d.ctx, false);
        fv_set_output(g, "y", fv_scale(fv_root(g), fv_input(fv_root(g), "x", fv_shape(FV_F32, 3)), 1, 0));
        const fv_bound_input bound = {"x", &d, 4};
        const fv_compile_opts opts = {.bound = &bound, .n_bound = 1};
        ck_assert_int_eq(fv_program_create(&d.ctx, g, d.dev, 1, &opts, &store, &p), FV_E_INTERNAL);
        ck_assert_ptr_nonnull(strstr(d.ctx.error.message, "input 'x' takes 12 bytes, it is bound to 4"));
        fvt_close(&d);
    }
}
END_TEST

/* The first step is given infinities: what is enqueued behind it changes nothing, if it is to halt. */
START_TEST(test_nothing_is_updated_behind_a_step_that_halts) {
    fvt_device d;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    for (int halts = 0; halts < 2; halts++) {
        fv_store *store;
        fv_program *p;
        uint64_t before, after;
        fv_graph *g = fv_graph_new(&d.ctx, true);
        const fv_scope s = fv_root(g);
        fv_value x = fv_input(s, "x", fv_shape(FV_F32, 4, 3));
        fv_value y = fv_linear_layer(fv_in(s, "head"), x, 2, true, fv_init_normal(0.1));
        fv_value loss = fv_sum(s, fv_mul(s, y, y), 3, false);
        fv_set_output(g, "loss", loss);
        ck_assert_int_eq(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD}), FV_OK);
        ck_assert_int_eq(fv_program_create(&d.ctx, g, d.dev, 1, NULL, &store, &p), FV_OK);
        ck_assert_int_eq(fv_store_hash(store, &before), FV_OK);
        for (int i = 0; i < 2; i++) {
            float in[12];
            for (int k = 0; k < 12; k++) in[k] = i == 0 ? INFINITY : (float)k;
            const fv_step numbers = {.lr = {0.1, 0.1}, .loss_scale = 1, .halts = halts};
            ck_assert_int_eq(fv_program_input(p, "x", in, sizeof in), FV_OK);
            ck_assert_int_eq(fv_program_begin(p, &numbers, FV_ALL_SEGMENTS), FV_OK);
        }
        for (int i = 0; i < 2; i++) ck_assert_int_eq(fv_program_end(p), FV_OK);
        ck_assert_int_eq(fv_store_hash(store, &after), FV_OK);
        ck_assert_msg((before == after) == halts, "halts %d", halts);
        fv_program_destroy(p);
        fv_store_destroy(store);
    }
    fvt_close(&d);
}
END_TEST

START_TEST(test_nothing_is_left_behind) {
    fvt_device d;
    emulation e;
    trained out;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    fvt_close(&d);
    if (!find_emulation(&e)) return;
    const fv_emulated_counts before = e.count();
    ck_assert(fvt_open(&d, "cuda", 0, NULL));
    train(&d, &out);
    ck_assert_int_gt((int64_t)d.dev->peak_bytes, 1000);
    fvt_close(&d);
    const fv_emulated_counts after = e.count();
    ck_assert_int_eq(after.live, before.live);
    ck_assert_int_eq(after.live_bytes, before.live_bytes);
    ck_assert_int_eq(after.host_live, before.host_live);
    ck_assert_int_eq(after.objects, before.objects);
}
END_TEST

/* A net in memory of every size below what it needs: the error has the figures, and what was had is given back. */
START_TEST(test_out_of_memory_at_every_allocation) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    emulation e;
    void (*limit)(size_t bytes);
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    if (!find_emulation(&e)) return fvt_close(&d);
    void *symbol_of_limit = symbol("fv_emulated_limit");
    memcpy(&limit, &symbol_of_limit, sizeof limit);
    const fv_emulated_counts before = e.count();
    open_net(&d, &store, &p);
    const fv_emulated_counts with_net = e.count();
    fv_program_destroy(p);
    fv_store_destroy(store);
    ck_assert_int_ge(with_net.live - before.live, 3);
    ck_assert_int_eq(e.count().live, before.live);
    int failures = 0;
    /* The emulation gives whole pages of 4096 bytes. */
    for (int64_t bytes = before.live_bytes + 4096; bytes < with_net.live_bytes; bytes += 4096, failures++) {
        double needed = 0, left = 0, total = 0;
        limit((size_t)bytes);
        fv_graph *g = net(&d.ctx);
        ck_assert_int_eq(fv_program_create(&d.ctx, g, d.dev, 11, NULL, &store, &p), FV_E_MEMORY);
        const char *message = strstr(d.ctx.error.message, "out of memory: ");
        ck_assert_msg(
            message && sscanf(message, "out of memory: %lf MB needed, %lf of %lf MB free", &needed, &left, &total) == 3,
            "'%s'", d.ctx.error.message);
        ck_assert_double_ge(needed + 0.0041 + 0.1, left); /* whole pages; one decimal */
        ck_assert_double_eq_tol(total, 1e-6 * (double)bytes, 0.051);
        ck_assert_ptr_nonnull(strstr(d.ctx.error.hint, "--batch-size"));
        const fv_emulated_counts after = e.count();
        ck_assert_int_eq(after.live, before.live);
        ck_assert_int_eq(after.live_bytes, before.live_bytes);
        ck_assert_int_eq(after.host_live, before.host_live);
        ck_assert_int_eq(after.objects, before.objects);
    }
    printf("out of memory %d times\n", failures);
    limit((size_t)with_net.live_bytes); /* exactly enough */
    open_net(&d, &store, &p);
    ck_assert_int_eq(step(p, 0, 0), FV_OK);
    limit(0);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

/* ---------------------------------------------------------------- faults, profile, devices */

START_TEST(test_a_wrong_label_is_named) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    open_net(&d, &store, &p);
    for (int i = 0; i < 4; i++) { /* launched, recorded, replayed; and what follows is not tainted */
        ck_assert_int_eq(step(p, 2 * i, 9), FV_E_DATA);
        ck_assert_msg(strstr(d.ctx.error.message, "label 9 of row 0 is outside [0, 5)"), "%s", d.ctx.error.message);
        ck_assert_int_eq(step(p, 2 * i + 1, 0), FV_OK);
    }
    /* Of the run that has it, whatever is under way behind it; what begins afterwards is in order. */
    ck_assert_int_eq(begin(p, 8, 0), FV_OK);
    ck_assert_int_eq(begin(p, 9, 9), FV_OK);
    ck_assert_int_eq(fv_program_end(p), FV_OK);
    ck_assert_int_eq(begin(p, 10, 0), FV_OK);
    ck_assert_int_eq(fv_program_end(p), FV_E_DATA);
    ck_assert_int_eq(fv_program_end(p), FV_OK);
    ck_assert_int_eq(step(p, 11, 0), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

START_TEST(test_profile_times_every_node) {
    fvt_device d;
    fv_store *store;
    fv_program *p;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    open_net(&d, &store, &p);
    const fv_backend *b = d.dev->backend;
    const fv_plan *plan = fv_program_plan(p);
    ck_assert_int_eq(step(p, 0, 0), FV_OK);
    ck_assert_int_eq(b->profile(fv_program_exec(p), true), FV_OK);
    for (int i = 1; i < 3; i++) ck_assert_int_eq(step(p, i, 0), FV_OK);
    const double *seconds = b->node_seconds(fv_program_exec(p));
    double total = 0;
    for (int32_t i = 0; i < plan->graph->n_nodes; i++) total += seconds[i];
    ck_assert_double_gt(total, 0);
    ck_assert_double_lt(total, 60);
    ck_assert_int_eq(b->profile(fv_program_exec(p), false), FV_OK);
    ck_assert_int_eq(step(p, 3, 0), FV_OK);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
}
END_TEST

START_TEST(test_a_clone_on_the_host_has_the_same_contents) {
    fvt_device d, host;
    fv_store *store, *clone;
    fv_program *p;
    uint64_t here, there;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    ck_assert(fvt_open(&host, "ref", 0, NULL));
    open_net(&d, &store, &p);
    for (int i = 0; i < 3; i++) ck_assert_int_eq(step(p, i, 0), FV_OK);
    ck_assert_int_eq(fv_store_clone(&host.ctx, store, host.dev, &clone), FV_OK);
    ck_assert_int_eq(fv_store_copy(clone, store), FV_OK);
    ck_assert_int_eq(fv_store_hash(store, &here), FV_OK);
    ck_assert_int_eq(fv_store_hash(clone, &there), FV_OK);
    ck_assert(here == there);
    ck_assert_int_eq(fv_store_reset_ema(store), FV_OK);
    const int32_t weight = fv_store_find(store, "conv.weight"), ema = fv_store_find(store, "ema.conv.weight");
    float w[8 * 27], m[8 * 27];
    ck_assert_int_eq(fv_store_read(store, weight, w, sizeof w), FV_OK);
    ck_assert_int_eq(fv_store_read(store, ema, m, sizeof m), FV_OK);
    ck_assert(!memcmp(w, m, sizeof w));
    fv_store_destroy(clone);
    fv_program_destroy(p);
    fv_store_destroy(store);
    fvt_close(&d);
    fvt_close(&host);
}
END_TEST

START_TEST(test_open_says_what_is_missing) {
    fvt_device d;
    fv_device *other;
    if (!fvt_open(&d, "cuda", 0, NULL)) return;
    ck_assert_int_eq(d.dev->backend->open(&d.ctx, &(fv_device_opts){.index = 99}, &other), FV_E_MEMORY);
    ck_assert_ptr_null(other);
    ck_assert_msg(strstr(d.ctx.error.message, "there is no GPU 99: this machine has "), "%s", d.ctx.error.message);
    ck_assert_ptr_nonnull(strstr(d.dev->libraries, "driver "));
    void *memory;
    ck_assert_int_eq(d.dev->backend->alloc(d.dev, (size_t)1 << 50, &memory), FV_E_MEMORY);
    ck_assert_ptr_null(memory);
    ck_assert_msg(strstr(d.ctx.error.message, "out of memory: 1125899906.8 MB needed"), "%s", d.ctx.error.message);
    fvt_close(&d);
}
END_TEST

Suite *cuda_suite(void);
Suite *cuda_suite(void) {
    Suite *s = suite_create("cuda");
    TCase *t = tcase_create("cuda");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, test_backends_that_do_not_load);
    tcase_add_test(t, test_other_builds_are_refused);
    tcase_add_test(t, test_training_is_that_of_the_reference);
    tcase_add_test(t, test_steps_allocate_nothing_and_are_one_launch);
    tcase_add_test(t, test_a_step_begins_while_one_runs);
    tcase_add_test(t, test_runs_on_the_host);
    tcase_add_test(t, test_batches_stream_while_steps_run);
    tcase_add_test(t, test_a_table_of_the_callers);
    tcase_add_test(t, test_nothing_is_updated_behind_a_step_that_halts);
    tcase_add_test(t, test_nothing_is_left_behind);
    tcase_add_test(t, test_out_of_memory_at_every_allocation);
    tcase_add_test(t, test_a_wrong_label_is_named);
    tcase_add_test(t, test_profile_times_every_node);
    tcase_add_test(t, test_a_clone_on_the_host_has_the_same_contents);
    tcase_add_test(t, test_open_says_what_is_missing);
    suite_add_tcase(s, t);
    return s;
}
