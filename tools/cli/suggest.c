/* suggest.c: what was probably meant by a word that means nothing. */
#include "tools/cli/recipes.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const fv_cli_data_sets[] = {"cifar10", "cifar100", "mnist", "fashion-mnist", "synthetic"};
const int fv_cli_data_set_count = (int)(sizeof fv_cli_data_sets / sizeof *fv_cli_data_sets);

/* Names that other programs have for our options. */
static const struct {
    const char *said, *meant;
} synonyms[] = {
    {"learning-rate", "lr"},
    {"lr0", "lr"},
    {"dataset", "data"},
    {"dataset-name", "data"},
    {"root", "data-dir"},
    {"data-path", "data-dir"},
    {"arch", "model"},
    {"net", "model"},
    {"network", "model"},
    {"optimizer", "opt"},
    {"optim", "opt"},
    {"wd", "weight-decay"},
    {"decay", "weight-decay"},
    {"scheduler", "sched"},
    {"lr-scheduler", "sched"},
    {"dropout", "drop"},
    {"stochastic-depth", "drop-path"},
    {"label-smoothing", "smoothing"},
    {"gpu", "device"},
    {"cuda", "device"},
    {"cpu", "device"},
    {"amp", "precision"},
    {"dtype", "precision"},
    {"imgsz", "img-size"},
    {"image-size", "img-size"},
    {"input-size", "img-size"},
    {"size", "img-size"},
    {"num-workers", "workers"},
    {"project", "output"},
    {"out", "output"},
    {"output-dir", "output"},
    {"save-dir", "output"},
    {"checkpoint", "pretrained"},
    {"ckpt", "pretrained"},
    {"initial-checkpoint", "pretrained"},
    {"weights", "pretrained"},
    {"continue", "resume"},
    {"random-erase", "reprob"},
    {"flip", "hflip"},
    {"fliplr", "hflip"},
    {"flipud", "vflip"},
    {"max-epochs", "epochs"},
    {"num-epochs", "epochs"},
    {"early-stopping", "patience"},
    {"grad-clip", "clip-grad"},
    {"max-norm", "clip-grad"},
    {"accumulate", "grad-accum-steps"},
    {"ema", "model-ema"},
    {"top-k", "topk"},
    {"threshold", "min-top1"},
    {"verbosity", "verbose"},
    {"silent", "quiet"},
    {"conf", "config"},
    {"cfg", "config"},
    {"time", "seconds"},
    {"duration", "seconds"},
    {"gray", "in-chans"},
    {"channels", "in-chans"},
    {"validation-split", "val-split"},
    {"interp", "interpolation"},
};

static void copy_word(char *word, size_t size, const char *name, size_t length) {
    snprintf(word, size, "%.*s", (int)(length < size ? length : size - 1), name);
    for (char *p = word; *p; p++)
        if (*p == '_') *p = '-';
}

const char *fv_cli_nearest_option(const fv_cli *cli, const char *name, size_t length) {
    const char *candidates[OPT_COUNT];
    int n = 0;
    char word[64];
    copy_word(word, sizeof word, name, length);
    for (size_t i = 0; i < sizeof synonyms / sizeof *synonyms; i++) {
        int id =
            strcasecmp(synonyms[i].said, word) == 0 ? fv_cli_find(synonyms[i].meant, strlen(synonyms[i].meant)) : -1;
        if (id >= 0 && fv_cli_applies(cli, (fv_cli_id)id)) return fv_cli_options[id].name;
    }
    for (int i = 0; i < OPT_COUNT; i++)
        if (fv_cli_applies(cli, (fv_cli_id)i)) candidates[n++] = fv_cli_options[i].name;
    for (char *p = word; *p; p++)
        if (*p >= 'A' && *p <= 'Z') *p = (char)(*p - 'A' + 'a');
    return fv_text_nearest(word, candidates, n);
}

fv_status fv_cli_unknown_option(fv_cli *cli, const char *dashes, const char *name, size_t length) {
    const char *command = fv_cli_commands[cli->command].name;
    const char *near = strlen(dashes) == 1 && length == 1 ? NULL : fv_cli_nearest_option(cli, name, length);
    fv_fail(cli->ctx, FV_E_USAGE, "unknown option '%s%.*s'%s%s%s", dashes, (int)(length < 100 ? length : 100), name,
            near ? "; did you mean '--" : "", near ? near : "", near ? "'?" : "");
    if (near) return FV_E_USAGE;
    for (int c = 0; c < FV_CMD_COUNT && length > 1; c++) { /* perhaps of another command */
        fv_cli other = {.command = (fv_cli_command)c};
        near = fv_cli_nearest_option(&other, name, length);
        if (near) return fv_hint(cli->ctx, "'fovea %s' has '--%s'", fv_cli_commands[c].name, near);
    }
    return fv_hint(cli->ctx, "'fovea %s --help' lists the options", command);
}

fv_status fv_cli_unknown_command(fv_ctx *ctx, const char *word) {
    static const struct {
        const char *said, *meant;
    } other_names[] = {{"test", "eval"},       {"val", "eval"},      {"validate", "eval"}, {"evaluate", "eval"},
                       {"fit", "train"},       {"resume", "train"},  {"infer", "predict"}, {"classify", "predict"},
                       {"benchmark", "bench"}, {"list", "models"},   {"download", "data"}, {"get", "data"},
                       {"summary", "info"},    {"recipes", "models"}};
    const char *names[FV_CMD_COUNT], *near = NULL;
    if (word[0] == '-') {
        fv_fail(ctx, FV_E_USAGE, "a command comes before the option '%.60s'", word);
        return fv_hint(ctx, "for example 'fovea train %.60s ...'; 'fovea help' lists the commands", word);
    }
    for (int c = 0; c < FV_CMD_COUNT; c++) names[c] = fv_cli_commands[c].name;
    for (size_t i = 0; i < sizeof other_names / sizeof *other_names; i++)
        if (!strcasecmp(word, other_names[i].said)) near = other_names[i].meant;
    if (!near) near = fv_text_nearest(word, names, FV_CMD_COUNT);
    fv_fail(ctx, FV_E_USAGE, "unknown command '%.60s'%s%s%s", word, near ? "; did you mean '" : "", near ? near : "",
            near ? "'?" : "");
    return fv_hint(ctx, "'fovea help' lists the commands");
}

/* ---------------------------------------------------------------- an argument too many */

static bool is_data_set(const char *word) {
    for (int i = 0; i < fv_cli_data_set_count; i++)
        if (!strcmp(word, fv_cli_data_sets[i])) return true;
    return false;
}

static bool is_number(const char *word) {
    return word[0] && strspn(word, "+-.0123456789eE,") == strlen(word);
}

/* "--nesterov false", "--mean 0.4 0.5" */
static bool hint_value(fv_cli *cli, const char *word, int before) {
    if (before < 0) return false;
    const fv_cli_option *o = &fv_cli_options[before];
    static const char *const switches[] = {"true", "false", "yes", "no", "on", "off", "0", "1"};
    bool is_switch = false;
    for (int i = 0; i < 8; i++) is_switch |= !strcasecmp(word, switches[i]);
    if (o->type == FV_CLI_BOOL && is_switch)
        return fv_hint(cli->ctx, "a switch takes no value: '--%s' or '--no-%s'", o->name, o->name), true;
    if (o->type == FV_CLI_FLOATS && is_number(word))
        return fv_hint(cli->ctx, "a list is one word, with commas: '--%s %s'", o->name, o->meta), true;
    return false;
}

fv_status fv_cli_unexpected(fv_cli *cli, const char *word, int before) {
    const fv_cli_command_info *info = &fv_cli_commands[cli->command];
    size_t length = strcspn(word, "=");
    struct stat st;
    char args[600];
    fv_fail(cli->ctx, FV_E_USAGE, "unexpected argument '%.200s'", word);
    if (hint_value(cli, word, before)) return FV_E_USAGE;
    if (!strcmp(word, "help")) return fv_hint(cli->ctx, "'fovea help %s' shows its options", info->name);
    int id = fv_cli_find(word, length);
    if (id >= 0 && fv_cli_applies(cli, (fv_cli_id)id) && (word[length] || !is_data_set(word)))
        return fv_hint(cli->ctx, "options begin with two dashes: '--%.200s'", word);
    if (fv_cli_applies(cli, OPT_DATA) && is_data_set(word))
        return fv_hint(cli->ctx, "a data set is given as '--data %s'", word);
    for (int i = 0; i < fv_recipe_count && fv_cli_applies(cli, OPT_RECIPE); i++)
        if (!strcmp(word, fv_recipes[i].name)) return fv_hint(cli->ctx, "a recipe is given as '--recipe %s'", word);
    if (fv_cli_applies(cli, OPT_MODEL) && fv_model_find(word))
        return fv_hint(cli->ctx, "a model is given as '--model %s'", word);
    snprintf(args, sizeof args, "%.500s/args.yaml", word);
    if (cli->command == FV_CMD_train && access(args, F_OK) == 0)
        return fv_hint(cli->ctx, "'fovea train --resume %.200s' goes on with this run", word);
    if (cli->command == FV_CMD_train && stat(word, &st) == 0)
        return fv_hint(cli->ctx, "data are given as '--data %.200s'", word);
    return fv_hint(cli->ctx, "usage: fovea %s [options]%s%s", info->name, info->arguments[0] ? " " : "",
                   info->arguments);
}
