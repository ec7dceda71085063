/* test_files.c: pictures in files as datasets: folders, CSV lists, parts, what is refused, and looking at every file.
 */
#include "data/listing.h"
#include "tests/data_sets.h"
#include "tests/photos.h"

#include <check.h>
#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

Suite *files_suite(void);

/* ---------------------------------------------------------------- helpers */

static char log_text[8192]; /* all lines of the running test */

static void keep_log(void *user, fv_log_level level, const char *line) {
    (void)user;
    size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%s%s\n", level == FV_LOG_WARN ? "W " : "  ", line);
}

static void setup(void) {
    fvt_sets_setup();
    log_text[0] = 0;
    fvt_sets.ctx.log = keep_log;
}

/* A file with the folders above it. */
static void put(const char *name, const void *data, size_t bytes) {
    char folder[FV_DATA_PATH];
    ck_assert_int_eq(fv_data_parent(&fvt_sets.ctx, fvt_in_folder(name), folder), FV_OK);
    ck_assert_int_eq(fv_data_mkdirs(&fvt_sets.ctx, folder), FV_OK);
    fvt_put_file(fvt_in_folder(name), data, bytes);
}

static void put_text(const char *name, const char *text) {
    put(name, text, strlen(text));
}

static size_t put_chunk(uint8_t *to, const char *type, const uint8_t *data, uint32_t bytes) {
    fvt_put_number(to, bytes);
    memcpy(to + 4, type, 4);
    if (bytes) memcpy(to + 8, data, bytes);
    fvt_put_number(to + 8 + bytes, (uint32_t)crc32(0, to + 4, bytes + 4));
    return bytes + 12;
}

/* A grey PNG of 2 x 2 pixels of one value. */
static void put_png(const char *name, uint8_t value) {
    const uint8_t head[13] = {0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0}, rows[6] = {0, value, value, 0, value, value};
    uint8_t file[256] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, packed[64];
    uLongf n_packed = sizeof packed;
    ck_assert_int_eq(compress(packed, &n_packed, rows, sizeof rows), Z_OK);
    size_t n = 8;
    n += put_chunk(file + n, "IHDR", head, sizeof head);
    n += put_chunk(file + n, "IDAT", packed, (uint32_t)n_packed);
    n += put_chunk(file + n, "IEND", NULL, 0);
    put(name, file, n);
}

/* n files FOLDER/0.jpg ..., of different sizes. */
static void put_many(const char *folder, int first, int n) {
    char name[256];
    for (int i = first; i < first + n; i++) {
        snprintf(name, sizeof name, "%s/%d.jpg", folder, i);
        put(name, "0123456789", (size_t)(1 + i % 9));
    }
}

static const fv_dataset_opts plain = {.img_size = 8};

static fv_status open_with(const char *name, const fv_dataset_opts *opts, fv_dataset **d) {
    return fv_dataset_open(&fvt_sets.ctx, fvt_in_folder(name), FV_SPLIT_TRAIN, opts, d);
}

static fv_dataset *opened(const char *name, const fv_dataset_opts *opts) {
    fv_dataset *d = NULL;
    ck_assert_msg(open_with(name, opts, &d) == FV_OK, "%s: %s (%s)", fvt_sets.ctx.error.path,
                  fvt_sets.ctx.error.message, fvt_sets.ctx.error.hint);
    return d;
}

static void refused(const char *name, const fv_dataset_opts *opts, fv_status expected, const char *path,
                    const char *message) {
    fv_dataset *d = NULL;
    int64_t live = fvt_sets.memory.live;
    fvt_ck_refused(open_with(name, opts, &d), expected, path, message);
    ck_assert_ptr_null(d);
    ck_assert_int_eq(fvt_sets.memory.live, live);
}

static int64_t in_part(const fv_dataset *d, int32_t label, fv_part part) {
    int64_t n = 0;
    for (int64_t i = 0; i < d->count; i++) n += d->part[i] == part && (label < 0 || d->labels[i] == label);
    return n;
}

static int64_t find_file(const fv_dataset *d, const char *path) {
    for (int64_t i = 0; i < d->count; i++)
        if (strcmp(fv_dataset_file(d, i), path) == 0) return i;
    ck_abort_msg("%s is not in the set", path);
}

static void ck_file(const fv_dataset *d, int64_t i, const char *path, const char *class_name, fv_part part) {
    ck_assert_str_eq(fv_dataset_file(d, i), path);
    ck_assert_str_eq(d->class_names[d->labels[i]], class_name);
    ck_assert_int_eq(d->part[i], part);
}

/* ---------------------------------------------------------------- folders */

static const char *const val_names[] = {"val", "valid", "validation", "Validation"};

START_TEST(test_divided_folder) {
    char name[128];
    put_text("set/train/dog/2.jpg", "22");
    put_text("set/train/dog/1.JPEG", "1");
    put_text("set/train/dog-1/a.png", "333");
    put_text("set/train/cat/deep/er/x.webp", "4444");
    put_text("set/test/cat/t.jpg", "");
    snprintf(name, sizeof name, "set/%s/dog/v.jpg", val_names[_i]);
    put_text(name, "5");
    /* what does not count */
    put_text("set/train/dog/.hidden.jpg", "x");
    put_text("set/train/.git/x/1.jpg", "x");
    put_text("set/train/__MACOSX/dog/1.jpg", "x");
    put_text("set/train/dog/Thumbs.db", "x");
    put_text("set/train/dog/notes.txt", "x");
    put_text("set/train/dog/a.txt", "x");
    put_text("set/train/loose.jpg", "x");
    put_text("set/readme.md", "x");
    put_text("set/extra/x.jpg", "x");
    fvt_make_dirs("set/train/empty");
    fv_dataset *d = opened("set/", &plain);
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
    ck_assert_int_eq(d->files->bytes[find_file(d, "train/cat/deep/er/x.webp")], 4);
    ck_assert(d->has_part[FV_PART_TRAIN] && d->has_part[FV_PART_VAL] && d->has_part[FV_PART_TEST]);
    ck_assert(d->h == 8 && d->w == 8 && d->c == 3 && !d->images && !d->targets);
    ck_assert_str_eq(d->name, "set");
    ck_assert_str_eq(d->files->root, fvt_in_folder("set"));
    ck_assert_ptr_nonnull(strstr(log_text, ": 3 files are no pictures and are left out, e.g. readme.md\n"));
    ck_assert_ptr_nonnull(strstr(log_text, "W "));
    ck_assert_ptr_nonnull(strstr(log_text, "train/loose.jpg: a picture lies outside the class folders"));
    ck_assert_ptr_nonnull(strstr(log_text, "train/empty holds no pictures"));
    ck_assert_ptr_nonnull(strstr(log_text, "beside train: extra"));
    fv_dataset_free(d);
}
END_TEST

/* Whatever order files were made in, and wherever the folder is. */
START_TEST(test_same_set) {
    char name[64];
    for (int i = 0; i < 200; i++) {
        snprintf(name, sizeof name, "one/%c/%d.jpg", 'a' + i % 3, i);
        put_text(name, "x");
        snprintf(name, sizeof name, "two/%c/%d.jpg", 'a' + (199 - i) % 3, 199 - i);
        put_text(name, "x");
    }
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.1, .test_split = 0.2};
    fv_dataset *one = opened("one", &opts), *two = opened("two", &opts);
    ck_assert_uint_eq(one->fingerprint, two->fingerprint);
    ck_assert_mem_eq(one->part, two->part, 200);
    for (int64_t i = 0; i < 200; i++) ck_assert_str_eq(fv_dataset_file(one, i), fv_dataset_file(two, i));
    fv_dataset_free(two);
    put_text("two/a/0.jpg", "xx"); /* another size */
    two = opened("two", &opts);
    ck_assert_uint_ne(one->fingerprint, two->fingerprint);
    fv_dataset_free(two);
    const fv_dataset_opts other = {.img_size = 8, .val_split = 0.1, .test_split = 0.1}; /* other parts */
    two = opened("one", &other);
    ck_assert_uint_ne(one->fingerprint, two->fingerprint);
    fv_dataset_free(two);
    fv_dataset_free(one);
    ck_assert_int_eq(rename(fvt_in_folder("one/c"), fvt_in_folder("one/d")), 0); /* another class name */
    one = opened("one", &plain);
    two = opened("two", &plain);
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
        put_many(name, 0, sizes[k]);
    }
    fv_dataset *d = opened("set", &opts), *more;
    ck_assert(!d->has_part[FV_PART_TRAIN] && !d->has_part[FV_PART_VAL] && !d->has_part[FV_PART_TEST]);
    for (int k = 0; k < classes; k++) {
        int64_t test = (int64_t)floor(0.2 * sizes[k] + 0.5), val = (int64_t)floor(0.1 * sizes[k] + 0.5);
        ck_assert_int_eq(in_part(d, k, FV_PART_TEST), test);
        ck_assert_int_eq(in_part(d, k, FV_PART_VAL), val);
        ck_assert_int_eq(in_part(d, k, FV_PART_TRAIN), sizes[k] - test - val);
    }
    /* a picture in twenty more: few change their part, and only at the borders */
    put_many("set/k7", 1000, 13);
    more = opened("set", &opts);
    int64_t changed = 0;
    for (int64_t i = 0; i < d->count; i++) changed += d->part[i] != more->part[find_file(more, fv_dataset_file(d, i))];
    ck_assert_int_le(changed, 13);
    fv_dataset_free(more);
    /* small classes keep a picture in train, whatever is asked for */
    const fv_dataset_opts greedy = {.img_size = 8, .val_split = 0.5, .test_split = 0.49};
    more = opened("set", &greedy);
    for (int k = 0; k < classes; k++) ck_assert_int_ge(in_part(more, k, FV_PART_TRAIN), 1);
    ck_assert_int_eq(in_part(more, 1, FV_PART_TEST), 1);
    fv_dataset_free(more);
    more = opened("set", &plain);
    ck_assert_int_eq(in_part(more, -1, FV_PART_TRAIN), more->count);
    fv_dataset_free(more);
    /* the arrays that training takes */
    fv_arena arena;
    int64_t *train, *val, n_train, n_val;
    fv_arena_init(&arena, &fvt_sets.ctx);
    ck_assert_int_eq(fv_split_validation(&fvt_sets.ctx, &arena, d, 0.5, 7, &train, &n_train, &val, &n_val), FV_OK);
    ck_assert_int_eq(n_train, in_part(d, -1, FV_PART_TRAIN));
    ck_assert_int_eq(n_val, in_part(d, -1, FV_PART_VAL));
    for (int64_t i = 0; i < n_train; i++) ck_assert_int_eq(d->part[train[i]], FV_PART_TRAIN);
    for (int64_t i = 0; i < n_val; i++) ck_assert_int_eq(d->part[val[i]], FV_PART_VAL);
    fv_arena_free(&arena);
    fv_dataset_free(d);
}
END_TEST

/* The choice is part of what users rely on: it must not change between versions. */
START_TEST(test_frozen_choice) {
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.2, .test_split = 0.2};
    put_many("set/a", 0, 10);
    put_many("set/b", 0, 10);
    fv_dataset *d = opened("set", &opts);
    char parts[32] = "";
    for (int64_t i = 0; i < d->count; i++) parts[i] = "-vt"[d->part[i]];
    fv_dataset_free(d);
    ck_assert_str_eq(parts, "v-t-t----v-vtt---v--");
}
END_TEST

/* train without val: val comes out of train, test stays as it is and nothing else is made one. */
START_TEST(test_carved_validation) {
    put_many("set/train/a", 0, 40);
    put_many("set/train/b", 0, 20);
    put_many("set/test/a", 0, 7);
    const fv_dataset_opts opts = {.img_size = 8, .val_split = 0.1, .test_split = 0.3};
    fv_dataset *d = opened("set", &opts);
    ck_assert_int_eq(in_part(d, 0, FV_PART_VAL), 4);
    ck_assert_int_eq(in_part(d, 1, FV_PART_VAL), 2);
    ck_assert_int_eq(in_part(d, -1, FV_PART_TEST), 7);
    ck_assert(d->has_part[FV_PART_TRAIN] && !d->has_part[FV_PART_VAL] && d->has_part[FV_PART_TEST]);
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == FV_PART_VAL) ck_assert_int_eq(strncmp(fv_dataset_file(d, i), "train/", 6), 0);
    fv_dataset_free(d);
    put_many("only/train/a", 0, 10);
    put_many("only/train/b", 0, 10);
    fvt_make_dirs("only/test/a");
    d = opened("only", &opts);
    ck_assert_int_eq(in_part(d, -1, FV_PART_TEST), 0);
    ck_assert(!d->has_part[FV_PART_TEST]);
    ck_assert_ptr_nonnull(strstr(log_text, "only/test holds no class folders with pictures"));
    fv_dataset_free(d);
    put_many("small/train/a", 0, 3);
    put_many("small/train/b", 0, 3);
    d = opened("small", &opts);
    ck_assert_ptr_nonnull(strstr(log_text, "fell to val"));
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_links) {
    put_text("elsewhere/roses/r.jpg", "1");
    put_text("elsewhere/one.png", "22");
    put_text("set/tulip/t.jpg", "x");
    ck_assert_int_eq(symlink("../elsewhere/roses", fvt_in_folder("set/rose")), 0);
    ck_assert_int_eq(symlink("../../elsewhere/one.png", fvt_in_folder("set/tulip/link.png")), 0);
    ck_assert_int_eq(mkfifo(fvt_in_folder("set/tulip/fifo.jpg"), 0600), 0);
    fv_dataset *d = opened("set", &plain); /* at once: the FIFO is not opened */
    ck_assert_int_eq(d->count, 3);
    ck_file(d, 0, "rose/r.jpg", "rose", FV_PART_TRAIN);
    ck_assert_int_eq(d->files->bytes[find_file(d, "tulip/link.png")], 2);
    ck_assert_ptr_nonnull(strstr(log_text, "tulip/fifo.jpg: a file is no picture"));
    fv_dataset_free(d);
    const char *bad = fvt_in_folder("set/tulip/more");
    char path[FV_DATA_PATH];
    snprintf(path, sizeof path, "%s", bad);
    ck_assert_int_eq(symlink("..", path), 0);
    refused("set", &plain, FV_E_DATA, "set/tulip/more", "a link that leads back to a folder above it");
    unlink(path);
    ck_assert_int_eq(symlink("more", path), 0);
    refused("set", &plain, FV_E_DATA, "set/tulip/more", "a link that leads back to itself");
    unlink(path);
    ck_assert_int_eq(symlink("nowhere", path), 0);
    refused("set", &plain, FV_E_DATA, "set/tulip/more", "a link to something that is not there");
    unlink(path);
    char deep[200] = "set/tulip";
    for (int i = 0; i < 33; i++) strcat(deep, "/d");
    fvt_make_dirs(deep);
    refused("set", &plain, FV_E_DATA, "set/tulip/d/d", "nested more than 32 deep");
}
END_TEST

START_TEST(test_bad_folders) {
    fv_dataset *d;
    fvt_make_dirs("empty/a/b");
    refused("empty", &plain, FV_E_DATA, "empty", "holds no pictures: 2 folders, all empty");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "train/CLASS/x.jpg"));
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "ROOT/CLASS/x.jpg"));
    put_text("empty/a/z.txt", "x");
    put_text("empty/a/b/y.gif", "x");
    refused("empty", &plain, FV_E_DATA, "empty", "the first of 2 other files is a/b/y.gif");
    put_text("loose/1.jpg", "x");
    refused("loose", &plain, FV_E_DATA, "loose", "its pictures (the first is 1.jpg) are not in class folders");
    put_text("one/flowers/rose/1.jpg", "x");
    refused("one", &plain, FV_E_DATA, "one", "only one class, 'flowers'");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.hint, "one/flowers"));
    put_many("twice/train/a", 0, 2);
    put_many("twice/val/a", 0, 2);
    put_many("twice/valid/a", 0, 2);
    refused("twice", &plain, FV_E_DATA, "twice", "both 'va");
    put_many("new/train/a", 0, 2);
    put_many("new/train/b", 0, 2);
    fvt_make_dirs("new/test/empty");
    for (int i = 0; i < 5; i++) {
        char name[32];
        snprintf(name, sizeof name, "new/test/n%d", i);
        put_many(name, 0, 1);
    }
    refused("new", &plain, FV_E_DATA, "new/test", "5 classes without pictures in train: 'n0', 'n1', 'n2' and 2 more");
    put_many("untrained/test/a", 0, 2);
    put_many("untrained/val/a", 0, 2);
    refused("untrained", &plain, FV_E_DATA, "untrained", "holds 'val', but no 'train'");
    put_text("flat/train/1.jpg", "x");
    put_text("flat/test/2.jpg", "x");
    refused("flat", &plain, FV_E_DATA, "flat", "no class folders in 'train'");
    put_text("odd/a\xff/1.jpg", "x");
    refused("odd", &plain, FV_E_DATA, "odd", "is no UTF-8");
    put_text("control/a\033[31m/1.jpg", "x");
    refused("control", &plain, FV_E_DATA, "control", "holds a control character");
    if (getuid() != 0) { /* root reads everything */
        put_many("closed/a", 0, 1);
        put_many("closed/b", 0, 1);
        chmod(fvt_in_folder("closed/b"), 0);
        refused("closed", &plain, FV_E_IO, "closed/b", "cannot read the folder");
        chmod(fvt_in_folder("closed/b"), 0700);
    }
    /* a class may be called train */
    put_many("vehicles/train", 0, 2);
    put_many("vehicles/car", 0, 2);
    d = opened("vehicles", &plain);
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
    put_many("set/a", 0, 1);
    snprintf(name, sizeof name, "%s/set/%s", fvt_sets.folder, long_name);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    strcat(name, "/");
    strcat(name, long_name);
    ck_assert_int_eq(mkdir(name, 0700), 0);
    refused("set", &plain, FV_E_DATA, "set/nnn", "is longer than 511 bytes");
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
    put_many("set/a", 0, 1);
    put_many("set/b", 0, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused("set", &cases[i].opts, FV_E_USAGE, NULL, cases[i].message);
    const fv_dataset_opts grey = {.img_size = 8, .in_chans = 1, .crop_pct = 0.5, .filter = FV_FILTER_BICUBIC};
    fv_dataset *d = opened("set", &grey);
    ck_assert(d->c == 1 && d->files->c == 1 && d->files->size == 8 && d->files->filter == FV_FILTER_BICUBIC);
    ck_assert_double_eq(d->files->crop_pct, 0.5);
    fv_dataset_free(d);
}
END_TEST

START_TEST(test_what_is_files) {
    fv_ctx *ctx = &fvt_sets.ctx;
    put_many("set/a", 0, 1);
    put_text("list.csv", "x");
    put_text("list.txt", "x");
    put_text("loose/1.jpg", "x");
    put_text("other/1.txt", "x");
    fvt_make_dirs("cifar");
    fvt_put_cifar10("cifar");
    fvt_make_dirs("idx");
    fvt_put_idx("idx/train-images-idx3-ubyte", "idx/train-labels-idx1-ubyte", false, 3);
    put_many("idx/a", 0, 1);
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
    refused("list.txt", &plain, FV_E_DATA, "list.txt", "no CSV file by its name");
    refused("other", &plain, FV_E_DATA, "other", "holds no dataset that is known");
    char name[101], deeper[128];
    memset(name, 'x', 100);
    memcpy(name + 62, "\xc3\xa4", 2); /* cut in front of this */
    name[100] = 0;
    snprintf(deeper, sizeof deeper, "%s/b", name);
    put_many(deeper, 0, 1);
    snprintf(deeper, sizeof deeper, "%s/c", name);
    put_many(deeper, 0, 1);
    fv_dataset *d = opened(name, &plain);
    ck_assert_uint_eq(strlen(d->name), 62);
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- CSV */

static void put_pictures(void) {
    static const char *const names[] = {"a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/e.jpg", "with, comma.jpg", "q\"q.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) put_text(names[i], "picture");
}

static const struct {
    const char *text;
    const char *result; /* file=label,... of all rows, with the part behind the label unless it is train */
} good_csv[] = {
    {"a.jpg,x\nb.jpg,y\n", "a.jpg=x b.jpg=y"},
    {"b.jpg,x\na.jpg,y", "b.jpg=x a.jpg=y"}, /* order of the file; no break at the end */
    {"path,label\r\na.jpg,x\r\nb.jpg,y\r\n", "a.jpg=x b.jpg=y"},
    {"\xef\xbb\xbfpath,label\na.jpg,x\nb.jpg,y\n", "a.jpg=x b.jpg=y"},
    {"a.jpg,x\rb.jpg,y\r", "a.jpg=x b.jpg=y"},
    {"\n  \na.jpg , x \n\n\t b.jpg,\ty\n \n", "a.jpg=x b.jpg=y"},
    {"id,Class,FileName,Subset\n7,x,a.jpg,TRAIN\n8,y,b.jpg,train\n9,x,c.jpg,test\n1,y,d.jpg,validation\n",
     "a.jpg=x b.jpg=y c.jpg=x/test d.jpg=y/val"},
    {"a.jpg,x,train\nb.jpg,y,train\nc.jpg,y,val\nd.jpg,y,valid\nsub/e.jpg,x,test\n",
     "a.jpg=x b.jpg=y c.jpg=y/val d.jpg=y/val sub/e.jpg=x/test"},
    {"\"with, comma.jpg\",\"a \"\"b\"\"\"\n\"q\"\"q.jpg\", \"y\" \n./sub/e.jpg,y\n",
     "with, comma.jpg=a \"b\" q\"q.jpg=y sub/e.jpg=y"},
    {"a.jpg,10\nb.jpg,9\nc.jpg,0\n", "a.jpg=10 b.jpg=9 c.jpg=0"},
    {"a.jpg,x|y\nb.jpg,y\nc.jpg,\nd.jpg, z | x \n", "a.jpg=x|y b.jpg=y c.jpg= d.jpg=z|x"},
    {"a.jpg,\"\"\nb.jpg,y\n", "a.jpg= b.jpg=y"},
};

static void report_progress(void *user, const char *what, int64_t done, int64_t total) {
    int64_t *last = user;
    ck_assert(what && done >= 0 && done <= total);
    *last = done;
}

START_TEST(test_csv) {
    put_pictures();
    put_text("list.csv", good_csv[_i].text);
    int64_t looked = -1;
    const fv_dataset_opts opts = {.img_size = 8, .progress = report_progress, .progress_user = &looked};
    fv_dataset *d = opened("list.csv", &opts);
    ck_assert_int_eq(looked, 0);
    char result[512] = "";
    for (int64_t i = 0; i < d->count; i++) {
        size_t used = strlen(result);
        used += (size_t)sprintf(result + used, "%s%s=", i ? " " : "", fv_dataset_file(d, i));
        if (d->labels[i] >= 0) used += (size_t)sprintf(result + used, "%s", d->class_names[d->labels[i]]);
        for (int32_t k = 0; d->targets && k < d->classes; k++)
            if (d->targets[i * d->classes + k] && k != d->labels[i])
                used += (size_t)sprintf(result + used, "|%s", d->class_names[k]);
        if (d->part[i]) sprintf(result + used, "/%s", fv_part_name((fv_part)d->part[i]));
        ck_assert_int_eq(d->files->bytes[i], 7);
    }
    ck_assert_str_eq(result, good_csv[_i].result);
    ck_assert_int_eq(d->targets != NULL, strchr(result, '|') || strstr(result, "= ") ? 1 : 0);
    ck_assert_str_eq(d->name, "list");
    ck_assert_str_eq(d->files->root, fvt_sets.folder);
    bool parts = strstr(result, "/test") != NULL;
    ck_assert(d->has_part[FV_PART_TRAIN] == parts && d->has_part[FV_PART_TEST] == parts);
    for (int32_t k = 1; k < d->classes; k++) /* by name; numbers by value */
        ck_assert(isdigit((unsigned char)d->class_names[k][0]) ? atoi(d->class_names[k - 1]) < atoi(d->class_names[k])
                                                               : strcmp(d->class_names[k - 1], d->class_names[k]) < 0);
    fv_dataset_free(d);
}
END_TEST

/* Several labels: a class that hashing leaves without training gets a picture back; parts are by the first label. */
START_TEST(test_several_labels) {
    char text[4096] = "file,labels\n", name[32];
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "p/%02d.jpg", i);
        put_text(name, "x");
        sprintf(text + strlen(text), "p/%02d.jpg,%s%s\n", i,
                i % 2   ? "odd"
                : i % 3 ? "even"
                        : "",
                i % 2 ? i % 20 == 7 ? "|rare" : "|all" : "");
    }
    put_text("list.csv", text);
    for (int round = 0; round < 2; round++) {
        const fv_dataset_opts opts = {.img_size = 8, .val_split = round ? 0.45 : 0.1, .test_split = round ? 0.5 : 0.1};
        fv_dataset *d = opened("list.csv", &opts);
        ck_assert_int_eq(d->classes, 4);
        int64_t trained[4] = {0};
        for (int64_t i = 0; i < d->count; i++)
            for (int32_t k = 0; k < 4; k++) trained[k] += d->part[i] == FV_PART_TRAIN && d->targets[i * 4 + k];
        for (int32_t k = 0; k < 4; k++) ck_assert_int_ge(trained[k], 1);
        ck_assert_int_eq(d->labels[0], -1);
        ck_assert_str_eq(d->class_names[d->labels[7]], "odd");
        if (!round) ck_assert_int_eq(in_part(d, d->labels[1], FV_PART_VAL), 3); /* of 30 odd ones */
        fv_dataset_free(d);
    }
    ck_assert_ptr_nonnull(strstr(log_text, "several labels per picture, since line 2"));
}
END_TEST

static const struct {
    const char *text, *message;
} bad_csv[] = {
    {"", "lists no pictures"},
    {"path,label\n", "lists no pictures"},
    {"\n\n", "lists no pictures"},
    {"a.jpg,x\nb.jpg\n", "line 2: 1 columns, where the first line has 2"},
    {"a.jpg,x\nb.jpg,y,test\n", "line 2: 3 columns, where the first line has 2"},
    {"a.jpg\nb.jpg\n", "line 1: 1 columns, where 'path,label' or 'path,label,split'"},
    {"a.jpg,x,train,1\n", "line 1: 4 columns"},
    {"a.jpg;x\nb.jpg;y\n", "line 1: 1 columns"},
    {"path,tag\na.jpg,x\n", "line 1: the header names no column of labels"},
    {"name,label\na.jpg,x\n", "line 1: the header names no column of paths"},
    {"path,file,label\na.jpg,x,y\n", "line 1: the columns 'path' and 'file' mean the same"},
    {"a.jpg,x\n\"b.jpg,y\nc.jpg,y\n", "line 2: a quote is opened and never closed"},
    {"a.jpg,x\n\"b.jpg\"z,y\n", "line 2: text behind a closing quote"},
    {"a.jpg,x\nb\".jpg,y\n", "line 2: a quote inside a cell"},
    {"a.jpg,x\n  b\".jpg,y\n", "line 2: a quote inside a cell"},
    {"a.jpg,x\n,y\n", "line 2: the path is empty"},
    {"a.jpg,x\n\nb.jpg,y\n./a.jpg,y\n", "line 4: 'a.jpg' stands in line 1 already"},
    {"a.jpg,x\nb.jpg,x||y\n", "line 2: an empty label beside a |"},
    {"a.jpg,x\nb.jpg,|\n", "line 2: an empty label beside a |"},
    {"a.jpg,x\nb.jpg,x|y|x\n", "line 2: the label 'x' stands there twice"},
    {"a.jpg,x\nb.jpg,\xff\n", "line 2: the label '?' is no UTF-8"},
    {"a.jpg,x\nb.jpg,\"y\nz\"\n", "line 2: the label 'y?z' holds a control character"},
    {"a.jpg,x,train\nb.jpg,y,dev\n", "line 2: the split is 'dev'"},
    {"a.jpg,x,train\nb.jpg,y,\n", "line 2: the split is ''"},
    {"a.jpg,x\nno1.jpg,y\nb.jpg,x\nno2.jpg,y\nno3.jpg,x\nno4/a.jpg,x\n",
     "4 of 6 files are not there: line 2 'no1.jpg', line 4 'no2.jpg', line 5 'no3.jpg' and 1 more"},
    {"a.jpg,x\nsub,y\n", "line 2: 'sub' is a folder"},
    {"a.jpg,x\nfifo.jpg,y\n", "line 2: 'fifo.jpg' is a special file"},
    {"a.jpg,x\nb.jpg,x\n", "only one class, 'x'"},
    {"a.jpg,x,train\nb.jpg,y,test\n", "1 of 2 classes have no picture in train: 'y' (val 0, test 1)"},
    {"\xff\xfe"
     "a",
     "is UTF-16 text"},
    {"\xfe\xff"
     "a",
     "is UTF-16 text"},
};

START_TEST(test_bad_csv) {
    put_pictures();
    ck_assert_int_eq(mkfifo(fvt_in_folder("fifo.jpg"), 0600), 0);
    put_text("list.csv", bad_csv[_i].text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", bad_csv[_i].message);
}
END_TEST

START_TEST(test_csv_limits) {
    put_pictures();
    put("list.csv", "a.jpg,x\nb.jpg,y\0z\n", 18);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "holds a byte 0");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, 15);
    size_t size = 70000;
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    text[size] = 0;
    memcpy(text, "a.jpg,x\nb.jpg,", 14);
    put("list.csv", text, size);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: longer than 65536 bytes");
    memset(text + 14, ',', 300);
    put("list.csv", text, 14 + 300);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: more than 256 columns");
    text[14] = '"';
    memset(text + 15, '\n', size - 15);
    put("list.csv", text, size);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: a quote is opened and never closed");
    text[size - 1] = '"';
    put("list.csv", text, size);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: longer than 65536 bytes");
    memset(text + 14, 'x', 600);
    text[14 + 600] = 0;
    put_text("list.csv", text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: the label '");
    memcpy(text, "a.jpg,x\n/", 9);
    memset(text + 9, 'x', 600);
    memcpy(text + 609, ",y", 3);
    put_text("list.csv", text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: a path of ");
    free(text);
    text = malloc(1 << 20);
    char *p = text + sprintf(text, "a.jpg,x\nb.jpg,0");
    for (int i = 1; i <= 4096; i++) p += sprintf(p, "|%d", i);
    put_text("list.csv", text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 2: more than 4096 labels");
    p = text;
    for (int i = 0; i <= 100000; i++)
        p += i % 4000 ? sprintf(p, "|%d", i) : sprintf(p, "%sp%d.jpg,%d", i ? "\n" : "", i / 4000, i);
    put_text("list.csv", text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "line 26: more than 100000 different labels");
    free(text);
    /* an absolute path is taken as it is */
    char line[FV_DATA_PATH + 32];
    snprintf(line, sizeof line, "a.jpg,x\n%s,y\n", fvt_in_folder("b.jpg"));
    fvt_make_dirs("lists");
    put_text("lists/list.csv", line);
    refused("lists/list.csv", &plain, FV_E_DATA, "list.csv", "1 of 2 files are not there: line 1 'a.jpg'");
    put_text("lists/a.jpg", "x");
    fv_dataset *d = opened("lists/list.csv", &plain);
    char path[FV_DATA_PATH];
    ck_assert_int_eq(fv_file_path(&fvt_sets.ctx, d->files, 1, path), FV_OK);
    ck_assert_str_eq(path, fvt_in_folder("b.jpg"));
    ck_assert_int_eq(fv_file_path(&fvt_sets.ctx, d->files, 0, path), FV_OK);
    ck_assert_str_eq(path, fvt_in_folder("lists/a.jpg"));
    fv_dataset_free(d);
}
END_TEST

/* Flags of 43,500 pictures for 100,000 classes would fill the memory: refused before it is taken. */
START_TEST(test_csv_bomb) {
    const int pictures = 43500, labels = 100000, lines = 25;
    char *text = malloc((size_t)pictures * 16 + (size_t)labels * 8), *p = text;
    fvt_make_dirs("p");
    for (int i = 0; i < pictures; i++) {
        char name[32];
        snprintf(name, sizeof name, "p/%d.jpg", i);
        fvt_put_file(fvt_in_folder(name), "", 0);
        p += sprintf(p, "%s,", name);
        int each = i < lines ? labels / lines : 0;
        for (int k = 0; k < each; k++) p += sprintf(p, "%s%d", k ? "|" : "", i * each + k);
        *p++ = '\n';
    }
    *p = 0;
    put_text("list.csv", text);
    free(text);
    refused("list.csv", &plain, FV_E_DATA, "list.csv", "43500 pictures with flags for 100000 classes each");
    ck_assert_uint_lt(fvt_sets.memory.peak, 64 << 20);
}
END_TEST

/* Every truncation and every flip of a bit: a set that holds together, or FV_E_DATA. */
static int64_t good, bad;

static void try_bytes(const char *name, const uint8_t *bytes, size_t size, const char *set,
                      const fv_dataset_opts *opts) {
    fv_dataset *d = NULL;
    fvt_put_file(fvt_in_folder(name), bytes, size);
    fv_status status = open_with(set, opts, &d);
    if (status != FV_OK) {
        ck_assert_msg(status == FV_E_DATA, "status %d: %s", (int)status, fvt_sets.ctx.error.message);
        ck_assert(fvt_sets.ctx.error.message[0] && fvt_sets.ctx.error.path[0]);
        ck_assert_int_eq(fvt_sets.memory.live, 0);
        bad++;
        return;
    }
    good++;
    for (int64_t i = 0; i < d->count; i++) {
        ck_assert(d->labels[i] >= (d->targets ? -1 : 0) && d->labels[i] < d->classes);
        ck_assert(d->part[i] < FV_PART_COUNT && fv_dataset_file(d, i)[0]);
    }
    fv_dataset_free(d);
}

static void damage(const char *name, const char *text, const char *set, const fv_dataset_opts *opts) {
    uint8_t copy[1024];
    size_t size = strlen(text);
    ck_assert_uint_lt(size, sizeof copy);
    good = bad = 0;
    fvt_sets.memory.peak = 0;
    for (size_t n = 0; n < size; n++) try_bytes(name, (const uint8_t *)text, n, set, opts);
    for (size_t i = 0; i < 8 * size; i++) {
        memcpy(copy, text, size);
        copy[i / 8] ^= (uint8_t)(1 << i % 8);
        try_bytes(name, copy, size, set, opts);
    }
    ck_assert(good > 0 && bad > 0);
    ck_assert_uint_lt(fvt_sets.memory.peak, 4 << 20);
}

START_TEST(test_hostile_csv) {
    put_pictures();
    fvt_sets.ctx.log = NULL;
    damage("list.csv",
           "path,label,split\r\na.jpg,x,train\r\n\"b.jpg\",\"y\",train\r\nc.jpg,x,val\r\nsub/e.jpg,y,test\r\n"
           "\"with, comma.jpg\",\"x|y\",train\nd.jpg,,train\n",
           "list.csv", &plain);
    char split[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    const fv_dataset_opts opts = {.img_size = 8, .split_file = split};
    put_text("list.csv", "a.jpg,x\nb.jpg,y\nc.jpg,x\n\"with, comma.jpg\",y\n");
    damage("split.csv", "path,part\na.jpg,train\nb.jpg,train\n\"c.jpg\",val\r\n\"with, comma.jpg\",test\n", "list.csv",
           &opts);
}
END_TEST

/* ---------------------------------------------------------------- split files */

START_TEST(test_split_file) {
    char split[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    put_many("set/a", 0, 20);
    put_many("set/b", 0, 20);
    put_text("set/b/odd, \"name\".jpg", "x");
    put_text("set/b/blank .jpg", "x");
    put_text("set/b/new\nline.jpg", "x");
    const fv_dataset_opts hash = {.img_size = 8, .val_split = 0.2, .test_split = 0.2};
    const fv_dataset_opts file = {.img_size = 8, .val_split = 0.3, .test_split = 0.3, .split_file = split};
    fv_dataset *d = opened("set", &hash), *again;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_OK);
    again = opened("set", &file);
    ck_assert_int_eq(again->count, 43);
    ck_assert_mem_eq(again->part, d->part, 43);
    ck_assert_uint_eq(again->fingerprint, d->fingerprint);
    ck_assert(again->has_part[FV_PART_TRAIN] && again->has_part[FV_PART_VAL] && again->has_part[FV_PART_TEST]);
    fv_dataset_free(again);
    /* the file says it all: nothing is held out of its train */
    put_text("split.csv", "");
    char *text = malloc(4096), *p = text;
    p += sprintf(p, "part,path\n");
    for (int64_t i = 0; i < d->count; i++)
        if (!strpbrk(fv_dataset_file(d, i), ",\n"))
            p += sprintf(p, "%s,%s\n", i % 4 ? "train" : "test", fv_dataset_file(d, i));
    *p = 0;
    put_text("split.csv", text);
    refused("set", &file, FV_E_DATA, "split.csv", "2 pictures of ");
    ck_assert_ptr_nonnull(strstr(fvt_sets.ctx.error.message, "set are not in this file: b/new?line.jpg, b/odd"));
    unlink(fvt_in_folder("set/b/odd, \"name\".jpg"));
    unlink(fvt_in_folder("set/b/new\nline.jpg"));
    again = opened("set", &file);
    ck_assert_int_eq(in_part(again, -1, FV_PART_VAL), 0);
    ck_assert(in_part(again, -1, FV_PART_TEST) > 0 && !again->has_part[FV_PART_VAL]);
    fv_dataset_free(again);
    p += sprintf(p, "train,x1\ntest,x2\ntrain,./x3\nval,x4\n");
    put_text("split.csv", text);
    refused("set", &file, FV_E_DATA, "split.csv", "4 of its paths are not in ");
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
        put_text("split.csv", cases[i].text);
        refused("set", &file, FV_E_DATA, "split.csv", cases[i].message);
    }
    unlink(split);
    refused("set", &file, FV_E_DATA, "split.csv", "no such file");
    /* a class that only test has */
    for (int64_t i = 0, first = 1; i < d->count; i++) {
        const char *path = fv_dataset_file(d, i);
        if (strpbrk(path, ",\n")) continue;
        if (first) p = text;
        first = 0;
        p += sprintf(p, "%s,%s\n", path, path[0] == 'a' ? "test" : "train");
    }
    put_text("split.csv", text);
    refused("set", &file, FV_E_DATA, "set", "1 of 2 classes have no picture in train: 'a' (val 0, test 20)");
    free(text);
    fv_dataset_free(d);
    ck_assert_int_eq(fvt_open_set("synthetic", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_refused(fv_dataset_save_split(d, split), FV_E_USAGE, NULL, "only sets of picture files");
    ck_assert_ptr_null(fv_dataset_file(d, 0));
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- bad pictures */

static void put_bad_set(void) {
    char name[32];
    for (int i = 0; i < 12; i++) {
        snprintf(name, sizeof name, "set/%c/%02d.png", 'a' + i % 2, i);
        put_png(name, (uint8_t)(10 * i));
    }
    put_text("set/a/02.png", "no picture");
    put("set/b/05.png", "\x89PNG\r\n\x1a\n", 8);
    put_png("set/b/07.png", 40); /* as a/04.png */
    put_png("set/b/09.png", 30); /* as b/03.png */
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
    if (caches[_i] != FV_CACHE_NONE) refused("set", &strict, FV_E_DATA, "set/a/02.png", "");
    fv_dataset *d = opened("set", &opts);
    ck_assert_int_eq(d->count, 10);
    ck_assert_ptr_nonnull(strstr(log_text, "set: 2 of 12 files are left out"));
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
    fv_dataset *again = opened("set", &saved);
    ck_assert_uint_eq(again->fingerprint, d->fingerprint);
    fv_dataset_free(again);
    fv_dataset_free(d);
    for (int i = 1; i < 12; i += 2) { /* a class that loses all */
        char name[32];
        snprintf(name, sizeof name, "set/b/%02d.png", i);
        put_text(name, "bad");
    }
    refused("set", &opts, FV_E_DATA, "set", "1 of 2 classes have no picture in train: 'b'");
    for (int i = 0; i < 12; i += 2) {
        char name[32];
        snprintf(name, sizeof name, "set/a/%02d.png", i);
        put_text(name, "bad");
    }
    refused("set", &opts, FV_E_DATA, "set", "none of its files can be decoded");
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
    put("set/a/long.jpg", file, size + n);
    put("set/b/bad.jpg", all, n);
    free(all);
    free(file);
    fv_free(&fvt_sets.ctx, data, size + 1, 1);
    fv_file_report *report;
    fv_dataset *d = opened("set", &plain);
    for (int decode = 0; decode < 2; decode++) {
        ck_assert_int_eq(fv_dataset_inspect(d, decode, &plain, &d->arena, &report), FV_OK);
        ck_assert_ptr_null(report[0].problem);
        ck_assert(report[0].info.h == photos.h[i] && report[0].info.w == photos.w[i]);
        ck_assert_ptr_nonnull(report[1].problem);
    }
    unlink(fvt_in_folder("set/b/bad.jpg")); /* meanwhile */
    ck_assert_int_eq(fv_dataset_inspect(d, false, &plain, &d->arena, &report), FV_OK);
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
    const fv_dataset_opts opts = {.img_size = 8, .workers = _i, .progress = report_progress, .progress_user = &done};
    fv_dataset *d = opened("set", &opts);
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
            if (decode && number == 7) copy = find_file(d, "a/04.png");
            if (decode && number == 9) copy = find_file(d, "b/03.png");
            ck_assert_int_eq(report[i].copy_of, copy);
        }
    }
    fv_arena_free(&arena);
    fv_dataset_free(d);
    fvt_ck_refused(fv_data_check(&fvt_sets.ctx, fvt_in_folder("set"), NULL), FV_E_DATA, "set",
                   "2 of 12 files cannot be decoded; the first is a/02.png");
    ck_assert_ptr_nonnull(strstr(log_text, "b/07.png has the same bytes as a/04.png"));
    put_png("set/a/02.png", 1);
    put_png("set/b/05.png", 2);
    ck_assert_int_eq(fv_data_check(&fvt_sets.ctx, fvt_in_folder("set"), NULL), FV_OK);
    ck_assert_int_eq(fvt_open_set("synthetic", FV_SPLIT_TRAIN, &d), FV_OK);
    fvt_ck_refused(fv_dataset_inspect(d, true, &opts, &d->arena, &report), FV_E_USAGE, NULL, "only sets of picture");
    fv_dataset_free(d);
}
END_TEST

/* ---------------------------------------------------------------- failing memory and files */

static void fail_each_allocation(const char *name, const fv_dataset_opts *opts) {
    fv_dataset *d;
    for (int64_t n = 1;; n++) {
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = open_with(name, opts, &d);
        bool reached = fvt_sets.memory.calls >= n;
        fvt_sets.memory.fail_at = 0;
        if (!reached) {
            ck_assert_int_eq(status, FV_OK);
            fv_dataset_free(d);
            ck_assert_int_gt(n, 3);
            return;
        }
        ck_assert_msg(status == FV_E_MEMORY, "allocation %lld: status %d: %s", (long long)n, (int)status,
                      fvt_sets.ctx.error.message);
        ck_assert_int_eq(fvt_sets.memory.live, 0);
    }
}

START_TEST(test_failing_memory) {
    char split[FV_DATA_PATH], text[2048] = "";
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    for (int i = 0; i < 12; i++) {
        char name[32];
        snprintf(name, sizeof name, "set/train/%c/%02d.png", 'a' + i % 2, i);
        put_png(name, (uint8_t)i);
        sprintf(text + strlen(text), "%s,%c%s\n", name, 'a' + i % 2, i ? "" : "|c");
    }
    put_text("set/train/a/bad.png", "x");
    put_text("list.csv", text);
    for (int i = 0; i < 70; i++) {
        char name[32];
        snprintf(name, sizeof name, "many/train/%d", i);
        put_many(name, 0, 5);
        snprintf(name, sizeof name, "many/test/%d", i);
        put_many(name, 0, 1);
    }
    const fv_dataset_opts hash = {.img_size = 2, .val_split = 0.2, .test_split = 0.2};
    fail_each_allocation("set", &hash);
    fail_each_allocation("list.csv", &hash);
    fail_each_allocation("many", &hash);
    fv_dataset *d = opened("list.csv", &hash);
    fvt_sets.memory.fail_at = fvt_sets.memory.calls + 1;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_E_MEMORY);
    fvt_sets.memory.fail_at = 0;
    ck_assert_int_eq(fv_dataset_save_split(d, split), FV_OK);
    fv_dataset_free(d);
    const fv_dataset_opts file = {.img_size = 2, .split_file = split};
    fail_each_allocation("list.csv", &file);
    const fv_dataset_opts cached = {.img_size = 2, .cache = FV_CACHE_RAM, .skip_bad = true, .workers = 1};
    fail_each_allocation("set", &cached);
}
END_TEST

START_TEST(test_failing_inspection) {
    put_bad_set();
    const fv_dataset_opts opts = {.img_size = 8, .workers = 1};
    fv_dataset *d = opened("set", &opts);
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
    put_pictures();
    put_text("list.csv", "a.jpg,x\nb.jpg,y\nc.jpg,x\n");
    put_text("split.csv", "a.jpg,train\nb.jpg,train\nc.jpg,test\n");
    const fv_dataset_opts opts = {.img_size = 8, .split_file = split};
    fv_dataset *d;
    static const fvt_call reads[] = {FVT_OPEN, FVT_READ, FVT_SIZE};
    for (int c = 0; c < 3; c++)
        for (int64_t n = 1;; n++) {
            fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
            fvt_sets.files.fail = reads[c];
            fvt_sets.files.fail_at = n;
            fv_status status = open_with("list.csv", &opts, &d);
            bool reached = fvt_sets.files.calls[reads[c]] >= n;
            ck_assert_int_eq(fvt_sets.files.open_files, 0);
            ck_assert_int_eq(status, reached ? FV_E_IO : FV_OK);
            if (status != FV_OK) continue;
            fv_dataset_free(d);
            break;
        }
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    d = opened("list.csv", &opts);
    static const fvt_call writes[] = {FVT_OPEN, FVT_WRITE, FVT_FSYNC, FVT_CLOSE, FVT_RENAME};
    for (int c = 0; c < 5; c++) { /* what was there before stays */
        fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
        fvt_sets.files.fail = writes[c];
        fvt_sets.files.fail_at = 1;
        fvt_sets.files.error = ENOSPC;
        put_text("kept.csv", "before");
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

Suite *files_suite(void) {
    Suite *suite = suite_create("files");
    TCase *tcase = tcase_create("sets of files");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, fvt_sets_teardown);
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
    tcase_add_loop_test(tcase, test_csv, 0, sizeof good_csv / sizeof *good_csv);
    tcase_add_test(tcase, test_several_labels);
    tcase_add_loop_test(tcase, test_bad_csv, 0, sizeof bad_csv / sizeof *bad_csv);
    tcase_add_test(tcase, test_csv_limits);
    tcase_add_test(tcase, test_csv_bomb);
    tcase_add_test(tcase, test_hostile_csv);
    tcase_add_test(tcase, test_split_file);
    tcase_add_loop_test(tcase, test_skip_bad, 0, 3);
    tcase_add_test(tcase, test_long_headers);
    tcase_add_loop_test(tcase, test_inspect, 0, 4);
    tcase_add_test(tcase, test_failing_memory);
    tcase_add_test(tcase, test_failing_inspection);
    tcase_add_test(tcase, test_failing_files);
    suite_add_tcase(suite, tcase);
    return suite;
}
