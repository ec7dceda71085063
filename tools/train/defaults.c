/* defaults.c: what to use where the user said nothing. Every choice lands in args.yaml. */
#include "tools/train/session.h"

#include <string.h>

#define FV_SMALL_PICTURE 64 /* up to this side pictures are used whole */

fv_status fv_defaults_resolve_files(fv_cli *cli, const fv_model_entry *model) {
    FV_TRY(fv_cli_resolve(cli, OPT_IMG_SIZE, "%lld", (long long)model->img_size));
    bool photos = fv_cli_int(cli, OPT_IMG_SIZE) > FV_SMALL_PICTURE;
    FV_TRY(fv_cli_resolve(cli, OPT_CROP_PCT, "%s", photos ? "0.875" : "1"));
    FV_TRY(fv_cli_resolve(cli, OPT_INTERPOLATION, "bilinear"));
    return fv_cli_resolve(cli, OPT_IN_CHANS, "3");
}

void fv_defaults_normalisation(int32_t channels, double *mean, double *std) {
    static const double colour_mean[] = {0.485, 0.456, 0.406}, colour_std[] = {0.229, 0.224, 0.225};
    for (int32_t i = 0; i < channels; i++) {
        bool grey = channels < 3;
        mean[i] = grey && i == 0 ? 0.449 : !grey && i < 3 ? colour_mean[i] : 0.5;
        std[i] = grey && i == 0 ? 0.226 : !grey && i < 3 ? colour_std[i] : 0.5;
    }
}

static fv_status resolve_training(fv_cli *cli, const fv_model_entry *model, const fv_dataset *data) {
    bool vit = !strcmp(model->family, "vit"), small = !strcmp(model->family, "mlp") || !strcmp(model->family, "lenet");
    bool overfit = fv_cli_int(cli, OPT_OVERFIT_BATCHES) > 0; /* adam learns by heart whatever the model */
    FV_TRY(fv_cli_resolve(cli, OPT_OPTIMIZER, "%s", overfit ? "adam" : vit ? "adamw" : "sgd"));
    const char *opt = fv_cli_text(cli, OPT_OPTIMIZER);
    bool sgd = !strcmp(opt, "sgd") || !strcmp(opt, "muon"), adamw = !strcmp(opt, "adamw");
    FV_TRY(fv_cli_resolve(cli, OPT_EPOCHS, "%d", small ? 10 : 30));
    FV_TRY(fv_cli_resolve(cli, OPT_LR, "%s", !sgd ? "0.001" : small ? "0.05" : "0.1"));
    FV_TRY(fv_cli_resolve(cli, OPT_WEIGHT_DECAY, "%s", sgd ? "0.0005" : adamw ? "0.05" : "0"));
    FV_TRY(fv_cli_resolve(cli, OPT_CLIP_GRAD, "%s", vit ? "1" : "0"));
    const char *sched = fv_cli_text(cli, OPT_SCHED);
    bool warms_up = strcmp(sched, "onecycle") != 0 && strcmp(sched, "constant") != 0;
    double fifth = fv_cli_float(cli, OPT_EPOCHS) / 5;
    FV_TRY(fv_cli_resolve(cli, OPT_WARMUP_EPOCHS, "%g", !warms_up ? 0.0 : fifth < 2 ? fifth : 2.0));
    bool photos = data->files && fv_cli_int(cli, OPT_IMG_SIZE) > FV_SMALL_PICTURE;
    FV_TRY(fv_cli_resolve(cli, OPT_TRAIN_CROP, "%s", photos ? "rrc" : "pad"));
    FV_TRY(fv_cli_resolve(cli, OPT_COLOR_JITTER, "0,0,0,0"));
    FV_TRY(fv_cli_resolve(cli, OPT_CROP_PAD, "%d", data->c > 1 ? 4 : 2));
    return fv_cli_resolve(cli, OPT_HFLIP, "%s", data->c > 1 ? "0.5" : "0");
}

fv_status fv_defaults_resolve(fv_cli *cli, const fv_model_entry *model, const fv_dataset *data) {
    bool own_size = !strcmp(model->family, "vit"); /* the others take pictures of any size */
    FV_TRY(fv_cli_resolve(cli, OPT_NUM_CLASSES, "%d", data->classes));
    FV_TRY(fv_cli_resolve(cli, OPT_IMG_SIZE, "%lld", own_size ? (long long)model->img_size : (long long)data->h));
    FV_TRY(fv_cli_resolve(cli, OPT_THREADS, "%d", fv_cpu_count()));
    return cli->command == FV_CMD_train ? resolve_training(cli, model, data) : FV_OK;
}
