/* store.h: one place for each parameter and its companions, in flat memory per role on a device. A store outlives
 * programs and is shared by the train and eval programs of a model.
 *
 *   slots   "conv1.weight" WEIGHT ─┐     "bn1.running_mean" BUFFER     "grad.conv1.weight" GRAD
 * "opt.momentum.conv1.weight" MOMENT ▼ WEIGHT [ conv1.weight | bn1.weight | ... ]   (offsets are multiples of 64 bytes;
 * GRAD, MOMENT, EMA, SLOW in the same order)
 */
#ifndef FV_CORE_STORE_H
#define FV_CORE_STORE_H

#include "core/backend.h"

typedef struct fv_slot {
    const char *name;
    fv_type type; /* in memory */
    fv_role role;
    fv_layout layout;
    fv_init init; /* init.data is copied */
    bool no_decay, frozen;
    int32_t of; /* GRAD, MOMENT, EMA, SLOW: index of the parameter's slot; else -1 */
    void *data; /* device pointer, NULL before fv_store_commit; to be read only (fv_store_touch) */
} fv_slot;

typedef struct fv_store fv_store;

/* An empty store on a device, which must outlive it. Destroying NULL is fine. */
fv_status fv_store_create(fv_ctx *ctx, fv_device *dev, fv_store **out);
void fv_store_destroy(fv_store *store);

/* Add the declarations of a graph that the store lacks; those it has must agree in type and role (FV_E_MODEL). */
fv_status fv_store_bind(fv_store *store, const fv_graph *g);
/* Allocate memory for slots that have none and give them their initial values: draws depend on (seed, slot name) only.
 */
fv_status fv_store_commit(fv_store *store, uint64_t seed);

/* Slots by number, in the order in which they were bound. */
int32_t fv_store_count(const fv_store *store);
const fv_slot *fv_store_slot(const fv_store *store, int32_t i);
int32_t fv_store_find(const fv_store *store, const char *name); /* -1: none */
size_t fv_store_role_bytes(const fv_store *store, fv_role role);

/* A number that grows whenever contents may have changed: by the functions below, and by a run of a program that
 * changes parameters or state. Programs that keep packed weights make them anew when they see another one. Whoever
 * writes to a slot's memory by other means must call fv_store_touch. */
uint64_t fv_store_version(const fv_store *store);
void fv_store_touch(fv_store *store);

/* Copy a slot to or from host memory in *file* order (OIHW etc.); `bytes` must be fv_bytes(type). Types as in the slot.
 */
fv_status fv_store_read(fv_store *store, int32_t slot, void *host, size_t bytes);
fv_status fv_store_write(fv_store *store, int32_t slot, const void *host, size_t bytes);
/* Shape as files have it. */
fv_type fv_slot_file_type(const fv_slot *slot);
/* Copy every parameter and buffer into its EMA and SLOW slots. */
fv_status fv_store_reset_ema(fv_store *store);
/* A copy of the slots for a host device, with memory for all roles but gradients: what saving needs while
 * training goes on. Names stay those of `from`, which must outlive it. */
fv_status fv_store_clone(fv_ctx *ctx, const fv_store *from, fv_device *host, fv_store **out);
/* Contents of the slots that the clone has memory for. Nothing may run on the device of `from`. */
fv_status fv_store_copy(fv_store *clone, const fv_store *from);
/* XXH3 of all contents (weights, buffers, moments, averages) in slot order: to compare runs bit for bit. */
fv_status fv_store_hash(fv_store *store, uint64_t *out);

#endif
