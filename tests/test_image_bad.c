/* test_image_bad.c: picture files that are something else, damaged, cut short or hostile, and memory that fails. */
#include "tests/image_files.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

Suite *image_bad_suite(void);

/* ---------------------------------------------------------------- files that are something else */

START_TEST(test_something_else) {
    static const struct {
        size_t size;
        const char *bytes, *message;
    } cases[] = {
#define CASE(text, message) {sizeof text - 1, text, message}
        CASE("", "is empty"),
        CASE("GIF89a...", "is a GIF"),
        CASE("BM\x36\x00\x00\x00", "is a BMP"),
        CASE("II*\0........", "is a TIFF"),
        CASE("MM\0*........", "is a TIFF"),
        CASE("\0\0\0\x18"
             "ftypheic....",
             "is a HEIC"),
        CASE("\0\0\0\x18"
             "ftypavif....",
             "is an AVIF"),
        CASE("%PDF-1.7", "is a PDF"),
        CASE("  <!DOCTYPE html><html>", "is an HTML page"),
        CASE("\n<HTML>", "is an HTML page"),
        CASE("<svg xmlns=", "is an SVG"),
        CASE("\x1f\x8b\x08", "is a gzip file"),
        CASE("hello", "is no picture that can be read"),
        CASE("\xff\xd8", "is no picture that can be read"),
        CASE("RIFF\4\0\0\0WAVE", "is no picture that can be read"),
        CASE("\x89PNG\r\n\x1a", "signature is damaged"),
        CASE("\x89PNG\n\x1a\n...........", "signature is damaged"),
        CASE("\xff\xd8\xff", "truncated JPEG in its header"),
        CASE("RIFF\4\0\0\0WEBP", "a picture without pixels"),
        CASE("RIFF\5\0\0\0WEBP", "truncated WebP"),
#undef CASE
    };
    fv_image image;
    fv_image_info info;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fvt_bytes b = {malloc(cases[i].size + 1), cases[i].size};
        memcpy(b.data, cases[i].bytes, b.size);
        fvt_ck_image_refused(fvt_decode(b, "some/file", 3, &image), cases[i].message);
        fvt_ck_image_refused(fv_image_probe(fvt_images.decoder, b.data, b.size, "some/file", &info), cases[i].message);
        free(b.data);
    }
    fvt_ck_image_refused(
        fv_image_decode(fvt_images.decoder, NULL, 0, "some/file", &(fv_decode_opts){.channels = 3}, &image),
        "is empty");
    fvt_bytes animated = fvt_read_image("animated.webp");
    fvt_ck_image_refused(fvt_decode(animated, "some/file", 3, &image), "animated");
    free(animated.data);
}
END_TEST

START_TEST(test_no_libwebp) {
    fv_decoder *without;
    fv_image image;
    fvt_bytes b = fvt_read_image("lossless.webp");
    ck_assert_int_eq(fv_decoder_create(&fvt_images.ctx, &without), FV_OK);
    without->webp.name = "libwebp-that-is-not-there.so";
    fvt_ck_image_refused(
        fv_image_decode(without, b.data, b.size, "some/file", &(fv_decode_opts){.channels = 3}, &image),
        "libwebp-that-is-not-there.so is not there");
    ck_assert_ptr_nonnull(strstr(fvt_images.ctx.error.hint, "install libwebp"));
    without->webp.name = "libz.so.1"; /* a library without these functions */
    ck_assert_int_eq(fv_image_decode(without, b.data, b.size, "", &(fv_decode_opts){.channels = 3}, &image), FV_E_DATA);
    fv_decoder_destroy(without);
    free(b.data);
}
END_TEST

/* ---------------------------------------------------------------- damage */

static const char *const damaged[] = {"turned_6.jpg",     "progressive_grey.jpg", "rgb8_interlaced.png",
                                      "palette_trns.png", "lossless.webp",        "lossy_alpha.webp",
                                      "arithmetic.jpg",   "turned_after.png"};
#define DAMAGED ((int)(sizeof damaged / sizeof *damaged))

/* Every prefix of a file is refused, in no time, and takes no more memory than the whole. */
START_TEST(test_truncated) {
    const char *name = damaged[_i];
    fvt_bytes file = fvt_read_image(name);
    fv_image image;
    if (fvt_image_skipped(name)) {
        free(file.data);
        return;
    }
    for (size_t n = 0; n < file.size; n++) {
        uint8_t *part = malloc(n + !n); /* exactly: reading past the end shows */
        memcpy(part, file.data, n);
        double start = fvt_seconds();
        fv_status status = fvt_decode((fvt_bytes){part, n}, "some/file", 3, &image);
        ck_assert_msg(status == FV_E_DATA, "%s, %zu of %zu bytes: status %d", name, n, file.size, (int)status);
        ck_assert_str_eq(fvt_images.ctx.error.path, "some/file");
        if (n >= 12)
            ck_assert_msg(strstr(fvt_images.ctx.error.message, "truncated"), "%zu bytes: %s", n,
                          fvt_images.ctx.error.message);
        ck_assert_double_lt(fvt_seconds() - start, 1);
        free(part);
    }
    ck_assert_uint_lt(fvt_images.memory.peak, 4 << 20);
    free(file.data);
}
END_TEST

/* Every bit flipped, alone: read or refused. PNG has checksums: always refused. */
START_TEST(test_flipped) {
    const char *name = damaged[_i];
    fvt_bytes file = fvt_read_image(name);
    fv_image image;
    int refused = 0;
    if (fvt_image_skipped(name)) {
        free(file.data);
        return;
    }
    file.data = realloc(file.data, file.size);
    for (size_t bit = 0; bit < 8 * file.size; bit++) {
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        double start = fvt_seconds();
        fv_status status = fvt_decode(file, "some/file", 3, &image);
        ck_assert_double_lt(fvt_seconds() - start, 1);
        ck_assert_msg(status == FV_OK || status == FV_E_DATA, "%s, bit %zu: status %d", name, bit, (int)status);
        if (status == FV_OK) {
            ck_assert_msg(!strstr(name, ".png"), "%s, bit %zu: was read", name, bit);
            unsigned sum = 0; /* all pixels are there, and were written */
            for (size_t k = 0; k < (size_t)image.h * (size_t)image.w * 3; k++) sum += image.pixels[k];
            ck_assert_uint_le(sum, 255u * (unsigned)(image.h * image.w * 3));
        } else {
            ck_assert_str_eq(fvt_images.ctx.error.path, "some/file");
            refused++;
        }
        file.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    ck_assert_int_gt(refused, 100);
    ck_assert_uint_lt(fvt_images.memory.peak, 8 << 20);
    free(file.data);
}
END_TEST

/* EXIF blocks cut short and with every byte changed: an orientation from 1 to 8 each time, nothing read past the end.
 */
START_TEST(test_exif) {
    static const uint8_t block[] =
        "Exif\0\0MM\0*\0\0\0\x08\0\2\x01\0\0\4\0\0\0\1\0\0\0\x63\x01\x12\0\3\0\0\0\1\0\7\0\0\0\0\0";
    const size_t n = sizeof block - 1;
    ck_assert_int_eq(fv_exif_orientation(block, n), 7);
    ck_assert_int_eq(fv_exif_orientation(block + 6, n - 6), 7);
    for (size_t cut = 0; cut <= n; cut++)
        for (int value = -1; value < 256; value += value < 2 ? 1 : 7)
            for (size_t at = 0; at < (value < 0 ? 1 : cut); at++) {
                uint8_t *b = malloc(cut + !cut);
                memcpy(b, block, cut);
                if (value >= 0) b[at] = (uint8_t)value;
                int32_t o = fv_exif_orientation(b, cut);
                ck_assert(o >= 1 && o <= 8);
                if (value < 0 && cut < n - 6) ck_assert_int_eq(o, 1);
                free(b);
            }
}
END_TEST

/* ---------------------------------------------------------------- hostile files */

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

/* Where a JPEG's first segment of a kind begins. */
static size_t segment(fvt_bytes b, uint8_t marker) {
    for (size_t at = 2; at + 4 < b.size; at += 2 + (size_t)(b.data[at + 2] << 8 | b.data[at + 3]))
        if (b.data[at + 1] == marker) return at;
    ck_abort_msg("no segment %x", marker);
    return 0;
}

/* The file with the sides changed that its header gives. */
static fvt_bytes claim(const char *name, uint32_t h, uint32_t w) {
    fvt_bytes b = fvt_read_image(name);
    if (strstr(name, ".png")) {
        put32(b.data + 16, w), put32(b.data + 20, h);
        put32(b.data + 29, (uint32_t)crc32(0, b.data + 12, 17));
    } else if (strstr(name, ".webp")) { /* VP8L */
        uint32_t bits = (w - 1) | (h - 1) << 14;
        for (int i = 0; i < 4; i++) b.data[21 + i] = (uint8_t)(bits >> 8 * i);
    } else {
        uint8_t *p = b.data + segment(b, strstr(name, "progressive") ? 0xc2 : 0xc0) + 5;
        p[0] = (uint8_t)(h >> 8), p[1] = (uint8_t)h, p[2] = (uint8_t)(w >> 8), p[3] = (uint8_t)w;
    }
    return b;
}

START_TEST(test_bombs) {
    static const struct {
        const char *name;
        uint32_t h, w;
        const char *message;
    } cases[] = {{"rgb8.png", 30000, 30000, "30000 x 30000 pixels: more than"},
                 {"rgb8.png", 1, 65501, "65501 x 1 pixels: more than"},
                 {"rgb8.png", 0x7fffffff, 0x7fffffff, "more than"},
                 {"rgb8.png", 0, 5, "without pixels"},
                 {"rgb8.png", 10000, 10000, "truncated PNG"},
                 {"grey1.png", 10000, 10000, "truncated PNG"},
                 {"grey.jpg", 30000, 30000, "30000 x 30000 pixels: more than"},
                 {"grey.jpg", 65500, 1601, "more than"},
                 {"grey.jpg", 10000, 10000, "truncated JPEG"},
                 {"progressive.jpg", 10000, 10000, "truncated JPEG"},
                 {"lossless.webp", 16383, 16383, "more than"}};
    fv_image image;
    fv_image_info info;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fvt_bytes b = claim(cases[i].name, cases[i].h, cases[i].w);
        fvt_images.memory.peak = 0;
        double start = fvt_seconds();
        fvt_ck_image_refused(fvt_decode(b, "some/file", 3, &image), cases[i].message);
        fvt_ck_image_refused(fv_image_probe(fvt_images.decoder, b.data, b.size, "some/file", &info), cases[i].message);
        ck_assert_double_lt(fvt_seconds() - start, 0.1);
        ck_assert_uint_lt(fvt_images.memory.peak, 1 << 20);
        free(b.data);
    }
}
END_TEST

/* The first scan of a JPEG of several scans, 600 times. */
START_TEST(test_many_scans) {
    fvt_bytes b = fvt_read_image("separate.jpg");
    fv_image image;
    size_t first = segment(b, 0xda), second = first + 2;
    while (b.data[second] != 0xff || b.data[second + 1] == 0) second++;
    size_t scan = second - first;
    fvt_bytes many = {malloc(b.size + 600 * scan), b.size + 600 * scan};
    memcpy(many.data, b.data, first);
    for (size_t i = 0; i < 600; i++) memcpy(many.data + first + i * scan, b.data + first, scan);
    memcpy(many.data + first + 600 * scan, b.data + first, b.size - first);
    fvt_ck_image_refused(fvt_decode(many, "some/file", 3, &image), "too many scans");
    free(many.data);
    free(b.data);
}
END_TEST

/* What a JPEG does not define is an error, not what the file before it had. */
START_TEST(test_tables_are_forgotten) {
    fvt_bytes whole = fvt_read_image("grey.jpg"), without = fvt_read_image("grey.jpg");
    fv_image image;
    size_t at = segment(without, 0xdb), length = 2 + (size_t)(whole.data[at + 2] << 8 | whole.data[at + 3]);
    memmove(without.data + at, without.data + at + length, without.size - at - length);
    without.size -= length;
    fvt_ck_image_refused(fvt_decode(without, "some/file", 3, &image), "uantization table");
    ck_assert_int_eq(fvt_decode(whole, "", 3, &image), FV_OK);
    fvt_ck_image_refused(fvt_decode(without, "some/file", 3, &image), "uantization table");
    free(whole.data), free(without.data);
}
END_TEST

/* A few fvt_bytes before the end marker are padding; many mean that the decoder lost its place. */
START_TEST(test_padding) {
    static const size_t padding[] = {4, 32, 200};
    fvt_bytes b = fvt_read_image("grey.jpg");
    fv_image image;
    b.data = realloc(b.data, b.size + 200);
    for (int i = 0; i < 3; i++) {
        size_t end = b.size - 2 + padding[i];
        memset(b.data + b.size - 2, 0, padding[i]);
        b.data[end] = 0xff, b.data[end + 1] = 0xd9;
        fv_status status = fvt_decode((fvt_bytes){b.data, end + 2}, "some/file", 3, &image);
        if (i < 2) ck_assert_msg(status == FV_OK, "%s", fvt_images.ctx.error.message);
        else fvt_ck_image_refused(status, "extraneous bytes");
    }
    free(b.data);
}
END_TEST

/* Data that end too early for their header, though the end marker is there: never silently grey. */
START_TEST(test_missing_rows) {
    fvt_bytes b = claim("ycc_444.jpg", 200, 27);
    fv_image image;
    fvt_ck_image_refused(fvt_decode(b, "some/file", 3, &image), "premature end of data segment at row 24 of 200");
    ck_assert_int_gt(fvt_images.ctx.error.offset, 0);
    free(b.data);
}
END_TEST

/* ---------------------------------------------------------------- memory that fails */

START_TEST(test_failing_memory) {
    static const char *const names[] = {"turned_6.jpg",         "progressive.jpg",  "cmyk.jpg",
                                        "rgba8_interlaced.png", "palette_trns.png", "lossy_alpha.webp"};
    const char *name = names[_i];
    fvt_bytes file = fvt_read_image(name);
    if (fvt_image_skipped(name)) {
        free(file.data);
        return;
    }
    for (int64_t n = 1;; n++) {
        fv_decoder *d = NULL;
        fv_image image;
        uint8_t out[7 * 5 * 4];
        int64_t live = fvt_images.memory.live;
        fvt_images.memory.calls = 0;
        fvt_images.memory.fail_at = n;
        fvt_images.ctx.error.code = FV_OK;
        fv_status status = fv_decoder_create(&fvt_images.ctx, &d);
        if (status == FV_OK)
            status = fv_image_decode(d, file.data, file.size, "", &(fv_decode_opts){.channels = 4}, &image);
        if (status == FV_OK) {
            const fv_box box = {0.5, 0.5, image.h - 1, image.w - 1};
            status = fv_image_resize(d, &image, box, FV_FILTER_BICUBIC, 7, 5, out);
        }
        bool reached = fvt_images.memory.calls >= n;
        fvt_images.memory.fail_at = 0;
        ck_assert_msg(status == FV_OK || (status == FV_E_MEMORY && fvt_images.ctx.error.code == FV_E_MEMORY),
                      "%s, %lld: %d: %s", name, (long long)n, (int)status, fvt_images.ctx.error.message);
        if (status != FV_OK && d) /* the decoder is as good as before */
            ck_assert_int_eq(fv_image_decode(d, file.data, file.size, "", &(fv_decode_opts){.channels = 3}, &image),
                             FV_OK);
        fv_decoder_destroy(d);
        ck_assert_int_eq(fvt_images.memory.live, live);
        if (!reached) {
            ck_assert_int_eq(status, FV_OK);
            ck_assert_int_gt(n, 6);
            break;
        }
        ck_assert_int_lt(n, 1000);
    }
    free(file.data);
}
END_TEST

Suite *image_bad_suite(void) {
    Suite *suite = suite_create("image_bad");
    TCase *tcase = tcase_create("bad pictures");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, fvt_images_setup, fvt_images_teardown);
    tcase_add_test(tcase, test_something_else);
    tcase_add_test(tcase, test_no_libwebp);
    tcase_add_loop_test(tcase, test_truncated, 0, DAMAGED);
    tcase_add_loop_test(tcase, test_flipped, 0, DAMAGED);
    tcase_add_test(tcase, test_exif);
    tcase_add_test(tcase, test_bombs);
    tcase_add_test(tcase, test_many_scans);
    tcase_add_test(tcase, test_tables_are_forgotten);
    tcase_add_test(tcase, test_padding);
    tcase_add_test(tcase, test_missing_rows);
    tcase_add_loop_test(tcase, test_failing_memory, 0, 6);
    suite_add_tcase(suite, tcase);
    return suite;
}
