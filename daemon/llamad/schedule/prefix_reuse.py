"""What prompts need not be read for, because the cache has it: taking it, and counting it.

Owns the numbers of ``GetStatus.prefix`` and a job's ``cached_prompt_tokens``. Which blocks hold
what is blocks.py's.
"""

from dataclasses import dataclass

from llamad.schedule.blocks import BlockPool
from llamad.schedule.generation import Generation


@dataclass(slots=True)
class ReuseCounts:
    """Since the model was loaded; a prompt is counted when it has been read to its end."""

    hits: int = 0  # prompts of which something was in the cache
    misses: int = 0
    tokens_reused: int = 0  # of prompts


class PrefixReuse:
    """Joins the sequences of jobs to the blocks that hold their beginning."""

    def __init__(self, pool: BlockPool) -> None:
        self.counts = ReuseCounts()
        self._pool = pool

    def take(self, generation: Generation) -> None:
        """Give a job what others have computed of its tokens. Between two steps, at any time.

        What the job computed itself before it was paused is not counted as cached.
        """
        sequence, record = generation.sequence, generation.job.record
        known = max(sequence.n_computed, record.processed_prompt_tokens)
        if not self._pool.reuse(sequence):
            return
        gained = max(0, min(sequence.n_computed, sequence.n_prompt) - known)
        record.cached_prompt_tokens += gained
        self.counts.tokens_reused += gained

    def share(self, generation: Generation) -> None:
        """Let others take what a step has computed for a job."""
        self._pool.share(generation.sequence)
        if (
            generation.prompt_counted
            or generation.sequence.n_computed < generation.sequence.n_prompt
        ):
            return
        generation.prompt_counted = True
        if generation.job.record.cached_prompt_tokens:
            self.counts.hits += 1
        else:
            self.counts.misses += 1
