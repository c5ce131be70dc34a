"""Measuring what guesses cost and save: the time of steps with them against that of steps without.

Owns the time of plain steps, for each number of sequences that decode, and what is charged to whom.
A plain step is made now and then where every step has guesses, because steps become dearer with the
length of the sequences and with whatever else the machine does. What a step took beyond a plain one
is shared among its guessed rows, and each right guess is worth a token's time in a plain step: so
all charges of a step add up to what it lost against plain steps, whatever a row costs and however
little that follows a line. A draft has a balance for each number of sequences, because its passes
serve them together; the n-grams of a sequence have their own (guesser.py).

Steps that also read prompts tell nothing: they are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from llamad.engine.worker import Chunk, Drawn
from llamad.schedule.balance import Balance
from llamad.schedule.generation import Generation

DECAY = 0.75  # weight of a plain step after each later one
OUTLIER = 3.0  # a plain step counts as at most so many times the mean of those before it
FIRST_DISTANCE, LAST_DISTANCE = 4, 64  # steps with guesses between two plain ones, doubled


@dataclass(slots=True)
class _Rate:
    """Seconds and what was done in them, older ones weighing less."""

    seconds: float = 0.0
    amount: float = 0.0

    @property
    def mean(self) -> float:
        """Seconds for one; 0 when nothing is known."""
        return self.seconds / self.amount if self.amount else 0.0

    def add(self, seconds: float, amount: float) -> None:
        self.seconds = self.seconds * DECAY + seconds
        self.amount = self.amount * DECAY + amount


@dataclass(slots=True)
class _Pace:
    """Steps in which one number of sequences decodes."""

    plain: _Rate = field(default_factory=_Rate)  # seconds of a step
    row: _Rate = field(default_factory=_Rate)  # seconds of a guessed row, beyond a plain step
    drafted: _Rate = field(default_factory=_Rate)  # seconds of a token, the draft's time included
    draft: Balance = field(default_factory=Balance)
    guessed: int = 0  # steps with guesses since the last plain one
    distance: int = FIRST_DISTANCE  # of plain steps

    def add_plain(self, seconds: float) -> None:
        if self.plain.amount:
            seconds = min(seconds, OUTLIER * self.plain.mean)
        self.plain.add(seconds, 1.0)
        self.guessed = 0
        self.distance = min(2 * self.distance, LAST_DISTANCE)


class Speculation:
    """What guessing has cost and saved in the steps of one engine."""

    def __init__(self) -> None:
        self._paces: dict[int, _Pace] = {}  # by the sequences that decode
        self._latest = _Pace()
        self.draft_seconds: float | None = None  # of the round before this step; None: no guesses

    def wants_plain(self, n_decoding: int) -> bool:
        """Whether the next step of only so many sequences that decode is to have no guesses."""
        pace = self._pace(n_decoding)
        return not pace.plain.amount or pace.guessed >= pace.distance

    def plain_seconds(self, n_decoding: int) -> float:
        """Return the time of a plain step; 0 when nothing is known."""
        return self._pace(n_decoding).plain.mean

    def row_seconds(self, n_decoding: int) -> float | None:
        """Return what a guessed row has cost lately; None when nothing is known."""
        rate = self._pace(n_decoding).row
        return max(0.0, rate.mean) if rate.amount else None

    @property
    def draft_rests(self) -> bool:
        """Whether the draft rests beside as many sequences as decoded last."""
        return self._latest.draft.rests

    def draft_may_guess(self, n_decoding: int) -> bool:
        """Whether the draft guesses before the next step; a step of its rest passes."""
        self._latest = pace = self._pace(n_decoding)
        resting = pace.draft.rests
        pace.draft.pass_step()
        return not resting

    def draft_saving(self, n_decoding: int) -> float | None:
        """Return the share of a token's time that the draft has saved lately; None: not known."""
        pace = self._pace(n_decoding)
        if not pace.drafted.amount or not pace.plain.mean:
            return None
        return 1.0 - pace.drafted.mean * n_decoding / pace.plain.mean

    def observe(
        self, step: Sequence[tuple[Generation, Chunk]], drawn: Sequence[Drawn], seconds: float
    ) -> None:
        """Charge a step that was computed to those whose guesses it checked.

        Call it before the tokens come to their sequences. ``drawn``: for each part of the step.
        """
        draft_seconds, self.draft_seconds = self.draft_seconds, None
        if not all(generation.sequence.decodes for generation, _ in step):
            return
        pace = self._pace(len(step))
        n_guessed = sum(len(chunk.tokens) - 1 for _, chunk in step)  # or computed again after such
        if n_guessed:
            pace.guessed += 1
        else:
            pace.add_plain(seconds)
        if not pace.plain.mean:
            return
        token = pace.plain.mean / len(step)
        more = (seconds - pace.plain.mean) / token
        if n_guessed:
            pace.row.add(seconds - pace.plain.mean, n_guessed)
        drafted_lost = 0.0
        for (generation, chunk), tokens in zip(step, drawn, strict=True):
            if generation.guesser is None or len(chunk.tokens) == 1:
                continue
            right = len(tokens) - 1 if isinstance(tokens, tuple) else 0
            lost = more * (len(chunk.tokens) - 1) / n_guessed - right
            if generation.guesser.drafted:
                drafted_lost += lost
            else:
                generation.guesser.balance.charge(lost)
        if draft_seconds is not None:
            pace.draft.charge(drafted_lost + draft_seconds / token)
            n_tokens = sum(len(tokens) for tokens in drawn if isinstance(tokens, tuple))
            pace.drafted.add(draft_seconds + seconds, n_tokens)

    def _pace(self, n_decoding: int) -> _Pace:
        return self._paces.setdefault(n_decoding, _Pace())
