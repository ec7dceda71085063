/* indices.cpp: the index arithmetic that host and device share (the headers of cuda/kernels) against plain loops:
 * launchers cut work by it, kernels find their part by it. test_cuda_kernels.c asks for it here, where those headers
 * compile. */
#include "cuda/kernels/conv.cuh"

#include <cstdio>
#include <vector>

extern "C" const char *fv_emulated_wrong_index(void);

namespace {

char what[256];

#define SAME(got, want, ...) \
    do { \
        const long long got_ = (long long)(got), want_ = (long long)(want); \
        if (got_ != want_) { \
            const int n_ = snprintf(what, sizeof what, "%s is %lld, not %lld; ", #got, got_, want_); \
            snprintf(what + n_, sizeof what - (size_t)n_, __VA_ARGS__); \
            return false; \
        } \
    } while (0)

/* ---------------------------------------------------------------- sizes */

bool sizes() {
    for (int64_t b = 1; b < 40; b++)
        for (int64_t a = 0, want = 0; a < 300; a++) {
            while (want * b < a) want++;
            SAME(fv_up(a, b), want, "%lld / %lld", (long long)a, (long long)b);
            SAME(fv_least(a, b), a < b ? a : b, "%lld, %lld", (long long)a, (long long)b);
            SAME(fv_most(a, b), a < b ? b : a, "%lld, %lld", (long long)a, (long long)b);
            SAME(fv_blocks(a, b), want > 0 ? want : 1, "%lld by %lld", (long long)a, (long long)b);
        }
    SAME(fv_blocks((int64_t)1 << 40, 256), FV_MOST_BLOCKS, "2^40 by 256");
    SAME(fv_or1(0), 1, "0");
    SAME(fv_or1(3), 3, "3");
    const fv_type t = {.dtype = FV_F32, .rank = 4, .dim = {2, 3, 5, 7}};
    for (int first = 0; first <= 4; first++)
        for (int last = first; last <= 4; last++) {
            int64_t count = 1;
            for (int i = first; i < last; i++) count *= t.dim[i];
            SAME(fv_extent(&t, first, last), count, "from %d to %d", first, last);
        }
    return true;
}

/* A flat index taken apart by quotients, as kernels do it, and by counting. */
bool places() {
    static const int extents[][3] = {{3, 5, 7}, {1, 1, 9}, {4, 8, 16}, {2, 31, 33}};
    for (const auto &e : extents) {
        const fv_divisor by_y = fv_divisor_of(e[1]), by_x = fv_divisor_of(e[2]);
        int flat = 0;
        for (int n = 0; n < e[0]; n++)
            for (int i = 0; i < e[1]; i++)
                for (int j = 0; j < e[2]; j++, flat++) {
                    int x, y;
                    const int row = fv_split(flat, by_x, &x), picture = fv_split(row, by_y, &y);
                    SAME(picture, n, "element %d", flat);
                    SAME(y, i, "element %d", flat);
                    SAME(x, j, "element %d", flat);
                }
    }
    return true;
}

/* ---------------------------------------------------------------- products */

/* Every step of k is in one slice, every result in one tile. */
bool cut(int64_t m, int64_t n, int64_t k, int64_t batch, bool sliced) {
    fv_gemm_size s;
    SAME(fv_gemm_cut(m, n, k, batch, sliced, &s), true, "%lld x %lld x %lld", (long long)m, (long long)n, (long long)k);
    SAME(s.tile == 64 || s.tile == 128, true, "tile %d", s.tile);
    SAME(s.slice % GEMM_STEP, 0, "slice %d", s.slice);
    SAME(s.slices >= 1 && s.slices <= (sliced ? GEMM_MOST_SLICES : 1), true, "%d slices", s.slices);
    int64_t covered = 0;
    for (int i = 0; i < s.slices; i++) {
        const int64_t begin = (int64_t)i * s.slice, end = fv_least(k, begin + s.slice);
        SAME(begin, covered, "slice %d of %lld", i, (long long)k);
        SAME(end > begin || k == 0, true, "slice %d of %lld is empty", i, (long long)k);
        covered = end;
    }
    SAME(covered, k, "%d slices of %d", s.slices, s.slice);
    const size_t floats = (size_t)s.slices * (size_t)(batch * m * n);
    if (sliced)
        SAME(fv_gemm_workspace(m, n, k, batch), s.slices == 1 ? 0 : floats * sizeof(float), "%lld x %lld x %lld",
             (long long)m, (long long)n, (long long)k);
    const int64_t across = fv_up(n, s.tile), blocks = fv_up(m, s.tile) * across;
    std::vector<char> seen((size_t)(fv_up(m, s.tile) * across));
    for (int64_t b = 0; b < blocks; b++) { /* as fv_gemm_tile finds its own */
        const int64_t m0 = b / across * s.tile, n0 = b % across * s.tile;
        SAME(m0 < m && n0 < n, true, "block %lld", (long long)b);
        seen[(size_t)(m0 / s.tile * across + n0 / s.tile)]++;
    }
    for (size_t i = 0; i < seen.size(); i++) SAME(seen[i], 1, "tile %zu", i);
    return true;
}

/* 16 threads with T / 16 results each have T different places. */
template <int T> bool own_places() {
    std::vector<char> seen(T);
    for (int thread = 0; thread < 16; thread++)
        for (int r = 0; r < T / 16; r++) {
            const int at = fv_gemm_place<T>(thread, r);
            SAME(at >= 0 && at < T, true, "thread %d, result %d", thread, r);
            seen[(size_t)at]++;
        }
    for (int i = 0; i < T; i++) SAME(seen[(size_t)i], 1, "place %d of %d", i, T);
    return true;
}

bool products() {
    static const int64_t sizes[] = {1, 2, 63, 64, 65, 127, 128, 129, 1000, 2050};
    static const int64_t lengths[] = {1, 15, 16, 17, 255, 256, 257, 4096, 75001, 2000000};
    for (int64_t m : sizes)
        for (int64_t n : sizes)
            for (int64_t k : lengths)
                for (int64_t batch = 1; batch <= 3; batch += 2)
                    if (!cut(m, n, k, batch, true) || !cut(m, n, k, batch, false)) return false;
    fv_gemm_size s;
    SAME(fv_gemm_cut(((int64_t)1 << 30) + 1, 1, 1, 1, true, &s), false, "too many rows");
    SAME(fv_gemm_cut(1, 1, 1, 65536, true, &s), false, "a batch that no grid has");
    SAME(fv_gemm_cut((int64_t)1 << 30, (int64_t)1 << 30, 1, 1, true, &s), false, "more tiles than a grid has blocks");
    const fv_batching b = {3, 1000, 7};
    for (int outer = 0, batch = 0; outer < 4; outer++)
        for (int inner = 0; inner < 3; inner++, batch++)
            SAME(fv_batch_offset(b, batch), 1000 * outer + 7 * inner, "matrix %d", batch);
    return own_places<64>() && own_places<128>();
}

/* ---------------------------------------------------------------- convolutions */

/* The three of a convolution see the same sizes, whichever of its tensors is the result. */
bool convolutions() {
    const fv_type x = {.dtype = FV_F32, .rank = 4, .dim = {2, 9, 11, 6}},
                  w = {.dtype = FV_F32, .rank = 4, .dim = {4, 3, 2, 3}},
                  y = {.dtype = FV_F32, .rank = 4, .dim = {2, 5, 10, 4}};
    fv_attr attr = {};
    const fv_conv2d_attr conv = {.stride = {2, 0}, .pad = {1, 0, 1, 0}, .dilation = {0, 1}, .groups = 2};
    attr.conv2d = conv;
    const fv_conv forward = fv_conv_of_types(FV_OP_CONV2D, &attr, &x, &w, &y);
    attr = {};
    attr.conv2d_bwd.conv = conv;
    const fv_conv data = fv_conv_of_types(FV_OP_CONV2D_BWD_DATA, &attr, &y, &w, &x);
    const fv_conv weight = fv_conv_of_types(FV_OP_CONV2D_BWD_WEIGHT, &attr, &y, &x, &w);
    const int want[] = {2, 9, 11, 6, 4, 3, 2, 5, 10, 2, 3, 2, 2, 1, 1, 1, 1, 0};
    for (const fv_conv *d : {&forward, &data, &weight}) {
        const int got[] = {d->n,        d->h,        d->w,          d->c,          d->k,   d->r,
                           d->s,        d->oh,       d->ow,         d->groups,     d->cg,  d->kg,
                           d->stride_h, d->stride_w, d->dilation_h, d->dilation_w, d->top, d->left};
        for (size_t i = 0; i < sizeof want / sizeof *want; i++) SAME(got[i], want[i], "field %zu", i);
        SAME(fv_is_depthwise(*d), false, "3 channels per group");
    }
    return true;
}

/* ---------------------------------------------------------------- randomness: its counters are indices */

bool draws() {
    for (uint64_t i = 0; i < 2000; i++) {
        const uint64_t seed = i * 0x9E3779B97F4A7C15u, element = i * i, row = i << 33 | i, step = ~i;
        const fv_philox got = fv_draw(seed, element, row, step, (uint32_t)i),
                        want = fv_random(seed, element, row, step, (uint32_t)i);
        SAME(memcmp(&got, &want, sizeof got), 0, "draw %llu", (unsigned long long)i);
        const uint32_t word = (uint32_t)seed;
        SAME(fv_uniform(word) == fv_uniform_f32(word), true, "word %u", word);
    }
    return true;
}

} // namespace

/* What is wrong; NULL: nothing. */
const char *fv_emulated_wrong_index(void) {
    return sizes() && places() && products() && convolutions() && draws() ? NULL : what;
}
