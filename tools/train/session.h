/* session.h: data, model, device and programs of one `train` or `eval`.
 *
 *   options ─► data sets, split ─► network (with defaults that depend on model and data) ─► device, store ─► programs
 */
#ifndef FV_TOOLS_TRAIN_SESSION_H
#define FV_TOOLS_TRAIN_SESSION_H

#include "tools/tool.h"
#include "tools/train/network.h"
#include "tools/train/resident.h"

typedef struct fv_session {
    fv_tool *tool;
    fv_ctx *ctx; /* the tool's; so are the next two */
    fv_cli *cli;
    fv_console *con;
    fv_arena arena;
    fv_dataset *train, *test;                      /* test: the same set as train if that holds all parts */
    int64_t *train_index, *val_index, *test_index; /* test_index NULL: all of `test` */
    int64_t n_train, n_val, n_test;
    bool prepared; /* what decides how pictures are read is settled */
    bool resuming; /* weights come from training state */
    fv_network net;
    fv_cli_group groups[FV_MAX_PARAM_GROUPS]; /* --param-groups: net.optim.n_groups of them */
    fv_param_group param_groups[FV_MAX_PARAM_GROUPS];
    fv_network_size size;
    char weights[512]; /* to start from; "": none */
    fv_device *device;
    fv_store *store;
    fv_resident resident;
    fv_program *train_program, *eval_program, *ema_program;
} fv_session;

void fv_session_init(fv_session *s, fv_tool *tool);
void fv_session_close(fv_session *s);

/* Training set and its split; --fraction and --overfit-batches cut it down. */
fv_status fv_session_open_train(fv_session *s);
/* Test set: of its own, or a part of the training set's files. n_test is 0 where there is none. */
fv_status fv_session_open_test(fv_session *s);
/* Which samples train and which validate: XXH3 of both lists. */
uint64_t fv_session_split_hash(const fv_session *s);
/* Give every option that nobody gave its value, and fill `net`. Needs the data set that the options speak of. */
fv_status fv_session_configure(fv_session *s);
fv_status fv_session_open_device(fv_session *s);
/* Graph, store, initial or pretrained weights, program. */
fv_status fv_session_build_train(fv_session *s);
/* Once more over the same store, where other param groups rest than before: bit i of `resting` for group i. */
fv_status fv_session_rest(fv_session *s, uint32_t resting);
/* What a program of fv_network_train_graph, or made of it, is compiled with. */
fv_compile_opts fv_session_train_opts(const fv_session *s);
/* The same for evaluation; after build_train over the same store and memory. Made on first use. */
fv_status fv_session_build_eval(fv_session *s);
fv_status fv_session_build_ema(fv_session *s);
/* A program of its own over the session's store. Takes the graph. */
fv_status fv_session_compile(fv_session *s, fv_graph *g, const fv_compile_opts *opts, fv_program **out);
/* data_init.c: give a fresh model the initial values that depend on the training pictures, if it has such; a resumed
 * run has them already. */
fv_status fv_session_data_init(fv_session *s);
/* Read weights into the store. */
fv_status fv_session_load(fv_session *s, const char *path);

bool fv_session_overfits(const fv_session *s);
/* "cifar10: train 45000, val 5000 (held out of train), test 10000 · 10 classes" into buf */
const char *fv_session_data_text(const fv_session *s, char *buf, size_t size);

/* defaults.c: what is used where nobody said anything, by model family and data set. */
fv_status fv_defaults_resolve(fv_cli *cli, const fv_model_entry *model, const fv_dataset *data);
/* The same for what decides how picture files are read: size, crop, filter, channels. */
fv_status fv_defaults_resolve_files(fv_cli *cli, const fv_model_entry *model);
/* ImageNet's mean and deviation: per channel for colour (alpha: 0.5), their averages for grey. */
void fv_defaults_normalisation(int32_t channels, double *mean, double *std);

#endif
