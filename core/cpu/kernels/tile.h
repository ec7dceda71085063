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

/* The data of a kernel: floats, or bf16 or f16 in further builds of the files in BF16_SRC and F16_SRC (Makefile). What
 * lies in the workspace, parameters and statistics are floats in all. */
#if defined(FV_BF16_DATA)
typedef fv_bf16 fv_elem;
#elif defined(FV_F16_DATA)
typedef fv_f16 fv_elem;
#else
typedef float fv_elem;
#endif
FV_INLINE float fv_get(const fv_elem *p) {
#if defined(FV_BF16_DATA)
    return fv_bf16_value(p->bits);
#elif defined(FV_F16_DATA)
    return fv_f16_value(p->bits);
#else
    return *p;
#endif
}
FV_INLINE fv_elem fv_elem_of(float x) {
#if defined(FV_BF16_DATA)
    return (fv_elem){fv_bf16_round(x)};
#elif defined(FV_F16_DATA)
    return (fv_elem){fv_f16_round(x)};
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

/* Elements of any float type but double as those of another. */
typedef struct fv_convert_args {
    const void *x;
    void *y;
    fv_dtype from, to;
    int64_t count;
} fv_convert_args;
FV_INLINE vf vf_load_as(fv_dtype dtype, const void *p, int64_t i, int n) {
    if (dtype == FV_F16) return vf_load_n((const fv_f16 *)p + i, n);
    return dtype == FV_BF16 ? vf_load_n((const fv_bf16 *)p + i, n) : vf_load_n((const float *)p + i, n);
}
FV_INLINE void vf_store_as(fv_dtype dtype, void *p, int64_t i, vf v, int n) {
    if (dtype == FV_F16) vf_store_n((fv_f16 *)p + i, v, n);
    else if (dtype == FV_BF16) vf_store_n((fv_bf16 *)p + i, v, n);
    else vf_store_n((float *)p + i, v, n);
}
FV_INLINE void fv_convert_range(const fv_convert_args *a, fv_range r, fv_dtype from, fv_dtype to) {
    int64_t i = r.begin;
    for (; i + FV_VL <= r.end; i += FV_VL) vf_store_as(to, a->y, i, vf_load_as(from, a->x, i, FV_VL), FV_VL);
    const int n = (int)(r.end - i);
    if (n) vf_store_as(to, a->y, i, vf_load_as(from, a->x, i, n), n);
}
FV_INLINE void fv_convert_tile(void *arg, int64_t tile, int thread) {
    const fv_convert_args *a = arg;
    const fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    if (a->from == FV_F32 && a->to == FV_BF16) fv_convert_range(a, r, FV_F32, FV_BF16);
    else if (a->from == FV_F32 && a->to == FV_F16) fv_convert_range(a, r, FV_F32, FV_F16);
    else if (a->from == FV_BF16 && a->to == FV_F32) fv_convert_range(a, r, FV_BF16, FV_F32);
    else if (a->from == FV_F16 && a->to == FV_F32) fv_convert_range(a, r, FV_F16, FV_F32);
    else fv_convert_range(a, r, a->from, a->to);
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
