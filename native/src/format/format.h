/* format.h - what is known of a tensor type by its id: name, sizes, dequantization, refusal. The types
 * themselves are in list.h. Does not multiply: kernels.h does. */
#ifndef LLD_FORMAT_H
#define LLD_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/blocks.h"
#include "format/list.h"
#include "llamad_engine.h"

/* Bytes of one block; 0 for a type that is not supported. Its elements: lld_type_block. */
size_t lld_type_block_bytes(uint32_t type);
bool lld_type_supported(uint32_t type);
/* Bytes of a row of n elements (n a multiple of the block). */
size_t lld_type_row_bytes(uint32_t type, size_t n);

/* Fail with a message about a type that is not supported: its name, and what to fetch instead. */
int lld_type_refuse(const char *subject, uint32_t type);

/* src: n/block blocks -> dst: (n) float32, bit for bit what the `gguf` package computes. src is
 * aligned to 2 bytes, as every block in a GGUF file is. */
void lld_dequantize_row(uint32_t type, const void *src, float *dst, size_t n);

#endif
