#include "tools/device.h"
#include "tools/train/class_weights.h"
#include "tools/train/source.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

void fv_session_init(fv_session *s, fv_tool *tool) {
    memset(s, 0, sizeof *s);
    s->tool = tool;
    s->ctx = &tool->ctx;
    s->cli = &tool->cli;
    s->con = &tool->console;
    fv_arena_init(&s->arena, s->ctx);
}

static void destroy_programs(fv_session *s) {
    fv_program_destroy(s->ema_program); /* borrowers of memory before the lender */
    fv_program_destroy(s->eval_program);
    fv_program_destroy(s->train_program);
    s->ema_program = s->eval_program = s->train_program = NULL;
}

void fv_session_close(fv_session *s) {
    destroy_programs(s);
    fv_store_destroy(s->store);
    fv_resident_close(&s->resident);
    if (s->device) s->device->backend->close(s->device);
    if (s->test != s->train) fv_dataset_free(s->test);
    fv_dataset_free(s->train);
    fv_arena_free(&s->arena);
}

bool fv_session_overfits(const fv_session *s) {
    return s->cli->command == FV_CMD_train && fv_cli_int(s->cli, OPT_OVERFIT_BATCHES) > 0;
}

/* ---------------------------------------------------------------- data */

static fv_status configure_pretrained(fv_session *s) {
    const char *path = fv_cli_text(s->cli, OPT_PRETRAINED);
    if (!path || s->weights[0] || s->resuming) return FV_OK;
    fv_model_source source;
    FV_TRY(fv_model_source_find(s->ctx, &s->arena, path, "best", &source));
    source.args[0] = '\0'; /* of another run only the model is wanted */
    FV_TRY(fv_model_source_apply(&source, s->cli, s->cli->command == FV_CMD_eval));
    memcpy(s->weights, source.weights, sizeof s->weights);
    return FV_OK;
}

/* What must be known before pictures are read. */
static fv_status prepare(fv_session *s) {
    if (s->prepared) return FV_OK;
    s->prepared = true;
    FV_TRY(configure_pretrained(s));
    FV_TRY(fv_network_find(s->ctx, fv_cli_text(s->cli, OPT_MODEL), &s->net.model));
    if (!fv_dataset_is_files(s->ctx, fv_cli_text(s->cli, OPT_DATA), fv_cli_text(s->cli, OPT_DATA_DIR))) return FV_OK;
    return fv_defaults_resolve_files(s->cli, s->net.model);
}

static void show_opening(void *user, const char *what, int64_t done, int64_t total) {
    fv_session *s = user;
    fv_console_bar(s->con, fv_tool_now(), "%s  %lld/%lld", what, (long long)done, (long long)total);
}

static fv_status open_data(fv_session *s, fv_split split, fv_dataset **out) {
    const fv_cli *cli = s->cli;
    FV_TRY(prepare(s));
    fv_dataset_opts opts = {.root = fv_cli_text(cli, OPT_DATA_DIR),
                            .img_size = fv_cli_has(cli, OPT_IMG_SIZE) ? (int32_t)fv_cli_int(cli, OPT_IMG_SIZE) : 0,
                            .in_chans = fv_cli_has(cli, OPT_IN_CHANS) ? (int32_t)fv_cli_int(cli, OPT_IN_CHANS) : 0,
                            .crop_pct = fv_cli_has(cli, OPT_CROP_PCT) ? fv_cli_float(cli, OPT_CROP_PCT) : 0,
                            .filter =
                                fv_cli_has(cli, OPT_INTERPOLATION) ? (fv_filter)fv_cli_int(cli, OPT_INTERPOLATION) : 0,
                            .split_file = fv_cli_text(cli, OPT_SPLIT_FILE),
                            .val_split = fv_cli_float(cli, OPT_VAL_SPLIT),
                            .test_split = fv_cli_float(cli, OPT_TEST_SPLIT),
                            .skip_bad = fv_cli_bool(cli, OPT_SKIP_BAD),
                            .cache = (fv_cache)fv_cli_int(cli, OPT_CACHE),
                            .cache_dir = fv_cli_text(cli, OPT_CACHE_DIR),
                            .workers = fv_cpu_count(),
                            .progress = show_opening,
                            .progress_user = s};
    if (!strcmp(fv_cli_text(cli, OPT_DATA), "synthetic") && fv_cli_has(cli, OPT_NUM_CLASSES))
        opts.classes = (int32_t)fv_cli_int(cli, OPT_NUM_CLASSES);
    return fv_dataset_open(s->ctx, fv_cli_text(cli, OPT_DATA), split, &opts, out);
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Keep `keep` of the training samples, chosen by seed, in order. */
static fv_status cut_down(fv_session *s, int64_t keep, const char *stream) {
    if (keep >= s->n_train) return FV_OK;
    int64_t *order = fv_arena_alloc(&s->arena, (size_t)s->n_train, sizeof *order);
    int64_t *kept = fv_arena_alloc(&s->arena, (size_t)keep, sizeof *kept);
    if (!order || !kept) return s->ctx->error.code;
    fv_permutation((uint64_t)fv_cli_int(s->cli, OPT_SEED), 0, fv_hash_name(stream), s->n_train, order);
    for (int64_t i = 0; i < keep; i++) kept[i] = s->train_index[order[i]];
    qsort(kept, (size_t)keep, sizeof *kept, by_value);
    s->train_index = kept;
    s->n_train = keep;
    return FV_OK;
}

static fv_status check_batch(fv_session *s) {
    int64_t batch = fv_cli_int(s->cli, OPT_BATCH_SIZE), steps = fv_cli_int(s->cli, OPT_GRAD_ACCUM_STEPS);
    if (batch * steps <= s->n_train) return FV_OK;
    char times[48] = "";
    if (steps > 1) snprintf(times, sizeof times, " times --grad-accum-steps %lld", (long long)steps);
    fv_fail(s->ctx, FV_E_USAGE, "--batch-size %lld%s is more than the %lld training samples", (long long)batch, times,
            (long long)s->n_train);
    return fv_hint(s->ctx, "use a batch size of at most %lld%s", (long long)(s->n_train / steps),
                   s->n_train < steps ? ", and fewer --grad-accum-steps" : "");
}

/* The samples of one part of a set that holds all of them. */
static fv_status take_part(fv_session *s, fv_part part, int64_t **index, int64_t *n) {
    const fv_dataset *d = s->train;
    *n = 0;
    for (int64_t i = 0; i < d->count; i++) *n += d->part[i] == part;
    *index = fv_arena_alloc(&s->arena, (size_t)*n + 1, sizeof **index);
    if (!*index) return s->ctx->error.code;
    int64_t k = 0;
    for (int64_t i = 0; i < d->count; i++)
        if (d->part[i] == part) (*index)[k++] = i;
    return FV_OK;
}

static fv_status split(fv_session *s) {
    if (!s->train->part)
        return fv_split_validation(s->ctx, &s->arena, s->train, fv_cli_float(s->cli, OPT_VAL_SPLIT),
                                   (uint64_t)fv_cli_int(s->cli, OPT_SEED), &s->train_index, &s->n_train, &s->val_index,
                                   &s->n_val);
    FV_TRY(take_part(s, FV_PART_TRAIN, &s->train_index, &s->n_train));
    FV_TRY(take_part(s, FV_PART_VAL, &s->val_index, &s->n_val));
    return take_part(s, FV_PART_TEST, &s->test_index, &s->n_test);
}

fv_status fv_session_open_train(fv_session *s) {
    if (s->train) return FV_OK;
    FV_TRY(open_data(s, FV_SPLIT_TRAIN, &s->train));
    FV_TRY(split(s));
    if (s->cli->command != FV_CMD_train) return FV_OK;
    double fraction = fv_cli_float(s->cli, OPT_FRACTION);
    if (fraction < 1) {
        int64_t keep = (int64_t)llround(fraction * (double)s->n_train);
        FV_TRY(cut_down(s, keep > 1 ? keep : 1, "fraction"));
    }
    FV_TRY(check_batch(s));
    if (fv_session_overfits(s))
        FV_TRY(cut_down(s, fv_cli_int(s->cli, OPT_OVERFIT_BATCHES) * fv_cli_int(s->cli, OPT_BATCH_SIZE), "overfit"));
    return FV_OK;
}

fv_status fv_session_open_test(fv_session *s) {
    if (s->test) return FV_OK;
    if (!s->train) FV_TRY(open_data(s, FV_SPLIT_TEST, &s->test));
    if (s->test && s->test->part) { /* it holds the training pictures, too */
        s->train = s->test;
        FV_TRY(split(s));
        return FV_OK;
    }
    if (s->train && s->train->part) {
        s->test = s->train;
        return FV_OK;
    }
    if (!s->test) FV_TRY(open_data(s, FV_SPLIT_TEST, &s->test));
    s->n_test = s->test->count;
    const fv_dataset *a = s->train, *b = s->test;
    if (a && (a->h != b->h || a->w != b->w || a->c != b->c || a->classes != b->classes))
        return fv_fail_at(s->ctx, FV_E_DATA, b->path, -1,
                          "test pictures (%dx%dx%d, %d classes) differ from training pictures (%dx%dx%d, %d)", b->h,
                          b->w, b->c, b->classes, a->h, a->w, a->c, a->classes);
    return FV_OK;
}

uint64_t fv_session_split_hash(const fv_session *s) {
    uint64_t hash = XXH3_64bits(s->train_index, (size_t)s->n_train * sizeof *s->train_index);
    return XXH3_64bits_withSeed(s->val_index, (size_t)s->n_val * sizeof *s->val_index, hash);
}

const char *fv_session_data_text(const fv_session *s, char *buf, size_t size) {
    const fv_dataset *d = s->train ? s->train : s->test;
    bool own_val = d->part && d->has_part[FV_PART_VAL], own_test = !d->part || d->has_part[FV_PART_TEST];
    size_t used = (size_t)snprintf(buf, size, "%s: ", d->name);
    if (s->train && used < size) used += (size_t)snprintf(buf + used, size - used, "train %lld", (long long)s->n_train);
    if (s->n_val && used < size)
        used += (size_t)snprintf(buf + used, size - used, ", val %lld%s", (long long)s->n_val,
                                 own_val ? "" : " (held out of train)");
    if (s->test && s->n_test && used < size)
        used += (size_t)snprintf(buf + used, size - used, "%stest %lld%s", s->train ? ", " : "", (long long)s->n_test,
                                 own_test ? "" : " (held out)");
    if (used < size)
        snprintf(buf + used, size - used, " · %d classes · %dx%dx%d%s", d->classes, d->h, d->w, d->c,
                 d->targets ? " · several labels per picture" : "");
    return buf;
}

/* ---------------------------------------------------------------- configuration */

/* --mean or --std into per-channel values; one value serves all channels. */
static fv_status take_channels(fv_session *s, fv_cli_id id, int32_t channels, double *out) {
    const fv_cli_value *v = &s->cli->value[id];
    if (v->count != 1 && v->count != channels)
        return fv_fail(s->ctx, FV_E_USAGE, "--%s has %d values; the pictures of '%s' have %d channels",
                       fv_cli_options[id].name, v->count, fv_cli_text(s->cli, OPT_DATA), channels);
    for (int32_t i = 0; i < channels; i++) out[i] = v->number[v->count == 1 ? 0 : i];
    return FV_OK;
}

static fv_status resolve_list(fv_cli *cli, fv_cli_id id, const double *values, int32_t n) {
    char text[512] = "";
    for (int32_t i = 0; i < n; i++) {
        size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%.6f", i ? "," : "", values[i]);
    }
    return fv_cli_resolve(cli, id, "%s", text);
}

/* Flag > config.json (already among the options) > the training set's own; for pictures in files, which would all have
 * to be decoded, ImageNet's. */
static fv_status configure_normalisation(fv_session *s, const fv_dataset *d) {
    if (d->c > FV_CONFIG_CHANNELS)
        return fv_fail(s->ctx, FV_E_DATA, "pictures have %d channels; at most %d can be used", d->c,
                       FV_CONFIG_CHANNELS);
    if (!fv_cli_has(s->cli, OPT_MEAN) || !fv_cli_has(s->cli, OPT_STD)) {
        double mean[FV_CONFIG_CHANNELS], std[FV_CONFIG_CHANNELS];
        if (!s->train) FV_TRY(fv_session_open_train(s));
        if (s->train->files) fv_defaults_normalisation(d->c, mean, std);
        else fv_dataset_stats(s->train, s->train_index, s->n_train, mean, std);
        for (int32_t i = 0; i < d->c; i++)
            if (std[i] < 1e-6) std[i] = 1; /* a constant channel */
        FV_TRY(resolve_list(s->cli, OPT_MEAN, mean, d->c));
        FV_TRY(resolve_list(s->cli, OPT_STD, std, d->c));
    }
    FV_TRY(take_channels(s, OPT_MEAN, d->c, s->net.mean));
    return take_channels(s, OPT_STD, d->c, s->net.std);
}

/* --param-groups. When a batch is to be learned by heart, nothing decays and nothing stands still. */
static fv_status configure_groups(fv_session *s) {
    const char *text = fv_cli_text(s->cli, OPT_PARAM_GROUPS);
    fv_optim_cfg *optim = &s->net.optim;
    if (!text) return FV_OK;
    FV_TRY(fv_cli_read_groups(s->ctx, &s->arena, text, s->groups, &optim->n_groups));
    for (int i = 0; i < optim->n_groups; i++) {
        fv_cli_group *group = &s->groups[i];
        if (fv_session_overfits(s)) group->weight_decay = -1, group->until = group->within = 0;
        s->param_groups[i] = (fv_param_group){.pattern = group->pattern, .momentum = group->momentum};
    }
    optim->groups = s->param_groups;
    return FV_OK;
}

static fv_status configure_training(fv_session *s) {
    const fv_cli *cli = s->cli;
    fv_network *net = &s->net;
    bool overfit = fv_session_overfits(s); /* nothing may stand in the way of learning by heart */
    net->pad_mode = fv_cli_int(cli, OPT_PAD_MODE) == 1 ? FV_PAD_REFLECT : FV_PAD_ZERO;
    net->sum_loss = !strcmp(fv_cli_text(cli, OPT_LOSS_REDUCTION), "sum");
    net->smoothing = overfit ? 0 : fv_cli_float(cli, OPT_SMOOTHING);
    net->cfg.drop_rate = overfit ? 0 : fv_cli_float(cli, OPT_DROP);
    net->cfg.drop_path = overfit ? 0 : fv_cli_float(cli, OPT_DROP_PATH);
    net->cfg.zero_gamma = fv_cli_bool(cli, OPT_ZERO_GAMMA);
    net->optim = (fv_optim_cfg){.kind = (fv_opt_kind)fv_opt_from_name(fv_cli_text(cli, OPT_OPTIMIZER)),
                                .momentum = fv_cli_float(cli, OPT_MOMENTUM),
                                .nesterov = fv_cli_bool(cli, OPT_NESTEROV) && fv_cli_float(cli, OPT_MOMENTUM) > 0,
                                .beta1 = cli->value[OPT_BETAS].number[0],
                                .beta2 = cli->value[OPT_BETAS].number[1],
                                .eps = fv_cli_float(cli, OPT_OPT_EPS),
                                .ns_steps = (int)fv_cli_int(cli, OPT_NS_STEPS),
                                .renormalise = fv_cli_bool(cli, OPT_RENORMALISE),
                                .weight_decay = overfit ? 0 : fv_cli_float(cli, OPT_WEIGHT_DECAY),
                                .clip_grad = fv_cli_float(cli, OPT_CLIP_GRAD),
                                .ema = fv_cli_bool(cli, OPT_MODEL_EMA),
                                .lookahead = !overfit && fv_cli_int(cli, OPT_LOOKAHEAD) > 0,
                                .accumulate = (int)fv_cli_int(cli, OPT_GRAD_ACCUM_STEPS),
                                .sum_micro_steps = net->sum_loss,
                                .head = net->model->head};
    return configure_groups(s);
}

fv_status fv_session_configure(fv_session *s) {
    const fv_dataset *d = s->train ? s->train : s->test;
    fv_network *net = &s->net;
    FV_TRY(fv_defaults_resolve(s->cli, net->model, d));
    FV_TRY(configure_normalisation(s, d));
    net->batch = fv_cli_int(s->cli, OPT_BATCH_SIZE);
    net->h = d->h, net->w = d->w, net->c = d->c;
    net->img_size = fv_cli_int(s->cli, OPT_IMG_SIZE);
    net->precision = fv_network_precision(fv_cli_text(s->cli, OPT_PRECISION));
    net->recompute = fv_network_recompute(fv_cli_text(s->cli, OPT_RECOMPUTE));
    net->cfg = (fv_model_cfg){.num_classes = fv_cli_int(s->cli, OPT_NUM_CLASSES),
                              .img_size = net->img_size,
                              .in_chans = d->c,
                              .without = fv_cli_text(s->cli, OPT_WITHOUT)};
    if (net->cfg.num_classes < d->classes) {
        fv_fail(s->ctx, FV_E_USAGE, "the model has %lld classes, but '%s' has %d", (long long)net->cfg.num_classes,
                d->name, d->classes);
        return fv_hint(s->ctx, "--num-classes must be at least %d", d->classes);
    }
    net->multi_label = d->targets != NULL;
    if (net->multi_label && net->cfg.num_classes != d->classes)
        return fv_fail(s->ctx, FV_E_USAGE,
                       "--num-classes is %lld, but '%s' has %d; with several labels per picture the "
                       "numbers must be the same",
                       (long long)net->cfg.num_classes, d->name, d->classes);
    if (fv_cli_given(s->cli, OPT_IN_CHANS) && fv_cli_int(s->cli, OPT_IN_CHANS) != d->c)
        return fv_fail(s->ctx, FV_E_USAGE, "--in-chans is %s, but the pictures of '%s' have %d channels",
                       fv_cli_text(s->cli, OPT_IN_CHANS), d->name, d->c);
    if (s->cli->command != FV_CMD_train) return FV_OK;
    if (!d->files && !strcmp(fv_cli_text(s->cli, OPT_TRAIN_CROP), "rrc")) {
        fv_fail(s->ctx, FV_E_USAGE, "--train-crop rrc is for pictures in files; those of '%s' lie in arrays", d->name);
        return fv_hint(s->ctx, "'--train-crop pad' crops them out of a padded border");
    }
    FV_TRY(configure_training(s));
    if (fv_cli_has(s->cli, OPT_FREEZE))
        FV_TRY(fv_network_freeze(s->ctx, &s->arena, fv_cli_text(s->cli, OPT_FREEZE), net));
    return fv_class_weights_configure(s);
}

/* ---------------------------------------------------------------- device and programs */

fv_status fv_session_open_device(fv_session *s) {
    return fv_tool_open_device(s->ctx, s->cli, &s->device);
}

static fv_status prepare_store(fv_session *s, const fv_graph *g) {
    if (!s->store) FV_TRY(fv_store_create(s->ctx, s->device, &s->store));
    FV_TRY(fv_store_bind(s->store, g));
    return fv_store_commit(s->store, (uint64_t)fv_cli_int(s->cli, OPT_SEED));
}

fv_status fv_session_load(fv_session *s, const char *path) {
    fv_load_opts opts = {.allow_head_mismatch = s->cli->command == FV_CMD_train, .head = s->net.model->head};
    fv_status status = fv_model_load(s->ctx, s->store, path, &opts);
    if (status == FV_E_MODEL && !s->ctx->error.hint[0])
        fv_hint(s->ctx, "the model is %s with %lld classes; --model and --num-classes name another", s->net.model->name,
                (long long)s->net.cfg.num_classes);
    return status;
}

fv_status fv_session_compile(fv_session *s, fv_graph *g, const fv_compile_opts *opts, fv_program **out) {
    fv_status status = prepare_store(s, g);
    if (status != FV_OK) {
        fv_graph_free(g);
        return status;
    }
    return fv_compile(s->ctx, g, s->store, s->device, opts, out);
}

fv_compile_opts fv_session_train_opts(const fv_session *s) {
    return (fv_compile_opts){.accumulate = s->net.optim.accumulate > 1,
                             .bound = s->resident.bound,
                             .n_bound = s->net.resident ? FV_RESIDENT_TABLES : 0};
}

static fv_status compile_training(fv_session *s) {
    fv_graph *g = NULL;
    fv_compile_opts opts = fv_session_train_opts(s);
    FV_TRY(fv_network_train_graph(s->ctx, &s->net, &g, &s->size));
    FV_TRY(fv_session_compile(s, g, &opts, &s->train_program));
    return fv_network_watch(s->train_program, &s->net);
}

/* The set on the device, if it fits there; not when what is left is too little for the program. */
static fv_status compile_beside_data(fv_session *s) {
    FV_TRY(fv_resident_open(&s->resident, s->ctx, s->device, s->train, fv_cli_bool(s->cli, OPT_RESIDENT_DATA)));
    s->net.resident = s->resident.rows;
    fv_status status = compile_training(s);
    if (status != FV_E_MEMORY || !s->net.resident) return status;
    fv_console_detail(s->con, "no memory for the training set on the device: %s", s->ctx->error.message);
    fv_resident_close(&s->resident);
    s->net.resident = 0;
    return compile_training(s);
}

fv_status fv_session_build_train(fv_session *s) {
    FV_TRY(compile_beside_data(s));
    FV_TRY(s->weights[0] ? fv_session_load(s, s->weights) : fv_session_data_init(s));
    if (s->resuming) return FV_OK;
    return fv_store_reset_ema(s->store);
}

fv_status fv_session_rest(fv_session *s, uint32_t resting) {
    bool same = true;
    for (int i = 0; i < s->net.optim.n_groups; i++) {
        bool rests = resting >> i & 1;
        same = same && s->param_groups[i].rests == rests;
        s->param_groups[i].rests = rests;
    }
    if (same) return FV_OK;
    destroy_programs(s); /* evaluation shares the memory of training */
    return compile_training(s);
}

static fv_status build_eval(fv_session *s, bool ema, fv_program **out) {
    fv_graph *g = NULL;
    fv_compile_opts opts = {.use_ema = ema, .share = s->train_program};
    if (*out) return FV_OK;
    FV_TRY(fv_network_parts_graph(s->ctx, &s->net, s->device, &g, s->train_program ? NULL : &s->size, &opts.parts));
    return fv_session_compile(s, g, &opts, out);
}

fv_status fv_session_build_eval(fv_session *s) {
    bool first = !s->store;
    FV_TRY(build_eval(s, false, &s->eval_program));
    return first && s->weights[0] ? fv_session_load(s, s->weights) : FV_OK;
}

fv_status fv_session_build_ema(fv_session *s) {
    return build_eval(s, true, &s->ema_program);
}
