/* kernels.h: what the families of kernels tell table.cu: the workspace of a node, whether its sizes fit, which calls
 * run in one launch. */
#ifndef FV_CUDA_KERNELS_KERNELS_H
#define FV_CUDA_KERNELS_KERNELS_H

#include "cuda/cuda.h"

size_t fv_cuda_conv_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_linear_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_batch_norm_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_norm_workspace(const fv_graph *g, const fv_node *node); /* layer_norm_bwd, group_norm_bwd */
size_t fv_cuda_reduce_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_attention_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_loss_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_augment_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_stats_workspace(const fv_graph *g, const fv_node *node);
size_t fv_cuda_muon_workspace(const fv_graph *g, const fv_node *node);

bool fv_cuda_conv_fits(const fv_graph *g, const fv_node *node);
bool fv_cuda_linear_fits(const fv_graph *g, const fv_node *node);
bool fv_cuda_muon_fits(const fv_graph *g, const fv_node *node);

size_t fv_cuda_update_table(const fv_cuda_call *c, void *host);
size_t fv_cuda_cast_table(const fv_cuda_call *c, void *host);
/* Counters, which begin at 0: bytes. */
size_t fv_cuda_batch_norm_table(const fv_cuda_call *c);
size_t fv_cuda_norm_table(const fv_cuda_call *c);
size_t fv_cuda_reduce_table(const fv_cuda_call *c);

/* Whether one launch can do both, in this order (fv_cuda_kernel_joins). */
bool fv_cuda_update_joins(const fv_cuda_call *before, const fv_cuda_call *next);
bool fv_cuda_cast_joins(const fv_cuda_call *before, const fv_cuda_call *next);

/* Whether tensors share memory; absent ones do not. */
bool fv_cuda_overlap(const fv_tensor *a, const fv_tensor *b);

#endif
