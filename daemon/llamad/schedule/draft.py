"""A draft model at work: before each step it guesses for the sequences that decode.

The step checks the guesses, so the draft changes how long an answer takes and nothing else. Its
state is a cache: blocks of a pool of its own, filled when a sequence begins to decode, given back
with it, and computed again wherever they are not there.

How far it guesses follows from what a guess costs and what a right one saves, as the steps of both
engines show: it stops where the guesses so far are too unlikely to be right together. Whether it
guesses at all is speculation.py's, by the time that it really saves. Its own time is charged to the
owners of the sequences.

Owns the blocks of the draft. The guesses of a sequence are guesser.py's, how many rows a step has
for them is step.py's, the forward passes are engine/drafting.py's.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from llamad.engine.drafting import DraftChunk, DraftRound
from llamad.engine.worker import EngineWorker
from llamad.errors import LlamadError
from llamad.logs import fields
from llamad.schedule.blocks import BlockPool, pool_of
from llamad.schedule.cost import StepCost
from llamad.schedule.generation import Generation
from llamad.schedule.guesser import Guesser
from llamad.schedule.runtime import DraftRuntime
from llamad.schedule.sequence import Sequence as TokenSequence
from llamad.schedule.speculation import Speculation
from llamad.schedule.step import StepComposer

logger = logging.getLogger(__name__)

MOST_GUESSES = 16  # of a sequence in a step
BEHIND_ROWS = 2 * MOST_GUESSES  # tokens that a draft reads beside guessing; more are read alone
READ_SHARE = 0.1  # of the answer's time, for reading what stands before it, when nothing is known
SAVED_SHARE = 0.5  # likewise, of what the draft is known to save of that time
EXPECTED_TOKENS = 256  # of an answer that may be longer


@dataclass(frozen=True, slots=True)
class DraftCounts:
    """What GetStatus tells of the draft; tokens since the model was loaded."""

    name: str
    guessed: int
    accepted: int
    paused: bool
    fault: str  # empty: none


@dataclass(slots=True)
class _Drafted:
    """What the draft has of one sequence."""

    guesser: Guesser
    state: TokenSequence  # the same tokens, and how far the draft has read them
    ahead: tuple[int, ...] = ()  # guesses that it has read behind them


@dataclass(slots=True)
class _Value:
    """What a round costs and what a right guess saves, in seconds, with n sequences."""

    draft: float  # of one step of the draft
    row: float  # of one more row in a step of the model
    token: float  # of the model's time for a token

    @property
    def least_chance(self) -> float:
        """Return the chance below which one more guess costs more than it saves."""
        return min(1.0, (self.draft + self.row) / self.token) if self.token > 0 else 0.0


@dataclass(slots=True)
class _Plan:
    """The chunks of one round, and whose they are."""

    chunks: list[DraftChunk] = field(default_factory=list)
    whose: list[tuple[Generation, _Drafted]] = field(default_factory=list)


class Drafts:
    """The draft of one loaded model; without one, it does nothing."""

    def __init__(
        self,
        draft: DraftRuntime | None,
        worker: EngineWorker,
        composer: StepComposer,
        cost: StepCost,
        speculation: Speculation,
        charge: Callable[[Mapping[str, int], float], None],
    ) -> None:
        """cost: of the model's steps, which others feed.

        charge: takes the rows of each owner in a round, and its seconds.
        """
        self._draft = draft
        self._name = "" if draft is None else draft.name
        self._fault = ""
        self._worker = worker
        self._composer = composer
        self._model_cost = cost
        self._cost = StepCost()  # of the draft's own steps
        self._speculation = speculation
        self._charge = charge
        self._value = _Value(0.0, 0.0, 0.0)  # in the last round
        self._sequences: dict[Generation, _Drafted] = {}
        self._guessed = self._accepted = 0
        self._tried = False  # whether the draft has made a step
        self._pool = BlockPool(1, 1) if draft is None else pool_of(draft)

    def counts(self) -> DraftCounts | None:
        """Return what GetStatus tells; None without a draft."""
        if not self._name:
            return None
        rests = self._speculation.draft_rests
        return DraftCounts(self._name, self._guessed, self._accepted, rests, self._fault)

    @property
    def n_free_blocks(self) -> int:
        """Blocks of its cache that no sequence has."""
        return self._pool.n_free

    async def prepare(self, running: Sequence[Generation], step_seconds: float) -> None:
        """Let the draft guess for the next step; at once where there is nothing to guess.

        ``step_seconds``: how long a step may take; reading takes no longer. Between this and the
        step no token may come to a sequence.
        """
        if self._draft is None:
            return
        self._settle()
        self._forget(running)
        self._speculation.draft_seconds = None
        living = [g for g in running if not g.job.ended]
        decoding = [g for g in living if g.sequence.decodes]
        n = len(decoding)
        if not n or (n == len(living) and self._speculation.wants_plain(n)):
            return
        if not self._speculation.draft_may_guess(n):
            return
        plan = self._plan(self._draft, decoding, step_seconds)
        if plan.chunks:
            await self._run(self._draft, plan)

    def _settle(self) -> None:
        """Count what became of the guesses of the last step."""
        for drafted in self._sequences.values():
            guessed, accepted = drafted.guesser.take_counts()
            self._guessed += guessed
            self._accepted += accepted

    def _forget(self, running: Iterable[Generation]) -> None:
        """Give back the blocks of sequences that ended, or gave theirs back."""
        gone = self._sequences.keys() - {g for g in running if not g.job.ended}
        for generation in gone:
            self._pool.release(self._sequences.pop(generation).state)

    # ---- a round --------------------------------------------------------------------------------

    def _plan(
        self, draft: DraftRuntime, decoding: Sequence[Generation], step_seconds: float
    ) -> _Plan:
        """Return what the draft reads and guesses now."""
        plan = _Plan()
        n = len(decoding)
        most = min(MOST_GUESSES, self._composer.guess_rows(n, step_seconds) // n)
        if most < 1:
            return plan
        draft_step, draft_row = self._cost.line()
        per_step, per_row = self._model_cost.line()
        row = self._speculation.row_seconds(n)
        if row is None:
            row = per_row if per_step else 0.0  # not told apart yet
        self._value = _Value(
            draft=draft_step / n + draft_row,
            row=row,
            token=(self._speculation.plain_seconds(n) or per_step + n * per_row) / n,
        )
        if not self._tried:  # nothing is known of its steps: a first one tells
            most = 1
        rows = draft.n_batch
        reading: list[tuple[Generation, _Drafted]] = []
        for generation in decoding:
            drafted = self._drafted(generation)
            if drafted is None:
                continue
            self._catch_up(drafted)
            self._pool.share(drafted.state)
            if drafted.state.n_pending > BEHIND_ROWS:
                reading.append((generation, drafted))
            elif rows >= drafted.state.n_pending and not drafted.guesser.looked_up:
                rows -= self._add(plan, generation, drafted, drafted.state.n_pending, most)
        seconds = max(step_seconds, per_step + n * per_row)
        rows = min(rows, self._cost.rows_within(seconds) - (draft.n_batch - rows))
        for generation, drafted in reading:
            n_tokens = min(rows, drafted.state.n_pending)
            if n_tokens > 0 and self._is_worth_reading(generation, drafted, n):
                rows -= self._add(plan, generation, drafted, n_tokens, most)
        return plan

    def _drafted(self, generation: Generation) -> _Drafted | None:
        """Return what the draft has of a sequence; None where it does not guess."""
        if generation.guesser is None:
            return None
        drafted = self._sequences.get(generation)
        if drafted is None:
            sequence = generation.sequence
            state = TokenSequence(
                sequence.tokens,
                sequence.n_prompt,
                own_keys=sequence.own_keys,
                public_keys=sequence.public_keys,
            )
            self._pool.reuse(state)
            drafted = self._sequences[generation] = _Drafted(generation.guesser, state)
        return drafted

    @staticmethod
    def _catch_up(drafted: _Drafted) -> None:
        """Count as read what was guessed and came; the last token is read again for its logits."""
        state = drafted.state
        for token in drafted.ahead:
            if state.n_pending == 0 or state.tokens[state.n_computed] != token:
                break
            state.n_computed += 1
        drafted.ahead = ()
        state.n_computed = min(state.n_computed, len(state.tokens) - 1)

    def _is_worth_reading(self, generation: Generation, drafted: _Drafted, n: int) -> bool:
        """Whether reading the prompt takes little time beside what it may save of the answer's."""
        assert self._draft is not None
        record = generation.job.record
        left = min(record.max_tokens - record.completion_tokens, EXPECTED_TOKENS)
        saving = self._speculation.draft_saving(n)
        share = READ_SHARE if saving is None else max(READ_SHARE, SAVED_SHARE * saving)
        per_step, per_row = self._cost.line()
        n_tokens = drafted.state.n_pending
        seconds = -(-n_tokens // self._draft.n_batch) * per_step + n_tokens * per_row
        return seconds <= share * left * self._value.token

    def _add(
        self, plan: _Plan, generation: Generation, drafted: _Drafted, n_tokens: int, most: int
    ) -> int:
        """Add a sequence's next tokens to the round, and guesses if those are its last.

        Returns the rows that it takes: none without room, or with a token that the draft has not.
        """
        assert self._draft is not None
        state, record = drafted.state, generation.job.record
        end = state.n_computed + n_tokens
        tokens = tuple(state.tokens[state.n_computed : end])
        left = record.max_tokens - record.completion_tokens - 1
        room = min(self._pool.room(state), self._draft.n_ctx - state.n_computed) - n_tokens
        n_guesses = min(most, left, room + 1) if end == len(state.tokens) else 0
        useless = end == len(state.tokens) and n_guesses < 1
        if room < 0 or useless or max(tokens) >= self._draft.vocab_size:
            return 0
        self._pool.grow(state, n_tokens + max(0, n_guesses - 1))
        plan.whose.append((generation, drafted))
        plan.chunks.append(
            DraftChunk(
                tokens,
                state.n_computed,
                tuple(state.blocks),
                n_guesses,
                self._value.least_chance,
                drafted.guesser.trust,
                self._pool.local.named_by(state),
            )
        )
        return n_tokens

    async def _run(self, draft: DraftRuntime, plan: _Plan) -> None:
        try:
            result: DraftRound = await self._worker.call(lambda: draft.run(plan.chunks))
        except Exception as error:
            self._give_up(error)
            return
        self._tried = True
        for rows, seconds in result.steps:
            self._cost.observe(rows, seconds)
        owners: Counter[str] = Counter()
        for (generation, drafted), chunk, guess in zip(
            plan.whose, plan.chunks, result.guesses, strict=True
        ):
            drafted.state.n_computed += len(chunk.tokens)
            drafted.ahead = guess.tokens[:-1]
            drafted.guesser.offer(guess)
            owners[generation.standing.owner] += len(chunk.tokens) + len(drafted.ahead)
        seconds = sum(seconds for _, seconds in result.steps)
        self._charge(owners, seconds)
        if any(chunk.most for chunk in plan.chunks):
            n_read = sum(len(chunk.tokens) for chunk in plan.chunks if not chunk.most)
            self._speculation.draft_seconds = seconds - n_read * self._cost.line()[1]

    def _give_up(self, error: Exception) -> None:
        """Go on without the draft: its file was lost, or it has a bug. No answer is concerned."""
        known = isinstance(error, LlamadError)
        self._fault = error.message if isinstance(error, LlamadError) else "internal error"
        logger.error(
            fields("draft failed", draft=self._name, error=self._fault),
            exc_info=None if known else error,
        )
        self._forget(())
        self._draft = None
