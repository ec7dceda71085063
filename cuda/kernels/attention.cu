/* attention.cu: scaled dot-product attention (Vaswani et al. 2017), the path that needs no library. Scores of some
 * (picture, head) pairs at a time lie in the workspace:
 *
 *   forward    s = scale q k^T ─► p = softmax(s), lse ─► y = p v
 *   backward   p = exp(scale q k^T - lse), ds = p (dy v^T - delta) with delta = dy . y
 *              dq = scale ds k, dk = scale ds^T q, dv = p^T dy
 *   workspace  [n * heads * sq] delta, then [pairs] [sq] [sk] p, and ds   floats, also where q, k, v are not */
#include "cuda/kernels/gemm.cuh"
#include "cuda/kernels/kernels.h"

#define SCORES_BYTES ((int64_t)128 << 20)
#define MOST_PAIRS 4096 /* (picture, head) pairs at a time: enough for any GPU */

/* q, k, v of all heads: separate tensors [n,s,heads*d], or side by side in one [n,s,3*heads*d]. */
struct head_layout {
    int64_t n, heads, d, sq, sk, width; /* width = heads * d */
    int64_t q_row, kv_row;              /* elements from one position to the next */
    bool packed;
    float scale;
    int64_t pairs, each; /* (picture, head) pairs, and how many at a time: whole pictures */
};

static head_layout heads_of(const fv_type *q, const fv_type *k, const fv_attention_attr *a, bool backward) {
    head_layout h;
    h.packed = !k;
    h.n = q->dim[0];
    h.heads = a->heads;
    h.sq = q->dim[1];
    h.sk = k ? k->dim[1] : h.sq;
    h.width = q->dim[2] / (h.packed ? 3 : 1);
    h.d = h.width / h.heads;
    h.q_row = h.kv_row = q->dim[2];
    h.scale = (float)(a->scale != 0 ? a->scale : 1 / sqrt((double)h.d));
    h.pairs = h.n * h.heads;
    const int64_t bytes = h.heads * h.sq * h.sk * (backward ? 2 : 1) * (int64_t)sizeof(float);
    const int64_t pictures = fv_most(1, fv_least(SCORES_BYTES / fv_most(bytes, 1), MOST_PAIRS / h.heads));
    h.each = fv_least(h.n, pictures) * h.heads;
    return h;
}

static int64_t delta_floats(const head_layout &h) {
    return fv_up(h.pairs * h.sq, 64) * 64;
}

size_t fv_cuda_attention_workspace(const fv_graph *g, const fv_node *node) {
    const bool backward = node->op == FV_OP_ATTENTION_BWD;
    const int first = backward ? 3 : 0;
    const head_layout h =
        heads_of(fv_operand_type(g, node, first), fv_operand_type(g, node, first + 1), &node->attr.attention, backward);
    const int64_t scores = h.each * h.sq * h.sk;
    return (size_t)(backward ? delta_floats(h) + 2 * scores : scores) * sizeof(float);
}

/* ---------------------------------------------------------------- one head's part of a tensor */

/* [n,s,row] seen as a matrix [s,d] per (picture, head), from picture `first` on: positions are lines, or steps of k. */
static fv_batching head_batching(const head_layout &h, int64_t positions, int64_t row) {
    return {(int)h.heads, positions * row, h.d};
}
template <typename E>
static fv_matrix<E, true> positions_as_lines(const head_layout &h, const E *x, int64_t s, int64_t row, int64_t first) {
    return {x + first * s * row, row, 1, head_batching(h, s, row)};
}
template <typename E>
static fv_matrix<E, false> positions_as_steps(const head_layout &h, const E *x, int64_t s, int64_t row, int64_t first) {
    return {x + first * s * row, 1, row, head_batching(h, s, row)};
}
template <typename E>
static fv_matrix_out<E> head_out(const head_layout &h, E *y, int64_t s, int64_t row, int64_t first, float by) {
    return {y + first * s * row, NULL, row, 0, by, head_batching(h, s, row)};
}
/* Scores [pair][sq][sk]. */
static fv_matrix<float, true> scores_by_query(const head_layout &h, const float *p) {
    return {p, h.sk, 1, {1, h.sq * h.sk, 0}};
}
static fv_matrix<float, false> scores_by_key(const head_layout &h, const float *p) {
    return {p, 1, h.sk, {1, h.sq * h.sk, 0}};
}

/* ---------------------------------------------------------------- forward */

/* p = softmax of each row of scores, in place; lse may be null. A warp has a row. */
__global__ void attention_softmax_kernel(float *scores, float *lse, int64_t rows, int64_t sk) {
    const int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32;
    const int lane = threadIdx.x % 32;
    if (row >= rows) return;
    float *s = scores + row * sk, top = -INFINITY, sum = 0;
    for (int64_t j = lane; j < sk; j += 32) top = fmaxf(top, s[j]);
    top = fv_warp_max(top);
    for (int64_t j = lane; j < sk; j += 32) {
        const float e = expf(s[j] - top);
        s[j] = e;
        sum += e;
    }
    sum = fv_warp_sum(sum);
    for (int64_t j = lane; j < sk; j += 32) s[j] /= sum;
    if (lane == 0 && lse) lse[row] = top + logf(sum);
}

static unsigned row_blocks(int64_t rows) {
    return (unsigned)fv_most(1, fv_up(rows, FV_THREADS / 32));
}

template <typename E> static cudaError_t forward(const fv_cuda_call *c) {
    const E *q = fv_operand<E>(c, 0), *k = fv_operand<E>(c, 1);
    const head_layout h = heads_of(&c->in[0].type, k ? &c->in[1].type : NULL, &c->attr->attention, false);
    const E *v = h.packed ? q + 2 * h.width : fv_operand<E>(c, 2);
    E *y = fv_result_of<E>(c, 0);
    float *lse = fv_result_of(c, 1), *p = static_cast<float *>(c->workspace);
    if (h.packed) k = q + h.width;
    for (int64_t first = 0; first * h.heads < h.pairs; first += h.each / h.heads) {
        const int64_t pairs = fv_least(h.each, h.pairs - first * h.heads);
        const fv_matrix_out<float> s = {p, NULL, h.sk, 0, h.scale, {1, h.sq * h.sk, 0}};
        cudaError_t error = fv_gemm(c->stream, positions_as_lines(h, q, h.sq, h.q_row, first),
                                    positions_as_lines(h, k, h.sk, h.kv_row, first), s, h.sq, h.sk, h.d, pairs, NULL);
        if (error != cudaSuccess) return error;
        FV_LAUNCH(attention_softmax_kernel, row_blocks(pairs * h.sq), FV_THREADS, 0, c->stream, p,
                  lse ? lse + first * h.heads * h.sq : NULL, pairs * h.sq, h.sk);
        if (y)
            error = fv_gemm(c->stream, scores_by_query(h, p), positions_as_steps(h, v, h.sk, h.kv_row, first),
                            head_out(h, y, h.sq, h.width, first, 1), h.sq, h.d, h.sk, pairs, NULL);
        if (error != cudaSuccess) return error;
    }
    return cudaGetLastError();
}

cudaError_t fv_cuda_attention(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], forward, c);
}

/* ---------------------------------------------------------------- backward */

/* delta[pair][i] = dy_i . y_i. A warp has a row. */
template <typename E> __global__ void attention_delta_kernel(const E *dy, const E *y, float *delta, head_layout h) {
    const int64_t row = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / 32, pair = row / h.sq;
    const int lane = threadIdx.x % 32;
    if (pair >= h.pairs) return;
    const int64_t at = ((pair / h.heads) * h.sq + row % h.sq) * h.width + pair % h.heads * h.d;
    float dot = 0;
    for (int64_t e = lane; e < h.d; e += 32) dot += fv_get(dy + at + e) * fv_get(y + at + e);
    dot = fv_warp_sum(dot);
    if (lane == 0) delta[row] = dot;
}

/* p = exp(scale * q . k - lse) */
struct probabilities_out {
    float *p;
    const float *lse; /* of the first pair */
    int64_t sq, sk;
    float scale;
    __device__ __forceinline__ void put(int pair, int i, int j, float v) const {
        const int64_t row = pair * sq + i;
        p[row * sk + j] = expf(fmaf(scale, v, -lse[row]));
    }
};
/* ds = p * (dy . v - delta) */
struct score_gradients_out {
    float *ds;
    const float *p, *delta;
    int64_t sq, sk;
    __device__ __forceinline__ void put(int pair, int i, int j, float v) const {
        const int64_t row = pair * sq + i;
        ds[row * sk + j] = p[row * sk + j] * (v - delta[row]);
    }
};

template <typename E> struct attention_pointers {
    const E *dy, *y, *q, *k, *v;
    const float *lse;
    E *dq, *dk, *dv; /* may be null */
};

template <typename E> static attention_pointers<E> pointers_of(const fv_cuda_call *c, const head_layout &h) {
    attention_pointers<E> a;
    a.dy = fv_operand<E>(c, 0);
    a.y = fv_operand<E>(c, 1);
    a.lse = fv_operand(c, 2);
    a.q = fv_operand<E>(c, 3);
    a.dq = fv_result_of<E>(c, 0);
    a.k = h.packed ? a.q + h.width : fv_operand<E>(c, 4);
    a.v = h.packed ? a.q + 2 * h.width : fv_operand<E>(c, 5);
    a.dk = !h.packed ? fv_result_of<E>(c, 1) : a.dq ? a.dq + h.width : NULL;
    a.dv = !h.packed ? fv_result_of<E>(c, 2) : a.dq ? a.dq + 2 * h.width : NULL;
    return a;
}

/* `pairs` pairs from picture `first` on. */
template <typename E>
static cudaError_t some_pairs(const fv_cuda_call *c, const head_layout &h, const attention_pointers<E> &a,
                              int64_t first, int64_t pairs) {
    float *delta = static_cast<float *>(c->workspace), *p = delta + delta_floats(h), *ds = p + h.each * h.sq * h.sk;
    const int64_t row = first * h.heads * h.sq;
    const probabilities_out to_p = {p, a.lse + row, h.sq, h.sk, h.scale};
    const score_gradients_out to_ds = {ds, p, delta + row, h.sq, h.sk};
    cudaError_t error = fv_gemm(c->stream, positions_as_lines(h, a.q, h.sq, h.q_row, first),
                                positions_as_lines(h, a.k, h.sk, h.kv_row, first), to_p, h.sq, h.sk, h.d, pairs, NULL);
    if (error == cudaSuccess && (a.dq || a.dk))
        error = fv_gemm(c->stream, positions_as_lines(h, a.dy, h.sq, h.width, first),
                        positions_as_lines(h, a.v, h.sk, h.kv_row, first), to_ds, h.sq, h.sk, h.d, pairs, NULL);
    if (error == cudaSuccess && a.dq)
        error = fv_gemm(c->stream, scores_by_query(h, ds), positions_as_steps(h, a.k, h.sk, h.kv_row, first),
                        head_out(h, a.dq, h.sq, h.q_row, first, h.scale), h.sq, h.d, h.sk, pairs, NULL);
    if (error == cudaSuccess && a.dk)
        error = fv_gemm(c->stream, scores_by_key(h, ds), positions_as_steps(h, a.q, h.sq, h.q_row, first),
                        head_out(h, a.dk, h.sk, h.kv_row, first, h.scale), h.sk, h.d, h.sq, pairs, NULL);
    if (error == cudaSuccess && a.dv)
        error = fv_gemm(c->stream, scores_by_key(h, p), positions_as_steps(h, a.dy, h.sq, h.width, first),
                        head_out(h, a.dv, h.sk, h.kv_row, first, 1), h.sk, h.d, h.sq, pairs, NULL);
    return error;
}

template <typename E> static cudaError_t backward(const fv_cuda_call *c) {
    const bool packed = !fv_operand<E>(c, 4);
    const head_layout h = heads_of(&c->in[3].type, packed ? NULL : &c->in[4].type, &c->attr->attention, true);
    const attention_pointers<E> a = pointers_of<E>(c, h);
    FV_LAUNCH(attention_delta_kernel<E>, row_blocks(h.pairs * h.sq), FV_THREADS, 0, c->stream, a.dy, a.y,
              static_cast<float *>(c->workspace), h);
    for (int64_t first = 0; first * h.heads < h.pairs; first += h.each / h.heads) {
        const cudaError_t error = some_pairs(c, h, a, first, fv_least(h.each, h.pairs - first * h.heads));
        if (error != cudaSuccess) return error;
    }
    return cudaGetLastError();
}

cudaError_t fv_cuda_attention_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], backward, c);
}
