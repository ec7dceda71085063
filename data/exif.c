/* exif.c: the orientation out of an EXIF block, which is a TIFF file without a picture (TIFF 6.0; Exif 2.32). */
#include "data/image.h"

#include <string.h>

#define TAG_ORIENTATION 0x0112
#define ENTRY_BYTES 12 /* tag, type, count, value */
enum { TYPE_BYTE = 1, TYPE_SHORT = 3, TYPE_LONG = 4 };

typedef struct tiff {
    const uint8_t *data;
    size_t bytes;
    bool big_endian;
} tiff;

static uint32_t number(const tiff *t, size_t at, int bytes) {
    uint32_t n = 0;
    for (int i = 0; i < bytes; i++) n = n << 8 | t->data[at + (size_t)(t->big_endian ? i : bytes - 1 - i)];
    return n;
}

/* The value of an entry of one number; 0 for anything else. */
static uint32_t entry_value(const tiff *t, size_t at) {
    if (number(t, at + 4, 4) != 1) return 0;
    switch (number(t, at + 2, 2)) {
    case TYPE_BYTE: return number(t, at + 8, 1);
    case TYPE_SHORT: return number(t, at + 8, 2);
    case TYPE_LONG: return number(t, at + 8, 4);
    default: return 0;
    }
}

int32_t fv_exif_orientation(const uint8_t *block, size_t bytes) {
    tiff t = {.data = block, .bytes = bytes};
    if (bytes >= 6 && !memcmp(block, "Exif\0\0", 6)) {
        t.data += 6;
        t.bytes -= 6;
    }
    if (t.bytes < 8) return 1;
    t.big_endian = t.data[0] == 'M';
    if (memcmp(t.data, t.big_endian ? "MM\0*" : "II*\0", 4) != 0) return 1;
    size_t at = number(&t, 4, 4); /* of the first directory */
    if (at > t.bytes - 2) return 1;
    size_t entries = number(&t, at, 2);
    at += 2;
    for (size_t i = 0; i < entries && t.bytes - at >= ENTRY_BYTES; i++, at += ENTRY_BYTES) {
        if (number(&t, at, 2) != TAG_ORIENTATION) continue;
        uint32_t value = entry_value(&t, at);
        return value >= 1 && value <= 8 ? (int32_t)value : 1;
    }
    return 1;
}
