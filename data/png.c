/* png.c: PNG files through libpng (ISO/IEC 15948). Ancillary chunks are passed over, but for transparency and EXIF;
 * gamma and colour profiles do not touch the pixels. */
#include "data/image.h"

#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#define SIGNATURE 8
#define CHUNK_AROUND 12                    /* length, type and checksum */
#define MOST_CHUNK_BYTES ((size_t)8 << 20) /* of memory for a single chunk */
#define DEFLATE_MOST 1032                  /* times so much at most does deflate unpack to */
#define BLOCK_HEADER 64                    /* before each block: its size; keeps libpng's data aligned */

/* ---------------------------------------------------------------- header, transparency, orientation */

static uint32_t number(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

typedef struct chunk {
    size_t at; /* of its data */
    size_t bytes;
    const uint8_t *type;
} chunk;

/* The chunk at *at, and *at behind it; false at the end of the file, cut or not. */
static bool next_chunk(const fv_image_file *f, size_t *at, chunk *c) {
    if (f->bytes - *at < CHUNK_AROUND) return false;
    *c = (chunk){.at = *at + 8, .bytes = number(f->data + *at), .type = f->data + *at + 4};
    if (c->bytes > f->bytes - *at - CHUNK_AROUND) return false;
    *at += c->bytes + CHUNK_AROUND;
    return true;
}

static fv_status truncated_header(fv_ctx *ctx, const fv_image_file *f) {
    return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)f->bytes, "truncated PNG: the file ends in its header");
}

fv_status fv_png_probe(fv_ctx *ctx, const fv_image_file *f, fv_stored_image *s) {
    static const uint8_t channels[7] = {1, 0, 3, 3, 2, 0, 4}; /* by colour type; 3 is a palette */
    size_t at = SIGNATURE;
    chunk c;
    if (!next_chunk(f, &at, &c)) return truncated_header(ctx, f);
    const uint8_t *head = f->data + c.at;
    if (memcmp(c.type, "IHDR", 4) != 0 || c.bytes != 13)
        return fv_fail_at(ctx, FV_E_DATA, f->name, SIGNATURE, "damaged PNG: it does not begin with a header");
    if (number(head + 13) != crc32(crc32(0, NULL, 0), c.type, 17))
        return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)c.at + 13, "damaged PNG: IHDR: CRC error");
    uint32_t w = number(head), h = number(head + 4);
    uint8_t depth = head[8], colour = head[9];
    FV_TRY(fv_image_check_size(ctx, f, h, w));
    if (colour > 6 || channels[colour] == 0 || depth == 0 || depth > 16 || (depth & (depth - 1)))
        return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)c.at + 8, "damaged PNG: colour type %d with %d bits",
                          colour, depth);
    *s = (fv_stored_image){.h = (int32_t)h, .w = (int32_t)w, .c = channels[colour], .orientation = 1};
    uint64_t row_bits = (uint64_t)w * depth * (colour == 3 ? 1 : channels[colour]);
    if ((uint64_t)h * ((row_bits + 7) / 8) / DEFLATE_MOST > f->bytes)
        return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)f->bytes,
                          "truncated PNG: %zu bytes are too few for %u x %u pixels", f->bytes, w, h);
    bool pixels = false;
    while (next_chunk(f, &at, &c) && memcmp(c.type, "IEND", 4) != 0) {
        if (!memcmp(c.type, "IDAT", 4)) pixels = true;
        if (!memcmp(c.type, "eXIf", 4)) s->orientation = fv_exif_orientation(f->data + c.at, c.bytes);
        if (!memcmp(c.type, "tRNS", 4) && !pixels && (s->c & 1)) s->c++;
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- libpng's hooks */

typedef struct reader {
    fv_ctx *ctx;
    const fv_image_file *file;
    fv_image_memory *to;
    fv_stored_image *stored;
    png_structp png;
    png_infop info;
    size_t at;    /* bytes of the file that were read */
    bool in_rows; /* ... `row` counts */
    int32_t row;
    fv_status status;
    jmp_buf jump;
} reader;

static _Noreturn void refuse(reader *r, int64_t offset, const char *what) {
    const char *name = r->file->name;
    if (!r->in_rows) r->status = fv_fail_at(r->ctx, FV_E_DATA, name, offset, "%s", what);
    else r->status = fv_fail_at(r->ctx, FV_E_DATA, name, offset, "%s at row %d of %d", what, r->row, r->stored->h);
    longjmp(r->jump, 1);
}

static void on_error(png_structp png, png_const_charp text) {
    reader *r = png_get_error_ptr(png);
    char what[256];
    if (r->status == FV_E_MEMORY) longjmp(r->jump, 1); /* the allocator has said so */
    snprintf(what, sizeof what, "damaged PNG: %s", text);
    refuse(r, (int64_t)r->at, what);
}

/* Of chunks that are passed over, or data too much: the pixels are whole, their checksums hold. */
static void on_warning(png_structp png, png_const_charp text) {
    (void)png, (void)text;
}

static void on_read(png_structp png, png_bytep out, size_t bytes) {
    reader *r = png_get_io_ptr(png);
    if (bytes > r->file->bytes - r->at) refuse(r, (int64_t)r->file->bytes, "truncated PNG");
    memcpy(out, r->file->data + r->at, bytes);
    r->at += bytes;
}

static png_voidp on_alloc(png_structp png, png_alloc_size_t bytes) {
    reader *r = png_get_mem_ptr(png);
    size_t total;
    unsigned char *block = fv_size_add(bytes, BLOCK_HEADER, &total) ? fv_alloc(r->ctx, total, 1) : NULL;
    if (!block) {
        r->status = FV_E_MEMORY;
        return NULL;
    }
    memcpy(block, &total, sizeof total);
    return block + BLOCK_HEADER;
}

static void on_free(png_structp png, png_voidp ptr) {
    reader *r = png_get_mem_ptr(png);
    size_t total;
    if (!ptr) return;
    unsigned char *block = (unsigned char *)ptr - BLOCK_HEADER;
    memcpy(&total, block, sizeof total);
    fv_free(r->ctx, block, total, 1);
}

/* ---------------------------------------------------------------- pixels */

/* All rows of 8 bits per channel. Interlaced pictures come in seven passes over the same rows. */
static fv_status read_rows(reader *r) {
    png_structp png = r->png;
    png_set_user_limits(png, FV_IMAGE_MOST_SIDE, FV_IMAGE_MOST_SIDE);
    png_set_chunk_malloc_max(png, MOST_CHUNK_BYTES);
    png_set_chunk_cache_max(png, 1);
    png_set_keep_unknown_chunks(png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    png_set_crc_action(png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_read_info(png, r->info);
    png_set_expand(png); /* palettes, fewer than 8 bits, transparency as alpha */
    png_set_scale_16(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, r->info);
    fv_stored_image *s = r->stored;
    s->c = png_get_channels(png, r->info);
    size_t stride = png_get_rowbytes(png, r->info);
    if (png_get_bit_depth(png, r->info) != 8 || stride != (size_t)s->w * (size_t)s->c)
        return fv_fail_at(r->ctx, FV_E_INTERNAL, r->file->name, -1, "libpng gives rows of %zu bytes", stride);
    FV_TRY(fv_image_reserve(r->ctx, r->to, (size_t)s->h * stride));
    s->pixels = r->to->data;
    r->in_rows = true;
    for (int pass = 0; pass < passes; pass++)
        for (r->row = 0; r->row < s->h; r->row++) png_read_row(png, s->pixels + (size_t)r->row * stride, NULL);
    png_read_end(png, NULL);
    return FV_OK;
}

static fv_status read_file(reader *r) {
    if (setjmp(r->jump)) return r->status; /* libpng's errors come back here; `r` owns what is to be given back */
    r->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error, on_warning, r, on_alloc, on_free);
    if (r->png) r->info = png_create_info_struct(r->png);
    if (!r->info)
        return r->status == FV_E_MEMORY
                   ? FV_E_MEMORY
                   : fv_fail(r->ctx, FV_E_INTERNAL, "libpng does not fit the headers it was built with");
    png_set_read_fn(r->png, r, on_read);
    return read_rows(r);
}

fv_status fv_png_decode(fv_ctx *ctx, const fv_image_file *file, fv_image_memory *to, fv_stored_image *stored) {
    FV_TRY(fv_png_probe(ctx, file, stored));
    reader r = {.ctx = ctx, .file = file, .to = to, .stored = stored};
    fv_status status = read_file(&r);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return status;
}
