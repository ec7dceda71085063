/* verify.c: the invariants that every pass must keep. A violation is a bug of ours or of an importer, never of the
 * data. */
#include "core/graph.h"

#include <string.h>

static fv_status broken(fv_graph *g, int32_t index, const char *what) {
    const fv_node *n = &g->nodes[index];
    return fv_fail(g->ctx, FV_E_INTERNAL, "graph: node %d (%s in '%s'): %s", index, fv_op_get(n->op)->name, n->scope,
                   what);
}

/* Operands are defined before their use, in the same or an earlier segment. */
static fv_status verify_operands(fv_graph *g, int32_t index) {
    const fv_node *n = &g->nodes[index];
    for (int k = 0; k < n->operands; k++) {
        fv_value v = g->operands[n->first_operand + k];
        if (v.id < 0 || v.id >= g->n_values) return broken(g, index, "an operand is no value");
        if (v.id == 0) continue;
        const fv_val *val = &g->values[v.id];
        if (val->kind == FV_VAL_RESULT) {
            fv_segment segment = g->nodes[val->node].segment; /* nodes run by segment, then in order */
            if (segment > n->segment) return broken(g, index, "an operand comes from a later segment");
            if (segment == n->segment && val->node >= index)
                return broken(g, index, "an operand is used before it is defined");
        }
        if (fv_op_mutates_operand(n, k) && val->kind != FV_VAL_PARAM && val->kind != FV_VAL_STATE)
            return broken(g, index, "changes a value that is neither parameter nor state");
    }
    return FV_OK;
}

/* Results have the types that the op's rule gives. */
static fv_status verify_types(fv_graph *g, int32_t index) {
    fv_node n = g->nodes[index];
    const fv_op_info *info = fv_op_get(n.op);
    if (n.results != info->results || n.operands < info->min_in || (info->max_in >= 0 && n.operands > info->max_in))
        return broken(g, index, "wrong number of operands or results");
    fv_type *in = fv_alloc(g->ctx, (size_t)n.operands + 1, sizeof *in), out[4];
    if (!in) return g->ctx->error.code;
    for (int k = 0; k < n.operands; k++) {
        fv_value v = g->operands[n.first_operand + k];
        in[k] = v.id ? g->values[v.id].type : (fv_type){.rank = -1};
    }
    for (int r = 0; r < 4; r++) out[r] = fv_shape(FV_F32, 0);
    fv_infer rule = {.g = g, .op = n.op, .attr = &n.attr, .n_in = n.operands, .in = in, .out = out};
    bool ok = info->infer(&rule);
    fv_free(g->ctx, in, (size_t)n.operands + 1, sizeof *in);
    if (!ok) return broken(g, index, rule.why);
    for (int r = 0; r < n.results; r++) {
        const fv_val *val = &g->values[n.first_result + r];
        if (val->node != index || val->result != r) return broken(g, index, "a result does not point back");
        bool empty = fv_count(out[r]) == 0 && fv_count(val->type) == 0;
        if (!empty && !fv_same_type(out[r], val->type))
            return broken(g, index, "a result has another type than its rule gives");
    }
    return FV_OK;
}

fv_status fv_graph_verify(fv_graph *g) {
    FV_TRY(fv_graph_finish(g));
    for (int32_t k = 0; k < g->n_nodes; k++) {
        FV_TRY(verify_operands(g, k));
        FV_TRY(verify_types(g, k));
    }
    return FV_OK;
}
