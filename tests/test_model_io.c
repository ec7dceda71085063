/* test_model_io.c: models and their config.json: layouts, names, conversions, what does not fit, failing memory. */
#include "tests/faults.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

Suite *model_io_suite(void);

enum { OUT = 4, IN = 3, K = 2, CLASSES = 5 };

static char folder[128], path[160], warning[512];
static fv_ctx ctx;
static fvt_files files;
static fvt_memory memory;
static fv_device *device;

static void keep_warning(void *user, fv_log_level level, const char *line) {
    (void)user;
    if (level == FV_LOG_WARN) snprintf(warning, sizeof warning, "%s", line);
}

static void setup(void) {
    fvt_make_folder(folder);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    warning[0] = '\0';
    fv_ctx_init(&ctx);
    ctx.log = keep_warning;
    fvt_files_install(&files, &ctx);
    fvt_memory_install(&memory, &ctx);
    fvt_memory_install_json(&memory);
    ck_assert_int_eq(fv_backend_find("ref")->open(&ctx, &(fv_device_opts){0}, &device), FV_OK);
}

static void teardown(void) {
    device->backend->close(device);
    ck_assert_int_eq(memory.live, 0);
    ck_assert_int_eq(files.open_files, 0);
    fvt_memory_install_json(NULL);
    fvt_remove_folder(folder);
}

/* conv1.weight [out,k,k,in] in OIHW, bn1 with its counter, fc of `classes`; averages of the weights if ema. */
static fv_store *make_store(int64_t classes, bool ema, bool f64, uint64_t seed) {
    fv_store *store = NULL;
    fv_graph *g = fv_graph_new(&ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_init normal = {FV_INIT_NORMAL, 0, 1, NULL};
    fv_scope root = fv_root(g), conv = fv_in(root, "conv1"), bn = fv_in(root, "bn1"), fc = fv_in(root, "fc");
    fv_value weights[3];
    weights[0] = fv_param(conv, "weight", fv_shape(FV_F32, OUT, K, K, IN), FV_OIHW, normal, false);
    fv_buffer(bn, "running_mean", fv_shape(FV_F32, OUT), FV_ONES);
    fv_buffer(bn, "num_batches_tracked", fv_scalar(FV_I64), (fv_init){FV_INIT_CONSTANT, (double)seed, 0, NULL});
    weights[1] = fv_param(fc, "weight", fv_shape(FV_F32, classes, OUT), FV_PLAIN, normal, false);
    weights[2] = fv_param(fc, "bias", fv_shape(FV_F32, classes), FV_PLAIN, normal, true);
    for (int i = 0; i < 3 && ema; i++) fv_state_of(g, weights[i], FV_ROLE_EMA, NULL);
    fv_state_of(g, weights[0], FV_ROLE_MOMENT, "momentum");
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx.error.message);
    if (f64) fv_graph_cast_floats(g, FV_F64);
    ck_assert_int_eq(fv_store_create(&ctx, device, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(store, seed), FV_OK);
    fv_graph_free(g);
    return store;
}

/* The tensors of a store as files have them, one after the other; floats as float32. */
static void contents(fv_store *store, const char *name, float *out, int64_t count) {
    int32_t slot = fv_store_find(store, name);
    ck_assert_int_ge(slot, 0);
    fv_type type = fv_store_slot(store, slot)->type;
    ck_assert_int_eq(fv_count(type), count);
    double wide[64];
    ck_assert_int_eq(fv_store_read(store, slot, type.dtype == FV_F32 ? (void *)out : wide, fv_bytes(type)), FV_OK);
    for (int64_t i = 0; i < count && type.dtype == FV_F64; i++) out[i] = (float)wide[i];
}

static bool same_weights(fv_store *a, fv_store *b) {
    static const struct {
        const char *name;
        int64_t count;
    } tensors[] = {{"conv1.weight", OUT * K * K * IN},
                   {"bn1.running_mean", OUT},
                   {"fc.weight", CLASSES * OUT},
                   {"fc.bias", CLASSES}};
    for (int i = 0; i < 4; i++) {
        float x[64], y[64];
        contents(a, tensors[i].name, x, tensors[i].count);
        contents(b, tensors[i].name, y, tensors[i].count);
        if (memcmp(x, y, (size_t)tensors[i].count * sizeof *x) != 0) return false;
    }
    return true;
}

static int64_t batches_seen(fv_store *store) {
    int64_t value = -1;
    int32_t slot = fv_store_find(store, "bn1.num_batches_tracked");
    ck_assert_int_eq(fv_store_read(store, slot, &value, sizeof value), FV_OK);
    return value;
}

/* ---------------------------------------------------------------- round trips */

START_TEST(test_model_round_trip) {
    static const char *const meta[][2] = {{"format", "pt"}};
    fv_st_file f;
    fv_store *a = make_store(CLASSES, false, _i & 1, 7), *b = make_store(CLASSES, false, _i & 2, 8);
    ck_assert_int_eq(fv_model_save(&ctx, a, path, false, meta, 1), FV_OK);
    ck_assert(!same_weights(a, b));
    ck_assert_msg(fv_model_load(&ctx, b, path, NULL) == FV_OK, "%s", ctx.error.message);
    ck_assert(same_weights(a, b));
    ck_assert_int_eq(batches_seen(b), 7);
    ck_assert_str_eq(warning, "");

    ck_assert_int_eq(fv_st_open(&f, &ctx, path), FV_OK);
    ck_assert_int_eq(f.count, 5); /* no moments */
    ck_assert_str_eq(fv_st_meta(&f, "format"), "pt");
    ck_assert(fv_same_type(fv_st_find(&f, "conv1.weight")->type, fv_shape(FV_F32, OUT, IN, K, K)));
    ck_assert(fv_same_type(fv_st_find(&f, "bn1.num_batches_tracked")->type, fv_scalar(FV_I64)));
    fv_st_close(&f);
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

START_TEST(test_averages_are_saved) {
    fv_store *a = make_store(CLASSES, true, false, 7), *b = make_store(CLASSES, false, false, 8);
    float average[CLASSES] = {1, 2, 3, 4, 5}, loaded[CLASSES];
    ck_assert_int_eq(fv_store_write(a, fv_store_find(a, "ema.fc.bias"), average, sizeof average), FV_OK);
    ck_assert_int_eq(fv_model_save(&ctx, a, path, true, NULL, 0), FV_OK);
    ck_assert_int_eq(fv_model_load(&ctx, b, path, NULL), FV_OK);
    contents(b, "fc.bias", loaded, CLASSES);
    ck_assert_mem_eq(loaded, average, sizeof average);
    ck_assert_int_eq(fv_model_save(&ctx, b, path, true, NULL, 0), FV_E_MODEL);
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

START_TEST(test_non_finite_weights_are_not_saved) {
    static const float odd[] = {NAN, INFINITY, -INFINITY};
    fv_store *a = make_store(CLASSES, false, _i, 7), *b = make_store(CLASSES, false, false, 8);
    ck_assert_int_eq(fv_model_save(&ctx, a, path, false, NULL, 0), FV_OK);
    for (int i = 0; i < 3; i++) {
        float bias[CLASSES] = {0, 0, 0, odd[i], 0};
        double wide[CLASSES] = {0, 0, 0, i ? copysign(1e300, (double)odd[i]) : (double)NAN, 0}; /* overflows float32 */
        ck_assert_int_eq(
            fv_store_write(a, fv_store_find(a, "fc.bias"), _i ? (void *)wide : bias, _i ? sizeof wide : sizeof bias),
            FV_OK);
        ck_assert_int_eq(fv_model_save(&ctx, a, path, false, NULL, 0), FV_E_NUMERIC);
        ck_assert_ptr_nonnull(strstr(ctx.error.message, "\"fc.bias\""));
        ck_assert_ptr_nonnull(strstr(ctx.error.message, "element 3"));
        ck_assert_int_eq(fvt_count_files(folder), 1);
        ck_assert_int_eq(fv_model_load(&ctx, b, path, NULL), FV_OK); /* the old file */
        ck_assert_str_eq(warning, "");
    }
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

/* ---------------------------------------------------------------- files of others */

static float conv[OUT * IN * K * K], means[OUT], fc_weight[CLASSES * OUT], bias[CLASSES];

/* A file with the given names' prefix, type of the bias and shape of the classifier. */
static void put_model(const char *prefix, fv_type bias_type, const void *bias_data, int64_t classes, const char *extra,
                      int skip) {
    static const char *const names[] = {"conv1.weight", "bn1.running_mean", "fc.weight", "fc.bias"};
    static float large[64 * OUT];
    char text[8][64];
    fv_st_tensor all[] = {{NULL, fv_shape(FV_F32, OUT, IN, K, K), conv},
                          {NULL, fv_shape(FV_F32, OUT), means},
                          {NULL, fv_shape(FV_F32, classes, OUT), classes == CLASSES ? fc_weight : large},
                          {NULL, bias_type, bias_data}},
                 used[8];
    int n = 0;
    for (int i = 0; i < 4; i++) {
        if (i == skip) continue;
        snprintf(text[n], sizeof text[n], "%s%s", prefix, names[i]);
        used[n] = all[i];
        used[n].name = text[n];
        n++;
    }
    if (extra) used[n++] = (fv_st_tensor){extra, fv_shape(FV_F32, OUT), means};
    ck_assert_int_eq(fv_st_save(&ctx, path, used, n, NULL, 0), FV_OK);
}

START_TEST(test_file_layout_is_oihw) {
    float loaded[OUT * IN * K * K];
    for (int i = 0; i < OUT * IN * K * K; i++) conv[i] = (float)i;
    fv_store *store = make_store(CLASSES, false, false, 7);
    put_model("module.", fv_shape(FV_F32, CLASSES), bias, CLASSES, NULL, -1); /* and without num_batches_tracked */
    ck_assert_msg(fv_model_load(&ctx, store, path, NULL) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(batches_seen(store), 7);
    const fv_slot *slot = fv_store_slot(store, fv_store_find(store, "conv1.weight"));
    ck_assert_int_eq(device->backend->copy(device, loaded, slot->data, sizeof loaded, FV_COPY_TO_HOST), FV_OK);
    int wrong = 0;
    for (int k = 0; k < OUT; k++)
        for (int c = 0; c < IN; c++)
            for (int p = 0; p < K * K; p++) wrong += loaded[(k * K * K + p) * IN + c] != conv[(k * IN + c) * K * K + p];
    ck_assert_int_eq(wrong, 0);
    fv_store_destroy(store);
}
END_TEST

/* 1, -2, the smallest subnormal half, the largest half, 1/3 rounded. */
START_TEST(test_other_floats_are_converted) {
    static const uint16_t half[CLASSES] = {0x3C00, 0xC000, 0x0001, 0x7BFF, 0x3555};
    static const float half_value[CLASSES] = {1, -2, 5.9604644775390625e-8f, 65504, 0.333251953125f};
    static const uint16_t brain[CLASSES] = {0x3F80, 0xC000, 0x0080, 0x7F7F, 0x3EAB};
    static const float brain_value[CLASSES] = {1, -2, 0x1p-126f, 3.3895313892515355e38f, 0.333984375f};
    static const double wide[CLASSES] = {1, -2, 1e-30, 1e30, 1.0 / 3};
    static const float wide_value[CLASSES] = {1, -2, 1e-30f, 1e30f, 1.0f / 3};
    static const int64_t integers[CLASSES] = {0};
    float loaded[CLASSES];
    fv_store *store = make_store(CLASSES, false, _i, 7);
    put_model("", fv_shape(FV_F16, CLASSES), half, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_OK);
    contents(store, "fc.bias", loaded, CLASSES);
    ck_assert_mem_eq(loaded, half_value, sizeof loaded);
    put_model("", fv_shape(FV_BF16, CLASSES), brain, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_OK);
    contents(store, "fc.bias", loaded, CLASSES);
    ck_assert_mem_eq(loaded, brain_value, sizeof loaded);
    put_model("_orig_mod.", fv_shape(FV_F64, CLASSES), wide, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_OK);
    contents(store, "fc.bias", loaded, CLASSES);
    ck_assert_mem_eq(loaded, wide_value, sizeof loaded);
    put_model("", fv_shape(FV_I64, CLASSES), integers, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "1 of another element type (fc.bias: i64 in the file"));
    static const uint16_t infinite[CLASSES] = {0x7C00, 0x7E00, 0xFC00, 0, 0x8000};
    put_model("", fv_shape(FV_F16, CLASSES), infinite, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_OK);
    ck_assert_ptr_nonnull(strstr(warning, "\"fc.bias\" holds values that are not finite"));
    contents(store, "fc.bias", loaded, CLASSES);
    ck_assert(isinf(loaded[0]) && isnan(loaded[1]) && isinf(loaded[2]) && signbit(loaded[4]));
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_what_does_not_fit_is_named) {
    fv_store *store = make_store(CLASSES, false, false, 7), *same = make_store(CLASSES, false, false, 7);
    fv_type five = fv_shape(FV_F32, CLASSES);
    put_model("", five, bias, CLASSES, "bn9.weight", 1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL);
    ck_assert_str_eq(ctx.error.path, path);
    ck_assert_str_eq(ctx.error.message, "the tensors do not fit the model: 1 missing (bn1.running_mean); 1 unexpected "
                                        "(bn9.weight)");
    put_model("other.", five, bias, CLASSES, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL);
    ck_assert_str_eq(ctx.error.message,
                     "the tensors do not fit the model: 4 missing (conv1.weight, bn1.running_mean, fc.weight, ...); 4 "
                     "unexpected (other.conv1.weight, other.bn1.running_mean, other.fc.weight, ...)");
    ck_assert_str_eq(ctx.error.hint, "no tensor fits: the file holds another model");
    put_model("", five, bias, 7, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL);
    ck_assert_str_eq(
        ctx.error.message,
        "the tensors do not fit the model: 1 of another shape (fc.weight: [7,4] in the file, [5,4] in the model)");
    ck_assert(same_weights(store, same)); /* nothing was changed */
    fv_store_destroy(store);
    fv_store_destroy(same);
}
END_TEST

START_TEST(test_other_class_count) {
    static float seven[7];
    fv_load_opts strict = {.head = "fc"}, lenient = {.head = "fc", .allow_head_mismatch = true};
    fv_store *store = make_store(CLASSES, false, false, 7), *fresh = make_store(CLASSES, false, false, 7);
    float loaded[CLASSES], kept[CLASSES], mean[OUT];
    put_model("", fv_shape(FV_F32, 7), seven, 7, NULL, -1);
    ck_assert_int_eq(fv_model_load(&ctx, store, path, &strict), FV_E_MODEL);
    ck_assert_str_eq(ctx.error.hint, "the file was made for 7 classes, the model has 5");
    ck_assert_int_eq(fv_model_load(&ctx, store, path, &lenient), FV_OK);
    ck_assert_ptr_nonnull(strstr(warning, "the classifier \"fc\" has 7 classes in the file, 5 in the model"));
    contents(store, "fc.bias", loaded, CLASSES);
    contents(fresh, "fc.bias", kept, CLASSES);
    ck_assert_mem_eq(loaded, kept, sizeof kept);
    contents(store, "bn1.running_mean", mean, OUT);
    ck_assert_mem_eq(mean, means, sizeof mean);
    fv_store_destroy(store);
    fv_store_destroy(fresh);
}
END_TEST

/* ---------------------------------------------------------------- config.json */

static const char *const labels[] = {"caf\xc3\xa9", "b \"quoted\"", ""};
static const fv_model_config config = {.architecture = "resnet20",
                                       .num_classes = 3,
                                       .n_labels = 3,
                                       .label_names = labels,
                                       .input_size = {3, 32, 48},
                                       .mean = {0.4914, 0.1 + 0.2, 1.0 / 3},
                                       .std = {0.247, 0.2435, 1e-3},
                                       .interpolation = "bilinear",
                                       .crop_pct = 0.95};

START_TEST(test_config_round_trip) {
    fv_model_config loaded;
    fv_arena arena;
    fv_arena_init(&arena, &ctx);
    ck_assert_int_eq(fv_config_save(&ctx, path, &config), FV_OK);
    ck_assert_msg(fv_config_load(&ctx, &arena, path, &loaded) == FV_OK, "%s", ctx.error.message);
    ck_assert_str_eq(loaded.architecture, "resnet20");
    ck_assert_str_eq(loaded.interpolation, "bilinear");
    ck_assert_int_eq(loaded.num_classes, 3);
    ck_assert_int_eq(loaded.n_labels, 3);
    for (int i = 0; i < 3; i++) {
        ck_assert_str_eq(loaded.label_names[i], labels[i]);
        ck_assert(loaded.mean[i] == config.mean[i] && loaded.std[i] == config.std[i]);
        ck_assert(loaded.input_size[i] == config.input_size[i]);
    }
    ck_assert(loaded.crop_pct == 0.95);
    fv_arena_free(&arena);
}
END_TEST

START_TEST(test_configs_of_others) {
    static const struct {
        const char *text, *why; /* why NULL: it loads */
    } cases[] = {
        {"{\"architecture\":\"vit\",\"pretrained_cfg\":{\"input_size\":[3,8,8]}}", NULL},
        {"{\"architecture\":\"vit\",\"input_size\":[1,8,8],\"mean\":[0.5],\"std\":[1]}", NULL},
        {"{\"architecture\":\"vit\",\"pretrained_cfg\":{\"input_size\":[3,8,8],\"crop_pct\":null}}", NULL},
        {"", "not valid JSON"},
        {"[]", "not a JSON object"},
        {"{\"architecture\":1,\"input_size\":[3,8,8]}", "\"architecture\" is missing"},
        {"{\"architecture\":\"a\",\"architecture\":\"b\"}", "duplicate"},
        {"{\"architecture\":\"vit\"}", "\"input_size\" is missing"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8]}", "\"input_size\" is missing"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8.5]}", "\"input_size\" is missing"},
        {"{\"architecture\":\"vit\",\"input_size\":[1000,8,8]}", "channels must be"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,0,8]}", "height and width"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,999999]}", "height and width"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"mean\":[1,2]}", "\"mean\" is no list of 3"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"mean\":[1,2,\"3\"]}", "no number"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"std\":[1,0,1]}", "std finite and positive"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"crop_pct\":0}", "crop_pct must"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"num_classes\":-1}", "num_classes is out of range"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"num_classes\":\"9\"}", "no integer"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"label_names\":[1]}", "no list of texts"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"label_names\":{}}", "no list of texts"},
        {"{\"architecture\":\"vit\",\"input_size\":[3,8,8],\"num_classes\":2,\"label_names\":[\"a\"]}",
         "1 label_names for 2 classes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fv_model_config loaded;
        fv_arena arena;
        fv_arena_init(&arena, &ctx);
        fvt_put_file(path, cases[i].text, strlen(cases[i].text));
        fv_status status = fv_config_load(&ctx, &arena, path, &loaded);
        ck_assert_msg(status == (cases[i].why ? FV_E_MODEL : FV_OK), "%s: status %d", cases[i].text, (int)status);
        if (cases[i].why) ck_assert_msg(strstr(ctx.error.message, cases[i].why) != NULL, "%s", ctx.error.message);
        else ck_assert(loaded.crop_pct == 0.875 && !strcmp(loaded.interpolation, "bicubic") && loaded.std[0] > 0);
        fv_arena_free(&arena);
    }
}
END_TEST

START_TEST(test_bad_configs_are_not_saved) {
    static const char *const latin[] = {"caf\xe9", "b", "c"};
    fv_model_config bad = config;
    bad.label_names = latin;
    ck_assert_int_eq(fv_config_save(&ctx, path, &bad), FV_E_DATA);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "label name 0 is not UTF-8"));
    bad = config;
    bad.mean[1] = NAN;
    ck_assert_int_eq(fv_config_save(&ctx, path, &bad), FV_E_MODEL);
    ck_assert_int_eq(fvt_count_files(folder), 0);
}
END_TEST

/* ---------------------------------------------------------------- failing memory */

START_TEST(test_memory_failures) {
    fv_store *store = make_store(CLASSES, false, false, 7);
    int64_t base = memory.live;
    for (int what = 0; what < 4; what++) {
        fv_status status = FV_E_MEMORY;
        if (what == 3) fvt_memory_install_json(NULL); /* jansson's parser takes its own lack of memory for bad JSON */
        int64_t n = 1;
        for (; status != FV_OK && n < 1000; n++) {
            fv_arena arena;
            fv_model_config loaded;
            fv_arena_init(&arena, &ctx);
            memory.calls = 0;
            memory.fail_at = n;
            switch (what) {
            case 0: status = fv_model_save(&ctx, store, path, false, NULL, 0); break;
            case 1: status = fv_model_load(&ctx, store, path, NULL); break;
            case 2: status = fv_config_save(&ctx, path, &config); break;
            default: status = fv_config_load(&ctx, &arena, path, &loaded); break;
            }
            memory.fail_at = 0;
            fv_arena_free(&arena);
            ck_assert_msg(status == FV_OK || status == FV_E_MEMORY, "%d, allocation %d: %s", what, (int)n,
                          ctx.error.message);
            ck_assert_int_eq(memory.live, base);
            ck_assert_int_eq(files.open_files, 0);
        }
        ck_assert_int_ge(n, 4); /* at least two failures, then the success */
        ck_assert_int_lt(n, 1000);
    }
    fv_store_destroy(store);
}
END_TEST

Suite *model_io_suite(void) {
    Suite *s = suite_create("model_io");
    TCase *c = tcase_create("model_io");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, test_model_round_trip, 0, 4);
    tcase_add_test(c, test_averages_are_saved);
    tcase_add_loop_test(c, test_non_finite_weights_are_not_saved, 0, 2);
    tcase_add_test(c, test_file_layout_is_oihw);
    tcase_add_loop_test(c, test_other_floats_are_converted, 0, 2);
    tcase_add_test(c, test_what_does_not_fit_is_named);
    tcase_add_test(c, test_other_class_count);
    tcase_add_test(c, test_config_round_trip);
    tcase_add_test(c, test_configs_of_others);
    tcase_add_test(c, test_bad_configs_are_not_saved);
    tcase_add_test(c, test_memory_failures);
    suite_add_tcase(s, c);
    return s;
}
