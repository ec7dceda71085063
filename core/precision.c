/* precision.c: where a graph computes with a low type, bf16 or f16, and the pass that makes it do so.
 *
 *   params f32 ── cast ─┐ w
 *   images ─ augment f32 ── cast ── x ── conv2d ── batch_norm ── ... low ... ── mean f32 ── linear f32 ── loss
 *                                                    │ gamma, beta, mean, var: f32
 *
 * Each value has one type of its own, by the rule of the op that defines it, and at most one cast of it, made where it
 * is first needed: casts never form chains, and a weight is cast once per step, for the forward and the backward pass.
 *
 * The pass runs after differentiation, so that the gradient of a float32 weight is a float32 value whatever its users
 * read: conv2d_bwd_weight and its kin take the low type and give float32, without a rounding between. */
#include "core/ops.h"

#include <string.h>

/* ---------------------------------------------------------------- what each op takes */

/* An op that is not named here takes float32 only. */
fv_precision fv_op_precision(fv_op op) {
    switch (op) {
    case FV_OP_CONV2D:
    case FV_OP_LINEAR:
    case FV_OP_MATMUL:
    case FV_OP_ATTENTION:
    case FV_OP_BROADCAST: /* these two make a large result from a small operand */
    case FV_OP_SLICE_BWD: return FV_PRECISION_LOW;
    case FV_OP_CONV2D_BWD_DATA:
    case FV_OP_CONV2D_BWD_WEIGHT:
    case FV_OP_LINEAR_BWD_DATA:
    case FV_OP_LINEAR_BWD_WEIGHT:
    case FV_OP_ATTENTION_BWD:
    case FV_OP_BATCH_NORM:
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER:
    case FV_OP_BATCH_NORM_INFER_BWD:
    case FV_OP_LAYER_NORM:
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM:
    case FV_OP_GROUP_NORM_BWD:
    case FV_OP_ACTIVATION:
    case FV_OP_ACTIVATION_BWD:
    case FV_OP_ADD:
    case FV_OP_SUB:
    case FV_OP_MUL:
    case FV_OP_SCALE:
    case FV_OP_MAX_POOL2D:
    case FV_OP_MAX_POOL2D_BWD:
    case FV_OP_AVG_POOL2D:
    case FV_OP_AVG_POOL2D_BWD:
    case FV_OP_RESIZE:
    case FV_OP_RESIZE_BWD:
    case FV_OP_SUM: /* the result of these two is float32 */
    case FV_OP_MEAN:
    case FV_OP_RESHAPE:
    case FV_OP_TRANSPOSE:
    case FV_OP_CONCAT:
    case FV_OP_SLICE:
    case FV_OP_PAD:
    case FV_OP_DROPOUT:
    case FV_OP_DROP_PATH: return FV_PRECISION_FOLLOW;
    case FV_OP_CAST: return FV_PRECISION_KEEP;
    default: return FV_PRECISION_FULL;
    }
}

/* Operands [first, last) of an op are parameters and statistics, float32 beside low data. */
static void wide_operands(fv_op op, int *first, int *last) {
    *first = *last = 0;
    switch (op) {
    case FV_OP_CONV2D:
    case FV_OP_LINEAR: *first = 2, *last = 3; break; /* bias */
    case FV_OP_BATCH_NORM:
    case FV_OP_LAYER_NORM:
    case FV_OP_GROUP_NORM: *first = 1, *last = 3; break;       /* gamma, beta */
    case FV_OP_BATCH_NORM_INFER: *first = 1, *last = 5; break; /* mean, var, gamma, beta */
    case FV_OP_BATCH_NORM_BWD:
    case FV_OP_BATCH_NORM_INFER_BWD: *first = 3, *last = 7; break; /* mean, var, gamma, beta */
    case FV_OP_LAYER_NORM_BWD:
    case FV_OP_GROUP_NORM_BWD: *first = 2, *last = 5; break; /* mean, rstd, gamma */
    case FV_OP_ATTENTION_BWD: *first = 2, *last = 3; break;  /* lse */
    default: break;
    }
}

static bool is_wide_operand(fv_op op, int k) {
    int first, last;
    wide_operands(op, &first, &last);
    return k >= first && k < last;
}

/* ---------------------------------------------------------------- the pass */

typedef struct mixer {
    fv_graph *g;
    fv_dtype low;
    int32_t n;      /* values before the pass */
    fv_value *cast; /* by value before the pass: it as the other type */
    bool *inner;    /* by value: an op of the low type reads it */
    fv_node *out;   /* nodes in their new order */
    int32_t n_out;
} mixer;

static fv_status allocate(mixer *m) {
    fv_graph *g = m->g;
    m->n = g->n_values;
    m->cast = fv_arena_alloc(&g->arena, (size_t)m->n + 1, sizeof *m->cast);
    m->inner = fv_arena_alloc(&g->arena, (size_t)m->n + 1, sizeof *m->inner);
    m->out = fv_arena_alloc(&g->arena, (size_t)g->n_nodes + (size_t)m->n + 1, sizeof *m->out); /* a cast per value */
    return m->cast && m->inner && m->out ? FV_OK : g->ctx->error.code;
}

/* Which values ops of the low type read, directly or past a reshape or a scale. A product of matrices that none of them
 * reads, such as the logits, is computed in float32. */
static void mark_inner(mixer *m) {
    const fv_graph *g = m->g;
    for (int32_t k = g->n_nodes - 1; k >= 0; k--) {
        const fv_node *n = &g->nodes[k];
        bool passes = n->op == FV_OP_RESHAPE || n->op == FV_OP_SCALE;
        if (fv_op_precision(n->op) == FV_PRECISION_FULL || (passes && !m->inner[n->first_result])) continue;
        for (int j = 0; j < n->operands; j++) m->inner[g->operands[n->first_operand + j].id] = true;
    }
}

static bool is_data(const mixer *m, const fv_node *n, int j) {
    fv_value v = m->g->operands[n->first_operand + j];
    fv_dtype dtype = fv_typeof(m->g, v).dtype;
    return v.id && (dtype == FV_F32 || dtype == m->low) && !is_wide_operand(n->op, j);
}

/* The type that the node's data takes. */
static fv_dtype data_type(const mixer *m, const fv_node *n) {
    const fv_graph *g = m->g;
    fv_precision precision = fv_op_precision(n->op);
    if (precision == FV_PRECISION_LOW) return m->inner[n->first_result] ? m->low : FV_F32;
    if (precision != FV_PRECISION_FOLLOW) return FV_F32;
    /* The gradients of a product follow it: what reaches them is their first operand, dy. */
    bool product = n->op == FV_OP_CONV2D_BWD_DATA || n->op == FV_OP_CONV2D_BWD_WEIGHT ||
                   n->op == FV_OP_LINEAR_BWD_DATA || n->op == FV_OP_LINEAR_BWD_WEIGHT;
    for (int j = 0; j < (product ? 1 : n->operands); j++)
        if (is_data(m, n, j) && fv_typeof(g, g->operands[n->first_operand + j]).dtype == m->low) return m->low;
    return FV_F32;
}

/* v as another type: by its one cast, which goes where the next node would. */
static fv_value as_type(mixer *m, const fv_node *reader, fv_value v, fv_dtype to) {
    fv_graph *g = m->g;
    const fv_val *val = &g->values[v.id];
    if (!v.id || val->type.dtype == to || (val->type.dtype != FV_F32 && val->type.dtype != m->low)) return v;
    if (m->cast[v.id].id) return m->cast[v.id];
    g->segment = val->kind == FV_VAL_RESULT ? g->nodes[val->node].segment : FV_SEG_FORWARD_BACKWARD;
    g->in_backward = reader->backward;
    m->cast[v.id] = fv_cast((fv_scope){g, reader->scope}, v, to);
    if (g->error != FV_OK) return FV_NONE;
    m->out[m->n_out++] = g->nodes[g->n_nodes - 1];
    return m->cast[v.id];
}

/* Types of the node's results from those of its operands. */
static void infer_again(mixer *m, fv_node *n) {
    fv_graph *g = m->g;
    const fv_op_info *info = fv_op_get(n->op);
    fv_type *in = fv_arena_alloc(&g->arena, (size_t)n->operands + 1, sizeof *in), out[4];
    if (!in) {
        fv_graph_fail(fv_root(g), FV_E_MEMORY, "%s", g->ctx->error.message);
        return;
    }
    for (int j = 0; j < n->operands; j++) {
        fv_value v = g->operands[n->first_operand + j];
        in[j] = v.id ? g->values[v.id].type : (fv_type){.rank = -1};
    }
    for (int r = 0; r < 4; r++) out[r] = fv_shape(FV_F32, 0);
    fv_infer rule = {.g = g, .op = n->op, .attr = &n->attr, .n_in = n->operands, .in = in, .out = out};
    if (!info->infer(&rule)) fv_graph_fail((fv_scope){g, n->scope}, FV_E_INTERNAL, "%s: %s", info->name, rule.why);
    for (int r = 0; r < n->results && g->error == FV_OK; r++) g->values[n->first_result + r].type = out[r];
}

static void mix_node(mixer *m, fv_node n) {
    fv_graph *g = m->g;
    if (fv_op_precision(n.op) != FV_PRECISION_KEEP) {
        fv_dtype data = data_type(m, &n);
        for (int j = 0; j < n.operands && g->error == FV_OK; j++) {
            fv_value v = as_type(m, &n, g->operands[n.first_operand + j], is_data(m, &n, j) ? data : FV_F32);
            g->operands[n.first_operand + j] = v;
        }
    }
    infer_again(m, &n);
    m->out[m->n_out++] = n;
}

void fv_graph_mix_precision(fv_graph *g, fv_dtype low) {
    mixer m = {.g = g, .low = low};
    if (g->error != FV_OK || g->n_nodes == 0) return;
    fv_segment segment = g->segment;
    bool in_backward = g->in_backward;
    if (allocate(&m) != FV_OK) {
        fv_graph_fail(fv_root(g), FV_E_MEMORY, "%s", g->ctx->error.message);
        return;
    }
    mark_inner(&m);
    int32_t nodes = g->n_nodes; /* casts come behind them, and are put into their places at the end */
    for (int32_t k = 0; k < nodes && g->error == FV_OK; k++) mix_node(&m, g->nodes[k]);
    for (int32_t i = 0; i < g->n_outputs && g->error == FV_OK; i++)
        g->outputs[i].value = as_type(&m, &(fv_node){.scope = ""}, g->outputs[i].value, FV_F32);
    g->segment = segment;
    g->in_backward = in_backward;
    if (g->error != FV_OK) return;
    memcpy(g->nodes, m.out, (size_t)m.n_out * sizeof *m.out);
    for (int32_t k = 0; k < g->n_nodes; k++)
        for (int r = 0; r < g->nodes[k].results; r++) g->values[g->nodes[k].first_result + r].node = k;
}
