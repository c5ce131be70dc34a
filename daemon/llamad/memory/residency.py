"""Which parts of a model file stay in memory where not all of it fits, and what streams.

A file that is read in a circle through too small a page cache is read whole in every round: what
comes next was always just dropped. So a fixed part stays, and only the rest is read, once a step.

Extents leave in a fixed order, so that with less memory more of them leave and none comes back:

1. the embedding, of which a step reads a row for each of its tokens, where they lie;
2. experts, of which a step reads those that it chooses;
3. the feed-forwards, most of the file, spread evenly: the layer that streams least gives the next
   extent. So the reader has the computing of the layers between to hide behind;
4. the matrices of the attention in the same way; then the output.

Norms and biases always stay. What is in no extent (the metadata, and a table of which a step reads
a row for each token) is no part of this: the kernel keeps or drops its pages as it likes. Pure
arithmetic on bytes; the engine says which extents there are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamad.engine.info import Extent, Role

PAGE_BYTES = 4096
LEAST_RING, MOST_RING = 3, 8  # of the longest extents, read ahead of their use; between them
RING_SHARE = 16  # this part of what streams

_ON_DEMAND = (Role.EMBEDDING, Role.EXPERT)  # read where a step needs them, never streamed
_SPREAD = (Role.EXPERT, Role.FEED, Role.ATTENTION, Role.OUTPUT)  # in order of leaving


@dataclass(frozen=True, slots=True)
class Residency:
    """What stays of a model file. resident: one entry for each extent, in the engine's order."""

    resident: tuple[bool, ...]
    resident_bytes: int
    streamed_bytes: int  # read from the disk in every step
    on_demand_bytes: int  # the rest of the file: read where a token needs a row, or once at load
    ring_bytes: int  # what the reader reads ahead into
    overhead_bytes: int  # the ring, tables, and the torn pages at the ends of what stays

    @property
    def memory_bytes(self) -> int:
        """Everything that this takes of memory."""
        return self.resident_bytes + self.overhead_bytes


def choose_residency(
    extents: Sequence[Extent], file_bytes: int, room_bytes: int | None
) -> Residency | None:
    """Return what stays in ``room_bytes`` (None: no limit), as much as fits.

    None when even streaming everything that can be streamed takes more.
    """
    everything = Residency(
        resident=(True,) * len(extents),
        resident_bytes=sum(extent.n_bytes for extent in extents),
        streamed_bytes=0,
        on_demand_bytes=file_bytes - sum(extent.n_bytes for extent in extents),
        ring_bytes=0,
        overhead_bytes=0,
    )
    if room_bytes is None or whole_bytes(extents, file_bytes) <= room_bytes:
        return everything
    return _fewest_that_leave(extents, everything, room_bytes)


def whole_bytes(extents: Sequence[Extent], file_bytes: int) -> int:
    """Return what everything that may stay takes, with the pages at its ends.

    The whole file, where its extents are not known.
    """
    if not extents:
        return file_bytes
    stays = sum(extent.n_bytes for extent in extents) + len(extents) * PAGE_BYTES
    return min(file_bytes, stays)


def least_memory_bytes(extents: Sequence[Extent], file_bytes: int) -> int:
    """Return the least room for which there is a residency."""
    order = leaving_order(extents)
    stays = sum(e.n_bytes for e in extents) - sum(extents[i].n_bytes for i in order)
    streamed = sum(extents[i].n_bytes for i in order if extents[i].role not in _ON_DEMAND)
    ring = _ring_bytes(_longest(extents), streamed)
    return min(file_bytes, stays + ring + _table_bytes(extents, file_bytes))


def leaving_order(extents: Sequence[Extent]) -> list[int]:
    """Return the extents that may leave memory, by number, those that leave first in front."""
    order = [i for i, extent in enumerate(extents) if extent.role is Role.EMBEDDING]
    for role in _SPREAD:
        order += _spread([i for i, extent in enumerate(extents) if extent.role is role], extents)
    return order


def _fewest_that_leave(
    extents: Sequence[Extent], everything: Residency, room_bytes: int
) -> Residency | None:
    """Let extents leave in their order until the others fit beside a ring for those."""
    file_bytes = everything.resident_bytes + everything.on_demand_bytes
    tables, longest = _table_bytes(extents, file_bytes), _longest(extents)
    on_demand = streamed = 0
    resident = [True] * len(extents)
    for i in leaving_order(extents):
        resident[i] = False
        if extents[i].role in _ON_DEMAND:
            on_demand += extents[i].n_bytes
        else:
            streamed += extents[i].n_bytes
        stays = everything.resident_bytes - on_demand - streamed
        ring = _ring_bytes(longest, streamed)
        if stays + tables + ring <= room_bytes:
            return Residency(
                resident=tuple(resident),
                resident_bytes=stays,
                streamed_bytes=streamed,
                on_demand_bytes=everything.on_demand_bytes + on_demand,
                ring_bytes=ring,
                overhead_bytes=tables + ring,
            )
    return None


def _longest(extents: Iterable[Extent]) -> int:
    """Return the bytes of the longest extent that may stream, with the pages it lies in."""
    longest = max((e.n_bytes for e in extents if e.role not in _ON_DEMAND), default=0)
    return (-(-longest // PAGE_BYTES) + 2) * PAGE_BYTES


def _ring_bytes(longest: int, streamed_bytes: int) -> int:
    """Return the bytes of a ring. Never less for more that streams: room decides what streams."""
    if not streamed_bytes:
        return 0
    return min(max(streamed_bytes // RING_SHARE, LEAST_RING * longest), MOST_RING * longest)


def _table_bytes(extents: Sequence[Extent], file_bytes: int) -> int:
    """Return what is taken beside the extents: torn pages, and the engine's two bytes a page."""
    return len(extents) * PAGE_BYTES + 2 * -(-file_bytes // PAGE_BYTES)


def _spread(numbers: Sequence[int], extents: Sequence[Extent]) -> list[int]:
    """Return the extents so that each beginning of the list takes evenly from all layers."""
    layers: dict[int, list[int]] = {}
    for i in numbers:
        layers.setdefault(extents[i].layer, []).append(i)
    turns: list[tuple[int, int, int]] = []  # bytes that its layer gave before, layer, extent
    for rank, mine in zip(_scattered(len(layers)), layers.values(), strict=True):
        given = 0
        for _, i in sorted(zip(_scattered(len(mine)), mine, strict=True)):
            turns.append((given, rank, i))
            given += extents[i].n_bytes
    return [i for _, _, i in sorted(turns)]


def _scattered(n: int) -> list[int]:
    """Return a rank for each of n places, so that those of low rank lie far from each other.

    The bits of the place in reverse (van der Corput's sequence).
    """
    bits = max(1, (n - 1).bit_length())
    return [int(f"{place:0{bits}b}"[::-1], 2) for place in range(n)]
