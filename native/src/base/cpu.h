/* cpu.h - which instruction sets this machine has and the user allows.
 * Does not choose kernels: kernels.c does, from these flags. */
#ifndef LLD_CPU_H
#define LLD_CPU_H

#include <stdint.h>

enum lld_cpu_flag {
    LLD_CPU_AVX2 = 1u << 0,   /* x86-64: AVX2 + FMA + F16C, enabled by the OS (XGETBV) */
    LLD_CPU_NEON = 1u << 1,   /* aarch64: armv8.0 ASIMD */
    LLD_CPU_DOTPROD = 1u << 2 /* aarch64: armv8.2 dot product (HWCAP_ASIMDDP) */
};

/* Flags of this machine (getauxval on aarch64, CPUID on x86-64). */
uint32_t lld_cpu_detect(void);

/* Detected flags, masked by `cpu` ("generic", "avx2", "neon", "dotprod", comma-separated; dotprod
 * implies neon), or by $LLAMAD_CPU when cpu is NULL; an empty or unset mask allows everything.
 * LLD_ERR_INVALID names an unknown word. */
int lld_cpu_select(const char *cpu, uint32_t *flags);

#endif
