"""How a call is written, piece by piece: plain data, of which a grammar can be made.

What reads it back is a reader (call.py); service/tool_grammar.py makes the grammar.
"""

import enum
import keyword
import re
from collections.abc import Iterable
from dataclasses import dataclass

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_IN_TAG = re.compile(r"[^<>\s]+")


class Notation(enum.Enum):
    """How the arguments of a call are written."""

    JSON = "json"  # an object
    PYTHON = "python"  # ``a="x", b=1``
    TAGS = "tags"  # ``<parameter=a>``, a line each; strings as they are
    GEMMA = "gemma"  # an object whose names and strings have marks of their own

    def can_write(self, name: str, parameters: Iterable[str]) -> bool:
        """Whether a tool of this name with these parameters can be written so."""
        if self is Notation.PYTHON:
            names = [*name.split("."), *parameters]
            return all(_IDENTIFIER.fullmatch(n) and not keyword.iskeyword(n) for n in names)
        return self is not Notation.TAGS or all(map(_IN_TAG.fullmatch, parameters))


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """One way to write calls, which begins with a mark.

    opening: up to the name of the first call, the mark included. behind_name: up to the arguments.
    behind: what ends a call; again: up to the name of another one; close: behind the last one.
    """

    mark: str
    opening: str
    behind_name: str
    notation: Notation
    behind: str
    again: str
    close: str = ""
    is_answer: bool = False  # nothing but white space stands in front of the mark or behind the end
    quote: str = ""  # around strings, of GEMMA
    is_spare: bool = False  # only for tools that no other syntax behind the mark can write

    @property
    def behind_mark(self) -> str:
        """What of the opening follows the mark."""
        return self.opening.removeprefix(self.mark)


def json_list(opening: str, close: str = "]", *, mark: str = "", spare: bool = False) -> CallSyntax:
    """Return a list of objects with ``name`` and ``arguments``. opening: up to its bracket."""
    return CallSyntax(
        mark or opening.removesuffix("[").rstrip(),
        f'{opening}{{"name": "',
        '", "arguments": ',
        Notation.JSON,
        "}",
        ', {"name": "',
        close,
        is_spare=spare,
    )


def json_in_tags(*, spare: bool = False) -> CallSyntax:
    """Return an object between ``<tool_call>`` and its end for each call."""
    return CallSyntax(
        "<tool_call>",
        '<tool_call>\n{"name": "',
        '", "arguments": ',
        Notation.JSON,
        "}\n</tool_call>",
        '\n<tool_call>\n{"name": "',
        is_spare=spare,
    )


def bare_object(arguments: str) -> CallSyntax:
    """Return an answer that is a call and nothing else. arguments: its second member's name."""
    return CallSyntax(
        '{"name": "',
        '{"name": "',
        f'", "{arguments}": ',
        Notation.JSON,
        "}",
        '; {"name": "',
        is_answer=True,
    )
