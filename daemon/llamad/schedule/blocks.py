"""The KV blocks of one engine: which are free, and who takes them. No engine inside.

A block holds the keys and values of BLOCK tokens of one sequence, of all layers. The engine reads
and writes the blocks it is told; that no two sequences get the same one is decided here alone.
"""

from llamad.schedule.sequence import Sequence


class BlockPool:
    """The blocks 0..n_blocks-1, of ``block_tokens`` tokens each."""

    def __init__(self, n_blocks: int, block_tokens: int) -> None:
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        self._free = list(range(n_blocks - 1, -1, -1))  # a stack, the lowest id on top

    @property
    def n_free(self) -> int:
        """Blocks that nobody has."""
        return len(self._free)

    def blocks_for(self, n_tokens: int) -> int:
        """Return how many blocks hold so many tokens."""
        return -(-n_tokens // self.block_tokens)

    def room(self, sequence: Sequence) -> int:
        """Return how many tokens more the sequence could compute, were all free blocks its own."""
        n_blocks = len(sequence.blocks) + len(self._free)
        return n_blocks * self.block_tokens - sequence.n_computed

    def grow(self, sequence: Sequence, n_tokens: int) -> None:
        """Give the sequence the blocks that its next n_tokens need; at most ``room`` of them."""
        needed = self.blocks_for(sequence.n_computed + n_tokens) - len(sequence.blocks)
        assert needed <= len(self._free), "more blocks than are free"
        for _ in range(needed):
            sequence.blocks.append(self._free.pop())

    def release(self, sequence: Sequence) -> None:
        """Take all blocks of a sequence; its state must be computed again."""
        self._free.extend(reversed(sequence.blocks))
        sequence.blocks.clear()
        sequence.n_computed = 0
