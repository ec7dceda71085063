/* png.c: pictures into a page. */
#include "tools/report/report.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

fv_status fv_png_encode(fv_ctx *ctx, const uint8_t *pixels, int32_t h, int32_t w, int32_t c, void **png,
                        size_t *bytes) {
    png_image image = {.version = PNG_IMAGE_VERSION, .width = (png_uint_32)w, .height = (png_uint_32)h};
    static const png_uint_32 formats[5] = {0, PNG_FORMAT_GRAY, PNG_FORMAT_GA, PNG_FORMAT_RGB, PNG_FORMAT_RGBA};
    *png = NULL;
    if (c < 1 || c > 4) return fv_fail(ctx, FV_E_INTERNAL, "a picture of %d channels cannot be shown", c);
    image.format = formats[c];
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(image);
    void *buf = malloc(size);
    if (!buf) return fv_fail_memory(ctx, size, "a PNG");
    if (!png_image_write_to_memory(&image, buf, &size, 0, pixels, 0, NULL)) {
        free(buf);
        bool full = strcasestr(image.message, "memory") != NULL;
        return fv_fail(ctx, full ? FV_E_MEMORY : FV_E_INTERNAL, "PNG encoder: %s", image.message);
    }
    *png = buf;
    *bytes = size;
    return FV_OK;
}

void fv_base64_write(FILE *to, const void *data, size_t bytes) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i += 3) {
        size_t left = bytes - i;
        uint32_t v = (uint32_t)p[i] << 16 | (left > 1 ? (uint32_t)p[i + 1] << 8 : 0) | (left > 2 ? p[i + 2] : 0);
        fputc(digits[v >> 18], to);
        fputc(digits[v >> 12 & 63], to);
        fputc(left > 1 ? digits[v >> 6 & 63] : '=', to);
        fputc(left > 2 ? digits[v & 63] : '=', to);
    }
}
