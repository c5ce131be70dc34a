"""How long a step of batch jobs may take while somebody interactive is likely to come.

DESIGN. An interactive job joins the next step, so it waits for the step that runs. Steps are not
alike: one that reads prompts or checks guesses takes a multiple of one in which everybody decodes.
After an interactive job has run, steps that work for batch jobs alone are kept short for
RECENT_SECONDS: whoever asks a house something often asks again. Where nobody interactive came,
batch jobs have steps as long as everybody's.

Short steps cost the batch something: a prompt takes more of them, and each has its fixed cost.
Jobs that decode beside it need those steps in any case, so what is lost is the fixed cost by the
share of the prompts among the jobs. That is kept within LOST_SHARE of the time: what is not lost is
saved for later, and when nothing is saved, a step is as long as it takes to lose no more than that.
So short prompts among long answers are always cut, and a batch that does little but read keeps its
rate: then who comes waits longer.

Where weights stream nothing is cut: every step waits for the disk.
"""

from collections.abc import Sequence

from llamad.jobs.request import Priority
from llamad.schedule.cost import StepCost
from llamad.schedule.generation import Generation

RECENT_SECONDS = 600.0  # the shares of owners remember an interactive job as long (shares.py)
SHORT = 1.5  # times a step in which all decode: leaves half of such a step for arriving
LOST_SHARE = 0.1  # of the batch's time
MOST_SAVED_STEPS = 50  # whose fixed cost the batch may lose at once


class ShortSteps:
    """Bounds the steps of one engine. Times are monotonic seconds."""

    def __init__(self, cost: StepCost) -> None:
        self._cost = cost
        self._until = 0.0
        self._saved = 0.0  # seconds that the batch may lose beyond LOST_SHARE

    def note(self, running: Sequence[Generation], now: float) -> None:
        """Take note of who runs."""
        if any(g.standing.priority is Priority.INTERACTIVE for g in running):
            self._until = now + RECENT_SECONDS

    def seconds(
        self, jobs: Sequence[Generation], budget_seconds: float, now: float
    ) -> float | None:
        """Return how long the next step of these jobs may take; None: it need not be short."""
        per_step, per_row = self._cost.line()
        prompts = [g for g in jobs if not g.sequence.decodes]
        if now >= self._until or self._cost.read_seconds or not per_row or not jobs:
            return None
        if any(g.standing.priority is not Priority.BATCH for g in prompts or jobs):
            return None
        short = SHORT * (per_step + per_row * len(jobs))
        whole = per_step + per_row * sum(g.sequence.n_pending for g in jobs)
        lost = per_step * len(prompts) / len(jobs)
        if prompts and self._saved < lost:
            short = max(short, lost / LOST_SHARE)
            if short >= budget_seconds:
                self._save(per_step, LOST_SHARE * min(budget_seconds, whole))
                return None
        if prompts:
            short = min(short, budget_seconds)
        self._save(per_step, LOST_SHARE * min(short, whole) - (lost if short < whole else 0.0))
        return short

    def _save(self, per_step: float, seconds: float) -> None:
        self._saved = min(MOST_SAVED_STEPS * per_step, self._saved + seconds)
