"""Which conditions hold, and that hostile schemas and grammars take bounded work."""

import gc
import json
import random
import weakref
from typing import Any

import pytest

from llamad.errors import LlamadError
from llamad.jobs.request import Tool
from llamad.sampling.constraint import automaton, conditions, json_text, schema_facts
from llamad.sampling.constraint.automaton import TooLargeError, compile_grammar
from llamad.sampling.constraint.conditions import AtLeast, Condition, at_least, holding
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.constraint.json_text import Json
from llamad.service.tool_grammar import ToolRules, answer_with_tools
from llamad.text.tools.formats import HERMES


def holds(condition: Condition, known: set[str]) -> bool:
    match condition:
        case bool():
            return condition
        case str():
            return condition in known
        case AtLeast(count, parts):
            return sum(holds(part, known) for part in parts) >= count


def drawn(rng: random.Random, depth: int) -> Condition:
    if depth == 0 or rng.random() < 0.3:
        leaf: Condition = rng.choice([True, False, *"abcdefgh" * 2])
        return leaf
    parts = [drawn(rng, depth - 1) for _ in range(rng.randint(0, 4))]
    return at_least(rng.randint(0, 3), parts)


def test_the_least_solution_is_that_of_asking_again_until_nothing_changes() -> None:
    rng = random.Random(3)
    sizes = set()
    for _ in range(500):
        given = {name: drawn(rng, 3) for name in "abcdefg"}  # h has none
        known: set[str] = set()
        while more := {n for n, c in given.items() if n not in known and holds(c, known)}:
            known |= more
        assert holding(given) == known
        sizes.add(len(known))
    assert len(sizes) > 5


def chain(n: int, *, required: bool) -> dict[str, Any]:
    """Return a schema of n objects, each with two members that are the next one."""
    places = [{"$ref": f"#/$defs/d{i + 1}"} for i in range(n)]
    common = {"type": "object", "required": ["a"] if required else []}
    nodes: dict[str, Any] = {
        f"d{i}": {**common, "properties": {"a": place, "b": place}}
        for i, place in enumerate(places)
    }
    return {"$defs": {**nodes, f"d{n}": {"type": "null"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize("required", [False, True])
def test_four_hundred_objects_that_refer_to_each_other_are_a_small_automaton(
    required: bool,
) -> None:
    made = compile_grammar(parse_json_schema(chain(400, required=required)))
    assert made.n_states < 400 * 50


def test_a_chain_of_rules_counts_each_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    n_counters = 0

    class Counted(conditions._Counter):
        def __init__(self, *arguments: Any) -> None:
            nonlocal n_counters
            n_counters += 1
            super().__init__(*arguments)

    monkeypatch.setattr(conditions, "_Counter", Counted)
    given = {f"r{i}": at_least(2, [f"r{i + 1}", f"r{i + 2}"]) for i in range(1000)}
    assert len(holding({**given, "r1000": True, "r1001": True})) == 1002
    assert n_counters == 2002


def test_what_is_too_large_is_refused_before_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    n_states = 0
    state = automaton._Builder._state

    def counted(self: automaton._Builder, bound: int) -> int:
        nonlocal n_states
        n_states += 1
        return state(self, bound)

    monkeypatch.setattr(automaton._Builder, "_state", counted)
    grammar = parse_json_schema({"enum": [f"value {i}" for i in range(2000)]})
    with pytest.raises(TooLargeError):
        compile_grammar(grammar, 24_000)
    assert n_states <= 24_000 // automaton.STATE_BYTES  # those of a tree come before its edges
    made = compile_grammar(grammar)
    assert compile_grammar(grammar, made.n_bytes).n_states == made.n_states
    with pytest.raises(TooLargeError):
        compile_grammar(grammar, made.n_bytes - 1)


def test_the_parts_of_a_schema_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_text, "MAX_PARTS", 300)
    n_made = 0

    def counted(self: Json, names: Any) -> Any:
        nonlocal n_made
        n_made += 1
        return other_names(self, names)

    other_names = Json.other_names
    monkeypatch.setattr(Json, "other_names", counted)
    nodes = {
        f"d{i}": {"properties": {f"name {i}": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(400)
    }
    with pytest.raises(LlamadError, match="the schema has more than 300 parts"):
        parse_json_schema({"$defs": {**nodes, "d400": {}}, "$ref": "#/$defs/d0"})
    assert n_made < 100


def test_what_holds_at_once_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema_facts, "MAX_COMBINED", 1000)
    wide: dict[str, Any] = {"properties": {str(i): {} for i in range(50)}}
    with pytest.raises(LlamadError, match="too many schemas hold at once for one value"):
        parse_json_schema({"allOf": [{**wide, "title": str(i)} for i in range(100)]})


def test_what_is_kept_for_a_grammar_goes_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spellings of classes were kept by their number: a hundred large ones were 260 MB."""
    made: list[weakref.ref[Json]] = []
    begin = Json.__init__

    def begun(self: Json) -> None:
        made.append(weakref.ref(self))
        begin(self)

    monkeypatch.setattr(Json, "__init__", begun)
    for i in range(5):
        text = {"type": "string", "pattern": f"^[a-c\\d]x{i}$"}
        parts = {"properties": {"a": text, "b": {**text, "minLength": 2}, "c": {"multipleOf": 7}}}
        parse_json_schema(parts)
        tools = (Tool("f", parameters=json.dumps({"type": "object", **parts})),)
        answer_with_tools(ToolRules(tools), HERMES, [])
    gc.collect()
    assert len(made) >= 10
    assert [one for one in made if one() is not None] == []
