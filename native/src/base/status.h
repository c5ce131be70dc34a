/* status.h - the thread-local failure message behind lld_status.
 * Rule: the code that finds a fault names it, with lld_fail; callers pass the status up unchanged. */
#ifndef LLD_STATUS_H
#define LLD_STATUS_H

#include "llamad_engine.h"

/* Set this thread's message (cut at 511 bytes, control characters replaced) and return `status`. */
int lld_fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
