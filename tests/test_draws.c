/* test_draws.c: what augmentation draws: boxes of random resized crops, and the fields of records that are younger than
 * crop, flip and cutout (those are in test_data_loader.c). */
#include "data/files.h"

#include <check.h>
#include <math.h>
#include <string.h>

Suite *draws_suite(void);

/* ---------------------------------------------------------------- random resized crops */

/* Means over 20,000 draws, beside those of torchvision's RandomResizedCrop (Python's `random`, 400,000 draws). */
static const struct boxes {
    int32_t h, w;
    double scale[2], ratio[2];
    double area, area_sd, log_ratio;
} boxes[] = {{375, 500, {0.08, 1.0}, {0.75, 4.0 / 3.0}, 0.4329, 0.2159, 0.0304},
             {64, 64, {0.2, 0.6}, {0.5, 3.0}, 0.3837, 0.1121, 0.1216},
             {200, 50, {0.5, 1.0}, {0.75, 4.0 / 3.0}, 0.335, 0.0, -0.2927}, /* no draw fits: the middle */
             {50, 200, {0.5, 1.0}, {0.75, 4.0 / 3.0}, 0.335, 0.0, 0.2927}};

START_TEST(test_boxes) {
    const struct boxes *b = &boxes[_i];
    const int n = 20000;
    fv_augment_cfg cfg = {0};
    memcpy(cfg.scale, b->scale, sizeof cfg.scale);
    memcpy(cfg.ratio, b->ratio, sizeof cfg.ratio);
    double area = 0, square = 0, ratio = 0, top = 0, left = 0;
    for (int i = 0; i < n; i++) {
        fv_box box = fv_augment_box(&cfg, 3, i % 5, i, b->h, b->w);
        fv_box again = fv_augment_box(&cfg, 3, i % 5, i, b->h, b->w);
        ck_assert_mem_eq(&box, &again, sizeof box);
        ck_assert(box.h >= 1 && box.w >= 1 && box.top >= 0 && box.left >= 0);
        ck_assert(box.top + box.h <= b->h && box.left + box.w <= b->w);
        ck_assert(box.h == floor(box.h) && box.w == floor(box.w) && box.top == floor(box.top) &&
                  box.left == floor(box.left));
        double share = box.h * box.w / ((double)b->h * b->w);
        area += share / n;
        square += share * share / n;
        ratio += log(box.w / box.h) / n;
        top += (box.h < b->h ? box.top / (b->h - box.h) : 0.5) / n;
        left += (box.w < b->w ? box.left / (b->w - box.w) : 0.5) / n;
    }
    ck_assert_double_lt(fabs(area - b->area), 5 * b->area_sd / sqrt(n) + 1e-4);
    ck_assert_double_lt(fabs(sqrt(fmax(square - area * area, 0)) - b->area_sd), 0.005);
    ck_assert_double_lt(fabs(ratio - b->log_ratio), 0.012);
    ck_assert_double_lt(fabs(top - 0.5), 0.02);
    ck_assert_double_lt(fabs(left - 0.5), 0.02);
}
END_TEST

/* However odd the picture: a box of a pixel at least, inside. */
START_TEST(test_odd_boxes) {
    static const int32_t sizes[][2] = {{1, 1}, {1, 60000}, {60000, 1}, {2, 3}, {1000, 1}};
    static const double ratios[][2] = {{0.75, 4.0 / 3.0}, {4, 5}, {0.01, 0.02}, {1, 1}, {3000, 4000}};
    for (int s = 0; s < 5; s++)
        for (int r = 0; r < 5; r++)
            for (int64_t i = 0; i < 50; i++) {
                const fv_augment_cfg cfg = {.scale = {1e-4, 1.0}, .ratio = {ratios[r][0], ratios[r][1]}};
                fv_box box = fv_augment_box(&cfg, 1, 2, i, sizes[s][0], sizes[s][1]);
                ck_assert(box.h >= 1 && box.w >= 1 && box.top >= 0 && box.left >= 0);
                ck_assert(box.top + box.h <= sizes[s][0] && box.left + box.w <= sizes[s][1]);
            }
}
END_TEST

/* ---------------------------------------------------------------- records */

/* What a seed has meant since the first version. */
START_TEST(test_old_draws) {
    static const float expected[4][7] = {
        {4, 0, 1, 8, 5, 8, 8}, {4, -4, 1, 7, 10, 8, 8}, {-3, 4, 0, 12, 23, 8, 8}, {-2, 0, 1, 19, 0, 8, 5}};
    fv_augment_cfg cfg = {.crop_pad = 4, .flip = 0.5, .cutout = 8};
    for (int i = 0; i < 8; i++) {
        float r[FV_AUG_FIELDS];
        if (i == 4) cfg.vflip = 0.5, cfg.jitter[0] = cfg.jitter[3] = 0.4; /* leave the others as they are */
        fv_augment_record(&cfg, 7 + (uint64_t)i % 4, 3 * (i % 4), 1000 + 37 * (i % 4), 32, 32, r);
        for (int k = 0; k < 7; k++) ck_assert_float_eq(r[k], expected[i % 4][k]);
    }
}
END_TEST

/* Alternating flips: a sample's is drawn once, in a share of p, and every epoch shows it the other way round than the
 * epoch before; nothing else of the record alternates. */
START_TEST(test_alternating_flips) {
    static const double share[] = {0.5, 0.2, 1.0, 0.0};
    const int n = 20000;
    for (int s = 0; s < 4; s++) {
        const fv_augment_cfg cfg = {.crop_pad = 2, .flip = share[s], .alternate_flip = true};
        fv_augment_cfg random = cfg;
        random.alternate_flip = false;
        double drawn = 0, as_random = 0, other_seed = 0;
        int wrong = 0, others = 0;
        for (int i = 0; i < n; i++) {
            float r[3][FV_AUG_FIELDS], other[FV_AUG_FIELDS];
            for (int e = 0; e < 3; e++) {
                fv_augment_record(&cfg, 1, e, i, 32, 32, r[e]);
                fv_augment_record(&random, 1, e, i, 32, 32, other);
                wrong += r[e][FV_AUG_FLIP] != (share[s] > 0.0 ? (float)(r[0][FV_AUG_FLIP] != (float)(e % 2)) : 0.0f);
                as_random += r[e][FV_AUG_FLIP] == other[FV_AUG_FLIP] ? 1.0 / (3 * n) : 0;
                other[FV_AUG_FLIP] = r[e][FV_AUG_FLIP];
                others += memcmp(other, r[e], sizeof other) != 0;
            }
            fv_augment_record(&cfg, 2, 0, i, 32, 32, other);
            other_seed += other[FV_AUG_FLIP] == r[0][FV_AUG_FLIP] ? 1.0 / n : 0;
            drawn += r[0][FV_AUG_FLIP] / n;
        }
        ck_assert_int_eq(wrong, 0);
        ck_assert_int_eq(others, 0);
        ck_assert_double_lt(fabs(drawn - share[s]), 0.015);
        ck_assert_double_lt(fabs(other_seed - (share[s] * share[s] + (1 - share[s]) * (1 - share[s]))), 0.015);
        if (s == 0) ck_assert_double_lt(fabs(as_random - 0.5), 0.01); /* its draw is not that of random flips */
    }
}
END_TEST

/* The offsets of --crop-pad: each of the (2 pad + 1)^2 places equally often, the outermost too, whatever the mode. */
START_TEST(test_offsets_are_uniform) {
    const int pad = 1 + _i, side = 2 * pad + 1, n = 3000 * side * side;
    const fv_augment_cfg cfg = {.crop_pad = pad, .pad_mode = FV_PAD_REFLECT};
    int count[9][9] = {{0}}, outside = 0;
    double chi = 0;
    for (int i = 0; i < n; i++) {
        float r[FV_AUG_FIELDS];
        fv_augment_record(&cfg, 4, i % 3, i, 32, 32, r);
        bool within = fabsf(r[FV_AUG_TOP]) <= (float)pad && fabsf(r[FV_AUG_LEFT]) <= (float)pad;
        if (!within) outside++;
        else count[(int)r[FV_AUG_TOP] + pad][(int)r[FV_AUG_LEFT] + pad]++;
    }
    ck_assert_int_eq(outside, 0);
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++) chi += (count[y][x] - 3000.0) * (count[y][x] - 3000.0) / 3000.0;
    double freedom = side * side - 1;
    ck_assert_double_lt(chi, freedom + 4 * sqrt(2 * freedom)); /* mean and deviation of the chi-squared distribution */
}
END_TEST

/* A cutout that must be inside: always the whole square, each place equally often; as much as there is of a picture
 * that is smaller. */
START_TEST(test_cutout_inside) {
    const fv_augment_cfg cfg = {.cutout = 12, .cutout_inside = true};
    const int n = 42000, h = 32, w = 20;
    int tops[21] = {0}, lefts[9] = {0};
    double chi = 0;
    float r[FV_AUG_FIELDS];
    for (int i = 0; i < n; i++) {
        fv_augment_record(&cfg, 6, 1, i, h, w, r);
        ck_assert(r[FV_AUG_CUT_H] == 12 && r[FV_AUG_CUT_W] == 12 && r[FV_AUG_CUT_TOP] >= 0 && r[FV_AUG_CUT_TOP] <= 20 &&
                  r[FV_AUG_CUT_LEFT] >= 0 && r[FV_AUG_CUT_LEFT] <= 8);
        tops[(int)r[FV_AUG_CUT_TOP]]++;
        lefts[(int)r[FV_AUG_CUT_LEFT]]++;
    }
    for (int k = 0; k < 21; k++) chi += (tops[k] - n / 21.0) * (tops[k] - n / 21.0) / (n / 21.0);
    for (int k = 0; k < 9; k++) chi += (lefts[k] - n / 9.0) * (lefts[k] - n / 9.0) / (n / 9.0);
    ck_assert_double_lt(chi, 28 + 4 * sqrt(2 * 28.0));
    fv_augment_record(&cfg, 6, 1, 0, 8, 40, r);
    ck_assert(r[FV_AUG_CUT_TOP] == 0 && r[FV_AUG_CUT_H] == 8 && r[FV_AUG_CUT_W] == 12);
}
END_TEST

START_TEST(test_new_draws) {
    const fv_augment_cfg cfg = {.vflip = 0.3, .jitter = {0.4, 1.0, 0.2, 0.1}};
    static const int field[4] = {FV_AUG_BRIGHTNESS, FV_AUG_CONTRAST, FV_AUG_SATURATION, FV_AUG_HUE};
    const int n = 20000;
    double vflips = 0, mean[4] = {0}, square[4] = {0}, cross = 0;
    for (int i = 0; i < n; i++) {
        float r[FV_AUG_FIELDS];
        fv_augment_record(&cfg, 1, 2, i, 32, 24, r);
        vflips += r[FV_AUG_VFLIP] / n;
        for (int k = 0; k < 4; k++) {
            ck_assert_double_le(fabs((double)r[field[k]]), cfg.jitter[k]);
            mean[k] += r[field[k]] / n;
            square[k] += (double)r[field[k]] * r[field[k]] / n;
        }
        cross += (double)r[FV_AUG_BRIGHTNESS] * r[FV_AUG_CONTRAST] / n;
        ck_assert(r[FV_AUG_FLIP] == 0 && r[FV_AUG_CUT_H] == 0 && r[FV_AUG_CUT_NOISE] == 0);
    }
    ck_assert_double_lt(fabs(vflips - 0.3), 0.013);
    for (int k = 0; k < 4; k++) { /* uniform: variance x^2 / 3 */
        double x = cfg.jitter[k];
        ck_assert_double_lt(fabs(mean[k]), 4 * x / sqrt(3.0 * n));
        ck_assert_double_lt(fabs(square[k] - x * x / 3), 0.02 * x * x);
    }
    ck_assert_double_lt(fabs(cross), 0.005); /* independent: deviation 0.4 * 1 / 3 / sqrt(n) */
}
END_TEST

/* Random erasing: the share of pictures, rectangles inside, areas and shapes as asked; a cutout only where it is not.
 */
START_TEST(test_erase) {
    const fv_augment_cfg cfg = {.erase = 0.25, .erase_noise = true, .cutout = 5};
    const int n = 20000, h = 60, w = 48;
    double erased = 0, area = 0, shape = 0;
    for (int i = 0; i < n; i++) {
        float r[FV_AUG_FIELDS];
        fv_augment_record(&cfg, 1, 2, i, h, w, r);
        float top = r[FV_AUG_CUT_TOP], left = r[FV_AUG_CUT_LEFT], ch = r[FV_AUG_CUT_H], cw = r[FV_AUG_CUT_W];
        ck_assert(top >= 0 && left >= 0 && ch >= 1 && cw >= 1 && top + ch <= h && left + cw <= w);
        float key = r[FV_AUG_CUT_NOISE];
        if (key == 0) {
            ck_assert(ch <= 5 && cw <= 5);
            continue;
        }
        double share = (double)ch * cw / (h * w);
        ck_assert(key >= 1 && key < 16777216 && key == floorf(key) && share > 0.015 && share < 0.35);
        ck_assert(ch < h && cw < w && ch / cw > 0.25 && ch / cw < 3.7);
        erased++;
        area += share;
        shape += log(ch / cw);
    }
    ck_assert_double_lt(fabs(erased / n - 0.25), 0.013);
    ck_assert_double_lt(fabs(area / erased - 0.172), 0.008); /* a little below the middle of 0.02 and 1/3: what does not
                                                                fit is drawn again */
    ck_assert_double_lt(fabs(shape / erased - 0.0), 0.1);
    fv_augment_cfg zeros = cfg;
    zeros.erase_noise = false;
    zeros.cutout = 0;
    int blank = 0;
    for (int i = 0; i < 1000; i++) {
        float r[FV_AUG_FIELDS];
        fv_augment_record(&zeros, 1, 2, i, h, w, r);
        ck_assert_float_eq(r[FV_AUG_CUT_NOISE], 0);
        blank += r[FV_AUG_CUT_H] > 0;
    }
    ck_assert(blank > 180 && blank < 320);
}
END_TEST

Suite *draws_suite(void) {
    Suite *suite = suite_create("draws");
    TCase *tcase = tcase_create("draws");
    tcase_add_loop_test(tcase, test_boxes, 0, (int)(sizeof boxes / sizeof *boxes));
    tcase_add_test(tcase, test_odd_boxes);
    tcase_add_test(tcase, test_old_draws);
    tcase_add_test(tcase, test_alternating_flips);
    tcase_add_loop_test(tcase, test_offsets_are_uniform, 0, 4);
    tcase_add_test(tcase, test_cutout_inside);
    tcase_add_test(tcase, test_new_draws);
    tcase_add_test(tcase, test_erase);
    suite_add_tcase(suite, tcase);
    return suite;
}
