/* kernels.c - chooses kernels: one table for each combination of CPU flags, built once.
 * A table starts as generic C; the instruction sets that the flags allow then override it. */
#include "kernels/kernels.h"

#include <assert.h>
#include <pthread.h>

#include "base/cpu.h"
#include "llamad_engine.h"

enum { N_FLAG_WORDS = (LLD_CPU_AVX2 | LLD_CPU_NEON | LLD_CPU_DOTPROD) + 1 };

static lld_kernels tables[N_FLAG_WORDS]; /* by flag word */
static pthread_once_t tables_once = PTHREAD_ONCE_INIT;

static void build_table(lld_kernels *table, uint32_t flags)
{
    lld_kernels_init_generic(table);
#if defined(__x86_64__)
    if (!(flags & LLD_CPU_AVX2)) return;
    lld_kernels_init_avx2(table);
#elif defined(__aarch64__)
    if (!(flags & LLD_CPU_NEON)) return;
    lld_kernels_init_neon(table);
    if (!(flags & LLD_CPU_DOTPROD)) return;
    lld_kernels_init_dotprod(table);
#else
    (void)flags;
#endif
}

static void build_tables(void)
{
    for (uint32_t flags = 0; flags < N_FLAG_WORDS; flags++) build_table(&tables[flags], flags);
}

const lld_kernels *lld_kernels_get(uint32_t cpu_flags)
{
    assert((cpu_flags & ~lld_cpu_detect()) == 0);
    pthread_once(&tables_once, build_tables);
    return &tables[cpu_flags];
}

const char *lld_cpu_kernel_set(const char *cpu)
{
    uint32_t flags;
    return lld_cpu_select(cpu, &flags) == LLD_OK ? lld_kernels_get(flags)->name : NULL;
}

lld_act_kind lld_type_act_kind(uint32_t type)
{
    assert(lld_type_supported(type));
    switch (lld_type_block(type)) {
    case LLD_QK:
    case 64:
    case 128:
        return LLD_ACT_Q8;
    case LLD_QK_K:
        return LLD_ACT_Q8K;
    default:
        return LLD_ACT_F32;
    }
}

/* Sixteen rows of one byte an element, half as much again for scales (16 bytes for 32 elements and
 * row), and room for the columns of a tile. */
size_t lld_kernels_scratch_bytes(size_t k)
{
    const size_t padded = (k + LLD_QK_K - 1) / LLD_QK_K * LLD_QK_K;
    return 24 * padded + 4096;
}
