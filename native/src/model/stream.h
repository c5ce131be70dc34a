/* stream.h - extents that are read from the disk in every pass, ahead of their use.
 *
 * Threads read the streamed extents in the order of use into a locked ring, as far ahead as the ring
 * is large. Behind the last they go on with the first: every pass needs them again. Those of the
 * output matrix they read when a pass has begun that keeps logits. An extent leaves the ring when all
 * of its rows were multiplied with all rows of the batch.
 *
 * A pass takes extents in ring order, at most two at a time: those are always in the ring together, so
 * they are used up and the ring moves on.
 * Nothing here maps, locks weights or knows layers. */
#ifndef LLD_STREAM_H
#define LLD_STREAM_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/direct_file.h"
#include "llamad_engine.h"

typedef struct lld_stream lld_stream;

/* fd, path: as for lld_direct_file_open, in use until destroy. */
int lld_stream_create(int fd, const char *path, lld_stream **out);
void lld_stream_destroy(lld_stream *stream);

/* Stream the extents that are neither resident nor of the embedding or an expert, from now on, through
 * a ring of ring_bytes; begin to read. No pass may run. Locks the ring within lock_bytes. When it fails nothing
 * streams. */
int lld_stream_set(lld_stream *stream, const lld_extent *extents, const lld_residency *residency);

/* Whether anything streams; whether this extent does. While no lld_stream_set runs. */
bool lld_stream_is_active(const lld_stream *stream);
bool lld_stream_has(const lld_stream *stream, size_t extent);

/* What the extents of a pass are multiplied with, and what ends it early. */
typedef struct lld_stream_pass {
    uint32_t n_rows;          /* of the batch */
    uint32_t n_kept;          /* rows of logits; 0: the output matrix is not used */
    const atomic_int *cancel; /* nonzero: stop waiting; whoever sets it calls lld_stream_wake */
} lld_stream_pass;

/* One pass at a time: waits for the one that runs. */
void lld_stream_begin(lld_stream *stream, const lld_stream_pass *pass);
/* complete: every extent of the pass was used. LLD_ERR_FAULT with the reader's message when the
 * disk failed, LLD_ERR_CANCELLED when the pass was stopped. */
int lld_stream_end(lld_stream *stream, bool complete);

/* The first byte of an extent that streams, when it is there; waits for the disk. NULL: the pass
 * ends, cancelled or failed. Any thread of the pass, in the order of use. */
const uint8_t *lld_stream_take(lld_stream *stream, size_t extent);
/* n_products (row of the extent, row of the batch) are done. Whether they were the last. */
bool lld_stream_give_back(lld_stream *stream, size_t extent, uint64_t n_products);
/* Whether this pass was stopped: lld_stream_take has returned NULL. */
bool lld_stream_is_stopped(const lld_stream *stream);
/* Let those that wait look at their cancel flag. Any thread, any time. */
void lld_stream_wake(lld_stream *stream);

/* Fill what the stream knows: streamed and ring bytes, what was read and waited for. Any thread. */
void lld_stream_get_info(lld_stream *stream, lld_residency_info *out);
/* The file that it reads, for others that read of it. */
lld_direct_file *lld_stream_file(lld_stream *stream);
/* Bytes of the ring that are locked, and 0 or the errno of what was not. */
uint64_t lld_stream_locked(const lld_stream *stream, int *error);

#endif
