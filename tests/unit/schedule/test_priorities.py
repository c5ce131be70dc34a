"""Classes, owners and ageing, in simulated time: who goes first, who gives way, who gets on."""

import asyncio
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from llamad.jobs.event import Delta
from llamad.jobs.job import Job
from llamad.jobs.record import JobState
from llamad.jobs.request import GenerationRequest, Priority
from llamad.schedule.generation import Generation
from llamad.schedule.limits import Limits
from llamad.schedule.policy import Rank
from unit.schedule.fakes import Bench, asynchronous, events_of, request, text_of
from unit.schedule.test_scenarios import first_token_seconds, simulated

INTERACTIVE, NORMAL, BATCH = Priority.INTERACTIVE, Priority.NORMAL, Priority.BATCH


def wish(
    prompt: str = "prompt", *, priority: Priority = NORMAL, owner: str = "anna", **fields: object
) -> GenerationRequest:
    return request(prompt, priority=priority, on_behalf_of=owner, **fields)  # type: ignore[arg-type]


async def ended_in_order(bench: Bench, jobs: Sequence[Job]) -> list[int]:
    """Run the jobs; return their numbers in the order in which they ended."""
    async with bench.running():
        await asyncio.gather(*(events_of(job) for job in jobs))
    ids = [job.id for job in jobs]
    return [ids.index(snapshot.id) for snapshot, _ in bench.observer.ended]


@asynchronous
async def test_jobs_that_wait_start_by_class() -> None:
    bench = Bench(n_sequences=1)
    classes = [BATCH, NORMAL, INTERACTIVE, BATCH, NORMAL, INTERACTIVE]
    jobs = [await bench.scheduler.submit(wish(priority=c, max_tokens=2)) for c in classes]
    assert await ended_in_order(bench, jobs) == [2, 5, 1, 4, 0, 3]


@asynchronous
async def test_an_owner_who_used_less_goes_first_and_nobody_s_queue_holds_others_up() -> None:
    bench = simulated(n_sequences=1)
    bench.simulate(seconds_per_step=0.1)
    jobs = [await bench.scheduler.submit(wish(owner="greedy", max_tokens=9)) for _ in range(20)]
    async with bench.running():
        await bench.sleep(1.0)
        modest = await bench.scheduler.submit(wish(owner="modest", max_tokens=9))
        await events_of(modest)
        assert sum(job.ended for job in jobs) in (1, 2)


@asynchronous
async def test_an_interactive_job_takes_a_place_at_once_and_the_other_goes_on_with_its_text() -> (
    None
):
    alone = Bench()
    async with alone.running():
        expected = await text_of(await alone.scheduler.submit(wish(max_tokens=60)))
    bench = simulated(n_sequences=1)
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        batch = await bench.scheduler.submit(wish(priority=BATCH, max_tokens=60))
        text = asyncio.create_task(text_of(batch))
        await bench.sleep(2.0)
        now = bench.clock.now()
        urgent = await bench.scheduler.submit(wish(priority=INTERACTIVE, max_tokens=5))
        assert await first_token_seconds(bench, urgent, now) <= 2 * 0.1 + 0.011
        assert batch.state is JobState.QUEUED
        assert await text == expected
    assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total


@asynchronous
async def test_a_normal_job_does_not_displace_another() -> None:
    bench = simulated(n_sequences=1)
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        first = await bench.scheduler.submit(wish(max_tokens=50))
        await bench.sleep(1.0)
        second = await bench.scheduler.submit(wish(owner="berta", max_tokens=1))
        await events_of(second)
        assert first.ended


@asynchronous
async def test_where_places_and_blocks_are_free_nobody_pauses() -> None:
    bench = simulated(n_sequences=9)
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        batch = [await bench.scheduler.submit(wish(priority=BATCH)) for _ in range(8)]
        await bench.sleep(2.0)
        before = [job.record.completion_tokens for job in batch]
        urgent = await bench.scheduler.submit(wish(priority=INTERACTIVE, max_tokens=20))
        await events_of(urgent)
        gained = [job.record.completion_tokens - n for job, n in zip(batch, before, strict=True)]
    assert min(gained) >= 18  # they waited for the prompt's step only


@asynchronous
async def test_blocks_of_a_lower_class_go_to_an_interactive_prompt() -> None:
    bench = simulated(n_sequences=4, kv_blocks_total=8, kv_block_tokens=8, n_ctx=64)
    bench.simulate(seconds_per_step=0.1)
    async with bench.running():
        batch = [
            await bench.scheduler.submit(wish("b" * 20, priority=BATCH, max_tokens=20))
            for _ in range(2)
        ]
        await bench.sleep(1.0)
        now = bench.clock.now()
        urgent = await bench.scheduler.submit(wish("u" * 40, priority=INTERACTIVE, max_tokens=2))
        assert await first_token_seconds(bench, urgent, now) <= 3 * 0.1 + 0.011
        await asyncio.gather(*(events_of(job) for job in batch))


# ---- acceptance 2: an interactive job among eight batch jobs -------------------------------------


@dataclass(frozen=True)
class Board:
    """What a step costs. Seconds."""

    per_step: float
    per_row: float

    def simulate(self, bench: Bench) -> None:
        bench.simulate(
            seconds_per_step=self.per_step,
            seconds_per_row=self.per_row,
            tick_seconds=self.tick_seconds,
        )

    @property
    def tick_seconds(self) -> float:
        return self.per_step / 5


BOARDS = [
    Board(0.05, 0.002),  # a small model on a PC
    Board(0.2, 0.02),  # a 1B on a Raspberry Pi 5
    Board(1.0, 0.15),  # a 7B on a Raspberry Pi 4
]
ANSWER_TOKENS = 10
ROUNDS = 10
WORK = 0.2  # of the time is the interactive jobs' own, were they alone


async def ttft_alone(board: Board, n_rows: int) -> float:
    """Return the first-token time of an interactive job where steps are known and nobody runs."""
    bench = simulated(n_sequences=4, n_ctx=2048, kv_blocks_total=256)
    board.simulate(bench)
    async with bench.running():
        for i in range(3):
            job = await bench.scheduler.submit(wish(f"{i}" * n_rows, max_tokens=ANSWER_TOKENS))
            seconds = await first_token_seconds(bench, job, bench.clock.now())
            await events_of(job)
    return seconds


async def _beside_batch(
    board: Board, n_rows: int, n_sequences: int, seconds: float
) -> tuple[list[float], float]:
    """Return first-token times of interactive jobs of n_rows, 0 for none, and batch tokens/s."""
    bench = simulated(n_sequences=n_sequences, n_ctx=2048, kv_blocks_total=512)
    board.simulate(bench)
    waits: list[float] = []
    n_batch = 0
    async with bench.running():

        async def keep_busy(number: int) -> None:
            nonlocal n_batch
            while True:
                job = await bench.scheduler.submit(
                    wish(f"story {number}", seed=number, priority=BATCH, max_tokens=400)
                )
                async for event in job.stream:
                    n_batch += isinstance(event, Delta) and len(event.text)

        clients = [asyncio.create_task(keep_busy(i)) for i in range(8)]
        await bench.sleep(40 * board.per_step)
        n_batch, began = 0, bench.clock.now()
        for i in range(ROUNDS if n_rows else 0):
            await bench.sleep(seconds / ROUNDS * (0.5 + (i * math.sqrt(2)) % 0.4))
            job = await bench.scheduler.submit(
                wish(chr(65 + i) * n_rows, priority=INTERACTIVE, max_tokens=ANSWER_TOKENS)
            )
            now = bench.clock.now()
            waits.append(await first_token_seconds(bench, job, now))
            await events_of(job)
        await bench.sleep(max(0.0, began + seconds - bench.clock.now()))
        rate = n_batch / (bench.clock.now() - began)
        for client in clients:
            client.cancel()
    return waits, rate


@pytest.mark.parametrize(("n_sequences", "n_rows"), [(4, 120), (8, 16), (9, 120)])
@pytest.mark.parametrize("board", BOARDS)
def test_an_interactive_job_waits_two_steps_more_than_alone_beside_eight_batch_jobs(
    board: Board, n_rows: int, n_sequences: int
) -> None:
    @asynchronous
    async def check() -> None:
        alone = await ttft_alone(board, n_rows)
        work_seconds = alone + ANSWER_TOKENS * (board.per_step + board.per_row)
        seconds = ROUNDS * work_seconds / WORK
        _, rate = await _beside_batch(board, 0, n_sequences, seconds)
        waits, beside = await _beside_batch(board, n_rows, n_sequences, seconds)
        step = board.per_step + min(8, n_sequences) * board.per_row
        worst = sorted(waits)[math.ceil(0.95 * len(waits)) - 1]
        print(
            f"{board}, {n_rows} rows, {n_sequences} places: alone {alone:.2f} s, p95 {worst:.2f} s,"
            f" a step {step:.2f} s; batch {beside / rate:.0%} of {rate:.1f} tokens/s"
        )
        assert worst <= alone + 2 * step + board.tick_seconds
        assert beside >= rate * (1 - WORK - 0.1)

    check()


@asynchronous
async def test_a_long_queue_is_not_ranked_anew_for_every_step() -> None:
    bench = simulated(Limits(queue_capacity=300), n_sequences=2)
    bench.simulate(seconds_per_step=0.01)
    rank = bench.scheduler._policy.waiting_rank
    looks = 0

    def count(running: Sequence[Generation], now: float) -> Callable[[Generation], Rank]:
        nonlocal looks
        looks += 1
        return rank(running, now)

    async with bench.running():
        jobs = [await bench.scheduler.submit(wish(max_tokens=200)) for _ in range(202)]
        await bench.sleep(0.1)
        bench.scheduler._policy.waiting_rank = count  # type: ignore[method-assign]
        n_steps = len(bench.engine.steps)
        await bench.sleep(1.0)
        assert len(bench.engine.steps) - n_steps > 90
        assert looks <= 20  # one in 0.1 s for 200 jobs, and those for the reports
        urgent = await bench.scheduler.submit(wish(priority=INTERACTIVE, max_tokens=1))
        assert await first_token_seconds(bench, urgent, bench.clock.now()) <= 2 * 0.011
        bench.book.cancel(jobs[0].id)
        bench.book.cancel(jobs[1].id)
        await bench.sleep(0.03)
        assert sum(job.record.started_at is not None for job in jobs) == 4
