#include "tools/train/signals.h"

#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <unistd.h>

static volatile sig_atomic_t stop_signal, save_wanted;
static struct timespec stopped; /* when the first one came; only on_stop touches it */

/* timeout(1) signals a process and then its group: what comes twice within a fifth of a second was meant once. */
static bool meant_again(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (now.tv_sec - stopped.tv_sec) * 1000000000LL + (now.tv_nsec - stopped.tv_nsec) >= 200000000LL;
}

static void on_stop(int number) {
    static const char text[] = "\nfovea: finishing the step, then saving; once more to leave at once\n";
    if (stop_signal && meant_again()) _exit(128 + number);
    if (stop_signal) return;
    clock_gettime(CLOCK_MONOTONIC, &stopped);
    stop_signal = number;
    if (write(STDERR_FILENO, text, sizeof text - 1) < 0) return; /* a closed terminal is no reason not to save */
}

static void on_save(int number) {
    (void)number;
    save_wanted = 1;
}

void fv_signal_prepare(void) {
    signal(SIGUSR1, SIG_IGN);
}

void fv_signal_watch(void) {
    struct sigaction stop = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    struct sigaction save = {.sa_handler = on_save, .sa_flags = SA_RESTART};
    sigaddset(&stop.sa_mask, SIGINT); /* one at a time, whichever it is */
    sigaddset(&stop.sa_mask, SIGTERM);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &save, NULL);
    signal(SIGPIPE, SIG_IGN); /* a reader that left must not end a training run; writes then fail with EPIPE */
}

int fv_signal_pending(void) {
    return stop_signal;
}

bool fv_signal_wants_save(void) {
    return save_wanted;
}

bool fv_signal_take_save(void) {
    bool wanted = save_wanted;
    save_wanted = 0;
    return wanted;
}
