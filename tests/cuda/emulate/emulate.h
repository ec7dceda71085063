/* emulate.h: the device side of the emulation: what a kernel finds (threadIdx, __syncthreads, shuffles, intrinsics).
 *
 *   launch ─► queue ─► blocks in a shuffled order, on a few threads ─► per block: one fiber per thread of the block
 *
 * A fiber runs until it waits at a barrier. One that ends without waiting leaves its stack to the next, so kernels
 * without barriers cost no more than a loop. */
#ifndef FV_TESTS_EMULATE_H
#define FV_TESTS_EMULATE_H

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __thread
/* One block at a time runs on a thread of the host. */

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) {
    return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w) {
    return {x, y, z, w};
}
static inline uint2 make_uint2(unsigned x, unsigned y) {
    return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) {
    return {x, y, z, w};
}

/* ---------------------------------------------------------------- one thread of a block */

struct fv_emulated_barrier {
    int expected, arrived;
    unsigned generation;
};
struct fv_emulated_warp {
    fv_emulated_barrier barrier;
    uint64_t slot[2][32];
};
struct fv_emulated_thread {
    uint3 index;
    unsigned lane, exchanges;
    fv_emulated_warp *warp;
    void *stack;
    const fv_emulated_barrier *waits_for; /* at this generation of it; NULL: can run */
    unsigned generation;
    bool started, done;
};
struct fv_emulated_block {
    uint3 index;
    dim3 size, grid;
    fv_emulated_barrier barrier;
    int votes[2]; /* of __syncthreads_or, by turns */
    void *shared; /* dynamic */
};
extern __thread fv_emulated_thread *fv_emulated_self;
extern __thread fv_emulated_block *fv_emulated_here;
void fv_emulated_arrive(fv_emulated_barrier *barrier); /* returns when all have */

#define threadIdx (fv_emulated_self->index)
#define blockIdx (fv_emulated_here->index)
#define blockDim (fv_emulated_here->size)
#define gridDim (fv_emulated_here->grid)
#define FV_DYNAMIC_SHARED(type, name) type *const name = static_cast<type *>(fv_emulated_here->shared)

static inline void __syncthreads() {
    fv_emulated_arrive(&fv_emulated_here->barrier);
}
static inline void __syncwarp(unsigned = ~0u) {
    fv_emulated_arrive(&fv_emulated_self->warp->barrier);
}
static inline void __threadfence() {
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* Every lane gives a value and reads that of lane `from`. Two sets of slots by turns: nobody writes a set again before
 * all have read it. */
template <typename T> static inline T fv_emulated_exchange(T value, unsigned from) {
    static_assert(sizeof(T) <= 8, "shuffles move up to eight bytes");
    fv_emulated_thread *self = fv_emulated_self;
    uint64_t *slot = self->warp->slot[self->exchanges++ & 1], raw = 0;
    memcpy(&raw, &value, sizeof value);
    slot[self->lane] = raw;
    fv_emulated_arrive(&self->warp->barrier);
    memcpy(&value, &slot[from], sizeof value);
    return value;
}
template <typename T> static inline T __shfl_sync(unsigned, T v, int from, int width = 32) {
    const unsigned lane = fv_emulated_self->lane;
    return fv_emulated_exchange(v, (lane & ~(unsigned)(width - 1)) | ((unsigned)from & (unsigned)(width - 1)));
}
template <typename T> static inline T __shfl_xor_sync(unsigned, T v, int mask, int = 32) {
    return fv_emulated_exchange(v, (fv_emulated_self->lane ^ (unsigned)mask) & 31u);
}
template <typename T> static inline T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
    const unsigned lane = fv_emulated_self->lane;
    return fv_emulated_exchange(v, lane % (unsigned)width + by < (unsigned)width ? lane + by : lane);
}
template <typename T> static inline T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
    const unsigned lane = fv_emulated_self->lane;
    return fv_emulated_exchange(v, lane % (unsigned)width >= by ? lane - by : lane);
}
static inline unsigned __ballot_sync(unsigned, int vote) {
    fv_emulated_thread *self = fv_emulated_self;
    uint64_t *slot = self->warp->slot[self->exchanges++ & 1];
    slot[self->lane] = vote != 0;
    fv_emulated_arrive(&self->warp->barrier);
    unsigned all = 0;
    for (int i = 0; i < 32; i++) all |= (unsigned)slot[i] << i;
    return all;
}
static inline int __any_sync(unsigned mask, int vote) {
    return __ballot_sync(mask, vote) != 0;
}
static inline int __all_sync(unsigned mask, int vote) {
    return __ballot_sync(mask, vote) == ~0u;
}

/* ---------------------------------------------------------------- intrinsics */

template <typename T> static inline T __ldg(const T *p) {
    return *p;
}
template <typename T> static inline T __ldcg(const T *p) {
    return *p;
}
static inline unsigned atomicInc(unsigned *p, unsigned most) {
    unsigned old = __atomic_load_n(p, __ATOMIC_SEQ_CST), next;
    do next = old >= most ? 0 : old + 1;
    while (!__atomic_compare_exchange_n(p, &old, next, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return old;
}
template <typename T> static inline T atomicCAS(T *p, T compare, T value) {
    __atomic_compare_exchange_n(p, &compare, value, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    return compare;
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
static inline double cospi(double x) {
    return cos(3.14159265358979323846 * x);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline float __uint_as_float(unsigned u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}
static inline unsigned __float_as_uint(float f) {
    unsigned u;
    memcpy(&u, &f, sizeof u);
    return u;
}
#define FV_EMULATED_MIN_MAX(T) \
    static inline T min(T a, T b) { \
        return a < b ? a : b; \
    } \
    static inline T max(T a, T b) { \
        return a > b ? a : b; \
    }
FV_EMULATED_MIN_MAX(int)
FV_EMULATED_MIN_MAX(unsigned)
FV_EMULATED_MIN_MAX(long)
FV_EMULATED_MIN_MAX(unsigned long)
FV_EMULATED_MIN_MAX(long long)
FV_EMULATED_MIN_MAX(unsigned long long)
FV_EMULATED_MIN_MAX(float)
FV_EMULATED_MIN_MAX(double)

/* ---------------------------------------------------------------- launching */

struct fv_emulated_launch {
    const char *kernel;
    dim3 grid, block;
    size_t shared;
    std::function<void()> body; /* one thread */
};
void fv_emulated_enqueue(cudaStream_t stream, fv_emulated_launch &&launch);

/* Arguments are converted and copied now, as a launch does. */
template <typename... P, typename... A>
static inline void fv_emulated_start(const char *name, dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
                                     void (*kernel)(P...), A... args) {
    std::tuple<P...> given(args...);
    static_assert(sizeof given <= 4096, "more bytes of parameters than a kernel takes");
    fv_emulated_enqueue(stream, {name, grid, block, shared, [kernel, given] { std::apply(kernel, given); }});
}
#define FV_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
    fv_emulated_start(#kernel, (grid), (block), (shared_bytes), (stream), kernel, __VA_ARGS__)

template <typename K> static inline cudaError_t cudaFuncSetAttribute(K *, int, int) {
    return cudaSuccess;
}
#define cudaFuncAttributeMaxDynamicSharedMemorySize 8

#endif
