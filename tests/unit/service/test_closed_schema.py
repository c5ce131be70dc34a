"""Objects of a tool's schema have only the members that it names, where nothing else names some."""

from typing import Any

import pytest

from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.service.closed_schema import closed

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
