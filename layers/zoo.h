/* zoo.h: the model families, for the registry. A new family is a file with one of these and a line in the list. */
#ifndef FV_LAYERS_ZOO_H
#define FV_LAYERS_ZOO_H

#include "layers/layers.h"

typedef struct fv_family {
    const fv_model_entry *entries;
    int count;
} fv_family;

#define FV_FAMILY(entries) \
    { (entries), (int)(sizeof(entries) / sizeof((entries)[0])) }

/* Two members of an entry: its list of stages, or of ideas. */
#define FV_STAGES(list) (list), (int)(sizeof(list) / sizeof((list)[0]))

/* X(family): defined as fv_family_<family>, listed to the user in this order. */
#define FV_FAMILY_TABLE(X) \
    X(mlp) \
    X(lenet) \
    X(resnet_cifar) \
    X(resnet) \
    X(speedrun) \
    X(vit)

#define FV_FAMILY_EXTERN(family) extern const fv_family fv_family_##family;
FV_FAMILY_TABLE(FV_FAMILY_EXTERN)
#undef FV_FAMILY_EXTERN

#endif
