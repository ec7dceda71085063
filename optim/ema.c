/* ema.c: how fast the average of the weights follows them. */
#include <math.h>

#include "optim/optim.h"

double fv_ema_decay(double decay, bool warmup, int64_t step) {
    return warmup ? fmin(decay, (1 + (double)step) / (10 + (double)step)) : decay;
}
