/* update.c: optimizer updates over lists of tensors. Operands of an update: stats (or none), then `count` tensors of
 * each list. */
#include "core/ops/ops_internal.h"

#include "core/backend.h" /* FV_MAX_GROUPS */

#include <math.h>
#include <stdio.h>

bool fv_infer_loss_scale(fv_infer *i) {
    return fv_expect_float(i, 0, "x", 0, FV_MAX_RANK) && fv_set_result_type(i, 0, i->in[0]);
}

fv_value fv_loss_scale(fv_scope s, fv_value x) {
    return fv_op_node(s, FV_OP_LOSS_SCALE, &x, 1, NULL);
}

bool fv_infer_grad_stats(fv_infer *i) {
    for (int k = 0; k < i->n_in; k++) {
        char what[32] = "";
        snprintf(what, sizeof what, "gradient %d", k);
        if (!fv_expect_float(i, k, what, 0, FV_MAX_RANK)) return false;
    }
    return fv_set_result(i, 0, 1, (int64_t[]){2});
}

/* Operand count, stats, and attributes that all updates have. */
static bool check_frame(fv_infer *i, int lists) {
    const fv_update_attr *a = &i->attr->update;
    if (a->count < 1) return fv_infer_fail(i, "a list of %d tensors is empty", a->count);
    if (i->n_in != 1 + (int64_t)lists * a->count)
        return fv_infer_fail(i, "%d operands, expected %lld: stats and %d lists of %d", i->n_in,
                             1 + (long long)lists * a->count, lists, a->count);
    if (a->group < 0 || a->group >= FV_MAX_GROUPS)
        return fv_infer_fail(i, "group %d is not in [0, %d)", a->group, FV_MAX_GROUPS);
    if (!isfinite(a->clip) || a->clip < 0)
        return fv_infer_fail(i, "gradient norm %g to clip at must not be negative", a->clip);
    if (a->clip > 0 && !fv_has(i, 0)) return fv_infer_fail(i, "clipping needs stats");
    return fv_expect_vector(i, 0, "stats", 2);
}

/* Every list has the types of the first. Only tensors of list `optional` may be absent. */
static bool check_lists(fv_infer *i, int lists, const char *const *names, int optional) {
    int count = i->attr->update.count;
    for (int k = 0; k < count; k++) {
        char first[48], what[48];
        snprintf(first, sizeof first, "%s %d", names[0], k);
        if (!fv_expect_float(i, 1 + k, first, 0, FV_MAX_RANK)) return false;
        for (int list = 1; list < lists; list++) {
            int operand = 1 + list * count + k;
            snprintf(what, sizeof what, "%s %d", names[list], k);
            if (list == optional && !fv_has(i, operand)) continue;
            if (!fv_expect_like(i, operand, what, i->in[1 + k], first)) return false;
        }
    }
    return true;
}

static bool is_decay(double v) {
    return v >= 0 && v < 1;
}

bool fv_infer_sgd_update(fv_infer *i) {
    static const char *const lists[3] = {"parameter", "gradient", "momentum"};
    const fv_update_attr *a = &i->attr->update;
    if (!is_decay(a->momentum)) return fv_infer_fail(i, "momentum %g is not in [0, 1)", a->momentum);
    if (a->nesterov && a->momentum == 0) return fv_infer_fail(i, "Nesterov's update needs a momentum above 0");
    return check_frame(i, 3) && check_lists(i, 3, lists, a->momentum == 0 ? 2 : -1);
}

bool fv_infer_adam_update(fv_infer *i) {
    static const char *const lists[4] = {"parameter", "gradient", "first moment", "second moment"};
    const fv_update_attr *a = &i->attr->update;
    if (!is_decay(a->beta1) || !is_decay(a->beta2))
        return fv_infer_fail(i, "betas %g, %g are not in [0, 1)", a->beta1, a->beta2);
    if (!isfinite(a->eps) || a->eps < 0)
        return fv_infer_fail(i, "eps is %g, it must be finite and not negative", a->eps);
    return check_frame(i, 4) && check_lists(i, 4, lists, -1);
}

bool fv_infer_muon_update(fv_infer *i) {
    static const char *const lists[3] = {"parameter", "gradient", "momentum"};
    const fv_update_attr *a = &i->attr->update;
    if (!is_decay(a->momentum)) return fv_infer_fail(i, "momentum %g is not in [0, 1)", a->momentum);
    if (a->nesterov && a->momentum == 0) return fv_infer_fail(i, "Nesterov's update needs a momentum above 0");
    if (!isfinite(a->eps) || a->eps < 0)
        return fv_infer_fail(i, "eps is %g, it must be finite and not negative", a->eps);
    if (a->ns_steps < 1 || a->ns_steps > 100)
        return fv_infer_fail(i, "%d Newton-Schulz iterations, expected 1 to 100", a->ns_steps);
    if (!check_frame(i, 3) || !check_lists(i, 3, lists, a->momentum == 0 ? 2 : -1)) return false;
    for (int k = 1; k <= a->count; k++)
        if (i->in[k].rank < 2)
            return fv_infer_fail(i, "parameter %d is no matrix: it has rank %d", k - 1, i->in[k].rank);
    return true;
}

bool fv_infer_ema_update(fv_infer *i) {
    static const char *const lists[2] = {"average", "parameter"};
    return check_frame(i, 2) && check_lists(i, 2, lists, -1);
}

bool fv_infer_lookahead_update(fv_infer *i) {
    static const char *const lists[2] = {"slow copy", "fast weight"};
    return check_frame(i, 2) && check_lists(i, 2, lists, -1);
}

/* Newton-Schulz: per iteration of an m by n matrix, m <= n, products with m * n * m and m * m * m terms. Operands come
 * in pieces, of which each counts for its own list: a third of it. */
double fv_flops_muon(const fv_infer *i) {
    double flops = 0;
    for (int k = 0; k < i->n_in; k++) {
        if (i->in[k].rank < 2) continue;
        double rows = (double)i->in[k].dim[0], all = fv_elements(i->in[k]), columns = all / fmax(rows, 1);
        double m = fmin(rows, columns), n = fmax(rows, columns);
        flops += 2 * i->attr->update.ns_steps * (2 * m * m * n + m * m * m) / 3;
    }
    return flops;
}

/* A product and a sum per element of each list: exact for SGD with weight decay, near for the others. */
double fv_flops_update(const fv_infer *i) {
    double elements = 0;
    for (int k = 0; k < i->n_in; k++) elements += fv_elements(i->in[k]);
    return 2 * elements;
}
