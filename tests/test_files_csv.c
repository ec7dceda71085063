/* test_files_csv.c: CSV lists of pictures: every form that is read, every one that is refused, and damaged ones. */
#include "tests/file_sets.h"

#include <check.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

Suite *files_csv_suite(void);

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

START_TEST(test_csv) {
    fvt_put_pictures();
    fvt_put_text("list.csv", good_csv[_i].text);
    int64_t looked = -1;
    const fv_dataset_opts opts = {.img_size = 8, .progress = fvt_keep_progress, .progress_user = &looked};
    fv_dataset *d = fvt_opened("list.csv", &opts);
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
        fvt_put_text(name, "x");
        sprintf(text + strlen(text), "p/%02d.jpg,%s%s\n", i,
                i % 2   ? "odd"
                : i % 3 ? "even"
                        : "",
                i % 2 ? i % 20 == 7 ? "|rare" : "|all" : "");
    }
    fvt_put_text("list.csv", text);
    for (int round = 0; round < 2; round++) {
        const fv_dataset_opts opts = {.img_size = 8, .val_split = round ? 0.45 : 0.1, .test_split = round ? 0.5 : 0.1};
        fv_dataset *d = fvt_opened("list.csv", &opts);
        ck_assert_int_eq(d->classes, 4);
        int64_t trained[4] = {0};
        for (int64_t i = 0; i < d->count; i++)
            for (int32_t k = 0; k < 4; k++) trained[k] += d->part[i] == FV_PART_TRAIN && d->targets[i * 4 + k];
        for (int32_t k = 0; k < 4; k++) ck_assert_int_ge(trained[k], 1);
        ck_assert_int_eq(d->labels[0], -1);
        ck_assert_str_eq(d->class_names[d->labels[7]], "odd");
        if (!round) ck_assert_int_eq(fvt_in_part(d, d->labels[1], FV_PART_VAL), 3); /* of 30 odd ones */
        fv_dataset_free(d);
    }
    ck_assert_ptr_nonnull(strstr(fvt_log, "several labels per picture, since line 2"));
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
    {"a.jpg,\nb.jpg,\n", "no picture has a label"},
    {"a.jpg,x,train\nb.jpg,y,test\n", "1 of 2 classes have no picture in train: 'y' (val 0, test 1)"},
    {"\xff\xfe"
     "a",
     "is UTF-16 text"},
    {"\xfe\xff"
     "a",
     "is UTF-16 text"},
};

START_TEST(test_bad_csv) {
    fvt_put_pictures();
    ck_assert_int_eq(mkfifo(fvt_in_folder("fifo.jpg"), 0600), 0);
    fvt_put_text("list.csv", bad_csv[_i].text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", bad_csv[_i].message);
}
END_TEST

START_TEST(test_csv_limits) {
    fvt_put_pictures();
    fvt_put("list.csv", "a.jpg,x\nb.jpg,y\0z\n", 18);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "holds a byte 0");
    ck_assert_int_eq(fvt_sets.ctx.error.offset, 15);
    size_t size = 70000;
    char *text = malloc(size + 1);
    memset(text, 'x', size);
    text[size] = 0;
    memcpy(text, "a.jpg,x\nb.jpg,", 14);
    fvt_put("list.csv", text, size);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: longer than 65536 bytes");
    memset(text + 14, ',', 300);
    fvt_put("list.csv", text, 14 + 300);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: more than 256 columns");
    text[14] = '"';
    memset(text + 15, '\n', size - 15);
    fvt_put("list.csv", text, size);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: a quote is opened and never closed");
    text[size - 1] = '"';
    fvt_put("list.csv", text, size);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: longer than 65536 bytes");
    memset(text + 14, 'x', 600);
    text[14 + 600] = 0;
    fvt_put_text("list.csv", text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: the label '");
    memcpy(text, "a.jpg,x\n/", 9);
    memset(text + 9, 'x', 600);
    memcpy(text + 609, ",y", 3);
    fvt_put_text("list.csv", text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: a path of ");
    free(text);
    text = malloc(1 << 20);
    char *p = text + sprintf(text, "a.jpg,x\nb.jpg,0");
    for (int i = 1; i <= 4096; i++) p += sprintf(p, "|%d", i);
    fvt_put_text("list.csv", text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 2: more than 4096 labels");
    p = text;
    for (int i = 0; i <= 100000; i++)
        p += i % 4000 ? sprintf(p, "|%d", i) : sprintf(p, "%sp%d.jpg,%d", i ? "\n" : "", i / 4000, i);
    fvt_put_text("list.csv", text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "line 26: more than 100000 different labels");
    free(text);
    /* an absolute path is taken as it is */
    char line[FV_DATA_PATH + 32];
    snprintf(line, sizeof line, "a.jpg,x\n%s,y\n", fvt_in_folder("b.jpg"));
    fvt_make_dirs("lists");
    fvt_put_text("lists/list.csv", line);
    fvt_refused("lists/list.csv", &fvt_plain, FV_E_DATA, "list.csv", "1 of 2 files are not there: line 1 'a.jpg'");
    fvt_put_text("lists/a.jpg", "x");
    fv_dataset *d = fvt_opened("lists/list.csv", &fvt_plain);
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
    fvt_put_text("list.csv", text);
    free(text);
    fvt_refused("list.csv", &fvt_plain, FV_E_DATA, "list.csv", "43500 pictures with flags for 100000 classes each");
    ck_assert_uint_lt(fvt_sets.memory.peak, 64 << 20);
}
END_TEST

/* Every truncation and every flip of a bit: a set that holds together, or FV_E_DATA. */
static int64_t good, bad;

static void try_bytes(const char *name, const uint8_t *bytes, size_t size, const char *set,
                      const fv_dataset_opts *opts) {
    fv_dataset *d = NULL;
    fvt_put_file(fvt_in_folder(name), bytes, size);
    fv_status status = fvt_open_files(set, opts, &d);
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
    fvt_put_pictures();
    fvt_sets.ctx.log = NULL;
    damage("list.csv",
           "path,label,split\r\na.jpg,x,train\r\n\"b.jpg\",\"y\",train\r\nc.jpg,x,val\r\nsub/e.jpg,y,test\r\n"
           "\"with, comma.jpg\",\"x|y\",train\nd.jpg,,train\n",
           "list.csv", &fvt_plain);
    char split[FV_DATA_PATH];
    snprintf(split, sizeof split, "%s", fvt_in_folder("split.csv"));
    const fv_dataset_opts opts = {.img_size = 8, .split_file = split};
    fvt_put_text("list.csv", "a.jpg,x\nb.jpg,y\nc.jpg,x\n\"with, comma.jpg\",y\n");
    damage("split.csv", "path,part\na.jpg,train\nb.jpg,train\n\"c.jpg\",val\r\n\"with, comma.jpg\",test\n", "list.csv",
           &opts);
}
END_TEST

Suite *files_csv_suite(void) {
    Suite *suite = suite_create("files_csv");
    TCase *tcase = tcase_create("CSV");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, fvt_files_setup, fvt_sets_teardown);
    tcase_add_loop_test(tcase, test_csv, 0, sizeof good_csv / sizeof *good_csv);
    tcase_add_test(tcase, test_several_labels);
    tcase_add_loop_test(tcase, test_bad_csv, 0, sizeof bad_csv / sizeof *bad_csv);
    tcase_add_test(tcase, test_csv_limits);
    tcase_add_test(tcase, test_csv_bomb);
    tcase_add_test(tcase, test_hostile_csv);
    suite_add_tcase(suite, tcase);
    return suite;
}
