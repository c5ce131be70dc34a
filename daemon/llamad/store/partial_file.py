"""The beginning of a model file, on disk under a hidden name until it is whole.

Two files in the model directory: ``.NAME.gguf.part``, and a record that says what is being received
and how much of it is on the disk. The record is written after the data was brought there, so what
it says holds after a kill and after a power cut; what lies behind it is cut off when the partial
file is opened again. A record that is torn, or of something else, is none: the file begins anew.

The page cache belongs to the model that is served meanwhile: what was written is dropped from it.
Blocking; one thread at a time. It knows no rules of what may be received.
"""

import contextlib
import errno
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llamad.errors import ErrorKind, LlamadError
from llamad.small_file import read_small, replace_small, sync_directory

SYNC_BYTES = 32 << 20  # at most this much is lost by a crash
READ_BYTES = 1 << 20
OLD_SECONDS = 30 * 86_400
PARTIAL_SUFFIX = ".gguf.part"
RECORD_SUFFIX = ".json"
MODEL_MODE = 0o644


@dataclass(frozen=True, slots=True)
class Identity:
    """What is being received. A partial file is continued only for the same source."""

    source: str  # empty: unknown, never the same
    file_bytes: int | None
    sha256: str  # empty: not known

    def continues(self, earlier: "Identity") -> bool:
        """Whether what there is of the other is the beginning of this."""
        same = bool(self.source) and self.source == earlier.source
        hashes = {self.sha256, earlier.sha256} - {""}
        return same and self.file_bytes == earlier.file_bytes and len(hashes) <= 1


class PartialFile:
    """The partial file of one model; ``n_bytes`` are there, ``open`` before anything else."""

    def __init__(self, directory: Path, name: str) -> None:
        self.path = partial_path(directory, name)
        self.n_bytes = 0
        self._record = _record_path(self.path)
        self._fd = -1
        self._synced = 0
        self._identity = Identity("", None, "")

    @property
    def is_open(self) -> bool:
        """Whether the file is open."""
        return self._fd >= 0

    def open(self, identity: Identity) -> None:
        """Open what there is of this identity, or begin anew. Raises DISK_FULL, DISK_ERROR."""
        with self._disk():
            self._identity = identity
            found = _read_record(self._record)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            self._fd = os.open(self.path, flags, 0o600)
            if found is not None and identity.continues(found[0]):
                size = os.fstat(self._fd).st_size
                self.n_bytes = self._synced = found[1] if found[1] <= size else 0
            os.ftruncate(self._fd, self.n_bytes)
            if not self.n_bytes:
                self._record.unlink(missing_ok=True)

    def read(self) -> Iterator[bytes]:
        """Yield what there is, from the first byte on. Raises DISK_ERROR."""
        offset = 0
        while offset < self.n_bytes:
            with self._disk():
                data = os.pread(self._fd, min(READ_BYTES, self.n_bytes - offset), offset)
                if not data:
                    raise OSError(errno.EIO, "the file became shorter")
                drop_cache(self._fd, offset, len(data))
            offset += len(data)
            yield data

    def append(self, data: bytes) -> None:
        """Add bytes; now and then what is there goes to the disk. Raises DISK_FULL, DISK_ERROR."""
        with self._disk():
            rest = memoryview(data)
            while rest:
                n = os.pwrite(self._fd, rest, self.n_bytes)
                self.n_bytes += n
                rest = rest[n:]
        if self.n_bytes - self._synced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Bring everything to the disk and record it. Raises DISK_FULL, DISK_ERROR."""
        if self.n_bytes == self._synced:
            return
        with self._disk():
            os.fdatasync(self._fd)
            replace_small(self._record, _record_of(self._identity, self.n_bytes))
            drop_cache(self._fd, self._synced, self.n_bytes - self._synced)
        self._synced = self.n_bytes

    def restart(self) -> None:
        """Drop everything that is there. Raises DISK_ERROR."""
        with self._disk():
            self._record.unlink(missing_ok=True)
            os.ftruncate(self._fd, 0)
        self.n_bytes = self._synced = 0

    def rename(self, path: Path) -> None:
        """Give the whole file its name, durably; it is partial no more. Raises DISK_ERROR."""
        with self._disk():
            os.fchmod(self._fd, MODEL_MODE)
            os.fsync(self._fd)
            self.path.replace(path)
            sync_directory(path.parent)
            self._record.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the partial file. Raises DISK_ERROR."""
        with self._disk():
            self._record.unlink(missing_ok=True)
            self.path.unlink(missing_ok=True)
        self.n_bytes = self._synced = 0

    def close(self) -> None:
        """Close the file; what was not synced is lost to the next attempt."""
        if self.is_open:
            os.close(self._fd)
            self._fd = -1

    @contextlib.contextmanager
    def _disk(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise disk_error(self.path.parent, error) from error


def partial_path(directory: Path, name: str) -> Path:
    """Return where the partial file of a model lies."""
    return directory / f".{name}{PARTIAL_SUFFIX}"


def remove_partial_file(directory: Path, name: str) -> int | None:
    """Delete the partial file of a model; return its bytes, None without one. Raises OSError."""
    path = partial_path(directory, name)
    try:
        n_bytes = path.lstat().st_size
        path.unlink()
    except FileNotFoundError:
        n_bytes = None
    _record_path(path).unlink(missing_ok=True)
    return n_bytes


def partial_file_sizes(directory: Path) -> dict[str, int]:
    """Return the size of the partial file of each model. Raises OSError."""
    paths = directory.glob(f".*{PARTIAL_SUFFIX}")
    return {p.name[1:].removesuffix(PARTIAL_SUFFIX): p.lstat().st_size for p in paths}


def remove_old_partial_files(directory: Path) -> list[str]:
    """Delete what nobody continued for 30 days; return the files' names. Raises OSError."""
    limit = time.time() - OLD_SECONDS
    old = [p for p in directory.glob(f".*{PARTIAL_SUFFIX}*") if p.lstat().st_mtime < limit]
    for path in old:
        path.unlink(missing_ok=True)
    return [path.name for path in old]


def disk_error(directory: Path, error: OSError) -> LlamadError:
    """Return the error for a disk that did not take or give data."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return LlamadError(
            ErrorKind.EXHAUSTED, "DISK_FULL", f"{directory}: {error.strerror}, no more fits"
        )
    return LlamadError(ErrorKind.STATE, "DISK_ERROR", f"{directory}: {error.strerror or error}")


def _record_path(partial: Path) -> Path:
    return partial.with_name(partial.name + RECORD_SUFFIX)


def _record_of(identity: Identity, n_bytes: int) -> bytes:
    values = {
        "source": identity.source,
        "file_bytes": identity.file_bytes,
        "sha256": identity.sha256,
        "kept_bytes": n_bytes,
    }
    return json.dumps(values).encode()


def _read_record(path: Path) -> tuple[Identity, int] | None:
    try:
        found = json.loads(read_small(path) or b"")
    except (ValueError, RecursionError):  # no JSON, or no text at all
        return None
    match found:
        case {
            "source": str(source),
            "file_bytes": int() | None as file_bytes,
            "sha256": str(sha256),
            "kept_bytes": int(n_bytes),
        } if n_bytes > 0:
            return Identity(source, file_bytes, sha256), n_bytes
    return None


def drop_cache(fd: int, offset: int, n_bytes: int) -> None:
    """Let go of what the page cache holds of a part of a file that is on the disk."""
    with contextlib.suppress(OSError):  # advice: some file systems take none
        os.posix_fadvise(fd, offset, n_bytes, os.POSIX_FADV_DONTNEED)
