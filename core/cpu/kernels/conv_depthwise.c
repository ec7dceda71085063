/* conv_depthwise.c: convolutions where every channel is its own group: x [n,h,w,c], w [c,r,s,1]. Vectors run over
 * channels. Units, windows and phases as in conv.h; the window holds all channels. */
#include "core/cpu/kernels/conv.h"

enum {
    WINDOW_FLOATS = 64 << 10,
    UNIT_ROWS = 1 << 20, /* whole pictures, when the window allows */
    MIN_UNITS = 16,
    MAX_COLUMNS = 8, /* positions of a row that are computed together */
    MAX_TAPS = 9,    /* taps summed together in the gradient of the weights */
    MAX_PARTS = 8,
    GROUP_POSITIONS = 64,
    MAX_AHEAD = 48,          /* lines asked for at once; a copy alone streams better than that */
    STREAM_BYTES = 24 << 20, /* results larger than this are written past the caches */
};

typedef struct plan {
    const fv_conv_shape *shape;
    fv_conv_kind kind;
    int64_t phases[2];
    fv_conv_axis all[2];
    fv_conv_units units;
    int64_t source_c, source[2], result[2], padded_c;
    int64_t parts; /* gradient of the weights */
    size_t weight_at, places_at, scratch_at, total, window_floats;
} plan;

static plan make_plan(const fv_conv_shape *s, fv_conv_kind kind, bool gradient, int threads) {
    plan p = {.shape = s, .kind = kind, .padded_c = (s->c + FV_VL - 1) / FV_VL * FV_VL};
    for (int a = 0; a < 2; a++) {
        int64_t taps;
        p.phases[a] = fv_conv_phases(s, kind, a);
        p.all[a] = CPU(conv_span_axis)(s, kind, a, &taps);
        p.source[a] = p.all[a].source;
    }
    p.result[0] = kind == FV_CONV_FORWARD ? s->oh : s->h;
    p.result[1] = kind == FV_CONV_FORWARD ? s->ow : s->w;
    p.units = CPU(conv_cut)(&p.all[0], &p.all[1], s->n, MIN_UNITS, p.padded_c, WINDOW_FLOATS, UNIT_ROWS);
    p.parts = gradient ? fv_max64(1, fv_min64(MAX_PARTS, p.units.image_units * p.units.bands)) : 1;
    /* Behind the window: what strips read beyond the last position of a row. */
    const int64_t pixels = p.units.images * p.units.window[0] * p.units.window[1] + MAX_COLUMNS * p.all[1].source_step;
    p.window_floats = (size_t)(pixels * p.padded_c);
    p.weight_at = fv_workspace_add(&p.total, (size_t)(p.parts * s->r * s->s * p.padded_c) * sizeof(float));
    p.places_at = fv_workspace_add(&p.total, gradient ? (size_t)(s->r * s->s) * sizeof(ptrdiff_t) : 0);
    p.scratch_at = fv_workspace_add(&p.total, p.window_floats * (size_t)threads * sizeof(float));
    return p;
}

size_t CPU(depthwise_workspace)(const fv_conv_shape *s, fv_op op, int threads) {
    const fv_conv_kind kind = op == FV_OP_CONV2D_BWD_DATA ? FV_CONV_DATA : FV_CONV_FORWARD;
    return make_plan(s, kind, op == FV_OP_CONV2D_BWD_WEIGHT, threads).total;
}

typedef struct job {
    plan p;
    const float *source, *bias, *dy;
    float *result;
    float *taps;           /* [r * s][padded_c]: weights; gradient: [parts][r * s][padded_c], sums */
    ptrdiff_t *tap_places; /* gradient: [r * s], in the window */
    float *scratch;
    bool stream;
} job;

typedef struct unit {
    int64_t image, images, row, rows;
    fv_conv_window window;
    fv_ahead ahead;
} unit;

static unit unit_of(const job *j, int64_t index) {
    const plan *p = &j->p;
    unit u = {.image = index / p->units.bands * p->units.images, .row = index % p->units.bands * p->units.band};
    u.images = fv_min64(p->units.images, p->shape->n - u.image);
    u.rows = fv_min64(p->units.band, p->all[0].count - u.row);
    u.window = (fv_conv_window){
        .x = j->source,
        .h = p->source[0],
        .w = p->source[1],
        .c = p->shape->c,
        .image = u.image,
        .images = u.images,
        .row = u.row * p->all[0].source_step + p->units.first[0],
        .col = p->units.first[1],
        .window = {p->units.window[0], p->units.window[1]},
        .channels = p->shape->c,
        .pitch = p->padded_c,
    };
    return u;
}

/* Unit `index`, its window copied; while it is worked on, unit `next` is asked for, a bit in each of `tiles` places. */
static unit open_unit(const job *j, int64_t index, int64_t next, int64_t tiles, float *window) {
    unit u = unit_of(j, index);
    CPU(conv_copy_window)(&u.window, window);
    if (next >= j->p.units.image_units * j->p.units.bands) return u;
    const unit n = unit_of(j, next);
    u.ahead.run[0].lines = CPU(conv_window_lines)(&n.window, &u.ahead.run[0].at);
    u.ahead.run[0].step = 64;
    u.ahead.run[0].per_tile = fv_ceil_div(u.ahead.run[0].lines, fv_max64(1, tiles));
    if (u.ahead.run[0].per_tile > MAX_AHEAD) u.ahead.run[0].lines = 0;
    return u;
}

/* ---------------------------------------------------------------- forward and gradient of the data */

typedef struct strip {  /* some positions of one row, FV_VL channels */
    const float *x, *w; /* window at tap 0; weights at tap 0 */
    int64_t taps[2];
    ptrdiff_t x_tap[2], w_tap[2], x_step; /* floats from one tap (h, w), one position to the next */
    float *y;
    ptrdiff_t y_step;
    vf bias;
    int count;    /* positions; those computed beyond are dropped */
    int channels; /* of the vector; FV_VL or the rest */
    bool stream;
    fv_ahead *ahead;
} strip;

FV_INLINE void strip_store(const strip *s, const vf *acc, const int columns) {
    FV_UNROLL_ALL for (int i = 0; i < columns; i++) {
        float *y = s->y + i * s->y_step;
        if (i >= s->count) break;
        if (s->stream) vf_stream(y, acc[i]);
        else if (s->channels == FV_VL) vf_store(y, acc[i]);
        else vf_store_n(y, acc[i], s->channels);
    }
}

FV_INLINE void strip_run(const strip *s, const int columns) {
    vf acc[MAX_COLUMNS];
    FV_UNROLL_ALL for (int i = 0; i < columns; i++) acc[i] = s->bias;
    fv_read_ahead(s->ahead, 0);
    for (int64_t r = 0; r < s->taps[0]; r++) {
        const float *x = s->x + r * s->x_tap[0], *w = s->w + r * s->w_tap[0];
        for (int64_t q = 0; q < s->taps[1]; q++, x += s->x_tap[1], w += s->w_tap[1]) {
            const vf weight = vf_load(w);
            FV_UNROLL_ALL for (int i = 0; i < columns; i++) acc[i] = vf_fma(vf_load(x + i * s->x_step), weight, acc[i]);
        }
    }
    strip_store(s, acc, columns);
}

/* Neighbouring positions and `taps` neighbouring taps: each value of x is loaded once per kernel row. */
FV_INLINE void strip_slide(const strip *s, const int columns, const int taps) {
    vf acc[MAX_COLUMNS], weight[7];
    FV_UNROLL_ALL for (int i = 0; i < columns; i++) acc[i] = s->bias;
    fv_read_ahead(s->ahead, 0);
    for (int64_t r = 0; r < s->taps[0]; r++) {
        const float *x = s->x + r * s->x_tap[0], *w = s->w + r * s->w_tap[0];
        FV_UNROLL_ALL for (int q = 0; q < taps; q++) weight[q] = vf_load(w + q * s->w_tap[1]);
        FV_UNROLL_ALL for (int i = 0; i < columns + taps - 1; i++, x += s->x_step) {
            const vf v = vf_load(x);
            FV_UNROLL_ALL for (int q = 0; q < taps; q++) {
                if (i - q >= 0 && i - q < columns) acc[i - q] = vf_fma(v, weight[q], acc[i - q]);
            }
        }
    }
    strip_store(s, acc, columns);
}

#define STRIP(name, call) \
    static __attribute__((noinline)) void name(const strip *s) { \
        call; \
    }
STRIP(strip_long, strip_run(s, MAX_COLUMNS))
STRIP(strip_short, strip_run(s, MAX_COLUMNS / 2))
STRIP(strip_long_3, strip_slide(s, MAX_COLUMNS, 3))
STRIP(strip_short_3, strip_slide(s, MAX_COLUMNS / 2, 3))
STRIP(strip_long_5, strip_slide(s, MAX_COLUMNS, 5))
STRIP(strip_short_5, strip_slide(s, MAX_COLUMNS / 2, 5))
STRIP(strip_long_7, strip_slide(s, MAX_COLUMNS, 7))
STRIP(strip_short_7, strip_slide(s, MAX_COLUMNS / 2, 7))

typedef void (*strip_fn)(const strip *s);

static strip_fn choose_strip(const strip *s, bool is_long) {
    if (s->x_step != s->x_tap[1]) return is_long ? strip_long : strip_short;
    switch (s->taps[1]) {
    case 3: return is_long ? strip_long_3 : strip_short_3;
    case 5: return is_long ? strip_long_5 : strip_short_5;
    case 7: return is_long ? strip_long_7 : strip_short_7;
    default: return is_long ? strip_long : strip_short;
    }
}

static void run_row(const job *j, const fv_conv_axis *w, strip s, float *y) {
    const plan *p = &j->p;
    const float *x = s.x, *weight = s.w;
    const strip_fn run_long = choose_strip(&s, true), run_short = choose_strip(&s, false);
    for (int64_t c = 0; c < p->shape->c; c += FV_VL) {
        s.channels = (int)fv_min64(FV_VL, p->shape->c - c);
        s.bias = j->bias ? vf_load_n(j->bias + c, s.channels) : vf_zero();
        s.w = weight + c;
        for (int64_t i = 0; i < w->count; i += MAX_COLUMNS) {
            s.count = (int)fv_min64(MAX_COLUMNS, w->count - i);
            s.x = x + i * s.x_step + c;
            s.y = y + i * s.y_step + c;
            (s.count > MAX_COLUMNS / 2 ? run_long : run_short)(&s);
        }
    }
}

static void run_phase(const job *j, unit *u, const fv_conv_axis *h, const fv_conv_axis *w, const float *window) {
    const plan *p = &j->p;
    const int64_t pixel = p->padded_c, row = p->units.window[1] * pixel, rows = fv_min64(u->rows, h->count - u->row);
    strip s = {
        .taps = {h->taps, w->taps},
        .x_tap = {h->tap_step * row, w->tap_step * pixel},
        .w_tap = {h->weight_step * p->shape->s * pixel, w->weight_step * pixel},
        .x_step = w->source_step * pixel,
        .y_step = w->result_step * p->shape->c,
        .stream = j->stream,
        .ahead = &u->ahead,
    };
    for (int64_t i = 0; i < u->images; i++) {
        for (int64_t a = 0; a < rows; a++) {
            const int64_t x_row = i * p->units.window[0] + a * h->source_step + h->tap_first - p->units.first[0];
            const int64_t y_row = (u->image + i) * p->result[0] + (u->row + a) * h->result_step + h->result_first;
            s.x = window + x_row * row + (w->tap_first - p->units.first[1]) * pixel;
            s.w = j->taps + (h->weight_first * p->shape->s + w->weight_first) * pixel;
            run_row(j, w, s, j->result + (y_row * p->result[1] + w->result_first) * p->shape->c);
        }
    }
}

static void unit_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *window = j->scratch + (size_t)thread * p->window_floats;
    const int64_t positions = p->units.images * p->units.band * p->all[1].count * p->phases[0] * p->phases[1];
    const int64_t strips = fv_ceil_div(positions, MAX_COLUMNS) * fv_ceil_div(p->shape->c, FV_VL);
    unit u = open_unit(j, tile, tile + 1, strips, window);
    for (int64_t a = 0; a < p->phases[0]; a++) {
        const fv_conv_axis h = fv_conv_phase(p->shape, p->kind, 0, a);
        for (int64_t b = 0; b < p->phases[1]; b++) {
            const fv_conv_axis w = fv_conv_phase(p->shape, p->kind, 1, b);
            run_phase(j, &u, &h, &w, window);
        }
    }
    const fv_finish *finish = p->shape->finish;
    if (finish) CPU(finish)
    (finish, (u.image * p->result[0] + u.row) * p->result[1], u.images * u.rows * p->result[1], 0, p->shape->k);
    if (j->stream) vf_stream_end();
}

static job open_job(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, bool gradient) {
    job j = {.p = make_plan(s, kind, gradient, fv_pool_threads(c->pool))};
    j.taps = (float *)((char *)c->workspace + j.p.weight_at);
    j.tap_places = (ptrdiff_t *)((char *)c->workspace + j.p.places_at);
    j.scratch = (float *)((char *)c->workspace + j.p.scratch_at);
    return j;
}

void CPU(depthwise)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                    const float *weight, const float *bias, float *result) {
    job j = open_job(c, s, kind, false);
    const plan *p = &j.p;
    j.source = source;
    j.bias = bias;
    j.result = result;
    const size_t bytes = (size_t)(s->n * p->result[0] * p->result[1] * s->c) * sizeof(float);
    j.stream =
        !s->finish && bytes >= STREAM_BYTES && s->c % FV_VL == 0 && (uintptr_t)result % (FV_VL * sizeof(float)) == 0;
    memset(j.taps, 0, (size_t)(s->r * s->s * p->padded_c) * sizeof *j.taps);
    CPU(transpose_matrix)(j.taps, p->padded_c, weight, s->r * s->s, s->c, s->r * s->s);
    fv_pool_run(c->pool, p->units.image_units * p->units.bands, unit_tile, &j);
}

/* ---------------------------------------------------------------- gradient of the weights */

/* sums[t] += sum over rows and columns of dy * x at tap t, for `taps` taps and one vector of channels. */
typedef struct tap_sums {
    const float *x, *dy;
    const ptrdiff_t *tap;
    int64_t rows, columns;
    ptrdiff_t x_row;                     /* rows of dy follow each other */
    ptrdiff_t x_step, dy_step, dy_ahead; /* dy_ahead: floats from this unit to the next */
    float *sums;
    ptrdiff_t sums_step;
    int channels;
    fv_ahead *ahead;
} tap_sums;

FV_INLINE void tap_sums_run(const tap_sums *s, const int taps, const bool full) {
    vf acc[MAX_TAPS];
    ptrdiff_t tap[MAX_TAPS];
    FV_UNROLL_ALL for (int t = 0; t < taps; t++) {
        acc[t] = vf_load(s->sums + t * s->sums_step);
        tap[t] = s->tap[t];
    }
    const float *dy = s->dy;
    for (int64_t r = 0; r < s->rows; r++) {
        const float *x = s->x + r * s->x_row;
        for (int64_t q = 0; q < s->columns; q++, x += s->x_step, dy += s->dy_step) {
            const vf g = full ? vf_load(dy) : vf_load_n(dy, s->channels);
            __builtin_prefetch(dy + s->dy_ahead, 0, 2);
            FV_UNROLL_ALL for (int t = 0; t < taps; t++) acc[t] = vf_fma(vf_load(x + tap[t]), g, acc[t]);
        }
    }
    fv_read_ahead(s->ahead, 0);
    FV_UNROLL_ALL for (int t = 0; t < taps; t++) vf_store(s->sums + t * s->sums_step, acc[t]);
}
#define TAP_SUMS(n) \
    static __attribute__((noinline)) void tap_sums_##n(const tap_sums *s) { \
        if (s->channels == FV_VL) tap_sums_run(s, n, true); \
        else tap_sums_run(s, n, false); \
    }
TAP_SUMS(1)
TAP_SUMS(2)
TAP_SUMS(3)
TAP_SUMS(4)
TAP_SUMS(5)
TAP_SUMS(6)
TAP_SUMS(7)
TAP_SUMS(8)
TAP_SUMS(9)

static void sum_rows(const job *j, const float *x, const float *dy, int64_t rows, float *sums, fv_ahead *ahead) {
    static void (*const run[])(const tap_sums *) = {tap_sums_1, tap_sums_2, tap_sums_3, tap_sums_4, tap_sums_5,
                                                    tap_sums_6, tap_sums_7, tap_sums_8, tap_sums_9};
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t taps = s->r * s->s, pieces = fv_ceil_div(taps, MAX_TAPS);
    for (int64_t i = 0; i < pieces; i++) {
        const int64_t first = i * taps / pieces, end = (i + 1) * taps / pieces;
        for (int64_t c = 0; c < s->c; c += FV_VL) {
            const tap_sums call = {
                .x = x + c,
                .dy = dy + c,
                .tap = j->tap_places + first,
                .rows = rows,
                .columns = s->ow,
                .x_row = s->stride[0] * p->units.window[1] * p->padded_c,
                .x_step = s->stride[1] * p->padded_c,
                .dy_step = s->c,
                .dy_ahead = i == 0 ? p->units.images * p->units.band * s->ow * s->c : 0,
                .sums = sums + first * p->padded_c + c,
                .sums_step = p->padded_c,
                .channels = (int)fv_min64(FV_VL, s->c - c),
                .ahead = ahead,
            };
            run[end - first - 1](&call);
        }
    }
}

static void sum_part(void *arg, int64_t part, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t units = p->units.image_units * p->units.bands, floats = s->r * s->s * p->padded_c;
    const int64_t first = part * units / p->parts, end = (part + 1) * units / p->parts;
    /* Rows that one call sums: memory is walked in order, but short rows alone are too little for a call. */
    const int64_t group = fv_min64(p->units.band, fv_ceil_div(GROUP_POSITIONS, s->ow));
    const int64_t calls = p->units.images * fv_ceil_div(p->units.band, group) * fv_ceil_div(s->c, FV_VL) *
                          fv_ceil_div(s->r * s->s, MAX_TAPS);
    float *sums = j->taps + part * floats, *window = j->scratch + (size_t)thread * p->window_floats;
    memset(sums, 0, (size_t)floats * sizeof *sums);
    for (int64_t i = first; i < end; i++) {
        unit u = open_unit(j, i, i + 1 < end ? i + 1 : units, calls, window);
        const float *dy = j->dy + (u.image * s->oh + u.row) * s->ow * s->c;
        for (int64_t image = 0; image < u.images; image++) {
            for (int64_t r = 0; r < u.rows; r += group) {
                const int64_t x_row = image * p->units.window[0] + r * s->stride[0];
                sum_rows(j, window + x_row * p->units.window[1] * p->padded_c, dy + (image * u.rows + r) * s->ow * s->c,
                         fv_min64(group, u.rows - r), sums, &u.ahead);
            }
        }
    }
}

void CPU(depthwise_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw) {
    job j = open_job(c, s, FV_CONV_FORWARD, true);
    const plan *p = &j.p;
    j.source = x;
    j.dy = dy;
    for (int64_t t = 0; t < s->r * s->s; t++)
        j.tap_places[t] = (t / s->s * s->dilation[0] * p->units.window[1] + t % s->s * s->dilation[1]) * p->padded_c;
    fv_pool_run(c->pool, p->parts, sum_part, &j);
    const int64_t taps = s->r * s->s, floats = taps * p->padded_c;
    for (int64_t part = 1; part < p->parts; part++)
        for (int64_t i = 0; i < floats; i += FV_VL)
            vf_store(j.taps + i, vf_load(j.taps + i) + vf_load(j.taps + part * floats + i));
    CPU(transpose_matrix)(dw, taps, j.taps, p->padded_c, taps, s->c);
}
