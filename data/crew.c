/* crew.c: threads that go over the files of a set once. They claim files in order, so when file i fails all before it
 * have been claimed and will be done: the failure with the lowest number is the same for any number of threads. */
#include "data/cache.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MOST_MEMBERS 256
#define PROGRESS_NS 100000000L /* between two reports */

struct fv_crew {
    fv_ctx *ctx;
    const fv_dataset_opts *opts;
    fv_crew_member *member; /* [members] */
    int members;
    pthread_mutex_t lock;
    pthread_cond_t left; /* a thread has ended */
    bool lock_made, left_made;
    /* of the run in progress; guarded by the lock */
    fv_crew_fn fn;
    void *arg;
    int64_t next, last, done, failed; /* failed: the lowest that did; INT64_MAX: none */
    int working;
    fv_error error;
};

static void *work(void *arg) {
    fv_crew_member *m = arg;
    fv_crew *crew = m->crew;
    pthread_mutex_lock(&crew->lock);
    while (crew->next < crew->last && crew->failed == INT64_MAX) {
        int64_t i = crew->next++;
        pthread_mutex_unlock(&crew->lock);
        fv_status status = crew->fn(crew->arg, m, i);
        pthread_mutex_lock(&crew->lock);
        crew->done++;
        if (status != FV_OK && i < crew->failed) {
            crew->failed = i;
            crew->error = m->ctx.error;
        }
    }
    crew->working--;
    pthread_cond_signal(&crew->left);
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static struct timespec later(long ns) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_nsec += ns;
    t.tv_sec += t.tv_nsec / 1000000000L;
    t.tv_nsec %= 1000000000L;
    return t;
}

/* Until all threads have ended. */
static void watch(fv_crew *crew, int64_t first, const char *what, int64_t total) {
    pthread_mutex_lock(&crew->lock);
    while (crew->working > 0) {
        struct timespec until = later(PROGRESS_NS);
        while (crew->working > 0 && pthread_cond_timedwait(&crew->left, &crew->lock, &until) != ETIMEDOUT) {}
        int64_t done = first + crew->done;
        pthread_mutex_unlock(&crew->lock);
        if (crew->opts->progress) crew->opts->progress(crew->opts->progress_user, what, done, total);
        pthread_mutex_lock(&crew->lock);
    }
    pthread_mutex_unlock(&crew->lock);
}

fv_status fv_crew_run(fv_crew *crew, int64_t first, int64_t last, fv_crew_fn fn, void *arg, const char *what,
                      int64_t total) {
    pthread_t thread[MOST_MEMBERS];
    crew->fn = fn;
    crew->arg = arg;
    crew->next = first;
    crew->last = last;
    crew->done = 0;
    crew->failed = INT64_MAX;
    int threads = 0, refused = 0;
    sigset_t all, before; /* signals are for the threads of the program */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (threads < crew->members && !refused) {
        pthread_mutex_lock(&crew->lock);
        crew->working++;
        pthread_mutex_unlock(&crew->lock);
        refused = pthread_create(&thread[threads], NULL, work, &crew->member[threads]);
        if (!refused) threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (refused) { /* fewer will do */
        pthread_mutex_lock(&crew->lock);
        crew->working--;
        pthread_mutex_unlock(&crew->lock);
    }
    if (threads == 0)
        return fv_fail(crew->ctx, FV_E_MEMORY, "cannot start a thread to read pictures: %s", strerror(refused));
    watch(crew, first, what, total);
    for (int i = 0; i < threads; i++) pthread_join(thread[i], NULL);
    if (crew->failed == INT64_MAX) return FV_OK;
    crew->ctx->error = crew->error;
    return crew->error.code;
}

fv_decoder *fv_crew_decoder(fv_crew *crew) {
    return crew->member[0].decoder;
}

static fv_status make_lock(fv_crew *crew) {
    pthread_condattr_t attributes;
    crew->lock_made = pthread_mutex_init(&crew->lock, NULL) == 0;
    if (pthread_condattr_init(&attributes) == 0) {
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        crew->left_made = pthread_cond_init(&crew->left, &attributes) == 0;
        pthread_condattr_destroy(&attributes);
    }
    if (crew->lock_made && crew->left_made) return FV_OK;
    return fv_fail(crew->ctx, FV_E_MEMORY, "cannot create a lock for the threads that read pictures");
}

static fv_status enlist(fv_crew *crew, int members) {
    crew->member = fv_calloc(crew->ctx, (size_t)members, sizeof *crew->member);
    if (!crew->member) return FV_E_MEMORY;
    crew->members = members;
    for (int i = 0; i < members; i++) {
        fv_crew_member *m = &crew->member[i];
        m->ctx = *crew->ctx;
        m->ctx.log = NULL;
        m->crew = crew;
        fv_status status = fv_decoder_create(&m->ctx, &m->decoder);
        if (status != FV_OK) {
            crew->ctx->error = m->ctx.error;
            return status;
        }
    }
    return make_lock(crew);
}

fv_status fv_crew_create(fv_ctx *ctx, const fv_dataset_opts *opts, fv_crew **out) {
    int members = opts->workers < 1 ? 1 : opts->workers < MOST_MEMBERS ? opts->workers : MOST_MEMBERS;
    fv_crew *crew = *out = fv_calloc(ctx, 1, sizeof *crew);
    if (!crew) return FV_E_MEMORY;
    crew->ctx = ctx;
    crew->opts = opts;
    fv_status status = enlist(crew, members);
    if (status == FV_OK) return FV_OK;
    fv_crew_destroy(crew);
    *out = NULL;
    return status;
}

void fv_crew_destroy(fv_crew *crew) {
    if (!crew) return;
    for (int i = 0; i < crew->members; i++) fv_decoder_destroy(crew->member[i].decoder);
    fv_free(crew->ctx, crew->member, (size_t)crew->members, sizeof *crew->member);
    if (crew->left_made) pthread_cond_destroy(&crew->left);
    if (crew->lock_made) pthread_mutex_destroy(&crew->lock);
    fv_free(crew->ctx, crew, 1, sizeof *crew);
}
