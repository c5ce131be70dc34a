"""Steps of batch jobs are short while interactive jobs come: what those wait, what the batch loses.

Simulated time; a step costs per_step + per_row x rows.
"""

import asyncio
import itertools
import math
import random
from dataclasses import dataclass, field

import pytest

from llamad.jobs.event import Delta
from llamad.jobs.request import Priority
from llamad.schedule import short_steps
from llamad.schedule.limits import Limits
from unit.schedule.fakes import asynchronous, events_of, saying
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
    """Return a day with short steps, one without, and the seconds to a first token alone."""

    async def live() -> tuple[Day, Day, float]:
        short = await a_day(board, habit, n_interactive=N_INTERACTIVE)
        monkeypatch.setattr(short_steps, "RECENT_SECONDS", -1.0)
        long = await a_day(board, habit, n_interactive=N_INTERACTIVE)
        return short, long, await ttft_alone(board, QUESTION_ROWS)

    return asyncio.run(live())


NOISE = 0.05  # of a rate: some dozens of jobs end in a day, more or fewer at its borders


@pytest.mark.parametrize("habit", [QUESTIONS, NOTES])
@pytest.mark.parametrize("board", [SMALL, SLOW_ROWS, BOARDS[1]])
def test_who_comes_at_any_moment_waits_two_steps_more_than_alone(
    board: Board, habit: Habit, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long, alone = days(board, habit, monkeypatch)
    step = board.per_step + N_PLACES * board.per_row
    assert short.p95 <= alone + 2 * step
    assert short.rate >= (1 - short_steps.LOST_SHARE - NOISE) * long.rate


@pytest.mark.parametrize("habit", [SUMMARIES, LABELS])
def test_a_batch_that_reads_much_keeps_its_rate_and_waits_are_shorter_all_the_same(
    habit: Habit, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, long, alone = days(SMALL, habit, monkeypatch)
    assert short.p95 - alone <= (long.p95 - alone) / 2
    assert short.rate >= (1 - short_steps.LOST_SHARE - NOISE) * long.rate


def test_where_nobody_interactive_comes_steps_are_as_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    async def live() -> tuple[Day, Day]:
        first = await a_day(SMALL, SUMMARIES, n_interactive=0)
        monkeypatch.setattr(short_steps, "RECENT_SECONDS", -1.0)
        return first, await a_day(SMALL, SUMMARIES, n_interactive=0)

    first, second = asyncio.run(live())
    assert first.steps == second.steps
    assert max(map(sum, first.steps)) > 200


async def _longest_steps(monkeypatch: pytest.MonkeyPatch, *, rows: int) -> list[int]:
    """Return the rows of the longest step: before somebody interactive came, soon after, later.

    rows: of each prompt of the batch.
    """
    bench = simulated(n_sequences=N_PLACES, n_ctx=2048, kv_blocks_total=256, n_batch=512)
    SMALL.simulate(bench)
    monkeypatch.setattr(short_steps, "RECENT_SECONDS", 30.0)
    longest: list[int] = []

    async def read(number: int) -> None:
        decoding = [
            await bench.scheduler.submit(wish(f"{number}{i}", priority=BATCH, max_tokens=100))
            for i in range(N_PLACES - 1)
        ]
        await bench.sleep(0.5)  # meanwhile something is saved for short steps
        bench.engine.steps.clear()
        prompt = f"{number}".ljust(rows, "x")
        job = await bench.scheduler.submit(wish(prompt, priority=BATCH, max_tokens=10))
        await asyncio.gather(*(events_of(job) for job in (*decoding, job)))
        longest.append(max(map(sum, bench.engine.steps)))

    async with bench.running():
        await read(0)
        await read(1)
        longest.clear()
        await read(2)
        job = await bench.scheduler.submit(wish(priority=INTERACTIVE, max_tokens=1))
        await events_of(job)
        bench.clock.advance(20.0)
        await read(3)
        bench.clock.advance(30.0)
        await read(4)
    return longest


@asynchronous
async def test_steps_are_long_again_when_nobody_has_come_for_a_while() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        before, soon, later = await _longest_steps(monkeypatch, rows=60)
    assert min(before, later) > 30
    step = SMALL.per_step + N_PLACES * SMALL.per_row
    assert soon <= (short_steps.SHORT * step - SMALL.per_step) / SMALL.per_row + 1


@pytest.mark.parametrize(("interactive", "most"), [(False, 8), (True, 6)])
def test_guesses_for_the_batch_are_cut_too(interactive: bool, most: int) -> None:
    @asynchronous
    async def check() -> None:
        limits = Limits(speculation=True)
        bench = simulated(limits, n_sequences=4, n_ctx=512, kv_blocks_total=64)
        SLOW_ROWS.simulate(bench)
        bench.engine.rule = saying("abcdef" * 60)
        async with bench.running():
            if interactive:
                await events_of(
                    await bench.scheduler.submit(wish(priority=INTERACTIVE, max_tokens=3))
                )
            jobs = [
                await bench.scheduler.submit(wish("p", priority=BATCH, max_tokens=60))
                for _ in range(4)
            ]
            await asyncio.gather(*(events_of(job) for job in jobs))
        decoding = [sum(step) for step in bench.engine.steps if len(step) == 4]
        assert max(decoding[8:]) == most

    check()
