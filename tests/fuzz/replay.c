/* replay.c: the corpus through the fuzz targets without libFuzzer: every file, and of files below 2 kB every truncation
 * and every flip of one bit; of larger ones a few thousand of them. usage: fuzz-replay [TARGET...]. With
 * FOVEA_TESTS_SHORT one in seven of small files, too. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { EXHAUSTIVE = 2048, MOST_FILE = 1 << 20 };
static const char corpus[] = "tests/fuzz/corpus";

#define TARGET(name) int fvt_fuzz_##name(const uint8_t *data, size_t size);
#include "tests/fuzz/targets.def"
#undef TARGET

static const struct target {
    const char *name;
    int (*run)(const uint8_t *data, size_t size);
} targets[] = {
#define TARGET(name) {#name, fvt_fuzz_##name},
#include "tests/fuzz/targets.def"
#undef TARGET
};

typedef struct replay {
    const struct target *target;
    long files, runs;
    double slowest; /* seconds of one input */
} replay;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* An exact copy on the heap, so that AddressSanitizer sees a read behind its end. */
static void run(replay *r, const uint8_t *bytes, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, bytes, size);
    double start = now();
    r->target->run(copy, size);
    double took = now() - start;
    if (took > r->slowest) r->slowest = took;
    r->runs++;
    free(copy);
}

/* Odd steps: each bit of a byte gets its turn. */
static void run_damaged(replay *r, uint8_t *bytes, size_t size) {
    size_t step = size >= EXHAUSTIVE ? size / 512 | 1 : getenv("FOVEA_TESTS_SHORT") ? 7 : 1;
    for (size_t n = 0; n < size; n += step) run(r, bytes, n);
    for (size_t bit = 0; bit < 8 * size; bit += step) {
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        run(r, bytes, size);
        bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static bool run_file(replay *r, const char *name) {
    static uint8_t bytes[MOST_FILE];
    char path[512];
    snprintf(path, sizeof path, "%s/%s/%s", corpus, r->target->name, name);
    FILE *f = fopen(path, "rb");
    size_t size = f ? fread(bytes, 1, sizeof bytes, f) : sizeof bytes;
    if (f) fclose(f);
    if (size == sizeof bytes) return fprintf(stderr, "%s: cannot be read, or too large\n", path), false;
    r->files++;
    run(r, bytes, size);
    run_damaged(r, bytes, size);
    return true;
}

/* The files in the order of their names; a corpus without files is a mistake. */
static bool run_target(const struct target *target) {
    char path[512];
    struct dirent **entries;
    replay r = {.target = target};
    bool good = true;
    double start = now();
    snprintf(path, sizeof path, "%s/%s", corpus, target->name);
    int n = scandir(path, &entries, NULL, alphasort);
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') good = run_file(&r, entries[i]->d_name) && good;
        free(entries[i]);
    }
    if (n >= 0) free(entries);
    good = good && r.files > 0 && r.slowest <= 1.0;
    printf("%-14s %3ld files, %7ld inputs in %.1f s, the slowest %.3f s%s\n", target->name, r.files, r.runs,
           now() - start, r.slowest, good ? "" : ": FAILED (no files, or an input of more than a second)");
    fflush(stdout);
    return good;
}

int main(int argc, char **argv) {
    int failed = 0, ran = 0;
    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        bool wanted = argc < 2;
        for (int k = 1; k < argc; k++) wanted = wanted || strcmp(argv[k], targets[i].name) == 0;
        if (!wanted) continue;
        ran++;
        if (!run_target(&targets[i])) failed++;
    }
    if (!ran) fprintf(stderr, "usage: fuzz-replay [TARGET...], from the root of the repository\n");
    printf("%d passed, %d failed\n", ran - failed, failed);
    return failed || !ran;
}
