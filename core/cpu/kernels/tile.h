/* tile.h: how kernels cut their work into tiles. Tiles depend on shapes only, never on the number of threads, and a
 * tile's partial sums are reduced in tile order: the same bits for any number of threads. */
#ifndef FV_CORE_CPU_KERNELS_TILE_H
#define FV_CORE_CPU_KERNELS_TILE_H

#include "core/cpu/cpu.h"
#include "core/cpu/kernels/vec.h"

#define FV_TILE 16384      /* elements of an element-wise tile: 64 KiB of floats, so that a few operands fit in L2 */
#define FV_MAX_PARTIALS 64 /* tiles that leave partial sums */

/* Loops that read three or more arrays, or compute much between loads, outrun the processor's own prefetcher: they ask
 * for what lies 4 KiB ahead. On a Zen 5, [128,32,32,64]: batch norm's backward pass 7.5 to 4.5 ms, dropout 7.1 to 3.2.
 */
#define FV_AHEAD 4096
FV_INLINE void fv_prefetch(const void *p) {
    __builtin_prefetch((const void *)((uintptr_t)p + FV_AHEAD));
}

/* The data of a kernel: floats, or bf16 in the second build of the files in BF16_SRC (Makefile). What lies in the
 * workspace, parameters and statistics are floats in both. */
#ifdef FV_BF16_DATA
typedef fv_bf16 fv_elem;
#else
typedef float fv_elem;
#endif
FV_INLINE float fv_get(const fv_elem *p) {
#ifdef FV_BF16_DATA
    return fv_bf16_value(p->bits);
#else
    return *p;
#endif
}
FV_INLINE fv_elem fv_elem_of(float x) {
#ifdef FV_BF16_DATA
    return (fv_elem){fv_bf16_round(x)};
#else
    return x;
#endif
}

typedef struct fv_range {
    int64_t begin, end;
} fv_range;

FV_INLINE int64_t fv_ceil_div(int64_t a, int64_t b) {
    return (a + b - 1) / b;
}
FV_INLINE int64_t fv_min64(int64_t a, int64_t b) {
    return a < b ? a : b;
}
FV_INLINE int64_t fv_max64(int64_t a, int64_t b) {
    return a > b ? a : b;
}

/* Part `tile` of [0, n) cut in pieces of `size`. */
FV_INLINE fv_range fv_tile_range(int64_t n, int64_t size, int64_t tile) {
    return (fv_range){tile * size, fv_min64(n, (tile + 1) * size)};
}

/* Rows of `cols` elements per tile so that a tile has about FV_TILE elements. */
FV_INLINE int64_t fv_tile_rows(int64_t cols) {
    return cols >= FV_TILE ? 1 : FV_TILE / fv_max64(cols, 1);
}

/* Rows per tile where every tile leaves partial sums: at least 4 FV_TILE elements, at most FV_MAX_PARTIALS tiles. */
FV_INLINE int64_t fv_partial_rows(int64_t rows, int64_t cols) {
    return fv_max64(fv_ceil_div(rows, FV_MAX_PARTIALS), 4 * fv_tile_rows(cols));
}

/* Product of all dimensions but the last; the last. A scalar is one row of one column. */
FV_INLINE int64_t fv_last(const fv_type *t) {
    return t->rank ? t->dim[t->rank - 1] : 1;
}
FV_INLINE int64_t fv_rows(const fv_type *t) {
    int64_t n = 1;
    for (int i = 0; i + 1 < t->rank; i++) n *= t->dim[i];
    return n;
}

/* Operand or result k; NULL when absent. */
FV_INLINE void *fv_operand(const fv_call *c, int k) {
    return k < c->n_in ? c->in[k].data : NULL;
}
FV_INLINE void *fv_result_of(const fv_call *c, int k) {
    return k < c->n_out ? c->out[k].data : NULL;
}

/* Bytes rounded up to whole cache lines, for carving a workspace. */
FV_INLINE size_t fv_lines(size_t bytes) {
    return (bytes + 63) & ~(size_t)63;
}

#endif
