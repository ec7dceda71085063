/* shape.c: operations that move elements: reshape, transpose, concat, slice, pad. The build for bf16 serves f16, too.
 */
#include "core/cpu/kernels/tile.h"

/* ---------------------------------------------------------------- plain copies */

typedef struct copy_args {
    const fv_elem *x;
    fv_elem *y;
    int64_t count;
} copy_args;

static void copy_tile(void *arg, int64_t tile, int thread) {
    const copy_args *a = arg;
    fv_range r = fv_tile_range(a->count, FV_TILE, tile);
    (void)thread;
    memcpy(a->y + r.begin, a->x + r.begin, (size_t)(r.end - r.begin) * sizeof *a->y);
}

void CPU(reshape)(const fv_call *c) {
    copy_args a = {c->in[0].data, c->out[0].data, fv_count(c->out[0].type)};
    if (a.x != a.y) fv_pool_run(c->pool, fv_ceil_div(a.count, FV_TILE), copy_tile, &a);
}

/* ---------------------------------------------------------------- cast: any of float, bf16 and f16 to any */

static void cast_tile(void *arg, int64_t tile, int thread) {
    fv_convert_tile(arg, tile, thread);
}

void CPU(cast)(const fv_call *c) {
    fv_convert_args a = {.x = c->in[0].data,
                         .y = c->out[0].data,
                         .from = c->in[0].type.dtype,
                         .to = c->out[0].type.dtype,
                         .count = fv_count(c->out[0].type)};
    fv_pool_run(c->pool, fv_ceil_div(a.count, FV_TILE), cast_tile, &a);
}

/* ---------------------------------------------------------------- transpose
 * Dimensions of size 1 are dropped, and neighbours that stay together are merged. If the last dimension then stays the
 * last, rows are copied. Else it swaps with the dimension d that is the last one of x, in blocks of EDGE x EDGE. */

#define EDGE 32

typedef struct transpose_args {
    const fv_elem *x;
    fv_elem *y;
    int rank;
    int64_t dim[FV_MAX_RANK];    /* of y */
    int64_t from[FV_MAX_RANK];   /* stride of each of them in x */
    int64_t stride[FV_MAX_RANK]; /* and in y */
    int d;                       /* the dimension of y with stride 1 in x */
    int64_t strips;              /* strips of EDGE along d; tiles are (all other dimensions but the last) x strips */
} transpose_args;

static transpose_args transpose_of(const fv_call *c) {
    const fv_type *x = &c->in[0].type;
    const int32_t *perm = c->attr->transpose.perm;
    transpose_args a = {.x = c->in[0].data, .y = c->out[0].data};
    int64_t x_stride[FV_MAX_RANK] = {0}, s = 1;
    for (int i = x->rank - 1; i >= 0; s *= x->dim[i--]) x_stride[i] = s;
    for (int i = 0; i < x->rank; i++) {
        const int64_t dim = x->dim[perm[i]], from = x_stride[perm[i]];
        const int last = a.rank - 1;
        if (dim == 1) continue;
        if (last >= 0 && a.from[last] == from * dim) {
            a.dim[last] *= dim;
            a.from[last] = from;
            continue;
        }
        a.dim[a.rank] = dim;
        a.from[a.rank++] = from;
    }
    if (a.rank == 0) a = (transpose_args){.x = a.x, .y = a.y, .rank = 1, .dim = {1}, .from = {1}};
    s = 1;
    for (int i = a.rank - 1; i >= 0; s *= a.dim[i--]) {
        a.stride[i] = s;
        if (a.from[i] == 1) a.d = i;
    }
    a.strips = fv_ceil_div(a.dim[a.d], EDGE);
    return a;
}

static void transpose_tile(void *arg, int64_t tile, int thread) {
    const transpose_args *a = arg;
    const int last = a->rank - 1;
    fv_range strip = fv_tile_range(a->dim[a->d], EDGE, tile % a->strips);
    int64_t rest = tile / a->strips, from = strip.begin, to = strip.begin * a->stride[a->d];
    (void)thread;
    for (int i = last - 1; i >= 0; i--) {
        if (i == a->d) continue;
        from += rest % a->dim[i] * a->from[i];
        to += rest % a->dim[i] * a->stride[i];
        rest /= a->dim[i];
    }
    for (int64_t block = 0; block < a->dim[last]; block += EDGE) {
        const int64_t end = fv_min64(a->dim[last], block + EDGE);
        for (int64_t i = 0; i < strip.end - strip.begin; i++) {
            const fv_elem *x = a->x + from + i;
            fv_elem *y = a->y + to + i * a->stride[a->d];
            for (int64_t j = block; j < end; j++) y[j] = x[j * a->from[last]];
        }
    }
}

/* The last dimension stays: a tile is one row. */
static void rows_tile(void *arg, int64_t row, int thread) {
    const transpose_args *a = arg;
    const int last = a->rank - 1;
    int64_t rest = row, from = 0;
    (void)thread;
    for (int i = last - 1; i >= 0; i--) {
        from += rest % a->dim[i] * a->from[i];
        rest /= a->dim[i];
    }
    memcpy(a->y + row * a->dim[last], a->x + from, (size_t)a->dim[last] * sizeof *a->y);
}

void CPU(transpose)(const fv_call *c) {
    transpose_args a = transpose_of(c);
    const int64_t count = fv_count(c->out[0].type), last = a.dim[a.rank - 1];
    if (a.d == a.rank - 1) fv_pool_run(c->pool, count / last, rows_tile, &a);
    else fv_pool_run(c->pool, count / last / a.dim[a.d] * a.strips, transpose_tile, &a);
}

/* ---------------------------------------------------------------- concat: y is [outer, width], an operand [outer,
 * part] */

typedef struct concat_args {
    const fv_elem *x;
    fv_elem *y;
    int64_t outer, part, width, tile; /* rows of a tile */
} concat_args;

static void concat_tile(void *arg, int64_t tile, int thread) {
    const concat_args *a = arg;
    fv_range r = fv_tile_range(a->outer, a->tile, tile);
    (void)thread;
    for (int64_t i = r.begin; i < r.end; i++)
        memcpy(a->y + i * a->width, a->x + i * a->part, (size_t)a->part * sizeof *a->y);
}

void CPU(concat)(const fv_call *c) {
    const fv_type *t = &c->out[0].type;
    const int axis = c->attr->concat.axis;
    int64_t outer = 1, inner = 1, at = 0;
    for (int i = 0; i < axis; i++) outer *= t->dim[i];
    for (int i = axis + 1; i < t->rank; i++) inner *= t->dim[i];
    for (int k = 0; k < c->n_in; k++) {
        const int64_t part = c->in[k].type.dim[axis] * inner;
        concat_args a = {c->in[k].data, (fv_elem *)c->out[0].data + at, outer,
                         part,          t->dim[axis] * inner,           fv_tile_rows(part)};
        fv_pool_run(c->pool, fv_ceil_div(outer, a.tile), concat_tile, &a);
        at += part;
    }
}

/* ---------------------------------------------------------------- boxes: slice, slice_bwd and pad
 * A dense tensor `small` lies in `whole` at start, with steps. slice copies it out; slice_bwd and pad fill the rest
 * with a value and copy it in. A tile is some rows along the last dimension: of small when copying out, of whole when
 * copying in. */

typedef struct box_args {
    const fv_elem *x;
    fv_elem *y, value;
    int rank;
    const int64_t *small, *whole, *start, *step;
    int64_t rows, tile;
} box_args;

static void copy_out_tile(void *arg, int64_t tile, int thread) {
    const box_args *a = arg;
    const int last = a->rank - 1;
    const int64_t n = a->small[last], step = a->step[last];
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    (void)thread;
    for (int64_t row = r.begin; row < r.end; row++) {
        int64_t rest = row, at = a->start[last], stride = a->whole[last];
        for (int i = last - 1; i >= 0; stride *= a->whole[i--]) {
            at += (a->start[i] + rest % a->small[i] * a->step[i]) * stride;
            rest /= a->small[i];
        }
        fv_elem *y = a->y + row * n;
        if (step == 1) memcpy(y, a->x + at, (size_t)n * sizeof *y);
        else
            for (int64_t j = 0; j < n; j++) y[j] = a->x[at + j * step];
    }
}

static void copy_in_tile(void *arg, int64_t tile, int thread) {
    const box_args *a = arg;
    const int last = a->rank - 1;
    const int64_t n = a->small[last], width = a->whole[last], step = a->step[last];
    fv_range r = fv_tile_range(a->rows, a->tile, tile);
    (void)thread;
    for (int64_t row = r.begin; row < r.end; row++) {
        int64_t rest = row, at = 0, stride = n;
        bool inside = true;
        for (int i = last - 1; i >= 0; stride *= a->small[i--]) {
            const int64_t index = rest % a->whole[i] - a->start[i], k = index / a->step[i];
            inside = inside && index >= 0 && index % a->step[i] == 0 && k < a->small[i];
            at += k * stride;
            rest /= a->whole[i];
        }
        fv_elem *y = a->y + row * width;
        const bool covered = inside && n == width;
        for (int64_t j = 0; !covered && j < width; j++) y[j] = a->value;
        if (!inside) continue;
        y += a->start[last];
        if (step == 1) memcpy(y, a->x + at, (size_t)n * sizeof *y);
        else
            for (int64_t j = 0; j < n; j++) y[j * step] = a->x[at + j];
    }
}

static fv_elem pad_value(const fv_call *c, float value) {
#ifdef FV_BF16_DATA
    if (c->out[0].type.dtype == FV_F16) return (fv_elem){fv_f16_round(value)};
#else
    (void)c;
#endif
    return fv_elem_of(value);
}

static void run_box(const fv_call *c, const fv_type *small, const fv_type *whole, const int64_t *start,
                    const int64_t *step, float value, bool in) {
    const fv_type *rows = in ? whole : small;
    int64_t steps[FV_MAX_RANK];
    for (int i = 0; i < FV_MAX_RANK; i++) steps[i] = step && step[i] > 0 ? step[i] : 1;
    box_args a = {.x = c->in[0].data,
                  .y = c->out[0].data,
                  .value = pad_value(c, value),
                  .rank = small->rank,
                  .small = small->dim,
                  .whole = whole->dim,
                  .start = start,
                  .step = steps,
                  .rows = fv_rows(rows),
                  .tile = fv_tile_rows(fv_last(rows))};
    fv_pool_run(c->pool, fv_ceil_div(a.rows, a.tile), in ? copy_in_tile : copy_out_tile, &a);
}
void CPU(slice)(const fv_call *c) {
    run_box(c, &c->out[0].type, &c->in[0].type, c->attr->slice.start, c->attr->slice.step, 0, false);
}
void CPU(slice_bwd)(const fv_call *c) {
    run_box(c, &c->in[0].type, &c->out[0].type, c->attr->slice.start, c->attr->slice.step, 0, true);
}
void CPU(pad)(const fv_call *c) {
    const fv_pad_attr *p = &c->attr->pad_nd;
    run_box(c, &c->in[0].type, &c->out[0].type, p->before, NULL, (float)p->value, true);
}
