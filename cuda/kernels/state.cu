/* state.cu: reshape, cast, and operations that change state in place (update.cu has those of the update). Casts that
 * follow each other, of weights say, run in one launch.
 *
 *   table   [ piece | piece | ... ]   which elements of which cast a block works on; made at compile */
#include "cuda/kernels/common.cuh"
#include "cuda/kernels/kernels.h"

cudaError_t fv_cuda_reshape(const fv_cuda_call *c) {
    if (c->in[0].data == c->out[0].data) return cudaSuccess;
    return cudaMemcpyAsync(c->out[0].data, c->in[0].data, fv_bytes(c->out[0].type), cudaMemcpyDeviceToDevice,
                           c->stream);
}

/* ---------------------------------------------------------------- casts */

#define CAST_PIECE 4096

struct cast_piece {
    const void *x;
    void *y;
    int64_t count;
};

static bool converts(const fv_cuda_call *c) {
    return c->in[0].type.dtype != c->out[0].type.dtype;
}

/* They do not depend on each other, and need not keep their order. */
bool fv_cuda_cast_joins(const fv_cuda_call *before, const fv_cuda_call *next) {
    const fv_tensor *x = &before->in[0], *y = &before->out[0], *next_x = &next->in[0], *next_y = &next->out[0];
    if (before->node->op != FV_OP_CAST || next->node->op != FV_OP_CAST) return false;
    if (x->type.dtype != next_x->type.dtype || y->type.dtype != next_y->type.dtype || !converts(next)) return false;
    return !fv_cuda_overlap(y, next_x) && !fv_cuda_overlap(y, next_y) && !fv_cuda_overlap(x, next_y);
}

size_t fv_cuda_cast_table(const fv_cuda_call *c, void *host) {
    cast_piece *pieces = static_cast<cast_piece *>(host);
    size_t n = 0;
    for (int i = 0; c->n_joined > 1 && i < c->n_joined; i++) {
        const fv_tensor *x = &c->joined[i]->in[0], *y = &c->joined[i]->out[0];
        const int64_t size = y->data ? fv_count(y->type) : 0;
        for (int64_t begin = 0; begin < size; begin += CAST_PIECE, n++)
            if (pieces)
                pieces[n] = {static_cast<const char *>(x->data) + begin * (int64_t)fv_dtype_size(x->type.dtype),
                             static_cast<char *>(y->data) + begin * (int64_t)fv_dtype_size(y->type.dtype),
                             fv_least(CAST_PIECE, size - begin)};
    }
    return n * sizeof *pieces;
}

template <typename From, typename To> __global__ void cast_pieces_kernel(const cast_piece *pieces) {
    const cast_piece p = pieces[blockIdx.x];
    const From *x = static_cast<const From *>(p.x);
    To *y = static_cast<To *>(p.y);
    for (int64_t i = 8 * threadIdx.x; i < p.count; i += 8 * blockDim.x)
        fv_save_of<8>(y, i, p.count, fv_load_of<8>(x, i, p.count));
}

template <typename From, typename To> static cudaError_t cast_pieces(const fv_cuda_call *c) {
    const size_t n = c->table_bytes / sizeof(cast_piece);
    if (n)
        FV_LAUNCH((cast_pieces_kernel<From, To>), (unsigned)n, FV_THREADS, 0, c->stream,
                  static_cast<const cast_piece *>(c->table));
    return cudaGetLastError();
}
template <typename From> static cudaError_t cast_pieces_from(const fv_cuda_call *c) {
    return c->out[0].type.dtype == FV_BF16  ? cast_pieces<From, fv_bf16>(c)
           : c->out[0].type.dtype == FV_F16 ? cast_pieces<From, fv_f16>(c)
                                            : cast_pieces<From, float>(c);
}

cudaError_t fv_cuda_cast(const fv_cuda_call *c) {
    if (c->n_joined > 1) return FV_BY_TYPE(c->in[0], cast_pieces_from, c);
    return converts(c) ? fv_cuda_convert(&c->in[0], &c->out[0], c->stream) : fv_cuda_reshape(c);
}

/* ---------------------------------------------------------------- state */

cudaError_t fv_cuda_assign(const fv_cuda_call *c) {
    if (c->in[0].data == c->in[1].data) return cudaSuccess;
    return cudaMemcpyAsync(c->in[0].data, c->in[1].data, fv_bytes(c->in[0].type), cudaMemcpyDeviceToDevice, c->stream);
}

__global__ void accumulate_kernel(float *state, const float *value, int64_t count) {
    for (int64_t i = FV_FIRST_OF(4); i < count; i += FV_STRIDE_OF(4)) {
        fv_some<4> s = fv_load_of<4>(state, i, count);
        const fv_some<4> v = fv_load_of<4>(value, i, count);
        for (int j = 0; j < 4; j++) s.v[j] += v.v[j];
        fv_save_of<4>(state, i, count, s);
    }
}

__global__ void fill_kernel(float *state, int64_t count, float value) {
    const fv_some<4> v = {{value, value, value, value}};
    for (int64_t i = FV_FIRST_OF(4); i < count; i += FV_STRIDE_OF(4)) fv_save_of<4>(state, i, count, v);
}

cudaError_t fv_cuda_accumulate(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(accumulate_kernel, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), static_cast<const float *>(c->in[1].data), count);
    return cudaGetLastError();
}

cudaError_t fv_cuda_fill(const fv_cuda_call *c) {
    const int64_t count = fv_count(c->in[0].type);
    FV_LAUNCH(fill_kernel, fv_blocks(count, 4 * FV_THREADS), FV_THREADS, 0, c->stream,
              static_cast<float *>(c->in[0].data), count, (float)c->attr->scale.add);
    return cudaGetLastError();
}
