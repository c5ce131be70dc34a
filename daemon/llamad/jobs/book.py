"""The book of jobs: all that live, the last that ended, and totals since the service started.

Owns the ending of a job, wherever it stands: its stream closes, its deadline is forgotten, one log
line is written, and whoever schedules it is told. It outlives the models, so that ids stay known
while another one is loaded. It keeps records of ended jobs only as snapshots, so that a prompt is
forgotten with its job.
"""

import dataclasses
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from llamad.clock import Clock, LoopClock
from llamad.errors import ErrorKind, LlamadError, log_level
from llamad.jobs.event import Finished, FinishReason, Timings
from llamad.jobs.job import Job
from llamad.jobs.record import JobRecord, JobSnapshot, JobState
from llamad.jobs.request import Priority
from llamad.logs import fields
from llamad.users import user_name

logger = logging.getLogger(__name__)

RECENT_WEIGHT = 0.2  # of the newest job in the mean duration


@dataclass(slots=True)
class Totals:
    """What all jobs have come to since the service started."""

    finished: int = 0  # jobs that came to their natural end
    prompt_tokens: int = 0
    generated_tokens: int = 0


class Observer(Protocol):
    """Who wants to know of ended jobs; called on the event loop's thread, must be quick."""

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Take note of a job that finished, failed or was cancelled."""


class JobBook:
    """Every job by its id; the ended ones only as long as ``history`` reaches."""

    def __init__(
        self,
        history: int = 100,
        *,
        clock: Clock | None = None,
        observers: Iterable[Observer] = (),
    ) -> None:
        """Remember the last ``history`` ended jobs; ``clock`` None is the event loop's."""
        self.totals = Totals()
        self.mean_run_seconds = 0.0  # first prefill step to the end; recent jobs weigh more
        self.observers = list(observers)
        self._history = history
        self._clock = LoopClock() if clock is None else clock
        self._living: dict[str, Job] = {}  # oldest first
        self._ended: OrderedDict[str, JobSnapshot] = OrderedDict()  # oldest first

    def add(self, job: Job) -> None:
        """Enter a job that has been accepted."""
        self._living[job.id] = job

    # ---- ending -----------------------------------------------------------------------------

    def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job; one that has ended is no error. Raises JOB_NOT_FOUND.

        The stream ends with ``Finished(reason=CANCELLED)``.
        """
        job = self._living.get(job_id)
        if job is None:
            return self.get(job_id)
        self.abandon(job)
        return job.record.snapshot(self._clock.now())

    def abandon(self, job: Job) -> None:
        """Cancel a job that nobody waits for any more."""
        self.end(job, JobState.CANCELLED, reason=FinishReason.CANCELLED)

    def refuse(self, jobs: Iterable[Job], refusal: Callable[[], LlamadError]) -> None:
        """End jobs that will not be computed, each with an error; a durable one is suspended."""
        for job in list(jobs):
            if job.record.durable:
                job.suspend()
                continue
            self.end(job, JobState.CANCELLED, error=refusal())

    def end(
        self,
        job: Job,
        state: JobState,
        *,
        reason: FinishReason | None = None,
        error: LlamadError | None = None,
    ) -> None:
        """End a job now, with a Finished event or an error; one that has ended stays as it is."""
        if job.state.ended:
            return
        record, now = job.record, self._clock.now()
        record.ended_at = now
        record.finish_reason = reason
        record.error = error
        job.move(state)
        timings = record.timings(now, job.load_seconds)
        if reason is not None:
            job.stream.put(_finished(record, reason, timings))
        job.stream.end(error)
        if job.deadline is not None:
            job.deadline.cancel()
        if job.time_to_live is not None:
            job.time_to_live.cancel()
        del self._living[job.id]
        self._remember(record.snapshot(now), timings, _level(record))
        job.on_end(job)

    def _remember(self, snapshot: JobSnapshot, timings: Timings, level: int) -> None:
        self._ended[snapshot.id] = snapshot
        while len(self._ended) > self._history:
            self._ended.popitem(last=False)
        if snapshot.state is JobState.FINISHED:
            self.totals.finished += 1
        if snapshot.running_seconds > 0:
            weight = RECENT_WEIGHT if self.mean_run_seconds else 1.0
            self.mean_run_seconds += weight * (snapshot.running_seconds - self.mean_run_seconds)
        if logger.isEnabledFor(level):
            _log(snapshot, timings, level)
        for observer in self.observers:
            observer.on_ended(snapshot, timings)

    # ---- asking -----------------------------------------------------------------------------

    def get(self, job_id: str) -> JobSnapshot:
        """Return one job, living or remembered. Raises JOB_NOT_FOUND."""
        now = self._clock.now()
        job = self._living.get(job_id)
        if job is not None:
            return job.record.snapshot(now)
        ended = self._ended.get(job_id)
        if ended is None:
            raise LlamadError(ErrorKind.NOT_FOUND, "JOB_NOT_FOUND", f"no job {job_id!r}")
        return dataclasses.replace(ended, age_seconds=now - ended.submitted_at)

    def list(self, include_ended: bool = False) -> list[JobSnapshot]:
        """Return the jobs, newest last."""
        ids = [*self._ended, *self._living] if include_ended else self._living
        return sorted((self.get(job_id) for job_id in ids), key=lambda job: job.submitted_at)

    def watch(self, job_id: str) -> AsyncIterator[JobSnapshot]:
        """Iterate over the job now and after each change, skipping what the reader missed.

        Ends after the snapshot of the ended job. Raises JOB_NOT_FOUND at once.
        """
        return self._changes(self._living.get(job_id), self.get(job_id))

    async def _changes(self, job: Job | None, ended: JobSnapshot) -> AsyncIterator[JobSnapshot]:
        if job is None:
            yield ended
            return
        while True:
            changed = job.changed
            snapshot = job.record.snapshot(self._clock.now())
            yield snapshot
            if snapshot.state.ended:
                return
            await changed.wait()


def _finished(record: JobRecord, reason: FinishReason, timings: Timings) -> Finished:
    return Finished(
        job_id=record.id,
        model=record.model,
        reason=reason,
        prompt_tokens=len(record.prompt_tokens),
        completion_tokens=record.completion_tokens,
        cached_prompt_tokens=record.cached_prompt_tokens,
        timings=timings,
        seed=record.seed,
        stop_string=record.stop_string,
        dropped_messages=record.dropped_messages,
        context_full=reason is FinishReason.LENGTH and record.fills_context,
        reasoning_tokens=record.reasoning_tokens,
        format_incomplete=record.format_incomplete,
    )


def _level(record: JobRecord) -> int:
    """Return the level of a job's line. Whatever ended it, it was accepted: INFO at least.

    But a call for vectors is a job for each text, hundreds: who serves it writes one line for all.
    """
    if record.request.embedding is not None and record.state is JobState.FINISHED:
        return logging.DEBUG
    return logging.INFO if record.error is None else max(logging.INFO, log_level(record.error))


def _log(job: JobSnapshot, timings: Timings, level: int) -> None:
    """Write the one line of a request."""
    decode_seconds = timings.decode_seconds
    logger.log(
        level,
        fields(
            f"request {job.state.value}",
            job=job.id,
            request=job.request_id or None,
            user=None if job.owner_uid is None else user_name(job.owner_uid),
            on_behalf_of=job.on_behalf_of or None,
            priority=None if job.priority is Priority.NORMAL else job.priority.name.lower(),
            reason=job.error_reason if job.finish_reason is None else job.finish_reason.value,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=job.completion_tokens,
            queue_seconds=timings.queue_seconds,
            prefill_seconds=timings.prefill_seconds,
            ttft_seconds=timings.time_to_first_token_seconds,
            tokens_per_second=(
                (job.completion_tokens - 1) / decode_seconds if decode_seconds > 0 else None
            ),
            error=job.error or None,
        ),
    )
