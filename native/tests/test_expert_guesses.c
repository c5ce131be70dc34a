/* test_expert_guesses.c - when guessed experts are read: not before some were judged, only while most are
 * right, and again when they become so. */
#include "check.h"
#include "model/expert_guesses.h"

enum { EXPERTS = 16, USED = 4 };

static const uint32_t chosen[USED] = {3, 5, 7, 11};

/* A pass that guesses USED experts of layer 2, of which n_right are chosen. */
static void pass_with(lld_expert_guesses *g, uint32_t n_right)
{
    lld_expert_guesses_begin(g);
    if (!g->pass_guesses) return;
    for (uint32_t i = 0; i < USED; i++)
        lld_expert_guesses_add(g, 2 * EXPERTS + (i < n_right ? chosen[i] : chosen[i] + 1));
    lld_expert_guesses_judge(g, 2 * EXPERTS, chosen, USED);
}

static void none_is_read_before_some_were_judged(void)
{
    lld_expert_guesses g = {0};
    for (int i = 0; i < 8; i++) {
        pass_with(&g, USED);
        CHECK(g.pass_guesses && !g.pass_reads, "read in pass %d", i);
    }
    pass_with(&g, USED);
    CHECK(g.pass_reads, "not read though all were right");
    CHECK(g.total == 9 * USED && g.total_right == 9 * USED, "%d of %d", (int)g.total_right,
          (int)g.total);
}

static void they_are_read_while_most_are_right(void)
{
    lld_expert_guesses g = {0};
    for (int i = 0; i < 1000; i++) pass_with(&g, 3);
    CHECK(g.pass_reads, "three of four are right, and not read");
    int n = 0;
    while (g.pass_reads && n < 1000) {
        pass_with(&g, 1);
        n++;
    }
    CHECK(n > 10 && n < 200, "read for %d passes after they went wrong", n);
    int guessing = 0;
    for (int i = 0; i < 80; i++) {
        pass_with(&g, 1);
        CHECK(!g.pass_reads, "read");
        guessing += g.pass_guesses;
    }
    CHECK(guessing == 10, "%d of 80 passes guess", guessing);
    for (n = 0; !g.pass_reads && n < 10000; n++) pass_with(&g, USED);
    CHECK(n < 2000, "not read for %d passes though all are right again", n);
}

static void another_layer_makes_a_guess_wrong(void)
{
    lld_expert_guesses g = {0};
    lld_expert_guesses_begin(&g);
    for (uint32_t i = 0; i < USED; i++) lld_expert_guesses_add(&g, 2 * EXPERTS + chosen[i]);
    lld_expert_guesses_judge(&g, 1 * EXPERTS, chosen, USED);
    CHECK(g.total == USED && g.total_right == 0, "%d right", (int)g.total_right);
    lld_expert_guesses_judge(&g, 2 * EXPERTS, chosen, USED);
    CHECK(g.total == USED && g.total_right == 0, "judged twice");
}

static void a_new_pass_forgets_what_the_last_one_guessed(void)
{
    lld_expert_guesses g = {0};
    lld_expert_guesses_begin(&g);
    lld_expert_guesses_add(&g, 2 * EXPERTS + chosen[0]);
    lld_expert_guesses_begin(&g);
    lld_expert_guesses_judge(&g, 2 * EXPERTS, chosen, USED);
    CHECK(g.total == 0, "judged a guess of a pass that ended");
}

int main(void)
{
    none_is_read_before_some_were_judged();
    they_are_read_while_most_are_right();
    another_layer_makes_a_guess_wrong();
    a_new_pass_forgets_what_the_last_one_guessed();
    return check_result();
}
