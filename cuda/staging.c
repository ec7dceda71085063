/* staging.c: the way of batches to the GPU. The host writes into pinned memory and goes on; the GPU copies from there.
 *
 *   pinned    [ ... | piece | piece | free ........... ]   a ring; pieces are taken and given back in order
 *   landing   [ ... | piece | piece | free ........... ]   the same on the GPU
 *
 *   small copies            host ─► pinned ─(stream)─► destination
 *   from LARGE bytes on     host ─► pinned ─(copies)─► landing ─(stream)─► destination
 *
 * The second way crosses the bus on a stream of its own while the step before still reads the destination; what is left
 * to do between two steps is a copy within the GPU's memory. With room for two batches (fv_cuda_staging_fit) the host
 * fills one while the other is on its way. */
#include "cuda/cuda.h"

#include <string.h>

#define PIECES 128
#define PIECE_BYTES ((size_t)4 << 20)  /* a larger copy goes in several */
#define LEAST_BYTES ((size_t)16 << 20) /* of the ring */
#define MOST_BYTES ((size_t)256 << 20)
#define LARGE ((size_t)256 << 10)
#define ALIGN 256

typedef struct piece {
    size_t at, end;
    cudaEvent_t landed; /* in `landing` */
    cudaEvent_t taken;  /* at its destination: both places are free again */
} piece;

struct fv_cuda_staging {
    char *pinned, *landing; /* landing: NULL until a program has a large input */
    size_t bytes;           /* of each */
    piece piece[PIECES];
    int first, count; /* those that may be under way: piece[(first + i) % PIECES] */
};

static cudaError_t make_events(fv_cuda_staging *s) {
    for (int i = 0; i < PIECES; i++) {
        cudaError_t error = cudaEventCreateWithFlags(&s->piece[i].landed, cudaEventDisableTiming);
        if (error == cudaSuccess) error = cudaEventCreateWithFlags(&s->piece[i].taken, cudaEventDisableTiming);
        if (error != cudaSuccess) return error;
    }
    return cudaSuccess;
}

fv_status fv_cuda_staging_create(fv_cuda_device *dev) {
    fv_device *base = &dev->base;
    fv_cuda_staging *s = dev->staging = fv_calloc(base->ctx, 1, sizeof *s);
    if (!s) return base->ctx->error.code;
    FV_TRY(fv_cuda_check(base, make_events(s), "cudaEventCreate"));
    void *pinned;
    FV_TRY(base->backend->pin(base, LEAST_BYTES, &pinned));
    s->pinned = pinned;
    s->bytes = LEAST_BYTES;
    return FV_OK;
}

void fv_cuda_staging_destroy(fv_cuda_device *dev) {
    fv_cuda_staging *s = dev->staging;
    if (!s) return;
    for (int i = 0; i < PIECES; i++) {
        if (s->piece[i].landed) cudaEventDestroy(s->piece[i].landed);
        if (s->piece[i].taken) cudaEventDestroy(s->piece[i].taken);
    }
    dev->base.backend->free(&dev->base, s->landing, s->bytes);
    if (s->pinned) dev->base.backend->unpin(&dev->base, s->pinned, s->bytes);
    fv_free(dev->base.ctx, s, 1, sizeof *s);
}

/* ---------------------------------------------------------------- room */

/* Both memories anew; the old ones stay where that fails. */
static fv_status resize(fv_cuda_device *dev, size_t bytes) {
    fv_cuda_staging *s = dev->staging;
    fv_device *base = &dev->base;
    void *pinned = s->pinned, *landing = NULL;
    if (bytes != s->bytes) FV_TRY(base->backend->pin(base, bytes, &pinned));
    fv_status status = base->backend->alloc(base, bytes, &landing);
    /* Until nothing of the old memory is read any more, and the new one is cleared, which `copies` would not wait for.
     */
    if (status == FV_OK) status = fv_cuda_check(base, cudaStreamSynchronize(dev->stream), "copy to the GPU");
    if (status != FV_OK) {
        base->backend->free(base, landing, bytes);
        if (pinned != s->pinned) base->backend->unpin(base, pinned, bytes);
        return status;
    }
    base->backend->free(base, s->landing, s->bytes);
    if (pinned != s->pinned) base->backend->unpin(base, s->pinned, s->bytes);
    s->pinned = pinned;
    s->landing = landing;
    s->bytes = bytes;
    s->count = 0;
    return FV_OK;
}

void fv_cuda_staging_fit(fv_cuda_device *dev, size_t batch_bytes) {
    fv_cuda_staging *s = dev->staging;
    fv_ctx *ctx = dev->base.ctx;
    if (batch_bytes < LARGE) return;
    /* Twice, and what is left over at the end of the ring when a piece does not fit there. */
    size_t bytes = batch_bytes < MOST_BYTES / 2 ? 2 * batch_bytes + PIECE_BYTES : MOST_BYTES;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (bytes < s->bytes) bytes = s->bytes;
    if (bytes == s->bytes && s->landing) return;
    const fv_error before = ctx->error;
    if (resize(dev, bytes) == FV_OK) return;
    fv_log(ctx, FV_LOG_DEBUG, "no memory to stage two batches of %.1f MB: copies to the GPU wait for steps to end",
           1e-6 * (double)batch_bytes);
    ctx->error = before;
}

/* ---------------------------------------------------------------- copies */

/* Wait for the oldest piece, which long is over unless the host is far ahead. */
static cudaError_t give_back(fv_cuda_staging *s) {
    const cudaError_t error = cudaEventSynchronize(s->piece[s->first].taken);
    s->first = (s->first + 1) % PIECES;
    s->count--;
    return error;
}

/* The next piece of the ring: behind the newest, or at the beginning where it does not fit there. */
static cudaError_t take(fv_cuda_staging *s, size_t bytes, piece **out) {
    const size_t room = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    const piece *newest = &s->piece[(s->first + s->count + PIECES - 1) % PIECES];
    size_t at = s->count ? newest->end : 0;
    const bool wraps = at + room > s->bytes;
    if (wraps) at = 0;
    while (s->count > 0) {
        const piece *oldest = &s->piece[s->first];
        const bool overlaps = oldest->at < at + room && at < oldest->end;
        /* Past the end of the ring every piece that lies behind `newest` is older than those at the beginning. */
        const bool behind = wraps && oldest->at >= newest->end;
        if (s->count < PIECES && !overlaps && !behind) break;
        const cudaError_t error = give_back(s);
        if (error != cudaSuccess) return error;
    }
    piece *p = &s->piece[(s->first + s->count) % PIECES];
    p->at = at;
    p->end = at + room;
    s->count++;
    *out = p;
    return cudaSuccess;
}

static cudaError_t send(fv_cuda_device *dev, const piece *p, void *to, size_t bytes, bool lands) {
    fv_cuda_staging *s = dev->staging;
    const char *from = s->pinned + p->at;
    if (!lands) return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, dev->stream);
    char *there = s->landing + p->at;
    cudaError_t error = cudaMemcpyAsync(there, from, bytes, cudaMemcpyHostToDevice, dev->copies);
    if (error == cudaSuccess) error = cudaEventRecord(p->landed, dev->copies);
    if (error == cudaSuccess) error = cudaStreamWaitEvent(dev->stream, p->landed, 0);
    if (error == cudaSuccess) error = cudaMemcpyAsync(to, there, bytes, cudaMemcpyDeviceToDevice, dev->stream);
    return error;
}

cudaError_t fv_cuda_stage(fv_cuda_device *dev, void *to, const void *from, size_t bytes) {
    fv_cuda_staging *s = dev->staging;
    const bool lands = s->landing && bytes >= LARGE;
    for (size_t done = 0; done < bytes;) {
        const size_t n = bytes - done < PIECE_BYTES ? bytes - done : PIECE_BYTES;
        piece *p = NULL;
        cudaError_t error = take(s, n, &p);
        if (error != cudaSuccess) return error;
        memcpy(s->pinned + p->at, (const char *)from + done, n);
        error = send(dev, p, (char *)to + done, n, lands);
        if (error == cudaSuccess) error = cudaEventRecord(p->taken, dev->stream);
        if (error != cudaSuccess) return error;
        done += n;
    }
    return cudaSuccess;
}
