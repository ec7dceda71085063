/* thread.h: a pool of threads over fixed tiles. Work is cut into `tiles` that do not depend on the number of threads;
 * each tile writes its own outputs, partial sums are reduced in tile order. So results are the same for any thread
 * count.
 *
 *   fv_pool_run(pool, tiles, fn, arg)      fn(arg, tile, thread) for tile = 0..tiles-1, each exactly once, then return
 *
 * The calling thread works too (it is thread 0). Each thread takes a run of neighbouring tiles, in order, and then what
 * is left of the others'. Workers spin briefly, then sleep. */
#ifndef FV_CORE_THREAD_H
#define FV_CORE_THREAD_H

#include "core/status.h"

#define FV_MAX_THREADS 256

typedef struct fv_pool fv_pool;
typedef void (*fv_tile_fn)(void *arg, int64_t tile, int thread);

/* threads = 0: as many as the process may use. */
fv_status fv_pool_create(fv_ctx *ctx, int threads, fv_pool **out);
void fv_pool_destroy(fv_pool *pool);
int fv_pool_threads(const fv_pool *pool); /* 1 for NULL */
/* Run fn over the tiles; pool == NULL runs them in order on the caller. Not reentrant: do not call from inside a tile.
 */
void fv_pool_run(fv_pool *pool, int64_t tiles, fv_tile_fn fn, void *arg);
/* Processors this process may run on (affinity and cgroup quota respected), at least 1. */
int fv_cpu_count(void);

#endif
