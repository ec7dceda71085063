/* fuse.c: a short list of literal patterns, run on the forward graph before differentiation, so that the backward of a
 * fused node comes from its own rule.
 *
 *   batch_norm -> act                 becomes  batch_norm {act}
 *   batch_norm -> add(., r) -> act    becomes  batch_norm {act} with residual r
 *
 * for relu, gelu, silu and others (fv_act_can_end_norm); batch_norm_infer alike. A fused node may have to move behind
 * the definition of its residual; the nodes are then put into order again. */
#include "core/ops.h"

#include <string.h>

typedef struct fusion {
    fv_graph *g;
    int32_t *uses;   /* by value: readers, outputs included */
    int32_t *reader; /* by value: one node that reads it */
    bool *dead;      /* by node */
} fusion;

static fv_status count_uses(fusion *f) {
    fv_graph *g = f->g;
    f->uses = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *f->uses);
    f->reader = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *f->reader);
    f->dead = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *f->dead);
    if (!f->uses || !f->reader || !f->dead) return g->ctx->error.code;
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 0; j < g->nodes[k].operands; j++) {
            fv_value v = g->operands[g->nodes[k].first_operand + j];
            f->uses[v.id]++;
            f->reader[v.id] = k;
        }
    for (int32_t i = 0; i < g->n_outputs; i++) f->uses[g->outputs[i].value.id] += 2; /* never fused away */
    return FV_OK;
}

/* The only reader of a value, if it is an `op`; else -1. */
static int32_t only_reader(const fusion *f, fv_value v, fv_op op) {
    if (f->uses[v.id] != 1) return -1;
    int32_t k = f->reader[v.id];
    return !f->dead[k] && f->g->nodes[k].op == op ? k : -1;
}

static bool can_end_norm(const fv_graph *g, int32_t k) {
    return k >= 0 && fv_act_can_end_norm(g->nodes[k].attr.activation.kind);
}

/* Try the patterns on node k. Returns the number of nodes that went. */
static int fuse_batch_norm(fusion *f, int32_t k) {
    fv_graph *g = f->g;
    fv_node *n = &g->nodes[k];
    bool infer = n->op == FV_OP_BATCH_NORM_INFER;
    if ((n->op != FV_OP_BATCH_NORM && !infer) || n->attr.batch_norm.act != FV_ACT_NONE) return 0;
    int residual_place = infer ? 5 : 3;
    if (n->operands > residual_place) return 0;
    fv_value y = {n->first_result};

    int32_t act = only_reader(f, y, FV_OP_ACTIVATION), add = -1;
    if (!can_end_norm(g, act)) {
        add = only_reader(f, y, FV_OP_ADD);
        if (add < 0) return 0;
        const fv_value *sum = g->operands + g->nodes[add].first_operand;
        fv_value residual = sum[0].id == y.id ? sum[1] : sum[0];
        act = only_reader(f, (fv_value){g->nodes[add].first_result}, FV_OP_ACTIVATION);
        if (!can_end_norm(g, act) || residual.id == y.id || !fv_same_type(fv_typeof(g, residual), fv_typeof(g, y)))
            return 0;
        if (!fv_node_set_operand(g, k, residual_place, residual)) return 0;
        f->dead[add] = true;
    }
    n->attr.batch_norm.act = g->nodes[act].attr.activation.kind;
    fv_value z = {g->nodes[act].first_result};
    f->uses[y.id] = f->uses[z.id];
    f->reader[y.id] = f->reader[z.id];
    f->dead[act] = true;
    fv_graph_replace(g, z, y);
    return add >= 0 ? 2 : 1;
}

/* ---------------------------------------------------------------- order */

typedef struct sorter {
    fv_graph *g;
    const bool *dead;
    int8_t *state;    /* by node: 0 not yet, 1 emitted */
    int32_t *changed; /* by value: last node emitted or pending that changes it, for state order */
    fv_node *out;
    int32_t n_out;
} sorter;

/* Whether all that node k reads is there. `before` nodes that touch the same state must have gone first. */
static bool is_ready(const sorter *s, int32_t k) {
    const fv_graph *g = s->g;
    const fv_node *n = &g->nodes[k];
    for (int j = 0; j < n->operands; j++) {
        fv_value v = g->operands[n->first_operand + j];
        if (!v.id) continue;
        const fv_val *val = &g->values[v.id];
        if (val->kind == FV_VAL_RESULT && !s->state[val->node]) return false;
        if (val->kind != FV_VAL_STATE && val->kind != FV_VAL_PARAM) continue;
        if (s->changed[v.id] >= 0 && s->changed[v.id] < k && !s->state[s->changed[v.id]]) return false;
    }
    return true;
}

/* Stable order by definition before use, dead nodes dropped. Only nodes that wait for a moved one change their place.
 */
static fv_status reorder(fv_graph *g, const bool *dead) {
    sorter s = {.g = g, .dead = dead};
    s.state = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *s.state);
    s.changed = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *s.changed);
    s.out = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *s.out);
    int32_t *place = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *place);
    if (!s.state || !s.changed || !s.out || !place) return g->ctx->error.code;
    memset(s.changed, 0xff, (size_t)g->n_values * sizeof *s.changed);
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 0; j < g->nodes[k].operands; j++)
            if (fv_op_mutates_operand(&g->nodes[k], j)) s.changed[g->operands[g->nodes[k].first_operand + j].id] = k;
    int32_t first = 0; /* everything before it has gone */
    while (first < g->n_nodes) {
        if (s.state[first] || dead[first]) {
            first++;
            continue;
        }
        int32_t k = first;
        while (k < g->n_nodes && (s.state[k] || dead[k] || !is_ready(&s, k))) k++;
        if (k == g->n_nodes) return fv_fail(g->ctx, FV_E_INTERNAL, "graph: fusion made a cycle at node %d", first);
        s.state[k] = 1;
        place[k] = s.n_out;
        s.out[s.n_out++] = g->nodes[k];
    }
    memcpy(g->nodes, s.out, (size_t)s.n_out * sizeof *s.out);
    g->n_nodes = s.n_out;
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int r = 0; r < g->nodes[k].results; r++) g->values[g->nodes[k].first_result + r].node = k;
    return FV_OK;
}

int fv_graph_fuse(fv_graph *g) {
    fusion f = {.g = g};
    if (g->error != FV_OK || g->n_nodes == 0) return 0;
    fv_status status = count_uses(&f);
    int gone = 0;
    for (int32_t k = 0; k < g->n_nodes && status == FV_OK; k++)
        if (!f.dead[k]) gone += fuse_batch_norm(&f, k);
    if (gone) status = reorder(g, f.dead);
    if (status != FV_OK) fv_graph_fail(fv_root(g), status, "%s", g->ctx->error.message);
    return gone;
}
