"""Whose turn it is: the order in which jobs start, and in which they give way.

First in, first out: the oldest submission first, also when it lost its blocks meanwhile. Pure
functions; the priority classes of the requests do not decide yet.
"""

from collections.abc import Iterable

from llamad.schedule.generation import Generation


def by_rank(generations: Iterable[Generation]) -> list[Generation]:
    """Return the generations, the one that goes first at the front, the one that gives way last."""
    return sorted(generations, key=lambda generation: generation.number)
