/* conv.c: geometry of convolutions and the padded copy of a window (conv.h). */
#include "core/cpu/kernels/conv.h"

enum { EVEN_UNITS = 16 }; /* more units than these are a multiple, so that few threads get as much each */

static int64_t or_one(int64_t v) {
    return v > 0 ? v : 1;
}

fv_conv_shape CPU(conv_shape)(fv_type x, fv_type w, fv_type y, const fv_conv2d_attr *attr) {
    return (fv_conv_shape){
        .n = x.dim[0],
        .h = x.dim[1],
        .w = x.dim[2],
        .c = x.dim[3],
        .k = w.dim[0],
        .r = w.dim[1],
        .s = w.dim[2],
        .oh = y.dim[1],
        .ow = y.dim[2],
        .stride = {or_one(attr->stride[0]), or_one(attr->stride[1])},
        .dilation = {or_one(attr->dilation[0]), or_one(attr->dilation[1])},
        .pad = {attr->pad[0], attr->pad[1]},
        .groups = or_one(attr->groups),
        .pairs = fv_is_low(x.dtype) || fv_is_low(y.dtype),
    };
}

fv_conv_shape CPU(linear_shape)(fv_type x, fv_type w) {
    return (fv_conv_shape){.n = fv_rows(&x),
                           .h = 1,
                           .w = 1,
                           .c = w.dim[1],
                           .k = w.dim[0],
                           .r = 1,
                           .s = 1,
                           .oh = 1,
                           .ow = 1,
                           .stride = {1, 1},
                           .dilation = {1, 1},
                           .groups = 1,
                           .pairs = fv_is_low(x.dtype) || fv_is_low(w.dtype)};
}

fv_conv_axis CPU(conv_forward_axis)(const fv_conv_shape *s, int axis) {
    return (fv_conv_axis){
        .source = axis ? s->w : s->h,
        .source_step = s->stride[axis],
        .taps = axis ? s->s : s->r,
        .tap_first = -s->pad[axis],
        .tap_step = s->dilation[axis],
        .weight_first = 0,
        .weight_step = 1,
        .count = axis ? s->ow : s->oh,
        .result_first = 0,
        .result_step = 1,
    };
}

static int64_t gcd(int64_t a, int64_t b) {
    return b ? gcd(b, a % b) : a;
}

fv_conv_axis CPU(conv_data_axis)(const fv_conv_shape *s, int axis, int64_t phase) {
    const int64_t stride = s->stride[axis], dilation = s->dilation[axis], kernel = axis ? s->s : s->r;
    const int64_t size = axis ? s->w : s->h, place = phase + s->pad[axis];
    const int64_t g = gcd(stride, dilation), every = stride / g; /* kernel indices that hit are `every` apart */
    fv_conv_axis a = {
        .source = axis ? s->ow : s->oh,
        .source_step = 1,
        .tap_step = dilation / g,
        .count = size > phase ? (size - phase + stride - 1) / stride : 0,
        .result_first = phase,
        .result_step = stride,
    };
    int64_t first = 0;
    while (first < every && first < kernel && (place - first * dilation) % stride != 0) first++;
    if (first == every || first == kernel) return a;
    a.taps = (kernel - 1 - first) / every + 1;
    a.weight_first = first + (a.taps - 1) * every; /* the last hit reads the first source place */
    a.weight_step = -every;
    a.tap_first = (place - a.weight_first * dilation) / stride;
    return a;
}

fv_conv_axis CPU(conv_span_axis)(const fv_conv_shape *s, fv_conv_kind kind, int axis, int64_t *max_taps) {
    fv_conv_axis all = fv_conv_phase(s, kind, axis, 0);
    int64_t first = INT64_MAX, last = INT64_MIN;
    *max_taps = 0;
    for (int64_t p = 0; p < fv_conv_phases(s, kind, axis); p++) {
        fv_conv_axis a = fv_conv_phase(s, kind, axis, p);
        if (a.taps == 0) continue;
        first = fv_min64(first, a.tap_first);
        last = fv_max64(last, a.tap_first + (a.taps - 1) * a.tap_step);
        *max_taps = fv_max64(*max_taps, a.taps);
    }
    all.taps = *max_taps ? last - first + 1 : 0;
    all.tap_first = *max_taps ? first : 0;
    all.tap_step = 1;
    return all;
}

fv_conv_units CPU(conv_cut)(const fv_conv_axis *h, const fv_conv_axis *w, int64_t n, int64_t units, int64_t channels,
                            int64_t budget, int64_t rows) {
    const int64_t extent_h = h->taps ? (h->taps - 1) * h->tap_step + 1 : 0;
    const int64_t extent_w = w->taps ? (w->taps - 1) * w->tap_step + 1 : 0;
    fv_conv_units u = {.images = 1, .first = {h->tap_first, w->tap_first}};
    u.window[1] = (w->count - 1) * w->source_step + extent_w;
    const int64_t row_floats = fv_max64(1, u.window[1] * channels);
    const int64_t whole = (h->count - 1) * h->source_step + extent_h;
    const int64_t positions = fv_max64(1, h->count * w->count);
    if (whole * row_floats <= budget && positions <= 2 * rows) {
        int64_t fit = budget / fv_max64(1, whole * row_floats), wish = rows / positions;
        int64_t spread = fv_max64(n / units, fv_ceil_div(128, positions));
        u.images = fv_max64(1, fv_min64(fv_min64(fit, wish), fv_min64(spread, n)));
        int64_t count = fv_ceil_div(n, u.images);
        if (count > EVEN_UNITS) count = fv_ceil_div(count, EVEN_UNITS) * EVEN_UNITS;
        u.images = fv_ceil_div(n, fv_max64(1, count));
        if (positions == 1 && u.images > FV_MR) u.images = fv_ceil_div(u.images, FV_MR) * FV_MR; /* whole tiles */
        u.band = fv_max64(1, h->count);
    } else {
        int64_t fit = (budget / row_floats - extent_h) / h->source_step + 1;
        int64_t wish = fv_max64(1, rows / fv_max64(1, w->count));
        u.band = fv_max64(1, fv_min64(fv_min64(fit, wish), h->count));
        u.band = fv_ceil_div(h->count, fv_ceil_div(h->count, u.band)); /* even bands */
    }
    u.window[0] = (u.band - 1) * h->source_step + extent_h;
    u.bands = fv_max64(1, fv_ceil_div(h->count, u.band));
    u.image_units = fv_ceil_div(n, u.images);
    return u;
}

static void copy_floats(float *dst, const float *src, int64_t n) {
    int64_t i = 0;
    for (; i + FV_VL <= n; i += FV_VL) vf_store(dst + i, vf_load(src + i));
    for (; i < n; i++) dst[i] = src[i];
}

static void copy_pixels(float *dst, const fv_conv_window *win, int64_t from, int64_t pixels) {
    const float *src = win->x + from + win->c0;
    if (win->channels == win->c && win->pitch == win->c) {
        copy_floats(dst, src, pixels * win->c);
        return;
    }
    for (int64_t p = 0; p < pixels; p++) copy_floats(dst + p * win->pitch, src + p * win->c, win->channels);
}

void CPU(conv_copy_window)(const fv_conv_window *win, float *dst) {
    const int64_t wide = win->window[1] * win->pitch;
    const int64_t left = fv_min64(fv_max64(0, -win->col), win->window[1]); /* zero columns before and after */
    const int64_t end = fv_max64(left, fv_min64(win->window[1], win->w - win->col));
    if (win->row == 0 && win->col == 0 && win->window[0] == win->h && win->window[1] == win->w) {
        const int64_t pixels = win->h * win->w;
        copy_pixels(dst, win, win->image * pixels * win->c, win->images * pixels);
        return;
    }
    for (int64_t i = 0; i < win->images; i++) {
        for (int64_t r = 0; r < win->window[0]; r++, dst += wide) {
            int64_t row = win->row + r;
            if (row < 0 || row >= win->h) {
                memset(dst, 0, (size_t)wide * sizeof *dst);
                continue;
            }
            memset(dst, 0, (size_t)(left * win->pitch) * sizeof *dst);
            if (left < end) {
                const int64_t col = win->col + left;
                copy_pixels(dst + left * win->pitch, win, (((win->image + i) * win->h + row) * win->w + col) * win->c,
                            end - left);
            }
            memset(dst + end * win->pitch, 0, (size_t)((win->window[1] - end) * win->pitch) * sizeof *dst);
        }
    }
}

int64_t CPU(conv_window_lines)(const fv_conv_window *win, const char **at) {
    const int64_t row0 = fv_max64(0, win->row), row1 = fv_min64(win->h, win->row + win->window[0]);
    const int64_t rows = fv_max64(0, row1 - row0 + (win->images - 1) * win->h);
    *at = (const char *)(win->x + (win->image * win->h + row0) * win->w * win->c);
    return rows * win->w * win->c * (int64_t)sizeof *win->x / 64;
}
