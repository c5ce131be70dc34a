/* residency.h - which extents of a model are in memory, for those who run steps over it. The public part
 * is lld_model_set_residency and its kin. */
#ifndef LLD_RESIDENCY_H
#define LLD_RESIDENCY_H

#include "model/model.h"
#include "model/stream.h"

int lld_residency_create(lld_model *model);
void lld_residency_destroy(lld_residency_state *residency); /* before the file is closed */

/* Begin a pass: what is resident stays so until the end. Returns the stream of what is not, or NULL
 * when everything is resident. Several passes may run where nothing streams. */
lld_stream *lld_residency_begin(const lld_model *model, const lld_stream_pass *pass);
/* As lld_stream_end. */
int lld_residency_end(const lld_model *model, lld_stream *stream, bool complete);
/* Whether bytes [offset, offset + size) of the file stay in memory; before the first
 * lld_model_set_residency all do. While no change is made. */
bool lld_residency_has(const lld_model *model, uint64_t offset, uint64_t size);
/* Begin to read what of the rows of a matrix does not stay in memory. During a pass. */
void lld_residency_ahead(const lld_model *model, const lld_matrix *matrix);
/* As lld_stream_wake. */
void lld_residency_wake(const lld_model *model);

#endif
