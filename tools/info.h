/* info.h: the parts of the command `info`. */
#ifndef FV_TOOLS_INFO_H
#define FV_TOOLS_INFO_H

#include "tools/tool.h"
#include "tools/train/network.h"

/* What a program of the network would take, in bytes. */
typedef struct fv_info_memory {
    double arena, naive, workspace, prepared;
    fv_recompute_report recompute;
} fv_info_memory;

/* Plan it, without taking the memory. */
fv_status fv_info_measure(fv_ctx *ctx, fv_device *device, const fv_network *net, bool training, fv_info_memory *out);
/* --memory: what is alive in a training step at the node where that is most. */
fv_status fv_info_show_peak(fv_tool *tool, fv_device *device, const fv_network *net);

#endif
