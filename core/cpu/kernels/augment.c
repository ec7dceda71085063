/* augment.c: images u8 [n,h,w,c] and a record per image -> [n,out_h,out_w,c]: crop, flip, colour, normalise, cut out.
 * A plain picture is a table lookup per value, so that values are those of the formula in double. A coloured one is
 * computed in double, in two passes: its mean grey, then its pixels in blocks. A picture is a tile. */
#include "core/cpu/kernels/tile.h"

typedef struct augment_args {
    const uint8_t *images;
    const float *record, *mean, *std;
    const float *table; /* [c][256]: (raw / 255 - mean) / std */
    float *y;
    int64_t n, h, w, c, oh, ow;
    bool reflect;
} augment_args;

/* Reflect without repeating the edge: for n = 4, ... 2 1 | 0 1 2 3 | 2 1 0 ... */
static int64_t reflect(int64_t i, int64_t n) {
    if (n == 1) return 0;
    const int64_t period = 2 * (n - 1);
    i = (i % period + period) % period;
    return i < n ? i : period - i;
}

/* ---------------------------------------------------------------- where pixels come from and what replaces them */

/* The row of image n that output row p shows; NULL outside the image. */
static const uint8_t *source_row(const augment_args *a, int64_t n, int64_t p, const int64_t *field) {
    int64_t i = field[FV_AUG_TOP] + (field[FV_AUG_VFLIP] ? a->oh - 1 - p : p);
    if (a->reflect) i = reflect(i, a->h);
    return i >= 0 && i < a->h ? a->images + (n * a->h + i) * a->w * a->c : NULL;
}

/* The pixel of that row in output column q; NULL outside the image. */
static const uint8_t *source_pixel(const augment_args *a, const uint8_t *row, int64_t q, const int64_t *field) {
    int64_t j = field[FV_AUG_LEFT] + (field[FV_AUG_FLIP] ? a->ow - 1 - q : q);
    if (a->reflect) j = reflect(j, a->w);
    return row && j >= 0 && j < a->w ? row + j * a->c : NULL;
}

/* The columns of row p that are cut; begin = end = 0 if none are. */
static fv_range cut_columns(const augment_args *a, int64_t p, const int64_t *field) {
    const int64_t top = field[FV_AUG_CUT_TOP], left = fv_max64(field[FV_AUG_CUT_LEFT], 0);
    const int64_t right = fv_min64(field[FV_AUG_CUT_LEFT] + field[FV_AUG_CUT_W], a->ow);
    if (p < top || p >= top + field[FV_AUG_CUT_H] || left >= right) return (fv_range){0, 0};
    return (fv_range){left, right};
}

/* Zeros, or noise that depends on the key and on the place in the picture alone. y: row p */
static void fill_cut(const augment_args *a, int64_t p, fv_range cut, const int64_t *field, float *y) {
    const int64_t begin = cut.begin * a->c, end = cut.end * a->c, first = p * a->ow * a->c;
    if (!field[FV_AUG_CUT_NOISE]) memset(y + begin, 0, (size_t)(end - begin) * sizeof *y);
    else
        for (int64_t e = begin; e < end; e++) {
            const fv_philox words = fv_random((uint64_t)field[FV_AUG_CUT_NOISE], (uint64_t)(first + e), 0, 0, 0);
            y[e] = (float)fv_normal(words.v[0], words.v[1]);
        }
}

/* ---------------------------------------------------------------- plain pictures */

FV_INLINE void put_pixel(const augment_args *a, float *y, const uint8_t *x, int64_t channels) {
    for (int64_t k = 0; k < channels; k++) y[k] = a->table[k * 256 + x[k]];
}

/* Output column q of a row that shows `row`, outside the image or not. */
static void put_any(const augment_args *a, const uint8_t *row, int64_t q, const int64_t *field, float *y) {
    const uint8_t *x = source_pixel(a, row, q, field);
    for (int64_t k = 0; k < a->c; k++) y[k] = a->table[k * 256 + (x ? x[k] : 0)];
}

/* Output columns [begin, end) of a row that shows `row`. */
static void plain_columns(const augment_args *a, const uint8_t *row, int64_t begin, int64_t end, const int64_t *field,
                          float *y) {
    const int64_t c = a->c, flip = field[FV_AUG_FLIP], step = flip ? -c : c;
    const int64_t first = field[FV_AUG_LEFT] + (flip ? a->ow - 1 : 0); /* the source column of output column 0 */
    const int64_t from = flip ? first - (a->w - 1) : -first;           /* output columns [from, from + w) are inside */
    int64_t q = begin, in = fv_min64(end, fv_max64(begin, from)), out = fv_max64(in, fv_min64(end, from + a->w));
    if (!row) in = out = end;
    for (; q < in; q++) put_any(a, row, q, field, y + q * c);
    const uint8_t *x = q < out ? row + first * c + q * step : NULL;
    if (c == 3)
        for (; q < out; q++, x += step) put_pixel(a, y + q * 3, x, 3);
    else
        for (; q < out; q++, x += step) put_pixel(a, y + q * c, x, c);
    for (; q < end; q++) put_any(a, row, q, field, y + q * c);
}

static void plain_picture(const augment_args *a, int64_t n, const int64_t *field) {
    for (int64_t p = 0; p < a->oh; p++) {
        const uint8_t *row = source_row(a, n, p, field);
        const fv_range cut = cut_columns(a, p, field);
        float *y = a->y + (n * a->oh + p) * a->ow * a->c;
        plain_columns(a, row, 0, cut.begin, field, y);
        fill_cut(a, p, cut, field, y);
        plain_columns(a, row, cut.end, a->ow, field, y);
    }
}

/* ---------------------------------------------------------------- coloured pictures */

typedef struct colouring {
    double bright[256], contrasted[256]; /* raw byte -> [0,1] after brightness; after contrast, too */
    double saturation, sixths;           /* sixths of a turn of hue, [0,6) */
    int64_t colours;                     /* channels without the alpha channel of 2 or 4 */
} colouring;

FV_INLINE double clamp01(double x) {
    return x < 0.0 ? 0.0 : x > 1.0 ? 1.0 : x;
}
FV_INLINE double luma(double r, double g, double b) {
    return 0.299 * r + 0.587 * g + 0.114 * b;
}

/* Mean over the picture, after brightness. */
static double mean_grey(const augment_args *a, int64_t n, const int64_t *field, const colouring *c) {
    double sum = 0;
    for (int64_t p = 0; p < a->oh; p++) {
        const uint8_t *row = source_row(a, n, p, field);
        for (int64_t q = 0; q < a->ow; q++) {
            const uint8_t *x = source_pixel(a, row, q, field);
            double grey = 0;
            if (!x) continue; /* raw 0 stays 0 */
            if (c->colours == 3) grey = luma(c->bright[x[0]], c->bright[x[1]], c->bright[x[2]]);
            else
                for (int64_t k = 0; k < c->colours; k++) grey += c->bright[x[k]] / (double)c->colours;
            sum += grey;
        }
    }
    return sum / (double)(a->oh * a->ow);
}

#define BLOCK 32 /* pixels that are coloured side by side */
typedef double block[3][BLOCK];

/* Hue on by `sixths` of a turn, 0 to 6, with value and saturation as they are. A colour of hue h has in channel
 * n = 5, 3, 1 the value  most - range * max(0, min(k, 4 - k, 1)),  k = (n + h) mod 6. Selects, not branches. */
static void turn_hue(block x, double sixths) {
    for (int i = 0; i < BLOCK; i++) {
        const double r = x[0][i], g = x[1][i], b = x[2][i];
        const double more = r > g ? r : g, less = r > g ? g : r, most = more > b ? more : b;
        const double range = most - (less < b ? less : b), divisor = range > 0 ? range : 1; /* grey stays as it is */
        const double from_g = most == g ? 2 + (b - r) / divisor : 4 + (r - g) / divisor;
        const double h = sixths + (most == r ? (g - b) / divisor : from_g); /* -1 to 11 */
        for (int k = 0; k < 3; k++) {
            double n = 5 - 2 * k + h;
            n = n >= 12 ? n - 12 : n;
            n = n >= 6 ? n - 6 : n;
            x[k][i] = most - range * clamp01(n < 2 ? n : 4 - n);
        }
    }
}

static void saturate(block x, double saturation) {
    for (int i = 0; i < BLOCK; i++) {
        const double grey = luma(x[0][i], x[1][i], x[2][i]);
        for (int k = 0; k < 3; k++) x[k][i] = clamp01(grey + (x[k][i] - grey) * saturation);
    }
}

/* Pixels [q, q + n) of a row that shows `row`, n <= BLOCK; three colours and perhaps alpha. */
static void put_block(const augment_args *a, const colouring *c, const uint8_t *row, int64_t q, int64_t n,
                      const int64_t *field, float *y) {
    const uint8_t black[4] = {0}, *raw[BLOCK];
    block x = {{0}};
    for (int64_t i = 0; i < n; i++) {
        raw[i] = source_pixel(a, row, q + i, field);
        if (!raw[i]) raw[i] = black;
        for (int k = 0; k < 3; k++) x[k][i] = c->contrasted[raw[i][k]];
    }
    if (c->saturation != 1) saturate(x, c->saturation);
    if (c->sixths != 0) turn_hue(x, c->sixths);
    for (int64_t i = 0; i < n; i++) {
        float *to = y + (q + i) * a->c;
        for (int k = 0; k < 3; k++) to[k] = (float)((x[k][i] - a->mean[k]) / a->std[k]);
        if (a->c == 4) to[3] = a->table[3 * 256 + raw[i][3]];
    }
}

/* One colour channel, or many: each by itself. */
static void put_channels(const augment_args *a, const colouring *c, const uint8_t *raw, float *y) {
    for (int64_t k = 0; k < c->colours; k++) y[k] = (float)((c->contrasted[raw ? raw[k] : 0] - a->mean[k]) / a->std[k]);
    for (int64_t k = c->colours; k < a->c; k++) y[k] = a->table[k * 256 + (raw ? raw[k] : 0)];
}

static void coloured_columns(const augment_args *a, const colouring *c, const uint8_t *row, int64_t begin, int64_t end,
                             const int64_t *field, float *y) {
    if (c->colours == 3)
        for (int64_t q = begin; q < end; q += BLOCK) put_block(a, c, row, q, fv_min64(BLOCK, end - q), field, y);
    else
        for (int64_t q = begin; q < end; q++) put_channels(a, c, source_pixel(a, row, q, field), y + q * a->c);
}

static void coloured_picture(const augment_args *a, int64_t n, const int64_t *field) {
    const float *record = a->record + n * FV_AUG_FIELDS;
    colouring c = {.saturation = 1.0 + record[FV_AUG_SATURATION],
                   .sixths = 6.0 * (record[FV_AUG_HUE] - floor((double)record[FV_AUG_HUE])),
                   .colours = a->c == 2 || a->c == 4 ? a->c - 1 : a->c};
    for (int raw = 0; raw < 256; raw++) c.bright[raw] = clamp01(raw / 255.0 * (1.0 + record[FV_AUG_BRIGHTNESS]));
    const double contrast = 1.0 + record[FV_AUG_CONTRAST], grey = contrast != 1 ? mean_grey(a, n, field, &c) : 0;
    for (int raw = 0; raw < 256; raw++) c.contrasted[raw] = clamp01((c.bright[raw] - grey) * contrast + grey);
    for (int64_t p = 0; p < a->oh; p++) {
        const uint8_t *row = source_row(a, n, p, field);
        const fv_range cut = cut_columns(a, p, field);
        float *y = a->y + (n * a->oh + p) * a->ow * a->c;
        coloured_columns(a, &c, row, 0, cut.begin, field, y);
        fill_cut(a, p, cut, field, y);
        coloured_columns(a, &c, row, cut.end, a->ow, field, y);
    }
}

/* ---------------------------------------------------------------- the kernel */

static void augment_tile(void *arg, int64_t n, int thread) {
    const augment_args *a = arg;
    const float *record = a->record + n * FV_AUG_FIELDS;
    int64_t field[FV_AUG_FIELDS];
    (void)thread;
    for (int f = 0; f < FV_AUG_FIELDS; f++) field[f] = (int64_t)record[f];
    if (record[FV_AUG_BRIGHTNESS] != 0 || record[FV_AUG_CONTRAST] != 0 || record[FV_AUG_SATURATION] != 0 ||
        record[FV_AUG_HUE] != 0)
        coloured_picture(a, n, field);
    else plain_picture(a, n, field);
}

void CPU(augment)(const fv_call *c) {
    const int64_t *in = c->in[0].type.dim, *out = c->out[0].type.dim;
    const float *mean = c->in[2].data, *std = c->in[3].data;
    float *table = c->workspace;
    for (int64_t k = 0; k < in[3]; k++)
        for (int raw = 0; raw < 256; raw++) table[k * 256 + raw] = (float)((raw / 255.0 - mean[k]) / std[k]);
    augment_args a = {.images = c->in[0].data,
                      .record = c->in[1].data,
                      .mean = mean,
                      .std = std,
                      .table = table,
                      .y = c->out[0].data,
                      .n = in[0],
                      .h = in[1],
                      .w = in[2],
                      .c = in[3],
                      .oh = out[1],
                      .ow = out[2],
                      .reflect = c->attr->augment.pad_mode == FV_PAD_REFLECT};
    fv_pool_run(c->pool, a.n, augment_tile, &a);
}

size_t CPU(augment_workspace)(const fv_graph *g, const fv_node *node) {
    if (node->op != FV_OP_AUGMENT) return 0;
    return (size_t)fv_dim(g, g->operands[node->first_operand], -1) * 256 * sizeof(float);
}

/* ---------------------------------------------------------------- gather: elements of any type */

typedef struct gather_args {
    const fv_call *call;
    const char *table;
    const int32_t *index;
    char *y;
    int64_t n, rows, tile; /* tile: results of one */
    size_t bytes;          /* of a row */
} gather_args;

static void gather_tile(void *arg, int64_t tile, int thread) {
    const gather_args *a = arg;
    const fv_range r = fv_tile_range(a->n, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++) {
        char *y = a->y + (size_t)i * a->bytes;
        if (a->index[i] >= 0 && a->index[i] < a->rows) {
            memcpy(y, a->table + (size_t)a->index[i] * a->bytes, a->bytes);
            continue;
        }
        fv_kernel_fault(a->call, FV_E_DATA, "index %d of row %lld is outside [0, %lld)", (int)a->index[i], (long long)i,
                        (long long)a->rows);
        memset(y, 0, a->bytes);
    }
}

void CPU(gather)(const fv_call *c) {
    gather_args a = {.call = c,
                     .table = c->in[0].data,
                     .index = c->in[1].data,
                     .y = c->out[0].data,
                     .n = c->in[1].type.dim[0],
                     .rows = c->in[0].type.dim[0]};
    a.bytes = fv_bytes(c->in[0].type) / (size_t)a.rows;
    a.tile = fv_ceil_div(FV_TILE * (int64_t)sizeof(float), (int64_t)a.bytes);
    fv_pool_run(c->pool, fv_ceil_div(a.n, a.tile), gather_tile, &a);
}
