"""When a completion only repeats itself: its last tokens are one short stretch, over and over.

Small models fall into such loops, most of all with sampling that takes the likeliest token, and
would go on until the context is full. The guard only looks: no draw is changed.

What is right repeats itself too: the dashes of a table, the zeros of an array or a matrix, the
empty cells of a form, a word that somebody asked for thirty times. So a stretch has to stand there
``TIMES``, more often than an array of 32 has elements, and take ``LEAST_TOKENS``, more than a line
of an 80-column separator. A longer stretch, which no one repeats for long, has to fill
``MOST_TOKENS``.
"""

from collections.abc import Sequence

TIMES = 40  # that a stretch has to stand there ...
LEAST_TOKENS = 96  # ... and tokens that it has to fill so; from MOST_TOKENS on, that is enough
MOST_TOKENS = 256
LONGEST_TOKENS = 64  # of the stretch: it stands there four times at least
EACH_TOKENS = 16  # between two looks, so that a token costs about a microsecond


def is_due(n_completion: int) -> bool:
    """Whether to look after this many tokens of a completion."""
    return n_completion >= LEAST_TOKENS and n_completion % EACH_TOKENS == 0


def is_loop(completion: Sequence[int]) -> bool:
    """Whether the last tokens of a completion are one stretch over and over."""
    tail = list(completion[-MOST_TOKENS:])
    return any(_repeats(tail, n) for n in range(1, LONGEST_TOKENS + 1))


def _repeats(tail: list[int], n: int) -> bool:
    """Whether the tail ends with the same n tokens, often enough."""
    needed = min(max(LEAST_TOKENS, TIMES * n), MOST_TOKENS)
    if len(tail) < needed or tail[-1] != tail[-1 - n]:
        return False
    return tail[-needed + n :] == tail[-needed:-n]
