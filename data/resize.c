/* resize.c: the resampling of Pillow's Image.resize: a filter that widens with the step when shrinking, along the rows
 * first, then along the columns, with 8-bit pixels in between. Weights are whole numbers of 22 bits of fraction and
 * sums are exact, so that every processor gives the same pixels, and those are Pillow's. (Pillow 13 takes the columns
 * first where the height shrinks much more than the width.) */
#include "data/image.h"

#include <math.h>
#include <string.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define LANES 4 /* the first pass computes so many values at a time */
#define BITS 22 /* of the weights: 255 times their sum, which may overshoot 1, stays below 2^31 */
#define HALF (1 << (BITS - 1))
#define LOW_BITS 11  /* of them in the low half: both halves fit into 16 bits */
#define ROW_SPARE 32 /* bytes behind the source rows that the first pass may read, weighed 0 */

/* ---------------------------------------------------------------- weights */

static double bilinear(double x) {
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double bicubic(double x) { /* Keys 1981, a = -0.5 */
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static int support_of(fv_filter filter) { /* pixels on either side */
    return filter == FV_FILTER_BICUBIC ? 2 : 1;
}

/* Memory for `out` outputs of at most `taps` weights. */
static fv_status axis_reserve(fv_ctx *ctx, fv_resize_axis *a, size_t out, size_t taps) {
    FV_TRY(fv_image_reserve(ctx, &a->memory, 2 * out * sizeof *a->first + 2 * out * taps * sizeof *a->weight));
    a->first = a->memory.data;
    a->count = a->first + out;
    a->weight = (int16_t *)(a->count + out);
    return FV_OK;
}

/* The weights of output i before rounding, adding up to 1; returns how many. */
static int32_t exact_weights(fv_resize_axis *a, int32_t i, double *w) {
    double (*const filter)(double) = a->filter == FV_FILTER_BICUBIC ? bicubic : bilinear;
    const double scale = a->length / a->out, widen = scale < 1 ? 1 : scale;
    const double support = support_of(a->filter) * widen, centre = a->start + (i + 0.5) * scale;
    const int32_t first = (int32_t)fmax(centre - support + 0.5, 0), end = (int32_t)fmin(centre + support + 0.5, a->in);
    double sum = 0;
    for (int32_t k = 0; k < end - first; k++) sum += w[k] = filter((first + k - centre + 0.5) * (1 / widen));
    for (int32_t k = 0; k < end - first; k++) w[k] /= sum;
    a->first[i] = first;
    return end - first;
}

/* Rounded, in two halves: of taps k and k + 1 first both high ones, then both low ones. to: [taps/2,4] */
static void split_weights(const double *exact, int32_t count, int32_t taps, int16_t *to) {
    for (int32_t k = 0; k < taps; k++) {
        int32_t w = k < count ? (int32_t)lround(exact[k] * (1 << BITS)) : 0;
        int16_t *pair = to + (size_t)(k / 2) * 4 + (size_t)(k % 2);
        pair[0] = (int16_t)(w >> LOW_BITS);
        pair[2] = (int16_t)(w & ((1 << LOW_BITS) - 1));
    }
}

/* Whether an axis was made for the same; it is kept for pictures to come. */
static bool same_axis(const fv_resize_axis *a, const fv_resize_axis *b) {
    return a->in == b->in && a->out == b->out && a->start == b->start && a->length == b->length &&
           a->filter == b->filter;
}

/* Of `in` pixels those from `start` on, `length` of them, become `out`. */
static fv_status axis_prepare(fv_ctx *ctx, fv_resizer *r, fv_resize_axis *a, int32_t in, int32_t out, double start,
                              double length, fv_filter filter) {
    const float from = (float)start, to = (float)(start + length); /* Pillow's box is of floats */
    const fv_resize_axis want = {.in = in, .out = out, .start = from, .length = to - from, .filter = filter};
    if (a->first && same_axis(a, &want)) return FV_OK;
    const double scale = want.length / want.out;
    const int32_t taps = 2 * (int32_t)ceil(support_of(want.filter) * (scale < 1 ? 1 : scale)) + 2;
    a->first = NULL; /* not to be found again, should this fail */
    FV_TRY(fv_image_reserve(ctx, &r->exact, (size_t)taps * sizeof(double)));
    FV_TRY(axis_reserve(ctx, a, (size_t)want.out, (size_t)taps));
    a->in = want.in;
    a->out = want.out;
    a->start = want.start;
    a->length = want.length;
    a->filter = want.filter;
    a->taps = taps;
    for (int32_t i = 0; i < want.out; i++) {
        int32_t count = exact_weights(a, i, r->exact.data);
        a->count[i] = count + (count & 1);
        split_weights(r->exact.data, count, a->count[i], a->weight + 2 * (size_t)i * (size_t)taps);
    }
    return FV_OK;
}

/* ---------------------------------------------------------------- the inner loops */

static uint8_t clip(int32_t v) {
    return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
}

static const int16_t *weights_of(const fv_resize_axis *a, int32_t i) {
    return a->weight + 2 * (size_t)i * (size_t)a->taps;
}

static int32_t weight(const int16_t *w, int32_t k) {
    const int16_t *pair = w + (size_t)(k / 2) * 4 + (size_t)(k % 2);
    return pair[0] * (1 << LOW_BITS) + pair[2];
}

/* Along a row: pixels of LANES bytes, `step` bytes apart, to pixels of LANES bytes. */
static void across_plain(const fv_resize_axis *a, const uint8_t *row, size_t step, uint8_t *out) {
    for (int32_t i = 0; i < a->out; i++, out += LANES) {
        const uint8_t *p = row + (size_t)a->first[i] * step;
        int32_t sum[LANES] = {HALF, HALF, HALF, HALF};
        for (int32_t k = 0; k < a->count[i]; k++, p += step)
            for (int l = 0; l < LANES; l++) sum[l] += weight(weights_of(a, i), k) * p[l];
        for (int l = 0; l < LANES; l++) out[l] = clip(sum[l] >> BITS);
    }
}

/* Down the columns: output [bytes] out of `count` rows, `stride` bytes apart. */
static void down_plain(const int16_t *w, int32_t count, const uint8_t *rows, size_t stride, uint8_t *out, size_t from,
                       size_t bytes) {
    for (size_t i = from; i < bytes; i++) {
        int32_t sum = HALF;
        for (int32_t k = 0; k < count; k++) sum += weight(w, k) * rows[(size_t)k * stride + i];
        out[i] = clip(sum >> BITS);
    }
}

#if defined(__SSE2__)
/* Two weights side by side in each 32 bits, as the multiply-and-add of pairs takes them. */
static __m128i weight_pair(const int16_t *w) {
    int32_t pair;
    memcpy(&pair, w, sizeof pair);
    return _mm_set1_epi32(pair);
}

static __m128i load4(const uint8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm_cvtsi32_si128(v);
}

/* Both halves of a sum, rounded to pixels. */
static __m128i join(__m128i high, __m128i low) {
    __m128i sum = _mm_add_epi32(_mm_add_epi32(_mm_slli_epi32(high, LOW_BITS), low), _mm_set1_epi32(HALF));
    return _mm_srai_epi32(sum, BITS);
}

static void across_sse2(const fv_resize_axis *a, const uint8_t *row, size_t step, uint8_t *out) {
    const __m128i zero = _mm_setzero_si128();
    for (int32_t i = 0; i < a->out; i++, out += LANES) {
        const uint8_t *p = row + (size_t)a->first[i] * step;
        const int16_t *w = weights_of(a, i);
        __m128i high = zero, low = zero;
        for (int32_t k = 0; k < a->count[i]; k += 2, p += 2 * step, w += 4) {
            __m128i bytes = _mm_unpacklo_epi8(load4(p), load4(p + step)); /* p0 q0 p1 q1 p2 q2 p3 q3 */
            __m128i pairs = _mm_unpacklo_epi8(bytes, zero);
            high = _mm_add_epi32(high, _mm_madd_epi16(pairs, weight_pair(w)));
            low = _mm_add_epi32(low, _mm_madd_epi16(pairs, weight_pair(w + 2)));
        }
        __m128i four = _mm_packs_epi32(join(high, low), zero);
        int32_t packed = _mm_cvtsi128_si32(_mm_packus_epi16(four, zero));
        memcpy(out, &packed, sizeof packed);
    }
}

/* 8 bytes at a time; returns how many were done. */
static size_t down_sse2(const int16_t *weights, int32_t count, const uint8_t *rows, size_t stride, uint8_t *out,
                        size_t bytes) {
    const __m128i zero = _mm_setzero_si128();
    size_t i = 0;
    for (; i + 8 <= bytes; i += 8) {
        const int16_t *w = weights;
        __m128i high0 = zero, high1 = zero, low0 = zero, low1 = zero;
        for (int32_t k = 0; k < count; k += 2, w += 4) {
            const uint8_t *p = rows + (size_t)k * stride + i;
            const uint8_t *q = k + 1 < count ? p + stride : p; /* there may be no row more; its weight is 0 */
            __m128i both = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)p), _mm_loadl_epi64((const __m128i *)q));
            __m128i first = _mm_unpacklo_epi8(both, zero), second = _mm_unpackhi_epi8(both, zero);
            __m128i high = weight_pair(w), low = weight_pair(w + 2);
            high0 = _mm_add_epi32(high0, _mm_madd_epi16(first, high));
            low0 = _mm_add_epi32(low0, _mm_madd_epi16(first, low));
            high1 = _mm_add_epi32(high1, _mm_madd_epi16(second, high));
            low1 = _mm_add_epi32(low1, _mm_madd_epi16(second, low));
        }
        __m128i eight = _mm_packs_epi32(join(high0, low0), join(high1, low1));
        _mm_storel_epi64((__m128i *)(out + i), _mm_packus_epi16(eight, eight));
    }
    return i;
}
#endif

static void across(bool plain, const fv_resize_axis *a, const uint8_t *row, size_t step, uint8_t *out) {
#if defined(__SSE2__)
    if (!plain) {
        across_sse2(a, row, step, out);
        return;
    }
#endif
    (void)plain;
    across_plain(a, row, step, out);
}

static void down(bool plain, const int16_t *w, int32_t count, const uint8_t *rows, size_t stride, uint8_t *out,
                 size_t bytes) {
    size_t done = 0;
#if defined(__SSE2__)
    if (!plain) done = down_sse2(w, count, rows, stride, out, bytes);
#endif
    (void)plain;
    down_plain(w, count, rows, stride, out, done, bytes);
}

/* ---------------------------------------------------------------- alpha: colours are averaged as they are seen */

static uint8_t times(int colour, int alpha) {
    int t = colour * alpha + 128;
    return (uint8_t)((t + (t >> 8)) >> 8);
}

/* c: 2 or 4, the last channel is alpha */
static void premultiply(uint8_t *p, size_t pixels, int32_t c) {
    for (size_t i = 0; i < pixels; i++, p += c)
        for (int32_t k = 0; k < c - 1; k++) p[k] = times(p[k], p[c - 1]);
}

static void unpremultiply(uint8_t *p, size_t pixels, int32_t c) {
    for (size_t i = 0; i < pixels; i++, p += c)
        for (int32_t k = 0; k < c - 1 && p[c - 1] != 0; k++) p[k] = clip(255 * p[k] / p[c - 1]);
}

/* ---------------------------------------------------------------- the two passes */

/* Source rows as the first pass wants them: one of 3 or 4 channels, or several of fewer with their pixels side by side,
 * 4 bytes in all. rows: how many there are, of LANES / c. */
static void lay_rows(const fv_image *src, int32_t y, int32_t rows, uint8_t *to) {
    const size_t w = (size_t)src->w, c = (size_t)src->c;
    const uint8_t *from = src->pixels + (size_t)y * w * c;
    if (c >= 3) {
        memcpy(to, from, w * c);
        if (c == 4) premultiply(to, w, 4);
        return;
    }
    for (int32_t r = 0; r < LANES / src->c; r++) {
        const uint8_t *p = from + (size_t)(r < rows ? r : rows - 1) * w * c;
        if (c == 1)
            for (size_t x = 0; x < w; x++) to[LANES * x + (size_t)r] = p[x];
        else
            for (size_t x = 0; x < w; x++) {
                to[LANES * x + 2 * (size_t)r] = times(p[2 * x], p[2 * x + 1]);
                to[LANES * x + 2 * (size_t)r + 1] = p[2 * x + 1];
            }
    }
}

/* What the first pass gave, LANES bytes for each output, into rows of c channels. */
static void spread_rows(const uint8_t *from, int32_t w, int32_t c, int32_t rows, uint8_t *to) {
    const size_t n = (size_t)w;
    if (c == 4) memcpy(to, from, n * 4);
    else if (c == 3)
        for (size_t x = 0; x < n; x++)
            for (size_t k = 0; k < 3; k++) to[3 * x + k] = from[LANES * x + k];
    else
        for (int32_t r = 0; r < rows; r++)
            for (size_t x = 0; x < n; x++)
                for (size_t k = 0; k < (size_t)c; k++)
                    to[((size_t)r * n + x) * (size_t)c + k] = from[LANES * x + (size_t)(r * c) + k];
}

/* Rows [top, top + rows) of src, resized along the row: [rows,a->out,c]. */
static fv_status pass_across(fv_ctx *ctx, fv_resizer *r, const fv_resize_axis *a, const fv_image *src, int32_t top,
                             int32_t rows, uint8_t *to) {
    const int32_t group = src->c >= 3 ? 1 : LANES / src->c;
    const size_t step = src->c == 3 ? 3 : LANES, laid = (size_t)src->w * step + ROW_SPARE;
    FV_TRY(fv_image_reserve(ctx, &r->row, laid + (size_t)a->out * LANES));
    uint8_t *row = r->row.data, *result = row + laid;
    memset(row + laid - ROW_SPARE, 0, ROW_SPARE);
    for (int32_t y = 0; y < rows; y += group) {
        int32_t n = rows - y < group ? rows - y : group;
        lay_rows(src, top + y, n, row);
        across(r->plain, a, row, step, result);
        spread_rows(result, a->out, src->c, n, to + (size_t)y * (size_t)a->out * (size_t)src->c);
    }
    return FV_OK;
}

/* rows: those of the source from `top` to `end`, of `stride` bytes. */
static void pass_down(const fv_resizer *r, const fv_resize_axis *a, const uint8_t *rows, int32_t top, int32_t end,
                      size_t stride, uint8_t *dst) {
    for (int32_t i = 0; i < a->out; i++) {
        int32_t left = end - a->first[i];
        int32_t count = a->count[i] < left ? a->count[i] : left; /* without the row that made it even, if need be */
        down(r->plain, weights_of(a, i), count, rows + (size_t)(a->first[i] - top) * stride, stride,
             dst + (size_t)i * stride, stride);
    }
}

static fv_status check(fv_ctx *ctx, const fv_image *src, const fv_box *box, int32_t out_h, int32_t out_w) {
    const double spare = 1e-6; /* what adding two sides may be off by */
    if (src->c < 1 || src->c > 4) return fv_fail(ctx, FV_E_USAGE, "a picture of %d channels", src->c);
    if (out_h < 1 || out_w < 1 || out_h > FV_IMAGE_MOST_SIDE || out_w > FV_IMAGE_MOST_SIDE)
        return fv_fail(ctx, FV_E_USAGE, "a picture cannot be resized to %d x %d", out_w, out_h);
    if (box->top >= 0 && box->left >= 0 && box->h > 0 && box->w > 0 && box->top + box->h <= src->h + spare &&
        box->left + box->w <= src->w + spare)
        return FV_OK;
    return fv_fail(ctx, FV_E_USAGE, "a box of %g x %g at column %g, row %g does not lie in a picture of %d x %d",
                   box->w, box->h, box->left, box->top, src->w, src->h);
}

/* Outputs [from, from + n) of an axis; borrows its memory. */
static fv_resize_axis axis_part(const fv_resize_axis *a, int32_t from, int32_t n) {
    fv_resize_axis part = *a;
    part.out = n;
    part.first += from;
    part.count += from;
    part.weight += 2 * (size_t)from * (size_t)a->taps;
    return part;
}

static void copy_window(const fv_image *src, int32_t top, int32_t left, int32_t h, int32_t w, uint8_t *dst) {
    const size_t c = (size_t)src->c, stride = (size_t)w * c;
    for (int32_t y = 0; y < h; y++)
        memcpy(dst + (size_t)y * stride, src->pixels + ((size_t)(top + y) * (size_t)src->w + (size_t)left) * c, stride);
}

/* An axis that is as it shall be is left out, but for a window of it: there all weights are 0 or 1. */
fv_status fv_image_resize_window(fv_decoder *d, const fv_image *src, fv_box box, fv_filter filter, int32_t full_h,
                                 int32_t full_w, int32_t top, int32_t left, int32_t h, int32_t w, uint8_t *dst) {
    fv_resizer *r = &d->resizer;
    FV_TRY(check(d->ctx, src, &box, full_h, full_w));
    if (top < 0 || left < 0 || h < 1 || w < 1 || h > full_h - top || w > full_w - left)
        return fv_fail(d->ctx, FV_E_USAGE, "no window of %d x %d at column %d, row %d in a picture of %d x %d", w, h,
                       left, top, full_w, full_h);
    const bool alpha = src->c == 2 || src->c == 4;
    bool wide = full_w != src->w || box.left != 0 || box.w != src->w;
    bool high = full_h != src->h || box.top != 0 || box.h != src->h;
    if (!wide && !high) {
        copy_window(src, top, left, h, w, dst);
        return FV_OK;
    }
    wide = wide || w != full_w || alpha; /* the first pass multiplies by alpha */
    high = high || h != full_h;
    const size_t stride = (size_t)w * (size_t)src->c;
    if (wide) FV_TRY(axis_prepare(d->ctx, r, &r->across, src->w, full_w, box.left, box.w, filter));
    if (high) FV_TRY(axis_prepare(d->ctx, r, &r->down, src->h, full_h, box.top, box.h, filter));
    int32_t first = 0, end = src->h; /* rows of the source that are needed */
    fv_resize_axis rows_of = {0};
    if (high) {
        rows_of = axis_part(&r->down, top, h);
        first = rows_of.first[0];
        end = rows_of.first[h - 1] + rows_of.count[h - 1];
    }
    if (end > src->h) end = src->h;
    const uint8_t *rows = src->pixels + (size_t)first * stride; /* when the rows are as wide as they shall be */
    if (wide) {
        uint8_t *to = dst;
        if (high) {
            FV_TRY(fv_image_reserve(d->ctx, &r->middle, (size_t)(end - first) * stride));
            rows = to = r->middle.data;
        }
        const fv_resize_axis columns_of = axis_part(&r->across, left, w);
        FV_TRY(pass_across(d->ctx, r, &columns_of, src, first, end - first, to));
    }
    if (high) pass_down(r, &rows_of, rows, first, end, stride, dst);
    if (alpha) unpremultiply(dst, (size_t)h * (size_t)w, src->c);
    return FV_OK;
}

fv_status fv_image_resize(fv_decoder *d, const fv_image *src, fv_box box, fv_filter filter, int32_t out_h,
                          int32_t out_w, uint8_t *dst) {
    return fv_image_resize_window(d, src, box, filter, out_h, out_w, 0, 0, out_h, out_w, dst);
}

void fv_resizer_free(fv_ctx *ctx, fv_resizer *r) {
    fv_resize_axis *axis[] = {&r->across, &r->down};
    for (int i = 0; i < 2; i++) {
        fv_image_release(ctx, &axis[i]->memory);
        *axis[i] = (fv_resize_axis){0};
    }
    fv_image_release(ctx, &r->exact);
    fv_image_release(ctx, &r->row);
    fv_image_release(ctx, &r->middle);
}
