/* fiber.h: stacks to switch between, by hand where that is known, else by ucontext. */
#ifndef FV_TESTS_EMULATE_FIBER_H
#define FV_TESTS_EMULATE_FIBER_H

#define FIBER_STACK ((size_t)128 << 10)

#if defined(__x86_64__)
/* A fiber that does not run is its stack pointer; the registers that a call preserves lie there. */
typedef void *fiber;
extern "C" void fv_emulated_switch(fiber *from, fiber to);
asm(".text\n.hidden fv_emulated_switch\n.globl fv_emulated_switch\n.type fv_emulated_switch,@function\n"
    "fv_emulated_switch:\n"
    "  push %rbp\n  push %rbx\n  push %r12\n  push %r13\n  push %r14\n  push %r15\n"
    "  mov %rsp, (%rdi)\n  mov %rsi, %rsp\n"
    "  pop %r15\n  pop %r14\n  pop %r13\n  pop %r12\n  pop %rbx\n  pop %rbp\n  ret\n"
    ".size fv_emulated_switch, .-fv_emulated_switch\n");
static inline void fiber_make(fiber *f, char *stack, void (*entry)()) {
    void **top = reinterpret_cast<void **>(stack + FIBER_STACK) - 2; /* at its entry a function is 8 off 16 */
    top[0] = reinterpret_cast<void *>(entry);
    for (int i = 1; i <= 6; i++) top[-i] = nullptr;
    *f = top - 6;
}
static inline void fiber_switch(fiber *from, fiber *to) {
    fv_emulated_switch(from, *to);
}
#else
#include <ucontext.h>
typedef ucontext_t fiber;
static inline void fiber_make(fiber *f, char *stack, void (*entry)()) {
    getcontext(f);
    f->uc_stack.ss_sp = stack;
    f->uc_stack.ss_size = FIBER_STACK;
    f->uc_link = nullptr;
    makecontext(f, entry, 0);
}
static inline void fiber_switch(fiber *from, fiber *to) {
    swapcontext(from, to);
}
#endif

#endif
