/* conv_winograd_weight.c: the gradient of the weights of a 3x3 convolution of stride 1, by the transpose of Winograd's
 * F(4x4, 3x3) and F(3x3, 3x3) (conv_winograd.h):
 *
 *   D[f] = A dy A^T   of tiles of gradients: 36 matrices [tiles, k]
 *   V[f] = B^T x B    of the pixels around them: 36 matrices [tiles, c]
 *   P[f] = D[f]^T V[f], summed over groups of tiles in order
 *   dw   = G^T P G
 *
 * A group of tiles has V and D in the last-level cache, V in strips of columns that fit a register tile, D in vectors
 * of rows: SUM_TILES tiles of a strip stay in the first-level cache while D passes. Products are shared out by point
 * and block of k: nothing depends on the number of threads. Where one group holds all tiles, P exists for a slice of k
 * at a time. Few channels and many tiles are shared out by tiles instead: each of the parts has smaller groups, which
 * stay in the second-level cache of one core, and sums of its own, which are added in order. */
#include "core/cpu/kernels/conv_winograd.h"

enum {
    GROUP_FLOATS = 1 << 20, /* of V and D in a group: 4 MB */
    MIN_GROUP = 128,
    CHUNK = 6,              /* tiles transformed at a time */
    AHEAD_LINES = 6 << 10,  /* 384 KB */
    ROWS = 128,             /* of k in a block */
    SLICE_FLOATS = 2 << 20, /* of P: 8 MB */
    SUM_TILES = 128,        /* summed in registers; sums of sums lose less to rounding than one long sum */
    PARTS = 16,
    PART_FLOATS = FV_VL == 16 ? 64 * 64 : 0, /* of k and c at most: 9 MB of P in all parts. Not measured with 8 lanes */
    PART_GROUP_FLOATS = 1 << 17,             /* of V and D in a group of a part: 512 KB */
    MIN_PART = 48,                           /* tiles */
};

typedef struct plan {
    const fv_conv_shape *shape;
    fv_patches patches;
    int64_t group, groups;
    int64_t kp, cp; /* k and c rounded up to whole vectors */
    int64_t slice;  /* of kp */
    int64_t parts;  /* with sums of their own; 1: all threads work on one group */
    int64_t strip;  /* columns */
    int64_t p_step; /* from point to point of the sums */
    size_t zero_at, v_at, d_at, p_at, total;
    size_t v_floats, d_floats, p_floats; /* of a group, and of the sums of a part */
} plan;

static plan make_plan(const fv_conv_shape *s, int threads) {
    plan p = {.shape = s};
    p.patches = CPU(winograd_patches)(s->n, (int64_t[]){s->h, s->w}, (int64_t[]){s->oh, s->ow}, s->pad, s->c);
    p.kp = fv_ceil_div(s->k, FV_VL) * FV_VL;
    p.cp = fv_ceil_div(s->c, FV_VL) * FV_VL;
    const int64_t strips = fv_ceil_div(p.cp, FV_OUTER_COLUMNS);
    p.strip = fv_ceil_div(p.cp / FV_VL, strips) * FV_VL; /* even strips */
    p.parts = p.kp * p.cp <= PART_FLOATS && p.patches.tiles >= PARTS * MIN_PART ? PARTS : 1;
    const int64_t tiles = fv_ceil_div(p.patches.tiles, p.parts), floats = FV_WINO_POINTS * (p.kp + p.cp);
    p.group = p.parts > 1 ? PART_GROUP_FLOATS / floats : fv_max64(MIN_GROUP, GROUP_FLOATS / floats);
    p.groups = fv_ceil_div(tiles, fv_min64(tiles, p.group));
    p.group = fv_ceil_div(tiles, p.groups); /* even groups */
    p.slice = p.kp;
    if (p.groups == 1 && p.parts == 1) p.slice = fv_max64(ROWS, SLICE_FLOATS / (FV_WINO_POINTS * p.cp) / ROWS * ROWS);
    p.slice = fv_min64(p.slice, p.kp);
    p.p_step = fv_point_step(p.slice * p.cp);
    p.zero_at = fv_workspace_add(&p.total, (size_t)s->c * sizeof(float));
    p.v_floats = (size_t)(FV_WINO_POINTS * fv_point_step(p.group * p.cp));
    p.d_floats = (size_t)(FV_WINO_POINTS * fv_point_step(p.group * p.kp));
    p.p_floats = (size_t)(FV_WINO_POINTS * p.p_step);
    const size_t copies = p.parts > 1 ? (size_t)threads : 1;
    p.v_at = fv_workspace_add(&p.total, copies * p.v_floats * sizeof(float));
    p.d_at = fv_workspace_add(&p.total, copies * p.d_floats * sizeof(float));
    p.p_at = fv_workspace_add(&p.total, (size_t)p.parts * p.p_floats * sizeof(float));
    return p;
}

size_t CPU(winograd_weight_workspace)(const fv_conv_shape *s, int threads) {
    return make_plan(s, threads).total;
}

typedef struct job {
    plan p;
    const float *dy, *x;
    float *dw;
    float *zero, *v, *d, *sums;
    fv_range tiles;                                     /* all, or those of a part */
    int64_t first, count;                               /* the group's */
    fv_range slice;                                     /* of k */
    int64_t before[FV_WINO_KINDS], rows[FV_WINO_KINDS]; /* rows of V and D before them and of them, by kind of point */
    fv_patch_layout layout;                             /* of its V */
    int64_t d_step;                                     /* from point to point of its D */
} job;

/* ---------------------------------------------------------------- gradients of tiles */

FV_INLINE void tile_points(const vf *y, vf *out, const int size) {
    const vf two = vf_set1(2.0f), four = vf_set1(4.0f);
    const vf even = y[0] + y[2], even2 = vf_fma(four, y[2], y[0]);
    const vf odd = size == FV_WINO_TILE ? y[1] + y[3] : y[1];
    const vf odd2 = size == FV_WINO_TILE ? vf_fma(four, y[3], y[1]) * two : y[1] * two;
    out[0] = y[0];
    out[1] = even + odd;
    out[2] = even - odd;
    out[3] = even2 + odd2;
    out[4] = even2 - odd2;
    out[5] = y[size - 1];
}

typedef struct gradient { /* a vector of channels of one tile */
    const float *dy;
    int64_t row, pixel; /* steps of dy */
    int64_t rows, cols; /* of the tile that lie in the result */
    int n;              /* lanes */
    float *d[FV_WINO_KINDS];
    int64_t step; /* from point to point of D */
} gradient;

/* D; zeros outside the result and past the channels. */
FV_INLINE void transform_tile(const gradient *g, const bool whole, const int h, const int w) {
    vf half[FV_WINO_PATCH][FV_WINO_TILE], in[FV_WINO_TILE], out[FV_WINO_PATCH];
    FV_UNROLL_ALL for (int b = 0; b < w; b++) {
        FV_UNROLL_ALL for (int a = 0; a < h; a++) {
            const float *at = g->dy + a * g->row + b * g->pixel;
            if (whole) in[a] = vf_load(at);
            else in[a] = a < g->rows && b < g->cols ? vf_load_n(at, g->n) : vf_zero();
        }
        tile_points(in, out, h);
        FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) half[i][b] = out[i];
    }
    FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) {
        if (h < FV_WINO_TILE && i == FV_WINO_LACK) continue;
        tile_points(half[i], out, w);
        FV_UNROLL_ALL for (int m = 0; m < FV_WINO_PATCH; m++) {
            if (w == FV_WINO_TILE || m != FV_WINO_LACK)
                vf_store(g->d[fv_point_kind(i, m)] + (i * FV_WINO_PATCH + m) * g->step, out[m]);
        }
    }
}

#define TRANSFORM(h, w) \
    static __attribute__((noinline)) void transform_##h##x##w(const gradient *g) { \
        transform_tile(g, true, h, w); \
    } \
    static __attribute__((noinline)) void transform_part_##h##x##w(const gradient *g) { \
        transform_tile(g, false, h, w); \
    }
TRANSFORM(3, 3)
TRANSFORM(3, 4)
TRANSFORM(4, 3)
TRANSFORM(4, 4)

typedef struct tile_rows { /* of gradients, where it lies and its rows of D */
    fv_wino_place at;
    int64_t row[FV_WINO_KINDS];
} tile_rows;

/* D: 36 x [vector of k][tile][FV_VL], tiles first .. first + count of the group */
static void make_gradients(const job *j, int64_t first, int64_t count, fv_ahead *ahead) {
    typedef void (*transform_fn)(const gradient *);
    static const transform_fn whole[2][2] = {{transform_3x3, transform_3x4}, {transform_4x3, transform_4x4}},
                              part[2][2] = {{transform_part_3x3, transform_part_3x4},
                                            {transform_part_4x3, transform_part_4x4}};
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    gradient g = {.row = s->ow * s->k, .pixel = s->k, .step = j->d_step};
    tile_rows tiles[CHUNK];
    for (int64_t t = 0; t < count; t++) {
        tiles[t].at = CPU(winograd_place)(&p->patches, j->first + first + t);
        CPU(winograd_rows)(&p->patches, j->first + first + t, tiles[t].row);
    }
    for (int64_t k = 0; k < p->kp; k += FV_VL) {
        g.n = (int)fv_min64(FV_VL, s->k - k);
        for (int64_t t = 0; t < count; t++) {
            const fv_wino_place *at = &tiles[t].at;
            const int h = at->size[0] - FV_WINO_TILE + 1, w = at->size[1] - FV_WINO_TILE + 1;
            g.dy = j->dy + ((at->image * s->oh + at->row) * s->ow + at->col) * s->k + k;
            for (int kind = 0; kind < FV_WINO_KINDS; kind++)
                g.d[kind] = j->d + k * j->count + (tiles[t].row[kind] - j->before[kind]) * FV_VL;
            g.rows = fv_min64(at->size[0], s->oh - at->row);
            g.cols = fv_min64(at->size[1], s->ow - at->col);
            const bool inside = g.n == FV_VL && g.rows == at->size[0] && g.cols == at->size[1];
            fv_read_ahead(ahead, 0);
            (inside ? whole : part)[h][w](&g);
        }
    }
}

/* ---------------------------------------------------------------- the steps of a group */

/* What the chunk that this thread will probably transform next reads of x and dy. */
static fv_ahead look_ahead(const job *j, int64_t chunk) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t next = (chunk + 1) * CHUNK, calls = CHUNK * p->kp / FV_VL;
    fv_ahead ahead = {0};
    if (next >= (p->parts > 1 ? j->tiles.end - j->first : j->count)) return ahead;
    fv_ahead_rows(&ahead, 0, j->x, CPU(winograd_source_rows)(&p->patches, j->first + next, CHUNK), s->w * s->c,
                  AHEAD_LINES, calls);
    fv_ahead_rows(&ahead, 1, j->dy, CPU(winograd_result_rows)(&p->patches, j->first + next, CHUNK), s->ow * s->k,
                  AHEAD_LINES, calls);
    return ahead;
}

static void transform_chunk(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t first = chunk * CHUNK, count = fv_min64(CHUNK, j->count - first);
    fv_ahead ahead = look_ahead(j, chunk);
    CPU(winograd_source)(&p->patches, j->x, j->zero, j->first + first, count, &j->layout, j->v);
    make_gradients(j, first, count, &ahead);
}

static void ask_for(fv_ahead *ahead, int run, const float *at, int64_t floats) {
    ahead->run[run].at = (const char *)at;
    ahead->run[run].step = 64;
    ahead->run[run].lines = floats * (int64_t)sizeof *at / 64;
}

/* One point, a block of k, all of c. Meanwhile the next strip of V is asked for, and the D that this thread will
 * probably multiply next. */
static void product_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t blocks = fv_ceil_div(j->slice.end - j->slice.begin, ROWS), f = tile / blocks;
    const int64_t next = tile + 1, next_f = next / blocks;
    const int64_t first = j->slice.begin + tile % blocks * ROWS, end = fv_min64(j->slice.end, first + ROWS);
    const float *d = j->d + f * j->d_step, *v = j->v + f * j->layout.point;
    const int64_t rows = j->rows[fv_point_kind((int)f / FV_WINO_PATCH, (int)f % FV_WINO_PATCH)];
    fv_ahead ahead = {0};
    fv_outer_gemm g = {.lda = FV_VL, .ld = p->cp, .ahead = &ahead};
    if (next_f < FV_WINO_POINTS)
        ask_for(&ahead, 1, j->d + next_f * j->d_step + (j->slice.begin + next % blocks * ROWS) * j->count,
                ROWS * fv_min64(SUM_TILES, j->count));
    for (int64_t t = 0; t == 0 || t < rows; t += SUM_TILES) { /* without tiles the sums become zeros */
        g.count = fv_min64(SUM_TILES, rows - t);
        g.accumulate = j->first > j->tiles.begin || t > 0;
        for (int64_t c = 0; c < p->cp; c += p->strip) {
            g.ldb = fv_min64(p->strip, p->cp - c);
            g.vectors = (int)(g.ldb / FV_VL);
            g.b = v + c * j->count + t * g.ldb;
            if (c + p->strip < p->cp)
                ask_for(&ahead, 0, v + (c + p->strip) * j->count + t * p->strip, p->strip * g.count);
            else if (next_f < FV_WINO_POINTS) ask_for(&ahead, 0, j->v + next_f * j->layout.point, p->strip * g.count);
            for (int64_t k = first; k < end; k += FV_OUTER_ROWS) {
                g.a = d + k / FV_VL * FV_VL * j->count + t * FV_VL + k % FV_VL;
                g.acc = j->sums + f * p->p_step + (k - j->slice.begin) * p->cp + c;
                CPU(outer_gemm)(&g);
            }
        }
    }
}

/* ---------------------------------------------------------------- back to the filter */

FV_INLINE void filter_taps(const vf m[FV_WINO_PATCH], vf out[3]) {
    const vf s = m[1] + m[2], d = m[2] - m[1], s2 = m[3] + m[4], d2 = m[3] - m[4];
    const vf sixth = vf_set1(1.0f / 6);
    out[0] = vf_fma(vf_set1(1.0f / 24), s2, vf_fma(-sixth, s, m[0] * vf_set1(0.25f)));
    out[1] = vf_fma(vf_set1(1.0f / 12), d2, sixth * d);
    out[2] = vf_fma(sixth, s2 - s, m[5]);
}

static void filter_tile(void *arg, int64_t row, int thread) {
    (void)thread;
    const job *j = arg;
    const int64_t k = j->slice.begin + row;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t step = p->p_step;
    for (int64_t c = 0; c < s->c; c += FV_VL) {
        const float *m = j->sums + row * p->cp + c;
        const int n = (int)fv_min64(FV_VL, s->c - c);
        vf half[3][FV_WINO_PATCH], in[FV_WINO_PATCH], out[3];
        FV_UNROLL_ALL for (int x = 0; x < FV_WINO_PATCH; x++) {
            FV_UNROLL_ALL for (int y = 0; y < FV_WINO_PATCH; y++) in[y] = vf_load(m + (y * FV_WINO_PATCH + x) * step);
            for (int64_t part = 1; part < p->parts; part++) {
                const float *more = m + part * (int64_t)p->p_floats + x * step;
                FV_UNROLL_ALL for (int y = 0; y < FV_WINO_PATCH; y++) in[y] += vf_load(more + y * FV_WINO_PATCH * step);
            }
            filter_taps(in, out);
            FV_UNROLL_ALL for (int r = 0; r < 3; r++) half[r][x] = out[r];
        }
        FV_UNROLL_ALL for (int r = 0; r < 3; r++) {
            filter_taps(half[r], out);
            FV_UNROLL_ALL for (int q = 0; q < 3; q++) vf_store_n(j->dw + ((k * 3 + r) * 3 + q) * s->c + c, out[q], n);
        }
    }
}

/* The group that begins at tile j->first: how its V and D lie. */
static void place_group(job *j) {
    const plan *p = &j->p;
    j->count = fv_min64(p->group, j->tiles.end - j->first);
    j->layout = (fv_patch_layout){.point = fv_point_step(j->count * p->cp),
                                  .rows = j->count,
                                  .width = p->strip,
                                  .origin = j->first,
                                  .whole = true};
    j->d_step = fv_point_step(j->count * p->kp);
    CPU(winograd_rows)(&p->patches, j->first, j->before);
    CPU(winograd_rows)(&p->patches, j->first + j->count, j->rows);
    for (int kind = 0; kind < FV_WINO_KINDS; kind++) j->rows[kind] -= j->before[kind];
}

/* A part, by one thread. */
static void part_tile(void *arg, int64_t part, int thread) {
    job j = *(const job *)arg;
    const plan *p = &j.p;
    const int64_t tiles = p->patches.tiles, blocks = fv_ceil_div(p->slice, ROWS);
    j.v += (size_t)thread * p->v_floats;
    j.d += (size_t)thread * p->d_floats;
    j.sums += (size_t)part * p->p_floats;
    j.tiles = (fv_range){part * tiles / PARTS, (part + 1) * tiles / PARTS};
    for (j.first = j.tiles.begin; j.first < j.tiles.end; j.first += p->group) {
        place_group(&j);
        for (int64_t chunk = 0; chunk * CHUNK < j.count; chunk++) transform_chunk(&j, chunk, 0);
        for (int64_t tile = 0; tile < FV_WINO_POINTS * blocks; tile++) product_tile(&j, tile, 0);
    }
}

/* A slice of k. With several groups or parts there is one slice. */
static void sum_slice(job *j, fv_pool *pool) {
    const plan *p = &j->p;
    const int64_t blocks = fv_ceil_div(j->slice.end - j->slice.begin, ROWS);
    if (p->parts > 1) {
        fv_pool_run(pool, p->parts, part_tile, j);
        return;
    }
    for (j->first = 0; j->first < p->patches.tiles; j->first += p->group) {
        if (j->slice.begin == 0) {
            place_group(j);
            fv_pool_run(pool, fv_ceil_div(j->count, CHUNK), transform_chunk, j);
        }
        fv_pool_run(pool, FV_WINO_POINTS * blocks, product_tile, j);
    }
}

void CPU(winograd_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw) {
    job j = {.p = make_plan(s, fv_pool_threads(c->pool)), .dy = dy, .x = x, .dw = dw};
    const plan *p = &j.p;
    char *work = c->workspace;
    j.zero = (float *)(work + p->zero_at);
    j.v = (float *)(work + p->v_at);
    j.d = (float *)(work + p->d_at);
    j.sums = (float *)(work + p->p_at);
    j.tiles = (fv_range){0, p->patches.tiles};
    memset(j.zero, 0, (size_t)s->c * sizeof *j.zero);
    for (int64_t k = 0; k < s->k; k += p->slice) {
        j.slice = (fv_range){k, fv_min64(p->kp, k + p->slice)};
        sum_slice(&j, c->pool);
        j.first = 0;
        fv_pool_run(c->pool, fv_min64(s->k - k, p->slice), filter_tile, &j);
    }
}
