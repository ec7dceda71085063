/* loader.c: batches, made ahead by worker threads in a ring of slots.
 *
 *   batch:   released ......... next_take ............. next_fill ......... last
 *            held by the caller │ ready or being filled │ still to be claimed
 *
 * Batch b lives in slot b % slots. A worker claims next_fill as soon as that slot is free (b < released + slots) and
 * fills it outside the lock; which worker does it changes nothing, for a batch is a pure function of (seed, epoch, b).
 */
#include "data/internal.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MOST_WORKERS 256
#define MOST_PREFETCH 4096

typedef struct slot {
    int64_t ready; /* number of the batch that lies in it; -1: none. Guarded by the lock */
    int64_t valid;
    uint8_t *images;
    float *record, *row_weight;
    int32_t *labels;
    int64_t *row_key, *index;
} slot;

struct fv_loader {
    fv_ctx *ctx;
    fv_arena arena;
    const fv_dataset *d;
    const int64_t *index; /* NULL: all */
    int64_t n, batches;
    fv_loader_cfg cfg;
    fv_augment_cfg augment;
    bool augmented;
    int32_t *labels; /* [n], by place in the view; NULL: the dataset's own */
    int64_t *order;  /* [n], training: this epoch's permutation of the view */
    size_t picture, images_bytes;
    double waited;

    pthread_mutex_t lock;
    pthread_cond_t work, done; /* a batch may be claimed; a batch was finished */
    bool lock_made, work_made, done_made;
    int64_t epoch, released, next_take, next_fill,
        last; /* guarded by the lock; epoch and order change only while nothing is filled */
    int filling, threads;
    bool stop;
    pthread_t *thread;
    int64_t slots;
    slot *slot;
};

/* ---------------------------------------------------------------- one batch */

static void fill_row(const fv_loader *l, slot *s, int64_t row, int64_t place) {
    int64_t i = l->index ? l->index[place] : place;
    memcpy(s->images + (size_t)row * l->picture, l->d->images + (size_t)i * l->picture, l->picture);
    fv_augment_record(l->augmented ? &l->augment : NULL, l->cfg.seed, l->epoch, i, l->d->h, l->d->w,
                      s->record + row * FV_AUG_FIELDS);
    s->labels[row] = l->labels ? l->labels[place] : l->d->labels[i];
    s->row_weight[row] = 1.0f;
    s->row_key[row] = s->index[row] = i;
}

static void fill(const fv_loader *l, int64_t batch, slot *s) {
    int64_t first = batch * l->cfg.batch, left = l->n - first;
    s->valid = left < l->cfg.batch ? left : l->cfg.batch;
    for (int64_t row = 0; row < l->cfg.batch; row++) {
        bool padding = row >= s->valid; /* the last sample again, at weight 0 */
        int64_t place = first + (padding ? s->valid - 1 : row);
        fill_row(l, s, row, l->order ? l->order[place] : place);
        if (padding) s->row_weight[row] = 0.0f;
    }
}

static void *work(void *arg) {
    fv_loader *l = arg;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && (l->next_fill >= l->last || l->next_fill >= l->released + l->slots))
            pthread_cond_wait(&l->work, &l->lock);
        if (l->stop) break;
        int64_t batch = l->next_fill++;
        slot *s = &l->slot[batch % l->slots];
        l->filling++;
        pthread_mutex_unlock(&l->lock);
        fill(l, batch, s);
        pthread_mutex_lock(&l->lock);
        s->ready = batch;
        l->filling--;
        pthread_cond_signal(&l->done); /* only the caller waits for it */
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---------------------------------------------------------------- making and unmaking */

static fv_status check(fv_ctx *ctx, const fv_dataset *d, const int64_t *index, int64_t n, const fv_loader_cfg *cfg) {
    const fv_augment_cfg *a = cfg->augment;
    int32_t side = d->h < d->w ? d->h : d->w;
    if (n < 1) return fv_fail(ctx, FV_E_USAGE, "there are no samples to load");
    if (cfg->batch < 1)
        return fv_fail(ctx, FV_E_USAGE, "the batch size must be at least 1, not %lld", (long long)cfg->batch);
    if (cfg->train && cfg->batch > n) {
        fv_fail(ctx, FV_E_USAGE, "a batch of %lld is larger than the training set of %lld samples",
                (long long)cfg->batch, (long long)n);
        return fv_hint(ctx, "use a batch size of %lld or less", (long long)n);
    }
    if (cfg->workers < 0 || cfg->workers > MOST_WORKERS)
        return fv_fail(ctx, FV_E_USAGE, "the number of workers must lie in 0..%d, not at %d", MOST_WORKERS,
                       cfg->workers);
    if (cfg->prefetch < 0 || cfg->prefetch > MOST_PREFETCH)
        return fv_fail(ctx, FV_E_USAGE, "the prefetch must lie in 0..%d, not at %d", MOST_PREFETCH, cfg->prefetch);
    for (int64_t i = 0; i < n && index; i++)
        if (index[i] < 0 || index[i] >= d->count)
            return fv_fail(ctx, FV_E_USAGE, "sample %lld is not in the dataset", (long long)index[i]);
    if (!cfg->train || !a) return FV_OK;
    if (a->crop_pad < 0 || a->crop_pad > 4096 || (a->pad_mode == FV_PAD_REFLECT && a->crop_pad >= side))
        return fv_fail(ctx, FV_E_USAGE, "pictures of %d x %d pixels cannot be padded by %d", d->h, d->w, a->crop_pad);
    if (!(a->flip >= 0.0 && a->flip <= 1.0))
        return fv_fail(ctx, FV_E_USAGE, "the probability of a flip must lie in 0..1, not at %g", a->flip);
    if (a->cutout < 0 || a->cutout > 4096)
        return fv_fail(ctx, FV_E_USAGE, "the side of the cutout must lie in 0..4096, not at %d", a->cutout);
    return FV_OK;
}

/* A permutation of the view's labels, the same in every epoch. */
static fv_status shuffle_labels(fv_loader *l) {
    l->labels = fv_arena_alloc(&l->arena, (size_t)l->n, sizeof *l->labels);
    int64_t *from = fv_alloc(l->ctx, (size_t)l->n, sizeof *from);
    if (!l->labels || !from) {
        if (from) fv_free(l->ctx, from, (size_t)l->n, sizeof *from);
        return FV_E_MEMORY;
    }
    fv_permutation(l->cfg.seed, 0, fv_hash_name("data.shuffle_labels"), l->n, from);
    for (int64_t i = 0; i < l->n; i++) l->labels[i] = l->d->labels[l->index ? l->index[from[i]] : from[i]];
    fv_free(l->ctx, from, (size_t)l->n, sizeof *from);
    return FV_OK;
}

static fv_status make_slots(fv_loader *l) {
    size_t rows = (size_t)l->cfg.batch;
    if (!fv_size_mul(rows, l->picture, &l->images_bytes)) return fv_fail_memory(l->ctx, SIZE_MAX, "a batch");
    int64_t ahead = l->cfg.prefetch ? l->cfg.prefetch : 2 * l->cfg.workers;
    if (l->cfg.workers == 0) ahead = 0;
    if (ahead > l->batches) ahead = l->batches;
    l->slots = ahead + 1; /* and the one that the caller holds */
    l->slot = fv_arena_alloc(&l->arena, (size_t)l->slots, sizeof *l->slot);
    if (!l->slot) return FV_E_MEMORY;
    for (int64_t i = 0; i < l->slots; i++) {
        slot *s = &l->slot[i];
        s->ready = -1;
        s->record = fv_arena_alloc(&l->arena, rows, FV_AUG_FIELDS * sizeof *s->record);
        s->row_weight = fv_arena_alloc(&l->arena, rows, sizeof *s->row_weight);
        s->labels = fv_arena_alloc(&l->arena, rows, sizeof *s->labels);
        s->row_key = fv_arena_alloc(&l->arena, rows, sizeof *s->row_key);
        s->index = fv_arena_alloc(&l->arena, rows, sizeof *s->index);
        s->images = fv_alloc(l->ctx, l->images_bytes, 1);
        if (!s->images) return fv_fail_memory(l->ctx, l->images_bytes, "the images of a batch");
        if (!s->record || !s->row_weight || !s->labels || !s->row_key || !s->index) return FV_E_MEMORY;
    }
    return FV_OK;
}

/* Signals are for the threads of the program: workers block them all. */
static fv_status start_workers(fv_loader *l) {
    l->lock_made = pthread_mutex_init(&l->lock, NULL) == 0;
    l->work_made = pthread_cond_init(&l->work, NULL) == 0;
    l->done_made = pthread_cond_init(&l->done, NULL) == 0;
    if (!l->lock_made || !l->work_made || !l->done_made)
        return fv_fail(l->ctx, FV_E_MEMORY, "cannot create the loader's lock");
    if (l->cfg.workers == 0) return FV_OK;
    l->thread = fv_arena_alloc(&l->arena, (size_t)l->cfg.workers, sizeof *l->thread);
    if (!l->thread) return FV_E_MEMORY;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    while (l->threads < l->cfg.workers && !failed) {
        failed = pthread_create(&l->thread[l->threads], NULL, work, l);
        if (!failed) l->threads++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) return fv_fail(l->ctx, FV_E_MEMORY, "cannot start loader thread %d: %s", l->threads, strerror(failed));
    return FV_OK;
}

static fv_status prepare(fv_loader *l) {
    if (l->cfg.train) {
        l->order = fv_arena_alloc(&l->arena, (size_t)l->n, sizeof *l->order);
        if (!l->order) return FV_E_MEMORY;
    }
    if (l->cfg.shuffle_labels) FV_TRY(shuffle_labels(l));
    FV_TRY(make_slots(l));
    return start_workers(l);
}

fv_status fv_loader_create(fv_ctx *ctx, const fv_dataset *d, const int64_t *index, int64_t n, const fv_loader_cfg *cfg,
                           fv_loader **out) {
    *out = NULL;
    if (!index) n = d->count;
    FV_TRY(check(ctx, d, index, n, cfg));
    fv_loader *l = fv_calloc(ctx, 1, sizeof *l);
    if (!l) return FV_E_MEMORY;
    l->ctx = ctx;
    fv_arena_init(&l->arena, ctx);
    l->d = d;
    l->index = index;
    l->n = n;
    l->cfg = *cfg;
    l->augmented = cfg->train && cfg->augment;
    if (l->augmented) l->augment = *cfg->augment;
    l->cfg.augment = NULL; /* the caller's may be gone */
    l->picture = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    l->batches = cfg->train ? n / cfg->batch : (n - 1) / cfg->batch + 1;
    fv_status status = prepare(l);
    if (status != FV_OK) {
        fv_loader_destroy(l);
        return status;
    }
    *out = l;
    return FV_OK;
}

void fv_loader_destroy(fv_loader *l) {
    if (!l) return;
    if (l->threads > 0) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->work);
        pthread_mutex_unlock(&l->lock);
        for (int i = 0; i < l->threads; i++) pthread_join(l->thread[i], NULL);
    }
    if (l->done_made) pthread_cond_destroy(&l->done);
    if (l->work_made) pthread_cond_destroy(&l->work);
    if (l->lock_made) pthread_mutex_destroy(&l->lock);
    for (int64_t i = 0; i < l->slots && l->slot; i++)
        if (l->slot[i].images) fv_free(l->ctx, l->slot[i].images, l->images_bytes, 1);
    fv_arena_free(&l->arena);
    fv_free(l->ctx, l, 1, sizeof *l);
}

/* ---------------------------------------------------------------- an epoch */

int64_t fv_loader_batches(const fv_loader *l) {
    return l->batches;
}
double fv_loader_wait_seconds(const fv_loader *l) {
    return l->waited;
}

fv_status fv_loader_start(fv_loader *l, int64_t epoch, int64_t first_batch) {
    if (epoch < 0 || first_batch < 0 || first_batch > l->batches)
        return fv_fail(l->ctx, FV_E_USAGE, "there is no batch %lld of epoch %lld: an epoch has %lld batches",
                       (long long)first_batch, (long long)epoch, (long long)l->batches);
    pthread_mutex_lock(&l->lock);
    l->last = 0; /* nothing more is claimed */
    while (l->filling > 0) pthread_cond_wait(&l->done, &l->lock);
    for (int64_t i = 0; i < l->slots; i++) l->slot[i].ready = -1;
    if (l->order) fv_permutation(l->cfg.seed, (uint64_t)epoch, fv_hash_name("data.shuffle"), l->n, l->order);
    l->epoch = epoch;
    l->released = l->next_take = l->next_fill = first_batch;
    l->last = l->batches;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    return FV_OK;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The slot that holds the next batch, filled. */
static slot *wait_for(fv_loader *l) {
    slot *s = &l->slot[l->next_take % l->slots];
    if (l->threads == 0) {
        fill(l, l->next_take, s);
        return s;
    }
    pthread_mutex_lock(&l->lock);
    l->released = l->next_take; /* the caller is done with the one before */
    pthread_cond_broadcast(&l->work);
    while (s->ready != l->next_take) pthread_cond_wait(&l->done, &l->lock);
    pthread_mutex_unlock(&l->lock);
    return s;
}

fv_status fv_loader_next(fv_loader *l, fv_batch *out) {
    *out = (fv_batch){0};
    if (l->next_take >= l->last) return FV_OK; /* also before the first fv_loader_start */
    double start = seconds();
    const slot *s = wait_for(l);
    l->waited += seconds() - start;
    l->next_take++;
    *out = (fv_batch){.size = l->cfg.batch,
                      .valid = s->valid,
                      .images = s->images,
                      .record = s->record,
                      .labels = s->labels,
                      .row_weight = s->row_weight,
                      .row_key = s->row_key,
                      .index = s->index};
    return FV_OK;
}
