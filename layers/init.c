/* init.c: initial values by fan. */
#include "layers/layers.h"

#include <math.h>

fv_init fv_init_constant(double value) {
    return (fv_init){FV_INIT_CONSTANT, value, 0, NULL};
}

fv_init fv_init_uniform(double bound) {
    return (fv_init){FV_INIT_UNIFORM, -bound, bound, NULL};
}

fv_init fv_init_normal(double std) {
    return (fv_init){FV_INIT_NORMAL, 0, std, NULL};
}

fv_init fv_init_trunc_normal(double std) {
    return (fv_init){FV_INIT_TRUNC_NORMAL, 0, std, NULL};
}

/* 1/sqrt(fan); a fan of 0 belongs to an empty tensor, whose shape the graph refuses. */
static double inverse_root(int64_t fan) {
    return fan > 0 ? 1 / sqrt((double)fan) : 0;
}

fv_init fv_init_he_normal(int64_t fan, double gain) {
    return fv_init_normal(gain * inverse_root(fan));
}

fv_init fv_init_he_uniform(int64_t fan, double gain) {
    return fv_init_uniform(gain * sqrt(3) * inverse_root(fan)); /* uniform in [-b, b) has deviation b/sqrt(3) */
}

fv_init fv_init_xavier_uniform(int64_t fan_in, int64_t fan_out) {
    return fv_init_uniform(sqrt(6) * inverse_root(fan_in + fan_out));
}

fv_init fv_init_xavier_normal(int64_t fan_in, int64_t fan_out) {
    return fv_init_normal(sqrt(2) * inverse_root(fan_in + fan_out));
}

fv_init fv_init_dirac(int64_t fan_in) {
    double bound = inverse_root(fan_in);
    return (fv_init){FV_INIT_DIRAC, -bound, bound, NULL};
}

fv_init fv_init_default(int64_t fan_in) {
    return fv_init_uniform(inverse_root(fan_in)); /* = kaiming_uniform(a=sqrt(5)) */
}
