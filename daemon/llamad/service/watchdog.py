"""The watchdog of systemd: fed while the service makes progress, and no longer.

Two things can hang. The event loop: then nothing here runs, systemd hears nothing, and the signal
by which it ends the service writes the stacks (``stacks.py``). A step in C, on the engine's thread,
while the loop lives: its layers are counted, and the chunks of the output matrix. A step that
finishes none for a whole period is written to the journal with all stacks, once, and systemd hears
nothing until it moves again. Loading has no steps and is not judged: a slow card may take its time,
and TimeoutStartSec= bounds it.
"""

import logging
from collections.abc import Callable

from llamad.clock import Clock, Timer
from llamad.logs import fields
from llamad.service import stacks

log = logging.getLogger(__name__)


class Watchdog:
    """Feeds at half the period from ``start`` to ``stop``, on the event loop's thread."""

    def __init__(
        self,
        feed: Callable[[], None],
        period_seconds: float,
        progress: Callable[[], int | None],
        clock: Clock,
        *,
        dump_stacks: Callable[[], None] = stacks.write,
    ) -> None:
        """``progress`` returns a number that a running step changes; None while none runs."""
        self._feed = feed
        self._period = period_seconds
        self._progress = progress
        self._clock = clock
        self._dump_stacks = dump_stacks
        self._timer: Timer | None = None
        self._last: int | None = None
        self._moved_at = 0.0
        self._stuck = False

    def start(self) -> None:
        """Feed now, and again at every half of the period."""
        self._moved_at = self._clock.now()
        self._tick()

    def stop(self) -> None:
        """Feed no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self) -> None:
        now = self._clock.now()
        self._timer = self._clock.call_at(now + self._period / 2, self._tick)
        progress = self._progress()
        if progress is None or progress != self._last:
            self._moved_at = now
            self._stuck = False
        self._last = progress
        if now - self._moved_at < self._period:
            self._feed()
        elif not self._stuck:
            self._stuck = True
            log.error(
                fields(
                    "engine hangs, the watchdog is not fed",
                    seconds=now - self._moved_at,
                    progress=progress,
                )
            )
            self._dump_stacks()
