/* linear.cu: linear layers and products of matrices: the path that needs no library. */
#include "cuda/kernels/gemm.cuh"
#include "cuda/kernels/kernels.h"

template <typename E> using along_k = fv_matrix<E, true>;
template <typename E> using across_k = fv_matrix<E, false>;

template <typename E> static fv_matrix_out<E> plain_out(E *y, const float *bias, int64_t row) {
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
template <typename E> static cudaError_t linear(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->in[1].type);
    const along_k<E> x = {fv_operand<E>(c, 0), d.in, 1, FV_ONE_MATRIX};
    const along_k<E> w = {fv_operand<E>(c, 1), d.in, 1, FV_ONE_MATRIX};
    return fv_gemm(c->stream, x, w, plain_out(fv_result_of<E>(c, 0), fv_operand(c, 2), d.out), d.rows, d.out, d.in, 1,
                   c->workspace);
}

/* dx[rows,in] = dy w */
template <typename E> static cudaError_t linear_bwd_data(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->in[1].type);
    const along_k<E> dy = {fv_operand<E>(c, 0), d.out, 1, FV_ONE_MATRIX};
    const across_k<E> w = {fv_operand<E>(c, 1), 1, d.in, FV_ONE_MATRIX};
    return fv_gemm(c->stream, dy, w, plain_out(fv_result_of<E>(c, 0), NULL, d.in), d.rows, d.in, d.out, 1,
                   c->workspace);
}

/* dw[out,in] = dy^T x, in float32 */
template <typename E> static cudaError_t linear_bwd_weight(const fv_cuda_call *c) {
    const linear_size d = linear_size_of(&c->in[0].type, &c->out[0].type);
    const across_k<E> dy = {fv_operand<E>(c, 0), 1, d.out, FV_ONE_MATRIX};
    const across_k<E> x = {fv_operand<E>(c, 1), 1, d.in, FV_ONE_MATRIX};
    return fv_gemm(c->stream, dy, x, plain_out(fv_result_of(c, 0), NULL, d.in), d.out, d.in, d.rows, 1, c->workspace);
}

cudaError_t fv_cuda_linear(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], linear, c);
}
cudaError_t fv_cuda_linear_bwd_data(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], linear_bwd_data, c);
}
cudaError_t fv_cuda_linear_bwd_weight(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], linear_bwd_weight, c);
}

/* ---------------------------------------------------------------- products of matrices, one per leading index */

struct product_size {
    int64_t batch, m, n, k;
};
static product_size product_size_of(const fv_type *a, const fv_type *y, const fv_matmul_attr *attr) {
    return {fv_extent(y, 0, y->rank - 2), y->dim[y->rank - 2], y->dim[y->rank - 1],
            a->dim[a->rank - (attr->transpose_a ? 2 : 1)]};
}

template <typename E, bool A_FAST, bool B_FAST>
static cudaError_t multiply(const fv_cuda_call *c, const product_size &d) {
    const fv_matrix<E, A_FAST> a = {fv_operand<E>(c, 0), A_FAST ? d.k : 1, A_FAST ? 1 : d.m, {1, d.m * d.k, 0}};
    const fv_matrix<E, B_FAST> b = {fv_operand<E>(c, 1), B_FAST ? d.k : 1, B_FAST ? 1 : d.n, {1, d.k * d.n, 0}};
    const fv_matrix_out<E> y = {fv_result_of<E>(c, 0), NULL, d.n, 0, 1.0f, {1, d.m * d.n, 0}};
    return fv_gemm(c->stream, a, b, y, d.m, d.n, d.k, d.batch, c->workspace);
}

template <typename E> static cudaError_t matmul(const fv_cuda_call *c) {
    const fv_matmul_attr *attr = &c->attr->matmul;
    const product_size d = product_size_of(&c->in[0].type, &c->out[0].type, attr);
    if (attr->transpose_a) return attr->transpose_b ? multiply<E, false, true>(c, d) : multiply<E, false, false>(c, d);
    return attr->transpose_b ? multiply<E, true, true>(c, d) : multiply<E, true, false>(c, d);
}

cudaError_t fv_cuda_matmul(const fv_cuda_call *c) {
    return FV_BY_TYPE(c->in[0], matmul, c);
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
