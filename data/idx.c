/* idx.c: IDX files (MNIST and its family), plain or gzipped: a magic number with type and rank, the sizes as big-endian
 * 32-bit numbers, the bytes. */
#include "data/internal.h"

#include <stdio.h>
#include <string.h>

#define MOST_BYTES ((uint64_t)4 << 30) /* of images in one file */

typedef struct idx_file {
    fv_stream stream;
    int64_t dim[3];
    uint64_t bytes; /* of the elements */
} idx_file;

static uint32_t big_endian32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* The header, checked against what the file can hold. */
static fv_status read_header(idx_file *f, fv_ctx *ctx, const char *path, int rank) {
    unsigned char head[16];
    FV_TRY(fv_stream_read(&f->stream, head, 4 + 4 * (size_t)rank));
    uint32_t magic = big_endian32(head), expected = 0x0800u | (uint32_t)rank;
    if (magic != expected)
        return fv_fail_at(ctx, FV_E_DATA, path, 0, "magic number 0x%08x; 0x%08x (bytes in %d dimensions) was expected",
                          magic, expected, rank);
    size_t bytes = 1;
    for (int i = 0; i < rank; i++) {
        f->dim[i] = big_endian32(head + 4 + (size_t)4 * i);
        if (f->dim[i] == 0) return fv_fail_at(ctx, FV_E_DATA, path, 4 + 4 * i, "dimension %d is 0", i);
        if (!fv_size_mul(bytes, (size_t)f->dim[i], &bytes)) bytes = SIZE_MAX;
    }
    f->bytes = bytes;
    if (f->bytes > MOST_BYTES || f->bytes > fv_stream_bound(&f->stream))
        return fv_fail_at(ctx, FV_E_DATA, path, 4, "the header speaks of %llu bytes, more than the file can hold",
                          (unsigned long long)f->bytes);
    return FV_OK;
}

static fv_status open_idx(idx_file *f, fv_ctx *ctx, const char *path, int rank) {
    memset(f, 0, sizeof *f);
    FV_TRY(fv_stream_open(&f->stream, ctx, path));
    fv_status status = read_header(f, ctx, path, rank);
    if (status != FV_OK) fv_stream_close(&f->stream);
    return status;
}

static fv_status read_all(idx_file *f, void *to) {
    fv_status status = fv_stream_read(&f->stream, to, (size_t)f->bytes);
    if (status == FV_OK) status = fv_stream_finish(&f->stream);
    fv_stream_close(&f->stream);
    return status;
}

static fv_status find(fv_dataset *d, const fv_data_place *place, const char *stem, int rank, char path[FV_DATA_PATH]) {
    if (fv_idx_find(d->ctx, place->folder, stem, rank, path)) return FV_OK;
    fv_fail_at(d->ctx, FV_E_DATA, place->folder, -1, "no %s-idx%d-ubyte (or .gz) in this folder", stem, rank);
    return fv_hint(d->ctx, "the set is incomplete: 'fovea data get' fetches MNIST and Fashion-MNIST");
}

typedef struct idx_labels {
    char path[FV_DATA_PATH];
    uint8_t *bytes;
    int64_t count;
} idx_labels;

static fv_status read_labels(fv_dataset *d, const fv_data_place *place, fv_split split, idx_labels *out) {
    idx_file f;
    FV_TRY(find(d, place, place->layout->files[split][1].name, 1, out->path));
    FV_TRY(open_idx(&f, d->ctx, out->path, 1));
    out->count = f.dim[0];
    out->bytes = fv_alloc(d->ctx, (size_t)out->count, 1);
    if (!out->bytes) {
        fv_stream_close(&f.stream);
        return FV_E_MEMORY;
    }
    return read_all(&f, out->bytes);
}

static void free_labels(fv_dataset *d, idx_labels *l) {
    if (l->bytes) fv_free(d->ctx, l->bytes, (size_t)l->count, 1);
    l->bytes = NULL;
}

/* Without a known count, both splits decide together how many classes there are. */
static fv_status count_classes(fv_dataset *d, const fv_data_place *place, fv_split split, const idx_labels *own,
                               int32_t *classes) {
    idx_labels other = {.bytes = NULL};
    char path[FV_DATA_PATH];
    int32_t most = 0;
    for (int64_t i = 0; i < own->count; i++) most = own->bytes[i] > most ? own->bytes[i] : most;
    if (fv_idx_find(d->ctx, place->folder, place->layout->files[!split][1].name, 1, path)) {
        fv_status status = read_labels(d, place, !split, &other);
        for (int64_t i = 0; status == FV_OK && i < other.count; i++)
            most = other.bytes[i] > most ? other.bytes[i] : most;
        free_labels(d, &other);
        FV_TRY(status);
    }
    *classes = most + 1;
    return FV_OK;
}

static fv_status read_with_labels(fv_dataset *d, const fv_data_place *place, fv_split split, const idx_labels *l) {
    const fv_data_kind *kind = place->kind;
    char path[FV_DATA_PATH];
    idx_file f;
    uint8_t *images;
    int32_t *labels, classes = kind->classes;
    FV_TRY(find(d, place, place->layout->files[split][0].name, 3, path));
    if (classes == 0) FV_TRY(count_classes(d, place, split, l, &classes));
    FV_TRY(fv_dataset_names(d, classes, kind->class_names));
    FV_TRY(open_idx(&f, d->ctx, path, 3));
    fv_status status = fv_dataset_reserve(d, path, f.dim[0], f.dim[1], f.dim[2], 1, &images, &labels);
    if (status == FV_OK && f.dim[0] != l->count)
        status = fv_fail_at(d->ctx, FV_E_DATA, path, 4, "%lld images, but %s holds %lld labels", (long long)f.dim[0],
                            l->path, (long long)l->count);
    if (status != FV_OK) {
        fv_stream_close(&f.stream);
        return status;
    }
    FV_TRY(read_all(&f, images));
    for (int64_t i = 0; i < l->count; i++) {
        if (l->bytes[i] >= classes)
            return fv_fail_at(d->ctx, FV_E_DATA, l->path, 8 + i, "record %lld has label %d; labels run from 0 to %d",
                              (long long)i, l->bytes[i], classes - 1);
        labels[i] = l->bytes[i];
    }
    d->fingerprint = fv_dataset_hash(d);
    return FV_OK;
}

fv_status fv_idx_read(fv_dataset *d, const fv_data_place *place, fv_split split) {
    idx_labels labels = {.bytes = NULL};
    fv_status status = read_labels(d, place, split, &labels);
    if (status == FV_OK) status = read_with_labels(d, place, split, &labels);
    free_labels(d, &labels);
    return status;
}
