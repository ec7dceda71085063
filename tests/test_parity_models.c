/* test_parity_models.c: whole models against PyTorch in float64 (tests/vectors/models.safetensors, made by
 * tests/peers/make_model_vectors.py), and the published ResNet-20 on lossless CIFAR-10 pictures.
 *
 * Weights, pictures and labels come from Philox formulas that both sides compute; of each tensor the vectors hold the
 * norm and 16 random-sign projections. */
#include "fovea.h"
#include "tests/data_path.h"

#include <check.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VECTORS "tests/vectors/models.safetensors"
#define SEED 7
#define STEPS 10
#define SIGNS 16

typedef struct setup {
    const char *model;
    char opt[16];
    int64_t size, batch, classes;
    double lr;
} setup;

typedef struct world {
    fv_ctx ctx;
    fv_device *dev;
    fv_st_file file;
    setup how;
    fv_store *store;
    fv_program *program;
    float **start; /* initial values by slot, file order */
    bool f64;
} world;

static const double *vector(const world *w, const char *what, int64_t *n) {
    char name[96];
    snprintf(name, sizeof name, "%s.%s", w->how.model, what);
    const fv_st_entry *e = fv_st_find(&w->file, name);
    ck_assert_msg(e != NULL, "no vector '%s'", name);
    if (n) *n = fv_count(e->type);
    return (const double *)(const void *)(w->file.data + e->offset);
}

static double uniform(const char *name, uint64_t element, uint64_t row) {
    return fv_uniform_f64(fv_random(SEED, element, row, 0, fv_hash_name(name)).v[0]);
}

/* The same as initial() in make_model_vectors.py. */
static float initial(const char *name, fv_type file_type, uint64_t element) {
    double u = uniform(name, element, 0), fan = 1;
    size_t len = strlen(name);
    for (int i = 1; i < file_type.rank; i++) fan *= (double)file_type.dim[i];
    if (len >= 4 && !strcmp(name + len - 4, "bias")) return (float)(0.2 * (u - 0.5));
    if (!strcmp(name, "cls_token") || !strcmp(name, "pos_embed")) return (float)((2 * u - 1) * 0.035);
    if (file_type.rank == 1) return (float)((strstr(name, ".bn3.") ? 0.1 : 1.0) * (1 + 0.2 * (u - 0.5)));
    return (float)((2 * u - 1) * sqrt((file_type.rank == 4 ? 6.0 : 3.0) / fan));
}

/* Contents of a slot as floats in file order; free() it. */
static float *slot_values(world *w, int32_t index) {
    const fv_slot *slot = fv_store_slot(w->store, index);
    size_t n = (size_t)fv_count(slot->type), bytes = fv_bytes(slot->type);
    float *out = calloc(n + 1, sizeof *out);
    void *raw = calloc(n + 1, 8);
    ck_assert_int_eq(fv_store_read(w->store, index, raw, bytes), FV_OK);
    for (size_t i = 0; i < n; i++) out[i] = slot->type.dtype == FV_F64 ? (float)((double *)raw)[i] : ((float *)raw)[i];
    free(raw);
    return out;
}

static void set_slot(world *w, int32_t index, const float *values) {
    const fv_slot *slot = fv_store_slot(w->store, index);
    size_t n = (size_t)fv_count(slot->type);
    double *raw = calloc(n + 1, sizeof *raw);
    for (size_t i = 0; i < n; i++)
        if (slot->type.dtype == FV_F64) raw[i] = (double)values[i];
    const void *src = slot->type.dtype == FV_F64 ? (const void *)raw : (const void *)values;
    ck_assert_int_eq(fv_store_write(w->store, index, src, fv_bytes(slot->type)), FV_OK);
    free(raw);
}

static void build(world *w, const fv_backend *backend, bool f64, bool fuse) {
    fv_device_opts opts = {.threads = 2};
    ck_assert_int_eq(backend->open(&w->ctx, &opts, &w->dev), FV_OK);
    w->f64 = f64;
    fv_graph *g = fv_graph_new(&w->ctx, true);
    fv_scope s = fv_root(g);
    int64_t b = w->how.batch, size = w->how.size;
    fv_value x = fv_input(s, "x", fv_shape(FV_F32, b, size, size, 3)), y = fv_input(s, "labels", fv_shape(FV_I32, b));
    fv_model_cfg cfg = {.num_classes = w->how.classes, .img_size = size};
    fv_value logits = fv_model_build(g, w->how.model, x, &cfg);
    fv_value loss = fv_softmax_cross_entropy(fv_in(s, "loss"), logits, y, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "logits", logits);
    fv_set_output(g, "loss", loss);
    if (fuse) fv_graph_fuse(g);
    bool sgd = !strcmp(w->how.opt, "sgd");
    fv_optim_cfg optim = {.kind = sgd ? FV_OPT_SGD : FV_OPT_ADAMW, .momentum = 0.9, .eps = 1e-3};
    ck_assert_msg(fv_optim_build(g, loss, &optim) == FV_OK, "%s", w->ctx.error.message);
    if (f64) fv_graph_cast_floats(g, FV_F64);
    ck_assert_int_eq(fv_store_create(&w->ctx, w->dev, &w->store), FV_OK);
    ck_assert_int_eq(fv_store_bind(w->store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(w->store, 0), FV_OK);
    ck_assert_msg(fv_compile(&w->ctx, g, w->store, w->dev, NULL, &w->program) == FV_OK, "%s", w->ctx.error.message);
    w->start = calloc((size_t)fv_store_count(w->store), sizeof *w->start);
    for (int32_t i = 0; i < fv_store_count(w->store); i++) {
        const fv_slot *slot = fv_store_slot(w->store, i);
        if (slot->type.dtype == FV_I64) continue;
        w->start[i] = slot_values(w, i);
        if (slot->role != FV_ROLE_WEIGHT) continue;
        for (int64_t e = 0; e < fv_count(slot->type); e++)
            w->start[i][e] = initial(slot->name, fv_slot_file_type(slot), (uint64_t)e);
        set_slot(w, i, w->start[i]);
    }
}

static void feed(world *w, int step) {
    size_t n = (size_t)(w->how.batch * w->how.size * w->how.size * 3);
    float *x = calloc(n, sizeof *x);
    double *x64 = calloc(n, sizeof *x64);
    int32_t labels[16];
    for (size_t i = 0; i < n; i++)
        x[i] = (float)((2 * uniform("input", i, (uint64_t)step) - 1) * 1.7), x64[i] = (double)x[i];
    for (int64_t i = 0; i < w->how.batch; i++)
        labels[i] = (int32_t)(uniform("labels", (uint64_t)i, (uint64_t)step) * (double)w->how.classes);
    if (w->f64) ck_assert_int_eq(fv_program_input(w->program, "x", x64, n * sizeof *x64), FV_OK);
    else ck_assert_int_eq(fv_program_input(w->program, "x", x, n * sizeof *x), FV_OK);
    ck_assert_int_eq(fv_program_input(w->program, "labels", labels, (size_t)w->how.batch * sizeof *labels), FV_OK);
    free(x);
    free(x64);
}

static double scalar_output(world *w, const char *name) {
    double d = 0;
    float f = 0;
    if (w->f64) ck_assert_int_eq(fv_program_output(w->program, name, &d, sizeof d), FV_OK);
    else ck_assert_int_eq(fv_program_output(w->program, name, &f, sizeof f), FV_OK);
    return w->f64 ? d : (double)f;
}

static double run_step(world *w, int step) {
    feed(w, step);
    fv_step s = {.seed = SEED, .step = step, .lr = {w->how.lr, w->how.lr}, .weight_decay = {5e-4, 0}};
    ck_assert_msg(fv_program_run(w->program, &s, FV_ALL_SEGMENTS) == FV_OK, "%s", w->ctx.error.message);
    return scalar_output(w, "loss");
}

static void close_world(world *w) {
    for (int32_t i = 0; i < fv_store_count(w->store); i++) free(w->start[i]);
    free(w->start);
    fv_program_destroy(w->program);
    fv_store_destroy(w->store);
    w->dev->backend->close(w->dev);
    fv_st_close(&w->file);
}

static void open_vectors(world *w, const char *model) {
    fv_ctx_init(&w->ctx);
    ck_assert_msg(fv_st_open(&w->file, &w->ctx, VECTORS) == FV_OK, "%s", w->ctx.error.message);
    w->how.model = model;
    char key[64];
    snprintf(key, sizeof key, "%s.setup", model);
    const char *text = fv_st_meta(&w->file, key);
    long long size, batch, classes;
    ck_assert_ptr_nonnull(text);
    ck_assert_int_eq(sscanf(text, "%lld %lld %lld %15s %lf", &size, &batch, &classes, w->how.opt, &w->how.lr), 5);
    w->how.size = size, w->how.batch = batch, w->how.classes = classes;
}

/* Projections of (now - start) of a slot by the random signs. */
static void project(world *w, int32_t index, double out[SIGNS]) {
    const fv_slot *slot = fv_store_slot(w->store, index);
    float *now = slot_values(w, index);
    uint32_t stream = fv_hash_name(slot->name);
    memset(out, 0, SIGNS * sizeof *out);
    for (int64_t e = 0; e < fv_count(slot->type); e++) {
        uint32_t word = fv_random(SEED, (uint64_t)e, 0, 0, stream).v[1];
        double delta = (double)now[e] - (double)w->start[index][e];
        for (int j = 0; j < SIGNS; j++) out[j] += word >> j & 1 ? delta : -delta;
    }
    free(now);
}

/* || (now - start) - (theirs) || / || theirs ||, estimated from the projections over all tensors of the state. */
static double distance(world *w) {
    int64_t n;
    const double *norm = vector(w, "delta_norm", &n), *proj = vector(w, "delta_proj", NULL);
    char key[64];
    snprintf(key, sizeof key, "%s.state", w->how.model);
    char *names = strdup(fv_st_meta(&w->file, key)), *rest = names;
    double error = 0, size = 0;
    for (int64_t t = 0; t < n; t++) {
        int32_t index = fv_store_find(w->store, strsep(&rest, "\n"));
        ck_assert_int_ge(index, 0);
        double ours[SIGNS];
        project(w, index, ours);
        for (int j = 0; j < SIGNS; j++)
            error += (ours[j] - proj[t * SIGNS + j]) * (ours[j] - proj[t * SIGNS + j]) / SIGNS;
        size += norm[t] * norm[t];
    }
    free(names);
    return sqrt(error / size);
}

static void check_logits(world *w, double bound) {
    int64_t n;
    const double *want = vector(w, "logits", &n);
    double *d = calloc((size_t)n, sizeof *d), worst = 0;
    float *f = calloc((size_t)n, sizeof *f);
    if (w->f64) ck_assert_int_eq(fv_program_output(w->program, "logits", d, (size_t)n * sizeof *d), FV_OK);
    else ck_assert_int_eq(fv_program_output(w->program, "logits", f, (size_t)n * sizeof *f), FV_OK);
    for (int64_t i = 0; i < n; i++) worst = fmax(worst, fabs((w->f64 ? d[i] : (double)f[i]) - want[i]));
    ck_assert_msg(worst <= bound, "%s: logits are off by %.3g, bound %.3g", w->how.model, worst, bound);
    free(d);
    free(f);
}

/* Sanitized builds are slow: tests/run-sanitized.sh leaves the larger models out. */
static bool left_out(const char *model) {
    if (!getenv("FOVEA_TESTS_SHORT") || strcmp(model, "resnet20") == 0) return false;
    fprintf(stderr, "SKIPPED: parity of %s (FOVEA_TESTS_SHORT is set)\n", model);
    return true;
}

/* Reference backend, float64: logits and loss of step 1, and the weights after `steps` steps. */
static void check_reference(const char *model, int steps) {
    if (left_out(model)) return;
    world w = {0};
    open_vectors(&w, model);
    build(&w, &fv_backend_ref, true, false);
    const double *losses = vector(&w, "losses", NULL);
    for (int step = 0; step < steps; step++) {
        double loss = run_step(&w, step);
        if (step == 0) check_logits(&w, 1e-10 * 20);
        ck_assert_msg(fabs(loss - losses[step]) <= 1e-10 * fmax(1, losses[step]),
                      "%s: step %d: loss %.17g, PyTorch %.17g", model, step + 1, loss, losses[step]);
    }
    if (steps == STEPS) {
        double d = distance(&w);
        ck_assert_msg(d <= 1e-6, "%s: weights after %d steps differ by %.3g of their way", model, steps,
                      d); /* values are read as float32 */
    }
    close_world(&w);
}

/* CPU backend, float32: loss of step 1 within 1e-5, weights after ten steps within 1e-3 of the way gone. */
static void check_cpu(const char *model, bool fuse) {
    if (left_out(model)) return;
    world w = {0};
    open_vectors(&w, model);
    build(&w, &fv_backend_cpu, false, fuse);
    const double *losses = vector(&w, "losses", NULL);
    for (int step = 0; step < STEPS; step++) {
        double loss = run_step(&w, step);
        if (step == 0)
            ck_assert_msg(fabs(loss - losses[0]) <= 1e-5 * losses[0], "%s: loss %.9g, PyTorch %.9g", model, loss,
                          losses[0]);
    }
    double d = distance(&w);
    ck_assert_msg(d <= 1e-3, "%s: weights after ten steps differ by %.3g of their way", model, d);
    close_world(&w);
}

START_TEST(resnet20_reference) {
    check_reference("resnet20", STEPS);
}
END_TEST
START_TEST(resnet18_reference) {
    check_reference("resnet18", 2);
}
END_TEST
START_TEST(resnet50_reference) {
    check_reference("resnet50", 1);
}
END_TEST
START_TEST(vit_tiny_reference) {
    check_reference("vit_tiny_patch16_224", 1);
}
END_TEST
START_TEST(speedrun94_reference) {
    check_reference("speedrun94", 3);
}
END_TEST
START_TEST(speedrun96_reference) {
    check_reference("speedrun96", 1);
}
END_TEST
START_TEST(resnet20_cpu) {
    check_cpu("resnet20", true);
    check_cpu("resnet20", false);
}
END_TEST
START_TEST(resnet18_cpu) {
    check_cpu("resnet18", true);
}
END_TEST
START_TEST(resnet50_cpu) {
    check_cpu("resnet50", true);
}
END_TEST
START_TEST(vit_tiny_cpu) {
    check_cpu("vit_tiny_patch16_224", true);
}
END_TEST
START_TEST(speedrun94_cpu) {
    check_cpu("speedrun94", true);
    check_cpu("speedrun94", false);
}
END_TEST
START_TEST(speedrun96_cpu) {
    check_cpu("speedrun96", true);
}
END_TEST

/* ---------------------------------------------------------------- the published ResNet-20 */

/* The 32-pixel-wide strip of lossless pictures as RGB rows; free() it. */
static uint8_t *read_strip(const char *path, int pictures) {
    png_image image = {.version = PNG_IMAGE_VERSION};
    if (!png_image_begin_read_from_file(&image, path)) return NULL;
    image.format = PNG_FORMAT_RGB;
    uint8_t *rgb = malloc(PNG_IMAGE_SIZE(image));
    if (image.width != 32 || image.height < (unsigned)pictures * 32 ||
        !png_image_finish_read(&image, NULL, rgb, 0, NULL)) {
        free(rgb);
        return NULL;
    }
    return rgb;
}

/* The class of `n` pictures, a multiple of 25: returns how many are right; every logit is checked. */
static int evaluate_pretrained(const fv_backend *backend, const char *weights, const uint8_t *rgb, int n,
                               const int32_t *labels, const float *golden) {
    enum { B = 25 };
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_device *dev;
    fv_device_opts opts = {.threads = 2};
    ck_assert_int_eq(backend->open(&ctx, &opts, &dev), FV_OK);
    fv_graph *g = fv_graph_new(&ctx, false);
    fv_scope s = fv_root(g);
    const double mean[] = {0.485, 0.456, 0.406}, std[] = {0.229, 0.224, 0.225};
    fv_value images = fv_input(s, "images", fv_shape(FV_U8, B, 32, 32, 3)),
             record = fv_input(s, "record", fv_shape(FV_F32, B, FV_AUG_FIELDS));
    fv_value x = fv_augment(s, images, record, fv_const(s, fv_shape(FV_F32, 3), mean),
                            fv_const(s, fv_shape(FV_F32, 3), std), (fv_augment_attr){32, 32, FV_PAD_ZERO});
    fv_set_output(g, "logits", fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = 10}));
    fv_graph_fuse(g);
    fv_store *store;
    fv_program *program;
    ck_assert_int_eq(fv_store_create(&ctx, dev, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(store, 0), FV_OK);
    ck_assert_msg(fv_model_load(&ctx, store, weights, NULL) == FV_OK, "%s", ctx.error.message);
    ck_assert_msg(fv_compile(&ctx, g, store, dev, NULL, &program) == FV_OK, "%s", ctx.error.message);
    float plain[B * FV_AUG_FIELDS] = {0}, logits[B * 10];
    ck_assert_int_eq(fv_program_input(program, "record", plain, sizeof plain), FV_OK);
    int right = 0;
    double worst = 0;
    for (int first = 0; first < n; first += B) {
        ck_assert_int_eq(fv_program_input(program, "images", rgb + (size_t)first * 3072, B * 3072), FV_OK);
        ck_assert_int_eq(fv_program_run(program, NULL, FV_ALL_SEGMENTS), FV_OK);
        ck_assert_int_eq(fv_program_output(program, "logits", logits, sizeof logits), FV_OK);
        for (int i = 0; i < B; i++) {
            int best = 0;
            for (int k = 0; k < 10; k++) {
                if (logits[i * 10 + k] > logits[i * 10 + best]) best = k;
                worst = fmax(worst, fabs((double)logits[i * 10 + k] - (double)golden[(first + i) * 10 + k]));
            }
            right += best == labels[first + i];
        }
    }
    fv_program_destroy(program);
    fv_store_destroy(store);
    backend->close(dev);
    ck_assert_msg(worst <= 1e-4, "logits are off by %.3g", worst);
    return right;
}

START_TEST(pretrained_resnet20_gets_915_right) {
    char weights[600], golden_path[600], strip[600], batch[600];
    if (left_out("the pretrained ResNet-20")) return;
    if (!fvt_data("pretrained/resnet20-12fca82f.safetensors", weights, sizeof weights) ||
        !fvt_data("pretrained/golden_resnet20_logits_lossless1000.f32", golden_path, sizeof golden_path) ||
        !fvt_data("cifar10/lossless_test_0000-0999.png", strip, sizeof strip) ||
        !fvt_data("cifar10/test_batch.bin", batch, sizeof batch)) {
        fprintf(stderr,
                "SKIPPED: pretrained ResNet-20: its data is not in $FOVEA_DATA (tools/prepare-data.sh makes it)\n");
        return;
    }
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    void *golden, *records;
    size_t golden_bytes, record_bytes;
    ck_assert_int_eq(fv_read_file(&ctx, golden_path, 1 << 20, &golden, &golden_bytes), FV_OK);
    ck_assert_int_eq(golden_bytes, 40000);
    ck_assert_int_eq(fv_read_file(&ctx, batch, 64 << 20, &records, &record_bytes), FV_OK);
    int32_t labels[1000];
    for (int i = 0; i < 1000; i++) labels[i] = ((uint8_t *)records)[(size_t)i * 3073];
    uint8_t *rgb = read_strip(strip, 1000);
    ck_assert_msg(rgb != NULL, "cannot read %s", strip);
    evaluate_pretrained(&fv_backend_ref, weights, rgb, 25, labels, golden); // all of them take it minutes
    ck_assert_int_eq(evaluate_pretrained(&fv_backend_cpu, weights, rgb, 1000, labels, golden), 915);
    free(rgb);
    fv_free(&ctx, golden, golden_bytes + 1, 1);
    fv_free(&ctx, records, record_bytes + 1, 1);
}
END_TEST

Suite *parity_models_suite(void);
Suite *parity_models_suite(void) {
    Suite *s = suite_create("parity: models against PyTorch");
    TCase *tc = tcase_create("models");
    tcase_set_timeout(tc, 300);
    tcase_add_test(tc, resnet20_reference);
    tcase_add_test(tc, resnet18_reference);
    tcase_add_test(tc, resnet50_reference);
    tcase_add_test(tc, vit_tiny_reference);
    tcase_add_test(tc, speedrun94_reference);
    tcase_add_test(tc, speedrun96_reference);
    tcase_add_test(tc, resnet20_cpu);
    tcase_add_test(tc, resnet18_cpu);
    tcase_add_test(tc, resnet50_cpu);
    tcase_add_test(tc, vit_tiny_cpu);
    tcase_add_test(tc, speedrun94_cpu);
    tcase_add_test(tc, speedrun96_cpu);
    tcase_add_test(tc, pretrained_resnet20_gets_915_right);
    suite_add_tcase(s, tc);
    return s;
}
