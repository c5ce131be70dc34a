"""Guessing with a small model, or a layer of the model: a round of short steps, for all together.

Owns the round: read what is new, then guess token by token, greedily, as long as all guesses so far
are likely enough to be right together. It knows neither jobs nor pools; whoever calls has the
blocks and decides what the guesses are worth.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from llamad.engine.run import Run
from llamad.engine.worker import StepEngine, StepSampler
from llamad.errors import LlamadError


class DraftEngine(StepEngine, Protocol):
    """The part of ``bindings.Engine`` that guessing needs."""

    def log_probability(self, k: int, token: int) -> float:
        """Return the natural log-probability of a token under kept row k."""


@dataclass(frozen=True, slots=True)
class DraftChunk:
    """Tokens of one sequence that its draft has not read, and how far it may guess behind them.

    ``blocks`` hold the tokens and all guesses but the last, ``local_blocks`` those of layers with a
    window (as in ``Run``).
    """

    tokens: tuple[int, ...]
    position: int
    blocks: tuple[int, ...]
    most: int = 0  # guesses; 0: only read
    least_chance: float = 0.0  # that all of the guesses are right, below which it stops
    trust: float = 1.0  # how often its guesses are right, over how often it expects that
    local_blocks: tuple[int, ...] = ()
    row: int = 0  # of a layer that guesses: the kept row that the token was drawn from

    def run(self, tokens: Sequence[int], position: int, n_out: int, row: int) -> Run:
        """Return a run of this sequence."""
        blocks = self.local_blocks
        return Run(tokens, position, self.blocks, n_out, local_blocks=blocks, row=row)


@dataclass(frozen=True, slots=True)
class Guess:
    """Tokens that may follow, and the probability that the draft gave to each."""

    tokens: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class DraftRound:
    """A guess for each chunk, and the rows and seconds of each step that it took."""

    guesses: tuple[Guess, ...]
    steps: tuple[tuple[int, float], ...]


class Drafter:
    """Guesses with one engine; every call on the engine thread."""

    def __init__(
        self,
        engine: DraftEngine,
        sampler: StepSampler,
        *,
        vocab_size: int,
        now: Callable[[], float],
        forward: Callable[[Sequence[Run]], None] | None = None,
    ) -> None:
        """sampler: draws the likeliest token. vocab_size: of the model that it guesses for.

        forward: what computes a step; None: the engine's forward.
        """
        self._engine = engine
        self._forward = engine.forward if forward is None else forward
        self._sampler = sampler
        self._vocab_size = vocab_size
        self._now = now

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Read all chunks and guess behind them. Raises the LlamadError of a step."""
        guessing = [_Guessing(chunk) for chunk in chunks]
        runs = [one.first_run() for one in guessing]
        steps = []
        while runs:
            began = self._now()
            self._forward(runs)
            asked = [one for one in guessing if one.goes_on]
            for k, one in enumerate(asked):
                self._guess(one, k)
            steps.append((sum(len(run.tokens) for run in runs), self._now() - began))
            runs = [one.next_run(k) for k, one in enumerate(asked) if one.goes_on]
        return DraftRound(tuple(one.guess() for one in guessing), tuple(steps))

    def _guess(self, one: "_Guessing", k: int) -> None:
        """Guess a token from kept row k, unless it is too unlikely or the model has it not."""
        try:
            token = self._sampler.sample(self._engine, k)
        except LlamadError:  # its logits are not finite
            one.stop()
            return
        probability = math.exp(self._engine.log_probability(k, token))
        if token < self._vocab_size:
            one.add(token, probability)
        else:
            one.stop()


class _Guessing:
    """One chunk on its way through a round."""

    def __init__(self, chunk: DraftChunk) -> None:
        self._chunk = chunk
        self._tokens: list[int] = []
        self._probabilities: list[float] = []
        self._chance = 1.0
        self.goes_on = chunk.most > 0

    def add(self, token: int, probability: float) -> None:
        chunk = self._chunk
        self._chance *= min(1.0, probability * chunk.trust)
        if self._chance <= chunk.least_chance:
            self.stop()
            return
        self._tokens.append(token)
        self._probabilities.append(probability)
        self.goes_on = len(self._tokens) < chunk.most

    def stop(self) -> None:
        self.goes_on = False

    def first_run(self) -> Run:
        chunk = self._chunk
        return chunk.run(chunk.tokens, chunk.position, int(chunk.most > 0), chunk.row)

    def next_run(self, k: int) -> Run:
        """Return the last guess as a run; k: the kept row that it was drawn from."""
        chunk = self._chunk
        position = chunk.position + len(chunk.tokens) + len(self._tokens) - 1
        return chunk.run(self._tokens[-1:], position, 1, k)

    def guess(self) -> Guess:
        return Guess(tuple(self._tokens), tuple(self._probabilities))
