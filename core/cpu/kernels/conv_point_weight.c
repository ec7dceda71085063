/* conv_point_weight.c: gradient of the weights of 1x1 kernels without padding, and of linear layers: dy [rows,k],
 * x [rows,c] -> dw [k,c], the product of dy transposed and x.
 *
 * A unit of rows at a time is packed, both operands as panels that panel_gemm reads from front to back:
 *
 *   dy -> [k / FV_MR][rows][FV_MR]      x -> [c / FV_NR][rows][FV_NR]
 *
 * One panel of x stays in the first-level cache while all of dy passes it; every register tile of dw is loaded and
 * stored once per unit. The tiles lie one behind the other, [c / FV_NR][k / FV_MR][FV_MR][FV_NR], until the end. Where
 * fewer places of the tiles stay empty that way, dy and x change places ("turned").
 *
 * Of bf16, two rows become one of pairs on the way into the panels, whose depth is then half; at the end of a unit
 * with an odd number of rows the second is zeros.
 *
 * With an activation, the rows of x go through it in groups, which stay in the first-level cache, on their way there.
 * The gradient of a bias is summed from the rows of dy where these are packed: in float for a unit, in double beyond.
 *
 * The rows are split into at most 4 parts whose sums are added in order; dw is split into blocks, which changes nothing
 * in the order of a sum, so that their number may depend on that of the threads. */
#include "core/cpu/kernels/activate.h"
#include "core/cpu/kernels/conv.h"

enum {
    UNIT_ROWS = FV_VL == 16 ? 64 : 256, /* a panel of x: 8 or 16 KB; two units and the sums should fit into L2 */
    GROUP_ROWS = 8,                     /* packed at a time: whole cache lines of a panel */
    BLOCK_CHANNELS = 768,               /* of dw at a time, along each side */
    MAX_PARTS = 4,
    PART_FLOATS = 2 << 20, /* all partial sums together */
    PART_ROWS = 128,       /* at least */
    AHEAD_LINES = 16 << 10,
    FLUSH_ROWS = 64, /* of dy that are summed in float */
    TILE_FLOATS = FV_MR * FV_NR,
};

typedef struct plan {
    const fv_conv_shape *shape;
    bool turned;
    int64_t rows, channels[2];           /* positions; what a tile's rows and its columns are: k, c or turned c, k */
    int64_t tiles, panels;               /* in all */
    int64_t blocks[2], block[2];         /* of tiles, of panels */
    int64_t parts, units;                /* units per part */
    int64_t sum_floats;                  /* of dw in tiles; without parts, of a block */
    int64_t unit_rows, packed_floats[2]; /* of a thread */
    int64_t active_floats;               /* of a thread: a group of rows of act(x) */
    int64_t bias_floats;                 /* of a thread: sums of a few rows of dy */
    int64_t thread_floats;
    size_t sums_at, bias_at, packed_at, total;
} plan;

bool CPU(conv_point_weight_fits)(const fv_conv_shape *s) {
    return s->r * s->s == 1 && s->groups == 1 && s->pad[0] == 0 && s->pad[1] == 0;
}

/* Work of a product, in half panels of one tile of rows. */
static int64_t cost(int64_t rows, int64_t columns) {
    return fv_ceil_div(rows, FV_MR) * fv_ceil_div(columns, FV_VL);
}

static int64_t round_line(int64_t floats) {
    return (floats + 15) / 16 * 16;
}

static void cut_blocks(plan *p, int axis, int64_t count, int64_t most) {
    p->blocks[axis] = fv_max64(1, fv_ceil_div(count, most));
    p->block[axis] = fv_ceil_div(count, p->blocks[axis]);
    p->blocks[axis] = fv_ceil_div(count, p->block[axis]);
}

static plan make_plan(const fv_conv_shape *s, int threads, bool activated, bool biased) {
    plan p = {.shape = s, .rows = s->n * s->oh * s->ow, .turned = cost(s->c, s->k) < cost(s->k, s->c)};
    p.channels[0] = p.turned ? s->c : s->k;
    p.channels[1] = p.turned ? s->k : s->c;
    p.tiles = fv_ceil_div(p.channels[0], FV_MR);
    p.panels = fv_ceil_div(p.channels[1], FV_NR);
    const int64_t all = p.tiles * p.panels * TILE_FLOATS;
    p.parts = fv_max64(1, fv_min64(MAX_PARTS, p.rows / PART_ROWS));
    while (p.parts > 1 && p.parts * all > PART_FLOATS) p.parts--;
    p.units = fv_max64(1, fv_ceil_div(p.rows, p.parts * UNIT_ROWS));
    p.unit_rows = fv_ceil_div(p.rows, p.parts * p.units) + 1; /* the cut is even within a row of each other */
    cut_blocks(&p, 0, p.tiles, BLOCK_CHANNELS / FV_MR);
    cut_blocks(&p, 1, p.panels, BLOCK_CHANNELS / FV_NR);
    const int64_t items = p.parts * p.blocks[0] * p.blocks[1];
    if (threads > 1 && items < 2 * threads) cut_blocks(&p, 0, p.tiles, fv_max64(8, p.block[0] * items / (2 * threads)));
    p.sum_floats = p.parts > 1 ? all : p.block[0] * p.block[1] * TILE_FLOATS;
    p.packed_floats[0] = round_line(p.unit_rows * p.block[0] * FV_MR);
    p.packed_floats[1] = round_line(p.unit_rows * p.block[1] * FV_NR);
    p.sums_at = fv_workspace_add(&p.total, (size_t)(p.sum_floats * (p.parts > 1 ? p.parts : threads)) * sizeof(float));
    if (activated) p.active_floats = round_line(GROUP_ROWS * (p.turned ? p.block[0] * FV_MR : p.block[1] * FV_NR));
    if (biased) p.bias_floats = round_line(p.turned ? p.block[1] * FV_NR : p.block[0] * FV_MR);
    p.bias_at = fv_workspace_add(&p.total, biased ? (size_t)(p.parts * s->k) * sizeof(double) : 0);
    p.thread_floats = p.packed_floats[0] + p.packed_floats[1] + p.active_floats + p.bias_floats;
    p.packed_at = fv_workspace_add(&p.total, (size_t)(p.thread_floats * threads) * sizeof(float));
    return p;
}

size_t CPU(conv_point_weight_workspace)(const fv_conv_shape *s, int threads, bool activated, bool biased) {
    return make_plan(s, threads, activated, biased).total;
}

typedef struct job {
    plan p;
    const float *operand[2];       /* dy, x; turned: x, dy */
    const fv_activation_attr *act; /* or NULL */
    float *dw, *sums, *packed;
    double *bias_sums; /* [parts][k]; or NULL */
} job;

static bool is_x(const job *j, int operand) {
    return (operand == 1) != j->p.turned;
}

/* Where the row of position `row` lies, in floats: of dy, or of the pixel of x that it reads. */
static int64_t row_at(const job *j, int operand, int64_t row) {
    const fv_conv_shape *s = j->p.shape;
    if (!is_x(j, operand)) return row * s->k;
    if (s->stride[0] == 1 && s->stride[1] == 1) return row * s->c;
    const int64_t image = row / (s->oh * s->ow), h = row / s->ow % s->oh, w = row % s->ow;
    return ((image * s->h + h * s->stride[0]) * s->w + w * s->stride[1]) * s->c;
}

/* ---------------------------------------------------------------- packing */

/* GROUP_ROWS rows, or `rows` of them, of panels of `width` floats that are `depth` rows long. */
FV_INLINE void pack_whole(float *dst, const float *const *row, int64_t panels, int64_t depth, const int width,
                          const int rows) {
    for (int64_t i = 0; i < panels; i++, dst += depth * width) {
        FV_UNROLL_ALL for (int r = 0; r < rows; r++)
            memcpy(dst + r * width, row[r] + i * width, (size_t)width * sizeof *dst);
    }
}
static void pack_tail(float *dst, const float *const *row, int width, int columns, int rows) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < width; c++) dst[r * width + c] = c < columns ? row[r][c] : 0.0f;
}

/* Sums of the rows of dy. */
typedef struct bias_sums {
    float *few;  /* of up to FLUSH_ROWS rows; or NULL: not wanted */
    double *all; /* of the part */
} bias_sums;

/* few [channels] += rows that were just packed and lie in the first-level cache. */
FV_INLINE void add_rows(float *few, const float *const *row, int64_t channels, const int rows) {
    for (int64_t c = 0; c < channels; c += FV_VL) {
        const int n = (int)fv_min64(FV_VL, channels - c);
        vf sum = vf_load_n(few + c, n);
        FV_UNROLL_ALL for (int r = 0; r < rows; r++) sum += vf_load_n(row[r] + c, n);
        vf_store_n(few + c, sum, n);
    }
}
static void flush_sums(const bias_sums *b, int64_t channels) {
    for (int64_t c = 0; c < channels; c++) b->all[c] += b->few[c];
    memset(b->few, 0, (size_t)channels * sizeof *b->few);
}

/* Channels [first, first + channels) of rows [begin, end) of an operand as panels of `width`, the last one of `last`.
 * active: room for what an activation makes of a group of them. */
FV_INLINE void pack(const job *j, int operand, fv_range unit, int64_t first, int64_t channels, const int width,
                    int last, float *dst, float *active, const bias_sums *bias) {
    const int64_t whole = channels / width, depth = unit.end - unit.begin;
    for (int64_t p = unit.begin; p < unit.end; p += GROUP_ROWS) {
        const float *row[GROUP_ROWS];
        const int rows = (int)fv_min64(GROUP_ROWS, unit.end - p);
        for (int r = 0; r < rows; r++) row[r] = j->operand[operand] + row_at(j, operand, p + r) + first;
        for (int r = 0; r < rows && j->act && is_x(j, operand); r++) {
            CPU(activate)(j->act, row[r], active + r * channels, channels);
            row[r] = active + r * channels;
        }
        if (bias->few) {
            if (rows == GROUP_ROWS) add_rows(bias->few, row, channels, GROUP_ROWS);
            else
                for (int r = 0; r < rows; r++) add_rows(bias->few, row + r, channels, 1);
            if (p + rows == unit.end || (p + rows - unit.begin) % FLUSH_ROWS == 0) flush_sums(bias, channels);
        }
        float *to = dst + (p - unit.begin) * width;
        if (rows == GROUP_ROWS) pack_whole(to, row, whole, depth, width, GROUP_ROWS);
        else
            for (int r = 0; r < rows; r++) pack_whole(to + r * width, row + r, whole, depth, width, 1);
        if (channels == whole * width) continue;
        for (int r = 0; r < rows; r++) row[r] += whole * width;
        pack_tail(dst + whole * depth * width + (p - unit.begin) * last, row, last, (int)(channels - whole * width),
                  rows);
    }
}

/* The same of bf16: two rows as one of pairs. */
FV_INLINE void pack_pairs(const job *j, int operand, fv_range unit, int64_t first, int64_t channels, const int width,
                          int last, float *dst) {
    const uint16_t *x = (const uint16_t *)(const void *)j->operand[operand] + first;
    const int64_t whole = channels / width, depth = fv_ceil_div(unit.end - unit.begin, 2);
    float *tail = dst + whole * depth * width;
    for (int64_t d = 0; d < depth; d++, dst += width, tail += last) {
        const int64_t p = unit.begin + 2 * d;
        const uint16_t *row = x + row_at(j, operand, p),
                       *next = p + 1 < unit.end ? x + row_at(j, operand, p + 1) : NULL;
        for (int64_t i = 0; i < whole; i++, row += width, next = next ? next + width : NULL)
            fv_pair_rows(dst + i * depth * width, row, next, width, width);
        if (channels > whole * width) fv_pair_rows(tail, row, next, (int)(channels - whole * width), last);
    }
}

/* ---------------------------------------------------------------- products */

typedef struct block { /* of dw: tiles and panels */
    fv_range tiles, panels;
    int64_t channels[2]; /* in it */
} block;

static block block_of(const plan *p, int64_t index) {
    block b = {fv_tile_range(p->tiles, p->block[0], index / p->blocks[1]),
               fv_tile_range(p->panels, p->block[1], index % p->blocks[1]),
               {0, 0}};
    b.channels[0] = fv_min64(p->channels[0], b.tiles.end * FV_MR) - b.tiles.begin * FV_MR;
    b.channels[1] = fv_min64(p->channels[1], b.panels.end * FV_NR) - b.panels.begin * FV_NR;
    return b;
}

/* The rows of the next unit, if they lie in one run. */
static fv_ahead look_ahead(const job *j, const block *b, fv_range next) {
    const plan *p = &j->p;
    const int64_t calls = (b->tiles.end - b->tiles.begin) * (b->panels.end - b->panels.begin);
    const int in_float = p->shape->pairs ? 2 : 1; // of what is prefetched
    fv_ahead ahead = {0};
    for (int i = 0; i < 2; i++) {
        if (b->channels[i] < p->channels[i] || p->shape->stride[0] * p->shape->stride[1] > 1) continue;
        fv_ahead_rows(&ahead, i, j->operand[i], next, p->channels[i] / in_float, AHEAD_LINES, calls);
    }
    return ahead;
}

static fv_range unit_of(const plan *p, int64_t unit) {
    const int64_t units = p->parts * p->units;
    return (fv_range){unit * p->rows / units, (unit + 1) * p->rows / units};
}

/* The sums that a block takes of dy: all those that share its channels of dy have the same, one is to take them. */
static bias_sums bias_of(const job *j, const block *b, int64_t part, float *few) {
    const plan *p = &j->p;
    const bool takes = p->turned ? b->tiles.begin == 0 : b->panels.begin == 0;
    if (!j->bias_sums || !takes) return (bias_sums){NULL, NULL};
    const int64_t first = p->turned ? b->panels.begin * FV_NR : b->tiles.begin * FV_MR;
    memset(few, 0, (size_t)p->bias_floats * sizeof *few);
    return (bias_sums){few, j->bias_sums + part * p->shape->k + first};
}

/* Sums of a block over the units of a part; its first tile lies at `sums`, its panels `panel_step` apart. */
static void sum_block(const job *j, const block *b, int64_t part, float *packed, float *sums, int64_t panel_step) {
    const plan *p = &j->p;
    float *columns = packed + p->packed_floats[0], *active = columns + p->packed_floats[1];
    const bias_sums bias = bias_of(j, b, part, active + p->active_floats), none = {NULL, NULL};
    for (int64_t u = part * p->units; u < (part + 1) * p->units; u++) {
        const fv_range unit = unit_of(p, u);
        const bool pairs = p->shape->pairs;
        const int64_t depth = fv_ceil_div(unit.end - unit.begin, pairs ? 2 : 1);
        fv_ahead ahead = {0};
        if (u + 1 < (part + 1) * p->units) ahead = look_ahead(j, b, unit_of(p, u + 1));
        const int64_t tile0 = b->tiles.begin * FV_MR, panel0 = b->panels.begin * FV_NR;
        const int last = fv_panel_width(b->channels[1] % FV_NR);
        if (pairs) {
            pack_pairs(j, 0, unit, tile0, b->channels[0], FV_MR, FV_MR, packed);
            pack_pairs(j, 1, unit, panel0, b->channels[1], FV_NR, last, columns);
        } else {
            pack(j, 0, unit, tile0, b->channels[0], FV_MR, FV_MR, packed, active, p->turned ? &none : &bias);
            pack(j, 1, unit, panel0, b->channels[1], FV_NR, last, columns, active, p->turned ? &bias : &none);
        }
        fv_panel_gemm g = {.a = packed,
                           .tiles = b->tiles.end - b->tiles.begin,
                           .depth = depth,
                           .y_step = TILE_FLOATS,
                           .accumulate = u > part * p->units,
                           .ahead = &ahead};
        for (int64_t i = 0; i < b->panels.end - b->panels.begin; i++) {
            g.b = columns + i * depth * FV_NR;
            g.y = sums + i * panel_step;
            g.vectors = fv_min64(FV_NR, b->channels[1] - i * FV_NR) > FV_VL ? 2 : 1;
            FV_GEMM(panel_gemm, pairs)(&g);
        }
    }
}

/* One tile into dw: the sum of the parts, in order. */
static void finish_tile(const job *j, int64_t tile, int64_t panel, const float *sums) {
    const plan *p = &j->p;
    const int64_t row0 = tile * FV_MR, column0 = panel * FV_NR;
    const int64_t rows = fv_min64(FV_MR, p->channels[0] - row0), columns = fv_min64(FV_NR, p->channels[1] - column0);
    const int64_t width = fv_panel_width(columns);
    float turned[FV_MR * FV_NR];
    for (int64_t i = 0; i < rows; i++) {
        float *to = p->turned ? turned + i * FV_NR : j->dw + (row0 + i) * p->channels[1] + column0;
        for (int64_t c = 0; c < columns; c += FV_VL) {
            vf sum = vf_load(sums + i * width + c);
            for (int64_t k = 1; k < p->parts; k++) sum += vf_load(sums + k * p->sum_floats + i * width + c);
            vf_store_n(to + c, sum, p->turned ? FV_VL : (int)fv_min64(FV_VL, columns - c));
        }
    }
    if (p->turned)
        CPU(transpose_matrix)(j->dw + column0 * p->channels[0] + row0, p->channels[0], turned, FV_NR, rows, columns);
}

static void sum_item(void *arg, int64_t item, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t blocks = p->blocks[0] * p->blocks[1], part = item / blocks;
    const block b = block_of(p, item % blocks);
    float *packed = j->packed + thread * p->thread_floats;
    if (p->parts > 1) {
        float *sums = j->sums + part * p->sum_floats + (b.panels.begin * p->tiles + b.tiles.begin) * TILE_FLOATS;
        sum_block(j, &b, part, packed, sums, p->tiles * TILE_FLOATS);
        return;
    }
    float *sums = j->sums + thread * p->sum_floats;
    const int64_t step = p->block[0] * TILE_FLOATS;
    sum_block(j, &b, 0, packed, sums, step);
    for (int64_t t = b.tiles.begin; t < b.tiles.end; t++)
        for (int64_t n = b.panels.begin; n < b.panels.end; n++)
            finish_tile(j, t, n, sums + (n - b.panels.begin) * step + (t - b.tiles.begin) * TILE_FLOATS);
}

static void finish_row(void *arg, int64_t tile, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    for (int64_t n = 0; n < p->panels; n++) finish_tile(j, tile, n, j->sums + (n * p->tiles + tile) * TILE_FLOATS);
}

void CPU(conv_point_weight)(const fv_call *c, const fv_conv_shape *s, const fv_point_weight *g) {
    job j = {.p = make_plan(s, fv_pool_threads(c->pool), g->act != NULL, g->dbias != NULL), .act = g->act, .dw = g->dw};
    const plan *p = &j.p;
    j.operand[p->turned] = g->dy;
    j.operand[!p->turned] = g->x;
    j.sums = (float *)((char *)c->workspace + p->sums_at);
    j.packed = (float *)((char *)c->workspace + p->packed_at);
    if (g->dbias) {
        j.bias_sums = (double *)(void *)((char *)c->workspace + p->bias_at);
        memset(j.bias_sums, 0, (size_t)(p->parts * s->k) * sizeof *j.bias_sums);
    }
    fv_pool_run(c->pool, p->parts * p->blocks[0] * p->blocks[1], sum_item, &j);
    if (p->parts > 1) fv_pool_run(c->pool, p->tiles, finish_row, &j);
    for (int64_t k = 0; g->dbias && k < s->k; k++) {
        double sum = 0;
        for (int64_t i = 0; i < p->parts; i++) sum += j.bias_sums[i * s->k + k];
        g->dbias[k] = (float)sum;
    }
}
