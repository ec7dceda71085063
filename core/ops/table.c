/* table.c: the table of all operations, from ops.def. A differentiable op without fv_grad_<name> does not link. */
#include "core/ops/ops_internal.h"

#include <assert.h>

/* ---------------------------------------------------------------- what changes in place */

/* Which list of an update op operand k belongs to; operand 0 is stats: -1. */
static int list_of(const fv_node *node, int k) {
    int count = node->attr.update.count;
    return k < 1 || count < 1 ? -1 : (k - 1) / count;
}

bool fv_op_mutates_operand(const fv_node *node, int k) {
    int list;
    switch (node->op) {
    case FV_OP_SGD_UPDATE:
    case FV_OP_MUON_UPDATE:                                                         /* params, grads, momentum */
    case FV_OP_ADAM_UPDATE: list = list_of(node, k); return list >= 0 && list != 1; /* params, grads, m, v */
    case FV_OP_EMA_UPDATE: return list_of(node, k) == 0;                            /* ema, params */
    case FV_OP_LOOKAHEAD_UPDATE: return k >= 1;                                     /* slow, fast */
    default: return k == 0 && fv_op_get(node->op)->mutates;
    }
}

/* ---------------------------------------------------------------- the table */

#define GRAD_YES(name) fv_grad_##name
#define GRAD_NO(name) NULL
const fv_op_info *fv_op_get(fv_op op) {
#define OP(ENUM, op_name, min, max, n_results, attr, diff, cost, onnx_name) \
    [FV_OP_##ENUM] = {.name = #op_name, \
                      .onnx = onnx_name, \
                      .min_in = min, \
                      .max_in = max, \
                      .results = n_results, \
                      .infer = fv_infer_##op_name, \
                      .grad = GRAD_##diff(op_name), \
                      .flops = fv_flops_##cost, \
                      .mutates = (n_results) == 0}, /* without a result an op exists for its effect only */
    static const fv_op_info table[FV_OP_COUNT] = {
#include "core/ops.def"
    };
    assert((unsigned)op < FV_OP_COUNT);
    return &table[op];
}

/* ---------------------------------------------------------------- cost of a node */

/* Costs of ops with lists of operands add up over the operands, so these are given to the rule in pieces. */
#define PIECE 16

double fv_node_flops(const fv_graph *g, const fv_node *node) {
    const fv_op_info *info = fv_op_get(node->op);
    fv_attr attr = node->attr;
    fv_type in[PIECE], out[4];
    assert(node->results <= 4);
    for (int r = 0; r < node->results; r++) out[r] = g->values[node->first_result + r].type;
    double flops = 0;
    for (int first = 0; first < node->operands; first += PIECE) {
        int n = node->operands - first < PIECE ? node->operands - first : PIECE;
        for (int k = 0; k < n; k++) {
            fv_value v = g->operands[node->first_operand + first + k];
            in[k] = fv_is_none(v) ? (fv_type){.rank = -1} : g->values[v.id].type;
        }
        flops += info->flops(&(fv_infer){.g = g, .op = node->op, .attr = &attr, .n_in = n, .in = in, .out = out});
    }
    return flops;
}

double fv_node_bytes(const fv_graph *g, const fv_node *node) {
    double bytes = 0;
    const fv_value *operand = g->operands + node->first_operand;
    for (int k = 0; k < node->operands; k++) {
        bool seen = fv_is_none(operand[k]);
        for (int j = 0; j < k && !seen; j++) seen = operand[j].id == operand[k].id;
        if (seen) continue;
        double size = (double)fv_bytes(g->values[operand[k].id].type);
        bool overwritten = node->op == FV_OP_ASSIGN || node->op == FV_OP_FILL; /* its old contents are not read */
        bytes += fv_op_mutates_operand(node, k) && !overwritten ? 2 * size : size;
    }
    for (int r = 0; r < node->results; r++) bytes += (double)fv_bytes(g->values[node->first_result + r].type);
    return bytes;
}
