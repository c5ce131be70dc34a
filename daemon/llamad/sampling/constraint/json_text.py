"""JSON (RFC 8259) as parts of a grammar: characters and how they may be spelled, numbers, values.

A subclass of ``Json`` writes the same values in another notation (call_texts.py).

White space is allowed behind ``{ [ , :`` and before ``} ]``: a space, or a new line with its
indentation. So a small model cannot write white space without end. Characters of names and of
strings with a form are spelled one way where JSON has several: as they are, if they may be.
"""

import itertools
import json
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from llamad.sampling.constraint.expression import (
    MAX_CODE_POINT,
    AnyOrder,
    Bytes,
    Call,
    Expression,
    Range,
    Repeat,
    Sequence,
    characters,
    choice,
    complement,
    is_never,
    literal,
    optional,
    sequence,
)
from llamad.sampling.constraint.facts import Place, refused
from llamad.sampling.constraint.numbers import MAX_FRACTION_DIGITS, MAX_WHOLE_DIGITS
from llamad.sampling.constraint.productive import pruned

MAX_INDENT = 20  # characters: a small model would fill an answer with them
MAX_PARTS = 50_000  # of the schemas of one grammar
_SHORT_ESCAPES = {'"': '"', "\\": "\\", "\b": "b", "\f": "f", "\n": "n", "\r": "r",
                  "\t": "t"}  # fmt: skip
_NOT_DIRECT = ((0, 0x1F), (ord('"'), ord('"')), (ord("\\"), ord("\\")))
_BEYOND_ASCII = (0x80, MAX_CODE_POINT)
_BMP_ESCAPED = ((0, 0x1F), (0x7F, 0xD7FF), (0xE000, 0xFFFF))  # may be spelled \uXXXX in names


Made = TypeVar("Made")

DIGIT = Bytes(((0x30, 0x39),))
DIGIT_1_TO_9 = Bytes(((0x31, 0x39),))
HEX_DIGIT = Bytes(((0x30, 0x39), (0x41, 0x46), (0x61, 0x66)))

_NATURAL = choice([literal("0"), sequence(DIGIT_1_TO_9, Repeat(DIGIT, 0, MAX_WHOLE_DIGITS - 1))])
_FRACTION = sequence(literal("."), Repeat(DIGIT, 1, MAX_FRACTION_DIGITS))
_EXPONENT = sequence(
    Bytes(((0x45, 0x45), (0x65, 0x65))),
    optional(Bytes(((0x2B, 0x2B), (0x2D, 0x2D)))),
    Repeat(DIGIT, 1, 2),  # with three a number may be too large for a program
)
_POINT_ZERO = optional(
    literal(".0")
)  # an integer may be written with it (JSON Schema, section 6.1.1)


class Json:
    """Values as JSON, for one grammar: what is made is kept, and forgotten with it.

    ``prefix``: of the names of the rules that its parts call.
    """

    prefix = ""
    true, false, null = "true", "false", "null"
    not_direct: tuple[Range, ...] = _NOT_DIRECT  # characters that a string has escaped only

    def __init__(self) -> None:
        self._rules: dict[str, Expression] = {}  # made when they are asked for
        self._kept: dict[Hashable, Any] = {}
        self._n_parts = 0
        self.space: Expression = self.rule("space")
        self.value, self.string = self.rule("value"), self.rule("string")
        self.number, self.integer = self.rule("number"), self.rule("integer")
        self.boolean = choice([literal(self.true), literal(self.false)])
        self.nothing = literal(self.null)

    def kept(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what was made for a key: names, patterns and numbers are often alike."""
        if key not in self._kept:
            self._kept[key] = make()
        made: Made = self._kept[key]
        return made

    def shared(self, key: Hashable, make: Callable[[], Expression]) -> Expression:
        """Return a part as a rule, made once for a key: many schemas have such values alike.

        make: makes the part, of these rules alone; NEVER, if no text fits it.
        """
        return self.kept(("shared", key), lambda: self._as_rule(make()))

    def _as_rule(self, part: Expression) -> Expression:
        known = self.rules()
        living = pruned(part, known)
        if is_never(living) or isinstance(living, Call):
            return living
        name = f"{self.prefix}shared {len(known)}"
        self._rules[name] = living
        return Call(name)

    def count(self, place: Place, n_parts: int) -> None:
        """Count values, members and states. Raises INVALID_SCHEMA at the place for too many."""
        self._n_parts += n_parts
        if self._n_parts > MAX_PARTS:
            raise refused(place, f"the schema has more than {MAX_PARTS} parts")

    @property
    def comma(self) -> Expression:
        """What stands between two members or elements."""
        return sequence(literal(","), self.space)

    @property
    def colon(self) -> Expression:
        """What stands between a name and its value."""
        return sequence(literal(":"), self.space)

    def rule(self, name: str) -> Call:
        """Return the call of one of ``rules``."""
        return Call(self.prefix + name)

    def rules(self) -> Mapping[str, Expression]:
        """Return the rules that the parts call; some text fits each."""
        if not self._rules:
            self._rules = self._made_rules()
        return self._rules

    def _made_rules(self) -> dict[str, Expression]:
        indent = Repeat(Bytes(((0x09, 0x09), (0x20, 0x20))), 0, MAX_INDENT)
        member = sequence(self.any_name(), self.colon, self.value)
        rules = {
            "space": choice([Sequence(()), literal(" "), sequence(literal("\n"), indent)]),
            "string": self.any_string(),
            "number": sequence(
                optional(literal("-")), _NATURAL, optional(_FRACTION), optional(_EXPONENT)
            ),
            "integer": sequence(optional(literal("-")), _NATURAL, _POINT_ZERO),
            "value": choice([
                self.rule("object"), self.rule("array"), self.string, self.number, self.boolean,
                self.nothing,
            ]),
            "object": self.an_object(self.repeated(member, 0, None)),
            "array": self.an_array(self.repeated(self.value, 0, None)),
            "other-characters": Repeat(self.spelled([(0, MAX_CODE_POINT)])),
            "beyond-ascii": self.spelled([_BEYOND_ASCII]),
        }  # fmt: skip
        return {self.prefix + name: part for name, part in rules.items()}

    def an_object(self, members: Expression) -> Expression:
        """Return braces around members."""
        return sequence(literal("{"), self.space, members, self.space, literal("}"))

    def an_array(self, elements: Expression) -> Expression:
        """Return brackets around elements."""
        return sequence(literal("["), self.space, elements, self.space, literal("]"))

    def repeated(self, part: Expression, least: int, most: int | None) -> Expression:
        """Return so many parts with commas between."""
        if most is not None and most < max(least, 1):
            return Sequence(()) if least == 0 else choice([])
        more = Repeat(
            sequence(self.comma, part), max(0, least - 1), None if most is None else most - 1
        )
        parts = sequence(part, more)
        return parts if least > 0 else optional(parts)

    def separated(self, parts: list[Expression]) -> Expression:
        """Return the parts with commas between."""
        out: list[Expression] = []
        for i, part in enumerate(parts):
            out += [self.comma, part] if i else [part]
        return sequence(*out)

    # ---- strings and names ----

    def text(self, inner: Expression) -> Expression:
        """Return a string of these characters."""
        return sequence(literal('"'), inner, literal('"'))

    def any_string(self) -> Expression:
        """Return a string of any characters."""
        return self.text(Repeat(self.character()))

    def any_name(self) -> Expression:
        """Return any name of a member."""
        return self.string

    def character(self) -> Expression:
        """Return a character of a string, spelled in any way; half a surrogate pair is none."""
        direct = characters(complement(self.not_direct))
        short = Bytes(tuple((ord(c), ord(c)) for c in _SHORT_ESCAPES.values()))
        escaped = [short, *(sequence(literal("u"), digits) for digits in _any_escape())]
        return choice([direct, sequence(literal("\\"), choice(escaped))])

    def spelled(self, ranges: Iterable[Range]) -> Expression:
        """Return one character of the code points, as it is or, where it cannot be, escaped."""
        key = tuple(ranges)
        return self.kept(key, lambda: self._new_spelled(key))

    def _new_spelled(self, ranges: tuple[Range, ...]) -> Expression:
        parts: list[Expression] = [
            characters(part for r in ranges for part in _without(r, self.not_direct))
        ]
        for character, escape in _SHORT_ESCAPES.items():
            if any(first <= ord(character) <= last for first, last in ranges):
                parts.append(literal("\\" + escape))
        for first, last in ranges:
            for a, b in _BMP_ESCAPED:
                low, high = max(a, first), min(b, last)
                if low <= high:
                    parts += [sequence(literal("\\u"), n) for n in _hex_numbers(low, high)]
            if last >= 0x10000:
                parts += _pairs(max(first, 0x10000) - 0x10000, last - 0x10000)
        return choice(parts)

    def spelled_text(self, text: str) -> Expression:
        """Return the characters of a text, without quotation marks."""
        parts: list[Expression] = []
        for plain, some in itertools.groupby(text, key=self._is_plain):
            if plain:
                parts.append(literal("".join(some)))
            else:
                parts += [self.spelled([(ord(c), ord(c))]) for c in some]
        return sequence(*parts)

    def _is_plain(self, character: str) -> bool:
        """Whether a character is always spelled as it is."""
        if not " " <= character <= "~":
            return False
        return not any(first <= ord(character) <= last for first, last in self.not_direct)

    def quoted(self, text: str) -> Expression:
        """Return a string of exactly this text."""
        return self.text(self.spelled_text(text))

    def name(self, text: str) -> Expression:
        """Return a member's name."""
        return self.quoted(text)

    def other_names(self, names: Iterable[str]) -> Expression:
        """Return any name but these."""
        tree: dict[str, object] = {}
        for name in names:
            node = tree
            for character in name:
                node = node.setdefault(character, {})  # type: ignore[assignment]
            node[""] = None
        return self.text(self._other_texts(tree))

    def _other_texts(self, tree: Mapping[str, object]) -> Expression:
        """Return any characters that lead to no end of the tree."""
        children = [(c, node) for c, node in tree.items() if c]
        taken = [(ord(c), ord(c)) for c, _ in children]
        if all(c.isascii() for c, _ in children):  # a rule for the rest, because it is large
            direct = self.spelled(complement([*taken, _BEYOND_ASCII]))
            others = choice([direct, self.rule("beyond-ascii")])
        else:
            others = self.spelled(complement(taken))
        parts: list[Expression] = [] if "" in tree else [Sequence(())]
        parts.append(sequence(others, self.rule("other-characters")))
        for character, node in children:
            assert isinstance(node, dict)
            first = self.spelled([(ord(character), ord(character))])
            parts.append(sequence(first, self._other_texts(node)))
        return choice(parts)

    # ---- given values ----

    def given(self, value: object) -> Expression:
        """Return exactly this value, its members in any order."""
        match value:
            case str():
                return self.quoted(value)
            case None:
                return self.nothing
            case bool():
                return literal(self.true if value else self.false)
            case int():
                return sequence(literal(str(value)), _POINT_ZERO)
            case float():
                if value == int(value):
                    return self.given(int(value))
                return literal(json.dumps(value))
            case list():
                return self.an_array(self.separated([self.given(element) for element in value]))
            case dict():
                members = [
                    sequence(self.name(k), self.colon, self.given(v)) for k, v in value.items()
                ]
                if not members:
                    return self.an_object(Sequence(()))
                required = frozenset(range(len(members)))
                return self.an_object(AnyOrder(tuple(members), self.comma, required))
        raise TypeError(type(value))


# ---- spellings of a character ---------------------------------------------------------------


def _any_escape() -> Iterator[Expression]:
    for first, last in ((0, 0xD7FF), (0xE000, 0xFFFF)):
        yield from _hex_numbers(first, last)
    for high in _hex_numbers(0xD800, 0xDBFF):
        for low in _hex_numbers(0xDC00, 0xDFFF):
            yield sequence(high, literal("\\u"), low)


def _without(range_: Range, taken: Iterable[Range]) -> Iterator[Range]:
    for first, last in complement(taken):
        low, high = max(first, range_[0]), min(last, range_[1])
        if low <= high:
            yield low, high


def _hex_numbers(first: int, last: int, n_digits: int = 4) -> Iterator[Expression]:
    """Return numbers of so many hexadecimal digits, in either case."""
    if n_digits == 1:
        yield _hex_digit(first, last)
        return
    unit = 16 ** (n_digits - 1)
    digit, end = divmod(first, unit)[0], divmod(last, unit)[0]
    if digit == end:
        if first % unit == 0 and last % unit == unit - 1:
            yield sequence(_hex_digit(digit, digit), *[HEX_DIGIT] * (n_digits - 1))
            return
        for rest in _hex_numbers(first % unit, last % unit, n_digits - 1):
            yield sequence(_hex_digit(digit, digit), rest)
        return
    if first % unit:
        for rest in _hex_numbers(first % unit, unit - 1, n_digits - 1):
            yield sequence(_hex_digit(digit, digit), rest)
        digit += 1
    whole_end = end if last % unit == unit - 1 else end - 1
    if digit <= whole_end:
        yield sequence(_hex_digit(digit, whole_end), *[HEX_DIGIT] * (n_digits - 1))
    if whole_end < end:
        for rest in _hex_numbers(0, last % unit, n_digits - 1):
            yield sequence(_hex_digit(end, end), rest)


def _hex_digit(first: int, last: int) -> Bytes:
    ranges = []
    for low, high, zero in ((0, 9, 0x30), (10, 15, 0x41 - 10), (10, 15, 0x61 - 10)):
        a, b = max(first, low), min(last, high)
        if a <= b:
            ranges.append((zero + a, zero + b))
    return Bytes(tuple(ranges))


def _pairs(first: int, last: int) -> list[Expression]:
    """Return surrogate pairs for the code points, counted from 0x10000."""
    pairs: list[Expression] = []
    while first <= last:
        high = first >> 10
        if first & 0x3FF == 0 and last >= first | 0x3FF:  # whole rows
            n = (last + 1 >> 10) - high
            ends = (high + n << 10) - 1
        else:
            n, ends = 1, min(last, first | 0x3FF)
        low = (0, 0x3FF) if n > 1 else (first & 0x3FF, ends & 0x3FF)
        for a in _hex_numbers(0xD800 + high, 0xD800 + high + n - 1):
            for b in _hex_numbers(0xDC00 + low[0], 0xDC00 + low[1]):
                pairs.append(sequence(literal("\\u"), a, literal("\\u"), b))
        first = ends + 1
    return pairs
