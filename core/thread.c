/* thread.c: the pool. One atomic word, the gate, says whether a job is open and how many workers are inside it.
 *
 *   gate   [ generation: 23 bits | open: 1 | workers inside: 8 ]
 *
 *   caller: write job, open the gate, wake sleepers, work, close the gate, wait until nobody is inside
 *   worker: wait for an open gate of a generation it has not served, step inside (compare-and-swap), work, step out
 *
 * The caller waits only for workers that stepped inside: one that wakes too late finds the gate closed and costs
 * nothing. A worker never misses a job that matters, because the caller works until no tile is left. */
#include "core/thread.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INSIDE_MASK 0xFFu
#define OPEN 0x100u
#define GENERATION 0x200u

#define SPIN_NS 50000 /* longer than the gap between two kernels, shorter than a time slice */

_Static_assert(FV_MAX_THREADS - 1 <= INSIDE_MASK, "workers must fit in the gate");

typedef struct worker {
    pthread_t handle;
    fv_pool *pool;
    int thread;
} worker;

/* Tiles of a job that a thread takes first, one after the other; then it helps with those of the others. So the same
 * part of every value passes through the caches of the same core from kernel to kernel. */
typedef struct share {
    alignas(64) _Atomic int64_t next;
    int64_t end;
} share;

struct fv_pool {
    fv_ctx ctx; /* copy: the allocator */
    int threads, started;
    worker *workers;

    fv_tile_fn fn; /* the job; written while the gate is closed and nobody is inside */
    void *arg;
    share *shares; /* [threads] */

    alignas(64) atomic_uint gate;
    alignas(64) atomic_int sleepers; /* workers asleep, or about to be */
    atomic_bool caller_asleep;
    atomic_bool stop;
    pthread_mutex_t lock; /* guards only going to sleep and waking */
    pthread_cond_t wake, left;
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb" ::: "memory");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void work(fv_pool *pool, int thread) {
    fv_tile_fn fn = pool->fn;
    void *arg = pool->arg;
    for (int i = 0; i < pool->threads; i++) {
        share *s = &pool->shares[(thread + i) % pool->threads];
        while (atomic_load_explicit(&s->next, memory_order_relaxed) < s->end) {
            const int64_t tile = atomic_fetch_add_explicit(&s->next, 1, memory_order_relaxed);
            if (tile < s->end) fn(arg, tile, thread);
        }
    }
}

/* ---------------------------------------------------------------- worker */

static bool is_new(unsigned gate, unsigned served) {
    return (gate & OPEN) && (gate & ~INSIDE_MASK) != served;
}

/* True when there is a job to step into or the pool ends; false when the time is up. */
static bool spin_for_job(fv_pool *pool, unsigned served) {
    int64_t end = now_ns() + SPIN_NS;
    do {
        for (int i = 0; i < 32; i++) {
            if (is_new(atomic_load_explicit(&pool->gate, memory_order_acquire), served)) return true;
            if (atomic_load_explicit(&pool->stop, memory_order_relaxed)) return true;
            relax();
        }
    } while (now_ns() < end);
    return false;
}

/* The gate is read after `sleepers` is raised, the caller reads `sleepers` after it opened the gate (both sequentially
 * consistent), so that at least one of them sees the other. */
static void sleep_for_job(fv_pool *pool, unsigned served) {
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add(&pool->sleepers, 1);
    while (!is_new(atomic_load(&pool->gate), served) && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->wake, &pool->lock);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->lock);
}

static bool step_in(fv_pool *pool, unsigned *served) {
    unsigned gate = atomic_load(&pool->gate);
    while (is_new(gate, *served)) {
        if (atomic_compare_exchange_weak(&pool->gate, &gate, gate + 1)) {
            *served = gate & ~INSIDE_MASK;
            return true;
        }
    }
    return false;
}

static void step_out(fv_pool *pool) {
    unsigned gate = atomic_fetch_sub(&pool->gate, 1) - 1;
    if ((gate & OPEN) || (gate & INSIDE_MASK) || !atomic_load(&pool->caller_asleep)) return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_signal(&pool->left);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg) {
    worker *self = arg;
    fv_pool *pool = self->pool;
    unsigned served = 0;
    while (!atomic_load_explicit(&pool->stop, memory_order_relaxed)) {
        if (!spin_for_job(pool, served)) sleep_for_job(pool, served);
        if (!step_in(pool, &served)) continue;
        work(pool, self->thread);
        step_out(pool);
    }
    return NULL;
}

/* ---------------------------------------------------------------- caller */

static void wake_workers(fv_pool *pool, int64_t wanted) {
    int asleep = atomic_load(&pool->sleepers);
    if (asleep == 0) return;
    pthread_mutex_lock(&pool->lock);
    if (wanted >= asleep) pthread_cond_broadcast(&pool->wake);
    else
        for (int64_t i = 0; i < wanted; i++) pthread_cond_signal(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static bool somebody_inside(fv_pool *pool) {
    return atomic_load(&pool->gate) & INSIDE_MASK;
}

static void wait_for_workers(fv_pool *pool) {
    int64_t end = 0;
    for (int i = 0; somebody_inside(pool); i++) {
        relax();
        if (i % 32 != 31) continue;
        int64_t now = now_ns();
        if (!end) end = now + SPIN_NS;
        else if (now > end) break;
    }
    if (!somebody_inside(pool)) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->caller_asleep, true);
    while (somebody_inside(pool)) pthread_cond_wait(&pool->left, &pool->lock);
    atomic_store(&pool->caller_asleep, false);
    pthread_mutex_unlock(&pool->lock);
}

void fv_pool_run(fv_pool *pool, int64_t tiles, fv_tile_fn fn, void *arg) {
    if (!pool || pool->threads == 1 || tiles <= 1) {
        for (int64_t tile = 0; tile < tiles; tile++) fn(arg, tile, 0);
        return;
    }
    pool->fn = fn;
    pool->arg = arg;
    for (int i = 0; i < pool->threads; i++) {
        share *s = &pool->shares[i];
        atomic_store_explicit(&s->next, tiles * i / pool->threads, memory_order_relaxed);
        s->end = tiles * (i + 1) / pool->threads;
    }
    atomic_fetch_add(&pool->gate, GENERATION + OPEN); /* publishes the job; the generation wraps harmlessly */
    wake_workers(pool, tiles - 1);
    work(pool, 0);
    atomic_fetch_and(&pool->gate, ~OPEN);
    wait_for_workers(pool);
}

int fv_pool_threads(const fv_pool *pool) {
    return pool ? pool->threads : 1;
}

/* ---------------------------------------------------------------- life and death */

/* Signals are for the program's own threads: workers block them all. */
static int start_workers(fv_pool *pool) {
    sigset_t all, old;
    sigfillset(&all);
    int error = pthread_sigmask(SIG_SETMASK, &all, &old);
    if (error) return error;
    for (int i = 1; i < pool->threads && !error; i++) {
        worker *w = &pool->workers[i - 1];
        *w = (worker){.pool = pool, .thread = i};
        error = pthread_create(&w->handle, NULL, worker_main, w);
        if (!error) pool->started++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return error;
}

fv_status fv_pool_create(fv_ctx *ctx, int threads, fv_pool **out) {
    *out = NULL;
    if (threads < 0 || threads > FV_MAX_THREADS)
        return fv_fail(ctx, FV_E_USAGE, "%d threads: the number must be between 0 and %d", threads, FV_MAX_THREADS);
    if (threads == 0) threads = fv_cpu_count();
    if (threads > FV_MAX_THREADS) threads = FV_MAX_THREADS;

    fv_pool *pool = fv_calloc(ctx, 1, sizeof *pool);
    if (!pool) return ctx->error.code;
    pool->ctx = *ctx;
    pool->threads = threads;
    atomic_init(&pool->gate, 0);
    atomic_init(&pool->sleepers, 0);
    atomic_init(&pool->caller_asleep, false);
    atomic_init(&pool->stop, false);
    pthread_mutex_init(&pool->lock, NULL); /* on Linux these three cannot fail with default attributes */
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->left, NULL);
    pool->workers = fv_calloc(ctx, (size_t)threads, sizeof *pool->workers);
    pool->shares = pool->workers ? fv_calloc(ctx, (size_t)threads, sizeof *pool->shares) : NULL;
    if (!pool->shares) {
        fv_pool_destroy(pool);
        return ctx->error.code;
    }
    int error = start_workers(pool);
    if (error) {
        fv_fail(ctx, FV_E_MEMORY, "thread %d of %d could not be started: %s", pool->started + 1, threads,
                strerror(error));
        fv_pool_destroy(pool);
        return fv_hint(ctx, "use fewer threads, or raise the limit on processes (ulimit -u)");
    }
    *out = pool;
    return FV_OK;
}

void fv_pool_destroy(fv_pool *pool) {
    if (!pool) return;
    pthread_mutex_lock(&pool->lock);
    atomic_store(&pool->stop, true);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->started; i++) pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_cond_destroy(&pool->left);
    pthread_mutex_destroy(&pool->lock);
    fv_ctx ctx = pool->ctx;
    fv_free(&ctx, pool->shares, (size_t)pool->threads, sizeof *pool->shares);
    fv_free(&ctx, pool->workers, (size_t)pool->threads, sizeof *pool->workers);
    fv_free(&ctx, pool, 1, sizeof *pool);
}

/* ---------------------------------------------------------------- processors */

static int affinity_count(void) {
    for (int size = 1024; size <= 1 << 20; size *= 2) { /* machines with more than 1024 processors need a larger set */
        cpu_set_t *set = CPU_ALLOC(size);
        if (!set) return 1;
        size_t bytes = CPU_ALLOC_SIZE(size);
        int failed = sched_getaffinity(0, bytes, set), error = errno;
        int count = failed ? 0 : CPU_COUNT_S(bytes, set);
        CPU_FREE(set);
        if (count > 0) return count;
        if (error != EINVAL) break;
    }
    return 1;
}

/* Quota of one cgroup in processors, rounded up; 0: none. Its cpu.max holds "quota period" or "max period". */
static long quota_of(const char *group) {
    char path[4200];
    if (snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", group) >= (int)sizeof path) return 0;
    FILE *file = fopen(path, "re");
    if (!file) return 0;
    char line[64] = "", *end = line;
    bool read = fgets(line, sizeof line, file) != NULL;
    fclose(file);
    long quota = read ? strtol(line, &end, 10) : 0, period = strtol(end, NULL, 10);
    return quota > 0 && period > 0 ? (quota - 1) / period + 1 : 0;
}

/* The tightest quota of the process's cgroup (version 2) and its ancestors; 0: none. */
static long cgroup_quota(void) {
    char line[4096], group[4096] = "";
    FILE *file = fopen("/proc/self/cgroup", "re");
    if (!file) return 0;
    while (fgets(line, sizeof line, file))
        if (strncmp(line, "0::", 3) == 0) snprintf(group, sizeof group, "%.*s", (int)strcspn(line + 3, "\n"), line + 3);
    fclose(file);
    if (group[0] != '/') return 0;
    long least = 0;
    for (;;) {
        long quota = quota_of(group);
        if (quota && (!least || quota < least)) least = quota;
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = '\0';
    }
}

int fv_cpu_count(void) {
    int count = affinity_count();
    long quota = cgroup_quota();
    return quota && quota < count ? (int)quota : count;
}
