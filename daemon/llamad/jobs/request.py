"""What a client asks for, validated: the frozen values that enter the scheduler.

``rpc/from_proto.py`` checks every field before it builds these values.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from llamad.sampling.parameters import Sampling


class Priority(enum.IntEnum):
    """Scheduling class, most urgent first."""

    INTERACTIVE = 1
    NORMAL = 2
    BATCH = 3


class ContextFull(enum.Enum):
    """What becomes of a conversation that is longer than the context."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop-oldest"


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
    context_full: ContextFull = ContextFull.DROP_OLDEST  # of ``messages``
    template_arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    parse_special: bool = False  # control tokens in ``prompt``
    model: str = ""  # empty: the loaded one
    max_tokens: int | None = None  # None: what is left of the context
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    loop_guard: bool = False  # end a completion that only repeats itself
    priority: Priority = Priority.NORMAL
    deadline_seconds: float | None = None  # from submission
    speculation: bool | None = None  # guess tokens from the sequence's n-grams; None: as configured
    request_id: str = ""
    owner_uid: int | None = None  # the user who asks; None: not known
