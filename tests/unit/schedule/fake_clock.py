"""Time that stands still until a test moves it."""

import heapq
from collections.abc import Callable


class FakeTimer:
    """A callback of the fake clock."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeClock:
    """Time that moves only when a test says so."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._timers: list[tuple[float, int, FakeTimer, Callable[[], None]]] = []
        self._n_timers = 0

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Callable[[], None]) -> FakeTimer:
        timer = FakeTimer()
        self._n_timers += 1
        heapq.heappush(self._timers, (when, self._n_timers, timer, callback))
        return timer

    def advance(self, seconds: float) -> None:
        self.time += seconds
        while self._timers and self._timers[0][0] <= self.time:
            *_, timer, callback = heapq.heappop(self._timers)
            if not timer.cancelled:
                callback()

    def pending(self) -> int:
        return sum(not timer.cancelled for *_, timer, _ in self._timers)
