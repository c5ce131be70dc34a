"""The durable jobs on the disk: one SQLite database, used by one thread.

Owns the database file: its schema and version, what becomes of one that cannot be used, and how
long ended jobs stay. ``add`` returns when a job is on the disk. Progress is written without waiting
for the disk, but for one time in ``SYNC_SECONDS``: after a power cut the last tokens are computed
again, and are the same. A broken or foreign file is set aside under another name and a new one
begun; one of a newer version stays where it is, and nothing is stored.
"""

import asyncio
import contextlib
import json
import logging
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from llamad.errors import ErrorKind, LlamadError
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
from llamad.small_file import sync_directory

log = logging.getLogger(__name__)

T = TypeVar("T")

FILE = "jobs.sqlite"
APPLICATION_ID = 0x6C6C646A  # "lldj", in the file's header
SCHEMA_VERSION = 3  # SCHEMAS has those before
SCHEMA_OF_1 = (
    "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, key TEXT NOT NULL,"
    " request_digest TEXT NOT NULL, job TEXT NOT NULL, prompt BLOB NOT NULL,"
    " ended REAL, outcome TEXT, text TEXT)",
    "CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, key) WHERE key <> ''",
    "CREATE TABLE progress (number INTEGER PRIMARY KEY, job TEXT NOT NULL,"
    " tokens BLOB NOT NULL, text TEXT NOT NULL, reasoning INTEGER NOT NULL)",
)
# The jobs that are computed, or were when the service ended; see service/suspects.py.
ADDED_IN_2 = ("CREATE TABLE starts (job TEXT PRIMARY KEY, number INTEGER NOT NULL)",)
# What mirostat has learned from the tokens that are stored.
ADDED_IN_3 = ("CREATE TABLE mirostat (job TEXT PRIMARY KEY, mu REAL NOT NULL)",)
SCHEMAS = (SCHEMA_OF_1, SCHEMA_OF_1 + ADDED_IN_2, SCHEMA_OF_1 + ADDED_IN_2 + ADDED_IN_3)
SCHEMA = SCHEMAS[-1]
LOCK_SECONDS = 2.0  # that another program may hold the database
SYNC_SECONDS = 30.0  # of progress that a power cut may cost, beside what waits to be written
MOST_LISTED = 1000  # ended jobs
PAGE_BYTES = 4096


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
        self.fault = "the stored jobs are not open yet"  # why nothing is stored; empty: it is
        self.bytes_written = 0  # about, since the start
        self._path = directory / FILE
        self._max_bytes = max_bytes
        self._keep_seconds = keep_seconds
        self._wall_clock = wall_clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llamad-jobs")
        self._connection: sqlite3.Connection | None = None
        self._synced_at = 0.0  # monotonic

    @property
    def usable(self) -> bool:
        """Whether the database is open: something may be stored, unless the disk refuses."""
        return self._connection is not None

    # ---- what the service asks; event loop -------------------------------------------------------

    async def open(self) -> list[Living]:
        """Open or create the database; return the jobs that go on. ``fault`` says what failed."""
        return await self._run(self._open_or_replace)

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
        await self._run(self._close)
        self._thread.shutdown(wait=False)

    async def _run(self, function: Callable[[], T]) -> T:
        """Run something on the store's thread, to its end also when the caller is cancelled."""
        work = self._thread.submit(function)
        return await asyncio.shield(asyncio.wrap_future(work))

    async def _do(self, function: Callable[[sqlite3.Connection], T], *, writes: bool = False) -> T:
        """Run something with the database. Raises NOT_DURABLE."""

        def work() -> T:
            if self._connection is None:
                raise not_durable(self.fault)
            try:
                result = function(self._connection)
            except sqlite3.Error as error:
                self.fault = self._told(error)
                raise not_durable(self.fault) from None
            if writes:
                self.fault = ""
            return result

        return await self._run(work)

    # ---- opening; the store's thread -------------------------------------------------------------

    def _open_or_replace(self) -> list[Living]:
        try:
            for _ in range(2):
                try:
                    living = self._open()
                    self.fault = ""
                    return living
                except _UnusableError as error:
                    self._close()
                    self._set_aside(str(error))
        except _NewerError as error:
            self.fault = str(error)
        except sqlite3.Error as error:
            self.fault = self._told(error)
        except OSError as error:
            self.fault = f"{error.filename or self._path}: {error.strerror}"
        self._close()
        log.warning(fields("jobs are not stored", message=self.fault))
        return []

    def _open(self) -> list[Living]:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self._path, flags, 0o600))  # SQLite would let others read prompts
        self._connection = connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False
        )
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("PRAGMA trusted_schema = OFF")
            self._check(connection)
            connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction(sync=True):
                self._prune(connection, 0)
                connection.execute(
                    "DELETE FROM starts WHERE job NOT IN (SELECT id FROM jobs WHERE ended IS NULL)"
                )
                connection.execute(
                    "DELETE FROM mirostat WHERE job NOT IN (SELECT job FROM progress)"
                )
            return list(self._read_living(connection))
        except sqlite3.Error as error:
            if _code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise _UnusableError(str(error)) from None
            raise

    def _check(self, connection: sqlite3.Connection) -> None:
        """Create the tables of an empty file; refuse what is not ours."""
        application = _number(connection, "PRAGMA application_id")
        version = _number(connection, "PRAGMA user_version")
        found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
        if not application and not version and not found:
            connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction(sync=True):
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            sync_directory(self._path.parent)
            return
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise _NewerError(
                f"{self._path} was written by a newer llamad, version {version}; this one knows"
                f" {SCHEMA_VERSION}: install that one again, or move the file away"
            )
        known = application == APPLICATION_ID and 1 <= version <= SCHEMA_VERSION
        if not known or found != set(SCHEMAS[version - 1]):
            raise _UnusableError("it is no database of llamad's jobs")
        [result] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise _UnusableError(str(result))
        if version < SCHEMA_VERSION:
            with self._transaction(sync=True):
                for statement in SCHEMA[len(SCHEMAS[version - 1]) :]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _set_aside(self, why: str) -> None:
        """Move a file that cannot be used away, with what belongs to it. Raises OSError."""
        number = 1
        while os.path.lexists(f"{self._path}.broken-{number}"):
            number += 1
        for end in ("", "-wal", "-shm"):
            if os.path.lexists(f"{self._path}{end}"):
                Path(f"{self._path}{end}").rename(f"{self._path}.broken-{number}{end}")
        sync_directory(self._path.parent)
        log.error(
            fields(
                "stored jobs cannot be read: begun anew",
                kept=f"{self._path}.broken-{number}",
                message=why,
            )
        )

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _told(self, error: sqlite3.Error) -> str:
        """Return what is wrong with the database, for people."""
        match _code(error):
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                why = "is locked by another program"
            case sqlite3.SQLITE_FULL:
                why = "cannot grow: the disk is full"
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN:
                why = "cannot be written"
            case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
                why = "is broken: the next start sets it aside"
            case sqlite3.SQLITE_IOERR:
                why = "cannot be read or written: the disk refused it"
            case _:
                why = f"failed: {error}"
        return f"{self._path} {why}"

    # ---- reading and writing; the store's thread -------------------------------------------------

    @contextmanager
    def _transaction(self, *, sync: bool, payload_bytes: int = 0) -> Iterator[None]:
        """Write everything or nothing; ``sync``: it is on the disk at the end."""
        assert self._connection is not None
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise
        # Whole pages, once into the log and once, later, to their place.
        self.bytes_written += 2 * PAGE_BYTES * (3 + payload_bytes // PAGE_BYTES)
        if sync:
            self._synced_at = time.monotonic()

    def _add(self, connection: sqlite3.Connection, job: StoredJob) -> None:
        prompt = pack_tokens(job.prompt_tokens)
        plain = to_plain(job)
        del plain["prompt_tokens"]
        text = json.dumps(plain)
        size = len(prompt) + len(text)
        with self._transaction(sync=True, payload_bytes=size):
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
        with self._transaction(sync=True):
            connection.execute("INSERT OR REPLACE INTO starts VALUES (?, ?)", (job_id, starts))

    def _forget_starts(self, connection: sqlite3.Connection) -> None:
        if _number(connection, "SELECT count(*) FROM starts"):
            with self._transaction(sync=True):
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
        sync = bool(ends or fruitful) or time.monotonic() - self._synced_at > SYNC_SECONDS
        with self._transaction(sync=sync, payload_bytes=size):
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
        while _used_bytes(connection) + more_bytes > self._max_bytes:
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


class _UnusableError(Exception):
    """The file is broken, or somebody else's."""


class _NewerError(Exception):
    """The file is of a newer version."""


def not_durable(why: str) -> LlamadError:
    """Return the error of whoever wants something stored while that is impossible."""
    return LlamadError(ErrorKind.STATE, "NOT_DURABLE", f"jobs are not stored: {why}")


def _text(deltas: Sequence[Delta]) -> str:
    return json.dumps(plain_deltas(deltas), ensure_ascii=False)


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _number(connection: sqlite3.Connection, query: str) -> int:
    return int(connection.execute(query).fetchone()[0])


def _used_bytes(connection: sqlite3.Connection) -> int:
    pages = _number(connection, "PRAGMA page_count") - _number(connection, "PRAGMA freelist_count")
    return pages * _number(connection, "PRAGMA page_size")


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
