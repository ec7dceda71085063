/* exec.c: a plan as an array of calls. The first time a list of segments is enqueued, its calls are launched one by one
 * (kernels and libraries set themselves up then); the second time they are recorded into a CUDA graph, and from then on
 * a step is one launch of it.
 *
 *   device memory   [ step | fault | halted | operands and results of every call | tables of every call ]   one block
 *   pinned memory   [ step, step, ... | fault, fault ]   what the host writes and reads; copies of it are part of the
 *                   stream. A fault word per run that may be under way
 */
#include "cuda/libraries.h"

#include <stdio.h>
#include <string.h>

#define STEPS 8 /* steps that the host may be ahead */
#define LISTS (1u << FV_SEG_COUNT)
#define ALIGN 256

typedef struct cuda_step {
    fv_cuda_kernel kernel; /* NULL: the library's, or nothing to do */
    const fv_cuda_library_plan *plan;
    fv_cuda_call call;
} cuda_step;

typedef struct pinned {
    fv_step step[STEPS];
    fv_cuda_fault fault[FV_RUNS];
} pinned;

typedef struct run { /* events of a run; those of the run that is FV_RUNS earlier were waited for */
    cudaEvent_t begun, computed, fetched;
} run;

/* One list of segments. */
typedef struct recording {
    int times;             /* enqueued so far, up to 2 */
    cudaGraphExec_t graph; /* NULL: not recorded */
} recording;

struct fv_exec {
    fv_cuda_device *dev;
    const fv_plan *plan;
    fv_arena arena;
    cuda_step *steps;
    int32_t first[FV_SEG_COUNT + 1];
    char *block; /* device memory */
    size_t block_bytes;
    fv_step *step;        /* in it */
    fv_cuda_fault *fault; /* in it */
    int32_t *halted;      /* in it */
    pinned *pinned;
    run run[FV_RUNS];
    int64_t enqueued, fetched; /* runs */
    cudaEvent_t step_copied[STEPS];
    int next_step;
    recording recordings[LISTS];
    bool no_graphs;     /* recording failed once */
    cudaEvent_t *marks; /* profile: before every call, and at the end; NULL: off */
    double *seconds;    /* per node of the graph */
    uint32_t marked;    /* the list of segments that the marks are of */
};

/* ---------------------------------------------------------------- compile */

static void fill_call(fv_exec *e, int32_t node, fv_tensor *in, cuda_step *out) {
    const fv_plan *plan = e->plan;
    const fv_graph *g = plan->graph;
    const fv_node *n = &g->nodes[node];
    for (int j = 0; j < n->operands; j++) {
        int32_t id = g->operands[n->first_operand + j].id;
        in[j] = id ? (fv_tensor){plan->address[id], g->values[id].type} : (fv_tensor){0};
    }
    for (int r = 0; r < n->results; r++) {
        int32_t id = n->first_result + r;
        in[n->operands + r] = (fv_tensor){plan->address[id], g->values[id].type};
    }
    out->plan = fv_cuda_library_find(e->dev, g, n);
    out->kernel = out->plan ? NULL : fv_cuda_kernels[n->op];
    if (n->op == FV_OP_RESHAPE && in[0].data == in[1].data) out->kernel = NULL;
    out->call = (fv_cuda_call){.attr = &n->attr,
                               .graph = g,
                               .node = n,
                               .node_index = node,
                               .scope = n->scope,
                               .stream_key = n->stream,
                               .n_in = n->operands,
                               .n_out = n->results,
                               .in = in,
                               .out = in + n->operands,
                               .workspace = (char *)plan->arena + plan->workspace[node].offset,
                               .workspace_bytes = plan->workspace[node].bytes,
                               .stream = e->dev->stream,
                               .device = e->dev};
}

static size_t aligned(size_t bytes) {
    return (bytes + ALIGN - 1) & ~(size_t)(ALIGN - 1);
}

/* All tensors lie in one array of the host, call by call. */
static fv_status make_calls(fv_exec *e, fv_tensor **tensors, size_t *count) {
    const fv_graph *g = e->plan->graph;
    int32_t n = e->plan->segment_first[FV_SEG_COUNT];
    *count = 0;
    for (int32_t i = 0; i < n; i++) {
        const fv_node *node = &g->nodes[e->plan->order[i]];
        *count += (size_t)(node->operands + node->results);
    }
    e->steps = fv_arena_alloc(&e->arena, (size_t)n + 1, sizeof *e->steps);
    e->seconds = fv_arena_alloc(&e->arena, (size_t)g->n_nodes + 1, sizeof *e->seconds);
    fv_tensor *next = *tensors = fv_arena_alloc(&e->arena, *count + 1, sizeof **tensors);
    if (!e->steps || !e->seconds || !next) return e->dev->base.ctx->error.code;
    for (int32_t i = 0; i < n; i++) {
        fill_call(e, e->plan->order[i], next, &e->steps[i]);
        next += e->steps[i].call.n_in + e->steps[i].call.n_out;
    }
    return FV_OK;
}

/* Calls that follow each other in a segment become one launch where a kernel can do that: it is the first one's, and
 * the others have nothing to do. */
static fv_status join_calls(fv_exec *e) {
    const int32_t n = e->first[FV_SEG_COUNT];
    const fv_cuda_call **next = fv_arena_alloc(&e->arena, (size_t)n + 1, sizeof *next);
    if (!next) return e->dev->base.ctx->error.code;
    for (int segment = 0; segment < FV_SEG_COUNT; segment++) {
        fv_cuda_call *head = NULL;
        for (int32_t i = e->first[segment]; i < e->first[segment + 1]; i++) {
            cuda_step *s = &e->steps[i];
            if (!s->kernel && !s->plan) continue; /* nothing to do */
            if (head && s->kernel && fv_cuda_kernel_joins(head->joined, head->n_joined, &s->call)) s->kernel = NULL;
            else head = s->kernel ? &s->call : NULL;
            if (!head) continue;
            if (head->n_joined == 0) head->joined = next;
            head->n_joined++;
            *next++ = &s->call;
        }
    }
    return FV_OK;
}

/* Offsets in the block; tables come last. */
static void lay_out(fv_exec *e, size_t n_tensors, size_t *tensors, size_t *tables) {
    int32_t n = e->plan->segment_first[FV_SEG_COUNT];
    *tensors = aligned(sizeof(fv_step)) + aligned(sizeof(fv_cuda_fault)) + aligned(sizeof(int32_t));
    *tables = e->block_bytes = *tensors + aligned(n_tensors * sizeof(fv_tensor));
    for (int32_t i = 0; i < n; i++) {
        fv_cuda_call *c = &e->steps[i].call;
        c->table_bytes = e->steps[i].kernel ? fv_cuda_kernel_table(c, NULL) : 0;
        e->block_bytes += aligned(c->table_bytes);
    }
}

/* The block as the host has it, with addresses of the device in every call; then one copy. */
static fv_status fill_block(fv_exec *e, const fv_tensor *tensors, size_t n_tensors, size_t at_tensors,
                            size_t at_tables) {
    fv_device *base = &e->dev->base;
    char *image = fv_calloc(base->ctx, e->block_bytes, 1);
    if (!image) return base->ctx->error.code;
    e->step = (fv_step *)(void *)e->block;
    e->fault = (fv_cuda_fault *)(void *)(e->block + aligned(sizeof(fv_step)));
    e->halted = (int32_t *)(void *)(e->block + aligned(sizeof(fv_step)) + aligned(sizeof(fv_cuda_fault)));
    memcpy(image + at_tensors, tensors, n_tensors * sizeof *tensors);
    const fv_tensor *there = (const fv_tensor *)(const void *)(e->block + at_tensors);
    for (int32_t i = 0; i < e->plan->segment_first[FV_SEG_COUNT]; i++) {
        fv_cuda_call *c = &e->steps[i].call;
        c->step = e->step;
        c->fault = e->fault;
        c->halted = e->halted;
        c->device_in = there + (c->in - tensors);
        c->device_out = there + (c->out - tensors);
    }
    for (int32_t i = 0; i < e->plan->segment_first[FV_SEG_COUNT]; i++) { /* of calls that are all known now */
        fv_cuda_call *c = &e->steps[i].call;
        if (!c->table_bytes) continue;
        (void)fv_cuda_kernel_table(c, image + at_tables);
        c->table = e->block + at_tables;
        at_tables += aligned(c->table_bytes);
    }
    fv_status status = base->backend->copy(base, e->block, image, e->block_bytes, FV_COPY_TO_DEVICE);
    fv_free(base->ctx, image, e->block_bytes, 1);
    return status;
}

static fv_status make_pinned(fv_exec *e) {
    fv_device *base = &e->dev->base;
    void *memory;
    FV_TRY(base->backend->pin(base, sizeof *e->pinned, &memory));
    e->pinned = memory;
    for (int i = 0; i < FV_RUNS; i++) {
        cudaError_t error = cudaEventCreateWithFlags(&e->run[i].begun, cudaEventDefault);
        if (error == cudaSuccess) error = cudaEventCreateWithFlags(&e->run[i].computed, cudaEventDefault);
        if (error == cudaSuccess) error = cudaEventCreateWithFlags(&e->run[i].fetched, cudaEventDisableTiming);
        FV_TRY(fv_cuda_check(base, error, "cudaEventCreate"));
    }
    for (int i = 0; i < STEPS; i++)
        FV_TRY(fv_cuda_check(base, cudaEventCreateWithFlags(&e->step_copied[i], cudaEventDisableTiming),
                             "cudaEventCreate"));
    return FV_OK;
}

static size_t input_bytes(const fv_plan *plan) {
    size_t bytes = 0;
    for (int32_t i = 1; i < plan->graph->n_values; i++)
        if (plan->graph->values[i].kind == FV_VAL_INPUT && plan->place[i].where == FV_AT_ARENA)
            bytes += aligned(fv_bytes(plan->graph->values[i].type));
    return bytes;
}

static fv_status compile(fv_exec *e) {
    fv_device *base = &e->dev->base;
    fv_tensor *tensors;
    size_t count, at_tensors, at_tables;
    void *block;
    memcpy(e->first, e->plan->segment_first, sizeof e->first);
    FV_TRY(make_calls(e, &tensors, &count));
    FV_TRY(join_calls(e));
    lay_out(e, count, &at_tensors, &at_tables);
    FV_TRY(base->backend->alloc(base, e->block_bytes, &block));
    e->block = block;
    fv_cuda_staging_fit(e->dev, input_bytes(e->plan));
    FV_TRY(fill_block(e, tensors, count, at_tensors, at_tables));
    return make_pinned(e);
}

fv_status fv_cuda_compile(fv_device *base, const fv_plan *plan, fv_exec **out) {
    fv_exec *e = fv_calloc(base->ctx, 1, sizeof *e);
    if (!e) return base->ctx->error.code;
    e->dev = (fv_cuda_device *)base;
    e->plan = plan;
    fv_arena_init(&e->arena, base->ctx);
    fv_status status = compile(e);
    if (status == FV_OK) *out = e;
    else fv_cuda_destroy(e);
    return status;
}

static void free_marks(fv_exec *e) {
    for (int32_t i = 0; e->marks && i <= e->first[FV_SEG_COUNT]; i++)
        if (e->marks[i]) cudaEventDestroy(e->marks[i]);
    e->marks = NULL; /* the arena's */
}

void fv_cuda_destroy(fv_exec *e) {
    fv_device *base = &e->dev->base;
    cudaStreamSynchronize(e->dev->stream);
    free_marks(e);
    for (unsigned i = 0; i < LISTS; i++)
        if (e->recordings[i].graph) cudaGraphExecDestroy(e->recordings[i].graph);
    for (int i = 0; i < STEPS; i++)
        if (e->step_copied[i]) cudaEventDestroy(e->step_copied[i]);
    for (int i = 0; i < FV_RUNS; i++) {
        if (e->run[i].begun) cudaEventDestroy(e->run[i].begun);
        if (e->run[i].computed) cudaEventDestroy(e->run[i].computed);
        if (e->run[i].fetched) cudaEventDestroy(e->run[i].fetched);
    }
    if (e->pinned) base->backend->unpin(base, e->pinned, sizeof *e->pinned);
    base->backend->free(base, e->block, e->block_bytes);
    fv_arena_free(&e->arena);
    fv_free(base->ctx, e, 1, sizeof *e);
}

/* ---------------------------------------------------------------- run */

fv_status fv_cuda_set_step(fv_exec *e, const fv_step *step) {
    const int at = e->next_step;
    cudaError_t error = cudaEventSynchronize(e->step_copied[at]); /* long over, unless the host is STEPS ahead */
    if (error == cudaSuccess) {
        e->pinned->step[at] = *step;
        e->next_step = (at + 1) % STEPS;
        error = cudaMemcpyAsync(e->step, &e->pinned->step[at], sizeof *step, cudaMemcpyHostToDevice, e->dev->stream);
    }
    if (error == cudaSuccess) error = cudaEventRecord(e->step_copied[at], e->dev->stream);
    return fv_cuda_check(&e->dev->base, error, "copy of the step's numbers");
}

static fv_status failed(fv_exec *e, const fv_cuda_call *c, cudaError_t error) {
    return fv_fail(e->dev->base.ctx, FV_E_MEMORY, "%s: %s in '%s': %s (%s)", e->dev->base.text,
                   fv_op_get(c->node->op)->name, c->scope, cudaGetErrorString(error), cudaGetErrorName(error));
}

static fv_status mark(fv_exec *e, int32_t i) {
    if (!e->marks) return FV_OK;
    return fv_cuda_check(&e->dev->base, cudaEventRecord(e->marks[i], e->dev->stream), "cudaEventRecord");
}

static fv_status launch(fv_exec *e, uint32_t segments) {
    for (int segment = 0; segment < FV_SEG_COUNT; segment++)
        for (int32_t i = e->first[segment]; (segments & (1u << segment)) && i < e->first[segment + 1]; i++) {
            const cuda_step *s = &e->steps[i];
            FV_TRY(mark(e, i));
            cudaError_t error = s->plan     ? fv_cuda_library_run(s->plan, &s->call)
                                : s->kernel ? s->kernel(&s->call)
                                            : cudaSuccess;
            if (error != cudaSuccess) return failed(e, &s->call, error);
        }
    return mark(e, e->first[FV_SEG_COUNT]);
}

/* A node whose launches cannot be recorded leaves r->graph NULL: the log says so, and steps are launched plainly. */
static fv_status record(fv_exec *e, uint32_t segments, recording *r) {
    fv_ctx *ctx = e->dev->base.ctx;
    cudaStream_t stream = e->dev->stream;
    cudaGraph_t graph = NULL;
    fv_error before = ctx->error;
    FV_TRY(fv_cuda_check(&e->dev->base, cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
                         "cudaStreamBeginCapture"));
    fv_status status = launch(e, segments);
    cudaError_t error = cudaStreamEndCapture(stream, &graph);
    if (status == FV_OK && error == cudaSuccess) error = cudaGraphInstantiate(&r->graph, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    if (status == FV_OK && error == cudaSuccess) return FV_OK;
    fv_log(ctx, FV_LOG_WARN, "no CUDA graph, kernels are launched one by one: %s",
           status != FV_OK ? ctx->error.message : cudaGetErrorString(error));
    ctx->error = before;
    (void)cudaGetLastError();
    r->graph = NULL;
    e->no_graphs = true;
    return FV_OK;
}

/* Time between marks of the run before. */
static fv_status take_marks(fv_exec *e) {
    const int32_t end = e->first[FV_SEG_COUNT];
    FV_TRY(fv_cuda_check(&e->dev->base, cudaEventSynchronize(e->marks[end]), "cudaEventSynchronize"));
    int32_t later = end;
    for (int32_t i = end - 1; i >= 0; i--) {
        int segment = 0;
        while (i >= e->first[segment + 1]) segment++;
        if (!(e->marked & (1u << segment))) continue;
        float ms = 0;
        FV_TRY(fv_cuda_check(&e->dev->base, cudaEventElapsedTime(&ms, e->marks[i], e->marks[later]),
                             "cudaEventElapsedTime"));
        e->seconds[e->steps[i].call.node_index] += 1e-3 * (double)ms;
        later = i;
    }
    e->marked = 0;
    return FV_OK;
}

static fv_status run_segments(fv_exec *e, uint32_t segments) {
    recording *r = &e->recordings[segments & (LISTS - 1)];
    if (e->marks) {
        if (e->marked) FV_TRY(take_marks(e));
        e->marked = segments;
        return launch(e, segments);
    }
    if (r->times < 2) r->times++;
    if (r->times == 2 && !r->graph && e->dev->graphs && !e->no_graphs) FV_TRY(record(e, segments, r));
    if (!r->graph) return launch(e, segments);
    return fv_cuda_check(&e->dev->base, cudaGraphLaunch(r->graph, e->dev->stream), "cudaGraphLaunch");
}

fv_status fv_cuda_enqueue(fv_exec *e, uint32_t segments) {
    const run *r = &e->run[e->enqueued % FV_RUNS];
    cudaStream_t stream = e->dev->stream;
    FV_TRY(fv_cuda_check(&e->dev->base, cudaEventRecord(r->begun, stream), "cudaEventRecord"));
    FV_TRY(run_segments(e, segments));
    return fv_cuda_check(&e->dev->base, cudaEventRecord(r->computed, stream), "cudaEventRecord");
}

fv_status fv_cuda_fetch(fv_exec *e, const fv_fetch *list, int n) {
    const int64_t at = e->enqueued++ % FV_RUNS;
    cudaStream_t stream = e->dev->stream;
    cudaError_t error =
        cudaMemcpyAsync(&e->pinned->fault[at], e->fault, sizeof *e->fault, cudaMemcpyDeviceToHost, stream);
    for (int i = 0; i < n && error == cudaSuccess; i++)
        error = cudaMemcpyAsync(list[i].to, list[i].from, list[i].bytes, cudaMemcpyDeviceToHost, stream);
    if (error == cudaSuccess) error = cudaEventRecord(e->run[at].fetched, stream);
    return fv_cuda_check(&e->dev->base, error, "copy from the GPU");
}

/* ---------------------------------------------------------------- faults */

/* Rows of the table; classes: the last dimension of the operand before the labels. */
static int64_t limit_of(const fv_graph *g, const fv_node *n) {
    if (n->op == FV_OP_GATHER) return fv_dim(g, g->operands[n->first_operand], 0);
    for (int k = 1; k < n->operands; k++) {
        const fv_value label = g->operands[n->first_operand + k], logits = g->operands[n->first_operand + k - 1];
        if (fv_typeof(g, label).dtype == FV_I32) return fv_dim(g, logits, -1);
    }
    return 0;
}

/* The word on the GPU keeps the first fault, so that later runs under way have copies of it, too. */
static fv_status clear_faults(fv_exec *e) {
    cudaError_t error = cudaStreamSynchronize(e->dev->stream);
    memset(e->pinned->fault, 0, sizeof e->pinned->fault);
    if (error == cudaSuccess) error = cudaMemsetAsync(e->fault, 0, sizeof *e->fault, e->dev->stream);
    return fv_cuda_check(&e->dev->base, error, "clearing a fault");
}

static fv_status fault_of(fv_exec *e, int64_t at) {
    const fv_cuda_fault f = e->pinned->fault[at];
    const fv_graph *g = e->plan->graph;
    if (f.kind == FV_CUDA_NO_FAULT) return FV_OK;
    FV_TRY(clear_faults(e));
    const bool known = f.kind == FV_CUDA_FAULT_LABEL || f.kind == FV_CUDA_FAULT_INDEX;
    if (!known || f.node < 0 || f.node >= g->n_nodes)
        return fv_fail(e->dev->base.ctx, FV_E_INTERNAL, "a kernel left the unknown fault %d", (int)f.kind);
    const fv_node *n = &g->nodes[f.node];
    return fv_fail(e->dev->base.ctx, FV_E_DATA, "%s%s%s %lld of row %lld is outside [0, %lld)", n->scope,
                   n->scope[0] ? ": " : "", f.kind == FV_CUDA_FAULT_LABEL ? "label" : "index", (long long)f.datum[0],
                   (long long)f.datum[1], (long long)limit_of(g, n));
}

fv_status fv_cuda_fetched(fv_exec *e) {
    const int64_t at = e->fetched++ % FV_RUNS;
    const run *r = &e->run[at];
    float ms = 0;
    cudaError_t error = cudaEventSynchronize(r->fetched);
    if (error == cudaSuccess) error = cudaEventElapsedTime(&ms, r->begun, r->computed);
    FV_TRY(fv_cuda_check(&e->dev->base, error, "computing"));
    e->dev->base.busy_seconds += 1e-3 * (double)ms;
    return fault_of(e, at);
}

/* ---------------------------------------------------------------- profile */

fv_status fv_cuda_profile(fv_exec *e, bool on) {
    memset(e->seconds, 0, (size_t)e->plan->graph->n_nodes * sizeof *e->seconds);
    free_marks(e);
    e->marked = 0;
    if (!on) return FV_OK;
    size_t n = (size_t)e->first[FV_SEG_COUNT] + 1;
    e->marks = fv_arena_alloc(&e->arena, n, sizeof *e->marks);
    if (!e->marks) return e->dev->base.ctx->error.code;
    for (size_t i = 0; i < n; i++)
        FV_TRY(
            fv_cuda_check(&e->dev->base, cudaEventCreateWithFlags(&e->marks[i], cudaEventDefault), "cudaEventCreate"));
    return FV_OK;
}

const double *fv_cuda_node_seconds(fv_exec *e) {
    if (e->marks && e->marked) (void)take_marks(e);
    return e->seconds;
}
