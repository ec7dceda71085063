/* stats.c: mean and standard deviation of the pixels, from integer sums: exact, so the same in any order. */
#include "data/internal.h"

#include <math.h>
#include <string.h>

/* Every channel count that divides it meets the same lanes in each block. */
#define BLOCK 48
#define MOST_CHANNELS 1024 /* fv_dataset_reserve allows no more */

/* Sums of bytes and of their squares per lane; v * v fits 16 bits, and so do the sums of 256 bytes. */
static size_t add_blocks(const uint8_t *p, size_t bytes, uint64_t *sum, uint64_t *square) {
    size_t blocks = bytes / BLOCK;
    uint32_t low[BLOCK] = {0}, high[BLOCK] = {0};
    for (size_t b = 0; b < blocks; b += 256) {
        size_t end = b + 256 < blocks ? b + 256 : blocks;
        uint16_t part[BLOCK] = {0};
        for (size_t i = b; i < end; i++) {
            const uint8_t *q = p + i * BLOCK;
            for (int j = 0; j < BLOCK; j++) {
                uint16_t v = q[j], vv = (uint16_t)(v * v);
                part[j] = (uint16_t)(part[j] + v);
                high[j] += vv;
            }
        }
        for (int j = 0; j < BLOCK; j++) low[j] += part[j];
        if (b % ((size_t)256 * 64) == 0 || end == blocks) /* before 32 bits run over: 64 * 256 * 255^2 < 2^32 */
            for (int j = 0; j < BLOCK; j++) {
                sum[j] += low[j];
                square[j] += high[j];
                low[j] = high[j] = 0;
            }
    }
    return blocks * BLOCK;
}

void fv_dataset_stats(const fv_dataset *d, const int64_t *index, int64_t n, double *mean, double *std) {
    size_t c = (size_t)d->c, bytes = (size_t)d->h * (size_t)d->w * c;
    uint64_t sum[BLOCK] = {0}, square[BLOCK] = {0}, total[MOST_CHANNELS] = {0}, squares[MOST_CHANNELS] = {0};
    bool lanes = BLOCK % c == 0;
    if (!index) n = d->count;
    for (int64_t i = 0; i < n; i++) {
        const uint8_t *p = d->images + (size_t)(index ? index[i] : i) * bytes;
        size_t done = lanes ? add_blocks(p, bytes, sum, square) : 0;
        for (size_t j = done, k = 0; j < bytes; j++, k = k + 1 < c ? k + 1 : 0) {
            total[k] += p[j];
            squares[k] += (uint64_t)p[j] * p[j];
        }
    }
    for (size_t j = 0; j < BLOCK && lanes; j++) {
        total[j % c] += sum[j];
        squares[j % c] += square[j];
    }
    double count = (double)n * d->h * d->w;
    for (size_t k = 0; k < c; k++) {
        double average = n > 0 ? (double)total[k] / count : 0.0;
        double variance = n > 0 ? (double)squares[k] / count - average * average : 0.0;
        mean[k] = average / 255.0;
        std[k] = variance > 1e-9 ? sqrt(variance) / 255.0 : 1.0; /* a constant channel stays as it is */
    }
}
