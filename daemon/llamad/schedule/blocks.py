"""The KV blocks of one engine: which are free, who has them, and what they hold. No engine inside.

A block holds the keys and values of BLOCK tokens of a sequence, of all layers. The engine reads and
writes the blocks it is told; which sequence gets which is decided here alone.

A block that is full is never written again. It has a key (block_keys.py), and any number of
sequences that begin with the same tokens, in a scope that they may see, read it together. When the
last of them lets it go it stays *cached*: free, but still found by its key, until its room is
needed. Then the block that was used longest ago is evicted, pinned ones last; of one sequence the
last first, because a block is found through those before it only.

Of a model whose layers have a window the pool also owns the blocks of those (local_blocks.py).
"""

from collections import OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as SequenceOf

from llamad.schedule.local_blocks import LocalBlocks
from llamad.schedule.runtime import EngineRuntime
from llamad.schedule.sequence import Sequence
from llamad.schedule.states import StatePool


class BlockPool:
    """The blocks 0..n_blocks-1, of ``block_tokens`` tokens each."""

    def __init__(
        self,
        n_blocks: int,
        block_tokens: int,
        states: StatePool | None = None,
        local: LocalBlocks | None = None,
    ) -> None:
        """Own ``n_blocks`` blocks; states, local: of a model that has some, beside them."""
        self.states = StatePool(0, 0, block_tokens, 1) if states is None else states
        self.local = LocalBlocks(0, 0, block_tokens, n_blocks) if local is None else local
        self.n_blocks = n_blocks
        self.block_tokens = block_tokens
        self._free = list(range(n_blocks - 1, -1, -1))  # a stack, the lowest id on top
        self._users = [0] * n_blocks  # sequences that have the block
        self._by_key: dict[bytes, int] = {}
        self._keys: dict[int, bytes] = {}  # of blocks that are full
        self._pinned: set[bytes] = set()  # keys, of blocks that are here or not
        self._pinned_local: set[bytes] = set()  # of those, whose local blocks are evicted last
        # With a key and without a user, the one that was used longest ago first.
        self._cached: OrderedDict[int, None] = OrderedDict()
        self._cached_pinned: OrderedDict[int, None] = OrderedDict()

    @property
    def n_free(self) -> int:
        """Blocks that nobody has, the cached ones included."""
        return len(self._free) + self.n_cached

    @property
    def n_cached(self) -> int:
        """Of the free blocks, those that hold what a sequence may begin with."""
        return len(self._cached) + len(self._cached_pinned)

    def blocks_for(self, n_tokens: int) -> int:
        """Return how many blocks hold so many tokens."""
        return -(-n_tokens // self.block_tokens)

    def room(self, sequence: Sequence) -> int:
        """Return how many tokens more the sequence could compute, were all free blocks its own."""
        n_free = min(self.n_free, self.local.n_free) if self.local.exist else self.n_free
        n_blocks = len(sequence.blocks) + n_free
        return n_blocks * self.block_tokens - sequence.n_computed

    def grow(self, sequence: Sequence, n_tokens: int) -> None:
        """Give the sequence the blocks that its next n_tokens need; at most ``room`` of them."""
        needed = self.blocks_for(sequence.n_computed + n_tokens) - len(sequence.blocks)
        assert needed <= self.n_free, "more blocks than are free"
        for _ in range(needed):
            block = self._free.pop() if self._free else self._evict()
            self._users[block] = 1
            self.local.take(block)
            sequence.blocks.append(block)

    def has_room_for(self, sequences: Iterable[Sequence]) -> bool:
        """Whether there are local blocks for these together, with a block more for each."""
        n_blocks = (self.blocks_for(len(sequence.tokens)) + 1 for sequence in sequences)
        return sum(self.local.most_held(n) for n in n_blocks) <= self.local.n_total

    def release(self, sequence: Sequence) -> None:
        """Take all blocks of a sequence; its state must be found or computed again."""
        self.local.let_go(reversed(sequence.blocks[sequence.first_local :]))
        self._let_go(sequence.blocks)
        sequence.blocks.clear()
        sequence.n_computed = sequence.n_shared = sequence.first_local = 0
        self.states.release(sequence)

    # ---- sharing ----------------------------------------------------------------------------

    def share(self, sequence: Sequence) -> None:
        """Let others read the blocks that the sequence has filled since the last call.

        Of a model with states the sequence may go back to the last that it has. A block that
        another one computed at the same time is given back, and that one read instead. What lies
        before its window the sequence lets go.
        """
        self.states.settle(sequence)
        n_full = min(sequence.n_computed, len(sequence.tokens)) // self.block_tokens
        for index in range(sequence.n_shared, n_full):
            key = self._own_key(sequence, index)
            block = sequence.blocks[index]
            known = self._by_key.setdefault(key, block)
            if known == block:
                self._name(block, key)
            else:
                self._take(known)
                self.local.join(block, known)
                self._let_go([block])
                sequence.blocks[index] = known
            sequence.n_shared = index + 1
        self.local.advance(sequence)

    def find(self, sequence: Sequence) -> list[int]:
        """Return the blocks that hold what follows the sequence's shared ones.

        The sequence's last token is never among them: it is computed, for the logits behind it.
        Of a model with states they end where one is kept, of one with windows where the local
        blocks are that the next token sees.
        """
        found = self._find_blocks(sequence)
        del found[self._reach(found, sequence.n_shared) :]
        while self.states.n_slots and found and self._state_behind(sequence, len(found)) is None:
            found.pop()
        return found

    def _reach(self, blocks: list[int], first: int) -> int:
        return self.local.reach([self.local.of(block) is not None for block in blocks], first)

    def _state_behind(self, sequence: Sequence, n_found: int) -> bytes | None:
        return self.states.find(self.keys_at(sequence, sequence.n_shared + n_found - 1))

    def _find_blocks(self, sequence: Sequence) -> list[int]:
        found = []
        for index in range(sequence.n_shared, self.n_shareable(sequence)):
            blocks = (self._by_key.get(key) for key in self.keys_at(sequence, index))
            block = next((block for block in blocks if block is not None), None)
            if block is None:
                break
            found.append(block)
        return found

    def n_new(self, sequence: Sequence, n_tokens: int) -> int:
        """Return how many free blocks the sequence takes to have so many tokens computed."""
        found = 0 if sequence.blocks else sum(self._users[b] > 0 for b in self.find(sequence))
        return self.blocks_for(n_tokens) - len(sequence.blocks) - found

    def reuse(self, sequence: Sequence) -> int:
        """Give the sequence the blocks that ``find`` returns; return the tokens that it gained."""
        if self.states.n_slots:
            n_blocks = sequence.n_shared + len(self._find_blocks(sequence))
            sequence.n_found = max(sequence.n_found, n_blocks * self.block_tokens)
        found = self.find(sequence)
        if not found:
            return 0
        behind = self._state_behind(sequence, len(found))
        before, first = sequence.n_computed, sequence.n_shared
        for block in found:
            self._take(block)
        own = sequence.blocks[first:]  # begun, and of no use now
        held = sequence.blocks[sequence.first_local :]
        sequence.blocks[first:] = found
        sequence.n_shared = first + len(found)
        sequence.n_computed = sequence.n_shared * self.block_tokens
        sequence.first_local = self.local.seen_from(sequence.n_computed)
        self.local.hold(sequence.blocks[sequence.first_local :])
        self.local.let_go(held)
        self._let_go(own)
        if behind is not None:
            self.states.begin_with(sequence, behind, sequence.n_computed)
        return sequence.n_computed - before

    def next_key(self, sequence: Sequence) -> bytes | None:
        """Return the key of the block that the sequence fills next, where others could read it."""
        index = sequence.n_shared
        return self._own_key(sequence, index) if index < self.n_shareable(sequence) else None

    def n_shareable(self, sequence: Sequence) -> int:
        """Return how many blocks the sequence could have from others."""
        return (len(sequence.tokens) - 1) // self.block_tokens

    def keys_at(self, sequence: Sequence, index: int) -> tuple[bytes, bytes]:
        """Return the keys under which others may have a full block of the sequence's tokens."""
        public = sequence.public_keys.get(index, sequence.tokens, self.block_tokens)
        return public, self._own_key(sequence, index)

    def _own_key(self, sequence: Sequence, index: int) -> bytes:
        return sequence.own_keys.get(index, sequence.tokens, self.block_tokens)

    # ---- blocks that are saved elsewhere ----------------------------------------------------

    def block_of(self, key: bytes) -> int | None:
        """Return the block with this key; None when there is none."""
        return self._by_key.get(key)

    def holds(self, keys: SequenceOf[bytes]) -> bool:
        """Whether a sequence that begins with the blocks of these keys can go on behind them."""
        blocks = [block for key in keys if (block := self._by_key.get(key)) is not None]
        has_state = not self.states.n_slots or self.states.slot_of(keys[-1]) is not None
        return len(blocks) == len(keys) == self._reach(blocks, 0) and has_state

    def key_of(self, block: int) -> bytes | None:
        """Return the key of a block; None for one that is not full."""
        return self._keys.get(block)

    @property
    def n_empty(self) -> int:
        """Free blocks that hold nothing."""
        return len(self._free)

    def reserve(self, *, local: bool = False) -> int | None:
        """Take a free block, to fill it with what ``admit`` says; None when there is none.

        local: with a local block, where one is free.
        """
        if not self.n_free:
            return None
        block = self._free.pop() if self._free else self._evict()
        self._users[block] = 1
        if local and self.local.n_free:
            self.local.take(block)
        return block

    def admit(self, block: int, key: bytes | None) -> None:
        """Give a reserved block back: cached under its key, or empty when there is no key.

        Where another block has the key, that one gets the local block that it may lack.
        """
        has_local = self.local.of(block) is not None
        known = block if key is None else self._by_key.setdefault(key, block)
        if key is not None and known == block:
            self._name(block, key)
        if known != block:
            self.local.join(block, known)
        if has_local:
            self.local.let_go([known])
        self._let_go([block])

    def pin(self, keys: Iterable[bytes]) -> None:
        """Evict the blocks of these keys last, now and when they come.

        keys: of blocks in their order. Behind the last of them sequences go on, so of their local
        blocks only those that are seen from there.
        """
        keys = list(keys)
        self._pinned_local.update(keys[len(keys) - self.local.most_held(len(keys)) :])
        for key in keys:
            self._pinned.add(key)
            block = self._by_key.get(key)
            if block is None:
                continue
            if block in self._cached:
                self._cached_pinned[block] = self._cached.pop(block)
            if key in self._pinned_local:
                self.local.pin(block)

    def forget(self, keys: Iterable[bytes]) -> None:
        """Let nobody find the blocks of these keys any more; nor are they pinned."""
        keys = tuple(keys)
        self.states.forget(keys)
        for key in keys:
            self._pinned.discard(key)
            self._pinned_local.discard(key)
            block = self._by_key.pop(key, None)
            if block is None:
                continue
            del self._keys[block]
            if not self._users[block]:
                self._cached.pop(block, None)
                self._cached_pinned.pop(block, None)
                self._to_free(block)

    # ---- single blocks ----------------------------------------------------------------------

    def _name(self, block: int, key: bytes) -> None:
        self._keys[block] = key
        if key in self._pinned_local:
            self.local.pin(block)

    def _take(self, block: int) -> None:
        """Count a user more of a block that has a key."""
        if not self._users[block]:
            self._cached_of(block).pop(block)
        self._users[block] += 1

    def _let_go(self, blocks: list[int]) -> None:
        """Count a user less of each; what nobody has is free."""
        for block in reversed(blocks):
            self._users[block] -= 1
            if self._users[block]:
                continue
            if block in self._keys:
                self._cached_of(block)[block] = None
            else:
                self._to_free(block)

    def _to_free(self, block: int) -> None:
        self.local.drop(block)
        self._free.append(block)

    def _evict(self) -> int:
        block, _ = (self._cached or self._cached_pinned).popitem(last=False)
        del self._by_key[self._keys.pop(block)]
        self.local.drop(block)
        return block

    def _cached_of(self, block: int) -> OrderedDict[int, None]:
        return self._cached_pinned if self._keys[block] in self._pinned else self._cached


def pool_of(model: EngineRuntime, states: StatePool | None = None) -> BlockPool:
    """Return the pool of a model's engine."""
    n_blocks, block_tokens = model.kv_blocks_total, model.kv_block_tokens
    local = LocalBlocks(model.kv_local_blocks, model.kv_window, block_tokens, n_blocks)
    return BlockPool(n_blocks, block_tokens, states, local)
