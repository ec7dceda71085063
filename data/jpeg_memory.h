/* jpeg_memory.h: a memory manager for libjpeg that takes its memory from a context and keeps it from picture to
 * picture. The library calls it through the public struct jpeg_memory_mgr. */
#ifndef FV_DATA_JPEG_MEMORY_H
#define FV_DATA_JPEG_MEMORY_H

#include "core/core.h"

#include <stdio.h> /* jpeglib.h needs it */
#include <jpeglib.h>

struct fv_jpeg_block;

typedef struct fv_jpeg_memory {
    struct jpeg_memory_mgr methods; /* first: all that the library sees of this */
    fv_ctx *ctx;
    struct fv_jpeg_block *blocks; /* the newest first */
    size_t used, limit;           /* bytes of this picture, and the most it may take */
    struct jvirt_barray_control *arrays;
    bool out_of_memory; /* the context's allocator refused, and the error says so */
} fv_jpeg_memory;

/* Everything the library takes after this call lives until fv_jpeg_memory_reset, that is, for one picture. */
void fv_jpeg_memory_init(fv_jpeg_memory *m, fv_ctx *ctx);
void fv_jpeg_memory_reset(fv_jpeg_memory *m, size_t limit);
void fv_jpeg_memory_free(fv_jpeg_memory *m);

#endif
