"""A thought that has used up its tokens is ended: the closing mark is put in place of draws.

Which tokens are put follows from the tokens so far alone, so a sequence stays its tokens, its seed
and the number of its draws: a token that was put counts as a draw, and the sampler is made anew
behind it, as for a sequence that was paused.
"""

from collections.abc import Callable, Sequence
from typing import Any

from llamad.engine.worker import StepSampler


class BudgetSampler:
    """Draws as another sampler does, until a thought is too long."""

    def __init__(
        self,
        new_sampler: Callable[[Sequence[int], float | None], StepSampler],
        completion: Sequence[int],
        mu: float | None,
        budget_tokens: int,
        ending: Callable[[Sequence[int]], Sequence[int]],
    ) -> None:
        """Begin behind a completion.

        new_sampler: of a completion and what mirostat has learned, as it is behind it. ending: the
        tokens that end the thought which is open behind a completion; none: no thought is.
        """
        self._new_sampler = new_sampler
        self._completion = list(completion)
        self._mu = mu  # behind the completion, while there is no sampler
        self._budget_tokens = budget_tokens
        self._ending = ending
        self._sampler: StepSampler | None = None
        self._left: list[int] | None = None  # of the tokens that are put; None: not known yet

    @property
    def mu(self) -> float:
        """What mirostat has learned from the logits so far."""
        return self._drawing().mu

    @property
    def ended(self) -> bool:
        """Whether nothing may follow what was drawn."""
        return self._sampler is not None and self._sampler.ended

    def accept(self, token: int, *, penalized: bool = True) -> None:
        """Nothing: the sampler is made with the tokens behind it."""

    def sample(self, engine: Any, k: int) -> int:
        """Draw the next token, or put it."""
        token = self._put()
        if token is None:
            token = self._drawing().sample(engine, k)
        elif self._sampler is not None:
            self._mu, self._sampler = self._sampler.mu, None
        self._completion.append(token)
        return token

    def _drawing(self) -> StepSampler:
        if self._sampler is None:
            self._sampler = self._new_sampler(self._completion, self._mu)
        return self._sampler

    def _put(self) -> int | None:
        """Return the token of the ending that is next; None to draw one."""
        n_put = len(self._completion) - self._budget_tokens
        if n_put < 0:
            return None
        if self._left is None:  # the budget is used up, or was when the sequence was paused
            self._left = list(self._ending(self._completion[: self._budget_tokens]))[n_put:]
        return self._left.pop(0) if self._left else None
