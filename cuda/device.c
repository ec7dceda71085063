/* device.c: a GPU as a device: opening it, its memory, copies. */
#include "cuda/libraries.h"

#include <stdio.h>
#include <string.h>

#define OLDEST 75 /* compute capability 7.5, Turing: the least that CUDA 13 knows */

fv_status fv_cuda_check(fv_device *dev, cudaError_t error, const char *what) {
    if (error == cudaSuccess) return FV_OK;
    return fv_fail(dev->ctx, FV_E_MEMORY, "%s: %s: %s (%s)", dev->text[0] ? dev->text : "cuda", what,
                   cudaGetErrorString(error), cudaGetErrorName(error));
}

/* ---------------------------------------------------------------- memory */

static fv_status no_memory(fv_device *dev, size_t bytes) {
    size_t left = 0, total = 0;
    (void)cudaGetLastError();
    (void)cudaMemGetInfo(&left, &total);
    fv_fail(dev->ctx, FV_E_MEMORY, "%s: out of memory: %.1f MB needed, %.1f of %.1f MB free", dev->text,
            1e-6 * (double)bytes, 1e-6 * (double)left, 1e-6 * (double)total);
    return fv_hint(dev->ctx, "a smaller batch needs less: --batch-size; others may use the GPU, too: nvidia-smi");
}

static fv_status cuda_alloc(fv_device *base, size_t bytes, void **out) {
    fv_cuda_device *dev = (fv_cuda_device *)base;
    size_t whole = bytes ? bytes : 1;
    *out = NULL;
    cudaError_t error = cudaMalloc(out, whole);
    if (error == cudaErrorMemoryAllocation) return no_memory(base, bytes);
    FV_TRY(fv_cuda_check(base, error, "cudaMalloc"));
    error = cudaMemsetAsync(*out, 0, whole, dev->stream);
    if (error != cudaSuccess) {
        cudaFree(*out);
        *out = NULL;
        return fv_cuda_check(base, error, "cudaMemsetAsync");
    }
    dev->bytes += whole;
    if (dev->bytes > base->peak_bytes) base->peak_bytes = dev->bytes;
    return FV_OK;
}

static void cuda_free(fv_device *base, void *ptr, size_t bytes) {
    fv_cuda_device *dev = (fv_cuda_device *)base;
    if (!ptr) return;
    cudaFree(ptr);
    dev->bytes -= bytes ? bytes : 1;
}

/* ---------------------------------------------------------------- copies */

static size_t cuda_free_bytes(fv_device *base) {
    size_t left = 0, total = 0;
    (void)base;
    return cudaMemGetInfo(&left, &total) == cudaSuccess ? left : 0;
}

static fv_status cuda_pin(fv_device *base, size_t bytes, void **out) {
    *out = NULL;
    FV_TRY(fv_cuda_check(base, cudaMallocHost(out, bytes ? bytes : 1), "pinned memory"));
    memset(*out, 0, bytes ? bytes : 1);
    return FV_OK;
}

static void cuda_unpin(fv_device *base, void *ptr, size_t bytes) {
    (void)base, (void)bytes;
    cudaFreeHost(ptr);
}

static fv_status cuda_copy(fv_device *base, void *dst, const void *src, size_t bytes, fv_copy_kind kind) {
    fv_cuda_device *dev = (fv_cuda_device *)base;
    if (bytes == 0) return FV_OK;
    switch (kind) {
    case FV_COPY_TO_DEVICE: return fv_cuda_check(base, fv_cuda_stage(dev, dst, src, bytes), "copy to the GPU");
    case FV_COPY_ON_DEVICE:
        return fv_cuda_check(base, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToDevice, dev->stream),
                             "copy on the GPU");
    case FV_COPY_TO_HOST: break;
    }
    cudaError_t error = cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDeviceToHost, dev->stream);
    if (error == cudaSuccess) error = cudaStreamSynchronize(dev->stream);
    return fv_cuda_check(base, error, "copy from the GPU");
}

/* ---------------------------------------------------------------- open and close */

/* Which of the three is missing: a driver, one that is new enough, or a GPU. */
static fv_status find_gpus(fv_ctx *ctx, int *count) {
    int driver = 0, runtime = 0;
    cudaError_t error = cudaGetDeviceCount(count);
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    if (error == cudaSuccess && *count > 0) return FV_OK;
    if (driver == 0) {
        fv_fail(ctx, FV_E_MEMORY, "no NVIDIA driver: libcuda.so.1 cannot be opened");
        return fv_hint(ctx, "install the driver (this build needs CUDA %d.%d), or leave out '--device cuda'",
                       runtime / 1000, runtime % 1000 / 10);
    }
    if (error == cudaErrorInsufficientDriver) {
        fv_fail(ctx, FV_E_MEMORY, "the NVIDIA driver is too old: it knows CUDA %d.%d, and this build needs %d.%d",
                driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
        return fv_hint(ctx, "install a newer driver, or build with an older toolkit: make cuda NVCC=.../nvcc");
    }
    if (error == cudaSuccess || error == cudaErrorNoDevice) {
        fv_fail(ctx, FV_E_MEMORY, "there is no GPU: the NVIDIA driver is here, but it shows none");
        return fv_hint(ctx, "nvidia-smi lists them; CUDA_VISIBLE_DEVICES may hide them");
    }
    return fv_fail(ctx, FV_E_MEMORY, "the GPU cannot be used: %s (%s)", cudaGetErrorString(error),
                   cudaGetErrorName(error));
}

static fv_status choose_gpu(fv_cuda_device *dev, int index) {
    fv_device *base = &dev->base;
    struct cudaDeviceProp prop;
    int count = 0;
    FV_TRY(find_gpus(base->ctx, &count));
    if (index < 0 || index >= count)
        return fv_fail(base->ctx, FV_E_MEMORY, "there is no GPU %d: this machine has %d, counted from 0", index, count);
    FV_TRY(fv_cuda_check(base, cudaGetDeviceProperties(&prop, index), "cudaGetDeviceProperties"));
    if (10 * prop.major + prop.minor < OLDEST)
        return fv_fail(base->ctx, FV_E_MEMORY, "GPU %d (%.64s) is too old: it has compute capability %d.%d, not %d.%d",
                       index, prop.name, prop.major, prop.minor, OLDEST / 10, OLDEST % 10);
    FV_TRY(fv_cuda_check(base, cudaSetDevice(index), "cudaSetDevice"));
    dev->index = index;
    dev->major = prop.major;
    dev->minor = prop.minor;
    dev->multiprocessors = prop.multiProcessorCount;
    dev->shared_bytes = prop.sharedMemPerBlockOptin;
    dev->l2_bytes = (size_t)prop.l2CacheSize;
    dev->memory_bytes = prop.totalGlobalMem;
    snprintf(base->text, sizeof base->text, "cuda:%d %.80s", index, prop.name);
    return FV_OK;
}

static fv_status check_build(fv_cuda_device *dev) {
    cudaError_t error = fv_cuda_probe();
    if (error == cudaSuccess) return FV_OK;
    (void)cudaGetLastError();
    fv_fail(dev->base.ctx, FV_E_MEMORY, "%s: this build has no kernels for compute capability %d.%d: %s",
            dev->base.text, dev->major, dev->minor, cudaGetErrorString(error));
    return fv_hint(dev->base.ctx, "build for it: make cuda CUDA_ARCHS=%d%d", dev->major, dev->minor);
}

static void describe(fv_cuda_device *dev) {
    int driver = 0, runtime = 0;
    char libraries[64];
    (void)cudaDriverGetVersion(&driver);
    (void)cudaRuntimeGetVersion(&runtime);
    fv_cuda_libraries_text(dev->libraries, libraries, sizeof libraries);
    snprintf(dev->base.libraries, sizeof dev->base.libraries, "driver %d.%d, runtime %d.%d%s%s", driver / 1000,
             driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10, libraries[0] ? ", " : "", libraries);
    snprintf(dev->base.kernels, sizeof dev->base.kernels, "cuda sm_%d%d%s", dev->major, dev->minor,
             dev->fast ? " fast" : "");
}

static fv_status open_parts(fv_cuda_device *dev, const fv_device_opts *opts) {
    fv_device *base = &dev->base;
    FV_TRY(choose_gpu(dev, opts->index));
    FV_TRY(check_build(dev));
    dev->fast = opts->fast;
    dev->graphs = !opts->no_graphs;
    FV_TRY(fv_cuda_check(base, cudaStreamCreateWithFlags(&dev->stream, cudaStreamNonBlocking), "cudaStreamCreate"));
    FV_TRY(fv_cuda_check(base, cudaStreamCreateWithFlags(&dev->copies, cudaStreamNonBlocking), "cudaStreamCreate"));
    FV_TRY(fv_cuda_staging_create(dev));
    FV_TRY(fv_cuda_libraries_open(dev, opts->autotune, &dev->libraries));
    describe(dev);
    return FV_OK;
}

static void cuda_close(fv_device *base) {
    if (!base) return;
    fv_cuda_device *dev = (fv_cuda_device *)base;
    if (dev->stream) cudaStreamSynchronize(dev->stream);
    fv_cuda_libraries_close(dev->libraries);
    fv_cuda_staging_destroy(dev);
    if (dev->copies) cudaStreamDestroy(dev->copies);
    if (dev->stream) cudaStreamDestroy(dev->stream);
    fv_free(base->ctx, dev, 1, sizeof *dev);
}

static const fv_backend fv_backend_cuda;

static fv_status cuda_open(fv_ctx *ctx, const fv_device_opts *opts, fv_device **out) {
    static const fv_device_opts defaults = {0};
    *out = NULL;
    fv_cuda_device *dev = fv_calloc(ctx, 1, sizeof *dev);
    if (!dev) return ctx->error.code;
    dev->base = (fv_device){.backend = &fv_backend_cuda, .ctx = ctx};
    fv_status status = open_parts(dev, opts ? opts : &defaults);
    if (status != FV_OK) {
        cuda_close(&dev->base);
        return status;
    }
    *out = &dev->base;
    return FV_OK;
}

/* ---------------------------------------------------------------- what runs here */

/* A library's kernel, else our own. */
static bool cuda_supports(const fv_device *base, const fv_graph *g, const fv_node *node, char *why, size_t size) {
    const fv_cuda_device *dev = (const fv_cuda_device *)base;
    if (fv_cuda_library_find(dev, g, node)) return true;
    if (fv_cuda_kernels[node->op]) return fv_cuda_kernel_supports(dev, g, node, why, size);
    snprintf(why, size, "the cuda backend has no kernel for it");
    return false;
}

static size_t cuda_workspace(const fv_device *base, const fv_graph *g, const fv_node *node) {
    const fv_cuda_device *dev = (const fv_cuda_device *)base;
    const fv_cuda_library_plan *plan = fv_cuda_library_find(dev, g, node);
    return plan ? fv_cuda_library_workspace(plan) : fv_cuda_kernel_workspace(dev, g, node);
}

static const fv_backend fv_backend_cuda = {
    .name = "cuda",
    .open = cuda_open,
    .close = cuda_close,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .free_bytes = cuda_free_bytes,
    .pin = cuda_pin,
    .unpin = cuda_unpin,
    .copy = cuda_copy,
    .supports = cuda_supports,
    .rewrite = fv_cuda_rewrite,
    .workspace = cuda_workspace,
    .compile = fv_cuda_compile,
    .enqueue = fv_cuda_enqueue,
    .set_step = fv_cuda_set_step,
    .fetch = fv_cuda_fetch,
    .fetched = fv_cuda_fetched,
    .destroy = fv_cuda_destroy,
    .profile = fv_cuda_profile,
    .node_seconds = fv_cuda_node_seconds,
};

/* The one symbol that is visible outside (backend.h). */
const fv_backend *fv_backend_entry(uint64_t abi);
__attribute__((visibility("default"))) const fv_backend *fv_backend_entry(uint64_t abi) {
    return abi == fv_backend_abi() ? &fv_backend_cuda : NULL;
}
