"""Objects of a schema have only the members that it names, where nothing else names some."""

import json
from typing import Any

import pytest

from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.closed_schema import closed
from llamad.sampling.constraint.formats import format_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.response_format import FormatKind, ResponseFormat
from unit.constraint.slow_automaton import SlowAutomaton

Schema = dict[str, Any]

A: Schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
B: Schema = {"properties": {"b": {"type": "string"}}, "required": ["b"]}


def shut(schema: Schema) -> Schema:
    return {**schema, "additionalProperties": False}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (A, shut(A)),
        ({**A, "additionalProperties": True}, {**A, "additionalProperties": True}),
        ({"type": "object"}, {"type": "object"}),
        ({"items": A}, {"items": shut(A)}),
        ({"prefixItems": [A, B]}, {"prefixItems": [shut(A), shut(B)]}),
        ({"properties": {"x": A}}, shut({"properties": {"x": shut(A)}})),
        ({"anyOf": [A, B], "title": "t"}, {"anyOf": [shut(A), shut(B)], "title": "t"}),
        ({"allOf": [A], "default": {}}, {"allOf": [shut(A)], "default": {}}),
        ({"allOf": [A, B]}, {"allOf": [A, B]}),
        ({**A, "anyOf": [B, {}]}, {**A, "anyOf": [B, {}]}),
        ({"required": ["a"], "oneOf": [A, B]}, {"required": ["a"], "oneOf": [A, B]}),
        (
            {"$ref": "#/$defs/x~1y", "$defs": {"x/y": A}},
            {"$ref": "#/$defs/x~1y", "$defs": {"x/y": shut(A)}},
        ),
    ],
)
def test_what_alone_says_what_members_there_are_is_closed(schema: Schema, expected: Schema) -> None:
    assert closed(schema) == expected


def test_what_is_required_is_named_in_the_order_of_the_schema() -> None:
    schema: Schema = {"properties": {"a": A}, "required": ["z", "a", "y"]}
    names = list(closed(schema)["properties"])
    assert names == ["a", "z", "y"]
    assert closed({**schema, "additionalProperties": {}})["properties"] == {"a": shut(A)}


@pytest.mark.parametrize(
    ("text", "open_taken", "closed_taken"),
    [
        ('{"a": 1}', True, True),
        ('{"a": 1, "z": []}', True, True),
        ('{"a": 1, "z": [], "b": 2}', True, False),
        ('{"a": {}, "z": [{"b": 3}]}', False, False),
    ],
)
def test_a_format_is_closed_where_it_says_so(
    text: str, open_taken: bool, closed_taken: bool
) -> None:
    rule = json.dumps({**A, "properties": {**A["properties"], "z": {}}})
    for closes, taken in ((False, open_taken), (True, closed_taken)):
        wanted = ResponseFormat(FormatKind.JSON_SCHEMA, rule, closed_objects=closes)
        assert (
            SlowAutomaton(compile_grammar(format_grammar(wanted))).accepts(text.encode()) == taken
        )


def test_formats_that_differ_in_nothing_else_have_names_of_their_own() -> None:
    kind = FormatKind.JSON_SCHEMA
    one, other = ResponseFormat(kind, "{}"), ResponseFormat(kind, "{}", closed_objects=True)
    assert one.digest != other.digest


def test_a_definition_that_another_schema_adds_to_stays_open() -> None:
    """As OpenAPI writes inheritance; the third is found through the second."""
    definitions: Schema = {"second": {"$ref": "#/$defs/third"}, "third": A, "fourth": A}
    schema: Schema = {"allOf": [{"$ref": "#/$defs/second"}, B], "$defs": definitions}
    opened = closed(schema)
    expected: Schema = {**definitions, "fourth": shut(A)}
    assert opened == {**schema, "$defs": expected}
    parse_json_schema(opened)  # has values


def test_alternatives_beside_properties_leave_a_value() -> None:
    parse_json_schema(closed({**A, "anyOf": [B, {"properties": {"c": {}}, "required": ["c"]}]}))


def test_references_through_many_combined_ones_end() -> None:
    names = [f"d{n}" for n in range(50)]
    definitions: Schema = {
        name: {"$ref": f"#/$defs/{below}", "required": ["a"]}
        for name, below in zip(names, [*names[1:], "last"], strict=True)
    }
    schema = {"$ref": "#/$defs/d0", "$defs": {"last": A, **dict(reversed(definitions.items()))}}
    parse_json_schema(closed(schema))


@pytest.mark.parametrize(
    "schema",
    [
        True,
        None,
        3,
        [],
        {"allOf": 3},
        {"properties": []},
        {"anyOf": "x"},
        {"$ref": 3},
        {"items": 1},
    ],
)
def test_what_is_wrong_is_left_as_it_is(schema: Any) -> None:
    assert closed(schema) == schema
