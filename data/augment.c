/* augment.c: what is done to one picture, drawn from (seed, epoch, index) alone. The `augment` operation applies it. */
#include "data/internal.h"

enum {
    DRAW_TOP,
    DRAW_LEFT,
    DRAW_FLIP,
    DRAW_CUT_Y,
    DRAW_CUT_X
}; /* elements of the counter; part of what a seed means */

typedef struct draws {
    uint64_t seed;
    int64_t epoch, index;
    uint32_t stream;
} draws;

static fv_philox draw(const draws *d, uint64_t element) {
    return fv_random(d->seed, element, (uint64_t)d->index, (uint64_t)d->epoch, d->stream);
}

static int64_t draw_below(const draws *d, uint64_t element, int64_t n) {
    fv_philox words = draw(d, element);
    return (int64_t)fv_uniform_below(&words, (uint64_t)n);
}

/* A square around a pixel that is anywhere in the picture, cut at the borders (DeVries and Taylor 2017). */
static void cut(int64_t centre, int64_t side, int64_t size, float *start, float *length) {
    int64_t from = centre - side / 2, to = from + side;
    if (from < 0) from = 0;
    if (to > size) to = size;
    *start = (float)from;
    *length = (float)(to - from);
}

void fv_augment_record(const fv_augment_cfg *cfg, uint64_t seed, int64_t epoch, int64_t index, int32_t h, int32_t w,
                       float *record) {
    for (int i = 0; i < FV_AUG_FIELDS; i++) record[i] = 0.0f;
    if (!cfg) return;
    draws d = {.seed = seed, .epoch = epoch, .index = index, .stream = fv_hash_name("data.augment")};
    if (cfg->crop_pad > 0) { /* where the picture would begin in its padded self, seen from the picture */
        int64_t places = 2 * (int64_t)cfg->crop_pad + 1;
        record[FV_AUG_TOP] = (float)(draw_below(&d, DRAW_TOP, places) - cfg->crop_pad);
        record[FV_AUG_LEFT] = (float)(draw_below(&d, DRAW_LEFT, places) - cfg->crop_pad);
    }
    if (cfg->flip > 0.0) record[FV_AUG_FLIP] = fv_uniform_f64(draw(&d, DRAW_FLIP).v[0]) < cfg->flip ? 1.0f : 0.0f;
    if (cfg->cutout > 0) {
        cut(draw_below(&d, DRAW_CUT_Y, h), cfg->cutout, h, &record[FV_AUG_CUT_TOP], &record[FV_AUG_CUT_H]);
        cut(draw_below(&d, DRAW_CUT_X, w), cfg->cutout, w, &record[FV_AUG_CUT_LEFT], &record[FV_AUG_CUT_W]);
    }
}
