/* rng.h: randomness as a pure function. Philox4x32-10 (Salmon et al., SC 2011) with key = seed and
 * counter = (element, row, step, stream). There is no generator state to save, and no draw depends on threads, workers,
 * node numbers or on where a run was interrupted. */
#ifndef FV_CORE_RNG_H
#define FV_CORE_RNG_H

#include "core/status.h"

typedef struct fv_philox {
    uint32_t v[4];
} fv_philox;

/* Four 32-bit words for a key and a counter. */
fv_philox fv_philox4x32(uint64_t key, const uint32_t counter[4]);

/* 64 bits to a counter word: low ^ high * 0x9E3779B9 (mod 2^32), so values below 2^32 stay as they are. */
static inline uint32_t fv_fold(uint64_t x) {
    return (uint32_t)x ^ (uint32_t)(x >> 32) * 0x9E3779B9u;
}

/* The words for (seed; element, row, step, stream): key = seed (low word first), counter = { fv_fold(element),
 * fv_fold(row), fv_fold(step), stream }. Kernels that draw in vectors compute the same. */
fv_philox fv_random(uint64_t seed, uint64_t element, uint64_t row, uint64_t step, uint32_t stream);

/* One word to a float in [0,1) (24 bits) and to a double in (0,1) (32 bits, never 0). */
static inline float fv_uniform_f32(uint32_t word) {
    return (float)(word >> 8) * (1.0f / 16777216.0f);
}
static inline double fv_uniform_f64(uint32_t word) {
    return ((double)word + 0.5) * (1.0 / 4294967296.0);
}

/* Standard normal by Box-Muller from two words. */
double fv_normal(uint32_t a, uint32_t b);
/* Unbiased integer in [0, n), n >= 1, from 64 random bits (Lemire's multiply-shift; bias below n / 2^64). */
uint64_t fv_uniform_below(const fv_philox *words, uint64_t n);

/* 32-bit hash of a name (FNV-1a, then a finaliser), for streams. Stable across versions: it is part of the file format.
 */
uint32_t fv_hash_name(const char *name);

/* A permutation of [0, n) that depends only on (seed, epoch, stream): Fisher-Yates with counter-based draws. */
void fv_permutation(uint64_t seed, uint64_t epoch, uint32_t stream, int64_t n, int64_t *out);

#endif
