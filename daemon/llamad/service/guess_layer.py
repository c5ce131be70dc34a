"""A loaded model's own layer that guesses: ``schedule.runtime.GuessLayerRuntime``."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from llamad.engine.bindings import Engine, Sampler
from llamad.engine.drafting import DraftChunk, Drafter, DraftRound
from llamad.sampling.parameters import GREEDY

NAME = "multi-token prediction"


@dataclass(frozen=True, slots=True)
class GuessLayer:
    """The layer at work, on the model's engine."""

    drafter: Drafter
    name: str = NAME

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Guess behind tokens of the last step, on the engine thread."""
        return self.drafter.run(chunks)


def guess_layer_of(engine: Engine) -> GuessLayer:
    """Return the layer of a model that was opened with it."""
    sampler = Sampler(GREEDY, vocab_size=engine.vocab_size, n_ctx=engine.n_ctx, seed=0)
    return GuessLayer(
        Drafter(
            engine,
            sampler,
            vocab_size=engine.vocab_size,
            now=time.monotonic,
            forward=engine.guess,
        )
    )
