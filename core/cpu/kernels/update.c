/* update.c: gradient statistics, optimizers, averages of weights: lists of tensors, cut into tiles of FV_TILE elements.
 *
 *   workspace   [ tile 0 | tile 1 | ... ]     which part of which tensor; grad_stats leaves its partial sum there, too
 */
#include "core/cpu/kernels/tile.h"

typedef struct part {
    int32_t tensor;
    int32_t count;
    int64_t begin;
    double squares;
} part;

typedef struct update_args {
    const fv_call *call;
    part *parts;
    int64_t tiles;
    int first, count; /* operands [first, first + count) are the first list */
    float clip;       /* factor of the gradients: takes the loss scale out of them and clips them */
    float lr, decay;
    float c1, c2; /* adam: lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
} update_args;

/* The operands whose sizes say how the work is cut. */
static void list_of(fv_op op, int operands, const fv_attr *attr, int *first, int *count) {
    *first = op == FV_OP_GRAD_STATS ? 0 : 1;
    *count = op == FV_OP_GRAD_STATS ? operands : attr->update.count;
}

size_t CPU(update_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op < FV_OP_GRAD_STATS || node->op > FV_OP_LOOKAHEAD_UPDATE || node->op == FV_OP_MUON_UPDATE) return 0;
    int first, count;
    list_of(node->op, node->operands, &node->attr, &first, &count);
    int64_t tiles = 0;
    for (int t = 0; t < count; t++) {
        fv_type type = fv_typeof(g, g->operands[node->first_operand + first + t]);
        tiles += fv_ceil_div(fv_count(type), FV_TILE);
    }
    return (size_t)tiles * sizeof(part);
}

static update_args cut(const fv_call *c, fv_op op) {
    update_args a = {.call = c, .parts = c->workspace, .clip = 1.0f};
    list_of(op, c->n_in, c->attr, &a.first, &a.count);
    for (int t = 0; t < a.count; t++) {
        const int64_t n = c->in[a.first + t].data ? fv_count(c->in[a.first + t].type) : 0;
        for (int64_t begin = 0; begin < n; begin += FV_TILE)
            a.parts[a.tiles++] = (part){.tensor = t, .count = (int32_t)fv_min64(n - begin, FV_TILE), .begin = begin};
    }
    return a;
}

/* The part's piece of list `list`; NULL when that tensor is absent. */
FV_INLINE float *piece(const update_args *a, const part *p, int list) {
    float *data = a->call->in[a->first + list * a->count + p->tensor].data;
    return data ? data + p->begin : NULL;
}

/* ---------------------------------------------------------------- grad_stats -> L2 norm, 1 if all finite else 0 */

#define HALF (FV_VL / 2)
typedef float vh __attribute__((vector_size(HALF * 4), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(HALF * 8)));

/* Squares of floats cannot overflow a double: the sum is finite if and only if every element is. */
static void squares_tile(void *arg, int64_t tile, int thread) {
    const update_args *a = arg;
    part *p = &a->parts[tile];
    const float *x = piece(a, p, 0);
    vd s[4] = {{0}};
    int i = 0;
    (void)thread;
    for (; i + 4 * HALF <= p->count; i += 4 * HALF)
        for (int v = 0; v < 4; v++) {
            vd d = __builtin_convertvector(*(const vh *)(x + i + v * HALF), vd);
            s[v] += d * d;
        }
    const vd all = (s[0] + s[1]) + (s[2] + s[3]);
    double total = 0;
    for (int l = 0; l < HALF; l++) total += all[l];
    for (; i < p->count; i++) total += (double)x[i] * x[i];
    p->squares = total;
}

void CPU(grad_stats)(const fv_call *c) {
    update_args a = cut(c, FV_OP_GRAD_STATS);
    float *stats = c->out[0].data;
    double squares = 0;
    fv_pool_run(c->pool, a.tiles, squares_tile, &a);
    for (int64_t k = 0; k < a.tiles; k++) squares += a.parts[k].squares;
    stats[0] = (float)(sqrt(squares) * fv_step_unscale(c->step));
    stats[1] = isfinite(squares) ? 1.0f : 0.0f;
}

void CPU(loss_scale)(const fv_call *c) { /* of a scalar */
    const float *x = c->in[0].data, by = (float)c->step->loss_scale;
    float *y = c->out[0].data;
    for (int64_t i = 0; i < fv_count(c->out[0].type); i++) y[i] = by * x[i];
}

/* ---------------------------------------------------------------- updates */

/* False when the gradients were not all finite: then nothing changes. */
static bool begin(const fv_call *c, fv_op op, update_args *a) {
    const float *stats = c->in[0].data;
    const fv_update_attr *u = &c->attr->update;
    if (stats && stats[1] == 0) return false;
    *a = cut(c, op);
    a->lr = (float)c->step->lr[u->group];
    a->decay = (float)c->step->weight_decay[u->group];
    a->clip = (float)(fv_step_unscale(c->step) * (stats && u->clip > 0 ? fmin(1.0, u->clip / (stats[0] + 1e-6)) : 1.0));
    return true;
}

/* g = clip * grad + decay * p;  b = momentum * b + g;  p -= lr * (nesterov ? g + momentum * b : b) */
FV_INLINE void sgd_lanes(float *p, const float *grad, float *buffer, int n, const update_args *a, bool nesterov) {
    const vf momentum = vf_set1((float)a->call->attr->update.momentum);
    vf w = vf_load_n(p, n), g = vf_fma(vf_set1(a->decay), w, vf_set1(a->clip) * vf_load_n(grad, n));
    if (buffer) {
        vf b = vf_fma(momentum, vf_load_n(buffer, n), g);
        vf_store_n(buffer, b, n);
        g = nesterov ? vf_fma(momentum, b, g) : b;
    }
    vf_store_n(p, vf_fma(vf_set1(-a->lr), g, w), n);
}

static void sgd_tile(void *arg, int64_t tile, int thread) {
    const update_args *a = arg;
    const part *k = &a->parts[tile];
    const fv_update_attr *u = &a->call->attr->update;
    float *p = piece(a, k, 0), *buffer = u->momentum != 0 ? piece(a, k, 2) : NULL;
    const float *grad = piece(a, k, 1);
    (void)thread;
    for (int i = 0; i < k->count; i += FV_VL) {
        const int n = (int)fv_min64(k->count - i, FV_VL);
        sgd_lanes(p + i, grad + i, buffer ? buffer + i : NULL, n, a, u->nesterov);
    }
}

void CPU(sgd_update)(const fv_call *c) {
    update_args a;
    if (begin(c, FV_OP_SGD_UPDATE, &a)) fv_pool_run(c->pool, a.tiles, sgd_tile, &a);
}

/* Adam (Kingma & Ba 2015); decoupled: AdamW (Loshchilov & Hutter 2019). */
static void adam_tile(void *arg, int64_t tile, int thread) {
    const update_args *a = arg;
    const part *k = &a->parts[tile];
    const fv_update_attr *u = &a->call->attr->update;
    float *p = piece(a, k, 0), *first = piece(a, k, 2), *second = piece(a, k, 3);
    const float *grad = piece(a, k, 1);
    const vf clip = vf_set1(a->clip), eps = vf_set1((float)u->eps), c1 = vf_set1(a->c1), c2 = vf_set1(a->c2);
    const vf b1 = vf_set1((float)u->beta1), n1 = vf_set1((float)(1.0 - u->beta1));
    const vf b2 = vf_set1((float)u->beta2), n2 = vf_set1((float)(1.0 - u->beta2));
    const vf decay = vf_set1(u->decoupled ? 0.0f : a->decay), shrink = vf_set1(u->decoupled ? a->lr * a->decay : 0.0f);
    (void)thread;
    for (int i = 0; i < k->count; i += FV_VL) {
        const int n = (int)fv_min64(k->count - i, FV_VL);
        vf w = vf_load_n(p + i, n), g = vf_fma(decay, w, clip * vf_load_n(grad + i, n));
        vf m = vf_fma(b1, vf_load_n(first + i, n), n1 * g), v = vf_fma(b2, vf_load_n(second + i, n), n2 * g * g);
        vf_store_n(first + i, m, n);
        vf_store_n(second + i, v, n);
        vf step = vf_fma(shrink, w, c1 * m / vf_fma(vf_sqrt(v), c2, eps));
        vf_store_n(p + i, w - step, n);
    }
}

void CPU(adam_update)(const fv_call *c) {
    const fv_update_attr *u = &c->attr->update;
    const double time = (double)(c->step->step + 1);
    update_args a;
    if (!begin(c, FV_OP_ADAM_UPDATE, &a)) return;
    a.c1 = (float)(c->step->lr[u->group] / (1.0 - pow(u->beta1, time)));
    a.c2 = (float)(1.0 / sqrt(1.0 - pow(u->beta2, time)));
    fv_pool_run(c->pool, a.tiles, adam_tile, &a);
}

/* ema += (1 - decay) * (param - ema); lookahead: slow the same, then fast = slow */
FV_INLINE void approach(const update_args *a, const part *k, double decay, bool meet) {
    float *slow = piece(a, k, 0), *fast = piece(a, k, 1);
    const vf weight = vf_set1((float)(1.0 - decay));
    for (int i = 0; i < k->count; i += FV_VL) {
        const int n = (int)fv_min64(k->count - i, FV_VL);
        const vf s = vf_load_n(slow + i, n), to = vf_fma(weight, vf_load_n(fast + i, n) - s, s);
        vf_store_n(slow + i, to, n);
        if (meet) vf_store_n(fast + i, to, n);
    }
}

static void ema_tile(void *arg, int64_t tile, int thread) {
    const update_args *a = arg;
    (void)thread;
    approach(a, &a->parts[tile], a->call->step->ema_decay, false);
}

void CPU(ema_update)(const fv_call *c) {
    update_args a;
    if (begin(c, FV_OP_EMA_UPDATE, &a)) fv_pool_run(c->pool, a.tiles, ema_tile, &a);
}

static void lookahead_tile(void *arg, int64_t tile, int thread) {
    const update_args *a = arg;
    (void)thread;
    approach(a, &a->parts[tile], a->call->step->lookahead_decay, true);
}

void CPU(lookahead_update)(const fv_call *c) {
    update_args a;
    if (c->step->lookahead && begin(c, FV_OP_LOOKAHEAD_UPDATE, &a)) fv_pool_run(c->pool, a.tiles, lookahead_tile, &a);
}
