/* table.c: the kernels of one build (FV_ISA), generated from ops.def. */
#include "core/cpu/cpu.h"

#define FV_STRING_(x) #x
#define FV_STRING(x) FV_STRING_(x)

static const fv_kernel kernels[FV_OP_COUNT][2] = {
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) [FV_OP_##ENUM] = {CPU(name), NULL},
#include "core/ops.def"
};

/* A node belongs to one family; the others ask for nothing. */
static size_t workspace(const fv_device *dev, const fv_graph *g, const fv_node *node) {
    return CPU(matrix_workspace)(dev, g, node) + CPU(batch_norm_workspace)(g, node) + CPU(norm_workspace)(g, node) +
           CPU(reduce_workspace)(g, node) + CPU(loss_workspace)(g, node) + CPU(augment_workspace)(g, node) +
           CPU(update_workspace)(g, node) + CPU(muon_workspace)(g, node);
}

const fv_cpu_isa FV_CAT3(fv_cpu_, isa, FV_ISA) = {FV_STRING(FV_ISA), kernels, workspace, CPU(peak_tile),
                                                  CPU(peak_flops)};
