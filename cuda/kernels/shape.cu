/* shape.cu: operations that only move elements: transpose, concat, slice and its gradient, pad. Rows of whole 16 bytes
 * are moved as such. */
#include "cuda/kernels/common.cuh"

/* A flat index of one tensor to that of another: index k goes through `stride[k]`, plus `base`. */
struct route {
    int rank;
    int64_t dim[FV_MAX_RANK], stride[FV_MAX_RANK], base;
};

FV_HD int64_t follow(const route &r, int64_t flat) {
    int64_t to = r.base;
#pragma unroll
    for (int d = FV_MAX_RANK - 1; d >= 0; d--) {
        if (d >= r.rank) continue;
        const int64_t rest = d > 0 ? flat / r.dim[d] : 0;
        to += (flat - rest * r.dim[d]) * r.stride[d];
        flat = rest;
    }
    return to;
}

/* Dimensions of `t`, each going to the stride that dimension at[d] has in `other` (at NULL: the same one). */
static route route_of(const fv_type *t, const fv_type *other, const int32_t *at) {
    route r = {};
    r.rank = t->rank;
    for (int d = 0; d < t->rank; d++) {
        r.dim[d] = t->dim[d];
        r.stride[d] = fv_extent(other, (at ? at[d] : d) + 1, other->rank);
    }
    return r;
}

template <typename E> __global__ void gather_kernel(const E *x, E *y, int64_t count, route r) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) y[i] = x[follow(r, i)];
}

/* ---------------------------------------------------------------- transpose */

#define SQUARE 32
/* Matrices [rows,columns], one per blockIdx.z, through shared memory, so that both sides are touched in lines. */
template <typename E>
__global__ void transpose_matrix_kernel(const E *x, E *y, int64_t matrices, int64_t rows, int64_t columns) {
    __shared__ E tile[SQUARE][SQUARE + 1];
    const int64_t across = fv_up(columns, SQUARE), down = fv_up(rows, SQUARE);
    const int64_t m = blockIdx.x / (across * down), at = blockIdx.x % (across * down);
    const int64_t i0 = at / across * SQUARE, j0 = at % across * SQUARE;
    x += m * rows * columns;
    y += m * rows * columns;
    for (int k = threadIdx.y; k < SQUARE; k += 8)
        if (i0 + k < rows && j0 + threadIdx.x < columns)
            tile[k][threadIdx.x] = x[(i0 + k) * columns + j0 + threadIdx.x];
    __syncthreads();
    for (int k = threadIdx.y; k < SQUARE; k += 8)
        if (j0 + k < columns && i0 + threadIdx.x < rows) y[(j0 + k) * rows + i0 + threadIdx.x] = tile[threadIdx.x][k];
    (void)matrices;
}

/* perm is 0, .., k - 1, then m, .., rank - 1, then k, .., m - 1: one matrix per leading index. */
static bool is_matrix(const fv_type *x, const int32_t *perm, int64_t *matrices, int64_t *rows, int64_t *columns) {
    int k = 0;
    while (k < x->rank && perm[k] == k) k++;
    if (k == x->rank) return false;
    const int m = perm[k];
    for (int d = k; d < x->rank; d++)
        if (perm[d] != (d - k < x->rank - m ? m + d - k : d - (x->rank - m))) return false;
    *matrices = fv_extent(x, 0, k);
    *rows = fv_extent(x, k, m);
    *columns = fv_extent(x, m, x->rank);
    return true;
}

template <typename E> static cudaError_t transpose(const fv_cuda_call *c) {
    const fv_type *t = &c->in[0].type;
    const int32_t *perm = c->attr->transpose.perm;
    const int64_t count = fv_count(*t);
    const E *x = fv_operand<E>(c, 0);
    E *y = fv_result_of<E>(c, 0);
    int64_t matrices, rows, columns;
    if (is_matrix(t, perm, &matrices, &rows, &columns) && rows >= 8 && columns >= 8) {
        const int64_t blocks = matrices * fv_up(rows, SQUARE) * fv_up(columns, SQUARE);
        if (blocks > INT32_MAX) return cudaErrorInvalidValue;
        FV_LAUNCH(transpose_matrix_kernel<E>, (unsigned)blocks, dim3(SQUARE, 8), 0, c->stream, x, y, matrices, rows,
                  columns);
        return cudaGetLastError();
    }
    FV_LAUNCH(gather_kernel<E>, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, x, y, count,
              route_of(&c->out[0].type, t, perm));
    return cudaGetLastError();
}

cudaError_t fv_cuda_transpose(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], transpose, c);
}

/* ---------------------------------------------------------------- concat */

/* x [outer,part] into y [outer,whole], from element `at` of each row on. */
template <typename E>
__global__ void concat_kernel(const E *x, E *y, int64_t outer, int64_t part, int64_t whole, int64_t at) {
    for (int64_t i = FV_FIRST; i < outer * part; i += FV_STRIDE) {
        const int64_t o = i / part;
        y[o * whole + at + (i - o * part)] = x[i];
    }
}

/* E: what is moved; an element of the tensors, or `each` of them. */
template <typename E> static cudaError_t concat_by(const fv_cuda_call *c, int64_t each) {
    const fv_type *t = &c->out[0].type;
    const int axis = c->attr->concat.axis;
    const int64_t outer = fv_extent(t, 0, axis), inner = fv_extent(t, axis + 1, t->rank);
    int64_t at = 0;
    for (int k = 0; k < c->n_in; k++) {
        const int64_t part = c->in[k].type.dim[axis] * inner / each;
        FV_LAUNCH(concat_kernel<E>, fv_blocks(outer * part, FV_THREADS), FV_THREADS, 0, c->stream, fv_operand<E>(c, k),
                  fv_result_of<E>(c, 0), outer, part, t->dim[axis] * inner / each, at);
        at += part;
    }
    return cudaGetLastError();
}

template <typename E> static cudaError_t concat(const fv_cuda_call *c) {
    const int axis = c->attr->concat.axis;
    const int64_t inner = fv_extent(&c->out[0].type, axis + 1, c->out[0].type.rank);
    for (int k = 0; k < c->n_in; k++)
        if (c->in[k].type.dim[axis] * inner % FV_WIDE<E> != 0) return concat_by<E>(c, 1);
    return concat_by<uint4>(c, FV_WIDE<E>);
}

cudaError_t fv_cuda_concat(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->out[0], concat, c);
}

/* ---------------------------------------------------------------- slice, its gradient, pad */

/* Where the elements of the slice lie in the whole. */
static route route_of_slice(const fv_type *slice, const fv_type *whole, const fv_slice_attr *a) {
    route r = route_of(slice, whole, NULL);
    for (int d = 0; d < slice->rank; d++) {
        r.base += a->start[d] * r.stride[d];
        r.stride[d] *= fv_most(a->step[d], 1);
    }
    return r;
}

/* The same for vectors of `each` elements, if it can be followed by vectors. */
static bool widen(route *r, const fv_type *slice, const fv_type *whole, const fv_slice_attr *a, int each) {
    const int last = r->rank - 1;
    if (last < 0 || a->step[last] > 1 || a->start[last] % each || slice->dim[last] % each || whole->dim[last] % each)
        return false;
    r->dim[last] /= each; /* whose stride stays 1: one vector */
    for (int d = 0; d < last; d++) r->stride[d] /= each;
    r->base /= each;
    return true;
}

template <typename E> static cudaError_t slice(const fv_cuda_call *c) {
    const fv_type *part = &c->out[0].type, *whole = &c->in[0].type;
    route r = route_of_slice(part, whole, &c->attr->slice);
    int64_t count = fv_count(*part);
    if (widen(&r, part, whole, &c->attr->slice, FV_WIDE<E>)) {
        count /= FV_WIDE<E>;
        FV_LAUNCH(gather_kernel<uint4>, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, fv_operand<uint4>(c, 0),
                  fv_result_of<uint4>(c, 0), count, r);
    } else
        FV_LAUNCH(gather_kernel<E>, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
                  fv_result_of<E>(c, 0), count, r);
    return cudaGetLastError();
}

cudaError_t fv_cuda_slice(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], slice, c);
}

/* An element of y that lies on the grid start + step * index within the part takes part's element, others `value`. */
struct inlay {
    int rank;
    int64_t whole[FV_MAX_RANK], part[FV_MAX_RANK], start[FV_MAX_RANK], step[FV_MAX_RANK];
};

template <typename E> __global__ void inlay_kernel(const E *part, E *y, int64_t count, inlay w, float value) {
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) {
        int64_t flat = i, from = 0, size = 1;
        bool inside = true;
#pragma unroll
        for (int d = FV_MAX_RANK - 1; d >= 0; d--) {
            if (d >= w.rank) continue;
            const int64_t rest = flat / w.whole[d], at = flat - rest * w.whole[d] - w.start[d];
            const int64_t index = at / w.step[d];
            inside = inside && at >= 0 && index < w.part[d] && index * w.step[d] == at;
            from += index * size;
            size *= w.part[d];
            flat = rest;
        }
        if (inside) y[i] = part[from];
        else fv_put(y + i, value);
    }
}

template <typename E>
static cudaError_t lay_in(const fv_cuda_call *c, const int64_t *start, const int64_t *step, double value) {
    const fv_type *part = &c->in[0].type, *whole = &c->out[0].type;
    const int64_t count = fv_count(*whole);
    inlay w = {};
    w.rank = whole->rank;
    for (int d = 0; d < whole->rank; d++) {
        w.whole[d] = whole->dim[d];
        w.part[d] = part->dim[d];
        w.start[d] = start[d];
        w.step[d] = step ? fv_most(step[d], 1) : 1;
    }
    FV_LAUNCH(inlay_kernel<E>, fv_blocks(count, FV_THREADS), FV_THREADS, 0, c->stream, fv_operand<E>(c, 0),
              fv_result_of<E>(c, 0), count, w, (float)value);
    return cudaGetLastError();
}

cudaError_t fv_cuda_slice_bwd(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], lay_in, c, c->attr->slice.start, c->attr->slice.step, 0);
}
cudaError_t fv_cuda_pad(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], lay_in, c, c->attr->pad_nd.before, NULL, c->attr->pad_nd.value);
}
