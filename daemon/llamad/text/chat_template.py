"""Chat templates: a conversation as the one text, and the ids, the model was trained on.

Owns what goes in and out of the template: the model's own, else one of ``fallback_templates.py``.
How it is run safely is ``template_process.py``; how a message is kept from containing control
tokens is ``content_guard.py``.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from llamad.errors import ErrorKind, LlamadError, invalid
from llamad.text.channels import CHANNEL
from llamad.text.content_guard import ContentGuard, choose_marker
from llamad.text.fallback_templates import choose_fallback
from llamad.text.sentencepiece import SentencePieceTokenizer
from llamad.text.template_process import (
    BROKEN,
    FAILED,
    MAX_OUTPUT_CHARACTERS,
    TemplateProcess,
    template_error,
)
from llamad.text.tokenizer import Tokenizer, check_unicode
from llamad.text.tools.call import Tool
from llamad.text.tools.conversation import Message, ToolSupport, ask_template, with_tools
from llamad.text.tools.formats import ToolFormat, find_format
from llamad.text.vocabulary import Metadata

ROLES = ("system", "user", "assistant", "tool")

_KEY = "tokenizer.chat_template"
_MAX_SOURCE_CHARACTERS = 1 << 20

_PLAIN = frozenset({"role", "content"})  # what every template reads of a message
# Of Qwen3, SmolLM3, Gemma 4 and most others; of Granite and DeepSeek V3.1.
_THINKING_ARGUMENTS = ("enable_thinking", "thinking")
_EFFORT = "reasoning_effort"  # of gpt-oss
LEAST_EFFORT = "low"
# Of tools, for a chat without them: as transformers says it, and for a template that fails on that,
# because it goes through them in any case, or writes them as text (FireFunction).
_NONE: Mapping[str, Any] = MappingProxyType({"tools": None})
_EMPTY: Mapping[str, Any] = MappingProxyType({"tools": [], "functions": ""})
_PROBE = "thesystemmessage"

NO_ARGUMENTS: Mapping[str, Any] = MappingProxyType({})


class ChatTemplate:
    """The chat template of one model and the process that runs it. Any thread may use it."""

    def __init__(self, source: str, tokenizer: Tokenizer, *, substitute: str = "") -> None:
        """Compile the template. Raises CORRUPT, CHAT_TEMPLATE_INVALID; UNAVAILABLE.

        substitute: its name, when it stands in for one that the model does not have.
        """
        self.source = source
        self.substitute = substitute
        self._tokenizer = tokenizer
        self._guard = ContentGuard(tokenizer.special, source)
        if len(source) > _MAX_SOURCE_CHARACTERS:
            raise template_error(f"has {len(source)} characters, limit {_MAX_SOURCE_CHARACTERS}")
        self._process = TemplateProcess(source)
        self._takes_system: bool | None = None  # known when the first system message comes
        self._without_tools = _NONE  # what stands for them, as far as it is known
        self._tool_support: tuple[ToolSupport, ToolFormat] | None = None  # likewise, first tool

    @classmethod
    def from_metadata(cls, metadata: Metadata, tokenizer: Tokenizer) -> "ChatTemplate":
        """Return the template of the metadata, else one that fits vocabulary and architecture.

        Raises LlamadError CORRUPT, CHAT_TEMPLATE_INVALID.
        """
        source = metadata.get(_KEY)
        if source is None:
            row = choose_fallback(
                tokenizer.special.control_texts,
                str(metadata.get("general.architecture", "")),
                is_sentencepiece=isinstance(tokenizer, SentencePieceTokenizer),
            )
            return cls(row.source, tokenizer, substitute=row.name)
        if not isinstance(source, str):
            raise template_error(f"is {type(source).__name__}, must be a string")
        return cls(source, tokenizer)

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        tools: Sequence[Tool] = (),
        continue_final: bool = False,
    ) -> str:
        """Return the conversation as text.

        messages: each with ``role`` (one of ROLES) and ``content``; also, where they have them,
        ``thinking``, ``tool_calls`` (each a ``name``, ``arguments`` and maybe an ``id``), and of a
        tool's result ``tool_call_id`` and ``tool_name``. add_generation_prompt: end with
        the beginning of the assistant's answer; arguments: more variables of the template, as
        ``llamad.template_arguments`` allows them; continue_final: end within the last message,
        which the assistant is to go on with. Where the template refuses or ignores a system
        message, its text stands in front of the first user message; what it does not know of tools
        is written as text (tools/conversation.py). Raises LlamadError INVALID for
        messages that are malformed or that the template refuses, fails on or takes too long for;
        UNAVAILABLE when it cannot be run.
        """
        check_messages(messages)
        declared = [tool.declaration() for tool in tools]
        prompt = _Prompt(messages, declared, add_generation_prompt, arguments, continue_final)
        return self._text(prompt)

    def encode(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        tools: Sequence[Tool] = (),
        continue_final: bool = False,
    ) -> list[int]:
        """Return the ids of the conversation: markers from the template only, BOS once.

        Arguments and errors are those of ``render``.
        """
        check_messages(messages)
        declared = [tool.declaration() for tool in tools]
        texts = texts_in([messages, declared, arguments])
        marker = choose_marker([self.source, *texts])
        guarded = [
            {
                key: value if key == "role" else self._guarded(value, marker)
                for key, value in m.items()
            }
            for m in messages
        ]
        prompt = _Prompt(
            guarded,
            self._guarded(declared, marker),
            add_generation_prompt,
            self._guarded(arguments, marker),
            continue_final,
        )
        return self._tokenizer.encode_rendered(self._guard.split(self._text(prompt), marker))

    def thinking_arguments(
        self, enabled: bool | None, effort: str | None = None
    ) -> dict[str, bool | str]:
        """Return the arguments by which the template is told of thinking; none: it is not.

        enabled: whether to think, None: nothing is said. effort: how hard.
        """
        result: dict[str, bool | str] = {}
        if enabled is not None:
            result = {name: enabled for name in _THINKING_ARGUMENTS if self._names(name)}
        if enabled is False and CHANNEL in self.source:  # gpt-oss knows no other way
            effort = LEAST_EFFORT
        return {**result, _EFFORT: effort} if effort and self._names(_EFFORT) else result

    def _names(self, variable: str) -> bool:
        return re.search(rf"\b{variable}\b", self.source) is not None

    @property
    def tool_format(self) -> ToolFormat:
        """How the model calls tools: its own way, where its template tells it of them."""
        try:
            return self._tools()[1]
        except LlamadError:  # no process for it: what its marks promise
            return find_format(self.source, self._tokenizer.vocabulary.tokens)

    def _tools(self) -> tuple[ToolSupport, ToolFormat]:
        """Return what the template knows of tools; one that cannot be run is asked again."""
        if self._tool_support is None:
            self._tool_support = ask_template(
                lambda messages, tools: self._run(messages, True, tools=tools),
                find_format(self.source, self._tokenizer.vocabulary.tokens),
            )
        return self._tool_support

    def _text(self, prompt: "_Prompt") -> str:
        """Return what the template makes of a conversation, and we of what it does not know."""
        messages, tools, end = prompt.messages, None, ""
        if prompt.continue_final:
            end = choose_marker(texts_in([self.source, *prompt.everything]))
            messages = _ending_with(end, messages)
        if prompt.tools or any(m["role"] == "tool" or m.keys() - _PLAIN for m in messages):
            messages, tools = with_tools(messages, prompt.tools, *self._tools())
        messages = self._accepted(messages)
        wants_answer = prompt.add_generation_prompt and not end
        text = self._run(messages, wants_answer, prompt.arguments, tools)
        if not end:
            return text
        if end in text:
            return text[: text.index(end)]
        begun: str = messages[-1]["content"].removesuffix(end)
        return self._run(messages[:-1], True, prompt.arguments, tools) + begun

    def _guarded(self, value: Any, marker: str) -> Any:
        """Return a value of JSON's types with each text in it guarded as a message's is."""
        if isinstance(value, str):
            return self._guard.guard(value, marker)
        if isinstance(value, Mapping):
            return {
                self._guard.guard(key, marker): self._guarded(inner, marker)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple):
            return [self._guarded(inner, marker) for inner in value]
        return value

    def close(self) -> None:
        """End the template's process."""
        self._process.close()

    def _accepted(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Return the messages as the template takes them: with a system message, or without."""
        if messages[0]["role"] != "system" or self._accepts_system():
            return messages
        return without_system(messages)

    def _accepts_system(self) -> bool:
        """Whether a system message gets into the text; a template that fails is asked again."""
        if self._takes_system is None:
            trial = [{"role": "system", "content": _PROBE}, {"role": "user", "content": "x"}]
            try:
                self._takes_system = _PROBE in self._run(trial, add_generation_prompt=True)
            except LlamadError as error:
                if error.kind is ErrorKind.UNAVAILABLE:
                    raise
                if error.reason != BROKEN:
                    self._takes_system = False
                return False
        return self._takes_system

    def _run(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool,
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        variables = {
            **arguments,
            "messages": [dict(message) for message in messages],
            "add_generation_prompt": add_generation_prompt,
            "bos_token": self._token_text(self._tokenizer.bos_id),
            "eos_token": self._token_text(self._tokenizer.eos_id),
        }
        if tools is not None:
            return self._process.render({**variables, "tools": tools})
        try:
            return self._process.render({**self._without_tools, **variables})
        except LlamadError as error:
            if error.reason != FAILED or self._without_tools is _EMPTY:
                raise
        text = self._process.render({**_EMPTY, **variables})
        self._without_tools = _EMPTY
        return text

    def _token_text(self, token: int | None) -> str:
        return "" if token is None else self._tokenizer.vocabulary.tokens[token]


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What a text is made of. tools: their declarations."""

    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool
    arguments: Mapping[str, Any]
    continue_final: bool

    @property
    def everything(self) -> list[Any]:
        """All that texts may be in."""
        return [self.messages, self.tools, self.arguments]


def _ending_with(end: str, messages: Sequence[Message]) -> list[Message]:
    """Return the messages with a mark behind the last one's text, which an answer goes on with."""
    last = messages[-1]
    if last["role"] != "assistant" or not last["content"] or last.get("tool_calls"):
        raise invalid(
            "continue_final_message", "needs a last message of the assistant that is text"
        )
    return [*messages[:-1], {**last, "content": last["content"] + end}]


def texts_in(value: Any) -> Iterator[str]:
    """Yield every text in a value of JSON's types."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from texts_in(inner)


def without_system(messages: Sequence[Message]) -> list[Message]:
    """Return a chat with the text of its leading system messages in front of its first user's.

    Two line ends between them, as in Gemma's template. Without a user message it becomes one.
    """
    n_system = next((i for i, m in enumerate(messages) if m["role"] != "system"), len(messages))
    text = "\n\n".join(message["content"] for message in messages[:n_system])
    result = list(messages[n_system:])
    for i, message in enumerate(result):
        if message["role"] == "user":
            result[i] = {**message, "content": f"{text}\n\n{message['content']}"}
            return result
    return [{"role": "user", "content": text}, *result]


def check_messages(messages: Sequence[Message]) -> None:
    """Raise LlamadError INVALID, naming the message, for a conversation no template should see."""
    if not messages:
        raise invalid("messages", "is empty")
    size = 0
    for i, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise invalid(
                "messages",
                f"[{i}].role is {message.get('role')!r}, must be one of {', '.join(ROLES)}",
            )
        if not isinstance(message.get("content"), str):
            raise invalid("messages", f"[{i}].content is missing")
        if message.get("tool_calls") and message["role"] != "assistant":
            raise invalid("messages", f"[{i}].tool_calls are the assistant's only")
        for key, value in message.items():
            for text in texts_in(value):
                check_unicode(f"messages[{i}].{key}", text)
                size += len(text)
    if size > MAX_OUTPUT_CHARACTERS:
        raise invalid("messages", f"have {size} characters, a chat holds {MAX_OUTPUT_CHARACTERS}")
