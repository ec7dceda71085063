/* rng.c: Philox4x32-10. J. Salmon, M. Moraes, R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
 */
#include "core/rng.h"

#include <math.h>

fv_philox fv_philox4x32(uint64_t key, const uint32_t counter[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u; /* golden ratio */
        k1 += 0xBB67AE85u; /* sqrt(3) - 1 */
    }
    return (fv_philox){{c0, c1, c2, c3}};
}

fv_philox fv_random(uint64_t seed, uint64_t element, uint64_t row, uint64_t step, uint32_t stream) {
    return fv_philox4x32(seed, (uint32_t[4]){fv_fold(element), fv_fold(row), fv_fold(step), stream});
}

double fv_normal(uint32_t a, uint32_t b) {
    const double two_pi = 6.283185307179586476925;
    return sqrt(-2.0 * log(fv_uniform_f64(a))) * cos(two_pi * fv_uniform_f64(b));
}

uint64_t fv_uniform_below(const fv_philox *words, uint64_t n) {
    uint64_t bits = (uint64_t)words->v[1] << 32 | words->v[0];
    return (uint64_t)((unsigned __int128)bits * n >> 64);
}

uint32_t fv_hash_name(const char *name) {
    uint32_t h = 2166136261u;
    for (const unsigned char *p = (const unsigned char *)name; *p; p++) h = (h ^ *p) * 16777619u;
    h = (h ^ h >> 16) * 0x85EBCA6Bu; /* MurmurHash3's finaliser: short names differ in few bits of FNV */
    h = (h ^ h >> 13) * 0xC2B2AE35u;
    return h ^ h >> 16;
}

void fv_permutation(uint64_t seed, uint64_t epoch, uint32_t stream, int64_t n, int64_t *out) {
    for (int64_t i = 0; i < n; i++) out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        fv_philox words = fv_random(seed, (uint64_t)i, 0, epoch, stream);
        int64_t j = (int64_t)fv_uniform_below(&words, (uint64_t)i + 1), t = out[i];
        out[i] = out[j];
        out[j] = t;
    }
}
