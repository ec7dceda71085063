/* graph.c: building a graph. Arrays grow by doubling; everything else lies in the graph's arena. */
#include "core/graph.h"

#include <stdio.h>
#include <string.h>

/* ---------------------------------------------------------------- life */

fv_graph *fv_graph_new(fv_ctx *ctx, bool training) {
    fv_graph *g = fv_calloc(ctx, 1, sizeof *g);
    if (!g) return NULL;
    g->ctx = ctx;
    g->training = training;
    fv_arena_init(&g->arena, ctx);
    return g;
}

void fv_graph_free(fv_graph *g) {
    if (!g) return;
    fv_ctx *ctx = g->ctx;
    fv_free(ctx, g->values, (size_t)g->cap_values, sizeof *g->values);
    fv_free(ctx, g->nodes, (size_t)g->cap_nodes, sizeof *g->nodes);
    fv_free(ctx, g->operands, (size_t)g->cap_operands, sizeof *g->operands);
    fv_free(ctx, g->decls, (size_t)g->cap_decls, sizeof *g->decls);
    fv_free(ctx, g->outputs, (size_t)g->cap_outputs, sizeof *g->outputs);
    fv_arena_free(&g->arena);
    fv_free(ctx, g, 1, sizeof *g);
}

fv_status fv_graph_finish(fv_graph *g) {
    if (g->error == FV_OK) return FV_OK;
    return fv_fail(g->ctx, g->error, "%s", g->error_text);
}

fv_value fv_graph_fail(fv_scope s, fv_status code, const char *fmt, ...) {
    fv_graph *g = s.g;
    if (g->error != FV_OK) return FV_NONE;
    g->error = code;
    int n = s.prefix[0] ? snprintf(g->error_text, sizeof g->error_text, "%s: ", s.prefix) : 0;
    if (n < 0 || (size_t)n >= sizeof g->error_text) n = 0;
    va_list args;
    va_start(args, fmt);
    vsnprintf(g->error_text + n, sizeof g->error_text - (size_t)n, fmt, args);
    va_end(args);
    return FV_NONE;
}

static fv_value out_of_memory(fv_graph *g) {
    return fv_graph_fail(fv_root(g), FV_E_MEMORY, "out of memory while building a graph of %d nodes", g->n_nodes);
}

/* Room for `need` elements in a growing array. */
static bool reserve(fv_graph *g, void **array, int32_t *cap, int32_t need, size_t size) {
    if (need <= *cap) return true;
    int32_t grown = *cap ? *cap : 64;
    while (grown < need) {
        if (grown > INT32_MAX / 2) return false;
        grown *= 2;
    }
    void *bigger = fv_calloc(g->ctx, (size_t)grown, size);
    if (!bigger) return false;
    if (*array) memcpy(bigger, *array, (size_t)*cap * size);
    fv_free(g->ctx, *array, (size_t)*cap, size);
    *array = bigger;
    *cap = grown;
    return true;
}
#define RESERVE(g, field, more) \
    reserve((g), (void **)&(g)->field, &(g)->cap_##field, (g)->n_##field + (more), sizeof *(g)->field)

/* ---------------------------------------------------------------- scopes */

fv_scope fv_root(fv_graph *g) {
    return (fv_scope){g, ""};
}

fv_scope fv_in(fv_scope s, const char *fmt, ...) {
    char name[256];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(name, sizeof name, fmt, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof name) {
        fv_graph_fail(s, FV_E_INTERNAL, "scope name too long");
        return s;
    }
    const char *prefix =
        s.prefix[0] ? fv_arena_printf(&s.g->arena, "%s.%s", s.prefix, name) : fv_arena_strdup(&s.g->arena, name);
    if (!prefix) {
        out_of_memory(s.g);
        return s;
    }
    return (fv_scope){s.g, prefix};
}

/* ---------------------------------------------------------------- freezing */

bool fv_name_below(const char *name, const char *prefix) {
    size_t n = strlen(prefix);
    if (n == 0 || strncmp(name, prefix, n) != 0) return false;
    return name[n] == '\0' || name[n] == '.' || prefix[n - 1] == '.';
}

void fv_graph_freeze(fv_graph *g, const char *const *prefix, int n) {
    if (g->error != FV_OK || n <= 0) return;
    const char **all = fv_arena_alloc(&g->arena, (size_t)g->n_frozen + (size_t)n, sizeof *all);
    if (all && g->n_frozen) memcpy(all, g->frozen, (size_t)g->n_frozen * sizeof *all);
    for (int i = 0; all && i < n; i++)
        if (!(all[g->n_frozen + i] = fv_arena_strdup(&g->arena, prefix[i]))) all = NULL;
    if (!all) {
        out_of_memory(g);
        return;
    }
    g->frozen = all;
    g->n_frozen += n;
}

static bool is_frozen(const fv_graph *g, const char *name) {
    for (int32_t i = 0; i < g->n_frozen; i++)
        if (fv_name_below(name, g->frozen[i])) return true;
    return false;
}

/* ---------------------------------------------------------------- values */

static fv_value add_value(fv_graph *g, fv_val val) {
    if (g->error != FV_OK) return FV_NONE;
    if (g->n_values == 0) { /* id 0 is "no value" */
        if (!RESERVE(g, values, 1)) return out_of_memory(g);
        g->values[g->n_values++] = (fv_val){.kind = FV_VAL_NONE, .node = -1, .decl = -1};
    }
    if (!RESERVE(g, values, 1)) return out_of_memory(g);
    g->values[g->n_values] = val;
    return (fv_value){g->n_values++};
}

static bool type_is_sound(fv_scope s, const char *what, fv_type type) {
    char text[96];
    if (fv_type_check(type, NULL)) return true;
    fv_graph_fail(s, FV_E_MODEL, "%s: impossible shape %s", what, fv_type_text(type, text, sizeof text));
    return false;
}

fv_value fv_input(fv_scope s, const char *name, fv_type type) {
    fv_graph *g = s.g;
    if (g->error != FV_OK || !type_is_sound(s, name, type)) return FV_NONE;
    if (fv_find_value(g, name).id) return fv_graph_fail(s, FV_E_INTERNAL, "input '%s' is declared twice", name);
    const char *copy = fv_arena_strdup(&g->arena, name);
    if (!copy) return out_of_memory(g);
    return add_value(g, (fv_val){.type = type, .kind = FV_VAL_INPUT, .node = -1, .decl = -1, .name = copy});
}

fv_value fv_const(fv_scope s, fv_type type, const double *data) {
    fv_graph *g = s.g;
    if (g->error != FV_OK || !type_is_sound(s, "constant", type)) return FV_NONE;
    size_t count = (size_t)fv_count(type);
    double *copy = fv_arena_alloc(&g->arena, count ? count : 1, sizeof *copy);
    if (!copy) return out_of_memory(g);
    if (count) memcpy(copy, data, count * sizeof *copy);
    return add_value(g, (fv_val){.type = type, .kind = FV_VAL_CONST, .node = -1, .decl = -1, .data = copy});
}

fv_value fv_const_fill(fv_scope s, fv_type type, double value) {
    fv_graph *g = s.g;
    if (g->error != FV_OK || !type_is_sound(s, "constant", type)) return FV_NONE;
    size_t count = (size_t)fv_count(type);
    double *data = fv_arena_alloc(&g->arena, count ? count : 1, sizeof *data);
    if (!data) return out_of_memory(g);
    for (size_t i = 0; i < count; i++) data[i] = value;
    return add_value(g, (fv_val){.type = type, .kind = FV_VAL_CONST, .node = -1, .decl = -1, .data = data});
}

/* A PARAM or STATE value and its declaration. `name` is complete and lives in the arena. */
static fv_value declare(fv_graph *g, fv_val_kind kind, fv_decl decl) {
    fv_scope root = fv_root(g);
    if (g->error != FV_OK || !type_is_sound(root, decl.name, decl.type)) return FV_NONE;
    if (fv_find_value(g, decl.name).id) return fv_graph_fail(root, FV_E_INTERNAL, "'%s' is declared twice", decl.name);
    if (!RESERVE(g, decls, 1)) return out_of_memory(g);
    decl.value =
        add_value(g, (fv_val){.type = decl.type, .kind = kind, .node = -1, .decl = g->n_decls, .name = decl.name});
    if (fv_is_none(decl.value)) return FV_NONE;
    g->decls[g->n_decls++] = decl;
    return decl.value;
}

static const char *full_name(fv_scope s, const char *name) {
    const char *full =
        s.prefix[0] ? fv_arena_printf(&s.g->arena, "%s.%s", s.prefix, name) : fv_arena_strdup(&s.g->arena, name);
    if (!full) out_of_memory(s.g);
    return full;
}

fv_value fv_param(fv_scope s, const char *name, fv_type type, fv_layout layout, fv_init init, bool no_decay) {
    const char *full = full_name(s, name);
    if (!full) return FV_NONE;
    return declare(s.g, FV_VAL_PARAM,
                   (fv_decl){.name = full,
                             .type = type,
                             .role = FV_ROLE_WEIGHT,
                             .layout = layout,
                             .init = init,
                             .no_decay = no_decay,
                             .frozen = is_frozen(s.g, full)});
}

fv_value fv_buffer(fv_scope s, const char *name, fv_type type, fv_init init) {
    const char *full = full_name(s, name);
    if (!full) return FV_NONE;
    return declare(s.g, FV_VAL_STATE,
                   (fv_decl){.name = full,
                             .type = type,
                             .role = FV_ROLE_BUFFER,
                             .layout = FV_PLAIN,
                             .init = init,
                             .no_decay = true,
                             .frozen = is_frozen(s.g, full)});
}

fv_value fv_state_of(fv_graph *g, fv_value param, fv_role role, const char *slot) {
    const fv_decl *p = fv_decl_of(g, param);
    if (g->error != FV_OK) return FV_NONE;
    bool may_have = p && (p->role == FV_ROLE_WEIGHT || (p->role == FV_ROLE_BUFFER && role == FV_ROLE_SLOW));
    if (!may_have) return fv_graph_fail(fv_root(g), FV_E_INTERNAL, "state of a value that is no parameter");
    const char *name = NULL;
    switch (role) {
    case FV_ROLE_GRAD: name = fv_arena_printf(&g->arena, "grad.%s", p->name); break;
    case FV_ROLE_EMA: name = fv_arena_printf(&g->arena, "ema.%s", p->name); break;
    case FV_ROLE_SLOW: name = fv_arena_printf(&g->arena, "slow.%s", p->name); break;
    case FV_ROLE_MOMENT: name = fv_arena_printf(&g->arena, "opt.%s.%s", slot, p->name); break;
    default: return fv_graph_fail(fv_root(g), FV_E_INTERNAL, "state of '%s' with a role it cannot have", p->name);
    }
    if (!name) return out_of_memory(g);
    return declare(g, FV_VAL_STATE,
                   (fv_decl){.name = name,
                             .type = p->type,
                             .role = role,
                             .layout = p->layout,
                             .init = FV_ZEROS,
                             .no_decay = p->no_decay,
                             .of = param});
}

fv_value fv_row_key(fv_scope s, int64_t rows) {
    fv_value v = fv_find_value(s.g, "row_key");
    if (fv_is_none(v)) return fv_input(fv_root(s.g), "row_key", fv_shape(FV_I64, rows));
    if (fv_dim(s.g, v, 0) != rows)
        return fv_graph_fail(s, FV_E_MODEL, "row keys for %lld rows, but the batch has %lld", (long long)rows,
                             (long long)fv_dim(s.g, v, 0));
    return v;
}

/* ---------------------------------------------------------------- looking things up */

void fv_set_output(fv_graph *g, const char *name, fv_value v) {
    if (g->error != FV_OK) return;
    if (fv_is_none(v)) {
        fv_graph_fail(fv_root(g), FV_E_INTERNAL, "output '%s' has no value", name);
        return;
    }
    const char *copy = fv_arena_strdup(&g->arena, name);
    if (!copy || !RESERVE(g, outputs, 1)) {
        out_of_memory(g);
        return;
    }
    g->outputs[g->n_outputs++] = (fv_output){copy, v};
}

fv_value fv_find_output(const fv_graph *g, const char *name) {
    for (int32_t i = 0; i < g->n_outputs; i++)
        if (!strcmp(g->outputs[i].name, name)) return g->outputs[i].value;
    return FV_NONE;
}

fv_value fv_find_value(const fv_graph *g, const char *name) {
    for (int32_t i = 1; i < g->n_values; i++)
        if (g->values[i].name && !strcmp(g->values[i].name, name)) return (fv_value){i};
    return FV_NONE;
}

fv_type fv_typeof(const fv_graph *g, fv_value v) {
    if (v.id <= 0 || v.id >= g->n_values) return (fv_type){0};
    return g->values[v.id].type;
}

int64_t fv_dim(const fv_graph *g, fv_value v, int axis) {
    fv_type t = fv_typeof(g, v);
    if (axis < 0) axis += t.rank;
    return axis >= 0 && axis < t.rank ? t.dim[axis] : 0;
}

const fv_decl *fv_decl_of(const fv_graph *g, fv_value v) {
    if (v.id <= 0 || v.id >= g->n_values || g->values[v.id].decl < 0) return NULL;
    return &g->decls[g->values[v.id].decl];
}

/* ---------------------------------------------------------------- nodes */

bool fv_infer_fail(fv_infer *i, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    vsnprintf(i->why, sizeof i->why, fmt, args);
    va_end(args);
    return false;
}

/* "[128,32,32,16], [16,3,3,3]" for a message about a node's operands. */
static void operands_text(const fv_type *in, int n, char *buf, size_t size) {
    size_t used = 0;
    buf[0] = 0;
    for (int k = 0; k < n && k < 6 && used + 2 < size; k++) {
        char one[96];
        int wrote = snprintf(buf + used, size - used, "%s%s", k ? ", " : "",
                             in[k].rank < 0 ? "none" : fv_type_text(in[k], one, sizeof one));
        if (wrote < 0) return;
        used += (size_t)wrote;
    }
}

/* Fail unless the number of operands and the required ones are there. */
static bool arity_is_sound(fv_scope s, const fv_op_info *info, const fv_value *operands, int n) {
    if (n < info->min_in || (info->max_in >= 0 && n > info->max_in)) {
        char most[16] = " or more";
        if (info->max_in >= 0) snprintf(most, sizeof most, " to %d", info->max_in);
        fv_graph_fail(s, FV_E_MODEL, "%s: takes %d%s operands, got %d", info->name, info->min_in,
                      info->max_in == info->min_in ? "" : most, n);
        return false;
    }
    for (int k = 0; k < n; k++) {
        if (operands[k].id < 0 || operands[k].id >= s.g->n_values) {
            fv_graph_fail(s, FV_E_INTERNAL, "%s: operand %d is no value of this graph", info->name, k);
            return false;
        }
        bool may_be_absent = k >= info->min_in || info->mutates;
        if (!may_be_absent && fv_is_none(operands[k])) {
            fv_graph_fail(s, FV_E_MODEL, "%s: operand %d is missing", info->name, k);
            return false;
        }
    }
    return true;
}

#define MAX_RESULTS 4

/* Types of the results by the op's rule; false with the graph's error set. Completes attr. */
static bool infer_types(fv_scope s, const fv_op_info *info, fv_op op, const fv_value *operands, int n, fv_attr *attr,
                        fv_type *out) {
    fv_graph *g = s.g;
    fv_type few[16], *in = few;
    if (n > 16 && !(in = fv_alloc(g->ctx, (size_t)n, sizeof *in))) {
        out_of_memory(g);
        return false;
    }
    for (int k = 0; k < n; k++) {
        if (fv_is_none(operands[k])) in[k] = (fv_type){.rank = -1};
        else in[k] = g->values[operands[k].id].type;
    }
    for (int r = 0; r < MAX_RESULTS; r++) out[r] = fv_shape(FV_F32, 0);
    fv_infer rule = {.g = g, .op = op, .attr = attr, .n_in = n, .in = in, .out = out};
    bool ok = info->infer(&rule);
    if (!ok) {
        char shapes[320];
        operands_text(in, n, shapes, sizeof shapes);
        fv_graph_fail(s, FV_E_MODEL, "%s(%s): %s", info->name, shapes, rule.why);
    }
    for (int r = 0; ok && r < info->results; r++) ok = type_is_sound(s, info->name, out[r]);
    if (in != few) fv_free(g->ctx, in, (size_t)n, sizeof *in);
    return ok;
}

fv_value fv_op_node(fv_scope s, fv_op op, const fv_value *operands, int n, const fv_attr *attr) {
    fv_graph *g = s.g;
    if (g->error != FV_OK) return FV_NONE;
    const fv_op_info *info = fv_op_get(op);
    if (!arity_is_sound(s, info, operands, n)) return FV_NONE;
    fv_attr completed = {0};
    if (attr) completed = *attr;
    fv_type out[MAX_RESULTS];
    if (!infer_types(s, info, op, operands, n, &completed, out)) return FV_NONE;
    if (!RESERVE(g, nodes, 1) || !RESERVE(g, operands, n)) return out_of_memory(g);

    fv_node node = {.op = op,
                    .first_operand = g->n_operands,
                    .operands = n,
                    .results = info->results,
                    .scope = s.prefix,
                    .stream = fv_hash_name(s.prefix),
                    .segment = g->segment,
                    .backward = g->in_backward,
                    .attr = completed};
    fv_value first = FV_NONE;
    for (int r = 0; r < info->results; r++) {
        fv_value v =
            add_value(g, (fv_val){.type = out[r], .kind = FV_VAL_RESULT, .node = g->n_nodes, .result = r, .decl = -1});
        if (fv_is_none(v)) return FV_NONE;
        if (r == 0) first = v;
    }
    node.first_result = first.id;
    if (n) memcpy(g->operands + g->n_operands, operands, (size_t)n * sizeof *operands);
    g->n_operands += n;
    g->nodes[g->n_nodes++] = node;
    return first;
}

bool fv_node_set_operand(fv_graph *g, int32_t node, int k, fv_value v) {
    fv_node *n = &g->nodes[node];
    if (k >= n->operands) { /* a longer range, at the end of the flat array */
        if (!RESERVE(g, operands, k + 1)) {
            out_of_memory(g);
            return false;
        }
        fv_value *to = g->operands + g->n_operands;
        for (int j = 0; j <= k; j++) to[j] = j < n->operands ? g->operands[n->first_operand + j] : FV_NONE;
        n->first_operand = g->n_operands;
        n->operands = k + 1;
        g->n_operands += k + 1;
    }
    g->operands[n->first_operand + k] = v;
    return true;
}

void fv_graph_replace(fv_graph *g, fv_value from, fv_value to) {
    for (int32_t i = 0; i < g->n_operands; i++)
        if (g->operands[i].id == from.id) g->operands[i] = to;
    for (int32_t i = 0; i < g->n_outputs; i++)
        if (g->outputs[i].value.id == from.id) g->outputs[i].value = to;
}

void fv_graph_cast_floats(fv_graph *g, fv_dtype to) {
    for (int32_t i = 1; i < g->n_values; i++)
        if (g->values[i].type.dtype == FV_F32) g->values[i].type.dtype = to;
    for (int32_t i = 0; i < g->n_decls; i++)
        if (g->decls[i].type.dtype == FV_F32) g->decls[i].type.dtype = to;
    for (int32_t k = 0; k < g->n_nodes; k++)
        if (g->nodes[k].op == FV_OP_CAST && g->nodes[k].attr.cast.to == FV_F32) g->nodes[k].attr.cast.to = to;
}
