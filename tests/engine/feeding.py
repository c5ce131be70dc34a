"""Feed token sequences to an Engine, alone or in company, and collect every row of logits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llamad.engine.bindings import Engine
from llamad.engine.single_sequence import SingleSequence

Logits = NDArray[np.float32]  # (n_tokens, vocab_size)


@dataclass(frozen=True, slots=True)
class Part:
    """n consecutive tokens of one sequence in one step."""

    sequence: int
    n: int


def feed(
    engine: Engine, tokens: Sequence[int], *, chunk: int, sequence: SingleSequence | None = None
) -> Logits:
    """Append tokens to a sequence, ``chunk`` rows a step; return the logits of all of them.

    sequence: a new one, in the engine's first blocks, when there is none.
    """
    sequence = sequence or SingleSequence(engine)
    rows: list[Logits] = []
    for start in range(0, len(tokens), chunk):
        part = tokens[start : start + chunk]
        sequence.feed(part, n_out=len(part))
        rows += [np.array(engine.logits(k)) for k in range(len(part))]
    return np.stack(rows)


def feed_together(
    engine: Engine, prompts: Sequence[Sequence[int]], steps: Sequence[Sequence[Part]]
) -> list[Logits]:
    """Feed prompt i to a new sequence i in the given steps; return each sequence's logits."""
    fed = [SingleSequence(engine, i) for i in range(len(prompts))]
    collected: list[list[Logits]] = [[] for _ in prompts]
    for step in steps:
        runs = []
        for part in step:
            at = fed[part.sequence].length
            tokens = prompts[part.sequence][at : at + part.n]
            runs.append(fed[part.sequence].run(tokens, n_out=part.n))
        engine.forward(runs)
        k = 0
        for part in step:
            fed[part.sequence].length += part.n
            rows = range(k, k + part.n)
            collected[part.sequence] += [np.array(engine.logits(row)) for row in rows]
            k += part.n
    return [np.stack(rows) for rows in collected]


def random_tokens(seed: int, n: int, vocab_size: int = 300) -> list[int]:
    """Return n seeded token ids."""
    drawn = np.random.default_rng(seed).integers(0, vocab_size, n)
    return [int(token) for token in drawn]


def bits(logits: Logits) -> bytes:
    """Return what "the same logits" means here: every bit."""
    return logits.astype("<f4").tobytes()
