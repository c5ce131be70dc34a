"""Attached requests whose client may come back: they go on for a while without it.

Owns their transcripts and the time each still has. Nothing of them is stored; a restart ends them.
Everything on the event loop's thread.
"""

from dataclasses import dataclass

from llamad.clock import Clock, LoopClock, Timer
from llamad.jobs.book import JobBook
from llamad.jobs.job import Job
from llamad.jobs.request import GenerationRequest
from llamad.jobs.transcript import Reader, Transcript
from llamad.schedule.loop import Scheduler

MOST_ENDED = 64  # that wait for their client; the oldest give way


@dataclass(slots=True, eq=False)
class _Entry:
    job: Job
    transcript: Transcript
    seconds: float  # that it goes on without a reader
    timer: Timer | None = None


class ResumableJobs:
    """The resumable jobs of one service."""

    def __init__(self, book: JobBook, clock: Clock | None = None) -> None:
        self._book = book
        self._clock = LoopClock() if clock is None else clock
        self._entries: dict[str, _Entry] = {}

    async def submit(self, scheduler: Scheduler, request: GenerationRequest, seconds: float) -> Job:
        """Queue a request that goes on for so many seconds when nobody reads it any more."""
        transcript = Transcript()
        entry = _Entry(await scheduler.submit(request, transcript), transcript, seconds)
        self._entries[entry.job.id] = entry
        transcript.on_left = lambda: self._wait(entry)
        return entry.job

    def read(self, job_id: str, from_token: int, *, wait: bool) -> Reader | None:
        """Return a reader of a job's events; None when it is not, or no longer, resumable."""
        entry = self._entries.get(job_id)
        if entry is None:
            return None
        if entry.timer is not None:
            entry.timer.cancel()
            entry.timer = None
        return entry.transcript.read(from_token, wait=wait)

    def _wait(self, entry: _Entry) -> None:
        """Begin the time in which the client may come back."""
        when = self._clock.now() + entry.seconds
        entry.timer = self._clock.call_at(when, lambda: self._give_up(entry))
        ended = [e for e in self._entries.values() if e.timer is not None and e.job.ended]
        for oldest in ended[:-MOST_ENDED]:
            self._give_up(oldest)

    def _give_up(self, entry: _Entry) -> None:
        """Forget a job that nobody came back to; it is cancelled when it still runs."""
        if entry.timer is not None:
            entry.timer.cancel()
        self._entries.pop(entry.job.id, None)
        self._book.abandon(entry.job)
