/* core.h: the tensor core's public header. */
#ifndef FV_CORE_H
#define FV_CORE_H

#include "core/status.h"
#include "core/arena.h"
#include "core/rng.h"
#include "core/thread.h"
#include "core/tensor.h"
#include "core/graph.h"
#include "core/ops.h"
#include "core/backend.h"
#include "core/kernel.h"
#include "core/store.h"
#include "core/program.h"
#include "core/io/io.h"

#endif
