"""Which parts of a model file stay in memory where not all of it fits, and what streams.

A file that is read in a circle through too small a page cache is read whole in every round: what
comes next was always just dropped. So a fixed part stays, and only the rest is read, once a step.

Extents leave in a fixed order, so that with less memory more of them leave and none comes back:

1. the embedding, of which a step reads a row for each of its tokens, where they lie;
2. experts, all together. A step needs those that it chooses, so memory for some of them is not
   tied to any: it is slots, which the engine gives to those that are used most;
3. the feed-forwards, most of the file, spread evenly: the layer that streams least gives the next
   extent. So the reader has the computing of the layers between to hide behind;
4. the matrices of the attention in the same way; then the output.

Norms and biases always stay. What is in no extent (the metadata, and a table of which a step reads
a row for each token) is no part of this: the kernel keeps or drops its pages as it likes. Pure
arithmetic on bytes; the engine says which extents there are.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llamad.engine.info import Extent, Role

PAGE_BYTES = 4096
EXPERT_MATRICES = 3
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
    on_demand_bytes: int  # the rest of the file: read where a token needs it, or once at load
    expert_bytes: int  # of these, of experts, which are read when a step chooses them
    expert_slots: int  # for experts that do not stay; the bytes that they hold are resident
    ring_bytes: int  # what the reader reads ahead into
    overhead_bytes: int  # the ring, tables, and the torn pages at the ends of what stays

    @property
    def memory_bytes(self) -> int:
        """Everything that this takes of memory."""
        return self.resident_bytes + self.overhead_bytes


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of a model, and the slots that they need when they do not stay."""

    n: int = 0
    n_bytes: int = 0
    least_slots: int = 0  # a step may choose all experts of a layer
    slot_bytes: int = 0  # for the largest, each matrix with the pages that it lies in

    @classmethod
    def of(cls, extents: Iterable[Extent]) -> "Experts":
        """Return what there is to say of all experts of a model."""
        sizes: dict[tuple[int, int], int] = {}
        for e in extents:
            if e.role is Role.EXPERT:
                sizes[e.layer, e.expert] = sizes.get((e.layer, e.expert), 0) + e.n_bytes
        if not sizes:
            return cls()
        pages = -(-max(sizes.values()) // PAGE_BYTES) + 2 * EXPERT_MATRICES
        in_layers = Counter(layer for layer, _ in sizes)
        return cls(len(sizes), sum(sizes.values()), max(in_layers.values()), pages * PAGE_BYTES)

    @property
    def least_bytes(self) -> int:
        """What the fewest slots take."""
        return self.least_slots * self.slot_bytes

    def slots_in(self, room_bytes: int) -> int:
        """Return how many slots there are in some room."""
        return min(self.n, room_bytes // self.slot_bytes) if self.n else 0

    def held_bytes(self, n_slots: int) -> int:
        """Return what so many slots hold, as the engine counts it."""
        return self.n_bytes // self.n * n_slots if self.n else 0


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
        expert_bytes=0,
        expert_slots=0,
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
    slots = Experts.of(extents).least_bytes
    return min(file_bytes, stays + ring + slots + _table_bytes(extents, file_bytes))


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
    experts, order = Experts.of(extents), leaving_order(extents)
    last_expert = max((k for k, i in enumerate(order) if extents[i].role is Role.EXPERT), default=0)
    gone = Experts()  # those that left
    on_demand = streamed = 0
    resident = [True] * len(extents)
    for place, i in enumerate(order):
        resident[i] = False
        if extents[i].role in _ON_DEMAND:
            on_demand += extents[i].n_bytes
        else:
            streamed += extents[i].n_bytes
        if extents[i].role is Role.EXPERT:
            gone = experts
            if place < last_expert:
                continue  # they leave together
        stays = everything.resident_bytes - on_demand - streamed
        ring = _ring_bytes(longest, streamed)
        room = room_bytes - stays - tables - ring
        if room >= gone.least_bytes:
            n_slots = gone.slots_in(room)
            held = gone.held_bytes(n_slots)
            return Residency(
                resident=tuple(resident),
                resident_bytes=stays + held,
                streamed_bytes=streamed,
                on_demand_bytes=everything.on_demand_bytes + on_demand - held,
                expert_bytes=gone.n_bytes - held,
                expert_slots=n_slots,
                ring_bytes=ring,
                overhead_bytes=tables + ring + n_slots * gone.slot_bytes - held,
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
