"""One model file on its way into the model directory: what is accepted, and what it must prove.

A file gets its name when it is whole, has the sha256 that was announced, and its header is that of
a GGUF file whose tensors lie inside it. What can never become one is deleted at once; what broke
off is kept for the next attempt. Blocking: one thread at a time, never the event loop's.
"""

import contextlib
import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llamad.engine.bindings import read_metadata
from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.store.partial_file import (
    READ_BYTES,
    Identity,
    PartialFile,
    disk_error,
    drop_cache,
    kept_bytes,
)
from llamad.store.registry import ModelFile, ModelRegistry

MAGIC = b"GGUF"
SPARE_BYTES = 256 << 20  # of the disk, left to others
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Announced:
    """What a client says of the file it is about to send."""

    name: str
    file_bytes: int | None = None  # None: its source does not say
    sha256: str = ""  # 64 lower-case hexadecimal digits; empty: not known
    source: str = ""
    replace: bool = False


@dataclass(frozen=True, slots=True)
class Arrived:
    """A model of the directory. ``unchanged``: it was there before."""

    file: ModelFile
    sha256: str
    unchanged: bool = False


class Arrival:
    """One transfer: ``present``, else ``open``, ``write`` and ``finish``; ``close`` in any case."""

    def __init__(
        self,
        registry: ModelRegistry,
        announced: Announced,
        *,
        max_bytes: int,
        in_use: Callable[[str], bool],
    ) -> None:
        """Prepare; ``max_bytes`` bounds the file, ``in_use`` tells whether a name is loaded."""
        self._registry = registry
        self._announced = announced
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._part = PartialFile(registry.directory, announced.name)
        self._hash = hashlib.sha256()
        self._head = b""  # the first bytes, at most len(MAGIC)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let the reading of a long file end early with CANCELLED. Any thread."""
        self._stop.set()

    # ---- beginning -------------------------------------------------------------------------------

    def present(self) -> Arrived | None:
        """Return the model of this name when its sha256 is the announced one; None when none is.

        A size proves nothing: quantized alike, all models of a family have the same. Raises
        MODEL_EXISTS or MODEL_IN_USE for one that may not be replaced.
        """
        file = self._registry.find(self._announced.name)
        if file is None:
            self._check_place()
            return None
        announced = self._announced
        if announced.sha256 and announced.file_bytes in (None, file.file_bytes):
            sha256 = self._sha256_of(file.path)
            if announced.sha256 == sha256:
                return Arrived(file, sha256, unchanged=True)
        self._check_place()
        return None

    def open(self) -> int:
        """Open the part; return the bytes that are kept of it.

        Raises INVALID_FILE_BYTES, DISK_FULL, DISK_ERROR.
        """
        announced, directory = self._announced, self._registry.directory
        self._check_size(announced.file_bytes or 0)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(directory, error) from error
        self._part.open(Identity(announced.source, announced.file_bytes, announced.sha256))
        if announced.file_bytes is not None and self._part.n_bytes > announced.file_bytes:
            self._part.restart()
        for data in self._part.read():
            self._check_stop()
            self._take(data)
        if announced.file_bytes is not None:
            self._check_room(announced.file_bytes - self._part.n_bytes)
        return self._part.n_bytes

    # ---- receiving -------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        """Take the next bytes; offset 0 drops what was kept.

        Raises INVALID_OFFSET, INVALID_DATA, INVALID_FILE_BYTES, MODEL_CORRUPT, DISK_FULL,
        DISK_ERROR.
        """
        if offset == 0 and self._part.n_bytes:
            self._restart()
        if offset != self._part.n_bytes:
            raise invalid("offset", f"is {offset}, must be {self._part.n_bytes} or 0")
        end = offset + len(data)
        announced = self._announced.file_bytes
        if announced is not None and end > announced:
            self._give_up()
            raise invalid("data", f"reaches byte {end}, the file was announced with {announced}")
        try:
            self._check_size(end)
            self._take(data)
        except LlamadError:
            self._give_up()
            raise
        self._check_room(len(data))
        self._part.append(data)

    def keep(self) -> None:
        """Bring what came to the disk, for the next attempt. Raises DISK_FULL, DISK_ERROR."""
        if self._part.n_bytes:
            self._part.sync()

    def close(self) -> None:
        """Close the file. A part of which nothing came is deleted."""
        if self._part.is_open and not self._part.n_bytes:
            self._give_up()
        self._part.close()

    def _give_up(self) -> None:
        """Delete the part, which can never become a model; a failing disk keeps it."""
        with contextlib.suppress(LlamadError):
            self._part.discard()

    # ---- ending ----------------------------------------------------------------------------------

    def finish(self) -> Arrived:
        """Verify the file and give it its name.

        Raises TRANSFER_INCOMPLETE (the part is kept), CHECKSUM_MISMATCH, MODEL_CORRUPT and so on
        (it is deleted), MODEL_EXISTS, MODEL_IN_USE, DISK_FULL, DISK_ERROR.
        """
        announced, n_bytes = self._announced, self._part.n_bytes
        if not n_bytes or (announced.file_bytes is not None and n_bytes < announced.file_bytes):
            self.keep()
            raise LlamadError(
                ErrorKind.STATE,
                "TRANSFER_INCOMPLETE",
                f"{announced.name}: the transfer ended after {n_bytes} bytes"
                + (f" of {announced.file_bytes}" if announced.file_bytes is not None else "")
                + (", they are kept: send the rest" if n_bytes else ""),
                retry_after_seconds=RETRY_SECONDS,
            )
        sha256 = self._hash.hexdigest()
        try:
            self._verify(sha256)
        except LlamadError as error:
            if error.kind is ErrorKind.CORRUPT or error.reason == "MODEL_UNSUPPORTED":
                self._give_up()
            raise
        self._check_place()
        path = self._registry.path_of(announced.name)
        self._part.sync()
        self._part.rename(path)
        return Arrived(ModelFile(announced.name, path, n_bytes), sha256)

    def _verify(self, sha256: str) -> None:
        name, expected = self._announced.name, self._announced.sha256
        if expected not in ("", sha256):
            raise LlamadError(
                ErrorKind.CORRUPT,
                "CHECKSUM_MISMATCH",
                f"{name}: the sha256 is {sha256}, must be {expected}",
            )
        if len(self._head) < len(MAGIC):
            raise _no_gguf(name, self._head)
        try:
            read_metadata(self._part.path)
        except LlamadError as error:
            message = error.message.replace(os.fspath(self._part.path), name)
            raise LlamadError(error.kind, error.reason, message) from None

    # ---- rules -----------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        """Hash bytes that are, or will be, in the part; refuse the wrong first ones."""
        if len(self._head) < len(MAGIC):
            self._head = (self._head + data[: len(MAGIC)])[: len(MAGIC)]
            if not MAGIC.startswith(self._head):
                raise _no_gguf(self._announced.name, self._head)
        self._hash.update(data)

    def _restart(self) -> None:
        self._part.restart()
        self._hash = hashlib.sha256()
        self._head = b""

    def _check_place(self) -> None:
        """Raise unless the name is free, or its model may be replaced now."""
        name = self._announced.name
        path = self._registry.path_of(name)
        if not os.path.lexists(path):
            return
        if not self._announced.replace:
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_EXISTS",
                f"a model {name} is there already, and no sha256 shows that this is the same: add"
                f" this one with --replace or under another --name, or delete the old one with"
                f' "llamactl rm {name}"',
            )
        if self._in_use(name):
            raise LlamadError(
                ErrorKind.STATE,
                "MODEL_IN_USE",
                f"model {name} is loaded and cannot be replaced:"
                ' "llamactl unload" or "llamactl use" of another model frees it',
            )

    def _check_size(self, n_bytes: int) -> None:
        if n_bytes > self._max_bytes:
            raise invalid(
                "file_bytes",
                f"{self._announced.name} has {n_bytes} bytes or more,"
                f" limits.max_model_bytes allows {self._max_bytes}",
            )

    def _check_room(self, n_bytes: int) -> None:
        """Raise DISK_FULL unless n_bytes more leave enough of the disk to others."""
        directory = self._registry.directory
        try:
            disk = os.statvfs(directory)
        except OSError as error:
            raise disk_error(directory, error) from error
        free = disk.f_bavail * disk.f_frsize
        if free < n_bytes + SPARE_BYTES:
            raise LlamadError(
                ErrorKind.EXHAUSTED,
                "DISK_FULL",
                f"{directory}: {n_bytes} bytes more are needed and {SPARE_BYTES} stay free,"
                f" the disk has {free}{self._kept_of_others()}",
            )

    def _kept_of_others(self) -> str:
        """Return what an administrator may not know of: no list shows the parts."""
        kept: dict[str, int] = {}
        with contextlib.suppress(OSError):
            kept = kept_bytes(self._registry.directory)
        kept.pop(self._announced.name, None)
        if not kept:
            return ""
        held, names = sum(kept.values()), ", ".join(sorted(kept))
        return f'; unfinished transfers hold {held}, "llamactl rm" deletes them: {names}'

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise LlamadError(ErrorKind.CANCELLED, "CANCELLED", "the transfer was cancelled")

    def _sha256_of(self, path: Path) -> str:
        digest = hashlib.sha256()
        try:
            with path.open("rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    self._check_stop()
                    digest.update(data)
                    drop_cache(file.fileno(), file.tell() - len(data), len(data))
        except OSError as error:
            raise disk_error(path, error) from error
        return digest.hexdigest()


def _no_gguf(name: str, head: bytes) -> LlamadError:
    shown = head.decode("ascii", "backslashreplace")
    return LlamadError(
        ErrorKind.CORRUPT,
        "MODEL_CORRUPT",
        f"{name}: the file begins with {shown!r} and not with 'GGUF': it is no model",
    )
