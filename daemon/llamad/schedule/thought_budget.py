"""A thought that has used up its tokens is ended: the closing mark is put in place of draws.

The budget is the answer's: a thought that is begun behind it ends where it begins.
Which tokens are put follows from the tokens so far alone, so a sequence stays its tokens, its seed
and the number of its draws: a token that was put counts as a draw, and the sampler is made anew
behind it, as for a sequence that was paused.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from llamad.engine.worker import StepSampler


class OpenThought(Protocol):
    """Knows whether a thought is open behind the tokens of a completion."""

    def push(self, token: int) -> None:
        """Take the next token."""

    def ending(self, *, again: bool) -> Sequence[int]:
        """Return the tokens that end the thought which is open; none: no thought is.

        again: an earlier thought was ended so.
        """


class BudgetSampler:
    """Draws as another sampler does, until a thought is too long."""

    def __init__(
        self,
        new_sampler: Callable[[Sequence[int], float | None], StepSampler],
        completion: Sequence[int],
        mu: float | None,
        budget_tokens: int,
        thought: OpenThought,
    ) -> None:
        """Begin behind a completion.

        new_sampler: of a completion and what mirostat has learned, as it is behind it. thought:
        behind no token yet.
        """
        self._new_sampler = new_sampler
        self._completion: list[int] = []
        self._mu = mu  # behind the completion, while there is no sampler
        self._budget_tokens = budget_tokens
        self._thought = thought
        self._sampler: StepSampler | None = None
        self._left: deque[int] = deque()  # of the tokens that are put
        self._has_ended_one = False
        self._look()
        for token in completion:
            self._add(token)

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
        if not self._left:
            token = self._drawing().sample(engine, k)
        else:
            token = self._left[0]
            if self._sampler is not None:
                self._mu, self._sampler = self._sampler.mu, None
        self._add(token)
        return token

    def _drawing(self) -> StepSampler:
        if self._sampler is None:
            self._sampler = self._new_sampler(self._completion, self._mu)
        return self._sampler

    def _add(self, token: int) -> None:
        """Note what was drawn or put."""
        self._completion.append(token)
        self._thought.push(token)
        if self._left:
            self._left.popleft()
        self._look()

    def _look(self) -> None:
        """Begin to end a thought that is open beyond the budget."""
        if not self._left and len(self._completion) >= self._budget_tokens:
            self._left.extend(self._thought.ending(again=self._has_ended_one))
            self._has_ended_one = self._has_ended_one or bool(self._left)
