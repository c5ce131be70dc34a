"""What a loaded model reads from the disk: for a step, and how fast. Since its plan was made last.

The engine counts; here is only the difference between two counts.
"""

from collections.abc import Callable
from dataclasses import dataclass

from llamad.engine.info import ResidencyInfo


@dataclass(frozen=True, slots=True)
class Measured:
    """What of the model is where, and what the disk does for it. Bytes; 0 before it is known."""

    locked_bytes: int
    streamed_bytes: int
    bytes_read_per_token: int  # of a step, which is a token of one sequence
    disk_read_bytes_per_second: float
    share_of_disk_time_hidden: float  # of the reading, in which no step had to wait
    read_bytes: int = 0  # since the model was loaded
    expert_uses: int = 0  # experts that steps chose of those that do not all stay in memory
    expert_hits: int = 0  # and that were there


class DiskMeter:
    """Reads the engine's counts; any thread."""

    def __init__(self, read: Callable[[], ResidencyInfo]) -> None:
        self._read = read
        self._start = read()

    def restart(self) -> None:
        """Count from now on: what is streamed has changed."""
        self._start = self._read()

    def measured(self) -> Measured:
        """Return what was read since."""
        now, start = self._read(), self._start
        n_bytes, passes = now.read_bytes - start.read_bytes, now.passes - start.passes
        seconds = now.read_seconds - start.read_seconds
        waited = now.wait_seconds - start.wait_seconds
        return Measured(
            locked_bytes=now.locked_bytes,
            streamed_bytes=now.streamed_bytes,
            bytes_read_per_token=n_bytes // passes if passes else now.streamed_bytes,
            disk_read_bytes_per_second=n_bytes / seconds if seconds > 0 else 0.0,
            share_of_disk_time_hidden=min(1.0, max(0.0, 1 - waited / seconds)) if seconds else 0.0,
            read_bytes=now.read_bytes,
            expert_uses=now.expert_uses - start.expert_uses,
            expert_hits=now.expert_hits - start.expert_hits,
        )
