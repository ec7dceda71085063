/* diagnose.c: which layer did a non-finite value come out of? */
#include "tools/train/loop.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_float(fv_type t) {
    return t.dtype == FV_F32 || t.dtype == FV_F64;
}

/* Results of nodes that neither change state nor belong to the update; every one becomes an output, so that all are
 * kept. */
static void keep_all(fv_graph *g) {
    int32_t n = g->n_nodes;
    for (int32_t k = 0; k < n; k++) {
        const fv_node *node = &g->nodes[k];
        if (node->segment != FV_SEG_FORWARD_BACKWARD || fv_op_get(node->op)->mutates) continue;
        for (int32_t r = 0; r < node->results; r++) {
            fv_value v = {node->first_result + r};
            char *name = is_float(fv_typeof(g, v)) ? fv_arena_printf(&g->arena, "%%%d", v.id) : NULL;
            if (name) fv_set_output(g, name, v);
        }
    }
}

static bool all_finite(const void *data, fv_type type) {
    int64_t n = fv_count(type);
    for (int64_t i = 0; i < n; i++) {
        double x = type.dtype == FV_F32 ? (double)((const float *)data)[i] : ((const double *)data)[i];
        if (!isfinite(x)) return false;
    }
    return true;
}

/* The first node, in order, with a result that is not finite. */
static const fv_node *find(fv_ctx *ctx, fv_program *p) {
    const fv_graph *g = fv_program_plan(p)->graph;
    for (int32_t i = 0; i < g->n_outputs; i++) {
        const fv_output *o = &g->outputs[i];
        const fv_val *v = &g->values[o->value.id];
        if (o->name[0] != '%' || v->kind != FV_VAL_RESULT) continue;
        size_t bytes = fv_bytes(v->type);
        void *data = fv_alloc(ctx, bytes ? bytes : 1, 1);
        if (!data) return NULL;
        bool bad = fv_program_output(p, o->name, data, bytes) == FV_OK && !all_finite(data, v->type);
        fv_free(ctx, data, bytes ? bytes : 1, 1);
        if (bad) return &g->nodes[v->node];
    }
    return NULL;
}

static fv_status diagnose(fv_session *s, const fv_batch *batch, const fv_step *step, char *buf, size_t size) {
    fv_graph *g = NULL;
    fv_program *p = NULL;
    FV_TRY(fv_network_train_graph(s->ctx, &s->net, &g, NULL));
    keep_all(g);
    const fv_compile_opts opts = fv_session_train_opts(s);
    FV_TRY(fv_compile(s->ctx, g, s->store, s->device, &opts, &p)); /* only the first segment will run: no update */
    fv_status status = fv_network_feed(s->ctx, p, &s->net, batch);
    if (status == FV_OK) status = fv_program_run(p, step, 1u << FV_SEG_FORWARD_BACKWARD);
    const fv_node *node = status == FV_OK ? find(s->ctx, p) : NULL;
    if (node)
        snprintf(buf, size, "'%s' (%s)%s", node->scope[0] ? node->scope : "the top of the model",
                 fv_op_get(node->op)->name, node->backward ? " in the backward pass" : "");
    fv_program_destroy(p);
    return status;
}

void fv_diagnose_non_finite(fv_session *s, const fv_batch *batch, const fv_step *step, char *buf, size_t size) {
    buf[0] = '\0';
    diagnose(s, batch, step, buf, size); /* an extra: if memory does not suffice for it, the step is still named */
}
