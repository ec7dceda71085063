/* tune.h: which of several ways to compute a problem is the fastest on this GPU: measured once, and kept in a file, so
 * that later runs take the same way without measuring, and end with the same bits. Knows nothing of CUDA: how long a
 * candidate takes is the caller's business.
 *
 *   file      a line per problem: MACHINE \t PROBLEM \t candidate \t microseconds \n; the last one for a problem counts
 *   MACHINE   the GPU and the versions of the libraries; a line with another one is somebody else's */
#ifndef FV_CUDA_TUNE_H
#define FV_CUDA_TUNE_H

#include "core/core.h"

typedef struct fv_tuner fv_tuner;

/* Results that are kept are read from `path`, which need not be there; a line that is none is passed over. Fails only
 * for want of memory. Close with fv_tuner_close. */
fv_status fv_tuner_open(fv_ctx *ctx, const char *path, const char *machine, fv_tuner **out);
void fv_tuner_close(fv_tuner *t); /* NULL is fine */

/* The candidate that was the fastest for the problem; false if it was not measured. Names are the caller's numbers. */
bool fv_tuner_kept(const fv_tuner *t, const char *problem, uint64_t *name);

/* Seconds of candidate i; negative: it cannot run. */
typedef double (*fv_tuner_measure)(void *arg, int i);
/* Measure n candidates and keep the name of the fastest; the earlier one where two are within 2 %, for the order is
 * that of the library's heuristics. Returns its index, -1 if none can run. A file that cannot be written is a warning:
 * the choice stands for this process. */
int fv_tuner_choose(fv_tuner *t, const char *problem, int n, const uint64_t *names, fv_tuner_measure measure,
                    void *arg);

#endif
