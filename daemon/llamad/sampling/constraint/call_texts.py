"""Notations in which models write the arguments of calls: JSON, and what differs from it.

Which family writes which stands in text/tools/formats.py; what is written here is read there.
"""

import re

from llamad.sampling.constraint.expression import (
    NOTHING,
    Expression,
    Range,
    Until,
    characters,
    choice,
    complement,
    literal,
    sequence,
    these_bytes,
)
from llamad.sampling.constraint.json_text import Json

_LESS_THAN = (ord("<"), ord("<"))  # which begins the marks behind a text
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_$.-]+")


class PythonText(Json):
    """Literals of Python, as far as JSON has them."""

    prefix = "python "
    true, false, null = "True", "False", "None"


class JsonInTags(Json):
    """JSON that cannot hold the tag behind it."""

    prefix = "tagged "
    not_direct = (*Json.not_direct, _LESS_THAN)


class RawText(Json):
    """Strings as they are, without a character that begins the mark behind them."""

    prefix = "raw "

    def _new_spelled(self, ranges: tuple[Range, ...]) -> Expression:
        inside = [
            (max(a, first), min(b, last))
            for first, last in ranges
            for a, b in complement([_LESS_THAN])
        ]
        return characters((a, b) for a, b in inside if a <= b)

    def character(self) -> Expression:
        """Return any character."""
        return self.spelled(complement([_LESS_THAN]))

    def quoted(self, text: str) -> Expression:
        """Return exactly this text."""
        return self.text(literal(text))


class GemmaText(RawText):
    """Gemma's: names without quotation marks, strings as they are between two marks."""

    prefix = "gemma "

    def __init__(self, quote: tuple[bytes, ...]) -> None:
        """quote: how the mark around strings may be spelled."""
        self._spellings = quote
        self._quote = choice(map(these_bytes, quote))
        super().__init__()
        self.space = NOTHING

    def text(self, inner: Expression) -> Expression:
        """Return a string of these characters."""
        return sequence(self._quote, inner, self._quote)

    def any_string(self) -> Expression:
        """Return a string of any characters."""
        return sequence(self._quote, Until(self._spellings, plain=True))

    def name(self, text: str) -> Expression:
        """Return a member's name."""
        return literal(text) if _PLAIN_NAME.fullmatch(text) else self.quoted(text)
