#include "tools/train/resident.h"

#define FV_RESIDENT_MOST ((size_t)4 << 30)
#define FV_RESIDENT_SHARE 4 /* of the free memory: one part in so many */

/* Bytes of both tables, if the set can be there at all. */
static bool measure(const fv_device *dev, const fv_dataset *d, size_t *pictures, size_t *answers) {
    const size_t n = (size_t)d->count, picture = (size_t)d->h * (size_t)d->w * (size_t)d->c;
    if (dev->host_memory || !dev->backend->free_bytes || d->files || d->targets || d->count > INT32_MAX) return false;
    return fv_size_mul(n, picture, pictures) && fv_size_mul(n, sizeof *d->labels, answers);
}

fv_status fv_resident_open(fv_resident *r, fv_ctx *ctx, fv_device *dev, const fv_dataset *data, bool wanted) {
    const fv_backend *b = dev->backend;
    const fv_error before = ctx->error;
    size_t pictures, answers, both;
    void *memory[FV_RESIDENT_TABLES] = {NULL, NULL};
    *r = (fv_resident){.ctx = ctx, .dev = dev};
    if (!wanted || !measure(dev, data, &pictures, &answers) || !fv_size_add(pictures, answers, &both)) return FV_OK;
    if (both > FV_RESIDENT_MOST || both > b->free_bytes(dev) / FV_RESIDENT_SHARE) return FV_OK;
    fv_status status = b->alloc(dev, pictures, &memory[0]);
    if (status == FV_OK) status = b->alloc(dev, answers, &memory[1]);
    if (status != FV_OK) { /* somebody else took it meanwhile: batches are sent, then */
        b->free(dev, memory[0], pictures);
        ctx->error = before;
        return FV_OK;
    }
    r->data = data;
    r->rows = data->count;
    r->bound[0] = (fv_bound_input){.name = "pictures", .memory = memory[0], .bytes = pictures};
    r->bound[1] = (fv_bound_input){.name = "answers", .memory = memory[1], .bytes = answers};
    return b->copy(dev, memory[0], data->images, pictures, FV_COPY_TO_DEVICE);
}

fv_status fv_resident_answer(fv_resident *r, const fv_loader *loader) {
    if (r->rows == 0) return FV_OK;
    const size_t n = (size_t)r->rows;
    int64_t *lender = fv_alloc(r->ctx, n, sizeof *lender);
    int32_t *answers = fv_alloc(r->ctx, n, sizeof *answers);
    fv_status status = r->ctx->error.code;
    if (lender && answers) {
        fv_loader_lenders(loader, lender);
        for (size_t i = 0; i < n; i++) answers[i] = r->data->labels[lender[i]];
        status = r->dev->backend->copy(r->dev, r->bound[1].memory, answers, r->bound[1].bytes, FV_COPY_TO_DEVICE);
    }
    fv_free(r->ctx, lender, n, sizeof *lender);
    fv_free(r->ctx, answers, n, sizeof *answers);
    return status;
}

void fv_resident_close(fv_resident *r) {
    for (int i = 0; r->rows && i < FV_RESIDENT_TABLES; i++)
        r->dev->backend->free(r->dev, r->bound[i].memory, r->bound[i].bytes);
    r->rows = 0;
}
