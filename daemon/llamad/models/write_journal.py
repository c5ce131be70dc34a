"""How much of an unfinished file is on disk, so that the next attempt goes on from there.

One small JSON file beside the temporary file. What it says is on disk was brought there before the
journal was, so it holds after a kill and after a power cut. A journal that is torn, or of another
job, is none: the file then begins anew.
"""

import contextlib
import json
import os
from pathlib import Path


class WriteJournal:
    """The journal of one temporary file. identity: what is written, from which sources."""

    def __init__(self, temporary_path: Path, identity: str) -> None:
        self.path = temporary_path.with_name(temporary_path.name + ".journal")
        self._identity = identity

    def completed(self) -> int:
        """Return how many leading tensors an earlier attempt at the same file completed."""
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return 0
        match found:
            case {"identity": self._identity, "tensors": int(n_tensors)} if n_tensors > 0:
                return n_tensors
        return 0

    def record(self, n_tensors: int) -> None:
        """Note that the first n_tensors are on disk. Raises OSError."""
        text = json.dumps({"identity": self._identity, "tensors": n_tensors})
        with self.path.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())

    def remove(self) -> None:
        """Forget; no error when there is nothing to forget."""
        with contextlib.suppress(OSError):
            self.path.unlink()
