/* expert_guesses.c - see expert_guesses.h. */
#include "model/expert_guesses.h"

enum {
    LEAST_JUDGED = 32,  /* guesses, before any is read */
    MOST_JUDGED = 512,  /* then the counts are halved: older guesses weigh less */
    LEAST_PERCENT = 65, /* of the guesses are right where reading them pays */
    PASSES_TO_ASK = 8   /* one of these guesses where reading does not pay */
};

void lld_expert_guesses_begin(lld_expert_guesses *g)
{
    g->n = 0;
    g->pass_reads = g->judged >= LEAST_JUDGED &&
                    (uint64_t)g->right * 100 >= (uint64_t)g->judged * LEAST_PERCENT;
    g->pass_guesses = g->pass_reads || g->judged < LEAST_JUDGED || g->n_passes % PASSES_TO_ASK == 0;
    g->n_passes++;
}

void lld_expert_guesses_add(lld_expert_guesses *g, uint32_t entry) { g->entries[g->n++] = entry; }

void lld_expert_guesses_judge(lld_expert_guesses *g, uint32_t first, const uint32_t *experts,
                              size_t n)
{
    uint32_t right = 0;
    for (uint32_t i = 0; i < g->n; i++)
        for (size_t k = 0; k < n; k++) right += g->entries[i] == first + experts[k];
    g->judged += g->n;
    g->right += right;
    g->total += g->n;
    g->total_right += right;
    g->n = 0;
    if (g->judged < MOST_JUDGED) return;
    g->judged /= 2;
    g->right /= 2;
}
