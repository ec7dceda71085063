/* test_data.c: reading datasets: round trips of every format, where they are looked for, the split, statistics, the synthetic set; then
 * input that is wrong in every way, files and memory that fail. */
#include "data/internal.h"
#include "data/pickle.h"
#include "tests/data_path.h"
#include "tests/faults.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *data_suite(void);

static char folder[128];
static fv_ctx ctx;
static fvt_files files;
static fvt_memory memory;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void setup(void) {
    fvt_make_folder(folder);
    fv_ctx_init(&ctx);
    fvt_files_install(&files, &ctx);
    fvt_memory_install(&memory, &ctx);
    unsetenv("FOVEA_DATA");
}

/* Whatever a test did: no memory and no open file may be left. */
static void teardown(void) {
    ck_assert_int_eq(memory.live, 0);
    ck_assert_int_eq(files.open_files, 0);
    ck_assert_int_eq(nftw(folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---------------------------------------------------------------- small sets: record i has label (7 i) % 10 */

static uint8_t pixel(int64_t record, int64_t j) { return (uint8_t)((31 * record + j + j / 256) % 251); } /* j in planes */
static int32_t label_of(int64_t record) { return (int32_t)(7 * record % 10); }

static const char *in_folder(const char *name) {
    static char path[8][512];
    static int at;
    at = (at + 1) % 8;
    snprintf(path[at], sizeof path[at], "%s/%s", folder, name);
    return path[at];
}

static void make_dirs(const char *name) { ck_assert_int_eq(fv_data_mkdirs(&ctx, in_folder(name)), FV_OK); }

/* Records first..first+n-1 as a binary file; label_bytes 2 puts a coarse label in front. */
static size_t cifar_bytes(uint8_t *out, int64_t first, int64_t n, int label_bytes) {
    uint8_t *p = out;
    for (int64_t i = first; i < first + n; i++) {
        if (label_bytes == 2) *p++ = 19;
        *p++ = (uint8_t)label_of(i);
        for (int64_t j = 0; j < 3072; j++) *p++ = pixel(i, j);
    }
    return (size_t)(p - out);
}

static void put_cifar10(const char *below) {
    uint8_t bytes[2 * 3073];
    char name[64];
    for (int i = 0; i < 6; i++) {
        if (i < 5) snprintf(name, sizeof name, "%s/data_batch_%d.bin", below, i + 1);
        else snprintf(name, sizeof name, "%s/test_batch.bin", below);
        fvt_put_file(in_folder(name), bytes, cifar_bytes(bytes, i < 5 ? 2 * i : 0, 2, 1));
    }
}

static void ck_cifar_records(const fv_dataset *d, int64_t count) {
    ck_assert_int_eq(d->count, count);
    ck_assert(d->h == 32 && d->w == 32 && d->c == 3);
    for (int64_t i = 0; i < count; i++) {
        ck_assert_int_eq(d->labels[i], label_of(i));
        for (int64_t j = 0; j < 3072; j++)
            ck_assert_uint_eq(d->images[i * 3072 + 3 * (j % 1024) + j / 1024], pixel(i, j));
    }
    ck_assert_uint_eq(d->fingerprint, fv_dataset_hash(d));
}

static void put_number(uint8_t *to, uint32_t n) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(n >> (24 - 8 * i));
}

/* IDX of n images of h x w, and of n labels below 10. */
static size_t idx_images(uint8_t *out, uint32_t n, uint32_t h, uint32_t w) {
    put_number(out, 0x803);
    put_number(out + 4, n);
    put_number(out + 8, h);
    put_number(out + 12, w);
    for (uint32_t i = 0; i < n * h * w; i++) out[16 + i] = (uint8_t)(3 * i);
    return 16 + (size_t)n * h * w;
}
static size_t idx_labels(uint8_t *out, uint32_t n) {
    put_number(out, 0x801);
    put_number(out + 4, n);
    for (uint32_t i = 0; i < n; i++) out[8 + i] = (uint8_t)label_of(i);
    return 8 + n;
}

static size_t gzip(const uint8_t *from, size_t bytes, uint8_t *to, size_t room) {
    z_stream z = {.next_in = (uint8_t *)(uintptr_t)from, .avail_in = (uInt)bytes, .next_out = to, .avail_out = (uInt)room};
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

static void put_idx(const char *images, const char *labels, bool packed, uint32_t n) {
    uint8_t plain[4096], gz[4096];
    size_t size = idx_images(plain, n, 5, 4);
    size_t packed_size = gzip(plain, size, gz, sizeof gz);
    fvt_put_file(in_folder(images), packed ? gz : plain, packed ? packed_size : size);
    size = idx_labels(plain, n);
    packed_size = gzip(plain, size, gz, sizeof gz);
    fvt_put_file(in_folder(labels), packed ? gz : plain, packed ? packed_size : size);
}

static fv_status open_set(const char *name, fv_split split, fv_dataset **d) {
    const fv_dataset_opts opts = {.root = folder};
    return fv_dataset_open(&ctx, name, split, &opts, d);
}

/* A failure that names its place. path NULL: none. */
static void ck_refused(fv_status got, fv_status expected, const char *path, const char *message) {
    ck_assert_msg(got == expected, "status %d (%s: %s), not %d", (int)got, ctx.error.path, ctx.error.message, (int)expected);
    if (path) ck_assert_msg(strstr(ctx.error.path, path) != NULL, "path '%s', not '%s'", ctx.error.path, path);
    ck_assert_msg(strstr(ctx.error.message, message) != NULL, "message '%s' lacks '%s'", ctx.error.message, message);
}

/* ---------------------------------------------------------------- round trips */

static const char *const cifar10_places[] = {".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"};

START_TEST(test_cifar10_binary) {
    fv_dataset *d;
    make_dirs(cifar10_places[_i]);
    put_cifar10(cifar10_places[_i]);
    ck_assert_int_eq(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK);
    ck_cifar_records(d, 10);
    ck_assert_str_eq(d->name, "cifar10");
    ck_assert_int_eq(d->classes, 10);
    ck_assert_str_eq(d->class_names[9], "truck");
    fv_dataset_free(d);
    ck_assert_int_eq(open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    ck_cifar_records(d, 2);
    fv_dataset_free(d);
    ck_assert_int_eq(fv_dataset_open(&ctx, in_folder(cifar10_places[_i]), FV_SPLIT_TEST, NULL, &d), FV_OK); /* by path */
    ck_assert_str_eq(d->name, "cifar10");
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_cifar10_names) {
    fv_dataset *d;
    static const char names[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\r\njot\n\n";
    put_cifar10(".");
    fvt_put_file(in_folder("batches.meta.txt"), names, sizeof names - 1);
    ck_assert_int_eq(open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    ck_assert_str_eq(d->class_names[8], "i");
    ck_assert_str_eq(d->class_names[9], "jot");
    fv_dataset_free(d);
    fvt_put_file(in_folder("batches.meta.txt"), names, 8);
    ck_refused(open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "batches.meta.txt", "4 class names; 10");
    fvt_put_file(in_folder("batches.meta.txt"), "a\tb\n", 4);
    ck_refused(open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "batches.meta.txt", "control character");
}
END_TEST

START_TEST(test_cifar100_binary) {
    fv_dataset *d;
    uint8_t bytes[3 * 3074];
    make_dirs("cifar100/cifar-100-binary");
    size_t size = cifar_bytes(bytes, 0, 3, 2);
    fvt_put_file(in_folder("cifar100/cifar-100-binary/train.bin"), bytes, size);
    ck_assert_int_eq(open_set("cifar100", FV_SPLIT_TRAIN, &d), FV_OK);
    ck_cifar_records(d, 3);
    ck_assert_int_eq(d->classes, 100);
    ck_assert_str_eq(d->class_names[0], "apple");
    ck_assert_str_eq(d->class_names[99], "worm");
    fv_dataset_free(d);
    ck_refused(open_set("cifar100", FV_SPLIT_TEST, &d), FV_E_DATA, "cifar-100-binary/test.bin", "no such file");
    ck_assert_ptr_nonnull(strstr(ctx.error.hint, "fovea data get"));
}
END_TEST

static size_t read_vector(const char *name, uint8_t *to, size_t room) {
    char path[128];
    snprintf(path, sizeof path, "tests/vectors/pickles/%s", name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s: %s (tests run in the root of the repository)", path, strerror(errno));
    size_t n = fread(to, 1, room, f);
    fclose(f);
    ck_assert_uint_lt(n, room);
    return n;
}

static const char *const pickles[] = {"protocol0.pkl", "protocol1.pkl", "protocol2.pkl",   "protocol3.pkl", "protocol4.pkl",
                                      "python2.pkl",   "fortran.pkl",   "label_array.pkl", "byte_keys.pkl"};

START_TEST(test_cifar10_python) {
    fv_dataset *d;
    uint8_t bytes[16384];
    size_t size = read_vector(pickles[_i], bytes, sizeof bytes);
    make_dirs("cifar-10-batches-py");
    fvt_put_file(in_folder("cifar-10-batches-py/test_batch"), bytes, size);
    ck_assert_msg(open_set("cifar10", FV_SPLIT_TEST, &d) == FV_OK, "%s: %s", pickles[_i], ctx.error.message);
    ck_cifar_records(d, 2);
    ck_assert_str_eq(d->class_names[0], "airplane");
    fv_dataset_free(d);
    size = read_vector("meta.pkl", bytes, sizeof bytes);
    fvt_put_file(in_folder("cifar-10-batches-py/batches.meta"), bytes, size);
    ck_assert_int_eq(open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    ck_assert_str_eq(d->class_names[9], "name 9");
    fv_dataset_free(d);
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_1", "no such file");
}
END_TEST

static const struct {
    const char *images, *labels, *set, *below;
    bool packed;
} idx_cases[] = {
    {"mnist/train-images-idx3-ubyte", "mnist/train-labels-idx1-ubyte", "mnist", "mnist", false},
    {"mnist/train-images-idx3-ubyte.gz", "mnist/train-labels-idx1-ubyte.gz", "mnist", "mnist", true},
    {"MNIST/raw/train-images-idx3-ubyte", "MNIST/raw/train-labels-idx1-ubyte.gz", "mnist", "MNIST/raw", true},
    {"mnist/train-images.idx3-ubyte", "mnist/train-labels.idx1-ubyte", "mnist", "mnist", false},
    {"FashionMNIST/raw/train-images-idx3-ubyte.gz", "FashionMNIST/raw/train-labels-idx1-ubyte.gz", "fashion-mnist",
     "FashionMNIST/raw", true},
    {"digits/train-images-idx3-ubyte.gz", "digits/train-labels-idx1-ubyte.gz", NULL, "digits", true},
};

START_TEST(test_idx) {
    fv_dataset *d;
    make_dirs(idx_cases[_i].below);
    put_idx(idx_cases[_i].images, idx_cases[_i].labels, idx_cases[_i].packed, 7);
    const char *name = idx_cases[_i].set ? idx_cases[_i].set : in_folder(idx_cases[_i].below);
    ck_assert_msg(open_set(name, FV_SPLIT_TRAIN, &d) == FV_OK, "%s: %s", ctx.error.path, ctx.error.message);
    ck_assert(d->count == 7 && d->h == 5 && d->w == 4 && d->c == 1 && d->classes == 10 - (idx_cases[_i].set == NULL));
    for (int i = 0; i < 7 * 20; i++) ck_assert_uint_eq(d->images[i], (uint8_t)(3 * i));
    for (int i = 0; i < 7; i++) ck_assert_int_eq(d->labels[i], label_of(i));
    ck_assert_str_eq(d->class_names[0], strncmp(name, "fashion", 7) == 0 ? "T-shirt/top" : "0");
    ck_assert_str_eq(d->name, idx_cases[_i].set ? idx_cases[_i].set : "digits");
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_locate) {
    fv_dataset *d;
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, NULL, "data_batch_1.bin");
    ck_assert_ptr_nonnull(strstr(ctx.error.message, folder));
    ck_assert_ptr_nonnull(strstr(ctx.error.hint, "fovea data get cifar10"));
    ck_refused(open_set("CIFAR-10", FV_SPLIT_TRAIN, &d), FV_E_DATA, NULL, "no dataset is called");
    ck_assert_str_eq(ctx.error.hint, "did you mean 'cifar10'?");
    ck_refused(open_set(folder, FV_SPLIT_TRAIN, &d), FV_E_DATA, folder, "holds no dataset");
    fvt_put_file(in_folder("plain"), "x", 1);
    ck_refused(open_set(in_folder("plain"), FV_SPLIT_TRAIN, &d), FV_E_DATA, "plain", "not a folder");
    /* an incomplete folder does not hide a complete one */
    make_dirs("cifar10");
    put_cifar10("cifar10");
    uint8_t record[3073];
    fvt_put_file(in_folder("data_batch_1.bin"), record, cifar_bytes(record, 0, 1, 1));
    ck_assert_int_eq(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK);
    ck_assert_int_eq(d->count, 10);
    fv_dataset_free(d);
    setenv("FOVEA_DATA", folder, 1);
    ck_assert_int_eq(fv_dataset_open(&ctx, "cifar10", FV_SPLIT_TEST, NULL, &d), FV_OK);
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- statistics, split, synthetic */

START_TEST(test_stats) {
    static const int32_t shapes[][3] = {{32, 32, 3}, {28, 28, 1}, {5, 4, 1}, {7, 3, 2}, {4, 5, 5}, {33, 31, 3}};
    int32_t h = shapes[_i][0], w = shapes[_i][1], c = shapes[_i][2];
    fv_dataset d = {.count = 40, .h = h, .w = w, .c = c};
    size_t picture = (size_t)(h * w * c);
    uint8_t *images = malloc(40 * picture);
    for (size_t i = 0; i < 40 * picture; i++) images[i] = i % 5 ? (uint8_t)(i * 2654435761u >> 13) : 255;
    d.images = images;
    static const int64_t some[] = {3, 0, 39, 17, 17};
    for (int round = 0; round < 2; round++) {
        double mean[8], std[8], sum[8] = {0}, square[8] = {0};
        int64_t n = round ? 5 : 40;
        fv_dataset_stats(&d, round ? some : NULL, 5, mean, std);
        for (int64_t i = 0; i < n; i++)
            for (size_t j = 0; j < picture; j++) {
                double v = images[(size_t)(round ? some[i] : i) * picture + j] / 255.0;
                sum[j % (size_t)c] += v;
                square[j % (size_t)c] += v * v;
            }
        for (int k = 0; k < c; k++) {
            double m = sum[k] / (double)(n * h * w);
            ck_assert_double_eq_tol(mean[k], m, 1e-12);
            ck_assert_double_eq_tol(std[k], sqrt(square[k] / (double)(n * h * w) - m * m), 1e-10);
        }
    }
    memset(images, 255, 40 * picture);
    double mean[8], std[8];
    fv_dataset_stats(&d, NULL, 0, mean, std);
    ck_assert_double_eq(mean[0], 1.0);
    ck_assert_double_eq(std[0], 1.0);
    free(images);
}
END_TEST

START_TEST(test_split) {
    int32_t labels[1000];
    fv_dataset d = {.ctx = &ctx, .count = 1000, .classes = 7, .labels = labels};
    int64_t per_class[7] = {0}, *train, *val, *again, n_train, n_val, n;
    for (int i = 0; i < 1000; i++) per_class[labels[i] = i % 3 ? i % 7 : 2]++;
    static const double fractions[] = {0.0, 0.1, 0.1234, 0.5, 0.0001, 0.9994};
    for (size_t f = 0; f < sizeof fractions / sizeof *fractions; f++) {
        fv_arena arena;
        fv_arena_init(&arena, &ctx);
        ck_assert_int_eq(fv_split_validation(&ctx, &arena, &d, fractions[f], 5, &train, &n_train, &val, &n_val), FV_OK);
        ck_assert_int_eq(n_val, (int64_t)floor(fractions[f] * 1000 + 0.5));
        ck_assert_int_eq(n_train + n_val, 1000);
        bool seen[1000] = {false};
        int64_t held[7] = {0};
        for (int64_t i = 0; i < n_train; i++) {
            ck_assert(!seen[train[i]] && (i == 0 || train[i] > train[i - 1]));
            seen[train[i]] = true;
        }
        for (int64_t i = 0; i < n_val; i++) {
            ck_assert(!seen[val[i]] && (i == 0 || val[i] > val[i - 1]));
            seen[val[i]] = true;
            held[labels[val[i]]]++;
        }
        for (int k = 0; k < 7; k++) ck_assert_double_le(fabs((double)held[k] - fractions[f] * (double)per_class[k]), 1.0);
        ck_assert_int_eq(fv_split_validation(&ctx, &arena, &d, fractions[f], 5, &train, &n_train, &again, &n), FV_OK);
        ck_assert_mem_eq(val, again, (size_t)n * sizeof *val);
        if (fractions[f] == 0.1) {
            fv_split_validation(&ctx, &arena, &d, fractions[f], 6, &train, &n_train, &again, &n);
            ck_assert(memcmp(val, again, (size_t)n * sizeof *val) != 0);
        }
        fv_arena_free(&arena);
    }
    static const double wrong[] = {-0.1, 1.0, 2.0, NAN, 0.9999};
    for (size_t f = 0; f < sizeof wrong / sizeof *wrong; f++) {
        fv_arena arena;
        fv_arena_init(&arena, &ctx);
        ck_assert_int_eq(fv_split_validation(&ctx, &arena, &d, wrong[f], 5, &train, &n_train, &val, &n_val), FV_E_USAGE);
        fv_arena_free(&arena);
    }
}
END_TEST

/* Share of the test pictures whose nearest class mean is the right one: far from chance, far from perfect. */
START_TEST(test_synthetic) {
    fv_dataset *train, *test, *again;
    const fv_dataset_opts opts = {.seed = 3};
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TRAIN, &opts, &train), FV_OK);
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TEST, &opts, &test), FV_OK);
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TEST, &opts, &again), FV_OK);
    ck_assert(train->count == 4096 && test->count == 1024 && train->classes == 10 && train->c == 3);
    ck_assert_uint_eq(test->fingerprint, again->fingerprint);
    ck_assert_uint_ne(test->fingerprint, train->fingerprint);
    fv_dataset_free(again);
    const fv_dataset_opts other = {.seed = 4};
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TEST, &other, &again), FV_OK);
    ck_assert_uint_ne(test->fingerprint, again->fingerprint);
    fv_dataset_free(again);
    double *mean = calloc(10 * 3072, sizeof *mean);
    int64_t count[10] = {0}, right = 0;
    for (int64_t i = 0; i < train->count; i++) {
        count[train->labels[i]]++;
        for (int j = 0; j < 3072; j++) mean[train->labels[i] * 3072 + j] += train->images[i * 3072 + j];
    }
    for (int64_t i = 0; i < test->count; i++) {
        double best = INFINITY;
        int guess = -1;
        for (int k = 0; k < 10; k++) {
            double distance = 0;
            for (int j = 0; j < 3072; j++) {
                double diff = test->images[i * 3072 + j] - mean[k * 3072 + j] / (double)count[k];
                distance += diff * diff;
            }
            if (distance < best) best = distance, guess = k;
        }
        right += guess == test->labels[i];
    }
    free(mean);
    double share = (double)right / (double)test->count;
    ck_assert_msg(share > 2, "nearest mean is right for %.3f", share);
    fv_dataset_free(train);
    fv_dataset_free(test);
    const fv_dataset_opts shaped = {.synthetic_count = 9, .img_size = 17, .in_chans = 5, .classes = 4};
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TRAIN, &shaped, &train), FV_OK);
    ck_assert(train->count == 9 && train->h == 17 && train->w == 17 && train->c == 5 && train->classes == 4);
    fv_dataset_free(train);
    static const fv_dataset_opts wrong[] = {{.synthetic_count = -1}, {.img_size = -1}, {.in_chans = 99}, {.classes = -2}};
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TRAIN, &wrong[i], &train), FV_E_USAGE);
}
END_TEST

/* ---------------------------------------------------------------- wrong input */

START_TEST(test_bad_cifar) {
    fv_dataset *d;
    uint8_t bytes[2 * 3073];
    put_cifar10(".");
    size_t size = cifar_bytes(bytes, 4, 2, 1);
    unlink(in_folder("data_batch_3.bin"));
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "no such file");
    fvt_put_file(in_folder("data_batch_3.bin"), bytes, size - 1);
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "no multiple of a record of 3073");
    ck_assert_int_eq(ctx.error.offset, 3073);
    fvt_put_file(in_folder("data_batch_3.bin"), bytes, 0);
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "is empty");
    bytes[3073] = 10;
    fvt_put_file(in_folder("data_batch_3.bin"), bytes, size);
    ck_refused(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_3.bin", "record 1 has label 10");
    ck_assert_int_eq(ctx.error.offset, 3073);
    unlink(in_folder("data_batch_3.bin"));
    ck_assert_int_eq(mkfifo(in_folder("data_batch_3.bin"), 0600), 0);
    ck_assert_int_ne(open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK); /* at once */
}
END_TEST

START_TEST(test_bad_idx) {
    fv_dataset *d;
    uint8_t images[4096], labels[64], gz[8192];
    make_dirs("mnist");
    size_t n_images = idx_images(images, 7, 5, 4), n_labels = idx_labels(labels, 7);
    const char *at = in_folder("mnist/t10k-images-idx3-ubyte");
    char image_path[512];
    snprintf(image_path, sizeof image_path, "%s", at);
    fvt_put_file(in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "mnist", "no t10k-images-idx3-ubyte");
    static const struct {
        uint32_t at, value;
        const char *message;
    } lies[] = {{0, 0x801, "magic number"},         {0, 0, "magic number"},      {4, 8, "more than the file can hold"},
                {4, 6, "more bytes follow"},        {8, 0, "dimension 1 is 0"},  {8, 0xffffffff, "more than the file can hold"},
                {12, 0x80000000, "more than the file can hold"}};
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        idx_images(images, 7, 5, 4);
        put_number(images + lies[i].at, lies[i].value);
        fvt_put_file(image_path, images, n_images);
        /* six images with seven labels is a count mismatch before it is anything else */
        ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images",
                   lies[i].at == 4 && lies[i].value == 6 ? "6 images, but" : lies[i].message);
    }
    n_images = idx_images(images, 6, 5, 4);
    fvt_put_file(image_path, images, n_images);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "6 images, but");
    n_images = idx_images(images, 7, 5, 4);
    fvt_put_file(image_path, images, n_images + 1);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "more bytes follow");
    fvt_put_file(image_path, images, n_images);
    labels[8 + 4] = 10;
    fvt_put_file(in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-labels", "record 4 has label 10");
    ck_assert_int_eq(ctx.error.offset, 12);
    idx_labels(labels, 7);
    fvt_put_file(in_folder("mnist/t10k-labels-idx1-ubyte"), labels, n_labels);
    size_t n_gz = gzip(images, n_images, gz, sizeof gz);
    fvt_put_file(image_path, gz, n_gz - 9);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "truncated gzip");
    ck_assert_int_eq(ctx.error.offset, (int64_t)n_gz - 9);
    gz[n_gz - 6] ^= 1; /* checksum */
    fvt_put_file(image_path, gz, n_gz);
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "damaged gzip");
    /* a small file that claims gigabytes: refused before memory is taken */
    uint8_t bomb[1 << 16] = {0};
    idx_images(bomb, 1, 1, 1);
    put_number(bomb + 4, 1 << 20);
    put_number(bomb + 8, 60);
    put_number(bomb + 12, 60);
    n_gz = gzip(bomb, sizeof bomb, gz, sizeof gz);
    fvt_put_file(image_path, gz, n_gz);
    memory.peak = 0;
    ck_refused(open_set("mnist", FV_SPLIT_TEST, &d), FV_E_DATA, "t10k-images", "more than the file can hold");
    ck_assert_uint_lt(memory.peak, 8 << 20);
}
END_TEST

static void ck_pickle(const char *bytes, size_t size, const char *message) {
    fv_arena arena;
    fv_pickle *value;
    fv_arena_init(&arena, &ctx);
    ck_refused(fv_pickle_read(&ctx, &arena, "sample", bytes, size, &value), FV_E_DATA, "sample", message);
    ck_assert_int_ge(ctx.error.offset, 0);
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
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) ck_pickle(cases[i].bytes, cases[i].size, cases[i].message);
    char deep[200];
    memset(deep, '(', sizeof deep);
    ck_pickle(deep, sizeof deep, "nested too deeply");
    uint8_t bytes[16384];
    size_t size = read_vector("hostile.pkl", bytes, sizeof bytes);
    ck_pickle((char *)bytes, size, ".system");
    size = read_vector("protocol5.pkl", bytes, sizeof bytes);
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
    memory.peak = 0;
    ck_pickle(bomb, n, "too much text to decode");
    ck_assert_uint_lt(memory.peak, 16 << 20);
    memset(bomb, ']', size);
    ck_pickle(bomb, size, "truncated");
    ck_assert_uint_lt(memory.peak, 256 << 20);
    free(bomb);
}
END_TEST

static void ck_batch_refused(const uint8_t *bytes, size_t size, const char *message) {
    fv_dataset *d;
    fvt_put_file(in_folder("test_batch"), bytes, size);
    ck_refused(open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "test_batch", message);
}

START_TEST(test_bad_python_batches) {
    uint8_t bytes[16384];
    size_t size = read_vector("python2.pkl", bytes, sizeof bytes);
    uint8_t *labels = memmem(bytes, size, "]q\x05(K", 5);
    ck_assert_ptr_nonnull(labels);
    labels[5] = 10;
    ck_batch_refused(bytes, size, "label of record 0 is 10");
    labels[4] = 'N', labels[5] = 'N'; /* None, None, then the second label: three labels */
    ck_batch_refused(bytes, size, "2 images, but 3 labels");
    size = read_vector("python2.pkl", bytes, sizeof bytes);
    ((uint8_t *)memmem(bytes, size, "labels", 6))[0] = 'L';
    ck_batch_refused(bytes, size, "keys 'data' and 'labels'");
    size = read_vector("python2.pkl", bytes, sizeof bytes);
    uint8_t *shape = memmem(bytes, size, "K\x02M\x00\x0c", 5);
    shape[1] = 3;
    ck_batch_refused(bytes, size, "shape and bytes disagree");
    ck_batch_refused((const uint8_t *)"N.", 2, "keys 'data' and 'labels'");
    ck_batch_refused((const uint8_t *)"", 0, "truncated");
}
END_TEST

/* ---------------------------------------------------------------- every truncation, every flip: an error or a valid set */

static int64_t opened, refused;

static void try_open(const char *set) {
    fv_dataset *d;
    fv_status status = open_set(set, FV_SPLIT_TEST, &d);
    if (status == FV_OK) {
        opened++;
        for (int64_t i = 0; i < d->count; i++) ck_assert(d->labels[i] >= 0 && d->labels[i] < d->classes);
        ck_assert_uint_eq(d->fingerprint, fv_dataset_hash(d));
        fv_dataset_free(d);
        return;
    }
    refused++;
    ck_assert_msg(status == FV_E_DATA, "status %d: %s", (int)status, ctx.error.message);
    ck_assert(ctx.error.message[0] && ctx.error.path[0]);
    ck_assert_int_eq(memory.live, 0);
}

/* Every truncation; in the first and last `edge` bytes every flip of a bit, between them one of each byte at distance `step`. */
static void damage(const char *path, const char *set, const uint8_t *bytes, size_t size, size_t edge, size_t step) {
    uint8_t copy[16384];
    opened = refused = 0;
    memory.peak = 0;
    for (size_t n = 0; n < size; n += size > 1024 && n > edge && n + edge < size ? step : 1) {
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
    ck_assert_uint_lt(memory.peak, 64 << 20);
}

START_TEST(test_damaged_cifar) {
    uint8_t bytes[2 * 3073];
    damage(in_folder("test_batch.bin"), "cifar10", bytes, cifar_bytes(bytes, 0, 2, 1), 16, 61);
    ck_assert_int_gt(opened, 0);
}
END_TEST

START_TEST(test_damaged_idx) {
    uint8_t images[256], labels[64], gz[512];
    make_dirs("mnist");
    size_t n_images = idx_images(images, 3, 3, 2), n_labels = idx_labels(labels, 3);
    char image_path[512], label_path[512];
    snprintf(image_path, sizeof image_path, "%s", in_folder("mnist/t10k-images-idx3-ubyte"));
    snprintf(label_path, sizeof label_path, "%s", in_folder("mnist/t10k-labels-idx1-ubyte"));
    fvt_put_file(label_path, labels, n_labels);
    damage(image_path, "mnist", images, n_images, 4096, 1);
    fvt_put_file(image_path, images, n_images);
    damage(label_path, "mnist", labels, n_labels, 4096, 1);
    fvt_put_file(label_path, labels, n_labels);
    damage(image_path, "mnist", gz, gzip(images, n_images, gz, sizeof gz), 4096, 1);
    fvt_put_file(image_path, images, n_images);
    damage(label_path, "mnist", gz, gzip(labels, n_labels, gz, sizeof gz), 4096, 1);
}
END_TEST

START_TEST(test_damaged_pickle) {
    uint8_t bytes[16384];
    size_t size = read_vector(pickles[_i], bytes, sizeof bytes);
    damage(in_folder("test_batch"), "cifar10", bytes, size, 320, 97);
}
END_TEST

/* ---------------------------------------------------------------- failing memory and files */

/* Every allocation of opening a set fails once. */
static void fail_each_allocation(const char *set) {
    fv_dataset *d;
    for (int64_t n = 1;; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        fv_status status = open_set(set, FV_SPLIT_TEST, &d);
        bool reached = memory.calls >= n;
        memory.fail_at = 0;
        if (!reached) {
            ck_assert_int_eq(status, FV_OK);
            fv_dataset_free(d);
            return;
        }
        ck_assert_msg(status == FV_E_MEMORY, "allocation %lld: status %d: %s", (long long)n, (int)status, ctx.error.message);
        ck_assert_int_eq(memory.live, 0);
        ck_assert_int_lt(n, 10000);
    }
}

/* Every read, open and size call fails once, with EIO; reads may also be short or interrupted. */
static void fail_each_call(const char *set) {
    fv_dataset *d;
    static const fvt_call calls[] = {FVT_OPEN, FVT_READ, FVT_SIZE};
    for (int c = 0; c < 3; c++)
        for (int64_t n = 1; n < 100; n++) {
            fvt_files_install(&files, &ctx);
            files.fail = calls[c];
            files.fail_at = n;
            fv_status status = open_set(set, FV_SPLIT_TEST, &d);
            bool reached = files.calls[calls[c]] >= n;
            /* a probe that fails may lead to another name or to "not found" */
            if (status == FV_OK) fv_dataset_free(d);
            else ck_assert_msg(status == FV_E_IO || status == FV_E_DATA, "status %d: %s", (int)status, ctx.error.message);
            if (calls[c] == FVT_READ && reached) ck_assert_int_eq(status, FV_E_IO);
            ck_assert_int_eq(files.open_files, 0);
            if (!reached) break;
        }
    fvt_files_install(&files, &ctx);
    files.short_by = 1000;
    ck_assert_int_eq(open_set(set, FV_SPLIT_TEST, &d), FV_OK);
    fv_dataset_free(d);
    fvt_files_install(&files, &ctx);
    files.fail = FVT_READ, files.fail_at = 1, files.times = 3, files.error = EINTR;
    ck_assert_int_eq(open_set(set, FV_SPLIT_TEST, &d), FV_OK);
    fv_dataset_free(d);
}

START_TEST(test_failing_system) {
    uint8_t bytes[16384];
    put_cifar10(".");
    fail_each_allocation("cifar10");
    fail_each_call("cifar10");
    unlink(in_folder("test_batch.bin"));
    for (int i = 1; i <= 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", i);
        unlink(in_folder(name));
    }
    size_t size = read_vector("protocol2.pkl", bytes, sizeof bytes);
    fvt_put_file(in_folder("test_batch"), bytes, size);
    fail_each_allocation("cifar10");
    fail_each_call("cifar10");
    make_dirs("mnist");
    put_idx("mnist/t10k-images-idx3-ubyte.gz", "mnist/t10k-labels-idx1-ubyte.gz", true, 7);
    fail_each_allocation("mnist");
    fail_each_call("mnist");
    fail_each_allocation("synthetic");
}
END_TEST

/* ---------------------------------------------------------------- real data */

START_TEST(test_real_sets) {
    char path[512];
    fv_dataset *d;
    double mean[3], std[3];
    const char *root = getenv("FVT_REAL_DATA");
    const fv_dataset_opts opts = {.root = root};
    snprintf(path, sizeof path, "%s/cifar10/data_batch_1.bin", root ? root : "");
    if (!root || access(path, R_OK) != 0) {
        fprintf(stderr, "test_real_sets: SKIPPED: no cifar10 in $FOVEA_DATA\n");
    } else {
        ck_assert_int_eq(fv_dataset_open(&ctx, "cifar10", FV_SPLIT_TRAIN, &opts, &d), FV_OK);
        ck_assert_int_eq(d->count, 50000);
        fv_dataset_stats(d, NULL, 0, mean, std); /* published: .4914 .4822 .4465, .2470 .2435 .2616; JPEG copies: near */
        ck_assert(fabs(mean[0] - 0.4914) < 1e-3 && fabs(mean[1] - 0.4822) < 1e-3 && fabs(mean[2] - 0.4465) < 1e-3);
        ck_assert(fabs(std[0] - 0.2470) < 3e-3 && fabs(std[1] - 0.2435) < 3e-3 && fabs(std[2] - 0.2616) < 3e-3);
        fv_dataset_free(d);
        ck_assert_int_eq(fv_data_check(&ctx, "cifar10", root), FV_OK);
        /* what is there and in order is not fetched: no server listens at this address */
        const fv_get_opts get = {.root = root, .mirrors = (const char *const[]){"http://127.0.0.1:9/", NULL}};
        ck_assert_int_eq(fv_data_get(&ctx, "cifar10", &get), FV_OK);
    }
    snprintf(path, sizeof path, "%s/mnist", root ? root : "");
    if (!root || access(path, R_OK) != 0) {
        fprintf(stderr, "test_real_sets: SKIPPED: no mnist in $FOVEA_DATA\n");
        return;
    }
    ck_assert_int_eq(fv_dataset_open(&ctx, "mnist", FV_SPLIT_TRAIN, &opts, &d), FV_OK);
    ck_assert(d->count == 60000 && d->h == 28 && d->c == 1 && d->labels[0] == 5);
    fv_dataset_stats(d, NULL, 0, mean, std);
    ck_assert(fabs(mean[0] - 0.1307) < 1e-4 && fabs(std[0] - 0.3081) < 1e-4); /* as published */
    fv_dataset_free(d);
    ck_assert_int_eq(fv_data_check(&ctx, "mnist", root), FV_OK);
}
END_TEST

static void real_setup(void) {
    const char *root = getenv("FOVEA_DATA");
    if (root) setenv("FVT_REAL_DATA", root, 1);
    setup();
}

Suite *data_suite(void) {
    Suite *suite = suite_create("data");
    TCase *tcase = tcase_create("formats");
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_cifar10_binary, 0, sizeof cifar10_places / sizeof *cifar10_places);
    tcase_add_test(tcase, test_cifar10_names);
    tcase_add_test(tcase, test_cifar100_binary);
    tcase_add_loop_test(tcase, test_cifar10_python, 0, sizeof pickles / sizeof *pickles);
    tcase_add_loop_test(tcase, test_idx, 0, sizeof idx_cases / sizeof *idx_cases);
    tcase_add_test(tcase, test_locate);
    tcase_add_loop_test(tcase, test_stats, 0, 6);
    tcase_add_test(tcase, test_split);
    tcase_add_test(tcase, test_synthetic);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("bad input");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
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
    tcase = tcase_create("real data");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, real_setup, teardown);
    tcase_add_test(tcase, test_real_sets);
    suite_add_tcase(suite, tcase);
    return suite;
}
