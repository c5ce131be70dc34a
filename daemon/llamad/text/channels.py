"""The channels of gpt-oss: which of its messages are thoughts, which calls, which the answer.

An answer in OpenAI's harmony format is several messages. The head of each names a channel, and for
a call of a tool its recipient: ``<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant
<|channel|>final<|message|>Yes.`` What is on channel ``final`` is the answer; ``analysis``, and
``commentary`` without a recipient (a plan before a call), are thoughts; a message to
``functions.f`` is a call, whose text ``tools/tagged_calls.py`` reads. A mark is a control token;
text that is spelled like one is text. (OpenAI, "Harmony response format")
"""

import enum
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from llamad.text.thinking import CallChoice, Piece

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
CALL, RETURN, CONSTRAIN = "<|call|>", "<|return|>", "<|constrain|>"
ASSISTANT = f"{START}assistant"
ANALYSIS_HEAD = f"{CHANNEL}analysis{MESSAGE}"
FINAL_HEAD = f"{CHANNEL}final{MESSAGE}"
CALL_HEAD = f"{CHANNEL}commentary to=functions."  # up to the name of the tool

MAX_HEAD_CHARACTERS = 512  # what is longer is no head, but an answer

MARKS = (START, CHANNEL, MESSAGE, END, CALL, RETURN, CONSTRAIN)
_MARK = "\udc00"  # in front of the name of a control token: no text has half of a surrogate pair
_CHANNEL = re.compile(r"<\|channel\|>\s*(\w*)")
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")
_FUNCTIONS = "functions."


@dataclass(frozen=True, slots=True)
class ChannelMarks:
    """The marks of a model that answers in channels. controls: their names, by token."""

    controls: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    def splitter(self, prompt_tail: str) -> "ChannelSplitter":
        """Return what cuts the text behind a prompt that ends so."""
        return ChannelSplitter(self.controls, begun=not self.at_head(prompt_tail))

    def at_head(self, prompt_tail: str) -> bool:
        """Whether a message begins behind a prompt that ends so; else one is begun, an answer."""
        return prompt_tail.rstrip().endswith(ASSISTANT)

    def without_thought(self, prompt_tail: str, *, told: bool, calls: bool) -> str:
        """Return what stands behind a prompt that ends so, for an answer without a thought.

        calls: it may call tools, which another channel is for, so the model has to choose.
        """
        return FINAL_HEAD if self.at_head(prompt_tail) and not calls else ""


def find_channels(tokens: Sequence[str], controls: Collection[int]) -> ChannelMarks | None:
    """Return the marks of a vocabulary that has channels; controls: the tokens that are no text."""
    names = {token: tokens[token] for token in controls}
    found = {token: name for token, name in names.items() if name in MARKS}
    needed = {START, CHANNEL, MESSAGE, END, RETURN}
    return ChannelMarks(MappingProxyType(found)) if needed.issubset(found.values()) else None


class _Phase(enum.Enum):
    HEAD = "head"  # of a message
    THOUGHT = "thought"
    CALL = "call"
    ANSWER = "answer"


class ChannelSplitter:
    """Cuts one completion. What is cut where does not depend on the pieces the text comes in."""

    def __init__(self, controls: Mapping[int, str], *, begun: bool) -> None:
        """Begin; begun: within an answer, else with the head of a message."""
        self._controls = controls
        self._phase = _Phase.ANSWER if begun else _Phase.HEAD
        self._start = ""  # what a head begins with; the prompt has that of the first
        self._head = ""
        self._held = ""  # the beginning of a mark
        self._gap = ""  # white space behind a thought, which counts where more follows
        self._begun = False  # some of the thought was read
        self._n_thoughts = 0  # that have a text and have ended
        self._is_plan = False  # the thought announces a call

    @property
    def thinking(self) -> bool:
        """Whether what comes next is no part of an answer: a thought, or the head of a message."""
        return self._phase in (_Phase.HEAD, _Phase.THOUGHT)

    def ending(self, *, calls: CallChoice, again: bool = False) -> str:
        """Return what ends the thought that is open, and begins the answer.

        Where tools may be called the model chooses what comes next, but once: when it has thought
        again instead, a plan for a call is followed by the call, and else the answer is begun.
        """
        chooses = calls is CallChoice.POSSIBLE
        head = CALL_HEAD if calls is CallChoice.REQUIRED else FINAL_HEAD
        if chooses:
            head = "" if not again else CALL_HEAD if self._is_plan else FINAL_HEAD
        closing = END + ASSISTANT + head
        if self._phase is _Phase.THOUGHT:
            return closing
        if again and calls is not CallChoice.NONE:  # a head that the model is free to write
            return ""
        if self._head.endswith(f"{CHANNEL}analysis"):
            return MESSAGE + closing
        head = self._start + FINAL_HEAD
        if calls is not CallChoice.NONE or not head.startswith(self._head):
            return ""
        return head.removeprefix(self._head)

    def control_text(self, token: int) -> str:
        """Return what stands for a control token that is a mark here, else ""."""
        name = self._controls.get(token)
        return "" if name is None else _MARK + name

    def push(self, text: str) -> list[Piece]:
        """Take text; return what is certain, in order, no piece empty."""
        pieces: list[Piece] = []
        plain, *marked = (self._held + text).split(_MARK)
        self._held = ""
        self._text(plain, pieces)
        for i, part in enumerate(marked):
            end = part.find(">") + 1
            if not end:
                assert i == len(marked) - 1, "half a mark within a text"
                self._held = _MARK + part
                break
            self._mark(part[:end], pieces)
            self._text(part[end:], pieces)
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back; the text has ended."""
        if self._phase is _Phase.HEAD and "<|" not in self._head and self._head.strip():
            return [(self._head, False)]  # what looked like a head and was all there is
        return []

    def _text(self, text: str, pieces: list[Piece]) -> None:
        match self._phase:
            case _Phase.HEAD:
                self._head += text
                if not _may_be_head(self._head):
                    self._phase = _Phase.ANSWER
                    pieces.append((self._head, False))
            case _Phase.THOUGHT:
                if not self._begun:
                    text = text.lstrip()
                if text:
                    text = self._gap + text
                    kept = text.rstrip()
                    self._gap, self._begun = text[len(kept) :], True
                    if kept:
                        pieces.append((kept, True))
            case _Phase.CALL | _Phase.ANSWER:
                if text:
                    pieces.append((text, False))

    def _mark(self, name: str, pieces: list[Piece]) -> None:
        if self._phase is _Phase.HEAD:
            self._head += name
            if name == MESSAGE:
                self._begin(pieces)
        elif name not in (MESSAGE, CONSTRAIN):  # another message begins, whatever ended this one
            if self._phase is _Phase.CALL:
                pieces.append((CALL, False))
            self._phase, self._start = _Phase.HEAD, ASSISTANT
            self._head = name if name in (START, CHANNEL) else ""

    def _begin(self, pieces: list[Piece]) -> None:
        """Begin the message whose head is read."""
        recipient, channel = _RECIPIENT.search(self._head), _CHANNEL.search(self._head)
        if recipient is not None and recipient[1].startswith(_FUNCTIONS):
            self._phase = _Phase.CALL
            head = f"{CHANNEL}commentary to={recipient[1]} {CONSTRAIN}json{MESSAGE}"
            pieces.append((head, False))
        elif channel is None or channel[1] == "final":
            self._phase = _Phase.ANSWER
        else:
            self._phase, self._is_plan = _Phase.THOUGHT, channel[1] == "commentary"
            self._n_thoughts += self._begun
            self._gap, self._begun = "\n\n" if self._n_thoughts else "", False


def _may_be_head(head: str) -> bool:
    """Whether a text may be the beginning of a message's head, rather than an answer without."""
    if "<|" in head:
        return len(head) <= MAX_HEAD_CHARACTERS
    rest = head.strip().removeprefix("assistant").lstrip()
    return any(word.startswith(rest) for word in ("assistant", "to=")) or (
        rest.startswith("to=") and len(rest) <= MAX_HEAD_CHARACTERS
    )
