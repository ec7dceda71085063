/* mma.h: products of fragments by a warp, as tensor cores have them. All of a fragment lies with lane 0, which does the
 * work; the others come along, so that a warp that is not together does not pass. Addresses and strides must be those
 * that a GPU takes. */
#ifndef FV_TESTS_CUDA_MMA_H
#define FV_TESTS_CUDA_MMA_H

#include "core/tensor.h"
#include "tests/cuda/emulate/cuda_bf16.h"
#include "tests/cuda/emulate/cuda_fp16.h"

#include <cstdio>

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
    float v[16][16]; /* row, column */
};

template <typename> constexpr bool is_row = false;
template <> inline constexpr bool is_row<row_major> = true;

static inline void together(const void *p, unsigned ldm, size_t element) {
    if ((uintptr_t)p % 32 || ldm * element % 16) {
        fprintf(stderr, "wmma: address %p or stride %u is not aligned\n", p, ldm);
        abort();
    }
    __syncwarp();
}
static inline bool works() {
    return fv_emulated_self->lane == 0;
}

template <typename F> static inline void fill_fragment(F &f, float value) {
    if (!works()) return;
    for (int i = 0; i < 256; i++) f.v[i / 16][i % 16] = value;
}
static inline float value_of(__nv_bfloat16 x) {
    return fv_bf16_value(x.bits);
}
static inline float value_of(__half x) {
    return fv_f16_value(x.bits);
}
template <typename Use, typename T, typename Layout>
static inline void load_matrix_sync(fragment<Use, 16, 16, 16, T, Layout> &f, const T *p, unsigned ldm) {
    together(p, ldm, sizeof *p);
    if (!works()) return;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) f.v[i][j] = value_of(p[is_row<Layout> ? i * ldm + j : j * ldm + i]);
}
template <typename A, typename B>
static inline void mma_sync(fragment<accumulator, 16, 16, 16, float> &d, const A &a, const B &b,
                            const fragment<accumulator, 16, 16, 16, float> &c) {
    if (!works()) return;
    for (int i = 0; i < 16; i++) {
        float sum[16];
        for (int j = 0; j < 16; j++) sum[j] = c.v[i][j];
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 16; j++) sum[j] += a.v[i][k] * b.v[k][j];
        for (int j = 0; j < 16; j++) d.v[i][j] = sum[j];
    }
}
static inline void store_matrix_sync(float *p, const fragment<accumulator, 16, 16, 16, float> &f, unsigned ldm,
                                     layout_t layout) {
    together(p, ldm, sizeof *p);
    if (!works()) return;
    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++) p[layout == mem_row_major ? i * ldm + j : j * ldm + i] = f.v[i][j];
}

} // namespace wmma
} // namespace nvcuda

#endif
