"""Where the lines of an answer break: between words, at the width of the terminal.

Owns the column that the cursor is in. It only appends: what was written is never written again, so
nothing flickers, and what is scrolled back is whole. A word is written when its end is
known.
"""

import re
from collections.abc import Callable, Iterable, Iterator

from prompt_toolkit.utils import get_cwidth

from llamactl.chat.markdown import Code, Indent, NewLine, Piece, Span

TAB = 8  # columns
_OPENING = "\u200d([{\u300c\u300e\uff08"  # a joiner, and brackets
_CLOSING = "\u3001\u3002\uff0c\uff01\uff1f\u300d\u300f\uff09"
_PARTS = re.compile(r"[ \t]+|[^ \t]+")


class Layout:
    """Breaks the lines of one answer; ``width`` is asked for each word, for it may change."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._hang = 0  # where a broken line goes on
        self._space = ""
        self._word: list[Span] = []

    def feed(self, pieces: Iterable[Piece]) -> Iterator[Span | Code]:
        """Yield what to write; a span may begin with a line feed."""
        for piece in pieces:
            match piece:
                case Span(text, style):
                    yield from self._text(text, style)
                case Indent(text):
                    self._column = self._hang = min(get_cwidth(text), self._width() // 2)
                    yield Span(text, piece.style)
                case NewLine():
                    yield from self.end()
                    self._column = self._hang = 0
                    yield Span("\n")
                case Code():
                    self._column = 1 if piece.text else 0
                    yield piece

    def end(self) -> Iterator[Span]:
        """Yield the last word."""
        yield from self._put_word()
        self._space = ""

    @property
    def at_line_start(self) -> bool:
        """Whether nothing stands in the current line."""
        return self._column == 0

    def _text(self, text: str, style: str) -> Iterator[Span]:
        for part in _PARTS.findall(text):
            if part.isspace():
                yield from self._put_word()
                self._space += part
                continue
            for word in _breakable(part):
                if self._word and get_cwidth(word[0]) > 1 and not _joins(self._word[-1].text):
                    yield from self._put_word()
                self._word.append(Span(word, style))

    def _put_word(self) -> Iterator[Span]:
        """Write the word, in a new line where it does not fit."""
        if not self._word:
            return
        columns = sum(get_cwidth(span.text) for span in self._word)
        space = self._space.replace("\t", " " * TAB)
        width = self._width()
        if self._column > self._hang and self._column + len(space) + columns > width:
            yield Span("\n" + " " * self._hang)
            self._column = self._hang
        elif space:
            yield Span(space)
            self._column += len(space)
        yield from self._word
        self._column += columns
        while self._column > width:  # the terminal broke it
            self._column -= width
        self._word, self._space = [], ""


def _joins(text: str) -> bool:
    """Say whether no line may break behind a text: it ends with a joiner, or opens something."""
    return text[-1] in _OPENING


def _breakable(part: str) -> Iterator[str]:
    """Yield the pieces of a word between which a line may break: before each wide character.

    What has no width of its own, and closing punctuation, stays with the character before it.
    """
    start = 0
    for i in range(1, len(part)):
        wide = get_cwidth(part[i]) > 1
        modifies = "\U0001f3fb" <= part[i] <= "\U0001f3ff" or part[i] in _CLOSING
        if wide and not modifies and not _joins(part[:i]):
            yield part[start:i]
            start = i
    yield part[start:]
