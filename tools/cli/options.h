/* options.h: the command table, the option table (options.def) and the options of one invocation.
 *
 *   precedence   flag > -c file.yaml > environment > default > "chosen later" (fv_cli_resolve)
 *   fv_cli       value[ OPT_DATA | OPT_DATA_DIR | ... ]   text as given, parsed numbers, where it came from
 *                positional[ "runs/train" ]
 */
#ifndef FV_TOOLS_CLI_OPTIONS_H
#define FV_TOOLS_CLI_OPTIONS_H

#include "fovea.h"

#include <stdio.h>

/* X(LETTER, name, arguments, min positional, max positional, summary) in the order of the help page. */
#define FV_COMMAND_TABLE(X) \
    X(T, train, "", 0, 0, "train a classifier; writes a run folder") \
    X(E, eval, "[RUN|MODEL-FOLDER|WEIGHTS]", 0, 1, "evaluate a run folder, a model folder or a weights file") \
    X(I, info, "[MODEL|RUN|MODEL-FOLDER|WEIGHTS]", 0, 1, "layer table of a model: shapes, parameters, MACs, memory") \
    X(M, models, "", 0, 0, "list the models") \
    X(B, bench, "", 0, 0, "measure training or inference speed of a model on synthetic data") \
    X(D, data, "get|check|info NAME", 2, 2, "fetch, verify or describe a data set") \
    X(H, help, "[COMMAND]", 0, 1, "show help; --man prints the manual page") \
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
    const char *positional[2];
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
/* Checks that involve several options of the command. */
fv_status fv_cli_validate(fv_cli *cli);

bool fv_cli_given(const fv_cli *cli, fv_cli_id id); /* by a flag, a file or the environment */
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
/* All options of the command as resolved. Free with free(). */
fv_status fv_cli_write_yaml(fv_cli *cli, char **text, size_t *bytes);

/* help.c */
void fv_cli_print_usage(FILE *to);
void fv_cli_print_help(FILE *to, fv_cli_command command);
void fv_cli_print_man(FILE *to);

/* text.c */
/* The candidate nearest to `word` by edit distance, if it is near enough to be meant; else NULL. */
const char *fv_text_nearest(const char *word, const char *const *candidates, int n);
/* "0.27M", "40.6M", "11.2G" */
const char *fv_text_si(double value, char *buf, size_t size);
/* "2.10 MB" */
const char *fv_text_bytes(double bytes, char *buf, size_t size);
/* "6:42", "1:02:03" */
const char *fv_text_duration(double seconds, char *buf, size_t size);
/* Copy with &, <, > and quotes escaped for HTML. */
void fv_text_html(FILE *to, const char *s);
/* A CSV field, quoted if need be. */
void fv_text_csv(FILE *to, const char *s);

#endif
