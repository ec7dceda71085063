/* synthetic.c: a set that needs no files. Each class is a sum of a few plane waves of low frequency, with colours of
 * its own; a picture shows its class's waves a little shifted and dimmed, over waves that belong to no class, under
 * noise. Training and test pictures share the classes and nothing else. */
#include "data/internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define WAVES 3   /* of the class */
#define CLUTTER 3 /* of the picture */
#define MOST_FREQUENCY 3
#define FREQUENCIES (2 * MOST_FREQUENCY + 1)
#define MOST_CHANNELS 16
#define MOST_CLASSES 65536
#define MOST_SIDE 4096

typedef struct wave {
    int fx, fy;                     /* periods across the picture */
    float phase;                    /* in turns */
    float amplitude[MOST_CHANNELS]; /* in grey levels */
} wave;

typedef struct painter {
    fv_dataset *d;
    uint64_t seed;
    uint32_t class_stream, picture_stream, noise_stream;
    float *cosine, *sine;       /* [FREQUENCIES,side]: of 2 pi f x / side */
    float *wave_cos, *wave_sin; /* [side]: one wave along x */
    float *grey;                /* [h,w,c] of the picture being painted */
} painter;

static wave draw_wave(const painter *p, uint64_t element, uint64_t row, uint32_t stream, float strength) {
    fv_philox shape = fv_random(p->seed, element * 8, row, 0, stream);
    int f = 1 + (int)(shape.v[0] % (FREQUENCIES * FREQUENCIES / 2)); /* half of the plane, without its centre */
    int place = FREQUENCIES * FREQUENCIES / 2 + f;
    wave w = {.fx = place % FREQUENCIES - MOST_FREQUENCY,
              .fy = place / FREQUENCIES - MOST_FREQUENCY,
              .phase = fv_uniform_f32(shape.v[1])};
    for (int c = 0; c < p->d->c; c++) {
        fv_philox colour = fv_random(p->seed, element * 8 + 1 + (uint64_t)c / 4, row, 0, stream);
        w.amplitude[c] = strength * (2.0f * fv_uniform_f32(colour.v[c % 4]) - 1.0f);
    }
    return w;
}

/* grey += amplitude * cos(2 pi (fx x / w + fy y / h + phase)), by the addition theorem from tables. */
static void add_wave(const painter *p, const wave *w) {
    int32_t height = p->d->h, width = p->d->w, channels = p->d->c;
    const float two_pi = 6.2831853f;
    float c0 = cosf(two_pi * w->phase), s0 = sinf(two_pi * w->phase);
    const float *cx = p->cosine + (size_t)(w->fx + MOST_FREQUENCY) * (size_t)width;
    const float *sx = p->sine + (size_t)(w->fx + MOST_FREQUENCY) * (size_t)width;
    const float *cy = p->cosine + (size_t)(w->fy + MOST_FREQUENCY) * (size_t)width; /* pictures are square */
    const float *sy = p->sine + (size_t)(w->fy + MOST_FREQUENCY) * (size_t)width;
    for (int32_t x = 0; x < width; x++) {
        p->wave_cos[x] = cx[x] * c0 - sx[x] * s0;
        p->wave_sin[x] = sx[x] * c0 + cx[x] * s0;
    }
    float *grey = p->grey;
    for (int32_t y = 0; y < height; y++)
        for (int32_t x = 0; x < width; x++, grey += channels) {
            float value = p->wave_cos[x] * cy[y] - p->wave_sin[x] * sy[y];
            for (int32_t c = 0; c < channels; c++) grey[c] += w->amplitude[c] * value;
        }
}

/* grey + noise to bytes. The noise is the difference of two bytes: triangular, -255..255, scaled to a standard
 * deviation of 39. */
static void finish(const painter *p, uint64_t row, uint8_t *to) {
    size_t n = (size_t)p->d->h * (size_t)p->d->w * (size_t)p->d->c;
    for (size_t i = 0; i < n; i += 8) {
        fv_philox words = fv_random(p->seed, i / 8, row, 0, p->noise_stream);
        for (size_t j = 0; j < 8 && i + j < n; j++) {
            uint32_t bits = words.v[j / 2] >> (16 * (j % 2));
            float value = p->grey[i + j] + 0.375f * (float)((int)(bits & 255) - (int)(bits >> 8 & 255)) + 0.5f;
            to[i + j] = value < 0.0f ? 0 : value > 255.0f ? 255 : (uint8_t)value;
        }
    }
}

static void paint(const painter *p, uint64_t row, int32_t label, uint8_t *to) {
    size_t n = (size_t)p->d->h * (size_t)p->d->w * (size_t)p->d->c;
    fv_philox draw = fv_random(p->seed, 7, row, 1, p->picture_stream);
    float level = 108.0f + 40.0f * fv_uniform_f32(draw.v[0]), strength = 0.4f + 0.6f * fv_uniform_f32(draw.v[1]);
    float dx = 0.25f * fv_uniform_f32(draw.v[2]), dy = 0.25f * fv_uniform_f32(draw.v[3]); /* of the side */
    for (size_t i = 0; i < n; i++) p->grey[i] = level;
    for (uint64_t k = 0; k < WAVES; k++) {
        wave w = draw_wave(p, k, (uint64_t)label, p->class_stream, 36.0f * strength);
        w.phase += (float)w.fx * dx + (float)w.fy * dy;
        add_wave(p, &w);
    }
    for (uint64_t k = 0; k < CLUTTER; k++) {
        wave w = draw_wave(p, k, row, p->picture_stream, 48.0f);
        add_wave(p, &w);
    }
    finish(p, row, to);
}

static fv_status make_tables(painter *p, fv_arena *scratch, int32_t side) {
    size_t n = (size_t)side, picture = n * n * (size_t)p->d->c;
    p->cosine = fv_arena_alloc(scratch, FREQUENCIES * n, sizeof(float));
    p->sine = fv_arena_alloc(scratch, FREQUENCIES * n, sizeof(float));
    p->wave_cos = fv_arena_alloc(scratch, n, sizeof(float));
    p->wave_sin = fv_arena_alloc(scratch, n, sizeof(float));
    p->grey = fv_arena_alloc(scratch, picture, sizeof(float));
    if (!p->cosine || !p->sine || !p->wave_cos || !p->wave_sin || !p->grey) return FV_E_MEMORY;
    const double two_pi = 6.283185307179586476925;
    for (int f = 0; f < FREQUENCIES; f++)
        for (int32_t x = 0; x < side; x++) {
            double angle = two_pi * (f - MOST_FREQUENCY) * x / side;
            p->cosine[(size_t)f * n + (size_t)x] = (float)cos(angle);
            p->sine[(size_t)f * n + (size_t)x] = (float)sin(angle);
        }
    return FV_OK;
}

static fv_status check_opts(fv_ctx *ctx, int64_t count, int32_t side, int32_t channels, int32_t classes) {
    if (count < 1) return fv_fail(ctx, FV_E_USAGE, "the synthetic set needs at least one picture");
    if (side < 1 || side > MOST_SIDE)
        return fv_fail(ctx, FV_E_USAGE, "the synthetic set has pictures of 1 to %d pixels, not %d", MOST_SIDE, side);
    if (channels < 1 || channels > MOST_CHANNELS)
        return fv_fail(ctx, FV_E_USAGE, "the synthetic set has 1 to %d channels, not %d", MOST_CHANNELS, channels);
    if (classes < 1 || classes > MOST_CLASSES)
        return fv_fail(ctx, FV_E_USAGE, "the synthetic set has 1 to %d classes, not %d", MOST_CLASSES, classes);
    return FV_OK;
}

fv_status fv_synthetic_make(fv_dataset *d, fv_split split, const fv_dataset_opts *opts) {
    int64_t count = opts->synthetic_count ? opts->synthetic_count : split == FV_SPLIT_TRAIN ? 4096 : 1024;
    int32_t side = opts->img_size ? opts->img_size : 32, channels = opts->in_chans ? opts->in_chans : 3;
    int32_t classes = opts->classes ? opts->classes : 10, *labels;
    uint8_t *images;
    FV_TRY(check_opts(d->ctx, count, side, channels, classes));
    snprintf(d->name, sizeof d->name, "synthetic");
    FV_TRY(fv_dataset_reserve(d, "synthetic", count, side, side, channels, &images, &labels));
    FV_TRY(fv_dataset_names(d, classes, NULL));
    painter p = {.d = d, .seed = opts->seed, .class_stream = fv_hash_name("synthetic.class")};
    const char *part = split == FV_SPLIT_TRAIN ? "train" : "test";
    char stream[64];
    snprintf(stream, sizeof stream, "synthetic.%s.picture", part);
    p.picture_stream = fv_hash_name(stream);
    snprintf(stream, sizeof stream, "synthetic.%s.noise", part);
    p.noise_stream = fv_hash_name(stream);
    fv_arena scratch;
    fv_arena_init(&scratch, d->ctx);
    fv_status status = make_tables(&p, &scratch, side);
    size_t picture = (size_t)side * (size_t)side * (size_t)channels;
    for (int64_t i = 0; i < count && status == FV_OK; i++) {
        labels[i] = (int32_t)(i % classes);
        paint(&p, (uint64_t)i, labels[i], images + (size_t)i * picture);
    }
    fv_arena_free(&scratch);
    FV_TRY(status);
    d->fingerprint = fv_dataset_hash(d);
    return FV_OK;
}
