"""The file of the durable jobs: an SQLite database that is ours, whole, and of a version we know.

Owns the schema and its versions, what becomes of a file that cannot be used, and transactions. A
broken or foreign file is set aside under another name and a new one begun; one of a newer version
stays where it is, and nothing is stored. What is in the tables is store.py's. One thread uses it.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

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
PAGE_BYTES = 4096
DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class JobDatabase:
    """The database file, from ``open`` to ``close``."""

    def __init__(self, directory: Path) -> None:
        """Keep it in a directory that exists and is this service's alone."""
        self.path = directory / FILE
        self.connection: sqlite3.Connection | None = None  # None: it is not open
        self.fault = "the stored jobs are not open yet"  # why it is not, or what failed last
        self.bytes_written = 0  # about, since the start
        self.synced_at = 0.0  # monotonic

    def open(self, begin: Callable[[sqlite3.Connection], T]) -> T | None:
        """Open or create the file and return what ``begin`` finds there; None: see ``fault``.

        A file on which ``begin`` meets damage is set aside like one that cannot be opened.
        """
        try:
            for _ in range(2):
                try:
                    found = begin(self._connect())
                    self.fault = ""
                    return found
                except (sqlite3.Error, _UnusableError) as error:
                    if isinstance(error, sqlite3.Error) and _code(error) not in DAMAGE:
                        raise
                    self.close()
                    self._set_aside(str(error))
        except _NewerError as error:
            self.fault = str(error)
        except sqlite3.Error as error:
            self.fault = self.why(error)
        except OSError as error:
            self.fault = f"{error.filename or self.path}: {error.strerror}"
        self.close()
        log.warning(fields("jobs are not stored", message=self.fault))
        return None

    def close(self) -> None:
        """Close the file, if it is open."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    @contextmanager
    def transaction(self, *, sync: bool, payload_bytes: int = 0) -> Iterator[None]:
        """Write everything or nothing; ``sync``: it is on the disk at the end."""
        connection = self.connection
        assert connection is not None
        connection.execute(f"PRAGMA synchronous = {'FULL' if sync else 'NORMAL'}")
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        # Whole pages, once into the log and once, later, to their place.
        self.bytes_written += 2 * PAGE_BYTES * (3 + payload_bytes // PAGE_BYTES)
        if sync:
            self.synced_at = time.monotonic()

    def why(self, error: sqlite3.Error) -> str:
        """Return what an error says is wrong with the file, for people."""
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
        return f"{self.path} {why}"

    def _connect(self) -> sqlite3.Connection:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        os.close(os.open(self.path, flags, 0o600))  # SQLite would let others read prompts
        self.connection = connection = sqlite3.connect(
            self.path, isolation_level=None, timeout=LOCK_SECONDS, check_same_thread=False
        )
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA trusted_schema = OFF")
        self._check(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        """Create the tables of an empty file; refuse what is not ours."""
        application = number(connection, "PRAGMA application_id")
        version = number(connection, "PRAGMA user_version")
        found = {sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master") if sql}
        if not application and not version and not found:
            connection.execute("PRAGMA journal_mode = WAL")
            with self.transaction(sync=True):
                for statement in SCHEMA:
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            sync_directory(self.path.parent)
            return
        if application == APPLICATION_ID and version > SCHEMA_VERSION:
            raise _NewerError(
                f"{self.path} was written by a newer llamad, version {version}; this one knows"
                f" {SCHEMA_VERSION}: install that one again, or move the file away"
            )
        known = application == APPLICATION_ID and 1 <= version <= SCHEMA_VERSION
        if not known or found != set(SCHEMAS[version - 1]):
            raise _UnusableError("it is no database of llamad's jobs")
        [result] = connection.execute("PRAGMA quick_check(1)").fetchone()
        if result != "ok":
            raise _UnusableError(str(result))
        if version < SCHEMA_VERSION:
            with self.transaction(sync=True):
                for statement in SCHEMA[len(SCHEMAS[version - 1]) :]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def _set_aside(self, why: str) -> None:
        """Move a file that cannot be used away, with what belongs to it. Raises OSError."""
        n = 1
        while os.path.lexists(f"{self.path}.broken-{n}"):
            n += 1
        for end in ("", "-wal", "-shm"):
            if os.path.lexists(f"{self.path}{end}"):
                Path(f"{self.path}{end}").rename(f"{self.path}.broken-{n}{end}")
        sync_directory(self.path.parent)
        log.error(
            fields(
                "stored jobs cannot be read: begun anew",
                kept=f"{self.path}.broken-{n}",
                message=why,
            )
        )


class _UnusableError(Exception):
    """The file is broken, or somebody else's."""


class _NewerError(Exception):
    """The file is of a newer version."""


def _code(error: sqlite3.Error) -> int:
    """Return the primary result code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def number(connection: sqlite3.Connection, query: str) -> int:
    """Return the one number that a query finds."""
    return int(connection.execute(query).fetchone()[0])


def used_bytes(connection: sqlite3.Connection) -> int:
    """Return the bytes of the pages that have something on them."""
    pages = number(connection, "PRAGMA page_count") - number(connection, "PRAGMA freelist_count")
    return pages * number(connection, "PRAGMA page_size")
