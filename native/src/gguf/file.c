/* file.c - the public lld_file_*: a GGUF file mapped and parsed under one handle.
 * Does not parse (gguf.c) and does not map (mapping.c): it joins the two and names the path. */
#include "gguf/file.h"

#include <stdlib.h>
#include <string.h>

#include "base/status.h"

int lld_file_name_fault(const lld_file *file, int status)
{
    if (lld_mapping_faulted(&file->mapping))
        return lld_fail(LLD_ERR_FAULT, "%s: file of %zu bytes lost pages while it was mapped",
                        lld_path_tail(file->path), file->mapping.size);
    if (status == LLD_OK) return LLD_OK;
    return lld_fail(status, "%s: %s", lld_path_tail(file->path), lld_error_message());
}

int lld_file_open(const char *path, lld_file **out)
{
    *out = NULL;
    lld_file *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    int status = LLD_ERR_MEMORY;
    if (file == NULL || copy == NULL) {
        lld_fail(status, "%s: no memory to open the file", lld_path_tail(path));
        goto free_handle;
    }
    file->path = copy;
    if ((status = lld_mapping_open(path, &file->mapping)) != LLD_OK) goto free_handle;
    status = lld_gguf_parse(file->mapping.bytes, file->mapping.size, &file->gguf);
    if ((status = lld_file_name_fault(file, status)) != LLD_OK) goto close_mapping;
    *out = file;
    return LLD_OK;

close_mapping:
    lld_gguf_free(&file->gguf);
    lld_mapping_close(&file->mapping);
free_handle:
    free(copy);
    free(file);
    return status;
}

void lld_file_close(lld_file *file)
{
    if (file == NULL) return;
    lld_gguf_free(&file->gguf);
    lld_mapping_close(&file->mapping);
    free(file->path);
    free(file);
}

uint32_t lld_file_version(const lld_file *file) { return file->gguf.version; }

uint64_t lld_file_bytes(const lld_file *file) { return file->mapping.size; }

size_t lld_file_n_kv(const lld_file *file) { return file->gguf.n_kv; }

size_t lld_file_n_tensors(const lld_file *file) { return file->gguf.n_tensors; }

int lld_file_kv(const lld_file *file, size_t index, lld_kv *out)
{
    if (index >= file->gguf.n_kv)
        return lld_fail(LLD_ERR_INVALID, "metadata entry %zu, file has %zu", index,
                        file->gguf.n_kv);
    *out = file->gguf.kv[index];
    return LLD_OK;
}

int lld_file_tensor(const lld_file *file, size_t index, lld_tensor *out)
{
    if (index >= file->gguf.n_tensors)
        return lld_fail(LLD_ERR_INVALID, "tensor %zu, file has %zu", index, file->gguf.n_tensors);
    *out = file->gguf.tensors[index];
    return LLD_OK;
}
