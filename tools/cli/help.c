/* help.c: the overview, help pages and the manual page, from the option table. */
#include "tools/cli/recipes.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FV_HELP_WIDTH 80 /* of a pipe */
#define FV_HELP_MOST 100
#define FV_HELP_INDENT 28 /* where the text of an option begins */

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

/* What a help page says before the options. */
static const char *const about[FV_CMD_COUNT] = {
    [FV_CMD_train] =
        "Everything that is not given is chosen by model and data. The run folder (runs/train, runs/train-2, ...) "
        "keeps the weights, the options as resolved, a table of the epochs and a report; --resume goes on "
        "after an interruption.",
    [FV_CMD_eval] =
        "A run folder brings its data, model and normalisation with it. A model folder (model.safetensors and "
        "config.json) needs --data, a bare weights file --model, too.",
    [FV_CMD_predict] =
        "One line per picture: path, class, probability. Folders are searched for .jpg, .jpeg, .png and .webp "
        "files; '-' reads paths from standard input, one per line. Pictures are prepared as in evaluation. "
        "Those that cannot be read are reported and left out, and the exit code is then 3.",
    [FV_CMD_info] = "The argument is the name of a model, or something trained.",
    [FV_CMD_models] = "Sizes are for the input and the number of classes shown.",
    [FV_CMD_bench] = "Needs no data: pictures are random. The median step counts.",
    [FV_CMD_data] =
        "get fetches what is missing and checks it against published checksums; check verifies what is there; info "
        "describes it. NAME is cifar10, cifar100, mnist, fashion-mnist or a path; see --data of 'fovea train'.",
    [FV_CMD_help] =
        "Without an argument: the overview. recipes lists the recipes of 'fovea train'; the name of one shows "
        "what is in it.",
    [FV_CMD_completion] =
        "In bash: source <(fovea completion bash). In zsh, after compinit: source <(fovea completion zsh). In "
        "fish: fovea completion fish | source. Put the line into the shell's start-up file to have it "
        "always; 'make install' does it for everybody.",
    [FV_CMD_version] = "And the commit that the program was built from.",
};

/* Lines of at most 76 columns; longer ones go on behind a backslash. */
static const char *const examples[FV_CMD_COUNT] = {
    [FV_CMD_train] = "fovea train --data synthetic --model resnet20 --epochs 2\n"
                     "fovea train --data cifar10 --model resnet20 --epochs 30 -b 128 --seed 0\n"
                     "fovea train --data photos/ --model resnet18 --img-size 128\n"
                     "fovea train --recipe cifar10-resnet20\n"
                     "fovea train --resume runs/train\n"
                     "fovea train -c runs/train/args.yaml --seed 1\n",
    [FV_CMD_eval] = "fovea eval runs/train\n"
                    "fovea eval runs/train --split val --weights last\n"
                    "fovea eval runs/train --min-top1 0.85 --save-to report\n"
                    "fovea eval --model resnet20 --pretrained resnet20.safetensors \\\n"
                    "    --data cifar10 --mean .485,.456,.406 --std .229,.224,.225\n",
    [FV_CMD_predict] = "fovea predict runs/train photo.jpg\n"
                       "fovea predict runs/train photos/ --topk 5\n"
                       "fovea predict runs/train photos/ --save-to classes.csv -q\n"
                       "find photos -name '*.png' | fovea predict runs/train - --json\n",
    [FV_CMD_info] = "fovea info resnet20\nfovea info resnet18_cifar -b 128\nfovea info runs/train --dump\n",
    [FV_CMD_models] = "fovea models\nfovea models --json\n",
    [FV_CMD_bench] =
        "fovea bench --model resnet20 -b 32 --seconds 5\nfovea bench --model vit_tiny_patch4_32 --profile\n",
    [FV_CMD_data] = "fovea data info synthetic\nfovea data get cifar10\nfovea data check cifar10\n",
    [FV_CMD_help] = "fovea help train\nfovea help recipes\nfovea help --man | man -l -\n",
    [FV_CMD_completion] = "source <(fovea completion bash)\n",
    [FV_CMD_version] = "fovea version\n",
};

int fv_cli_columns(FILE *to, int most) {
    struct winsize size;
    if (!isatty(fileno(to))) return FV_HELP_WIDTH;
    const char *given = getenv("COLUMNS");
    int n = given ? (int)strtol(given, NULL, 10) : 0;
    if (n <= 0 && ioctl(fileno(to), TIOCGWINSZ, &size) == 0) n = size.ws_col;
    return n <= 0 ? FV_HELP_WIDTH : n < 40 ? 40 : n < most ? n : most;
}

/* ---------------------------------------------------------------- help pages */

/* "  -b, --batch-size N"; returns its columns. */
static int print_name(FILE *to, const fv_cli_option *o) {
    int n = fprintf(to, "  ");
    n += o->short_name ? fprintf(to, "-%c, ", o->short_name) : fprintf(to, "    ");
    n += fprintf(to, "--%s", o->name);
    if (o->meta) n += fprintf(to, " %s", o->meta);
    return n;
}

/* Help text, choices and default in one line of text. */
static void describe(const fv_cli_option *o, char *buf, size_t size) {
    size_t used = (size_t)snprintf(buf, size, "%s", o->help);
    if (o->type == FV_CLI_CHOICE && used < size) {
        used += (size_t)snprintf(buf + used, size - used, "; one of ");
        for (const char *p = o->choices; *p && used < size; p++)
            used += (size_t)snprintf(buf + used, size - used, *p == '|' ? ", " : "%c", *p);
    }
    bool plain = o->def && !(o->type == FV_CLI_BOOL && !strcmp(o->def, "false"));
    if (plain && used < size) {
        used += (size_t)snprintf(buf + used, size - used, " (default: %s", o->def);
        if (o->type == FV_CLI_BOOL && used < size)
            used += (size_t)snprintf(buf + used, size - used, "; --no-%s", o->name);
        if (used < size) snprintf(buf + used, size - used, ")");
    }
}

/* Text in words up to `width`; the cursor stands at `column`, later lines start at `indent`. */
static void print_wrapped(FILE *to, const char *text, int column, int indent, int width) {
    if (column > indent || (column == indent && column > 0)) fputc('\n', to), column = 0;
    bool first = true;
    while (*text) {
        int bytes = (int)strcspn(text, " ");
        char word[160];
        snprintf(word, sizeof word, "%.*s", bytes, text);
        int columns = fv_text_columns(word);
        if (first) fprintf(to, "%*s", indent - column, ""), column = indent;
        else if (column + 1 + columns > width) fprintf(to, "\n%*s", indent, ""), column = indent;
        else fputc(' ', to), column++;
        fputs(word, to);
        first = false;
        column += columns;
        text += bytes;
        while (*text == ' ') text++;
    }
    fputc('\n', to);
}

static void print_examples(FILE *to, fv_cli_command command) {
    for (const char *p = examples[command]; *p;) {
        int length = (int)strcspn(p, "\n");
        fprintf(to, "  %.*s\n", length, p);
        p += length + 1;
    }
}

void fv_cli_print_usage(FILE *to) {
    int width = fv_cli_columns(to, FV_HELP_MOST);
    fprintf(to,
            "fovea %s: train image classifiers from the command line\n\nusage: fovea COMMAND [options]\n\nCommands\n",
            FV_VERSION);
    for (int c = 0; c < FV_CMD_COUNT; c++)
        print_wrapped(to, fv_cli_commands[c].summary, fprintf(to, "  %s", fv_cli_commands[c].name), 14, width);
    fputs("\nTo begin: with no data at hand, with CIFAR-10, with pictures of your own\n"
          "  fovea train --data synthetic --model resnet20 --epochs 2\n"
          "  fovea data get cifar10 && fovea train --data cifar10 --model resnet20\n"
          "  fovea train --data photos/ --model resnet18      # photos/CLASS/*.jpg\n"
          "\nAnd when it is trained\n"
          "  fovea eval runs/train\n"
          "  fovea predict runs/train picture.jpg\n"
          "\nTo read on\n"
          "  fovea help COMMAND     its options and examples\n"
          "  fovea models           the models\n"
          "  fovea help recipes     sets of options with known results\n"
          "  man fovea              all of it (fovea help --man | man -l -)\n",
          to);
}

static bool group_applies(int row, fv_cli_command command) {
    for (int r = row + 1; r < FV_ROWS && !rows[r].title; r++)
        if ((fv_cli_options[rows[r].id].commands >> command) & 1) return true;
    return false;
}

void fv_cli_print_help(FILE *to, fv_cli_command command) {
    const fv_cli_command_info *info = &fv_cli_commands[command];
    int width = fv_cli_columns(to, FV_HELP_MOST), indent = width < 70 ? 10 : FV_HELP_INDENT;
    fprintf(to, "fovea %s: %s\n\nusage: fovea %s [options]%s%s\n\n", info->name, info->summary, info->name,
            info->arguments[0] ? " " : "", info->arguments);
    print_wrapped(to, about[command], 0, 0, width);
    for (int r = 0; r < FV_ROWS; r++) {
        if (rows[r].title) {
            if (group_applies(r, command)) fprintf(to, "\n%s\n", rows[r].title);
            continue;
        }
        const fv_cli_option *o = &fv_cli_options[rows[r].id];
        if (!((o->commands >> command) & 1)) continue;
        char text[1024];
        describe(o, text, sizeof text);
        print_wrapped(to, text, print_name(to, o), indent, width);
    }
    fprintf(to, "\nExamples\n");
    print_examples(to, command);
}

void fv_recipe_list(FILE *to) {
    int width = fv_cli_columns(to, FV_HELP_MOST);
    print_wrapped(to,
                  "Recipes of 'fovea train': complete sets of options, with known results. Every other option may be "
                  "given beside them.",
                  0, 0, width);
    for (int i = 0; i < fv_recipe_count; i++) {
        const fv_recipe *r = &fv_recipes[i];
        fprintf(to, "\n  %s (version %d, model %s)\n", r->name, r->version, r->model);
        print_wrapped(to, r->title, 0, 6, width);
        print_wrapped(to, r->accuracy, fprintf(to, "      accuracy:"), 16, width);
        print_wrapped(to, r->source, fprintf(to, "      source:"), 16, width);
    }
    fputs("\n  fovea help NAME            what is in one, line by line\n"
          "  fovea train --recipe NAME\n",
          to);
}

/* The text up to the first pause: a parenthesis, else a colon or the end of a part, if two words come before it. */
const char *fv_cli_short_help(fv_cli_id id, char *buf, size_t size) {
    const char *help = fv_cli_options[id].help;
    size_t n = 0, words = 1;
    bool quoted = false;
    for (; help[n]; n++) {
        quoted ^= help[n] == '`';
        bool pause = help[n] == ';' || help[n] == ':' || (help[n] == '.' && help[n + 1] == ' ');
        if (!quoted && ((pause && words >= 2) || !strncmp(help + n, " (", 2))) break;
        words += help[n] == ' ';
    }
    if (n >= size) { /* whole words only */
        for (n = size - 4; n > 0 && help[n] != ' '; n--) continue;
        snprintf(buf, size, "%.*s...", (int)n, help);
    } else {
        snprintf(buf, size, "%.*s", (int)n, help);
    }
    return buf;
}

/* ---------------------------------------------------------------- man(7) */

/* Text with what roff would take for its own escaped. */
static void roff(FILE *to, const char *s) {
    if (*s == '.' || *s == '\'') fputs("\\&", to);
    for (; *s; s++) {
        if (*s == '\\') fputs("\\e", to);
        else if (*s == '-') fputs("\\-", to);
        else if (*s == '`') fputs("\\(aq", to);
        else if (*s == '\'') fputs("\\(aq", to);
        else if (*s == '~') fputs("\\(ti", to);
        else if (*s == '^') fputs("\\(ha", to);
        else fputc(*s, to);
    }
}

static void man_option(FILE *to, const fv_cli_option *o) {
    char text[1024], env[64], flag[64];
    fputs(".TP\n", to);
    if (o->short_name) fprintf(to, "\\fB\\-%c\\fR, ", o->short_name);
    snprintf(flag, sizeof flag, "--%s", o->name);
    fputs("\\fB", to);
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
    fputs(".\n.br\n", to);
    if (fv_cli_env_name((fv_cli_id)(o - fv_cli_options), env, sizeof env)) {
        fputs("Environment: ", to);
        roff(to, env);
        fputs(".\n", to);
    }
    fputs("Commands:", to);
    int left = __builtin_popcount(o->commands);
    for (int c = 0; c < FV_CMD_COUNT; c++)
        if ((o->commands >> c) & 1) fprintf(to, " %s%s", fv_cli_commands[c].name, --left ? "," : ".\n");
}

static void man_commands(FILE *to) {
    fputs(".SH COMMANDS\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        const fv_cli_command_info *info = &fv_cli_commands[c];
        fprintf(to, ".TP\n\\fB%s\\fR%s", info->name, info->arguments[0] ? " \\fI" : "");
        roff(to, info->arguments);
        fputs(info->arguments[0] ? "\\fR\n" : "\n", to);
        roff(to, info->summary);
        fputs(".\n", to);
        roff(to, about[c]);
        fputc('\n', to);
    }
}

static void man_recipes(FILE *to) {
    fputs(".SH RECIPES\nComplete sets of options for \\fBtrain \\-\\-recipe\\fR; \\fBfovea help \\fINAME\\fR prints "
          "one.\n",
          to);
    for (int i = 0; i < fv_recipe_count; i++) {
        fputs(".TP\n\\fB", to);
        roff(to, fv_recipes[i].name);
        fputs("\\fR\n", to);
        roff(to, fv_recipes[i].title);
        fputs(". Accuracy: ", to);
        roff(to, fv_recipes[i].accuracy);
        fputs(".\n", to);
    }
}

static void man_environment(FILE *to) {
    static const char *const variables[][2] = {
        {"FOVEA_DATA", "where named data sets lie, as --data-dir"},
        {"FOVEA_OPTION",
         "a value for --option: its name in capitals, with _ for -, such as FOVEA_BATCH_SIZE. Each option "
         "names its variable above; those that name none are not read from the environment"},
        {"XDG_CACHE_HOME", "what --cache disk and --autotune keep lies in fovea/ below it, else in ~/.cache/fovea"},
        {"NO_COLOR", "if it is not empty, no colours on a terminal"},
        {"TERM", "if it is dumb or missing, neither colours nor a live bar"},
        {"COLUMNS", "width of help pages on a terminal, at most 100"},
    };
    fputs(".SH ENVIRONMENT\n", to);
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) {
        fprintf(to, ".TP\n\\fB%s\\fR\n", variables[i][0]);
        roff(to, variables[i][1]);
        fputs(".\n", to);
    }
}

static void man_files(FILE *to) {
    static const char *const files[][2] = {
        {"runs/NAME/",
         "the folder of a run; NAME-2, NAME-3 ... if it is there already. --output and --name choose others"},
        {"runs/NAME/args.yaml", "every option as resolved; input for -c"},
        {"runs/NAME/results.csv", "a row per epoch"},
        {"runs/NAME/weights/best/, last/", "model.safetensors and config.json, which PyTorch and timm read"},
        {"runs/NAME/state/", "the training state, for --resume"},
        {"runs/NAME/log.txt", "the console, in its detailed form"},
        {"datasets/", "where named data sets lie, unless --data-dir or FOVEA_DATA says otherwise"},
        {"~/.cache/fovea/", "decoded and resized pictures of --cache disk, and autotune.txt, which library kernels "
                            "--autotune found to be the "
                            "fastest; may be deleted at any time"},
    };
    fputs(".SH FILES\n", to);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        fputs(".TP\n\\fI", to);
        roff(to, files[i][0]);
        fputs("\\fR\n", to);
        roff(to, files[i][1]);
        fputs(".\n", to);
    }
}

static void man_examples(FILE *to) {
    fputs(".SH EXAMPLES\n", to);
    for (int c = 0; c < FV_CMD_COUNT; c++) {
        fputs(c ? ".PP\n.nf\n" : ".nf\n", to);
        for (const char *p = examples[c]; *p; p += strcspn(p, "\n") + 1) {
            char line[160];
            snprintf(line, sizeof line, "%.*s", (int)strcspn(p, "\n"), p);
            roff(to, line);
            fputc('\n', to);
        }
        fputs(".fi\n", to);
    }
}

void fv_cli_print_man(FILE *to, const char *date) {
    fprintf(to, ".TH FOVEA 1 \"%s\" \"fovea %s\" \"User Commands\"\n", date, FV_VERSION);
    fputs(".SH NAME\nfovea \\- train image classifiers\n.SH SYNOPSIS\n.B fovea\n.I COMMAND\n[options]\n", to);
    fputs(".SH DESCRIPTION\nTrains, evaluates and applies image classifiers, and measures and describes them. Results "
          "go to "
          "standard output; progress, warnings and errors to standard error. With \\fB\\-\\-json\\fR standard output "
          "has one "
          "JSON object per line.\n",
          to);
    man_commands(to);
    fputs(".SH OPTIONS\nA flag takes precedence over the file given with \\fB\\-c\\fR, that over a recipe, that over "
          "the environment, and that over the default. Values follow as the next word or behind \\fB=\\fR. Switches "
          "are turned off by "
          "\\fB\\-\\-no\\-\\fINAME\\fR.\n",
          to);
    for (int r = 0; r < FV_ROWS; r++) {
        if (rows[r].title) fprintf(to, ".SS %s\n", rows[r].title);
        else man_option(to, &fv_cli_options[rows[r].id]);
    }
    man_recipes(to);
    fputs(".SH EXIT STATUS\n", to);
#define FV_MAN_STATUS(name, code, text) fprintf(to, ".TP\n%d\n%s\n", code, text);
    FV_STATUS_TABLE(FV_MAN_STATUS)
#undef FV_MAN_STATUS
    fputs(".TP\n128+n\nended by signal n\n", to);
    man_environment(to);
    man_files(to);
    man_examples(to);
}
