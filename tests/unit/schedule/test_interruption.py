"""A step is stopped for an interactive job: what that one waits, what the others lose, their texts.

Simulated time; a step costs per_step + per_row x rows.
"""

import asyncio
import itertools
import math
import random
from dataclasses import dataclass, field
from typing import Any

import pytest

from llamad.jobs.event import Delta
from llamad.jobs.request import Priority
from llamad.schedule import interruption
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, text_of
from unit.schedule.test_priorities import BOARDS, Board, ttft_alone, wish
from unit.schedule.test_scenarios import first_token_seconds, simulated

BATCH, INTERACTIVE = Priority.BATCH, Priority.INTERACTIVE
N_PLACES = 4
N_BATCH_CLIENTS = 8
N_INTERACTIVE = 45
QUESTION_ROWS = 40
ANSWER_TOKENS = 4


@dataclass(frozen=True)
class Habit:
    """What each batch job is: tokens that it reads, and tokens that it says."""

    n_prompt: int
    max_tokens: int


QUESTIONS = Habit(15, 10)
NOTES = Habit(30, 20)
SUMMARIES = Habit(300, 60)
LABELS = Habit(300, 1)  # nothing but reading
SMALL = Board(0.009, 0.001)  # the demo model on a PC
SLOW_ROWS = Board(0.06, 0.04)  # the demo model on a Raspberry Pi 4


@dataclass
class Day:
    """What happened in a simulated while."""

    waits: list[float] = field(default_factory=list)  # for first tokens, seconds
    batch_tokens: int = 0  # read and said
    seconds: float = 0.0
    steps: list[list[int]] = field(default_factory=list)  # rows of each run

    @property
    def rate(self) -> float:
        """Batch tokens in a second."""
        return self.batch_tokens / self.seconds

    @property
    def p95(self) -> float:
        """Seconds until the first token of an interactive job."""
        return sorted(self.waits)[math.ceil(0.95 * len(self.waits)) - 1]


async def a_day(board: Board, habit: Habit, *, n_interactive: int, every_steps: float = 25) -> Day:
    """Let eight clients have batch jobs without end, and interactive jobs come at random."""
    bench = simulated(n_sequences=N_PLACES, n_ctx=2048, kv_blocks_total=256, n_batch=512)
    board.simulate(bench)
    chance = random.Random(7)
    day, numbers = Day(), itertools.count()
    pause = every_steps * (board.per_step + N_PLACES * board.per_row)

    async def keep_busy() -> None:
        while True:
            number = next(numbers)
            prompt = f"{number:05}".ljust(habit.n_prompt, "x")
            job = await bench.scheduler.submit(
                wish(prompt, seed=number, priority=BATCH, max_tokens=habit.max_tokens)
            )
            async for event in job.stream:
                day.batch_tokens += isinstance(event, Delta) and len(event.text)
            day.batch_tokens += habit.n_prompt

    async def ask() -> None:
        question = f"{next(numbers):05}".ljust(QUESTION_ROWS, "?")
        job = await bench.scheduler.submit(
            wish(question, priority=INTERACTIVE, max_tokens=ANSWER_TOKENS)
        )
        day.waits.append(await first_token_seconds(bench, job, bench.clock.now()))
        await events_of(job)

    async with bench.running():
        clients = [asyncio.create_task(keep_busy()) for _ in range(N_BATCH_CLIENTS)]
        await bench.sleep(2 * pause)
        if n_interactive:
            await ask()
        await bench.sleep(2 * pause)
        day.batch_tokens, day.waits, began = 0, [], bench.clock.now()
        bench.engine.steps.clear()
        for _ in range(n_interactive):
            await bench.sleep(pause * chance.uniform(0.5, 1.5))
            await ask()
        await bench.sleep(max(0.0, began + 60 * pause - bench.clock.now()))
        day.seconds = bench.clock.now() - began
        day.steps = list(bench.engine.steps)
        for client in clients:
            client.cancel()
    return day


def days(board: Board, habit: Habit, monkeypatch: pytest.MonkeyPatch) -> tuple[Day, Day, float]:
    """Return a day with interruptions, one without, and the seconds to a first token alone.

    Batches that read much have long steps: who arrives in each second of them finds nothing saved.
    """
    every = 25 if habit.n_prompt < 100 else 150

    async def live() -> tuple[Day, Day, float]:
        stopped = await a_day(board, habit, n_interactive=N_INTERACTIVE, every_steps=every)
        monkeypatch.setattr(interruption, "LOST_SHARE", 0.0)
        whole = await a_day(board, habit, n_interactive=N_INTERACTIVE, every_steps=every)
        return stopped, whole, await ttft_alone(board, QUESTION_ROWS)

    return asyncio.run(live())


NOISE = 0.05  # of a rate: some dozens of jobs end in a day, more or fewer at its borders
LOST = interruption.LOST_SHARE


@pytest.mark.parametrize("habit", [QUESTIONS, NOTES, SUMMARIES, LABELS])
@pytest.mark.parametrize("board", [SMALL, SLOW_ROWS, BOARDS[1]])
def test_who_comes_at_any_moment_waits_as_long_as_alone(
    board: Board, habit: Habit, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, whole, alone = days(board, habit, monkeypatch)
    step = board.per_step + N_PLACES * board.per_row  # one more where its prompt is cut elsewhere
    assert stopped.p95 <= alone + step + 2 * board.tick_seconds
    assert whole.p95 > stopped.p95
    assert stopped.rate >= (1 - LOST - NOISE) * whole.rate


@asynchronous
async def test_a_storm_of_interactive_jobs_costs_the_batch_no_more_than_its_share() -> None:
    board, habit = SMALL, NOTES
    calm = await a_day(board, habit, n_interactive=0)
    storm = await a_day(board, habit, n_interactive=200, every_steps=3)
    work = 200 * (
        QUESTION_ROWS * board.per_row + ANSWER_TOKENS * (board.per_step + 2 * board.per_row)
    )
    left = 1 - work / storm.seconds
    assert storm.rate >= (1 - LOST - NOISE) * left * calm.rate


SIZES: dict[str, dict[str, int]] = {
    "plain": {},
    "states": {"n_states": 8, "state_interval": 2},
    "windows": {"kv_window": 24, "kv_local_blocks": 60},
}


async def _texts(sizes: dict[str, int], *, seed: int | None) -> tuple[list[str], Bench]:
    """Return the texts of eight batch jobs; interactive ones come at random, with a seed."""
    bench = simulated(
        Limits(speculation=True), n_sequences=3, n_ctx=512, kv_blocks_total=80, **sizes
    )
    SMALL.simulate(bench)
    chance = random.Random(seed)

    async def ask() -> None:
        while True:
            await bench.sleep(chance.uniform(0.02, 0.3))
            prompt = "?" * chance.randrange(1, 60)
            await events_of(
                await bench.scheduler.submit(wish(prompt, priority=INTERACTIVE, max_tokens=3))
            )

    async with bench.running():
        jobs = [
            await bench.scheduler.submit(
                wish(f"{i}" * (10 + 17 * i), seed=i, priority=BATCH, max_tokens=80)
            )
            for i in range(8)
        ]
        asking = None if seed is None else asyncio.create_task(ask())
        texts = list(await asyncio.gather(*(text_of(job) for job in jobs)))
        if asking is not None:
            asking.cancel()
        await bench.scheduler.drain(60.0)
    return texts, bench


@pytest.mark.parametrize("kind", SIZES)
@pytest.mark.parametrize("seed", range(4))
@asynchronous
async def test_a_job_whose_steps_were_stopped_has_the_same_text(kind: str, seed: int) -> None:
    expected, _ = await _texts(SIZES[kind], seed=None)
    texts, bench = await _texts(SIZES[kind], seed=seed)
    assert texts == expected
    assert bench.engine.n_cancelled_steps > 5
    bench.scheduler._places.free_ended(0.0)
    assert bench.scheduler._pool.states.n_available == bench.model.n_states
    assert bench.scheduler.counts().kv_blocks_free == bench.model.kv_blocks_total


async def _n_stopped(
    *, running: Priority, arriving: Priority, steps_before: int = 40, **sizes: Any
) -> int:
    """Return how many steps were stopped when a job arrived beside others, in the middle of one."""
    bench = simulated(n_sequences=4, n_ctx=2048, kv_blocks_total=256, **sizes)
    SMALL.simulate(bench)
    step = SMALL.per_step + SMALL.per_row
    async with bench.running():
        await bench.scheduler.submit(wish("p", priority=running, max_tokens=1000))
        await bench.sleep((steps_before + 0.5) * step)
        job = await bench.scheduler.submit(wish("q", priority=arriving, max_tokens=2))
        await events_of(job)
    return bench.engine.n_cancelled_steps


@asynchronous
async def test_steps_are_stopped_for_interactive_jobs_alone_and_never_those_of_their_kind() -> None:
    assert await _n_stopped(running=BATCH, arriving=INTERACTIVE) == 1
    assert await _n_stopped(running=Priority.NORMAL, arriving=INTERACTIVE) == 1
    assert await _n_stopped(running=INTERACTIVE, arriving=INTERACTIVE) == 0
    assert await _n_stopped(running=BATCH, arriving=Priority.NORMAL) == 0


@asynchronous
async def test_a_step_goes_on_where_nothing_is_saved_or_it_cannot_be_repeated() -> None:
    assert await _n_stopped(running=BATCH, arriving=INTERACTIVE, steps_before=2) == 0
    tight = {"n_states": 4, "state_interval": 1}  # a slot for each sequence, none beside
    roomy = {"n_states": 9, "state_interval": 1}
    assert await _n_stopped(running=BATCH, arriving=INTERACTIVE, **tight) == 0
    assert await _n_stopped(running=BATCH, arriving=INTERACTIVE, **roomy) == 1
