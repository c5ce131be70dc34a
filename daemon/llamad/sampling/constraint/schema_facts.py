"""What a JSON Schema says of a value, keyword by keyword, checked (draft 2020-12).

A schema may be several at once (``allOf``, ``$ref`` beside others): so the unit is a set of places
in the document, each of which holds. Its alternatives (``anyOf``, ``oneOf``) are sets of facts.
Everything that is not supported is refused with the place and the keyword; nothing is ignored but
what the specification calls annotations.

Owns the reading of the document. What the facts become is json_schema.py's.
"""

import itertools
import json
from collections.abc import Hashable, Iterator
from dataclasses import replace
from typing import Any, cast
from urllib.parse import unquote

from llamad.errors import LlamadError
from llamad.sampling.constraint.facts import (
    ALL_TYPES,
    ANYTHING,
    Facts,
    NamePattern,
    Place,
    Places,
    both,
    common,
    identity,
    joined,
    member,
    object_without,
    only_lists,
    refused,
    values_of,
    with_values_at_once,
)
from llamad.sampling.constraint.keyword_values import (
    BOUNDS,
    COUNTS,
    bound_of,
    children_of,
    count_of,
    dependencies_of,
    escaped,
    excluded_types,
    format_of,
    is_integer_format,
    kind_of,
    listed_values,
    step_of,
    text_of,
    texts_of,
    types_of,
)
from llamad.sampling.constraint.languages import TooManyStatesError, pattern_language

MAX_ALTERNATIVES = 256  # of one place
MAX_COMBINED = 1 << 18  # members of objects that hold at once, counted each time
MAX_TOLD_APART = 256  # pairs of schemas of one oneOf
MAX_NAME_PATTERNS = 4  # of one object: what a name may be is a language for each set of them

ANNOTATIONS = frozenset({
    "title", "description", "default", "examples", "$comment", "deprecated", "readOnly",
    "writeOnly", "contentEncoding", "contentMediaType", "contentSchema",
    "$defs", "definitions", "strict",
    "$anchor",  # a reference to it is refused
    "discriminator", "example", "externalDocs", "xml", "components",  # OpenAPI's
    "enumNames", "enumDescriptions", "propertyOrdering", "markdownDescription", "errorMessage",
})  # fmt: skip
_EVALUATING = {
    "additionalProperties", "unevaluatedProperties", "anyOf", "oneOf", "dependentRequired",
    "dependencies",
}  # fmt: skip
_ONLY_REFERS = ANNOTATIONS | {"$ref"}
_OF_SCALARS = {
    "type", "nullable", "enum", "const", "minLength", "maxLength", "pattern", "format",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
}  # fmt: skip
_DIALECTS = tuple(
    scheme + name
    for scheme in ("http://", "https://")
    for name in (
        *("json-schema.org/draft-04/schema", "json-schema.org/draft-06/schema"),
        *("json-schema.org/draft-07/schema", "json-schema.org/draft/2019-09/schema"),
        *("json-schema.org/draft/2020-12/schema", "json-schema.org/schema"),
        "spec.openapis.org/oas/3.1/",
    )
)


class Document:
    """A schema and what its places say."""

    def __init__(self, schema: object, *, lenient: bool = False) -> None:
        """Raise INVALID_SCHEMA for what is no schema.

        lenient: a keyword that is not supported says nothing, instead of being refused.
        """
        self.lenient = lenient
        if not isinstance(schema, dict | bool):
            raise refused("", f"is {kind_of(schema)}, must be an object, true or false")
        self._schema = schema
        self._id = schema.get("$id", schema.get("id")) if isinstance(schema, dict) else None
        self._known: dict[Places, list[Facts]] = {}
        self._open: set[Places] = set()  # that are being found
        self._n_combined = 0

    def alternatives(self, places: Places) -> list[Facts]:
        """Return what may hold of a value where all of the places hold; none: no value fits."""
        if places in self._open:
            raise refused(places[0], "refers to itself without end")
        if places not in self._known:
            self._open.add(places)
            self._known[places] = self._find_alternatives(places)
            self._open.remove(places)
        return self._known[places]

    def _find_alternatives(self, places: Places) -> list[Facts]:
        found = [ANYTHING]
        pending, seen = list(places), set(places)
        while pending:
            place = pending.pop(0)
            schema = self._at(place)
            if schema is True:
                continue
            if schema is False:
                return []
            assert isinstance(schema, dict)
            for other in self._also(place, schema):
                if other not in seen:
                    seen.add(other)
                    pending.append(other)
            own = self._facts(place, schema)
            branches = self._branches(place, schema)
            found = [m for f in found if (m := self._both(place, f, own))]
            found = [m for f in found for b in branches if (m := self._both(place, f, b))]
            if len(found) > MAX_ALTERNATIVES:
                raise refused(place, f"has more than {MAX_ALTERNATIVES} alternatives")
        return found if self.lenient else self._without_unevaluated(places, seen, found)

    def _without_unevaluated(
        self, places: Places, seen: set[Place], found: list[Facts]
    ) -> list[Facts]:
        """Return the alternatives, in which ``unevaluatedProperties`` says what others there are.

        places: as asked for; seen: these, and those of ``allOf`` and ``$ref``.
        """
        schemas = {place: schema for place in seen if isinstance(schema := self._at(place), dict)}
        for place in sorted(schemas):
            value = schemas[place].get("unevaluatedProperties", True)
            if value is True:
                continue
            others = (schema for other, schema in schemas.items() if other != place)
            said = set().union(schemas[place].keys() - {"unevaluatedProperties"}, *others)
            if places != (place,) or said & _EVALUATING:
                raise refused(
                    place,
                    "'unevaluatedProperties' is supported where no other schema holds for the"
                    " object, but those of allOf and $ref with properties only",
                )
            inner = self._inner(f"{place}/unevaluatedProperties", value)
            found = [replace(facts, others=inner) for facts in found]
        return found

    # ---- places ----

    def scalar_key(self, places: Places) -> Hashable | None:
        """Return what schemas have alike that say the same of texts, numbers and given values.

        None: one says something of elements or members, or refers to others.
        """
        if len(places) != 1:
            return None
        schema = self._at(places[0])
        if not isinstance(schema, dict):
            return None
        said = {key: value for key, value in schema.items() if key not in ANNOTATIONS}
        if not said.keys() <= _OF_SCALARS:
            return None
        return self.lenient, json.dumps(said, sort_keys=True)

    def meant(self, places: Places) -> Places:
        """Return the places without those that only refer to others: these, instead."""
        return tuple(sorted({self._target(place) for place in places}))

    def _target(self, place: Place) -> Place:
        seen: set[Place] = set()
        while place not in seen:
            seen.add(place)
            schema = self._at(place)
            if not isinstance(schema, dict) or not {"$ref"} <= schema.keys() <= _ONLY_REFERS:
                break
            place = self._reference(place, schema["$ref"])
        return place

    def _at(self, place: Place) -> object:
        value: object = self._schema
        for part in place.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
                value = value[int(key)]
            else:
                raise refused(place, "is referred to, but not there")
        if not isinstance(value, dict | bool):
            raise refused(place, f"is {kind_of(value)}, must be a schema")
        return value

    def _reference(self, place: Place, target: object) -> Place:
        if not isinstance(target, str):
            raise refused(place, "$ref must be a text")
        base, _, fragment = target.partition("#")
        if base and base != self._id:
            raise refused(place, f"$ref {target!r}: other documents are not supported")
        if fragment and not fragment.startswith("/"):
            raise refused(place, f"$ref {target!r}: anchors are not supported")
        if self._is_below_inner_id(place):
            raise refused(place, "$ref below an inner $id is not supported")
        return unquote(fragment)

    def _is_below_inner_id(self, place: Place) -> bool:
        value: object = self._schema
        for part in place.split("/")[1:]:
            key = part.replace("~1", "/").replace("~0", "~")
            value = (
                value[int(key)] if isinstance(value, list) else cast(dict[str, object], value)[key]
            )
            if isinstance(value, dict) and isinstance(value.get("$id", value.get("id")), str):
                return True
        return False

    def _also(self, place: Place, schema: dict[str, object]) -> Iterator[Place]:
        if "$ref" in schema:
            yield self._reference(place, schema["$ref"])
        if "allOf" in schema:
            yield from children_of(place, "allOf", schema["allOf"])

    def _branches(self, place: Place, schema: dict[str, object]) -> list[Facts]:
        branches = [ANYTHING]
        for keyword in ("anyOf", "oneOf"):
            if keyword not in schema:
                continue
            children = [
                self.alternatives((child,))
                for child in children_of(place, keyword, schema[keyword])
            ]
            if keyword == "oneOf" and not self.lenient:
                children = self._told_apart(place, children)
            flat = with_values_at_once(itertools.chain.from_iterable(children))
            if len(flat) > MAX_ALTERNATIVES:
                raise refused(place, f"has more than {MAX_ALTERNATIVES} alternatives")
            branches = [m for a in branches for b in flat if (m := self._both(place, a, b))]
            if len(branches) > MAX_ALTERNATIVES:
                raise refused(place, f"has more than {MAX_ALTERNATIVES} alternatives")
        for name, others in dependencies_of(place, schema):
            ways = (Facts(properties={name: None}), Facts(required=(name, *others)))
            branches = [m for a in branches for b in ways if (m := self._both(place, a, b))]
            if len(branches) > MAX_ALTERNATIVES:
                raise refused(place, f"has more than {MAX_ALTERNATIVES} alternatives")
        return branches

    def _both(self, place: Place, a: Facts, b: Facts) -> Facts | None:
        """Return what holds where both do; None: no value fits."""
        self._n_combined += 1 + len(a.properties) + len(b.properties)
        if self._n_combined > MAX_COMBINED:
            raise refused(place, "too many schemas hold at once for one value")
        try:
            return both(a, b)
        except LlamadError:  # of patterns of names
            if not self.lenient:
                raise
            return both(replace(a, name_patterns=()), replace(b, name_patterns=()))

    # ---- oneOf ----

    def _told_apart(self, place: Place, children: list[list[Facts]]) -> list[list[Facts]]:
        """Return the alternatives of ``oneOf`` without values that fit two of them.

        Objects that may fit two have a member that only one of them requires, and not the other's.
        """
        listing = [i for i, child in enumerate(children) if all(map(only_lists, child))]
        values = [identity(v) for i in listing for v in values_of(children[i])]
        if len(set(values)) == len(values):  # told apart at once, because they may be many
            lists = [list(itertools.chain.from_iterable(children[i] for i in listing))]
            for i in listing:
                children[i] = lists.pop() if lists else []
        told = [[(facts, self._given_members(facts)) for facts in child] for child in children]
        apart, n_apart = [list(child) for child in children], 0
        filled = ((i, child) for i, child in enumerate(told) if child)
        for (i, first), (j, second) in itertools.combinations(filled, 2):
            for (x, (a, a_given)), (y, (b, b_given)) in itertools.product(
                enumerate(first), enumerate(second)
            ):
                shared = a_given.keys() & b_given.keys()
                if any(a_given[name].isdisjoint(b_given[name]) for name in shared):
                    continue
                if self._disjoint(place, a, b):
                    continue
                only_a = next((name for name in a.required if name not in b.required), None)
                only_b = next((name for name in b.required if name not in a.required), None)
                n_apart += 1
                if only_a is None or only_b is None or n_apart > MAX_TOLD_APART:
                    raise refused(
                        place,
                        f"oneOf: one value may fit both {i} and {j}: supported only where their"
                        " types, values or a required member's values differ, or each requires"
                        f" another member, in up to {MAX_TOLD_APART} pairs; use anyOf",
                    )
                apart[i][x] = object_without(apart[i][x], only_b, b)
                apart[j][y] = object_without(apart[j][y], only_a, a)
        return apart

    def _given_members(self, facts: Facts) -> dict[str, frozenset[Hashable]]:
        """Return of required members that are of given values these values' identities."""
        given = {}
        for name in facts.required if facts.types == {"object"} else ():
            for place in facts.properties.get(name) or ():
                schema = self._at(place)
                values = None if isinstance(schema, bool) else listed_values(schema)
                if values is not None:
                    given[name] = frozenset(map(identity, values))
        return given

    def _disjoint(self, place: Place, a: Facts, b: Facts) -> bool:
        together = self._both(place, a, b)
        if together is None:
            return True
        for name in together.required:
            values = member(together, name)
            if values is None or not self.alternatives(values):
                return True
        return False

    # ---- keywords ----

    def _facts(self, place: Place, schema: dict[str, object]) -> Facts:
        said: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword not in ANNOTATIONS and not keyword.startswith("x-"):
                said.update(self._of_keyword(said, place, keyword, value, schema))
        if schema.get("nullable") is True and "type" in schema:
            said["types"] |= {"null"}
        if "not" in schema and not self.lenient:
            said["types"] = said.get("types", ALL_TYPES) - excluded_types(place, schema["not"])
        facts = Facts(**said)
        if facts.name_patterns:
            unnamed = replace(facts, properties={}, others=())
            properties = {
                name: joined(inner, member(unnamed, name))
                for name, inner in facts.properties.items()
            }
            facts = replace(facts, properties=properties)
        return facts

    def _of_keyword(
        self,
        said: dict[str, Any],
        place: Place,
        keyword: str,
        value: object,
        schema: dict[str, object],
    ) -> dict[str, Any]:
        """Return the fields of Facts that a keyword sets. said: those of the ones before it."""
        below = f"{place}/{keyword}"
        match keyword:
            case "$ref" | "allOf" | "anyOf" | "oneOf" | "nullable" | "not":
                return {}
            case "dependentRequired" | "dependencies" | "unevaluatedProperties":
                return {}
            case "$schema":
                if not isinstance(value, str) or not value.startswith(_DIALECTS):
                    raise refused(below, f"is {json.dumps(value)[:80]}: another dialect of schemas")
                return {}
            case "$id" | "id":
                if not isinstance(value, str):
                    raise refused(below, "must be a text")
                return {}
            case "type":
                types, integer = types_of(below, value)
                return {"types": types, "integer": integer or is_integer_format(schema)}
            case "enum":
                if not isinstance(value, list):
                    raise refused(below, "must be an array")
                return {"values": common(said.get("values"), tuple(value))}
            case "const":
                return {"values": common(said.get("values"), (value,))}
            case "pattern":
                return {"patterns": ((below, text_of(below, value)),)}
            case "format":
                return {} if self.lenient and value == "regex" else format_of(said, below, value)
            case "prefixItems":
                return {"prefix": tuple((p,) for p in children_of(place, keyword, value))}
            case "items" if isinstance(value, list):  # up to draft 2019-09
                return {"prefix": tuple((f"{below}/{i}",) for i in range(len(value)))}
            case "additionalItems":
                is_rest = isinstance(schema.get("items"), list)
                return {"items": self._inner(below, value)} if is_rest else {}
            case "items":
                return {"items": self._inner(below, value)}
            case "properties":
                return {"properties": self._properties(below, value)}
            case "additionalProperties":
                return {"others": self._inner(below, value)}
            case "required":
                return {"required": texts_of(below, value)}
            case "patternProperties":
                try:
                    return {"name_patterns": self._name_patterns(below, value)}
                except LlamadError:
                    if not self.lenient:
                        raise
                    return {}
            case "propertyNames":
                return {"names": self._inner(below, value)}
            case "multipleOf":
                return {"multiples": ((below, step_of(below, value)),)}
            case "uniqueItems":
                if not isinstance(value, bool):
                    raise refused(below, f"is {kind_of(value)}, must be true or false")
                return {"unique": below if value else None}
        if keyword in COUNTS:
            return count_of(below, keyword, value)
        if keyword in BOUNDS:
            return bound_of(said, below, keyword, schema)
        if self.lenient:
            return {}
        raise refused(place, f"{keyword!r} is not supported")

    def _inner(self, place: Place, value: object) -> Places | None:
        if value is False:
            return None
        if not isinstance(value, dict | bool):
            raise refused(place, f"is {kind_of(value)}, must be a schema")
        return () if value is True or not value else (place,)

    def _properties(self, place: Place, value: object) -> dict[str, Places | None]:
        if not isinstance(value, dict):
            raise refused(place, "must be an object")
        return {name: self._inner(f"{place}/{escaped(name)}", s) for name, s in value.items()}

    def _name_patterns(self, place: Place, value: object) -> tuple[NamePattern, ...]:
        if not isinstance(value, dict):
            raise refused(place, "must be an object")
        if len(value) > MAX_NAME_PATTERNS:
            raise refused(place, f"has {len(value)} patterns, at most {MAX_NAME_PATTERNS}")
        patterns = []
        for pattern, schema in value.items():
            below = f"{place}/{escaped(pattern)}"
            try:
                language = pattern_language(pattern)
            except TooManyStatesError:
                raise refused(below, "needs too many states") from None
            except LlamadError as error:
                raise refused(below, error.message.removeprefix("pattern: ")) from None
            patterns.append(NamePattern(below, language, self._inner(below, schema)))
        return tuple(patterns)
