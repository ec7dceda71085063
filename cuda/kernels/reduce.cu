/* reduce.cu: sums and means over any dimensions.
 *
 *   x with the dimensions that are kept (K) and summed over (R), neighbours of one kind merged:
 *   last is R:  a block per result; its threads go along the row              [K, R], [R], [K, R, K, R]
 *   last is K:  32 results side by side x 8 rows of terms                     [R, K], [K, R, K]
 *
 * When there are few results, the terms are cut in slices; each leaves a partial sum, added in order by the block that
 * ends last of those with the same results.
 *
 *   workspace   [ slice 0: results | slice 1: results | ... ]   doubles
 *   table       blocks that have ended, by blockIdx.x */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

#define ACROSS 32
#define DOWN 8
#define SLICE 2048 /* terms of a slice, at least */
#define MOST_SLICES 256

struct reduction {
    int kept_rank, sum_rank;
    int64_t kept[FV_MAX_RANK], kept_stride[FV_MAX_RANK]; /* of the results */
    int64_t sum[FV_MAX_RANK], sum_stride[FV_MAX_RANK];   /* of the terms */
    int64_t results, terms, slice;                       /* terms per slice */
    int slices;
    bool last_kept;
};

static reduction reduction_of(const fv_type *t, uint32_t axes) {
    reduction r = {};
    r.results = r.terms = 1;
    int before = -1; /* kind of the dimension before: 1 is summed over */
    for (int d = 0; d < t->rank; d++) {
        const int summed = axes >> d & 1;
        const int64_t n = t->dim[d], stride = fv_extent(t, d + 1, t->rank);
        if (n == 1) continue;
        int *rank = summed ? &r.sum_rank : &r.kept_rank;
        int64_t *dim = summed ? r.sum : r.kept, *to = summed ? r.sum_stride : r.kept_stride;
        *(summed ? &r.terms : &r.results) *= n;
        if (before == summed) {
            dim[*rank - 1] *= n;
            to[*rank - 1] = stride;
        } else {
            dim[*rank] = n;
            to[(*rank)++] = stride;
        }
        before = summed;
    }
    r.last_kept = before == 0;
    const int64_t groups = r.last_kept ? fv_up(r.results, ACROSS) : r.results;
    const int64_t wanted = fv_most(1, fv_least(MOST_SLICES, 512 / fv_most(groups, 1)));
    r.slices = (int)fv_most(1, fv_least(wanted, r.terms / SLICE));
    r.slice = fv_up(r.terms, r.slices);
    r.slices = (int)fv_up(r.terms, r.slice);
    return r;
}

FV_HD int64_t offset_in(int rank, const int64_t *dim, const int64_t *stride, int64_t flat) {
    int64_t to = 0;
#pragma unroll
    for (int d = FV_MAX_RANK - 1; d >= 0; d--) {
        if (d >= rank) continue;
        const int64_t rest = d > 0 ? flat / dim[d] : 0;
        to += (flat - rest * dim[d]) * stride[d];
        flat = rest;
    }
    return to;
}

/* Eight terms at a time in float32, then to double. */
template <typename E>
__device__ double sum_along(const E *x, const reduction &r, int64_t begin, int64_t end, int step) {
    double sum = 0;
    for (int64_t t = begin; t < end; t += 8 * step) {
        float few = 0;
        for (int j = 0; j < 8; j++) {
            const int64_t at = t + j * step;
            if (at < end) few += fv_get(x + offset_in(r.sum_rank, r.sum, r.sum_stride, at));
        }
        sum += few;
    }
    return sum;
}

/* Slices: a block has results of its own, and one slice of them. */
template <typename E>
__global__ void reduce_rows_kernel(const E *x, float *y, double *partial, unsigned *ended, reduction r, double by) {
    const int64_t begin = blockIdx.y * r.slice, end = fv_least(begin + r.slice, r.terms);
    for (int64_t o = blockIdx.x; o < r.results; o += gridDim.x) {
        const E *own = x + offset_in(r.kept_rank, r.kept, r.kept_stride, o);
        const double sum = fv_block_sum(sum_along(own, r, begin + threadIdx.x, end, blockDim.x));
        if (threadIdx.x == 0 && r.slices == 1) y[o] = (float)(sum * by);
        if (threadIdx.x == 0 && r.slices > 1) partial[blockIdx.y * r.results + o] = sum;
    }
    if (r.slices == 1 || !fv_is_last_block(ended + blockIdx.x, gridDim.y)) return;
    double sum = 0;
    for (int s = threadIdx.x; blockIdx.x < r.results && s < r.slices; s += blockDim.x)
        sum += fv_partial(partial + s * r.results + blockIdx.x);
    sum = fv_block_sum(sum);
    if (threadIdx.x == 0 && blockIdx.x < r.results) y[blockIdx.x] = (float)(sum * by);
}

/* Sums over threadIdx.y, for threadIdx.y = 0. */
__device__ __forceinline__ double add_down(double sum) {
    __shared__ double part[DOWN][ACROSS];
    __syncthreads();
    part[threadIdx.y][threadIdx.x] = sum;
    __syncthreads();
    for (int k = 1; threadIdx.y == 0 && k < DOWN; k++) sum += part[k][threadIdx.x];
    return sum;
}

template <typename E>
__global__ void reduce_columns_kernel(const E *x, float *y, double *partial, unsigned *ended, reduction r, double by) {
    const int64_t begin = blockIdx.y * r.slice, end = fv_least(begin + r.slice, r.terms);
    for (int64_t o0 = (int64_t)blockIdx.x * ACROSS; o0 < r.results; o0 += (int64_t)gridDim.x * ACROSS) {
        const int64_t o = o0 + threadIdx.x;
        double sum = 0;
        if (o < r.results)
            sum = sum_along(x + offset_in(r.kept_rank, r.kept, r.kept_stride, o), r, begin + threadIdx.y, end, DOWN);
        sum = add_down(sum);
        if (threadIdx.y != 0 || o >= r.results) continue;
        if (r.slices == 1) y[o] = (float)(sum * by);
        else partial[blockIdx.y * r.results + o] = sum;
    }
    if (r.slices == 1 || !fv_is_last_block(ended + blockIdx.x, gridDim.y)) return;
    const int64_t o = (int64_t)blockIdx.x * ACROSS + threadIdx.x;
    double sum = 0;
#pragma unroll 8
    for (int s = threadIdx.y; o < r.results && s < r.slices; s += DOWN) sum += fv_partial(partial + s * r.results + o);
    sum = add_down(sum);
    if (threadIdx.y == 0 && o < r.results) y[o] = (float)(sum * by);
}

static unsigned groups_of(const reduction &r) {
    return fv_blocks(r.results, r.last_kept ? ACROSS : 1);
}

/* The result is float32, whatever is added up. */
template <typename E> static cudaError_t reduce(const fv_cuda_call *c, bool mean) {
    const reduction r = reduction_of(&c->in[0].type, c->attr->reduce.axes);
    const E *x = fv_operand<E>(c, 0);
    float *y = fv_result_of(c, 0);
    double *partial = static_cast<double *>(c->workspace);
    const double by = mean ? 1.0 / (double)r.terms : 1.0;
    unsigned *ended = static_cast<unsigned *>(c->table);
    const dim3 grid(groups_of(r), (unsigned)r.slices);
    if (r.last_kept)
        FV_LAUNCH(reduce_columns_kernel<E>, grid, dim3(ACROSS, DOWN), 0, c->stream, x, y, partial, ended, r, by);
    else FV_LAUNCH(reduce_rows_kernel<E>, grid, FV_THREADS, 0, c->stream, x, y, partial, ended, r, by);
    return cudaGetLastError();
}

cudaError_t fv_cuda_sum(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], reduce, c, false);
}
cudaError_t fv_cuda_mean(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], reduce, c, true);
}

size_t fv_cuda_reduce_workspace(const fv_graph *g, const fv_node *node) {
    const reduction r = reduction_of(fv_operand_type(g, node, 0), node->attr.reduce.axes);
    return r.slices > 1 ? (size_t)r.slices * (size_t)r.results * sizeof(double) : 0;
}

size_t fv_cuda_reduce_table(const fv_cuda_call *c) {
    const reduction r = reduction_of(&c->in[0].type, c->attr->reduce.axes);
    return r.slices > 1 ? groups_of(r) * sizeof(unsigned) : 0;
}
