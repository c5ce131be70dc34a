"""Where the bytes of a model come from: what every source can do, and the one that is a file here.

``download.py`` has the one that is an URL.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from llamad_client import Failed, Refused

PIECE_BYTES = 1 << 18
MAX_NAME_CHARACTERS = 128


class BeginAgain(Exception):  # noqa: N818 - it says what to do
    """The pieces cannot go on where they broke off: ask the source and the service once more."""


class Source(Protocol):
    """A file of bytes that is read from any offset on."""

    @property
    def identity(self) -> str:
        """What the service remembers of an interrupted transfer; another content, another text."""

    @property
    def file_bytes(self) -> int | None:
        """The size of the file, None when not known."""

    @property
    def sha256(self) -> str:
        """What the server says of the file, or empty."""

    def open_at(self, offset: int) -> tuple[int, Iterator[bytes]]:
        """Return where the data really begins, 0 or the offset, and the pieces from there on.

        Opening and reading raise Refused, Failed and BeginAgain.
        """

    def close(self) -> None:
        """Release what is open."""


class LocalFile:
    """A regular file of this machine. sha256: empty until ``prove``."""

    sha256 = ""

    def __init__(self, path: Path, *, max_bytes: int) -> None:
        """Open it. Raises Refused for what is no regular file or too large."""
        path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow symbolic links
        try:
            # Without O_NONBLOCK, opening a FIFO waits for somebody who writes to it.
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise Refused("INVALID_SOURCE", f"{path}: {error.strerror}") from None
        self._path = path
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise Refused("INVALID_SOURCE", f"{path}: is no regular file")
        if found.st_size > max_bytes:
            self.close()
            raise Refused(
                "TOO_LARGE", f"{path}: has {found.st_size} bytes, allowed are {max_bytes}"
            )
        self._changed_at = found.st_mtime_ns
        self.file_bytes = found.st_size
        self.identity = f"file://{path} {found.st_size} bytes, {found.st_mtime_ns} ns"

    def open_at(self, offset: int) -> tuple[int, Iterator[bytes]]:
        """Read from an offset on."""
        start = offset if offset <= self.file_bytes else 0
        return start, self._pieces(start)

    def prove(self) -> None:
        """Read the whole file for its sha256. Raises Failed."""
        digest = hashlib.sha256()
        for piece in self._pieces(0):
            digest.update(piece)
        self.sha256 = digest.hexdigest()

    def _pieces(self, start: int) -> Iterator[bytes]:
        left = self.file_bytes - start
        while left:
            try:
                piece = os.pread(self._descriptor, min(left, PIECE_BYTES), self.file_bytes - left)
            except OSError as error:
                raise Failed("READ_FAILED", f"{self._path}: {error.strerror}") from None
            if not piece:
                break
            left -= len(piece)
            yield piece
        if left or os.fstat(self._descriptor).st_mtime_ns != self._changed_at:
            raise Failed("SOURCE_CHANGED", f"{self._path}: changed while it was read")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def path_of(text: str) -> Path | None:
    """Return the path that a file:// URL, or a text that can only be a path, means; else None.

    Raises Refused for a file:// URL of another machine.
    """
    if text.lower().startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
            raise Refused("INVALID_URL", f"{text}: a file of this machine is file:///PATH")
        return Path(unquote(parts.path))
    if "://" in text:
        return None
    return Path(text) if "/" in text or text.endswith(".gguf") else None


def model_name(path: str) -> str:
    """Return the name a file's path suggests for its model; empty when it suggests none."""
    last = unquote(path).rstrip("/").rpartition("/")[2]
    base = last[: -len(".gguf")] if last.lower().endswith(".gguf") else last
    return re.sub(r"[^A-Za-z0-9._-]+", "-", base).lstrip(".")[:MAX_NAME_CHARACTERS]
