/* image.c: from the bytes of a picture file to pixels: which format it is, the channels asked for, the orientation. */
#include "data/image.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* ---------------------------------------------------------------- memory */

fv_status fv_image_reserve(fv_ctx *ctx, fv_image_memory *b, size_t bytes) {
    if (bytes <= b->bytes && b->data) return FV_OK;
    fv_image_release(ctx, b);
    b->data = fv_alloc(ctx, bytes, 1);
    if (!b->data) return FV_E_MEMORY;
    b->bytes = bytes;
    return FV_OK;
}

void fv_image_release(fv_ctx *ctx, fv_image_memory *b) {
    if (b->data) fv_free(ctx, b->data, b->bytes, 1);
    *b = (fv_image_memory){0};
}

fv_status fv_decoder_create(fv_ctx *ctx, fv_decoder **out) {
    *out = fv_calloc(ctx, 1, sizeof **out);
    if (!*out) return FV_E_MEMORY;
    (*out)->ctx = ctx;
    return FV_OK;
}

void fv_decoder_destroy(fv_decoder *d) {
    if (!d) return;
    fv_jpeg_destroy(d->jpeg);
    fv_webp_close(&d->webp);
    fv_image_release(d->ctx, &d->file);
    for (int i = 0; i < 2; i++) fv_image_release(d->ctx, &d->pixels[i]);
    fv_resizer_free(d->ctx, &d->resizer);
    fv_free(d->ctx, d, 1, sizeof *d);
}

fv_ctx *fv_decoder_ctx(const fv_decoder *d) {
    return d->ctx;
}

void *fv_decoder_file_buffer(fv_decoder *d, size_t bytes) {
    return fv_image_reserve(d->ctx, &d->file, bytes) == FV_OK ? d->file.data : NULL;
}

/* ---------------------------------------------------------------- which format */

bool fv_image_name(const char *path) {
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".webp"};
    size_t length = strlen(path);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t n = strlen(endings[i]);
        if (length > n && path[length - n - 1] != '/' && !strcasecmp(path + length - n, endings[i])) return true;
    }
    return false;
}

static bool has(const fv_image_file *f, size_t at, const char *bytes, size_t n) {
    return f->bytes >= at + n && !memcmp(f->data + at, bytes, n);
}

static fv_image_format format_of(const fv_image_file *f) {
    if (has(f, 0, "\xff\xd8\xff", 3)) return FV_IMAGE_JPEG;
    if (has(f, 0, "\x89PNG\r\n\x1a\n", 8)) return FV_IMAGE_PNG;
    if (has(f, 0, "RIFF", 4) && has(f, 8, "WEBP", 4)) return FV_IMAGE_WEBP;
    return FV_IMAGE_UNKNOWN;
}

/* Text that begins with one of these, after white space and whatever its case. */
static bool begins_as_text(const fv_image_file *f, const char *text) {
    size_t at = has(f, 0, "\xef\xbb\xbf", 3) ? 3 : 0, n = strlen(text);
    while (at < f->bytes && isspace(f->data[at])) at++;
    return f->bytes - at >= n && !strncasecmp((const char *)f->data + at, text, n);
}

/* What a file is that is no picture we read; NULL: not known. */
static const char *looks_like(const fv_image_file *f) {
    static const struct {
        size_t at, n;
        const char *bytes, *what;
    } magic[] = {
        {0, 4, "GIF8", "a GIF"},
        {0, 2, "BM", "a BMP"},
        {0, 4, "II*\0", "a TIFF or camera raw file"},
        {0, 4, "MM\0*", "a TIFF or camera raw file"},
        {0, 4, "II+\0", "a TIFF"},
        {0, 4, "MM\0+", "a TIFF"},
        {4, 8, "ftypavif", "an AVIF"},
        {4, 8, "ftypavis", "an AVIF"},
        {4, 7, "ftyphei", "a HEIC"},
        {4, 7, "ftyphev", "a HEIC"},
        {4, 8, "ftypmif1", "a HEIC or AVIF"},
        {4, 8, "ftypmsf1", "a HEIC or AVIF"},
        {4, 4, "ftyp", "a video (MP4)"},
        {0, 12, "\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000"},
        {0, 12, "\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL"},
        {0, 2, "\xff\x0a", "a JPEG XL"},
        {0, 4, "8BPS", "a Photoshop file"},
        {0, 4, "%PDF", "a PDF"},
        {0, 4, "PK\x03\x04", "a ZIP archive"},
        {0, 2, "\x1f\x8b", "a gzip file"},
    };
    for (size_t i = 0; i < sizeof magic / sizeof *magic; i++)
        if (has(f, magic[i].at, magic[i].bytes, magic[i].n)) return magic[i].what;
    if (begins_as_text(f, "<!doctype html") || begins_as_text(f, "<html")) return "an HTML page";
    if (begins_as_text(f, "<svg") || begins_as_text(f, "<?xml")) return "an SVG or another XML file";
    return NULL;
}

static fv_status refuse_unknown(fv_ctx *ctx, const fv_image_file *f) {
    if (f->bytes == 0) {
        fv_fail_at(ctx, FV_E_DATA, f->name, 0, "is empty: a file of 0 bytes");
        return fv_hint(ctx, "fetch or copy the file again, or remove it");
    }
    /* its first bytes are a PNG's but for those that tell of a transfer as text */
    if (has(f, 1, "PNG", 3) || (f->bytes < 8 && !memcmp(f->data, "\x89PNG\r\n\x1a\n", f->bytes))) {
        fv_fail_at(ctx, FV_E_DATA, f->name, 0, "a PNG whose signature is damaged");
        return fv_hint(ctx, "copy the file again, not as text");
    }
    const char *what = looks_like(f);
    if (!what) fv_fail_at(ctx, FV_E_DATA, f->name, 0, "is no picture that can be read: not a JPEG, PNG or WebP");
    else fv_fail_at(ctx, FV_E_DATA, f->name, 0, "is %s, whatever its name; JPEG, PNG and WebP can be read", what);
    return fv_hint(ctx, "convert it to JPEG or PNG, or leave it out");
}

fv_status fv_image_check_size(fv_ctx *ctx, const fv_image_file *file, int64_t h, int64_t w) {
    if (h <= 0 || w <= 0) return fv_fail_at(ctx, FV_E_DATA, file->name, -1, "a picture without pixels");
    if (h <= FV_IMAGE_MOST_SIDE && w <= FV_IMAGE_MOST_SIDE && h * w <= FV_IMAGE_MOST_PIXELS) return FV_OK;
    fv_fail_at(ctx, FV_E_DATA, file->name, -1,
               "a picture of %lld x %lld pixels: more than %d on a side or %lld million in all are refused",
               (long long)w, (long long)h, FV_IMAGE_MOST_SIDE, (long long)(FV_IMAGE_MOST_PIXELS >> 20));
    return fv_hint(ctx, "shrink it, or leave it out");
}

/* ---------------------------------------------------------------- channels */

static uint8_t luma(const uint8_t *rgb) { /* ITU-R 601 in 16 bits of fraction */
    return (uint8_t)((19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000u) >> 16);
}

/* One pixel of `from` channels to one of `to`; both are constants where this is called. */
static inline void convert_pixel(const uint8_t *src, int from, uint8_t *dst, int to) {
    uint8_t alpha = from == 2 ? src[1] : from == 4 ? src[3] : 255;
    if (to <= 2) dst[0] = from <= 2 ? src[0] : luma(src);
    else
        for (int i = 0; i < 3; i++) dst[i] = src[from <= 2 ? 0 : i];
    if (to == 2) dst[1] = alpha;
    if (to == 4) dst[3] = alpha;
}

static void convert(const uint8_t *src, int from, uint8_t *dst, int to, size_t pixels) {
#define CASE(a, b) \
    case 4 * (a) + (b): \
        for (size_t i = 0; i < pixels; i++) convert_pixel(src + (a)*i, a, dst + (b)*i, b); \
        break;
    switch (4 * from + to) {
        CASE(1, 2)
        CASE(1, 3)
        CASE(1, 4)
        CASE(2, 1)
        CASE(2, 3)
        CASE(2, 4)
        CASE(3, 1)
        CASE(3, 2)
        CASE(3, 4)
        CASE(4, 1)
        CASE(4, 2)
        CASE(4, 3)
    }
#undef CASE
}

/* ---------------------------------------------------------------- orientation */

#define TILE 32 /* pixels: a tile of both pictures stays in the first-level cache */

/* Pixel (y,x) as shown lies at `base + y * down + x * across` as stored, in pixels. */
typedef struct walk {
    int64_t base, down, across;
} walk;

static walk walk_of(int32_t orientation, int64_t h, int64_t w) { /* sizes as stored */
    switch (orientation) {
    case 2: return (walk){w - 1, w, -1};       /* mirrored */
    case 3: return (walk){h * w - 1, -w, -1};  /* half a turn */
    case 4: return (walk){(h - 1) * w, -w, 1}; /* upside down, mirrored */
    case 5: return (walk){0, 1, w};            /* transposed */
    case 6: return (walk){(h - 1) * w, 1, -w}; /* to be turned clockwise */
    case 7: return (walk){h * w - 1, -1, -w};  /* transposed about the other diagonal */
    case 8: return (walk){w - 1, -1, w};       /* to be turned anticlockwise */
    default: return (walk){0, w, 1};
    }
}

static inline void turn_with(const uint8_t *src, walk at, uint8_t *dst, int64_t h, int64_t w, int c) {
    for (int64_t y0 = 0; y0 < h; y0 += TILE)
        for (int64_t x0 = 0; x0 < w; x0 += TILE)
            for (int64_t y = y0; y < h && y < y0 + TILE; y++) {
                const uint8_t *from = src + (at.base + y * at.down + x0 * at.across) * c;
                uint8_t *to = dst + (y * w + x0) * c;
                for (int64_t x = x0; x < w && x < x0 + TILE; x++, from += at.across * c, to += c)
                    for (int i = 0; i < c; i++) to[i] = from[i];
            }
}

/* dst: [h,w,c], sizes as shown */
static void turn(const uint8_t *src, walk at, uint8_t *dst, int64_t h, int64_t w, int c) {
    switch (c) {
    case 1: turn_with(src, at, dst, h, w, 1); break;
    case 2: turn_with(src, at, dst, h, w, 2); break;
    case 3: turn_with(src, at, dst, h, w, 3); break;
    default: turn_with(src, at, dst, h, w, 4); break;
    }
}

static bool on_its_side(int32_t orientation) {
    return orientation >= 5;
}

/* ---------------------------------------------------------------- the public calls */

static fv_image_file file_of(const void *data, size_t bytes, const char *name) {
    return (fv_image_file){.data = data, .bytes = data ? bytes : 0, .name = name ? name : ""};
}

static fv_status need_jpeg(fv_decoder *d) {
    return d->jpeg ? FV_OK : fv_jpeg_create(d->ctx, &d->jpeg);
}

fv_status fv_image_probe(fv_decoder *d, const void *data, size_t bytes, const char *name, fv_image_info *out) {
    fv_image_file file = file_of(data, bytes, name);
    fv_stored_image s = {0};
    fv_image_format format = format_of(&file);
    *out = (fv_image_info){0};
    switch (format) {
    case FV_IMAGE_JPEG:
        FV_TRY(need_jpeg(d));
        FV_TRY(fv_jpeg_probe(d->jpeg, &file, &s));
        break;
    case FV_IMAGE_PNG: FV_TRY(fv_png_probe(d->ctx, &file, &s)); break;
    case FV_IMAGE_WEBP: FV_TRY(fv_webp_probe(d->ctx, &file, &s)); break;
    default: return refuse_unknown(d->ctx, &file);
    }
    bool side = on_its_side(s.orientation);
    *out = (fv_image_info){format, side ? s.w : s.h, side ? s.h : s.w, s.c, s.orientation};
    return FV_OK;
}

static fv_status read_stored(fv_decoder *d, const fv_image_file *file, const fv_decode_opts *opts, fv_stored_image *s) {
    switch (format_of(file)) {
    case FV_IMAGE_JPEG:
        FV_TRY(need_jpeg(d));
        return fv_jpeg_decode(d->jpeg, file, opts->min_h, opts->min_w, &d->pixels[0], s);
    case FV_IMAGE_PNG: return fv_png_decode(d->ctx, file, &d->pixels[0], s);
    case FV_IMAGE_WEBP: return fv_webp_decode(d->ctx, &d->webp, file, &d->pixels[0], s);
    default: return refuse_unknown(d->ctx, file);
    }
}

fv_status fv_image_decode(fv_decoder *d, const void *data, size_t bytes, const char *name, const fv_decode_opts *opts,
                          fv_image *out) {
    fv_image_file file = file_of(data, bytes, name);
    fv_stored_image s = {0};
    *out = (fv_image){0};
    if (opts->channels < 1 || opts->channels > 4)
        return fv_fail(d->ctx, FV_E_USAGE, "pictures can be read with 1 to 4 channels, not %d", opts->channels);
    FV_TRY(read_stored(d, &file, opts, &s));
    size_t pixels = (size_t)s.h * (size_t)s.w;
    int spare = 1; /* which of the two buffers is free */
    const uint8_t *now = s.pixels;
    if (s.c != opts->channels) {
        FV_TRY(fv_image_reserve(d->ctx, &d->pixels[spare], pixels * (size_t)opts->channels));
        convert(now, s.c, d->pixels[spare].data, opts->channels, pixels);
        now = d->pixels[spare].data;
        spare = 0;
    }
    bool side = on_its_side(s.orientation);
    int32_t h = side ? s.w : s.h, w = side ? s.h : s.w;
    if (s.orientation != 1) {
        FV_TRY(fv_image_reserve(d->ctx, &d->pixels[spare], pixels * (size_t)opts->channels));
        turn(now, walk_of(s.orientation, s.h, s.w), d->pixels[spare].data, h, w, opts->channels);
        now = d->pixels[spare].data;
    }
    *out = (fv_image){now, h, w, opts->channels};
    return FV_OK;
}
