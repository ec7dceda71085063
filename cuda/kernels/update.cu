/* update.cu: gradient statistics, optimizers, averages of weights: lists of tensors in one launch.
 *
 *   table   [ part 0 | part 1 | ... ]   which PART elements of which tensor a block works on; made at compile
 *   lists   device_in[first + list * count + tensor]
 *
 * What changes from step to step (rates, norm, step) is read from device memory. */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define PART 4096

struct part {
    int32_t tensor, count;
    int64_t begin;
};
struct lists {
    const part *parts;
    const fv_tensor *tensors; /* of list 0 */
    int count;                /* tensors in a list */
};
struct part_sum { /* of grad_stats */
    double squares;
    int64_t finite;
};

/* Operands [first, first + count) are the first list, whose sizes say how work is cut. */
static void first_list(fv_op op, int operands, const fv_attr *attr, int *first, int *count) {
    *first = op == FV_OP_GRAD_STATS ? 0 : 1;
    *count = op == FV_OP_GRAD_STATS ? operands : attr->update.count;
}

size_t fv_cuda_update_table(const fv_cuda_call *c, void *host) {
    int first, count;
    first_list(c->node->op, c->n_in, c->attr, &first, &count);
    part *parts = static_cast<part *>(host);
    size_t n = 0;
    for (int t = 0; t < count; t++) {
        const int64_t size = c->in[first + t].data ? fv_count(c->in[first + t].type) : 0;
        for (int64_t begin = 0; begin < size; begin += PART, n++)
            if (parts) parts[n] = {t, (int32_t)fv_least(PART, size - begin), begin};
    }
    return n * sizeof(part);
}

size_t fv_cuda_update_workspace(const fv_graph *g, const fv_node *node) {
    if (node->op != FV_OP_GRAD_STATS) return 0;
    size_t parts = 0;
    for (int k = 0; k < node->operands; k++) {
        const fv_type *t = fv_operand_type(g, node, k);
        if (t) parts += (size_t)fv_up(fv_count(*t), PART);
    }
    return (parts + 1) * sizeof(part_sum);
}

static lists lists_of(const fv_cuda_call *c) {
    int first, count;
    first_list(c->node->op, c->n_in, c->attr, &first, &count);
    lists l = {static_cast<const part *>(c->table), c->device_in + first, count};
    return l;
}
static unsigned parts_of(const fv_cuda_call *c) {
    return (unsigned)(c->table_bytes / sizeof(part));
}

/* The part's piece of list `list`; NULL when that tensor is absent. */
__device__ __forceinline__ float *piece(const lists &l, const part &p, int list) {
    float *data = static_cast<float *>(l.tensors[list * l.count + p.tensor].data);
    return data ? data + p.begin : NULL;
}

/* ---------------------------------------------------------------- grad_stats -> L2 norm, 1 if all finite else 0 */

__global__ void part_squares_kernel(lists l, part_sum *sums) {
    const part p = l.parts[blockIdx.x];
    const float *x = piece(l, p, 0);
    double squares = 0;
    int odd = 0; /* elements that are not finite */
    for (int i = threadIdx.x; i < p.count; i += blockDim.x) {
        squares += (double)x[i] * x[i];
        odd += !isfinite(x[i]);
    }
    squares = fv_block_sum(squares);
    odd = fv_block_sum(odd);
    if (threadIdx.x != 0) return;
    sums[blockIdx.x].squares = squares;
    sums[blockIdx.x].finite = odd == 0;
}

/* A halt is for good: steps that the host enqueued before it heard of a step that was not finite change nothing. */
__global__ void stats_kernel(const part_sum *sums, int count, const fv_step *step, int32_t *halted, float *stats) {
    double squares = 0;
    int odd = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        squares += sums[i].squares;
        odd += !sums[i].finite;
    }
    squares = fv_block_sum(squares);
    odd = fv_block_sum(odd);
    if (threadIdx.x != 0) return;
    stats[0] = (float)(sqrt(squares) * fv_unscale(step));
    stats[1] = odd == 0 && !*halted ? 1.0f : 0.0f;
    if (odd != 0 && step->halts) *halted = 1;
}

cudaError_t fv_cuda_grad_stats(const fv_cuda_call *c) {
    part_sum *sums = static_cast<part_sum *>(c->workspace);
    const unsigned parts = parts_of(c);
    if (parts) FV_LAUNCH(part_squares_kernel, parts, FV_THREADS, 0, c->stream, lists_of(c), sums);
    FV_LAUNCH(stats_kernel, 1, FV_THREADS, 0, c->stream, sums, (int)parts, c->step, c->halted,
              static_cast<float *>(c->out[0].data));
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

/* ---------------------------------------------------------------- optimizers */

struct rule {
    const fv_step *step;
    const float *stats;
    int group;
    float clip, momentum, beta1, beta2, eps;
    double exact_beta1, exact_beta2;
    bool nesterov, decoupled;
};

static rule rule_of(const fv_cuda_call *c) {
    const fv_update_attr *a = &c->attr->update;
    rule r = {};
    r.step = c->step;
    r.stats = fv_operand(c, 0);
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

/* False when the gradients were not all finite: then nothing changes. *scale takes the loss scale out of them and clips
 * them. */
__device__ __forceinline__ bool update_begins(const rule &r, float clip, float *scale) {
    *scale = fv_clip_factor(r.step, r.stats, clip);
    return !r.stats || r.stats[1] != 0;
}

/* g = scale * grad + wd * p;  b = momentum * b + g;  p -= lr * (nesterov ? g + momentum * b : b) */
__global__ void sgd_kernel(lists l, rule r) {
    float scale;
    if (!update_begins(r, r.clip, &scale)) return;
    const part at = l.parts[blockIdx.x];
    float *p = piece(l, at, 0), *momentum = r.momentum != 0 ? piece(l, at, 2) : NULL;
    const float *grad = piece(l, at, 1);
    const float lr = (float)r.step->lr[r.group], wd = (float)r.step->weight_decay[r.group];
    for (int i = threadIdx.x; i < at.count; i += blockDim.x) {
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
__global__ void adam_kernel(lists l, rule r) {
    __shared__ float by, root, keep; /* lr / (1 - beta1^t), 1 / sqrt(1 - beta2^t), 1 - lr * wd */
    float scale;
    if (!update_begins(r, r.clip, &scale)) return;
    const double lr = r.step->lr[r.group], wd = r.step->weight_decay[r.group];
    if (threadIdx.x == 0) {
        const double time = (double)(r.step->step + 1);
        by = (float)(lr / (1 - pow(r.exact_beta1, time)));
        root = (float)(1 / sqrt(1 - pow(r.exact_beta2, time)));
        keep = (float)(1 - lr * wd);
    }
    __syncthreads();
    const part at = l.parts[blockIdx.x];
    float *p = piece(l, at, 0), *m = piece(l, at, 2), *v = piece(l, at, 3);
    const float *grad = piece(l, at, 1);
    const float rest1 = (float)(1 - r.exact_beta1), rest2 = (float)(1 - r.exact_beta2), decay = (float)wd;
    for (int i = threadIdx.x; i < at.count; i += blockDim.x) {
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
__global__ void ema_kernel(lists l, rule r) {
    float scale;
    if (!update_begins(r, 0, &scale)) return;
    const part at = l.parts[blockIdx.x];
    float *ema = piece(l, at, 0);
    const float *p = piece(l, at, 1), by = (float)(1 - r.step->ema_decay);
    for (int i = threadIdx.x; i < at.count; i += blockDim.x) ema[i] = fmaf(by, p[i] - ema[i], ema[i]);
}

/* At step.lookahead: slow as ema, then fast = slow */
__global__ void lookahead_kernel(lists l, rule r) {
    float scale;
    if (!r.step->lookahead || !update_begins(r, 0, &scale)) return;
    const part at = l.parts[blockIdx.x];
    float *slow = piece(l, at, 0), *fast = piece(l, at, 1);
    const float by = (float)(1 - r.step->lookahead_decay);
    for (int i = threadIdx.x; i < at.count; i += blockDim.x) slow[i] = fast[i] = fmaf(by, fast[i] - slow[i], slow[i]);
}

cudaError_t fv_cuda_sgd_update(const fv_cuda_call *c) {
    if (parts_of(c)) FV_LAUNCH(sgd_kernel, parts_of(c), FV_THREADS, 0, c->stream, lists_of(c), rule_of(c));
    return cudaGetLastError();
}
cudaError_t fv_cuda_adam_update(const fv_cuda_call *c) {
    if (parts_of(c)) FV_LAUNCH(adam_kernel, parts_of(c), FV_THREADS, 0, c->stream, lists_of(c), rule_of(c));
    return cudaGetLastError();
}
cudaError_t fv_cuda_ema_update(const fv_cuda_call *c) {
    if (parts_of(c)) FV_LAUNCH(ema_kernel, parts_of(c), FV_THREADS, 0, c->stream, lists_of(c), rule_of(c));
    return cudaGetLastError();
}
cudaError_t fv_cuda_lookahead_update(const fv_cuda_call *c) {
    if (parts_of(c)) FV_LAUNCH(lookahead_kernel, parts_of(c), FV_THREADS, 0, c->stream, lists_of(c), rule_of(c));
    return cudaGetLastError();
}
