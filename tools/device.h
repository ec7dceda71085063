/* device.h: the device that --device names. */
#ifndef FV_TOOLS_DEVICE_H
#define FV_TOOLS_DEVICE_H

#include "tools/cli/options.h"

/* ref, cpu or cuda[:N]. "auto" is a GPU if there is one that can be used, else cpu. */
fv_status fv_tool_open_device(fv_ctx *ctx, const fv_cli *cli, fv_device **out);

#endif
