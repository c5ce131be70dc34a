"""From what a request says of its answer to a grammar, and to one that begins behind a thought.

A control token has no text. Here it is its name between two bytes that no UTF-8 has
(``control_token``): so a grammar of a user never allows one, and one of ours can name it.
"""

import json
import math
from dataclasses import dataclass

from llamad.sampling.constraint.closed_schema import closed
from llamad.sampling.constraint.expression import (
    NOTHING,
    Bytes,
    Call,
    Expression,
    Grammar,
    Repeat,
    Until,
    characters,
    choice,
    literal,
    sequence,
    these_bytes,
)
from llamad.sampling.constraint.facts import refused
from llamad.sampling.constraint.gbnf import parse_gbnf
from llamad.sampling.constraint.json_schema import any_json, parse_json_schema
from llamad.sampling.constraint.regex import parse_regex
from llamad.sampling.response_format import FormatKind, ResponseFormat

_BEFORE_NAME, _BEHIND_NAME = b"\xff", b"\xfe"
_LINE_END, _SPACES = Bytes(((0x0A, 0x0A),)), 2


def format_grammar(wanted: ResponseFormat) -> Grammar:
    """Return the grammar of the answers that a format wants.

    Raises INVALID_SCHEMA with the JSON pointer, INVALID_GRAMMAR with line and column or what of a
    pattern is not supported.
    """
    match wanted.kind:
        case FormatKind.JSON_SCHEMA:
            schema = _schema(wanted.text)
            return parse_json_schema(closed(schema) if wanted.closed_objects else schema)
        case FormatKind.GRAMMAR:
            return parse_gbnf(wanted.text)
        case FormatKind.REGEX:
            return Grammar({"root": parse_regex(wanted.text, characters)}, "root")
        case FormatKind.CHOICES:
            return Grammar({"root": choice(literal(one) for one in wanted.choices)}, "root")
        case FormatKind.JSON_OBJECT:
            return any_json(object_only=True)


def _schema(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_number, parse_float=_finite)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise refused("", f"is no JSON: {where}: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise refused("", f"is no JSON: {error}") from None


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


def control_token(name: bytes) -> bytes:
    """Return the bytes that stand for a control token of this name."""
    return _BEFORE_NAME + name + _BEHIND_NAME


def spellings(marker: str) -> tuple[bytes, bytes]:
    """Return what a marker may be: text, or one control token."""
    return marker.encode(), control_token(marker.encode())


def any_of(markers: tuple[bytes, ...]) -> Expression:
    """Return a choice between texts of bytes."""
    return choice(map(these_bytes, markers))


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What may stand in front of an answer."""

    opened: str | None = None  # the closing mark of a thought that the prompt has begun
    pairs: tuple[tuple[str, str], ...] = ()  # the marks around one that the model may begin
    messages: "ThoughtMessages | None" = None  # in place of both


@dataclass(frozen=True, slots=True)
class ThoughtMessages:
    """Marks of a model that thinks in messages of their own, in front of that with the answer."""

    head: bytes  # of a message that is a thought
    end: bytes
    again: bytes  # in front of the next head
    answer_head: bytes


def behind_thoughts(grammar: Grammar, thoughts: Thoughts) -> Grammar:
    """Return the grammar of a thought, where there may or must be one, and the answer behind it.

    A thought that was begun must end before the answer ends. Between them are at most two line
    ends, as models are used to.
    """
    gap = Repeat(_LINE_END, 0, _SPACES)
    thought: Expression
    if thoughts.messages is not None:
        marks = thoughts.messages
        end = Until((marks.end,), plain=True)
        thought = Repeat(sequence(these_bytes(marks.head), end, these_bytes(marks.again)))
    elif thoughts.opened is not None:
        thought = sequence(Until(spellings(thoughts.opened)), gap)
    else:
        thought = choice([
            NOTHING,
            *(
                sequence(any_of(spellings(mark)), Until(spellings(close)), gap)
                for mark, close in thoughts.pairs
            ),
        ])  # fmt: skip
    start = "thought, then " + grammar.start
    return Grammar({**grammar.rules, start: sequence(thought, Call(grammar.start))}, start)


def behind_head(grammar: Grammar, thoughts: Thoughts) -> Grammar:
    """Return the grammar of an answer with the head of its message, where it has one."""
    if thoughts.messages is None:
        return grammar
    start = "head, then " + grammar.start
    head = these_bytes(thoughts.messages.answer_head)
    return Grammar({**grammar.rules, start: sequence(head, Call(grammar.start))}, start)
