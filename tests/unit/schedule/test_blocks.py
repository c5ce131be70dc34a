"""The block pool against a model of it: no block twice, none lost, growth by what is needed."""

from hypothesis import given
from hypothesis import strategies as st

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
