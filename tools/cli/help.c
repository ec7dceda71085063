/* help.c: help pages and the manual page, from the option table. */
#include "tools/cli/options.h"

#include <stdio.h>
#include <string.h>

#define FV_HELP_WIDTH 100
#define FV_HELP_INDENT 30

/* The table with its group titles, in order. */
static const struct {
    const char *title; /* or */
    int id;
} rows[] = {
#define GROUP(title) {title, -1},
#define OPT(id, name, short_name, type, def, env, min, max, choices, commands, meta, help) {NULL, OPT_##id},
#include "tools/cli/options.def"
};
#define FV_ROWS ((int)(sizeof rows / sizeof rows[0]))

static const char *const examples[FV_CMD_COUNT] = {
    [FV_CMD_train] = "fovea train --data synthetic --model resnet20 --epochs 2\n"
                     "fovea train --data cifar10 --model resnet20 --epochs 30 -b 128 --seed 0\n"
                     "fovea train -c runs/train/args.yaml --seed 1\n",
    [FV_CMD_eval] = "fovea eval runs/train --split test --min-top1 0.85\n"
                    "fovea eval --model resnet20 --pretrained resnet20.safetensors --data cifar10 --mean "
                    ".485,.456,.406 --std .229,.224,.225\n",
    [FV_CMD_info] = "fovea info resnet18_cifar -b 128\nfovea info runs/train --dump\n",
    [FV_CMD_models] = "fovea models --json\n",
    [FV_CMD_bench] = "fovea bench --model resnet18_cifar -b 128 --mode train --threads 2 --seconds 10 --json\n",
    [FV_CMD_data] = "fovea data get cifar10\nfovea data check cifar10\nfovea data info mnist\n",
    [FV_CMD_help] = "fovea help train\n",
    [FV_CMD_version] = "fovea version\n",
};

/* "  -b, --batch-size N" */
static int print_name(FILE *to, const fv_cli_option *o) {
    int n = fprintf(to, "  ");
    n += o->short_name ? fprintf(to, "-%c, ", o->short_name) : fprintf(to, "    ");
    n += fprintf(to, "--%s", o->name);
    if (o->type == FV_CLI_CHOICE) n += fprintf(to, " %s", o->meta ? o->meta : "NAME");
    else if (o->meta) n += fprintf(to, " %s", o->meta);
    return n;
}

/* Help text, choices and default in one line of text. */
static void describe(const fv_cli_option *o, char *buf, size_t size) {
    size_t used = (size_t)snprintf(buf, size, "%s", o->help);
    if (o->type == FV_CLI_CHOICE && used < size) used += (size_t)snprintf(buf + used, size - used, ": %s", o->choices);
    bool plain = o->def && !(o->type == FV_CLI_BOOL && !strcmp(o->def, "false"));
    if (plain && used < size) {
        used += (size_t)snprintf(buf + used, size - used, " (default: %s", o->def);
        if (o->type == FV_CLI_BOOL && used < size)
            used += (size_t)snprintf(buf + used, size - used, "; --no-%s", o->name);
        if (used < size) snprintf(buf + used, size - used, ")");
    }
}

/* Wrap text at FV_HELP_WIDTH; the cursor stands at `column`, later lines start at FV_HELP_INDENT. */
static void print_wrapped(FILE *to, const char *text, int column) {
    if (column >= FV_HELP_INDENT) fputc('\n', to), column = 0;
    while (*text) {
        int word = (int)strcspn(text, " ");
        if (column < FV_HELP_INDENT) fprintf(to, "%*s", FV_HELP_INDENT - column, ""), column = FV_HELP_INDENT;
        else if (column + 1 + word > FV_HELP_WIDTH) fprintf(to, "\n%*s", FV_HELP_INDENT, ""), column = FV_HELP_INDENT;
        else fputc(' ', to), column++;
        fprintf(to, "%.*s", word, text);
        column += word;
        text += word;
        while (*text == ' ') text++;
    }
    fputc('\n', to);
}

void fv_cli_print_usage(FILE *to) {
    fprintf(to, "fovea %s: train image classifiers from the command line\n\nusage: fovea COMMAND [options]\n\n",
            FV_VERSION);
    for (int c = 0; c < FV_CMD_COUNT; c++)
        fprintf(to, "  %-9s %s\n", fv_cli_commands[c].name, fv_cli_commands[c].summary);
    fprintf(to, "\n'fovea COMMAND --help' lists its options. To begin:\n"
                "  fovea train --data synthetic --model resnet20 --epochs 2\n");
}

static bool group_applies(int row, fv_cli_command command) {
    for (int r = row + 1; r < FV_ROWS && !rows[r].title; r++)
        if ((fv_cli_options[rows[r].id].commands >> command) & 1) return true;
    return false;
}

void fv_cli_print_help(FILE *to, fv_cli_command command) {
    const fv_cli_command_info *info = &fv_cli_commands[command];
    fprintf(to, "fovea %s: %s\n\nusage: fovea %s [options]%s%s\n", info->name, info->summary, info->name,
            info->arguments[0] ? " " : "", info->arguments);
    for (int r = 0; r < FV_ROWS; r++) {
        if (rows[r].title) {
            if (group_applies(r, command)) fprintf(to, "\n%s\n", rows[r].title);
            continue;
        }
        const fv_cli_option *o = &fv_cli_options[rows[r].id];
        if (!((o->commands >> command) & 1)) continue;
        char text[1024];
        describe(o, text, sizeof text);
        print_wrapped(to, text, print_name(to, o));
    }
    fprintf(to, "\nExamples\n");
    for (const char *p = examples[command]; *p;) {
        int length = (int)strcspn(p, "\n");
        fprintf(to, "  %.*s\n", length, p);
        p += length + 1;
    }
}

/* ---------------------------------------------------------------- man(7) */

/* Text with what roff would take for its own escaped. */
static void roff(FILE *to, const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", to);
    for (; *s; s++) {
        if (*s == '\\') fputs("\\e", to);
        else if (*s == '-') fputs("\\-", to);
        else if (*s == '`') fputc('\'', to);
        else fputc(*s, to);
    }
}

static void man_option(FILE *to, const fv_cli_option *o) {
    char text[1024], env[64];
    fputs(".TP\n", to);
    if (o->short_name) fprintf(to, "\\fB\\-%c\\fR, ", o->short_name);
    fputs("\\fB", to);
    char flag[64];
    snprintf(flag, sizeof flag, "--%s", o->name);
    roff(to, flag);
    fputs("\\fR", to);
    if (o->meta) {
        fputs(" \\fI", to);
        roff(to, o->meta);
        fputs("\\fR", to);
    }
    fputc('\n', to);
    describe(o, text, sizeof text);
    roff(to, text);
    fputs(".\n", to);
    if (fv_cli_env_name((fv_cli_id)(o - fv_cli_options), env, sizeof env)) {
        fputs(".br\nEnvironment: ", to);
        roff(to, env);
        fputs(".\n", to);
    }
    fputs(".br\nCommands:", to);
    for (int c = 0; c < FV_CMD_COUNT; c++)
        if ((o->commands >> c) & 1) fprintf(to, " %s", fv_cli_commands[c].name);
    fputs(".\n", to);
}

void fv_cli_print_man(FILE *to) {
    fprintf(to, ".TH FOVEA 1 \"\" \"fovea %s\" \"User Commands\"\n.SH NAME\nfovea \\- train image classifiers\n",
            FV_VERSION);
    fputs(".SH SYNOPSIS\n.B fovea\n.I COMMAND\n[options]\n.SH COMMANDS\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        fprintf(to, ".TP\n\\fB%s\\fR ", fv_cli_commands[c].name);
        roff(to, fv_cli_commands[c].arguments);
        fputc('\n', to);
        roff(to, fv_cli_commands[c].summary);
        fputc('\n', to);
    }
    fputs(".SH OPTIONS\nA flag takes precedence over the file given with \\fB\\-c\\fR, that over the environment, and "
          "that over "
          "the default. Switches are turned off by \\fB\\-\\-no\\-\\fINAME\\fR.\n",
          to);
    for (int r = 0; r < FV_ROWS; r++) {
        if (rows[r].title) fprintf(to, ".SS %s\n", rows[r].title);
        else man_option(to, &fv_cli_options[rows[r].id]);
    }
    fputs(".SH EXIT STATUS\n", to);
#define FV_MAN_STATUS(name, code, text) fprintf(to, ".TP\n%d\n%s\n", code, text);
    FV_STATUS_TABLE(FV_MAN_STATUS)
#undef FV_MAN_STATUS
    fputs(".TP\n128+n\nended by signal n\n.SH EXAMPLES\n.nf\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) roff(to, examples[c]);
    fputs(".fi\n", to);
}
