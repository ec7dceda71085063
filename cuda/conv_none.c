/* conv_none.c: instead of conv_cudnn.c where cudnn.h is not there: cuBLASLt does without it. */
#include "cuda/conv_cudnn.h"

#include <stdio.h>

bool fv_cudnn_functions(fv_cudnn *cudnn, void *library) {
    (void)cudnn, (void)library;
    return false;
}

size_t fv_cudnn_version(const fv_cudnn *cudnn) {
    (void)cudnn;
    return 0;
}

bool fv_cudnn_open(fv_cudnn *cudnn, cudaStream_t stream, char *why, size_t size) {
    (void)cudnn, (void)stream;
    snprintf(why, size, "built without cuDNN");
    return false;
}

void fv_cudnn_close(fv_cudnn *cudnn) {
    (void)cudnn;
}

bool fv_cudnn_plans_make(const fv_cudnn *cudnn, const fv_cuda_problem *p, const fv_cudnn_limits *limits,
                         fv_cudnn_plans *out, char *why, size_t size) {
    (void)cudnn, (void)p, (void)limits;
    *out = (fv_cudnn_plans){0};
    snprintf(why, size, "built without cuDNN");
    return false;
}

void fv_cudnn_plans_keep(const fv_cudnn *cudnn, fv_cudnn_plans *plans, int i) {
    (void)cudnn, (void)plans, (void)i;
}

void fv_cudnn_plans_free(const fv_cudnn *cudnn, fv_cudnn_plans *plans) {
    (void)cudnn;
    *plans = (fv_cudnn_plans){0};
}

const char *fv_cudnn_run(const fv_cudnn *cudnn, const fv_cudnn_plan *plan, void *const xwy[3], void *workspace) {
    (void)cudnn, (void)plan, (void)xwy, (void)workspace;
    return "built without cuDNN";
}
