/* residency.h - which extents of a model are in memory, for those who run steps over it. The public part
 * is lld_model_set_residency and its kin. */
#ifndef LLD_RESIDENCY_H
#define LLD_RESIDENCY_H

#include "model/model.h"
#include "model/expert_store.h"
#include "model/stream.h"

int lld_residency_create(lld_model *model);
void lld_residency_destroy(lld_residency_state *residency); /* before the file is closed */

/* What a pass reads from the disk by. */
typedef struct lld_reading {
    lld_stream *stream;        /* NULL: nothing streams */
    lld_expert_store *experts; /* NULL: all experts are in the mapping */
} lld_reading;

/* Begin a pass: what is resident stays so until the end. Several passes may run where everything is
 * resident. */
lld_reading lld_residency_begin(const lld_model *model, const lld_stream_pass *pass);
/* As lld_stream_end. */
int lld_residency_end(const lld_model *model, const lld_reading *reading, bool complete);
/* Whether this pass was stopped. */
bool lld_reading_is_stopped(const lld_reading *reading);
/* Whether bytes [offset, offset + size) of the file stay in memory; before the first
 * lld_model_set_residency all do. While no change is made. */
bool lld_residency_has(const lld_model *model, uint64_t offset, uint64_t size);
/* As lld_stream_wake. */
void lld_residency_wake(const lld_model *model);

#endif
