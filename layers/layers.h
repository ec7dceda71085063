/* layers.h: compositions of operations (a layer is a function that returns a value, no object), initialisers, and the
 * model zoo. */
#ifndef FV_LAYERS_H
#define FV_LAYERS_H

#include "core/core.h"

/* ---- initialisers: what to draw for a weight of a given fan */
fv_init fv_init_constant(double value);
fv_init fv_init_uniform(double bound); /* [-bound, bound) */
fv_init fv_init_normal(double std);
fv_init fv_init_trunc_normal(double std); /* cut at 2 std */
/* He et al. 2015: std = gain / sqrt(fan); gain sqrt(2) for ReLU. */
fv_init fv_init_he_normal(int64_t fan, double gain);
fv_init fv_init_he_uniform(int64_t fan, double gain);
fv_init fv_init_xavier_uniform(int64_t fan_in, int64_t fan_out); /* Glorot and Bengio 2010 */
fv_init fv_init_xavier_normal(int64_t fan_in, int64_t fan_out);
/* PyTorch's for convolutions, linear layers and their biases: +-1/sqrt(fan_in). */
fv_init fv_init_default(int64_t fan_in);
/* Convolutions only: filter i of the first min(out, in) hands channel i through; the others as fv_init_default. */
fv_init fv_init_dirac(int64_t fan_in);

/* ---- layers with parameters, named as PyTorch names them */
typedef struct fv_conv_cfg {
    int64_t out;
    int kernel, stride, pad, dilation, groups; /* square; 0: stride 1, dilation 1, groups 1 */
    bool bias;                                 /* drawn from fv_init_default */
    fv_init init;                              /* all zero fields: He normal, fan-out */
    /* > 1: a pooling with this window, this stride and no padding follows, and is all that reads the result. Rows and
     * columns that it drops, at the end, are then not computed where less padding there spares them; nothing that the
     * pooling gives changes by it. */
    int pool;
} fv_conv_cfg;
fv_value fv_conv_layer(fv_scope s, fv_value x, fv_conv_cfg cfg);                          /* "weight", "bias" */
fv_value fv_linear_layer(fv_scope s, fv_value x, int64_t out, bool bias, fv_init weight); /* "weight", "bias" (zeros) */
/* The same with bias and with fv_init_default for both. x [n,h,w,c] is flattened, and files then hold the weight in
 * PyTorch's order c, h, w. */
fv_value fv_dense_layer(fv_scope s, fv_value x, int64_t out);
/* "weight", "bias", "running_mean", "running_var", "num_batches_tracked". In training also the update of the running
 * statistics (PyTorch's momentum, unbiased variance); with frozen weight and bias it works as in evaluation. */
typedef struct fv_bn_cfg {
    double eps, momentum; /* 0: 1e-5, 0.1 */
    bool zero_gamma;
    bool no_scale; /* without "weight": the scale is 1 */
} fv_bn_cfg;
fv_value fv_batch_norm_layer(fv_scope s, fv_value x, fv_bn_cfg cfg);
fv_value fv_layer_norm_layer(fv_scope s, fv_value x, double eps);
/* conv in scope `conv`, norm in scope `bn`, both under s. */
fv_value fv_conv_bn_act(fv_scope s, const char *conv, const char *bn, fv_value x, fv_conv_cfg cfg, fv_bn_cfg bn_cfg,
                        fv_act_kind act);

/* ---- data-dependent initial values */
/* Training pictures for data-dependent initial values: normalised, not augmented, at the model's size. */
typedef struct fv_pictures {
    const float *x; /* [n,h,w,c] */
    int64_t n, h, w, c;
} fv_pictures;
/* Eigenvalues, largest first, and eigenvectors (row i belongs to value i; of length 1, with its component of largest
 * magnitude positive) of a symmetric matrix a [n,n], which is overwritten. Cyclic Jacobi rotations. */
void fv_symmetric_eigen(int n, double *a, double *values, double *vectors);
/* Whitening filters into the convolution weight `name`, [2*r*s*c,r,s,c]: with the eigenvalues l and eigenvectors v of
 * P'P / rows, P being all patches [r,s,c] of the pictures, filters are v / sqrt(l + eps), largest l first, and then
 * their negatives. Their answers on these pictures are uncorrelated, with a mean square of l / (l + eps). */
fv_status fv_whiten_init(fv_ctx *ctx, fv_store *store, const char *name, const fv_pictures *pictures, double eps);

/* Pictures as the loader gives them: inputs "images" u8 [n,h,w,c] and "record", cropped, flipped, cut and normalised by
 * mean and std (c of each, of pixels in [0,1]) -> [n,h,w,c]. */
fv_value fv_picture_input(fv_scope s, int64_t n, int64_t h, int64_t w, int64_t c, const double *mean, const double *std,
                          fv_pad_mode pad_mode);

/* ---- the zoo */
typedef struct fv_model_cfg {
    int64_t num_classes;
    int64_t img_size, in_chans; /* 0: as x has them (make x by the entry's img_size and in_chans) */
    double drop_rate;           /* dropout before the head (MLP: after each hidden layer) */
    double drop_path;           /* stochastic depth of the last block, growing linearly from 0 at the first */
    bool zero_gamma;            /* ResNets: last norm of each block starts at 0 */
    const char *without;        /* ideas of the model to leave out, "dirac,trimming"; NULL: none */
} fv_model_cfg;

typedef struct fv_model_entry {
    const char *name;
    const char *family;      /* "resnet" */
    const char *description; /* one line */
    int64_t img_size, in_chans;
    const char *head; /* prefix of the classifier's parameters: "fc", "linear", "head" */
    /* x [n,h,w,c] -> logits [n,classes] */
    fv_value (*build)(fv_scope s, fv_value x, const fv_model_cfg *cfg, const void *arg);
    const void *arg; /* the family's own configuration */
    /* What lies between picture and head, from the picture on: per stage the prefixes of its parameters' names, divided
     * by commas: "conv1,bn1", "layer1", ... */
    const char *const *stages;
    int n_stages;
    /* Sets what depends on the training pictures, once, in a committed store with drawn values, before the first step
     * of a model that starts from no one's weights. NULL: nothing does. It gets the first data_init_count training
     * pictures, or as many as there are. */
    fv_status (*data_init)(fv_ctx *ctx, fv_store *store, const fv_pictures *pictures);
    int64_t data_init_count;
    /* What may be left out, to see what it is worth. The first is what data_init is for. */
    const char *const *ideas;
    int n_ideas;
} fv_model_entry;

/* The models in the order of `fovea models`. */
int fv_model_count(void);
const fv_model_entry *fv_model_at(int i);
const fv_model_entry *fv_model_find(const char *name); /* NULL: unknown */
const char *fv_model_nearest(const char *name);        /* for "did you mean"; NULL if nothing is near */
/* How many stages a model has; *stages (if not NULL) is their list, as in the entry. The stem is the first; the head
 * belongs to none. */
int fv_model_stages(const fv_model_entry *entry, const char *const **stages);
/* Whether an idea is in the model: it is not among those to leave out. */
bool fv_model_has(const fv_model_cfg *cfg, const char *idea);
/* Build by name under the root scope. Unknown names, ideas that the model does not have, sizes that do not fit (ViT:
 * not a multiple of the patch): a graph error. */
fv_value fv_model_build(fv_graph *g, const char *name, fv_value x, const fv_model_cfg *cfg);

/* ---- a trained model, ready to classify pictures one by one */
typedef struct fv_classifier fv_classifier;
/* From a folder with model.safetensors and config.json, as training writes it and timm reads it. The device is
 * borrowed. */
fv_status fv_classifier_open(fv_ctx *ctx, fv_device *dev, const char *folder, fv_classifier **out);
void fv_classifier_close(fv_classifier *c);
/* pixels: u8 [height,width,channels] of the model's input size (fv_classifier_config). Gives the class of the highest
 * probability; probability, if not NULL, takes all of them. */
fv_status fv_classify(fv_classifier *c, const uint8_t *pixels, int64_t *class_index, float *probability);
const fv_model_config *fv_classifier_config(const fv_classifier *c);
/* Name of a class; "class 7" where the model has no names. Valid until the next call. */
const char *fv_classifier_label(fv_classifier *c, int64_t class_index);

#endif
