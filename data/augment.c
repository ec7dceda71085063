/* augment.c: what is done to one picture, drawn from (seed, epoch, index) alone: the record that the `augment`
 * operation applies, and the box that the loader cuts out of a file. */
#include "data/internal.h"

#include <math.h>

#define TRIES 10 /* rectangles that do not fit are drawn again so often, as torchvision and timm do */

/* Elements of the counter: part of what a seed means. New ones are appended, none is given another number. */
enum {
    DRAW_TOP,
    DRAW_LEFT,
    DRAW_FLIP,
    DRAW_CUT_Y,
    DRAW_CUT_X,
    DRAW_VFLIP,
    DRAW_JITTER,          /* one word each */
    DRAW_ERASE,           /* whether */
    DRAW_ERASE_KEY,       /* of the noise */
    DRAW_FLIP_ONCE,       /* of the run: with epoch 0 */
    DRAW_ERASE_RECT = 16, /* two per try */
    DRAW_BOX = 64         /* two per try */
};

typedef struct draws {
    uint64_t seed;
    int64_t epoch, index;
    uint32_t stream;
} draws;

static draws draws_of(uint64_t seed, int64_t epoch, int64_t index) {
    return (draws){.seed = seed, .epoch = epoch, .index = index, .stream = fv_hash_name("data.augment")};
}

static fv_philox draw(const draws *d, uint64_t element) {
    return fv_random(d->seed, element, (uint64_t)d->index, (uint64_t)d->epoch, d->stream);
}

static int64_t draw_below(const draws *d, uint64_t element, int64_t n) {
    fv_philox words = draw(d, element);
    return (int64_t)fv_uniform_below(&words, (uint64_t)n);
}

static double between(uint32_t word, double low, double high) {
    return low + (high - low) * fv_uniform_f64(word);
}

/* Height and width of a rectangle whose area and width / height (both in the bounds given, the latter on a logarithmic
 * scale) are drawn with `element`. */
static void draw_sides(const draws *d, uint64_t element, double area, const double scale[2], const double ratio[2],
                       double *h, double *w) {
    fv_philox words = draw(d, element);
    double target = area * between(words.v[0], scale[0], scale[1]);
    double aspect = exp(between(words.v[1], log(ratio[0]), log(ratio[1])));
    *h = rint(sqrt(target / aspect));
    *w = rint(sqrt(target * aspect));
}

/* Two integers in [0, n) and [0, m). */
static void draw_place(const draws *d, uint64_t element, double n, double m, double *top, double *left) {
    fv_philox words = draw(d, element), second = {{words.v[2], words.v[3]}};
    *top = (double)fv_uniform_below(&words, (uint64_t)n);
    *left = (double)fv_uniform_below(&second, (uint64_t)m);
}

/* One side of the square: around a pixel that is anywhere in the picture and clipped at its borders (DeVries and Taylor
 * 2017), or in any place that is inside it as a whole. */
static void cut(const fv_augment_cfg *cfg, const draws *d, uint64_t element, int64_t size, float *start,
                float *length) {
    bool inside = cfg->cutout_inside;
    int64_t side = inside && cfg->cutout > size ? size : cfg->cutout;
    int64_t from = inside ? draw_below(d, element, size - side + 1) : draw_below(d, element, size) - side / 2;
    int64_t to = from + side;
    if (from < 0) from = 0;
    if (to > size) to = size;
    *start = (float)from;
    *length = (float)(to - from);
}

/* Alternating: what was drawn for the sample once, and the other way round in every second epoch. */
static bool flips(const fv_augment_cfg *cfg, const draws *d) {
    if (!(cfg->flip > 0.0)) return false;
    if (!cfg->alternate_flip) return fv_uniform_f64(draw(d, DRAW_FLIP).v[0]) < cfg->flip;
    draws once = *d;
    once.epoch = 0;
    bool first = fv_uniform_f64(draw(&once, DRAW_FLIP_ONCE).v[0]) < cfg->flip;
    return first != (d->epoch % 2 == 1);
}

/* Random erasing (Zhong et al. 2017), as timm draws it. Takes the place of a cutout. */
static void erase(const fv_augment_cfg *cfg, const draws *d, int32_t h, int32_t w, float *record) {
    static const double scale[2] = {0.02, 1.0 / 3.0}, ratio[2] = {0.3, 1.0 / 0.3};
    if (!(cfg->erase > 0.0) || fv_uniform_f64(draw(d, DRAW_ERASE).v[0]) >= cfg->erase) return;
    for (int i = 0; i < TRIES; i++) {
        double part_h, part_w, top, left;
        draw_sides(d, DRAW_ERASE_RECT + 2 * (uint64_t)i, (double)h * w, scale, ratio, &part_h, &part_w);
        if (part_h < 1 || part_w < 1 || part_h >= h || part_w >= w) continue;
        draw_place(d, DRAW_ERASE_RECT + 2 * (uint64_t)i + 1, h - part_h + 1, w - part_w + 1, &top, &left);
        record[FV_AUG_CUT_TOP] = (float)top;
        record[FV_AUG_CUT_LEFT] = (float)left;
        record[FV_AUG_CUT_H] = (float)part_h;
        record[FV_AUG_CUT_W] = (float)part_w;
        if (cfg->erase_noise) record[FV_AUG_CUT_NOISE] = (float)(1 + draw_below(d, DRAW_ERASE_KEY, (1 << 24) - 1));
        return;
    }
}

static void jitter(const fv_augment_cfg *cfg, const draws *d, float *record) {
    static const int field[4] = {FV_AUG_BRIGHTNESS, FV_AUG_CONTRAST, FV_AUG_SATURATION, FV_AUG_HUE};
    fv_philox words = draw(d, DRAW_JITTER);
    for (int k = 0; k < 4; k++) {
        double x = cfg->jitter[k], least = k < 3 && x > 1.0 ? -1.0 : -x; /* factors are not negative */
        if (x > 0.0) record[field[k]] = (float)between(words.v[k], least, x);
    }
}

void fv_augment_record(const fv_augment_cfg *cfg, uint64_t seed, int64_t epoch, int64_t index, int32_t h, int32_t w,
                       float *record) {
    for (int i = 0; i < FV_AUG_FIELDS; i++) record[i] = 0.0f;
    if (!cfg) return;
    draws d = draws_of(seed, epoch, index);
    if (cfg->crop_pad > 0) { /* where the picture would begin in its padded self, seen from the picture */
        int64_t places = 2 * (int64_t)cfg->crop_pad + 1;
        record[FV_AUG_TOP] = (float)(draw_below(&d, DRAW_TOP, places) - cfg->crop_pad);
        record[FV_AUG_LEFT] = (float)(draw_below(&d, DRAW_LEFT, places) - cfg->crop_pad);
    }
    record[FV_AUG_FLIP] = flips(cfg, &d) ? 1.0f : 0.0f;
    if (cfg->vflip > 0.0) record[FV_AUG_VFLIP] = fv_uniform_f64(draw(&d, DRAW_VFLIP).v[0]) < cfg->vflip ? 1.0f : 0.0f;
    if (cfg->cutout > 0) {
        cut(cfg, &d, DRAW_CUT_Y, h, &record[FV_AUG_CUT_TOP], &record[FV_AUG_CUT_H]);
        cut(cfg, &d, DRAW_CUT_X, w, &record[FV_AUG_CUT_LEFT], &record[FV_AUG_CUT_W]);
    }
    jitter(cfg, &d, record);
    erase(cfg, &d, h, w, record);
}

/* The middle, as large as the bounds of the ratio allow. */
static fv_box middle(const double ratio[2], int32_t h, int32_t w) {
    double part_h = h, part_w = w, shape = (double)w / h;
    if (shape < ratio[0]) part_h = rint(w / ratio[0]);
    else if (shape > ratio[1]) part_w = rint(h * ratio[1]);
    if (part_h < 1) part_h = 1;
    if (part_w < 1) part_w = 1;
    return (fv_box){floor((h - part_h) / 2), floor((w - part_w) / 2), part_h, part_w};
}

fv_box fv_augment_box(const fv_augment_cfg *cfg, uint64_t seed, int64_t epoch, int64_t index, int32_t h, int32_t w) {
    draws d = draws_of(seed, epoch, index);
    for (int i = 0; i < TRIES; i++) {
        fv_box box;
        draw_sides(&d, DRAW_BOX + 2 * (uint64_t)i, (double)h * w, cfg->scale, cfg->ratio, &box.h, &box.w);
        if (box.h < 1 || box.w < 1 || box.h > h || box.w > w) continue;
        draw_place(&d, DRAW_BOX + 2 * (uint64_t)i + 1, h - box.h + 1, w - box.w + 1, &box.top, &box.left);
        return box;
    }
    return middle(cfg->ratio, h, w);
}
