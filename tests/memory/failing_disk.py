"""A file system with one read-only file, whose reads can be made to fail from an offset on.

Speaks FUSE's protocol (linux/fuse.h) on /dev/fuse, because a kernel need not have the device mapper
whose "error" target would do the same. What a program sees is what a broken card gives: EIO from a
read, SIGBUS from a mapping. Counts the bytes that were read through it. Needs root.
"""

import ctypes
import errno
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "model.gguf"
_ROOT_ID, _FILE_ID = 1, 2
_LOOKUP, _FORGET, _GETATTR, _OPEN, _READ, _STATFS = 1, 2, 3, 14, 15, 17
_RELEASE, _FLUSH, _INIT, _OPENDIR, _RELEASEDIR, _INTERRUPT = 18, 25, 26, 27, 29, 36
_DESTROY, _BATCH_FORGET = 38, 42
_SILENT = (_FORGET, _BATCH_FORGET, _INTERRUPT)  # requests without an answer
_IN_HEADER, _OUT_HEADER = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_READ_IN = struct.Struct("<QQI")
_MAX_WRITE = 1 << 17
_VALID_SECONDS = 3600


class FailingDisk:
    """The file, served by a thread; ``fail_from`` is the offset from which on reads fail."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.path = folder / NAME
        self.fail_from: int | None = None
        self.read_bytes = 0
        self.failures = 0
        self._source = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
        self._size = source.stat().st_size
        self._device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        _mount(folder, options=f"fd={self._device},rootmode=40000,user_id=0,group_id=0,allow_other")
        self._mounted = [folder]
        self._thread = threading.Thread(target=self._serve, name="failing-disk", daemon=True)
        self._thread.start()

    def show_as(self, path: Path) -> None:
        """Let the file appear at another path too, where a symbolic link would not be followed."""
        path.touch()
        _mount(path, source=self.path)
        self._mounted.append(path)

    def close(self) -> None:
        """Unmount, also under whoever has it open, and end the thread."""
        while self._mounted:
            _unmount(self._mounted.pop())
        self._thread.join(10)
        os.close(self._device)
        os.close(self._source)

    def drop_cache(self) -> None:
        """Let the kernel forget what it read of the file."""
        fd = os.open(self.path, os.O_RDONLY)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)

    def _serve(self) -> None:
        while True:
            try:
                request = os.read(self._device, _MAX_WRITE + 4096)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EAGAIN):
                    continue
                return  # ENODEV: unmounted
            _, opcode, unique, node, *_ = _IN_HEADER.unpack_from(request)
            if opcode in _SILENT:
                continue
            try:
                body, error_number = self._answer(opcode, node, request[_IN_HEADER.size :]), 0
            except OSError as error:
                body, error_number = b"", error.errno or errno.EIO
            answer = _OUT_HEADER.pack(_OUT_HEADER.size + len(body), -error_number, unique) + body
            try:
                os.write(self._device, answer)
            except OSError as error:
                if error.errno != errno.ENOENT:  # the request was interrupted
                    return

    def _answer(self, opcode: int, node: int, body: bytes) -> bytes:
        if opcode == _INIT:
            major, _, read_ahead, _ = struct.unpack_from("<IIII", body)
            flags = 0
            return struct.pack(
                "<IIIIHHIIHHI28x", major, 31, read_ahead, flags, 16, 12, _MAX_WRITE, 1, 0, 0, 0
            )
        if opcode == _LOOKUP:
            if body.rstrip(b"\0") != NAME.encode():
                raise OSError(errno.ENOENT, "no such file")
            entry = struct.pack("<QQQQII", _FILE_ID, 0, _VALID_SECONDS, _VALID_SECONDS, 0, 0)
            return entry + self._attributes(_FILE_ID)
        if opcode == _GETATTR:
            return struct.pack("<QII", _VALID_SECONDS, 0, 0) + self._attributes(node)
        if opcode in (_OPEN, _OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if opcode == _READ:
            return self._read(*_READ_IN.unpack_from(body)[1:])
        if opcode == _STATFS:
            return bytes(80)
        if opcode in (_RELEASE, _RELEASEDIR, _FLUSH, _DESTROY):
            return b""
        raise OSError(errno.ENOSYS, "not implemented")

    def _read(self, offset: int, size: int) -> bytes:
        if self.fail_from is not None and offset + size > self.fail_from:
            self.failures += 1
            raise OSError(errno.EIO, "the disk is broken here")
        data = os.pread(self._source, size, offset)
        self.read_bytes += len(data)
        return data

    def _attributes(self, node: int) -> bytes:
        is_file = node == _FILE_ID
        size = self._size if is_file else 0
        mode = (stat.S_IFREG | 0o444) if is_file else (stat.S_IFDIR | 0o555)
        times = (0,) * 3 + (0,) * 3
        return struct.pack(
            "<QQQQQQIIIIIIIIII",
            node,
            size,
            -(-size // 512),
            *times,
            mode,
            1,
            0,
            0,
            0,
            4096,
            0,
        )


@contextmanager
def failing_disk(source: Path, folder: Path) -> Iterator[FailingDisk]:
    """Serve a file below an empty folder, as ``folder / NAME``, until the end of the block."""
    folder.mkdir(parents=True, exist_ok=True)
    disk = FailingDisk(source, folder)
    try:
        yield disk
    finally:
        disk.close()


_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_BIND = 1, 2, 4, 4096  # sys/mount.h


def _mount(target: Path, *, options: str = "", source: Path | None = None) -> None:
    """Mount our file system, or bind an existing file."""
    libc = ctypes.CDLL(None, use_errno=True)
    flags = _MS_RDONLY | _MS_NOSUID | _MS_NODEV if source is None else _MS_BIND
    what = b"failing" if source is None else os.fsencode(source)
    kind = b"fuse" if source is None else None
    if libc.mount(what, os.fsencode(target), kind, ctypes.c_ulong(flags), options.encode()) != 0:
        raise OSError(ctypes.get_errno(), f"cannot mount {target}")


def _unmount(folder: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(folder), 2) != 0:  # MNT_DETACH
        raise OSError(ctypes.get_errno(), f"cannot unmount {folder}")
