"""Random arrivals in simulated time: nothing is lost, nobody starves, owners share alike."""

import asyncio
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamad.errors import LlamadError
from llamad.jobs.event import Delta, Finished
from llamad.jobs.job import Job
from llamad.jobs.record import JobState
from llamad.jobs.request import Priority
from llamad.schedule.limits import Limits
from unit.schedule.fakes import Bench, asynchronous, events_of, letters, request
from unit.schedule.test_scenarios import simulated

STEP_SECONDS = 0.1
ROW_SECONDS = 0.002
AGEING_SECONDS = 10.0
OWNERS = ("anna", "berta", "carl")


@dataclass(frozen=True)
class Arrival:
    """One request. Seconds from the arrival before, and from its submission."""

    after: float
    owner: str
    priority: Priority
    n_prompt: int
    max_tokens: int
    cancelled_after: float | None


arrivals = st.lists(
    st.builds(
        Arrival,
        after=st.sampled_from([0.0, 0.0, 0.3, 2.0, 15.0]),
        owner=st.sampled_from(OWNERS),
        priority=st.sampled_from(Priority),
        n_prompt=st.integers(1, 60),
        max_tokens=st.integers(1, 40),
        cancelled_after=st.sampled_from([None, None, None, 0.0, 0.5, 4.0]),
    ),
    min_size=1,
    max_size=25,
)


def alone(prompt: str, seed: int, n_tokens: int) -> str:
    """Return the text of a run without company: what the fake engine's rule says."""
    history = list(prompt.encode())
    for draw in range(n_tokens):
        history.append(letters(tuple(history), seed, draw))
    return bytes(history[len(prompt) :]).decode()


class Checked:
    """A bench whose blocks are counted at each step."""

    def __init__(self, n_sequences: int, n_blocks: int) -> None:
        limits = Limits(ageing_seconds=AGEING_SECONDS, queue_capacity=100)
        self.bench = simulated(
            limits, n_sequences=n_sequences, kv_blocks_total=n_blocks, kv_block_tokens=8, n_ctx=104
        )
        self.bench.simulate(
            seconds_per_step=STEP_SECONDS, seconds_per_row=ROW_SECONDS, tick_seconds=0.05
        )
        self.bench.engine.before_step = self.check_blocks

    def check_blocks(self) -> None:
        """The budget of places and blocks holds, and each block counts those who have it."""
        scheduler = self.bench.scheduler
        running = scheduler._places.running
        assert 1 <= len(running) <= self.bench.model.n_sequences
        users = Counter(block for g in running for block in g.sequence.blocks)
        pool = scheduler._pool
        assert pool._users == [users[block] for block in range(pool.n_blocks)]
        assert len(users) == pool.n_blocks - pool.n_free <= pool.n_blocks
        assert not any(g.sequence.blocks for g in scheduler._places.waiting)

    async def run(self, wishes: list[Arrival]) -> list[tuple[Arrival, Job, str, bool]]:
        """Return each arrival, its job, its text, and whether that came to its end."""
        bench = self.bench
        results: list[tuple[Arrival, Job, str, bool]] = []

        async def client(number: int, wish: Arrival, at: float) -> None:
            await bench.sleep(at)
            job = await bench.scheduler.submit(
                request(
                    chr(65 + number) * wish.n_prompt,
                    seed=number,
                    on_behalf_of=wish.owner,
                    priority=wish.priority,
                    max_tokens=wish.max_tokens,
                )
            )
            if wish.cancelled_after is not None:
                bench.clock.call_at(
                    bench.clock.now() + wish.cancelled_after, lambda: bench.book.abandon(job)
                )
            text, whole = "", False
            with suppress(LlamadError):
                async for event in job.stream:
                    text += event.text if isinstance(event, Delta) else ""
                    whole = isinstance(event, Finished) and job.state is JobState.FINISHED
            results.append((wish, job, text, whole))

        async def idle_time() -> None:
            while True:
                await asyncio.sleep(0)
                if not bench.book.list():
                    bench.clock.advance(0.05)

        async with bench.running():
            passing = asyncio.create_task(idle_time())
            at, clients = 0.0, []
            for number, wish in enumerate(wishes):
                at += wish.after
                clients.append(client(number, wish, at))
            await asyncio.gather(*clients)
            passing.cancel()
            await bench.scheduler.drain(60.0)
        return results


@settings(max_examples=60, deadline=None)
@given(arrivals=arrivals, n_sequences=st.integers(1, 4), n_blocks=st.integers(14, 40))
def test_no_job_is_lost_and_every_text_is_the_one_alone(
    arrivals: list[Arrival], n_sequences: int, n_blocks: int
) -> None:
    @asynchronous
    async def check() -> None:
        checked = Checked(n_sequences, n_blocks)
        results = await checked.run(arrivals)
        assert len(results) == len(arrivals)
        for wish, job, text, whole in results:
            number = job.record.seed
            expected = alone(chr(65 + number) * wish.n_prompt, number, wish.max_tokens)
            assert job.ended
            assert whole or wish.cancelled_after is not None
            assert text == expected if whole else expected.startswith(text)
        pool = checked.bench.scheduler._pool
        assert pool.n_free == pool.n_blocks
        assert not any(pool._users)
        assert checked.bench.book.list() == []

    check()


# ---- waits ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_sequences", [1, 3])
@pytest.mark.parametrize("priority", [Priority.NORMAL, Priority.BATCH])
@pytest.mark.parametrize("owner", ["busy", "other"])
def test_however_much_urgent_work_comes_a_job_starts_and_goes_on(
    owner: str, priority: Priority, n_sequences: int
) -> None:
    @asynchronous
    async def check() -> None:
        bench = simulated(Limits(ageing_seconds=AGEING_SECONDS), n_sequences=n_sequences)
        bench.simulate(seconds_per_step=STEP_SECONDS, tick_seconds=0.05)
        seconds_of_a_job = 2.0

        async def keep_coming() -> None:
            while True:
                wish = request(
                    on_behalf_of="busy",
                    priority=Priority.INTERACTIVE,
                    max_tokens=round(seconds_of_a_job / STEP_SECONDS),
                )
                await events_of(await bench.scheduler.submit(wish))

        async with bench.running():
            clients = [asyncio.create_task(keep_coming()) for _ in range(2 * n_sequences)]
            await bench.sleep(30.0)
            job = await bench.scheduler.submit(
                request("slow", on_behalf_of=owner, priority=priority, max_tokens=60)
            )
            submitted = bench.clock.now()
            reading = asyncio.create_task(events_of(job))
            longest, before, since = 0.0, 0, submitted
            while not job.ended:
                await bench.sleep(0.5)
                if job.record.completion_tokens > before:
                    before, since = job.record.completion_tokens, bench.clock.now()
                longest = max(longest, bench.clock.now() - since)
            await reading
            for client in clients:
                client.cancel()
        # a class for each ageing_seconds, one more to go before what just came, and who runs
        classes = priority - Priority.INTERACTIVE + 1
        assert longest <= classes * AGEING_SECONDS + 2 * seconds_of_a_job + 1.0
        assert before == 60

    check()


@asynchronous
async def test_two_endless_jobs_of_a_class_take_turns_at_one_place() -> None:
    bench = simulated(Limits(ageing_seconds=AGEING_SECONDS), n_sequences=1)
    bench.simulate(seconds_per_step=STEP_SECONDS, tick_seconds=0.05)
    async with bench.running():
        jobs = [
            await bench.scheduler.submit(request(on_behalf_of=owner, max_tokens=500))
            for owner in ("anna", "berta")
        ]
        await bench.sleep(45.0)
        said = [job.record.completion_tokens for job in jobs]
    assert min(said) >= 150
    assert sum(said) >= 0.9 * 45.0 / STEP_SECONDS


# ---- shares --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Habit:
    """How an owner asks: how many at a time, and what."""

    n_clients: int
    n_prompt: int
    max_tokens: int


habits = st.builds(
    Habit,
    n_clients=st.integers(9, 14),  # more than there are places: somebody always waits
    n_prompt=st.sampled_from([1, 20, 90]),
    max_tokens=st.sampled_from([1, 5, 15]),
)


@settings(max_examples=6, deadline=None)
@given(
    habits=st.lists(habits, min_size=2, max_size=3),
    n_sequences=st.sampled_from([1, 2, 4]),
    priority=st.sampled_from(Priority),
)
def test_owners_who_always_ask_get_alike_shares_of_the_engine(
    habits: list[Habit], n_sequences: int, priority: Priority
) -> None:
    @asynchronous
    async def check() -> None:
        bench = simulated(n_sequences=n_sequences, n_ctx=256)
        bench.simulate(seconds_per_step=0.02, seconds_per_row=ROW_SECONDS, tick_seconds=0.5)
        taken = await taken_by_owners(bench, dict(zip(OWNERS, habits, strict=False)), priority)
        fair = sum(taken.values()) / len(habits)
        assert all(abs(seconds - fair) <= 0.1 * fair for seconds in taken.values()), taken

    check()


async def taken_by_owners(
    bench: Bench, habits: dict[str, Habit], priority: Priority
) -> dict[str, float]:
    """Let owners ask without end; return the seconds of compute that each took."""
    taken = dict.fromkeys(habits, 0.0)
    charge = bench.scheduler._shares.charge

    def count(rows: Counter[str], seconds: float, now: float) -> None:
        for owner, n_rows in rows.items():
            taken[owner] += seconds * n_rows / rows.total()
        charge(rows, seconds, now)

    bench.scheduler._shares.charge = count  # type: ignore[method-assign, assignment]

    async def keep_asking(owner: str, habit: Habit, number: int) -> None:
        while True:
            wish = request(
                chr(65 + number) * habit.n_prompt,
                on_behalf_of=owner,
                priority=priority,
                max_tokens=habit.max_tokens,
            )
            await events_of(await bench.scheduler.submit(wish))

    async with bench.running():
        clients = [
            asyncio.create_task(keep_asking(owner, habit, number))
            for owner, habit in habits.items()
            for number in range(habit.n_clients)
        ]
        await bench.sleep(30.0)
        for client in clients:
            client.cancel()
    return taken
