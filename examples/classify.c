/* classify.c: from a picture to its label. usage: example-classify MODEL_FOLDER < pixels.rgb   (h*w*c raw bytes) */
#include "fovea.h"
#include <stdio.h>
int main(int argc, char **argv) {
    static uint8_t pixels[1 << 24];
    fv_ctx ctx;
    fv_device *dev;
    fv_classifier *c;
    int64_t k;
    fv_ctx_init(&ctx);
    if (argc < 2 || !fread(pixels, 1, sizeof pixels, stdin) || fv_backend_cpu.open(&ctx, &(fv_device_opts){0}, &dev) ||
        fv_classifier_open(&ctx, dev, argv[1], &c) || fv_classify(c, pixels, &k, NULL))
        return fprintf(stderr, "error: %s\n", ctx.error.message), 1;
    return puts(fv_classifier_label(c, k)) < 0;
}
