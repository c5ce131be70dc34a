"""Extents for tests of what divides memory."""

from llamad.engine.info import Extent, Role


def feed_extents(file_bytes: int) -> tuple[Extent, ...]:
    """Return a file of this size in 256 extents of a feed-forward, in 16 layers."""
    cuts = [file_bytes * i // 256 for i in range(257)]
    return tuple(Extent(Role.FEED, i // 16, cuts[i], cuts[i + 1] - cuts[i]) for i in range(256))
