"""Random values that the grammars of everyday schemas take, judged by PyPI's jsonschema.

All 300, with tokens drawn by chance; ``make schema-answers`` has a model draw them.
"""

import random

import pytest

from everyday_schemas import N_SCHEMAS, schemas
from llamad.engine.bindings import Constraint, Grammar, TokenTrie
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema
from schema_answers import judge

END = 0
TEXTS = [
    b"",
    *(bytes((i,)) for i in range(256)),
    b'"}',
    b"]}",
    b'",',
    b'":',
    b"true",
    "灯".encode(),
]
CLOSING = [1 + byte for byte in b'"}]'] + [257, 258]
MOST_TOKENS = 4000
ANSWERS = 4


@pytest.fixture(scope="module")
def trie() -> TokenTrie:
    return TokenTrie(TEXTS)


def said(constraint: Constraint, rng: random.Random) -> str | None:
    """Return a random answer; None: it is too long."""
    tokens: list[int] = []
    while not constraint.complete:
        allowed = constraint.allowed()
        assert allowed, b"".join(TEXTS[token] for token in tokens)  # no answer has no end
        if allowed[0] == END and rng.random() < 0.7:
            break
        wanted = [token for token in allowed if token in CLOSING]
        token = rng.choice(wanted if wanted and rng.random() < 0.5 else allowed)
        if token == END:
            break
        if len(tokens) == MOST_TOKENS:
            return None
        constraint.accept(token)
        tokens.append(token)
    return b"".join(TEXTS[token] for token in tokens).decode()


@pytest.mark.parametrize("number", range(N_SCHEMAS))
def test_every_answer_is_accepted_by_its_schema(number: int, trie: TokenTrie) -> None:
    schema, rng = schemas()[number], random.Random(number)
    n_whole = 0
    with Grammar(trie, compile_grammar(parse_json_schema(schema))) as grammar:
        for _ in range(ANSWERS):
            with Constraint(grammar, [END]) as constraint:
                text = said(constraint, rng)
            if text is not None:
                assert judge(schema, text) == "", text
                n_whole += 1
    assert n_whole
