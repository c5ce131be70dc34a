"""One model file on its way into the model directory: what is accepted, and what it must prove.

A file gets its name when it is whole, has the sha256 that was announced, and its header is that of
a GGUF file whose tensors lie inside it. What can never become one is deleted at once, a model that
the engine cannot run as soon as its head is there; what broke off stays for the next attempt.
Blocking: one thread at a time, never the event loop's.
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
from llamad.store.head_check import HeadCheck
from llamad.store.partial_file import (
    READ_BYTES,
    Identity,
    PartialFile,
    disk_error,
    drop_cache,
    partial_file_sizes,
)
from llamad.store.registry import ModelFile, ModelRegistry

MAGIC = b"GGUF"
SPARE_BYTES = 256 << 20  # of the disk, left to others
RETRY_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class TransferRequest:
    """What a client says of the file it is about to send."""

    name: str
    file_bytes: int | None = None  # None: its source does not say
    sha256: str = ""  # 64 lower-case hexadecimal digits; empty: not known
    source: str = ""
    replace: bool = False


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model of the directory. ``unchanged``: it was there before."""

    file: ModelFile
    sha256: str
    unchanged: bool = False


class Transfer:
    """One transfer: ``present``, else ``open``, ``write`` and ``finish``; ``close`` in any case."""

    def __init__(
        self,
        registry: ModelRegistry,
        request: TransferRequest,
        *,
        max_bytes: int,
        in_use: Callable[[str], bool],
    ) -> None:
        """Prepare; ``max_bytes`` bounds the file, ``in_use`` tells whether a name is loaded."""
        self._registry = registry
        self._request = request
        self._max_bytes = max_bytes
        self._in_use = in_use
        self._partial = PartialFile(registry.directory, request.name)
        self._hash = hashlib.sha256()
        self._head = b""  # the first bytes, at most len(MAGIC)
        self._check = HeadCheck(request.name, request.file_bytes)
        self._stop = threading.Event()

    def stop(self) -> None:
        """Let the reading of a long file end early with CANCELLED. Any thread."""
        self._stop.set()

    # ---- beginning -------------------------------------------------------------------------------

    def present(self) -> StoredModel | None:
        """Return the model of this name when its sha256 is the announced one; None when none is.

        A size proves nothing: quantized alike, all models of a family have the same. Raises
        MODEL_EXISTS or MODEL_IN_USE for one that may not be replaced.
        """
        file = self._registry.find(self._request.name)
        if file is None:
            self._check_place()
            return None
        request = self._request
        if request.sha256 and request.file_bytes in (None, file.file_bytes):
            sha256 = self._sha256_of(file.path)
            if request.sha256 == sha256:
                return StoredModel(file, sha256, unchanged=True)
        self._check_place()
        return None

    def open(self) -> int:
        """Open the partial file; return the bytes that it holds.

        Raises INVALID_FILE_BYTES, DISK_FULL, DISK_ERROR.
        """
        request, directory = self._request, self._registry.directory
        self._check_size(request.file_bytes or 0)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(directory, error) from error
        self._partial.open(Identity(request.source, request.file_bytes, request.sha256))
        if request.file_bytes is not None and self._partial.n_bytes > request.file_bytes:
            self._partial.restart()
        for data in self._partial.read():
            self._check_stop()
            self._accept(data)
        if request.file_bytes is not None:
            self._check_room(request.file_bytes - self._partial.n_bytes)
        return self._partial.n_bytes

    # ---- receiving -------------------------------------------------------------------------------

    def write(self, offset: int, data: bytes) -> None:
        """Take the next bytes; offset 0 drops what is there.

        Raises INVALID_OFFSET, INVALID_DATA, INVALID_FILE_BYTES, MODEL_CORRUPT, MODEL_UNSUPPORTED,
        DISK_FULL, DISK_ERROR.
        """
        if offset == 0 and self._partial.n_bytes:
            self._restart()
        if offset != self._partial.n_bytes:
            raise invalid("offset", f"is {offset}, must be {self._partial.n_bytes} or 0")
        end = offset + len(data)
        announced = self._request.file_bytes
        if announced is not None and end > announced:
            self._give_up()
            raise invalid("data", f"reaches byte {end}, the file was announced with {announced}")
        try:
            self._check_size(end)
            self._accept(data)
        except LlamadError:
            self._give_up()
            raise
        self._check_room(len(data))
        self._partial.append(data)

    def save(self) -> None:
        """Bring what came to the disk, for the next attempt. Raises DISK_FULL, DISK_ERROR."""
        if self._partial.n_bytes:
            self._partial.sync()

    def close(self) -> None:
        """Close the file. A partial file of which nothing came is deleted."""
        if self._partial.is_open and not self._partial.n_bytes:
            self._give_up()
        self._partial.close()

    def _give_up(self) -> None:
        """Delete the partial file, which can never become a model; a failing disk keeps it."""
        with contextlib.suppress(LlamadError):
            self._partial.discard()

    # ---- ending ----------------------------------------------------------------------------------

    def finish(self) -> StoredModel:
        """Verify the file and give it its name.

        Raises TRANSFER_INCOMPLETE (the file stays), CHECKSUM_MISMATCH, MODEL_CORRUPT and so on (it
        is deleted), MODEL_EXISTS, MODEL_IN_USE, DISK_FULL, DISK_ERROR.
        """
        request, n_bytes = self._request, self._partial.n_bytes
        if not n_bytes or (request.file_bytes is not None and n_bytes < request.file_bytes):
            self.save()
            raise LlamadError(
                ErrorKind.STATE,
                "TRANSFER_INCOMPLETE",
                f"{request.name}: the transfer ended after {n_bytes} bytes"
                + (f" of {request.file_bytes}" if request.file_bytes is not None else "")
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
        path = self._registry.path_of(request.name)
        self._partial.sync()
        self._partial.rename(path)
        return StoredModel(ModelFile(request.name, path, n_bytes), sha256)

    def _verify(self, sha256: str) -> None:
        name, expected = self._request.name, self._request.sha256
        if expected not in ("", sha256):
            raise LlamadError(
                ErrorKind.CORRUPT,
                "CHECKSUM_MISMATCH",
                f"{name}: the sha256 is {sha256}, must be {expected}",
            )
        if len(self._head) < len(MAGIC):
            raise _no_gguf(name, self._head)
        try:
            read_metadata(self._partial.path)
        except LlamadError as error:
            message = error.message.replace(os.fspath(self._partial.path), name)
            raise LlamadError(error.kind, error.reason, message) from None

    # ---- rules -----------------------------------------------------------------------------------

    def _accept(self, data: bytes) -> None:
        """Hash bytes that are, or will be, in the file; refuse a head that no model here has."""
        if len(self._head) < len(MAGIC):
            self._head = (self._head + data[: len(MAGIC)])[: len(MAGIC)]
            if not MAGIC.startswith(self._head):
                raise _no_gguf(self._request.name, self._head)
        self._check.feed(data)
        self._hash.update(data)

    def _restart(self) -> None:
        self._partial.restart()
        self._hash = hashlib.sha256()
        self._head = b""
        self._check = HeadCheck(self._request.name, self._request.file_bytes)

    def _check_place(self) -> None:
        """Raise unless the name is free, or its model may be replaced now."""
        name = self._request.name
        path = self._registry.path_of(name)
        if not os.path.lexists(path):
            return
        if not self._request.replace:
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
                f"{self._request.name} has {n_bytes} bytes or more,"
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
                f" the disk has {free}{self._held_by_others()}",
            )

    def _held_by_others(self) -> str:
        """Return what an administrator may not know of: no list shows partial files."""
        sizes: dict[str, int] = {}
        with contextlib.suppress(OSError):
            sizes = partial_file_sizes(self._registry.directory)
        sizes.pop(self._request.name, None)
        if not sizes:
            return ""
        held, names = sum(sizes.values()), ", ".join(sorted(sizes))
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
    shown = repr(head)[1:]  # without the b
    return LlamadError(
        ErrorKind.CORRUPT,
        "MODEL_CORRUPT",
        f"{name}: the file begins with {shown} and not with 'GGUF': it is no model",
    )
