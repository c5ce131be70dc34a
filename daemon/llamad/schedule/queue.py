"""The bounded line of jobs that wait for a sequence: first in, first out.

Owns order and capacity, nothing else: no job is started or told anything here. A place is taken
before a prompt is tokenized, so that a flood of requests is refused before it costs work. Priority
classes are carried by the requests but do not change the order.
"""

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.record import Job


class JobQueue:
    """At most ``capacity`` jobs, counting the places reserved for prompts still being tokenized."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._jobs: dict[str, Job] = {}  # insertion-ordered: the line
        self._reserved = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def reserve(self, retry_after_seconds: float) -> None:
        """Take a place for a job to come; raise QUEUE_FULL with the hint when there is none."""
        if len(self._jobs) + self._reserved >= self.capacity:
            raise LlamadError(
                ErrorKind.EXHAUSTED,
                "QUEUE_FULL",
                f"queue is full: {self.capacity} jobs wait already",
                retry_after_seconds=retry_after_seconds,
            )
        self._reserved += 1

    def release(self) -> None:
        """Give a reserved place back."""
        self._reserved -= 1

    def append(self, job: Job) -> int:
        """Put a job at the end, in a place reserved before; return how many are in front of it."""
        self._jobs[job.id] = job
        return len(self._jobs) - 1

    def head(self) -> Job | None:
        """Return the job whose turn is next, without taking it."""
        return next(iter(self._jobs.values()), None)

    def remove(self, job_id: str) -> Job | None:
        """Take a job out of the line, wherever it stands; None when it is not in it."""
        return self._jobs.pop(job_id, None)

    def jobs(self) -> list[Job]:
        """Return the waiting jobs, the next one first."""
        return list(self._jobs.values())
