/* gemm.h: the matrix micro-kernels that convolution, linear, matmul and attention are made of, and how their operands
 * are packed. All keep a tile of results in registers for the whole reduction.
 *
 *   row_gemm     y[i][j] = sum over taps t, depth d of x[x_off[i] + tap[t] + d] * b[t][d][j]
 *                rows anywhere in memory (pixels of a picture, rows of a matrix), b packed in panels of FV_NR columns
 *
 *   strip_gemm   the same for neighbouring pixels of one row, three taps wide and one vector of columns: each value of
 *                x is loaded once for all three taps (with few columns, row_gemm is bound by such loads)
 *
 *   outer_gemm   acc[i][j] += sum over p of a[p][i] * b[b_off[p] + j]
 *                the reduction runs over pixels or rows p: gradients of weights
 *
 *   panel_gemm   the same with both operands packed in panels
 *
 * Pairs: row_gemm and panel_gemm also multiply bf16, two in the place of each float of x, a and b: two neighbours in
 * the direction that is summed over (VDPBF16PS). Counts and offsets of these are then of pairs; results, sums and bias
 * are floats, as ever, unless row_gemm is asked to round. FV_GEMM chooses. */
#ifndef FV_CORE_CPU_KERNELS_GEMM_H
#define FV_CORE_CPU_KERNELS_GEMM_H

#include <stdbool.h>
#include <stddef.h>

#include "core/cpu/cpu.h"
#include "core/cpu/kernels/finish.h"
#include "core/cpu/kernels/tile.h"

/* FV_UNROLL_ALL: before a loop with a constant trip count. FV_UNROLL_4: before a loop with a long one. */
#if defined(__clang__)
#define FV_UNROLL_ALL _Pragma("clang loop unroll(full)")
#define FV_UNROLL_4 _Pragma("clang loop unroll_count(4)")
#define FV_UNROLL_NONE _Pragma("clang loop unroll(disable)")
#else
#define FV_UNROLL_ALL _Pragma("GCC unroll 32")
#define FV_UNROLL_4 _Pragma("GCC unroll 4")
#define FV_UNROLL_NONE _Pragma("GCC unroll 1")
#endif

/* row_gemm or panel_gemm, of pairs or of floats. */
#ifdef FV_PAIRS_BUILD
#define FV_GEMM(name, pairs) ((pairs) ? CPU_PAIRS(name) : CPU(name))
#else
#define FV_GEMM(name, pairs) ((void)(pairs), CPU(name))
#endif

/* Register tiles: 32 vector registers with AVX-512, else 16. */
#define FV_NR (2 * FV_VL) /* columns of a panel */
#if FV_VL == 16
#define FV_MR 12        /* rows of a row_gemm tile: 12 x 2 accumulators, 2 of b, 1 of x */
#define FV_OUTER_ROWS 8 /* rows of an outer_gemm tile: 8 x 3 accumulators */
#else
#define FV_MR 6
#define FV_OUTER_ROWS 4
#endif
#define FV_OUTER_VECTORS 3
#define FV_OUTER_COLUMNS (FV_OUTER_VECTORS * FV_VL)

/* Memory that will be read next, in up to four runs of 64-byte lines, `step` bytes apart. While a kernel computes it
 * asks for some of them, for the second-level cache, and moves on in the run: that hides most of what reading costs.
 * row_gemm, strip_gemm, panel_gemm: per_tile lines of each run per register tile. outer_gemm: one line per p, of the
 * first two runs; a run with another step than 64 is a matrix that is walked column by column. */
#define FV_AHEAD_RUNS 4
typedef struct fv_ahead {
    struct {
        const char *at;
        ptrdiff_t step;
        int64_t lines, per_tile;
    } run[FV_AHEAD_RUNS];
} fv_ahead;
/* per_tile >> share lines of each run, rounded up; NULL is fine. */
FV_INLINE void fv_read_ahead(fv_ahead *ahead, int share) {
    FV_UNROLL_NONE for (int i = 0; ahead && i < FV_AHEAD_RUNS; i++) {
        const int64_t left = ahead->run[i].lines;
        if (left <= 0) continue;
        int64_t n = fv_min64((ahead->run[i].per_tile + ((1 << share) - 1)) >> share, left);
        const char *at = ahead->run[i].at;
        ahead->run[i].lines = left - n;
        for (; n > 0; n--, at += ahead->run[i].step) __builtin_prefetch(at, 0, 2);
        ahead->run[i].at = at;
    }
}

/* Let a run be rows of x [..,floats], for `calls` calls of fv_read_ahead; more than `limit` lines are left alone. */
FV_INLINE void fv_ahead_rows(fv_ahead *ahead, int run, const float *x, fv_range rows, int64_t floats, int64_t limit,
                             int64_t calls) {
    const int64_t lines = (rows.end - rows.begin) * floats * (int64_t)sizeof *x / 64;
    if (lines > limit) return;
    ahead->run[run].at = (const char *)(x + rows.begin * floats);
    ahead->run[run].step = 64;
    ahead->run[run].lines = lines;
    ahead->run[run].per_tile = fv_ceil_div(lines, fv_max64(1, calls));
}

/* Rows that are left over by whole tiles and go along with one each, if all can: of 13 rows then. */
FV_INLINE int64_t fv_rows_along(int64_t rows) {
#if FV_MR == 12
    return rows % FV_MR <= rows / FV_MR ? rows % FV_MR : 0;
#else
    (void)rows;
    return 0;
#endif
}
/* Tiles that row_gemm makes of rows, by full panels. */
FV_INLINE int64_t fv_row_tiles(int64_t rows) {
    return fv_rows_along(rows) ? rows / FV_MR : fv_ceil_div(rows, FV_MR);
}

typedef struct fv_row_gemm {
    const float *x;
    const ptrdiff_t *x_off; /* [rows] in floats */
    float *y;
    const ptrdiff_t *y_off; /* [rows] */
    int64_t rows;
    const ptrdiff_t *tap; /* [taps] in floats */
    int64_t taps, depth;
    const float *b;                /* [taps][depth][fv_panel_width(columns)] */
    int columns;                   /* 1..FV_NR */
    const float *bias;             /* [columns] or NULL; not with accumulate */
    const float *residual;         /* where y lies, added to it; which may be y; or NULL. Not with accumulate */
    bool accumulate;               /* y += instead of y = */
    bool stream;                   /* write past the caches; y rows aligned to the vector, columns full */
    bool round;                    /* pairs only, not with accumulate or stream: y and y_off are of bf16 */
    const fv_finish *finish;       /* of sums that are complete, a short one; y lies in its y; or NULL */
    int64_t channel;               /* of its coefficients: the first column */
    const fv_activation_attr *act; /* likewise of complete sums, floats; or NULL */
    fv_ahead *ahead;               /* or NULL */
    const char *next[2];           /* for full panels: memory asked for evenly, all the while; next[0] NULL: nothing */
    ptrdiff_t next_step[2];        /* bytes per row of b and tile of rows */
} fv_row_gemm;
void CPU(row_gemm)(const fv_row_gemm *g);
void CPU_PAIRS(row_gemm)(const fv_row_gemm *g);

/* Ask for operands of the next product while this one runs: they are read as fast as the memory gives them, and in
 * bursts they would hold up what is computed. Run 0 first, run 1 if there is one. */
FV_INLINE void fv_row_gemm_next(fv_row_gemm *g, int run, const float *at, int64_t floats) {
    g->next[run] = g->next[1] = (const char *)at;
    g->next_step[1] = 0;
    g->next_step[run] = fv_ceil_div(floats * (int64_t)sizeof *at, fv_row_tiles(g->rows) * g->taps * g->depth);
}

/* y[i * y_step + j] = sum over rows r, taps t < 3, depth d of x[r * x_row + (i + t) * x_step + d] * b[r][t][d][j], i <
 * count. Reads x up to FV_STRIP - 1 pixels too far. */
#if FV_VL == 16
#define FV_STRIP 16
#else
#define FV_STRIP 8
#endif
typedef struct fv_strip_gemm {
    const float *x;
    ptrdiff_t x_row, x_step;
    int64_t rows, depth, count;
    const float *b; /* FV_VL wide */
    float *y;
    ptrdiff_t y_step;
    int columns; /* 1..FV_VL */
    const float *bias;
    bool accumulate;
    fv_ahead *ahead;
} fv_strip_gemm;
void CPU(strip_gemm)(const fv_strip_gemm *g);

/* Columns that a panel holds in memory: zeros behind `columns`. */
FV_INLINE int fv_panel_width(int64_t columns) {
    return columns <= FV_VL ? FV_VL : FV_NR;
}
/* Floats of `columns` columns and `depth` rows in panels: all but the last are FV_NR wide. */
FV_INLINE size_t fv_packed_floats(int64_t columns, int64_t depth) {
    int64_t tail = columns % FV_NR;
    return (size_t)(columns - tail + (tail ? fv_panel_width(tail) : 0)) * (size_t)depth;
}
/* dst[c * dst_ld + r] = src[r * src_ld + c] */
void CPU(transpose_matrix)(float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows, int64_t columns);
/* dst[d][j] = src[d * depth_stride + j * column_stride], j < columns; zeros up to the panel's width. One stride is 1.
 */
void CPU(pack_panel)(float *dst, const float *src, int64_t depth, int columns, ptrdiff_t depth_stride,
                     ptrdiff_t column_stride);
/* Two rows of bf16 as one of pairs: dst[j] = {first[j], second[j]}, j < columns; zeros up to `width`. second: or NULL,
 * for zeros. */
FV_INLINE void fv_pair_rows(float *dst, const uint16_t *first, const uint16_t *second, int columns, int width) {
    typedef uint32_t __attribute__((may_alias)) bits;
    bits *pair = (bits *)dst;
    if (second)
        for (int j = 0; j < columns; j++) pair[j] = first[j] | (uint32_t)second[j] << 16;
    else
        for (int j = 0; j < columns; j++) pair[j] = first[j];
    for (int j = columns; j < width; j++) pair[j] = 0;
}

/* acc[i * ld + j] (+)= sum over p < count of a[p * lda + i] * b[b_off[p] + j], i < FV_OUTER_ROWS, j < vectors * FV_VL.
 * b_off == NULL: p * ldb. vectors is 1, 2 or 3. */
typedef struct fv_outer_gemm {
    const float *a;
    ptrdiff_t lda;
    const float *b;
    const ptrdiff_t *b_off;
    ptrdiff_t ldb;
    int64_t count;
    float *acc;
    ptrdiff_t ld;
    int vectors;
    bool accumulate;
    fv_ahead *ahead;
} fv_outer_gemm;
void CPU(outer_gemm)(const fv_outer_gemm *g);

/* y[t][i][j] (+)= sum over d < depth of a[t][d][i] * b[d][j], t < tiles, i < FV_MR, j < vectors * FV_VL. Each tile of y
 * is dense, tiles are y_step floats apart. */
typedef struct fv_panel_gemm {
    const float *a; /* [tiles][depth][FV_MR] */
    const float *b; /* [depth][vectors * FV_VL] */
    int64_t tiles, depth;
    float *y;
    ptrdiff_t y_step;
    int vectors; /* 1 or 2 */
    bool accumulate;
    fv_ahead *ahead; /* per tile; or NULL */
} fv_panel_gemm;
void CPU(panel_gemm)(const fv_panel_gemm *g);
void CPU_PAIRS(panel_gemm)(const fv_panel_gemm *g);

/* Place `bytes` at the end of a workspace that is `*total` long so far; everything lies on 64 bytes. */
FV_INLINE size_t fv_workspace_add(size_t *total, size_t bytes) {
    size_t at = *total;
    *total += fv_lines(bytes);
    return at;
}

#endif
