"""What stays of a model that does not fit: for every shape of a model and every room."""

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from llamad.engine.info import Extent, Role
from llamad.memory.residency import (
    PAGE_BYTES,
    Residency,
    choose_residency,
    least_memory_bytes,
    leaving_order,
)

MIB = 1 << 20
HEADER_BYTES = 3 * MIB


def model_of(
    n_layers: int, matrices: Sequence[tuple[Role, int]], vocabulary: int, tied: bool
) -> tuple[Extent, ...]:
    """Return the extents of a model; matrices: (role, bytes) of each extent of every layer."""
    parts: list[tuple[Role, int, int]] = [(Role.VECTOR, layer, 1000) for layer in range(n_layers)]
    if not tied:
        parts += [(Role.EMBEDDING, -1, MIB)] * vocabulary
    for layer in range(n_layers):
        parts += [(role, layer, n_bytes) for role, n_bytes in matrices]
    parts += [(Role.OUTPUT, -1, MIB)] * vocabulary
    extents, offset = [], HEADER_BYTES
    for role, layer, n_bytes in parts:
        extents.append(Extent(role, layer, offset, n_bytes))
        offset += n_bytes
    return tuple(extents)


def file_bytes_of(extents: Sequence[Extent]) -> int:
    return extents[-1].file_offset + extents[-1].n_bytes


models = st.builds(
    model_of,
    st.integers(1, 48),
    st.lists(
        st.tuples(st.sampled_from([Role.ATTENTION, Role.FEED]), st.integers(1, 2 * MIB)),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 20),
    st.booleans(),
)
shares = st.floats(0.0, 1.2)  # of the file, as room


def chosen_for(extents: Sequence[Extent], share: float) -> Residency | None:
    file_bytes = file_bytes_of(extents)
    return choose_residency(extents, file_bytes, int(share * file_bytes))


def of_those_that_leave(extents: Sequence[Extent], residency: Residency) -> list[Extent]:
    return [e for e, stays in zip(extents, residency.resident, strict=True) if not stays]


@settings(deadline=None)
@given(models, shares)
def test_the_room_is_never_exceeded_and_every_byte_has_its_place(
    extents: tuple[Extent, ...], share: float
) -> None:
    file_bytes = file_bytes_of(extents)
    chosen = chosen_for(extents, share)
    if chosen is None:
        assert int(share * file_bytes) < least_memory_bytes(extents, file_bytes)
        return
    assert chosen.memory_bytes <= share * file_bytes
    assert chosen.resident_bytes + chosen.streamed_bytes + chosen.on_demand_bytes == file_bytes
    left = of_those_that_leave(extents, chosen)
    assert chosen.streamed_bytes == sum(e.n_bytes for e in left if e.role is not Role.EMBEDDING)
    assert not any(e.role is Role.VECTOR for e in left)
    if chosen.streamed_bytes:
        longest = max(e.n_bytes for e in left if e.role is not Role.EMBEDDING)
        assert chosen.overhead_bytes >= chosen.ring_bytes >= longest + 2 * PAGE_BYTES
    else:
        assert chosen.ring_bytes == 0


@settings(deadline=None)
@given(models, shares, shares)
def test_with_more_room_more_stays_and_nothing_leaves(
    extents: tuple[Extent, ...], one: float, other: float
) -> None:
    less, more = chosen_for(extents, min(one, other)), chosen_for(extents, max(one, other))
    if less is None:
        return
    assert more is not None
    assert more.streamed_bytes <= less.streamed_bytes
    assert all(b or not a for a, b in zip(less.resident, more.resident, strict=True))


@settings(deadline=None)
@given(models, shares)
def test_the_layers_stream_evenly_within_one_extent(
    extents: tuple[Extent, ...], share: float
) -> None:
    chosen = chosen_for(extents, share)
    if chosen is None:
        return
    for role in (Role.FEED, Role.ATTENTION):
        streamed = Counter({e.layer: 0 for e in extents if e.role is role})
        for extent in of_those_that_leave(extents, chosen):
            if extent.role is role:
                streamed[extent.layer] += extent.n_bytes
        longest = max((e.n_bytes for e in extents if e.role is role), default=0)
        assert not streamed or max(streamed.values()) - min(streamed.values()) <= longest


@settings(deadline=None)
@given(models)
def test_the_embedding_leaves_first_and_the_output_last(extents: tuple[Extent, ...]) -> None:
    order = [extents[i].role for i in leaving_order(extents)]
    ranks = [Role.EMBEDDING, Role.FEED, Role.ATTENTION, Role.OUTPUT]
    assert all(ranks.index(a) <= ranks.index(b) for a, b in pairwise(order))
    assert len(order) == sum(e.role is not Role.VECTOR for e in extents)


def test_what_streams_of_a_layer_lies_far_apart_in_it() -> None:
    extents = model_of(1, [(Role.FEED, MIB)] * 64, 1, tied=True)
    first = sorted(leaving_order(extents)[:8])
    assert [b - a for a, b in pairwise(first)] == [8] * 7


def test_a_file_that_fits_stays_whole_and_takes_nothing_beside() -> None:
    extents = model_of(4, [(Role.FEED, MIB)] * 8, 4, tied=False)
    for room in (None, file_bytes_of(extents)):
        chosen = choose_residency(extents, file_bytes_of(extents), room)
        assert chosen is not None
        assert all(chosen.resident)
        assert (chosen.overhead_bytes, chosen.on_demand_bytes) == (0, HEADER_BYTES)


def test_without_its_embedding_a_model_needs_no_ring() -> None:
    extents = model_of(4, [(Role.FEED, MIB)] * 8, 4, tied=False)
    room = file_bytes_of(extents) - HEADER_BYTES + len(extents) * PAGE_BYTES - 1
    chosen = choose_residency(extents, file_bytes_of(extents), room)
    assert chosen is not None
    assert (chosen.streamed_bytes, chosen.ring_bytes) == (0, 0)
    assert chosen.on_demand_bytes == HEADER_BYTES + MIB


def test_what_is_in_no_extent_needs_no_room() -> None:
    extents = model_of(4, [(Role.FEED, MIB)] * 8, 4, tied=True)
    file_bytes = file_bytes_of(extents) + 100 * MIB  # a table of which rows are read
    room = sum(extent.n_bytes for extent in extents) + len(extents) * PAGE_BYTES
    chosen = choose_residency(extents, file_bytes, room)
    assert chosen is not None
    assert all(chosen.resident)
    assert (chosen.overhead_bytes, chosen.on_demand_bytes) == (0, HEADER_BYTES + 100 * MIB)
    assert choose_residency(extents, file_bytes, room - 1) != chosen
