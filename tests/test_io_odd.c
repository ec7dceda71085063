/* test_io_odd.c: what files and file systems rarely do: leftovers by the thousand, writes of nothing, folders that
 * cannot be synced; configurations and models from other hands; and every failing call while a model is read. */
#include "tests/faults.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Suite *io_odd_suite(void);

static char folder[128], path[160], warning[512];
static fv_ctx ctx;
static fvt_files files;
static fvt_memory memory;
static fv_device *device;
static fv_io usual; /* the watched calls, for those that a test puts its own in front of */

static void keep_warning(void *user, fv_log_level level, const char *line) {
    (void)user;
    if (level == FV_LOG_WARN) snprintf(warning, sizeof warning, "%s", line);
}

static void setup(void) {
    fvt_make_folder(folder);
    snprintf(path, sizeof path, "%s/file", folder);
    warning[0] = '\0';
    fv_ctx_init(&ctx);
    ctx.log = keep_warning;
    fvt_files_install(&files, &ctx);
    usual = ctx.io;
    fvt_memory_install(&memory, &ctx);
    ck_assert_int_eq(fv_backend_find("ref")->open(&ctx, &(fv_device_opts){0}, &device), FV_OK);
}

static void teardown(void) {
    device->backend->close(device);
    ck_assert_int_eq(memory.live, 0);
    ck_assert_int_eq(files.open_files, 0);
    fvt_remove_folder(folder);
}

static void ck_says(fv_status got, fv_status expected, const char *message) {
    ck_assert_msg(got == expected, "status %d (%s), not %d", (int)got, ctx.error.message, (int)expected);
    ck_assert_msg(strstr(ctx.error.message, message) != NULL, "'%s' lacks '%s'", ctx.error.message, message);
}

static bool file_holds(const char *text) {
    void *data;
    size_t size;
    fv_ctx plain;
    fv_ctx_init(&plain);
    if (fv_read_file(&plain, path, 1 << 20, &data, &size) != FV_OK) return false;
    bool same = size == strlen(text) && memcmp(data, text, size) == 0;
    fv_free(&plain, data, size + 1, 1);
    return same;
}

/* ---------------------------------------------------------------- file systems */

START_TEST(test_leftovers_by_the_thousand_end_in_an_error) {
    files.fail = FVT_OPEN;
    files.fail_at = 1;
    files.error = EEXIST;
    files.times = 7;
    ck_assert_int_eq(fv_write_file(&ctx, path, "x", 1), FV_OK); /* the eighth name is free */
    fvt_files_install(&files, &ctx);
    files.fail = FVT_OPEN;
    files.fail_at = 1;
    files.error = EEXIST;
    files.times = INT64_MAX;
    ck_says(fv_write_file(&ctx, path, "y", 1), FV_E_IO, "cannot create: File exists");
    ck_assert_int_le(files.calls[FVT_OPEN], 1000);
    ck_assert(file_holds("x"));
}
END_TEST

static int64_t write_nothing(void *user, int fd, const void *buf, size_t bytes) {
    (void)user, (void)fd, (void)buf, (void)bytes;
    return 0;
}

START_TEST(test_a_write_of_nothing_is_an_error) { /* and no endless loop */
    fvt_put_file(path, "old", 3);
    ctx.io.write = write_nothing;
    ck_says(fv_write_file(&ctx, path, "new", 3), FV_E_IO, "cannot write: Input/output error");
    ck_assert(file_holds("old"));
    ck_assert_int_eq(fvt_count_files(folder), 1);
}
END_TEST

static int close_badly(void *user, int fd) {
    usual.close(user, fd);
    errno = EDQUOT;
    return -1;
}

START_TEST(test_the_first_error_of_a_save_is_told) {
    ctx.io.close = close_badly;
    files.fail = FVT_WRITE;
    files.fail_at = 1;
    ck_says(fv_write_file(&ctx, path, "new", 3), FV_E_IO, "cannot write: Input/output error");
    ck_says(fv_write_file(&ctx, path, "new", 3), FV_E_IO, "cannot close: Disk quota exceeded");
    ck_assert_ptr_nonnull(strstr(ctx.error.hint, "free some space"));
    fv_writer w;
    files.fail = FVT_OPEN;
    files.fail_at = files.calls[FVT_OPEN] + 1;
    ck_assert_int_eq(fv_writer_open(&w, &ctx, path), FV_E_IO);
    ck_assert_int_eq(fv_write(&w, "x", 1), FV_E_IO); /* it stays failed */
    ck_says(fv_writer_commit(&w), FV_E_IO, "cannot create");
    ck_assert_int_eq(fvt_count_files(folder), 0);
}
END_TEST

START_TEST(test_syncing_a_folder) {
    char longer[700], here[256];
    fvt_put_file(path, "", 0);
    ck_assert_int_eq(fv_sync_name(&ctx, path), FV_OK);
    files.fail = FVT_FSYNC;
    files.fail_at = 2;
    files.times = INT64_MAX;
    files.error = EINVAL; /* a file system that has nothing to sync for folders */
    ck_assert_int_eq(fv_sync_name(&ctx, path), FV_OK);
    files.error = EIO;
    ck_says(fv_sync_name(&ctx, path), FV_E_IO, "cannot sync its folder: Input/output error");
    files.fail_at = 0;
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    ck_says(fv_sync_name(&ctx, longer), FV_E_IO, "longer than");
    ck_says(fv_sync_name(&ctx, "/no such folder/file"), FV_E_IO, "cannot open its folder");
    ck_assert_int_eq(fv_sync_name(&ctx, "/file"), FV_OK); /* in the root folder, ... */
    ck_assert_ptr_nonnull(getcwd(here, sizeof here));
    ck_assert_int_eq(chdir(folder), 0);
    ck_assert_int_eq(fv_sync_name(&ctx, "file"), FV_OK); /* ... and in this one */
    ck_assert_int_eq(chdir(here), 0);
}
END_TEST

/* ---------------------------------------------------------------- configurations */

static const fv_model_config config = {.architecture = "lenet5",
                                       .num_classes = 2,
                                       .input_size = {1, 8, 8},
                                       .mean = {0.5},
                                       .std = {0.25},
                                       .interpolation = "bilinear",
                                       .crop_pct = 1};

START_TEST(test_config_fields_that_cannot_be_are_not_saved) {
    static const char *const names[] = {"a", "b", "c"};
    fv_model_config bad = config;
#define REFUSED(change, message) \
    do { \
        bad = config; \
        change; \
        ck_says(fv_config_save(&ctx, path, &bad), FV_E_MODEL, message); \
        ck_assert_int_eq(fvt_count_files(folder), 0); \
    } while (0)
    REFUSED(bad.architecture = NULL, "architecture or interpolation is missing");
    REFUSED(bad.interpolation = NULL, "architecture or interpolation is missing");
    REFUSED(bad.num_classes = 1 << 30, "num_classes is out of range");
    REFUSED((bad.label_names = names, bad.n_labels = 3), "3 label_names for 2 classes");
    REFUSED(bad.input_size[0] = 0, "number of channels");
    REFUSED(bad.input_size[0] = FV_CONFIG_CHANNELS + 1, "number of channels");
    REFUSED(bad.input_size[1] = 0, "height and width");
    REFUSED(bad.std[0] = INFINITY, "std finite and positive");
    REFUSED(bad.std[0] = 0, "std finite and positive");
    REFUSED(bad.mean[0] = NAN, "mean must be finite");
    REFUSED(bad.crop_pct = 1.5, "crop_pct must be");
    REFUSED(bad.crop_pct = NAN, "crop_pct must be");
#undef REFUSED
    ck_assert_int_eq(fv_config_save(&ctx, path, &config), FV_OK);
}
END_TEST

static fv_status load_text(fv_arena *arena, const char *text, fv_model_config *loaded) {
    fvt_put_file(path, text, strlen(text));
    return fv_config_load(&ctx, arena, path, loaded);
}

START_TEST(test_config_says_whether_labels_exclude_each_other) {
    static const struct {
        const char *problem;
        bool several;
    } cases[] = {{"\"multi_label_classification\"", true},
                 {"\"multi_label\"", true},
                 {"\"single_label_classification\"", false},
                 {"\"regression\"", false},
                 {"null", false},
                 {"7", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        fv_arena arena;
        fv_model_config loaded;
        fv_arena_init(&arena, &ctx);
        snprintf(text, sizeof text, "{\"architecture\":\"a\",\"input_size\":[1,8,8],\"problem_type\":%s}",
                 cases[i].problem);
        ck_assert_int_eq(load_text(&arena, text, &loaded), FV_OK);
        ck_assert_msg(loaded.multi_label == cases[i].several, "%s", cases[i].problem);
        fv_arena_free(&arena);
    }
}
END_TEST

START_TEST(test_config_with_odd_fields) {
    static const struct {
        const char *fields, *why; /* why NULL: it loads */
    } cases[] = {
        {"\"label_names\":null", NULL},
        {"\"num_classes\":null,\"pretrained_cfg\":{\"num_classes\":4}", "\"num_classes\" is no integer"},
        {"\"pretrained_cfg\":{\"num_classes\":4}", NULL},
        {"\"pretrained_cfg\":{\"num_classes\":4.5}", "\"num_classes\" is no integer"},
        {"\"pretrained_cfg\":[]", NULL},
        {"\"mean\":[7],\"std\":[2.5]", NULL},
        {"\"mean\":7", "\"mean\" is no list of 1 numbers"},
        {"\"mean\":[true]", "\"mean\" holds something that is no number"},
        {"\"std\":[-1]", "std finite and positive"},
        {"\"crop_pct\":1", NULL},
        {"\"crop_pct\":0.5", NULL},
        {"\"crop_pct\":\"0.5\"", "\"crop_pct\" is no number"},
        {"\"interpolation\":3", "\"interpolation\" is missing or no text"},
        {"\"label_names\":\"ab\"", "\"label_names\" is no list of texts"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[256];
        fv_arena arena;
        fv_model_config loaded;
        fv_arena_init(&arena, &ctx);
        snprintf(text, sizeof text, "{\"architecture\":\"a\",\"input_size\":[1,8,8],%s}", cases[i].fields);
        fv_status status = load_text(&arena, text, &loaded);
        if (cases[i].why) ck_says(status, FV_E_MODEL, cases[i].why);
        else ck_assert_msg(status == FV_OK, "%s: %s", cases[i].fields, ctx.error.message);
        fv_arena_free(&arena);
    }
}
END_TEST

/* ---------------------------------------------------------------- models */

/* One buffer for each element type that a model may keep, and a weight; names of `length` letters. */
static fv_store *make_store(int length, fv_dtype counter) {
    char name[100];
    fv_store *store = NULL;
    fv_graph *g = fv_graph_new(&ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_scope root = fv_root(g);
    snprintf(name, sizeof name, "%.*s", length,
             "weight_of_a_layer_whose_name_goes_on_and_on_and_on_and_on_and_on_and_on_");
    for (int i = 0; i < 4; i++) {
        fv_scope in = fv_in(root, "%d", i);
        fv_param(in, name, fv_shape(FV_F32, 2, 3), FV_PLAIN, (fv_init){FV_INIT_NORMAL, 0, 1, NULL}, false);
    }
    fv_buffer(root, "counter", fv_scalar(counter), (fv_init){FV_INIT_CONSTANT, 7, 0, NULL});
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_store_create(&ctx, device, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_msg(fv_store_commit(store, 1) == FV_OK, "%s", ctx.error.message);
    fv_graph_free(g);
    return store;
}

/* The file of the store, with its counter as `data` of another type. */
static void put_model(int length, fv_type type, const void *data) {
    static const float weight[6] = {1, 2, 3, 4, 5, 6};
    static char names[4][112];
    fv_st_tensor tensors[5];
    for (int i = 0; i < 4; i++) {
        snprintf(names[i], sizeof names[i], "%d.%.*s", i, length,
                 "weight_of_a_layer_whose_name_goes_on_and_on_and_on_and_on_and_on_and_on_");
        tensors[i] = (fv_st_tensor){names[i], fv_shape(FV_F32, 2, 3), weight};
    }
    tensors[4] = (fv_st_tensor){"counter", type, data};
    ck_assert_msg(fv_st_save(&ctx, path, tensors, 5, NULL, 0) == FV_OK, "%s", ctx.error.message);
}

START_TEST(test_counters_of_any_integer_type_are_read) {
    static const int64_t wide[] = {-5};
    static const int32_t narrow[] = {-5};
    static const uint8_t byte[] = {251};
    static const float number[] = {-5};
    fv_store *store = make_store(6, FV_I64);
    int32_t slot = fv_store_find(store, "counter");
    int64_t value;
    struct {
        fv_type type;
        const void *data;
        int64_t expected;
    } cases[] = {{fv_scalar(FV_I64), wide, -5},       {fv_scalar(FV_I32), narrow, -5},
                 {fv_scalar(FV_U8), byte, 251},       {fv_shape(FV_I32, 1), narrow, -5}, /* [1] is taken for [] */
                 {fv_shape(FV_I32, 1, 1), narrow, 0}, {fv_scalar(FV_F32), number, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_model(6, cases[i].type, cases[i].data);
        fv_status status = fv_model_load(&ctx, store, path, NULL);
        if (cases[i].expected) {
            ck_assert_msg(status == FV_OK, "case %d: %s", (int)i, ctx.error.message);
            ck_assert_int_eq(fv_store_read(store, slot, &value, sizeof value), FV_OK);
            ck_assert_int_eq(value, cases[i].expected);
        } else ck_says(status, FV_E_MODEL, i == 5 ? "f32 in the file, i64 in the model" : "[1,1] in the file");
    }
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_other_buffers_want_their_own_type) {
    static const int32_t narrow[] = {-5};
    static const int64_t wide[] = {-5};
    int32_t value;
    fv_store *store = make_store(6, FV_I32);
    put_model(6, fv_scalar(FV_I32), narrow);
    ck_assert_msg(fv_model_load(&ctx, store, path, NULL) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_store_read(store, fv_store_find(store, "counter"), &value, sizeof value), FV_OK);
    ck_assert_int_eq(value, -5);
    put_model(6, fv_scalar(FV_I64), wide);
    ck_says(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL, "counter: i64 in the file, i32 in the model");
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_many_long_names_that_do_not_fit_are_cut) {
    static const int64_t wide[] = {1};
    fv_store *store = make_store(70, FV_I64);
    put_model(69, fv_scalar(FV_I64), wide); /* each name lacks its last letter */
    ck_says(fv_model_load(&ctx, store, path, NULL), FV_E_MODEL, "4 missing (0.weight_of_a_layer");
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "; 4 unexpected (0.weight_of_a_layer"));
    ck_assert_ptr_nonnull(strstr(ctx.error.message, ", ...)"));
    fv_store_destroy(store);
}
END_TEST

/* ---------------------------------------------------------------- failing calls */

typedef fv_status (*action)(fv_store *store);

static fv_status load(fv_store *store) {
    return fv_model_load(&ctx, store, path, NULL);
}
static fv_status save(fv_store *store) {
    return fv_model_save(&ctx, store, path, false, NULL, 0);
}
static fv_status restore(fv_store *store) {
    fv_st_file f;
    FV_TRY(fv_st_open(&f, &ctx, path));
    fv_status status = fv_state_restore(&ctx, store, &f);
    fv_st_close(&f);
    return status;
}
static fv_status load_config(fv_store *store) {
    fv_model_config loaded;
    fv_arena arena;
    (void)store;
    fv_arena_init(&arena, &ctx);
    fv_status status = fv_config_load(&ctx, &arena, path, &loaded);
    fv_arena_free(&arena);
    return status;
}

static const struct {
    const char *name;
    action run;
} actions[] = {{"load", load}, {"save", save}, {"restore", restore}, {"load config", load_config}};

static void put_what_is_read(action run, fv_store *store) {
    fvt_files_install(&files, &ctx);
    if (run == load_config) ck_assert_int_eq(fv_config_save(&ctx, path, &config), FV_OK);
    else if (run == restore) ck_assert_int_eq(fv_state_save(&ctx, store, path, NULL, NULL, 0), FV_OK);
    else ck_assert_int_eq(save(store), FV_OK);
}

/* The first, then the second ... call of each kind fails: an error that names the file, nothing left open or in memory,
 * and the same thing works afterwards. */
START_TEST(test_every_failing_call_is_an_error) {
    static const fvt_call calls[] = {FVT_OPEN, FVT_READ, FVT_SIZE, FVT_WRITE, FVT_FSYNC, FVT_RENAME};
    fv_store *store = make_store(6, FV_I64);
    put_what_is_read(actions[_i].run, store);
    int64_t base = memory.live;
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++)
        for (int64_t n = 1, reached = 1; reached; n++) {
            fvt_files_install(&files, &ctx);
            files.fail = calls[c];
            files.fail_at = n;
            files.short_by = 64;
            fv_status status = actions[_i].run(store);
            reached = files.calls[calls[c]] >= n;
            ck_assert_msg(status == (reached ? FV_E_IO : FV_OK), "%s, call %d %d: status %d", actions[_i].name, (int)c,
                          (int)n, (int)status);
            if (reached) ck_assert_str_eq(ctx.error.path, path);
            ck_assert_int_eq(memory.live, base);
            ck_assert_int_eq(files.open_files, 0);
        }
    fvt_files_install(&files, &ctx);
    ck_assert_int_eq(actions[_i].run(store), FV_OK);
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_every_failing_allocation_is_an_error) {
    fv_store *store = make_store(6, FV_I64);
    put_what_is_read(actions[_i].run, store);
    int64_t base = memory.live;
    for (int64_t n = 1, reached = 1; reached; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        fv_status status = actions[_i].run(store);
        reached = memory.calls >= n;
        memory.fail_at = 0;
        ck_assert_msg(status == (reached ? FV_E_MEMORY : FV_OK), "%s, allocation %d: status %d", actions[_i].name,
                      (int)n, (int)status);
        ck_assert_int_eq(memory.live, base);
        ck_assert_int_eq(files.open_files, 0);
    }
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_state_with_a_tensor_too_many) {
    fv_st_file f;
    fv_st_tensor tensors[16];
    fv_store *store = make_store(6, FV_I64);
    ck_assert_int_eq(fv_state_save(&ctx, store, path, NULL, NULL, 0), FV_OK);
    ck_assert_int_eq(restore(store), FV_OK);
    ck_assert_int_eq(fv_st_open(&f, &ctx, path), FV_OK);
    for (int32_t i = 0; i < f.count; i++)
        tensors[i] = (fv_st_tensor){f.entry[i].name, f.entry[i].type, f.data + f.entry[i].offset};
    tensors[f.count] = (fv_st_tensor){"opt.momentum.0.weight", fv_shape(FV_F32, 2, 3), tensors[1].data};
    ck_assert_int_eq(fv_st_save(&ctx, path, tensors, f.count + 1, NULL, 0), FV_OK);
    fv_st_close(&f);
    ck_says(restore(store), FV_E_MODEL, "it holds 6 tensors, the model 5");
    fv_store_destroy(store);
}
END_TEST

Suite *io_odd_suite(void) {
    const int n_actions = (int)(sizeof actions / sizeof *actions);
    Suite *s = suite_create("io_odd");
    TCase *c = tcase_create("io_odd");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 60);
    tcase_add_test(c, test_leftovers_by_the_thousand_end_in_an_error);
    tcase_add_test(c, test_a_write_of_nothing_is_an_error);
    tcase_add_test(c, test_the_first_error_of_a_save_is_told);
    tcase_add_test(c, test_syncing_a_folder);
    tcase_add_test(c, test_config_fields_that_cannot_be_are_not_saved);
    tcase_add_test(c, test_config_says_whether_labels_exclude_each_other);
    tcase_add_test(c, test_config_with_odd_fields);
    tcase_add_test(c, test_counters_of_any_integer_type_are_read);
    tcase_add_test(c, test_other_buffers_want_their_own_type);
    tcase_add_test(c, test_many_long_names_that_do_not_fit_are_cut);
    tcase_add_loop_test(c, test_every_failing_call_is_an_error, 0, n_actions);
    tcase_add_loop_test(c, test_every_failing_allocation_is_an_error, 0, n_actions);
    tcase_add_test(c, test_state_with_a_tensor_too_many);
    suite_add_tcase(s, c);
    return s;
}
