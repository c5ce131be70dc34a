"""What a user may use up in the long run, and at once after a pause: a token bucket.

Knows neither what is used up nor what happens to those who want more.
"""

from collections.abc import Callable


class Allowance:
    """An amount that grows by itself up to a limit; what is used may exceed it once."""

    def __init__(self, per_second: float, at_once: float, now: Callable[[], float]) -> None:
        """Begin with all that may be used at once; ``now`` is a clock in seconds."""
        self._per_second = per_second
        self._at_once = at_once
        self._now = now
        self._left = at_once
        self._since = now()

    def use(self, amount: float) -> float:
        """Use up an amount; return the seconds until there is something left again, often 0."""
        now = self._now()
        grown = self._left + (now - self._since) * self._per_second
        self._left = min(grown, self._at_once) - amount
        self._since = now
        return max(0.0, -self._left / self._per_second)

    def refill(self) -> None:
        """Give back all that may be used at once."""
        self._left = self._at_once

    def is_untouched(self) -> bool:
        """Return whether all that may be used at once is there."""
        self.use(0)
        return self._left >= self._at_once
