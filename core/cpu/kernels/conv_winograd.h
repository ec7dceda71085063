/* conv_winograd.h: what the two files of Winograd's filtering share: tiles of 4x4 results of a 3x3 convolution of
 * stride 1, and V = B^T d B of the 6x6 pixels around each. */
#ifndef FV_CORE_CPU_KERNELS_CONV_WINOGRAD_H
#define FV_CORE_CPU_KERNELS_CONV_WINOGRAD_H

#include "core/cpu/kernels/conv.h"

enum {
    FV_WINO_TILE = 4,                 /* results per tile and axis */
    FV_WINO_PATCH = FV_WINO_TILE + 2, /* pixels that they need */
    FV_WINO_POINTS = FV_WINO_PATCH * FV_WINO_PATCH
};

typedef struct fv_patches {
    int64_t source[2], pad[2], depth;
    int64_t tiles_w, image_tiles, tiles; /* per row of tiles, per picture, in all */
} fv_patches;

FV_INLINE fv_patches fv_patches_of(int64_t n, const int64_t source[2], const int64_t result[2], const int64_t pad[2],
                                   int64_t depth) {
    fv_patches p = {.source = {source[0], source[1]}, .pad = {pad[0], pad[1]}, .depth = depth};
    p.tiles_w = fv_ceil_div(result[1], FV_WINO_TILE);
    p.image_tiles = fv_ceil_div(result[0], FV_WINO_TILE) * p.tiles_w;
    p.tiles = n * p.image_tiles;
    return p;
}

FV_INLINE void patch_points(const vf d[FV_WINO_PATCH], vf out[FV_WINO_PATCH]) {
    const vf four = vf_set1(4.0f), five = vf_set1(5.0f), two = vf_set1(2.0f);
    const vf a = vf_fma(-four, d[2], d[4]), b = vf_fma(-four, d[1], d[3]), c = d[4] - d[2], e = d[3] - d[1];
    out[0] = vf_fma(four, d[0], vf_fma(-five, d[2], d[4]));
    out[1] = a + b;
    out[2] = a - b;
    out[3] = vf_fma(two, e, c);
    out[4] = vf_fma(-two, e, c);
    out[5] = vf_fma(four, d[1], vf_fma(-five, d[3], d[5]));
}

/* n channels of a patch -> v: `fit` lanes of 36 vectors, `step` floats apart */
FV_INLINE void transform_patch(const float *const pixel[FV_WINO_PATCH][FV_WINO_PATCH], int64_t c, int n, int fit,
                               float *v, int64_t step) {
    vf half[FV_WINO_PATCH][FV_WINO_PATCH], d[FV_WINO_PATCH], out[FV_WINO_PATCH];
    FV_UNROLL_ALL for (int x = 0; x < FV_WINO_PATCH; x++) {
        FV_UNROLL_ALL for (int y = 0; y < FV_WINO_PATCH; y++) d[y] = vf_load_n(pixel[y][x] + c, n);
        patch_points(d, out);
        FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) half[i][x] = out[i];
    }
    FV_UNROLL_ALL for (int i = 0; i < FV_WINO_PATCH; i++) {
        patch_points(half[i], out);
        FV_UNROLL_ALL for (int k = 0; k < FV_WINO_PATCH; k++)
            vf_store_n(v + (i * FV_WINO_PATCH + k) * step, out[k], fit);
    }
}

/* Points lie an odd number of cache lines apart: else the 36 stores of a transform fall into a few sets of the cache.
 */
FV_INLINE int64_t fv_point_step(int64_t floats) {
    return fv_ceil_div(floats, 32) * 32 + 16;
}

enum { FV_WINO_CHUNK = 12 }; /* tiles transformed at a time */

/* Where V goes: 36 matrices `point` floats apart, each in strips of `width` channels (the last one less), `rows` rows
 * in each. Rows of a strip lie side by side; with `whole` they are filled up with zeros to whole vectors. */
typedef struct fv_patch_layout {
    int64_t point, rows, width;
    bool whole;
} fv_patch_layout;

/* V of tiles first .. first + count, as rows from row0 on. count <= FV_WINO_CHUNK; zero: [depth] zeros. */
FV_INLINE void fv_make_patches(const fv_patches *p, const float *source, const float *zero, int64_t first,
                               int64_t count, int64_t row0, const fv_patch_layout *to, float *v) {
    const float *pixel[FV_WINO_CHUNK][FV_WINO_PATCH][FV_WINO_PATCH];
    for (int64_t t = 0; t < count; t++) {
        const int64_t tile = first + t, image = tile / p->image_tiles, in_image = tile % p->image_tiles;
        const int64_t row = in_image / p->tiles_w * FV_WINO_TILE - p->pad[0],
                      col = in_image % p->tiles_w * FV_WINO_TILE - p->pad[1];
        for (int64_t y = 0; y < FV_WINO_PATCH; y++)
            for (int64_t x = 0; x < FV_WINO_PATCH; x++) {
                const bool inside = row + y >= 0 && row + y < p->source[0] && col + x >= 0 && col + x < p->source[1];
                pixel[t][y][x] =
                    inside ? source + ((image * p->source[0] + row + y) * p->source[1] + col + x) * p->depth : zero;
            }
    }
    for (int64_t at = 0; at < p->depth; at += to->width) {
        const int64_t channels = fv_min64(to->width, p->depth - at), rest = channels % FV_VL;
        const int fit = to->whole ? FV_VL : (int)rest;
        const int64_t row = channels - rest + (rest ? fit : 0);
        for (int64_t t = 0; t < count; t++) {
            float *dst = v + at * to->rows + (row0 + t) * row;
            int64_t c = 0;
            for (; c < channels - rest; c += FV_VL) transform_patch(pixel[t], at + c, FV_VL, FV_VL, dst + c, to->point);
            if (rest) transform_patch(pixel[t], at + c, (int)rest, fit, dst + c, to->point);
        }
    }
}

#endif
