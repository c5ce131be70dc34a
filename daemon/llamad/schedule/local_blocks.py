"""The local blocks of one engine: keys and values of the layers that see a window only.

A block of the pool (blocks.py) holds what layers that see all tokens need; beside it there is a
*local block*, as long as one of its tokens is in the window of a sequence that goes on. A sequence
*holds* the local blocks from ``first_local`` on, which the window of its next token begins in; the
others it lets go, after each step. What nobody holds stays, and a sequence that begins with the
same tokens may go on from there, until its room is needed: the one that was let go longest ago goes
first, of pinned blocks last.

Blocks without a local block are still found by their key. A sequence can go on behind them where
those that the window of its next token lies in have theirs (``reach``). What is computed again
gives the block its local block back. No engine inside.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from llamad.engine.run import NOT_HELD, blocks_seen
from llamad.schedule import sequence as schedule


class LocalBlocks:
    """The local blocks 0..n_total-1. ``window`` 0: no layer has one, and there are none."""

    def __init__(self, n_total: int, window: int, block_tokens: int, n_blocks: int) -> None:
        """``n_blocks``: of the pool; more local blocks are of no use."""
        least = min(n_blocks, blocks_seen(window, 1, block_tokens))
        assert window == 0 or n_total >= least, "local blocks for a token and its window"
        self.n_total = n_total
        self._window = window
        self._block_tokens = block_tokens
        self._free = list(range(n_total - 1, -1, -1)) if window else []
        self._local: dict[int, int] = {}  # by block
        self._holders: dict[int, int] = {}  # by block: sequences that hold its local block
        self._unused: OrderedDict[int, None] = OrderedDict()  # blocks, the longest unused first
        self._unused_pinned: OrderedDict[int, None] = OrderedDict()
        self._pinned: set[int] = set()  # blocks

    @property
    def exist(self) -> bool:
        """Whether the model has layers with a window."""
        return self._window > 0

    @property
    def n_empty(self) -> int:
        """Local blocks that hold nothing."""
        return len(self._free)

    @property
    def n_free(self) -> int:
        """Local blocks that no sequence holds."""
        return len(self._free) + len(self._unused) + len(self._unused_pinned)

    def of(self, block: int) -> int | None:
        """Return the local block of a block, if it has one."""
        return self._local.get(block)

    def named_by(self, sequence: schedule.Sequence) -> tuple[int, ...]:
        """Return the local blocks of a sequence for a step, one for each of its blocks."""
        if not self.exist:
            return ()
        first = sequence.first_local
        return (NOT_HELD,) * first + tuple(self._local[block] for block in sequence.blocks[first:])

    def seen_from(self, n_tokens: int) -> int:
        """Return the index of the first block that the token behind n_tokens sees."""
        if not self.exist:
            return 0
        return max(0, n_tokens + 1 - self._window) // self._block_tokens

    def most_held(self, n_blocks: int) -> int:
        """Return how many local blocks a sequence of n_blocks holds between two steps at most."""
        if not self.exist:
            return 0
        return min(n_blocks, blocks_seen(self._window, 1, self._block_tokens))

    # ---- sequences --------------------------------------------------------------------------

    def reach(self, has_local: Sequence[bool], first: int) -> int:
        """Return how many of a sequence's next blocks it can go on behind.

        has_local: of each from index ``first`` on. Those before it the sequence holds as far as
        needed.
        """
        n = len(has_local)
        while n and self.exist:
            seen = max(0, self.seen_from((first + n) * self._block_tokens) - first)
            lacking = (i for i in range(n - 1, seen - 1, -1) if not has_local[i])
            last = next(lacking, None)
            if last is None:
                break
            n = last
        return n

    def take(self, block: int) -> None:
        """Give a new block a local block, which its sequence holds."""
        if self.exist:
            self._local[block] = self._take_one()
            self._holders[block] = 1

    def hold(self, blocks: Iterable[int]) -> None:
        """Count a holder more of each; they have local blocks."""
        for block in blocks if self.exist else ():
            if not self._holders[block]:
                self._unused_of(block).pop(block)
            self._holders[block] += 1

    def let_go(self, blocks: Iterable[int]) -> None:
        """Count a holder less of each, in the order in which others may take them."""
        for block in blocks if self.exist else ():
            self._holders[block] -= 1
            if not self._holders[block]:
                self._unused_of(block)[block] = None

    def advance(self, sequence: schedule.Sequence) -> None:
        """Let go what lies before the window of the sequence's next token."""
        first = min(self.seen_from(sequence.n_computed), len(sequence.blocks))
        self.let_go(sequence.blocks[sequence.first_local : first])
        sequence.first_local = max(sequence.first_local, first)

    # ---- blocks -----------------------------------------------------------------------------

    def join(self, own: int, known: int) -> None:
        """Hold the local block of ``known`` in place of that of a block with the same tokens.

        One that has none gets the own one.
        """
        if own not in self._local:
            return
        if known in self._local:
            self.hold([known])
        else:
            self._local[known] = self._local.pop(own)
            self._holders[known] = self._holders.pop(own)
        self.drop(own)

    def drop(self, block: int) -> None:
        """Take the local block, if it has one, of a block that no sequence has any more."""
        local = self._local.pop(block, None)
        if local is not None:
            self._unused.pop(block, None)
            self._unused_pinned.pop(block, None)
            del self._holders[block]
            self._free.append(local)
        self._pinned.discard(block)

    def pin(self, block: int) -> None:
        """Take the local block of this one for others last."""
        self._pinned.add(block)
        if block in self._unused:
            self._unused_pinned[block] = self._unused.pop(block)

    def _take_one(self) -> int:
        if not self._free:
            block, _ = (self._unused or self._unused_pinned).popitem(last=False)
            del self._holders[block]
            self._free.append(self._local.pop(block))
        return self._free.pop()

    def _unused_of(self, block: int) -> OrderedDict[int, None]:
        return self._unused_pinned if block in self._pinned else self._unused
