/* bench.h: the parts of the command `bench`. */
#ifndef FV_TOOLS_BENCH_H
#define FV_TOOLS_BENCH_H

#include "tools/tool.h"

/* --mode load: the loader without a model. */
fv_status fv_bench_load(fv_tool *tool);

#endif
