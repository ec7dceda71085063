/* data_init.c: initial values that depend on the training pictures. */
#include "tools/train/session.h"

#define FV_MOST_BYTES ((int64_t)256 << 20) /* of the pictures that a model is given */
#define FV_BATCH 50

/* The first n training pictures through `program`, which gives them as the model sees them, into x. */
static fv_status collect(fv_session *s, const fv_network *net, fv_program *program, fv_loader *loader, int64_t n,
                         float *x) {
    int64_t row = net->img_size * net->img_size * net->c, done = 0;
    fv_step plain = {.loss_scale = 1};
    double *wide = fv_alloc(s->ctx, (size_t)(net->batch * row), sizeof *wide);
    fv_status status = wide ? fv_loader_start(loader, 0, 0) : FV_E_MEMORY;
    while (status == FV_OK && done < n) {
        fv_batch batch;
        status = fv_loader_next(loader, &batch);
        if (status == FV_OK) status = fv_network_feed(s->ctx, program, net, &batch);
        if (status == FV_OK) status = fv_program_run(program, &plain, FV_ALL_SEGMENTS);
        if (status == FV_OK) status = fv_network_output(s->ctx, program, "pictures", wide, net->batch * row);
        for (int64_t i = 0; status == FV_OK && i < batch.valid * row; i++) x[done * row + i] = (float)wide[i];
        done += status == FV_OK ? batch.valid : 0;
    }
    fv_free(s->ctx, wide, (size_t)(net->batch * row), sizeof *wide);
    return status;
}

static fv_status run(fv_session *s, const fv_network *net, int64_t n) {
    fv_graph *g = NULL;
    fv_program *program = NULL;
    fv_loader *loader = NULL;
    size_t count = (size_t)(n * net->img_size * net->img_size * net->c);
    fv_loader_cfg cfg = {.batch = net->batch, .workers = (int)fv_cli_int(s->cli, OPT_WORKERS)};
    FV_TRY(fv_network_input_graph(s->ctx, net, &g));
    FV_TRY(fv_session_compile(s, g, &(fv_compile_opts){0}, &program));
    float *x = fv_alloc(s->ctx, count, sizeof *x);
    fv_status status = x ? fv_loader_create(s->ctx, s->train, s->train_index, n, &cfg, &loader) : FV_E_MEMORY;
    if (status == FV_OK) status = collect(s, net, program, loader, n, x);
    fv_pictures pictures = {.x = x, .n = n, .h = net->img_size, .w = net->img_size, .c = net->c};
    if (status == FV_OK) status = net->model->data_init(s->ctx, s->store, &pictures);
    fv_loader_destroy(loader);
    fv_free(s->ctx, x, count, sizeof *x);
    fv_program_destroy(program);
    return status;
}

fv_status fv_session_data_init(fv_session *s) {
    fv_network net = s->net;
    bool left_out = net.model->n_ideas && !fv_model_has(&net.cfg, net.model->ideas[0]);
    if (!net.model->data_init || s->resuming || left_out) return FV_OK;
    int64_t bytes = net.img_size * net.img_size * net.c * (int64_t)sizeof(float);
    int64_t n = net.model->data_init_count < s->n_train ? net.model->data_init_count : s->n_train;
    if (n > FV_MOST_BYTES / bytes) n = FV_MOST_BYTES / bytes > 1 ? FV_MOST_BYTES / bytes : 1;
    net.batch = n < FV_BATCH ? n : FV_BATCH;
    return run(s, &net, n);
}
