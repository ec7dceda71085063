/* options.c: from argv, environment and defaults to the values of one invocation. */
#include "tools/cli/options.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const fv_cli_command_info fv_cli_commands[FV_CMD_COUNT] = {
#define FV_CLI_COMMAND(letter, name, args, min, max, summary) {#name, args, summary, min, max},
    FV_COMMAND_TABLE(FV_CLI_COMMAND)
#undef FV_CLI_COMMAND
};

/* Letters of the `commands` column. */
enum {
#define FV_CLI_COMMAND(letter, name, args, min, max, summary) letter = 1 << FV_CMD_##name,
    FV_COMMAND_TABLE(FV_CLI_COMMAND)
#undef FV_CLI_COMMAND
};

/* The position of each GROUP line among the options: an option's group is the last one that starts at or before it. */
enum {
#define GROUP(title)
#define OPT(id, name, short_name, type, def, env, min, max, choices, commands, meta, help) FV_CLI_LINE_##id = __LINE__,
#include "tools/cli/options.def"
};

const fv_cli_option fv_cli_options[OPT_COUNT] = {
#define GROUP(title)
#define OPT(id, name, short_name, type, def, env, min, max, choices, commands, meta, help)                             \
    [OPT_##id] = {NULL, name, short_name, FV_CLI_##type, def, env, min, max, choices, commands, meta, help},
#include "tools/cli/options.def"
};
