/* fovea.h: the umbrella header of libfovea. */
#ifndef FOVEA_H
#define FOVEA_H

#include "core/core.h"
#include "layers/layers.h"
#include "optim/optim.h"
#include "data/data.h"

#endif
