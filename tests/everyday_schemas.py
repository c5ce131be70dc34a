"""300 JSON Schemas of the kinds that people send, always the same ones.

Arguments of tools, services of a smart home, nested arrays, enums, numbers with bounds, recursive
trees, optional members, formats, patterns, unions.
"""

import random
from collections.abc import Callable
from typing import Any

N_SCHEMAS = 300
Schema = dict[str, Any]

_WORDS = ("kitchen", "bath", "living room", "Küche", "on", "off", "heat", "cool", "auto", "eco",
          "red", "low", "high", "灯", 'say "hi"', "a/b", "")  # fmt: skip
_NAMES = ("entity_id", "brightness", "color_name", "rgb color", "transition", "effect", "area",
          "temperature", "hvac_mode", "message", "title", "duration", "position", "tilt", "code",
          "größe", "x-y", "enabled")  # fmt: skip
_PATTERNS = (r"^(light|switch|climate)\.[a-z0-9_]{1,20}$", r"^#[0-9a-f]{6}$", r"^\d{2}:\d{2}$",
             r"^[A-Z][a-z]{0,8}( [A-Z][a-z]{0,8})?$", r"^(?:on|off|toggle)$")  # fmt: skip


def schemas() -> list[Schema]:
    """Return them."""
    return [_KINDS[i % len(_KINDS)](random.Random(i)) for i in range(N_SCHEMAS)]


def _text(rng: random.Random) -> Schema:
    least = rng.randint(0, 3)
    return rng.choice([
        {"type": "string", "maxLength": 12},
        {"type": "string", "minLength": least, "maxLength": least + rng.randint(0, 9)},
        {"type": "string", "enum": rng.sample(_WORDS, rng.randint(1, 6))},
        {"type": "string", "pattern": rng.choice(_PATTERNS)},
        {"type": "string", "format": rng.choice(["date", "time", "date-time", "uuid"])},
        {"const": rng.choice(_WORDS)},
    ])  # fmt: skip


def _number(rng: random.Random) -> Schema:
    low = rng.choice([-273.15, -5, 0, 0.5, 1, 16, 153])
    high = low + rng.choice([0, 0.25, 1, 9, 100, 255, 6500])
    kind = rng.choice(["integer", "number"])
    if kind == "integer":
        low, high = int(low), int(high)
    return rng.choice([
        {"type": kind, "minimum": low, "maximum": high},
        {"type": kind, "exclusiveMinimum": low - 1, "maximum": high},
        {"type": kind, "minimum": low, "exclusiveMaximum": high + 1},
    ])  # fmt: skip


def _simple(rng: random.Random) -> Schema:
    return rng.choice([_text, _text, _number, lambda _: {"type": "boolean"}, _nullable])(rng)


def _nullable(rng: random.Random) -> Schema:
    return rng.choice([
        {"type": ["boolean", "null"]},
        {"anyOf": [_number(rng), {"type": "null"}]},
        {"enum": [1, "one", None, True]},
    ])  # fmt: skip


def _object(rng: random.Random, inner: Callable[[random.Random], Schema] = _simple) -> Schema:
    names = rng.sample(_NAMES, rng.randint(1, 7))
    return {
        "type": "object",
        "description": "what people write here",
        "properties": {name: inner(rng) for name in names},
        "required": rng.sample(names, rng.randint(0, len(names))),
        "additionalProperties": False,
    }


def _list(rng: random.Random) -> Schema:
    least = rng.randint(0, 2)
    items = rng.choice([_simple, _object])(rng)
    return {"type": "array", "items": items, "minItems": least, "maxItems": least + 2}


def _nested(rng: random.Random) -> Schema:
    return _object(rng, lambda inner: rng.choice([_simple, _list, _object])(inner))


def _matrix(rng: random.Random) -> Schema:
    row = {"type": "array", "items": _number(rng), "minItems": 2, "maxItems": 3}
    return {"type": "array", "items": row, "minItems": 1, "maxItems": 3}


def _tuple(rng: random.Random) -> Schema:
    prefix = [_simple(rng) for _ in range(rng.randint(1, 4))]
    least = rng.randint(0, len(prefix))
    return {"type": "array", "prefixItems": prefix, "items": False, "minItems": least}


def _tree(rng: random.Random) -> Schema:
    node: Schema = {
        "type": "object",
        "properties": {
            "value": _simple(rng),
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
        },
        "required": ["value"],
        "additionalProperties": False,
    }
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def _chain(rng: random.Random) -> Schema:
    after = {"anyOf": [{"$ref": "#"}, {"type": "null"}]}
    return {
        "type": "object",
        "properties": {"step": _text(rng), "next": after},
        "required": ["step", "next"],
        "additionalProperties": False,
    }


def _union(rng: random.Random) -> Schema:
    actions = rng.sample(("turn_on", "turn_off", "set_level", "say"), 3)
    return {"anyOf": [_action(rng, name) for name in actions]}


def _action(rng: random.Random, name: str) -> Schema:
    made = _object(rng)
    made["properties"]["action"] = {"const": name}
    made["required"] = [*made["required"], "action"]
    return made


def _combined(rng: random.Random) -> Schema:
    base = {"type": "object", "properties": {"id": _number(rng)}, "required": ["id"]}
    more = {"properties": {"note": _text(rng)}, "required": ["note"], "maxProperties": 2}
    return {"allOf": [base, more]}


def _many(rng: random.Random) -> Schema:
    names = [f"sensor_{i}" for i in range(rng.randint(8, 20))]
    return {
        "type": "object",
        "properties": {name: rng.choice([_number, _nullable])(rng) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _counted(rng: random.Random) -> Schema:
    made = _object(rng)
    made["required"] = []
    return {**made, "minProperties": 1, "maxProperties": 3}


_KINDS: tuple[Callable[[random.Random], Schema], ...] = (
    *(_object, _nested, _list, _matrix, _tuple, _tree),
    *(_chain, _union, _combined, _many, _counted, _simple),
)
