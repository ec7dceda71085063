/* program.c: from graph to something that runs. */
#include "core/program.h"

#include <math.h>
#include <string.h>

struct fv_program {
    fv_ctx *ctx;
    fv_device *dev;
    fv_plan plan;
    fv_exec *exec;
    size_t own_arena, own_consts, own_prepared; /* bytes to give back; 0: borrowed */
    uint64_t prepared_version;                  /* of the store; 0: not yet */
    int64_t begun, ended;                       /* runs */
    fv_fetch *watched;                          /* [FV_RUNS][n_watched]: of each run under way */
    const char **watched_name;                  /* [n_watched] */
    int n_watched;
    void *seen; /* pinned: what they are copied to */
    size_t seen_bytes;
};

static fv_status check_supported(fv_program *p) {
    fv_graph *g = p->plan.graph;
    for (int32_t i = 0; i < p->plan.segment_first[FV_SEG_COUNT]; i++) {
        const fv_node *n = &g->nodes[p->plan.order[i]];
        char why[192] = "";
        if (!p->dev->backend->supports(p->dev, g, n, why, sizeof why))
            return fv_fail(p->ctx, FV_E_MODEL, "%s in '%s' does not run on device '%s': %s", fv_op_get(n->op)->name,
                           n->scope, p->dev->backend->name, why);
    }
    return FV_OK;
}

/* Memory of `bytes` on the device, or the lender's if that is large enough. */
static fv_status obtain(fv_program *p, size_t bytes, void *lent, size_t lent_bytes, void **out, size_t *own) {
    if (bytes == 0) return FV_OK;
    if (lent && lent_bytes >= bytes) {
        *out = lent;
        return FV_OK;
    }
    FV_TRY(p->dev->backend->alloc(p->dev, bytes, out));
    *own = bytes;
    return FV_OK;
}

static fv_status obtain_memory(fv_program *p, const fv_program *share) {
    fv_plan *plan = &p->plan;
    const fv_plan *lender = share && share->dev == p->dev ? &share->plan : NULL;
    FV_TRY(obtain(p, plan->arena_bytes, lender ? lender->arena : NULL, lender ? lender->arena_bytes : 0, &plan->arena,
                  &p->own_arena));
    FV_TRY(obtain(p, plan->prepared_bytes, NULL, 0, &plan->prepared, &p->own_prepared));
    return obtain(p, plan->const_bytes, NULL, 0, &plan->consts, &p->own_consts);
}

static void resolve_addresses(fv_program *p) {
    fv_plan *plan = &p->plan;
    for (int32_t i = 1; i < plan->graph->n_values; i++) {
        int32_t root = i;
        while (plan->place[root].alias) root = plan->place[root].alias;
        const fv_place *place = &plan->place[root];
        switch (place->where) {
        case FV_AT_ARENA: plan->address[i] = (char *)plan->arena + place->offset; break;
        case FV_AT_CONST: plan->address[i] = (char *)plan->consts + place->offset; break;
        case FV_AT_PREPARED: plan->address[i] = (char *)plan->prepared + place->offset; break;
        case FV_AT_STORE: plan->address[i] = fv_store_slot(plan->store, place->slot)->data; break;
        case FV_AT_GIVEN: plan->address[i] = plan->address[root]; break;
        case FV_AT_NOTHING: break;
        }
    }
}

/* Constants are given as doubles; bring them to their type and to the device. */
static fv_status upload_constants(fv_program *p) {
    fv_graph *g = p->plan.graph;
    for (int32_t i = 1; i < g->n_values; i++) {
        const fv_val *v = &g->values[i];
        size_t n = (size_t)fv_count(v->type), bytes = fv_bytes(v->type);
        if (v->kind != FV_VAL_CONST || bytes == 0) continue;
        char *temp = fv_alloc(p->ctx, bytes, 1);
        if (!temp) return p->ctx->error.code;
        for (size_t k = 0; k < n; k++) switch (v->type.dtype) {
            case FV_F32: ((float *)(void *)temp)[k] = (float)v->data[k]; break;
            case FV_F64: ((double *)(void *)temp)[k] = v->data[k]; break;
            case FV_I64: ((int64_t *)(void *)temp)[k] = (int64_t)v->data[k]; break;
            case FV_I32: ((int32_t *)(void *)temp)[k] = (int32_t)v->data[k]; break;
            case FV_BF16:
            case FV_F16: ((uint16_t *)(void *)temp)[k] = fv_low_round_double(v->type.dtype, v->data[k]); break;
            case FV_U8: ((uint8_t *)temp)[k] = (uint8_t)v->data[k]; break;
            default: memset(temp, 0, bytes); break;
            }
        fv_status status = p->dev->backend->copy(p->dev, p->plan.address[i], temp, bytes, FV_COPY_TO_DEVICE);
        fv_free(p->ctx, temp, bytes, 1);
        FV_TRY(status);
    }
    return FV_OK;
}

static fv_status build(fv_program *p, fv_graph *g, fv_store *store, const fv_compile_opts *opts) {
    FV_TRY(fv_graph_verify(g));
    if (p->dev->backend->rewrite) {
        FV_TRY(p->dev->backend->rewrite(p->dev, g));
        FV_TRY(fv_graph_verify(g));
    }
    FV_TRY(fv_plan_make(g, store, p->dev, opts, &p->plan));
    FV_TRY(check_supported(p));
    FV_TRY(obtain_memory(p, opts ? opts->share : NULL));
    resolve_addresses(p);
    FV_TRY(upload_constants(p));
    return p->dev->backend->compile(p->dev, &p->plan, &p->exec);
}

fv_status fv_compile(fv_ctx *ctx, fv_graph *g, fv_store *store, fv_device *dev, const fv_compile_opts *opts,
                     fv_program **out) {
    *out = NULL;
    fv_program *p = fv_calloc(ctx, 1, sizeof *p);
    if (!p) {
        fv_graph_free(g);
        return ctx->error.code;
    }
    p->ctx = ctx;
    p->dev = dev;
    p->plan.graph = g;
    fv_status status = build(p, g, store, opts);
    if (status != FV_OK) {
        p->plan.graph = g; /* planning may have failed before it was set again */
        fv_program_destroy(p);
        return status;
    }
    *out = p;
    return FV_OK;
}

fv_status fv_program_create(fv_ctx *ctx, fv_graph *g, fv_device *dev, uint64_t seed, const fv_compile_opts *opts,
                            fv_store **store, fv_program **out) {
    *out = NULL;
    *store = NULL;
    fv_status status = fv_graph_finish(g);
    if (status == FV_OK) status = fv_store_create(ctx, dev, store);
    if (status == FV_OK) status = fv_store_bind(*store, g);
    if (status == FV_OK) status = fv_store_commit(*store, seed);
    if (status == FV_OK) status = fv_compile(ctx, g, *store, dev, opts, out);
    else fv_graph_free(g);
    if (status == FV_OK) return FV_OK;
    fv_store_destroy(*store);
    *store = NULL;
    return status;
}

void fv_program_destroy(fv_program *p) {
    if (!p) return;
    const fv_backend *b = p->dev->backend;
    if (p->exec) b->destroy(p->exec);
    if (p->seen) b->unpin(p->dev, p->seen, p->seen_bytes);
    if (p->own_arena) b->free(p->dev, p->plan.arena, p->own_arena);
    if (p->own_consts) b->free(p->dev, p->plan.consts, p->own_consts);
    if (p->own_prepared) b->free(p->dev, p->plan.prepared, p->own_prepared);
    fv_graph_free(p->plan.graph);
    fv_free(p->ctx, p, 1, sizeof *p);
}

const fv_plan *fv_program_plan(const fv_program *p) {
    return &p->plan;
}
fv_exec *fv_program_exec(const fv_program *p) {
    return p->exec;
}

fv_status fv_program_input(fv_program *p, const char *name, const void *host, size_t bytes) {
    const fv_graph *g = p->plan.graph;
    fv_value v = fv_find_value(g, name);
    if (fv_is_none(v)) return FV_OK;
    if (p->plan.place[v.id].where == FV_AT_GIVEN)
        return fv_fail(p->ctx, FV_E_INTERNAL, "input '%s' is bound to other memory", name);
    size_t want = fv_bytes(g->values[v.id].type) * (size_t)p->plan.parts;
    if (g->values[v.id].kind != FV_VAL_INPUT || bytes != want)
        return fv_fail(p->ctx, FV_E_INTERNAL, "input '%s' takes %zu bytes, got %zu", name, want, bytes);
    return p->dev->backend->copy(p->dev, p->plan.address[v.id], host, bytes, FV_COPY_TO_DEVICE);
}

fv_status fv_program_output(fv_program *p, const char *name, void *host, size_t bytes) {
    fv_value v = fv_find_output(p->plan.graph, name);
    if (fv_is_none(v)) return fv_fail(p->ctx, FV_E_INTERNAL, "the program has no output '%s'", name);
    size_t want = fv_bytes(p->plan.graph->values[v.id].type) * (size_t)p->plan.parts;
    if (bytes != want) return fv_fail(p->ctx, FV_E_INTERNAL, "output '%s' has %zu bytes, not %zu", name, want, bytes);
    return p->dev->backend->copy(p->dev, host, p->plan.address[v.id], bytes, FV_COPY_TO_HOST);
}

double fv_program_scalar(fv_program *p, const char *name) {
    fv_value v = fv_find_output(p->plan.graph, name);
    fv_type type = fv_typeof(p->plan.graph, v);
    double wide = NAN;
    float narrow = NAN;
    bool is_double = type.dtype == FV_F64;
    if (fv_is_none(v) || (!is_double && type.dtype != FV_F32) || fv_count(type) < 1) return NAN;
    void *to = is_double ? (void *)&wide : (void *)&narrow;
    if (p->dev->backend->copy(p->dev, to, p->plan.address[v.id], fv_dtype_size(type.dtype), FV_COPY_TO_HOST) != FV_OK)
        return NAN;
    return is_double ? wide : (double)narrow;
}

fv_type fv_program_output_type(const fv_program *p, const char *name) {
    fv_type type = fv_typeof(p->plan.graph, fv_find_output(p->plan.graph, name));
    if (p->plan.parts == 1) return type;
    if (type.rank == 0) return fv_shape(type.dtype, p->plan.parts);
    type.dim[0] *= p->plan.parts;
    return type;
}

/* Bring what nodes keep up to date with the parameters. */
static fv_status prepare(fv_program *p) {
    const uint64_t version = fv_store_version(p->plan.store);
    if (p->plan.prepared_bytes == 0 || p->prepared_version == version) return FV_OK;
    FV_TRY(p->dev->backend->prepare(p->exec));
    p->prepared_version = version;
    return FV_OK;
}

/* What the run of that number, from 0, copies. */
static const fv_fetch *watched_of(const fv_program *p, int64_t run) {
    return p->n_watched ? p->watched + run % FV_RUNS * p->n_watched : NULL;
}

int fv_program_running(const fv_program *p) {
    return (int)(p->begun - p->ended);
}

fv_status fv_program_begin(fv_program *p, const fv_step *step, uint32_t segments) {
    const fv_backend *b = p->dev->backend;
    if (fv_program_running(p) == FV_RUNS)
        return fv_fail(p->ctx, FV_E_INTERNAL, "there are %d runs of the program under way", FV_RUNS);
    if (step) FV_TRY(b->set_step(p->exec, step));
    FV_TRY(prepare(p));
    if (p->plan.mutates) fv_store_touch(p->plan.store);
    FV_TRY(b->enqueue(p->exec, segments));
    FV_TRY(b->fetch(p->exec, watched_of(p, p->begun), p->n_watched));
    p->begun++;
    return FV_OK;
}

fv_status fv_program_end(fv_program *p) {
    if (!fv_program_running(p)) return fv_fail(p->ctx, FV_E_INTERNAL, "no run of the program is under way");
    p->ended++;
    return p->dev->backend->fetched(p->exec);
}

fv_status fv_program_run(fv_program *p, const fv_step *step, uint32_t segments) {
    if (fv_program_running(p)) return fv_fail(p->ctx, FV_E_INTERNAL, "a run of the program is under way");
    FV_TRY(fv_program_begin(p, step, segments));
    return fv_program_end(p);
}

#define SEEN_ALIGN 64

fv_status fv_program_watch(fv_program *p, const char *const *names, int n) {
    fv_graph *g = p->plan.graph;
    if (p->watched || fv_program_running(p))
        return fv_fail(p->ctx, FV_E_INTERNAL, "outputs are watched once, while no run is under way");
    fv_fetch *list = fv_arena_alloc(&g->arena, FV_RUNS * (size_t)n + 1, sizeof *list);
    p->watched_name = fv_arena_alloc(&g->arena, (size_t)n + 1, sizeof *p->watched_name);
    if (!list || !p->watched_name) return p->ctx->error.code;
    size_t bytes = 0;
    for (int i = 0; i < FV_RUNS * n; i++) {
        fv_value v = fv_find_output(g, names[i % n]);
        if (fv_is_none(v)) return fv_fail(p->ctx, FV_E_INTERNAL, "the program has no output '%s'", names[i % n]);
        p->watched_name[i % n] = fv_arena_printf(&g->arena, "%s", names[i % n]);
        if (!p->watched_name[i % n]) return p->ctx->error.code;
        list[i].from = p->plan.address[v.id];
        list[i].bytes = fv_bytes(g->values[v.id].type) * (size_t)p->plan.parts;
        bytes += (list[i].bytes + SEEN_ALIGN - 1) / SEEN_ALIGN * SEEN_ALIGN;
    }
    FV_TRY(p->dev->backend->pin(p->dev, bytes, &p->seen));
    p->seen_bytes = bytes;
    char *at = p->seen;
    for (int i = 0; i < FV_RUNS * n; i++) {
        list[i].to = at;
        at += (list[i].bytes + SEEN_ALIGN - 1) / SEEN_ALIGN * SEEN_ALIGN;
    }
    p->watched = list;
    p->n_watched = n;
    return FV_OK;
}

const void *fv_program_seen(const fv_program *p, const char *name) {
    for (int i = 0; i < p->n_watched && p->ended; i++)
        if (!strcmp(p->watched_name[i], name)) return watched_of(p, p->ended - 1)[i].to;
    return NULL;
}
