/* bench.h: the parts of the command `bench`. */
#ifndef FV_TOOLS_BENCH_H
#define FV_TOOLS_BENCH_H

#include "fovea.h"
#include "tools/tool.h"

/* --mode load: the loader without a model. */
fv_status fv_bench_load(fv_tool *tool);
/* --mode yardstick: a fixed matrix product, the same in every version. */
fv_status fv_bench_yardstick(fv_tool *tool);
/* --profile: time and share of the roofline per node, and in all, of a program that ran `steps` steps with its profile
 * on. */
fv_status fv_bench_profile(fv_tool *tool, fv_device *device, const fv_program *p, int64_t steps);

#endif
