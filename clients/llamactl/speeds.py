"""How fast counts grow, from looks at them in between. Pure; times are monotonic seconds."""

from collections import deque
from collections.abc import Mapping

LEAST_SECONDS = 5.0  # that a speed is a mean of
ENOUGH = 10  # of what is counted: a slow count is looked at for longer, to this many
LOOKS = 120  # that are kept


class Speeds:
    """The speeds of some counts."""

    def __init__(self) -> None:
        """Begin without a look."""
        self._looks: deque[tuple[float, Mapping[str, int]]] = deque(maxlen=LOOKS)

    def look(self, now: float, counts: Mapping[str, int]) -> None:
        """Take note of all counts; one that became smaller began anew."""
        if self._looks:
            _, before = self._looks[-1]
            if any(counts[name] < n for name, n in before.items() if name in counts):
                self._looks.clear()
        self._looks.append((now, dict(counts)))

    def of(self, name: str) -> float | None:
        """Return how much a count grows in a second, lately; None before the second look."""
        if not self._looks:
            return None
        now, latest = self._looks[-1]
        speed = None
        for then, counts in reversed(self._looks):
            if name not in counts or name not in latest:
                break
            seconds, grown = now - then, latest[name] - counts[name]
            if seconds > 0:
                speed = grown / seconds
            if seconds >= LEAST_SECONDS and grown >= ENOUGH:
                break
        return speed
