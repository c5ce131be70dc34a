"""One job: its states as a table, its counters, its times, and what others may see of it.

Owns the life of a job as data. It decides nothing: the scheduler moves it, and everything here runs
on the event loop's thread.
"""

import asyncio
import enum
import secrets
from dataclasses import dataclass

from llamad.clock import Timer
from llamad.errors import LlamadError
from llamad.jobs.event import FinishReason, Timings
from llamad.jobs.request import GenerationRequest, Priority
from llamad.jobs.subscription import JobStream


class JobState(enum.Enum):
    """Where a job is in its life."""

    QUEUED = "queued"
    PREFILL = "prefill"
    DECODE = "decode"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    FAILED = "failed"

    @property
    def ended(self) -> bool:
        """Whether nothing follows this state."""
        return not TRANSITIONS[self]


TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.PREFILL, JobState.CANCELLED, JobState.FAILED}),
    JobState.PREFILL: frozenset({JobState.DECODE, JobState.CANCELLED, JobState.FAILED}),
    JobState.DECODE: frozenset({JobState.FINISHED, JobState.CANCELLED, JobState.FAILED}),
    JobState.FINISHED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.FAILED: frozenset(),
}


class IllegalTransition(AssertionError):  # noqa: N818 - it names the event, like StopIteration
    """A move the table does not hold: our bug, never a client's."""


@dataclass(frozen=True, slots=True)
class JobSnapshot:
    """A job at one moment, as ``ListJobs`` and ``WatchJob`` tell it. Tokens and seconds."""

    id: str
    request_id: str
    state: JobState
    priority: Priority
    model: str
    prompt_tokens: int
    processed_prompt_tokens: int
    completion_tokens: int
    max_tokens: int
    age_seconds: float
    running_seconds: float
    submitted_at: float  # monotonic
    finish_reason: FinishReason | None = None
    error: str = ""
    error_reason: str = ""
    owner_uid: int | None = None  # None: not known


class Job:
    """A request on its way through the service.

    The rpc layer reads ``id``, ``stream`` and ``snapshot``; everything else is the scheduler's.
    """

    def __init__(
        self,
        request: GenerationRequest,
        prompt_tokens: tuple[int, ...],
        *,
        model: str,
        max_tokens: int,
        seed: int,
        submitted_at: float,
        stream: JobStream,
    ) -> None:
        self.id = "j" + secrets.token_hex(6)
        self.request = request
        self.prompt_tokens = prompt_tokens
        self.model = model
        self.max_tokens = max_tokens  # already clamped to what the context leaves
        self.seed = seed
        self.stream = stream
        self.state = JobState.QUEUED
        self.processed_prompt_tokens = 0
        self.completion_tokens = 0
        self.finish_reason: FinishReason | None = None
        self.error: LlamadError | None = None
        self.stop_string = ""
        self.deadline: Timer | None = None
        self.submitted_at = submitted_at
        self.started_at: float | None = None
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None
        self.ended_at: float | None = None
        self._changed = asyncio.Event()

    @property
    def changed(self) -> asyncio.Event:
        """The event that the next change of this job will set."""
        return self._changed

    def move(self, state: JobState) -> None:
        """Go to another state; raise IllegalTransition when the table does not allow it."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"job {self.id}: {self.state.value} to {state.value}")
        self.state = state
        self.touch()

    def touch(self) -> None:
        """Wake everyone who watches this job."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def snapshot(self, now: float) -> JobSnapshot:
        """Return the job as it is at ``now``, a monotonic time in seconds."""
        end = now if self.ended_at is None else self.ended_at
        return JobSnapshot(
            id=self.id,
            request_id=self.request.request_id,
            state=self.state,
            priority=self.request.priority,
            model=self.model,
            prompt_tokens=len(self.prompt_tokens),
            processed_prompt_tokens=self.processed_prompt_tokens,
            completion_tokens=self.completion_tokens,
            max_tokens=self.max_tokens,
            age_seconds=now - self.submitted_at,
            running_seconds=0.0 if self.started_at is None else end - self.started_at,
            submitted_at=self.submitted_at,
            finish_reason=self.finish_reason,
            error="" if self.error is None else self.error.message,
            error_reason="" if self.error is None else self.error.reason,
            owner_uid=self.request.owner_uid,
        )

    def timings(self, now: float, load_seconds: float) -> Timings:
        """Return the durations up to ``now``; a phase not reached is 0, one cut off ends now."""
        end = now if self.ended_at is None else self.ended_at
        started = end if self.started_at is None else self.started_at
        first = end if self.first_token_at is None else self.first_token_at
        last = first if self.last_token_at is None else self.last_token_at
        decode_seconds = last - first
        return Timings(
            queue_seconds=started - self.submitted_at,
            prefill_seconds=first - started,
            decode_seconds=decode_seconds,
            time_to_first_token_seconds=(
                0.0 if self.first_token_at is None else first - self.submitted_at
            ),
            time_per_output_token_seconds=decode_seconds / max(1, self.completion_tokens - 1),
            load_seconds=load_seconds,
        )
