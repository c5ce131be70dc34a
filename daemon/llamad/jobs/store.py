"""The durable jobs on the disk: one SQLite database, used by one thread.

Owns what is in the tables, how long ended jobs stay, and when the disk is waited for: ``add``
returns when a job is there, progress is written without that, but for one time in ``SYNC_SECONDS``.
After a power cut the last tokens are computed again, and are the same. The file is database.py's.
"""

import asyncio
import contextlib
import json
import logging
import math
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.database import PAGE_BYTES, JobDatabase, number, used_bytes
from llamad.jobs.event import Delta
from llamad.jobs.plain import from_plain, to_plain
from llamad.jobs.stored_job import (
    Ended,
    Living,
    Outcome,
    Progress,
    StoredJob,
    pack_tokens,
    plain_deltas,
    read_deltas,
    unpack_tokens,
)
from llamad.logs import fields

log = logging.getLogger(__name__)

T = TypeVar("T")

MOST_LISTED = 1000  # ended jobs
SYNC_SECONDS = 30.0  # of progress that a power cut may cost, beside what waits to be written
MOST_LISTED = 1000  # ended jobs


class JobStore:
    """The database, from ``open`` to ``close``. Methods that wait do so for its thread."""

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        keep_seconds: float,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Store in a directory that exists and is this service's alone."""
        self._database = JobDatabase(directory)
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._wall_clock = wall_clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llamad-jobs")
        self._connection: sqlite3.Connection | None = None

    @property
    def usable(self) -> bool:
        """Whether the database is open: something may be stored, unless the disk refuses."""
        return self._database.connection is not None

    @property
    def fault(self) -> str:
        """Why nothing is stored; empty: it is."""
        return self._database.fault

    @property
    def bytes_written(self) -> int:
        """Bytes that were written since the start, about."""
        return self._database.bytes_written

    # ---- what the service asks; event loop -------------------------------------------------------

    async def open(self) -> list[Living]:
        """Open or create the database; return the jobs that go on. ``fault`` says what failed."""
        return await self._run(lambda: self._database.open(self._begin)) or []

    async def add(self, job: StoredJob) -> None:
        """Store a new job; it is on the disk when this returns. Raises NOT_DURABLE, JOBS_FULL."""
        await self._do(lambda connection: self._add(connection, job), writes=True)

    async def start(self, job_id: str, starts: int) -> None:
        """Store that a job is computed from now on, for the ``starts``-th time without a token.

        It is on the disk when this returns. Raises NOT_DURABLE.
        """
        await self._do(lambda connection: self._start(connection, job_id, starts), writes=True)

    async def save(
        self,
        progress: Sequence[Progress],
        ended: Sequence[Ended],
        suspended: Sequence[str] = (),
    ) -> None:
        """Store in one transaction what has changed. Raises NOT_DURABLE.

        ``suspended``: ids of jobs that are computed no more.
        """
        await self._do(
            lambda connection: self._save(connection, progress, ended, suspended), writes=True
        )

    async def ended(self, job_id: str) -> Ended | None:
        """Return an ended job with its text; None when it is not stored. Raises NOT_DURABLE."""
        return await self._do(lambda connection: _read_ended(connection, job_id))

    async def by_key(self, owner: str, key: str) -> tuple[str, str] | None:
        """Return id and request digest of the job of a key; None for a new key."""
        query = "SELECT id, request_digest FROM jobs WHERE owner = ? AND key = ?"
        row = await self._do(lambda connection: connection.execute(query, (owner, key)).fetchone())
        return None if row is None else (str(row[0]), str(row[1]))

    async def outcomes(self) -> list[tuple[float, Outcome]]:
        """Return when and how the ended jobs ended, the newest ``MOST_LISTED``, oldest first."""
        return await self._do(_read_outcomes)

    async def close(self, *, clean: bool = True) -> None:
        """Close the database; nothing is stored after that.

        ``clean``: the service was stopped, so no job that is computed is why it ends.
        """
        if clean and self.usable:
            with contextlib.suppress(LlamadError):  # it is told in the status and does not matter
                await self._do(self._forget_starts)
        await self._run(self._database.close)
        self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[[], T]) -> T:
        """Run something on the store's thread, to its end also when the caller is cancelled."""
        work = self._thread.submit(function)
        return await asyncio.shield(asyncio.wrap_future(work))

    async def _do(self, function: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        """Run something with the database. Raises NOT_DURABLE."""

        def work() -> T:
            database = self._database
            if database.connection is None:
                raise not_durable(database.fault)
            try:
                result = function(database.connection)
            except sqlite3.Error as error:
                database.fault = database.why(error)
                raise not_durable(database.fault) from None
            if writes:
                database.fault = ""
            return result

        return await self._run(work)

    # ---- reading and writing; the store's thread -------------------------------------------------

    def _begin(self, connection: sqlite3.Connection) -> list[Living]:
        """Forget what is over, and return the jobs that go on."""
        with self._database.transaction(sync=True):
            self._prune(connection, 0)
            connection.execute(
                "DELETE FROM starts WHERE job NOT IN (SELECT id FROM jobs WHERE ended IS NULL)"
            )
            connection.execute("DELETE FROM mirostat WHERE job NOT IN (SELECT job FROM progress)")
        return list(self._read_living(connection))

    def _add(self, connection: sqlite3.Connection, job: StoredJob) -> None:
        prompt = pack_tokens(job.prompt_tokens)
        plain = to_plain(job)
        del plain["prompt_tokens"]
        text = json.dumps(plain)
        size = len(prompt) + len(text)
        with self._database.transaction(sync=True, payload_bytes=size):
            if not self._prune(connection, size):
                raise LlamadError(
                    ErrorKind.EXHAUSTED,
                    "JOBS_FULL",
                    f"the stored jobs take all of jobs.max_bytes, {self._max_bytes}: cancel some,"
                    " or wait until some end",
                )
            connection.execute(
                "INSERT INTO jobs (id, owner, key, request_digest, job, prompt)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (job.id, job.owner, job.idempotency_key, job.request_digest, text, prompt),
            )

    def _start(self, connection: sqlite3.Connection, job_id: str, starts: int) -> None:
        with self._database.transaction(sync=True):
            connection.execute("INSERT OR REPLACE INTO starts VALUES (?, ?)", (job_id, starts))

    def _forget_starts(self, connection: sqlite3.Connection) -> None:
        if number(connection, "SELECT count(*) FROM starts"):
            with self._database.transaction(sync=True):
                connection.execute("DELETE FROM starts")

    def _save(
        self,
        connection: sqlite3.Connection,
        progress: Sequence[Progress],
        ended: Sequence[Ended],
        suspended: Sequence[str],
    ) -> None:
        rows = [
            (p.id, pack_tokens(p.tokens), _text(p.deltas), p.reasoning_tokens) for p in progress
        ]
        ends = [
            (e.ended_unix, json.dumps(to_plain(e.outcome)), _text(e.deltas), e.id) for e in ended
        ]
        learned = [(p.id, p.mirostat_mu) for p in progress if p.mirostat_mu is not None]
        size = sum(len(tokens) + len(text) for _, tokens, text, _ in rows)
        size += sum(PAGE_BYTES + len(text) for _, _, text, _ in ends)
        fruitless = {
            job for (job,) in connection.execute("SELECT job FROM starts WHERE number > 0")
        }
        fruitful = [(p.id,) for p in progress if p.id in fruitless]
        sync = bool(ends or fruitful) or time.monotonic() - self._database.synced_at > SYNC_SECONDS
        with self._database.transaction(sync=sync, payload_bytes=size):
            connection.executemany(
                "INSERT INTO progress (job, tokens, text, reasoning) VALUES (?, ?, ?, ?)", rows
            )
            connection.executemany("INSERT OR REPLACE INTO mirostat VALUES (?, ?)", learned)
            connection.executemany("UPDATE starts SET number = 0 WHERE job = ?", fruitful)
            # The prompt is forgotten with its job.
            connection.executemany(
                "UPDATE jobs SET ended = ?, outcome = ?, text = ?, prompt = x'' WHERE id = ?", ends
            )
            for table in ("progress", "mirostat"):
                ids = [(e.id,) for e in ended]
                connection.executemany(f"DELETE FROM {table} WHERE job = ?", ids)
            stopped = [(job_id,) for job_id in (*suspended, *(e.id for e in ended))]
            connection.executemany("DELETE FROM starts WHERE job = ?", stopped)
            if ends:
                self._prune(connection, 0)

    def _prune(self, connection: sqlite3.Connection, more_bytes: int) -> bool:
        """Forget ended jobs that are too old or too many; whether so many bytes more fit."""
        before = self._wall_clock() - self._keep_seconds
        connection.execute("DELETE FROM jobs WHERE ended < ?", (before,))
        while used_bytes(connection) + more_bytes > self._max_bytes:
            oldest = connection.execute(
                "SELECT id FROM jobs WHERE ended IS NOT NULL ORDER BY ended LIMIT 8"
            ).fetchall()
            if not oldest:
                return False
            connection.executemany("DELETE FROM jobs WHERE id = ?", oldest)
        return True

    def _read_living(self, connection: sqlite3.Connection) -> Iterator[Living]:
        """Return the jobs that go on; one that cannot be read ends as failed."""
        parts: dict[str, list[tuple[bytes, str, int]]] = {}
        query = "SELECT job, tokens, text, reasoning FROM progress ORDER BY number"
        for job_id, *part in connection.execute(query):
            parts.setdefault(job_id, []).append(tuple(part))
        starts = dict(connection.execute("SELECT job, number FROM starts"))
        learned = dict(connection.execute("SELECT job, mu FROM mirostat"))
        query = "SELECT id, job, prompt FROM jobs WHERE ended IS NULL ORDER BY rowid"
        for job_id, job, prompt in connection.execute(query).fetchall():
            try:
                living = _living(job_id, job, prompt, parts.get(job_id, []))
                yield replace(
                    living,
                    mirostat_mu=_finite(learned.get(job_id)),
                    starts=_count(starts.get(job_id)),
                )
            except (ValueError, TypeError, RecursionError) as error:
                log.error(fields("stored job cannot be read", job=job_id, message=str(error)))
                connection.execute(
                    "UPDATE jobs SET ended = ? WHERE id = ?", (self._wall_clock(), job_id)
                )


def not_durable(why: str) -> LlamadError:
    """Return the error of whoever wants something stored while that is impossible."""
    return LlamadError(ErrorKind.STATE, "NOT_DURABLE", f"jobs are not stored: {why}")


def _text(deltas: Sequence[Delta]) -> str:
    return json.dumps(plain_deltas(deltas), ensure_ascii=False)


def _count(value: object) -> int | None:
    """Return a count of the database, or None. Raises ValueError."""
    if value is None or (isinstance(value, int) and value >= 0):
        return value
    raise ValueError(f"{value!r:.60} is no number of starts")


def _finite(value: object) -> float | None:
    """Return a number of the database, or None. Raises ValueError."""
    if value is None or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{value!r:.60} is nothing that mirostat learned")


def _living(
    job_id: str, job: str, prompt: bytes, parts: Sequence[tuple[bytes, str, int]]
) -> Living:
    plain = json.loads(job)
    if not isinstance(plain, dict) or plain.get("id") != job_id:
        raise ValueError("it is not the job of its id")
    stored = from_plain(StoredJob, {**plain, "prompt_tokens": list(unpack_tokens(prompt))})
    tokens = tuple(token for part in parts for token in unpack_tokens(part[0]))
    deltas = tuple(delta for part in parts for delta in read_deltas(json.loads(part[1])))
    return Living(stored, tokens, deltas, int(parts[-1][2]) if parts else 0)


def _read_outcomes(connection: sqlite3.Connection) -> list[tuple[float, Outcome]]:
    rows: list[Any] = connection.execute(
        "SELECT ended, outcome FROM jobs WHERE outcome IS NOT NULL ORDER BY ended DESC LIMIT ?",
        (MOST_LISTED,),
    ).fetchall()
    outcomes = []
    for ended, plain in reversed(rows):
        try:
            outcomes.append((float(ended), from_plain(Outcome, json.loads(plain))))
        except (ValueError, TypeError, RecursionError) as error:
            log.error(fields("stored job cannot be read", message=str(error)))
    return outcomes


def _read_ended(connection: sqlite3.Connection, job_id: str) -> Ended | None:
    row = connection.execute(
        "SELECT ended, outcome, text FROM jobs WHERE id = ? AND ended IS NOT NULL", (job_id,)
    ).fetchone()
    if row is None:
        return None
    try:
        outcome = from_plain(Outcome, json.loads(row[1]))
        return Ended(job_id, float(row[0]), outcome, read_deltas(json.loads(row[2])))
    except (ValueError, TypeError, RecursionError) as error:
        raise LlamadError(
            ErrorKind.CORRUPT, "JOB_UNREADABLE", f"stored job {job_id} cannot be read: {error}"
        ) from None
