"""Progress, in simulated time with a cost for each row: nobody is starved, whatever others do."""

import asyncio
import random
from contextlib import suppress
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.jobs.event import Delta
from llamad.jobs.job import Job
from llamad.schedule.encoder import Encoder
from llamad.schedule.limits import Limits
from unit.schedule.fakes import (
    Bench,
    InlineExecutor,
    asynchronous,
    events_of,
    request,
    saying,
    text_of,
)

STEP_SECONDS = Limits().step_seconds


def simulated(limits: Limits | None = None, **sizes: Any) -> Bench:
    """Return a bench whose encodings take no time of their own."""
    return Bench(limits, encoder=Encoder(InlineExecutor(), InlineExecutor()), **sizes)


async def first_token_seconds(bench: Bench, job: Job, submitted_at: float) -> float:
    """Return how long after its submission a job's first text came."""
    async for event in job.stream:
        if isinstance(event, Delta):
            return bench.clock.now() - submitted_at
    raise AssertionError("no text came")


async def _tokens_in(bench: Bench, job: Job, seconds: float) -> int:
    await bench.sleep(seconds)
    return job.record.completion_tokens


async def _bystander(*, storm: bool) -> int:
    """Return a bystander's tokens in 4 s of steps of 100 ms."""
    bench = simulated()
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        bystander = await bench.scheduler.submit(request("bystander"))
        counting = asyncio.create_task(_tokens_in(bench, bystander, 4.0))
        while storm and not counting.done():
            job = await bench.scheduler.submit(request("storm"))
            await asyncio.wait(
                [counting, asyncio.create_task(bench.sleep(0.06))],
                return_when=asyncio.FIRST_COMPLETED,
            )
            bench.book.cancel(job.id)
        return await counting


@asynchronous
async def test_a_storm_of_cancels_costs_a_bystander_at_most_a_tenth_of_its_tokens() -> None:
    calm = await _bystander(storm=False)
    assert calm >= 38
    assert await _bystander(storm=True) >= 0.9 * calm


@pytest.mark.parametrize("arrives_after_seconds", [0.0, 0.37, 1.0, 4.21])
def test_a_short_prompt_does_not_wait_for_a_long_one(arrives_after_seconds: float) -> None:
    @asynchronous
    async def check() -> None:
        bench = simulated(n_ctx=2048, n_batch=512)
        bench.simulate(seconds_per_row=0.02)
        async with bench.running():
            long = await bench.scheduler.submit(request("l" * 1500, max_tokens=1))
            await bench.sleep(arrives_after_seconds)
            now = bench.clock.now()
            short = await bench.scheduler.submit(request("s" * 16, max_tokens=1))
            waited = await first_token_seconds(bench, short, now)
            bench.book.cancel(long.id)
        first_step = 32 * 0.02  # nothing is known of the cost before it
        longest_step = STEP_SECONDS if arrives_after_seconds else first_step
        assert waited <= STEP_SECONDS + longest_step + 16 * 0.02 + 0.011  # and a tick

    check()


@asynchronous
async def test_a_long_prompt_goes_on_while_short_ones_keep_coming() -> None:
    bench = simulated(n_ctx=2048, n_batch=512, n_sequences=4)
    bench.simulate(seconds_per_row=0.02)
    finished = asyncio.Event()
    async with bench.running():
        long = await bench.scheduler.submit(request("l" * 600, max_tokens=1))

        async def keep_coming() -> None:
            while not finished.is_set():
                await events_of(await bench.scheduler.submit(request("s" * 16, max_tokens=2)))

        greedy = [asyncio.create_task(keep_coming()) for _ in range(3)]
        waited = await first_token_seconds(bench, long, bench.clock.now())
        finished.set()
        await asyncio.gather(*greedy)
    assert waited <= 4 * 600 * 0.02 * 1.25  # a fourth of the time is its own


@asynchronous
async def test_decoding_goes_on_while_a_long_prompt_is_read() -> None:
    bench = simulated(n_ctx=2048, n_batch=512)
    bench.simulate(seconds_per_row=0.02)
    async with bench.running():
        talker = await bench.scheduler.submit(request("t"))
        await bench.sleep(1.0)
        await bench.scheduler.submit(request("l" * 1500, max_tokens=1))
        before = talker.record.completion_tokens
        await bench.sleep(10.0)
        gained = talker.record.completion_tokens - before
    assert gained >= 0.9 * 10.0 / STEP_SECONDS


@asynchronous
async def test_a_dear_pass_serves_many_rows() -> None:
    # weights that are read from a card for each pass: 20 s, and 0.1 s a row
    bench = simulated(n_ctx=2048, n_batch=512, kv_blocks_total=128)
    bench.simulate(seconds_per_step=20.0, seconds_per_row=0.1, tick_seconds=1.0)
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("l" * 1500, max_tokens=1)))
    assert len(bench.engine.steps) <= 12
    assert max(map(sum, bench.engine.steps)) >= 150


@asynchronous
async def test_where_weights_stream_a_prompt_takes_as_few_passes_as_the_batch_allows() -> None:
    bench = simulated(n_ctx=2048, n_batch=256, kv_blocks_total=128)
    bench.model.step_read_seconds = 20.0
    bench.simulate(seconds_per_step=20.0, seconds_per_row=0.1, tick_seconds=1.0)
    async with bench.running():
        await events_of(await bench.scheduler.submit(request("s" * 200, max_tokens=1)))
        await events_of(await bench.scheduler.submit(request("l" * 700, max_tokens=1)))
    assert [sum(step) for step in bench.engine.steps] == [200, 256, 256, 188]


@asynchronous
async def test_where_weights_stream_more_guesses_share_a_pass() -> None:
    said = "".join(chr(ord("a") + i % 26) for i in range(300))  # repeats after 26
    steps: dict[float, int] = {}
    for read_seconds in (0.0, 20.0):
        bench = simulated(
            Limits(speculation=True), n_ctx=2048, n_batch=256, kv_blocks_total=128, guess_rows=16
        )
        bench.engine.rule = saying(said)
        bench.model.step_read_seconds = read_seconds
        bench.simulate(seconds_per_step=20.0, seconds_per_row=0.1, tick_seconds=1.0)
        async with bench.running():
            assert await text_of(await bench.scheduler.submit(request("prompt" * 5))) == said
        steps[read_seconds] = len(bench.engine.steps)
    assert steps[20.0] < 0.6 * steps[0.0]


async def _texts(bench: Bench, n_jobs: int, max_tokens: int) -> list[str]:
    chance = random.Random(n_jobs)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(
                request(f"{i}" * chance.randrange(1, 40), seed=i, max_tokens=max_tokens)
            )
            for i in range(n_jobs)
        ]
        texts = await asyncio.gather(*(text_of(job) for job in jobs))
        await bench.scheduler.drain(1.0)
    return list(texts)


@asynchronous
async def test_jobs_that_gave_their_blocks_back_go_on_with_the_same_text() -> None:
    roomy = await _texts(Bench(n_sequences=8, n_batch=64), 12, 60)
    tight = Bench(n_sequences=8, n_batch=64, kv_blocks_total=20, kv_block_tokens=8, n_ctx=160)
    requeued = 0
    move = Job.move

    def count(job: Job, state: object) -> None:
        nonlocal requeued
        requeued += getattr(state, "value", "") == "queued"
        move(job, state)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "move", count)
        texts = await _texts(tight, 12, 60)
    assert texts == roomy
    assert requeued > 5
    assert tight.scheduler.counts().kv_blocks_free == 20
    assert tight.book.totals.generated_tokens == 12 * 60
    assert tight.book.totals.prompt_tokens == sum(
        snapshot.prompt_tokens for snapshot in tight.book.list(include_ended=True)
    )


@asynchronous
async def test_the_oldest_job_never_gives_way() -> None:
    bench = Bench(n_sequences=4, kv_blocks_total=8, kv_block_tokens=8, n_ctx=64)
    async with bench.running():
        jobs = [await bench.scheduler.submit(request("p", max_tokens=50)) for _ in range(4)]
        await asyncio.gather(*(events_of(job) for job in jobs))
    assert [snapshot.id for snapshot, _ in bench.observer.ended] == [job.id for job in jobs]
    # its rows are the first of every step until it ends: 1 prompt row, then 49 tokens
    assert all(rows[0] == 1 for rows in bench.engine.steps[:50])


@asynchronous
async def test_guesses_leave_rows_to_prompts() -> None:
    bench = Bench(Limits(speculation=True), n_batch=8, n_sequences=2)
    bench.engine.rule = saying("abc" * 100)
    async with bench.running():
        talker = await bench.scheduler.submit(request("abcabc"))
        prompt = await bench.scheduler.submit(request("p" * 100, max_tokens=1))
        await events_of(prompt)
        assert not talker.ended


@pytest.mark.parametrize("seed", range(10))
def test_whatever_comes_every_job_ends_and_every_block_returns(seed: int) -> None:
    @asynchronous
    async def check() -> None:
        chance = random.Random(seed)
        bench = simulated(
            Limits(queue_capacity=20, speculation=True),
            n_sequences=chance.randrange(1, 6),
            n_batch=chance.choice([8, 40, 256]),
            kv_blocks_total=chance.randrange(6, 30),
            kv_block_tokens=8,
            n_ctx=chance.choice([40, 200]),
        )
        bench.simulate(seconds_per_row=0.005, seconds_per_step=0.02)
        bench.engine.refused = lambda history: history[-1] == 97 and len(history) % 31 == 0
        jobs: list[Job] = []
        refusals: set[str] = set()

        async def client(number: int) -> None:
            for i in range(4):
                await bench.sleep(chance.random())
                wish = request(
                    "x" * chance.randrange(1, 35),
                    seed=100 * number + i,
                    max_tokens=chance.choice([1, 5, 40, None]),
                    deadline_seconds=chance.choice([None, None, 0.3, 5.0]),
                )
                try:
                    job = await bench.scheduler.submit(wish)
                except LlamadError as error:
                    refusals.add(error.reason)
                    continue
                jobs.append(job)
                if chance.random() < 0.3:
                    await bench.sleep(chance.random())
                    await job.stream.aclose()
                else:
                    with suppress(LlamadError):
                        await events_of(job)

        async def idle_time() -> None:
            while True:
                await asyncio.sleep(0)
                if not bench.book.list():
                    bench.clock.advance(0.01)

        async with bench.running():
            passing = asyncio.create_task(idle_time())
            await asyncio.gather(*(client(number) for number in range(8)))
            passing.cancel()
            await bench.scheduler.drain(60.0)
        assert refusals <= {"QUEUE_FULL", "DEADLINE_EXCEEDED"}
        assert len(jobs) > 10
        assert all(job.ended for job in jobs)
        assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total
        assert bench.book.list() == []

    check()
