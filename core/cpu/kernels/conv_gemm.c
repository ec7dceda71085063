/* conv_gemm.c: forward convolution and the gradient of the data by row_gemm over windows (conv.h). Of bf16 in pairs,
 * source, windows and packed weights have two channels of the source in the place of a float. */
#include "core/cpu/kernels/activate.h"
#include "core/cpu/kernels/conv.h"

enum {
    PANEL_DEPTH = FV_VL == 16 ? 768 : 640, /* taps * channels of a packed panel that is walked at a time: it should lie
                                              near the first level cache */
    WINDOW_FLOATS = 64 << 10,              /* scratch of a thread: a quarter of a 1 MB second level cache */
    SOURCE_FLOATS = WINDOW_FLOATS * (FV_VL == 16 ? 2 : 1), /* of a unit that is read where it lies */
    UNIT_ROWS = FV_VL == 16 ? 512 : 256,                   /* second-level caches of 1 MB and of 512 KB */
    LEAST_ROWS = 96,                                       /* of a unit, unless its window does not fit */
    FEW_UNITS = 8,                                         /* and panels that one picture should come to */
    SLOPE_ROWS = 96,                                       /* 12 or 6 KB of a panel; a multiple of FV_MR */
    AHEAD_LINES = 6 << 10,                                 /* 384 KB */
    L2_FLOATS = 128 << 10,
    LARGE_UNITS = 4,
    LARGE_PANELS = 8,
    MIN_TILES = 16,                               /* cut columns as well when there are fewer units */
    PACK_ALONE = 16 << 10,                        /* weights below this many floats are packed by the caller alone */
    STREAM_BYTES = (FV_VL == 16 ? 12 : 24) << 20, /* results larger than this are written past the caches */
    KEEP_POSITIONS = 1024,                        /* with more, packing is a small part of the work */
};

typedef struct plan {
    const fv_conv_shape *shape;
    fv_conv_kind kind;
    int64_t phases[2];
    int64_t depth, columns, groups; /* channels (or pairs of them) summed over, channels produced, per group */
    int64_t source[2], source_c, result[2], result_c;
    fv_conv_axis all[2]; /* spans the taps of all phases */
    fv_conv_units units;
    int64_t block, blocks; /* channels per walk */
    bool in_place, merged; /* merged: the taps of a row lie side by side and count as one */
    int64_t panels, chunks, chunk_panels;
    size_t axis_at[2], tap_at, table_at, weight_at, scratch_at, total; /* workspace, bytes */
    size_t scratch_floats, weight_bytes;
    int64_t table_rows;
} plan;

static bool fits_in_place(const fv_conv_axis *a) {
    return a->tap_first >= 0 && (a->count - 1) * a->source_step + a->tap_first + a->taps <= a->source;
}

static plan make_plan(const fv_conv_shape *s, fv_conv_kind kind, int threads, bool activated) {
    const bool forward = kind == FV_CONV_FORWARD;
    plan p = {.shape = s, .kind = kind, .groups = s->groups};
    int64_t taps[2];
    for (int a = 0; a < 2; a++) {
        p.phases[a] = fv_conv_phases(s, kind, a);
        p.all[a] = CPU(conv_span_axis)(s, kind, a, &taps[a]);
        p.source[a] = p.all[a].source;
    }
    p.source_c = (forward ? s->c : s->k) / (s->pairs ? 2 : 1);
    p.depth = p.source_c / s->groups;
    p.columns = (forward ? s->k : s->c) / s->groups;
    p.result_c = forward ? s->k : s->c;
    p.result[0] = forward ? s->oh : s->h;
    p.result[1] = forward ? s->ow : s->w;
    p.in_place = fits_in_place(&p.all[0]) && fits_in_place(&p.all[1]) && !(activated && forward);

    int64_t fit = fv_max64(16, PANEL_DEPTH / fv_max64(1, taps[0] * taps[1]));
    p.blocks = fv_max64(1, fv_ceil_div(p.depth, fit));
    p.block = fv_ceil_div(p.depth, p.blocks);
    if (p.blocks > 1) {
        p.block = (p.block + 15) & ~(int64_t)15;
        p.blocks = fv_ceil_div(p.depth, p.block);
    }
    p.merged = s->groups == 1 && p.blocks == 1 && s->dilation[1] == 1;
    /* Weights that do not stay in the second-level cache are read again for every unit: fewer and larger units, and few
     * enough columns at a time that their results stay. */
    const bool large = p.depth * p.columns * s->r * s->s > L2_FLOATS;
    /* Alone with a linear layer a thread walks through the panels once for all rows. */
    const bool alone = threads == 1 && p.all[0].count * p.all[1].count == 1;
    const int64_t min_units = alone ? 1 : large ? LARGE_UNITS : MIN_TILES;
    /* What is added to the results of a unit should lie in that cache when they are complete. */
    int64_t rows = s->finish && s->finish->residual ? fv_min64(UNIT_ROWS, WINDOW_FLOATS / p.columns) : UNIT_ROWS;
    /* One picture with few columns: bands, so that all threads have some. */
    p.panels = fv_ceil_div(p.columns, FV_NR);
    if (!alone) rows = fv_min64(rows, s->n * p.all[0].count * p.all[1].count * p.panels / FEW_UNITS);
    p.units = CPU(conv_cut)(&p.all[0], &p.all[1], s->n, min_units, p.block, p.in_place ? SOURCE_FLOATS : WINDOW_FLOATS,
                            fv_max64(LEAST_ROWS, rows));
    const int64_t units = fv_max64(1, p.units.image_units * p.units.bands);
    p.chunks = threads == 1 || units >= MIN_TILES ? 1 : fv_min64(p.panels, fv_ceil_div(MIN_TILES, units));
    if (large) p.chunks = fv_max64(p.chunks, fv_ceil_div(p.panels, LARGE_PANELS));
    if (activated && forward) p.chunks = 1; /* the source of a unit is activated once */
    p.chunk_panels = fv_ceil_div(p.panels, fv_max64(1, p.chunks));
    p.chunks = fv_ceil_div(p.panels, fv_max64(1, p.chunk_panels));

    p.table_rows = p.units.images * p.units.band * p.all[1].count;
    p.weight_bytes = fv_lines(fv_packed_floats(p.columns, p.depth * s->r * s->s) * (size_t)s->groups * sizeof(float));
    if (!p.in_place)
        p.scratch_floats =
            (size_t)(p.units.images * p.units.window[0] * p.units.window[1] + FV_STRIP) * (size_t)p.block;
    else if (activated) p.scratch_floats = (size_t)fv_min64(p.table_rows, SLOPE_ROWS) * FV_NR;
    p.scratch_floats = (p.scratch_floats + 15) & ~(size_t)15;
    for (int a = 0; a < 2; a++) p.axis_at[a] = fv_workspace_add(&p.total, (size_t)p.phases[a] * sizeof(fv_conv_axis));
    p.tap_at = fv_workspace_add(&p.total, (size_t)(s->r * s->s) * sizeof(ptrdiff_t));
    p.table_at = fv_workspace_add(&p.total, (size_t)p.table_rows * 8 * sizeof(ptrdiff_t));
    p.scratch_at = fv_workspace_add(&p.total, p.scratch_floats * (size_t)threads * sizeof(float));
    p.weight_at = fv_workspace_add(&p.total, p.weight_bytes); /* last: kept elsewhere if they do not change */
    return p;
}

size_t CPU(conv_gemm_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads) {
    if (kind == FV_CONV_FORWARD && CPU(conv_few_fits)(s)) return CPU(conv_few_workspace)(s);
    return make_plan(s, kind, threads, false).total;
}

size_t CPU(activated_gemm_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads) {
    return make_plan(s, kind, threads, true).total;
}

bool CPU(conv_gemm_rounds)(const fv_conv_shape *s, fv_conv_kind kind) {
    return s->pairs && make_plan(s, kind, 1, false).blocks == 1;
}

size_t CPU(conv_gemm_prepared)(const fv_conv_shape *s, int threads, size_t *workspace) {
    if (s->n * s->oh * s->ow > KEEP_POSITIONS) return 0;
    const plan p = make_plan(s, FV_CONV_FORWARD, threads, false);
    *workspace = p.weight_at;
    return p.weight_bytes;
}

/* ---------------------------------------------------------------- one call */

typedef struct job {
    plan p;
    const float *source, *weight, *bias;
    float *result;
    const fv_conv_axis *axis[2]; /* [phases] */
    ptrdiff_t *tap;              /* per phase at the number of its first tap */
    ptrdiff_t *table;            /* [4][x_off table_rows, y_off table_rows] by table_of */
    float *packed, *scratch;
    const fv_activation_attr *act; /* of the source, or of the result's slopes; or NULL */
    const float *saved;            /* what the slopes are of; NULL: the source is activated */
    bool stream, kept, round;      /* kept: the packed weights, from run to run. round: the result is bf16 */
} job;

/* Phases differ in their number of positions by at most one per axis: four tables of offsets serve them all. */
static int table_of(const job *j, int64_t ph, int64_t pw) {
    return (j->axis[0][ph].count < j->p.all[0].count) * 2 + (j->axis[1][pw].count < j->p.all[1].count);
}

static void fill_table(const job *j, int64_t ph, int64_t pw) {
    const plan *p = &j->p;
    const fv_conv_axis *h = &j->axis[0][ph], *w = &j->axis[1][pw];
    ptrdiff_t *x_off = j->table + table_of(j, ph, pw) * 2 * p->table_rows, *y_off = x_off + p->table_rows;
    const int64_t pixel = p->in_place ? p->source_c : p->block;
    const int64_t row = pixel * (p->in_place ? p->source[1] : p->units.window[1]);
    const int64_t image = row * (p->in_place ? p->source[0] : p->units.window[0]);
    const int64_t rows = fv_min64(p->units.band, h->count), result_c = j->saved ? FV_NR : p->result_c;
    for (int64_t i = 0; i < p->units.images; i++) {
        for (int64_t a = 0; a < rows; a++) {
            for (int64_t b = 0; b < w->count; b++) {
                *x_off++ = i * image + a * h->source_step * row + b * w->source_step * pixel;
                *y_off++ = ((i * p->result[0] + a * h->result_step) * p->result[1] + b * w->result_step) * result_c;
            }
        }
    }
}

/* Number of the first tap of a phase, counting all taps of the phases before it; every kernel place is in one phase. */
static int64_t taps_before(const job *j, int64_t ph, int64_t pw) {
    int64_t n = 0, row = 0;
    for (int64_t b = 0; b < j->p.phases[1]; b++) row += j->axis[1][b].taps;
    for (int64_t a = 0; a < ph; a++) n += j->axis[0][a].taps * row;
    for (int64_t b = 0; b < pw; b++) n += j->axis[0][ph].taps * j->axis[1][b].taps;
    return n;
}

static void fill_taps(const job *j, int64_t ph, int64_t pw) {
    const plan *p = &j->p;
    const fv_conv_axis *h = &j->axis[0][ph], *w = &j->axis[1][pw];
    ptrdiff_t *tap = j->tap + taps_before(j, ph, pw);
    const int64_t pixel = p->in_place ? p->source_c : p->block;
    const int64_t row = pixel * (p->in_place ? p->source[1] : p->units.window[1]);
    const int64_t h0 = h->tap_first - (p->in_place ? 0 : p->units.first[0]);
    const int64_t w0 = w->tap_first - (p->in_place ? 0 : p->units.first[1]);
    for (int64_t r = 0; r < h->taps; r++)
        for (int64_t s = 0; s < (p->merged ? fv_min64(1, w->taps) : w->taps); s++)
            *tap++ = (h0 + r * h->tap_step) * row + (w0 + s * w->tap_step) * pixel;
}

/* Packed weights: [phase][group][block][panel][tap][channel][column]. */
static float *packed_at(const job *j, int64_t ph, int64_t pw, int64_t group, int64_t block, int64_t panel) {
    const plan *p = &j->p;
    const int64_t taps = j->axis[0][ph].taps * j->axis[1][pw].taps;
    const int64_t channels = fv_min64(p->block, p->depth - block * p->block);
    size_t at = fv_packed_floats(p->columns, p->depth) * (size_t)(taps_before(j, ph, pw) * p->groups + taps * group);
    return j->packed + at + fv_packed_floats(p->columns, taps * block * p->block) +
           (size_t)(panel * FV_NR * taps * channels);
}

/* The panel whose pairs lie in two rows of the weights each, from `at` on, `stride` apart. */
static void pack_rows_of_pairs(float *dst, const job *j, int64_t at, int64_t depth, int columns, int64_t stride) {
    const uint16_t *src = (const uint16_t *)(const void *)j->weight + at;
    const int width = fv_panel_width(columns);
    for (int64_t d = 0; d < depth; d++, src += 2 * stride, dst += width)
        fv_pair_rows(dst, src, src + stride, columns, width);
}

static void pack_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t panel = tile % p->panels, group = tile / p->panels % p->groups, phase = tile / p->panels / p->groups;
    const int64_t ph = phase / p->phases[1], pw = phase % p->phases[1];
    const fv_conv_axis *h = &j->axis[0][ph], *w = &j->axis[1][pw];
    const bool forward = p->kind == FV_CONV_FORWARD;
    const int64_t cg = s->c / s->groups / (s->pairs && forward ? 2 : 1), kernel = s->r * s->s * cg;
    const int columns = (int)fv_min64(FV_NR, p->columns - panel * FV_NR);
    for (int64_t b = 0; b < p->blocks; b++) {
        const int64_t first = b * p->block, channels = fv_min64(p->block, p->depth - first);
        float *dst = packed_at(j, ph, pw, group, b, panel);
        for (int64_t t = 0; t < h->taps * w->taps; t++, dst += channels * fv_panel_width(columns)) {
            const int64_t r = h->weight_first + t / w->taps * h->weight_step,
                          q = w->weight_first + t % w->taps * w->weight_step;
            const int64_t tap = (r * s->s + q) * cg; /* weight: [k][r][s][cg] */
            const int64_t at = forward ? tap + (group * p->columns + panel * FV_NR) * kernel + first
                                       : tap + (group * p->depth + first) * kernel + panel * FV_NR;
            if (forward) CPU(pack_panel)(dst, j->weight + at, channels, columns, 1, kernel);
            else if (s->pairs)
                pack_rows_of_pairs(dst, j, at + (group * p->depth + first) * kernel, channels, columns, kernel);
            else CPU(pack_panel)(dst, j->weight + at, channels, columns, kernel, 1);
        }
    }
}

typedef struct unit {
    int64_t image, images, position, chunk; /* position: first row of positions */
    int64_t next_chunk;                     /* of the tile that this thread will probably work on next */
    fv_ahead ahead;
    const float *next; /* what is activated next: rows [next_rows, next_channels] of the source; or NULL */
    int64_t next_rows, next_channels;
} unit;

/* What g says, by strip_gemm: three taps along w, side by side, and one vector of columns. */
static void run_strips(const job *j, const unit *u, const fv_conv_axis *h, const fv_conv_axis *w,
                       const fv_row_gemm *g) {
    const plan *p = &j->p;
    const int64_t rows = fv_min64(p->units.band, h->count - u->position), pixel = p->block;
    fv_strip_gemm s = {
        .x_row = h->tap_step * p->units.window[1] * pixel,
        .x_step = pixel,
        .rows = h->taps,
        .depth = p->merged ? g->depth / 3 : g->depth,
        .count = w->count,
        .b = g->b,
        .y_step = w->result_step * p->result_c,
        .columns = g->columns,
        .bias = g->bias,
        .accumulate = g->accumulate,
        .ahead = g->ahead,
    };
    for (int64_t i = 0; i < u->images * rows; i++) {
        s.x = g->x + g->x_off[i * w->count] + g->tap[0];
        s.y = g->y + g->y_off[i * w->count];
        CPU(strip_gemm)(&s);
    }
}

/* While a panel is multiplied: the next one of this chunk, or the first one of this thread's next tile. They come from
 * memory if the weights are kept. */
static void look_ahead_weights(const job *j, const unit *u, int64_t group, int64_t block, int64_t panel,
                               fv_row_gemm *g) {
    const plan *p = &j->p;
    const int64_t first = u->chunk * p->chunk_panels, end = fv_min64(p->panels, first + p->chunk_panels);
    g->next[0] = NULL;
    if (panel + 1 < end) panel++;
    else if (block + 1 < p->blocks) panel = first, block++;
    else if (group + 1 < p->groups) panel = first, block = 0, group++;
    else if (u->next_chunk != u->chunk) panel = u->next_chunk * p->chunk_panels, block = 0, group = 0;
    else return;
    const int64_t channels = fv_min64(p->block, p->depth - block * p->block),
                  width = fv_panel_width(fv_min64(FV_NR, p->columns - panel * FV_NR));
    fv_row_gemm_next(g, 0, packed_at(j, 0, 0, group, block, panel),
                     j->axis[0][0].taps * j->axis[1][0].taps * channels * width);
}

/* While a panel is multiplied: its share of the lines of the source that are activated next. Of whole rows one after
 * the other, of a block of channels column by column, or as much of it as there are runs for. */
static void look_ahead_source(const job *j, unit *u, int64_t panel) {
    const int64_t columns = u->next_channels * (int64_t)sizeof(float) / 64;
    if (j->p.blocks == 1) {
        const fv_range lines =
            fv_tile_range(u->next_rows * columns, fv_ceil_div(u->next_rows * columns, j->p.panels), panel);
        u->ahead.run[0].at = (const char *)u->next + lines.begin * 64;
        u->ahead.run[0].step = 64;
        u->ahead.run[0].lines = lines.end - lines.begin;
        u->ahead.run[0].per_tile = fv_ceil_div(lines.end - lines.begin, fv_row_tiles(u->images));
        return;
    }
    const int64_t share = fv_ceil_div(columns, j->p.panels);
    for (int64_t i = 0; i < FV_AHEAD_RUNS; i++) {
        const int64_t column = panel * share + i;
        u->ahead.run[i].at = (const char *)u->next + column * 64;
        u->ahead.run[i].step = j->p.source_c * (ptrdiff_t)sizeof(float);
        u->ahead.run[i].lines = i < share && column < columns ? u->next_rows : 0;
        u->ahead.run[i].per_tile = FV_MR;
    }
}

/* All panels of a chunk for one block of channels of one phase. */
static void run_phase(const job *j, unit *u, int64_t phase, int64_t group, int64_t block, const float *x) {
    const plan *p = &j->p;
    const int64_t ph = phase / p->phases[1], pw = phase % p->phases[1];
    const fv_conv_axis *h = &j->axis[0][ph], *w = &j->axis[1][pw];
    const int64_t rows = fv_min64(p->units.band, h->count - u->position);
    if (rows <= 0 || w->count <= 0) return;
    const int64_t channels = fv_min64(p->block, p->depth - block * p->block);
    const ptrdiff_t *table = j->table + table_of(j, ph, pw) * 2 * p->table_rows;
    const int64_t y_row = u->position * h->result_step + h->result_first;
    const int64_t y =
        ((u->image * p->result[0] + y_row) * p->result[1] + w->result_first) * p->result_c + group * p->columns;
    fv_row_gemm g = {
        .x = x,
        .x_off = table,
        .y_off = table + p->table_rows,
        .rows = u->images * rows * w->count,
        .tap = j->tap + taps_before(j, ph, pw),
        .taps = p->merged ? h->taps * fv_min64(1, w->taps) : h->taps * w->taps,
        .depth = p->merged ? channels * w->taps : channels,
        .accumulate = block > 0,
        .stream = j->stream,
        .round = j->round,
        .ahead = &u->ahead,
    };
    const bool pairs = p->shape->pairs,
               strips = !p->in_place && !pairs && w->taps == 3 && w->tap_step == 1 && w->source_step == 1;
    const int64_t end = fv_min64(p->panels, (u->chunk + 1) * p->chunk_panels);
    const fv_finish *finish = block + 1 == p->blocks ? p->shape->finish : NULL;
    for (int64_t panel = u->chunk * p->chunk_panels; panel < end; panel++) {
        g.y = j->round ? (float *)(void *)((fv_bf16 *)(void *)j->result + y + panel * FV_NR)
                       : j->result + y + panel * FV_NR;
        g.b = packed_at(j, ph, pw, group, block, panel);
        g.columns = (int)fv_min64(FV_NR, p->columns - panel * FV_NR);
        g.bias = j->bias && block == 0 ? j->bias + group * p->columns + panel * FV_NR : NULL;
        g.residual = p->shape->residual && block == 0 ? p->shape->residual + y + panel * FV_NR : NULL;
        if (j->kept) look_ahead_weights(j, u, group, block, panel, &g);
        if (u->next) look_ahead_source(j, u, panel);
        const bool strip = strips && g.columns <= FV_VL;
        g.channel = group * p->columns + panel * FV_NR;
        g.finish = !strip && fv_finish_is_short(finish) ? finish : NULL;
        g.act = block + 1 == p->blocks ? p->shape->act : NULL;
        if (strip) run_strips(j, u, h, w, &g);
        else FV_GEMM(row_gemm, pairs)(&g);
        if (finish && !g.finish) CPU(finish)
        (finish, (u->image * p->result[0] + u->position) * p->result[1], g.rows, g.channel, g.columns);
    }
}

/* ---------------------------------------------------------------- activations, of linear layers */

/* Rows of a unit, channels [first, first + channels). */
static void activate_source(const job *j, const unit *u, int64_t first, int64_t channels, float *to) {
    const plan *p = &j->p;
    for (int64_t i = 0; i < u->images; i++)
        CPU(activate)(j->act, j->source + (u->image + i) * p->source_c + first, to + i * p->block, channels);
}

/* Let u->next be the block of channels behind `block`, which may be the first of the thread's next unit. */
static void find_next_source(const job *j, unit *u, int64_t tile, int64_t block) {
    const plan *p = &j->p;
    const bool last = block + 1 == p->blocks;
    const int64_t row = last ? (tile + 1) * p->units.images : u->image, first = last ? 0 : (block + 1) * p->block;
    u->next = row < p->shape->n ? j->source + row * p->source_c + first : NULL;
    u->next_rows = fv_min64(p->units.images, p->shape->n - row);
    u->next_channels = fv_min64(p->block, p->depth - first);
}

/* All panels of a chunk: the product of some rows goes to the scratch, and from there, while it lies in the first-level
 * cache, its slopes take it to the result. */
static void run_slopes(const job *j, unit *u, float *scratch) {
    const plan *p = &j->p;
    fv_row_gemm g = {.y = scratch, .y_off = j->table + p->table_rows, .tap = j->tap, .taps = 1, .ahead = &u->ahead};
    const int64_t end = fv_min64(p->panels, (u->chunk + 1) * p->chunk_panels);
    for (int64_t panel = u->chunk * p->chunk_panels; panel < end; panel++) {
        const int64_t at = u->image * p->result_c + panel * FV_NR;
        g.columns = (int)fv_min64(FV_NR, p->columns - panel * FV_NR);
        /* What the slopes are of: its rows, a run for each line of them. */
        for (int i = 0; i < (FV_NR * (int)sizeof(float) + 63) / 64; i++) {
            const bool wanted = i * 64 < g.columns * (int)sizeof(float);
            u->ahead.run[1 + i].at = (const char *)(j->saved + at) + i * 64;
            u->ahead.run[1 + i].step = p->result_c * (ptrdiff_t)sizeof(float);
            u->ahead.run[1 + i].lines = wanted ? u->images : 0;
            u->ahead.run[1 + i].per_tile = FV_MR;
        }
        for (int64_t row = 0; row < u->images; row += SLOPE_ROWS) {
            const int64_t to = at + row * p->result_c;
            g.rows = fv_min64(SLOPE_ROWS, u->images - row);
            g.x_off = j->table + row;
            for (int64_t block = 0; block < p->blocks; block++) {
                g.x = j->source + u->image * p->source_c + block * p->block;
                g.depth = fv_min64(p->block, p->depth - block * p->block);
                g.b = packed_at(j, 0, 0, 0, block, panel);
                g.accumulate = block > 0;
                CPU(row_gemm)(&g);
            }
            CPU(activate_slopes)
            (j->act, &(fv_slope_tile){scratch, j->saved + to, j->result + to, g.rows, FV_NR, p->result_c, g.columns});
        }
    }
}

static unit unit_of(const job *j, int64_t tile, fv_conv_window *win) {
    const plan *p = &j->p;
    const int64_t first = tile / p->chunks / p->units.bands;
    unit u = {.image = first * p->units.images,
              .position = tile / p->chunks % p->units.bands * p->units.band,
              .chunk = tile % p->chunks};
    u.images = fv_min64(p->units.images, p->shape->n - u.image);
    u.next_chunk = tile + 1 < p->units.image_units * p->units.bands * p->chunks ? (tile + 1) % p->chunks : u.chunk;
    *win = (fv_conv_window){
        .x = j->source,
        .h = p->source[0],
        .w = p->source[1],
        .c = p->source_c,
        .image = u.image,
        .images = u.images,
        .row = u.position * p->all[0].source_step + p->units.first[0],
        .col = p->units.first[1],
        .window = {p->units.window[0], p->units.window[1]},
        .pitch = p->block,
    };
    return u;
}

/* What this thread will probably work on next: the pool gives a thread tiles that follow each other. Its source, and if
 * residuals are added to its results these and their place, which are too much to wait for tile by tile. */
static void look_ahead(const job *j, unit *u, int64_t tile) {
    const plan *p = &j->p;
    const int64_t next = tile + 1;
    if (p->chunks > 1 || p->groups > 1 || next >= p->units.image_units * p->units.bands) return;
    fv_conv_window win;
    const unit then = unit_of(j, next, &win);
    const int64_t tiles = fv_row_tiles(p->table_rows) * p->panels * p->blocks * p->phases[0] * p->phases[1];
    /* What is activated is asked for by blocks: find_next_source. */
    const int64_t lines = j->act && !j->saved ? 0 : CPU(conv_window_lines)(&win, &u->ahead.run[0].at);
    if (lines <= AHEAD_LINES) {
        u->ahead.run[0].step = 64;
        u->ahead.run[0].lines = lines;
        u->ahead.run[0].per_tile = fv_ceil_div(lines, fv_max64(1, tiles));
    }
    const fv_finish *finish = p->shape->finish;
    const float *residual = finish ? finish->residual : p->shape->residual;
    if (!residual) return;
    const int64_t first = then.image * p->result[0] + then.position, left = p->result[0] - then.position,
                  rows = then.images > 1 ? then.images * p->result[0] : fv_min64(p->units.band, left);
    const fv_range results = {first * p->result[1], (first + rows) * p->result[1]};
    fv_ahead_rows(&u->ahead, 1, residual, results, p->result_c, AHEAD_LINES, tiles);
    if (!j->stream) fv_ahead_rows(&u->ahead, 2, j->result, results, p->result_c, AHEAD_LINES, tiles);
}

static void unit_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    fv_conv_window win;
    unit u = unit_of(j, tile, &win);
    const int64_t row = u.position * p->all[0].source_step;
    look_ahead(j, &u, tile);
    float *scratch = j->scratch + (size_t)thread * p->scratch_floats;
    if (j->saved) {
        run_slopes(j, &u, scratch);
        return;
    }
    for (int64_t group = 0; group < p->groups; group++) {
        for (int64_t block = 0; block < p->blocks; block++) {
            win.c0 = group * p->depth + block * p->block;
            win.channels = fv_min64(p->block, p->depth - block * p->block);
            const float *x = scratch;
            if (j->act) {
                activate_source(j, &u, win.c0, win.channels, scratch);
                find_next_source(j, &u, tile, block);
            } else if (p->in_place)
                x = j->source + (u.image * p->source[0] + row) * p->source[1] * p->source_c + win.c0;
            else CPU(conv_copy_window)(&win, scratch);
            for (int64_t phase = 0; phase < p->phases[0] * p->phases[1]; phase++)
                run_phase(j, &u, phase, group, block, x);
        }
    }
    if (j->stream) vf_stream_end();
}

static bool may_stream(const job *j) {
    const plan *p = &j->p;
    const size_t bytes = (size_t)(p->shape->n * p->result[0] * p->result[1] * p->result_c) * sizeof(float);
    return !j->round && (!p->shape->finish || fv_finish_is_short(p->shape->finish)) && bytes >= STREAM_BYTES &&
           p->blocks == 1 && p->columns % FV_VL == 0 && (uintptr_t)j->result % (FV_VL * sizeof(float)) == 0;
}

/* j has all but what lies in the workspace. */
static void run(const fv_call *c, job *j) {
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    char *work = c->workspace;
    for (int a = 0; a < 2; a++) {
        fv_conv_axis *axis = (fv_conv_axis *)(work + p->axis_at[a]);
        for (int64_t i = 0; i < p->phases[a]; i++) axis[i] = fv_conv_phase(s, p->kind, a, i);
        j->axis[a] = axis;
    }
    j->tap = (ptrdiff_t *)(work + p->tap_at);
    j->table = (ptrdiff_t *)(work + p->table_at);
    j->packed = j->kept ? c->prepared : work + p->weight_at;
    j->scratch = (float *)(work + p->scratch_at);
    bool filled[4] = {false};
    for (int64_t ph = 0; ph < p->phases[0]; ph++) {
        for (int64_t pw = 0; pw < p->phases[1]; pw++) {
            fill_taps(j, ph, pw);
            int table = table_of(j, ph, pw);
            if (!filled[table]) fill_table(j, ph, pw);
            filled[table] = true;
        }
    }
    const int64_t pack_tiles = p->phases[0] * p->phases[1] * p->groups * p->panels;
    const int64_t weights = s->k * s->r * s->s * (s->c / s->groups);
    if (!j->kept || c->preparing) fv_pool_run(weights < PACK_ALONE ? NULL : c->pool, pack_tiles, pack_tile, j);
    if (!c->preparing) fv_pool_run(c->pool, p->units.image_units * p->units.bands * p->chunks, unit_tile, j);
}

void CPU(conv_gemm)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                    const float *weight, const float *bias, float *result) {
    if (kind == FV_CONV_FORWARD && !c->prepared && CPU(conv_few_fits)(s)) {
        CPU(conv_few)(c, s, source, weight, bias, result);
        return;
    }
    job j = {.p = make_plan(s, kind, fv_pool_threads(c->pool), false),
             .source = source,
             .weight = weight,
             .bias = bias,
             .result = result,
             .kept = c->prepared != NULL,
             .round = fv_is_low(c->out[0].type.dtype)};
    j.stream = may_stream(&j);
    run(c, &j);
}

void CPU(activated_gemm)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                         const float *weight, const float *bias, const float *saved, float *result) {
    job j = {.p = make_plan(s, kind, fv_pool_threads(c->pool), true),
             .source = source,
             .weight = weight,
             .bias = bias,
             .act = &c->attr->activation,
             .saved = saved,
             .result = result};
    run(c, &j);
}
