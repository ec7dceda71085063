/* harness.h: what the tests share: deterministic numbers, a device with its context, and a graph compiled on it whose
 * inputs, outputs and state are read and written as doubles. Failures end the running test through Check. */
#ifndef FV_TESTS_HARNESS_H
#define FV_TESTS_HARNESS_H

#include "core/core.h"
#include <check.h>

#define FVT_U 5.9604644775390625e-08 /* unit roundoff of float32: 2^-24 */

/* ---- numbers: functions of (seed, index, stream) */
double fvt_normal(uint64_t seed, uint64_t index, uint32_t stream);
double fvt_uniform(uint64_t seed, uint64_t index, uint32_t stream); /* (0,1) */

/* ---- names: "in0", "out1" */
typedef struct fvt_name {
    char text[16];
} fvt_name;
const char *fvt_numbered(fvt_name *n, const char *stem, int i);

/* ---- time */
double fvt_cpu_seconds(void); /* of this process */
/* How much longer this machine takes, at this moment, than the one that limits in seconds are promised for (a Zen 5 at
 * 4 GHz); at least 1. Limits of a promise are multiplied by it. */
double fvt_slowness(void);

/* ---- memory that a test may forget about only by fvt_free */
void *fvt_alloc(int64_t count, size_t size); /* zeroed */
double *fvt_doubles(int64_t count);
void fvt_free(void *ptr);

/* ---- devices */
typedef struct fvt_device {
    fv_ctx ctx;
    fv_device *dev;
} fvt_device;

/* Folder of the backends that are loaded. */
const char *fvt_backends(void);
/* False when this machine lacks the instruction set `isa` (NULL: the best it has), or has no backend "cuda". */
bool fvt_open(fvt_device *d, const char *backend, int threads, const char *isa);
bool fvt_open_with(fvt_device *d, const char *backend, const fv_device_opts *opts);
void fvt_close(fvt_device *d);
/* A function of the emulated CUDA (tests/cuda/emulate) into a pointer to it; false, loudly, where there is none. */
bool fvt_emulated(const char *name, void *function);

/* ---- programs */
typedef struct fvt_program {
    fvt_device *device;
    fv_store *store;
    fv_program *program;
} fvt_program;

/* Takes the graph. With `f64` its floats become float64 first. Memory is filled with NaN, so that what a kernel leaves
 * unwritten shows. */
void fvt_compile(fvt_device *d, fv_graph *g, bool f64, fvt_program *out);
void fvt_destroy(fvt_program *p);
/* Give an input or a state its contents / read an output or a state, converted from and to double. */
void fvt_set(fvt_program *p, const char *name, const double *values);
void fvt_get(fvt_program *p, const char *name, double *values);
fv_type fvt_type(fvt_program *p, const char *name);
/* Run all segments with fvt_step. */
fv_status fvt_run(fvt_program *p);
extern const fv_step fvt_step;

#endif
