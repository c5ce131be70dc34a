/* file.h - an open GGUF file: its path, its mapping and its parsed header.
 * lld_file is the public handle; model.c reads the three parts. */
#ifndef LLD_FILE_H
#define LLD_FILE_H

#include "gguf/gguf.h"
#include "base/mapping.h"

struct lld_file {
    char *path; /* owned */
    lld_mapping mapping;
    lld_gguf gguf; /* over the mapping's bytes */
};

/* Put the path before this thread's message and return `status`; LLD_OK passes through. When the
 * mapping lost pages, whatever failed failed because of that: LLD_ERR_FAULT instead. */
int lld_file_name_fault(const lld_file *file, int status);

#endif
