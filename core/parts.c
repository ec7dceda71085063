/* parts.c: whether a batch is better computed a few pictures at a time. */
#include "core/ops.h"
#include "core/program.h"

#define LEAST_PARTS 32        /* threads that should all have some, on a machine of many */
#define CACHE_BYTES (1 << 20) /* of a second-level cache, for what a node reads and writes */
#define FLOPS_PER_BYTE 64     /* of weights, which every part reads anew */

/* Bytes of the largest node's operands and results that have a row per picture, for one picture. */
static int64_t most_bytes(const fv_graph *g, int64_t batch) {
    int64_t most = 0;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        int64_t bytes = 0;
        for (int i = 0; i < n->operands + n->results; i++) {
            const fv_value v =
                i < n->operands ? g->operands[n->first_operand + i] : (fv_value){n->first_result + i - n->operands};
            const fv_type type = fv_typeof(g, v);
            if (type.rank > 0 && type.dim[0] == batch && g->values[v.id].kind == FV_VAL_RESULT)
                bytes += (int64_t)fv_bytes(type) / batch;
        }
        if (bytes > most) most = bytes;
    }
    return most;
}

int64_t fv_graph_parts(const fv_graph *g, int64_t batch) {
    double flops = 0, weights = 0;
    if (g->error != FV_OK) return 1; /* compiling it will say so */
    for (int32_t k = 0; k < g->n_nodes; k++) flops += fv_node_flops(g, &g->nodes[k]);
    for (int32_t i = 1; i < g->n_values; i++)
        if (g->values[i].kind == FV_VAL_PARAM) weights += (double)fv_bytes(g->values[i].type);
    const int64_t bytes = most_bytes(g, batch);
    int64_t rows = batch / LEAST_PARTS;
    if (bytes * rows > CACHE_BYTES) rows = CACHE_BYTES / bytes;
    while (rows > 0 && batch % rows) rows--;
    const bool pays = rows > 1 && flops / (double)batch * (double)rows >= FLOPS_PER_BYTE * weights;
    return pays ? batch / rows : 1;
}
