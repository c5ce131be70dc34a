"""Feed token sequences to an Engine, alone or in company, and collect every row of logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamad.engine.bindings import Engine

Logits = NDArray[np.float32]  # (n_tokens, vocab_size)


@dataclass(frozen=True, slots=True)
class Run:
    """n consecutive tokens of one sequence in one step."""

    sequence: int
    n: int


def feed(engine: Engine, tokens: Sequence[int], *, chunk: int, sequence: int = 0) -> Logits:
    """Append tokens to a sequence, ``chunk`` rows a step; return the logits of all of them."""
    rows: list[Logits] = []
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk]
        first = engine.length(sequence)
        positions = range(first, first + len(part))
        engine.forward(part, [sequence] * len(part), list(positions), [1] * len(part))
        rows += [np.array(engine.logits(k)) for k in range(len(part))]
    return np.stack(rows)


def feed_together(
    engine: Engine, prompts: Sequence[Sequence[int]], steps: Sequence[Sequence[Run]]
) -> list[Logits]:
    """Feed prompt i to sequence i in the given steps; return each sequence's logits."""
    collected: list[list[Logits]] = [[] for _ in prompts]
    for step in steps:
        tokens: list[int] = []
        sequences: list[int] = []
        positions: list[int] = []
        for run in step:
            first = engine.length(run.sequence)
            tokens += prompts[run.sequence][first : first + run.n]
            sequences += [run.sequence] * run.n
            positions += range(first, first + run.n)
        engine.forward(tokens, sequences, positions, [1] * len(tokens))
        for k, sequence in enumerate(sequences):
            collected[sequence].append(np.array(engine.logits(k)))
    return [np.stack(rows) for rows in collected]


def random_tokens(seed: int, n: int, vocab_size: int = 300) -> list[int]:
    """Return n seeded token ids."""
    drawn = np.random.default_rng(seed).integers(0, vocab_size, n)
    return [int(token) for token in drawn]


def bits(logits: Logits) -> bytes:
    """Return what "the same logits" means here: every bit."""
    return logits.astype("<f4").tobytes()
