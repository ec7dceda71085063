/* conv_backward_weight.c: conv2d_bwd_weight: dy [n,oh,ow,k], x [n,h,w,c] -> dw [k,r,s,c/groups].
 *
 * dw is a product of dy transposed and windows of x, summed over all positions: outer_gemm with FV_OUTER_ROWS output
 * channels by vectors of (tap, channel). Columns: within a block of channels, the taps s of one kernel row lie side by
 * side in a window, so that (s, channel) is one run ("line"); without dilation 1 every tap is a line of its own. With
 * very few channels a line fills its vectors badly; then all taps of a position are gathered into one line first.
 *
 * Positions pass CHUNK at a time. Where there are many output channels, as many rows of a register tile's columns are
 * laid side by side ("strip") and stay in the first-level cache for all of them.
 *
 * The units of the batch are split into at most 8 parts whose sums are added in order, and output channels into ranges.
 */
#include "core/cpu/kernels/conv.h"

enum {
    BLOCK_CHANNELS = 64, /* input channels at a time */
    CHUNK = 128,
    MAX_CHUNKS = 8,
    MIN_REUSE = FV_VL == 16 ? 4 : 9, /* tiles for which a strip is copied */
    WINDOW_FLOATS = 48 << 10,        /* scratch of a thread, floats */
    UNIT_ROWS = 512,                 /* positions per unit, fewer where packed dy would exceed DY_FLOATS */
    DY_FLOATS = 64 << 10,
    AHEAD_LINES = 8 << 10, /* 512 KB */
    MAX_PARTS = 8,
    PART_FLOATS = 2 << 20, /* all partial sums together, unless one alone is larger */
    MIN_ITEMS = 8,
    MIN_RANGE = 32, /* output channels per range */
    MAX_RANGE = 256,
    DIRECT_CHANNELS = 16, /* with more output channels, dy is packed */
};

typedef struct plan {
    const fv_conv_shape *shape;
    fv_conv_axis axis[2];
    fv_conv_units units;
    int64_t kg, cg;           /* output, input channels per group */
    int64_t tiles, all_tiles; /* of FV_OUTER_ROWS output channels: per group, in all */
    bool gather;
    int64_t block, blocks;       /* input channels */
    int64_t lines, line, padded; /* lines per block, columns per line, rounded up to vectors */
    int64_t columns;             /* of a row of partial sums */
    int64_t parts, ranges;
    bool pack_dy;
    int64_t rows;                                         /* positions of a full unit */
    size_t table_at, line_at, sums_at, scratch_at, total; /* workspace, bytes */
    size_t window_floats, gather_floats, scratch_floats;  /* of a thread */
} plan;

static int64_t round_vector(int64_t n) {
    return (n + FV_VL - 1) / FV_VL * FV_VL;
}

static plan make_plan(const fv_conv_shape *s, int threads) {
    plan p = {.shape = s, .kg = s->k / s->groups, .cg = s->c / s->groups};
    for (int a = 0; a < 2; a++) p.axis[a] = CPU(conv_forward_axis)(s, a);
    p.tiles = fv_ceil_div(p.kg, FV_OUTER_ROWS);
    p.all_tiles = p.tiles * s->groups;
    p.blocks = fv_max64(1, fv_ceil_div(p.cg, BLOCK_CHANNELS));
    p.block = fv_ceil_div(p.cg, p.blocks);
    if (p.blocks > 1) {
        p.block = round_vector(p.block);
        p.blocks = fv_ceil_div(p.cg, p.block);
    }
    const bool merged = s->dilation[1] == 1;
    p.lines = merged ? s->r : s->r * s->s;
    p.line = (merged ? s->s : 1) * p.block;
    p.gather = p.blocks == 1 && p.lines > 1 && 4 * p.line < 3 * round_vector(p.line) && s->r * s->s * p.block <= 1024;
    if (p.gather) {
        p.line *= p.lines;
        p.lines = 1;
    }
    p.padded = round_vector(p.line);
    p.columns = p.blocks * p.lines * p.padded;
    const int64_t rows = fv_min64(UNIT_ROWS, DY_FLOATS / fv_max64(MIN_RANGE, fv_min64(p.kg, MAX_RANGE)));
    p.units = CPU(conv_cut)(&p.axis[0], &p.axis[1], s->n, MAX_PARTS, p.block, WINDOW_FLOATS, rows);
    const int64_t units = p.units.image_units * p.units.bands, sums = p.all_tiles * FV_OUTER_ROWS * p.columns;
    p.parts = MAX_PARTS; /* powers of two share out evenly */
    while (p.parts > 1 && (p.parts > units || p.parts * sums > PART_FLOATS)) p.parts /= 2;
    p.ranges = fv_min64(fv_ceil_div(MIN_ITEMS, p.parts), fv_ceil_div(p.all_tiles * FV_OUTER_ROWS, MIN_RANGE));
    p.ranges = fv_max64(p.ranges, fv_ceil_div(p.all_tiles * FV_OUTER_ROWS, MAX_RANGE));
    p.ranges = fv_max64(1, fv_min64(p.ranges, p.all_tiles));
    p.pack_dy = s->k > DIRECT_CHANNELS || p.kg % FV_OUTER_ROWS != 0;
    p.rows = p.units.images * p.units.band * s->ow;

    p.window_floats = (size_t)round_vector(p.units.images * p.units.window[0] * p.units.window[1] * p.block);
    p.window_floats += FV_OUTER_COLUMNS;
    p.gather_floats = p.gather ? (size_t)(p.rows * p.padded) : 0;
    p.scratch_floats = p.window_floats + p.gather_floats;
    if (p.pack_dy)
        p.scratch_floats +=
            (size_t)(p.rows * FV_OUTER_ROWS * fv_min64(p.tiles, fv_ceil_div(p.all_tiles, p.ranges) + 1));
    p.scratch_floats = (p.scratch_floats + 15) & ~(size_t)15;
    p.table_at = fv_workspace_add(&p.total, (size_t)p.rows * sizeof(ptrdiff_t));
    p.line_at = fv_workspace_add(&p.total, (size_t)(s->r * s->s) * sizeof(ptrdiff_t));
    p.sums_at = fv_workspace_add(&p.total, (size_t)(p.parts * sums) * sizeof(float));
    p.scratch_at = fv_workspace_add(&p.total, p.scratch_floats * (size_t)threads * sizeof(float));
    return p;
}

size_t CPU(conv_weight_workspace)(const fv_conv_shape *s, int threads) {
    if (CPU(conv_point_weight_fits)(s)) return CPU(conv_point_weight_workspace)(s, threads, false, false);
    return make_plan(s, threads).total;
}

typedef struct job {
    plan p;
    const float *dy, *x;
    float *dw;
    ptrdiff_t *table; /* [rows]: place of a position in the window */
    ptrdiff_t *line;  /* [lines], when gathering [r]: place of a line */
    float *sums;      /* [parts][all_tiles * FV_OUTER_ROWS][columns] */
    float *scratch;
} job;

static void fill_tables(const job *j) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t row = p->block * p->units.window[1], image = row * p->units.window[0];
    ptrdiff_t *t = j->table;
    for (int64_t i = 0; i < p->units.images; i++)
        for (int64_t a = 0; a < p->units.band; a++)
            for (int64_t b = 0; b < s->ow; b++) *t++ = i * image + a * s->stride[0] * row + b * s->stride[1] * p->block;
    for (int64_t r = 0, n = 0; r < s->r; r++)
        for (int64_t q = 0; q < (s->dilation[1] == 1 ? 1 : s->s); q++)
            j->line[n++] = r * s->dilation[0] * row + q * s->dilation[1] * p->block;
}

/* dst [tiles][rows][FV_OUTER_ROWS] from dy rows; zeros behind the last channel of the group. A few rows at a time, so
 * that both sides are walked in runs. */
static void pack_dy(float *dst, const float *dy, int64_t stride, int64_t rows, int64_t tiles, int64_t channels) {
    const int64_t whole = channels / FV_OUTER_ROWS;
    for (int64_t p0 = 0; p0 < rows; p0 += 8) {
        const int64_t p1 = fv_min64(rows, p0 + 8);
        for (int64_t t = 0; t < tiles; t++) {
            const float *src = dy + p0 * stride + t * FV_OUTER_ROWS;
            float *to = dst + (t * rows + p0) * FV_OUTER_ROWS;
            for (int64_t p = p0; p < p1; p++, src += stride, to += FV_OUTER_ROWS) {
                if (t < whole) memcpy(to, src, FV_OUTER_ROWS * sizeof *to);
                else
                    for (int i = 0; i < FV_OUTER_ROWS; i++) to[i] = t * FV_OUTER_ROWS + i < channels ? src[i] : 0.0f;
            }
        }
    }
}

/* All taps of a position side by side: dst [rows][padded]. */
static void gather_lines(const job *j, float *dst, const float *window, int64_t rows) {
    const plan *p = &j->p;
    const int64_t pieces = p->shape->dilation[1] == 1 ? p->shape->r : p->shape->r * p->shape->s;
    const int64_t piece = p->line / pieces;
    for (int64_t i = 0; i < rows; i++, dst += p->padded)
        for (int64_t n = 0; n < pieces; n++) {
            /* Whole vectors: what is written too much is overwritten by the next piece or lies in the padding. */
            const float *src = window + j->table[i] + j->line[n];
            if (n * piece + round_vector(piece) <= p->padded)
                for (int64_t k = 0; k < piece; k += FV_VL) vf_store(dst + n * piece + k, vf_load(src + k));
            else memcpy(dst + n * piece, src, (size_t)piece * sizeof *dst);
        }
}

/* `rows` rows of `vectors` vectors, side by side: dst [rows][vectors * FV_VL]. */
FV_INLINE void copy_strip(float *dst, const float *src, const ptrdiff_t *offset, int64_t step, int64_t rows,
                          const int vectors) {
    for (int64_t i = 0; i < rows; i++) {
        const float *from = src + (offset ? offset[i] : i * step);
        FV_UNROLL_ALL for (int v = 0; v < vectors; v++, dst += FV_VL) vf_store(dst, vf_load(from + v * FV_VL));
    }
}

/* Pieces of nearly equal width of the vectors of a line: vectors piece_at(i) .. piece_at(i + 1) are piece i. */
FV_INLINE int64_t piece_at(const plan *p, int64_t piece) {
    const int64_t vectors = p->padded / FV_VL;
    return piece * vectors / fv_ceil_div(vectors, FV_OUTER_VECTORS);
}

/* Sums of one piece over all positions, for `tiles` tiles of output channels. g: as for all positions and the first
 * tile; with b_off the piece does not lie side by side. */
static void sum_piece(fv_outer_gemm g, int64_t tiles, int64_t tile_step, int64_t acc_step, fv_ahead *ahead) {
    float strip[CHUNK * FV_OUTER_COLUMNS] __attribute__((aligned(64)));
    const fv_outer_gemm all = g;
    const int64_t chunks = fv_ceil_div(all.count, CHUNK);
    const bool copy = all.ldb != g.vectors * FV_VL && tiles >= MIN_REUSE;
    for (int64_t i = 0; i < chunks; i++) {
        const int64_t first = i * all.count / chunks;
        g.count = (i + 1) * all.count / chunks - first;
        g.accumulate = all.accumulate || i > 0;
        g.ahead = i < MAX_CHUNKS ? ahead + i : NULL;
        g.b = all.b + (all.b_off ? 0 : first * all.ldb);
        g.b_off = all.b_off ? all.b_off + first : NULL;
        if (copy) {
            if (g.vectors == 3) copy_strip(strip, g.b, g.b_off, all.ldb, g.count, 3);
            else if (g.vectors == 2) copy_strip(strip, g.b, g.b_off, all.ldb, g.count, 2);
            else copy_strip(strip, g.b, g.b_off, all.ldb, g.count, 1);
            g.b = strip;
            g.b_off = NULL;
            g.ldb = g.vectors * FV_VL;
        }
        for (int64_t t = 0; t < tiles; t++) {
            g.a = all.a + t * tile_step + first * all.lda;
            g.acc = all.acc + t * acc_step;
            CPU(outer_gemm)(&g);
        }
    }
}

/* Sums of one block of input channels over the rows of a unit, for `tiles` tiles of output channels. */
static void sum_block(const job *j, fv_outer_gemm g, const float *columns, float *sums, int64_t tiles,
                      int64_t tile_step, fv_ahead *ahead) {
    const plan *p = &j->p;
    const int64_t pieces = fv_ceil_div(p->padded / FV_VL, FV_OUTER_VECTORS);
    for (int64_t n = 0; n < p->lines; n++) {
        for (int64_t piece = 0; piece < pieces; piece++) {
            const int64_t first = piece_at(p, piece) * FV_VL;
            g.vectors = (int)(piece_at(p, piece + 1) - piece_at(p, piece));
            g.b = columns + (p->gather ? 0 : j->line[n]) + first;
            g.acc = sums + n * p->padded + first;
            sum_piece(g, tiles, tile_step, FV_OUTER_ROWS * p->columns, ahead);
        }
    }
}

typedef struct unit {
    int64_t image, images, row, rows; /* rows of positions */
    fv_conv_window window;
    fv_ahead ahead[MAX_CHUNKS]; /* by chunk of positions */
} unit;

static unit unit_of(const job *j, int64_t index) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    unit u = {.image = index / p->units.bands * p->units.images, .row = index % p->units.bands * p->units.band};
    u.images = fv_min64(p->units.images, s->n - u.image);
    u.rows = fv_min64(p->units.band, s->oh - u.row);
    u.window = (fv_conv_window){
        .x = j->x,
        .h = s->h,
        .w = s->w,
        .c = s->c,
        .image = u.image,
        .images = u.images,
        .row = u.row * s->stride[0] + p->units.first[0],
        .col = p->units.first[1],
        .window = {p->units.window[0], p->units.window[1]},
        .pitch = p->block,
    };
    return u;
}

static const float *dy_of(const job *j, const unit *u) {
    const fv_conv_shape *s = j->p.shape;
    return j->dy + (u->image * s->oh + u->row) * s->ow * s->k;
}

/* What the next unit will read: its rows of x, and its rows of dy from `channel` on. */
static void look_ahead(const job *j, unit *u, int64_t next, int64_t channel, int64_t channels) {
    const plan *p = &j->p;
    const unit n = unit_of(j, next);
    const int64_t rows = n.images * n.rows * p->shape->ow, row_bytes = p->shape->k * (int64_t)sizeof(float);
    const bool all = channels == p->shape->k;
    const char *x, *dy = (const char *)(dy_of(j, &n) + channel);
    const int64_t x_lines = CPU(conv_window_lines)(&n.window, &x);
    const int64_t dy_lines = rows * channels * (int64_t)sizeof(float) / 64;
    if (x_lines + dy_lines > AHEAD_LINES) return;
    const int64_t chunks = fv_min64(MAX_CHUNKS, fv_ceil_div(u->images * u->rows * p->shape->ow, CHUNK));
    for (int64_t i = 0; i < chunks; i++) {
        fv_ahead *ahead = &u->ahead[i];
        const int64_t line = i * x_lines / chunks, row = i * rows / chunks;
        ahead->run[0].at = x + line * 64;
        ahead->run[0].step = 64;
        ahead->run[0].lines = (i + 1) * x_lines / chunks - line;
        ahead->run[1].at = dy + row * row_bytes;
        ahead->run[1].step = all ? 64 : row_bytes;
        ahead->run[1].lines = ((i + 1) * rows / chunks - row) * channels * (int64_t)sizeof(float) / 64;
    }
}

static void sum_unit(const job *j, unit *u, int64_t group, int64_t tile, int64_t tiles, float *sums, bool accumulate,
                     float *scratch) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t positions = u->images * u->rows * s->ow;
    float *window = scratch, *gathered = scratch + p->window_floats, *packed = gathered + p->gather_floats;
    const float *dy = dy_of(j, u) + group * p->kg + tile * FV_OUTER_ROWS;
    if (p->pack_dy) pack_dy(packed, dy, s->k, positions, tiles, p->kg - tile * FV_OUTER_ROWS);
    const fv_outer_gemm g = {
        .a = p->pack_dy ? packed : dy,
        .lda = p->pack_dy ? FV_OUTER_ROWS : s->k,
        .b_off = p->gather ? NULL : j->table,
        .ldb = p->padded,
        .count = positions,
        .ld = p->columns,
        .accumulate = accumulate,
    };
    for (int64_t b = 0; b < p->blocks; b++) {
        u->window.c0 = group * p->cg + b * p->block;
        u->window.channels = fv_min64(p->block, p->cg - b * p->block);
        CPU(conv_copy_window)(&u->window, window);
        if (p->gather) gather_lines(j, gathered, window, positions);
        sum_block(j, g, p->gather ? gathered : window, sums + b * p->lines * p->padded, tiles,
                  p->pack_dy ? positions * FV_OUTER_ROWS : FV_OUTER_ROWS, u->ahead);
    }
}

static void sum_item(void *arg, int64_t item, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t range = item % p->ranges, part = item / p->ranges;
    const int64_t tile0 = range * p->all_tiles / p->ranges, tile1 = (range + 1) * p->all_tiles / p->ranges;
    const int64_t units = p->units.image_units * p->units.bands;
    const int64_t unit0 = part * units / p->parts, unit1 = (part + 1) * units / p->parts;
    float *scratch = j->scratch + (size_t)thread * p->scratch_floats;
    for (int64_t i = unit0; i < unit1; i++) {
        unit u = unit_of(j, i);
        if (i + 1 < unit1 && p->shape->groups == 1)
            look_ahead(j, &u, i + 1, tile0 * FV_OUTER_ROWS,
                       fv_min64(p->shape->k, tile1 * FV_OUTER_ROWS) - tile0 * FV_OUTER_ROWS);
        for (int64_t tile = tile0; tile < tile1;) {
            const int64_t group = tile / p->tiles, end = fv_min64(tile1, (group + 1) * p->tiles);
            float *sums = j->sums + (part * p->all_tiles + tile) * FV_OUTER_ROWS * p->columns;
            sum_unit(j, &u, group, tile - group * p->tiles, end - tile, sums, i > unit0, scratch);
            tile = end;
        }
    }
}

/* Add the parts in order and bring one output channel into the layout of dw. */
static void reduce_channel(void *arg, int64_t k, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t row = k / p->kg * p->tiles * FV_OUTER_ROWS + k % p->kg,
                  part = p->all_tiles * FV_OUTER_ROWS * p->columns;
    const int64_t taps = s->r * s->s, per_line = p->gather ? taps : taps / p->lines;
    for (int64_t t = 0; t < taps; t++) {
        for (int64_t b = 0; b < p->blocks; b++) {
            float *dst = j->dw + (k * taps + t) * p->cg + b * p->block;
            const float *src =
                j->sums + row * p->columns + (b * p->lines + t / per_line) * p->padded + t % per_line * p->block;
            const int64_t channels = fv_min64(p->block, p->cg - b * p->block);
            for (int64_t c = 0; c < channels; c += FV_VL) {
                const int n = (int)fv_min64(FV_VL, channels - c);
                vf sum = vf_load_n(src + c, n);
                for (int64_t i = 1; i < p->parts; i++) sum += vf_load_n(src + i * part + c, n);
                vf_store_n(dst + c, sum, n);
            }
        }
    }
}

void CPU(conv_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw) {
    if (s->n * s->oh * s->ow == 0) {
        memset(dw, 0, (size_t)(s->k * s->r * s->s * (s->c / s->groups)) * sizeof *dw);
        return;
    }
    if (CPU(conv_point_weight_fits)(s)) {
        CPU(conv_point_weight)(c, s, &(fv_point_weight){.dy = dy, .x = x, .dw = dw});
        return;
    }
    job j = {.p = make_plan(s, fv_pool_threads(c->pool)), .dy = dy, .x = x, .dw = dw};
    char *work = c->workspace;
    j.table = (ptrdiff_t *)(work + j.p.table_at);
    j.line = (ptrdiff_t *)(work + j.p.line_at);
    j.sums = (float *)(work + j.p.sums_at);
    j.scratch = (float *)(work + j.p.scratch_at);
    fill_tables(&j);
    fv_pool_run(c->pool, j.p.parts * j.p.ranges, sum_item, &j);
    fv_pool_run(c->pool, s->k, reduce_channel, &j);
}

void CPU(conv2d_bwd_weight)(const fv_call *c) {
    const fv_conv_shape s = CPU(conv_shape)(c->in[1].type, c->out[0].type, c->in[0].type, &c->attr->conv2d_bwd.conv);
    const float *dy = c->in[0].data, *x = c->in[1].data;
    if (c->out[0].data == NULL || fv_count(c->out[0].type) == 0) return;
    if (fv_conv_is_depthwise(&s)) CPU(depthwise_weight)(c, &s, dy, x, c->out[0].data);
    else if (CPU(winograd_fits)(&s, c->device, false)) CPU(winograd_weight)(c, &s, dy, x, c->out[0].data);
    else CPU(conv_weight)(c, &s, dy, x, c->out[0].data);
}
