"""What is known of one job: its states as a table, its counters and its times. Plain data.

Owns nothing that lives (no event, no timer, no stream: those are job.py's) and decides nothing. So
a record can be kept when its job has ended, and stored.
"""

import enum
import secrets
from dataclasses import dataclass, field

from llamad.errors import LlamadError
from llamad.jobs.event import FinishReason, Timings
from llamad.jobs.request import GenerationRequest, Priority, owner_name


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


_ENDS = frozenset({JobState.CANCELLED, JobState.FAILED})

# A job that gives its KV blocks to others goes back to the queue, with the tokens it has.
TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: _ENDS | {JobState.PREFILL},
    JobState.PREFILL: _ENDS | {JobState.DECODE, JobState.QUEUED, JobState.FINISHED},
    JobState.DECODE: _ENDS | {JobState.FINISHED, JobState.QUEUED},
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
    durable: bool = False
    idempotency_key: str = ""
    submitted_unix: float | None = None  # seconds since 1970; of a durable job
    on_behalf_of: str = ""  # the user that a gateway named
    queue_position: int | None = None  # while it waits: jobs in front of it
    wait_seconds: float | None = None  # until it starts, estimated

    @property
    def owner(self) -> str:
        """Return whose job it is."""
        return owner_name(self.owner_uid, self.on_behalf_of)


@dataclass(slots=True)
class JobRecord:
    """One job. Times are monotonic seconds; None: not reached."""

    request: GenerationRequest
    prompt_tokens: tuple[int, ...]
    model: str
    max_tokens: int  # already at most what the context leaves
    seed: int
    submitted_at: float
    priority: Priority = Priority.NORMAL
    is_chat: bool = False  # the prompt was rendered from messages
    dropped_messages: int = 0
    truncated_tokens: int = 0  # of a text for a vector, that were left out
    pinned_tokens: int = 0  # at the prompt's beginning, that are kept under the name of request.pin
    fills_context: bool = False  # max_tokens is what the context leaves
    durable: bool = False  # on the disk: it is suspended instead of ended when its model goes
    idempotency_key: str = ""
    submitted_unix: float | None = None  # seconds since 1970; of a durable job
    id: str = field(default_factory=lambda: "j" + secrets.token_hex(6))
    state: JobState = JobState.QUEUED
    processed_prompt_tokens: int = 0
    cached_prompt_tokens: int = 0  # of the prompt, computed for others before
    completion_tokens: int = 0
    reasoning_tokens: int = 0  # of the completion, drawn before the thinking ended
    finish_reason: FinishReason | None = None
    stop_string: str = ""
    mirostat_mu: float | None = None  # behind the last token; None: it has not begun, or is off
    format_incomplete: bool = False  # the answer ended before its format did
    error: LlamadError | None = None
    started_at: float | None = None
    first_token_at: float | None = None
    last_token_at: float | None = None
    ended_at: float | None = None
    queue_position: int | None = None  # where it waited when the scheduler last looked
    wait_seconds: float | None = None  # likewise, until it starts

    def move(self, state: JobState) -> None:
        """Go to another state; raise IllegalTransition when the table does not allow it."""
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"job {self.id}: {self.state.value} to {state.value}")
        self.state = state

    def snapshot(self, now: float) -> JobSnapshot:
        """Return the job as it is at ``now``, a monotonic time in seconds."""
        end = now if self.ended_at is None else self.ended_at
        waits = self.state is JobState.QUEUED
        return JobSnapshot(
            id=self.id,
            request_id=self.request.request_id,
            state=self.state,
            priority=self.priority,
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
            durable=self.durable,
            idempotency_key=self.idempotency_key,
            submitted_unix=self.submitted_unix,
            on_behalf_of=self.request.on_behalf_of,
            queue_position=self.queue_position if waits else None,
            wait_seconds=self.wait_seconds if waits else None,
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
