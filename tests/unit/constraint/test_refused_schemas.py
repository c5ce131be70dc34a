"""Which JSON schemas are refused, and by which words."""

import json

import pytest

from llamad.errors import LlamadError
from llamad.sampling.constraint.formats import format_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.response_format import FormatKind, ResponseFormat


def nested(depth: int) -> object:
    """Return an array in an array, and so on."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


# Each place refers twice to the one before: found once each, or it would take for ever.
BRANCHES: dict[str, object] = {"0": False}
for _i in range(60):
    BRANCHES[str(_i + 1)] = {"anyOf": [{"$ref": f"#/$defs/{_i}"}] * 2}

REFUSED: list[tuple[object, str]] = [
    ({"properties": {"a": {"if": {}}}}, "schema: /properties/a: 'if' is not supported"),
    ({"type": "strng"}, "schema: /type: 'strng' is none of object, array, string"),
    ({"type": "string", "format": "regex"}, "/format: 'regex' is not supported"),
    ({"type": "string", "format": 3}, "/format: is int, must be a text"),
    ({"type": "string", "format": "uri", "maxLength": 90}, "/format: patterns, formats and"),
    ({"pattern": "(a|b)*a(a|b){12}$", "minLength": 2}, "together need more than 4096 states"),
    ({"uniqueItems": True, "items": {"type": "string"}}, "/uniqueItems: is supported where all"),
    ({"uniqueItems": 1}, "/uniqueItems: is int, must be true or false"),
    ({"multipleOf": 0}, "/multipleOf: is 0, must be above 0"),
    ({"multipleOf": 12345}, "/multipleOf: needs more than 4096 states: fewer with"),
    ({"type": "integer", "multipleOf": 0.5}, "/multipleOf: must be an integer where the type is"),
    ({"patternProperties": {"(?=a)": {}}}, "/patternProperties/.*: character 1: look-around"),
    ({"patternProperties": {c: {} for c in "abcde"}}, "has 5 patterns, at most 4"),
    (
        {"allOf": [{"patternProperties": {"a": {}}}, {"properties": {"b": {}}}]},
        "/patternProperties/a: is not supported beside members that another schema describes",
    ),
    ({"propertyNames": {"anyOf": [{"pattern": "a"}, {"pattern": "b"}]}}, "names by alternatives"),
    ({"dependentRequired": {"a": "b"}}, "/dependentRequired/a: must be an array of texts"),
    ({"not": {"enum": [1]}}, "'not' is supported of {} and of a type only"),
    ({"not": {"type": "integer"}}, "'not' of the type integer is not supported"),
    ({"exclusiveMinimum": True}, "/exclusiveMinimum: is true without a minimum"),
    ({"dependencies": {"a": {}}}, "/dependencies/a: must be an array of texts"),
    (
        {"unevaluatedProperties": False, "anyOf": [{"properties": {"a": {}}}, {}]},
        "'unevaluatedProperties' is supported where no other schema holds for the object",
    ),
    (
        {"allOf": [{"unevaluatedProperties": False}, {"properties": {"a": {}}}]},
        "/allOf/0: 'unevaluatedProperties' is supported where no other schema holds",
    ),
    ({"pattern": "(?=a)"}, "/pattern: character 1: look-around is not supported"),
    ({"pattern": r"(a)\1"}, "/pattern: character 4: a back-reference is not supported"),
    ({"minLength": -1}, r"/minLength: is -1, must be in \[0, 1048576\]"),
    ({"minimum": 1e300}, "/minimum: is 1e.300, no number is written beyond 1e64"),
    ({"maximum": "1"}, '/maximum: is "1", must be a number'),
    ({"$ref": "#/$defs/x"}, "/[$]defs/x: is referred to, but not there"),
    ({"$ref": "http://other/x"}, "other documents are not supported"),
    ({"$schema": "http://mine"}, "another dialect"),
    ({"items": 3}, "/items: is int, must be a schema"),
    ({"required": "a"}, "/required: must be an array of texts"),
    ({"enum": []}, "no value fits"),
    ({"not": {}}, "no value fits"),
    ({"oneOf": [{"required": [str(i)]} for i in range(24)]}, "member, in up to 256 pairs"),
    ({"oneOf": [{"const": 1}, {"enum": [2, 1]}]}, "oneOf: one value may fit both 0 and 1"),
    ({"type": "string", "const": 3}, "no value fits"),
    ({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"}, "no value fits"),
    ({"oneOf": [{"minimum": 1}, {"maximum": 2}]}, "oneOf: one value may fit both 0 and 1"),
    ({"anyOf": [{"$ref": "#"}]}, "refers to itself without end"),
    ({"allOf": [{"anyOf": [{}] * 20}] * 2 + [{"anyOf": [{}] * 20}]}, "more than 256 alternatives"),
    ({"$defs": BRANCHES, "$ref": "#/$defs/60"}, "no value fits"),
    ([1], "is list, must be an object, true or false"),
    ({"pattern": "^(a+)+$", "enum": ["a" * 40 + "!"]}, "no value fits"),
    ({"properties": {"x" * 5000: {}}}, "is nested too deep, or has a name that is too long"),
    ({"const": nested(900)}, "is nested too deep"),
    ({"minProperties": 2}, "more than the 0 required properties and one is supported only where"),
    (
        {"properties": {str(i): {} for i in range(40)}, "maxProperties": 30},
        "maxProperties beside 40 properties: together at most 64",
    ),
]


@pytest.mark.parametrize(("schema", "message"), REFUSED, ids=lambda v: json.dumps(v)[:60])
def test_what_is_not_supported_is_refused_by_name(schema: object, message: str) -> None:
    with pytest.raises(LlamadError, match=message):
        parse_json_schema(schema)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e400"])
def test_what_json_has_not_is_no_schema(word: str) -> None:
    wanted = ResponseFormat(FormatKind.JSON_SCHEMA, f'{{"const": {word}}}')
    with pytest.raises(LlamadError, match=f"is no JSON: {word} is ") as caught:
        format_grammar(wanted)
    assert caught.value.reason == "INVALID_SCHEMA"
