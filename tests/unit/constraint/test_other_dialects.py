"""Schemas as OpenAPI, older drafts, Pydantic, zod and Rust's schemars write them."""

import json

import pytest

from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.closed_schema import closed
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.constraint.string_forms import FORM_PATTERNS
from unit.constraint.slow_automaton import SlowAutomaton

TEXT: dict[str, object] = {"type": "string"}
ONE_OF_TWO: dict[str, object] = {
    "type": "object",
    "oneOf": [
        {"properties": {"page": TEXT}, "required": ["page"]},
        {"properties": {"base": TEXT}, "required": ["base"]},
    ],
}

# schema, values that fit, values that do not
CASES: list[tuple[dict[str, object], list[object], list[object]]] = [
    ({"type": "integer", "format": "int32"}, [-(2**31), 0, 1.0, 2**31 - 1], [2**31, 0.5, "1"]),
    ({"format": "int64"}, [-(2**63), 2**63 - 1, "any"], [2**63, -(2**63) - 1]),
    ({"minimum": 0, "format": "uint8", "type": ["integer", "null"]}, [255, None], [-1, 256]),
    ({"format": "int8", "minimum": 5, "type": "integer"}, [5, 127], [4, 128]),
    ({"type": "number", "format": "uint"}, [0, 2**80], [-1, 0.5]),
    ({"type": "string", "format": "int64"}, ["12", "x"], [12]),
    ({"type": "number", "format": "double"}, [0.5, 10**30], ["x"]),
    ({"type": "string", "format": "binary"}, ["", "é"], [1]),
    ({"type": "string", "format": "no-such"}, ["", "é"], [1]),
    ({"type": "string", "format": "byte"}, ["", "YQ==", "YWI=", "YWJj"], ["YQ", "Y===", "Y Q="]),
    ({"type": "string", "format": "hostname"}, ["a", "x-1.example.com"], ["", "-a", "a--b", "a_b"]),
    ({"type": "string", "format": "uri-reference"}, ["", "a/b?c#d", "//h", "x:y"], ["a b", "%2"]),
    ({"type": "string", "format": "uri-template"}, ["/a/{id}{?q*,r:3}"], ["{", "{a b}", "{}"]),
    ({"type": "string", "format": "json-pointer"}, ["", "/a~1b/0", "/"], ["a", "/~2"]),
    ({"type": "string", "format": "relative-json-pointer"}, ["0", "1/a", "2#"], ["/a", "01"]),
    (
        {"type": "string", "format": "uuid4"},
        ["2eb8aa08-aa98-41ea-b4aa-73b441d16380"],
        ["2eb8aa08-aa98-11ea-b4aa-73b441d16380", "2eb8aa08-aa98-41ea-c4aa-73b441d16380"],
    ),
    ({"format": "date"}, ["2024-02-29", 5, None], ["2023-02-29"]),
    ({"anyOf": [{"format": "date"}, {"format": "ipv4"}], **TEXT}, ["2024-01-01", "1.2.3.4"], [""]),
    ({"propertyNames": {"format": "date"}}, [{"2024-01-01": 1}], [{"a": 1}]),
    ({"minimum": 0, "exclusiveMinimum": True, "type": "number"}, [0.5, 1], [0, -1]),
    ({"maximum": 9, "exclusiveMaximum": False, "type": "integer"}, [9], [10]),
    ({"exclusiveMaximum": True, "maximum": 9, "type": "integer"}, [8], [9]),
    (
        {"type": "integer", "minimum": -(2**63), "maximum": 2**64},
        [2**64, -5],
        [2**64 + 1, -(2**64)],
    ),
    ({"type": "number", "minimum": -1.7e308, "maximum": 3.4e38}, [3 * 10**38, -(10**60)], [10**39]),
    ({"type": "number", "maximum": 1e100}, [10**50, -1.5], []),
    ({**TEXT, "maxLength": 2**31 - 1}, ["", "abc"], [1]),
    ({"type": "array", "maxItems": 2**53 - 1}, [[], [1, 2]], [1]),
    (
        {"type": "array", "items": [TEXT, {"type": "integer"}], "additionalItems": False},
        [[], ["a"], ["a", 1]],
        [["a", 1, 2], [1]],
    ),
    (
        {"items": [TEXT], "additionalItems": {"type": "null"}, "minItems": 2},
        [["a", None], ["a", None, None]],
        [["a"], ["a", 1]],
    ),
    ({"items": [], "maxItems": 1}, [[], [3]], [[1, 2]]),
    ({"items": TEXT, "additionalItems": False}, [["a", "b"]], [[1]]),
    ({"dependencies": {"a": ["b"]}}, [{}, {"b": 1}, {"a": 1, "b": 2}], [{"a": 1}]),
    ({"properties": {"a": TEXT, "b": {"not": {}}}}, [{"a": "x"}, {}], [{"b": 1}]),
    ({"not": {"type": ["null", "string"]}, "maximum": 3}, [1, [], {}], [None, "", 4]),
    (
        {"properties": {"a": TEXT}, "unevaluatedProperties": False},
        [{}, {"a": ""}, 5],
        [{"b": 1}, {"a": "", "b": 1}],
    ),
    (
        {
            "allOf": [{"properties": {"a": TEXT}, "required": ["a"]}, {"properties": {"b": TEXT}}],
            "unevaluatedProperties": {"not": {}},
        },
        [{"a": ""}, {"a": "", "b": ""}],
        [{"b": ""}, {"a": "", "c": ""}],
    ),
    (
        {**TEXT, "pattern": r"^(?=.*\d)(?!x)[a-z0-9]+$", "maxLength": 4},
        ["a1", "1", "abc9"],
        ["abc", "x1", "abcd9", "A1"],
    ),
    ({**TEXT, "pattern": "^(?!on$).*$", "enum": ["on", "off"]}, ["off"], ["on"]),
    (ONE_OF_TWO, [{"page": "a"}, {"base": "b"}], [{"page": "a", "base": "b"}, {}, 3]),
    (
        {"oneOf": [{"required": ["a"]}, {"required": ["b"]}, {"required": ["c"]}]},
        [{"a": 1}, {"b": 1, "d": 2}, {"c": 1}],
        [{"a": 1, "b": 1}, {"b": 1, "c": 1}, {"a": 1, "c": 1}, {}, 5],
    ),
    (
        {"items": {"type": "integer", "minimum": 1, "maximum": 7}, "uniqueItems": True},
        [[], [7, 1], [1, 2, 3, 4, 5, 6, 7]],
        [[1, 1], [8], [0], [2, 3, 2]],
    ),
    ({"$schema": "http://json-schema.org/draft-04/schema#", "id": "x", **TEXT}, ["a"], [1]),
    ({"$schema": "https://spec.openapis.org/oas/3.1/dialect/base", **TEXT}, ["a"], [1]),
    ({"$ref": "#/components/schemas/A", "components": {"schemas": {"A": TEXT}}}, ["a"], [1]),
]


@pytest.mark.parametrize(("schema", "valid", "invalid"), CASES, ids=lambda v: json.dumps(v)[:60])
def test_a_value_is_taken_when_it_fits(
    schema: dict[str, object], valid: list[object], invalid: list[object]
) -> None:
    slow = SlowAutomaton(compile_grammar(parse_json_schema(schema)))
    for value in valid:
        assert slow.accepts(json.dumps(value).encode()), value
    for value in invalid:
        assert not slow.accepts(json.dumps(value).encode()), value


@pytest.mark.parametrize("keyword", ["anyOf", "oneOf"])
def test_constants_may_be_as_many_as_the_values_of_an_enum(keyword: str) -> None:
    branches = [{"const": f"value {i}", "title": f"number {i}"} for i in range(1000)]
    slow = SlowAutomaton(compile_grammar(parse_json_schema({keyword: [*branches, {"const": 1}]})))
    assert slow.accepts(b'"value 999"')
    assert slow.accepts(b"1")
    assert not slow.accepts(b'"value 1000"')


@pytest.mark.parametrize("name", FORM_PATTERNS)
def test_each_form_is_one_of_a_text(name: str) -> None:
    slow = SlowAutomaton(compile_grammar(parse_json_schema({"format": name, "type": "string"})))
    assert not slow.accepts(b'"\\n"')
    assert not slow.accepts(b'"}{"')


def test_an_integer_that_a_double_cannot_hold_has_no_point() -> None:
    """Programs read what has a point as a double: 2**63 - 1 would become 2**63."""
    schema = {"type": "integer", "maximum": 2**63 - 1}
    slow = SlowAutomaton(compile_grammar(parse_json_schema(schema)))
    assert slow.accepts(b"9223372036854775807")
    assert not slow.accepts(b"9223372036854775807.0")
    assert slow.accepts(b"922337203685477.0")


def test_tuples_and_what_is_unevaluated_are_closed_as_others_are() -> None:
    inner = {"type": "object", "properties": {"a": TEXT}}
    shut = {**inner, "additionalProperties": False}
    assert closed({"items": [inner], "additionalItems": inner}) == {
        "items": [shut],
        "additionalItems": shut,
    }
    told = {**inner, "unevaluatedProperties": TEXT}
    assert closed(told) == told


def test_the_bounds_of_integers_may_lie_between_them() -> None:
    schema = {"type": "integer", "minimum": 0.5, "maximum": 3.5}
    slow = SlowAutomaton(compile_grammar(parse_json_schema(schema)))
    assert [i for i in range(6) if slow.accepts(str(i).encode())] == [1, 2, 3]
    schema = {"type": "integer", "minimum": -3.5, "maximum": -0.5}
    slow = SlowAutomaton(compile_grammar(parse_json_schema(schema)))
    assert [i for i in range(-5, 2) if slow.accepts(str(i).encode())] == [-3, -2, -1]
