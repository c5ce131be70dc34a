"""A small model that guesses, with an engine of its own: what it has read of each sequence.

Its state is a cache: blocks of a pool of its own, filled when a sequence begins to decode, given
back with it, and computed again wherever they are not there. A prompt is read when its sequence
decodes, in pieces, and not where that takes more than it may save.

Owns the blocks of the draft. When it guesses at all is draft.py's.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from llamad.engine.drafting import DraftChunk, DraftRound, Guess
from llamad.engine.worker import Drawn
from llamad.schedule.blocks import pool_of
from llamad.schedule.draft import MOST_GUESSES, DraftPlan, RoundLimits
from llamad.schedule.generation import Generation
from llamad.schedule.guesser import Guesser
from llamad.schedule.runtime import DraftRuntime
from llamad.schedule.sequence import Sequence as TokenSequence
from llamad.schedule.speculation import Speculation
from llamad.schedule.step import Part

BEHIND_ROWS = 2 * MOST_GUESSES  # tokens that a draft reads beside guessing; more are read alone
READ_SHARE = 0.1  # of the answer's time, for reading what stands before it, when nothing is known
SAVED_SHARE = 0.5  # likewise, of what the draft is known to save of that time
EXPECTED_TOKENS = 256  # of an answer that may be longer


@dataclass(slots=True)
class _Drafted:
    """What the draft has of one sequence."""

    guesser: Guesser
    state: TokenSequence  # the same tokens, and how far the draft has read them
    ahead: tuple[int, ...] = ()  # guesses that it has read behind them


class DraftModel:
    """Plans the rounds of a small model; a ``DraftPlanner``."""

    def __init__(self, draft: DraftRuntime, speculation: Speculation) -> None:
        self._draft = draft
        self._speculation = speculation
        self._sequences: dict[Generation, _Drafted] = {}
        self._pool = pool_of(draft)

    @property
    def name(self) -> str:
        """What the model is called."""
        return self._draft.name

    @property
    def guessers(self) -> Iterable[Guesser]:
        """Those of the sequences that it has read."""
        return (drafted.guesser for drafted in self._sequences.values())

    def note_step(self, step: Sequence[Part], drawn: Sequence[Drawn]) -> None:
        """Do nothing: it reads the tokens of sequences, and nothing of the model's steps."""

    def keep(self, living: AbstractSet[Generation]) -> None:
        """Give back the blocks of sequences that ended, or gave theirs back."""
        for generation in self._sequences.keys() - living:
            self._pool.release(self._sequences.pop(generation).state)

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Read and guess, on the engine thread. Raises the LlamadError of a step."""
        return self._draft.run(chunks)

    def note_guess(self, generation: Generation, chunk: DraftChunk, guess: Guess) -> None:
        """Count what was read; the last guess was not."""
        drafted = self._sequences[generation]
        drafted.state.n_computed += len(chunk.tokens)
        drafted.ahead = guess.tokens[:-1]

    def plan(self, decoding: Sequence[Generation], limits: RoundLimits) -> DraftPlan:
        """Return what the draft reads and guesses now."""
        plan = DraftPlan()
        rows = self._draft.n_batch
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
                rows -= self._add(plan, generation, drafted, drafted.state.n_pending, limits)
        within = limits.cost.rows_within(limits.seconds)
        rows = min(rows, within - (self._draft.n_batch - rows))
        for generation, drafted in reading:
            n_tokens = min(rows, drafted.state.n_pending)
            if n_tokens > 0 and self._is_worth_reading(generation, drafted, limits, len(decoding)):
                rows -= self._add(plan, generation, drafted, n_tokens, limits)
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

    def _is_worth_reading(
        self, generation: Generation, drafted: _Drafted, limits: RoundLimits, n: int
    ) -> bool:
        """Whether reading the prompt takes little time beside what it may save of the answer's."""
        record = generation.job.record
        left = min(record.max_tokens - record.completion_tokens, EXPECTED_TOKENS)
        saving = self._speculation.draft_saving(n)
        share = READ_SHARE if saving is None else max(READ_SHARE, SAVED_SHARE * saving)
        per_step, per_row = limits.cost.line()
        n_tokens = drafted.state.n_pending
        seconds = -(-n_tokens // self._draft.n_batch) * per_step + n_tokens * per_row
        return seconds <= share * left * limits.value.token

    def _add(
        self,
        plan: DraftPlan,
        generation: Generation,
        drafted: _Drafted,
        n_tokens: int,
        limits: RoundLimits,
    ) -> int:
        """Add a sequence's next tokens to the round, and guesses if those are its last.

        Returns the rows that it takes: none without room, or with a token that the draft has not.
        """
        state, record = drafted.state, generation.job.record
        end = state.n_computed + n_tokens
        tokens = tuple(state.tokens[state.n_computed : end])
        left = record.max_tokens - record.completion_tokens - 1
        room = min(self._pool.room(state), self._draft.n_ctx - state.n_computed) - n_tokens
        n_guesses = min(limits.most, left, room + 1) if end == len(state.tokens) else 0
        useless = end == len(state.tokens) and n_guesses < 1
        if room < 0 or useless or max(tokens) >= self._draft.vocab_size:
            return 0
        self._pool.grow(state, n_tokens + max(0, n_guesses - 1))
        plan.whose.append((generation, drafted.guesser))
        plan.chunks.append(
            DraftChunk(
                tokens,
                state.n_computed,
                tuple(state.blocks),
                n_guesses,
                limits.value.least_chance,
                drafted.guesser.trust,
                self._pool.local.named_by(state),
            )
        )
        return n_tokens
