/* problem.c: from nodes to what libraries are asked. */
#include "cuda/problem.h"

#include <stdio.h>
#include <string.h>

static fv_type operand(const fv_graph *g, const fv_node *n, int k) {
    static const fv_type none = {0};
    return k < n->operands && g->operands[n->first_operand + k].id ? fv_typeof(g, g->operands[n->first_operand + k])
                                                                   : none;
}

static bool has_operand(const fv_graph *g, const fv_node *n, int k) {
    return k < n->operands && g->operands[n->first_operand + k].id != 0;
}

static int64_t or1(int64_t v) {
    return v > 0 ? v : 1;
}

/* ---------------------------------------------------------------- convolution */

static bool conv_problem(fv_type x, fv_type w, fv_type y, const fv_conv2d_attr *a, fv_cuda_problem *out) {
    fv_cuda_conv *c = &out->of.conv;
    out->dtype[0] = x.dtype;
    out->dtype[1] = w.dtype;
    out->dtype[2] = y.dtype;
    *c = (fv_cuda_conv){.n = x.dim[0],
                        .h = x.dim[1],
                        .w = x.dim[2],
                        .c = x.dim[3],
                        .k = w.dim[0],
                        .r = w.dim[1],
                        .s = w.dim[2],
                        .oh = y.dim[1],
                        .ow = y.dim[2],
                        .groups = or1(a->groups)};
    for (int i = 0; i < 2; i++) {
        c->stride[i] = or1(a->stride[i]);
        c->dilation[i] = or1(a->dilation[i]);
        c->before[i] = a->pad[i];
    }
    c->after[0] = a->pad[2];
    c->after[1] = a->pad[3];
    return c->groups == 1 || c->groups < c->c;
}

static bool is_conv(const fv_graph *g, const fv_node *n, fv_cuda_problem *out) {
    fv_type result = fv_typeof(g, (fv_value){n->first_result});
    switch (n->op) {
    case FV_OP_CONV2D:
        out->task = FV_CUDA_CONV;
        if (has_operand(g, n, 2)) out->bias_dtype = 1 + (int64_t)operand(g, n, 2).dtype;
        return conv_problem(operand(g, n, 0), operand(g, n, 1), result, &n->attr.conv2d, out);
    case FV_OP_CONV2D_BWD_DATA: /* dy, w -> dx */
        out->task = FV_CUDA_CONV_DATA;
        return conv_problem(result, operand(g, n, 1), operand(g, n, 0), &n->attr.conv2d_bwd.conv, out);
    case FV_OP_CONV2D_BWD_WEIGHT: /* dy, x -> dw */
        out->task = FV_CUDA_CONV_WEIGHT;
        return conv_problem(operand(g, n, 1), result, operand(g, n, 0), &n->attr.conv2d_bwd.conv, out);
    default: return false;
    }
}

/* ---------------------------------------------------------------- matrices */

/* All rows of a tensor [..., last]. */
static int64_t rows(fv_type t) {
    return t.rank == 0 || t.dim[t.rank - 1] == 0 ? 0 : fv_count(t) / t.dim[t.rank - 1];
}

/* Ours are row by row: a matrix [m,n] of ours is one [n,m] of BLAS. */
static void linear_problem(const fv_graph *g, const fv_node *n, fv_cuda_gemm *out) {
    fv_type first = operand(g, n, 0), second = operand(g, n, 1);
    int64_t last = first.dim[first.rank - 1], count = rows(first);
    switch (n->op) {
    case FV_OP_LINEAR: /* y [rows,out] = x [rows,in] w [out,in]' */
        *out = (fv_cuda_gemm){.m = second.dim[0], .n = count, .k = last, .a_is = 1, .transpose_a = 1};
        out->bias = has_operand(g, n, 2);
        break;
    case FV_OP_LINEAR_BWD_DATA: /* dx [rows,in] = dy [rows,out] w [out,in] */
        *out = (fv_cuda_gemm){.m = second.dim[1], .n = count, .k = last, .a_is = 1};
        break;
    default: /* dw [out,in] = dy [rows,out]' x [rows,in] */
        *out = (fv_cuda_gemm){.m = second.dim[second.rank - 1], .n = last, .k = count, .a_is = 1, .transpose_b = 1};
        break;
    }
    out->batch = 1;
}

/* c [...,m,n] = a [...,m,k] b [...,k,n]: of BLAS, c' = b' a'. */
static void matmul_problem(const fv_graph *g, const fv_node *n, fv_cuda_gemm *out) {
    fv_type a = operand(g, n, 0), b = operand(g, n, 1), c = fv_typeof(g, (fv_value){n->first_result});
    const fv_matmul_attr *attr = &n->attr.matmul;
    *out = (fv_cuda_gemm){.m = c.dim[c.rank - 1],
                          .n = c.dim[c.rank - 2],
                          .k = a.dim[a.rank - (attr->transpose_a ? 2 : 1)],
                          .a_is = 1,
                          .transpose_a = attr->transpose_b,
                          .transpose_b = attr->transpose_a};
    (void)b;
    out->batch = out->m * out->n > 0 ? fv_count(c) / (out->m * out->n) : 0;
}

static bool is_gemm(const fv_graph *g, const fv_node *n, fv_cuda_problem *out) {
    switch (n->op) {
    case FV_OP_LINEAR:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT: linear_problem(g, n, &out->of.gemm); break;
    case FV_OP_MATMUL: matmul_problem(g, n, &out->of.gemm); break;
    default: return false;
    }
    fv_cuda_gemm *p = &out->of.gemm;
    out->task = FV_CUDA_GEMM;
    p->b_is = 1 - p->a_is;
    out->dtype[0] = operand(g, n, (int)p->a_is).dtype;
    out->dtype[1] = operand(g, n, (int)p->b_is).dtype;
    out->dtype[2] = fv_typeof(g, (fv_value){n->first_result}).dtype;
    if (p->bias) out->bias_dtype = 1 + (int64_t)operand(g, n, 2).dtype;
    return p->m > 0 && p->n > 0 && p->k > 0 && p->batch > 0;
}

/* ---------------------------------------------------------------- both */

static bool known_type(int64_t dtype) {
    return dtype == FV_F32 || dtype == FV_BF16 || dtype == FV_F16;
}

bool fv_cuda_problem_of(const fv_graph *g, const fv_node *node, fv_cuda_problem *out) {
    memset(out, 0, sizeof *out);
    if (node->results < 1 || fv_count(fv_typeof(g, (fv_value){node->first_result})) == 0) return false;
    if (!is_conv(g, node, out) && !is_gemm(g, node, out)) return false;
    return known_type(out->dtype[0]) && known_type(out->dtype[1]) && known_type(out->dtype[2]);
}

const char *fv_cuda_problem_text(const fv_cuda_problem *p, char *buf, size_t size) {
    static const char *const names[] = {"convolution", "its gradient by x", "its gradient by w", "product"};
    const fv_cuda_conv *c = &p->of.conv;
    const fv_cuda_gemm *m = &p->of.gemm;
    const char *type = fv_dtype_name((fv_dtype)p->dtype[0]);
    if (p->task == FV_CUDA_GEMM)
        snprintf(buf, size, "%s %s %lldx%lldx%lld, batch %lld", names[p->task], type, (long long)m->m, (long long)m->n,
                 (long long)m->k, (long long)m->batch);
    else
        snprintf(buf, size, "%s %s x [%lld,%lld,%lld,%lld] w [%lld,%lld,%lld] stride %lld pad %lld,%lld groups %lld",
                 names[p->task], type, (long long)c->n, (long long)c->h, (long long)c->w, (long long)c->c,
                 (long long)c->k, (long long)c->r, (long long)c->s, (long long)c->stride[0], (long long)c->before[0],
                 (long long)c->after[0], (long long)c->groups);
    return buf;
}
