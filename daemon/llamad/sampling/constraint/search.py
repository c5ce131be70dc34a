"""Where the first of some markers ends in a text, as a table over bytes.

Aho and Corasick, "Efficient String Matching", 1975.
"""

from collections import deque
from itertools import groupby

Row = list[tuple[int, int, int | None]]  # first and last byte, state after it; None: a marker ended


def search_table(markers: tuple[bytes, ...]) -> list[Row]:
    """Return where each byte leads from each state; the text begins in state 0.

    A state is how much of a marker the text ends with. markers: none is empty.
    """
    children: list[dict[int, int]] = [{}]
    ends = {0: False}
    for marker in markers:
        state = 0
        for byte in marker:
            if byte not in children[state]:
                children[state][byte] = len(children)
                ends[len(children)] = False
                children.append({})
            state = children[state][byte]
        ends[state] = True
    longest_other = [0] * len(children)  # state of the longest proper suffix that is one
    after = [[0] * 256 for _ in children]
    pending = deque([0])
    while pending:
        state = pending.popleft()
        ends[state] = ends[state] or ends[longest_other[state]]
        for byte in range(256):
            other = after[longest_other[state]][byte] if state else 0
            child = children[state].get(byte)
            after[state][byte] = other if child is None else child
            if child is not None:
                longest_other[child] = other
                pending.append(child)
    return [_row([None if ends[state] else state for state in row]) for row in after]


def _row(after: list[int | None]) -> Row:
    """Return the bytes that lead to the same state next to each other as one range."""
    row: Row = []
    for state, run in groupby(range(256), key=after.__getitem__):
        found = list(run)
        row.append((found[0], found[-1], state))
    return row
