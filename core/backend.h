/* backend.h: what a backend fills in. Host code never knows which one it drives.
 *
 *   open ─► device ──compile(plan)──► exec ──set_step, enqueue(segments), fetch──► ... fetched ─► destroy ─► close
 *
 * A run is what one enqueue began. The host may be FV_RUNS of them ahead: it learns what came out of a run from
 * fetched, which waits. A device whose memory is the host's has done it all when enqueue returns.
 */
#ifndef FV_CORE_BACKEND_H
#define FV_CORE_BACKEND_H

#include "core/graph.h"
#include "core/thread.h"

typedef struct fv_device fv_device;
typedef struct fv_exec fv_exec;
typedef struct fv_plan fv_plan;

#define FV_MAX_GROUPS 16
#define FV_RUNS 2 /* that may be under way */

/* Muon's polynomial: a x + b x^3 + c x^5 of singular values (Jordan et al. 2024). */
#define FV_MUON_A 3.4445
#define FV_MUON_B (-4.7750)
#define FV_MUON_C 2.0315

/* Everything that varies from step to step. It lives in device memory; nothing of it is baked into a program. */
typedef struct fv_step {
    uint64_t seed;
    int64_t step, epoch;
    double lr[FV_MAX_GROUPS], weight_decay[FV_MAX_GROUPS]; /* by update group */
    double ema_decay;
    double lookahead_decay; /* of the slow copies, at a step where they and the weights meet */
    bool lookahead;         /* whether this is one */
    /* Gradients come multiplied by it, in a graph whose loss was (fv_loss_scale); updates and their norm are of
     * gradients divided by it. 0 as 1, which it is in other graphs. */
    double loss_scale;
    /* After a step that was not finite (grad_stats) with this set, no later one updates anything. For devices that have
     * begun the next step when the host hears of it; where runs are over on return, it has no effect. */
    bool halts;
} fv_step;
static inline double fv_step_unscale(const fv_step *step) {
    return step->loss_scale > 0 ? 1 / step->loss_scale : 1;
}

typedef struct fv_fetch { /* a copy to the host, into memory of pin() */
    void *to;
    const void *from;
    size_t bytes;
} fv_fetch;

typedef enum fv_copy_kind { FV_COPY_TO_DEVICE, FV_COPY_TO_HOST, FV_COPY_ON_DEVICE } fv_copy_kind;

typedef struct fv_device_opts {
    int threads;     /* host backends; 0: as many as the process may use */
    const char *isa; /* cpu: "generic", "avx2", "avx512", "avx512_bf16"; NULL: the fastest this CPU has */
    bool direct;     /* cpu: sum convolutions tap by tap, without Winograd's filtering: slower, roundings a fifth */
    int index;       /* cuda: which GPU */
    bool fast;       /* cuda: TF32 in float32, and sums in any order: not the same bits in every run */
    /* cuda: the file of which library kernel was the fastest for a problem; measured where it does not say. NULL: the
     * libraries' heuristics choose. Read while the device is opened and appended to afterwards. */
    const char *autotune;
    bool no_graphs; /* cuda: launch every kernel by itself instead of recording a step into a CUDA graph */
} fv_device_opts;

typedef struct fv_backend {
    const char *name;
    fv_status (*open)(fv_ctx *ctx, const fv_device_opts *opts, fv_device **out);
    void (*close)(fv_device *dev);
    /* Zeroed memory, 64-byte aligned; FV_E_MEMORY says how much was needed. */
    fv_status (*alloc)(fv_device *dev, size_t bytes, void **out);
    void (*free)(fv_device *dev, void *ptr, size_t bytes);
    size_t (*free_bytes)(fv_device *dev); /* how much there is; NULL where it is the host's */
    /* The same for memory of the host that the device copies into by itself. */
    fv_status (*pin)(fv_device *dev, size_t bytes, void **out);
    void (*unpin)(fv_device *dev, void *ptr, size_t bytes);
    /* In order with what was enqueued before. To the host: waits. To the device: `src` may change on return, and what
     * was enqueued is waited for only when the host is more than a batch ahead. */
    fv_status (*copy)(fv_device *dev, void *dst, const void *src, size_t bytes, fv_copy_kind kind);
    /* Whether the node can run here; if not, why. Nothing falls back to another device. */
    bool (*supports)(const fv_device *dev, const fv_graph *g, const fv_node *node, char *why, size_t size);
    fv_status (*rewrite)(fv_device *dev, fv_graph *g); /* the backend's own fusions; may be NULL */
    size_t (*workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node);
    /* Bytes that a node keeps from run to run for what it makes of operands that do not change then (packed weights);
     * 0: nothing. Bit k of `constant`: operand k. *workspace is what workspace() says, and becomes what is needed
     * beside them. NULL: no node keeps anything. */
    size_t (*prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                       size_t *workspace);
    fv_status (*compile)(fv_device *dev, const fv_plan *plan, fv_exec **out); /* the plan outlives the exec */
    /* Fill what nodes keep: before the first run, and whenever the store has changed. */
    fv_status (*prepare)(fv_exec *exec);
    /* Run the segments in the mask (1 << FV_SEG_...), in order. Allocates nothing after the second time with a mask,
     * waits for nothing. */
    fv_status (*enqueue)(fv_exec *exec, uint32_t segments);
    fv_status (*set_step)(fv_exec *exec, const fv_step *step);
    /* Once after every enqueue: copy these results of the run to the host when it is over; waits for nothing. */
    fv_status (*fetch)(fv_exec *exec, const fv_fetch *list, int n);
    /* Wait for the oldest run that this was not asked of yet, and its copies. An error that a kernel left behind, e.g.
     * a label out of range, is returned. */
    fv_status (*fetched)(fv_exec *exec);
    void (*destroy)(fv_exec *exec);
    /* Seconds per node of the graph, for `fovea bench --profile`: counted from the call with on = true. */
    fv_status (*profile)(fv_exec *exec, bool on);
    const double *(*node_seconds)(fv_exec *exec);
} fv_backend;

/* First member of every backend's own device struct. */
struct fv_device {
    const fv_backend *backend;
    fv_ctx *ctx;            /* borrowed */
    char text[128];         /* "cpu avx512 x2" */
    char kernels[32];       /* the family of kernels, "avx512": results are the same bits within one */
    char libraries[128];    /* whose kernels it calls, with versions: "driver 13.0, cuDNN 9.19.0"; "" if only its own */
    size_t peak_bytes;      /* most memory that was held at once; 0 where that is the host's */
    double busy_seconds;    /* that runs took, of those that were fetched; 0 where the host itself computes */
    bool host_memory;       /* pointers may be read by the host */
    int threads;            /* that compute side by side; 0 where that is the backend's own affair */
    const fv_device *alone; /* this one with a single thread, for parts of a batch (program.h); NULL: it has none */
};

extern const fv_backend fv_backend_ref; /* plain loops, all float types: the specification */
extern const fv_backend fv_backend_cpu; /* vector kernels, float32, bf16 and f16 */

/* "ref" or "cpu", which are part of the library. NULL if unknown. */
const fv_backend *fv_backend_find(const char *name);

/* The same, or that of libfovea-NAME.so, which stays open from then on: in `folder`, or with NULL beside the program,
 * in ../lib from there, beside the library, and where the loader looks. FV_E_MEMORY when there is none or it does not
 * fit this library. */
fv_status fv_backend_load(fv_ctx *ctx, const char *name, const char *folder, const fv_backend **out);

/* What such a shared object exports as `fv_backend_entry`: its backend; NULL if it was built from other headers. */
typedef const fv_backend *(*fv_backend_entry_fn)(uint64_t abi);
/* Changes with what backends and the library share: operations, structs, version. */
uint64_t fv_backend_abi(void);

#endif
