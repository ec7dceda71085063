/* image.c: a picture file: looked at, decoded, resized. Input: one byte (channels, reduced size, filter, repair), then
 * the file. A decoder that has been used gives the same pixels as a new one. */
#include "data/data.h"
#include "tests/fuzz/fuzz.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { OUT_H = 5, OUT_W = 7, COMPARED = 1 << 18, MOST = 1 << 16 };
enum { CHANNELS = 3, REDUCED = 8, BICUBIC = 16, REPAIR = 32 }; /* bits of the first byte */

static uint32_t big_endian(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* Checksums of a PNG's chunks, so that mutations reach what they guard. */
static void repair_png(uint8_t *bytes, size_t size) {
    for (size_t at = 8; at + 12 <= size;) {
        size_t length = big_endian(bytes + at);
        if (length > size - at - 12) return;
        uint32_t sum = (uint32_t)crc32(0, bytes + at + 4, (uInt)length + 4);
        for (int i = 0; i < 4; i++) bytes[at + 8 + length + (size_t)i] = (uint8_t)(sum >> (24 - 8 * i));
        at += 12 + length;
    }
}

typedef struct picture {
    fv_status status;
    size_t bytes;
    uint8_t pixels[COMPARED], resized[4 * OUT_H * OUT_W];
} picture;

static void load(fvt_world *w, fv_decoder *d, const uint8_t *data, size_t size, int how, picture *out) {
    const fv_decode_opts opts = {1 + (how & CHANNELS), how & REDUCED ? 3 : 0, how & REDUCED ? 2 : 0};
    fv_image image;
    fv_image_info info;
    fv_status probed = fv_image_probe(d, data, size, "/m/file", &info);
    fvt_world_judge(w, probed, FVT_BIT(FV_E_DATA) | FVT_BIT(FV_E_MEMORY));
    out->status = fv_image_decode(d, data, size, "/m/file", &opts, &image);
    fvt_world_judge(w, out->status, FVT_BIT(FV_E_DATA) | FVT_BIT(FV_E_MEMORY));
    if (out->status != FV_OK) return;
    FVT_HOLDS(probed == FV_OK && image.c == opts.channels && image.h > 0 && image.w > 0);
    FVT_HOLDS(image.h <= info.h && image.w <= info.w);
    FVT_HOLDS(opts.min_h || (image.h == info.h && image.w == info.w));
    out->bytes = (size_t)image.h * (size_t)image.w * (size_t)image.c;
    memcpy(out->pixels, image.pixels, out->bytes < COMPARED ? out->bytes : COMPARED);
    const fv_box box = {0.25, 0.5, image.h - 0.5, image.w - 0.75};
    fv_status status = fv_image_resize(d, &image, box, how & BICUBIC ? FV_FILTER_BICUBIC : FV_FILTER_BILINEAR, OUT_H,
                                       OUT_W, out->resized);
    fvt_world_judge(w, status, FVT_BIT(FV_E_MEMORY));
    FVT_HOLDS(status == FV_OK || w->refused);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static picture first, second;
    fvt_world w;
    fv_decoder *used, *fresh;
    static uint8_t copy[MOST];
    if (size > MOST) return 0;
    int how = size > 0 ? data[0] : 0;
    data += size > 0;
    size -= size > 0;
    if (size > 8 && (how & REPAIR) && memcmp(data, "\x89PNG", 4) == 0) {
        memcpy(copy, data, size);
        repair_png(copy, size);
        data = copy;
    }
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    FVT_HOLDS(fv_decoder_create(&w.ctx, &used) == FV_OK && fv_decoder_create(&w.ctx, &fresh) == FV_OK);
    load(&w, used, data, size, how ^ CHANNELS, &first);
    load(&w, used, data, size, how, &first);
    fv_decoder_destroy(used);
    load(&w, fresh, data, size, how, &second);
    fv_decoder_destroy(fresh);
    if (!w.refused) {
        FVT_HOLDS(first.status == second.status);
        if (first.status == FV_OK) {
            size_t bytes = first.bytes < COMPARED ? first.bytes : COMPARED;
            FVT_HOLDS(first.bytes == second.bytes && memcmp(first.pixels, second.pixels, bytes) == 0);
            FVT_HOLDS(memcmp(first.resized, second.resized, OUT_H * OUT_W * (size_t)(1 + (how & CHANNELS))) == 0);
        }
    }
    fvt_world_close(&w);
    return 0;
}
