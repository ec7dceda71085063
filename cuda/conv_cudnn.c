/* conv_cudnn.c: a convolution as a graph of one operation, its engines in the order of cuDNN's heuristics, and the
 * first of them that keep our promises as plans. */
#include "cuda/conv_cudnn.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* Newer versions find the handle by themselves; giving it is right for all of version 9. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

#define MOST_CONFIGS 32
#define MOST_NOTES 16

typedef cudnnBackendDescriptor_t descriptor;

bool fv_cudnn_functions(fv_cudnn *cudnn, void *library) {
    void *symbol;
    cudnn->library = library;
#define FIND(name) \
    if (!(symbol = dlsym(library, #name))) return false; \
    memcpy(&cudnn->name, &symbol, sizeof symbol);
    FV_CUDNN_FUNCTIONS(FIND)
#undef FIND
    return true;
}

size_t fv_cudnn_version(const fv_cudnn *cudnn) {
    return cudnn->cudnnGetVersion();
}

bool fv_cudnn_open(fv_cudnn *cudnn, cudaStream_t stream, char *why, size_t size) {
    cudnnStatus_t status = cudnn->cudnnCreate(&cudnn->handle);
    if (status == CUDNN_STATUS_SUCCESS) status = cudnn->cudnnSetStream(cudnn->handle, stream);
    if (status == CUDNN_STATUS_SUCCESS) return true;
    snprintf(why, size, "%s", cudnn->cudnnGetErrorString(status));
    fv_cudnn_close(cudnn);
    return false;
}

void fv_cudnn_close(fv_cudnn *cudnn) {
    if (cudnn->handle) cudnn->cudnnDestroy(cudnn->handle);
    cudnn->handle = NULL;
}

/* ---------------------------------------------------------------- descriptors. The first error sticks */

typedef struct builder {
    const fv_cudnn *lib;
    descriptor made[FV_CUDNN_KEPT];
    int n;
    cudnnStatus_t status;
    const char *what; /* failed */
} builder;

static void check(builder *b, cudnnStatus_t status, const char *what) {
    if (status == CUDNN_STATUS_SUCCESS || b->status != CUDNN_STATUS_SUCCESS) return;
    b->status = status;
    b->what = what;
}

static void set(builder *b, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t count, const void *values, const char *what) {
    if (b->status == CUDNN_STATUS_SUCCESS)
        check(b, b->lib->cudnnBackendSetAttribute(d, name, type, count, values), what);
}

static descriptor make(builder *b, cudnnBackendDescriptorType_t type, const char *what) {
    descriptor d = NULL;
    if (b->status != CUDNN_STATUS_SUCCESS) return NULL;
    check(b, b->lib->cudnnBackendCreateDescriptor(type, &d), what);
    if (d) b->made[b->n++] = d;
    return d;
}

static void finish(builder *b, descriptor d, const char *what) {
    if (b->status == CUDNN_STATUS_SUCCESS) check(b, b->lib->cudnnBackendFinalize(d), what);
}

bool fv_cudnn_describe_device(fv_cudnn *cudnn, const char *json, char *why, size_t size) {
    builder b = {.lib = cudnn};
    descriptor d = make(&b, CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, "device properties");
    set(&b, d, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)strlen(json), json, "JSON");
    finish(&b, d, "device properties");
    cudnn->properties = d;
    if (b.status == CUDNN_STATUS_SUCCESS) return true;
    snprintf(why, size, "%s: %s", b.what, cudnn->cudnnGetErrorString(b.status));
    return false;
}

/* ---------------------------------------------------------------- the graph of one operation */

static cudnnDataType_t type_of(int64_t dtype) {
    return dtype == FV_BF16 ? CUDNN_DATA_BFLOAT16 : dtype == FV_F16 ? CUDNN_DATA_HALF : CUDNN_DATA_FLOAT;
}

enum { UID_X = 1, UID_W, UID_Y };

/* [n,h,w,c] in memory; cuDNN counts n, c, h, w. */
static descriptor tensor(builder *b, int64_t uid, int64_t dtype, int64_t n, int64_t h, int64_t w, int64_t c) {
    const int64_t dim[4] = {n, c, h, w}, stride[4] = {h * w * c, 1, w * c, c}, alignment = 16;
    const cudnnDataType_t type = type_of(dtype);
    descriptor d = make(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR, "tensor");
    set(b, d, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid, "tensor's name");
    set(b, d, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, "tensor's type");
    set(b, d, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment, "tensor's alignment");
    set(b, d, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, "tensor's dimensions");
    set(b, d, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, "tensor's strides");
    finish(b, d, "tensor");
    return d;
}

static descriptor convolution(builder *b, const fv_cuda_conv *c) {
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
    const int64_t dims = 2;
    descriptor d = make(b, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, "convolution");
    set(b, d, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute, "type of sums");
    set(b, d, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode, "mode");
    set(b, d, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &dims, "dimensions");
    set(b, d, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, c->before, "padding");
    set(b, d, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, c->after, "padding");
    set(b, d, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, c->stride, "stride");
    set(b, d, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, c->dilation, "dilation");
    finish(b, d, "convolution");
    return d;
}

/* Names of the attributes of the three operations. */
typedef struct names {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t x, w, y, conv, alpha, beta;
} names;

static const names names_of[] = {
    [FV_CUDA_CONV] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                      CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA},
    [FV_CUDA_CONV_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                           CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA},
    [FV_CUDA_CONV_WEIGHT] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                             CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA},
};

static descriptor operation(builder *b, const fv_cuda_problem *p) {
    const fv_cuda_conv *c = &p->of.conv;
    const names *as = &names_of[p->task];
    const float one = 1, zero = 0;
    descriptor x = tensor(b, UID_X, p->dtype[0], c->n, c->h, c->w, c->c);
    descriptor w = tensor(b, UID_W, p->dtype[1], c->k, c->r, c->s, c->c / c->groups);
    descriptor y = tensor(b, UID_Y, p->dtype[2], c->n, c->oh, c->ow, c->k);
    descriptor conv = convolution(b, c);
    descriptor op = make(b, as->type, "operation");
    set(b, op, as->x, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &x, "x");
    set(b, op, as->w, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &w, "w");
    set(b, op, as->y, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &y, "y");
    set(b, op, as->conv, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &conv, "convolution");
    set(b, op, as->alpha, CUDNN_TYPE_FLOAT, 1, &one, "alpha");
    set(b, op, as->beta, CUDNN_TYPE_FLOAT, 1, &zero, "beta");
    finish(b, op, "operation");
    return op;
}

static descriptor graph_of(builder *b, const fv_cuda_problem *p) {
    descriptor op = operation(b, p);
    descriptor graph = make(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, "graph");
    set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &op, "graph");
    if (b->lib->handle)
        set(b, graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &b->lib->handle, "handle");
    finish(b, graph, "graph");
    return graph;
}

/* ---------------------------------------------------------------- engines */

/* How much an engine rounds beyond a plain sum in float32. Winograd's rounding grows with the tile: one of 6x6 may be
 * past what tests/test_ops.c allows in float32. */
typedef enum rounding { PLAIN, LARGE_TILE, REDUCED } rounding;

static rounding rounding_of(cudnnBackendNumericalNote_t note) {
    switch (note) {
    case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS:
    case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
    case CUDNN_NUMERICAL_NOTE_FFT:
    case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13: return REDUCED;
    case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6: return LARGE_TILE;
    default: return PLAIN;
    }
}

/* What the engine of a configuration is; false if that cannot be read. */
static bool read_engine(const fv_cudnn *lib, descriptor config, fv_cudnn_plan *out, rounding *rounds) {
    cudnnBackendNumericalNote_t numerical[MOST_NOTES];
    cudnnBackendBehaviorNote_t behaviour[MOST_NOTES];
    int64_t n = 0, n_numerical = 0, n_behaviour = 0;
    descriptor engine = NULL;
    *rounds = PLAIN;
    if (lib->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS)
        return false;
    cudnnStatus_t status = lib->cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE,
                                                         CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine);
    if (status == CUDNN_STATUS_SUCCESS)
        status = lib->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n,
                                               &out->engine);
    if (status == CUDNN_STATUS_SUCCESS)
        status = lib->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE,
                                               MOST_NOTES, &n_numerical, numerical);
    if (status == CUDNN_STATUS_SUCCESS)
        status = lib->cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE,
                                               MOST_NOTES, &n_behaviour, behaviour);
    for (int64_t i = 0; i < n_numerical && i < MOST_NOTES; i++) {
        if (numerical[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE) out->tensor_cores = true;
        if (numerical[i] == CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC) out->any_order = true;
        if (rounding_of(numerical[i]) > *rounds) *rounds = rounding_of(numerical[i]);
    }
    for (int64_t i = 0; i < n_behaviour && i < MOST_NOTES; i++)
        if (behaviour[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION) out->runtime_compiled = true;
    lib->cudnnBackendDestroyDescriptor(engine);
    return status == CUDNN_STATUS_SUCCESS;
}

/* Configurations that heuristics propose, best first; how many, at most MOST_CONFIGS. */
static int64_t configs_of(const fv_cudnn *lib, descriptor graph, cudnnBackendHeurMode_t mode, descriptor *configs) {
    builder b = {.lib = lib};
    int64_t n = 0;
    descriptor heuristics = make(&b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, "heuristics");
    set(&b, heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &graph, "graph");
    set(&b, heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, "mode");
    if (lib->properties)
        set(&b, heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &lib->properties,
            "device");
    finish(&b, heuristics, "heuristics");
    for (int i = 0; i < MOST_CONFIGS; i++) configs[i] = NULL;
    for (int i = 0; i < MOST_CONFIGS && b.status == CUDNN_STATUS_SUCCESS; i++)
        check(&b, lib->cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[i]), "configuration");
    if (b.status == CUDNN_STATUS_SUCCESS)
        check(&b,
              lib->cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                            MOST_CONFIGS, &n, configs),
              "results");
    if (heuristics) lib->cudnnBackendDestroyDescriptor(heuristics);
    if (b.status != CUDNN_STATUS_SUCCESS || n < 0) return 0;
    return n < MOST_CONFIGS ? n : MOST_CONFIGS; /* the count may be of all there are, not of those that fitted */
}

static void destroy_all(const fv_cudnn *lib, descriptor *d, int n) {
    for (int i = 0; i < n; i++)
        if (d[i]) lib->cudnnBackendDestroyDescriptor(d[i]);
}

/* ---------------------------------------------------------------- plans */

/* Make a plan of one configuration. */
static bool finalize_plan(const fv_cudnn *lib, descriptor config, fv_cudnn_plan *out) {
    builder b = {.lib = lib};
    int64_t n = 0;
    descriptor plan = make(&b, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, "plan");
    set(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &config, "configuration");
    if (lib->properties)
        set(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &lib->properties,
            "device");
    else set(&b, plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &lib->handle, "handle");
    finish(&b, plan, "plan");
    if (b.status == CUDNN_STATUS_SUCCESS)
        check(&b,
              lib->cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n,
                                            &out->workspace),
              "workspace");
    if (b.status == CUDNN_STATUS_SUCCESS) {
        out->plan = plan;
        return true;
    }
    if (plan) lib->cudnnBackendDestroyDescriptor(plan);
    return false;
}

/* Counts of what was turned down, for the message. */
typedef struct turned_down {
    int rounding, order, workspace, unplanned;
    int64_t least; /* workspace of those that it was too much for */
} turned_down;

static bool try_config(const fv_cudnn *lib, const fv_cuda_problem *p, const fv_cudnn_limits *limits, descriptor config,
                       fv_cudnn_plan *out, turned_down *no) {
    const bool f32 = p->dtype[0] == FV_F32;
    fv_cudnn_plan candidate = {.config = config, .name = out->name};
    rounding rounds;
    if (!read_engine(lib, config, &candidate, &rounds)) return no->unplanned++, false;
    if (rounds == REDUCED || (!limits->fast && (rounds == LARGE_TILE || (f32 && candidate.tensor_cores))))
        return no->rounding++, false;
    if (candidate.any_order && !limits->fast) return no->order++, false;
    if (!finalize_plan(lib, config, &candidate)) return no->unplanned++, false;
    if (candidate.workspace > limits->workspace) {
        lib->cudnnBackendDestroyDescriptor(candidate.plan);
        if (no->workspace == 0 || candidate.workspace < no->least) no->least = candidate.workspace;
        return no->workspace++, false;
    }
    *out = candidate;
    return true;
}

/* Plans out of what the heuristics of one mode propose. A configuration's name is its place in their list. */
static void add_plans(const fv_cudnn *lib, const fv_cuda_problem *p, const fv_cudnn_limits *limits, descriptor graph,
                      cudnnBackendHeurMode_t mode, fv_cudnn_plans *out, turned_down *no) {
    descriptor configs[MOST_CONFIGS];
    const int64_t n = configs_of(lib, graph, mode, configs);
    for (int64_t i = 0; i < n && out->n < limits->most; i++) {
        const uint64_t name = 1 + (uint64_t)i + MOST_CONFIGS * (uint64_t)mode;
        if (limits->only && limits->only != name) continue;
        out->plan[out->n].name = name;
        if (!try_config(lib, p, limits, configs[i], &out->plan[out->n], no)) continue;
        configs[i] = NULL;
        out->n++;
    }
    destroy_all(lib, configs, MOST_CONFIGS);
}

static bool make_plans(const fv_cudnn *lib, const fv_cuda_problem *p, const fv_cudnn_limits *limits,
                       fv_cudnn_plans *out, char *why, size_t size) {
    static const cudnnBackendHeurMode_t modes[] = {CUDNN_HEUR_MODE_A, CUDNN_HEUR_MODE_FALLBACK};
    builder b = {.lib = lib};
    descriptor graph = graph_of(&b, p);
    turned_down no = {0};
    *out = (fv_cudnn_plans){0};
    /* What is there to fall back to is slower than what is proposed. */
    for (size_t m = 0; m < sizeof modes / sizeof *modes && out->n == 0 && b.status == CUDNN_STATUS_SUCCESS; m++)
        add_plans(lib, p, limits, graph, modes[m], out, &no);
    if (out->n > 0) {
        memcpy(out->kept, b.made, sizeof b.made);
        out->n_kept = b.n;
        return true;
    }
    if (b.status != CUDNN_STATUS_SUCCESS) snprintf(why, size, "%s: %s", b.what, lib->cudnnGetErrorString(b.status));
    else
        snprintf(why, size, "engines turned down: %d for rounding, %d for order, %d for workspace; not to be had: %d",
                 no.rounding, no.order, no.workspace, no.unplanned);
    out->lacking = no.least;
    destroy_all(lib, b.made, b.n);
    return false;
}

bool fv_cudnn_plans_make(const fv_cudnn *lib, const fv_cuda_problem *p, const fv_cudnn_limits *limits,
                         fv_cudnn_plans *out, char *why, size_t size) {
    if (make_plans(lib, p, limits, out, why, size)) return true;
    if (p->task != FV_CUDA_CONV_WEIGHT || p->dtype[0] == p->dtype[1]) return false;
    fv_cuda_problem rounded = *p;
    rounded.dtype[1] = p->dtype[0];
    if (!make_plans(lib, &rounded, limits, out, why, size)) return false;
    out->rounded = true;
    return true;
}

static void free_plan(const fv_cudnn *lib, fv_cudnn_plan *plan) {
    lib->cudnnBackendDestroyDescriptor(plan->plan);
    lib->cudnnBackendDestroyDescriptor(plan->config);
}

void fv_cudnn_plans_keep(const fv_cudnn *lib, fv_cudnn_plans *plans, int i) {
    for (int k = 0; k < plans->n; k++)
        if (k != i) free_plan(lib, &plans->plan[k]);
    plans->plan[0] = plans->plan[i];
    plans->n = 1;
}

void fv_cudnn_plans_free(const fv_cudnn *lib, fv_cudnn_plans *plans) {
    for (int k = 0; k < plans->n; k++) free_plan(lib, &plans->plan[k]);
    for (int i = plans->n_kept - 1; i >= 0; i--) lib->cudnnBackendDestroyDescriptor(plans->kept[i]);
    *plans = (fv_cudnn_plans){0};
}

const char *fv_cudnn_run(const fv_cudnn *lib, const fv_cudnn_plan *plan, void *const xwy[3], void *workspace) {
    const int64_t uids[3] = {UID_X, UID_W, UID_Y};
    builder b = {.lib = lib};
    descriptor pack = make(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, "addresses");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 3, uids, "names");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 3, xwy, "addresses");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace, "workspace");
    finish(&b, pack, "addresses");
    if (b.status == CUDNN_STATUS_SUCCESS) check(&b, lib->cudnnBackendExecute(lib->handle, plan->plan, pack), "run");
    destroy_all(lib, b.made, b.n);
    return b.status == CUDNN_STATUS_SUCCESS ? NULL : lib->cudnnGetErrorString(b.status);
}
