/* rewrite.h: the CPU backend's own fusions (fv_backend.rewrite). */
#ifndef FV_CORE_CPU_REWRITE_H
#define FV_CORE_CPU_REWRITE_H

#include "core/backend.h"

fv_status fv_cpu_rewrite(fv_device *dev, fv_graph *g);

#endif
