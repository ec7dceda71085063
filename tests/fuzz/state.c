/* state.c: a safetensors file as the training state, and as the weights, of a small network. What is taken can be
 * written and is taken again with the same contents. */
#include "core/io/io.h"
#include "tests/fuzz/fuzz.h"

enum { OUT = 2, IN = 1, CLASSES = 3 };

/* conv1.weight [out,k,k,in] with a moment, bn1 with its counter, fc with an average. */
static fv_store *make_store(fv_ctx *ctx, fv_device *device) {
    fv_store *store = NULL;
    fv_graph *g = fv_graph_new(ctx, true);
    FVT_HOLDS(g != NULL);
    fv_init normal = {FV_INIT_NORMAL, 0, 1, NULL};
    fv_scope root = fv_root(g), conv = fv_in(root, "conv1"), bn = fv_in(root, "bn1"), fc = fv_in(root, "fc");
    fv_value weight = fv_param(conv, "weight", fv_shape(FV_F32, OUT, 1, 1, IN), FV_OIHW, normal, false);
    fv_buffer(bn, "num_batches_tracked", fv_scalar(FV_I64), (fv_init){FV_INIT_CONSTANT, 0, 0, NULL});
    fv_value head = fv_param(fc, "weight", fv_shape(FV_F32, CLASSES, OUT), FV_PLAIN, normal, false);
    fv_param(fc, "bias", fv_shape(FV_F32, CLASSES), FV_PLAIN, normal, true);
    fv_state_of(g, weight, FV_ROLE_MOMENT, "momentum");
    fv_state_of(g, head, FV_ROLE_EMA, NULL);
    FVT_HOLDS(fv_graph_finish(g) == FV_OK && fv_store_create(ctx, device, &store) == FV_OK);
    FVT_HOLDS(fv_store_bind(store, g) == FV_OK && fv_store_commit(store, 1) == FV_OK);
    fv_graph_free(g);
    return store;
}

static uint64_t hash_of(fv_store *store) {
    uint64_t hash = 0;
    FVT_HOLDS(fv_store_hash(store, &hash) == FV_OK);
    return hash;
}

static void restore(fvt_world *w, fv_store *store) {
    fv_st_file f, again;
    fv_status status = fv_st_open(&f, &w->ctx, "/m/file");
    fvt_world_judge(w, status, FVT_BIT(FV_E_MODEL));
    if (status != FV_OK) return;
    status = fv_state_restore(&w->ctx, store, &f);
    fvt_world_judge(w, status, FVT_BIT(FV_E_MODEL));
    fv_st_close(&f);
    if (status != FV_OK) return;
    uint64_t hash = hash_of(store);
    status = fv_state_save(&w->ctx, store, "/m/again", NULL, NULL, 0);
    fvt_world_judge(w, status, FVT_BIT(FV_E_NUMERIC)); /* a state with numbers that are not finite is not saved */
    if (status != FV_OK) return;
    FVT_HOLDS(fv_st_open(&again, &w->ctx, "/m/again") == FV_OK);
    FVT_HOLDS(fv_state_restore(&w->ctx, store, &again) == FV_OK);
    FVT_HOLDS(hash_of(store) == hash);
    fv_st_close(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_device *device;
    const fv_load_opts opts = {.allow_head_mismatch = true, .head = "fc"};
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/file", data, size);
    FVT_HOLDS(fv_backend_find("ref")->open(&w.ctx, &(fv_device_opts){0}, &device) == FV_OK);
    fv_store *store = make_store(&w.ctx, device);
    restore(&w, store);
    fvt_world_judge(&w, fv_model_load(&w.ctx, store, "/m/file", &opts), FVT_BIT(FV_E_MODEL) | FVT_BIT(FV_E_NUMERIC));
    fv_store_destroy(store);
    device->backend->close(device);
    fvt_world_close(&w);
    return 0;
}
