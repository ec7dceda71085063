/* blocks.cpp: a launch: its blocks on a few threads of the host, the threads of a block as fibers. */
#include "blocks.h"
#include "fiber.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <unistd.h>
#include <vector>

__thread fv_emulated_thread *fv_emulated_self;
__thread fv_emulated_block *fv_emulated_here;

namespace {

#define MAX_THREADS 1024

/* A thread of the host and what it needs to run a block. */
struct worker {
    fiber scheduler;
    fv_emulated_block block;
    fv_emulated_thread threads[MAX_THREADS];
    fv_emulated_warp warps[MAX_THREADS / 32];
    fiber fibers[MAX_THREADS];
    std::vector<char *> stacks; /* free ones */
    std::vector<char> shared;
    const fv_emulated_launch *launch;
};
__thread worker *here;

[[noreturn]] void die(const fv_emulated_launch *l, const char *what) {
    fprintf(stderr, "emulated CUDA: %s: %s\n", l->kernel, what);
    abort();
}

char *take_stack(worker *w) {
    if (!w->stacks.empty()) {
        char *stack = w->stacks.back();
        w->stacks.pop_back();
        return stack;
    }
    void *stack =
        mmap(nullptr, FIBER_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (stack == MAP_FAILED) die(w->launch, "no memory for stacks");
    return static_cast<char *>(stack);
}

void thread_main() {
    here->launch->body();
    fv_emulated_self->done = true;
    fiber_switch(&here->fibers[fv_emulated_self - here->threads], &here->scheduler);
    abort(); /* one that is done is not resumed */
}

bool can_run(const fv_emulated_thread *t) {
    return !t->done && (!t->waits_for || t->waits_for->generation != t->generation);
}

void run_thread(worker *w, int t) {
    fv_emulated_thread *self = &w->threads[t];
    if (!self->started) {
        self->started = true;
        self->stack = take_stack(w);
        fiber_make(&w->fibers[t], static_cast<char *>(self->stack), thread_main);
    }
    self->waits_for = nullptr;
    fv_emulated_self = self;
    fiber_switch(&w->scheduler, &w->fibers[t]);
    if (self->done) w->stacks.push_back(static_cast<char *>(self->stack));
}

void set_up(worker *w, int n) {
    const dim3 size = w->block.size;
    w->block.barrier = {n, 0, 0};
    for (int i = 0; i < (n + 31) / 32; i++) w->warps[i].barrier = {n - 32 * i < 32 ? n - 32 * i : 32, 0, 0};
    for (int t = 0; t < n; t++) {
        const unsigned u = (unsigned)t;
        w->threads[t] = {};
        w->threads[t].index = {u % size.x, u / size.x % size.y, u / size.x / size.y};
        w->threads[t].lane = u % 32;
        w->threads[t].warp = &w->warps[t / 32];
    }
    w->shared.assign(w->launch->shared + 64, (char)0xff);
    w->block.shared = reinterpret_cast<void *>((reinterpret_cast<uintptr_t>(w->shared.data()) + 63) & ~(uintptr_t)63);
}

void run_block(worker *w, bool backwards) {
    const int n = (int)(w->block.size.x * w->block.size.y * w->block.size.z);
    set_up(w, n);
    for (int left = n; left > 0;) {
        bool moved = false;
        for (int i = 0; i < n; i++) {
            const int t = backwards ? n - 1 - i : i;
            if (!can_run(&w->threads[t])) continue;
            run_thread(w, t);
            left -= w->threads[t].done;
            moved = true;
        }
        if (!moved) die(w->launch, "a barrier or shuffle that not all threads reach");
    }
}

/* ---------------------------------------------------------------- threads of the host */

struct job {
    const fv_emulated_launch *launch;
    uint64_t number; /* of the launch: decides on orders */
    uint64_t blocks, step;
    std::atomic<uint64_t> next{0};
};

struct pool {
    pid_t pid;
    int threads;
    std::mutex lock;
    std::condition_variable wake, idle;
    job *current = nullptr;
    uint64_t round = 0;
    int busy = 0;
};
pool *the_pool;

void work(job *j) {
    if (!here) here = new worker();
    here->launch = j->launch;
    here->block.size = j->launch->block;
    here->block.grid = j->launch->grid;
    fv_emulated_here = &here->block;
    const dim3 grid = j->launch->grid;
    for (uint64_t i; (i = j->next.fetch_add(1)) < j->blocks;) {
        const uint64_t b = (uint64_t)(((unsigned __int128)i * j->step + j->number) % j->blocks);
        here->block.index = {(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
        run_block(here, j->number & 1);
    }
}

void worker_main(pool *p) {
    uint64_t seen = 0;
    for (;;) {
        std::unique_lock<std::mutex> guard(p->lock);
        p->wake.wait(guard, [&] { return p->round != seen; });
        seen = p->round;
        job *j = p->current;
        if (!j) continue;
        p->busy++;
        guard.unlock();
        work(j);
        guard.lock();
        if (--p->busy == 0) p->idle.notify_all();
    }
}

int wanted_threads() {
    const char *given = getenv("FV_EMULATED_THREADS");
    const long n = given ? atol(given) : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : n > 8 ? 8 : (int)n;
}

/* Threads do not survive a fork: a child makes its own. */
pool *get_pool() {
    if (the_pool && the_pool->pid == getpid()) return the_pool;
    the_pool = new pool();
    the_pool->pid = getpid();
    the_pool->threads = wanted_threads();
    for (int i = 1; i < the_pool->threads; i++) std::thread(worker_main, the_pool).detach();
    return the_pool;
}

uint64_t gcd(uint64_t a, uint64_t b) {
    return b ? gcd(b, a % b) : a;
}

} // namespace

void fv_emulated_arrive(fv_emulated_barrier *barrier) {
    fv_emulated_thread *self = fv_emulated_self;
    if (++barrier->arrived == barrier->expected) {
        barrier->arrived = 0;
        barrier->generation++;
        return;
    }
    self->waits_for = barrier;
    self->generation = barrier->generation;
    fiber_switch(&here->fibers[self - here->threads], &here->scheduler);
}

cudaError_t fv_emulated_check(const fv_emulated_launch *l) {
    const uint64_t threads = (uint64_t)l->block.x * l->block.y * l->block.z;
    if (threads == 0 || threads > MAX_THREADS || l->block.z > 64) return cudaErrorInvalidConfiguration;
    if (l->grid.x == 0 || l->grid.y == 0 || l->grid.z == 0) return cudaErrorInvalidConfiguration;
    if (l->grid.x > INT32_MAX || l->grid.y > 65535 || l->grid.z > 65535) return cudaErrorInvalidConfiguration;
    return l->shared <= (size_t)48 << 10 ? cudaSuccess : cudaErrorInvalidValue;
}

void fv_emulated_run(const fv_emulated_launch *l, uint64_t number) {
    job j;
    j.launch = l;
    j.number = number;
    j.blocks = (uint64_t)l->grid.x * l->grid.y * l->grid.z;
    j.step = j.blocks / 3 * 2 + number % 5 + 1;
    while (gcd(j.step, j.blocks) != 1) j.step++;
    pool *p = get_pool();
    const bool shared = p->threads > 1 && j.blocks > 1;
    if (shared) {
        std::lock_guard<std::mutex> guard(p->lock);
        p->current = &j;
        p->round++;
        p->wake.notify_all();
    }
    work(&j);
    if (shared) {
        std::unique_lock<std::mutex> guard(p->lock);
        p->current = nullptr;
        p->idle.wait(guard, [&] { return p->busy == 0; });
    }
}
