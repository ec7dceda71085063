/* main.c: the program `fovea`: finds the command, runs it, turns its status into a message and an exit code. */
#include "tools/cli/recipes.h"
#include "tools/tool.h"
#include "tools/train/signals.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

double fv_tool_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double fv_tool_peak_mb(void) {
    struct rusage usage;
    return getrusage(RUSAGE_SELF, &usage) == 0 ? (double)usage.ru_maxrss / 1024.0 : 0;
}

/* A descriptor that the caller closed would be given to the first file we open, and our text would end up in it. */
static void guard_standard_streams(void) {
    for (int fd = 0; fd <= 2; fd++)
        if (fcntl(fd, F_GETFD) == -1 && errno == EBADF && open("/dev/null", fd == 2 ? O_WRONLY : O_RDONLY) != fd)
            _exit(FV_E_IO);
}

static void log_callback(void *user, fv_log_level level, const char *line) {
    fv_console *con = user;
    if (level == FV_LOG_WARN) fv_console_warn(con, "%s", line);
    else fv_console_detail(con, "%s", line);
}

static fv_status print_version(fv_tool *tool) {
    const char *commit = fv_tool_commit();
    if (tool->console.json)
        return fv_console_json(&tool->console, &tool->ctx,
                               json_pack("{s:s, s:s}", "version", FV_VERSION, "commit", commit));
    printf("fovea %s%s%s%s\n", FV_VERSION, commit[0] ? " (" : "", commit, commit[0] ? ")" : "");
    return FV_OK;
}

static fv_status print_help(fv_tool *tool) {
    const fv_cli *cli = &tool->cli;
    if (fv_cli_bool(cli, OPT_MAN)) return fv_cli_print_man(stdout, fv_tool_date()), FV_OK;
    if (!cli->positionals) return fv_cli_print_usage(stdout), FV_OK;
    for (int c = 0; c < FV_CMD_COUNT; c++)
        if (!strcmp(cli->positional[0], fv_cli_commands[c].name))
            return fv_cli_print_help(stdout, (fv_cli_command)c), FV_OK;
    if (!strcmp(cli->positional[0], "recipes")) return fv_recipe_list(stdout), FV_OK;
    for (int i = 0; i < fv_recipe_count; i++)
        if (!strcmp(cli->positional[0], fv_recipes[i].name)) return fputs(fv_recipes[i].text, stdout), FV_OK;
    const fv_recipe *none; /* no command's name has a dash; most recipes' have */
    if (strchr(cli->positional[0] + 1, '-')) FV_TRY(fv_recipe_find(&tool->ctx, cli->positional[0], &none));
    return fv_cli_unknown_command(&tool->ctx, cli->positional[0]);
}

static fv_status print_completion(fv_tool *tool) {
    static const char *const shells[] = {"bash", "zsh", "fish"};
    const char *wanted = tool->cli.positional[0];
    if (fv_cli_print_completion(stdout, wanted)) return FV_OK;
    const char *near = fv_text_nearest(wanted, shells, 3);
    return fv_fail(&tool->ctx, FV_E_USAGE, "there is completion for bash, zsh and fish; not for '%.60s'%s%s%s", wanted,
                   near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static fv_status run_command(fv_tool *tool) {
    if (fv_cli_bool(&tool->cli, OPT_HELP)) return fv_cli_print_help(stdout, tool->cli.command), FV_OK;
    FV_TRY(fv_cli_validate(&tool->cli));
    switch (tool->cli.command) {
    case FV_CMD_train: return fv_cmd_train(tool);
    case FV_CMD_eval: return fv_cmd_eval(tool);
    case FV_CMD_predict: return fv_cmd_predict(tool);
    case FV_CMD_info: return fv_cmd_info(tool);
    case FV_CMD_models: return fv_cmd_models(tool);
    case FV_CMD_bench: return fv_cmd_bench(tool);
    case FV_CMD_data: return fv_cmd_data(tool);
    case FV_CMD_help: return print_help(tool);
    case FV_CMD_completion: return print_completion(tool);
    case FV_CMD_version: return print_version(tool);
    case FV_CMD_COUNT: break;
    }
    return fv_fail(&tool->ctx, FV_E_INTERNAL, "no such command");
}

/* Nothing could be said: better known before an hour of training than after. */
static fv_status check_output(fv_tool *tool) {
    int flags = fcntl(STDOUT_FILENO, F_GETFL);
    if (flags != -1 && (flags & O_ACCMODE) != O_RDONLY) return FV_OK;
    fv_fail(&tool->ctx, FV_E_IO, "standard output is closed");
    return fv_hint(&tool->ctx, "'>/dev/null' throws it away");
}

/* What is wrong with the options is said in JSON, too, if that was wanted, even when parsing did not come so far. */
static bool wants_json(int argc, char **argv) {
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--json")) return true;
    return false;
}

/* Parse and run; the status is that of the whole invocation. */
static fv_status run(fv_tool *tool, int argc, char **argv) {
    fv_status status = fv_cli_parse(&tool->cli, &tool->ctx, argc, argv);
    if (tool->cli.command < FV_CMD_COUNT) fv_console_configure(&tool->console, &tool->cli);
    if (status != FV_OK) {
        tool->console.json = wants_json(argc, argv);
        return status;
    }
    /* A reader that left ends a list quietly, but not the work on files. */
    if (fv_cli_has(&tool->cli, OPT_SAVE_TO)) signal(SIGPIPE, SIG_IGN);
    status = check_output(tool);
    if (status == FV_OK) status = run_command(tool);
    bool failed = fflush(stdout) != 0;
    int why = tool->console.output_errno ? tool->console.output_errno : errno;
    if ((failed || ferror(stdout)) && status == FV_OK)
        status = fv_fail(&tool->ctx, FV_E_IO, "standard output: %s", strerror(why));
    return status;
}

int main(int argc, char **argv) {
    double launched = fv_tool_now();
    guard_standard_streams();
    if (argc < 2) {
        fv_cli_print_usage(stderr);
        return FV_E_USAGE;
    }
    static fv_tool tool;
    tool.launched = launched;
    fv_ctx_init(&tool.ctx);
    fv_console_init(&tool.console, NULL);
    tool.ctx.log = log_callback;
    tool.ctx.log_user = &tool.console;
    fv_status status = run(&tool, argc, argv);
    int stopped_by = fv_signal_pending();
    if (status != FV_OK) fv_console_error(&tool.console, &tool.ctx.error);
    fv_console_close(&tool.console);
    fv_cli_free(&tool.cli);
    return status != FV_OK ? (int)status : stopped_by ? 128 + stopped_by : 0;
}
