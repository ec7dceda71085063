/* host.c: what the backends on the host (ref, cpu) share: memory, and a program as an array of kernel calls. */
#include "core/kernel.h"
#include "core/program.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct host_call {
    fv_kernel kernel;            /* NULL: nothing to do (a reshape that shares memory) */
    fv_call call;                /* of the first part, in the first lane */
    size_t *per_part, *per_lane; /* by operand, then by result: bytes from one to the next */
    int32_t node;
} host_call;

struct fv_exec {
    fv_device *dev;
    const fv_plan *plan;
    fv_arena arena;
    host_call *calls;
    int32_t first[FV_SEG_COUNT + 1];
    fv_step step;
    fv_fault fault;
    pthread_mutex_t lock; /* of fault */
    bool profile;
    fv_pool *pool;
    uint32_t segments; /* of the run in parts that is under way */
    fv_tensor *moved;  /* [lanes][most_tensors]: of a call's operands and results, those of a part */
    int most_tensors;
    double *seconds; /* [1 + lanes][nodes of the graph]: the means of the others first */
};

/* ---------------------------------------------------------------- memory */

fv_status fv_host_alloc(fv_device *dev, size_t bytes, void **out) {
    fv_allocator *a = &dev->ctx->alloc;
    *out = a->alloc(a->user, bytes ? bytes : 1, 64);
    if (!*out) return fv_fail_memory(dev->ctx, bytes, "device memory");
    /* Fresh pages are zero already: writing to them here would fault all of them in on one thread. */
    if (a->zeroed_from == 0 || bytes < a->zeroed_from) memset(*out, 0, bytes);
    return FV_OK;
}

void fv_host_free(fv_device *dev, void *ptr, size_t bytes) {
    if (ptr) dev->ctx->alloc.free(dev->ctx->alloc.user, ptr, bytes ? bytes : 1);
}

fv_status fv_host_copy(fv_device *dev, void *dst, const void *src, size_t bytes, fv_copy_kind kind) {
    (void)dev;
    (void)kind;
    if (bytes) memcpy(dst, src, bytes);
    return FV_OK;
}

/* ---------------------------------------------------------------- faults */

void fv_kernel_fault(const fv_call *c, fv_status code, const char *fmt, ...) {
    fv_exec *e = (fv_exec *)(void *)((char *)c->fault - offsetof(fv_exec, fault));
    pthread_mutex_lock(&e->lock);
    if (!e->fault.set) {
        int n = c->scope && c->scope[0] ? snprintf(e->fault.text, sizeof e->fault.text, "%s: ", c->scope) : 0;
        va_list args;
        va_start(args, fmt);
        vsnprintf(e->fault.text + n, sizeof e->fault.text - (size_t)n, fmt, args);
        va_end(args);
        e->fault.code = code;
        e->fault.set = 1;
    }
    pthread_mutex_unlock(&e->lock);
}

fv_status fv_host_fetch(fv_exec *e, const fv_fetch *list, int n) {
    (void)e;
    for (int i = 0; i < n; i++) memcpy(list[i].to, list[i].from, list[i].bytes);
    return FV_OK;
}

fv_status fv_host_fetched(fv_exec *e) {
    if (!e->fault.set) return FV_OK;
    e->fault.set = 0;
    return fv_fail(e->dev->ctx, e->fault.code, "%s", e->fault.text);
}

/* ---------------------------------------------------------------- compile */

fv_kernel_type fv_host_kernel_type(const fv_graph *g, const fv_node *node) {
    fv_kernel_type type = FV_KERNEL_F32;
    for (int i = 0; i < node->operands + node->results; i++) {
        fv_value v = i < node->operands ? g->operands[node->first_operand + i]
                                        : (fv_value){node->first_result + i - node->operands};
        if (v.id && g->values[v.id].type.dtype == FV_F64) return FV_KERNEL_F64;
        if (v.id && fv_is_low(g->values[v.id].type.dtype)) type = FV_KERNEL_MIXED;
    }
    return type;
}

/* How far it is from one part's memory to the next one's, and from one lane's. */
static void find_steps(const fv_plan *plan, int32_t id, size_t *per_part, size_t *per_lane) {
    *per_part = *per_lane = 0;
    const size_t bytes = fv_bytes(plan->graph->values[id].type);
    while (plan->place[id].alias) id = plan->place[id].alias;
    if (plan->parts == 1 || plan->place[id].where != FV_AT_ARENA) return;
    if (plan->place[id].offset < plan->fixed_bytes) *per_part = bytes;
    else *per_lane = plan->lane_bytes;
}

static void *prepared_of(const fv_plan *plan, int32_t node) {
    const size_t at = plan->prepared_at[node];
    return at == FV_KEEPS_NOTHING ? NULL : (char *)plan->prepared + at;
}

static fv_status make_call(fv_exec *e, fv_pool *pool, const fv_plan *plan, int32_t node,
                           const fv_kernel (*kernels)[FV_KERNEL_TYPES], host_call *out) {
    const fv_graph *g = plan->graph;
    const fv_node *n = &g->nodes[node];
    const int tensors = n->operands + n->results;
    fv_tensor *in = fv_arena_alloc(&e->arena, (size_t)tensors + 1, sizeof *in);
    size_t *steps = fv_arena_alloc(&e->arena, 2 * (size_t)tensors + 1, sizeof *steps);
    if (!in || !steps) return FV_E_MEMORY;
    if (tensors > e->most_tensors) e->most_tensors = tensors;
    for (int j = 0; j < n->operands; j++) {
        int32_t id = g->operands[n->first_operand + j].id;
        in[j] = id ? (fv_tensor){plan->address[id], g->values[id].type} : (fv_tensor){0};
        if (id) find_steps(plan, id, &steps[j], &steps[tensors + j]);
    }
    for (int r = 0; r < n->results; r++) {
        int32_t id = n->first_result + r;
        in[n->operands + r] = (fv_tensor){plan->address[id], g->values[id].type};
        find_steps(plan, id, &steps[n->operands + r], &steps[tensors + n->operands + r]);
    }
    *out = (host_call){.kernel = kernels[n->op][fv_host_kernel_type(g, n)],
                       .per_part = steps,
                       .per_lane = steps + tensors,
                       .node = node};
    if (!out->kernel)
        return fv_fail(e->dev->ctx, FV_E_INTERNAL, "%s has no kernel on '%s'", fv_op_get(n->op)->name,
                       e->dev->backend->name);
    if (n->op == FV_OP_RESHAPE && in[0].data == in[1].data) out->kernel = NULL;
    out->call = (fv_call){.attr = &n->attr,
                          .scope = n->scope,
                          .stream = n->stream,
                          .n_in = n->operands,
                          .n_out = n->results,
                          .in = in,
                          .out = in + n->operands,
                          .step = &e->step,
                          .workspace = (char *)plan->arena + plan->workspace[node].offset,
                          .workspace_bytes = plan->workspace[node].bytes,
                          .prepared = prepared_of(plan, node),
                          .pool = pool,
                          .device = e->dev,
                          .fault = &e->fault};
    return FV_OK;
}

fv_status fv_host_compile(fv_device *dev, fv_pool *pool, const fv_plan *plan,
                          const fv_kernel (*kernels)[FV_KERNEL_TYPES], fv_exec **out) {
    fv_exec *e = fv_calloc(dev->ctx, 1, sizeof *e);
    if (!e) return FV_E_MEMORY;
    e->dev = dev;
    e->plan = plan;
    fv_arena_init(&e->arena, dev->ctx);
    pthread_mutex_init(&e->lock, NULL);
    int32_t n = plan->segment_first[FV_SEG_COUNT];
    e->calls = fv_arena_alloc(&e->arena, (size_t)n + 1, sizeof *e->calls);
    e->pool = pool;
    e->seconds =
        fv_arena_alloc(&e->arena, (size_t)(plan->graph->n_nodes + 1) * (size_t)(1 + plan->lanes), sizeof *e->seconds);
    fv_status status = e->calls && e->seconds ? FV_OK : FV_E_MEMORY;
    for (int32_t i = 0; status == FV_OK && i < n; i++)
        status = make_call(e, pool, plan, plan->order[i], kernels, &e->calls[i]);
    memcpy(e->first, plan->segment_first, sizeof e->first);
    if (status == FV_OK && plan->parts > 1) {
        e->moved = fv_arena_alloc(&e->arena, (size_t)e->most_tensors * (size_t)plan->lanes, sizeof *e->moved);
        if (!e->moved) status = FV_E_MEMORY;
    }
    if (status != FV_OK) {
        fv_host_destroy(e);
        return status;
    }
    *out = e;
    return FV_OK;
}

void fv_host_destroy(fv_exec *e) {
    fv_ctx *ctx = e->dev->ctx;
    pthread_mutex_destroy(&e->lock);
    fv_arena_free(&e->arena);
    fv_free(ctx, e, 1, sizeof *e);
}

/* ---------------------------------------------------------------- run */

fv_status fv_host_set_step(fv_exec *e, const fv_step *step) {
    e->step = *step;
    return FV_OK;
}

#ifdef FV_DEBUG
/* Fill with NaN what the node is about to write, and what died with it, so that a wrong plan or a kernel that leaves a
 * gap shows. */
static void poison(const fv_exec *e, int32_t pos, bool before) {
    const fv_plan *plan = e->plan;
    const fv_node *n = &plan->graph->nodes[plan->order[pos]];
    for (int32_t i = 1; i < plan->graph->n_values; i++) {
        const fv_place *place = &plan->place[i];
        if (place->where != FV_AT_ARENA || place->alias) continue;
        bool written = before && i >= n->first_result && i < n->first_result + n->results;
        bool died = !before && place->last == pos;
        if (written || died) memset(plan->address[i], 0xff, fv_bytes(plan->graph->values[i].type));
    }
}
#else
static void poison(const fv_exec *e, int32_t pos, bool before) {
    (void)e, (void)pos, (void)before;
}
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double *seconds_of(const fv_exec *e, int lane) {
    return e->seconds + (size_t)(1 + lane) * (size_t)e->plan->graph->n_nodes;
}

static void run_call(fv_exec *e, const host_call *c, const fv_call *call, int lane) {
    const double start = e->profile ? now() : 0.0;
    c->kernel(call);
    if (e->profile) seconds_of(e, lane)[c->node] += now() - start;
}

static void run_segment(fv_exec *e, int segment) {
    for (int32_t i = e->first[segment]; i < e->first[segment + 1]; i++) {
        const host_call *c = &e->calls[i];
        if (!c->kernel || e->plan->prepares[c->node]) continue;
        poison(e, i, true);
        run_call(e, c, &c->call, 0);
        poison(e, i, false);
    }
}

/* All nodes for one part of the batch, on one thread, which is a lane. */
static void run_part(void *arg, int64_t part, int lane) {
    fv_exec *e = arg;
    fv_tensor *moved = e->moved + (size_t)lane * (size_t)e->most_tensors;
    for (int32_t i = 0; i < e->first[FV_SEG_COUNT]; i++) {
        const host_call *c = &e->calls[i];
        const bool wanted = e->segments >> e->plan->graph->nodes[c->node].segment & 1;
        if (!c->kernel || !wanted || e->plan->prepares[c->node]) continue;
        fv_call call = c->call;
        for (int k = 0; k < call.n_in + call.n_out; k++) {
            moved[k] = call.in[k];
            if (!moved[k].data) continue;
            const size_t step = (size_t)part * c->per_part[k] + (size_t)lane * c->per_lane[k];
            moved[k].data = (char *)moved[k].data + step;
        }
        call.in = moved;
        call.out = moved + call.n_in;
        call.workspace = (char *)call.workspace + (size_t)lane * e->plan->lane_bytes;
        call.pool = NULL;
        call.device = (fv_device *)(uintptr_t)e->dev->alone;
        run_call(e, c, &call, lane);
    }
}

fv_status fv_host_prepare(fv_exec *e) {
    for (int32_t i = 0; i < e->first[FV_SEG_COUNT]; i++) {
        const host_call *c = &e->calls[i];
        fv_call call = c->call;
        call.preparing = !e->plan->prepares[c->node];
        if (call.prepared || !call.preparing) c->kernel(&call);
    }
    return FV_OK;
}

fv_status fv_host_enqueue(fv_exec *e, uint32_t segments) {
    if (e->plan->parts > 1) {
        e->segments = segments;
        fv_pool_run(e->pool, e->plan->parts, run_part, e);
        return FV_OK;
    }
    for (int segment = 0; segment < FV_SEG_COUNT; segment++)
        if (segments & (1u << segment)) run_segment(e, segment);
    return FV_OK;
}

fv_status fv_host_profile(fv_exec *e, bool on) {
    e->profile = on;
    memset(e->seconds, 0, (size_t)e->plan->graph->n_nodes * (size_t)(1 + e->plan->lanes) * sizeof *e->seconds);
    return FV_OK;
}

const double *fv_host_node_seconds(fv_exec *e) {
    for (int32_t k = 0; k < e->plan->graph->n_nodes; k++) {
        e->seconds[k] = 0;
        for (int lane = 0; lane < e->plan->lanes; lane++) e->seconds[k] += seconds_of(e, lane)[k] / e->plan->lanes;
    }
    return e->seconds;
}
