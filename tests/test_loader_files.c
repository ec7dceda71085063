/* test_loader_files.c: pictures in files on their way into batches: the evaluation crop, random resized crops, and the
 * loader with files that are good and bad. Draws and caches have suites of their own. */
#include "tests/photos.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Suite *loader_files_suite(void);

#define FILES 36
#define BATCH 7
#define PICTURE FVT_PICTURE

static fvt_photos photos;
static fv_decoder *decoder;

static const fv_augment_cfg crops = {.flip = 0.5, .scale = {0.08, 1.0}, .ratio = {3.0 / 4.0, 4.0 / 3.0}};

static void setup(void) {
    fvt_photos_make(&photos, FILES);
    ck_assert_int_eq(fv_decoder_create(&photos.ctx, &decoder), FV_OK);
}

static void teardown(void) {
    fv_decoder_destroy(decoder);
    fvt_photos_remove(&photos);
}

static void *read_whole(const char *path, size_t *bytes) {
    fv_ctx plain;
    void *data;
    fv_ctx_init(&plain);
    ck_assert_int_eq(fv_read_file(&plain, path, SIZE_MAX / 2, &data, bytes), FV_OK);
    return data; /* of malloc: small */
}

/* The whole picture at the decoder's full size. */
static fv_image decode_whole(int i) {
    const fv_decode_opts opts = {.channels = 3};
    fv_image image;
    size_t bytes;
    void *data = read_whole(fvt_photos_at(&photos, photos.name[i]), &bytes);
    ck_assert_int_eq(fv_image_decode(decoder, data, bytes, photos.name[i], &opts, &image), FV_OK);
    ck_assert(image.h == photos.h[i] && image.w == photos.w[i]);
    free(data);
    return image;
}

/* ---------------------------------------------------------------- evaluation */

/* Sizes and places as torchvision 0.26 computes them: Resize(floor(size / pct)), then CenterCrop(size). */
static const struct middle {
    int32_t h, w, size;
    double pct;
    int32_t to_h, to_w, top, left;
} middles[] = {{375, 500, 224, 0.875, 256, 341, 16, 58}, {500, 375, 224, 0.875, 341, 256, 58, 16},
               {333, 501, 224, 0.9, 248, 373, 12, 74},   {375, 503, 224, 0.875, 256, 343, 16, 60},
               {480, 641, 288, 0.96, 300, 400, 6, 56},   {32, 32, 32, 1.0, 32, 32, 0, 0},
               {50, 40, 24, 0.75, 40, 32, 8, 4},         {21, 90, 24, 0.75, 32, 137, 4, 56},
               {97, 100, 24, 0.75, 32, 32, 4, 4},        {1080, 1920, 160, 0.95, 168, 298, 4, 69}};

START_TEST(test_middle) {
    const struct middle *m = &middles[_i];
    size_t bytes = (size_t)m->to_h * (size_t)m->to_w * 3, row = (size_t)m->size * 3;
    uint8_t *whole = malloc(bytes), *out = malloc((size_t)m->size * row);
    fv_file_set one = photos.files;
    photos.h[0] = m->h;
    photos.w[0] = m->w;
    fvt_photos_paint(&photos, 0, 5);
    one.size = m->size;
    one.crop_pct = m->pct;
    for (one.filter = FV_FILTER_BILINEAR; one.filter <= FV_FILTER_BICUBIC; one.filter++) {
        fv_image image = decode_whole(0);
        fv_box all = {0, 0, m->h, m->w};
        ck_assert_int_eq(fv_image_resize(decoder, &image, all, one.filter, m->to_h, m->to_w, whole), FV_OK);
        ck_assert_int_eq(fv_picture_load(&one, decoder, 0, NULL, out), FV_OK);
        for (int32_t y = 0; y < m->size; y++)
            ck_assert_mem_eq(out + (size_t)y * row,
                             whole + ((size_t)(m->top + y) * (size_t)m->to_w + (size_t)m->left) * 3, row);
    }
    free(whole);
    free(out);
}
END_TEST

START_TEST(test_dataset_picture) {
    uint8_t out[24 * 24 * 3], again[24 * 24 * 3];
    for (int i = 0; i < FILES; i++) {
        ck_assert_int_eq(fv_dataset_picture(&photos.set, decoder, i, out), FV_OK);
        ck_assert_int_eq(fv_picture_load(&photos.files, decoder, i, NULL, again), FV_OK);
        ck_assert_mem_eq(out, again, sizeof out);
    }
    ck_assert_int_eq(fv_dataset_picture(&photos.set, decoder, FILES, out), FV_E_USAGE);
    ck_assert_int_eq(fv_dataset_picture(&photos.set, decoder, -1, out), FV_E_USAGE);
    uint8_t pixels[2 * 12] = {0};
    for (int i = 0; i < 24; i++) pixels[i] = (uint8_t)i;
    const fv_dataset memory = {.ctx = &photos.ctx, .count = 2, .h = 2, .w = 2, .c = 3, .images = pixels};
    ck_assert_int_eq(fv_dataset_picture(&memory, decoder, 1, out), FV_OK);
    ck_assert_mem_eq(out, pixels + 12, 12);
}
END_TEST

/* A file of any kind is refused with its path; nothing hangs, nothing is read that is too large. */
START_TEST(test_odd_files) {
    uint8_t out[24 * 24 * 3];
    photos.path[0] = "none.jpg";
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 0, NULL, out), FV_E_DATA);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.path, "none.jpg"));
    photos.path[0] = ".";
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 0, NULL, out), FV_E_IO);
    fvt_put_file(fvt_photos_at(&photos, photos.name[1]), "", 0);
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 1, NULL, out), FV_E_DATA);
    photos.h[2] = 1;
    photos.w[2] = 3000; /* would be 96,000 pixels wide at a height of 32 */
    fvt_photos_paint(&photos, 2, 0);
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 2, NULL, out), FV_E_DATA);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.message, "too narrow"));
    ck_assert_int_eq(truncate(fvt_photos_at(&photos, photos.name[3]), ((off_t)256 << 20) + 1), 0); /* a hole */
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 3, NULL, out), FV_E_DATA);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.message, "more than a picture may have"));
    fvt_photos_paint(&photos, 3, 3);
    photos.io.fail = FVT_READ;
    photos.io.fail_at = photos.io.calls[FVT_READ] + 1;
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 3, NULL, out), FV_E_IO);
    ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 3, NULL, out), FV_OK);
}
END_TEST

/* ---------------------------------------------------------------- random resized crops */

/* A JPEG is decoded at half its size or less where the crop is large: what comes out must be near to the crop of the
 * whole, and be it somewhere else than in the box drawn, it would be far from it. */
START_TEST(test_crop_of_reduced) {
    const int32_t sizes[][2] = {{400, 600}, {601, 399}, {1203, 1601}};
    double worst = 0;
    int reduced = 0;
    for (int s = 0; s < 3; s++) {
        photos.h[0] = sizes[s][0];
        photos.w[0] = sizes[s][1];
        fvt_photos_paint(&photos, 0, (uint32_t)s);
        for (int64_t key = 0; key < 12; key++) {
            const fv_picture_draw draw = {.augment = &crops, .seed = 4, .epoch = 1, .key = key};
            uint8_t out[24 * 24 * 3], plain[24 * 24 * 3];
            double sum = 0;
            ck_assert_int_eq(fv_picture_load(&photos.files, decoder, 0, &draw, out), FV_OK);
            fv_image image = decode_whole(0);
            fv_box box = fv_augment_box(&crops, 4, 1, key, image.h, image.w);
            ck_assert_int_eq(fv_image_resize(decoder, &image, box, FV_FILTER_BILINEAR, 24, 24, plain), FV_OK);
            for (size_t i = 0; i < sizeof out; i++) sum += abs(out[i] - plain[i]);
            worst = fmax(worst, sum / sizeof out);
            reduced += sum > 0;
        }
    }
    ck_assert_int_gt(reduced, 20);
    ck_assert_double_lt(worst, 1.5);
}
END_TEST

/* ---------------------------------------------------------------- the loader */

static fv_loader *make_loader(bool train, int workers, const fv_augment_cfg *augment, bool balanced) {
    const fv_loader_cfg cfg = {
        .batch = BATCH, .train = train, .augment = augment, .seed = 11, .workers = workers, .balanced = balanced};
    fv_loader *l;
    ck_assert_msg(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &cfg, &l) == FV_OK, "%s",
                  photos.ctx.error.message);
    return l;
}

static uint64_t hash(uint64_t h, const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static uint64_t hash_batch(const fv_batch *b) {
    size_t n = (size_t)b->size;
    uint64_t h = hash(14695981039346656037u, b->images, n * PICTURE);
    h = hash(h, b->record, n * FV_AUG_FIELDS * sizeof *b->record);
    h = hash(h, b->labels, n * sizeof *b->labels);
    h = hash(h, b->row_weight, n * sizeof *b->row_weight);
    h = hash(h, b->row_key, n * sizeof *b->row_key);
    return hash(h, b->index, n * sizeof *b->index);
}

static int run_epoch(fv_loader *l, int64_t epoch, int64_t first, uint64_t *to) {
    fv_batch b;
    ck_assert_int_eq(fv_loader_start(l, epoch, first), FV_OK);
    for (int n = 0;; n++) {
        ck_assert_msg(fv_loader_next(l, &b) == FV_OK, "%s", photos.ctx.error.message);
        if (b.size == 0) return n;
        to[n] = hash_batch(&b);
    }
}

/* The same batches for any number of workers, and from any batch on: a run that was stopped goes on as it would have.
 */
START_TEST(test_same_batches) {
    static const int workers[] = {0, 1, 2, 4};
    bool train = _i > 0, balanced = _i == 2;
    int batches = train ? FILES / BATCH : (FILES + BATCH - 1) / BATCH;
    uint64_t expected[3][8], got[8];
    for (int w = 0; w < 4; w++) {
        fv_loader *l = make_loader(train, workers[w], &crops, balanced);
        for (int epoch = 0; epoch < 3; epoch++) {
            ck_assert_int_eq(run_epoch(l, epoch, 0, got), batches);
            if (w == 0) memcpy(expected[epoch], got, sizeof got);
            ck_assert_mem_eq(got, expected[epoch], (size_t)batches * sizeof *got);
        }
        for (int first = 0; first <= batches; first++) {
            fv_batch b;
            ck_assert_int_eq(fv_loader_start(l, first % 3, 0), FV_OK);
            for (int k = 0; k < first % 3; k++) ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            ck_assert_int_eq(run_epoch(l, 1, first, got), batches - first);
            ck_assert_mem_eq(got, expected[1] + first, (size_t)(batches - first) * sizeof *got);
        }
        fv_loader_destroy(l);
    }
    ck_assert_int_eq(memcmp(expected[0], expected[1], (size_t)batches * sizeof *got) != 0, train);
}
END_TEST

/* What lies in a batch: the picture of that file and draw, its record, its label. */
START_TEST(test_batch_contents) {
    for (int train = 0; train < 2; train++) {
        fv_loader *l = make_loader(train, 2, &crops, false);
        fv_batch b;
        ck_assert_int_eq(fv_loader_start(l, 2, 0), FV_OK);
        for (;;) {
            ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            if (b.size == 0) break;
            ck_assert_ptr_null(b.targets);
            for (int64_t r = 0; r < b.size; r++) {
                const fv_picture_draw draw = {.augment = &crops, .seed = 11, .epoch = 2, .key = b.index[r]};
                uint8_t picture[PICTURE];
                float record[FV_AUG_FIELDS];
                ck_assert_int_eq(fv_picture_load(&photos.files, decoder, b.index[r], train ? &draw : NULL, picture),
                                 FV_OK);
                ck_assert_mem_eq(b.images + (size_t)r * PICTURE, picture, PICTURE);
                fv_augment_record(train ? &crops : NULL, 11, 2, b.index[r], 24, 24, record);
                ck_assert_mem_eq(b.record + r * FV_AUG_FIELDS, record, sizeof record);
                ck_assert_int_eq(b.labels[r], photos.labels[b.index[r]]);
                ck_assert_float_eq(b.row_weight[r], r < b.valid ? 1.0f : 0.0f);
            }
        }
        fv_loader_destroy(l);
    }
}
END_TEST

START_TEST(test_targets) {
    uint8_t targets[FILES * 3] = {0};
    for (int i = 0; i < FILES; i++)
        for (int k = 0; k < 3; k++) targets[3 * i + k] = (i >> k) & 1;
    photos.set.targets = targets;
    const fv_loader_cfg shuffled = {.batch = FILES, .train = true, .seed = 1, .workers = 1, .shuffle_labels = true};
    fv_loader *l = make_loader(false, 2, NULL, false);
    fv_batch b;
    ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
    for (;;) {
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        if (b.size == 0) break;
        for (int64_t r = 0; r < b.size; r++)
            for (int k = 0; k < 3; k++) ck_assert_float_eq(b.targets[3 * r + k], targets[3 * b.index[r] + k]);
    }
    fv_loader_destroy(l);
    /* shuffled with the labels: the same rows, at other samples */
    int rows[8] = {0}, moved = 0;
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &shuffled, &l), FV_OK);
    ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
    ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
    for (int64_t r = 0; r < FILES; r++) {
        int row = (int)(b.targets[3 * r] + 2 * b.targets[3 * r + 1] + 4 * b.targets[3 * r + 2]);
        rows[row]++;
        rows[b.index[r] % 8]--;
        moved += row != b.index[r] % 8;
    }
    for (int k = 0; k < 8; k++) ck_assert_int_eq(rows[k], 0);
    ck_assert_int_gt(moved, FILES / 2);
    fv_loader_destroy(l);
    const fv_loader_cfg balanced = {.batch = 4, .train = true, .balanced = true};
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &balanced, &l), FV_E_USAGE);
}
END_TEST

/* Balanced: the classes of 18, 12 and 6 pictures, and a view that lacks one, come equally often, each picture of a
 * class too; and a picture that comes twice in an epoch is cropped in two ways. */
START_TEST(test_balanced) {
    int64_t view[FILES], n = 0;
    for (int64_t i = 0; i < FILES; i++)
        if (_i == 0 || photos.labels[i] != 1) view[n++] = i;
    const int epochs = 400;
    const fv_loader_cfg cfg = {.batch = 1, .train = true, .augment = &crops, .seed = 3, .workers = 0, .balanced = true};
    fv_dataset memory = photos.set; /* the same labels without the work of decoding */
    fv_augment_cfg flips = {.flip = 0.5};
    fv_loader_cfg quick = cfg;
    uint8_t *pixels = calloc(FILES, PICTURE);
    memory.images = pixels;
    memory.files = NULL;
    quick.augment = &flips;
    quick.batch = n;
    fv_loader *l;
    fv_batch b;
    double class[3] = {0}, sample[FILES] = {0};
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &memory, view, n, &quick, &l), FV_OK);
    for (int e = 0; e < epochs; e++) {
        ck_assert_int_eq(fv_loader_start(l, e, 0), FV_OK);
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        for (int64_t r = 0; r < n; r++) {
            class[b.labels[r]]++;
            sample[b.index[r]]++;
            ck_assert_int_eq(b.row_key[r], r);
        }
    }
    double draws = (double)(epochs * n), classes = _i == 0 ? 3 : 2;
    for (int k = 0; k < 3; k++) {
        double share = _i == 1 && k == 1 ? 0 : 1 / classes;
        ck_assert_double_lt(fabs(class[k] / draws - share), 4.5 * sqrt(share * (1 - share) / draws) + 1e-12);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t members = photos.labels[view[i]] == 0 ? 18 : photos.labels[view[i]] == 1 ? 12 : 6;
        double share = 1 / classes / (double)members;
        ck_assert_double_lt(fabs(sample[view[i]] / draws - share), 4.5 * sqrt(share / draws));
    }
    fv_loader_destroy(l);
    free(pixels);

    uint64_t first[FILES] = {0};
    int again = 0, same = 0;
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, view, n, &cfg, &l), FV_OK);
    ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
    for (int64_t p = 0; p < n; p++) {
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        uint64_t h = hash(1, b.images, PICTURE);
        if (first[b.index[0]]) again++, same += h == first[b.index[0]];
        first[b.index[0]] = h;
    }
    ck_assert_int_gt(again, 5);
    ck_assert_int_eq(same, 0);
    fv_loader_destroy(l);
}
END_TEST

/* A bad file is an error of fv_loader_next, of the first bad batch in order, for any number of workers, as often as one
 * asks; and what comes before it is delivered. */
START_TEST(test_bad_files) {
    static const int workers[] = {0, 1, 2, 4};
    fvt_photos_cut(&photos, 16);
    fvt_photos_cut(&photos, 17);
    fvt_put_file(fvt_photos_at(&photos, photos.name[30]), "no picture", 10);
    for (int w = 0; w < 4; w++) {
        fv_loader *l = make_loader(false, workers[w], NULL, false);
        for (int round = 0; round < 3; round++) {
            fv_batch b;
            ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
            for (int k = 0; k < 16 / BATCH; k++) {
                ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
                ck_assert_int_eq(b.index[0], k * BATCH);
            }
            for (int asked = 0; asked < 3; asked++) {
                ck_assert_int_eq(fv_loader_next(l, &b), FV_E_DATA);
                ck_assert_int_eq(b.size, 0);
                ck_assert_str_eq(photos.ctx.error.path, fvt_photos_at(&photos, photos.name[16]));
                ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "fovea data check"));
                ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--skip-bad"));
            }
            ck_assert_int_eq(fv_loader_start(l, 0, 3), FV_OK); /* one may go on behind it */
            ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            ck_assert_int_eq(b.index[0], 3 * BATCH);
            ck_assert_int_eq(fv_loader_next(l, &b), FV_E_DATA);
            ck_assert_str_eq(photos.ctx.error.path, fvt_photos_at(&photos, photos.name[30]));
        }
        fv_loader_destroy(l);
        l = make_loader(true, workers[w], &crops, false); /* and destroyed at any time */
        ck_assert_int_eq(fv_loader_start(l, w, 0), FV_OK);
        fv_loader_destroy(l);
    }
}
END_TEST

START_TEST(test_refused_augmentation) {
    static const fv_augment_cfg wrong[] = {
        {.vflip = -0.1},
        {.vflip = NAN},
        {.erase = 1.1},
        {.jitter = {-0.1}},
        {.jitter = {0, 0, 1.5}},
        {.jitter = {0, 0, 0, 0.6}},
        {.jitter = {0, NAN}},
        {.scale = {0.0, 1.0}, .ratio = {1, 1}},
        {.scale = {0.5, 0.4}, .ratio = {1, 1}},
        {.scale = {0.5, 1.5}, .ratio = {1, 1}},
        {.scale = {NAN, 1.0}, .ratio = {1, 1}},
        {.scale = {0.5, NAN}, .ratio = {1, 1}},
        {.scale = {0.5, 1.0}},
        {.scale = {0.5, 1.0}, .ratio = {2, 1}},
        {.scale = {0.5, 1.0}, .ratio = {1, INFINITY}},
    };
    fv_loader *l;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        const fv_loader_cfg cfg = {.batch = 2, .train = true, .augment = &wrong[i]};
        ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &cfg, &l), FV_E_USAGE);
        ck_assert_ptr_null(l);
    }
    const fv_loader_cfg balanced = {.batch = 2, .train = true, .balanced = true};
    for (int32_t label = -1; label < 4; label += 4) { /* neither is a class */
        photos.labels[5] = label;
        ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &balanced, &l), FV_E_DATA);
        ck_assert_ptr_null(l);
    }
    photos.labels[5] = 2;
    const fv_loader_cfg cfg = {.batch = 2, .train = true, .augment = &crops};
    fv_dataset memory = photos.set;
    uint8_t pixels[1] = {0};
    memory.images = pixels;
    memory.files = NULL;
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &memory, NULL, 0, &cfg, &l), FV_E_USAGE);
    ck_assert_ptr_nonnull(strstr(photos.ctx.error.hint, "--train-crop pad"));
}
END_TEST

/* The Nth allocation fails: at creation an error without a leak, in an epoch an error of fv_loader_next. After one
 * epoch there are no more allocations. */
START_TEST(test_memory) {
    int64_t before = photos.memory.live;
    bool reached = true;
    for (int64_t n = 1; reached; n++) {
        const fv_loader_cfg cfg = {.batch = BATCH, .train = true, .augment = &crops, .workers = _i, .balanced = true};
        fv_loader *l;
        fv_batch b = {0};
        photos.memory.calls = 0;
        photos.memory.fail_at = n;
        fv_status status = fv_loader_create(&photos.ctx, &photos.set, NULL, 0, &cfg, &l);
        if (status == FV_OK) {
            ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
            do status = fv_loader_next(l, &b);
            while (status == FV_OK && b.size > 0);
        }
        fv_loader_destroy(l); /* nobody counts from here on */
        reached = photos.memory.calls >= n;
        photos.memory.fail_at = 0;
        ck_assert_int_eq(status, reached ? FV_E_MEMORY : FV_OK);
        ck_assert_int_eq(photos.memory.live, before);
    }
    int64_t jpegs[FILES], n = 0, calls = 0;
    for (int64_t i = 0; i < FILES; i++)
        if (strstr(photos.name[i], ".jpg")) jpegs[n++] = i;
    const fv_loader_cfg cfg = {.batch = BATCH};
    uint64_t batches[8];
    fv_loader *l;
    ck_assert_int_eq(fv_loader_create(&photos.ctx, &photos.set, jpegs, n, &cfg, &l), FV_OK);
    for (int epoch = 0; epoch < 2; epoch++) {
        calls = photos.memory.calls;
        run_epoch(l, epoch, 0, batches);
    }
    ck_assert_int_eq(photos.memory.calls, calls);
    fv_loader_destroy(l);
}
END_TEST

Suite *loader_files_suite(void) {
    Suite *suite = suite_create("loader_files");
    TCase *tcase = tcase_create("files");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, test_middle, 0, (int)(sizeof middles / sizeof *middles));
    tcase_add_test(tcase, test_dataset_picture);
    tcase_add_test(tcase, test_odd_files);
    tcase_add_test(tcase, test_crop_of_reduced);
    tcase_add_loop_test(tcase, test_same_batches, 0, 3);
    tcase_add_test(tcase, test_batch_contents);
    tcase_add_test(tcase, test_targets);
    tcase_add_loop_test(tcase, test_balanced, 0, 2);
    tcase_add_test(tcase, test_bad_files);
    tcase_add_test(tcase, test_refused_augmentation);
    tcase_add_loop_test(tcase, test_memory, 0, 3);
    suite_add_tcase(suite, tcase);
    return suite;
}
