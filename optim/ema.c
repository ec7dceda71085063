/* ema.c: how fast averages and slow copies of the weights follow them. */
#include <math.h>

#include "optim/optim.h"

double fv_ema_decay(double decay, bool warmup, int64_t step) {
    return warmup ? fmin(decay, (1 + (double)step) / (10 + (double)step)) : decay;
}

bool fv_lookahead_at(const fv_lookahead_cfg *cfg, int64_t step, double *decay) {
    int64_t done = step + 1;
    if (cfg->every < 1) return false;
    bool regular = done % cfg->every == 0;
    *decay = regular ? cfg->decay * pow((double)done / (double)cfg->steps, cfg->power) : 1;
    return regular || done == cfg->steps;
}
