"""Sequence slots and KV blocks, reserved before a job starts.

A job takes one slot and every block that its prompt and its longest completion can need, so that a
running job never waits for memory another one holds. Owns the accounting; the blocks themselves are
the engine's, which allots them as a sequence grows.
"""

import heapq
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slot:
    """A sequence of the engine with blocks reserved for it."""

    sequence: int
    n_blocks: int


class SequenceSlots:
    """The free sequences and the free KV blocks of one engine."""

    def __init__(self, *, n_sequences: int, n_blocks: int, block_tokens: int) -> None:
        self.n_sequences = n_sequences
        self.n_blocks = n_blocks
        self.free_blocks = n_blocks
        self._block_tokens = block_tokens
        self._free = list(range(n_sequences))  # a heap: the lowest number first

    def take(self, n_tokens: int) -> Slot | None:
        """Reserve a slot for a sequence of up to ``n_tokens``; None while there is no room."""
        n_blocks = -(-n_tokens // self._block_tokens)
        if not self._free or n_blocks > self.free_blocks:
            return None
        self.free_blocks -= n_blocks
        return Slot(heapq.heappop(self._free), n_blocks)

    def give_back(self, slot: Slot) -> None:
        """Return a slot whose sequence the engine has freed."""
        self.free_blocks += slot.n_blocks
        heapq.heappush(self._free, slot.sequence)
