/* mlp.c: multilayer perceptrons over the flattened picture: fc1 - relu - ... - head. */
#include "core/ops.h"
#include "layers/zoo.h"

typedef struct mlp_arch {
    int n_hidden;
    int64_t hidden[4];
} mlp_arch;

static fv_value build_mlp(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg) {
    const mlp_arch *arch = arg;
    for (int i = 0; i < arch->n_hidden; i++) {
        fv_scope layer = fv_in(s, "fc%d", i + 1);
        x = fv_relu(layer, fv_dense_layer(layer, x, arch->hidden[i]));
        x = fv_dropout(fv_in(s, "drop%d", i + 1), x, cfg->drop_rate);
    }
    return fv_dense_layer(fv_in(s, "head"), x, cfg->num_classes);
}

static const mlp_arch mlp = {2, {512, 256}};
static const mlp_arch mlp_500 = {1, {500}};

static const char *const stages[] = {"fc1", "fc2"}; /* as many as there are hidden layers */

static const fv_model_entry entries[] = {
    {"mlp", "mlp", "multilayer perceptron, hidden layers of 512 and 256", 28, 1, "head", build_mlp, &mlp, stages, 2},
    {"mlp_500", "mlp", "multilayer perceptron, one hidden layer of 500", 28, 1, "head", build_mlp, &mlp_500, stages, 1},
};

const fv_family fv_family_mlp = FV_FAMILY(entries);
