/* dataset.c: opening a dataset by name or path, and what is the same for all of them. */
#include "data/internal.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

#define MOST_BYTES ((size_t)1 << 40)
#define MOST_SIDE 65535

fv_status fv_dataset_reserve(fv_dataset *d, const char *path, int64_t count, int64_t h, int64_t w, int64_t c,
                             uint8_t **images, int32_t **labels) {
    size_t bytes = 0;
    bool fits = count >= 0 && h > 0 && w > 0 && c > 0 && h <= MOST_SIDE && w <= MOST_SIDE && c <= 1024 &&
                fv_size_mul((size_t)count, (size_t)(h * w), &bytes) && fv_size_mul(bytes, (size_t)c, &bytes) &&
                bytes <= MOST_BYTES;
    if (!fits)
        return fv_fail_at(d->ctx, FV_E_DATA, path, -1,
                          "%lld images of %lld x %lld pixels and %lld channels are more than can be held",
                          (long long)count, (long long)h, (long long)w, (long long)c);
    if (count == 0) return fv_fail_at(d->ctx, FV_E_DATA, path, -1, "holds no images");
    int32_t *label = fv_arena_alloc(&d->arena, (size_t)count, sizeof *label);
    if (!label) return FV_E_MEMORY;
    d->images_ = fv_alloc(d->ctx, bytes, 1);
    if (!d->images_) return fv_fail_memory(d->ctx, bytes, "the images");
    d->images_bytes_ = bytes;
    d->images = *images = d->images_;
    d->labels = *labels = label;
    d->count = count;
    d->h = (int32_t)h;
    d->w = (int32_t)w;
    d->c = (int32_t)c;
    return FV_OK;
}

fv_status fv_dataset_names(fv_dataset *d, int32_t classes, const char *const *names) {
    d->class_names = fv_arena_alloc(&d->arena, (size_t)classes, sizeof *d->class_names);
    if (!d->class_names) return FV_E_MEMORY;
    for (int32_t i = 0; i < classes; i++) {
        d->class_names[i] = names ? fv_arena_strdup(&d->arena, names[i]) : fv_arena_printf(&d->arena, "%d", i);
        if (!d->class_names[i]) return FV_E_MEMORY;
    }
    d->classes = classes;
    return FV_OK;
}

uint64_t fv_dataset_hash(const fv_dataset *d) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    XXH3_64bits_update(&state, d->images, d->images_bytes_);
    XXH3_64bits_update(&state, d->labels, (size_t)d->count * sizeof *d->labels);
    return XXH3_64bits_digest(&state);
}

static fv_status read_place(fv_dataset *d, const fv_data_place *place, fv_split split, const fv_dataset_opts *opts) {
    if (place->files) return fv_file_set_open(d, place, opts);
    snprintf(d->name, sizeof d->name, "%s", place->label);
    snprintf(d->path, sizeof d->path, "%s", place->folder);
    switch (place->layout->format) {
    case FV_FORMAT_CIFAR_BINARY: return fv_cifar_binary_read(d, place, split);
    case FV_FORMAT_CIFAR_PYTHON: return fv_cifar_python_read(d, place, split);
    case FV_FORMAT_IDX: return fv_idx_read(d, place, split);
    }
    return fv_fail(d->ctx, FV_E_INTERNAL, "unknown dataset format %d", (int)place->layout->format);
}

fv_status fv_dataset_open(fv_ctx *ctx, const char *name, fv_split split, const fv_dataset_opts *opts,
                          fv_dataset **out) {
    const fv_dataset_opts none = {0};
    if (!opts) opts = &none;
    *out = NULL;
    fv_data_place place;
    bool synthetic = strcmp(name, "synthetic") == 0;
    if (!synthetic) FV_TRY(fv_data_locate(ctx, name, opts->root, split, &place));
    fv_dataset *d = fv_calloc(ctx, 1, sizeof *d);
    if (!d) return FV_E_MEMORY;
    d->ctx = ctx;
    fv_arena_init(&d->arena, ctx);
    fv_status status = synthetic ? fv_synthetic_make(d, split, opts) : read_place(d, &place, split, opts);
    if (status != FV_OK) {
        fv_dataset_free(d);
        return status;
    }
    *out = d;
    return FV_OK;
}

void fv_dataset_free(fv_dataset *d) {
    if (!d) return;
    if (d->files) fv_picture_cache_close(d->files->cache);
    if (d->images_) fv_free(d->ctx, d->images_, d->images_bytes_, 1);
    fv_arena_free(&d->arena);
    fv_free(d->ctx, d, 1, sizeof *d);
}
