/* linear.cu: linear layers and products of matrices: the path that needs no library. */
#include "cuda/kernels/gemm.cuh"
#include "cuda/kernels/kernels.h"

typedef fv_matrix<float, true> along_k;
typedef fv_matrix<float, false> across_k;

static fv_matrix_out<float> plain_out(float *y, const float *bias, int64_t row) {
    return {y, bias, row, 0, 1.0f, FV_ONE_MATRIX};
}

/* rows, in, out of a node, from the types of x or dx and of w or dw. */
struct linear_size {
    int64_t rows, in, out;
};
static linear_size linear_size_of(const fv_type *x, const fv_type *w) {
    return {fv_extent(x, 0, x->rank - 1), w->dim[1], w->dim[0]};
}

/* y[rows,out] = x w^T + bias */
cudaError_t fv_cuda_linear(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->in[1].type);
    const along_k x = {static_cast<const float *>(c->in[0].data), d.in, 1, FV_ONE_MATRIX};
    const along_k w = {static_cast<const float *>(c->in[1].data), d.in, 1, FV_ONE_MATRIX};
    const float *bias = static_cast<const float *>(fv_operand(c, 2));
    return fv_gemm(c->stream, x, w, plain_out(static_cast<float *>(c->out[0].data), bias, d.out), d.rows, d.out, d.in,
                   1, c->workspace);
}

/* dx[rows,in] = dy w */
cudaError_t fv_cuda_linear_bwd_data(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->in[1].type);
    const along_k dy = {static_cast<const float *>(c->in[0].data), d.out, 1, FV_ONE_MATRIX};
    const across_k w = {static_cast<const float *>(c->in[1].data), 1, d.in, FV_ONE_MATRIX};
    return fv_gemm(c->stream, dy, w, plain_out(static_cast<float *>(c->out[0].data), NULL, d.in), d.rows, d.in, d.out,
                   1, c->workspace);
}

/* dw[out,in] = dy^T x */
cudaError_t fv_cuda_linear_bwd_weight(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->out[0].type);
    const across_k dy = {static_cast<const float *>(c->in[0].data), 1, d.out, FV_ONE_MATRIX};
    const across_k x = {static_cast<const float *>(c->in[1].data), 1, d.in, FV_ONE_MATRIX};
    return fv_gemm(c->stream, dy, x, plain_out(static_cast<float *>(c->out[0].data), NULL, d.in), d.out, d.in, d.rows,
                   1, c->workspace);
}

/* ---------------------------------------------------------------- products of matrices, one per leading index */

struct product_size {
    int64_t batch, m, n, k;
};
static product_size product_size_of(const fv_type *a, const fv_type *y, const fv_matmul_attr *attr) {
    return {fv_extent(y, 0, y->rank - 2), y->dim[y->rank - 2], y->dim[y->rank - 1],
            a->dim[a->rank - (attr->transpose_a ? 2 : 1)]};
}

template <bool A_FAST, bool B_FAST> static cudaError_t multiply(const fv_cuda_call *c, const product_size &d) {
    const fv_matrix<float, A_FAST> a = {
        static_cast<const float *>(c->in[0].data), A_FAST ? d.k : 1, A_FAST ? 1 : d.m, {1, d.m * d.k, 0}};
    const fv_matrix<float, B_FAST> b = {
        static_cast<const float *>(c->in[1].data), B_FAST ? d.k : 1, B_FAST ? 1 : d.n, {1, d.k * d.n, 0}};
    const fv_matrix_out<float> y = {static_cast<float *>(c->out[0].data), NULL, d.n, 0, 1.0f, {1, d.m * d.n, 0}};
    return fv_gemm(c->stream, a, b, y, d.m, d.n, d.k, d.batch, c->workspace);
}

cudaError_t fv_cuda_matmul(const fv_cuda_call *c) {
    const fv_matmul_attr *attr = &c->attr->matmul;
    const product_size d = product_size_of(&c->in[0].type, &c->out[0].type, attr);
    if (attr->transpose_a) return attr->transpose_b ? multiply<false, true>(c, d) : multiply<false, false>(c, d);
    return attr->transpose_b ? multiply<true, true>(c, d) : multiply<true, false>(c, d);
}

/* ---------------------------------------------------------------- what a node needs */

/* m, n, k, batch of the node's product. */
static product_size node_product(const fv_graph *g, const fv_node *node) {
    const fv_type *a = fv_operand_type(g, node, 0), *b = fv_operand_type(g, node, 1);
    const fv_type *y = &g->values[node->first_result].type;
    if (node->op == FV_OP_MATMUL) return product_size_of(a, y, &node->attr.matmul);
    const linear_size d = linear_size_of(a, node->op == FV_OP_LINEAR_BWD_WEIGHT ? y : b);
    if (node->op == FV_OP_LINEAR) return {1, d.rows, d.out, d.in};
    if (node->op == FV_OP_LINEAR_BWD_DATA) return {1, d.rows, d.in, d.out};
    return {1, d.out, d.in, d.rows};
}

size_t fv_cuda_linear_workspace(const fv_graph *g, const fv_node *node) {
    const product_size d = node_product(g, node);
    return fv_gemm_workspace(d.m, d.n, d.k, d.batch);
}
bool fv_cuda_linear_fits(const fv_graph *g, const fv_node *node) {
    const product_size d = node_product(g, node);
    fv_gemm_size s;
    return fv_gemm_cut(d.m, d.n, d.k, d.batch, true, &s);
}
