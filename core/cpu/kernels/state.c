/* state.c: operations that change operand 0, a parameter or state tensor, in place. */
#include "core/cpu/kernels/tile.h"

typedef struct state_args {
    float *state;
    const float *value;
    int64_t count;
    float weight, scale; /* state = keep * state + scale * value */
    float keep;
} state_args;

static void combine_tile(void *arg, int64_t tile, int thread) {
    const state_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    const vf scale = vf_set1(a->scale), weight = vf_set1(a->weight);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i += FV_VL) {
        const int n = (int)fv_min64(FV_VL, r.end - i);
        vf s = vf_load_n(a->state + i, n), d = vf_fma(vf_load_n(a->value + i, n), scale, -vf_set1(a->keep) * s);
        vf_store_n(a->state + i, vf_fma(d, weight, s), n);
    }
}
