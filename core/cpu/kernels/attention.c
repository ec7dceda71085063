/* attention.c: scaled dot-product attention and its gradient (Vaswani et al. 2017), one (picture, head) at a time.
 * q [n,sq,h*d], k, v [n,sk,h*d], or qkv [n,s,3*h*d]; y [n,sq,h*d]; lse [n,h,sq]. For blocks of BLOCK_ROWS
 * queries:
 *
 *   forward    p = exp(scale q k^T - max), y = p v / sum p, lse = max + log sum p
 *
 *   backward   p = exp(scale q k^T - lse), dp = dy v^T, ds = scale p (dp - dy . y), dq = ds k, dk = ds^T q,
 *              dv = p^T dy
 */
#include "core/cpu/kernels/conv.h"

enum {
    BLOCK_ROWS = 144, /* queries at a time; a multiple of FV_MR */
    AHEAD_BYTES = 448 << 10,
    MIN_TILES = 16, /* forward: blocks of queries become tiles when there are fewer (picture, head) pairs */
};

typedef struct plan {
    int64_t n, heads, d, sq, sk;
    int64_t q_row, kv_row, width; /* floats from one position to the next: q and dq, k and v, y and dy */
    int64_t score_row, d_row;     /* rows of scores and of padded heads in scratch */
    bool whole;                   /* a tile is a picture with all its heads, else a pair or some of its blocks */
    int64_t blocks, tile_blocks;  /* of queries */
    float scale;
    size_t table_at, scratch_at, total; /* bytes */
    size_t scratch_floats;
} plan;

static int64_t round_up(int64_t n, int64_t to) {
    return fv_ceil_div(n, to) * to;
}

/* Scratch of a thread, floats. Forward: k^T and v packed, scores. Backward: k^T, v^T, k packed, p, ds, q and dy padded,
 * dk, dv. */
static plan make_plan(fv_type q, fv_type k, bool packed, const fv_attention_attr *attr, bool backward, int threads) {
    plan p = {.n = q.dim[0], .heads = attr->heads, .sq = q.dim[1], .sk = packed ? q.dim[1] : k.dim[1]};
    p.width = q.dim[2] / (packed ? 3 : 1);
    p.q_row = p.kv_row = q.dim[2];
    p.d = p.width / p.heads;
    p.scale = (float)(attr->scale != 0 ? attr->scale : 1 / sqrt((double)p.d));
    p.score_row = round_up(p.sk, 16);
    p.d_row = round_up(p.d, FV_OUTER_COLUMNS);
    p.blocks = fv_ceil_div(p.sq, BLOCK_ROWS);
    p.whole = p.n >= MIN_TILES;
    const int64_t pairs = fv_max64(1, p.n * p.heads),
                  tiles = backward ? 1 : fv_min64(p.blocks, fv_ceil_div(MIN_TILES, pairs));
    p.tile_blocks = fv_ceil_div(p.blocks, fv_max64(1, p.whole ? 1 : tiles));
    const int64_t rows = fv_min64(p.sq, BLOCK_ROWS);
    const size_t by_key = fv_packed_floats(p.sk, p.d), by_head = fv_packed_floats(p.d, p.sk);
    p.scratch_floats = by_key + by_head + (size_t)(rows * p.score_row);
    if (backward) {
        p.scratch_floats += by_key + (size_t)(rows * p.score_row + 2 * rows * p.d_row);
        p.scratch_floats += (size_t)(2 * round_up(p.sk, FV_OUTER_ROWS) * p.d_row);
    }
    p.scratch_floats = (p.scratch_floats + 15) & ~(size_t)15;
    p.table_at = fv_workspace_add(&p.total, 4 * BLOCK_ROWS * sizeof(ptrdiff_t));
    p.scratch_at = fv_workspace_add(&p.total, p.scratch_floats * (size_t)threads * sizeof(float));
    return p;
}

size_t CPU(attention_workspace)(fv_type q, fv_type k, bool packed, const fv_attention_attr *attr, bool backward,
                                int threads) {
    return make_plan(q, k, packed, attr, backward, threads).total;
}

typedef struct job {
    plan p;
    const float *q, *k, *v, *y, *dy, *lse;
    float *out, *out_lse;                         /* forward */
    float *dq, *dk, *dv;                          /* backward; may be NULL */
    ptrdiff_t *q_off, *score_off, *y_off, *d_off; /* [BLOCK_ROWS] */
    float *scratch;
    bool packed;
} job;

static const ptrdiff_t no_tap = 0;

/* y rows = x rows times the packed [depth, columns] matrix b. */
static void multiply(const float *x, const ptrdiff_t *x_off, int64_t rows, int64_t depth, const float *b,
                     int64_t columns, float *y, const ptrdiff_t *y_off, fv_ahead *ahead) {
    fv_row_gemm g = {.x = x,
                     .x_off = x_off,
                     .y_off = y_off,
                     .rows = rows,
                     .tap = &no_tap,
                     .taps = 1,
                     .depth = depth,
                     .ahead = ahead};
    for (int64_t c = 0; c < columns; c += FV_NR) {
        g.columns = (int)fv_min64(FV_NR, columns - c);
        g.b = b + c * depth;
        g.y = y + c;
        CPU(row_gemm)(&g);
    }
}

/* The operands of the picture that this thread will probably work on next, and the place of its gradients. Only packed
 * ones: they lie in one run. */
static fv_ahead look_ahead(const job *j, int64_t picture, bool backward) {
    const plan *p = &j->p;
    const int64_t next = picture + 1, qkv = p->sq * p->q_row, y = p->sq * p->width;
    fv_ahead ahead = {0};
    if (!j->packed || next >= p->n || 2 * (qkv + y) * (int64_t)sizeof(float) > AHEAD_BYTES) return ahead;
    const int64_t columns = fv_ceil_div(p->sk, FV_NR) + fv_ceil_div(p->d, FV_NR);
    const int64_t tiles = p->heads * fv_row_tiles(p->sq) * columns * (backward ? 2 : 1);
    const fv_range rows = {next * p->sq, (next + 1) * p->sq};
    fv_ahead_rows(&ahead, 0, j->q, rows, p->q_row, INT64_MAX, tiles);
    if (!backward) return ahead;
    fv_ahead_rows(&ahead, 1, j->y, rows, p->width, INT64_MAX, tiles);
    fv_ahead_rows(&ahead, 2, j->dy, rows, p->width, INT64_MAX, tiles);
    if (j->dq) fv_ahead_rows(&ahead, 3, j->dq, rows, p->q_row, INT64_MAX, tiles);
    return ahead;
}

/* Pack rows [positions, d] as a [positions, d] matrix, or transposed as [d, positions]. Returns what follows dst. */
static float *pack_rows(float *dst, const float *src, int64_t positions, int64_t d, int64_t row) {
    for (int64_t c = 0; c < d; c += FV_NR)
        CPU(pack_panel)(dst + c * positions, src + c, positions, (int)fv_min64(FV_NR, d - c), row, 1);
    return dst + fv_packed_floats(d, positions);
}
static float *pack_turned(float *dst, const float *src, int64_t positions, int64_t d, int64_t row) {
    for (int64_t c = 0; c < positions; c += FV_NR)
        CPU(pack_panel)(dst + c * d, src + c * row, d, (int)fv_min64(FV_NR, positions - c), 1, row);
    return dst + fv_packed_floats(positions, d);
}

/* Products of four pairs of vectors: row i + r of a, or the last one, with that of b. */
static v4 dots(const float *a, const ptrdiff_t *a_off, const float *b, const ptrdiff_t *b_off, int64_t i, int64_t rows,
               int64_t d) {
    const float *x[4], *y[4];
    vf sum[4];
    for (int r = 0; r < 4; r++) {
        const int64_t row = fv_min64(i + r, rows - 1);
        x[r] = a + a_off[row];
        y[r] = b_off ? b + b_off[row] : b;
        sum[r] = vf_zero();
    }
    int64_t k = 0;
    for (; k + FV_VL <= d; k += FV_VL)
        for (int r = 0; r < 4; r++) sum[r] = vf_fma(vf_load(x[r] + k), vf_load(y[r] + k), sum[r]);
    const int n = (int)(d - k);
    for (int r = 0; n && r < 4; r++) sum[r] = vf_fma(vf_load_n(x[r] + k, n), vf_load_n(y[r] + k, n), sum[r]);
    return vf_sum_of_four(sum);
}

/* Positions of k or v whose columns are packed for products with its transpose; the others, one or two behind whole
 * panels (a class beside 64 patches), are cheaper as sums over d. */
static int64_t packed_positions(int64_t positions) {
    const int64_t left = positions % FV_NR;
    return left <= 2 && positions > FV_NR ? positions - left : positions;
}

/* y rows [positions] = x rows [d] times the transpose of src [positions, d], which is also packed. */
static void multiply_turned(const float *x, const ptrdiff_t *x_off, int64_t rows, int64_t d, const float *packed,
                            const float *src, int64_t positions, int64_t src_row, float *y, const ptrdiff_t *y_off,
                            fv_ahead *ahead) {
    const int64_t whole = packed_positions(positions);
    multiply(x, x_off, rows, d, packed, whole, y, y_off, ahead);
    for (int64_t c = whole; c < positions; c++)
        for (int64_t i = 0; i < rows; i += 4) {
            const v4 sums = dots(x, x_off, src + c * src_row, NULL, i, rows, d);
            for (int r = 0; r < 4 && i + r < rows; r++) y[y_off[i + r] + c] = sums[r];
        }
}

/* ---------------------------------------------------------------- forward */

/* Scores of `rows` <= 4 queries become exponentials; their sums, and the largest scores. The rows, `row` apart, are
 * padded to whole vectors; `mask` is 0 in the lanes of the last vector that are scores and -inf in the others, whose
 * exponentials are not computed: results too small for a normal number take an Intel processor a hundred cycles. */
FV_INLINE void exponentials(float *s, int64_t row, const int rows, int64_t n, float scale, vf mask, float *sums,
                            float *tops) {
    const vf factor = vf_set1(scale);
    const vm valid = vm_ge(mask, vf_zero());
    const int64_t last = (n - 1) / FV_VL * FV_VL;
    vf tail[4], most[4], sum[4];
    for (int r = 0; r < 4; r++) most[r] = sum[r] = vf_zero();
    for (int r = 0; r < rows; r++)
        most[r] = tail[r] = vf_fma(vf_load_n(s + r * row + last, (int)(n - last)), factor, mask);
    for (int64_t i = 0; i < last; i += FV_VL)
        for (int r = 0; r < rows; r++) most[r] = vf_max(factor * vf_load(s + r * row + i), most[r]);
    const v4 top = vf_max_of_four(most);
    for (int r = 0; r < rows; r++) {
        sum[r] = vf_keep(valid, vf_exp(vf_keep(valid, tail[r] - vf_set1(top[r]))));
        vf_store(s + r * row + last, sum[r]);
        tops[r] = top[r];
    }
    for (int64_t i = 0; i < last; i += FV_VL)
        for (int r = 0; r < rows; r++) {
            const vf e = vf_exp(vf_fma(factor, vf_load(s + r * row + i), -vf_set1(top[r])));
            vf_store(s + r * row + i, e);
            sum[r] += e;
        }
    const v4 all = vf_sum_of_four(sum);
    for (int r = 0; r < rows; r++) sums[r] = all[r];
}

/* 0 in the first lanes of the last vector of n, -inf in those behind them. */
static vf last_mask(int64_t n) {
    float lanes[FV_VL];
    for (int i = 0; i < FV_VL; i++) lanes[i] = i <= (n - 1) % FV_VL ? 0.0f : -INFINITY;
    return vf_load(lanes);
}

static void scale_row(float *y, int64_t n, float factor) {
    int64_t i = 0;
    for (; i + FV_VL <= n; i += FV_VL) vf_store(y + i, vf_load(y + i) * vf_set1(factor));
    if (i < n) vf_store_n(y + i, vf_load_n(y + i, (int)(n - i)) * vf_set1(factor), (int)(n - i));
}

/* lse = top + log sum, of rows; sum >= 1 */
static void log_sums(float *lse, const float *top, const float *sum, int64_t rows) {
    for (int64_t i = 0; i < rows; i += FV_VL) {
        const int n = (int)fv_min64(FV_VL, rows - i);
        vf_store_n(lse + i, vf_load_n(top + i, n) + vf_log(vf_load_n(sum + i, n)), n);
    }
}

static void forward_pair(const job *j, int64_t n, int64_t head, int64_t first, float *keys, fv_ahead *ahead) {
    const plan *p = &j->p;
    const int64_t pair = n * p->heads + head, kv = n * p->sk * p->kv_row + head * p->d;
    const vf mask = last_mask(p->sk);
    float *values = pack_turned(keys, j->k + kv, packed_positions(p->sk), p->d, p->kv_row);
    float *scores = pack_rows(values, j->v + kv, p->sk, p->d, p->kv_row);
    for (int64_t b = first; b < fv_min64(p->blocks, first + p->tile_blocks); b++) {
        const int64_t row = b * BLOCK_ROWS, rows = fv_min64(BLOCK_ROWS, p->sq - row);
        float *y = j->out ? j->out + (n * p->sq + row) * p->width + head * p->d : NULL;
        float sum[BLOCK_ROWS], top[BLOCK_ROWS];
        multiply_turned(j->q + (n * p->sq + row) * p->q_row + head * p->d, j->q_off, rows, p->d, keys, j->k + kv, p->sk,
                        p->kv_row, scores, j->score_off, ahead);
        int64_t i = 0;
        for (; i + 4 <= rows; i += 4)
            exponentials(scores + i * p->score_row, p->score_row, 4, p->sk, p->scale, mask, sum + i, top + i);
        for (; i < rows; i++)
            exponentials(scores + i * p->score_row, p->score_row, 1, p->sk, p->scale, mask, sum + i, top + i);
        if (j->out_lse) log_sums(j->out_lse + pair * p->sq + row, top, sum, rows);
        if (!y) continue;
        multiply(scores, j->score_off, rows, p->sk, values, p->d, y, j->y_off, ahead);
        for (i = 0; i < rows; i++) scale_row(y + i * p->width, p->d, 1.0f / sum[i]);
    }
}

static void forward_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *scratch = j->scratch + (size_t)thread * p->scratch_floats;
    if (p->whole) {
        fv_ahead ahead = look_ahead(j, tile, false);
        for (int64_t head = 0; head < p->heads; head++) forward_pair(j, tile, head, 0, scratch, &ahead);
        return;
    }
    const int64_t tiles = fv_ceil_div(p->blocks, p->tile_blocks), pair = tile / tiles;
    forward_pair(j, pair / p->heads, pair % p->heads, tile % tiles * p->tile_blocks, scratch, NULL);
}

static void fill_tables(job *j, const fv_call *c, bool packed) {
    const plan *p = &j->p;
    char *work = c->workspace;
    j->packed = packed;
    j->q_off = (ptrdiff_t *)(work + p->table_at);
    j->score_off = j->q_off + BLOCK_ROWS;
    j->y_off = j->score_off + BLOCK_ROWS;
    j->d_off = j->y_off + BLOCK_ROWS;
    j->scratch = (float *)(work + p->scratch_at);
    for (int64_t i = 0; i < BLOCK_ROWS; i++) {
        j->q_off[i] = i * p->q_row;
        j->score_off[i] = i * p->score_row;
        j->y_off[i] = i * p->width;
        j->d_off[i] = i * p->d_row;
    }
}

void CPU(attention)(const fv_call *c) {
    const bool packed = fv_operand(c, 1) == NULL;
    job j = {.p = make_plan(c->in[0].type, packed ? c->in[0].type : c->in[1].type, packed, &c->attr->attention, false,
                            fv_pool_threads(c->pool))};
    const plan *p = &j.p;
    j.q = fv_operand(c, 0);
    j.k = packed ? j.q + p->width : fv_operand(c, 1);
    j.v = packed ? j.q + 2 * p->width : fv_operand(c, 2);
    j.out = fv_result_of(c, 0);
    j.out_lse = fv_result_of(c, 1);
    if (p->blocks == 0 || p->sk == 0) {
        /* sums over nothing */
        if (j.out) memset(j.out, 0, fv_bytes(c->out[0].type));
        for (int64_t i = 0; j.out_lse && i < fv_count(c->out[1].type); i++) j.out_lse[i] = -INFINITY;
        return;
    }
    fill_tables(&j, c, packed);
    const int64_t tiles = p->whole ? p->n : p->n * p->heads * fv_ceil_div(p->blocks, p->tile_blocks);
    fv_pool_run(c->pool, tiles, forward_tile, &j);
}

/* ---------------------------------------------------------------- backward */

/* scores -> p in place; dp -> scale * ds in place. Both rows are padded: whole vectors. */
static void score_gradients(float *s, float *dp, int64_t n, float scale, float lse, float delta) {
    for (int64_t i = 0; i < n; i += FV_VL) {
        vf e = vf_exp(vf_load(s + i) * vf_set1(scale) - vf_set1(lse));
        vf_store(s + i, e);
        vf_store(dp + i, vf_set1(scale) * e * (vf_load(dp + i) - vf_set1(delta)));
    }
}

/* acc [positions padded][d_row] += a^T b with a [rows][score_row], b [rows][d_row]. */
static void sum_outer(const plan *p, const float *a, const float *b, int64_t rows, float *acc, bool accumulate) {
    fv_outer_gemm g = {.lda = p->score_row, .ldb = p->d_row, .count = rows, .ld = p->d_row, .accumulate = accumulate};
    const int64_t vectors = fv_ceil_div(p->d, FV_VL), pieces = fv_ceil_div(vectors, FV_OUTER_VECTORS);
    for (int64_t piece = 0; piece < pieces; piece++) {
        const int64_t first = piece * vectors / pieces;
        g.vectors = (int)((piece + 1) * vectors / pieces - first);
        g.b = b + first * FV_VL;
        for (int64_t i = 0; i < p->sk; i += FV_OUTER_ROWS) {
            g.a = a + i;
            g.acc = acc + i * p->d_row + first * FV_VL;
            CPU(outer_gemm)(&g);
        }
    }
}

static void copy_rows(float *dst, int64_t dst_row, const float *src, int64_t src_row, int64_t rows, int64_t n) {
    for (int64_t r = 0; r < rows; r++, dst += dst_row, src += src_row) {
        int64_t i = 0;
        for (; i + FV_VL <= n; i += FV_VL) vf_store(dst + i, vf_load(src + i));
        if (i < n) vf_store_n(dst + i, vf_load_n(src + i, (int)(n - i)), (int)(n - i));
    }
}

static void backward_pair(const job *j, int64_t n, int64_t head, float *keys_turned, fv_ahead *ahead) {
    const plan *p = &j->p;
    const int64_t pair = n * p->heads + head, kv = n * p->sk * p->kv_row + head * p->d;
    const int64_t block_rows = fv_min64(p->sq, BLOCK_ROWS), padded_keys = round_up(p->sk, FV_OUTER_ROWS);
    float *values_turned = pack_turned(keys_turned, j->k + kv, packed_positions(p->sk), p->d, p->kv_row);
    float *keys = pack_turned(values_turned, j->v + kv, packed_positions(p->sk), p->d, p->kv_row);
    float *scores = pack_rows(keys, j->k + kv, p->sk, p->d, p->kv_row);
    float *ds = scores + block_rows * p->score_row, *q = ds + block_rows * p->score_row,
          *dy = q + block_rows * p->d_row;
    float *dk = dy + block_rows * p->d_row, *dv = dk + padded_keys * p->d_row;
    for (int64_t row = 0; row < p->sq; row += BLOCK_ROWS) {
        const int64_t rows = fv_min64(BLOCK_ROWS, p->sq - row), at = (n * p->sq + row) * p->width + head * p->d;
        const int64_t q_at = (n * p->sq + row) * p->q_row + head * p->d;
        copy_rows(q, p->d_row, j->q + q_at, p->q_row, rows, p->d);
        copy_rows(dy, p->d_row, j->dy + at, p->width, rows, p->d);
        multiply_turned(q, j->d_off, rows, p->d, keys_turned, j->k + kv, p->sk, p->kv_row, scores, j->score_off, ahead);
        multiply_turned(dy, j->d_off, rows, p->d, values_turned, j->v + kv, p->sk, p->kv_row, ds, j->score_off, ahead);
        for (int64_t i = 0; i < rows; i += 4) {
            const v4 delta = dots(dy, j->d_off, j->y + at, j->y_off, i, rows, p->d);
            for (int r = 0; r < 4 && i + r < rows; r++)
                score_gradients(scores + (i + r) * p->score_row, ds + (i + r) * p->score_row, p->sk, p->scale,
                                j->lse[pair * p->sq + row + i + r], delta[r]);
        }
        if (j->dk) sum_outer(p, ds, q, rows, dk, row > 0);
        if (j->dv) sum_outer(p, scores, dy, rows, dv, row > 0);
        if (j->dq) multiply(ds, j->score_off, rows, p->sk, keys, p->d, j->dq + q_at, j->q_off, ahead);
    }
    if (j->dk) copy_rows(j->dk + kv, p->kv_row, dk, p->d_row, p->sk, p->d);
    if (j->dv) copy_rows(j->dv + kv, p->kv_row, dv, p->d_row, p->sk, p->d);
}

static void backward_tile(void *arg, int64_t tile, int thread) {
    const job *j = arg;
    const plan *p = &j->p;
    float *scratch = j->scratch + (size_t)thread * p->scratch_floats;
    if (p->whole) {
        fv_ahead ahead = look_ahead(j, tile, true);
        for (int64_t head = 0; head < p->heads; head++) backward_pair(j, tile, head, scratch, &ahead);
        return;
    }
    backward_pair(j, tile / p->heads, tile % p->heads, scratch, NULL);
}

void CPU(attention_bwd)(const fv_call *c) {
    const bool packed = fv_operand(c, 4) == NULL;
    job j = {.p = make_plan(c->in[3].type, packed ? c->in[3].type : c->in[4].type, packed, &c->attr->attention, true,
                            fv_pool_threads(c->pool))};
    const plan *p = &j.p;
    j.dy = fv_operand(c, 0);
    j.y = fv_operand(c, 1);
    j.lse = fv_operand(c, 2);
    j.q = fv_operand(c, 3);
    j.k = packed ? j.q + p->width : fv_operand(c, 4);
    j.v = packed ? j.q + 2 * p->width : fv_operand(c, 5);
    j.dq = fv_result_of(c, 0);
    j.dk = !packed ? fv_result_of(c, 1) : j.dq ? j.dq + p->width : NULL;
    j.dv = !packed ? fv_result_of(c, 2) : j.dq ? j.dq + 2 * p->width : NULL;
    if (p->sq == 0) { /* no queries: keys and values have no gradient */
        if (j.dk) memset(j.dk, 0, fv_bytes(c->out[1].type));
        if (j.dv) memset(j.dv, 0, fv_bytes(c->out[2].type));
        return;
    }
    fill_tables(&j, c, packed);
    fv_pool_run(c->pool, p->whole ? p->n : p->n * p->heads, backward_tile, &j);
}
