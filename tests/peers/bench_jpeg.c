/* bench_jpeg.c: how fast JPEG files are decoded to RGB: fv_image_decode beside libjpeg-turbo's own tjDecompress2, in
 * alternation, each with one decompressor for all files, on one core. Medians over the rounds.
 *
 *   make && apt-get install libturbojpeg0-dev
 *   gcc -std=c11 -D_GNU_SOURCE -O2 -I. tests/peers/bench_jpeg.c build/libfovea.a -lturbojpeg -ljpeg -lpng -ljansson \
 *       -lyaml -lxxhash -lz -ldl -lm -lpthread -o build/bench-jpeg
 *   build/bench-jpeg [-r ROUNDS] FILE.jpg... */
#include "fovea.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <turbojpeg.h>

typedef struct picture {
    unsigned char *data, *pixels; /* [h,w,3] */
    size_t bytes;
    int h, w;
    double *ours, *theirs; /* [rounds], seconds */
} picture;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, by_value);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static void *must(void *ptr, const char *what) {
    if (ptr) return ptr;
    fprintf(stderr, "bench_jpeg: %s\n", what);
    exit(1);
}

static void load(picture *p, const char *path, tjhandle tj, int rounds) {
    FILE *file = must(fopen(path, "rb"), path);
    fseek(file, 0, SEEK_END);
    p->bytes = (size_t)ftell(file);
    rewind(file);
    p->data = must(malloc(p->bytes + 1), "out of memory");
    p->bytes = fread(p->data, 1, p->bytes, file);
    fclose(file);
    int sampling, space;
    if (tjDecompressHeader3(tj, p->data, (unsigned long)p->bytes, &p->w, &p->h, &sampling, &space) != 0)
        must(NULL, path);
    p->pixels = must(malloc((size_t)p->h * (size_t)p->w * 3), "out of memory");
    p->ours = must(calloc((size_t)rounds, sizeof(double)), "out of memory");
    p->theirs = must(calloc((size_t)rounds, sizeof(double)), "out of memory");
}

static void measure_theirs(picture *p, int round, const char *path, tjhandle tj) {
    double start = now();
    if (tjDecompress2(tj, p->data, (unsigned long)p->bytes, p->pixels, p->w, 0, p->h, TJPF_RGB, 0) != 0)
        must(NULL, path);
    p->theirs[round] = now() - start;
}

/* Who is first finds the file out of the cache: they take turns. */
static void measure(picture *p, int round, const char *path, tjhandle tj, fv_ctx *ctx, fv_decoder *decoder) {
    const fv_decode_opts opts = {.channels = 3};
    fv_image image;
    if (round % 2) measure_theirs(p, round, path, tj);
    double start = now();
    if (fv_image_decode(decoder, p->data, p->bytes, path, &opts, &image) != FV_OK) must(NULL, ctx->error.message);
    p->ours[round] = now() - start;
    if (round % 2 == 0) measure_theirs(p, round, path, tj);
    if (round == 0 && (image.h != p->h || memcmp(image.pixels, p->pixels, (size_t)p->h * (size_t)p->w * 3) != 0))
        fprintf(stderr, "%s: the pixels differ (turned by its EXIF orientation?)\n", path);
}

int main(int argc, char **argv) {
    int first = 1, rounds = 51;
    if (argc > 2 && !strcmp(argv[1], "-r")) {
        rounds = atoi(argv[2]);
        first = 3;
    }
    if (first >= argc || rounds < 1) must(NULL, "usage: bench-jpeg [-r ROUNDS] FILE.jpg...");
    int n = argc - first;
    fv_ctx ctx;
    fv_decoder *decoder;
    fv_ctx_init(&ctx);
    if (fv_decoder_create(&ctx, &decoder) != FV_OK) must(NULL, ctx.error.message);
    tjhandle tj = must(tjInitDecompress(), "libturbojpeg does not start");
    picture *p = must(calloc((size_t)n, sizeof *p), "out of memory");
    for (int i = 0; i < n; i++) load(&p[i], argv[first + i], tj, rounds);
    for (int r = 0; r < rounds; r++)
        for (int i = 0; i < n; i++) measure(&p[i], r, argv[first + i], tj, &ctx, decoder);
    double ours = 0, theirs = 0;
    for (int i = 0; i < n; i++) {
        double a = median(p[i].ours, rounds), b = median(p[i].theirs, rounds);
        printf("%5d x %-5d %8.1f us  tjDecompress2 %8.1f us  speed %.3f  %s\n", p[i].w, p[i].h, 1e6 * a, 1e6 * b, b / a,
               argv[first + i]);
        ours += a;
        theirs += b;
        free(p[i].data), free(p[i].pixels), free(p[i].ours), free(p[i].theirs);
    }
    printf("all: %.3f times the speed of tjDecompress2\n", theirs / ours);
    free(p);
    tjDestroy(tj);
    fv_decoder_destroy(decoder);
    return 0;
}
