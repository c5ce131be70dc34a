/* window.c - the ring. */
#include "sample/window.h"

#include <float.h>

void lld_window_push(lld_window *w, int32_t token)
{
    if (w->capacity == 0) return;
    w->items[w->next] = (lld_recent){.token = token};
    w->next = (w->next + 1) % w->capacity;
    w->n += w->n < w->capacity;
}

const lld_recent *lld_window_at(const lld_window *w, size_t i)
{
    return &w->items[(w->next + w->capacity - 1 - i) % w->capacity];
}

void lld_window_break(lld_window *w)
{
    if (w->n > 0) w->items[(w->next + w->capacity - 1) % w->capacity].breaks = true;
}

float lld_finite_logit(double logit)
{
    return logit > FLT_MAX ? FLT_MAX : logit < -FLT_MAX ? -FLT_MAX : (float)logit;
}
