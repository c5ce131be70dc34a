"""Breaking the lines of an answer between words, while it arrives, where a terminal shows it.

Owns the column that the cursor is in. A break takes the place of the spaces where it stands, and
nothing else of the text is changed; lines of code between fences are left to the terminal, so that
they can be copied. A word is given back when its end is known. ``chat`` on a terminal has a layout
of its own, with styles.
"""

import unicodedata
from collections.abc import Callable

from llamactl.streams import escaped

TAB = 8  # columns
_FENCES = ("```", "~~~")
_WIDE = ("W", "F")


class WordWrap:
    """The lines of one text. width: returns the terminal's columns, 0 where they are not known."""

    def __init__(self, width: Callable[[], int]) -> None:
        self._width = width
        self._column = 0
        self._spaces = ""
        self._word = ""
        self._is_code = False  # between two fences
        self._begins = True  # only white space stands in the line

    def feed(self, text: str) -> str:
        """Return what is to be written now, of this text and of what was held back."""
        return "".join(map(self._take, text))

    def end(self) -> str:
        """Return what was held back; the next text begins a line."""
        rest = self._put_word() + self._spaces
        self._begin_line()
        return rest

    def _take(self, character: str) -> str:
        if character == "\n":
            return self.end() + "\n"
        if character in " \t":
            done = self._put_word()
            self._spaces += character
            return done
        done = self._put_word() if self._may_break_before(character) else ""
        self._word += character
        return done

    def _may_break_before(self, character: str) -> bool:
        """Say whether a line may break here without a space: around a wide character."""
        if not self._word or unicodedata.category(character)[0] in "MCP":
            return False
        return _is_wide(character) or _is_wide(self._word[-1])

    def _put_word(self) -> str:
        """Return the word behind its spaces, or behind a line feed where it does not fit."""
        if not self._word:
            return ""
        if self._begins and self._word.startswith(_FENCES):
            self._is_code = not self._is_code
        spaces, word, width = self._spaces, self._word, self._width()
        self._spaces = self._word = ""
        at = _column_behind(self._column, spaces)
        end = _column_behind(at, word)
        if width and end > width and not self._begins and not self._is_code:
            spaces, end = "\n", _column_behind(0, word)
        self._begins = False
        self._column = (end - 1) % width + 1 if width and end else end  # the terminal broke it
        return spaces + word

    def _begin_line(self) -> None:
        self._column, self._spaces, self._begins = 0, "", True


def _column_behind(column: int, text: str) -> int:
    """Return the column of the cursor when a text was shown."""
    for character in escaped(text):
        if character == "\t":
            column += TAB - column % TAB
        elif _is_wide(character):
            column += 2
        elif unicodedata.category(character) not in ("Mn", "Me", "Cf", "Cc"):
            column += 1
    return column


def _is_wide(character: str) -> bool:
    return unicodedata.east_asian_width(character) in _WIDE
