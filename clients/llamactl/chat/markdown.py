"""The light Markdown of an answer, read while it arrives.

Owns what is recognized: headings, lists, quotes, fenced code, and in a line code, bold and italic.
Everything else is text and stays as it is, tables and links included. A mark takes effect when its
end was seen in the same line; until then its text is held back, and without an end it is shown as
it was written. So nothing of an answer is lost.

Pure: text in, pieces out. How they look is the business of ``screen``, where lines break that of
``layout``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_HELD = 240  # characters that wait for the end of a mark; a longer one is text

_FENCE = re.compile(r" {0,3}(?P<fence>`{3,}|~{3,})(?P<language>[^`]*)$")
_HEADING = re.compile(r" {0,3}#{1,6} +")
_ITEM = re.compile(r"(?P<indent> *)(?P<mark>[-*+]|\d{1,9}[.)]) +(?=\S)")
_QUOTE = re.compile(r" {0,3}> ?")
_UNDECIDED = re.compile(r" *(?:#{0,6} *|[-*+] *|\d{0,9}[.)]? *|> ?|`{0,2}|~{0,2})$")
_MAYBE_FENCE = re.compile(r" {0,3}(?:`{3}|~{3})")
_MARK = re.compile(r"`+|\*{1,3}")
_STYLES = {1: "italic", 2: "bold", 3: "bold italic"}


@dataclass(frozen=True, slots=True)
class Span:
    """Text of one style: "", or words out of bold, italic, code, heading, quote and thought."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Indent:
    """What a line begins with; where it is broken, the next begins as far to the right."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Code:
    """A line of a fenced block, or the fence itself; it is not broken."""

    text: str
    language: str
    is_fence: bool = False


@dataclass(frozen=True, slots=True)
class NewLine:
    """The end of a line of the answer."""


Piece = Span | Indent | Code | NewLine


class MarkdownReader:
    """Reads one answer; ``feed`` as it arrives, ``end`` at its end."""

    def __init__(self) -> None:
        self._line = ""  # of the current line, what is not decided yet
        self._in_line = False  # whether the beginning of the line is decided
        self._style = ""  # of the whole line
        self._before = " "  # the character before _line
        self._fence = ""
        self._language = ""

    def feed(self, text: str) -> list[Piece]:
        """Return the pieces that are certain by now."""
        pieces: list[Piece] = []
        *lines, rest = text.split("\n")
        for line in lines:
            self._line += line
            pieces += self._rest_of_line(final=True)
            pieces.append(NewLine())
            self._line, self._in_line, self._style, self._before = "", False, "", " "
        self._line += rest
        pieces += self._rest_of_line(final=False)
        return pieces

    def end(self) -> list[Piece]:
        """Return what was held back."""
        pieces = list(self._rest_of_line(final=True)) if self._line else []
        self._line = ""
        return pieces

    def _rest_of_line(self, *, final: bool) -> Iterator[Piece]:
        if not self._in_line:
            yield from self._beginning(final=final)
        if self._in_line:
            spans, held = _spans(self._line, self._before, final=final)
            decided = self._line[: len(self._line) - len(held)]
            self._before = decided[-1:] or self._before
            self._line = held
            for span in spans:
                yield Span(span.text, f"{self._style} {span.style}".strip())

    def _beginning(self, *, final: bool) -> Iterator[Piece]:
        """Decide what kind of line it is, as soon as its first characters say so."""
        if self._fence:
            if final:
                yield self._line_of_code()
            return
        undecided = len(self._line) <= MAX_HELD and _UNDECIDED.match(self._line)
        if not final and (undecided or _MAYBE_FENCE.match(self._line)):
            return
        if final and (found := _FENCE.match(self._line)):
            self._fence = found["fence"]
            self._language = found["language"].strip()
            yield Code(self._line, self._language, is_fence=True)
            self._line = ""
            return
        self._in_line = True
        if found := _HEADING.match(self._line):
            self._style = "heading"
        elif found := _ITEM.match(self._line):
            mark = "\u2022" if found["mark"] in "-*+" else found["mark"]
            yield Indent(f"{found['indent']}{mark} ")
        elif found := _QUOTE.match(self._line):
            self._style = "quote"
            yield Indent("\u2502 ", "quote")
        if found:
            self._line = self._line[found.end() :]

    def _line_of_code(self) -> Code:
        found = _FENCE.match(self._line)
        closes = (
            found is not None
            and found["fence"].startswith(self._fence)
            and not found["language"].strip()
        )
        line = Code(self._line, self._language, is_fence=closes)
        if closes:
            self._fence = self._language = ""
        self._line = ""
        return line


def _spans(text: str, before: str, *, final: bool) -> tuple[list[Span], str]:
    """Return the spans of a text that are certain, and the rest, which needs more text.

    before: the character in front of it. final: no more text comes.
    """
    spans: list[Span] = []
    start = 0
    while found := _MARK.search(text, start):
        if found.start() > start:
            spans.append(Span(text[start : found.start()]))
            before = text[found.start() - 1]
        rest = text[found.start() :]
        mark = found[0]
        if not final and found.end() == len(text):
            return spans, rest  # the next character decides
        end = _end_of(mark, text, found.end(), before)
        if end is None or (not final and end + len(mark) == len(text)):
            waits = _opens(mark, text, found.end(), before) and len(rest) < MAX_HELD
            if waits and not final:
                return spans, rest
        if end is None:
            spans.append(Span(mark))
            start = found.end()
        else:
            inner = text[found.end() : end]
            spans += _marked(mark, inner)
            start = end + len(mark)
        before = text[start - 1]
    if start < len(text):
        spans.append(Span(text[start:]))
    return spans, ""


def _marked(mark: str, inner: str) -> Iterator[Span]:
    if mark[0] == "`":
        yield Span(inner, "code")
        return
    for span in _spans(inner, mark, final=True)[0]:
        yield Span(span.text, f"{_STYLES[len(mark)]} {span.style}".strip())


def _opens(mark: str, text: str, start: int, before: str) -> bool:
    """Say whether a mark can begin something; 2 * 3 and a*b do not."""
    if mark[0] == "`":
        return True
    after = text[start : start + 1]
    return after != "" and not after.isspace() and not before.isalnum()


def _end_of(mark: str, text: str, start: int, before: str) -> int | None:
    """Return where the mark that ends this one begins."""
    if not _opens(mark, text, start, before):
        return None
    for found in _MARK.finditer(text, start):
        if found[0] != mark or found.start() == start:
            continue
        if mark[0] == "`":
            return found.start()
        after = text[found.end() : found.end() + 1]
        if not text[found.start() - 1].isspace() and not after.isalnum():
            return found.start()
    return None
