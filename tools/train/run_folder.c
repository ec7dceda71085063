#include "tools/train/run_folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#define FV_RUN_NUMBERS 100000
#define FV_INTERRUPTIONS 1000 /* in a row, of one call */
#define FV_RESULTS_MOST ((size_t)256 << 20)

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
        if (mkdir(part, 0777) == 0) FV_TRY(fv_sync_name(ctx, part));
        else if (!(errno == EEXIST && stat(part, &st) == 0 && S_ISDIR(st.st_mode))) return fail_folder(ctx, part);
        *p = kept;
        if (kept == '\0') return FV_OK;
    }
}

fv_status fv_run_path(const fv_run_folder *run, fv_ctx *ctx, const char *name, char *out) {
    int n = snprintf(out, 512, "%s/%s", run->path, name);
    return n > 0 && n < 512 ? FV_OK : fv_fail_at(ctx, FV_E_USAGE, run->path, -1, "the path is too long");
}

/* The nearest folder of --output that is there says whether the others can be made. */
fv_status fv_run_check_output(fv_session *s) {
    const char *output = fv_cli_text(s->cli, OPT_OUTPUT);
    char part[512];
    struct stat st;
    if (snprintf(part, sizeof part, "%s", output) >= (int)sizeof part)
        return errno = ENAMETOOLONG, fail_folder(s->ctx, output);
    while (stat(part, &st) != 0) {
        if (errno != ENOENT) return fail_folder(s->ctx, part);
        char *slash = strrchr(part, '/');
        if (!slash) snprintf(part, sizeof part, ".");
        else slash[slash == part] = '\0';
    }
    if (!S_ISDIR(st.st_mode)) return errno = ENOTDIR, fail_folder(s->ctx, output);
    return access(part, W_OK | X_OK) == 0 ? FV_OK : fail_folder(s->ctx, output);
}

static fv_status claim_folder(fv_run_folder *run, fv_ctx *ctx, const char *output, const char *name) {
    FV_TRY(fv_make_folders(ctx, output));
    for (int i = 1; i < FV_RUN_NUMBERS; i++) {
        char number[16] = "";
        if (i > 1) snprintf(number, sizeof number, "-%d", i);
        int n = snprintf(run->path, sizeof run->path, "%s/%s%s", output, name, number);
        if (n < 0 || n >= (int)sizeof run->path) return errno = ENAMETOOLONG, fail_folder(ctx, output);
        if (mkdir(run->path, 0777) == 0) return fv_sync_name(ctx, run->path);
        if (errno != EEXIST) return fail_folder(ctx, run->path);
    }
    return fail_folder(ctx, run->path);
}

void fv_run_init(fv_run_folder *run) {
    memset(run, 0, sizeof *run);
    run->lock = -1;
}

static fv_status lock_folder(fv_run_folder *run, fv_ctx *ctx) {
    char path[512], owner[32];
    FV_TRY(fv_run_path(run, ctx, "lock", path));
    for (int i = 0; i < FV_INTERRUPTIONS && (i == 0 || (run->lock < 0 && errno == EINTR)); i++)
        run->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (run->lock < 0) return fv_fail_at(ctx, FV_E_IO, path, -1, "%s", strerror(errno));
    if (flock(run->lock, LOCK_EX | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK) return fv_fail_at(ctx, FV_E_IO, path, -1, "cannot be locked: %s", strerror(errno));
        ssize_t n = pread(run->lock, owner, sizeof owner - 1, 0);
        owner[n > 0 ? n : 0] = '\0';
        owner[strcspn(owner, "\n")] = '\0';
        fv_fail_at(ctx, FV_E_BUSY, run->path, -1, "another process works on this run%s%s", owner[0] ? ": " : "", owner);
        return fv_hint(ctx, "wait for it, or stop it with 'kill %s': it saves before it leaves", owner);
    }
    int n = snprintf(owner, sizeof owner, "%ld\n", (long)getpid()); /* for the message above; nothing depends on it */
    if (ftruncate(run->lock, 0) != 0 || pwrite(run->lock, owner, (size_t)n, 0) != n)
        return fv_fail_at(ctx, FV_E_IO, path, -1, "%s", strerror(errno));
    return FV_OK;
}

static fv_status append_results(fv_run_folder *run, fv_ctx *ctx, const char *text, size_t bytes) {
    size_t wanted = run->results.bytes + bytes;
    if (wanted > run->results.capacity) {
        size_t capacity = 2 * wanted + 4096;
        char *grown = realloc(run->results.text, capacity);
        if (!grown) return fv_fail_memory(ctx, capacity, "results.csv");
        run->results.text = grown;
        run->results.capacity = capacity;
    }
    memcpy(run->results.text + run->results.bytes, text, bytes);
    run->results.bytes = wanted;
    return FV_OK;
}

/* Names of the two columns that depend on the kind of labels. */
static fv_status begin_results(fv_run_folder *run, fv_session *s) {
    char header[256];
    bool several = s->train->targets != NULL;
    int n = snprintf(header, sizeof header,
                     "epoch,time,train/loss,%s,%s,val/loss,lr/pg0,train/accuracy_top1,%s,images_per_s,mem_gb\n",
                     several ? "metrics/mAP" : "metrics/accuracy_top1",
                     several ? "metrics/f1" : "metrics/accuracy_top5", several ? "ema/mAP" : "ema/accuracy_top1");
    return append_results(run, s->ctx, header, (size_t)n);
}

fv_status fv_run_create(fv_run_folder *run, fv_session *s) {
    char path[512];
    FV_TRY(claim_folder(run, s->ctx, fv_cli_text(s->cli, OPT_OUTPUT), fv_cli_text(s->cli, OPT_NAME)));
    FV_TRY(lock_folder(run, s->ctx));
    FV_TRY(fv_run_path(run, s->ctx, "weights", path));
    FV_TRY(fv_make_folders(s->ctx, path));
    FV_TRY(fv_run_path(run, s->ctx, "log.txt", path));
    FV_TRY(fv_console_open_log(s->con, s->ctx, path));
    FV_TRY(begin_results(run, s));
    FV_TRY(fv_run_path(run, s->ctx, "results.csv", path));
    return fv_write_file(s->ctx, path, run->results.text, run->results.bytes);
}

void fv_run_close(fv_run_folder *run) {
    if (run->lock >= 0) close(run->lock);
    free(run->results.text);
    fv_run_init(run);
}

/* ---------------------------------------------------------------- a run that goes on */

/* Temporary files that a killed process left behind; nobody else writes here while the lock is held. */
static void remove_leftovers(const char *folder, int depth) {
    DIR *dir = opendir(folder);
    for (struct dirent *e; dir && (e = readdir(dir));) {
        char path[1024];
        struct stat st;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        int n = snprintf(path, sizeof path, "%s/%s", folder, e->d_name);
        if (n < 0 || n >= (int)sizeof path || lstat(path, &st) != 0) continue;
        if (S_ISDIR(st.st_mode) && depth > 0) remove_leftovers(path, depth - 1);
        else if (S_ISREG(st.st_mode) && strstr(e->d_name, ".tmp-")) unlink(path);
    }
    if (dir) closedir(dir);
}

fv_status fv_run_reopen(fv_run_folder *run, fv_session *s, const char *path) {
    struct stat st;
    char args[512];
    int n = snprintf(run->path, sizeof run->path, "%s", path);
    if (n < 0 || n >= (int)sizeof run->path) return fv_fail_at(s->ctx, FV_E_USAGE, path, -1, "the path is too long");
    while (n > 1 && run->path[n - 1] == '/') run->path[--n] = '\0';
    FV_TRY(fv_run_path(run, s->ctx, "args.yaml", args));
    if (stat(path, &st) != 0 || !S_ISDIR(st.st_mode) || stat(args, &st) != 0) {
        fv_fail_at(s->ctx, FV_E_MODEL, path, -1, "is no run folder: there is no args.yaml in it");
        return fv_hint(s->ctx, "--resume wants the folder that 'fovea train' made, for example runs/train");
    }
    FV_TRY(lock_folder(run, s->ctx));
    remove_leftovers(run->path, 2);
    return FV_OK;
}

/* Where the rows after so many epochs begin; the header is row 0. */
static size_t end_of_rows(const char *text, size_t bytes, int64_t epochs) {
    size_t at = 0;
    for (bool header = true; at < bytes; header = false) {
        const char *end = memchr(text + at, '\n', bytes - at);
        if (!end || (!header && strtoll(text + at, NULL, 10) > epochs)) break;
        at = (size_t)(end - text) + 1;
    }
    return at;
}

void fv_run_truncate(fv_run_folder *run, int64_t epochs) {
    run->results.bytes = end_of_rows(run->results.text, run->results.bytes, epochs);
}

fv_status fv_run_continue(fv_run_folder *run, fv_session *s, int64_t epochs) {
    char path[512];
    void *data = NULL;
    size_t bytes = 0;
    FV_TRY(fv_run_path(run, s->ctx, "log.txt", path));
    FV_TRY(fv_console_open_log(s->con, s->ctx, path));
    FV_TRY(fv_run_path(run, s->ctx, "results.csv", path));
    if (access(path, F_OK) != 0) {
        fv_console_warn(s->con, "%s is gone; it begins again with this epoch", path);
        return begin_results(run, s);
    }
    FV_TRY(fv_read_file(s->ctx, path, FV_RESULTS_MOST, &data, &bytes));
    fv_status status = append_results(run, s->ctx, data, bytes);
    fv_free(s->ctx, data, bytes + 1, 1);
    FV_TRY(status);
    fv_run_truncate(run, epochs);
    return run->results.bytes ? FV_OK : begin_results(run, s);
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
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:I, s:I, s:o, s:o}", "version", FV_VERSION,
                     "commit", fv_tool_commit(), "compiler", __VERSION__, "started", started, "os", os, "cpu", cpu,
                     "device", s->device->text, "libraries", s->device->libraries, "threads",
                     (json_int_t)fv_cli_int(s->cli, OPT_THREADS), "precision", fv_cli_text(s->cli, OPT_PRECISION),
                     "seed", (json_int_t)fv_cli_int(s->cli, OPT_SEED), "params", (json_int_t)s->size.params, "macs",
                     fv_json_number(s->size.macs, 12), "dataset", dataset_json(s));
}

/* The entries of an earlier env.json's list `resumed`, and this one. */
static json_t *resumed_list(const char *path, json_t *entry) {
    json_t *old = json_load_file(path, 0, NULL), *list = json_array();
    json_t *before = json_object_get(old, "resumed");
    if (json_is_array(before) && json_array_extend(list, before) != 0) {
        json_decref(list);
        list = NULL;
    }
    fv_json_add(&list, entry);
    json_decref(old);
    return list;
}

fv_status fv_run_describe(fv_run_folder *run, fv_session *s, json_t *resumed) {
    char path[512], *text = NULL;
    size_t bytes = 0;
    json_t *env = env_json(s);
    fv_status status = fv_run_path(run, s->ctx, "env.json", path);
    if (resumed && status == FV_OK) fv_json_set(&env, "resumed", resumed_list(path, resumed));
    else json_decref(resumed);
    if (status == FV_OK) status = fv_run_path(run, s->ctx, "args.yaml", path);
    if (status == FV_OK) status = fv_cli_write_yaml(s->cli, &text, &bytes);
    if (status == FV_OK) status = fv_write_file(s->ctx, path, text, bytes);
    free(text);
    if (status == FV_OK && s->train->files) {
        status = fv_run_path(run, s->ctx, "split.csv", path);
        if (status == FV_OK) status = fv_dataset_save_split(s->train, path);
    }
    if (status == FV_OK) return fv_run_write_json(run, s->ctx, "env.json", env);
    json_decref(env);
    return status;
}

/* ---------------------------------------------------------------- results.csv */

static void put(char *row, size_t size, const char *fmt, double v) {
    size_t used = strlen(row);
    char number[40] = "";
    if (isfinite(v)) snprintf(number, sizeof number, fmt, v);
    snprintf(row + used, size - used, ",%s", number);
}

fv_status fv_run_add_row(fv_run_folder *run, fv_ctx *ctx, const fv_epoch_row *r) {
    char row[512];
    snprintf(row, sizeof row, "%lld", (long long)r->epoch);
    put(row, sizeof row, "%.3f", r->time);
    put(row, sizeof row, "%.6f", r->train_loss);
    put(row, sizeof row, "%.6f", r->top1);
    put(row, sizeof row, "%.6f", r->top5);
    put(row, sizeof row, "%.6f", r->val_loss);
    put(row, sizeof row, "%.8g", r->lr);
    put(row, sizeof row, "%.6f", r->train_top1);
    put(row, sizeof row, "%.6f", r->ema_top1);
    put(row, sizeof row, "%.1f", r->images_per_s);
    put(row, sizeof row, "%.3f", r->mem_gb);
    size_t bytes = strlen(row);
    row[bytes] = '\n'; /* in the place of the terminator */
    return append_results(run, ctx, row, bytes + 1);
}

/* ---------------------------------------------------------------- weights */

static fv_model_config describe_model(const fv_session *s) {
    const fv_dataset *d = s->train;
    fv_model_config config = {.architecture = s->net.model->name,
                              .num_classes = s->net.cfg.num_classes,
                              .n_labels = d->class_names && d->classes == s->net.cfg.num_classes ? d->classes : 0,
                              .label_names = (const char *const *)d->class_names,
                              .input_size = {s->net.c, s->net.img_size, s->net.img_size},
                              .interpolation = d->files ? fv_cli_text(s->cli, OPT_INTERPOLATION) : "bilinear",
                              .crop_pct = d->files ? fv_cli_float(s->cli, OPT_CROP_PCT) : 1,
                              .without = s->net.cfg.without,
                              .multi_label = d->targets != NULL};
    memcpy(config.mean, s->net.mean, sizeof config.mean);
    memcpy(config.std, s->net.std, sizeof config.std);
    return config;
}

fv_status fv_run_save(const fv_run_folder *run, fv_ctx *ctx, const fv_session *s, fv_store *store, const char *which,
                      bool ema, int64_t epoch, int64_t step) {
    char name[64], path[512], epoch_text[24], step_text[24];
    snprintf(name, sizeof name, "weights/%s", which);
    FV_TRY(fv_run_path(run, ctx, name, path));
    FV_TRY(fv_make_folders(ctx, path));
    snprintf(name, sizeof name, "weights/%s/model.safetensors", which);
    FV_TRY(fv_run_path(run, ctx, name, path));
    snprintf(epoch_text, sizeof epoch_text, "%lld", (long long)epoch);
    snprintf(step_text, sizeof step_text, "%lld", (long long)step);
    const char *const meta[][2] = {{"format", "pt"},
                                   {"architecture", s->net.model->name},
                                   {"epoch", epoch_text},
                                   {"step", step_text},
                                   {"writer", "fovea " FV_VERSION}};
    FV_TRY(fv_model_save(ctx, store, path, ema, meta, (int32_t)(sizeof meta / sizeof meta[0])));
    fv_model_config config = describe_model(s);
    snprintf(name, sizeof name, "weights/%s/config.json", which);
    FV_TRY(fv_run_path(run, ctx, name, path));
    return fv_config_save(ctx, path, &config);
}
