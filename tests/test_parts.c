/* test_parts.c: a program that runs over a batch part by part. */
#include "fovea.h"

#include "tests/harness.h"

#include <string.h>

enum { PARTS = 6, PART = 2, SIDE = 8, CLASSES = 5, PIXELS = SIDE * SIDE * 3 };

/* A bit of all: convolution, patches to tokens, norm, GELU, attention, a mean; and a number for all pictures. */
static fv_graph *build(fv_ctx *ctx) {
    fv_graph *g = fv_graph_new(ctx, false);
    fv_scope s = fv_root(g);
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, PART, SIDE, SIDE, 3));
    x = fv_conv_layer(fv_in(s, "conv"), x, (fv_conv_cfg){.out = 12, .kernel = 3, .pad = 1, .stride = 2});
    x = fv_reshape_to(s, x, PART, SIDE * SIDE / 4, 12);
    fv_value y = fv_layer_norm_layer(fv_in(s, "norm"), x, 1e-6);
    y = fv_linear_layer(fv_in(s, "qkv"), y, 36, true, fv_init_normal(0.5));
    y = fv_attention(s, y, FV_NONE, FV_NONE, 3, 0);
    x = fv_add(s, x, y);
    y = fv_gelu(s, fv_linear_layer(fv_in(s, "fc1"), x, 20, true, fv_init_normal(0.5)));
    x = fv_add(s, x, fv_linear_layer(fv_in(s, "fc2"), y, 12, true, fv_init_normal(0.5)));
    x = fv_mean(s, x, 1u << 1, false);
    const fv_value logits = fv_linear_layer(fv_in(s, "head"), x, CLASSES, true, fv_init_normal(0.5));
    fv_set_output(g, "logits", logits);
    fv_set_output(g, "same", fv_reshape_to(s, logits, PART * CLASSES));
    fv_set_output(g, "sum", fv_sum(s, logits, 3, false));
    return g;
}

typedef struct results {
    float logits[PARTS][PART * CLASSES], same[PARTS][PART * CLASSES], sum[PARTS];
} results;

static void fill(float x[PARTS][PART * PIXELS]) {
    for (int k = 0; k < PARTS; k++)
        for (int i = 0; i < PART * PIXELS; i++) x[k][i] = (float)fvt_normal(3, (uint64_t)i, (uint32_t)k);
}

static void open_program(fvt_device *d, int threads, const char *isa, int64_t parts, fv_store **store,
                         fv_program **program) {
    ck_assert(fvt_open(d, "cpu", threads, isa));
    const fv_compile_opts opts = {.parts = parts};
    ck_assert_msg(fv_program_create(&d->ctx, build(&d->ctx), d->dev, 7, &opts, store, program) == FV_OK, "%s",
                  d->ctx.error.message);
}

static void close_program(fvt_device *d, fv_store *store, fv_program *program) {
    fv_program_destroy(program);
    fv_store_destroy(store);
    fvt_close(d);
}

static void run(fv_program *p, const float *x, int64_t parts, float *logits, float *same, float *sum) {
    const size_t n = (size_t)parts * PART * CLASSES * sizeof(float);
    ck_assert_int_eq(fv_program_input(p, "x", x, (size_t)parts * PART * PIXELS * sizeof *x), FV_OK);
    ck_assert_int_eq(fv_program_run(p, NULL, FV_ALL_SEGMENTS), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "logits", logits, n), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "same", same, n), FV_OK);
    ck_assert_int_eq(fv_program_output(p, "sum", sum, (size_t)parts * sizeof *sum), FV_OK);
}

static const char *const isas[] = {"generic", "avx2", "avx512"};
static const int threads[] = {1, 2, 3, 8};
enum { ISAS = 3, THREADS = 4 };

/* The bits of one part after the other, for any number of threads, and again with other weights. */
START_TEST(parts_are_the_whole) {
    const char *isa = isas[_i / THREADS];
    static float x[PARTS][PART * PIXELS];
    fill(x);
    fvt_device one, all;
    fv_store *one_store, *all_store;
    fv_program *one_program, *all_program;
    if (!fvt_open(&one, "cpu", 1, isa)) return;
    fvt_close(&one);
    open_program(&one, 1, isa, 1, &one_store, &one_program);
    open_program(&all, threads[_i % THREADS], isa, PARTS, &all_store, &all_program);
    const fv_type type = fv_program_output_type(all_program, "logits");
    ck_assert(type.rank == 2 && type.dim[0] == PARTS * PART && type.dim[1] == CLASSES);
    ck_assert(fv_same_type(fv_program_output_type(all_program, "sum"), fv_shape(FV_F32, PARTS)));
    for (int round = 0; round < 2; round++) {
        static results want, got;
        for (int k = 0; k < PARTS; k++) run(one_program, x[k], 1, want.logits[k], want.same[k], &want.sum[k]);
        run(all_program, x[0], PARTS, got.logits[0], got.same[0], got.sum);
        ck_assert_mem_eq(&want, &got, sizeof want);
        ck_assert(memcmp(got.logits[0], got.logits[1], sizeof got.logits[0]) != 0);
        for (int s = 0; s < 2; s++) { /* a change that packed weights must follow */
            fv_store *store = s ? all_store : one_store;
            float *weight = fv_store_slot(store, fv_store_find(store, "fc1.weight"))->data;
            for (int i = 0; i < 20 * 12; i++) weight[i] = -weight[i];
            fv_store_touch(store);
        }
    }
    close_program(&one, one_store, one_program);
    close_program(&all, all_store, all_program);
}
END_TEST

/* One part's memory per thread, beside the inputs and outputs. */
START_TEST(parts_need_little_memory) {
    fvt_device d;
    fv_store *store;
    fv_program *program;
    open_program(&d, 2, NULL, 1, &store, &program);
    const size_t one = fv_program_plan(program)->arena_bytes;
    close_program(&d, store, program);
    open_program(&d, 2, NULL, 50, &store, &program);
    const fv_plan *plan = fv_program_plan(program);
    const size_t in_and_out = 50 * (PART * PIXELS + PART * CLASSES + 1) * sizeof(float);
    ck_assert_uint_ge(plan->fixed_bytes, in_and_out);
    ck_assert_uint_le(plan->arena_bytes, in_and_out + 2 * one + 4096);
    ck_assert_int_eq(d.dev->backend->profile(fv_program_exec(program), true), FV_OK);
    ck_assert_int_eq(fv_program_run(program, NULL, FV_ALL_SEGMENTS), FV_OK);
    const double *seconds = d.dev->backend->node_seconds(fv_program_exec(program));
    double sum = 0;
    for (int32_t k = 0; k < plan->graph->n_nodes; k++) sum += seconds[k];
    ck_assert(sum > 0);
    close_program(&d, store, program);
}
END_TEST

/* Neither what changes parameters nor a device without threads of its own. */
START_TEST(parts_are_refused) {
    fvt_device d;
    fv_store *store;
    fv_program *program;
    const fv_compile_opts opts = {.parts = 2};
    ck_assert(fvt_open(&d, "ref", 1, NULL));
    ck_assert_int_eq(fv_program_create(&d.ctx, build(&d.ctx), d.dev, 7, &opts, &store, &program), FV_E_INTERNAL);
    fvt_close(&d);
    ck_assert(fvt_open(&d, "cpu", 2, NULL));
    fv_graph *g = fv_graph_new(&d.ctx, true);
    fv_scope s = fv_root(g);
    fv_value y = fv_batch_norm_layer(fv_in(s, "bn"), fv_input(s, "x", fv_shape(FV_F32, 4, 3)), (fv_bn_cfg){0});
    fv_set_output(g, "y", y);
    ck_assert_int_eq(fv_program_create(&d.ctx, g, d.dev, 7, &opts, &store, &program), FV_E_INTERNAL);
    fvt_close(&d);
}
END_TEST

static int64_t parts_of(const char *model, int64_t side, int64_t batch) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_graph *g = fv_graph_new(&ctx, false);
    const fv_value x = fv_input(fv_root(g), "x", fv_shape(FV_F32, batch, side, side, 3));
    fv_set_output(g, "y", fv_model_build(g, model, x, &(fv_model_cfg){.num_classes = 10, .img_size = side}));
    const int64_t parts = fv_graph_parts(g, batch);
    fv_graph_free(g);
    return parts;
}

/* Where a few pictures fit into a cache and their arithmetic is worth the weights. */
START_TEST(parts_are_chosen) {
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 64), 32);
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 128), 64);
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 1024), 512); /* 2 pictures are almost 1 MB */
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 96), 48);
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 97), 1);
    ck_assert_int_eq(parts_of("vit_tiny_patch4_32", 32, 32), 1);
    ck_assert_int_eq(parts_of("resnet20", 32, 64), 32);
    ck_assert_int_eq(parts_of("resnet18_cifar", 32, 256), 1);
    ck_assert_int_eq(parts_of("resnet50", 224, 64), 1);
}
END_TEST

Suite *parts_suite(void);

Suite *parts_suite(void) {
    Suite *suite = suite_create("parts");
    TCase *tc = tcase_create("parts");
    tcase_add_loop_test(tc, parts_are_the_whole, 0, ISAS * THREADS);
    tcase_add_test(tc, parts_need_little_memory);
    tcase_add_test(tc, parts_are_refused);
    tcase_add_test(tc, parts_are_chosen);
    suite_add_tcase(suite, tc);
    return suite;
}
