"""Who runs: the jobs that wait, the jobs that have a place, and how a place changes hands.

Owns both lists. A job has a place with the blocks that it may need soon. Where places or blocks are
short, jobs that the next one may displace (policy.py) are paused: they give their blocks back,
which stay findable while there is room, and wait again with the tokens they have.
"""

from collections.abc import Callable, Sequence

from llamad.jobs.record import JobState
from llamad.jobs.request import Priority
from llamad.schedule.blocks import BlockPool
from llamad.schedule.estimate import Estimate
from llamad.schedule.generation import Generation
from llamad.schedule.policy import Policy, Rank

LOOK_SECONDS = 5e-4  # for each job that waits: until the next look at all, if nothing happens


class Places:
    """The places of one engine, and who waits for them. Times are monotonic seconds."""

    def __init__(self, pool: BlockPool, policy: Policy, estimate: Estimate, n_places: int) -> None:
        self.waiting: list[Generation] = []  # in no order; some may have ended
        self.running: list[Generation] = []  # with blocks, or about to get some; likewise
        self._pool = pool
        self._policy = policy
        self._estimate = estimate
        self._n_places = n_places
        self._some_ended = False  # since ``free_ended``
        self._look_at = 0.0  # when time alone may have made room for somebody

    def add(self, generation: Generation, now: float) -> None:
        """Let a job wait from now on."""
        generation.standing.waiting_since = now
        self.waiting.append(generation)
        self._look_at = 0.0

    def expected(self, now: float) -> tuple[list[Generation], list[float]]:
        """Return the jobs that wait, in their order, and the seconds until each starts.

        No seconds where nothing is known of what steps cost.
        """
        rank = self._policy.waiting_rank(self.running, now)
        ordered = sorted(self.queued, key=rank)
        running = [generation for generation in self.running if not generation.job.ended]
        return ordered, self._estimate.waits(ordered, running)

    @property
    def queued(self) -> list[Generation]:
        """The jobs that wait."""
        if not self._some_ended:
            return self.waiting
        return [generation for generation in self.waiting if not generation.job.ended]

    def note_end(self) -> None:
        """Take note that a job has ended."""
        self._some_ended = True

    def free_ended(self, now: float) -> None:
        """Take the places and blocks of jobs that have ended."""
        if not self._some_ended:
            return
        self.waiting = self.queued
        ended = [generation for generation in self.running if generation.job.ended]
        for generation in ended:
            self._pool.release(generation.sequence)
            self._estimate.note_end(generation)
        self.running = [g for g in self.running if not g.job.ended]
        self._policy.note_stop(ended, self.waiting, now)
        self._some_ended = False
        self._look_at = 0.0

    def next(self, now: float) -> Generation | None:
        """Return the job that starts next, if one can, with its place; it waits no more.

        A job that has no room keeps those behind it waiting, but for more urgent classes: these may
        find room that the first, which ageing put there, may not take. A long queue in which nobody
        came or went is not looked at for every step.
        """
        if now < self._look_at:
            return None
        rank = self._policy.waiting_rank(self.running, now)
        tried: Priority | None = None
        for generation in sorted(self._first_of_each_class(rank), key=rank):
            priority = generation.standing.priority
            if tried is not None and priority >= tried:
                continue
            if self._make_room(generation, rank(generation), now):
                self.waiting.remove(generation)
                self._policy.note_start(generation, self.waiting, now)
                self.running.append(generation)
                return generation
            tried = priority
        self._look_at = now + LOOK_SECONDS * len(self.waiting)
        return None

    def _first_of_each_class(self, rank: Callable[[Generation], Rank]) -> list[Generation]:
        first: dict[Priority, Generation] = {}
        for generation in sorted(self.waiting, key=rank):
            first.setdefault(generation.standing.priority, generation)
        return list(first.values())

    def _make_room(self, generation: Generation, rank: Rank, now: float) -> bool:
        """Pause as many jobs as it takes to start this one; none where it cannot start."""
        taken = self._to_pause(generation, rank, now)
        if taken is None:
            return False
        self.pause(taken, now)
        return True

    def _to_pause(self, generation: Generation, rank: Rank, now: float) -> list[Generation] | None:
        """Return who has to give way so that this one can start; None: it cannot."""
        staying = self._policy.running_order(self.running, now)
        givers = [g for g in staying if self._policy.gives_way(g, generation, rank, now)]
        taken: list[Generation] = []
        while not self._has_room(generation, staying, taken):
            if not givers:
                return None
            taken.append(givers.pop())
            staying.remove(taken[-1])
        return taken

    def _has_room(
        self, generation: Generation, running: list[Generation], paused: list[Generation]
    ) -> bool:
        """Whether a job can start beside those that run, once some others are paused.

        Each that runs may still need the blocks of its tokens and one to grow into; what is left
        beyond that keeps a job from starting only to give its blocks back at once.
        """
        if not running:
            return True
        if len(running) >= self._n_places:
            return False
        sequences = [other.sequence for other in (*running, generation)]
        if not self._pool.has_room_for(sequences):
            return False
        wanted = sum(self._pool.n_new(s, len(s.tokens)) + 1 for s in sequences)
        return wanted <= self._pool.n_free + sum(len(other.sequence.blocks) for other in paused)

    def pause(self, generations: Sequence[Generation], now: float) -> None:
        """Take the places and blocks of jobs that run."""
        for generation in generations:
            self._pool.release(generation.sequence)
            generation.pause()
        self.wait_again(generations, now)

    def wait_again(self, paused: Sequence[Generation], now: float) -> None:
        """Let jobs that gave their blocks back wait for another place."""
        for generation in paused:
            self.running.remove(generation)
            generation.job.move(JobState.QUEUED)
            self._look_at = 0.0
        self.waiting.extend(paused)
        self._policy.note_stop(paused, self.waiting, now)
