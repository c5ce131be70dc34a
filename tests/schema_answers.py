"""Answers of a model to each of the everyday schemas: whether the schemas accept them.

    PYTHONPATH=tests python -m schema_answers MODEL.gguf [--seeds 10] [--every 1]

At temperature 1.5. An answer that is cut by its length is counted apart: what asked hears of that
(``format_incomplete``). Exits with 1 when an answer is wrong. The judge is PyPI's jsonschema.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack

import jsonschema

from everyday_schemas import Schema, schemas
from llamad.engine.bindings import Constraint, Engine, EngineModel, Grammar, Sampler, TokenTrie
from llamad.engine.single_sequence import SingleSequence
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.parameters import Sampling
from llamad.service.answer_formats import constraint_texts
from llamad.text import load_tokenizer

WILD = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0)
MOST_TOKENS = 400


class Answers:
    """Answers of one model."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self._tokenizer = load_tokenizer(path)
        self._ends = list(self._tokenizer.vocabulary.end_ids)
        self._trie = stack.enter_context(TokenTrie(constraint_texts(self._tokenizer)))
        model = stack.enter_context(EngineModel(path))
        self._n_ctx = MOST_TOKENS + 64
        self._engine = stack.enter_context(Engine(model, n_ctx=self._n_ctx, n_threads=2))

    def grammar(self, schema: Schema) -> Grammar:
        """Return the compiled schema."""
        return Grammar(self._trie, compile_grammar(parse_json_schema(schema)))

    def answer(self, grammar: Grammar, seed: int) -> tuple[str, bool]:
        """Return an answer, and whether it is whole."""
        size = self._tokenizer.vocab_size
        with (
            Constraint(grammar, self._ends) as constraint,
            Sampler(WILD, vocab_size=size, n_ctx=self._n_ctx, seed=seed) as sampler,
        ):
            sampler.constrain(constraint)
            sequence = SingleSequence(self._engine)
            sequence.feed(self._tokenizer.encode("Answer with JSON:\n"), n_out=1)
            drawn: list[int] = []
            while not constraint.complete and len(drawn) < MOST_TOKENS:
                token = sampler.sample(self._engine, 0)
                if token in self._ends:
                    return self._tokenizer.decode(drawn), True
                drawn.append(token)
                sequence.feed([token], n_out=1)
            return self._tokenizer.decode(drawn), constraint.accepts


def judge(schema: Schema, text: str) -> str:
    """Return what is wrong with an answer; "" when it is right."""
    checker = jsonschema.Draft202012Validator(
        schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
    )
    try:
        error = next(checker.iter_errors(json.loads(text)), None)
    except ValueError as fault:
        return str(fault)
    return "" if error is None else error.message


def wrong_answers(
    answers: Answers, chosen: list[tuple[int, Schema]], seeds: int, counts: Counter[str]
) -> Iterator[str]:
    """Yield a line for each answer that is wrong, and count them all."""
    for number, schema in chosen:
        with answers.grammar(schema) as grammar:
            for seed in range(seeds):
                text, whole = answers.answer(grammar, seed)
                fault = judge(schema, text) if whole else ""
                counts["cut" if not whole else "wrong" if fault else "right"] += 1
                if fault:
                    yield f"schema {number}, seed {seed}: {fault}: {text!r}"


def main() -> int:
    """Print what is wrong, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--every", type=int, default=1, help="only each n-th schema")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    chosen = list(enumerate(schemas()))[:: arguments.every]
    with ExitStack() as stack:
        answers = Answers(arguments.model, stack)
        for line in wrong_answers(answers, chosen, arguments.seeds, counts):
            print(line)
    print(f"{len(chosen)} schemas, {arguments.seeds} seeds each: {dict(counts)}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
