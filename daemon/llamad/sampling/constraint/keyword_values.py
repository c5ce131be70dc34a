"""The values of single keywords of a JSON Schema, checked, and what they say as fields of Facts.

Also as older drafts and OpenAPI write them. Keywords that hold schemas are schema_facts.py's.
"""

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any, cast

from llamad.sampling.constraint.automaton import MAX_ROUNDS
from llamad.sampling.constraint.facts import (
    ALL_TYPES,
    TYPES,
    Place,
    higher,
    lower,
    refused,
)
from llamad.sampling.constraint.numbers import MAX_WHOLE_DIGITS, Bound
from llamad.sampling.constraint.string_forms import FORM_PATTERNS

COUNTS = {
    "minLength": "min_length", "maxLength": "max_length",
    "minItems": "min_items", "maxItems": "max_items",
    "minProperties": "min_properties", "maxProperties": "max_properties",
}  # fmt: skip
MAX_LEAST = 1 << 20  # minLength and the like
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

# OpenAPI's registry of formats, and Rust's schemars; None: no bound. Other formats of numbers
# (float, double, decimal) say nothing of a value.
_INTEGER_FORMATS: dict[str, tuple[int | None, int | None]] = {
    **{f"int{n}": (-(1 << n - 1), (1 << n - 1) - 1) for n in (8, 16, 32, 64)},
    **{f"uint{n}": (0, (1 << n) - 1) for n in (8, 16, 32, 64)},
    "uint": (0, None),
}
_FURTHEST = Decimal(10) ** MAX_WHOLE_DIGITS  # no number is written beyond


def kind_of(value: object) -> str:
    """Return what a value is called in Python."""
    return type(value).__name__


def escaped(name: str) -> str:
    """Return a name as a JSON pointer has it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")


def listed_values(schema: object) -> list[object] | None:
    """Return the values that a schema lists, or more; None: it lists none."""
    assert isinstance(schema, dict)
    if "const" in schema:
        return [schema["const"]]
    values = schema.get("enum")
    return values if isinstance(values, list) else None


def children_of(place: Place, keyword: str, value: object) -> list[Place]:
    """Return the places of the schemas in an array."""
    if not isinstance(value, list) or not value:
        raise refused(f"{place}/{keyword}", "must be an array of schemas, not empty")
    return [f"{place}/{keyword}/{i}" for i in range(len(value))]


def types_of(place: Place, value: object) -> tuple[frozenset[str], bool]:
    """Return the types, and whether numbers must be integers."""
    names = value if isinstance(value, list) else [value]
    for name in names:
        if name not in TYPES:
            raise refused(place, f"{name!r} is none of {', '.join(TYPES)}")
    integer = "integer" in names and "number" not in names
    return frozenset("number" if name == "integer" else str(name) for name in names), integer


def excluded_types(place: Place, value: object) -> frozenset[str]:
    """Return what ``not`` excludes: all types, or some of them."""
    if value is True or value == {}:
        return ALL_TYPES
    if value is False:
        return frozenset()
    if not isinstance(value, dict) or value.keys() != {"type"}:
        raise refused(place, "'not' is supported of {} and of a type only")
    types, integer = types_of(f"{place}/not/type", value["type"])
    if integer:
        raise refused(place, "'not' of the type integer is not supported")
    return types


def text_of(place: Place, value: object) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise refused(place, f"is {kind_of(value)}, must be a text")
    return value


def texts_of(place: Place, value: object) -> tuple[str, ...]:
    """Return different texts."""
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise refused(place, "must be an array of texts")
    return tuple(dict.fromkeys(cast(list[str], value)))


def dependencies_of(
    place: Place, schema: Mapping[str, object]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield names of members and those that must be there with them.

    Up to draft 7 they stand in ``dependencies``, where schemas may stand, too: not supported.
    """
    for keyword in ("dependentRequired", "dependencies"):
        value, below = schema.get(keyword, {}), f"{place}/{keyword}"
        if not isinstance(value, dict):
            raise refused(below, "must be an object")
        for name, others in value.items():
            yield name, texts_of(f"{below}/{escaped(name)}", others)


def step_of(place: Place, value: object) -> Decimal:
    """Return the value of ``multipleOf``."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= 1e18:
        raise refused(place, f"is {json.dumps(value)[:40]}, must be above 0, at most 1e18")
    return Decimal(repr(value))


def is_integer_format(schema: Mapping[str, object]) -> bool:
    """Whether the format of a schema lets numbers be integers only."""
    name = schema.get("format")
    return isinstance(name, str) and name in _INTEGER_FORMATS


def format_of(said: dict[str, Any], place: Place, value: object) -> dict[str, Any]:
    """Return what a format says, of texts or of numbers.

    One that neither the standard nor OpenAPI defines is an annotation (Validation, section 7.2.3).
    """
    name = text_of(place, value)
    if name == "regex":
        raise refused(place, "'regex' is not supported")
    if name in FORM_PATTERNS:
        return {"formats": ((place, name),)}
    if name not in _INTEGER_FORMATS:
        return {}
    low, high = (None if end is None else Bound(Decimal(end)) for end in _INTEGER_FORMATS[name])
    return {
        "integer": True,
        "low": higher(said.get("low"), low),
        "high": lower(said.get("high"), high),
    }


def count_of(place: Place, keyword: str, value: object) -> dict[str, Any]:
    """Return a least or greatest number of characters, elements or members."""
    if isinstance(value, float) and value == int(value):
        value = int(value)
    is_least = keyword.startswith("min")
    most = MAX_LEAST if is_least else MAX_ROUNDS
    if not is_least and isinstance(value, int) and value > most:
        return {}  # no answer is so long
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise refused(place, f"is {json.dumps(value)[:40]}, must be in [0, {most}]")
    return {COUNTS[keyword]: value}


def bound_of(
    said: dict[str, Any], place: Place, keyword: str, schema: Mapping[str, object]
) -> dict[str, Any]:
    """Return a bound of numbers. Up to draft 4 and in OpenAPI 3.0 the exclusive ones are flags."""
    value, is_open, is_low = schema[keyword], keyword.startswith("ex"), keyword.endswith("inimum")
    if is_open and isinstance(value, bool):
        beside = "minimum" if is_low else "maximum"
        if not value:
            return {}
        if beside not in schema:
            raise refused(place, f"is true without a {beside}")
        value = schema[beside]
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise refused(place, f"is {json.dumps(value)[:40]}, must be a number")
    exact = Decimal(repr(value))
    if (exact if is_low else -exact) > _FURTHEST:
        raise refused(place, f"is {json.dumps(value)[:40]}, no number is written beyond 1e64")
    bound = Bound(max(-_FURTHEST, min(_FURTHEST, exact)), is_open)
    if is_low:
        return {"low": higher(said.get("low"), bound)}
    return {"high": lower(said.get("high"), bound)}
