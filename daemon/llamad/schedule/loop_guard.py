"""When a completion only repeats itself: its last tokens are one short stretch, over and over.

Small models fall into such loops, most of all with sampling that takes the likeliest token, and
would go on until the context is full. The guard only looks: no draw is changed. It looks after
each 32 tokens, so a token costs about two microseconds.
"""

from collections.abc import Sequence

WINDOW_TOKENS = 256  # that have to be repetition
LONGEST_TOKENS = 64  # of the stretch: it stands there four times at least
EACH_TOKENS = 32  # between two looks


def is_due(n_completion: int) -> bool:
    """Whether to look after this many tokens of a completion."""
    return n_completion >= WINDOW_TOKENS and n_completion % EACH_TOKENS == 0


def is_loop(tail: Sequence[int]) -> bool:
    """Whether the last WINDOW_TOKENS of the tokens repeat at most LONGEST_TOKENS of them."""
    window = list(tail[-WINDOW_TOKENS:])
    if len(window) < WINDOW_TOKENS:
        return False
    return any(window[n:] == window[:-n] for n in range(1, LONGEST_TOKENS + 1))
