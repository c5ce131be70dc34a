"""The memory plan: what it gives to whom, for every model and budget."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.engine.run import blocks_seen
from llamad.errors import ErrorKind, LlamadError
from llamad.memory.plan import (
    BPE_MERGE_BYTES,
    MIB,
    PROCESS_BYTES,
    SENTENCEPIECE_BYTES,
    Demand,
    MemoryPlan,
    fixed_bytes,
    plan_huge_pages,
    plan_memory,
    vocabulary_bytes,
)
from llamad.memory.residency import choose_residency
from unit.memory.extents import feed_extents

GIB = 1 << 30


DEMAND = Demand(
    file_bytes=GIB,
    extents=feed_extents(GIB),
    kv_block_bytes=4 * MIB,
    kv_block_tokens=32,
    scratch_bytes=50 * MIB,
    sampler_bytes=3 * MIB,
    vocabulary_bytes=20 * MIB,
    template_bytes=16 * MIB,
    connections_bytes=40 * MIB,
)
FIXED = PROCESS_BYTES + (50 + 4 * 3 + 20 + 16 + 40) * MIB


def _plan(
    budget_bytes: int | None, *, lock_limit_bytes: int | None = None, kv_tokens: int = 0
) -> MemoryPlan:
    return plan_memory(
        DEMAND,
        budget_bytes=budget_bytes,
        lock_limit_bytes=lock_limit_bytes,
        kv_tokens=kv_tokens,
        n_ctx=2048,
        n_sequences=4,
    )


def test_with_room_every_sequence_gets_its_context_and_the_whole_model_is_lockable() -> None:
    plan = _plan(4 * GIB)
    assert (plan.kv_blocks, plan.kv_bytes) == (256, GIB)
    assert (plan.model_fits, plan.resident_bytes, plan.lockable_bytes) == (True, GIB, GIB)


def test_without_a_known_budget_nothing_is_held_back() -> None:
    plan = _plan(None)
    assert (plan.kv_blocks, plan.model_fits, plan.lockable_bytes) == (256, True, GIB)


def test_the_kv_cache_shrinks_before_the_model_does_not_fit() -> None:
    budget = FIXED + GIB + 602 * MIB
    plan = _plan(budget)
    assert (plan.kv_blocks, plan.model_fits) == (150, True)
    assert plan.planned_bytes == budget - 2 * MIB


def test_one_whole_context_stays_when_the_model_does_not_fit() -> None:
    plan = _plan(FIXED + GIB)
    assert (plan.kv_blocks, plan.model_fits) == (64, False)
    assert plan.resident_bytes + plan.streamed_bytes == GIB
    assert plan.resident_bytes <= plan.lockable_bytes  # which counts the ring
    assert 0 <= GIB - 256 * MIB - plan.resident_bytes - plan.streaming_bytes < 4 * MIB


@pytest.mark.parametrize("budget", [None, 4 * GIB, FIXED + GIB // 2])
def test_blocks_of_no_bytes_are_there_for_every_sequence(budget: int | None) -> None:
    demand = replace(DEMAND, kv_block_bytes=0, states_bytes=80 * MIB)
    plan = plan_memory(demand, budget_bytes=budget, kv_tokens=0, n_ctx=2048, n_sequences=4)
    assert (plan.kv_blocks, plan.kv_bytes) == (256, 80 * MIB)


def test_a_configured_kv_cache_is_kept_in_whole_blocks() -> None:
    plan = _plan(FIXED + GIB, kv_tokens=4090)
    assert (plan.kv_blocks, plan.kv_bytes) == (128, 512 * MIB)


@pytest.mark.parametrize("kv_tokens", [0, 2048])
def test_a_kv_cache_that_does_not_fit_is_refused_with_the_figures(kv_tokens: int) -> None:
    with pytest.raises(LlamadError) as error:
        _plan(FIXED + 200 * MIB, kv_tokens=kv_tokens)
    assert (error.value.kind, error.value.reason) == (ErrorKind.EXHAUSTED, "OUT_OF_MEMORY")
    assert "2048 tokens needs 256 MiB" in error.value.message
    assert f"of {FIXED // MIB + 200} MiB leaves 200 MiB" in error.value.message


def test_a_model_that_cannot_even_stream_is_refused_with_the_figures() -> None:
    with pytest.raises(LlamadError) as error:
        _plan(FIXED + 257 * MIB)
    assert (error.value.kind, error.value.reason) == (ErrorKind.EXHAUSTED, "OUT_OF_MEMORY")
    assert "to stream the model needs 34 MiB beside the KV cache" in error.value.message
    assert f"of {FIXED // MIB + 257} MiB leaves 1 MiB" in error.value.message


def test_a_budget_below_what_must_be_there_is_an_error() -> None:
    with pytest.raises(LlamadError, match="leaves 0 MiB"):
        _plan(MIB)


def test_what_may_be_locked_bounds_the_lock_and_not_what_is_kept() -> None:
    plan = _plan(4 * GIB, lock_limit_bytes=8 * MIB)
    assert (plan.resident_bytes, plan.lockable_bytes) == (GIB, 8 * MIB)


def test_a_vocabulary_of_merges_takes_more_than_its_tokens() -> None:
    assert vocabulary_bytes(128_256, 280_147) - vocabulary_bytes(128_256, 280_146) == (
        BPE_MERGE_BYTES
    )
    assert 40 * 10**6 < vocabulary_bytes(128_256, 280_147) < 45 * 10**6
    assert 7.6 * 10**6 < vocabulary_bytes(32_000, 0) - SENTENCEPIECE_BYTES < 9 * 10**6


# Gemma 3 4B, f16: 34 layers with 4 heads of 256 keys and values, of which 5 see all tokens and 29
# the last 1,024.
GEMMA3_4B = replace(
    DEMAND,
    file_bytes=2_490_000_000,
    extents=feed_extents(2_490_000_000),
    kv_block_bytes=5 * 4 * 256 * 2 * 2 * 32,
    kv_local_bytes=29 * 4 * 256 * 2 * 2 * 32,
    kv_window=1024,
    step_rows=256,
)
WITHOUT_WINDOWS = replace(
    GEMMA3_4B,
    kv_block_bytes=GEMMA3_4B.kv_block_bytes + GEMMA3_4B.kv_local_bytes,
    kv_local_bytes=0,
)


@pytest.mark.parametrize(("demand", "gib"), [(WITHOUT_WINDOWS, 1.06), (GEMMA3_4B, 0.30)])
def test_the_cache_of_a_sequence_with_windows_is_what_it_sees_and_a_step(
    demand: Demand, gib: float
) -> None:
    """The window of 1,024 tokens lies in 33 blocks, a step of 256 rows in 8 more."""
    plan = plan_memory(demand, budget_bytes=None, kv_tokens=8192, n_ctx=8192, n_sequences=1)
    assert plan.kv_local_blocks == (41 if demand.kv_local_bytes else 0)
    assert round(plan.kv_bytes / GIB, 2) == gib


def test_windows_of_further_sequences_come_before_more_blocks() -> None:
    demand, seen = GEMMA3_4B, 33 * GEMMA3_4B.kv_local_bytes
    least = fixed_bytes(demand, 4) + demand.file_bytes + demand.cache_bytes(256, 1)
    planned = [
        plan_memory(demand, budget_bytes=least + more, kv_tokens=0, n_ctx=8192, n_sequences=4)
        for more in (-1, 0, seen, 3 * seen, 3 * seen + demand.kv_block_bytes)
    ]
    assert [(p.kv_blocks, p.kv_local_blocks) for p in planned] == [
        (256, 41),
        (256, 41),
        (256, 74),
        (256, 140),
        (257, 140),
    ]
    assert [p.model_fits for p in planned] == [False, True, True, True, True]


# ---- for every model and budget ---------------------------------------------------------------

sizes = st.integers(1, 8 * GIB)


def _demand(file_bytes: int, **others: int) -> Demand:
    return Demand(file_bytes=file_bytes, extents=feed_extents(file_bytes), **others)


demands = st.builds(
    _demand,
    file_bytes=sizes,
    kv_block_bytes=st.integers(1, 64 * MIB),
    kv_block_tokens=st.sampled_from([1, 32, 64]),
    scratch_bytes=st.integers(0, GIB),
    sampler_bytes=st.integers(0, 4 * MIB),
    vocabulary_bytes=st.integers(0, 200 * MIB),
    template_bytes=st.just(16 * MIB),
    connections_bytes=st.just(40 * MIB),
    kv_local_bytes=st.one_of(st.just(0), st.integers(1, 64 * MIB)),
    kv_window=st.integers(1, 8192),
    step_rows=st.integers(1, 512),
    draft_fixed_bytes=st.one_of(st.just(0), sizes),
    draft_block_bytes=st.integers(0, 8 * MIB),
    draft_local_bytes=st.one_of(st.just(0), st.integers(1, 8 * MIB)),
    draft_local_blocks=st.integers(0, 1000),
)
settings = st.fixed_dictionaries(
    {
        "kv_tokens": st.one_of(st.just(0), st.integers(1, 1 << 20)),
        "n_ctx": st.integers(32, 1 << 17),
        "n_sequences": st.integers(1, 256),
    }
)


def _planned(demand: Demand, budget: int | None, wishes: dict[str, int]) -> MemoryPlan | None:
    try:
        return plan_memory(demand, budget_bytes=budget, **wishes)
    except LlamadError as error:
        if error.reason != "OUT_OF_MEMORY":
            raise
        return None


@given(demands, sizes, settings)
def test_a_plan_stays_inside_its_budget_and_its_kinds_add_up(
    demand: Demand, budget: int, wishes: dict[str, int]
) -> None:
    plan = _planned(demand, budget, wishes)
    if plan is None:
        return
    assert plan.planned_bytes <= budget
    assert plan.planned_bytes == (
        plan.process_bytes
        + plan.connections_bytes
        + plan.template_bytes
        + plan.vocabulary_bytes
        + plan.samplers_bytes
        + plan.scratch_bytes
        + plan.kv_bytes
        + plan.draft_bytes
        + plan.resident_bytes
        + plan.streaming_bytes
    )
    assert plan.draft_local_blocks <= plan.kv_blocks
    assert plan.resident_bytes + plan.streamed_bytes + plan.on_demand_bytes == demand.file_bytes
    assert 0 <= plan.lockable_bytes <= plan.resident_bytes + plan.streaming_bytes
    assert plan.room_bytes is not None
    chosen = choose_residency(demand.extents, demand.file_bytes, plan.room_bytes)
    assert chosen is not None
    assert (chosen.resident_bytes, chosen.streamed_bytes) == (
        plan.resident_bytes,
        plan.streamed_bytes,
    )
    local_bytes = plan.kv_local_blocks * demand.kv_local_bytes
    assert plan.kv_bytes == plan.kv_blocks * demand.kv_block_bytes + local_bytes
    assert plan.kv_local_blocks <= plan.kv_blocks
    if demand.kv_local_bytes:
        seen = blocks_seen(demand.kv_window, 1, demand.kv_block_tokens)
        assert plan.kv_local_blocks >= min(plan.kv_blocks, seen)  # one sequence always goes on
    if not wishes["kv_tokens"]:
        context = -(-wishes["n_ctx"] // demand.kv_block_tokens)
        assert context <= plan.kv_blocks <= context * wishes["n_sequences"]
        if not plan.model_fits:
            assert plan.kv_blocks == context  # the rest goes to the model first


@given(demands, sizes, st.integers(0, GIB), settings)
def test_more_memory_never_gives_less(
    demand: Demand, budget: int, more: int, wishes: dict[str, int]
) -> None:
    plan = _planned(demand, budget, wishes)
    roomier = _planned(demand, budget + more, wishes)
    if plan is None:
        return
    assert roomier is not None
    assert roomier.kv_blocks >= plan.kv_blocks
    assert roomier.resident_bytes >= plan.resident_bytes
    unlimited = _planned(demand, None, wishes)
    assert unlimited is not None
    assert unlimited.kv_blocks >= roomier.kv_blocks
    assert unlimited.model_fits


@given(demands, sizes, settings)
def test_a_larger_demand_never_leaves_more_for_the_model(
    demand: Demand, budget: int, wishes: dict[str, int]
) -> None:
    plan = _planned(demand, budget, wishes)
    larger = _planned(replace(demand, scratch_bytes=demand.scratch_bytes + MIB), budget, wishes)
    if larger is not None:
        assert plan is not None
        assert larger.resident_bytes <= plan.resident_bytes


# ---- huge pages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choice", "available_bytes", "is_board", "expected"),
    [
        ("auto", 2 * GIB, False, True),
        ("auto", None, False, True),
        ("auto", GIB + GIB // 4, False, False),
        ("auto", 8 * GIB, True, False),
        ("on", GIB // 2, True, True),
        ("off", 8 * GIB, False, False),
    ],
)
def test_huge_pages_are_for_machines_with_memory_to_spare(
    choice: str, available_bytes: int | None, is_board: bool, expected: bool
) -> None:
    assert expected == plan_huge_pages(
        choice, file_bytes=GIB, available_bytes=available_bytes, is_board=is_board
    )
