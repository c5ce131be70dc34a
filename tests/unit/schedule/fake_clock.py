"""Time that stands still until a test moves it."""

import heapq
from collections.abc import Callable


class FakeTimer:
    """A callback of the fake clock, which is forgotten when it is cancelled."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class FakeClock:
    """Time that moves only when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._timers: list[tuple[float, int, FakeTimer]] = []
        self._n_timers = 0

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer(callback)
        self._n_timers += 1
        heapq.heappush(self._timers, (when, self._n_timers, timer))
        return timer

    def advance(self, seconds: float) -> None:
        self.time += seconds
        while self._timers and self._timers[0][0] <= self.time:
            *_, timer = heapq.heappop(self._timers)
            if timer.callback is not None:
                timer.callback()

    def pending(self) -> int:
        return sum(timer.callback is not None for *_, timer in self._timers)
