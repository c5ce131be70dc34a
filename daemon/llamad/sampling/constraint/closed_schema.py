"""A schema whose objects have only the members that it names, unless it says that they have others.

JSON Schema lets an object have any others; a small model would write some until its length ends it.
What is required is named, too. Where several schemas hold for one object they are left as they are,
because each would exclude the members of the others: those that ``allOf``, ``anyOf``, ``oneOf`` or
``$ref`` add to what stands beside them.
"""

from typing import Any

from llamad.sampling.constraint.schema_facts import ANNOTATIONS

_COMBINING = frozenset({"allOf", "anyOf", "oneOf", "$ref", "not", "if"})
_SAYS_NO_MEMBER = ANNOTATIONS | {"type", "nullable", "$schema", "$id", "id"}
_OF_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions"})
_OTHERS = "additionalProperties"
_SAYS_OTHERS = frozenset({_OTHERS, "unevaluatedProperties"})
_OF_LISTS = frozenset({"allOf", "anyOf", "oneOf", "items", "prefixItems"})
_MOST_PASSES = 8  # over schemas that refer to others that refer to others, combined


def closed(schema: Any) -> Any:
    """Return the closed schema of a document. What is wrong in it is left as it is."""
    closing = _Closing()
    for _ in range(_MOST_PASSES):
        n_shared = len(closing.shared)
        result = closing.schema(schema, "#", alone=True)
        if len(closing.shared) == n_shared:
            return result
    return schema


class _Closing:
    """One document. shared: the pointers of schemas that hold for objects beside others."""

    def __init__(self) -> None:
        self.shared: set[str] = set()

    def schema(self, schema: Any, place: str, *, alone: bool) -> Any:
        """Return the schema at a pointer; alone: nothing else says what its objects may have."""
        if not isinstance(schema, dict):
            return schema
        alone = alone and place not in self.shared
        told = schema.keys() - _SAYS_NO_MEMBER
        combines = bool(_COMBINING & schema.keys())
        inner = {}
        for key, value in schema.items():
            if key in ("allOf", "anyOf", "oneOf"):
                only = told == {key} and (key != "allOf" or _has_one(value))
                inner[key] = self._keyword(key, value, f"{place}/{key}", alone and only)
            else:
                inner[key] = self._keyword(key, value, f"{place}/{key}", alone and not combines)
        reference = schema.get("$ref")
        if isinstance(reference, str) and not (alone and told == {"$ref"}):
            self.shared.add(reference)
        names = schema.get("properties")
        if alone and not combines and isinstance(names, dict) and not _SAYS_OTHERS & schema.keys():
            others = [name for name in _required(schema) if name not in names]
            inner["properties"] |= dict.fromkeys(others, True)
            inner[_OTHERS] = False
        return inner

    def _keyword(self, key: str, value: Any, place: str, alone: bool) -> Any:
        """Return what a keyword has; alone: of the schemas in it."""
        if key in ("$defs", "definitions"):
            alone = True  # until something refers to one beside others
        if key in _OF_NAMES and isinstance(value, dict):
            return {
                name: self.schema(entry, f"{place}/{_escaped(name)}", alone=alone)
                for name, entry in value.items()
            }
        if key in _OF_LISTS and isinstance(value, list):
            return [self.schema(one, f"{place}/{n}", alone=alone) for n, one in enumerate(value)]
        if key in ("items", "additionalItems", _OTHERS):
            return self.schema(value, place, alone=alone)
        return value


def _required(schema: dict[str, Any]) -> list[str]:
    """Return the members that must be there."""
    names = schema.get("required")
    return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []


def _has_one(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1


def _escaped(name: str) -> str:
    """Return a name as a JSON pointer has it (RFC 6901)."""
    return name.replace("~", "~0").replace("/", "~1")
