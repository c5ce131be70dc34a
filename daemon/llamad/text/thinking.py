"""What a model thinks before it answers, told apart from its answer while the text arrives.

Owns the table of marks that models put around their thoughts, and how the text is cut there. A
thought stands at the beginning of the text, or was opened by the template already; later marks are
text. White space around the thought and between it and the answer belongs to the marks. Some models
put marks around the answer behind a thought, too. A model with channels has none of these marks
(``channels.py``).
"""

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol, TypeAlias

# As the models' templates write them (Qwen3, DeepSeek R1, SmolLM3, Magistral, Seed, Gemma 4).
PAIRS: tuple[tuple[str, str], ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|channel>thought", "<channel|>"),
)
ANSWER_PAIR = ("<response>", "</response>")  # as Granite 3.3's template asks for them

TAIL_TOKENS = 32  # of a prompt, that hold the mark which it may end with

Piece: TypeAlias = tuple[str, bool]  # text, and whether it is a thought


class CallChoice(enum.Enum):
    """Whether the answer behind a thought may call tools."""

    NONE = "none"
    POSSIBLE = "possible"
    REQUIRED = "required"


class Splitter(Protocol):
    """Cuts one completion into thoughts and the answer."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is no part of the answer."""

    def ending(self, *, calls: CallChoice, again: bool = False) -> str:
        """Return what ends the thought that is open. again: an earlier one was ended so."""

    def control_text(self, token: int) -> str:
        """Return what stands for a control token that is a mark here, else ""."""

    def push(self, text: str) -> list[Piece]:
        """Take text; return what is certain, in order, no piece empty."""

    def flush(self) -> list[Piece]:
        """Return what was held back; the text has ended."""


class ThoughtMarks(Protocol):
    """How one model tells its thoughts from its answer."""

    def splitter(self, prompt_tail: str) -> Splitter | None:
        """Return what cuts the text behind a prompt that ends so; None for a model without."""

    def without_thought(self, prompt_tail: str, *, told: bool, calls: bool) -> str:
        """Return what stands behind a prompt that ends so, for an answer without a thought.

        told: the template was told that none is wanted. calls: whether tools may be called.
        """


@dataclass(frozen=True, slots=True)
class ThinkingMarks:
    """The marks of one model. controls: those that are control tokens, which are no text.

    answer: the marks around the answer behind a thought.
    """

    pairs: tuple[tuple[str, str], ...] = ()
    controls: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))
    answer: tuple[str, str] | None = None

    def splitter(self, prompt_tail: str) -> "ThinkingSplitter | None":
        """Return what cuts the text behind a prompt that ends so; None for a model without."""
        return ThinkingSplitter(self, self.opened(prompt_tail)) if self.pairs else None

    def opened(self, prompt_tail: str) -> str | None:
        """Return the closing mark of the thought that a prompt which ends so has begun."""
        end = prompt_tail.rstrip()
        return next((close for mark, close in self.pairs if end.endswith(mark)), None)

    def without_thought(self, prompt_tail: str, *, told: bool, calls: bool) -> str:
        """Return what stands behind a prompt that ends so, for an answer without a thought.

        told: the template was told that none is wanted. Else it gets an empty one, whatever may be
        called behind it.
        """
        if close := self.opened(prompt_tail):
            return f"\n\n{close}\n\n"
        if told or not self.pairs:
            return ""
        mark, close = self.pairs[0]
        return f"{mark}\n\n{close}\n\n"


def find_marks(template: str, tokens: Sequence[str], controls: Collection[int]) -> ThinkingMarks:
    """Return the marks that a template names or a vocabulary has as tokens.

    controls: the ids of the tokens that are no text.
    """
    texts = {text for pair in PAIRS for text in pair}
    ids = {text: i for i, text in enumerate(tokens) if text in texts}
    pairs = tuple(
        (mark, close)
        for mark, close in PAIRS
        if mark in ids or mark in template or close in template
    )
    known = {text for pair in pairs for text in pair}
    return ThinkingMarks(
        pairs,
        MappingProxyType({i: t for t, i in ids.items() if i in controls and t in known}),
        ANSWER_PAIR if pairs and "".join(ANSWER_PAIR) in template else None,
    )


class _Phase(enum.Enum):
    START = "start"  # nothing but white space came
    THOUGHT = "thought"
    BETWEEN = "between"  # white space in front of the answer
    MARKED = "marked"  # the answer, up to the mark behind it
    BEHIND = "behind"  # white space behind that mark
    ANSWER = "answer"


class ThinkingSplitter:
    """Cuts one completion. What is cut where does not depend on the pieces the text comes in."""

    def __init__(self, marks: ThinkingMarks, opened: str | None) -> None:
        """Begin; opened: the closing mark of a thought that the prompt has begun."""
        self._marks = marks
        self._close = opened or ""
        self._phase = _Phase.START if opened is None else _Phase.THOUGHT
        self._held = ""
        self._answer = marks.answer or ("", "")
        self._begun = False  # some of the thought, or of the answer between marks, was given

    @property
    def thinking(self) -> bool:
        """Whether what comes next is a thought."""
        return self._phase is _Phase.THOUGHT

    def ending(self, *, calls: CallChoice, again: bool = False) -> str:
        """Return what ends the thought that is open, whatever may be called behind it."""
        return f"\n{self._close}\n\n"

    def control_text(self, token: int) -> str:
        """Return the text of a control token that is a mark here, else ""."""
        mark = self._marks.controls.get(token, "")
        if self._phase is _Phase.THOUGHT:
            return mark if mark == self._close else ""
        opens = self._phase is _Phase.START and any(mark == pair[0] for pair in self._marks.pairs)
        return mark if opens else ""

    def push(self, text: str) -> list[Piece]:
        """Take text; return what is certain, in order, no piece empty."""
        self._held += text
        pieces: list[Piece] = []
        while self._step(pieces):
            pass
        return pieces

    def flush(self) -> list[Piece]:
        """Return what was held back; the text has ended."""
        text, self._held = self._held, ""
        if self._phase in (_Phase.THOUGHT, _Phase.MARKED):
            text = text.strip() if not self._begun else text.rstrip()
        elif self._phase in (_Phase.BETWEEN, _Phase.BEHIND):
            text = text.lstrip()
        return [(text, self.thinking)] if text else []

    def _step(self, pieces: list[Piece]) -> bool:
        """Take what the phase can of the held text; whether another phase has begun."""
        match self._phase:
            case _Phase.START:
                return self._start()
            case _Phase.THOUGHT:
                return self._up_to(self._close, pieces)
            case _Phase.BETWEEN:
                return self._between()
            case _Phase.MARKED:
                return self._up_to(self._answer[1], pieces)
            case _Phase.BEHIND:
                if self._held.isspace() or not self._held:
                    return False
                self._phase = _Phase.ANSWER
                return True
            case _Phase.ANSWER:
                if self._held:
                    pieces.append((self._held, False))
                    self._held = ""
                return False

    def _start(self) -> bool:
        text = self._held.lstrip()
        for mark, close in self._marks.pairs:
            if text.startswith(mark):
                self._held, self._close, self._phase = text[len(mark) :], close, _Phase.THOUGHT
                return True
        if any(mark.startswith(text) for mark, _ in self._marks.pairs):
            return False
        self._phase = _Phase.ANSWER
        return True

    def _between(self) -> bool:
        self._held = self._held.lstrip()
        mark = self._answer[0]
        if mark and self._held.startswith(mark):
            self._held, self._phase = self._held[len(mark) :], _Phase.MARKED
            return True
        if mark.startswith(self._held):
            return False
        self._phase = _Phase.ANSWER
        return True

    def _up_to(self, close: str, pieces: list[Piece]) -> bool:
        """Give what stands in front of a closing mark, without the white space around it."""
        text = self._held if self._begun else self._held.lstrip()
        end = text.find(close)
        certain = text[:end] if end >= 0 else text[: len(text) - _n_begun(text, close)]
        certain = certain.rstrip()
        if certain:
            pieces.append((certain, self.thinking))
            self._begun = True
        if end < 0:
            self._held = text[len(certain) :]
            return False
        self._held = text[end + len(close) :]
        self._phase = _Phase.BETWEEN if self.thinking else _Phase.BEHIND
        self._begun = False
        return True


def _n_begun(text: str, mark: str) -> int:
    """Return how many characters at the end of the text may be the beginning of the mark."""
    return next((n for n in range(len(mark) - 1, 0, -1) if text.endswith(mark[:n])), 0)
