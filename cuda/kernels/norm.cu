/* norm.cu: layer and group norm in one: x seen as [n, space, groups, cg], statistics per (n, group) over space and cg.
 * Layer norm over the last dimension is n = rows, space = 1, groups = 1. A team has one group of one picture: a warp,
 * or a block where groups are large.
 *
 *   gradients of gamma and beta: columns of [n * space] rows, cut in tiles, which are added in order
 *   workspace (backward)   [tiles] [2] [c] floats */
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

template <typename E, bool WARP>
__global__ void norm_kernel(const E *x, const float *gamma, const float *beta, E *y, float *mean, float *rstd,
                            grouping d) {
    const team<WARP> t = team_of<WARP>();
    for (int64_t b = t.first; b < d.n * d.groups; b += t.step) {
        const int64_t n = b / d.groups, g = b - n * d.groups;
        float sum = 0, squares = 0;
        for (int64_t m = t.lane; m < d.members; m += t.width) sum += fv_get(x + member(d, n, g, m));
        const float mu = team_sum<WARP>(sum) / (float)d.members;
        for (int64_t m = t.lane; m < d.members; m += t.width) {
            const float centred = fv_get(x + member(d, n, g, m)) - mu;
            squares += centred * centred;
        }
        const float rs = 1.0f / sqrtf(team_sum<WARP>(squares) / (float)d.members + d.eps);
        for (int64_t m = t.lane; y && m < d.members; m += t.width) {
            const int64_t i = member(d, n, g, m), k = channel(d, g, m);
            fv_put(y + i, (fv_get(x + i) - mu) * rs * (gamma ? gamma[k] : 1.0f) + (beta ? beta[k] : 0.0f));
        }
        if (t.lane == 0 && mean) mean[b] = mu;
        if (t.lane == 0 && rstd) rstd[b] = rs;
    }
}

/* With g = dy * gamma: dx = rstd * (g - mean of g - xhat * mean of g * xhat). */
template <typename E, bool WARP>
__global__ void norm_bwd_kernel(const E *dy, const E *x, const float *mean, const float *rstd, const float *gamma,
                                E *dx, grouping d) {
    const team<WARP> t = team_of<WARP>();
    for (int64_t b = t.first; b < d.n * d.groups; b += t.step) {
        const int64_t n = b / d.groups, group = b - n * d.groups;
        const float mu = mean[b], rs = rstd[b];
        float sum = 0, dot = 0;
        for (int64_t m = t.lane; m < d.members; m += t.width) {
            const int64_t i = member(d, n, group, m);
            const float g = fv_get(dy + i) * (gamma ? gamma[channel(d, group, m)] : 1.0f);
            sum += g;
            dot += g * ((fv_get(x + i) - mu) * rs);
        }
        const float shift = team_sum<WARP>(sum) / (float)d.members, slope = team_sum<WARP>(dot) / (float)d.members;
        for (int64_t m = t.lane; m < d.members; m += t.width) {
            const int64_t i = member(d, n, group, m);
            const float g = fv_get(dy + i) * (gamma ? gamma[channel(d, group, m)] : 1.0f);
            fv_put(dx + i, rs * (g - shift - (fv_get(x + i) - mu) * rs * slope));
        }
    }
}

/* tiles [tile][2][c]: sums of dy and of dy * xhat over the rows of a tile. 32 channels x 8 rows of threads. */
template <typename E>
__global__ void affine_tiles_kernel(const E *dy, const E *x, const float *mean, const float *rstd, float *tiles,
                                    grouping d) {
    __shared__ float part[2][8][32];
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
    if (threadIdx.y > 1 || k >= d.c) return;
    float total = 0; /* row 0 of threads adds the first sum, row 1 the second */
    for (int j = 0; j < 8; j++) total += part[threadIdx.y][j][threadIdx.x];
    tiles[(2 * (int64_t)blockIdx.y + threadIdx.y) * d.c + k] = total;
}

/* 32 channels x FV_DOWN threads. */
__global__ void add_affine_tiles_kernel(const float *tiles, float *dgamma, float *dbeta, int64_t c, int count) {
    const int64_t k = (int64_t)blockIdx.x * 32 + threadIdx.x;
    double sum = 0, dot = 0;
    for (int t = threadIdx.y; k < c && t < count; t += FV_DOWN) {
        sum += tiles[(2 * (int64_t)t) * c + k];
        dot += tiles[(2 * (int64_t)t + 1) * c + k];
    }
    sum = fv_sum_down(sum);
    dot = fv_sum_down(dot);
    if (threadIdx.y != 0 || k >= c) return;
    if (dbeta) dbeta[k] = (float)sum;
    if (dgamma) dgamma[k] = (float)dot;
}

static cudaError_t forward(const fv_cuda_call *c, bool layer) {
    const grouping d = grouping_of(&c->in[0].type, &c->attr->norm, layer);
    const float *x = static_cast<const float *>(c->in[0].data), *gamma = static_cast<const float *>(fv_operand(c, 1));
    const float *beta = static_cast<const float *>(fv_operand(c, 2));
    float *y = static_cast<float *>(fv_result_of(c, 0)), *mean = static_cast<float *>(fv_result_of(c, 1));
    float *rstd = static_cast<float *>(fv_result_of(c, 2));
    if (d.members <= LARGE_GROUP)
        FV_LAUNCH((norm_kernel<float, true>), fv_blocks(d.n * d.groups, FV_THREADS / 32), FV_THREADS, 0, c->stream, x,
                  gamma, beta, y, mean, rstd, d);
    else
        FV_LAUNCH((norm_kernel<float, false>), fv_blocks(d.n * d.groups, 1), 512, 0, c->stream, x, gamma, beta, y, mean,
                  rstd, d);
    return cudaGetLastError();
}

static cudaError_t backward(const fv_cuda_call *c, bool layer) {
    const grouping d = grouping_of(&c->in[1].type, &c->attr->norm, layer);
    const float *dy = static_cast<const float *>(c->in[0].data), *x = static_cast<const float *>(c->in[1].data);
    const float *mean = static_cast<const float *>(c->in[2].data), *rstd = static_cast<const float *>(c->in[3].data);
    float *dx = static_cast<float *>(fv_result_of(c, 0)), *dgamma = static_cast<float *>(fv_result_of(c, 1));
    float *dbeta = static_cast<float *>(fv_result_of(c, 2)), *tiles = static_cast<float *>(c->workspace);
    if (dgamma || dbeta) {
        FV_LAUNCH(affine_tiles_kernel<float>, dim3((unsigned)fv_up(d.c, 32), (unsigned)d.tiles), dim3(32, 8), 0,
                  c->stream, dy, x, mean, rstd, tiles, d);
        FV_LAUNCH(add_affine_tiles_kernel, fv_blocks(d.c, 32), dim3(32, FV_DOWN), 0, c->stream, tiles, dgamma, dbeta,
                  d.c, d.tiles);
    }
    const float *gamma = static_cast<const float *>(fv_operand(c, 4));
    if (dx && d.members <= LARGE_GROUP)
        FV_LAUNCH((norm_bwd_kernel<float, true>), fv_blocks(d.n * d.groups, FV_THREADS / 32), FV_THREADS, 0, c->stream,
                  dy, x, mean, rstd, gamma, dx, d);
    else if (dx)
        FV_LAUNCH((norm_bwd_kernel<float, false>), fv_blocks(d.n * d.groups, 1), 512, 0, c->stream, dy, x, mean, rstd,
                  gamma, dx, d);
    return cudaGetLastError();
}

cudaError_t fv_cuda_layer_norm(const fv_cuda_call *c) {
    return forward(c, true);
}
cudaError_t fv_cuda_layer_norm_bwd(const fv_cuda_call *c) {
    return backward(c, true);
}
cudaError_t fv_cuda_group_norm(const fv_cuda_call *c) {
    return forward(c, false);
}
cudaError_t fv_cuda_group_norm_bwd(const fv_cuda_call *c) {
    return backward(c, false);
}

size_t fv_cuda_norm_workspace(const fv_graph *g, const fv_node *node) {
    const grouping d = grouping_of(fv_operand_type(g, node, 1), &node->attr.norm, node->op == FV_OP_LAYER_NORM_BWD);
    return (size_t)d.tiles * 2 * (size_t)d.c * sizeof(float);
}
