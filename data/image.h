/* image.h: what the readers of picture files share. Not installed.
 *
 *   bytes ─► jpeg.c, png.c, webp.c ─► pixels as stored ─► channels asked for ─► EXIF orientation ─► fv_image
 *                    exif.c ──────────── orientation ───────────────────────────┘            (image.c)
 */
#ifndef FV_DATA_IMAGE_H
#define FV_DATA_IMAGE_H

#include "data/files.h"

/* ---- memory that grows and is kept */
typedef struct fv_image_memory {
    void *data;
    size_t bytes;
} fv_image_memory;
fv_status fv_image_reserve(fv_ctx *ctx, fv_image_memory *b, size_t bytes); /* what was in it is lost when it grows */
void fv_image_release(fv_ctx *ctx, fv_image_memory *b);

/* ---- a file and what its reader found */
typedef struct fv_image_file {
    const uint8_t *data;
    size_t bytes;
    const char *name; /* for messages */
} fv_image_file;

typedef struct fv_stored_image { /* before channels and orientation are seen to */
    int32_t h, w, c;
    int32_t orientation;
    uint8_t *pixels; /* [h,w,c], after decoding: somewhere in `to` */
} fv_stored_image;

/* FV_E_DATA, naming the file, for a picture without pixels or with too many. */
fv_status fv_image_check_size(fv_ctx *ctx, const fv_image_file *file, int64_t h, int64_t w);

/* Orientation in a TIFF block ("II*" or "MM*", perhaps behind "Exif\0\0"): 1 to 8, and 1 for none or a damaged block.
 */
int32_t fv_exif_orientation(const uint8_t *block, size_t bytes);

/* ---- readers. Each gives [h,w,c] in `to`, with 1 to 4 channels: grey, grey and alpha, colour, colour and alpha. */
typedef struct fv_jpeg fv_jpeg;
fv_status fv_jpeg_create(fv_ctx *ctx, fv_jpeg **out);
void fv_jpeg_destroy(fv_jpeg *j);
fv_status fv_jpeg_probe(fv_jpeg *j, const fv_image_file *file, fv_stored_image *stored);
/* min_h, min_w: as fv_decode_opts. */
fv_status fv_jpeg_decode(fv_jpeg *j, const fv_image_file *file, int32_t min_h, int32_t min_w, fv_image_memory *to,
                         fv_stored_image *stored);

fv_status fv_png_probe(fv_ctx *ctx, const fv_image_file *file, fv_stored_image *stored);
fv_status fv_png_decode(fv_ctx *ctx, const fv_image_file *file, fv_image_memory *to, fv_stored_image *stored);

typedef struct fv_webp { /* libwebp, opened at the first such picture */
    const char *name;    /* NULL: as on Linux (tests take another) */
    void *library;
    int (*get_info)(const uint8_t *data, size_t bytes, int *w, int *h);
    uint8_t *(*decode_rgb)(const uint8_t *data, size_t bytes, uint8_t *out, size_t out_bytes, int stride);
    uint8_t *(*decode_rgba)(const uint8_t *data, size_t bytes, uint8_t *out, size_t out_bytes, int stride);
} fv_webp;
void fv_webp_close(fv_webp *webp);
fv_status fv_webp_probe(fv_ctx *ctx, const fv_image_file *file, fv_stored_image *stored);
fv_status fv_webp_decode(fv_ctx *ctx, fv_webp *webp, const fv_image_file *file, fv_image_memory *to,
                         fv_stored_image *stored);

/* ---- resizing (resize.c) */
typedef struct fv_resize_axis { /* output i is the sum of its weights times input[first[i] + k], k < count[i] */
    int32_t in, out;            /* what it was made for ... */
    double start, length;
    fv_filter filter;
    int32_t taps;           /* the most any output has; even */
    int32_t *first, *count; /* [out]; count is even, what was added weighs 0 */
    int16_t *weight;        /* [out,taps/2,4], see resize.c */
    fv_image_memory memory; /* ... of the three */
} fv_resize_axis;
typedef struct fv_resizer {
    fv_resize_axis across, down;
    fv_image_memory exact;  /* weights of an output before rounding */
    fv_image_memory row;    /* source rows, side by side, as the first pass reads them */
    fv_image_memory middle; /* [rows,out_w,c] between the passes */
    bool plain;             /* portable loops instead of the processor's: the same results (for tests) */
} fv_resizer;
void fv_resizer_free(fv_ctx *ctx, fv_resizer *r);

/* ---- */
struct fv_decoder {
    fv_ctx *ctx;
    fv_jpeg *jpeg; /* made at the first JPEG */
    fv_webp webp;
    fv_image_memory file;      /* fv_decoder_file_buffer */
    fv_image_memory pixels[2]; /* the picture is in one of them; the other is for channels and orientation */
    fv_resizer resizer;
};

#endif
