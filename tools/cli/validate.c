/* validate.c: what a single option's range cannot say. */
#include "tools/cli/options.h"

#include <string.h>

static fv_status check_device(fv_cli *cli) {
    bool float64 = fv_cli_has(cli, OPT_PRECISION) && !strcmp(fv_cli_text(cli, OPT_PRECISION), "float64");
    bool ref = fv_cli_has(cli, OPT_DEVICE) && !strcmp(fv_cli_text(cli, OPT_DEVICE), "ref");
    if (float64 && !ref) {
        fv_fail(cli->ctx, FV_E_USAGE, "--precision float64 runs only on the reference device");
        return fv_hint(cli->ctx, "add '--device ref'");
    }
    if (ref && fv_cli_given(cli, OPT_ISA))
        return fv_fail(cli->ctx, FV_E_USAGE, "--isa is for the cpu device, not for ref");
    return FV_OK;
}

static fv_status check_schedule(fv_cli *cli) {
    const fv_cli_value *milestones = &cli->value[OPT_MILESTONES];
    bool multistep = !strcmp(fv_cli_text(cli, OPT_SCHED), "multistep");
    if (multistep && !milestones->count) {
        fv_fail(cli->ctx, FV_E_USAGE, "--sched multistep needs --milestones");
        return fv_hint(cli->ctx, "for example '--milestones 15,25' for 30 epochs");
    }
    for (int i = 1; i < milestones->count; i++)
        if (milestones->number[i] <= milestones->number[i - 1])
            return fv_fail(cli->ctx, FV_E_USAGE, "--milestones must rise, not '%s'", milestones->text);
    if (fv_cli_has(cli, OPT_LR) && fv_cli_float(cli, OPT_MIN_LR) > fv_cli_float(cli, OPT_LR))
        return fv_fail(cli->ctx, FV_E_USAGE, "--min-lr %s is above --lr %s", fv_cli_text(cli, OPT_MIN_LR),
                       fv_cli_text(cli, OPT_LR));
    if (fv_cli_has(cli, OPT_WARMUP_EPOCHS) && fv_cli_has(cli, OPT_EPOCHS) &&
        fv_cli_float(cli, OPT_WARMUP_EPOCHS) > fv_cli_float(cli, OPT_EPOCHS))
        return fv_fail(cli->ctx, FV_E_USAGE, "--warmup-epochs %s is more than --epochs %s",
                       fv_cli_text(cli, OPT_WARMUP_EPOCHS), fv_cli_text(cli, OPT_EPOCHS));
    return FV_OK;
}

static fv_status check_train(fv_cli *cli) {
    if (!fv_cli_has(cli, OPT_DATA)) {
        fv_fail(cli->ctx, FV_E_USAGE, "no data set given: --data NAME");
        return fv_hint(
            cli->ctx,
            "'--data synthetic' needs no download; 'fovea data get cifar10' fetches CIFAR-10 for '--data cifar10'");
    }
    const char *name = fv_cli_text(cli, OPT_NAME);
    if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..")) {
        fv_fail(cli->ctx, FV_E_USAGE, "--name must be the name of a folder, not the path '%s'", name);
        return fv_hint(cli->ctx, "--output says where run folders lie");
    }
    if (cli->value[OPT_BETAS].count != 2)
        return fv_fail(cli->ctx, FV_E_USAGE, "--betas needs two numbers, not '%s'", fv_cli_text(cli, OPT_BETAS));
    return check_schedule(cli);
}

fv_status fv_cli_validate(fv_cli *cli) {
    FV_TRY(check_device(cli));
    return cli->command == FV_CMD_train ? check_train(cli) : FV_OK;
}
