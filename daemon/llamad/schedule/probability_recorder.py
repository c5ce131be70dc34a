"""A sampler that also notes how likely each token was that it drew.

The probabilities are those of the model: under the logits as they are, before any penalty, filter,
bias or format. So they depend on the tokens before alone, and on nothing of the step.
"""

from typing import Any

from llamad.engine.worker import Probabilities, StepSampler


class ProbabilityRecorder:
    """Draws as another sampler does. The thread of a step notes, the loop takes behind it."""

    def __init__(self, sampler: StepSampler, n_likeliest: int) -> None:
        """Note also the likeliest tokens in each one's place, so many."""
        self._sampler = sampler
        self._n_likeliest = n_likeliest
        self._noted: list[Probabilities] = []

    @property
    def mu(self) -> float:
        """What mirostat has learned from the logits so far."""
        return self._sampler.mu

    @property
    def ended(self) -> bool:
        """Whether nothing may follow what was drawn."""
        return self._sampler.ended

    def accept(self, token: int, *, penalized: bool = True) -> None:
        """Count a token as recent."""
        self._sampler.accept(token, penalized=penalized)

    def sample(self, engine: Any, k: int) -> int:
        """Draw the next token from kept row k of the last forward."""
        token = self._sampler.sample(engine, k)
        self._noted.append(engine.token_probabilities(k, token, self._n_likeliest))
        return token

    def take(self) -> list[Probabilities]:
        """Return what was noted since the last call, in the order of the tokens."""
        noted, self._noted = self._noted, []
        return noted
