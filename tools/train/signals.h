/* signals.h: SIGINT and SIGTERM ask for an orderly end, a second one, 0.2 s later or more, ends at once; SIGUSR1 asks
 * to save and go on. */
#ifndef FV_TOOLS_TRAIN_SIGNALS_H
#define FV_TOOLS_TRAIN_SIGNALS_H

#include <stdbool.h>

void fv_signal_prepare(void);    /* SIGUSR1 no longer kills: until fv_signal_watch there is nothing to save */
void fv_signal_watch(void);      /* from now on */
int fv_signal_pending(void);     /* number of the signal that asked for the end; 0: none */
bool fv_signal_wants_save(void); /* whether SIGUSR1 came since the last fv_signal_take_save */
bool fv_signal_take_save(void);  /* the same, and forget it */

#endif
