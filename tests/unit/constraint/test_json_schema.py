"""Which JSON values a schema's grammar takes."""

import ipaddress
import json
import random
import re

import pytest

from llamad.errors import LlamadError
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.facts import Facts, unique
from llamad.sampling.constraint.json_schema import any_json, parse_json_schema
from llamad.sampling.constraint.schema_facts import Document
from llamad.sampling.constraint.string_forms import FORM_PATTERNS
from unit.constraint.slow_automaton import SlowAutomaton


def spellings(value: object) -> set[str]:
    """Return how Python's json writes a value."""
    return {
        json.dumps(value),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
        json.dumps(value, indent=2),
    }


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "integer"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}
LAMP = {
    "type": "object",
    "properties": {
        "entity_id": {"type": "string", "pattern": r"^light\.[a-z0-9_]+$"},
        "brightness": {"type": "integer", "minimum": 0, "maximum": 255},
        "color": {"type": "array", "items": {"type": "number"}, "minItems": 3, "maxItems": 3},
    },
    "required": ["entity_id"],
}
BIG = {
    "type": "object",
    "properties": {f"p{i}": {"type": "integer"} for i in range(70)},
    "required": ["p3", "p69"],
    "additionalProperties": False,
}

# schema, values that fit, values that do not
CASES: list[tuple[object, list[object], list[object]]] = [
    (True, [1, "a", {"a": [None]}], []),
    ({}, [1, [], {}], []),
    ({"type": "null"}, [None], [0, "null", False]),
    ({"type": ["string", "integer"]}, ["", 'é😀"\\\n', -3, 1.0], [1.5, None, True]),
    ({"type": "integer", "minimum": -5, "maximum": 120}, [-5, 0, 9, 99, 120], [-6, 121, 1000]),
    ({"type": "integer", "exclusiveMinimum": 9}, [10, 99999999], [9, 0, -10]),
    ({"type": "integer", "maximum": -1}, [-1, -7, -123456], [0, 1]),
    ({"minimum": 1.25}, [1.25, 1.3, 2, 10.01, "a"], [1.2, 1.249, 0, -2]),
    (
        {"type": "number", "exclusiveMinimum": -0.5, "maximum": 0.75},
        [-0.49, 0, 0.5, 0.75],
        [-0.5, 0.751, 1, -1],
    ),
    ({"exclusiveMaximum": 3}, [2.999, -100, 0], [3, 3.0, 3.5]),
    ({"enum": ["a", 1, None, [1], {"x": 2}]}, ["a", 1, 1.0, None, [1], {"x": 2}], ["b", [], {}]),
    ({"const": False}, [False], [0, None, True]),
    ({"type": "string", "enum": ["on", 3]}, ["on"], [3, "off"]),
    ({"minLength": 2, "maxLength": 4}, ["ab", "😀😀", "é\n\té", 7], ["a", "abcde", "😀"]),
    ({"pattern": "a+b"}, ["xxaab!", "ab", 3], ["ba", "", "b"]),
    ({"pattern": r"^[^\d\s]{2,3}$"}, ["äb", '"\\/'], ["a", "a1", "abcd", "a "]),
    ({"pattern": r"^(?:ab|c)*\.(?<x>d)?$"}, [".", "abc.d"], ["a.", "."[:0]]),
    (
        {"type": "string", "format": "date"},
        ["2024-02-29", "2000-02-29", "1999-12-31"],
        ["2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "24-01-01"],
    ),
    (
        {"type": "string", "format": "date-time"},
        ["2024-02-29T23:59:59Z", "2024-01-01t00:00:00.25+02:00"],
        ["2024-02-29 23:59:59Z", "2024-02-29T24:00:00Z", "2024-02-29T23:59:59"],
    ),
    (
        {"type": "string", "format": "uuid"},
        ["2eb8aa08-aa98-11ea-b4aa-73b441d16380"],
        ["2eb8aa08-aa98-11ea-b4aa-73b441d1638", "2eb8aa08aa9811eab4aa73b441d16380"],
    ),
    (
        {"type": "string", "format": "duration"},
        ["P1D", "PT1H30M", "P1Y2M3DT4H5M6S", "P2W", "PT0S"],
        ["P", "PT", "P1", "1D", "P1H", "PT1D", "P1W2D", "P1DT", "P1Y3D"],
    ),
    (
        {"type": "string", "format": "email"},
        ["a@b.de", "joe.bloggs@example.com", "a+b@x-y.co.uk"],
        ["a", "@b.de", "a@b", "a..b@c.de", "a@-b.de", "a b@c.de", "a@b.de."],
    ),
    (
        {"type": "string", "format": "ipv4"},
        ["0.0.0.0", "192.168.1.255"],
        ["256.1.1.1", "01.2.3.4", "1.2.3", "1.2.3.4.5"],
    ),
    (
        {"type": "string", "format": "ipv6"},
        ["::", "fe80::1:2", "1:2:3:4:5:6:7:8", "::ffff:1.2.3.4", "1:2:3:4:5:6:7::"],
        ["1", "1:::2", "g::", "1::2::3", "12345::", "1:2:3:4:5:6:7:8::", "::1.2.3"],
    ),
    (
        {"type": "string", "format": "uri", "minLength": 1, "maxLength": 2083},  # as Pydantic's
        ["https://a.de/b/c?d=e#f", "mailto:a@b.de", "urn:isbn:1", "http://x:80", "file:///x%20y"],
        ["a", "//a.de", "http://a b", "http://a:x/", "http://[::1", "https://a.de/%2"],
    ),
    ({"type": "array", "items": {"type": "integer"}, "minItems": 1}, [[1], [1, 2, 3]], [[], ["a"]]),
    (
        {"prefixItems": [{"type": "integer"}, {"type": "string"}], "items": False},
        [[], [1], [1, "a"]],
        [["a"], [1, "a", 2]],
    ),
    (
        {"prefixItems": [{"type": "integer"}], "items": {"type": "string"}, "minItems": 2},
        [[1, "a"], [1, "a", "b"]],
        [[1], ["a", "a"], [1, 2]],
    ),
    (
        {"properties": {"a": {"type": "integer"}, 'q"\\': {"type": "string"}}, "required": ["b"]},
        [{"b": 0}, {"b": [], "a": 1}, {"a": 1, "b": 2, "aa": "x", "": 3, 'q"\\': "", "ä": 1}, 5],
        [{}, {"a": 1}, {"a": "x", "b": 1}, {'q"\\': 1, "b": 1}],
    ),
    (
        LAMP,
        [
            {"entity_id": "light.a_1", "color": [1, 2.5, 0]},
            {"brightness": 7, "entity_id": "light.x"},
        ],
        [{"entity_id": "lamp.a"}, {"entity_id": "light.x", "color": [1, 2]}, {"brightness": 7}],
    ),
    (
        TREE,
        [{"value": 1}, {"children": [{"value": 2, "children": []}], "value": 1}],
        [{"value": 1, "children": [{}]}, {"value": 1, "x": 1}],
    ),
    ({"minProperties": 1, "maxProperties": 2}, [{"a": 1}, {"a": 1, "b": 2}, 3], [{}]),
    (
        {"maxProperties": 2, "required": ["a"]},
        [{"a": 1}, {"a": 1, "b": 2}, {"c": 0, "a": 1}],
        [{}, {"b": 1}, {"a": 1, "b": 2, "c": 3}, {"b": 1, "c": 2}, {"b": 1, "c": 2, "a": 3}],
    ),
    (
        {
            "properties": {name: {"type": "integer"} for name in "abcd"},
            "required": ["a"],
            "minProperties": 3,
            "maxProperties": 3,
            "additionalProperties": False,
        },
        [{"a": 1, "b": 2, "c": 3}, {"d": 1, "b": 2, "a": 3}],
        [{"a": 1}, {"a": 1, "b": 2}, {"b": 1, "c": 2, "d": 3}, dict.fromkeys("dcba", 1)],
    ),
    ({"maxProperties": 1, "required": ["a"]}, [{"a": 1}], [{}, {"b": 1}, {"a": 1, "b": 1}]),
    ({"type": "object", "maxProperties": 0}, [{}], [{"a": 1}]),
    ({"enum": [{}, {"a": 1}], "minProperties": 1}, [{"a": 1}], [{}]),
    (
        BIG,
        [{"p3": 1, "p69": 2}, {"p0": 0, "p3": 1, "p68": 3, "p69": 2}],
        [{"p3": 1}, {"p69": 1}, {}],
    ),
    (
        {
            "allOf": [
                {"properties": {"a": {"type": "integer"}}},
                {"properties": {"a": {"maximum": 3}}},
            ]
        },
        [{"a": 3}, {}, {"a": -1, "b": 1}],
        [{"a": 4}, {"a": "x"}],
    ),
    (
        {"type": "object", "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
        [{"a": 1}, {"b": 1}, {"a": 1, "b": 2}],
        [{}, {"c": 1}],
    ),
    (
        {
            "oneOf": [
                {
                    "properties": {"kind": {"const": "a"}, "x": {"type": "integer"}},
                    "required": ["kind", "x"],
                    "type": "object",
                },
                {"properties": {"kind": {"const": "b"}}, "required": ["kind"], "type": "object"},
            ]
        },
        [{"kind": "a", "x": 1}, {"kind": "b"}],
        [{"kind": "a"}, {"kind": "c"}, {}],
    ),
    (
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"$ref": "#"}}]},
        ["a", [["b"], []]],
        [1, [1]],
    ),
    ({"type": "string", "nullable": True}, ["a", None], [1]),
    ({"properties": {"a": False}}, [{}, {"b": 1}], [{"a": 1}]),
    ({"allOf": [{"prefixItems": [{}]}, {"items": False}]}, [[], {}], [[1]]),
    # strings by several keywords, as zod writes them
    (
        {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 4},
        ["ab", "abcd"],
        ["a", "abcde", "A1", ""],
    ),
    ({"type": "string", "pattern": "[0-9]", "maxLength": 3}, ["1", "a1b", '"2"'], ["abcd1", "ab"]),
    (
        {"type": "string", "format": "uuid", "pattern": "^[0-9a-f]{8}-0000-4"},
        ["2eb8aa08-0000-41ea-b4aa-73b441d16380"],
        ["2eb8aa08-0001-41ea-b4aa-73b441d16380", "2EB8AA08-0000-41ea-b4aa-73b441d16380"],
    ),
    (
        {"type": "string", "format": "date-time", "maxLength": 20},
        ["2024-01-01T00:00:00Z"],
        ["2024-01-01T00:00:00.5Z"],
    ),
    ({"enum": ["on", "off", "1", 2], "pattern": "^o"}, ["on", "off", 2], ["1"]),
    # multiples
    ({"multipleOf": 7}, [0, 7, -14, 70000, 7.0, "a"], [1, 8, 7.5, -13]),
    ({"multipleOf": 0.01}, [0, 0.01, -14.25, 7.1], [0.001, 7.505]),
    ({"multipleOf": 1.5}, [0, 1.5, 3, -4.5], [1, 35, 0.5]),
    (
        {"type": "integer", "multipleOf": 5, "minimum": 0, "maximum": 255},
        [0, 5, 255, 100.0],
        [256, 3, 260, -5, 2.5],
    ),
    (
        {"type": "number", "multipleOf": 0.5, "exclusiveMinimum": 5, "maximum": 30},
        [5.5, 29.5, 30],
        [5, 30.5, 5.25, 4.5],
    ),
    ({"allOf": [{"multipleOf": 4}, {"multipleOf": 6}], "type": "integer"}, [0, 12, -120], [4, 6]),
    ({"enum": [1, 10, 0.3, 1e30, "a"], "multipleOf": 0.1}, [1, 10, 0.3, "a"], [0.2]),
    ({"enum": [0.3, 0.25], "multipleOf": 0.1}, [0.3], [0.25]),
    # sets
    (
        {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b", 1]}, "minItems": 1},
        [["a"], ["b", "a", 1]],
        [[], ["a", "a"], ["a", "b", "a"], [1, 1.0], ["c"]],
    ),
    (
        {"uniqueItems": True, "items": {"type": ["boolean", "null"]}, "maxItems": 2},
        [[], [True, False], [None, True], 3],
        [[True, True], [True, False, None], [1]],
    ),
    ({"uniqueItems": True, "items": {"type": "string"}, "maxItems": 1}, [[], ["a"]], [["a", "b"]]),
    ({"uniqueItems": False}, [[1, 1]], []),
    ({"enum": [[1, 1], [1, 2], [[1], [1.0]]], "uniqueItems": True}, [[1, 2]], [[1, 1], [[1], [1]]]),
    # members
    (
        {"dependentRequired": {"a": ["b"], "c": ["a"]}},
        [{}, {"b": 1}, {"a": 1, "b": 2}, {"b": 1, "c": 0, "a": 2}, [], "a"],
        [{"a": 1}, {"c": 1}, {"c": 1, "a": 1}],
    ),
    (
        {"patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": False},
        [{}, {"x": 1}, {"xy": 2, "x": 1}],
        [{"x": "a"}, {"y": 1}],
    ),
    (
        {
            "patternProperties": {"^x": {"type": "integer"}, "y$": {"maximum": 5}},
            "properties": {"xa": {"minimum": 3}},
            "additionalProperties": {"type": "string"},
            "required": ["xq"],
        },
        [{"xq": 1}, {"xq": 1, "xy": 2}, {"xa": 3, "xq": 0, "z": "a", "zy": 3, 'é"y': "s"}],
        [
            {"xq": "a"},
            {"xq": 1, "z": 1},
            {"xq": 1, "xy": 7},
            {"xq": 1, "xa": 2},
            {"xq": 1, "y": 9},
            {"xq": 1, "xa": "a"},
            {"x": 1},
        ],
    ),
    (
        {"propertyNames": {"enum": ["a", "b"]}, "additionalProperties": {"type": "integer"}},
        [{}, {"a": 1}, {"b": 2, "a": 1}],
        [{"a": "a"}, {"c": 1}, {"a": 1, "a ": 1}],
    ),
    (
        {"propertyNames": {"maxLength": 2}, "properties": {"abc": {}, "a": {"type": "null"}}},
        [{}, {"a": None}, {'é"': 2, "b": 1}],
        [{"abc": 1}, {"a": 1}, {"abd": 1}],
    ),
    ({"propertyNames": False}, [{}, 1], [{"a": 1}, {"": 1}]),
    # a discriminator of OpenAPI is a hint, as Pydantic writes it
    (
        {
            "oneOf": [
                {"type": "object", "properties": {"t": {"const": t}}, "required": ["t"]}
                for t in "ab"
            ],
            "discriminator": {"propertyName": "t"},
        },
        [{"t": "a"}, {"t": "b"}],
        [{"t": "c"}],
    ),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES, ids=lambda v: json.dumps(v)[:60])
def test_a_value_is_taken_when_it_fits(
    schema: object, valid: list[object], invalid: list[object]
) -> None:
    slow = SlowAutomaton(compile_grammar(parse_json_schema(schema)))
    for value in valid:
        for text in spellings(value):
            assert slow.accepts(text.encode()), text
    for value in invalid:
        for text in spellings(value):
            assert not slow.accepts(text.encode()), text


def test_an_ipv6_address_is_what_python_takes_for_one() -> None:
    rng, n_good = random.Random(1), 0
    for _ in range(3000):
        parts = rng.choices(["", "1", "ab", "1234", "0", "1.2.3.4"], k=rng.randint(1, 10))
        text = ":".join(parts)
        good = is_ipv6(text)
        assert bool(re.fullmatch(FORM_PATTERNS["ipv6"], text)) == good
        n_good += good
    assert n_good > 100


def is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text)) or True
    except ValueError:
        return False


def test_alternatives_that_a_member_tells_apart_are_not_combined_two_by_two(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    n_combined = 0

    def counted(self: Document, place: str, a: Facts, b: Facts) -> Facts | None:
        nonlocal n_combined
        n_combined += 1
        return both(self, place, a, b)

    both = Document._both
    monkeypatch.setattr(Document, "_both", counted)
    kinds = [
        {"type": "object", "properties": {"k": {"const": i}, "v": {}}, "required": ["v", "k"]}
        for i in range(100)
    ]
    slow = SlowAutomaton(compile_grammar(parse_json_schema({"oneOf": kinds})))
    assert n_combined < 1000  # of 4,950 pairs
    assert slow.accepts(b'{"k": 99, "v": 1}')
    with pytest.raises(LlamadError, match="oneOf: one value may fit both 3 and 100"):
        parse_json_schema({"oneOf": [*kinds, {**kinds[3], "properties": {"k": {"enum": [3]}}}]})


def test_any_json_is_json_and_an_object_is_one() -> None:
    values = SlowAutomaton(compile_grammar(any_json(object_only=False)))
    objects = SlowAutomaton(compile_grammar(any_json(object_only=True)))
    for text in ("{}", '{"a": [1, -2.5e+10, null, true, "\\u00e9\\ud83d\\ude00"]}'):
        assert values.accepts(text.encode())
        assert objects.accepts(text.encode())
    for text in ("[1, 2]", "0", '"a"', "-0.1"):
        assert values.accepts(text.encode())
        assert not objects.accepts(text.encode())
    for text in (
        "",
        "01",
        "{,}",
        "[1,]",
        '"\\ud83d"',
        '"\n"',
        "nul",
        "{'a': 1}",
        "+1",
        "1.",
        '"\\x"',
    ):
        assert not values.accepts(text.encode()), text


@pytest.mark.parametrize("schema", [{"type": "number"}, {"minimum": -1, "maximum": 5}])
def test_the_digits_of_a_number_end(schema: dict[str, object]) -> None:
    slow = SlowAutomaton(compile_grammar(parse_json_schema({"type": "number", **schema})))
    assert slow.accepts(b"-0." + b"0" * 17)
    assert not slow.accepts(b"-0." + b"0" * 18)
    assert slow.accepts(b"0.1234567890123456")


@pytest.mark.parametrize("schema", [{}, {"minimum": 7}])
def test_the_digits_of_an_integer_end(schema: dict[str, object]) -> None:
    slow = SlowAutomaton(compile_grammar(parse_json_schema({"type": "integer", **schema})))
    assert slow.accepts(b"1" + b"0" * 63)
    assert not slow.accepts(b"1" + b"0" * 64)


def test_thousands_of_values_are_told_apart_at_once() -> None:
    """Each was compared with all before it: minutes, on the thread that encodes all prompts."""
    values = [f"v{i}" for i in range(20_000)]
    automaton = compile_grammar(parse_json_schema({"enum": [*values, *values]}))
    assert automaton.n_states < 10 * len(values)


def test_values_are_equal_as_json_says() -> None:
    same = [1, 1.0, [1, {"a": 1}], [1.0, {"a": 1.0}]]
    other = [True, "1", [True], {"a": 1, "b": 1}, None, [1, {"a": True}]]
    assert unique([*same, *other]) == [1, [1, {"a": 1}], *other]
