/* plan.c: when each node runs and where each value lies.
 *
 *   order      nodes by segment, else as built; nodes that nothing needs are left out
 *   lifetime   [position of definition, position of last use]; inputs and outputs live throughout
 *   alias      reshape shares its operand's memory; element-wise nodes write over an operand that dies with them
 *   workspace  of a node: lives at its position
 *   parts      inputs and outputs of all of them first; the rest once per thread
 *   offset     values and workspaces one after the other, each in the tightest gap that is free for its whole life; of
 *              a few orders the one that needs least
 */
#include "core/program.h"

#include <string.h>

#define ALIGN 64
#define ARENA_ALIGN 256 /* what CUDA's libraries want of a workspace */

static size_t align_up(size_t bytes, size_t to) {
    return (bytes + to - 1) & ~(to - 1);
}

typedef struct planner {
    fv_graph *g;
    fv_plan *plan;
    int32_t n; /* nodes in order */
    bool *needed;
} planner;

/* ---------------------------------------------------------------- order */

/* Statistics that run along with the model change with the update, unless several micro-steps make one update and each
 * of them says by itself whether it counts (their guard, the last operand). */
static fv_segment segment_of(const fv_graph *g, const fv_node *n, bool accumulate) {
    bool statistics = n->op == FV_OP_LERP_ASSIGN || n->op == FV_OP_INCREMENT;
    if (!accumulate || !statistics || n->segment != FV_SEG_UPDATE) return n->segment;
    const fv_val *guard = &g->values[g->operands[n->first_operand + n->operands - 1].id];
    bool later = guard->kind == FV_VAL_RESULT && g->nodes[guard->node].segment > FV_SEG_FORWARD_BACKWARD;
    return later ? n->segment : FV_SEG_FORWARD_BACKWARD;
}

static void mark_operands(const fv_graph *g, const fv_node *n, bool *value_needed) {
    for (int j = 0; j < n->operands; j++) value_needed[g->operands[n->first_operand + j].id] = true;
}

/* A node is needed if it changes state, or something needed or an output reads it. Those that change state come first:
 * they may read what a later node of an earlier segment gives. */
static void mark_needed(planner *p, bool *value_needed) {
    fv_graph *g = p->g;
    for (int32_t i = 0; i < g->n_outputs; i++) value_needed[g->outputs[i].value.id] = true;
    for (int32_t k = 0; k < g->n_nodes; k++)
        if ((p->needed[k] = fv_op_get(g->nodes[k].op)->mutates)) mark_operands(g, &g->nodes[k], value_needed);
    for (int32_t k = g->n_nodes - 1; k >= 0; k--) {
        const fv_node *n = &g->nodes[k];
        for (int r = 0; r < n->results; r++) p->needed[k] |= value_needed[n->first_result + r];
        if (p->needed[k]) mark_operands(g, n, value_needed);
    }
}

static fv_status make_order(planner *p, bool accumulate) {
    fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    bool *value_needed = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *value_needed);
    p->needed = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *p->needed);
    plan->order = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *plan->order);
    if (!value_needed || !p->needed || !plan->order) return g->ctx->error.code;
    mark_needed(p, value_needed);
    for (int seg = 0; seg < FV_SEG_COUNT; seg++) {
        plan->segment_first[seg] = p->n;
        for (int moved = 0; moved < 2; moved++) /* what comes from another segment goes last: its guard is known then */
            for (int32_t k = 0; k < g->n_nodes; k++) {
                fv_segment own = g->nodes[k].segment, runs = segment_of(g, &g->nodes[k], accumulate);
                if (p->needed[k] && runs == (fv_segment)seg && (runs != own) == moved) plan->order[p->n++] = k;
            }
    }
    plan->segment_first[FV_SEG_COUNT] = p->n;
    return FV_OK;
}

/* ---------------------------------------------------------------- lifetimes and sharing */

static int32_t root_of(const fv_plan *plan, int32_t id) {
    while (plan->place[id].alias) id = plan->place[id].alias;
    return id;
}

/* The caller's memory for an input; NULL: the program's own. */
static const fv_bound_input *bound_to(const fv_graph *g, int32_t id, const fv_compile_opts *opts) {
    for (int i = 0; opts && i < opts->n_bound; i++)
        if (fv_find_value(g, opts->bound[i].name).id == id) return &opts->bound[i];
    return NULL;
}

static fv_status bind_inputs(planner *p, const fv_compile_opts *opts) {
    fv_graph *g = p->g;
    for (int32_t i = 1; i < g->n_values; i++) {
        const fv_bound_input *bound = g->values[i].kind == FV_VAL_INPUT ? bound_to(g, i, opts) : NULL;
        if (!bound) continue;
        if (bound->bytes != fv_bytes(g->values[i].type) || !bound->memory)
            return fv_fail(g->ctx, FV_E_INTERNAL, "input '%s' takes %zu bytes, it is bound to %zu", bound->name,
                           fv_bytes(g->values[i].type), bound->bytes);
        p->plan->place[i].where = FV_AT_GIVEN;
        p->plan->address[i] = bound->memory;
    }
    return FV_OK;
}

static void place_fixed(planner *p) {
    fv_graph *g = p->g;
    for (int32_t i = 1; i < g->n_values; i++) {
        fv_place *place = &p->plan->place[i];
        place->def = place->last = -1;
        switch (g->values[i].kind) {
        case FV_VAL_INPUT:
            place->where = FV_AT_ARENA;
            place->last = p->n;
            break;
        case FV_VAL_CONST:
            place->where = FV_AT_CONST;
            place->offset = p->plan->const_bytes;
            p->plan->const_bytes += align_up(fv_bytes(g->values[i].type), ALIGN);
            break;
        case FV_VAL_PARAM:
        case FV_VAL_STATE: place->where = FV_AT_STORE; break;
        default: break;
        }
    }
}

static void find_lifetimes(planner *p) {
    fv_graph *g = p->g;
    for (int32_t pos = 0; pos < p->n; pos++) {
        const fv_node *n = &g->nodes[p->plan->order[pos]];
        for (int r = 0; r < n->results; r++) p->plan->place[n->first_result + r].def = pos;
        for (int j = 0; j < n->operands; j++) {
            fv_place *place = &p->plan->place[g->operands[n->first_operand + j].id];
            if (place->last < pos) place->last = pos;
        }
    }
    for (int32_t i = 0; i < g->n_outputs; i++) p->plan->place[g->outputs[i].value.id].last = p->n;
    for (int32_t i = 1; i < g->n_values; i++) {
        fv_place *place = &p->plan->place[i];
        if (g->values[i].kind != FV_VAL_RESULT || place->def < 0) continue;
        if (place->last >= place->def && fv_bytes(g->values[i].type)) place->where = FV_AT_ARENA;
    }
}

/* Operand j of the node may be written over by its result 0: kernels of these ops read each element before they write
 * it. */
static bool in_place_operand(const fv_node *n, int j) {
    switch (n->op) {
    case FV_OP_ACTIVATION:
    case FV_OP_SCALE:
    case FV_OP_DROPOUT:
    case FV_OP_DROP_PATH:
    case FV_OP_BATCH_NORM_INFER: return j == 0;
    case FV_OP_ACTIVATION_BWD:
    case FV_OP_ADD:
    case FV_OP_SUB:
    case FV_OP_MUL: return j <= 1;
    case FV_OP_BATCH_NORM_BWD: return j == 0;
    case FV_OP_ACTIVATED_LINEAR_BWD_DATA: return j == 2;
    case FV_OP_LINEAR_ACT: return j == 3;
    case FV_OP_LAYER_NORM_BWD: return j == 5;
    default: return false;
    }
}

/* Products read an operand again when some of the result is written. */
static bool reads_elsewhere(const planner *p, const fv_node *n, int j, int32_t root) {
    if (n->op != FV_OP_LINEAR_ACT && n->op != FV_OP_ACTIVATED_LINEAR_BWD_DATA) return false;
    for (int k = 0; k < n->operands; k++)
        if (k != j && root_of(p->plan, p->g->operands[n->first_operand + k].id) == root) return true;
    return false;
}

/* Reshape always shares; in-place nodes share with an operand that dies here and is not an input or an output. */
static void find_aliases(planner *p) {
    fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    for (int32_t pos = 0; pos < p->n; pos++) {
        const fv_node *n = &g->nodes[plan->order[pos]];
        int32_t y = n->first_result;
        if (n->results == 0 || plan->place[y].where != FV_AT_ARENA) continue;
        if (n->op == FV_OP_RESHAPE) {
            int32_t x = root_of(plan, g->operands[n->first_operand].id);
            plan->place[y].alias = x;
            plan->place[y].where = plan->place[x].where;
            if (plan->place[x].last < plan->place[y].last) plan->place[x].last = plan->place[y].last;
            continue;
        }
        for (int j = 0; j < n->operands && !plan->place[y].alias; j++) {
            int32_t v = g->operands[n->first_operand + j].id, x = root_of(plan, v);
            if (!v || !in_place_operand(n, j) || plan->place[x].where != FV_AT_ARENA || plan->place[x].last != pos)
                continue;
            if (reads_elsewhere(p, n, j, x)) continue;
            if (g->values[x].kind != FV_VAL_RESULT || !fv_same_type(g->values[v].type, g->values[y].type)) continue;
            plan->place[y].alias = x;
            plan->place[x].last = plan->place[y].last;
        }
    }
}

/* ---------------------------------------------------------------- workspace, and what nodes keep */

static bool changes_state(const planner *p) {
    const fv_graph *g = p->g;
    for (int32_t i = 0; i < p->n; i++)
        if (fv_op_get(g->nodes[p->plan->order[i]].op)->mutates) return true;
    return false;
}

/* Operands that are the same in every run until the store changes. */
static uint32_t constant_operands(const planner *p, const fv_node *n) {
    uint32_t constant = 0;
    for (int j = 0; j < n->operands && j < 32; j++) {
        const fv_val *v = &p->g->values[p->g->operands[n->first_operand + j].id];
        const bool stays = v->kind == FV_VAL_PARAM || v->kind == FV_VAL_STATE || v->kind == FV_VAL_CONST;
        if (stays || (v->kind == FV_VAL_RESULT && p->plan->prepares[v->node])) constant |= 1u << j;
    }
    return constant;
}

/* Weights in another type. */
static fv_status find_preparing(planner *p, const fv_device *dev) {
    fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    plan->prepares = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *plan->prepares);
    if (!plan->prepares) return g->ctx->error.code;
    if (plan->mutates || !dev || !dev->backend->prepared) return FV_OK;
    for (int32_t i = 0; i < p->n; i++) {
        const fv_node *n = &g->nodes[plan->order[i]];
        fv_place *place = &plan->place[n->first_result];
        if (n->op != FV_OP_CAST || constant_operands(p, n) != 1 || place->where != FV_AT_ARENA || place->last == p->n)
            continue;
        plan->prepares[plan->order[i]] = true;
        place->where = FV_AT_PREPARED;
        place->offset = plan->prepared_bytes;
        plan->prepared_bytes += align_up(fv_bytes(g->values[n->first_result].type), ALIGN);
    }
    return FV_OK;
}

static fv_status measure_nodes(planner *p, const fv_device *dev) {
    fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    if (plan->parts > 1) dev = dev->alone;
    plan->prepared_at = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *plan->prepared_at);
    plan->workspace = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + 1, sizeof *plan->workspace);
    if (!plan->prepared_at || !plan->workspace) return g->ctx->error.code;
    memset(plan->prepared_at, 0xff, (size_t)g->n_nodes * sizeof *plan->prepared_at); /* FV_KEEPS_NOTHING */
    for (int32_t i = 0; dev && i < p->n; i++) {
        const fv_backend *b = dev->backend;
        const fv_node *n = &g->nodes[plan->order[i]];
        size_t workspace = b->workspace(dev, g, n), kept = 0;
        if (b->prepared && !plan->mutates) kept = b->prepared(dev, g, n, constant_operands(p, n), &workspace);
        plan->workspace[plan->order[i]].bytes = workspace;
        if (workspace > plan->workspace_bytes) plan->workspace_bytes = workspace;
        if (!kept) continue;
        plan->prepared_at[plan->order[i]] = plan->prepared_bytes;
        plan->prepared_bytes += align_up(kept, ALIGN);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- offsets */

#define SIZE_RANK 0x1p50 /* above that of any size */

typedef struct block {
    size_t bytes, offset;
    int32_t id, def, last; /* id: of the value; behind those the nodes whose workspace it is */
    double rank;           /* higher ones are placed earlier */
} block;

static bool alive_together(const block *a, const block *b) {
    return a->def <= b->last && b->def <= a->last;
}

/* Tightest gap between the blocks that live at the same time; `placed` is sorted by offset. */
static size_t best_fit(const block *placed, int32_t n, const block *b) {
    size_t best = SIZE_MAX, best_gap = SIZE_MAX, end = 0;
    for (int32_t i = 0; i < n; i++) {
        if (!alive_together(&placed[i], b)) continue;
        if (placed[i].offset > end) {
            size_t gap = placed[i].offset - end;
            if (gap >= b->bytes && gap < best_gap) best = end, best_gap = gap;
        }
        if (placed[i].offset + placed[i].bytes > end) end = placed[i].offset + placed[i].bytes;
    }
    return best != SIZE_MAX ? best : end;
}

static void insert_by_offset(block *placed, int32_t n, block b) {
    int32_t at = n;
    while (at > 0 && placed[at - 1].offset > b.offset) at--;
    memmove(placed + at + 1, placed + at, (size_t)(n - at) * sizeof *placed);
    placed[at] = b;
}

/* Where most is alive, workspaces included. */
static int32_t find_fullest(const block *b, int32_t n, int32_t positions) {
    int32_t best = 0;
    size_t most = 0;
    for (int32_t at = 0; at < positions; at++) {
        size_t bytes = 0;
        for (int32_t i = 0; i < n; i++)
            if (b[i].def <= at && at <= b[i].last) bytes += b[i].bytes;
        if (bytes <= most) continue;
        most = bytes;
        best = at;
    }
    return best;
}

/* Larger first; more bytes times life first; or what is alive at the fullest position first, by length of life or by
 * beginning, and then larger first. */
typedef enum placing { BY_SIZE, BY_AREA, FULLEST_BY_LIFE, FULLEST_BY_BEGINNING, PLACINGS } placing;

static double rank(const block *b, placing how, int32_t fullest) {
    const double life = (double)b->last - b->def + 1, size = (double)b->bytes;
    const bool there = b->def <= fullest && fullest <= b->last;
    switch (how) {
    case BY_AREA: return size * life;
    case FULLEST_BY_LIFE: return there ? SIZE_RANK + life : size;
    case FULLEST_BY_BEGINNING: return there ? SIZE_RANK + fullest - b->def : size;
    default: return size;
    }
}

static bool comes_before(const block *a, const block *b) {
    if (a->rank != b->rank) return a->rank > b->rank;
    return a->bytes != b->bytes ? a->bytes > b->bytes : a->id < b->id;
}

/* Shell sort: in place, no library order that could differ between machines. */
static void sort_blocks(block *b, int32_t n) {
    for (int32_t gap = n / 2; gap > 0; gap /= 2)
        for (int32_t i = gap; i < n; i++) {
            block key = b[i];
            int32_t j = i;
            for (; j >= gap && comes_before(&key, &b[j - gap]); j -= gap) b[j] = b[j - gap];
            b[j] = key;
        }
}

/* Give every block its offset. -> bytes in all */
static size_t place_blocks(block *blocks, block *placed, int32_t n, placing how, int32_t fullest) {
    size_t end = 0;
    for (int32_t i = 0; i < n; i++) blocks[i].rank = rank(&blocks[i], how, fullest);
    sort_blocks(blocks, n);
    for (int32_t i = 0; i < n; i++) {
        block *b = &blocks[i];
        b->offset = best_fit(placed, i, b);
        insert_by_offset(placed, i, *b);
        if (b->offset + b->bytes > end) end = b->offset + b->bytes;
    }
    return end;
}

/* An input or an output of a program that runs in parts: memory for all of them. */
static bool is_of_all_parts(const planner *p, const fv_place *place) {
    return p->plan->parts > 1 && place->where == FV_AT_ARENA && !place->alias && place->last == p->n;
}

static void place_parts(planner *p) {
    fv_plan *plan = p->plan;
    for (int32_t i = 1; i < p->g->n_values; i++) {
        if (!is_of_all_parts(p, &plan->place[i])) continue;
        plan->place[i].offset = plan->fixed_bytes;
        plan->fixed_bytes += align_up(fv_bytes(p->g->values[i].type) * (size_t)plan->parts, ARENA_ALIGN);
    }
}

/* -> number of blocks */
static int32_t list_blocks(const planner *p, block *blocks) {
    const fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    int32_t n = 0;
    for (int32_t i = 1; i < g->n_values; i++) {
        const fv_place *place = &plan->place[i];
        if (place->where != FV_AT_ARENA || place->alias || is_of_all_parts(p, place)) continue;
        size_t bytes = align_up(fv_bytes(g->values[i].type), ARENA_ALIGN);
        blocks[n++] = (block){.bytes = bytes, .id = i, .def = place->def, .last = place->last};
        plan->naive_bytes += bytes;
    }
    plan->naive_bytes += align_up(plan->workspace_bytes, ARENA_ALIGN);
    for (int32_t i = 0; i < p->n; i++) {
        const int32_t node = plan->order[i];
        const size_t bytes = align_up(plan->workspace[node].bytes, ARENA_ALIGN);
        if (bytes) blocks[n++] = (block){.bytes = bytes, .id = g->n_values + node, .def = i, .last = i};
    }
    return n;
}

static fv_status assign_offsets(planner *p) {
    fv_graph *g = p->g;
    fv_plan *plan = p->plan;
    const size_t most = (size_t)g->n_values + (size_t)g->n_nodes + 1;
    block *blocks = fv_arena_alloc(&g->arena, most, sizeof *blocks);
    block *placed = fv_arena_alloc(&g->arena, most, sizeof *placed);
    if (!blocks || !placed) return g->ctx->error.code;
    place_parts(p);
    const int32_t n = list_blocks(p, blocks), fullest = find_fullest(blocks, n, p->n);
    placing best = BY_SIZE;
    plan->arena_bytes = SIZE_MAX;
    for (placing how = BY_SIZE; how < PLACINGS; how++) {
        const size_t bytes = place_blocks(blocks, placed, n, how, fullest);
        if (bytes >= plan->arena_bytes) continue;
        plan->arena_bytes = bytes;
        best = how;
    }
    place_blocks(blocks, placed, n, best, fullest);
    for (int32_t i = 0; i < n; i++) {
        const size_t offset = plan->fixed_bytes + blocks[i].offset;
        if (blocks[i].id < g->n_values) plan->place[blocks[i].id].offset = offset;
        else plan->workspace[blocks[i].id - g->n_values].offset = offset;
    }
    plan->lane_bytes = align_up(plan->arena_bytes, ARENA_ALIGN);
    if (plan->parts > 1) {
        plan->arena_bytes = plan->fixed_bytes + (size_t)plan->lanes * plan->lane_bytes;
        plan->naive_bytes = plan->fixed_bytes + (size_t)plan->lanes * plan->naive_bytes;
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- the store's side */

/* Slot of a PARAM or STATE value; with use_ema a parameter's average instead, if it has one. */
static fv_status find_slots(planner *p, bool use_ema) {
    fv_graph *g = p->g;
    fv_store *store = p->plan->store;
    for (int32_t i = 0; i < g->n_decls; i++) {
        int32_t slot = fv_store_find(store, g->decls[i].name);
        if (slot < 0) return fv_fail(g->ctx, FV_E_INTERNAL, "plan: the store does not hold '%s'", g->decls[i].name);
        if (use_ema && g->decls[i].role == FV_ROLE_WEIGHT)
            for (int32_t k = 0; k < fv_store_count(store); k++) {
                const fv_slot *ema = fv_store_slot(store, k);
                if (ema->role == FV_ROLE_EMA && ema->of == slot) {
                    slot = k;
                    break;
                }
            }
        p->plan->place[g->decls[i].value.id].slot = slot;
    }
    return FV_OK;
}

fv_status fv_plan_make(fv_graph *g, fv_store *store, const fv_device *dev, const fv_compile_opts *opts, fv_plan *out) {
    *out = (fv_plan){.graph = g, .store = store, .use_ema = opts && opts->use_ema};
    planner p = {.g = g, .plan = out};
    FV_TRY(make_order(&p, opts && opts->accumulate));
    out->place = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *out->place);
    out->address = fv_arena_alloc(&g->arena, (size_t)g->n_values + 1, sizeof *out->address);
    if (!out->place || !out->address) return g->ctx->error.code;
    out->mutates = changes_state(&p);
    place_fixed(&p);
    FV_TRY(bind_inputs(&p, opts));
    find_lifetimes(&p);
    FV_TRY(find_preparing(&p, dev));
    find_aliases(&p);
    out->parts = opts && opts->parts > 1 ? opts->parts : 1;
    out->lanes = out->parts > 1 && dev ? dev->threads : 1;
    if (out->parts > 1 && (out->mutates || !dev || !dev->alone))
        return fv_fail(g->ctx, FV_E_INTERNAL, "plan: this graph or this device does not run in parts");
    FV_TRY(measure_nodes(&p, dev));
    FV_TRY(assign_offsets(&p));
    return find_slots(&p, out->use_ema);
}
