/* optimizer.c: from a graph with a loss to one that trains.
 *
 *   forward-backward   loss ─ gradients           (loss_scaling: of step.loss_scale times the loss)
 *                                                 (accumulate > 1: loss / k ─ gradients ─ added to GRAD slots; finite
 *                                                  flag of the micro-step's loss ─ running statistics)
 *   check              grad_stats: norm and finite flag of loss and gradients
 *   update             sgd_update | adam_update | muon_update per group ─ lookahead_update ─ ema_update ─ (GRAD slots
 * cleared) */
#include "optim/optim.h"

#include <string.h>

#include "core/ops.h"

static const char *const names[] = {
    [FV_OPT_SGD] = "sgd", [FV_OPT_ADAM] = "adam", [FV_OPT_ADAMW] = "adamw", [FV_OPT_MUON] = "muon"};
enum { KINDS = sizeof(names) / sizeof(names[0]) };

const char *fv_opt_name(fv_opt_kind kind) {
    return (unsigned)kind < KINDS ? names[kind] : "?";
}

int fv_opt_from_name(const char *name) {
    for (int i = 0; i < KINDS; i++)
        if (strcmp(names[i], name) == 0) return i;
    return -1;
}

/* The parameters that are trained, in order of declaration, their gradients and update groups; after them, without
 * either, those that rest. */
typedef struct param_list {
    int count, resting;
    fv_value *param, *grad;
    int *group;
} param_list;

typedef struct builder {
    fv_scope scope;
    const fv_optim_cfg *cfg;
    fv_value loss, stats;
    param_list trained;
    fv_value *operands; /* room for the longest operand list: 1 + 4 * count + 2 * declarations */
    bool *of_norm;      /* by value: scale or shift of a norm */
} builder;

static bool has_momentum(const fv_optim_cfg *cfg) {
    return cfg->kind == FV_OPT_SGD || cfg->kind == FV_OPT_MUON;
}

static fv_status check_groups(fv_ctx *ctx, const fv_optim_cfg *cfg) {
    if (cfg->n_groups < 0 || cfg->n_groups > FV_MAX_PARAM_GROUPS)
        return fv_fail(ctx, FV_E_USAGE, "%d parameter groups: there may be at most %d", cfg->n_groups,
                       FV_MAX_PARAM_GROUPS);
    for (int i = 0; i < cfg->n_groups; i++) {
        const fv_param_group *group = &cfg->groups[i];
        if (!group->pattern || !group->pattern[0])
            return fv_fail(ctx, FV_E_USAGE, "parameter group %d does not say of which parameters", i + 1);
        if (!(group->momentum < 1))
            return fv_fail(ctx, FV_E_USAGE, "parameter group '%s': momentum must be below 1, it is %g", group->pattern,
                           group->momentum);
        if (group->momentum >= 0 && !has_momentum(cfg))
            return fv_fail(ctx, FV_E_USAGE, "parameter group '%s': %s has no momentum", group->pattern,
                           fv_opt_name(cfg->kind));
    }
    return FV_OK;
}

static fv_status check_cfg(fv_ctx *ctx, const fv_optim_cfg *cfg) {
    if ((unsigned)cfg->kind >= KINDS) return fv_fail(ctx, FV_E_USAGE, "unknown optimizer %d", (int)cfg->kind);
    if (!(cfg->momentum >= 0 && cfg->momentum < 1))
        return fv_fail(ctx, FV_E_USAGE, "momentum must be at least 0 and below 1, it is %g", cfg->momentum);
    if (has_momentum(cfg) && cfg->nesterov && cfg->momentum == 0)
        return fv_fail(ctx, FV_E_USAGE, "Nesterov momentum needs a momentum above 0");
    if (!(cfg->beta1 >= 0 && cfg->beta1 < 1 && cfg->beta2 >= 0 && cfg->beta2 < 1))
        return fv_fail(ctx, FV_E_USAGE, "beta1 and beta2 must be at least 0 and below 1, they are %g and %g",
                       cfg->beta1, cfg->beta2);
    if (!(cfg->eps >= 0)) return fv_fail(ctx, FV_E_USAGE, "eps must not be negative, it is %g", cfg->eps);
    if (cfg->ns_steps < 0 || cfg->ns_steps > 100)
        return fv_fail(ctx, FV_E_USAGE, "there may be 1 to 100 Newton-Schulz iterations, not %d", cfg->ns_steps);
    if (!(cfg->clip_grad >= 0))
        return fv_fail(ctx, FV_E_USAGE, "the gradient norm to clip at must not be negative, it is %g", cfg->clip_grad);
    if (cfg->accumulate < 0)
        return fv_fail(ctx, FV_E_USAGE, "gradients cannot be accumulated over %d steps", cfg->accumulate);
    return check_groups(ctx, cfg);
}

/* Add the gradients of this micro-step to the GRAD slots, which take their place from here on. */
static void accumulate_gradients(builder *b) {
    for (int i = 0; i < b->trained.count; i++) {
        fv_value sum = fv_state_of(b->scope.g, b->trained.param[i], FV_ROLE_GRAD, NULL);
        fv_accumulate(b->scope, sum, b->trained.grad[i]);
        b->trained.grad[i] = sum;
    }
}

/* The loss takes part times zero: it leaves the norm as it is, but 0 * inf and 0 * nan are not finite. */
static void check_gradients(builder *b) {
    fv_graph *g = b->scope.g;
    g->segment = FV_SEG_CHECK;
    b->operands[0] = fv_scale(b->scope, b->loss, 0, 0);
    memcpy(b->operands + 1, b->trained.grad, (size_t)b->trained.count * sizeof *b->operands);
    b->stats = fv_op_node(b->scope, FV_OP_GRAD_STATS, b->operands, 1 + b->trained.count, NULL);
    fv_set_output(g, "grad_stats", b->stats);
}

/* Running statistics of layers, which change with the update, must not take up a step whose loss or gradients are not
 * finite. With micro-steps they change in each of them, before its gradients are looked at: there the loss decides. */
static void guard_statistics(builder *b, int micro_steps) {
    fv_graph *g = b->scope.g;
    fv_value guard = b->stats;
    int32_t nodes = g->n_nodes;
    if (micro_steps > 1) {
        g->segment = FV_SEG_FORWARD_BACKWARD;
        fv_value loss = fv_scale(b->scope, b->loss, 0, 0); /* 0 * inf and 0 * nan are not finite */
        guard = fv_op_node(b->scope, FV_OP_GRAD_STATS, &loss, 1, NULL);
    }
    for (int32_t k = 0; k < nodes; k++) {
        if (g->nodes[k].segment != FV_SEG_UPDATE) continue;
        if (g->nodes[k].op == FV_OP_LERP_ASSIGN) fv_node_set_operand(g, k, 2, guard);
        if (g->nodes[k].op == FV_OP_INCREMENT) fv_node_set_operand(g, k, 1, guard);
    }
}

/* ---------------------------------------------------------------- groups */

/* Scales and shifts of norms, of the nodes made so far. */
static fv_status find_norms(builder *b) {
    fv_graph *g = b->scope.g;
    b->of_norm = fv_arena_alloc(&g->arena, (size_t)g->n_values, sizeof *b->of_norm);
    if (!b->of_norm) return g->ctx->error.code;
    for (int32_t k = 0; k < g->n_nodes; k++) {
        const fv_node *n = &g->nodes[k];
        int scale = n->op == FV_OP_BATCH_NORM_INFER ? 3 : 1;
        if (n->op != FV_OP_BATCH_NORM && n->op != FV_OP_BATCH_NORM_INFER && n->op != FV_OP_LAYER_NORM &&
            n->op != FV_OP_GROUP_NORM)
            continue;
        for (int j = scale; j < scale + 2 && j < n->operands; j++)
            b->of_norm[g->operands[n->first_operand + j].id] = true;
    }
    return FV_OK;
}

bool fv_param_group_is_class(const char *pattern) {
    static const char *const classes[] = {"norm", "bias", "head", "matrix"};
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        if (!strcmp(pattern, classes[i])) return true;
    return false;
}

static bool ends_in_bias(const char *name) {
    const char *last = strrchr(name, '.');
    return strcmp(last ? last + 1 : name, "bias") == 0;
}

static bool in_head(const builder *b, const fv_decl *decl) {
    return b->cfg->head && fv_name_below(decl->name, b->cfg->head);
}

static bool is_matrix(const fv_decl *decl) {
    return decl->type.rank >= 2 && !decl->no_decay;
}

static bool takes_in(const builder *b, const fv_param_group *group, const fv_decl *decl) {
    const char *pattern = group->pattern;
    if (!strcmp(pattern, "norm")) return b->of_norm[decl->value.id];
    if (!strcmp(pattern, "bias")) return ends_in_bias(decl->name);
    if (!strcmp(pattern, "head")) return in_head(b, decl);
    if (!strcmp(pattern, "matrix")) return is_matrix(decl);
    return fv_name_below(decl->name, pattern);
}

/* The first param group that takes a parameter in, from 1; 0: none. */
static int param_group_of(const builder *b, const fv_decl *decl) {
    for (int i = 0; i < b->cfg->n_groups; i++)
        if (takes_in(b, &b->cfg->groups[i], decl)) return i + 1;
    return 0;
}

/* Its update group (optim.h). */
static int group_of(const builder *b, const fv_decl *decl) {
    return 2 * param_group_of(b, decl) + (decl->no_decay && !b->cfg->decay_all);
}

/* A group that changes nothing is a mistake; what is frozen counts as changed. */
static fv_status check_members(const builder *b) {
    fv_graph *g = b->scope.g;
    for (int i = 0; i < b->cfg->n_groups; i++) {
        int members = 0, taken = 0;
        for (int32_t k = 0; k < g->n_decls; k++) {
            if (g->decls[k].role != FV_ROLE_WEIGHT || !takes_in(b, &b->cfg->groups[i], &g->decls[k])) continue;
            if (param_group_of(b, &g->decls[k]) == i + 1) members++;
            else taken++;
        }
        if (members) continue;
        return fv_fail(g->ctx, FV_E_USAGE,
                       taken ? "parameter group '%s': earlier groups have all of its parameters"
                             : "parameter group '%s': the model has no such parameter",
                       b->cfg->groups[i].pattern);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- what is trained */

static bool rests(const builder *b, const fv_decl *decl) {
    int group = param_group_of(b, decl);
    return group > 0 && b->cfg->groups[group - 1].rests;
}

/* The parameters that are not frozen and rest, or do not; how many. */
static int candidates(const builder *b, bool resting, fv_value *out) {
    const fv_graph *g = b->scope.g;
    int n = 0;
    for (int i = 0; i < g->n_decls; i++)
        if (g->decls[i].role == FV_ROLE_WEIGHT && !g->decls[i].frozen && rests(b, &g->decls[i]) == resting)
            out[n++] = g->decls[i].value;
    return n;
}

static fv_status gradients(builder *b, fv_value loss, int n) {
    fv_graph *g = b->scope.g;
    fv_type type = fv_typeof(g, loss);
    if (!b->cfg->loss_scaling || fv_count(type) != 1)
        return fv_gradients(g, loss, n, b->trained.param, b->trained.grad);
    fv_value scale = fv_loss_scale(b->scope, fv_const_fill(fv_root(g), type, 1));
    return fv_gradients_from(g, loss, scale, n, b->trained.param, b->trained.grad);
}

/* Every parameter that is to be trained and that the loss depends on, with its gradient; those that rest. */
static fv_status differentiate(builder *b, fv_value loss) {
    fv_graph *g = b->scope.g;
    param_list *t = &b->trained;
    t->param = fv_arena_alloc(&g->arena, (size_t)g->n_decls, sizeof *t->param);
    t->grad = fv_arena_alloc(&g->arena, (size_t)g->n_decls, sizeof *t->grad);
    t->group = fv_arena_alloc(&g->arena, (size_t)g->n_decls, sizeof *t->group);
    if (!t->param || !t->grad || !t->group) return g->ctx->error.code;
    int n = candidates(b, false, t->param), all_rest = n == 0;
    if (all_rest) n = candidates(b, true, t->param);
    if (n == 0) return fv_fail(g->ctx, FV_E_USAGE, "there is nothing to train: every parameter is frozen");
    FV_TRY(gradients(b, loss, n));
    for (int i = 0; i < n; i++)
        if (!fv_is_none(t->grad[i])) {
            t->param[t->count] = t->param[i];
            t->grad[t->count++] = t->grad[i];
        }
    if (t->count == 0)
        return fv_fail(g->ctx, FV_E_USAGE, "there is nothing to train: no parameter that is not frozen has a gradient");
    for (int i = 0; i < t->count; i++) t->group[i] = group_of(b, fv_decl_of(g, t->param[i]));
    if (!all_rest) t->resting = candidates(b, true, t->param + t->count);
    return FV_OK;
}

/* Which update a parameter takes. */
static fv_op update_of(const builder *b, fv_value param) {
    const fv_decl *decl = fv_decl_of(b->scope.g, param);
    if (b->cfg->kind == FV_OPT_MUON && is_matrix(decl) && !in_head(b, decl)) return FV_OP_MUON_UPDATE;
    return has_momentum(b->cfg) ? FV_OP_SGD_UPDATE : FV_OP_ADAM_UPDATE;
}

static double momentum_of(const fv_optim_cfg *cfg, int group) {
    double own = group >= 2 ? cfg->groups[group / 2 - 1].momentum : -1;
    return own >= 0 ? own : cfg->momentum;
}

static fv_attr attr_of(const fv_optim_cfg *cfg, fv_op op, int group, int count) {
    double momentum = momentum_of(cfg, group);
    fv_update_attr a = {.count = count, .group = group, .clip = cfg->clip_grad, .decoupled = cfg->kind == FV_OPT_ADAMW};
    a.beta1 = cfg->beta1 > 0 ? cfg->beta1 : 0.9;
    a.beta2 = cfg->beta2 > 0 ? cfg->beta2 : 0.999;
    a.eps = op == FV_OP_MUON_UPDATE ? 1e-7 : cfg->eps > 0 ? cfg->eps : 1e-8;
    a.momentum = momentum;
    a.nesterov = op != FV_OP_ADAM_UPDATE && cfg->nesterov && momentum > 0;
    a.renormalise = op == FV_OP_MUON_UPDATE && cfg->renormalise;
    a.ns_steps = op == FV_OP_MUON_UPDATE ? (cfg->ns_steps > 0 ? cfg->ns_steps : 3) : 0;
    return (fv_attr){.update = a};
}

/* One node for those parameters of a group that take this update: stats, params.., grads.., then one or two lists of
 * moments. */
static void update_group(builder *b, int group, fv_op op) {
    const param_list *t = &b->trained;
    fv_graph *g = b->scope.g;
    bool adam = op == FV_OP_ADAM_UPDATE;
    double momentum = momentum_of(b->cfg, group);
    int count = 0;
    for (int i = 0; i < t->count; i++) count += t->group[i] == group && update_of(b, t->param[i]) == op;
    if (count == 0) return;

    fv_value *params = b->operands + 1, *grads = params + count, *first = grads + count, *second = first + count;
    b->operands[0] = b->stats;
    for (int i = 0, k = 0; i < t->count; i++) {
        fv_value param = t->param[i];
        if (t->group[i] != group || update_of(b, param) != op) continue;
        params[k] = param;
        grads[k] = t->grad[i];
        if (adam) {
            first[k] = fv_state_of(g, param, FV_ROLE_MOMENT, "exp_avg");
            second[k] = fv_state_of(g, param, FV_ROLE_MOMENT, "exp_avg_sq");
        } else first[k] = momentum > 0 ? fv_state_of(g, param, FV_ROLE_MOMENT, "momentum") : FV_NONE;
        k++;
    }
    fv_attr attr = attr_of(b->cfg, op, group, count);
    fv_op_node(b->scope, op, b->operands, 1 + (adam ? 4 : 3) * count, &attr);
}

/* ---------------------------------------------------------------- averages and slow copies */

/* Of weights and of running statistics, after both have changed. */
static void update_slow_copies(builder *b) {
    fv_graph *g = b->scope.g;
    int count = 0, declared = g->n_decls;
    for (int pass = 0; pass < 2; pass++) { /* count, then fill */
        fv_value *slow = b->operands + 1, *fast = slow + count;
        int k = 0;
        for (int i = 0; i < declared; i++) {
            const fv_decl *decl = &g->decls[i];
            bool follows = decl->role == FV_ROLE_WEIGHT || decl->role == FV_ROLE_BUFFER;
            if (!follows || decl->frozen || decl->type.dtype != FV_F32) continue;
            if (pass == 1) {
                fast[k] = decl->value;
                slow[k] = fv_state_of(g, decl->value, FV_ROLE_SLOW, NULL);
            }
            k++;
        }
        count = k;
    }
    b->operands[0] = b->stats;
    fv_attr attr = {.update = {.count = count}};
    fv_op_node(b->scope, FV_OP_LOOKAHEAD_UPDATE, b->operands, 1 + 2 * count, &attr);
}

static void update_averages(builder *b) {
    int count = b->trained.count + b->trained.resting;
    fv_value *averages = b->operands + 1, *params = averages + count;
    b->operands[0] = b->stats;
    for (int i = 0; i < count; i++) {
        averages[i] = fv_state_of(b->scope.g, b->trained.param[i], FV_ROLE_EMA, NULL);
        params[i] = b->trained.param[i];
    }
    fv_attr attr = {.update = {.count = count}};
    fv_op_node(b->scope, FV_OP_EMA_UPDATE, b->operands, 1 + 2 * count, &attr);
}

/* A micro-step's share of the loss. 0 * loss^2 changes neither it nor its gradient, but makes the gradient
 * not-a-number where the loss is not finite: so every micro-step takes part in the check, not only the last. */
static fv_value share_of_loss(builder *b, int micro_steps) {
    fv_value guard = fv_scale(b->scope, fv_mul(b->scope, b->loss, b->loss), 0, 0);
    fv_value share = b->cfg->sum_micro_steps ? b->loss : fv_scale(b->scope, b->loss, 1.0 / micro_steps, 0);
    return fv_add(b->scope, share, guard);
}

fv_status fv_optim_build(fv_graph *g, fv_value loss, const fv_optim_cfg *cfg) {
    FV_TRY(fv_graph_finish(g));
    FV_TRY(check_cfg(g->ctx, cfg));
    builder b = {.scope = fv_in(fv_root(g), "optim"), .cfg = cfg, .loss = loss};
    int micro_steps = cfg->accumulate > 1 ? cfg->accumulate : 1;
    fv_segment segment = g->segment;

    FV_TRY(find_norms(&b));
    FV_TRY(check_members(&b));
    g->segment = FV_SEG_FORWARD_BACKWARD;
    FV_TRY(differentiate(&b, micro_steps > 1 ? share_of_loss(&b, micro_steps) : loss));
    size_t most = 1 + 4 * (size_t)b.trained.count + 2 * (size_t)g->n_decls;
    b.operands = fv_arena_alloc(&g->arena, most, sizeof *b.operands);
    if (!b.operands) return g->ctx->error.code;
    if (micro_steps > 1) accumulate_gradients(&b);
    check_gradients(&b);
    guard_statistics(&b, micro_steps);

    g->segment = FV_SEG_UPDATE;
    for (int group = 0; group < 2 * (1 + cfg->n_groups); group++) {
        static const fv_op updates[] = {FV_OP_MUON_UPDATE, FV_OP_SGD_UPDATE, FV_OP_ADAM_UPDATE};
        for (size_t i = 0; i < sizeof updates / sizeof *updates; i++) update_group(&b, group, updates[i]);
    }
    if (cfg->lookahead) update_slow_copies(&b);
    if (cfg->ema) update_averages(&b);
    if (micro_steps > 1)
        for (int i = 0; i < b.trained.count; i++) fv_fill(b.scope, b.trained.grad[i], 0);
    g->segment = segment;
    return fv_graph_finish(g);
}
