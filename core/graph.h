/* graph.h: a model as a graph of coarse operations in static single assignment form with static shapes.
 *
 *   fv_graph
 *     values   [ 0 = none | 1 | 2 | ... ]  fv_val: type, kind, defining node, name
 *     nodes    [ 0 | 1 | 2 | ... ]         fv_node: op, operand range, result range, attribute, scope, segment
 *     operands [ v v v | v v | ... ]       flat; a node has operands[first .. first + n)
 *     decls    [ ... ]                     what a PARAM or STATE value is: name, role, layout, initial values
 *     outputs  [ "logits" -> v, ... ]      named
 *     error                                the first one: the builder is sticky, so model code reads like mathematics
 *
 * Nodes are in program order: an operand is defined before it is used. Only state operations (assign and its kin,
 * *_update) change memory, and only that of PARAM and STATE values; a reader placed before them sees the old contents.
 */
#ifndef FV_CORE_GRAPH_H
#define FV_CORE_GRAPH_H

#include "core/arena.h"
#include "core/rng.h"
#include "core/tensor.h"

typedef enum fv_op {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) FV_OP_##ENUM,
#include "core/ops.def"
    FV_OP_COUNT
} fv_op;

typedef struct fv_value {
    int32_t id;
} fv_value; /* id 0: no value */
#define FV_NONE ((fv_value){0})

/* ---------------------------------------------------------------- attributes: a typed struct per operation */

typedef enum fv_act_kind {
    FV_ACT_NONE,
    FV_ACT_RELU,
    FV_ACT_RELU6,
    FV_ACT_LEAKY_RELU, /* alpha = slope below 0 */
    FV_ACT_GELU,       /* erf */
    FV_ACT_GELU_TANH,
    FV_ACT_SILU,
    FV_ACT_HARDSWISH,
    FV_ACT_HARDSIGMOID,
    FV_ACT_SIGMOID,
    FV_ACT_TANH,
    FV_ACT_COUNT
} fv_act_kind;

typedef struct fv_conv2d_attr {
    int32_t stride[2];   /* h, w; 0 means 1 */
    int32_t pad[4];      /* top, left, bottom, right */
    int32_t dilation[2]; /* 0 means 1 */
    int32_t groups;      /* 0 means 1 */
} fv_conv2d_attr;
typedef struct fv_conv2d_bwd_attr {
    fv_conv2d_attr conv;
    int64_t dim[4]; /* shape of the result: x or w */
} fv_conv2d_bwd_attr;
typedef struct fv_matmul_attr {
    bool transpose_a, transpose_b;
} fv_matmul_attr; /* of the last two dimensions */
typedef struct fv_batch_norm_attr {
    double eps;
    fv_act_kind act; /* fused after the (optional) residual: fv_act_can_end_norm */
} fv_batch_norm_attr;
typedef struct fv_normed_conv2d_attr {
    fv_conv2d_attr conv;
    fv_batch_norm_attr norm;
} fv_normed_conv2d_attr;
typedef struct fv_norm_attr {
    double eps;
    int32_t groups; /* group_norm only */
} fv_norm_attr;
typedef struct fv_activation_attr {
    fv_act_kind kind;
    double alpha;
} fv_activation_attr;
typedef struct fv_scale_attr {
    double mul, add;
} fv_scale_attr;
typedef struct fv_pool_attr {
    int32_t kernel[2], stride[2], pad[4]; /* stride 0 means kernel; pad: top, left, bottom, right */
    bool ceil_mode;
    bool count_include_pad; /* average pooling */
} fv_pool_attr;
typedef struct fv_pool_bwd_attr {
    fv_pool_attr pool;
    int64_t dim[4]; /* shape of dx */
} fv_pool_bwd_attr;
typedef enum fv_resize_mode { FV_RESIZE_NEAREST, FV_RESIZE_BILINEAR } fv_resize_mode;
typedef struct fv_resize_attr {
    fv_resize_mode mode;
    bool align_corners; /* bilinear; else half-pixel centres */
    int64_t out_h, out_w;
} fv_resize_attr;
typedef struct fv_reduce_attr {
    uint32_t axes; /* bit i: reduce dimension i */
    bool keepdim;
} fv_reduce_attr;
typedef struct fv_shape_attr {
    int32_t rank;
    int64_t dim[FV_MAX_RANK]; /* reshape: one -1 is inferred */
} fv_shape_attr;
typedef struct fv_transpose_attr {
    int32_t perm[FV_MAX_RANK];
} fv_transpose_attr; /* result dim i = operand dim perm[i] */
typedef struct fv_concat_attr {
    int32_t axis;
} fv_concat_attr;
typedef struct fv_slice_attr {
    int64_t start[FV_MAX_RANK], size[FV_MAX_RANK], step[FV_MAX_RANK]; /* size = result dims; step >= 1 */
    int64_t full[FV_MAX_RANK];                                        /* slice_bwd: dims of the result */
} fv_slice_attr;
typedef struct fv_pad_attr {
    int64_t before[FV_MAX_RANK], after[FV_MAX_RANK];
    double value;
} fv_pad_attr;
typedef struct fv_attention_attr {
    int32_t heads;
    double scale; /* 0 means 1/sqrt(head dimension) */
} fv_attention_attr;
typedef struct fv_dropout_attr {
    double p;
} fv_dropout_attr;
typedef enum fv_reduction { FV_REDUCE_MEAN, FV_REDUCE_SUM } fv_reduction;
typedef struct fv_loss_attr {
    double label_smoothing;
    fv_reduction reduction; /* mean: as PyTorch, divided by the sum of the weights in use */
} fv_loss_attr;
typedef struct fv_topk_attr {
    int32_t k;
} fv_topk_attr;
typedef struct fv_cast_attr {
    fv_dtype to;
} fv_cast_attr;
typedef enum fv_pad_mode { FV_PAD_ZERO, FV_PAD_REFLECT } fv_pad_mode;
typedef struct fv_augment_attr {
    int64_t out_h, out_w;
    fv_pad_mode pad_mode; /* outside the picture: raw value 0, or mirrored without repeating the edge */
} fv_augment_attr;
typedef struct fv_lerp_attr {
    double weight, scale;
} fv_lerp_attr;
typedef struct fv_update_attr {
    int32_t count;                      /* tensors in each list */
    int32_t group;                      /* which of step.lr[], step.weight_decay[] */
    double momentum, beta1, beta2, eps; /* by kind */
    double clip;                        /* > 0: gradients times min(1, clip / (norm + 1e-6)), norm from stats */
    bool nesterov, decoupled;           /* decoupled: AdamW's weight decay */
    bool renormalise;                   /* muon: weights to a norm of sqrt(rows) first */
    int32_t ns_steps;                   /* muon: Newton-Schulz iterations */
} fv_update_attr;

/* Fields of one row of augment's record; all zero: the plain picture. Crop: source row of output row 0 and column 0
 * (may be negative). */
enum {
    FV_AUG_TOP,
    FV_AUG_LEFT,
    FV_AUG_FLIP,
    FV_AUG_CUT_TOP,
    FV_AUG_CUT_LEFT,
    FV_AUG_CUT_H,
    FV_AUG_CUT_W,
    FV_AUG_CUT_NOISE, /* 0: the cut becomes zeros after normalising; else a key (up to 2^24) of normal noise */
    FV_AUG_VFLIP,
    FV_AUG_BRIGHTNESS, /* these three: factor - 1; hue: turns. In this order, each clamped to [0,1] */
    FV_AUG_CONTRAST,
    FV_AUG_SATURATION,
    FV_AUG_HUE,
    FV_AUG_RESERVED_1,
    FV_AUG_RESERVED_2,
    FV_AUG_RESERVED_3,
    FV_AUG_FIELDS
};

typedef union fv_attr {
    int none;
    fv_conv2d_attr conv2d;
    fv_conv2d_bwd_attr conv2d_bwd;
    fv_matmul_attr matmul;
    fv_batch_norm_attr batch_norm;
    fv_normed_conv2d_attr normed_conv2d;
    fv_norm_attr norm;
    fv_activation_attr activation;
    fv_scale_attr scale;
    fv_pool_attr pool;
    fv_pool_bwd_attr pool_bwd;
    fv_resize_attr resize;
    fv_reduce_attr reduce;
    fv_shape_attr shape;
    fv_transpose_attr transpose;
    fv_concat_attr concat;
    fv_slice_attr slice;
    fv_pad_attr pad_nd;
    fv_attention_attr attention;
    fv_dropout_attr dropout;
    fv_loss_attr loss;
    fv_topk_attr topk;
    fv_cast_attr cast;
    fv_augment_attr augment;
    fv_lerp_attr lerp;
    fv_update_attr update;
} fv_attr;

/* ---------------------------------------------------------------- parameters and state */

typedef enum fv_role {
    FV_ROLE_WEIGHT,
    FV_ROLE_BUFFER,
    FV_ROLE_GRAD,
    FV_ROLE_MOMENT,
    FV_ROLE_EMA,
    FV_ROLE_SLOW, /* lookahead's slow copy */
    FV_ROLE_COUNT
} fv_role;

/* How a tensor lies in files, relative to memory. */
typedef enum fv_layout_kind {
    FV_LAYOUT_PLAIN,      /* as in memory */
    FV_LAYOUT_OIHW,       /* memory [k,r,s,c], file [k,c,r,s] */
    FV_LAYOUT_LINEAR_CHW, /* memory [out,h,w,c] flattened to [out,h*w*c], file [out,c*h*w]: a linear layer behind a
                             flatten */
} fv_layout_kind;
typedef struct fv_layout {
    fv_layout_kind kind;
    int32_t c, h, w; /* LINEAR_CHW */
} fv_layout;
#define FV_PLAIN ((fv_layout){FV_LAYOUT_PLAIN, 0, 0, 0})
#define FV_OIHW ((fv_layout){FV_LAYOUT_OIHW, 0, 0, 0})

typedef enum fv_init_kind {
    FV_INIT_CONSTANT,
    FV_INIT_UNIFORM,
    FV_INIT_NORMAL,
    FV_INIT_TRUNC_NORMAL,
    FV_INIT_DIRAC,
    FV_INIT_DATA
} fv_init_kind;
/* CONSTANT: a. UNIFORM: [a, b). NORMAL: mean a, deviation b. TRUNC_NORMAL: the same, redrawn outside [a - 2b, a + 2b].
 * DIRAC: of a convolution's filters [k,r,s,c] filter i < min(k, c) hands channel i through (1 at its centre, else 0),
 * and the rest are UNIFORM. DATA: from `data`, one double per element in memory order (sin-cos positions), alive as
 * long as the graph. */
typedef struct fv_init {
    fv_init_kind kind;
    double a, b;
    const double *data;
} fv_init;
#define FV_ZEROS ((fv_init){FV_INIT_CONSTANT, 0, 0, NULL})
#define FV_ONES ((fv_init){FV_INIT_CONSTANT, 1, 0, NULL})

typedef struct fv_decl {
    const char *name; /* "layer1.0.conv1.weight"; moments "opt.<slot>.<param>", averages "ema.<param>", slow copies
                         "slow.<param>", gradients "grad.<param>" */
    fv_type type;
    fv_role role;
    fv_layout layout;
    fv_init init;
    bool no_decay;  /* norms, biases, tokens, positions: no weight decay */
    bool frozen;    /* no gradient, no moment, no average (fv_graph_freeze) */
    fv_value value; /* its value in this graph */
    fv_value of;    /* GRAD, MOMENT, EMA, SLOW: the parameter it belongs to */
} fv_decl;

/* ---------------------------------------------------------------- the graph */

typedef enum fv_val_kind {
    FV_VAL_NONE,
    FV_VAL_INPUT,
    FV_VAL_PARAM,
    FV_VAL_STATE,
    FV_VAL_CONST,
    FV_VAL_RESULT
} fv_val_kind;

typedef struct fv_val {
    fv_type type;
    fv_val_kind kind;
    int32_t node;       /* RESULT: defining node */
    int32_t result;     /* RESULT: which of its results */
    int32_t decl;       /* PARAM, STATE: index into decls */
    const char *name;   /* INPUT, PARAM, STATE; else NULL */
    const double *data; /* CONST: one double per element */
} fv_val;

typedef enum fv_segment {
    FV_SEG_FORWARD_BACKWARD,
    FV_SEG_REDUCE,
    FV_SEG_CHECK,
    FV_SEG_UPDATE,
    FV_SEG_COUNT
} fv_segment;

typedef struct fv_node {
    fv_op op;
    int32_t first_operand, operands;
    int32_t first_result, results; /* value ids, consecutive */
    const char *scope;             /* "layer1.0": for messages, dumps and random streams */
    uint32_t stream;               /* random stream: fv_hash_name of the scope (dropout, drop_path) */
    fv_segment segment;
    bool backward; /* made by autodiff */
    fv_attr attr;
} fv_node;

typedef struct fv_output {
    const char *name;
    fv_value value;
} fv_output;

typedef struct fv_graph {
    fv_ctx *ctx; /* borrowed */
    fv_arena arena;
    fv_val *values;
    fv_node *nodes;
    fv_value *operands;
    fv_decl *decls;
    fv_output *outputs;
    int32_t n_values, n_nodes, n_operands, n_decls, n_outputs;
    int32_t cap_values, cap_nodes, cap_operands, cap_decls, cap_outputs;
    const char **frozen; /* name prefixes of what is not trained */
    int32_t n_frozen;
    bool training;      /* layers build batch norm, dropout accordingly */
    fv_segment segment; /* of nodes made from now on */
    bool in_backward;   /* nodes made from now on belong to the backward pass */
    fv_status error;    /* first error; its text is in error_text */
    char error_text[512];
} fv_graph;

/* A place in a model: graph + parameter-name prefix. Layers and ops take it by value. */
typedef struct fv_scope {
    fv_graph *g;
    const char *prefix; /* "" at the root */
} fv_scope;

/* NULL and ctx->error when memory is short. The graph borrows ctx; free it with fv_graph_free. */
fv_graph *fv_graph_new(fv_ctx *ctx, bool training);
void fv_graph_free(fv_graph *g); /* NULL is fine */
/* FV_OK, or the builder's first error moved to ctx->error (node, shapes and place in the message). */
fv_status fv_graph_finish(fv_graph *g);
/* Whether a name is `prefix` or lies below it: whole components, so that "layer1" and "layer1." take in
 * "layer1.0.conv1.weight", but not "layer10.0.conv1.weight". */
bool fv_name_below(const char *name, const char *prefix);
/* Parameters and buffers that are declared from now on, with names below one of n prefixes (copied), are frozen: they
 * have no gradient, moment or average, and a batch norm whose scale and shift are both frozen keeps its running
 * statistics and normalises by them. */
void fv_graph_freeze(fv_graph *g, const char *const *prefix, int n);
/* Record an error (only the first is kept) and return FV_NONE. */
fv_value fv_graph_fail(fv_scope s, fv_status code, const char *fmt, ...) FV_PRINTF(3, 4);

fv_scope fv_root(fv_graph *g);                                    /* the scope without a prefix */
fv_scope fv_in(fv_scope s, const char *fmt, ...) FV_PRINTF(2, 3); /* the scope "layer%d" under s */

/* Something that changes from run to run (fv_program_input). The same name twice is an error. */
fv_value fv_input(fv_scope s, const char *name, fv_type type);
/* Values given now, one double per element; copied. */
fv_value fv_const(fv_scope s, fv_type type, const double *data);
fv_value fv_const_fill(fv_scope s, fv_type type, double value);
/* A trainable parameter / a buffer (running statistics). The name is prefix + "." + name. The same name twice is an
 * error. */
fv_value fv_param(fv_scope s, const char *name, fv_type type, fv_layout layout, fv_init init, bool no_decay);
fv_value fv_buffer(fv_scope s, const char *name, fv_type type, fv_init init);
/* State that belongs to a parameter: GRAD ("grad.<param>"), EMA ("ema.<param>"), MOMENT ("opt.<slot>.<param>"), SLOW
 * ("slow.<param>", of a buffer, too). Type and layout are the parameter's. `slot` only for MOMENT. */
fv_value fv_state_of(fv_graph *g, fv_value param, fv_role role, const char *slot);
/* int64 [n], the key of each row of the batch: input "row_key", made on first use. */
fv_value fv_row_key(fv_scope s, int64_t rows);
void fv_set_output(fv_graph *g, const char *name, fv_value v);
fv_value fv_find_output(const fv_graph *g, const char *name); /* FV_NONE if there is none */
fv_value fv_find_value(const fv_graph *g, const char *name);  /* INPUT, PARAM or STATE by name */

/* The type of a value; a null value or a failed graph gives rank 0 and dims of 0. */
fv_type fv_typeof(const fv_graph *g, fv_value v);
int64_t fv_dim(const fv_graph *g, fv_value v, int axis); /* axis < 0 counts from the end */
static inline bool fv_is_none(fv_value v) {
    return v.id == 0;
}
const fv_decl *fv_decl_of(const fv_graph *g, fv_value v); /* NULL unless PARAM or STATE */

/* The one way a node comes to be: checks operands, infers result types (core/ops/), appends. Returns result 0 (FV_NONE
 * for ops without results or after an error). Result i is fv_result(v, i). For importers; model code uses core/ops.h.
 */
fv_value fv_op_node(fv_scope s, fv_op op, const fv_value *operands, int n, const fv_attr *attr);
/* Give operand k of a node another value; operands that were not there before it become null. For passes. */
bool fv_node_set_operand(fv_graph *g, int32_t node, int k, fv_value v);
/* Let all nodes and outputs that have a value take another one of its type. For passes. */
void fv_graph_replace(fv_graph *g, fv_value from, fv_value to);
static inline fv_value fv_result(fv_value first, int i) {
    return (fv_value){first.id ? first.id + i : 0};
}

/* What ops.def and core/ops/ say of an operation. */
typedef struct fv_infer {
    const fv_graph *g;
    fv_op op;
    fv_attr *attr; /* may be completed (stride 0 -> 1, ...) */
    int n_in;
    const fv_type *in; /* absent operands: rank -1 */
    fv_type *out;      /* filled by the rule; results that stay empty get rank 1, dim 0 */
    char why[256];     /* reason of failure */
} fv_infer;
bool fv_infer_fail(fv_infer *i, const char *fmt, ...) FV_PRINTF(2, 3); /* returns false */
static inline bool fv_has(const fv_infer *i, int k) {
    return k < i->n_in && i->in[k].rank >= 0;
}

/* Gradient rule: given the gradients of the results (FV_NONE where none flows), fill din[i] where want[i]. */
typedef struct fv_grad_args {
    fv_node node; /* a copy */
    int n_in, n_out;
    const fv_value *in, *out, *dout;
    const bool *want;
    fv_value *din; /* FV_NONE on entry */
} fv_grad_args;

typedef struct fv_op_info {
    const char *name, *onnx;
    int min_in, max_in, results;
    bool (*infer)(fv_infer *i);
    void (*grad)(fv_scope s, const fv_grad_args *a); /* NULL: not differentiable */
    double (*flops)(const fv_infer *i);              /* out is filled */
    bool mutates;                                    /* changes its state operands in place */
} fv_op_info;
const fv_op_info *fv_op_get(fv_op op);
/* Whether the node changes the contents of its operand k in place (the state of a state op; parameters, moments and
 * averages of an update op). */
bool fv_op_mutates_operand(const fv_node *node, int k);

/* What a node costs: floating-point operations, and bytes. */
double fv_node_flops(const fv_graph *g, const fv_node *node);
double fv_node_bytes(const fv_graph *g, const fv_node *node); /* operands read + results written, once each */

/* Readable text, one line per node; lives in the graph's arena. NULL and ctx->error on memory shortage. */
const char *fv_graph_dump(fv_graph *g);
/* Invariants: order, arity, types as the rules infer them, state changed only by state ops. FV_E_INTERNAL with the
 * node. */
fv_status fv_graph_verify(fv_graph *g);
/* Precision pass: every float32 value and declaration becomes `to` (FV_F64 for the reference backend). */
void fv_graph_cast_floats(fv_graph *g, fv_dtype to);
/* Where an op may compute with bf16 or f16 data (core/precision.c). Beside it its parameters and statistics stay
 * float32: biases, a norm's scale and shift, gradients of weights, sums. */
typedef enum fv_precision {
    FV_PRECISION_FULL,   /* float32 (or float64) only: losses, updates, statistics */
    FV_PRECISION_FOLLOW, /* low when some of its data is: what memory bounds */
    FV_PRECISION_LOW,    /* low in a mixed graph: products of matrices, and what makes data larger */
    FV_PRECISION_KEEP,   /* operands as they are: cast */
} fv_precision;
fv_precision fv_op_precision(fv_op op);
/* Mixed precision pass, last of all (after differentiation and the updates): activations and their gradients become
 * `low` (FV_BF16, FV_F16), with casts where types meet; a weight that meets them is cast once per step. Declarations,
 * inputs, outputs, losses and updates stay float32. */
void fv_graph_mix_precision(fv_graph *g, fv_dtype low);
/* Fusion pass, before differentiation: batch_norm (+ add) + activation become one node. Dead nodes are dropped. Returns
 * how many. */
int fv_graph_fuse(fv_graph *g);

/* What fv_graph_recompute did. */
typedef struct fv_recompute_report {
    int nodes;                        /* that are run a second time */
    double cost;                      /* their part of the step's time, by the roofline */
    size_t bytes_before, bytes_after; /* most that is alive at a time, sharing in place aside */
} fv_recompute_report;
/* Recompute pass, after differentiation: results of pure nodes (norms, activations, element-wise ones, products) that
 * the backward pass reads are made anew for it instead of being kept, where that lowers the peak of what is alive;
 * those that free most for their cost first. Results are the same bits. budget: part of a step's time that it may cost,
 * by estimate; 1% of it is to free 5% of the peak at least. Or INFINITY. */
fv_status fv_graph_recompute(fv_graph *g, double budget, fv_recompute_report *report /* may be NULL */);

/* ---------------------------------------------------------------- autodiff: graph to graph */

/* Append the backward pass of the scalar `loss` and give d loss / d wrt[i] (FV_NONE when it does not depend on it).
 * Fails with FV_E_MODEL when the path runs through an op that has no gradient. */
fv_status fv_gradients(fv_graph *g, fv_value loss, int n, const fv_value *wrt, fv_value *grads);
/* The same with a given cotangent (of y's type) instead of 1. */
fv_status fv_gradients_from(fv_graph *g, fv_value y, fv_value dy, int n, const fv_value *wrt, fv_value *grads);

#endif
