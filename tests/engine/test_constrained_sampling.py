"""Draws under a constraint: nothing but what it allows, and the end where the answer may end."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from llamad.engine.bindings import (
    Constraint,
    Engine,
    EngineError,
    EngineModel,
    Grammar,
    Sampler,
    TokenTrie,
)
from llamad.engine.single_sequence import SingleSequence
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.expression import Grammar as Rules
from llamad.sampling.constraint.gbnf import parse_gbnf
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.parameters import Sampling
from llamad.text import load_tokenizer
from tiny_gguf import TinyModelPath, TinySpec

WILD = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, repeat_penalty=1.3)
N_CTX = 512
LAMP: dict[str, Any] = {
    "type": "object",
    "properties": {
        "room": {"enum": ["kitchen", "bath"]},
        "on": {"type": "boolean"},
        "level": {"type": "integer", "minimum": 0, "maximum": 100},
        "note": {"type": "string", "maxLength": 12},
    },
    "required": ["room", "on"],
    "additionalProperties": False,
}


class Answers:
    """Answers of a tiny model, whose weights and so whose words are random."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self._stack = stack
        self._tokenizer = load_tokenizer(path)
        ids = range(self._tokenizer.vocab_size)
        self.ends = [i for i in ids if self._tokenizer.is_end_of_generation(i)]
        texts = [b"" if i in self.ends else self._tokenizer.piece(i) for i in ids]
        self._trie = stack.enter_context(TokenTrie(texts))
        model = stack.enter_context(EngineModel(path))
        self._engine = stack.enter_context(Engine(model, n_ctx=N_CTX, n_threads=1))

    def answer(self, rules: Rules, seed: int) -> tuple[str, bool]:
        """Return what was drawn, and whether an end token ended it."""
        with (
            Grammar(self._trie, compile_grammar(rules)) as grammar,
            Constraint(grammar, self.ends) as constraint,
            Sampler(WILD, vocab_size=self._tokenizer.vocab_size, n_ctx=N_CTX, seed=seed) as sampler,
        ):
            sampler.constrain(constraint)
            sequence = SingleSequence(self._engine)
            drawn: list[int] = []
            sequence.feed(self._tokenizer.encode("Say"), n_out=1)
            while sequence.length < N_CTX - 1:
                token = sampler.sample(self._engine, 0)
                if token in self.ends:
                    return self._tokenizer.decode(drawn), True
                drawn.append(token)
                sequence.feed([token], n_out=1)
            return self._tokenizer.decode(drawn), False


@pytest.fixture
def answers(tiny_model_path: TinyModelPath) -> Iterator[Answers]:
    """Return the answers of one tiny model."""
    with ExitStack() as stack:
        yield Answers(str(tiny_model_path(TinySpec())), stack)


def test_every_answer_is_one_that_the_schema_takes(answers: Answers) -> None:
    rules = parse_json_schema(LAMP)
    for seed in range(30):
        text, ended = answers.answer(rules, seed)
        assert ended, text
        value = json.loads(text)
        assert set(value) <= set(LAMP["properties"])
        assert value["room"] in ("kitchen", "bath")
        assert value["on"] in (True, False)
        assert 0 <= value.get("level", 0) <= 100
        assert len(value.get("note", "")) <= 12


def test_a_seed_draws_the_same_again(answers: Answers) -> None:
    rules = parse_gbnf('root ::= ("a" | "b" | [0-9]){20,40} "."')
    first = [answers.answer(rules, seed) for seed in range(3)]
    assert first == [answers.answer(rules, seed) for seed in range(3)]
    assert len({text for text, _ in first}) == 3


def test_an_answer_that_no_token_goes_on_with_is_an_error(
    tiny_model_path: TinyModelPath,
) -> None:
    texts = [b"", b"a"]
    with (
        EngineModel(str(tiny_model_path(TinySpec()))) as model,
        Engine(model, n_ctx=64, n_threads=1) as engine,
        TokenTrie([*texts, *[b""] * (model.info.vocab_size - 2)]) as trie,
        Grammar(trie, compile_grammar(parse_gbnf('root ::= "ab"'))) as grammar,
        Constraint(grammar, [0]) as constraint,
        Sampler(WILD, vocab_size=model.info.vocab_size, n_ctx=64, seed=1) as sampler,
    ):
        sampler.constrain(constraint)
        SingleSequence(engine).feed([1], n_out=1)
        assert sampler.sample(engine, 0) == 1
        with pytest.raises(
            EngineError, match="no token goes on with the answer within its grammar"
        ):
            sampler.sample(engine, 0)
