"""Small files, read whole and replaced whole: after a crash there is the old one or the new.

Owns nothing but the way they are written. Blocking, as everything that waits for a disk.
"""

import contextlib
import os
from pathlib import Path

MAX_BYTES = 64 << 10


def read_small(path: Path) -> bytes | None:
    """Return the file's content; None when it is absent, unreadable, no file or too large."""
    try:
        data = read_bounded(path, MAX_BYTES)
    except OSError:
        return None
    return data if len(data) <= MAX_BYTES else None


def read_bounded(path: Path, max_bytes: int) -> bytes:
    """Return the file's content, one byte too much where it is larger. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    parts, left = [], max_bytes + 1
    try:
        while left and (part := os.read(fd, left)):
            parts.append(part)
            left -= len(part)
    finally:
        os.close(fd)
    return b"".join(parts)


def replace_small(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Let the file hold data, on disk when this returns, if ``durable``. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(fresh, flags, 0o600)
        try:
            os.fchmod(fd, mode)
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        fresh.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    if durable:
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Bring the names in a directory to the disk. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
