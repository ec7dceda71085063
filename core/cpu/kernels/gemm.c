/* gemm.c: micro-kernels and packing (gemm.h). With FV_PAIRS only row_gemm and panel_gemm, of pairs. */
#include "core/cpu/kernels/gemm.h"

#include "core/cpu/kernels/activate.h"
#include "core/cpu/kernels/norm_apply.h"

#ifdef FV_PAIRS
#define multiply_add vf_fma_pairs
#else
#define multiply_add vf_fma
#endif

/* ---------------------------------------------------------------- row_gemm */

typedef struct row_tile { /* one tile of rows of an fv_row_gemm */
    const fv_row_gemm *g;
    const ptrdiff_t *x_off, *y_off, *y_next;
    const char *next[2]; /* of g, for this tile */
    vf bias[2];
} row_tile;

#ifdef FV_PAIRS
FV_INLINE bool rounds(const fv_row_gemm *g) {
    return g->round;
}
FV_INLINE bool activates(const fv_row_gemm *g) {
    (void)g;
    return false;
}
FV_INLINE void activate(const fv_activation_attr *a, float *y, int count) {
    (void)a, (void)y, (void)count;
}
#else
FV_INLINE bool rounds(const fv_row_gemm *g) {
    (void)g;
    return false;
}
FV_INLINE bool activates(const fv_row_gemm *g) {
    return g->act != NULL;
}
FV_INLINE void activate(const fv_activation_attr *a, float *y, int count) {
    CPU(activate)(a, y, y, count);
}
#endif

/* Batch norm of the results; `last` columns of the last vector. */
FV_INLINE void finish_tile(const row_tile *t, vf acc[][2], const int mr, const int nv, const int last) {
    const fv_row_gemm *g = t->g;
    const fv_finish *f = g->finish;
    const float *r = f->residual ? f->residual + (g->y - f->y) : NULL;
    const vf low = fv_act_floor_of(f->act);
    FV_UNROLL_ALL for (int v = 0; v < nv; v++) {
        const int n = v < nv - 1 ? FV_VL : last;
        const int64_t at = g->channel + v * FV_VL;
        const vf mean = vf_load_n(f->mean + at, n), scale = vf_load_n(f->scale + at, n),
                 shift = vf_load_n(f->shift + at, n);
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) acc[i][v] = fv_norm_apply(acc[i][v], mean, scale, shift);
        if (r) { FV_UNROLL_ALL for (int i = 0; i < mr; i++) acc[i][v] += vf_load_n(r + t->y_off[i] + v * FV_VL, n); }
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) acc[i][v] = fv_act_floor(acc[i][v], low);
    }
}

/* Of 12 rows, which at equal distances from each other need four addresses and a distance instead of twelve addresses,
 * for which there are no registers. */
#if FV_MR == 12
#define HAS_EVEN 1
#endif
enum { FEW = 3 }; /* rows that share an address: [a], [a + step], [a + 2 * step] */

/* Loads and stores under a mask cost what others do: one piece of code for full and other vectors. */
#if FV_AVX512
enum { MASKS_ARE_FREE = 1 };
#else
enum { MASKS_ARE_FREE = 0 };
#endif

/* What a tile asks memory for while it is computed: the lines of the next tile's results, of what is added to those,
 * and of g->ahead. Products wait while many lines are on their way, so that they are asked for in four parts or more: a
 * linear layer of 192 to 192 channels with a residual, 8320 rows, takes 1.67 instead of 2.0 ms. */
typedef struct asks {
    const float *y, *residual; /* or NULL */
    int row, rows;             /* of the next tile: next one, end */
    int share;                 /* of all in a part, as a power of two */
    ptrdiff_t walk;            /* rows of b between parts; a part begins with every tap, too */
} asks;

FV_INLINE asks asks_of(const fv_row_gemm *g, int rows) {
    asks a = {.y = g->stream ? NULL : g->y, .residual = g->residual, .rows = rows, .walk = (ptrdiff_t)g->depth};
    if (g->finish && g->finish->residual) a.residual = g->finish->residual + (g->y - g->finish->y);
    a.share = g->taps < 2 ? 0 : g->taps < 4 ? 1 : g->taps < 8 ? 2 : 3;
    if (!a.y && !a.residual) {
        a.row = rows;
    } else if (g->taps < 8) {
        a.share = 2;
        a.walk = (ptrdiff_t)fv_max64(4, ((g->taps * g->depth >> 2) + 3) & ~(int64_t)3);
    }
    return a;
}

FV_INLINE void ask_row(const float *at, const int nv) {
    FV_UNROLL_ALL for (int v = 0; v < nv; v++) __builtin_prefetch(at + v * FV_VL, 1);
}

FV_INLINE void ask_part(asks *a, const row_tile *t, const int nv) {
    enum { ROWS = 16 }; /* FV_MR + 1 at most */
    const int end = a->row + (ROWS >> a->share) < a->rows ? a->row + (ROWS >> a->share) : a->rows;
    FV_UNROLL_NONE for (; a->row < end; a->row++) {
        const ptrdiff_t at = t->y_next[a->row];
        if (a->y) ask_row(rounds(t->g) ? a->y + at / 2 : a->y + at, nv);
        if (a->residual) ask_row(a->residual + at, nv);
    }
    fv_read_ahead(t->g->ahead, a->share);
}

FV_INLINE void ask_next(const fv_row_gemm *g, const char *next[2]) {
    FV_UNROLL_ALL for (int n = 0; n < 2; n++) {
        __builtin_prefetch(next[n], 0, 2);
        next[n] += g->next_step[n];
    }
}

/* One row of b times one of each row of x. few: `step` apart, if even. */
FV_INLINE void row_step(vf acc[][2], const float *b, const float *const *row, ptrdiff_t d, const float *const *few,
                        ptrdiff_t step, const int mr, const int nv, const bool even) {
    vf w[2];
    FV_UNROLL_ALL for (int v = 0; v < nv; v++) w[v] = vf_load(b + v * FV_VL);
    FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
        const vf x = vf_set1(even ? few[i / FEW][i % FEW * step] : row[i][d]);
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = multiply_add(x, w[v], acc[i][v]);
    }
}

/* MR x (nv * FV_VL) results. Inlined with constant mr and nv, so that acc lives in registers. even: rows of x are at
 * equal distances. */
FV_INLINE void row_tile_run(const row_tile *t, const int mr, const int nv, const bool has_next, const bool even) {
    const fv_row_gemm *g = t->g;
    const int last = g->columns - (nv - 1) * FV_VL; /* columns of the last vector */
    const bool full = last == FV_VL;
    vf acc[FV_MR + 1][2];
    const float *row[FV_MR + 1];
    FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
        row[i] = g->x + t->x_off[i];
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = t->bias[v];
    }
    const float *start = g->accumulate ? g->y : g->residual;
    if (start) {
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
            const float *y = start + t->y_off[i];
            if (nv == 2) acc[i][0] += vf_load(y);
            acc[i][nv - 1] +=
                full && !MASKS_ARE_FREE ? vf_load(y + (nv - 1) * FV_VL) : vf_load_n(y + (nv - 1) * FV_VL, last);
        }
    }
    asks a = asks_of(g, mr);
    const float *b = g->b;
    const char *next[2] = {t->next[0], t->next[1]};
    const ptrdiff_t step = even ? t->x_off[1] - t->x_off[0] : 0;
    for (int64_t tap = 0; tap < g->taps; tap++) {
        ptrdiff_t d = g->tap[tap];
        const ptrdiff_t end = d + (ptrdiff_t)g->depth;
        const float *few[FV_MR / FEW + 1];
        if (even) { FV_UNROLL_ALL for (int i = 0; i < mr; i += FEW) few[i / FEW] = row[0] + d + i * step; }
        while (d < end) {
            const ptrdiff_t stop = end - d > a.walk ? d + a.walk : end;
            ask_part(&a, t, nv);
            FV_UNROLL_4 for (ptrdiff_t k = d; k < stop; k++, b += nv * FV_VL) {
                if (has_next) ask_next(g, next);
                row_step(acc, b, row, k, few, step, mr, nv, even);
                if (even) { FV_UNROLL_ALL for (int i = 0; i < mr; i += FEW) few[i / FEW]++; }
            }
            d = stop;
        }
    }
    if (g->finish) {
        if (full && !MASKS_ARE_FREE) finish_tile(t, acc, mr, nv, FV_VL);
        else finish_tile(t, acc, mr, nv, last);
    }
    if (activates(g)) { /* by a loop over memory: few registers are left, and many tiles would hold its code */
        float sums[(FV_MR + 1) * FV_NR] __attribute__((aligned(64)));
        FV_UNROLL_ALL for (int i = 0; i < mr * nv; i++) vf_store(sums + i * FV_VL, acc[i / nv][i % nv]);
        activate(g->act, sums, mr * nv * FV_VL);
        FV_UNROLL_ALL for (int i = 0; i < mr * nv; i++) acc[i / nv][i % nv] = vf_load(sums + i * FV_VL);
    }
    if (rounds(g)) {
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
            fv_bf16 *y = (fv_bf16 *)(void *)g->y + t->y_off[i];
            FV_UNROLL_ALL for (int v = 0; v < nv; v++) vf_store_n(y + v * FV_VL, acc[i][v], v < nv - 1 ? FV_VL : last);
        }
    } else if (g->stream) {
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
            FV_UNROLL_ALL for (int v = 0; v < nv; v++) vf_stream(g->y + t->y_off[i] + v * FV_VL, acc[i][v]);
        }
    } else if (full && !MASKS_ARE_FREE) {
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
            FV_UNROLL_ALL for (int v = 0; v < nv; v++) vf_store(g->y + t->y_off[i] + v * FV_VL, acc[i][v]);
        }
    } else {
        FV_UNROLL_ALL for (int i = 0; i < mr; i++) {
            float *y = g->y + t->y_off[i];
            if (nv == 2) vf_store(y, acc[i][0]);
            vf_store_n(y + (nv - 1) * FV_VL, acc[i][nv - 1], last);
        }
    }
}

#define ROW_TILE(name, mr, nv, has_next, even) \
    static __attribute__((noinline)) void name(const row_tile *t) { \
        row_tile_run(t, mr, nv, has_next, even); \
    }
#define MR_2 (FV_MR * 2 / 3)
#define MR_1 (FV_MR / 3)
ROW_TILE(row_tile_3x2, FV_MR, 2, false, false)
ROW_TILE(row_tile_2x2, MR_2, 2, false, false)
ROW_TILE(row_tile_1x2, MR_1, 2, false, false)
ROW_TILE(row_tile_next_3x2, FV_MR, 2, true, false)
ROW_TILE(row_tile_next_2x2, MR_2, 2, true, false)
ROW_TILE(row_tile_next_1x2, MR_1, 2, true, false)
ROW_TILE(row_tile_3x1, FV_MR, 1, false, false)
ROW_TILE(row_tile_2x1, MR_2, 1, false, false)
ROW_TILE(row_tile_1x1, MR_1, 1, false, false)
#ifdef HAS_EVEN
ROW_TILE(row_tile_even_3x2, FV_MR, 2, false, true)
ROW_TILE(row_tile_even_3x1, FV_MR, 1, false, true)
ROW_TILE(row_tile_even_next_3x2, FV_MR, 2, true, true)

/* Rows that would be left over go along with twelve others, one each: 49 rows are the last pictures of 7x7 pixels of
 * most networks, 65 a ViT's 8x8 patches and a class, and a tile for what is left waits for all of b as long as any. */
ROW_TILE(row_tile_more_2, FV_MR + 1, 2, false, false)
ROW_TILE(row_tile_next_more_2, FV_MR + 1, 2, true, false)
ROW_TILE(row_tile_even_more_2, FV_MR + 1, 2, false, true)

static bool is_even(const ptrdiff_t *x_off, int rows) {
    ptrdiff_t other = rows > FV_MR ? x_off[FV_MR] - x_off[FV_MR - 1] - (x_off[1] - x_off[0]) : 0;
    FV_UNROLL_ALL for (int i = 2; i < FV_MR; i++) other |= x_off[i] - x_off[i - 1] - (x_off[1] - x_off[0]);
    return other == 0;
}
#else
#define row_tile_even_3x2 row_tile_3x2
#define row_tile_even_3x1 row_tile_3x1
#define row_tile_even_next_3x2 row_tile_next_3x2
#define row_tile_more_2 NULL
#define row_tile_next_more_2 NULL
#define row_tile_even_more_2 NULL
static bool is_even(const ptrdiff_t *x_off, int rows) {
    (void)x_off, (void)rows;
    return false;
}
#endif

void CPU(row_gemm)(const fv_row_gemm *g) {
    typedef void (*tile_fn)(const row_tile *);
    enum { EVEN = 1, MORE = 4 };
    static const tile_fn wide[] = {row_tile_1x2,      row_tile_2x2,    row_tile_3x2,
                                   row_tile_even_3x2, row_tile_more_2, row_tile_even_more_2};
    static const tile_fn wide_next[] = {row_tile_next_1x2,      row_tile_next_2x2,    row_tile_next_3x2,
                                        row_tile_even_next_3x2, row_tile_next_more_2, row_tile_next_more_2};
    static const tile_fn narrow[] = {row_tile_1x1, row_tile_2x1, row_tile_3x1, row_tile_even_3x1, NULL, NULL};
    const tile_fn *fn = g->columns <= FV_VL ? narrow : g->next[0] ? wide_next : wide;
    row_tile t = {.g = g, .next = {g->next[0], g->next[1]}, .bias = {vf_zero(), vf_zero()}};
    if (g->bias) {
        t.bias[0] = vf_load_n(g->bias, g->columns < FV_VL ? g->columns : FV_VL);
        if (g->columns > FV_VL) t.bias[1] = vf_load_n(g->bias + FV_VL, g->columns - FV_VL);
    }
    const int64_t tiles = g->rows / FV_MR, more = fn[MORE] ? fv_rows_along(g->rows) : 0;
    int64_t i = 0;
    for (int64_t tile = 0; tile < tiles; tile++) {
        const int rows = FV_MR + (tile >= tiles - more);
        t.x_off = g->x_off + i;
        t.y_off = g->y_off + i;
        t.y_next = tile + 1 < tiles ? t.y_off + rows : t.y_off;
        fn[(rows > FV_MR ? MORE : 2) + (is_even(t.x_off, rows) ? EVEN : 0)](&t);
        i += rows;
        for (int n = 0; g->next[0] && n < 2; n++) t.next[n] += g->next_step[n] * g->taps * g->depth;
    }
    if (i == g->rows) return;
    /* The rest: the last row again in the unused places, which writes the same values to the same place. */
    ptrdiff_t x_off[FV_MR], y_off[FV_MR];
    int left = (int)(g->rows - i), third = (left - 1) / MR_1;
    for (int j = 0; j < FV_MR; j++) {
        int64_t row = j < left ? i + j : g->rows - 1;
        x_off[j] = g->x_off[row];
        y_off[j] = g->y_off[row];
    }
    t.x_off = x_off;
    t.y_off = t.y_next = y_off;
    fn[third](&t);
}

/* ---------------------------------------------------------------- panel_gemm */

FV_INLINE void panel_tile_run(const fv_panel_gemm *g, const float *a, float *y, const int nv) {
    const float *b = g->b;
    vf acc[FV_MR][2];
    FV_UNROLL_ALL for (int i = 0; i < FV_MR; i++) {
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = vf_zero();
        __builtin_prefetch(y + i * nv * FV_VL, 1);
    }
    FV_UNROLL_4 for (int64_t d = 0; d < g->depth; d++, a += FV_MR, b += nv * FV_VL) {
        vf w[2];
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) w[v] = vf_load(b + v * FV_VL);
        FV_UNROLL_ALL for (int i = 0; i < FV_MR; i++) {
            const vf x = vf_set1(a[i]);
            FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = multiply_add(x, w[v], acc[i][v]);
        }
    }
    if (g->accumulate) {
        FV_UNROLL_ALL for (int i = 0; i < FV_MR * nv; i++) acc[i / nv][i % nv] += vf_load(y + i * FV_VL);
    }
    FV_UNROLL_ALL for (int i = 0; i < FV_MR * nv; i++) vf_store(y + i * FV_VL, acc[i / nv][i % nv]);
}

void CPU(panel_gemm)(const fv_panel_gemm *g) {
    const float *a = g->a;
    float *y = g->y;
    for (int64_t t = 0; t < g->tiles; t++, a += g->depth * FV_MR, y += g->y_step) {
        fv_read_ahead(g->ahead, 0);
        if (g->vectors == 2) panel_tile_run(g, a, y, 2);
        else panel_tile_run(g, a, y, 1);
    }
}

#ifndef FV_PAIRS
/* ---------------------------------------------------------------- strip_gemm */

/* Positions i .. i + length; the results of those past `count` are dropped. */
FV_INLINE void strip_run(const fv_strip_gemm *g, int64_t first, const int length) {
    const int64_t left = g->count - first;
    const float *x = g->x + first * g->x_step, *b = g->b;
    float *y = g->y + first * g->y_step;
    const vf bias = g->bias ? vf_load_n(g->bias, g->columns) : vf_zero();
    vf acc[FV_STRIP];
    FV_UNROLL_ALL for (int i = 0; i < length; i++) {
        const bool load = g->accumulate && i < left;
        acc[i] = load ? vf_load_n(y + i * g->y_step, g->columns) : bias;
        if (i < left) __builtin_prefetch(y + i * g->y_step, 1);
    }
    fv_read_ahead(g->ahead, 0);
    for (int64_t r = 0; r < g->rows; r++, x += g->x_row, b += 3 * g->depth * FV_VL) {
        for (int64_t d = 0; d < g->depth; d++) {
            const float *w = b + d * FV_VL;
            const vf w0 = vf_load(w), w1 = vf_load(w + g->depth * FV_VL), w2 = vf_load(w + 2 * g->depth * FV_VL);
            FV_UNROLL_ALL for (int i = 0; i < length + 2; i++) {
                const vf v = vf_set1(x[i * g->x_step + d]);
                if (i >= 2) acc[i - 2] = vf_fma(v, w2, acc[i - 2]);
                if (i >= 1 && i <= length) acc[i - 1] = vf_fma(v, w1, acc[i - 1]);
                if (i < length) acc[i] = vf_fma(v, w0, acc[i]);
            }
        }
    }
    FV_UNROLL_ALL for (int i = 0; i < length; i++) {
        if (i >= left) break;
        if (g->columns == FV_VL) vf_store(y + i * g->y_step, acc[i]);
        else vf_store_n(y + i * g->y_step, acc[i], g->columns);
    }
}

static __attribute__((noinline)) void strip_long(const fv_strip_gemm *g, int64_t first) {
    strip_run(g, first, FV_STRIP);
}
static __attribute__((noinline)) void strip_short(const fv_strip_gemm *g, int64_t first) {
    strip_run(g, first, FV_STRIP / 2);
}

void CPU(strip_gemm)(const fv_strip_gemm *g) {
    int64_t i = 0;
    for (; i + FV_STRIP / 2 < g->count; i += FV_STRIP) strip_long(g, i);
    if (i < g->count) strip_short(g, i);
}

/* ---------------------------------------------------------------- outer_gemm */

FV_INLINE void outer_tile_run(const fv_outer_gemm *g, const int nv) {
    vf acc[FV_OUTER_ROWS][FV_OUTER_VECTORS];
    FV_UNROLL_ALL for (int i = 0; i < FV_OUTER_ROWS; i++) {
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = vf_zero();
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) __builtin_prefetch(g->acc + i * g->ld + v * FV_VL, 1);
    }
    const float *a = g->a, *b = g->b;
    const ptrdiff_t *b_off = g->b_off, lda = g->lda;
    const char *ahead = (const char *)a; /* nothing left to ask for: the same line again and again */
    ptrdiff_t step = 0;
    const int run = g->ahead && g->ahead->run[0].lines <= 0;
    if (g->ahead && g->ahead->run[run].lines > 0) {
        ahead = g->ahead->run[run].at;
        step = g->ahead->run[run].step;
        g->ahead->run[run].at += step == 64 ? g->count * 64 : 64;
        g->ahead->run[run].lines -= g->count;
    }
    for (int64_t p = 0; p < g->count; p++) {
        const float *column = b_off ? b + b_off[p] : b + p * g->ldb;
        vf w[FV_OUTER_VECTORS];
        __builtin_prefetch(ahead, 0, 2);
        ahead += step;
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) w[v] = vf_load(column + v * FV_VL);
        FV_UNROLL_ALL for (int i = 0; i < FV_OUTER_ROWS; i++) {
            vf x = vf_set1(a[i]);
            FV_UNROLL_ALL for (int v = 0; v < nv; v++) acc[i][v] = vf_fma(x, w[v], acc[i][v]);
        }
        a += lda;
    }
    FV_UNROLL_ALL for (int i = 0; i < FV_OUTER_ROWS; i++) {
        float *sums = g->acc + i * g->ld;
        FV_UNROLL_ALL for (int v = 0; v < nv; v++) {
            vf_store(sums + v * FV_VL, g->accumulate ? vf_load(sums + v * FV_VL) + acc[i][v] : acc[i][v]);
        }
    }
}

static __attribute__((noinline)) void outer_tile_1(const fv_outer_gemm *g) {
    outer_tile_run(g, 1);
}
static __attribute__((noinline)) void outer_tile_2(const fv_outer_gemm *g) {
    outer_tile_run(g, 2);
}
static __attribute__((noinline)) void outer_tile_3(const fv_outer_gemm *g) {
    outer_tile_run(g, 3);
}

void CPU(outer_gemm)(const fv_outer_gemm *g) {
    if (g->vectors == 3) outer_tile_3(g);
    else if (g->vectors == 2) outer_tile_2(g);
    else outer_tile_1(g);
}

/* ---------------------------------------------------------------- packing */

typedef float v4_unaligned __attribute__((vector_size(16), aligned(4), may_alias));

/* Four rows of up to FV_VL columns: every line of memory is read once. */
FV_INLINE void transpose_four(float *dst, int64_t dst_ld, const float *src, int64_t stride, const int columns) {
    vf row[4];
    FV_UNROLL_ALL for (int i = 0; i < 4; i++) row[i] = vf_load_n(src + i * stride, columns);
    vf column[4];
    vf_turn_fours(row, column);
    FV_UNROLL_ALL for (int i = 0; i < FV_VL; i++) {
        const v4 *four = (const v4 *)&column[i % 4];
        if (i < columns) *(v4_unaligned *)(dst + i * dst_ld) = four[i / 4];
    }
}

#if FV_AVX512
/* Sixteen rows of four columns: stores of whole vectors. */
FV_INLINE void transpose_sixteen(float *dst, int64_t dst_ld, const float *src, int64_t stride) {
    vf row[4], column[4];
    FV_UNROLL_ALL for (int i = 0; i < 4; i++) row[i] = vf_load_fours(src + i * stride, 4 * stride);
    vf_turn_fours(row, column);
    FV_UNROLL_ALL for (int i = 0; i < 4; i++) vf_store(dst + i * dst_ld, column[i]);
}
#endif

void CPU(transpose_matrix)(float *dst, int64_t dst_ld, const float *src, int64_t src_ld, int64_t rows,
                           int64_t columns) {
#if FV_AVX512
    if (columns % 4 == 0) {
        for (; rows >= 16; rows -= 16, dst += 16, src += 16 * src_ld)
            for (int64_t c = 0; c < columns; c += 4) transpose_sixteen(dst + c * dst_ld, dst_ld, src + c, src_ld);
        if (rows == 0) return;
    }
#endif
    const int64_t row4 = rows & ~(int64_t)3;
    for (int64_t c = 0; c < columns; c += FV_VL, dst += FV_VL * dst_ld, src += FV_VL) {
        const int n = (int)fv_min64(FV_VL, columns - c);
        if (n == FV_VL)
            for (int64_t r = 0; r < row4; r += 4) transpose_four(dst + r, dst_ld, src + r * src_ld, src_ld, FV_VL);
        else
            for (int64_t r = 0; r < row4; r += 4) transpose_four(dst + r, dst_ld, src + r * src_ld, src_ld, n);
        for (int i = 0; i < n; i++)
            for (int64_t r = row4; r < rows; r++) dst[i * dst_ld + r] = src[r * src_ld + i];
    }
}

void CPU(pack_panel)(float *dst, const float *src, int64_t depth, int columns, ptrdiff_t depth_stride,
                     ptrdiff_t column_stride) {
    const int width = fv_panel_width(columns);
    if (depth_stride == 1) {
        if (columns < width) memset(dst, 0, (size_t)(depth * width) * sizeof *dst);
        CPU(transpose_matrix)(dst, width, src, column_stride, columns, depth);
        return;
    }
    const int first = columns < FV_VL ? columns : FV_VL;
    for (int64_t d = 0; d < depth; d++, dst += width, src += depth_stride) {
        vf_store(dst, first == FV_VL ? vf_load(src) : vf_load_n(src, first));
        if (columns == FV_NR) vf_store(dst + FV_VL, vf_load(src + FV_VL));
        else if (width == FV_NR) vf_store(dst + FV_VL, vf_load_n(src + FV_VL, columns - FV_VL));
    }
}
#endif
