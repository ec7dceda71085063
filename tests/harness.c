/* harness.c: see harness.h. */
#include "tests/harness.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

const fv_step fvt_step = {
    .seed = 7,
    .step = 3,
    .epoch = 1,
    .lr = {0.1, 0.03},
    .weight_decay = {0.01, 0},
    .ema_decay = 0.9,
    .lookahead_decay = 0.7,
    .lookahead = true,
    .loss_scale = 8,
};

/* ---------------------------------------------------------------- time */

double fvt_cpu_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Scattered counting, as in a hash table. A Zen 3 at 2.9 GHz takes 11 ms for it when nothing else runs; limits are
 * promised for a machine 1.7 times as fast. */
double fvt_slowness(void) {
    enum { CELLS = 1 << 18, STEPS = 1 << 21 };
    static uint32_t cell[CELLS];
    uint64_t x = 1;
    double start = fvt_cpu_seconds();
    for (int i = 0; i < STEPS; i++) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        x += ++cell[x % CELLS] & 1;
    }
    return fmax(1, (fvt_cpu_seconds() - start) / 0.0065);
}

/* ---------------------------------------------------------------- numbers */

double fvt_normal(uint64_t seed, uint64_t index, uint32_t stream) {
    const fv_philox words = fv_random(seed, index, 0, 0, stream);
    return fv_normal(words.v[0], words.v[1]);
}

double fvt_uniform(uint64_t seed, uint64_t index, uint32_t stream) {
    return fv_uniform_f64(fv_random(seed, index, 1, 0, stream).v[0]);
}

const char *fvt_numbered(fvt_name *n, const char *stem, int i) {
    snprintf(n->text, sizeof n->text, "%s%d", stem, i);
    return n->text;
}

void *fvt_alloc(int64_t count, size_t size) {
    void *ptr = calloc(count > 0 ? (size_t)count : 1, size);
    ck_assert_msg(ptr != NULL, "out of memory");
    return ptr;
}

double *fvt_doubles(int64_t count) {
    return fvt_alloc(count, sizeof(double));
}
void fvt_free(void *ptr) {
    free(ptr);
}

/* ---------------------------------------------------------------- devices */

/* $FOVEA_BACKENDS, else "emulated" beside this program: the CUDA backend on the host, where it was built. */
const char *fvt_backends(void) {
    static char folder[4096];
    const char *given = getenv("FOVEA_BACKENDS");
    if (given && given[0]) return given;
    const ssize_t n = readlink("/proc/self/exe", folder, sizeof folder - 16);
    folder[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(folder, '/');
    strcpy(slash ? slash : folder, "/emulated");
    return folder;
}

bool fvt_open_with(fvt_device *d, const char *backend, const fv_device_opts *opts) {
    fv_ctx_init(&d->ctx);
    const fv_backend *b;
    if (fv_backend_load(&d->ctx, backend, fvt_backends(), &b) != FV_OK) {
        ck_assert_msg(!strcmp(backend, "cuda") && strstr(d->ctx.error.message, "there is no libfovea-cuda.so"),
                      "%s: %s", backend, d->ctx.error.message);
        printf("SKIPPED: device cuda: neither $FOVEA_BACKENDS nor 'make emulated' provides it\n");
        return false;
    }
    const fv_status status = b->open(&d->ctx, opts, &d->dev);
    ck_assert_msg(status == FV_OK || opts->isa, "%s: %s", backend, d->ctx.error.message);
    return status == FV_OK;
}

bool fvt_open(fvt_device *d, const char *backend, int threads, const char *isa) {
    return fvt_open_with(d, backend, &(fv_device_opts){.threads = threads, .isa = isa});
}

void fvt_close(fvt_device *d) {
    d->dev->backend->close(d->dev);
}

bool fvt_emulated(const char *name, void *function) {
    char path[4200];
    snprintf(path, sizeof path, "%s/libfovea-cuda.so", fvt_backends());
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *symbol = library ? dlsym(library, name) : NULL;
    memcpy(function, &symbol, sizeof symbol);
    if (!symbol) printf("SKIPPED: %s: there is no emulation of CUDA (make emulated; g++)\n", name);
    return symbol != NULL;
}

/* ---------------------------------------------------------------- programs */

#define FVT_OK(p, expr) ck_assert_msg((expr) == FV_OK, "%s", (p)->device->ctx.error.message)

static void poison(fvt_device *d, void *memory, size_t bytes) {
    if (!memory) return;
    void *nans = fvt_alloc((int64_t)bytes, 1);
    memset(nans, 0xff, bytes);
    ck_assert_int_eq(d->dev->backend->copy(d->dev, memory, nans, bytes, FV_COPY_TO_DEVICE), FV_OK);
    fvt_free(nans);
}

void fvt_compile(fvt_device *d, fv_graph *g, bool f64, fvt_program *out) {
    *out = (fvt_program){.device = d};
    FVT_OK(out, fv_graph_finish(g));
    FVT_OK(out, fv_graph_verify(g));
    if (f64) fv_graph_cast_floats(g, FV_F64);
    FVT_OK(out, fv_store_create(&d->ctx, d->dev, &out->store));
    FVT_OK(out, fv_store_bind(out->store, g));
    FVT_OK(out, fv_store_commit(out->store, fvt_step.seed));
    FVT_OK(out, fv_compile(&d->ctx, g, out->store, d->dev, NULL, &out->program));
    const fv_plan *plan = fv_program_plan(out->program);
    poison(d, plan->arena, plan->arena_bytes);
}

void fvt_destroy(fvt_program *p) {
    fv_program_destroy(p->program);
    fv_store_destroy(p->store);
}

static const fv_graph *graph_of(const fvt_program *p) {
    return fv_program_plan(p->program)->graph;
}

/* Slot of a state by name, or -1. */
static int32_t state_of(const fvt_program *p, const char *name) {
    return fv_find_output(graph_of(p), name).id ? -1 : fv_store_find(p->store, name);
}

fv_type fvt_type(fvt_program *p, const char *name) {
    const fv_value output = fv_find_output(graph_of(p), name);
    return fv_typeof(graph_of(p), output.id ? output : fv_find_value(graph_of(p), name));
}

static void from_doubles(fv_dtype dtype, void *to, const double *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) switch (dtype) {
        case FV_F32: ((float *)to)[i] = (float)from[i]; break;
        case FV_F64: ((double *)to)[i] = from[i]; break;
        case FV_BF16:
        case FV_F16: ((uint16_t *)to)[i] = fv_low_round_double(dtype, from[i]); break;
        case FV_I64: ((int64_t *)to)[i] = (int64_t)from[i]; break;
        case FV_I32: ((int32_t *)to)[i] = (int32_t)from[i]; break;
        case FV_U8: ((uint8_t *)to)[i] = (uint8_t)from[i]; break;
        default: ck_abort_msg("no conversion to %s", fv_dtype_name(dtype));
        }
}

static void to_doubles(fv_dtype dtype, double *to, const void *from, int64_t n) {
    for (int64_t i = 0; i < n; i++) switch (dtype) {
        case FV_F32: to[i] = ((const float *)from)[i]; break;
        case FV_F64: to[i] = ((const double *)from)[i]; break;
        case FV_BF16:
        case FV_F16: to[i] = (double)fv_low_value(dtype, ((const uint16_t *)from)[i]); break;
        case FV_I64: to[i] = (double)((const int64_t *)from)[i]; break;
        case FV_I32: to[i] = ((const int32_t *)from)[i]; break;
        case FV_U8: to[i] = ((const uint8_t *)from)[i]; break;
        default: ck_abort_msg("no conversion from %s", fv_dtype_name(dtype));
        }
}

void fvt_set(fvt_program *p, const char *name, const double *values) {
    const fv_type type = fvt_type(p, name);
    const int64_t count = fv_count(type);
    void *raw = fvt_alloc(count, fv_dtype_size(type.dtype));
    const int32_t slot = state_of(p, name);
    from_doubles(type.dtype, raw, values, count);
    if (slot >= 0) FVT_OK(p, fv_store_write(p->store, slot, raw, fv_bytes(type)));
    else FVT_OK(p, fv_program_input(p->program, name, raw, fv_bytes(type)));
    fvt_free(raw);
}

void fvt_get(fvt_program *p, const char *name, double *values) {
    const fv_type type = fvt_type(p, name);
    const int64_t count = fv_count(type);
    void *raw = fvt_alloc(count, fv_dtype_size(type.dtype));
    const int32_t slot = state_of(p, name);
    if (slot >= 0) FVT_OK(p, fv_store_read(p->store, slot, raw, fv_bytes(type)));
    else FVT_OK(p, fv_program_output(p->program, name, raw, fv_bytes(type)));
    to_doubles(type.dtype, values, raw, count);
    fvt_free(raw);
}

fv_status fvt_run(fvt_program *p) {
    return fv_program_run(p->program, &fvt_step, FV_ALL_SEGMENTS);
}
