/* search_avx2.c - the same searches, eight lanes an instruction. AVX2 alone, without FMA: a
 * contracted multiply-add would give other bytes than other machines. */
#ifdef __x86_64__

#include "quantize/search_body.h"

LLD_DEFINE_SEARCH(lld_search_avx2, __attribute__((target("avx2"))));

#else
typedef int lld_quantize_search_avx2_not_on_this_architecture;
#endif
