"""What a step costs, learned from the steps before: seconds = per_step + per_row * rows.

A least-squares line through recent steps, older ones weighing less. Rows are not time: a row takes
0.3 ms of a small model on a PC and 150 ms of a 7B on a Raspberry Pi 4, and where weights are read
from a card it is the step that costs, not the row. So the scheduler bounds steps in seconds, and
asks here how many rows that is.

Where weights stream, a step takes at least as long as the disk needs for them (``read_seconds``),
and rows are computed meanwhile. When that alone is dear, a prompt is read in as large steps as
there is room for: its rows wait for the disk once, not in each turn.
"""

import sys

DECAY = 0.9  # weight of a step after each later one
FIRST_ROWS = 32  # of a prompt's first step, when nothing is known
GROWTH = 2  # a step has at most this many times the rows of the largest recent one
MIN_SPREAD = 0.01  # variance over squared mean of the rows: a deviation of a tenth
LEAST_SHARE = 1e-3  # of the time is the rows', however little they seem to cost
AMORTIZE = 2.0  # a step lasts at least this many times its fixed cost


class StepCost:
    """The cost of a step as a line; rows and seconds."""

    def __init__(self) -> None:
        self._weight = self._rows = self._seconds = 0.0  # weighted sums
        self._rows_rows = self._rows_seconds = 0.0
        self._largest = 0.0  # rows of a recent step
        self._fixed_rows = 0.0  # per_step / per_row, when it was seen last
        self.read_seconds = 0.0  # which the disk needs for a step; 0: nothing streams

    def observe(self, rows: int, seconds: float) -> None:
        """Learn from a step that was computed."""
        self._weight = self._weight * DECAY + 1.0
        self._rows = self._rows * DECAY + rows
        self._seconds = self._seconds * DECAY + seconds
        self._rows_rows = self._rows_rows * DECAY + rows * rows
        self._rows_seconds = self._rows_seconds * DECAY + rows * seconds
        self._largest = max(rows, self._largest * DECAY)
        self._separate()

    def line(self) -> tuple[float, float]:
        """Return (per_step, per_row) seconds; both 0 before the first step.

        Steps of alike many rows do not tell the two apart: then their proportion stays what it was.
        """
        if not self._weight:
            return 0.0, 0.0
        mean_rows, mean_seconds = self._rows / self._weight, self._seconds / self._weight
        per_row = mean_seconds / (mean_rows + self._fixed_rows)
        return self._fixed_rows * per_row, per_row

    def _separate(self) -> None:
        """Fit the line anew, where the rows of recent steps differ enough."""
        spread = self._weight * self._rows_rows - self._rows**2
        if spread < MIN_SPREAD * self._rows**2 or self._seconds <= 0.0:
            return
        slope = (self._weight * self._rows_seconds - self._rows * self._seconds) / spread
        slope = max(slope, LEAST_SHARE * self._seconds / self._rows)
        self._fixed_rows = max(0.0, (self._seconds - slope * self._rows) / (slope * self._weight))

    def waits_for_the_disk(self, budget_seconds: float) -> bool:
        """Whether a step of this length would be mostly for reading what streams."""
        return AMORTIZE * self.read_seconds > budget_seconds

    def rows_behind_reading(self) -> int:
        """Return how many rows are computed while the disk reads what a step streams."""
        _, per_row = self.line()
        return int(self.read_seconds / per_row) if per_row else 0

    def rows_within(self, budget_seconds: float) -> int:
        """Return how many rows a step of this length may have.

        A step whose fixed cost is dear is made longer, so that more rows share it.
        """
        if self.waits_for_the_disk(budget_seconds):
            return sys.maxsize
        if not self._weight:
            return FIRST_ROWS
        per_step, per_row = self.line()
        most = max(FIRST_ROWS, int(GROWTH * self._largest))
        left = max(budget_seconds, AMORTIZE * per_step) - per_step
        return most if per_row * most <= left else int(left / per_row)
