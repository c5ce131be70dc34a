"""A whole service whose state directory cannot be used: it serves, stores nothing, and says why."""

import asyncio
import logging
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from llamad.service.state_directory import LOCK, VERSION_FILE, StateDirectory
from llamad_api.v1 import llamad_pb2 as pb
from rpc.many_models import ManyModels, generate, status_of, text_of
from rpc.serving import error_of_call
from unit.schedule.fakes import asynchronous

DATABASE = "jobs.sqlite"


def missing(state: Path, held: ExitStack) -> str:
    state.rmdir()
    return "does not exist"


def read_only(state: Path, held: ExitStack) -> str:
    (state / LOCK).mkdir()  # what a program sees that may not write: opening it for that fails
    return "cannot be written"


def used_by_another_service(state: Path, held: ExitStack) -> str:
    other = StateDirectory(state)
    other.open()
    assert other.usable
    held.callback(other.close)
    return "is used by another service, process"


def of_another_version(state: Path, held: ExitStack) -> str:
    (state / VERSION_FILE).write_text("llamad state 7\n")
    return "was written by a newer llamad, version 7"


def of_somebody_else(state: Path, held: ExitStack) -> str:
    (state / VERSION_FILE).write_bytes(b"\0\xff" * 40_000)
    return "is not a file of llamad"


def database_of_another_version(state: Path, held: ExitStack) -> str:
    with closing(sqlite3.connect(state / DATABASE)) as connection, connection:
        connection.execute(f"PRAGMA application_id = {0x6C6C646A}")
        connection.execute("PRAGMA user_version = 9")
    return "was written by a newer llamad, version 9"


def locked_database(state: Path, held: ExitStack) -> str:
    other = sqlite3.connect(state / DATABASE, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN EXCLUSIVE")
    held.callback(other.close)
    return "is locked by another program"


def folder_in_its_place(state: Path, held: ExitStack) -> str:
    (state / DATABASE).mkdir()
    return "Is a directory"


@pytest.mark.parametrize(
    "prepare",
    [
        missing,
        read_only,
        used_by_another_service,
        of_another_version,
        of_somebody_else,
        database_of_another_version,
        locked_database,
        folder_in_its_place,
    ],
)
def test_the_service_serves_stores_nothing_and_says_why_once(
    prepare: Callable[[Path, ExitStack], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("llamad.jobs.database.LOCK_SECONDS", 0.0)
    caplog.set_level(logging.WARNING)

    @asynchronous
    async def body() -> None:
        with tempfile.TemporaryDirectory() as name, ExitStack() as held:
            life = ManyModels(Path(name), monkeypatch)
            held.callback(life.close)
            life.put("one", selected="one")
            state = Path(name) / "state"
            state.mkdir()
            why = prepare(state, held)
            before = await asyncio.to_thread(content, state)
            async with life.serving() as (stub, _):
                assert await text_of(generate(stub)) == "An answer."
                request = pb.GenerateRequest(prompt="p")
                call = stub.SubmitJob(pb.SubmitJobRequest(generate=request))
                _, message, metadata = await error_of_call(call)
                assert metadata["llamad-reason"] == "NOT_DURABLE"
                status = await status_of(stub)
                assert why in status.durability
                assert message == f"jobs are not stored: {status.durability}"
                assert await text_of(generate(stub)) == "An answer."
            told = [record for record in caplog.records if "not stored" in record.getMessage()]
            told += [record for record in caplog.records if "nothing is" in record.getMessage()]
            assert len([record for record in told if why in record.getMessage()]) == 1
            assert before.items() <= (await asyncio.to_thread(content, state)).items()

    body()


def content(state: Path) -> dict[str, bytes]:
    """Return what lies in a directory; what the holder writes into its lock is left out."""
    files = (path for path in state.rglob("*") if path.is_file() and path.name != LOCK)
    return {path.name: path.read_bytes() for path in files}
