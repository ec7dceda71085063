/* test_files_bad.c: sets of files with files that cannot be decoded, and with memory and files that fail. */
#include "tests/file_sets.h"
#include "tests/photos.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Suite *files_bad_suite(void);

/* ---------------------------------------------------------------- bad pictures */

static void put_bad_set(void) {
    char name[32];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "set/%c/%02d.png", 'a' + i % 2, i);
        fvt_put_png(name, (uint8_t)(10 * i));
    }
    fvt_put_text("set/a/02.png", "no picture");
    fvt_put("set/b/05.png", "\x89PNG\r\n\x1a\n", 8);
    fvt_put_png("set/b/07.png", 40); /* as a/04.png */
    fvt_put_png("set/b/09.png", 30); /* as b/03.png */
}

START_TEST(test_skip_bad) {
    static const fv_cache caches[] = {FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK};
    put_bad_set();
    fvt_make_dirs("cache");
    char split[FV_DATA_PATH], cache[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    snprintf(cache, sizeof cache, "%s", fvt_in_folder("cache"));
    const fv_dataset_opts opts = {.img_size = 2,
                                  .in_chans = 1,
                                  .cache = caches[_i],
                                  .cache_dir = cache,
                                  .skip_bad = true,
                                  .workers = 1,
                                  .val_split = 0.2};
    fv_dataset_opts strict = opts, saved = opts;
    strict.skip_bad = false;
    saved.split_file = split;
    if (caches[_i] != FV_CACHE_NONE) fvt_refused("set", &strict, FV_E_DATA, "set/a/02.png", "");
    fv_dataset *d = fvt_opened("set", &opts);
    ck_assert_int_eq(d->count, 10);
    ck_assert_ptr_nonnull(strstr(fvt_log, "set: 2 of 12 files are left out"));
    fv_decoder *decoder;
    ck_assert_int_eq(fv_decoder_create(&fvt_sets.ctx, &decoder), FV_OK);
    for (int64_t i = 0; i < d->count; i++) { /* each picture is still its own */
        uint8_t pixels[4];
        int number = atoi(fv_dataset_file(d, i) + 2), value = number == 7 ? 40 : number == 9 ? 30 : 10 * number;
        ck_assert_int_eq(d->labels[i], number % 2);
        ck_assert_int_eq(fv_dataset_picture(d, decoder, i, pixels), FV_OK);
        for (int j = 0; j < 4; j++) ck_assert_int_eq(pixels[j], value);
    }
    fv_decoder_destroy(decoder);
    /* a saved split does not name what was left out, and need not */
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_OK);
    fv_dataset *again = fvt_opened("set", &saved);
    ck_assert_uint_eq(again->fingerprint, d->fingerprint);
    fv_dataset_free(again);
    fv_dataset_free(d);
    for (int i = 1; i < 12; i += 2) { /* a class that loses all */
        char name[32];
        snprintf(name, sizeof name, "set/b/%02d.png", i);
        fvt_put_text(name, "bad");
    }
    fvt_refused("set", &opts, FV_E_DATA, "set", "1 of 2 classes have no picture in train: 'b'");
    for (int i = 0; i < 12; i += 2) {
        char name[32];
        snprintf(name, sizeof name, "set/a/%02d.png", i);
        fvt_put_text(name, "bad");
    }
    fvt_refused("set", &opts, FV_E_DATA, "set", "none of its files can be decoded");
}
END_TEST

/* Headers behind more bytes than are read at first, and a file of that size that has none. */
START_TEST(test_long_headers) {
    fvt_photos photos;
    fvt_photos_make(&photos, 12);
    void *data = NULL;
    size_t size = 0;
    int i = 0;
    for (; i < 12; i++) { /* the first JPEG */
        if (data) fv_free(&fvt_sets.ctx, data, size + 1, 1);
        const char *path = fvt_photos_at(&photos, photos.path[i]);
        ck_assert_int_eq(fv_read_file(&fvt_sets.ctx, path, 1 << 20, &data, &size), FV_OK);
        if (memcmp(data, "\xff\xd8", 2) == 0) break;
    }
    ck_assert_int_lt(i, 12);
    const size_t comment = 65535, comments = 5;
    uint8_t *all = calloc(comments, comment + 2), *p = all;
    uint8_t *file = malloc(size + comments * (comment + 2));
    for (size_t k = 0; k < comments; k++, p += comment + 2) memcpy(p, "\xff\xfe\xff\xff", 4);
    size_t n = comments * (comment + 2);
    memcpy(file, data, 2);
    memcpy(file + 2, all, n);
    memcpy(file + 2 + n, (uint8_t *)data + 2, size - 2);
    fvt_put("set/a/long.jpg", file, size + n);
    fvt_put("set/b/bad.jpg", all, n);
    free(all);
    free(file);
    fv_free(&fvt_sets.ctx, data, size + 1, 1);
    fv_file_report *report;
    fv_dataset *d = fvt_opened("set", &fvt_plain);
    for (int decode = 0; decode < 2; decode++) {
        ck_assert_int_eq(fv_dataset_inspect(d, decode, &fvt_plain, &d->arena, &report), FV_OK);
        ck_assert_ptr_null(report[0].problem);
        ck_assert(report[0].info.h == photos.h[i] && report[0].info.w == photos.w[i]);
        ck_assert_ptr_nonnull(report[1].problem);
    }
    unlink(fvt_in_folder("set/b/bad.jpg")); /* meanwhile */
    ck_assert_int_eq(fv_dataset_inspect(d, false, &fvt_plain, &d->arena, &report), FV_OK);
    ck_assert_ptr_nonnull(strstr(report[1].problem, "no such file"));
    fv_dataset_free(d);
    fvt_photos_remove(&photos);
}
END_TEST

START_TEST(test_inspect) {
    put_bad_set();
    int64_t done = -1;
    fv_file_report *report;
    fv_arena arena;
    const fv_dataset_opts opts = {.img_size = 8, .workers = _i, .progress = fvt_keep_progress, .progress_user = &done};
    fv_dataset *d = fvt_opened("set", &opts);
    fv_arena_init(&arena, &fvt_sets.ctx);
    for (int decode = 0; decode < 2; decode++) {
        ck_assert_int_eq(fv_dataset_inspect(d, decode, &opts, &arena, &report), FV_OK);
        ck_assert(done >= -1 && done <= 12); /* threads may be done before it is first asked */
        for (int64_t i = 0; i < d->count; i++) {
            int number = atoi(fv_dataset_file(d, i) + 2);
            bool is_bad = number == 2 || number == 5;
            ck_assert_msg((report[i].problem != NULL) == is_bad, "%d: %s", number, report[i].problem);
            if (!is_bad) {
                ck_assert_int_eq(report[i].info.format, FV_IMAGE_PNG);
                ck_assert(report[i].info.h == 2 && report[i].info.w == 2 && report[i].info.c == 1);
            }
            int64_t copy = -1;
            if (decode && number == 7) copy = fvt_find_file(d, "a/04.png");
            if (decode && number == 9) copy = fvt_find_file(d, "b/03.png");
            ck_assert_int_eq(report[i].copy_of, copy);
        }
    }
    fv_arena_free(&arena);
    fv_dataset_free(d);
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, fvt_in_folder("set"), NULL), FV_E_DATA, "set",
                   "2 of 12 files cannot be decoded; the first is a/02.png");
    ck_assert_ptr_nonnull(strstr(fvt_log, "b/07.png has the same bytes as a/04.png"));
    fvt_put_png("set/a/02.png", 1);
    fvt_put_png("set/b/05.png", 2);
    ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, fvt_in_folder("set"), NULL), FV_OK);
    ck_assert_int_eq(fvt_open_set("synthetic", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_refused(fv_dataset_inspect(d, true, &opts, &d->arena, &report), FV_E_USAGE, NULL, "only sets of picture");
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- failing memory and files */

START_TEST(test_failing_memory) {
    char split[FV_DATA_PATH], text[2048] = "";
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "set/train/%c/%02d.png", 'a' + i % 2, i);
        fvt_put_png(name, (uint8_t)i);
        sprintf(text + strlen(text), "%s,%c%s\n", name, 'a' + i % 2, i ? "" : "|c");
    }
    fvt_put_text("set/train/a/bad.png", "x");
    fvt_put_text("list.csv", text);
    for (int i = 0; i < 70; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/train/%d", i);
        fvt_put_many(name, 0, 5);
        snprintf(name, sizeof name, "many/test/%d", i);
        fvt_put_many(name, 0, 1);
    }
    const fv_dataset_opts hash = {.img_size = 2, .val_split = 0.2, .test_split = 0.2};
    fvt_fail_each_allocation("set", &hash);
    fvt_fail_each_allocation("list.csv", &hash);
    fvt_fail_each_allocation("many", &hash);
    fv_dataset *d = fvt_opened("list.csv", &hash);
    fvt_sets.memory.fail_at = fvt_sets.memory.calls + 1;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_E_MEMORY);
    fvt_sets.memory.fail_at = 0;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_OK);
    fv_dataset_free(d);
    const fv_dataset_opts file = {.img_size = 2, .split_file = split};
    fvt_fail_each_allocation("list.csv", &file);
    const fv_dataset_opts cached = {.img_size = 2, .cache = FV_CACHE_RAM, .skip_bad = true, .workers = 1};
    fvt_fail_each_allocation("set", &cached);
}
END_TEST

START_TEST(test_failing_inspection) {
    put_bad_set();
    const fv_dataset_opts opts = {.img_size = 8, .workers = 1};
    fv_dataset *d = fvt_opened("set", &opts);
    int64_t live = fvt_sets.memory.live;
    for (int64_t n = 1;; n++) {
        fv_file_report *report;
        fv_arena arena;
        fv_arena_init(&arena, &fvt_sets.ctx);
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = fv_dataset_inspect(d, true, &opts, &arena, &report);
        bool reached = fvt_sets.memory.calls >= n;
        fvt_sets.memory.fail_at = 0;
        fv_arena_free(&arena);
        ck_assert_int_eq(fvt_sets.memory.live, live);
        ck_assert_msg(status == (reached ? FV_E_MEMORY : FV_OK), "allocation %lld: status %d: %s", (long long)n,
                      (int)status, fvt_sets.ctx.error.message);
        if (!reached) break;
    }
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_failing_files) {
    char split[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    fvt_put_pictures();
    fvt_put_text("list.csv", "a.jpg,x\nb.jpg,y\nc.jpg,x\n");
    fvt_put_text("split.csv", "a.jpg,train\nb.jpg,train\nc.jpg,test\n");
    const fv_dataset_opts opts = {.img_size = 8, .split_file = split};
    fv_dataset *d;
    static const fvt_call reads[] = {FVT_OPEN, FVT_READ, FVT_SIZE};
    for (int c = 0; c < 3; c++)
        for (int64_t n = 1;; n++) {
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            fvt_sets.files.fail = reads[c];
            fvt_sets.files.fail_at = n;
            fv_status status = fvt_open_files("list.csv", &opts, &d);
            bool reached = fvt_sets.files.calls[reads[c]] >= n;
            ck_assert_int_eq(fvt_sets.files.open_files, 0);
            ck_assert_int_eq(status, reached ? FV_E_IO : FV_OK);
            if (status != FV_OK) continue;
            fv_dataset_free(d);
            break;
        }
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    d = fvt_opened("list.csv", &opts);
    static const fvt_call writes[] = {FVT_OPEN, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME};
    for (int c = 0; c < 5; c++) { /* what was there before stays */
        fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
        fvt_sets.files.fail = writes[c];
        fvt_sets.files.fail_at = 1;
        fvt_sets.files.error = ENOSPC;
        fvt_put_text("kept.csv", "before");
        ck_assert_int_eq(fv_dataset_save_split(d, fvt_in_folder("kept.csv")), FV_E_IO);
        ck_assert_int_eq(fvt_sets.files.open_files, 0);
        char text[16] = "";
        FILE *f = fopen(fvt_in_folder("kept.csv"), "r");
        ck_assert_ptr_nonnull(f);
        ck_assert_ptr_nonnull(fgets(text, sizeof text, f));
        fclose(f);
        ck_assert_str_eq(text, "before");
    }
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    fv_dataset_free(d);
}
END_TEST

Suite *files_bad_suite(void) {
    Suite *suite = suite_create("files_bad");
    TCase *tcase = tcase_create("bad files");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fvt_files_setup, fvt_sets_teardown);
    tcase_add_loop_test(tcase, test_skip_bad, 0, 3);
    tcase_add_test(tcase, test_long_headers);
    tcase_add_loop_test(tcase, test_inspect, 0, 4);
    tcase_add_test(tcase, test_failing_memory);
    tcase_add_test(tcase, test_failing_inspection);
    tcase_add_test(tcase, test_failing_files);
    suite_add_tcase(suite, tcase);
    return suite;
}
