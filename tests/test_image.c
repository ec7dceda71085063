/* test_image.c: pictures in files: every kind beside Pillow's pixels (tests/vectors/image, made by
 * tests/peers/make_image_vectors.py) and PngSuite's; resizing. */
#include "data/files.h"
#include "tests/data_path.h"
#include "tests/image_files.h"

#include <check.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

Suite *image_suite(void);

static void ck_pixels(const char *name, const uint8_t *got, const uint8_t *expected, size_t n, int tolerance) {
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(abs(got[i] - expected[i]) <= tolerance, "%s: byte %zu is %d, not %d", name, i, got[i],
                      expected[i]);
}

/* ---------------------------------------------------------------- right files */

typedef struct decode_check {
    char name[64];
    int channels, min_h, min_w, h, w, stored, orientation, tolerance;
    size_t offset;
} decode_check;

static void ck_decode(const decode_check *c, fvt_bytes file, const uint8_t *expected) {
    const fv_decode_opts opts = {.channels = c->channels, .min_h = c->min_h, .min_w = c->min_w};
    fv_image image;
    fv_image_info info;
    fv_status status = fv_image_decode(fvt_images.decoder, file.data, file.size, c->name, &opts, &image);
    ck_assert_msg(status == FV_OK, "%s: %s", c->name, fvt_images.ctx.error.message);
    ck_assert_msg(image.h == c->h && image.w == c->w && image.c == c->channels, "%s: %d x %d", c->name, image.w,
                  image.h);
    ck_pixels(c->name, image.pixels, expected, (size_t)c->h * (size_t)c->w * (size_t)c->channels, c->tolerance);
    ck_assert_int_eq(fv_image_probe(fvt_images.decoder, file.data, file.size, c->name, &info), FV_OK);
    ck_assert_int_eq(info.c, c->stored);
    ck_assert_int_eq(info.orientation, c->orientation);
    if (c->min_h == 0 && c->min_w == 0) ck_assert(info.h == c->h && info.w == c->w);
    fv_image_format format = strstr(c->name, ".webp")  ? FV_IMAGE_WEBP
                             : strstr(c->name, ".png") ? FV_IMAGE_PNG
                                                       : FV_IMAGE_JPEG;
    ck_assert_int_eq(info.format, format);
}

START_TEST(test_decode) {
    FILE *list = fopen(FVT_IMAGE_VECTORS "decode.txt", "r");
    fvt_bytes pixels = fvt_read_image("pixels.raw");
    decode_check c;
    int n = 0;
    ck_assert_ptr_nonnull(list);
    while (fscanf(list, "%63s %d %d %d %d %d %d %d %d %zu", c.name, &c.channels, &c.min_h, &c.min_w, &c.h, &c.w,
                  &c.stored, &c.orientation, &c.tolerance, &c.offset) == 10) {
        if (fvt_image_skipped(c.name)) continue;
        fvt_bytes file = fvt_read_image(c.name);
        ck_decode(&c, file, pixels.data + c.offset);
        free(file.data);
        n++;
    }
    ck_assert_int_ge(n, 110);
    fclose(list);
    free(pixels.data);
}
END_TEST

/* A file whose reading was left half-way, or that was another format, leaves nothing behind for the next. */
START_TEST(test_one_after_another) {
    static const char *const names[] = {"grey.jpg",  "progressive.jpg", "colour.jpg",
                                        "rgba8.png", "cmyk.jpg",        "one.jpg"};
    enum { N = sizeof names / sizeof *names };
    fvt_bytes file[N], first[N];
    fv_image image;
    for (int i = 0; i < N; i++) {
        file[i] = fvt_read_image(names[i]);
        ck_assert_int_eq(fvt_decode(file[i], names[i], 3, &image), FV_OK);
        first[i].size = (size_t)image.h * (size_t)image.w * 3;
        first[i].data = malloc(first[i].size);
        memcpy(first[i].data, image.pixels, first[i].size);
    }
    for (int i = 0; i < N * N; i++) {
        fvt_bytes half = {file[i / N].data, file[i / N].size / 2};
        ck_assert_int_eq(fvt_decode(half, "some/file", 3, &image), FV_E_DATA);
        ck_assert_int_eq(fvt_decode(file[i % N], "", 3, &image), FV_OK);
        ck_assert_mem_eq(image.pixels, first[i % N].data, first[i % N].size);
    }
    for (int i = 0; i < N; i++) free(file[i].data), free(first[i].data);
}
END_TEST

/* Once memory has grown, it is kept. */
START_TEST(test_memory_is_kept) {
    fvt_bytes file = fvt_read_image("progressive.jpg");
    fv_image image;
    for (int i = 0; i < 3; i++) ck_assert_int_eq(fvt_decode(file, "", 1, &image), FV_OK);
    int64_t calls = fvt_images.memory.calls;
    for (int i = 0; i < 3; i++) ck_assert_int_eq(fvt_decode(file, "", 1, &image), FV_OK);
    ck_assert_int_eq(fvt_images.memory.calls, calls);
    free(file.data);
}
END_TEST

START_TEST(test_names) {
    static const char *const yes[] = {"a.jpg", "a/b.JPEG", "x.y.PnG", "ä.webp"};
    static const char *const no[] = {"", "jpg", ".jpg", "a/.png", "a.jpg.txt", "a.gif", "a.jpgx", "apng"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) ck_assert(fv_image_name(yes[i]));
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) ck_assert_msg(!fv_image_name(no[i]), "%s", no[i]);
}
END_TEST

/* ---------------------------------------------------------------- PngSuite: every kind of PNG, pixels as JSON */

static void ck_png_suite_file(const char *root, const char *name) {
    char path[1024];
    fv_image image;
    snprintf(path, sizeof path, "%s/png/%s.png", root, name);
    fvt_bytes file = fvt_read_path(path);
    if (name[0] == 'x') {
        ck_assert_msg(fvt_decode(file, "some/file", 4, &image) == FV_E_DATA, "%s was read", name);
        free(file.data);
        return;
    }
    ck_assert_msg(fvt_decode(file, name, 4, &image) == FV_OK, "%s: %s", name, fvt_images.ctx.error.message);
    bool wide = file.data[24] == 16; /* bits per sample, of the header */
    snprintf(path, sizeof path, "%s/json/%s.json", root, name);
    json_t *expected = json_load_file(path, 0, NULL);
    ck_assert_msg(expected != NULL, "%s", path);
    ck_assert_uint_eq(json_array_size(expected), (size_t)image.h * (size_t)image.w * 4);
    for (size_t i = 0; i < json_array_size(expected); i++) {
        json_int_t v = json_integer_value(json_array_get(expected, i));
        if (wide) v = (v * 255 + 32767) / 65535;
        ck_assert_msg(image.pixels[i] == v, "%s: byte %zu is %d, not %d", name, i, image.pixels[i], (int)v);
    }
    json_decref(expected);
    free(file.data);
}

START_TEST(test_png_suite) {
    char root[512], command[600], line[256];
    if (!fvt_data("pngsuite", root, sizeof root)) {
        printf("test_image: SKIPPED PngSuite: there is no %s (tools/prepare-data.sh)\n", root);
        return;
    }
    snprintf(command, sizeof command, "ls '%s/png'", root);
    FILE *list = popen(command, "r");
    int n = 0;
    ck_assert_ptr_nonnull(list);
    while (fgets(line, sizeof line, list)) {
        char *end = strstr(line, ".png");
        if (!end) continue;
        *end = 0;
        ck_png_suite_file(root, line);
        n++;
    }
    pclose(list);
    ck_assert_int_eq(n, 175);
}
END_TEST

/* ---------------------------------------------------------------- resizing */

typedef struct resize_check {
    fv_image source;
    fv_box box;
    int filter, h, w;
    const uint8_t *expected;
} resize_check;

static void ck_resize(const resize_check *c) {
    size_t n = (size_t)c->h * (size_t)c->w * (size_t)c->source.c;
    uint8_t *out = malloc(n);
    char name[128];
    snprintf(name, sizeof name, "%d x %d x %d to %d x %d, filter %d", c->source.h, c->source.w, c->source.c, c->h, c->w,
             c->filter);
    for (int plain = 0; plain < 2; plain++) {
        fvt_images.decoder->resizer.plain = plain;
        memset(out, 0x5a, n);
        ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &c->source, c->box, (fv_filter)c->filter, c->h, c->w, out),
                         FV_OK);
        ck_pixels(name, out, c->expected, n, 0);
    }
    /* any window of it */
    int32_t top = c->h / 3, left = c->w / 2, h = (c->h - top + 1) / 2, w = c->w - left;
    ck_assert_int_eq(fv_image_resize_window(fvt_images.decoder, &c->source, c->box, (fv_filter)c->filter, c->h, c->w,
                                            top, left, h, w, out),
                     FV_OK);
    size_t row = (size_t)w * (size_t)c->source.c;
    for (int32_t y = 0; y < h; y++)
        ck_pixels(name, out + (size_t)y * row,
                  c->expected + ((size_t)(top + y) * (size_t)c->w + (size_t)left) * (size_t)c->source.c, row, 0);
    free(out);
}

START_TEST(test_resize) {
    FILE *list = fopen(FVT_IMAGE_VECTORS "resize.txt", "r");
    fvt_bytes pixels = fvt_read_image("pixels.raw");
    resize_check c;
    size_t source, expected;
    int n = 0;
    ck_assert_ptr_nonnull(list);
    while (fscanf(list, "%d %d %d %zu %lf %lf %lf %lf %d %d %d %zu", &c.source.h, &c.source.w, &c.source.c, &source,
                  &c.box.top, &c.box.left, &c.box.h, &c.box.w, &c.filter, &c.h, &c.w, &expected) == 12) {
        size_t size = (size_t)c.source.h * (size_t)c.source.w * (size_t)c.source.c;
        uint8_t *exact = malloc(size); /* so that reading past the end shows */
        memcpy(exact, pixels.data + source, size);
        c.source.pixels = exact;
        c.expected = pixels.data + expected;
        ck_resize(&c);
        free(exact);
        n++;
    }
    ck_assert_int_eq(n, 112);
    fclose(list);
    free(pixels.data);
}
END_TEST

/* Random sizes and boxes: processor and portable loops agree, one level stays that level, nothing is out of bounds. */
START_TEST(test_resize_random) {
    uint32_t seed = 12345;
    fvt_images.decoder->resizer.plain = false;
    for (int i = 0; i < 400; i++) {
        int32_t v[8];
        for (int k = 0; k < 8; k++) {
            seed = seed * 1664525u + 1013904223u;
            v[k] = (int32_t)(seed >> 16);
        }
        fv_image image = {.h = 1 + v[0] % 60, .w = 1 + v[1] % 60, .c = 1 + v[2] % 4};
        int32_t h = 1 + v[3] % 70, w = 1 + v[4] % 70;
        fv_box box = {.top = image.h * (v[5] % 97) / 100.0, .left = image.w * (v[6] % 97) / 100.0};
        box.h = (image.h - box.top) * (1 + v[7] % 100) / 100.0;
        box.w = (image.w - box.left) * (1 + v[7] / 128 % 100) / 100.0;
        size_t n = (size_t)(image.h * image.w * image.c), out_n = (size_t)(h * w * image.c);
        uint8_t *pixels = malloc(n), *a = malloc(out_n), *b = malloc(out_n);
        for (size_t k = 0; k < n; k++) pixels[k] = (uint8_t)((seed = seed * 1664525u + 1013904223u) >> 24);
        image.pixels = pixels;
        fv_filter filter = i % 2 ? FV_FILTER_BICUBIC : FV_FILTER_BILINEAR;
        ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, box, filter, h, w, a), FV_OK);
        fvt_images.decoder->resizer.plain = true;
        ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, box, filter, h, w, b), FV_OK);
        fvt_images.decoder->resizer.plain = false;
        ck_pixels("random", a, b, out_n, 0);
        memset(pixels, 200, n);
        for (size_t k = 3; k < n && image.c == 4; k += 4) pixels[k] = 255;
        for (size_t k = 1; k < n && image.c == 2; k += 2) pixels[k] = 255;
        ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, box, filter, h, w, a), FV_OK);
        for (size_t k = 0; k < out_n; k++) ck_assert_int_eq(a[k], pixels[k % (size_t)image.c]);
        free(pixels), free(a), free(b);
    }
}
END_TEST

START_TEST(test_resize_wrong) {
    uint8_t pixels[12] = {0}, out[64];
    const fv_image image = {pixels, 2, 2, 3};
    const double nan = strtod("nan", NULL);
    const fv_box boxes[] = {{0, 0, 0, 2}, {0, 0, 2, -1},   {-0.5, 0, 1, 1}, {0, -1, 1, 1},  {1, 0, 1.5, 2},
                            {0, 0, 2, 3}, {nan, 0, 1, 1},  {0, nan, 1, 1},  {0, 0, nan, 1}, {0, 0, 1, nan},
                            {2, 0, 1, 1}, {0, 0, 1e30, 1}, {0, 2, 1, 1}};
    for (size_t i = 0; i < sizeof boxes / sizeof *boxes; i++)
        ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, boxes[i], FV_FILTER_BILINEAR, 2, 2, out),
                         FV_E_USAGE);
    const fv_box whole = {0, 0, 2, 2};
    ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, whole, FV_FILTER_BILINEAR, 0, 2, out), FV_E_USAGE);
    ck_assert_int_eq(fv_image_resize(fvt_images.decoder, &image, whole, FV_FILTER_BILINEAR, 2, 1 << 20, out),
                     FV_E_USAGE);
    ck_assert_int_eq(
        fv_image_resize_window(fvt_images.decoder, &image, whole, FV_FILTER_BILINEAR, 4, 4, 1, 1, 4, 1, out),
        FV_E_USAGE);
    ck_assert_int_eq(
        fv_image_resize_window(fvt_images.decoder, &image, whole, FV_FILTER_BILINEAR, 4, 4, 0, -1, 1, 1, out),
        FV_E_USAGE);
    ck_assert_int_eq(
        fv_image_decode(fvt_images.decoder, pixels, 1, "", &(fv_decode_opts){.channels = 5}, &(fv_image){0}),
        FV_E_USAGE);
}
END_TEST

Suite *image_suite(void) {
    Suite *suite = suite_create("image");
    TCase *tcase = tcase_create("pictures in files");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, fvt_images_setup, fvt_images_teardown);
    tcase_add_test(tcase, test_decode);
    tcase_add_test(tcase, test_one_after_another);
    tcase_add_test(tcase, test_memory_is_kept);
    tcase_add_test(tcase, test_names);
    tcase_add_test(tcase, test_png_suite);
    tcase_add_test(tcase, test_resize);
    tcase_add_test(tcase, test_resize_random);
    tcase_add_test(tcase, test_resize_wrong);
    suite_add_tcase(suite, tcase);
    return suite;
}
