/* test_expert_cache.c - which expert gives its slot away: over random passes nothing pinned ever does, every
 * table agrees with every other, and counts stay within bounds; and which one it is. */
#include <math.h>
#include <stdbool.h>

#include "check.h"
#include "model/expert_cache.h"

enum { LAYERS = 6, EXPERTS = 16, ENTRIES = LAYERS * EXPERTS, MOST_SLOTS = 48 };

static lld_expert_cache create(uint32_t n_slots)
{
    lld_expert_cache cache;
    CHECK(lld_expert_cache_init(&cache, LAYERS, EXPERTS, MOST_SLOTS) == 0, "no memory");
    lld_expert_cache_resize(&cache, n_slots);
    return cache;
}

static void check_tables(const lld_expert_cache *c)
{
    uint32_t n_free = 0, n_held = 0;
    for (uint32_t slot = 0; slot < c->n_slots; slot++) {
        const int32_t entry = c->entry_of[slot];
        n_free += entry == LLD_NO_ENTRY;
        CHECK(entry == LLD_NO_ENTRY || c->slot_of[entry] == (int32_t)slot, "slot %u", slot);
    }
    for (uint32_t entry = 0; entry < ENTRIES; entry++) {
        n_held += c->slot_of[entry] != LLD_NO_SLOT;
        CHECK(c->heat[entry] >= 0 && c->heat[entry] < 1e14 && isfinite(c->heat[entry]),
              "entry %u has a count of %g", entry, c->heat[entry]);
    }
    CHECK(n_free == c->n_free && n_held + n_free == c->n_slots, "%u free, %u held, %u in all",
          n_free, n_held, c->n_slots);
}

/* Use an entry in a pass that is in its layer; whether it had a slot. */
static bool use(lld_expert_cache *c, uint32_t entry)
{
    lld_expert_cache_use(c, entry);
    if (c->slot_of[entry] != LLD_NO_SLOT) return true;
    CHECK(lld_expert_cache_take(c, entry, entry / EXPERTS) != LLD_NO_SLOT, "no slot");
    return false;
}

static void random_passes_keep_what_is_pinned(void)
{
    uint64_t random = 5;
    lld_expert_cache c = create(EXPERTS);
    for (uint32_t pass = 0; pass < 3000; pass++) {
        lld_expert_cache_begin(&c);
        if (pass % 50 == 0)
            lld_expert_cache_resize(&c, EXPERTS + check_random(&random) % (MOST_SLOTS - EXPERTS));
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t n = 1 + check_random(&random) % EXPERTS, first = layer * EXPERTS;
            for (uint32_t i = 0; i < n; i++) { /* a layer's first n, the pins of its chosen */
                use(&c, first + i);
                c.pins[first + i]++;
            }
            for (uint32_t i = 0; i < n; i++) {
                CHECK(c.slot_of[first + i] != LLD_NO_SLOT, "a pinned expert lost its slot");
                c.pins[first + i]--;
            }
        }
        check_tables(&c);
    }
    lld_expert_cache_free(&c);
}

static void where_all_are_pinned_there_is_no_slot(void)
{
    lld_expert_cache c = create(2);
    use(&c, 0);
    use(&c, 1);
    c.pins[0] = c.pins[1] = 1;
    CHECK(lld_expert_cache_take(&c, 2, 0) == LLD_NO_SLOT, "a pinned expert gave its slot");
    c.pins[1] = 0;
    CHECK(lld_expert_cache_take(&c, 2, 0) != LLD_NO_SLOT, "none though one is free to go");
    CHECK(c.slot_of[1] == LLD_NO_SLOT && c.slot_of[0] != LLD_NO_SLOT, "the wrong one went");
    c.pins[0] = 0;
    lld_expert_cache_free(&c);
}

/* One that is used in every pass stays, whatever else comes by. */
static void what_is_used_most_stays(void)
{
    uint64_t random = 9;
    lld_expert_cache c = create(EXPERTS);
    uint32_t misses = 0;
    for (uint32_t pass = 0; pass < 500; pass++) {
        lld_expert_cache_begin(&c);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            misses += !use(&c, layer * EXPERTS) && pass > 20;
            use(&c, layer * EXPERTS + 1 + (uint32_t)(check_random(&random) % (EXPERTS - 1)));
        }
    }
    CHECK(misses == 0, "%u times a hot expert was not there", misses);
    lld_expert_cache_free(&c);
}

/* What is used no more is gone soon, however often it was used before. */
static void counts_fade(void)
{
    lld_expert_cache c = create(EXPERTS);
    for (uint32_t pass = 0; pass < 1000; pass++) {
        lld_expert_cache_begin(&c);
        use(&c, 0);
    }
    for (uint32_t pass = 0; pass < 400; pass++) {
        lld_expert_cache_begin(&c);
        for (uint32_t i = 1; i <= EXPERTS; i++) use(&c, i);
    }
    CHECK(c.slot_of[0] == LLD_NO_SLOT, "still there");
    lld_expert_cache_free(&c);
}

/* Passes that use everything find a part of it in memory; the least recently used would find nothing. */
static void passes_that_use_everything_hit(void)
{
    lld_expert_cache c = create(ENTRIES / 2);
    uint32_t hits = 0, uses = 0;
    for (uint32_t pass = 0; pass < 100; pass++) {
        lld_expert_cache_begin(&c);
        for (uint32_t layer = 0; layer < LAYERS; layer++) {
            const uint32_t first = layer * EXPERTS;
            for (uint32_t i = 0; i < EXPERTS; i++)
                if (c.slot_of[first + i] != LLD_NO_SLOT) c.pins[first + i]++;
            for (uint32_t i = 0; i < EXPERTS; i++) {
                if (pass >= 50) uses++;
                const bool hit = use(&c, first + i);
                if (pass >= 50) hits += hit;
                if (!hit) c.pins[first + i]++;
            }
            for (uint32_t i = 0; i < EXPERTS; i++) c.pins[first + i]--;
        }
    }
    CHECK(4 * hits > uses, "%u of %u were there", hits, uses);
    lld_expert_cache_free(&c);
}

int main(void)
{
    random_passes_keep_what_is_pinned();
    where_all_are_pinned_there_is_no_slot();
    what_is_used_most_stays();
    counts_fade();
    passes_that_use_everything_hit();
    return check_result();
}
