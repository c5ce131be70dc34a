"""JSON Schema to a grammar: the answer is one JSON value that the schema accepts.

A set of places of the schema becomes a rule, so that schemas may refer to each other in circles.
Members may come in any order, each once (up to MAX_MEMBERS; beyond, in the schema's order).
"""

import re
from functools import lru_cache

from llamad.errors import LlamadError
from llamad.sampling.constraint.expression import (
    MAX_MEMBERS,
    NEVER,
    NOTHING,
    AnyOrder,
    Call,
    Expression,
    Grammar,
    Repeat,
    choice,
    literal,
    optional,
    sequence,
)
from llamad.sampling.constraint.json_text import JSON, Json
from llamad.sampling.constraint.numbers import Bound, integers, numbers
from llamad.sampling.constraint.productive import without_dead_ends
from llamad.sampling.constraint.regex import parse_regex
from llamad.sampling.constraint.schema_facts import Document, Facts, Places, refused, unique
from llamad.sampling.constraint.string_forms import FORM_PATTERNS, MAX_FORM_LENGTH

MAX_PARTS = 20_000  # values, members of objects, characters of the names that others must not have
MAX_NAMES = 1_000  # of members in one object


def parse_json_schema(schema: object) -> Grammar:
    """Return the grammar of the values that a schema accepts.

    schema: as json.loads returns it. Raises INVALID_SCHEMA with the place and the keyword.
    """
    try:
        rules = SchemaRules(Document(schema))
        grammar = without_dead_ends(rules.grammar(), JSON.rules())
    except RecursionError:
        raise refused("", "is nested too deep, or has a name that is too long") from None
    if grammar is None:
        raise refused("", "no value fits")
    return grammar


def any_json(*, object_only: bool) -> Grammar:
    """Return the grammar of any JSON value, or of any object."""
    return Grammar(JSON.rules(), "object" if object_only else "value")


class SchemaRules:
    """Makes a rule for each set of places of a schema that is met."""

    def __init__(self, document: Document, notation: Json = JSON, prefix: str = "schema ") -> None:
        """prefix: of the names of the rules that are this schema's."""
        self._document = document
        self._notation = notation
        self._prefix = prefix
        self._rules = notation.rules()
        self._pending: list[tuple[str, Places]] = []
        self._n_parts = 0
        self._other_names: dict[frozenset[str], Call] = {}

    def grammar(self) -> Grammar:
        """Return the grammar of the values that the schema accepts."""
        start = self.value(("",))
        assert isinstance(start, Call)
        return Grammar(self.rules(), start.rule)

    def rules(self) -> dict[str, Expression]:
        """Return all rules that what was asked for needs."""
        while self._pending:
            name, places = self._pending.pop()
            alternatives = self._document.alternatives(places)
            self._rules[name] = choice(self._of_facts(facts, places) for facts in alternatives)
        return self._rules

    def value(self, places: Places | None) -> Expression:
        """Return the values that all of these places accept."""
        if places is None:
            return NEVER
        if not places:
            return self._notation.value
        places = self._document.meant(places)
        name = self._prefix + " & ".join(places)
        if name not in self._rules:
            self._count(places, 1)
            self._rules[name] = NEVER
            self._pending.append((name, places))
        return Call(name)

    def _count(self, places: Places, n_parts: int) -> None:
        self._n_parts += n_parts
        if self._n_parts > MAX_PARTS:
            raise refused(places[0], f"the schema has more than {MAX_PARTS} parts")

    def _of_facts(self, facts: Facts, places: Places) -> Expression:
        if facts.values is not None:
            return self._of_values(facts, places)
        parts: list[Expression] = []
        if "object" in facts.types:
            parts.append(self._object(facts, places))
        if "array" in facts.types:
            parts.append(self._array(facts))
        if "string" in facts.types:
            parts.append(self._string(facts))
        if "number" in facts.types:
            parts.append(self._number(facts))
        if "boolean" in facts.types:
            parts.append(self._notation.boolean)
        if "null" in facts.types:
            parts.append(self._notation.nothing)
        return choice(parts)

    def _of_values(self, facts: Facts, places: Places) -> Expression:
        values = [v for v in unique(facts.values or ()) if _fits(v, facts, places[0])]
        return choice(self._notation.given(value) for value in values)

    def _array(self, facts: Facts) -> Expression:
        least, most = facts.min_items, facts.max_items
        others = self.value(facts.items)
        if facts.items is None:
            most = len(facts.prefix) if most is None else min(most, len(facts.prefix))
        if most is not None and most < least:
            return NEVER
        n = len(facts.prefix) if most is None else min(len(facts.prefix), most)
        if n == 0:
            return self._notation.an_array(self._notation.repeated(others, least, most))
        more = Repeat(
            sequence(self._notation.comma, others),
            max(0, least - n),
            None if most is None else most - n,
        )
        elements: Expression = NOTHING if most == n else more
        for i in reversed(range(n)):
            element = self.value(facts.prefix[i])
            if i > 0:
                element = sequence(self._notation.comma, element)
            elements = sequence(element, elements)
            if i >= least:
                elements = optional(elements)
        return self._notation.an_array(elements)

    def _object(self, facts: Facts, places: Places) -> Expression:
        notation = self._notation
        names = member_names(facts, places)
        self._count(places, len(names))
        rest = None
        if facts.others is not None:
            name = self._names_but(names, places) if names else notation.any_name()
            rest = sequence(name, notation.colon, self.value(facts.others))
        members = [
            sequence(notation.name(name), notation.colon, self.value(member_places(facts, name)))
            for name in names
        ]
        return notation.an_object(self.members(facts, places, members, rest, notation.comma))

    def _names_but(self, names: list[str], places: Places) -> Expression:
        """Return any name but these: a rule, because it is large and objects are often alike."""
        key = frozenset(names)
        if key not in self._other_names:
            self._count(places, sum(map(len, names)))
            rule = f"{self._prefix}other names {len(self._other_names)}"
            self._rules[rule] = self._notation.other_names(names)
            self._other_names[key] = Call(rule)
        return self._other_names[key]

    def members(
        self,
        facts: Facts,
        places: Places,
        members: list[Expression],
        rest: Expression | None,
        separator: Expression,
    ) -> Expression:
        """Return the members that an object has, those of ``member_names``, between separators.

        rest: a member of another name; None: there is none.
        """
        names = member_names(facts, places)
        required = frozenset(names.index(name) for name in facts.required)
        least = max(0, facts.min_properties - len(required))
        most = None if facts.max_properties is None else facts.max_properties - len(required)
        if most is not None and most < least:
            return NEVER
        if most is not None and rest is None and most >= len(members) - len(required):
            most = None  # it cannot be more
        if rest is not None and least > 1:  # the same name may come twice, and is one property
            raise refused(
                places[0],
                f"minProperties of more than the {len(required)} required properties and one is"
                " supported only where additionalProperties is false",
            )
        any_order = AnyOrder(tuple(members), separator, required, rest, least, most)
        if any_order.n_bits <= MAX_MEMBERS:
            return any_order
        if least > 0 or most is not None:
            raise refused(
                places[0],
                f"minProperties or maxProperties beside {len(members)} properties: together at"
                f" most {MAX_MEMBERS}",
            )
        return self._in_order(places, members, required, rest, separator)

    def _in_order(
        self,
        places: Places,
        members: list[Expression],
        required: frozenset[int],
        rest: Expression | None,
        separator: Expression,
    ) -> Expression:
        """Return members in their order, of which some may be missing, and others behind them.

        From each on there are two rules: for members behind a comma, and for the first one.
        """
        others = NOTHING if rest is None else Repeat(sequence(separator, rest))
        first = NOTHING if rest is None else optional(sequence(rest, others))
        name = f"{self._prefix}members of {places} from "
        self._rules[f"{name}{len(members)}"] = others
        self._rules[f"{name}{len(members)} first"] = first
        for i, member in reversed(list(enumerate(members))):
            more = Call(f"{name}{i + 1}")
            begins, follows = sequence(member, more), sequence(separator, member, more)
            if i not in required:
                begins = choice([begins, Call(f"{name}{i + 1} first")])
                follows = choice([follows, more])
            self._rules[f"{name}{i}"], self._rules[f"{name}{i} first"] = follows, begins
        return Call(f"{name}0 first")

    def _string(self, facts: Facts) -> Expression:
        characters = string_characters(facts, self._notation)
        return self._notation.string if characters is None else self._notation.text(characters)

    def _number(self, facts: Facts) -> Expression:
        low, high = facts.low, facts.high
        if not facts.integer:
            unbounded = low is None and high is None
            return self._notation.number if unbounded else numbers(low, high)
        if low is None and high is None:
            return self._notation.integer
        return _integer(low, high)


def member_names(facts: Facts, places: Places) -> list[str]:
    """Return the names of the members that an object may or must have."""
    names = list(dict.fromkeys((*facts.properties, *facts.required)))
    if len(names) > MAX_NAMES:
        raise refused(places[0], f"has {len(names)} properties, at most {MAX_NAMES}")
    return names


def member_places(facts: Facts, name: str) -> Places | None:
    """Return what a member must be; None: it must be missing."""
    return facts.properties.get(name, facts.others)


# ---- strings and numbers --------------------------------------------------------------------


def string_characters(facts: Facts, notation: Json) -> Expression | None:
    """Return the characters of the strings that these facts accept; None: any."""
    forms = len(facts.patterns) + len(facts.formats)
    bounded = facts.min_length > 0 or facts.max_length is not None
    place = (*facts.patterns, *facts.formats, ("", ""))[0][0]
    if forms > 1:
        raise refused(place, "two patterns or formats for one value are not supported")
    if facts.formats:
        if facts.min_length > 1 or (facts.max_length or MAX_FORM_LENGTH) < MAX_FORM_LENGTH:
            raise refused(place, "a format beside minLength or maxLength is not supported")
        return _pattern(f"^(?:{FORM_PATTERNS[facts.formats[0][1]]})$", notation)
    if facts.patterns:
        if bounded:
            raise refused(place, "a pattern beside minLength or maxLength is not supported")
        try:
            return _pattern(facts.patterns[0][1], notation)
        except LlamadError as error:
            raise refused(place, error.message.removeprefix("pattern: ")) from None
    if not bounded:
        return None
    if facts.max_length is not None and facts.max_length < facts.min_length:
        return NEVER
    return Repeat(notation.character(), facts.min_length, facts.max_length)


@lru_cache(maxsize=32)  # tools often have one pattern many times
def _pattern(pattern: str, notation: Json) -> Expression:
    return parse_regex(pattern, notation.spelled)


def _integer(low: Bound | None, high: Bound | None) -> Expression:
    least = most = None
    if low is not None:
        least = -int(-low.value // 1)
        least += 1 if low.open and least == low.value else 0
    if high is not None:
        most = int(high.value // 1)
        most -= 1 if high.open and most == high.value else 0
    if least is not None and most is not None and most < least:
        return NEVER
    return sequence(integers(least, most), optional(literal(".0")))


# ---- given values ---------------------------------------------------------------------------


def _fits(value: object, facts: Facts, place: str) -> bool:
    """Whether a value of ``enum`` or ``const`` is what the other keywords say."""
    match value:
        case bool():
            return "boolean" in facts.types
        case None:
            return "null" in facts.types
        case int() | float():
            return "number" in facts.types and _number_fits(value, facts)
        case str():
            if facts.patterns:  # of another dialect than Python's, and it may take for ever
                raise refused(facts.patterns[0][0], "is not supported beside enum or const")
            return "string" in facts.types and _string_fits(value, facts)
        case list():
            if "array" in facts.types and _has_array_facts(facts):
                raise refused(place, "an array among the values beside items is not supported")
            return "array" in facts.types and facts.min_items <= len(value) <= (
                len(value) if facts.max_items is None else facts.max_items
            )
    if "object" in facts.types and (facts.properties or facts.required or facts.others != ()):
        raise refused(place, "an object among the values beside properties is not supported")
    assert isinstance(value, dict)
    return "object" in facts.types and facts.min_properties <= len(value) <= (
        len(value) if facts.max_properties is None else facts.max_properties
    )


def _has_array_facts(facts: Facts) -> bool:
    return bool(facts.prefix) or facts.items != ()


def _number_fits(value: float, facts: Facts) -> bool:
    if facts.integer and value != int(value):
        return False
    low, high = facts.low, facts.high
    above = low is None or value > low.value or (value == low.value and not low.open)
    return above and (high is None or value < high.value or (value == high.value and not high.open))


def _string_fits(value: str, facts: Facts) -> bool:
    if len(value) < facts.min_length:
        return False
    if facts.max_length is not None and len(value) > facts.max_length:
        return False
    forms = [FORM_PATTERNS[name] for _, name in facts.formats]
    return all(re.fullmatch(form, value) is not None for form in forms)
