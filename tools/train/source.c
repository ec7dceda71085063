#include "tools/train/source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static bool exists(const char *path) {
    return access(path, F_OK) == 0;
}

/* "a/b" + "c" into `out` of 512 bytes. */
static fv_status join(fv_ctx *ctx, char *out, const char *folder, const char *rest) {
    int n = snprintf(out, 512, "%s/%s", folder, rest);
    return n > 0 && n < 512 ? FV_OK : fv_fail_at(ctx, FV_E_USAGE, folder, -1, "the path is too long");
}

static fv_status take_folder(fv_ctx *ctx, fv_arena *arena, const char *folder, fv_model_source *out) {
    char config[512];
    FV_TRY(join(ctx, out->weights, folder, "model.safetensors"));
    if (!exists(out->weights)) {
        fv_fail_at(ctx, FV_E_MODEL, folder, -1, "there is no model.safetensors in it");
        return fv_hint(ctx, "a run folder (with args.yaml), a model folder or a .safetensors file is wanted");
    }
    FV_TRY(join(ctx, config, folder, "config.json"));
    if (!exists(config)) return FV_OK;
    out->has_config = true;
    return fv_config_load(ctx, arena, config, &out->config);
}

static fv_status take_file(fv_ctx *ctx, fv_arena *arena, const char *path, fv_model_source *out) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    if (!strcmp(base, "model.safetensors")) {
        char folder[512];
        int n = slash ? (int)(slash - path) : 1;
        snprintf(folder, sizeof folder, "%.*s", n > 0 ? n : 1, slash ? path : ".");
        return take_folder(ctx, arena, folder, out);
    }
    int n = snprintf(out->weights, sizeof out->weights, "%s", path);
    return n < (int)sizeof out->weights ? FV_OK : fv_fail_at(ctx, FV_E_USAGE, path, -1, "the path is too long");
}

fv_status fv_model_source_find(fv_ctx *ctx, fv_arena *arena, const char *path, const char *which,
                               fv_model_source *out) {
    memset(out, 0, sizeof *out);
    if (!exists(path)) {
        fv_fail_at(ctx, FV_E_MODEL, path, -1, "%s", strerror(errno));
        return fv_hint(ctx, "a run folder, a model folder or a .safetensors file is wanted");
    }
    if (!is_folder(path)) return take_file(ctx, arena, path, out);
    FV_TRY(join(ctx, out->args, path, "args.yaml"));
    if (!exists(out->args)) {
        out->args[0] = '\0';
        return take_folder(ctx, arena, path, out);
    }
    char folder[512], rest[32];
    snprintf(rest, sizeof rest, "weights/%s", which);
    FV_TRY(join(ctx, folder, path, rest));
    if (!is_folder(folder)) {
        fv_fail_at(ctx, FV_E_MODEL, folder, -1, "the run has no such weights");
        return fv_hint(
            ctx, "'--weights last' takes those of the last epoch; a run that was stopped early may have no others");
    }
    return take_folder(ctx, arena, folder, out);
}

static fv_status set_list(fv_cli *cli, fv_cli_id id, const double *values, int64_t n) {
    char text[512] = "";
    for (int64_t i = 0; i < n; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%.9g", i ? "," : "", values[i]);
    }
    return fv_cli_set(cli, id, text, FV_FROM_RUN, "config.json");
}

static fv_status set_int(fv_cli *cli, fv_cli_id id, int64_t value) {
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_cli_set(cli, id, text, FV_FROM_RUN, "config.json");
}

fv_status fv_model_source_apply(const fv_model_source *source, fv_cli *cli, bool classes) {
    static const fv_cli_id of_run[] = {OPT_DATA, OPT_DATA_DIR,    OPT_MODEL, OPT_IMG_SIZE, OPT_MEAN,
                                       OPT_STD,  OPT_NUM_CLASSES, OPT_SEED,  OPT_VAL_SPLIT};
    if (source->args[0])
        FV_TRY(fv_cli_read_yaml(cli, source->args, FV_FROM_RUN, of_run, (int)(sizeof of_run / sizeof of_run[0])));
    if (!source->has_config) return FV_OK;
    const fv_model_config *c = &source->config;
    FV_TRY(fv_cli_set(cli, OPT_MODEL, c->architecture, FV_FROM_RUN, "config.json"));
    if (classes) FV_TRY(set_int(cli, OPT_NUM_CLASSES, c->num_classes));
    FV_TRY(set_int(cli, OPT_IMG_SIZE, c->input_size[1]));
    FV_TRY(set_int(cli, OPT_IN_CHANS, c->input_size[0]));
    if (c->without) FV_TRY(fv_cli_set(cli, OPT_WITHOUT, c->without, FV_FROM_RUN, "config.json"));
    if (!fv_cli_applies(cli, OPT_MEAN)) return FV_OK;
    FV_TRY(set_list(cli, OPT_CROP_PCT, &c->crop_pct, 1));
    if (!strcmp(c->interpolation, "bilinear") || !strcmp(c->interpolation, "bicubic"))
        FV_TRY(fv_cli_set(cli, OPT_INTERPOLATION, c->interpolation, FV_FROM_RUN, "config.json"));
    FV_TRY(set_list(cli, OPT_MEAN, c->mean, c->input_size[0]));
    return set_list(cli, OPT_STD, c->std, c->input_size[0]);
}
