/* ref_mixed.c: what an operation with bf16 or f16 operands or results computes: what the float64 kernel gives for the
 * same numbers, each result rounded once to its type, to nearest even. Nothing in between is rounded. */
#include "core/ref/ref.h"

/* In the workspace each operand and result has its tensor and its elements as doubles. */
#define TENSOR_DOUBLES ((sizeof(fv_tensor) + sizeof(double) - 1) / sizeof(double))

size_t fv_ref_mixed_doubles(const fv_graph *g, const fv_node *node) {
    size_t total = 0;
    for (int i = 0; i < node->operands + node->results; i++) {
        const fv_value v = i < node->operands ? g->operands[node->first_operand + i]
                                              : (fv_value){node->first_result + i - node->operands};
        const size_t n = v.id ? (size_t)fv_count(g->values[v.id].type) : 0;
        if (!fv_size_add(total, n + TENSOR_DOUBLES, &total)) return SIZE_MAX;
    }
    return total;
}

static bool is_float(const fv_tensor *t) {
    return t->data && (t->type.dtype == FV_F32 || fv_is_low(t->type.dtype));
}

static void widen(const fv_tensor *t, double *to) {
    const int64_t n = fv_count(t->type);
    const float *wide = t->data;
    const uint16_t *low = t->data;
    const fv_dtype dtype = t->type.dtype;
    for (int64_t i = 0; i < n; i++) to[i] = (double)(fv_is_low(dtype) ? fv_low_value(dtype, low[i]) : wide[i]);
}

static void narrow(const double *from, const fv_tensor *t) {
    const int64_t n = fv_count(t->type);
    float *wide = t->data;
    uint16_t *low = t->data;
    for (int64_t i = 0; i < n; i++) {
        if (fv_is_low(t->type.dtype)) low[i] = fv_low_round_double(t->type.dtype, from[i]);
        else wide[i] = (float)from[i];
    }
}

static void run(const fv_call *c, fv_kernel kernel) {
    const int n = c->n_in + c->n_out;
    fv_tensor *tensor = c->workspace;
    double *next = (double *)c->workspace + (size_t)n * TENSOR_DOUBLES;
    for (int i = 0; i < n; i++) {
        tensor[i] = i < c->n_in ? c->in[i] : c->out[i - c->n_in];
        if (!is_float(&tensor[i])) continue;
        if (i < c->n_in) widen(&tensor[i], next);
        tensor[i].data = next;
        tensor[i].type.dtype = FV_F64;
        next += fv_count(tensor[i].type);
    }
    fv_call wide = *c;
    wide.in = tensor;
    wide.out = tensor + c->n_in;
    wide.workspace = next;
    wide.workspace_bytes = c->workspace_bytes - (size_t)((char *)next - (char *)c->workspace);
    kernel(&wide);
    for (int r = 0; r < c->n_out; r++)
        if (is_float(&c->out[r])) narrow(wide.out[r].data, &c->out[r]);
}

#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    static void ref_mixed_##name(const fv_call *c) { \
        run(c, fv_ref_f64_kernels[FV_OP_##ENUM]); \
    }
#include "core/ops.def"

const fv_kernel fv_ref_mixed_kernels[FV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) [FV_OP_##ENUM] = ref_mixed_##name,
#include "core/ops.def"
};
