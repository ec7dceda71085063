/* file_set.c: from a list of picture files to a dataset: what is bad left out, parts given, classes counted. */
#include "data/listing.h"

#include <stdio.h>
#include <string.h>

#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

#define MOST_TARGETS ((size_t)4 << 30) /* bytes of flags: pictures times classes */

fv_status fv_file_path(fv_ctx *ctx, const fv_file_set *files, int64_t i, char out[FV_DATA_PATH]) {
    const char *path = files->path[i];
    bool whole = path[0] == '/' || !files->root[0];
    int n = whole ? snprintf(out, FV_DATA_PATH, "%s", path) : snprintf(out, FV_DATA_PATH, "%s/%s", files->root, path);
    if (n > 0 && n < FV_DATA_PATH) return FV_OK;
    return fv_fail_at(ctx, FV_E_DATA, path, -1, "a path of %d bytes; at most %d can be used", n, FV_DATA_PATH - 1);
}

const char *fv_dataset_file(const fv_dataset *d, int64_t index) {
    return d->files ? d->files->path[index] : NULL;
}

static fv_status check_opts(fv_ctx *ctx, const fv_dataset_opts *o) {
    if (o->img_size == 0) {
        fv_fail(ctx, FV_E_USAGE, "pictures in files have any size: which one the model takes must be said");
        return fv_hint(ctx, "--img-size 224, or another size");
    }
    if (o->img_size < 0 || o->img_size > FV_IMAGE_MOST_SIDE)
        return fv_fail(ctx, FV_E_USAGE, "a size of %d pixels; it must be from 1 to %d", o->img_size,
                       FV_IMAGE_MOST_SIDE);
    if (o->in_chans < 0 || o->in_chans > 4)
        return fv_fail(ctx, FV_E_USAGE, "%d channels; pictures in files can be read with 1 to 4", o->in_chans);
    if (!(o->crop_pct >= 0 && o->crop_pct <= 1))
        return fv_fail(ctx, FV_E_USAGE, "a crop share of %g; it must be above 0 and at most 1", o->crop_pct);
    if (!(o->val_split >= 0 && o->test_split >= 0 && o->val_split + o->test_split < 1))
        return fv_fail(ctx, FV_E_USAGE, "shares of %g for validation and %g for testing leave nothing to train on",
                       o->val_split, o->test_split);
    return FV_OK;
}

/* ---------------------------------------------------------------- files */

static fv_status make_files(fv_dataset *d, const fv_listing *list, const fv_dataset_opts *opts) {
    size_t n = (size_t)list->count;
    fv_file_set *files = fv_arena_alloc(&d->arena, 1, sizeof *files);
    const char **path = fv_arena_alloc(&d->arena, n, sizeof *path);
    int64_t *bytes = fv_arena_alloc(&d->arena, n, sizeof *bytes);
    if (!files || !path || !bytes) return FV_E_MEMORY;
    for (size_t i = 0; i < n; i++) {
        path[i] = list->item[i].path;
        bytes[i] = list->item[i].bytes;
    }
    memcpy(files->root, list->root, sizeof files->root);
    files->count = list->count;
    files->path = path;
    files->bytes = bytes;
    files->size = d->h = d->w = opts->img_size;
    files->c = d->c = opts->in_chans ? opts->in_chans : 3;
    files->crop_pct = opts->crop_pct > 0 ? opts->crop_pct : 1;
    files->filter = opts->filter;
    d->files = files;
    return FV_OK;
}

/* The list without the bad ones. The cache knows the files by the places they had. */
static fv_status leave_out(fv_dataset *d, fv_listing *list, const uint8_t *bad) {
    int64_t n = 0;
    for (int64_t i = 0; i < list->count; i++) n += !bad[i];
    int64_t *slot = fv_arena_alloc(&d->arena, (size_t)n, sizeof *slot);
    if (!slot) return FV_E_MEMORY;
    n = 0;
    for (int64_t i = 0; i < list->count; i++) {
        if (bad[i]) continue;
        slot[n] = i;
        list->item[n++] = list->item[i];
    }
    fv_log(d->ctx, FV_LOG_WARN, "%s: %lld of %lld files are left out", list->source, (long long)(list->count - n),
           (long long)list->count);
    list->count = n;
    if (n == 0) return fv_fail_at(d->ctx, FV_E_DATA, list->source, -1, "none of its files can be decoded");
    fv_picture_cache *cache = d->files->cache;
    fv_dataset_opts opts = {.img_size = d->files->size,
                            .in_chans = d->files->c,
                            .crop_pct = d->files->crop_pct,
                            .filter = d->files->filter};
    FV_TRY(make_files(d, list, &opts));
    d->files->cache = cache;
    d->files->slot = slot;
    return FV_OK;
}

static fv_status open_cache(fv_dataset *d, fv_listing *list, const fv_dataset_opts *opts) {
    if (opts->cache == FV_CACHE_NONE && !opts->skip_bad) return FV_OK;
    size_t n = (size_t)list->count;
    uint8_t *bad = fv_calloc(d->ctx, n, 1);
    if (!bad) return FV_E_MEMORY;
    fv_status status = fv_picture_cache_open(d->ctx, d->files, opts, bad);
    if (status == FV_OK && opts->skip_bad && memchr(bad, 1, n)) status = leave_out(d, list, bad);
    fv_free(d->ctx, bad, n, 1);
    return status;
}

/* ---------------------------------------------------------------- classes */

/* A class can only be learnt from pictures in train. */
static fv_status check_classes(fv_dataset *d, const fv_listing *list) {
    size_t n = (size_t)list->classes;
    if (n == 0) return fv_fail_at(d->ctx, FV_E_DATA, list->source, -1, "no picture has a label");
    if (n < 2 && !list->several) {
        fv_fail_at(d->ctx, FV_E_DATA, list->source, -1, "there is only one class, '%s': nothing to tell apart",
                   list->class_names[0]);
        if (list->item[0].line) return FV_E_DATA; /* a list */
        return fv_hint(d->ctx, "name the folder that holds the class folders; perhaps that is %s/%s", list->root,
                       list->class_names[0]);
    }
    int64_t(*count)[FV_PART_COUNT] = fv_calloc(d->ctx, n, sizeof *count);
    if (!count) return FV_E_MEMORY;
    for (int64_t i = 0; i < list->count; i++) {
        const fv_listed *item = &list->item[i];
        for (int32_t k = 0; k < item->labels; k++) count[list->label[item->first + k]][item->part]++;
    }
    fv_few empty = {0};
    for (size_t k = 0; k < n; k++)
        if (!count[k][FV_PART_TRAIN])
            fv_few_add(&empty, "'%.100s' (val %lld, test %lld)", list->class_names[k], (long long)count[k][FV_PART_VAL],
                       (long long)count[k][FV_PART_TEST]);
    fv_free(d->ctx, count, n, sizeof *count);
    if (!empty.count) return FV_OK;
    fv_fail_at(d->ctx, FV_E_DATA, list->source, -1, "%lld of %zu classes have no picture in train: %s",
               (long long)empty.count, n, fv_few_text(&empty));
    return fv_hint(d->ctx,
                   "every class needs a picture to train on: move some there, or take the class out of the set");
}

static fv_status put_labels(fv_dataset *d, const fv_listing *list) {
    size_t n = (size_t)list->count, classes = (size_t)list->classes, flags = 0;
    if (list->several && (!fv_size_mul(n, classes, &flags) || flags > MOST_TARGETS))
        return fv_fail_at(d->ctx, FV_E_DATA, list->source, -1,
                          "%zu pictures with flags for %zu classes each are more than can be held", n, classes);
    int32_t *label = fv_arena_alloc(&d->arena, n, sizeof *label);
    uint8_t *part = fv_arena_alloc(&d->arena, n, 1);
    uint8_t *target = list->several ? fv_arena_alloc(&d->arena, flags, 1) : NULL;
    if (!label || !part || (list->several && !target)) return FV_E_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const fv_listed *item = &list->item[i];
        label[i] = fv_listing_label(list, item);
        part[i] = item->part;
        for (int32_t k = 0; target && k < item->labels; k++)
            target[i * classes + (size_t)list->label[item->first + k]] = 1;
    }
    d->count = list->count;
    d->labels = label;
    d->part = part;
    d->targets = target;
    d->classes = list->classes;
    d->class_names = list->class_names;
    memcpy(d->has_part, list->has_part, sizeof d->has_part);
    return FV_OK;
}

static uint64_t fingerprint(const fv_listing *list) {
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (int32_t k = 0; k < list->classes; k++)
        XXH3_64bits_update(&state, list->class_names[k], strlen(list->class_names[k]) + 1);
    for (int64_t i = 0; i < list->count; i++) {
        const fv_listed *item = &list->item[i];
        XXH3_64bits_update(&state, item->path, strlen(item->path) + 1);
        XXH3_64bits_update(&state, &item->bytes, sizeof item->bytes);
        XXH3_64bits_update(&state, &item->labels, sizeof item->labels);
        if (item->labels)
            XXH3_64bits_update(&state, list->label + item->first, (size_t)item->labels * sizeof *list->label);
        XXH3_64bits_update(&state, &item->part, 1);
    }
    return XXH3_64bits_digest(&state);
}

/* ---------------------------------------------------------------- opening */

static fv_status fill(fv_dataset *d, fv_listing *list, const fv_data_place *place, const fv_dataset_opts *opts) {
    bool folder = place->files == FV_FILES_FOLDER;
    FV_TRY(folder ? fv_folder_list(list, place->folder) : fv_csv_list(list, place->folder, opts));
    if (opts->split_file) FV_TRY(fv_parts_from_file(list, opts->split_file));
    if (opts->split_file && !opts->skip_bad)
        FV_TRY(fv_parts_check(list, opts->split_file)); /* bad ones may lack there */
    FV_TRY(make_files(d, list, opts));
    FV_TRY(open_cache(d, list, opts));
    FV_TRY(opts->split_file ? fv_parts_check(list, opts->split_file)
                            : fv_parts_by_hash(list, opts->val_split, opts->test_split));
    FV_TRY(check_classes(d, list));
    FV_TRY(put_labels(d, list));
    d->fingerprint = fingerprint(list);
    return FV_OK;
}

fv_status fv_file_set_open(fv_dataset *d, const fv_data_place *place, const fv_dataset_opts *opts) {
    FV_TRY(check_opts(d->ctx, opts));
    snprintf(d->name, sizeof d->name, "%s", place->label);
    snprintf(d->path, sizeof d->path, "%s", place->folder);
    fv_listing list;
    fv_listing_init(&list, d->ctx, &d->arena);
    fv_status status = fill(d, &list, place, opts);
    fv_listing_free(&list);
    return status;
}
