/* test_cpu.c - the CPU mask, the choice of the kernel set, and the failure message they leave. */
#include "base/cpu.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "kernels/kernels.h"
#include "llamad_engine.h"
#include "base/status.h"

static uint32_t selected(const char *cpu)
{
    uint32_t flags = 0xDEAD;
    int status = lld_cpu_select(cpu, &flags);
    CHECK(status == LLD_OK, "\"%s\": status %d", cpu ? cpu : "(null)", status);
    return flags;
}

static void test_mask_keeps_what_it_names(void)
{
    const uint32_t detected = lld_cpu_detect();
    unsetenv("LLAMAD_CPU");
    CHECK(selected(NULL) == detected, "no mask allows everything");
    CHECK(selected("") == detected, "an empty mask allows everything");
    CHECK(selected("generic") == 0, "generic is no instruction set");
    CHECK(selected("avx2") == (detected & LLD_CPU_AVX2), "avx2");
    CHECK(selected("neon") == (detected & LLD_CPU_NEON), "neon without dotprod");
    CHECK(selected("dotprod") == (detected & (LLD_CPU_NEON | LLD_CPU_DOTPROD)), "with neon");
    CHECK(selected("generic,neon,avx2") == (detected & (LLD_CPU_AVX2 | LLD_CPU_NEON)), "a list");
}

static void test_mask_comes_from_the_environment_unless_given(void)
{
    setenv("LLAMAD_CPU", "generic", 1);
    CHECK(selected(NULL) == 0, "the environment's mask");
    CHECK(selected("avx2,dotprod") == lld_cpu_detect(), "an argument goes before the environment");
    setenv("LLAMAD_CPU", "", 1);
    CHECK(selected(NULL) == lld_cpu_detect(), "an empty variable is as good as none");
    setenv("LLAMAD_CPU", "sse9", 1);
    uint32_t flags;
    CHECK(lld_cpu_select(NULL, &flags) == LLD_ERR_INVALID, "a wrong word in the environment");
    unsetenv("LLAMAD_CPU");
}

static void test_unknown_words_are_named(void)
{
    static const char *const wrong[] = {"sse9", "avx2,",         ",",   "avx2 ",
                                        "AVX2", "generic,,neon", "avx", "avx22"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        uint32_t flags;
        CHECK(lld_cpu_select(wrong[i], &flags) == LLD_ERR_INVALID, "\"%s\" passed", wrong[i]);
        CHECK(lld_cpu_kernel_set(wrong[i]) == NULL, "\"%s\" chose a kernel set", wrong[i]);
    }
    lld_cpu_kernel_set("neon,sse9");
    CHECK(strstr(lld_error_message(), "\"sse9\"") != NULL, "message: %s", lld_error_message());
}

static void test_kernel_set_is_the_best_allowed(void)
{
    const uint32_t detected = lld_cpu_detect();
    const char *best = detected & LLD_CPU_DOTPROD ? "dotprod"
                       : detected & LLD_CPU_NEON  ? "neon"
                       : detected & LLD_CPU_AVX2  ? "avx2"
                                                  : "generic";
    CHECK(strcmp(lld_cpu_kernel_set(NULL), best) == 0, "chose %s", lld_cpu_kernel_set(NULL));
    CHECK(strcmp(lld_cpu_kernel_set("generic"), "generic") == 0, "generic on request");
    if (detected & LLD_CPU_NEON)
        CHECK(strcmp(lld_cpu_kernel_set("neon"), "neon") == 0, "neon on request");
    CHECK(lld_kernels_get(detected) == lld_kernels_get(detected), "one table a flag word");
}

static void test_table_holds_every_kernel(void)
{
    const lld_kernels *table = lld_kernels_get(lld_cpu_detect());
    for (uint32_t type = 0; type < LLD_TYPE_COUNT; type++)
        CHECK((table->matmul[type] != NULL) == lld_type_supported(type), "type %u", type);
    CHECK(table->quantize_q8 && table->quantize_q8k && table->rmsnorm && table->silu_mul &&
              table->gelu_mul && table->softcap && table->add && table->delta_step &&
              table->scan_step && table->rope_norm && table->rope_neox && table->kv_store_f16 &&
              table->kv_store_q8 && table->attn_scores_f16 && table->attn_scores_q8 &&
              table->attn_softmax && table->attn_values_f16 && table->attn_values_q8 &&
              table->kv_store_q4 && table->kv_unpack_q4 && table->hadamard,
          "a kernel is missing in %s", table->name);
}

static void test_message_is_one_line_of_bounded_length(void)
{
    int status = lld_fail(LLD_ERR_CORRUPT, "key %s has %d", "a\nb\x1b[0m", 7);
    CHECK(status == LLD_ERR_CORRUPT, "status %d", status);
    CHECK(strcmp(lld_error_message(), "key a?b?[0m has 7") == 0, "%s", lld_error_message());
    lld_fail(LLD_ERR_CORRUPT, "outer: %s", lld_error_message());
    CHECK(strcmp(lld_error_message(), "outer: key a?b?[0m has 7") == 0, "%s", lld_error_message());
    char text[1024];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    lld_fail(LLD_ERR_CORRUPT, "%s", text);
    CHECK(strlen(lld_error_message()) == 511, "%zu bytes", strlen(lld_error_message()));
    memcpy(text + 509, "\xE2\x82\xAC", 3); /* a three-byte character across the limit */
    lld_fail(LLD_ERR_CORRUPT, "%s", text);
    CHECK(strlen(lld_error_message()) == 509, "%zu bytes", strlen(lld_error_message()));
    memcpy(text + 508, "\xE2\x82\xAC", 3); /* and one that just fits */
    lld_fail(LLD_ERR_CORRUPT, "%s", text);
    CHECK(strlen(lld_error_message()) == 511, "%zu bytes", strlen(lld_error_message()));
    CHECK(strlen(lld_version()) > 0, "a version");
}

int main(void)
{
    test_mask_keeps_what_it_names();
    test_mask_comes_from_the_environment_unless_given();
    test_unknown_words_are_named();
    test_kernel_set_is_the_best_allowed();
    test_table_holds_every_kernel();
    test_message_is_one_line_of_bounded_length();
    return check_result();
}
