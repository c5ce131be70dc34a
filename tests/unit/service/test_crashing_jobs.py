"""Stored jobs over lives of a service that some of them end; a fake engine, and a real database.

A *crash* is a step of a guilty job: nothing is stored any more, and the next life opens what is on
the disk. The tests store what has changed where the service would do so by itself.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from llamad.config import JobsConfig
from llamad.engine.run import Run
from llamad.errors import LlamadError
from llamad.jobs.record import JobSnapshot, JobState
from llamad.jobs.store import not_durable
from llamad.service.durable_jobs import DurableJobs
from llamad.service.last_end import FILE, service_failed
from llamad.service.state import ServiceState
from llamad.service.state_directory import StateDirectory
from llamad.service.suspects import MOST_STARTS, TRIAL_SECONDS
from unit.schedule.fakes import Bench, asynchronous, request, saying

ANSWER = "An answer."
SYSTEMD_STARTS = 10  # in five minutes; then systemd gives up
MOST_LIVES = 12


class Life:
    """One run of the service, from its start to its stop or its crash."""

    def __init__(self, folder: Path, crashes: Callable[[Sequence[Run]], bool]) -> None:
        self.bench = Bench()
        self.bench.engine.rule = saying(ANSWER)
        self.crashed = asyncio.Event()
        self.all_submitted = asyncio.Event()
        self.all_submitted.set()
        self._saving = asyncio.Lock()
        self._loop = asyncio.get_running_loop()
        self._crashes = crashes
        self._forward = self.bench.engine.forward
        self.bench.engine.forward = self.step  # type: ignore[method-assign]
        self.directory = StateDirectory(folder)
        self.state = ServiceState()
        self.jobs = DurableJobs(
            self.directory, self.state, self.bench.book, JobsConfig(), clock=self.bench.clock
        )

    def step(self, runs: Sequence[Run]) -> None:
        """Compute a step, unless it crashes the service. It takes longer than storing something."""
        asyncio.run_coroutine_threadsafe(self._store(), self._loop).result()
        if self._crashes(runs):
            self._loop.call_soon_threadsafe(self.crashed.set)
            self.bench.engine.wait_for_cancel()
        self._forward(runs)

    async def _store(self) -> None:
        await self.all_submitted.wait()
        await asyncio.gather(*self.jobs._starting)
        if self.jobs._suspects.on_trial:
            await self.save()

    async def save(self) -> None:
        """Store what has changed, one after the other."""
        async with self._saving:
            await self.jobs._save()

    async def submit(self, *prompts: str) -> list[str]:
        """Submit jobs that run beside each other; return their ids."""
        self.all_submitted.clear()
        ids = []
        for prompt in prompts:
            job, _ = await self.jobs.submit(request(prompt), key="", request_digest="")
            ids.append(job.id)
        self.all_submitted.set()
        return ids

    async def over(self) -> bool:
        """Wait until it crashed or has nothing to do; whether it crashed."""
        idle = asyncio.create_task(self._idle())
        crashed = asyncio.create_task(self.crashed.wait())
        await asyncio.wait((idle, crashed), return_when=asyncio.FIRST_COMPLETED)
        idle.cancel()
        crashed.cancel()
        return self.crashed.is_set()

    async def _idle(self) -> None:
        """Let time pass, in which trials end, until every job has ended."""
        while self.jobs._entries:
            await self.save()
            self.bench.clock.advance(TRIAL_SECONDS / 4)
            await asyncio.sleep(0)


CRASH = "core-dump SEGV\n"  # what the unit writes down of one


@asynccontextmanager
async def life(
    folder: Path,
    crashes: Callable[[Sequence[Run]], bool] = lambda runs: False,
    note: str = CRASH,
) -> AsyncIterator[Life]:
    """Run a service until it crashed, or is stopped at the end of the block.

    note: what systemd writes of how it ended; empty: nothing, as after a power cut.
    """
    one = Life(folder, crashes)
    one.directory.open()
    await one.jobs.open()
    store = one.jobs._store
    assert store is not None
    async with one.bench.running():
        facts = SimpleNamespace(name=one.bench.model.name, digest="d", vocab_size=256)
        one.state.ready(SimpleNamespace(model=facts, scheduler=one.bench.scheduler))  # type: ignore[arg-type]
        one.jobs.model_loaded(one.state.require())
        yield one
        if one.crashed.is_set():
            one.jobs._store = None
            await store.close(clean=False)
            if note:
                (folder / FILE).write_text(note)
    if not one.crashed.is_set():
        await one.jobs.close()
    one.directory.close()


def reading(letter: str) -> Callable[[Sequence[Run]], bool]:
    """Return what crashes when a prompt with this first letter is read."""
    return lambda runs: any(run.position == 0 and run.tokens[0] == ord(letter) for run in runs)


async def lives_until_done(
    folder: Path, crashes: Callable[[Sequence[Run]], bool], ids: Sequence[str], note: str = CRASH
) -> tuple[int, dict[str, JobSnapshot]]:
    """Start the service again and again; return how often it crashed, and how the jobs ended."""
    for number in range(MOST_LIVES):
        async with life(folder, crashes, note) as one:
            if not await one.over():
                return number, {i: await one.jobs.find(i) for i in ids}
    raise AssertionError("it crashes for ever")


@asynchronous
async def test_a_job_that_crashes_the_service_is_given_up_after_three_starts() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with life(folder, reading("G")) as one:
            [guilty] = await one.submit("Guilty")
            assert await one.over()
        crashes, ended = await lives_until_done(folder, reading("G"), [guilty])
        assert 1 + crashes == MOST_STARTS
        assert ended[guilty].state is JobState.FAILED
        assert ended[guilty].error_reason == "JOB_GIVEN_UP"
        assert f"{MOST_STARTS} times" in ended[guilty].error
        async with life(folder) as one:  # and stays so
            reader = await one.jobs.resume(guilty, 0, wait=False, allow=lambda job: None)
            with pytest.raises(LlamadError, match="not tried again"):
                await reader.__anext__()


@pytest.mark.parametrize("order", ["GABC", "ABCG", "AGBC"])
@asynchronous
async def test_jobs_that_ran_beside_it_end_with_their_text(order: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with life(folder, reading("G")) as one:
            ids = dict(
                zip(order, await one.submit(*(letter * 40 for letter in order)), strict=True)
            )
            assert await one.over()
        crashes, ended = await lives_until_done(folder, reading("G"), list(ids.values()))
        assert 1 + crashes <= MOST_STARTS + 1
        states = {letter: ended[job_id].state for letter, job_id in ids.items()}
        assert states.pop("G") is JobState.FAILED
        assert set(states.values()) == {JobState.FINISHED}
        async with life(folder) as one:
            for letter in states:
                ended_job = await one.jobs._stored(ids[letter])
                assert ended_job is not None
                assert "".join(delta.text for delta in ended_job.deltas) == ANSWER


@pytest.mark.parametrize("note", ["signal KILL\n", "", "success 0\n"])
def test_a_job_is_not_blamed_for_a_kill_or_a_power_cut(note: str) -> None:
    n_ends = 0

    def ends(runs: Sequence[Run]) -> bool:
        """End the service at the first step of each of many lives."""
        nonlocal n_ends
        n_ends += 1
        return n_ends <= 3 * MOST_STARTS

    @asynchronous
    async def check() -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            async with life(folder, ends, note) as one:
                ids = await one.submit("first", "second", "third")
                assert await one.over()
            crashes, ended = await lives_until_done(folder, ends, ids, note)
            assert 1 + crashes == 3 * MOST_STARTS
            assert {job.state for job in ended.values()} == {JobState.FINISHED}

    check()


@asynchronous
async def test_starts_are_counted_anew_after_a_kill() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with life(folder, reading("G"), CRASH) as one:
            [guilty] = await one.submit("Guilty")
            assert await one.over()
        async with life(folder, reading("G"), "signal KILL\n") as one:
            assert await one.over()
        crashes, ended = await lives_until_done(folder, reading("G"), [guilty])
        assert crashes == MOST_STARTS
        assert ended[guilty].error_reason == "JOB_GIVEN_UP"


@pytest.mark.parametrize(
    ("note", "failed"),
    [
        ("core-dump SEGV", True),
        ("signal ABRT", True),
        ("signal QUIT", True),
        ("watchdog QUIT", True),
        ("oom-kill KILL", True),
        ("exit-code 5", True),
        ("signal KILL", False),
        ("success 0", False),
        ("timeout KILL", False),
        ("", False),
        ("\xff\0 \n\n", False),
        ("core-dump " * 100_000, False),  # not what systemd writes
    ],
)
def test_what_the_note_of_the_last_end_says(tmp_path: Path, note: str, failed: bool) -> None:
    (tmp_path / FILE).write_text(note)
    assert service_failed(tmp_path) is failed
    assert not (tmp_path / FILE).exists()
    assert not service_failed(tmp_path)  # it is of one end


@asynchronous
async def test_a_job_that_crashes_late_is_given_up_too() -> None:
    """It makes tokens again at each start that were not stored; at last there is none to store.

    How many lives store one depends on when a token comes to its transcript: before the next step
    begins, or while it is computed.
    """

    def late(runs: Sequence[Run]) -> bool:
        return any(run.position + len(run.tokens) == len("Guilty") + 8 for run in runs)

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with life(folder, late) as one:
            [guilty] = await one.submit("Guilty")
            await one.crashed.wait()  # none of its tokens was stored
        crashes, ended = await lives_until_done(folder, late, [guilty])
        assert MOST_STARTS < 1 + crashes < SYSTEMD_STARTS
        assert ended[guilty].error_reason == "JOB_GIVEN_UP"
        assert ended[guilty].completion_tokens >= 6


@asynchronous
async def test_power_cuts_give_up_no_job_that_makes_progress() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        n = 0

        def cut(runs: Sequence[Run]) -> bool:
            nonlocal n
            n += 1
            return n % 3 == 0

        async with life(folder, cut) as one:
            ids = await one.submit("A", "B")
            assert await one.over()
        crashes, ended = await lives_until_done(folder, cut, ids)
        assert crashes > MOST_STARTS
        assert {job.state for job in ended.values()} == {JobState.FINISHED}


@asynchronous
async def test_a_stop_of_the_service_does_not_count() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ids: list[str] = []
        for _ in range(MOST_STARTS + 2):
            async with life(folder) as one:
                held = one.bench.pause_step(0)
                ids = ids or await one.submit("p")
                await held.wait()
                assert len(one.jobs._suspects) == 0
        async with life(folder) as one:
            assert not await one.over()
            assert (await one.jobs.find(ids[0])).state is JobState.FINISHED


@asynchronous
async def test_suspects_wait_for_the_one_on_trial_and_new_jobs_do_not() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with life(folder, lambda runs: len(runs) == 2) as one:
            ids = await one.submit("A", "B")
            assert await one.over()
        async with life(folder) as one:
            entered = one.bench.pause_step(0)
            await entered.wait()
            [tried] = [i for i in ids if not one.jobs._entries[i].job.suspended]
            assert one.jobs._suspects.on_trial == tried
            [new] = await one.submit("new")
            assert not one.jobs._entries[new].job.suspended
            one.bench.book.cancel(tried)
            one.bench.engine.before_step = lambda: None
            assert not await one.over()
            ends = {i: (await one.jobs.find(i)).state for i in (*ids, new)}
            assert list(ends.values()).count(JobState.FINISHED) == 2
            assert ends[tried] is JobState.CANCELLED


@asynchronous
async def test_what_cannot_be_counted_is_computed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as name:
        async with life(Path(name)) as one:
            store = one.jobs._store
            assert store is not None

            async def full(job_id: str, starts: int) -> None:
                raise not_durable("the disk is full")

            monkeypatch.setattr(store, "start", full)
            [job_id] = await one.submit("p")
            assert not await one.over()
            assert (await one.jobs.find(job_id)).state is JobState.FINISHED
