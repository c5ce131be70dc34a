/* expert_store.h - memory for some of a model's experts, and the threads that read the others into it.
 *
 * An expert whose weights do not all stay in the mapping has a slot here while it is in memory. When
 * a step's rows have chosen the experts of a layer, those that have no slot get one, all their reads
 * begin at once, and computing begins with those that are there. expert_cache.h decides who leaves.
 * While nothing else is to be read, those are read that the next layer is guessed to choose
 * (expert_guesses.h).
 * A layer's chosen experts are in slots together, so there are at least as many slots as a layer has
 * experts. */
#ifndef LLD_EXPERT_STORE_H
#define LLD_EXPERT_STORE_H

#include "model/model.h"
#include "model/stream.h"

typedef struct lld_expert_store lld_expert_store;

/* file: in use until destroy. */
int lld_expert_store_create(const lld_model *model, lld_direct_file *file, lld_expert_store **out);
void lld_expert_store_destroy(lld_expert_store *store);

/* Keep experts of which an extent is not resident in residency->expert_slots slots from now on. What is
 * in slots stays there as far as it can. No pass may run. Locks the slots within lock_bytes. When it
 * fails nothing is kept here. */
int lld_expert_store_set(lld_expert_store *store, const lld_residency *residency,
                         uint64_t lock_bytes);
/* Read experts into free slots, the hottest first, while steps run; *stop and *read_bytes as for
 * lld_pages_take. LLD_ERR_CANCELLED, LLD_ERR_FAULT. */
int lld_expert_store_fill(lld_expert_store *store, const volatile int32_t *stop,
                          atomic_ullong *read_bytes);

/* Whether any expert is kept here. While no lld_expert_store_set runs. */
bool lld_expert_store_is_active(const lld_expert_store *store);

/* One pass at a time, as lld_stream_begin and lld_stream_end. */
void lld_expert_store_begin(lld_expert_store *store, const lld_stream_pass *pass);
int lld_expert_store_end(lld_expert_store *store);

/* The rows chose these n experts of a layer: begin to read what is missing. Puts those in front that are
 * there. One thread, before any lld_expert_store_take of the layer. */
void lld_expert_store_choose(lld_expert_store *store, uint32_t layer, uint32_t *experts, size_t n);

/* Whether this pass, of a single row, is to guess what the next layer chooses. The same for a whole
 * pass. Any thread. */
bool lld_expert_store_guesses(const lld_expert_store *store);
/* The row will probably choose these n experts of the next layer to choose, likeliest first. One thread,
 * after lld_expert_store_choose of the layer before. */
void lld_expert_store_guess(lld_expert_store *store, uint32_t layer, const uint32_t *experts,
                            size_t n);

typedef enum lld_expert_part { LLD_EXPERT_GATE_UP = 1, LLD_EXPERT_DOWN = 2 } lld_expert_part;

/* The weights of a chosen expert, of which the part is in memory; waits for the disk. False: the
 * pass ends, cancelled or failed. */
bool lld_expert_store_take(lld_expert_store *store, uint32_t layer, uint32_t expert,
                           lld_expert_part part, lld_gated_weights *out);
/* Whether this pass was stopped: lld_expert_store_take has returned false. */
bool lld_expert_store_is_stopped(const lld_expert_store *store);
/* Let those that wait look at their cancel flag. Any thread, any time. */
void lld_expert_store_wake(lld_expert_store *store);

/* Add what the store knows: what was used, found, read and waited for. Any thread. */
void lld_expert_store_add_info(lld_expert_store *store, lld_residency_info *out);
/* Bytes of the slots that are locked, and 0 or the errno of what was not. */
uint64_t lld_expert_store_locked(const lld_expert_store *store, int *error);

#endif
