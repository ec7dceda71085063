/* conv_winograd.c: 3x3 convolutions of stride 1 and the gradients of their data by Winograd's minimal filtering,
 * F(4x4, 3x3) of Lavin and Gray (2016), 36 products for 16 results of 9 taps each, and F(3x3, 3x3) and mixtures of
 * both where they fit better (conv_winograd.h).
 *
 *   weights  U[f] = G g G^T             36 matrices [depth, columns], in panels
 *   source   V[f] = B^T d B             of the pixels around each tile: 36 matrices [tiles, depth]
 *            M[f] = V[f] U[f]           row_gemm
 *   result   y    = A^T M A + bias
 *
 * A unit of tiles has the M of a pair of panels in the second-level cache, and what is multiplied passes through it:
 * a panel of U serves all tiles of the unit, a row of V both panels. With too few units to go round V is made for all
 * tiles first, and the products are shared out by unit and panel; where there are many panels, U is made for one at a
 * time, by the thread that needs it, and never leaves the caches. Roundings: at most 3e-5 of the largest result
 * (tests/test_winograd.c); direct convolution has 3e-6. */
#include "core/cpu/kernels/conv_winograd.h"

#include "core/cpu/kernels/norm_apply.h"

enum {
    UNIT = 48, /* tiles; half as many where V stays in the second-level cache then */
    SHALLOW = 128,
    GROUP = 2, /* panels at a time */
    SHARED_UNIT = 132,
    MIN_UNIT = 24,
    MIN_TILES = 3, /* with fewer, transforming the weights costs more than is saved */
    MIN_ITEMS = 16,
    MIN_CHANNELS = 24,        /* below, transforms cost what is saved */
    CHUNK = 12,               /* tiles of a work item that only transforms */
    SOURCE_LINES = 12 << 10,  /* of the next unit, asked for ahead: 768 KB, which pass on to the last-level cache */
    RESULT_LINES = 6 << 10,   /* of this one: 384 KB, which should stay until they are written */
    PACK_CHANNELS = 32,       /* of weights that are transformed at a time */
    KEEP_TILES = 64,          /* with more, transforming the weights is a small part of the work */
    KEEP_FLOATS = 2560 << 10, /* of transformed weights: 10 MB */
    CACHED_FLOATS = 640 << 10,
    SERVED_TILES = 9,
};
#define MIN_SAVING 2.25 /* products saved: 3x3 results in one tile of 4x4; small pictures waste the rest */

typedef struct plan {
    const fv_conv_shape *shape;
    fv_conv_kind kind;
    int64_t source[2], depth, result[2], columns, pad[2];
    fv_patches patches;
    int64_t unit, units, panels, group;
    bool shared, fresh;           /* V of all tiles; U by panel */
    fv_patch_layout layout;       /* of V */
    int64_t m_step, panel_floats; /* from point to point of M; of U from panel to panel */
    size_t offset_at, zero_at, u_at, v_at, m_at, total, u_bytes;
    size_t v_floats, m_floats; /* per thread, or of all tiles */
} plan;

static void cut_tiles(plan *p) {
    const int64_t tiles = p->patches.tiles;
    p->shared = tiles < MIN_ITEMS * MIN_UNIT;
    p->units = fv_max64(fv_ceil_div(tiles, p->depth > SHALLOW ? UNIT : UNIT / 2), MIN_ITEMS);
    if (p->shared) {
        const int64_t wish = fv_min64(fv_ceil_div(MIN_ITEMS, p->panels), tiles / MIN_UNIT);
        p->units = fv_max64(fv_ceil_div(tiles, SHARED_UNIT), wish);
    }
    p->unit = fv_ceil_div(fv_ceil_div(tiles, p->units), FV_MR) * FV_MR;
    p->units = fv_ceil_div(tiles, p->unit);
}

static plan make_plan(const fv_conv_shape *s, fv_conv_kind kind, int threads, bool kept) {
    const bool forward = kind == FV_CONV_FORWARD;
    plan p = {.shape = s, .kind = kind, .depth = forward ? s->c : s->k, .columns = forward ? s->k : s->c};
    for (int a = 0; a < 2; a++) {
        const int64_t x = a ? s->w : s->h, y = a ? s->ow : s->oh;
        p.source[a] = forward ? x : y;
        p.result[a] = forward ? y : x;
        p.pad[a] = forward ? s->pad[a] : 2 - s->pad[a];
    }
    p.patches = CPU(winograd_patches)(s->n, p.source, p.result, p.pad, p.depth);
    p.panels = fv_ceil_div(p.columns, FV_NR);
    cut_tiles(&p);
    p.fresh = p.shared && p.panels >= MIN_ITEMS && !kept;
    p.group = p.shared ? 1 : fv_min64(GROUP, p.panels);
    p.layout.rows = p.shared ? p.units * p.unit : p.unit;
    p.layout.width = p.depth;
    p.layout.point = fv_point_step(p.layout.rows * p.depth);
    p.m_step = fv_point_step(p.unit * FV_NR);
    p.panel_floats = FV_WINO_POINTS * fv_point_step(p.depth * FV_NR);
    p.v_floats = (size_t)(FV_WINO_POINTS * p.layout.point);
    p.m_floats = (size_t)(FV_WINO_POINTS * p.m_step * p.group);
    const size_t copies = (size_t)threads, u_panels = p.fresh ? copies : (size_t)p.panels;
    p.offset_at = fv_workspace_add(&p.total, 3 * (size_t)p.unit * sizeof(ptrdiff_t));
    p.zero_at = fv_workspace_add(&p.total, (size_t)p.depth * sizeof(float));
    p.v_at = fv_workspace_add(&p.total, p.v_floats * (p.shared ? 1 : copies) * sizeof(float));
    p.m_at = fv_workspace_add(&p.total, p.m_floats * copies * sizeof(float));
    p.u_bytes = fv_lines(u_panels * (size_t)p.panel_floats * sizeof(float));
    p.u_at = fv_workspace_add(&p.total, p.u_bytes); /* last: kept elsewhere if the weights do not change */
    return p;
}

/* Transformed weights are four times as large. Where they do not stay in a cache and serve few tiles, reading them
 * takes as long as direct sums. */
static bool is_bound_by_weights(const fv_conv_shape *s, int64_t tiles) {
    return tiles < SERVED_TILES && s->c * s->k * FV_WINO_POINTS > CACHED_FLOATS;
}

bool CPU(winograd_fits)(const fv_conv_shape *s, const fv_device *dev, bool kept) {
    if (((const fv_cpu_device *)dev)->direct || s->pairs) return false;
    const bool plain = s->r == 3 && s->s == 3 && s->groups == 1 && s->stride[0] == 1 && s->stride[1] == 1 &&
                       s->dilation[0] == 1 && s->dilation[1] == 1 && s->pad[0] <= 2 && s->pad[1] <= 2;
    const int64_t tiles = s->n * fv_ceil_div(s->oh, FV_WINO_TILE) * fv_ceil_div(s->ow, FV_WINO_TILE);
    return plain && s->c >= MIN_CHANNELS && s->k >= MIN_CHANNELS && tiles >= MIN_TILES &&
           CPU(winograd_saving)(s->oh, s->ow) >= MIN_SAVING && !(kept && is_bound_by_weights(s, tiles));
}

size_t CPU(winograd_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads) {
    return make_plan(s, kind, threads, false).total;
}

size_t CPU(winograd_prepared)(const fv_conv_shape *s, int threads, size_t *workspace) {
    const plan p = make_plan(s, FV_CONV_FORWARD, threads, true);
    if (p.patches.tiles > KEEP_TILES || s->c * s->k * FV_WINO_POINTS > KEEP_FLOATS) return 0;
    *workspace = p.u_at;
    return p.u_bytes;
}

typedef struct job {
    plan p;
    const float *source, *weight, *bias;
    float *result;
    ptrdiff_t *v_off, *m_off, *narrow_off; /* [unit]: rows of V, and of M for panels of FV_NR and FV_VL columns */
    float *zero, *u, *v, *m;
    bool kept; /* u, from run to run */
} job;

/* ---------------------------------------------------------------- weights */

/* G of one column or row of three taps. */
FV_INLINE void filter_points(const vf g[3], vf out[FV_WINO_PATCH]) {
    const vf even = g[0] + g[2], far = vf_fma(vf_set1(4.0f), g[2], g[0]), twice = g[1] + g[1];
    out[0] = g[0] * vf_set1(1.0f / 4);
    out[1] = (even + g[1]) * vf_set1(-1.0f / 6);
    out[2] = (even - g[1]) * vf_set1(-1.0f / 6);
    out[3] = (far + twice) * vf_set1(1.0f / 24);
    out[4] = (far - twice) * vf_set1(1.0f / 24);
    out[5] = g[2];
}

/* taps: [9][channels][width] -> u: 36 matrices, `step` floats apart, [channels][width] */
static void transform_weights(const float *taps, int64_t floats, float *u, int64_t step) {
    for (int64_t at = 0; at < floats; at += FV_VL) {
        vf half[3][FV_WINO_PATCH], g[3], out[FV_WINO_PATCH];
        FV_UNROLL_ALL for (int s = 0; s < 3; s++) {
            FV_UNROLL_ALL for (int r = 0; r < 3; r++) g[r] = vf_load(taps + (r * 3 + s) * floats + at);
            filter_points(g, half[s]);
        }
        FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) {
            FV_UNROLL_ALL for (int s = 0; s < 3; s++) g[s] = half[s][i];
            filter_points(g, out);
            FV_UNROLL_ALL for (int k = 0; k < FV_WINO_PATCH; k++)
                vf_store(u + (i * FV_WINO_PATCH + k) * step + at, out[k]);
        }
    }
}

FV_INLINE int columns_of(const plan *p, int64_t panel) {
    return (int)fv_min64(FV_NR, p->columns - panel * FV_NR);
}

/* PACK_CHANNELS of the depth of a panel. u: [point][depth][width] */
static void pack_channels(const job *j, int64_t panel, int64_t first, float *u) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t channels = fv_min64(PACK_CHANNELS, p->depth - first);
    const int columns = columns_of(p, panel), width = fv_panel_width(columns);
    float taps[9 * PACK_CHANNELS * FV_NR] __attribute__((aligned(64)));
    for (int64_t t = 0; t < 9; t++) {
        float *dst = taps + t * channels * width;
        const float *w = j->weight + t * s->c; /* weight: [k][3][3][c] */
        if (p->kind == FV_CONV_FORWARD)
            CPU(pack_panel)(dst, w + panel * FV_NR * 9 * s->c + first, channels, columns, 1, 9 * s->c);
        else /* turned by 180 degrees */ CPU(pack_panel)
        (dst, j->weight + (8 - t) * s->c + first * 9 * s->c + panel * FV_NR, channels, columns, 9 * s->c, 1);
    }
    transform_weights(taps, channels * width, u + first * width, fv_point_step(p->depth * width));
}

static void pack_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t panel = tile % p->panels;
    pack_channels(j, panel, tile / p->panels * PACK_CHANNELS, j->u + panel * p->panel_floats);
}

/* ---------------------------------------------------------------- source and result */

/* A^T of one row or column of points. */
FV_INLINE void result_points(const vf *m, vf *out, const int size) {
    const vf two = vf_set1(2.0f), four = vf_set1(4.0f), s = m[1] + m[2], d = m[1] - m[2];
    if (size == FV_WINO_TILE) {
        const vf s2 = m[3] + m[4], d2 = m[3] - m[4];
        out[0] = m[0] + s + s2;
        out[1] = vf_fma(two, d2, d);
        out[2] = vf_fma(four, s2, s);
        out[3] = vf_fma(vf_set1(8.0f), d2, d) + m[5];
        return;
    }
    out[0] = m[0] + s + m[3];
    out[1] = vf_fma(two, m[3], d);
    out[2] = vf_fma(four, m[3], s) + m[5];
}

typedef struct tile_result {       /* a vector of columns of one tile */
    const float *m[FV_WINO_KINDS]; /* its row of M, by kind of point */
    int64_t step;                  /* from point to point */
    float *y;
    int64_t row, pixel; /* steps of y */
    int64_t rows, cols; /* of the tile that lie in the result */
    vf bias;
    const fv_finish *finish; /* a short one, or NULL */
    int64_t channel;
    int n; /* lanes */
} tile_result;

/* Batch norm of a row of results, of which w have a place: from `to` on. */
static __attribute__((noinline)) void finish_row(const tile_result *t, vf *out, const float *to, int64_t w) {
    const fv_finish *f = t->finish;
    const int n = t->n;
    const vf low = fv_act_floor_of(f->act), mean = vf_load_n(f->mean + t->channel, n),
             scale = vf_load_n(f->scale + t->channel, n), shift = vf_load_n(f->shift + t->channel, n);
    const float *r = f->residual ? f->residual + (to - f->y) : NULL;
    for (int64_t x = 0; x < w; x++) {
        out[x] = fv_norm_apply(out[x], mean, scale, shift);
        if (r) out[x] += vf_load_n(r + x * t->pixel, n);
        out[x] = fv_act_floor(out[x], low);
    }
}

FV_INLINE void transform_result(const tile_result *t, const bool whole, const int h, const int w) {
    vf half[FV_WINO_TILE][FV_WINO_PATCH], in[FV_WINO_PATCH], out[FV_WINO_TILE];
    FV_UNROLL_ALL for (int x = 0; x < FV_WINO_PATCH; x++) {
        if (w < FV_WINO_TILE && x == FV_WINO_LACK) continue;
        FV_UNROLL_ALL for (int y = 0; y < FV_WINO_PATCH; y++) {
            if (h == FV_WINO_TILE || y != FV_WINO_LACK)
                in[y] = vf_load(t->m[fv_point_kind(y, x)] + (y * FV_WINO_PATCH + x) * t->step);
        }
        result_points(in, out, h);
        FV_UNROLL_ALL for (int y = 0; y < h; y++) half[y][x] = out[y];
    }
    FV_UNROLL_ALL for (int y = 0; y < h; y++) {
        float *to = t->y + y * t->row;
        result_points(half[y], out, w);
        FV_UNROLL_ALL for (int x = 0; x < w; x++) out[x] += t->bias;
        if (t->finish) finish_row(t, out, to, whole ? w : y < t->rows ? t->cols : 0);
        FV_UNROLL_ALL for (int x = 0; x < w; x++) {
            if (whole) vf_store(to + x * t->pixel, out[x]);
            else if (y < t->rows && x < t->cols) vf_store_n(to + x * t->pixel, out[x], t->n);
        }
    }
}

#define TRANSFORM(h, w) \
    static __attribute__((noinline)) void transform_##h##x##w(const tile_result *t) { \
        transform_result(t, true, h, w); \
    } \
    static __attribute__((noinline)) void transform_part_##h##x##w(const tile_result *t) { \
        transform_result(t, false, h, w); \
    }
TRANSFORM(3, 3)
TRANSFORM(3, 4)
TRANSFORM(4, 3)
TRANSFORM(4, 4)

/* M of tiles first .. first + count and `panels` panels into the result. */
static void write_results(const job *j, int64_t first, int64_t count, int64_t panel, int64_t panels, const float *m) {
    typedef void (*transform_fn)(const tile_result *);
    static const transform_fn whole[2][2] = {{transform_3x3, transform_3x4}, {transform_4x3, transform_4x4}},
                              part[2][2] = {{transform_part_3x3, transform_part_3x4},
                                            {transform_part_4x3, transform_part_4x4}};
    const plan *p = &j->p;
    const int64_t end = fv_min64(p->columns, (panel + panels) * FV_NR);
    const fv_finish *finish = p->shape->finish;
    tile_result r = {.step = p->m_step, .row = p->result[1] * p->columns, .pixel = p->columns};
    r.finish = fv_finish_is_short(finish) ? finish : NULL;
    int64_t origin[FV_WINO_KINDS], own[FV_WINO_KINDS];
    CPU(winograd_rows)(&p->patches, first, origin);
    for (int64_t t = first; t < first + count; t++) {
        const fv_wino_place at = CPU(winograd_place)(&p->patches, t);
        const int h = at.size[0] - FV_WINO_TILE + 1, w = at.size[1] - FV_WINO_TILE + 1;
        float *tile_y = j->result + ((at.image * p->result[0] + at.row) * p->result[1] + at.col) * p->columns;
        CPU(winograd_rows)(&p->patches, t, own);
        r.rows = fv_min64(at.size[0], p->result[0] - at.row);
        r.cols = fv_min64(at.size[1], p->result[1] - at.col);
        const bool inside = r.rows == at.size[0] && r.cols == at.size[1];
        for (int64_t k = panel * FV_NR; k < end; k += FV_VL) {
            const int64_t mine = k / FV_NR, width = fv_panel_width(columns_of(p, mine));
            r.n = (int)fv_min64(FV_VL, end - k);
            r.y = tile_y + k;
            r.channel = k;
            r.bias = j->bias ? vf_load_n(j->bias + k, r.n) : vf_zero();
            for (int kind = 0; kind < FV_WINO_KINDS; kind++)
                r.m[kind] =
                    m + (mine - panel) * FV_WINO_POINTS * p->m_step + (own[kind] - origin[kind]) * width + k % FV_NR;
            (inside && r.n == FV_VL ? whole : part)[h][w](&r);
        }
        for (int64_t y = 0; finish && !r.finish && y < r.rows; y++) CPU(finish)
        (finish, (at.image * p->result[0] + at.row + y) * p->result[1] + at.col, r.cols, panel * FV_NR,
         end - panel * FV_NR);
    }
}

/* ---------------------------------------------------------------- units */

/* Tiles first .. first + unit, whose V is at v + row[kind] rows, and `panels` panels, whose U is at u. Each product
 * asks for the V and U of the next point: together they are larger than the second-level cache. */
static void multiply(const job *j, int64_t first, int64_t panel, int64_t panels, const float *v,
                     const int64_t row[FV_WINO_KINDS], const float *u, float *m, fv_ahead *ahead) {
    const plan *p = &j->p;
    static const ptrdiff_t tap[1] = {0};
    const int64_t count = fv_min64(p->unit, p->patches.tiles - first);
    int64_t begin[FV_WINO_KINDS], end[FV_WINO_KINDS];
    CPU(winograd_rows)(&p->patches, first, begin);
    CPU(winograd_rows)(&p->patches, first + count, end);
    const float *next_u = !p->fresh && panel + 2 * panels <= p->panels ? u + panels * p->panel_floats : u;
    fv_row_gemm g = {.x_off = j->v_off, .tap = tap, .taps = 1, .depth = p->depth, .ahead = ahead};
    for (int f = 0; f < FV_WINO_POINTS; f++) {
        const int kind = fv_point_kind(f / FV_WINO_PATCH, f % FV_WINO_PATCH);
        g.rows = end[kind] - begin[kind];
        if (g.rows == 0) continue;
        g.x = v + f * p->layout.point + row[kind] * p->depth;
        const bool more = f + 1 < FV_WINO_POINTS;
        const int next = more ? fv_point_kind((f + 1) / FV_WINO_PATCH, (f + 1) % FV_WINO_PATCH) : 0;
        const float *next_v = v + (more ? f + 1 : 0) * p->layout.point + row[next] * p->depth;
        for (int64_t i = 0; i < panels; i++) {
            const int width = fv_panel_width(columns_of(p, panel + i));
            g.columns = width;
            g.y_off = width == FV_NR ? j->m_off : j->narrow_off;
            g.y = m + (i * FV_WINO_POINTS + f) * p->m_step;
            g.b = u + i * p->panel_floats + f * fv_point_step(p->depth * width);
            const int64_t share = g.rows * p->depth / panels; /* of V, for each panel */
            fv_row_gemm_next(&g, 0, more ? g.b + fv_point_step(p->depth * width) : next_u + i * p->panel_floats,
                             p->depth * width);
            fv_row_gemm_next(&g, 1, next_v + i * share, share);
            CPU(row_gemm)(&g);
        }
    }
    write_results(j, first, count, panel, panels, m);
}

/* While the first panels are multiplied: the results that will be written, and the residual. While all are: the source
 * that this thread will probably read next. */
static fv_ahead look_ahead(const job *j, int64_t unit) {
    const plan *p = &j->p;
    const int64_t calls = FV_WINO_POINTS * p->unit / FV_MR, next = (unit + 1) * p->unit;
    fv_ahead ahead = {0};
    fv_ahead_rows(&ahead, 0, j->source, CPU(winograd_source_rows)(&p->patches, next, p->unit), p->source[1] * p->depth,
                  SOURCE_LINES, calls * p->panels);
    const fv_range rows = CPU(winograd_result_rows)(&p->patches, unit * p->unit, p->unit);
    const fv_finish *finish = p->shape->finish;
    fv_ahead_rows(&ahead, 1, j->result, rows, p->result[1] * p->columns, RESULT_LINES, calls * p->group);
    if (finish && finish->residual)
        fv_ahead_rows(&ahead, 2, finish->residual, rows, p->result[1] * p->columns, RESULT_LINES, calls * p->group);
    return ahead;
}

static void unit_tile(void *arg, int64_t unit, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t first = unit * p->unit, row[FV_WINO_KINDS] = {0};
    float *v = j->v + (size_t)thread * p->v_floats, *m = j->m + (size_t)thread * p->m_floats;
    fv_patch_layout layout = p->layout;
    fv_ahead ahead = look_ahead(j, unit);
    layout.origin = first;
    CPU(winograd_source)
    (&p->patches, j->source, j->zero, first, fv_min64(p->unit, p->patches.tiles - first), &layout, v);
    for (int64_t panel = 0; panel < p->panels; panel += p->group)
        multiply(j, first, panel, fv_min64(p->group, p->panels - panel), v, row, j->u + panel * p->panel_floats, m,
                 &ahead);
}

static void patch_tile(void *arg, int64_t chunk, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t first = chunk * CHUNK, count = fv_min64(CHUNK, p->patches.tiles - first);
    CPU(winograd_source)(&p->patches, j->source, j->zero, first, count, &p->layout, j->v);
}

static void panel_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t first = tile % p->units * p->unit, panel = tile / p->units;
    int64_t row[FV_WINO_KINDS];
    CPU(winograd_rows)(&p->patches, first, row);
    multiply(j, first, panel, 1, j->v, row, j->u + panel * p->panel_floats, j->m + (size_t)thread * p->m_floats, NULL);
}

/* All units of a panel, with weights transformed for it alone. */
static void fresh_panel_tile(void *arg, int64_t panel, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *u = j->u + thread * p->panel_floats, *m = j->m + (size_t)thread * p->m_floats;
    for (int64_t c = 0; c < p->depth; c += PACK_CHANNELS) pack_channels(j, panel, c, u);
    for (int64_t first = 0; first < p->patches.tiles; first += p->unit) {
        int64_t row[FV_WINO_KINDS];
        CPU(winograd_rows)(&p->patches, first, row);
        multiply(j, first, panel, 1, j->v, row, u, m, NULL);
    }
}

void CPU(winograd)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                   const float *weight, const float *bias, float *result) {
    job j = {.p = make_plan(s, kind, fv_pool_threads(c->pool), c->prepared != NULL),
             .source = source,
             .weight = weight,
             .bias = bias,
             .result = result,
             .kept = c->prepared != NULL};
    const plan *p = &j.p;
    char *work = c->workspace;
    j.v_off = (ptrdiff_t *)(work + p->offset_at);
    j.m_off = j.v_off + p->unit;
    j.narrow_off = j.m_off + p->unit;
    j.zero = (float *)(work + p->zero_at);
    j.u = c->prepared ? c->prepared : work + p->u_at;
    j.v = (float *)(work + p->v_at);
    j.m = (float *)(work + p->m_at);
    memset(j.zero, 0, (size_t)p->depth * sizeof *j.zero);
    for (int64_t i = 0; i < p->unit; i++) {
        j.v_off[i] = i * p->depth;
        j.m_off[i] = i * FV_NR;
        j.narrow_off[i] = i * FV_VL;
    }
    if (!p->fresh && (!c->prepared || c->preparing))
        fv_pool_run(c->pool, p->panels * fv_ceil_div(p->depth, PACK_CHANNELS), pack_tile, &j);
    if (c->preparing) return;
    if (!p->shared) {
        fv_pool_run(c->pool, p->units, unit_tile, &j);
        return;
    }
    fv_pool_run(c->pool, fv_ceil_div(p->patches.tiles, CHUNK), patch_tile, &j);
    if (p->fresh) fv_pool_run(c->pool, p->panels, fresh_panel_tile, &j);
    else fv_pool_run(c->pool, p->panels * p->units, panel_tile, &j);
}
