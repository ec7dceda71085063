/* cuda_fp16.h: the other type that tensor cores take. */
#ifndef FV_TESTS_CUDA_FP16_H
#define FV_TESTS_CUDA_FP16_H

#include <stdint.h>

struct __half {
    uint16_t bits;
};

#endif
