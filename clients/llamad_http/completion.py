"""What every API's request for text becomes, and what its answer is written from.

Owns the neutral values. ``Options`` are llamad_client's, so whatever the service can do has its
name here already; the model, the class and the owner are filled in by the gateway.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from llamad_client import Event, Result, TokenLogprob
from llamad_client.request import Options
from llamad_http.adapters import LoraScale
from llamad_http.errors import HttpError
from llamad_http.tools import Calls

MAX_TEXTS = 8
"""Texts of one request."""


@dataclass(frozen=True, slots=True)
class CompletionRequest:
    """One text to be written: the answer to ``messages``, or what continues ``prompt``.

    model: as the client named it. prompt: a text or its tokens. parse_special: control tokens in
    the text are such.
    """

    model: str
    options: Options
    messages: Sequence[Mapping[str, Any]] | None = None
    prompt: str | Sequence[int] | None = None
    parse_special: bool = False


@dataclass(slots=True)
class Answer:
    """A whole completion."""

    text: str = ""
    thinking: str = ""
    calls: Calls = field(default_factory=Calls)
    logprobs: list[TokenLogprob] = field(default_factory=list)  # of its tokens, if asked for
    result: Result | None = None

    @property
    def end(self) -> Result:
        """Return how it ended; there is an end by the time an answer is written."""
        assert self.result is not None
        return self.result


@dataclass(frozen=True, slots=True)
class Asked:
    """A request of an API: the texts it wants, whether they stream, and who writes the answer."""

    requests: Sequence[CompletionRequest]
    stream: bool
    writer: "AnswerWriter"
    lora: Sequence[LoraScale] | None = None  # which adapter; None: as the name of the model says


class AnswerWriter(Protocol):
    """How an API writes an answer. Of a stream each method returns bytes to send, maybe none."""

    stream_type: str
    """The content type of a stream."""

    def begin(self, model: str) -> bytes:
        """Return what a stream begins with; ``model`` is the true name of what answers."""

    def event(self, index: int, event: Event) -> bytes:
        """Return what an event of the text number ``index`` becomes."""

    def idle(self) -> bytes:
        """Return what keeps a stream alive where nothing happens."""

    def failure(self, error: HttpError) -> bytes:
        """Return what tells, in a stream that has begun, that it failed."""

    def end(self, answers: Sequence[Answer]) -> bytes:
        """Return what a stream ends with; the answers have no text here."""

    def whole(self, model: str, answers: Sequence[Answer]) -> Any:
        """Return the JSON of the answer that does not stream."""


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model as lists of models have it. modified: seconds since 1970, 0 where it is not known.

    is_adapter: it is an adapter (LoRA), beside the loaded model where it is loaded.
    """

    name: str
    loaded: bool
    file_bytes: int
    is_adapter: bool = False
    modified: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_served_name(self) -> bool:
        """Whether requests may name it: every model, and the adapters of the loaded one."""
        return self.loaded or not self.is_adapter
