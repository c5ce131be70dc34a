"""Whether the step that runs is stopped for an interactive job that arrives.

DESIGN. An interactive job joins the next step, so it would wait for the step that runs: where a
model streams from a card that may be minutes. A step that works for less urgent jobs alone is
stopped between two layers instead. What it has computed is lost and computed again later, to the
same bits: a step that did not end has changed no token, no sampler, and no state that a sequence
has (states.py), only blocks at positions that are written again.

So an interruption costs the others the time that the step took so far. That is kept within
LOST_SHARE of the time of such steps: what is not lost is saved for later. When nothing is saved,
who arrives waits for the step.
"""

from collections.abc import Iterable

from llamad.jobs.request import Priority
from llamad.schedule.generation import Generation

LOST_SHARE = 0.1  # of the time of steps that may be stopped
MOST_SAVED_STEPS = 20  # whose whole time may be lost at once


class Interruptions:
    """The account of one engine. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._began: float | None = None  # of a step that may be stopped
        self._saved = 0.0  # seconds that may be lost

    def begin(self, step: Iterable[Generation], now: float, *, repeatable: bool) -> None:
        """Take note of a step that begins; repeatable: it can be computed again."""
        urgent = any(g.standing.priority is Priority.INTERACTIVE for g in step)
        self._began = now if repeatable and not urgent else None

    def end(self, now: float) -> None:
        """Take note that the step has ended by itself."""
        if self._began is not None:
            seconds = now - self._began
            most = max(self._saved, MOST_SAVED_STEPS * seconds)
            self._saved = min(most, self._saved + LOST_SHARE * seconds)
        self._began = None

    def take(self, arrived: Generation, now: float) -> bool:
        """Return whether the step is stopped for a job that arrives; what it took is then lost."""
        if self._began is None or arrived.standing.priority is not Priority.INTERACTIVE:
            return False
        lost = now - self._began
        if lost > self._saved:
            return False
        self._saved -= lost
        self._began = None
        return True
