/* validate.c: what a single option's range cannot say. */
#include "tools/cli/options.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static fv_status check_device(fv_cli *cli) {
    const char *precision = fv_cli_has(cli, OPT_PRECISION) ? fv_cli_text(cli, OPT_PRECISION) : "";
    bool float64 = !strcmp(precision, "float64");
    bool ref = fv_cli_has(cli, OPT_DEVICE) && !strcmp(fv_cli_text(cli, OPT_DEVICE), "ref");
    if (float64 && !ref) {
        fv_fail(cli->ctx, FV_E_USAGE, "--precision float64 runs only on the reference device");
        return fv_hint(cli->ctx, "add '--device ref'");
    }
    const char *device = fv_cli_text(cli, OPT_DEVICE);
    bool cuda = device && !strncmp(device, "cuda", 4);
    if ((ref || cuda) && fv_cli_given(cli, OPT_ISA))
        return fv_fail(cli->ctx, FV_E_USAGE, "--isa is for the cpu device, not for %s", ref ? "ref" : "cuda");
    if (device && strchr(device, ':') && !cuda)
        return fv_fail(cli->ctx, FV_E_USAGE, "--device %s: only cuda takes a number, as in cuda:1", device);
    return FV_OK;
}

static bool is_digits(const char *s) {
    return s[0] && s[strspn(s, "0123456789")] == '\0';
}

static fv_status check_on_nan(fv_cli *cli) {
    const char *text = fv_cli_text(cli, OPT_ON_NAN);
    static const char *const words[] = {"stop", "skip", "rollback"};
    if (!strcmp(text, "stop") || !strcmp(text, "rollback")) return FV_OK;
    bool skip = !strncmp(text, "skip:", 5) && is_digits(text + 5) && strlen(text + 5) <= 7;
    long most = skip ? strtol(text + 5, NULL, 10) : 0;
    if (most >= 1 && most <= 1000000) return FV_OK;
    char word[16];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(text, ":"), text);
    const char *near = fv_text_nearest(word, words, 3);
    fv_fail(cli->ctx, FV_E_USAGE, "--on-nan must be stop, skip:K or rollback; not '%.60s'", text);
    if (!near) return FV_E_USAGE;
    if (strcmp(near, "skip") != 0) return fv_hint(cli->ctx, "did you mean '%s'?", near);
    return fv_hint(cli->ctx, "K, from 1 to 1000000, says how many steps in a row may be left out: 'skip:10'");
}

/* Two numbers, the second not below the first. */
static fv_status check_range(fv_cli *cli, fv_cli_id id) {
    const fv_cli_value *v = &cli->value[id];
    const char *name = fv_cli_options[id].name;
    if (v->count != 2) return fv_fail(cli->ctx, FV_E_USAGE, "--%s needs two numbers, MIN,MAX, not '%s'", name, v->text);
    if (v->number[0] > v->number[1])
        return fv_fail(cli->ctx, FV_E_USAGE, "--%s: the first number is above the second: '%s'", name, v->text);
    return FV_OK;
}

static fv_status check_jitter(fv_cli *cli) {
    const fv_cli_value *v = &cli->value[OPT_COLOR_JITTER];
    if (v->count != 0 && v->count != 1 && v->count != 3 && v->count != 4)
        return fv_fail(cli->ctx, FV_E_USAGE,
                       "--color-jitter needs 1, 3 or 4 numbers (brightness, contrast, saturation, hue), not '%s'",
                       v->text);
    if (v->count == 4 && v->number[3] > 0.5)
        return fv_fail(cli->ctx, FV_E_USAGE, "--color-jitter: hue, the fourth number, is at most 0.5, not %g",
                       v->number[3]);
    return FV_OK;
}

/* N, or names of parameters. */
static fv_status check_freeze(fv_cli *cli) {
    const char *text = fv_cli_text(cli, OPT_FREEZE), *p = text;
    if (!text || (is_digits(text) && strlen(text) <= 4)) return FV_OK;
    bool good = !is_digits(text);
    while (good) {
        size_t n = strspn(p, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.");
        good = n > 0 && (p[n] == ',' || p[n] == '\0');
        p += n;
        if (good && *p++ == '\0') return FV_OK;
    }
    fv_fail(cli->ctx, FV_E_USAGE, "--freeze must be a number of stages or names of parameters, not '%.60s'", text);
    return fv_hint(cli->ctx, "for example '--freeze 2' or '--freeze conv1,layer1'; 'fovea info' shows the names");
}

/* "balanced", or numbers of 0 or more that are not all 0. How many there must be, the data set says. */
static fv_status check_class_weights(fv_cli *cli) {
    const char *text = fv_cli_text(cli, OPT_CLASS_WEIGHTS);
    if (!text || !strcmp(text, "balanced")) return FV_OK;
    double most = 0;
    for (const char *p = text;; p++) {
        char *end = (char *)(uintptr_t)p;
        double w = strspn(p, "+.0123456789") ? strtod(p, &end) : -1;
        if (!(w >= 0 && w <= 1e6) || (*end != ',' && *end != '\0')) break;
        if (w > most) most = w;
        if (*end == '\0' && most > 0) return FV_OK;
        if (*end == '\0') break;
        p = end;
    }
    const char *near = fv_text_nearest(text, (const char *const[]){"balanced"}, 1);
    fv_fail(cli->ctx, FV_E_USAGE, "--class-weights must be 'balanced' or a number per class, not '%.60s'", text);
    if (near) return fv_hint(cli->ctx, "did you mean 'balanced'?");
    return fv_hint(cli->ctx, "numbers from 0 to 1000000 with commas, not all 0: '1,1,2.5'");
}

static fv_status check_groups(fv_cli *cli) {
    fv_cli_group groups[FV_MAX_PARAM_GROUPS];
    const char *text = fv_cli_text(cli, OPT_PARAM_GROUPS);
    int n;
    return text ? fv_cli_read_groups(cli->ctx, &cli->arena, text, groups, &n) : FV_OK;
}

/* A name that is neither known nor a file: mistyped, if a known one is near. The library reports the rest. */
static fv_status check_data(fv_cli *cli) {
    const char *name = fv_cli_applies(cli, OPT_DATA) ? fv_cli_text(cli, OPT_DATA) : NULL;
    if (!name || strchr(name, '/') || access(name, F_OK) == 0) return FV_OK;
    const char *near = fv_text_nearest(name, fv_cli_data_sets, fv_cli_data_set_count);
    if (!near || !strcmp(near, name)) return FV_OK;
    fv_fail(cli->ctx, FV_E_DATA, "no data set is called '%s', nor is there a file or folder; did you mean '%s'?", name,
            near);
    return FV_E_DATA;
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
    if (fv_cli_has(cli, OPT_LR) && fv_cli_float(cli, OPT_WARMUP_LR) > fv_cli_float(cli, OPT_LR))
        return fv_fail(cli->ctx, FV_E_USAGE, "--warmup-lr %s is above --lr %s", fv_cli_text(cli, OPT_WARMUP_LR),
                       fv_cli_text(cli, OPT_LR));
    if (fv_cli_has(cli, OPT_WARMUP_EPOCHS) && fv_cli_has(cli, OPT_EPOCHS) &&
        fv_cli_float(cli, OPT_WARMUP_EPOCHS) > fv_cli_float(cli, OPT_EPOCHS)) {
        fv_fail(cli->ctx, FV_E_USAGE, "--warmup-epochs %s is more than --epochs %s",
                fv_cli_text(cli, OPT_WARMUP_EPOCHS), fv_cli_text(cli, OPT_EPOCHS));
        if (cli->value[OPT_WARMUP_EPOCHS].source != FV_FROM_RECIPE) return FV_E_USAGE;
        return fv_hint(cli->ctx, "the recipe warms up for %s epochs; a shorter run needs its own --warmup-epochs",
                       fv_cli_text(cli, OPT_WARMUP_EPOCHS));
    }
    return FV_OK;
}

static fv_status check_loss_scale(fv_cli *cli) {
    const char *text = fv_cli_text(cli, OPT_LOSS_SCALE);
    char *end;
    if (!strcmp(text, "auto")) return FV_OK;
    double scale = strtod(text, &end);
    if (end == text || *end || !(scale >= 1e-6 && scale <= 1e30))
        return fv_fail(cli->ctx, FV_E_USAGE, "--loss-scale must be auto or a number from 1e-6 to 1e30, not '%.40s'",
                       text);
    if (!strcmp(fv_cli_text(cli, OPT_PRECISION), "float16")) return FV_OK;
    fv_fail(cli->ctx, FV_E_USAGE, "--loss-scale is for --precision float16, not for %s",
            fv_cli_text(cli, OPT_PRECISION));
    return fv_hint(cli->ctx, "other types reach further down: their gradients need no scale");
}

static fv_status check_train(fv_cli *cli) {
    if (fv_cli_bool(cli, OPT_FORCE) && !fv_cli_has(cli, OPT_RESUME))
        return fv_fail(cli->ctx, FV_E_USAGE, "--force goes with --resume RUN; nothing else needs it");
    if (!fv_cli_has(cli, OPT_DATA) && fv_cli_has(cli, OPT_RESUME)) return FV_OK; /* the run says the rest */
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
    FV_TRY(check_on_nan(cli));
    FV_TRY(check_loss_scale(cli));
    FV_TRY(check_range(cli, OPT_SCALE));
    FV_TRY(check_range(cli, OPT_RATIO));
    FV_TRY(check_jitter(cli));
    FV_TRY(check_freeze(cli));
    FV_TRY(check_class_weights(cli));
    FV_TRY(check_groups(cli));
    if (fv_cli_given(cli, OPT_TEST_SPLIT) && fv_cli_float(cli, OPT_VAL_SPLIT) + fv_cli_float(cli, OPT_TEST_SPLIT) >= 1)
        return fv_fail(cli->ctx, FV_E_USAGE, "--val-split %s and --test-split %s leave nothing to train on",
                       fv_cli_text(cli, OPT_VAL_SPLIT), fv_cli_text(cli, OPT_TEST_SPLIT));
    return check_schedule(cli);
}

fv_status fv_cli_validate(fv_cli *cli) {
    FV_TRY(check_device(cli));
    FV_TRY(check_data(cli));
    return cli->command == FV_CMD_train ? check_train(cli) : FV_OK;
}
