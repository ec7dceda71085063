/* test_data.c: reading datasets: round trips of every format, where they are looked for, the split, statistics, the
 * synthetic set. */
#include "tests/data_sets.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Suite *data_suite(void);

/* ---------------------------------------------------------------- round trips */

static const char *const cifar10_places[] = {".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"};

START_TEST(test_cifar10_binary) {
    fv_dataset *d;
    fvt_make_dirs(cifar10_places[_i]);
    fvt_put_cifar10(cifar10_places[_i]);
    ck_assert_int_eq(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_cifar_records(d, 10);
    ck_assert_str_eq(d->name, "cifar10");
    ck_assert_int_eq(d->classes, 10);
    ck_assert_str_eq(d->class_names[9], "truck");
    fv_dataset_free(d);
    ck_assert_int_eq(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    fvt_ck_cifar_records(d, 2);
    fv_dataset_free(d);
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, fvt_in_folder(cifar10_places[_i]), FV_SPLIT_TEST, NULL, &d),
                     FV_OK); /* by path */
    ck_assert_str_eq(d->name, "cifar10");
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_cifar10_names) {
    fv_dataset *d;
    static const char names[] = "a\nb\nc\nd\ne\nf\ng\nh\ni\r\njot\n\n";
    fvt_put_cifar10(".");
    fvt_put_file(fvt_in_folder("batches.meta.txt"), names, sizeof names - 1);
    ck_assert_int_eq(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    ck_assert_str_eq(d->class_names[8], "i");
    ck_assert_str_eq(d->class_names[9], "jot");
    fv_dataset_free(d);
    fvt_put_file(fvt_in_folder("batches.meta.txt"), names, 8);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "batches.meta.txt", "4 class names; 10");
    fvt_put_file(fvt_in_folder("batches.meta.txt"), "a\tb\n", 4);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_E_DATA, "batches.meta.txt", "control character");
}
END_TEST

START_TEST(test_cifar100_binary) {
    fv_dataset *d;
    uint8_t bytes[3 * 3074];
    fvt_make_dirs("cifar100/cifar-100-binary");
    size_t size = fvt_cifar_bytes(bytes, 0, 3, 2);
    fvt_put_file(fvt_in_folder("cifar100/cifar-100-binary/train.bin"), bytes, size);
    ck_assert_int_eq(fvt_open_set("cifar100", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_cifar_records(d, 3);
    ck_assert_int_eq(d->classes, 100);
    ck_assert_str_eq(d->class_names[0], "apple");
    ck_assert_str_eq(d->class_names[99], "worm");
    fv_dataset_free(d);
    fvt_ck_refused(fvt_open_set("cifar100", FV_SPLIT_TEST, &d), FV_E_DATA, "cifar-100-binary/test.bin", "no such file");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "fovea data get"));
}
END_TEST

START_TEST(test_cifar10_python) {
    fv_dataset *d;
    uint8_t bytes[16384];
    size_t size = fvt_read_pickle(fvt_pickles[_i], bytes, sizeof bytes);
    fvt_make_dirs("cifar-10-batches-py");
    fvt_put_file(fvt_in_folder("cifar-10-batches-py/test_batch"), bytes, size);
    ck_assert_msg(fvt_open_set("cifar10", FV_SPLIT_TEST, &d) == FV_OK, "%s: %s", fvt_pickles[_i],
                  fvt_sets.ctx.error.message);
    fvt_ck_cifar_records(d, 2);
    ck_assert_str_eq(d->class_names[0], "airplane");
    fv_dataset_free(d);
    size = fvt_read_pickle("meta.pkl", bytes, sizeof bytes);
    fvt_put_file(fvt_in_folder("cifar-10-batches-py/batches.meta"), bytes, size);
    ck_assert_int_eq(fvt_open_set("cifar10", FV_SPLIT_TEST, &d), FV_OK);
    ck_assert_str_eq(d->class_names[9], "name 9");
    fv_dataset_free(d);
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, "data_batch_1", "no such file");
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
    fvt_make_dirs(idx_cases[_i].below);
    fvt_put_idx(idx_cases[_i].images, idx_cases[_i].labels, idx_cases[_i].packed, 7);
    const char *name = idx_cases[_i].set ? idx_cases[_i].set : fvt_in_folder(idx_cases[_i].below);
    ck_assert_msg(fvt_open_set(name, FV_SPLIT_TRAIN, &d) == FV_OK, "%s: %s", fvt_sets.ctx.error.path,
                  fvt_sets.ctx.error.message);
    ck_assert(d->count == 7 && d->h == 5 && d->w == 4 && d->c == 1 && d->classes == 10 - (idx_cases[_i].set == NULL));
    for (int i = 0; i < 7 * 20; i++) ck_assert_uint_eq(d->images[i], (uint8_t)(3 * i));
    for (int i = 0; i < 7; i++) ck_assert_int_eq(d->labels[i], fvt_label_of(i));
    ck_assert_str_eq(d->class_names[0], strncmp(name, "fashion", 7) == 0 ? "T-shirt/top" : "0");
    ck_assert_str_eq(d->name, idx_cases[_i].set ? idx_cases[_i].set : "digits");
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_locate) {
    fv_dataset *d;
    fvt_ck_refused(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_E_DATA, NULL, "data_batch_1.bin");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, fvt_sets.folder));
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "fovea data get cifar10"));
    fvt_ck_refused(fvt_open_set("CIFAR-10", FV_SPLIT_TRAIN, &d), FV_E_DATA, NULL, "no dataset is called");
    ck_assert_str_eq(fvt_sets.ctx.error.hint, "did you mean 'cifar10'?");
    fvt_ck_refused(fvt_open_set(fvt_sets.folder, FV_SPLIT_TRAIN, &d), FV_E_DATA, fvt_sets.folder, "holds no dataset");
    fvt_put_file(fvt_in_folder("plain"), "x", 1);
    fvt_ck_refused(fvt_open_set(fvt_in_folder("plain"), FV_SPLIT_TRAIN, &d), FV_E_DATA, "plain", "not a folder");
    /* an incomplete folder does not hide a complete one */
    fvt_make_dirs("cifar10");
    fvt_put_cifar10("cifar10");
    uint8_t record[3073];
    fvt_put_file(fvt_in_folder("data_batch_1.bin"), record, fvt_cifar_bytes(record, 0, 1, 1));
    ck_assert_int_eq(fvt_open_set("cifar10", FV_SPLIT_TRAIN, &d), FV_OK);
    ck_assert_int_eq(d->count, 10);
    fv_dataset_free(d);
    setenv("FOVEA_DATA", fvt_sets.folder, 1);
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "cifar10", FV_SPLIT_TEST, NULL, &d), FV_OK);
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
    for (size_t i = 0; i < 40 * picture; i++) images[i] = i % 7 ? (uint8_t)(i * 2654435761u >> 13) : 255;
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
    fv_dataset d = {.ctx = &fvt_sets.ctx, .count = 1000, .classes = 7, .labels = labels};
    int64_t per_class[7] = {0}, *train, *val, *again, n_train, n_val, n;
    for (int i = 0; i < 1000; i++) per_class[labels[i] = i % 3 ? i % 7 : 2]++;
    static const double fractions[] = {0.0, 0.1, 0.1234, 0.5, 0.0001, 0.9994};
    for (size_t f = 0; f < sizeof fractions / sizeof *fractions; f++) {
        fv_arena arena;
        fv_arena_init(&arena, &fvt_sets.ctx);
        ck_assert_int_eq(
            fv_split_validation(&fvt_sets.ctx, &arena, &d, fractions[f], 5, &train, &n_train, &val, &n_val), FV_OK);
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
        for (int k = 0; k < 7; k++)
            ck_assert_double_le(fabs((double)held[k] - fractions[f] * (double)per_class[k]), 1.0);
        ck_assert_int_eq(fv_split_validation(&fvt_sets.ctx, &arena, &d, fractions[f], 5, &train, &n_train, &again, &n),
                         FV_OK);
        ck_assert_mem_eq(val, again, (size_t)n * sizeof *val);
        if (fractions[f] == 0.1) {
            fv_split_validation(&fvt_sets.ctx, &arena, &d, fractions[f], 6, &train, &n_train, &again, &n);
            ck_assert(memcmp(val, again, (size_t)n * sizeof *val) != 0);
        }
        fv_arena_free(&arena);
    }
    static const double wrong[] = {-0.1, 1.0, 2.0, NAN, 0.9999};
    for (size_t f = 0; f < sizeof wrong / sizeof *wrong; f++) {
        fv_arena arena;
        fv_arena_init(&arena, &fvt_sets.ctx);
        ck_assert_int_eq(fv_split_validation(&fvt_sets.ctx, &arena, &d, wrong[f], 5, &train, &n_train, &val, &n_val),
                         FV_E_USAGE);
        fv_arena_free(&arena);
    }
}
END_TEST

/* Share of the test pictures whose nearest class mean is the right one: far from chance, far from perfect. */
START_TEST(test_synthetic) {
    fv_dataset *train, *test, *again;
    const fv_dataset_opts opts = {.seed = 3};
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TRAIN, &opts, &train), FV_OK);
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TEST, &opts, &test), FV_OK);
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TEST, &opts, &again), FV_OK);
    ck_assert(train->count == 4096 && test->count == 1024 && train->classes == 10 && train->c == 3);
    ck_assert_uint_eq(test->fingerprint, again->fingerprint);
    ck_assert_uint_ne(test->fingerprint, train->fingerprint);
    fv_dataset_free(again);
    const fv_dataset_opts other = {.seed = 4};
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TEST, &other, &again), FV_OK);
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
    ck_assert_msg(share > 0.35 && share < 0.9, "nearest mean is right for %.3f", share);
    fv_dataset_free(train);
    fv_dataset_free(test);
    const fv_dataset_opts shaped = {.synthetic_count = 9, .img_size = 17, .in_chans = 5, .classes = 4};
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TRAIN, &shaped, &train), FV_OK);
    ck_assert(train->count == 9 && train->h == 17 && train->w == 17 && train->c == 5 && train->classes == 4);
    fv_dataset_free(train);
    static const fv_dataset_opts wrong[] = {
        {.synthetic_count = -1}, {.img_size = -1}, {.in_chans = 99}, {.classes = -2}};
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "synthetic", FV_SPLIT_TRAIN, &wrong[i], &train), FV_E_USAGE);
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
        ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "cifar10", FV_SPLIT_TRAIN, &opts, &d), FV_OK);
        ck_assert_int_eq(d->count, 50000);
        fv_dataset_stats(d, NULL, 0, mean,
                         std); /* published: .4914 .4822 .4465, .2470 .2435 .2616; JPEG copies: near */
        ck_assert(fabs(mean[0] - 0.4914) < 1e-3 && fabs(mean[1] - 0.4822) < 1e-3 && fabs(mean[2] - 0.4465) < 1e-3);
        ck_assert(fabs(std[0] - 0.2470) < 3e-3 && fabs(std[1] - 0.2435) < 3e-3 && fabs(std[2] - 0.2616) < 3e-3);
        fv_dataset_free(d);
        ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, "cifar10", root), FV_OK);
        /* what is there and in order is not fetched: no server listens at this address */
        const fv_get_opts get = {.root = root, .mirrors = (const char *const[]){"http://127.0.0.1:9/", NULL}};
        ck_assert_int_eq(fv_data_get(&fvt_sets.ctx, "cifar10", &get), FV_OK);
    }
    snprintf(path, sizeof path, "%s/mnist", root ? root : "");
    if (!root || access(path, R_OK) != 0) {
        fprintf(stderr, "test_real_sets: SKIPPED: no mnist in $FOVEA_DATA\n");
        return;
    }
    ck_assert_int_eq(fv_dataset_open(&fvt_sets.ctx, "mnist", FV_SPLIT_TRAIN, &opts, &d), FV_OK);
    ck_assert(d->count == 60000 && d->h == 28 && d->c == 1 && d->labels[0] == 5);
    fv_dataset_stats(d, NULL, 0, mean, std);
    ck_assert(fabs(mean[0] - 0.1307) < 1e-4 && fabs(std[0] - 0.3081) < 1e-4); /* as published */
    fv_dataset_free(d);
    ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, "mnist", root), FV_OK);
}
END_TEST

static void real_setup(void) {
    const char *root = getenv("FOVEA_DATA");
    if (root) setenv("FVT_REAL_DATA", root, 1);
    fvt_sets_setup();
}

Suite *data_suite(void) {
    Suite *suite = suite_create("data");
    TCase *tcase = tcase_create("formats");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fvt_sets_setup, fvt_sets_teardown);
    tcase_add_loop_test(tcase, test_cifar10_binary, 0, sizeof cifar10_places / sizeof *cifar10_places);
    tcase_add_test(tcase, test_cifar10_names);
    tcase_add_test(tcase, test_cifar100_binary);
    tcase_add_loop_test(tcase, test_cifar10_python, 0, FVT_PICKLES);
    tcase_add_loop_test(tcase, test_idx, 0, sizeof idx_cases / sizeof *idx_cases);
    tcase_add_test(tcase, test_locate);
    tcase_add_loop_test(tcase, test_stats, 0, 6);
    tcase_add_test(tcase, test_split);
    tcase_add_test(tcase, test_synthetic);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("real data");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, real_setup, fvt_sets_teardown);
    tcase_add_test(tcase, test_real_sets);
    suite_add_tcase(suite, tcase);
    return suite;
}
