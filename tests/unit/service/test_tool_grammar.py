"""The grammar of calls, of each format: what it takes is read back and obeys the schemas."""

import json
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jsonschema
import pytest

from llamad.engine.bindings import Constraint, EngineError, Grammar, TokenTrie
from llamad.errors import LlamadError
from llamad.jobs.request import Tool
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.formats import control_token, format_grammar
from llamad.sampling.response_format import FormatKind, ResponseFormat
from llamad.service.tool_grammar import ToolRules, answer_with_tools
from llamad.text.tools import call, formats
from llamad.text.tools.call import Call, Tools
from llamad.text.tools.formats import FORMATS, ToolFormat
from llamad.text.tools.splitter import CallSplitter, Part

END = 0
LAMP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "room": {"type": "string"},
        "mode": {"enum": ["on", "off", "é <b>"]},
        "level": {"type": "integer", "minimum": 0, "maximum": 100},
        "share": {"type": ["number", "null"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 4}, "maxItems": 2},
        "id": {"type": "string", "pattern": "^[a-z<]{1,3}$"},
        "sub": {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]},
    },
    "required": ["room", "mode"],
}
ANYTHING = {"type": "object", "properties": {"v": {}, "w": {"type": "object"}}}
TOOLS = (
    Tool("set_lamp", "Set a lamp", json.dumps(LAMP)),
    Tool("now"),
    Tool("store", "", json.dumps(ANYTHING)),
)
SCHEMAS = {"set_lamp": LAMP, "now": {}, "store": ANYTHING}
CLOSING = [1 + byte for byte in b'"}])<>|\n/parmet']
every_format = pytest.mark.parametrize("row", FORMATS, ids=lambda row: row.name)


def marks_of(row: ToolFormat) -> list[str]:
    """Return the marks that vocabularies have as control tokens."""
    opening = [mark for mark, _ in row.readers if mark.startswith(("<", "["))]
    whole = [mark for mark in opening if mark.endswith((">", "]"))]
    return list(dict.fromkeys([*whole, *row.controls]))


class Vocabulary:
    """A token for each byte and each mark, which may be a control token, and one for a tag."""

    def __init__(self, marks: Sequence[str] = (), *, controls: bool = False) -> None:
        special = [mark.encode() for mark in marks]
        self._shown = [b"", *(bytes((i,)) for i in range(256)), b"</parameter>", *special]
        named = list(map(control_token, special)) if controls else special
        self.texts = [*self._shown[:255], b"", b"", b"</parameter>", *named]

    def text(self, tokens: list[int]) -> str:
        return b"".join(self._shown[token] for token in tokens).decode(errors="replace")

    @contextmanager
    def constraint(self, rules: Any) -> Iterator[Constraint]:
        with (
            TokenTrie(self.texts) as trie,
            Grammar(trie, compile_grammar(rules)) as grammar,
            Constraint(grammar, [END]) as constraint,
        ):
            yield constraint


def walk(constraint: Constraint, rng: random.Random, most: int = 1000) -> list[int] | None:
    """Return a random answer; None: it has no end soon. The end comes where it may, mostly."""
    tokens: list[int] = []
    while len(tokens) < most:
        allowed = constraint.allowed()
        assert allowed, tokens
        if END in allowed and (len(allowed) == 1 or rng.random() < 0.6):
            return tokens
        going_on = [token for token in allowed if token != END]
        closing = [token for token in going_on if token in CLOSING]
        special = [token for token in going_on if token > 256]
        wanted = [some for some in (special, closing) if some and rng.random() < 0.4]
        token = rng.choice([*wanted, going_on][0])
        constraint.accept(token)
        tokens.append(token)
    return None


def walks(vocabulary: Vocabulary, rules: Any, rng: random.Random, n: int) -> Iterator[Any]:
    """Yield random answers."""
    with (
        TokenTrie(vocabulary.texts) as trie,
        Grammar(trie, compile_grammar(rules)) as grammar,
    ):
        for _ in range(n):
            with Constraint(grammar, [END]) as constraint:
                yield walk(constraint, rng)


def read(row: ToolFormat, text: str, tools: tuple[Tool, ...] = TOOLS) -> list[Part]:
    """Return what the reader of a format finds."""
    offered = [call.Tool(t.name, "", json.loads(t.parameters or "{}")) for t in tools]
    splitter = CallSplitter(row, Tools(offered))
    return [*splitter.push(text), *splitter.flush()]


@every_format
@pytest.mark.parametrize("as_controls", [False, True])
def test_an_answer_that_must_call_is_calls_that_obey_their_schemas(
    row: ToolFormat, as_controls: bool
) -> None:
    marks = marks_of(row)
    vocabulary = Vocabulary(marks, controls=as_controls)
    controls = marks if as_controls else []
    rng = random.Random(row.name)
    for tool in TOOLS:
        called = 0
        rules = answer_with_tools(ToolRules((tool,), required=True), row, controls)
        for tokens in walks(vocabulary, rules, rng, 60):
            if tokens is None:
                continue
            if called >= 10:
                break
            text = vocabulary.text(tokens)
            for part in read(row, text):
                assert isinstance(part, Call), text
                assert part.name == tool.name
                jsonschema.validate(dict(part.arguments), SCHEMAS[part.name])
                called += 1
        assert called


@every_format
def test_a_control_token_is_a_mark_too(row: ToolFormat) -> None:
    marks = marks_of(row)
    whole = [mark for mark in marks if mark == row.syntaxes[0].mark]
    vocabulary = Vocabulary(marks, controls=True)
    rules = answer_with_tools(ToolRules(TOOLS), row, marks)
    for mark in whole:
        with vocabulary.constraint(rules) as constraint:
            say(constraint, "x ")
            constraint.accept(258 + marks.index(mark))
            assert not constraint.accepts


@every_format
def test_text_is_free_up_to_a_mark_and_behind_a_call(row: ToolFormat) -> None:
    vocabulary = Vocabulary()
    rules = answer_with_tools(ToolRules(TOOLS), row, [])
    written = row.write([Call("now", {})])
    mark = row.syntaxes[0].mark
    with vocabulary.constraint(rules) as constraint:
        if row.syntaxes[0].is_answer:
            say(constraint, "é " + written)  # not at the beginning: text
            assert constraint.accepts
            return
        say(constraint, "é {[ <" + mark)
        assert not constraint.accepts
        say(constraint, written.removeprefix(mark))
    with vocabulary.constraint(rules) as constraint:
        say(constraint, "a\n" + written)
        assert constraint.accepts
        if not row.text_name:
            say(constraint, "\n\nDone <")
        assert constraint.accepts


def say(constraint: Constraint, text: str) -> None:
    for byte in text.encode():
        constraint.accept(1 + byte)


NAMED = [row for row in FORMATS if row is not formats.LFM2]  # whose templates write other quotes


@pytest.mark.parametrize("row", NAMED, ids=lambda row: row.name)
def test_what_a_format_writes_is_in_its_grammar(row: ToolFormat) -> None:
    calls = [Call("set_lamp", {"room": "Küche 🙂", "mode": "on", "level": 3}), Call("now", {})]
    rules = answer_with_tools(ToolRules(TOOLS), row, [])
    with Vocabulary().constraint(rules) as constraint:
        say(constraint, row.write(calls))
        assert constraint.accepts


@pytest.mark.parametrize(
    "schema",
    [
        {"multipleOf": 12345},
        {"patternProperties": {"(?=a)": {}}},
        {"allOf": [{"patternProperties": {"a": {}}}, {"properties": {"b": {}}}]},
        {"propertyNames": {"anyOf": [{"pattern": "a"}, {"pattern": "b"}]}},
        {"uniqueItems": True},
    ],
    ids=lambda schema: next(iter(schema)),
)
def test_what_is_beyond_bounds_is_not_held_to_and_the_rest_is(schema: dict[str, Any]) -> None:
    parameters = {"type": "object", "properties": {"a": schema, "n": {"type": "integer"}}}
    tools = (Tool("f", "", json.dumps(parameters)),)
    rules = answer_with_tools(ToolRules(tools, required=True), formats.HERMES, [])
    with Vocabulary().constraint(rules) as constraint:
        say(constraint, formats.HERMES.write([Call("f", {"a": {"z": [1, 1]}, "n": 1})]))
        assert constraint.accepts
    with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
        say(constraint, formats.HERMES.write([Call("f", {"n": "x"})]))


LINES = ("<parameter=room>", "<parameter=x>", "</function>", "</tool_call>", "</functio", "a", " ")


def test_a_string_in_tags_is_read_as_the_grammar_took_it() -> None:
    """A line of another parameter in a string ended it for the reader, not for the grammar."""
    schema = {"type": "object", "properties": {"code": {"type": "string"}, "room": {}}}
    tools = (Tool("write", "", json.dumps(schema)),)
    rng, n_taken, n_refused = random.Random(5), 0, 0
    rules = answer_with_tools(ToolRules(tools, required=True), formats.QWEN_CODER, [])
    vocabulary = Vocabulary()
    with TokenTrie(vocabulary.texts) as trie, Grammar(trie, compile_grammar(rules)) as grammar:
        for _ in range(300):
            code = "".join(rng.choice(LINES) + rng.choice(("\n", "")) for _ in range(4))
            given = Call("write", {"code": code})
            with Constraint(grammar, [END]) as constraint:
                try:
                    say(constraint, formats.QWEN_CODER.write([given]))
                except EngineError:
                    n_refused += 1
                    continue
                assert constraint.accepts
            assert read(formats.QWEN_CODER, formats.QWEN_CODER.write([given]), tools) == [given]
            n_taken += 1
    assert n_taken > 100
    assert n_refused > 50


def test_a_given_value_that_tags_would_end_is_left_out() -> None:
    values = ["a\n</function>", "on", "x</parameter>y", "<parameter=a>"]
    schema = {"type": "object", "properties": {"v": {"enum": values}}, "required": ["v"]}
    tools = (Tool("f", "", json.dumps(schema)),)
    rules = answer_with_tools(ToolRules(tools, required=True), formats.QWEN_CODER, [])
    for value in values:
        written = formats.QWEN_CODER.write([Call("f", {"v": value})])
        with Vocabulary().constraint(rules) as constraint:
            if value in ("on", "<parameter=a>"):
                say(constraint, written)
                assert constraint.accepts
                assert read(formats.QWEN_CODER, written, tools) == [Call("f", {"v": value})]
            else:
                with pytest.raises(EngineError):
                    say(constraint, written)


@every_format
def test_no_unknown_name_and_no_wrong_argument(row: ToolFormat) -> None:
    rules = answer_with_tools(ToolRules(TOOLS), row, [])
    for wrong in (Call("set_lamps", {}), Call("set_lamp", {"mode": "on", "rooms": "x"})):
        with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
            say(constraint, row.write([wrong]))


@every_format
def test_one_call_is_the_end_when_there_may_be_one_only(row: ToolFormat) -> None:
    for required in (False, True):
        rules = answer_with_tools(ToolRules(TOOLS, required, several=False), row, [])
        with Vocabulary().constraint(rules) as constraint:
            say(constraint, row.write([Call("now", {})]))
            assert constraint.complete


def test_functionarys_prompt_has_begun_a_call() -> None:
    rules = answer_with_tools(ToolRules(TOOLS), formats.FUNCTIONARY_2, [], opened=">>>")
    for answer in ("all\nHello >>", "now\n{}", "all\nI do.>>>now\n{}"):
        with Vocabulary().constraint(rules) as constraint:
            say(constraint, answer)
            assert constraint.accepts
    with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
        say(constraint, "hello")


def test_an_answer_is_in_its_format_or_calls() -> None:
    wanted = ResponseFormat(FormatKind.CHOICES, choices=("yes", "no"))
    rules = answer_with_tools(ToolRules(TOOLS), formats.HERMES, [], answer=format_grammar(wanted))
    for answer in ("yes", formats.HERMES.write([Call("now", {}), Call("now", {})])):
        with Vocabulary().constraint(rules) as constraint:
            say(constraint, answer)
            assert constraint.accepts
    with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
        say(constraint, "well")


UNSUPPORTED = {
    "type": "object",
    "properties": {"a": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}}},
    "required": ["a"],
}


def test_a_strict_tool_has_the_members_that_alternatives_add() -> None:
    """Of those, an alternative names only its own."""
    named = [{"properties": {key: {"type": "integer"}}, "required": [key]} for key in ("b", "c")]
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": named}
    tool = Tool("f", "", json.dumps(schema), strict=True)
    rules = answer_with_tools(ToolRules((tool,)), formats.HERMES, [])
    with Vocabulary().constraint(rules) as constraint:
        say(constraint, formats.HERMES.write([Call("f", {"a": "x", "c": 1})]))
    with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
        say(constraint, formats.HERMES.write([Call("f", {"a": "x"})]))


def test_a_strict_tool_is_refused_by_name_another_is_held_to_the_rest() -> None:
    strict = Tool("f", "", json.dumps(UNSUPPORTED), strict=True)
    with pytest.raises(LlamadError, match="tool f: parameters: /properties/a/uniqueItems: is") as e:
        answer_with_tools(ToolRules((strict,)), formats.HERMES, [])
    assert e.value.reason == "INVALID_SCHEMA"
    rules = answer_with_tools(
        ToolRules((Tool("f", "", json.dumps(UNSUPPORTED)),)), formats.HERMES, []
    )
    with Vocabulary().constraint(rules) as constraint:
        say(constraint, formats.HERMES.write([Call("f", {"a": [1, 1]})]))
    with Vocabulary().constraint(rules) as constraint, pytest.raises(EngineError):
        say(constraint, formats.HERMES.write([Call("f", {"a": "x"})]))


@pytest.mark.parametrize(
    "schema",
    [{"type": "array"}, {"type": 3}, {"type": "object", "properties": {"a": {"$ref": "#/x"}}}],
)
def test_a_wrong_schema_leaves_the_arguments_free_or_is_refused(schema: dict[str, Any]) -> None:
    text = json.dumps(schema)
    rules = answer_with_tools(ToolRules((Tool("f", "", text),)), formats.HERMES, [])
    with Vocabulary().constraint(rules) as constraint:
        say(constraint, formats.HERMES.write([Call("f", {"a": "x"})]))
        assert constraint.accepts
    with pytest.raises(LlamadError, match="tool f: parameters: "):
        answer_with_tools(ToolRules((Tool("f", "", text, strict=True),)), formats.HERMES, [])


@pytest.mark.parametrize("row", [formats.LFM2, formats.QWEN_CODER], ids=lambda row: row.name)
def test_a_name_that_the_notation_cannot_write_is_written_as_json(row: ToolFormat) -> None:
    schema = {"type": "object", "properties": {"a b": {"type": "integer"}, "class": {"const": 1}}}
    tools = (Tool("ns/f-1", "", json.dumps(schema)),)
    rules = answer_with_tools(ToolRules(tools, required=True), row, [])
    vocabulary, rng = Vocabulary(), random.Random(1)
    for _ in range(20):
        with vocabulary.constraint(rules) as constraint:
            tokens = walk(constraint, rng)
        assert tokens is not None
        text = vocabulary.text(tokens)
        (first, *_) = read(row, text, tools=tools)
        assert isinstance(first, Call), text
        assert first.name == "ns/f-1"


def test_what_schemas_of_tools_have_alike_is_made_once() -> None:
    long = {"enum": ["x" * 1000]}

    def n_states(n: int) -> int:
        schema = json.dumps({"type": "object", "properties": {"a": long}})
        tools = tuple(Tool(f"f{i}", "", schema) for i in range(n))
        return compile_grammar(answer_with_tools(ToolRules(tools), formats.HERMES, [])).n_states

    assert n_states(1) > 1000
    assert n_states(2) - n_states(1) < 200


@every_format
def test_a_value_that_cannot_be_is_one_in_each_tool_that_has_it(row: ToolFormat) -> None:
    never = {"type": "integer", "minimum": 2, "maximum": 1}
    schema = {"type": "object", "properties": {"a": never, "b": {"type": "boolean"}}}
    tools = tuple(Tool(f"f{i}", "", json.dumps(schema)) for i in range(3))
    rules = answer_with_tools(ToolRules(tools, required=True), row, marks_of(row))
    vocabulary, rng = Vocabulary(marks_of(row), controls=True), random.Random(1)
    for _ in range(20):
        with vocabulary.constraint(rules) as constraint:
            tokens = walk(constraint, rng)
        assert tokens is not None
        for part in read(row, vocabulary.text(tokens), tools=tools):
            assert isinstance(part, Call)
            assert part.arguments.keys() <= {"b"}
