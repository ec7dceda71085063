/* program.h: a graph compiled once, for one batch size and mode, over one pre-planned block of memory.
 *
 *   graph ─verify─► plan: order, lifetimes ─► offsets in one arena; parameters lie in the store
 *   arena      [ inputs and outputs: fixed | x y x z ... reused as values die | workspaces of nodes, likewise ]
 *              [ inputs and outputs of all parts | what else is alive, of a thread | of another ... ]    in parts
 *   prepared   [ weights as bf16 | packed weights of a node | ... ]  if the program changes no parameter: filled at the
 *              first run, and again at the first one after the store has changed (fv_store_version)
 *
 * In parts: a graph for a few pictures that runs again and again over a batch of more, each time on one thread of the
 * device, so that all it computes stays in that core's cache (fv_graph_parts). */
#ifndef FV_CORE_PROGRAM_H
#define FV_CORE_PROGRAM_H

#include "core/store.h"

/* GIVEN: memory of the caller's (fv_bound_input) */
typedef enum fv_where { FV_AT_NOTHING, FV_AT_ARENA, FV_AT_STORE, FV_AT_CONST, FV_AT_PREPARED, FV_AT_GIVEN } fv_where;
typedef struct fv_place {
    fv_where where;
    size_t offset;     /* ARENA, CONST, PREPARED: bytes */
    int32_t slot;      /* STORE */
    int32_t alias;     /* value id whose memory this one shares (in-place, reshape); 0: its own */
    int32_t def, last; /* lifetime, in positions of `order` */
} fv_place;

typedef struct fv_workspace { /* of a node, in the arena while it runs */
    size_t bytes, offset;
} fv_workspace;

struct fv_plan {
    fv_graph *graph;
    fv_store *store;
    bool use_ema;   /* parameters are read from their EMA slots */
    int32_t *order; /* node indices, segment by segment */
    int32_t segment_first[FV_SEG_COUNT + 1];
    fv_place *place;         /* per value */
    void **address;          /* per value; NULL: not placed */
    fv_workspace *workspace; /* per node */
    size_t arena_bytes, const_bytes, prepared_bytes;
    size_t workspace_bytes; /* the largest workspace, which the arena includes */
    size_t *prepared_at;    /* per node: where in `prepared` that lies which it keeps; FV_KEEPS_NOTHING */
    bool *prepares;     /* per node: it runs when `prepared` is filled, and no more: what it reads does not change */
    bool mutates;       /* parameters or state */
    size_t naive_bytes; /* the arena without any reuse of values' memory */
    int64_t parts;      /* times that the graph is run at a time; 1: over all of its batch */
    int lanes;          /* parts that may be computed side by side, each in memory of its own */
    size_t fixed_bytes, lane_bytes; /* of the arena: of inputs and outputs of all parts; of a lane */
    void *arena, *consts, *prepared;
};
#define FV_KEEPS_NOTHING SIZE_MAX

typedef struct fv_program fv_program;

/* An input that lies in the caller's memory on the device instead of the program's, and is not fed: a data set, say,
 * that several programs take batches from (fv_gather). bytes: of its type. */
typedef struct fv_bound_input {
    const char *name;
    void *memory;
    size_t bytes;
} fv_bound_input;

typedef struct fv_compile_opts {
    bool use_ema;
    bool accumulate; /* running statistics change in every micro-step, not in the update segment */
    int64_t parts;   /* run the graph so many times, over one part of every input and output each; 0 is 1. Of a
                        graph that changes nothing, on a device that can (fv_device.alone) */
    const fv_bound_input *bound; /* those of its inputs; others are passed over. The memory must outlive the program */
    int n_bound;
    const fv_program *share; /* borrow its arena if it is large enough; that program must outlive this one */
} fv_compile_opts;

/* Verify, let the backend rewrite, plan, allocate, compile. Takes ownership of g (freed with the program, and on
 * failure). The store must have been bound to g and committed. A node that the backend does not support is FV_E_MODEL,
 * naming it. */
fv_status fv_compile(fv_ctx *ctx, fv_graph *g, fv_store *store, fv_device *dev, const fv_compile_opts *opts,
                     fv_program **out);
/* The usual start: a store for the graph with initial values drawn from `seed`, and the program. Takes the graph like
 * fv_compile; the caller owns both results (destroy the program first). */
fv_status fv_program_create(fv_ctx *ctx, fv_graph *g, fv_device *dev, uint64_t seed, const fv_compile_opts *opts,
                            fv_store **store, fv_program **out);
void fv_program_destroy(fv_program *p);
const fv_plan *fv_program_plan(const fv_program *p);
fv_exec *fv_program_exec(const fv_program *p);

/* Into how many parts a batch should be cut, of what the graph computes for all of it: 1 if that is no faster. No
 * picture may matter to another one's results, as none does in evaluation. The same for any number of threads, as
 * results must be. */
int64_t fv_graph_parts(const fv_graph *g, int64_t batch);

/* Copy host data to the input / from the named output; `bytes` must match its type, of all parts one after the other.
 * Unknown names are FV_E_INTERNAL. fv_program_input is a no-op for an input that the graph does not have (eval graphs
 * lack some). */
fv_status fv_program_input(fv_program *p, const char *name, const void *host, size_t bytes);
fv_status fv_program_output(fv_program *p, const char *name, void *host, size_t bytes);
/* The first element of an output of floats; NaN if there is none of that name. */
double fv_program_scalar(fv_program *p, const char *name);
fv_type fv_program_output_type(const fv_program *p, const char *name);

/* Run the segments in the mask (1 << FV_SEG_...), in order, and wait. A kernel's fault is returned. */
fv_status fv_program_run(fv_program *p, const fv_step *step, uint32_t segments);
#define FV_ALL_SEGMENTS ((1u << FV_SEG_COUNT) - 1)

/* The same in two halves, between which the host can prepare the next run: begin does not wait for a device that is not
 * the host itself, end waits for the run that was begun first, and gives its fault. Up to FV_RUNS may be under way.
 *
 *   begin 1 │ feed, begin 2 │ end 1, look │ feed, begin 3 │ end 2, look │ ...
 *
 * Inputs may be given while runs are under way. fv_program_output gives what the newest left behind, and waits for it;
 * what an older one left behind is seen only if it was asked for beforehand. */
fv_status fv_program_begin(fv_program *p, const fv_step *step, uint32_t segments);
fv_status fv_program_end(fv_program *p);
int fv_program_running(const fv_program *p); /* begun and not yet ended */
/* Of every run begun from now on keep these outputs. Once per program, while none is under way. */
fv_status fv_program_watch(fv_program *p, const char *const *names, int n);
/* One of those, of the run that ended last; valid until two more have begun. NULL if there is none of that name. */
const void *fv_program_seen(const fv_program *p, const char *name);

/* The planner alone (fv_compile calls it); exposed for tests and `fovea info`. Memory from the graph's arena. */
fv_status fv_plan_make(fv_graph *g, fv_store *store, const fv_device *dev, const fv_compile_opts *opts, fv_plan *out);

#endif
