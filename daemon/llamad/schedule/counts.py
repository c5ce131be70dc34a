"""The numbers of one scheduler that its status tells. Plain data."""

from dataclasses import dataclass

from llamad.schedule.draft import DraftCounts
from llamad.schedule.prefix_reuse import ReuseCounts


@dataclass(frozen=True, slots=True)
class Counts:
    """What GetStatus tells about the jobs and the cache of the loaded model."""

    queued: int
    running: int
    queue_capacity: int
    sequence_slots: int
    kv_blocks_total: int
    kv_blocks_free: int  # the cached ones included
    kv_blocks_cached: int
    prefix: ReuseCounts
    seconds_per_token: float  # of a sequence alone; 0 before the first step
    draft: DraftCounts | None  # None without one
