#include "tools/train/saver.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct fv_saver {
    fv_session *s;
    fv_run_folder *run;
    fv_ctx ctx; /* of the thread: memory, files, its own error */
    fv_arena arena;
    fv_device *host;
    fv_store *copy;
    char *args; /* args.yaml */
    char fingerprint[24], split[24];

    uint32_t what; /* of the job */
    fv_progress progress;
    char *results;
    size_t results_bytes;

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool busy, quit;  /* guarded by the lock */
    fv_status status; /* of the last job; likewise, as is ctx.error when nothing is busy */
};

/* ---------------------------------------------------------------- a job */

static fv_status save_state(fv_saver *v) {
    char last[512], prev[512];
    const fv_session *s = v->s;
    fv_progress_text text;
    const char *meta[FV_PROGRESS_COUNT + 16][2];
    int n = 0;
    fv_progress_write(&v->progress, &text);
    const char *const fixed[][2] = {{"format", "fovea training state 1"},
                                    {"writer", "fovea " FV_VERSION},
                                    {"architecture", s->net.model->name},
                                    {"dataset", s->train->name},
                                    {"fingerprint", v->fingerprint},
                                    {"split", v->split},
                                    {"kernels", s->device->kernels},
                                    {"seed", fv_cli_text(s->cli, OPT_SEED)},
                                    {"args", v->args}};
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++, n++) meta[n][0] = fixed[i][0], meta[n][1] = fixed[i][1];
    for (int i = 0; i < FV_PROGRESS_COUNT; i++, n++) meta[n][0] = text.key[i], meta[n][1] = text.value[i];
    FV_TRY(fv_run_path(v->run, &v->ctx, "state/last.safetensors", last));
    FV_TRY(fv_run_path(v->run, &v->ctx, "state/prev.safetensors", prev));
    return fv_state_save(&v->ctx, v->copy, last, prev, (const char *const(*)[2])meta, n);
}

static fv_status save_weights(fv_saver *v, const char *which, bool ema) {
    int64_t epoch = v->progress.epoch + (v->progress.steps_done > 0);
    return fv_run_save(v->run, &v->ctx, v->s, v->copy, which, ema, epoch, v->progress.step);
}

static fv_status write_results(fv_saver *v) {
    char path[512];
    FV_TRY(fv_run_path(v->run, &v->ctx, "results.csv", path));
    return fv_write_file(&v->ctx, path, v->results, v->results_bytes);
}

static fv_status do_job(fv_saver *v) {
    bool ema = v->s->net.optim.ema;
    if (v->what & FV_SAVE_BEST) FV_TRY(save_weights(v, "best", ema));
    if ((v->what & FV_SAVE_EMA) && ema) FV_TRY(save_weights(v, "ema", true));
    if (v->what & FV_SAVE_LAST) FV_TRY(save_weights(v, "last", false));
    if (v->what & FV_SAVE_RESULTS) FV_TRY(write_results(v));
    return v->what & FV_SAVE_STATE ? save_state(v) : FV_OK;
}

static void *work(void *arg) {
    fv_saver *v = arg;
    pthread_mutex_lock(&v->lock);
    for (;;) {
        while (!v->busy && !v->quit) pthread_cond_wait(&v->changed, &v->lock);
        if (!v->busy) break;
        pthread_mutex_unlock(&v->lock);
        fv_status status = do_job(v);
        pthread_mutex_lock(&v->lock);
        v->status = status;
        v->busy = false;
        pthread_cond_broadcast(&v->changed);
    }
    pthread_mutex_unlock(&v->lock);
    return NULL;
}

/* ---------------------------------------------------------------- from the training thread */

bool fv_saver_busy(fv_saver *v) {
    pthread_mutex_lock(&v->lock);
    bool busy = v->busy;
    pthread_mutex_unlock(&v->lock);
    return busy;
}

fv_status fv_saver_wait(fv_saver *v) {
    pthread_mutex_lock(&v->lock);
    while (v->busy) pthread_cond_wait(&v->changed, &v->lock);
    fv_status status = v->status;
    pthread_mutex_unlock(&v->lock);
    if (status == FV_OK) return FV_OK;
    v->s->ctx->error = v->ctx.error;
    if (status == FV_E_IO && !v->s->ctx->error.hint[0])
        fv_hint(v->s->ctx, "what was saved before is as it was; make room, then 'fovea train --resume %s'",
                v->run->path);
    return status;
}

fv_status fv_saver_submit(fv_saver *v, uint32_t what, const fv_progress *progress) {
    FV_TRY(fv_saver_wait(v));
    if (what & ~(uint32_t)FV_SAVE_RESULTS) FV_TRY(fv_store_copy(v->copy, v->s->store));
    if (what & FV_SAVE_RESULTS) {
        free(v->results);
        v->results_bytes = v->run->results.bytes;
        v->results = malloc(v->results_bytes + 1);
        if (!v->results) return fv_fail_memory(v->s->ctx, v->results_bytes + 1, "results.csv");
        memcpy(v->results, v->run->results.text, v->results_bytes);
    }
    v->progress = *progress;
    v->what = what;
    pthread_mutex_lock(&v->lock);
    v->busy = true;
    pthread_cond_broadcast(&v->changed);
    pthread_mutex_unlock(&v->lock);
    return FV_OK;
}

static fv_status describe(fv_saver *v) {
    fv_session *s = v->s;
    size_t bytes = 0;
    snprintf(v->fingerprint, sizeof v->fingerprint, "%016llx", (unsigned long long)s->train->fingerprint);
    snprintf(v->split, sizeof v->split, "%016llx", (unsigned long long)fv_session_split_hash(s));
    return fv_cli_write_yaml(s->cli, &v->args, &bytes);
}

/* Signals are for the thread that trains. */
static fv_status start(fv_saver *v) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&v->thread, NULL, work, v);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    v->started = !failed;
    if (failed) return fv_fail(v->s->ctx, FV_E_MEMORY, "cannot start the thread that saves: %s", strerror(failed));
    return FV_OK;
}

fv_status fv_saver_create(fv_session *s, fv_run_folder *run, fv_saver **out) {
    char path[512];
    *out = NULL;
    FV_TRY(fv_run_path(run, s->ctx, "state", path));
    FV_TRY(fv_make_folders(s->ctx, path));
    fv_saver *v = fv_calloc(s->ctx, 1, sizeof *v);
    if (!v) return s->ctx->error.code;
    v->s = s;
    v->run = run;
    v->ctx = *s->ctx;
    v->ctx.log = NULL; /* the console belongs to the training thread */
    pthread_mutex_init(&v->lock, NULL);
    pthread_cond_init(&v->changed, NULL);
    *out = v;
    FV_TRY(describe(v));
    fv_status status = fv_backend_find("ref")->open(&v->ctx, NULL, &v->host);
    if (status == FV_OK) status = fv_store_clone(&v->ctx, s->store, v->host, &v->copy);
    if (status != FV_OK) {
        s->ctx->error = v->ctx.error;
        return status;
    }
    return start(v);
}

void fv_saver_destroy(fv_saver *v) {
    if (!v) return;
    if (v->started) {
        pthread_mutex_lock(&v->lock);
        v->quit = true;
        pthread_cond_broadcast(&v->changed);
        pthread_mutex_unlock(&v->lock);
        pthread_join(v->thread, NULL);
    }
    fv_store_destroy(v->copy);
    if (v->host) v->host->backend->close(v->host);
    pthread_cond_destroy(&v->changed);
    pthread_mutex_destroy(&v->lock);
    free(v->results);
    free(v->args);
    fv_free(v->s->ctx, v, 1, sizeof *v);
}
