"""How much of an unfinished file is on disk, so that the next attempt goes on from there.

One line of JSON in a file beside the temporary file. What it says is on disk was brought there
before the journal was, so it holds after a kill and after a power cut; the checksum in it tells
when something else changed the file since. A journal that is torn, or of another job, is none: the
file then begins anew.
"""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

_LINE_BYTES = 256  # of every entry, so that the next one overwrites it in one piece


@dataclass(frozen=True, slots=True)
class Recorded:
    """The beginning of a file: how many tensors are complete, the CRC-32 of all bytes so far."""

    n_tensors: int
    checksum: int


class WriteJournal:
    """The journal of one temporary file. identity: what is written, from which sources."""

    def __init__(self, temporary_path: Path, identity: str) -> None:
        self.path = temporary_path.with_name(temporary_path.name + ".journal")
        self._identity = identity

    def read(self) -> Recorded | None:
        """Return what an earlier attempt at the same file recorded last."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return None
        match found:
            case {"identity": self._identity, "tensors": int(n), "crc32": int(checksum)} if n > 0:
                return Recorded(n, checksum)
        return None

    def record(self, done: Recorded) -> None:
        """Note what is on disk. Raises OSError."""
        entry = {"identity": self._identity, "tensors": done.n_tensors, "crc32": done.checksum}
        line = json.dumps(entry).ljust(_LINE_BYTES - 1) + "\n"
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            os.pwrite(fd, line.encode("ascii"), 0)
            os.fsync(fd)
        finally:
            os.close(fd)

    def remove(self) -> None:
        """Forget; no error when there is nothing to forget."""
        with contextlib.suppress(OSError):
            self.path.unlink()
