"""Sequences of a model with states: the same texts as without, and no slot lost.

The fake engine checks that each run begins with the state of exactly the tokens before it.
"""

import asyncio
import random
from typing import Any

import pytest

from llamad.schedule.limits import Limits
from llamad.schedule.sequence import Sequence
from llamad.schedule.states import StatePool
from unit.schedule.fakes import Bench, asynchronous, request, saying, text_of

LONG = "a system prompt of a house with many devices, which is said before each question. " * 2
REPEATING = saying("one two three four one two three four one two three five one two three four")


def bench_with(n_states: int, interval: int = 1, **sizes: Any) -> Bench:
    return Bench(
        Limits(speculation=sizes.pop("speculation", False)),
        n_states=n_states,
        state_interval=interval,
        kv_block_tokens=4,
        **sizes,
    )


async def texts(bench: Bench, prompts: list[str], **fields: Any) -> list[str]:
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(prompt, seed=i, max_tokens=30, **fields))
            for i, prompt in enumerate(prompts)
        ]
        return list(await asyncio.gather(*(text_of(job) for job in jobs)))


def states_of(bench: Bench) -> StatePool:
    return bench.scheduler._pool.states


def assert_all_given_back(bench: Bench) -> None:
    pool = states_of(bench)
    bench.scheduler._places.free_ended(0.0)
    assert pool.n_available == pool.n_slots
    assert pool._n_holders == 0
    assert sorted([*pool._free, *pool._keys]) == list(range(pool.n_slots))


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("extra", [0, 1, 7])
@asynchronous
async def test_texts_are_those_of_a_model_without_states(interval: int, extra: int) -> None:
    prompts = [LONG + f"question {i}" for i in range(6)] + ["short", LONG]
    sizes = {"n_sequences": 3, "kv_blocks_total": 200}
    expected = await texts(bench_with(0, **sizes), prompts)
    bench = bench_with(3 + extra, interval, **sizes)
    assert await texts(bench, prompts) == expected
    assert_all_given_back(bench)


@pytest.mark.parametrize("extra", [0, 1, 4])
@asynchronous
async def test_texts_are_the_same_where_blocks_are_short(extra: int) -> None:
    prompts = [f"question number {i}, rather long" for i in range(7)]
    sizes = {"n_sequences": 4, "kv_blocks_total": 28, "n_ctx": 100}
    expected = await texts(bench_with(0, **sizes), prompts)
    bench = bench_with(4 + extra, **sizes)
    assert await texts(bench, prompts) == expected
    assert_all_given_back(bench)


@pytest.mark.parametrize("extra", [0, 1, 6])
@pytest.mark.parametrize("interval", [1, 2])
@asynchronous
async def test_wrong_guesses_are_computed_again_from_the_state_before_them(
    extra: int, interval: int
) -> None:
    sizes = {"n_sequences": 2, "kv_blocks_total": 100, "speculation": True}
    prompts = ["one two three four five one two three", "one two three four one two three"]
    plain = bench_with(0, n_sequences=2, kv_blocks_total=100)
    plain.engine.rule = REPEATING
    bench = bench_with(2 + extra, interval, **sizes)
    bench.engine.rule = REPEATING
    assert await texts(bench, prompts) == await texts(plain, prompts)
    if extra:
        assert len(bench.engine.steps) < len(plain.engine.steps), "guesses save steps"
    assert_all_given_back(bench)


@pytest.mark.parametrize(("interval", "reused"), [(1, 180), (8, 160)])
@asynchronous
async def test_a_prompt_begins_with_the_longest_state_that_is_kept(
    interval: int, reused: int
) -> None:
    """The beginning is 181 tokens, of which 180 are whole blocks."""
    beginning = (LONG * 2)[:181]
    bench = bench_with(64, interval, n_sequences=2, kv_blocks_total=200)
    async with bench.running():
        cached = []
        for tail in ("first of all, what is the time?", "?", "and now?"):
            job = await bench.scheduler.submit(request(beginning + tail, max_tokens=2))
            await text_of(job)
            cached.append(job.record.cached_prompt_tokens)
    # Where two prompts part a state is kept too, so the third one begins there.
    assert cached == [0, reused, 180]


async def cached(bench: Bench, prompt: str) -> int:
    job = await bench.scheduler.submit(request(prompt, max_tokens=2))
    await text_of(job)
    return job.record.cached_prompt_tokens


@asynchronous
async def test_few_states_spread_over_a_long_prompt() -> None:
    """One device of many changes: what stands before it is read again only in part."""
    devices = [f"lamp number {i} is on. " for i in range(20)]
    changed = [*devices[:15], "lamp number 15 is off. ", *devices[16:]]
    bench = bench_with(6, n_sequences=2, kv_blocks_total=400, n_ctx=600)
    async with bench.running():
        assert await cached(bench, "".join(devices)) == 0
        same = len("".join(devices[:15]))
        assert await cached(bench, "".join(changed)) > same / 2


@asynchronous
async def test_short_prompts_do_not_push_out_the_state_behind_a_long_one() -> None:
    bench = bench_with(6, n_sequences=2, kv_blocks_total=400, n_ctx=600)
    async with bench.running():
        await cached(bench, LONG * 2 + "first?")
        for i in range(8):
            await cached(bench, f"{i} short")
        assert await cached(bench, LONG * 2 + "second?") > len(LONG)


@asynchronous
async def test_a_state_that_nobody_uses_goes_in_the_end() -> None:
    bench = bench_with(6, n_sequences=2, kv_blocks_total=2000, n_ctx=600)
    async with bench.running():
        await cached(bench, LONG * 2 + "first?")
        for i in range(100):
            await cached(bench, f"{i} " + LONG)
        assert await cached(bench, LONG * 2 + "second?") == 0


@asynchronous
async def test_random_company_loses_no_slot() -> None:
    rng = random.Random(4)
    prompts = [
        LONG[: rng.randrange(1, 160)] + "x" * rng.randrange(3) + LONG[: rng.randrange(9)]
        for _ in range(40)
    ]
    sizes = {"n_sequences": 4, "kv_blocks_total": 60, "n_ctx": 220, "n_batch": 16}
    expected = await texts(bench_with(0, **sizes), prompts)
    for extra in (0, 3, 20):
        bench = bench_with(4 + extra, 2, speculation=True, **sizes)
        assert await texts(bench, prompts) == expected
        assert_all_given_back(bench)


def test_a_state_that_is_forgotten_is_not_found() -> None:
    pool = StatePool(8, 2, block_tokens=4, interval=1)
    sequence = Sequence(list(range(20)), 20)
    pool.plan(sequence, 8, 0)
    sequence.n_computed = 8
    pool.settle(sequence)
    keys = [sequence.own_keys.get(i, sequence.tokens, 4) for i in range(2)]
    assert pool.find(keys[:1])
    assert pool.find(keys[1:])
    pool.forget(keys)
    assert pool.find(keys) is None
    pool.release(sequence)
    assert pool.n_available == 8
    assert pool.n_kept == 0
