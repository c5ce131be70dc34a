"""What happened since the service started, counted for monitoring.

Owns the counters and histograms: plain numbers, moved on the event loop's thread. It knows no
format (``metrics.py`` writes them) and keeps nothing of a job, neither its text nor its user.
"""

import copy
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from llamad.jobs.event import Timings
from llamad.jobs.record import JobSnapshot
from llamad.jobs.request import Priority

# Upper bounds. A board answers the first token of a short prompt in a tenth of a second, that of a
# long prompt, or of a model that streams, in minutes.
WAIT_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
FIRST_TOKEN_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600)
OUTPUT_TOKEN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
STEP_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
STEP_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)

MOST_REASONS = 200  # of errors, each a series; they stand in the code, so there are fewer
OTHER_REASONS = "OTHER"


class Histogram:
    """How many values came below each bound, and their sum."""

    def __init__(self, bounds: Sequence[float]) -> None:
        """Begin without a value; ``bounds`` ascend, a value above the last counts too."""
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(bounds) + 1)  # of values above the bound before, to this bound
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value


class Measures:
    """The counters of one run of the service; an observer of its jobs, steps and failed calls."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[Priority, str]] = Counter()  # of jobs: finish reason, or "failed"
        self.job_errors: Counter[str] = Counter()  # by reason
        self.call_errors: Counter[str] = Counter()  # by reason
        self.wait_seconds = {priority: Histogram(WAIT_SECONDS) for priority in Priority}
        self.first_token_seconds = {
            priority: Histogram(FIRST_TOKEN_SECONDS) for priority in Priority
        }
        self.output_token_seconds = Histogram(OUTPUT_TOKEN_SECONDS)
        self.step_rows = Histogram(STEP_ROWS)
        self.step_seconds = Histogram(STEP_SECONDS)

    def copy(self) -> "Measures":
        """Return the numbers as they are now, for another thread."""
        return copy.deepcopy(self)

    def on_ended(self, snapshot: JobSnapshot, timings: Timings) -> None:
        """Count a job that ended: how, and what its client waited for."""
        reason = snapshot.finish_reason
        end = snapshot.state.value if reason is None else reason.value
        self.ends[snapshot.priority, end] += 1
        if snapshot.error_reason:
            _count_reason(self.job_errors, snapshot.error_reason)
        if snapshot.processed_prompt_tokens:
            self.wait_seconds[snapshot.priority].observe(timings.queue_seconds)
        if snapshot.completion_tokens:
            self.first_token_seconds[snapshot.priority].observe(timings.time_to_first_token_seconds)
        if snapshot.completion_tokens > 1:
            self.output_token_seconds.observe(timings.time_per_output_token_seconds)

    def on_step(self, n_rows: int, seconds: float) -> None:
        """Count a step of the engine that succeeded."""
        self.step_rows.observe(n_rows)
        self.step_seconds.observe(seconds)

    def on_call_failed(self, reason: str) -> None:
        """Count a call that ended with an error."""
        _count_reason(self.call_errors, reason)


def _count_reason(counter: Counter[str], reason: str) -> None:
    known = reason in counter or len(counter) < MOST_REASONS
    counter[reason if known else OTHER_REASONS] += 1
