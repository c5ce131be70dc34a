"""What a client asks for, validated: the frozen values that enter the scheduler.

Ranges are those of ``llamad.proto``; ``rpc/convert.py`` checks them before it builds these values.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


class Priority(enum.IntEnum):
    """Scheduling class, most urgent first."""

    INTERACTIVE = 1
    NORMAL = 2
    BATCH = 3


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; the defaults are the service's built-in ones."""

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.1
    repeat_last_n: int = 64  # tokens; 0 off, -1 the whole context
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None  # None: drawn at submission and reported at the end
    logit_bias: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation. role: system, user, assistant or tool."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request: either ``prompt`` or ``messages`` is set, never both."""

    prompt: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    parse_special: bool = False  # control tokens in ``prompt``
    model: str = ""  # empty: the loaded one
    max_tokens: int | None = None  # None: what is left of the context
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    priority: Priority = Priority.NORMAL
    deadline_seconds: float | None = None  # from submission
    speculation: bool | None = None  # guess tokens from the sequence's n-grams; None: as configured
    request_id: str = ""
    owner_uid: int | None = None  # the user who asks; None: not known
