/* device.c: see device.h. */
#include "tools/device.h"

#include <stdlib.h>
#include <string.h>

static fv_status open_named(fv_ctx *ctx, const fv_cli *cli, const char *name, fv_device **out) {
    const fv_backend *backend;
    const char *colon = strchr(name, ':');
    char kind[16];
    snprintf(kind, sizeof kind, "%.*s", (int)strcspn(name, ":"), name);
    const char *folder = getenv("FOVEA_BACKENDS");
    char autotune[512];
    const bool tuned = fv_cli_bool(cli, OPT_AUTOTUNE) && strcmp(kind, "cuda") == 0;
    if (tuned) FV_TRY(fv_cache_file(ctx, "autotune.txt", autotune, sizeof autotune));
    FV_TRY(fv_backend_load(ctx, kind, folder && folder[0] ? folder : NULL, &backend));
    fv_device_opts opts = {.threads = (int)fv_cli_int(cli, OPT_THREADS),
                           .isa = fv_cli_text(cli, OPT_ISA),
                           .direct = fv_cli_has(cli, OPT_WINOGRAD) && !fv_cli_bool(cli, OPT_WINOGRAD),
                           .index = colon ? (int)strtol(colon + 1, NULL, 10) : 0,
                           .fast = fv_cli_bool(cli, OPT_FAST),
                           .autotune = tuned ? autotune : NULL,
                           .no_graphs = fv_cli_has(cli, OPT_CUDA_GRAPHS) && !fv_cli_bool(cli, OPT_CUDA_GRAPHS)};
    return backend->open(ctx, &opts, out);
}

fv_status fv_tool_open_device(fv_ctx *ctx, const fv_cli *cli, fv_device **out) {
    const char *name = fv_cli_text(cli, OPT_DEVICE);
    if (strcmp(name, "auto") != 0) return open_named(ctx, cli, name, out);
    fv_error before = ctx->error;
    if (!fv_cli_given(cli, OPT_ISA) && open_named(ctx, cli, "cuda", out) == FV_OK) return FV_OK;
    fv_log(ctx, FV_LOG_DEBUG, "--device auto takes cpu: %s",
           fv_cli_given(cli, OPT_ISA) ? "--isa is for it" : ctx->error.message);
    ctx->error = before;
    return open_named(ctx, cli, "cpu", out);
}
