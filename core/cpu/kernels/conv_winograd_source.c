/* conv_winograd_source.c: tiles of Winograd's filtering and the transform of the pixels around them
 * (conv_winograd.h). */
#include "core/cpu/kernels/conv_winograd.h"

enum { CHUNK = 12 }; /* tiles transformed at a time */

/* Tiles that cover `results` results, and those of them that are not small. */
static int64_t cut_axis(int64_t results, int64_t *large) {
    const int64_t tiles = fv_ceil_div(results, FV_WINO_TILE);
    *large = fv_max64(0, results - (FV_WINO_TILE - 1) * tiles);
    return tiles;
}

fv_patches CPU(winograd_patches)(int64_t n, const int64_t source[2], const int64_t result[2], const int64_t pad[2],
                                 int64_t depth) {
    fv_patches p = {
        .source = {source[0], source[1]}, .result = {result[0], result[1]}, .pad = {pad[0], pad[1]}, .depth = depth};
    for (int a = 0; a < 2; a++) p.across[a] = cut_axis(result[a], &p.large[a]);
    p.image_tiles = p.across[0] * p.across[1];
    p.tiles = n * p.image_tiles;
    return p;
}

double CPU(winograd_saving)(int64_t oh, int64_t ow) {
    const int64_t small = FV_WINO_PATCH - 1;
    int64_t large[2], h = cut_axis(oh, &large[0]), w = cut_axis(ow, &large[1]);
    return 9.0 * (double)(oh * ow) / (double)((small * h + large[0]) * (small * w + large[1]));
}

static int64_t first_result(const fv_patches *p, int axis, int64_t tile) {
    return tile * FV_WINO_TILE - fv_max64(0, tile - p->large[axis]);
}

fv_wino_place CPU(winograd_place)(const fv_patches *p, int64_t tile) {
    const int64_t image = tile / p->image_tiles, row = tile % p->image_tiles / p->across[1],
                  col = tile % p->image_tiles % p->across[1];
    return (fv_wino_place){
        .image = image,
        .row = first_result(p, 0, row),
        .col = first_result(p, 1, col),
        .size = {FV_WINO_TILE - (row >= p->large[0]), FV_WINO_TILE - (col >= p->large[1])},
    };
}

void CPU(winograd_rows)(const fv_patches *p, int64_t tile, int64_t rows[FV_WINO_KINDS]) {
    const int64_t image = tile / p->image_tiles, row = tile % p->image_tiles / p->across[1],
                  col = tile % p->image_tiles % p->across[1];
    for (int kind = 0; kind < FV_WINO_KINDS; kind++) {
        const int64_t h = kind & 1 ? p->large[0] : p->across[0], w = kind & 2 ? p->large[1] : p->across[1];
        rows[kind] = (image * h + fv_min64(row, h)) * w + (row < h ? fv_min64(col, w) : 0);
    }
}

/* Rows of pictures of `height` rows from the first tile to the last, with rows before and after it. */
static fv_range rows_of(const fv_patches *p, int64_t first, int64_t count, int64_t height, int64_t before,
                        int64_t after) {
    if (first >= p->tiles) return (fv_range){0, 0};
    const fv_wino_place a = CPU(winograd_place)(p, first),
                        b = CPU(winograd_place)(p, fv_min64(p->tiles, first + count) - 1);
    return (fv_range){a.image * height + fv_max64(0, a.row - before),
                      b.image * height + fv_min64(height, b.row + b.size[0] + after)};
}

fv_range CPU(winograd_source_rows)(const fv_patches *p, int64_t first, int64_t count) {
    return rows_of(p, first, count, p->source[0], p->pad[0], 2 - p->pad[0]);
}

fv_range CPU(winograd_result_rows)(const fv_patches *p, int64_t first, int64_t count) {
    return rows_of(p, first, count, p->result[0], 0, 0);
}

/* B^T of one row or column of size + 2 pixels. */
FV_INLINE void patch_points(const vf *d, vf *out, const int size) {
    const vf two = vf_set1(2.0f), three = vf_set1(3.0f), four = vf_set1(4.0f), five = vf_set1(5.0f);
    const vf c = d[4] - d[2], e = d[3] - d[1];
    if (size == FV_WINO_TILE) {
        const vf a = vf_fma(-four, d[2], d[4]), b = vf_fma(-four, d[1], d[3]);
        out[0] = vf_fma(four, d[0], vf_fma(-five, d[2], d[4]));
        out[1] = a + b;
        out[2] = a - b;
        out[3] = vf_fma(two, e, c);
        out[4] = vf_fma(-two, e, c);
        out[5] = vf_fma(four, d[1], vf_fma(-five, d[3], d[5]));
        return;
    }
    out[0] = vf_fma(four, d[0] - d[2], two * e);
    out[1] = three * vf_fma(-two, d[1], d[3] - d[2]);
    out[2] = vf_fma(-three, d[2], vf_fma(two, d[1], d[3]));
    out[3] = four * e;
    out[5] = vf_fma(-two, e, c);
}

typedef struct patch { /* a tile's pixels, and where its row of V lies, by kind of point */
    const float *pixel[FV_WINO_PATCH][FV_WINO_PATCH];
    int64_t row[FV_WINO_KINDS];
    fv_wino_place place;
} patch;

/* n channels of a patch of h x w results -> v: `fit` lanes of its points, `step` floats apart */
FV_INLINE void transform_patch(const patch *from, int64_t c, int n, int fit, float *const *v, int64_t step, const int h,
                               const int w) {
    vf half[FV_WINO_PATCH][FV_WINO_PATCH], d[FV_WINO_PATCH], out[FV_WINO_PATCH];
    FV_UNROLL_ALL for (int x = 0; x < w + 2; x++) {
        FV_UNROLL_ALL for (int y = 0; y < h + 2; y++) d[y] = vf_load_n(from->pixel[y][x] + c, n);
        patch_points(d, out, h);
        FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) {
            if (h == FV_WINO_TILE || i != FV_WINO_LACK) half[i][x] = out[i];
        }
    }
    FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) {
        if (h < FV_WINO_TILE && i == FV_WINO_LACK) continue;
        patch_points(half[i], out, w);
        FV_UNROLL_ALL for (int k = 0; k < FV_WINO_PATCH; k++) {
            if (w == FV_WINO_TILE || k != FV_WINO_LACK)
                vf_store_n(v[fv_point_kind(i, k)] + (i * FV_WINO_PATCH + k) * step, out[k], fit);
        }
    }
}

/* Channels first .. first + channels. v: start of their strip. */
FV_INLINE void transform_channels(const patch *from, int64_t first, int64_t channels, const fv_patch_layout *to,
                                  float *v, const int h, const int w) {
    const int64_t rest = channels % FV_VL;
    const int fit = to->whole ? FV_VL : (int)rest;
    const int64_t row = channels - rest + (rest ? fit : 0);
    float *dst[FV_WINO_KINDS];
    for (int kind = 0; kind < FV_WINO_KINDS; kind++) dst[kind] = v + from->row[kind] * row;
    for (int64_t c = 0; c < channels - rest; c += FV_VL) {
        transform_patch(from, first + c, FV_VL, FV_VL, dst, to->point, h, w);
        for (int kind = 0; kind < FV_WINO_KINDS; kind++) dst[kind] += FV_VL;
    }
    if (rest) transform_patch(from, first + channels - rest, (int)rest, fit, dst, to->point, h, w);
}

#define TRANSFORM(h, w) \
    static __attribute__((noinline)) void transform_##h##x##w(const patch *from, int64_t first, int64_t channels, \
                                                              const fv_patch_layout *to, float *v) { \
        transform_channels(from, first, channels, to, v, h, w); \
    }
TRANSFORM(3, 3)
TRANSFORM(3, 4)
TRANSFORM(4, 3)
TRANSFORM(4, 4)

static patch find_pixels(const fv_patches *p, const float *source, const float *zero, int64_t tile) {
    patch to = {.place = CPU(winograd_place)(p, tile)};
    const int64_t row = to.place.row - p->pad[0], col = to.place.col - p->pad[1];
    CPU(winograd_rows)(p, tile, to.row);
    for (int64_t y = 0; y < FV_WINO_PATCH; y++)
        for (int64_t x = 0; x < FV_WINO_PATCH; x++) {
            const bool inside = row + y >= 0 && row + y < p->source[0] && col + x >= 0 && col + x < p->source[1];
            to.pixel[y][x] =
                inside ? source + ((to.place.image * p->source[0] + row + y) * p->source[1] + col + x) * p->depth
                       : zero;
        }
    return to;
}

void CPU(winograd_source)(const fv_patches *p, const float *source, const float *zero, int64_t first, int64_t count,
                          const fv_patch_layout *to, float *v) {
    typedef void (*transform_fn)(const patch *, int64_t, int64_t, const fv_patch_layout *, float *);
    static const transform_fn transform[2][2] = {{transform_3x3, transform_3x4}, {transform_4x3, transform_4x4}};
    patch patches[CHUNK];
    int64_t origin[FV_WINO_KINDS];
    CPU(winograd_rows)(p, to->origin, origin);
    for (int64_t done = 0; done < count; done += CHUNK) {
        const int64_t tiles = fv_min64(CHUNK, count - done);
        for (int64_t t = 0; t < tiles; t++) {
            patches[t] = find_pixels(p, source, zero, first + done + t);
            for (int kind = 0; kind < FV_WINO_KINDS; kind++) patches[t].row[kind] -= origin[kind];
        }
        for (int64_t at = 0; at < p->depth; at += to->width) {
            for (int64_t t = 0; t < tiles; t++) {
                const int *size = patches[t].place.size;
                transform[size[0] - FV_WINO_TILE + 1][size[1] - FV_WINO_TILE + 1](
                    &patches[t], at, fv_min64(to->width, p->depth - at), to, v + at * to->rows);
            }
        }
    }
}
