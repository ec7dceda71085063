/* picture.c: a file, or what the cache keeps of it, to the picture that a batch gets. */
#include "data/cache.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

/* A JPEG is decoded at a reduced size if a random crop of it still has so many times the pixels of the output on each
 * side. docs/decisions.md has what that costs. */
#define REDUCED_LEAST 2

typedef struct picture { /* decoded or kept */
    fv_image image;
    int32_t h, w;  /* of the file */
    fv_box filled; /* what the file's pixels fill of the image */
    void *own;     /* memory of the image that is given back after use; NULL: somebody else's */
    size_t own_bytes;
} picture;

/* ---------------------------------------------------------------- sizes */

int64_t fv_picture_shorter_side(const fv_file_set *files) { /* as timm rounds it */
    return (int64_t)floor(files->size / (files->crop_pct > 0.0 ? files->crop_pct : 1.0));
}

/* Size after the evaluation resize: torchvision's Resize of the shorter side. */
static void evaluation_size(const fv_file_set *files, int32_t h, int32_t w, int64_t *to_h, int64_t *to_w) {
    int64_t shorter = fv_picture_shorter_side(files);
    *to_h = h <= w ? shorter : shorter * h / w;
    *to_w = h <= w ? shorter * w / h : shorter;
}

void fv_picture_kept_size(const fv_file_set *files, int32_t h, int32_t w, int32_t *kept_h, int32_t *kept_w) {
    int64_t to_h, to_w;
    evaluation_size(files, h, w, &to_h, &to_w);
    bool smaller = to_h < h || to_w < w;
    *kept_h = smaller ? (int32_t)to_h : h;
    *kept_w = smaller ? (int32_t)to_w : w;
}

/* ---------------------------------------------------------------- files */

fv_status fv_picture_read(const fv_file_set *files, fv_decoder *decoder, int64_t i, fv_picture_file *out) {
    fv_ctx *ctx = fv_decoder_ctx(decoder);
    fv_reader reader;
    FV_TRY(fv_file_path(ctx, files, i, out->path));
    FV_TRY(fv_data_open(&reader, ctx, out->path));
    fv_status status = FV_OK;
    if (reader.size > FV_FILE_MOST_BYTES)
        status =
            fv_fail_at(ctx, FV_E_DATA, out->path, -1, "%" PRIu64 " bytes are more than a picture may have (%zu MiB)",
                       reader.size, FV_FILE_MOST_BYTES >> 20);
    out->bytes = (size_t)reader.size;
    out->data = status == FV_OK ? fv_decoder_file_buffer(decoder, out->bytes + 1) : NULL;
    if (status == FV_OK && !out->data) status = FV_E_MEMORY;
    if (status == FV_OK) status = fv_read(&reader, out->data, out->bytes);
    fv_reader_close(&reader);
    return status;
}

/* libjpeg reduces each side to m/8 of it and rounds up: the last pixel may be filled in part. */
static fv_box filled_part(const fv_image *image, int32_t h, int32_t w) {
    for (int64_t m = 8; m > 0; m--)
        if ((h * m + 7) / 8 == image->h && (w * m + 7) / 8 == image->w)
            return (fv_box){0, 0, (double)(h * m) / 8.0, (double)(w * m) / 8.0};
    return (fv_box){0, 0, image->h, image->w};
}

/* A line of pixels, made so wide that it can be cut to a square, is longer than any picture may be. */
static fv_status check_shape(const fv_file_set *files, fv_ctx *ctx, const char *path, int32_t h, int32_t w) {
    int64_t to_h, to_w;
    evaluation_size(files, h, w, &to_h, &to_w);
    if (to_h <= FV_IMAGE_MOST_SIDE && to_w <= FV_IMAGE_MOST_SIDE) return FV_OK;
    return fv_fail_at(ctx, FV_E_DATA, path, -1, "a picture of %d x %d pixels is too narrow for a square of %d", w, h,
                      files->size);
}

/* min_h, min_w: as in fv_decode_opts; 0: at full size, and out->h, out->w are not known yet. */
static fv_status decode(const fv_file_set *files, fv_decoder *decoder, const fv_picture_file *file, int32_t min_h,
                        int32_t min_w, picture *out) {
    const fv_decode_opts opts = {.channels = files->c, .min_h = min_h, .min_w = min_w};
    FV_TRY(fv_image_decode(decoder, file->data, file->bytes, file->path, &opts, &out->image));
    if (min_h == 0) {
        out->h = out->image.h;
        out->w = out->image.w;
    }
    out->filled = filled_part(&out->image, out->h, out->w);
    return check_shape(files, fv_decoder_ctx(decoder), file->path, out->h, out->w);
}

fv_status fv_picture_try(const fv_file_set *files, fv_decoder *decoder, int64_t i) {
    fv_picture_file file;
    picture p = {0};
    FV_TRY(fv_picture_read(files, decoder, i, &file));
    return decode(files, decoder, &file, 0, 0, &p);
}

static bool is_random(const fv_picture_draw *draw) {
    return draw && draw->augment && draw->augment->scale[1] > 0.0;
}

static fv_box random_box(const fv_picture_draw *draw, int32_t h, int32_t w) {
    return fv_augment_box(draw->augment, draw->seed, draw->epoch, draw->key, h, w);
}

/* Pixels that one side of the whole picture must be decoded to, for `part` of it to have REDUCED_LEAST * size. */
static int32_t least_side(int32_t whole, double part, int32_t size) {
    double least = ceil((double)whole * REDUCED_LEAST * size / part);
    return least < whole ? (int32_t)least : whole;
}

static fv_status from_file(const fv_file_set *files, fv_decoder *decoder, int64_t i, const fv_picture_draw *draw,
                           picture *out) {
    fv_picture_file file;
    FV_TRY(fv_picture_read(files, decoder, i, &file));
    if (!is_random(draw)) return decode(files, decoder, &file, 0, 0, out);
    fv_image_info info;
    FV_TRY(fv_image_probe(decoder, file.data, file.bytes, file.path, &info));
    fv_box box = random_box(draw, info.h, info.w);
    out->h = info.h;
    out->w = info.w;
    return decode(files, decoder, &file, least_side(info.h, box.h, files->size), least_side(info.w, box.w, files->size),
                  out);
}

/* ---------------------------------------------------------------- what the cache keeps */

static fv_box whole_of(const fv_image *image) {
    return (fv_box){0, 0, image->h, image->w};
}

fv_status fv_picture_keep(const fv_file_set *files, fv_decoder *decoder, const fv_picture_file *file, int32_t h,
                          int32_t w, uint8_t *dst) {
    picture p = {0};
    int32_t kept_h, kept_w;
    FV_TRY(decode(files, decoder, file, 0, 0, &p));
    if (p.h != h || p.w != w)
        return fv_fail_at(fv_decoder_ctx(decoder), FV_E_IO, file->path, -1,
                          "changed while it was being read: %d x %d pixels, before %d x %d", p.w, p.h, w, h);
    fv_picture_kept_size(files, h, w, &kept_h, &kept_w);
    if (kept_h == h && kept_w == w) {
        memcpy(dst, p.image.pixels, (size_t)h * (size_t)w * (size_t)files->c);
        return FV_OK;
    }
    return fv_image_resize(decoder, &p.image, whole_of(&p.image), files->filter, kept_h, kept_w, dst);
}

static fv_status from_cache(const fv_file_set *files, fv_decoder *decoder, int64_t i, picture *out) {
    int64_t slot = files->slot ? files->slot[i] : i;
    const fv_kept *kept = &files->cache->kept[slot];
    const uint8_t *pixels = fv_cache_pixels(files->cache, slot);
    *out = (picture){.image = {.pixels = pixels, .h = kept->h, .w = kept->w, .c = files->c},
                     .h = kept->full_h,
                     .w = kept->full_w,
                     .filled = {0, 0, kept->h, kept->w}};
    if (pixels) return FV_OK;
    fv_picture_file file; /* damaged: make what it should be */
    fv_ctx *ctx = fv_decoder_ctx(decoder);
    FV_TRY(fv_picture_read(files, decoder, i, &file));
    size_t bytes = (size_t)kept->h * (size_t)kept->w * (size_t)files->c;
    uint8_t *own = fv_alloc(ctx, bytes, 1);
    if (!own) return FV_E_MEMORY;
    out->image.pixels = out->own = own;
    out->own_bytes = bytes;
    return fv_picture_keep(files, decoder, &file, kept->full_h, kept->full_w, own);
}

/* ---------------------------------------------------------------- what the batch gets */

/* torchvision's CenterCrop rounds halves to even, as Python does. */
static int32_t middle_of(int64_t whole, int32_t part) {
    return (int32_t)rint((double)(whole - part) / 2.0);
}

static fv_status middle(const fv_file_set *files, fv_decoder *decoder, const picture *p, uint8_t *out) {
    const int32_t size = files->size;
    int64_t h, w;
    evaluation_size(files, p->h, p->w, &h, &w);
    int32_t top = middle_of(h, size), left = middle_of(w, size);
    if (p->image.h != h || p->image.w != w)
        return fv_image_resize_window(decoder, &p->image, p->filled, files->filter, (int32_t)h, (int32_t)w, top, left,
                                      size, size, out);
    size_t row = (size_t)size * (size_t)files->c, pitch = (size_t)w * (size_t)files->c;
    const uint8_t *from = p->image.pixels + (size_t)top * pitch + (size_t)left * (size_t)files->c;
    for (int32_t y = 0; y < size; y++) memcpy(out + (size_t)y * row, from + (size_t)y * pitch, row);
    return FV_OK;
}

/* From start, length within [0, whole) of the file to the image, of which it fills `filled`. */
static void scale_side(double *start, double *length, double filled, double whole) {
    *start *= filled / whole;
    *length *= filled / whole;
    if (*start + *length > filled) *length = filled - *start; /* by a rounding */
}

static fv_status random_crop(const fv_file_set *files, fv_decoder *decoder, const picture *p,
                             const fv_picture_draw *draw, uint8_t *out) {
    fv_box box = random_box(draw, p->h, p->w);
    scale_side(&box.top, &box.h, p->filled.h, p->h);
    scale_side(&box.left, &box.w, p->filled.w, p->w);
    return fv_image_resize(decoder, &p->image, box, files->filter, files->size, files->size, out);
}

fv_status fv_picture_load(const fv_file_set *files, fv_decoder *decoder, int64_t i, const fv_picture_draw *draw,
                          uint8_t *out) {
    picture p = {0};
    fv_status status = files->cache ? from_cache(files, decoder, i, &p) : from_file(files, decoder, i, draw, &p);
    if (status == FV_OK)
        status = is_random(draw) ? random_crop(files, decoder, &p, draw, out) : middle(files, decoder, &p, out);
    if (p.own) fv_free(fv_decoder_ctx(decoder), p.own, p.own_bytes, 1);
    return status;
}

fv_status fv_dataset_picture(const fv_dataset *d, fv_decoder *decoder, int64_t index, uint8_t *out) {
    if (index < 0 || index >= d->count)
        return fv_fail(fv_decoder_ctx(decoder), FV_E_USAGE, "there is no sample %lld among %lld", (long long)index,
                       (long long)d->count);
    if (d->files) return fv_picture_load(d->files, decoder, index, NULL, out);
    size_t bytes = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    memcpy(out, d->images + (size_t)index * bytes, bytes);
    return FV_OK;
}
