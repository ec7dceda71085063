/* loss.c: losses over logits [n,k], and the count of right answers. The scalar loss can be differentiated with respect
 * to the logits; targets and weights are data. */
#include "core/ops/ops_internal.h"

/* ---------------------------------------------------------------- shape rules */

static bool attr_is_sound(fv_infer *i) {
    const fv_loss_attr *a = &i->attr->loss;
    if (!(a->label_smoothing >= 0 && a->label_smoothing <= 1))
        return fv_infer_fail(i, "label smoothing %g is not in [0, 1]", a->label_smoothing);
    if (a->reduction != FV_REDUCE_MEAN && a->reduction != FV_REDUCE_SUM)
        return fv_infer_fail(i, "%d is no reduction", (int)a->reduction);
    return true;
}

static bool labels_fit(fv_infer *i, int k, int logits) {
    if (!fv_expect_dtype(i, k, "labels", FV_I32, 1)) return false;
    if (i->in[k].dim[0] == i->in[logits].dim[0]) return true;
    return fv_infer_fail(i, "%lld labels for %lld rows of logits", (long long)i->in[k].dim[0],
                         (long long)i->in[logits].dim[0]);
}

/* logits, target, row_weight, class_weight or pos_weight from operand `first` on. */
static bool check_operands(fv_infer *i, int first, bool labels_allowed, const char *weight) {
    if (!attr_is_sound(i) || !fv_expect_float(i, first, "logits", 2, 2)) return false;
    fv_type logits = i->in[first];
    int target = first + 1;
    bool labels = labels_allowed && fv_has(i, target) && i->in[target].dtype == FV_I32;
    if (labels && !labels_fit(i, target, first)) return false;
    if (!labels && !fv_expect_like(i, target, "target", logits, "logits")) return false;
    return fv_expect_vector(i, first + 2, "row_weight", logits.dim[0]) &&
           fv_expect_vector(i, first + 3, weight, logits.dim[1]);
}

static bool set_results(fv_infer *i) {
    return fv_set_result(i, 0, 0, NULL) && fv_set_result(i, 1, 1, &i->in[0].dim[0]);
}

static bool check_backward(fv_infer *i, bool labels_allowed, const char *weight) {
    return fv_expect_float(i, 0, "dloss", 0, 0) && check_operands(i, 1, labels_allowed, weight) &&
           fv_set_result_type(i, 0, i->in[1]);
}

bool fv_infer_softmax_cross_entropy(fv_infer *i) {
    return check_operands(i, 0, true, "class_weight") && set_results(i);
}
bool fv_infer_softmax_cross_entropy_bwd(fv_infer *i) {
    return check_backward(i, true, "class_weight");
}
bool fv_infer_bce_with_logits(fv_infer *i) {
    return check_operands(i, 0, false, "pos_weight") && set_results(i);
}
bool fv_infer_bce_with_logits_bwd(fv_infer *i) {
    return check_backward(i, false, "pos_weight");
}

bool fv_infer_topk_correct(fv_infer *i) {
    if (!fv_expect_float(i, 0, "logits", 2, 2) || !labels_fit(i, 1, 0)) return false;
    long long rows = i->in[0].dim[0], classes = i->in[0].dim[1];
    if (i->attr->topk.k < 1 || i->attr->topk.k > classes)
        return fv_infer_fail(i, "k is %d, it must be 1 to %lld, the number of classes", i->attr->topk.k, classes);
    return fv_expect_vector(i, 2, "row_weight", rows) && fv_set_result(i, 0, 0, NULL);
}

/* ---------------------------------------------------------------- gradients and builders */

static void backward(fv_scope s, const fv_grad_args *a, fv_op op) {
    if (!fv_only_first_result(s, a, "the loss of each row")) return;
    for (int k = 1; k < a->n_in; k++) {
        if (!a->want[k]) continue;
        fv_graph_fail(s, FV_E_MODEL, "%s: targets and weights have no gradient", fv_op_get(a->node.op)->name);
        return;
    }
    fv_value operands[5] = {a->dout[0]};
    for (int k = 0; k < a->n_in; k++) operands[1 + k] = a->in[k];
    if (a->want[0]) a->din[0] = fv_op_node(s, op, operands, 1 + a->n_in, &a->node.attr);
}

void fv_grad_softmax_cross_entropy(fv_scope s, const fv_grad_args *a) {
    backward(s, a, FV_OP_SOFTMAX_CROSS_ENTROPY_BWD);
}
void fv_grad_bce_with_logits(fv_scope s, const fv_grad_args *a) {
    backward(s, a, FV_OP_BCE_WITH_LOGITS_BWD);
}

fv_value fv_softmax_cross_entropy(fv_scope s, fv_value logits, fv_value target, fv_value row_weight,
                                  fv_value class_weight, fv_loss_attr attr) {
    return fv_op_node(s, FV_OP_SOFTMAX_CROSS_ENTROPY, (fv_value[]){logits, target, row_weight, class_weight}, 4,
                      &(fv_attr){.loss = attr});
}

fv_value fv_bce_with_logits(fv_scope s, fv_value logits, fv_value target, fv_value row_weight, fv_value pos_weight,
                            fv_loss_attr attr) {
    return fv_op_node(s, FV_OP_BCE_WITH_LOGITS, (fv_value[]){logits, target, row_weight, pos_weight}, 4,
                      &(fv_attr){.loss = attr});
}

fv_value fv_topk_correct(fv_scope s, fv_value logits, fv_value labels, fv_value row_weight, int k) {
    return fv_op_node(s, FV_OP_TOPK_CORRECT, (fv_value[]){logits, labels, row_weight}, 3, &(fv_attr){.topk = {.k = k}});
}
