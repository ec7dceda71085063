/* ceilings.c: what this machine can do at most, as the roofline of `fovea bench --profile`. Of several short tries the
 * best counts: what disturbs a measurement makes it slower, never faster. */
#include "core/cpu/cpu.h"

#include <string.h>
#include <time.h>

enum { TRIES = 8 };
#define COPY_BYTES ((size_t)64 << 20) /* each of two blocks: more than a last-level cache holds, as a rule */
#define COPY_TILES 64

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Operations per second of all threads, each in registers only. */
static double measure_flops(fv_cpu_device *dev) {
    fv_peak p = {.rounds = 1 << 14, .factor = 0.5f};
    int threads = fv_pool_threads(dev->pool);
    double best = 0, per_round = dev->isa->peak_flops() * threads;
    for (int i = 0; i < TRIES;) {
        double start = now();
        fv_pool_run(dev->pool, threads, dev->isa->peak_tile, &p);
        double seconds = now() - start;
        if (seconds < 0.01 && p.rounds < (int64_t)1 << 40) { /* too short to start all threads at once */
            p.rounds *= 2;
            continue;
        }
        double rate = per_round * (double)p.rounds / seconds;
        if (rate > best) best = rate;
        i++;
    }
    return best;
}

typedef struct copy {
    char *to;
    const char *from;
} copy;

static void copy_tile(void *arg, int64_t tile, int thread) {
    const copy *c = arg;
    size_t bytes = COPY_BYTES / COPY_TILES, at = (size_t)tile * bytes;
    (void)thread;
    memcpy(c->to + at, c->from + at, bytes);
}

/* Bytes read and written per second, from memory to memory. */
static fv_status measure_copy(fv_cpu_device *dev, double *out) {
    void *block;
    FV_TRY(fv_host_alloc(&dev->base, 2 * COPY_BYTES, &block));
    copy c = {block, (char *)block + COPY_BYTES};
    memset(block, 1, 2 * COPY_BYTES); /* pages that were never written all are the same one */
    double best = 0;
    for (int i = 0; i < TRIES; i++) {
        double start = now();
        fv_pool_run(dev->pool, COPY_TILES, copy_tile, &c);
        double rate = 2.0 * (double)COPY_BYTES / (now() - start);
        if (rate > best) best = rate;
    }
    fv_host_free(&dev->base, block, 2 * COPY_BYTES);
    *out = best;
    return FV_OK;
}

fv_status fv_cpu_ceilings(fv_device *base, fv_ceilings *out) {
    *out = (fv_ceilings){0};
    if (base->backend != &fv_backend_cpu) return FV_OK;
    fv_cpu_device *dev = (fv_cpu_device *)base;
    out->flops = measure_flops(dev);
    return measure_copy(dev, &out->bytes);
}
