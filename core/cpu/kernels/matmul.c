/* matmul.c: matmul: a [...,m,k] or [...,k,m], b [...,k,n] or [...,n,k] -> y [...,m,n]; products over the leading
 * dimensions.
 *
 * Many products: each is one tile, b packed by the thread that needs it. Few: b is packed by all threads, then rows and
 * columns are cut into tiles. A transposed a is turned around block by block. */
#include "core/cpu/kernels/conv.h"

enum {
    BLOCK_ROWS = 144, /* a multiple of FV_MR */
    BLOCK_DEPTH = 384,
    MANY = 16, /* products that keep all threads busy */
    CHUNK_PANELS = 8,
};

typedef struct plan {
    int64_t products, m, n, k;
    bool transpose_a, transpose_b, many;
    int64_t panels, row_blocks, chunks;
    size_t packed_floats, turned_floats;
    size_t table_at, packed_at, turned_at, total;
} plan;

static plan make_plan(fv_type a, fv_type y, const fv_matmul_attr *attr, int threads) {
    plan p = {.products = 1, .transpose_a = attr->transpose_a, .transpose_b = attr->transpose_b};
    for (int i = 0; i < y.rank - 2; i++) p.products *= y.dim[i];
    p.m = y.dim[y.rank - 2];
    p.n = y.dim[y.rank - 1];
    p.k = a.dim[a.rank - (attr->transpose_a ? 2 : 1)];
    p.many = p.products >= MANY;
    p.panels = fv_ceil_div(p.n, FV_NR);
    p.row_blocks = fv_ceil_div(p.m, BLOCK_ROWS);
    p.chunks = p.many ? 1 : fv_ceil_div(p.panels, CHUNK_PANELS);
    p.packed_floats = fv_packed_floats(p.n, p.k);
    p.turned_floats = p.transpose_a ? (size_t)(BLOCK_ROWS * fv_min64(p.k, BLOCK_DEPTH)) : 0;
    p.table_at = fv_workspace_add(&p.total, 2 * BLOCK_ROWS * sizeof(ptrdiff_t));
    p.packed_at = fv_workspace_add(&p.total, p.packed_floats * (size_t)(p.many ? threads : 1) * sizeof(float));
    p.turned_at = fv_workspace_add(&p.total, p.turned_floats * (size_t)threads * sizeof(float));
    return p;
}

size_t CPU(matmul_workspace)(fv_type a, fv_type y, const fv_matmul_attr *attr, int threads) {
    return make_plan(a, y, attr, threads).total;
}

typedef struct job {
    plan p;
    const float *a, *b;
    float *y;
    int64_t product; /* few: the current one */
    ptrdiff_t *a_off, *y_off;
    float *packed, *turned;
} job;

static void pack_panel_of(const job *j, int64_t product, int64_t panel, float *packed) {
    const plan *p = &j->p;
    const float *b = j->b + product * p->k * p->n;
    const int columns = (int)fv_min64(FV_NR, p->n - panel * FV_NR);
    float *dst = packed + panel * FV_NR * p->k;
    if (p->transpose_b) CPU(pack_panel)(dst, b + panel * FV_NR * p->k, p->k, columns, 1, p->k);
    else CPU(pack_panel)(dst, b + panel * FV_NR, p->k, columns, p->n, 1);
}

static void multiply(const job *j, int64_t product, int64_t row0, int64_t panel0, int64_t panel1, const float *packed,
                     float *turned) {
    const plan *p = &j->p;
    static const ptrdiff_t no_tap = 0;
    const float *a = j->a + product * p->m * p->k;
    float *y = j->y + (product * p->m + row0) * p->n;
    fv_row_gemm g = {
        .x_off = j->a_off, .y_off = j->y_off, .rows = fv_min64(BLOCK_ROWS, p->m - row0), .tap = &no_tap, .taps = 1};
    for (int64_t k = 0; k == 0 || k < p->k; k += BLOCK_DEPTH) {
        g.depth = fv_min64(BLOCK_DEPTH, p->k - k);
        g.accumulate = k > 0;
        g.x = a + row0 * p->k + k;
        if (p->transpose_a) {
            CPU(transpose_matrix)(turned, fv_min64(p->k, BLOCK_DEPTH), a + k * p->m + row0, p->m, g.depth, g.rows);
            g.x = turned;
        }
        for (int64_t panel = panel0; panel < panel1; panel++) {
            g.columns = (int)fv_min64(FV_NR, p->n - panel * FV_NR);
            g.b = packed + panel * FV_NR * p->k + k * fv_panel_width(g.columns);
            g.y = y + panel * FV_NR;
            CPU(row_gemm)(&g);
        }
    }
}

static void product_tile(void *arg, int64_t product, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *packed = j->packed + (size_t)thread * p->packed_floats,
          *turned = j->turned + (size_t)thread * p->turned_floats;
    for (int64_t i = 0; i < p->panels; i++) pack_panel_of(j, product, i, packed);
    for (int64_t i = 0; i < p->m; i += BLOCK_ROWS) multiply(j, product, i, 0, p->panels, packed, turned);
}

static void pack_tile(void *arg, int64_t panel, int thread) {
    (void)thread;
    const job *j = arg;
    pack_panel_of(j, j->product, panel, j->packed);
}

static void block_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    const int64_t chunk = tile % p->chunks * CHUNK_PANELS;
    multiply(j, j->product, tile / p->chunks * BLOCK_ROWS, chunk, fv_min64(p->panels, chunk + CHUNK_PANELS), j->packed,
             j->turned + (size_t)thread * p->turned_floats);
}

void CPU(matmul)(const fv_call *c) {
    if (c->out[0].data == NULL || fv_count(c->out[0].type) == 0) return;
    job j = {.p = make_plan(c->in[0].type, c->out[0].type, &c->attr->matmul, fv_pool_threads(c->pool))};
    const plan *p = &j.p;
    char *work = c->workspace;
    j.a = c->in[0].data;
    j.b = c->in[1].data;
    j.y = c->out[0].data;
    j.a_off = (ptrdiff_t *)(work + p->table_at);
    j.y_off = j.a_off + BLOCK_ROWS;
    j.packed = (float *)(work + p->packed_at);
    j.turned = (float *)(work + p->turned_at);
    for (int64_t i = 0; i < BLOCK_ROWS; i++) {
        j.a_off[i] = i * (p->transpose_a ? fv_min64(p->k, BLOCK_DEPTH) : p->k);
        j.y_off[i] = i * p->n;
    }
    if (p->many) {
        fv_pool_run(c->pool, p->products, product_tile, &j);
        return;
    }
    for (j.product = 0; j.product < p->products; j.product++) {
        fv_pool_run(c->pool, p->panels, pack_tile, &j);
        fv_pool_run(c->pool, p->row_blocks * p->chunks, block_tile, &j);
    }
}
