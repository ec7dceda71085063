/* batch_norm.cu: batch norm of x [rows,c], per channel.
 *
 *   forward    moments ─► apply        backward   sums ─► gradient
 *
 * A thread has V channels side by side, as many as 16 bytes hold (8 of bf16 or f16, 4 floats), or 4 or 1 where c is
 * no multiple of that. x is cut in strips of as many channels as a line of the cache holds, and these in tiles of
 * tile_rows rows, a block each. Moments of a tile are its mean and its sum of squared distances from that mean, in two
 * passes of which the second reads the cache. Of the blocks of a strip the one that ends last combines the tiles, in
 * double (Chan et al. 1983). It reads 8 bytes per tile and channel alone: 128 KB at most, a microsecond or two, which
 * is why there are no more tiles and strips are no wider.
 *
 *   workspace   [2] [c] mean, var or the two sums; then [tiles] [2] [c] of the tiles   floats
 *   table       [strips] blocks that have ended */
#include "cuda/kernels/activation.cuh"
#include "cuda/kernels/kernels.h"

#define MOST_TILES 256
#define LINE 128 /* bytes */

/* How x is cut. lanes x down threads make a block. */
struct bn_cut {
    int64_t rows, c, tile_rows;
    int tiles, vector, lanes, down;
    int act; /* fv_act_kind */
    float eps;
};

static bn_cut cut_of(const fv_type *t, const fv_batch_norm_attr *a) {
    bn_cut d;
    d.c = t->dim[t->rank - 1];
    d.rows = fv_extent(t, 0, t->rank - 1);
    d.vector = fv_is_low(t->dtype) && d.c % 8 == 0 ? 8 : d.c % 4 == 0 ? 4 : 1;
    d.lanes = 1;
    const int most = (int)fv_least(32, LINE / (d.vector * (int)fv_dtype_size(t->dtype)));
    while (d.lanes < most && d.lanes * d.vector < d.c) d.lanes *= 2;
    d.down = FV_THREADS / d.lanes;
    const int64_t strips = fv_up(d.c, d.lanes * d.vector);
    const int64_t wanted = fv_most(1, fv_least(MOST_TILES, 1024 / strips));
    d.tile_rows = fv_most(8 * d.down, fv_up(d.rows, wanted));
    d.tiles = (int)fv_most(1, fv_up(d.rows, d.tile_rows));
    d.act = a->act;
    d.eps = (float)a->eps;
    return d;
}

/* A launcher for the channels of a thread: FUNCTION<E, V>(arguments...). */
#define BY_VECTOR(vector, FUNCTION, ...) \
    ((vector) == FV_WIDE<E> ? FUNCTION<E, FV_WIDE<E>>(__VA_ARGS__) \
     : (vector) == 4        ? FUNCTION<E, 4>(__VA_ARGS__) \
                            : FUNCTION<E, 1>(__VA_ARGS__))

size_t fv_cuda_batch_norm_workspace(const fv_graph *g, const fv_node *node) {
    const bool backward = node->op == FV_OP_BATCH_NORM_BWD || node->op == FV_OP_BATCH_NORM_INFER_BWD;
    const bn_cut d = cut_of(fv_operand_type(g, node, backward ? 1 : 0), &node->attr.batch_norm);
    return (size_t)d.c * (size_t)(2 + 2 * d.tiles) * sizeof(float);
}

size_t fv_cuda_batch_norm_table(const fv_cuda_call *c) {
    const bool backward = c->node->op == FV_OP_BATCH_NORM_BWD || c->node->op == FV_OP_BATCH_NORM_INFER_BWD;
    const bn_cut d = cut_of(&c->in[backward ? 1 : 0].type, &c->attr->batch_norm);
    return (size_t)fv_up(d.c, d.lanes * d.vector) * sizeof(unsigned);
}

/* Sums over the threads of the block that share threadIdx.x, for threadIdx.y = 0. part [down][lanes] */
template <int V> __device__ __forceinline__ fv_some<V> sum_down(fv_some<V> v, fv_some<V> *part) {
    __syncthreads();
    part[threadIdx.y * blockDim.x + threadIdx.x] = v;
    __syncthreads();
    if (threadIdx.y != 0) return v;
    for (unsigned k = 1; k < blockDim.y; k++)
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] += part[k * blockDim.x + threadIdx.x].v[j];
    return v;
}
template <int V> __device__ __forceinline__ fv_some<V> zeros() {
    fv_some<V> v;
#pragma unroll
    for (int j = 0; j < V; j++) v.v[j] = 0;
    return v;
}

/* What a channel's tiles add up to, for the thread that has it: two sums of what the tiles hold; or, of moments, sums
 * of distances and of squared distances from `origin`, the first tile's mean, that make up mean and variance. */
struct strip_total {
    bool own; /* this thread has a channel: */
    int64_t k;
    double sum, second;
    float origin;
};
/* One value of each thread and each of its V channels, added over threadIdx.y; thread c of the first lanes * V gets the
 * sum of channel c of the strip. space [V][down][lanes] */
template <int V> __device__ __forceinline__ double add_down(const double (&v)[V], double *space, const bn_cut &d) {
    const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), lane = thread / V, j = thread % V;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < V; i++) space[(i * d.down + (int)threadIdx.y) * d.lanes + (int)threadIdx.x] = v[i];
    __syncthreads();
    double sum = 0;
    if (thread >= V * d.lanes) return sum;
#pragma unroll 8
    for (int y = 0; y < d.down; y++) sum += space[(j * d.down + y) * d.lanes + lane];
    return sum;
}
template <int V, bool MOMENTS>
__device__ __forceinline__ strip_total total_of_strip(const float *tiles, double *space, const bn_cut &d) {
    const int64_t first = (int64_t)blockIdx.x * d.lanes * V, k = first + (int64_t)threadIdx.x * V;
    const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x);
    const bool reads = k < d.c;
    double sum[V], second[V];
    fv_some<V> origin = zeros<V>();
    if (MOMENTS && reads) origin = fv_partials<V>(tiles, k);
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] = second[j] = 0;
#pragma unroll 1
    for (int t = threadIdx.y; reads && t < d.tiles; t += d.down) {
        const fv_some<V> a = fv_partials<V>(tiles, 2 * (int64_t)t * d.c + k),
                         b = fv_partials<V>(tiles, (2 * (int64_t)t + 1) * d.c + k);
        const double rows = (double)fv_least(d.tile_rows, d.rows - t * d.tile_rows);
#pragma unroll
        for (int j = 0; j < V; j++) {
            const double off = (double)a.v[j] - origin.v[j], by = MOMENTS ? rows * off : off;
            sum[j] += by;
            second[j] += MOMENTS ? b.v[j] + by * off : b.v[j];
        }
    }
    strip_total total;
    total.k = first + thread;
    total.own = thread < V * d.lanes && total.k < d.c;
    total.sum = add_down<V>(sum, space, d);
    total.second = add_down<V>(second, space, d);
    total.origin = MOMENTS && total.own ? fv_partial(tiles + total.k) : 0;
    return total;
}

__device__ __forceinline__ float rstd_of(float var, float eps) {
    return 1.0f / sqrtf(var + eps);
}

/* ---------------------------------------------------------------- forward */

/* tiles [tile][2][c]: mean, sum of squared distances. */
template <typename E, int V>
__global__ void __launch_bounds__(FV_THREADS, 3) /* with fewer registers ptxas spills some */
    moments_kernel(const E *x, float *tiles, float *mean, float *var, unsigned *ended, bn_cut d) {
    __shared__ double space[V * FV_THREADS];
    __shared__ fv_some<V> means[32];
    fv_some<V> *const part = reinterpret_cast<fv_some<V> *>(space);
    const int64_t k = ((int64_t)blockIdx.x * d.lanes + threadIdx.x) * V;
    const int64_t begin = blockIdx.y * d.tile_rows, end = fv_least(begin + d.tile_rows, d.rows);
    const bool own = k < d.c;
    fv_some<V> sum = zeros<V>(), squares = zeros<V>();
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) {
        const fv_some<V> v = fv_load<V>(x, r * d.c + k);
#pragma unroll
        for (int j = 0; j < V; j++) sum.v[j] += v.v[j];
    }
    sum = sum_down(sum, part);
    if (threadIdx.y == 0) {
#pragma unroll
        for (int j = 0; j < V; j++) sum.v[j] /= (float)(end - begin);
        means[threadIdx.x] = sum;
    }
    __syncthreads();
    const fv_some<V> about = means[threadIdx.x];
#pragma unroll 4
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) {
        const fv_some<V> v = fv_load<V>(x, r * d.c + k);
#pragma unroll
        for (int j = 0; j < V; j++) {
            const float centred = v.v[j] - about.v[j];
            squares.v[j] = fmaf(centred, centred, squares.v[j]);
        }
    }
    squares = sum_down(squares, part);
    if (threadIdx.y == 0 && own) {
        fv_save<V>(tiles, (2 * (int64_t)blockIdx.y) * d.c + k, about);
        fv_save<V>(tiles, (2 * (int64_t)blockIdx.y + 1) * d.c + k, squares);
    }
    if (!fv_is_last_block(ended + blockIdx.x, gridDim.y)) return;
    const strip_total all = total_of_strip<V, true>(tiles, space, d);
    if (!all.own) return;
    const double off = all.sum / (double)d.rows;
    mean[all.k] = (float)(all.origin + off);
    const double spread = all.second / (double)d.rows - off * off;
    var[all.k] = spread < 0 ? 0.0f : (float)spread; /* rounding; NaN stays */
}

/* What the channels of a thread need: act is applied to (x - mean) * by + add + residual. */
template <int V> struct affine { fv_some<V> mean, by, add; };
template <int V>
__device__ __forceinline__ affine<V> affine_of(const float *mean, const float *var, const float *gamma,
                                               const float *beta, float eps, int64_t k) {
    affine<V> a;
#pragma unroll
    for (int j = 0; j < V; j++) {
        a.mean.v[j] = mean[k + j];
        a.by.v[j] = rstd_of(var[k + j], eps) * (gamma ? gamma[k + j] : 1.0f);
        a.add.v[j] = beta ? beta[k + j] : 0.0f;
    }
    return a;
}
template <typename E, int V>
__device__ __forceinline__ fv_some<V> before_act(const affine<V> &a, const E *x, const E *residual, int64_t i) {
    fv_some<V> v = fv_load<V>(x, i);
#pragma unroll
    for (int j = 0; j < V; j++) v.v[j] = fmaf(v.v[j] - a.mean.v[j], a.by.v[j], a.add.v[j]);
    if (!residual) return v;
    const fv_some<V> r = fv_load<V>(residual, i);
#pragma unroll
    for (int j = 0; j < V; j++) v.v[j] += r.v[j];
    return v;
}

/* y may be x. */
template <typename E, int V>
__global__ void apply_kernel(const E *x, const float *mean, const float *var, const float *gamma, const float *beta,
                             const E *residual, E *y, bn_cut d) {
    const int64_t k = ((int64_t)blockIdx.x * d.lanes + threadIdx.x) * V;
    if (k >= d.c) return;
    const affine<V> a = affine_of<V>(mean, var, gamma, beta, d.eps, k);
    for (int64_t r = (int64_t)blockIdx.y * d.down + threadIdx.y; r < d.rows; r += (int64_t)gridDim.y * d.down) {
        fv_some<V> v = before_act(a, x, residual, r * d.c + k);
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = fv_act_of(d.act, v.v[j]);
        fv_save<V>(y, r * d.c + k, v);
    }
}

static dim3 strips_of(const bn_cut &d) {
    return dim3((unsigned)fv_up(d.c, d.lanes * d.vector), (unsigned)d.tiles);
}
/* Blocks for what works on each element for itself: eight rows to a thread. */
static dim3 even_strips_of(const bn_cut &d) {
    const int64_t blocks = fv_up(d.rows, 8 * (int64_t)d.down);
    return dim3((unsigned)fv_up(d.c, d.lanes * d.vector), (unsigned)fv_most(1, fv_least(blocks, 65535)));
}
static dim3 block_of(const bn_cut &d) {
    return dim3((unsigned)d.lanes, (unsigned)d.down);
}

template <typename E, int V>
static cudaError_t moments(const fv_cuda_call *c, const bn_cut &d, float *tiles, float *mean, float *var) {
    FV_LAUNCH((moments_kernel<E, V>), strips_of(d), block_of(d), 0, c->stream, fv_operand<E>(c, 0), tiles, mean, var,
              static_cast<unsigned *>(c->table), d);
    return cudaGetLastError();
}

/* gamma is operand `first`, beta and the residual come after it. */
template <typename E, int V>
static cudaError_t apply(const fv_cuda_call *c, const bn_cut &d, const float *mean, const float *var, int first) {
    E *y = fv_result_of<E>(c, 0);
    if (y)
        FV_LAUNCH((apply_kernel<E, V>), even_strips_of(d), block_of(d), 0, c->stream, fv_operand<E>(c, 0), mean, var,
                  fv_operand(c, first), fv_operand(c, first + 1), fv_operand<E>(c, first + 2), y, d);
    return cudaGetLastError();
}

template <typename E> static cudaError_t batch_norm(const fv_cuda_call *c) {
    const bn_cut d = cut_of(&c->in[0].type, &c->attr->batch_norm);
    float *scratch = static_cast<float *>(c->workspace), *tiles = scratch + 2 * d.c;
    float *mean = fv_result_of(c, 1), *var = fv_result_of(c, 2);
    if (!mean) mean = scratch;
    if (!var) var = scratch + d.c;
    const cudaError_t error = BY_VECTOR(d.vector, moments, c, d, tiles, mean, var);
    if (error != cudaSuccess) return error;
    return BY_VECTOR(d.vector, apply, c, d, mean, var, 1);
}

template <typename E> static cudaError_t batch_norm_infer(const fv_cuda_call *c) {
    const bn_cut d = cut_of(&c->in[0].type, &c->attr->batch_norm);
    return BY_VECTOR(d.vector, apply, c, d, fv_operand(c, 1), fv_operand(c, 2), 3);
}

cudaError_t fv_cuda_batch_norm(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], batch_norm, c);
}
cudaError_t fv_cuda_batch_norm_infer(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], batch_norm_infer, c);
}

/* ---------------------------------------------------------------- backward */

/* Operands of both gradients. With g = dy * act': sums of g and of g * xhat. */
template <typename E> struct bn_gradient {
    const E *dy, *x, *y; /* y: only with relu, whose slope it tells */
    const float *mean, *var, *gamma, *beta;
    const E *residual;
    E *dx, *dresidual; /* dx may be dy */
    float *dgamma, *dbeta;
};

template <typename E, int V>
__device__ __forceinline__ fv_some<V> before_gradient(const bn_gradient<E> &b, const affine<V> &a, int act, int64_t i) {
    fv_some<V> g = fv_load<V>(b.dy, i);
    if (act == FV_ACT_NONE) return g;
    const fv_some<V> saved = act == FV_ACT_RELU ? fv_load<V>(b.y, i) : before_act(a, b.x, b.residual, i);
#pragma unroll
    for (int j = 0; j < V; j++) g.v[j] *= fv_act_slope_of(act, saved.v[j]);
    return g;
}

/* tiles [tile][2][c]: sum of g, sum of g * xhat. sums [2][c]: of all tiles. */
template <typename E, int V>
__global__ void sums_kernel(bn_gradient<E> b, float *tiles, float *sums, unsigned *ended, bn_cut d) {
    __shared__ double space[V * FV_THREADS];
    fv_some<V> *const part = reinterpret_cast<fv_some<V> *>(space);
    const int64_t k = ((int64_t)blockIdx.x * d.lanes + threadIdx.x) * V;
    const int64_t begin = blockIdx.y * d.tile_rows, end = fv_least(begin + d.tile_rows, d.rows);
    const bool own = k < d.c;
    fv_some<V> sum = zeros<V>(), dot = zeros<V>(), rstd = zeros<V>();
    affine<V> a = {};
    if (own) a = affine_of<V>(b.mean, b.var, b.gamma, b.beta, d.eps, k);
#pragma unroll
    for (int j = 0; j < V; j++) rstd.v[j] = own ? rstd_of(b.var[k + j], d.eps) : 0.0f;
    for (int64_t r = begin + threadIdx.y; own && r < end; r += d.down) {
        const fv_some<V> g = before_gradient(b, a, d.act, r * d.c + k), x = fv_load<V>(b.x, r * d.c + k);
#pragma unroll
        for (int j = 0; j < V; j++) {
            sum.v[j] += g.v[j];
            dot.v[j] = fmaf(g.v[j], (x.v[j] - a.mean.v[j]) * rstd.v[j], dot.v[j]);
        }
    }
    sum = sum_down(sum, part);
    dot = sum_down(dot, part);
    if (threadIdx.y == 0 && own) {
        fv_save<V>(tiles, (2 * (int64_t)blockIdx.y) * d.c + k, sum);
        fv_save<V>(tiles, (2 * (int64_t)blockIdx.y + 1) * d.c + k, dot);
    }
    if (!fv_is_last_block(ended + blockIdx.x, gridDim.y)) return;
    const strip_total all = total_of_strip<V, false>(tiles, space, d);
    if (!all.own) return;
    sums[all.k] = (float)all.sum;
    sums[d.c + all.k] = (float)all.second;
    if (b.dbeta) b.dbeta[all.k] = (float)all.sum;
    if (b.dgamma) b.dgamma[all.k] = (float)all.second;
}

/* dx = gamma * rstd * (g - (sum of g + xhat * sum of g xhat) / rows); without the correction if sums is null. */
template <typename E, int V> __global__ void bn_gradient_kernel(bn_gradient<E> b, const float *sums, bn_cut d) {
    const int64_t k = ((int64_t)blockIdx.x * d.lanes + threadIdx.x) * V;
    if (k >= d.c) return;
    const affine<V> a = affine_of<V>(b.mean, b.var, b.gamma, b.beta, d.eps, k);
    fv_some<V> shift = zeros<V>(), slope = zeros<V>();
#pragma unroll
    for (int j = 0; sums && j < V; j++) {
        shift.v[j] = sums[k + j] / (float)d.rows;
        slope.v[j] = sums[d.c + k + j] / (float)d.rows * rstd_of(b.var[k + j], d.eps);
    }
    for (int64_t r = (int64_t)blockIdx.y * d.down + threadIdx.y; r < d.rows; r += (int64_t)gridDim.y * d.down) {
        const int64_t i = r * d.c + k;
        fv_some<V> g = before_gradient(b, a, d.act, i);
        if (b.dresidual) fv_save<V>(b.dresidual, i, g);
        if (!b.dx) continue;
        const fv_some<V> x = sums ? fv_load<V>(b.x, i) : a.mean;
#pragma unroll
        for (int j = 0; j < V; j++) g.v[j] = a.by.v[j] * (g.v[j] - fmaf(x.v[j] - a.mean.v[j], slope.v[j], shift.v[j]));
        fv_save<V>(b.dx, i, g);
    }
}

template <typename E> static bn_gradient<E> gradient_of(const fv_cuda_call *c) {
    bn_gradient<E> b;
    b.dy = fv_operand<E>(c, 0);
    b.x = fv_operand<E>(c, 1);
    b.y = fv_operand<E>(c, 2);
    b.mean = fv_operand(c, 3);
    b.var = fv_operand(c, 4);
    b.gamma = fv_operand(c, 5);
    b.beta = fv_operand(c, 6);
    b.residual = fv_operand<E>(c, 7);
    b.dx = fv_result_of<E>(c, 0);
    b.dgamma = fv_result_of(c, 1);
    b.dbeta = fv_result_of(c, 2);
    b.dresidual = fv_result_of<E>(c, 3);
    return b;
}

template <typename E, int V>
static cudaError_t backward_of(const fv_cuda_call *c, const bn_cut &d, bool batch_statistics) {
    const bn_gradient<E> b = gradient_of<E>(c);
    float *sums = static_cast<float *>(c->workspace), *tiles = sums + 2 * d.c;
    if (b.dgamma || b.dbeta || (b.dx && batch_statistics))
        FV_LAUNCH((sums_kernel<E, V>), strips_of(d), block_of(d), 0, c->stream, b, tiles, sums,
                  static_cast<unsigned *>(c->table), d);
    if (!batch_statistics) sums = NULL;
    if (b.dx || b.dresidual)
        FV_LAUNCH((bn_gradient_kernel<E, V>), even_strips_of(d), block_of(d), 0, c->stream, b, sums, d);
    return cudaGetLastError();
}
template <typename E> static cudaError_t backward(const fv_cuda_call *c, bool batch_statistics) {
    const bn_cut d = cut_of(&c->in[1].type, &c->attr->batch_norm);
    return BY_VECTOR(d.vector, backward_of, c, d, batch_statistics);
}

cudaError_t fv_cuda_batch_norm_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[1], backward, c, true);
}
cudaError_t fv_cuda_batch_norm_infer_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[1], backward, c, false);
}
