/* test_data_loader.c: augmentation records and the loader: a batch is a function of (seed, epoch, batch number) and of
 * nothing else. */
#include "data/internal.h"
#include "tests/faults.h"

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

Suite *data_loader_suite(void);

#define EPOCHS 3
#define MOST_BATCHES 64

static fv_ctx ctx;
static fvt_memory memory;
static fv_dataset *set;

static void setup(void) {
    fv_ctx_init(&ctx);
    fvt_memory_install(&memory, &ctx);
    const fv_dataset_opts opts = {.synthetic_count = 203, .img_size = 8, .in_chans = 3, .classes = 5, .seed = 1};
    ck_assert_int_eq(fv_dataset_open(&ctx, "synthetic", FV_SPLIT_TRAIN, &opts, &set), FV_OK);
}

static void teardown(void) {
    fv_dataset_free(set);
    ck_assert_int_eq(memory.live, 0);
}

/* ---------------------------------------------------------------- records */

static int compare_records(const void *a, const void *b) {
    return memcmp(a, b, FV_AUG_FIELDS * sizeof(float));
}

/* R10: with room for 1e11 different records, 15,000 samples of three epochs and two seeds all differ: no two draws
 * share a counter. */
START_TEST(test_records_differ) {
    const fv_augment_cfg cfg = {.crop_pad = 4000, .flip = 0.5, .cutout = 8};
    const int64_t n = 5000;
    float *records = malloc((size_t)(4 * n) * FV_AUG_FIELDS * sizeof *records);
    for (int64_t i = 0; i < 4 * n; i++)
        fv_augment_record(&cfg, i < 3 * n ? 7 : 8, i / n % 3, i % n, 256, 256, records + i * FV_AUG_FIELDS);
    qsort(records, (size_t)(4 * n), FV_AUG_FIELDS * sizeof *records, compare_records);
    for (int64_t i = 1; i < 4 * n; i++)
        ck_assert_int_ne(compare_records(records + (i - 1) * FV_AUG_FIELDS, records + i * FV_AUG_FIELDS), 0);
    free(records);
}
END_TEST

static int compare_bytes(const void *a, const void *b) {
    return memcmp(a, b, sizeof(uint32_t[4]));
}

/* R10: the counters of all draws of four workers over three epochs are different ones: element, sample (or place, for a
 * balanced epoch), epoch, stream; and none of the four is folded into another's. */
START_TEST(test_counters_differ) {
    static const char *const streams[] = {"data.augment", "data.shuffle", "data.balanced", "data.shuffle_labels"};
    enum { STREAMS = 4, ELEMENTS = 96, SAMPLES = 203 };
    const size_t n = (size_t)STREAMS * ELEMENTS * SAMPLES * EPOCHS;
    uint32_t(*counter)[4] = malloc(n * sizeof *counter), (*to)[4] = counter;
    for (int stream = 0; stream < STREAMS; stream++)
        for (uint64_t element = 0; element < ELEMENTS; element++)
            for (uint64_t sample = 0; sample < SAMPLES; sample++)
                for (uint64_t epoch = 0; epoch < EPOCHS; epoch++, to++) {
                    const uint32_t c[4] = {fv_fold(element), fv_fold(sample), fv_fold(epoch),
                                           fv_hash_name(streams[stream])};
                    memcpy(to, c, sizeof c);
                }
    qsort(counter, n, sizeof *counter, compare_bytes);
    for (size_t i = 1; i < n; i++) ck_assert_int_ne(compare_bytes(counter + i - 1, counter + i), 0);
    free(counter);
}
END_TEST

/* R10: what the workers really drew: no record of any place of any epoch is that of another, they are those that one
 * thread draws, and so are the boxes of random crops. */
START_TEST(test_workers_draw_apart) {
    const fv_augment_cfg cfg = {
        .crop_pad = 4000, .flip = 0.5, .jitter = {0.4, 0.4, 0.4, 0.1}, .erase = 0.9, .erase_noise = true};
    const fv_augment_cfg crop = {.scale = {0.08, 1}, .ratio = {0.75, 4.0 / 3.0}};
    enum { ROWS = 203 / 7 * 7, ALL = EPOCHS * ROWS };
    const size_t row = FV_AUG_FIELDS * sizeof(float);
    for (int balanced = 0; balanced < 2; balanced++) {
        float *records[2];
        double(*boxes)[4] = malloc(ALL * sizeof *boxes);
        for (int w = 0; w < 2; w++) {
            const fv_loader_cfg how = {
                .batch = 7, .train = true, .augment = &cfg, .seed = 5, .workers = 4 * w, .balanced = balanced};
            float *to = records[w] = malloc(ALL * row);
            fv_loader *l;
            fv_batch b;
            int64_t drawn = 0;
            ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &how, &l), FV_OK);
            for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
                ck_assert_int_eq(fv_loader_start(l, epoch, 0), FV_OK);
                while (fv_loader_next(l, &b) == FV_OK && b.size > 0) {
                    memcpy(to + drawn * FV_AUG_FIELDS, b.record, 7 * row);
                    for (int64_t r = 0; r < 7; r++, drawn++) {
                        fv_box box = fv_augment_box(&crop, 5, epoch, b.row_key[r], 30000, 40000);
                        memcpy(boxes + drawn, &box, sizeof box);
                    }
                }
            }
            ck_assert_int_eq(drawn, ALL);
            fv_loader_destroy(l);
        }
        ck_assert_mem_eq(records[0], records[1], ALL * row);
        qsort(records[0], ALL, row, compare_records);
        for (int64_t i = 1; i < ALL; i++)
            ck_assert_int_ne(compare_records(records[0] + (i - 1) * FV_AUG_FIELDS, records[0] + i * FV_AUG_FIELDS), 0);
        for (int64_t i = 0; i < ALL; i++)
            for (int64_t k = 0; k < i; k++) ck_assert_mem_ne(boxes[i], boxes[k], sizeof *boxes);
        free(records[0]);
        free(records[1]);
        free(boxes);
    }
}
END_TEST

START_TEST(test_record_ranges) {
    const fv_augment_cfg cfg = {.crop_pad = 4, .flip = 0.3, .cutout = 9};
    const int64_t n = 20000;
    int64_t tops[9] = {0}, lefts[9] = {0}, flips = 0, full = 0;
    for (int64_t i = 0; i < n; i++) {
        float r[FV_AUG_FIELDS], again[FV_AUG_FIELDS];
        fv_augment_record(&cfg, 3, 2, i, 32, 24, r);
        fv_augment_record(&cfg, 3, 2, i, 32, 24, again);
        ck_assert_mem_eq(r, again, sizeof r);
        int top = (int)r[FV_AUG_TOP], left = (int)r[FV_AUG_LEFT];
        ck_assert(top >= -4 && top <= 4 && left >= -4 && left <= 4 && (float)top == r[FV_AUG_TOP]);
        tops[top + 4]++;
        lefts[left + 4]++;
        ck_assert(r[FV_AUG_FLIP] == 0.0f || r[FV_AUG_FLIP] == 1.0f);
        flips += r[FV_AUG_FLIP] == 1.0f;
        float y = r[FV_AUG_CUT_TOP], x = r[FV_AUG_CUT_LEFT], h = r[FV_AUG_CUT_H], w = r[FV_AUG_CUT_W];
        ck_assert(y >= 0 && x >= 0 && h >= 5 && h <= 9 && w >= 5 && w <= 9 && y + h <= 32 && x + w <= 24);
        full += h == 9 && w == 9;
    }
    double chi = 0.0, expected = (double)n / 9;
    for (int k = 0; k < 9; k++)
        chi += ((double)tops[k] - expected) * ((double)tops[k] - expected) / expected +
               ((double)lefts[k] - expected) * ((double)lefts[k] - expected) / expected;
    ck_assert_double_lt(chi, 40.8); /* 16 degrees of freedom: 1 in 1700 */
    ck_assert_double_lt(fabs((double)flips / (double)n - 0.3), 0.011);
    ck_assert_double_lt(fabs((double)full / (double)n - 24.0 * 16.0 / (32.0 * 24.0)), 0.012);
    float r[FV_AUG_FIELDS];
    fv_augment_record(NULL, 1, 1, 1, 32, 32, r);
    for (int k = 0; k < FV_AUG_FIELDS; k++) ck_assert_float_eq(r[k], 0.0f);
}
END_TEST

/* ---------------------------------------------------------------- batches */

static uint64_t hash_bytes(uint64_t h, const void *data, size_t bytes) {
    const unsigned char *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static uint64_t hash_batch(const fv_batch *b) {
    size_t n = (size_t)b->size, picture = (size_t)set->h * (size_t)set->w * (size_t)set->c;
    uint64_t h = hash_bytes(14695981039346656037u, &b->valid, sizeof b->valid);
    h = hash_bytes(h, b->images, n * picture);
    h = hash_bytes(h, b->record, n * FV_AUG_FIELDS * sizeof *b->record);
    h = hash_bytes(h, b->labels, n * sizeof *b->labels);
    h = hash_bytes(h, b->row_weight, n * sizeof *b->row_weight);
    h = hash_bytes(h, b->row_key, n * sizeof *b->row_key);
    return hash_bytes(h, b->index, n * sizeof *b->index);
}

static const fv_augment_cfg augment = {.crop_pad = 2, .flip = 0.5, .cutout = 3};

static fv_loader *make_loader(bool train, int64_t batch, int workers, int prefetch, const int64_t *index, int64_t n) {
    fv_augment_cfg borrowed = augment; /* must be copied */
    fv_loader_cfg cfg = {
        .batch = batch, .train = train, .augment = &borrowed, .seed = 9, .workers = workers, .prefetch = prefetch};
    fv_loader *l;
    ck_assert_msg(fv_loader_create(&ctx, set, index, n, &cfg, &l) == FV_OK, "%s", ctx.error.message);
    memset(&borrowed, 0xff, sizeof borrowed);
    return l;
}

static void short_sleep(void) {
    const struct timespec t = {.tv_nsec = 200000};
    nanosleep(&t, NULL);
}

/* Hashes of the batches first.. of an epoch; how many there were. The reader pauses now and then, so that the ring runs
 * full. */
static int64_t run_epoch(fv_loader *l, int64_t epoch, int64_t first, uint64_t *hash) {
    int64_t n = 0;
    fv_batch b;
    ck_assert_int_eq(fv_loader_start(l, epoch, first), FV_OK);
    for (;;) {
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        if (b.size == 0) return n;
        ck_assert_int_lt(n, MOST_BATCHES);
        if (n % 5 == 3) short_sleep();
        hash[n++] = hash_batch(&b);
    }
}

START_TEST(test_determinism) {
    static const int workers[] = {0, 1, 2, 4, 4}, prefetch[] = {0, 1, 0, 3, 64};
    int64_t view[150], n = _i ? 150 : set->count;
    for (int64_t i = 0; i < 150; i++) view[i] = (7 * i + 3) % set->count;
    uint64_t expected[EPOCHS][MOST_BATCHES], got[MOST_BATCHES];
    for (int w = 0; w < 5; w++) {
        fv_loader *l = make_loader(true, 16, workers[w], prefetch[w], _i ? view : NULL, n);
        ck_assert_int_eq(fv_loader_batches(l), n / 16);
        fv_batch none;
        ck_assert_int_eq(fv_loader_next(l, &none), FV_OK); /* nothing was started */
        ck_assert_int_eq(none.size, 0);
        for (int64_t e = 0; e < EPOCHS; e++) {
            ck_assert_int_eq(run_epoch(l, e, 0, got), n / 16);
            if (w == 0) memcpy(expected[e], got, sizeof got);
            ck_assert_mem_eq(got, expected[e], (size_t)(n / 16) * sizeof *got);
        }
        ck_assert(memcmp(expected[0], expected[1], (size_t)(n / 16) * sizeof *got) != 0);
        for (int64_t k = 0; k <= n / 16; k++) { /* in the midst of an epoch, out of the midst of another */
            fv_batch b;
            ck_assert_int_eq(fv_loader_start(l, k % EPOCHS, 0), FV_OK);
            for (int64_t j = 0; j < k % 4; j++) ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            ck_assert_int_eq(run_epoch(l, 1, k, got), n / 16 - k);
            ck_assert_mem_eq(got, expected[1] + k, (size_t)(n / 16 - k) * sizeof *got);
        }
        ck_assert_double_ge(fv_loader_wait_seconds(l), 0.0);
        fv_loader_destroy(l);
    }
}
END_TEST

/* Without pictures a batch is what it is with them otherwise; labels that are lent are those of the lenders. */
START_TEST(test_batches_without_images) {
    fv_loader_cfg cfg = {.batch = 16, .train = true, .seed = 9, .workers = 1, .shuffle_labels = true};
    fv_loader *with, *without;
    fv_batch a, b;
    int64_t view[150], lender[256];
    int differ = 0;
    for (int64_t i = 0; i < 150; i++) view[i] = (5 * i + 3) % set->count;
    ck_assert_int_eq(fv_loader_create(&ctx, set, view, 150, &cfg, &with), FV_OK);
    cfg.no_images = true;
    ck_assert_int_eq(fv_loader_create(&ctx, set, view, 150, &cfg, &without), FV_OK);
    fv_loader_lenders(without, lender);
    ck_assert_int_eq(fv_loader_start(with, 1, 0), FV_OK);
    ck_assert_int_eq(fv_loader_start(without, 1, 0), FV_OK);
    for (int64_t k = 0; k < 150 / 16; k++) {
        ck_assert_int_eq(fv_loader_next(with, &a), FV_OK);
        ck_assert_int_eq(fv_loader_next(without, &b), FV_OK);
        ck_assert(a.images && !b.images && b.size == 16);
        ck_assert_mem_eq(a.record, b.record, 16 * FV_AUG_FIELDS * sizeof *a.record);
        ck_assert_mem_eq(a.labels, b.labels, 16 * sizeof *a.labels);
        ck_assert_mem_eq(a.row_weight, b.row_weight, 16 * sizeof *a.row_weight);
        ck_assert_mem_eq(a.row_key, b.row_key, 16 * sizeof *a.row_key);
        ck_assert_mem_eq(a.index, b.index, 16 * sizeof *a.index);
        for (int r = 0; r < 16; r++) {
            ck_assert_int_eq(b.labels[r], set->labels[lender[b.index[r]]]);
            differ += lender[b.index[r]] != b.index[r];
        }
    }
    ck_assert_int_gt(differ, 100);
    fv_loader_destroy(with);
    fv_loader_destroy(without);
    cfg = (fv_loader_cfg){.batch = 16, .no_images = true}; /* with a last batch that is padded */
    ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &cfg, &without), FV_OK);
    fv_loader_lenders(without, lender);
    for (int64_t i = 0; i < set->count; i++) ck_assert_int_eq(lender[i], i);
    ck_assert_int_eq(fv_loader_start(without, 0, 203 / 16), FV_OK);
    ck_assert_int_eq(fv_loader_next(without, &b), FV_OK);
    ck_assert(!b.images && b.valid == 203 % 16);
    fv_loader_destroy(without);
}
END_TEST

/* Of cfg.hold batches the last ones stay as they were. */
START_TEST(test_held_batches) {
    enum { HOLD = 3 };
    for (int workers = 0; workers < 3; workers++) {
        const fv_loader_cfg cfg = {
            .batch = 16, .train = true, .seed = 9, .workers = workers, .prefetch = 1, .hold = HOLD};
        fv_loader *l;
        fv_batch b[203 / 16];
        uint64_t hash[203 / 16];
        ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &cfg, &l), FV_OK);
        for (int64_t epoch = 0; epoch < 2; epoch++) {
            ck_assert_int_eq(fv_loader_start(l, epoch, epoch), FV_OK);
            for (int64_t k = 0; k < 203 / 16 - epoch; k++) {
                ck_assert_int_eq(fv_loader_next(l, &b[k]), FV_OK);
                ck_assert_int_eq(b[k].size, 16);
                hash[k] = hash_batch(&b[k]);
                short_sleep(); /* whoever would overwrite them has the time to */
                for (int64_t j = k < HOLD ? 0 : k - HOLD + 1; j < k; j++) ck_assert(hash_batch(&b[j]) == hash[j]);
            }
        }
        fv_loader_destroy(l);
    }
}
END_TEST

/* What a training epoch is made of: every sample at most once, in another order each time, with the record of (seed,
 * epoch, index). */
START_TEST(test_training_epoch) {
    size_t picture = (size_t)set->h * (size_t)set->w * (size_t)set->c;
    int64_t first_of[2] = {-1, -1};
    fv_loader *l = make_loader(true, 16, 2, 0, NULL, 0);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        bool seen[256] = {false};
        fv_batch b;
        ck_assert_int_eq(fv_loader_start(l, epoch, 0), FV_OK);
        for (int64_t k = 0; k < 203 / 16; k++) {
            ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            ck_assert(b.size == 16 && b.valid == 16);
            for (int64_t r = 0; r < 16; r++) {
                int64_t i = b.index[r];
                float record[FV_AUG_FIELDS];
                if (first_of[epoch] < 0) first_of[epoch] = i;
                ck_assert(i >= 0 && i < set->count && !seen[i]);
                seen[i] = true;
                ck_assert_int_eq(b.row_key[r], i);
                ck_assert_int_eq(b.labels[r], set->labels[i]);
                ck_assert_float_eq(b.row_weight[r], 1.0f);
                ck_assert_mem_eq(b.images + (size_t)r * picture, set->images + (size_t)i * picture, picture);
                fv_augment_record(&augment, 9, epoch, i, set->h, set->w, record);
                ck_assert_mem_eq(b.record + r * FV_AUG_FIELDS, record, sizeof record);
            }
        }
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        ck_assert_int_eq(b.size, 0);
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        ck_assert_int_eq(b.size, 0);
    }
    ck_assert_int_ne(first_of[0], first_of[1]);
    fv_loader_destroy(l);
}
END_TEST

/* Alternating flips, with and without workers and in epochs that are begun in the middle: each sample is flipped in
 * every second epoch, by its own index and not by its place. */
START_TEST(test_flips_alternate) {
    const fv_augment_cfg alternate = {.flip = 0.5, .alternate_flip = true};
    static const int workers[] = {0, 3};
    int8_t flip[2][4][256], first = 0;
    memset(flip, -1, sizeof flip);
    for (int w = 0; w < 2; w++) {
        const fv_loader_cfg cfg = {
            .batch = 7, .train = true, .augment = &alternate, .seed = 9, .workers = workers[w], .prefetch = w ? 3 : 0};
        fv_loader *l;
        fv_batch b;
        ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &cfg, &l), FV_OK);
        for (int64_t epoch = 0; epoch < 4; epoch++) {
            ck_assert_int_eq(fv_loader_start(l, epoch, w && epoch == 2 ? 5 : 0), FV_OK);
            while (fv_loader_next(l, &b) == FV_OK && b.size > 0)
                for (int64_t r = 0; r < b.size; r++)
                    flip[w][epoch][b.index[r]] = (int8_t)b.record[r * FV_AUG_FIELDS + FV_AUG_FLIP];
        }
        fv_loader_destroy(l);
    }
    for (int i = 0; i < 203; i++) {
        first = -1;
        for (int w = 0; w < 2; w++)
            for (int epoch = 0; epoch < 4; epoch++) {
                if (flip[w][epoch][i] < 0) continue; /* among those left over */
                if (first < 0) first = (int8_t)(flip[w][epoch][i] ^ (epoch & 1));
                ck_assert_int_eq(flip[w][epoch][i], first ^ (epoch & 1));
            }
        ck_assert_int_ge(first, 0);
    }
}
END_TEST

/* Evaluation: in order, not augmented, the last batch padded with weight 0. */
START_TEST(test_evaluation_epoch) {
    static const int64_t sizes[] = {1, 7, 16, 203, 500};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        fv_loader *l = make_loader(false, sizes[s], 2, 0, NULL, 0);
        fv_batch b;
        int64_t place = 0;
        ck_assert_int_eq(fv_loader_batches(l), (203 + sizes[s] - 1) / sizes[s]);
        ck_assert_int_eq(fv_loader_start(l, 0, 0), FV_OK);
        for (;;) {
            ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
            if (b.size == 0) break;
            ck_assert_int_eq(b.size, sizes[s]);
            for (int64_t r = 0; r < b.size; r++) {
                ck_assert_float_eq(b.row_weight[r], r < b.valid ? 1.0f : 0.0f);
                ck_assert_int_eq(b.index[r], r < b.valid ? place + r : place + b.valid - 1);
                for (int k = 0; k < FV_AUG_FIELDS; k++) ck_assert_float_eq(b.record[r * FV_AUG_FIELDS + k], 0.0f);
            }
            place += b.valid;
        }
        ck_assert_int_eq(place, 203);
        fv_loader_destroy(l);
    }
}
END_TEST

/* The labels are permuted once: the same ones, at other samples, the same way in every epoch. */
START_TEST(test_shuffled_labels) {
    const fv_loader_cfg cfg = {.batch = 203, .train = true, .seed = 2, .shuffle_labels = true};
    int32_t label[2][256], count[5] = {0};
    int64_t moved = 0;
    fv_loader *l;
    fv_batch b;
    ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &cfg, &l), FV_OK);
    for (int64_t epoch = 0; epoch < 2; epoch++) {
        ck_assert_int_eq(fv_loader_start(l, epoch, 0), FV_OK);
        ck_assert_int_eq(fv_loader_next(l, &b), FV_OK);
        for (int64_t r = 0; r < 203; r++) label[epoch][b.index[r]] = b.labels[r];
    }
    ck_assert_mem_eq(label[0], label[1], 203 * sizeof **label);
    for (int i = 0; i < 203; i++) {
        count[label[0][i]]++;
        count[set->labels[i]]--;
        moved += label[0][i] != set->labels[i];
    }
    for (int k = 0; k < 5; k++) ck_assert_int_eq(count[k], 0);
    ck_assert_int_gt(moved, 120); /* 4 of 5 are expected to move */
    fv_loader_destroy(l);
}
END_TEST

START_TEST(test_loader_refusals) {
    static const fv_augment_cfg deep = {.crop_pad = 8, .pad_mode = FV_PAD_REFLECT}, odd = {.flip = 1.5},
                                minus = {.cutout = -1}, inwards = {.crop_pad = -1}, far = {.crop_pad = 5000},
                                large = {.cutout = 5000};
    static const fv_loader_cfg wrong[] = {{.batch = 0},
                                          {.batch = -3},
                                          {.batch = 204, .train = true},
                                          {.batch = 8, .workers = -1},
                                          {.batch = 8, .workers = 100000},
                                          {.batch = 8, .prefetch = -1},
                                          {.batch = 8, .prefetch = 5000},
                                          {.batch = 8, .hold = -1},
                                          {.batch = 8, .train = true, .augment = &inwards},
                                          {.batch = 8, .train = true, .augment = &far},
                                          {.batch = 8, .train = true, .augment = &large},
                                          {.batch = 8, .train = true, .augment = &deep},
                                          {.batch = 8, .train = true, .augment = &odd},
                                          {.batch = 8, .train = true, .augment = &minus}};
    fv_loader *l;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &wrong[i], &l), FV_E_USAGE);
        ck_assert_ptr_null(l);
    }
    const fv_loader_cfg huge = {.batch = INT64_MAX / 2}, good = {.batch = 8, .train = true};
    ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &huge, &l), FV_E_MEMORY);
    static const int64_t outside[] = {0, 203}, below[] = {0, -1}, nothing[1];
    ck_assert_int_eq(fv_loader_create(&ctx, set, below, 2, &good, &l), FV_E_USAGE);
    ck_assert_int_eq(fv_loader_create(&ctx, set, outside, 2, &good, &l), FV_E_USAGE);
    ck_assert_int_eq(fv_loader_create(&ctx, set, nothing, 0, &good, &l), FV_E_USAGE);
    ck_assert_int_eq(fv_loader_create(&ctx, set, NULL, 0, &good, &l), FV_OK);
    ck_assert_int_eq(fv_loader_start(l, 0, 26), FV_E_USAGE);
    ck_assert_int_eq(fv_loader_start(l, -1, 0), FV_E_USAGE);
    ck_assert_int_eq(fv_loader_start(l, 0, -1), FV_E_USAGE);
    fv_loader_destroy(l);
    fv_loader_destroy(NULL);
}
END_TEST

START_TEST(test_loader_memory) {
    const fv_loader_cfg cfg = {.batch = 8, .train = true, .augment = &augment, .workers = 2, .shuffle_labels = true};
    fv_loader *l;
    int64_t before = memory.live;
    for (int64_t n = 1;; n++) {
        memory.calls = 0;
        memory.fail_at = n;
        fv_status status = fv_loader_create(&ctx, set, NULL, 0, &cfg, &l);
        bool reached = memory.calls >= n;
        memory.fail_at = 0;
        if (!reached) {
            ck_assert_int_eq(status, FV_OK);
            break;
        }
        ck_assert_int_eq(status, FV_E_MEMORY);
        ck_assert_int_eq(memory.live, before);
    }
    int64_t calls = memory.calls;
    uint64_t hash[MOST_BATCHES];
    run_epoch(l, 0, 0, hash);
    ck_assert_int_eq(memory.calls, calls); /* an epoch allocates nothing */
    fv_loader_destroy(l);
}
END_TEST

Suite *data_loader_suite(void) {
    Suite *suite = suite_create("data_loader");
    TCase *tcase = tcase_create("loader");
    tcase_set_timeout(tcase, 60);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_test(tcase, test_records_differ);
    tcase_add_test(tcase, test_counters_differ);
    tcase_add_test(tcase, test_workers_draw_apart);
    tcase_add_test(tcase, test_record_ranges);
    tcase_add_loop_test(tcase, test_determinism, 0, 2);
    tcase_add_test(tcase, test_batches_without_images);
    tcase_add_test(tcase, test_held_batches);
    tcase_add_test(tcase, test_training_epoch);
    tcase_add_test(tcase, test_flips_alternate);
    tcase_add_test(tcase, test_evaluation_epoch);
    tcase_add_test(tcase, test_shuffled_labels);
    tcase_add_test(tcase, test_loader_refusals);
    tcase_add_test(tcase, test_loader_memory);
    suite_add_tcase(suite, tcase);
    return suite;
}
