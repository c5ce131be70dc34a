"""Write a GGUF v3 file as a stream: metadata, then the tensor table, then the data in pieces.

The file grows under a temporary name beside its place and takes its own name, in one step, only
when it is complete, verified and on disk; whatever ends the writing earlier leaves no file under
that name. Holds one piece at a time. Knows the container (ggml, docs/gguf.md), not what it means:
which entries a model needs and how tensors are quantized is the caller's business.
"""

import contextlib
import errno
import fcntl
import os
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from llamad.engine.bindings import Buffer, GgufFile
from llamad.errors import ErrorKind, LlamadError
from llamad.gguf.layout import GgufLayout, TensorSlot
from llamad.gguf.write_journal import Recorded, WriteJournal
from llamad.small_file import sync_directory

JOURNAL_BYTES = 64 << 20  # of data between two entries of the journal, each a wait for the disk
CHECK_BYTES = 4 << 20  # of one reading of what an earlier attempt left
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the last: FAT32 ends at 4 GiB, ulimit -f

Report = Callable[[int], None]
"""Gets bytes as they are checked."""


class GgufWriter(GgufLayout):
    """A file being written: ``add_*``, then ``begin``, then ``write`` in order, then ``finish``.

    A context manager: leaving it before ``finish`` removes what was written, so that a full disk is
    not full any more. inputs: files that the new one is made from, and must not replace. identity:
    what is written, from which sources; with it an interrupt (not an error) leaves the temporary
    file, and a later writer of the same identity and header goes on from there, if what is left is
    as it was written. Errors are LlamadError and name the path.
    """

    def __init__(
        self, path: Path, *, inputs: Iterable[Path] = (), identity: str | None = None
    ) -> None:
        super().__init__()
        self.path = path.resolve()
        self.temporary_path = _temporary_path(self.path)
        self._refuse_place(tuple(inputs))
        self._fd: int | None = None
        self._order: Sequence[TensorSlot] = ()  # of the declared tensors, once writing has begun
        self._current = 0  # index of the tensor being written
        self._written = 0  # bytes of it
        self._journal = WriteJournal(self.temporary_path, identity or "")
        self._keeps_journal = identity is not None
        self._recorded = 0  # tensors that the journal knows
        self._checksum = 0  # CRC-32 of the file so far, where a journal is kept

    @property
    def left_bytes(self) -> int:
        """The size of what an earlier attempt left, complete or not."""
        try:
            return self.temporary_path.stat().st_size
        except FileNotFoundError:
            return 0

    @property
    def n_complete(self) -> int:
        """How many leading tensors are written; after ``begin`` those of an earlier attempt."""
        return self._current

    @property
    def can_be_resumed(self) -> bool:
        """Whether an interrupt now would leave something to go on from."""
        return self._recorded > 0 and self._fd is not None

    # ---- writing ------------------------------------------------------------------------------

    def begin(self, report: Report = lambda n_bytes: None) -> None:
        """Write the header, or check what an earlier attempt left, which ``report`` follows.

        Raises LlamadError when the disk has too little room for the file.
        """
        self.seal()
        header = self.header()
        self._order = self.tensors
        with self._disk_errors():
            self._fd = _open_exclusively(self.temporary_path)
            kept = self._resume(header, report)
            os.ftruncate(self._fd, kept)
            self._check_room(len(header) + self.data_bytes - kept)
            os.lseek(self._fd, kept, os.SEEK_SET)
            if not kept:
                self._write_all(header)

    def write(self, data: Buffer) -> None:
        """Write the next bytes of the tensor data; they may not run past the current tensor."""
        tensor = self._order[self._current]
        data = memoryview(data).cast("B")
        if data.nbytes > tensor.n_bytes - self._written:
            raise ValueError(f"tensor {tensor.name} has {tensor.n_bytes} bytes, more are written")
        with self._disk_errors():
            self._write_all(data)
            self._written += data.nbytes
            if self._written == tensor.n_bytes:
                self._write_all(bytes(self.padding(tensor.n_bytes)))
                self._current += 1
                self._written = 0
                self._record()

    def finish(self) -> None:
        """Verify the file, bring it to disk and give it its name."""
        if self._fd is None or self._current != len(self._order):
            raise ValueError(f"{self._current} of {len(self.tensors)} tensors are written")
        with self._disk_errors():
            os.fsync(self._fd)
            self._verify()
            self.temporary_path.replace(self.path)
            self._journal.remove()
            self._close()
            sync_directory(self.path.parent)

    def abort(self) -> None:
        """Remove what was written; nothing after ``finish``."""
        if self._fd is not None:
            with contextlib.suppress(OSError):
                self.temporary_path.unlink()
            self._journal.remove()
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.can_be_resumed and isinstance(error, KeyboardInterrupt):
            self._close()
        self.abort()

    # ---- inside -------------------------------------------------------------------------------

    def _refuse_place(self, inputs: Sequence[Path]) -> None:
        for path in (self.path, self.temporary_path):
            try:
                status = path.stat()
            except FileNotFoundError:
                if not path.parent.is_dir():
                    raise _error(f"{self.path}: its directory does not exist") from None
                continue
            except OSError as error:
                raise _error(f"{path}: {error.strerror}") from error
            if not stat.S_ISREG(status.st_mode):
                raise _error(f"{path} exists and is no regular file")
            if any(os.path.samestat(status, other.stat()) for other in inputs if other.exists()):
                raise _error(f"{path} is the input: choose another name for the output")

    def _resume(self, header: bytes, report: Report) -> int:
        """Return the bytes of the temporary file that are as this writer would write them."""
        assert self._fd is not None
        found = self._journal.read() if self._keeps_journal else None
        if found is not None and found.n_tensors <= len(self._order):
            last = self._order[found.n_tensors - 1]
            kept = len(header) + last.offset + last.n_bytes + self.padding(last.n_bytes)
            has_header = os.pread(self._fd, len(header), 0) == header
            if has_header and self._checksum_of(kept, report) == found.checksum:
                self._current = self._recorded = found.n_tensors
                self._checksum = found.checksum
                return kept
        self._journal.remove()
        return 0

    def _checksum_of(self, n_bytes: int, report: Report) -> int:
        """Return the CRC-32 of the first n_bytes, of fewer when the file ends earlier."""
        assert self._fd is not None
        checksum = done = 0
        try:
            while piece := os.pread(self._fd, min(CHECK_BYTES, n_bytes - done), done):
                checksum = zlib.crc32(piece, checksum)
                done += len(piece)
                report(len(piece))
        except KeyboardInterrupt:  # what an earlier attempt left stays
            self._close()
            raise
        return checksum

    def _record(self) -> None:
        """Let the journal know what is complete, now and then."""
        assert self._fd is not None
        known = self._order[self._recorded].offset if self._recorded < len(self._order) else 0
        last = self._order[self._current - 1]
        if self._keeps_journal and last.offset + last.n_bytes - known >= JOURNAL_BYTES:
            os.fsync(self._fd)
            self._journal.record(Recorded(self._current, self._checksum))
            self._recorded = self._current

    def _check_room(self, needed: int) -> None:
        available = os.statvfs(self.path.parent)
        free = available.f_bavail * available.f_frsize
        if needed > free:
            if self._recorded:  # what an earlier attempt left stays: room can be made for the rest
                self._close()
            raise _error(
                f"{self.path} needs {needed / 1e6:.1f} MB, "
                f"{self.path.parent} has {free / 1e6:.1f} MB available",
                ErrorKind.EXHAUSTED,
                "DISK_FULL",
            )

    def _write_all(self, data: Buffer) -> None:
        assert self._fd is not None
        if self._keeps_journal:
            self._checksum = zlib.crc32(data, self._checksum)
        view = memoryview(data)
        while view.nbytes:
            view = view[os.write(self._fd, view) :]

    def _verify(self) -> None:
        """Read the file back with the engine's parser and compare its table with the declared."""
        with GgufFile(self.temporary_path) as file:
            found = [(t.name, t.type_name, t.shape, t.n_bytes) for t in file.tensors()]
            n_entries = len(file.raw_metadata())
        declared = [(t.name, t.type_name, t.shape, t.n_bytes) for t in self._order]
        if found != declared or n_entries != self.n_entries:
            raise _error(
                f"{self.path}: the file reads back otherwise than written",
                ErrorKind.INTERNAL,
                "OUTPUT_UNVERIFIED",
            )

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            message = f"{self.path}: {error.strerror}"
            if self._fd is None or error.errno not in _FULL:
                raise _error(message) from error
            left = self.file_bytes - os.lseek(self._fd, 0, os.SEEK_CUR)
            message += f" with {left / 1e6:.1f} of {self.file_bytes / 1e6:.1f} MB still to write"
            raise _error(message, ErrorKind.EXHAUSTED, "DISK_FULL") from error


def is_begun(path: Path, identity: str) -> bool:
    """Whether an interrupted writer of this identity left something of ``path`` to go on from."""
    temporary_path = _temporary_path(path.resolve())
    return temporary_path.exists() and WriteJournal(temporary_path, identity).read() is not None


def _temporary_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _error(
    message: str, kind: ErrorKind = ErrorKind.INVALID, reason: str = "OUTPUT_UNWRITABLE"
) -> LlamadError:
    return LlamadError(kind, reason, message)


def _open_exclusively(path: Path) -> int:
    """Open a file for one writer, empty or as an earlier, killed writer left it."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise _error(f"{path} is being written by another process") from None
    return fd
