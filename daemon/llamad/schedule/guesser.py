"""What may come next in one sequence: what its format demands, else what others guess.

First the sequence's own n-grams, then a draft. Owns how well the guesses went for this sequence:
what those that cost nothing to make have lost (balance.py), and how far a draft may be believed.
The step checks every guess, so none of this changes an answer.
"""

from collections.abc import Sequence

from llamad.engine.drafting import Guess
from llamad.engine.worker import StepConstraint
from llamad.schedule.balance import Balance
from llamad.schedule.prompt_lookup import PromptLookup

# Of the ratio between right guesses and expected ones: so many are taken as right beforehand, and
# each counts less with every token that follows.
PRIOR_GUESSES = 4.0
DECAY = 0.98


class Guesser:
    """The guesses of one sequence."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self.balance = Balance()  # of what the format demands and of the n-grams
        self.constraint: StepConstraint | None = None  # of a sequence that has a format
        self._lookup = PromptLookup(tokens)
        self._drafted = Guess()
        self._offered = Guess()  # of the draft, and in the step that is computed
        self._expected = self._right = 0.0
        self._guessed = self._accepted = 0

    @property
    def looked_up(self) -> bool:
        """Whether the format or the n-grams have a guess now: then a draft's is not needed."""
        return not self.balance.rests and bool(self._demanded(1) or self._lookup.draft(1))

    def _demanded(self, limit: int) -> tuple[int, ...]:
        """Return what must come next; a model may spell it with other tokens."""
        return () if self.constraint is None else self.constraint.forced_tokens(limit)

    @property
    def drafted(self) -> bool:
        """Whether the guesses of the step that is computed are a draft's."""
        return bool(self._offered.tokens)

    @property
    def trust(self) -> float:
        """How often a draft's guesses were right, over how often it expected that."""
        return (self._right + PRIOR_GUESSES) / (self._expected + PRIOR_GUESSES)

    def append(self, token: int) -> None:
        """Add the sequence's next token."""
        self._lookup.append(token)
        self.balance.pass_step()
        self._drafted = Guess()
        self._expected *= DECAY
        self._right *= DECAY

    def offer(self, drafted: Guess) -> None:
        """Keep a draft's guess until the next token is there."""
        self._drafted = drafted

    def guess(self, limit: int, *, free: bool = False) -> tuple[int, ...]:
        """Return up to ``limit`` tokens that may come next; free: their rows cost nothing."""
        self._offered = Guess()
        if self.looked_up:
            return self._demanded(limit) or self._lookup.draft(
                limit, free=free and not self._drafted.tokens
            )
        if limit > 0:
            self._offered = self._drafted
        return self._drafted.tokens[: max(0, limit)]

    def judge(self, n_guessed: int, n_accepted: int) -> None:
        """Take note of how many of the guessed tokens were right."""
        if not self.drafted:
            return
        self._guessed += n_guessed
        self._accepted += n_accepted
        for i in range(min(n_guessed, n_accepted + 1)):  # a guess behind a wrong one tells nothing
            self._expected += self._offered.probabilities[i]
            self._right += float(i < n_accepted)

    def take_counts(self) -> tuple[int, int]:
        """Return how many tokens a draft guessed, and how many were right, since the last call."""
        counts = self._guessed, self._accepted
        self._guessed = self._accepted = 0
        return counts
