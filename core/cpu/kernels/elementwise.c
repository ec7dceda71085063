/* elementwise.c: add, sub, mul (numpy's broadcasting), broadcast and scale. A result may lie where an operand of its
 * own shape lies. */
#include "core/cpu/kernels/tile.h"

/* ---------------------------------------------------------------- broadcasting
 *
 * Dimensions of size 1 are dropped and neighbours that both operands step through alike are merged, so that
 *   [n,h,w,c] + [n,h,w,c]  ->  one dimension                 strides a 1, b 1
 *   [n,h,w,c] + [c]        ->  [n h w, c]                    strides b 0, 1
 *   [n,h,w,c] * [n,1,1,c]  ->  [n, h w, c]                   strides b c, 0, 1
 * In the last dimension a stride is then 0 or 1. */
typedef struct plan {
    int rank; /* >= 1 */
    int64_t dim[FV_MAX_RANK], a[FV_MAX_RANK], b[FV_MAX_RANK];
    int64_t rows, cols, tile_rows, tile_cols, tiles_across;
} plan;

/* Stride of dimension i of the result in an operand, whose dimensions are aligned at the right. */
static int64_t operand_stride(const fv_type *t, int i, int rank) {
    int k = i - (rank - t->rank);
    if (k < 0 || t->dim[k] == 1) return 0;
    int64_t stride = 1;
    for (int j = k + 1; j < t->rank; j++) stride *= t->dim[j];
    return stride;
}

static plan make_plan(const fv_type *y, const fv_type *a, const fv_type *b) {
    plan p = {.rank = 0};
    for (int i = 0; i < y->rank; i++) {
        if (y->dim[i] == 1) continue;
        int64_t sa = operand_stride(a, i, y->rank), sb = operand_stride(b, i, y->rank);
        int last = p.rank - 1;
        if (last >= 0 && p.a[last] == sa * y->dim[i] && p.b[last] == sb * y->dim[i]) {
            p.dim[last] *= y->dim[i];
        } else {
            last = p.rank++;
            p.dim[last] = y->dim[i];
        }
        p.a[last] = sa;
        p.b[last] = sb;
    }
    if (p.rank == 0) p = (plan){.rank = 1, .dim = {1}, .a = {1}, .b = {1}};
    p.rows = 1;
    for (int i = 0; i + 1 < p.rank; i++) p.rows *= p.dim[i];
    p.cols = p.dim[p.rank - 1];
    p.tile_cols = fv_min64(fv_max64(p.cols, 1), FV_TILE);
    p.tile_rows = fv_tile_rows(p.tile_cols);
    p.tiles_across = fv_ceil_div(p.cols, p.tile_cols);
    return p;
}
static int64_t plan_tiles(const plan *p) {
    return fv_ceil_div(p->rows, p->tile_rows) * p->tiles_across;
}

/* The rows of a tile as runs along the last but one dimension; a run is rows x cols with fixed row strides. */
typedef struct run {
    int64_t y, a, b, rows;
} run;
typedef struct walk {
    const plan *p;
    int64_t row, end;
} walk;

static bool next_run(walk *w, run *r) {
    const plan *p = w->p;
    if (w->row >= w->end) return false;
    *r = (run){.y = w->row * p->cols, .rows = w->end - w->row};
    int64_t rest = w->row;
    for (int i = p->rank - 2; i >= 0; i--) {
        int64_t index = rest % p->dim[i];
        rest /= p->dim[i];
        r->a += index * p->a[i];
        r->b += index * p->b[i];
        if (i == p->rank - 2) r->rows = fv_min64(r->rows, p->dim[i] - index);
    }
    w->row += r->rows;
    return true;
}

/* ---------------------------------------------------------------- binary operations */

typedef vf (*binary_fn)(vf a, vf b);
FV_INLINE vf op_add(vf a, vf b) {
    return a + b;
}
FV_INLINE vf op_sub(vf a, vf b) {
    return a - b;
}
FV_INLINE vf op_mul(vf a, vf b) {
    return a * b;
}

/* One row; a_one, b_one: the operand is a single element, repeated. */
FV_INLINE void binary_row(fv_elem *y, const fv_elem *a, bool a_one, const fv_elem *b, bool b_one, int64_t cols,
                          binary_fn f) {
    const vf first = vf_set1(fv_get(a)), second = vf_set1(fv_get(b));
    int64_t j = 0;
    for (; j + FV_VL <= cols; j += FV_VL)
        vf_store(y + j, f(a_one ? first : vf_load(a + j), b_one ? second : vf_load(b + j)));
    int n = (int)(cols - j);
    if (n) vf_store_n(y + j, f(a_one ? first : vf_load_n(a + j, n), b_one ? second : vf_load_n(b + j, n)), n);
}

typedef struct binary_args {
    plan p;
    const fv_elem *a, *b;
    fv_elem *y;
} binary_args;

FV_INLINE void binary_tile(const binary_args *g, int64_t tile, binary_fn f) {
    const plan *p = &g->p;
    const int last = p->rank - 1;
    fv_range down = fv_tile_range(p->rows, p->tile_rows, tile / p->tiles_across);
    fv_range across = fv_tile_range(p->cols, p->tile_cols, tile % p->tiles_across);
    const bool a_one = p->a[last] == 0, b_one = p->b[last] == 0;
    const int64_t a_step = last ? p->a[last - 1] : 0, b_step = last ? p->b[last - 1] : 0;
    const int64_t cols = across.end - across.begin;
    walk w = {p, down.begin, down.end};
    for (run r; next_run(&w, &r);) {
        fv_elem *y = g->y + r.y + across.begin;
        const fv_elem *a = g->a + r.a + (a_one ? 0 : across.begin), *b = g->b + r.b + (b_one ? 0 : across.begin);
        for (int64_t i = 0; i < r.rows; i++, y += p->cols, a += a_step, b += b_step) {
            if (!a_one && !b_one) binary_row(y, a, false, b, false, cols, f);
            else if (b_one) binary_row(y, a, a_one, b, true, cols, f);
            else binary_row(y, a, true, b, false, cols, f);
        }
    }
}

static void add_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    binary_tile(arg, tile, op_add);
}
static void sub_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    binary_tile(arg, tile, op_sub);
}
static void mul_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    binary_tile(arg, tile, op_mul);
}

static void binary(const fv_call *c, fv_tile_fn fn) {
    binary_args g = {.p = make_plan(&c->out[0].type, &c->in[0].type, &c->in[1].type),
                     .a = c->in[0].data,
                     .b = c->in[1].data,
                     .y = c->out[0].data};
    fv_pool_run(c->pool, plan_tiles(&g.p), fn, &g);
}
void CPU(add)(const fv_call *c) {
    binary(c, add_tile);
}
void CPU(sub)(const fv_call *c) {
    binary(c, sub_tile);
}
void CPU(mul)(const fv_call *c) {
    binary(c, mul_tile);
}

/* broadcast: the first of two operands that are the same */
FV_INLINE vf op_first(vf a, vf b) {
    (void)b;
    return a;
}
static void broadcast_tile(void *arg, int64_t tile, int thread) {
    (void)thread;
    binary_tile(arg, tile, op_first);
}
void CPU(broadcast)(const fv_call *c) {
    binary_args g = {.p = make_plan(&c->out[0].type, &c->in[0].type, &c->in[0].type),
                     .a = c->in[0].data,
                     .b = c->in[0].data,
                     .y = c->out[0].data};
    fv_pool_run(c->pool, plan_tiles(&g.p), broadcast_tile, &g);
}

/* ---------------------------------------------------------------- scale: y = mul * x + add */

typedef struct scale_args {
    const fv_elem *x;
    fv_elem *y;
    float mul, add;
    int64_t count;
} scale_args;

static void scale_tile(void *arg, int64_t tile, int thread) {
    const scale_args *g = arg;
    fv_range r = fv_tile_range(g->count, FV_TILE, tile);
    const vf mul = vf_set1(g->mul), add = vf_set1(g->add);
    int64_t i = r.begin;
    (void)thread;
    for (; i + FV_VL <= r.end; i += FV_VL) vf_store(g->y + i, vf_fma(vf_load(g->x + i), mul, add));
    int n = (int)(r.end - i);
    if (n) vf_store_n(g->y + i, vf_fma(vf_load_n(g->x + i, n), mul, add), n);
}

void CPU(scale)(const fv_call *c) {
    scale_args g = {.x = c->in[0].data,
                    .y = c->out[0].data,
                    .mul = (float)c->attr->scale.mul,
                    .add = (float)c->attr->scale.add,
                    .count = fv_count(c->out[0].type)};
    fv_pool_run(c->pool, fv_ceil_div(g.count, FV_TILE), scale_tile, &g);
}
