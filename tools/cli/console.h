/* console.h: what the user sees. Results go to standard output; progress, warnings and errors to standard error; all of
 * it but the live bar also to log.txt of the run. With --json standard output carries one JSON object per line and
 * nothing else. */
#ifndef FV_TOOLS_CLI_CONSOLE_H
#define FV_TOOLS_CLI_CONSOLE_H

#include "tools/cli/options.h"

#include <jansson.h>
#include <stdio.h>

typedef struct fv_console {
    const char *command;
    bool quiet, verbose, json;
    bool live; /* a bar may be drawn: standard error is a terminal that can */
    bool colour;
    bool bar; /* one is on the screen */
    double bar_time;
    int output_errno; /* why standard output could not be written; 0: it could */
    FILE *log;        /* log.txt, or a buffer until there is one */
    char *pending;    /* the buffer */
    size_t pending_bytes;
} fv_console;

void fv_console_init(fv_console *con, const char *command);
void fv_console_configure(fv_console *con, const fv_cli *cli); /* when the options are known */
void fv_console_close(fv_console *con);
/* From now on lines go to this file, too; those written so far first. */
fv_status fv_console_open_log(fv_console *con, fv_ctx *ctx, const char *path);
/* FV_E_IO if the log could not be written. */
fv_status fv_console_check_log(fv_console *con, fv_ctx *ctx);

void fv_console_say(fv_console *con, const char *fmt, ...) FV_PRINTF(2, 3);    /* progress; not with -q */
void fv_console_detail(fv_console *con, const char *fmt, ...) FV_PRINTF(2, 3); /* only with -v; always in the log */
void fv_console_result(fv_console *con, const char *fmt, ...) FV_PRINTF(2, 3); /* standard output unless --json */
void fv_console_warn(fv_console *con, const char *fmt, ...) FV_PRINTF(2, 3);
/* The live line: redrawn at most ten times a second, cut to the terminal's width, erased before the next line. Nothing
 * without a terminal. */
void fv_console_bar(fv_console *con, double now, const char *fmt, ...) FV_PRINTF(3, 4);
void fv_console_error(fv_console *con, const fv_error *error);

/* One JSON line on standard output; takes the reference. FV_E_MEMORY if `object` is NULL, FV_E_IO if it cannot be
 * written. */
fv_status fv_console_json(fv_console *con, fv_ctx *ctx, json_t *object);
/* Text from outside: bytes that are no UTF-8 become U+FFFD. NULL if there is no memory. */
json_t *fv_json_text(const char *s);
/* A finite number, else null. `digits` significant ones. */
json_t *fv_json_number(double value, int digits);
/* Append to a list, give an object a member: the part is taken. What memory did not suffice for is NULL, and so is then
 * *whole, for good: fv_console_json and fv_write_json say so, and nothing is left out in silence. */
void fv_json_add(json_t **whole, json_t *part);
void fv_json_set(json_t **whole, const char *key, json_t *part);
/* All members of another object, which is taken. */
void fv_json_merge(json_t **whole, json_t *part);

#endif
