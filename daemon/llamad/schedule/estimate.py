"""How long jobs will take, estimated from what steps cost and how long answers have been.

Owns the mean length of completions. Nothing is decided by it but the order of owners whose jobs
run, and nothing promised: a client is told what is likely.
"""

import heapq
from collections.abc import Sequence
from itertools import groupby

from llamad.jobs.record import JobState
from llamad.schedule.cost import StepCost
from llamad.schedule.generation import Generation

RECENT_WEIGHT = 0.1  # of the newest completion in the mean length
LEAST_LEFT = 0.25  # of the mean length, for a job that has outlived it


class Estimate:
    """Seconds that are left of jobs, and until others start."""

    def __init__(self, cost: StepCost, n_places: int, n_batch: int) -> None:
        self._cost = cost
        self._n_places = n_places
        self._n_batch = n_batch
        self._mean_tokens = 0.0  # of completions that came to their natural end
        self._n_decoding = self._n_prompts = 0  # in the latest step
        self._step_seconds = 0.0  # that it might take

    def note_end(self, generation: Generation) -> None:
        """Learn from a job that ended."""
        record = generation.job.record
        if record.state is not JobState.FINISHED or record.request.embedding is not None:
            return
        weight = RECENT_WEIGHT if self._mean_tokens else 1.0
        self._mean_tokens += weight * (record.completion_tokens - self._mean_tokens)

    def note_step(self, step: Sequence[Generation], step_seconds: float) -> None:
        """Take note of who shares the next step, and how long it may take."""
        self._step_seconds = step_seconds
        self._n_prompts = sum(generation.sequence.n_pending > 1 for generation in step)
        self._n_decoding = len(step) - self._n_prompts

    def tokens_left(self, generation: Generation) -> float:
        """Return how many tokens a job will probably say yet."""
        record = generation.job.record
        most = record.max_tokens - record.completion_tokens
        if not self._mean_tokens:
            return most
        likely = max(self._mean_tokens - record.completion_tokens, LEAST_LEFT * self._mean_tokens)
        return min(most, likely)

    def compute_seconds(self, generation: Generation) -> float:
        """Return what a job will probably still take of the engine, its share of steps."""
        per_step, per_row = self._cost.line()
        per_token = per_row + per_step / max(1, self._n_decoding)
        unread = max(0, generation.sequence.n_pending - 1)
        return unread * per_row + self.tokens_left(generation) * per_token

    def prompt_seconds(self, generation: Generation) -> float | None:
        """Return how long it takes until a job has read its prompt, beside those that run."""
        per_step, per_row = self._cost.line()
        if not per_row:
            return None
        n_prompts = max(1, self._n_prompts)
        left = n_prompts * max(0, generation.sequence.n_prompt - generation.sequence.n_computed)
        rows = self._cost.rows_within(self._step_seconds) - self._n_decoding
        rows = max(1, min(rows, self._n_batch - self._n_decoding))
        n_steps = -(-left // rows)
        return left * per_row + n_steps * (per_step + self._n_decoding * per_row)

    def waits(self, ordered: Sequence[Generation], running: Sequence[Generation]) -> list[float]:
        """Return the seconds until each waiting job starts, in their order; empty: not known.

        Whoever is more urgent than a job that runs gets that one's place at once.
        """
        per_step, per_row = self._cost.line()
        if not per_row:
            return []
        token_seconds = per_step + per_row * min(self._n_places, len(ordered) + len(running))

        def duration(generation: Generation) -> float:
            unread = max(0, generation.sequence.n_pending - 1)
            return unread * per_row + self.tokens_left(generation) * token_seconds

        nobody = 1 << 10  # less urgent than any class
        places = [(duration(g), int(g.standing.priority)) for g in running]
        places += [(0.0, nobody)] * (self._n_places - len(running))
        result: list[float] = []
        for priority, group in groupby(ordered, key=lambda g: int(g.standing.priority)):
            places = [(0.0 if holder > priority else at, holder) for at, holder in places]
            heapq.heapify(places)
            for generation in group:
                at = places[0][0]
                result.append(at)
                heapq.heapreplace(places, (at + duration(generation), priority))
        return result
