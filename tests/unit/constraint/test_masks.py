"""The tokens that a constraint allows against those that the slow automaton takes, one by one."""

import json
import random

import pytest

from llamad.engine.bindings import Constraint, EngineError, Grammar, TokenTrie
from llamad.errors import LlamadError
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.expression import Grammar as Rules
from llamad.sampling.constraint.expression import Text, literal, sequence
from llamad.sampling.constraint.formats import Thoughts, behind_thoughts, control_token
from llamad.sampling.constraint.gbnf import parse_gbnf
from llamad.sampling.constraint.json_schema import any_json, parse_json_schema
from unit.constraint.slow_automaton import SlowAutomaton

END = 0
PIECES = [
    *[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        '"',
        "0",
        "1",
        "2",
        "9",
        "-",
        ".",
        "e",
        "true",
        "false",
        "null",
        "a",
        "b",
        "on",
        "off",
        "kitchen",
        "é",
        "灯",
        "😀",
        '{"',
        '"}',
        '"a"',
        "-1",
        "00",
        "}}",
        "]]",
    ],
    *(
        "\\",
        '"name "',
        "\n",
        "\t",
        ": ",
        ',"',
        '"},',
        "12",
        "\\n",
        "\\u00",
        '\\"',
        "ab",
        "aab",
        '","',
    ),
    *("living", " room", "2024-", "-02-", "-29", "x==y", "(1+", "*)", ";", "Nf3"),
]


def vocabulary(rng: random.Random) -> list[bytes]:
    """Return an end token, every byte, and pieces that come together at random."""
    texts = [b"", *(bytes((i,)) for i in range(256))]
    texts += [piece.encode() for piece in PIECES]
    for _ in range(300):
        texts.append("".join(rng.choices([*PIECES, " "], k=rng.randint(2, 5))).encode())
    for length in (10, 20, 40, 100):
        texts += [b"a" * length, b" " * length, ("é" * length).encode(), b"1" * length]
    texts.append("灯".encode()[:2])
    return [*texts, *texts[-3:]]  # some texts twice


SCHEMA = {
    "type": "object",
    "properties": {
        "room": {"enum": ["kitchen", "living room", "bath"]},
        "on": {"type": "boolean"},
        "level": {"type": "integer", "minimum": 0, "maximum": 120},
        "name": {"type": "string", "minLength": 2, "maxLength": 25},
        "inside": {"type": "array", "items": {"$ref": "#"}, "maxItems": 70},
        "when": {"type": "string", "format": "date"},
        "a": {"type": "string", "pattern": "^(a|ab)*b$"},
    },
    "required": ["room", "on"],
}
TEXT = Text(
    ((b"kitchen", sequence(literal("["), literal("on]"))), (b"x==", literal("(1+"))),
    ((b'{"name "', literal(": ")), (b"a", literal("b"))),
)
GRAMMARS = {
    "text with marks": Rules({"root": TEXT}, "root"),
    "json": any_json(object_only=False),
    "schema": parse_json_schema(SCHEMA),
    "closed": parse_json_schema(SCHEMA | {"additionalProperties": False}),
    "few members": parse_json_schema(SCHEMA | {"minProperties": 2, "maxProperties": 3}),
    "arithmetic": parse_gbnf(
        'root ::= (expr "=" ws term "\\n")+\nexpr ::= term ([-+*/] term)*\n'
        'term ::= ident | num | "(" ws expr ")" ws\nident ::= [a-z] [a-z0-9_]* ws\n'
        "num ::= [0-9]+ ws\nws ::= [ \\t\\n]*"
    ),
    "ambiguous": parse_gbnf('root ::= (a | b)* ";"\na ::= "a" b*\nb ::= "b" a* | "ab" | "aab"'),
    "counted": parse_gbnf('root ::= ("a"{3,90} | [é1]{2,30} " ")* "b"{7}'),
}


@pytest.mark.parametrize("name", GRAMMARS)
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_what_the_slow_automaton_takes(name: str, seed: int) -> None:
    """Also where next to nothing that was found out is kept, with every other seed."""
    rng = random.Random(f"{name} {seed}")
    texts = vocabulary(rng)
    automaton = compile_grammar(GRAMMARS[name])
    slow = SlowAutomaton(automaton)
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
    ):
        if seed % 2:
            grammar.bound(mask_bytes=1, state_bytes=1)
        ways, said = slow.start, b""
        for _ in range(45):
            wanted = [i for i, text in enumerate(texts) if text and slow.after(ways, text)]
            if None in ways:
                wanted.insert(0, END)
            assert constraint.allowed() == wanted, said
            assert constraint.accepts == (None in ways)
            assert wanted, said  # no answer runs into a dead end
            going_on = [i for i in wanted if i != END]
            if not going_on:
                break
            token = rng.choice(going_on)
            constraint.accept(token)
            ways = slow.after(ways, texts[token])
            said += texts[token]


def test_a_thought_ends_with_its_mark_as_text_or_as_a_control_token() -> None:
    rules = behind_thoughts(parse_gbnf('root ::= "a"'), Thoughts(opened="</think>"))
    texts = [b"", *(bytes((i,)) for i in range(254)), control_token(b"</think>")]
    with TokenTrie(texts) as trie, Grammar(trie, compile_grammar(rules)) as grammar:
        for ending in ([255], [1 + byte for byte in b"</think>"]):
            with Constraint(grammar, [END]) as constraint:
                for token in (*ending, 1 + ord("a")):
                    constraint.accept(token)
                assert constraint.complete


def test_what_must_follow_is_known() -> None:
    automaton = compile_grammar(
        parse_gbnf('root ::= "{\\"room\\": \\"" ("kitchen" | "kit") "\\"}"')
    )
    texts = [b"", *(bytes((i,)) for i in range(256)), b"kit"]
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
    ):
        assert constraint.forced() == b'{"room": "kit'
        for byte in constraint.forced():
            constraint.accept(1 + byte)
        assert constraint.forced() == b""
        constraint.accept(1 + ord("c"))
        assert constraint.forced() == b'hen"}'


def test_a_token_that_may_not_come_changes_nothing() -> None:
    automaton = compile_grammar(parse_gbnf('root ::= "ab" "c"?'))
    with (
        TokenTrie([b"", b"a", b"b", b"c", b"abx"]) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
    ):
        with pytest.raises(EngineError, match="token 4 is not in the grammar here"):
            constraint.accept(4)
        with pytest.raises(EngineError, match="end token 0 comes before the grammar's end"):
            constraint.accept(END)
        with pytest.raises(EngineError, match=r"token 5, must be in \[0, 4\]"):
            constraint.accept(5)
        constraint.accept(1)
        constraint.accept(2)
        assert constraint.allowed() == [END, 3]
        constraint.accept(END)
        assert constraint.allowed() == []


def test_states_are_forgotten_and_made_again() -> None:
    """A long answer meets more states than are kept; what may come stays the same."""
    automaton = compile_grammar(any_json(object_only=False))
    texts = [b"", *(bytes((i,)) for i in range(256))]
    slow = SlowAutomaton(automaton)
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
    ):
        said = b"[" * 60
        for byte in said:
            constraint.accept(1 + byte)
        for _ in range(3000):
            for byte in b'{"k":[1,"x"]},':
                constraint.accept(1 + byte)
        ways = slow.after(slow.start, said + b'{"k":[1,"x"]},')
        assert constraint.allowed() == [1 + byte for byte in range(256) if slow.step(ways, byte)]


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ('root ::= root "a" | "b"', "rule 'root' calls itself before it takes any text"),
        ('root ::= a\na ::= "x"? b\nb ::= a "y"', "calls itself before it takes any text"),
        ('root ::= ("a"?){0,5000}', "may be empty is repeated up to 5000 times, at most 64"),
    ],
)
def test_a_grammar_without_end_is_refused(grammar: str, message: str) -> None:
    with pytest.raises(LlamadError, match=message):
        compile_grammar(parse_gbnf(grammar))


def test_a_mask_that_takes_too_long_is_an_error() -> None:
    """Eight rules of other letters, in any order: each text has ways of its own."""
    rng = random.Random(3)
    letters = "abcdefghijklmnopqrstuvwxyz"
    root = "root ::= (" + " | ".join(f"a{i}" for i in range(8)) + ")*"
    some = ["".join(rng.sample(letters, count)) for _ in range(8) for count in (20, 24)]
    rules = [f"a{i} ::= ([{some[2 * i]}] [{some[2 * i + 1]}]?){{0,300}}" for i in range(8)]
    automaton = compile_grammar(parse_gbnf("\n".join([root, *rules])))
    texts = [
        b"",
        *("".join(rng.choices(letters, k=rng.randint(1, 30))).encode() for _ in range(20_000)),
    ]
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
        pytest.raises(EngineError, match="too ambiguous"),
    ):
        constraint.allowed()


def say(constraint: Constraint, text: bytes) -> None:
    """Go on by a token for each byte."""
    for byte in text:
        constraint.accept(1 + byte)


def test_too_many_ways_at_once_are_an_error_not_a_hang() -> None:
    rules = parse_gbnf('root ::= a a a a\na ::= (b b{0,900}){1,900}\nb ::= "x" | "xx" | "xxx"')
    automaton = compile_grammar(rules)
    texts = [b"", *(bytes((i,)) for i in range(256))]
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
        pytest.raises(EngineError, match="too ambiguous"),
    ):
        say(constraint, b"x" * 2000)


@pytest.mark.parametrize("values", [[f"value {i}" for i in range(5000)], list(range(5000))])
def test_thousands_of_values_are_not_too_many_ways_at_once(values: list[object]) -> None:
    automaton = compile_grammar(parse_json_schema({"enum": values}))
    texts = [b"", *(bytes((i,)) for i in range(256))]
    with (
        TokenTrie(texts) as trie,
        Grammar(trie, automaton) as grammar,
        Constraint(grammar, [END]) as constraint,
    ):
        say(constraint, json.dumps(values[4321]).encode())
        assert constraint.accepts


def test_what_many_alternatives_begin_with_alike_changes_no_text() -> None:
    words = [*("a" * i + "b" * j for i in range(4) for j in range(4)), "é", "èa", "éa", "z"]
    parts = [f'"{word}" [0-9]' for word in words] + [f'"{word}"' for word in words if word]
    grammar = "root ::= " + " | ".join([*parts, '[0-9] "x"', '[0-9] "y"', "[0-9]+"])
    slow = SlowAutomaton(compile_grammar(parse_gbnf(grammar)))
    for word in [*words, "5", "aaaa", "abba"]:
        for end in ("", "7", "x", "y", "77"):
            text, stem, digit = word + end, (word + end)[:-1], (word + end)[-1:]
            wanted = text in words or (stem in words and digit.isdigit()) or text.isdigit()
            wanted = (wanted and text != "") or text in ("5x", "5y", "7x")
            assert slow.accepts(text.encode()) == wanted, text
