"""Answers of a model to each of the everyday schemas: whether the schemas accept them.

    PYTHONPATH=tests python -m schema_answers MODEL.gguf [--seeds 10] [--every 1]

At temperature 1.5. An answer that is cut by its length is counted apart: what asked hears of that
(``format_incomplete``). Exits with 1 when an answer is wrong. The judge is PyPI's jsonschema.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice

import jsonschema

from everyday_schemas import Schema, schemas
from llamad.engine.bindings import Constraint, Engine, EngineModel, Grammar, Sampler, TokenTrie
from llamad.engine.run import Run
from llamad.engine.single_sequence import SingleSequence, blocks_for
from llamad.sampling.constraint.automaton import compile_grammar
from llamad.sampling.constraint.json_schema import parse_json_schema
from llamad.sampling.parameters import Sampling
from llamad.service.answer_formats import constraint_texts
from llamad.text import load_tokenizer

WILD = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0)
MOST_TOKENS = 400
N_SEQUENCES = 16  # answers that share a step


@dataclass(frozen=True, slots=True)
class Asked:
    """One answer that is to be written. number: of the schema; grammar: the compiled schema."""

    number: int
    schema: Schema
    grammar: Grammar
    seed: int


class Writing:
    """An answer that is being written, in a sequence of its own."""

    def __init__(self, asked: Asked, sequence: SingleSequence, answers: "Answers") -> None:
        self.asked = asked
        self.sequence = sequence
        self.whole = False
        self._ends = answers.ends
        self._drawn: list[int] = []
        self._next = answers.prompt
        with ExitStack() as stack:
            self._constraint = stack.enter_context(Constraint(asked.grammar, self._ends))
            size, n_ctx = answers.tokenizer.vocab_size, answers.engine.n_ctx
            sampler = Sampler(WILD, vocab_size=size, n_ctx=n_ctx, seed=asked.seed)
            self._sampler = stack.enter_context(sampler)
            self._sampler.constrain(self._constraint)
            self._stack = stack.pop_all()

    def run(self) -> Run:
        """Return the tokens of the next step."""
        return self.sequence.run(self._next, n_out=1)

    def draw(self, engine: Engine, row: int) -> list[int] | None:
        """Draw a token behind the step; return the answer's tokens when it has ended."""
        self.sequence.length += len(self._next)
        token = self._sampler.sample(engine, row)
        ended = token in self._ends
        if not ended:
            self._drawn.append(token)
            self._next = [token]
        if not (ended or self._constraint.complete or len(self._drawn) == MOST_TOKENS):
            return None
        self.whole = ended or self._constraint.accepts
        self._stack.close()
        return self._drawn


class Answers:
    """Answers of one model, ``N_SEQUENCES`` at once."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.tokenizer = load_tokenizer(path)
        self.ends = list(self.tokenizer.vocabulary.end_ids)
        self.prompt = self.tokenizer.encode("Answer with JSON:\n")
        self._trie = stack.enter_context(TokenTrie(constraint_texts(self.tokenizer)))
        model = stack.enter_context(EngineModel(path))
        n_ctx = MOST_TOKENS + 64
        n_blocks = N_SEQUENCES * blocks_for(n_ctx)
        engine = Engine(model, n_threads=2, n_ctx=n_ctx, n_blocks=n_blocks, n_logits=N_SEQUENCES)
        self.engine = stack.enter_context(engine)

    def grammar(self, schema: Schema) -> Grammar:
        """Return the compiled schema."""
        return Grammar(self._trie, compile_grammar(parse_json_schema(schema)))

    def written(self, asked: Iterable[Asked]) -> Iterator[tuple[Asked, str, bool]]:
        """Yield each answer as it ends: what was asked, the text, and whether it is whole."""
        waiting = iter(asked)
        free = [SingleSequence(self.engine, i) for i in range(N_SEQUENCES)]
        busy: list[Writing] = []
        while True:
            for one in islice(waiting, len(free)):
                busy.append(Writing(one, free.pop(), self))
            if not busy:
                return
            self.engine.forward([writing.run() for writing in busy])
            drawn = [writing.draw(self.engine, row) for row, writing in enumerate(busy)]
            for writing, tokens in zip(busy, drawn, strict=True):
                if tokens is not None:
                    writing.sequence.truncate(0)
                    free.append(writing.sequence)
                    yield writing.asked, self.tokenizer.decode(tokens), writing.whole
            busy = [one for one, tokens in zip(busy, drawn, strict=True) if tokens is None]


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
    asked = (
        Asked(number, schema, grammar, seed)
        for number, schema in chosen
        for grammar in (answers.grammar(schema),)
        for seed in range(seeds)
    )
    for one, text, whole in answers.written(asked):
        fault = judge(one.schema, text) if whole else ""
        counts["cut" if not whole else "wrong" if fault else "right"] += 1
        if fault:
            yield f"schema {one.number}, seed {one.seed}: {fault}: {text!r}"


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
            print(line, flush=True)
    print(f"{len(chosen)} schemas, {arguments.seeds} seeds each: {dict(counts)}")
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
