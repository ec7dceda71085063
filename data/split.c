/* split.c: the validation samples that are held out of the training set. */
#include "data/internal.h"

#include <math.h>
#include <string.h>

typedef struct class_share {
    int64_t count, held_out;
    double rest; /* what rounding down took from it */
} class_share;

/* Per class the share rounded down; what is then missing goes to those that lost most, lower classes first. */
static void share_out(class_share *share, int32_t classes, double fraction, int64_t total) {
    for (int32_t k = 0; k < classes; k++) {
        double exact = fraction * (double)share[k].count;
        share[k].held_out = (int64_t)floor(exact);
        share[k].rest = exact - floor(exact);
        total -= share[k].held_out;
    }
    for (; total > 0; total--) {
        int32_t best = -1;
        for (int32_t k = 0; k < classes; k++)
            if (share[k].held_out < share[k].count && (best < 0 || share[k].rest > share[best].rest)) best = k;
        share[best].held_out++;
        share[best].rest = -1.0;
    }
}

/* Mark the held-out samples. member, order: scratch of d->count places. */
static void choose(const fv_dataset *d, const class_share *share, uint64_t seed, int64_t *member, int64_t *order,
                   uint8_t *held_out) {
    for (int32_t k = 0; k < d->classes; k++) {
        int64_t n = 0;
        for (int64_t i = 0; i < d->count && share[k].held_out > 0; i++)
            if (d->labels[i] == k) member[n++] = i;
        if (share[k].held_out == 0) continue;
        fv_permutation(seed, (uint64_t)k, fv_hash_name("data.validation"), n, order);
        for (int64_t i = 0; i < share[k].held_out; i++) held_out[member[order[i]]] = 1;
    }
}

/* The parts of a set of files, as it was divided when it was opened. */
static fv_status take_parts(fv_arena *arena, const fv_dataset *d, int64_t **train, int64_t *n_train, int64_t **val,
                            int64_t *n_val) {
    int64_t n[FV_PART_COUNT] = {0}, *index[FV_PART_COUNT] = {NULL};
    for (int64_t i = 0; i < d->count; i++) n[d->part[i]]++;
    for (fv_part part = FV_PART_TRAIN; part <= FV_PART_VAL; part++) {
        index[part] = fv_arena_alloc(arena, (size_t)n[part], sizeof **index);
        if (!index[part]) return FV_E_MEMORY;
        n[part] = 0;
    }
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] != FV_PART_TEST) index[d->part[i]][n[d->part[i]]++] = i;
    *train = index[FV_PART_TRAIN];
    *val = index[FV_PART_VAL];
    *n_train = n[FV_PART_TRAIN];
    *n_val = n[FV_PART_VAL];
    return FV_OK;
}

fv_status fv_split_validation(fv_ctx *ctx, fv_arena *arena, const fv_dataset *d, double fraction, uint64_t seed,
                              int64_t **train, int64_t *n_train, int64_t **val, int64_t *n_val) {
    if (d->part) return take_parts(arena, d, train, n_train, val, n_val);
    if (!(fraction >= 0.0 && fraction < 1.0))
        return fv_fail(ctx, FV_E_USAGE, "the validation share must lie in [0, 1), not at %g", fraction);
    int64_t total = (int64_t)floor(fraction * (double)d->count + 0.5);
    if (total >= d->count)
        return fv_fail(ctx, FV_E_USAGE, "a validation share of %g of %lld samples leaves none to train on", fraction,
                       (long long)d->count);
    *n_val = total;
    *n_train = d->count - total;
    *train = fv_arena_alloc(arena, (size_t)*n_train, sizeof **train);
    *val = fv_arena_alloc(arena, (size_t)*n_val, sizeof **val);
    if (!*train || !*val) return FV_E_MEMORY;
    fv_arena scratch;
    fv_arena_init(&scratch, ctx);
    class_share *share = fv_arena_alloc(&scratch, (size_t)d->classes, sizeof *share);
    int64_t *member = fv_arena_alloc(&scratch, (size_t)d->count, sizeof *member);
    int64_t *order = fv_arena_alloc(&scratch, (size_t)d->count, sizeof *order);
    uint8_t *held_out = fv_arena_alloc(&scratch, (size_t)d->count, 1);
    if (!share || !member || !order || !held_out) {
        fv_arena_free(&scratch);
        return FV_E_MEMORY;
    }
    for (int64_t i = 0; i < d->count; i++) share[d->labels[i]].count++;
    share_out(share, d->classes, fraction, total);
    choose(d, share, seed, member, order, held_out);
    int64_t a = 0, b = 0;
    for (int64_t i = 0; i < d->count; i++)
        if (held_out[i]) (*val)[b++] = i;
        else (*train)[a++] = i;
    fv_arena_free(&scratch);
    return FV_OK;
}
