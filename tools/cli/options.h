/* options.h: the command table, the option table (options.def) and the options of one invocation.
 *
 *   precedence   flag > -c file.yaml > recipe > environment > default > "chosen later" (fv_cli_resolve)
 *   fv_cli       value[ OPT_DATA | OPT_DATA_DIR | ... ]   text as given, parsed numbers, where it came from
 *                positional[ "runs/train" ]
 */
#ifndef FV_TOOLS_CLI_OPTIONS_H
#define FV_TOOLS_CLI_OPTIONS_H

#include "fovea.h"

#include <stdio.h>

#define FV_CLI_MANY (1 << 30)

/* X(LETTER, name, arguments, min positional, max positional, summary) in the order of the help page. */
#define FV_COMMAND_TABLE(X) \
    X(T, train, "", 0, 0, "train a classifier; writes a run folder") \
    X(E, eval, "[RUN|MODEL-FOLDER|WEIGHTS]", 0, 1, "evaluate a run folder, a model folder or a weights file") \
    X(P, predict, "RUN|MODEL-FOLDER|WEIGHTS PICTURE|FOLDER...", 1, FV_CLI_MANY, \
      "classify pictures with a trained model") \
    X(I, info, "[MODEL|RUN|MODEL-FOLDER|WEIGHTS]", 0, 1, "layer table of a model: shapes, parameters, MACs, memory") \
    X(M, models, "", 0, 0, "list the models, and the recipes that train them") \
    X(B, bench, "", 0, 0, "measure training or inference speed of a model on synthetic data") \
    X(D, data, "get|check|info NAME|PATH", 2, 2, "fetch, verify or describe a data set") \
    X(H, help, "[COMMAND|recipes|RECIPE]", 0, 1, "show help; --man prints the manual page") \
    X(C, completion, "bash|zsh|fish", 1, 1, "print a script that completes commands and options") \
    X(V, version, "", 0, 0, "print the version")

typedef enum fv_cli_command {
#define FV_CLI_COMMAND(letter, name, args, min, max, summary) FV_CMD_##name,
    FV_COMMAND_TABLE(FV_CLI_COMMAND)
#undef FV_CLI_COMMAND
        FV_CMD_COUNT
} fv_cli_command;

typedef struct fv_cli_command_info {
    const char *name, *arguments, *summary;
    int min_positional, max_positional;
} fv_cli_command_info;
extern const fv_cli_command_info fv_cli_commands[FV_CMD_COUNT];

typedef enum fv_cli_type {
    FV_CLI_BOOL,
    FV_CLI_INT,
    FV_CLI_FLOAT,
    FV_CLI_STRING,
    FV_CLI_CHOICE,
    FV_CLI_FLOATS,
    FV_CLI_STRINGS
} fv_cli_type;

typedef enum fv_cli_id {
#define GROUP(title)
#define OPT(id, name, short_name, type, def, env, min, max, choices, commands, meta, help) OPT_##id,
#include "tools/cli/options.def"
    OPT_COUNT
} fv_cli_id;

typedef struct fv_cli_option {
    const char *name;
    char short_name; /* 0: none */
    fv_cli_type type;
    const char *def, *env;
    double min, max;
    const char *choices;
    uint32_t commands; /* bit per fv_cli_command */
    const char *meta, *help;
} fv_cli_option;
extern const fv_cli_option fv_cli_options[OPT_COUNT];

/* In rising precedence. */
typedef enum fv_cli_source {
    FV_FROM_NOTHING,
    FV_FROM_DEFAULT,
    FV_FROM_RESOLVED, /* chosen by the program because nobody gave it */
    FV_FROM_ENV,
    FV_FROM_RECIPE,
    FV_FROM_RUN, /* args.yaml of the run folder that eval or info was given */
    FV_FROM_FILE,
    FV_FROM_FLAG
} fv_cli_source;

#define FV_CLI_LIST 16 /* most entries of a list */
typedef struct fv_cli_value {
    fv_cli_source source;
    const char *text;                    /* NULL: not set */
    double number[FV_CLI_LIST];          /* BOOL, INT, FLOAT, CHOICE (index): number[0]; FLOATS: count of them */
    const char *string[FV_CLI_LIST + 1]; /* STRINGS, NULL-terminated */
    int count;
} fv_cli_value;

typedef struct fv_cli {
    fv_ctx *ctx;
    fv_arena arena; /* texts */
    fv_cli_command command;
    fv_cli_value value[OPT_COUNT];
    const char **positional; /* [positionals] */
    int positionals;
} fv_cli;

/* Find out the command and set every option that applies to it. On failure ctx->error is a message for the user. */
fv_status fv_cli_parse(fv_cli *cli, fv_ctx *ctx, int argc, char **argv);
void fv_cli_free(fv_cli *cli);

/* Set an option from text if `source` is not weaker than where its value came from; `where` starts the message
 * ("--lr"). */
fv_status fv_cli_set(fv_cli *cli, fv_cli_id id, const char *text, fv_cli_source source, const char *where);
/* Set an option that nobody gave; an option that is set stays as it is. */
fv_status fv_cli_resolve(fv_cli *cli, fv_cli_id id, const char *fmt, ...) FV_PRINTF(3, 4);
/* groups.c: --param-groups, "norm:lr=64:wd=0.02,head:lr=2" */
typedef struct fv_cli_group {
    const char *pattern;
    double lr;            /* factor */
    double weight_decay;  /* < 0: by kind of parameter, as without the group */
    double momentum;      /* < 0: as without the group */
    double until, within; /* epochs; 0: all */
} fv_cli_group;
/* At most FV_MAX_PARAM_GROUPS into out; text from the arena. FV_E_USAGE says what is wrong with it. */
fv_status fv_cli_read_groups(fv_ctx *ctx, fv_arena *arena, const char *text, fv_cli_group *out, int *n);
/* Checks that involve several options of the command. */
fv_status fv_cli_validate(fv_cli *cli);

bool fv_cli_given(const fv_cli *cli, fv_cli_id id); /* by a flag, a file, a recipe or the environment */
bool fv_cli_has(const fv_cli *cli, fv_cli_id id);   /* has a value at all */
bool fv_cli_bool(const fv_cli *cli, fv_cli_id id);
int64_t fv_cli_int(const fv_cli *cli, fv_cli_id id);
double fv_cli_float(const fv_cli *cli, fv_cli_id id);
const char *fv_cli_text(const fv_cli *cli, fv_cli_id id); /* NULL: not set */

int fv_cli_find(const char *name, size_t length);     /* -1: unknown; '_' counts as '-' */
bool fv_cli_applies(const fv_cli *cli, fv_cli_id id); /* to the command */
/* Name of the environment variable into buf; NULL if the option has none. */
const char *fv_cli_env_name(fv_cli_id id, char *buf, size_t size);

/* yaml.c. Read flat `name: value` pairs; unknown names are an error, known ones that belong to other commands are
 * skipped. With `only`, a list of `n_only` options, everything else is skipped. */
fv_status fv_cli_read_yaml(fv_cli *cli, const char *path, fv_cli_source source, const fv_cli_id *only, int n_only);
/* The same from memory; `path` is for messages. */
fv_status fv_cli_read_yaml_text(fv_cli *cli, const char *text, size_t bytes, const char *path, fv_cli_source source,
                                const fv_cli_id *only, int n_only);
/* All options of the command as resolved. Free with free(). */
fv_status fv_cli_write_yaml(fv_cli *cli, char **text, size_t *bytes);

/* suggest.c: what was probably meant. */
/* Name of the command's option that is nearest to `name`, or that is called so elsewhere ("learning-rate": "lr"); NULL:
 * none. */
const char *fv_cli_nearest_option(const fv_cli *cli, const char *name, size_t length);
/* FV_E_USAGE for an option, or a command, that does not exist. `dashes`: as it was written. */
fv_status fv_cli_unknown_option(fv_cli *cli, const char *dashes, const char *name, size_t length);
fv_status fv_cli_unknown_command(fv_ctx *ctx, const char *word);
/* FV_E_USAGE for an argument too many. `before`: the option that was given just before it; -1: none. */
fv_status fv_cli_unexpected(fv_cli *cli, const char *word, int before);
/* Data sets that are known by name, and how many. */
extern const char *const fv_cli_data_sets[];
extern const int fv_cli_data_set_count;

/* help.c */
/* Columns to write for: the terminal's if `to` is one, but at most `most`; else 80. */
int fv_cli_columns(FILE *to, int most);
void fv_cli_print_usage(FILE *to);
void fv_cli_print_help(FILE *to, fv_cli_command command);
/* `date`: of the version, "2026-06-30"; "": not known. */
void fv_cli_print_man(FILE *to, const char *date);
/* Its help text up to the first pause, for lists: "passes over the training samples". */
const char *fv_cli_short_help(fv_cli_id id, char *buf, size_t size);

/* completion.c: the script for "bash", "zsh" or "fish"; false: another shell. */
bool fv_cli_print_completion(FILE *to, const char *shell);

/* text.c */
/* The candidate nearest to `word` by edit distance, if it is near enough to be meant; else NULL. */
const char *fv_text_nearest(const char *word, const char *const *candidates, int n);
/* "0.27M", "40.6M", "11.2G" */
const char *fv_text_si(double value, char *buf, size_t size);
/* "2.10 MB" */
const char *fv_text_bytes(double bytes, char *buf, size_t size);
/* "6:42", "1:02:03" */
const char *fv_text_duration(double seconds, char *buf, size_t size);
/* Bytes of the UTF-8 sequence that s begins with; 0: it is none. */
int fv_text_utf8(const char *s);
/* Columns that a text takes on a terminal, one per character. */
int fv_text_columns(const char *s);
/* One line of valid UTF-8: control characters and stray bytes become '?'. */
const char *fv_text_line(const char *s, char *buf, size_t size);
/* Copy with &, <, > and quotes escaped for HTML. */
void fv_text_html(FILE *to, const char *s);
/* A CSV field, quoted if need be. */
void fv_text_csv(FILE *to, const char *s);

#endif
