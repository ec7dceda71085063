/* info_memory.c: what a model takes to run, and `info --memory`: where the memory of a training step goes. */
#include "tools/info.h"

#include <stdlib.h>
#include <string.h>

static fv_status plan_graph(fv_ctx *ctx, fv_device *device, fv_graph *g, int64_t parts, fv_plan *plan) {
    fv_store *store = NULL;
    FV_TRY(fv_store_create(ctx, device, &store));
    fv_status status = fv_store_bind(store, g);
    if (status == FV_OK && device->backend->rewrite) status = device->backend->rewrite(device, g);
    if (status == FV_OK) status = fv_plan_make(g, store, device, &(fv_compile_opts){.parts = parts}, plan);
    fv_store_destroy(store);
    return status;
}

fv_status fv_info_measure(fv_ctx *ctx, fv_device *device, const fv_network *net, bool training, fv_info_memory *out) {
    fv_graph *g = NULL;
    fv_plan plan = {0};
    fv_network_size size;
    int64_t parts = 1;
    FV_TRY(training ? fv_network_train_graph(ctx, net, &g, &size)
                    : fv_network_parts_graph(ctx, net, device, &g, &size, &parts));
    fv_status status = plan_graph(ctx, device, g, parts, &plan);
    *out = (fv_info_memory){(double)plan.arena_bytes, (double)plan.naive_bytes, (double)plan.workspace_bytes,
                            (double)plan.prepared_bytes, size.recompute};
    fv_graph_free(g);
    return status;
}

/* ---------------------------------------------------------------- the fullest point */

typedef struct row { /* the living results of one operation */
    const char *op;
    bool backward;
    int count;
    size_t bytes;
    fv_type largest;
    const char *scope; /* of the largest */
} row;

enum { MOST_ROWS = 2 * FV_OP_COUNT };

static bool is_alive(const fv_plan *plan, int32_t value, int32_t at) {
    const fv_place *p = &plan->place[value];
    return p->where == FV_AT_ARENA && !p->alias && p->def <= at && at <= p->last;
}

/* -> position in the plan's order, and what is alive there */
static int32_t find_fullest(const fv_plan *plan, size_t *bytes) {
    int32_t best = 0;
    *bytes = 0;
    for (int32_t at = 0; at < plan->segment_first[FV_SEG_COUNT]; at++) {
        size_t sum = 0;
        for (int32_t i = 1; i < plan->graph->n_values; i++)
            if (is_alive(plan, i, at)) sum += fv_bytes(plan->graph->values[i].type);
        if (sum <= *bytes) continue;
        *bytes = sum;
        best = at;
    }
    return best;
}

static int by_bytes(const void *x, const void *y) {
    const row *a = x, *b = y;
    if (a->bytes != b->bytes) return a->bytes < b->bytes ? 1 : -1;
    return strcmp(a->op, b->op);
}

static int collect(const fv_plan *plan, int32_t at, row *rows) {
    const fv_graph *g = plan->graph;
    int n = 0;
    for (int32_t i = 1; i < g->n_values; i++) {
        if (!is_alive(plan, i, at)) continue;
        const fv_val *v = &g->values[i];
        const fv_node *node = v->kind == FV_VAL_RESULT ? &g->nodes[v->node] : NULL;
        const char *op = node ? fv_op_get(node->op)->name : "input";
        int k = 0;
        while (k < n && (strcmp(rows[k].op, op) != 0 || rows[k].backward != (node && node->backward))) k++;
        if (k == n) rows[n++] = (row){.op = op, .backward = node && node->backward};
        rows[k].count++;
        rows[k].bytes += fv_bytes(v->type);
        if (fv_bytes(v->type) <= fv_bytes(rows[k].largest) && rows[k].count > 1) continue;
        rows[k].largest = v->type;
        rows[k].scope = node ? node->scope : v->name;
    }
    qsort(rows, (size_t)n, sizeof *rows, by_bytes);
    return n;
}

static fv_status show_rows(fv_tool *tool, const fv_plan *plan, row *rows) {
    fv_console *con = &tool->console;
    size_t alive;
    int32_t at = find_fullest(plan, &alive);
    int n = collect(plan, at, rows);
    const fv_node *node = &plan->graph->nodes[plan->order[at]];
    fv_console_result(con, "\nfullest at %s of '%s': %.2f MB alive\n%-27s %5s %9s  %s", fv_op_get(node->op)->name,
                      node->scope, (double)alive / 1e6, "result of", "count", "memory", "the largest");
    for (int i = 0; i < n; i++) {
        char bytes[24], shape[96], op[48];
        snprintf(op, sizeof op, "%s%s", rows[i].op, rows[i].backward ? " (back)" : "");
        fv_type_text(rows[i].largest, shape, sizeof shape);
        fv_console_result(con, "%-27s %5d %9s  %s %s", op, rows[i].count,
                          fv_text_bytes((double)rows[i].bytes, bytes, sizeof bytes), rows[i].scope, shape);
        FV_TRY(fv_console_json(con, &tool->ctx,
                               json_pack("{s:s, s:s, s:b, s:i, s:I, s:s, s:s}", "event", "alive", "op", rows[i].op,
                                         "backward", rows[i].backward, "count", rows[i].count, "bytes",
                                         (json_int_t)rows[i].bytes, "largest", shape, "scope", rows[i].scope)));
    }
    return FV_OK;
}

fv_status fv_info_show_peak(fv_tool *tool, fv_device *device, const fv_network *net) {
    fv_graph *g = NULL;
    fv_plan plan = {0};
    FV_TRY(fv_network_train_graph(&tool->ctx, net, &g, NULL));
    row *rows = fv_arena_alloc(&g->arena, MOST_ROWS, sizeof *rows);
    fv_status status = rows ? plan_graph(&tool->ctx, device, g, 1, &plan) : FV_E_MEMORY;
    if (status == FV_OK) status = show_rows(tool, &plan, rows);
    fv_graph_free(g);
    return status;
}
