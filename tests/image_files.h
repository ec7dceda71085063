/* image_files.h: pictures in files for the tests of data/: tests/vectors/image, and the decoder of the running test. */
#ifndef FV_TESTS_IMAGE_FILES_H
#define FV_TESTS_IMAGE_FILES_H

#include "data/image.h"
#include "tests/faults.h"

#define FVT_IMAGE_VECTORS "tests/vectors/image/"

extern struct fvt_images { /* of the running test */
    fv_ctx ctx;
    fvt_memory memory;
    fv_decoder *decoder;
    bool webp; /* libwebp is there */
} fvt_images;

/* Fixtures. Whatever a test did: afterwards no memory may be left. */
void fvt_images_setup(void);
void fvt_images_teardown(void);

typedef struct fvt_bytes { /* of malloc, and exactly so large, so that reading past the end shows */
    uint8_t *data;
    size_t size;
} fvt_bytes;
fvt_bytes fvt_copy_bytes(const void *data, size_t size);
fvt_bytes fvt_read_path(const char *path);
fvt_bytes fvt_read_image(const char *name); /* of the vectors */
/* A file that this machine cannot read, for want of libwebp. */
bool fvt_image_skipped(const char *name);

fv_status fvt_decode(fvt_bytes b, const char *name, int32_t channels, fv_image *image);
/* A call failed as it should, names "some/file" and says `message`. */
void fvt_ck_image_refused(fv_status got, const char *message);
double fvt_seconds(void);

#endif
