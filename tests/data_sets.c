/* data_sets.c: see data_sets.h. */
#include "tests/data_sets.h"

#include <check.h>
#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct fvt_sets fvt_sets;

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at) {
    (void)st, (void)type, (void)at;
    return remove(path);
}

void fvt_sets_setup(void) {
    fvt_make_folder(fvt_sets.folder);
    fv_ctx_init(&fvt_sets.ctx);
    fvt_files_install(&fvt_sets.files, &fvt_sets.ctx);
    fvt_memory_install(&fvt_sets.memory, &fvt_sets.ctx);
    unsetenv("FOVEA_DATA");
}

void fvt_sets_teardown(void) {
    ck_assert_int_eq(fvt_sets.memory.live, 0);
    ck_assert_int_eq(fvt_sets.files.open_files, 0);
    ck_assert_int_eq(nftw(fvt_sets.folder, remove_entry, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* ---------------------------------------------------------------- small sets: record i has label (7 i) % 10 */

uint8_t fvt_pixel(int64_t record, int64_t j) {
    return (uint8_t)((31 * record + j + j / 256) % 251);
}

int32_t fvt_label_of(int64_t record) {
    return (int32_t)(7 * record % 10);
}

const char *fvt_in_folder(const char *name) {
    static char path[8][512];
    static int at;
    at = (at + 1) % 8;
    snprintf(path[at], sizeof path[at], "%s/%s", fvt_sets.folder, name);
    return path[at];
}

void fvt_make_dirs(const char *name) {
    ck_assert_int_eq(fv_data_mkdirs(&fvt_sets.ctx, fvt_in_folder(name)), FV_OK);
}

size_t fvt_cifar_bytes(uint8_t *out, int64_t first, int64_t n, int label_bytes) {
    uint8_t *p = out;
    for (int64_t i = first; i < first + n; i++) {
        if (label_bytes == 2) *p++ = 19;
        *p++ = (uint8_t)fvt_label_of(i);
        for (int64_t j = 0; j < 3072; j++) *p++ = fvt_pixel(i, j);
    }
    return (size_t)(p - out);
}

void fvt_put_cifar10(const char *below) {
    uint8_t bytes[2 * 3073];
    char name[64];
    for (int i = 0; i < 6; i++) {
        if (i < 5) snprintf(name, sizeof name, "%s/data_batch_%d.bin", below, i + 1);
        else snprintf(name, sizeof name, "%s/test_batch.bin", below);
        fvt_put_file(fvt_in_folder(name), bytes, fvt_cifar_bytes(bytes, i < 5 ? 2 * i : 0, 2, 1));
    }
}

void fvt_ck_cifar_records(const fv_dataset *d, int64_t count) {
    ck_assert_int_eq(d->count, count);
    ck_assert(d->h == 32 && d->w == 32 && d->c == 3);
    for (int64_t i = 0; i < count; i++) {
        ck_assert_int_eq(d->labels[i], fvt_label_of(i));
        for (int64_t j = 0; j < 3072; j++)
            ck_assert_uint_eq(d->images[i * 3072 + 3 * (j % 1024) + j / 1024], fvt_pixel(i, j));
    }
    ck_assert_uint_eq(d->fingerprint, fv_dataset_hash(d));
}

void fvt_put_number(uint8_t *to, uint32_t n) {
    for (int i = 0; i < 4; i++) to[i] = (uint8_t)(n >> (24 - 8 * i));
}

size_t fvt_idx_images(uint8_t *out, uint32_t n, uint32_t h, uint32_t w) {
    fvt_put_number(out, 0x803);
    fvt_put_number(out + 4, n);
    fvt_put_number(out + 8, h);
    fvt_put_number(out + 12, w);
    for (uint32_t i = 0; i < n * h * w; i++) out[16 + i] = (uint8_t)(3 * i);
    return 16 + (size_t)n * h * w;
}

size_t fvt_idx_labels(uint8_t *out, uint32_t n) {
    fvt_put_number(out, 0x801);
    fvt_put_number(out + 4, n);
    for (uint32_t i = 0; i < n; i++) out[8 + i] = (uint8_t)fvt_label_of(i);
    return 8 + n;
}

size_t fvt_gzip(const uint8_t *from, size_t bytes, uint8_t *to, size_t room) {
    z_stream z = {
        .next_in = (uint8_t *)(uintptr_t)from, .avail_in = (uInt)bytes, .next_out = to, .avail_out = (uInt)room};
    ck_assert_int_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    ck_assert_int_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    deflateEnd(&z);
    return room - z.avail_out;
}

void fvt_put_idx(const char *images, const char *labels, bool packed, uint32_t n) {
    uint8_t plain[4096], gz[4096];
    size_t size = fvt_idx_images(plain, n, 5, 4);
    size_t packed_size = fvt_gzip(plain, size, gz, sizeof gz);
    fvt_put_file(fvt_in_folder(images), packed ? gz : plain, packed ? packed_size : size);
    size = fvt_idx_labels(plain, n);
    packed_size = fvt_gzip(plain, size, gz, sizeof gz);
    fvt_put_file(fvt_in_folder(labels), packed ? gz : plain, packed ? packed_size : size);
}

fv_status fvt_open_set(const char *name, fv_split split, fv_dataset **d) {
    const fv_dataset_opts opts = {.root = fvt_sets.folder};
    return fv_dataset_open(&fvt_sets.ctx, name, split, &opts, d);
}

void fvt_ck_refused(fv_status got, fv_status expected, const char *path, const char *message) {
    ck_assert_msg(got == expected, "status %d (%s: %s), not %d", (int)got, fvt_sets.ctx.error.path,
                  fvt_sets.ctx.error.message, (int)expected);
    if (path)
        ck_assert_msg(strstr(fvt_sets.ctx.error.path, path) != NULL, "path '%s', not '%s'", fvt_sets.ctx.error.path,
                      path);
    ck_assert_msg(strstr(fvt_sets.ctx.error.message, message) != NULL, "message '%s' lacks '%s'",
                  fvt_sets.ctx.error.message, message);
}

size_t fvt_read_pickle(const char *name, uint8_t *to, size_t room) {
    char path[128];
    snprintf(path, sizeof path, "tests/vectors/pickles/%s", name);
    FILE *f = fopen(path, "rb");
    ck_assert_msg(f != NULL, "%s: %s (tests run in the root of the repository)", path, strerror(errno));
    size_t n = fread(to, 1, room, f);
    fclose(f);
    ck_assert_uint_lt(n, room);
    return n;
}

const char *const fvt_pickles[FVT_PICKLES] = {"protocol0.pkl", "protocol1.pkl",   "protocol2.pkl",
                                              "protocol3.pkl", "protocol4.pkl",   "python2.pkl",
                                              "fortran.pkl",   "label_array.pkl", "byte_keys.pkl"};
