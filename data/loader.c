/* loader.c: batches, made ahead by worker threads in a ring of slots.
 *
 *   batch:   released ......... next_take ............. next_fill ......... last
 *            held by the caller │ ready or being filled │ still to be claimed      (held: cfg.hold at most)
 *
 * Batch b lives in slot b % slots. A worker claims next_fill as soon as that slot is free (b < released + slots) and
 * fills it outside the lock; which worker does it changes nothing, for a batch is a pure function of (seed, epoch, b).
 * An error lies in its slot like a batch, so that the first in order of batches is the one that the caller gets. */
#include "data/internal.h"

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#define MOST_WORKERS 256
#define MOST_PREFETCH 4096

typedef struct worker { /* with what it needs to read files */
    fv_loader *loader;
    fv_ctx ctx;          /* its own, without log */
    fv_decoder *decoder; /* NULL for pictures in memory */
    pthread_t thread;
} worker;

typedef struct slot {
    int64_t ready; /* number of the batch that lies in it; -1: none. Guarded by the lock */
    int64_t valid;
    fv_status status; /* of the first row that could not be had */
    fv_error error;
    uint8_t *images;
    float *record, *row_weight, *targets; /* targets: NULL unless the set has them */
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
    int64_t *label_of; /* [n], by place in the view: the sample that lends its label; NULL: each its own */
    int64_t *order;    /* [n], training: places in the view, in this epoch's order */
    /* balanced: places in the view by class, those of class k at member[start[k]..start[k+1]-1]; without classes that
     * have none */
    int64_t *member, *start;
    int32_t classes;
    size_t picture, images_bytes;
    double waited;

    pthread_mutex_t lock;
    pthread_cond_t work, done; /* a batch may be claimed; a batch was finished */
    bool lock_made, work_made, done_made;
    int64_t epoch, released, next_take, next_fill,
        last; /* guarded by the lock; epoch and order change only while nothing is filled */
    int filling, threads;
    bool stop;
    worker *worker; /* [max(1, cfg.workers)]; without threads the first is the caller's */
    int workers;
    int64_t slots;
    slot *slot;
};

/* ---------------------------------------------------------------- one batch */

static int64_t sample_at(const fv_loader *l, int64_t place) {
    return l->index ? l->index[place] : place;
}

/* Which sample's label stands at a place of the view. */
static int64_t label_source(const fv_loader *l, int64_t place) {
    return l->label_of ? l->label_of[place] : sample_at(l, place);
}

static fv_status load(const fv_loader *l, worker *w, int64_t i, int64_t key, uint8_t *out) {
    if (!l->d->files) {
        memcpy(out, l->d->images + (size_t)i * l->picture, l->picture);
        return FV_OK;
    }
    const fv_picture_draw draw = {
        .augment = l->augmented ? &l->augment : NULL, .seed = l->cfg.seed, .epoch = l->epoch, .key = key};
    return fv_picture_load(l->d->files, w->decoder, i, &draw, out);
}

/* Row `row`, which is number `number` of the epoch, from a place of the view. */
static fv_status fill_row(const fv_loader *l, worker *w, slot *s, int64_t row, int64_t number, int64_t place) {
    int64_t i = sample_at(l, place), lender = label_source(l, place);
    int64_t key = l->member ? number : i; /* balanced: a sample that comes twice is augmented in two ways */
    if (s->images) FV_TRY(load(l, w, i, key, s->images + (size_t)row * l->picture));
    fv_augment_record(l->augmented ? &l->augment : NULL, l->cfg.seed, l->epoch, key, l->d->h, l->d->w,
                      s->record + row * FV_AUG_FIELDS);
    s->labels[row] = l->d->labels[lender];
    for (int32_t k = 0; k < l->d->classes && s->targets; k++)
        s->targets[row * l->d->classes + k] = l->d->targets[lender * l->d->classes + k];
    s->row_weight[row] = 1.0f;
    s->row_key[row] = key;
    s->index[row] = i;
    return FV_OK;
}

/* The last sample again, at weight 0. */
static void pad_row(const fv_loader *l, slot *s, int64_t row) {
    int64_t last = s->valid - 1;
    if (s->images) memcpy(s->images + (size_t)row * l->picture, s->images + (size_t)last * l->picture, l->picture);
    memcpy(s->record + row * FV_AUG_FIELDS, s->record + last * FV_AUG_FIELDS, FV_AUG_FIELDS * sizeof *s->record);
    if (s->targets)
        memcpy(s->targets + row * l->d->classes, s->targets + last * l->d->classes,
               (size_t)l->d->classes * sizeof *s->targets);
    s->labels[row] = s->labels[last];
    s->row_weight[row] = 0.0f;
    s->row_key[row] = s->row_key[last];
    s->index[row] = s->index[last];
}

static void keep_error(const fv_loader *l, worker *w, slot *s, fv_status status) {
    if (status == FV_E_DATA)
        fv_hint(&w->ctx, "'fovea data check %s' lists all bad files; --skip-bad leaves them out", l->d->path);
    s->status = status;
    s->error = w->ctx.error;
}

static void fill(const fv_loader *l, worker *w, int64_t batch, slot *s) {
    int64_t first = batch * l->cfg.batch, left = l->n - first;
    s->status = FV_OK;
    s->valid = left < l->cfg.batch ? left : l->cfg.batch;
    for (int64_t row = 0; row < l->cfg.batch; row++) {
        if (row >= s->valid) {
            pad_row(l, s, row);
            continue;
        }
        int64_t number = first + row;
        fv_status status = fill_row(l, w, s, row, number, l->order ? l->order[number] : number);
        if (status != FV_OK) {
            keep_error(l, w, s, status);
            return;
        }
    }
}

static void *work(void *arg) {
    worker *w = arg;
    fv_loader *l = w->loader;
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->stop && (l->next_fill >= l->last || l->next_fill >= l->released + l->slots))
            pthread_cond_wait(&l->work, &l->lock);
        if (l->stop) break;
        int64_t batch = l->next_fill++;
        slot *s = &l->slot[batch % l->slots];
        l->filling++;
        pthread_mutex_unlock(&l->lock);
        fill(l, w, batch, s);
        pthread_mutex_lock(&l->lock);
        s->ready = batch;
        l->filling--;
        pthread_cond_signal(&l->done); /* only the caller waits for it */
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---------------------------------------------------------------- making and unmaking */

static bool is_share(double x) {
    return x >= 0.0 && x <= 1.0;
}

static fv_status check_crop(fv_ctx *ctx, const fv_dataset *d, const fv_augment_cfg *a) {
    if (a->scale[1] == 0.0) return FV_OK;
    if (!d->files) {
        fv_fail(ctx, FV_E_USAGE,
                "random resized crops are cut from picture files; the set '%s' has its pictures in memory", d->name);
        return fv_hint(ctx, "use random crops of the padded picture: --train-crop pad");
    }
    if (!(a->scale[0] > 0.0 && a->scale[0] <= a->scale[1] && a->scale[1] <= 1.0))
        return fv_fail(ctx, FV_E_USAGE, "the area of random crops must lie in 0..1, smaller first, not at %g to %g",
                       a->scale[0], a->scale[1]);
    if (!(a->ratio[0] > 0.0 && a->ratio[0] <= a->ratio[1] && isfinite(a->ratio[1])))
        return fv_fail(ctx, FV_E_USAGE, "the ratio of random crops must be positive, smaller first, not %g to %g",
                       a->ratio[0], a->ratio[1]);
    return FV_OK;
}

static fv_status check_augment(fv_ctx *ctx, const fv_dataset *d, const fv_augment_cfg *a) {
    static const char *const jitter[4] = {"brightness", "contrast", "saturation", "hue"};
    int32_t side = d->h < d->w ? d->h : d->w;
    if (a->crop_pad < 0 || a->crop_pad > 4096 || (a->pad_mode == FV_PAD_REFLECT && a->crop_pad >= side))
        return fv_fail(ctx, FV_E_USAGE, "pictures of %d x %d pixels cannot be padded by %d", d->h, d->w, a->crop_pad);
    if (!is_share(a->flip) || !is_share(a->vflip))
        return fv_fail(ctx, FV_E_USAGE, "the probability of a flip must lie in 0..1, not at %g",
                       is_share(a->flip) ? a->vflip : a->flip);
    if (a->cutout < 0 || a->cutout > 4096)
        return fv_fail(ctx, FV_E_USAGE, "the side of the cutout must lie in 0..4096, not at %d", a->cutout);
    for (int k = 0; k < 4; k++)
        if (!is_share(a->jitter[k]) || (k == 3 && a->jitter[k] > 0.5))
            return fv_fail(ctx, FV_E_USAGE, "the jitter of %s must lie in 0..%g, not at %g", jitter[k],
                           k == 3 ? 0.5 : 1, a->jitter[k]);
    if (!is_share(a->erase))
        return fv_fail(ctx, FV_E_USAGE, "the probability of erasing must lie in 0..1, not at %g", a->erase);
    return check_crop(ctx, d, a);
}

static fv_status check(fv_ctx *ctx, const fv_dataset *d, const int64_t *index, int64_t n, const fv_loader_cfg *cfg) {
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
    if (cfg->hold < 0 || cfg->hold > MOST_PREFETCH)
        return fv_fail(ctx, FV_E_USAGE, "the number of batches held must lie in 0..%d, not at %d", MOST_PREFETCH,
                       cfg->hold);
    if (cfg->prefetch < 0 || cfg->prefetch > MOST_PREFETCH)
        return fv_fail(ctx, FV_E_USAGE, "the prefetch must lie in 0..%d, not at %d", MOST_PREFETCH, cfg->prefetch);
    for (int64_t i = 0; i < n && index; i++)
        if (index[i] < 0 || index[i] >= d->count)
            return fv_fail(ctx, FV_E_USAGE, "sample %lld is not in the dataset", (long long)index[i]);
    if (cfg->train && cfg->balanced && d->targets) {
        fv_fail(ctx, FV_E_USAGE, "pictures with several labels cannot be drawn class by class");
        return fv_hint(ctx, "use --sampler shuffle; --class-weights balanced gives rare classes more weight");
    }
    if (cfg->train && cfg->balanced && cfg->augment && cfg->augment->alternate_flip) {
        fv_fail(ctx, FV_E_USAGE, "flips alternate only where each epoch shows each picture once");
        return fv_hint(ctx, "use --flip-mode random with --sampler balanced");
    }
    return cfg->train && cfg->augment ? check_augment(ctx, d, cfg->augment) : FV_OK;
}

/* A permutation of the view's labels, the same in every epoch. */
static fv_status shuffle_labels(fv_loader *l) {
    l->label_of = fv_arena_alloc(&l->arena, (size_t)l->n, sizeof *l->label_of);
    if (!l->label_of) return FV_E_MEMORY;
    fv_permutation(l->cfg.seed, 0, fv_hash_name("data.shuffle_labels"), l->n, l->label_of);
    for (int64_t i = 0; i < l->n; i++) l->label_of[i] = sample_at(l, l->label_of[i]);
    return FV_OK;
}

/* Sort the places of the view by class. */
static fv_status gather_classes(fv_loader *l) {
    int32_t all = l->d->classes;
    int64_t *start = fv_arena_alloc(&l->arena, (size_t)all + 1, sizeof *start), *next = NULL; /* both zeroed */
    l->member = fv_arena_alloc(&l->arena, (size_t)l->n, sizeof *l->member);
    next = fv_arena_alloc(&l->arena, (size_t)all + 1, sizeof *next);
    if (!start || !next || !l->member) return FV_E_MEMORY;
    for (int64_t place = 0; place < l->n; place++) {
        int32_t label = l->d->labels[label_source(l, place)];
        if (label < 0 || label >= all)
            return fv_fail(l->ctx, FV_E_DATA, "sample %lld has no class: its label is %d",
                           (long long)sample_at(l, place), label);
        next[label + 1]++;
    }
    for (int32_t k = 0; k < all; k++) {
        if (next[k + 1]) start[++l->classes] = next[k] + next[k + 1];
        next[k + 1] += next[k];
    }
    for (int64_t place = 0; place < l->n; place++) l->member[next[l->d->labels[label_source(l, place)]]++] = place;
    l->start = start;
    return FV_OK;
}

static fv_status make_slots(fv_loader *l) {
    size_t rows = (size_t)l->cfg.batch, classes = l->d->targets ? (size_t)l->d->classes : 0, targets;
    if (!fv_size_mul(rows, l->picture, &l->images_bytes)) return fv_fail_memory(l->ctx, SIZE_MAX, "a batch");
    if (!fv_size_mul(rows, classes, &targets)) return fv_fail_memory(l->ctx, SIZE_MAX, "the targets of a batch");
    int64_t ahead = l->cfg.prefetch ? l->cfg.prefetch : 2 * l->cfg.workers;
    if (l->cfg.workers == 0) ahead = 0;
    if (ahead > l->batches) ahead = l->batches;
    l->slots = ahead + l->cfg.hold; /* and those that the caller holds */
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
        if (targets) s->targets = fv_arena_alloc(&l->arena, targets, sizeof *s->targets);
        if (!l->cfg.no_images) s->images = fv_alloc(l->ctx, l->images_bytes, 1);
        if (!s->images && !l->cfg.no_images) return fv_fail_memory(l->ctx, l->images_bytes, "the images of a batch");
        if (!s->record || !s->row_weight || !s->labels || !s->row_key || !s->index || (targets && !s->targets))
            return FV_E_MEMORY;
    }
    return FV_OK;
}

static fv_status make_workers(fv_loader *l) {
    int n = l->cfg.workers ? l->cfg.workers : 1;
    l->worker = fv_arena_alloc(&l->arena, (size_t)n, sizeof *l->worker);
    if (!l->worker) return FV_E_MEMORY;
    for (l->workers = 0; l->workers < n; l->workers++) {
        worker *w = &l->worker[l->workers];
        w->loader = l;
        w->ctx = *l->ctx;
        w->ctx.log = NULL;
        fv_status status = l->d->files ? fv_decoder_create(&w->ctx, &w->decoder) : FV_OK;
        if (status != FV_OK) {
            l->ctx->error = w->ctx.error;
            return status;
        }
    }
    return FV_OK;
}

/* Signals are for the threads of the program: workers block them all. */
static fv_status start_threads(fv_loader *l) {
    l->lock_made = pthread_mutex_init(&l->lock, NULL) == 0;
    l->work_made = pthread_cond_init(&l->work, NULL) == 0;
    l->done_made = pthread_cond_init(&l->done, NULL) == 0;
    if (!l->lock_made || !l->work_made || !l->done_made)
        return fv_fail(l->ctx, FV_E_MEMORY, "cannot create the loader's lock");
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = 0;
    while (l->threads < l->cfg.workers && !failed) {
        failed = pthread_create(&l->worker[l->threads].thread, NULL, work, &l->worker[l->threads]);
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
    if (l->cfg.train && l->cfg.balanced) FV_TRY(gather_classes(l));
    FV_TRY(make_slots(l));
    FV_TRY(make_workers(l));
    return start_threads(l);
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
    if (l->cfg.hold < 1) l->cfg.hold = 1;
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
        for (int i = 0; i < l->threads; i++) pthread_join(l->worker[i].thread, NULL);
    }
    if (l->done_made) pthread_cond_destroy(&l->done);
    if (l->work_made) pthread_cond_destroy(&l->work);
    if (l->lock_made) pthread_mutex_destroy(&l->lock);
    for (int64_t i = 0; i < l->slots && l->slot; i++)
        if (l->slot[i].images) fv_free(l->ctx, l->slot[i].images, l->images_bytes, 1);
    for (int i = 0; i < l->workers; i++) fv_decoder_destroy(l->worker[i].decoder);
    fv_arena_free(&l->arena);
    fv_free(l->ctx, l, 1, sizeof *l);
}

/* ---------------------------------------------------------------- an epoch */

int64_t fv_loader_batches(const fv_loader *l) {
    return l->batches;
}
void fv_loader_lenders(const fv_loader *l, int64_t *out) {
    for (int64_t i = 0; i < l->d->count; i++) out[i] = i;
    for (int64_t place = 0; place < l->n; place++) out[sample_at(l, place)] = label_source(l, place);
}

double fv_loader_wait_seconds(const fv_loader *l) {
    return l->waited;
}

/* A class for each place of the epoch, then one of its samples. */
static void draw_balanced(const fv_loader *l, int64_t epoch) {
    const uint32_t stream = fv_hash_name("data.balanced");
    for (int64_t p = 0; p < l->n; p++) {
        fv_philox words = fv_random(l->cfg.seed, (uint64_t)p, 0, (uint64_t)epoch, stream);
        fv_philox second = {{words.v[2], words.v[3]}};
        const int64_t *start = l->start + fv_uniform_below(&words, (uint64_t)l->classes);
        l->order[p] = l->member[start[0] + (int64_t)fv_uniform_below(&second, (uint64_t)(start[1] - start[0]))];
    }
}

fv_status fv_loader_start(fv_loader *l, int64_t epoch, int64_t first_batch) {
    if (epoch < 0 || first_batch < 0 || first_batch > l->batches)
        return fv_fail(l->ctx, FV_E_USAGE, "there is no batch %lld of epoch %lld: an epoch has %lld batches",
                       (long long)first_batch, (long long)epoch, (long long)l->batches);
    pthread_mutex_lock(&l->lock);
    l->last = 0; /* nothing more is claimed */
    while (l->filling > 0) pthread_cond_wait(&l->done, &l->lock);
    for (int64_t i = 0; i < l->slots; i++) l->slot[i].ready = -1;
    if (l->member) draw_balanced(l, epoch);
    else if (l->order) fv_permutation(l->cfg.seed, (uint64_t)epoch, fv_hash_name("data.shuffle"), l->n, l->order);
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
        fill(l, &l->worker[0], l->next_take, s);
        return s;
    }
    pthread_mutex_lock(&l->lock);
    /* The caller is done with those before the last `hold` - 1. */
    if (l->next_take - (l->cfg.hold - 1) > l->released) l->released = l->next_take - (l->cfg.hold - 1);
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
    if (s->status != FV_OK) { /* and again at the next call: no batch is passed over */
        l->ctx->error = s->error;
        return s->status;
    }
    l->next_take++;
    *out = (fv_batch){.size = l->cfg.batch,
                      .valid = s->valid,
                      .images = s->images,
                      .record = s->record,
                      .labels = s->labels,
                      .targets = s->targets,
                      .row_weight = s->row_weight,
                      .row_key = s->row_key,
                      .index = s->index};
    return FV_OK;
}
