/* loss.cu: losses over logits [n,k] and the top-k count, as core/ref/loss.inc has them. A warp has a row; the block
 * that ends last adds the rows in a fixed order.
 *
 *   workspace   forward   [n] loss of a row, [n] its part of the divisor   floats
 *               backward  [1] the divisor                                  double; of many rows only
 *   table       forward   [1] blocks that have ended */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define ROWS_PER_BLOCK (FV_THREADS / 32)
#define TOTAL_THREADS 512

/* The divisor of a gradient: each block adds it up by itself while that is little work, else one block before them. */
static bool divisor_comes_first(const fv_cuda_call *c, int64_t rows, unsigned blocks) {
    return c->attr->loss.reduction != FV_REDUCE_SUM && rows * (int64_t)blocks > (int64_t)1 << 22;
}

static unsigned row_blocks(int64_t rows) {
    return (unsigned)fv_most(1, fv_up(rows, ROWS_PER_BLOCK));
}

/* A row's factor in the reduced loss. */
__device__ __forceinline__ double row_factor(double weight, double divisor, bool sum) {
    if (weight == 0) return 0;
    if (sum) return weight;
    return divisor > 0 ? weight / divisor : 0;
}

/* What the rows add up to. */
struct row_sums {
    float *losses, *parts; /* of the rows */
    const float *row_weight;
    float *loss; /* null: nobody reads it */
    int64_t n;
    bool sum;
    unsigned *ended;
};
static row_sums row_sums_of(const fv_cuda_call *c, int64_t n) {
    float *losses = static_cast<float *>(c->workspace);
    return {losses,
            losses + n,
            fv_operand(c, 2),
            fv_result_of(c, 0),
            n,
            c->attr->loss.reduction == FV_REDUCE_SUM,
            static_cast<unsigned *>(c->table)};
}

/* *loss = sum of the rows' losses times their factors, by the block that ends last. All threads must call it. */
__device__ __forceinline__ void add_rows(const row_sums &r) {
    double divisor = 0, total = 0;
    if (!r.loss || !fv_is_last_block(r.ended, gridDim.x)) return;
    for (int64_t i = threadIdx.x; i < r.n; i += blockDim.x) divisor += fv_partial(r.parts + i);
    divisor = fv_block_sum(divisor);
    for (int64_t i = threadIdx.x; i < r.n; i += blockDim.x) {
        const double factor = row_factor(r.row_weight ? r.row_weight[i] : 1, divisor, r.sum);
        if (factor != 0) total += factor * fv_partial(r.losses + i);
    }
    total = fv_block_sum(total);
    if (threadIdx.x == 0) *r.loss = (float)total;
}

size_t fv_cuda_loss_workspace(const fv_graph *g, const fv_node *node) {
    const bool backward = node->op == FV_OP_SOFTMAX_CROSS_ENTROPY_BWD || node->op == FV_OP_BCE_WITH_LOGITS_BWD;
    const int64_t n = fv_operand_type(g, node, backward ? 1 : 0)->dim[0];
    return backward ? sizeof(double) : 2 * (size_t)n * sizeof(float);
}

/* ---------------------------------------------------------------- softmax cross-entropy */

struct entropy {
    int64_t n, k;
    const float *logits, *soft, *row_weight, *class_weight;
    const int32_t *label;      /* or soft */
    double smoothing, uniform; /* uniform = smoothing / k */
    bool sum;
};

static entropy entropy_of(const fv_cuda_call *c, int first) {
    const fv_tensor *target = &c->in[first + 1];
    const bool labels = target->type.dtype == FV_I32;
    entropy e;
    e.n = c->in[first].type.dim[0];
    e.k = c->in[first].type.dim[1];
    e.logits = static_cast<const float *>(c->in[first].data);
    e.soft = labels ? NULL : static_cast<const float *>(target->data);
    e.label = labels ? static_cast<const int32_t *>(target->data) : NULL;
    e.row_weight = fv_operand(c, first + 2);
    e.class_weight = fv_operand(c, first + 3);
    e.smoothing = c->attr->loss.label_smoothing;
    e.uniform = c->attr->loss.label_smoothing / (double)e.k;
    e.sum = c->attr->loss.reduction == FV_REDUCE_SUM;
    return e;
}

__device__ __forceinline__ bool has_target(const entropy &e, int64_t i) {
    return !e.label || (e.label[i] >= 0 && e.label[i] < e.k);
}
__device__ __forceinline__ double coefficient(const entropy &e, int64_t i, int64_t c) {
    const double w = e.class_weight ? e.class_weight[c] : 1;
    if (e.soft) return w * ((1 - e.smoothing) * e.soft[i * e.k + c] + e.uniform);
    return w * ((e.label[i] == c ? 1 - e.smoothing : 0) + e.uniform);
}
/* What row i adds to the divisor of the mean. */
__device__ __forceinline__ float divisor_part(const entropy &e, int64_t i) {
    const float r = e.row_weight ? e.row_weight[i] : 1.0f;
    if (r == 0 || !has_target(e, i)) return 0;
    return e.label && e.class_weight ? r * e.class_weight[e.label[i]] : r;
}

/* log of the sum of exp = top + rest: the largest, and log1p of the others relative to it. */
struct log_sum {
    float top, others, rest;
};
__device__ __forceinline__ log_sum log_sum_exp(const float *x, int64_t k, int lane) {
    float top = -INFINITY, others = 0;
    int64_t at = k;
    for (int64_t c = lane; c < k; c += 32)
        if (x[c] > top || at == k) top = x[c], at = c;
    for (int by = 16; by > 0; by /= 2) {
        const float other = __shfl_xor_sync(FV_FULL, top, by);
        const int64_t its = __shfl_xor_sync(FV_FULL, at, by);
        if (its < k && (at == k || other > top || (other == top && its < at))) top = other, at = its;
    }
    for (int64_t c = lane; c < k; c += 32)
        if (c != at) others += expf(x[c] - top);
    log_sum s;
    s.top = top;
    s.others = fv_warp_sum(others);
    s.rest = log1pf(s.others);
    return s;
}

__device__ __forceinline__ void entropy_row(const entropy &e, int64_t i, const row_sums &r, float *row_loss,
                                            fv_cuda_fault *fault, int node) {
    const int lane = threadIdx.x % 32;
    const float *x = e.logits + i * e.k;
    float l = 0;
    if (has_target(e, i)) {
        const log_sum s = log_sum_exp(x, e.k, lane);
        for (int64_t c = lane; c < e.k; c += 32) {
            const float t = (float)coefficient(e, i, c);
            if (t != 0) l += t * (s.top - x[c] + s.rest);
        }
        l = fv_warp_sum(l);
    } else if (lane == 0 && (!e.row_weight || e.row_weight[i] != 0)) {
        fv_fault_label(fault, node, e.label[i], i);
    }
    if (lane != 0) return;
    r.losses[i] = l;
    r.parts[i] = divisor_part(e, i);
    if (row_loss) row_loss[i] = l;
}

__global__ void entropy_kernel(entropy e, row_sums r, float *row_loss, fv_cuda_fault *fault, int node) {
    const int64_t i = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    if (i < e.n) entropy_row(e, i, r, row_loss, fault, node);
    add_rows(r);
}

__device__ __forceinline__ double divisor_of(const entropy &e) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < e.n; i += blockDim.x) sum += divisor_part(e, i);
    return fv_block_sum(sum);
}

__global__ void entropy_divisor_kernel(entropy e, double *divisor) {
    const double sum = divisor_of(e);
    if (threadIdx.x == 0) *divisor = sum;
}

/* dlogits = dloss * factor * (softmax_k * sum of t - t_k). divisor: null where a block finds it by itself. */
__global__ void entropy_bwd_kernel(entropy e, const float *dloss, const double *divisor, float *dlogits) {
    const double by_all = e.sum ? 0 : divisor ? *divisor : divisor_of(e);
    const int64_t i = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (i >= e.n) return;
    const float *x = e.logits + i * e.k;
    float *dx = dlogits + i * e.k;
    const float factor = (float)row_factor(e.row_weight ? e.row_weight[i] : 1, by_all, e.sum);
    if (factor == 0 || !has_target(e, i)) {
        for (int64_t c = lane; c < e.k; c += 32) dx[c] = 0;
        return;
    }
    const log_sum s = log_sum_exp(x, e.k, lane);
    double sum = 0;
    for (int64_t c = lane; c < e.k; c += 32) sum += coefficient(e, i, c);
    sum = fv_warp_sum(sum);
    const float by = *dloss * factor;
    for (int64_t c = lane; c < e.k; c += 32) {
        const double t = coefficient(e, i, c);
        if (e.label && e.label[i] == c) /* here softmax - 1 would cancel in float */
            dx[c] = (float)(by * (exp((double)x[c] - s.top) / (1.0 + s.others) * sum - t));
        else dx[c] = by * (expf(x[c] - s.top - s.rest) * (float)sum - (float)t);
    }
}

cudaError_t fv_cuda_softmax_cross_entropy(const fv_cuda_call *c) {
    const entropy e = entropy_of(c, 0);
    FV_LAUNCH(entropy_kernel, row_blocks(e.n), FV_THREADS, 0, c->stream, e, row_sums_of(c, e.n), fv_result_of(c, 1),
              c->fault, c->node_index);
    return cudaGetLastError();
}

cudaError_t fv_cuda_softmax_cross_entropy_bwd(const fv_cuda_call *c) {
    const entropy e = entropy_of(c, 1);
    const unsigned blocks = row_blocks(e.n);
    double *divisor = divisor_comes_first(c, e.n, blocks) ? static_cast<double *>(c->workspace) : NULL;
    if (divisor) FV_LAUNCH(entropy_divisor_kernel, 1, TOTAL_THREADS, 0, c->stream, e, divisor);
    FV_LAUNCH(entropy_bwd_kernel, blocks, FV_THREADS, 0, c->stream, e, static_cast<const float *>(c->in[0].data),
              divisor, static_cast<float *>(c->out[0].data));
    return cudaGetLastError();
}

/* ---------------------------------------------------------------- binary cross-entropy */

struct binary_entropy {
    int64_t n, k;
    const float *logits, *target, *row_weight, *pos_weight;
    float smoothing;
    bool sum;
};

static binary_entropy binary_entropy_of(const fv_cuda_call *c, int first) {
    binary_entropy e;
    e.n = c->in[first].type.dim[0];
    e.k = c->in[first].type.dim[1];
    e.logits = static_cast<const float *>(c->in[first].data);
    e.target = static_cast<const float *>(c->in[first + 1].data);
    e.row_weight = fv_operand(c, first + 2);
    e.pos_weight = fv_operand(c, first + 3);
    e.smoothing = (float)c->attr->loss.label_smoothing;
    e.sum = c->attr->loss.reduction == FV_REDUCE_SUM;
    return e;
}
__device__ __forceinline__ float smoothed(const binary_entropy &e, int64_t at) {
    return e.target[at] * (1 - e.smoothing) + e.smoothing / 2;
}
__device__ __forceinline__ float positive_weight(const binary_entropy &e, int64_t j, float t) {
    return 1 + ((e.pos_weight ? e.pos_weight[j] : 1.0f) - 1) * t;
}

__device__ __forceinline__ void binary_row(const binary_entropy &e, int64_t i, const row_sums &r, float *row_loss) {
    const int lane = threadIdx.x % 32;
    float sum = 0;
    for (int64_t j = lane; j < e.k; j += 32) {
        const float x = e.logits[i * e.k + j], t = smoothed(e, i * e.k + j);
        const float softplus = log1pf(expf(-fabsf(x))) + (x < 0 ? -x : 0.0f); /* log(1 + exp(-x)) */
        sum += (1 - t) * x + positive_weight(e, j, t) * softplus;
    }
    sum = fv_warp_sum(sum);
    if (lane != 0) return;
    r.losses[i] = sum;
    r.parts[i] = (e.row_weight ? e.row_weight[i] : 1.0f) * (float)e.k;
    if (row_loss) row_loss[i] = sum / (float)e.k;
}

__global__ void binary_kernel(binary_entropy e, row_sums r, float *row_loss) {
    const int64_t i = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    if (i < e.n) binary_row(e, i, r, row_loss);
    add_rows(r);
}

__device__ __forceinline__ double divisor_of(const binary_entropy &e) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < e.n; i += blockDim.x) sum += e.row_weight ? e.row_weight[i] : 1.0f;
    return fv_block_sum(sum) * (double)e.k;
}

__global__ void binary_divisor_kernel(binary_entropy e, double *divisor) {
    const double sum = divisor_of(e);
    if (threadIdx.x == 0) *divisor = sum;
}

__global__ void binary_bwd_kernel(binary_entropy e, const float *dloss, const double *divisor, float *dlogits) {
    const double by_all = e.sum ? 0 : divisor ? *divisor : divisor_of(e);
    for (int64_t at = FV_FIRST; at < e.n * e.k; at += FV_STRIDE) {
        const int64_t i = at / e.k, j = at - i * e.k;
        const float factor = (float)row_factor(e.row_weight ? e.row_weight[i] : 1, by_all, e.sum);
        const float x = e.logits[at], t = smoothed(e, at), away = expf(-fabsf(x));
        const float other = (x >= 0 ? away : 1.0f) / (1 + away); /* sigmoid(-x) */
        dlogits[at] = factor != 0 ? *dloss * factor * (1 - t - positive_weight(e, j, t) * other) : 0.0f;
    }
}

cudaError_t fv_cuda_bce_with_logits(const fv_cuda_call *c) {
    const binary_entropy e = binary_entropy_of(c, 0);
    FV_LAUNCH(binary_kernel, row_blocks(e.n), FV_THREADS, 0, c->stream, e, row_sums_of(c, e.n), fv_result_of(c, 1));
    return cudaGetLastError();
}

cudaError_t fv_cuda_bce_with_logits_bwd(const fv_cuda_call *c) {
    const binary_entropy e = binary_entropy_of(c, 1);
    const unsigned blocks = fv_blocks(e.n * e.k, FV_THREADS);
    double *divisor = divisor_comes_first(c, e.n, blocks) ? static_cast<double *>(c->workspace) : NULL;
    if (divisor) FV_LAUNCH(binary_divisor_kernel, 1, TOTAL_THREADS, 0, c->stream, e, divisor);
    FV_LAUNCH(binary_bwd_kernel, blocks, FV_THREADS, 0, c->stream, e, static_cast<const float *>(c->in[0].data),
              divisor, static_cast<float *>(c->out[0].data));
    return cudaGetLastError();
}

/* ---------------------------------------------------------------- top-k */

/* Weight of row i if its label is among the k largest. Of equal logits the lower class comes first; NaN is first. */
__global__ void topk_rows_kernel(const float *logits, const int32_t *label, const float *row_weight, float *correct,
                                 int64_t n, int64_t classes, int k, fv_cuda_fault *fault, int node) {
    const int64_t i = (int64_t)blockIdx.x * ROWS_PER_BLOCK + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    if (i >= n) return;
    const float weight = row_weight ? row_weight[i] : 1.0f;
    const int64_t own = label[i];
    const bool valid = own >= 0 && own < classes;
    if (!valid || weight == 0) {
        if (lane == 0) correct[i] = 0;
        if (lane == 0 && weight != 0) fv_fault_label(fault, node, own, i);
        return;
    }
    const float *x = logits + i * classes;
    int before = 0;
    for (int64_t c = lane; c < classes; c += 32) before += x[c] > x[own] || isnan(x[c]) || (c < own && x[c] == x[own]);
    before = fv_warp_sum(before);
    if (lane == 0) correct[i] = before < k ? weight : 0.0f;
}

__global__ void count_rows_kernel(const float *x, float *y, int64_t n) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < n; i += blockDim.x) sum += x[i];
    sum = fv_block_sum(sum);
    if (threadIdx.x == 0) *y = (float)sum;
}

cudaError_t fv_cuda_topk_correct(const fv_cuda_call *c) {
    const int64_t n = c->in[0].type.dim[0], classes = c->in[0].type.dim[1];
    float *correct = static_cast<float *>(c->workspace);
    FV_LAUNCH(topk_rows_kernel, row_blocks(n), FV_THREADS, 0, c->stream, static_cast<const float *>(c->in[0].data),
              static_cast<const int32_t *>(c->in[1].data), fv_operand(c, 2), correct, n, classes, (int)c->attr->topk.k,
              c->fault, c->node_index);
    FV_LAUNCH(count_rows_kernel, 1, TOTAL_THREADS, 0, c->stream, correct, static_cast<float *>(c->out[0].data), n);
    return cudaGetLastError();
}
