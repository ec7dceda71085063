/* loss_scale.c: see optim.h. */
#include "optim/optim.h"

bool fv_loss_scaling_next(fv_loss_scaling *s, bool finite, int64_t steps) {
    if (!finite) {
        if (s->scale < 1) return false;
        *s = (fv_loss_scaling){.scale = s->scale / 2};
    } else if (++s->good >= steps) *s = (fv_loss_scaling){.scale = s->scale * 2};
    return true;
}
