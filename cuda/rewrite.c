/* rewrite.c: the order in which a graph's nodes run (fv_backend.rewrite).
 *
 * Casts of parameters come first: they are made of what the step before left, and next to each other they are one
 * launch (fv_cuda_kernel_joins). A weight's low copy lives until the backward pass in any case: the most memory of a
 * step grows little (speedrun94, batch 64, 33.8 → 36.3 MB), if at all. */
#include "cuda/cuda.h"

#include <string.h>

/* Whether one of the nodes before `last` in the segment changes the value. */
static bool changes_before(const fv_graph *g, fv_value v, int32_t last) {
    for (int32_t k = 0; k < last; k++) {
        const fv_node *n = &g->nodes[k];
        for (int j = 0; n->segment == g->nodes[last].segment && j < n->operands; j++)
            if (g->operands[n->first_operand + j].id == v.id && fv_op_mutates_operand(n, j)) return true;
    }
    return false;
}

static bool comes_first(const fv_graph *g, int32_t k) {
    const fv_node *n = &g->nodes[k];
    if (n->op != FV_OP_CAST || n->segment != FV_SEG_FORWARD_BACKWARD) return false;
    const fv_value v = g->operands[n->first_operand];
    return g->values[v.id].kind == FV_VAL_PARAM && !changes_before(g, v, k);
}

fv_status fv_cuda_rewrite(fv_device *dev, fv_graph *g) {
    (void)dev;
    fv_node *nodes = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *nodes);
    if (!nodes) return g->ctx->error.code;
    int32_t n = 0;
    for (int first = 1; first >= 0; first--)
        for (int32_t k = 0; k < g->n_nodes; k++)
            if (comes_first(g, k) == first) nodes[n++] = g->nodes[k];
    memcpy(g->nodes, nodes, (size_t)n * sizeof *nodes);
    for (int32_t k = 0; k < n; k++)
        for (int r = 0; r < g->nodes[k].results; r++) g->values[g->nodes[k].first_result + r].node = k;
    return FV_OK;
}
