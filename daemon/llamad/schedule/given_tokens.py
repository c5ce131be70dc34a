"""A completion that is given: its tokens are put in place of draws, and told how likely they are.

To the rest of the scheduler it is a format that one text fits, spelled in one way. So what comes is
guessed, always rightly, and a step scores as many tokens as it may check guesses.
"""

from collections.abc import Sequence
from typing import Any

from llamad.schedule.guesser import Guesser


class GivenTokens:
    """The sampler of such a completion, and its constraint."""

    mu = 0.0  # of mirostat, which has no part in it

    def __init__(self, tokens: Sequence[int], n_done: int) -> None:
        """Go on behind the first n_done of the tokens."""
        self._tokens = tuple(tokens)
        self._n_done = n_done

    @property
    def accepts(self) -> bool:
        """Whether all tokens were put."""
        return self._n_done == len(self._tokens)

    complete = ended = accepts

    def forced_tokens(self, limit: int) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that come next."""
        return self._tokens[self._n_done : self._n_done + max(0, limit)]

    def accept(self, token: int, *, penalized: bool = True) -> None:
        """Nothing: no draw depends on what came before."""

    def sample(self, engine: Any, k: int) -> int:
        """Put the next token."""
        token = self._tokens[self._n_done]
        self._n_done += 1
        return token


class GivenGuesser(Guesser):
    """Knows what comes, so it never rests and never asks."""

    @property
    def looked_up(self) -> bool:
        """Whether something is still to come."""
        return bool(self._demanded(1))

    def guess(self, limit: int, *, free: bool = False) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that come next."""
        return self._demanded(limit)
