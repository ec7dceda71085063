/* check.c: everything that opening a set checks, for both splits, and the published counts and checksums; of pictures
 * in files, whether each can be decoded. */
#include "data/internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The files of a python archive have published checksums of their own, and nothing else guards their pixels. */
static fv_status check_python_file(fv_ctx *ctx, const fv_data_place *place, const fv_data_file_name *file,
                                   int *verified) {
    char path[FV_DATA_PATH], md5[33];
    FV_TRY(fv_data_path(ctx, path, "%s/%s", place->folder, file->name));
    FV_TRY(fv_md5_file(ctx, path, md5));
    if (strcmp(md5, file->md5) != 0) {
        fv_fail_at(ctx, FV_E_DATA, path, -1, "MD5 is %s, published is %s", md5, file->md5);
        return fv_hint(ctx, "the file is damaged or was changed: 'fovea data get %s' fetches it again",
                       place->kind->name);
    }
    ++*verified;
    return FV_OK;
}

/* A gzip file carries a checksum of its contents. Another MD5 only means that somebody packed it anew. */
static fv_status check_idx_file(fv_ctx *ctx, const fv_data_place *place, const char *stem, int rank, int *verified) {
    char path[FV_DATA_PATH], md5[33];
    const fv_source *source = fv_source_find(place->kind->name);
    if (!source || !fv_idx_find(ctx, place->folder, stem, rank, path)) return FV_OK;
    const char *name = strrchr(path, '/') + 1;
    for (const fv_source_file *f = source->files; f->name; f++) {
        if (strcmp(f->name, name) != 0) continue;
        FV_TRY(fv_md5_file(ctx, path, md5));
        if (strcmp(md5, f->md5) == 0) ++*verified;
        else
            fv_log(ctx, FV_LOG_WARN, "%s was packed anew: MD5 %s, published %s; its contents are in order", path, md5,
                   f->md5);
    }
    return FV_OK;
}

static fv_status check_split(fv_ctx *ctx, const char *name, const char *root, fv_split split) {
    const fv_dataset_opts opts = {.root = root};
    fv_data_place place;
    fv_dataset *d;
    FV_TRY(fv_data_locate(ctx, name, root, split, &place));
    FV_TRY(fv_dataset_open(ctx, name, split, &opts, &d));
    int64_t count = d->count, published = place.kind->published[split];
    int32_t h = d->h, w = d->w, c = d->c, classes = d->classes;
    uint64_t fingerprint = d->fingerprint;
    fv_dataset_free(d);
    const char *part = split == FV_SPLIT_TRAIN ? "train" : "test";
    int verified = 0;
    const fv_data_file_name *files = place.layout->files[split];
    for (int i = 0; files[i].name; i++) {
        if (place.layout->format == FV_FORMAT_IDX)
            FV_TRY(check_idx_file(ctx, &place, files[i].name, i == 0 ? 3 : 1, &verified));
        else if (files[i].md5 && place.named) FV_TRY(check_python_file(ctx, &place, &files[i], &verified));
    }
    if (published > 0 && count != published && place.named) {
        fv_fail_at(ctx, FV_E_DATA, place.folder, -1, "%s has %" PRId64 " images, the published set %" PRId64, part,
                   count, published);
        return fv_hint(ctx, "'fovea data get %s' fetches it again", name);
    }
    fv_log(ctx, FV_LOG_INFO,
           "%s %s: %" PRId64 " images of %d x %d x %d, %d classes, fingerprint %016" PRIx64
           ", %d files with their published checksum: %s",
           place.label, part, count, h, w, c, classes, fingerprint, verified, place.folder);
    return FV_OK;
}

/* What the reports say, to the log; a bad file is an error. */
static fv_status tell_reports(const fv_dataset *d, const fv_file_report *report) {
    int64_t count[FV_PART_COUNT] = {0}, bad = 0, copies = 0, first = -1;
    for (int64_t i = 0; i < d->count; i++) {
        const char *path = d->files->path[i];
        count[d->part[i]]++;
        if (report[i].problem) {
            fv_log(d->ctx, FV_LOG_WARN, "%s: %s", path, report[i].problem);
            if (bad++ == 0) first = i;
        } else if (report[i].copy_of >= 0) {
            fv_log(d->ctx, FV_LOG_WARN, "%s has the same bytes as %s", path, d->files->path[report[i].copy_of]);
            copies++;
        }
    }
    fv_log(d->ctx, FV_LOG_INFO,
           "%s: train %" PRId64 ", val %" PRId64 ", test %" PRId64 ", %d classes, fingerprint %016" PRIx64 ", %" PRId64
           " bad files, %" PRId64 " copies: %s",
           d->name, count[FV_PART_TRAIN], count[FV_PART_VAL], count[FV_PART_TEST], d->classes, d->fingerprint, bad,
           copies, d->path);
    if (!bad) return FV_OK;
    fv_fail_at(d->ctx, FV_E_DATA, d->path, -1,
               "%" PRId64 " of %" PRId64 " files cannot be decoded; the first is %s: %s", bad, d->count,
               d->files->path[first], report[first].problem);
    return fv_hint(d->ctx, "take them out of the set; '--skip-bad' leaves them out in training");
}

static fv_status check_files(fv_ctx *ctx, const char *name, const char *root) {
    const fv_dataset_opts opts = {.root = root, .img_size = 1, .workers = fv_cpu_count()};
    fv_dataset *d;
    fv_file_report *report;
    FV_TRY(fv_dataset_open(ctx, name, FV_SPLIT_TRAIN, &opts, &d));
    fv_status status = fv_dataset_inspect(d, true, &opts, &d->arena, &report);
    if (status == FV_OK) status = tell_reports(d, report);
    fv_dataset_free(d);
    return status;
}

fv_status fv_data_check(fv_ctx *ctx, const char *name, const char *root) {
    if (strcmp(name, "synthetic") == 0) return FV_OK; /* there are no files */
    if (fv_dataset_is_files(ctx, name, root)) return check_files(ctx, name, root);
    FV_TRY(check_split(ctx, name, root, FV_SPLIT_TRAIN));
    return check_split(ctx, name, root, FV_SPLIT_TEST);
}
