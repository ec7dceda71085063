/* file_sets.c: see file_sets.h. */
#include "tests/file_sets.h"

#include <check.h>
#include <stdio.h>
#include <string.h>

char fvt_log[8192];

static void keep_log(void *user, fv_log_level level, const char *line) {
    (void)user;
    size_t used = strlen(fvt_log);
    snprintf(fvt_log + used, sizeof fvt_log - used, "%s%s\n", level == FV_LOG_WARN ? "W " : "  ", line);
}

void fvt_files_setup(void) {
    fvt_sets_setup();
    fvt_log[0] = 0;
    fvt_sets.ctx.log = keep_log;
}

void fvt_put(const char *name, const void *data, size_t bytes) {
    char folder[FV_DATA_PATH];
    ck_assert_int_eq(fv_data_parent(&fvt_sets.ctx, fvt_in_folder(name), folder), FV_OK);
    ck_assert_int_eq(fv_data_mkdirs(&fvt_sets.ctx, folder), FV_OK);
    fvt_put_file(fvt_in_folder(name), data, bytes);
}

void fvt_put_text(const char *name, const char *text) {
    fvt_put(name, text, strlen(text));
}

static size_t put_chunk(uint8_t *to, const char *type, const uint8_t *data, uint32_t bytes) {
    fvt_put_number(to, bytes);
    memcpy(to + 4, type, 4);
    if (bytes) memcpy(to + 8, data, bytes);
    fvt_put_number(to + 8 + bytes, (uint32_t)crc32(0, to + 4, bytes + 4));
    return bytes + 12;
}

void fvt_put_png(const char *name, uint8_t value) {
    const uint8_t head[13] = {0, 0, 0, 2, 0, 0, 0, 2, 8, 0, 0, 0, 0}, rows[6] = {0, value, value, 0, value, value};
    uint8_t file[256] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'}, packed[64];
    uLongf n_packed = sizeof packed;
    ck_assert_int_eq(compress(packed, &n_packed, rows, sizeof rows), Z_OK);
    size_t n = 8;
    n += put_chunk(file + n, "IHDR", head, sizeof head);
    n += put_chunk(file + n, "IDAT", packed, (uint32_t)n_packed);
    n += put_chunk(file + n, "IEND", NULL, 0);
    fvt_put(name, file, n);
}

void fvt_put_many(const char *folder, int first, int n) {
    char name[256];
    for (int i = first; i < first + n; i++) {
        snprintf(name, sizeof name, "%s/%d.jpg", folder, i);
        fvt_put(name, "0123456789", (size_t)(1 + i % 9));
    }
}

const fv_dataset_opts fvt_plain = {.img_size = 8};

fv_status fvt_open_files(const char *name, const fv_dataset_opts *opts, fv_dataset **d) {
    return fv_dataset_open(&fvt_sets.ctx, fvt_in_folder(name), FV_SPLIT_TRAIN, opts, d);
}

fv_dataset *fvt_opened(const char *name, const fv_dataset_opts *opts) {
    fv_dataset *d = NULL;
    ck_assert_msg(fvt_open_files(name, opts, &d) == FV_OK, "%s: %s (%s)", fvt_sets.ctx.error.path,
                  fvt_sets.ctx.error.message, fvt_sets.ctx.error.hint);
    return d;
}

void fvt_refused(const char *name, const fv_dataset_opts *opts, fv_status expected, const char *path,
                 const char *message) {
    fv_dataset *d = NULL;
    int64_t live = fvt_sets.memory.live;
    fvt_ck_refused(fvt_open_files(name, opts, &d), expected, path, message);
    ck_assert_ptr_null(d);
    ck_assert_int_eq(fvt_sets.memory.live, live);
}

int64_t fvt_in_part(const fv_dataset *d, int32_t label, fv_part part) {
    int64_t n = 0;
    for (int64_t i = 0; i < d->count; i++) n += d->part[i] == part && (label < 0 || d->labels[i] == label);
    return n;
}

int64_t fvt_find_file(const fv_dataset *d, const char *path) {
    for (int64_t i = 0; i < d->count; i++)
        if (strcmp(fv_dataset_file(d, i), path) == 0) return i;
    ck_abort_msg("%s is not in the set", path);
}

void fvt_put_pictures(void) {
    static const char *const names[] = {"a.jpg", "b.jpg", "c.jpg", "d.jpg", "sub/e.jpg", "with, comma.jpg", "q\"q.jpg"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) fvt_put_text(names[i], "picture");
}

void fvt_keep_progress(void *user, const char *what, int64_t done, int64_t total) {
    int64_t *last = user;
    ck_assert(what && done >= 0 && done <= total);
    *last = done;
}

void fvt_fail_each_allocation(const char *name, const fv_dataset_opts *opts) {
    fv_dataset *d;
    for (int64_t n = 1;; n++) {
        fvt_sets.memory.calls = 0;
        fvt_sets.memory.fail_at = n;
        fv_status status = fvt_open_files(name, opts, &d);
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
