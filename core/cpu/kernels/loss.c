/* loss.c: losses over logits [n,k] and the top-k count. Rows of weight 0 (padding) add exactly nothing, whatever they
 * hold; if all weight is 0 the loss and its gradient are 0. Rows run in tiles and leave a double each in the workspace;
 * these are added in order. */
#include "core/cpu/kernels/tile.h"

typedef struct loss_args {
    int64_t n, k, tile;
    const float *logits, *soft, *row_weight, *class_weight;
    const int32_t *label;                      /* or soft */
    double smoothing, divisor, sum_of_classes; /* of class_weight */
    fv_reduction reduction;
    double *terms; /* [n] */
    float *row_loss, *dlogits;
    float dloss;
    int topk;
} loss_args;

size_t CPU(loss_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op != FV_OP_SOFTMAX_CROSS_ENTROPY && node->op != FV_OP_BCE_WITH_LOGITS && node->op != FV_OP_TOPK_CORRECT)
        return 0;
    return (size_t)fv_dim(g, g->operands[node->first_operand], 0) * sizeof(double);
}

/* Operands from `first` on: logits, target, row_weight, class_weight. */
static loss_args loss_of(const fv_call *c, int first) {
    const fv_tensor *target = &c->in[first + 1];
    const bool labels = target->type.dtype == FV_I32;
    loss_args a = {.n = c->in[first].type.dim[0],
                   .k = c->in[first].type.dim[1],
                   .logits = c->in[first].data,
                   .soft = labels ? NULL : target->data,
                   .label = labels ? target->data : NULL,
                   .row_weight = fv_operand(c, first + 2),
                   .class_weight = fv_operand(c, first + 3),
                   .smoothing = c->attr->loss.label_smoothing,
                   .reduction = c->attr->loss.reduction,
                   .terms = c->workspace};
    a.tile = fv_tile_rows(4 * a.k); /* an exponential costs more than a copy */
    for (int64_t j = 0; j < a.k; j++) a.sum_of_classes += a.class_weight ? a.class_weight[j] : 1.0;
    return a;
}

static double weight_of(const loss_args *a, int64_t i) {
    return a->row_weight ? a->row_weight[i] : 1.0;
}
static double class_of(const loss_args *a, int64_t j) {
    return a->class_weight ? a->class_weight[j] : 1.0;
}
static bool has_target(const loss_args *a, int64_t i) {
    return !a->label || (a->label[i] >= 0 && a->label[i] < a->k);
}

/* A row's factor in the reduced loss. */
static double factor_of(const loss_args *a, int64_t i) {
    const double w = weight_of(a, i);
    if (w == 0) return 0;
    if (a->reduction == FV_REDUCE_SUM) return w;
    return a->divisor > 0 ? w / a->divisor : 0;
}

static void finish(const fv_call *c, const loss_args *a) {
    double total = 0;
    for (int64_t i = 0; i < a->n; i++) total += a->terms[i];
    if (c->out[0].data) *(float *)c->out[0].data = (float)total;
}

static int64_t tiles_of(const loss_args *a) {
    return fv_ceil_div(a->n, a->tile);
}

static void fault_label(const fv_call *c, const loss_args *a, int64_t i) {
    fv_kernel_fault(c, FV_E_DATA, "label %d of row %lld is outside [0, %lld)", (int)a->label[i], (long long)i,
                    (long long)a->k);
}

/* ---------------------------------------------------------------- softmax cross-entropy
 * A row has coefficients t_c >= 0 and the loss: sum over c of t_c * -log softmax(x)_c
 *   label y       t_c = (1 - e) w_y [c = y] + e / k w_c        (e: label smoothing, w: class weights)
 *   soft target   t_c = w_c ((1 - e) target_c + e / k)
 * The mean divides by the sum of row_weight * w_y (labels) or of row_weight (soft), as PyTorch does. */

static double divisor_of(const loss_args *a) {
    double sum = 0;
    for (int64_t i = 0; i < a->n; i++) {
        const double w = weight_of(a, i);
        if (w == 0 || !has_target(a, i)) continue;
        sum += a->label ? w * class_of(a, a->label[i]) : w;
    }
    return sum;
}

static double coefficient(const loss_args *a, int64_t i, int64_t c) {
    const double uniform = a->smoothing / (double)a->k;
    if (a->soft) return class_of(a, c) * ((1 - a->smoothing) * a->soft[i * a->k + c] + uniform);
    return class_of(a, c) * ((a->label[i] == c ? 1 - a->smoothing : 0) + uniform);
}

/* sum of e^(x - top). The elements equal to top are counted apart, so that a sum close to 1 keeps its excess over 1. */
typedef struct exponentials {
    float top;
    double sum;
} exponentials;

static exponentials exponentials_of(const float *x, int64_t k) {
    vf most = vf_set1(-INFINITY), rest = vf_zero(), equal = vf_zero();
    int64_t j = 0;
    for (; j + FV_VL <= k; j += FV_VL) most = vf_max(vf_load(x + j), most);
    float top = vf_max_lane(most);
    for (; j < k; j++) top = x[j] > top ? x[j] : top;
    for (j = 0; j < k; j += FV_VL) {
        const int n = (int)fv_min64(k - j, FV_VL);
        vf d = vf_load_n(x + j, n) - vf_set1(top);
        vm is_top = vm_ge(d, vf_zero());
        rest += vf_first(vf_select(is_top, vf_zero(), vf_exp(d)), n);
        equal += vf_first(vf_keep(is_top, vf_set1(1.0f)), n);
    }
    return (exponentials){top, (double)vf_sum(equal) + (double)vf_sum(rest)};
}

static double row_entropy(const loss_args *a, int64_t i) {
    const float *x = a->logits + i * a->k;
    const exponentials e = exponentials_of(x, a->k);
    const double lse = e.top + log(e.sum);
    if (a->label && a->smoothing == 0) return class_of(a, a->label[i]) * (lse - x[a->label[i]]);
    double loss = 0;
    for (int64_t c = 0; c < a->k; c++) {
        const double t = coefficient(a, i, c);
        if (t != 0) loss += t * (lse - x[c]);
    }
    return loss;
}

static void entropy_tile(void *arg, int64_t tile, int thread) {
    const loss_args *a = arg;
    fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const double loss = has_target(a, i) ? row_entropy(a, i) : 0, factor = factor_of(a, i);
        a->terms[i] = factor != 0 ? factor * loss : 0;
        if (a->row_loss) a->row_loss[i] = (float)loss;
    }
}

void CPU(softmax_cross_entropy)(const fv_call *c) {
    loss_args a = loss_of(c, 0);
    a.divisor = divisor_of(&a);
    a.row_loss = fv_result_of(c, 1);
    for (int64_t i = 0; i < a.n; i++)
        if (!has_target(&a, i) && weight_of(&a, i) != 0) fault_label(c, &a, i);
    fv_pool_run(c->pool, tiles_of(&a), entropy_tile, &a);
    finish(c, &a);
}

/* dx_c = factor (softmax_c * sum of t - t_c) */
static void entropy_gradient(const loss_args *a, int64_t i, double factor) {
    const float *x = a->logits + i * a->k;
    float *dx = a->dlogits + i * a->k;
    const exponentials e = exponentials_of(x, a->k);
    const double uniform = a->smoothing / (double)a->k;
    double sum = a->label ? (1 - a->smoothing) * class_of(a, a->label[i]) + uniform * a->sum_of_classes : 0;
    for (int64_t c = 0; a->soft && c < a->k; c++) sum += coefficient(a, i, c);
    const vf top = vf_set1(e.top), scale = vf_set1((float)(factor * sum / e.sum));
    const vf target = vf_set1((float)(factor * (1 - a->smoothing))), all = vf_set1((float)(factor * uniform));
    for (int64_t c = 0; c < a->k; c += FV_VL) {
        const int n = (int)fv_min64(a->k - c, FV_VL);
        vf t = a->soft ? vf_fma(target, vf_load_n(a->soft + i * a->k + c, n), all) : all;
        if (a->class_weight) t *= vf_load_n(a->class_weight + c, n);
        vf_store_n(dx + c, vf_fma(scale, vf_exp(vf_load_n(x + c, n) - top), -t), n);
    }
    if (!a->label) return;
    const int32_t y = a->label[i]; /* here softmax - 1 would cancel in float */
    dx[y] = (float)(factor * (exp((double)x[y] - e.top) / e.sum * sum - coefficient(a, i, y)));
}

static void entropy_bwd_tile(void *arg, int64_t tile, int thread) {
    const loss_args *a = arg;
    fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const double factor = factor_of(a, i);
        if (factor != 0 && has_target(a, i)) entropy_gradient(a, i, a->dloss * factor);
        else memset(a->dlogits + i * a->k, 0, (size_t)a->k * sizeof *a->dlogits);
    }
}

void CPU(softmax_cross_entropy_bwd)(const fv_call *c) {
    loss_args a = loss_of(c, 1);
    a.divisor = divisor_of(&a);
    a.dloss = *(const float *)c->in[0].data;
    a.dlogits = c->out[0].data;
    fv_pool_run(c->pool, tiles_of(&a), entropy_bwd_tile, &a);
}

/* ---------------------------------------------------------------- binary cross-entropy
 * With t' = t (1 - e) + e / 2 and p the positive weight: l = (1 - t') softplus(x) + p t' softplus(-x), where
 * softplus(x) = max(x, 0) + log(1 + e^-|x|). row_loss is the mean over the k classes; the mean loss divides by k * sum
 * of row_weight. class_weight holds the positive weights. */

static double bce_divisor(const loss_args *a) {
    double sum = 0;
    for (int64_t i = 0; i < a->n; i++) sum += weight_of(a, i);
    return sum * (double)a->k;
}

/* The factors of softplus(x) and softplus(-x): 1 - t' and p t' of n classes from c on. */
typedef struct {
    vf negative, positive;
} bce_factors;

FV_INLINE bce_factors bce_factors_of(const loss_args *a, int64_t i, int64_t c, int n) {
    vf t = vf_load_n(a->soft + i * a->k + c, n);
    t = vf_fma(t, vf_set1((float)(1 - a->smoothing)), vf_set1((float)(a->smoothing / 2)));
    return (bce_factors){vf_set1(1.0f) - t, a->class_weight ? t * vf_load_n(a->class_weight + c, n) : t};
}

static void bce_tile(void *arg, int64_t tile, int thread) {
    const loss_args *a = arg;
    fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        vf sum = vf_zero();
        for (int64_t c = 0; c < a->k; c += FV_VL) {
            const int n = (int)fv_min64(a->k - c, FV_VL);
            const bce_factors f = bce_factors_of(a, i, c, n);
            vf x = vf_load_n(a->logits + i * a->k + c, n);
            vf s = vf_log1p(vf_exp(-vf_abs(x)));
            vf l = f.negative * (vf_max(vf_zero(), x) + s) + f.positive * (vf_max(vf_zero(), -x) + s);
            sum += vf_first(l, n);
        }
        const double loss = vf_sum(sum), factor = factor_of(a, i);
        a->terms[i] = factor != 0 ? factor * loss : 0;
        if (a->row_loss) a->row_loss[i] = (float)(loss / (double)a->k);
    }
}

void CPU(bce_with_logits)(const fv_call *c) {
    loss_args a = loss_of(c, 0);
    a.divisor = bce_divisor(&a);
    a.row_loss = fv_result_of(c, 1);
    fv_pool_run(c->pool, tiles_of(&a), bce_tile, &a);
    finish(c, &a);
}

/* dx = factor ((1 - t') sigmoid(x) - p t' sigmoid(-x)) */
static void bce_bwd_tile(void *arg, int64_t tile, int thread) {
    const loss_args *a = arg;
    fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const double factor = factor_of(a, i);
        const vf scale = vf_set1((float)(a->dloss * factor));
        for (int64_t c = 0; c < a->k; c += FV_VL) {
            const int n = (int)fv_min64(a->k - c, FV_VL);
            const bce_factors f = bce_factors_of(a, i, c, n);
            vf t, s = vf_sigmoid_pair(vf_load_n(a->logits + i * a->k + c, n), &t);
            vf dx = scale * (f.negative * s - f.positive * t);
            vf_store_n(a->dlogits + i * a->k + c, factor != 0 ? dx : vf_zero(), n);
        }
    }
}

void CPU(bce_with_logits_bwd)(const fv_call *c) {
    loss_args a = loss_of(c, 1);
    a.divisor = bce_divisor(&a);
    a.dloss = *(const float *)c->in[0].data;
    a.dlogits = c->out[0].data;
    fv_pool_run(c->pool, tiles_of(&a), bce_bwd_tile, &a);
}

/* ---------------------------------------------------------------- top-k: weight of the rows whose label is among the k
 * largest Of equal logits the lower class comes first; a NaN comes before everything. */

static void topk_tile(void *arg, int64_t tile, int thread) {
    const loss_args *a = arg;
    fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        const float *x = a->logits + i * a->k;
        int64_t before = 0;
        a->terms[i] = 0;
        if (weight_of(a, i) == 0 || !has_target(a, i)) continue;
        const float own = x[a->label[i]];
        for (int64_t c = 0; c < a->k; c++) before += x[c] > own || x[c] != x[c] || (x[c] == own && c < a->label[i]);
        if (before < a->topk) a->terms[i] = weight_of(a, i);
    }
}

void CPU(topk_correct)(const fv_call *c) {
    loss_args a = {.n = c->in[0].type.dim[0],
                   .k = c->in[0].type.dim[1],
                   .logits = c->in[0].data,
                   .label = c->in[1].data,
                   .row_weight = fv_operand(c, 2),
                   .terms = c->workspace,
                   .topk = c->attr->topk.k};
    a.tile = fv_tile_rows(a.k);
    for (int64_t i = 0; i < a.n; i++)
        if (!has_target(&a, i) && weight_of(&a, i) != 0) fault_label(c, &a, i);
    fv_pool_run(c->pool, tiles_of(&a), topk_tile, &a);
    finish(c, &a);
}
