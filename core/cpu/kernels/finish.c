/* finish.c: batch norm of what a convolution has just written (finish.h). */
#include "core/cpu/kernels/finish.h"

#include "core/cpu/kernels/norm_apply.h"

typedef struct piece {
    int64_t pixel, pixels, first, channels;
} piece;

/* n lanes; r NULL: no residual */
FV_INLINE void apply_vector(const fv_finish *f, float *y, const float *r, int64_t k, int n, vf low, fv_act_fn act) {
    vf v = fv_norm_apply(vf_load_n(y + k, n), vf_load_n(f->mean + k, n), vf_load_n(f->scale + k, n),
                         vf_load_n(f->shift + k, n));
    if (r) v += vf_load_n(r + k, n);
    vf_store_n(y + k, act(v, low), n);
}

FV_INLINE void apply(const fv_finish *all, const piece *p, bool residual, fv_act_fn act) {
    const fv_finish own = *all, *f = &own; /* which no store through y can change */
    const vf low = fv_act_floor_of(f->act);
    const int64_t end = p->first + p->channels;
    for (int64_t i = p->pixel; i < p->pixel + p->pixels; i++) {
        float *y = f->y + i * f->k;
        const float *r = residual ? f->residual + i * f->k : NULL;
        int64_t k = p->first;
        for (; k + FV_VL <= end; k += FV_VL) apply_vector(f, y, r, k, FV_VL, low, act);
        if (k < end) apply_vector(f, y, r, k, (int)(end - k), low, act);
    }
}

void CPU(finish)(const fv_finish *f, int64_t pixel, int64_t pixels, int64_t first, int64_t channels) {
    const piece p = {pixel, pixels, first, channels};
    if (!f) return;
    const bool residual = f->residual != NULL;
    switch (f->act) {
    case FV_ACT_GELU: apply(f, &p, residual, act_gelu); break;
    case FV_ACT_GELU_TANH: apply(f, &p, residual, act_gelu_tanh); break;
    case FV_ACT_SILU: apply(f, &p, residual, act_silu); break;
    case FV_ACT_HARDSWISH: apply(f, &p, residual, act_hardswish); break;
    default:
        if (residual) apply(f, &p, true, fv_act_floor);
        else apply(f, &p, false, fv_act_floor);
    }
}
