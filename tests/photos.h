/* photos.h: a set of small picture files in a folder of its own, painted from waves. */
#ifndef FV_TESTS_PHOTOS_H
#define FV_TESTS_PHOTOS_H

#include "data/internal.h"
#include "tests/faults.h"

#define FVT_PHOTOS_MOST 64
#define FVT_PICTURE ((size_t)24 * 24 * 3) /* bytes of one as batches have it */

typedef struct fvt_photos {
    fv_ctx ctx;
    fvt_memory memory;
    fvt_files io;
    char folder[128], caches[160]; /* the second is a folder for caches in the first, not made yet */
    char name[FVT_PHOTOS_MOST][32];
    const char *path[FVT_PHOTOS_MOST];
    int64_t bytes[FVT_PHOTOS_MOST];
    int32_t h[FVT_PHOTOS_MOST], w[FVT_PHOTOS_MOST];
    int32_t labels[FVT_PHOTOS_MOST];
    fv_file_set files;
    fv_dataset set; /* made of them, 3 classes of 1/2, 1/3, 1/6 */
    int warnings;
    char warning[512]; /* the last */
} fvt_photos;

/* `n` files of many sizes, JPEG and PNG, for pictures of 24 x 24 that are cut from a shorter side of 32. */
void fvt_photos_make(fvt_photos *p, int n);
void fvt_photos_remove(fvt_photos *p); /* also sees that all memory and files were given back */
/* Path of a file in the folder; valid until the next call. */
const char *fvt_photos_at(const fvt_photos *p, const char *name);
/* Paint file i anew: others pixels of the same size. */
void fvt_photos_paint(fvt_photos *p, int i, uint32_t seed);
/* Make a JPEG stop in the middle. */
void fvt_photos_cut(fvt_photos *p, int i);

fv_status fvt_photos_open_cache(fvt_photos *p, fv_cache cache, int workers, bool skip_bad, uint8_t *bad);
void fvt_photos_close_cache(fvt_photos *p);
/* The same, which must work, without bad files. */
void fvt_photos_cached(fvt_photos *p, fv_cache cache, int workers);
/* The path of the only file in the folder of caches that ends so; valid until the next call. */
const char *fvt_photos_cache_file(const fvt_photos *p, const char *ending);
/* All pictures as evaluation sees them, one behind the other. */
void fvt_photos_load(fvt_photos *p, fv_decoder *decoder, uint8_t *to);

int64_t fvt_file_bytes(const char *path);
void fvt_flip_bit(const char *path, int64_t byte);

#endif
