/* norm.c: layer norm (Ba et al. 2016) and group norm (Wu & He 2018). Variances are taken around the mean in a second
 * pass over data in cache, and the mean's rounding error is taken out again. */
#include "core/cpu/kernels/tile.h"

#define FLUSH 64 /* rows that are summed in float before they go to a double */
/* Rows of layer norm at a time: while one waits for the sum of its lanes, others go on. Only where it is wanted most,
 * for it is three times the code. */
#if (defined(FV_ISA_avx512) || defined(FV_ISA_avx2)) && !defined(FV_BF16_DATA) && !defined(FV_F16_DATA)
enum { ROWS = 4 };
#else
enum { ROWS = 1 };
#endif

/* ---------------------------------------------------------------- layer norm: x [rows, c] */

typedef struct layer_args {
    const fv_elem *x;
    const float *gamma, *beta;
    fv_elem *y;
    float *mean, *rstd;
    int64_t rows, c, tile;
    double eps;
} layer_args;

static double row_sum(const fv_elem *x, int64_t c) {
    vf s[2] = {vf_zero(), vf_zero()};
    int64_t j = 0;
    for (; j + 2 * FV_VL <= c; j += 2 * FV_VL) {
        fv_prefetch(x + j);
        fv_prefetch(x + j + FV_VL);
        s[0] += vf_load(x + j);
        s[1] += vf_load(x + j + FV_VL);
    }
    for (; j < c; j += FV_VL) s[0] += vf_load_n(x + j, (int)fv_min64(c - j, FV_VL));
    return vf_sum(s[0] + s[1]);
}

/* Sum of x - mean into *first, of its squares into the result. */
static double row_squares(const fv_elem *x, int64_t c, float mean, double *first) {
    const vf m = vf_set1(mean);
    vf s1 = vf_zero(), s2 = vf_zero();
    int64_t j = 0;
    for (; j + FV_VL <= c; j += FV_VL) {
        vf d = vf_load(x + j) - m;
        s1 += d;
        s2 = vf_fma(d, d, s2);
    }
    int n = (int)(c - j);
    if (n) {
        vf d = vf_first(vf_load_n(x + j, n) - m, n);
        s1 += d;
        s2 = vf_fma(d, d, s2);
    }
    *first = vf_sum(s1);
    return vf_sum(s2);
}

typedef struct row_scale { /* y = (x - mean) * rstd + offset, then gamma and beta */
    vf mean, rstd, offset;
} row_scale;

/* n lanes of a row from j on. */
FV_INLINE void layer_vector(const layer_args *a, const row_scale *r, const fv_elem *x, fv_elem *y, int64_t j, int n) {
    vf v = vf_fma(vf_load_n(x + j, n) - r->mean, r->rstd, r->offset);
    if (a->gamma) v *= vf_load_n(a->gamma + j, n);
    if (a->beta) v += vf_load_n(a->beta + j, n);
    vf_store_n(y + j, v, n);
}
FV_INLINE void layer_row(const layer_args *a, int64_t row, const row_scale *r) {
    const fv_elem *x = a->x + row * a->c;
    fv_elem *y = a->y + row * a->c;
    int64_t j = 0;
    for (; j + FV_VL <= a->c; j += FV_VL) {
        fv_prefetch(y + j);
        layer_vector(a, r, x, y, j, FV_VL);
    }
    if (j < a->c) layer_vector(a, r, x, y, j, (int)(a->c - j));
}

FV_INLINE void layer_rows(const layer_args *all, int64_t row, const int rows) {
    const layer_args own = *all, *a = &own; /* which no store can change */
    const double c = (double)a->c;
    float rough[ROWS];
    double first[ROWS], squares[ROWS];
    row_scale scale[ROWS];
    for (int i = 0; i < rows; i++) rough[i] = (float)(row_sum(a->x + (row + i) * a->c, a->c) / c);
    for (int i = 0; i < rows; i++) squares[i] = row_squares(a->x + (row + i) * a->c, a->c, rough[i], &first[i]);
    for (int i = 0; i < rows; i++) {
        const double mean = rough[i] + first[i] / c;
        const double rstd = 1.0 / sqrt((squares[i] - first[i] * first[i] / c) / c + a->eps);
        if (a->mean) a->mean[row + i] = (float)mean;
        if (a->rstd) a->rstd[row + i] = (float)rstd;
        scale[i] = (row_scale){vf_set1(rough[i]), vf_set1((float)rstd), vf_set1((float)(-first[i] / c * rstd))};
    }
    for (int i = 0; a->y && i < rows; i++) layer_row(a, row + i, &scale[i]);
}

static void layer_tile(void *arg, int64_t tile, int thread) {
    const layer_args *a = arg;
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    (void)thread;
    int64_t i = r.begin;
    for (; i + ROWS <= r.end; i += ROWS) layer_rows(a, i, ROWS);
    for (; ROWS > 1 && i < r.end; i++) layer_rows(a, i, 1);
}

void CPU(layer_norm)(const fv_call *c) {
    const fv_type *t = &c->in[0].type;
    layer_args a = {.x = c->in[0].data,
                    .gamma = fv_operand(c, 1),
                    .beta = fv_operand(c, 2),
                    .y = c->out[0].data,
                    .mean = fv_result_of(c, 1),
                    .rstd = fv_result_of(c, 2),
                    .rows = fv_rows(t),
                    .c = fv_last(t),
                    .tile = fv_tile_rows(fv_last(t)),
                    .eps = c->attr->norm.eps};
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile), layer_tile, &a);
}

/* ---------------------------------------------------------------- layer norm, backward
 * dx = rstd (g - mean of g - xhat * mean of g xhat) + residual, g = dy gamma, xhat = (x - mean) rstd
 * workspace per tile: dgamma, dbeta [c] in double, then the same in float */

typedef struct layer_bwd_args {
    const fv_elem *dy, *x, *residual; /* residual: NULL, or may be dx */
    const float *mean, *rstd, *gamma;
    fv_elem *dx;
    int64_t rows, c, tile, tiles;
    bool sums; /* dgamma or dbeta is wanted */
    char *workspace;
    size_t stride; /* bytes per tile */
} layer_bwd_args;

static size_t layer_bwd_stride(int64_t c) {
    return fv_lines((size_t)c * 2 * (sizeof(double) + sizeof(float)));
}

typedef struct bwd_sums {
    vf g[ROWS], gx[ROWS]; /* lanes of the rows' sums of g and g xhat */
    float *dgamma, *dbeta;
} bwd_sums;

/* n lanes of some rows from j on. */
FV_INLINE void layer_bwd_add(const layer_bwd_args *a, bwd_sums *s, int64_t row, const int rows, int64_t j, int n) {
    const vf gamma = a->gamma ? vf_load_n(a->gamma + j, n) : vf_set1(1.0f);
    vf dgamma = vf_zero(), dbeta = vf_zero();
    for (int i = 0; i < rows; i++) {
        const int64_t at = (row + i) * a->c + j;
        const vf d = vf_load_n(a->dy + at, n),
                 xhat = (vf_load_n(a->x + at, n) - vf_set1(a->mean[row + i])) * vf_set1(a->rstd[row + i]),
                 dxhat = d * xhat;
        fv_prefetch(a->dy + at);
        fv_prefetch(a->x + at);
        dgamma += dxhat;
        dbeta += d;
        s->g[i] = vf_fma(d, gamma, s->g[i]); /* d is 0 in the lanes past n */
        s->gx[i] = vf_fma(dxhat, gamma, s->gx[i]);
    }
    if (!a->sums) return;
    vf_store_n(s->dgamma + j, vf_load_n(s->dgamma + j, n) + dgamma, n);
    vf_store_n(s->dbeta + j, vf_load_n(s->dbeta + j, n) + dbeta, n);
}

typedef struct row_gradient { /* dx = rstd * g + slope * (x - mean) + offset */
    vf mean, rstd, slope, offset;
} row_gradient;

FV_INLINE void layer_bwd_vector(const layer_bwd_args *a, const row_gradient *r, int64_t row, int64_t j, int n) {
    const int64_t at = row * a->c + j;
    vf g = vf_load_n(a->dy + at, n);
    if (a->gamma) g *= vf_load_n(a->gamma + j, n);
    vf v = vf_fma(r->rstd, g, vf_fma(r->slope, vf_load_n(a->x + at, n) - r->mean, r->offset));
    if (a->residual) v += vf_load_n(a->residual + at, n);
    vf_store_n(a->dx + at, v, n);
}
FV_INLINE void layer_bwd_row(const layer_bwd_args *a, int64_t row, double g, double gx) {
    const double rs = a->rstd[row], c = (double)a->c;
    const row_gradient r = {vf_set1(a->mean[row]), vf_set1((float)rs), vf_set1((float)(-rs * rs * gx / c)),
                            vf_set1((float)(-rs * g / c))};
    int64_t j = 0;
    for (; j + FV_VL <= a->c; j += FV_VL) {
        if (a->residual) fv_prefetch(a->residual + row * a->c + j);
        fv_prefetch(a->dx + row * a->c + j);
        layer_bwd_vector(a, &r, row, j, FV_VL);
    }
    if (j < a->c) layer_bwd_vector(a, &r, row, j, (int)(a->c - j));
}

/* dx of some rows; their dgamma, dbeta are added to sums [2][c]. */
FV_INLINE void layer_bwd_rows(const layer_bwd_args *all, int64_t row, const int rows, float *sums) {
    const layer_bwd_args own = *all, *a = &own; /* which no store can change */
    bwd_sums s = {.dgamma = sums, .dbeta = sums + a->c};
    for (int i = 0; i < rows; i++) s.g[i] = s.gx[i] = vf_zero();
    int64_t j = 0;
    for (; j + FV_VL <= a->c; j += FV_VL) layer_bwd_add(a, &s, row, rows, j, FV_VL);
    if (j < a->c) layer_bwd_add(a, &s, row, rows, j, (int)(a->c - j));
    for (int i = 0; a->dx && i < rows; i++) layer_bwd_row(a, row + i, vf_sum(s.g[i]), vf_sum(s.gx[i]));
}

static void flush_sums(double *to, float *from, int64_t n) {
    for (int64_t j = 0; j < n; j++) {
        to[j] += from[j];
        from[j] = 0;
    }
}

static void layer_bwd_tile(void *arg, int64_t tile, int thread) {
    const layer_bwd_args *a = arg;
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    double *total = (double *)(void *)(a->workspace + (size_t)tile * a->stride);
    float *sum = (float *)(total + 2 * a->c);
    (void)thread;
    if (a->sums) memset(total, 0, (size_t)a->c * 2 * (sizeof(double) + sizeof(float)));
    for (int64_t i = r.begin; i < r.end;) {
        if (ROWS == 1 || i + ROWS <= r.end) layer_bwd_rows(a, i, ROWS, sum), i += ROWS;
        else layer_bwd_rows(a, i++, 1, sum);
        if (a->sums && ((i - r.begin) % FLUSH == 0 || i == r.end)) flush_sums(total, sum, 2 * a->c);
    }
}

void CPU(layer_norm_bwd)(const fv_call *c) {
    const fv_type *t = &c->in[1].type;
    float *dgamma = fv_result_of(c, 1), *dbeta = fv_result_of(c, 2);
    layer_bwd_args a = {.dy = c->in[0].data,
                        .x = c->in[1].data,
                        .mean = c->in[2].data,
                        .rstd = c->in[3].data,
                        .gamma = fv_operand(c, 4),
                        .residual = fv_operand(c, 5),
                        .dx = c->out[0].data,
                        .rows = fv_rows(t),
                        .c = fv_last(t),
                        .sums = dgamma || dbeta,
                        .workspace = c->workspace};
    a.tile = fv_partial_rows(a.rows, a.c);
    a.tiles = fv_ceil_div(a.rows, a.tile);
    a.stride = layer_bwd_stride(a.c);
    fv_pool_run(c->pool, a.tiles, layer_bwd_tile, &a);
    double *total = c->workspace;
    for (int64_t k = 1; a.sums && k < a.tiles; k++) {
        const double *part = (const double *)(const void *)(a.workspace + (size_t)k * a.stride);
        for (int64_t j = 0; j < 2 * a.c; j++) total[j] += part[j];
    }
    for (int64_t j = 0; j < a.c; j++) {
        if (dgamma) dgamma[j] = (float)total[j];
        if (dbeta) dbeta[j] = (float)total[a.c + j];
    }
}

/* ---------------------------------------------------------------- group norm: x [n, space, c], groups of channels
 * A tile is one sample. Sums are taken per channel, then joined per group.
 * workspace per sample: two sums [c] in double, four coefficients [c] in float */

typedef struct group_args {
    const fv_elem *x, *dy;
    const float *gamma, *beta;
    fv_elem *y;         /* backward: dx */
    float *mean, *rstd; /* [n, groups]; forward: NULL when not wanted */
    int64_t n, space, c, groups, cg;
    double eps;
    char *workspace;
    size_t stride;
} group_args;

static size_t group_stride(int64_t c) {
    return fv_lines((size_t)c * (2 * sizeof(double) + 4 * sizeof(float)));
}

static group_args group_args_of(const fv_call *c, const fv_type *t) {
    int64_t ch = fv_last(t), groups = c->attr->norm.groups;
    return (group_args){.y = c->out[0].data,
                        .n = t->dim[0],
                        .space = fv_rows(t) / fv_max64(t->dim[0], 1),
                        .c = ch,
                        .groups = groups,
                        .cg = ch / groups,
                        .eps = c->attr->norm.eps,
                        .workspace = c->workspace,
                        .stride = group_stride(ch)};
}

typedef enum sums_of { SUM_OF_X, SUM_OF_SQUARES, SUM_OF_GRADIENT } sums_of;

/* Per channel over rows: x into s0 / x - mean into s0 and its square into s1 / dy into s0 and dy (x - mean) into s1. */
FV_INLINE void column_sums(sums_of kind, const fv_elem *x, const fv_elem *dy, const float *mean, int64_t rows,
                           int64_t c, double *s0, double *s1) {
    memset(s0, 0, (size_t)c * sizeof *s0);
    memset(s1, 0, (size_t)c * sizeof *s1);
    for (int64_t begin = 0; begin < rows; begin += FLUSH)
        for (int64_t j = 0; j < c; j += FV_VL) {
            const int n = (int)fv_min64(c - j, FV_VL);
            const vf m = kind == SUM_OF_X ? vf_zero() : vf_load_n(mean + j, n);
            vf a = vf_zero(), b = vf_zero();
            for (int64_t i = begin; i < fv_min64(rows, begin + FLUSH); i++) {
                vf v = vf_load_n(x + i * c + j, n), d = v - m;
                vf g = kind == SUM_OF_GRADIENT ? vf_load_n(dy + i * c + j, n) : d;
                a += g;
                if (kind != SUM_OF_X) b = vf_fma(g, d, b);
            }
            float t0[FV_VL], t1[FV_VL];
            vf_store(t0, a);
            vf_store(t1, b);
            for (int k = 0; k < n; k++) {
                s0[j + k] += t0[k];
                s1[j + k] += t1[k];
            }
        }
}

static double group_total(const double *s, const group_args *a, int64_t g) {
    double total = 0;
    for (int64_t k = g * a->cg; k < (g + 1) * a->cg; k++) total += s[k];
    return total;
}

static void group_tile(void *arg, int64_t n, int thread) {
    const group_args *a = arg;
    const fv_elem *x = a->x + n * a->space * a->c;
    double *s0 = (double *)(void *)(a->workspace + (size_t)n * a->stride), *s1 = s0 + a->c;
    float *mean = (float *)(s1 + a->c), *scale = mean + a->c, *shift = scale + a->c;
    const double members = (double)(a->space * a->cg);
    (void)thread;
    column_sums(SUM_OF_X, x, NULL, NULL, a->space, a->c, s0, s1);
    for (int64_t g = 0; g < a->groups; g++) {
        const float rough = (float)(group_total(s0, a, g) / members);
        for (int64_t k = g * a->cg; k < (g + 1) * a->cg; k++) mean[k] = rough;
    }
    column_sums(SUM_OF_SQUARES, x, NULL, mean, a->space, a->c, s0, s1);
    for (int64_t g = 0; g < a->groups; g++) {
        const double first = group_total(s0, a, g), error = first / members;
        const double rstd = 1.0 / sqrt((group_total(s1, a, g) - first * error) / members + a->eps);
        if (a->mean) a->mean[n * a->groups + g] = (float)(mean[g * a->cg] + error);
        if (a->rstd) a->rstd[n * a->groups + g] = (float)rstd;
        for (int64_t k = g * a->cg; k < (g + 1) * a->cg; k++) {
            const double gamma = a->gamma ? a->gamma[k] : 1.0;
            scale[k] = (float)(gamma * rstd);
            shift[k] = (float)((a->beta ? a->beta[k] : 0.0) - error * gamma * rstd);
        }
    }
    for (int64_t i = 0; a->y && i < a->space; i++)
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int m = (int)fv_min64(a->c - j, FV_VL);
            vf d = vf_load_n(x + i * a->c + j, m) - vf_load_n(mean + j, m);
            vf_store_n(a->y + (n * a->space + i) * a->c + j,
                       vf_fma(d, vf_load_n(scale + j, m), vf_load_n(shift + j, m)), m);
        }
}

void CPU(group_norm)(const fv_call *c) {
    group_args a = group_args_of(c, &c->in[0].type);
    a.x = c->in[0].data;
    a.gamma = fv_operand(c, 1);
    a.beta = fv_operand(c, 2);
    a.mean = fv_result_of(c, 1);
    a.rstd = fv_result_of(c, 2);
    fv_pool_run(c->pool, a.n, group_tile, &a);
}

/* dx = scale * dy + slope * (x - mean) + offset; leaves the sample's dbeta and dgamma in s0, s1. */
static void group_bwd_tile(void *arg, int64_t n, int thread) {
    const group_args *a = arg;
    const fv_elem *x = a->x + n * a->space * a->c, *dy = a->dy + n * a->space * a->c;
    double *s0 = (double *)(void *)(a->workspace + (size_t)n * a->stride), *s1 = s0 + a->c;
    float *mean = (float *)(s1 + a->c), *scale = mean + a->c, *slope = scale + a->c, *offset = slope + a->c;
    const double members = (double)(a->space * a->cg);
    (void)thread;
    for (int64_t k = 0; k < a->c; k++) mean[k] = a->mean[n * a->groups + k / a->cg];
    column_sums(SUM_OF_GRADIENT, x, dy, mean, a->space, a->c, s0, s1);
    for (int64_t g = 0; g < a->groups; g++) {
        const double rstd = a->rstd[n * a->groups + g];
        double g0 = 0, g1 = 0;
        for (int64_t k = g * a->cg; k < (g + 1) * a->cg; k++) {
            const double gamma = a->gamma ? a->gamma[k] : 1.0;
            s1[k] *= rstd;
            g0 += gamma * s0[k];
            g1 += gamma * s1[k];
            scale[k] = (float)(gamma * rstd);
        }
        for (int64_t k = g * a->cg; k < (g + 1) * a->cg; k++) {
            slope[k] = (float)(-rstd * rstd * g1 / members);
            offset[k] = (float)(-rstd * g0 / members);
        }
    }
    for (int64_t i = 0; a->y && i < a->space; i++)
        for (int64_t j = 0; j < a->c; j += FV_VL) {
            const int m = (int)fv_min64(a->c - j, FV_VL);
            vf d = vf_load_n(x + i * a->c + j, m) - vf_load_n(mean + j, m);
            vf v = vf_fma(vf_load_n(slope + j, m), d, vf_load_n(offset + j, m));
            v = vf_fma(vf_load_n(scale + j, m), vf_load_n(dy + i * a->c + j, m), v);
            vf_store_n(a->y + (n * a->space + i) * a->c + j, v, m);
        }
}

void CPU(group_norm_bwd)(const fv_call *c) {
    group_args a = group_args_of(c, &c->in[1].type);
    float *dgamma = fv_result_of(c, 1), *dbeta = fv_result_of(c, 2);
    a.dy = c->in[0].data;
    a.x = c->in[1].data;
    a.mean = c->in[2].data;
    a.rstd = c->in[3].data;
    a.gamma = fv_operand(c, 4);
    fv_pool_run(c->pool, a.n, group_bwd_tile, &a);
    double *total = c->workspace;
    for (int64_t n = 1; n < a.n; n++) {
        const double *part = (const double *)(const void *)(a.workspace + (size_t)n * a.stride);
        for (int64_t j = 0; j < 2 * a.c; j++) total[j] += part[j];
    }
    for (int64_t k = 0; k < a.c; k++) {
        if (dbeta) dbeta[k] = (float)total[k];
        if (dgamma) dgamma[k] = (float)total[a.c + k];
    }
}

size_t CPU(norm_workspace)(const fv_graph *g, const fv_node *node) {
    fv_type t = fv_typeof(g, g->operands[node->first_operand]);
    int64_t c = fv_last(&t), rows = fv_rows(&t);
    switch (node->op) {
    case FV_OP_LAYER_NORM_BWD: return layer_bwd_stride(c) * (size_t)fv_ceil_div(rows, fv_partial_rows(rows, c));
    case FV_OP_GROUP_NORM:
    case FV_OP_GROUP_NORM_BWD: return group_stride(c) * (size_t)t.dim[0];
    default: return 0;
    }
}
