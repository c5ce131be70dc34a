"""The context where nobody has said how long: the rule of memory/context.py, for every model."""

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llamad.memory.context import (
    CACHE_SHARE,
    LEAST_TOKENS,
    MOST_TOKENS,
    USUAL_TOKENS,
    plan_context,
)
from llamad.memory.plan import MIB, Demand, fixed_bytes, plan_memory
from unit.memory.extents import feed_extents

GIB = 1 << 30
DEMAND = Demand(
    file_bytes=GIB,
    extents=feed_extents(GIB),
    kv_block_bytes=MIB,  # 32 KiB a token: 16 MiB for 512 tokens, 128 for 4096
    kv_block_tokens=32,
    scratch_bytes=50 * MIB,
    sampler_bytes=3 * MIB,
    vocabulary_bytes=20 * MIB,
    template_bytes=16 * MIB,
    connections_bytes=40 * MIB,
)
FIXED = fixed_bytes(DEMAND, 4)


def context(
    budget: int | None, *, trained: int = 131_072, demand: Demand = DEMAND, n_sequences: int = 4
) -> int:
    return plan_context(
        lambda n_ctx: replace(demand, scratch_bytes=demand.scratch_bytes + 16 * n_ctx),
        budget_bytes=budget,
        n_ctx_train=trained,
        n_sequences=n_sequences,
    )


@pytest.mark.parametrize(
    ("beside_mib", "n_ctx"),
    [
        (17, 512),
        (100, 3072),  # all that fits beside the model, in steps of 256
        (130, 4096),
        (300, 4096),  # four caches of 4096 do not fit, one does
        (600, 4096),  # 4608 would fit four times, but take more than a quarter of the budget
    ],
)
def test_up_to_the_usual_length_one_cache_takes_what_the_model_leaves(
    beside_mib: int, n_ctx: int
) -> None:
    assert context(FIXED + GIB + beside_mib * MIB) == n_ctx


@pytest.mark.parametrize(("gib", "n_ctx"), [(3, 6144), (4, 8192), (8, 16_384), (64, 32_768)])
def test_beyond_it_all_caches_together_take_a_quarter_of_the_budget(gib: int, n_ctx: int) -> None:
    assert context(gib * GIB) == n_ctx


@pytest.mark.parametrize(("trained", "n_ctx"), [(300, 300), (2048, 2048), (5000, 5000), (0, 4096)])
def test_never_more_than_the_model_was_trained_on(trained: int, n_ctx: int) -> None:
    assert context(64 * GIB, trained=trained) == n_ctx


def test_without_a_known_budget_it_is_the_usual_length() -> None:
    assert context(None) == USUAL_TOKENS
    assert context(None, trained=1024) == 1024


@pytest.mark.parametrize(
    ("room_mib", "n_ctx"),
    [
        (1024, 512),  # the whole model, but for the cache: it gives way for the least
        (1000, 512),
        (799, 2304),  # 225 MiB are read for every token anyway: the cache adds a third to that
        (512, 4096),
        (256, 2048),  # a quarter of what there is for both
    ],
)
def test_a_model_that_is_read_for_every_token_gives_way_within_bounds(
    room_mib: int, n_ctx: int
) -> None:
    budget = FIXED + 16 * 4096 + room_mib * MIB
    assert context(budget) == n_ctx


@pytest.mark.parametrize(("local", "n_ctx"), [(0, 1792), (29, 4096)])
def test_a_model_with_windows_gets_a_longer_context_beside_it(local: int, n_ctx: int) -> None:
    """Gemma 3 4B, 2.49 GB, in 2.75 GiB of a board of 4 GB: 29 of its 34 layers see 1,024 tokens."""
    layer = 4 * 256 * 2 * 2 * 32  # bytes of a block
    demand = replace(
        DEMAND,
        file_bytes=2_490_000_000,
        extents=feed_extents(2_490_000_000),
        kv_block_bytes=(34 - local) * layer,
        kv_local_bytes=local * layer,
        kv_window=1024,
        step_rows=256,
    )
    assert context(2816 * MIB, demand=demand) == n_ctx


models = st.builds(
    Demand,
    file_bytes=st.integers(MIB, 16 * GIB),
    extents=st.just(()),  # not known: the whole file counts
    kv_block_bytes=st.integers(1, 32 * MIB),
    kv_block_tokens=st.sampled_from([1, 32, 64]),
    scratch_bytes=st.integers(0, GIB),
    sampler_bytes=st.integers(0, 4 * MIB),
    vocabulary_bytes=st.integers(0, 200 * MIB),
    template_bytes=st.just(16 * MIB),
    connections_bytes=st.just(40 * MIB),
)


@given(models, st.integers(MIB, 64 * GIB), st.integers(1, 1 << 18), st.integers(1, 64))
def test_the_cache_pushes_no_model_out_of_memory(
    demand: Demand, budget: int, trained: int, n_sequences: int
) -> None:
    n_ctx = context(budget, trained=trained, demand=demand, n_sequences=n_sequences)
    assert min(LEAST_TOKENS, trained) <= n_ctx <= min(trained, MOST_TOKENS)
    room = budget - fixed_bytes(demand, n_sequences) - 16 * n_ctx
    cache = -(-n_ctx // demand.kv_block_tokens) * demand.kv_block_bytes
    if n_ctx > LEAST_TOKENS:
        assert cache <= max(
            room - demand.file_bytes, min(room // 4, (demand.file_bytes - room) // 3)
        )
    if n_ctx > USUAL_TOKENS:
        assert cache * n_sequences <= min(room - demand.file_bytes, budget // CACHE_SHARE)


@given(models, st.integers(MIB, 64 * GIB), st.integers(1, 1 << 18))
def test_the_next_longer_context_would_break_the_rule(
    demand: Demand, budget: int, trained: int
) -> None:
    """A model that fits leaves no room unused, up to the usual length."""
    n_ctx = context(budget, trained=trained, demand=demand)
    assume(n_ctx < min(trained, USUAL_TOKENS))
    longer = min(n_ctx + 256, trained)
    room = budget - fixed_bytes(demand, 4) - 16 * longer
    cache = -(-longer // demand.kv_block_tokens) * demand.kv_block_bytes
    assert demand.file_bytes + cache > room


@given(models, st.integers(MIB, 64 * GIB), st.integers(0, GIB), st.integers(1, 1 << 18))
def test_more_memory_never_gives_a_model_that_stays_a_shorter_context(
    demand: Demand, budget: int, more: int, trained: int
) -> None:
    n_ctx = context(budget, trained=trained, demand=demand)
    room = budget - fixed_bytes(demand, 4) - 16 * n_ctx
    cache = -(-n_ctx // demand.kv_block_tokens) * demand.kv_block_bytes
    assume(demand.file_bytes + cache <= room)
    assert context(budget + more, trained=trained, demand=demand) >= n_ctx
    with_scratch = replace(demand, scratch_bytes=demand.scratch_bytes + 16 * n_ctx)
    plan = plan_memory(with_scratch, budget_bytes=budget, kv_tokens=0, n_ctx=n_ctx, n_sequences=4)
    assert (plan.model_fits, plan.n_ctx) == (True, n_ctx)
