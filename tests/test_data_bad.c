/* test_data_bad.c: datasets that are wrong in every way, and files and memory that fail. */
#include "data/pickle.h"
#include "tests/data_sets.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *data_bad_suite(void);

/* ---------------------------------------------------------------- wrong input */

START_TEST(test_bad_cifar) {
    fv_dataset *d;
    uint8_t bytes[2 * 3073];
    fvt_put_cifar10(".");
    size_t size = fvt_cifar_bytes(bytes, 4, 2, 1);
    unlink(fvt_in_folder("data_batch_3.bin"));
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "no such file");
    fvt_put_file(fvt_in_folder("data_batch_3.bin"), bytes, size - 1);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin",
                   "no multiple of a record of 3073");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, 3073);
    fvt_put_file(fvt_in_folder("data_batch_3.bin"), bytes, 0);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "is empty");
    bytes[3073] = 10;
    fvt_put_file(fvt_in_folder("data_batch_3.bin"), bytes, size);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "record 1 has label 10");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, 3073);
    unlink(fvt_in_folder("data_batch_3.bin"));
    ck_assert_int_eq(mkfifo(fvt_in_folder("data_batch_3.bin"), 0600), 0);
    ck_assert_int_ne(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK); /* at once */
}
END_TEST

START_TEST(test_bad_idx) {
    fv_dataset *d;
    uint8_t images[4096], labels[64], gz[8192];
    fvt_make_dirs("mnist");
    size_t n_images = fvt_idx_images(images, 7, 5, 4), n_labels = fvt_idx_labels(labels, 7);
    const char *at = fvt_in_folder("mnist/t10k-images-idx3-ubyte");
    char image_path[512];
    snprintf(image_path, sizeof image_path, "%s", at);
    fvt_put_file(fvt_in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "mnist", "no t10k-images-idx3-ubyte");
    static const struct {
        uint32_t at, value;
        const char *message;
    } lies[] = {{0, 0x801, "magic number"},
                {0, 0, "magic number"},
                {4, 8, "more than the file can hold"},
                {4, 6, "more bytes follow"},
                {8, 0, "dimension 1 is 0"},
                {8, 0xffffffff, "more than the file can hold"},
                {12, 0x80000000, "more than the file can hold"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        fvt_idx_images(images, 7, 5, 4);
        fvt_put_number(images + lies[i].at, lies[i].value);
        fvt_put_file(image_path, images, n_images);
        /* six images with seven labels is a count mismatch before it is anything else */
        fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images",
                       lies[i].at == 4 && lies[i].value == 6 ? "6 images, but" : lies[i].message);
    }
    n_images = fvt_idx_images(images, 6, 5, 4);
    fvt_put_file(image_path, images, n_images);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "6 images, but");
    n_images = fvt_idx_images(images, 7, 5, 4);
    fvt_put_file(image_path, images, n_images + 1);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "more bytes follow");
    fvt_put_file(image_path, images, n_images);
    labels[8 + 4] = 10;
    fvt_put_file(fvt_in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-labels", "record 4 has label 10");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, 12);
    fvt_idx_labels(labels, 7);
    fvt_put_file(fvt_in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    size_t n_gz = fvt_gzip(images, n_images, gz, sizeof gz);
    fvt_put_file(image_path, gz, n_gz - 9);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "truncated gzip");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, (int64_t)n_gz - 9);
    gz[n_gz - 6] ^= 1; /* checksum */
    fvt_put_file(image_path, gz, n_gz);
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "damaged gzip");
    /* a small file that claims gigabytes: refused before memory is taken */
    uint8_t bomb[1 << 16] = {0};
    fvt_idx_images(bomb, 1, 1, 1);
    fvt_put_number(bomb + 4, 1 << 20);
    fvt_put_number(bomb + 8, 60);
    fvt_put_number(bomb + 12, 60);
    n_gz = fvt_gzip(bomb, sizeof bomb, gz, sizeof gz);
    fvt_put_file(image_path, gz, n_gz);
    fvt_sets.memory.peak = 0;
    fvt_ck_refused(fvt_open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "more than the file can hold");
    ck_assert_uint_lt(fvt_sets.memory.peak, 8 << 20);
}
END_TEST

static void ck_pickle(const char *bytes, size_t size, const char *message) {
    fv_arena arena;
    fv_pickle *value;
    fv_arena_init(&arena, &fvt_sets.ctx);
    fvt_ck_refused(fv_pickle_read(&fvt_sets.ctx, &arena, "sample", bytes, size, &value), FV_E_DATA, "sample", message);
    ck_assert_int_ge(fvt_sets.ctx.error.offset, 0);
    fv_arena_free(&arena);
}

START_TEST(test_bad_pickle) {
    static const struct {
        const char *bytes;
        size_t size;
        const char *message;
    } cases[] = {
#define CASE(text, message) {text, sizeof text - 1, message}
        CASE("", "truncated"),
        CASE(".", "does not end with one value"),
        CASE("(.", "does not end with one value"),
        CASE("NN.", "does not end with one value"),
        CASE("cos\nsystem\n(S'true'\ntR.", "asks for os.system"),
        CASE("\x80\x04\x8c\x02os\x8c\x06system\x93.", "asks for os.system"),
        CASE("c__builtin__\neval\n.", "asks for __builtin__.eval"),
        CASE("cnumpy\nndarray\n)R.", "a call that is not known"),
        CASE("NN\x85R.", "a call that is not known"),
        CASE("ios\nsystem\n.", "opcode 0x69"),
        CASE("\x80\x05N.", "protocol above 4"),
        CASE("NNb.", "an object that is not known"),
        CASE("]Na", "truncated"),
        CASE("NNa.", "the stack holds something else"),
        CASE("}Ns.", "the stack holds something else"),
        CASE("}(Nu.", "a key without a value"),
        CASE("e.", "no mark"),
        CASE("h\x05.", "memo number that was never set"),
        CASE("r\xff\xff\xff\xff.", "nothing to remember"),
        CASE("Nr\xff\xff\xff\x7f.", "memo number that is too large"),
        CASE("T\xff\xff\xff\x7f.", "truncated"),
        CASE("\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "truncated"),
        CASE("I99999999999999999999\n.", "beyond 64 bits"),
        CASE("Ix\n.", "not a number"),
        CASE("S'abc\n.", "without quotes"),
        CASE("S'\\q'\n.", "an escape"),
        CASE("V\\u00g0\n.", "an escape"),
        CASE("\x8a\x09xxxxxxxxx.", "beyond 64 bits"),
        CASE("\x95\xff\x00\x00\x00\x00\x00\x00\x00N.", "truncated"),
        CASE("cnumpy\ndtype\n(S'f4'\ntR.", "element type that is not known"),
        CASE("cnumpy\ndtype\n(S'O8'\ntR.", "element type that is not known"),
        CASE("c_codecs\nencode\n(VA\nVutf-16\ntR.", "an encoding that is not known"),
        CASE("c_codecs\nencode\n(V\\u20ac\nVlatin1\ntR.", "not Latin-1"),
#undef CASE
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_pickle(cases[i].bytes, cases[i].size, cases[i].message);
    char deep[200];
    memset(deep, '(', sizeof deep);
    ck_pickle(deep, sizeof deep, "nested too deeply");
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle("hostile.pkl", bytes, sizeof bytes);
    ck_pickle((char *)bytes, size, ".system");
    size = fvt_read_pickle("protocol5.pkl", bytes, sizeof bytes);
    ck_pickle((char *)bytes, size, "protocol above 4");
}
END_TEST

/* Text that is decoded again and again, values without end: the limits hold, in memory and in time. */
START_TEST(test_pickle_bombs) {
    size_t size = 1 << 20, n = 0;
    char *bomb = malloc(size);
    n += (size_t)sprintf(bomb, "c_codecs\nencode\np0\n0X");
    uint32_t text = 1 << 19;
    memcpy(bomb + n, &text, 4);
    memset(bomb + n + 4, 'a', text);
    n += 4 + text;
    n += (size_t)sprintf(bomb + n, "p1\n0Vlatin1\np2\n0");
    while (n + 16 < size) n += (size_t)sprintf(bomb + n, "g0\n(g1\ng2\ntR0");
    fvt_sets.memory.peak = 0;
    ck_pickle(bomb, n, "too much text to decode");
    ck_assert_uint_lt(fvt_sets.memory.peak, 16 << 20);
    memset(bomb, ']', size);
    ck_pickle(bomb, size, "too many values");
    ck_assert_uint_lt(fvt_sets.memory.peak, 64 << 20);
    free(bomb);
}
END_TEST

static void ck_batch_refused(const uint8_t *bytes, size_t size, const char *message) {
    fv_dataset *d;
    fvt_put_file(fvt_in_folder("test_batch"), bytes, size);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "test_batch", message);
}

START_TEST(test_bad_python_batches) {
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle("python2.pkl", bytes, sizeof bytes);
    uint8_t *labels = memmem(bytes, size, "]q\x05(K", 5);
    ck_assert_ptr_nonnull(labels);
    labels[5] = 10;
    ck_batch_refused(bytes, size, "label of record 0 is 10");
    labels[4] = 'N', labels[5] = 'N'; /* None, None, then the second label: three labels */
    ck_batch_refused(bytes, size, "2 images, but 3 labels");
    size = fvt_read_pickle("python2.pkl", bytes, sizeof bytes);
    ((uint8_t *)memmem(bytes, size, "labels", 6))[0] = 'L';
    ck_batch_refused(bytes, size, "keys 'data' and 'labels'");
    size = fvt_read_pickle("python2.pkl", bytes, sizeof bytes);
    uint8_t *shape = memmem(bytes, size, "K\x02M\x00\x0c", 5);
    shape[1] = 3;
    ck_batch_refused(bytes, size, "shape and bytes disagree");
    ck_batch_refused((const uint8_t *)"N.", 2, "keys 'data' and 'labels'");
    ck_batch_refused((const uint8_t *)"", 0, "truncated");
}
END_TEST

/* ---------------------------------------------------------------- every truncation, every flip: an error or a valid
 * set */

static int64_t opened, refused;

static void try_open(const char *set) {
    fv_dataset *d;
    fv_status status = fvt_open_set(set, FV_SPLIT_TEST, &d);
    if (status == FV_OK) {
        opened++;
        for (int64_t i = 0; i < d->count; i++) ck_assert(d->labels[i] >= 0 && d->labels[i] < d->classes);
        ck_assert_uint_eq(d->fingerprint, fv_dataset_hash(d));
        fv_dataset_free(d);
        return;
    }
    refused++;
    ck_assert_msg(status == FV_E_DATA, "status %d: %s", (int)status, fvt_sets.ctx.error.message);
    ck_assert(fvt_sets.ctx.error.message[0] && fvt_sets.ctx.error.path[0]);
    ck_assert_int_eq(fvt_sets.memory.live, 0);
}

/* Every truncation; in the first and last `edge` bytes every flip of a bit, between them one of each byte at distance
 * `step`. */
static void damage(const char *path, const char *set, const uint8_t *bytes, size_t size, size_t edge, size_t step) {
    uint8_t copy[16384];
    opened = refused = 0;
    fvt_sets.memory.peak = 0;
    for (size_t n = 0; n<size; n += size> 1024 && n > edge && n + edge < size ? step : 1) {
        fvt_put_file(path, bytes, n);
        try_open(set);
    }
    for (size_t i = 0; i < size;) {
        bool whole = i < edge || i + edge >= size;
        for (int bit = 0; bit < (whole ? 8 : 1); bit++) {
            memcpy(copy, bytes, size);
            copy[i] ^= (uint8_t)(1 << (whole ? bit : (int)(i % 8)));
            fvt_put_file(path, copy, size);
            try_open(set);
        }
        i += whole ? 1 : step;
    }
    ck_assert_int_gt(refused, 0);
    ck_assert_uint_lt(fvt_sets.memory.peak, 64 << 20);
}

START_TEST(test_damaged_cifar) {
    uint8_t bytes[2 * 3073];
    damage(fvt_in_folder("test_batch.bin"), "cifar10", bytes, fvt_cifar_bytes(bytes, 0, 2, 1), 16, 61);
    ck_assert_int_gt(opened, 0);
}
END_TEST

START_TEST(test_damaged_idx) {
    uint8_t images[256], labels[64], gz[512];
    fvt_make_dirs("mnist");
    size_t n_images = fvt_idx_images(images, 3, 3, 2), n_labels = fvt_idx_labels(labels, 3);
    char image_path[512], label_path[512];
    snprintf(image_path, sizeof image_path, "%s", fvt_in_folder("mnist/t10k-images-idx3-ubyte"));
    snprintf(label_path, sizeof label_path, "%s", fvt_in_folder("mnist/t10k-labels-idx1-ubyte"));
    fvt_put_file(label_path, labels, n_labels);
    damage(image_path, "mnist", images, n_images, 4096, 1);
    fvt_put_file(image_path, images, n_images);
    damage(label_path, "mnist", labels, n_labels, 4096, 1);
    fvt_put_file(label_path, labels, n_labels);
    damage(image_path, "mnist", gz, fvt_gzip(images, n_images, gz, sizeof gz), 4096, 1);
    fvt_put_file(image_path, images, n_images);
    damage(label_path, "mnist", gz, fvt_gzip(labels, n_labels, gz, sizeof gz), 4096, 1);
}
END_TEST

START_TEST(test_damaged_pickle) {
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle(fvt_pickles[_i], bytes, sizeof bytes);
    damage(fvt_in_folder("test_batch"), "cifar10", bytes, size, 320, 97);
}
END_TEST

/* ---------------------------------------------------------------- failing memory and files */

/* Every allocation of opening a set fails once. */
static void fail_each_allocation(const char *set) {
    fv_dataset *d;
    for (int64_t n = 1;; n++) {
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = fvt_open_set(set, FV_SPLIT_TEST, &d);
        bool reached = fvt_sets.memory.calls >= n;
        fvt_sets.memory.fail_at = 0;
        if (!reached) {
            ck_assert_int_eq(status, FV_OK);
            fv_dataset_free(d);
            return;
        }
        ck_assert_msg(status == FV_E_MEMORY, "allocation %lld: status %d: %s", (long long)n, (int)status,
                      fvt_sets.ctx.error.message);
        ck_assert_int_eq(fvt_sets.memory.live, 0);
        ck_assert_int_lt(n, 10000);
    }
}

/* Every read, open and size call fails once, with EIO; reads may also be short or interrupted. */
static void fail_each_call(const char *set) {
    fv_dataset *d;
    static const fvt_call calls[] = {FVT_OPEN, FVT_READ, FVT_SIZE};
    for (int c = 0; c < 3; c++)
        for (int64_t n = 1; n < 100; n++) {
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            fvt_sets.files.fail = calls[c];
            fvt_sets.files.fail_at = n;
            fv_status status = fvt_open_set(set, FV_SPLIT_TEST, &d);
            bool reached = fvt_sets.files.calls[calls[c]] >= n;
            /* a probe that fails may lead to another name or to "not found" */
            if (status == FV_OK) fv_dataset_free(d);
            else
                ck_assert_msg(status == FV_E_IO || status == FV_E_DATA, "status %d: %s", (int)status,
                              fvt_sets.ctx.error.message);
            if (calls[c] == FVT_READ && reached) ck_assert_int_eq(status, FV_E_IO);
            ck_assert_int_eq(fvt_sets.files.open_files, 0);
            if (!reached) break;
        }
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    fvt_sets.files.short_by = 1000;
    ck_assert_int_eq(fvt_open_set(set, FV_SPLIT_TEST, &d), FV_OK);
    fv_dataset_free(d);
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    fvt_sets.files.fail = FVT_READ, fvt_sets.files.fail_at = 1, fvt_sets.files.times = 3, fvt_sets.files.error = EINTR;
    ck_assert_int_eq(fvt_open_set(set, FV_SPLIT_TEST, &d), FV_OK);
    fv_dataset_free(d);
}

START_TEST(test_failing_system) {
    uint8_t bytes[16384];
    fvt_put_cifar10(".");
    fail_each_allocation("cifar10");
    fail_each_call("cifar10");
    unlink(fvt_in_folder("test_batch.bin"));
    for (int i = 1; i <= 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        unlink(fvt_in_folder(name));
    }
    size_t size = fvt_read_pickle("protocol2.pkl", bytes, sizeof bytes);
    fvt_put_file(fvt_in_folder("test_batch"), bytes, size);
    fail_each_allocation("cifar10");
    fail_each_call("cifar10");
    fvt_make_dirs("mnist");
    fvt_put_idx("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz", true, 7);
    fail_each_allocation("mnist");
    fail_each_call("mnist");
    fail_each_allocation("synthetic");
}
END_TEST

Suite *data_bad_suite(void) {
    Suite *suite = suite_create("data_bad");
    TCase *tcase = tcase_create("bad input");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, fvt_sets_setup, fvt_sets_teardown);
    tcase_add_test(tcase, test_bad_cifar);
    tcase_add_test(tcase, test_bad_idx);
    tcase_add_test(tcase, test_bad_pickle);
    tcase_add_test(tcase, test_pickle_bombs);
    tcase_add_test(tcase, test_bad_python_batches);
    tcase_add_test(tcase, test_damaged_cifar);
    tcase_add_test(tcase, test_damaged_idx);
    tcase_add_loop_test(tcase, test_damaged_pickle, 0, 6);
    tcase_add_test(tcase, test_failing_system);
    suite_add_tcase(suite, tcase);
    return suite;
}
