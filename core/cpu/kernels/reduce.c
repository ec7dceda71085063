/* reduce.c: sum and mean over any set of axes.
 *
 * Dimensions of size 1 are dropped and neighbours of one kind merged, so that kept (K) and reduced (R) ones alternate:
 *   [K R K']         columns: for each k, the sum over R rows of K' columns; any of the three may be 1
 *                    (gradient of a bias, global average pooling)
 *   [K R]            rows: the sum of each row
 *   [K R K' R' ...]  each result by itself
 *
 * Sums run in float over at most FLUSH elements per lane and in double beyond. */
#include "core/cpu/kernels/tile.h"

#define FLUSH 64

typedef struct axes {
    int rank;
    int64_t dim[FV_MAX_RANK];
    bool reduced[FV_MAX_RANK];
} axes;

static axes merge_axes(const fv_type *t, uint32_t mask) {
    axes a = {0};
    for (int i = 0; i < t->rank; i++) {
        const bool reduced = mask >> i & 1;
        if (t->dim[i] == 1) continue;
        if (a.rank && a.reduced[a.rank - 1] == reduced) {
            a.dim[a.rank - 1] *= t->dim[i];
            continue;
        }
        a.dim[a.rank] = t->dim[i];
        a.reduced[a.rank++] = reduced;
    }
    return a;
}

/* The pattern [outer, r, inner], if it is one. */
typedef struct pattern {
    int64_t outer, r, inner;
    bool fits;
} pattern;

static pattern pattern_of(const axes *a) {
    pattern p = {1, 1, 1, true};
    int i = 0;
    if (i < a->rank && !a->reduced[i]) p.outer = a->dim[i++];
    if (i < a->rank) p.r = a->dim[i++];
    if (i < a->rank) p.inner = a->dim[i++];
    p.fits = i == a->rank;
    return p;
}

typedef struct reduce_args {
    axes axes;
    const fv_elem *x;
    float *y;
    double factor;
    pattern p;
    int64_t tile, tiles; /* rows; by outer for rows */
    double *partials;    /* [tiles][inner], when outer is 1 */
} reduce_args;

/* ---------------------------------------------------------------- columns */

/* sums [cols] += sum over rows of x, whose rows are `stride` apart; vectors of lanes at a time. */
FV_INLINE void add_columns(const fv_elem *x, int64_t rows, int64_t stride, int vectors, int n, double *sums) {
    vf s[4];
    float lanes[4 * FV_VL] = {0};
    for (int64_t begin = 0; begin < rows; begin += FLUSH) {
        for (int v = 0; v < vectors; v++) s[v] = vf_zero();
        for (int64_t i = begin; i < fv_min64(rows, begin + FLUSH); i++)
            for (int v = 0; v < vectors; v++) s[v] += vf_load_n(x + i * stride + v * FV_VL, vectors > 1 ? FV_VL : n);
        for (int v = 0; v < vectors; v++) vf_store(lanes + v * FV_VL, s[v]);
        for (int l = 0; l < (vectors > 1 ? vectors * FV_VL : n); l++) sums[l] += lanes[l];
    }
}

static void sum_columns(const fv_elem *x, int64_t rows, int64_t cols, double *sums) {
    int64_t j = 0;
    for (; j + 4 * FV_VL <= cols; j += 4 * FV_VL) add_columns(x + j, rows, cols, 4, FV_VL, sums + j);
    for (; j < cols; j += FV_VL) add_columns(x + j, rows, cols, 1, (int)fv_min64(cols - j, FV_VL), sums + j);
}

/* outer = 1: tiles of rows leave partial sums. FLUSH rows at a time, so that a tile is read in order. */
static void leading_tile(void *arg, int64_t tile, int thread) {
    const reduce_args *a = arg;
    const int64_t cols = a->p.inner;
    fv_range r = fv_tile_range(a->p.r, a->tile, tile);
    double *sums = a->partials + tile * cols;
    (void)thread;
    memset(sums, 0, (size_t)cols * sizeof *sums);
    for (int64_t i = r.begin; i < r.end; i += FLUSH)
        sum_columns(a->x + i * cols, fv_min64(FLUSH, r.end - i), cols, sums);
}

/* A tile is some columns of one outer index. */
#define COLUMNS 256
static void columns_tile(void *arg, int64_t tile, int thread) {
    const reduce_args *a = arg;
    const int64_t across = fv_ceil_div(a->p.inner, COLUMNS), outer = tile / across;
    fv_range r = fv_tile_range(a->p.inner, COLUMNS, tile % across);
    const fv_elem *x = a->x + outer * a->p.r * a->p.inner;
    double sums[COLUMNS] = {0};
    int64_t j = r.begin;
    (void)thread;
    for (; j + 4 * FV_VL <= r.end; j += 4 * FV_VL) add_columns(x + j, a->p.r, a->p.inner, 4, FV_VL, sums + j - r.begin);
    for (; j < r.end; j += FV_VL)
        add_columns(x + j, a->p.r, a->p.inner, 1, (int)fv_min64(r.end - j, FV_VL), sums + j - r.begin);
    for (j = r.begin; j < r.end; j++) a->y[outer * a->p.inner + j] = (float)(sums[j - r.begin] * a->factor);
}

/* ---------------------------------------------------------------- rows */

static double sum_row(const fv_elem *x, int64_t n) {
    const int64_t step = (int64_t)4 * FV_VL * FLUSH;
    double total = 0;
    for (int64_t begin = 0; begin < n; begin += step) {
        const int64_t end = fv_min64(n, begin + step);
        vf s[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        int64_t i = begin;
        for (; i + 4 * FV_VL <= end; i += 4 * FV_VL)
            for (int v = 0; v < 4; v++) s[v] += vf_load(x + i + v * FV_VL);
        for (; i < end; i += FV_VL) s[0] += vf_load_n(x + i, (int)fv_min64(end - i, FV_VL));
        total += vf_sum((s[0] + s[1]) + (s[2] + s[3]));
    }
    return total;
}

static void whole_tile(void *arg, int64_t tile, int thread) {
    const reduce_args *a = arg;
    fv_range r = fv_tile_range(a->p.r, a->tile, tile);
    (void)thread;
    a->partials[tile] = sum_row(a->x + r.begin, r.end - r.begin);
}

static void rows_tile(void *arg, int64_t tile, int thread) {
    const reduce_args *a = arg;
    fv_range r = fv_tile_range(a->p.outer, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) a->y[i] = (float)(sum_row(a->x + i * a->p.r, a->p.r) * a->factor);
}

/* ---------------------------------------------------------------- any set of axes: one result at a time */

static double sum_rest(const axes *a, int i, const fv_elem *x, const int64_t *stride) {
    while (i < a->rank && !a->reduced[i]) i++;
    if (i == a->rank) return fv_get(x);
    double total = 0;
    if (stride[i] == 1) return sum_row(x, a->dim[i]);
    for (int64_t k = 0; k < a->dim[i]; k++) total += sum_rest(a, i + 1, x + k * stride[i], stride);
    return total;
}

static void any_tile(void *arg, int64_t result, int thread) {
    const reduce_args *a = arg;
    int64_t stride[FV_MAX_RANK] = {0}, at = 0, rest = result;
    (void)thread;
    for (int64_t i = a->axes.rank - 1, s = 1; i >= 0; s *= a->axes.dim[i--]) stride[i] = s;
    for (int i = a->axes.rank - 1; i >= 0; i--) {
        if (a->axes.reduced[i]) continue;
        at += rest % a->axes.dim[i] * stride[i];
        rest /= a->axes.dim[i];
    }
    a->y[result] = (float)(sum_rest(&a->axes, 0, a->x + at, stride) * a->factor);
}

/* ---------------------------------------------------------------- */

static void set_tiles(reduce_args *a) {
    a->tile = a->p.outer == 1 ? fv_partial_rows(a->p.r, a->p.inner) : fv_tile_rows(a->p.r);
    a->tiles = fv_ceil_div(a->p.outer == 1 ? a->p.r : a->p.outer, a->tile);
}

static void reduce(const fv_call *c, bool mean) {
    const int64_t count = fv_count(c->in[0].type), results = fv_count(c->out[0].type);
    reduce_args a = {.axes = merge_axes(&c->in[0].type, c->attr->reduce.axes),
                     .x = c->in[0].data,
                     .y = c->out[0].data,
                     .factor = mean ? (double)results / (double)count : 1.0,
                     .partials = c->workspace};
    a.p = pattern_of(&a.axes);
    set_tiles(&a);
    if (!a.p.fits) {
        fv_pool_run(c->pool, results, any_tile, &a);
    } else if (a.p.outer == 1) {
        fv_pool_run(c->pool, a.tiles, a.p.inner == 1 ? whole_tile : leading_tile, &a);
        for (int64_t j = 0; j < a.p.inner; j++) {
            double sum = 0;
            for (int64_t k = 0; k < a.tiles; k++) sum += a.partials[k * a.p.inner + j];
            a.y[j] = (float)(sum * a.factor);
        }
    } else if (a.p.inner == 1) {
        fv_pool_run(c->pool, a.tiles, rows_tile, &a);
    } else {
        fv_pool_run(c->pool, a.p.outer * fv_ceil_div(a.p.inner, COLUMNS), columns_tile, &a);
    }
}
void CPU(sum)(const fv_call *c) {
    reduce(c, false);
}
void CPU(mean)(const fv_call *c) {
    reduce(c, true);
}

size_t CPU(reduce_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op != FV_OP_SUM && node->op != FV_OP_MEAN) return 0;
    fv_type t = fv_typeof(g, g->operands[node->first_operand]);
    reduce_args a = {.axes = merge_axes(&t, node->attr.reduce.axes)};
    a.p = pattern_of(&a.axes);
    set_tiles(&a);
    return a.p.fits && a.p.outer == 1 ? (size_t)(a.tiles * a.p.inner) * sizeof(double) : 0;
}
