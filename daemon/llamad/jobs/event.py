"""What a job tells its client, in order: Queued, PrefillProgress and Delta events, one Finished."""

import enum
from array import array
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol

from llamad.errors import LlamadError


class FinishReason(enum.Enum):
    """Why a completion ended."""

    STOP = "stop"
    STOP_STRING = "stop_string"
    LENGTH = "length"
    CANCELLED = "cancelled"
    LOOP = "loop"
    TOOL_CALLS = "tool_calls"


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits; ``queue_position`` jobs are in front of it. Again when that changes."""

    job_id: str
    queue_position: int
    prompt_tokens: int
    dropped_messages: int = 0  # oldest ones of a chat, for which the context had no room
    substitute_template: str = ""  # of a chat whose model has none: which one was taken
    wait_seconds: float | None = None  # until it starts, estimated; None: not known


@dataclass(frozen=True, slots=True)
class PrefillProgress:
    """Part of the prompt is read."""

    processed_tokens: int
    prompt_tokens: int
    seconds_left: float | None = None  # until the prompt is read, estimated; None: not known


@dataclass(frozen=True, slots=True)
class ToolCallHead:
    """Which call of an answer it is, and of what."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of the completion: whole characters; ``tokens`` is the completion's length so far.

    thinking: it is what the model thinks before it answers, no part of the answer. call: it is a
    call of a tool, and the text its arguments, a JSON object. logprobs: where they were asked for,
    how likely the token was with which the piece comes (token_logprob.py).
    """

    text: str
    tokens: int
    thinking: bool = False
    call: ToolCallHead | None = None
    logprobs: bytes = b""

    @property
    def n_bytes(self) -> int:
        """What it takes while nobody has read it."""
        return len(self.text.encode("utf-8")) + len(self.logprobs)

    def goes_on(self, other: "Delta") -> bool:
        """Whether the other is the same kind of text, so that both may be told as one."""
        alone = self.call or other.call or self.logprobs or other.logprobs
        return self.thinking == other.thinking and not alone


@dataclass(frozen=True, slots=True)
class Timings:
    """Durations in seconds, as defined at ``Timings`` in generation.proto."""

    queue_seconds: float
    prefill_seconds: float
    decode_seconds: float
    time_to_first_token_seconds: float
    time_per_output_token_seconds: float
    load_seconds: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a stream."""

    job_id: str
    model: str
    reason: FinishReason
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    timings: Timings
    seed: int
    stop_string: str = ""
    dropped_messages: int = 0  # as in Queued
    context_full: bool = False  # its length ended it, and that was the context's end
    reasoning_tokens: int = 0  # of completion_tokens, drawn before the thinking ended
    format_incomplete: bool = False  # it ended before the format that was asked for did


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vector of a text, of length 1 where it is not zero."""

    vector: "array[float]"  # (dim) float32
    truncated_tokens: int = 0  # at the end of the text, that were not read


Event = Queued | PrefillProgress | Delta | Embedded | Finished


class EventStream(Protocol):
    """The way of a job's events from the scheduler to whoever reads them."""

    def put(self, event: Event) -> bool:
        """Take an event; return False when too much is unread, the event not taken."""

    def end(self, error: LlamadError | None = None) -> None:
        """Close the scheduler's side; readers get the error behind the events."""

    def __aiter__(self) -> AsyncIterator[Event]: ...

    async def __anext__(self) -> Event:
        """Return the next event for the client that sent the request."""

    async def aclose(self) -> None:
        """Leave, as the client that sent the request."""
