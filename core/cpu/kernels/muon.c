/* muon.c: Muon's update (core/ref/muon.inc says what it computes). The matrices of a node take each stage together, so
 * that small ones fill the threads, too:
 *
 *   momentum    spans of rows: buffer and direction d, sums of squares of d and of the weights
 *   scale       x [m][n] = d / |d|, turned where it has more rows than columns, so that m <= n
 *   iterations  gram = x x^T, poly = a I + b gram + c gram gram, x = poly x; each product packs its right side first
 *   apply       spans of rows: the new weights
 *
 *   workspace   [ matrix.. | span.. | per matrix: x, y [m][n], gram, poly [m][m], packed ] */
#include "core/cpu/kernels/gemm.h"

enum {
    BLOCK_ROWS = 96, /* a multiple of FV_MR */
    BLOCK_DEPTH = 384,
    CHUNK_PANELS = 4,
};

typedef struct matrix {
    int64_t rows, columns, m, n;
    float *weight, *buffer; /* [rows][columns]; buffer NULL: no momentum */
    const float *grad;
    float *x, *y, *gram, *poly, *packed;
    float scale, keep; /* 1 / |d|; factor of the weights */
} matrix;

typedef struct span { /* rows of a matrix */
    int32_t matrix;
    int64_t first, count;
    double squares, weight_squares;
} span;

/* One product of every matrix. */
typedef enum muon_product { GRAM, POLY, NEXT } muon_product;

typedef struct job {
    const fv_update_attr *attr;
    matrix *matrices;
    span *spans;
    int64_t n_spans;
    muon_product stage;
    float clip, lr;
} job;

/* ---------------------------------------------------------------- workspace */

static matrix shape_of(fv_type t) {
    matrix m = {.rows = t.dim[0]};
    m.columns = m.rows ? fv_count(t) / m.rows : 0;
    m.m = fv_min64(m.rows, m.columns);
    m.n = fv_max64(m.rows, m.columns);
    return m;
}

static int64_t spans_of(const matrix *m) {
    return m->columns ? fv_ceil_div(m->rows, fv_tile_rows(m->columns)) : 0;
}

static size_t packed_floats(const matrix *m) {
    size_t gram = fv_packed_floats(m->m, m->n), next = fv_packed_floats(m->n, m->m);
    return gram > next ? gram : next; /* poly packs m columns of m: never more */
}

/* Floats of a matrix, for all five of its parts. */
static void place(matrix *m, char *work, size_t *total) {
    size_t full = (size_t)(m->m * m->n) * sizeof(float), square = (size_t)(m->m * m->m) * sizeof(float);
    size_t at[5] = {fv_workspace_add(total, full), fv_workspace_add(total, full), fv_workspace_add(total, square),
                    fv_workspace_add(total, square), fv_workspace_add(total, packed_floats(m) * sizeof(float))};
    if (!work) return;
    m->x = (float *)(work + at[0]);
    m->y = (float *)(work + at[1]);
    m->gram = (float *)(work + at[2]);
    m->poly = (float *)(work + at[3]);
    m->packed = (float *)(work + at[4]);
}

size_t CPU(muon_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op != FV_OP_MUON_UPDATE) return 0;
    const int count = node->attr.update.count;
    size_t total = 0;
    int64_t spans = 0;
    fv_workspace_add(&total, (size_t)count * sizeof(matrix));
    for (int t = 0; t < count; t++) {
        matrix m = shape_of(fv_typeof(g, g->operands[node->first_operand + 1 + t]));
        spans += spans_of(&m);
        place(&m, NULL, &total);
    }
    fv_workspace_add(&total, (size_t)spans * sizeof(span));
    return total;
}

static job prepare(const fv_call *c) {
    const int count = c->attr->update.count;
    char *work = c->workspace;
    size_t total = 0;
    job j = {.attr = &c->attr->update, .clip = 1};
    j.matrices = (matrix *)(work + fv_workspace_add(&total, (size_t)count * sizeof(matrix)));
    for (int t = 0; t < count; t++) {
        matrix *m = &j.matrices[t];
        *m = shape_of(c->in[1 + t].type);
        m->weight = c->in[1 + t].data;
        m->grad = c->in[1 + count + t].data;
        m->buffer = c->attr->update.momentum != 0 ? fv_operand(c, 1 + 2 * count + t) : NULL;
        place(m, work, &total);
    }
    j.spans = (span *)(work + total);
    for (int t = 0; t < count; t++) {
        const matrix *m = &j.matrices[t];
        const int64_t step = m->columns ? fv_tile_rows(m->columns) : 1;
        for (int64_t i = 0; m->columns && i < m->rows; i += step)
            j.spans[j.n_spans++] = (span){.matrix = t, .first = i, .count = fv_min64(step, m->rows - i)};
    }
    return j;
}

/* ---------------------------------------------------------------- momentum and scale */

static double sum_of(vf v) {
    double sum = 0;
    for (int l = 0; l < FV_VL; l++) sum += (double)v[l];
    return sum;
}

/* The direction goes to y, [rows][columns]. */
static void momentum_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    span *s = &j->spans[tile];
    const matrix *m = &j->matrices[s->matrix];
    const int64_t begin = s->first * m->columns, end = begin + s->count * m->columns;
    const vf momentum = vf_set1((float)j->attr->momentum), clip = vf_set1(j->clip);
    double squares = 0, weights = 0;
    (void)thread;
    for (int64_t i = begin; i < end; i += FV_VL) {
        const int n = (int)fv_min64(end - i, FV_VL);
        const vf w = vf_load_n(m->weight + i, n);
        vf g = clip * vf_load_n(m->grad + i, n);
        if (m->buffer) {
            const vf b = vf_fma(momentum, vf_load_n(m->buffer + i, n), g);
            vf_store_n(m->buffer + i, b, n);
            g = j->attr->nesterov ? vf_fma(momentum, b, g) : b;
        }
        vf_store_n(m->y + i, g, n);
        squares += sum_of(g * g);
        weights += sum_of(w * w);
    }
    s->squares = squares;
    s->weight_squares = weights;
}

static void scale_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const span *s = &j->spans[tile];
    const matrix *m = &j->matrices[s->matrix];
    const int64_t begin = s->first * m->columns, count = s->count * m->columns;
    const vf scale = vf_set1(m->scale);
    const bool turned = m->rows > m->columns;
    float *d = m->y + begin, *to = turned ? d : m->x + begin;
    (void)thread;
    for (int64_t i = 0; i < count; i += FV_VL) {
        const int n = (int)fv_min64(count - i, FV_VL);
        vf_store_n(to + i, scale * vf_load_n(d + i, n), n);
    }
    if (turned) CPU(transpose_matrix)(m->x + s->first, m->n, d, m->columns, s->count, m->columns);
}

/* Norms out of the spans' sums, in their order. */
static void find_scales(job *j, double lr, double decay) {
    const int count = j->attr->count;
    int64_t k = 0;
    for (int t = 0; t < count; t++) {
        matrix *m = &j->matrices[t];
        double squares = 0, weights = 0;
        for (; k < j->n_spans && j->spans[k].matrix == t; k++) {
            squares += j->spans[k].squares;
            weights += j->spans[k].weight_squares;
        }
        m->scale = (float)(1 / (sqrt(squares) + j->attr->eps));
        double norm = j->attr->renormalise && weights > 0 ? sqrt((double)m->rows / weights) : 1;
        m->keep = (float)(norm * (1 - lr * decay));
    }
}

/* ---------------------------------------------------------------- products */

/* y [m][columns] = left [m][depth] times right, which lies packed. */
typedef struct product {
    const float *left, *right;
    float *y;
    int64_t columns, depth, panels;
    ptrdiff_t depth_stride, column_stride; /* of the right side */
} product;

static product product_of(const matrix *m, muon_product stage) {
    product p;
    switch (stage) {
    case GRAM: p = (product){m->x, m->x, m->gram, m->m, m->n, 0, 1, m->n}; break;
    case POLY: p = (product){m->gram, m->gram, m->poly, m->m, m->m, 0, m->m, 1}; break;
    default: p = (product){m->poly, m->x, m->y, m->n, m->m, 0, m->n, 1}; break;
    }
    p.panels = fv_ceil_div(p.columns, FV_NR);
    return p;
}

/* The matrix that tile *tile belongs to, when each has as many as count says; *tile becomes its number there. */
static const matrix *matrix_of(const job *j, int64_t (*count)(const matrix *, muon_product), int64_t *tile) {
    const matrix *m = j->matrices;
    for (int64_t n; *tile >= (n = count(m, j->stage)); m++) *tile -= n;
    return m;
}

static int64_t all_tiles(const job *j, int64_t (*count)(const matrix *, muon_product)) {
    int64_t tiles = 0;
    for (int t = 0; t < j->attr->count; t++) tiles += count(&j->matrices[t], j->stage);
    return tiles;
}

static int64_t panel_count(const matrix *m, muon_product stage) {
    return product_of(m, stage).panels;
}

static int64_t block_count(const matrix *m, muon_product stage) {
    return fv_ceil_div(m->m, BLOCK_ROWS) * fv_ceil_div(product_of(m, stage).panels, CHUNK_PANELS);
}

static void pack_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const matrix *m = matrix_of(j, panel_count, &tile);
    const product p = product_of(m, j->stage);
    const int columns = (int)fv_min64(FV_NR, p.columns - tile * FV_NR);
    (void)thread;
    CPU(pack_panel)
    (m->packed + tile * FV_NR * p.depth, p.right + tile * FV_NR * p.column_stride, p.depth, columns, p.depth_stride,
     p.column_stride);
}

/* poly = a I + b gram + c poly, in the rows and columns of a tile. */
static void finish_poly(const matrix *m, int64_t row0, int64_t row1, int64_t column0, int64_t column1) {
    const vf b = vf_set1((float)FV_MUON_B), c = vf_set1((float)FV_MUON_C);
    for (int64_t i = row0; i < row1; i++) {
        float *poly = m->poly + i * m->m;
        for (int64_t k = column0; k < column1; k += FV_VL) {
            const int n = (int)fv_min64(column1 - k, FV_VL);
            vf_store_n(poly + k, vf_fma(b, vf_load_n(m->gram + i * m->m + k, n), c * vf_load_n(poly + k, n)), n);
        }
        if (i >= column0 && i < column1) poly[i] += (float)FV_MUON_A;
    }
}

static void block_tile(void *arg, int64_t tile, int thread) {
    static const ptrdiff_t no_tap = 0;
    const job *j = arg;
    const matrix *m = matrix_of(j, block_count, &tile);
    const product p = product_of(m, j->stage);
    const int64_t chunks = fv_ceil_div(p.panels, CHUNK_PANELS), row0 = tile / chunks * BLOCK_ROWS;
    const int64_t panel0 = tile % chunks * CHUNK_PANELS, panel1 = fv_min64(p.panels, panel0 + CHUNK_PANELS);
    ptrdiff_t x_off[BLOCK_ROWS], y_off[BLOCK_ROWS];
    fv_row_gemm g = {
        .x_off = x_off, .y_off = y_off, .rows = fv_min64(BLOCK_ROWS, m->m - row0), .tap = &no_tap, .taps = 1};
    (void)thread;
    for (int64_t i = 0; i < g.rows; i++) {
        x_off[i] = i * p.depth;
        y_off[i] = i * p.columns;
    }
    for (int64_t k = 0; k < p.depth; k += BLOCK_DEPTH) {
        g.depth = fv_min64(BLOCK_DEPTH, p.depth - k);
        g.accumulate = k > 0;
        g.x = p.left + row0 * p.depth + k;
        for (int64_t panel = panel0; panel < panel1; panel++) {
            g.columns = (int)fv_min64(FV_NR, p.columns - panel * FV_NR);
            g.b = m->packed + panel * FV_NR * p.depth + k * fv_panel_width(g.columns);
            g.y = p.y + row0 * p.columns + panel * FV_NR;
            CPU(row_gemm)(&g);
        }
    }
    if (j->stage == POLY) finish_poly(m, row0, row0 + g.rows, panel0 * FV_NR, fv_min64(p.columns, panel1 * FV_NR));
}

static void multiply_all(const fv_call *c, job *j, muon_product stage) {
    j->stage = stage;
    fv_pool_run(c->pool, all_tiles(j, panel_count), pack_tile, j);
    fv_pool_run(c->pool, all_tiles(j, block_count), block_tile, j);
}

/* ---------------------------------------------------------------- apply */

static void apply_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const span *s = &j->spans[tile];
    const matrix *m = &j->matrices[s->matrix];
    const int64_t begin = s->first * m->columns, end = begin + s->count * m->columns;
    const vf keep = vf_set1(m->keep), step = vf_set1(-j->lr);
    const float *x = m->x;
    (void)thread;
    if (m->rows > m->columns) { /* back from [columns][rows] */
        CPU(transpose_matrix)(m->y + begin, m->columns, m->x + s->first, m->n, m->m, s->count);
        x = m->y;
    }
    for (int64_t i = begin; i < end; i += FV_VL) {
        const int n = (int)fv_min64(end - i, FV_VL);
        vf_store_n(m->weight + i, vf_fma(step, vf_load_n(x + i, n), keep * vf_load_n(m->weight + i, n)), n);
    }
}

void CPU(muon_update)(const fv_call *c) {
    const fv_update_attr *a = &c->attr->update;
    const float *stats = fv_operand(c, 0);
    const double lr = c->step->lr[a->group];
    if (lr == 0 || (stats && stats[1] == 0)) return;
    job j = prepare(c);
    j.lr = (float)lr;
    j.clip = (float)(fv_step_unscale(c->step) * (stats && a->clip > 0 ? fmin(1.0, a->clip / (stats[0] + 1e-6)) : 1.0));
    fv_pool_run(c->pool, j.n_spans, momentum_tile, &j);
    find_scales(&j, lr, c->step->weight_decay[a->group]);
    fv_pool_run(c->pool, j.n_spans, scale_tile, &j);
    for (int step = 0; step < a->ns_steps; step++) {
        multiply_all(c, &j, GRAM);
        multiply_all(c, &j, POLY);
        multiply_all(c, &j, NEXT);
        for (int t = 0; t < a->count; t++) {
            float *x = j.matrices[t].x;
            j.matrices[t].x = j.matrices[t].y;
            j.matrices[t].y = x;
        }
    }
    fv_pool_run(c->pool, j.n_spans, apply_tile, &j);
}
