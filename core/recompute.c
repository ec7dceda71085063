/* recompute.c: keep less from the forward to the backward pass. A value that is cheap to make and expensive to keep is
 * made anew, from operands that are kept anyway, just before the first backward node that reads it:
 *
 *   x ─ gelu ─ y ─ linear ─ ... loss ...  linear_bwd_weight(dz, y)              y lives from here to there
 *   x ─ gelu ─ y ─ linear ─ ... loss ...  gelu(x) = y' ─ linear_bwd_weight(dz, y')
 *
 * Clones are of pure nodes, have the operands, attributes and random stream of the original, and so its bits. What to
 * clone is chosen greedily at the point where most bytes are alive, the most bytes per cost first, within a budget. */
#include "core/ops.h"

#include <string.h>

#define BALANCE 11.0      /* operations in the time of one byte: what the roofline of a CPU core comes to */
#define LEAST_BYTES 65536 /* smaller values are not worth a node */
#define SMALL_SHARE 16    /* an operand so much smaller than the value may be kept longer for its sake */

typedef struct span { /* life of a value that has memory of its own; positions in the order of execution */
    size_t bytes;
    int32_t def, last;
    bool pinned; /* a clone reads it: it must stay */
} span;

typedef struct candidate {
    int32_t node, value;
    int32_t forward_last; /* last reader of the forward pass */
    int32_t first, last;  /* readers of the backward pass */
    double cost;
    bool taken;
} candidate;

typedef struct recomputer {
    fv_graph *g;
    int32_t *position; /* by node */
    int32_t *root;     /* by value: the value whose memory it shares (reshape), or itself */
    bool *changes;     /* by value: a node of the first segment changes its contents */
    span *spans;       /* by value; those of clones behind them */
    int32_t n_spans;
    int64_t *live; /* by position: bytes */
    candidate *list;
    int32_t n_list;
    double step_cost, spent;
} recomputer;

static bool is_cheap(fv_op op) {
    switch (op) {
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_INFER:
    case FV_OP_LAYER_NORM:
    case FV_OP_GROUP_NORM:
    case FV_OP_ACTIVATION:
    case FV_OP_ADD:
    case FV_OP_SUB:
    case FV_OP_MUL:
    case FV_OP_SCALE:
    case FV_OP_BROADCAST:
    case FV_OP_TRANSPOSE:
    case FV_OP_CONCAT:
    case FV_OP_SLICE:
    case FV_OP_PAD:
    case FV_OP_DROPOUT:
    case FV_OP_DROP_PATH: return true;
    default: return false;
    }
}

/* Time of a node by the roofline, in operations. */
static double cost_of(const fv_graph *g, const fv_node *n) {
    double flops = fv_node_flops(g, n), bytes = BALANCE * fv_node_bytes(g, n);
    return flops > bytes ? flops : bytes;
}

/* ---------------------------------------------------------------- lifetimes */

static fv_status allocate(recomputer *r) {
    fv_graph *g = r->g;
    size_t nodes = (size_t)g->n_nodes + 1, values = (size_t)g->n_values + 1;
    r->position = fv_arena_alloc(&g->arena, nodes, sizeof *r->position);
    r->root = fv_arena_alloc(&g->arena, values, sizeof *r->root);
    r->changes = fv_arena_alloc(&g->arena, values, sizeof *r->changes);
    r->spans = fv_arena_alloc(&g->arena, values + nodes, sizeof *r->spans);
    r->live = fv_arena_alloc(&g->arena, nodes + 1, sizeof *r->live);
    r->list = fv_arena_alloc(&g->arena, nodes, sizeof *r->list);
    bool ok = r->position && r->root && r->changes && r->spans && r->live && r->list;
    return ok ? FV_OK : g->ctx->error.code;
}

static void find_positions(recomputer *r) {
    const fv_graph *g = r->g;
    int32_t next = 0;
    for (int seg = 0; seg < FV_SEG_COUNT; seg++)
        for (int32_t k = 0; k < g->n_nodes; k++)
            if (g->nodes[k].segment == (fv_segment)seg) r->position[k] = next++;
}

static void find_spans(recomputer *r) {
    const fv_graph *g = r->g;
    r->n_spans = g->n_values;
    for (int32_t i = 0; i < g->n_values; i++) r->root[i] = i;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        r->step_cost += cost_of(g, n);
        for (int res = 0; res < n->results; res++) {
            int32_t v = n->first_result + res;
            r->spans[v] = (span){fv_bytes(g->values[v].type), r->position[k], r->position[k], false};
        }
        if (n->op == FV_OP_RESHAPE) {
            r->root[n->first_result] = r->root[g->operands[n->first_operand].id];
            r->spans[n->first_result].bytes = 0;
        }
    }
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 0; j < g->nodes[k].operands; j++) {
            int32_t v = g->operands[g->nodes[k].first_operand + j].id;
            span *s = &r->spans[r->root[v]];
            if (s->last < r->position[k]) s->last = r->position[k];
            bool first_segment = g->nodes[k].segment == FV_SEG_FORWARD_BACKWARD;
            if (first_segment && fv_op_mutates_operand(&g->nodes[k], j)) r->changes[v] = true;
        }
    for (int32_t i = 0; i < g->n_outputs; i++) r->spans[r->root[g->outputs[i].value.id]].last = g->n_nodes;
}

/* Where most is alive; *bytes: how much. */
static int32_t find_peak(recomputer *r, size_t *bytes) {
    int32_t n = r->g->n_nodes, peak = 0;
    memset(r->live, 0, ((size_t)n + 2) * sizeof *r->live);
    for (int32_t i = 1; i < r->n_spans; i++) {
        r->live[r->spans[i].def] += (int64_t)r->spans[i].bytes;
        r->live[r->spans[i].last + 1] -= (int64_t)r->spans[i].bytes;
    }
    for (int32_t p = 1; p < n; p++) {
        r->live[p] += r->live[p - 1];
        if (r->live[p] > r->live[peak]) peak = p;
    }
    *bytes = n ? (size_t)r->live[peak] : 0;
    return peak;
}

/* ---------------------------------------------------------------- candidates */

/* Fill c with who reads the value; false if the backward pass does not, or not only as it is. */
static bool find_readers(const recomputer *r, candidate *c) {
    const fv_graph *g = r->g;
    c->first = INT32_MAX;
    c->last = -1;
    c->forward_last = r->position[c->node];
    for (int32_t i = 0; i < g->n_outputs; i++)
        if (r->root[g->outputs[i].value.id] == r->root[c->value]) return false;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        for (int j = 0; j < n->operands; j++) {
            int32_t v = g->operands[n->first_operand + j].id, at = r->position[k];
            if (r->root[v] != c->value) continue;
            if (n->backward && v != c->value) return false; /* through a reshape */
            if (!n->backward && at > c->forward_last) c->forward_last = at;
            if (n->backward && at < c->first) c->first = at;
            if (n->backward && at > c->last) c->last = at;
        }
    }
    return c->last >= 0 && c->forward_last < c->first;
}

static void find_candidates(recomputer *r) {
    const fv_graph *g = r->g;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        if (n->backward || n->segment != FV_SEG_FORWARD_BACKWARD || !is_cheap(n->op)) continue;
        candidate c = {.node = k, .value = n->first_result, .cost = cost_of(g, n)};
        if (r->spans[c.value].bytes >= LEAST_BYTES && find_readers(r, &c)) r->list[r->n_list++] = c;
    }
}

/* What the clone of a node reads. Batch norm is applied with the statistics that the original took.
 * -> number of operands, and its operation */
static int clone_operands(const fv_graph *g, const fv_node *n, fv_value *in, fv_op *op) {
    const fv_value *from = g->operands + n->first_operand;
    int count = 0;
    *op = n->op;
    in[count++] = from[0];
    if (n->op == FV_OP_BATCH_NORM) {
        *op = FV_OP_BATCH_NORM_INFER;
        in[count++] = (fv_value){n->first_result + 1};
        in[count++] = (fv_value){n->first_result + 2};
    }
    for (int j = 1; j < n->operands; j++) in[count++] = from[j];
    return count;
}

enum { MOST_OPERANDS = 16 };

/* Whether all that the clone reads is there when it runs. With `keep` it is seen to that it stays so. */
static bool operands_are_there(recomputer *r, const candidate *c, bool keep) {
    const fv_graph *g = r->g;
    const fv_node *n = &g->nodes[c->node];
    fv_value in[MOST_OPERANDS + 2];
    fv_op op;
    if (n->operands > MOST_OPERANDS) return false;
    int count = clone_operands(g, n, in, &op);
    for (int j = 0; j < count; j++) {
        const fv_val *val = &g->values[in[j].id];
        if (!in[j].id) continue;
        if (r->changes[in[j].id]) return false;
        if (val->kind != FV_VAL_RESULT) continue;
        span *s = &r->spans[r->root[in[j].id]];
        if (s->last < c->first && s->bytes * SMALL_SHARE > r->spans[c->value].bytes) return false;
        if (!keep) continue;
        s->pinned = true;
        if (s->last < c->first) s->last = c->first;
    }
    return true;
}

/* The candidate that frees most bytes at the peak for what it costs; NULL if none is left. */
static candidate *best_at(recomputer *r, int32_t peak, double budget) {
    candidate *best = NULL;
    double best_worth = 0;
    for (int32_t i = 0; i < r->n_list; i++) {
        candidate *c = &r->list[i];
        const span *s = &r->spans[c->value];
        if (c->taken || s->pinned || c->forward_last >= peak || c->first <= peak) continue;
        if (r->spent + c->cost > budget || !operands_are_there(r, c, false)) continue;
        double worth = (double)s->bytes / c->cost;
        if (worth <= best_worth) continue;
        best = c;
        best_worth = worth;
    }
    return best;
}

static void take(recomputer *r, candidate *c) {
    span *s = &r->spans[c->value];
    operands_are_there(r, c, true);
    c->taken = true;
    r->spent += c->cost;
    s->last = c->forward_last;
    r->spans[r->n_spans++] = (span){s->bytes, c->first, c->last, false};
}

/* ---------------------------------------------------------------- rewriting */

/* Append the clone and let backward nodes read it. -> index of its node; -1 after an error */
static int32_t add_clone(fv_graph *g, const candidate *c) {
    const fv_node n = g->nodes[c->node];
    fv_value in[MOST_OPERANDS + 2];
    fv_op op;
    int32_t readers = g->n_nodes;
    int count = clone_operands(g, &n, in, &op);
    fv_value again = fv_op_node((fv_scope){g, n.scope}, op, in, count, &n.attr);
    if (fv_is_none(again)) return -1;
    for (int32_t k = 0; k < readers; k++)
        for (int j = 0; j < g->nodes[k].operands && g->nodes[k].backward; j++) {
            fv_value *v = &g->operands[g->nodes[k].first_operand + j];
            if (v->id == c->value) *v = again;
        }
    return readers;
}

/* Each clone goes in front of the first node that reads it. */
static fv_status insert_clones(recomputer *r) {
    fv_graph *g = r->g;
    int32_t n = g->n_nodes, at = 0;
    int32_t *clone = fv_arena_alloc(&g->arena, (size_t)n + 1, sizeof *clone); /* by the original's node */
    if (!clone) return g->ctx->error.code;
    bool was_backward = g->in_backward;
    fv_segment segment = g->segment;
    g->in_backward = true;
    g->segment = FV_SEG_FORWARD_BACKWARD;
    for (int32_t i = 0; i < r->n_list && g->error == FV_OK; i++)
        if (r->list[i].taken) clone[r->list[i].node] = add_clone(g, &r->list[i]);
    g->in_backward = was_backward;
    g->segment = segment;
    FV_TRY(fv_graph_finish(g));

    fv_node *nodes = fv_arena_alloc(&g->arena, (size_t)g->n_nodes, sizeof *nodes);
    if (!nodes) return g->ctx->error.code;
    for (int32_t k = 0; k < n; k++) {
        for (int32_t i = 0; i < r->n_list; i++)
            if (r->list[i].taken && r->list[i].first == r->position[k]) nodes[at++] = g->nodes[clone[r->list[i].node]];
        nodes[at++] = g->nodes[k];
    }
    memcpy(g->nodes, nodes, (size_t)g->n_nodes * sizeof *nodes);
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int res = 0; res < g->nodes[k].results; res++) g->values[g->nodes[k].first_result + res].node = k;
    return FV_OK;
}

fv_status fv_graph_recompute(fv_graph *g, double budget, fv_recompute_report *report) {
    fv_recompute_report unwanted;
    if (!report) report = &unwanted;
    *report = (fv_recompute_report){0};
    FV_TRY(fv_graph_finish(g));
    recomputer r = {.g = g};
    FV_TRY(allocate(&r));
    find_positions(&r);
    find_spans(&r);
    find_candidates(&r);
    int32_t peak = find_peak(&r, &report->bytes_before);
    for (candidate *c; (c = best_at(&r, peak, budget * r.step_cost)); report->nodes++) {
        take(&r, c);
        peak = find_peak(&r, &report->bytes_after);
    }
    if (report->nodes == 0) report->bytes_after = report->bytes_before;
    report->cost = r.step_cost > 0 ? r.spent / r.step_cost : 0;
    return report->nodes ? insert_clones(&r) : FV_OK;
}
