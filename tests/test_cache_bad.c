/* test_cache_bad.c: files of the cache that are damaged or forged, pictures that change while they are read, places
 * that cannot be written, threads and memory that cannot be had: never a wrong picture, and an error that says what to
 * do. */
#include "data/cache.h"
#include "tests/photos.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

Suite *cache_bad_suite(void);

#define FILES 27
#define PICTURE FVT_PICTURE

static fvt_photos photos;
static fv_decoder *decoder;
static uint8_t expected[FILES * PICTURE]; /* evaluation without a cache */

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

/* ---------------------------------------------------------------- damage */

/* One bit anywhere in the cache, and every way of cutting it off: the same pictures all the same. */
START_TEST(test_damaged_cache) {
    open_cache(FV_CACHE_DISK, 2);
    char path[512];
    snprintf(path, sizeof path, "%s", fvt_photos_cache_file(&photos, ".fvc"));
    int64_t bytes = fvt_file_bytes(path), step = bytes / 60;
    for (int64_t at = 0; at < bytes; at += at < 64 || at > bytes - 64 ? 7 : step) {
        fvt_photos_close_cache(&photos);
        photos.warnings = 0;
        fvt_flip_bit(path, at);
        open_cache(FV_CACHE_DISK, 1);
        check_pictures();
        fvt_photos_close_cache(&photos); /* of damaged pictures one hears at the end */
        ck_assert_msg(photos.warnings == 1, "byte %lld of %lld: %d warnings", (long long)at, (long long)bytes,
                      photos.warnings);
        ck_assert_ptr_nonnull(strstr(photos.warning, "anew"));
        photos.warnings = 0;
        open_cache(FV_CACHE_DISK, 1);
        check_pictures();
        fvt_photos_close_cache(&photos);
        ck_assert_int_eq(photos.warnings, 0); /* sound again */
        ck_assert_int_eq(fvt_file_bytes(path), bytes);
    }
    static const double parts[] = {0, 0.0001, 0.3, 0.999};
    for (int k = 0; k < 4; k++) {
        ck_assert_int_eq(truncate(path, (int64_t)((double)bytes * parts[k])), 0);
        photos.warnings = 0;
        open_cache(FV_CACHE_DISK, 2);
        ck_assert_int_eq(photos.warnings, 1);
        check_pictures();
        fvt_photos_close_cache(&photos);
    }
    unlink(path); /* something else of that name */
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_DISK, 1, false, NULL), FV_E_IO);
}
END_TEST

/* Random crops from a damaged cache are those of the sound one. */
START_TEST(test_damaged_crops) {
    const fv_augment_cfg cfg = {.scale = {0.3, 1.0}, .ratio = {0.75, 4.0 / 3.0}};
    static uint8_t crop[2][FILES * PICTURE];
    for (int round = 0; round < 2; round++) {
        open_cache(FV_CACHE_DISK, 2);
        for (int i = 0; i < FILES; i++) {
            const fv_picture_draw draw = {.augment = &cfg, .seed = 5, .epoch = 1, .key = i};
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, i, &draw, crop[round] + (size_t)i * PICTURE),
                             FV_OK);
        }
        fvt_photos_close_cache(&photos);
        if (round == 0)
            for (int k = 1; k < 20; k++) fvt_flip_bit(fvt_photos_cache_file(&photos, ".fvc"), 48 + 3000 * k);
    }
    ck_assert_mem_eq(crop[0], crop[1], sizeof crop[0]);
    ck_assert_int_eq(photos.warnings, 1);
}
END_TEST

START_TEST(test_damaged_index) {
    open_cache(FV_CACHE_DISK, 2);
    char path[512];
    snprintf(path, sizeof path, "%s", fvt_photos_cache_file(&photos, ".fvi"));
    int64_t bytes = fvt_file_bytes(path);
    for (int64_t at = 0; at < bytes; at += 1 + bytes / 40) {
        fvt_flip_bit(path, at);
        photos.warnings = 0;
        open_cache(FV_CACHE_DISK, 2);
        ck_assert_int_eq(photos.warnings, 1);
        check_pictures();
    }
    ck_assert_int_eq(truncate(path, bytes / 2), 0);
    open_cache(FV_CACHE_DISK, 2);
    check_pictures();
}
END_TEST

/* Forged: checksums are right, the table is not. Never read beyond the file; made anew. */
START_TEST(test_forged_table) {
    enum { HEADER = 48 };
    open_cache(FV_CACHE_DISK, 1);
    char path[512];
    snprintf(path, sizeof path, "%s", fvt_photos_cache_file(&photos, ".fvc"));
    fvt_photos_close_cache(&photos);
    size_t bytes;
    unsigned char *sound, *data;
    ck_assert_int_eq(fv_read_file(&photos.ctx, path, SIZE_MAX / 2, (void **)&sound, &bytes), FV_OK);
    data = malloc(bytes);
    size_t table = bytes - 8 - FILES * sizeof(fv_kept);
    for (int k = 0; k < 13; k++) {
        memcpy(data, sound, bytes);
        fv_kept *row = (fv_kept *)(void *)calloc(FILES, sizeof *row), *edit = &row[6];
        memcpy(row, data + table, FILES * sizeof *row);
        switch (k) {
        case 0: edit->full_h = 0; break;
        case 1: edit->full_w = -5; break;
        case 2: edit->full_h = FV_IMAGE_MOST_SIDE + 1; break;
        case 3: edit->full_w = INT32_MAX; break;
        case 4: edit->h++; break;
        case 5: edit->w--; break;
        case 6: edit->offset = UINT64_MAX - 3; break;
        case 7: edit->offset = table - HEADER - 1; break;
        case 8: edit->h = -1; break;
        case 9: data[3] ^= 1; break;  /* magic */
        case 10: data[9] ^= 1; break; /* key */
        case 11: data[24]++; break;   /* count */
        case 12: data[40] = 1; break; /* channels */
        }
        memcpy(data + table, row, FILES * sizeof *row);
        uint64_t checksum = XXH3_64bits_withSeed(data, HEADER, XXH3_64bits(row, FILES * sizeof *row));
        memcpy(data + bytes - 8, &checksum, sizeof checksum);
        free(row);
        fvt_put_file(path, data, bytes);
        photos.warnings = 0;
        open_cache(FV_CACHE_DISK, 1);
        ck_assert_int_eq(photos.warnings, 1);
        check_pictures();
        fvt_photos_close_cache(&photos);
        unsigned char *again;
        ck_assert_int_eq(fv_read_file(&photos.ctx, path, SIZE_MAX / 2, (void **)&again, &bytes), FV_OK);
        ck_assert_mem_eq(again, sound, bytes); /* the same cache has the same bytes */
        fv_free(&photos.ctx, again, bytes + 1, 1);
    }
    fv_free(&photos.ctx, sound, bytes + 1, 1);
    free(data);
}
END_TEST

/* The damaged file is removed at the end, but not what another run has put in its place. A damaged picture whose file
 * cannot be read either is an error. */
START_TEST(test_damage_and_others) {
    static uint8_t picture[PICTURE];
    for (int round = 0; round < 3; round++) {
        open_cache(FV_CACHE_DISK, 1);
        char path[512], other[600];
        snprintf(path, sizeof path, "%s", fvt_photos_cache_file(&photos, ".fvc"));
        fvt_flip_bit(path, 48 + 5); /* of the first picture */
        if (round == 2) {
            photos.path[0] = "gone.jpg";
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 0, NULL, picture), FV_E_DATA);
            photos.path[0] = photos.name[0];
            photos.memory.fail_at = photos.memory.calls + 1;
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 0, NULL, picture), FV_E_MEMORY);
            photos.memory.fail_at = 0;
        }
        check_pictures();
        unlink(path);
        if (round == 1) fvt_put_file(path, "another", 7);
        snprintf(other, sizeof other, "%s", path);
        fvt_photos_close_cache(&photos);
        ck_assert_int_eq(access(other, F_OK) == 0, round == 1);
    }
}
END_TEST

/* ---------------------------------------------------------------- pictures that change under way */

static int (*plain_open)(void *user, const char *path, int flags, int mode);
static int opened, change_at;

/* The file of picture 4 is another one from its change_at-th opening on. */
static int changing_open(void *user, const char *path, int flags, int mode) {
    if (strstr(path, photos.name[4]) && __atomic_add_fetch(&opened, 1, __ATOMIC_SEQ_CST) == change_at) {
        char name[256];
        snprintf(name, sizeof name, "%s/new", photos.folder);
        fvt_photos other = photos;
        snprintf(other.name[4], sizeof other.name[4], "new");
        fvt_photos_paint(&other, 4, 99);
        ck_assert_int_eq(rename(name, path), 0);
    }
    return plain_open(user, path, flags, mode);
}

START_TEST(test_changed_under_way) {
    static const struct {
        fv_cache cache;
        bool skip_bad, cut, larger;
        const char *message;
    } cases[] = {{FV_CACHE_DISK, false, false, false, "changed while the cache was being made"},
                 {FV_CACHE_RAM, false, false, true, "changed while it was being read"},
                 {FV_CACHE_NONE, true, true, false, "a moment ago"},
                 {FV_CACHE_DISK, true, false, false, "changed while the cache was being made"}};
    plain_open = photos.ctx.io.open;
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        uint8_t bad[FILES] = {0};
        fvt_photos_paint(&photos, 4, 4);
        if (cases[k].cut) fvt_photos_cut(&photos, 4);
        if (cases[k].larger) photos.h[4]++;
        photos.ctx.io.open = changing_open;
        opened = 0;
        change_at = 2;
        fv_status status = fvt_photos_open_cache(&photos, cases[k].cache, 2, cases[k].skip_bad, bad);
        photos.ctx.io.open = plain_open;
        if (cases[k].larger) photos.h[4]--;
        ck_assert_int_eq(status, FV_E_IO);
        ck_assert_ptr_nonnull(strstr(photos.ctx.error.message, cases[k].message));
        ck_assert_ptr_nonnull(strstr(photos.ctx.error.path, photos.name[4]));
    }
    fvt_photos_load(&photos, decoder, expected);
    open_cache(FV_CACHE_DISK, 2); /* and from here on it is as it is */
    check_pictures();
}
END_TEST

/* ---------------------------------------------------------------- places that cannot be written */

/* Where it lies when nobody says: $XDG_CACHE_HOME if that is absolute, else ~/.cache. */
static void check_default_place(const char *home, const char *xdg, const char *place) {
    const fv_dataset_opts opts = {.cache = FV_CACHE_DISK};
    if (home) setenv("HOME", home, 1);
    else unsetenv("HOME");
    if (xdg) setenv("XDG_CACHE_HOME", xdg, 1);
    else unsetenv("XDG_CACHE_HOME");
    fv_status status = fv_picture_cache_open(&photos.ctx, &photos.files, &opts, NULL);
    if (!place) {
        ck_assert_int_eq(status, FV_E_USAGE);
        ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--cache-dir"));
        return;
    }
    ck_assert_int_eq(status, FV_OK);
    check_pictures();
    ck_assert_int_eq(fvt_count_files(place), 3); /* .fvc, .fvi, .lock */
    fvt_photos_close_cache(&photos);
    fvt_remove_folder(place);
}

START_TEST(test_default_place) {
    char inside[200], home[200], below[256];
    snprintf(inside, sizeof inside, "%s/fovea", photos.caches);
    snprintf(home, sizeof home, "%s/home", photos.folder);
    snprintf(below, sizeof below, "%s/.cache/fovea", home);
    check_default_place(NULL, photos.caches, inside);
    check_default_place(home, photos.caches, inside);
    check_default_place(home, NULL, below);
    check_default_place(home, "not/absolute", below);
    check_default_place(NULL, NULL, NULL);
    check_default_place("", "", NULL);
    snprintf(below, sizeof below, "%s/.cache", home);
    ck_assert_int_eq(rmdir(below), 0);
    ck_assert_int_eq(rmdir(home), 0);
}
END_TEST

START_TEST(test_no_place) {
    char path[512];
    fvt_put_file(photos.caches, "", 0); /* a file where the folder should be */
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_DISK, 1, false, NULL), FV_E_IO);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--cache ram"));
    size_t length = strlen(photos.caches); /* and one where its parent should be */
    strcat(photos.caches, "/inside");
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_DISK, 1, false, NULL), FV_E_IO);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--cache ram"));
    photos.caches[length] = 0;
    unlink(photos.caches);

    open_cache(FV_CACHE_DISK, 1);
    fvt_photos_close_cache(&photos);
    unlink(fvt_photos_cache_file(&photos, ".fvc"));
    snprintf(path, sizeof path, "%s", fvt_photos_cache_file(&photos, ".lock"));
    unlink(path);
    ck_assert_int_eq(mkdir(path, 0700), 0); /* the lock cannot be made */
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_DISK, 1, false, NULL), FV_E_IO);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--cache ram"));
    ck_assert_int_eq(rmdir(path), 0);
}
END_TEST

/* No thread can be started: a default stack of more than there are addresses. */
START_TEST(test_no_threads) {
    pthread_attr_t before, huge;
    fv_loader *l;
    ck_assert_int_eq(pthread_getattr_default_np(&before), 0);
    ck_assert_int_eq(pthread_attr_init(&huge), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&huge, (size_t)1 << 50), 0);
    ck_assert_int_eq(pthread_setattr_default_np(&huge), 0);
    ck_assert_int_eq(fvt_photos_open_cache(&photos, FV_CACHE_RAM, 3, false, NULL), FV_E_MEMORY);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.message, "thread"));
    const fv_loader_cfg cfg = {.batch = 3, .workers = 2};
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &cfg, &l), FV_E_MEMORY);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.message, "thread"));
    ck_assert_int_eq(pthread_setattr_default_np(&before), 0);
    pthread_attr_destroy(&huge);
    pthread_attr_destroy(&before);
}
END_TEST

/* Every call fails in turn, with the disk full: an error that says so, and the next run is as if nothing had been. A
 * cache that is there serves even if nothing can be written. */
START_TEST(test_full_disk) {
    static const fvt_call calls[] = {FVT_OPEN, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME};
    for (size_t c = 0; c < sizeof calls / sizeof *calls; c++) {
        for (int64_t n = 1, failed = 1; failed; n += calls[c] == FVT_OPEN ? 13 : 1) {
            memset(photos.io.calls, 0, sizeof photos.io.calls);
            photos.io.fail = calls[c];
            photos.io.fail_at = n;
            photos.io.times = 1;
            photos.io.error = ENOSPC;
            fv_status status = fvt_photos_open_cache(&photos, FV_CACHE_DISK, 1, false, NULL);
            failed = photos.io.calls[calls[c]] >= n;
            photos.io.fail_at = 0;
            ck_assert(status == FV_OK || (failed && status == FV_E_IO));
            if (calls[c] == FVT_WRITE && status != FV_OK)
                ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--cache ram"));
            if (status == FV_OK) check_pictures();
            open_cache(FV_CACHE_DISK, 1);
            check_pictures();
            fvt_photos_close_cache(&photos);
            ck_assert_int_eq(photos.io.open_files, 0);
            ck_assert_int_eq(fvt_count_files(photos.caches), 3); /* .fvc, .fvi, .lock: nothing half made */
            unlink(fvt_photos_cache_file(&photos, ".fvc"));
        }
    }
    open_cache(FV_CACHE_DISK, 1);
    photos.io.fail = FVT_WRITE;
    photos.io.fail_at = photos.io.calls[FVT_WRITE] + 1;
    photos.io.times = INT64_MAX / 2;
    open_cache(FV_CACHE_DISK, 1);
    check_pictures();
    photos.io.fail_at = 0;
}
END_TEST

START_TEST(test_memory) {
    static const fv_cache caches[] = {FV_CACHE_NONE, FV_CACHE_RAM, FV_CACHE_DISK};
    uint8_t bad[FILES] = {0};
    int64_t before = photos.memory.live;
    fvt_photos_cut(&photos, 3);
    bool reached = true;
    for (int64_t n = 1; reached; n += n < 60 ? 1 : 7) {
        if (access(photos.caches, F_OK) == 0) fvt_remove_folder(photos.caches);
        photos.memory.calls = 0;
        photos.memory.fail_at = n;
        fv_status status = fvt_photos_open_cache(&photos, caches[_i], 2, true, bad);
        reached = photos.memory.calls >= n;
        photos.memory.fail_at = 0;
        fvt_photos_close_cache(&photos);
        ck_assert(status == FV_E_MEMORY || status == FV_OK);
        ck_assert(reached || status == FV_OK);
        ck_assert_int_eq(photos.memory.live, before);
        ck_assert_int_eq(photos.io.open_files, 0);
    }
}
END_TEST

Suite *cache_bad_suite(void) {
    Suite *suite = suite_create("cache_bad");
    TCase *tcase = tcase_create("cache_bad");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_damaged_cache);
    tcase_add_test(tcase, test_damaged_crops);
    tcase_add_test(tcase, test_damaged_index);
    tcase_add_test(tcase, test_forged_table);
    tcase_add_test(tcase, test_damage_and_others);
    tcase_add_test(tcase, test_changed_under_way);
    tcase_add_test(tcase, test_default_place);
    tcase_add_test(tcase, test_no_place);
    tcase_add_test(tcase, test_no_threads);
    tcase_add_test(tcase, test_full_disk);
    tcase_add_loop_test(tcase, test_memory, 0, 3);
    suite_add_tcase(suite, tcase);
    return suite;
}
