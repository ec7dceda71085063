/* md5.c: RFC 1321. MD5 is what the publishers of CIFAR and MNIST give; it finds damage, it does not prove origin. */
#include "data/internal.h"

#include <stdio.h>
#include <string.h>

#define CHUNK ((size_t)256 << 10)

/* floor(2^32 * |sin(i + 1)|), RFC 1321, 3.4 */
static const uint32_t sines[64] = {
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391};
static const unsigned char turns[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};

void fv_md5_init(fv_md5 *m) {
    *m = (fv_md5){.state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}};
}

static void mix_block(uint32_t state[4], const unsigned char block[64]) {
    uint32_t word[16], a = state[0], b = state[1], c = state[2], d = state[3];
    for (size_t i = 0; i < 16; i++)
        word[i] = (uint32_t)block[4 * i] | (uint32_t)block[4 * i + 1] << 8 | (uint32_t)block[4 * i + 2] << 16 |
                  (uint32_t)block[4 * i + 3] << 24;
    for (int i = 0; i < 64; i++) {
        uint32_t mix;
        int from;
        switch (i / 16) {
        case 0: mix = (b & c) | (~b & d), from = i; break;
        case 1: mix = (d & b) | (~d & c), from = (5 * i + 1) % 16; break;
        case 2: mix = b ^ c ^ d, from = (3 * i + 5) % 16; break;
        default: mix = c ^ (b | ~d), from = 7 * i % 16; break;
        }
        int turn = turns[i / 16][i % 4];
        uint32_t sum = a + mix + word[from] + sines[i];
        a = d, d = c, c = b;
        b += sum << turn | sum >> (32 - turn);
    }
    state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

void fv_md5_update(fv_md5 *m, const void *data, size_t bytes) {
    const unsigned char *from = data;
    size_t held = m->bytes % 64;
    m->bytes += bytes;
    if (held > 0) {
        size_t n = bytes < 64 - held ? bytes : 64 - held;
        memcpy(m->block + held, from, n);
        from += n;
        bytes -= n;
        if (held + n < 64) return;
        mix_block(m->state, m->block);
    }
    for (; bytes >= 64; from += 64, bytes -= 64) mix_block(m->state, from);
    if (bytes > 0) memcpy(m->block, from, bytes);
}

void fv_md5_final(fv_md5 *m, char hex[33]) {
    uint64_t bits = m->bytes * 8;
    unsigned char length[8];
    for (int i = 0; i < 8; i++) length[i] = (unsigned char)(bits >> (8 * i));
    static const unsigned char padding[64] = {0x80};
    fv_md5_update(m, padding, 1 + (119 - m->bytes % 64) % 64);
    fv_md5_update(m, length, sizeof length);
    for (size_t i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", (unsigned)(m->state[i / 4] >> (8 * (i % 4))) & 0xff);
}

fv_status fv_md5_file(fv_ctx *ctx, const char *path, char hex[33]) {
    fv_reader file;
    FV_TRY(fv_data_open(&file, ctx, path));
    unsigned char *buf = fv_alloc(ctx, CHUNK, 1);
    fv_status status = buf ? FV_OK : FV_E_MEMORY;
    fv_md5 md5;
    fv_md5_init(&md5);
    while (status == FV_OK && file.offset < file.size) {
        uint64_t left = file.size - file.offset;
        size_t n = left < CHUNK ? (size_t)left : CHUNK;
        status = fv_read(&file, buf, n);
        if (status == FV_OK) fv_md5_update(&md5, buf, n);
    }
    fv_md5_final(&md5, hex);
    if (buf) fv_free(ctx, buf, CHUNK, 1);
    fv_reader_close(&file);
    return status;
}
