/* train.c: a training loop against libfovea. usage: example-train [DATASET] [EPOCHS]   (default: synthetic 3) */
#include "fovea.h"

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 64 };
#define CHECK(call) \
    if ((call) != FV_OK) return fprintf(stderr, "error: %s %s\n", ctx.error.message, ctx.error.path), ctx.error.code

int main(int argc, char **argv) {
    fv_ctx ctx;
    fv_ctx_init(&ctx);
    fv_dataset *data;
    double mean[4], std[4];
    CHECK(fv_dataset_open(&ctx, argc > 1 ? argv[1] : "synthetic", FV_SPLIT_TRAIN, &(fv_dataset_opts){0}, &data));
    fv_dataset_stats(data, NULL, 0, mean, std);

    /* The model as a graph: pictures -> logits -> loss -> gradients -> update. */
    fv_graph *g = fv_graph_new(&ctx, true);
    fv_scope s = fv_root(g);
    fv_value x = fv_picture_input(s, BATCH, data->h, data->w, data->c, mean, std, FV_PAD_ZERO);
    fv_value labels = fv_input(s, "labels", fv_shape(FV_I32, BATCH));
    fv_value logits = fv_model_build(g, "resnet20", x, &(fv_model_cfg){.num_classes = data->classes});
    fv_value loss = fv_softmax_cross_entropy(s, logits, labels, FV_NONE, FV_NONE, (fv_loss_attr){0});
    fv_set_output(g, "loss", loss);
    fv_graph_fuse(g);
    CHECK(fv_optim_build(g, loss, &(fv_optim_cfg){.kind = FV_OPT_SGD, .momentum = 0.9, .nesterov = true}));

    fv_device *dev;
    fv_store *store;
    fv_program *program;
    CHECK(fv_backend_cpu.open(&ctx, &(fv_device_opts){0}, &dev));
    CHECK(fv_program_create(&ctx, g, dev, 0, NULL, &store, &program));

    fv_loader *loader;
    fv_augment_cfg augment = {.crop_pad = 4, .flip = 0.5};
    fv_loader_cfg loading = {.batch = BATCH, .train = true, .augment = &augment, .workers = 1};
    CHECK(fv_loader_create(&ctx, data, NULL, data->count, &loading, &loader));
    int64_t epochs = argc > 2 ? atoi(argv[2]) : 3, per_epoch = fv_loader_batches(loader);
    fv_sched_cfg sched = {.kind = FV_SCHED_COSINE, .lr = 0.1, .steps = epochs * per_epoch, .warmup_steps = per_epoch};
    fv_step step = {.weight_decay = {5e-4, 0}};
    for (; step.epoch < epochs; step.epoch++) {
        double sum = 0;
        fv_batch batch;
        CHECK(fv_loader_start(loader, step.epoch, 0));
        for (int64_t i = 0; i < per_epoch; i++, step.step++) {
            CHECK(fv_loader_next(loader, &batch));
            CHECK(fv_batch_feed(&batch, program));
            step.lr[0] = step.lr[1] = fv_sched_lr(&sched, step.step);
            CHECK(fv_program_run(program, &step, FV_ALL_SEGMENTS));
            sum += fv_program_scalar(program, "loss");
        }
        printf("epoch %d: loss %.4f\n", (int)step.epoch + 1, sum / (double)per_epoch);
    }
    CHECK(fv_model_save(&ctx, store, "model.safetensors", false, NULL, 0));
    return 0;
}
