/* test_data_odd.c: data as it rarely is: paths of any length, class names and labels in odd forms, sets of the full
 * published size, IDX folders of unknown kind; limits; and every failing allocation of what other suites do not sweep.
 */
#include "data/pickle.h"
#include "tests/file_sets.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *data_odd_suite(void);

#define CTX (&fvt_sets.ctx)

/* ---------------------------------------------------------------- paths of any length */

/* What is opened below `name`, and how. */
typedef struct long_case {
    const char *what;
    void (*make)(void);                             /* in the test's folder */
    fv_status (*run)(const char *name, char *rest); /* rest: room for a path that goes on from name */
} long_case;

static fv_status open_and_free(const char *name, const fv_dataset_opts *opts) {
    fv_dataset *d;
    FV_TRY(fv_dataset_open(CTX, name, FV_SPLIT_TEST, opts, &d));
    fv_dataset_free(d);
    return FV_OK;
}

static void make_binary(void) {
    fvt_make_dirs("set");
    fvt_put_cifar10("set");
}
static void make_python(void) {
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle("protocol2.pkl", bytes, sizeof bytes);
    fvt_put("set/test_batch", bytes, size);
}
static void make_idx(void) {
    fvt_make_dirs("set");
    fvt_put_idx("set/t10k-images-idx3-ubyte", "set/t10k-labels-idx1-ubyte", false, 7);
}
static void make_folder(void) {
    fvt_put_png("set/train/a/1.png", 1);
    fvt_put_png("set/train/b/2.png", 2);
    fvt_put_png("set/test/b/3.png", 3);
}
static void make_csv(void) {
    fvt_put_png("set/1.png", 1);
    fvt_put_png("set/2.png", 2);
    fvt_put_text("set/list.csv", "1.png,a\n2.png,b\n");
}
static void make_nothing(void) {
    fvt_make_dirs("set");
}

static fv_status open_set(const char *name, char *rest) {
    (void)rest;
    return open_and_free(name, &fvt_plain);
}
static fv_status check_set(const char *name, char *rest) {
    (void)rest;
    return fv_data_check(CTX, name, NULL);
}
static fv_status open_list(const char *name, char *rest) {
    sprintf(rest, "%s/list.csv", name);
    return open_and_free(rest, &fvt_plain);
}
static fv_status open_with_root(const char *name, char *rest) {
    (void)rest;
    return open_and_free("cifar10", &(fv_dataset_opts){.root = name});
}
static fv_status open_with_cache(const char *name, char *rest) {
    fv_dataset_opts opts = fvt_plain;
    opts.cache = FV_CACHE_DISK;
    opts.cache_dir = rest;
    sprintf(rest, "%s/cache", name);
    return open_and_free(fvt_in_folder("set"), &opts);
}
static fv_status get(const char *name, char *rest) {
    (void)rest;
    return fv_data_get(CTX, "mnist",
                       &(fv_get_opts){.root = name, .mirrors = (const char *const[]){"http://127.0.0.1:9", NULL}});
}

static const long_case long_cases[] = {
    {"CIFAR-10, binary", make_binary, open_set},
    {"CIFAR-10, python", make_python, open_set},
    {"IDX", make_idx, open_set},
    {"a folder of pictures", make_folder, open_set},
    {"a list of pictures", make_csv, open_list},
    {"checking a folder of pictures", make_folder, check_set},
    {"a root for sets", make_binary, open_with_root},
    {"a cache", make_folder, open_with_cache},
    {"a root for downloads", make_nothing, get},
};

/* The same folder under names of 400 to 520 bytes: what is too long is refused, and stays refused when it is longer. */
START_TEST(test_paths_of_any_length) {
    const long_case *c = &long_cases[_i];
    char name[600], rest[700], dots[200];
    c->make();
    size_t length = (size_t)snprintf(name, sizeof name, "%s", fvt_in_folder("set"));
    while (length < 400) length += (size_t)sprintf(name + length, "/."); /* the same place */
    int refused = 0, worked = 0;
    for (size_t extra = 0; extra < 120; extra++) {
        memset(dots, '/', extra);
        sprintf(dots + extra, ".");
        sprintf(name + length, "%s", dots);
        fv_status status = c->run(name, rest);
        bool gone = c->run == get && status == FV_E_IO; /* nobody answers */
        ck_assert_msg(status == FV_OK || gone || status == FV_E_USAGE || status == FV_E_DATA || status == FV_E_IO,
                      "%s, %zu bytes: status %d: %s", c->what, strlen(name), (int)status, CTX->error.message);
        if (status != FV_OK && !gone) refused++;
        else worked++;
        ck_assert_msg(status != FV_OK || strlen(name) < 512, "%s, %zu bytes", c->what, strlen(name));
        if (status != FV_OK) ck_assert(CTX->error.message[0] != 0);
        ck_assert_int_eq(fvt_sets.memory.live, 0);
        ck_assert_int_eq(fvt_sets.files.open_files, 0);
    }
    ck_assert_msg(worked > 20 && (refused > 5 || c->run == get), "%s: %d worked, %d were refused", c->what, worked,
                  refused);
}
END_TEST

/* ---------------------------------------------------------------- IDX */

START_TEST(test_idx_folders_are_known_by_their_names) {
    static const struct {
        const char *below, *slashes, *name, *first; /* first class */
        int32_t classes;
    } cases[] = {{"my-fashion-set", "", "fashion-mnist", "T-shirt/top", 10},
                 {"MNIST/raw", "///", "mnist", "0", 10},
                 {"mnist", "/", "mnist", "0", 10},
                 {"emnist", "", "emnist", "0", 9}, /* another set: as many classes as its labels speak of */
                 {"my mnist", "", "my mnist", "0", 9}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char name[512], file[2][128];
        fv_dataset *d;
        fvt_make_dirs(cases[i].below);
        for (int k = 0; k < 2; k++)
            snprintf(file[k], sizeof file[k], "%s/train-%s-ubyte", cases[i].below, k ? "labels-idx1" : "images-idx3");
        fvt_put_idx(file[0], file[1], false, 7);
        snprintf(name, sizeof name, "%s%s", fvt_in_folder(cases[i].below), cases[i].slashes);
        ck_assert_msg(fvt_open_set(name, FV_SPLIT_TRAIN, &d) == FV_OK, "%s: %s", name, CTX->error.message);
        ck_assert_str_eq(d->name, cases[i].name);
        ck_assert_str_eq(d->class_names[0], cases[i].first);
        ck_assert_int_eq(d->classes, cases[i].classes);
        fv_dataset_free(d);
    }
}
END_TEST

START_TEST(test_idx_classes_are_those_of_both_splits) {
    uint8_t labels[16];
    fv_dataset *d;
    fvt_make_dirs("digits");
    fvt_put_idx("digits/train-images-idx3-ubyte", "digits/train-labels-idx1-ubyte", false, 3); /* 0, 7, 4 */
    fvt_put_idx("digits/t10k-images-idx3-ubyte", "digits/t10k-labels-idx1-ubyte", false, 5);   /* 0, 7, 4, 1, 8 */
    ck_assert_int_eq(fvt_open_set(fvt_in_folder("digits"), FV_SPLIT_TRAIN, &d), FV_OK);
    ck_assert_int_eq(d->classes, 9);
    fv_dataset_free(d);
    ck_assert_int_eq(fvt_open_set(fvt_in_folder("digits"), FV_SPLIT_TEST, &d), FV_OK);
    ck_assert_int_eq(d->classes, 9);
    fv_dataset_free(d);
    size_t size = fvt_idx_labels(labels, 5);
    fvt_put_file(fvt_in_folder("digits/t10k-labels-idx1-ubyte"), labels, size - 1);
    fvt_ck_refused(fvt_open_set(fvt_in_folder("digits"), FV_SPLIT_TRAIN, &d), FV_E_DATA, "t10k-labels", "more than");
    size = fvt_idx_labels(labels, 4);
    fvt_put_file(fvt_in_folder("digits/t10k-labels-idx1-ubyte"), labels, size);
    fvt_ck_refused(fvt_open_set(fvt_in_folder("digits"), FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images",
                   "5 images, but ");
}
END_TEST

START_TEST(test_pictures_of_odd_shapes_are_refused) {
    static const uint32_t shapes[][2] = {{70000, 1}, {1, 70000}, {65536, 1}, {1, 65535}};
    fv_dataset *d;
    fvt_make_dirs("mnist");
    uint8_t label[9], *image = malloc(16 + 70000);
    ck_assert_ptr_nonnull(image);
    fvt_put_file(fvt_in_folder("mnist/t10k-labels-idx1-ubyte"), label, fvt_idx_labels(label, 1));
    for (int i = 0; i < 4; i++) {
        size_t size = fvt_idx_images(image, 1, shapes[i][0], shapes[i][1]);
        fvt_put_file(fvt_in_folder("mnist/t10k-images-idx3-ubyte"), image, size);
        fv_status status = fvt_open_set("mnist", FV_SPLIT_TEST, &d);
        if (i < 3) fvt_ck_refused(status, FV_E_DATA, "t10k-images", "are more than can be held");
        else ck_assert_int_eq(status, FV_OK);
        if (i == 3) fv_dataset_free(d);
    }
    free(image);
}
END_TEST

/* A file with a header and so many zeros behind it, which take no place on disk. */
static void put_zeros(const char *name, const uint8_t *head, size_t bytes, off_t all) {
    int fd = open(fvt_in_folder(name), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    ck_assert_int_ge(fd, 0);
    ck_assert(write(fd, head, bytes) == (ssize_t)bytes && ftruncate(fd, all) == 0);
    close(fd);
}

static void put_mnist(const char *stem, uint32_t images) {
    char name[96];
    uint8_t head[16];
    for (int labels = 0; labels < 2; labels++) {
        fvt_put_number(head, labels ? 0x801 : 0x803);
        fvt_put_number(head + 4, images);
        fvt_put_number(head + 8, 28);
        fvt_put_number(head + 12, 28);
        snprintf(name, sizeof name, "mnist/%s-%s-ubyte", stem, labels ? "labels-idx1" : "images-idx3");
        put_zeros(name, head, labels ? 8 : 16, labels ? 8 + images : 16 + (off_t)images * 784);
    }
}

START_TEST(test_a_set_that_is_there_is_not_fetched) {
    const fv_get_opts opts = {.root = fvt_sets.folder, .mirrors = (const char *const[]){"http://127.0.0.1:9", NULL}};
    fvt_make_dirs("mnist");
    put_mnist("train", 60000);
    put_mnist("t10k", 10000);
    ck_assert_msg(fv_data_check(CTX, "mnist", fvt_sets.folder) == FV_OK, "%s", CTX->error.message);
    ck_assert_ptr_nonnull(strstr(fvt_log, "10000 images of 28 x 28 x 1"));
    ck_assert_msg(fv_data_get(CTX, "mnist", &opts) == FV_OK, "%s", CTX->error.message);
    ck_assert_ptr_nonnull(strstr(fvt_log, "mnist is already there"));
    put_mnist("t10k", 9999);
    fvt_ck_refused(fv_data_get(CTX, "mnist", &opts), FV_E_IO, NULL, "could not be fetched");
    ck_assert_ptr_nonnull(strstr(fvt_log, "test has 9999 images, the published set 10000"));
}
END_TEST

/* The built-in places are asked through a proxy that is not there, so that nothing is fetched. */
START_TEST(test_the_built_in_places_are_asked) {
    static const char *const proxies[] = {"http_proxy", "https_proxy", "all_proxy"};
    for (int i = 0; i < 3; i++) setenv(proxies[i], "http://127.0.0.1:9", 1);
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    setenv("FOVEA_DATA", fvt_sets.folder, 1);
    fvt_ck_refused(fv_data_get(CTX, "cifar10", NULL), FV_E_IO, NULL, "could not be fetched");
    fvt_ck_refused(fv_data_get(CTX, "fashion-mnist", NULL), FV_E_IO, NULL, "could not be fetched");
    for (int i = 0; i < 3; i++) unsetenv(proxies[i]);
    unsetenv("FOVEA_DATA");
    const fv_get_opts none = {.root = fvt_sets.folder, .mirrors = (const char *const[]){NULL}};
    fvt_ck_refused(fv_data_get(CTX, "cifar10", &none), FV_E_USAGE, NULL, "no mirror is given");
    const char *many[80] = {NULL};
    for (int i = 0; i < 79; i++) many[i] = "http://127.0.0.1:9/";
    const fv_get_opts too_many = {.root = fvt_sets.folder, .mirrors = many};
    fvt_ck_refused(fv_data_get(CTX, "cifar10", &too_many), FV_E_USAGE, NULL, "more than 64 places");
    fvt_ck_refused(fv_data_get(CTX, "imagenet", &none), FV_E_USAGE, NULL, "no dataset 'imagenet' to download");
    ck_assert_ptr_nonnull(strstr(CTX->error.hint, "known: cifar10"));
    const fv_get_opts ftp = {.root = fvt_sets.folder, .mirrors = (const char *const[]){"ftp://127.0.0.1/", NULL}};
    ck_assert_int_eq(fv_data_get(CTX, "mnist", &ftp), FV_E_USAGE);
}
END_TEST

/* ---------------------------------------------------------------- CIFAR: names and labels in odd forms */

static fv_status open_names(const char *text, size_t bytes, fv_dataset **d) {
    fvt_put_file(fvt_in_folder("batches.meta.txt"), text, bytes);
    return fvt_open_set("cifar10", FV_SPLIT_TEST, d);
}

START_TEST(test_class_names_in_odd_forms) {
    fv_dataset *d;
    fvt_put_cifar10(".");
    static const char *const good[] = {"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n",
                                       "a\r\nb\r\nc\r\nd\r\ne\r\nf\r\ng\r\nh\r\ni\r\nj",
                                       "a\n\nb\nc\nd\ne\nf\ng\nh\ni\n\nj\r"};
    for (int i = 0; i < 3; i++) {
        ck_assert_msg(open_names(good[i], strlen(good[i]), &d) == FV_OK, "%d: %s", i, CTX->error.message);
        ck_assert_str_eq(d->class_names[0], "a");
        ck_assert_str_eq(d->class_names[9], "j");
        fv_dataset_free(d);
    }
    static const struct {
        const char *text, *message;
    } bad[] = {{"a\nb\nc\nd\ne\nf\ng\nh\ni\n", "holds 9 class names; 10 were expected"},
               {"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\nl\n", "holds 12 class names; 10 were expected"},
               {"a\nb\tb\nc\nd\ne\nf\ng\nh\ni\nj\n", "a control character"},
               {"a\nb\nc\rc\nd\ne\nf\ng\nh\ni\nj\n", "a control character"},
               {"a\nb\nc\x7f\nd\ne\nf\ng\nh\ni\nj\n", "a control character"},
               {"", "holds 0 class names"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fvt_ck_refused(open_names(bad[i].text, strlen(bad[i].text), &d), FV_E_DATA, "batches.meta.txt", bad[i].message);
    char *large = malloc(100000);
    memset(large, 'x', 100000);
    fvt_ck_refused(open_names(large, 100000, &d), FV_E_DATA, "batches.meta.txt", "more than expected");
    free(large);
}
END_TEST

static fv_status open_pickled_names(const char *text, fv_dataset **d) {
    fvt_put_text("batches.meta", text);
    return fvt_open_set("cifar10", FV_SPLIT_TEST, d);
}

START_TEST(test_pickled_class_names_in_odd_forms) {
    fv_dataset *d;
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle("protocol2.pkl", bytes, sizeof bytes);
    fvt_put("test_batch", bytes, size);
#define NAMES(list) "(dS'label_names'\n" list "s."
    ck_assert_msg(open_pickled_names(NAMES("(lS'a'\naS'b'\naS'c'\naS'd'\naS'e'\naS'f'\naS'g'\naS'h'\naS'i'\naS'j'\na"),
                                     &d) == FV_OK,
                  "%s", CTX->error.message);
    ck_assert_str_eq(d->class_names[9], "j");
    fv_dataset_free(d);
    static const struct {
        const char *text, *message;
    } bad[] = {{NAMES("(lS'a'\na"), "holds 1 class names"},
               {NAMES("S'a'\n"), "no list of class names"},
               {"(dS'names'\nI1\ns.", "no list of class names"},
               {"I1\n.", "no list of class names"},
               {NAMES("(lI1\na"), "a class name that is no text"},
               {NAMES("(lS'a\\x01'\na"), "a control character"},
               {"(d", "truncated"}};
#undef NAMES
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        fvt_ck_refused(open_pickled_names(bad[i].text, &d), FV_E_DATA, "batches.meta", bad[i].message);
    char *large = malloc(70100);
    int n = sprintf(large, "(dS'label_names'\n(lS'");
    memset(large + n, 'x', 70000);
    strcpy(large + n + 70000, "'\nas.");
    fvt_ck_refused(open_pickled_names(large, &d), FV_E_DATA, "batches.meta", "class names of more than 65536 bytes");
    free(large);
}
END_TEST

/* A batch of two pictures as NumPy would pickle it: an array of `dtype` and `shape`, and labels as given. */
static fv_status open_batch(const char *dtype, const char *shape, size_t pixels, const char *labels, size_t n_labels,
                            fv_dataset **d) {
    static char text[40000];
    size_t n = (size_t)snprintf(text, sizeof text,
                                "(dS'data'\ncnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
                                "(%stcnumpy\ndtype\n(S'%s'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n",
                                shape, dtype);
    text[n++] = 'T';
    for (int i = 0; i < 4; i++) text[n++] = (char)(pixels >> 8 * i);
    memset(text + n, 7, pixels);
    n += pixels;
    n += (size_t)snprintf(text + n, sizeof text - n, "tbsS'labels'\n");
    memcpy(text + n, labels, n_labels);
    n += n_labels;
    n += (size_t)snprintf(text + n, sizeof text - n, "s.");
    fvt_put("test_batch", text, n);
    return fvt_open_set("cifar10", FV_SPLIT_TEST, d);
}

/* An integer array of two labels: dtype with byte order, and the bytes. */
#define LABELS(dtype, order, bytes) \
    "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I2\ntcnumpy\ndtype\n(S'" dtype \
    "'\nI0\nI1\ntR(I3\nS'" order "'\nNNNI-1\nI-1\nI0\ntbI00\nU" bytes "tb"

START_TEST(test_python_batches_in_odd_forms) {
    static const char shape[] = "I2\nI3072\n";
    fv_dataset *d;
#define OPEN(dtype, shape, pixels, labels) open_batch(dtype, shape, pixels, labels, sizeof(labels) - 1, &d)
#define LIST "(lI3\naI4\na"
    static const char *const takes[] = {"i1, list", "<i4", ">i4", "u8", ">u2", "i8"};
    for (int i = 0; i < 6; i++) {
        fv_status status =
            i == 0   ? OPEN("u1", shape, 6144, LIST)
            : i == 1 ? OPEN("u1", shape, 6144, LABELS("i4", "<", "\x08\x03\0\0\0\x04\0\0\0"))
            : i == 2 ? OPEN("u1", shape, 6144, LABELS("i4", ">", "\x08\0\0\0\x03\0\0\0\x04"))
            : i == 3 ? OPEN("u1", shape, 6144, LABELS("u8", "<", "\x10\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"))
            : i == 4 ? OPEN("u1", shape, 6144, LABELS("u2", ">", "\x04\0\x03\0\x04"))
                     : OPEN("u1", shape, 6144, LABELS("i8", "<", "\x10\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"));
        ck_assert_msg(status == FV_OK, "%s: %s", takes[i], CTX->error.message);
        ck_assert_msg(d->labels[0] == 3 && d->labels[1] == 4, "%s: labels %d, %d", takes[i], d->labels[0],
                      d->labels[1]);
        ck_assert_uint_eq(d->images[0], 7);
        fv_dataset_free(d);
    }
#define REFUSED(message, ...) fvt_ck_refused(OPEN(__VA_ARGS__), FV_E_DATA, "test_batch", message)
    REFUSED("'data' is no array of bytes", "i1", shape, 6144, LIST);
    REFUSED("'data' is no array of bytes", "u2", shape, 12288, LIST);
    REFUSED("'data' is no array of bytes", "u1", "I6144\n", 6144, LIST);
    REFUSED("'data' is no array of bytes", "u1", "I3072\nI2\n", 6144, LIST);
    REFUSED("'labels' is no list", "u1", shape, 6144, "I3\n");
    REFUSED("'labels' is no list", "u1", shape, 6144, "(dI1\nI2\ns");
    REFUSED("2 images, but 1 labels", "u1", shape, 6144, "(lI3\na");
    REFUSED("label of record 1 is -1", "u1", shape, 6144, "(lI3\naS'4'\na");
    REFUSED("label of record 1 is -1", "u1", shape, 6144, "(lI3\naI-1\na");
    REFUSED("label of record 0 is -1", "u1", shape, 6144,
            LABELS("u8", "<", "\x10\xff\xff\xff\xff\xff\xff\xff\xff\x04\0\0\0\0\0\0\0"));
    REFUSED("label of record 0 is -2", "u1", shape, 6144, LABELS("i2", "<", "\x04\xfe\xff\x04\0"));
    fvt_put_text("test_batch", "(dS'data'\nI1\nsS'labels'\n(lI3\nas.");
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "test_batch", "'data' is no array of bytes");
#undef REFUSED
#undef OPEN
}
END_TEST

/* ---------------------------------------------------------------- statistics, loader */

START_TEST(test_stats_of_large_pictures) {
    enum { SIDE = 1200 };
    const size_t bytes = (size_t)SIDE * SIDE * 3;
    uint8_t *images = malloc(bytes);
    ck_assert_ptr_nonnull(images);
    for (size_t i = 0; i < bytes; i++) images[i] = i % 3 == 0 ? 255 : i % 3 == 1 ? (uint8_t)(i / 3 & 255) : 0;
    fv_dataset d = {.count = 1, .h = SIDE, .w = SIDE, .c = 3, .images = images};
    double mean[3], std[3], expected = 0, square = 0;
    fv_dataset_stats(&d, NULL, 0, mean, std);
    for (int64_t p = 0; p < (int64_t)SIDE * SIDE; p++) {
        double v = (double)((3 * p + 1) / 3 & 255) / 255;
        expected += v;
        square += v * v;
    }
    expected /= (double)SIDE * SIDE;
    ck_assert_double_eq(mean[0], 1.0);
    ck_assert_double_eq_tol(mean[1], expected, 1e-12);
    ck_assert_double_eq_tol(std[1], sqrt(square / ((double)SIDE * SIDE) - expected * expected), 1e-10);
    ck_assert_double_eq(mean[2], 0.0);
    ck_assert_double_eq(std[2], 1.0);
    static const int64_t none[1];
    fv_dataset_stats(&d, none, 0, mean, std);
    ck_assert_double_eq(mean[1], 0.0);
    ck_assert_double_eq(std[1], 1.0);
    free(images);
}
END_TEST

static fv_dataset *synthetic(int64_t count) {
    fv_dataset *d;
    const fv_dataset_opts opts = {.synthetic_count = count, .img_size = 8};
    ck_assert_msg(fv_dataset_open(CTX, "synthetic", FV_SPLIT_TRAIN, &opts, &d) == FV_OK, "%s", CTX->error.message);
    return d;
}

START_TEST(test_loader_refuses_what_cannot_be) {
    static const int64_t beyond[] = {0, 40}, before[] = {0, -1};
    const fv_loader_cfg good = {.batch = 2, .train = true};
    fv_loader *l;
    fv_loader_cfg cfg;
    fv_augment_cfg augment;
    fv_dataset *d = synthetic(40);
#define REFUSED(message, ...) \
    do { \
        cfg = good; \
        augment = (fv_augment_cfg){0}; \
        cfg.augment = &augment; \
        __VA_ARGS__; \
        fvt_ck_refused(fv_loader_create(CTX, d, NULL, 0, &cfg, &l), FV_E_USAGE, NULL, message); \
    } while (0)
    REFUSED("batch size must be at least 1", cfg.batch = 0);
    REFUSED("larger than the training set", cfg.batch = 41);
    REFUSED("number of workers", cfg.workers = -1);
    REFUSED("number of workers", cfg.workers = 1 << 20);
    REFUSED("prefetch must lie", cfg.prefetch = -1);
    REFUSED("prefetch must lie", cfg.prefetch = 1 << 30);
    REFUSED("cannot be padded by -1", augment.crop_pad = -1);
    REFUSED("cannot be padded by 5000", augment.crop_pad = 5000);
    REFUSED("cannot be padded by 8", augment.crop_pad = 8, augment.pad_mode = FV_PAD_REFLECT);
    REFUSED("flip must lie in 0..1, not at -1", augment.flip = -1);
    REFUSED("flip must lie in 0..1, not at 2", augment.vflip = 2);
    REFUSED("flip must lie in 0..1, not at nan", augment.flip = NAN);
    REFUSED("cutout must lie", augment.cutout = -1);
    REFUSED("cutout must lie", augment.cutout = 5000);
    REFUSED("jitter of contrast", augment.jitter[1] = 1.5);
    REFUSED("jitter of hue must lie in 0..0.5", augment.jitter[3] = 0.75);
    REFUSED("erasing must lie", augment.erase = -0.5);
    REFUSED("flips alternate only where", augment.alternate_flip = true, cfg.balanced = true);
    fvt_ck_refused(fv_loader_create(CTX, d, beyond, 2, &good, &l), FV_E_USAGE, NULL, "sample 40 is not in the dataset");
    fvt_ck_refused(fv_loader_create(CTX, d, before, 2, &good, &l), FV_E_USAGE, NULL, "sample -1 is not in the dataset");
    fvt_ck_refused(fv_loader_create(CTX, d, before, 0, &good, &l), FV_E_USAGE, NULL, "no samples to load");
    cfg = (fv_loader_cfg){.batch = INT64_MAX / 8};
    ck_assert_int_eq(fv_loader_create(CTX, d, NULL, 0, &cfg, &l), FV_E_MEMORY);
    fv_dataset_free(d);
#undef REFUSED
}
END_TEST

/* ---------------------------------------------------------------- every failing allocation */

static fv_dataset *swept;
static uint8_t sample[40000];
static size_t sample_bytes;

static fv_status split_it(void) {
    int64_t *train, *val, n, m;
    fv_arena arena;
    fv_arena_init(&arena, CTX);
    fv_status status = fv_split_validation(CTX, &arena, swept, 0.25, 7, &train, &n, &val, &m);
    fv_arena_free(&arena);
    return status;
}
static fv_status load_it(const fv_loader_cfg *cfg) {
    fv_loader *l;
    fv_batch batch;
    FV_TRY(fv_loader_create(CTX, swept, NULL, 0, cfg, &l));
    fv_status status = fv_loader_start(l, 0, 0);
    if (status == FV_OK) status = fv_loader_next(l, &batch);
    fv_loader_destroy(l);
    return status;
}
static fv_status load_balanced(void) {
    return load_it(&(fv_loader_cfg){.batch = 4, .train = true, .balanced = true, .shuffle_labels = true});
}
static fv_status load_in_threads(void) {
    return load_it(&(fv_loader_cfg){.batch = 4, .workers = 2});
}
static fv_status read_pickle(void) {
    fv_pickle *value;
    fv_arena arena;
    fv_arena_init(&arena, CTX);
    fv_status status = fv_pickle_read(CTX, &arena, "sample", sample, sample_bytes, &value);
    fv_arena_free(&arena);
    return status;
}
static fv_status open_named(void) {
    return open_and_free("cifar10", &(fv_dataset_opts){.root = fvt_sets.folder});
}
static fv_status open_digits(void) {
    return open_and_free(fvt_in_folder("digits"), NULL);
}
static fv_status digest(void) {
    char md5[33];
    return fv_md5_file(CTX, fvt_in_folder("test_batch"), md5);
}

/* Each allocation fails once: the call says so and leaves nothing behind, and without failures it works. */
static void fail_each(const char *name, fv_status (*run)(void)) {
    int64_t live = fvt_sets.memory.live;
    for (int64_t n = 1, reached = 1; reached; n++) {
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = run();
        reached = fvt_sets.memory.calls >= n;
        fvt_sets.memory.fail_at = 0;
        ck_assert_msg(status == (reached ? FV_E_MEMORY : FV_OK), "%s, allocation %d: status %d: %s", name, (int)n,
                      (int)status, CTX->error.message);
        ck_assert_msg(fvt_sets.memory.live == live, "%s, allocation %d: something is left", name, (int)n);
        ck_assert_int_eq(fvt_sets.files.open_files, 0);
    }
}

START_TEST(test_every_failing_allocation_is_an_error) {
    swept = synthetic(40);
    fail_each("split", split_it);
    fail_each("balanced loader", load_balanced);
    fail_each("loader with threads", load_in_threads);
    fv_dataset_free(swept);
    uint8_t part[40];
    int32_t labels[40] = {0};
    for (int i = 0; i < 40; i++) part[i] = (uint8_t)(i % 3);
    fv_dataset divided = {.count = 40, .classes = 1, .labels = labels, .part = part};
    swept = &divided;
    fail_each("parts", split_it);
    for (int i = 0; i < FVT_PICKLES; i++) {
        sample_bytes = fvt_read_pickle(fvt_pickles[i], sample, sizeof sample);
        fail_each(fvt_pickles[i], read_pickle);
    }
    sample_bytes = fvt_read_pickle("protocol2.pkl", sample, sizeof sample);
    fvt_put("test_batch", sample, sample_bytes);
    fvt_put_text("batches.meta", "(dS'label_names'\n(lS'a'\naS'b'\naS'c'\naS'd'\naS'e'\naS'f'\naS'g'\naS'h'\naS'i'\naS"
                                 "'j'\nas.");
    fail_each("names of a python batch", open_named);
    fail_each("MD5", digest);
    fvt_put_cifar10(".");
    fvt_put_text("batches.meta.txt", "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n");
    fail_each("names of binary files", open_named);
    fvt_make_dirs("digits");
    fvt_put_idx("digits/train-images-idx3-ubyte", "digits/train-labels-idx1-ubyte", false, 3);
    fvt_put_idx("digits/t10k-images-idx3-ubyte.gz", "digits/t10k-labels-idx1-ubyte.gz", true, 3);
    fail_each("IDX of both splits", open_digits);
}
END_TEST

Suite *data_odd_suite(void) {
    Suite *suite = suite_create("data_odd");
    TCase *tcase = tcase_create("odd data");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, fvt_files_setup, fvt_sets_teardown);
    tcase_add_loop_test(tcase, test_paths_of_any_length, 0, sizeof long_cases / sizeof *long_cases);
    tcase_add_test(tcase, test_idx_folders_are_known_by_their_names);
    tcase_add_test(tcase, test_idx_classes_are_those_of_both_splits);
    tcase_add_test(tcase, test_pictures_of_odd_shapes_are_refused);
    tcase_add_test(tcase, test_a_set_that_is_there_is_not_fetched);
    tcase_add_test(tcase, test_the_built_in_places_are_asked);
    tcase_add_test(tcase, test_class_names_in_odd_forms);
    tcase_add_test(tcase, test_pickled_class_names_in_odd_forms);
    tcase_add_test(tcase, test_python_batches_in_odd_forms);
    tcase_add_test(tcase, test_stats_of_large_pictures);
    tcase_add_test(tcase, test_loader_refuses_what_cannot_be);
    tcase_add_test(tcase, test_every_failing_allocation_is_an_error);
    suite_add_tcase(suite, tcase);
    return suite;
}
