/* conv_few.c: forward convolution (and linear) with few positions and many weights, as in inference on one picture.
 * There, packing the weights would cost more than the arithmetic; so they are read once, as they are: y[p][k] is a dot
 * product of runs that are contiguous both in a window of x and in w [k,r,s,c], with vectors along the run. */
#include "core/cpu/kernels/activate.h"
#include "core/cpu/kernels/conv.h"

enum {
    MAX_POSITIONS = 256,
    DEPTH_PER_POSITION = 8, /* at least so many weights per output channel: shorter sums are cheap to pack */
    MAX_WINDOW = 512 << 10, /* floats */
    ROWS = 4,               /* of a tile */
    COLUMNS = FV_VL == 16 ? 6 : 2,
};

typedef struct plan {
    const fv_conv_shape *shape;
    fv_conv_axis axis[2];
    int64_t window[2];         /* extent of the window of a picture */
    int64_t cg, kg, runs, run; /* runs per position and floats per run */
    int64_t positions, tiles;  /* tiles of output channels, per group */
    size_t offset_at, run_at, window_at, total;
} plan;

static plan make_plan(const fv_conv_shape *s) {
    plan p = {.shape = s, .cg = s->c / s->groups, .kg = s->k / s->groups};
    for (int a = 0; a < 2; a++) {
        p.axis[a] = CPU(conv_forward_axis)(s, a);
        p.window[a] = (p.axis[a].count - 1) * p.axis[a].source_step + (p.axis[a].taps - 1) * p.axis[a].tap_step + 1;
    }
    const bool merged = s->groups == 1 && s->dilation[1] == 1;
    p.runs = merged ? s->r : s->r * s->s;
    p.run = merged ? s->s * s->c : p.cg;
    p.positions = s->n * s->oh * s->ow;
    p.tiles = fv_ceil_div(p.kg, COLUMNS);
    p.offset_at = fv_workspace_add(&p.total, (size_t)p.positions * sizeof(ptrdiff_t));
    p.run_at = fv_workspace_add(&p.total, (size_t)p.runs * sizeof(ptrdiff_t));
    p.window_at = fv_workspace_add(&p.total, (size_t)(s->n * p.window[0] * p.window[1] * s->c) * sizeof(float));
    return p;
}

bool CPU(conv_few_fits)(const fv_conv_shape *s) {
    const int64_t positions = s->n * s->oh * s->ow, depth = s->r * s->s * (s->c / s->groups);
    if (s->pairs || positions > MAX_POSITIONS || depth < positions * DEPTH_PER_POSITION) return false;
    const plan p = make_plan(s);
    return s->n * p.window[0] * p.window[1] * s->c <= MAX_WINDOW;
}

size_t CPU(conv_few_workspace)(const fv_conv_shape *s) {
    return make_plan(s).total;
}

typedef struct job {
    plan p;
    const float *x, *weight, *bias;
    float *y;
    ptrdiff_t *offset, *run; /* of a position and of a run, in the windows */
    float *windows;
} job;

static void copy_tile(void *arg, int64_t image, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const fv_conv_window win = {
        .x = j->x,
        .h = s->h,
        .w = s->w,
        .c = s->c,
        .image = image,
        .images = 1,
        .row = p->axis[0].tap_first,
        .col = p->axis[1].tap_first,
        .window = {p->window[0], p->window[1]},
        .channels = s->c,
        .pitch = s->c,
    };
    CPU(conv_copy_window)(&win, j->windows + image * p->window[0] * p->window[1] * s->c);
}

/* sum[i][k] = dot product of position i and output channel k of a tile. */
FV_INLINE void dot_tile(const job *j, const float *const *row, const float *const *weight, float (*sum)[COLUMNS]) {
    const plan *p = &j->p;
    vf acc[ROWS][COLUMNS];
    FV_UNROLL_ALL for (int i = 0; i < ROWS; i++) {
        FV_UNROLL_ALL for (int k = 0; k < COLUMNS; k++) acc[i][k] = vf_zero();
    }
    for (int64_t r = 0; r < p->runs; r++) {
        const ptrdiff_t x = j->run[r], w = r * p->run;
        for (int64_t d = 0; d < p->run; d += FV_VL) {
            const int n = (int)fv_min64(FV_VL, p->run - d);
            vf column[COLUMNS];
            FV_UNROLL_ALL for (int k = 0; k < COLUMNS; k++) {
                const float *at = weight[k] + w + d;
                column[k] = n == FV_VL ? vf_load(at) : vf_load_n(at, n);
            }
            FV_UNROLL_ALL for (int i = 0; i < ROWS; i++) {
                const float *at = row[i] + x + d;
                const vf v = n == FV_VL ? vf_load(at) : vf_load_n(at, n);
                FV_UNROLL_ALL for (int k = 0; k < COLUMNS; k++) acc[i][k] = vf_fma(v, column[k], acc[i][k]);
            }
        }
    }
    FV_UNROLL_ALL for (int i = 0; i < ROWS; i++) {
        FV_UNROLL_ALL for (int k = 0; k < COLUMNS; k++) sum[i][k] = vf_sum(acc[i][k]);
    }
}

static void add_up(const job *j, int64_t row, int64_t k, float sum) {
    const float *residual = j->p.shape->residual;
    if (j->bias) sum += j->bias[k];
    if (residual) sum += residual[row + k];
    j->y[row + k] = sum;
}

/* COLUMNS output channels at all positions. Unused places of a tile repeat the last row or channel. */
static void channel_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    const job *j = arg;
    const plan *p = &j->p;
    const fv_conv_shape *s = p->shape;
    const int64_t group = tile / p->tiles, first = tile % p->tiles * COLUMNS, depth = s->r * s->s * p->cg;
    const int columns = (int)fv_min64(COLUMNS, p->kg - first);
    const int64_t k0 = group * p->kg + first;
    const float *weight[COLUMNS], *row[ROWS];
    for (int k = 0; k < COLUMNS; k++) weight[k] = j->weight + (k0 + (k < columns ? k : columns - 1)) * depth;
    for (int64_t i = 0; i < p->positions; i += ROWS) {
        float sum[ROWS][COLUMNS];
        const int rows = (int)fv_min64(ROWS, p->positions - i);
        for (int r = 0; r < ROWS; r++) row[r] = j->windows + j->offset[i + (r < rows ? r : rows - 1)] + group * p->cg;
        dot_tile(j, row, weight, sum);
        for (int r = 0; r < rows; r++)
            for (int k = 0; k < columns; k++) add_up(j, (i + r) * s->k, k0 + k, sum[r][k]);
    }
    CPU(finish)(s->finish, 0, p->positions, k0, columns);
    for (int64_t i = 0; s->act && i < p->positions; i++)
        CPU(activate)(s->act, j->y + i * s->k + k0, j->y + i * s->k + k0, columns);
}

void CPU(conv_few)(const fv_call *c, const fv_conv_shape *s, const float *x, const float *weight, const float *bias,
                   float *y) {
    job j = {.p = make_plan(s), .x = x, .weight = weight, .bias = bias, .y = y};
    const plan *p = &j.p;
    char *work = c->workspace;
    j.offset = (ptrdiff_t *)(work + p->offset_at);
    j.run = (ptrdiff_t *)(work + p->run_at);
    j.windows = (float *)(work + p->window_at);
    const int64_t row = p->window[1] * s->c;
    ptrdiff_t *offset = j.offset;
    for (int64_t i = 0; i < s->n; i++)
        for (int64_t a = 0; a < s->oh; a++)
            for (int64_t b = 0; b < s->ow; b++)
                *offset++ = (i * p->window[0] + a * s->stride[0]) * row + b * s->stride[1] * s->c;
    for (int64_t r = 0; r < p->runs; r++) {
        const int64_t across = p->runs / s->r; /* runs per kernel row */
        j.run[r] = r / across * s->dilation[0] * row + r % across * s->dilation[1] * s->c;
    }
    fv_pool_run(p->positions * s->c < 16384 ? NULL : c->pool, s->n, copy_tile, &j);
    fv_pool_run(c->pool, p->tiles * s->groups, channel_tile, &j);
}
