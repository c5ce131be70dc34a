"""What stays of a mixture of experts that does not fit: for every shape of one and every room."""

from hypothesis import given, settings
from hypothesis import strategies as st

from llamad.engine.info import Extent, Role
from llamad.memory.residency import Experts, choose_residency, least_memory_bytes

KIB = 1 << 10


def mixture(n_layers: int, n_experts: int, expert_bytes: int, feed_bytes: int) -> list[Extent]:
    """Return the extents of a model with an embedding, attention, experts and an output."""
    parts = [(Role.EMBEDDING, -1, -1, 256 * KIB)]
    for layer in range(n_layers):
        parts.append((Role.ATTENTION, layer, -1, feed_bytes))
        for expert in range(n_experts):
            parts += [(Role.EXPERT, layer, expert, expert_bytes)] * 3
    parts.append((Role.OUTPUT, -1, -1, 256 * KIB))
    extents, offset = [], 64 * KIB
    for role, layer, expert, n_bytes in parts:
        extents.append(Extent(role, layer, offset, n_bytes, expert))
        offset += n_bytes
    return extents


mixtures = st.builds(
    mixture,
    st.integers(1, 6),
    st.integers(1, 16),
    st.integers(1, 300 * KIB),
    st.integers(1, 300 * KIB),
)


@settings(deadline=None)
@given(mixtures, st.floats(0.0, 1.2), st.floats(0.0, 1.2))
def test_experts_leave_together_and_slots_take_what_is_left(
    extents: list[Extent], one: float, other: float
) -> None:
    file_bytes = extents[-1].file_offset + extents[-1].n_bytes
    experts = Experts.of(extents)
    found = [
        choose_residency(extents, file_bytes, int(share * file_bytes))
        for share in sorted((one, other))
    ]
    for share, chosen in zip(sorted((one, other)), found, strict=True):
        if chosen is None:
            assert int(share * file_bytes) < least_memory_bytes(extents, file_bytes)
            continue
        assert chosen.memory_bytes <= share * file_bytes
        assert chosen.resident_bytes + chosen.streamed_bytes + chosen.on_demand_bytes == file_bytes
        stay = {
            stays
            for e, stays in zip(extents, chosen.resident, strict=True)
            if e.role is Role.EXPERT
        }
        assert len(stay) == 1
        if stay == {True}:
            assert (chosen.expert_slots, chosen.expert_bytes) == (0, 0)
            continue
        assert experts.least_slots <= chosen.expert_slots <= experts.n
        assert chosen.expert_bytes == experts.n_bytes - experts.held_bytes(chosen.expert_slots)
    less, more = found
    if less is not None and more is not None:
        assert more.streamed_bytes <= less.streamed_bytes
        assert all(b or not a for a, b in zip(less.resident, more.resident, strict=True))
        if less.streamed_bytes == more.streamed_bytes and not all(more.resident):
            assert more.expert_bytes <= less.expert_bytes


def test_a_model_without_experts_has_no_slots() -> None:
    assert Experts.of([Extent(Role.FEED, 0, 0, 4096)]) == Experts()
    assert (Experts().slots_in(1 << 30), Experts().held_bytes(0), Experts().least_bytes) == (
        0,
        0,
        0,
    )
