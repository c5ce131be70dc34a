/* search.c - the searches for any machine, and which set a machine uses. */
#include "quantize/search.h"

#include "base/cpu.h"
#include "quantize/search_body.h"

LLD_DEFINE_SEARCH(lld_search_generic, );

const lld_search *lld_search_select(uint32_t cpu_flags)
{
#ifdef __x86_64__
    if (cpu_flags & LLD_CPU_AVX2) return &lld_search_avx2;
#endif
    (void)cpu_flags;
    return &lld_search_generic;
}
