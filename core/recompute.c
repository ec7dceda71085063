/* recompute.c: keep less from the forward to the backward pass. A value that is cheap to make and expensive to keep is
 * made anew, from operands that are kept anyway, just before the first backward node that reads it:
 *
 *   x ─ gelu ─ y ─ linear ─ ... loss ...  linear_bwd_weight(dz, y)              y lives from here to there
 *   x ─ gelu ─ y ─ linear ─ ... loss ...  gelu(x) = y' ─ linear_bwd_weight(dz, y')
 *
 * Clones are of pure nodes, have the operands, attributes and random stream of the original, and so its bits. What to
 * clone is chosen greedily at the point where most bytes are alive, the most bytes per cost first, within a budget and
 * as long as it frees enough for its cost. A clone may read other clones: with an infinite budget it is gradient
 * checkpointing (Chen et al. 2016). */
#include "core/ops.h"

#include <math.h>
#include <string.h>

#define BALANCE 11.0             /* operations in the time of one byte: what the roofline of a CPU core comes to */
#define ACTIVATION_OPERATIONS 20 /* per element, of those that a linear layer can apply on the way */
#define ATTENTION_SHARE 0.4      /* of the roof, that attention reaches */
#define LEAST_BYTES 65536        /* smaller values are not worth a node */
#define LEAST_WORTH 5.0          /* with a budget, 1% of a step is to free so many percent of the peak */
#define SMALL_SHARE 16           /* an operand so much smaller than the value may be kept longer for its sake */

typedef struct span { /* life of a value that has memory of its own; positions in the order of execution */
    size_t bytes;
    int32_t def, last;    /* as the forward pass makes it */
    int32_t first, final; /* who reads it in the backward pass, clones included; first = INT32_MAX: nobody */
    bool taken;           /* a clone makes it anew, just before `first` */
    bool pinned;          /* it must be kept */
} span;

typedef struct candidate {
    int32_t node, value;
    int32_t forward_last; /* last reader of the forward pass */
    double cost;
    double worth; /* bytes per cost, at most */
    bool tried;
} candidate;

typedef struct recomputer {
    fv_graph *g;
    int32_t *position;    /* by node */
    int32_t *root;        /* by value: the value whose memory it shares (reshape), or itself */
    int32_t *index;       /* by value: 1 + its place in the list; 0: no candidate */
    fv_value *again;      /* by value: what its clone gives */
    bool *changes;        /* by value: a node of the first segment changes its contents */
    span *spans, *before; /* by value; before: copy while something is tried */
    int64_t *live;        /* by position: bytes */
    candidate *list;      /* in the order of nodes */
    int32_t n_list;
    double step_cost, spent;
    double least_worth; /* of a candidate */
} recomputer;

static bool may_run_again(fv_op op) {
    switch (op) {
    case FV_OP_CONV2D:
    case FV_OP_LINEAR:
    case FV_OP_MATMUL:
    case FV_OP_SOFTMAX:
    case FV_OP_ATTENTION:
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
    if (n->op == FV_OP_ATTENTION || n->op == FV_OP_ATTENTION_BWD) flops /= ATTENTION_SHARE;
    return flops > bytes ? flops : bytes;
}

/* Time of its clone. An activation that gradients of linear layers' weights alone read never is in memory: the backend
 * applies it on the way (core/cpu/rewrite.c). */
static double cost_of_clone(const fv_graph *g, const fv_node *n) {
    bool on_the_way = n->op == FV_OP_ACTIVATION && fv_act_needs_input(n->attr.activation.kind);
    for (int32_t k = 0; k < g->n_nodes && on_the_way; k++)
        for (int j = 0; j < g->nodes[k].operands && g->nodes[k].backward; j++)
            if (g->operands[g->nodes[k].first_operand + j].id == n->first_result)
                on_the_way &= g->nodes[k].op == FV_OP_LINEAR_BWD_WEIGHT;
    return on_the_way ? ACTIVATION_OPERATIONS * fv_node_flops(g, n) : cost_of(g, n);
}

/* ---------------------------------------------------------------- lifetimes */

static fv_status allocate(recomputer *r) {
    fv_graph *g = r->g;
    size_t nodes = (size_t)g->n_nodes + 1, values = (size_t)g->n_values + 1;
    r->position = fv_arena_alloc(&g->arena, nodes, sizeof *r->position);
    r->root = fv_arena_alloc(&g->arena, values, sizeof *r->root);
    r->index = fv_arena_alloc(&g->arena, values, sizeof *r->index);
    r->again = fv_arena_alloc(&g->arena, values, sizeof *r->again);
    r->changes = fv_arena_alloc(&g->arena, values, sizeof *r->changes);
    r->spans = fv_arena_alloc(&g->arena, values, sizeof *r->spans);
    r->before = fv_arena_alloc(&g->arena, values, sizeof *r->before);
    r->live = fv_arena_alloc(&g->arena, nodes + 1, sizeof *r->live);
    r->list = fv_arena_alloc(&g->arena, nodes, sizeof *r->list);
    bool ok =
        r->position && r->root && r->index && r->again && r->changes && r->spans && r->before && r->live && r->list;
    return ok ? FV_OK : g->ctx->error.code;
}

static void find_positions(recomputer *r) {
    const fv_graph *g = r->g;
    int32_t next = 0;
    for (int seg = 0; seg < FV_SEG_COUNT; seg++)
        for (int32_t k = 0; k < g->n_nodes; k++)
            if (g->nodes[k].segment == (fv_segment)seg) r->position[k] = next++;
}

static void find_definitions(recomputer *r) {
    const fv_graph *g = r->g;
    for (int32_t i = 0; i < g->n_values; i++) {
        r->root[i] = i;
        r->spans[i] = (span){.first = INT32_MAX, .final = -1};
    }
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        r->step_cost += cost_of(g, n);
        for (int res = 0; res < n->results; res++) {
            span *s = &r->spans[n->first_result + res];
            s->bytes = fv_bytes(g->values[n->first_result + res].type);
            s->def = s->last = r->position[k];
        }
        if (n->op != FV_OP_RESHAPE) continue;
        r->root[n->first_result] = r->root[g->operands[n->first_operand].id];
        r->spans[n->first_result].bytes = 0;
    }
}

static void find_readers(recomputer *r) {
    const fv_graph *g = r->g;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        for (int j = 0; j < n->operands; j++) {
            int32_t v = g->operands[n->first_operand + j].id, at = r->position[k];
            span *s = &r->spans[r->root[v]];
            if (s->last < at) s->last = at;
            if (n->backward && v != r->root[v]) s->pinned = true; /* a clone would not have that shape */
            if (n->backward && s->first > at) s->first = at;
            if (n->backward && s->final < at) s->final = at;
            if (n->segment == FV_SEG_FORWARD_BACKWARD && fv_op_mutates_operand(n, j)) r->changes[v] = true;
        }
    }
    for (int32_t i = 0; i < g->n_outputs; i++) {
        span *s = &r->spans[r->root[g->outputs[i].value.id]];
        s->last = g->n_nodes;
        s->pinned = true;
    }
}

/* Where most is alive; *bytes: how much. */
static int32_t find_peak(recomputer *r, size_t *bytes) {
    int32_t n = r->g->n_nodes, peak = 0;
    memset(r->live, 0, ((size_t)n + 2) * sizeof *r->live);
    for (int32_t i = 1; i < r->g->n_values; i++) {
        const span *s = &r->spans[i];
        r->live[s->def] += (int64_t)s->bytes;
        r->live[s->last + 1] -= (int64_t)s->bytes;
        if (!s->taken) continue;
        r->live[s->first] += (int64_t)s->bytes;
        r->live[s->final + 1] -= (int64_t)s->bytes;
    }
    for (int32_t p = 1; p < n; p++) {
        r->live[p] += r->live[p - 1];
        if (r->live[p] > r->live[peak]) peak = p;
    }
    *bytes = n ? (size_t)r->live[peak] : 0;
    return peak;
}

/* ---------------------------------------------------------------- candidates */

enum { MOST_OPERANDS = 16, MOST_DEPTH = 4 };

static int32_t last_forward_reader(const recomputer *r, int32_t value, int32_t node) {
    const fv_graph *g = r->g;
    int32_t last = r->position[node];
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int j = 0; j < g->nodes[k].operands && !g->nodes[k].backward; j++) {
            int32_t v = g->operands[g->nodes[k].first_operand + j].id;
            if (r->root[v] == value && r->position[k] > last) last = r->position[k];
        }
    return last;
}

static void find_candidates(recomputer *r) {
    const fv_graph *g = r->g;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        const span *s = &r->spans[n->first_result];
        if (n->backward || n->segment != FV_SEG_FORWARD_BACKWARD || !may_run_again(n->op)) continue;
        if (s->bytes < LEAST_BYTES || s->pinned || n->operands > MOST_OPERANDS) continue;
        int32_t forward_last = last_forward_reader(r, n->first_result, k);
        if (forward_last >= s->first) continue;
        const double cost = cost_of_clone(g, n);
        r->list[r->n_list++] = (candidate){k, n->first_result, forward_last, cost, (double)s->bytes / cost, false};
        r->index[n->first_result] = r->n_list;
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

static bool need(recomputer *r, fv_value v, int32_t at, size_t bytes, int depth);

/* See to it that all that the clone of a node reads is there at a position. */
static bool need_operands(recomputer *r, int32_t node, int32_t at, int depth) {
    const fv_node *n = &r->g->nodes[node];
    fv_value in[MOST_OPERANDS + 2];
    fv_op op;
    bool ok = depth < MOST_DEPTH;
    int count = clone_operands(r->g, n, in, &op);
    for (int j = 0; ok && j < count; j++) ok = need(r, in[j], at, r->spans[n->first_result].bytes, depth);
    return ok;
}

/* Make anew from position `at` on what was made anew later, or not at all. */
static bool take_for(recomputer *r, int32_t value, int32_t at, int depth) {
    span *s = &r->spans[value];
    const candidate *c = &r->list[r->index[value] - 1];
    if (!s->taken) {
        s->taken = true;
        s->last = c->forward_last;
        r->spent += c->cost;
    } else if (s->first <= at) return true;
    if (at < s->first) s->first = at;
    return need_operands(r, c->node, s->first, depth + 1);
}

/* A value is to be there at a position, for a clone whose result has so many bytes: it is kept so long anyway, or made
 * anew as well, or small. */
static bool need(recomputer *r, fv_value v, int32_t at, size_t bytes, int depth) {
    int32_t root = r->root[v.id];
    span *s = &r->spans[root];
    if (r->changes[v.id]) return false;
    if (!v.id || r->g->values[v.id].kind != FV_VAL_RESULT) return true;
    bool kept = !s->taken && s->last >= at, small = s->bytes * SMALL_SHARE <= bytes;
    if (root != v.id) { /* a clone would not have that shape */
        s->pinned = true;
        return kept;
    }
    if (s->final < at) s->final = at;
    if (!kept && !s->taken && small) {
        s->last = at;
        kept = true;
    }
    if (kept) {
        if (s->first > at) s->first = at;
        return true;
    }
    if (!s->taken && (s->pinned || !r->index[root])) return false;
    return take_for(r, root, at, depth);
}

/* The candidate that frees most bytes at the peak for what it costs; NULL if none is left. */
static candidate *best_at(recomputer *r, int32_t peak, double budget) {
    candidate *best = NULL;
    double best_worth = 0;
    for (int32_t i = 0; i < r->n_list; i++) {
        candidate *c = &r->list[i];
        const span *s = &r->spans[c->value];
        if (c->tried || s->taken || s->pinned || c->forward_last >= peak || s->first <= peak || s->first == INT32_MAX)
            continue;
        if (r->spent + c->cost > budget || c->worth <= best_worth || c->worth < r->least_worth) continue;
        best = c;
        best_worth = c->worth;
    }
    return best;
}

/* Take the candidate, unless that raises the peak or costs too much; or put it back, if it is worth less than it was
 * taken for, because other clones have to come along. */
static void try_to_take(recomputer *r, candidate *c, double budget, int32_t *peak, size_t *bytes) {
    size_t size = (size_t)r->g->n_values * sizeof *r->spans, then;
    double spent = r->spent;
    memcpy(r->before, r->spans, size);
    bool ok = take_for(r, c->value, r->spans[c->value].first, 0) && r->spent <= budget;
    int32_t at = ok ? find_peak(r, &then) : 0;
    const double freed = ok ? (double)*bytes - (double)r->live[*peak] : 0, worth = ok ? freed / (r->spent - spent) : 0;
    c->tried = !ok || then > *bytes || worth >= c->worth * (1 - 1e-9);
    if (c->tried && ok && then <= *bytes) {
        *peak = at;
        *bytes = then;
        return;
    }
    c->worth = worth;
    memcpy(r->spans, r->before, size);
    r->spent = spent;
}

/* ---------------------------------------------------------------- rewriting */

/* Append the clone and let backward nodes read it. -> index of its node */
static int32_t add_clone(recomputer *r, const candidate *c) {
    fv_graph *g = r->g;
    const fv_node n = g->nodes[c->node];
    fv_value in[MOST_OPERANDS + 2];
    fv_op op;
    int32_t readers = g->n_nodes;
    int count = clone_operands(g, &n, in, &op);
    for (int j = 0; j < count; j++)
        if (r->spans[in[j].id].taken) in[j] = r->again[in[j].id];
    r->again[c->value] = fv_op_node((fv_scope){g, n.scope}, op, in, count, &n.attr);
    for (int32_t k = 0; k < readers; k++)
        for (int j = 0; j < g->nodes[k].operands && g->nodes[k].backward; j++) {
            fv_value *v = &g->operands[g->nodes[k].first_operand + j];
            if (v->id == c->value) *v = r->again[c->value];
        }
    return readers;
}

/* Each clone goes in front of the first node that reads it; clones of one place in the order of the originals. */
static fv_status insert_clones(recomputer *r, int *count) {
    fv_graph *g = r->g;
    int32_t n = g->n_nodes, at = 0;
    int32_t *clone = fv_arena_alloc(&g->arena, (size_t)r->n_list + 1, sizeof *clone); /* node, by candidate */
    if (!clone) return g->ctx->error.code;
    bool was_backward = g->in_backward;
    fv_segment segment = g->segment;
    g->in_backward = true;
    g->segment = FV_SEG_FORWARD_BACKWARD;
    for (int32_t i = 0; i < r->n_list && g->error == FV_OK; i++)
        if (r->spans[r->list[i].value].taken) clone[i] = add_clone(r, &r->list[i]);
    g->in_backward = was_backward;
    g->segment = segment;
    FV_TRY(fv_graph_finish(g));
    *count = g->n_nodes - n;

    fv_node *nodes = fv_arena_alloc(&g->arena, (size_t)g->n_nodes, sizeof *nodes);
    if (!nodes) return g->ctx->error.code;
    for (int32_t k = 0; k < n; k++) {
        for (int32_t i = 0; i < r->n_list; i++) {
            const span *s = &r->spans[r->list[i].value];
            if (s->taken && s->first == r->position[k]) nodes[at++] = g->nodes[clone[i]];
        }
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
    find_definitions(&r);
    find_readers(&r);
    find_candidates(&r);
    int32_t peak = find_peak(&r, &report->bytes_before);
    report->bytes_after = report->bytes_before;
    if (isfinite(budget) && r.step_cost > 0) r.least_worth = LEAST_WORTH * (double)report->bytes_before / r.step_cost;
    budget *= r.step_cost;
    for (candidate *c; (c = best_at(&r, peak, budget));) try_to_take(&r, c, budget, &peak, &report->bytes_after);
    report->cost = r.step_cost > 0 ? r.spent / r.step_cost : 0;
    return r.spent > 0 ? insert_clones(&r, &report->nodes) : FV_OK;
}
