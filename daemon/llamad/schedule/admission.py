"""Which requests may become jobs: the bound of the queue, and what one owner may have of it.

Owns the refusals, which name the owner, the limit and where it stands. A queue that one owner could
fill would be closed to the others, so a quarter of it is never one owner's. Whose turn it is among
those that were accepted is policy.py's.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.request import GenerationRequest, Priority
from llamad.schedule.encoder import Line
from llamad.schedule.places import Places

LEFT_TO_OTHERS = 4  # one of so many places in the queue


@dataclass(frozen=True, slots=True)
class OwnerLimits:
    """What one owner may have."""

    jobs: int = 0  # that wait or run; 0: as many as there is room for
    most_urgent: Priority = Priority.INTERACTIVE
    section: str = "[queue]"  # of the configuration, that says so

    def priority(self, request: GenerationRequest) -> Priority:
        """Return the class of a request. Raises PRIORITY_NOT_ALLOWED."""
        if request.priority is None:
            return max(Priority.NORMAL, self.most_urgent)
        if request.priority < self.most_urgent:
            cap = self.most_urgent.name.lower()
            raise LlamadError(
                ErrorKind.PERMISSION,
                "PRIORITY_NOT_ALLOWED",
                f"priority: {_who(request.owner)} may not ask for"
                f" {request.priority.name.lower()}: the most urgent class allowed is {cap}"
                f" (most_urgent in {self.section})",
            )
        return request.priority


class Admission:
    """Counts what waits and runs, those whose prompt is being encoded included."""

    def __init__(self, places: Places, prompts: Line) -> None:
        """``prompts``: the encodings of requests that are no jobs yet."""
        self._places = places
        self._prompts = prompts
        self._encoding: Counter[str] = Counter()  # by owner; only those who have some

    def check(
        self, owner: str, capacity: int, limits: OwnerLimits, retry_after_seconds: float
    ) -> None:
        """Refuse a request for which there is no room. Raises QUEUE_FULL or OWNER_QUEUE_FULL.

        owner: empty where it is not known; then the queue's own bound is the only one.
        """
        queued = [generation.standing.owner for generation in self._places.queued]
        if len(queued) + self._prompts.pending >= capacity:
            raise queue_full(f"{capacity} jobs wait already", retry_after_seconds)
        if not owner:
            return
        n_waiting = queued.count(owner) + self._encoding[owner]
        n_running = sum(
            generation.standing.owner == owner and not generation.job.ended
            for generation in self._places.running
        )
        if limits.jobs and n_waiting + n_running >= limits.jobs:
            raise _owner_full(
                f"{_who(owner)} has {n_waiting + n_running} jobs already: at most {limits.jobs} are"
                f" allowed (in {limits.section})",
                retry_after_seconds,
            )
        if n_waiting >= capacity - capacity // LEFT_TO_OTHERS:
            raise _owner_full(
                f"{_who(owner)} has {n_waiting} jobs waiting already: the rest of the queue's"
                f" {capacity} places is for others",
                retry_after_seconds,
            )

    @contextlib.contextmanager
    def encoding(self, owner: str) -> Iterator[None]:
        """Count a request while its prompt is encoded."""
        self._encoding[owner] += 1
        try:
            yield
        finally:
            self._encoding[owner] -= 1
            if not self._encoding[owner]:
                del self._encoding[owner]


def queue_full(why: str, retry_after_seconds: float) -> LlamadError:
    """Return the error for what the whole queue has no room for."""
    return LlamadError(
        ErrorKind.EXHAUSTED,
        "QUEUE_FULL",
        f"queue is full: {why}",
        retry_after_seconds=retry_after_seconds,
    )


def _owner_full(why: str, retry_after_seconds: float) -> LlamadError:
    return LlamadError(
        ErrorKind.EXHAUSTED, "OWNER_QUEUE_FULL", why, retry_after_seconds=retry_after_seconds
    )


def _who(owner: str) -> str:
    return f"user {owner}" if owner else "this user"
