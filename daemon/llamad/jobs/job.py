"""A job that lives: its record, the events its client reads, and those who watch it.

Owns the joints between a job and the outside. Who ends it is book.py's; what is computed for it is
schedule/'s. Everything runs on the event loop's thread.
"""

import asyncio
from collections.abc import Callable

from llamad.clock import Timer
from llamad.jobs.event import EventStream
from llamad.jobs.record import JobRecord, JobState
from llamad.jobs.subscription import Subscription


class Job:
    """One request on its way through the service."""

    def __init__(
        self,
        record: JobRecord,
        *,
        load_seconds: float,
        max_unread_bytes: int,
        on_abandon: Callable[["Job"], None],
        on_end: Callable[["Job"], None],
        stream: EventStream | None = None,
    ) -> None:
        """Begin a job; ``load_seconds`` is of its model.

        ``on_abandon`` hears that the client left its stream; ``on_end``, once, that the job ended.
        ``stream``: instead of a subscription, which one client reads.
        """
        self.record = record
        self.load_seconds = load_seconds
        self.stream: EventStream = stream or Subscription(
            max_bytes=max_unread_bytes, on_abandon=lambda: on_abandon(self)
        )
        self.on_end = on_end
        self.tokens: list[int] = []  # prompt and completion so far, once it was scheduled
        self.suspended = False  # no scheduler has it: it waits for its model
        self.on_start: Callable[[], None] = _nothing  # it has a place, its next step may come
        self.on_suspend: Callable[[], None] = _nothing
        self.start_pending = False  # until ``on_start`` is heard no step computes it
        self.deadline: Timer | None = None
        self.time_to_live: Timer | None = None  # of its wait for the start
        self._changed = asyncio.Event()

    @property
    def id(self) -> str:
        """The job's id."""
        return self.record.id

    @property
    def state(self) -> JobState:
        """Where the job is in its life."""
        return self.record.state

    @property
    def ended(self) -> bool:
        """Whether its scheduler is done with it: it ended, or was suspended."""
        return self.suspended or self.record.state.ended

    @property
    def changed(self) -> asyncio.Event:
        """The event that the next change of this job will set."""
        return self._changed

    def move(self, state: JobState) -> None:
        """Go to another state; raise IllegalTransition when the table does not allow it."""
        self.record.move(state)
        self.touch()

    def suspend(self) -> None:
        """Take a job from its scheduler, with the tokens it has; another goes on with it later."""
        if self.ended:
            return
        if self.state is not JobState.QUEUED:
            self.move(JobState.QUEUED)
        self.suspended = True
        self.on_end(self)
        self.on_end = _nobody
        self.on_suspend()

    def resume(self, on_end: Callable[["Job"], None], load_seconds: float) -> None:
        """Give a suspended job to a scheduler; ``load_seconds`` is of its model."""
        self.suspended = False
        self.on_end = on_end
        self.load_seconds = load_seconds

    def touch(self) -> None:
        """Wake everyone who watches this job."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _nothing() -> None:
    """Take note of nothing."""


def _nobody(job: Job) -> None:
    """Hear of the end of a job that no scheduler has."""
