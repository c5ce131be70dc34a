"""The times at which a job fails by itself: its deadline, and the end of its patience in the queue.

Owns the two timers of a job; ``jobs/book.py`` forgets them when the job ends.
"""

from llamad.clock import Clock
from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.book import JobBook
from llamad.jobs.job import Job
from llamad.jobs.record import JobState


class Deadlines:
    """Sets the timers of jobs."""

    def __init__(self, book: JobBook, clock: Clock) -> None:
        self._book = book
        self._clock = clock

    def set(self, job: Job, default_seconds: float) -> None:
        """Let the job fail at its deadline, and when it has not started in its time to live.

        default_seconds: the deadline of a request that names none; 0 is none. Raises
        DEADLINE_EXCEEDED or QUEUE_TIMEOUT when that has passed. A job that goes on with another
        model's scheduler keeps its timers.
        """
        record = job.record
        deadline = time_to_live = 0.0
        if job.deadline is None:
            deadline = record.request.deadline_seconds or default_seconds
        if job.time_to_live is None and record.started_at is None:
            time_to_live = record.request.time_to_live_seconds or 0.0
        waited = self._clock.now() - record.submitted_at
        if 0 < deadline <= waited:
            raise _deadline_exceeded(deadline)
        if 0 < time_to_live <= waited:
            raise _queue_timeout(time_to_live)
        if deadline:
            job.deadline = self._clock.call_at(
                record.submitted_at + deadline,
                lambda: self._fail(job, _deadline_exceeded(deadline)),
            )
        if time_to_live:
            job.time_to_live = self._clock.call_at(
                record.submitted_at + time_to_live,
                lambda: self._fail_waiting(job, _queue_timeout(time_to_live)),
            )

    def _fail_waiting(self, job: Job, error: LlamadError) -> None:
        if job.record.started_at is None:
            self._fail(job, error)

    def _fail(self, job: Job, error: LlamadError) -> None:
        self._book.end(job, JobState.FAILED, error=error)


def _deadline_exceeded(seconds: float) -> LlamadError:
    return LlamadError(
        ErrorKind.DEADLINE, "DEADLINE_EXCEEDED", f"the deadline of {seconds:g} seconds has passed"
    )


def _queue_timeout(seconds: float) -> LlamadError:
    return LlamadError(
        ErrorKind.DEADLINE,
        "QUEUE_TIMEOUT",
        f"the job did not start within the {seconds:g} seconds of its time_to_live_seconds",
    )
