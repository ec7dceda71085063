/* image_files.c: see image_files.h. */
#include "tests/image_files.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct fvt_images fvt_images;

fvt_bytes fvt_copy_bytes(const void *data, size_t size) {
    fvt_bytes b = {malloc(size + !size), size};
    ck_assert_ptr_nonnull(b.data);
    if (size > 0) memcpy(b.data, data, size);
    return b;
}

fvt_bytes fvt_read_path(const char *path) {
    fv_ctx plain;
    void *data;
    size_t size;
    fv_ctx_init(&plain);
    ck_assert_msg(fv_read_file(&plain, path, (size_t)16 << 20, &data, &size) == FV_OK, "%s: %s", path,
                  plain.error.message);
    fvt_bytes b = fvt_copy_bytes(data, size);
    fv_free(&plain, data, size + 1, 1);
    return b;
}

fvt_bytes fvt_read_image(const char *name) {
    char path[256];
    snprintf(path, sizeof path, FVT_IMAGE_VECTORS "%s", name);
    return fvt_read_path(path);
}

bool fvt_image_skipped(const char *name) {
    return !fvt_images.webp && strstr(name, ".webp") != NULL;
}

/* Once in each process: a decoder that cannot read WebP says how to mend that. */
static bool have_webp(void) {
    static bool said;
    fvt_bytes b = fvt_read_image("lossless.webp");
    fv_image image;
    bool have = fvt_decode(b, "lossless.webp", 3, &image) == FV_OK;
    free(b.data);
    if (!have) ck_assert_ptr_nonnull(strstr(fvt_images.ctx.error.hint, "install libwebp"));
    if (!have && !said) printf("image: SKIPPED what needs libwebp.so.7: it is not there\n");
    said = !have;
    return have;
}

void fvt_images_setup(void) {
    fv_ctx_init(&fvt_images.ctx);
    fvt_memory_install(&fvt_images.memory, &fvt_images.ctx);
    ck_assert_int_eq(fv_decoder_create(&fvt_images.ctx, &fvt_images.decoder), FV_OK);
    fvt_images.webp = have_webp();
}

void fvt_images_teardown(void) {
    fv_decoder_destroy(fvt_images.decoder);
    ck_assert_int_eq(fvt_images.memory.live, 0);
}

fv_status fvt_decode(fvt_bytes b, const char *name, int32_t channels, fv_image *image) {
    const fv_decode_opts opts = {.channels = channels};
    return fv_image_decode(fvt_images.decoder, b.data, b.size, name, &opts, image);
}

void fvt_ck_image_refused(fv_status got, const char *message) {
    const fv_error *error = &fvt_images.ctx.error;
    ck_assert_msg(got == FV_E_DATA, "status %d, not refused with '%s'", (int)got, message);
    ck_assert_msg(strstr(error->message, message) != NULL, "'%s' does not say '%s'", error->message, message);
    ck_assert_str_eq(error->path, "some/file");
}

double fvt_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
