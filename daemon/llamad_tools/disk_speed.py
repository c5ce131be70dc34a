"""How fast the disk gives a file: its own speed, not that of the page cache.

Reads a part of the file past the page cache (O_DIRECT), in order and in large pieces, as streamed
weights are read. Where the file system refuses that, through the cache, of pages that it lacks.
"""

import errno
import mmap
import os
import time
from os import PathLike

PIECE_BYTES = 4 << 20
SECONDS = 1.0  # of measuring, and at least:
LEAST_PIECES = 4


def disk_speed(path: str | PathLike[str], seconds: float = SECONDS) -> float | None:
    """Return bytes per second; None when the file is too short to tell. Raises OSError."""
    fd, direct = _open(path)
    try:
        pieces = os.fstat(fd).st_size // PIECE_BYTES
        if pieces < LEAST_PIECES:
            return None
        if not direct:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with mmap.mmap(-1, PIECE_BYTES) as buffer:
            return _measure(fd, buffer, pieces, seconds)
    finally:
        os.close(fd)


def _measure(fd: int, buffer: mmap.mmap, pieces: int, seconds: float) -> float:
    start, n_bytes = time.perf_counter(), 0
    for i in range(pieces):
        n_bytes += os.preadv(fd, [buffer], i * PIECE_BYTES)
        passed = time.perf_counter() - start
        if passed >= seconds and i + 1 >= LEAST_PIECES:
            break
    return n_bytes / max(passed, 1e-9)


def _open(path: str | PathLike[str]) -> tuple[int, bool]:
    """Return a descriptor, and whether it reads past the page cache."""
    flags = os.O_RDONLY | os.O_CLOEXEC
    try:
        return os.open(path, flags | os.O_DIRECT), True
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.open(path, flags), False
