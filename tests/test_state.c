/* test_state.c: training state: everything comes back bit for bit; every flip and truncation of it, and of a model, is
 * refused; no failure of disk or memory costs the state that was there before. */
#include "tests/faults.h"

#include <check.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

Suite *state_suite(void);

enum { OUT = 3, IN = 2, K = 2, CLASSES = 4 };

static char folder[128], last[160], prev[160];
static fv_ctx ctx;
static fvt_files files;
static fvt_memory memory;
static fv_device *device;
static const char *const meta[][2] = {{"format", "fovea training state 1"}, {"writer", "fovea " FV_VERSION}};

static void setup(void) {
    fvt_make_folder(folder);
    snprintf(last, sizeof last, "%s/last.safetensors", folder);
    snprintf(prev, sizeof prev, "%s/prev.safetensors", folder);
    fv_ctx_init(&ctx);
    fvt_files_install(&files, &ctx);
    fvt_memory_install(&memory, &ctx);
    ck_assert_int_eq(fv_backend_find("ref")->open(&ctx, &(fv_device_opts){0}, &device), FV_OK);
}

static void teardown(void) {
    device->backend->close(device);
    ck_assert_int_eq(memory.live, 0);
    ck_assert_int_eq(files.open_files, 0);
    fvt_remove_folder(folder);
}

/* A slot of every role that state keeps: weights in file layouts that differ from memory, a buffer, a counter, moments,
 * averages. Every value depends on the seed. */
static fv_store *make_store(int64_t classes, uint64_t seed) {
    fv_store *store = NULL;
    fv_graph *g = fv_graph_new(&ctx, true);
    ck_assert_ptr_nonnull(g);
    fv_init normal = {FV_INIT_NORMAL, 0, 1, NULL};
    fv_scope root = fv_root(g), conv = fv_in(root, "conv1"), bn = fv_in(root, "bn1"), fc = fv_in(root, "fc");
    fv_value weights[2];
    weights[0] = fv_param(conv, "weight", fv_shape(FV_F32, OUT, K, K, IN), FV_OIHW, normal, false);
    weights[1] = fv_param(fc, "weight", fv_shape(FV_F32, classes, OUT), FV_PLAIN, normal, false);
    fv_buffer(bn, "running_mean", fv_shape(FV_F32, OUT), normal);
    fv_buffer(bn, "num_batches_tracked", fv_scalar(FV_I64), (fv_init){FV_INIT_CONSTANT, (double)seed, 0, NULL});
    for (int i = 0; i < 2; i++) {
        fv_state_of(g, weights[i], FV_ROLE_MOMENT, "momentum");
        fv_state_of(g, weights[i], FV_ROLE_EMA, NULL);
        fv_state_of(g, weights[i], FV_ROLE_SLOW, NULL);
    }
    ck_assert_msg(fv_graph_finish(g) == FV_OK, "%s", ctx.error.message);
    ck_assert_int_eq(fv_store_create(&ctx, device, &store), FV_OK);
    ck_assert_int_eq(fv_store_bind(store, g), FV_OK);
    ck_assert_int_eq(fv_store_commit(store, seed), FV_OK);
    fv_graph_free(g);
    for (int32_t i = 0; i < fv_store_count(store); i++) { /* moments and averages begin at zero: give them contents */
        float values[64];
        const fv_slot *slot = fv_store_slot(store, i);
        if (slot->role != FV_ROLE_MOMENT && slot->role != FV_ROLE_EMA && slot->role != FV_ROLE_SLOW) continue;
        for (int64_t k = 0; k < fv_count(slot->type); k++) values[k] = (float)(seed * 100 + (uint64_t)(i * 7 + k));
        ck_assert_int_eq(fv_store_write(store, i, values, fv_bytes(slot->type)), FV_OK);
    }
    return store;
}

static uint64_t hash(fv_store *store) {
    uint64_t value = 0;
    ck_assert_int_eq(fv_store_hash(store, &value), FV_OK);
    return value;
}

static fv_status save(fv_store *store) {
    return fv_state_save(&ctx, store, last, prev, meta, 2);
}

static fv_status restore(fv_store *store, const char *path) {
    fv_st_file f;
    FV_TRY(fv_st_open(&f, &ctx, path));
    fv_status status = fv_state_restore(&ctx, store, &f);
    fv_st_close(&f);
    return status;
}

/* ---------------------------------------------------------------- round trips */

START_TEST(test_state_round_trip) {
    fv_store *a = make_store(CLASSES, 7), *b = make_store(CLASSES, 8), *c = make_store(CLASSES, 9);
    ck_assert(hash(a) != hash(b));
    ck_assert_int_eq(save(b), FV_OK);
    ck_assert_int_eq(access(prev, F_OK), -1);
    ck_assert_int_eq(save(a), FV_OK);
    ck_assert_int_eq(fvt_count_files(folder), 2);
    ck_assert_msg(restore(c, last) == FV_OK, "%s", ctx.error.message);
    ck_assert_uint_eq(hash(c), hash(a));
    ck_assert_int_eq(restore(c, prev), FV_OK); /* the one before is whole, too */
    ck_assert_uint_eq(hash(c), hash(b));
    fv_store_destroy(a);
    fv_store_destroy(b);
    fv_store_destroy(c);
}
END_TEST

START_TEST(test_state_of_another_model) {
    fv_store *a = make_store(CLASSES, 7), *b = make_store(CLASSES + 1, 8);
    ck_assert_int_eq(save(a), FV_OK);
    ck_assert_int_eq(restore(b, last), FV_E_MODEL);
    ck_assert_ptr_nonnull(strstr(ctx.error.message, "fc.weight"));
    ck_assert_int_eq(fv_model_save(&ctx, a, last, false, meta, 2), FV_OK); /* no moments, other names */
    ck_assert_int_eq(restore(a, last), FV_E_MODEL);
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

/* Not-a-number in any kind of slot keeps state and model from being saved over good ones. */
START_TEST(test_non_finite_state_is_not_saved) {
    static const char *const slots[] = {"conv1.weight", "bn1.running_mean", "opt.momentum.fc.weight", "ema.fc.weight",
                                        "slow.fc.weight"};
    static const double bad[] = {(double)NAN, (double)INFINITY, -(double)INFINITY};
    fv_store *a = make_store(CLASSES, 7), *b = make_store(CLASSES, 8);
    ck_assert_int_eq(save(a), FV_OK);
    int32_t slot = fv_store_find(b, slots[_i]);
    ck_assert_int_ge(slot, 0);
    for (int k = 0; k < 3; k++) {
        float values[64];
        size_t bytes = fv_bytes(fv_store_slot(b, slot)->type);
        ck_assert_int_eq(fv_store_read(b, slot, values, bytes), FV_OK);
        float before = values[1];
        values[1] = (float)bad[k];
        ck_assert_int_eq(fv_store_write(b, slot, values, bytes), FV_OK);
        ck_assert_int_eq(save(b), FV_E_NUMERIC);
        ck_assert_ptr_nonnull(strstr(ctx.error.message, slots[_i]));
        ck_assert_int_eq(fvt_count_files(folder), 1);
        values[1] = before;
        ck_assert_int_eq(fv_store_write(b, slot, values, bytes), FV_OK);
    }
    ck_assert_int_eq(restore(b, last), FV_OK);
    ck_assert_uint_eq(hash(b), hash(a));
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

/* ---------------------------------------------------------------- damage */

static fv_status open_bytes(const unsigned char *bytes, size_t size) {
    fv_st_file f;
    fvt_put_file(prev, bytes, size);
    fv_status status = fv_st_open(&f, &ctx, prev);
    if (status == FV_OK) fv_st_close(&f);
    return status;
}

/* Neither one bit more or less, nor one byte. */
static void refuse_all_damage(void) {
    void *data;
    size_t size;
    int64_t accepted = 0, live;
    ck_assert_int_eq(fv_read_file(&ctx, last, 1 << 20, &data, &size), FV_OK);
    unsigned char *bytes = data;
    live = memory.live;
    ck_assert_int_eq(open_bytes(bytes, size), FV_OK);
    for (size_t cut = 0; cut < size; cut++) accepted += open_bytes(bytes, cut) != FV_E_MODEL;
    ck_assert_msg(accepted == 0, "%d of %zu truncations were accepted", (int)accepted, size);
    for (size_t bit = 0; bit < 8 * size; bit++) {
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        fv_status status = open_bytes(bytes, size);
        bytes[bit / 8] ^= (unsigned char)(1u << bit % 8);
        ck_assert_msg(status == FV_E_MODEL, "bit %zu of byte %zu: status %d", bit % 8, bit / 8, (int)status);
        ck_assert_int_eq(memory.live, live);
    }
    bytes[size] = 0; /* there is room for it: fv_read_file puts a zero behind */
    ck_assert_int_eq(open_bytes(bytes, size + 1), FV_E_MODEL);
    fv_free(&ctx, data, size + 1, 1);
}

START_TEST(test_damaged_state_is_refused) {
    fv_store *store = make_store(CLASSES, 7);
    ck_assert_int_eq(save(store), FV_OK);
    refuse_all_damage();
    fv_store_destroy(store);
}
END_TEST

START_TEST(test_damaged_model_is_refused) {
    fv_store *store = make_store(CLASSES, 7);
    ck_assert_int_eq(fv_model_save(&ctx, store, last, false, meta, 2), FV_OK);
    refuse_all_damage();
    fv_store_destroy(store);
}
END_TEST

/* ---------------------------------------------------------------- failing disks and memory */

/* Whatever call fails, and for however long: one of the two files holds what was saved before, or what was to be. */
START_TEST(test_no_disk_failure_loses_state) {
    static const int errors[] = {ENOSPC, EIO, EDQUOT};
    fv_store *a = make_store(CLASSES, 7), *b = make_store(CLASSES, 8), *c = make_store(CLASSES, 9);
    uint64_t before = hash(a), now = hash(b);
    int64_t failed = 0;
    for (int call = 0; call < FVT_UNLINK; call++)
        for (int64_t at = 1; at <= 16; at++)
            for (int ever = 0; ever < 2; ever++) {
                ck_assert_int_eq(save(a), FV_OK);
                fvt_files_install(&files, &ctx);
                files.fail = (fvt_call)call;
                files.fail_at = at;
                files.times = ever ? INT64_MAX : 1;
                files.error = errors[at % 3];
                fv_status status = save(b);
                ck_assert(status == FV_OK || (status == FV_E_IO && strstr(ctx.error.message, strerror(files.error))));
                ck_assert_int_eq(files.open_files, 0);
                failed += status != FV_OK;
                fvt_files_install(&files, &ctx);
                fv_status read = restore(c, last);
                if (read != FV_OK) read = restore(c, prev);
                ck_assert_msg(read == FV_OK, "call %d, number %d: %s", call, (int)at, ctx.error.message);
                ck_assert(hash(c) == now || (status != FV_OK && hash(c) == before));
                ck_assert_int_le(fvt_count_files(folder), 2);
            }
    ck_assert_int_ge(failed, 30);
    fv_store_destroy(a);
    fv_store_destroy(b);
    fv_store_destroy(c);
}
END_TEST

START_TEST(test_memory_failures) {
    fv_store *a = make_store(CLASSES, 7), *b = make_store(CLASSES, 8);
    ck_assert_int_eq(save(a), FV_OK);
    int64_t live = memory.live;
    for (int what = 0; what < 2; what++) {
        fv_status status = FV_E_MEMORY;
        int64_t n = 1;
        for (; status != FV_OK && n < 1000; n++) {
            memory.calls = 0;
            memory.fail_at = n;
            status = what ? restore(b, last) : save(b);
            memory.fail_at = 0;
            ck_assert_msg(status == FV_OK || status == FV_E_MEMORY, "allocation %d: %s", (int)n, ctx.error.message);
            ck_assert_int_eq(memory.live, live);
        }
        ck_assert_int_ge(n, 5);
    }
    fv_store_destroy(a);
    fv_store_destroy(b);
}
END_TEST

Suite *state_suite(void) {
    Suite *s = suite_create("state");
    TCase *c = tcase_create("state");
    tcase_add_checked_fixture(c, setup, teardown);
    tcase_set_timeout(c, 120);
    tcase_add_test(c, test_state_round_trip);
    tcase_add_test(c, test_state_of_another_model);
    tcase_add_loop_test(c, test_non_finite_state_is_not_saved, 0, 5);
    tcase_add_test(c, test_damaged_state_is_refused);
    tcase_add_test(c, test_damaged_model_is_refused);
    tcase_add_test(c, test_no_disk_failure_loses_state);
    tcase_add_test(c, test_memory_failures);
    suite_add_tcase(s, c);
    return s;
}
