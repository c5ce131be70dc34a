/* states.c - see states.h. */
#include "engine/states.h"

#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "base/status.h"

int lld_states_plan(lld_states *s, const lld_model *model, uint32_t n_slots)
{
    size_t bytes;
    *s = (lld_states){.slot_floats = (model->state_floats + 15) & ~(size_t)15};
    if (s->slot_floats == 0) return LLD_OK;
    s->n_slots = n_slots == 0 ? 1 : n_slots;
    if (__builtin_mul_overflow(s->n_slots * sizeof(float), s->slot_floats, &bytes))
        return lld_fail(LLD_ERR_MEMORY, "states: %" PRIu32 " are more than can be addressed",
                        s->n_slots);
    return LLD_OK;
}

static size_t bytes_of(const lld_states *s) { return s->n_slots * s->slot_floats * sizeof(float); }

int lld_states_create(lld_states *s)
{
    if (s->n_slots == 0) return LLD_OK;
    void *memory =
        mmap(NULL, bytes_of(s), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        return lld_fail(LLD_ERR_MEMORY, "states: no memory for %zu bytes (%" PRIu32 " slots)",
                        bytes_of(s), s->n_slots);
    s->memory = memory;
    return LLD_OK;
}

void lld_states_destroy(lld_states *s)
{
    if (s->memory != NULL) munmap(s->memory, bytes_of(s));
    memset(s, 0, sizeof *s);
}
