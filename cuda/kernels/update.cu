/* update.cu: gradient statistics; and what changes weights, averages of them and running statistics: many tensors in
 * one launch, and calls that follow each other in one, too (fv_cuda_update_joins).
 *
 *   table of grad_stats   [ part | part | ... ]       which PART elements of which operand a block works on; the first
 *                                                     one counts the blocks that have ended, and is no part
 *   table of updates      [ piece | piece | ... ]     which PART elements a block works on, and the actions on them
 *                         [ action | action | ... ]   tensors, and by which rule they change
 *                         [ rule | rule | ... ]       what the actions of a call share
 *
 * Tables are made at compile. What changes from step to step (rates, norm, step) is read from device memory. */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define PART 4096

/* ---------------------------------------------------------------- grad_stats -> L2 norm, 1 if all finite else 0 */

struct part {
    int32_t tensor, count;
    int64_t begin;
};
struct part_sum {
    double squares, odd; /* odd: elements that are not finite */
};

static size_t stats_table(const fv_cuda_call *c, part *parts) {
    size_t n = 1;
    for (int t = 0; t < c->n_in; t++) {
        const int64_t size = c->in[t].data ? fv_count(c->in[t].type) : 0;
        for (int64_t begin = 0; begin < size; begin += PART, n++)
            if (parts) parts[n] = {t, (int32_t)fv_least(PART, size - begin), begin};
    }
    return n * sizeof(part);
}

size_t fv_cuda_stats_workspace(const fv_graph *g, const fv_node *node) {
    size_t parts = 0;
    for (int k = 0; k < node->operands; k++) {
        const fv_type *t = fv_operand_type(g, node, k);
        if (t) parts += (size_t)fv_up(fv_count(*t), PART);
    }
    return (parts + 1) * sizeof(part_sum);
}

/* A halt is for good: steps that the host enqueued before it heard of a step that was not finite change nothing. */
__global__ void grad_stats_kernel(const part *parts, int count, const fv_tensor *tensors, part_sum *sums,
                                  unsigned *ended, const fv_step *step, int32_t *halted, float *stats) {
    double squares = 0, odd = 0;
    if ((int)blockIdx.x < count) {
        const part p = parts[blockIdx.x];
        const float *x = static_cast<const float *>(tensors[p.tensor].data) + p.begin;
        for (int i = threadIdx.x; i < p.count; i += blockDim.x) {
            squares += (double)x[i] * x[i];
            odd += !isfinite(x[i]);
        }
    }
    squares = fv_block_sum(squares);
    odd = fv_block_sum(odd);
    if (threadIdx.x == 0) {
        sums[blockIdx.x].squares = squares;
        sums[blockIdx.x].odd = odd;
    }
    if (!fv_is_last_block(ended, gridDim.x)) return;
    squares = odd = 0;
    for (int i = threadIdx.x; i < (int)gridDim.x; i += blockDim.x) {
        squares += fv_partial(&sums[i].squares);
        odd += fv_partial(&sums[i].odd);
    }
    squares = fv_block_sum(squares);
    odd = fv_block_sum(odd);
    if (threadIdx.x != 0) return;
    stats[0] = (float)(sqrt(squares) * fv_unscale(step));
    stats[1] = odd == 0 && !*halted ? 1.0f : 0.0f;
    if (odd != 0 && step->halts) *halted = 1;
}

cudaError_t fv_cuda_grad_stats(const fv_cuda_call *c) {
    part *table = static_cast<part *>(c->table);
    const int count = (int)(c->table_bytes / sizeof(part)) - 1;
    FV_LAUNCH(grad_stats_kernel, count > 0 ? (unsigned)count : 1u, FV_THREADS, 0, c->stream, table + 1, count,
              c->device_in, static_cast<part_sum *>(c->workspace), reinterpret_cast<unsigned *>(table), c->step,
              c->halted, static_cast<float *>(c->out[0].data));
    return cudaGetLastError();
}

__global__ void loss_scale_kernel(const float *x, float *y, int64_t count, const fv_step *step) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) y[i] = (float)step->loss_scale * x[i];
}

cudaError_t fv_cuda_loss_scale(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->out[0].type);
    FV_LAUNCH(loss_scale_kernel, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, fv_operand(c, 0),
              fv_result_of(c, 0), count, c->step);
    return cudaGetLastError();
}

/* ---------------------------------------------------------------- updates */

enum { UPDATE_LISTS = 4 };

/* Tensors of one shape; element i of them depends on element i of them alone. */
struct action {
    void *data[UPDATE_LISTS]; /* null: absent */
    int32_t rule;
};
struct piece {
    int32_t first, actions; /* in order */
    int32_t count;
    int64_t begin;
};
struct rule {
    fv_op op;
    int group;
    bool nesterov, decoupled;
    float clip, momentum, beta1, beta2, eps, weight, scale;
    double exact_beta1, exact_beta2;
    const fv_step *step;
    const float *stats;
};

/* What an operation does to its tensors: those it writes, bit by bit; and the one by which actions of several calls are
 * known to be on the same elements: a parameter with its slow copy and its average, a running statistic with its own.
 */
struct update_kind {
    int lists;
    unsigned writes;
    int key;
};
static update_kind kind_of(fv_op op) {
    switch (op) {
    case FV_OP_SGD_UPDATE: return {3, 1 | 4, 0};       /* param, grad, momentum */
    case FV_OP_ADAM_UPDATE: return {4, 1 | 4 | 8, 0};  /* param, grad, m, v */
    case FV_OP_EMA_UPDATE: return {2, 1, 1};           /* ema, param */
    case FV_OP_LOOKAHEAD_UPDATE: return {2, 1 | 2, 1}; /* slow, fast */
    case FV_OP_LERP_ASSIGN: return {2, 1, 0};          /* state, value */
    case FV_OP_INCREMENT: return {1, 1, 0};            /* state */
    default: return {0, 0, 0};
    }
}
static bool has_lists(fv_op op) {
    return op != FV_OP_LERP_ASSIGN && op != FV_OP_INCREMENT;
}
static int actions_of(const fv_cuda_call *c) {
    return has_lists(c->node->op) ? c->attr->update.count : 1;
}
static const fv_tensor *tensor_of(const fv_cuda_call *c, int t, int list) {
    return has_lists(c->node->op) ? &c->in[1 + list * c->attr->update.count + t] : &c->in[list];
}
static const fv_tensor *stats_of(const fv_cuda_call *c) {
    const int k = c->node->op == FV_OP_LERP_ASSIGN ? 2 : c->node->op == FV_OP_INCREMENT ? 1 : 0;
    return k < c->n_in ? &c->in[k] : NULL;
}
static const void *key_of(const fv_cuda_call *c, int t) {
    return tensor_of(c, t, kind_of(c->node->op).key)->data;
}

/* Whether the order of two actions does not matter, or is kept because one thread does both to an element. */
static bool keeps_order(const fv_cuda_call *a, int ta, const fv_cuda_call *b, int tb) {
    const update_kind ka = kind_of(a->node->op), kb = kind_of(b->node->op);
    const bool together = key_of(a, ta) == key_of(b, tb); /* then they must be of one size, too */
    if (together && fv_count(tensor_of(a, ta, ka.key)->type) != fv_count(tensor_of(b, tb, kb.key)->type)) return false;
    for (int i = 0; i < ka.lists; i++)
        for (int j = 0; j < kb.lists; j++) {
            const fv_tensor *x = tensor_of(a, ta, i), *y = tensor_of(b, tb, j);
            if (!((ka.writes >> i | kb.writes >> j) & 1) || !fv_cuda_overlap(x, y)) continue;
            if (!together || x->data != y->data) return false;
        }
    return true;
}

/* Whether an action writes what a call reads besides its tensors. */
static bool writes_stats(const fv_cuda_call *a, const fv_cuda_call *b) {
    const fv_tensor *stats = stats_of(b);
    const update_kind kind = kind_of(a->node->op);
    for (int t = 0; stats && t < actions_of(a); t++)
        for (int i = 0; i < kind.lists; i++)
            if ((kind.writes >> i & 1) && fv_cuda_overlap(tensor_of(a, t, i), stats)) return true;
    return false;
}

bool fv_cuda_update_joins(const fv_cuda_call *before, const fv_cuda_call *next) {
    if (kind_of(before->node->op).lists == 0 || kind_of(next->node->op).lists == 0) return false;
    if (writes_stats(before, next) || writes_stats(next, before)) return false;
    for (int ta = 0; ta < actions_of(before); ta++)
        for (int tb = 0; tb < actions_of(next); tb++)
            if (!keeps_order(before, ta, next, tb)) return false;
    return true;
}

static rule rule_of(const fv_cuda_call *c) {
    const fv_tensor *stats = stats_of(c);
    rule r = {};
    r.op = c->node->op;
    r.step = c->step;
    r.stats = stats ? static_cast<const float *>(stats->data) : NULL;
    if (r.op == FV_OP_LERP_ASSIGN) {
        r.weight = (float)c->attr->lerp.weight;
        r.scale = (float)c->attr->lerp.scale;
    }
    if (!has_lists(r.op)) return r;
    const fv_update_attr *a = &c->attr->update;
    r.group = a->group;
    r.clip = (float)a->clip;
    r.momentum = (float)a->momentum;
    r.beta1 = (float)a->beta1;
    r.beta2 = (float)a->beta2;
    r.eps = (float)a->eps;
    r.exact_beta1 = a->beta1;
    r.exact_beta2 = a->beta2;
    r.nesterov = a->nesterov;
    r.decoupled = a->decoupled;
    return r;
}

/* ---------------------------------------------------------------- the table of updates */

struct update_table {
    int32_t pieces, actions, rules;
};
static size_t actions_at(const update_table &t) {
    return ((size_t)t.pieces * sizeof(piece) + 15) / 16 * 16;
}
static size_t rules_at(const update_table &t) {
    return actions_at(t) + ((size_t)t.actions * sizeof(action) + 15) / 16 * 16;
}

/* The actions of all calls that are on the elements of the one given, of which it is the first; `to`: null, to count.
 */
static int32_t actions_on(const fv_cuda_call *c, int call, int t, action *to) {
    const void *key = key_of(c->joined[call], t);
    int32_t n = 0;
    for (int i = call; i < c->n_joined; i++) {
        const fv_cuda_call *other = c->joined[i];
        const update_kind kind = kind_of(other->node->op);
        for (int k = i == call ? t : 0; k < actions_of(other); k++) {
            if (key_of(other, k) != key) continue;
            if (to) {
                to[n] = {};
                to[n].rule = i;
                for (int j = 0; j < kind.lists; j++) to[n].data[j] = tensor_of(other, k, j)->data;
            }
            n++;
        }
    }
    return n;
}
static bool is_first_on_its_elements(const fv_cuda_call *c, int call, int t) {
    const void *key = key_of(c->joined[call], t);
    for (int i = 0; i <= call; i++)
        for (int k = 0; k < (i == call ? t : actions_of(c->joined[i])); k++)
            if (key_of(c->joined[i], k) == key) return false;
    return true;
}

static update_table fill_update_table(const fv_cuda_call *c, piece *pieces, action *actions) {
    update_table n = {0, 0, c->n_joined};
    for (int i = 0; i < c->n_joined; i++)
        for (int t = 0; t < actions_of(c->joined[i]); t++) {
            const fv_tensor *x = tensor_of(c->joined[i], t, kind_of(c->joined[i]->node->op).key);
            const int64_t size = x->data ? fv_count(x->type) : 0;
            if (size == 0 || !is_first_on_its_elements(c, i, t)) continue;
            const int32_t own = actions_on(c, i, t, actions ? actions + n.actions : NULL);
            for (int64_t begin = 0; begin < size; begin += PART, n.pieces++)
                if (pieces) pieces[n.pieces] = {n.actions, own, (int32_t)fv_least(PART, size - begin), begin};
            n.actions += own;
        }
    return n;
}

static size_t updates_table(const fv_cuda_call *c, char *host) {
    const update_table n = fill_update_table(c, NULL, NULL);
    if (n.pieces == 0) return 0;
    if (!host) return rules_at(n) + (size_t)n.rules * sizeof(rule);
    action *actions = reinterpret_cast<action *>(host + actions_at(n));
    rule *rules = reinterpret_cast<rule *>(host + rules_at(n));
    fill_update_table(c, reinterpret_cast<piece *>(host), actions);
    for (int i = 0; i < n.rules; i++) rules[i] = rule_of(c->joined[i]);
    return 0;
}

size_t fv_cuda_update_table(const fv_cuda_call *c, void *host) {
    return c->node->op == FV_OP_GRAD_STATS ? stats_table(c, static_cast<part *>(host))
                                           : updates_table(c, static_cast<char *>(host));
}

/* ---------------------------------------------------------------- what they compute
 * Each on `count` elements from `begin` on. Every one walks them alike, so that what an action leaves is read by the
 * thread that wrote it. */

__device__ __forceinline__ float *elements(const action &a, int list, int64_t begin) {
    float *data = static_cast<float *>(a.data[list]);
    return data ? data + begin : NULL;
}

/* False when the gradients were not all finite: then nothing changes. */
__device__ __forceinline__ bool update_begins(const rule &r) {
    return !r.stats || r.stats[1] != 0;
}

/* g = scale * grad + wd * p;  b = momentum * b + g;  p -= lr * (nesterov ? g + momentum * b : b) */
__device__ void sgd(const rule &r, const action &a, int64_t begin, int count) {
    float *p = elements(a, 0, begin), *momentum = r.momentum != 0 ? elements(a, 2, begin) : NULL;
    const float *grad = elements(a, 1, begin);
    const float scale = fv_clip_factor(r.step, r.stats, r.clip); /* takes the loss scale out, and clips */
    const float lr = (float)r.step->lr[r.group], wd = (float)r.step->weight_decay[r.group];
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float g = fmaf(wd, p[i], scale * grad[i]);
        if (momentum) {
            const float b = fmaf(r.momentum, momentum[i], g);
            momentum[i] = b;
            g = r.nesterov ? fmaf(r.momentum, b, g) : b;
        }
        p[i] = fmaf(-lr, g, p[i]);
    }
}

/* Adam (Kingma & Ba 2015); decoupled: AdamW (Loshchilov & Hutter 2019). */
__device__ void adam(const rule &r, const action &a, int64_t begin, int count) {
    __shared__ float by, root, keep; /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), 1 - lr * wd */
    const float scale = fv_clip_factor(r.step, r.stats, r.clip);
    const double lr = r.step->lr[r.group], wd = r.step->weight_decay[r.group];
    __syncthreads(); /* an action before may still read them */
    if (threadIdx.x == 0) {
        const double time = (double)(r.step->step + 1);
        by = (float)(lr / (1 - pow(r.exact_beta1, time)));
        root = (float)(1 / sqrt(1 - pow(r.exact_beta2, time)));
        keep = (float)(1 - lr * wd);
    }
    __syncthreads();
    float *p = elements(a, 0, begin), *m = elements(a, 2, begin), *v = elements(a, 3, begin);
    const float *grad = elements(a, 1, begin);
    const float rest1 = (float)(1 - r.exact_beta1), rest2 = (float)(1 - r.exact_beta2), decay = (float)wd;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        float weight = p[i], g = scale * grad[i];
        if (r.decoupled) weight *= keep;
        else g = fmaf(decay, weight, g);
        const float m1 = fmaf(r.beta1, m[i], rest1 * g), v1 = fmaf(r.beta2, v[i], rest2 * g * g);
        m[i] = m1;
        v[i] = v1;
        p[i] = weight - by * m1 / (sqrtf(v1) * root + r.eps);
    }
}

/* ema += (1 - decay) * (p - ema) */
__device__ void ema(const rule &r, const action &a, int64_t begin, int count) {
    float *average = elements(a, 0, begin);
    const float *p = elements(a, 1, begin), by = (float)(1 - r.step->ema_decay);
    for (int i = threadIdx.x; i < count; i += blockDim.x) average[i] = fmaf(by, p[i] - average[i], average[i]);
}

/* At step.lookahead: slow as ema, then fast = slow */
__device__ void lookahead(const rule &r, const action &a, int64_t begin, int count) {
    if (!r.step->lookahead) return;
    float *slow = elements(a, 0, begin), *fast = elements(a, 1, begin);
    const float by = (float)(1 - r.step->lookahead_decay);
    for (int i = threadIdx.x; i < count; i += blockDim.x) slow[i] = fast[i] = fmaf(by, fast[i] - slow[i], slow[i]);
}

__device__ void lerp_assign(const rule &r, const action &a, int64_t begin, int count) {
    float *state = elements(a, 0, begin);
    const float *value = elements(a, 1, begin);
    for (int i = threadIdx.x; i < count; i += blockDim.x)
        state[i] = fmaf(r.weight, fmaf(r.scale, value[i], -state[i]), state[i]);
}

__device__ void increment(const action &a, int64_t begin, int count) {
    int64_t *state = static_cast<int64_t *>(a.data[0]) + begin;
    for (int i = threadIdx.x; i < count; i += blockDim.x) state[i] += 1;
}

__global__ void update_kernel(const piece *pieces, const action *actions, const rule *rules) {
    const piece p = pieces[blockIdx.x];
    for (int k = p.first; k < p.first + p.actions; k++) {
        const action a = actions[k];
        const rule r = rules[a.rule]; /* a copy: what is written is no part of it */
        if (!update_begins(r)) continue;
        switch (r.op) {
        case FV_OP_SGD_UPDATE: sgd(r, a, p.begin, p.count); break;
        case FV_OP_ADAM_UPDATE: adam(r, a, p.begin, p.count); break;
        case FV_OP_EMA_UPDATE: ema(r, a, p.begin, p.count); break;
        case FV_OP_LOOKAHEAD_UPDATE: lookahead(r, a, p.begin, p.count); break;
        case FV_OP_LERP_ASSIGN: lerp_assign(r, a, p.begin, p.count); break;
        case FV_OP_INCREMENT: increment(a, p.begin, p.count); break;
        default: break;
        }
    }
}

static cudaError_t update(const fv_cuda_call *c) {
    const update_table n = fill_update_table(c, NULL, NULL);
    const char *table = static_cast<const char *>(c->table);
    if (n.pieces)
        FV_LAUNCH(update_kernel, (unsigned)n.pieces, FV_THREADS, 0, c->stream, reinterpret_cast<const piece *>(table),
                  reinterpret_cast<const action *>(table + actions_at(n)),
                  reinterpret_cast<const rule *>(table + rules_at(n)));
    return cudaGetLastError();
}

cudaError_t fv_cuda_sgd_update(const fv_cuda_call *c) {
    return update(c);
}
cudaError_t fv_cuda_adam_update(const fv_cuda_call *c) {
    return update(c);
}
cudaError_t fv_cuda_ema_update(const fv_cuda_call *c) {
    return update(c);
}
cudaError_t fv_cuda_lookahead_update(const fv_cuda_call *c) {
    return update(c);
}
cudaError_t fv_cuda_lerp_assign(const fv_cuda_call *c) {
    return update(c);
}
cudaError_t fv_cuda_increment(const fv_cuda_call *c) {
    return update(c);
}
