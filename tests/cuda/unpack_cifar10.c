/* unpack_cifar10.c: CIFAR-10 out of a pack of JPEGs, for gpu-check where python3 has no Pillow; writes what the pack's
 * own script writes, byte for byte.
 *
 *   unpack_cifar10 PACK FOLDER        FOLDER/data_batch_1.bin to _5.bin, test_batch.bin, batches.meta.txt
 *
 * The pack, integers little-endian: "CIFJPG1\n" | u32 H | u32 N = 60000 | H bytes of header that all pictures share | N
 * labels | N u16 lengths | the pictures' scans. Picture k = header, scan k, FF D9. */
#include "fovea.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 32, PIXELS = SIDE * SIDE, RECORD = 1 + 3 * PIXELS, BATCH = 10000, BATCHES = 6, BEFORE = 16 };

typedef struct pack {
    uint8_t *bytes;
    size_t size, header, count;
    const uint8_t *labels, *lengths, *scan; /* scan: of the next picture */
} pack;

static size_t u32(const uint8_t *p) {
    return (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 | (size_t)p[3] << 24;
}

static bool read_pack(const char *path, pack *p) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    long size = fseek(f, 0, SEEK_END) == 0 ? ftell(f) : -1;
    rewind(f);
    p->bytes = size > BEFORE ? malloc((size_t)size) : NULL;
    p->size = p->bytes ? fread(p->bytes, 1, (size_t)size, f) : 0;
    fclose(f);
    if (p->size <= BEFORE || memcmp(p->bytes, "CIFJPG1\n", 8) != 0) return false;
    p->header = u32(p->bytes + 8);
    p->count = u32(p->bytes + 12);
    if (p->count != (size_t)BATCH * BATCHES || p->header > p->size || p->size - p->header < BEFORE + 3 * p->count)
        return false;
    p->labels = p->bytes + BEFORE + p->header;
    p->lengths = p->labels + p->count;
    p->scan = p->lengths + 2 * p->count;
    return true;
}

/* Picture k as a record of the binary version: label, then red, green, blue [32,32]. */
static bool unpack(fv_decoder *decoder, pack *p, size_t k, uint8_t record[RECORD]) {
    static uint8_t jpeg[1 << 17];
    const fv_decode_opts opts = {.channels = 3};
    const size_t length = (size_t)p->lengths[2 * k] | (size_t)p->lengths[2 * k + 1] << 8;
    const size_t left = p->size - (size_t)(p->scan - p->bytes);
    fv_image image;
    if (length > left || p->header + length + 2 > sizeof jpeg) return false;
    memcpy(jpeg, p->bytes + BEFORE, p->header);
    memcpy(jpeg + p->header, p->scan, length);
    memcpy(jpeg + p->header + length, "\xff\xd9", 2);
    p->scan += length;
    if (fv_image_decode(decoder, jpeg, p->header + length + 2, "a picture", &opts, &image) != FV_OK) return false;
    if (image.h != SIDE || image.w != SIDE || image.c != 3) return false;
    record[0] = p->labels[k];
    for (int i = 0; i < PIXELS; i++)
        for (int c = 0; c < 3; c++) record[1 + c * PIXELS + i] = image.pixels[3 * i + c];
    return true;
}

static bool unpack_batch(fv_decoder *decoder, pack *p, int batch, const char *folder) {
    static uint8_t record[RECORD];
    char path[4096];
    snprintf(path, sizeof path, batch < 5 ? "%s/data_batch_%d.bin" : "%s/test_batch.bin", folder, batch + 1);
    FILE *f = fopen(path, "wb");
    bool good = f != NULL;
    for (size_t i = 0; good && i < BATCH; i++)
        good = unpack(decoder, p, (size_t)batch * BATCH + i, record) && fwrite(record, 1, RECORD, f) == RECORD;
    return f && fclose(f) == 0 && good;
}

static bool write_names(const char *folder) {
    char path[4096];
    snprintf(path, sizeof path, "%s/batches.meta.txt", folder);
    FILE *f = fopen(path, "w");
    if (!f) return false;
    fputs("airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n", f);
    return fclose(f) == 0;
}

int main(int argc, char **argv) {
    fv_ctx ctx;
    fv_decoder *decoder = NULL;
    pack p = {0};
    if (argc != 3) return fprintf(stderr, "usage: %s PACK FOLDER\n", argv[0]), 2;
    fv_ctx_init(&ctx);
    bool good = read_pack(argv[1], &p) && fv_decoder_create(&ctx, &decoder) == FV_OK;
    for (int i = 0; good && i < BATCHES; i++) good = unpack_batch(decoder, &p, i, argv[2]);
    good = good && write_names(argv[2]);
    if (!good) fprintf(stderr, "%s cannot be unpacked to %s: %s\n", argv[1], argv[2], ctx.error.message);
    fv_decoder_destroy(decoder);
    free(p.bytes);
    return good ? 0 : 1;
}
