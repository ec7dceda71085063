#include "tools/cli/console.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

void fv_console_init(fv_console *con, const char *command) {
    const char *term = getenv("TERM"), *no_colour = getenv("NO_COLOR");
    memset(con, 0, sizeof *con);
    con->command = command;
    con->live = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
    con->colour = con->live && !(no_colour && no_colour[0]);
    con->log = open_memstream(&con->pending, &con->pending_bytes);
}

void fv_console_configure(fv_console *con, const fv_cli *cli) {
    con->command = fv_cli_commands[cli->command].name;
    con->json = fv_cli_bool(cli, OPT_JSON);
    con->quiet = fv_cli_bool(cli, OPT_QUIET);
    con->verbose = fv_cli_bool(cli, OPT_VERBOSE) && !con->quiet;
}

void fv_console_close(fv_console *con) {
    if (con->log) fclose(con->log);
    free(con->pending);
    con->log = NULL;
    con->pending = NULL;
}

static fv_status fail_log(fv_console *con, fv_ctx *ctx, const char *path) {
    (void)con;
    return fv_fail_at(ctx, FV_E_IO, path, -1, "the log could not be written: %s", strerror(errno));
}

fv_status fv_console_open_log(fv_console *con, fv_ctx *ctx, const char *path) {
    FILE *file = fopen(path, "ae");
    if (!file) return fail_log(con, ctx, path);
    setvbuf(file, NULL, _IOLBF, 4096);
    if (con->log) fclose(con->log);
    if (con->pending) fwrite(con->pending, 1, con->pending_bytes, file);
    free(con->pending);
    con->pending = NULL;
    con->log = file;
    if (fflush(file) != 0) return fail_log(con, ctx, path);
    return FV_OK;
}

fv_status fv_console_check_log(fv_console *con, fv_ctx *ctx) {
    if (con->log && (fflush(con->log) != 0 || ferror(con->log))) return fail_log(con, ctx, "log.txt");
    return FV_OK;
}

static void erase_bar(fv_console *con) {
    if (con->bar) fputs("\r\033[K", stderr);
    con->bar = false;
}

static void log_line(fv_console *con, const char *prefix, const char *fmt, va_list args) FV_PRINTF(3, 0);
static void log_line(fv_console *con, const char *prefix, const char *fmt, va_list args) {
    if (!con->log) return;
    fputs(prefix, con->log);
    vfprintf(con->log, fmt, args);
    fputc('\n', con->log);
}

/* Asked anew each time: the window may have changed. */
static int terminal_columns(int fd) {
    struct winsize size;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
    const char *columns = getenv("COLUMNS");
    int n = columns ? (int)strtol(columns, NULL, 10) : 0;
    return n > 0 ? n : 80;
}

/* Break a long line between words, as the terminal would not. */
static void put_wrapped(FILE *to, const char *line, int width) {
    static const char indent[] = "       ";
    int column = 0;
    while (*line) {
        size_t gap = strspn(line, " "), bytes = gap + strcspn(line + gap, " ");
        int columns = 0;
        for (size_t i = 0; i < bytes; i++) columns += (line[i] & 0xc0) != 0x80;
        if (column > (int)sizeof indent && column + columns > width) {
            fprintf(to, "\n%s", indent);
            column = (int)sizeof indent - 1;
            line += gap, bytes -= gap, columns -= (int)gap;
        }
        fwrite(line, 1, bytes, to);
        column += columns;
        line += bytes;
    }
}

static void show_line(fv_console *con, FILE *to, const char *fmt, va_list args) FV_PRINTF(3, 0);
static void show_line(fv_console *con, FILE *to, const char *fmt, va_list args) {
    char line[1024];
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(line, sizeof line, fmt, again);
    va_end(again);
    erase_bar(con);
    bool fits = n > 0 && n < (int)sizeof line && isatty(fileno(to));
    if (fits) put_wrapped(to, line, terminal_columns(fileno(to)));
    else vfprintf(to, fmt, args);
    fputc('\n', to);
    if (fflush(to) != 0 && to == stdout && !con->output_errno) con->output_errno = errno;
}

void fv_console_say(fv_console *con, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    log_line(con, "", fmt, args);
    va_end(args);
    if (con->quiet) return;
    va_start(args, fmt);
    show_line(con, stderr, fmt, args);
    va_end(args);
}

void fv_console_detail(fv_console *con, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    log_line(con, "", fmt, args);
    va_end(args);
    if (!con->verbose) return;
    va_start(args, fmt);
    show_line(con, stderr, fmt, args);
    va_end(args);
}

void fv_console_result(fv_console *con, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    log_line(con, "", fmt, args);
    va_end(args);
    if (con->json) return;
    va_start(args, fmt);
    show_line(con, stdout, fmt, args);
    va_end(args);
}

void fv_console_warn(fv_console *con, const char *fmt, ...) {
    char text[2048], line[2048];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fv_text_line(text, line, sizeof line);
    if (con->log) fprintf(con->log, "warning: %s\n", line);
    erase_bar(con);
    fprintf(stderr, con->colour ? "fovea %s: \033[33mwarning:\033[0m %s\n" : "fovea %s: warning: %s\n", con->command,
            line);
}

void fv_console_bar(fv_console *con, double now, const char *fmt, ...) {
    if (!con->live || con->quiet || now - con->bar_time < 0.1) return;
    con->bar_time = now;
    char text[512], line[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    fv_text_line(text, line, sizeof line);
    /* One column stays free: in the last one some terminals wrap. */
    int left = terminal_columns(STDERR_FILENO) - 1;
    size_t end = 0;
    for (; line[end] && left > 0; left--) end += (size_t)fv_text_utf8(line + end);
    line[end] = '\0';
    fprintf(stderr, "\r\033[K%s", line);
    fflush(stderr);
    con->bar = true;
}

json_t *fv_json_text(const char *s) {
    size_t size = 3 * strlen(s) + 1, used = 0;
    char *copy = malloc(size);
    if (!copy) return NULL;
    while (*s) { /* stray bytes become U+FFFD */
        int n = fv_text_utf8(s);
        memcpy(copy + used, n ? s : "\xef\xbf\xbd", n ? (size_t)n : 3);
        used += n ? (size_t)n : 3;
        s += n ? n : 1;
    }
    json_t *text = json_stringn(copy, used);
    free(copy);
    return text;
}

static json_t *error_event(const fv_error *e) {
    json_t *event = json_pack("{s:s, s:i, s:s, s:o}", "event", "error", "code", (int)e->code, "kind",
                              fv_status_text(e->code), "message", fv_json_text(e->message));
    if (e->path[0]) fv_json_set(&event, "path", fv_json_text(e->path));
    if (e->offset >= 0) fv_json_set(&event, "offset", json_integer(e->offset));
    if (e->hint[0]) fv_json_set(&event, "hint", fv_json_text(e->hint));
    return event;
}

void fv_console_error(fv_console *con, const fv_error *e) {
    char text[2048], line[2048], hint[512], offset[48] = "";
    if (e->offset >= 0) snprintf(offset, sizeof offset, " (at byte %lld)", (long long)e->offset);
    snprintf(text, sizeof text, "%s%s%s%s", e->path, e->path[0] ? ": " : "", e->message, offset);
    fv_text_line(text, line, sizeof line);
    fv_text_line(e->hint, hint, sizeof hint);
    erase_bar(con);
    if (con->log) {
        fprintf(con->log, "error: %s\n", line);
        if (hint[0]) fprintf(con->log, "  hint: %s\n", hint);
    }
    fprintf(stderr, con->colour ? "fovea%s%s: \033[31merror:\033[0m %s\n" : "fovea%s%s: error: %s\n",
            con->command ? " " : "", con->command ? con->command : "", line);
    if (hint[0]) fprintf(stderr, "  hint: %s\n", hint);
    json_t *event = con->json ? error_event(e) : NULL;
    if (event) {
        json_dumpf(event, stdout, JSON_ENSURE_ASCII);
        putchar('\n');
        fflush(stdout);
        json_decref(event);
    }
}

fv_status fv_console_json(fv_console *con, fv_ctx *ctx, json_t *object) {
    if (!object) return fv_fail_memory(ctx, 1024, "a line of JSON");
    fv_status status = FV_OK;
    if (con->json) {
        bool bad = json_dumpf(object, stdout, JSON_ENSURE_ASCII | JSON_REAL_PRECISION(12)) != 0 ||
                   putchar('\n') == EOF || fflush(stdout) != 0;
        if (bad) status = fv_fail(ctx, FV_E_IO, "standard output: %s", strerror(con->output_errno = errno));
    }
    json_decref(object);
    return status;
}

json_t *fv_json_number(double value, int digits) {
    if (!isfinite(value)) return json_null();
    char text[40];
    snprintf(text, sizeof text, "%.*g", digits, value);
    return json_real(strtod(text, NULL));
}

static void keep_if(bool done, json_t **whole) {
    if (done) return;
    json_decref(*whole);
    *whole = NULL;
}

void fv_json_add(json_t **whole, json_t *part) {
    keep_if(json_array_append_new(*whole, part) == 0, whole);
}

void fv_json_set(json_t **whole, const char *key, json_t *part) {
    keep_if(json_object_set_new(*whole, key, part) == 0, whole);
}

void fv_json_merge(json_t **whole, json_t *part) {
    keep_if(json_object_update(*whole, part) == 0, whole);
    json_decref(part);
}
