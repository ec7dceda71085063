/* network.h: the graphs around a model.
 *
 *   images u8 ─► augment (crop, flip, cutout, normalise) ─► resize, if need be ─► model ─► logits ─► loss ─► backward,
 * update record ──────┘                                                    labels, row_weight ──┘
 *
 * In training images and labels may come out of tables on the device (resident.h) instead: a batch is then `rows` of
 * them.
 *
 *   pictures u8 [resident,h,w,c] ─► gather ─► images       rows i32 [batch] ──┐
 *                                     rows ──┘       answers ─► gather ─► labels
 *
 * labels i32 [batch], one class each: softmax cross-entropy; or targets [batch,classes], a flag per class: binary
 * cross-entropy of each class by itself. */
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
    fv_pad_mode pad_mode; /* of the random crop; evaluation reflects */
    double smoothing;
    bool sum_loss;    /* training: of the pictures' losses the sum is made smaller, not the mean */
    bool multi_label; /* several labels per picture: input "targets" in the place of "labels" */
    /* training, [num_classes]: weight of each class's pictures in the loss; several labels: of the class where it is
     * there, against where it is not. NULL: 1 */
    const double *class_weight;
    double guess_loss;         /* training: of a model that knows nothing */
    const char *const *freeze; /* training: prefixes of the names of what is not trained */
    int n_freeze;
    bool freeze_named;  /* they are the user's: each must be the name of something */
    int64_t resident;   /* training: pictures and answers are taken from tables of so many rows on the device; 0: fed */
    fv_dtype precision; /* FV_F32, FV_F64, or FV_BF16 or FV_F16: mixed with float32 */
    double recompute;   /* training: part of a step's time that saving memory may cost (fv_graph_recompute) */
    fv_optim_cfg optim; /* training */
} fv_network;

typedef struct fv_network_size {
    int64_t params;
    double macs; /* multiply-adds of one picture's forward pass in convolutions, linear layers, matmuls and attention */
    fv_recompute_report recompute; /* training */
} fv_network_size;

/* FV_E_USAGE with the nearest name if there is no such model. */
fv_status fv_network_find(fv_ctx *ctx, const char *name, const fv_model_entry **out);

/* --recompute: its word as the budget of fv_graph_recompute. */
double fv_network_recompute(const char *word);

/* --freeze: the first N stages of net->model, or names, into net->freeze. Memory from arena. */
fv_status fv_network_freeze(fv_ctx *ctx, fv_arena *arena, const char *text, fv_network *net);

/* Forward, loss, backward and update; in FV_F16 the loss is scaled (fv_optim_cfg.loss_scaling). Outputs: loss [] (the
 * mean), grad_stats [2], and top1 [], top5 [] (counts) or, with several labels, logits [batch,classes]. */
fv_status fv_network_train_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size);
/* Forward in evaluation mode. Outputs: logits [batch,classes], row_loss [batch]. */
fv_status fv_network_eval_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out, fv_network_size *size);
/* The same for a part of the batch, where `dev` computes parts and they are faster (fv_graph_parts): *parts is for
 * fv_compile_opts, the outputs are those of the whole batch. `size` is of the whole, too. */
fv_status fv_network_parts_graph(fv_ctx *ctx, const fv_network *net, const fv_device *dev, fv_graph **out,
                                 fv_network_size *size, int64_t *parts);
/* What comes before the model, without it. Output: pictures [batch,img_size,img_size,c]. */
fv_status fv_network_input_graph(fv_ctx *ctx, const fv_network *net, fv_graph **out);
/* Of a graph that has only its forward pass yet. */
fv_network_size fv_network_measure(const fv_graph *g, int64_t batch);

/* Keep of every run of a training program what the next two need (fv_program_watch). */
fv_status fv_network_watch(fv_program *p, const fv_network *net);
/* Its outputs loss and grad_stats, of the run that ended last, as doubles. */
fv_status fv_network_seen(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count);
/* How many pictures of the batch that this run saw it got right: the likeliest class is the label; with several labels:
 * each class rightly there or not, at a probability of 0.5. */
fv_status fv_network_correct(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch, double *out);
/* An output as doubles, whatever its precision. */
fv_status fv_network_output(fv_ctx *ctx, fv_program *p, const char *name, double *out, int64_t count);
/* What --precision says. */
fv_dtype fv_network_precision(const char *text);
/* Give a program a batch, those of its inputs that it has; float inputs are widened for a float64 program. */
fv_status fv_network_feed(fv_ctx *ctx, fv_program *p, const fv_network *net, const fv_batch *batch);

#endif
