/* libraries.c: cuDNN and cuBLASLt, where they are found (find.h), and one plan per problem.
 * With --autotune the ways that a library proposes for a problem are timed (tune.h); else its heuristics choose. */
#include "cuda/libraries.h"
#include "cuda/conv_cudnn.h"
#include "cuda/find.h"
#include "cuda/matmul_lt.h"
#include "cuda/tune.h"

#include <stdio.h>
#include <string.h>

struct fv_cuda_library_plan {
    fv_cuda_problem problem;
    bool there;          /* false: our own kernel */
    fv_cudnn_plans conv; /* one of the two, with one way to compute it */
    fv_lt_plan gemm;
    fv_cuda_library_plan *next;
};

struct fv_cuda_libraries {
    fv_ctx *ctx;
    bool fast;
    cudaStream_t stream;
    fv_tuner *tuner; /* NULL: heuristics choose */
    fv_cudnn cudnn;
    fv_lt lt;
    bool has_cudnn, has_lt;
    size_t workspace; /* of a plan, at most */
    fv_cuda_library_plan *plans;
};

/* ---------------------------------------------------------------- opening */

#define VERSION(v) (v) / 10000, (v) / 100 % 100, (v) % 100 /* of "%zu.%zu.%zu" */

/* cuDNN with all that is called, and new enough. */
static bool fits_cudnn(void *arg, void *library, const char *path) {
    fv_cuda_libraries *l = arg;
    const size_t oldest = FV_CUDNN_OLDEST;
    if (!fv_cudnn_functions(&l->cudnn, library)) return false;
    const size_t v = fv_cudnn_version(&l->cudnn);
    if (v >= oldest) return true;
    fv_log(l->ctx, FV_LOG_WARN, "%s is cuDNN %zu.%zu.%zu, which is too old: it must be %zu.%zu.%zu or newer", path,
           VERSION(v), VERSION(oldest));
    return false;
}

static bool fits_lt(void *arg, void *library, const char *path) {
    fv_cuda_libraries *l = arg;
    (void)path;
    return fv_lt_functions(&l->lt, library);
}

static void open_cudnn(fv_cuda_libraries *l) {
    char why[256];
#ifdef FV_WITHOUT_CUDNN
    fv_log(l->ctx, FV_LOG_WARN,
           "this build is without cuDNN, whose headers were not there: convolutions run with kernels of our own, which "
           "are slower");
    return;
#endif
    if (!fv_cuda_find_library(FV_CUDNN_FILE, fits_cudnn, l)) {
        fv_log(l->ctx, FV_LOG_WARN,
               "no %s that can be used: convolutions run with kernels of our own, which are slower", FV_CUDNN_FILE);
        return;
    }
    l->has_cudnn = fv_cudnn_open(&l->cudnn, l->stream, why, sizeof why);
    if (!l->has_cudnn)
        fv_log(l->ctx, FV_LOG_WARN, "%s cannot be used: %s; convolutions run with kernels of our own", FV_CUDNN_FILE,
               why);
}

static void open_lt(fv_cuda_libraries *l) {
    char file[64];
    snprintf(file, sizeof file, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    if (!fv_cuda_find_library(file, fits_lt, l)) {
        fv_log(l->ctx, FV_LOG_WARN, "no %s that can be used: products run with kernels of our own, which are slower",
               file);
        return;
    }
    l->has_lt = l->lt.cublasLtCreate(&l->lt.handle) == CUBLAS_STATUS_SUCCESS;
    if (!l->has_lt) fv_log(l->ctx, FV_LOG_WARN, "%s cannot be used: products run with kernels of our own", file);
}

static void open_all(fv_cuda_libraries *l) {
    char file[64];
    if (!fv_cuda_libraries_wanted()) {
        fv_log(l->ctx, FV_LOG_INFO,
               "FOVEA_CUDA_LIBRARIES is 'none': convolutions and products run with kernels of our own");
        return;
    }
    snprintf(file, sizeof file, "libnvrtc.so.%d", CUDART_VERSION / 1000);
    (void)fv_cuda_find_library(file, NULL, NULL); /* cuDNN compiles some engines with it; the others do without */
    open_lt(l);
    open_cudnn(l);
}

/* What results are kept for: the GPU, whichever number it has, and the versions. */
static fv_status open_tuner(fv_cuda_libraries *l, const fv_cuda_device *dev, const char *path) {
    const char *gpu = strchr(dev->base.text, ' ');
    char libraries[64], machine[256];
    fv_cuda_libraries_text(l, libraries, sizeof libraries);
    snprintf(machine, sizeof machine, "%.120s, sm_%d%d, %s", gpu ? gpu + 1 : dev->base.text, dev->major, dev->minor,
             libraries);
    return fv_tuner_open(l->ctx, path, machine, &l->tuner);
}

fv_status fv_cuda_libraries_open(fv_cuda_device *dev, const char *autotune, fv_cuda_libraries **out) {
    fv_cuda_libraries *l = fv_calloc(dev->base.ctx, 1, sizeof *l);
    if (!l) return dev->base.ctx->error.code;
    l->ctx = dev->base.ctx;
    l->fast = dev->fast;
    l->stream = dev->stream;
    l->workspace = fv_cuda_workspace_limit(dev->memory_bytes);
    *out = l;
    open_all(l);
    return autotune ? open_tuner(l, dev, autotune) : FV_OK;
}

void fv_cuda_libraries_close(fv_cuda_libraries *l) {
    if (!l) return;
    for (fv_cuda_library_plan *p = l->plans, *next; p; p = next) {
        next = p->next;
        if (l->has_cudnn) fv_cudnn_plans_free(&l->cudnn, &p->conv);
        if (l->has_lt) fv_lt_plan_free(&l->lt, &p->gemm);
        fv_free(l->ctx, p, 1, sizeof *p);
    }
    if (l->has_cudnn) fv_cudnn_close(&l->cudnn);
    if (l->has_lt) l->lt.cublasLtDestroy(l->lt.handle);
    fv_tuner_close(l->tuner);
    fv_free(l->ctx, l, 1, sizeof *l); /* the libraries stay open: they do not close well */
}

void fv_cuda_libraries_text(const fv_cuda_libraries *l, char *buf, size_t size) {
    int used = 0;
    buf[0] = '\0';
    if (l && l->has_cudnn) {
        size_t v = fv_cudnn_version(&l->cudnn);
        used = snprintf(buf, size, "cuDNN %zu.%zu.%zu", VERSION(v));
    }
    if (l && l->has_lt && used >= 0 && (size_t)used < size) {
        size_t v = l->lt.cublasLtGetVersion();
        snprintf(buf + used, size - (size_t)used, "%scuBLASLt %zu.%zu.%zu", used ? ", " : "", VERSION(v));
    }
}

/* ---------------------------------------------------------------- measuring candidates (--autotune) */

#define TRIALS 5
#define RUNS 4 /* per trial: some take only microseconds */

typedef struct trials {
    fv_cuda_libraries *l;
    const fv_cuda_library_plan *plan;
    char *operand[4], *workspace; /* x, w, y; or a, b, c, bias */
    cudaEvent_t begin, end;
} trials;

/* Bytes of the operands, each rounded up to whole 256. */
static void operand_bytes(const fv_cuda_problem *p, size_t bytes[4]) {
    const fv_cuda_conv *c = &p->of.conv;
    const fv_cuda_gemm *g = &p->of.gemm;
    const int64_t conv[4] = {c->n * c->h * c->w * c->c, c->k * c->r * c->s * (c->c / (c->groups ? c->groups : 1)),
                             c->n * c->oh * c->ow * c->k, 0};
    const int64_t gemm[4] = {g->m * g->k * g->batch, g->k * g->n * g->batch, g->m * g->n * g->batch, g->m};
    for (int i = 0; i < 4; i++) {
        const int64_t count = p->task == FV_CUDA_GEMM ? gemm[i] : conv[i];
        bytes[i] = ((size_t)count * fv_dtype_size(i < 3 ? (fv_dtype)p->dtype[i] : FV_F32) + 255) & ~(size_t)255;
    }
}

static bool run_candidate(const trials *t, int i) {
    const fv_cuda_libraries *l = t->l;
    void *const xwy[3] = {t->operand[0], t->operand[1], t->operand[2]};
    if (t->plan->problem.task == FV_CUDA_GEMM)
        return fv_lt_run(&l->lt, &t->plan->gemm, i, xwy[0], xwy[1], xwy[2],
                         t->plan->problem.of.gemm.bias ? t->operand[3] : NULL, t->workspace,
                         l->stream) == CUBLAS_STATUS_SUCCESS;
    return fv_cudnn_run(&l->cudnn, &t->plan->conv.plan[i], xwy, t->workspace) == NULL;
}

/* Median of the trials; the first run, which sets things up, is none. */
static double measure(void *arg, int i) {
    const trials *t = arg;
    double took[TRIALS];
    bool good = run_candidate(t, i) && cudaStreamSynchronize(t->l->stream) == cudaSuccess;
    for (int k = 0; good && k < TRIALS; k++) {
        float ms = 0;
        good = cudaEventRecord(t->begin, t->l->stream) == cudaSuccess;
        for (int run = 0; good && run < RUNS; run++) good = run_candidate(t, i);
        good = good && cudaEventRecord(t->end, t->l->stream) == cudaSuccess &&
               cudaEventSynchronize(t->end) == cudaSuccess &&
               cudaEventElapsedTime(&ms, t->begin, t->end) == cudaSuccess;
        int place = k;
        for (; place > 0 && took[place - 1] > ms; place--) took[place] = took[place - 1];
        took[place] = ms;
    }
    (void)cudaGetLastError();
    return good ? 1e-3 * took[TRIALS / 2] / RUNS : -1;
}

/* The fastest of the plan's candidates; the first where memory to try them is not to be had. */
static int fastest(fv_cuda_libraries *l, const fv_cuda_library_plan *plan, const char *problem, int n,
                   const uint64_t *names, size_t workspace) {
    trials t = {.l = l, .plan = plan};
    size_t bytes[4];
    char *block = NULL;
    operand_bytes(&plan->problem, bytes);
    const size_t all = bytes[0] + bytes[1] + bytes[2] + bytes[3] + workspace;
    cudaError_t error = cudaMalloc((void **)&block, all);
    /* 0x3c3c is 0.0115 in bf16, 1.06 in float16: zeros would let the GPU run at higher clocks than in training. */
    if (error == cudaSuccess) error = cudaMemsetAsync(block, 0x3c, all, l->stream);
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&t.begin, cudaEventDefault);
    if (error == cudaSuccess) error = cudaEventCreateWithFlags(&t.end, cudaEventDefault);
    int best = 0;
    if (error == cudaSuccess) {
        char *at = block;
        for (int i = 0; i < 4; at += bytes[i], i++) t.operand[i] = at;
        t.workspace = at;
        best = fv_tuner_choose(l->tuner, problem, n, names, measure, &t);
    } else fv_log(l->ctx, FV_LOG_DEBUG, "autotune: no room to try '%s': %s", problem, cudaGetErrorName(error));
    if (t.begin) cudaEventDestroy(t.begin);
    if (t.end) cudaEventDestroy(t.end);
    if (block) cudaFree(block);
    (void)cudaGetLastError();
    return best < 0 ? 0 : best;
}

/* All numbers of a problem, and whether any order of sums will do. */
static void key_of(const fv_cuda_libraries *l, const fv_cuda_problem *p, char *buf, size_t size) {
    int64_t number[sizeof *p / sizeof(int64_t)];
    size_t used = (size_t)snprintf(buf, size, "%s", l->fast ? "fast " : "");
    memcpy(number, p, sizeof number);
    for (size_t i = 0; i < sizeof number / sizeof *number && used < size; i++)
        used += (size_t)snprintf(buf + used, size - used, i ? ",%lld" : "%lld", (long long)number[i]);
}

/* ---------------------------------------------------------------- plans */

static bool make_gemm(fv_cuda_libraries *l, fv_cuda_library_plan *plan, const char *key, char *why, size_t size) {
    uint64_t names[FV_LT_MOST], kept = 0;
    size_t workspace = 0;
    if (!l->has_lt || !fv_lt_plan_make(&l->lt, &plan->problem, l->workspace, l->fast, l->tuner ? FV_LT_MOST : 1,
                                       &plan->gemm, why, size))
        return false;
    for (int i = 0; i < plan->gemm.n; i++) {
        names[i] = plan->gemm.algorithm[i].name;
        if (plan->gemm.algorithm[i].workspace > workspace) workspace = plan->gemm.algorithm[i].workspace;
    }
    bool known = l->tuner && fv_tuner_kept(l->tuner, key, &kept);
    int chosen = 0;
    while (known && names[chosen] != kept)
        if (++chosen == plan->gemm.n) known = false, chosen = 0;
    if (!known && plan->gemm.n > 1) chosen = fastest(l, plan, key, plan->gemm.n, names, workspace);
    fv_lt_plan_keep(&plan->gemm, chosen);
    return true;
}

static bool make_conv(fv_cuda_libraries *l, fv_cuda_library_plan *plan, const char *key, char *why, size_t size) {
    fv_cudnn_limits limits = {.workspace = (int64_t)l->workspace, .fast = l->fast, .most = 1};
    uint64_t names[FV_CUDNN_MOST];
    int64_t workspace = 0;
    if (!l->has_cudnn) return false;
    if (l->tuner && fv_tuner_kept(l->tuner, key, &limits.only) &&
        fv_cudnn_plans_make(&l->cudnn, &plan->problem, &limits, &plan->conv, why, size))
        return true;
    limits.only = 0;
    if (l->tuner) limits.most = FV_CUDNN_MOST;
    if (!fv_cudnn_plans_make(&l->cudnn, &plan->problem, &limits, &plan->conv, why, size)) return false;
    for (int i = 0; i < plan->conv.n; i++) {
        names[i] = plan->conv.plan[i].name;
        if (plan->conv.plan[i].workspace > workspace) workspace = plan->conv.plan[i].workspace;
    }
    fv_cudnn_plans_keep(&l->cudnn, &plan->conv,
                        plan->conv.n > 1 ? fastest(l, plan, key, plan->conv.n, names, (size_t)workspace) : 0);
    return true;
}

static bool make_plan(fv_cuda_libraries *l, fv_cuda_library_plan *plan, char *why, size_t size) {
    const fv_cuda_problem *p = &plan->problem;
    char key[640];
    key_of(l, p, key, sizeof key);
    if (p->task == FV_CUDA_GEMM) return make_gemm(l, plan, key, why, size);
    if (p->bias_dtype && p->bias_dtype - 1 != FV_F32) {
        snprintf(why, size, "its bias is not float32");
        return false;
    }
    return make_conv(l, plan, key, why, size);
}

static void tell(const fv_cuda_libraries *l, const fv_cuda_library_plan *plan, const char *why) {
    char text[192];
    (void)fv_cuda_problem_text(&plan->problem, text, sizeof text);
    if (!plan->there && plan->conv.lacking > 0)
        fv_log(l->ctx, FV_LOG_WARN,
               "%s: a kernel of our own, which is slower: cuDNN would need %.1f MB of workspace, and %.1f are allowed",
               text, 1e-6 * (double)plan->conv.lacking, 1e-6 * (double)l->workspace);
    else if (!plan->there) fv_log(l->ctx, FV_LOG_DEBUG, "%s: a kernel of our own%s%s", text, why[0] ? ": " : "", why);
    else if (plan->problem.task == FV_CUDA_GEMM) fv_log(l->ctx, FV_LOG_DEBUG, "%s: cuBLASLt", text);
    else
        fv_log(l->ctx, FV_LOG_DEBUG, "%s: cuDNN engine %lld, %.1f MB of workspace", text,
               (long long)plan->conv.plan[0].engine, 1e-6 * (double)plan->conv.plan[0].workspace);
}

const fv_cuda_library_plan *fv_cuda_library_find(const fv_cuda_device *dev, const fv_graph *g, const fv_node *node) {
    fv_cuda_libraries *l = dev->libraries;
    fv_cuda_problem problem;
    char why[256] = "";
    if (!fv_cuda_problem_of(g, node, &problem)) return NULL;
    for (const fv_cuda_library_plan *p = l->plans; p; p = p->next)
        if (!memcmp(&p->problem, &problem, sizeof problem)) return p->there ? p : NULL;
    fv_cuda_library_plan *plan = fv_calloc(l->ctx, 1, sizeof *plan);
    if (!plan) return NULL; /* our own kernel needs no plan */
    plan->problem = problem;
    plan->there = make_plan(l, plan, why, sizeof why);
    plan->next = l->plans;
    l->plans = plan;
    tell(l, plan, why);
    return plan->there ? plan : NULL;
}

/* ---------------------------------------------------------------- run
 *
 * workspace   [ the library's | what is rounded to 16 bits: the bias of a product, the gradient of weights ] */

static size_t own_bytes(const fv_cuda_library_plan *plan) {
    const size_t bytes =
        plan->problem.task == FV_CUDA_GEMM ? plan->gemm.algorithm[0].workspace : (size_t)plan->conv.plan[0].workspace;
    return (bytes + 255) & ~(size_t)255;
}

/* Elements that are rounded. */
static int64_t rounded_count(const fv_cuda_library_plan *plan) {
    const fv_cuda_conv *c = &plan->problem.of.conv;
    if (plan->problem.task == FV_CUDA_GEMM) return plan->gemm.rounded ? plan->problem.of.gemm.m : 0;
    return plan->conv.rounded ? c->k * c->r * c->s * (c->c / c->groups) : 0;
}

size_t fv_cuda_library_workspace(const fv_cuda_library_plan *plan) {
    return own_bytes(plan) + sizeof(uint16_t) * (size_t)rounded_count(plan);
}

static fv_tensor vector_of(void *data, int64_t dtype, int64_t count) {
    return (fv_tensor){data, fv_shape((fv_dtype)dtype, count)};
}

static cudaError_t run_gemm(const fv_cuda_libraries *l, const fv_cuda_library_plan *plan, const fv_cuda_call *c) {
    const fv_cuda_gemm *g = &plan->problem.of.gemm;
    const void *bias = g->bias ? c->in[2].data : NULL;
    if (plan->gemm.rounded) {
        void *rounded = (char *)c->workspace + own_bytes(plan);
        const fv_tensor to = vector_of(rounded, plan->problem.dtype[2], rounded_count(plan));
        cudaError_t error = fv_cuda_convert(&c->in[2], &to, c->stream);
        if (error != cudaSuccess) return error;
        bias = rounded;
    }
    cublasStatus_t status = fv_lt_run(&l->lt, &plan->gemm, 0, c->in[g->a_is].data, c->in[g->b_is].data, c->out[0].data,
                                      bias, c->workspace, c->stream);
    if (status == CUBLAS_STATUS_SUCCESS) return cudaSuccess;
    fv_log(l->ctx, FV_LOG_WARN, "cuBLASLt: status %d in '%s'", (int)status, c->scope);
    return cudaErrorUnknown;
}

static cudaError_t run_conv(const fv_cuda_libraries *l, const fv_cuda_library_plan *plan, const fv_cuda_call *c) {
    void *in0 = c->in[0].data, *in1 = c->in[1].data, *out = c->out[0].data;
    void *result = plan->conv.rounded ? (char *)c->workspace + own_bytes(plan) : out;
    void *xwy[3] = {in0, in1, out};                                                             /* x, w -> y */
    if (plan->problem.task == FV_CUDA_CONV_DATA) xwy[0] = out, xwy[1] = in1, xwy[2] = in0;      /* dy, w -> dx */
    if (plan->problem.task == FV_CUDA_CONV_WEIGHT) xwy[0] = in1, xwy[1] = result, xwy[2] = in0; /* dy, x -> dw */
    const char *why = fv_cudnn_run(&l->cudnn, &plan->conv.plan[0], xwy, c->workspace);
    if (why) {
        fv_log(l->ctx, FV_LOG_WARN, "cuDNN: %s in '%s'", why, c->scope);
        return cudaErrorUnknown;
    }
    const fv_tensor rounded = vector_of(result, plan->problem.dtype[0], rounded_count(plan));
    if (plan->conv.rounded) return fv_cuda_convert(&rounded, &c->out[0], c->stream);
    return plan->problem.bias_dtype ? fv_cuda_add_bias(&c->out[0], c->in[2].data, c->stream) : cudaSuccess;
}

cudaError_t fv_cuda_library_run(const fv_cuda_library_plan *plan, const fv_cuda_call *c) {
    const fv_cuda_libraries *l = c->device->libraries;
    return plan->problem.task == FV_CUDA_GEMM ? run_gemm(l, plan, c) : run_conv(l, plan, c);
}
