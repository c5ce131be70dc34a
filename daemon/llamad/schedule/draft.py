"""A draft at work: before each step it guesses for the sequences that decode.

The step checks the guesses, so the draft changes how long an answer takes and nothing else. What
guesses is a *planner*: a small model with an engine and a cache of its own (draft_model.py), or a
layer of the model itself (draft_layer.py).

How far it guesses follows from what a guess costs and what a right one saves, as the steps of both
show: it stops where the guesses so far are too unlikely to be right together. Whether it guesses at
all is speculation.py's, by the time that it really saves. Its own time is charged to the owners of
the sequences.

The guesses of a sequence are guesser.py's, how many rows a step has for them is step.py's, the
forward passes are engine/drafting.py's.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from llamad.engine.drafting import DraftChunk, DraftRound, Guess
from llamad.engine.worker import Drawn, EngineWorker
from llamad.errors import LlamadError
from llamad.logs import fields
from llamad.schedule.cost import StepCost
from llamad.schedule.generation import Generation
from llamad.schedule.guesser import Guesser
from llamad.schedule.speculation import Speculation
from llamad.schedule.step import Part, StepComposer

logger = logging.getLogger(__name__)

MOST_GUESSES = 16  # of a sequence in a step


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """What GetStatus tells of the draft; tokens since the model was loaded."""

    name: str
    guessed: int
    accepted: int
    paused: bool
    fault: str  # empty: none


@dataclass(slots=True)
class Value:
    """What a round costs and what a right guess saves, in seconds, with n sequences."""

    draft: float  # of one step of the draft
    row: float  # of one more row in a step of the model
    token: float  # of the model's time for a token

    @property
    def least_chance(self) -> float:
        """Return the chance below which one more guess costs more than it saves."""
        return min(1.0, (self.draft + self.row) / self.token) if self.token > 0 else 0.0


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """What a planner needs to know of the next round."""

    value: Value
    most: int  # guesses of a sequence
    seconds: float  # that it may take
    cost: StepCost  # of the draft's own steps


@dataclass(slots=True)
class DraftPlan:
    """The chunks of one round, and whose they are."""

    chunks: list[DraftChunk] = field(default_factory=list)
    whose: list[tuple[Generation, Guesser]] = field(default_factory=list)


class DraftPlanner(Protocol):
    """What guesses, and how far it is with each sequence."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def guessers(self) -> Iterable[Guesser]:
        """Those of the sequences that it may have guessed for."""

    def note_step(self, step: Sequence[Part], drawn: Sequence[Drawn]) -> None:
        """Take note of a step that the model has computed."""

    def keep(self, living: AbstractSet[Generation]) -> None:
        """Forget all other sequences; before each step, whether a round follows or not."""

    def plan(self, decoding: Sequence[Generation], limits: RoundLimits) -> DraftPlan:
        """Return what it reads and guesses now."""

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Read and guess, on the engine thread. Raises the LlamadError of a step."""

    def note_guess(self, generation: Generation, chunk: DraftChunk, guess: Guess) -> None:
        """Take note of what a round came to."""


class Drafts:
    """The draft of one loaded model; without one, it does nothing."""

    def __init__(
        self,
        planner: DraftPlanner | None,
        worker: EngineWorker,
        composer: StepComposer,
        cost: StepCost,
        speculation: Speculation,
        charge: Callable[[Mapping[str, int], float], None],
    ) -> None:
        """cost: of the model's steps, which others feed.

        charge: takes the rows of each owner in a round, and its seconds.
        """
        self._planner = planner
        self._name = "" if planner is None else planner.name
        self._fault = ""
        self._worker = worker
        self._composer = composer
        self._model_cost = cost
        self._cost = StepCost()  # of the draft's own steps
        self._speculation = speculation
        self._charge = charge
        self._guessed = self._accepted = 0
        self._tried = False  # whether the draft has made a step

    def counts(self) -> DraftCounts | None:
        """Return what GetStatus tells; None without a draft."""
        if not self._name:
            return None
        rests = self._speculation.draft_rests
        return DraftCounts(self._name, self._guessed, self._accepted, rests, self._fault)

    def note_step(self, step: Sequence[Part], drawn: Sequence[Drawn]) -> None:
        """Take note of a step that the model has computed, and of what was drawn."""
        if self._planner is not None:
            self._planner.note_step(step, drawn)

    async def prepare(self, running: Sequence[Generation], step_seconds: float) -> None:
        """Let the draft guess for the next step; at once where there is nothing to guess.

        ``step_seconds``: how long a step may take; reading takes no longer. Between this and the
        step no token may come to a sequence.
        """
        planner = self._planner
        if planner is None or self._fault:
            return
        self._settle(planner)
        living = [g for g in running if not g.job.ended]
        planner.keep(set(living))
        self._speculation.draft_seconds = None
        decoding = [g for g in living if g.sequence.decodes]
        n = len(decoding)
        if not n or (n == len(living) and self._speculation.wants_plain(n)):
            return
        if not self._speculation.draft_may_guess(n):
            return
        limits = self._limits(n, step_seconds)
        plan = planner.plan(decoding, limits) if limits.most > 0 else DraftPlan()
        if plan.chunks:
            await self._run(planner, plan)

    def _settle(self, planner: DraftPlanner) -> None:
        """Count what became of the guesses of the last step."""
        for guesser in planner.guessers:
            guessed, accepted = guesser.take_counts()
            self._guessed += guessed
            self._accepted += accepted

    def _limits(self, n: int, step_seconds: float) -> RoundLimits:
        """Return what is known beforehand of a round for n sequences."""
        most = min(MOST_GUESSES, self._composer.guess_rows(n, step_seconds) // n)
        draft_step, draft_row = self._cost.line()
        per_step, per_row = self._model_cost.line()
        row = self._speculation.row_seconds(n)
        if row is None:
            row = per_row if per_step else 0.0  # not told apart yet
        value = Value(
            draft=draft_step / n + draft_row,
            row=row,
            token=(self._speculation.plain_seconds(n) or per_step + n * per_row) / n,
        )
        if not self._tried:  # nothing is known of its steps: a first one tells
            most = min(most, 1)
        seconds = max(step_seconds, per_step + n * per_row)
        return RoundLimits(value, most, seconds, self._cost)

    async def _run(self, planner: DraftPlanner, plan: DraftPlan) -> None:
        try:
            result: DraftRound = await self._worker.call(lambda: planner.run(plan.chunks))
        except Exception as error:
            self._give_up(planner, error)
            return
        self._tried = True
        for rows, seconds in result.steps:
            self._cost.observe(rows, seconds)
        owners: Counter[str] = Counter()
        for (generation, guesser), chunk, guess in zip(
            plan.whose, plan.chunks, result.guesses, strict=True
        ):
            planner.note_guess(generation, chunk, guess)
            guesser.offer(guess)
            owners[generation.standing.owner] += len(chunk.tokens) + len(guess.tokens[:-1])
        seconds = sum(seconds for _, seconds in result.steps)
        self._charge(owners, seconds)
        if any(chunk.most for chunk in plan.chunks):
            n_read = sum(len(chunk.tokens) for chunk in plan.chunks if not chunk.most)
            self._speculation.draft_seconds = seconds - n_read * self._cost.line()[1]

    def _give_up(self, planner: DraftPlanner, error: Exception) -> None:
        """Go on without the draft: its file was lost, or it has a bug. No answer is concerned."""
        known = isinstance(error, LlamadError)
        self._fault = error.message if isinstance(error, LlamadError) else "internal error"
        logger.error(
            fields("draft failed", draft=self._name, error=self._fault),
            exc_info=None if known else error,
        )
        planner.keep(frozenset())
