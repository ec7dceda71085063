/* activate.h: activations applied by kernels of other operations, to pieces of memory that they have at hand. Those
 * whose slope their input tells (fv_act_needs_input). */
#ifndef FV_CORE_CPU_KERNELS_ACTIVATE_H
#define FV_CORE_CPU_KERNELS_ACTIVATE_H

#include "core/cpu/cpu.h"

/* y = act(x), of `count` floats */
void CPU(activate)(const fv_activation_attr *a, const float *x, float *y, int64_t count);

/* dx = dy * act'(x), of a tile; dx may be x. */
typedef struct fv_slope_tile {
    const float *dy; /* [rows][dy_pitch] */
    const float *x;  /* [rows][pitch], and dx */
    float *dx;
    int64_t rows, dy_pitch, pitch, columns;
} fv_slope_tile;
void CPU(activate_slopes)(const fv_activation_attr *a, const fv_slope_tile *t);

#endif
