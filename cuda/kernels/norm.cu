/* norm.cu: layer and group norm in one: x seen as [n, space, groups, cg], statistics per (n, group) over space and cg.
 * Layer norm over the last dimension is n = rows, space = 1, groups = 1. A team has one group of one picture: a warp,
 * or a block where groups are large. A thread reads V elements at once: what 16 bytes hold, or 1 where cg is no
 * multiple of that.
 *
 *   gradients of gamma and beta: columns of [n * space] rows, cut in tiles; the block that ends last adds them in order
 *   workspace (backward)   [tiles] [2] [c] floats
 *   table (backward)       [strips of 32 channels] blocks that have ended */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define MOST_TILES 256

struct grouping {
    int64_t n, space, groups, cg, c, members;
    int64_t rows, tile_rows; /* backward */
    int tiles;
    float eps;
};

static grouping grouping_of(const fv_type *x, const fv_norm_attr *a, bool layer) {
    grouping d;
    d.c = x->dim[x->rank - 1];
    d.n = layer ? fv_extent(x, 0, x->rank - 1) : x->dim[0];
    d.space = layer ? 1 : fv_extent(x, 1, x->rank - 1);
    d.groups = layer ? 1 : a->groups;
    d.cg = d.c / d.groups;
    d.members = d.space * d.cg;
    d.rows = d.n * d.space;
    const int64_t wanted = fv_most(1, fv_least(MOST_TILES, 1024 / fv_up(d.c, 32)));
    d.tile_rows = fv_most(32, fv_up(d.rows, wanted));
    d.tiles = (int)fv_up(d.rows, d.tile_rows);
    d.eps = (float)a->eps;
    return d;
}

/* Element m of group g of picture n. */
FV_HD int64_t member(const grouping &d, int64_t n, int64_t g, int64_t m) {
    const int64_t s = d.space > 1 ? m / d.cg : 0;
    return (n * d.space + s) * d.c + g * d.cg + (m - s * d.cg);
}
FV_HD int64_t channel(const grouping &d, int64_t g, int64_t m) {
    return g * d.cg + (d.space > 1 ? m % d.cg : m);
}

#define LARGE_GROUP 2048

/* The threads that share a group. */
template <bool WARP> struct team {
    int64_t first, step; /* groups: the team's first, and how far to its next */
    int lane, width;
};
template <bool WARP> __device__ __forceinline__ team<WARP> team_of() {
    if (!WARP) return {(int64_t)blockIdx.x, (int64_t)gridDim.x, (int)threadIdx.x, (int)blockDim.x};
    const int64_t teams = blockDim.x / 32;
    return {blockIdx.x * teams + threadIdx.x / 32, gridDim.x * teams, (int)threadIdx.x % 32, 32};
}
template <bool WARP> __device__ __forceinline__ float team_sum(float v) {
    return WARP ? fv_warp_sum(v) : fv_block_sum(v);
}

/* V parameters of a norm's channels; `none` without. */
template <int V> __device__ __forceinline__ fv_some<V> parameters(const float *p, int64_t k, float none) {
    if (p) return fv_load<V>(p, k);
    fv_some<V> r;
#pragma unroll
    for (int j = 0; j < V; j++) r.v[j] = none;
    return r;
}

template <typename E, int V, bool WARP>
__global__ void norm_kernel(const E *x, const float *gamma, const float *beta, E *y, float *mean, float *rstd,
                            grouping d) {
    const team<WARP> t = team_of<WARP>();
    for (int64_t b = t.first; b < d.n * d.groups; b += t.step) {
        const int64_t n = b / d.groups, g = b - n * d.groups;
        float sum = 0, squares = 0;
        for (int64_t m = V * t.lane; m < d.members; m += V * t.width) {
            const fv_some<V> v = fv_load<V>(x, member(d, n, g, m));
#pragma unroll
            for (int j = 0; j < V; j++) sum += v.v[j];
        }
        const float mu = team_sum<WARP>(sum) / (float)d.members;
        for (int64_t m = V * t.lane; m < d.members; m += V * t.width) {
            const fv_some<V> v = fv_load<V>(x, member(d, n, g, m));
#pragma unroll
            for (int j = 0; j < V; j++) squares += (v.v[j] - mu) * (v.v[j] - mu);
        }
        const float rs = 1.0f / sqrtf(team_sum<WARP>(squares) / (float)d.members + d.eps);
        for (int64_t m = V * t.lane; y && m < d.members; m += V * t.width) {
            const int64_t i = member(d, n, g, m), k = channel(d, g, m);
            const fv_some<V> by = parameters<V>(gamma, k, 1), add = parameters<V>(beta, k, 0);
            fv_some<V> v = fv_load<V>(x, i);
#pragma unroll
            for (int j = 0; j < V; j++) v.v[j] = (v.v[j] - mu) * rs * by.v[j] + add.v[j];
            fv_save<V>(y, i, v);
        }
        if (t.lane == 0 && mean) mean[b] = mu;
        if (t.lane == 0 && rstd) rstd[b] = rs;
    }
}

/* With g = dy * gamma: dx = rstd * (g - mean of g - xhat * mean of g * xhat) + residual, which may be NULL. */
template <typename E, int V, bool WARP>
__global__ void norm_bwd_kernel(const E *dy, const E *x, const float *mean, const float *rstd, const float *gamma,
                                const E *residual, E *dx, grouping d) {
    const team<WARP> t = team_of<WARP>();
    for (int64_t b = t.first; b < d.n * d.groups; b += t.step) {
        const int64_t n = b / d.groups, group = b - n * d.groups;
        const float mu = mean[b], rs = rstd[b];
        float sum = 0, dot = 0;
        for (int64_t m = V * t.lane; m < d.members; m += V * t.width) {
            const int64_t i = member(d, n, group, m);
            const fv_some<V> g = fv_load<V>(dy, i), v = fv_load<V>(x, i);
            const fv_some<V> by = parameters<V>(gamma, channel(d, group, m), 1);
#pragma unroll
            for (int j = 0; j < V; j++) {
                sum += g.v[j] * by.v[j];
                dot += g.v[j] * by.v[j] * ((v.v[j] - mu) * rs);
            }
        }
        const float shift = team_sum<WARP>(sum) / (float)d.members, slope = team_sum<WARP>(dot) / (float)d.members;
        for (int64_t m = V * t.lane; m < d.members; m += V * t.width) {
            const int64_t i = member(d, n, group, m);
            const fv_some<V> v = fv_load<V>(x, i), by = parameters<V>(gamma, channel(d, group, m), 1);
            fv_some<V> g = fv_load<V>(dy, i);
#pragma unroll
            for (int j = 0; j < V; j++) g.v[j] = rs * (g.v[j] * by.v[j] - shift - (v.v[j] - mu) * rs * slope);
            if (residual) {
                const fv_some<V> r = fv_load<V>(residual, i);
#pragma unroll
                for (int j = 0; j < V; j++) g.v[j] += r.v[j];
            }
            fv_save<V>(dx, i, g);
        }
    }
}

/* tiles [tile][2][c]: sums of dy and of dy * xhat over the rows of a tile. 32 channels x 8 rows of threads. */
template <typename E>
__global__ void affine_kernel(const E *dy, const E *x, const float *mean, const float *rstd, float *tiles,
                              float *dgamma, float *dbeta, unsigned *ended, grouping d) {
    __shared__ float part[2][8][32];
    __shared__ double totals[2][8][32];
    const int64_t k = (int64_t)blockIdx.x * 32 + threadIdx.x, g = k / d.cg;
    const int64_t begin = blockIdx.y * d.tile_rows, end = fv_least(begin + d.tile_rows, d.rows);
    float sum = 0, dot = 0;
    for (int64_t r = begin + threadIdx.y; k < d.c && r < end; r += 8) {
        const int64_t b = (d.space > 1 ? r / d.space : r) * d.groups + g;
        const float v = fv_get(dy + r * d.c + k);
        sum += v;
        dot += v * ((fv_get(x + r * d.c + k) - mean[b]) * rstd[b]);
    }
    part[0][threadIdx.y][threadIdx.x] = sum;
    part[1][threadIdx.y][threadIdx.x] = dot;
    __syncthreads();
    const bool has_sum = threadIdx.y <= 1 && k < d.c; /* row 0 of threads adds the first sum, row 1 the second */
    if (has_sum) {
        float total = 0;
        for (int j = 0; j < 8; j++) total += part[threadIdx.y][j][threadIdx.x];
        tiles[(2 * (int64_t)blockIdx.y + threadIdx.y) * d.c + k] = total;
    }
    if (!fv_is_last_block(ended + blockIdx.x, gridDim.y)) return;
    double all[2] = {0, 0};
#pragma unroll 4
    for (int t = threadIdx.y; k < d.c && t < d.tiles; t += 8) {
        all[0] += fv_partial(tiles + 2 * (int64_t)t * d.c + k);
        all[1] += fv_partial(tiles + (2 * (int64_t)t + 1) * d.c + k);
    }
    totals[0][threadIdx.y][threadIdx.x] = all[0];
    totals[1][threadIdx.y][threadIdx.x] = all[1];
    __syncthreads();
    float *const to = threadIdx.y == 0 ? dbeta : dgamma;
    if (!has_sum || !to) return;
    double total = 0;
    for (int j = 0; j < 8; j++) total += totals[threadIdx.y][j][threadIdx.x];
    to[k] = (float)total;
}

template <typename E, int V> static cudaError_t normalize(const fv_cuda_call *c, const grouping &d) {
    const E *x = fv_operand<E>(c, 0);
    const float *gamma = fv_operand(c, 1), *beta = fv_operand(c, 2);
    E *y = fv_result_of<E>(c, 0);
    float *mean = fv_result_of(c, 1), *rstd = fv_result_of(c, 2);
    if (d.members <= LARGE_GROUP)
        FV_LAUNCH((norm_kernel<E, V, true>), fv_blocks(d.n * d.groups, FV_THREADS / 32), FV_THREADS, 0, c->stream, x,
                  gamma, beta, y, mean, rstd, d);
    else
        FV_LAUNCH((norm_kernel<E, V, false>), fv_blocks(d.n * d.groups, 1), 512, 0, c->stream, x, gamma, beta, y, mean,
                  rstd, d);
    return cudaGetLastError();
}

template <typename E, int V> static cudaError_t gradient_of_x(const fv_cuda_call *c, const grouping &d) {
    const E *dy = fv_operand<E>(c, 0), *x = fv_operand<E>(c, 1);
    const float *mean = fv_operand(c, 2), *rstd = fv_operand(c, 3), *gamma = fv_operand(c, 4);
    const E *residual = fv_operand<E>(c, 5);
    E *dx = fv_result_of<E>(c, 0);
    if (d.members <= LARGE_GROUP)
        FV_LAUNCH((norm_bwd_kernel<E, V, true>), fv_blocks(d.n * d.groups, FV_THREADS / 32), FV_THREADS, 0, c->stream,
                  dy, x, mean, rstd, gamma, residual, dx, d);
    else
        FV_LAUNCH((norm_bwd_kernel<E, V, false>), fv_blocks(d.n * d.groups, 1), 512, 0, c->stream, dy, x, mean, rstd,
                  gamma, residual, dx, d);
    return cudaGetLastError();
}

template <typename E> static cudaError_t forward(const fv_cuda_call *c, bool layer) {
    const grouping d = grouping_of(&c->in[0].type, &c->attr->norm, layer);
    return d.cg % FV_WIDE<E> == 0 ? normalize<E, FV_WIDE<E>>(c, d) : normalize<E, 1>(c, d);
}

template <typename E> static cudaError_t backward(const fv_cuda_call *c, bool layer) {
    const grouping d = grouping_of(&c->in[1].type, &c->attr->norm, layer);
    float *dgamma = fv_result_of(c, 1), *dbeta = fv_result_of(c, 2), *tiles = static_cast<float *>(c->workspace);
    if (dgamma || dbeta)
        FV_LAUNCH(affine_kernel<E>, dim3((unsigned)fv_up(d.c, 32), (unsigned)d.tiles), dim3(32, 8), 0, c->stream,
                  fv_operand<E>(c, 0), fv_operand<E>(c, 1), fv_operand(c, 2), fv_operand(c, 3), tiles, dgamma, dbeta,
                  static_cast<unsigned *>(c->table), d);
    if (!fv_result_of<E>(c, 0)) return cudaGetLastError();
    return d.cg % FV_WIDE<E> == 0 ? gradient_of_x<E, FV_WIDE<E>>(c, d) : gradient_of_x<E, 1>(c, d);
}

cudaError_t fv_cuda_layer_norm(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], forward, c, true);
}
cudaError_t fv_cuda_layer_norm_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[1], backward, c, true);
}
cudaError_t fv_cuda_group_norm(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], forward, c, false);
}
cudaError_t fv_cuda_group_norm_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[1], backward, c, false);
}

size_t fv_cuda_norm_workspace(const fv_graph *g, const fv_node *node) {
    const grouping d = grouping_of(fv_operand_type(g, node, 1), &node->attr.norm, node->op == FV_OP_LAYER_NORM_BWD);
    return (size_t)d.tiles * 2 * (size_t)d.c * sizeof(float);
}

size_t fv_cuda_norm_table(const fv_cuda_call *c) {
    return (size_t)fv_up(c->in[1].type.dim[c->in[1].type.rank - 1], 32) * sizeof(unsigned);
}
