/* class_weights.h: how much each class counts in the loss. */
#ifndef FV_TOOLS_TRAIN_CLASS_WEIGHTS_H
#define FV_TOOLS_TRAIN_CLASS_WEIGHTS_H

#include "tools/train/session.h"

/* --class-weights into s->net.class_weight, and s->net.guess_loss. `balanced` counts the training samples:
 *
 *   one label        1 / pictures of the class, scaled to a mean of 1; 0 for a class without pictures
 *   several labels   pictures without the class / pictures with it; 1 where there are none of either
 *
 * A class without pictures is named in a warning. With --overfit-batches all classes count the same. Needs
 * net.cfg.num_classes and net.multi_label. */
fv_status fv_class_weights_configure(fv_session *s);

#endif
