"""The one scheduling loop: from accepted requests to finished jobs.

(signatures first; the loop follows)
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.jobs.clock import Clock
from llamad.jobs.event import Timings
from llamad.jobs.job import Job, JobSnapshot
from llamad.jobs.request import GenerationRequest
from llamad.jobs.runtime import ModelRuntime


@dataclass(frozen=True, slots=True)
class Limits:
    """The configured bounds. Jobs, rows, bytes, seconds."""

    queue_capacity: int = 64
    prefill_chunk: int = 128  # prompt rows in a step while other sequences decode
    history: int = 100  # ended jobs that are remembered
    stream_buffer_bytes: int = 1 << 20  # unread text of one client
    deadline_seconds: float = 0.0  # of a request that names none; 0 is none


@dataclass(frozen=True, slots=True)
class Counts:
    """What GetStatus tells about jobs and cache; the last three are totals since the start."""

    queued: int
    running: int
    queue_capacity: int
    sequence_slots: int
    kv_blocks_total: int
    kv_blocks_free: int
    requests_finished: int
    prompt_tokens: int
    generated_tokens: int


class Observer(Protocol):
    """Who wants to know what happened; called on the event loop's thread, must be quick."""

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Take note of a job that finished, failed or was cancelled."""

    def on_model_failed(self, error: LlamadError) -> None:
        """Take note that the model's file was lost: no job can run any more."""


class Scheduler:
    """Accept requests, run them in FIFO order with continuous batching, remember the ended ones."""

    def __init__(
        self,
        model: ModelRuntime,
        worker: EngineWorker,
        limits: Limits,
        *,
        clock: Clock | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Schedule for one loaded model; ``clock`` None is the event loop's."""
        raise NotImplementedError

    @property
    def failure(self) -> LlamadError | None:
        """Why the model is dead (its file was lost); None while it lives."""
        raise NotImplementedError

    async def submit(self, request: GenerationRequest) -> Job:
        """Queue a request; its events come through ``job.stream``, a Queued first.

        The consumer must ``aclose`` the stream when it leaves early. Raises LlamadError:
        QUEUE_FULL, MODEL_NOT_FOUND, PROMPT_TOO_LONG, INVALID_PROMPT, INVALID_SAMPLING_LOGIT_BIAS,
        SHUTTING_DOWN, DEADLINE_EXCEEDED, the template's error, or the failure of the model.
        """
        raise NotImplementedError

    def cancel(self, job_id: str) -> JobSnapshot:
        """Cancel a job; one that has ended is no error. Raises JOB_NOT_FOUND.

        The stream ends with ``Finished(reason=CANCELLED)``.
        """
        raise NotImplementedError

    def get(self, job_id: str) -> JobSnapshot:
        """Return one job, running or remembered. Raises JOB_NOT_FOUND."""
        raise NotImplementedError

    def list(self, include_ended: bool = False) -> list[JobSnapshot]:
        """Return the jobs, newest last."""
        raise NotImplementedError

    def watch(self, job_id: str) -> AsyncIterator[JobSnapshot]:
        """Iterate over the job now and after each change, skipping what the reader missed.

        Ends after the snapshot of the ended job. Raises JOB_NOT_FOUND at once.
        """
        raise NotImplementedError

    def counts(self) -> Counts:
        """Return the numbers of GetStatus."""
        raise NotImplementedError

    async def run(self) -> None:
        """Run steps until cancelled; lives in the daemon's TaskGroup."""
        raise NotImplementedError

    async def drain(self, deadline_seconds: float) -> None:
        """Refuse new and queued jobs, let running ones finish until the deadline, cancel the rest.

        Returns when no job is left. ``run`` must still be running.
        """
        raise NotImplementedError
