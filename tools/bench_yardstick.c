/* bench_yardstick.c: `bench --mode yardstick`: the rate of one fixed float32 matrix product, a measure of the machine
 * as it is now. `make bench-quick` divides by it, so that what it compares does not depend on clock and neighbours. It
 * uses nothing of the kernels, and must not be made faster: recorded ratios would then say that they had become slower.
 */
#include "tools/bench.h"

#include <stdlib.h>

enum { SIDE = 128, ROWS = 4, LANES = 4, MOST = 100000 };
#define FLOPS (2.0 * SIDE * SIDE * SIDE)
#define REPEAT 16 /* products of each thread in one round */

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

typedef struct product { /* of one thread; each is 128 x 128 */
    float a[SIDE * SIDE];
    lanes b[SIDE * SIDE / LANES], c[SIDE * SIDE / LANES];
} product;

static void multiply(product *p) {
    enum { ACROSS = SIDE / LANES };
    for (int i = 0; i < SIDE; i += ROWS)
        for (int j = 0; j < ACROSS; j += 2) {
            lanes sum[ROWS][2] = {{{0}}};
            for (int k = 0; k < SIDE; k++)
                for (int r = 0; r < ROWS; r++) {
                    lanes x = p->a[(i + r) * SIDE + k] - (lanes){0};
                    sum[r][0] += x * p->b[k * ACROSS + j];
                    sum[r][1] += x * p->b[k * ACROSS + j + 1];
                }
            for (int r = 0; r < ROWS; r++) {
                p->c[(i + r) * ACROSS + j] = sum[r][0];
                p->c[(i + r) * ACROSS + j + 1] = sum[r][1];
            }
        }
}

static void tile(void *arg, int64_t index, int thread) {
    product *p = (product *)arg + index;
    (void)thread;
    for (int k = 0; k < REPEAT; k++) {
        multiply(p);
        p->a[k] = p->c[k][0] * 1e-3f; /* so that no product can be left out */
    }
}

static int by_value(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double median_rate(fv_pool *pool, product *products, double seconds, double *rates) {
    int n = 0, threads = fv_pool_threads(pool);
    double start = fv_tool_now(), now = start;
    do {
        double before = now;
        fv_pool_run(pool, threads, tile, products);
        now = fv_tool_now();
        rates[n++] = FLOPS * REPEAT * threads / (now - before);
    } while (now - start < seconds && n < MOST);
    qsort(rates, (size_t)n, sizeof *rates, by_value);
    return rates[n / 2];
}

fv_status fv_bench_yardstick(fv_tool *tool) {
    fv_ctx *ctx = &tool->ctx;
    fv_pool *pool;
    FV_TRY(fv_cli_resolve(&tool->cli, OPT_THREADS, "%d", fv_cpu_count()));
    FV_TRY(fv_pool_create(ctx, (int)fv_cli_int(&tool->cli, OPT_THREADS), &pool));
    size_t threads = (size_t)fv_pool_threads(pool);
    product *products = fv_alloc(ctx, threads, sizeof *products);
    double *rates = fv_alloc(ctx, MOST, sizeof *rates);
    fv_status status = products && rates ? FV_OK : FV_E_MEMORY;
    if (status == FV_OK) {
        for (size_t t = 0; t < threads; t++)
            for (int i = 0; i < SIDE * SIDE; i++) {
                products[t].a[i] = (float)(i % 7) * 0.1f;
                products[t].b[i / LANES][i % LANES] = (float)(i % 5) * 0.1f;
            }
        double rate = 1e-9 * median_rate(pool, products, fv_cli_float(&tool->cli, OPT_SECONDS), rates);
        fv_console_result(&tool->console, "fixed product of %dx%d matrices, %zu threads: %.2f GFLOP/s", SIDE, SIDE,
                          threads, rate);
        status = fv_console_json(&tool->console, ctx,
                                 json_pack("{s:s, s:o, s:I}", "mode", "yardstick", "gflops", fv_json_number(rate, 6),
                                           "threads", (json_int_t)threads));
    }
    fv_free(ctx, rates, MOST, sizeof *rates);
    fv_free(ctx, products, threads, sizeof *products);
    fv_pool_destroy(pool);
    return status;
}
