/* conv_winograd.h: what the files of Winograd's filtering share: how the results of a 3x3 convolution of stride 1 are
 * cut into tiles, and V = B^T d B of the pixels around each.
 *
 * An axis has as few tiles as cover it, of 4 results each, and of 3 as many (the last ones) as saves results that
 * nobody wants: 7 = 4 + 3, 6 = 3 + 3. F(4, 3) works at the points 0, 1, -1, 2, -2 and infinity, F(3, 3) at the same
 * without -2. Where B of F(3, 3) is scaled so that G is the same for both, a small tile is one that lacks this point:
 * of the 36 products those in its row, its column or both have fewer tiles to sum over or to compute, and all else is
 * shared. */
#ifndef FV_CORE_CPU_KERNELS_CONV_WINOGRAD_H
#define FV_CORE_CPU_KERNELS_CONV_WINOGRAD_H

#include "core/cpu/kernels/conv.h"

enum {
    FV_WINO_TILE = 4,                 /* results per tile and axis, or one less */
    FV_WINO_PATCH = FV_WINO_TILE + 2, /* pixels that they need */
    FV_WINO_POINTS = FV_WINO_PATCH * FV_WINO_PATCH,
    FV_WINO_LACK = 4, /* the point that small tiles do without */
    FV_WINO_KINDS = 4 /* of points, by which tiles have them: all, those that are not small in h, in w, in both */
};

typedef struct fv_patches {
    int64_t source[2], result[2], pad[2], depth;
    int64_t across[2], large[2]; /* tiles of an axis (h, w), and how many of them are not small */
    int64_t image_tiles, tiles;  /* per picture, in all */
} fv_patches;

fv_patches CPU(winograd_patches)(int64_t n, const int64_t source[2], const int64_t result[2], const int64_t pad[2],
                                 int64_t depth);

/* Products that direct sums of oh x ow results need for each of Winograd's. */
double CPU(winograd_saving)(int64_t oh, int64_t ow);

/* Where a tile lies: its picture, its first result, and how many results it has. */
typedef struct fv_wino_place {
    int64_t image, row, col;
    int size[2];
} fv_wino_place;
fv_wino_place CPU(winograd_place)(const fv_patches *p, int64_t tile);

FV_INLINE int fv_point_kind(int row, int col) {
    return (row == FV_WINO_LACK) + 2 * (col == FV_WINO_LACK);
}
/* Of tiles 0 .. tile, without the last, how many have points of each kind. */
void CPU(winograd_rows)(const fv_patches *p, int64_t tile, int64_t rows[FV_WINO_KINDS]);

/* Rows of the source that tiles first .. first + count read, and of the result that they write, counted through all
 * pictures. Empty past the last tile. */
fv_range CPU(winograd_source_rows)(const fv_patches *p, int64_t first, int64_t count);
fv_range CPU(winograd_result_rows)(const fv_patches *p, int64_t first, int64_t count);

/* Points lie an odd number of cache lines apart: else the 36 stores of a transform fall into a few sets of the cache.
 */
FV_INLINE int64_t fv_point_step(int64_t floats) {
    return fv_ceil_div(floats, 32) * 32 + 16;
}

/* Where V goes: 36 matrices `point` floats apart, each in strips of `width` channels (the last one less), room for
 * `rows` rows in each. Rows of a strip lie side by side, without places for tiles that lack the point; with `whole`
 * they are filled up with zeros to whole vectors. Row 0 is that of tile `origin`. */
typedef struct fv_patch_layout {
    int64_t point, rows, width, origin;
    bool whole;
} fv_patch_layout;

/* V of tiles first .. first + count. zero: [depth] zeros. */
void CPU(winograd_source)(const fv_patches *p, const float *source, const float *zero, int64_t first, int64_t count,
                          const fv_patch_layout *to, float *v);

#endif
