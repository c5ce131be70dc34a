"""Calls of tools, told apart from the answer while its text arrives.

A call is given when it is complete, never half of one. What cannot be a call is text, from its
opening mark on. White space around calls belongs to their marks.
"""

from collections.abc import Iterator, Mapping
from itertools import groupby
from types import MappingProxyType
from typing import TypeAlias

from llamad.text.tools.call import Call, NotACallError, Reader, Tools
from llamad.text.tools.formats import ToolFormat

MAX_CHARACTERS = 1 << 18  # of one call; a longer one is text
_MAX_FAILED = 64  # marks that began no call and were only found out at the end; then all is text

# A call can become complete with one of these only, so a long one is not read for every token.
_CLOSING = frozenset("}])>`\n")

Part: TypeAlias = "str | Call"


class CallSplitter:
    """Cuts one answer. What is cut where does not depend on the pieces that the text comes in."""

    def __init__(
        self,
        row: ToolFormat,
        tools: Tools,
        opened: str = "",
        controls: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        """Begin.

        opened: the beginning of a call that the prompt ends with. controls: the format's marks that
        are control tokens, which are no text otherwise.
        """
        self._controls = controls
        self._row = row
        self._tools = tools
        self._held = opened  # not given yet
        self._n_opened = len(opened)  # characters of it that are the prompt's, and no answer
        self._open: tuple[int, str, Reader] | None = None  # a mark, where it stands, what reads it
        self._waits = False  # what is held was read, and nothing came that could complete it
        self._at_start = True  # nothing was given
        self._behind_call = False

    def control_text(self, token: int) -> str:
        """Return the text of a control token that is a mark here, else ""."""
        return self._controls.get(token, "")

    def push(self, text: str) -> list[Part]:
        """Take text; return what is certain, in order, no text empty."""
        self._held += text
        self._waits = self._waits and not _CLOSING.intersection(text)
        return _joined(self._parts(ended=False))

    def flush(self) -> list[Part]:
        """Return what was held back; the text has ended."""
        self._waits = False
        parts = list(self._parts(ended=True))
        rest = self._given(len(self._held))
        if rest.isspace() and self._behind_call:
            rest = ""
        return _joined(iter([*parts, rest]))

    def _parts(self, *, ended: bool) -> Iterator[Part]:
        n_failed = 0
        while n_failed < _MAX_FAILED:
            if self._open is None:
                yield self._text()
            if self._open is None or self._waits:
                return
            at, mark, reader = self._open
            try:
                calls, end = self._read(reader, at, ended=ended)
            except NotACallError:
                n_failed += ended
                self._open = None
                yield self._given(at + len(mark))
                continue
            except _WaitError:
                self._waits = True
                return
            yield from calls
            self._held, self._open, self._n_opened = self._held[at + end :], None, 0
            self._at_start, self._behind_call = False, self._behind_call or bool(calls)

    def _read(self, reader: Reader, at: int, *, ended: bool) -> tuple[list[Call], int]:
        """Return the calls at the mark. Raises NotACallError, _WaitError."""
        reading = reader(self._held[at:], self._tools, ended)
        if reading is not None:
            return reading
        if ended or len(self._held) - at > MAX_CHARACTERS:
            raise NotACallError
        raise _WaitError

    def _text(self) -> str:
        """Return the text in front of the next mark, or of what may become one; find the mark."""
        if self._behind_call:
            self._held = self._held.lstrip()
            self._behind_call = not self._held
        self._open = self._first_mark()
        end = len(self._held) - self._n_begun() if self._open is None else self._open[0]
        end = len(self._held[:end].rstrip())
        if self._open is not None:
            at, mark, reader = self._open
            self._open = at - end, mark, reader
        return self._given(end)

    def _first_mark(self) -> tuple[int, str, Reader] | None:
        found = [
            (self._held.find(mark), mark, reader)
            for mark, reader in self._row.readers
            if mark in self._held
        ]
        if self._at_start:
            at = len(self._held) - len(self._held.lstrip())
            found += [
                (at, mark, reader)
                for mark, reader in self._row.at_start
                if self._held.startswith(mark, at)
            ]
        return min(found, key=lambda one: (one[0], -len(one[1])), default=None)

    def _n_begun(self) -> int:
        """Return how many characters at the end may be the beginning of a mark."""
        held = self._held
        begun = [
            n
            for mark, _ in self._row.readers
            for n in range(1, min(len(mark), len(held) + 1))
            if held.endswith(mark[:n])
        ]
        if self._at_start and any(m.startswith(held.strip()) for m, _ in self._row.at_start):
            begun.append(len(held))
        return max(begun, default=0)

    def _given(self, n: int) -> str:
        """Return the first characters of what is held, and hold them no more."""
        text, self._held = self._held[self._n_opened : n], self._held[n:]
        self._n_opened = max(0, self._n_opened - n)
        if text:
            self._at_start = False
        return text


class _WaitError(Exception):
    """More text has to come."""


def _joined(parts: Iterator[Part]) -> list[Part]:
    """Return the parts with texts that follow each other as one, and none that is empty."""
    result: list[Part] = []
    for is_text, group in groupby(parts, key=lambda part: isinstance(part, str)):
        if not is_text:
            result += group
        elif text := "".join(part for part in group if isinstance(part, str)):
            result.append(text)
    return result
