/* batch_norm.c: batch norm over x [rows, c], with a fused residual and activation.
 *
 * Rows are joined to wide rows of w elements, a multiple of the vector and of c, so that any number of channels runs in
 * full vectors: lane j of a wide row belongs to channel j % c. What is left below one wide row is the tail.
 *
 *   x   [ block | block | ... ][ block | ... ] ...  [ tail ]      statistics: one pass, blocks of about 16 KiB
 *       └─ tile: partial sums ┘└─ tile ──────┘
 *
 * Sums run in float within a block and in double across blocks and tiles. */
#include "core/cpu/kernels/norm_apply.h"
#include "core/ops.h"

#define BLOCK_FLOATS 4096
#define GROUP (4 * FV_VL)       /* lanes that a block is summed over at a time */
#define STREAM_BYTES (16 << 20) /* results larger than this are stored past the caches */

typedef struct wide {
    int64_t rows, c;
    int64_t fold;        /* rows in a wide row */
    int64_t w;           /* fold * c */
    int64_t count, tail; /* wide rows; elements behind them */
    int64_t block, tile; /* wide rows in a block, in a tile (a multiple of block) */
    int64_t tiles;
    int64_t partial; /* doubles that a tile leaves: 2 arrays of w, and its shifts, w floats */
} wide;

static wide wide_of(const fv_type *t) {
    wide s = {.rows = fv_rows(t), .c = fv_last(t), .fold = FV_VL};
    while (s.fold > 1 && s.fold / 2 * s.c % FV_VL == 0) s.fold /= 2;
    while (s.fold * s.c < GROUP) s.fold *= 2;
    s.w = s.fold * s.c;
    s.count = s.rows / s.fold;
    s.tail = s.rows % s.fold * s.c;
    s.block = fv_min64(fv_max64(BLOCK_FLOATS / s.w, 8), 64);
    s.tile = fv_ceil_div(fv_partial_rows(s.count, s.w), s.block) * s.block;
    s.tiles = fv_max64(fv_ceil_div(s.count, s.tile), 1);
    s.partial = 2 * s.w + s.w / 2;
    return s;
}

/* workspace: [coefficients: 5 arrays of w floats][partial sums: per tile 2 arrays of w doubles, w floats]
 *            [backward through an activation: per tile a block of floats, then the tail] */
static size_t coefficient_bytes(const wide *s) {
    return fv_lines((size_t)s->w * 5 * sizeof(float));
}
static size_t partial_bytes(const wide *s) {
    return fv_lines((size_t)(s->tiles * s->partial) * sizeof(double));
}
static double *partials_of(const fv_call *c, const wide *s) {
    return (double *)(void *)((char *)c->workspace + coefficient_bytes(s));
}
static void *blocks_of(const fv_call *c, const wide *s) {
    return (char *)c->workspace + coefficient_bytes(s) + partial_bytes(s);
}

size_t CPU(batch_norm_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op < FV_OP_BATCH_NORM || node->op > FV_OP_BATCH_NORM_INFER_BWD) return 0;
    fv_type t = fv_typeof(g, g->operands[node->first_operand]);
    wide s = wide_of(&t);
    bool blocks = (node->op == FV_OP_BATCH_NORM_BWD || node->op == FV_OP_BATCH_NORM_INFER_BWD) &&
                  !fv_act_saves_output(node->attr.batch_norm.act);
    return coefficient_bytes(&s) + partial_bytes(&s) +
           (blocks ? (size_t)(s.tiles * s.block * s.w + s.w) * sizeof(float) : 0);
}

/* mean, scale and shift of the apply pass */
size_t CPU(batch_norm_prepared)(const fv_graph *g, const fv_node *node, uint32_t constant) {
    if (node->op != FV_OP_BATCH_NORM_INFER) return 0;
    for (int i = 1; i < 5 && i < node->operands; i++)
        if (g->operands[node->first_operand + i].id && !(constant >> i & 1)) return 0;
    fv_type t = fv_typeof(g, g->operands[node->first_operand]);
    return (size_t)wide_of(&t).w * 3 * sizeof(float);
}

/* ---------------------------------------------------------------- y = act((x - mean) * scale + shift + residual) */

typedef struct apply_args {
    const wide *s;
    const fv_elem *x, *residual;
    const float *mean, *scale, *shift; /* [w] */
    fv_elem *y;
    fv_act_kind act;
    bool stream;
    int64_t tile, tiles; /* wide rows; the last tile takes the tail */
} apply_args;

FV_INLINE void apply_row(const apply_args *a, int64_t at, int64_t n, bool residual, bool stream, fv_act_fn f) {
    const fv_elem *x = a->x + at, *r = a->residual + (residual ? at : 0);
    const vf low = fv_act_floor_of(a->act);
    fv_elem *y = a->y + at;
    int64_t j = 0;
    for (; j + FV_VL <= n; j += FV_VL) {
        vf v = fv_norm_apply(vf_load(x + j), vf_load(a->mean + j), vf_load(a->scale + j), vf_load(a->shift + j));
        if (residual) v += vf_load(r + j);
        v = f(v, low);
        if (stream) vf_stream(y + j, v);
        else vf_store(y + j, v);
    }
    int rest = (int)(n - j);
    if (rest) {
        vf v = fv_norm_apply(vf_load_n(x + j, rest), vf_load_n(a->mean + j, rest), vf_load_n(a->scale + j, rest),
                             vf_load_n(a->shift + j, rest));
        if (residual) v += vf_load_n(r + j, rest);
        vf_store_n(y + j, f(v, low), rest);
    }
}

FV_INLINE void apply_rows(const apply_args *a, int64_t tile, bool residual, bool stream, fv_act_fn f) {
    const wide *s = a->s;
    fv_range r = fv_tile_range(s->count, a->tile, tile);
    const bool tail = tile == a->tiles - 1 && s->tail;
    for (int64_t i = r.begin; i < r.end + tail; i++)
        apply_row(a, i * s->w, i < s->count ? s->w : s->tail, residual, stream, f);
    if (stream) vf_stream_end();
}

/* What is simple runs at the memory's speed and has a loop for each case; what is not decides as it goes. */
static void apply_tile(void *arg, int64_t tile, int thread) {
    const apply_args *a = arg;
    const bool residual = a->residual != NULL;
    (void)thread;
    switch (a->act) {
    case FV_ACT_GELU: apply_rows(a, tile, residual, a->stream, act_gelu); break;
    case FV_ACT_GELU_TANH: apply_rows(a, tile, residual, a->stream, act_gelu_tanh); break;
    case FV_ACT_SILU: apply_rows(a, tile, residual, a->stream, act_silu); break;
    case FV_ACT_HARDSWISH: apply_rows(a, tile, residual, a->stream, act_hardswish); break;
    default:
        if (residual)
            a->stream ? apply_rows(a, tile, true, true, fv_act_floor) : apply_rows(a, tile, true, false, fv_act_floor);
        else
            a->stream ? apply_rows(a, tile, false, true, fv_act_floor)
                      : apply_rows(a, tile, false, false, fv_act_floor);
    }
}

/* Whether a result is worth storing past the caches. It must not lie where an operand was just read. */
static bool can_stream(const wide *s, const fv_elem *y, const fv_elem *x) {
    return s->rows * s->c > STREAM_BYTES / (int64_t)sizeof(fv_elem) && y != x && (uintptr_t)y % 64 == 0;
}

static void apply(const fv_call *c, const wide *s, const float *coefficients, const fv_elem *residual) {
    apply_args a = {.s = s,
                    .x = c->in[0].data,
                    .residual = residual,
                    .mean = coefficients,
                    .scale = coefficients + s->w,
                    .shift = coefficients + 2 * s->w,
                    .y = c->out[0].data,
                    .act = c->attr->batch_norm.act,
                    .tile = fv_tile_rows(s->w)};
    a.stream = can_stream(s, a.y, a.x) && a.y != residual;
    a.tiles = fv_max64(fv_ceil_div(s->count, a.tile), 1);
    fv_pool_run(c->pool, a.tiles, apply_tile, &a);
}

/* The coefficients of channel k. */
static void set_apply(float *coefficients, const wide *s, int64_t k, double mean, double var, double eps,
                      const float *gamma, const float *beta) {
    const fv_norm_channel n = fv_norm_channel_of(k, mean, var, eps, gamma, beta);
    for (int64_t j = k; j < s->w; j += s->c) {
        coefficients[j] = n.mean;
        coefficients[s->w + j] = n.scale;
        coefficients[2 * s->w + j] = n.shift;
    }
}

/* ---------------------------------------------------------------- statistics
 * A tile sums x - shift and its square in one pass; the shift is the mean of the tile's first block, so that little
 * cancels in sum of squares - (sum)^2 / n. Tiles are merged pairwise (Chan, Golub & LeVeque 1983, eq. 2.1). */

typedef struct stats_args {
    const wide *s;
    const fv_elem *x;
    double *partials; /* per tile: mean [w], sum of squared deviations [w] */
} stats_args;

/* Means of `vectors` vectors of lanes over m wide rows. */
FV_INLINE void block_mean(const fv_elem *x, int64_t w, int64_t m, int vectors, float *mean) {
    vf sum[4];
    for (int v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t i = 0; i < m; i++)
        for (int v = 0; v < vectors; v++) sum[v] += vf_load(x + i * w + v * FV_VL);
    for (int v = 0; v < vectors; v++) vf_store(mean + v * FV_VL, sum[v] * vf_set1(1.0f / (float)m));
}

/* Add a block's sums of x - shift and of its square. */
FV_INLINE void block_stats(const fv_elem *x, int64_t w, int64_t m, int vectors, const float *shift, double *sum,
                           double *squares) {
    vf k[4], s1[4], s2[4];
    for (int v = 0; v < vectors; v++) {
        k[v] = vf_load(shift + v * FV_VL);
        s1[v] = s2[v] = vf_zero();
    }
    for (int64_t i = 0; i < m; i++)
        for (int v = 0; v < vectors; v++) {
            vf d = vf_load(x + i * w + v * FV_VL) - k[v];
            s1[v] += d;
            s2[v] = vf_fma(d, d, s2[v]);
        }
    float b1[GROUP], b2[GROUP];
    for (int v = 0; v < vectors; v++) {
        vf_store(b1 + v * FV_VL, s1[v]);
        vf_store(b2 + v * FV_VL, s2[v]);
    }
    for (int j = 0; j < vectors * FV_VL; j++) {
        sum[j] += b1[j];
        squares[j] += b2[j];
    }
}

static void stats_tile(void *arg, int64_t tile, int thread) {
    const stats_args *a = arg;
    const wide *s = a->s;
    const int64_t w = s->w;
    fv_range r = fv_tile_range(s->count, s->tile, tile);
    double *mean = a->partials + tile * s->partial, *m2 = mean + w;
    float *shift = (float *)(m2 + w);
    (void)thread;
    memset(mean, 0, (size_t)(2 * w) * sizeof(double));
    for (int64_t i = r.begin; i < r.end; i += s->block) {
        const int64_t m = fv_min64(s->block, r.end - i);
        const fv_elem *x = a->x + i * w;
        int64_t j = 0;
        for (; i == r.begin && j + GROUP <= w; j += GROUP) block_mean(x + j, w, m, 4, shift + j);
        for (; i == r.begin && j < w; j += FV_VL) block_mean(x + j, w, m, 1, shift + j);
        for (j = 0; j + GROUP <= w; j += GROUP) block_stats(x + j, w, m, 4, shift + j, mean + j, m2 + j);
        for (; j < w; j += FV_VL) block_stats(x + j, w, m, 1, shift + j, mean + j, m2 + j);
    }
    for (int64_t j = 0; r.end > r.begin && j < w; j++) { /* sums to mean and deviations */
        const double rest = mean[j] / (double)(r.end - r.begin);
        m2[j] -= mean[j] * rest;
        mean[j] = shift[j] + rest;
    }
}

/* Add a set of m values with mean b and squared deviations b2 to n values with mean and m2. */
FV_INLINE void merge(double *mean, double *m2, double b, double b2, double n, double m) {
    const double d = b - *mean;
    *mean += d * (m / (n + m));
    *m2 += b2 + d * d * (n * m / (n + m));
}

#define LANES 256 /* lanes of the partial sums that are merged at a time */

/* Merge all tiles into the first, for some lanes. */
static void merge_lanes(void *arg, int64_t chunk, int thread) {
    const stats_args *a = arg;
    const wide *s = a->s;
    fv_range lanes = fv_tile_range(s->w, LANES, chunk);
    double *mean = a->partials, *m2 = mean + s->w;
    (void)thread;
    for (int64_t tile = 1; tile < s->tiles; tile++) {
        const double *b = a->partials + tile * s->partial, *b2 = b + s->w;
        fv_range r = fv_tile_range(s->count, s->tile, tile);
        for (int64_t j = lanes.begin; j < lanes.end; j++)
            merge(mean + j, m2 + j, b[j], b2[j], (double)(tile * s->tile), (double)(r.end - r.begin));
    }
}

void CPU(batch_norm)(const fv_call *c) {
    const wide s = wide_of(&c->in[0].type);
    const fv_elem *x = c->in[0].data;
    float *out_mean = fv_result_of(c, 1), *out_var = fv_result_of(c, 2), *coefficients = c->workspace;
    stats_args a = {&s, x, partials_of(c, &s)};
    fv_pool_run(c->pool, s.tiles, stats_tile, &a);
    fv_pool_run(c->pool, fv_ceil_div(s.w, LANES), merge_lanes, &a);

    for (int64_t k = 0; k < s.c; k++) {
        double mean = a.partials[k], m2 = a.partials[s.w + k], n = (double)s.count;
        for (int64_t f = 1; s.count && f < s.fold; f++, n += (double)s.count)
            merge(&mean, &m2, a.partials[f * s.c + k], a.partials[s.w + f * s.c + k], n, (double)s.count);
        for (int64_t i = s.count * s.w + k; i < s.rows * s.c; i += s.c, n += 1)
            merge(&mean, &m2, fv_get(x + i), 0, n, 1);
        const double var = m2 / (double)s.rows;
        if (out_mean) out_mean[k] = (float)mean;
        if (out_var) out_var[k] = (float)var;
        /* As rounded: batch_norm_infer with these statistics gives the same bits (core/recompute.c). */
        set_apply(coefficients, &s, k, (double)(float)mean, (double)(float)var, c->attr->batch_norm.eps,
                  fv_operand(c, 1), fv_operand(c, 2));
    }
    if (c->out[0].data) apply(c, &s, coefficients, fv_operand(c, 3));
}

void CPU(batch_norm_infer)(const fv_call *c) {
    const wide s = wide_of(&c->in[0].type);
    const float *mean = c->in[1].data, *var = c->in[2].data;
    float *coefficients = c->prepared ? c->prepared : c->workspace;
    for (int64_t k = 0; k < s.c && (c->preparing || !c->prepared); k++)
        set_apply(coefficients, &s, k, mean[k], var[k], c->attr->batch_norm.eps, fv_operand(c, 3), fv_operand(c, 4));
    if (!c->preparing) apply(c, &s, coefficients, fv_operand(c, 5));
}

/* ---------------------------------------------------------------- backward
 * With g = dy * act':
 *   first pass    sums of g and of g (x - mean); dresidual = g
 *   second pass   dx = a g + b (x - mean) + d
 * ReLU's slope is told by y. Others' come from what they were applied to, computed again block by block in the first
 * pass; g is then kept for the second one in dresidual, or in dx. */

typedef struct backward_args {
    const wide *s;
    const fv_elem *dy, *x, *y;     /* y NULL: no ReLU */
    const fv_elem *tail;           /* dy of the tail */
    fv_elem *dx, *dresidual;       /* NULL: not wanted */
    const float *mean, *a, *b, *d; /* [w]; b NULL: the statistics were given, dx = a g */
    double *partials;              /* per tile: sum g [w], sum g (x - mean) [w] */
    /* an activation other than ReLU */
    fv_act_kind act;
    const float *shift;      /* [w] */
    const fv_elem *residual; /* as x or NULL */
    fv_elem *kept, *blocks;  /* g: as x or NULL; where that is NULL, a block per tile and the tail */
    bool stream;
    int64_t tile, tiles; /* of the second pass */
} backward_args;

FV_INLINE vf masked(const fv_elem *dy, const fv_elem *y, bool relu) {
    fv_prefetch(dy);
    if (relu) fv_prefetch(y);
    vf g = vf_load(dy);
    return relu ? vf_keep(vm_gt(vf_load(y), vf_zero()), g) : g;
}

/* Lanes from j on of the block of m wide rows at `at`; dy is that of the block. */
FV_INLINE void block_sums(const backward_args *a, const fv_elem *dy, int64_t at, int64_t j, int64_t m, int vectors,
                          bool relu, bool keep, double *sum, double *sum_x) {
    const int64_t w = a->s->w;
    vf mean[4], s0[4], s1[4];
    for (int v = 0; v < vectors; v++) {
        mean[v] = vf_load(a->mean + j + v * FV_VL);
        s0[v] = s1[v] = vf_zero();
    }
    for (int64_t i = 0; i < m; i++)
        for (int v = 0; v < vectors; v++) {
            const int64_t lane = i * w + j + v * FV_VL, k = at + lane;
            vf g = masked(dy + lane, a->y + (relu ? k : 0), relu);
            fv_prefetch(a->x + k);
            s0[v] += g;
            s1[v] = vf_fma(g, vf_load(a->x + k) - mean[v], s1[v]);
            if (keep) vf_store(a->dresidual + k, g);
        }
    float b0[GROUP], b1[GROUP];
    for (int v = 0; v < vectors; v++) {
        vf_store(b0 + v * FV_VL, s0[v]);
        vf_store(b1 + v * FV_VL, s1[v]);
    }
    for (int l = 0; l < vectors * FV_VL; l++) {
        sum[j + l] += b0[l];
        sum_x[j + l] += b1[l];
    }
}

/* A block in all its lanes. sum: [w] sums of g, then [w] of g (x - mean). */
FV_INLINE void add_block(const backward_args *a, const fv_elem *dy, int64_t at, int64_t m, bool relu, bool keep,
                         double *sum) {
    const int64_t w = a->s->w;
    int64_t j = 0;
    for (; j + GROUP <= w; j += GROUP) block_sums(a, dy, at, j, m, 4, relu, keep, sum, sum + w);
    for (; j < w; j += FV_VL) block_sums(a, dy, at, j, m, 1, relu, keep, sum, sum + w);
}

/* g that neither ReLU nor a residual needs: code that all activations share. */
static __attribute__((noinline)) void add_plain_block(const backward_args *a, const fv_elem *g, int64_t at, int64_t m,
                                                      double *sum) {
    add_block(a, g, at, m, false, false, sum);
}

FV_INLINE void sums_of_tile(const backward_args *a, int64_t tile, bool relu, bool keep) {
    const wide *s = a->s;
    fv_range r = fv_tile_range(s->count, s->tile, tile);
    double *sum = a->partials + tile * s->partial;
    memset(sum, 0, (size_t)(2 * s->w) * sizeof(double));
    for (int64_t i = r.begin; i < r.end; i += s->block) {
        const int64_t m = fv_min64(s->block, r.end - i);
        if (relu || keep) add_block(a, a->dy + i * s->w, i * s->w, m, relu, keep, sum);
        else add_plain_block(a, a->dy + i * s->w, i * s->w, m, sum);
    }
}

static void sums_tile(void *arg, int64_t tile, int thread) {
    const backward_args *a = arg;
    (void)thread;
    if (a->y) a->dresidual ? sums_of_tile(a, tile, true, true) : sums_of_tile(a, tile, true, false);
    else a->dresidual ? sums_of_tile(a, tile, false, true) : sums_of_tile(a, tile, false, false);
}

typedef vf (*slope_fn)(vf dy, vf x, vf alpha);

/* g of n elements from `at` on, which is the start of a wide row, to `to`. */
FV_INLINE void gradient_before_act(const backward_args *a, int64_t at, int64_t n, fv_elem *to, slope_fn f) {
    for (int64_t j = 0; j < n; j += FV_VL) {
        const int m = (int)fv_min64(n - j, FV_VL);
        fv_prefetch(a->dy + at + j);
        fv_prefetch(a->x + at + j);
        vf v = vf_load_n(a->x + at + j, m) - vf_load(a->mean + j);
        v = vf_fma(v, vf_load(a->a + j), vf_load(a->shift + j));
        if (a->residual) v += vf_load_n(a->residual + at + j, m);
        vf_store_n(to + j, f(vf_load_n(a->dy + at + j, m), v, vf_zero()), m);
    }
}

static fv_elem *kept_tail(const backward_args *a) {
    const wide *s = a->s;
    return a->kept ? a->kept + s->count * s->w : a->blocks + s->tiles * s->block * s->w;
}

FV_INLINE void act_sums_of_tile(const backward_args *a, int64_t tile, slope_fn f) {
    const wide *s = a->s;
    fv_range r = fv_tile_range(s->count, s->tile, tile);
    double *sum = a->partials + tile * s->partial;
    memset(sum, 0, (size_t)(2 * s->w) * sizeof(double));
    for (int64_t i = r.begin; i < r.end; i += s->block) {
        const int64_t m = fv_min64(s->block, r.end - i);
        fv_elem *g = a->kept ? a->kept + i * s->w : a->blocks + tile * s->block * s->w;
        for (int64_t k = 0; k < m; k++) gradient_before_act(a, (i + k) * s->w, s->w, g + k * s->w, f);
        add_plain_block(a, g, i * s->w, m, sum);
    }
    if (tile == s->tiles - 1 && s->tail) gradient_before_act(a, s->count * s->w, s->tail, kept_tail(a), f);
}

static void act_sums_tile(void *arg, int64_t tile, int thread) {
    const backward_args *a = arg;
    (void)thread;
    switch (a->act) {
    case FV_ACT_GELU: act_sums_of_tile(a, tile, act_gelu_bwd); break;
    case FV_ACT_GELU_TANH: act_sums_of_tile(a, tile, act_gelu_tanh_bwd); break;
    case FV_ACT_SILU: act_sums_of_tile(a, tile, act_silu_bwd); break;
    case FV_ACT_HARDSWISH: act_sums_of_tile(a, tile, act_hardswish_bwd); break;
    default: break; /* no other can end a norm */
    }
}

/* Add all tiles to the first, for some lanes. */
static void add_lanes(void *arg, int64_t chunk, int thread) {
    const backward_args *a = arg;
    const int64_t w = a->s->w;
    fv_range lanes = fv_tile_range(2 * w, LANES, chunk);
    (void)thread;
    for (int64_t tile = 1; tile < a->s->tiles; tile++)
        for (int64_t j = lanes.begin; j < lanes.end; j++) a->partials[j] += a->partials[tile * a->s->partial + j];
}

/* n elements of the second pass from `at` on, which is the start of a wide row. */
FV_INLINE void gradient_row(const backward_args *a, int64_t at, int64_t n, bool relu, bool centre, bool stream) {
    int64_t j = 0;
    for (; j + FV_VL <= n; j += FV_VL) {
        vf g = masked(a->dy + at + j, a->y + (relu ? at + j : 0), relu), v = vf_load(a->a + j) * g;
        if (centre) {
            fv_prefetch(a->x + at + j);
            vf d = vf_load(a->x + at + j) - vf_load(a->mean + j);
            v = vf_fma(vf_load(a->a + j), g, vf_fma(vf_load(a->b + j), d, vf_load(a->d + j)));
        }
        if (a->dresidual) vf_store(a->dresidual + at + j, g);
        if (stream) vf_stream(a->dx + at + j, v);
        else vf_store(a->dx + at + j, v);
    }
    for (; j < n; j++) {
        const float g = relu && !(fv_get(a->y + at + j) > 0) ? 0.0f : fv_get(a->dy + at + j);
        const float centred = centre ? a->b[j] * (fv_get(a->x + at + j) - a->mean[j]) + a->d[j] : 0.0f;
        if (a->dresidual) a->dresidual[at + j] = fv_elem_of(g);
        a->dx[at + j] = fv_elem_of(a->a[j] * g + centred);
    }
}

FV_INLINE void gradient_rows(const backward_args *a, int64_t tile, bool relu, bool centre) {
    const wide *s = a->s;
    fv_range r = fv_tile_range(s->count, a->tile, tile);
    const bool tail = tile == a->tiles - 1 && s->tail;
    for (int64_t i = r.begin; i < r.end + tail; i++) {
        const int64_t n = i < s->count ? s->w : s->tail;
        if (a->stream) gradient_row(a, i * s->w, n, relu, centre, true);
        else gradient_row(a, i * s->w, n, relu, centre, false);
    }
    if (a->stream) vf_stream_end();
}

static void gradient_tile(void *arg, int64_t tile, int thread) {
    const backward_args *a = arg;
    (void)thread;
    if (a->y) a->b ? gradient_rows(a, tile, true, true) : gradient_rows(a, tile, true, false);
    else a->b ? gradient_rows(a, tile, false, true) : gradient_rows(a, tile, false, false);
}

/* The sums of channel k over all rows, the tail included (where dresidual is set, too). */
static void channel_sums(const backward_args *a, int64_t k, double mean, double *sum, double *sum_x) {
    const wide *s = a->s;
    *sum = *sum_x = 0;
    for (int64_t j = k; j < s->w; j += s->c) {
        *sum += a->partials[j];
        *sum_x += a->partials[s->w + j];
    }
    const int64_t start = s->count * s->w;
    for (int64_t t = k; t < s->tail; t += s->c) {
        const float g = a->y && !(fv_get(a->y + start + t) > 0) ? 0.0f : fv_get(a->tail + t);
        *sum += g;
        *sum_x += g * (fv_get(a->x + start + t) - mean);
        if (a->dresidual) a->dresidual[start + t] = fv_elem_of(g);
    }
}

static void run_sums(const fv_call *c, backward_args *a) {
    fv_pool_run(c->pool, a->s->tiles, fv_act_saves_output(a->act) ? sums_tile : act_sums_tile, a);
    fv_pool_run(c->pool, fv_ceil_div(2 * a->s->w, LANES), add_lanes, a);
}

/* After a first pass that kept g, the second pass starts from there. */
static void run_gradient(const fv_call *c, backward_args *a, bool first_pass) {
    fv_elem *kept = first_pass && !a->kept ? a->dresidual : a->kept;
    if (kept) {
        a->dy = kept;
        a->y = NULL;
        a->dresidual = NULL;
    }
    if (!a->dx) return;
    a->tile = fv_tile_rows(a->s->w);
    a->tiles = fv_max64(fv_ceil_div(a->s->count, a->tile), 1);
    a->stream = can_stream(a->s, a->dx, a->dy) && a->dx != a->x && a->dx != a->y;
    fv_pool_run(c->pool, a->tiles, gradient_tile, a);
}

/* What an activation other than ReLU needs in the first pass; its scale is a. */
static void prepare_act(const fv_call *c, backward_args *g, float *shift) {
    const wide *s = g->s;
    const float *beta = fv_operand(c, 6);
    for (int64_t j = 0; j < s->w; j++) shift[j] = beta ? beta[j % s->c] : 0.0f;
    g->shift = shift;
    g->residual = fv_operand(c, 7);
    g->kept = g->dresidual ? g->dresidual : g->dx;
    g->blocks = blocks_of(c, s);
    g->tail = kept_tail(g);
}

static void backward(const fv_call *c, bool batch_statistics) {
    const wide s = wide_of(&c->in[0].type);
    const float *mean = c->in[3].data, *var = c->in[4].data, *gamma = fv_operand(c, 5);
    float *dgamma = fv_result_of(c, 1), *dbeta = fv_result_of(c, 2);
    float *wide_mean = c->workspace, *a = wide_mean + s.w, *b = a + s.w, *d = b + s.w;
    const fv_act_kind act = c->attr->batch_norm.act;
    backward_args g = {.s = &s,
                       .dy = c->in[0].data,
                       .x = c->in[1].data,
                       .y = act == FV_ACT_RELU ? c->in[2].data : NULL,
                       .dx = c->out[0].data,
                       .dresidual = fv_result_of(c, 3),
                       .mean = wide_mean,
                       .a = a,
                       .b = batch_statistics ? b : NULL,
                       .d = d,
                       .partials = partials_of(c, &s),
                       .act = act};
    g.tail = g.dy + s.count * s.w;
    for (int64_t j = 0; j < s.w; j++) wide_mean[j] = mean[j % s.c];
    for (int64_t j = 0; j < s.w; j++)
        a[j] = (float)((gamma ? gamma[j % s.c] : 1.0) / sqrt((double)var[j % s.c] + c->attr->batch_norm.eps));
    if (!fv_act_saves_output(act)) prepare_act(c, &g, d + s.w);
    const bool first_pass = batch_statistics || dgamma || dbeta || !g.dx || g.kept;
    if (first_pass) run_sums(c, &g);
    for (int64_t k = 0; k < s.c; k++) {
        const double rstd = 1.0 / sqrt((double)var[k] + c->attr->batch_norm.eps),
                     scale = (gamma ? gamma[k] : 1.0) * rstd;
        double sum = 0, sum_x = 0;
        if (first_pass) channel_sums(&g, k, mean[k], &sum, &sum_x);
        if (dgamma) dgamma[k] = (float)(sum_x * rstd);
        if (dbeta) dbeta[k] = (float)sum;
        for (int64_t j = k; j < s.w; j += s.c) {
            b[j] = (float)(-scale * rstd * rstd * sum_x / (double)s.rows);
            d[j] = (float)(-scale * sum / (double)s.rows);
        }
    }
    run_gradient(c, &g, first_pass);
}
void CPU(batch_norm_bwd)(const fv_call *c) {
    backward(c, true);
}
void CPU(batch_norm_infer_bwd)(const fv_call *c) {
    backward(c, false);
}
