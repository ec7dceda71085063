/* webp.c: WebP files (RFC 9649). The container is read here; the pixels are libwebp's work, which is opened when the
 * first such picture comes, so that nobody else needs it. */
#include "data/image.h"

#include <dlfcn.h>
#include <string.h>

#define RIFF_HEADER 12
#define CHUNK_HEADER 8
#define LIBRARY "libwebp.so.7"
enum { FLAG_ANIMATION = 0x02, FLAG_ALPHA = 0x10 }; /* of VP8X */

typedef struct container {
    int32_t h, w;
    bool alpha, animated;
    int32_t orientation;
} container;

static uint32_t number(const uint8_t *p, int bytes) { /* little-endian */
    uint32_t n = 0;
    for (int i = bytes - 1; i >= 0; i--) n = n << 8 | p[i];
    return n;
}

/* What a chunk says about the picture; false when it is damaged. */
static bool read_chunk(const uint8_t *type, const uint8_t *p, size_t bytes, container *c) {
    bool sized = c->w > 0;
    if (!memcmp(type, "VP8X", 4)) {
        if (bytes < 10) return false;
        c->alpha = p[0] & FLAG_ALPHA;
        c->animated = p[0] & FLAG_ANIMATION;
        c->w = (int32_t)number(p + 4, 3) + 1;
        c->h = (int32_t)number(p + 7, 3) + 1;
    } else if (!memcmp(type, "VP8 ", 4) && !sized) { /* lossy: frame tag, start code, two sizes of 14 bits */
        if (bytes < 10 || (p[0] & 1) || memcmp(p + 3, "\x9d\x01\x2a", 3) != 0) return false;
        c->w = (int32_t)number(p + 6, 2) & 0x3fff;
        c->h = (int32_t)number(p + 8, 2) & 0x3fff;
    } else if (!memcmp(type, "VP8L", 4) && !sized) { /* lossless: sizes of 14 bits less one, alpha */
        if (bytes < 5 || p[0] != 0x2f) return false;
        uint32_t bits = number(p + 1, 4);
        c->w = (int32_t)(bits & 0x3fff) + 1;
        c->h = (int32_t)(bits >> 14 & 0x3fff) + 1;
        c->alpha = bits >> 28 & 1;
    } else if (!memcmp(type, "EXIF", 4)) {
        c->orientation = fv_exif_orientation(p, bytes);
    }
    return true;
}

static fv_status truncated(fv_ctx *ctx, const fv_image_file *f, uint64_t expected) {
    return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)f->bytes, "truncated WebP: %zu of %llu bytes", f->bytes,
                      (unsigned long long)expected);
}

static fv_status read_container(fv_ctx *ctx, const fv_image_file *f, container *c) {
    *c = (container){.orientation = 1};
    uint64_t end = (uint64_t)number(f->data + 4, 4) + 8; /* of the file, as it says itself; 12 bytes are there */
    if (end > f->bytes) return truncated(ctx, f, end);
    for (uint64_t at = RIFF_HEADER; at + CHUNK_HEADER <= end;) {
        uint64_t bytes = number(f->data + at + 4, 4);
        if (bytes > end - at - CHUNK_HEADER)
            return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)at, "damaged WebP: a chunk is longer than the file");
        if (!read_chunk(f->data + at, f->data + at + CHUNK_HEADER, bytes, c))
            return fv_fail_at(ctx, FV_E_DATA, f->name, (int64_t)at, "damaged WebP: a header is wrong");
        at += CHUNK_HEADER + bytes + (bytes & 1);
    }
    FV_TRY(fv_image_check_size(ctx, f, c->h, c->w));
    if (!c->animated) return FV_OK;
    fv_fail_at(ctx, FV_E_DATA, f->name, -1, "an animated WebP; only still ones can be read");
    return fv_hint(ctx, "save one of its frames as a picture, or leave it out");
}

fv_status fv_webp_probe(fv_ctx *ctx, const fv_image_file *file, fv_stored_image *s) {
    container c;
    FV_TRY(read_container(ctx, file, &c));
    *s = (fv_stored_image){.h = c.h, .w = c.w, .c = c.alpha ? 4 : 3, .orientation = c.orientation};
    return FV_OK;
}

/* ---------------------------------------------------------------- the library */

/* dlsym's pointer to an object, as one to a function. */
static bool symbol(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

static fv_status open_library(fv_ctx *ctx, fv_webp *webp, const char *name) {
    if (webp->library) return FV_OK;
    const char *file = webp->name ? webp->name : LIBRARY;
    void *library = dlopen(file, RTLD_NOW | RTLD_LOCAL);
    if (library && symbol(library, "WebPGetInfo", &webp->get_info) &&
        symbol(library, "WebPDecodeRGBInto", &webp->decode_rgb) &&
        symbol(library, "WebPDecodeRGBAInto", &webp->decode_rgba)) {
        webp->library = library;
        return FV_OK;
    }
    if (library) dlclose(library);
    fv_fail_at(ctx, FV_E_DATA, name, -1, "a WebP, and %s is not there to read it", file);
    return fv_hint(ctx, "install libwebp (Debian and Ubuntu: apt-get install libwebp7), or convert it to JPEG or PNG");
}

void fv_webp_close(fv_webp *webp) {
    if (webp->library) dlclose(webp->library);
    *webp = (fv_webp){0};
}

fv_status fv_webp_decode(fv_ctx *ctx, fv_webp *webp, const fv_image_file *file, fv_image_memory *to,
                         fv_stored_image *s) {
    FV_TRY(fv_webp_probe(ctx, file, s));
    FV_TRY(open_library(ctx, webp, file->name));
    int w = 0, h = 0;
    if (!webp->get_info(file->data, file->bytes, &w, &h) || w != s->w || h != s->h)
        return fv_fail_at(ctx, FV_E_DATA, file->name, -1, "damaged WebP: its headers disagree");
    size_t stride = (size_t)s->w * (size_t)s->c, bytes = stride * (size_t)s->h;
    FV_TRY(fv_image_reserve(ctx, to, bytes));
    s->pixels = to->data;
    uint8_t *(*decode)(const uint8_t *, size_t, uint8_t *, size_t, int) =
        s->c == 4 ? webp->decode_rgba : webp->decode_rgb;
    if (decode(file->data, file->bytes, s->pixels, bytes, (int)stride)) return FV_OK;
    return fv_fail_at(ctx, FV_E_DATA, file->name, -1, "damaged WebP: its pixels cannot be decoded");
}
