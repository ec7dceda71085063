/* op_table.c: the rows, by family in the order of ops.def. Shapes are small and odd on purpose: channel tails of 1, 3,
 * 5, 17 and 33, one row, one pixel; a few large ones make several tiles. */
#include "tests/op_table.h"
#include "tests/harness.h"

#include <math.h>

/* ---------------------------------------------------------------- how rows are written */

#define DIMS(...) \
    (int32_t)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), { \
        __VA_ARGS__ \
    }
#define TYPE(dtype_, ...) \
    { dtype_, DIMS(__VA_ARGS__) }
#define OPERAND(fill_, ...) \
    { .fill = fill_, .type = TYPE(FV_F32, __VA_ARGS__) }
#define N(...) OPERAND(FILL_NORMAL, __VA_ARGS__)
#define P(...) OPERAND(FILL_POSITIVE, __VA_ARGS__)
#define CONSTANT(fill_, ...) \
    { .fill = fill_, .type = TYPE(FV_F32, __VA_ARGS__), .constant = true }
#define STATE(fill_, ...) \
    { .fill = fill_, .type = TYPE(FV_F32, __VA_ARGS__), .state = true }
#define SCALAR(fill_) \
    { \
        .fill = fill_, .type = {.dtype = FV_F32 } \
    }
#define ABSENT \
    { .fill = FILL_ABSENT }
#define KEYS(n) \
    { .fill = FILL_KEY, .type = TYPE(FV_I64, n), .constant = true }
#define LABELS(n, k) \
    { .fill = FILL_LABEL, .type = TYPE(FV_I32, n), .limit = (k), .constant = true }
#define BYTES(below, ...) \
    { .fill = FILL_BYTE, .type = TYPE(FV_U8, __VA_ARGS__), .limit = (below), .constant = true }
#define ROW(op_, note_, ...) \
    { \
        .op = FV_OP_##op_, .note = note_, .in = { __VA_ARGS__ } \
    }
#define ROWA(op_, note_, attr_, ...) \
    { \
        .op = FV_OP_##op_, .note = note_, .attr = {attr_}, .in = { __VA_ARGS__ } \
    }
#define LIST(...) __VA_ARGS__

/* Size of a convolution's result. */
#define CONV_OUT(in, kernel, stride, before, after, dilation) \
    (((in) + (before) + (after) - (dilation) * ((kernel)-1) - 1) / (stride) + 1)
#define CONV_ATTR(sh, sw, t, l, b, r, dh, dw, g) \
    { .stride = {sh, sw}, .pad = {t, l, b, r}, .dilation = {dh, dw}, .groups = g }

/* A convolution and its two gradients. */
#define CONV(note_, n, h, w, c, k, r, s, g, sh, sw, pt, pl, pb, pr, dh, dw) \
    ROWA(CONV2D, note_, LIST(.conv2d = CONV_ATTR(sh, sw, pt, pl, pb, pr, dh, dw, g)), N(n, h, w, c), \
         N(k, r, s, (c) / (g)), N(k)), \
        ROWA(CONV2D_BWD_DATA, note_, LIST(.conv2d_bwd = {CONV_ATTR(sh, sw, pt, pl, pb, pr, dh, dw, g), {n, h, w, c}}), \
             N(n, CONV_OUT(h, r, sh, pt, pb, dh), CONV_OUT(w, s, sw, pl, pr, dw), k), N(k, r, s, (c) / (g))), \
        ROWA(CONV2D_BWD_WEIGHT, note_, \
             LIST(.conv2d_bwd = {CONV_ATTR(sh, sw, pt, pl, pb, pr, dh, dw, g), {k, r, s, (c) / (g)}}), \
             N(n, CONV_OUT(h, r, sh, pt, pb, dh), CONV_OUT(w, s, sw, pl, pr, dw), k), N(n, h, w, c))
/* Square kernel, stride and padding. */
#define CONV_SQUARE(note_, n, h, w, c, k, kernel, g, stride, pad) \
    CONV(note_, n, h, w, c, k, kernel, kernel, g, stride, stride, pad, pad, pad, pad, 1, 1)

/* A linear layer and its two gradients, x [rows,in]. */
#define LINEAR_ROWS(note_, rows, in_, out_) \
    ROW(LINEAR, note_, N(rows, in_), N(out_, in_), N(out_)), ROW(LINEAR_BWD_DATA, note_, N(rows, out_), N(out_, in_)), \
        ROW(LINEAR_BWD_WEIGHT, note_, N(rows, out_), N(rows, in_))

#define LINEAR_ACT(note_, kind_, rows, in_, out_) \
    ROWA(LINEAR_ACT, note_, LIST(.activation = {FV_ACT_##kind_, 0}), N(rows, in_), N(out_, in_), N(out_))

/* The same of act(x). */
#define ACTIVATED_ROWS(note_, kind_, rows, in_, out_) \
    ROWA(ACTIVATED_LINEAR, note_, LIST(.activation = {FV_ACT_##kind_, 0}), OPERAND(FILL_AWAY, rows, in_), \
         N(out_, in_), N(out_)), \
        ROWA(ACTIVATED_LINEAR_BWD_DATA, note_, LIST(.activation = {FV_ACT_##kind_, 0}), N(rows, out_), N(out_, in_), \
             OPERAND(FILL_AWAY, rows, in_)), \
        ROWA(LINEAR_BWD_PARAMS, note_, LIST(.activation = {FV_ACT_##kind_, 0}), N(rows, out_), \
             OPERAND(FILL_AWAY, rows, in_))

/* conv: its attribute; x, w, bias, then the norm's k channels, residual. */
#define NORMED(note_, act_, conv_, x_, w_, bias_, k, residual_) \
    ROWA(NORMED_CONV2D, note_, LIST(.normed_conv2d = {.conv = {conv_}, .norm = {1e-5, FV_ACT_##act_}}), x_, w_, bias_, \
         CONSTANT(FILL_NORMAL, k), CONSTANT(FILL_POSITIVE, k), P(k), N(k), residual_)

#define MATMUL_ATTR(ta, tb) LIST(.matmul = {ta, tb})

#define BN_ATTR(act_) LIST(.batch_norm = {.eps = 1e-5, .act = FV_ACT_##act_})
/* All four batch norms over x = dims, of c channels. */
#define BATCH_NORM_ROWS(note_, act_, c, ...) \
    ROWA(BATCH_NORM, note_, BN_ATTR(act_), N(__VA_ARGS__), P(c), N(c), N(__VA_ARGS__)), \
        ROWA(BATCH_NORM_BWD, note_, BN_ATTR(act_), N(__VA_ARGS__), N(__VA_ARGS__), N(__VA_ARGS__), N(c), P(c), P(c)), \
        ROWA(BATCH_NORM_INFER, note_, BN_ATTR(act_), N(__VA_ARGS__), CONSTANT(FILL_NORMAL, c), \
             CONSTANT(FILL_POSITIVE, c), P(c), N(c), N(__VA_ARGS__)), \
        ROWA(BATCH_NORM_INFER_BWD, note_, BN_ATTR(act_), N(__VA_ARGS__), N(__VA_ARGS__), N(__VA_ARGS__), N(c), P(c), \
             P(c))

/* The same with an activation whose backward needs its input, with all operands. */
#define BATCH_NORM_ACT_ROWS(note_, act_, c, ...) \
    ROWA(BATCH_NORM, note_, BN_ATTR(act_), N(__VA_ARGS__), P(c), N(c), N(__VA_ARGS__)), \
        ROWA(BATCH_NORM_BWD, note_, BN_ATTR(act_), N(__VA_ARGS__), N(__VA_ARGS__), ABSENT, N(c), P(c), P(c), N(c), \
             N(__VA_ARGS__)), \
        ROWA(BATCH_NORM_INFER, note_, BN_ATTR(act_), N(__VA_ARGS__), CONSTANT(FILL_NORMAL, c), \
             CONSTANT(FILL_POSITIVE, c), P(c), N(c), N(__VA_ARGS__)), \
        ROWA(BATCH_NORM_INFER_BWD, note_, BN_ATTR(act_), N(__VA_ARGS__), N(__VA_ARGS__), ABSENT, N(c), P(c), P(c), \
             N(c), N(__VA_ARGS__))

#define NORM_ATTR(groups_) LIST(.norm = {.eps = 1e-5, .groups = groups_})

/* An activation and its slope, on two sizes. */
#define ACTIVATION_ROWS(note_, kind_, alpha_) \
    ROWA(ACTIVATION, note_, LIST(.activation = {FV_ACT_##kind_, alpha_}), OPERAND(FILL_AWAY, 3, 5, 7)), \
        ROWA(ACTIVATION, note_ " large", LIST(.activation = {FV_ACT_##kind_, alpha_}), OPERAND(FILL_AWAY, 5, 4099)), \
        ROWA(ACTIVATION_BWD, note_, LIST(.activation = {FV_ACT_##kind_, alpha_}), N(3, 5, 7), \
             OPERAND(FILL_AWAY, 3, 5, 7)), \
        ROWA(ACTIVATION_BWD, note_ " large", LIST(.activation = {FV_ACT_##kind_, alpha_}), N(5, 4099), \
             OPERAND(FILL_AWAY, 5, 4099))

/* Size of a pooling's result. */
#define POOL_ROOM(in, kernel, before, after) ((in) + (before) + (after) - (kernel))
#define POOL_OUT(in, kernel, stride, before, after, ceil_) \
    (POOL_ROOM(in, kernel, before, after) / (stride) + 1 + \
     ((ceil_) && POOL_ROOM(in, kernel, before, after) % (stride) && \
      (POOL_ROOM(in, kernel, before, after) / (stride) + 1) * (stride) < (in) + (before)))
#define POOL_ATTR(kh, kw, sh, sw, t, l, b, r, ceil_, include) \
    { {kh, kw}, {sh, sw}, {t, l, b, r}, ceil_, include }
#define POOLED(n, h, w, c, kh, kw, sh, sw, t, l, b, r, ceil_) \
    n, POOL_OUT(h, kh, sh, t, b, ceil_), POOL_OUT(w, kw, sw, l, r, ceil_), c
/* Max and average pooling with their gradients. */
#define POOL_ROWS(note_, n, h, w, c, kh, kw, sh, sw, t, l, b, r, ceil_, include) \
    ROWA(MAX_POOL2D, note_, LIST(.pool = POOL_ATTR(kh, kw, sh, sw, t, l, b, r, ceil_, include)), \
         OPERAND(FILL_DISTINCT, n, h, w, c)), \
        ROWA(MAX_POOL2D_BWD, note_, \
             LIST(.pool_bwd = {POOL_ATTR(kh, kw, sh, sw, t, l, b, r, ceil_, include), {n, h, w, c}}), \
             N(POOLED(n, h, w, c, kh, kw, sh, sw, t, l, b, r, ceil_)), \
             {.fill = FILL_PLACE, .type = TYPE(FV_U8, POOLED(n, h, w, c, kh, kw, sh, sw, t, l, b, r, ceil_))}), \
        ROWA(AVG_POOL2D, note_, LIST(.pool = POOL_ATTR(kh, kw, sh, sw, t, l, b, r, ceil_, include)), N(n, h, w, c)), \
        ROWA(AVG_POOL2D_BWD, note_, \
             LIST(.pool_bwd = {POOL_ATTR(kh, kw, sh, sw, t, l, b, r, ceil_, include), {n, h, w, c}}), \
             N(POOLED(n, h, w, c, kh, kw, sh, sw, t, l, b, r, ceil_)))

#define RESIZE_ROWS(note_, mode_, align, n, h, w, c, oh, ow) \
    ROWA(RESIZE, note_, LIST(.resize = {FV_RESIZE_##mode_, align, oh, ow}), N(n, h, w, c)), \
        ROWA(RESIZE_BWD, note_, LIST(.resize = {FV_RESIZE_##mode_, align, h, w}), N(n, oh, ow, c))

#define REDUCE_ROWS(note_, axes, keep, ...) \
    ROWA(SUM, note_, LIST(.reduce = {axes, keep}), N(__VA_ARGS__)), \
        ROWA(MEAN, note_, LIST(.reduce = {axes, keep}), N(__VA_ARGS__))

/* Separate q, k, v, and its gradient. */
#define ATTENTION_ROWS(note_, n, sq, sk, heads_, d, scale_) \
    ROWA(ATTENTION, note_, LIST(.attention = {heads_, scale_}), N(n, sq, (heads_) * (d)), N(n, sk, (heads_) * (d)), \
         N(n, sk, (heads_) * (d))), \
        ROWA(ATTENTION_BWD, note_, LIST(.attention = {heads_, scale_}), N(n, sq, (heads_) * (d)), \
             OPERAND(FILL_ATTEND, n, sq, (heads_) * (d)), OPERAND(FILL_ATTEND, n, heads_, sq), \
             N(n, sq, (heads_) * (d)), N(n, sk, (heads_) * (d)), N(n, sk, (heads_) * (d)))
/* One operand qkv, and its gradient. */
#define ATTENTION_PACKED_ROWS(note_, n, s, heads_, d) \
    ROWA(ATTENTION, note_, LIST(.attention = {heads_, 0}), N(n, s, 3 * (heads_) * (d))), \
        ROWA(ATTENTION_BWD, note_, LIST(.attention = {heads_, 0}), N(n, s, (heads_) * (d)), \
             OPERAND(FILL_ATTEND, n, s, (heads_) * (d)), OPERAND(FILL_ATTEND, n, heads_, s), \
             N(n, s, 3 * (heads_) * (d)))

#define LOSS_ATTR(smoothing, reduction_) LIST(.loss = {smoothing, FV_REDUCE_##reduction_})
#define LOSS_ROWS(op_, note_, smoothing, reduction_, logits, ...) \
    ROWA(op_, note_, LOSS_ATTR(smoothing, reduction_), logits, __VA_ARGS__), \
        ROWA(op_##_BWD, note_, LOSS_ATTR(smoothing, reduction_), SCALAR(FILL_NORMAL), logits, __VA_ARGS__)
#define ROW_WEIGHTS(n) CONSTANT(FILL_WEIGHT, n)

#define RECORDS(n, within) \
    { .fill = FILL_RECORD, .type = TYPE(FV_F32, n, FV_AUG_FIELDS), .limit = (within) }

#define STATS \
    { .fill = FILL_STATS, .type = TYPE(FV_F32, 2) }
#define BAD_STATS \
    { .fill = FILL_INFINITE, .type = TYPE(FV_F32, 2) }

/* ---------------------------------------------------------------- the rows */

/* clang-format off */
const op_row op_rows[] = {
    /*          note                     n  h   w   c   k  kernel g stride pad */
    CONV_SQUARE("1x1",                   2,  4,  4,  3,  5, 1, 1, 1, 0),
    CONV_SQUARE("1x1 tails",             2,  5,  4, 17, 33, 1, 1, 1, 0),
    CONV_SQUARE("1x1 stride 2",          2,  7,  6,  5,  7, 1, 1, 2, 0),
    CONV_SQUARE("3x3 one channel",       2,  5,  5,  1,  3, 3, 1, 1, 1),
    CONV_SQUARE("3x3 one pixel",         1,  1,  1,  3,  2, 3, 1, 1, 1),
    CONV_SQUARE("3x3 tails",             1,  6,  6, 33, 17, 3, 1, 1, 1),
    CONV_SQUARE("3x3 stride 2",          1,  7,  6,  3,  5, 3, 1, 2, 1),
    CONV_SQUARE("3x3 unpadded",          2,  5,  6,  5,  4, 3, 1, 1, 0),
    CONV_SQUARE("3x3 stride 3",          1,  8,  8,  4,  3, 3, 1, 3, 0),
    CONV_SQUARE("5x5 wider than x",      1,  3,  3,  3,  5, 5, 1, 1, 2),
    CONV_SQUARE("7x7 stem",              1, 11, 11,  3,  9, 7, 1, 2, 3),
    CONV_SQUARE("patches",               2,  8,  8,  3, 17, 4, 1, 4, 0),
    CONV_SQUARE("2 groups",              2,  5,  4,  4,  6, 3, 2, 1, 1),
    CONV_SQUARE("3 groups stride 2",     1,  7,  5,  9,  6, 3, 3, 2, 1),
    CONV_SQUARE("depthwise of 16",       2,  6,  5, 16, 16, 3, 16, 2, 1),
    CONV_SQUARE("depthwise",             2,  6,  7,  5,  5, 3, 5, 1, 1),
    CONV_SQUARE("depthwise tails",       1,  5,  5, 33, 33, 3, 33, 1, 1),
    CONV_SQUARE("depthwise stride 2",    1,  7,  6, 17, 17, 5, 17, 2, 2),
    CONV_SQUARE("depthwise doubled",     1,  5,  5,  3,  6, 3, 3, 1, 1),
    CONV_SQUARE("3x3 large",             5, 16, 16, 16, 32, 3, 1, 1, 1),
    CONV_SQUARE("3x3 stride 2 large",    4, 17, 17, 32, 33, 3, 1, 2, 1),
    CONV_SQUARE("1x1 large",             4, 16, 16, 48, 64, 1, 1, 1, 0),
    CONV_SQUARE("1x1 blocks, stride 2",  3, 13, 12, 208, 20, 1, 1, 2, 0),
    CONV_SQUARE("3x3 chunks, stride 2",  4, 21, 20, 40, 24, 3, 1, 2, 1),
    CONV_SQUARE("3x3 stride 2, strips",  1,  9,  9,  9, 288, 3, 1, 2, 1),
    CONV_SQUARE("1x1 long sums",         8, 32, 32,  3,  5, 1, 1, 1, 0),
    CONV_SQUARE("depthwise large",       3, 19, 18, 40, 40, 3, 40, 1, 1),
    /*   note                      n  h  w  c  k  r  s  g  sh sw  t  l  b  r  dh dw */
    CONV("dilated",                1, 9, 8, 3, 4, 3, 3, 1, 1, 1, 2, 2, 2, 2, 2, 2),
    CONV("dilated, grouped",       1, 9, 9, 4, 4, 3, 3, 2, 2, 1, 3, 2, 3, 2, 3, 2),
    CONV("asymmetric padding",     2, 5, 5, 3, 5, 3, 3, 1, 1, 1, 0, 1, 2, 3, 1, 1),
    CONV("everything differs",     1, 8, 9, 3, 5, 3, 2, 1, 2, 1, 0, 1, 2, 0, 1, 2),
    CONV("same padding, stride 2", 1, 8, 8, 3, 4, 3, 3, 1, 2, 2, 0, 0, 1, 1, 1, 1),
    CONV("1x7",                    1, 4, 9, 3, 4, 1, 7, 1, 1, 1, 0, 3, 0, 3, 1, 1),
    ROWA(CONV2D, "no bias", LIST(.conv2d = {.pad = {1, 1, 1, 1}}), N(1, 4, 5, 3), N(4, 3, 3, 3)),

    LINEAR_ROWS("one", 1, 1, 1),
    LINEAR_ROWS("small", 5, 7, 3),
    LINEAR_ROWS("one row", 1, 33, 17),
    LINEAR_ROWS("tails", 17, 33, 5),
    LINEAR_ROWS("large", 130, 257, 96),
    LINEAR_ROWS("classifier", 64, 64, 10),
    LINEAR_ROWS("many rows", 4099, 5, 3),
    LINEAR_ROWS("long rows", 3, 4099, 5),
    ROW(LINEAR, "rank 3, no bias", N(2, 3, 5), N(4, 5)),
    ROW(LINEAR, "rank 4", N(2, 2, 3, 5), N(4, 5), N(4)),
    ROW(LINEAR_BWD_DATA, "rank 3", N(2, 3, 4), N(4, 5)),
    ROW(LINEAR_BWD_WEIGHT, "rank 3", N(2, 3, 4), N(2, 3, 5)),
    ROW(LINEAR_BWD_WEIGHT, "parts and units", N(1043, 20), N(1043, 37)),
    ROW(LINEAR_BWD_WEIGHT, "turned", N(300, 40), N(300, 30)),
    ROW(LINEAR_BWD_WEIGHT, "blocks of rows", N(20, 800), N(20, 16)),
    ROW(LINEAR_BWD_WEIGHT, "blocks of columns", N(270, 12), N(270, 801)),
    ROWA(MATMUL, "plain", MATMUL_ATTR(false, false), N(3, 5), N(5, 4)),
    ROWA(MATMUL, "one", MATMUL_ATTR(false, false), N(1, 1), N(1, 1)),
    ROWA(MATMUL, "a transposed", MATMUL_ATTR(true, false), N(2, 5, 3), N(2, 5, 4)),
    ROWA(MATMUL, "b transposed", MATMUL_ATTR(false, true), N(2, 2, 3, 5), N(2, 2, 4, 5)),
    ROWA(MATMUL, "both transposed", MATMUL_ATTR(true, true), N(3, 5, 3), N(3, 4, 5)),
    ROWA(MATMUL, "tails", MATMUL_ATTR(false, false), N(3, 17, 33), N(3, 33, 5)),
    ROWA(MATMUL, "large", MATMUL_ATTR(false, false), N(2, 65, 130), N(2, 130, 70)),
    ROWA(MATMUL, "large, transposed", MATMUL_ATTR(true, true), N(2, 130, 65), N(2, 70, 130)),

    BATCH_NORM_ROWS("pictures", NONE, 5, 2, 3, 2, 5),
    BATCH_NORM_ROWS("pictures, relu", RELU, 3, 2, 3, 2, 3),
    BATCH_NORM_ROWS("rows of 17", NONE, 17, 4, 17),
    BATCH_NORM_ROWS("one channel, relu", RELU, 1, 9, 1),
    BATCH_NORM_ROWS("tails", NONE, 33, 1, 3, 3, 33),
    BATCH_NORM_ROWS("large, relu", RELU, 16, 8, 8, 8, 16),
    BATCH_NORM_ROWS("fours", NONE, 12, 3, 5, 12),
    BATCH_NORM_ROWS("large tails", NONE, 67, 8, 9, 7, 67),
    BATCH_NORM_ACT_ROWS("gelu", GELU, 5, 2, 3, 2, 5),
    BATCH_NORM_ACT_ROWS("gelu_tanh", GELU_TANH, 3, 2, 3, 2, 3),
    BATCH_NORM_ACT_ROWS("silu", SILU, 17, 4, 17),
    BATCH_NORM_ACT_ROWS("hardswish", HARDSWISH, 1, 9, 1),
    BATCH_NORM_ACT_ROWS("large, gelu", GELU, 16, 8, 8, 8, 16),
    BATCH_NORM_ACT_ROWS("large tails, silu", SILU, 67, 8, 9, 7, 67),
    ROWA(BATCH_NORM, "gelu, beta only", BN_ATTR(GELU), N(3, 2, 2, 3), ABSENT, N(3)),
    ROWA(BATCH_NORM_BWD, "gelu, beta only", BN_ATTR(GELU), N(3, 2, 2, 3), N(3, 2, 2, 3), ABSENT, N(3), P(3), ABSENT,
         N(3)),
    ROWA(BATCH_NORM, "bare", BN_ATTR(NONE), N(3, 2, 2, 3)),
    ROWA(BATCH_NORM, "affine, no residual", BN_ATTR(RELU), N(3, 2, 2, 3), P(3), N(3)),
    ROWA(BATCH_NORM, "gamma only", BN_ATTR(NONE), N(3, 2, 2, 3), P(3), ABSENT),
    ROWA(BATCH_NORM_BWD, "no gamma, no y", BN_ATTR(NONE), N(3, 2, 2, 3), N(3, 2, 2, 3), ABSENT, N(3), P(3)),
    ROWA(BATCH_NORM_INFER, "bare", BN_ATTR(NONE), N(3, 2, 2, 3), CONSTANT(FILL_NORMAL, 3), CONSTANT(FILL_POSITIVE, 3)),
    ROWA(BATCH_NORM_INFER_BWD, "no gamma, no y", BN_ATTR(NONE), N(3, 2, 2, 3), N(3, 2, 2, 3), ABSENT, N(3), P(3)),
    ROWA(LAYER_NORM, "small", NORM_ATTR(0), N(2, 3, 5), P(5), N(5)),
    ROWA(LAYER_NORM, "bare", NORM_ATTR(0), N(4, 7)),
    ROWA(LAYER_NORM, "tails", NORM_ATTR(0), N(3, 33), P(33), N(33)),
    ROWA(LAYER_NORM, "one row", NORM_ATTR(0), N(1, 17), P(17), ABSENT),
    ROWA(LAYER_NORM, "large", NORM_ATTR(0), N(4, 65, 192), P(192), N(192)),
    ROWA(LAYER_NORM_BWD, "small", NORM_ATTR(0), N(2, 3, 5), N(2, 3, 5), N(2, 3), P(2, 3), P(5)),
    ROWA(LAYER_NORM_BWD, "no gamma", NORM_ATTR(0), N(3, 33), N(3, 33), N(3), P(3)),
    ROWA(LAYER_NORM_BWD, "residual", NORM_ATTR(0), N(7, 33), N(7, 33), N(7), P(7), P(33), N(7, 33)),
    ROWA(LAYER_NORM, "tails of rows and columns", NORM_ATTR(0), N(7, 37), P(37), N(37)),
    ROWA(LAYER_NORM_BWD, "residual, no gamma", NORM_ATTR(0), N(2, 3, 64), N(2, 3, 64), N(2, 3), P(2, 3), ABSENT, N(2, 3, 64)),
    ROWA(LAYER_NORM_BWD, "large", NORM_ATTR(0), N(4, 65, 192), N(4, 65, 192), N(4, 65), P(4, 65), P(192)),
    ROWA(GROUP_NORM, "2 groups", NORM_ATTR(2), N(2, 2, 3, 6), P(6), N(6)),
    ROWA(GROUP_NORM, "1 group, bare", NORM_ATTR(1), N(1, 3, 3, 5)),
    ROWA(GROUP_NORM, "groups of one", NORM_ATTR(3), N(2, 5, 3), P(3), N(3)),
    ROWA(GROUP_NORM, "large", NORM_ATTR(8), N(4, 9, 9, 48), P(48), N(48)),
    ROWA(GROUP_NORM_BWD, "2 groups", NORM_ATTR(2), N(2, 2, 3, 6), N(2, 2, 3, 6), N(2, 2), P(2, 2), P(6)),
    ROWA(GROUP_NORM_BWD, "no gamma", NORM_ATTR(1), N(1, 3, 3, 5), N(1, 3, 3, 5), N(1, 1), P(1, 1)),
    ROWA(GROUP_NORM_BWD, "large", NORM_ATTR(8), N(4, 9, 9, 48), N(4, 9, 9, 48), N(4, 8), P(4, 8), P(48)),

    ACTIVATION_ROWS("relu", RELU, 0),
    ACTIVATION_ROWS("relu6", RELU6, 0),
    ACTIVATION_ROWS("leaky relu", LEAKY_RELU, 0.1),
    ACTIVATION_ROWS("gelu", GELU, 0),
    ACTIVATION_ROWS("gelu tanh", GELU_TANH, 0),
    ACTIVATION_ROWS("silu", SILU, 0),
    ACTIVATION_ROWS("hardswish", HARDSWISH, 0),
    ACTIVATION_ROWS("hardsigmoid", HARDSIGMOID, 0),
    ACTIVATION_ROWS("sigmoid", SIGMOID, 0),
    ACTIVATION_ROWS("tanh", TANH, 0),
    ROWA(ACTIVATION, "one element", LIST(.activation = {FV_ACT_GELU, 0}), OPERAND(FILL_AWAY, 1)),
    ROW(ADD, "same shape", N(3, 5, 7), N(3, 5, 7)),
    ROW(ADD, "bias", N(3, 5, 7), N(7)),
    ROW(ADD, "middle", N(2, 1, 4), N(3, 1)),
    ROW(ADD, "large", N(5, 4099), N(5, 4099)),
    ROW(ADD, "large bias", N(300, 65), N(65)),
    ROW(SUB, "same shape", N(4, 9), N(4, 9)),
    ROW(SUB, "scalar", N(4, 9), SCALAR(FILL_NORMAL)),
    ROW(SUB, "both broadcast", N(3, 1, 5), N(1, 4, 1)),
    ROW(MUL, "same shape", N(33), N(33)),
    ROW(MUL, "channels", N(2, 3, 3, 5), N(5)),
    ROW(MUL, "squeeze and excite", N(2, 3, 3, 5), N(2, 1, 1, 5)),
    ROW(MUL, "left is smaller", N(1, 7), N(4, 3, 7)),
    ROW(MUL, "large", N(70, 17, 33), N(70, 1, 33)),
    ROWA(SCALE, "small", LIST(.scale = {-1.5, 0.25}), N(3, 7)),
    ROWA(SCALE, "large", LIST(.scale = {0.5, 0}), N(5, 4099)),

    POOL_ROWS("2x2",            2, 4, 6, 3, 2, 2, 2, 2, 0, 0, 0, 0, false, false),
    POOL_ROWS("3x3 stride 2",   1, 7, 8, 5, 3, 3, 2, 2, 1, 1, 1, 1, false, true),
    POOL_ROWS("ceil",           1, 6, 7, 3, 3, 3, 2, 2, 0, 0, 0, 0, true, false),
    POOL_ROWS("ceil, padded",   1, 6, 5, 2, 3, 2, 2, 2, 1, 1, 1, 1, true, true),
    POOL_ROWS("asymmetric",     2, 5, 5, 1, 3, 2, 1, 2, 2, 0, 1, 1, false, false),
    POOL_ROWS("asymmetric, counted", 2, 5, 5, 1, 3, 2, 1, 2, 2, 0, 1, 1, false, true),
    POOL_ROWS("gaps",           1, 7, 7, 4, 2, 2, 3, 3, 0, 0, 0, 0, false, false),
    POOL_ROWS("whole picture",  2, 3, 4, 17, 3, 4, 3, 4, 0, 0, 0, 0, false, false),
    POOL_ROWS("large",          4, 17, 16, 33, 3, 3, 2, 2, 1, 1, 1, 1, false, false),
    POOL_ROWS("16 channels",    2, 5, 6, 16, 3, 2, 2, 1, 1, 0, 1, 1, false, true),
    RESIZE_ROWS("nearest up", NEAREST, false, 2, 3, 4, 3, 7, 8),
    RESIZE_ROWS("nearest down", NEAREST, false, 1, 7, 5, 5, 3, 2),
    RESIZE_ROWS("bilinear up", BILINEAR, false, 2, 3, 4, 3, 6, 9),
    RESIZE_ROWS("bilinear down", BILINEAR, false, 1, 7, 6, 5, 3, 4),
    RESIZE_ROWS("bilinear from one pixel", BILINEAR, false, 1, 1, 1, 3, 3, 2),
    RESIZE_ROWS("corners aligned", BILINEAR, true, 1, 4, 3, 2, 7, 5),
    RESIZE_ROWS("corners aligned to one", BILINEAR, true, 1, 4, 3, 2, 1, 1),
    RESIZE_ROWS("bilinear large", BILINEAR, false, 3, 14, 14, 33, 28, 27),
    RESIZE_ROWS("16 channels", BILINEAR, false, 2, 3, 4, 16, 5, 3),

    REDUCE_ROWS("last", 1 << 2, false, 2, 3, 5),
    REDUCE_ROWS("first, kept", 1 << 0, true, 4, 3),
    REDUCE_ROWS("middle", 1 << 1, false, 2, 7, 3),
    REDUCE_ROWS("outer two", 1 << 0 | 1 << 2, false, 3, 4, 5),
    REDUCE_ROWS("pictures", 1 << 1 | 1 << 2, false, 2, 3, 4, 17),
    REDUCE_ROWS("bias", 1 << 0 | 1 << 1 | 1 << 2, false, 2, 3, 4, 5),
    REDUCE_ROWS("all", 1 << 0 | 1 << 1, false, 5, 7),
    REDUCE_ROWS("large last", 1 << 1, false, 65, 515),
    REDUCE_ROWS("large first", 1 << 0, false, 1030, 33),
    REDUCE_ROWS("large pictures", 1 << 1 | 1 << 2, false, 5, 16, 15, 33),
    ROWA(BROADCAST, "new leading", LIST(.shape = {3, {2, 3, 5}}), N(5)),
    ROWA(BROADCAST, "middle", LIST(.shape = {3, {2, 4, 3}}), N(2, 1, 3)),
    ROWA(BROADCAST, "scalar", LIST(.shape = {2, {3, 5}}), SCALAR(FILL_NORMAL)),
    ROWA(BROADCAST, "large", LIST(.shape = {3, {65, 17, 33}}), N(65, 1, 33)),
    ROWA(RESHAPE, "flatten", LIST(.shape = {2, {2, -1}}), N(2, 3, 5)),
    ROWA(RESHAPE, "to rank 4", LIST(.shape = {4, {1, 3, 2, 2}}), N(12)),
    ROWA(TRANSPOSE, "matrix", LIST(.transpose = {{1, 0}}), N(3, 5)),
    ROWA(TRANSPOSE, "to channels first", LIST(.transpose = {{0, 3, 1, 2}}), N(2, 3, 4, 5)),
    ROWA(TRANSPOSE, "heads", LIST(.transpose = {{0, 2, 1, 3}}), N(2, 3, 4, 5)),
    ROWA(TRANSPOSE, "rank 6", LIST(.transpose = {{5, 3, 1, 0, 2, 4}}), N(2, 1, 3, 2, 2, 3)),
    ROWA(TRANSPOSE, "large", LIST(.transpose = {{2, 0, 1}}), N(33, 17, 65)),
    ROWA(CONCAT, "channels", LIST(.concat = {3}), N(2, 2, 3, 5), N(2, 2, 3, 1), N(2, 2, 3, 3)),
    ROWA(CONCAT, "first", LIST(.concat = {0}), N(1, 7), N(3, 7)),
    ROWA(CONCAT, "one", LIST(.concat = {1}), N(3, 7)),
    ROWA(CONCAT, "from the end", LIST(.concat = {-2}), N(2, 1, 5), N(2, 6, 5)),
    ROWA(CONCAT, "large", LIST(.concat = {1}), N(33, 1, 65), N(33, 16, 65)),
    ROWA(CONCAT, "rows of 16", LIST(.concat = {1}), N(3, 1, 16), N(3, 4, 16)),
    ROWA(SLICE, "middle", LIST(.slice = {.start = {0, 1, 2}, .size = {2, 2, 3}}), N(2, 4, 7)),
    ROWA(SLICE, "steps", LIST(.slice = {.start = {1, 0}, .size = {3, 3}, .step = {2, 3}}), N(7, 8)),
    ROWA(SLICE, "shortcut A", LIST(.slice = {.size = {1, 3, 3, 5}, .step = {1, 2, 2, 1}}), N(1, 6, 5, 5)),
    ROWA(SLICE, "large", LIST(.slice = {.start = {1, 1, 0}, .size = {32, 16, 65}}), N(33, 17, 65)),
    ROWA(SLICE, "rows of 16", LIST(.slice = {.start = {0, 1, 8}, .size = {3, 2, 16}, .step = {1, 2, 1}}), N(3, 5, 32)),
    ROWA(SLICE_BWD, "middle", LIST(.slice = {.start = {0, 1, 2}, .size = {2, 2, 3}, .full = {2, 4, 7}}), N(2, 2, 3)),
    ROWA(SLICE_BWD, "steps", LIST(.slice = {.start = {1, 0}, .size = {3, 3}, .step = {2, 3}, .full = {7, 8}}), N(3, 3)),
    ROWA(SLICE_BWD, "large", LIST(.slice = {.start = {1, 1, 0}, .size = {32, 16, 65}, .full = {33, 17, 65}}), N(32, 16, 65)),
    ROWA(PAD, "channels", LIST(.pad_nd = {.before = {0, 0, 0, 4}, .after = {0, 0, 0, 4}}), N(2, 3, 3, 5)),
    ROWA(PAD, "picture", LIST(.pad_nd = {.before = {0, 1, 2, 0}, .after = {0, 0, 3, 0}, .value = -2.5}), N(1, 3, 4, 3)),
    ROWA(PAD, "large", LIST(.pad_nd = {.before = {1, 0, 0}, .after = {0, 2, 3}}), N(33, 17, 65)),
    ROWA(CAST, "to the same type", LIST(.cast = {FV_F32}), N(3, 5, 7)), /* others: test_precision.c */

    ROW(SOFTMAX, "small", N(3, 7)),
    ROW(SOFTMAX, "one class", N(4, 1)),
    ROW(SOFTMAX, "rank 3", N(2, 3, 33)),
    ROW(SOFTMAX, "rank 1", N(17)),
    ROW(SOFTMAX, "large", N(70, 1003)),
    ROW(SOFTMAX_BWD, "small", N(3, 7), OPERAND(FILL_ROWS, 3, 7)),
    ROW(SOFTMAX_BWD, "rank 3", N(2, 3, 33), OPERAND(FILL_ROWS, 2, 3, 33)),
    ROW(SOFTMAX_BWD, "large", N(70, 1003), OPERAND(FILL_ROWS, 70, 1003)),
    ATTENTION_ROWS("small", 2, 3, 3, 2, 4, 0),
    ATTENTION_ROWS("more keys than queries", 2, 3, 7, 2, 5, 0.3),
    ATTENTION_ROWS("one query", 1, 1, 5, 3, 3, 0),
    ATTENTION_ROWS("tails", 1, 17, 33, 1, 33, 0),
    ATTENTION_ROWS("large", 2, 66, 130, 3, 64, 0),
    ATTENTION_PACKED_ROWS("packed", 2, 5, 2, 3),
    ATTENTION_PACKED_ROWS("packed, one position", 2, 1, 2, 4),
    ATTENTION_PACKED_ROWS("packed, large", 3, 65, 3, 64),

    ROWA(DROPOUT, "half", LIST(.dropout = {0.5}), N(3, 7), KEYS(3)),
    ROWA(DROPOUT, "tenth", LIST(.dropout = {0.1}), N(2, 5, 5, 3), KEYS(2)),
    ROWA(DROPOUT, "large", LIST(.dropout = {0.25}), N(65, 515), KEYS(65)),
    ROWA(DROPOUT, "rows of 16", LIST(.dropout = {0.3}), N(5, 16), KEYS(5)),
    ROWA(DROP_PATH, "half", LIST(.dropout = {0.5}), N(9, 7), KEYS(9)),
    ROWA(DROP_PATH, "large", LIST(.dropout = {0.2}), N(65, 17, 33), KEYS(65)),
    ROWA(DROP_PATH, "rows of 16", LIST(.dropout = {0.4}), N(9, 3, 16), KEYS(9)),

    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "labels", 0, MEAN, N(5, 7), LABELS(5, 7)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "sum, one class", 0, SUM, N(4, 1), LABELS(4, 1)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "smoothed", 0.1, MEAN, N(5, 10), LABELS(5, 10)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "row weights", 0.1, MEAN, N(5, 10), LABELS(5, 10), ROW_WEIGHTS(5)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "class weights", 0.2, MEAN, N(6, 5), LABELS(6, 5), ABSENT, CONSTANT(FILL_POSITIVE, 5)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "all weights, sum", 0.2, SUM, N(6, 5), LABELS(6, 5), ROW_WEIGHTS(6), CONSTANT(FILL_POSITIVE, 5)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "soft", 0, MEAN, N(3, 5), CONSTANT(FILL_ROWS, 3, 5)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "soft, everything", 0.1, MEAN, N(5, 7), CONSTANT(FILL_ROWS, 5, 7), ROW_WEIGHTS(5), CONSTANT(FILL_POSITIVE, 7)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "one row", 0, MEAN, N(1, 3), LABELS(1, 3)),
    LOSS_ROWS(SOFTMAX_CROSS_ENTROPY, "large", 0.1, MEAN, N(130, 1003), LABELS(130, 1003), ROW_WEIGHTS(130)),
    LOSS_ROWS(BCE_WITH_LOGITS, "plain", 0, MEAN, N(5, 3), CONSTANT(FILL_UNIT, 5, 3)),
    LOSS_ROWS(BCE_WITH_LOGITS, "everything", 0.1, MEAN, N(5, 7), CONSTANT(FILL_UNIT, 5, 7), ROW_WEIGHTS(5), CONSTANT(FILL_POSITIVE, 7)),
    LOSS_ROWS(BCE_WITH_LOGITS, "sum", 0, SUM, N(4, 1), CONSTANT(FILL_UNIT, 4, 1), ABSENT, CONSTANT(FILL_POSITIVE, 1)),
    LOSS_ROWS(BCE_WITH_LOGITS, "large", 0, MEAN, N(130, 203), CONSTANT(FILL_UNIT, 130, 203), ROW_WEIGHTS(130)),
    ROWA(TOPK_CORRECT, "top 1", LIST(.topk = {1}), OPERAND(FILL_DISTINCT, 17, 3), LABELS(17, 3)),
    ROWA(TOPK_CORRECT, "top 5, weights", LIST(.topk = {5}), OPERAND(FILL_DISTINCT, 33, 10), LABELS(33, 10), ROW_WEIGHTS(33)),
    ROWA(TOPK_CORRECT, "large", LIST(.topk = {5}), N(515, 103), LABELS(515, 103)),

    ROWA(AUGMENT, "zero", LIST(.augment = {8, 8, FV_PAD_ZERO}), BYTES(256, 4, 8, 8, 3), RECORDS(4, 4), N(3), P(3)),
    ROWA(AUGMENT, "reflect", LIST(.augment = {8, 8, FV_PAD_REFLECT}), BYTES(256, 4, 8, 8, 3), RECORDS(4, 4), N(3), P(3)),
    ROWA(AUGMENT, "grey, larger", LIST(.augment = {9, 7, FV_PAD_ZERO}), BYTES(256, 3, 5, 6, 1), RECORDS(3, 2), N(1), P(1)),
    ROWA(AUGMENT, "reflect far", LIST(.augment = {9, 7, FV_PAD_REFLECT}), BYTES(256, 3, 3, 1, 5), RECORDS(3, 9), N(5), P(5)),
    ROWA(AUGMENT, "large", LIST(.augment = {32, 32, FV_PAD_REFLECT}), BYTES(256, 33, 32, 32, 3), RECORDS(33, 4), N(3), P(3)),
    ROWA(AUGMENT, "alpha", LIST(.augment = {6, 7, FV_PAD_ZERO}), BYTES(256, 9, 6, 7, 4), RECORDS(9, 3), N(4), P(4)),
    ROWA(AUGMENT, "grey and alpha", LIST(.augment = {7, 5, FV_PAD_REFLECT}), BYTES(256, 9, 6, 6, 2), RECORDS(9, 2), N(2), P(2)),
    ROWA(AUGMENT, "few colours", LIST(.augment = {5, 5, FV_PAD_ZERO}), BYTES(3, 17, 5, 5, 3), RECORDS(17, 1), N(3), P(3)),
    ROWA(AUGMENT, "five channels", LIST(.augment = {4, 4, FV_PAD_ZERO}), BYTES(256, 9, 5, 5, 5), RECORDS(9, 2), N(5), P(5)),

    ROW(ASSIGN, "small", STATE(FILL_NORMAL, 3, 7), N(3, 7)),
    ROW(ASSIGN, "large", STATE(FILL_NORMAL, 5, 4099), N(5, 4099)),
    ROW(ACCUMULATE, "small", STATE(FILL_NORMAL, 3, 7), N(3, 7)),
    ROW(ACCUMULATE, "large", STATE(FILL_NORMAL, 5, 4099), N(5, 4099)),
    ROWA(LERP_ASSIGN, "running variance", LIST(.lerp = {0.1, 1.25}), STATE(FILL_POSITIVE, 17), P(17)),
    ROWA(LERP_ASSIGN, "all of it", LIST(.lerp = {1, 1}), STATE(FILL_POSITIVE, 3), P(3)),
    ROWA(FILL, "small", LIST(.scale = {0, 0.5}), STATE(FILL_NORMAL, 3, 7)),
    ROWA(FILL, "large", LIST(.scale = {0, 0}), STATE(FILL_NORMAL, 5, 4099)),
    {.op = FV_OP_INCREMENT, .note = "counter", .in = {{.fill = FILL_KEY, .type = {.dtype = FV_I64}, .state = true}}},

    ROW(LOSS_SCALE, "scalar", N(1)),
    ROW(LOSS_SCALE, "tensor", N(3, 7)),
    ROW(GRAD_STATS, "one", N(1)),
    ROW(GRAD_STATS, "several", N(3, 7), N(5), N(2, 2, 2, 3)),
    ROW(GRAD_STATS, "large", N(5, 4099), N(33), N(130, 257)),
    ROWA(SGD_UPDATE, "plain", LIST(.update = {.count = 2}), STATS, STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5), N(3, 7), N(5), ABSENT, ABSENT),
    ROWA(SGD_UPDATE, "no stats", LIST(.update = {.count = 1}), ABSENT, STATE(FILL_NORMAL, 3, 7), N(3, 7), ABSENT),
    ROWA(SGD_UPDATE, "momentum, clipped", LIST(.update = {.count = 2, .group = 1, .momentum = 0.9, .clip = 1}), STATS, STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5), N(3, 7), N(5), STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5)),
    ROWA(SGD_UPDATE, "Nesterov, not clipped", LIST(.update = {.count = 1, .momentum = 0.9, .nesterov = true, .clip = 100}), STATS, STATE(FILL_NORMAL, 33), N(33), STATE(FILL_NORMAL, 33)),
    ROWA(SGD_UPDATE, "not finite", LIST(.update = {.count = 1, .momentum = 0.9}), BAD_STATS, STATE(FILL_NORMAL, 33), N(33), STATE(FILL_NORMAL, 33)),
    ROWA(SGD_UPDATE, "large", LIST(.update = {.count = 1, .momentum = 0.9}), ABSENT, STATE(FILL_NORMAL, 5, 4099), N(5, 4099), STATE(FILL_NORMAL, 5, 4099)),
    ROWA(ADAM_UPDATE, "Adam", LIST(.update = {.count = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8}), ABSENT, STATE(FILL_NORMAL, 3, 7), N(3, 7), STATE(FILL_NORMAL, 3, 7), STATE(FILL_POSITIVE, 3, 7)),
    ROWA(ADAM_UPDATE, "AdamW, clipped", LIST(.update = {.count = 2, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6, .clip = 1, .decoupled = true}), STATS, STATE(FILL_NORMAL, 17), STATE(FILL_NORMAL, 5), N(17), N(5), STATE(FILL_NORMAL, 17), STATE(FILL_NORMAL, 5), STATE(FILL_POSITIVE, 17), STATE(FILL_POSITIVE, 5)),
    ROWA(ADAM_UPDATE, "not finite", LIST(.update = {.count = 1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-6}), BAD_STATS, STATE(FILL_NORMAL, 17), N(17), STATE(FILL_NORMAL, 17), STATE(FILL_POSITIVE, 17)),
    ROWA(ADAM_UPDATE, "large", LIST(.update = {.count = 1, .beta1 = 0.9, .beta2 = 0.999, .eps = 1e-8, .decoupled = true}), ABSENT, STATE(FILL_NORMAL, 5, 4099), N(5, 4099), STATE(FILL_NORMAL, 5, 4099), STATE(FILL_POSITIVE, 5, 4099)),
    ROWA(EMA_UPDATE, "two", LIST(.update = {.count = 2}), STATS, STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5), N(3, 7), N(5)),
    ROWA(EMA_UPDATE, "not finite", LIST(.update = {.count = 1}), BAD_STATS, STATE(FILL_NORMAL, 5), N(5)),
    ROWA(MUON_UPDATE, "wide, tall, filters", LIST(.update = {.count = 3, .momentum = 0.6, .nesterov = true, .renormalise = true, .ns_steps = 3, .eps = 1e-7}), STATS, STATE(FILL_NORMAL, 7, 33), STATE(FILL_NORMAL, 17, 5), STATE(FILL_NORMAL, 6, 3, 3, 4), N(7, 33), N(17, 5), N(6, 3, 3, 4), STATE(FILL_NORMAL, 7, 33), STATE(FILL_NORMAL, 17, 5), STATE(FILL_NORMAL, 6, 3, 3, 4)),
    ROWA(MUON_UPDATE, "two sizes", LIST(.update = {.count = 3, .momentum = 0.6, .nesterov = true, .renormalise = true, .ns_steps = 3, .eps = 1e-7}), STATS, STATE(FILL_NORMAL, 7, 33), STATE(FILL_NORMAL, 5, 9), STATE(FILL_NORMAL, 7, 33), N(7, 33), N(5, 9), N(7, 33), STATE(FILL_NORMAL, 7, 33), STATE(FILL_NORMAL, 5, 9), STATE(FILL_NORMAL, 7, 33)),
    ROWA(MUON_UPDATE, "no momentum, clipped", LIST(.update = {.count = 1, .clip = 1, .ns_steps = 1}), STATS, STATE(FILL_NORMAL, 3, 7), N(3, 7), ABSENT),
    ROWA(MUON_UPDATE, "not finite", LIST(.update = {.count = 1, .momentum = 0.9, .ns_steps = 3}), BAD_STATS, STATE(FILL_NORMAL, 3, 7), N(3, 7), STATE(FILL_NORMAL, 3, 7)),
    ROWA(MUON_UPDATE, "large", LIST(.update = {.count = 2, .momentum = 0.9, .ns_steps = 2, .eps = 1e-7}), ABSENT, STATE(FILL_NORMAL, 113, 421), STATE(FILL_NORMAL, 131, 35), N(113, 421), N(131, 35), STATE(FILL_NORMAL, 113, 421), STATE(FILL_NORMAL, 131, 35)),
    ROWA(LOOKAHEAD_UPDATE, "two", LIST(.update = {.count = 2}), STATS, STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5), STATE(FILL_NORMAL, 3, 7), STATE(FILL_NORMAL, 5)),
    ROWA(LOOKAHEAD_UPDATE, "not finite", LIST(.update = {.count = 1}), BAD_STATS, STATE(FILL_NORMAL, 5), STATE(FILL_NORMAL, 5)),
    ROWA(LOOKAHEAD_UPDATE, "large", LIST(.update = {.count = 1}), ABSENT, STATE(FILL_NORMAL, 5, 4099), STATE(FILL_NORMAL, 5, 4099)),
    ROWA(EMA_UPDATE, "large", LIST(.update = {.count = 1}), ABSENT, STATE(FILL_NORMAL, 5, 4099), N(5, 4099)),

    ACTIVATED_ROWS("one", GELU, 1, 1, 1),
    ACTIVATED_ROWS("tails", GELU_TANH, 17, 33, 5),
    ACTIVATED_ROWS("large", GELU, 130, 257, 96),
    ACTIVATED_ROWS("turned, several units", SILU, 600, 40, 30),
    ACTIVATED_ROWS("depth in blocks", HARDSWISH, 70, 1300, 17),
    ACTIVATED_ROWS("depth of the gradient in blocks", GELU, 70, 19, 1300),
    ROWA(ACTIVATED_LINEAR, "rank 3, no bias", LIST(.activation = {FV_ACT_GELU, 0}), N(2, 3, 5), N(4, 5)),
    ROWA(ACTIVATED_LINEAR, "residual", LIST(.activation = {FV_ACT_GELU, 0}), N(2, 70, 33), N(21, 33), N(21), N(2, 70, 21)),
    ROWA(ACTIVATED_LINEAR, "residual, depth in blocks", LIST(.activation = {FV_ACT_SILU, 0}), N(30, 1300), N(17, 1300),
         ABSENT, N(30, 17)),
    ROWA(LINEAR_BWD_PARAMS, "blocks of columns", LIST(.activation = {FV_ACT_GELU, 0}), N(270, 12),
         N(270, 801)),
    ROWA(LINEAR_BWD_PARAMS, "no activation", LIST(.activation = {FV_ACT_NONE, 0}), N(2, 300, 33), N(2, 300, 20)),
    ROWA(LINEAR_BWD_PARAMS, "no activation, turned", LIST(.activation = {FV_ACT_NONE, 0}), N(600, 30), N(600, 40)),
    ROWA(LINEAR_BWD_PARAMS, "no activation, blocks of both", LIST(.activation = {FV_ACT_NONE, 0}), N(300, 801),
         N(300, 833)),

    /* ---- a convolution and its batch norm, by each kernel */
    NORMED("in place, few channels", RELU, LIST(.groups = 1), N(2, 5, 4, 7), N(9, 1, 1, 7), ABSENT, 9, N(2, 5, 4, 9)),
    NORMED("chunks of columns", NONE, LIST(.groups = 1), N(1, 20, 20, 8), N(70, 1, 1, 8), N(70), 70, ABSENT),
    NORMED("strided", GELU, LIST(.stride = {2, 2}, .pad = {1, 1, 1, 1}), N(2, 9, 8, 5), N(19, 3, 3, 5), N(19), 19,
           ABSENT),
    NORMED("bands", RELU, LIST(.pad = {1, 1, 1, 1}), N(1, 40, 40, 3), N(5, 3, 3, 3), ABSENT, 5, N(1, 40, 40, 5)),
    NORMED("groups", SILU, LIST(.pad = {1, 1, 1, 1}, .groups = 2), N(3, 7, 5, 6), N(34, 3, 3, 3), ABSENT, 34,
           N(3, 7, 5, 34)),
    NORMED("few positions", RELU, LIST(.groups = 2), N(1, 4, 4, 64), N(10, 3, 3, 32), ABSENT, 10, N(1, 2, 2, 10)),
    NORMED("Winograd", RELU, LIST(.pad = {1, 1, 1, 1}), N(3, 13, 11, 32), N(36, 3, 3, 32), ABSENT, 36,
           N(3, 13, 11, 36)),
    NORMED("depthwise", HARDSWISH, LIST(.groups = 6), N(2, 5, 5, 6), N(6, 3, 3, 1), ABSENT, 6, N(2, 3, 3, 6)),
    ROWA(NORMED_CONV2D, "bare", LIST(.normed_conv2d = {.norm = {.eps = 1e-5}}), N(1, 4, 5, 3), N(4, 3, 3, 3), ABSENT,
         CONSTANT(FILL_NORMAL, 4), CONSTANT(FILL_POSITIVE, 4)),
    NORMED("residual, several units", RELU, {0}, N(1, 40, 23, 9), N(200, 1, 1, 9), ABSENT, 200, N(1, 40, 23, 200)),
    NORMED("one picture in bands", RELU, LIST(.pad = {1, 1, 1, 1}), N(1, 21, 24, 5), N(16, 3, 3, 5), ABSENT, 16,
           N(1, 21, 24, 16)),
    ROW(LINEAR, "four tiles and a row", N(49, 40), N(50, 40), N(50)),
    ROW(LINEAR_BWD_DATA, "a tile and a row", N(13, 50), N(50, 70)),
    ROWA(CONV2D, "49 places", LIST(.conv2d = {.pad = {1, 1, 1, 1}}), N(1, 7, 7, 10), N(70, 3, 3, 10), N(70)),
    LINEAR_ACT("one", GELU, 1, 1, 1),
    LINEAR_ACT("few rows", SILU, 7, 300, 10),
    LINEAR_ACT("tails", RELU, 17, 33, 5),
    LINEAR_ACT("four tiles and a row", GELU, 49, 40, 50),
    LINEAR_ACT("several units", GELU_TANH, 600, 40, 30),
    LINEAR_ACT("depth in blocks", HARDSWISH, 70, 1300, 17),
    LINEAR_ACT("past the caches", GELU, 8200, 16, 384),
    ROWA(LINEAR_ACT, "residual, few rows", LIST(.activation = {FV_ACT_RELU, 0}), N(7, 300), N(10, 300), N(10), N(7, 10)),
    ROWA(LINEAR_ACT, "residual, tails", LIST(.activation = {FV_ACT_NONE, 0}), N(17, 33), N(5, 33), ABSENT, N(17, 5)),
    ROWA(LINEAR_ACT, "residual, units", LIST(.activation = {FV_ACT_GELU, 0}), N(600, 40), N(50, 40), N(50), N(600, 50)),
    ROWA(LINEAR_ACT, "residual, depth in blocks", LIST(.activation = {FV_ACT_NONE, 0}), N(49, 1300), N(70, 1300), N(70), N(49, 70)),
    ROW(LINEAR, "five rows go along with five tiles", N(65, 40), N(70, 40), N(70)),
    ROW(LINEAR, "three rows with two tiles cannot", N(27, 40), N(70, 40), N(70)),
    ATTENTION_PACKED_ROWS("two keys behind two panels", 2, 66, 2, 20),
    ROWA(LINEAR_ACT, "rank 3, no bias", LIST(.activation = {FV_ACT_GELU, 0}), N(2, 3, 5), N(4, 5)),

    ROW(GATHER, "pictures", BYTES(256, 7, 4, 4, 3), LABELS(5, 7)),
    ROW(GATHER, "odd pictures", BYTES(256, 3, 5, 3, 1), LABELS(9, 3)),
    ROW(GATHER, "large", BYTES(256, 130, 32, 32, 3), LABELS(203, 130)),
    ROW(GATHER, "labels", LABELS(33, 10), LABELS(17, 33)),
    ROW(GATHER, "targets", CONSTANT(FILL_UNIT, 9, 5), LABELS(17, 9)),
    ROW(GATHER, "one row", CONSTANT(FILL_NORMAL, 1, 4099), LABELS(3, 1)),
};
/* clang-format on */

const int op_row_count = sizeof op_rows / sizeof *op_rows;

int op_row_operands(const op_row *row) {
    int n = 0;
    while (n < OP_ROW_OPERANDS && row->in[n].fill != FILL_END) n++;
    return n;
}

/* ---------------------------------------------------------------- numbers */

/* The index-th draw that is at least 0.02 from every kink of the activations. */
static double away_from_kinks(uint64_t seed, uint64_t index, uint32_t stream) {
    static const double kinks[] = {-3, 0, 1, 3, 6};
    for (uint64_t attempt = 0;; attempt++) {
        const double v = 3 * fvt_normal(seed + (attempt << 32), index, stream);
        bool near = false;
        for (size_t k = 0; k < sizeof kinks / sizeof *kinks; k++) near = near || fabs(v - kinks[k]) < 0.02;
        if (!near) return v;
    }
}

static void fill_distinct(uint64_t seed, uint32_t stream, int64_t count, double *values) {
    int64_t *order = fvt_alloc(count, sizeof *order);
    fv_permutation(seed, 0, stream, count, order);
    for (int64_t i = 0; i < count; i++) values[i] = 0.02 * (double)(order[i] - count / 2);
    fvt_free(order);
}

static void fill_rows(uint64_t seed, uint32_t stream, const fv_type *type, double *values) {
    const int64_t count = fv_count(*type), k = type->dim[type->rank - 1];
    for (int64_t row = 0; row < count; row += k) {
        double sum = 0;
        for (int64_t i = 0; i < k; i++) sum += values[row + i] = fvt_uniform(seed, (uint64_t)(row + i), stream);
        for (int64_t i = 0; i < k; i++) values[row + i] /= sum;
    }
}

/* A random place of each window, moved on to the next one that lies in the picture. */
static void fill_places(const op_row *row, uint64_t seed, uint32_t stream, const fv_type *type, double *values) {
    const fv_pool_bwd_attr *a = &row->attr.pool_bwd;
    const int64_t count = fv_count(*type), kh = a->pool.kernel[0], kw = a->pool.kernel[1];
    for (int64_t i = 0; i < count; i++) {
        const int64_t q = i / type->dim[3] % type->dim[2], p = i / type->dim[3] / type->dim[2] % type->dim[1];
        int64_t place = (int64_t)(fvt_uniform(seed, (uint64_t)i, stream) * (double)(kh * kw));
        for (;; place = (place + 1) % (kh * kw)) {
            const int64_t y = p * a->pool.stride[0] - a->pool.pad[0] + place / kw;
            const int64_t x = q * a->pool.stride[1] - a->pool.pad[1] + place % kw;
            if (y >= 0 && y < a->dim[1] && x >= 0 && x < a->dim[2]) break;
        }
        values[i] = (double)place;
    }
}

/* Crops within +-limit, flips, and cut-outs that may hang over the edge; every other cut is filled with noise. Of four
 * pictures three are coloured, by one factor or by all. */
static void fill_records(uint64_t seed, uint32_t stream, int64_t rows, int limit, double *values) {
    for (int64_t i = 0; i < rows * FV_AUG_FIELDS; i++) {
        const double u = fvt_uniform(seed, (uint64_t)i, stream);
        const int64_t row = i / FV_AUG_FIELDS, field = i % FV_AUG_FIELDS;
        switch (field) {
        case FV_AUG_FLIP:
        case FV_AUG_VFLIP: values[i] = u < 0.5; break;
        case FV_AUG_CUT_H:
        case FV_AUG_CUT_W: values[i] = floor(u * (limit + 1)); break;
        case FV_AUG_CUT_NOISE: values[i] = row % 2 ? floor(u * 16777216) : 0; break;
        case FV_AUG_BRIGHTNESS:
        case FV_AUG_CONTRAST:
        case FV_AUG_SATURATION:
        case FV_AUG_HUE:
            values[i] = row % 4 == 3 || (row % 4 == 1 && row / 4 % 4 == field - FV_AUG_BRIGHTNESS) ? 2 * u - 1 : 0;
            if (row % 4 == 2 && field == FV_AUG_HUE) values[i] = u - 0.5;
            break;
        case FV_AUG_RESERVED_1:
        case FV_AUG_RESERVED_2:
        case FV_AUG_RESERVED_3: values[i] = 0; break;
        default: values[i] = floor((2 * u - 1) * (limit + 0.999)); break;
        }
    }
}

static double draw(const op_operand *o, uint64_t seed, uint64_t i, uint32_t stream) {
    switch (o->fill) {
    case FILL_NORMAL: return fvt_normal(seed, i, stream);
    case FILL_POSITIVE: return 0.5 + fvt_uniform(seed, i, stream);
    case FILL_UNIT: return fvt_uniform(seed, i, stream);
    case FILL_AWAY: return away_from_kinks(seed, i, stream);
    case FILL_LABEL:
    case FILL_BYTE: return floor(fvt_uniform(seed, i, stream) * o->limit);
    case FILL_KEY: return floor(fvt_uniform(seed, i, stream) * 1e12);
    case FILL_WEIGHT: return (double)((i + 2) % 3) / 2;
    case FILL_STATS: return i == 0 ? 5 : 1;
    case FILL_INFINITE: return i == 0 ? INFINITY : 0;
    default: return 0;
    }
}

void op_row_fill(const op_row *row, int k, uint64_t seed, double *values) {
    const op_operand *o = &row->in[k];
    const uint32_t stream = (uint32_t)(row->op * OP_ROW_OPERANDS + k);
    const int64_t count = fv_count(o->type);
    switch (o->fill) {
    case FILL_DISTINCT: fill_distinct(seed, stream, count, values); break;
    case FILL_ROWS: fill_rows(seed, stream, &o->type, values); break;
    case FILL_PLACE: fill_places(row, seed, stream, &o->type, values); break;
    case FILL_RECORD: fill_records(seed, stream, o->type.dim[0], o->limit, values); break;
    case FILL_ATTEND: break;
    default:
        for (int64_t i = 0; i < count; i++) values[i] = draw(o, seed, (uint64_t)i, stream);
    }
    if (o->type.dtype == FV_F32)
        for (int64_t i = 0; i < count; i++) values[i] = (float)values[i];
}
