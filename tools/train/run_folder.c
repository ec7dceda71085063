#include "tools/train/run_folder.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>

#define FV_RUN_NUMBERS 100000

/* ---------------------------------------------------------------- folders and files */

static fv_status fail_folder(fv_ctx *ctx, const char *path) {
    fv_fail_at(ctx, FV_E_IO, path, -1, "the folder could not be made: %s", strerror(errno));
    return fv_hint(ctx, "--output names another place for run folders");
}

fv_status fv_make_folders(fv_ctx *ctx, const char *path) {
    char part[512];
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return errno = ENAMETOOLONG, fail_folder(ctx, path);
    for (char *p = part + 1;; p++) {
        if (*p != '/' && *p != '\0') continue;
        char kept = *p;
        *p = '\0';
        struct stat st;
        if (mkdir(part, 0777) != 0 && !(errno == EEXIST && stat(part, &st) == 0 && S_ISDIR(st.st_mode)))
            return fail_folder(ctx, part);
        *p = kept;
        if (kept == '\0') return FV_OK;
    }
}

fv_status fv_run_path(const fv_run_folder *run, fv_ctx *ctx, const char *name, char *out) {
    int n = snprintf(out, 512, "%s/%s", run->path, name);
    return n > 0 && n < 512 ? FV_OK : fv_fail_at(ctx, FV_E_USAGE, run->path, -1, "the path is too long");
}

static fv_status claim_folder(fv_run_folder *run, fv_ctx *ctx, const char *output, const char *name) {
    FV_TRY(fv_make_folders(ctx, output));
    for (int i = 1; i < FV_RUN_NUMBERS; i++) {
        char number[16] = "";
        if (i > 1) snprintf(number, sizeof number, "-%d", i);
        int n = snprintf(run->path, sizeof run->path, "%s/%s%s", output, name, number);
        if (n < 0 || n >= (int)sizeof run->path) return errno = ENAMETOOLONG, fail_folder(ctx, output);
        if (mkdir(run->path, 0777) == 0) return FV_OK;
        if (errno != EEXIST) return fail_folder(ctx, run->path);
    }
    return fail_folder(ctx, run->path);
}

fv_status fv_run_create(fv_run_folder *run, fv_session *s) {
    static const char header[] = "epoch,time,train/loss,metrics/accuracy_top1,metrics/accuracy_top5,val/loss,lr/pg0,"
                                 "train/accuracy_top1,ema/accuracy_top1,images_per_s,mem_gb\n";
    char path[512];
    memset(run, 0, sizeof *run);
    FV_TRY(claim_folder(run, s->ctx, fv_cli_text(s->cli, OPT_OUTPUT), fv_cli_text(s->cli, OPT_NAME)));
    FV_TRY(fv_run_path(run, s->ctx, "weights", path));
    FV_TRY(fv_make_folders(s->ctx, path));
    FV_TRY(fv_run_path(run, s->ctx, "log.txt", path));
    FV_TRY(fv_console_open_log(s->con, s->ctx, path));
    FV_TRY(fv_run_path(run, s->ctx, "results.csv", path));
    run->results = fopen(path, "we");
    if (!run->results || fputs(header, run->results) == EOF || fflush(run->results) != 0)
        return fv_fail_at(s->ctx, FV_E_IO, path, -1, "%s", strerror(errno));
    return FV_OK;
}

void fv_run_close(fv_run_folder *run) {
    if (run->results) fclose(run->results);
    run->results = NULL;
}

fv_status fv_write_json(fv_ctx *ctx, const char *path, json_t *object) {
    char *text = object ? json_dumps(object, JSON_INDENT(2) | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(12)) : NULL;
    json_decref(object);
    if (!text) return fv_fail_memory(ctx, 4096, path);
    size_t bytes = strlen(text);
    text[bytes] = '\n'; /* in the place of the terminator */
    fv_status status = fv_write_file(ctx, path, text, bytes + 1);
    free(text);
    return status;
}

fv_status fv_run_write_json(fv_run_folder *run, fv_ctx *ctx, const char *name, json_t *object) {
    char path[512];
    fv_status status = fv_run_path(run, ctx, name, path);
    if (status != FV_OK) {
        json_decref(object);
        return status;
    }
    return fv_write_json(ctx, path, object);
}

/* ---------------------------------------------------------------- args.yaml, env.json */

/* "model name" of /proc/cpuinfo; "" where there is none. */
static void cpu_name(char *buf, size_t size) {
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    buf[0] = '\0';
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || !colon) continue;
        snprintf(buf, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

static json_t *dataset_json(const fv_session *s) {
    char fingerprint[24];
    const fv_dataset *d = s->train;
    snprintf(fingerprint, sizeof fingerprint, "%016llx", (unsigned long long)d->fingerprint);
    return json_pack("{s:s, s:s, s:s, s:I, s:I, s:i, s:[iii]}", "name", d->name, "path", d->path, "fingerprint",
                     fingerprint, "train", (json_int_t)s->n_train, "val", (json_int_t)s->n_val, "classes",
                     (int)d->classes, "picture", (int)d->h, (int)d->w, (int)d->c);
}

static json_t *env_json(const fv_session *s) {
    char cpu[128], started[40], os[256] = "";
    struct utsname name;
    time_t now = time(NULL);
    struct tm utc;
    cpu_name(cpu, sizeof cpu);
    gmtime_r(&now, &utc);
    strftime(started, sizeof started, "%Y-%m-%dT%H:%M:%SZ", &utc);
    if (uname(&name) == 0) snprintf(os, sizeof os, "%.64s %.64s %.64s", name.sysname, name.release, name.machine);
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:o}", "version", FV_VERSION,
                     "commit", fv_tool_commit(), "compiler", __VERSION__, "started", started, "os", os, "cpu", cpu,
                     "device", s->device->text, "threads", (json_int_t)fv_cli_int(s->cli, OPT_THREADS), "precision",
                     fv_cli_text(s->cli, OPT_PRECISION), "seed", (json_int_t)fv_cli_int(s->cli, OPT_SEED), "params",
                     (json_int_t)s->size.params, "macs", fv_json_number(s->size.macs, 12), "dataset", dataset_json(s));
}

fv_status fv_run_describe(fv_run_folder *run, fv_session *s) {
    char path[512], *text = NULL;
    size_t bytes = 0;
    FV_TRY(fv_run_path(run, s->ctx, "args.yaml", path));
    FV_TRY(fv_cli_write_yaml(s->cli, &text, &bytes));
    fv_status status = fv_write_file(s->ctx, path, text, bytes);
    free(text);
    FV_TRY(status);
    return fv_run_write_json(run, s->ctx, "env.json", env_json(s));
}

/* ---------------------------------------------------------------- results.csv */

static void put(FILE *to, const char *fmt, double v) {
    fputc(',', to);
    if (isfinite(v)) fprintf(to, fmt, v);
}

fv_status fv_run_add_row(fv_run_folder *run, fv_ctx *ctx, const fv_epoch_row *r) {
    FILE *to = run->results;
    fprintf(to, "%lld", (long long)r->epoch);
    put(to, "%.3f", r->time);
    put(to, "%.6f", r->train_loss);
    put(to, "%.6f", r->top1);
    put(to, "%.6f", r->top5);
    put(to, "%.6f", r->val_loss);
    put(to, "%.8g", r->lr);
    put(to, "%.6f", r->train_top1);
    put(to, "%.6f", r->ema_top1);
    put(to, "%.1f", r->images_per_s);
    put(to, "%.3f", r->mem_gb);
    fputc('\n', to);
    if (fflush(to) == 0 && !ferror(to)) return FV_OK;
    char path[512];
    FV_TRY(fv_run_path(run, ctx, "results.csv", path));
    return fv_fail_at(ctx, FV_E_IO, path, -1, "%s", strerror(errno));
}

/* ---------------------------------------------------------------- weights */

fv_status fv_run_save(fv_run_folder *run, fv_session *s, const char *which, bool ema, int64_t epoch, int64_t step) {
    char name[64], path[512], epoch_text[24], step_text[24];
    snprintf(name, sizeof name, "weights/%s", which);
    FV_TRY(fv_run_path(run, s->ctx, name, path));
    FV_TRY(fv_make_folders(s->ctx, path));
    snprintf(name, sizeof name, "weights/%s/model.safetensors", which);
    FV_TRY(fv_run_path(run, s->ctx, name, path));
    snprintf(epoch_text, sizeof epoch_text, "%lld", (long long)epoch);
    snprintf(step_text, sizeof step_text, "%lld", (long long)step);
    const char *const meta[][2] = {{"format", "pt"},
                                   {"architecture", s->net.model->name},
                                   {"epoch", epoch_text},
                                   {"step", step_text},
                                   {"writer", "fovea " FV_VERSION}};
    FV_TRY(fv_model_save(s->ctx, s->store, path, ema, meta, (int32_t)(sizeof meta / sizeof meta[0])));
    const fv_dataset *d = s->train ? s->train : s->test;
    fv_model_config config = {.architecture = s->net.model->name,
                              .num_classes = s->net.cfg.num_classes,
                              .n_labels = d->class_names && d->classes == s->net.cfg.num_classes ? d->classes : 0,
                              .label_names = (const char *const *)d->class_names,
                              .input_size = {s->net.c, s->net.img_size, s->net.img_size},
                              .interpolation = "bilinear",
                              .crop_pct = 1};
    memcpy(config.mean, s->net.mean, sizeof config.mean);
    memcpy(config.std, s->net.std, sizeof config.std);
    snprintf(name, sizeof name, "weights/%s/config.json", which);
    FV_TRY(fv_run_path(run, s->ctx, name, path));
    return fv_config_save(s->ctx, path, &config);
}
