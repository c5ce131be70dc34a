"""Whose turn it is: which job starts next, which gives way, and which take part in a step.

DESIGN. A job waits by its class, then by what its owner has used (shares.py) and what the owner's
running jobs are expected to use, then by age. Four rules keep that from starving anybody:

- *Ageing*: a job that starves counts as a class more urgent for each ``ageing_seconds``, without
  end. A job starves while it waits and no job of its owner and class runs: an owner's long queue is
  not made urgent by its length.
- *Protection*: a job that ageing has put before a more urgent class keeps its place for a quarter
  of ``ageing_seconds``, so that it goes on a little each time.
- *Slicing*: a job that starves takes a place even of its own class, once the job that has the place
  has had it for ``ageing_seconds``, and at least half of the time for something new.
- While a prompt is read, jobs of lower classes take no rows of its steps; one that got none for
  ``ageing_seconds`` counts as a class more urgent here too.

Running jobs stand by class, then by age: so the first always gets the blocks it needs.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

from llamad.jobs.request import Priority
from llamad.schedule.generation import Generation
from llamad.schedule.shares import Shares
from llamad.schedule.standing import Standing

PROTECTED_SHARE = 0.25  # of ageing_seconds
AGEING_SECONDS = 60.0

Rank = tuple[float, float, int]


class Policy:
    """The order of the jobs of one scheduler."""

    def __init__(
        self,
        shares: Shares,
        expected_seconds: Callable[[Generation], float],
        ageing_seconds: float = AGEING_SECONDS,
    ) -> None:
        """``expected_seconds``: of compute that a job will still take."""
        self.ageing_seconds = ageing_seconds
        self._shares = shares
        self._expected_seconds = expected_seconds
        self._ran_at: dict[
            tuple[str, Priority], float
        ] = {}  # flows with waiting jobs: the last time

    # ---- jobs that wait ---------------------------------------------------------------------

    def waiting_rank(
        self, running: Sequence[Generation], now: float
    ) -> Callable[[Generation], Rank]:
        """Return the function that says where a waiting job stands now, the lowest in front."""
        flows = {generation.standing.flow for generation in running}
        expected: defaultdict[str, float] = defaultdict(float)
        for generation in running:
            expected[generation.standing.owner] += self._expected_seconds(generation)
        known: dict[tuple[str, Priority], tuple[float, float]] = {}  # what holds for a whole flow

        def of_flow(standing: Standing) -> tuple[float, float]:
            """Return what the owner uses, and since when its jobs starve at the earliest."""
            flow, owner = standing.flow, standing.owner
            ran_at = now if flow in flows else self._ran_at.get(flow, 0.0)
            return self._shares.used(owner, now) + expected[owner], ran_at

        def rank(generation: Generation) -> Rank:
            standing = generation.standing
            of = known.get(standing.flow)
            if of is None:
                of = known[standing.flow] = of_flow(standing)
            used, ran_at = of
            starved = now - max(standing.waiting_since, ran_at)
            return standing.priority - int(starved / self.ageing_seconds), used, generation.number

        return rank

    # ---- starting and stopping --------------------------------------------------------------

    def note_start(self, generation: Generation, waiting: Iterable[Generation], now: float) -> None:
        """Take note of a job that starts, before others that wait."""
        standing = generation.standing
        standing.started_at = standing.last_row_at = now
        standing.caught_up_at = None
        overtakes = any(other.standing.priority < standing.priority for other in waiting)
        standing.protected_until = now + PROTECTED_SHARE * self.ageing_seconds if overtakes else 0.0

    def note_row(self, generation: Generation, now: float) -> None:
        """Take note of a step that computed something for a job."""
        standing = generation.standing
        standing.last_row_at = now
        if standing.caught_up_at is None and generation.sequence.n_pending <= 1:
            standing.caught_up_at = now

    def note_stop(
        self, stopped: Sequence[Generation], waiting: Iterable[Generation], now: float
    ) -> None:
        """Take note of jobs that run no more, because they ended or were paused."""
        if not stopped:
            return
        flows = {generation.standing.flow for generation in (*waiting, *stopped)}
        self._ran_at = {flow: at for flow, at in self._ran_at.items() if flow in flows}
        for generation in stopped:
            generation.standing.waiting_since = self._ran_at[generation.standing.flow] = now

    # ---- jobs that run ----------------------------------------------------------------------

    def running_order(self, running: Iterable[Generation], now: float) -> list[Generation]:
        """Return the jobs that run, the one that gives way last in front."""
        return sorted(running, key=lambda g: (self._running_class(g, now), g.number))

    def gives_way(self, runs: Generation, waits: Generation, rank: Rank, now: float) -> bool:
        """Whether a job that runs gives its place to one that waits with this rank."""
        standing = runs.standing
        if now < standing.protected_until:
            return False
        if waits.standing.priority < standing.priority:
            return True
        if rank[0] >= standing.priority or standing.caught_up_at is None:
            return False
        catching_up = standing.caught_up_at - standing.started_at
        return now - standing.caught_up_at >= max(self.ageing_seconds, catching_up)

    def taking_part(self, ready: Sequence[Generation], now: float) -> list[Generation]:
        """Return those that take rows of the next step: none beside a more urgent prompt."""
        prompts = [g for g in ready if not g.sequence.decodes]
        most_urgent = min((self._step_class(g, now) for g in prompts), default=Priority.BATCH)
        return [g for g in ready if self._step_class(g, now) <= most_urgent]

    def _running_class(self, generation: Generation, now: float) -> int:
        standing = generation.standing
        return Priority.INTERACTIVE if now < standing.protected_until else standing.priority

    def _step_class(self, generation: Generation, now: float) -> int:
        lifted = int((now - generation.standing.last_row_at) / self.ageing_seconds)
        return max(Priority.INTERACTIVE, self._running_class(generation, now) - lifted)
