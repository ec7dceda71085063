/* elementwise.cu: arithmetic with broadcasting as numpy has it, dropout and stochastic depth. */
#include "cuda/kernels/common.cuh"

enum { BINARY_ADD, BINARY_SUB, BINARY_MUL };

template <int KIND> FV_HD float combine(float a, float b) {
    return KIND == BINARY_ADD ? a + b : KIND == BINARY_SUB ? a - b : a * b;
}

/* ---------------------------------------------------------------- operands of the same shape */

template <typename E, int KIND> __global__ void binary_kernel(const E *a, const E *b, E *y, int64_t count) {
    constexpr int V = FV_WIDE<E>;
    for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)) {
        fv_some<V> l = fv_load_of<V>(a, i, count);
        const fv_some<V> r = fv_load_of<V>(b, i, count);
#pragma unroll
        for (int j = 0; j < V; j++) l.v[j] = combine<KIND>(l.v[j], r.v[j]);
        fv_save_of<V>(y, i, count, l);
    }
}

template <typename E> __global__ void scale_kernel(const E *x, E *y, int64_t count, float mul, float add) {
    constexpr int V = FV_WIDE<E>;
    for (int64_t i = FV_FIRST_OF(V); i < count; i += FV_STRIDE_OF(V)) {
        fv_some<V> v = fv_load_of<V>(x, i, count);
#pragma unroll
        for (int j = 0; j < V; j++) v.v[j] = fmaf(mul, v.v[j], add);
        fv_save_of<V>(y, i, count, v);
    }
}

/* ---------------------------------------------------------------- broadcasting */

/* How a flat index of the result finds its operands: dimensions that broadcast alike and touch are one; a stride of 0
 * repeats. */
struct walk {
    int rank;
    int64_t dim[FV_MAX_RANK], stride[2][FV_MAX_RANK];
};

/* Stride of dimension d of the result in an operand whose dimensions are aligned at the right. */
static int64_t stride_of(const fv_type *operand, const fv_type *result, int d) {
    const int k = d - (result->rank - operand->rank);
    return k < 0 || operand->dim[k] == 1 ? 0 : fv_extent(operand, k + 1, operand->rank);
}

static walk make_walk(const fv_type *result, const fv_type *a, const fv_type *b) {
    walk w = {};
    for (int d = 0; d < result->rank; d++) {
        const int64_t n = result->dim[d], to_a = stride_of(a, result, d), to_b = stride_of(b, result, d);
        if (n == 1) continue;
        const int last = w.rank - 1;
        if (last >= 0 && w.stride[0][last] == to_a * n && w.stride[1][last] == to_b * n) {
            w.dim[last] *= n;
            w.stride[0][last] = to_a;
            w.stride[1][last] = to_b;
            continue;
        }
        w.dim[w.rank] = n;
        w.stride[0][w.rank] = to_a;
        w.stride[1][w.rank++] = to_b;
    }
    return w;
}

/* I: uint32_t while indices fit, since a division of 64 bits is slow. */
template <typename I> FV_HD void walk_to(const walk &w, I flat, I *a, I *b) {
    I to_a = 0, to_b = 0;
#pragma unroll
    for (int d = FV_MAX_RANK - 1; d >= 0; d--) {
        if (d >= w.rank) continue;
        const I n = (I)w.dim[d], rest = d > 0 ? flat / n : 0, at = flat - rest * n;
        to_a += at * (I)w.stride[0][d];
        to_b += at * (I)w.stride[1][d];
        flat = rest;
    }
    *a = to_a;
    *b = to_b;
}

template <typename E, typename I, int KIND>
__global__ void broadcast_binary_kernel(const E *a, const E *b, E *y, int64_t count, walk w) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) {
        I to_a, to_b;
        walk_to<I>(w, (I)i, &to_a, &to_b);
        fv_put(y + i, combine<KIND>(fv_get(a + to_a), fv_get(b + to_b)));
    }
}

template <typename E, typename I> __global__ void broadcast_kernel(const E *x, E *y, int64_t count, walk w) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) {
        I from, same;
        walk_to<I>(w, (I)i, &from, &same);
        y[i] = x[from];
    }
}

template <typename E, int KIND> static cudaError_t combined(const fv_cuda_call *c) {
    const E *a = fv_operand<E>(c, 0), *b = fv_operand<E>(c, 1);
    E *y = fv_result_of<E>(c, 0);
    const fv_type *t = &c->out[0].type;
    const int64_t count = fv_count(*t);
    if (fv_count(c->in[0].type) == count && fv_count(c->in[1].type) == count) {
        FV_LAUNCH((binary_kernel<E, KIND>), fv_blocks(count, FV_WIDE<E> * FV_THREADS), FV_THREADS, 0, c->stream, a, b,
                  y, count);
        return cudaGetLastError();
    }
    const walk w = make_walk(t, &c->in[0].type, &c->in[1].type);
    const unsigned blocks = fv_blocks(count, FV_THREADS);
    if (count <= INT32_MAX)
        FV_LAUNCH((broadcast_binary_kernel<E, uint32_t, KIND>), blocks, FV_THREADS, 0, c->stream, a, b, y, count, w);
    else FV_LAUNCH((broadcast_binary_kernel<E, int64_t, KIND>), blocks, FV_THREADS, 0, c->stream, a, b, y, count, w);
    return cudaGetLastError();
}

template <typename E> static cudaError_t sum(const fv_cuda_call *c) {
    return combined<E, BINARY_ADD>(c);
}
template <typename E> static cudaError_t difference(const fv_cuda_call *c) {
    return combined<E, BINARY_SUB>(c);
}
template <typename E> static cudaError_t product(const fv_cuda_call *c) {
    return combined<E, BINARY_MUL>(c);
}

template <typename E> static cudaError_t scaled(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(scale_kernel<E>, fv_blocks(count, FV_WIDE<E> * FV_THREADS), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), count, (float)c->attr->scale.mul, (float)c->attr->scale.add);
    return cudaGetLastError();
}

template <typename E> static cudaError_t repeated(const fv_cuda_call *c) {
    const fv_type *t = &c->out[0].type;
    const int64_t count = fv_count(*t);
    const walk w = make_walk(t, &c->in[0].type, t);
    const E *x = fv_operand<E>(c, 0);
    E *y = fv_result_of<E>(c, 0);
    const unsigned blocks = fv_blocks(count, FV_THREADS);
    if (count <= INT32_MAX)
        FV_LAUNCH((broadcast_kernel<E, uint32_t>), blocks, FV_THREADS, 0, c->stream, x, y, count, w);
    else FV_LAUNCH((broadcast_kernel<E, int64_t>), blocks, FV_THREADS, 0, c->stream, x, y, count, w);
    return cudaGetLastError();
}

cudaError_t fv_cuda_add(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], sum, c);
}
cudaError_t fv_cuda_sub(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], difference, c);
}
cudaError_t fv_cuda_mul(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], product, c);
}
cudaError_t fv_cuda_scale(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], scaled, c);
}
cudaError_t fv_cuda_broadcast(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], repeated, c);
}

/* ---------------------------------------------------------------- randomness: as core/ref/elementwise.inc has it */

struct dropping {
    const fv_step *step; /* device memory */
    uint32_t stream;
    float p, factor; /* 1 / (1 - p) */
    int64_t rows, width;
};

static dropping dropping_of(const fv_cuda_call *c) {
    const fv_type *t = &c->in[0].type;
    const double p = c->attr->dropout.p;
    return {c->step, c->stream_key, (float)p, (float)(1 / (1 - p)), t->dim[0], fv_extent(t, 1, t->rank)};
}

/* A thread has four elements of a row, those of one draw. */
template <typename E> __global__ void dropout_kernel(const E *x, const int64_t *row_key, E *y, dropping d) {
    const uint64_t seed = d.step->seed, step = (uint64_t)d.step->step;
    const int64_t fours = fv_up(d.width, 4);
    for (int64_t i = FV_FIRST; i < d.rows * fours; i += FV_STRIDE) {
        const int64_t row = i / fours, e = i - row * fours;
        const fv_philox words = fv_draw(seed, (uint64_t)e, (uint64_t)row_key[row], step, d.stream);
        const int64_t at = row * d.width + 4 * e;
        if (d.width % 4 == 0) {
            fv_some<4> v = fv_load<4>(x, at);
#pragma unroll
            for (int j = 0; j < 4; j++) v.v[j] = fv_uniform(words.v[j]) >= d.p ? v.v[j] * d.factor : 0.0f;
            fv_save<4>(y, at, v);
            continue;
        }
        for (int j = 0; j < 4 && 4 * e + j < d.width; j++)
            fv_put(y + at + j, fv_uniform(words.v[j]) >= d.p ? fv_get(x + at + j) * d.factor : 0.0f);
    }
}

#define PATH_TILE 2048
/* A block has PATH_TILE elements of a row; wide: rows begin where 16 bytes do. */
template <typename E> __global__ void drop_path_kernel(const E *x, const int64_t *row_key, E *y, dropping d) {
    constexpr int V = FV_WIDE<E>;
    const uint64_t seed = d.step->seed, step = (uint64_t)d.step->step;
    const int64_t tiles = fv_up(d.width, PATH_TILE);
    const bool wide = d.width % V == 0;
    for (int64_t i = blockIdx.x; i < d.rows * tiles; i += gridDim.x) {
        const int64_t row = i / tiles, begin = (i - row * tiles) * PATH_TILE;
        const fv_philox words = fv_draw(seed, 0, (uint64_t)row_key[row], step, d.stream);
        const bool keep = fv_uniform(words.v[0]) >= d.p;
        const int64_t end = fv_least(begin + PATH_TILE, d.width);
        for (int64_t e = begin + V * threadIdx.x; wide && e < end; e += V * blockDim.x) {
            fv_some<V> v = fv_load<V>(x, row * d.width + e);
#pragma unroll
            for (int j = 0; j < V; j++) v.v[j] = keep ? v.v[j] * d.factor : 0.0f;
            fv_save<V>(y, row * d.width + e, v);
        }
        for (int64_t e = begin + threadIdx.x; !wide && e < end; e += blockDim.x)
            fv_put(y + row * d.width + e, keep ? fv_get(x + row * d.width + e) * d.factor : 0.0f);
    }
}

template <typename E> static cudaError_t drop_elements(const fv_cuda_call *c) {
    const dropping d = dropping_of(c);
    FV_LAUNCH(dropout_kernel<E>, fv_blocks(d.rows * fv_up(d.width, 4), FV_THREADS), FV_THREADS, 0, c->stream,
              fv_operand<E>(c, 0), fv_operand<int64_t>(c, 1), fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}

template <typename E> static cudaError_t drop_rows(const fv_cuda_call *c) {
    const dropping d = dropping_of(c);
    FV_LAUNCH(drop_path_kernel<E>, fv_blocks(d.rows * fv_up(d.width, PATH_TILE), 1), FV_THREADS, 0, c->stream,
              fv_operand<E>(c, 0), fv_operand<int64_t>(c, 1), fv_result_of<E>(c, 0), d);
    return cudaGetLastError();
}

cudaError_t fv_cuda_dropout(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], drop_elements, c);
}
cudaError_t fv_cuda_drop_path(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], drop_rows, c);
}
