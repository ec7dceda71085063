/* augment.c: images u8 [n,h,w,c] and a record per image -> [n,out_h,out_w,c]: crop, flip, normalise, cut out.
 * Normalising is a table lookup, so that values are those of the formula in double. */
#include "core/cpu/kernels/tile.h"

typedef struct augment_args {
    const uint8_t *images;
    const float *record;
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

static void put_pixel(const augment_args *a, float *y, const uint8_t *x) {
    for (int64_t k = 0; k < a->c; k++) y[k] = a->table[k * 256 + (x ? x[k] : 0)];
}

/* Output row p of image n. */
static void augment_row(const augment_args *a, int64_t n, int64_t p, const int64_t *field) {
    const int64_t cut_left = field[FV_AUG_CUT_LEFT], cut_right = cut_left + field[FV_AUG_CUT_W];
    const bool cut_row = p >= field[FV_AUG_CUT_TOP] && p < field[FV_AUG_CUT_TOP] + field[FV_AUG_CUT_H];
    int64_t i = field[FV_AUG_TOP] + p;
    if (a->reflect) i = reflect(i, a->h);
    const uint8_t *row = i >= 0 && i < a->h ? a->images + (n * a->h + i) * a->w * a->c : NULL;
    float *y = a->y + (n * a->oh + p) * a->ow * a->c;
    for (int64_t q = 0; q < a->ow; q++, y += a->c) {
        int64_t j = field[FV_AUG_LEFT] + (field[FV_AUG_FLIP] ? a->ow - 1 - q : q);
        if (a->reflect) j = reflect(j, a->w);
        if (cut_row && q >= cut_left && q < cut_right) memset(y, 0, (size_t)a->c * sizeof *y);
        else put_pixel(a, y, row && j >= 0 && j < a->w ? row + j * a->c : NULL);
    }
}

static void augment_tile(void *arg, int64_t n, int thread) {
    const augment_args *a = arg;
    int64_t field[FV_AUG_FIELDS];
    (void)thread;
    for (int f = 0; f < FV_AUG_FIELDS; f++) field[f] = (int64_t)a->record[n * FV_AUG_FIELDS + f];
    for (int64_t p = 0; p < a->oh; p++) augment_row(a, n, p, field);
}

void CPU(augment)(const fv_call *c) {
    const int64_t *in = c->in[0].type.dim, *out = c->out[0].type.dim;
    const float *mean = c->in[2].data, *std = c->in[3].data;
    float *table = c->workspace;
    for (int64_t k = 0; k < in[3]; k++)
        for (int raw = 0; raw < 256; raw++) table[k * 256 + raw] = (float)((raw / 255.0 - mean[k]) / std[k]);
    augment_args a = {.images = c->in[0].data,
                      .record = c->in[1].data,
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
