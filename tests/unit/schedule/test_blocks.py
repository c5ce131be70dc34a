"""The block pool against a model of it: no block twice, none lost, growth by what is needed."""

from hypothesis import given
from hypothesis import strategies as st

from llamad.schedule.block_keys import PUBLIC, BlockKeys
from llamad.schedule.blocks import BlockPool
from llamad.schedule.sequence import Sequence


@given(
    n_blocks=st.integers(1, 40),
    block_tokens=st.sampled_from([1, 8, 32]),
    actions=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 80)), max_size=60),
)
def test_blocks_have_one_owner_and_come_back(
    n_blocks: int, block_tokens: int, actions: list[tuple[int, int]]
) -> None:
    pool = BlockPool(n_blocks, block_tokens)
    sequences = [Sequence(tokens=[], n_prompt=0) for _ in range(6)]
    for which, n_tokens in actions:
        sequence = sequences[which]
        if n_tokens == 0:
            pool.release(sequence)
            assert (sequence.blocks, sequence.n_computed) == ([], 0)
        else:
            n = min(n_tokens, pool.room(sequence))
            pool.grow(sequence, n)
            sequence.n_computed += n
            assert len(sequence.blocks) == pool.blocks_for(sequence.n_computed)
        owned = [block for s in sequences for block in s.blocks]
        assert len(owned) == len(set(owned)) == n_blocks - pool.n_free
        assert all(0 <= block < n_blocks for block in owned)
    for sequence in sequences:
        pool.release(sequence)
    assert pool.n_free == n_blocks


def test_room_counts_the_rest_of_the_last_block_and_all_free_ones() -> None:
    pool = BlockPool(4, 32)
    sequence = Sequence(tokens=[], n_prompt=0)
    pool.grow(sequence, 40)
    sequence.n_computed = 40
    assert pool.room(sequence) == 4 * 32 - 40
    pool.grow(Sequence(tokens=[], n_prompt=0), 64)
    assert (pool.n_free, pool.room(sequence)) == (0, 24)


# ---- sharing ------------------------------------------------------------------------------------

OWNERS = (PUBLIC, b"anna", b"ben")


class Memory:
    """What an engine would have in its blocks: for each, who computed which tokens up to there."""

    def __init__(self, pool: BlockPool) -> None:
        self.pool = pool
        self.held: dict[int, tuple[bytes, tuple[int, ...]]] = {}

    def compute(self, sequence: Sequence, n_tokens: int) -> None:
        """Stand in for a step: write the blocks of these tokens, that nobody else may have."""
        for position in range(sequence.n_computed, sequence.n_computed + n_tokens):
            block = sequence.blocks[position // self.pool.block_tokens]
            tokens = tuple(sequence.tokens[: position + 1])
            self.held[block] = (sequence.own_keys.scope, tokens)
        sequence.n_computed += n_tokens

    def check(self, sequence: Sequence) -> None:
        """Assert that the blocks hold what the sequence believes, of somebody whom it may see."""
        for index in range(self.pool.blocks_for(sequence.n_computed)):
            end = min(sequence.n_computed, (index + 1) * self.pool.block_tokens)
            scope, tokens = self.held[sequence.blocks[index]]
            assert tokens == tuple(sequence.tokens[:end])
            assert scope in (PUBLIC, sequence.own_keys.scope)


def _sequence(owner: bytes, tokens: list[int]) -> Sequence:
    return Sequence(list(tokens), len(tokens), own_keys=BlockKeys(owner))


@given(
    n_blocks=st.integers(4, 24),
    actions=st.lists(
        st.tuples(
            st.integers(0, 3),  # which sequence
            st.sampled_from(["start", "compute", "compute", "append", "reuse", "release"]),
            st.integers(0, 40),
            st.integers(0, 1 << 16),
        ),
        max_size=80,
    ),
)
def test_a_block_holds_what_everybody_who_has_it_believes(
    n_blocks: int, actions: list[tuple[int, str, int, int]]
) -> None:
    pool = BlockPool(n_blocks, 4)
    memory = Memory(pool)
    sequences = [_sequence(PUBLIC, [1]) for _ in range(4)]
    for which, action, n, chance in actions:
        sequence = sequences[which]
        if action == "start":
            pool.release(sequence)
            # few different tokens, so that beginnings are often the same
            tokens = [1] * (chance % 17) + [2] * (chance // 17 % 9) + [3]
            sequence = _sequence(OWNERS[chance % 3], tokens)
            sequences[which] = sequence
            if chance % 5 == 0:
                pool.pin([sequence.own_keys.get(0, [*tokens, 1, 1, 1], 4)])
            elif chance % 7 == 0 and pool.n_shareable(sequence):
                pool.forget(pool.keys_at(sequence, 0))
            pool.reuse(sequence)
            assert sequence.n_pending
        elif action == "compute":
            n = min(n, sequence.n_pending, pool.room(sequence))
            pool.grow(sequence, n)
            memory.compute(sequence, n)
            pool.share(sequence)
        elif action == "append":
            sequence.tokens.append(1 + chance % 2)
        elif action == "reuse":
            before = sequence.n_computed
            gained = pool.reuse(sequence)
            assert gained == sequence.n_computed - before >= 0
            assert sequence.n_pending or not gained
        else:
            pool.release(sequence)
        for other in sequences:
            memory.check(other)
        owned = {block for s in sequences for block in s.blocks}
        assert len(owned) == n_blocks - pool.n_free
        assert 0 <= pool.n_cached <= pool.n_free
    for sequence in sequences:
        pool.release(sequence)
    assert pool.n_free == n_blocks
    everything = _sequence(PUBLIC, [9] * (4 * n_blocks + 1))
    pool.grow(everything, 4 * n_blocks)
    assert sorted(everything.blocks) == list(range(n_blocks))
    assert pool.n_cached == 0


def _computed(pool: BlockPool, sequence: Sequence) -> int:
    """Compute a sequence to its end; return the tokens that were there."""
    reused = pool.reuse(sequence)
    pool.grow(sequence, sequence.n_pending)
    sequence.n_computed = len(sequence.tokens)
    pool.share(sequence)
    return reused


def test_the_last_token_is_always_computed() -> None:
    pool = BlockPool(8, 4)
    assert _computed(pool, _sequence(b"anna", [1] * 8)) == 0
    assert _computed(pool, _sequence(b"anna", [1] * 8)) == 4
    assert _computed(pool, _sequence(b"anna", [1] * 9)) == 8


def test_a_changed_token_keeps_what_is_before_it() -> None:
    pool = BlockPool(32, 4)
    _computed(pool, _sequence(b"anna", list(range(40))))
    assert _computed(pool, _sequence(b"anna", [*range(21), 99, *range(22, 40)])) == 20


def test_owners_share_only_what_is_public() -> None:
    pool = BlockPool(32, 4)
    _computed(pool, _sequence(b"anna", [1] * 17))
    assert _computed(pool, _sequence(b"ben", [1] * 17)) == 0
    _computed(pool, _sequence(PUBLIC, [2] * 9))
    assert _computed(pool, _sequence(b"ben", [2] * 17)) == 8
    assert _computed(pool, _sequence(b"ben", [2] * 17)) == 16
    assert _computed(pool, _sequence(b"anna", [2] * 17)) == 8
    assert _computed(pool, _sequence(PUBLIC, [1] * 17)) == 0


def test_what_was_used_longest_ago_is_evicted_first_and_pinned_blocks_last() -> None:
    pool = BlockPool(8, 4)
    pinned, old, new = (_sequence(b"anna", [i] * 9) for i in (1, 2, 3))
    pool.pin(pinned.own_keys.get(i, pinned.tokens, 4) for i in range(2))
    for sequence in (pinned, old, new):
        _computed(pool, sequence)
        pool.release(sequence)
    assert (pool.n_free, pool.n_cached) == (8, 6)
    other = _sequence(b"anna", [4] * 16)
    pool.grow(other, 16)  # the two that hold nothing, and two of `old`
    assert len(pool.find(_sequence(b"anna", [2] * 9))) == 0
    assert len(pool.find(_sequence(b"anna", [3] * 9))) == 2
    pool.grow(other, 20)
    assert len(pool.find(_sequence(b"anna", [3] * 9))) == 1  # its last block went first
    pool.grow(other, 24)
    assert len(pool.find(_sequence(b"anna", [1] * 9))) == 2


def test_a_block_that_two_computed_at_once_is_kept_once() -> None:
    pool = BlockPool(8, 4)
    first, second = (_sequence(b"anna", [1] * 9) for _ in range(2))
    for sequence in (first, second):
        pool.grow(sequence, 8)
        sequence.n_computed = 8
    pool.share(first)
    pool.share(second)
    assert first.blocks == second.blocks
    assert pool.n_free == 6


def test_a_prompt_that_is_being_read_takes_what_another_has_read_meanwhile() -> None:
    pool = BlockPool(16, 4)
    late = _sequence(b"anna", [1] * 15)
    pool.grow(late, 2)
    late.n_computed = 2  # in the middle of a block
    _computed(pool, _sequence(b"anna", [1] * 30))
    assert pool.reuse(late) == 10
    assert (late.n_computed, len(late.blocks), pool.n_free) == (12, 3, 8)


def test_a_reserved_block_is_found_when_it_was_filled_and_forgotten_on_demand() -> None:
    pool = BlockPool(3, 4)
    sequence = _sequence(b"anna", [1] * 9)
    keys = [pool.keys_at(sequence, i)[1] for i in range(2)]
    for key in keys:
        block = pool.reserve()
        assert block is not None
        pool.admit(block, key)
    failed = pool.reserve()
    assert failed is not None
    pool.admit(failed, None)
    assert (pool.n_free, pool.n_cached, pool.n_empty) == (3, 2, 1)
    assert pool.reuse(sequence) == 8
    assert pool.reserve() is not None
    assert pool.reserve() is None
    pool.forget(keys)
    assert pool.find(_sequence(b"anna", [1] * 9)) == []
    pool.release(sequence)
    assert (pool.n_free, pool.n_cached, pool.n_empty) == (2, 0, 2)
