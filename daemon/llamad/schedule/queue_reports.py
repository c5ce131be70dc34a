"""Telling those who wait where they stand: positions and estimated waits, when they change.

Owns how often. A client near the front hears of every place that it gains, at most once a second;
one far behind hears when a tenth of its way is done.
"""

from collections.abc import Sequence

from llamad.jobs.event import Queued
from llamad.schedule.generation import Generation

INTERVAL_SECONDS = 1.0
POSITION_SHARE = 0.1  # of the way, that is worth telling
WAIT_SHARE = 0.25  # of the wait, that the estimate has changed by beyond the time that passed
LEAST_WAIT_SECONDS = 2.0  # likewise
REFRESH_SECONDS = 5.0  # after which those in front hear again, so that a wait counts down
IN_FRONT = 16


class QueueReports:
    """Keeps the records of waiting jobs up to date, and their clients informed."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[int, float, float]] = {}  # position, wait, when; by job
        self._at = 0.0  # when positions were looked at

    def due(self, now: float) -> bool:
        """Whether it is time to look again."""
        return now - self._at >= INTERVAL_SECONDS

    def tell(self, ordered: Sequence[Generation], waits: Sequence[float], now: float) -> None:
        """Tell the jobs that wait, in their order, what has changed.

        waits: estimated seconds until each starts; empty where nothing is known.
        """
        self._at = now
        before, self._told = self._told, {}
        for position, generation in enumerate(ordered):
            wait = waits[position] if waits else None
            told = before.get(generation.job.id)
            record = generation.job.record
            record.queue_position, record.wait_seconds = position, wait
            if told is None or _has_changed(told, position, wait, now):
                told = position, wait or 0.0, now
                self._tell(generation)
            self._told[generation.job.id] = told

    def first(self, generation: Generation, position: int, wait: float | None, now: float) -> None:
        """Tell a job that has just come where it stands."""
        record = generation.job.record
        record.queue_position, record.wait_seconds = position, wait
        self._told[generation.job.id] = position, wait or 0.0, now
        self._tell(generation)

    def _tell(self, generation: Generation) -> None:
        job, record = generation.job, generation.job.record
        if not record.completion_tokens:  # who reads an answer already sees that it pauses
            job.stream.put(
                Queued(
                    job.id,
                    record.queue_position or 0,
                    len(record.prompt_tokens),
                    record.dropped_messages,
                    generation.substitute_template,
                    record.wait_seconds,
                )
            )
        job.touch()


def _has_changed(
    told: tuple[int, float, float], position: int, wait: float | None, now: float
) -> bool:
    position_before, wait_before, told_at = told
    if position < IN_FRONT and now - told_at >= REFRESH_SECONDS:
        return True
    moved = abs(position - position_before)
    if moved >= max(1.0, POSITION_SHARE * position_before):
        return True
    if wait is None:
        return False
    expected = max(0.0, wait_before - (now - told_at))
    return abs(wait - expected) >= max(LEAST_WAIT_SECONDS, WAIT_SHARE * expected)
