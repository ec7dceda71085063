#include "tools/train/resume.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---------------------------------------------------------------- state */

static fv_status try_state(fv_session *s, const fv_run_folder *run, const char *name, fv_st_file *out, bool *there) {
    char path[512];
    FV_TRY(fv_run_path(run, s->ctx, name, path));
    *there = access(path, F_OK) == 0;
    if (!*there) return FV_E_MODEL;
    FV_TRY(fv_st_open(out, s->ctx, path));
    const char *format = fv_st_meta(out, "format");
    if (format && !strcmp(format, "fovea training state 1") && fv_st_meta(out, "args")) return FV_OK;
    fv_fail_at(s->ctx, FV_E_MODEL, path, -1, "is no training state that this version can read");
    fv_st_close(out);
    return FV_E_MODEL;
}

fv_status fv_resume_find_state(fv_session *s, const fv_run_folder *run, fv_st_file *out) {
    bool last_there = false, prev_there = false;
    *out = (fv_st_file){0};
    fv_status last = try_state(s, run, "state/last.safetensors", out, &last_there);
    if (last == FV_OK) return FV_OK;
    if (last_there && last != FV_E_MODEL) return last; /* it may be in order: memory, permissions */
    fv_error error = s->ctx->error;
    fv_status prev = try_state(s, run, "state/prev.safetensors", out, &prev_there);
    if (prev == FV_OK) {
        if (last_there) fv_console_warn(s->con, "%s: %s; going on from the state before it", error.path, error.message);
        else fv_console_warn(s->con, "the newest state is not there; going on from the one before it");
        return FV_OK;
    }
    if (prev_there && prev != FV_E_MODEL) return prev;
    if (last_there) s->ctx->error = error;
    if (last_there || prev_there)
        return fv_hint(s->ctx, "there is no other state in %s/state to go on from", run->path);
    fv_fail_at(s->ctx, FV_E_MODEL, run->path, -1, "nothing to go on from: there is no state/last.safetensors in it");
    return fv_hint(s->ctx, "begin again with 'fovea train -c %s/args.yaml'", run->path);
}

fv_status fv_resume_find_earlier(fv_session *s, const fv_run_folder *run, fv_st_file *out) {
    bool there;
    *out = (fv_st_file){0};
    return try_state(s, run, "state/prev.safetensors", out, &there);
}

/* ---------------------------------------------------------------- options */

static bool may_change(fv_cli_id id) {
    static const fv_cli_id free_options[] = {OPT_DATA_DIR,     OPT_DEVICE,    OPT_RESIDENT_DATA, OPT_ISA,
                                             OPT_THREADS,      OPT_WORKERS,   OPT_CACHE,         OPT_CACHE_DIR,
                                             OPT_PATIENCE,     OPT_MAX_STEPS, OPT_SAVE_EPOCHS,   OPT_SAVE_STEPS,
                                             OPT_SAVE_MINUTES, OPT_LOG_EVERY, OPT_TTA,           OPT_RECOMPUTE,
                                             OPT_QUIET,        OPT_VERBOSE,   OPT_JSON,          OPT_DRY_RUN};
    for (size_t i = 0; i < sizeof free_options / sizeof *free_options; i++)
        if (free_options[i] == id) return true;
    return false;
}

/* Random crops are cut from the file, or from what a cache keeps of it: not the same pixels. */
static bool cache_matters(const fv_session *s, const fv_cli *saved, fv_cli_id id) {
    const char *crop = saved->value[OPT_TRAIN_CROP].text;
    if (id != OPT_CACHE || !crop || strcmp(crop, "rrc") != 0) return false;
    return (fv_cli_int(s->cli, id) == FV_CACHE_NONE) != (fv_cli_int(saved, id) == FV_CACHE_NONE);
}

static const char *shown(const fv_cli_value *v) {
    return v->text ? v->text : "not set";
}

/* One option: the saved value, unless a flag or -c says otherwise and may. */
static fv_status merge(fv_resume *r, fv_session *s, const fv_cli *saved, fv_cli_id id) {
    fv_cli_value *now = &s->cli->value[id];
    const fv_cli_value *before = &saved->value[id];
    const char *name = fv_cli_options[id].name;
    bool given = now->source >= FV_FROM_FILE;
    if (!given) {
        if (id == OPT_DRY_RUN || id == OPT_MAX_STEPS || id == OPT_JSON || id == OPT_QUIET || id == OPT_VERBOSE)
            return FV_OK; /* of one invocation, not of the run */
        if (before->text) return fv_cli_set(s->cli, id, before->text, FV_FROM_RUN, name);
        if (now->source != FV_FROM_DEFAULT) *now = (fv_cli_value){0}; /* nobody gave it then: chosen as it was */
        return FV_OK;
    }
    if (before->text && !strcmp(now->text, before->text)) return FV_OK;
    bool whole = before->number[0] == floor(before->number[0]); /* else its last epoch has fewer steps */
    bool longer = id == OPT_EPOCHS && whole && now->number[0] >= before->number[0];
    if (!longer && (!may_change(id) || cache_matters(s, saved, id))) {
        if (!fv_cli_bool(s->cli, OPT_FORCE)) {
            fv_fail(s->ctx, FV_E_USAGE, "--%s is %s in the run and cannot become %s when it is resumed", name,
                    shown(before), now->text);
            return fv_hint(s->ctx,
                           "leave it out; or add --force: the run then goes on differently, and env.json says so");
        }
        r->forced = true;
    }
    fv_json_set(&r->changed, name, json_pack("[s, s]", before->text ? before->text : "", now->text ? now->text : ""));
    return FV_OK;
}

static fv_status take_options(fv_resume *r, fv_session *s) {
    const char *args = fv_st_meta(&r->state, "args");
    fv_cli saved = {.ctx = s->ctx, .command = FV_CMD_train};
    fv_arena_init(&saved.arena, s->ctx);
    fv_status status = fv_cli_read_yaml_text(&saved, args, strlen(args), r->state.path, FV_FROM_RUN, NULL, 0);
    for (int i = 0; i < OPT_COUNT && status == FV_OK; i++)
        if (fv_cli_applies(s->cli, (fv_cli_id)i) && i != OPT_CONFIG && i != OPT_HELP && i != OPT_RESUME &&
            i != OPT_FORCE)
            status = merge(r, s, &saved, (fv_cli_id)i);
    fv_cli_free(&saved);
    return status;
}

/* Other kernels give other roundings: the run's own are taken if this machine has them. */
static fv_status take_kernels(fv_resume *r, fv_session *s) {
    const char *kernels = fv_st_meta(&r->state, "kernels");
    if (!kernels || !strcmp(kernels, "ref") || fv_cli_given(s->cli, OPT_ISA)) return FV_OK;
    if (!strcmp(fv_cli_text(s->cli, OPT_DEVICE), "ref")) return FV_OK;
    fv_device *device = NULL;
    fv_device_opts opts = {.threads = 1, .isa = kernels};
    fv_error before = s->ctx->error;
    if (fv_backend_find("cpu")->open(s->ctx, &opts, &device) != FV_OK) {
        s->ctx->error = before;
        return FV_OK; /* restore() says so */
    }
    device->backend->close(device);
    return fv_cli_set(s->cli, OPT_ISA, kernels, FV_FROM_RUN, "isa");
}

fv_status fv_resume_open(fv_resume *r, fv_session *s, fv_run_folder *run, const char *path) {
    r->changed = json_object();
    if (!r->changed) return fv_fail_memory(s->ctx, 64, "the list of changes");
    FV_TRY(fv_run_reopen(run, s, path));
    FV_TRY(fv_resume_find_state(s, run, &r->state));
    FV_TRY(take_options(r, s));
    FV_TRY(fv_cli_validate(s->cli));
    FV_TRY(take_kernels(r, s));
    s->resuming = true;
    return FV_OK;
}

/* ---------------------------------------------------------------- back into the session */

static fv_status differs(fv_resume *r, fv_session *s, const char *what, const char *before, const char *now) {
    if (fv_cli_bool(s->cli, OPT_FORCE)) {
        r->forced = true;
        fv_console_warn(s->con, "%s differs from that of the run (%s, now %s)", what, before, now);
        fv_json_set(&r->changed, what, json_pack("[s, s]", before, now));
        return FV_OK;
    }
    fv_fail_at(s->ctx, FV_E_DATA, s->train->path, -1, "%s differs from that of the run (%s, now %s)", what, before,
               now);
    return fv_hint(s->ctx, "bring the data back as they were; or add --force, and env.json will say so");
}

static fv_status check_data(fv_resume *r, fv_session *s) {
    char now[24];
    const char *fingerprint = fv_st_meta(&r->state, "fingerprint"), *split = fv_st_meta(&r->state, "split");
    snprintf(now, sizeof now, "%016llx", (unsigned long long)s->train->fingerprint);
    if (!fingerprint || strcmp(fingerprint, now) != 0)
        FV_TRY(differs(r, s, "the data set's fingerprint", fingerprint ? fingerprint : "missing", now));
    snprintf(now, sizeof now, "%016llx", (unsigned long long)fv_session_split_hash(s));
    if (!split || strcmp(split, now) != 0)
        FV_TRY(differs(r, s, "the split into training and validation", split ? split : "missing", now));
    return FV_OK;
}

fv_status fv_resume_restore(fv_resume *r, fv_session *s, fv_progress *progress) {
    const char *kernels = fv_st_meta(&r->state, "kernels");
    FV_TRY(check_data(r, s));
    if (!kernels || strcmp(kernels, s->device->kernels) != 0)
        fv_console_warn(s->con, "the run was begun with %s kernels, now they are %s: it goes on, but not bit for bit",
                        kernels ? kernels : "unknown", s->device->kernels);
    FV_TRY(fv_progress_read(s->ctx, &r->state, progress));
    return fv_state_restore(s->ctx, s->store, &r->state);
}

json_t *fv_resume_json(const fv_resume *r, const fv_progress *progress) {
    char when[40];
    time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &utc);
    return json_pack("{s:s, s:I, s:I, s:O, s:b}", "time", when, "step", (json_int_t)progress->step, "epoch",
                     (json_int_t)progress->epoch, "changed", r->changed, "forced", (int)r->forced);
}

void fv_resume_close(fv_resume *r) {
    fv_st_close(&r->state);
    json_decref(r->changed);
    *r = (fv_resume){0};
}
