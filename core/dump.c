/* dump.c: a graph as text, one line per node:
 *
 *   %12 f32 [128,32,32,16] = conv2d(%1, conv1.weight) {stride 1,1 pad 1,1,1,1 groups 1}    # conv1
 */
#include "core/ops.h"

#include <stdio.h>
#include <string.h>

typedef struct text { /* grows in the arena by doubling */
    fv_graph *g;
    char *data;
    size_t used, size;
    bool failed;
} text;

static void put(text *t, const char *fmt, ...) FV_PRINTF(2, 3);
static void put(text *t, const char *fmt, ...) {
    if (t->failed) return;
    for (;;) {
        va_list args;
        va_start(args, fmt);
        int n = vsnprintf(t->data + t->used, t->size - t->used, fmt, args);
        va_end(args);
        if (n >= 0 && (size_t)n < t->size - t->used) {
            t->used += (size_t)n;
            return;
        }
        char *bigger = n < 0 ? NULL : fv_arena_alloc(&t->g->arena, t->size * 2 + (size_t)n, 1);
        if (!bigger) {
            t->failed = true;
            return;
        }
        memcpy(bigger, t->data, t->used);
        t->data = bigger;
        t->size = t->size * 2 + (size_t)n;
    }
}

static void put_dims(text *t, const char *name, const int64_t *dim, int n) {
    put(t, "%s ", name);
    for (int i = 0; i < n; i++) put(t, "%s%lld", i ? "," : "", (long long)dim[i]);
    put(t, " ");
}

static void put_conv(text *t, const fv_conv2d_attr *a) {
    put(t, "stride %d,%d pad %d,%d,%d,%d ", a->stride[0], a->stride[1], a->pad[0], a->pad[1], a->pad[2], a->pad[3]);
    if (a->dilation[0] != 1 || a->dilation[1] != 1) put(t, "dilation %d,%d ", a->dilation[0], a->dilation[1]);
    if (a->groups != 1) put(t, "groups %d ", a->groups);
}

static void put_batch_norm(text *t, const fv_batch_norm_attr *a) {
    put(t, "eps %g act %s ", a->eps, fv_act_name(a->act));
}

static void put_pool(text *t, const fv_pool_attr *a) {
    put(t, "kernel %d,%d stride %d,%d pad %d,%d,%d,%d %s%s", a->kernel[0], a->kernel[1], a->stride[0], a->stride[1],
        a->pad[0], a->pad[1], a->pad[2], a->pad[3], a->ceil_mode ? "ceil " : "",
        a->count_include_pad ? "count_include_pad " : "");
}

/* Which member of fv_attr an op uses: from ops.def. */
enum {
    ATTR_none,
    ATTR_conv2d,
    ATTR_conv2d_bwd,
    ATTR_matmul,
    ATTR_batch_norm,
    ATTR_normed_conv2d,
    ATTR_norm,
    ATTR_activation,
    ATTR_scale,
    ATTR_pool,
    ATTR_pool_bwd,
    ATTR_resize,
    ATTR_reduce,
    ATTR_shape,
    ATTR_transpose,
    ATTR_concat,
    ATTR_slice,
    ATTR_pad_nd,
    ATTR_cast,
    ATTR_attention,
    ATTR_dropout,
    ATTR_loss,
    ATTR_topk,
    ATTR_augment,
    ATTR_lerp,
    ATTR_update
};
static const uint8_t attr_of[FV_OP_COUNT] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) [FV_OP_##ENUM] = ATTR_##attr,
#include "core/ops.def"
};

static void put_attr(text *t, const fv_node *n, int rank) {
    const fv_attr *a = &n->attr;
    switch (attr_of[n->op]) {
    case ATTR_conv2d: put_conv(t, &a->conv2d); break;
    case ATTR_conv2d_bwd: put_conv(t, &a->conv2d_bwd.conv); break;
    case ATTR_matmul:
        put(t, "%s%s", a->matmul.transpose_a ? "transpose_a " : "", a->matmul.transpose_b ? "transpose_b " : "");
        break;
    case ATTR_batch_norm: put_batch_norm(t, &a->batch_norm); break;
    case ATTR_normed_conv2d:
        put_conv(t, &a->normed_conv2d.conv);
        put_batch_norm(t, &a->normed_conv2d.norm);
        break;
    case ATTR_norm: put(t, "eps %g groups %d ", a->norm.eps, a->norm.groups); break;
    case ATTR_activation: put(t, "%s ", fv_act_name(a->activation.kind)); break;
    case ATTR_scale: put(t, "mul %g add %g ", a->scale.mul, a->scale.add); break;
    case ATTR_pool: put_pool(t, &a->pool); break;
    case ATTR_pool_bwd: put_pool(t, &a->pool_bwd.pool); break;
    case ATTR_resize:
        put(t, "%s%s ", a->resize.mode == FV_RESIZE_NEAREST ? "nearest" : "bilinear",
            a->resize.align_corners ? " align_corners" : "");
        break;
    case ATTR_reduce: put(t, "axes 0x%x%s ", a->reduce.axes, a->reduce.keepdim ? " keepdim" : ""); break;
    case ATTR_transpose:
        put(t, "perm ");
        for (int i = 0; i < rank; i++) put(t, "%s%d", i ? "," : "", a->transpose.perm[i]);
        put(t, " ");
        break;
    case ATTR_concat: put(t, "axis %d ", a->concat.axis); break;
    case ATTR_slice:
        put_dims(t, "start", a->slice.start, rank);
        put_dims(t, "step", a->slice.step, rank);
        break;
    case ATTR_pad_nd:
        put_dims(t, "before", a->pad_nd.before, rank);
        put_dims(t, "after", a->pad_nd.after, rank);
        break;
    case ATTR_cast: put(t, "to %s ", fv_dtype_name(a->cast.to)); break;
    case ATTR_attention: put(t, "heads %d scale %g ", a->attention.heads, a->attention.scale); break;
    case ATTR_dropout: put(t, "p %g ", a->dropout.p); break;
    case ATTR_loss:
        put(t, "label_smoothing %g %s ", a->loss.label_smoothing, a->loss.reduction == FV_REDUCE_MEAN ? "mean" : "sum");
        break;
    case ATTR_topk: put(t, "k %d ", a->topk.k); break;
    case ATTR_augment: put(t, "pad %s ", a->augment.pad_mode == FV_PAD_ZERO ? "zero" : "reflect"); break;
    case ATTR_lerp: put(t, "weight %g scale %g ", a->lerp.weight, a->lerp.scale); break;
    case ATTR_update:
        put(t, "count %d group %d momentum %g betas %g,%g eps %g clip %g ns_steps %d%s%s%s ", a->update.count,
            a->update.group, a->update.momentum, a->update.beta1, a->update.beta2, a->update.eps, a->update.clip,
            a->update.ns_steps, a->update.nesterov ? " nesterov" : "", a->update.decoupled ? " decoupled" : "",
            a->update.renormalise ? " renormalise" : "");
        break;
    default: break;
    }
}

static void put_value(text *t, fv_value v) {
    const fv_val *val = &t->g->values[v.id];
    if (!v.id) put(t, "none");
    else if (val->name) put(t, "%s", val->name);
    else if (val->kind == FV_VAL_CONST && fv_count(val->type) == 1) put(t, "%g", val->data[0]);
    else put(t, "%%%d", v.id);
}

static void put_node(text *t, int32_t k) {
    const fv_graph *g = t->g;
    const fv_node *n = &g->nodes[k];
    char type[96];
    for (int r = 0; r < n->results; r++) {
        fv_value v = {n->first_result + r};
        put(t, "%s%%%d %s", r ? ", " : "", v.id, fv_type_text(g->values[v.id].type, type, sizeof type));
    }
    put(t, "%s%s(", n->results ? " = " : "", fv_op_get(n->op)->name);
    for (int j = 0; j < n->operands; j++) {
        if (j) put(t, ", ");
        put_value(t, g->operands[n->first_operand + j]);
    }
    put(t, ") {");
    put_attr(t, n, n->operands ? fv_typeof(g, g->operands[n->first_operand]).rank : 0);
    if (t->used && t->data[t->used - 1] == ' ') t->used--;
    put(t, "}");
    if (n->scope[0]) put(t, "    # %s", n->scope);
    put(t, "\n");
}

const char *fv_graph_dump(fv_graph *g) {
    static const char *const segments[FV_SEG_COUNT] = {"forward-backward", "reduce", "check", "update"};
    static const char *const roles[FV_ROLE_COUNT] = {"weight", "buffer", "grad", "moment", "ema", "slow"};
    text t = {.g = g, .size = 4096};
    t.data = fv_arena_alloc(&g->arena, t.size, 1);
    if (!t.data) return NULL;
    char type[96];
    put(&t, "graph: %s, %d nodes, %d declarations\n", g->training ? "training" : "evaluation", g->n_nodes, g->n_decls);
    for (int32_t i = 1; i < g->n_values; i++)
        if (g->values[i].kind == FV_VAL_INPUT)
            put(&t, "input %s %s\n", g->values[i].name, fv_type_text(g->values[i].type, type, sizeof type));
    for (int32_t i = 0; i < g->n_decls; i++)
        put(&t, "%s %s %s%s%s\n", roles[g->decls[i].role], g->decls[i].name,
            fv_type_text(g->decls[i].type, type, sizeof type), g->decls[i].no_decay ? " no_decay" : "",
            g->decls[i].frozen ? " frozen" : "");
    for (int seg = 0; seg < FV_SEG_COUNT; seg++) {
        bool any = false;
        for (int32_t k = 0; k < g->n_nodes; k++) {
            if (g->nodes[k].segment != (fv_segment)seg) continue;
            if (!any) put(&t, "segment %s\n", segments[seg]);
            any = true;
            put_node(&t, k);
        }
    }
    for (int32_t i = 0; i < g->n_outputs; i++) {
        put(&t, "output %s = ", g->outputs[i].name);
        put_value(&t, g->outputs[i].value);
        put(&t, "\n");
    }
    return t.failed ? NULL : t.data;
}
