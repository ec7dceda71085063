/* batch_norm.cu: batch norm of x [rows,c], per channel.
 *
 *   forward    tile_moments ─► combine_moments ─► apply        backward   tile_sums ─► add_tiles ─► gradient
 *
 *   a tile: up to 32 channels x TILE_ROWS rows. Moments of a tile are its mean and its sum of squared distances from
 *   that mean, in two passes of which the second reads the cache; tiles are combined in double (Chan et al. 1983).
 *   workspace [c] [c]: mean, rstd or the two sums (float); then [tiles] [2] [c] of the tiles (float) */
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define MOST_TILES 512

/* How x is cut. lanes x down threads make a block: as many lanes as channels, up to a warp. */
struct cutting {
    int64_t rows, c;
    int64_t tile_rows;
    int tiles, lanes, down;
    double eps;
    fv_act_kind act;
};

static cutting cutting_of(const fv_type *t, const fv_batch_norm_attr *a) {
    cutting d;
    d.c = t->dim[t->rank - 1];
    d.rows = fv_extent(t, 0, t->rank - 1);
    d.lanes = 1;
    while (d.lanes < 32 && d.lanes < d.c) d.lanes *= 2;
    d.down = FV_THREADS / d.lanes;
    const int64_t strips = fv_up(d.c, d.lanes);
    const int64_t wanted = fv_most(1, fv_least(MOST_TILES, 1024 / strips));
    d.tile_rows = fv_most(8 * d.down, fv_up(d.rows, wanted));
    d.tiles = (int)fv_up(d.rows, d.tile_rows);
    d.eps = a->eps;
    d.act = a->act;
    return d;
}

size_t fv_cuda_batch_norm_workspace(const fv_graph *g, const fv_node *node) {
    const bool backward = node->op == FV_OP_BATCH_NORM_BWD || node->op == FV_OP_BATCH_NORM_INFER_BWD;
    const fv_type *x = fv_operand_type(g, node, backward ? 1 : 0);
    const cutting d = cutting_of(x, &node->attr.batch_norm);
    return (size_t)d.c * (size_t)(2 + 2 * d.tiles) * sizeof(float);
}

/* The sum of v over the threads of the block that share threadIdx.x, for threadIdx.y = 0. */
__device__ __forceinline__ float sum_down(float v, float *part) {
    __syncthreads();
    part[threadIdx.y * blockDim.x + threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.y != 0) return 0;
    for (unsigned k = 1; k < blockDim.y; k++) v += part[k * blockDim.x + threadIdx.x];
    return v;
}

/* ---------------------------------------------------------------- forward */

/* tiles [tile][2][c]: mean, sum of squared distances. */
template <typename E> __global__ void tile_moments_kernel(const E *x, float *tiles, cutting d) {
    __shared__ float part[FV_THREADS], means[32];
    const int64_t k = (int64_t)blockIdx.x * d.lanes + threadIdx.x;
    const int64_t begin = blockIdx.y * d.tile_rows, end = fv_least(begin + d.tile_rows, d.rows);
    const bool own = k < d.c;
    float sum = 0, squares = 0;
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) sum += fv_get(x + r * d.c + k);
    sum = sum_down(sum, part);
    if (threadIdx.y == 0) means[threadIdx.x] = sum / (float)(end - begin);
    __syncthreads();
    const float mean = means[threadIdx.x];
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) {
        const float centred = fv_get(x + r * d.c + k) - mean;
        squares += centred * centred;
    }
    squares = sum_down(squares, part);
    if (threadIdx.y != 0 || !own) return;
    tiles[(2 * (int64_t)blockIdx.y) * d.c + k] = mean;
    tiles[(2 * (int64_t)blockIdx.y + 1) * d.c + k] = squares;
}

/* moments [2][c]: mean, 1 / sqrt(var + eps). mean and var may be null. */
__global__ void combine_moments_kernel(const float *tiles, float *moments, float *mean, float *var, cutting d) {
    const int64_t k = FV_FIRST;
    if (k >= d.c) return;
    double sum = 0, squares = 0;
    for (int t = 0; t < d.tiles; t++) {
        const int64_t rows = fv_least(d.tile_rows, d.rows - t * d.tile_rows);
        sum += (double)tiles[(2 * (int64_t)t) * d.c + k] * (double)rows;
    }
    const double mu = sum / (double)d.rows;
    for (int t = 0; t < d.tiles; t++) {
        const int64_t rows = fv_least(d.tile_rows, d.rows - t * d.tile_rows);
        const double off = tiles[(2 * (int64_t)t) * d.c + k] - mu;
        squares += tiles[(2 * (int64_t)t + 1) * d.c + k] + (double)rows * off * off;
    }
    const double variance = squares / (double)d.rows;
    moments[k] = (float)mu;
    moments[d.c + k] = (float)(1 / sqrt(variance + d.eps));
    if (mean) mean[k] = (float)mu;
    if (var) var[k] = (float)variance;
}

/* The same from given statistics. */
__global__ void given_moments_kernel(const float *mean, const float *var, float *moments, cutting d) {
    const int64_t k = FV_FIRST;
    if (k >= d.c) return;
    moments[k] = mean[k];
    moments[d.c + k] = (float)(1 / sqrt((double)var[k] + d.eps));
}

/* The activations that can end a norm (fv_act_can_end_norm); all threads take the same way. */
__device__ __forceinline__ float end_act(fv_act_kind act, float v) {
    switch (act) {
    case FV_ACT_RELU: return fv_act<FV_ACT_RELU>(v, 0);
    case FV_ACT_GELU: return fv_act<FV_ACT_GELU>(v, 0);
    case FV_ACT_GELU_TANH: return fv_act<FV_ACT_GELU_TANH>(v, 0);
    case FV_ACT_SILU: return fv_act<FV_ACT_SILU>(v, 0);
    case FV_ACT_HARDSWISH: return fv_act<FV_ACT_HARDSWISH>(v, 0);
    default: return v;
    }
}
/* Slopes of those that are told from their input. */
__device__ __forceinline__ float end_slope(fv_act_kind act, float v) {
    switch (act) {
    case FV_ACT_GELU: return fv_act_slope<FV_ACT_GELU>(v, 0);
    case FV_ACT_GELU_TANH: return fv_act_slope<FV_ACT_GELU_TANH>(v, 0);
    case FV_ACT_SILU: return fv_act_slope<FV_ACT_SILU>(v, 0);
    default: return fv_act_slope<FV_ACT_HARDSWISH>(v, 0);
    }
}

/* y = act((x - mean) * rstd * gamma + beta + residual) */
template <typename E>
__global__ void apply_kernel(const E *x, const float *moments, const float *gamma, const float *beta, const E *residual,
                             E *y, cutting d) {
    const int64_t k = (int64_t)blockIdx.x * d.lanes + threadIdx.x;
    if (k >= d.c) return;
    const float mean = moments[k], by = moments[d.c + k] * (gamma ? gamma[k] : 1.0f), add = beta ? beta[k] : 0.0f;
    for (int64_t r = (int64_t)blockIdx.y * d.down + threadIdx.y; r < d.rows; r += (int64_t)gridDim.y * d.down) {
        const int64_t i = r * d.c + k;
        float v = fmaf(fv_get(x + i) - mean, by, add);
        if (residual) v += fv_get(residual + i);
        fv_put(y + i, end_act(d.act, v));
    }
}

static dim3 strips_of(const cutting &d) {
    return dim3((unsigned)fv_up(d.c, d.lanes), (unsigned)d.tiles);
}
/* Blocks for what works on each element for itself: four rows to a thread. */
static dim3 even_strips_of(const cutting &d) {
    const int64_t blocks = fv_up(d.rows, 4 * (int64_t)d.down);
    return dim3((unsigned)fv_up(d.c, d.lanes), (unsigned)fv_most(1, fv_least(blocks, 65535)));
}
static dim3 block_of(const cutting &d) {
    return dim3((unsigned)d.lanes, (unsigned)d.down);
}

static void apply(const fv_cuda_call *c, const cutting &d, const float *moments, int first_affine) {
    if (!c->out[0].data) return;
    FV_LAUNCH(apply_kernel<float>, even_strips_of(d), block_of(d), 0, c->stream,
              static_cast<const float *>(c->in[0].data), moments,
              static_cast<const float *>(fv_operand(c, first_affine)),
              static_cast<const float *>(fv_operand(c, first_affine + 1)),
              static_cast<const float *>(fv_operand(c, first_affine + 2)), static_cast<float *>(c->out[0].data), d);
}

cudaError_t fv_cuda_batch_norm(const fv_cuda_call *c) {
    const cutting d = cutting_of(&c->in[0].type, &c->attr->batch_norm);
    float *moments = static_cast<float *>(c->workspace), *tiles = moments + 2 * d.c;
    FV_LAUNCH(tile_moments_kernel<float>, strips_of(d), block_of(d), 0, c->stream,
              static_cast<const float *>(c->in[0].data), tiles, d);
    FV_LAUNCH(combine_moments_kernel, fv_blocks(d.c, FV_THREADS), FV_THREADS, 0, c->stream, tiles, moments,
              static_cast<float *>(fv_result_of(c, 1)), static_cast<float *>(fv_result_of(c, 2)), d);
    apply(c, d, moments, 1);
    return cudaGetLastError();
}

cudaError_t fv_cuda_batch_norm_infer(const fv_cuda_call *c) {
    const cutting d = cutting_of(&c->in[0].type, &c->attr->batch_norm);
    float *moments = static_cast<float *>(c->workspace);
    FV_LAUNCH(given_moments_kernel, fv_blocks(d.c, FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<const float *>(c->in[1].data), static_cast<const float *>(c->in[2].data), moments, d);
    apply(c, d, moments, 3);
    return cudaGetLastError();
}

/* ---------------------------------------------------------------- backward */

/* Operands of both gradients. With g = dy * act': sums of g and of g * xhat. */
template <typename E> struct backward {
    const E *dy, *x, *y, *residual; /* y: only with relu; residual: only with an act that is told from its input */
    const float *mean, *var, *gamma, *beta;
    E *dx, *dresidual; /* dx may be dy */
    float *dgamma, *dbeta;
};

__device__ __forceinline__ float rstd_of(const float *var, const cutting &d, int64_t k) {
    return (float)(1 / sqrt((double)var[k] + d.eps));
}

/* Channel k as the forward pass saw it. */
struct channel {
    float mean, rstd, by, add;
};
template <typename E> __device__ __forceinline__ channel channel_of(const backward<E> &b, const cutting &d, int64_t k) {
    channel out = {b.mean[k], rstd_of(b.var, d, k), 0, b.beta ? b.beta[k] : 0.0f};
    out.by = out.rstd * (b.gamma ? b.gamma[k] : 1.0f);
    return out;
}
template <typename E>
__device__ __forceinline__ float passed(const backward<E> &b, const cutting &d, const channel &of, int64_t i) {
    const float g = fv_get(b.dy + i);
    if (d.act == FV_ACT_NONE) return g;
    if (d.act == FV_ACT_RELU) return fv_get(b.y + i) > 0 ? g : 0.0f;
    const float v = fmaf(fv_get(b.x + i) - of.mean, of.by, of.add);
    return g * end_slope(d.act, v + (b.residual ? fv_get(b.residual + i) : 0.0f));
}

/* tiles [tile][2][c]: sum of g, sum of g * xhat. */
template <typename E> __global__ void tile_sums_kernel(backward<E> b, float *tiles, cutting d) {
    __shared__ float part[FV_THREADS];
    const int64_t k = (int64_t)blockIdx.x * d.lanes + threadIdx.x;
    const int64_t begin = blockIdx.y * d.tile_rows, end = fv_least(begin + d.tile_rows, d.rows);
    const bool own = k < d.c;
    channel of = {0, 0, 0, 0};
    if (own) of = channel_of(b, d, k);
    float sum = 0, dot = 0;
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) {
        const float g = passed(b, d, of, r * d.c + k);
        sum += g;
        dot += g * ((fv_get(b.x + r * d.c + k) - of.mean) * of.rstd);
    }
    sum = sum_down(sum, part);
    dot = sum_down(dot, part);
    if (threadIdx.y != 0 || !own) return;
    tiles[(2 * (int64_t)blockIdx.y) * d.c + k] = sum;
    tiles[(2 * (int64_t)blockIdx.y + 1) * d.c + k] = dot;
}

/* sums [2][c]; dgamma and dbeta may be null. */
__global__ void add_tiles_kernel(const float *tiles, float *sums, float *dgamma, float *dbeta, cutting d) {
    const int64_t k = FV_FIRST;
    if (k >= d.c) return;
    double sum = 0, dot = 0;
    for (int t = 0; t < d.tiles; t++) {
        sum += tiles[(2 * (int64_t)t) * d.c + k];
        dot += tiles[(2 * (int64_t)t + 1) * d.c + k];
    }
    sums[k] = (float)sum;
    sums[d.c + k] = (float)dot;
    if (dbeta) dbeta[k] = (float)sum;
    if (dgamma) dgamma[k] = (float)dot;
}

/* dx = gamma * rstd * (g - (sum of g + xhat * sum of g xhat) / rows); without the correction if sums is null. */
template <typename E> __global__ void gradient_kernel(backward<E> b, const float *sums, cutting d) {
    const int64_t k = (int64_t)blockIdx.x * d.lanes + threadIdx.x;
    if (k >= d.c) return;
    const channel of = channel_of(b, d, k);
    const float shift = sums ? sums[k] / (float)d.rows : 0, slope = sums ? sums[d.c + k] / (float)d.rows : 0;
    for (int64_t r = (int64_t)blockIdx.y * d.down + threadIdx.y; r < d.rows; r += (int64_t)gridDim.y * d.down) {
        const int64_t i = r * d.c + k;
        const float g = passed(b, d, of, i), xhat = sums ? (fv_get(b.x + i) - of.mean) * of.rstd : 0;
        if (b.dresidual) fv_put(b.dresidual + i, g);
        if (b.dx) fv_put(b.dx + i, of.by * (g - (shift + xhat * slope)));
    }
}

static cudaError_t batch_norm_backward(const fv_cuda_call *c, bool batch_statistics) {
    const cutting d = cutting_of(&c->in[1].type, &c->attr->batch_norm);
    backward<float> b;
    b.dy = static_cast<const float *>(c->in[0].data);
    b.x = static_cast<const float *>(c->in[1].data);
    b.y = static_cast<const float *>(fv_operand(c, 2));
    b.mean = static_cast<const float *>(fv_operand(c, 3));
    b.var = static_cast<const float *>(fv_operand(c, 4));
    b.gamma = static_cast<const float *>(fv_operand(c, 5));
    b.beta = static_cast<const float *>(fv_operand(c, 6));
    b.residual = static_cast<const float *>(fv_operand(c, 7));
    b.dx = static_cast<float *>(fv_result_of(c, 0));
    b.dgamma = static_cast<float *>(fv_result_of(c, 1));
    b.dbeta = static_cast<float *>(fv_result_of(c, 2));
    b.dresidual = static_cast<float *>(fv_result_of(c, 3));
    float *sums = static_cast<float *>(c->workspace), *tiles = sums + 2 * d.c;
    if (b.dgamma || b.dbeta || (b.dx && batch_statistics)) {
        FV_LAUNCH(tile_sums_kernel<float>, strips_of(d), block_of(d), 0, c->stream, b, tiles, d);
        FV_LAUNCH(add_tiles_kernel, fv_blocks(d.c, FV_THREADS), FV_THREADS, 0, c->stream, tiles, sums, b.dgamma,
                  b.dbeta, d);
    }
    if (b.dx || b.dresidual)
        FV_LAUNCH(gradient_kernel<float>, even_strips_of(d), block_of(d), 0, c->stream, b,
                  batch_statistics ? sums : NULL, d);
    return cudaGetLastError();
}

cudaError_t fv_cuda_batch_norm_bwd(const fv_cuda_call *c) {
    return batch_norm_backward(c, true);
}
cudaError_t fv_cuda_batch_norm_infer_bwd(const fv_cuda_call *c) {
    return batch_norm_backward(c, false);
}
