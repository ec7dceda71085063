/* conv.h: convolution as matrix products over windows of pictures, without im2col.
 *
 * A "pass" computes positions of an output grid from a source picture. Along one axis (h or w) position j reads, at tap
 * t, source  j * source_step + tap_first + t * tap_step       (zero outside 0 .. source) with the weight of kernel
 * index  weight_first + t * weight_step,  and is written to result  j * result_step + result_first. Forward is one
 * pass. The gradient of the data is one pass (phase) per residue of the result modulo the stride: within a phase the
 * taps that hit lie on a grid, so strides cost nothing. Taps are counted by rising source place.
 *
 * Work is cut into units: `images` whole pictures, or a band of rows of one. For each unit a window of the source, zero
 * padded, is copied into the thread's scratch (in the second-level cache), `block` channels at a time; where no padding
 * is needed the source is read in place. */
#ifndef FV_CORE_CPU_KERNELS_CONV_H
#define FV_CORE_CPU_KERNELS_CONV_H

#include "core/cpu/kernels/gemm.h"

typedef struct fv_conv_shape {
    int64_t n, h, w, c;                     /* x */
    int64_t k, r, s;                        /* kernel; its depth is c / groups */
    int64_t oh, ow;                         /* y: [n,oh,ow,k] */
    int64_t stride[2], dilation[2], pad[2]; /* h, w; pad before */
    int64_t groups;
    const fv_finish *finish;       /* of the results of a forward convolution; or NULL */
    const fv_activation_attr *act; /* of the results of a linear layer; or NULL */
    const float *residual;         /* like y, added to them before; or NULL */
    bool pairs;                    /* x or dy, and w, are bf16, which row_gemm and panel_gemm take in pairs */
} fv_conv_shape;

fv_conv_shape CPU(conv_shape)(fv_type x, fv_type w, fv_type y, const fv_conv2d_attr *attr);
/* A linear layer, x [...,in], w [out,in], as a 1x1 convolution of pictures of one pixel. */
fv_conv_shape CPU(linear_shape)(fv_type x, fv_type w);

typedef struct fv_conv_axis {
    int64_t source, source_step;
    int64_t taps, tap_first, tap_step;
    int64_t weight_first, weight_step;
    int64_t count, result_first, result_step;
} fv_conv_axis;

fv_conv_axis CPU(conv_forward_axis)(const fv_conv_shape *s, int axis);
/* Phase 0 <= phase < stride of the gradient with respect to x. taps may be 0: the result is then zero. */
fv_conv_axis CPU(conv_data_axis)(const fv_conv_shape *s, int axis, int64_t phase);

typedef enum fv_conv_kind { FV_CONV_FORWARD, FV_CONV_DATA } fv_conv_kind;
FV_INLINE int64_t fv_conv_phases(const fv_conv_shape *s, fv_conv_kind kind, int axis) {
    return kind == FV_CONV_FORWARD ? 1 : s->stride[axis];
}
FV_INLINE fv_conv_axis fv_conv_phase(const fv_conv_shape *s, fv_conv_kind kind, int axis, int64_t phase) {
    return kind == FV_CONV_FORWARD ? CPU(conv_forward_axis)(s, axis) : CPU(conv_data_axis)(s, axis, phase);
}
/* The axis that spans all phases: its taps are every source place from the first to the last. *max_taps: of a phase. */
fv_conv_axis CPU(conv_span_axis)(const fv_conv_shape *s, fv_conv_kind kind, int axis, int64_t *max_taps);

/* Cut of a batch of pictures into units, and the source window of a unit. */
typedef struct fv_conv_units {
    int64_t images, band;       /* pictures, rows of positions per unit; images > 1 only with whole pictures */
    int64_t image_units, bands; /* units along the batch and along h */
    int64_t first[2];           /* window's first source place, relative to that of the unit's first position */
    int64_t window[2];          /* its extent */
} fv_conv_units;

/* Choose units so that a window of `channels` channels fits `budget` floats and a unit has about `rows` positions; for
 * the sake of at least `units` units fewer, but not below 128. */
fv_conv_units CPU(conv_cut)(const fv_conv_axis *h, const fv_conv_axis *w, int64_t n, int64_t units, int64_t channels,
                            int64_t budget, int64_t rows);

/* Copy a window: images pictures of `window` pixels from (row, col) of x [n,h,w,c], channels c0 .. c0 + channels, into
 * dst [images, window[0], window[1], pitch], zeros outside the picture. */
typedef struct fv_conv_window {
    const float *x;
    int64_t h, w, c;
    int64_t image, images, row, col, window[2];
    int64_t c0, channels, pitch;
} fv_conv_window;
void CPU(conv_copy_window)(const fv_conv_window *win, float *dst);

/* Lines of the rows of pictures that the window lies on, all channels: a run for fv_ahead. */
int64_t CPU(conv_window_lines)(const fv_conv_window *win, const char **at);

size_t CPU(conv_gemm_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads);
/* Whether the result may be bf16: sums of pairs that stay in registers until they are complete. */
bool CPU(conv_gemm_rounds)(const fv_conv_shape *s, fv_conv_kind kind);
/* Forward with packed weights that are kept (backend.h: prepared); 0 where packing is a small part of the work. */
size_t CPU(conv_gemm_prepared)(const fv_conv_shape *s, int threads, size_t *workspace);
/* For linear layers, with c->attr->activation. FORWARD: of act(source), saved NULL. DATA: the result is multiplied by
 * act'(saved), and may lie over saved. */
size_t CPU(activated_gemm_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads);
void CPU(activated_gemm)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                         const float *weight, const float *bias, const float *saved, float *result);
/* FORWARD: source x, result y. DATA: source dy, result dx, bias NULL. */
void CPU(conv_gemm)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                    const float *weight, const float *bias, float *result);

/* Forward without packing the weights, for few positions and many weights. */
bool CPU(conv_few_fits)(const fv_conv_shape *s);
size_t CPU(conv_few_workspace)(const fv_conv_shape *s);
void CPU(conv_few)(const fv_call *c, const fv_conv_shape *s, const float *x, const float *weight, const float *bias,
                   float *y);

size_t CPU(conv_weight_workspace)(const fv_conv_shape *s, int threads);
void CPU(conv_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw);

/* The same for 1x1 kernels without padding, and linear layers. */
typedef struct fv_point_weight {
    const fv_activation_attr *act; /* the gradient is that of weights of act(x); or NULL */
    const float *dy, *x;
    float *dw;
    float *dbias; /* [k]: dy summed over its rows, not of pairs; or NULL */
} fv_point_weight;
bool CPU(conv_point_weight_fits)(const fv_conv_shape *s);
size_t CPU(conv_point_weight_workspace)(const fv_conv_shape *s, int threads, bool activated, bool biased);
void CPU(conv_point_weight)(const fv_call *c, const fv_conv_shape *s, const fv_point_weight *g);

/* 3x3, stride 1, by Winograd's filtering: where it fits, is the faster, and the device does not ask for direct sums.
 * kept: the weights are packed or transformed already. */
bool CPU(winograd_fits)(const fv_conv_shape *s, const fv_device *dev, bool kept);
size_t CPU(winograd_workspace)(const fv_conv_shape *s, fv_conv_kind kind, int threads);
size_t CPU(winograd_prepared)(const fv_conv_shape *s, int threads, size_t *workspace); /* as conv_gemm_prepared */
void CPU(winograd)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                   const float *weight, const float *bias, float *result);
size_t CPU(winograd_weight_workspace)(const fv_conv_shape *s, int threads);
void CPU(winograd_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw);

/* groups == channels, one output channel each. */
FV_INLINE bool fv_conv_is_depthwise(const fv_conv_shape *s) {
    return s->groups > 1 && s->groups == s->c && s->k == s->c;
}
size_t CPU(depthwise_workspace)(const fv_conv_shape *s, fv_op op, int threads);
/* FORWARD: source x, result y. DATA: source dy, result dx, bias NULL. */
void CPU(depthwise)(const fv_call *c, const fv_conv_shape *s, fv_conv_kind kind, const float *source,
                    const float *weight, const float *bias, float *result);
void CPU(depthwise_weight)(const fv_call *c, const fv_conv_shape *s, const float *dy, const float *x, float *dw);

size_t CPU(matmul_workspace)(fv_type a, fv_type y, const fv_matmul_attr *attr, int threads);
/* packed: q is qkv and k is not used. */
size_t CPU(attention_workspace)(fv_type q, fv_type k, bool packed, const fv_attention_attr *attr, bool backward,
                                int threads);

#endif
