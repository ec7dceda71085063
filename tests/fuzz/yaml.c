/* yaml.c: options of `fovea train -c FILE`. What is read can be written as args.yaml and is read again as the same. */
#include "tests/fuzz/fuzz.h"
#include "tools/cli/options.h"

#include <stdlib.h>
#include <string.h>

static void begin(fv_cli *cli, fvt_world *w) {
    memset(cli, 0, sizeof *cli);
    cli->ctx = &w->ctx;
    cli->command = FV_CMD_train;
    fv_arena_init(&cli->arena, &w->ctx);
}

static void write_again(fvt_world *w, fv_cli *cli) {
    fv_cli again;
    char *text = NULL;
    size_t bytes = 0;
    FVT_HOLDS(fv_cli_write_yaml(cli, &text, &bytes) == FV_OK);
    fvt_world_put(w, "/m/again.yaml", text, bytes);
    begin(&again, w);
    fv_status status = fv_cli_read_yaml(&again, "/m/again.yaml", FV_FROM_FILE, NULL, 0);
    fvt_world_judge(w, status, FVT_BIT(FV_OK));
    for (int i = 0; i < OPT_COUNT; i++) {
        const fv_cli_value *x = &cli->value[i], *y = &again.value[i];
        FVT_HOLDS(!x->text == !y->text && (!x->text || strcmp(x->text, y->text) == 0));
        FVT_HOLDS(x->count == y->count && memcmp(x->number, y->number, sizeof x->number) == 0);
    }
    fv_cli_free(&again);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fvt_world w;
    fv_cli cli;
    fvt_world_open(&w, FVT_WORLD_LIMIT);
    fvt_world_put(&w, "/m/options.yaml", data, size);
    begin(&cli, &w);
    fv_status status = fv_cli_read_yaml(&cli, "/m/options.yaml", FV_FROM_FILE, NULL, 0);
    fvt_world_judge(&w, status, FVT_BIT(FV_E_USAGE));
    if (status == FV_OK) write_again(&w, &cli);
    else FVT_HOLDS(strstr(w.ctx.error.message, "line ") != NULL);
    fv_cli_free(&cli);
    fvt_world_close(&w);
    return 0;
}
