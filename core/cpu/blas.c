/* blas.c: opening a BLAS library. See blas.h. */
#include "core/cpu/blas.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

/* A function's address by way of memory: ISO C has no conversion from object to function pointers. */
static bool find(void *library, const char *name, void *function) {
    void *address = dlsym(library, name);
    memcpy(function, &address, sizeof address);
    return address != NULL;
}

/* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." -> "OpenBLAS 0.3.21", and the kernels that it chose. */
static void describe(void *library, char *text, size_t size) {
    char *(*get_config)(void) = NULL;
    char *(*get_core)(void) = NULL;
    const char *config = find(library, "openblas_get_config", &get_config) ? get_config() : "BLAS";
    const char *core = find(library, "openblas_get_corename", &get_core) ? get_core() : "";
    size_t words = strcspn(config, " ");
    if (config[words]) words += 1 + strcspn(config + words + 1, " ");
    snprintf(text, size, "%.*s%s%s", (int)words, config, core[0] ? " " : "", core);
}

fv_status fv_blas_open(fv_cpu_device *dev, const char *path, char *text, size_t size) {
    static const char *const usual[] = {"libopenblas.so.0", "libopenblas.so"};
    fv_ctx *ctx = dev->base.ctx;
    text[0] = '\0';
    if (path && !path[0]) return FV_OK;

    void *library = path ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (path && !library) {
        const char *why = dlerror();
        return fv_fail(ctx, FV_E_USAGE, "BLAS library could not be opened: %s", why ? why : path);
    }
    for (size_t i = 0; !library && i < sizeof usual / sizeof usual[0]; i++)
        library = dlopen(usual[i], RTLD_NOW | RTLD_LOCAL);
    if (!library) return FV_OK;

    if (!find(library, "cblas_sgemm", &dev->sgemm)) {
        dlclose(library);
        return path ? fv_fail(ctx, FV_E_USAGE, "%s is not a BLAS library: it has no cblas_sgemm", path) : FV_OK;
    }
    dev->blas_handle = library;
    void (*set_threads)(int) = NULL;
    if (find(library, "openblas_set_num_threads", &set_threads)) set_threads(1);
    describe(library, text, size);
    return FV_OK;
}

void fv_blas_close(fv_cpu_device *dev) {
    dev->sgemm = NULL;
    if (dev->blas_handle) dlclose(dev->blas_handle);
    dev->blas_handle = NULL;
}
