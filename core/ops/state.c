/* state.c: operations that change a parameter or a state tensor, operand 0, in place. They have no result. */
#include "core/ops/ops_internal.h"

#include <math.h>

/* Operand 1 is what operand 0 is changed by. */
static bool check_pair(fv_infer *i) {
    return fv_expect_float(i, 0, "state", 0, FV_MAX_RANK) && fv_expect_like(i, 1, "value", i->in[0], "state");
}

/* Operand k, if given: the result of grad_stats, whose finite flag guards the change. */
static bool check_stats(fv_infer *i, int k) {
    if (!fv_has(i, k)) return true;
    if (i->in[k].rank != 1 || i->in[k].dim[0] != 2) return fv_infer_fail(i, "stats must have the shape [2]");
    return fv_expect_float(i, k, "stats", 1, 1);
}

bool fv_infer_assign(fv_infer *i) {
    if (!fv_has(i, 0)) return fv_infer_fail(i, "state is missing");
    return fv_expect_like(i, 1, "value", i->in[0], "state");
}

bool fv_infer_accumulate(fv_infer *i) {
    return check_pair(i);
}

bool fv_infer_lerp_assign(fv_infer *i) {
    const fv_lerp_attr *a = &i->attr->lerp;
    if (!isfinite(a->weight) || !isfinite(a->scale))
        return fv_infer_fail(i, "weight %g and scale %g must be finite", a->weight, a->scale);
    return check_pair(i) && check_stats(i, 2);
}

bool fv_infer_fill(fv_infer *i) {
    return fv_expect_float(i, 0, "state", 0, FV_MAX_RANK);
}

bool fv_infer_increment(fv_infer *i) {
    return fv_expect_dtype(i, 0, "state", FV_I64, 0) && check_stats(i, 1);
}

static void change(fv_scope s, fv_op op, fv_value state, fv_value value, fv_attr attr) {
    const fv_op_info *info = fv_op_get(op);
    if (!fv_is_none(state) && !fv_decl_of(s.g, state))
        fv_graph_fail(s, FV_E_MODEL, "%s: changes a value that is neither parameter nor state", info->name);
    fv_op_node(s, op, (fv_value[]){state, value}, info->min_in, &attr);
}

void fv_assign(fv_scope s, fv_value state, fv_value value) {
    change(s, FV_OP_ASSIGN, state, value, (fv_attr){0});
}
void fv_accumulate(fv_scope s, fv_value state, fv_value value) {
    change(s, FV_OP_ACCUMULATE, state, value, (fv_attr){0});
}
void fv_lerp_assign(fv_scope s, fv_value state, fv_value value, double weight, double scale) {
    change(s, FV_OP_LERP_ASSIGN, state, value, (fv_attr){.lerp = {.weight = weight, .scale = scale}});
}
void fv_fill(fv_scope s, fv_value state, double value) {
    change(s, FV_OP_FILL, state, FV_NONE, (fv_attr){.scale = {.add = value}});
}
void fv_increment(fv_scope s, fv_value state) {
    change(s, FV_OP_INCREMENT, state, FV_NONE, (fv_attr){0});
}
