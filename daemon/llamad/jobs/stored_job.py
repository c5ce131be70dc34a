"""A durable job as it lies on the disk: what was asked, how far it came, how it ended. Plain data.

A sequence is its tokens, its seed and the number of its draws, and each completion token is one
draw. So prompt, seed and completion are all that a job needs to go on, and with mirostat one number
that it learned. Its text is kept beside them, because it is also read while another model is
loaded.
"""

import base64
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace

from llamad.errors import ErrorKind, LlamadError
from llamad.jobs.event import Delta, Finished, ToolCallHead
from llamad.jobs.record import JobRecord, JobSnapshot
from llamad.jobs.request import GenerationRequest, Priority
from llamad.jobs.token_logprob import unpack_logprobs


@dataclass(frozen=True, slots=True)
class StoredJob:
    """What does not change of a job. ``prompt_tokens`` has a column of its own."""

    id: str
    owner: str  # with the key it names the job
    idempotency_key: str  # empty: none
    request_digest: str  # of what was asked under that key
    submitted_unix: float  # seconds since 1970
    model: str
    model_digest: str
    request: GenerationRequest  # without its text: that is prompt_tokens
    max_tokens: int
    fills_context: bool
    seed: int
    priority: Priority
    is_chat: bool
    dropped_messages: int
    prompt_tokens: tuple[int, ...] = ()

    @staticmethod
    def of(record: JobRecord, model_digest: str, request_digest: str) -> "StoredJob":
        """Return what is stored of a new durable job."""
        assert record.submitted_unix is not None
        return StoredJob(
            id=record.id,
            owner=record.request.owner,
            idempotency_key=record.idempotency_key,
            request_digest=request_digest,
            submitted_unix=record.submitted_unix,
            model=record.model,
            model_digest=model_digest,
            request=record.request,
            max_tokens=record.max_tokens,
            fills_context=record.fills_context,
            seed=record.seed,
            priority=record.priority,
            is_chat=record.is_chat,
            dropped_messages=record.dropped_messages,
            prompt_tokens=record.prompt_tokens,
        )


@dataclass(frozen=True, slots=True)
class Progress:
    """What was added to a job since it was last stored."""

    id: str
    tokens: tuple[int, ...]
    deltas: tuple[Delta, ...]
    reasoning_tokens: int  # of the whole completion
    mirostat_mu: float | None = None  # behind the last token


@dataclass(frozen=True, slots=True)
class Living:
    """A stored job that has not ended, with its whole completion so far."""

    job: StoredJob
    tokens: tuple[int, ...]
    deltas: tuple[Delta, ...]
    reasoning_tokens: int
    mirostat_mu: float | None = None
    starts: int | None = None  # without a stored token since; None: it was not computed at the end

    def record(self, now: float, now_unix: float) -> JobRecord:
        """Return the job as it goes on; ``now`` is monotonic, ``now_unix`` the same since 1970."""
        stored, request = self.job, self.job.request
        if self.tokens:  # it has started in its time
            request = replace(request, time_to_live_seconds=None)
        return JobRecord(
            request,
            stored.prompt_tokens,
            model=stored.model,
            max_tokens=stored.max_tokens,
            seed=stored.seed,
            priority=stored.priority,
            submitted_at=now - max(0.0, now_unix - stored.submitted_unix),
            is_chat=stored.is_chat,
            dropped_messages=stored.dropped_messages,
            fills_context=stored.fills_context,
            durable=True,
            idempotency_key=stored.idempotency_key,
            submitted_unix=stored.submitted_unix,
            id=stored.id,
            completion_tokens=len(self.tokens),
            reasoning_tokens=self.reasoning_tokens,
            mirostat_mu=self.mirostat_mu,
        )


@dataclass(frozen=True, slots=True)
class StoredError:
    """An error that ended a job."""

    kind: ErrorKind
    reason: str
    message: str

    @staticmethod
    def of(error: LlamadError) -> "StoredError":
        """Return what is stored of an error."""
        return StoredError(error.kind, error.reason, error.message)

    def error(self) -> LlamadError:
        """Return the error as it was."""
        return LlamadError(self.kind, self.reason, self.message)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    snapshot: JobSnapshot  # its monotonic times mean nothing after a restart
    finished: Finished | None
    error: StoredError | None


@dataclass(frozen=True, slots=True)
class Ended:
    """A job that has ended, with all of its text."""

    id: str
    ended_unix: float
    outcome: Outcome
    deltas: tuple[Delta, ...]


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """Return tokens as 32-bit little-endian integers."""
    return struct.pack(f"<{len(tokens)}i", *tokens)


def unpack_tokens(data: bytes) -> tuple[int, ...]:
    """Return the tokens of ``pack_tokens``. Raises ValueError."""
    if len(data) % 4:
        raise ValueError(f"{len(data)} bytes are no tokens of 4 bytes")
    return struct.unpack(f"<{len(data) // 4}i", data)


def plain_deltas(deltas: Sequence[Delta]) -> list[list[object]]:
    """Return pieces of text as short rows: tokens, text, and what else there is.

    That is 1 behind a thought, the head of a call, or probabilities in base64.
    """
    return [[d.tokens, d.text, *_kind(d)] for d in deltas]


def _kind(delta: Delta) -> list[object]:
    if delta.call is not None:
        return [delta.call.index, delta.call.id, delta.call.name]
    if delta.logprobs:
        return [base64.b64encode(delta.logprobs).decode()]
    return [1] if delta.thinking else []


def read_deltas(plain: object) -> tuple[Delta, ...]:
    """Return the pieces of ``plain_deltas``. Raises ValueError."""
    if not isinstance(plain, list):
        raise ValueError("the text is no list")
    deltas = []
    for row in plain:
        match row:
            case [int(tokens), str(text), *more] if more in ([], [1]):
                deltas.append(Delta(text, tokens, bool(more)))
            case [int(tokens), str(text), str(packed)]:
                logprobs = base64.b64decode(packed, validate=True)
                unpack_logprobs(logprobs)
                deltas.append(Delta(text, tokens, logprobs=logprobs))
            case [int(tokens), str(text), int(index), str(call_id), str(name)]:
                head = ToolCallHead(index, call_id, name)
                deltas.append(Delta(text, tokens, call=head))
            case _:
                raise ValueError(f"{row!r:.60} is no piece of text")
    return tuple(deltas)
