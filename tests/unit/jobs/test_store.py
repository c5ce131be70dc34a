"""The database of durable jobs: what comes back, and what becomes of one that cannot be used."""

import asyncio
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path

import pytest

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.database import FILE
from llamad.jobs.event import Delta
from llamad.jobs.record import JobSnapshot, JobState
from llamad.jobs.request import GenerationRequest, Priority
from llamad.jobs.store import JobStore
from llamad.jobs.stored_job import Ended, Living, Outcome, Progress, StoredError, StoredJob
from unit.schedule.fakes import asynchronous

DAY = 86400.0
JOB = StoredJob(
    id="j1",
    owner="0",
    idempotency_key="key",
    request_digest="asked",
    submitted_unix=1e9,
    model="m",
    model_digest="d",
    request=GenerationRequest(prompt=None, stop=("a",)),
    max_tokens=9,
    fills_context=False,
    seed=1 << 63,
    priority=Priority.BATCH,
    is_chat=True,
    dropped_messages=0,
    prompt_tokens=(1, 2, 70_000),
)


class Wall:
    """The time of day, as a test says."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


WALL = Wall()


@asynccontextmanager
async def opened(
    folder: Path, *, max_bytes: int = 1 << 20, keep_days: float = 7.0
) -> AsyncIterator[tuple[JobStore, list[Living]]]:
    store = JobStore(folder, max_bytes=max_bytes, keep_seconds=keep_days * DAY, wall_clock=WALL)
    living = await store.open()
    try:
        yield store, living
    finally:
        await store.close()


def progress(*tokens: int, job: str = "j1") -> Progress:
    return Progress(job, tokens, tuple(Delta(f"ü{t}", t, t == 1) for t in tokens), len(tokens))


def ended(job: str = "j1", at: float = 1e9, text: str = "text") -> Ended:
    snapshot = JobSnapshot(
        id=job,
        request_id="r",
        state=JobState.FAILED,
        priority=Priority.NORMAL,
        model="m",
        prompt_tokens=3,
        processed_prompt_tokens=3,
        completion_tokens=1,
        max_tokens=9,
        age_seconds=1.0,
        running_seconds=1.0,
        submitted_at=1.0,
    )
    error = StoredError(ErrorKind.CORRUPT, "WHY", "because")
    return Ended(job, at, Outcome(snapshot, None, error), (Delta(text, 1),))


@asynchronous
async def test_a_job_comes_back_with_what_was_stored_of_it() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opened(folder) as (store, living):
            assert (living, store.fault) == ([], "")
            await store.add(JOB)
            await store.add(replace(JOB, id="j2", idempotency_key=""))
            await store.save([progress(1, 2)], [])
            await store.save([progress(3), progress(1, job="j2")], [])
        async with opened(folder) as (store, living):
            first, second = living
            assert first == Living(JOB, (1, 2, 3), progress(1, 2, 3).deltas, 1)
            assert second.tokens == (1,)
            assert await store.by_key("0", "key") == ("j1", "asked")
            assert await store.by_key("1", "key") is None
            assert await store.ended("j1") is None
            await store.save([], [ended()])
        async with opened(folder) as (store, living):
            assert [one.job.id for one in living] == ["j2"]
            assert await store.ended("j1") == ended()
            assert await store.outcomes() == [(1e9, ended().outcome)]
            assert await store.by_key("0", "key") == ("j1", "asked")
        assert (folder / FILE).stat().st_mode & 0o077 == 0


def change_file(file: Path, statement: str) -> None:
    """Do to the database what llamad does not."""
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(statement)


def fill(folder: Path) -> None:
    async def work() -> None:
        async with opened(folder) as (store, _):
            await store.add(JOB)

    asyncio.run(work())


def living_in(folder: Path) -> tuple[list[str], str]:
    """Open the database; return the jobs that go on, and the fault."""

    async def work() -> tuple[list[str], str]:
        async with opened(folder) as (store, living):
            if not store.fault:
                await store.add(replace(JOB, id=f"new{len(living)}", idempotency_key=""))
            return [one.job.id for one in living], store.fault

    return asyncio.run(work())


def _garbage(file: Path) -> None:
    file.write_bytes(os.urandom(1 << 16))


def _truncated(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2 + 100)


def _zeros_inside(file: Path) -> None:
    with file.open("r+b") as f:
        f.seek(4096)
        f.write(bytes(4096))


def _foreign(file: Path) -> None:
    file.unlink()
    change_file(file, "CREATE TABLE things (a)")


def _another_schema(file: Path) -> None:
    change_file(file, "CREATE TRIGGER evil AFTER INSERT ON jobs BEGIN DELETE FROM jobs; END")


@pytest.mark.parametrize("damage", [_garbage, _truncated, _zeros_inside, _foreign, _another_schema])
def test_a_broken_or_foreign_file_is_set_aside_and_a_new_one_begun(
    tmp_path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    fill(tmp_path)
    file = tmp_path / FILE
    damage(file)
    before = file.read_bytes()
    assert living_in(tmp_path) == ([], "")
    aside = tmp_path / f"{FILE}.broken-1"
    assert aside.read_bytes() == before
    assert "begun anew" in caplog.text
    assert str(aside) in caplog.text
    assert living_in(tmp_path)[0] == ["new0"]


def test_half_a_log_costs_what_was_in_it_and_nothing_else(tmp_path: Path) -> None:
    """A process is killed with its log; the log loses its end, as a power cut may do."""
    code = (
        "import asyncio, os, sys; from pathlib import Path; from dataclasses import replace;"
        "from unit.jobs.test_store import JOB, JobStore\n"
        "async def main():\n"
        "    store = JobStore(Path(sys.argv[1]), max_bytes=1 << 20, keep_seconds=1e9)\n"
        "    await store.open()\n"
        "    for i in range(20):\n"
        "        await store.add(replace(JOB, id=f'j{i}', idempotency_key=''))\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run([sys.executable, "-c", code, tmp_path], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    wal = tmp_path / f"{FILE}-wal"
    os.truncate(wal, wal.stat().st_size * 2 // 3)
    ids, fault = living_in(tmp_path)
    assert fault == ""
    assert ids == [f"j{i}" for i in range(len(ids))]
    assert 5 < len(ids) < 20


@asynchronous
async def test_starts_without_a_token_are_counted_until_the_service_is_stopped() -> None:
    async def starts(folder: Path, *, clean: bool = False) -> dict[str, int | None]:
        store = JobStore(folder, max_bytes=1 << 20, keep_seconds=DAY, wall_clock=WALL)
        found = {living.job.id: living.starts for living in await store.open()}
        await store.close(clean=clean)
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = JobStore(folder, max_bytes=1 << 20, keep_seconds=DAY, wall_clock=WALL)
        await store.open()
        for i in range(1, 5):
            await store.add(replace(JOB, id=f"j{i}", idempotency_key=""))
        for i in range(1, 4):
            await store.start(f"j{i}", i)
        await store.start("never stored", 1)
        await store.save([progress(1, job="j2")], [], ["j3"])
        await store.close(clean=False)
        expected = {"j1": 1, "j2": 0, "j3": None, "j4": None}
        assert await starts(folder) == expected
        assert await starts(folder, clean=True) == expected
        assert set((await starts(folder)).values()) == {None}


def test_a_file_of_version_1_is_taken_over(tmp_path: Path) -> None:
    fill(tmp_path)
    change_file(tmp_path / FILE, "DROP TABLE starts")
    change_file(tmp_path / FILE, "DROP TABLE mirostat")
    change_file(tmp_path / FILE, "PRAGMA user_version = 1")
    assert living_in(tmp_path) == (["j1"], "")
    assert not list(tmp_path.glob("*.broken-*"))
    change_file(tmp_path / FILE, "INSERT INTO starts VALUES ('j1', 2)")
    assert living_in(tmp_path) == (["j1", "new1"], "")


def test_a_file_of_version_2_is_taken_over(tmp_path: Path) -> None:
    fill(tmp_path)
    change_file(tmp_path / FILE, "DROP TABLE mirostat")
    change_file(tmp_path / FILE, "PRAGMA user_version = 2")
    assert living_in(tmp_path) == (["j1"], "")
    assert not list(tmp_path.glob("*.broken-*"))
    change_file(tmp_path / FILE, "INSERT INTO mirostat VALUES ('j1', 2.5)")


def test_a_file_of_a_newer_version_stays_and_nothing_is_stored(tmp_path: Path) -> None:
    fill(tmp_path)
    change_file(tmp_path / FILE, "PRAGMA user_version = 4")
    ids, fault = living_in(tmp_path)
    assert (ids, "newer llamad, version 4; this one knows 3" in fault) == ([], True)
    assert [path.name for path in tmp_path.glob(f"{FILE}*") if "wal" not in path.name] == [FILE]


def test_a_locked_file_is_named_and_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamad.jobs.database.LOCK_SECONDS", 0.0)
    fill(tmp_path)
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert "is locked by another program" in living_in(tmp_path)[1]
    other.execute("COMMIT")
    other.close()
    assert living_in(tmp_path) == (["j1"], "")


@asynchronous
async def test_a_file_that_became_read_only_is_told_until_it_can_be_written_again() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with opened(Path(name)) as (store, _):
            await store.add(JOB)
            assert store._database.connection is not None
            store._database.connection.execute("PRAGMA query_only = 1")
            for refused in (
                store.add(replace(JOB, id="j2", idempotency_key="")),
                store.save([progress(1)], []),
                store.start("j1", 1),
            ):
                with pytest.raises(LlamadError, match=f"{FILE} cannot be written"):
                    await refused
            assert await store.by_key("0", "key") == ("j1", "asked")
            assert "cannot be written" in store.fault
            store._database.connection.execute("PRAGMA query_only = 0")
            await store.save([progress(1)], [])
            assert store.fault == ""
        async with opened(Path(name)) as (_, living):
            assert [(one.job.id, one.tokens) for one in living] == [("j1", (1,))]


def test_a_folder_in_its_place_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).mkdir()
    assert "Is a directory" in living_in(tmp_path)[1]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE jobs SET job = '[]'",
        'UPDATE jobs SET job = \'{"id": "j1"}\'',
        "UPDATE jobs SET job = 'no json'",
        "UPDATE jobs SET id = 'other'",
        "UPDATE jobs SET prompt = x'010203'",
        "INSERT INTO progress (job, tokens, text, reasoning) VALUES ('j1', x'01', '[]', 0)",
        "INSERT INTO progress (job, tokens, text, reasoning) VALUES ('j1', x'', '[[1]]', 0)",
        "INSERT INTO progress (job, tokens, text, reasoning) VALUES ('j1', 'x', 7, 0)",
        "INSERT INTO starts VALUES ('j1', 'many')",
        "INSERT INTO starts VALUES ('j1', -1)",
    ],
)
def test_a_job_that_cannot_be_read_keeps_no_other_from_going_on(
    tmp_path: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def two() -> None:
        async with opened(tmp_path) as (store, _):
            await store.add(JOB)
            await store.add(replace(JOB, id="j2", idempotency_key=""))

    asyncio.run(two())
    where = " WHERE id = 'j1'" if "UPDATE" in change else ""
    change_file(tmp_path / FILE, change + where)
    assert living_in(tmp_path) == (["j2"], "")
    assert "stored job cannot be read" in caplog.text


@asynchronous
async def test_old_answers_are_forgotten_by_age_and_by_size() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with opened(folder, keep_days=2.0) as (store, _):
            for i in range(40):
                await store.add(replace(JOB, id=f"j{i}", idempotency_key=""))
                await store.save([], [ended(f"j{i}", 1e9 - (3 - i) * DAY, "x" * 60_000)])
            kept = [outcome.snapshot.id for _, outcome in await store.outcomes()]
            assert kept[-1] == "j39"
            assert "j0" not in kept
            assert 8 < len(kept) < 18  # a mebibyte
        async with opened(folder, keep_days=0.5) as (store, _):
            WALL.now += 40 * DAY
            await store.add(replace(JOB, id="last", idempotency_key=""))
            assert await store.outcomes() == []
            WALL.now -= 40 * DAY


@asynchronous
async def test_jobs_that_have_not_ended_give_no_way() -> None:
    with tempfile.TemporaryDirectory() as name:
        async with opened(Path(name)) as (store, _):
            big = replace(JOB, prompt_tokens=tuple(range(49_000)), idempotency_key="")
            for i in range(5):
                await store.add(replace(big, id=f"j{i}"))
            with pytest.raises(LlamadError, match=r"jobs.max_bytes, 1048576") as full:
                await store.add(replace(big, id="j5"))
            assert full.value.reason == "JOBS_FULL"
        async with opened(Path(name)) as (_, living):
            assert len(living) == 5


@asynchronous
async def test_a_full_disk_is_told_and_nothing_is_half_written() -> None:
    with tempfile.TemporaryDirectory() as name:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        async with opened(Path(name)) as (store, _):
            await store.add(JOB)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
            try:
                big = replace(JOB, id="j2", idempotency_key="", prompt_tokens=(1,) * 20_000)
                with pytest.raises(LlamadError) as failed:
                    await store.add(big)
                assert failed.value.reason == "NOT_DURABLE"
                assert FILE in store.fault
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
                signal.signal(signal.SIGXFSZ, handler)
            await store.add(replace(big, id="j3"))
            assert store.fault == ""
        async with opened(Path(name)) as (_, living):
            assert [one.job.id for one in living] == ["j1", "j3"]


@asynchronous
async def test_what_is_written_is_no_more_than_it_says() -> None:
    def written() -> int:
        lines = Path(f"/proc/self/task/{thread}/io").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("wchar")).split()[1])

    with tempfile.TemporaryDirectory() as name:
        async with opened(Path(name), max_bytes=1 << 24) as (store, _):
            thread = await store._run(threading.get_native_id)
            before = written()
            said = store.bytes_written
            for i in range(300):
                await store.add(replace(JOB, id=f"j{i}", idempotency_key=""))
                parts = [progress(*range(5), job=f"j{k}") for k in range(max(0, i - 4), i)]
                await store.save(parts, [])
            assert (store.bytes_written - said) / 4 < written() - before
            assert written() - before < store.bytes_written - said
