/* test_cache.c: the cache of decoded pictures: same bits with it and without, and never a wrong one, whatever happens
 * to its files, to the pictures and to the runs that make it. */
#include "data/cache.h"
#include "tests/photos.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

Suite *cache_suite(void);

#define FILES 27
#define PICTURE FVT_PICTURE

static fvt_photos photos;
static fv_decoder *decoder;
static uint8_t expected[FILES * PICTURE]; /* evaluation without a cache */

/* Times in the past, so that the index may be trusted. */
static void age(int i) {
    const struct timespec then[2] = {{.tv_sec = 1700000000 + i}, {.tv_sec = 1700000000 + i}};
    ck_assert_int_eq(utimensat(AT_FDCWD, fvt_photos_at(&photos, photos.name[i]), then, 0), 0);
}

static void setup(void) {
    fvt_photos_make(&photos, FILES);
    ck_assert_int_eq(fv_decoder_create(&photos.ctx, &decoder), FV_OK);
    fvt_photos_load(&photos, decoder, expected);
}

static void teardown(void) {
    fv_decoder_destroy(decoder);
    fvt_photos_remove(&photos);
}

static void check_pictures(void) {
    static uint8_t got[FILES * PICTURE];
    fvt_photos_load(&photos, decoder, got);
    ck_assert_mem_eq(got, expected, sizeof got);
}

static void open_cache(fv_cache cache, int workers) {
    fvt_photos_cached(&photos, cache, workers);
}

/* ---------------------------------------------------------------- the same bits */

START_TEST(test_same_pictures) {
    static const fv_cache caches[] = {FV_CACHE_RAM, FV_CACHE_DISK, FV_CACHE_DISK};
    static const int workers[] = {1, 3};
    for (int c = 0; c < 3; c++)
        for (int w = 0; w < 2; w++) {
            open_cache(caches[c], workers[w]);
            ck_assert_ptr_nonnull(photos.files.cache);
            check_pictures();
        }
    for (photos.files.c = 1; photos.files.c <= 4; photos.files.c++) { /* other channels are another cache */
        fvt_photos_close_cache(&photos);
        uint8_t plain[24 * 24 * 4], cached[24 * 24 * 4];
        for (int c = 0; c < 2; c++) {
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 7, NULL, plain), FV_OK);
            open_cache(caches[c], 2);
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 7, NULL, cached), FV_OK);
            ck_assert_mem_eq(plain, cached, (size_t)(24 * 24 * photos.files.c));
            fvt_photos_close_cache(&photos);
        }
    }
    ck_assert_int_eq(photos.warnings, 0);
}
END_TEST

/* Random crops are cut from what is kept, at the place that they have in the file: the same for both caches, near to
 * those without. */
START_TEST(test_crops) {
    const fv_augment_cfg cfg = {.scale = {0.3, 1.0}, .ratio = {0.75, 4.0 / 3.0}};
    static uint8_t crop[3][FILES * PICTURE];
    static const fv_cache caches[] = {FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK};
    for (int c = 0; c < 3; c++) {
        open_cache(caches[c], 2);
        for (int i = 0; i < FILES; i++) {
            const fv_picture_draw draw = {.augment = &cfg, .seed = 5, .epoch = 1, .key = i};
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, i, &draw, crop[c] + (size_t)i * PICTURE), FV_OK);
        }
    }
    ck_assert_mem_eq(crop[1], crop[2], sizeof crop[1]);
    double sum = 0;
    for (size_t i = 0; i < sizeof crop[0]; i++) sum += abs(crop[0][i] - crop[1][i]);
    ck_assert_double_lt(sum / sizeof crop[0], 6); /* neighbouring pictures differ by some 60 */
}
END_TEST

/* The loader's batches do not depend on the cache. */
START_TEST(test_loader) {
    static const fv_cache caches[] = {FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK};
    const fv_augment_cfg cfg = {.flip = 0.5, .crop_pad = 3};
    static uint8_t first[FILES * PICTURE];
    for (int c = 0; c < 3; c++) {
        open_cache(caches[c], 2);
        for (int workers = 0; workers < 4; workers++) {
            const fv_loader_cfg how = {.batch = 9, .train = true, .augment = &cfg, .seed = 3, .workers = workers};
            fv_loader *l;
            fv_batch b;
            ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &how, &l), FV_OK);
            ck_assert_int_eq(fv_loader_start(l, 1, 0), FV_OK);
            for (size_t k = 0; k < FILES / 9; k++) {
                ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
                uint8_t *want = first + k * 9 * PICTURE;
                if (c == 0 && workers == 0) memcpy(want, b.images, 9 * PICTURE);
                ck_assert_mem_eq(b.images, want, 9 * PICTURE);
            }
            fv_loader_destroy(l);
        }
    }
}
END_TEST

/* ---------------------------------------------------------------- changes */

/* Files are read once to hash and once to decode; then neither, until one is changed, if only in its contents. */
START_TEST(test_index) {
    for (int i = 0; i < FILES; i++) age(i);
    const struct timespec pause = {.tv_sec = 2, .tv_nsec = 100000000}; /* the time of the last change counts, too */
    nanosleep(&pause, NULL);
    open_cache(FV_CACHE_DISK, 2);
    int64_t reads = photos.io.calls[FVT_READ];
    open_cache(FV_CACHE_DISK, 2);
    ck_assert_int_lt(photos.io.calls[FVT_READ] - reads, 3); /* the index alone */
    check_pictures();
    char before[512], after[512];
    snprintf(before, sizeof before, "%s", fvt_photos_cache_file(&photos, ".fvc"));

    int64_t bytes = photos.bytes[4]; /* another picture of the same length, at the same time: only ctime tells */
    fvt_photos_paint(&photos, 4, 77);
    if (photos.bytes[4] < bytes) ck_assert_int_eq(truncate(fvt_photos_at(&photos, photos.name[4]), bytes), 0);
    photos.bytes[4] = bytes;
    age(4);
    fvt_photos_close_cache(&photos);
    fvt_photos_load(&photos, decoder, expected);
    reads = photos.io.calls[FVT_READ];
    open_cache(FV_CACHE_DISK, 2);
    check_pictures();
    unlink(before);
    snprintf(after, sizeof after, "%s", fvt_photos_cache_file(&photos, ".fvc"));
    ck_assert_str_ne(before, after);
}
END_TEST

/* A file as young as the index is read again: it may have been changed since, without another time. */
START_TEST(test_racy) {
    open_cache(FV_CACHE_DISK, 2);
    int64_t reads = photos.io.calls[FVT_READ];
    open_cache(FV_CACHE_DISK, 2);
    ck_assert_int_ge(photos.io.calls[FVT_READ] - reads, FILES);
    ck_assert_int_eq(photos.warnings, 0);
}
END_TEST

/* ---------------------------------------------------------------- bad pictures */

START_TEST(test_bad_is_error) {
    static const fv_cache caches[] = {FV_CACHE_RAM, FV_CACHE_DISK};
    fvt_put_file(fvt_photos_at(&photos, photos.name[11]), "nothing", 7); /* its header is bad, that of 5 is not */
    fvt_photos_cut(&photos, 5);
    fvt_photos_cut(&photos, 20);
    for (int c = 0; c < 2; c++)
        for (int workers = 1; workers < 4; workers++) {
            ck_assert_int_eq(fvt_photos_open_cache(&photos, caches[c], workers, false, NULL), FV_E_DATA);
            ck_assert_ptr_null(photos.files.cache);
            ck_assert_str_eq(photos.ctx.error.path, fvt_photos_at(&photos, photos.name[5]));
        }
}
END_TEST

/* Left out, with a warning each; the other pictures are in order, at the places that they had. A cache that knows bad
 * files is of no use to a run that does not leave them out. */
START_TEST(test_skip_bad) {
    static const fv_cache caches[] = {FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK, FV_CACHE_DISK};
    static const int broken[] = {0, 5, 11, FILES - 1};
    uint8_t picture[PICTURE];
    for (int k = 0; k < 4; k++) {
        int i = broken[k];
        if (k % 2) fvt_put_file(fvt_photos_at(&photos, photos.name[i]), "nothing", 7);
        else fvt_photos_cut(&photos, i);
    }
    for (int c = 0; c < 4; c++) {
        uint8_t bad[FILES] = {0};
        photos.warnings = 0;
        ck_assert_int_eq(fvt_photos_open_cache(&photos, caches[c], 3, true, bad), FV_OK);
        ck_assert_int_eq(photos.warnings, 4);
        ck_assert_ptr_nonnull(strstr(photos.warning, photos.name[FILES - 1])); /* in order: the last is last */
        for (int i = 0, k = 0; i < FILES; i++) {
            if (k < 4 && i == broken[k]) {
                ck_assert_int_eq(bad[i], 1);
                k++;
                continue;
            }
            ck_assert_int_eq(bad[i], 0);
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, i, NULL, picture), FV_OK);
            ck_assert_mem_eq(picture, expected + (size_t)i * PICTURE, PICTURE);
        }
        ck_assert(caches[c] == FV_CACHE_NONE ? !photos.files.cache : photos.files.cache != NULL);
    }
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_DISK, 3, false, NULL), FV_E_DATA);
    ck_assert_str_eq(photos.ctx.error.path, fvt_photos_at(&photos, photos.name[0]));
    /* numbers of a list without the bad files */
    uint8_t bad[FILES] = {0};
    int64_t slot[FILES - 4], n = 0;
    const char *path[FILES - 4];
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_RAM, 3, true, bad), FV_OK);
    for (int i = 0; i < FILES; i++)
        if (!bad[i]) {
            slot[n] = i;
            path[n++] = photos.path[i];
        }
    fv_file_set good = photos.files;
    good.count = n;
    good.slot = slot;
    good.path = path;
    for (int64_t k = 0; k < n; k++) {
        ck_assert_int_eq(fv_picture_load(&good, decoder, k, NULL, picture), FV_OK);
        ck_assert_mem_eq(picture, expected + (size_t)slot[k] * PICTURE, PICTURE);
    }
}
END_TEST

/* ---------------------------------------------------------------- several runs */

/* A process of its own that opens the cache on disk and checks the pictures. */
static pid_t start_process(void) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    open_cache(FV_CACHE_DISK, 2);
    check_pictures();
    fv_picture_cache_close(photos.files.cache);
    _exit(photos.warnings == 0 ? 0 : 9);
}

static void join_process(pid_t pid) {
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a run ended with status %x", status);
}

START_TEST(test_concurrent_runs) {
    for (int round = 0; round < 3; round++) {
        pid_t pid[4];
        for (int k = 0; k < 4; k++) pid[k] = start_process();
        for (int k = 0; k < 4; k++) join_process(pid[k]);
        ck_assert_int_eq(fvt_count_files(photos.caches), 3);
        unlink(fvt_photos_cache_file(&photos, ".fvc"));
    }
}
END_TEST

static int waits;
static void on_progress(void *user, const char *what, int64_t done, int64_t total) {
    (void)user;
    ck_assert(done >= 0 && done <= total && total == FILES);
    waits += strstr(what, "waiting") != NULL;
}

/* A run waits for the one that holds the lock, and goes on when that is killed. */
START_TEST(test_lock) {
    open_cache(FV_CACHE_DISK, 1);
    fvt_photos_close_cache(&photos);
    char lock[512];
    snprintf(lock, sizeof lock, "%s", fvt_photos_cache_file(&photos, ".lock"));
    unlink(fvt_photos_cache_file(&photos, ".fvc"));
    int ready[2];
    char byte;
    ck_assert_int_eq(pipe(ready), 0);
    pid_t holder = fork();
    if (holder == 0) {
        int fd = open(lock, O_RDWR);
        if (flock(fd, LOCK_EX) == 0 && write(ready[1], "x", 1) == 1) pause();
        _exit(1);
    }
    ck_assert_int_eq(read(ready[0], &byte, 1), 1);
    pid_t killer = fork();
    if (killer == 0) {
        const struct timespec pause_ = {.tv_nsec = 450000000};
        nanosleep(&pause_, NULL);
        kill(holder, SIGKILL);
        _exit(0);
    }
    const fv_dataset_opts opts = {
        .cache = FV_CACHE_DISK, .cache_dir = photos.caches, .workers = 2, .progress = on_progress};
    ck_assert_int_eq(fv_picture_cache_open(&photos.ctx, &photos.files, &opts, NULL), FV_OK);
    ck_assert_int_ge(waits, 2);
    check_pictures();
    waitpid(killer, NULL, 0);
    waitpid(holder, NULL, 0);
    close(ready[0]);
    close(ready[1]);
}
END_TEST

Suite *cache_suite(void) {
    Suite *suite = suite_create("cache");
    TCase *tcase = tcase_create("cache");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_same_pictures);
    tcase_add_test(tcase, test_crops);
    tcase_add_test(tcase, test_loader);
    tcase_add_test(tcase, test_index);
    tcase_add_test(tcase, test_racy);
    tcase_add_test(tcase, test_bad_is_error);
    tcase_add_test(tcase, test_skip_bad);
    tcase_add_test(tcase, test_concurrent_runs);
    tcase_add_test(tcase, test_lock);
    suite_add_tcase(suite, tcase);
    return suite;
}
