/* test_classifier.c: a saved model opened as a classifier gives the probabilities of the program it was saved from. */
#include "fovea.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 32, CLASSES = 4 };

Suite *classifier_suite(void);

static char folder[64], model_path[96], config_path[96];

static void make_folder(void) {
    strcpy(folder, "/tmp/fovea-classifier-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(model_path, sizeof model_path, "%s/model.safetensors", folder);
    snprintf(config_path, sizeof config_path, "%s/config.json", folder);
}

static void remove_folder(void) {
    unlink(model_path);
    unlink(config_path);
    ck_assert_int_eq(rmdir(folder), 0);
}

static const char *const labels[CLASSES] = {"ant", "bee", "cat", "dog"};

static fv_model_config config_of(const char *architecture) {
    return (fv_model_config){.architecture = architecture,
                             .num_classes = CLASSES,
                             .n_labels = CLASSES,
                             .label_names = labels,
                             .input_size = {3, SIDE, SIDE},
                             .mean = {0.5, 0.4, 0.3},
                             .std = {0.2, 0.3, 0.25},
                             .interpolation = "bilinear",
                             .crop_pct = 1};
}

/* Save a freshly drawn resnet20 and give the probabilities of one picture, computed here. */
static void save_and_expect(fv_ctx *ctx, fv_device *dev, const uint8_t *pixels, float *expected) {
    fv_model_config config = config_of("resnet20");
    fv_graph *g = fv_graph_new(ctx, false);
    fv_value x = fv_picture_input(fv_root(g), 1, SIDE, SIDE, 3, config.mean, config.std, FV_PAD_ZERO);
    fv_value logits = fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = CLASSES});
    fv_set_output(g, "p", fv_softmax(fv_root(g), logits));
    fv_store *store;
    fv_program *program;
    ck_assert_msg(fv_program_create(ctx, g, dev, 11, NULL, &store, &program) == FV_OK, "%s", ctx->error.message);
    const float plain[FV_AUG_FIELDS] = {0};
    ck_assert_int_eq(fv_program_input(program, "images", pixels, SIDE * SIDE * 3), FV_OK);
    ck_assert_int_eq(fv_program_input(program, "record", plain, sizeof plain), FV_OK);
    ck_assert_int_eq(fv_program_run(program, NULL, FV_ALL_SEGMENTS), FV_OK);
    ck_assert_int_eq(fv_program_output(program, "p", expected, CLASSES * sizeof *expected), FV_OK);
    ck_assert_msg(fv_model_save(ctx, store, model_path, false, NULL, 0) == FV_OK, "%s", ctx->error.message);
    ck_assert_msg(fv_config_save(ctx, config_path, &config) == FV_OK, "%s", ctx->error.message);
    fv_program_destroy(program);
    fv_store_destroy(store);
}

START_TEST(a_saved_model_classifies_as_before) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_device *dev;
    ck_assert_int_eq(fv_backend_cpu.open(&ctx, &(fv_device_opts){.threads = 2}, &dev), FV_OK);
    make_folder();
    uint8_t pixels[SIDE * SIDE * 3];
    for (size_t i = 0; i < sizeof pixels; i++) pixels[i] = (uint8_t)(i * 37 % 251);
    float expected[CLASSES], got[CLASSES];
    save_and_expect(&ctx, dev, pixels, expected);
    fv_classifier *c;
    int64_t k, best = 0;
    ck_assert_msg(fv_classifier_open(&ctx, dev, folder, &c) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_classify(c, pixels, &k, got), FV_OK);
    for (int i = 0; i < CLASSES; i++) {
        ck_assert(fabsf(got[i] - expected[i]) <= 1e-5f);
        if (expected[i] > expected[best]) best = i;
    }
    ck_assert_int_eq(k, best);
    ck_assert_str_eq(fv_classifier_label(c, 2), "cat");
    ck_assert_str_eq(fv_classifier_label(c, 9), "class 9");
    ck_assert_int_eq(fv_classifier_config(c)->input_size[1], SIDE);
    fv_classifier_close(c);
    remove_folder();
    dev->backend->close(dev);
}
END_TEST

START_TEST(a_folder_that_does_not_fit_is_refused) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_device *dev;
    ck_assert_int_eq(fv_backend_ref.open(&ctx, &(fv_device_opts){0}, &dev), FV_OK);
    fv_classifier *c;
    ck_assert_int_eq(fv_classifier_open(&ctx, dev, "/nonexistent/folder", &c), FV_E_IO);
    ck_assert_ptr_null(c);
    make_folder();
    fv_model_config config = config_of("no_such_net");
    ck_assert_int_eq(fv_config_save(&ctx, config_path, &config), FV_OK);
    ck_assert_int_eq(fv_classifier_open(&ctx, dev, folder, &c), FV_E_MODEL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "no_such_net"));
    config = config_of("resnet20"); /* but no weights beside it */
    ck_assert_int_eq(fv_config_save(&ctx, config_path, &config), FV_OK);
    ck_assert_int_eq(fv_classifier_open(&ctx, dev, folder, &c), FV_E_IO);
    remove_folder();
    dev->backend->close(dev);
}
END_TEST

Suite *classifier_suite(void) {
    Suite *s = suite_create("classifier");
    TCase *tc = tcase_create("classifier");
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, a_saved_model_classifies_as_before);
    tcase_add_test(tc, a_folder_that_does_not_fit_is_refused);
    suite_add_tcase(s, tc);
    return s;
}
