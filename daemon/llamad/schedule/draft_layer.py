"""A layer of the model that guesses (multi-token prediction): whose next token it can guess now.

The layer has its part of the model's own blocks, which each step fills (native/src/engine/guess.c).
So it has nothing to read and no cache to give back; but it goes on from the row that a token was
drawn from, and the engine has the rows of the last step only. When it guesses at all is draft.py's.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

from llamad.engine.drafting import DraftChunk, DraftRound, Guess
from llamad.engine.worker import Drawn
from llamad.schedule.blocks import BlockPool
from llamad.schedule.draft import DraftPlan, RoundLimits
from llamad.schedule.generation import Generation
from llamad.schedule.guesser import Guesser
from llamad.schedule.runtime import GuessLayerRuntime, ModelRuntime
from llamad.schedule.step import Part

_Row = tuple[int, int]  # kept by the engine, and the sequence's tokens with the one drawn from it


class DraftLayer:
    """Plans the rounds of a layer; a ``DraftPlanner``."""

    def __init__(self, layer: GuessLayerRuntime, model: ModelRuntime, pool: BlockPool) -> None:
        """pool: of the model."""
        self._layer = layer
        self._model = model
        self._pool = pool
        self._of_last_step: dict[Generation, _Row] = {}
        self._rows: dict[Generation, _Row] = {}  # that the engine still has
        self._guessers: dict[Generation, Guesser] = {}  # of sequences that it guessed for

    @property
    def name(self) -> str:
        """What the layer is called."""
        return self._layer.name

    @property
    def guessers(self) -> Iterable[Guesser]:
        """Those of the sequences that it guessed for."""
        return self._guessers.values()

    def note_step(self, step: Sequence[Part], drawn: Sequence[Drawn]) -> None:
        """Take note of the row that each last token was drawn from."""
        self._of_last_step, k = {}, 0
        for (generation, chunk), tokens in zip(step, drawn, strict=True):
            if tokens and isinstance(tokens, tuple):
                n_before = chunk.position + len(chunk.tokens) - chunk.n_drafts
                row = k + len(tokens) - 1, n_before + len(tokens)
                self._of_last_step[generation] = row
            k += chunk.n_out

    def keep(self, living: AbstractSet[Generation]) -> None:
        """Forget the rows of earlier steps; a step that fails leaves none."""
        self._rows, self._of_last_step = self._of_last_step, {}
        for generation in self._guessers.keys() - living:
            del self._guessers[generation]

    def run(self, chunks: Sequence[DraftChunk]) -> DraftRound:
        """Guess, on the engine thread. Raises the LlamadError of a step."""
        return self._layer.run(chunks)

    def note_guess(self, generation: Generation, chunk: DraftChunk, guess: Guess) -> None:
        """Keep nothing: the next step fills what the layer reads."""

    def plan(self, decoding: Sequence[Generation], limits: RoundLimits) -> DraftPlan:
        """Return the tokens that it guesses behind."""
        plan = DraftPlan()
        if self._model.step_read_seconds > 0:  # a guess would read the output from the disk
            return plan
        for generation in decoding:
            row = self._rows.get(generation)
            guesser, sequence = generation.guesser, generation.sequence
            if row is None or guesser is None or guesser.looked_up:
                continue
            if row[1] != len(sequence.tokens):  # another token follows that row
                continue
            chunk = self._chunk(generation, guesser, row[0], limits, len(decoding))
            if chunk is not None:
                self._guessers[generation] = guesser
                plan.whose.append((generation, guesser))
                plan.chunks.append(chunk)
        return plan

    def _chunk(
        self, generation: Generation, guesser: Guesser, row: int, limits: RoundLimits, n: int
    ) -> DraftChunk | None:
        """Return the last token of a sequence; None without room to guess behind it.

        A block more is taken only where each of the n sequences has one, too: a guess lets nobody
        wait.
        """
        sequence, record = generation.sequence, generation.job.record
        position = len(sequence.tokens) - 1
        n_blocks = len(sequence.blocks) + (self._pool.n_free > n)
        room = min(n_blocks * self._pool.block_tokens, self._model.n_ctx) - position
        n_guesses = min(limits.most, record.max_tokens - record.completion_tokens - 1, room)
        if n_guesses < 1:
            return None
        self._pool.grow(sequence, position + n_guesses - sequence.n_computed)
        return DraftChunk(
            (sequence.tokens[position],),
            position,
            tuple(sequence.blocks),
            n_guesses,
            limits.value.least_chance,
            guesser.trust,
            self._pool.local.named_by(sequence),
            row=row,
        )
