/* runtime.cpp: memory, streams, events and graphs of the emulation. Every stream has a queue: its work runs, in order,
 * when somebody waits for it, and no more of it than that; so what one stream does for another without an event in
 * between is not there in time. */
#include "blocks.h"

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

typedef std::function<void()> task;

struct CUgraph_st {
    std::vector<task> tasks;
};
struct CUgraphExec_st {
    std::shared_ptr<std::vector<task>> tasks; /* a launch that is queued outlives the handle */
};
struct CUstream_st {
    cudaGraph_t recording;
    bool broken; /* something was done that cannot be recorded */
    std::deque<task> queue;
    int64_t graphs; /* in it */
};
struct CUevent_st {
    double time;            /* seconds */
    cudaStream_t stream;    /* that it was recorded on last */
    int64_t recorded, done; /* how often, and how many of those are over */
};

namespace {

#define PAGE ((size_t)4096)
#define ROOM ((size_t)64 << 30) /* address space */

std::recursive_mutex the_lock;
#define LOCKED() std::lock_guard<std::recursive_mutex> guard_(the_lock)

CUstream_st legacy; /* the stream 0 */
std::vector<cudaStream_t> streams = {&legacy};
std::map<char *, size_t> live;      /* device memory: start, bytes in whole pages */
std::multimap<size_t, char *> gone; /* freed: bytes, start */
std::set<void *> pinned;
std::map<std::string, int64_t> kernels;
std::string kernel_text;
std::set<cudaStream_t> recordings;
fv_emulated_counts counts;
cudaError_t last_error;
uint64_t launch_number;
bool only_counting;
char *room, *room_end;

/* FV_EMULATED_MB: megabytes of device memory, to run out of it. */
size_t from_environment() {
    const char *cap = getenv("FV_EMULATED_MB");
    const double bytes = cap ? 1e6 * atof(cap) : 0;
    return bytes > 0 && bytes < (double)ROOM ? (size_t)bytes : ROOM;
}
size_t &capacity() {
    static size_t bytes = from_environment();
    return bytes;
}

size_t left() {
    const size_t used = (size_t)counts.live_bytes;
    return capacity() > used ? capacity() - used : 0;
}

cudaError_t say(cudaError_t error) {
    if (error != cudaSuccess) last_error = error;
    return error;
}

/* While anything runs; work may wait for other work. */
void open_memory(bool open) {
    static int users;
    if (open ? users++ : --users) return;
    for (const auto &block : live) mprotect(block.first, block.second, open ? PROT_READ | PROT_WRITE : PROT_NONE);
}

cudaStream_t stream_of(cudaStream_t stream) {
    return stream ? stream : &legacy;
}

void run_next(cudaStream_t stream) {
    const task next = std::move(stream->queue.front());
    stream->queue.pop_front();
    next();
}

/* Run what is queued on a stream. */
void drain(cudaStream_t stream) {
    if (stream->queue.empty()) return;
    open_memory(true);
    while (!stream->queue.empty()) run_next(stream);
    open_memory(false);
}

void drain_all() {
    for (size_t i = streams.size(); i-- > 0;) drain(streams[i]);
}

/* Run what an event waits for: its stream up to where it was recorded for the number-th time. */
void reach(cudaEvent_t event, int64_t number) {
    if (event->done >= number) return;
    open_memory(true);
    while (event->done < number && !event->stream->queue.empty()) run_next(event->stream);
    open_memory(false);
}

/* Enqueue, or add to the recording of the stream. */
void put(cudaStream_t stream, task &&t) {
    if (stream && stream->recording) stream->recording->tasks.push_back(std::move(t));
    else stream_of(stream)->queue.push_back(std::move(t));
}

/* What may not happen while any stream records. */
bool refuse_in_recording() {
    for (cudaStream_t s : recordings) s->broken = true;
    return !recordings.empty();
}

bool is_device(const void *ptr) {
    const char *p = static_cast<const char *>(ptr);
    return p >= room && p < room + ROOM;
}

/* Host memory is not checked; device memory must lie within one allocation. */
bool is_valid(const void *ptr, size_t bytes) {
    if (!is_device(ptr)) return ptr != nullptr;
    const char *p = static_cast<const char *>(ptr);
    auto block = live.upper_bound(const_cast<char *>(p));
    if (block == live.begin()) return false;
    --block;
    return bytes <= block->second && p + bytes <= block->first + block->second;
}

bool fits_kind(const void *to, const void *from, cudaMemcpyKind kind) {
    if (kind == cudaMemcpyDefault) return true;
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    return is_device(to) == to_device && is_device(from) == from_device;
}

bool is_pinned(const void *ptr) {
    for (void *block : pinned) /* the size stands before the block */
        if (ptr >= block && ptr < static_cast<char *>(block) + static_cast<size_t *>(block)[-8]) return true;
    return false;
}

double now() {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

cudaError_t wait() {
    if (refuse_in_recording()) return say(cudaErrorStreamCaptureUnsupported);
    counts.waits++;
    drain_all();
    return cudaSuccess;
}

} // namespace

void fv_emulated_enqueue(cudaStream_t stream, fv_emulated_launch &&launch) {
    LOCKED();
    if (say(fv_emulated_check(&launch)) != cudaSuccess) return;
    if (!stream || !stream->recording) counts.enqueued++;
    put(stream, [launch] {
        counts.launches++;
        kernels[launch.kernel]++;
        if (!only_counting) fv_emulated_run(&launch, launch_number++);
    });
}

/* ---------------------------------------------------------------- counters, errors, the device */

fv_emulated_counts fv_emulated_count(void) {
    LOCKED();
    return counts;
}

void fv_emulated_reset(void) {
    LOCKED();
    const fv_emulated_counts before = counts;
    counts = {};
    counts.live = before.live;
    counts.live_bytes = before.live_bytes;
    counts.peak_bytes = before.peak_bytes;
    counts.host_live = before.host_live;
    counts.objects = before.objects;
    kernels.clear();
}

void fv_emulated_only_count(bool on) {
    LOCKED();
    only_counting = on;
}

void fv_emulated_limit(size_t bytes) {
    LOCKED();
    capacity() = bytes ? bytes : from_environment();
}

__attribute__((destructor)) static void write_counts() {
    const char *path = getenv("FOVEA_EMULATED_COUNTS");
    FILE *f = path && path[0] ? fopen(path, "w") : nullptr;
    if (!f) return;
    const struct {
        const char *name;
        int64_t count;
    } lines[] = {{"waits", counts.waits},     {"overlaps", counts.overlaps}, {"allocations", counts.allocations},
                 {"frees", counts.frees},     {"live", counts.live},         {"host_live", counts.host_live},
                 {"objects", counts.objects}, {"bytes_up", counts.bytes_up}, {"peak_bytes", counts.peak_bytes}};
    for (const auto &line : lines) fprintf(f, "%s %lld\n", line.name, (long long)line.count);
    fclose(f);
}

const char *fv_emulated_kernels(void) {
    LOCKED();
    kernel_text.clear();
    for (const auto &k : kernels) kernel_text += std::to_string(k.second) + " " + k.first + "\n";
    return kernel_text.c_str();
}

const char *cudaGetErrorName(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    default: return "cudaErrorUnknown";
    }
}
const char *cudaGetErrorString(cudaError_t error) {
    switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return "unknown error";
    }
}
cudaError_t cudaPeekAtLastError(void) {
    return last_error;
}
cudaError_t cudaGetLastError(void) {
    const cudaError_t error = last_error;
    last_error = cudaSuccess;
    return error;
}

cudaError_t cudaDriverGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    return device == 0 ? cudaSuccess : say(cudaErrorInvalidDevice);
}
cudaError_t cudaGetDevice(int *device) {
    *device = 0;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *prop, int device) {
    if (device != 0) return say(cudaErrorInvalidDevice);
    *prop = {};
    strcpy(prop->name, "Emulated GPU");
    prop->totalGlobalMem = capacity();
    prop->sharedMemPerBlock = prop->sharedMemPerBlockOptin = prop->sharedMemPerMultiprocessor = (size_t)48 << 10;
    prop->major = 7;
    prop->minor = 5;
    prop->multiProcessorCount = 4;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = 1024;
    prop->l2CacheSize = 4 << 20;
    prop->regsPerBlock = 65536;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attr, int device) {
    cudaDeviceProp prop;
    if (cudaGetDeviceProperties(&prop, device) != cudaSuccess) return cudaErrorInvalidDevice;
    switch (attr) {
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = (int)prop.sharedMemPerBlock; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)prop.sharedMemPerBlockOptin; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = prop.multiProcessorCount; return cudaSuccess;
    case cudaDevAttrL2CacheSize: *value = prop.l2CacheSize; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = prop.major; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = prop.minor; return cudaSuccess;
    }
    return say(cudaErrorInvalidValue);
}
cudaError_t cudaDeviceSynchronize(void) {
    LOCKED();
    return wait();
}

/* ---------------------------------------------------------------- memory */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes) {
    LOCKED();
    *total_bytes = capacity();
    *free_bytes = left();
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **ptr, size_t bytes) {
    LOCKED();
    if (refuse_in_recording()) return say(cudaErrorStreamCaptureUnsupported);
    *ptr = nullptr;
    if (!room) {
        void *map = mmap(nullptr, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (map == MAP_FAILED) return say(cudaErrorMemoryAllocation);
        room = room_end = static_cast<char *>(map);
    }
    if (bytes > capacity()) return say(cudaErrorMemoryAllocation);
    const size_t size = (bytes + PAGE - 1) / PAGE * PAGE + (bytes == 0 ? PAGE : 0);
    if (size > left()) return say(cudaErrorMemoryAllocation);
    char *block = room_end;
    const auto old = gone.find(size);
    if (old != gone.end()) {
        block = old->second;
        gone.erase(old);
    } else {
        if (size + PAGE > (size_t)(room + ROOM - room_end)) return say(cudaErrorMemoryAllocation);
        room_end += size + PAGE;
    }
    if (mprotect(block, size, PROT_READ | PROT_WRITE)) return say(cudaErrorMemoryAllocation);
    memset(block, 0xff, size);
    mprotect(block, size, PROT_NONE);
    live[block] = size;
    counts.allocations++;
    counts.live++;
    counts.live_bytes += (int64_t)size;
    if (counts.live_bytes > counts.peak_bytes) counts.peak_bytes = counts.live_bytes;
    *ptr = block;
    return cudaSuccess;
}

cudaError_t cudaFree(void *ptr) {
    LOCKED();
    if (!ptr) return cudaSuccess;
    const cudaError_t waited = wait();
    if (waited != cudaSuccess) return waited;
    const auto block = live.find(static_cast<char *>(ptr));
    if (block == live.end()) return say(cudaErrorInvalidValue);
    counts.frees++;
    counts.live--;
    counts.live_bytes -= (int64_t)block->second;
    madvise(block->first, block->second, MADV_DONTNEED);
    gone.emplace(block->second, block->first);
    live.erase(block);
    return cudaSuccess;
}

cudaError_t cudaHostAlloc(void **ptr, size_t bytes, unsigned flags) {
    LOCKED();
    (void)flags;
    if (refuse_in_recording()) return say(cudaErrorStreamCaptureUnsupported);
    char *block = static_cast<char *>(aligned_alloc(64, (bytes + 127) / 64 * 64));
    if (!block) return say(cudaErrorMemoryAllocation);
    *ptr = block + 64;
    reinterpret_cast<size_t *>(*ptr)[-8] = bytes;
    pinned.insert(*ptr);
    counts.host_live++;
    return cudaSuccess;
}
cudaError_t cudaMallocHost(void **ptr, size_t bytes) {
    return cudaHostAlloc(ptr, bytes, cudaHostAllocDefault);
}
cudaError_t cudaFreeHost(void *ptr) {
    LOCKED();
    if (!ptr) return cudaSuccess;
    const cudaError_t waited = wait();
    if (waited != cudaSuccess) return waited;
    if (!pinned.erase(ptr)) return say(cudaErrorInvalidValue);
    counts.host_live--;
    free(static_cast<char *>(ptr) - 64);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream) {
    LOCKED();
    if (!bytes) return cudaSuccess;
    if (!is_valid(to, bytes) || !is_valid(from, bytes) || !fits_kind(to, from, kind)) return say(cudaErrorInvalidValue);
    if (!is_device(from) && !is_pinned(from) && !(stream && stream->recording)) {
        /* Pageable memory has been read when the call returns. */
        const auto staged = std::make_shared<std::vector<char>>(static_cast<const char *>(from),
                                                                static_cast<const char *>(from) + bytes);
        put(stream, [=] {
            counts.copies++;
            counts.bytes_up += is_device(to) ? (int64_t)bytes : 0;
            memcpy(to, staged->data(), bytes);
        });
        return cudaSuccess;
    }
    put(stream, [=] {
        counts.copies++;
        counts.bytes_up += is_device(to) && !is_device(from) ? (int64_t)bytes : 0;
        memmove(to, from, bytes);
    });
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind) {
    LOCKED();
    const cudaError_t error = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    return error == cudaSuccess ? wait() : error;
}
cudaError_t cudaMemsetAsync(void *ptr, int value, size_t bytes, cudaStream_t stream) {
    LOCKED();
    if (!bytes) return cudaSuccess;
    if (!is_device(ptr) || !is_valid(ptr, bytes)) return say(cudaErrorInvalidValue);
    put(stream, [=] {
        counts.sets++;
        memset(ptr, value, bytes);
    });
    return cudaSuccess;
}
cudaError_t cudaMemset(void *ptr, int value, size_t bytes) {
    return cudaMemsetAsync(ptr, value, bytes, nullptr);
}

/* ---------------------------------------------------------------- streams and events */

cudaError_t cudaStreamCreate(cudaStream_t *stream) {
    LOCKED();
    *stream = new CUstream_st();
    streams.push_back(*stream);
    counts.objects++;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned flags) {
    (void)flags;
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *stream, unsigned flags, int priority) {
    (void)flags, (void)priority;
    return cudaStreamCreate(stream);
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    LOCKED();
    if (!stream) return say(cudaErrorInvalidResourceHandle);
    drain(stream);
    for (size_t i = 0; i < streams.size(); i++)
        if (streams[i] == stream) streams.erase(streams.begin() + (std::ptrdiff_t)i);
    delete stream;
    counts.objects--;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    LOCKED();
    if (refuse_in_recording()) return say(cudaErrorStreamCaptureUnsupported);
    counts.waits++;
    drain(stream_of(stream));
    return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    LOCKED();
    return stream_of(stream)->queue.empty() ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags) {
    LOCKED();
    (void)flags;
    if (!event) return say(cudaErrorInvalidResourceHandle);
    const int64_t number = event->recorded;
    put(stream, [=] { reach(event, number); });
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t fn, void *user) {
    LOCKED();
    put(stream, [=] {
        open_memory(false);
        fn(user);
        open_memory(true);
    });
    return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned flags) {
    LOCKED();
    (void)flags;
    *event = new CUevent_st();
    counts.objects++;
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *event) {
    return cudaEventCreateWithFlags(event, cudaEventDefault);
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    LOCKED();
    const int64_t number = ++event->recorded;
    event->stream = stream_of(stream);
    put(stream, [=] {
        event->time = now();
        event->done = number;
    });
    return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
    LOCKED();
    if (refuse_in_recording()) return say(cudaErrorStreamCaptureUnsupported);
    if (event->done == event->recorded) return cudaSuccess; /* no wait */
    counts.waits++;
    reach(event, event->recorded);
    return cudaSuccess;
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
    LOCKED();
    return event->done == event->recorded ? cudaSuccess : cudaErrorNotReady;
}
cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end) {
    LOCKED();
    if (start->done != start->recorded || end->done != end->recorded) return say(cudaErrorNotReady);
    *milliseconds = (float)(1e3 * (end->time - start->time));
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    LOCKED();
    if (!event) return say(cudaErrorInvalidResourceHandle);
    drain_all();
    delete event;
    counts.objects--;
    return cudaSuccess;
}

/* ---------------------------------------------------------------- graphs */

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, enum cudaStreamCaptureMode mode) {
    LOCKED();
    (void)mode;
    if (!stream || stream->recording) return say(cudaErrorStreamCaptureUnsupported);
    stream->recording = new CUgraph_st();
    stream->broken = false;
    recordings.insert(stream);
    counts.objects++;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph) {
    LOCKED();
    *graph = nullptr;
    if (!stream || !stream->recording) return say(cudaErrorInvalidValue);
    recordings.erase(stream);
    cudaGraph_t recorded = stream->recording;
    stream->recording = nullptr;
    counts.recordings++;
    if (stream->broken) {
        cudaGraphDestroy(recorded);
        return say(cudaErrorStreamCaptureInvalidated);
    }
    *graph = recorded;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status) {
    LOCKED();
    *status = !stream || !stream->recording ? cudaStreamCaptureStatusNone
              : stream->broken              ? cudaStreamCaptureStatusInvalidated
                                            : cudaStreamCaptureStatusActive;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *exec, cudaGraph_t graph, unsigned long long flags) {
    LOCKED();
    (void)flags;
    *exec = new CUgraphExec_st();
    (*exec)->tasks = std::make_shared<std::vector<task>>(graph->tasks);
    counts.objects++;
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t *nodes, size_t *count) {
    LOCKED();
    if (nodes) return say(cudaErrorNotSupported);
    *count = graph->tasks.size();
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t exec, cudaStream_t stream) {
    (void)exec, (void)stream;
    return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    LOCKED();
    const auto tasks = exec->tasks;
    counts.graphs++;
    counts.overlaps += stream->graphs++ > 0;
    put(stream, [=] {
        stream->graphs--;
        for (const task &t : *tasks) t();
    });
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    LOCKED();
    delete graph;
    counts.objects--;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
    LOCKED();
    delete exec;
    counts.objects--;
    return cudaSuccess;
}
