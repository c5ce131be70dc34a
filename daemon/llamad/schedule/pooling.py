"""From the rows of a text's tokens to its vector: which rows count, their mean, its length 1.

Of a text that is ranked the vector has a reranker's scores of one row.

Owns the sums of one text, which begin anew when its job loses its blocks.
"""

import math
from array import array
from typing import Any

from llamad.jobs.request import Pooling


class Pool:
    """The rows of one text as they are computed, in one step or several."""

    def __init__(self, pooling: Pooling, n_tokens: int, dim: int, n_scores: int = 0) -> None:
        """n_scores: of a text that is ranked; 0: its vector is wanted."""
        self._n_scores = n_scores
        self._pooling = pooling
        self._n_tokens = n_tokens
        self._dim = dim
        self.clear()

    def clear(self) -> None:
        """Forget what was read: the text is computed again from its beginning."""
        self._sums = array("d", bytes(8 * self._dim))
        self._n_rows = 0
        self._scores: tuple[float, ...] = ()

    def read(self, engine: Any, first_row: int, position: int, n_tokens: int) -> None:
        """Take the rows of tokens from ``position`` on, which begin the step's row first_row."""
        begin, end = position, position + n_tokens
        if self._pooling is Pooling.FIRST:
            end = min(end, 1)
        elif self._pooling is Pooling.LAST:
            begin = max(begin, self._n_tokens - 1)
        if begin < end:
            engine.add_rows(first_row + begin - position, end - begin, self._sums)
            self._n_rows += end - begin
            if self._n_scores:
                self._scores = engine.rank(self._sums, self._n_scores)

    def vector(self) -> "array[float]":
        """Return the mean of the rows, divided by its length; or the scores."""
        if self._n_scores:
            return array("f", self._scores)
        length = math.hypot(*self._sums) or 1.0  # 0 only of zeros
        return array("f", [value / length for value in self._sums])
