/* cpu.c - which instruction sets this machine has and the user allows.
 * Asks the CPU (x86-64) or the kernel's auxiliary vector (aarch64); never runs an instruction to
 * see whether it traps. */
#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

#include "base/status.h"

#if defined(__x86_64__)

/* XCR0: the register state that the operating system saves (Intel SDM volume 1, 13.3). */
static uint32_t read_xcr0(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

uint32_t lld_cpu_detect(void)
{
    enum { XCR0_SSE_AVX = 0x6 };
    const uint32_t leaf1_needed = bit_OSXSAVE | bit_AVX | bit_FMA | bit_F16C;
    uint32_t a, b, c, d;
    if (!__get_cpuid(1, &a, &b, &c, &d) || (c & leaf1_needed) != leaf1_needed) return 0;
    if ((read_xcr0() & XCR0_SSE_AVX) != XCR0_SSE_AVX) return 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_AVX2)) return 0;
    return LLD_CPU_AVX2;
}

#elif defined(__aarch64__)

uint32_t lld_cpu_detect(void)
{
    /* Linux, Documentation/arch/arm64/elf_hwcaps.rst */
    enum { ARM64_HWCAP_ASIMD = 1 << 1, ARM64_HWCAP_ASIMDDP = 1 << 20 };
    unsigned long hwcap = getauxval(AT_HWCAP);
    if (!(hwcap & ARM64_HWCAP_ASIMD)) return 0;
    return LLD_CPU_NEON | (hwcap & ARM64_HWCAP_ASIMDDP ? LLD_CPU_DOTPROD : 0);
}

#else

uint32_t lld_cpu_detect(void) { return 0; }

#endif

/* The flags a word of the mask allows; the same words are known on every architecture, so that one
 * configuration file serves all machines. */
static const struct {
    const char *word;
    uint32_t flags;
} cpu_words[] = {
    {"generic", 0},
    {"avx2", LLD_CPU_AVX2},
    {"neon", LLD_CPU_NEON},
    {"dotprod", LLD_CPU_NEON | LLD_CPU_DOTPROD},
};

enum { N_CPU_WORDS = sizeof cpu_words / sizeof cpu_words[0] };

int lld_cpu_select(const char *cpu, uint32_t *flags)
{
    const char *rest = cpu != NULL ? cpu : getenv("LLAMAD_CPU");
    uint32_t detected = lld_cpu_detect(), allowed = 0;
    if (rest == NULL || *rest == '\0') {
        *flags = detected;
        return LLD_OK;
    }
    for (;;) {
        size_t length = strcspn(rest, ","), i = 0;
        while (i < N_CPU_WORDS && (strlen(cpu_words[i].word) != length ||
                                   memcmp(cpu_words[i].word, rest, length) != 0))
            i++;
        if (i == N_CPU_WORDS)
            return lld_fail(LLD_ERR_INVALID,
                            "cpu \"%.*s\" is unknown: generic, avx2, neon or dotprod",
                            (int)(length < 64 ? length : 64), rest);
        allowed |= cpu_words[i].flags;
        if (rest[length] == '\0') break;
        rest += length + 1;
    }
    *flags = detected & allowed;
    return LLD_OK;
}
