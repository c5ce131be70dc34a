"""How fast may be written to the disk: a card wears out.

For what must be written in the end and may wait, as the progress of jobs. (What may as well stay
unwritten has so many bytes a day: store/write_budget.py.) Pure arithmetic over a clock. What is
left of an hour's share may be spent at once; behind that, writing waits until its share has come.
"""

HOURS = 24


class WritePace:
    """An account of bytes that fills evenly. Times are monotonic seconds."""

    def __init__(self, bytes_per_day: int, now: float) -> None:
        self._rate = bytes_per_day / 86400.0  # bytes a second
        self._most = bytes_per_day / HOURS
        self._left = self._most
        self._at = now

    def spend(self, n_bytes: int, now: float) -> None:
        """Count what was written."""
        self._fill(now)
        self._left -= n_bytes

    def wait_seconds(self, now: float) -> float:
        """Return how long to wait before more is written; 0: not at all."""
        self._fill(now)
        return max(0.0, -self._left / self._rate)

    def _fill(self, now: float) -> None:
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
