"""Small files, read whole and replaced whole: after a crash there is the old one or the new.

Owns nothing but the way they are written. Blocking, as everything that waits for a disk.
"""

import contextlib
import errno
import os
from pathlib import Path

MAX_BYTES = 64 << 10


def read_small(path: Path) -> bytes | None:
    """Return the file's content; None when it is absent, unreadable, no file or too large."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(fd, MAX_BYTES + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return data if len(data) <= MAX_BYTES else None


def replace_small(path: Path, data: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Let the file hold data, on disk when this returns, if ``durable``. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(fresh, flags, 0o600)
        try:
            os.fchmod(fd, mode)
            if os.write(fd, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
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
