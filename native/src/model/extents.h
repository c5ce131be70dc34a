/* extents.h - a model's tensors cut into extents: the pieces that stay in memory or are streamed.
 *
 * A matrix is cut into pieces of extent_bytes or less, each a multiple of LLD_EXTENT_ROWS rows, so
 * that no unit of a gated feed-forward lies in two of them. gate and up are used a piece of each in
 * turns, and so are their extents. The table of layers' inputs is in no extent: rows of it are read
 * where they lie, the kernel drops their pages when it likes, and nothing locks them. */
#ifndef LLD_EXTENTS_H
#define LLD_EXTENTS_H

#include "model/model.h"

enum { LLD_EXTENT_BYTES = 2 << 20, LLD_EXTENT_ROWS = 256 };

/* Note a vector that lies in the file. LLD_ERR_MEMORY. */
int lld_extents_add_vector(lld_model *model, const lld_tensor *tensor, int layer);

/* Cut the matrices of a model that is bound, after all vectors. LLD_ERR_MEMORY. */
int lld_extents_cut(lld_model *model, size_t extent_bytes);

#endif
