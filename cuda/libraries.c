/* libraries.c: finding cuDNN and cuBLASLt, and one plan per problem.
 *
 * Where they are looked for: $FOVEA_CUDA_LIBRARIES (folders, separated by colons), where the loader looks,
 * /usr/local/cuda/lib64, and the folders of the Python packages nvidia-*: PyTorch brings them along. */
#include "cuda/libraries.h"
#include "cuda/conv_cudnn.h"
#include "cuda/matmul_lt.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH 4096

struct fv_cuda_library_plan {
    fv_cuda_problem problem;
    bool there; /* false: our own kernel */
    fv_cudnn_plan conv;
    fv_lt_plan gemm;
    fv_cuda_library_plan *next;
};

struct fv_cuda_libraries {
    fv_ctx *ctx;
    bool fast;
    fv_cudnn cudnn;
    fv_lt lt;
    bool has_cudnn, has_lt;
    fv_cuda_library_plan *plans;
};

/* ---------------------------------------------------------------- finding */

static void *open_in(const char *folder, size_t length, const char *file) {
    char path[PATH];
    int n = snprintf(path, sizeof path, "%.*s/%s", (int)length, folder, file);
    return n > 0 && n < PATH ? dlopen(path, RTLD_NOW | RTLD_GLOBAL) : NULL;
}

/* The first of the files that the pattern finds and that opens. */
static void *open_glob(const char *pattern, const char *file) {
    glob_t found;
    void *library = NULL;
    if (glob(pattern, GLOB_NOSORT, NULL, &found) != 0) return NULL;
    for (size_t i = 0; i < found.gl_pathc && !library; i++)
        library = open_in(found.gl_pathv[i], strlen(found.gl_pathv[i]), file);
    globfree(&found);
    return library;
}

static void *open_in_python(const char *root, const char *file) {
    static const char *const packages[] = {"site-packages", "dist-packages"};
    char pattern[PATH];
    void *library = NULL;
    for (int i = 0; i < 2 && root && !library; i++) {
        snprintf(pattern, sizeof pattern, "%.1000s/lib/python3*/%s/nvidia/*/lib", root, packages[i]);
        library = open_glob(pattern, file);
    }
    return library;
}

static void *open_library(const char *file) {
    const char *roots[] = {getenv("VIRTUAL_ENV"), getenv("CONDA_PREFIX"), "/usr/local", "/usr", "/opt/conda"};
    const char *list = getenv("FOVEA_CUDA_LIBRARIES");
    void *library = NULL;
    for (const char *p = list; p && *p && !library; p += strcspn(p, ":"), p += *p == ':')
        library = open_in(p, strcspn(p, ":"), file);
    if (!library) library = dlopen(file, RTLD_NOW | RTLD_GLOBAL);
    if (!library) library = open_in("/usr/local/cuda/lib64", strlen("/usr/local/cuda/lib64"), file);
    for (size_t i = 0; i < sizeof roots / sizeof *roots && !library; i++) library = open_in_python(roots[i], file);
    return library;
}

static void open_cudnn(fv_cuda_libraries *l, cudaStream_t stream) {
    char file[64];
    snprintf(file, sizeof file, "libcudnn.so.%d", CUDNN_MAJOR);
    void *library = open_library(file);
    if (!library || !fv_cudnn_functions(&l->cudnn, library)) {
        fv_log(l->ctx, FV_LOG_WARN, "%s is not there: convolutions run with kernels of our own, which are slower",
               file);
        return;
    }
    cudnnStatus_t status = l->cudnn.cudnnCreate(&l->cudnn.handle);
    if (status == CUDNN_STATUS_SUCCESS) status = l->cudnn.cudnnSetStream(l->cudnn.handle, stream);
    l->has_cudnn = status == CUDNN_STATUS_SUCCESS;
    if (!l->has_cudnn)
        fv_log(l->ctx, FV_LOG_WARN, "%s cannot be used: %s; convolutions run with kernels of our own", file,
               l->cudnn.cudnnGetErrorString(status));
}

static void open_lt(fv_cuda_libraries *l) {
    char file[64];
    snprintf(file, sizeof file, "libcublasLt.so.%d", CUBLAS_VER_MAJOR);
    void *library = open_library(file);
    if (!library || !fv_lt_functions(&l->lt, library)) {
        fv_log(l->ctx, FV_LOG_WARN, "%s is not there: products run with kernels of our own, which are slower", file);
        return;
    }
    l->has_lt = l->lt.cublasLtCreate(&l->lt.handle) == CUBLAS_STATUS_SUCCESS;
    if (!l->has_lt) fv_log(l->ctx, FV_LOG_WARN, "%s cannot be used: products run with kernels of our own", file);
}

fv_status fv_cuda_libraries_open(fv_cuda_device *dev, fv_cuda_libraries **out) {
    fv_cuda_libraries *l = fv_calloc(dev->base.ctx, 1, sizeof *l);
    char file[64];
    if (!l) return dev->base.ctx->error.code;
    l->ctx = dev->base.ctx;
    l->fast = dev->fast;
    *out = l;
    snprintf(file, sizeof file, "libnvrtc.so.%d", CUDART_VERSION / 1000);
    (void)open_library(file); /* cuDNN compiles some engines with it; the others do without */
    open_lt(l);
    open_cudnn(l, dev->stream);
    return FV_OK;
}

void fv_cuda_libraries_close(fv_cuda_libraries *l) {
    if (!l) return;
    for (fv_cuda_library_plan *p = l->plans, *next; p; p = next) {
        next = p->next;
        if (l->has_cudnn) fv_cudnn_plan_free(&l->cudnn, &p->conv);
        if (l->has_lt) fv_lt_plan_free(&l->lt, &p->gemm);
        fv_free(l->ctx, p, 1, sizeof *p);
    }
    if (l->has_cudnn) l->cudnn.cudnnDestroy(l->cudnn.handle);
    if (l->has_lt) l->lt.cublasLtDestroy(l->lt.handle);
    fv_free(l->ctx, l, 1, sizeof *l); /* the libraries stay open: they do not close well */
}

void fv_cuda_libraries_text(const fv_cuda_libraries *l, char *buf, size_t size) {
    int used = 0;
    buf[0] = '\0';
    if (l && l->has_cudnn) {
        size_t v = l->cudnn.cudnnGetVersion();
        used = snprintf(buf, size, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
    }
    if (l && l->has_lt && used >= 0 && (size_t)used < size) {
        size_t v = l->lt.cublasLtGetVersion();
        snprintf(buf + used, size - (size_t)used, "%scuBLASLt %zu.%zu.%zu", used ? ", " : "", v / 10000, v / 100 % 100,
                 v % 100);
    }
}

/* ---------------------------------------------------------------- plans */

static bool make_plan(fv_cuda_libraries *l, fv_cuda_library_plan *plan, char *why, size_t size) {
    const fv_cuda_problem *p = &plan->problem;
    const fv_cudnn_limits limits = {(int64_t)FV_CUDA_WORKSPACE, l->fast};
    if (p->task == FV_CUDA_GEMM)
        return l->has_lt && fv_lt_plan_make(&l->lt, p, FV_CUDA_WORKSPACE, l->fast, &plan->gemm, why, size);
    if (p->bias_dtype && p->bias_dtype - 1 != FV_F32) {
        snprintf(why, size, "its bias is not float32");
        return false;
    }
    return l->has_cudnn && fv_cudnn_plan_make(&l->cudnn, p, &limits, &plan->conv, why, size);
}

static void tell(const fv_cuda_libraries *l, const fv_cuda_library_plan *plan, const char *why) {
    char text[192];
    (void)fv_cuda_problem_text(&plan->problem, text, sizeof text);
    if (!plan->there) fv_log(l->ctx, FV_LOG_DEBUG, "%s: a kernel of our own%s%s", text, why[0] ? ": " : "", why);
    else if (plan->problem.task == FV_CUDA_GEMM) fv_log(l->ctx, FV_LOG_DEBUG, "%s: cuBLASLt", text);
    else
        fv_log(l->ctx, FV_LOG_DEBUG, "%s: cuDNN engine %lld, %.1f MB of workspace", text, (long long)plan->conv.engine,
               1e-6 * (double)plan->conv.workspace);
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
    const size_t bytes = plan->problem.task == FV_CUDA_GEMM ? plan->gemm.workspace : (size_t)plan->conv.workspace;
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
    cublasStatus_t status = fv_lt_run(&l->lt, &plan->gemm, c->in[g->a_is].data, c->in[g->b_is].data, c->out[0].data,
                                      bias, c->workspace, plan->gemm.workspace, c->stream);
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
    cudnnStatus_t status = fv_cudnn_run(&l->cudnn, &plan->conv, xwy, c->workspace);
    if (status != CUDNN_STATUS_SUCCESS) {
        fv_log(l->ctx, FV_LOG_WARN, "cuDNN: %s in '%s'", l->cudnn.cudnnGetErrorString(status), c->scope);
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
