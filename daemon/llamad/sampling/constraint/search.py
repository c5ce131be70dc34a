"""Where the first of some markers ends in a text, as a table over bytes.

Aho and Corasick, "Efficient String Matching", 1975.
"""

from collections import deque
from collections.abc import Sequence
from itertools import groupby
from typing import TypeAlias

_SPACES = frozenset(b" \t\r\n")
_CONTROL = 0xFF  # the first byte of a control token

# First and last byte, and the state behind them; -1 - i: marker i ended.
Row: TypeAlias = "list[tuple[int, int, int]]"


def search_table(markers: Sequence[bytes], first: Sequence[bytes] = ()) -> list[Row]:
    """Return where each byte leads from each state; the text begins in state 0.

    A state is how much of a marker the text ends with. markers: none is empty. first: those that
    only count where the text begins, white space aside; their numbers follow the others'. With them
    state 1 is where a text goes on behind its beginning. A marker that is text is not found inside
    of one that is a control token (formats.py).
    """
    root = 1 if first else 0
    children: list[dict[int, int]] = [{} for _ in range(root + 1)]
    ends: dict[int, int] = {}
    in_control: set[int] = set()
    for i, marker in enumerate((*markers, *first)):
        state = root if i < len(markers) else 0
        for byte in marker:
            if byte not in children[state]:
                children[state][byte] = len(children)
                children.append({})
            state = children[state][byte]
            if marker[0] == _CONTROL:
                in_control.add(state)
        ends.setdefault(state, -1 - i)
    longest_other = [root] * len(children)  # state of the longest proper suffix that is one
    after = [[root] * 256 for _ in children]
    pending = deque(range(root, -1, -1))
    while pending:
        state = pending.popleft()
        if longest_other[state] in ends:
            ends.setdefault(state, ends[longest_other[state]])
        for byte in range(256):
            other = root if state == root else after[longest_other[state]][byte]
            child = children[state].get(byte)
            after[state][byte] = other if child is None else child
            if child is not None:
                longest_other[child] = root if child in in_control else other
                pending.append(child)
    if first:
        for byte in _SPACES - children[0].keys():
            after[0][byte] = 0
    return [_row([ends.get(state, state) for state in row]) for row in after]


def _row(after: list[int]) -> Row:
    """Return the bytes that lead to the same state next to each other as one range."""
    row: Row = []
    for state, run in groupby(range(256), key=after.__getitem__):
        found = list(run)
        row.append((found[0], found[-1], state))
    return row
