/* files.h: sets of pictures in files: what folder.c and csv.c find, what picture.c decodes, what cache.c keeps.
 *
 *   path[i] ─► read ─► decode (EXIF orientation, channels) ─► box: middle or random crop ─► resize ─► [size,size,c]
 *                 └─── cache: the picture after its evaluation resize, before the crop ──┘
 */
#ifndef FV_DATA_FILES_H
#define FV_DATA_FILES_H

#include "data/data.h"

typedef struct fv_picture_cache fv_picture_cache;

struct fv_file_set {
    char root[512]; /* the paths begin here; "": in the working directory */
    int64_t count;
    const char *const *path; /* [count], below root (one that begins with / stands for itself); sorted within a folder
                                set, in file order in a CSV set */
    const int64_t *bytes;    /* [count], size of each file */
    int32_t size, c;         /* side and channels of the pictures given */
    double crop_pct;
    fv_filter filter;
    fv_picture_cache *cache; /* NULL: files are decoded each time */
    const int64_t *slot;     /* [count]: place in the cache; NULL: i. Bad files that were left out had places, too */
};
/* The path that opens file i; FV_E_DATA if it is too long. */
fv_status fv_file_path(fv_ctx *ctx, const fv_file_set *files, int64_t i, char out[512]);

#define FV_FILE_MOST_BYTES ((size_t)256 << 20) /* a larger picture file is refused */

/* ---- what image.c gives besides data.h */
fv_ctx *fv_decoder_ctx(const fv_decoder *d); /* the one it was created with */
/* Memory for the bytes of a file, kept by the decoder and only ever grown; NULL, with the error set, if there is none.
 * Its contents are lost when it grows. */
void *fv_decoder_file_buffer(fv_decoder *d, size_t bytes);
/* A window of the picture that fv_image_resize(d, src, box, filter, full_h, full_w, ...) would make, at no more than
 * its own cost: the same bits as that picture's rows from top and columns from left. dst: [h,w,c]. */
fv_status fv_image_resize_window(fv_decoder *d, const fv_image *src, fv_box box, fv_filter filter, int32_t full_h,
                                 int32_t full_w, int32_t top, int32_t left, int32_t h, int32_t w, uint8_t *dst);

/* ---- pictures (picture.c, augment.c) */
/* The random resized crop of one draw, whole pixels of a picture of h x w: torchvision's RandomResizedCrop. */
fv_box fv_augment_box(const fv_augment_cfg *cfg, uint64_t seed, int64_t epoch, int64_t index, int32_t h, int32_t w);
/* Read and decode file i into [size,size,c]: its middle (augment NULL, or without `scale`), or the random resized crop
 * of (seed, epoch, key). */
typedef struct fv_picture_draw {
    const fv_augment_cfg *augment; /* NULL: evaluation */
    uint64_t seed;
    int64_t epoch, key;
} fv_picture_draw;
fv_status fv_picture_load(const fv_file_set *files, fv_decoder *decoder, int64_t i, const fv_picture_draw *draw,
                          uint8_t *out);

/* Make or open the cache of a set; *bad [count] is set for files that cannot be decoded when skip_bad, else the first
 * such file is the error. With FV_CACHE_NONE and skip_bad the files are only looked at. */
fv_status fv_picture_cache_open(fv_ctx *ctx, fv_file_set *files, const fv_dataset_opts *opts, uint8_t *bad);
void fv_picture_cache_close(fv_picture_cache *cache); /* NULL is fine */

#endif
