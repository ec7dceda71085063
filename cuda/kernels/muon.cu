/* muon.cu: Muon's update (core/ref/muon.inc says what it computes). Matrices of one size are a batch: each kernel, each
 * product takes all of them at once. x is [m][n] with m <= n: turned where a weight has more rows than columns.
 *
 *   workspace   [ sums | scales | x | y | gram | poly | slices of products ]   for the largest batch of each */
#include "cuda/kernels/gemm.cuh"
#include "cuda/kernels/kernels.h"

#define SUM_BLOCKS 128
#define MOST_BATCH 32

struct muon_size {
    int64_t rows, columns, m, n;
};
static muon_size muon_size_of(const fv_type *t) {
    muon_size s = {t->dim[0], fv_extent(t, 1, t->rank), 0, 0};
    s.m = fv_least(s.rows, s.columns);
    s.n = fv_most(s.rows, s.columns);
    return s;
}

struct muon_batch {
    int count;
    int tensor[MOST_BATCH]; /* places in the lists of the node */
};
static muon_size muon_size_at(const fv_graph *g, const fv_node *node, int t) {
    return muon_size_of(fv_operand_type(g, node, 1 + t));
}
/* Matrix `first` and those after it that have its size; none if it is in the batch of one before it. */
static muon_batch muon_batch_at(const fv_graph *g, const fv_node *node, int first) {
    const muon_size d = muon_size_at(g, node, first);
    muon_batch b = {};
    int before = 0;
    for (int t = 0; t < node->attr.update.count && b.count < MOST_BATCH; t++) {
        const muon_size other = muon_size_at(g, node, t);
        if (other.rows != d.rows || other.columns != d.columns) continue;
        if (t < first) before++;
        else if (before % MOST_BATCH != 0) break;
        else b.tensor[b.count++] = t;
    }
    return b;
}

struct muon_sum {
    double direction, weight; /* squares */
};
struct muon_scales {
    float direction, weight; /* factors */
};
struct muon_space {
    muon_sum *sums;
    muon_scales *scales;
    float *x, *y, *gram, *poly;
    void *slices;
};

static size_t most(size_t a, size_t b) {
    return a > b ? a : b;
}

/* The largest of each part over the batches of a node: elements, and bytes of slices. */
struct muon_need {
    size_t batch, full, square, slices;
};
static void muon_add_need(muon_need *need, const muon_size &d, int batch) {
    need->batch = most(need->batch, (size_t)batch);
    need->full = most(need->full, (size_t)(batch * d.m * d.n));
    need->square = most(need->square, (size_t)(batch * d.m * d.m));
    need->slices = most(need->slices, fv_gemm_workspace(d.m, d.m, d.n, batch));
    need->slices = most(need->slices, fv_gemm_workspace(d.m, d.m, d.m, batch));
    need->slices = most(need->slices, fv_gemm_workspace(d.m, d.n, d.m, batch));
}
static muon_need muon_need_of(const fv_graph *g, const fv_node *node) {
    muon_need need = {};
    for (int t = 0; t < node->attr.update.count; t++) {
        const int batch = muon_batch_at(g, node, t).count;
        if (batch > 0) muon_add_need(&need, muon_size_at(g, node, t), batch);
    }
    return need;
}

/* Bytes; places into *s when `base` is given. */
static size_t muon_place(char *base, const muon_need &need, muon_space *s) {
    const size_t bytes[] = {need.batch * SUM_BLOCKS * sizeof(muon_sum),
                            need.batch * sizeof(muon_scales),
                            need.full * sizeof(float),
                            need.full * sizeof(float),
                            need.square * sizeof(float),
                            need.square * sizeof(float),
                            need.slices};
    size_t at[8] = {0};
    for (int i = 0; i < 7; i++) at[i + 1] = at[i] + (bytes[i] + 255) / 256 * 256;
    if (base)
        *s = {reinterpret_cast<muon_sum *>(base),      reinterpret_cast<muon_scales *>(base + at[1]),
              reinterpret_cast<float *>(base + at[2]), reinterpret_cast<float *>(base + at[3]),
              reinterpret_cast<float *>(base + at[4]), reinterpret_cast<float *>(base + at[5]),
              need.slices ? base + at[6] : NULL};
    return at[7];
}

size_t fv_cuda_muon_workspace(const fv_graph *g, const fv_node *node) {
    return muon_place(NULL, muon_need_of(g, node), NULL);
}

bool fv_cuda_muon_fits(const fv_graph *g, const fv_node *node) {
    for (int t = 0; t < node->attr.update.count; t++) {
        const muon_size d = muon_size_at(g, node, t);
        fv_gemm_size s;
        if (!fv_gemm_cut(d.m, d.n, d.m, MOST_BATCH, true, &s) || !fv_gemm_cut(d.m, d.m, d.n, MOST_BATCH, true, &s))
            return false;
    }
    return true;
}

/* ---------------------------------------------------------------- what is not a product */

struct muon_rule {
    const fv_step *step;
    const float *stats;
    int group;
    float clip, momentum;
    double eps;
    bool nesterov, renormalise;
};

/* A learning rate of 0, and gradients that are not all finite, leave everything as it is. */
__device__ __forceinline__ bool muon_begins(const muon_rule &r) {
    return r.step->lr[r.group] != 0 && (!r.stats || r.stats[1] != 0);
}
/* Where element i of a [rows][columns] weight lies in x. */
__device__ __forceinline__ int64_t muon_turned(int64_t i, const muon_size &d) {
    return d.rows > d.columns ? i % d.columns * d.rows + i / d.columns : i;
}

/* The lists of the node in device memory; blockIdx.y is the matrix within the batch. */
struct muon_lists {
    const fv_tensor *in;
    int count; /* matrices in each list */
    muon_batch batch;
    __device__ __forceinline__ float *of(int list) const {
        return static_cast<float *>(in[1 + list * count + batch.tensor[blockIdx.y]].data);
    }
};

/* b = momentum * b + g; the direction, g + momentum * b or b, into x, and sums of squares by block */
__global__ void muon_direction_kernel(muon_rule r, muon_size d, muon_lists l, float *xs, muon_sum *sums) {
    if (!muon_begins(r)) return;
    const float clip = fv_clip_factor(r.step, r.stats, r.clip);
    const float *weight = l.of(0), *grad = l.of(1);
    float *momentum = r.momentum != 0 ? l.of(2) : NULL, *x = xs + blockIdx.y * d.m * d.n;
    double direction = 0, weights = 0;
    for (int64_t i = FV_FIRST; i < d.m * d.n; i += FV_STRIDE) {
        float g = clip * grad[i];
        if (momentum) {
            const float b = fmaf(r.momentum, momentum[i], g);
            momentum[i] = b;
            g = r.nesterov ? fmaf(r.momentum, b, g) : b;
        }
        x[muon_turned(i, d)] = g;
        direction += (double)g * g;
        weights += (double)weight[i] * weight[i];
    }
    direction = fv_block_sum(direction);
    weights = fv_block_sum(weights);
    if (threadIdx.x == 0) sums[blockIdx.y * SUM_BLOCKS + blockIdx.x] = {direction, weights};
}

__global__ void muon_scales_kernel(muon_rule r, int64_t rows, const muon_sum *sums, int count, muon_scales *scales) {
    if (!muon_begins(r)) return;
    double direction = 0, weights = 0;
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        direction += sums[blockIdx.y * SUM_BLOCKS + i].direction;
        weights += sums[blockIdx.y * SUM_BLOCKS + i].weight;
    }
    direction = fv_block_sum(direction);
    weights = fv_block_sum(weights);
    if (threadIdx.x != 0) return;
    const double keep = 1 - r.step->lr[r.group] * r.step->weight_decay[r.group];
    scales[blockIdx.y].direction = (float)(1 / (sqrt(direction) + r.eps));
    scales[blockIdx.y].weight = (float)((r.renormalise && weights > 0 ? sqrt((double)rows / weights) : 1) * keep);
}

__global__ void muon_scale_kernel(float *xs, int64_t count, const muon_scales *scales) {
    float *x = xs + blockIdx.y * count;
    for (int64_t i = FV_FIRST; i < count; i += FV_STRIDE) x[i] *= scales[blockIdx.y].direction;
}

__global__ void muon_apply_kernel(muon_rule r, muon_size d, muon_lists l, const float *xs, const muon_scales *scales) {
    if (!muon_begins(r)) return;
    const float lr = (float)r.step->lr[r.group], keep = scales[blockIdx.y].weight;
    const float *x = xs + blockIdx.y * d.m * d.n;
    float *weight = l.of(0);
    for (int64_t i = FV_FIRST; i < d.m * d.n; i += FV_STRIDE)
        weight[i] = fmaf(-lr, x[muon_turned(i, d)], keep * weight[i]);
}

/* ---------------------------------------------------------------- Newton-Schulz */

/* poly = a I + b gram + c gram gram */
struct muon_poly_out {
    float *poly;
    const float *gram;
    int64_t m;
    __device__ __forceinline__ void put(int batch, int i, int j, float v) const {
        const int64_t at = (batch * m + i) * m + j;
        const float by = fmaf((float)FV_MUON_B, gram[at], (float)FV_MUON_C * v);
        poly[at] = i == j ? by + (float)FV_MUON_A : by;
    }
};

typedef fv_matrix<float, true> along_k;
typedef fv_matrix<float, false> across_k;

static cudaError_t muon_iterate(const fv_cuda_call *c, const muon_space &s, const muon_size &d, int batch) {
    const fv_batching full = {1, d.m * d.n, 0}, square = {1, d.m * d.m, 0};
    const along_k x = {s.x, d.n, 1, full}, gram = {s.gram, d.m, 1, square}, poly = {s.poly, d.m, 1, square};
    const across_k gram_right = {s.gram, 1, d.m, square}, x_right = {s.x, 1, d.n, full};
    const fv_matrix_out<float> to_gram = {s.gram, NULL, d.m, 0, 1.0f, square}, to_y = {s.y, NULL, d.n, 0, 1.0f, full};
    const muon_poly_out to_poly = {s.poly, s.gram, d.m};
    cudaError_t e = fv_gemm(c->stream, x, x, to_gram, d.m, d.m, d.n, batch, s.slices);
    if (e == cudaSuccess) e = fv_gemm(c->stream, gram, gram_right, to_poly, d.m, d.m, d.m, batch, s.slices);
    if (e == cudaSuccess) e = fv_gemm(c->stream, poly, x_right, to_y, d.m, d.n, d.m, batch, s.slices);
    return e;
}

static cudaError_t muon_matrices(const fv_cuda_call *c, const muon_rule &r, muon_space s, const muon_size &d,
                                 const muon_batch &batch) {
    const fv_update_attr *a = &c->attr->update;
    const int64_t count = d.m * d.n;
    if (count == 0 || batch.count == 0) return cudaSuccess;
    const muon_lists l = {c->device_in, a->count, batch};
    const unsigned blocks = (unsigned)fv_least(SUM_BLOCKS, fv_up(count, FV_THREADS)), each = (unsigned)batch.count;
    const dim3 sums(blocks, each), one(1, each), all(fv_blocks(count, FV_THREADS), each);
    FV_LAUNCH(muon_direction_kernel, sums, FV_THREADS, 0, c->stream, r, d, l, s.x, s.sums);
    FV_LAUNCH(muon_scales_kernel, one, FV_THREADS, 0, c->stream, r, d.rows, s.sums, (int)blocks, s.scales);
    FV_LAUNCH(muon_scale_kernel, all, FV_THREADS, 0, c->stream, s.x, count, s.scales);
    for (int step = 0; step < a->ns_steps; step++) {
        const cudaError_t e = muon_iterate(c, s, d, batch.count);
        if (e != cudaSuccess) return e;
        float *x = s.x;
        s.x = s.y;
        s.y = x;
    }
    FV_LAUNCH(muon_apply_kernel, all, FV_THREADS, 0, c->stream, r, d, l, s.x, s.scales);
    return cudaGetLastError();
}

cudaError_t fv_cuda_muon_update(const fv_cuda_call *c) {
    const fv_update_attr *a = &c->attr->update;
    const muon_rule r = {c->step, fv_operand(c, 0), a->group,      (float)a->clip, (float)a->momentum,
                         a->eps,  a->nesterov,      a->renormalise};
    muon_space s = {};
    muon_place(static_cast<char *>(c->workspace), muon_need_of(c->graph, c->node), &s);
    for (int t = 0; t < a->count; t++) {
        const cudaError_t e =
            muon_matrices(c, r, s, muon_size_at(c->graph, c->node, t), muon_batch_at(c->graph, c->node, t));
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}
