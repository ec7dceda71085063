/* cuda_bf16.h: the type that tensor cores take. */
#ifndef FV_TESTS_CUDA_BF16_H
#define FV_TESTS_CUDA_BF16_H

#include <stdint.h>

struct __nv_bfloat16 {
    uint16_t bits;
};

#endif
