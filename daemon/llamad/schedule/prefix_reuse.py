"""What prompts need not be read for, because the cache has it: taking it, and counting it.

Owns the numbers of ``GetStatus.prefix`` and a job's ``cached_prompt_tokens``. Which blocks hold
what is blocks.py's; what is on the disk, and comes from there, service/prefixes.py's.
"""

from dataclasses import dataclass
from typing import Protocol

from llamad.schedule.blocks import BlockPool
from llamad.schedule.generation import Generation
from llamad.schedule.sequence import Sequence


@dataclass(slots=True)
class ReuseCounts:
    """Since the model was loaded; a prompt is counted when it has been read to its end."""

    hits: int = 0  # prompts of which something was in the cache
    misses: int = 0
    tokens_reused: int = 0  # of prompts


class SavedBlocks(Protocol):
    """Blocks outside of the pool; called on the event loop's thread, must be quick."""

    def want(self, sequence: Sequence) -> bool:
        """Begin to bring what is saved of the sequence's next blocks; whether they are coming."""

    def on_used(self, sequence: Sequence, first: int) -> None:
        """Take note that the blocks from ``first`` on help one prompt more."""

    def on_read(self, generation: Generation) -> None:
        """Take note of a prompt that has been read to its end."""


class PrefixReuse:
    """Joins the sequences of jobs to the blocks that hold their beginning."""

    def __init__(self, pool: BlockPool) -> None:
        self.counts = ReuseCounts()
        self.saved: SavedBlocks | None = None
        self._pool = pool

    def take(self, generation: Generation) -> None:
        """Give a job what others have computed of its tokens. Between two steps, at any time.

        What the job computed itself before it was paused is not counted as cached. A text that is
        read for a vector takes nothing: its rows are in no cache.
        """
        if generation.pool is not None:
            return
        sequence, record = generation.sequence, generation.job.record
        known = max(sequence.n_computed, record.processed_prompt_tokens)
        first = sequence.n_shared
        if self._pool.reuse(sequence):
            gained = max(0, min(sequence.n_computed, sequence.n_prompt) - known)
            record.cached_prompt_tokens += gained
            self.counts.tokens_reused += gained
            if gained and self.saved is not None:
                self.saved.on_used(sequence, first)
        generation.blocks_coming = self.saved is not None and self.saved.want(sequence)

    def share(self, generation: Generation) -> None:
        """Let others take what a step has computed for a job that draws tokens."""
        if generation.pool is not None:
            return
        sequence = generation.sequence
        self._pool.share(sequence)
        if generation.prompt_counted or sequence.n_computed < sequence.n_prompt:
            return
        generation.prompt_counted = True
        if generation.job.record.cached_prompt_tokens:
            self.counts.hits += 1
        else:
            self.counts.misses += 1
        if self.saved is not None:
            self.saved.on_read(generation)
