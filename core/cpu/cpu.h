/* cpu.h: the CPU backend from inside. Files in core/cpu/kernels/ are compiled once per instruction set (FV_ISA =
 * generic, avx2, avx512); every name in them that others see goes through CPU(), so that the three builds live side by
 * side (avx512_bf16 is the build for avx512 and one more of gemm.c):
 *
 *   void CPU(conv2d)(const fv_call *c)  ->  fv_cpu_avx512_conv2d, fv_cpu_avx2_conv2d, fv_cpu_generic_conv2d
 *
 * Each build has a table of kernels (table.c); device.c chooses one by what the CPU has. */
#ifndef FV_CORE_CPU_CPU_H
#define FV_CORE_CPU_CPU_H

#include "core/kernel.h"

typedef struct fv_peak { /* a measurement of the peak rate of multiply-adds */
    int64_t rounds;      /* of each tile */
    float factor;
    volatile float result[FV_MAX_THREADS];
} fv_peak;

typedef struct fv_cpu_isa { /* one build of core/cpu/kernels */
    const char *name;
    const fv_kernel (*kernels)[FV_KERNEL_TYPES]; /* by op and type; NULL for float64 */
    size_t (*workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node);
    size_t (*prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                       size_t *workspace);
    fv_tile_fn peak_tile; /* arg: fv_peak */
    double (*peak_flops)(void);
    bool pairs; /* multiplies bf16 in pairs (kernels/gemm.h) */
} fv_cpu_isa;
extern const fv_cpu_isa fv_cpu_isa_generic;
extern const float fv_gelu_pieces[2][5][32]; /* kernels/act.h */
#if defined(__x86_64__)
extern const fv_cpu_isa fv_cpu_isa_avx2, fv_cpu_isa_avx512, fv_cpu_isa_avx512_bf16;
/* Linked into the unit tests only: tiles and tails of 16 lanes, where there is no AVX-512 (kernels/vec.h). */
extern const fv_cpu_isa fv_cpu_isa_wide __attribute__((weak, visibility("hidden")));
#endif

typedef struct fv_cpu_device {
    fv_device base;
    fv_pool *pool;
    const fv_cpu_isa *isa;
    bool direct; /* no Winograd */
} fv_cpu_device;

#define FV_CAT3_(a, b, c) a##b##_##c
#define FV_CAT3(a, b, c) FV_CAT3_(a, b, c)
#ifdef FV_ISA
/* Builds of a kernel file for bf16 and f16 data have names of their own: fv_cpu_avx2_bf16_activation. Those for f16 are
 * where the processor converts; elsewhere mixed.c does. */
#if defined(FV_ISA_avx2) || defined(FV_ISA_avx512)
#define FV_F16_BUILD 1
#endif
#define CPU_BF16(name) FV_CAT3(fv_cpu_, FV_ISA, bf16_##name)
#define CPU_F16(name) FV_CAT3(fv_cpu_, FV_ISA, f16_##name)
/* gemm.c is built again for bf16 in pairs where an instruction multiplies them; `wide` emulates it. */
#if defined(FV_ISA_avx512) || defined(FV_ISA_wide)
#define FV_PAIRS_BUILD 1
#endif
#define CPU_PAIRS(name) FV_CAT3(fv_cpu_, FV_ISA, pairs_##name)
#if defined(FV_BF16_DATA)
#define CPU(name) CPU_BF16(name)
#elif defined(FV_F16_DATA)
#define CPU(name) CPU_F16(name)
#elif defined(FV_PAIRS)
#define CPU(name) CPU_PAIRS(name)
#else
#define CPU(name) FV_CAT3(fv_cpu_, FV_ISA, name)
#endif
/* The kernels of this build: void CPU(conv2d)(const fv_call *c), ... */
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) void CPU(name)(const fv_call *c);
#include "core/ops.def"
/* Those with bf16 and f16 data; an op has them if table.c lists it. */
#define OP(ENUM, name, min_in, max_in, results, attr, diff, cost, onnx) \
    void CPU_BF16(name)(const fv_call *c); \
    void CPU_F16(name)(const fv_call *c);
#include "core/ops.def"
void CPU(peak_tile)(void *arg, int64_t tile, int thread);
double CPU(peak_flops)(void); /* operations of one of its rounds */
/* Bytes of workspace; 0 for the operations of other families. */
size_t CPU(matrix_workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node);
/* What a node keeps (backend.h: prepared); 0 for the operations of other families. */
size_t CPU(matrix_prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                            size_t *workspace);
/* Which operands (bit k: operand k) a node's kernel takes as bf16, in pairs, and whether it gives result 0 so (bit
 * n_in). type: of the operands, then of the results. */
uint32_t CPU(matrix_pairs)(const fv_device *dev, fv_op op, const fv_attr *attr, const fv_type *type, int n_in);
size_t CPU(batch_norm_prepared)(const fv_graph *g, const fv_node *node, uint32_t constant);
size_t CPU(norm_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(batch_norm_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(reduce_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(loss_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(augment_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(update_workspace)(const fv_graph *g, const fv_node *node);
size_t CPU(muon_workspace)(const fv_graph *g, const fv_node *node);

/* mixed.c: a node with bf16 or f16 among its operands or results by its float32 kernel, and what workspace that takes;
 * `plain` gives that of the float32 kernels. */
typedef size_t (*fv_cpu_workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node);
void CPU(mixed)(const fv_call *c, fv_op op, fv_kernel kernel);
size_t CPU(mixed_workspace)(const fv_device *dev, const fv_graph *g, const fv_node *node, fv_cpu_workspace plain);
/* What such a node keeps; `plain` says it of float32 kernels. */
typedef size_t (*fv_cpu_prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                                  size_t *workspace);
size_t CPU(mixed_prepared)(const fv_device *dev, const fv_graph *g, const fv_node *node, uint32_t constant,
                           size_t *workspace, fv_cpu_prepared plain);
#endif

#endif
