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
    size_t weight_at, scratch_at, total, window_floats;
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
    p.window_floats = (size_t)(p.units.images * p.units.window[0] * p.units.window[1] * p.padded_c);
    p.weight_at = fv_workspace_add(&p.total, (size_t)(p.parts * s->r * s->s * p.padded_c) * sizeof(float));
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
    float *taps; /* [r * s][padded_c]: weights; gradient: [parts][r * s][padded_c], sums */
    float *scratch;
    bool stream;
} job;

typedef struct unit {
    int64_t image, images, row, rows;
} unit;

/* Unit `index` with its window copied into the thread's scratch. */
static unit open_unit(const job *j, int64_t index, float *window) {
    const plan *p = &j->p;
    unit u = {.image = index / p->units.bands * p->units.images, .row = index % p->units.bands * p->units.band};
    u.images = fv_min64(p->units.images, p->shape->n - u.image);
    u.rows = fv_min64(p->units.band, p->all[0].count - u.row);
    const fv_conv_window win = {
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
    CPU(conv_copy_window)(&win, window);
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
    int channels; /* of the vector; FV_VL or the rest */
    bool stream;
} strip;

FV_INLINE void strip_run(const strip *s, const int columns) {
    vf acc[MAX_COLUMNS];
    FV_UNROLL_ALL for (int i = 0; i < columns; i++) acc[i] = s->bias;
    for (int64_t r = 0; r < s->taps[0]; r++) {
        const float *x = s->x + r * s->x_tap[0], *w = s->w + r * s->w_tap[0];
        for (int64_t q = 0; q < s->taps[1]; q++, x += s->x_tap[1], w += s->w_tap[1]) {
            const vf weight = vf_load(w);
            FV_UNROLL_ALL for (int i = 0; i < columns; i++) acc[i] = vf_fma(vf_load(x + i * s->x_step), weight, acc[i]);
        }
    }
    FV_UNROLL_ALL for (int i = 0; i < columns; i++) {
        float *y = s->y + i * s->y_step;
        if (s->stream) vf_stream(y, acc[i]);
        else if (s->channels == FV_VL) vf_store(y, acc[i]);
        else vf_store_n(y, acc[i], s->channels);
    }
}
#define STRIP(n) \
    static __attribute__((noinline)) void strip_##n(const strip *s) { \
        strip_run(s, n); \
    }
STRIP(1)
STRIP(2)
STRIP(3)
STRIP(4)
STRIP(5)
STRIP(6)
STRIP(7)
STRIP(8)

static void run_row(const job *j, const fv_conv_axis *w, strip s, float *y, int64_t x_step) {
    static void (*const run[])(const strip *) = {strip_1, strip_2, strip_3, strip_4,
                                                 strip_5, strip_6, strip_7, strip_8};
    const plan *p = &j->p;
    const float *x = s.x, *weight = s.w;
    const int64_t pieces = fv_ceil_div(w->count, MAX_COLUMNS);
    for (int64_t c = 0; c < p->shape->c; c += FV_VL) {
        s.channels = (int)fv_min64(FV_VL, p->shape->c - c);
        s.bias = j->bias ? vf_load_n(j->bias + c, s.channels) : vf_zero();
        s.w = weight + c;
        for (int64_t i = 0; i < pieces; i++) { /* strips of nearly equal length */
            const int64_t first = i * w->count / pieces, end = (i + 1) * w->count / pieces;
            s.x = x + first * x_step + c;
            s.y = y + first * s.y_step + c;
            run[end - first - 1](&s);
        }
    }
}

static void run_phase(const job *j, const unit *u, const fv_conv_axis *h, const fv_conv_axis *w, const float *window) {
    const plan *p = &j->p;
    const int64_t pixel = p->padded_c, row = p->units.window[1] * pixel, rows = fv_min64(u->rows, h->count - u->row);
    strip s = {
        .taps = {h->taps, w->taps},
        .x_tap = {h->tap_step * row, w->tap_step * pixel},
        .w_tap = {h->weight_step * p->shape->s * pixel, w->weight_step * pixel},
        .x_step = w->source_step * pixel,
        .y_step = w->result_step * p->shape->c,
        .stream = j->stream,
    };
    for (int64_t i = 0; i < u->images; i++) {
        for (int64_t a = 0; a < rows; a++) {
            const int64_t x_row = i * p->units.window[0] + a * h->source_step + h->tap_first - p->units.first[0];
            const int64_t y_row = (u->image + i) * p->result[0] + (u->row + a) * h->result_step + h->result_first;
            s.x = window + x_row * row + (w->tap_first - p->units.first[1]) * pixel;
            s.w = j->taps + (h->weight_first * p->shape->s + w->weight_first) * pixel;
            run_row(j, w, s, j->result + (y_row * p->result[1] + w->result_first) * p->shape->c, s.x_step);
        }
    }
}

static void unit_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *window = j->scratch + (size_t)thread * p->window_floats;
    const unit u = open_unit(j, tile, window);
    for (int64_t a = 0; a < p->phases[0]; a++) {
        const fv_conv_axis h = fv_conv_phase(p->shape, p->kind, 0, a);
        for (int64_t b = 0; b < p->phases[1]; b++) {
            const fv_conv_axis w = fv_conv_phase(p->shape, p->kind, 1, b);
            run_phase(j, &u, &h, &w, window);
        }
    }
    if (j->stream) vf_stream_end();
}

static job open_job(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, bool gradient) {
    job j = {.p = make_plan(s, kind, gradient, fv_pool_threads(c->pool))};
    j.taps = (float *)((char *)c->workspace + j.p.weight_at);
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
    j.stream = bytes >= STREAM_BYTES && s->c % FV_VL == 0 && (uintptr_t)result % (FV_VL * sizeof(float)) == 0;
    memset(j.taps, 0, (size_t)(s->r * s->s * p->padded_c) * sizeof *j.taps);
    CPU(transpose_matrix)(j.taps, p->padded_c, weight, s->r * s->s, s->c, s->r * s->s);
    fv_pool_run(c->pool, p->units.image_units * p->units.bands, unit_tile, &j);
}

/* ---------------------------------------------------------------- gradient of the weights */

/* sums[t] += sum over rows and columns of dy * x at tap t, for `taps` taps and one vector of channels. */
typedef struct tap_sums {
    const float *x, *dy;
    const ptrdiff_t *tap;
    int64_t images, rows, columns;
    ptrdiff_t x_image, x_row, x_step, dy_step; /* dy rows and images follow each other */
    float *sums;
    ptrdiff_t sums_step;
    int channels;
} tap_sums;

FV_INLINE void tap_sums_run(const tap_sums *s, const int taps, const bool full) {
    vf acc[MAX_TAPS];
    ptrdiff_t tap[MAX_TAPS];
    FV_UNROLL_ALL for (int t = 0; t < taps; t++) {
        acc[t] = vf_load(s->sums + t * s->sums_step);
        tap[t] = s->tap[t];
    }
    const float *dy = s->dy;
    for (int64_t i = 0; i < s->images; i++) {
        for (int64_t r = 0; r < s->rows; r++) {
            const float *x = s->x + i * s->x_image + r * s->x_row;
            for (int64_t q = 0; q < s->columns; q++, x += s->x_step, dy += s->dy_step) {
                const vf g = full ? vf_load(dy) : vf_load_n(dy, s->channels);
                FV_UNROLL_ALL for (int t = 0; t < taps; t++) acc[t] = vf_fma(vf_load(x + tap[t]), g, acc[t]);
            }
        }
    }
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

static void sum_unit(const job *j, const unit *u, const float *window, float *sums) {
    static void (*const run[])(const tap_sums *) = {tap_sums_1, tap_sums_2, tap_sums_3, tap_sums_4, tap_sums_5,
                                                    tap_sums_6, tap_sums_7, tap_sums_8, tap_sums_9};
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t pixel = p->padded_c, row = p->units.window[1] * pixel, taps = s->r * s->s;
    const int64_t pieces = fv_ceil_div(taps, MAX_TAPS);
    for (int64_t c = 0; c < s->c; c += FV_VL) {
        for (int64_t i = 0; i < pieces; i++) {
            const int64_t first = i * taps / pieces, end = (i + 1) * taps / pieces;
            ptrdiff_t tap[MAX_TAPS];
            for (int64_t t = first; t < end; t++)
                tap[t - first] = t / s->s * s->dilation[0] * row + t % s->s * s->dilation[1] * pixel;
            const tap_sums call = {
                .x = window + c,
                .dy = j->dy + (u->image * s->oh + u->row) * s->ow * s->c + c,
                .tap = tap,
                .images = u->images,
                .rows = u->rows,
                .columns = s->ow,
                .x_image = p->units.window[0] * row,
                .x_row = s->stride[0] * row,
                .x_step = s->stride[1] * pixel,
                .dy_step = s->c,
                .sums = sums + first * pixel + c,
                .sums_step = pixel,
                .channels = (int)fv_min64(FV_VL, s->c - c),
            };
            run[end - first - 1](&call);
        }
    }
}

static void sum_part(void *arg, int64_t part, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t units = p->units.image_units * p->units.bands, floats = p->shape->r * p->shape->s * p->padded_c;
    float *sums = j->taps + part * floats, *window = j->scratch + (size_t)thread * p->window_floats;
    memset(sums, 0, (size_t)floats * sizeof *sums);
    for (int64_t i = part * units / p->parts; i < (part + 1) * units / p->parts; i++) {
        const unit u = open_unit(j, i, window);
        sum_unit(j, &u, window, sums);
    }
}

void CPU(depthwise_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw) {
    job j = open_job(c, s, FV_CONV_FORWARD, true);
    const plan *p = &j.p;
    j.source = x;
    j.dy = dy;
    fv_pool_run(c->pool, p->parts, sum_part, &j);
    const int64_t taps = s->r * s->s, floats = taps * p->padded_c;
    for (int64_t part = 1; part < p->parts; part++)
        for (int64_t i = 0; i < floats; i += FV_VL)
            vf_store(j.taps + i, vf_load(j.taps + i) + vf_load(j.taps + part * floats + i));
    CPU(transpose_matrix)(dw, taps, j.taps, p->padded_c, taps, s->c);
}
