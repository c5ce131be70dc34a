"""The scheduler's only source of time, so that tests can own it.

Times are monotonic seconds; the wall clock is never asked, because it jumps.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that waits for its time."""

    def cancel(self) -> None:
        """Forget the callback. Cancelling one that ran is no error."""


class Clock(Protocol):
    """Monotonic time, and callbacks at a time, on the event loop's thread."""

    def now(self) -> float:
        """Return the monotonic time in seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once ``now()`` has reached ``when``."""


class LoopClock:
    """The clock of the running event loop."""

    def now(self) -> float:
        """Return the loop's monotonic time in seconds."""
        return asyncio.get_running_loop().time()

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` at ``when``, in the loop's time."""
        return asyncio.get_running_loop().call_at(when, callback)
