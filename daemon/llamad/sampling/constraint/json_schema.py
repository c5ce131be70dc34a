"""JSON Schema to a grammar: the answer is one JSON value that the schema accepts.

A set of places of the schema becomes a rule, so that schemas may refer to each other in circles.
Members may come in any order, each once (up to MAX_MEMBERS; beyond, in the schema's order).
"""

import itertools
from collections.abc import Iterator
from dataclasses import replace

from llamad.errors import LlamadError
from llamad.sampling.constraint.expression import (
    MAX_MEMBERS,
    NEVER,
    NOTHING,
    AnyOrder,
    Call,
    Expression,
    Grammar,
    Repeat,
    choice,
    optional,
    sequence,
)
from llamad.sampling.constraint.facts import Facts, Places, joined, member, refused, unique
from llamad.sampling.constraint.json_text import Json
from llamad.sampling.constraint.languages import (
    Language,
    TooManyStatesError,
    common_language,
    texts,
    written,
)
from llamad.sampling.constraint.productive import without_dead_ends
from llamad.sampling.constraint.scalars import (
    fits,
    integers_of,
    number,
    string_characters,
    string_language,
)
from llamad.sampling.constraint.schema_facts import Document

MAX_NAMES = 1_000  # of members in one object


def parse_json_schema(schema: object) -> Grammar:
    """Return the grammar of the values that a schema accepts.

    schema: as json.loads returns it. Raises INVALID_SCHEMA with the place and the keyword.
    """
    notation = Json()
    try:
        rules = SchemaRules(Document(schema), notation)
        grammar = without_dead_ends(rules.grammar(), notation.rules())
    except RecursionError:
        raise refused("", "is nested too deep, or has a name that is too long") from None
    if grammar is None:
        raise refused("", "no value fits")
    return grammar


def any_json(*, object_only: bool) -> Grammar:
    """Return the grammar of any JSON value, or of any object."""
    return Grammar(dict(Json().rules()), "object" if object_only else "value")


class SchemaRules:
    """Makes a rule for each set of places of a schema that is met."""

    def __init__(self, document: Document, notation: Json, prefix: str = "schema ") -> None:
        """prefix: of the names of the rules that are this schema's."""
        self._document = document
        self._notation = notation
        self._prefix = prefix
        self._rules: dict[str, Expression] = {}
        self._pending: list[tuple[str, Places]] = []
        self._other_names: dict[frozenset[str], Call] = {}

    def grammar(self) -> Grammar:
        """Return the grammar of the values that the schema accepts."""
        start = self.value(("",))
        if isinstance(start, Call):
            return Grammar(self.rules(), start.rule)
        root = self._prefix + "root"
        return Grammar({**self.rules(), root: start}, root)

    def rules(self) -> dict[str, Expression]:
        """Return all rules that what was asked for needs."""
        while self._pending:
            name, places = self._pending.pop()
            self._rules[name] = self._of_places(places)
        return {**self._notation.rules(), **self._rules}

    def _of_places(self, places: Places) -> Expression:
        alternatives = self._document.alternatives(places)
        return choice(self._of_facts(facts, places) for facts in alternatives)

    def value(self, places: Places | None) -> Expression:
        """Return the values that all of these places accept."""
        if places is None:
            return NEVER
        if not places:
            return self._notation.value
        places = self._document.meant(places)
        scalar = self._document.scalar_key(places)
        if scalar is not None:
            self._notation.count(places[0], 1)
            return self._notation.shared(scalar, lambda: self._of_places(places))
        name = self._prefix + " & ".join(places)
        if name not in self._rules:
            self._notation.count(places[0], 1)
            self._rules[name] = NEVER
            self._pending.append((name, places))
        return Call(name)

    def _of_facts(self, facts: Facts, places: Places) -> Expression:
        if facts.values is not None:
            return self._of_values(facts, places)
        parts: list[Expression] = []
        if "object" in facts.types:
            parts.append(self._object(facts, places))
        if "array" in facts.types:
            parts.append(self._array(facts))
        if "string" in facts.types:
            parts.append(self._string(facts))
        if "number" in facts.types:
            parts.append(self._number(facts))
        if "boolean" in facts.types:
            parts.append(self._notation.boolean)
        if "null" in facts.types:
            parts.append(self._notation.nothing)
        return choice(parts)

    def _of_values(self, facts: Facts, places: Places) -> Expression:
        notation = self._notation
        values = [v for v in unique(facts.values or ()) if fits(v, facts, places[0], notation)]
        return choice(map(notation.given, values))

    def _array(self, facts: Facts) -> Expression:
        least, most = facts.min_items, facts.max_items
        others = self.value(facts.items)
        if facts.items is None:
            most = len(facts.prefix) if most is None else min(most, len(facts.prefix))
        if most is not None and most < least:
            return NEVER
        if facts.unique is not None and (most is None or most > 1):
            chosen = self._chosen(facts, least, most)
            if chosen is not None:
                return chosen
            if not self._document.lenient:
                raise refused(
                    facts.unique,
                    "is supported where all items are of given values, which are at most"
                    f" {MAX_MEMBERS} with minItems or maxItems",
                )
        n = len(facts.prefix) if most is None else min(len(facts.prefix), most)
        if n == 0:
            return self._notation.an_array(self._notation.repeated(others, least, most))
        more = Repeat(
            sequence(self._notation.comma, others),
            max(0, least - n),
            None if most is None else most - n,
        )
        elements: Expression = NOTHING if most == n else more
        for i in reversed(range(n)):
            element = self.value(facts.prefix[i])
            if i > 0:
                element = sequence(self._notation.comma, element)
            elements = sequence(element, elements)
            if i >= least:
                elements = optional(elements)
        return self._notation.an_array(elements)

    def _chosen(self, facts: Facts, least: int, most: int | None) -> Expression | None:
        """Return an array of given values, each at most once; None: there are others, or many."""
        if facts.prefix or not facts.items:
            return None
        values: list[object] = []
        for item in self._document.alternatives(facts.items):
            if item.values is not None:
                values += [v for v in item.values if fits(v, item, facts.items[0], self._notation)]
            elif item.types <= {"boolean", "null"}:
                values += [True, False] if "boolean" in item.types else []
                values += [None] if "null" in item.types else []
            elif item.types == {"number"} and (integers := integers_of(item, MAX_MEMBERS)):
                values += [v for v in integers if fits(v, item, facts.items[0], self._notation)]
            else:
                return None
        values = unique(values)
        most = None if most is None or most >= len(values) else most
        members = tuple(map(self._notation.given, values))
        chosen = AnyOrder(members, self._notation.comma, least=least, most=most)
        if least > len(values):
            return NEVER
        return self._notation.an_array(chosen) if chosen.n_bits <= MAX_MEMBERS else None

    def _number(self, facts: Facts) -> Expression:
        try:
            return number(facts, self._notation)
        except LlamadError:
            if not self._document.lenient:
                raise
            return number(replace(facts, multiples=()), self._notation)

    def _object(self, facts: Facts, places: Places) -> Expression:
        notation = self._notation
        names = member_names(facts, places)
        try:
            listed, language = self._names(facts)
        except LlamadError:
            if not self._document.lenient:
                raise
            listed = language = None
        if listed is not None:
            names = list(dict.fromkeys((*names, *listed)))
        self._notation.count(places[0], len(names))
        members = []
        for name in names:
            inner = member(facts, name)
            if name not in (names if listed is None else listed):
                inner = None
            if language is not None and not language.accepts(name):
                inner = None
            members.append(sequence(notation.name(name), notation.colon, self.value(inner)))
        rest = None if listed is not None else self._rest(facts, places, names, language)
        return notation.an_object(self.members(facts, places, members, rest, notation.comma))

    def _names(self, facts: Facts) -> tuple[list[str] | None, Language | None]:
        """Return the names that members may have, or else their language; None: any."""
        if facts.names is None:
            return [], None
        if not facts.names:
            return None, None
        place = facts.names[0]
        found = [f for f in self._document.alternatives(facts.names) if "string" in f.types]
        if all(f.values is not None for f in found):
            values = [v for f in found for v in f.values or () if fits(v, f, place, self._notation)]
            return [v for v in values if isinstance(v, str)], None
        if len(found) > 1:
            raise refused(place, "names by alternatives are not supported")
        return None, string_language(found[0], self._notation)

    def _rest(
        self, facts: Facts, places: Places, names: list[str], language: Language | None
    ) -> Expression | None:
        """Return a member of another name than these; None: there is none."""
        notation = self._notation
        if not facts.name_patterns and language is None:
            if facts.others is None:
                return None
            name = self._names_but(names, places) if names else notation.any_name()
            return sequence(name, notation.colon, self.value(facts.others))
        try:
            alike = [(texts(names), False)] if names else []
            alike += [] if language is None else [(language, True)]
            rest = choice(self._rest_by_pattern(facts, alike))
        except TooManyStatesError:
            if self._document.lenient:
                return self._rest(replace(facts, name_patterns=()), places, names, None)
            raise refused(places[0], "the names of members need too many states") from None
        return None if rest == NEVER else rest

    def _rest_by_pattern(
        self, facts: Facts, alike: list[tuple[Language, bool]]
    ) -> Iterator[Expression]:
        """Yield a member for each set of patterns that its name may match."""
        patterns = facts.name_patterns
        for matched in itertools.product([True, False], repeat=len(patterns)):
            inner = () if any(matched) else facts.others
            for pattern in itertools.compress(patterns, matched):
                inner = joined(inner, pattern.inner)
            languages = [(p.language, is_in) for p, is_in in zip(patterns, matched, strict=True)]
            language = common_language([*languages, *alike])
            self._notation.count(patterns[0].place if patterns else "", len(language.rows))
            name = written(language, self._notation.spelled)
            if inner is not None and name != NEVER:
                head = sequence(self._notation.text(name), self._notation.colon)
                yield sequence(head, self.value(inner))

    def _names_but(self, names: list[str], places: Places) -> Expression:
        """Return any name but these: a rule, because it is large and objects are often alike."""
        key = frozenset(names)
        if key not in self._other_names:
            self._notation.count(places[0], sum(map(len, names)))
            rule = f"{self._prefix}other names {len(self._other_names)}"
            self._rules[rule] = self._notation.other_names(names)
            self._other_names[key] = Call(rule)
        return self._other_names[key]

    def members(
        self,
        facts: Facts,
        places: Places,
        members: list[Expression],
        rest: Expression | None,
        separator: Expression,
    ) -> Expression:
        """Return the members that an object has, those of ``member_names``, between separators.

        rest: a member of another name; None: there is none.
        """
        names = member_names(facts, places)
        required = frozenset(names.index(name) for name in facts.required)
        least = max(0, facts.min_properties - len(required))
        most = None if facts.max_properties is None else facts.max_properties - len(required)
        if most is not None and most < least:
            return NEVER
        if most is not None and rest is None and most >= len(members) - len(required):
            most = None  # it cannot be more
        if rest is not None and least > 1:  # the same name may come twice, and is one property
            raise refused(
                places[0],
                f"minProperties of more than the {len(required)} required properties and one is"
                " supported only where additionalProperties is false",
            )
        any_order = AnyOrder(tuple(members), separator, required, rest, least, most)
        if any_order.n_bits <= MAX_MEMBERS:
            return any_order
        if least > 0 or most is not None:
            raise refused(
                places[0],
                f"minProperties or maxProperties beside {len(members)} properties: together at"
                f" most {MAX_MEMBERS}",
            )
        return self._in_order(places, members, required, rest, separator)

    def _in_order(
        self,
        places: Places,
        members: list[Expression],
        required: frozenset[int],
        rest: Expression | None,
        separator: Expression,
    ) -> Expression:
        """Return members in their order, of which some may be missing, and others behind them.

        From each on there are two rules: for members behind a comma, and for the first one.
        """
        others = NOTHING if rest is None else Repeat(sequence(separator, rest))
        first = NOTHING if rest is None else optional(sequence(rest, others))
        name = f"{self._prefix}members of {places} from "
        self._rules[f"{name}{len(members)}"] = others
        self._rules[f"{name}{len(members)} first"] = first
        for i, expression in reversed(list(enumerate(members))):
            more = Call(f"{name}{i + 1}")
            begins = sequence(expression, more)
            follows = sequence(separator, expression, more)
            if i not in required:
                begins = choice([begins, Call(f"{name}{i + 1} first")])
                follows = choice([follows, more])
            self._rules[f"{name}{i}"], self._rules[f"{name}{i} first"] = follows, begins
        return Call(f"{name}0 first")

    def _string(self, facts: Facts) -> Expression:
        characters = string_characters(facts, self._notation)
        return self._notation.string if characters is None else self._notation.text(characters)


def member_names(facts: Facts, places: Places) -> list[str]:
    """Return the names of the members that an object may or must have."""
    names = list(dict.fromkeys((*facts.properties, *facts.required)))
    if len(names) > MAX_NAMES:
        raise refused(places[0], f"has {len(names)} properties, at most {MAX_NAMES}")
    return names
