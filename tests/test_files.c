/* test_files.c: folders of pictures as datasets: what is found, how it is divided, and what is refused. */
#include "tests/file_sets.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *files_suite(void);

/* ---------------------------------------------------------------- folders */

static void ck_file(const fv_dataset *d, int64_t i, const char *path, const char *class_name, fv_part part) {
    ck_assert_str_eq(fv_dataset_file(d, i), path);
    ck_assert_str_eq(d->class_names[d->labels[i]], class_name);
    ck_assert_int_eq(d->part[i], part);
}

static const char *const val_names[] = {"val", "valid", "validation", "Validation"};

START_TEST(test_divided_folder) {
    char name[128];
    fvt_put_text("set/train/dog/2.jpg", "22");
    fvt_put_text("set/train/dog/1.JPEG", "1");
    fvt_put_text("set/train/dog-1/a.png", "333");
    fvt_put_text("set/train/cat/deep/er/x.webp", "4444");
    fvt_put_text("set/test/cat/t.jpg", "");
    snprintf(name, sizeof name, "set/%s/dog/v.jpg", val_names[_i]);
    fvt_put_text(name, "5");
    /* what does not count */
    fvt_put_text("set/train/dog/.hidden.jpg", "x");
    fvt_put_text("set/train/.git/x/1.jpg", "x");
    fvt_put_text("set/train/__MACOSX/dog/1.jpg", "x");
    fvt_put_text("set/train/dog/Thumbs.db", "x");
    fvt_put_text("set/train/dog/notes.txt", "x");
    fvt_put_text("set/train/dog/a.txt", "x");
    fvt_put_text("set/train/loose.jpg", "x");
    fvt_put_text("set/readme.md", "x");
    fvt_put_text("set/extra/x.jpg", "x");
    fvt_make_dirs("set/train/empty");
    fv_dataset *d = fvt_opened("set/", &fvt_plain);
    ck_assert_int_eq(d->count, 6);
    ck_assert_int_eq(d->classes, 3);
    ck_assert_str_eq(d->class_names[0], "cat");
    ck_assert_str_eq(d->class_names[1], "dog");
    ck_assert_str_eq(d->class_names[2], "dog-1");
    bool upper = val_names[_i][0] == 'V'; /* strcmp sorts it in front */
    int at = upper ? 1 : 0;
    ck_file(d, at++, "test/cat/t.jpg", "cat", FV_PART_TEST);
    ck_file(d, at++, "train/cat/deep/er/x.webp", "cat", FV_PART_TRAIN);
    ck_file(d, at++, "train/dog-1/a.png", "dog-1", FV_PART_TRAIN);
    ck_file(d, at++, "train/dog/1.JPEG", "dog", FV_PART_TRAIN);
    ck_file(d, at++, "train/dog/2.jpg", "dog", FV_PART_TRAIN);
    snprintf(name, sizeof name, "%s/dog/v.jpg", val_names[_i]);
    ck_file(d, upper ? 0 : at, name, "dog", FV_PART_VAL);
    ck_assert_int_eq(d->files->bytes[fvt_find_file(d, "train/cat/deep/er/x.webp")], 4);
    ck_assert(d->has_part[FV_PART_TRAIN] && d->has_part[FV_PART_VAL] && d->has_part[FV_PART_TEST]);
    ck_assert(d->h == 8 && d->w == 8 && d->c == 3 && !d->images && !d->targets);
    ck_assert_str_eq(d->name, "set");
    ck_assert_str_eq(d->files->root, fvt_in_folder("set"));
    ck_assert_ptr_nonnull(strstr(fvt_log, ": 3 files are no pictures and are left out, e.g. readme.md\n"));
    ck_assert_ptr_nonnull(strstr(fvt_log, "W "));
    ck_assert_ptr_nonnull(strstr(fvt_log, "train/loose.jpg: a picture lies outside the class folders"));
    ck_assert_ptr_nonnull(strstr(fvt_log, "train/empty holds no pictures"));
    ck_assert_ptr_nonnull(strstr(fvt_log, "beside train: extra"));
    fv_dataset_free(d);
}
END_TEST

/* Whatever order files were made in, and wherever the folder is. */
START_TEST(test_same_set) {
    char name[64];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "one/%c/%d.jpg", 'a' + i % 3, i);
        fvt_put_text(name, "x");
        snprintf(name, sizeof name, "two/%c/%d.jpg", 'a' + (199 - i) % 3, 199 - i);
        fvt_put_text(name, "x");
    }
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.1, .test_split = 0.2};
    fv_dataset *one = fvt_opened("one", &opts), *two = fvt_opened("two", &opts);
    ck_assert_uint_eq(one->fingerprint, two->fingerprint);
    ck_assert_mem_eq(one->part, two->part, 200);
    for (int64_t i = 0; i < 200; i++) ck_assert_str_eq(fv_dataset_file(one, i), fv_dataset_file(two, i));
    fv_dataset_free(two);
    fvt_put_text("two/a/0.jpg", "xx"); /* another size */
    two = fvt_opened("two", &opts);
    ck_assert_uint_ne(one->fingerprint, two->fingerprint);
    fv_dataset_free(two);
    const fv_dataset_opts other = {.img_size = 8, .val_split = 0.1, .test_split = 0.1}; /* other parts */
    two = fvt_opened("one", &other);
    ck_assert_uint_ne(one->fingerprint, two->fingerprint);
    fv_dataset_free(two);
    fv_dataset_free(one);
    ck_assert_int_eq(rename(fvt_in_folder("one/c"), fvt_in_folder("one/d")), 0); /* another class name */
    one = fvt_opened("one", &fvt_plain);
    two = fvt_opened("two", &fvt_plain);
    ck_assert_uint_ne(one->fingerprint, two->fingerprint);
    fv_dataset_free(one);
    fv_dataset_free(two);
}
END_TEST

START_TEST(test_parts_by_hash) {
    static const int sizes[] = {1, 2, 3, 4, 5, 15, 100, 257};
    const int classes = sizeof sizes / sizeof *sizes;
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.1, .test_split = 0.2};
    char name[64];
    for (int k = 0; k < classes; k++) {
        snprintf(name, sizeof name, "set/k%d", k);
        fvt_put_many(name, 0, sizes[k]);
    }
    fv_dataset *d = fvt_opened("set", &opts), *more;
    ck_assert(!d->has_part[FV_PART_TRAIN] && !d->has_part[FV_PART_VAL] && !d->has_part[FV_PART_TEST]);
    for (int k = 0; k < classes; k++) {
        int64_t test = (int64_t)floor(0.2 * sizes[k] + 0.5), val = (int64_t)floor(0.1 * sizes[k] + 0.5);
        ck_assert_int_eq(fvt_in_part(d, k, FV_PART_TEST), test);
        ck_assert_int_eq(fvt_in_part(d, k, FV_PART_VAL), val);
        ck_assert_int_eq(fvt_in_part(d, k, FV_PART_TRAIN), sizes[k] - test - val);
    }
    /* a picture in twenty more: few change their part, and only at the borders */
    fvt_put_many("set/k7", 1000, 13);
    more = fvt_opened("set", &opts);
    int64_t changed = 0;
    for (int64_t i = 0; i < d->count; i++)
        changed += d->part[i] != more->part[fvt_find_file(more, fv_dataset_file(d, i))];
    ck_assert_int_le(changed, 13);
    fv_dataset_free(more);
    /* small classes keep a picture in train, whatever is asked for */
    const fv_dataset_opts greedy = {.img_size = 8, .val_split = 0.5, .test_split = 0.49};
    more = fvt_opened("set", &greedy);
    for (int k = 0; k < classes; k++) ck_assert_int_ge(fvt_in_part(more, k, FV_PART_TRAIN), 1);
    ck_assert_int_eq(fvt_in_part(more, 1, FV_PART_TEST), 1);
    fv_dataset_free(more);
    more = fvt_opened("set", &fvt_plain);
    ck_assert_int_eq(fvt_in_part(more, -1, FV_PART_TRAIN), more->count);
    fv_dataset_free(more);
    /* the arrays that training takes */
    fv_arena arena;
    int64_t *train, *val, n_train, n_val;
    fv_arena_init(&arena, &fvt_sets.ctx);
    ck_assert_int_eq(fv_split_validation(&fvt_sets.ctx, &arena, d, 0.5, 7, &train, &n_train, &val, &n_val), FV_OK);
    ck_assert_int_eq(n_train, fvt_in_part(d, -1, FV_PART_TRAIN));
    ck_assert_int_eq(n_val, fvt_in_part(d, -1, FV_PART_VAL));
    for (int64_t i = 0; i < n_train; i++) ck_assert_int_eq(d->part[train[i]], FV_PART_TRAIN);
    for (int64_t i = 0; i < n_val; i++) ck_assert_int_eq(d->part[val[i]], FV_PART_VAL);
    fv_arena_free(&arena);
    fv_dataset_free(d);
}
END_TEST

/* The choice is part of what users rely on: it must not change between versions. */
START_TEST(test_frozen_choice) {
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.2, .test_split = 0.2};
    fvt_put_many("set/a", 0, 10);
    fvt_put_many("set/b", 0, 10);
    fv_dataset *d = fvt_opened("set", &opts);
    char parts[32] = "";
    for (int64_t i = 0; i < d->count; i++) parts[i] = "-vt"[d->part[i]];
    fv_dataset_free(d);
    ck_assert_str_eq(parts, "v-t-t----v-vtt---v--");
}
END_TEST

/* train without val: val comes out of train, test stays as it is and nothing else is made one. */
START_TEST(test_carved_validation) {
    fvt_put_many("set/train/a", 0, 40);
    fvt_put_many("set/train/b", 0, 20);
    fvt_put_many("set/test/a", 0, 7);
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.1, .test_split = 0.3};
    fv_dataset *d = fvt_opened("set", &opts);
    ck_assert_int_eq(fvt_in_part(d, 0, FV_PART_VAL), 4);
    ck_assert_int_eq(fvt_in_part(d, 1, FV_PART_VAL), 2);
    ck_assert_int_eq(fvt_in_part(d, -1, FV_PART_TEST), 7);
    ck_assert(d->has_part[FV_PART_TRAIN] && !d->has_part[FV_PART_VAL] && d->has_part[FV_PART_TEST]);
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == FV_PART_VAL) ck_assert_int_eq(strncmp(fv_dataset_file(d, i), "train/", 6), 0);
    fv_dataset_free(d);
    fvt_put_many("only/train/a", 0, 10);
    fvt_put_many("only/train/b", 0, 10);
    fvt_make_dirs("only/test/a");
    d = fvt_opened("only", &opts);
    ck_assert_int_eq(fvt_in_part(d, -1, FV_PART_TEST), 0);
    ck_assert(!d->has_part[FV_PART_TEST]);
    ck_assert_ptr_nonnull(strstr(fvt_log, "only/test holds no class folders with pictures"));
    fv_dataset_free(d);
    fvt_put_many("small/train/a", 0, 3);
    fvt_put_many("small/train/b", 0, 3);
    d = fvt_opened("small", &opts);
    ck_assert_ptr_nonnull(strstr(fvt_log, "fell to val"));
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_links) {
    fvt_put_text("elsewhere/roses/r.jpg", "1");
    fvt_put_text("elsewhere/one.png", "22");
    fvt_put_text("set/tulip/t.jpg", "x");
    ck_assert_int_eq(symlink("../elsewhere/roses", fvt_in_folder("set/rose")), 0);
    ck_assert_int_eq(symlink("../../elsewhere/one.png", fvt_in_folder("set/tulip/link.png")), 0);
    ck_assert_int_eq(mkfifo(fvt_in_folder("set/tulip/fifo.jpg"), 0600), 0);
    fv_dataset *d = fvt_opened("set", &fvt_plain); /* at once: the FIFO is not opened */
    ck_assert_int_eq(d->count, 3);
    ck_file(d, 0, "rose/r.jpg", "rose", FV_PART_TRAIN);
    ck_assert_int_eq(d->files->bytes[fvt_find_file(d, "tulip/link.png")], 2);
    ck_assert_ptr_nonnull(strstr(fvt_log, "tulip/fifo.jpg: a file is no picture"));
    fv_dataset_free(d);
    const char *bad = fvt_in_folder("set/tulip/more");
    char path[FV_DATA_PATH];
    snprintf(path, sizeof path, "%s", bad);
    ck_assert_int_eq(symlink("..", path), 0);
    fvt_refused("set", &fvt_plain, FV_E_DATA, "set/tulip/more", "a link that leads back to a folder above it");
    unlink(path);
    ck_assert_int_eq(symlink("more", path), 0);
    fvt_refused("set", &fvt_plain, FV_E_DATA, "set/tulip/more", "a link that leads back to itself");
    unlink(path);
    ck_assert_int_eq(symlink("nowhere", path), 0);
    fvt_refused("set", &fvt_plain, FV_E_DATA, "set/tulip/more", "a link to something that is not there");
    unlink(path);
    char deep[200] = "set/tulip";
    for (int i = 0; i < 33; i++) strcat(deep, "/d");
    fvt_make_dirs(deep);
    fvt_refused("set", &fvt_plain, FV_E_DATA, "set/tulip/d/d", "nested more than 32 deep");
}
END_TEST

START_TEST(test_bad_folders) {
    fv_dataset *d;
    fvt_make_dirs("empty/a/b");
    fvt_refused("empty", &fvt_plain, FV_E_DATA, "empty", "holds no pictures: 2 folders, all empty");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "train/CLASS/x.jpg"));
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "ROOT/CLASS/x.jpg"));
    fvt_put_text("empty/a/z.txt", "x");
    fvt_put_text("empty/a/b/y.gif", "x");
    fvt_refused("empty", &fvt_plain, FV_E_DATA, "empty", "the first of 2 other files is a/b/y.gif");
    fvt_put_text("loose/1.jpg", "x");
    fvt_refused("loose", &fvt_plain, FV_E_DATA, "loose", "its pictures (the first is 1.jpg) are not in class folders");
    fvt_put_text("one/flowers/rose/1.jpg", "x");
    fvt_refused("one", &fvt_plain, FV_E_DATA, "one", "only one class, 'flowers'");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "one/flowers"));
    fvt_put_many("twice/train/a", 0, 2);
    fvt_put_many("twice/val/a", 0, 2);
    fvt_put_many("twice/valid/a", 0, 2);
    fvt_refused("twice", &fvt_plain, FV_E_DATA, "twice", "both 'va");
    fvt_put_many("new/train/a", 0, 2);
    fvt_put_many("new/train/b", 0, 2);
    fvt_make_dirs("new/test/empty");
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "new/test/n%d", i);
        fvt_put_many(name, 0, 1);
    }
    fvt_refused("new", &fvt_plain, FV_E_DATA, "new/test",
                "5 classes without pictures in train: 'n0', 'n1', 'n2' and 2 more");
    fvt_put_many("untrained/test/a", 0, 2);
    fvt_put_many("untrained/val/a", 0, 2);
    fvt_refused("untrained", &fvt_plain, FV_E_DATA, "untrained", "holds 'val', but no 'train'");
    fvt_put_text("flat/train/1.jpg", "x");
    fvt_put_text("flat/test/2.jpg", "x");
    fvt_refused("flat", &fvt_plain, FV_E_DATA, "flat", "no class folders in 'train'");
    fvt_put_text("odd/a\xff/1.jpg", "x");
    fvt_refused("odd", &fvt_plain, FV_E_DATA, "odd", "is no UTF-8");
    fvt_put_text("control/a\033[31m/1.jpg", "x");
    fvt_refused("control", &fvt_plain, FV_E_DATA, "control", "holds a control character");
    if (getuid() != 0) { /* root reads everything */
        fvt_put_many("closed/a", 0, 1);
        fvt_put_many("closed/b", 0, 1);
        chmod(fvt_in_folder("closed/b"), 0);
        fvt_refused("closed", &fvt_plain, FV_E_IO, "closed/b", "cannot read the folder");
        chmod(fvt_in_folder("closed/b"), 0700);
    }
    /* a class may be called train */
    fvt_put_many("vehicles/train", 0, 2);
    fvt_put_many("vehicles/car", 0, 2);
    d = fvt_opened("vehicles", &fvt_plain);
    ck_assert_int_eq(d->classes, 2);
    ck_assert(!d->has_part[FV_PART_TRAIN]);
    fv_dataset_free(d);
}
END_TEST

/* A name of 250 bytes, twice as folder: the path gets too long. */
START_TEST(test_long_paths) {
    char long_name[251], name[700];
    memset(long_name, 'n', 250);
    long_name[250] = 0;
    fvt_put_many("set/a", 0, 1);
    snprintf(name, sizeof name, "%s/set/%s", fvt_sets.folder, long_name);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    strcat(name, "/");
    strcat(name, long_name);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    fvt_refused("set", &fvt_plain, FV_E_DATA, "set/nnn", "is longer than 511 bytes");
}
END_TEST

START_TEST(test_options) {
    static const struct {
        fv_dataset_opts opts;
        const char *message;
    } cases[] = {{{.img_size = 0}, "which one the model takes must be said"},
                 {{.img_size = -1}, "a size of -1 pixels"},
                 {{.img_size = 70000}, "a size of 70000 pixels"},
                 {{.img_size = 8, .in_chans = 5}, "5 channels"},
                 {{.img_size = 8, .in_chans = -1}, "-1 channels"},
                 {{.img_size = 8, .crop_pct = 1.5}, "a crop share of 1.5"},
                 {{.img_size = 8, .crop_pct = NAN}, "a crop share of"},
                 {{.img_size = 8, .val_split = 0.5, .test_split = 0.5}, "leave nothing to train on"},
                 {{.img_size = 8, .val_split = -0.1}, "leave nothing to train on"},
                 {{.img_size = 8, .test_split = NAN}, "leave nothing to train on"}};
    fvt_put_many("set/a", 0, 1);
    fvt_put_many("set/b", 0, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        fvt_refused("set", &cases[i].opts, FV_E_USAGE, NULL, cases[i].message);
    const fv_dataset_opts grey = {.img_size = 8, .in_chans = 1, .crop_pct = 0.5, .filter = FV_FILTER_BICUBIC};
    fv_dataset *d = fvt_opened("set", &grey);
    ck_assert(d->c == 1 && d->files->c == 1 && d->files->size == 8 && d->files->filter == FV_FILTER_BICUBIC);
    ck_assert_double_eq(d->files->crop_pct, 0.5);
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_what_is_files) {
    fv_ctx *ctx = &fvt_sets.ctx;
    fvt_put_many("set/a", 0, 1);
    fvt_put_text("list.csv", "x");
    fvt_put_text("list.txt", "x");
    fvt_put_text("loose/1.jpg", "x");
    fvt_put_text("other/1.txt", "x");
    fvt_make_dirs("cifar");
    fvt_put_cifar10("cifar");
    fvt_make_dirs("idx");
    fvt_put_idx("idx/train-images-idx3-ubyte", "idx/train-labels-idx1-ubyte", false, 3);
    fvt_put_many("idx/a", 0, 1);
    ck_assert_int_eq(symlink("set", fvt_in_folder("link")), 0);
    static const char *const yes[] = {"set", "set/", "link", "list.csv", "loose"};
    static const char *const no[] = {"list.txt", "other", "cifar", "idx", "nothing", "nothing.csv"};
    ctx->error.code = FV_OK;
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++)
        ck_assert_msg(fv_dataset_is_files(ctx, fvt_in_folder(yes[i]), NULL), "%s", yes[i]);
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        ck_assert_msg(!fv_dataset_is_files(ctx, fvt_in_folder(no[i]), NULL), "%s", no[i]);
    ck_assert(!fv_dataset_is_files(ctx, "synthetic", NULL) && !fv_dataset_is_files(ctx, "cifar10", fvt_sets.folder));
    ck_assert_int_eq(ctx->error.code, FV_OK);
    fvt_refused("list.txt", &fvt_plain, FV_E_DATA, "list.txt", "no CSV file by its name");
    fvt_refused("other", &fvt_plain, FV_E_DATA, "other", "holds no dataset that is known");
    char name[101], deeper[128];
    memset(name, 'x', 100);
    memcpy(name + 62, "\xc3\xa4", 2); /* cut in front of this */
    name[100] = 0;
    snprintf(deeper, sizeof deeper, "%s/b", name);
    fvt_put_many(deeper, 0, 1);
    snprintf(deeper, sizeof deeper, "%s/c", name);
    fvt_put_many(deeper, 0, 1);
    fv_dataset *d = fvt_opened(name, &fvt_plain);
    ck_assert_uint_eq(strlen(d->name), 62);
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- split files */

START_TEST(test_split_file) {
    char split[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    fvt_put_many("set/a", 0, 20);
    fvt_put_many("set/b", 0, 20);
    fvt_put_text("set/b/odd, \"name\".jpg", "x");
    fvt_put_text("set/b/blank .jpg", "x");
    fvt_put_text("set/b/new\nline.jpg", "x");
    const fv_dataset_opts hash = {.img_size = 8, .val_split = 0.2, .test_split = 0.2};
    const fv_dataset_opts file = {.img_size = 8, .val_split = 0.3, .test_split = 0.3, .split_file = split};
    fv_dataset *d = fvt_opened("set", &hash), *again;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_OK);
    again = fvt_opened("set", &file);
    ck_assert_int_eq(again->count, 43);
    ck_assert_mem_eq(again->part, d->part, 43);
    ck_assert_uint_eq(again->fingerprint, d->fingerprint);
    ck_assert(again->has_part[FV_PART_TRAIN] && again->has_part[FV_PART_VAL] && again->has_part[FV_PART_TEST]);
    fv_dataset_free(again);
    /* the file says it all: nothing is held out of its train */
    fvt_put_text("split.csv", "");
    char *text = malloc(4096), *p = text;
    p += sprintf(p, "part,path\n");
    for (int64_t i = 0; i < d->count; i++)
        if (!strpbrk(fv_dataset_file(d, i), ",\n"))
            p += sprintf(p, "%s,%s\n", i % 4 ? "train" : "test", fv_dataset_file(d, i));
    *p = 0;
    fvt_put_text("split.csv", text);
    fvt_refused("set", &file, FV_E_DATA, "split.csv", "2 pictures of ");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "set are not in this file: b/new?line.jpg, b/odd"));
    unlink(fvt_in_folder("set/b/odd, \"name\".jpg"));
    unlink(fvt_in_folder("set/b/new\nline.jpg"));
    again = fvt_opened("set", &file);
    ck_assert_int_eq(fvt_in_part(again, -1, FV_PART_VAL), 0);
    ck_assert(fvt_in_part(again, -1, FV_PART_TEST) > 0 && !again->has_part[FV_PART_VAL]);
    fv_dataset_free(again);
    p += sprintf(p, "train,x1\ntest,x2\ntrain,./x3\nval,x4\n");
    fvt_put_text("split.csv", text);
    fvt_refused("set", &file, FV_E_DATA, "split.csv", "4 of its paths are not in ");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "x1, x2, x3 and 1 more"));
    static const struct {
        const char *text, *message;
    } cases[] = {{"", "is empty"},
                 {"path,part\na/0.jpg,train\na/0.jpg,test\n", "line 3: 'a/0.jpg' stands in line 2 already"},
                 {"path,part\na/0.jpg,dev\n", "line 2: the part is 'dev'"},
                 {"path,what\na/0.jpg,train\n", "line 1: the header names no column of parts"},
                 {"a/0.jpg,train,3\n", "line 1: 3 columns"},
                 {"path,part\n", "41 pictures of "}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fvt_put_text("split.csv", cases[i].text);
        fvt_refused("set", &file, FV_E_DATA, "split.csv", cases[i].message);
    }
    unlink(split);
    fvt_refused("set", &file, FV_E_DATA, "split.csv", "no such file");
    /* a class that only test has */
    for (int64_t i = 0, first = 1; i < d->count; i++) {
        const char *path = fv_dataset_file(d, i);
        if (strpbrk(path, ",\n")) continue;
        if (first) p = text;
        first = 0;
        p += sprintf(p, "%s,%s\n", path, path[0] == 'a' ? "test" : "train");
    }
    fvt_put_text("split.csv", text);
    fvt_refused("set", &file, FV_E_DATA, "set", "1 of 2 classes have no picture in train: 'a' (val 0, test 20)");
    free(text);
    fv_dataset_free(d);
    ck_assert_int_eq(fvt_open_set("synthetic", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_refused(fv_dataset_save_split(d, split), FV_E_USAGE, NULL, "only sets of picture files");
    ck_assert_ptr_null(fv_dataset_file(d, 0));
    fv_dataset_free(d);
}
END_TEST

Suite *files_suite(void) {
    Suite *suite = suite_create("files");
    TCase *tcase = tcase_create("folders");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fvt_files_setup, fvt_sets_teardown);
    tcase_add_loop_test(tcase, test_divided_folder, 0, sizeof val_names / sizeof *val_names);
    tcase_add_test(tcase, test_same_set);
    tcase_add_test(tcase, test_parts_by_hash);
    tcase_add_test(tcase, test_frozen_choice);
    tcase_add_test(tcase, test_carved_validation);
    tcase_add_test(tcase, test_links);
    tcase_add_test(tcase, test_bad_folders);
    tcase_add_test(tcase, test_long_paths);
    tcase_add_test(tcase, test_options);
    tcase_add_test(tcase, test_what_is_files);
    tcase_add_test(tcase, test_split_file);
    suite_add_tcase(suite, tcase);
    return suite;
}
