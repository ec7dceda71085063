/* photos.c: see photos.h. */
#include "tests/photos.h"

#include <check.h>
#include <dirent.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <jpeglib.h> /* after stdio.h */
#include <png.h>

/* ---------------------------------------------------------------- one file */

/* [h,w,3]: three slow waves and a fast one. Free with free(). */
static uint8_t *paint(int32_t h, int32_t w, uint32_t seed) {
    uint8_t *pixels = malloc((size_t)h * (size_t)w * 3), *to = pixels;
    ck_assert_ptr_nonnull(pixels);
    double a = 0.05 + 0.03 * (seed % 5), b = 0.11 - 0.02 * (seed % 3), phase = seed;
    for (int32_t y = 0; y < h; y++)
        for (int32_t x = 0; x < w; x++)
            for (int k = 0; k < 3; k++)
                *to++ = (uint8_t)(128 + 60 * sin(a * x + phase + k) + 45 * sin(b * y - phase * k) +
                                  20 * sin(1.3 * x + 0.9 * y));
    return pixels;
}

static void write_jpeg(const char *path, const uint8_t *pixels, int32_t h, int32_t w) {
    struct jpeg_compress_struct info;
    struct jpeg_error_mgr errors;
    unsigned char *data = NULL;
    unsigned long bytes = 0;
    info.err = jpeg_std_error(&errors);
    jpeg_create_compress(&info);
    jpeg_mem_dest(&info, &data, &bytes);
    info.image_width = (JDIMENSION)w;
    info.image_height = (JDIMENSION)h;
    info.input_components = 3;
    info.in_color_space = JCS_RGB;
    jpeg_set_defaults(&info);
    jpeg_set_quality(&info, 90, TRUE);
    jpeg_start_compress(&info, TRUE);
    for (int32_t y = 0; y < h; y++) {
        JSAMPROW row = (JSAMPROW)(uintptr_t)(pixels + (size_t)y * (size_t)w * 3);
        jpeg_write_scanlines(&info, &row, 1);
    }
    jpeg_finish_compress(&info);
    jpeg_destroy_compress(&info);
    fvt_put_file(path, data, bytes);
    free(data);
}

static void write_png(const char *path, const uint8_t *pixels, int32_t h, int32_t w) {
    png_image image = {
        .version = PNG_IMAGE_VERSION, .width = (png_uint_32)w, .height = (png_uint_32)h, .format = PNG_FORMAT_RGB};
    ck_assert_int_ne(png_image_write_to_file(&image, path, 0, pixels, 0, NULL), 0);
}

const char *fvt_photos_at(const fvt_photos *p, const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", p->folder, name);
    return path;
}

void fvt_photos_paint(fvt_photos *p, int i, uint32_t seed) {
    const char *path = fvt_photos_at(p, p->name[i]);
    struct stat st;
    uint8_t *pixels = paint(p->h[i], p->w[i], seed);
    if (strstr(p->name[i], ".png")) write_png(path, pixels, p->h[i], p->w[i]);
    else write_jpeg(path, pixels, p->h[i], p->w[i]);
    free(pixels);
    ck_assert_int_eq(stat(path, &st), 0);
    p->bytes[i] = st.st_size;
}

void fvt_photos_cut(fvt_photos *p, int i) {
    ck_assert_int_eq(truncate(fvt_photos_at(p, p->name[i]), p->bytes[i] / 2), 0);
}

/* ---------------------------------------------------------------- the set */

static void on_log(void *user, fv_log_level level, const char *line) {
    fvt_photos *p = user;
    if (level != FV_LOG_WARN) return;
    p->warnings++;
    snprintf(p->warning, sizeof p->warning, "%s", line);
}

/* Large and small, wide and high; some below the side of 32, one of just that. */
static void size_of(int i, int32_t *h, int32_t *w) {
    static const int32_t sizes[][2] = {{40, 61}, {75, 50}, {28, 90},   {32, 32},  {33, 47},
                                       {20, 19}, {64, 64}, {130, 170}, {210, 140}};
    const int32_t *size = sizes[i % (int)(sizeof sizes / sizeof *sizes)];
    *h = size[0] + i / 9;
    *w = size[1] + i / 9;
}

void fvt_photos_make(fvt_photos *p, int n) {
    *p = (fvt_photos){0};
    fv_ctx_init(&p->ctx);
    fvt_memory_install(&p->memory, &p->ctx);
    fvt_files_install(&p->io, &p->ctx);
    p->ctx.log = on_log;
    p->ctx.log_user = p;
    fvt_make_folder(p->folder);
    snprintf(p->caches, sizeof p->caches, "%s/caches", p->folder);
    ck_assert_int_le(n, FVT_PHOTOS_MOST);
    for (int i = 0; i < n; i++) {
        snprintf(p->name[i], sizeof p->name[i], "%03d.%s", i, i % 4 == 3 ? "png" : "jpg");
        p->path[i] = p->name[i];
        size_of(i, &p->h[i], &p->w[i]);
        fvt_photos_paint(p, i, (uint32_t)i);
        p->labels[i] = i % 6 < 3 ? 0 : i % 6 < 5 ? 1 : 2;
    }
    p->files = (fv_file_set){.count = n, .path = p->path, .bytes = p->bytes, .size = 24, .c = 3, .crop_pct = 0.75};
    snprintf(p->files.root, sizeof p->files.root, "%s", p->folder);
    p->set = (fv_dataset){.ctx = &p->ctx,
                          .count = n,
                          .h = 24,
                          .w = 24,
                          .c = 3,
                          .classes = 3,
                          .labels = p->labels,
                          .files = &p->files,
                          .name = "photos"};
    snprintf(p->set.path, sizeof p->set.path, "%s", p->folder);
}

void fvt_photos_remove(fvt_photos *p) {
    fvt_photos_close_cache(p);
    ck_assert_int_eq(p->memory.live, 0);
    ck_assert_int_eq(p->io.open_files, 0);
    if (access(p->caches, F_OK) == 0) fvt_remove_folder(p->caches);
    fvt_remove_folder(p->folder);
}

fv_status fvt_photos_open_cache(fvt_photos *p, fv_cache cache, int workers, bool skip_bad, uint8_t *bad) {
    const fv_dataset_opts opts = {.cache = cache, .cache_dir = p->caches, .workers = workers, .skip_bad = skip_bad};
    fvt_photos_close_cache(p);
    return fv_picture_cache_open(&p->ctx, &p->files, &opts, bad);
}

void fvt_photos_close_cache(fvt_photos *p) {
    fv_picture_cache_close(p->files.cache);
    p->files.cache = NULL;
}

void fvt_photos_cached(fvt_photos *p, fv_cache cache, int workers) {
    ck_assert_msg(fvt_photos_open_cache(p, cache, workers, false, NULL) == FV_OK, "%s: %s", p->ctx.error.path,
                  p->ctx.error.message);
}

const char *fvt_photos_cache_file(const fvt_photos *p, const char *ending) {
    static char path[512];
    int found = 0;
    DIR *folder = opendir(p->caches);
    ck_assert_ptr_nonnull(folder);
    for (struct dirent *e; (e = readdir(folder));) {
        size_t length = strlen(e->d_name), n = strlen(ending);
        if (length < n || strcmp(e->d_name + length - n, ending) != 0) continue;
        snprintf(path, sizeof path, "%s/%s", p->caches, e->d_name);
        found++;
    }
    closedir(folder);
    ck_assert_int_eq(found, 1);
    return path;
}

void fvt_photos_load(fvt_photos *p, fv_decoder *decoder, uint8_t *to) {
    for (int i = 0; i < p->set.count; i++)
        ck_assert_msg(fv_picture_load(&p->files, decoder, i, NULL, to + (size_t)i * FVT_PICTURE) == FV_OK, "%s",
                      p->ctx.error.message);
}

int64_t fvt_file_bytes(const char *path) {
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    return st.st_size;
}

void fvt_flip_bit(const char *path, int64_t byte) {
    int fd = open(path, O_RDWR);
    uint8_t value;
    ck_assert_int_eq(pread(fd, &value, 1, byte), 1);
    value ^= 0x10;
    ck_assert_int_eq(pwrite(fd, &value, 1, byte), 1);
    close(fd);
}
