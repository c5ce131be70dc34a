"""What one alternative of a schema says of a value, and what two say together. Plain data."""

import itertools
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeAlias

from llamad.errors import ErrorKind, LlamadError
from llamad.sampling.constraint.languages import Language
from llamad.sampling.constraint.numbers import Bound

TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
ALL_TYPES = frozenset(TYPES) - {"integer"}  # which is a number

Place: TypeAlias = str  # JSON pointer into the document
Places: TypeAlias = tuple[Place, ...]  # sorted, all of them hold; none: any value


def refused(place: Place, message: str) -> LlamadError:
    """Return the error for a schema that is wrong or not supported."""
    where = f"schema: {place}: " if place else "schema: "
    return LlamadError(ErrorKind.INVALID, "INVALID_SCHEMA", where + message)


@dataclass(frozen=True, slots=True)
class NamePattern:
    """Of ``patternProperties``: members with such a name are what these places say."""

    place: Place
    language: Language
    inner: Places | None  # None: there are none


@dataclass(frozen=True, slots=True)
class Facts:
    """What one alternative says; the facts of a type do not matter to values of another."""

    types: frozenset[str] = ALL_TYPES
    values: tuple[object, ...] | None = None  # enum and const
    min_length: int = 0
    max_length: int | None = None
    patterns: tuple[tuple[Place, str], ...] = ()
    formats: tuple[tuple[Place, str], ...] = ()
    low: Bound | None = None
    high: Bound | None = None
    integer: bool = False
    multiples: tuple[tuple[Place, Decimal], ...] = ()
    min_items: int = 0
    max_items: int | None = None
    prefix: tuple[Places | None, ...] = ()  # of the elements at the beginning
    items: Places | None = ()  # of the others; None: there are none
    unique: Place | None = None  # of uniqueItems, where it is true
    properties: Mapping[str, Places | None] = field(default_factory=dict)  # None: must be missing
    required: tuple[str, ...] = ()
    name_patterns: tuple[NamePattern, ...] = ()
    others: Places | None = ()  # of members of other names; None: there are none
    names: Places | None = ()  # what each name must be; None: there are none
    min_properties: int = 0
    max_properties: int | None = None


ANYTHING = Facts()


def member(facts: Facts, name: str) -> Places | None:
    """Return what the member of a name must be; None: it must be missing."""
    if name in facts.properties:
        return facts.properties[name]
    matching = [p.inner for p in facts.name_patterns if p.language.accepts(name)]
    if not matching:
        return facts.others
    together: Places | None = ()
    for inner in matching:
        together = joined(together, inner)
    return together


# ---- two at once ----------------------------------------------------------------------------


def both(a: Facts, b: Facts) -> Facts | None:
    """Return what holds where both do; None: no value fits.

    Raises INVALID_SCHEMA where patterns of names meet members that another schema describes.
    """
    for one, other in ((a, b), (b, a)):
        if one is ANYTHING and other.types and other.values != ():
            return other
    for one, other in ((a, b), (b, a)):
        if one.name_patterns and (other.properties or other.name_patterns or other.others != ()):
            place = one.name_patterns[0].place
            raise refused(place, "is not supported beside members that another schema describes")
    types = a.types & b.types
    values = common(a.values, b.values)
    if not types or values == ():
        return None
    n = max(len(a.prefix), len(b.prefix))
    names = dict.fromkeys((*a.properties, *b.properties))
    return Facts(
        types=types,
        values=values,
        min_length=max(a.min_length, b.min_length),
        max_length=_least(a.max_length, b.max_length),
        patterns=tuple(dict.fromkeys((*a.patterns, *b.patterns))),
        formats=tuple(dict.fromkeys((*a.formats, *b.formats))),
        low=higher(a.low, b.low),
        high=lower(a.high, b.high),
        integer=a.integer or b.integer,
        multiples=tuple(dict.fromkeys((*a.multiples, *b.multiples))),
        min_items=max(a.min_items, b.min_items),
        max_items=_least(a.max_items, b.max_items),
        prefix=tuple(joined(_element(a, i), _element(b, i)) for i in range(n)),
        items=joined(a.items, b.items),
        unique=a.unique or b.unique,
        properties={name: joined(member(a, name), member(b, name)) for name in names},
        required=tuple(dict.fromkeys((*a.required, *b.required))),
        name_patterns=a.name_patterns or b.name_patterns,
        others=joined(a.others, b.others),
        names=joined(a.names, b.names),
        min_properties=max(a.min_properties, b.min_properties),
        max_properties=_least(a.max_properties, b.max_properties),
    )


def _element(facts: Facts, i: int) -> Places | None:
    return facts.prefix[i] if i < len(facts.prefix) else facts.items


def joined(a: Places | None, b: Places | None) -> Places | None:
    """Return the places of which all hold; None: no value fits."""
    return None if a is None or b is None else tuple(sorted({*a, *b}))


def _least(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else min(a, b)


def higher(a: Bound | None, b: Bound | None) -> Bound | None:
    """Return the lower bound that holds where both do."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b, key=lambda bound: (bound.value, bound.open))


def lower(a: Bound | None, b: Bound | None) -> Bound | None:
    """Return the upper bound that holds where both do."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b, key=lambda bound: (bound.value, not bound.open))


def common(a: tuple[object, ...] | None, b: tuple[object, ...] | None) -> tuple[object, ...] | None:
    """Return the values that both list; None: neither lists any."""
    if a is None or b is None:
        return b if a is None else a
    others = set(map(identity, b))
    return tuple(value for value in a if identity(value) in others)


def identity(value: object) -> Hashable:
    """Return what two JSON values have alike that are equal: 1 and 1.0 are, 1 and true are not."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, list):
        return "list", tuple(map(identity, value))
    if isinstance(value, dict):
        return "dict", frozenset((key, identity(inner)) for key, inner in value.items())
    return "", value


def unique(values: Iterable[object]) -> list[object]:
    """Return the values without those that are equal to one before."""
    first: dict[Hashable, object] = {}
    for value in values:
        first.setdefault(identity(value), value)
    return list(first.values())


# ---- several that are alternatives ----------------------------------------------------------


def only_lists(facts: Facts) -> bool:
    """Whether an alternative says nothing but types and given values."""
    return facts.values is not None and facts == Facts(types=facts.types, values=facts.values)


def values_of(alternatives: list[Facts]) -> Iterator[object]:
    """Yield the given values of alternatives."""
    return itertools.chain.from_iterable(facts.values or () for facts in alternatives)


def with_values_at_once(alternatives: Iterable[Facts]) -> list[Facts]:
    """Return alternatives of which those that only list values of the same types are one."""
    listing: dict[frozenset[str], list[Facts]] = {}
    others = []
    for facts in alternatives:
        if only_lists(facts):
            listing.setdefault(facts.types, []).append(facts)
        else:
            others.append(facts)
    lists = (Facts(types=types, values=tuple(values_of(f))) for types, f in listing.items())
    return [*lists, *others]


def object_without(facts: Facts, name: str, other: Facts) -> Facts:
    """Return what holds of an object without a member, and of types that another has not."""
    types = facts.types - (other.types - {"object"})
    return replace(facts, types=types, properties={**facts.properties, name: None})
