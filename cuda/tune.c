/* tune.c: see tune.h. */
#include "cuda/tune.h"

#include "core/io/io.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST_BYTES ((size_t)16 << 20) /* of the file; some 100,000 problems */
#define LINE 1024
#define MARGIN 0.98

typedef struct kept {
    char *problem;
    uint64_t name;
} kept;

struct fv_tuner {
    fv_ctx *ctx;
    char path[512], machine[256];
    kept *results;
    int n, room;
    bool warned;
};

/* ---------------------------------------------------------------- what is kept */

static kept *find(const fv_tuner *t, const char *problem) {
    for (int i = 0; i < t->n; i++)
        if (strcmp(t->results[i].problem, problem) == 0) return &t->results[i];
    return NULL;
}

static fv_status remember(fv_tuner *t, const char *problem, uint64_t name) {
    kept *old = find(t, problem);
    if (old) {
        old->name = name;
        return FV_OK;
    }
    if (t->n == t->room) {
        const int room = t->room ? 2 * t->room : 32;
        kept *wider = fv_alloc(t->ctx, (size_t)room, sizeof *wider);
        if (!wider) return t->ctx->error.code;
        if (t->n) memcpy(wider, t->results, (size_t)t->n * sizeof *wider);
        fv_free(t->ctx, t->results, (size_t)t->room, sizeof *t->results);
        t->results = wider;
        t->room = room;
    }
    char *copy = fv_strdup(t->ctx, problem);
    if (!copy) return t->ctx->error.code;
    t->results[t->n++] = (kept){copy, name};
    return FV_OK;
}

bool fv_tuner_kept(const fv_tuner *t, const char *problem, uint64_t *name) {
    const kept *found = find(t, problem);
    if (found) *name = found->name;
    return found != NULL;
}

/* ---------------------------------------------------------------- the file */

/* A line, which is cut into its fields. */
static fv_status take_line(fv_tuner *t, char *line) {
    char *field[4], *end;
    int n = 0;
    for (char *p = line; p && n < 4; n++) {
        field[n] = p;
        p = strchr(p, '\t');
        if (p) *p++ = '\0';
        else if (n < 3) return FV_OK;
    }
    if (strcmp(field[0], t->machine) != 0 || !field[1][0]) return FV_OK;
    const uint64_t name = strtoull(field[2], &end, 10);
    if (end == field[2] || *end) return FV_OK;
    return remember(t, field[1], name);
}

static fv_status read_results(fv_tuner *t) {
    const fv_error before = t->ctx->error;
    void *data;
    size_t size;
    if (fv_read_file(t->ctx, t->path, MOST_BYTES, &data, &size) != FV_OK) {
        fv_log(t->ctx, FV_LOG_DEBUG, "autotune: %s: %s", t->path, t->ctx->error.message);
        t->ctx->error = before; /* none yet, or none that can be read */
        return FV_OK;
    }
    fv_status status = FV_OK;
    /* A line without an end was cut off: it is no result. */
    for (char *line = data, *end; status == FV_OK && (end = strchr(line, '\n')); line = end + 1) {
        *end = '\0';
        status = take_line(t, line);
    }
    fv_free(t->ctx, data, size + 1, 1);
    return status;
}

/* One write at the end of the file: two processes do not tear each other's lines. */
static void append(fv_tuner *t, const char *problem, uint64_t name, double seconds) {
    const fv_io *io = &t->ctx->io;
    char line[LINE];
    const int n = snprintf(line, sizeof line, "%s\t%s\t%" PRIu64 "\t%.2f\n", t->machine, problem, name, 1e6 * seconds);
    if (n < 0 || n >= LINE) return;
    const int fd = io->open(io->user, t->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, 0666);
    const bool written = fd >= 0 && io->write(io->user, fd, line, (size_t)n) == n;
    const int error = errno;
    if (fd >= 0) io->close(io->user, fd);
    if (written || t->warned) return;
    t->warned = true;
    fv_log(t->ctx, FV_LOG_WARN, "%s cannot be written: %s; the next run measures again", t->path, strerror(error));
}

/* ---------------------------------------------------------------- open, choose, close */

fv_status fv_tuner_open(fv_ctx *ctx, const char *path, const char *machine, fv_tuner **out) {
    fv_tuner *t = fv_calloc(ctx, 1, sizeof *t);
    *out = t;
    if (!t) return ctx->error.code;
    t->ctx = ctx;
    snprintf(t->path, sizeof t->path, "%s", path);
    snprintf(t->machine, sizeof t->machine, "%s", machine);
    for (char *p = t->machine; *p; p++)
        if (*p == '\t' || *p == '\n') *p = ' ';
    fv_status status = read_results(t);
    if (status == FV_OK) return FV_OK;
    fv_tuner_close(t);
    *out = NULL;
    return status;
}

void fv_tuner_close(fv_tuner *t) {
    if (!t) return;
    for (int i = 0; i < t->n; i++) fv_free(t->ctx, t->results[i].problem, strlen(t->results[i].problem) + 1, 1);
    fv_free(t->ctx, t->results, (size_t)t->room, sizeof *t->results);
    fv_free(t->ctx, t, 1, sizeof *t);
}

int fv_tuner_choose(fv_tuner *t, const char *problem, int n, const uint64_t *names, fv_tuner_measure measure,
                    void *arg) {
    int best = -1;
    double least = 0;
    for (int i = 0; i < n; i++) {
        const double seconds = measure(arg, i);
        if (seconds < 0 || (best >= 0 && !(seconds < MARGIN * least))) continue;
        best = i;
        least = seconds;
    }
    if (best < 0) return -1;
    const fv_error before = t->ctx->error;
    if (remember(t, problem, names[best]) != FV_OK) t->ctx->error = before; /* measured again when it is asked again */
    append(t, problem, names[best], least);
    return best;
}
