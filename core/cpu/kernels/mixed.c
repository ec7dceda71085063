/* mixed.c: nodes with bf16 or f16 among their operands or results, by their float32 kernels: operands are widened,
 * results rounded. Products of matrices go through it a few pictures at a time, so that their floats stay in the cache
 * and memory sees 16 bits only:
 *
 *   x bf16 [n,h,w,c] ─ rows of dimension 0 ─► floats ─► conv2d ─► floats ─► y bf16 [n,oh,ow,k]
 *
 * Gradients of weights add up over these pieces, in their order. Pieces depend on shapes only. What a kernel takes or
 * gives as bf16 (matrix_pairs) stays as it is. */
#include "core/cpu/kernels/tile.h"

#define PIECE_FLOATS (1 << 20)
#define MOST 16 /* operands and results of a node that is cut into pieces */

/* ---------------------------------------------------------------- conversion */

static void convert_tile(void *arg, int64_t tile, int thread) {
    fv_convert_tile(arg, tile, thread);
}
static void convert(const fv_call *c, fv_dtype from, const void *x, fv_dtype to, void *y, int64_t count) {
    fv_convert_args a = {x, y, from, to, count};
    fv_pool_run(c->pool, fv_ceil_div(count, FV_TILE), convert_tile, &a);
}

static void add_tile(void *arg, int64_t tile, int thread) { /* y += x, both of them floats */
    const fv_convert_args *a = arg;
    const float *x = a->x;
    float *y = a->y;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) y[i] += x[i];
}
static void add(const fv_call *c, const float *x, float *y, int64_t count) {
    fv_convert_args a = {.x = x, .y = y, .count = count};
    fv_pool_run(c->pool, fv_ceil_div(count, FV_TILE), add_tile, &a);
}

/* ---------------------------------------------------------------- pieces */

/* Which operands and results go by rows of dimension 0 (bit k: operand k; bit 16 + r: result r), and whether result 0
 * is a sum over the rows. */
typedef struct cut {
    uint32_t by_rows;
    bool sum;
} cut;

static cut cut_of(fv_op op, int rank) {
    switch (op) {
    case FV_OP_CONV2D:
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_BWD_DATA: return (cut){1 | 1 << 16, false};
    case FV_OP_CONV2D_BWD_WEIGHT:
    case FV_OP_LINEAR_BWD_WEIGHT: return (cut){3, true};
    case FV_OP_MATMUL: return (cut){rank > 2 ? 3 | 1 << 16 : 0, false};
    case FV_OP_ATTENTION: return (cut){7 | 3 << 16, false};
    case FV_OP_ATTENTION_BWD: return (cut){63 | 7 << 16, false};
    default: return (cut){0, false};
    }
}

/* How a node is computed. Workspace: [a tensor per operand and result][floats of each low one][sum][kernel's own] */
typedef struct scheme {
    cut cut;
    int n_in, n;
    uint32_t floats;     /* bit i: operand or result i (after the n_in operands) is seen as floats, by way of a copy */
    int64_t total, rows; /* of dimension 0; rows of a piece. Not cut: 1, 1 */
    size_t sum_at, kernel_at;
} scheme;

static bool is_copied(const scheme *s, int i) {
    return s->floats >> i & 1;
}
static bool goes_by_rows(const scheme *s, int i) {
    return s->cut.by_rows >> (i < s->n_in ? i : 16 + i - s->n_in) & 1;
}

/* The part of a type that a piece of `rows` rows takes. */
static fv_type part_of(const scheme *s, int i, fv_type t, int64_t rows) {
    if (goes_by_rows(s, i) && t.rank > 0) t.dim[0] = rows;
    return t;
}

/* type: of n_in operands, then of the results; absent ones and those that nobody reads have no elements. */
static scheme make_scheme(const fv_device *dev, fv_op op, const fv_attr *attr, const fv_type *type, int n_in, int n) {
    scheme s = {.cut = cut_of(op, type[0].rank), .n_in = n_in, .n = n, .total = 1, .rows = 1};
    for (int i = 0; i < n; i++) s.floats |= (uint32_t)fv_is_low(type[i].dtype) << i;
    s.floats &= ~CPU(matrix_pairs)(dev, op, attr, type, n_in);
    int64_t floats = 0;
    for (int i = 0; s.cut.by_rows && i < n; i++)
        if (goes_by_rows(&s, i) && is_copied(&s, i)) floats += fv_count(type[i]) / type[0].dim[0];
    if (floats) {
        s.total = type[0].dim[0];
        s.rows = fv_max64(1, fv_min64(s.total, PIECE_FLOATS / floats));
        s.rows = fv_ceil_div(s.total, fv_ceil_div(s.total, s.rows)); /* even pieces */
    } else s.cut = (cut){0, false};
    size_t at = fv_lines((size_t)n * sizeof(fv_tensor));
    for (int i = 0; i < n; i++)
        if (is_copied(&s, i)) at += fv_lines((size_t)fv_count(part_of(&s, i, type[i], s.rows)) * sizeof(float));
    s.sum_at = at;
    if (s.cut.sum && s.rows < s.total) at += fv_lines((size_t)fv_count(type[n_in]) * sizeof(float));
    s.kernel_at = at;
    return s;
}

/* What the kernel sees of a node: one of float32 values, of some rows. */
typedef struct piece_node {
    fv_val values[MOST + 1];
    fv_value operands[MOST];
    fv_graph graph;
    fv_node node;
} piece_node;

static void make_piece(piece_node *p, const fv_graph *g, const fv_node *node, const scheme *s, int64_t rows) {
    p->graph = (fv_graph){.ctx = g->ctx, .values = p->values, .operands = p->operands, .n_values = s->n + 1};
    p->values[0] = (fv_val){.kind = FV_VAL_NONE};
    p->node = *node;
    p->node.first_operand = 0;
    p->node.first_result = 1 + s->n_in;
    for (int i = 0; i < s->n; i++) {
        fv_value v = i < s->n_in ? g->operands[node->first_operand + i] : (fv_value){node->first_result + i - s->n_in};
        if (i < s->n_in) p->operands[i] = (fv_value){v.id ? i + 1 : 0};
        p->values[i + 1] = (fv_val){.type = part_of(s, i, fv_typeof(g, v), rows)};
        if (is_copied(s, i)) p->values[i + 1].type.dtype = FV_F32;
    }
}

static size_t piece_workspace(const fv_device *dev, const fv_graph *g, const fv_node *node, const scheme *s,
                              int64_t rows, fv_cpu_workspace plain) {
    piece_node p;
    make_piece(&p, g, node, s, rows);
    return plain(dev, &p.graph, &p.node);
}

static scheme scheme_of(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    fv_type type[MOST] = {{0}};
    const int n = node->operands + node->results;
    for (int i = 0; i < n; i++) {
        fv_value v = i < node->operands ? g->operands[node->first_operand + i]
                                        : (fv_value){node->first_result + i - node->operands};
        type[i] = v.id ? fv_typeof(g, v) : fv_shape(FV_F32, 0);
    }
    return make_scheme(dev, node->op, &node->attr, type, node->operands, n);
}

size_t CPU(mixed_workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node, fv_cpu_workspace plain) {
    if (node->operands + node->results > MOST) return 0;
    const scheme s = scheme_of(dev, g, node);
    const int64_t last = s.total - (fv_ceil_div(s.total, s.rows) - 1) * s.rows;
    const size_t most = piece_workspace(dev, g, node, &s, s.rows, plain),
                 rest = piece_workspace(dev, g, node, &s, last, plain);
    return s.kernel_at + (most > rest ? most : rest);
}

/* Of one piece: another one's kernel may want something else. */
size_t CPU(mixed_prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                           size_t *workspace, fv_cpu_prepared plain) {
    if (node->operands + node->results > MOST) return 0;
    const scheme s = scheme_of(dev, g, node);
    if (s.rows != s.total) return 0;
    piece_node p;
    size_t kernel = *workspace - s.kernel_at;
    make_piece(&p, g, node, &s, s.rows);
    const size_t kept = plain(dev, &p.graph, &p.node, constant, &kernel);
    *workspace = s.kernel_at + kernel;
    return kept;
}

/* ---------------------------------------------------------------- one call */

typedef struct job {
    const fv_call *c;
    scheme s;
    fv_tensor *tensor; /* what the float32 kernel sees */
    float *sum;        /* a later piece's share of result 0; NULL: there is one piece, or no sum */
} job;

static const fv_tensor *own(const job *j, int i) {
    return i < j->s.n_in ? &j->c->in[i] : &j->c->out[i - j->s.n_in];
}

/* The tensor's elements from `row` of dimension 0 on. */
static void *from_row(const job *j, int i, int64_t row) {
    const fv_tensor *t = own(j, i);
    if (!goes_by_rows(&j->s, i) || !t->data || row == 0) return t->data;
    return (char *)t->data + (size_t)(fv_count(t->type) / t->type.dim[0] * row) * fv_dtype_size(t->type.dtype);
}

static void place_floats(job *j) {
    size_t at = fv_lines((size_t)j->s.n * sizeof(fv_tensor));
    for (int i = 0; i < j->s.n; i++) {
        const fv_tensor *t = own(j, i);
        j->tensor[i] = *t;
        if (!is_copied(&j->s, i)) continue;
        if (t->data) j->tensor[i].data = (char *)j->c->workspace + at;
        at += fv_lines((size_t)fv_count(part_of(&j->s, i, t->type, j->s.rows)) * sizeof(float));
    }
}

/* What a kernel keeps is made of all but operand 0, and then takes the place of operand 1, the weights. */
static bool is_read(const job *j, int i) {
    if (!j->c->prepared) return true;
    return j->c->preparing ? i != 0 : i != 1;
}

static void run_piece(job *j, fv_kernel kernel, int64_t row, int64_t rows) {
    const scheme *s = &j->s;
    fv_call piece = *j->c;
    for (int i = 0; i < s->n; i++) {
        fv_tensor *t = &j->tensor[i];
        const fv_dtype dtype = own(j, i)->type.dtype;
        const bool copied = is_copied(s, i);
        t->type = part_of(s, i, own(j, i)->type, rows);
        if (copied) t->type.dtype = FV_F32;
        else t->data = from_row(j, i, row);
        if (copied && t->data && i < s->n_in && is_read(j, i) && (row == 0 || goes_by_rows(s, i)))
            convert(j->c, dtype, from_row(j, i, row), FV_F32, t->data, fv_count(t->type));
    }
    if (row > 0 && j->sum) j->tensor[s->n_in].data = j->sum;
    piece.in = j->tensor;
    piece.out = j->tensor + s->n_in;
    piece.workspace = (char *)j->c->workspace + s->kernel_at;
    piece.workspace_bytes = j->c->workspace_bytes - s->kernel_at;
    kernel(&piece);
    if (j->c->preparing) return;
    for (int i = s->n_in; i < s->n; i++) {
        const fv_dtype dtype = own(j, i)->type.dtype;
        if (is_copied(s, i) && own(j, i)->data)
            convert(j->c, FV_F32, j->tensor[i].data, dtype, from_row(j, i, row), fv_count(j->tensor[i].type));
    }
    if (row > 0 && j->sum) add(j->c, j->sum, own(j, s->n_in)->data, fv_count(own(j, s->n_in)->type));
}

void CPU(mixed)(const fv_call *c, fv_op op, fv_kernel kernel) {
    fv_type type[MOST] = {{0}};
    for (int i = 0; i < c->n_in + c->n_out; i++) type[i] = i < c->n_in ? c->in[i].type : c->out[i - c->n_in].type;
    job j = {
        .c = c, .s = make_scheme(c->device, op, c->attr, type, c->n_in, c->n_in + c->n_out), .tensor = c->workspace};
    if (j.s.cut.sum && j.s.rows < j.s.total) {
        if (!c->out[0].data) return;
        j.sum = (float *)(void *)((char *)c->workspace + j.s.sum_at);
    }
    place_floats(&j);
    for (int64_t row = 0; row < j.s.total; row += j.s.rows)
        run_piece(&j, kernel, row, fv_min64(j.s.rows, j.s.total - row));
}
