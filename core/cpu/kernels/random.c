/* random.c: dropout and drop path. A draw is a word of Philox4x32-10 (core/rng.h), a function of (seed; element of the
 * row, row key, step, stream); FV_VL counters are computed side by side. */
#include "core/cpu/kernels/tile.h"

/* ---------------------------------------------------------------- Philox in vectors */

/* The high words of a * m. */
FV_INLINE vu multiply_high(vu a, uint32_t m) {
#if FV_AVX512
    const __m512i x = (__m512i)a, k = _mm512_set1_epi32((int)m);
    const __m512i even = _mm512_srli_epi64(_mm512_mul_epu32(x, k), 32);
    return (vu)_mm512_mask_mov_epi32(even, 0xAAAA, _mm512_mul_epu32(_mm512_srli_epi64(x, 32), k));
#elif FV_AVX2
    const __m256i x = (__m256i)a, k = _mm256_set1_epi32((int)m);
    const __m256i even = _mm256_srli_epi64(_mm256_mul_epu32(x, k), 32);
    return (vu)_mm256_blend_epi32(even, _mm256_mul_epu32(_mm256_srli_epi64(x, 32), k), 0xAA);
#else
    for (int i = 0; i < FV_VL; i++) a[i] = (uint32_t)((uint64_t)a[i] * m >> 32);
    return a;
#endif
}

/* Words of FV_VL counters { c0, row, step, stream }: out[word]. */
FV_INLINE void philox(uint64_t seed, vu c0, uint32_t row, uint32_t step, uint32_t stream, vu out[4]) {
    vu c1 = vu_set1(row), c2 = vu_set1(step), c3 = vu_set1(stream);
    uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++) {
        const vu h0 = multiply_high(c0, 0xD2511F53u), l0 = c0 * vu_set1(0xD2511F53u);
        const vu h1 = multiply_high(c2, 0xCD9E8D57u), l1 = c2 * vu_set1(0xCD9E8D57u);
        c0 = h1 ^ c1 ^ vu_set1(k0);
        c1 = l1;
        c2 = h0 ^ c3 ^ vu_set1(k1);
        c3 = l0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* Four vectors as 4 x 4 matrices, one per group of four lanes, each transposed. */
FV_INLINE void transpose_groups(vu w[4]) {
#if FV_AVX512
    const __m512i a = _mm512_unpacklo_epi32((__m512i)w[0], (__m512i)w[1]);
    const __m512i b = _mm512_unpackhi_epi32((__m512i)w[0], (__m512i)w[1]);
    const __m512i c = _mm512_unpacklo_epi32((__m512i)w[2], (__m512i)w[3]);
    const __m512i d = _mm512_unpackhi_epi32((__m512i)w[2], (__m512i)w[3]);
    w[0] = (vu)_mm512_unpacklo_epi64(a, c);
    w[1] = (vu)_mm512_unpackhi_epi64(a, c);
    w[2] = (vu)_mm512_unpacklo_epi64(b, d);
    w[3] = (vu)_mm512_unpackhi_epi64(b, d);
#elif FV_AVX2
    const __m256i a = _mm256_unpacklo_epi32((__m256i)w[0], (__m256i)w[1]);
    const __m256i b = _mm256_unpackhi_epi32((__m256i)w[0], (__m256i)w[1]);
    const __m256i c = _mm256_unpacklo_epi32((__m256i)w[2], (__m256i)w[3]);
    const __m256i d = _mm256_unpackhi_epi32((__m256i)w[2], (__m256i)w[3]);
    w[0] = (vu)_mm256_unpacklo_epi64(a, c);
    w[1] = (vu)_mm256_unpackhi_epi64(a, c);
    w[2] = (vu)_mm256_unpacklo_epi64(b, d);
    w[3] = (vu)_mm256_unpackhi_epi64(b, d);
#else
    for (int lane = 0; lane < FV_VL; lane += 4)
        for (int i = 0; i < 4; i++)
            for (int j = 0; j < i; j++) {
                const uint32_t t = w[i][lane + j];
                w[i][lane + j] = w[j][lane + i];
                w[j][lane + i] = t;
            }
#endif
}

/* ---------------------------------------------------------------- dropout (Srivastava et al. 2014): a draw per element
 */

#define DRAWS (4 * FV_VL) /* elements that one call of philox serves */

typedef struct dropout_args {
    const fv_elem *x;
    fv_elem *y;
    float factor;
    uint32_t threshold; /* kept if the upper 24 bits of the word are not below it */
    const int64_t *row_key;
    int64_t rows, width;
    int64_t tile_rows, tile_cols, across; /* tile_cols: a multiple of DRAWS */
    uint64_t seed;
    uint32_t step, stream;
} dropout_args;

static dropout_args dropout_of(const fv_call *c) {
    const double p = c->attr->dropout.p;
    dropout_args a = {.x = c->in[0].data,
                      .y = c->out[0].data,
                      .factor = (float)(1.0 / (1.0 - p)),
                      .threshold = (uint32_t)ceil((double)(float)p * 16777216.0),
                      .row_key = c->in[1].data,
                      .rows = c->in[0].type.dim[0],
                      .seed = c->step->seed,
                      .step = fv_fold((uint64_t)c->step->step),
                      .stream = c->stream};
    a.width = fv_count(c->in[0].type) / fv_max64(a.rows, 1);
    a.tile_cols = fv_min64(fv_ceil_div(a.width, DRAWS) * DRAWS, FV_TILE);
    a.tile_rows = fv_tile_rows(a.tile_cols);
    a.across = fv_ceil_div(a.width, a.tile_cols);
    return a;
}

/* Elements [begin, end) of a row; begin is a multiple of DRAWS. Counter i serves elements 4 i to 4 i + 3: it sits in
 * the lane from which transposing brings its words to their place. */
static void dropout_row(const dropout_args *a, int64_t row, int64_t begin, int64_t end) {
    const uint32_t key = fv_fold((uint64_t)a->row_key[row]);
    const vi limit = (vi)vu_set1(a->threshold);
    const vf factor = vf_set1(a->factor);
    vu lane = {0};
    for (int i = 0; i < FV_VL; i++) lane[i] = (uint32_t)(i % 4 * (FV_VL / 4) + i / 4);
    for (int64_t e = begin; e < end; e += DRAWS) {
        const uint64_t first = (uint64_t)e / 4;
        vu counter = lane + vu_set1((uint32_t)first), words[4];
        if ((first + FV_VL) >> 32)
            for (int i = 0; i < FV_VL; i++) counter[i] = fv_fold(first + lane[i]);
        philox(a->seed, counter, key, a->step, a->stream, words);
        transpose_groups(words);
        const fv_elem *x = a->x + row * a->width + e;
        fv_elem *y = a->y + row * a->width + e;
        for (int k = 0; k < 4 && e + k * FV_VL < end; k++) {
            const int n = (int)fv_min64(FV_VL, end - e - k * FV_VL);
            fv_prefetch(x + k * FV_VL);
            const vi kept = (vi)(words[k] >> 8) >= limit; /* all bits or none */
            vf_store_n(y + k * FV_VL, (vf)((vi)(vf_load_n(x + k * FV_VL, n) * factor) & kept), n);
        }
    }
}

static void dropout_tile(void *arg, int64_t tile, int thread) {
    const dropout_args *a = arg;
    fv_range down = fv_tile_range(a->rows, a->tile_rows, tile / a->across);
    fv_range across = fv_tile_range(a->width, a->tile_cols, tile % a->across);
    (void)thread;
    for (int64_t row = down.begin; row < down.end; row++) dropout_row(a, row, across.begin, across.end);
}

void CPU(dropout)(const fv_call *c) {
    dropout_args a = dropout_of(c);
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile_rows) * a.across, dropout_tile, &a);
}

/* ---------------------------------------------------------------- stochastic depth (Huang et al. 2016): a draw per row
 */

static void drop_path_tile(void *arg, int64_t tile, int thread) {
    const dropout_args *a = arg;
    fv_range down = fv_tile_range(a->rows, a->tile_rows, tile / a->across);
    fv_range across = fv_tile_range(a->width, a->tile_cols, tile % a->across);
    const vf factor = vf_set1(a->factor);
    (void)thread;
    for (int64_t row = down.begin; row < down.end; row++) {
        const uint32_t counter[4] = {0, fv_fold((uint64_t)a->row_key[row]), a->step, a->stream};
        const bool keep = fv_philox4x32(a->seed, counter).v[0] >> 8 >= a->threshold;
        const fv_elem *x = a->x + row * a->width;
        fv_elem *y = a->y + row * a->width;
        for (int64_t j = across.begin; j < across.end; j += FV_VL) {
            const int n = (int)fv_min64(FV_VL, across.end - j);
            vf_store_n(y + j, keep ? vf_load_n(x + j, n) * factor : vf_zero(), n);
        }
    }
}

void CPU(drop_path)(const fv_call *c) {
    dropout_args a = dropout_of(c);
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile_rows) * a.across, drop_path_tile, &a);
}
