"""The parts a grammar is made of, over bytes of UTF-8.

Owns the meaning of the parts and the way from characters to bytes. Where they come from (gbnf.py,
json_schema.py, regex.py) and the automaton (automaton.py) are not known here.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

MAX_CODE_POINT = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)
# Code points by the number of bytes that UTF-8 takes for them (RFC 3629, section 3).
_BY_LENGTH = ((0, 0x7F), (0x80, 0x7FF), (0x800, 0xFFFF), (0x10000, MAX_CODE_POINT))

Range: TypeAlias = tuple[int, int]  # first and last, both included


@dataclass(frozen=True, slots=True)
class Bytes:
    """One byte of the ranges."""

    ranges: tuple[Range, ...]


@dataclass(frozen=True, slots=True)
class Literal:
    """Exactly these bytes; not empty."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Sequence:
    """One part after the other; none: nothing at all."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the parts; none: what cannot be."""

    parts: tuple["Expression", ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """A part, ``least`` to ``most`` times; None: without limit."""

    part: "Expression"
    least: int = 0
    most: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """What the rule of this name says."""

    rule: str


@dataclass(frozen=True, slots=True)
class AnyOrder:
    """Members, each at most once, in any order, between separators.

    ``required``: the indices of those that may not be missing. ``rest``: a member of which there
    may be any number. ``least`` and ``most``: how many members come that are not required; None:
    no limit. ``n_bits`` is at most MAX_MEMBERS.
    """

    members: tuple["Expression", ...]
    separator: "Expression"
    required: frozenset[int] = frozenset()
    rest: "Expression | None" = None
    least: int = 0
    most: int | None = None

    @property
    def n_counted(self) -> int:
        """How many members that are not required must be told apart by their number."""
        return self.least if self.most is None else self.most

    @property
    def n_bits(self) -> int:
        """Bits of memory that it takes: one for each member, and one for each number."""
        return len(self.members) + self.n_counted


@dataclass(frozen=True, slots=True)
class Until:
    """Any bytes up to the first of the markers, it included; markers: not empty.

    plain: no control token, whose name stands between bytes that no UTF-8 has (formats.py), but one
    that is a marker. without: texts that do not stand in front of the marker.
    """

    markers: tuple[bytes, ...]
    plain: bool = False
    without: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class Text:
    """Any bytes, behind each of which the answer may end; behind a mark follows its part.

    ``marks``: anywhere; text goes on behind the part, unless ``once``. ``first``: only where the
    text begins, white space before them aside; no text follows the part.
    """

    marks: "tuple[tuple[bytes, Expression], ...]"
    first: "tuple[tuple[bytes, Expression], ...]" = ()
    once: bool = False


@dataclass(frozen=True, slots=True)
class Machine:
    """States, of which each has parts that lead to others. It begins in state 0.

    No part is empty. Each state leads to an end.
    """

    edges: "tuple[tuple[tuple[Expression, int], ...], ...]"
    ends: frozenset[int]


Expression: TypeAlias = (
    Bytes | Literal | Sequence | Choice | Repeat | Call | AnyOrder | Until | Text | Machine
)

MAX_MEMBERS = 64  # bits of a frame's memory
NOTHING = Sequence(())
NEVER = Choice(())


@dataclass(frozen=True, slots=True)
class Grammar:
    """Rules by their name, and the one that an answer follows."""

    rules: dict[str, Expression]
    start: str


def is_never(part: Expression) -> bool:
    """Whether a part is NEVER."""
    return isinstance(part, Choice) and not part.parts


def sequence(*parts: Expression) -> Expression:
    """Return the parts as one, flat; literals behind each other are one."""
    flat: list[Expression] = []
    text: list[bytes] = []  # of the literals behind what is in flat
    for part in parts:
        for inner in part.parts if isinstance(part, Sequence) else (part,):
            if isinstance(inner, Literal):
                text.append(inner.text)
                continue
            if text:
                flat.append(Literal(b"".join(text)))
                text.clear()
            flat.append(inner)
    if text:
        flat.append(Literal(b"".join(text)))
    return flat[0] if len(flat) == 1 else Sequence(tuple(flat))


def choice(parts: Iterable[Expression]) -> Expression:
    """Return a choice between the parts, without those that cannot be."""
    possible = tuple(part for part in parts if not is_never(part))
    return possible[0] if len(possible) == 1 else Choice(possible)


def optional(part: Expression) -> Expression:
    """Return a part that may be missing."""
    return Repeat(part, 0, 1)


def literal(text: str) -> Expression:
    """Return exactly this text."""
    return these_bytes(text.encode("utf-8"))


def these_bytes(text: bytes) -> Expression:
    """Return exactly these bytes."""
    return Literal(text) if text else NOTHING


def characters(ranges: Iterable[Range]) -> Expression:
    """Return one character of the code points. Surrogates are no characters, and left out."""
    single: list[Range] = []
    longer: list[Expression] = []
    for first, last in ranges:
        for parts in _utf8(first, last):
            if len(parts) == 1:
                single.append(parts[0])
            else:
                longer.append(Sequence(tuple(Bytes((part,)) for part in parts)))
    return choice([*([Bytes(tuple(single))] if single else []), *longer])


def complement(ranges: Iterable[Range]) -> list[Range]:
    """Return the code points outside of the ranges, in order."""
    outside: list[Range] = []
    begin = 0
    for first, last in sorted(ranges):
        if begin < first:
            outside.append((begin, first - 1))
        begin = max(begin, last + 1)
    return [*outside, (begin, MAX_CODE_POINT)] if begin <= MAX_CODE_POINT else outside


def _utf8(first: int, last: int) -> Iterator[tuple[Range, ...]]:
    """Return the byte sequences of code points, as a range for each byte."""
    for low, high in _BY_LENGTH:
        for a, b in _without_surrogates(max(first, low), min(last, high)):
            yield from _between(chr(a).encode("utf-8"), chr(b).encode("utf-8"))


def _without_surrogates(first: int, last: int) -> Iterator[Range]:
    for a, b in ((first, min(last, _SURROGATES[0] - 1)), (max(first, _SURROGATES[1] + 1), last)):
        if a <= b:
            yield a, b


def _between(a: bytes, b: bytes) -> Iterator[tuple[Range, ...]]:
    """Return the sequences from a to b in order, which have the same length."""
    if len(a) == 1:
        yield ((a[0], b[0]),)
        return
    least, most = b"\x80" * (len(a) - 1), b"\xbf" * (len(a) - 1)
    whole: tuple[Range, ...] = ((0x80, 0xBF),) * (len(a) - 1)
    if a[0] == b[0]:
        if a[1:] == least and b[1:] == most:
            yield ((a[0], a[0]), *whole)
            return
        for rest in _between(a[1:], b[1:]):
            yield ((a[0], a[0]), *rest)
        return
    first, last = a[0], b[0]
    if a[1:] != least:
        for rest in _between(a[1:], most):
            yield ((first, first), *rest)
        first += 1
    if b[1:] != most:
        last -= 1
    if first <= last:
        yield ((first, last), *whole)
    if b[1:] != most:
        for rest in _between(least, b[1:]):
            yield ((b[0], b[0]), *rest)
