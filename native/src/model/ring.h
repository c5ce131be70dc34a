/* ring.h - where in a ring buffer pieces of different sizes lie: first in, first out, each in one
 * part. Positions count bytes since the ring was empty; a piece that would not fit before the end of
 * the buffer begins at its start, and what is left over stays unused. So a ring of three times the
 * longest piece always holds two that follow each other. Arithmetic only. */
#ifndef LLD_RING_H
#define LLD_RING_H

#include <stdbool.h>
#include <stdint.h>

typedef struct lld_ring {
    uint64_t capacity;   /* bytes of the buffer */
    uint64_t head, tail; /* behind the newest piece, where the oldest begins */
} lld_ring;

/* Take room for size bytes, <= capacity; false when too much is in use. *offset: in the buffer.
 * *position: of the piece, for lld_ring_give_back. */
static inline bool lld_ring_take(lld_ring *r, uint64_t size, uint64_t *offset, uint64_t *position)
{
    uint64_t begin = r->head, within = begin % r->capacity;
    if (r->tail == r->head) { /* empty: begin anew */
        r->tail = r->head = begin = within = 0;
    } else if (within + size > r->capacity) {
        begin += r->capacity - within;
        within = 0;
    }
    if (begin + size - r->tail > r->capacity) return false;
    r->head = begin + size;
    *offset = within;
    *position = begin;
    return true;
}

/* Give everything back before the piece at `position`, which is the oldest that is still used; the
 * head where none is. */
static inline void lld_ring_give_back(lld_ring *r, uint64_t position) { r->tail = position; }

#endif
