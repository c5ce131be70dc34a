"""Local blocks: the same texts as where every layer sees all tokens, and no local block lost.

The fake engine checks that the local blocks that a row sees hold the tokens of their blocks.
"""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamad.engine.run import NOT_HELD, blocks_seen
from llamad.schedule.block_keys import PUBLIC, BlockKeys
from llamad.schedule.blocks import BlockPool
from llamad.schedule.limits import Limits
from llamad.schedule.local_blocks import LocalBlocks
from llamad.schedule.sequence import Sequence
from unit.schedule.fakes import Bench, asynchronous, request, saying, text_of

BLOCK = 4  # tokens
LONG = "a system prompt of a house with many devices, which is said before each question. " * 2
REPEATING = saying("one two three four one two three four one two three five one two three four")


def bench_with(n_local: int, window: int, **sizes: Any) -> Bench:
    return Bench(
        Limits(speculation=sizes.pop("speculation", False)),
        kv_local_blocks=n_local,
        kv_window=window,
        kv_block_tokens=BLOCK,
        **sizes,
    )


async def texts(bench: Bench, prompts: list[str], **fields: Any) -> list[str]:
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(prompt, seed=i, max_tokens=30, **fields))
            for i, prompt in enumerate(prompts)
        ]
        return list(await asyncio.gather(*(text_of(job) for job in jobs)))


def assert_all_given_back(bench: Bench) -> None:
    bench.scheduler._places.free_ended(0.0)
    assert bench.scheduler._pool.local.n_free == bench.model.kv_local_blocks


def least(window: int) -> int:
    return blocks_seen(window, 1, BLOCK)


@pytest.mark.parametrize("window", [1, 4, 10, 33])
@pytest.mark.parametrize("extra", [0, 3, 40])
@asynchronous
async def test_texts_are_those_of_a_model_without_windows(window: int, extra: int) -> None:
    prompts = [LONG + f"question {i}" for i in range(6)] + ["short", LONG]
    sizes = {"n_sequences": 3, "kv_blocks_total": 200}
    expected = await texts(bench_with(0, 0, **sizes), prompts)
    bench = bench_with(least(window) + extra, window, **sizes)
    assert await texts(bench, prompts) == expected
    assert_all_given_back(bench)


@pytest.mark.parametrize("extra", [0, 2, 9])
@asynchronous
async def test_guesses_behind_the_end_of_the_window_are_taken_back(extra: int) -> None:
    sizes = {"n_sequences": 2, "kv_blocks_total": 100}
    prompts = ["one two three four five one two three", "one two three four one two three"]
    plain = bench_with(0, 0, **sizes)
    bench = bench_with(2 * least(6) + extra, 6, speculation=True, **sizes)
    plain.engine.rule = bench.engine.rule = REPEATING
    assert await texts(bench, prompts) == await texts(plain, prompts)
    assert len(bench.engine.steps) < len(plain.engine.steps), "guesses save steps"
    assert_all_given_back(bench)


@pytest.mark.parametrize("seed", range(6))
def test_random_company_loses_no_local_block(seed: int) -> None:
    @asynchronous
    async def check() -> None:
        rng = random.Random(seed)
        prompts = [
            LONG[: rng.randrange(1, 160)] + "x" * rng.randrange(3) + LONG[: rng.randrange(9)]
            for _ in range(40)
        ]
        sizes = {"n_sequences": 4, "kv_blocks_total": 60, "n_ctx": 220, "n_batch": 16}
        expected = await texts(bench_with(0, 0, **sizes), prompts)
        window = rng.choice([1, 7, 8, 21, 50, 300])
        n_local = min(60, least(window) + rng.choice([0, 1, 12, 45]))
        bench = bench_with(n_local, window, speculation=True, **sizes)
        assert await texts(bench, prompts) == expected
        assert_all_given_back(bench)

    check()


@asynchronous
async def test_a_sequence_takes_no_more_than_its_window() -> None:
    """150 tokens of 38 blocks, and the answer, in the local blocks of a window and a step."""
    bench = bench_with(blocks_seen(16, 8, BLOCK), 16, n_batch=8, kv_blocks_total=100)
    assert bench.model.kv_local_blocks == 7
    job_text = await texts(bench, [LONG[:150]])
    assert job_text == await texts(bench_with(0, 0, kv_blocks_total=100), [LONG[:150]])
    assert max(len(rows) for rows in bench.engine.steps) == 1
    assert max(rows[0] for rows in bench.engine.steps) == 8, "steps stay whole"


@pytest.mark.parametrize(
    ("n_local", "cached"),
    [
        (5 + 4, 0),  # what lies before the second question was needed for the first answer
        (5 + 20, 152),
    ],
)
@asynchronous
async def test_a_prompt_goes_on_where_its_window_is_still_there(n_local: int, cached: int) -> None:
    beginning = LONG[:150]
    bench = bench_with(n_local, 16, n_sequences=1, n_batch=8, kv_blocks_total=200)
    async with bench.running():
        for expected in (0, cached, cached):
            job = await bench.scheduler.submit(request(beginning + "?" * 3, max_tokens=30))
            await text_of(job)
            assert job.record.cached_prompt_tokens == expected


@asynchronous
async def test_a_conversation_goes_on_behind_its_last_block() -> None:
    bench = bench_with(least(16) + 2, 16, n_sequences=1, n_batch=8, kv_blocks_total=200)
    async with bench.running():
        first = await bench.scheduler.submit(request(LONG[:60], max_tokens=30))
        said = LONG[:60] + await text_of(first)
        second = await bench.scheduler.submit(request(said + " and what else?", max_tokens=30))
        await text_of(second)
    assert second.record.cached_prompt_tokens == 88  # of 90: whole blocks


@asynchronous
async def test_long_sequences_wait_where_short_ones_run_together() -> None:
    """Local blocks for one long sequence: three that are shorter than the window fit as well."""
    sizes = {"n_sequences": 3, "n_batch": 12, "kv_blocks_total": 100, "n_ctx": 200}
    for prompt, together in (("s" * 5, 3), ("l" * 90, 1)):
        bench = bench_with(least(60) + 2, 60, **sizes)
        await texts(bench, [prompt + str(i) for i in range(3)])
        decoding = [rows for rows in bench.engine.steps if set(rows) == {1}]
        assert max(map(len, decoding)) == together


# ---- the pool -----------------------------------------------------------------------------------


def _pool(n_blocks: int, n_local: int, window: int) -> BlockPool:
    local = LocalBlocks(n_local, window, BLOCK, n_blocks)
    return BlockPool(n_blocks, BLOCK, local=local)


def _sequence(tokens: list[int], owner: bytes = b"anna") -> Sequence:
    return Sequence(list(tokens), len(tokens), own_keys=BlockKeys(owner))


def _compute(pool: BlockPool, sequence: Sequence) -> int:
    """Compute a sequence to its end, a token at a time; return the tokens that were there."""
    reused = pool.reuse(sequence)
    while sequence.n_pending:
        pool.grow(sequence, 1)
        sequence.n_computed += 1
        pool.share(sequence)
    return reused


class Memory:
    """What an engine would have in its local blocks: for each, the tokens up to there."""

    def __init__(self, pool: BlockPool, window: int) -> None:
        self.pool = pool
        self.window = window
        self.local: dict[int, tuple[int, ...]] = {}

    def compute(self, sequence: Sequence, n: int) -> None:
        """Look at what the rows see, and write them."""
        named = self.pool.local.named_by(sequence)
        begin, end = sequence.n_computed, sequence.n_computed + n
        seen = max(0, begin - self.window + 1)
        for index in range(seen // BLOCK, begin // BLOCK):
            assert self.local[named[index]] == tuple(sequence.tokens[: (index + 1) * BLOCK])
        for index in range(begin // BLOCK, -(-end // BLOCK)):
            before = min(begin, (index + 1) * BLOCK)
            if before > max(seen, index * BLOCK):
                assert self.local[named[index]][:before] == tuple(sequence.tokens[:before])
            self.local[named[index]] = tuple(sequence.tokens[: min(end, (index + 1) * BLOCK)])
        sequence.n_computed = end


@given(
    n_blocks=st.integers(4, 24),
    window=st.integers(1, 30),
    extra=st.integers(0, 12),
    actions=st.lists(
        st.tuples(
            st.integers(0, 3),  # which sequence
            st.sampled_from(["start", "compute", "compute", "append", "reuse", "release"]),
            st.integers(0, 40),
            st.integers(0, 1 << 16),
        ),
        max_size=80,
    ),
)
def test_what_a_row_sees_is_what_its_sequence_computed(
    n_blocks: int, window: int, extra: int, actions: list[tuple[int, str, int, int]]
) -> None:
    n_local = min(n_blocks, least(window) + extra)
    pool = _pool(n_blocks, n_local, window)
    memory = Memory(pool, window)
    sequences = [_sequence([1], PUBLIC) for _ in range(4)]
    for which, action, n, chance in actions:
        sequence = sequences[which]
        if action == "start":
            pool.release(sequence)
            tokens = [1] * (chance % 17) + [2] * (chance // 17 % 9) + [3]
            sequence = sequences[which] = _sequence(tokens, (PUBLIC, b"ben")[chance % 2])
            if chance % 5 == 0:
                pool.pin([sequence.own_keys.get(0, [*tokens, 1, 1, 1], 4)])
            elif chance % 7 == 0 and pool.n_shareable(sequence):
                pool.forget(pool.keys_at(sequence, 0))
            pool.reuse(sequence)
        elif action == "compute":
            n = min(n, sequence.n_pending, pool.room(sequence))
            pool.grow(sequence, n)
            memory.compute(sequence, n)
            pool.share(sequence)
        elif action == "append":
            sequence.tokens.append(1 + chance % 2)
        elif action == "reuse":
            pool.reuse(sequence)
        else:
            pool.release(sequence)
        held = {local for s in sequences for local in pool.local.named_by(s)} - {NOT_HELD}
        assert len(held) == n_local - pool.local.n_free
        assert held <= set(range(n_local))
        for other in sequences:
            n_held = sum(local != NOT_HELD for local in pool.local.named_by(other))
            assert n_held <= pool.local.most_held(len(other.blocks))
    for sequence in sequences:
        pool.release(sequence)
    assert (pool.n_free, pool.local.n_free) == (n_blocks, n_local)
    alone = _sequence([9] * (BLOCK * n_blocks), PUBLIC)
    while alone.n_pending:  # whoever is alone always goes on
        assert pool.room(alone) >= 1
        pool.grow(alone, 1)
        alone.n_computed += 1
        pool.share(alone)
    assert pool.n_cached == 0


def test_room_ends_where_local_blocks_do() -> None:
    pool = _pool(n_blocks=20, n_local=4, window=8)
    sequence = _sequence([1] * 60)
    assert pool.room(sequence) == 16
    pool.grow(sequence, 16)
    sequence.n_computed = 16
    assert pool.room(sequence) == 0
    pool.share(sequence)  # the next token sees 9 and on
    assert pool.room(sequence) == 8
    assert pool.local.named_by(sequence)[:2] == (NOT_HELD, NOT_HELD)


def test_what_is_computed_again_gives_a_cached_block_its_local_block_back() -> None:
    pool = _pool(n_blocks=20, n_local=4, window=8)
    first = _sequence([1] * 17)
    keys = [pool.keys_at(first, i)[1] for i in range(4)]
    _compute(pool, first)
    pool.release(first)
    assert pool.holds(keys)
    other = _sequence([2] * 13)
    _compute(pool, other)
    pool.release(other)
    again = _sequence([1] * 17)
    assert len(pool._find_blocks(again)) == 4  # the blocks are there, their local ones not
    assert not pool.holds(keys), "a prefix is not whole without what its window sees"
    assert _compute(pool, again) == 0
    assert pool.n_cached + len(again.blocks) == 4 + 3 + 1, "no block is there twice"
    pool.release(again)
    assert pool.holds(keys)
    assert _compute(pool, _sequence([1] * 17)) == 16


def test_local_blocks_of_what_was_used_longest_ago_go_first_and_pinned_ones_last() -> None:
    pool = _pool(n_blocks=40, n_local=7, window=8)
    pinned, old, new = (_sequence([i] * 17) for i in (1, 2, 3))
    pool.pin(pinned.own_keys.get(i, pinned.tokens, BLOCK) for i in range(4))
    for sequence in (pinned, old, new):
        _compute(pool, sequence)
        pool.release(sequence)
    found = [len(pool.find(_sequence(sequence.tokens))) for sequence in (pinned, old, new)]
    assert found == [4, 0, 4]


def test_a_block_from_elsewhere_brings_its_local_block() -> None:
    pool = _pool(n_blocks=20, n_local=4, window=8)
    sequence = _sequence([1] * 17)
    keys = [pool.keys_at(sequence, i)[1] for i in range(4)]
    for i, key in enumerate(keys):
        block = pool.reserve(local=i > 0)
        assert block is not None
        assert (pool.local.of(block) is not None) == (i > 0)
        pool.admit(block, key)
    assert pool.local.n_free == 4
    assert pool.find(_sequence([1] * 9)) == []  # what follows sees block 0
    assert pool.reuse(sequence) == 16
    assert sequence.first_local == 2
    # one that came twice gives the first what it lacks
    block = pool.reserve(local=True)
    assert block is not None
    pool.admit(block, keys[0])
    assert len(pool.find(_sequence([1] * 9))) == 2
    pool.release(sequence)
    assert (pool.n_free, pool.local.n_free) == (20, 4)
