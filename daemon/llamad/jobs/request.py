"""What a client asks for, validated: the frozen values that enter the scheduler.

``rpc/from_proto.py`` checks every field before it builds these values.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from llamad.sampling.parameters import Sampling
from llamad.sampling.response_format import ResponseFormat
from llamad.users import user_name

NEVER = (1 << 63) - 1  # of ``min_tokens``


class Priority(enum.IntEnum):
    """Scheduling class, most urgent first."""

    INTERACTIVE = 1
    NORMAL = 2
    BATCH = 3


class Pooling(enum.Enum):
    """Which tokens' rows an embedding is the mean of; the numbers are GGUF's pooling_type."""

    MEAN = 1  # all
    FIRST = 2  # BERT's [CLS]
    LAST = 3


@dataclass(frozen=True, slots=True)
class Embedding:
    """A text is read, for a vector, and nothing is drawn."""

    pooling: Pooling | None = None  # None: as the model says
    truncates: bool = False  # a text that is too long; else it is refused
    query: str | None = None  # that it is ranked for: its vector has the scores of a reranker


@dataclass(frozen=True, slots=True)
class Scoring:
    """What follows a prompt is given, a text or its tokens, and only told how likely it is."""

    text: str = ""
    tokens: tuple[int, ...] = ()
    parse_special: bool = False  # control tokens in the text


class ContextFull(enum.Enum):
    """What becomes of a conversation that is longer than the context."""

    REFUSE = "refuse"
    DROP_OLDEST = "drop-oldest"


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool. arguments: a JSON object as text. id: may be empty."""

    name: str
    arguments: str
    id: str = ""


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a conversation. role: system, user, assistant or tool."""

    role: str
    content: str
    tool_calls: tuple[ToolCall, ...] = ()  # of the assistant
    tool_call_id: str = ""  # of a tool's result
    tool_name: str = ""  # likewise
    thinking: str = ""  # of the assistant


@dataclass(frozen=True, slots=True)
class Tool:
    """What the model may call. parameters: a JSON Schema as text; empty: none.

    strict: it is refused when its arguments cannot be held to all that the schema says.
    """

    name: str
    description: str = ""
    parameters: str = ""
    strict: bool = False


class ToolUse(enum.Enum):
    """Whether an answer calls tools."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class Thinking:
    """Whether, how long and how hard a model thinks before it answers; None: as its template."""

    enabled: bool | None = None
    budget_tokens: int | None = None
    effort: str | None = None  # low, medium or high


@dataclass(frozen=True, slots=True)
class AdapterChoice:
    """An adapter (LoRA) of the loaded model that a request goes through."""

    name: str
    scale: float = 1.0  # of what it adds; finite
    digest: str = ""  # of its file, from submission on: a job goes on with no other


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One request: one of ``prompt``, ``messages`` and ``tokens`` is set."""

    prompt: str | None = None
    messages: tuple[ChatMessage, ...] = ()
    context_full: ContextFull = ContextFull.DROP_OLDEST  # of ``messages``
    template_arguments: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    tools: tuple[Tool, ...] = ()  # with ``messages``
    tool_use: ToolUse = ToolUse.AUTO
    required_tool: str = ""  # with REQUIRED; empty: any
    allowed_tools: tuple[str, ...] = ()  # names of those that may be called; empty: all
    parallel_tool_calls: bool = True  # False: the answer ends behind its first call
    continue_final_message: bool = False
    thinking: Thinking = field(default_factory=Thinking)
    tokens: tuple[int, ...] = ()  # instead of both
    embedding: Embedding | None = None  # of ``prompt``, instead of a completion
    scoring: Scoring | None = None  # of ``prompt`` or ``tokens``, instead of a completion
    parse_special: bool = False  # control tokens in ``prompt``
    model: str = ""  # empty: the loaded one
    adapter: AdapterChoice | None = None
    max_tokens: int | None = None  # None: what is left of the context
    stop: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    min_tokens: int = 0  # before them it does not end by itself; NEVER: not at all
    response_format: ResponseFormat | None = None  # what the answer must look like
    n: int = 1  # answers; a job has one (rpc/answers.py)
    logprobs: int | None = None  # tell how likely tokens are, and of so many likeliest ones
    loop_guard: bool = False  # end a completion that only repeats itself
    # None: normal, or the most urgent class that the owner may use, if that is lower
    priority: Priority | None = None
    deadline_seconds: float | None = None  # from submission to the last token
    time_to_live_seconds: float | None = None  # from submission to the start
    speculation: bool | None = None  # guess tokens from the sequence's n-grams; None: as configured
    resumable_seconds: float = 0.0  # that it goes on when its client is gone
    pin: str = ""  # keep the beginning of the prompt under this name
    for_everybody: bool = False  # what it computes may be used by all owners
    request_id: str = ""
    owner_uid: int | None = None  # the user who asks; None: not known
    on_behalf_of: str = ""  # the user for whom a gateway asks

    @property
    def is_constrained(self) -> bool:
        """Whether not every text may be its answer."""
        return self.offers_tools or self.response_format is not None

    @property
    def offers_tools(self) -> bool:
        """Whether its answer may call tools."""
        return bool(self.tools) and self.tool_use is not ToolUse.NONE

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """Return the tools that its answer may call; the model is told of the others, too."""
        if not self.offers_tools:
            return ()
        names = (self.required_tool,) if self.required_tool else self.allowed_tools
        return tuple(tool for tool in self.tools if not names or tool.name in names)

    @property
    def owner(self) -> str:
        """Return whose job it is: the name that limits, ownership and fair share go by."""
        return owner_name(self.owner_uid, self.on_behalf_of)


def owner_name(uid: int | None, on_behalf_of: str) -> str:
    """Return the user that a gateway named, else the name of the user; empty: not known."""
    return on_behalf_of or ("" if uid is None else user_name(uid))
