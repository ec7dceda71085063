/* tool.h: what every command gets. */
#ifndef FV_TOOLS_TOOL_H
#define FV_TOOLS_TOOL_H

#include "tools/cli/console.h"
#include "tools/cli/options.h"

typedef struct fv_tool {
    fv_ctx ctx;
    fv_cli cli;
    fv_console console;
    double launched; /* fv_tool_now() at the start of main */
} fv_tool;

double fv_tool_now(void);     /* seconds, monotonic */
double fv_tool_peak_mb(void); /* peak resident memory so far */

fv_status fv_cmd_train(fv_tool *tool);
fv_status fv_cmd_eval(fv_tool *tool);
fv_status fv_cmd_predict(fv_tool *tool);
fv_status fv_cmd_info(fv_tool *tool);
fv_status fv_cmd_models(fv_tool *tool);
fv_status fv_cmd_bench(fv_tool *tool);
fv_status fv_cmd_data(fv_tool *tool);

/* Commit that the program was built from; "" if that was not known. */
const char *fv_tool_commit(void);
/* Its date, "2026-06-30"; "" likewise. */
const char *fv_tool_date(void);

#endif
