"""A file system with one read-only file, whose reads can be made to fail from an offset on.

What a program sees is what a broken card gives: EIO from a read, SIGBUS from a mapping. Counts the
bytes that were read through it. Needs root.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuse import FuseFileSystem, Request, bind, name_in, range_in, unmount

NAME = "model.gguf"
_FILE_ID = 2


class FailingDisk(FuseFileSystem):
    """The file; ``fail_from`` is the offset from which on reads fail."""

    def __init__(self, source: Path, folder: Path) -> None:
        super().__init__("failing", read_only=True, valid_seconds=3600)
        self.path = folder / NAME
        self.fail_from: int | None = None
        self.read_bytes = 0
        self.failures = 0
        self._source = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self._size = source.stat().st_size
        self._also_at: list[Path] = []
        self.mount(folder)

    def show_as(self, path: Path) -> None:
        """Let the file appear at another path too, where a symbolic link would not be followed."""
        path.touch()
        bind(self.path, path)
        self._also_at.append(path)

    def close(self) -> None:
        """Unmount, also under whoever has it open, and end the thread."""
        while self._also_at:
            unmount(self._also_at.pop())
        self.unmount(self.path.parent)
        os.close(self._source)

    def drop_cache(self) -> None:
        """Let the kernel forget what it read of the file."""
        fd = os.open(self.path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def answer(self, request: Request, node: int, body: bytes) -> bytes:
        """Look up and read the one file."""
        if request is Request.LOOKUP:
            if name_in(body) != NAME:
                raise OSError(errno.ENOENT, "no such file")
            return self.entry(_FILE_ID)
        if request is Request.READ:
            return self._read(*range_in(body))
        return super().answer(request, node, body)

    def look(self, node: int) -> tuple[int, int, float]:
        """Return mode, bytes and time of the file or its folder."""
        if node == _FILE_ID:
            return stat.S_IFREG | 0o444, self._size, 0.0
        return stat.S_IFDIR | 0o555, 0, 0.0

    def _read(self, offset: int, size: int) -> bytes:
        if self.fail_from is not None and offset + size > self.fail_from:
            self.failures += 1
            raise OSError(errno.EIO, "the disk is broken here")
        data = os.pread(self._source, size, offset)
        self.read_bytes += len(data)
        return data


@contextmanager
def failing_disk(source: Path, folder: Path) -> Iterator[FailingDisk]:
    """Serve a file below an empty folder, as ``folder / NAME``, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = FailingDisk(source, folder)
    try:
        yield disk
    finally:
        disk.close()
