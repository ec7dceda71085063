/* network.h: the graphs around a model.
 *
 *   images u8 ─► augment (crop, flip, cutout, normalise) ─► resize, if need be ─► model ─► logits ─► loss ─► backward,
 * update record ──────┘                                                    labels, row_weight ──┘
 */
#ifndef FV_TOOLS_TRAIN_NETWORK_H
#define FV_TOOLS_TRAIN_NETWORK_H

#include "fovea.h"

typedef struct fv_network {
    const fv_model_entry *model;
    fv_model_cfg cfg;
    int64_t batch;
    int32_t h, w, c;  /* of the pictures that come in */
    int64_t img_size; /* what the model sees */
    double mean[FV_CONFIG_CHANNELS], std[FV_CONFIG_CHANNELS];
    fv_pad_mode pad_mode; /* of the random crop */
    double smoothing;
    bool float64;
    fv_optim_cfg optim; /* training */
} fv_network;

typedef struct fv_network_size {
    int64_t params;
    double macs; /* multiply-adds of one picture's forward pass in convolutions, linear layers, matmuls and attention */
} fv_network_size;

/* FV_E_USAGE with the nearest name if there is no such model. */
fv_status fv_network_find(fv_ctx *ctx, const char *name, const fv_model_entry **out);

/* Forward, loss, backward and update. Outputs: loss [], top1 [], top5 [] (counts), grad_stats [2]. */
fv_status fv_network_train_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size);
/* Forward in evaluation mode. Outputs: logits [batch,classes], row_loss [batch]. */
fv_status fv_network_eval_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size);
/* Of a graph that has only its forward pass yet. */
fv_network_size fv_network_measure(const fv_graph *g, int64_t batch);

/* An output as doubles, whatever its precision. */
fv_status fv_network_output(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count);
/* Give a program a batch; float inputs are widened for a float64 program. */
fv_status fv_network_feed(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch);

#endif
