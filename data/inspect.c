/* inspect.c: looking at every file of a set: can it be decoded, what is it, and is it there twice? */
#include "data/cache.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEADER_BYTES ((size_t)256 << 10) /* what is read of a file first, where the header is enough */

typedef struct content { /* of a file */
    fv_hash128 hash;
    int64_t index;
} content;

typedef struct inspector {
    const fv_dataset *d;
    bool decode;
    fv_file_report *report; /* [count] */
    content *content;       /* [count]; index -1: a bad file */
    fv_arena *arena;        /* guarded by lock */
    pthread_mutex_t lock;
} inspector;

/* The first `bytes` of a file, or all of it if it has fewer. */
static fv_status read_beginning(const fv_file_set *files, fv_decoder *decoder, int64_t i, size_t bytes,
                                fv_picture_file *out, bool *whole) {
    fv_ctx *ctx = fv_decoder_ctx(decoder);
    fv_reader reader;
    FV_TRY(fv_file_path(ctx, files, i, out->path));
    FV_TRY(fv_data_open(&reader, ctx, out->path));
    *whole = reader.size <= bytes;
    out->bytes = *whole ? (size_t)reader.size : bytes;
    out->data = fv_decoder_file_buffer(decoder, out->bytes + 1);
    fv_status status = out->data ? fv_read(&reader, out->data, out->bytes) : FV_E_MEMORY;
    fv_reader_close(&reader);
    return status;
}

/* A header can be longer than the beginning that was read: long comments, large thumbnails. */
static fv_status read_header(const inspector *in, fv_decoder *decoder, int64_t i, fv_image_info *info) {
    fv_picture_file file;
    bool whole;
    FV_TRY(read_beginning(in->d->files, decoder, i, HEADER_BYTES, &file, &whole));
    fv_status status = fv_image_probe(decoder, file.data, file.bytes, file.path, info);
    if (status != FV_E_DATA || whole) return status;
    FV_TRY(fv_picture_read(in->d->files, decoder, i, &file));
    return fv_image_probe(decoder, file.data, file.bytes, file.path, info);
}

static fv_status read_all(const inspector *in, fv_decoder *decoder, int64_t i, fv_image_info *info) {
    const fv_decode_opts opts = {.channels = in->d->c};
    fv_picture_file file;
    fv_image image;
    FV_TRY(fv_picture_read(in->d->files, decoder, i, &file));
    in->content[i].hash = fv_hash_bytes(file.data, file.bytes);
    FV_TRY(fv_image_probe(decoder, file.data, file.bytes, file.path, info));
    return fv_image_decode(decoder, file.data, file.bytes, file.path, &opts, &image);
}

/* fv_crew_fn: a bad file is a finding. Only what the machine lacks ends the inspection. */
static fv_status inspect_one(void *arg, fv_crew_member *member, int64_t i) {
    inspector *in = arg;
    fv_file_report *report = &in->report[i];
    fv_status status = (in->decode ? read_all : read_header)(in, member->decoder, i, &report->info);
    report->copy_of = -1;
    in->content[i].index = status == FV_OK ? i : -1;
    if (status == FV_OK || status == FV_E_MEMORY || status == FV_E_INTERNAL) return status;
    const fv_error *e = &member->ctx.error;
    pthread_mutex_lock(&in->lock);
    report->problem = e->offset >= 0 ? fv_arena_printf(in->arena, "%s (at byte %" PRId64 ")", e->message, e->offset)
                                     : fv_arena_strdup(in->arena, e->message);
    status = report->problem ? FV_OK : FV_E_MEMORY;
    if (status != FV_OK) member->ctx.error = in->arena->ctx->error;
    pthread_mutex_unlock(&in->lock);
    return status;
}

static int by_content(const void *a, const void *b) {
    const content *x = a, *y = b;
    int order = memcmp(&x->hash, &y->hash, sizeof x->hash);
    return order ? order : (x->index > y->index) - (x->index < y->index);
}

static void find_copies(inspector *in) {
    size_t n = 0, first = 0;
    for (int64_t i = 0; i < in->d->count; i++)
        if (in->content[i].index >= 0) in->content[n++] = in->content[i];
    qsort(in->content, n, sizeof *in->content, by_content);
    for (size_t i = 1; i < n; i++) {
        if (memcmp(&in->content[i].hash, &in->content[first].hash, sizeof in->content->hash) != 0) first = i;
        else in->report[in->content[i].index].copy_of = in->content[first].index;
    }
}

fv_status fv_dataset_inspect(const fv_dataset *d, bool decode, const fv_dataset_opts *opts, fv_arena *arena,
                             fv_file_report **out) {
    *out = NULL;
    if (!d->files) return fv_fail(d->ctx, FV_E_USAGE, "only sets of picture files can be inspected");
    size_t n = (size_t)d->count;
    inspector in = {.d = d, .decode = decode, .arena = arena};
    fv_crew *crew = NULL;
    in.report = fv_arena_alloc(arena, n, sizeof *in.report);
    in.content = fv_calloc(d->ctx, n, sizeof *in.content);
    fv_status status = in.report && in.content ? fv_crew_create(d->ctx, opts, &crew) : FV_E_MEMORY;
    if (status == FV_OK) {
        pthread_mutex_init(&in.lock, NULL); /* of the default kind: cannot fail here */
        const char *what = decode ? "checking pictures" : "looking at pictures";
        status = fv_crew_run(crew, 0, d->count, inspect_one, &in, what, d->count);
        pthread_mutex_destroy(&in.lock);
    }
    if (status == FV_OK && decode) find_copies(&in);
    fv_crew_destroy(crew);
    fv_free(d->ctx, in.content, n, sizeof *in.content);
    if (status == FV_OK) *out = in.report;
    return status;
}
