"""Ids of tokens by their texts, where a dict of as many strings would be too large.

A dict of 128,256 tokens takes 13 MiB with its strings; this takes 1 MiB and reads the texts where
the vocabulary has them.
"""

from array import array
from collections.abc import Sequence

_FREE = 0  # a slot without a token


class TokenIndex:
    """A hash table with open addressing and linear probing (Knuth, TAOCP 3, 6.4, algorithm L)."""

    def __init__(self, tokens: Sequence[str], ids: Sequence[int]) -> None:
        """tokens: all texts of a vocabulary; ids: those to find, ascending. Of equals the last."""
        self._tokens = tokens
        self._mask = (1 << (2 * len(ids)).bit_length()) - 1
        self._slots = array("I", bytes(4 * (self._mask + 1)))  # id + 1, or _FREE
        for i in reversed(ids):
            self._slots[self._free_slot(tokens[i])] = i + 1

    def get(self, text: str) -> int | None:
        """Return the id of the token that is spelled ``text``, None when there is none."""
        slot = hash(text) & self._mask
        while (entry := self._slots[slot]) != _FREE:
            if self._tokens[entry - 1] == text:
                return entry - 1
            slot = (slot + 1) & self._mask
        return None

    def _free_slot(self, text: str) -> int:
        slot = hash(text) & self._mask
        while self._slots[slot] != _FREE:
            slot = (slot + 1) & self._mask
        return slot
