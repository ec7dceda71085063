/* source.h: where a model comes from: a run folder, a model folder (model.safetensors + config.json), or a weights
 * file. */
#ifndef FV_TOOLS_TRAIN_SOURCE_H
#define FV_TOOLS_TRAIN_SOURCE_H

#include "tools/cli/options.h"

typedef struct fv_model_source {
    char weights[512]; /* the safetensors file */
    char args[512];    /* args.yaml of the run; "": no run folder */
    bool has_config;
    fv_model_config config;
} fv_model_source;

/* `which`: best, last or ema, for run folders. Nothing but config.json is read yet. FV_E_MODEL if there is no model. */
fv_status fv_model_source_find(fv_ctx *ctx, fv_arena *arena, const char *path, const char *which, fv_model_source *out);

/* Take the options that describe the model and its data from the run's args.yaml and from config.json, where no flag or
 * file says otherwise. `classes`: the number of classes, too (evaluation; training takes it from the data). */
fv_status fv_model_source_apply(const fv_model_source *source, fv_cli *cli, bool classes);

#endif
